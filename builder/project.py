"""Where a project's files are: its own ones, and behind them those that imgbuild ships."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from builder.errors import ConfigError

MATRIX = "matrix.yaml"
DOCKERFILES = "dockerfiles"


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
        ConfigError: the file that was asked for does not exist.
    """
    data = shipped_data()
    if matrix is not None and not matrix.is_file():
        raise ConfigError(
            "there is no such file", where=str(matrix), hint="`imgbuild init` writes a matrix to start from"
        )
    own = matrix if matrix is not None else folder / MATRIX
    shipped = not own.is_file()
    path = data / MATRIX if shipped else own
    root = folder if shipped else path.parent
    return Project(
        root=root,
        matrix=path,
        dockerfiles=root / DOCKERFILES,
        shipped_dockerfiles=data / DOCKERFILES,
        shipped=shipped,
    )
