"""Which combinations of framework, CUDA, Python, driver and GPU can work: facts with sources, and rules over them."""

from __future__ import annotations

from builder.compat.answer import as_json, describe, explain
from builder.compat.judge import examine
from builder.compat.load import load_facts
from builder.compat.model import CPU, Answer, Combination, Facts, Finding, Reason
from builder.compat.nearest import nearest
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
    "nearest",
]
