"""What a package index tells, put into a fact table: pure functions over tables as they are written in YAML.

Only what an index can tell is touched: releases, dates, Pythons, glibc, requirements. A record that a person wrote
stays: a companion or extra counts as the machine's only when its sole source is `METADATA` or `INVERSE`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from builder.compat.refresh.canonical import canonical, version_key
from builder.compat.refresh.index import IndexRelease
from builder.compat.refresh.raw import Table, grouped, mapping, put, records, specifier_text, text_of, texts_of

_S = TypeVar("_S", str, tuple[str, ...])

# Names in a file's `sources`; the first three are written by refresh alone.
INDEX: Final = "index"
METADATA: Final = "metadata"
INVERSE: Final = "pins"
SOURCES: Final = {
    INDEX: "package index: file names, upload dates and Requires-Python",
    METADATA: "package index: Requires-Dist and Provides-Extra in the METADATA of the wheels",
    INVERSE: "package index: what the companion's own METADATA requires",
}
# Extras that people choose a build with; the others change nothing here.
TRACKED_EXTRAS: Final = {
    "tensorflow": ("and-cuda",),
    "jax": ("cuda", "cuda12", "cuda12-local", "cuda13", "cuda13-local"),
}
# Projects whose companions say what fits, not they themselves.
INVERSE_OF: Final = {"torch": ("torchvision", "torchaudio")}
_LINUX: Final = {
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What one release requires.

    Attributes:
        plain: specifier by project, for projects that have a table; "" for any version.
        extras: requirements by tracked extra.
    """

    plain: Mapping[str, str]
    extras: Mapping[str, tuple[str, ...]]


def needs_of(
    project: str, requires: Iterable[str], offered: Iterable[str], pythons: Collection[str], projects: Collection[str]
) -> Needs:
    """Reads Requires-Dist for Linux on x86_64 and these Pythons.

    A requirement that depends on the Python is widened to what any of them may have: which Python has wheels of which
    numpy is said in numpy's own table.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    plain: dict[str, dict[str, list[str]]] = {}
    extras: dict[str, list[str]] = {
        name: [] for name in map(canonicalize_name, offered) if name in TRACKED_EXTRAS.get(project, ())
    }
    for line in requires:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        for python in sorted(pythons, key=version_key) or ["3.11"]:
            here = {
                **_LINUX,
                "python_version": python.removesuffix("t"),
                "python_full_version": f"{python.removesuffix('t')}.0",
            }
            if requirement.marker is None or requirement.marker.evaluate({**here, "extra": ""}):
                if name in projects:
                    plain.setdefault(name, {}).setdefault(python, []).append(str(requirement.specifier))
                continue
            for extra, wanted in extras.items():
                wish = f"{name}[{','.join(sorted(requirement.extras))}]" if requirement.extras else name
                wish += specifier_text(str(requirement.specifier))
                if requirement.marker.evaluate({**here, "extra": extra}) and wish not in wanted:
                    wanted.append(wish)
    return Needs(
        plain={name: _widest([",".join(filter(None, texts)) for texts in by.values()]) for name, by in plain.items()},
        extras={name: tuple(sorted(wanted)) for name, wanted in extras.items()},
    )


def _widest(texts: Sequence[str]) -> str:
    """The clauses that all of these have in common, and the lowest of their lower bounds."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version

    sets = [{str(clause) for clause in SpecifierSet(text)} for text in texts]
    common = set.intersection(*sets)
    if all(clauses == common for clauses in sets):
        return specifier_text(",".join(common))
    floors = [clause for clauses in sets for clause in clauses if clause.startswith(">=")]
    if floors and all(any(clause.startswith(">=") for clause in clauses) for clauses in sets):
        common.add(min(floors, key=lambda clause: Version(clause[2:])))
    return specifier_text(",".join(common))


def merged(
    table: Mapping[str, object],
    releases: Mapping[str, IndexRelease],
    needs: Mapping[str, Needs],
    known_pythons: Collection[str],
) -> Table:
    """A project's table with what the index says.

    Args:
        table: as written.
        releases: the index's, by version.
        needs: what releases require, by version, as far as it was read; for the rest the table's own records stay.
        known_pythons: those that a stable ABI may serve.
    """
    from packaging.version import Version

    result: Table = dict(table)
    oldest = Version(text_of(table["oldest"]))
    counted = {version: release for version, release in releases.items() if Version(version) >= oldest}
    by_series: dict[str, dict[str, IndexRelease]] = {}
    for version, release in counted.items():
        by_series.setdefault(_series(version), {})[version] = release
    rows = {text_of(row["series"]): row for row in records(table.get("rows"))}
    result["rows"] = [
        _row(text_of(table["project"]), rows.get(series), series, found, needs, known_pythons)
        for series, found in by_series.items()
    ]
    if counted:
        result["newest"] = max(counted, key=Version)
    return canonical(with_sources(result))


def _row(
    project: str,
    old: Mapping[str, object] | None,
    series: str,
    found: Mapping[str, IndexRelease],
    needs: Mapping[str, Needs],
    known: Collection[str],
) -> Table:
    row: Table = dict(old) if old else {"series": series, "source": [INDEX], "confidence": "read"}
    before = mapping(row.get("releases"))
    newest = list(found)[-1]
    pythons = {version: _pythons(release, known) for version, release in found.items()}
    glibcs = {
        version: _raised(release.glibc(), mapping(before[version]).get("glibc", row.get("glibc")))
        if version in before
        else release.glibc()
        for version, release in found.items()
    }
    put(row, "requires_python", found[newest].requires_python)
    row["pythons"] = pythons[newest]
    put(row, "glibc", glibcs[newest])
    releases: Table = {}
    for version, release in found.items():
        own: Table = {}
        put(own, "date", release.date)
        if pythons[version] != row["pythons"]:
            own["pythons"] = pythons[version]
        if release.requires_python != found[newest].requires_python:
            put(own, "requires_python", release.requires_python)
        if glibcs[version] != glibcs[newest]:
            put(own, "glibc", glibcs[version])
        if release.yanked:
            own["yanked"] = True
        releases[version] = own
    row["releases"] = releases
    put(row, "companions", _companions(row, list(found), needs))
    put(row, "extras", _extras(row, list(found), needs))
    return row


def _pythons(release: IndexRelease, known: Collection[str]) -> object:
    found = release.pythons(known)
    return "any" if found is None else sorted(found, key=version_key)


def _raised(tag: str | None, table: object) -> str | None:
    """File names may promise an older glibc than the binaries need, so what the table says is only ever raised."""
    if not isinstance(table, str):
        return tag
    return table if tag is None or version_key(table) >= version_key(tag) else tag


def _companions(row: Mapping[str, object], versions: Sequence[str], needs: Mapping[str, Needs]) -> list[Table]:
    def read(record: Mapping[str, object]) -> str:
        pins = texts_of(record.get("versions"))
        return f"=={pins[0]}" if pins else str(record.get("specifier", ""))

    fresh = {version: needs[version].plain for version in versions if version in needs}
    by_hand, said = _statements(row, "companions", ("project", "releases"), versions, read, fresh)
    for project, specifier, same in said:
        record: Table = {"project": project, "source": [METADATA], "confidence": "read"}
        put(record, "releases", same)
        if specifier.startswith("==") and "," not in specifier and "*" not in specifier:
            record["versions"] = [specifier[2:]]
        else:
            put(record, "specifier", specifier)
        by_hand.append(record)
    return by_hand


def _extras(row: Mapping[str, object], versions: Sequence[str], needs: Mapping[str, Needs]) -> list[Table]:
    def read(record: Mapping[str, object]) -> tuple[str, ...]:
        return tuple(texts_of(record.get("requires")))

    fresh = {version: needs[version].extras for version in versions if version in needs}
    by_hand, said = _statements(row, "extras", ("name", "versions"), versions, read, fresh)
    for name, requires, same in said:
        record: Table = {"name": name, "requires": list(requires), "source": [METADATA], "confidence": "read"}
        put(record, "versions", same)
        by_hand.append(record)
    return by_hand


def _statements(
    row: Mapping[str, object],
    key: str,
    fields: tuple[str, str],
    versions: Sequence[str],
    read: Callable[[Mapping[str, object]], _S],
    fresh: Mapping[str, Mapping[str, _S]],
) -> tuple[list[Table], list[tuple[str, _S, list[str]]]]:
    """A row's records by hand, and what METADATA says where they are silent: a name, what of it, for which releases.

    Args:
        key: of the row's records.
        fields: of a record: its name, and the releases that it is about; no releases for all of the row.
        read: what a record says.
        fresh: what METADATA says, by release and name, where it was read now; else the row's own records stay.

    Returns:
        No releases in a statement for all of the row.
    """
    name_key, releases_key = fields
    by_hand: list[Table] = []
    spoken: set[tuple[str, str]] = set()
    said: dict[tuple[str, str], _S] = {}
    for record in records(row.get(key)):
        name, about = text_of(record[name_key]), texts_of(record.get(releases_key)) or versions
        if record.get("source") == [METADATA]:
            said.update({(name, version): read(record) for version in about if version not in fresh})
        else:
            by_hand.append(dict(record))
            spoken.update((name, version) for version in about)
    said.update({(name, version): what for version, by in fresh.items() for name, what in by.items()})
    statements = []
    for name in dict.fromkeys(name for name, _ in said):
        by_version = {
            version: said[name, version]
            for version in versions
            if (name, version) in said and (name, version) not in spoken
        }
        for what, same in grouped(by_version):
            statements.append((name, what, same if len(same) < len(versions) else []))
    return by_hand, statements


def with_sources(table: Table) -> Table:
    """The table with the names that refresh uses in its `sources`."""
    used = {
        str(name)
        for row in records(table.get("rows"))
        for record in (
            row,
            *(item for key in ("builds", "absent", "extras", "companions") for item in records(row.get(key))),
        )
        for name in texts_of(record.get("source"))
    }
    named = {**mapping(table.get("sources")), **{name: text for name, text in SOURCES.items() if name in used}}
    return {**table, "sources": named}


def _series(version: str) -> str:
    return ".".join(version.split(".")[:2])
