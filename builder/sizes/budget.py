"""Whether an image keeps to its budget, and if it does not, what grew."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from builder.engine.connection import Engine
from builder.engine.errors import EngineError, ImageMissing
from builder.engine.images import inspect
from builder.errors import TooLarge
from builder.release.diff_show import clean, size
from builder.sizes.measure import Reader
from builder.sizes.model import ImageSize, Kind, LayerSize, Package

_TOLD = 8
"""Packages that are told; what takes an image above its budget is mostly one or two."""
_LAYERS = 3
_WIDTH = 100


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How much more (or less, below 0) a package takes than before; `before` is None where it is new."""

    package: Package
    before: int | None

    @property
    def bytes(self) -> int:
        """The difference."""
        return self.package.bytes - (self.before or 0)


@dataclass(frozen=True, kw_only=True)
class OverBudget:
    """An image that takes more than it may.

    Attributes:
        size: bytes that the engine says it takes.
        budget: bytes that it may take.
        before: bytes of the image that it is compared with; None where there is none.
        grown: packages that take more than in that image, those that grew most first; without one empty.
        largest: its packages, the largest first.
        layers: those that the other image has not, the largest first; without one all of them.
    """

    size: int
    budget: int
    before: int | None
    grown: tuple[Growth, ...]
    largest: tuple[Package, ...]
    layers: tuple[LayerSize, ...]

    @property
    def message(self) -> str:
        """One sentence: how much too large it is, and what is most to blame."""
        over = size(self.size - self.budget)
        said = f"the image takes {size(self.size)}, {over} more than its budget of {size(self.budget)}"
        if self.before is None:
            top = ", ".join(f"{clean(_name(item), _WIDTH)} {size(item.bytes)}" for item in self.largest[:3])
            return f"{said}; largest: {top}" if top else said
        top = ", ".join(f"{clean(_name(item.package), _WIDTH)} by {size(item.bytes)}" for item in self.grown[:3])
        return f"{said}; grown since the last good one ({size(self.before)}): {top or 'no package'}"

    @property
    def detail(self) -> tuple[str, ...]:
        """Lines for a reader: the packages and layers that matter."""
        lines = []
        if self.before is None:
            lines = [_package_line(item) for item in self.largest[:_TOLD]]
        for growth in self.grown[:_TOLD]:
            was = "new" if growth.before is None else f"was {size(growth.before)}"
            lines.append(clean(f"{f'+{size(growth.bytes)}':>10}  {_name(growth.package)} ({was})", _WIDTH))
        what = "layer" if self.before is None else "layer that the last good one has not"
        lines += [
            f"{size(layer.bytes):>10}  {what}: {clean(layer.made_by, _WIDTH) or layer.diff_id}"
            for layer in self.layers[:_LAYERS]
        ]
        return tuple(lines)

    def error(self, cell: str) -> TooLarge:
        """What a build of a cell fails with."""
        return TooLarge(
            self.message,
            where=cell,
            hint=f"`imgbuild size {cell}` shows all of it; make it smaller, or raise `budget` in matrix.yaml",
            detail=self.detail,
        )


def judge(engine: Engine, image_id: str, budget: int, previous_id: str | None = None) -> OverBudget | None:
    """Whether an image takes more than it may; None when it does not.

    One that keeps to it costs one question to the engine. Only one that does not is read, and `previous_id` with it,
    which takes some 6 s for each GB.

    Args:
        engine: that holds the image.
        image_id: the image.
        budget: bytes that it may take, unpacked, as `docker images` counts them.
        previous_id: the last good image of the same cell, to say what grew since; None, or one that the engine holds
            no longer, for no such comparison.

    Raises:
        ImageMissing: the image is gone.
        EngineUnavailable: the engine went away.
    """
    image = inspect(engine, image_id)
    if image is None:
        raise ImageMissing(f"the image {image_id} is gone")
    if image.size <= budget:
        return None
    reader = Reader(engine)
    found: ImageSize | None = None
    previous: ImageSize | None = None
    # What it is made of is a help. That it takes too much is known, also where the engine cannot save it.
    with contextlib.suppress(EngineError):
        found = reader.read(image.id)
        if previous_id is not None and previous_id != image.id and inspect(engine, previous_id) is not None:
            previous = reader.read(previous_id)
    return over_budget(found, previous, taken=image.size, budget=budget)


def over_budget(found: ImageSize | None, previous: ImageSize | None, *, taken: int, budget: int) -> OverBudget:
    """What there is to say of an image that takes too much.

    Args:
        found: the image; None where it could not be read.
        previous: the one to compare it with.
        taken, budget: bytes that it takes, and may take.
    """
    grown: list[Growth] = []
    old: frozenset[str] = frozenset()
    if found is not None and previous is not None:
        before = {(item.kind, item.name): item.bytes for item in previous.packages}
        grown = [Growth(package=item, before=before.get((item.kind, item.name))) for item in found.packages]
        grown = sorted((item for item in grown if item.bytes > 0), key=lambda item: -item.bytes)
        old = frozenset(layer.diff_id for layer in previous.layers)
    new = [layer for layer in (found.layers if found is not None else ()) if layer.diff_id not in old and layer.bytes]
    return OverBudget(
        size=taken,
        budget=budget,
        before=previous.bytes if previous is not None else None,
        grown=tuple(grown),
        largest=found.packages if found is not None else (),
        layers=tuple(sorted(new, key=lambda layer: -layer.bytes)),
    )


def _package_line(item: Package) -> str:
    return clean(f"{size(item.bytes):>10}  {_name(item)} {item.version}".rstrip(), _WIDTH)


def _name(item: Package) -> str:
    return f"other files in {item.name}" if item.kind is Kind.OTHER else item.name
