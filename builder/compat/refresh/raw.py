"""Small readers and writers over tables as YAML gives them: anything of another form counts as absent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Table = dict[str, object]
_T = TypeVar("_T")


def records(value: object) -> list[Mapping[str, object]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def texts_of(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def text_of(value: object) -> str:
    return value if isinstance(value, str) else ""


def put(record: Table, key: str, value: object) -> None:
    """Puts a value in, or takes the key out when there is none."""
    if value in (None, "", []):
        record.pop(key, None)
    else:
        record[key] = value


def grouped(values: Mapping[str, _T]) -> list[tuple[_T, list[str]]]:
    groups: dict[_T, list[str]] = {}
    for version, value in values.items():
        groups.setdefault(value, []).append(version)
    return list(groups.items())


def specifier_text(text: str) -> str:
    """A PEP 440 specifier with its clauses in one order.

    Raises:
        packaging.specifiers.InvalidSpecifier: it is none.
    """
    from packaging.specifiers import SpecifierSet

    return ",".join(sorted(str(clause) for clause in SpecifierSet(text)))
