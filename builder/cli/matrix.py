"""`imgbuild matrix`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from builder.cli.jobs import CI_FORMATS, Ci, ci_options, emit, narrowed, refuse_misplaced
from builder.cli.listing import Listing, json_lines, text_lines
from builder.cli.options import load, matrix_options, note, select_cells, selection_options

FORMATS: Final[dict[str, Callable[[Listing], Iterator[str]]]] = {"text": text_lines, "json": json_lines}
"""Writes a listing, line by line."""


@click.command("matrix")
@matrix_options
@selection_options
@ci_options
@click.option(
    "--explain", is_flag=True, help="List every combination: kept, excluded, impossible or unknown, and by what."
)
@click.option(
    "--format",
    "format_",
    type=click.Choice([*FORMATS, *CI_FORMATS]),
    default="text",
    show_default=True,
    help="Output format.",
)
def matrix_command(
    patterns: tuple[str, ...],
    only: tuple[str, ...],
    skip: tuple[str, ...],
    matrix_path: Path | None,
    repository: str | None,
    explain: bool,
    format_: str,
    ci: Ci,
) -> None:
    """List the cells, what is excluded and why, and what facts forbid.

    \b
    Examples:
      imgbuild matrix
      imgbuild matrix --only python=3.11 --format json
      imgbuild matrix --explain
      imgbuild matrix --format github --changed-since origin/main >> "$GITHUB_OUTPUT"
    """
    from builder.matrix import select, select_left_out

    refuse_misplaced(ci, format_, explain=explain)
    project, matrix = load(matrix_path, repository, explained=explain)
    if format_ in CI_FORMATS:
        cells = select_cells(matrix, patterns, only, skip)
        emit(ci, format_, project, narrowed(ci, project, matrix, cells, repository))
        return
    selection = select(matrix, patterns, only=only, skip=skip)
    for warning in selection.warnings:
        note(f"warning: {warning}")
    left_out = select_left_out(matrix, patterns, only=only, skip=skip)
    listing = Listing(cells=selection.cells, left_out=left_out, warnings=matrix.warnings, explain=explain)
    if not listing.count and (patterns or only or skip):
        raise click.UsageError("no cell is selected; `imgbuild matrix` lists them")
    listing = replace(listing, cells=narrowed(ci, project, matrix, listing.cells, repository))
    for line in FORMATS[format_](listing):
        click.echo(line)
