"""What a registry has, and what is done when it does not say."""

from __future__ import annotations

import hashlib
from typing import Any, NoReturn

import pytest

from builder.emit import registry
from builder.emit.records import CellRecord
from builder.engine import images
from builder.engine.auth import DockerLogins
from builder.engine.connection import Engine
from builder.engine.errors import EngineRefused, RegistryError, RegistryUnreachable


class Answering(Engine):
    """An engine whose registry answers every question with one error."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message

    def call_json(self, *_: Any, **__: Any) -> NoReturn:
        raise EngineRefused(self.message, status=self.status)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "PAUSES", (0.0, 0.0))


class Busy(Engine):
    """An engine whose registry is busy so many times, and then answers."""

    def __init__(self, times: int) -> None:
        self.times = times

    def call_json(self, *_: Any, **__: Any) -> object:
        self.times -= 1
        if self.times >= 0:
            raise EngineRefused("received unexpected HTTP status: 503 Service Unavailable", status=500)
        return {"Descriptor": {"digest": DIGEST}}


DIGEST = f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
CELL = CellRecord(
    cell="c", status="verified", exit_code=0, candidate="h/o/i:candidate-0", digest="", references=("h/o/i:1",)
)
FAILURES = [
    (500, "toomanyrequests: You have reached your pull rate limit", RegistryError),
    (500, "received unexpected HTTP status: 500 Internal Server Error", RegistryError),
    (500, "dial tcp: lookup h: no such host", RegistryUnreachable),
]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "manifest unknown: manifest unknown"),
        (500, "name unknown: The repository with name 'o/i' does not exist"),
        (403, "denied: requested access to the resource is denied"),
        (500, "unauthorized: authentication required"),
    ],
)
def test_what_a_registry_has_not_or_does_not_show_is_absent(status: int, message: str) -> None:
    engine = Answering(status, message)
    assert registry.held_digest(engine, CELL.candidate) is None
    assert list(registry.fetch(engine, [CELL.candidate])) == []


@pytest.mark.parametrize(("status", "message", "error"), FAILURES)
def test_a_registry_that_fails_says_nothing_of_what_it_has(status: int, message: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        registry.held_digest(Answering(status, message), CELL.candidate)


@pytest.mark.parametrize(("status", "message"), [(status, message) for status, message, _ in FAILURES])
def test_a_candidate_that_may_be_there_is_not_pushed_over(
    status: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed: list[str] = []

    def push_image(engine: Engine, reference: str, logins: DockerLogins) -> str:
        pushed.append(reference)
        return DIGEST

    monkeypatch.setattr(registry, "push_image", push_image)
    with pytest.raises(RegistryError):
        registry.push(Answering(status, message), CELL)
    assert pushed == []
    # Its twin: what is absent is pushed, and then must be there.
    with pytest.raises(RegistryError, match="manifest unknown"):
        registry.push(Answering(404, "manifest unknown"), CELL)
    assert pushed == [CELL.candidate]


def test_a_busy_registry_is_asked_again_but_not_for_ever() -> None:
    assert registry.held_digest(Busy(2), CELL.candidate) == DIGEST
    with pytest.raises(RegistryError, match="503"):
        registry.held_digest(Busy(3), CELL.candidate)
