"""Measures an image: one container of it says what Python knows, and its files what the distribution knows."""

from __future__ import annotations

import importlib.resources
import json
import secrets
import signal
import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from builder.check import DEFAULT_USER
from builder.engine.connection import Engine
from builder.engine.containers import RunRequest, RunResult, run
from builder.engine.errors import BuildFailed, ContainerError
from builder.engine.image_files import ImageFiles, image_files
from builder.matrix import Cell
from builder.measure.found import Found, Malformed, cuda_of, driver_floor, parse
from builder.measure.manifest import Distribution, Manifest, Package, Packages

DEADLINE = 300.0
"""Seconds that measuring may take. It takes 3 to 6; an import from a cold disk on a busy machine has taken 60."""

_VOLUME = "/imgbuild-measure"
_REQUEST, _RESULT = "request.json", "measured.json"
_RESULT_CAP = 4 << 20
"""Bytes of an answer: 60 for each Python package, of which the largest images have some hundred."""

_STATUS_CAP = 64 << 20
_OS_RELEASE_CAP = 1 << 16
_LOG_LINES = 6
_KILLED = 128 + signal.SIGKILL
_PIDS = 1024
"""Processes and threads: the imports of a framework start one for each processor."""


def measure_image(engine: Engine, image_id: str, cell: Cell, *, cancel: threading.Event | None = None) -> Manifest:
    """Measures an image. Without `python3` in it, what Python would say is None.

    The container has no network, no capabilities, a read-only root and an unknown user, and the image's entrypoint does
    not run. An image can still say what is not so of itself: this is no defence against that, see docs/check.md.

    Args:
        engine: holds the image.
        image_id: the image.
        cell: what it was built for.
        cancel: stops it when set.

    Raises:
        BuildFailed: it cannot be measured; the message says why.
        ContainerError: also when its container was killed, or took too long: that is seldom for what is in the image.
        ImageMissing, EngineUnavailable, RunCancelled: as `containers.run`.
    """
    from packaging.utils import canonicalize_name

    found = _found(engine, image_id, cancel)
    with image_files(engine, image_id) as files:
        distribution, debian = _distribution(files), _debian(files)
    name = str(canonicalize_name(cell.framework.name))
    version = (found.packages or {}).get(name)
    cuda = cuda_of(found, debian or (), name)
    return Manifest(
        cell=cell.id,
        distribution=distribution,
        python=found.python,
        framework=Package(name=name, version=version) if version else None,
        horovod=found.horovod,
        cuda=replace(cuda, driver=driver_floor(cuda.runtime)) if cuda else None,
        packages=Packages(
            python=None if found.packages is None else _listed(found.packages),
            debian=debian,
        ),
    )


def _found(engine: Engine, image_id: str, cancel: threading.Event | None) -> Found:
    nonce = secrets.token_hex(16)
    memory = engine.info().memory_bytes * 3 // 4
    request = RunRequest(
        image=image_id,
        # -s: a user's own packages are not the image's. -B: nothing is written beside the program.
        command=(
            "python3",
            "-s",
            "-B",
            f"{_VOLUME}/inside.py",
            f"{_VOLUME}/request.json",
            f"{_VOLUME}/results/{_RESULT}",
        ),
        entrypoint=(),
        user=DEFAULT_USER,
        network="none",
        read_only=True,
        tmpfs={"/tmp": "rw,exec,nosuid,nodev,mode=1777,size=1g"},
        cap_drop=("ALL",),
        no_new_privileges=True,
        memory_bytes=memory or None,
        pids_limit=_PIDS,
        files={**program(), _REQUEST: json.dumps({"nonce": nonce}).encode()},
        volume_path=_VOLUME,
        output=(_RESULT,),
        output_cap_bytes=_RESULT_CAP,
        deadline=DEADLINE,
    )
    try:
        done = run(engine, request, cancel=cancel)
    except ContainerError as error:
        if "executable file not found" not in str(error):
            raise
        return Found()
    killed = _killed(done, memory)
    if killed:
        raise ContainerError(
            f"the image could not be measured: {killed}",
            hint="on a machine that is busy, build fewer cells at once with --jobs; an import that never ends, or that "
            "takes all memory, looks the same",
        )
    try:
        return parse(_answer(done), nonce)
    except Malformed as error:
        raise BuildFailed(
            f"the image cannot be measured: {error}",
            hint="what is installed in it must at least be importable without a GPU and without a network",
        ) from None


def _killed(done: RunResult, memory: int) -> str:
    """What ended the container, when it was not its own program; empty when it was."""
    if done.timed_out:
        return f"it did not say what is in it within {DEADLINE:g} s"
    if done.oom_killed:
        return f"it was killed for want of memory; it may have {memory / (1 << 30):.1f} GiB"
    if done.exit_code == _KILLED:
        # The kernel does that when the whole machine lacks memory, and then the engine says nothing of it.
        return "it was killed by a signal from outside, as when the machine runs out of memory"
    return ""


def _answer(done: RunResult) -> bytes:
    if _RESULT in done.oversize or _RESULT in done.refused:
        raise Malformed(f"its answer is no file of at most {_RESULT_CAP:,} bytes")
    if done.exit_code == 0 and _RESULT in done.outputs:
        return done.outputs[_RESULT]
    said = [" ".join(text.split()) for text in done.log_tail.splitlines() if text.strip()][-_LOG_LINES:]
    how = f"python3 ended with exit code {done.exit_code}"
    # The last line of a traceback is the error itself.
    raise Malformed(f"{how}: {said[-1]}" if said else how)


@cache
def program() -> Mapping[str, bytes]:
    """The files of the program that runs inside, by their paths beside each other."""
    root = importlib.resources.files("builder")
    checks = {f"builder/checks/{name}": (root / "checks" / name).read_bytes() for name in ("contract.py", "facts.py")}
    empty = dict.fromkeys(("builder/__init__.py", "builder/checks/__init__.py"), b"")
    return {**empty, **checks, "inside.py": (root / "measure" / "inside.py").read_bytes()}


def _listed(versions: Mapping[str, str]) -> tuple[Package, ...]:
    return tuple(Package(name=name, version=version) for name, version in sorted(versions.items()))


def _distribution(files: ImageFiles) -> Distribution:
    from builder.attest.software import os_release

    data = None
    for path in ("/usr/lib/os-release", "/etc/os-release"):
        data = data or files.read(path, cap=_OS_RELEASE_CAP)
    said = os_release(data or b"")
    return Distribution(
        id=said.get("ID") or None, version=said.get("VERSION_ID") or None, codename=said.get("VERSION_CODENAME") or None
    )


def _debian(files: ImageFiles) -> tuple[Package, ...] | None:
    """The installed Debian packages, sorted; None for an image without dpkg's list of them."""
    from builder.attest.software import parse_status

    status = files.read("/var/lib/dpkg/status", cap=_STATUS_CAP)
    if status is None:
        return None
    return tuple(sorted({Package(name=item.name, version=item.version) for item in parse_status(status)}, key=_by_name))


def _by_name(package: Package) -> tuple[str, str]:
    return package.name, package.version
