"""Versions of different kinds as things that can be compared. Everything here is pure and its memory bounded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from packaging.version import InvalidVersion, Version

_MEMORY = 8192


@lru_cache(_MEMORY)
def version_of(text: str) -> Version | None:
    """A PEP 440 version; None when the text is none."""
    try:
        return Version(text)
    except InvalidVersion:
        return None


@lru_cache(_MEMORY)
def numbers_of(text: str) -> tuple[int, ...]:
    """A dotted version of CUDA, of a driver, of glibc or of a compute capability, for comparing."""
    return tuple(int(number) for number in re.findall(r"\d+", text))


@lru_cache(_MEMORY)
def python_of(text: str) -> tuple[int, int]:
    """The numbers of a Python, "3.13t" likewise."""
    numbers = (*numbers_of(text), 0, 0)
    return numbers[0], numbers[1]


def is_free_threaded(python: str) -> bool:
    """Whether it is the build without the global interpreter lock, such as "3.13t"."""
    return python.endswith("t")


@lru_cache(_MEMORY)
def allows(specifier: str, text: str) -> bool:
    """Whether a PEP 440 specifier allows a version, pre-releases included. What is not a specifier allows all."""
    # 20 ms, for questions that name no companion.
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return SpecifierSet(specifier, prereleases=True).contains(text)
    except (InvalidSpecifier, InvalidVersion):
        return True


def same_cuda(build: str, asked: str) -> bool:
    """Whether a build for this CUDA, perhaps a bare major, serves the one that is asked for."""
    return build == asked or ("." not in build and asked.partition(".")[0] == build)


def in_order(versions: Iterable[str]) -> list[str]:
    """Dotted versions from the oldest to the newest; texts such as "cpu" come first."""
    return sorted(versions, key=lambda text: (numbers_of(text), text))


def listed(words: Iterable[str], last: str = "and") -> str:
    """A list as a sentence has it: "a, b and c"."""
    items = list(words)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}" if items else "none"
