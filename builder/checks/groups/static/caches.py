"""The directories in which frameworks keep what they compile and download."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from builder.checks.contract import Measured, check, expect

#: Variable, where its user looks without it, and the package whose presence makes that default matter. `~` is HOME,
#: `$X` is XDG_CACHE_HOME, `$T` the place for temporary files. From the documentation of each package.
CACHES = (
    ("XDG_CACHE_HOME", "~/.cache", ""),
    ("HF_HOME", "$X/huggingface", "huggingface-hub"),
    ("TORCH_HOME", "$X/torch", "torch"),
    ("TORCHINDUCTOR_CACHE_DIR", "$T/torchinductor", "torch"),
    ("TRITON_CACHE_DIR", "~/.triton/cache", "triton"),
    ("KERAS_HOME", "~/.keras", "keras"),
    ("MPLCONFIGDIR", "~/.config/matplotlib", "matplotlib"),
)


@check(
    "static.caches",
    level="static",
    deadline=30,
    catches="A cache directory, set in the image or taken from HOME, that an arbitrary user can not write to.",
)
def run(state: Any) -> Measured:
    measured: dict[str, object] = {"TMPDIR": tempfile.gettempdir()}  # raises where there is none
    told = os.environ.get("TMPDIR", "")
    expect(not told or told == measured["TMPDIR"], f"TMPDIR is {told}, which user {os.getuid()} cannot write to")
    for variable, path in _caches(state.packages):
        why = _refused(path)
        source = (
            "set by the image" if os.environ.get(variable) else f"the default with HOME={os.environ.get('HOME', '')}"
        )
        expect(not why, f"{variable} is {path} ({source}): {why}")
        measured[variable] = str(path)
    return measured


def _caches(packages: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """The caches that the image sets, and the defaults that its packages would use."""
    home = os.environ.get("HOME", "").rstrip("/")
    xdg = os.environ.get("XDG_CACHE_HOME") or f"{home}/.cache"
    for variable, default, package in CACHES:
        told = os.environ.get(variable)
        if told:
            yield variable, Path(told)
        elif package in packages:
            text = default.replace("~", home, 1).replace("$X", xdg, 1).replace("$T", tempfile.gettempdir(), 1)
            yield variable, Path(text)


def _refused(path: Path) -> str:
    """Why this user cannot have files there, by the rights of the nearest directory that exists; empty if nothing is.

    Rights count, not whether the root file system is read-only just now: a volume or `--tmpfs` mends that, and no
    option of `docker run` mends an owner.
    """
    if not path.is_absolute():
        return "it is no absolute path"
    there = path
    while not there.exists():
        if there.is_symlink():
            return f"{there} is a link to nowhere"
        there = there.parent
    if not there.is_dir():
        return f"{there} is no directory"
    status = there.stat()
    user, groups = os.getuid(), {os.getgid(), *os.getgroups()}
    shift = 6 if status.st_uid == user else 3 if status.st_gid in groups else 0
    if user != 0 and status.st_mode >> shift & 0o3 != 0o3:
        return f"user {user} may not write to {there}"
    return ""
