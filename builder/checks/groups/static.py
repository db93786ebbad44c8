"""What every image promises, whatever is in it: it runs as any user on a read-only root, and its packages fit."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from builder.checks.contract import Group, Measured, NotRun, expect, fail, short
from builder.checks.facts import packages


def _prepare() -> tuple[Any, Measured]:
    """The request, and what the image says of its user."""
    request = json.loads(os.environ["IMGBUILD_CHECK_REQUEST"])
    home = os.environ.get("HOME", "")
    facts = {"path": home, "writable": bool(home) and os.access(home, os.W_OK)}
    return request, {"home": facts, "user": os.environ.get("USER", "")}


GROUP = Group("static", prepare=_prepare, deadline=30, image_home=True)


@GROUP.check(
    "static.python",
    level="static",
    deadline=30,
    catches="`python` missing or another interpreter than `python3`, or PATH not leading to the one checked.",
)
def _python(request: Any) -> Measured:
    found = {}
    program = "import sys; print(sys.version_info[:3], sys.prefix)"
    for name in ("python", "python3"):
        path = shutil.which(name)
        if path is None:
            fail(f"{name} is not on PATH")
        done = subprocess.run([path, "-c", program], capture_output=True, text=True, timeout=20)
        expect(done.returncode == 0, f"{path} ends with exit code {done.returncode}")
        found[name] = done.stdout.strip()
    own = f"{sys.version_info[:3]} {sys.prefix}"
    for name, what in found.items():
        expect(what == own, f"{name} on PATH is {what}, the check ran in {own}")
    return {"version": ".".join(map(str, sys.version_info[:3])), "prefix": sys.prefix}


@GROUP.check(
    "static.versions",
    level="static",
    deadline=30,
    catches="Installed packages of which nobody can tell the version.",
)
def _versions(request: Any) -> Measured:
    found, wrong = packages()
    expect(not wrong, wrong[0] if wrong else "")
    expect(bool(found), "no installed package has metadata")
    return {"packages": len(found)}


@GROUP.check(
    "static.pip-check",
    level="static",
    deadline=60,
    catches="Packages whose requirements are missing or contradict each other.",
)
def _pip_check(request: Any) -> Measured:
    if importlib.util.find_spec("pip") is None:
        raise NotRun("pip is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "check"],
        capture_output=True,
        text=True,
        timeout=50,
    )
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
        fail(f"pip check: {lines[0]}", detail=short("\n".join(lines)))
    return {"output": done.stdout.strip()[:200]}


@GROUP.check(
    "static.user",
    level="static",
    deadline=30,
    catches="An entrypoint that changes the user, or a container that is less confined than the check claims.",
)
def _user(request: Any) -> Measured:
    for name, found in (("uid", os.getuid()), ("gid", os.getgid())):
        wanted = request.get(name)
        if wanted is not None:
            expect(found == wanted, f"the check runs with {name} {found}, {wanted} was asked for")
    if request.get("read_only"):
        flags = os.statvfs("/").f_flag
        expect(bool(flags & os.ST_RDONLY), "the root file system is writable")
    status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    rows = (line.split(":", 1) for line in status.splitlines() if ":" in line)
    table = {key: value.strip() for key, value in rows}
    return {
        "uid": os.getuid(),
        "gid": os.getgid(),
        "capabilities": table.get("CapEff", ""),
        "no_new_privileges": table.get("NoNewPrivs", ""),
    }


@GROUP.check(
    "static.home",
    level="static",
    deadline=30,
    catches="An interpreter that needs a home directory, or nowhere to put a temporary file.",
)
def _home(request: Any) -> Measured:
    program = "import site, sysconfig, tempfile; open(tempfile.mkstemp()[1], 'w').write('x')"
    environment = {**os.environ, "HOME": "/"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=20)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        fail(f"Python does not work with HOME=/: {last}", detail=short(done.stderr))
    return {"temporary": tempfile.gettempdir(), "home": os.environ.get("HOME", "")}
