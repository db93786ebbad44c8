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
    from builder.display import Mode
    from builder.matrix import Cell, Matrix
    from builder.pipeline import Options
    from builder.project import Project
    from builder.site import Site
    from builder.workshop import Run

F = TypeVar("F", bound=Callable[..., Any])


class Finite(click.FloatRange):
    """A number in a range. `nan` is in no order with either end, and is refused as well."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


SECONDS = Finite(1, 86400)
"""A time to wait: a second to a day."""


_ASSUME_NEW = "builder.assume_new"


def _assume_new(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    """Keeps the option for `load`, so that no command has to hand it on."""
    ctx.meta[_ASSUME_NEW] = value


def matrix_options(function: F) -> F:
    """The options of every command that reads a matrix. `load` heeds `--assume-new` by itself."""
    for option in (
        click.option(
            "--assume-new",
            is_flag=True,
            expose_value=False,
            callback=_assume_new,
            help="Take combinations that imgbuild's facts do not reach, a newer release for example, to work.",
        ),
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


def assume_new() -> bool:
    """Whether `--assume-new` was given to the command that runs."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_ASSUME_NEW))


def load(matrix_path: Path | None, repository: str | None, *, explained: bool = False) -> tuple[Project, Matrix]:
    """The project and its matrix, expanded and judged; what is wrong with it is said on stderr.

    Args:
        matrix_path: of the file; None looks for it.
        repository: as for `load_matrix`.
        explained: whether the command itself tells why combinations were left out.
    """
    from builder.matrix import load_matrix
    from builder.project import find_project

    project = find_project(matrix_path, Path())
    if project.shipped:
        note("no matrix.yaml here: using the one that imgbuild ships (`imgbuild init` writes it out)")
    matrix = load_matrix(project.matrix, repository=repository, assume_new=assume_new())
    for warning in matrix.warnings:
        note(f"warning: {warning}")
    left_out = [
        f"{len(cells)} {kind}"
        for kind, cells in (("impossible", matrix.impossible), ("unknown", matrix.unknown))
        if cells
    ]
    if left_out and not explained:
        note(f"note: combinations left out: {', '.join(left_out)}; `imgbuild matrix --explain` says why")
    return project, matrix


def select_cells(
    matrix: Matrix, patterns: tuple[str, ...], only: tuple[str, ...], skip: tuple[str, ...]
) -> tuple[Cell, ...]:
    """The cells that a command works on.

    Raises:
        Impossible, NotKnown: there are none, and facts are why.
        click.UsageError: there are none for another reason, and some were asked for.
    """
    from builder.matrix import refuse_judged, select

    selection = select(matrix, patterns, only=only, skip=skip)
    if not selection.cells:
        refuse_judged(matrix, patterns, only=only, skip=skip)
    for warning in selection.warnings:
        note(f"warning: {warning}")
    if not selection.cells and (patterns or only or skip):
        raise click.UsageError("no cell is selected; `imgbuild matrix` lists them")
    return tuple(selection.cells)


@contextmanager
def run_with(options: Options, progress: Mode, format_: str) -> Iterator[Run]:
    """What a command works with; signals cancel it."""
    from builder.workshop import Run

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
