"""Options that several commands share, and what they mean: the project, its cells, this machine's site."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from builder.exits import cancellable

# Everything that a command alone needs is imported inside it: `imgbuild matrix` must not wait for docker or Jinja2.
if TYPE_CHECKING:
    from builder.commands import Run
    from builder.display import Mode
    from builder.matrix import Cell, Matrix
    from builder.pipeline import Options
    from builder.project import Project
    from builder.site import Site

F = TypeVar("F", bound=Callable[..., Any])


class _Seconds(click.FloatRange):
    """A time to wait: a second to a day. `nan` is in no order with either, and is refused as well."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


SECONDS = _Seconds(1, 86400)


def matrix_options(function: F) -> F:
    """The options of every command that reads a matrix."""
    for option in (
        click.option(
            "--repository",
            metavar="NAME",
            help="Prefix of the image repositories, instead of the matrix's own `repository`.",
        ),
        click.option(
            "-f",
            "--matrix",
            "matrix_path",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="The matrix file.  [default: ./matrix.yaml, or else the one that imgbuild ships]",
        ),
    ):
        function = option(function)
    return function


def selection_options(function: F) -> F:
    """CELL arguments and the options that narrow them down."""
    for option in (
        click.option("--skip", multiple=True, metavar="GLOB", help="Leave out cells that match, likewise."),
        click.option(
            "--only",
            multiple=True,
            metavar="GLOB",
            help="Keep only cells that match: a glob over ids, or an axis such as python=3.11; may be repeated.",
        ),
        click.argument("patterns", metavar="[CELL]...", nargs=-1),
    ):
        function = option(function)
    return function


format_option = click.option(
    "--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Output format."
)

progress_option = click.option(
    "--progress", type=click.Choice(["auto", "plain", "json"]), default="auto", show_default=True, help="On stderr."
)


def load(matrix_path: Path | None, repository: str | None) -> tuple[Project, Matrix]:
    from builder.matrix import load_matrix
    from builder.project import find_project

    project = find_project(matrix_path, Path())
    if project.shipped:
        note("no matrix.yaml here: using the one that imgbuild ships (`imgbuild init` writes it out)")
    matrix = load_matrix(project.matrix, repository=repository)
    for warning in matrix.warnings:
        note(f"warning: {warning}")
    return project, matrix


def select_cells(
    matrix: Matrix, patterns: tuple[str, ...], only: tuple[str, ...], skip: tuple[str, ...]
) -> tuple[Cell, ...]:
    from builder.matrix import select

    selection = select(matrix, patterns, only=only, skip=skip)
    for warning in selection.warnings:
        note(f"warning: {warning}")
    if not selection.cells and (patterns or only or skip):
        raise click.UsageError("no cell is selected; `imgbuild matrix` lists them")
    return tuple(selection.cells)


@contextmanager
def run_with(options: Options, progress: Mode, format_: str) -> Iterator[Run]:
    """What a command works with; signals cancel it."""
    from builder.commands import Run

    with cancellable() as cancel:
        yield Run(
            site=this_site(),
            options=options,
            progress=progress,
            json_output=format_ == "json",
            cancel=cancel,
            echo=click.echo,
        )


def this_site() -> Site:
    """This machine's settings."""
    from builder.site import load_site

    return load_site(os.environ)


def note(text: str) -> None:
    click.echo(text, err=True)
