"""What is installed, in how many versions, and whether it is what an import finds."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from builder.checks.contract import Measured, check, expect
from builder.checks.facts import canonical


@check(
    "static.versions",
    level="static",
    deadline=60,
    catches="A package in two versions, or of no known version, or of which imports find another copy.",
)
def run(state: Any) -> Measured:
    expect(not state.wrong, state.wrong[0] if state.wrong else "", all=state.wrong[:10])
    expect(bool(state.packages), "no installed package has metadata")
    shadowed = [f"import {name} gives {found}, not {own}" for name, found, own in _shadowed()]
    expect(not shadowed, shadowed[0] if shadowed else "", all=shadowed[:10])
    return {"packages": len(state.packages)}


def _shadowed() -> Iterator[tuple[str, Path, Path]]:
    """Modules that distributions brought and that imports find elsewhere: name, what is found, what was brought."""
    path = sys.path[1:]  # not this program itself
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        name = canonical(distribution.metadata["Name"] or "")
        if name in seen:
            continue  # the same version further back on sys.path
        seen.add(name)
        root = Path(str(distribution.locate_file(""))).resolve()
        for module in _modules(distribution.read_text("RECORD") or ""):
            own = root / module / "__init__.py"
            spec = importlib.machinery.PathFinder.find_spec(module, path)
            found = Path(spec.origin).resolve() if spec is not None and spec.origin else None
            if found is None or found == own.resolve() or not own.exists():
                continue
            if root not in found.parents and not _standard(found):
                yield module, found, own


def _standard(path: Path) -> bool:
    """Whether a file belongs to Python itself, which comes before packages of the same name."""
    inside = any(Path(sysconfig.get_path(name)).resolve() in path.parents for name in ("stdlib", "platstdlib"))
    return inside and not {"site-packages", "dist-packages"} & set(path.parts)


def _modules(record: str) -> set[str]:
    """The top-level packages that a RECORD names; the rest of what it names does not decide what is imported."""
    return set(re.findall(r"^([A-Za-z_]\w*)/__init__\.py,", record, re.MULTILINE))
