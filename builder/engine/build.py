"""One build: the request, the engine's stream of progress, and how it ends."""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlencode

from builder.engine import fields
from builder.engine.errors import (
    BuildCancelled,
    BuildFailed,
    BuildStalled,
    EngineError,
    EngineUnavailable,
)
from builder.engine.failure import Record, failure, is_transient, lost_layer
from builder.engine.hijack import connection_of
from builder.engine.redact import Redactor
from builder.engine.session import Session
from builder.engine.trace import BuildWarning, Event, StepFinished, StepLog, TraceDecoder
from builder.engine.wire import WireError

if TYPE_CHECKING:
    from builder.engine.connection import Engine

Network = Literal["default", "host", "none"]

_PAUSES = (0.5, 2.0)
"""Seconds before each further attempt after an error that is known to pass."""

_WITHOUT_CACHE = "the engine's build cache names a layer that is gone; building this image again without the cache"

_POLL = 0.1
"""Seconds between looks at the cancel event."""

_CANCEL = 5.0
"""Seconds that the engine gets to answer a cancellation."""

_HANG_UP = 1.0
"""Seconds that the receiving thread gets to end after that. Before the engine's first answer nothing can end it."""


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What to build. The context, secrets and logins are the session's.

    Attributes:
        dockerfile: path of the Dockerfile in the session's tree of Dockerfiles.
        tags: names that the image gets; none leaves it with its id only.
        target: the stage to build; empty for the last one.
        build_args, labels: as `--build-arg` and `--label`. Arguments end up in the image's history: no secrets.
        no_cache: whether every step runs anew.
        network: what `RUN` reaches.
        extra_hosts: host names and addresses for `/etc/hosts` while building.
        platform: such as `linux/amd64`; empty for the engine's own.
    """

    dockerfile: str = "Dockerfile"
    tags: tuple[str, ...] = ()
    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    network: Network = "default"
    extra_hosts: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""

    def parameters(self) -> list[tuple[str, str]]:
        """The parameters of `POST /build` that say this."""
        pairs = [("dockerfile", self.dockerfile), ("networkmode", self.network)]
        pairs += [("t", tag) for tag in self.tags]
        pairs += [("extrahosts", f"{host}:{ip}") for host, ip in sorted(self.extra_hosts.items())]
        pairs += [
            ("buildargs", json.dumps(dict(self.build_args), sort_keys=True)),
            ("labels", json.dumps(dict(self.labels), sort_keys=True)),
        ]
        optional = [("target", self.target), ("platform", self.platform)]
        pairs += [(key, value) for key, value in optional if value]
        return pairs + ([("nocache", "1")] if self.no_cache else [])


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """A build that succeeded.

    Attributes:
        image_id: `sha256:…`.
        seconds: how long it took.
        steps_run: instructions that were carried out; 0 when everything was there already.
        steps_cached: instructions whose results were there.
    """

    image_id: str
    seconds: float
    steps_run: int
    steps_cached: int


def build(
    engine: Engine,
    session: Session,
    request: BuildRequest,
    *,
    on_event: Callable[[Event], None] = lambda _: None,
    cancel: threading.Event | None = None,
    idle_timeout: float = 900.0,
) -> BuildResult:
    """Builds an image. Several threads may build at once, also over one session.

    Args:
        on_event: told of everything that happens, in this thread, with secret values masked.
        cancel: set it, from any thread, to stop the build on the engine.
        idle_timeout: seconds without a sign of life after which the build is given up.

    Raises:
        BuildFailed: a step failed, or the build ended without an image.
        BuildStalled: nothing was heard for `idle_timeout` seconds.
        BuildCancelled: `cancel` was set.
        DiskFull: the engine's disk is full.
        BaseUnavailable: the image in a FROM cannot be had.
        RegistryError: the login for a registry cannot be read.
        EngineUnavailable, EngineRefused: the engine does not answer or take the request, or the session is closed.
    """
    stop = cancel if cancel is not None else threading.Event()
    pauses = [*_PAUSES]
    while True:
        try:
            return _Attempt(engine, session, request, on_event, stop, idle_timeout).run()
        except _Again as again:
            if not pauses:
                raise again.error from None
            if stop.wait(pauses.pop(0)):
                raise BuildCancelled("the build was cancelled") from None
            # The first further attempt may find the layer: another build may be writing it just now.
            if again.lost_layer and not pauses and not request.no_cache:
                on_event(BuildWarning(step="", name="", message=_WITHOUT_CACHE, detail=again.error.message, url=""))
                request = replace(request, no_cache=True)


class _Again(Exception):
    """An error that a further attempt may not meet; `lost_layer` when one that uses the cache may meet it again."""

    def __init__(self, error: EngineError, *, lost_layer: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.lost_layer = lost_layer


class _Stream:
    """The engine's answer to `POST /build`, received by a thread so that waiting for it can be interrupted."""

    def __init__(self, engine: Engine, parameters: list[tuple[str, str]], timeout: float) -> None:
        self._engine = engine
        self._parameters = parameters
        self._timeout = timeout
        self._lines: queue.SimpleQueue[bytes | EngineError | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._hung_up = False
        self._thread = threading.Thread(target=self._receive, name="build-stream", daemon=True)
        self._thread.start()

    def next(self, timeout: float) -> bytes | EngineError | None:
        """The next line, the error that ended the stream, or None at its end. Raises queue.Empty after `timeout`."""
        return self._lines.get(timeout=timeout)

    def hang_up(self) -> None:
        """Closes the connection, which ends the build on the engine. From any thread."""
        with self._lock:
            self._hung_up = True
            if self._socket is not None:
                _shut(self._socket)

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def _receive(self) -> None:
        import requests

        from builder.engine.connection import unreachable

        doing = "build"
        try:
            response = self._engine.call(
                "POST",
                # In the path, because a name such as `t` may come several times.
                f"/build?{urlencode(self._parameters)}",
                doing=doing,
                # The connection will not be used again, so that hanging up cannot hit another request on it.
                headers={"Connection": "close"},
                timeout=self._timeout,
                stream=True,
            )
            with response:
                with self._lock:
                    self._socket = connection_of(response).sink
                    if self._hung_up:
                        _shut(self._socket)
                for line in response.iter_lines(chunk_size=64 * 1024):
                    self._lines.put(line)
            self._lines.put(None)
        except EngineError as error:
            self._lines.put(error)
        except (requests.RequestException, OSError) as error:
            self._lines.put(unreachable(error, self._engine.address, doing))
        finally:
            with self._lock:
                self._socket = None
            # Only needed after a defect above, and harmless otherwise: nobody waits for ever.
            self._lines.put(None)


def _shut(connection: socket.socket) -> None:
    try:
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        # The engine was faster.
        return


class _Attempt:
    def __init__(
        self,
        engine: Engine,
        session: Session,
        request: BuildRequest,
        on_event: Callable[[Event], None],
        cancel: threading.Event,
        idle_timeout: float,
    ) -> None:
        self._engine = engine
        self._session = session
        self._on_event = on_event
        self._cancel = cancel
        self._idle_timeout = idle_timeout
        self._id = uuid.uuid4().hex
        self._parameters = [
            ("version", "2"),
            ("session", session.id),
            ("remote", "client-session"),
            ("buildid", self._id),
            *request.parameters(),
        ]
        dockerfile = session.dockerfiles.read(request.dockerfile) or b""
        self._record = Record(session.redact, dockerfile.decode("utf-8", "replace"))
        self._trace = TraceDecoder()
        self._image_id = ""
        self._error: str | None = None
        self._own_errors_before = len(session.errors)

    def run(self) -> BuildResult:
        if self._cancel.is_set():
            raise BuildCancelled("the build was cancelled before it began")
        if not self._session.is_open:
            raise self._without_session()
        began = time.monotonic()
        # The reading timeout lies behind the idle timeout, which is watched here.
        stream = _Stream(self._engine, self._parameters, self._idle_timeout + 60)
        ended = False
        try:
            self._follow(stream)
            ended = True
        finally:
            # Also when a handler of events or a signal ends this: the engine must not build on for nobody.
            if not ended:
                self._stop(stream)
        for event in self._trace.finish():
            self._tell(event)
        if self._error is not None:
            raise self._failed(self._error)
        if not self._image_id:
            raise self._without_result()
        return BuildResult(
            image_id=self._image_id,
            seconds=time.monotonic() - began,
            steps_run=self._record.steps_run,
            steps_cached=self._record.steps_cached,
        )

    def _follow(self, stream: _Stream) -> None:
        heard = time.monotonic()
        while True:
            if self._cancel.is_set():
                raise BuildCancelled("the build was cancelled")
            try:
                item = stream.next(_POLL)
            except queue.Empty:
                if time.monotonic() - heard > self._idle_timeout:
                    raise self._stalled() from None
                continue
            heard = time.monotonic()
            if item is None:
                return
            if isinstance(item, EngineError):
                raise self._lost(item)
            self._line(item)

    def _line(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            message = fields.mapping(json.loads(line))
        except ValueError as error:
            raise BuildFailed("the engine's build stream is not JSON") from error
        error_text = fields.text(message.get("error")) or fields.text(
            fields.mapping(message.get("errorDetail")).get("message")
        )
        if error_text:
            self._error = error_text
        kind = fields.text(message.get("id"))
        if kind == "moby.image.id":
            self._image_id = fields.text(fields.mapping(message.get("aux")).get("ID"))
        elif kind == "moby.buildkit.trace":
            try:
                events = self._trace.decode(fields.text(message.get("aux")))
            except WireError as error:
                raise BuildFailed(f"the engine's build progress cannot be read: {error}") from error
            for event in events:
                self._tell(event)

    def _tell(self, event: Event) -> None:
        self._record.add(event)
        self._on_event(_redacted(event, self._session.redact))

    def _stop(self, stream: _Stream) -> None:
        """Cancels the build on the engine, by its id and by hanging up: either is enough."""
        try:
            self._engine.call(
                "POST",
                "/build/cancel",
                doing="cancel a build",
                params={"id": self._id},
                timeout=_CANCEL,
            ).close()
        except EngineError:
            # It is over already, or the engine is gone. Hanging up does the same, and the first error counts.
            pass
        finally:
            stream.hang_up()
        stream.join(_HANG_UP)

    def _own_errors(self) -> tuple[Exception, ...]:
        return self._session.errors[self._own_errors_before :]

    def _failed(self, message: str) -> EngineError | _Again:
        error = failure(message, self._record, self._own_errors())
        lost = lost_layer(message) and not self._record.process_failed
        return _Again(error, lost_layer=lost) if lost or is_transient(message) else error

    def _without_session(self) -> EngineUnavailable:
        """The error for a build that the engine could ask nothing for: it would name a Dockerfile that is not read."""
        causes = "; ".join(dict.fromkeys(str(error) for error in self._session.errors)) or "no error was seen"
        return EngineUnavailable(
            self._session.redact(f"the build session is closed: {causes}"),
            hint="the engine may have been restarted; build again",
        )

    def _without_result(self) -> BuildFailed:
        current = self._record.current
        return BuildFailed(
            "the build ended with neither an image nor an error",
            hint="the engine may have been restarted; build again",
            step=self._record.describe(current) if current else None,
        )

    def _stalled(self) -> BuildStalled:
        current = self._record.current
        at = f", last in {self._session.redact(current.name)!r}" if current else ""
        return BuildStalled(
            f"the build said nothing for {self._idle_timeout:g} s{at}, and was cancelled",
            hint="give it a longer idle timeout if the step works in silence",
            step=self._record.describe(current) if current else None,
        )

    def _lost(self, error: EngineError) -> EngineError:
        """The error for a stream that broke off."""
        if self._record.current is None or not isinstance(error, EngineUnavailable):
            return error
        return EngineUnavailable(f"the engine went away while it built: {error.message}", hint=error.hint)


def _redacted(event: Event, redact: Redactor) -> Event:
    name = redact(event.name)
    if isinstance(event, StepLog):
        return replace(event, name=name, text=redact(event.text))
    if isinstance(event, StepFinished):
        return replace(event, name=name, error=redact(event.error))
    if isinstance(event, BuildWarning):
        return replace(event, name=name, message=redact(event.message), detail=redact(event.detail))
    return replace(event, name=name)
