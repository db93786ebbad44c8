"""Which files an import really loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builder.checks.contract import Measured, check, expect, fail
from builder.checks.groups.static import _elf, _imports


@check(
    "static.mapped",
    level="static",
    deadline=270,
    catches="A framework that cannot be imported, or that runs with another copy of a library that it brought.",
)
def run(state: Any) -> Measured:
    measured: dict[str, object] = {}
    for one in state.imports:
        if one.blame == _imports.IMPORT:
            fail(f"importing {one.module}: {one.error}", detail=one.detail)
        one.expect_imported(_imports.IMPORT)
        mapped = [Path(path) for path in one.mapped]
        elsewhere = _instead(mapped, state.files)
        expect(
            not elsewhere,
            f"{one.module} runs with {', '.join(f'{file} instead of {own}' for file, own in elsewhere[:3])}",
        )
        measured[one.module] = len(mapped)
    return measured


def _instead(mapped: list[Path], files: Any) -> list[tuple[Path, Path]]:
    """Libraries from outside the packages that have the name of one that a package with a mapped library brought."""
    inside = {path for path in mapped if any(root in path.parents for root in files.roots)}
    used = {_top(path, files.roots) for path in inside}
    brought: dict[str, list[Path]] = {}
    for path in files.libraries:
        library = _elf.read(path) if _top(path, files.roots) in used else None
        if library is not None:
            brought.setdefault(library.soname, []).append(path)
    found = []
    for path in mapped:
        library = _elf.read(path) if path not in inside else None
        copies = brought.get(library.soname, []) if library is not None else []
        if copies and not any(copy.resolve() in inside for copy in copies):
            found.append((path, copies[0]))
    return found


def _top(path: Path, roots: tuple[Path, ...]) -> Path:
    for root in roots:
        if root in path.parents:
            return root / path.relative_to(root).parts[0]
    return path
