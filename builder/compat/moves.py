"""How far it is from one combination to another: what a move on each axis costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Move:
    """How far it is to another value on an axis."""

    cost: int
    what: str


PATCH = Move(1, "to another patch release, for each step")
COMPANION = Move(3, "to the version of a companion that belongs to the release, for each companion")
IMAGE = Move(5, "to the tag that is most like the base image's; 1 more for each next one")
CUDA_STEP = Move(5, "for each toolkit between two CUDA versions, beside what follows")
MINOR = Move(10, "to another minor release, for each step")
PYTHON = Move(12, "to another Python, for each minor version")
FREE_THREADED = Move(30, "between a Python and its free-threaded build")
CHANNEL = Move(40, "to another channel")
PROJECT = Move(45, "between tensorflow and tensorflow-cpu")
CUDA = Move(50, "to another CUDA of the same major")
EXTRA = Move(60, "to leave out a pip extra, or put another in its place")
CUDA_MAJOR = Move(250, "to another CUDA major")
NO_CUDA = Move(1000, "between CUDA and a build without it")
MOVES = (
    PATCH,
    COMPANION,
    IMAGE,
    CUDA_STEP,
    MINOR,
    PYTHON,
    FREE_THREADED,
    CHANNEL,
    PROJECT,
    CUDA,
    EXTRA,
    CUDA_MAJOR,
    NO_CUDA,
)
"""Every move, the cheapest first; `docs/explain.md` lists them."""
