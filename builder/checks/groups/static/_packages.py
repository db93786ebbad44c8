"""The files that packages brought."""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: A directory on sys.path that holds metadata of packages: others are somebody's own code, of any size.
_METADATA = (".dist-info", ".egg-info")


@dataclass(frozen=True)
class Files:
    """What is below the directories of packages.

    Attributes:
        roots: those directories.
        libraries: files that are named like shared libraries.
        unreadable: files that this user may not read, and directories that it may not enter.
        count: of files.
    """

    roots: tuple[Path, ...]
    libraries: tuple[Path, ...]
    unreadable: tuple[Path, ...]
    count: int


def roots() -> tuple[Path, ...]:
    """The directories on sys.path in which packages are installed, in its order."""
    standard = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    found: dict[Path, None] = {}
    for directory in sys.path:
        path = Path(directory)
        if path in standard or not directory or not path.is_dir():
            continue
        try:
            names = [entry.name for entry in path.iterdir()]
        except OSError:
            continue
        if path.name in ("site-packages", "dist-packages") or any(name.endswith(_METADATA) for name in names):
            found[path.resolve()] = None
    return tuple(found)


def walk() -> Files:
    """Looks at every file once, in one pass: an image has some ten thousand."""
    libraries: list[Path] = []
    unreadable: list[Path] = []
    count = 0
    where = roots()
    for root in where:
        for entry in _below(root, unreadable):
            count += 1
            if ".so" in entry.name and (entry.name.endswith(".so") or ".so." in entry.name):
                libraries.append(Path(entry.path))
            if not _readable(entry):
                unreadable.append(Path(entry.path))
    return Files(where, tuple(sorted(libraries)), tuple(unreadable), count)


def _below(directory: Path, unreadable: list[Path]) -> Iterator[os.DirEntry[str]]:
    queue = [str(directory)]
    while queue:
        here = queue.pop()
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        queue.append(entry.path)
                    elif entry.is_file():
                        yield entry
        except OSError:
            unreadable.append(Path(here))


def _readable(entry: os.DirEntry[str]) -> bool:
    """Whether this process may read a file: what everybody may read needs no further question."""
    return bool(entry.stat().st_mode & stat.S_IROTH) or os.access(entry.path, os.R_OK)


def shown(path: Path, where: tuple[Path, ...]) -> str:
    """A path as a finding names it: below its package directory where it is in one."""
    for root in where:
        if root in path.parents:
            return str(path.relative_to(root))
    return str(path)


def interpreter() -> Path:
    """The program that runs this, without links."""
    return Path(sys.executable).resolve()
