"""`imgbuild matrix`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.cli.options import format_option, load, matrix_options, select_cells, selection_options

if TYPE_CHECKING:
    from builder.matrix import Cell


@click.command("matrix")
@matrix_options
@selection_options
@format_option
def matrix_command(
    patterns: tuple[str, ...],
    only: tuple[str, ...],
    skip: tuple[str, ...],
    matrix_path: Path | None,
    repository: str | None,
    format_: str,
) -> None:
    """List the cells, and what is excluded and why.

    \b
    Examples:
      imgbuild matrix
      imgbuild matrix --only python=3.11 --format json
    """
    from builder.matrix import select_excluded

    _, matrix = load(matrix_path, repository)
    cells = select_cells(matrix, patterns, only, skip)
    left_out = select_excluded(matrix, patterns, only=only, skip=skip)
    if format_ == "json":
        document = {
            "schema": "imgbuild.matrix/1",
            "cells": [_cell_json(cell) for cell in cells],
            "excluded": [
                {
                    "cell": excluded.id,
                    "axes": dataclasses.asdict(excluded.axes),
                    "reason": excluded.reason,
                    "by": str(excluded.by),
                }
                for excluded in left_out
            ],
            "warnings": list(matrix.warnings),
        }
        click.echo(json.dumps(document, indent=2))
        return
    for cell in cells:
        click.echo(f"{cell.id}  verify={cell.verify.value}  base={cell.base.name}")
        for tag in (*cell.tags, *cell.aliases):
            click.echo(f"    {cell.repository}:{tag}")
    for excluded in left_out:
        click.echo(f"{excluded.id}  excluded: {excluded.reason} ({excluded.by})")
    click.echo(f"{len(cells)} cells, {len(left_out)} excluded")


def _cell_json(cell: Cell) -> dict[str, object]:
    return {
        "cell": cell.id,
        "framework": cell.framework.name,
        "version": cell.framework.version,
        "cuda": cell.cuda,
        "python": cell.python,
        "base": cell.base.name,
        "extras": [extra.name for extra in cell.extras],
        "verify": cell.verify.value,
        "repository": cell.repository,
        "tags": list(cell.tags),
        "aliases": list(cell.aliases),
    }
