"""Rules about what pip is asked for: the project, its release, its extras, the Python."""

from __future__ import annotations

from collections.abc import Iterator

from builder.compat.model import Combination, Confidence, Facts, Project
from builder.compat.rules.lookup import Index
from builder.compat.rules.said import Said, forbidden, unknown, warning
from builder.compat.rules.versions import is_free_threaded, listed, python_of, version_of
from builder.compat.rules.view import DRIVER_QUESTION, view_of
from builder.source import nearest

_FREE_THREADED_SINCE = (3, 13)


def project(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The tables do not know the project."""
    view = view_of(combination, facts)
    if view.project is None and combination.package != DRIVER_QUESTION:
        hint = nearest(combination.package, facts.projects)
        yield unknown(
            f"the tables do not know {combination.package}" + (f"; {hint}" if hint else ""), view.index.tables
        )


def release(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The release never was, or the tables do not go that far."""
    view = view_of(combination, facts)
    if view.project is not None and combination.version is not None and view.row is None:
        yield missing_release(view.project, combination.version, view.index)


def missing_release(project: Project, version: str, index: Index) -> Said:
    """What to say of a release that the tables do not hold."""
    name = f"{project.name} {version}"
    parsed, newest, oldest = version_of(version), version_of(project.newest), version_of(project.oldest)
    if parsed is None:
        return unknown(f"{name} is not a version that the tables can judge", index.tables)
    if parsed.is_prerelease:
        return unknown(f"{name} is a pre-release, which the tables do not list", index.tables)
    if newest is not None and parsed > newest:
        return unknown(f"{name} is newer than the tables, which end with {project.newest}", index.tables)
    if oldest is not None and parsed < oldest:
        return unknown(f"{name} is older than the tables, which begin with {project.oldest}", index.tables)
    known = sorted(index.releases(project))
    below = [index.releases(project)[one][0] for one in known if one < parsed][-1:]
    above = [index.releases(project)[one][0] for one in known if one > parsed][:1]
    row = index.releases(project)[max(known)][1]
    said = f"{name} was never released; the nearest are {listed([*below, *above])}"
    return forbidden(said, row.origin) if row.origin.confidence is Confidence.READ else unknown(said, row.origin)


def withdrawn(combination: Combination, facts: Facts) -> Iterator[Said]:
    """Its maker has withdrawn (yanked) the release; an exact pin still installs it."""
    view = view_of(combination, facts)
    if view.row is not None and view.release in view.row.yanked:
        yield warning(
            f"{combination.package} {view.release} was withdrawn by its maker; an exact pin still installs it",
            view.row.origin,
        )


def extra(combination: Combination, facts: Facts) -> Iterator[Said]:
    """A pip extra does not exist for this release, or what it requires cannot be had."""
    view = view_of(combination, facts)
    if view.row is None or view.project is None or view.release is None:
        return
    for name in combination.extras:
        found = [
            one
            for one in view.row.extras
            if one.name == name and (one.versions is None or view.release in one.versions)
        ]
        requirement = f"{combination.package}[{name}]=={view.release}"
        if found and not found[0].installable:
            if found[0].origin.confidence is Confidence.READ:
                yield forbidden(f"{requirement} cannot be installed: {found[0].why}", found[0].origin)
            else:
                yield unknown(f"{requirement} can probably not be installed: {found[0].why}", found[0].origin)
        elif not found:
            elsewhere = _releases_with_extra(view.project, name)
            if elsewhere:
                yield forbidden(
                    f"{combination.package} {view.release} has no extra {name}; releases from {elsewhere[0]} to "
                    f"{elsewhere[-1]} have it",
                    view.row.origin,
                )
            else:
                yield unknown(f"the tables know no extra {name} of {combination.package}", view.index.tables)


def _releases_with_extra(project: Project, name: str) -> list[str]:
    releases = [
        release
        for row in project.rows
        for one in row.extras
        if one.name == name
        for release in (one.versions if one.versions is not None else row.releases)
    ]
    return sorted(releases, key=lambda text: version_of(text) or version_of("0"))  # type: ignore[arg-type,return-value]


def extra_python(combination: Combination, facts: Facts) -> Iterator[Said]:
    """What a pip extra requires cannot be had on this Python, though the release itself can."""
    view = view_of(combination, facts)
    python = combination.python
    if view.row is None or python is None:
        return
    for one in view.row.extras:
        if one.name not in combination.extras or (one.versions is not None and view.release not in one.versions):
            continue
        if one.installable and one.pythons is not None and python not in one.pythons:
            why = f": {one.why}" if one.why else ""
            said = f"{combination.package}[{one.name}]=={view.release} cannot be installed on Python {python}{why}"
            read = one.origin.confidence is Confidence.READ
            yield forbidden(said, one.origin) if read else unknown(f"probably {said}", one.origin)


def python_release(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The Python was not released yet, or never will be."""
    python = combination.python
    if python is None:
        return
    index = view_of(combination, facts).index
    series = python.rstrip("t")
    known = facts.pythons.get(series)
    if known is None:
        newest = index.pythons[-1] if index.pythons else ""
        if newest and python_of(series) > python_of(newest):
            yield forbidden(f"Python {series} was not released by {facts.date}; the newest is {newest}", index.tables)
        elif newest:
            yield unknown(f"the tables do not know Python {series}", index.tables)
    elif known.first_release is not None and known.first_release > facts.date:
        yield forbidden(f"Python {series} is not released before {known.first_release}", known.origin)
    if is_free_threaded(python) and python_of(series) < _FREE_THREADED_SINCE:
        yield forbidden(f"there is no free-threaded Python {series}: 3.13 is the first", "PEP 703")
