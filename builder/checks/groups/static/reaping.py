"""What becomes of processes whose parent is gone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from builder.checks.contract import Measured, NotRun, check, expect, fail

#: Ends at once, and leaves a process that ends right after it; prints that one's id.
ORPHAN = (
    "import os, time\n"
    "pid = os.fork()\n"
    "if pid == 0:\n"
    "    os.close(1)\n"
    "    time.sleep(0.2)\n"
    "    os._exit(0)\n"
    "print(pid)\n"
)
#: Seconds for PID 1 to notice; it is woken by a signal and takes milliseconds where a processor is free.
PATIENCE = 10.0


@check(
    "static.reaping",
    level="static",
    deadline=60,
    optional=True,
    catches="A first process that leaves zombies: the processes of a long training fill the table of processes.",
)
def run(state: Any) -> Measured:
    entrypoint = state.request.get("entrypoint")
    if not entrypoint:
        raise NotRun("the image has no entrypoint that could reap: start it with `docker run --init`")
    command = [sys.executable, "-I", "-S", "-c", ORPHAN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    expect(done.returncode == 0, f"a process could not be left behind: {done.stderr.strip()[-200:]}")
    stat = Path("/proc") / done.stdout.strip() / "stat"
    limit = time.monotonic() + PATIENCE
    state_now, parent = "", ""
    while time.monotonic() < limit:
        try:
            state_now, parent = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            return {"first_process": _name("1")}
        time.sleep(0.02)
    if state_now == "Z":
        who = f"{_name(parent)} (process {parent})"
        fail(f"an orphaned process stays a zombie: its new parent, {who}, does not wait for it")
    fail(f"an orphaned process is still there after {PATIENCE:g} s, in state {state_now}")


def _name(pid: str) -> str:
    try:
        return (Path("/proc") / pid / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "unknown"
