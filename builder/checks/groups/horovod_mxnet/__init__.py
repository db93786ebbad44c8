# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What an image with MXNet and Horovod promises: two processes that train as one.

`_ranks` is the program of each process. This side compares files with the standard library; neither Horovod nor MXNet
takes part in the comparison.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from builder.checks import pair
from builder.checks.contract import Group, Measured, NotRun, fail, short
from builder.checks.groups.horovod import launcher

#: Seconds for both ranks, import included; they take about 10 on two idle cores.
LAUNCH_DEADLINE = 150.0


def launch_ranks() -> pair.Launch:
    """Runs two ranks over Gloo to their end."""
    directory = Path(tempfile.mkdtemp(prefix="ranks-", dir=Path.cwd()))
    words = [*launcher(), "--gloo", "-np", "2", "-H", "localhost:2"]
    words += pair.program("horovod_mxnet._ranks", directory)
    given = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return pair.launch([pair.Command("horovodrun", words, given)], directory, 2, LAUNCH_DEADLINE)


def _diagnose() -> None:
    """Says why no rank reported anything, where importing Horovod alone shows it."""
    command = [sys.executable, "-c", "import horovod.mxnet as hvd; print('gloo', bool(hvd.gloo_built()))"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        fail(f"horovod.mxnet cannot be imported: {last}", detail=short(done.stderr))
    if done.stdout.strip().endswith("gloo False"):
        raise NotRun("Horovod is built without Gloo")


def _prepare() -> tuple[Any, Measured]:
    """Launches the two ranks once, for all checks of this group."""
    for package in ("mxnet", "horovod"):
        if importlib.util.find_spec(package) is None:
            raise NotRun(f"{package} is not installed")
    made = launch_ranks()
    if not made.reports:
        _diagnose()
    version = importlib.metadata.version("horovod")
    return made, {"horovod": {"version": version, **made.reports[0]["built"]}} if 0 in made.reports else {}


GROUP = Group(needs=("mxnet", "horovod"), prepare=_prepare, deadline=LAUNCH_DEADLINE + 120)
