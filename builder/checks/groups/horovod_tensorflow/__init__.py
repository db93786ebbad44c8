# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What an image with TensorFlow and Horovod promises: two processes that train as one.

`_ranks` is the program of each process with Keras 3, `_legacy` that with Keras 2. This side compares files with the
standard library; neither Horovod nor TensorFlow takes part in the comparison.
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

#: Seconds for both ranks, import included; they take about 20 on two idle cores.
LAUNCH_DEADLINE = 180.0
#: TensorFlow would compute on a GPU that it sees, and take all of its memory.
SETTINGS = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}


def launch_ranks(program: str, **environment: str) -> pair.Launch:
    """Runs two ranks over Gloo to their end, with these variables beside those of this process."""
    directory = Path(tempfile.mkdtemp(prefix="ranks-", dir=Path.cwd()))
    words = [*launcher(), "--gloo", "-np", "2", "-H", "localhost:2", *pair.program(program, directory)]
    given = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **environment, **SETTINGS}
    return pair.launch([pair.Command("horovodrun", words, given)], directory, 2, LAUNCH_DEADLINE)


def _diagnose() -> None:
    """Says why no rank reported anything, where importing Horovod alone shows it."""
    command = [sys.executable, "-c", "import horovod.tensorflow as hvd; print('gloo', bool(hvd.gloo_built()))"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        fail(f"horovod.tensorflow cannot be imported: {last}", detail=short(done.stderr))
    if done.stdout.strip().endswith("gloo False"):
        raise NotRun("Horovod is built without Gloo")


def _prepare() -> tuple[Any, Measured]:
    """Launches the two ranks once, for all checks of this group."""
    for package in ("tensorflow", "horovod"):
        if importlib.util.find_spec(package) is None:
            raise NotRun(f"{package} is not installed")
    made = launch_ranks("horovod_tensorflow._ranks")
    if not made.reports:
        _diagnose()
    version = importlib.metadata.version("horovod")
    return made, {"horovod": {"version": version, **made.reports[0]["built"]}} if 0 in made.reports else {}


GROUP = Group(needs=("tensorflow", "horovod"), prepare=_prepare, deadline=LAUNCH_DEADLINE + 120)
