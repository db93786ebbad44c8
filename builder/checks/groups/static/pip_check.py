"""What pip says of the installed packages."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

from builder.checks.contract import Measured, NotRun, check, fail, short


@check(
    "static.pip-check",
    level="static",
    needs=("pip",),
    deadline=60,
    catches="Packages whose requirements are missing or contradict each other.",
)
def run(state: Any) -> Measured:
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
