"""Which process a container belongs to, so that what a killed one left behind can be removed.

A process that ends by SIGKILL cannot remove its container. Every container therefore names its process in its labels,
and the next run removes those whose process is gone. A container of another machine or of another process name space
is left alone: from here, nobody can tell whether its process lives.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.engine import fields
from builder.engine.connection import Engine
from builder.engine.errors import EngineRefused

NAME_PREFIX = "imgbuild-run-"
"""Every container's name begins so: an image can hand down a label, but not a name."""

HOST_LABEL = "io.imgbuild.owner.host"
PROCESS_LABEL = "io.imgbuild.owner.process"


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A container of imgbuild's.

    Attributes:
        id, name: the container's.
        running: whether it runs.
        abandoned: True when its process is known to be gone, False when it lives, None when it cannot be told.
    """

    id: str
    name: str
    running: bool
    abandoned: bool | None


def owner_labels() -> Mapping[str, str]:
    """Labels that name this process: its machine and process name space, boot, process id and start time."""
    return {HOST_LABEL: _host(), PROCESS_LABEL: f"{_boot()}/{os.getpid()}/{_start_time(os.getpid())}"}


def leftovers(engine: Engine) -> tuple[Leftover, ...]:
    """Every container that imgbuild's processes have on the engine, this one's included."""
    answer = engine.call_json(
        "GET",
        "/containers/json",
        doing="list containers",
        params={"all": True, "filters": json.dumps({"label": [HOST_LABEL]})},
    )
    found = []
    for item in fields.sequence(answer):
        container = fields.mapping(item)
        name = next(iter(fields.texts(container.get("Names"))), "").lstrip("/")
        if not name.startswith(NAME_PREFIX):
            continue
        labels = fields.text_mapping(container.get("Labels"))
        found.append(
            Leftover(
                id=fields.text(container.get("Id")),
                name=name,
                running=fields.text(container.get("State")) == "running",
                abandoned=is_abandoned(labels),
            )
        )
    return tuple(found)


def reap(engine: Engine) -> tuple[str, ...]:
    """Removes the containers, and their volumes, whose process is gone; returns their names."""
    removed = []
    for container in leftovers(engine):
        if container.abandoned and remove_container(engine, container.id):
            removed.append(container.name)
    return tuple(removed)


def remove_container(engine: Engine, container: str) -> bool:
    """Kills and removes a container and its anonymous volumes; False when it was gone or another removes it."""
    try:
        engine.call(
            "DELETE",
            f"/containers/{container}",
            doing=f"remove the container {container}",
            params={"force": True, "v": True},
            timeout=120,
        ).close()
    except EngineRefused as refused:
        if refused.status == 404 or (refused.status == 409 and "already in progress" in refused.message):
            return False
        raise
    return True


def is_abandoned(labels: Mapping[str, str]) -> bool | None:
    """Whether the process that `owner_labels` named is gone; None when that cannot be told from here."""
    if labels.get(HOST_LABEL) != _host():
        return None
    boot, _, process = labels.get(PROCESS_LABEL, "").partition("/")
    pid, _, start = process.partition("/")
    if not boot or not pid.isdigit() or not start:
        return None
    if boot != _boot():
        return True
    # A process id is used again; the start time tells the two apart.
    seen = _start_time(int(pid))
    return seen != start if seen else _gone(int(pid))


def _gone(pid: int) -> bool | None:
    """Of a process that /proc does not show: True when there is none, None when it cannot be told.

    With hidepid, /proc shows nobody the processes of others.
    """
    try:
        # No permission to send it a signal: there is one.
        with contextlib.suppress(PermissionError):
            os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    return None


@functools.cache
def _host() -> str:
    try:
        name_space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115  (what it names is no path)
    except OSError:
        name_space = ""
    parts = (_content("/etc/machine-id"), socket.gethostname(), name_space)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@functools.cache
def _boot() -> str:
    return _content("/proc/sys/kernel/random/boot_id") or "unknown"


def _start_time(pid: int) -> str:
    """When a process started, in the kernel's clock ticks since boot; empty when there is no such process."""
    # The command's name, in parentheses, may hold spaces and parentheses; the fields are counted after its end.
    rest = _content(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return rest[19] if len(rest) > 19 else ""


def _content(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""
