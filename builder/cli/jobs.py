"""What `imgbuild matrix` does for CI systems: options that narrow cells down to those with work, and the output."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from builder.cli.options import Finite, note, run_with
from builder.emit.disk import DEFAULT_DISK_GB

if TYPE_CHECKING:
    from builder.emit.jobs import Job
    from builder.matrix import Cell, Matrix
    from builder.project import Project

F = TypeVar("F", bound=Callable[..., Any])

JOB_FORMATS = ("github", "gitlab", "buildkite")
CI_FORMATS = (*JOB_FORMATS, "bake")


@dataclass(frozen=True, kw_only=True)
class Ci:
    """The options' values."""

    shard: str | None
    changed_since: str | None
    missing: bool
    unpublished: bool
    bases: str
    max_jobs: int | None
    disk: float | None
    output: Path | None
    rendered: Path | None


_OPTIONS = (
    click.option("--shard", metavar="I/N", help="Only the I-th of N parts; a cell stays in its part."),
    click.option(
        "--changed-since",
        metavar="GITREF",
        help="Only cells whose image or names would differ from those of this commit.",
    ),
    click.option("--missing", is_flag=True, help="Only cells that `imgbuild build` would have to work on."),
    click.option(
        "--unpublished",
        is_flag=True,
        help="Only cells that their registry lacks under their key, or under one of their names.",
    ),
    click.option(
        "--bases",
        type=click.Choice(["auto", "registry", "bootstrap"]),
        default="auto",
        show_default=True,
        help="For --missing and --unpublished: where bases come from, as for `imgbuild build`.",
    ),
    click.option(
        "--max-jobs",
        type=click.IntRange(1, 100_000),
        metavar="N",
        help="Pack cells that share layers into at most N jobs.  [default: a job for each; 200 for gitlab]",
    ),
    click.option(
        "--disk",
        type=Finite(1, 100_000),
        metavar="GB",
        help=f"What one job may be expected to fill.  [default: {DEFAULT_DISK_GB}]",
    ),
    click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="For buildkite: write a file for each upload, here.",
    ),
    click.option(
        "--rendered",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="For bake: what `imgbuild render -o` wrote.  [default: rendered]",
    ),
)


def ci_options(function: F) -> F:
    """The options above, as one argument `ci`."""

    @functools.wraps(function)
    def wrapped(**values: Any) -> Any:
        own = {name: values.pop(name) for name in Ci.__dataclass_fields__}
        return function(ci=Ci(**own), **values)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


def refuse_misplaced(ci: Ci, format_: str, *, explain: bool) -> None:
    """Refuses an option that says nothing in this format.

    Raises:
        click.UsageError: there is one.
    """
    for name, value, formats in (
        ("--max-jobs", ci.max_jobs, JOB_FORMATS),
        ("--disk", ci.disk, JOB_FORMATS),
        ("--output", ci.output, ("buildkite",)),
        ("--rendered", ci.rendered, ("bake",)),
        ("--explain", explain or None, ("text", "json")),
    ):
        if value is not None and format_ not in formats:
            raise click.UsageError(f"{name} says nothing with --format {format_}: it is for {', '.join(formats)}")


def narrowed(
    ci: Ci, project: Project, matrix: Matrix, cells: tuple[Cell, ...], repository: str | None
) -> tuple[Cell, ...]:
    """The cells that are left when every option has had its say; what needs no engine comes first."""
    if ci.shard is not None:
        from builder.emit.jobs import parse_shard, sharded

        cells = sharded(cells, parse_shard(ci.shard))
    if ci.changed_since is not None:
        from builder.emit.changed import changed_cells

        cells = changed_cells(
            cells, project, ci.changed_since, repository=repository, warn=lambda text: note(f"warning: {text}")
        )
    if cells and (ci.missing or ci.unpublished):
        from builder.commands import unfinished_cells
        from builder.pipeline import Options

        with run_with(Options(jobs=0, checks=0), "plain", "json") as run:
            if ci.missing:
                cells = unfinished_cells(run, project, matrix, cells, bases=ci.bases)
            if cells and ci.unpublished:
                from builder.unpublished import unpublished_cells

                cells = unpublished_cells(run, project, matrix, cells, bases=ci.bases)
    return cells


def emit(ci: Ci, format_: str, project: Project, cells: tuple[Cell, ...]) -> None:
    """Prints the cells in one of `CI_FORMATS`.

    Raises:
        ConfigError: they are more than the system takes, or do not fit.
    """
    if format_ == "bake":
        from builder.emit.bake import bake, pinned
        from builder.lock.file import locks_of

        locks = locks_of(project)
        click.echo(bake(cells, (ci.rendered or Path("rendered")).as_posix(), lambda base: pinned(base, locks)))
        return
    from builder.emit.gitlab import JOBS, gitlab
    from builder.emit.jobs import make_jobs, too_large

    disk = DEFAULT_DISK_GB if ci.disk is None else ci.disk
    max_jobs = ci.max_jobs
    if max_jobs is None and format_ == "gitlab" and len(cells) > JOBS:
        max_jobs = JOBS
    jobs = make_jobs(cells, max_jobs=max_jobs, disk_gb=disk)
    large = too_large(jobs, disk)
    if large:
        note(
            f"warning: {len(large)} jobs may fill more than {disk:g} GB, {large[0].name} for example "
            f"{large[0].disk_mb / 1000:g} GB: use larger runners, and say so with --disk"
        )
    if format_ == "github":
        from builder.emit.github import github

        click.echo(github(jobs))
    elif format_ == "gitlab":
        click.echo(gitlab(jobs), nl=False)
    else:
        _buildkite(ci, jobs)


def _buildkite(ci: Ci, jobs: tuple[Job, ...]) -> None:
    from builder.emit.buildkite import buildkite
    from builder.project import write_output

    documents = buildkite(jobs)
    if ci.output is None:
        if len(documents) > 1:
            raise click.UsageError(
                f"{len(jobs)} jobs need {len(documents)} uploads: name a directory for them with --output, "
                "or pack them with --max-jobs"
            )
        click.echo(documents[0], nl=False)
        return
    digits = len(str(len(documents)))
    written = [ci.output / f"upload-{number:0{digits}d}.yml" for number in range(1, len(documents) + 1)]
    # An upload that an earlier run left would be uploaded again.
    for path in sorted(ci.output.glob("upload-[0-9]*.yml")):
        if path not in written and path.is_file():
            path.unlink()
    for path, text in zip(written, documents, strict=True):
        write_output(path, text.encode(), 0o644)
        click.echo(path)
