"""`imgbuild render`."""

from __future__ import annotations

from pathlib import Path

import click

from builder.cli.options import load, matrix_options, select_cells, selection_options
from builder.errors import Differs


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
    from builder.render import ContextFile, render_all

    project, matrix = load(matrix_path, repository)
    cells = select_cells(matrix, patterns, only, skip)
    wanted: dict[str, ContextFile] = {}
    wheels: set[str] = set()
    for recipe in render_all(cells, project.dockerfiles, project.shipped_dockerfiles):
        wanted[recipe.name] = ContextFile(path=recipe.name, data=recipe.dockerfile.encode(), mode=0o644)
        for file in recipe.files:
            wanted[file.path] = file
        for directory, _ in recipe.wheels:
            path = f"{directory}/.keep"
            wanted[path] = ContextFile(path=path, data=b"", mode=0o644)
            wheels.add(directory)
    differing = [path for path, file in sorted(wanted.items()) if not is_written(output / path, file.data, file.mode)]
    if check:
        # Some of the cells leave open what the others need.
        whole = not (patterns or only or skip)
        leftover = leftovers(output, wanted, wheels) if whole else ()
        for path in differing:
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
    refuse_obstacles(output / path for path in differing)
    for path in differing:
        target = output / path
        if not dry_run:
            write_output(target, wanted[path].data, wanted[path].mode)
        click.echo(f"{'would write' if dry_run else 'wrote'} {target}")
    click.echo(f"{len(wanted) - len(differing)} files unchanged")
