"""`imgbuild ci run | gate | promote`: the steps of a CI job, the same for every system."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.cli.options import load, matrix_options, note, run_with, select_cells, this_site
from builder.cli.trust import trusted_keys

if TYPE_CHECKING:
    from builder.emit.records import CellRecord, Record
    from builder.matrix import Cell, Matrix
    from builder.project import Project
    from builder.workshop import Run

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

    Candidates that the registry holds are pulled first, and then only checked. What the checks found is left in `runs`
    beside the record, and in GitHub Actions in the step's summary. The exit code is that of `imgbuild
    build`, or of the first push that failed.
    """
    from builder.commands import absent_candidates, build_cells
    from builder.emit import registry
    from builder.emit.records import RUNS, Record, parse_report, refuse_other_cells
    from builder.engine.connection import Engine
    from builder.pipeline import Options
    from builder.project import write_output
    from builder.report import speaking_code

    project, matrix = load(matrix_path, repository)
    selected = select_cells(matrix, tuple(cells.split()), (), ())
    refuse_other_cells(job, (cell.id for cell in selected))
    # What an earlier attempt left here must not speak for this one, should it be stopped.
    path = records / f"{job}.json"
    write_output(path, Record(job=job, pushed=push, cells=()).to_json().encode(), 0o644)
    site = this_site()
    said: list[str] = []
    with run_with(Options(jobs=0, checks=0, runs=records / RUNS), "plain", "json") as shown:
        if push:
            wanted = absent_candidates(shown, project, matrix, selected, bases=bases)
            with Engine.connect(site.engine) as engine:
                for reference in registry.fetch(engine, wanted):
                    click.echo(f"pulled {reference}")
        code = build_cells(replace(shown, echo=said.append), project, matrix, selected, bases=bases)
        report = records / f"{job}{REPORT}"
        write_output(report, "\n".join(said).encode(), 0o644)
        found = parse_report("\n".join(said), str(report))
        # Those that passed are pushed also when others did not: nobody has to build them again.
        if push and site.signing_key is not None:
            found = _published(replace(shown, echo=said.append), project, matrix, selected, found)
        elif push:
            click.echo(f"nothing is signed: no `signing-key` is named in {site.config} or IMGBUILD_SIGNING_KEY")
            found = _pushed(shown, found)
    record = Record(job=job, pushed=push, cells=found)
    write_output(path, record.to_json().encode(), 0o644)
    for cell in record.cells:
        click.echo(f"{cell.status:<10} {cell.cell} {cell.digest}".rstrip())
        for line in (*cell.unverified, *(() if cell.good else cell.reasons)):
            click.echo(f"           {line}")
    _summarize(record)
    raise SystemExit(speaking_code((code, *(cell.exit_code for cell in found))))


def _summarize(record: Record) -> None:
    """Adds the cells to the summary of the CI system's step, where it has one."""
    from builder.check import VerdictStatus
    from builder.errors import ConfigError
    from builder.runs import Run as CheckedRun
    from builder.runs import Unchecked, append_summary, read_run

    runs: list[CheckedRun] = []
    others: list[Unchecked] = []
    for cell in record.cells:
        made = read_run(Path(cell.run)) if cell.run else None
        if made is not None:
            runs.append(made)
        # What passed its check may have failed since: then its run says less than there is to say.
        if made is None or (made.status is VerdictStatus.PASSED and not cell.good):
            reason = "; ".join((*cell.reasons, *cell.unverified))
            others.append(Unchecked(name=cell.cell, status=cell.status, reason=reason))
    try:
        append_summary(os.environ, runs, others)
    except ConfigError as error:
        note(f"warning: {error}")  # the job has done what it was to do


def _pushed(shown: Run, found: tuple[CellRecord, ...]) -> tuple[CellRecord, ...]:
    """Pushes what passed, unsigned; the records of all. One that is refused does not keep the others."""
    from builder.emit import registry
    from builder.engine.connection import Engine
    from builder.engine.errors import EngineError
    from builder.errors import ImgbuildError, Interrupted
    from builder.exits import interrupted_code
    from builder.site import redact

    records = []
    with Engine.connect(shown.site.engine) as engine:
        for cell in found:
            try:
                if cell.good and shown.cancel.is_set():
                    raise Interrupted("not pushed")
                records.append(registry.push(engine, cell, shown.site) if cell.good else cell)
            except (EngineError, ImgbuildError) as error:
                code = interrupted_code() if shown.cancel.is_set() else error.exit_code
                said = tuple(redact(line.strip(), shown.site) for line in str(error).splitlines())
                records.append(replace(cell, status="failed", exit_code=code, reasons=said))
    return tuple(records)


def _published(
    shown: Run, project: Project, matrix: Matrix, selected: tuple[Cell, ...], found: tuple[CellRecord, ...]
) -> tuple[CellRecord, ...]:
    """Pushes what passed, with signed evidence beside it, and without names; the records of all."""
    from builder.publishing import published

    good = {cell.cell for cell in found if cell.good}
    chosen = tuple(cell for cell in selected if cell.id in good)
    done = {item.cell: item for item in published(shown, project, matrix, chosen, names=False)} if chosen else {}
    records = []
    for cell in found:
        item = done.get(cell.cell)
        if item is not None:
            for line in item.to_lines():
                click.echo(line)
            cell = replace(cell, digest=item.digest)
            if item.exit_code:
                cell = replace(cell, status="failed", exit_code=item.exit_code, reasons=item.reasons)
        records.append(cell)
    return tuple(records)


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
    for cell in cells:
        for line in cell.unverified:
            click.echo(f"{cell.cell}: {line}")


@ci.command(context_settings=CONTEXT)
@_jobs
@_plan
@_records
def promote(jobs: str | None, plan: Path | None, records: Path) -> None:
    """Do what `gate` does, and put the public tags on the digests that passed, without building or pulling.

    Where keys are trusted (the site's `trusted-keys`, or its own `signing-key`), an image gets the names that its
    signed evidence in the registry allows, and without such evidence nothing is named.
    """
    from builder.emit import registry
    from builder.emit.records import judge
    from builder.errors import ConfigError

    cells = judge(_planned(jobs, plan), _read(records))
    for cell in cells:
        if not cell.digest:
            raise ConfigError(f"{cell.cell} was not pushed, so there is nothing to promote", where=str(records))
    site = this_site()
    keys = trusted_keys(site, (), needed=False)
    if keys:
        for line in registry.promote_by_evidence(cells, keys, site):
            click.echo(line)
        return
    click.echo(f"nothing is signed: no `trusted-keys` are named in {site.config} or IMGBUILD_TRUSTED_KEYS")
    for line in registry.promote(cells, site):
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
