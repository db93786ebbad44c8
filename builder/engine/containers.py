"""Runs one program in a container of an image, with files of ours going in and results coming out.

Everything goes through one anonymous volume, so that it works on a remote engine, with a read-only root and as any
user: the volume is filled before the start, the results are read from it after the end, and it goes with the
container. The image is not trusted: it cannot make the caller wait, read much, or read through a link.
"""

from __future__ import annotations

import io
import logging
import tarfile
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO

from builder.engine import fields
from builder.engine.connection import Engine
from builder.engine.errors import (
    ContainerError,
    EngineError,
    EngineRefused,
    EngineUnavailable,
    ImageMissing,
    RunCancelled,
)
from builder.engine.owner import NAME_PREFIX, owner_labels, remove_container
from builder.engine.results import Results, log_tail

_log = logging.getLogger(__name__)

_KILL_GRACE = 30.0
"""Seconds to wait for the engine to report the end of a container that was killed."""

_AWAY = 30.0
"""Seconds without an answer after which a run is given up. Live restore lets containers outlive a restart."""


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What to run.

    Attributes:
        image: the image's id, or a name.
        command: the program's arguments, or the program itself when there is no entrypoint.
        entrypoint: replaces the image's; empty for none at all, None for the image's own.
        user: as `docker run --user`; empty for the image's own.
        environment: variables on top of the image's.
        hostname: the name that the container has for itself; empty for the engine's choice.
        network: `none`, or a network's name.
        read_only: whether the root file system is.
        tmpfs: mount options by absolute path, such as `{"/tmp": "size=64m,mode=1777"}`.
        cap_drop: capabilities to take away.
        no_new_privileges: whether setuid programs stay without effect.
        memory_bytes: limit of memory, swap included; None for no limit.
        shm_bytes: size of /dev/shm; None for the engine's default (64 MB).
        pids_limit: how many processes and threads it may have; None for no limit.
        gpus: gives it every NVIDIA GPU.
        labels: labels of the container, besides those that name its owner.
        files: contents by path relative to the volume; files get mode 0644, directories 0755.
        volume_path: where the volume is mounted; a directory that the image may have or lack.
        results_dir: the directory in the volume that any user may write to (mode 1777).
        output: names of files in `results_dir` to read back.
        output_cap_bytes: the largest file that is read back.
        log_cap_bytes: how much of the end of what it wrote to stdout and stderr is kept.
        deadline: seconds from the start until it is killed.
    """

    image: str
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    user: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""
    network: str = "none"
    read_only: bool = True
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    cap_drop: tuple[str, ...] = ("ALL",)
    no_new_privileges: bool = True
    memory_bytes: int | None = None
    shm_bytes: int | None = None
    pids_limit: int | None = None
    gpus: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    volume_path: str = "/imgbuild-check"
    results_dir: str = "results"
    output: tuple[str, ...] = ()
    output_cap_bytes: int = 1 << 20
    log_cap_bytes: int = 1 << 16
    deadline: float


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How it ended.

    Attributes:
        exit_code: the program's; None when it was killed at the deadline.
        timed_out: whether it was killed at the deadline.
        oom_killed: whether the kernel killed it for its memory limit.
        outputs: contents by name of the result files that could be read; a missing one is absent.
        oversize: names of result files above the cap.
        refused: names in the results that are no regular files: links, directories, devices.
        log_tail: the end of what it wrote, stdout and stderr as they came.
        seconds: from the start to the end.
    """

    exit_code: int | None
    timed_out: bool
    oom_killed: bool
    outputs: Mapping[str, bytes]
    oversize: tuple[str, ...]
    refused: tuple[str, ...]
    log_tail: str
    seconds: float


def run(engine: Engine, request: RunRequest, *, cancel: threading.Event | None = None) -> RunResult:
    """Runs `request` to its end, its deadline, or until `cancel` is set. Nothing is left on the engine that removes it.

    Raises:
        ImageMissing: there is no such image.
        ContainerError: it could not be created or started, or its results could not be read.
        RunCancelled: `cancel` was set.
        EngineUnavailable: the engine went away.
        ValueError: a path in the request leaves the volume.
    """
    archive = _archive(request)
    # A name of our own, so that it can be removed even when the answer with its id is never read.
    name = NAME_PREFIX + uuid.uuid4().hex[:16]
    try:
        result = _run(engine, request, name, archive, cancel or threading.Event())
    except BaseException:
        try:
            remove_container(engine, name)
        except EngineError as error:
            # The first error says what happened; this one only that something is left for `reap`.
            _log.warning("the container %s is left on the engine: %s", name, error)
        raise
    _remove_after_success(engine, name)
    return result


def read_from_image(engine: Engine, image: str, path: str, *, cap: int) -> bytes | None:
    """The content of one file of an image, from a container that is never started; None when there is no such file.

    Args:
        image: the image's id, or a name.
        path: absolute.
        cap: bytes of the largest file that is read.

    Raises:
        ImageMissing: there is no such image.
        ContainerError: the file is larger than `cap`, or no regular file.
    """
    name = NAME_PREFIX + uuid.uuid4().hex[:16]
    file = PurePosixPath(path)
    # An image without a command needs one for a container to be made of it.
    _create(engine, RunRequest(image=image, command=("none",), deadline=0), name)
    try:
        results = Results(cap)
        results.read(engine, name, str(file.parent), file.name)
    finally:
        _remove_after_success(engine, name)
    if results.oversize or results.refused:
        raise ContainerError(f"{path} of {image} is larger than {cap:,} bytes, or no regular file")
    return results.outputs.get(file.name)


def _remove_after_success(engine: Engine, name: str) -> None:
    """Removes the container, twice if need be. What the run found out is not lost when neither succeeds."""
    try:
        remove_container(engine, name)
    except EngineError:
        try:
            remove_container(engine, name)
        except EngineError as error:
            _log.warning("the container %s is left on the engine: %s", name, error)


def _run(engine: Engine, request: RunRequest, name: str, archive: bytes, cancel: threading.Event) -> RunResult:
    _create(engine, request, name)
    try:
        engine.call(
            "PUT",
            f"/containers/{name}/archive",
            doing="copy files into the container",
            params={"path": request.volume_path},
            body=archive,
            headers={"Content-Type": "application/x-tar"},
        ).close()
        if cancel.is_set():
            raise RunCancelled(f"the run of {request.image} was cancelled")
        _start(engine, name)
        began = time.monotonic()
        state = _wait(engine, name, began + request.deadline, cancel)
        seconds = time.monotonic() - began
        timed_out = state is None
        if state is None:
            state = _kill(engine, name)
        if cancel.is_set():
            raise RunCancelled(f"the run of {request.image} was cancelled")
        results = Results(request.output_cap_bytes)
        directory = str(PurePosixPath(request.volume_path) / request.results_dir)
        for output in request.output:
            results.read(engine, name, directory, output)
        return RunResult(
            exit_code=None if timed_out else fields.integer(state.get("ExitCode"), -1),
            timed_out=timed_out,
            oom_killed=fields.boolean(state.get("OOMKilled")),
            outputs=results.outputs,
            oversize=tuple(results.oversize),
            refused=tuple(results.refused),
            log_tail=log_tail(engine, name, request.log_cap_bytes),
            seconds=seconds,
        )
    except EngineRefused as refused:
        raise ContainerError(f"{request.image}: {refused.message}") from refused


def _create(engine: Engine, request: RunRequest, name: str) -> None:
    host: dict[str, object] = {
        "NetworkMode": request.network,
        "ReadonlyRootfs": request.read_only,
        "Tmpfs": dict(request.tmpfs),
        "CapDrop": list(request.cap_drop),
        "SecurityOpt": ["no-new-privileges"] if request.no_new_privileges else [],
        "RestartPolicy": {"Name": "no"},
        # The engine's own default may be a driver that cannot be read back, or one without a limit. Two files, so
        # that the tail survives the change from one to the next.
        "LogConfig": {
            "Type": "local",
            "Config": {"max-size": "8m", "max-file": "2", "compress": "false"},
        },
        # NoCopy: what the image has at this place stays out of the volume.
        "Mounts": [{"Type": "volume", "Target": request.volume_path, "VolumeOptions": {"NoCopy": True}}],
    }
    if request.memory_bytes is not None:
        host |= {"Memory": request.memory_bytes, "MemorySwap": request.memory_bytes}
    if request.shm_bytes is not None:
        host["ShmSize"] = request.shm_bytes
    if request.pids_limit is not None:
        host["PidsLimit"] = request.pids_limit
    if request.gpus:
        host["DeviceRequests"] = [_gpus(engine)]
    body: dict[str, object] = {
        "Image": request.image,
        "Cmd": list(request.command),
        "Env": [f"{key}={value}" for key, value in request.environment.items()],
        "Labels": {**request.labels, **owner_labels()},
        "Hostname": request.hostname,
        # An image's own health check would take time from what is checked.
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": host,
    }
    if request.entrypoint is not None:
        # [""] takes the image's entrypoint away; [] would leave it.
        body["Entrypoint"] = list(request.entrypoint) or [""]
    if request.user:
        body["User"] = request.user
    doing = f"create a container of {request.image}"
    try:
        engine.call("POST", "/containers/create", doing=doing, params={"name": name}, json=body).close()
    except EngineRefused as refused:
        if refused.status == 404:
            raise ImageMissing(f"the engine has no image {request.image}") from refused
        raise ContainerError(refused.message) from refused


def _gpus(engine: Engine) -> Mapping[str, object]:
    info = engine.info()
    if info.cdi_gpu and "nvidia" not in info.runtimes:
        return {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}
    return {"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}


def _start(engine: Engine, name: str) -> None:
    doing = "start the container"
    path = f"/containers/{name}/start"
    try:
        engine.call("POST", path, doing=doing).close()
    except EngineRefused as refused:
        # A loaded machine sometimes loses runc's first process; the same start then succeeds.
        if "read init-p" not in refused.message:
            raise
        engine.call("POST", path, doing=doing).close()


def _state(engine: Engine, name: str) -> Mapping[str, object]:
    answer = engine.call_json("GET", f"/containers/{name}/json", doing="look at the container")
    return fields.mapping(fields.mapping(answer).get("State"))


def _wait(engine: Engine, name: str, deadline: float, cancel: threading.Event) -> Mapping[str, object] | None:
    """The state in which the container ended; None at the deadline.

    Raises:
        RunCancelled: `cancel` was set.
        EngineUnavailable: the engine stayed away for longer than `_AWAY`.
    """
    # Asking again and again, not one long call: it notices a cancel at once, and survives a broken connection.
    pause = 0.01
    away_since: float | None = None
    while True:
        wait = pause
        try:
            state = _state(engine, name)
        except EngineUnavailable:
            now = time.monotonic()
            away_since = now if away_since is None else away_since
            if now - away_since >= _AWAY:
                raise
        else:
            away_since = None
            if _ended(state):
                return state
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            wait = min(pause, left)
        if cancel.wait(wait):
            raise RunCancelled("the container's run was cancelled")
        pause = min(pause * 1.5, 0.25)


def _ended(state: Mapping[str, object]) -> bool:
    return fields.text(state.get("Status")) in ("exited", "dead")


def _kill(engine: Engine, name: str) -> Mapping[str, object]:
    try:
        params = {"signal": "SIGKILL"}
        engine.call("POST", f"/containers/{name}/kill", doing="kill the container", params=params).close()
    except EngineRefused as refused:
        if refused.status != 409:  # it ended by itself meanwhile
            raise
    until = time.monotonic() + _KILL_GRACE
    while not _ended(state := _state(engine, name)) and time.monotonic() < until:
        time.sleep(0.05)
    return state


def _archive(request: RunRequest) -> bytes:
    """The volume's content as a tar: the files, their directories, and the directory for the results."""
    results = _inside(request.results_dir)
    for output in request.output:
        if "/" in output or output in ("", ".", ".."):
            raise ValueError(f"{output!r} is no name of a file in the results")
    directories = {results}
    for path in map(_inside, request.files):
        directories |= {parent for parent in path.parents if parent.parts}
        if path == results or results in path.parents:
            raise ValueError(f"{str(path)!r} lies in the directory for the results")
    directories |= {parent for parent in results.parents if parent.parts}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for directory in sorted(directories):
            entry = tarfile.TarInfo(str(directory))
            entry.type = tarfile.DIRTYPE
            entry.mode = 0o1777 if directory == results else 0o755
            archive.addfile(entry)
        for name, content in sorted(request.files.items()):
            entry = tarfile.TarInfo(str(_inside(name)))
            entry.size = len(content)
            entry.mode = 0o644
            source: IO[bytes] = io.BytesIO(content)
            archive.addfile(entry, source)
    return stream.getvalue()


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts:
        raise ValueError(f"{name!r} is no relative path inside the volume")
    return path
