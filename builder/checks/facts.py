"""What the controller can tell of an image with the standard library alone."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

from builder.checks.contract import short


def canonical(name: str) -> str:
    """A distribution's name as packages are compared by: lower case, runs of `-_.` as one `-`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def packages() -> tuple[dict[str, str], list[str]]:
    """Every installed distribution with its version, and what is wrong with their metadata, one sentence each.

    The first directory on `sys.path` that has a distribution is the one that imports see. Two versions in one
    directory are both named, joined by a comma: which of them runs is chance.
    """
    found: dict[str, str] = {}
    seen: dict[tuple[str, str], str] = {}
    wrong = []
    for distribution in importlib.metadata.distributions():
        where = str(distribution.locate_file(""))
        metadata = distribution.metadata
        name = metadata["Name"] if metadata is not None else None
        version = metadata["Version"] if metadata is not None else None
        if not name or not version:
            wrong.append(f"a distribution in {where} has no name or no version")
            continue
        key = canonical(name)
        other = seen.setdefault((where, key), version)
        if other != version:
            wrong.append(f"{key} is installed twice in {where}: {other} and {version}")
            found[key] = f"{other}, {version}"
        found.setdefault(key, version)
    return dict(sorted(found.items())), wrong


def cpu_model() -> str:
    """The processor as the kernel names it, or the machine's architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.machine()
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1).strip() if match else platform.machine()


def system_name() -> str:
    """The distribution as /etc/os-release names it, or an empty string."""
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)', text, re.MULTILINE)
    return match.group(1) if match else ""


def base_facts() -> dict[str, Any]:
    """The facts that need no process of their own."""
    devices = sorted(str(path) for path in Path("/dev").glob("nvidia[0-9]*"))
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "system": system_name(),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "packages": packages()[0],
        "cpu": {"model": short(cpu_model(), 200), "count": len(os.sched_getaffinity(0))},
        "devices": devices,
    }
