"""Runs the suite in a container of an image and judges what comes back."""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from builder.check.judge import Expectation, Verdict, failed_verdict, judge
from builder.check.result import RESULT_CAP, CheckResult, NoResult, line, parse_result
from builder.check.suite import Spec, suite
from builder.engine.connection import Engine
from builder.engine.containers import RunRequest, RunResult
from builder.engine.containers import run as run_container
from builder.engine.errors import ContainerError
from builder.engine.images import inspect
from builder.errors import ConfigError
from builder.matrix import Level

REQUEST_SCHEMA = "imgbuild.check-request/1"
"""The form of request that the suite understands."""

_VOLUME = "/imgbuild-check"
_RESULT = "result.json"
DEFAULT_USER = "12345:12345"
"""UID and GID that a check runs as: known to no image."""

_COMMAND = (
    "python3",
    # Without site-packages: whatever they hold must not keep the suite from reporting it.
    "-I",
    "-S",
    f"{_VOLUME}/suite.pyz",
    "--request",
    f"{_VOLUME}/request.json",
    "--results",
    f"{_VOLUME}/results",
)
_TMPFS = {"/tmp": "rw,exec,nosuid,nodev,mode=1777,size=1g"}
_SHM = 1 << 30
"""Bytes of /dev/shm: data loaders and NCCL pass more through it than the 64 MB that a container has by default."""
_LOG_LINES = 12
_PIDS = 4096
"""Processes and threads of a check; two ranks, a cluster and their thread pools take some hundreds."""

_CANNOT_START = re.compile(
    r'exec: \\?"(?P<program>[^"\\]*)\\?": (?P<why>(executable file not found in \$PATH|permission denied|'
    r"(\S+ \S+: )?(no such file or directory|exec format error|is a directory)))(: unknown)?( \(HTTP \d+\))?$"
)
"""How runc ends its message when there is no such program in the image, or it is none. Whatever else keeps it from
starting one, such as a limit of the machine or a hook that is missing, is not the image's fault."""


@dataclass(frozen=True, kw_only=True)
class CheckRun:
    """One run of the suite.

    Attributes:
        verdict: on the image.
        result: as it was read; None when there was none to read.
        suite_sha256: of the suite that ran.
        nonce: what the result had to repeat.
        log_tail: the end of what the container wrote.
        raw: the result file as the container wrote it; empty when there was none.
        seconds: how long the container ran.
        limit: why the suite was asked to go no further than it did; empty when it was far enough.
    """

    verdict: Verdict
    result: CheckResult | None
    suite_sha256: str
    nonce: str
    log_tail: str
    raw: bytes
    seconds: float
    limit: str = ""


def check_image(
    engine: Engine,
    image_id: str,
    expectation: Expectation | None,
    *,
    deadline: float,
    cancel: threading.Event | None = None,
    uid: str = DEFAULT_USER,
    gpus: bool = False,
    level: Level | None = None,
    limit: str = "",
    fail_fast: bool = False,
    only: tuple[str, ...] = (),
    memory_bytes: int | None = None,
    on_line: Callable[[str], None] | None = None,
) -> CheckRun:
    """Checks an image through its own entrypoint, without network, as an unknown user, on a read-only root.

    Args:
        expectation: what its cell promises; None for an image that was not built here.
        deadline: seconds after which the container is killed.
        uid: user and group id, as `UID:GID`.
        gpus: gives the container every GPU. Without it, checks above `cpu` do not run.
        level: up to which checks are asked for; None for what the expectation's `level` says, and without one as far
            as `gpus` allows.
        limit: why `level` is less than one could wish, such as that there is no GPU.
        fail_fast: runs no check after the first that failed.
        only: names of checks, or globs, to run and no others; empty for all of the level. The rest stays not run, so
            that an image passes only if no more than these is required of it.
        memory_bytes: what the container may take; None for three quarters of the engine's memory.
        on_line: gets the end of what the container wrote, line by line, after it ended.

    Raises:
        ConfigError: `uid` is no `UID:GID`, or the expectation requires no check.
        ImageMissing, ContainerError, EngineUnavailable, RunCancelled: as `containers.run`.
    """
    if expectation is not None and not expectation.required:
        raise ConfigError("no check is required, so that any image would pass")
    if level is None:
        level = expectation.level if expectation is not None else Level.GPU if gpus else Level.CPU
    nonce = secrets.token_hex(16)
    packed = suite()
    image = inspect(engine, image_id)
    entrypoint = (image.entrypoint or ()) if image is not None else ()
    request = RunRequest(
        image=image_id,
        command=_COMMAND,
        user=uid,
        hostname="localhost",  # the ranks of Horovod look their own host name up
        network="none",
        read_only=True,
        tmpfs=_TMPFS,
        cap_drop=("ALL",),
        # A leak or a fork bomb of a broken image must end the check, not the machine.
        memory_bytes=memory_bytes or engine.info().memory_bytes * 3 // 4 or None,
        shm_bytes=_SHM,
        pids_limit=_PIDS,
        no_new_privileges=True,
        gpus=gpus,
        files={"suite.pyz": packed.archive, "request.json": _request(nonce, level, uid, fail_fast, only, entrypoint)},
        volume_path=_VOLUME,
        results_dir="results",
        output=(_RESULT,),
        output_cap_bytes=RESULT_CAP,
        deadline=deadline,
    )
    try:
        run = run_container(engine, request, cancel=cancel)
    except ContainerError as error:
        reason = _cannot_start(error.message, entrypoint)
        if reason is None:
            raise
        return _unread(failed_verdict(level, reason), packed.sha256)
    if on_line is not None:
        for text in run.log_tail.splitlines():
            on_line(text)
    raw = run.outputs.get(_RESULT, b"")
    result: CheckResult | None = None
    try:
        result = _result(run, nonce, deadline, packed.checks)
        if result.level is not level:
            raise NoResult(f"the result goes up to level {result.level.value}, asked for was {level.value}")
        verdict = judge(expectation, result, limit=limit)
    except NoResult as refusal:
        result = None
        reasons = [refusal.message]
        if run.exit_code and not raw and entrypoint:
            reasons.append(f"the check was started through the image's entrypoint, {' '.join(entrypoint)}")
        verdict = failed_verdict(level, *reasons)
    return CheckRun(
        verdict=verdict,
        result=result,
        suite_sha256=packed.sha256,
        nonce=nonce,
        log_tail=run.log_tail,
        raw=raw,
        seconds=run.seconds,
        limit=limit,
    )


def _cannot_start(message: str, entrypoint: Sequence[str]) -> str | None:
    """What an image lacks in whose container nothing could be started; None where the image is not at fault."""
    found = _CANNOT_START.search(message)
    if found is None or found["program"] not in (_COMMAND[0], *entrypoint[:1]):
        return None
    if found["program"] == _COMMAND[0]:
        return "the image has no python3 to run the check with"
    return line(f"the image's entrypoint, {found['program']}, cannot be started: {found['why']}")


def _unread(verdict: Verdict, sha256: str) -> CheckRun:
    return CheckRun(verdict=verdict, result=None, suite_sha256=sha256, nonce="", log_tail="", raw=b"", seconds=0.0)


def _request(
    nonce: str, level: Level, uid: str, fail_fast: bool, only: tuple[str, ...], entrypoint: tuple[str, ...]
) -> bytes:
    user, _, group = uid.partition(":")
    if not user.isdecimal() or not group.isdecimal():
        raise ConfigError(f"{uid!r} is no user and group id", hint="Write it as UID:GID.")
    request = {
        "schema": REQUEST_SCHEMA,
        "nonce": nonce,
        "level": level.value,
        "uid": int(user),
        "gid": int(group),
        "read_only": True,
        # No capabilities, and no new privileges.
        "confined": True,
        "fail_fast": fail_fast,
        "only": list(only),
        # The checks run it with programs of their own; [] where the image has none.
        "entrypoint": list(entrypoint),
    }
    return json.dumps(request).encode()


def _result(run: RunResult, nonce: str, deadline: float, checks: Mapping[str, Spec]) -> CheckResult:
    """The result of a container that ended. Raises NoResult with the reason why there is none."""
    if run.timed_out:
        raise NoResult(f"the check did not end within {deadline:g} s and was killed")
    if run.oom_killed:
        raise NoResult("the check was killed because it ran out of memory")
    if _RESULT in run.oversize:
        raise NoResult(f"the result has more than {RESULT_CAP} bytes")
    if _RESULT in run.refused:
        raise NoResult("the result is not a regular file")
    if _RESULT in run.outputs and run.exit_code == 0:
        result = parse_result(run.outputs[_RESULT], nonce, frozenset(checks))
        for row in result.checks:
            # A check that calls itself one of a higher level would be a gap at none that is asked for.
            if row.name not in checks or row.level.value != checks[row.name].level:
                raise NoResult(f"the result has {row.name} at level {row.level.value}, and the suite has not")
        return result
    if run.exit_code == 0:
        raise NoResult("exit code 0 but no result was written")
    tail = [line(text) for text in run.log_tail.splitlines() if text.strip()][-_LOG_LINES:]
    how = f"the check ended with exit code {run.exit_code}"
    raise NoResult(f"{how}: {' | '.join(tail)}" if tail else f"{how} and wrote nothing")
