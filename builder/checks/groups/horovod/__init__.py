# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What an image with Horovod promises: two processes that train as one. `_ranks` is the program that each of them runs.

This side compares files with the standard library; neither Horovod nor torch takes part in the comparison.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder.checks import pair
from builder.checks.contract import Group, Measured, NotRun, expect, fail, short
from builder.checks.groups.horovod import _ranks

#: Seconds for both ranks, import included; they take about 10 on two idle cores.
LAUNCH_DEADLINE = 150.0
#: mpirun refuses to start anything as root, who may be the one that checks, unless it is told so twice.
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
#: A rank that waits gives its core to others, which Open MPI sees to only where it knows of more ranks than slots: on
#: one core, the check of MXNet's two ranks takes 3.2 s with it and 5.6 s without.
YIELDING = {"OMPI_MCA_mpi_yield_when_idle": "1"}


def launcher() -> list[str]:
    """The words that begin a launch: the `horovodrun` of this interpreter, or its module."""
    beside = Path(sys.executable).with_name("horovodrun")
    found = str(beside) if beside.exists() else shutil.which("horovodrun")
    return [found] if found else [sys.executable, "-m", "horovod.runner.launch"]


def launch_ranks(**environment: str) -> pair.Launch:
    """Runs two ranks over Gloo to their end, with these variables beside those of this process."""
    directory = Path(tempfile.mkdtemp(prefix="ranks-", dir=Path.cwd()))
    words = [*launcher(), "--gloo", "-np", "2", "-H", "localhost:2", *pair.program("horovod._ranks", directory)]
    given = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **environment}
    return pair.launch([pair.Command("horovodrun", words, given)], directory, 2, LAUNCH_DEADLINE)


def launch_over_mpi(program: str, deadline: float, **environment: str) -> pair.Launch:
    """Runs a program in two ranks that mpirun starts and that find each other by MPI alone, as jobs on clusters do.

    Args:
        program: as `pair.program` takes it.
        deadline: seconds.
        environment: beside the variables of this process.
    """
    expect(shutil.which("mpirun") is not None, "Horovod is built with MPI, and there is no mpirun")
    directory = Path(tempfile.mkdtemp(prefix="ranks-", dir=Path.cwd()))
    # Without the host it would count this machine's cores, and refuse two ranks where there is one.
    words = ["mpirun", "--np", "2", "--host", "localhost:2", "--bind-to", "none", *pair.program(program, directory)]
    given = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **AS_ROOT, **YIELDING, **environment}
    return pair.launch([pair.Command("mpirun", words, given)], directory, 2, deadline)


def need_mpi(launch: pair.Launch) -> None:
    """Ends the check unless Horovod, as the ranks over Gloo reported it, is built with MPI."""
    if 0 not in launch.reports:
        raise NotRun("no rank over Gloo told whether Horovod is built with MPI")
    if not launch.reports[0]["built"]["mpi"]:
        raise NotRun("Horovod is built without MPI")


def expect_mpi(made: pair.Launch, sections: Sequence[str]) -> Measured:
    """Fails unless two ranks over MPI knew of each other, reduced exactly and trained as one."""
    pair.expect_ranks(made, sections)
    for rank, report in made.reports.items():
        expect(report["enabled"]["mpi"], f"rank {rank} was started by mpirun, and Horovod does not use MPI in it")
    reduced = pair.expect_reduced(made)
    pair.expect_broadcast(made)
    gradients = pair.expect_gradients(made)
    weights = pair.expect_weights(made)
    return {
        **gradients,
        "reductions": reduced["reductions"],
        "optimizers": weights["optimizers"],
        "series": {**reduced["series"], **weights["series"]},
    }


def _diagnose() -> None:
    """Says why no rank reported anything, where importing Horovod alone shows it."""
    command = [sys.executable, "-c", "import horovod.torch as hvd; print(bool(hvd.gloo_built()))"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        fail(f"horovod.torch cannot be imported: {last}", detail=short(done.stderr))
    if done.stdout.strip() == "False":
        raise NotRun("Horovod is built without Gloo")


def _prepare() -> tuple[Any, Measured]:
    """Launches the two ranks once, for all checks of this group."""
    for package in ("torch", "horovod"):
        if importlib.util.find_spec(package) is None:
            raise NotRun(f"{package} is not installed")
    made = launch_ranks(**{_ranks.DEVICE: "cpu"})
    if not made.reports:
        _diagnose()
    version = importlib.metadata.version("horovod")
    return made, {"horovod": {"version": version, **made.reports[0]["built"]}} if 0 in made.reports else {}


GROUP = Group(needs=("torch", "horovod"), prepare=_prepare, deadline=LAUNCH_DEADLINE + 120)
