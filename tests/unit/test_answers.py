"""Answers of an engine that break off, and what a registry's refusal means. The engine is made here."""

from __future__ import annotations

import http.server
import socketserver
import threading
from collections.abc import Callable, Iterator

import docker
import pytest

from builder.engine.address import Address
from builder.engine.causes import refusal
from builder.engine.connection import Engine
from builder.engine.errors import EngineUnavailable, RegistryError, RegistryUnreachable
from builder.engine.images import load_archive, registry_digest
from builder.engine.results import Results, log_tail

STAT = "eyJuYW1lIjoiciIsInNpemUiOjEsIm1vZGUiOjQyMH0="  # {"name":"r","size":1,"mode":420}


class _Breaking(http.server.BaseHTTPRequestHandler):
    """Promises 1000 bytes, sends a few and hangs up."""

    def _answer(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.send_header("X-Docker-Container-Path-Stat", STAT)
        self.end_headers()
        self.wfile.write(b"\1\0\0\0\0\0\0\xff")

    do_GET = do_POST = _answer

    def address_string(self) -> str:
        return "test"

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def breaking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    path = tmp_path_factory.mktemp("s") / "d.sock"
    with socketserver.ThreadingUnixStreamServer(str(path), _Breaking) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"unix://{path}"
        with Engine(docker.APIClient(base_url=url, version="1.41"), Address(url=url, origin="test"), True) as engine:
            yield engine
        server.shutdown()


@pytest.mark.parametrize(
    ("read", "doing"),
    [
        (lambda engine: load_archive(engine, [b"x"]), "load an image"),
        (lambda engine: log_tail(engine, "c", 100), "read the container's output"),
        (lambda engine: Results(100).read(engine, "c", "/results", "r"), "read the result r"),
    ],
)
def test_an_answer_that_breaks_off_is_the_engines_fault(
    breaking: Engine, read: Callable[[Engine], object], doing: str
) -> None:
    with pytest.raises(EngineUnavailable, match=f"cannot {doing}: the connection to .* broke"):
        read(breaking)


class _Refusing(Engine):
    """An engine whose registry refuses."""

    def __init__(self, status: int, message: str) -> None:
        self._answer = (status, message)

    def call_json(self, method: str, path: str, *, doing: str, **_: object) -> object:
        raise refusal(*self._answer, doing)


@pytest.mark.parametrize(
    ("reference", "status", "message", "unreachable"),
    [
        ("h:5000/a:1", 500, 'Get "https://h:5000/v2/": EOF', True),
        ("h:5000/a:1", 500, 'Get "https://h:5000/v2/": dial tcp: lookup h: no such host', True),
        ("h:5000/a:1", 500, "net/http: TLS handshake timeout", True),
        ("h:5000/eof:1", 500, "dial tcp 127.0.0.1:5000: connect: connection refused", True),
        ("eof:1", 404, "manifest unknown", False),
        ("team/geofence:1", 403, "pull access denied for team/geofence, repository does not exist", False),
        ("h/team/timeout-tests:1", 404, 'Get "https://h/v2/team/timeout-tests/manifests/1": manifest unknown', False),
    ],
)
def test_only_a_registry_that_did_not_answer_is_unreachable(
    reference: str, status: int, message: str, unreachable: bool
) -> None:
    """What is unreachable is replaced by a base that is made here; a refusal must never be."""
    with pytest.raises(RegistryError) as caught:
        registry_digest(_Refusing(status, message), reference)
    assert isinstance(caught.value, RegistryUnreachable) is unreachable
