"""What an image is made of and how far it was checked, as far as it is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from builder.attest.software import Software
from builder.matrix import Level


class Place(Enum):
    """Where an image is. It decides what the sizes of its layers are."""

    ENGINE = "engine"
    REGISTRY = "registry"

    @property
    def sizes(self) -> str:
        """What sizes there count: bytes of unpacked files, or of compressed archives."""
        return "unpacked" if self is Place.ENGINE else "compressed"


class State(Enum):
    """How a check ended."""

    PASSED = "passed"
    WARNED = "warned"
    FAILED = "failed"
    NOT_RUN = "not_run"


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """What cannot be told: why, and how to get it."""

    why: str


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer.

    Attributes:
        diff_id: the digest of its unpacked archive: the same wherever the image is.
        size: bytes, as `Place.sizes` says; None when not known.
        made_by: the instruction, as one line; empty when not known.
    """

    diff_id: str
    size: int | None
    made_by: str


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """How containers of an image start.

    Attributes:
        os, architecture: as images spell them: `linux`, `amd64`.
        user, workdir: as written in the image.
        entrypoint, command: empty where the image sets none.
        environment, labels: by name.
    """

    os: str
    architecture: str
    user: str
    workdir: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    environment: Mapping[str, str]
    labels: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one check ended, and why when it did not pass."""

    state: State
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The run of the suite that decides what an image is.

    Attributes:
        reached: the level; None when something failed or was missing from the first level on.
        failed: whether something failed.
        suite: SHA-256 of the suite.
        finished: when.
        checks: by name.
    """

    reached: Level | None
    failed: bool
    suite: str
    finished: datetime
    checks: Mapping[str, Outcome]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """One image.

    Attributes:
        reference: as it was asked for.
        digest: the engine's id, or in a registry that of the manifest.
        place: where it is.
        size: bytes of all layers, as `Place.sizes` says.
        layers: lowest first.
        configuration: how its containers start.
        software: what is installed.
        standing: how far it was checked.
    """

    reference: str
    digest: str
    place: Place
    size: int
    layers: tuple[Layer, ...]
    configuration: Configuration
    software: Software | Unknown
    standing: Standing | Unknown

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """What its layers are, lowest first: images with the same hold the same files."""
        return tuple(layer.diff_id for layer in self.layers)
