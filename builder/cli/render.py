"""`imgbuild render`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.cli.options import load, matrix_options, select_cells, selection_options
from builder.errors import Differs

if TYPE_CHECKING:
    from builder.matrix import Cell
    from builder.render import ContextFile, Recipe


@click.command()
@matrix_options
@selection_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("rendered"),
    show_default=True,
    help="Where the Dockerfiles and their context go; `docker build -f DIR/CELL.Dockerfile DIR` builds one.",
)
@click.option("--check", is_flag=True, help="Write nothing; exit 13 when DIR differs from what would be written.")
@click.option("--dry-run", is_flag=True, help="Only say what would be written.")
def render(
    patterns: tuple[str, ...],
    only: tuple[str, ...],
    skip: tuple[str, ...],
    matrix_path: Path | None,
    repository: str | None,
    output: Path,
    check: bool,
    dry_run: bool,
) -> None:
    """Render the Dockerfiles of the selected cells, with the files that they use.

    \b
    Examples:
      imgbuild render -o rendered
      imgbuild render --check -o rendered      in CI: is what is committed still true?
    """
    from builder.project import is_written, leftovers, refuse_obstacles, write_output
    from builder.render import iter_recipes

    project, matrix = load(matrix_path, repository)
    cells = select_cells(matrix, patterns, only, skip)
    # Two passes, so that nothing is written before everything is known to render, and memory does not grow with what
    # the files hold: the first finds out which files differ, and the second renders those cells again.
    wanted: set[str] = set()
    wheels: set[str] = set()
    differing: dict[str, None] = {}
    changed: list[Cell] = []
    for recipe in iter_recipes(cells, project):
        wheels.update(directory.path for directory in recipe.wheels)
        new = [file for file in _files(recipe) if file.path not in wanted]
        wanted.update(file.path for file in new)
        found = [file.path for file in new if not is_written(output / file.path, file.data, file.mode)]
        if found:
            differing.update(dict.fromkeys(found))
            changed.append(recipe.cell)
    if check:
        # Some of the cells leave open what the others need.
        whole = not (patterns or only or skip)
        leftover = leftovers(output, wanted, wheels) if whole else ()
        for path in sorted(differing):
            click.echo(f"differs: {output / path}")
        for path in leftover:
            click.echo(f"belongs to no cell: {output / path}")
        if differing or leftover:
            raise Differs(
                f"{len(differing) + len(leftover)} files differ from what is rendered",
                where=str(output),
                hint=f"run `imgbuild render -o {output}`"
                + (", remove what belongs to no cell," if leftover else "")
                + " and commit the result",
            )
        click.echo(f"{len(wanted)} files are as rendered")
        return
    refuse_obstacles(output / path for path in sorted(differing))
    unchanged = len(wanted) - len(differing)
    if dry_run:
        for path in differing:
            click.echo(f"would write {output / path}")
        changed = []
    for recipe in iter_recipes(changed, project):
        for file in _files(recipe):
            if file.path not in differing:
                continue
            del differing[file.path]
            target = output / file.path
            write_output(target, file.data, file.mode)
            click.echo(f"wrote {target}")
    click.echo(f"{unchanged} files unchanged")


def _files(recipe: Recipe) -> Iterator[ContextFile]:
    """Everything that is written for a cell."""
    from builder.render import ContextFile

    yield ContextFile(path=recipe.name, data=recipe.dockerfile.encode(), mode=0o644)
    yield from recipe.files
    for directory in recipe.wheels:
        yield ContextFile(path=f"{directory.path}/.keep", data=b"", mode=0o644)
