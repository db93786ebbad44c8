"""A registry behind a company's proxy: a tunnel to its name, which only the proxy can resolve."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from loopback_registry import Certificates, certificates, login_file, registry

from builder.engine.auth import DockerLogins
from builder.engine.errors import RegistryUnreachable
from builder.registry.client import Repository
from builder.registry.proxies import Proxies

pytestmark = pytest.mark.engine

NAME = "registry.test:5443"


class Proxy(ThreadingHTTPServer):
    """Tunnels to one address, whatever name is asked for, for those who have the login `us:er`."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = upstream
        self.asked: list[tuple[str, dict[str, str]]] = []


class Handler(BaseHTTPRequestHandler):
    server: Proxy

    def log_message(self, *_: object) -> None:
        pass

    def do_CONNECT(self) -> None:
        self.server.asked.append((self.path, dict(self.headers.items())))
        if self.headers.get("Proxy-Authorization") != "Basic dXM6ZXI=":
            self.send_error(407)
            return
        host, _, port = self.server.upstream.rpartition(":")
        self.send_response(200)
        self.end_headers()
        with socket.create_connection((host, int(port))) as upstream:
            ends = {upstream: self.connection, self.connection: upstream}
            while True:
                for ready in select.select(list(ends), [], [])[0]:
                    data = ready.recv(1 << 16)
                    if not data:
                        return
                    ends[ready].sendall(data)


@contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    with Proxy(upstream) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[tuple[Proxy, Certificates]]:
    tls = certificates(tmp_path)
    with registry(tmp_path, tls=tls, login=True) as address, proxy(address) as server:
        yield server, tls


def test_a_registry_behind_a_proxy(behind: tuple[Proxy, Certificates], tmp_path: Path) -> None:
    server, tls = behind
    logins = DockerLogins(login_file(tmp_path / "docker", NAME))
    way = Proxies(https=f"http://us:er@127.0.0.1:{server.server_port}")
    repository = Repository(f"{NAME}/team/image", logins, tls.authority, proxies=way)
    made = repository.put_blob(b"through the tunnel")
    assert repository.blob(made.digest) == b"through the tunnel"
    assert {path for path, _ in server.asked} == {NAME}
    # The registry's login is inside the tunnel.
    assert not any("Authorization" in headers for _, headers in server.asked)


def test_a_proxy_that_wants_another_login(behind: tuple[Proxy, Certificates], tmp_path: Path) -> None:
    server, tls = behind
    way = Proxies(https=f"http://us:wrong-word@127.0.0.1:{server.server_port}")
    repository = Repository(f"{NAME}/team/image", DockerLogins(tmp_path / "none"), tls.authority, proxies=way)
    with pytest.raises(RegistryUnreachable, match="407") as caught:
        repository.tags()
    assert "wrong-word" not in str(caught.value)
