"""Runs whose engine is away for a moment, and owners that cannot be seen.

tests/engine/test_containers.py has what a real engine can be made to do.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping

import pytest

from builder.engine import containers, owner
from builder.engine.connection import Engine
from builder.engine.containers import RunRequest, RunResult
from builder.engine.errors import EngineUnavailable

_RESULT = RunResult(
    exit_code=0, timed_out=False, oom_killed=False, outputs={}, oversize=(), refused=(), log_tail="", seconds=1.0
)
_REQUEST = RunRequest(image="i", deadline=1)


@pytest.fixture
def engine() -> Engine:
    """Never spoken to: every call is replaced."""
    return object.__new__(Engine)


def _removal(monkeypatch: pytest.MonkeyPatch, *, failures: int) -> list[str]:
    tried: list[str] = []

    def remove(_: Engine, name: str) -> bool:
        tried.append(name)
        if len(tried) <= failures:
            raise EngineUnavailable("away")
        return True

    monkeypatch.setattr(containers, "remove_container", remove)
    return tried


@pytest.mark.parametrize(("failures", "tries", "warned"), [(0, 1, False), (1, 2, False), (5, 2, True)])
def test_result_is_kept_when_only_the_removal_fails(
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failures: int,
    tries: int,
    warned: bool,
) -> None:
    tried = _removal(monkeypatch, failures=failures)
    monkeypatch.setattr(containers, "_run", lambda *_: _RESULT)
    with caplog.at_level(logging.WARNING):
        assert containers.run(engine, _REQUEST) is _RESULT
    assert len(tried) == tries
    assert ("is left on the engine" in caplog.text) is warned


def test_a_failed_run_is_told_when_the_removal_fails_too(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> RunResult:
        raise ValueError("the first")

    _removal(monkeypatch, failures=5)
    monkeypatch.setattr(containers, "_run", fails)
    with pytest.raises(ValueError, match="the first"):
        containers.run(engine, _REQUEST)


def _states(monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
    """The engine's answers about the container; empty for none, the last one for ever."""
    left = list(answers)

    def state(*_: object) -> Mapping[str, object]:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if not answer:
            raise EngineUnavailable("away")
        return {"Status": answer}

    monkeypatch.setattr(containers, "_state", state)


def _wait(engine: Engine, deadline: float = 60) -> Mapping[str, object] | None:
    return containers._wait(engine, "c", time.monotonic() + deadline, threading.Event())


def test_engine_that_is_away_for_a_moment_ends_no_run(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    _states(monkeypatch, "running", "", "", "running", "", "exited")
    assert _wait(engine) == {"Status": "exited"}
    # Also across the deadline: what the container did meanwhile is looked at first.
    _states(monkeypatch, "running", "", "", "", "exited")
    assert _wait(engine, 0.02) == {"Status": "exited"}


def test_engine_that_stays_away_ends_the_run(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_AWAY", 0.3)
    _states(monkeypatch, "running", "")
    began = time.monotonic()
    with pytest.raises(EngineUnavailable, match="away"):
        _wait(engine)
    assert 0.3 <= time.monotonic() - began < 3


def _raises(error: type[OSError]) -> Callable[[int, int], None]:
    def kill(_pid: int, _signal: int) -> None:
        raise error

    return kill


@pytest.mark.parametrize(
    ("start", "kill", "abandoned"),
    [
        ("", _raises(PermissionError), None),
        ("", lambda _pid, _signal: None, None),
        ("", _raises(ProcessLookupError), True),
        ("1", _raises(PermissionError), True),
    ],
)
def test_process_that_cannot_be_seen_is_not_gone(
    monkeypatch: pytest.MonkeyPatch, start: str, kill: Callable[[int, int], None], abandoned: bool | None
) -> None:
    labels = owner.owner_labels()
    assert owner.is_abandoned(labels) is False
    monkeypatch.setattr(owner, "_start_time", lambda _: start)
    monkeypatch.setattr(os, "kill", kill)
    assert owner.is_abandoned(labels) is abandoned
