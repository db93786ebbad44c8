"""A small gRPC server over one connection that the engine handed over: HTTP/2, one thread, no sockets of its own.

gRPC's own library brings 30 MB and cannot serve on a connection that was opened towards a server. Here one thread
receives, runs the handlers and sends; a handler never blocks on the peer, it yields None and is asked again.
"""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from builder.engine.errors import EngineError
from builder.engine.wire import GrpcReader, WireError, grpc_frame

OK, UNKNOWN, INVALID_ARGUMENT, NOT_FOUND, ABORTED, UNIMPLEMENTED, INTERNAL = 0, 2, 3, 5, 10, 12, 13
"""gRPC status codes."""

_HEADER_LIST_SIZE = 16 * 1024 * 1024
"""The patterns of a .dockerignore travel as headers, and a long one overruns h2's 64 kB."""

_SEND_AT = 256 * 1024
"""Bytes collected before they are written to the connection."""

Metadata = Mapping[str, Sequence[str]]


class RpcError(Exception):
    """Ends a call with a gRPC status other than OK. Expected, and so not among the server's errors."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Call(Protocol):
    """One call in progress."""

    def receive(self, message: bytes) -> None:
        """Takes a message of the caller."""
        ...

    def send(self) -> Iterator[bytes | None]:
        """Yields messages to the caller; None while there is none to send yet."""
        ...


@dataclass
class Unary:
    """A call with one request and one response."""

    answer: Callable[[bytes], bytes]
    _request: bytes | None = None

    def receive(self, message: bytes) -> None:
        self._request = message

    def send(self) -> Iterator[bytes | None]:
        while self._request is None:
            yield None
        yield self.answer(self._request)


Methods = Mapping[str, Callable[[Metadata], Call]]
"""Full method names, such as `/package.Service/Method`, and what starts a call of each."""


@dataclass
class _Stream:
    call: Call
    output: Iterator[bytes | None]
    reader: GrpcReader = field(default_factory=GrpcReader)
    buffer: bytearray = field(default_factory=bytearray)
    status: int | None = None
    message: str = ""


class Server:
    """Serves `methods` until the peer or `close` ends the connection.

    Args:
        source: where received bytes come from, including those that were read ahead with the HTTP response.
        sink: the socket to send on.
        on_error: told of every error that ended a call, apart from `RpcError`.
    """

    def __init__(
        self,
        source: io.BufferedIOBase,
        sink: socket.socket,
        methods: Methods,
        on_error: Callable[[Exception], None],
    ) -> None:
        self._source = source
        self._sink = sink
        self._methods = methods
        self._on_error = on_error
        self._streams: dict[int, _Stream] = {}
        self._closing = threading.Event()
        self._connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding=None)
        )
        self._connection.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1000,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: _HEADER_LIST_SIZE,
            },
        )
        self._connection.decoder.max_header_list_size = _HEADER_LIST_SIZE
        self._thread = threading.Thread(target=self._serve, name="buildkit-session", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def close(self, timeout: float = 2.0) -> None:
        """Says goodbye and ends the connection; waits at most `timeout` seconds for it."""
        self._closing.set()
        # Ends the blocking receive of the serving thread, which can then still send its goodbye. The base class's
        # method, because the one of a TLS socket would tear down what the other thread is using.
        _shutdown(self._sink, socket.SHUT_RD)
        self._thread.join(timeout)
        _shutdown(self._sink, socket.SHUT_RDWR)
        self._thread.join(timeout)

    def _serve(self) -> None:
        try:
            self._connection.initiate_connection()
            self._flush()
            while received := self._source.read1(256 * 1024):
                events = self._connection.receive_data(received)
                if any(isinstance(event, h2.events.ConnectionTerminated) for event in events):
                    return
                # h2 has taken them all in already: on a stream that one of them ends, nothing may be sent any more.
                over = {event.stream_id for event in events if isinstance(event, h2.events.StreamReset)}
                for event in events:
                    self._handle(event, over)
                self._pump()
            self._connection.close_connection()
            self._flush()
        except (OSError, h2.exceptions.H2Error) as error:
            if not self._closing.is_set():
                self._on_error(error)
        finally:
            # Whatever happened: an engine that waits for an answer must learn that none will come.
            _shutdown(self._sink, socket.SHUT_RDWR)
            for stream in self._streams.values():
                _close(stream.output)

    def _handle(self, event: h2.events.Event, over: Collection[int]) -> None:
        if isinstance(event, h2.events.RequestReceived):
            if event.stream_id not in over:
                self._open(event.stream_id, event.headers)
        elif isinstance(event, h2.events.DataReceived):
            size = event.flow_controlled_length
            if size:
                self._connection.acknowledge_received_data(size, event.stream_id)
            stream = self._streams.get(event.stream_id)
            if stream is not None and stream.status is None:
                self._guarded(stream, lambda: _receive(stream, event.data))
        elif isinstance(event, h2.events.StreamReset):
            dropped = self._streams.pop(event.stream_id, None)
            if dropped is not None:
                _close(dropped.output)

    def _open(self, stream_id: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        metadata: dict[str, list[str]] = {}
        for name, value in headers:
            text = bytes(value).decode("utf-8", "surrogateescape")
            metadata.setdefault(bytes(name).decode("ascii", "replace"), []).append(text)
        path = "".join(metadata.get(":path", ()))
        self._connection.send_headers(stream_id, [(":status", "200"), ("content-type", "application/grpc")])
        call: Call = Unary(_unimplemented)
        stream = _Stream(call, iter(()))
        self._streams[stream_id] = stream
        start = self._methods.get(path)
        if start is None:
            stream.status, stream.message = UNIMPLEMENTED, f"{path} is not served here"
            return

        def begin() -> None:
            stream.call = start(metadata)
            stream.output = stream.call.send()

        self._guarded(stream, begin)

    def _guarded(self, stream: _Stream, action: Callable[[], None]) -> None:
        """Runs a piece of a handler; an error ends the call with a status, and only this call."""
        try:
            action()
        except RpcError as error:
            stream.status, stream.message = error.status, error.message
        except (EngineError, OSError, ValueError) as error:
            wrong = INVALID_ARGUMENT if isinstance(error, WireError) else INTERNAL
            stream.status, stream.message = wrong, str(error)
            self._on_error(error)

    def _pump(self) -> None:
        """Sends what can be sent, fairly, until every stream waits for the peer or for its window."""
        active = True
        while active:
            active = False
            for stream_id in list(self._streams):
                active |= self._advance(stream_id, self._streams[stream_id])
            if self._pending() >= _SEND_AT:
                self._flush()
        self._flush()

    def _advance(self, stream_id: int, stream: _Stream) -> bool:
        """Sends one frame's worth of a stream. Returns whether more may follow at once."""
        limit = self._connection.max_outbound_frame_size
        if stream.status is None and len(stream.buffer) < limit:
            self._guarded(stream, lambda: _fill(stream, limit))
        if stream.buffer:
            window = self._connection.local_flow_control_window(stream_id)
            size = min(window, limit, len(stream.buffer))
            if size <= 0:
                return False
            self._send(stream_id, bytes(stream.buffer[:size]))
            del stream.buffer[:size]
            return True
        if stream.status is not None:
            self._finish(stream_id, stream)
        return False

    def _finish(self, stream_id: int, stream: _Stream) -> None:
        trailers = [("grpc-status", str(stream.status))]
        if stream.message:
            # gRPC's own quoting of this header: percent, for all but printable ASCII.
            # Names of files may hold bytes that are no UTF-8.
            quoted = quote(stream.message[:4000], safe=" !/:,;='()[]", errors="replace")
            trailers.append(("grpc-message", quoted))
        self._connection.send_headers(stream_id, trailers, end_stream=True)
        _close(stream.output)
        del self._streams[stream_id]

    # h2 collects what is to be sent; asking it for that empties it, so the size is counted here.
    _collected = 0

    def _send(self, stream_id: int, frame: bytes) -> None:
        self._connection.send_data(stream_id, frame)
        self._collected += len(frame)

    def _pending(self) -> int:
        return self._collected

    def _flush(self) -> None:
        self._collected = 0
        waiting = self._connection.data_to_send()
        if waiting:
            self._sink.sendall(waiting)


def _receive(stream: _Stream, data: bytes) -> None:
    for message in stream.reader.feed(data):
        stream.call.receive(message)


def _fill(stream: _Stream, limit: int) -> None:
    """Collects a stream's next messages, many small ones into one frame."""
    while len(stream.buffer) < limit:
        try:
            message = next(stream.output)
        except StopIteration:
            stream.status = OK
            return
        if message is None:
            return
        stream.buffer += grpc_frame(message)


def _unimplemented(_: bytes) -> bytes:
    raise RpcError(UNIMPLEMENTED, "not served here")


def _close(output: Iterator[bytes | None]) -> None:
    """Closes the files that a handler may have open."""
    close = getattr(output, "close", None)
    if close is not None:
        close()


def _shutdown(sink: socket.socket, how: int) -> None:
    try:
        socket.socket.shutdown(sink, how)
    except OSError:
        # Already closed by the peer, which is what was wanted.
        return
