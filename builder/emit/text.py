"""Writes YAML of mappings, sequences, strings, numbers and booleans, with every string quoted.

PyYAML's own writer takes a minute for 10,000 jobs without its C library, which not every installation has. A double
quoted JSON string is also a YAML string, so nothing can be taken for a number, a date or `no`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

Value = str | int | bool | Mapping[str, "Value"] | Sequence["Value"]
"""What can be written."""

_PLAIN = re.compile(r"[A-Za-z_.][A-Za-z0-9_.-]*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def to_yaml(document: Mapping[str, Value], comment: str) -> str:
    """One document in block style, below a comment of one line."""
    return "\n".join([f"# {comment}", *_mapping(document, "")]) + "\n"


def _mapping(mapping: Mapping[str, Value], indent: str) -> Iterator[str]:
    for key, value in mapping.items():
        plain = _PLAIN.fullmatch(key) and key.lower() not in _WORDS
        yield from _entry(f"{indent}{key if plain else json.dumps(key)}:", value, indent)


def _entry(head: str, value: Value, indent: str) -> Iterator[str]:
    if isinstance(value, (str, int)):
        yield f"{head} {json.dumps(value)}"
    elif not value:
        yield f"{head} {'{}' if isinstance(value, Mapping) else '[]'}"
    elif isinstance(value, Mapping):
        yield head
        yield from _mapping(value, indent + "  ")
    else:
        yield head
        for item in value:
            yield from _item(item, indent + "  ")


def _item(item: Value, indent: str) -> Iterator[str]:
    if isinstance(item, Mapping) and item:
        first, *others = _mapping(item, indent + "  ")
        yield f"{indent}- {first.lstrip()}"
        yield from others
    else:
        yield from _entry(f"{indent}-", item, indent)
