"""Cells into environments, what their locks lack, and what a new lock changes."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from builder.errors import ConfigError
from builder.lock.base_locks import misfits
from builder.lock.file import BASE_SUFFIX, PYTHON_SUFFIX, Locks, environment_name, missing_python
from builder.lock.model import DebianRequest, PythonRequest, Requests
from builder.render import collect
from builder.resolve.target import Target, glibc_of
from builder.source import nearest, quote

if TYPE_CHECKING:
    from builder.lock.model import BaseLock, EnvironmentLock
    from builder.matrix import Base, Cell, Channel
    from builder.project import Project

_Value = TypeVar("_Value", bound=Hashable)

DEBIAN = "debian"
"""What `--upgrade` calls all packages of the distribution."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Cells that share Python packages.

    Attributes:
        name: of the environment.
        target: what it runs on.
        channel: the framework's wheel channel.
        framework: the framework's exact version, local part and all, by its name.
        requests: what its cells ask for, by their ids, in the matrix's order.
    """

    name: str
    target: Target
    channel: Channel | None
    framework: Mapping[str, str]
    requests: Mapping[str, Requests]

    @property
    def cells(self) -> tuple[str, ...]:
        """The ids of its cells."""
        return tuple(self.requests)


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A base, and what cells install on it from its distribution.

    Attributes:
        base: the base.
        requests: what cells on it ask for, by their ids, in the matrix's order.
    """

    base: Base
    requests: Mapping[str, tuple[DebianRequest, ...]]

    @property
    def cells(self) -> tuple[str, ...]:
        """The ids of the cells on it."""
        return tuple(self.requests)

    @functools.cached_property
    def asked(self) -> tuple[DebianRequest, ...]:
        """What they ask for, each once, sorted."""
        once = {request for requests in self.requests.values() for request in requests}
        return tuple(sorted(once, key=lambda request: request.order))


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Everything that cells need locked. An environment without requests needs no lock, and is not here."""

    environments: tuple[Environment, ...]
    grounds: tuple[Ground, ...]


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a new lock changes about one package.

    Attributes:
        package: its name.
        before: its version before; None when it is new.
        after: its version now; None when it is gone. The same as before when only its file is another.
        cells: the ids of the cells whose images that changes, in the matrix's order; none when no cell installs it.
    """

    package: str
    before: str | None
    after: str | None
    cells: tuple[str, ...]

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.package} {self.after} is new"
        if self.after is None:
            return f"{self.package} {self.before} is gone"
        if self.before == self.after:
            return f"{self.package} {self.after}: another file"
        return f"{self.package} {self.before} -> {self.after}"


def survey(cells: Iterable[Cell], selected: Iterable[Cell], project: Project) -> Survey:
    """What must be locked for the selected cells.

    Args:
        cells: every cell of the matrix: a lock is for all cells that share it.
        selected: the cells whose locks are meant.
        project: the templates.

    Raises:
        RenderError: a cell does not render.
        ConfigError: cells of one environment differ in what it depends on.
    """
    chosen = tuple(selected)
    names, bases = {environment_name(cell) for cell in chosen}, {cell.base.name for cell in chosen}
    concerned = (cell for cell in cells if environment_name(cell) in names or cell.base.name in bases)
    by_name: dict[str, dict[str, tuple[Cell, Requests]]] = {}
    by_base: dict[str, list[tuple[Cell, Requests]]] = {}
    once: dict[Requests, Requests] = {}
    for cell, each in collect(concerned, project):
        requests = once.setdefault(each, each)  # a large matrix has few different ones
        if environment_name(cell) in names and requests.python:
            by_name.setdefault(environment_name(cell), {})[cell.id] = (cell, requests)
        if cell.base.name in bases:
            by_base.setdefault(cell.base.name, []).append((cell, requests))
    return Survey(
        environments=tuple(_environment(name, members) for name, members in by_name.items()),
        grounds=tuple(
            Ground(base=members[0][0].base, requests={cell.id: requests.debian for cell, requests in members})
            for members in by_base.values()
        ),
    )


def _environment(name: str, members: Mapping[str, tuple[Cell, Requests]]) -> Environment:
    cell = next(iter(members.values()))[0]
    for other, _ in members.values():
        if other.framework.channel != cell.framework.channel:
            raise ConfigError(
                f"cells {cell.id} and {other.id} share an environment and have different channels", where=name
            )
    requests = {id: asked for id, (_, asked) in members.items()}
    for other, asked in members.values():
        if asked.provided != requests[cell.id].provided:
            raise ConfigError(
                f"cells {cell.id} and {other.id} share an environment, and only one of them has something that stands "
                f"for {', '.join(sorted({*asked.provided} ^ {*requests[cell.id].provided}))}",
                where=name,
            )
    return Environment(
        name=name,
        target=Target(python=cell.python, glibc=glibc_of(cell.base)),
        channel=cell.framework.channel,
        framework={cell.framework.name: _exact(cell.framework.name, requests) or cell.framework.version},
        requests=requests,
    )


def _exact(project: str, requests: Mapping[str, Requests]) -> str | None:
    """The version that requests or constraints pin a project to; it may have a local part, unlike the matrix's."""
    for asked in requests.values():
        lines = [line for request in asked.python for line in request.requirements]
        for line in (*lines, *asked.constraints.splitlines()):
            found = re.fullmatch(r"\s*([A-Za-z0-9._-]+)\s*==\s*([A-Za-z0-9.!+]+)\s*(#.*)?", line)
            if found and re.sub(r"[-_.]+", "-", found[1]).lower() == project:
                return found[2]
    return None


def environment_changes(
    environment: Environment, before: EnvironmentLock | None, after: EnvironmentLock
) -> tuple[Change, ...]:
    """What a new lock of an environment changes, and for which cells."""

    def installed(lock: EnvironmentLock | None, requests: tuple[PythonRequest, ...]) -> dict[str, object]:
        names = (name for request in requests for name in (lock.installs.get(request, ()) if lock else ()))
        return {name: lock.packages[name] for name in names} if lock else {}

    asked = {cell: requests.python for cell, requests in environment.requests.items()}
    parts = [(cells, installed(before, each), installed(after, each)) for each, cells in _by_value(asked)]
    return _changes(before.packages if before else {}, after.packages, parts, environment.cells)


def base_changes(ground: Ground, before: BaseLock | None, after: BaseLock) -> tuple[Change, ...]:
    """What a new lock of a base changes, and for which cells."""
    parts: list[tuple[Sequence[str], Mapping[str, object], Mapping[str, object]]] = [
        (cells, _debian_versions(before, each), _debian_versions(after, each))
        for each, cells in _by_value(ground.requests)
    ]
    old, new = (_debian_versions(lock, lock.installs if lock else ()) for lock in (before, after))
    was, now = ({"digest": lock.digest or f"none, {lock.why}"} if lock else {} for lock in (before, after))
    return (*_changes(was, now, [(ground.cells, was, now)], ground.cells), *_changes(old, new, parts, ground.cells))


def _by_value(by_cell: Mapping[str, _Value]) -> list[tuple[_Value, list[str]]]:
    """Cells that ask for the same, together: a large matrix has few different ones."""
    found: dict[_Value, list[str]] = {}
    for cell, value in by_cell.items():
        found.setdefault(value, []).append(cell)
    return list(found.items())


def _changes(
    before: Mapping[str, object],
    after: Mapping[str, object],
    parts: Iterable[tuple[Sequence[str], Mapping[str, object], Mapping[str, object]]],
    order: Sequence[str],
) -> tuple[Change, ...]:
    """What differs between two tables of packages by name, and for which cells.

    Args:
        before, after: versions, or anything with an attribute `version`, by name of the package.
        parts: the same of what some cells install, with those cells.
        order: of the cells.
    """
    rank = {cell: place for place, cell in enumerate(order)}
    found: dict[tuple[str, str | None, str | None], list[str]] = {key: [] for key in _differences(before, after)}
    for cells, old, new in parts:
        for key in _differences(old, new):
            found.setdefault(key, []).extend(cells)
    return tuple(
        Change(package=package, before=was, after=now, cells=tuple(sorted(cells, key=rank.__getitem__)))
        for (package, was, now), cells in sorted(found.items(), key=lambda item: item[0][0])
    )


def _differences(
    before: Mapping[str, object], after: Mapping[str, object]
) -> Iterator[tuple[str, str | None, str | None]]:
    for name in before.keys() | after.keys():
        if before.get(name) != after.get(name):
            yield name, _version(before.get(name)), _version(after.get(name))


def _version(package: object) -> str | None:
    return None if package is None else str(getattr(package, "version", package))


def _debian_versions(lock: BaseLock | None, requests: Iterable[DebianRequest]) -> dict[str, str]:
    """What a base's lock pins for requests: what its made equivalent holds, and what is added."""
    if lock is None:
        return {}
    versions = dict(lock.made.packages) if lock.made is not None else {}
    for request in requests:
        versions.update(lock.installs.get(request, {}))
    return versions


def previous_environment(environment: Environment, locks: Locks) -> EnvironmentLock | None:
    """The lock that a new one starts from: the project's own; or the one that imgbuild ships, if it has everything.

    One that is shipped for other templates says nothing about the versions of these.
    """
    lock = locks.environment(environment.name)
    if (
        lock is None
        or locks.owns(locks.python_path(environment.name))
        or not missing_python(lock, environment.requests)
    ):
        return lock
    return None


def previous_base(ground: Ground, locks: Locks) -> BaseLock | None:
    """The lock of a base that a new one starts from; as `previous_environment`."""
    lock = locks.base(ground.base.name)
    if lock is None or locks.owns(locks.base_path(ground.base.name)) or not missing_debian(ground, lock):
        return lock
    return None


def unasked(environment: Environment, lock: EnvironmentLock) -> tuple[str, ...]:
    """What a lock has that no cell asks for, as sentences."""
    asked = {request for each in environment.requests.values() for request in each.python}
    return tuple(f"nothing asks for {request}" for request in lock.installs if request not in asked)


def missing_debian(ground: Ground, lock: BaseLock | None) -> tuple[str, ...]:
    """What a base's lock lacks that cells on it ask for, as sentences."""
    if lock is None:
        return ("there is no lock file",)
    found = list(misfits(lock, ground.base))
    return tuple(found + [f"cells on it ask for {each}" for each in ground.asked if each not in lock.installs])


def unasked_debian(ground: Ground, lock: BaseLock) -> tuple[str, ...]:
    """What a base's lock has that no cell asks for, as sentences."""
    return tuple(f"nothing asks for {request}" for request in lock.installs if request not in ground.asked)


def pruned_debian(ground: Ground, lock: BaseLock) -> BaseLock:
    """The lock of a base without what no cell asks for any more."""
    kept = {request: versions for request, versions in lock.installs.items() if request in ground.asked}
    return dataclasses.replace(lock, installs=kept)


def leftover_files(whole: Survey, locks: Locks) -> tuple[Path, ...]:
    """The project's own lock files that no cell of the matrix needs.

    Args:
        whole: the survey of every cell.
        locks: the lock files.
    """
    wanted = {environment.name + PYTHON_SUFFIX for environment in whole.environments}
    wanted |= {ground.base.name + BASE_SUFFIX for ground in whole.grounds}
    return tuple(path for path in locks.own() if path.name not in wanted)


def known_packages(names: Iterable[str], locks: Iterable[EnvironmentLock | None]) -> frozenset[str]:
    """The names that `--upgrade` gives, normalised, without `debian`.

    Raises:
        ConfigError: one is in none of the locks.
    """
    from packaging.utils import canonicalize_name

    known = {package for lock in locks if lock is not None for package in lock.packages}
    wanted: set[str] = set()
    for name in names:
        if name == DEBIAN:
            continue
        project = str(canonicalize_name(name))
        if project not in known:
            hint = nearest(project, sorted({*known, DEBIAN})) if known else "nothing is locked yet"
            raise ConfigError(
                f"{quote(name)} is not among the locked packages",
                where="--upgrade",
                hint=hint or "name a Python package, `debian` for the distribution's, or none for all; cells go first",
            )
        wanted.add(project)
    return frozenset(wanted)
