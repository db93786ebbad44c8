"""What an environment runs on: its Python and its base's glibc, and which of a release's files fits them best.

Nothing here looks at the machine that runs it: a lock made on a laptop is the lock of the server.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.tags import Tag

    from builder.matrix import Base

ARCHITECTURE = "x86_64"
"""Of every image so far; NVIDIA's and the frameworks' wheels for others are other files."""

_OLDEST = (2, 5)
"""The glibc of manylinux1, the first of the platform tags (PEP 513)."""

_OLD_NAMES = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}
"""PEP 599, PEP 571, PEP 513."""

_UNKNOWN_GLIBC = (2, 28)
"""Taken for a base that is not in the table: no distribution that is still maintained has an older one, and every
wheel for it also runs on a newer one."""

_GLIBC = {
    # packages.debian.org/SUITE/libc6
    "buster": (2, 28),
    "bullseye": (2, 31),
    "bookworm": (2, 36),
    "trixie": (2, 41),
    # packages.ubuntu.com/SUITE/libc6
    "bionic": (2, 27),
    "focal": (2, 31),
    "jammy": (2, 35),
    "noble": (2, 39),
    # The glibc of each Red Hat Enterprise Linux, which the others follow.
    "el8": (2, 28),
    "el9": (2, 34),
    "el10": (2, 39),
}
_SUITES = {
    "debian10": "buster",
    "debian11": "bullseye",
    "debian12": "bookworm",
    "debian13": "trixie",
    "ubuntu18.04": "bionic",
    "ubuntu20.04": "focal",
    "ubuntu22.04": "jammy",
    "ubuntu24.04": "noble",
    **{f"{name}{release}": f"el{release}" for name in ("ubi", "rockylinux", "almalinux") for release in (8, 9, 10)},
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """What wheels must run on.

    Attributes:
        python: such as "3.11".
        glibc: such as (2, 36).
    """

    python: str
    glibc: tuple[int, int]

    def best(self, files: Iterable[str]) -> str | None:
        """Of a release's files the one that is to be locked; None when none can be installed.

        The order is pip's: the wheel with the best tag, of those the highest build number; then the source
        distribution. It does not depend on the order in which an index lists them.
        """
        from packaging.utils import InvalidWheelFilename, parse_wheel_filename
        from packaging.version import InvalidVersion

        ranks = _ranks(self)
        wheels: list[tuple[int, tuple[int, str], str]] = []
        sources: list[str] = []
        for file in files:
            if not file.endswith(".whl"):
                sources.append(file)
                continue
            try:
                _, _, build, tags = parse_wheel_filename(file)
            except (InvalidWheelFilename, InvalidVersion):
                continue
            fitting = [ranks[tag] for tag in tags if tag in ranks]
            if fitting:
                number, rest = build if build else (0, "")
                wheels.append((-min(fitting), (number, rest), file))
        if wheels:
            # Of two that are equal in both, the name decides.
            return max(wheels)[2]
        # PEP 625 has one source distribution for a release; older ones also have a .zip.
        return min(sources, key=lambda file: (not file.endswith(".tar.gz"), file)) if sources else None


def glibc_of(base: Base) -> tuple[int, int]:
    """The glibc of a base, from the suite that it is made from or from the name of its image."""
    if base.bootstrap is not None and base.bootstrap.suite in _GLIBC:
        return _GLIBC[base.bootstrap.suite]
    # "debian:12-slim" and "nvidia/cuda:12.6.3-base-ubuntu22.04" alike: words, and words with the next number.
    words = re.findall(r"[a-z]+|[0-9]+(?:\.[0-9]+)*", base.image.lower())
    pairs = [first + second for first, second in itertools.pairwise(words)]
    for word in (*pairs, *words):
        suite = _SUITES.get(word, word)
        if suite in _GLIBC:
            return _GLIBC[suite]
    return _UNKNOWN_GLIBC


@functools.cache
def _ranks(target: Target) -> dict[Tag, int]:
    """The tags that a Python on this glibc takes, best first, by their place."""
    from packaging import tags

    version = tuple(int(part) for part in target.python.split("."))
    platforms = list(_platforms(target.glibc))
    cpython = tags.cpython_tags(version, platforms=platforms)
    compatible = tags.compatible_tags(version, interpreter=f"cp{version[0]}{version[1]}", platforms=platforms)
    ranks: dict[Tag, int] = {}
    for place, tag in enumerate((*cpython, *compatible)):
        ranks.setdefault(tag, place)
    return ranks


def _platforms(glibc: tuple[int, int]) -> Iterator[str]:
    major, newest = glibc
    for minor in range(newest, _OLDEST[1] - 1, -1):
        yield f"manylinux_{major}_{minor}_{ARCHITECTURE}"
        if (major, minor) in _OLD_NAMES:
            yield f"{_OLD_NAMES[major, minor]}_{ARCHITECTURE}"
    yield f"linux_{ARCHITECTURE}"
