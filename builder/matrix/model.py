"""The types that the matrix produces. All are frozen; every later stage carries the same `Cell`."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from builder.compat.model import Combination, Reason
from builder.source import Position

CPU = "cpu"
DISTRIBUTION: Final = "distribution"
UV: Final = "uv"
CONDA: Final = "conda"
RESERVED_CHANNELS: Final = ("python-build-standalone", "conda-forge")
"""Names in a site's `channels` for where `uv` and `conda` take Pythons from."""
INTERPRETERS: Final = (DISTRIBUTION, UV, CONDA)
"""Where a cell's Python comes from: its base's distribution, python-build-standalone through uv, or conda-forge."""
PYTORCH_INDEX: Final = "https://download.pytorch.org/whl"


@functools.total_ordering
class Level(Enum):
    """How far a check goes. Each level includes those before it; `<` compares them."""

    STATIC = "static"
    CPU = "cpu"
    GPU = "gpu"
    MULTI_GPU = "multi-gpu"
    MULTI_NODE = "multi-node"

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Level):
            return NotImplemented
        order = list(Level)
        return order.index(self) < order.index(other)


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What an image must have shown before it gets its names.

    Attributes:
        public: the level that it must reach for its tags and aliases; never above `verified`.
        verified: the level that it must reach for the same with `-verified`; at least `gpu` for a CUDA cell.
        max_age_days: days after which a check no longer counts for either; None for never.
    """

    public: Level
    verified: Level
    max_age_days: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """A package index that holds a framework's wheels for one CUDA version."""

    name: str
    url: str

    @property
    def of_pytorch(self) -> bool:
        """Whether it is PyTorch's own."""
        return f"{self.url}/".startswith(f"{PYTORCH_INDEX}/")

    @property
    def label(self) -> str | None:
        """Which builds one of PyTorch's own holds, as its last component says: "cpu", "cu126"; None for any."""
        last = self.url.rstrip("/").rpartition("/")[2] if self.of_pytorch else ""
        return last if re.fullmatch(r"cpu|cu[0-9]{2,4}", last) else None


def label_of(cuda: str) -> str:
    """The label at which PyTorch's indexes hold the builds for a CUDA version: "cu126" for "12.6"."""
    return cuda if cuda == CPU else f"cu{cuda.replace('.', '')}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Framework:
    """A framework at one version, as one cell installs it.

    Attributes:
        name: its name in `matrix.yaml`, for example "torch".
        version: the exact version in PEP 440's normal form.
        image: the last component of the image repository.
        template: the Dockerfile template, relative to `dockerfiles/`.
        constraints: the pip constraints file, relative to `dockerfiles/`, placeholders filled in; None for none.
        channel: where its wheels are; None for the package index alone.
    """

    name: str
    version: str
    image: str
    template: str
    constraints: str | None
    channel: Channel | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Bootstrap:
    """How to make a base's equivalent from a distribution's packages."""

    distribution: str
    suite: str
    include: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Base:
    """An image that cells are built from.

    Attributes:
        name: its name in `matrix.yaml`.
        image: name and tag, for example "debian:bookworm-slim".
        digest: "sha256:…" where the file pins it.
        bootstrap: the equivalent where no registry can be reached.
        pythons: the Pythons that its distribution carries, for example ("3.11",).
    """

    name: str
    image: str
    digest: str | None
    bootstrap: Bootstrap | None
    pythons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Extra:
    """Packages that some cells carry beside the framework.

    Attributes:
        name: its name in `matrix.yaml`.
        packages: names of Python packages.
        version: the exact version of the single package; None leaves it to the lock.
        controller: "gloo" or "mpi" for Horovod.
        named: whether it is part of cell ids and tags.
    """

    name: str
    packages: tuple[str, ...]
    version: str | None
    controller: str | None
    named: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Axes:
    """The values that a cell has on the axes.

    Attributes:
        framework: "<name>==<version>".
        cuda: "cpu" or a CUDA version such as "13.0".
        python: for example "3.11".
        base: the name of the base, before overrides.
        extras: names, in the order of the file's `extras`.
    """

    framework: str
    cuda: str
    python: str
    base: str
    extras: tuple[str, ...]

    def values(self, axis: str) -> tuple[str, ...]:
        """The values on one axis, named as in `matrix.yaml`; only `extras` may hold several.

        Raises:
            KeyError: there is no such axis.
        """
        return {
            "framework": (self.framework,),
            "cuda": (self.cuda,),
            "python": (self.python,),
            "base": (self.base,),
            "extras": self.extras,
        }[axis]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One image of the matrix.

    Attributes:
        id: unique in the matrix, for example "torch-2.13.0-cpu-py3.11-horovod". It is made from
            the fields and never parsed back; its characters are those of an image tag.
        framework: what is installed.
        cuda: "cpu" or a CUDA version such as "13.0".
        python: for example "3.11".
        base: what it is built from.
        extras: in the order of the file's `extras`.
        policy: what its image must have shown before it is tagged, and tagged `-verified`.
        repository: the image repository, for example "imgbuild/pytorch".
        tags: in that repository, without those that end in `-verified`.
        aliases: moving tags in that repository.
        axes: the values it was expanded from, for matching.
        position: what declares it in `matrix.yaml`: its item of the axis `extras` where there are
            several, else its framework on the axis; or its entry of `include`.
        cautions: what facts say against it without forbidding it, and, where new things are assumed to work, what
            the facts do not know.
        combination: what the facts were asked about it.
        budget: the most bytes that its image may take on the engine; None for no limit.
        interpreter: where its Python comes from, one of `INTERPRETERS`.
    """

    id: str
    framework: Framework
    cuda: str
    python: str
    base: Base
    extras: tuple[Extra, ...]
    policy: Policy
    repository: str
    tags: tuple[str, ...]
    aliases: tuple[str, ...]
    axes: Axes
    position: Position
    cautions: tuple[Reason, ...]
    combination: Combination
    budget: int | None = None
    interpreter: str = DISTRIBUTION


@dataclass(frozen=True, kw_only=True, slots=True)
class Excluded:
    """A cell that `exclude` took out of the matrix, why, and the entry that did."""

    id: str
    axes: Axes
    reason: str
    by: Position


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A combination of the axes that is no cell because of facts.

    Attributes:
        id: that the cell would have.
        axes: its values.
        reasons: the rules that say so; at least one.
        position: what declares it, as `Cell.position`.
        combination: as `Cell.combination`.
    """

    id: str
    axes: Axes
    reasons: tuple[Reason, ...]
    position: Position
    combination: Combination


class Impossible(Judged):
    """Facts forbid it."""

    __slots__ = ()


class Unknown(Judged):
    """The facts do not reach as far."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """A validated `matrix.yaml`.

    Attributes:
        version: of its schema.
        path: of the file.
        repository: the prefix of all image repositories.
        cells: in the order of expansion; ids are unique.
        excluded: likewise.
        impossible: what facts forbid among the rest.
        unknown: what the facts do not reach, unless new things are assumed to work; then they are cells.
        warnings: what is probably not meant, each with its position.
    """

    version: int
    path: Path
    repository: str
    cells: tuple[Cell, ...]
    excluded: tuple[Excluded, ...]
    impossible: tuple[Impossible, ...]
    unknown: tuple[Unknown, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The cells that were asked for, in the matrix's order, and warnings about the asking."""

    cells: tuple[Cell, ...]
    warnings: tuple[str, ...]
