"""What one job of a CI system says of its cells, and what a gate makes of it. Pure.

A record is a JSON file named after its job:

    {"schema": "imgbuild.job/1", "job": ID, "pushed": true,
     "cells": [{"cell", "status", "exit_code", "candidate", "digest", "references", "reached", "unverified",
                "reasons", "run"}]}

It has no cells until they are done.

A gate takes silence for failure: a job without a record, a record without a cell, or a cell without a digest does not
pass, whatever the system says of the job.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from builder.emit.jobs import ID_DIGITS, digest_of
from builder.engine import fields
from builder.engine.reference import InvalidReference, Reference
from builder.errors import CheckFailed, CheckIncomplete, ConfigError

SCHEMA = "imgbuild.job/1"
RECORDS = "imgbuild-records"
"""The directory in which the jobs of all systems leave their records."""

RUNS = "runs"
"""The directory beside the records in which the checks leave their files."""

GOOD = frozenset({"verified", "passed", "unchanged"})
"""What a cell's status may be: its image passed the check, in this run or before, and has earned its references.

`passed` is an image without what `-verified` needs, such as one for CUDA that no GPU was at hand for: a pipeline with a
GPU adds that later.
"""

_ID = re.compile(rf"[0-9a-f]{{{ID_DIGITS},64}}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class CellRecord:
    """What became of one cell.

    Attributes:
        cell: its id.
        status, exit_code: as in the report of `imgbuild build`.
        candidate: the image's immutable reference.
        digest: what the registry holds under it; empty when it was not pushed.
        references: the public references that the image has earned.
        reached: the level that it reached; empty when unknown.
        unverified: what it lacks for `-verified`, one line each.
        reasons: why it did not pass, or needed nothing; one line each.
        image_id: the image that passed, on the engine of the job; empty when there was none.
        run: the directory that its check left on the machine of the job; empty when it was not checked in the job.
    """

    cell: str
    status: str
    exit_code: int
    candidate: str
    digest: str
    references: tuple[str, ...]
    reached: str = ""
    unverified: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    image_id: str = ""
    run: str = ""

    @property
    def good(self) -> bool:
        """Whether the image passed its check."""
        return self.status in GOOD and self.exit_code == 0


@dataclass(frozen=True, kw_only=True)
class Record:
    """What became of one job; `pushed` is whether its job was to push images at all."""

    job: str
    pushed: bool
    cells: tuple[CellRecord, ...]

    def to_json(self) -> str:
        """The file's content."""
        cells = [asdict(cell) for cell in self.cells]
        return json.dumps({"schema": SCHEMA, "job": self.job, "pushed": self.pushed, "cells": cells}, indent=2) + "\n"


def parse_record(text: str, where: str) -> Record:
    """Reads a record.

    Raises:
        ConfigError: it is none.
    """
    document = _document(text, where)
    if document.get("schema") != SCHEMA:
        raise ConfigError(f"is no record of a job: its schema is not {SCHEMA}", where=where)
    return Record(
        job=fields.text(document.get("job")),
        pushed=fields.boolean(document.get("pushed")),
        cells=tuple(_cell(fields.mapping(cell), where) for cell in fields.sequence(document.get("cells"))),
    )


def _cell(cell: Mapping[str, object], where: str) -> CellRecord:
    found = CellRecord(
        cell=fields.text(cell.get("cell")),
        status=fields.text(cell.get("status")),
        exit_code=fields.integer(cell.get("exit_code"), 1),
        candidate=fields.text(cell.get("candidate")),
        digest=fields.text(cell.get("digest")),
        references=fields.texts(cell.get("references")),
        reached=fields.text(cell.get("reached")),
        unverified=fields.texts(cell.get("unverified")),
        reasons=fields.texts(cell.get("reasons")),
        image_id=fields.text(cell.get("image_id")),
        run=fields.text(cell.get("run")),
    )
    # What was pushed is what will be named.
    for text in (found.candidate, *found.references) if found.digest else ():
        try:
            named = Reference.parse(text)
        except InvalidReference as error:
            raise ConfigError(str(error), where=where) from None
        if not named.tag or named.digest:
            raise ConfigError(f"{text!r} is no name of an image with a tag", where=where)
    return found


def parse_report(text: str, where: str) -> tuple[CellRecord, ...]:
    """Reads what `imgbuild build --format json` says of its cells; nothing was pushed yet.

    Raises:
        ConfigError: it is no report.
    """
    document = _document(text, where)
    if not fields.text(document.get("schema")).startswith("imgbuild.report/"):
        raise ConfigError("is no report of `imgbuild build --format json`", where=where)
    cells = [{**fields.mapping(cell), "digest": ""} for cell in fields.sequence(document.get("cells"))]
    wrapped = json.dumps({"schema": SCHEMA, "job": "", "pushed": False, "cells": cells})
    return parse_record(wrapped, where).cells


def parse_jobs(text: str, where: str) -> tuple[str, ...]:
    """The ids of the jobs of a plan, separated by spaces.

    Raises:
        ConfigError: one is no id, or is there twice.
    """
    ids = text.split()
    for name in ids:
        if not _ID.fullmatch(name):
            raise ConfigError(f"{name[:40]!r} is no id of a job", where=where)
    if len(set(ids)) != len(ids):
        raise ConfigError("names a job twice", where=where)
    return tuple(ids)


def parse_plan(text: str, where: str) -> tuple[str, ...]:
    """The ids of the jobs in the outputs of `--format github`.

    Raises:
        ConfigError: it is something else, or a part of it: an empty file is no plan without jobs.
    """
    outputs = dict(line.partition("=")[::2] for line in text.splitlines())
    groups = _rows(outputs.get("groups", "{}"), where)
    rows = [row for group in groups for row in _rows(fields.text(group.get("matrix")), where)]
    if outputs.get("has_jobs") != ("true" if rows else "false"):
        raise ConfigError("its `has_jobs` and its `groups` contradict each other", where=where)
    return parse_jobs(" ".join(fields.text(row.get("id")) or "?" for row in rows), where)


def refuse_other_cells(job: str, cells: Iterable[str]) -> None:
    """Looks, before hours of building, whether a job's id is the one of these cells.

    Raises:
        ConfigError: it is not, so that no gate would take its record.
    """
    if not _ID.fullmatch(job) or not digest_of(cells).startswith(job):
        raise ConfigError(
            f"{job[:40]!r} is not the id of a job with these cells",
            where="--job",
            hint="take both from one job of `imgbuild matrix --format FORMAT`, and the same matrix for both",
        )


def judge(jobs: Sequence[str], records: Iterable[Record]) -> tuple[CellRecord, ...]:
    """The cells of a plan, when every one of them has succeeded.

    Args:
        jobs: ids of the jobs that were planned.
        records: what the jobs left behind. Those of other jobs say nothing: an earlier attempt of the same run, with
            another plan, may have left them.

    Raises:
        CheckFailed: a cell did not pass.
        CheckIncomplete: a job has no record or several, a record does not hold the cells that its id stands for, or an
            image that was to be pushed has no digest.
    """
    known: dict[str, Record] = {}
    doubts: list[str] = []
    for record in records:
        if record.job in known:
            doubts.append(f"job {record.job} has two records")
        known[record.job] = record
    doubts += [f"job {job} left no record" for job in jobs if job not in known]
    planned = [known[job] for job in jobs if job in known]
    doubts += [doubt for record in planned for doubt in _doubts(record)]
    failed = [cell for record in planned for cell in record.cells if not cell.good]
    if failed:
        lines = [line for cell in failed for line in _failure(cell)]
        raise CheckFailed(f"{len(failed)} cells did not pass", hint="\n  ".join([*lines, *doubts]))
    if doubts:
        raise CheckIncomplete(f"the plan is not done: {doubts[0]}", hint="\n  ".join(doubts[1:]))
    return tuple(cell for record in planned for cell in record.cells)


def _failure(cell: CellRecord) -> Iterator[str]:
    yield f"{cell.cell}: {cell.status or 'no status'}, exit code {cell.exit_code}"
    yield from (f"  {reason}" for reason in cell.reasons)


def _doubts(record: Record) -> Iterator[str]:
    if not record.cells:
        yield f"job {record.job} was stopped before its cells were done"
    elif not digest_of(cell.cell for cell in record.cells).startswith(record.job):
        yield f"the record of job {record.job} is not about the cells that were planned for it"
    for cell in record.cells:
        if record.pushed and cell.good and not _DIGEST.fullmatch(cell.digest):
            yield f"{cell.cell} was not pushed"


def _document(text: str, where: str) -> Mapping[str, object]:
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"is not JSON: {error}", where=where) from None
    return fields.mapping(document)


def _rows(text: str, where: str) -> list[Mapping[str, object]]:
    rows = _document(text, where).get("include")
    if not isinstance(rows, list):
        raise ConfigError("is not what `imgbuild matrix --format github` writes", where=where)
    return [fields.mapping(row) for row in rows]
