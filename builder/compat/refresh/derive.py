"""What follows in a table from other tables and projects, and what a change of a table takes away."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from builder.compat.refresh.canonical import canonical, version_key
from builder.compat.refresh.index import IndexRelease
from builder.compat.refresh.merge import INVERSE, with_sources
from builder.compat.refresh.raw import Table, grouped, mapping, put, records, text_of, texts_of

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet


def with_inverse(table: Mapping[str, object], companion: Mapping[str, object]) -> Table:
    """The table with the versions of a companion that pin it: torch's with torchvision's, which name their torch."""
    name = text_of(companion["project"])
    pins = _pins(companion, text_of(table["project"]))
    result: Table = dict(table)
    rows = []
    for old in records(table.get("rows")):
        row = dict(old)
        releases = list(mapping(row.get("releases")))
        kept = [
            record
            for record in records(row.get("companions"))
            if (record.get("project"), record.get("source")) != (name, [INVERSE])
        ]
        about = [texts_of(record.get("releases")) or releases for record in kept if record.get("project") == name]
        for release in releases:
            fitting = [version for version, specifier in pins.items() if release in specifier]
            if fitting and not any(release in named for named in about):
                made = {"project": name, "releases": [release], "versions": fitting}
                kept.append({**made, "source": [INVERSE], "confidence": "read"})
        put(row, "companions", kept)
        rows.append(row)
    result["rows"] = rows
    return canonical(with_sources(result))


def _pins(companion: Mapping[str, object], project: str) -> dict[str, SpecifierSet]:
    """What each release of a companion requires of a project; those that were withdrawn do not count."""
    from packaging.specifiers import SpecifierSet

    pins: dict[str, SpecifierSet] = {}
    for row in records(companion.get("rows")):
        released = mapping(row.get("releases"))
        offered = [version for version in released if not mapping(released[version]).get("yanked")]
        for record in records(row.get("companions")):
            exact = texts_of(record.get("versions"))
            specifier = f"=={exact[0]}" if exact else text_of(record.get("specifier"))
            if record.get("project") == project and specifier:
                named = texts_of(record.get("releases")) or offered
                pins.update({version: SpecifierSet(specifier) for version in named if version in offered})
    return pins


def with_distributions(
    table: Mapping[str, object],
    found: Callable[[str], Mapping[str, IndexRelease]],
    known: Collection[str],
) -> Table:
    """The table with the Pythons of builds whose wheels are another project's, such as jax's of jax-cuda12-plugin.

    Such builds are templates: one per CUDA version, project and extra. A row gets one for each set of Pythons.
    """
    from packaging.version import Version

    templates: dict[tuple[str, str], Table] = {}
    for row in records(table.get("rows")):
        for build in records(row.get("builds")):
            if "distribution" in build:
                templates[text_of(build["cuda"]), text_of(build["distribution"])] = dict(build)
    result: Table = dict(table)
    rows = []
    for old in records(table.get("rows")):
        row = dict(old)
        versions = list(mapping(row.get("releases")))
        builds = [build for build in records(row.get("builds")) if "distribution" not in build]
        for template in templates.values():
            releases = found(text_of(template["distribution"]))
            sets: dict[str, tuple[str, ...]] = {}
            for version in versions:
                wanted = _wanted(row, version, text_of(template["distribution"]))
                fitting = [name for name in releases if Version(name) in wanted and not releases[name].yanked]
                if fitting:
                    pythons = releases[fitting[-1]].pythons(known)
                    sets[version] = tuple(sorted(pythons or (), key=version_key))
            for pythons_, same in grouped(sets):
                build = {key: value for key, value in template.items() if key not in ("versions", "pythons", "glibc")}
                build["pythons"] = list(pythons_)
                if len(same) < len(versions):
                    build["versions"] = same
                builds.append(build)
        put(row, "builds", builds)
        rows.append(row)
    result["rows"] = rows
    return canonical(result)


def _wanted(row: Mapping[str, object], version: str, distribution: str) -> SpecifierSet:
    """The versions of another project that a release takes, from its requirements; its own when they say nothing."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet
    from packaging.utils import canonicalize_name

    for record in records(row.get("companions")):
        if record.get("project") == distribution and version in (texts_of(record.get("releases")) or [version]):
            pins = texts_of(record.get("versions"))
            return SpecifierSet(f"=={pins[0]}" if pins else str(record.get("specifier", "")))
    for record in records(row.get("extras")):
        if version in (texts_of(record.get("versions")) or [version]):
            for requirement in map(Requirement, texts_of(record.get("requires"))):
                if canonicalize_name(requirement.name) == distribution:
                    return requirement.specifier
    return SpecifierSet(f"=={version}")


def lost(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """What the second table has no longer: rows, releases, Pythons, companions, extras and builds, one line each."""
    return sorted(_contents(old) - _contents(new), key=version_key)


def _contents(table: Mapping[str, object]) -> set[str]:
    return {line for row in records(table.get("rows")) for line in _row_contents(row)}


def _row_contents(row: Mapping[str, object]) -> Iterator[str]:
    yield f"series {row.get('series')}"
    releases = mapping(row.get("releases"))
    for version, value in releases.items():
        yield f"release {version}"
        pythons = mapping(value).get("pythons", row.get("pythons"))
        for python in [pythons] if isinstance(pythons, str) else texts_of(pythons):
            # A wheel that serves every Python takes nothing away from the list that it replaces.
            if python != "any":
                yield f"release {version} for Python {python}"
    for key, name in (("companions", "project"), ("extras", "name")):
        for record in records(row.get(key)):
            for version in texts_of(record.get("releases", record.get("versions"))) or releases:
                yield f"{key} {record.get(name)} of {version}"
    for build in records(row.get("builds")):
        yield f"build {build.get('cuda')} {build.get('distribution', '')} of series {row.get('series')}"
    for absent in records(row.get("absent")):
        yield f"that series {row.get('series')} has no build {absent.get('cuda')}"
