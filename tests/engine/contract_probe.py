"""Runs inside an image, past nothing but what started the container: what a user can do there, as one line of JSON.

    python contract_probe.py WHEELS FRAMEWORK

WHEELS holds `plain`, with a program of that name, `needs-framework`, which requires FRAMEWORK in any version, and
`needs-another`, which requires version 2.0.0 of it; and that version. Python 3.9, standard library only.
"""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid

#: Where each keeps what it compiles and downloads, if no variable says otherwise; from the documentation of each.
CACHES = {
    "XDG_CACHE_HOME": "~/.cache",
    "HF_HOME": "~/.cache/huggingface",
    "TORCH_HOME": "~/.cache/torch",
    "TORCHINDUCTOR_CACHE_DIR": "$T/torchinductor_$U",
    "TRITON_CACHE_DIR": "~/.triton/cache",
    "KERAS_HOME": "~/.keras",
    "MPLCONFIGDIR": "~/.config/matplotlib",
    "NUMBA_CACHE_DIR": "~/.cache/numba",
}
OTHER_VERSION = "2.0.0"


def main(wheels: str, framework: str) -> None:
    before = importlib.metadata.version(framework)
    found: dict[str, object] = {
        "uid": os.getuid(),
        "home": os.environ.get("HOME"),
        "user": getpass.getuser(),
        "on_path": {name: shutil.which(name) for name in ("python", "python3", "pip", "imgcheck", "imginfo")},
        "prefix": sys.prefix,
        "caches": {name: unwritable(cache(name, default)) for name, default in CACHES.items()},
        "workspace": unwritable(os.path.join(os.getcwd(), "made here")),  # noqa: PTH109, PTH118
        "before": before,
        "installs": {name: install(wheels, name) for name in ("plain", "needs-framework", "needs-another")},
        # Past the constraints, to show that it is they who refuse; as a plan only.
        "unconstrained": install(wheels, "needs-another", "--dry-run", constrained=False),
    }
    look = (
        "import importlib.metadata as m, json, plain, shutil, sys;"
        f"print(json.dumps([plain.__file__, shutil.which('plain'), sys.path, m.version({framework!r})]))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    found["plain"], found["program"], found["sys_path"], found["after"] = json.loads(done.stdout)
    if found["program"]:
        done = subprocess.run([str(found["program"])], capture_output=True, text=True)
        found["said"] = done.stdout + done.stderr
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    found["pip_check"] = [done.returncode, done.stdout + done.stderr]
    print(json.dumps(found))


def cache(variable: str, default: str) -> str:
    path = os.environ.get(variable) or default
    path = path.replace("$T", tempfile.gettempdir()).replace("$U", getpass.getuser())
    return os.path.expanduser(path)  # noqa: PTH111


def unwritable(path: str) -> str:
    """Why this user cannot have files below there; empty if nothing is in the way."""
    try:
        os.makedirs(path, exist_ok=True)  # noqa: PTH103
        with open(os.path.join(path, uuid.uuid4().hex), "w") as file:  # noqa: PTH118, PTH123
            file.write("x")
    except OSError as error:
        return str(error)
    return ""


def install(wheels: str, name: str, *options: str, constrained: bool = True) -> list[object]:
    """`pip install`, as people type it: its exit code, and what it said."""
    environment = {key: value for key, value in os.environ.items() if constrained or key != "PIP_CONSTRAINT"}
    command = ["pip", "install", "--no-index", "--find-links", wheels, *options, name]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    return [done.returncode, done.stdout + done.stderr]


if __name__ == "__main__":
    main(*sys.argv[1:3])
