"""Which Python is on PATH."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import Any

from builder.checks.contract import Measured, check, expect, fail


@check(
    "static.python",
    level="static",
    deadline=60,
    catches="`python` missing or another interpreter than `python3`, or PATH not leading to the one checked.",
)
def run(state: Any) -> Measured:
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
