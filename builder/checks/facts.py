"""What the controller can tell of an image with the standard library alone."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.metadata
import os
import platform
import re
import site
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder.checks.contract import short


def canonical(name: str) -> str:
    """A distribution's name as packages are compared by: lower case, runs of `-_.` as one `-`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def packages(path: Sequence[str] | None = None) -> tuple[dict[str, str], list[str]]:
    """Every installed distribution with its version, and what is wrong with their metadata, one sentence each.

    The first directory that has a distribution is the one that imports see. Two versions in one directory are both
    named, joined by a comma: which of them runs is chance.

    Args:
        path: the directories to look in; None for those on `sys.path`.
    """
    found: dict[str, str] = {}
    seen: dict[tuple[str, str], str] = {}
    first: dict[str, str] = {}
    wrong = []
    searched = sys.path if path is None else list(path)
    for distribution in importlib.metadata.distributions(path=searched):
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
        elif found.setdefault(key, version) != version and first[key] != where:
            wrong.append(f"{key} is installed twice: {found[key]} in {first[key]} and {version} in {where}")
        first.setdefault(key, where)
    return dict(sorted(found.items())), wrong


def site_directories() -> list[str]:
    """Where this interpreter's packages are, found without them: this process may run with -S.

    In a virtual environment (PEP 405) its own directory, and the system's only where `pyvenv.cfg` asks for it.
    """
    here = Path(sys.executable).parent.parent
    try:
        text = (here / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return site.getsitepackages()
    both = re.search(r"^include-system-site-packages\s*=\s*true\s*$", text, re.MULTILINE | re.IGNORECASE)
    return site.getsitepackages([str(here), *([sys.base_prefix] if both else [])])


def builds(path: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """What frameworks are built for, as small files of theirs say that can be read without an import.

    `{"torch": {"version": "2.13.0+cu130", "cuda": "13.0"}}`; `cuda` is None for a CPU build. torch writes
    `torch/version.py` when it is built, TensorFlow `tensorflow/python/platform/build_info.py`.

    Args:
        path: the directories to look in; None for those on `sys.path`.
    """
    found: dict[str, dict[str, Any]] = {}
    torch = assigned(path, "torch", "version.py")
    if "__version__" in torch:
        found["torch"] = {"version": torch["__version__"], "cuda": torch.get("cuda")}
    tensorflow = assigned(path, "tensorflow", "python/platform/build_info.py")
    if "build_info" in tensorflow:
        built = dict(tensorflow["build_info"])
        found["tensorflow"] = {"cuda": built.get("cuda_version") if built.get("is_cuda_build") else None}
    return found


def assigned(path: Sequence[str] | None, package: str, file: str) -> dict[str, Any]:
    """The names to which a file of a package assigns literals, or calls with one literal; empty without the file."""
    spec = importlib.machinery.PathFinder.find_spec(package, path)
    if spec is None or not spec.submodule_search_locations:
        return {}
    try:
        tree = ast.parse((Path(next(iter(spec.submodule_search_locations))) / file).read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return {}
    found = {}
    for node in tree.body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if not isinstance(target, ast.Name):
            continue
        value = node.value
        if isinstance(value, ast.Call) and len(value.args) == 1:
            value = value.args[0]
        try:
            found[target.id] = ast.literal_eval(value)
        except ValueError:
            continue
    return found


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
    directories = site_directories()
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "system": system_name(),
        "uid": os.getuid(),
        "gid": os.getgid(),
        # Replaced by the group `static`, which sees the image's own sys.path, where that can be started.
        "packages": packages(directories)[0],
        "builds": builds(directories),
        "cpu": {"model": short(cpu_model(), 200), "count": len(os.sched_getaffinity(0))},
        "devices": devices,
    }
