"""The checks of Horovod over MPI, without MPI: how ranks are started, what is compared, which cells are asked."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from builder.check import Status, VerdictStatus, judge, parse_result, required_checks, suite
from builder.checks import pair, rank_report
from builder.checks.contract import Failed, NotRun
from builder.checks.groups import horovod, horovod_mxnet, horovod_tensorflow
from builder.checks.groups.horovod import mpi
from builder.checks.groups.horovod_mxnet import mpi as mpi_mxnet
from builder.checks.groups.horovod_tensorflow import mpi as mpi_tensorflow
from builder.matrix import Level, load_matrix
from builder.memory import expectation
from builder.project import shipped_data
from builder.render import Recipe, render_all

# Starting the ranks


def launch_of(*ranks: dict[str, Any], directory: Path | None = None, code: int = 0) -> pair.Launch:
    reports = dict(enumerate(ranks))
    return pair.Launch(directory or Path(), 2, code, "it ended", "", reports)


def told(*, built: bool) -> pair.Launch:
    """What two ranks over Gloo tell of their Horovod."""
    return launch_of(*({"built": {"gloo": True, "mpi": built, "nccl": False}} for _ in range(2)))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[pair.Command]:
    """The commands that would have been run, on a machine that has mpirun."""
    commands: list[pair.Command] = []

    def launch(given: list[pair.Command], *_: object) -> pair.Launch:
        commands.extend(given)
        return launch_of()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pair, "launch", launch)
    monkeypatch.setattr(sys, "argv", ["suite.pyz"])
    monkeypatch.setattr(horovod.shutil, "which", lambda name: f"/usr/bin/{name}")
    for module in (mpi, mpi_mxnet, mpi_tensorflow):
        monkeypatch.setattr(module, "expect_mpi", lambda made, sections: {"sections": list(sections)})
    return commands


CHECKS = {
    "horovod._ranks": mpi.run,
    "horovod_mxnet._ranks": mpi_mxnet.run,
    "horovod_tensorflow._ranks": mpi_tensorflow.run,
}


@pytest.mark.parametrize("program", sorted(CHECKS))
def test_mpirun_starts_two_ranks(started: list[pair.Command], program: str) -> None:
    measured = CHECKS[program].run(told(built=True))
    (command,) = started
    words = list(command.words)
    assert words[:3] == ["mpirun", "--np", "2"]
    assert words[words.index("--program") + 1] == program
    # Nothing tells Horovod to use MPI: it must find that by itself, as in a job.
    assert not [name for name in command.environment if name.startswith("HOROVOD_")]
    assert command.environment["OMPI_ALLOW_RUN_AS_ROOT"] == command.environment["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] == "1"
    assert {"allreduce", "broadcast", "gradients", "weights"} <= set(measured["sections"])


def test_tensorflow_sees_no_gpu_over_mpi_either(started: list[pair.Command]) -> None:
    mpi_tensorflow.run.run(told(built=True))
    assert started[0].environment["CUDA_VISIBLE_DEVICES"] == "-1"


@pytest.mark.parametrize("program", sorted(CHECKS))
def test_without_mpi_nothing_is_started(started: list[pair.Command], program: str) -> None:
    with pytest.raises(NotRun, match="Horovod is built without MPI"):
        CHECKS[program].run(told(built=False))
    with pytest.raises(NotRun, match="no rank over Gloo told"):
        CHECKS[program].run(launch_of())
    assert started == []


def test_a_horovod_with_mpi_and_no_mpirun_is_broken(
    started: list[pair.Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(horovod.shutil, "which", lambda name: None)
    with pytest.raises(Failed, match="there is no mpirun"):
        mpi.run.run(told(built=True))
    assert started == []


# What they report


def ranks(*, size: int = 2, enabled: tuple[bool, bool] = (True, True)) -> list[dict[str, Any]]:
    sums = [a + b for a, b in zip(pair.numbers(0), pair.numbers(1), strict=True)]
    return [
        {
            "rank": rank,
            "size": size,
            "pid": 100 + rank,
            "error": None,
            "connections": [],
            "enabled": {"gloo": not enabled[rank], "mpi": enabled[rank]},
            "sections": {"allreduce": {"reductions": {"int32 sum": sums}}},
        }
        for rank in range(2)
    ]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons that have tests of their own, and pass here."""
    monkeypatch.setattr(pair, "expect_broadcast", lambda made: {})
    monkeypatch.setattr(pair, "expect_gradients", lambda made: {"error": 0.0})
    monkeypatch.setattr(pair, "expect_weights", lambda made: {"optimizers": ["sgd"], "series": {}})


@pytest.mark.usefixtures("trained")
def test_ranks_over_mpi() -> None:
    measured = horovod.expect_mpi(launch_of(*ranks()), ("allreduce",))
    assert measured["reductions"] == ["int32 sum"]
    assert measured["optimizers"] == ["sgd"]


@pytest.mark.usefixtures("trained")
def test_ranks_that_are_not_over_mpi() -> None:
    with pytest.raises(Failed, match="rank 1 was started by mpirun, and Horovod does not use MPI in it"):
        horovod.expect_mpi(launch_of(*ranks(enabled=(True, False))), ("allreduce",))
    with pytest.raises(Failed, match="the size is 1 in process 0, expected 2"):
        horovod.expect_mpi(launch_of(*ranks(size=1)), ("allreduce",))
    own = ranks()
    own[0]["sections"]["allreduce"]["reductions"]["int32 sum"] = pair.numbers(0)
    with pytest.raises(Failed, match="its own values, nothing was reduced"):
        horovod.expect_mpi(launch_of(*own), ("allreduce",))
    with pytest.raises(Failed, match="rank 1 reported nothing"):
        horovod.expect_mpi(launch_of(ranks()[0]), ("allreduce",))


@pytest.mark.parametrize(
    ("environment", "number"),
    [
        ({"HOROVOD_RANK": "1"}, 1),
        ({"OMPI_COMM_WORLD_RANK": "1"}, 1),
        ({"HOROVOD_RANK": "1", "OMPI_COMM_WORLD_RANK": "0"}, 1),
        ({}, 7),
    ],
)
def test_the_launcher_numbers_the_processes(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], number: int
) -> None:
    for name in ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert rank_report.process_number(7) == number


def test_what_horovod_is_built_with_and_what_it_uses() -> None:
    yes, no = (lambda: 1), (lambda: 0)
    hvd = SimpleNamespace(gloo_built=yes, mpi_built=yes, nccl_built=lambda: 23007, gloo_enabled=no, mpi_enabled=yes)
    assert rank_report.horovod_ways(hvd) == {
        "built": {"gloo": True, "mpi": True, "nccl": True},
        "enabled": {"gloo": False, "mpi": True},
    }


# Of which cells it is asked

MPI_CHECKS = {"horovod.mpi", "horovod.mxnet.mpi", "horovod.tensorflow.mpi"}


@pytest.mark.parametrize(
    ("framework", "name"),
    [("torch", "horovod.mpi"), ("tensorflow-cpu", "horovod.tensorflow.mpi"), ("mxnet", "horovod.mxnet.mpi")],
)
def test_a_cell_over_mpi_is_asked_for_mpi_and_no_other(framework: str, name: str) -> None:
    packages = [framework, "horovod"]
    assert required_checks(packages, controllers=["mpi"]) - required_checks(packages) == {name}
    assert required_checks(packages, controllers=["gloo"]) == required_checks(packages)
    assert not MPI_CHECKS & required_checks([framework], controllers=["mpi"])


def recipe_of(cell: str) -> Recipe:
    data = shipped_data()
    cells = [each for each in load_matrix(data / "matrix.yaml").cells if each.id == cell]
    return render_all(cells, data / "dockerfiles")[0]


def verdict_on(cell: str, status: str) -> tuple[VerdictStatus, tuple[str, ...]]:
    """On an image in which everything passed that the cell requires up to `cpu`, and `horovod.mpi` ended so."""
    wanted = replace(expectation(recipe_of(cell)), packages={}, promised=frozenset(), python="", cuda="")
    required = required_checks(["pip", "torch", "horovod", "tensorboard", "dask", "distributed"])
    rows = [
        {
            "name": spec.name,
            "level": spec.level,
            "status": status
            if spec.name == "horovod.mpi"
            else "passed"
            if spec.name in required and spec.level in ("static", "cpu")
            else "not_run",
            "reason": "",
            "seconds": 1.0,
            "measured": {},
        }
        for spec in suite().checks.values()
    ]
    for row in rows:
        if row["status"] != "passed":
            row["reason"] = "Horovod is built without MPI"
    facts = {
        "python": "3.11.2",
        "platform": "x",
        "system": "x",
        "uid": 1,
        "packages": {},
        "cpu": {"model": "x"},
        "devices": [],
    }
    document = {
        "schema": "imgbuild.check-result/1",
        "nonce": "n",
        "complete": True,
        "level": "cpu",
        "started": "2026-11-24T12:00:00+00:00",
        "seconds": 20.5,
        "facts": facts,
        "checks": rows,
    }
    result = parse_result(json.dumps(document).encode(), "n")
    assert result.level is Level.CPU
    assert Status(status) in {check.status for check in result.checks}
    verdict = judge(wanted, result)
    return verdict.status, verdict.reasons


OVER_GLOO, OVER_MPI = "torch-2.13.0-cpu-py3.11-horovod", "torch-2.13.0-cpu-py3.11-horovod-mpi"


def test_a_cell_over_mpi_passes_by_mpi_alone() -> None:
    assert verdict_on(OVER_MPI, "passed") == (VerdictStatus.PASSED, ())
    assert verdict_on(OVER_MPI, "not_run") == (
        VerdictStatus.INCOMPLETE,
        ("horovod.mpi: did not run: Horovod is built without MPI",),
    )
    assert verdict_on(OVER_MPI, "failed")[0] is VerdictStatus.FAILED


def test_a_cell_over_gloo_passes_without_mpi() -> None:
    assert verdict_on(OVER_GLOO, "not_run") == (VerdictStatus.PASSED, ())
    assert verdict_on(OVER_GLOO, "failed")[0] is VerdictStatus.FAILED


def test_the_deadline_of_a_check_is_longer_than_that_of_its_ranks() -> None:
    checks = suite().checks
    assert checks["horovod.mpi"].deadline > horovod.LAUNCH_DEADLINE
    assert checks["horovod.mxnet.mpi"].deadline > horovod_mxnet.LAUNCH_DEADLINE
    assert checks["horovod.tensorflow.mpi"].deadline > horovod_tensorflow.LAUNCH_DEADLINE
