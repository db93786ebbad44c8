"""`imgbuild size`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.cli.options import load, matrix_options, note, run_with, select_cells

if TYPE_CHECKING:
    from builder.matrix import Cell, Matrix
    from builder.project import Project
    from builder.workshop import Run


@click.command()
@matrix_options
@click.argument("names", metavar="[IMAGE|CELL]...", nargs=-1)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json", "markdown"]),
    default="text",
    show_default=True,
    help="Output format.",
)
def size(names: tuple[str, ...], matrix_path: Path | None, repository: str | None, format_: str) -> None:
    """Say what the bytes of images are: by layer and by package, what is there twice or hidden by a later layer, and
    what several images share.

    Images are those of this machine's engine, named as docker does. A cell, by its id or a glob, is the image that was
    built for it as it is now; without arguments, all cells that are built. Nothing of an image runs. While one is
    read, the engine needs as many free bytes as it has.

    \b
    Examples:
      imgbuild size
      imgbuild size 'torch-*' --format markdown
      imgbuild size imgbuild/pytorch:latest debian:bookworm-slim
    """
    from builder.pipeline import Options
    from builder.sizes.measure import overview
    from builder.sizes.show import to_document, to_lines, to_markdown
    from builder.workshop import open_engine

    with run_with(Options(jobs=0, checks=0), "plain", "json") as run:
        images = _images(run, names, matrix_path, repository)
        with open_engine(run.site, dry_run=True) as engine:
            found = overview(engine, images, note)
    if format_ == "json":
        click.echo(json.dumps(to_document(found), indent=2))
        return
    for line in (to_lines if format_ == "text" else to_markdown)(found):
        click.echo(line)


def _images(run: Run, names: tuple[str, ...], matrix_path: Path | None, repository: str | None) -> dict[str, str]:
    """What is to be read, each once, in the order in which it was asked for, with its cell where it has one.

    A name with `/`, `:` or `@` is an image; any other is a cell where one matches, and else an image.
    """
    if names and all(_is_reference(name) for name in names):
        return dict.fromkeys(names, "")
    project, matrix = load(matrix_path, repository)
    meant = {name: () if _is_reference(name) else _cells(matrix, name) for name in names}
    cells = tuple({cell.id: cell for group in meant.values() for cell in group}.values())
    built = _built(run, project, matrix, cells if names else matrix.cells)
    if not names:
        if not any(built.values()):
            raise click.UsageError("no cell of the matrix is built; name an image, or build one: imgbuild build CELL")
        return {image: cell for cell, image in built.items() if image}
    found: dict[str, str] = {}
    for name, group in meant.items():
        if not group:
            found.setdefault(name, "")
        elif not any(built[cell.id] for cell in group):
            _refuse_unbuilt(name, group[0].id)
        for cell in group:
            if built[cell.id]:
                found[built[cell.id]] = cell.id
            else:
                note(f"note: {cell.id} is not built as it is rendered now")
    return found


def _is_reference(name: str) -> bool:
    return any(sign in name for sign in "/:@")


def _cells(matrix: Matrix, name: str) -> tuple[Cell, ...]:
    """The cells that a name means; none where it may be an image's. A glob is never that."""
    if any(sign in name for sign in "*?["):
        return select_cells(matrix, (name,), (), ())
    return tuple(cell for cell in matrix.cells if cell.id == name)


def _built(run: Run, project: Project, matrix: Matrix, cells: tuple[Cell, ...]) -> dict[str, str]:
    """The candidate of each cell, by the cell's id; empty where the engine holds none."""
    from builder.lock import Bases
    from builder.workshop import workshop

    if not cells:
        return {}
    with workshop(run, project, matrix, cells, bases=Bases.AUTO.value, dry_run=True) as shop:
        actions = shop.foundry.plan(shop.selected, shop.pins, shop.options)
    return {action.cell.id: action.candidate if action.image_id else "" for action in actions}


def _refuse_unbuilt(name: str, cell: str) -> None:
    from builder.engine.errors import ImageMissing

    raise ImageMissing(
        f"this engine holds no image for {name} as it is rendered now", hint=f"imgbuild build --no-check {cell}"
    )
