"""The `imgbuild` command: options and printing. What a command does is below; how it ends is in `exits`."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from builder import __version__
from builder.errors import ConfigError, Differs, DoctorFailed
from builder.exits import cancellable, exit_code_of

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


def _reference(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Refuses what names no image before an engine is asked for it."""
    from builder.engine.reference import InvalidReference, Reference

    if value is not None:
        try:
            Reference.parse(value)
        except InvalidReference as error:
            raise click.BadParameter(str(error)) from None
    return value


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="imgbuild")
def cli() -> None:
    """Build deep-learning images over a CUDA x framework x Python matrix, train a model in each of them, and tag as
    verified exactly the image that passed.

    \b
    Start here:
      imgbuild doctor                  is this machine fit to build?
      imgbuild matrix                  what would be built, what is excluded, and why
      imgbuild build                   build, check and tag everything; a second run does nothing
      imgbuild build '*-horovod'       only the cells that match a glob
      imgbuild check --image REF       check any image, also one not built here

    \b
    Without a matrix.yaml in the current folder, the one that imgbuild ships is used; `imgbuild init` writes it out.
    Exit codes: 0 done, 2 usage, 5 configuration, 6 template, 7 engine, 8 base, 9 build, 10 check failed,
    11 check incomplete, 12 disk full, 13 differs, 14 doctor, 15 registry, 16 locked, 17 state, 18 no such image,
    70 a defect of imgbuild, 130 and 143 interrupted.
    """


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


@cli.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option("--force", is_flag=True, help="Overwrite files that are there already.")
@click.option("--dry-run", is_flag=True, help="Only say what would be written.")
def init(directory: Path, force: bool, dry_run: bool) -> None:
    """Write the default matrix.yaml and its templates into DIRECTORY, as a project to start from."""
    from builder.project import DOCKERFILES, MATRIX, SCHEMA, is_written, refuse_obstacles, shipped_data, write_output

    data = shipped_data()
    sources = [
        data / MATRIX,
        data / SCHEMA,
        *sorted(path for path in (data / DOCKERFILES).rglob("*") if path.is_file()),
    ]
    targets = [
        (directory / source.relative_to(data), source.read_bytes(), 0o755 if os.access(source, os.X_OK) else 0o644)
        for source in sources
    ]
    refuse_obstacles(target for target, _, _ in targets)
    existing = [
        target for target, content, mode in targets if os.path.lexists(target) and not is_written(target, content, mode)
    ]
    if existing and not force:
        raise ConfigError(
            f"{len(existing)} files are there already and differ",
            where=str(existing[0]),
            hint="choose an empty folder, or overwrite them with --force",
        )
    for target, content, mode in targets:
        if not dry_run:
            write_output(target, content, mode)
        click.echo(f"{'would write' if dry_run else 'wrote'} {target}")


@cli.command("matrix")
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

    _, matrix = _load(matrix_path, repository)
    cells = _select(matrix, patterns, only, skip)
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


@cli.command()
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

    project, matrix = _load(matrix_path, repository)
    cells = _select(matrix, patterns, only, skip)
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


@cli.command()
@matrix_options
@selection_options
@click.option("-j", "--jobs", type=click.IntRange(1, 64), metavar="N", help="Cells at once.  [default: up to 4]")
@click.option(
    "--bases",
    type=click.Choice(["auto", "registry", "bootstrap"]),
    default="auto",
    show_default=True,
    help="Where bases come from: a registry, or made from the distribution's packages.",
)
@click.option("--no-check", is_flag=True, help="Stop before the check: images get a candidate tag and no other.")
@click.option("--rebuild", is_flag=True, help="Build anew, beside the images that are there already.")
@click.option("--check-deadline", type=SECONDS, default=900, show_default=True, metavar="SECONDS")
@progress_option
@click.option("--dry-run", is_flag=True, help="Only say what would be done, and why.")
@format_option
def build(
    patterns: tuple[str, ...],
    only: tuple[str, ...],
    skip: tuple[str, ...],
    matrix_path: Path | None,
    repository: str | None,
    jobs: int | None,
    bases: str,
    no_check: bool,
    rebuild: bool,
    check_deadline: float,
    progress: Mode,
    dry_run: bool,
    format_: str,
) -> None:
    """Build, check and tag the selected cells.

    An image is tagged only after a model was trained in it, and the tags go to the very image id that passed. What
    did not change is neither built nor checked again. A cell that fails does not stop the others.

    \b
    Examples:
      imgbuild build
      imgbuild build torch-2.13.0-cpu-py3.11-horovod --progress plain
      imgbuild build --dry-run --format json
    """
    from builder.commands import build_cells, show_plan
    from builder.pipeline import Options

    project, matrix = _load(matrix_path, repository)
    cells = _select(matrix, patterns, only, skip)
    options = Options(jobs=jobs or 0, checks=0, check=not no_check, rebuild=rebuild, check_deadline=check_deadline)
    with _run(options, progress, format_) as run:
        code = (show_plan if dry_run else build_cells)(run, project, matrix, cells, bases=bases)
    raise SystemExit(code)


@cli.command()
@matrix_options
@selection_options
@click.option(
    "--image",
    metavar="REF",
    callback=_reference,
    help="Check this image; hold it to the one CELL that is named, if any.",
)
@click.option("--check-deadline", type=SECONDS, default=900, show_default=True, metavar="SECONDS")
@click.option("--user", default="12345:12345", show_default=True, metavar="UID:GID", help="Run the check as this user.")
@click.option("--gpus", is_flag=True, help="Give the container every GPU of the engine.")
@progress_option
@format_option
def check(
    patterns: tuple[str, ...],
    only: tuple[str, ...],
    skip: tuple[str, ...],
    matrix_path: Path | None,
    repository: str | None,
    image: str | None,
    check_deadline: float,
    user: str,
    gpus: bool,
    progress: Mode,
    format_: str,
) -> None:
    """Train a model inside images and say what passed, what failed and what did not run. Moves no tag.

    \b
    Examples:
      imgbuild check torch-2.13.0-cpu-py3.11-horovod
      imgbuild check --image pytorch/pytorch:latest
    """
    from builder.commands import check_cells, check_reference
    from builder.pipeline import Options

    named = bool(patterns or only)
    if image is None and not named:
        raise click.UsageError("name cells to check, or an image with --image REF")
    options = Options(jobs=0, checks=0, check_deadline=check_deadline, user=user, gpus=gpus)
    with _run(options, progress, format_) as run:
        if image is not None and not named:
            raise SystemExit(check_reference(run, image, None))
        project, matrix = _load(matrix_path, repository)
        cells = _select(matrix, patterns, only, skip)
        if image is None:
            raise SystemExit(check_cells(run, project, matrix, cells))
        if len(cells) != 1:
            raise click.UsageError(f"--image can be held to one cell, and {len(cells)} are named")
        raise SystemExit(check_reference(run, image, (project, cells[0])))


@cli.command()
@matrix_options
@format_option
def doctor(matrix_path: Path | None, repository: str | None, format_: str) -> None:
    """Say whether this machine is fit to build the matrix, line by line, with the command that mends what is not."""
    from builder.doctor import NEEDED_FOR_CPU, NEEDED_FOR_CUDA, examine
    from builder.matrix import CPU

    _, matrix = _load(matrix_path, repository)
    cuda = any(cell.cuda != CPU for cell in matrix.cells)
    findings = examine(_site(), needed_bytes=NEEDED_FOR_CUDA if cuda else NEEDED_FOR_CPU)
    failed = [finding for finding in findings if finding.status.value == "failed"]
    if format_ == "json":
        document = [
            {
                "name": finding.name,
                "status": finding.status.value,
                "detail": finding.detail,
                "mend": finding.mend or None,
            }
            for finding in findings
        ]
        click.echo(json.dumps({"schema": "imgbuild.doctor/1", "findings": document}, indent=2))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            click.echo(f"{finding.status.value.replace('_', ' '):<8} {finding.name:<{width}}  {finding.detail}")
            if finding.mend:
                click.echo(f"{'':<8} {'':<{width}}  mend: {finding.mend}")
    if failed:
        raise DoctorFailed(f"{len(failed)} of {len(findings)} lines failed", hint=failed[0].mend)


def _load(matrix_path: Path | None, repository: str | None) -> tuple[Project, Matrix]:
    from builder.matrix import load_matrix
    from builder.project import find_project

    project = find_project(matrix_path, Path())
    if project.shipped:
        _note("no matrix.yaml here: using the one that imgbuild ships (`imgbuild init` writes it out)")
    matrix = load_matrix(project.matrix, repository=repository)
    for warning in matrix.warnings:
        _note(f"warning: {warning}")
    return project, matrix


def _select(
    matrix: Matrix, patterns: tuple[str, ...], only: tuple[str, ...], skip: tuple[str, ...]
) -> tuple[Cell, ...]:
    from builder.matrix import select

    selection = select(matrix, patterns, only=only, skip=skip)
    for warning in selection.warnings:
        _note(f"warning: {warning}")
    if not selection.cells and (patterns or only or skip):
        raise click.UsageError("no cell is selected; `imgbuild matrix` lists them")
    return tuple(selection.cells)


@contextmanager
def _run(options: Options, progress: Mode, format_: str) -> Iterator[Run]:
    """What a command works with; signals cancel it."""
    from builder.commands import Run

    with cancellable() as cancel:
        yield Run(
            site=_site(),
            options=options,
            progress=progress,
            json_output=format_ == "json",
            cancel=cancel,
            echo=click.echo,
        )


def _site() -> Site:
    from builder.site import load_site

    return load_site(os.environ)


def _note(text: str) -> None:
    click.echo(text, err=True)


def main() -> None:
    """Runs the command and ends the process with its exit code."""
    raise SystemExit(exit_code_of(lambda: cli.main(standalone_mode=False)))


if __name__ == "__main__":
    main()
