"""Ends of a build that a real engine cannot be made to bring about, from a server that speaks as one.

tests/engine/test_session.py has the same calls against a real engine.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import socketserver
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.engine import wire
from builder.engine.build import BuildRequest, BuildResult, build
from builder.engine.connection import Engine
from builder.engine.errors import (
    BuildCancelled,
    BuildFailed,
    BuildStalled,
    DiskFull,
    EngineError,
    EngineRefused,
    EngineUnavailable,
)
from builder.engine.session import Session
from builder.engine.trace import BuildWarning, Event, StepStarted
from builder.engine.tree import FileTree

IMAGE = {"id": "moby.image.id", "aux": {"ID": "sha256:" + "ab" * 32}}


def trace(name: str) -> dict[str, str]:
    vertex = wire.data(1, b"d") + wire.data(3, name.encode()) + wire.submessage(5, wire.integer(1, 1))
    return {"id": "moby.buildkit.trace", "aux": base64.b64encode(wire.submessage(1, vertex)).decode()}


STEP = trace("[2/2] RUN make")

Script = Callable[["Handler"], None]


class FakeEngine(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    # Streams that are never finished must not hold the end of a test up.
    block_on_close = False

    def __init__(self, path: str) -> None:
        super().__init__(path, Handler)
        self.builds: list[Script] = []
        self.requests: list[str] = []
        self.cancelled: list[str] = []
        self.hung_up = threading.Event()
        self.over = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeEngine

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        if self.path.endswith("/version"):
            self.answer(200, {"ApiVersion": "1.45", "MinAPIVersion": "1.24", "Version": "26", "Os": "linux"})
        else:
            self.answer(200, {})

    def do_POST(self) -> None:
        path = self.path.split("/", 2)[-1]
        if path.startswith("build/cancel"):
            self.server.cancelled.append(path.partition("id=")[2])
            self.answer(200, {})
        elif path.startswith("build?"):
            self.server.requests.append(path)
            self.server.builds.pop(0)(self)
            self.close_connection = True
        elif "Upgrade" in self.headers:
            self.send_response(101)
            self.send_header("Connection", "Upgrade")
            self.send_header("Upgrade", "h2c")
            self.end_headers()
            self.server.over.wait()
        else:
            self.answer(400, {"message": "error"})

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def line(self, message: object) -> None:
        self.raw(json.dumps(message).encode() + b"\r\n")

    def raw(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def wait_for_hang_up(self) -> None:
        with contextlib.suppress(OSError):
            if self.connection.recv(1) == b"":
                self.server.hung_up.set()


def says(*messages: object, end: bool = True) -> Script:
    def script(handler: Handler) -> None:
        handler.begin()
        for message in messages:
            handler.line(message)
        if end:
            handler.raw(b"")
        else:
            handler.wait_for_hang_up()

    return script


@pytest.fixture
def fake() -> Iterator[FakeEngine]:
    # Not pytest's own directory: its path may be longer than a socket's name can be.
    with tempfile.TemporaryDirectory() as directory, FakeEngine(f"{directory}/engine.sock") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.over.set()
        server.shutdown()


@pytest.fixture
def run(fake: FakeEngine) -> Iterator[Callable[..., BuildResult]]:
    dockerfiles = FileTree()
    dockerfiles.add_bytes("Dockerfile", b"FROM x\nRUN make\n")
    with (
        Engine.connect(f"unix://{fake.server_address!s}") as engine,
        Session.open(
            engine,
            context=FileTree(),
            dockerfiles=dockerfiles,
            secrets={"s": b"canary"},
            shared_key="k",
        ) as session,
    ):

        def call(**arguments: object) -> BuildResult:
            if arguments.pop("closed", False):
                session._note(OSError("broken by a test"))
                session.close()
            request = arguments.pop("request", BuildRequest())
            return build(engine, session, request, **arguments)  # type: ignore[arg-type]

        yield call


Run = Callable[..., BuildResult]


def test_success(fake: FakeEngine, run: Run) -> None:
    fake.builds.append(says(STEP, IMAGE))
    events: list[Event] = []
    assert run(on_event=events.append).image_id == "sha256:" + "ab" * 32
    assert [type(e) for e in events] == [StepStarted]
    assert fake.cancelled == []


@pytest.mark.parametrize("messages", [[], [STEP], [{"stream": "x"}], [{"id": "moby.image.id", "aux": {}}]])
def test_a_stream_that_ends_with_nothing_is_a_failure(fake: FakeEngine, run: Run, messages: list[object]) -> None:
    fake.builds.append(says(*messages))
    with pytest.raises(BuildFailed, match="neither an image nor an error"):
        run()


def test_an_error_after_an_image_is_a_failure(fake: FakeEngine, run: Run) -> None:
    fake.builds.append(says(IMAGE, {"errorDetail": {"message": "export failed"}}))
    with pytest.raises(BuildFailed, match="export failed"):
        run()


def test_a_stream_that_breaks_off(fake: FakeEngine, run: Run) -> None:
    def script(handler: Handler) -> None:
        handler.begin()
        handler.line(STEP)
        handler.wfile.write(b"ffff\r\nabc")

    fake.builds.append(script)
    with pytest.raises(EngineUnavailable, match="went away while it built"):
        run()


@pytest.mark.parametrize("data", [b"<html>\n", b'{"id":"moby.buildkit.trace","aux":"!"}\n'])
def test_a_stream_that_cannot_be_read(fake: FakeEngine, run: Run, data: bytes) -> None:
    def script(handler: Handler) -> None:
        handler.begin()
        handler.raw(data)
        handler.wait_for_hang_up()

    fake.builds.append(script)
    with pytest.raises(BuildFailed, match=r"stream is not JSON|cannot be read"):
        run()
    assert fake.hung_up.wait(5)


@pytest.mark.parametrize("begun", [True, False])
def test_a_stalled_build_is_cancelled(fake: FakeEngine, run: Run, begun: bool) -> None:
    def silent(handler: Handler) -> None:
        handler.wait_for_hang_up()

    fake.builds.append(says(STEP, end=False) if begun else silent)
    with pytest.raises(BuildStalled) as stalled:
        run(idle_timeout=0.3)
    assert len(fake.cancelled) == 1
    assert f"buildid={fake.cancelled[0]}" in fake.requests[0]
    if begun:
        assert stalled.value.step is not None
        assert stalled.value.step.lines == (2, 2)
        assert fake.hung_up.wait(5)


def test_signs_of_life_hold_the_idle_timeout_off(fake: FakeEngine, run: Run) -> None:
    def script(handler: Handler) -> None:
        handler.begin()
        for _ in range(6):
            time.sleep(0.2)
            handler.line(STEP)
        handler.line(IMAGE)
        handler.raw(b"")

    fake.builds.append(script)
    assert run(idle_timeout=0.7).image_id


def test_cancel_event(fake: FakeEngine, run: Run) -> None:
    fake.builds.append(says(STEP, end=False))
    cancel = threading.Event()
    threading.Timer(0.2, cancel.set).start()
    began = time.monotonic()
    with pytest.raises(BuildCancelled):
        run(cancel=cancel)
    assert time.monotonic() - began < 2
    assert len(fake.cancelled) == 1
    assert fake.hung_up.wait(5)


@pytest.mark.parametrize(
    "message",
    ["ref abc::def locked for 200ms: unavailable", "runc: read init-p: connection reset by peer"],
)
def test_errors_that_pass_are_tried_again(fake: FakeEngine, run: Run, message: str) -> None:
    fake.builds += [says({"error": message}), says(IMAGE)]
    assert run().image_id
    assert len(fake.requests) == 2


def test_errors_that_pass_are_not_tried_for_ever(fake: FakeEngine, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.engine.build._PAUSES", (0.01, 0.01))
    fake.builds += [says({"error": "ref a locked: unavailable"})] * 5
    with pytest.raises(BuildFailed, match="unavailable"):
        run()
    assert len(fake.requests) == 3


LOST = [
    "layer does not exist",
    "failed to prepare jgwh8gq3: open /var/lib/docker/overlay2/kpknu/committed: no such file or directory",
]


@pytest.mark.parametrize("message", LOST)
def test_a_lost_layer_is_looked_for_again_and_then_built_without_the_cache(
    fake: FakeEngine, run: Run, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    monkeypatch.setattr("builder.engine.build._PAUSES", (0.01, 0.01))
    fake.builds += [says({"error": message}), says({"error": message}), says(IMAGE)]
    heard: list[Event] = []
    assert run(on_event=heard.append).image_id
    assert ["nocache=1" in request for request in fake.requests] == [False, False, True]
    (warning,) = [event for event in heard if isinstance(event, BuildWarning)]
    assert "building this image again without the cache" in warning.message
    assert message in warning.detail


def test_a_layer_that_is_back_is_used_from_the_cache(fake: FakeEngine, run: Run) -> None:
    fake.builds += [says({"error": LOST[0]}), says(IMAGE)]
    heard: list[Event] = []
    assert run(on_event=heard.append).image_id
    assert ["nocache=1" in request for request in fake.requests] == [False, False]
    assert not [event for event in heard if isinstance(event, BuildWarning)]


def test_a_layer_that_is_lost_without_the_cache_too_fails_the_build(
    fake: FakeEngine, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.engine.build._PAUSES", (0.01, 0.01))
    fake.builds += [says({"error": LOST[0]})] * 5
    with pytest.raises(BuildFailed, match="layer does not exist"):
        run()
    assert len(fake.requests) == 3


def test_other_errors_are_not_tried_again(fake: FakeEngine, run: Run) -> None:
    fake.builds.append(says({"error": "write /x: no space left on device"}))
    with pytest.raises(DiskFull):
        run()
    assert len(fake.requests) == 1


def test_a_session_that_broke_is_named(fake: FakeEngine, run: Run) -> None:
    fake.builds += [says(IMAGE), says({"error": "failed to read dockerfile: only one connection allowed"})]
    assert run().image_id
    with pytest.raises(EngineUnavailable, match=r"session is closed: .*broken by a test"):
        run(closed=True)
    assert len(fake.requests) == 1


def test_a_refused_request(fake: FakeEngine, run: Run) -> None:
    fake.builds.append(lambda handler: handler.answer(400, {"message": "invalid platform"}))
    with pytest.raises(EngineRefused, match="invalid platform"):
        run()


def test_the_request_says_what_was_asked_for(fake: FakeEngine, run: Run) -> None:
    fake.builds.append(says(IMAGE))
    run(
        request=BuildRequest(
            dockerfile="d/f",
            tags=("a:1", "b:2"),
            target="t",
            build_args={"K": "v&w"},
            no_cache=True,
            network="none",
            extra_hosts={"h": "1.2.3.4"},
            platform="linux/amd64",
        )
    )
    sent = fake.requests[0].partition("?")[2].split("&")
    for expected in (
        "version=2",
        "remote=client-session",
        "dockerfile=d%2Ff",
        "t=a%3A1",
        "t=b%3A2",
        "target=t",
        "buildargs=%7B%22K%22%3A+%22v%26w%22%7D",
        "nocache=1",
        "networkmode=none",
        "extrahosts=h%3A1.2.3.4",
        "platform=linux%2Famd64",
    ):
        assert expected in sent


def test_secrets_are_masked_in_events_and_errors(fake: FakeEngine, run: Run) -> None:
    fake.builds.append(says(trace("[2/2] RUN echo canary"), {"error": "cannot run echo canary"}))
    events: list[Event] = []
    with pytest.raises(BuildFailed) as failed:
        run(on_event=events.append)
    assert "canary" not in f"{events} {failed.value} {failed.value.step}"
    assert "***" in f"{events}"


def test_a_refusal_that_breaks_off_is_an_engine_that_went_away(fake: FakeEngine) -> None:
    class Breaking(Handler):
        def do_POST(self) -> None:
            self.send_response(500)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half")
            self.close_connection = True

    with Engine.connect(f"unix://{fake.server_address!s}") as engine:
        fake.RequestHandlerClass = Breaking
        engine.api.close()
        with pytest.raises(EngineUnavailable, match="cannot open a build session"):
            Session.open(engine, context=FileTree(), dockerfiles=FileTree(), shared_key="k")


def test_without_upgrade_there_is_no_session(fake: FakeEngine, tmp_path: Path) -> None:
    class Refusing(Handler):
        def do_POST(self) -> None:
            self.answer(404, {"message": "page not found"})

    with Engine.connect(f"unix://{fake.server_address!s}") as engine:
        fake.RequestHandlerClass = Refusing
        engine.api.close()
        with pytest.raises(EngineError, match="cannot open a build session"):
            Session.open(engine, context=FileTree(), dockerfiles=FileTree(), shared_key="k")
