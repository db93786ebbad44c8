"""How processes end: in words, and with everything that they started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path


def _processes() -> dict[int, tuple[str, str, int]]:
    """Name, state and parent of every process by its id, as /proc shows them now."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, rest = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")
            state, parent = rest.split()[:2]
            found[int(stat.parent.name)] = (head.partition("(")[2], state, int(parent))
        except (OSError, ValueError):
            continue  # it ended meanwhile
    return found


def descendants(pid: int) -> list[int]:
    """The processes below `pid`, as /proc shows them now; launchers put theirs into sessions of their own."""
    children: dict[int, list[int]] = {}
    for child, (_, _, parent) in _processes().items():
        children.setdefault(parent, []).append(child)
    found, queue = [], [pid]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def zombies(parents: Iterable[int]) -> dict[int, str]:
    """Processes that ended and that none of these parents waited for: name by id."""
    wanted = set(parents)
    found = {}
    for pid, (name, state, parent) in _processes().items():
        if state == "Z" and parent in wanted:
            found[pid] = name
    return found


def marked(variable: str, value: str) -> dict[int, str]:
    """Processes of this user that inherited a variable with this value: name by id, without this process."""
    mark = f"{variable}={value}".encode()
    found = {}
    for pid, (name, state, _) in _processes().items():
        if state == "Z" or pid == os.getpid():
            continue
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue  # it ended meanwhile, or is somebody else's
        if mark in environment.split(b"\0"):
            found[pid] = name
    return found


def end(pids: Iterable[int]) -> None:
    """Kills processes that are no children of this one."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def ending(code: int) -> str:
    """How a process ended, in words, from its return code as `subprocess` gives it."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def kill(process: subprocess.Popen[bytes], *, leads: bool) -> None:
    """Ends a process and those below it; where it `leads` a process group, that too, which may outlive it."""
    below = descendants(process.pid)
    if leads:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    end(below)
    process.wait()
