"""`imgbuild matrix` for CI systems, as a command."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from some_runs import a_run, check_run

from builder.cli import cli
from builder.emit.records import CellRecord, Record, judge, parse_record
from builder.engine.errors import RegistryError
from builder.errors import CheckFailed, CheckIncomplete
from builder.matrix import Cell
from builder.report import Outcome, Report, Status
from builder.runs import write_run
from builder.workshop import Run as CommandRun

MATRIX = """\
version: 1
repository: registry.example/secret-owner
axes:
  framework: [torch==2.13.0]
  cuda: [cpu]
  python: ["3.11", "3.12"]
  extras: [{extras}]
bases:
  slim: {{image: "debian:bookworm-slim", python: ["3.11", "3.12"]}}
frameworks:
  torch: {{image: pytorch, template: t.Dockerfile.j2, channels: {{cpu: wheels}}}}
channels:
  wheels: "https://download.pytorch.org/whl/cpu"
extras: {{{definitions}}}
defaults: {{base: slim}}
tags: ["{{version}}-py{{python}}{{extras}}"]
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """300 cells on two Pythons."""
    names = [f"extra{number}" for number in range(300)]
    (tmp_path / "matrix.yaml").write_text(
        MATRIX.format(
            extras=", ".join(f"[{name}]" for name in names),
            definitions=", ".join(f"{name}: {{packages: [{name}], named: true}}" for name in names),
        )
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def matrix(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["matrix", *arguments])


def output(*arguments: str) -> str:
    ran = matrix(*arguments)
    assert ran.exit_code == 0, ran.output + str(ran.exception)
    return ran.stdout


def github(*arguments: str) -> dict[str, str]:
    lines = output("--format", "github", *arguments).splitlines()
    return dict(line.split("=", 1) for line in lines)


def cells(*arguments: str) -> list[str]:
    return [cell["cell"] for cell in json.loads(output("--format", "json", *arguments))["cells"]]


def test_many_cells_are_groups_and_packed_ones_a_matrix() -> None:
    found = github()
    groups = [json.loads(group["matrix"])["include"] for group in json.loads(found["groups"])["include"]]
    assert [len(group) for group in groups] == [200, 200, 200]
    assert "matrix" not in found
    packed = json.loads(github("--max-jobs", "100")["matrix"])["include"]
    assert len(packed) <= 100
    assert sorted(cell for row in packed for cell in row["cells"].split()) == sorted(cells())


def test_shards_select_in_every_format() -> None:
    parts = [cells("--shard", f"{number}/3") for number in (1, 2, 3)]
    assert sorted(cell for part in parts for cell in part) == sorted(cells())
    assert {len(part) for part in parts} <= {0, 300, 600}
    for number, part in enumerate(parts, 1):
        assert output("--shard", f"{number}/3").count("verified=") == len(part)
        assert github("--shard", f"{number}/3")["has_jobs"] == ("true" if part else "false")
    named = cells("*-py3.12-extra1*", "--shard", "1/1")
    assert len(named) == 111
    assert all("py3.12" in cell for cell in named)


def test_gitlab_packs_into_what_a_child_pipeline_holds_unless_told_otherwise() -> None:
    def jobs(*arguments: str) -> int:
        document = yaml.safe_load(output("--format", "gitlab", *arguments))
        return sum(isinstance(job, dict) and job.get("extends") == ".cells" for job in document.values())

    assert jobs() <= 200
    assert jobs("--max-jobs", "1000") == 600
    assert jobs("torch-2.13.0-cpu-py3.11-extra1") == 1


def test_buildkite_wants_a_directory_for_several_uploads_and_leaves_no_old_one(project: Path) -> None:
    ran = matrix("--format", "buildkite")
    assert ran.exit_code == 2
    assert "600 jobs need 2 uploads" in ran.stderr
    said = output("--format", "buildkite", "--output", "out")
    assert said == "out/upload-1.yml\nout/upload-2.yml\n"
    (project / "out/notes.txt").write_text("kept")
    (project / "out/upload-3.yml").mkdir()
    assert output("--format", "buildkite", "--output", "out", "--max-jobs", "100") == "out/upload-1.yml\n"
    assert sorted(path.name for path in (project / "out").iterdir()) == ["notes.txt", "upload-1.yml", "upload-3.yml"]
    assert output("--format", "buildkite", "--max-jobs", "100") == (project / "out/upload-1.yml").read_text()


def test_bake_says_where_the_rendered_files_are() -> None:
    document = json.loads(output("--format", "bake", "--rendered", "some/where", "*-py3.11-extra1"))
    (target,) = document["target"].values()
    assert target["context"] == "some/where"
    assert json.loads(output("--format", "bake"))["target"].keys() >= document["target"].keys()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--max-jobs", "3"], "--max-jobs says nothing with --format text"),
        (["--disk", "3", "--format", "bake"], "--disk says nothing with --format bake"),
        (["--output", "x", "--format", "github"], "--output says nothing with --format github"),
        (["--rendered", "x", "--format", "gitlab"], "--rendered says nothing with --format gitlab"),
        (["--explain", "--format", "github"], "--explain says nothing with --format github"),
        (["--max-jobs", "0", "--format", "github"], "0 is not in the range"),
        (["--disk", "nan", "--format", "github"], "'nan' is not a number"),
        (["--format", "github", "nonsense-*"], "no cell is selected"),
        (["--format", "jenkins"], "'jenkins' is not one of"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], says: str) -> None:
    ran = matrix(*arguments)
    assert ran.exit_code == 2
    assert says in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--shard", "3/2"], "no part of a whole"), (["--format", "github", "--max-jobs", "2"], "do not fit into 2 jobs")],
)
def test_what_cannot_be_is_said_in_one_line(arguments: list[str], says: str) -> None:
    ran = matrix(*arguments)
    assert ran.exit_code != 0
    assert says in str(ran.exception)


def test_large_cells_are_a_warning_and_not_an_output() -> None:
    ran = matrix("--format", "github", "--disk", "1", "*-extra1")
    assert "2 jobs may fill more than 1 GB" in ran.stderr
    assert "warning" not in ran.stdout
    assert "warning" not in matrix("--format", "github", "*-extra1").stderr


def test_a_job_with_other_cells_is_refused_before_an_engine_is_asked(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "nonsense://nowhere")
    monkeypatch.setenv("IMGBUILD_STATE_DIR", str(project / "state"))
    (project / "dockerfiles").mkdir()
    (project / "dockerfiles/t.Dockerfile.j2").write_text("FROM scratch\n")
    (row,) = json.loads(github("*-py3.11-extra1")["matrix"])["include"]

    def ran(job: str, cells: str) -> str:
        variables = {"IMGBUILD_JOB": job, "IMGBUILD_CELLS": cells, "IMGBUILD_REPOSITORY": "other"}
        return str(CliRunner().invoke(cli, ["ci", "run"], env=variables).exception)

    for job, cells in ((row["id"], "*-extra1"), ("0" * 10, row["cells"]), ("../" + row["id"], row["cells"])):
        assert "is not the id of a job with these cells" in ran(job, cells)
    assert not (project / "imgbuild-records").exists()
    record = project / f"imgbuild-records/{row['id']}.json"
    record.parent.mkdir()
    record.write_text("left by an earlier attempt, which succeeded")
    assert "DOCKER_HOST" in ran(row["id"], row["cells"])
    with pytest.raises(CheckIncomplete, match="was stopped before its cells were done"):
        judge([row["id"]], [parse_record(record.read_text(), record.name)])


@pytest.fixture
def step(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The summary of a step of GitHub's, on a machine of which nothing is set, for a project that renders."""
    monkeypatch.setenv("IMGBUILD_STATE_DIR", str(project / "state"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project / "step.md"))
    monkeypatch.delenv("IMGBUILD_SIGNING_KEY", raising=False)
    (project / "dockerfiles").mkdir()
    (project / "dockerfiles/t.Dockerfile.j2").write_text("FROM scratch\n")
    return project / "step.md"


def variables(row: dict[str, str]) -> dict[str, str]:
    return {"IMGBUILD_JOB": row["id"], "IMGBUILD_CELLS": row["cells"], "IMGBUILD_REPOSITORY": "other"}


def test_a_job_leaves_what_its_checks_found_beside_its_record_and_in_the_summary(
    project: Path, step: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = json.loads(github("--max-jobs", "1", "*-py3.11-extra1", "*-py3.12-extra1")["matrix"])["include"]
    first, *others = row["cells"].split()

    def build(run: CommandRun, _project: object, _matrix: object, cells: tuple[Cell, ...], *, bases: str) -> int:
        assert run.options.runs is not None
        made = a_run(check_run(), name=first)
        path = write_run(run.options.runs, made, check_run())
        outcomes = [Outcome(cell=first, status=Status.PASSED, run=str(path), unverified=("no GPU | here",))]
        outcomes += [
            Outcome(cell=cell.id, status=Status.INCOMPLETE, exit_code=11, reasons=("torch.import: did not run: x",))
            for cell in cells
            if cell.id != first
        ]
        run.echo(Report(outcomes=tuple(outcomes)).to_json())
        return 11

    monkeypatch.setattr("builder.commands.build_cells", build)
    ran = CliRunner().invoke(cli, ["ci", "run", "--no-push"], env=variables(row))
    assert ran.exit_code == 11, ran.output
    record = parse_record((project / f"imgbuild-records/{row['id']}.json").read_text(), "")
    assert Path(record.cells[0].run).parent == Path("imgbuild-records/runs")
    # Where GitLab and Buildkite are told to look for it.
    junit = project / record.cells[0].run / "junit.xml"
    artifacts = yaml.safe_load(output("--format", "gitlab", "*-extra1"))[".cells"]["artifacts"]
    assert list(project.glob(artifacts["reports"]["junit"])) == [junit]
    assert any(junit.is_relative_to(project / path) for path in artifacts["paths"])
    (group,) = yaml.safe_load(output("--format", "buildkite", "*-py3.11-extra1"))["steps"][:1]
    assert any(junit in project.glob(path) for path in group["steps"][0]["artifact_paths"])
    assert record.cells[0].unverified == ("no GPU | here",)
    assert others
    assert all(cell.run == "" and cell.reasons for cell in record.cells[1:])
    said = step.read_text()
    assert "### imgbuild check" in said
    assert all(cell in said for cell in row["cells"].split())
    # A summary that cannot be written costs no job its success.
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project / "no/such/place"))
    again = CliRunner().invoke(cli, ["ci", "run", "--no-push"], env=variables(row))
    assert again.exit_code == ran.exit_code
    assert "warning: " in again.stderr


DIGEST = "sha256:" + "d" * 64


class NoEngine:
    """What is pushed here needs none."""

    def __enter__(self) -> NoEngine:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def pushing(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[str]]:
    """A registry: what was pushed to it, and the cells that it refuses."""
    pushed: list[str] = []
    refused: list[str] = []

    def push(_engine: object, cell: CellRecord, _site: object) -> CellRecord:
        if cell.cell in refused:
            raise RegistryError("the registry says no | here", hint="ask it")
        pushed.append(cell.cell)
        return replace(cell, digest=DIGEST)

    monkeypatch.setattr("builder.engine.connection.Engine.connect", lambda *_: NoEngine())
    monkeypatch.setattr("builder.commands.absent_candidates", lambda *_, **__: ())
    monkeypatch.setattr("builder.emit.registry.push", push)
    return pushed, refused


def built(failing: Mapping[str, int], pressed: bool = False) -> Callable[..., int]:
    """What stands for the build of a job: every cell passed but those that failed, with their exit codes."""

    def build(run: CommandRun, _project: object, _matrix: object, cells: tuple[Cell, ...], *, bases: str) -> int:
        assert run.options.runs is not None
        outcomes = []
        for cell in cells:
            path = write_run(run.options.runs, a_run(check_run(), name=cell.id), check_run())
            code = failing.get(cell.id, 0)
            status = Status.FAILED if code else Status.PASSED
            candidate = f"registry.example/r:candidate-{cell.id}"
            outcomes.append(
                Outcome(cell=cell.id, status=status, exit_code=code, candidate=candidate, run="" if code else str(path))
            )
        report = Report(outcomes=tuple(outcomes))
        run.echo(report.to_json())
        if pressed:
            run.cancel.set()
        return report.exit_code

    return build


def test_a_push_that_is_refused_is_in_the_record_and_does_not_keep_the_others(
    project: Path, step: Path, pushing: tuple[list[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed, refused = pushing
    (row,) = json.loads(github("--max-jobs", "1", "*-extra1", "*-extra2")["matrix"])["include"]
    first, second, third, fourth = row["cells"].split()

    def ran(failing: Mapping[str, int]) -> tuple[Result, Record]:
        monkeypatch.setattr("builder.commands.build_cells", built(failing))
        result = CliRunner().invoke(cli, ["ci", "run"], env=variables(row))
        return result, parse_record((project / f"imgbuild-records/{row['id']}.json").read_text(), "")

    good, record = ran({})
    assert (good.exit_code, pushed) == (0, [first, second, third, fourth])
    assert [cell.digest for cell in judge([row["id"]], [record])] == [DIGEST] * 4
    assert "says no" not in step.read_text()
    pushed.clear()
    refused.append(second)
    step.unlink()
    # What the engine or a signal did comes before what the registry did, and that before a failed check.
    for code, speaks in ((11, 15), (9, 15), (12, 12)):
        bad, record = ran({third: code})
        assert bad.exit_code == speaks
        assert pushed == [first, fourth]
        pushed.clear()
    cells = {cell.cell: cell for cell in record.cells}
    assert (cells[second].status, cells[second].exit_code, cells[second].digest) == ("failed", 15, "")
    assert cells[second].reasons == ("the registry says no | here", "ask it")
    assert cells[first].good
    with pytest.raises(CheckFailed, match="2 cells did not pass"):
        judge([row["id"]], [record])
    # Its run says that it passed; the summary says beside it that this is not all.
    assert "the registry says no &#124; here; ask it" in step.read_text()
    assert "the registry says no | here" in bad.output


def test_after_a_signal_nothing_is_pushed(
    project: Path, step: Path, pushing: tuple[list[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed, _ = pushing
    (row,) = json.loads(github("*-py3.11-extra1")["matrix"])["include"]
    monkeypatch.setattr("builder.commands.build_cells", built({}, pressed=True))
    ran = CliRunner().invoke(cli, ["ci", "run"], env=variables(row))
    assert (ran.exit_code, pushed) == (130, [])
    (cell,) = parse_record((project / f"imgbuild-records/{row['id']}.json").read_text(), "").cells
    assert (cell.exit_code, cell.reasons, cell.good) == (130, ("not pushed",), False)
