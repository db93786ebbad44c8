# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What an image with torch promises of its own distribution: DistributedDataParallel over Gloo, or NCCL on GPUs.

`_ranks` is the program that each process runs. This side compares files with the standard library; torch takes no part
in the comparison.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Any

from builder.checks import pair
from builder.checks.contract import Group, Measured, NotRun, expect, fail
from builder.checks.groups.torch_ddp import _ranks

#: Seconds for both ranks, import included; they take about 6 on two idle cores.
LAUNCH_DEADLINE = 150.0


def launch_ranks(backend: str, device: str, **more: str) -> pair.Launch:
    """Runs two ranks on this machine, which find each other over loopback, to their end."""
    directory = Path(tempfile.mkdtemp(prefix="ranks-", dir=Path.cwd()))
    commands = []
    for rank in (0, 1):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **more}
        environment.update({_ranks.RANK: str(rank), _ranks.SIZE: "2"})
        environment.update({_ranks.BACKEND: backend, _ranks.DEVICE: device})
        # What the network of a container is called is its own affair; two ranks of one machine have loopback.
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
        words = pair.program("torch_ddp._ranks", directory)
        commands.append(pair.Command(f"rank {rank}", words, environment))
    return pair.launch(commands, directory, 2, LAUNCH_DEADLINE)


def expect_built(made: pair.Launch, backend: str) -> None:
    """Fails where torch says that it has no such backend; leaves the rest of a launch to the checks."""
    built = made.reports[0]["built"] if 0 in made.reports else {}
    if built and not built["distributed"]:
        raise NotRun("torch is built without torch.distributed")
    if built:
        expect(bool(built[backend]), f"torch is built without {backend}")


def _prepare() -> tuple[Any, Measured]:
    """Launches the two ranks once, for all checks of this group that need no GPU."""
    if importlib.util.find_spec("torch") is None:
        raise NotRun("torch is not installed")
    made = launch_ranks("gloo", "cpu")
    if not made.reports:
        last = (made.output.strip().splitlines() or ["no output"])[-1]
        fail(f"no rank reported anything: {made.how}: {last}", detail=made.output)
    expect_built(made, "gloo")
    built = next(iter(made.reports.values()))["built"]
    return made, {"torch_ddp": {"built": built, "transport": made.transport()}}


GROUP = Group(needs=("torch",), prepare=_prepare, deadline=LAUNCH_DEADLINE + 60)
