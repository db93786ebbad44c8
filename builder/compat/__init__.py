"""Which combinations of framework, CUDA, Python, driver and GPU can work: facts with sources, and rules over them.

What is here is imported when it is first asked for: most commands judge cells, and few explain them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.compat.answer import as_json, describe, explain
    from builder.compat.judge import examine
    from builder.compat.load import load_facts
    from builder.compat.model import CPU, Answer, Combination, Facts, Finding, Reason
    from builder.compat.rules import RULES, Rule

__all__ = [
    "CPU",
    "RULES",
    "Answer",
    "Combination",
    "Facts",
    "Finding",
    "Reason",
    "Rule",
    "as_json",
    "describe",
    "examine",
    "explain",
    "load_facts",
]

_MODULES = {
    "answer": ("as_json", "describe", "explain"),
    "judge": ("examine",),
    "load": ("load_facts",),
    "model": ("CPU", "Answer", "Combination", "Facts", "Finding", "Reason"),
    "rules": ("RULES", "Rule"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
