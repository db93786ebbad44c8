"""Cells as targets of `docker buildx bake`: a way to build what imgbuild renders, without its checks.

The file refers to what `imgbuild render -o DIR` writes. No target carries a public tag, since nothing is checked: each
has one that says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable

from builder.emit.jobs import digest_of, short_ids
from builder.lock.file import Locks
from builder.matrix.model import Base, Cell

UNCHECKED = "unchecked-"
"""How the tags of images from bake begin."""

TAG_LENGTH = 128


def pinned(base: Base, locks: Locks) -> str:
    """The base by the digest that `matrix.yaml` or its lock pins, and else as it is declared."""
    lock = locks.base(base.name)
    locked = lock.digest if lock is not None and lock.image == base.image else None
    digest = base.digest or locked
    return f"{base.image}@{digest}" if digest else base.image


def bake(cells: Iterable[Cell], directory: str, base: Callable[[Base], str]) -> str:
    """A `docker-bake.json` with one target for each cell, all of them in the group `default`.

    Args:
        cells: what to build.
        directory: what `imgbuild render -o` was given; relative to where bake will run.
        base: what a Dockerfile's `BASE` is set to.
    """
    cells = tuple(cells)
    targets: dict[str, object] = {}
    for name, short, cell in zip(
        _names(cells), short_ids([digest_of([cell.id]) for cell in cells]), cells, strict=True
    ):
        tag = UNCHECKED + cell.id
        targets[name] = {
            "context": directory,
            "dockerfile": f"{cell.id}.Dockerfile",
            "args": {"BASE": base(cell.base)},
            "tags": [f"{cell.repository}:{tag if len(tag) <= TAG_LENGTH else UNCHECKED + short}"],
        }
    # bake refuses an empty object of targets.
    document = {"group": {"default": {"targets": list(targets)}}, **({"target": targets} if targets else {})}
    return json.dumps(document, indent=2)


def _names(cells: Iterable[Cell]) -> list[str]:
    """The cells' ids in bake's alphabet, which has no dot; two that would be the same get their digest as well."""
    names = [(cell.id, re.sub(r"[^A-Za-z0-9_-]", "_", cell.id)) for cell in cells]
    seen: dict[str, int] = {}
    for _, name in names:
        seen[name] = seen.get(name, 0) + 1
    return [name if seen[name] == 1 else f"{name}-{digest_of([cell])[:16]}" for cell, name in names]
