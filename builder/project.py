"""A project's files: where they are, with those that imgbuild ships behind them, and how they are written."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from builder.errors import ConfigError, StateError
from builder.records import write_atomically

MATRIX = "matrix.yaml"
DOCKERFILES = "dockerfiles"
SCHEMA = "docs/matrix.schema.json"
"""Where the first line of the shipped matrix sends editors."""


@dataclass(frozen=True, kw_only=True)
class Project:
    """A matrix and its templates.

    Attributes:
        root: the directory of the matrix file.
        matrix: the matrix file.
        dockerfiles: the project's own templates; need not exist.
        shipped_dockerfiles: the templates that imgbuild ships, used for what the project lacks.
        shipped: whether the matrix itself is the one that imgbuild ships.
    """

    root: Path
    matrix: Path
    dockerfiles: Path
    shipped_dockerfiles: Path
    shipped: bool


def shipped_data() -> Path:
    """The directory with the default matrix and templates: package data of a wheel, or the checkout's root."""
    package = Path(str(resources.files("builder")))
    data = package / "data"
    return data if (data / MATRIX).is_file() else package.parent


def find_project(matrix: Path | None, folder: Path) -> Project:
    """The project that a command works on.

    Args:
        matrix: the file that was asked for; None for `matrix.yaml` in `folder`, or else the shipped one.
        folder: the current directory.

    Raises:
        ConfigError: the file that was asked for does not exist; or something of the project's is there and is not
            what it should be, a link that leads nowhere for example. Nothing shipped takes its place.
    """
    data = shipped_data()
    own = matrix if matrix is not None else folder / MATRIX
    shipped = not _is_there(own, stat.S_IFREG)
    if shipped and matrix is not None:
        raise ConfigError("there is no such file", where=str(own), hint="`imgbuild init` writes a matrix to start from")
    path = data / MATRIX if shipped else own
    root = folder if shipped else path.parent
    _is_there(root / DOCKERFILES, stat.S_IFDIR)
    return Project(
        root=root,
        matrix=path,
        dockerfiles=root / DOCKERFILES,
        shipped_dockerfiles=data / DOCKERFILES,
        shipped=shipped,
    )


def refuse_obstacles(paths: Iterable[Path]) -> None:
    """Looks, before the first of several files is written, at whether something stands in the way of any of them.

    Raises:
        ConfigError: a directory has the name of a file, a file that of a directory, or one may not be written.
    """
    for path in paths:
        try:
            if path.is_dir() and not path.is_symlink():
                raise ConfigError("a directory has the name of a file to be written", where=str(path), hint=_ELSEWHERE)
            # What is missing will be made; the nearest that exists says whether it can.
            above = next(parent for parent in path.parents if os.path.lexists(parent))
            if not above.is_dir():
                raise ConfigError("is not a directory", where=str(above), hint=_ELSEWHERE)
            if not os.access(above, os.W_OK | os.X_OK):
                raise ConfigError("this directory may not be written", where=str(above), hint=_ELSEWHERE)
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", where=str(path), hint=_ELSEWHERE) from error


def write_output(path: Path, data: bytes, mode: int, *, lasting: bool = False) -> None:
    """Writes a file for the user, whole or not at all, and the directories above it.

    Args:
        path: the file.
        data: its content.
        mode: its permissions, whatever the umask: an image gets them from here.
        lasting: whether it must outlive a power failure; what is rendered can be rendered again.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        write_atomically(path, data, lasting=lasting)
        path.chmod(mode)
    except (StateError, OSError) as error:
        cause = error.__cause__ if isinstance(error, StateError) else error
        reason = cause.strerror if isinstance(cause, OSError) else cause
        raise ConfigError(f"cannot be written: {reason}", where=str(path), hint=_ELSEWHERE) from error


def is_written(path: Path, data: bytes, mode: int) -> bool:
    """Whether `path` is a file, and no link to one, with this content and the executable bit of `mode`.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or (found.st_mode ^ mode) & stat.S_IXUSR:
            return False
        return path.read_bytes() == data
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error


def leftovers(directory: Path, wanted: Collection[str], wheels: Collection[str]) -> tuple[str, ...]:
    """What is below `directory` and was not written there by imgbuild, or no longer would be.

    Args:
        directory: where output goes.
        wanted: the files that belong there, as POSIX paths relative to it.
        wheels: directories below it, likewise, into which a user may put wheels.

    Returns:
        sorted POSIX paths relative to `directory`; without git's own files, which say how it is committed.
    """
    found = []
    for path in directory.rglob("*"):
        name = path.relative_to(directory)
        if name.as_posix() in wanted or name.parts[0].startswith(".git"):
            continue
        if path.suffix == ".whl" and name.parent.as_posix() in wheels:
            continue
        if path.is_symlink() or not path.is_dir():
            found.append(name.as_posix())
    return tuple(sorted(found))


_ELSEWHERE = "name another directory, or move what is there out of the way"


def _is_there(path: Path, kind: int) -> bool:
    """Whether there is something of this kind, `stat.S_IFREG` or `stat.S_IFDIR`; refuses anything else."""
    try:
        if not os.path.lexists(path):
            return False
        found = stat.S_IFMT(path.stat().st_mode)
    except OSError as error:
        what = "a link that leads nowhere" if path.is_symlink() else f"cannot be read: {error.strerror}"
        raise ConfigError(what, where=str(path), hint="mend it or remove it") from error
    if found != kind:
        what = "a directory" if kind == stat.S_IFDIR else "a file"
        raise ConfigError(f"is not {what}", where=str(path), hint="mend it or remove it")
    return True
