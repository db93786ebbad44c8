"""The one form in which a fact table is written, so that a difference between two of them is a difference in facts.

Tables are formatted by machine: keys in the order below, rows by version, lists sorted, no comments but the header.
What a person wants to say goes into `notes`, `why` or `source`. `python -m builder.compat.refresh --format` rewrites
hand-edited tables in this form, and a test holds every committed one in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

HEADER: Final = "# Facts with their sources. Formatted by machine; docs/facts.md says how to change and refresh them.\n"

# Every key that a table may have, in the order in which it is written. A record's keys do not depend on where it is.
_ORDER: Final = (
    *("schema", "kind", "date", "project", "sdist_only", "oldest", "newest", "sources"),
    *("series", "name", "names", "version", "exists", "codename", "architecture", "capability"),
    *("cuda", "label", "channels", "distribution", "extra", "releases", "versions"),
    *("first_release", "end_of_life", "requires_python", "pythons", "glibc", "gcc", "cmake", "cxx"),
    *("horovod", "framework", "specifier", "works", "steps", "warning"),
    *("patches", "drivers", "minor_driver", "forward_branches", "last_driver", "data_center"),
    *("complete", "removed", "cudnn", "own_cudnn", "tags", "driver", "min_capability", "sass", "ptx"),
    *(
        "arch_source",
        "arch_confidence",
        "default",
        "yanked",
        "date_",
        "known",
        "installable",
        "why",
        "requires",
        "note",
    ),
    *(
        "builds",
        "absent",
        "extras",
        "companions",
        "broken_pythons",
        "notes",
        "compilers",
        "rows",
        "source",
        "confidence",
    ),
)
_RANK: Final = {key: rank for rank, key in enumerate(_ORDER)}
# Lists whose order means nothing; every other list keeps the order in which it was written.
_SORTED_LISTS: Final = frozenset(
    {"channels", "versions", "pythons", "patches", "sass", "ptx", "forward_branches", "requires", "releases"}
)
# Mappings whose keys are data, not names of fields.
_DATA_MAPPINGS: Final = frozenset(
    {"sources", "releases", "drivers", "own_cudnn", "tags", "data_center", "broken_pythons"}
)
_ENTRY_PER_LINE: Final = frozenset({"sources", "releases", "tags"})
_PARTS: Final = re.compile(r"(\d+)")


def version_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Orders versions, Pythons, capabilities and plain names as a person would: 3.9 before 3.10 before 3.13t."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in _PARTS.split(text) if part)


def canonical(document: Mapping[str, object]) -> dict[str, object]:
    """The same table with keys, rows and lists in their order."""
    return _mapping(document)


def dump(document: Mapping[str, object]) -> str:
    """The text of a table, as it is committed."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """One line for a small mapping or list, one line per entry for those that are read as a list of entries."""

    def lines(dumper: yaml.SafeDumper, value: _Lines) -> yaml.MappingNode:
        return dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=False)

    Dumper.add_representer(_Lines, lines)
    body = yaml.dump(
        canonical(document), Dumper=Dumper, default_flow_style=None, sort_keys=False, width=118, allow_unicode=True
    )
    return HEADER + body


class _Lines(dict[str, object]):
    """A mapping that is written with one line per entry."""


def _mapping(value: Mapping[str, object]) -> dict[str, object]:
    ordered = sorted(value, key=lambda key: (_RANK.get(key, len(_RANK)), key))
    return {key: _field(key, value[key]) for key in ordered}


def _field(key: str, value: object) -> object:
    if isinstance(value, Mapping):
        if key in _DATA_MAPPINGS:
            entries = {name: _field("", value[name]) for name in sorted(value, key=version_key)}
            return _Lines(entries) if key in _ENTRY_PER_LINE else entries
        return _mapping(value)
    if isinstance(value, list):
        items = [_mapping(item) if isinstance(item, Mapping) else item for item in value]
        if key in _SORTED_LISTS:
            return sorted(items, key=lambda item: version_key(str(item)))
        if key in _RECORD_KEYS:
            return sorted(items, key=_RECORD_KEYS[key])
        return items
    return value


def _text(record: object, key: str) -> str:
    value = record.get(key, "") if isinstance(record, Mapping) else ""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _row_key(record: object) -> tuple[object, ...]:
    for key in ("series", "version", "name", "capability"):
        if isinstance(record, Mapping) and key in record:
            return (0, version_key(_text(record, key)))
    # Adaptations are searched in order, so their order is theirs.
    return (1,)


def _build_key(record: object) -> tuple[object, ...]:
    cuda = _text(record, "cuda")
    return (cuda != "cpu", version_key(cuda), _text(record, "extra"), version_key(_text(record, "versions")))


_RECORD_KEYS: Final = {
    "rows": _row_key,
    "builds": _build_key,
    "absent": _build_key,
    "compilers": lambda record: version_key(_text(record, "cxx")),
    "extras": lambda record: (_text(record, "name"), version_key(_text(record, "versions"))),
    "companions": lambda record: (_text(record, "project"), version_key(_text(record, "releases"))),
}
