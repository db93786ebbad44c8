"""Reads decoded JSON field by field: a value of the wrong type counts as absent, so nothing untyped leaks in."""

from __future__ import annotations

from collections.abc import Mapping


def mapping(value: object) -> Mapping[str, object]:
    """`value` if it is a JSON object, else an empty one."""
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if isinstance(key, str)}
    return {}


def sequence(value: object) -> tuple[object, ...]:
    """`value` if it is a JSON array, else an empty one."""
    return tuple(value) if isinstance(value, list) else ()


def text(value: object, default: str = "") -> str:
    """`value` if it is a JSON string, else `default`."""
    return value if isinstance(value, str) else default


def integer(value: object, default: int = 0) -> int:
    """`value` if it is a JSON integer, else `default`."""
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def boolean(value: object, default: bool = False) -> bool:
    """`value` if it is true or false, else `default`."""
    return value if isinstance(value, bool) else default


def texts(value: object) -> tuple[str, ...]:
    """The strings of a JSON array."""
    return tuple(item for item in sequence(value) if isinstance(item, str))


def text_mapping(value: object) -> Mapping[str, str]:
    """The members of a JSON object whose values are strings."""
    return {key: item for key, item in mapping(value).items() if isinstance(item, str)}
