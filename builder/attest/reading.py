"""Takes typed fields out of signed JSON. Nothing untyped and nothing of unbounded size goes on from here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from datetime import datetime, timezone

from builder.attest.refusal import Refused, malformed
from builder.matrix import Level

_TEXT_CAP = 4096
"""Characters of the longest text that is taken for a field."""

_ENTRIES_CAP = 100_000
"""Entries of the longest list; an SBOM of a large image has some thousands."""

_INSTANT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def decode(data: bytes, what: str) -> object:
    """The JSON in `data`: UTF-8, no key twice, no number that JSON has not.

    Raises:
        Refused: it is no such JSON.
    """
    try:
        text = data.decode("utf-8")
        found: object = json.loads(
            text, object_pairs_hook=_pairs, parse_constant=_constant, parse_int=_integer, parse_float=_float
        )
    except RecursionError:
        raise malformed(f"{what} is nested too deeply") from None
    except ValueError as error:
        raise malformed(f"{what} is no JSON: {error}") from None
    return found


def canonical(document: object) -> bytes:
    """One JSON text for one document: keys sorted, no blanks, UTF-8, a number written as Python writes it.

    Raises:
        ValueError: a number in it is not finite.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def instant(text: str) -> datetime | None:
    """The moment that an RFC 3339 time with a zone means, in UTC; None when it is no such time."""
    match = _INSTANT.fullmatch(text)
    if match is None:
        return None
    # Python 3.10 takes neither `Z` nor any number of digits but three and six.
    fraction = f".{match[2][1:7]:0<6}" if match[2] else ""
    zone = "+00:00" if match[3] == "Z" else match[3]
    try:
        return datetime.fromisoformat(f"{match[1]}{fraction}{zone}").astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def rfc3339(moment: datetime) -> str:
    """A moment in UTC to the second, as in-toto's and SLSA's fields want it.

    Raises:
        ValueError: it has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone is none")
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _integer(digits: str) -> int:
    # The time to read a number grows with the square of its digits.
    if len(digits) > 20:
        raise ValueError("a whole number has more than 20 digits")
    return int(digits)


def _float(digits: str) -> float:
    # JSON sets no bounds to a number, and no reader could hand on what this one became.
    if not math.isfinite(found := float(digits)):
        raise ValueError("a number is too large")
    return found


def _constant(word: str) -> object:
    raise ValueError(f"{word} is no number of JSON")


class Reader:
    """Takes typed fields out of one JSON object; an unknown field is left alone, as in-toto's parsing rules want.

    Args:
        value: decoded JSON.
        where: its place, for messages.

    Raises:
        Refused: `value` is no object; from every method: the field is missing or of another type.
    """

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise malformed(f"{where} is not an object")
        self._where = where
        self._fields: dict[str, object] = {str(key): item for key, item in value.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its fields, each fit to be shown."""
        if not all(name.isprintable() and len(name) <= _TEXT_CAP for name in self._fields):
            raise malformed(f"{self._where} has a field whose name is no text of one line")
        return tuple(self._fields)

    def has(self, key: str) -> bool:
        """Whether there is such a field, and it is not null."""
        return self._fields.get(key) is not None

    def only(self, allowed: Iterable[str]) -> None:
        """Refuses fields of other names."""
        unknown = sorted(self._fields.keys() - set(allowed))
        if unknown:
            raise malformed(f"{self._where} has the unknown field {unknown[0][:100]!r}")

    def _wrong(self, key: str, expected: str) -> Refused:
        state = "is missing" if key not in self._fields else f"is not {expected}"
        return malformed(f"{self._where}.{key} {state}")

    def text(self, key: str, *, cap: int = _TEXT_CAP) -> str:
        """A text of at most `cap` characters that is fit to be shown: one line, without control characters."""
        value = self._fields.get(key)
        if not isinstance(value, str):
            raise self._wrong(key, "a text")
        if len(value) > cap:
            raise self._wrong(key, f"a text of at most {cap} characters")
        if not value.isprintable():
            raise self._wrong(key, "a text of one line")
        return value

    def long_text(self, key: str) -> str:
        """A text of any length: the caller has bounded the whole."""
        value = self._fields.get(key)
        if not isinstance(value, str):
            raise self._wrong(key, "a text")
        return value

    def number(self, key: str) -> float:
        """A finite number."""
        value = self._fields.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 1e300:
            raise self._wrong(key, "a number")
        if not math.isfinite(value):
            raise self._wrong(key, "a number")
        return float(value)

    def level(self, key: str) -> Level:
        """A level of checks."""
        value = self._fields.get(key)
        for level in Level:
            if level.value == value:
                return level
        raise self._wrong(key, f"one of {', '.join(level.value for level in Level)}")

    def instant(self, key: str) -> datetime:
        """A moment, in UTC."""
        found = instant(self.text(key))
        if found is None:
            raise self._wrong(key, "a time of RFC 3339 with its zone")
        return found

    def sha256(self, key: str) -> str:
        """64 hexadecimal digits."""
        value = self.text(key)
        if not _SHA256.fullmatch(value):
            raise self._wrong(key, "a SHA-256 in hexadecimal digits")
        return value

    def reader(self, key: str) -> Reader:
        """An object within."""
        if key not in self._fields:
            raise self._wrong(key, "an object")
        return Reader(self._fields[key], f"{self._where}.{key}")

    def _list(self, key: str) -> list[object]:
        value = self._fields.get(key)
        if not isinstance(value, list) or len(value) > _ENTRIES_CAP:
            raise self._wrong(key, "a list")
        return value

    def readers(self, key: str) -> tuple[Reader, ...]:
        """A list of objects."""
        return tuple(Reader(item, f"{self._where}.{key}[{index}]") for index, item in enumerate(self._list(key)))

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        items = {str(index): item for index, item in enumerate(self._list(key))}
        inner = Reader(items, f"{self._where}.{key}")
        return tuple(inner.text(index) for index in items)

    def numbers(self, key: str) -> dict[str, float]:
        """An object of numbers."""
        inner = self.reader(key)
        return {name: inner.number(name) for name in inner.names}

    def raw(self, key: str) -> object:
        """The decoded JSON of a field, as it is."""
        return self._fields.get(key)
