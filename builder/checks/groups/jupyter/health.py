"""What the image says of its health."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from builder.checks.contract import Measured, NotRun, check, expect
from builder.checks.groups.jupyter import started, stop

COMMAND = Path("/opt/imgbuild/jupyter-health")

#: Seconds after which the engine gives up, by the image's HEALTHCHECK.
TIMEOUT = 10


@check(
    "jupyter.health",
    level="cpu",
    deadline=150,
    catches="A health check that calls a server that hangs healthy, or one that answers, or none at all, unhealthy.",
)
def run(_: Any) -> Measured:
    if not COMMAND.exists():
        raise NotRun(f"the image has no {COMMAND}")
    _expect(0, "without a server")
    with started() as server:
        _expect(0, "with a server that answers")
        server.process.send_signal(signal.SIGSTOP)
        said = _expect(1, "with a server that hangs")
        server.process.send_signal(signal.SIGCONT)
        _expect(0, "with the same server when it answers again")
        stop(server)
    _expect(0, "after the server has ended")
    return {"hanging": said}


def _expect(code: int, when: str) -> str:
    """What the command prints, where it ends as it must."""
    command = [sys.executable, "-I", str(COMMAND)]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        expect(False, f"the health check took more than {TIMEOUT} s {when}")
        raise
    said = (ran.stdout + ran.stderr).strip()
    expect(ran.returncode == code, f"the health check ends with {ran.returncode} {when}, expected {code}: {said}")
    return said
