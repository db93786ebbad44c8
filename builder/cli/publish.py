"""`imgbuild publish`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.cli.options import (
    format_option,
    load,
    matrix_options,
    progress_option,
    run_with,
    select_cells,
    selection_options,
)

if TYPE_CHECKING:
    from builder.display import Mode


@click.command()
@matrix_options
@selection_options
@click.option("--no-promote", is_flag=True, help="Push and attach evidence, but put no names.")
@progress_option
@format_option
def publish(
    patterns: tuple[str, ...],
    only: tuple[str, ...],
    skip: tuple[str, ...],
    matrix_path: Path | None,
    repository: str | None,
    no_promote: bool,
    progress: Mode,
    format_: str,
) -> None:
    """Push the images of cells that passed here, with signed evidence, and give them the names that they have earned.

    The registry's digest is proven to be the image that was checked before anything is attached to it or named.
    Statements on the check and on the build are signed with the site's `signing-key`. Names that need a level which
    the image has not reached, such as -verified for CUDA without a GPU, are withheld with the reason. The same again
    changes nothing. A cell that fails does not stop the others.

    \b
    Examples:
      imgbuild publish --repository registry.example.com/team
      imgbuild publish '*-cpu-*' --no-promote --format json
    """
    from builder.pipeline import Options
    from builder.publishing import publish_cells

    project, matrix = load(matrix_path, repository)
    cells = select_cells(matrix, patterns, only, skip)
    with run_with(Options(), progress, format_) as run:
        code = publish_cells(run, project, matrix, cells, names=not no_promote)
    raise SystemExit(code)
