"""The steps of a CI job, the same for every system: `python -m builder.emit.steps run | gate | promote`.

`run` takes from the registry what it holds of the cells already, builds, checks and tags on the runner's engine, pushes
the immutable candidates of those images that passed, and leaves a record. `gate` demands a record of success from
every job of the plan. `promote` puts the public tags on exactly the digests that the records name.

Options come from the environment too, so that no pipeline has to put them into a shell's line: IMGBUILD_JOB,
IMGBUILD_JOBS, IMGBUILD_CELLS, IMGBUILD_REPOSITORY, IMGBUILD_BASES, IMGBUILD_PUSH, IMGBUILD_RECORDS.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from builder.emit import registry
from builder.emit.records import Record, judge, parse_jobs, parse_record, parse_report
from builder.engine.connection import Engine
from builder.errors import ConfigError
from builder.exits import exit_code_of
from builder.site import load_site

REPORT = ".report.json"
"""How the names of `imgbuild build`'s own reports end, which lie beside the records."""

_records = click.option(
    "--records",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("imgbuild-records"),
    show_default=True,
    envvar="IMGBUILD_RECORDS",
    help="The directory with the jobs' records.",
)
_jobs = click.option("--jobs", envvar="IMGBUILD_JOBS", metavar="IDS", help="Ids of the planned jobs, space-separated.")
_plan = click.option(
    "--plan",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="What `imgbuild matrix --format github` printed, instead of --jobs.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def steps() -> None:
    """The steps of a CI job."""


@steps.command()
@click.option("--job", required=True, envvar="IMGBUILD_JOB", metavar="ID", help="The job's id; names its record.")
@click.option("--cells", required=True, envvar="IMGBUILD_CELLS", metavar="IDS", help="Its cells, space-separated.")
@click.option("--repository", envvar="IMGBUILD_REPOSITORY", metavar="NAME", help="As `imgbuild build --repository`.")
@click.option("--bases", default="auto", envvar="IMGBUILD_BASES", metavar="MODE", help="As `imgbuild build --bases`.")
@click.option("--push/--no-push", default=True, envvar="IMGBUILD_PUSH", help="Push what passed.  [default: push]")
@_records
def run(job: str, cells: str, repository: str | None, bases: str, push: bool, records: Path) -> int:
    """Build, check and push the cells of one job, and leave a record. The exit code is that of `imgbuild build`."""
    command = [sys.executable, "-m", "builder.cli", "build", *cells.split(), "--bases", bases, "--format", "json"]
    command += ["--repository", repository] if repository else []
    _make(records)
    with Engine.connect(load_site(os.environ).engine) as engine:
        if push:
            planned = subprocess.run([*command, "--dry-run"], stdout=subprocess.PIPE, text=True, check=False)
            if planned.returncode:
                return planned.returncode
            registry.fetch(engine, planned.stdout)
        report = records / f"{job}{REPORT}"
        with report.open("w", encoding="utf-8") as file:
            code = subprocess.run([*command, "--progress", "plain"], stdout=file, check=False).returncode
        if code and not report.stat().st_size:
            return code  # it was stopped before the first cell, and has said by what
        found = parse_report(report.read_text("utf-8"), str(report))
        # Those that passed are pushed also when others did not: nobody has to build them again.
        if push:
            found = tuple(registry.push(engine, cell) if cell.good else cell for cell in found)
    record = Record(job=job, pushed=push, cells=found)
    (records / f"{job}.json").write_text(record.to_json(), encoding="utf-8")
    for cell in record.cells:
        click.echo(f"{cell.status:<10} {cell.cell} {cell.digest}".rstrip())
    return code


@steps.command()
@_jobs
@_plan
@_records
def gate(jobs: str | None, plan: Path | None, records: Path) -> None:
    """Succeed if and only if every job of the plan left a record in which each of its cells passed."""
    planned = _planned(jobs, plan)
    cells = judge(planned, _read(records))
    click.echo(f"{len(cells)} cells of {len(planned)} jobs passed")


@steps.command()
@_jobs
@_plan
@_records
def promote(jobs: str | None, plan: Path | None, records: Path) -> None:
    """Put the public tags on the digests that passed, without building or pulling anything."""
    found = _read(records)
    cells = judge(_planned(jobs, plan), found)
    unpushed = [record.job for record in found if not record.pushed]
    if unpushed:
        raise ConfigError(f"job {unpushed[0]} pushed nothing, so there is nothing to promote", where=str(records))
    site = load_site(os.environ)
    with Engine.connect(site.engine) as engine:
        for line in registry.promote(engine, cells, ca_bundle=site.ca_bundle):
            click.echo(line)


def _planned(jobs: str | None, plan: Path | None) -> tuple[str, ...]:
    if plan is not None:
        return parse_jobs(_text(plan), str(plan))
    if jobs is None:
        raise click.UsageError("say which jobs were planned, with --jobs or --plan")
    return parse_jobs(jobs, "--jobs")


def _read(records: Path) -> tuple[Record, ...]:
    files = sorted(path for path in records.glob("*.json") if not path.name.endswith(REPORT))
    return tuple(parse_record(_text(path), str(path)) for path in files)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from None


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot be made: {error.strerror}", where=str(directory)) from None


if __name__ == "__main__":
    raise SystemExit(exit_code_of(lambda: steps.main(standalone_mode=False)))
