"""`imgbuild ci run | gate | promote`: the steps of a CI job, the same for every system."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.cli.options import load, matrix_options, run_with, select_cells, this_site

if TYPE_CHECKING:
    from builder.emit.records import Record

REPORT = ".report.json"
"""How the names of the reports of `run`'s builds end, which lie beside the records."""

# Every option has a variable, so that no pipeline has to put values into a shell's line.
CONTEXT = {"auto_envvar_prefix": "IMGBUILD"}

_records = click.option(
    "--records",
    type=click.Path(path_type=Path, file_okay=False),
    default="imgbuild-records",
    show_default=True,
    metavar="DIR",
    help="The directory with the jobs' records.",
)
_jobs = click.option("--jobs", metavar="IDS", help="Ids of the planned jobs, space-separated.")
_plan = click.option(
    "--plan",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="What `imgbuild matrix --format github` printed, instead of --jobs.",
)


@click.group()
def ci() -> None:
    """Run the steps of a CI job. Each option NAME is also read from the variable IMGBUILD_NAME."""


@ci.command(context_settings=CONTEXT)
@matrix_options
@click.option("--job", required=True, metavar="ID", help="The job's id; names its record.")
@click.option("--cells", required=True, metavar="IDS", help="Its cells, space-separated.")
@click.option(
    "--bases",
    type=click.Choice(["auto", "registry", "bootstrap"]),
    default="auto",
    show_default=True,
    help="Where bases come from, as for `imgbuild build`.",
)
@click.option("--push/--no-push", default=True, show_default=True, help="Push what passed.")
@_records
def run(
    job: str,
    cells: str,
    matrix_path: Path | None,
    repository: str | None,
    bases: str,
    push: bool,
    records: Path,
) -> None:
    """Build, check and push the cells of one job, and leave a record.

    Candidates that the registry holds are pulled first, and then only checked. The exit code is that of `imgbuild
    build`.
    """
    from builder.commands import absent_candidates, build_cells
    from builder.emit import registry
    from builder.emit.records import Record, parse_report, refuse_other_cells
    from builder.engine.connection import Engine
    from builder.pipeline import Options
    from builder.project import write_output

    project, matrix = load(matrix_path, repository)
    selected = select_cells(matrix, tuple(cells.split()), (), ())
    refuse_other_cells(job, (cell.id for cell in selected))
    # What an earlier attempt left here must not speak for this one, should it be stopped.
    path = records / f"{job}.json"
    write_output(path, Record(job=job, pushed=push, cells=()).to_json().encode(), 0o644)
    site = this_site()
    said: list[str] = []
    with run_with(Options(jobs=0, checks=0), "plain", "json") as shown:
        if push:
            wanted = absent_candidates(shown, project, matrix, selected, bases=bases)
            with Engine.connect(site.engine) as engine:
                for reference in registry.fetch(engine, wanted):
                    click.echo(f"pulled {reference}")
        code = build_cells(replace(shown, echo=said.append), project, matrix, selected, bases=bases)
    report = records / f"{job}{REPORT}"
    write_output(report, "\n".join(said).encode(), 0o644)
    found = parse_report("\n".join(said), str(report))
    if push:
        # Those that passed are pushed also when others did not: nobody has to build them again.
        with Engine.connect(site.engine) as engine:
            found = tuple(registry.push(engine, cell) if cell.good else cell for cell in found)
    record = Record(job=job, pushed=push, cells=found)
    write_output(path, record.to_json().encode(), 0o644)
    for cell in record.cells:
        click.echo(f"{cell.status:<10} {cell.cell} {cell.digest}".rstrip())
    raise SystemExit(code)


@ci.command(context_settings=CONTEXT)
@_jobs
@_plan
@_records
def gate(jobs: str | None, plan: Path | None, records: Path) -> None:
    """Succeed if and only if every job of the plan left a record in which each of its cells passed."""
    from builder.emit.records import judge

    planned = _planned(jobs, plan)
    cells = judge(planned, _read(records))
    click.echo(f"{len(cells)} cells of {len(planned)} jobs passed")


@ci.command(context_settings=CONTEXT)
@_jobs
@_plan
@_records
def promote(jobs: str | None, plan: Path | None, records: Path) -> None:
    """Do what `gate` does, and put the public tags on the digests that passed, without building or pulling."""
    from builder.emit import registry
    from builder.emit.records import judge
    from builder.engine.connection import Engine
    from builder.errors import ConfigError

    cells = judge(_planned(jobs, plan), _read(records))
    for cell in cells:
        if not cell.digest:
            raise ConfigError(f"{cell.cell} was not pushed, so there is nothing to promote", where=str(records))
    site = this_site()
    with Engine.connect(site.engine) as engine:
        for line in registry.promote(engine, cells, ca_bundle=site.ca_bundle):
            click.echo(line)


def _planned(jobs: str | None, plan: Path | None) -> tuple[str, ...]:
    from builder.emit.records import parse_jobs, parse_plan

    if plan is not None:
        return parse_plan(_text(plan), str(plan))
    if jobs is None:
        raise click.UsageError("say which jobs were planned, with --jobs or --plan")
    return parse_jobs(jobs, "--jobs")


def _read(records: Path) -> tuple[Record, ...]:
    from builder.emit.records import parse_record

    files = sorted(path for path in records.glob("*.json") if not path.name.endswith(REPORT))
    return tuple(parse_record(_text(path), str(path)) for path in files)


def _text(path: Path) -> str:
    from builder.errors import ConfigError

    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from None
