"""Running the suite in a container, with a container that is not there: what is made of how it ended."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from builder.check import CheckRun, VerdictStatus, check_image, suite
from builder.check import run as running
from builder.engine.connection import Engine
from builder.engine.containers import RunRequest, RunResult
from builder.engine.errors import ContainerError
from builder.matrix import Level

#: Changes rows of a result: by name of the check, the fields that are another.
Rows = dict[str, dict[str, Any]]


class _Engine:
    """Tells of its memory; nothing else is asked of it."""

    def info(self) -> SimpleNamespace:
        return SimpleNamespace(memory_bytes=8 << 30)


def answer(request: RunRequest, changes: Rows) -> bytes:
    """The result of an honest suite in which everything passed, but for the changes."""
    asked = json.loads(request.files["request.json"])
    rows = {
        name: {"name": name, "level": spec.level, "status": "passed", "reason": "", "seconds": 0.1, "measured": {}}
        for name, spec in suite().checks.items()
    }
    for name, fields in changes.items():
        rows[name] = {**rows.get(name, {**rows["static.user"], "name": name}), **fields}
    facts = {"python": "3.11.2", "platform": "Linux", "system": "Debian", "uid": 1, "packages": {"torch": "2.13.0"}}
    facts |= {"cpu": {"model": "unknown"}, "devices": []}
    document = {"schema": "imgbuild.check-result/1", "nonce": asked["nonce"], "complete": True, "level": asked["level"]}
    document |= {"started": "2026-01-01T00:00:00", "seconds": 1.0, "facts": facts, "checks": list(rows.values())}
    return json.dumps(document).encode()


def checked(
    monkeypatch: pytest.MonkeyPatch, container: Callable[[RunRequest], RunResult], entrypoint: str = "/opt/start"
) -> CheckRun:
    """A check whose container does this."""

    def run_container(engine: Engine, request: RunRequest, *, cancel: object) -> RunResult:
        return container(request)

    monkeypatch.setattr(running, "inspect", lambda engine, image: SimpleNamespace(entrypoint=(entrypoint,)))
    monkeypatch.setattr(running, "run_container", run_container)
    engine: Any = _Engine()
    return check_image(engine, "sha256:1", None, deadline=9, level=Level.CPU)


def ended(request: RunRequest, raw: bytes, exit_code: int = 0) -> RunResult:
    """A container that wrote this and ended."""
    return RunResult(
        exit_code=exit_code,
        timed_out=False,
        oom_killed=False,
        outputs={"result.json": raw},
        oversize=(),
        refused=(),
        log_tail="",
        seconds=1.0,
    )


def test_an_honest_result_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    run = checked(monkeypatch, lambda request: ended(request, answer(request, {})))
    assert (run.verdict.status, run.verdict.reached) == (VerdictStatus.PASSED, Level.CPU)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        # As if it belonged to a level that is not asked for: no gap where it did not run.
        (
            {"torch.train.amp": {"level": "multi-node", "status": "not_run", "reason": "not now"}},
            "run.result: the result has torch.train.amp at level multi-node, and the suite has not",
        ),
        ({"torch.other": {}}, "run.result: the result has torch.other at level static, and the suite has not"),
    ],
)
def test_a_result_whose_checks_are_not_the_suites(monkeypatch: pytest.MonkeyPatch, changes: Rows, reason: str) -> None:
    run = checked(monkeypatch, lambda request: ended(request, answer(request, changes)))
    assert run.result is None
    assert run.verdict.reasons == (reason,)


def test_what_is_asked_of_the_container_is_told_to_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[RunRequest] = []

    def container(request: RunRequest) -> RunResult:
        asked.append(request)
        return ended(request, answer(request, {}))

    checked(monkeypatch, container)
    request = json.loads(asked[0].files["request.json"])
    assert request["confined"] is (asked[0].cap_drop == ("ALL",) and asked[0].no_new_privileges) is True
    assert request["read_only"] is asked[0].read_only is True
    assert asked[0].user == f"{request['uid']}:{request['gid']}"


START = "cannot start the container: failed to create shim task: OCI runtime create failed: runc create failed: "
START += "unable to start container process: "


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            'exec: "python3": executable file not found in $PATH: unknown (HTTP 400)',
            "run.result: the image has no python3 to run the check with",
        ),
        (
            'exec: "start.sh": executable file not found in $PATH: unknown (HTTP 400)',
            "run.result: the image's entrypoint, start.sh, cannot be started: executable file not found in $PATH",
        ),
        (
            'exec: "/opt/start": permission denied: unknown',
            "run.result: the image's entrypoint, /opt/start, cannot be started: permission denied",
        ),
    ],
)
def test_a_program_that_cannot_be_started_is_the_images_fault(
    monkeypatch: pytest.MonkeyPatch, message: str, reason: str
) -> None:
    def container(request: RunRequest) -> RunResult:
        raise ContainerError(f"sha256:1: {START}{message}")

    run = checked(monkeypatch, container, entrypoint=reason.partition("entrypoint, ")[2].partition(",")[0])
    assert (run.verdict.status, run.verdict.reasons) == (VerdictStatus.FAILED, (reason,))


@pytest.mark.parametrize(
    "message",
    [
        "error mounting /sys: no space left on device: unknown (HTTP 400)",
        # The program is the engine's own, such as a hook's.
        'exec: "nvidia-container-cli": executable file not found in $PATH: unknown',
        # The machine's limits.
        'exec: "/opt/start": resource temporarily unavailable: unknown',
        'exec: "/opt/start": operation not permitted: unknown',
    ],
)
def test_what_keeps_the_engine_from_starting_anything_is_not(monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    def container(request: RunRequest) -> RunResult:
        raise ContainerError(f"sha256:1: {START}{message}")

    with pytest.raises(ContainerError, match=re.escape(message)):
        checked(monkeypatch, container)
