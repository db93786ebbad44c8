"""Reads JSON field by field: what is not expected is refused, with the file and the place in it."""

from __future__ import annotations

import functools
import json
import re
from typing import NoReturn

from builder.errors import ConfigError

LARGEST = 8 * 1024 * 1024
"""Bytes; a larger file is no lock file."""

_HINT = "take it from version control again, or remove it and run `imgbuild lock`"

LINE = re.compile(r"[^\x00-\x1f\x7f]*")
"""Text without line breaks and other control characters."""


class Reader:
    """One value of a document, and where it stands. Every method refuses what is not as it says, with ConfigError.

    Args:
        value: the value.
        where: the file.
        path: the value's place in it, such as `packages.numpy.sha256`; empty for the whole.
    """

    def __init__(self, value: object, where: str, path: str = "") -> None:
        self.value = value
        self.where = where
        self.path = path

    def fail(self, message: str) -> NoReturn:
        """Refuses the value: `message` follows its place in the file."""
        raise ConfigError(f"{self.path or 'the file'} {message}", where=self.where, hint=_HINT)

    def __getitem__(self, key: str) -> Reader:
        return Reader(self._mapping()[key], self.where, f"{self.path}.{key}" if self.path else key)

    def _mapping(self) -> dict[str, object]:
        if not isinstance(self.value, dict):
            self.fail("is not an object")
        return self.value

    def keys(self, *expected: str) -> None:
        """Refuses an object without exactly these keys."""
        found = self._mapping().keys()
        for key in expected:
            if key not in found:
                self.fail(f"has no `{key}`")
        for key in found:
            if key not in expected:
                self.fail(f"has `{key}`, which does not belong there")

    def exactly(self, expected: str) -> None:
        """Refuses any other text."""
        if self.value != expected:
            self.fail(f"is {_shown(self.value)}, and {expected!r} is expected")

    def text(self, pattern: re.Pattern[str], what: str = "one line of text") -> str:
        """A text that matches as a whole."""
        if not isinstance(self.value, str) or not pattern.fullmatch(self.value):
            self.fail(f"is {_shown(self.value)}, and not {what}")
        return self.value

    def items(self) -> list[Reader]:
        """What is in a list."""
        if not isinstance(self.value, list):
            self.fail("is not a list")
        return [Reader(value, self.where, f"{self.path}[{place}]") for place, value in enumerate(self.value)]

    def members(self, pattern: re.Pattern[str]) -> list[tuple[str, Reader]]:
        """What is in an object, by names that match."""
        names = list(self._mapping())
        for name in names:
            if not pattern.fullmatch(name):
                self.fail(f"has {_shown(name)}, which is no name of a package")
        return [(name, self[name]) for name in names]

    def texts(self, pattern: re.Pattern[str], what: str) -> tuple[str, ...]:
        """A list of texts, sorted and without repetition."""
        found = tuple(item.text(pattern, what) for item in self.items())
        if list(found) != sorted(set(found)):
            self.fail("is not sorted, or names something twice")
        return found

    def requirements(self) -> tuple[str, ...]:
        """A list of requirements (PEP 508), sorted and without repetition."""
        found = self.texts(LINE, "a requirement")
        for place, requirement in enumerate(found):
            if wrong := _no_requirement(requirement):
                Reader(None, self.where, f"{self.path}[{place}]").fail(f"is not a requirement: {wrong}")
        return found


@functools.lru_cache(maxsize=4096)
def _no_requirement(text: str) -> str:
    """Why a text is no requirement; empty when it is one. The requests of an environment name the same ones often."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(text)
    except InvalidRequirement as error:
        return str(error)
    return ""


def decoded(data: bytes, where: str) -> object:
    """The JSON document in a file.

    Raises:
        ConfigError: it is none, is too large, or names a member twice.
    """
    if len(data) > LARGEST:
        raise ConfigError(f"has {len(data):,} bytes, and a lock file {LARGEST:,} at most", where=where, hint=_HINT)
    try:
        decoded: object = json.loads(data.decode(), object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        if error.doc.startswith(("<<<<<<<", "=======", ">>>>>>>"), error.doc.rfind("\n", 0, error.pos) + 1):
            raise ConfigError(
                "has marks of a merge that git could not do",
                where=f"{where}:{error.lineno}:1",
                hint="take either side whole, and run `imgbuild lock`, which adds what the other one had",
            ) from None
        raise ConfigError(
            f"is not JSON: {error.msg}", where=f"{where}:{error.lineno}:{error.colno}", hint=_HINT
        ) from None
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8", where=where, hint=_HINT) from None
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, _Twice) else "is nested too deeply, or holds a number that is too long"
        raise ConfigError(reason, where=where, hint=_HINT) from None
    return decoded


class _Twice(ValueError):
    pass


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise _Twice(f"{_shown(key)} is there twice")
        found[key] = value
    return found


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
