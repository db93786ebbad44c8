# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What an image with TensorFlow promises of its own distribution: MultiWorkerMirroredStrategy over gRPC.

`_ranks` is the program that each process runs. This side compares files with the standard library; TensorFlow takes no
part in the comparison.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import socket
import tempfile
from pathlib import Path
from typing import Any

from builder.checks import pair
from builder.checks.contract import Group, Measured, NotRun, fail

#: Seconds for both workers, import included; they take about 12 on two idle cores.
LAUNCH_DEADLINE = 150.0

_PROXY = re.compile(r"(https?|all|grpc)_proxy", re.IGNORECASE)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on now, each another."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def launch_ranks(backend: str) -> pair.Launch:
    """Runs two workers on this machine, which find each other over loopback, to their end.

    Args:
        backend: "RING" for gRPC, "NCCL" for GPUs.
    """
    directory = Path(tempfile.mkdtemp(prefix="ranks-", dir=Path.cwd()))
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    commands = []
    for rank in (0, 1):
        # gRPC would ask a proxy for the other worker.
        environment = {name: value for name, value in os.environ.items() if not _PROXY.fullmatch(name)}
        environment.update({"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "2"})
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}}
        environment.update({"TF_CONFIG": json.dumps(task), "IMGBUILD_COLLECTIVES": backend})
        # Over gRPC on the CPU: a worker takes each GPU that it sees for a replica more, and all of its memory.
        environment["CUDA_VISIBLE_DEVICES"] = str(rank) if backend == "NCCL" else "-1"
        words = pair.program("tensorflow_workers._ranks", directory)
        commands.append(pair.Command(f"worker {rank}", words, environment))
    return pair.launch(commands, directory, 2, LAUNCH_DEADLINE)


def _prepare() -> tuple[Any, Measured]:
    """Launches the two workers once, for all checks of this group that need no GPU."""
    if importlib.util.find_spec("tensorflow") is None:
        raise NotRun("tensorflow is not installed")
    made = launch_ranks("RING")
    if not made.reports:
        last = (made.output.strip().splitlines() or ["no output"])[-1]
        fail(f"no worker reported anything: {made.how}: {last}", detail=made.output)
    return made, {"tensorflow_workers": {"transport": made.transport()}}


GROUP = Group(needs=("tensorflow",), prepare=_prepare, deadline=LAUNCH_DEADLINE + 60)
