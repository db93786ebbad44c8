"""What a template asks for while it is rendered: requests are gathered, or answered from lock files.

An answer is a generated file in the build context. Its path says what is in it (a hash), so that two cells that ask
for the same name the same file, and share the layer that it decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Protocol

from builder.errors import NotLocked
from builder.lock.base_locks import base_lock
from builder.lock.conda import conda_text
from builder.lock.file import HOW, Locks, constraints_sha256, python_packages, requirements_text
from builder.lock.model import DebianRequest, LockedPackage, PythonRequest
from builder.render.provided import DIRECTORY as PROVIDED
from builder.render.provided import provided_wheel, wheel_name
from builder.render.recipe import ContextFile, WheelDirectory

if TYPE_CHECKING:
    from builder.matrix import Cell

DIRECTORY = "locked"
"""The directory of generated files in the build context."""

WHEELS = "wheels"
"""The directory of the site's own packages in the build context."""


class Answers(Protocol):
    """What the functions of a template do for one cell."""

    def python(self, request: PythonRequest) -> ContextFile:
        """Says which packages to install, with hashes: a requirements file."""

    def debian(self, request: DebianRequest) -> ContextFile:
        """Says which versions to install: apt's preferences."""

    def provided(self, project: str, version: str, by: str) -> ContextFile:
        """Gives a wheel without code for what `by` stands for."""

    def conda(self) -> ContextFile:
        """Says which conda packages the cell's Python is made of: path in the channel, and SHA-256."""

    def pins(self) -> ContextFile:
        """Says which versions the cell has: a constraints file."""

    def wheels(self, path: str) -> WheelDirectory:
        """Gives a place to what the site itself supplies for the requirements, or the constraints, in `path`."""


class Gathering:
    """Writes down what a cell asks for. Its answers are empty files."""

    def __init__(self) -> None:
        self.python_requests: list[PythonRequest] = []
        self.debian_requests: list[DebianRequest] = []
        self.provided_names: set[str] = set()

    def python(self, request: PythonRequest) -> ContextFile:
        if request not in self.python_requests:
            self.python_requests.append(request)
        return _file("python", "txt", "")

    def debian(self, request: DebianRequest) -> ContextFile:
        if request not in self.debian_requests:
            self.debian_requests.append(request)
        return _file("debian", "pref", "")

    def provided(self, project: str, version: str, by: str) -> ContextFile:
        self.provided_names.add(project)
        return _wheel(project, version, by)

    def conda(self) -> ContextFile:
        return _file("conda", "txt", "")

    def pins(self) -> ContextFile:
        return _file("pins", "txt", "")

    def wheels(self, path: str) -> WheelDirectory:
        return _wheel_directory(path, None)


class Locked:
    """Answers a cell's requests from lock files.

    Args:
        cell: the cell.
        locks: the lock files.
        constraints: the text of the cell's constraints file; empty when it has none.
        known: files that were made before, by what was asked for; shared by the cells of one environment.
    """

    def __init__(self, cell: Cell, locks: Locks, constraints: str, known: dict[object, ContextFile]) -> None:
        self._cell = cell
        self._locks = locks
        self._constraints = constraints
        self._known = known
        self._offers: dict[str, tuple[LockedPackage, ...]] = {}
        self._pinned = False
        self._provided: dict[str, LockedPackage] = {}
        self.packages: dict[str, LockedPackage] | None = None

    def python(self, request: PythonRequest) -> ContextFile:
        if self._pinned:
            raise ValueError("python(…) comes after pins(), which would not count it")
        lock = self._locks.required_environment(self._cell)
        if lock.constraints != constraints_sha256(self._constraints):
            raise NotLocked(
                f"cell {self._cell.id} was locked under other constraints than "
                f"{self._cell.framework.constraints or 'none'} holds now",
                where=str(self._locks.python_path(lock.name)),
                hint=HOW,
            )
        packages = python_packages(lock, request, self._cell)
        self.packages = self.packages or {}
        self.packages.update((package.name, package) for package in packages)
        self._installed_once()
        file = self._remembered(request, "python", "txt", lambda: requirements_text(packages))
        self._offers[file.path] = packages
        return file

    def debian(self, request: DebianRequest) -> ContextFile:
        base = self._cell.base
        lock = base_lock(self._locks, base)
        if lock is None:
            where = str(self._locks.base_path(base.name))
            raise NotLocked(f"the base of cell {self._cell.id} is not locked", where=where, hint=HOW)
        versions = lock.installs.get(request)
        if versions is None:
            raise NotLocked(
                f"cell {self._cell.id} installs {request} on the base {base.name}, which is not locked",
                where=str(self._locks.base_path(lock.name)),
                hint=HOW,
            )
        return self._remembered(request, "debian", "pref", lambda: preferences(versions))

    def provided(self, project: str, version: str, by: str) -> ContextFile:
        if self._pinned:
            raise ValueError("provided(…) comes after pins(), which would not count it")
        file = _wheel(project, version, by)
        digest = hashlib.sha256(file.data).hexdigest()
        package = LockedPackage(name=project, version=version, file=PurePosixPath(file.path).name, sha256=digest)
        self._provided[project] = package
        self._installed_once()
        self.packages = {**(self.packages or {}), project: package}
        return file

    def _installed_once(self) -> None:
        for name, package in self._provided.items():
            if (self.packages or {}).get(name, package) != package:
                raise NotLocked(
                    f"cell {self._cell.id} installs {name}, which something else stands for in its image",
                    where=self._cell.framework.template,
                    hint=HOW,
                )

    def conda(self) -> ContextFile:
        return _file("conda", "txt", conda_text(self._locks.required_conda(self._cell)))

    def pins(self) -> ContextFile:
        self._pinned = True
        packages = (self.packages or {}).values()
        lines = sorted(f"{package.name}=={package.version}\n" for package in packages)
        return _file("pins", "txt", "".join(lines))

    def wheels(self, path: str) -> WheelDirectory:
        return _wheel_directory(path, self._offers.get(path))

    def _remembered(self, request: object, kind: str, suffix: str, text: Callable[[], str]) -> ContextFile:
        found = self._known.get(request)
        if found is None:
            found = self._known[request] = _file(kind, suffix, text())
        return found


def preferences(versions: Mapping[str, str]) -> str:
    # Above 1000, so that a version counts even where the base has a newer one.
    records = (
        f"Package: {name}\nPin: version {version}\nPin-Priority: 1001\n" for name, version in sorted(versions.items())
    )
    return "\n".join(records)


def _file(kind: str, suffix: str, text: str) -> ContextFile:
    data = text.encode()
    digest = hashlib.sha256(data).hexdigest()[:16]
    return ContextFile(path=f"{DIRECTORY}/{kind}-{digest}.{suffix}", data=data, mode=0o644)


def _wheel(project: str, version: str, by: str) -> ContextFile:
    data = provided_wheel(project, version, by)
    return ContextFile(path=f"{PROVIDED}/{wheel_name(project, version)}", data=data, mode=0o644)


def _wheel_directory(path: str, packages: tuple[LockedPackage, ...] | None) -> WheelDirectory:
    return WheelDirectory(path=f"{WHEELS}/{PurePosixPath(path).stem}", packages=packages)
