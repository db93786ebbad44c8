"""What a peer may do to a session's server, spoken by an HTTP/2 client over a pair of sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import pytest

from builder.engine import wire
from builder.engine.errors import ContextError
from builder.engine.h2server import Server, Unary

CANCEL = 8
"""HTTP/2's error code of a caller that wants no answer any more."""


def _echo(message: bytes) -> bytes:
    return message


def _odd(_: bytes) -> bytes:
    raise ContextError("cannot read caf\udce9 of the context")


@dataclass
class Peer:
    """The client's end."""

    socket: socket.socket
    server: Server
    errors: list[Exception]
    client: h2.connection.H2Connection = field(
        default_factory=lambda: h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    )

    def ask(self, stream: int, path: str, *, end: bool = True) -> None:
        headers = [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", "x")]
        self.client.send_headers(stream, headers)
        self.client.send_data(stream, wire.grpc_frame(b"hello"), end_stream=end)

    def flush(self) -> None:
        self.socket.sendall(self.client.data_to_send())

    def answer(self, stream: int) -> tuple[bytes, dict[str, str]]:
        """What came on a stream, and its trailers; fails when the server hangs up before its end."""
        data, trailers = b"", {}
        self.flush()
        while received := self.socket.recv(65536):
            for event in self.client.receive_data(received):
                if isinstance(event, h2.events.DataReceived) and event.stream_id == stream:
                    data += event.data
                elif isinstance(event, h2.events.TrailersReceived) and event.stream_id == stream:
                    trailers = {bytes(k).decode(): bytes(v).decode() for k, v in event.headers}
                elif isinstance(event, h2.events.StreamEnded) and event.stream_id == stream:
                    return data, trailers
            self.flush()
        pytest.fail(f"the server hung up: {self.errors}")


@pytest.fixture
def peer() -> Iterator[Peer]:
    near, far = socket.socketpair()
    near.settimeout(20)
    errors: list[Exception] = []
    with near, far, far.makefile("rb") as source:
        methods = {"/t/Echo": lambda _: Unary(_echo), "/t/Odd": lambda _: Unary(_odd)}
        server = Server(source, far, methods, errors.append)
        server.start()
        one = Peer(near, server, errors)
        one.client.initiate_connection()
        try:
            yield one
        finally:
            server.close()
    assert not server.running


def test_a_call_is_answered(peer: Peer) -> None:
    peer.ask(1, "/t/Echo")
    assert peer.answer(1) == (wire.grpc_frame(b"hello"), {"grpc-status": "0"})


@pytest.mark.parametrize("begin", [lambda p: p.ask(1, "/t/Echo", end=False), lambda p: p.ask(1, "/t/Echo")])
def test_a_call_that_is_taken_back_at_once_costs_no_other(peer: Peer, begin: Callable[[Peer], None]) -> None:
    """A build that is cancelled resets its calls, and its request and its reset may arrive together."""
    begin(peer)
    peer.client.reset_stream(1, CANCEL)
    peer.ask(3, "/t/Echo")
    assert peer.answer(3)[1] == {"grpc-status": "0"}
    assert peer.errors == []


def test_an_error_that_names_bytes_which_are_no_text_ends_only_its_call(peer: Peer) -> None:
    peer.ask(1, "/t/Odd")
    _, trailers = peer.answer(1)
    assert trailers == {"grpc-status": "13", "grpc-message": "cannot read caf%3F of the context"}
    peer.ask(3, "/t/Echo")
    assert peer.answer(3)[1] == {"grpc-status": "0"}
    assert [str(error) for error in peer.errors] == [str(ContextError("cannot read caf\udce9 of the context"))]


def test_a_peer_that_says_goodbye_ends_the_server_without_an_error(peer: Peer) -> None:
    peer.ask(1, "/t/Echo")
    peer.client.close_connection()
    peer.flush()
    ended = threading.Event()
    for _ in range(200):
        if not peer.server.running:
            break
        ended.wait(0.1)
    assert not peer.server.running
    assert peer.errors == []
