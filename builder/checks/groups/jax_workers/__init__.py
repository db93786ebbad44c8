# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What an image with JAX promises of its own distribution: two processes that train as one, over Gloo on CPUs.

`_ranks` is the program that each process runs. This side compares files with the standard library; JAX takes no part in
the comparison.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import socket
import tempfile
from pathlib import Path
from typing import Any

from builder.checks import pair
from builder.checks.contract import Group, Measured, NotRun, fail

#: Seconds for both processes, import included; they take about 15 on two idle cores.
LAUNCH_DEADLINE = 150.0
ADDRESS = "IMGBUILD_COORDINATOR"
RANK = "IMGBUILD_PROCESS"

_PROXY = re.compile(r"(https?|all|grpc)_proxy", re.IGNORECASE)


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def launch_ranks() -> pair.Launch:
    """Runs two processes on this machine, which find each other over loopback, to their end."""
    directory = Path(tempfile.mkdtemp(prefix="ranks-", dir=Path.cwd()))
    # gRPC would ask a proxy for the other process.
    given = {name: value for name, value in os.environ.items() if not _PROXY.fullmatch(name)}
    given.update({"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "JAX_PLATFORMS": "cpu"})
    given[ADDRESS] = f"127.0.0.1:{free_port()}"
    words = pair.program("jax_workers._ranks", directory)
    commands = [pair.Command(f"process {rank}", words, {**given, RANK: str(rank)}) for rank in (0, 1)]
    return pair.launch(commands, directory, 2, LAUNCH_DEADLINE)


def _prepare() -> tuple[Any, Measured]:
    """Launches the two processes once, for all checks of this group."""
    if importlib.util.find_spec("jax") is None:
        raise NotRun("jax is not installed")
    made = launch_ranks()
    if not made.reports:
        last = (made.output.strip().splitlines() or ["no output"])[-1]
        fail(f"no process reported anything: {made.how}: {last}", detail=made.output)
    return made, {"jax_workers": {"transport": made.transport()}}


GROUP = Group(needs=("jax",), prepare=_prepare, deadline=LAUNCH_DEADLINE + 60)
