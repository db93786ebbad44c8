"""`imgbuild build` and `imgbuild check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.cli.options import (
    SECONDS,
    format_option,
    load,
    matrix_options,
    progress_option,
    run_with,
    select_cells,
    selection_options,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.display import Mode
    from builder.matrix import Cell
    from builder.project import Project
    from builder.workshop import Run


def _reference(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Refuses what names no image before an engine is asked for it."""
    from builder.engine.reference import InvalidReference, Reference

    if value is not None:
        try:
            Reference.parse(value)
        except InvalidReference as error:
            raise click.BadParameter(str(error)) from None
    return value


def _of_reference(attach: bool) -> Callable[[Run, str, tuple[Project, Cell] | None], int]:
    """What checks one image that is named by its reference."""
    if attach:
        from builder.attaching import check_attached

        return check_attached
    from builder.commands import check_reference

    return check_reference


_recheck = click.option("--recheck", is_flag=True, help="Check also what has passed and did not change since.")
_runs = click.option(
    "--runs",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Leave the files of each check here (JUnit, Markdown, TensorBoard).  [default: in the state directory]",
)
_fail_fast = click.option("--fail-fast", is_flag=True, help="End each check after its first failure.")


@click.command()
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
@_recheck
@_fail_fast
@_runs
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
    recheck: bool,
    fail_fast: bool,
    runs: Path | None,
    check_deadline: float,
    progress: Mode,
    dry_run: bool,
    format_: str,
) -> None:
    """Build, check and tag the selected cells.

    An image is tagged only after a model was trained in it, and the tags go to the very image id that passed. A CUDA
    cell gets the tags that end in -verified only after it was trained on a GPU. What did not change is neither built
    nor checked again. A cell that fails does not stop the others.

    \b
    Examples:
      imgbuild build
      imgbuild build torch-2.13.0-cpu-py3.11-horovod --progress plain
      imgbuild build --dry-run --format json
    """
    from builder.commands import build_cells, show_plan
    from builder.pipeline import Options

    project, matrix = load(matrix_path, repository)
    cells = select_cells(matrix, patterns, only, skip)
    options = Options(
        jobs=jobs or 0,
        checks=0,
        check=not no_check,
        rebuild=rebuild,
        check_deadline=check_deadline,
        recheck=recheck,
        fail_fast=fail_fast,
        runs=runs,
    )
    with run_with(options, progress, format_) as run:
        code = (show_plan if dry_run else build_cells)(run, project, matrix, cells, bases=bases)
    raise SystemExit(code)


@click.command()
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
@click.option("--gpus", is_flag=True, help="Give the container every GPU of the engine; it must have one.")
@click.option(
    "--attach",
    is_flag=True,
    help="Sign what the check came to, and attach it in the registry to the digest that --image names.",
)
@click.option(
    "--level",
    type=click.Choice(["static", "cpu", "gpu", "multi-gpu", "multi-node"]),
    help="Check no further than this.  [default: as far as the cell asks and the engine can]",
)
@_recheck
@_fail_fast
@_runs
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
    attach: bool,
    level: str | None,
    recheck: bool,
    fail_fast: bool,
    runs: Path | None,
    progress: Mode,
    format_: str,
) -> None:
    """Train a model inside images and say what passed, what failed and what did not run. Moves no tag.

    A cell's image whose content has passed as far as it can here is not checked again, unless with --recheck.

    \b
    Examples:
      imgbuild check torch-2.13.0-cpu-py3.11-horovod
      imgbuild check torch-2.13.0-cuda13.0-py3.11 --level gpu
      imgbuild check --image pytorch/pytorch:latest
      imgbuild check --image registry.example.com/team/pytorch@sha256:… --level gpu --attach
    """
    from builder.commands import check_cells
    from builder.matrix import Level
    from builder.pipeline import Options

    named = bool(patterns or only)
    if image is None and not named:
        raise click.UsageError("name cells to check, or an image with --image REF")
    if attach and image is None:
        raise click.UsageError("--attach needs an image of a registry: --image REPOSITORY@sha256:…")
    options = Options(
        jobs=0,
        checks=0,
        check_deadline=check_deadline,
        user=user,
        gpus=gpus,
        level=Level(level) if level else None,
        recheck=recheck,
        fail_fast=fail_fast,
        runs=runs,
    )
    with run_with(options, progress, format_) as run:
        if image is not None and not named:
            raise SystemExit(_of_reference(attach)(run, image, None))
        project, matrix = load(matrix_path, repository)
        cells = select_cells(matrix, patterns, only, skip)
        if image is None:
            raise SystemExit(check_cells(run, project, matrix, cells))
        if len(cells) != 1:
            raise click.UsageError(f"--image can be held to one cell, and {len(cells)} are named")
        raise SystemExit(_of_reference(attach)(run, image, (project, cells[0])))
