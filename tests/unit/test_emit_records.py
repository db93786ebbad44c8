"""The gate: only the record of success of every planned cell opens it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from emitting import six_hundred

from builder.cli import cli
from builder.cli.ci import ci
from builder.emit.buildkite import buildkite
from builder.emit.github import github
from builder.emit.gitlab import gitlab
from builder.emit.jobs import Job, digest_of, make_jobs
from builder.emit.records import (
    RECORDS,
    CellRecord,
    Record,
    judge,
    parse_jobs,
    parse_plan,
    parse_record,
    parse_report,
    refuse_other_cells,
)
from builder.errors import CheckFailed, CheckIncomplete, ConfigError, ImgbuildError

DIGEST = "sha256:" + "a" * 64


def cell(name: str, **changes: object) -> CellRecord:
    good = CellRecord(
        cell=name,
        status="verified",
        exit_code=0,
        candidate=f"r/i:candidate-{name}",
        digest=DIGEST,
        references=(f"r/i:{name}", f"r/i:{name}-verified"),
    )
    return replace(good, **changes)  # type: ignore[arg-type]


def record(*cells: CellRecord, **changes: object) -> Record:
    good = Record(job=digest_of(c.cell for c in cells)[:10], pushed=True, cells=cells)
    return replace(good, **changes)  # type: ignore[arg-type]


A, B = record(cell("a"), cell("b")), record(cell("c", status="unchanged"))
PLAN = (A.job, B.job)


def test_success_of_everything_opens_the_gate() -> None:
    assert [found.cell for found in judge(PLAN, [B, A])] == ["a", "b", "c"]
    assert judge((), []) == ()
    # An earlier attempt of the run, with another plan, has left one that failed.
    assert judge(PLAN, [B, record(cell("d", status="failed")), A]) == judge(PLAN, [A, B])
    assert len(judge((B.job,), [record(cell("c", digest=""), pushed=False)])) == 1


@pytest.mark.parametrize(
    ("records", "error", "says"),
    [
        ([A], CheckIncomplete, f"job {B.job} left no record"),
        ([], CheckIncomplete, "left no record"),
        ([A, B, B], CheckIncomplete, "two records"),
        ([replace(A, cells=A.cells[:1]), B], CheckIncomplete, "not about the cells that were planned"),
        ([replace(A, cells=()), B], CheckIncomplete, f"job {A.job} was stopped"),
        ([A, record(cell("c", digest=""))], CheckIncomplete, "c was not pushed"),
        ([A, record(cell("c", digest="latest"))], CheckIncomplete, "c was not pushed"),
        ([A, record(cell("c", status="failed", exit_code=10))], CheckFailed, "c: failed, exit code 10"),
        ([A, record(cell("c", status="incomplete"))], CheckFailed, "c: incomplete"),
        ([A, record(cell("c", status="built"))], CheckFailed, "c: built"),
        ([A, record(cell("c", exit_code=1))], CheckFailed, "c: verified, exit code 1"),
        ([A, record(cell("c", status=""))], CheckFailed, "c: no status"),
    ],
)
def test_anything_else_does_not(records: list[Record], error: type[ImgbuildError], says: str) -> None:
    with pytest.raises(error) as caught:
        judge(PLAN, records)
    assert says in str(caught.value)


def test_a_job_is_refused_before_it_builds_cells_that_no_gate_would_take() -> None:
    refuse_other_cells(A.job, ["b", "a"])
    for job, cells in ((A.job, ["a"]), (A.job, []), (B.job, ["a", "b"]), ("", ["a"]), ("../x", ["a"])):
        with pytest.raises(ConfigError, match="not the id of a job with these cells"):
            refuse_other_cells(job, cells)


LACKING = "not verified: reached cpu, `-verified` needs gpu: torch.gpu.train.amp did not run: no GPU"


def test_an_image_without_a_gpu_passes_with_its_public_names(tmp_path: Path) -> None:
    passed = cell("c", status="passed", references=("r/i:c",), reached="cpu", unverified=(LACKING,))
    said = {
        "schema": "imgbuild.report/1",
        "cells": [{**vars(passed), "unverified": [LACKING], "references": ["r/i:c"]}],
    }
    assert parse_report(json.dumps(said), "f") == (replace(passed, digest=""),)
    found = record(passed)
    assert parse_record(found.to_json(), "f") == found
    assert judge([found.job], [found]) == (passed,)
    (tmp_path / f"{found.job}.json").write_text(found.to_json())
    assert gate(tmp_path, "--jobs", found.job) == (0, f"1 cells of 1 jobs passed\nc: {LACKING}\n")
    # What did not reach its public names is no success, whatever else it says.
    with pytest.raises(CheckFailed, match="c: incomplete, exit code 11"):
        judge([found.job], [record(replace(passed, status="incomplete", exit_code=11))])


def test_where_records_lie_is_said_once() -> None:
    defaults = {str(param.default) for step in ci.commands.values() for param in step.params if param.name == "records"}
    assert defaults == {RECORDS}


def test_a_record_reads_back_the_same() -> None:
    assert parse_record(A.to_json(), "f") == A


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "not JSON"), ("[]", "no record"), ('{"schema": "imgbuild.job/9"}', "no record"), ("[" * 100_000, "not JSON")],
)
def test_what_is_no_record_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parse_record(text, "records/x.json")
    assert caught.value.where == "records/x.json"


@pytest.mark.parametrize(
    "changes",
    [{"candidate": ""}, {"candidate": "r/i"}, {"candidate": "R/i:1"}, {"references": (f"r/i:1@{DIGEST}",)}],
)
def test_what_was_pushed_has_names_that_are_some(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"^f\.json: "):
        parse_record(record(cell("a", **changes)).to_json(), "f.json")
    # Nothing is ever done with the names of what was not pushed.
    unpushed = record(cell("a", **changes, digest=""))
    assert parse_record(unpushed.to_json(), "f.json") == unpushed


def test_what_a_record_lacks_is_no_success() -> None:
    document = json.loads(A.to_json())
    for key in ("status", "exit_code"):
        broken = {**document, "cells": [{k: v for k, v in document["cells"][0].items() if k != key}]}
        (found,) = parse_record(json.dumps(broken), "f").cells
        assert not found.good


def test_a_report_of_build_becomes_cells_that_were_not_pushed() -> None:
    said = {"cell": "a", "status": "verified", "exit_code": 0, "candidate": "r:c", "references": ["r:t"], "key": "k"}
    said["image_id"] = "sha256:1"
    (found,) = parse_report(json.dumps({"schema": "imgbuild.report/1", "cells": [said]}), "f")
    assert found == CellRecord(
        cell="a", status="verified", exit_code=0, candidate="r:c", digest="", references=("r:t",), image_id="sha256:1"
    )
    with pytest.raises(ConfigError, match="is no report"):
        parse_report(A.to_json(), "f")


def test_the_plan_is_read_from_ids_and_from_what_github_is_given() -> None:
    jobs = make_jobs(six_hundred(), max_jobs=None, disk_gb=14)
    ids = tuple(job.id for job in jobs)
    assert parse_plan(github(jobs), "plan") == ids
    assert parse_jobs(" ".join(ids), "--jobs") == ids
    assert parse_plan(github(()), "plan") == parse_jobs("", "--jobs") == ()
    for bad in ("zzz", f"{ids[0]} {ids[0]}", f"{ids[0]} ../x", github(jobs)):
        with pytest.raises(ConfigError):
            parse_jobs(bad, "--jobs")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "has_jobs=false",
        "groups=nonsense",
        "has_jobs=false\ngroups=3",
        'has_jobs=false\ngroups={"include": {}}',
        'has_jobs=false\ngroups={"include": [{"id": "group-1"}]}',
        'has_jobs=true\ngroups={"include": [{"matrix": "{\\"include\\": [{}]}"}]}',
        'has_jobs=true\ngroups={"include": []}',
        github(make_jobs(six_hundred()[:1], max_jobs=None, disk_gb=14)).replace("true", "false"),
        A.job,
    ],
)
def test_a_part_of_a_plan_is_none(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_plan(text, "plan.txt")
    assert caught.value.where == "plan.txt"


def gate(directory: Path, *arguments: str) -> tuple[int, str]:
    ran = CliRunner().invoke(cli, ["ci", "gate", "--records", str(directory), *arguments])
    return ran.exit_code, ran.output + str(ran.exception or "")


def test_the_gate_as_a_step(tmp_path: Path) -> None:
    for found in (A, B):
        (tmp_path / f"{found.job}.json").write_text(found.to_json())
        (tmp_path / f"{found.job}.report.json").write_text("a report is no record")
    assert gate(tmp_path, "--jobs", " ".join(PLAN)) == (0, "3 cells of 2 jobs passed\n")
    (tmp_path / f"{B.job}.json").unlink()
    code, said = gate(tmp_path, "--jobs", " ".join(PLAN))
    assert code != 0
    assert B.job in said
    code, said = gate(tmp_path)
    assert code == 2
    assert "--plan" in said


@pytest.mark.parametrize("emit", [gitlab, lambda jobs: buildkite(jobs)[-1]], ids=["gitlab", "buildkite"])
@pytest.mark.parametrize("count", [0, 2])
def test_the_gate_as_it_is_emitted(emit: Callable[[Sequence[Job]], str], count: int, tmp_path: Path) -> None:
    jobs = make_jobs(six_hundred()[:count], max_jobs=None, disk_gb=14)
    document = yaml.safe_load(emit(jobs))
    step = document["gate"] if "gate" in document else next(s for s in document["steps"] if s.get("key") == "gate")
    script = step.get("script") or step["command"]
    (line,) = [line for line in ([script] if isinstance(script, str) else script) if "ci gate" in line]
    environment = {**os.environ, **step.get("variables", {}), **step.get("env", {})}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    if jobs:
        assert run().returncode == 11
        (tmp_path / RECORDS).mkdir()
        for job in jobs:
            found = Record(job=job.id, pushed=True, cells=tuple(cell(name) for name in job.cells))
            (tmp_path / RECORDS / f"{job.id}.json").write_text(found.to_json())
    ran = run()
    assert (ran.returncode, ran.stdout) == (0, f"{count} cells of {count} jobs passed\n"), ran.stderr


def test_a_gate_without_jobs_needs_no_records(tmp_path: Path) -> None:
    (tmp_path / "plan.txt").write_text(github(()) + "\n")
    assert gate(tmp_path / "nowhere", "--plan", str(tmp_path / "plan.txt"))[0] == 0
    code, said = gate(tmp_path, "--plan", str(tmp_path / "none.txt"))
    assert code != 0
    assert "none.txt" in said


def test_a_gate_that_stays_shut_says_why_each_cell_did_not_pass() -> None:
    why = "torch.import: did not run: torch is not installed"
    shut = record(cell("a"), cell("b", status="incomplete", exit_code=11, reasons=(why,)))
    assert parse_record(shut.to_json(), "") == shut
    with pytest.raises(CheckFailed) as raised:
        judge((shut.job,), [shut])
    assert raised.value.hint.splitlines() == ["b: incomplete, exit code 11", f"    {why}"]
