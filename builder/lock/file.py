"""Lock files on disk: their names, reading and writing them, and whether one holds what a cell asks for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from builder.errors import ConfigError, NotLocked
from builder.lock.conda import CondaPackage, conda_file, conda_hint, parse_conda
from builder.lock.documents import base_text, environment_text, parse_base, parse_environment
from builder.lock.model import BaseLock, EnvironmentLock, LockedPackage, PythonRequest, Requests
from builder.matrix import Cell
from builder.project import Project, refuse_obstacles, write_output

LOCKS = "locks"
"""The directory with lock files, below `dockerfiles/`."""

PYTHON_SUFFIX = ".python.json"
BASE_SUFFIX = ".base.json"

_KEPT = 64
"""How many environments' locks are kept in memory."""

HOW = "run `imgbuild lock` and commit what it writes"
"""The hint of every `NotLocked`."""


def environment_name(cell: Cell) -> str:
    """The name of a cell's environment, such as "torch-2.13.0-cpu-py3.11-bookworm"."""
    framework = cell.framework
    return f"{framework.name}-{framework.version}-{cell.cuda}-py{cell.python}-{cell.base.name}"


def constraints_sha256(constraints: str) -> str:
    """What a lock says of the constraints that it was made under: empty for none."""
    return hashlib.sha256(constraints.encode()).hexdigest() if constraints else ""


class Locks:
    """The lock files of a project, and behind them those that imgbuild ships.

    Each is read once, as long as cells of one environment come one after the other: of a large matrix, only the last
    ones are kept.

    Args:
        directory: the project's own; need not exist.
        fallback: the shipped ones; None to do without.
    """

    def __init__(self, directory: Path, fallback: Path | None = None) -> None:
        self.directory = directory
        self._roots = tuple(path for path in (directory, fallback) if path is not None)
        self._environments: dict[str, EnvironmentLock | None] = {}
        self._bases: dict[str, BaseLock | None] = {}

    def environment(self, name: str) -> EnvironmentLock | None:
        """The lock of an environment; None when there is no such file.

        Raises:
            ConfigError: the file cannot be read, or is malformed.
        """
        if name not in self._environments:
            found = self._read(name + PYTHON_SUFFIX)
            if len(self._environments) >= _KEPT:
                del self._environments[next(iter(self._environments))]
            self._environments[name] = parse_environment(found[1], str(found[0]), name) if found else None
        return self._environments[name]

    def base(self, name: str) -> BaseLock | None:
        """The lock of a base; None when there is no such file.

        Raises:
            ConfigError: the file cannot be read, or is malformed.
        """
        if name not in self._bases:
            found = self._read(name + BASE_SUFFIX)
            self._bases[name] = parse_base(found[1], str(found[0]), name) if found else None
        return self._bases[name]

    def required_environment(self, cell: Cell) -> EnvironmentLock:
        """The lock of a cell's environment.

        Raises:
            NotLocked: there is none.
            ConfigError: as `environment`.
        """
        name = environment_name(cell)
        found = self.environment(name)
        if found is None:
            raise NotLocked(f"cell {cell.id} is not locked", where=str(self.python_path(name)), hint=HOW)
        return found

    def required_conda(self, cell: Cell) -> tuple[CondaPackage, ...]:
        """The conda packages that the Python of a cell is made of.

        Raises:
            NotLocked: there is no list for its Python.
            ConfigError: it cannot be read, or is malformed.
        """
        name = conda_file(cell.python)
        found = self._read(name)
        if found is None:
            raise NotLocked(
                f"cell {cell.id} takes Python {cell.python} from conda-forge, and no list says which packages",
                where=str(self.directory / name),
                hint=conda_hint(cell.python),
            )
        return parse_conda(found[1], str(found[0]), cell.python)

    def python_path(self, environment: str) -> Path:
        """Where the lock of an environment belongs."""
        return self.directory / (environment + PYTHON_SUFFIX)

    def base_path(self, base: str) -> Path:
        """Where the lock of a base belongs."""
        return self.directory / (base + BASE_SUFFIX)

    def owns(self, path: Path) -> bool:
        """Whether a lock file is the project's own, and not one that imgbuild ships."""
        return path.is_file()

    def own(self) -> tuple[Path, ...]:
        """The lock files in the project's own directory, sorted."""
        try:
            paths = sorted(self.directory.iterdir()) if self.directory.is_dir() else []
        except OSError as error:
            raise ConfigError(f"cannot be read: {error.strerror}", where=str(self.directory)) from error
        return tuple(path for path in paths if path.name.endswith((PYTHON_SUFFIX, BASE_SUFFIX)))

    def _read(self, name: str) -> tuple[Path, bytes] | None:
        for root in self._roots:
            path = root / name
            try:
                return path, path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                if path.is_symlink():
                    raise ConfigError("a link that leads nowhere", where=str(path), hint="mend or remove it") from None
            except OSError as error:
                raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error
        return None


def locks_of(project: Project) -> Locks:
    """The lock files of a project."""
    return Locks(project.dockerfiles / LOCKS, project.shipped_dockerfiles / LOCKS)


def write_environment(locks: Locks, lock: EnvironmentLock) -> Path:
    """Writes an environment's lock file, whole or not at all, and returns its path.

    Raises:
        ConfigError: it cannot be written.
    """
    path = locks.python_path(lock.name)
    write_output(path, environment_text(lock).encode(), 0o644, lasting=True)
    return path


def write_base(locks: Locks, lock: BaseLock) -> Path:
    """Writes a base's lock file, whole or not at all, and returns its path.

    Raises:
        ConfigError: it cannot be written.
    """
    path = locks.base_path(lock.name)
    write_output(path, base_text(lock).encode(), 0o644, lasting=True)
    return path


def replace_locks(locks: Locks, new: Sequence[EnvironmentLock | BaseLock], unneeded: Sequence[Path]) -> None:
    """Writes lock files and removes others, after a look at whether all of them can be written.

    Raises:
        ConfigError: one cannot be written or removed.
    """
    refuse_obstacles(
        locks.python_path(lock.name) if isinstance(lock, EnvironmentLock) else locks.base_path(lock.name)
        for lock in new
    )
    for lock in new:
        if isinstance(lock, EnvironmentLock):
            write_environment(locks, lock)
        else:
            write_base(locks, lock)
    for path in unneeded:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot be removed: {error.strerror}", where=str(path)) from error


def python_packages(lock: EnvironmentLock, request: PythonRequest, cell: Cell) -> tuple[LockedPackage, ...]:
    """The files that a request of a cell installs, by name.

    Raises:
        NotLocked: the lock does not have this request.
    """
    installs = lock.installs.get(request)
    if installs is None:
        raise NotLocked(
            f"cell {cell.id} asks for {request}, which is not locked", where=lock.name + PYTHON_SUFFIX, hint=HOW
        )
    return tuple(lock.packages[name] for name in installs)


def requirements_text(packages: tuple[LockedPackage, ...]) -> str:
    """A requirements file that installs exactly these files."""
    return "".join(f"{p.name}=={p.version} --hash=sha256:{p.sha256}\n" for p in packages)


def missing_python(lock: EnvironmentLock | None, requests: Mapping[str, Requests]) -> tuple[str, ...]:
    """What keeps an environment's lock from being all that its cells ask for, as sentences; none when it is.

    Args:
        lock: the lock; None when there is no file.
        requests: what each cell of the environment asks for, by its id.
    """
    if lock is None:
        return ("there is no lock file",)
    changed = any(lock.constraints != constraints_sha256(asked.constraints) for asked in requests.values())
    askers: dict[PythonRequest, list[str]] = {}
    for cell, asked in requests.items():
        for request in asked.python:
            if request not in lock.installs:
                askers.setdefault(request, []).append(cell)
    found = ["the constraints have changed since"] if changed else []
    provided = {name for asked in requests.values() for name in asked.provided}
    found += [f"{name} is locked, and something else stands for it now" for name in sorted(provided & {*lock.packages})]
    for request, (first, *others) in askers.items():
        found.append(f"cell {first} asks for {request}" + (f"; so do {len(others)} more" if others else ""))
    return tuple(found)
