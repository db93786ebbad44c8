"""Another name for a manifest, at registries that want a login, and at those that answer badly."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from builder.engine.auth import Credentials
from builder.engine.errors import NotInRegistry, RegistryError, RegistryUnreachable
from builder.registry.answers import Answer
from builder.registry.client import Repository
from builder.registry.images import name
from builder.registry.transport import Transport

pytestmark = pytest.mark.engine

MANIFEST = b'{"schemaVersion": 2}\n'
KIND = "application/vnd.oci.image.manifest.v1+json"
DIGEST = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()
LOGIN = Credentials(username="user", secret="word")
BASIC = "Basic " + base64.b64encode(b"user:word").decode()


class Registry(ThreadingHTTPServer):
    """A registry that asks for a login in one way, and remembers what it was told."""

    def __init__(self, challenge: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server_port}"
        self.challenge = challenge.format(address=self.address)
        self.served = MANIFEST
        self.tags: dict[str, tuple[str | None, bytes]] = {}
        self.tokens: list[dict[str, list[str]]] = []


class Handler(BaseHTTPRequestHandler):
    server: Registry

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for header, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(header.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _allowed(self, scope: str) -> bool:
        if self.headers.get("Authorization") == (f"Bearer {scope}" if "Bearer" in self.server.challenge else BASIC):
            return True
        self._answer(401, www_authenticate=self.server.challenge.replace("SCOPE", scope))
        return False

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/token":
            self.server.tokens.append(parse_qs(url.query))
            good = self.headers.get("Authorization") == BASIC
            self._answer(200 if good else 401, json.dumps({"token": parse_qs(url.query)["scope"][0]}).encode())
        elif self._allowed("pull"):
            assert KIND in (self.headers.get("Accept") or "")
            reference = url.path.removeprefix("/v2/team/image/manifests/")
            kept = {DIGEST: self.server.served, **{tag: body for tag, (_, body) in self.server.tags.items()}}
            found = reference in kept
            self._answer(200 if found else 404, kept.get(reference, b"unknown"), content_type=KIND)

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.server.tokens.append(form)
        good = form["refresh_token"] == ["identity"]
        self._answer(200 if good else 401, json.dumps({"access_token": form["scope"][0]}).encode())

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._allowed("push"):
            self.server.tags[self.path.rpartition("/")[2]] = (self.headers.get("Content-Type"), body)
            self._answer(201)


class Logins:
    def __init__(self, login: Credentials | None) -> None:
        self.login = login

    def credentials(self, host: str) -> Credentials | None:
        assert host.startswith("127.0.0.1:")
        return self.login


TOKEN = 'Bearer realm="http://{address}/token",service="it",scope="SCOPE"'


@pytest.fixture
def registry(request: pytest.FixtureRequest) -> Iterator[Registry]:
    with Registry(getattr(request, "param", TOKEN)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def repository(registry: Registry, login: Credentials | None = LOGIN) -> Repository:
    return Repository(f"{registry.address}/team/image", Logins(login))


@pytest.mark.parametrize("registry", [TOKEN, 'Basic realm="it"'], indirect=True)
def test_the_same_bytes_get_another_name(registry: Registry) -> None:
    name(repository(registry), DIGEST, "latest")
    assert registry.tags == {"latest": (KIND, MANIFEST)}


def test_writing_asks_for_a_token_of_its_own(registry: Registry) -> None:
    name(repository(registry), DIGEST, "latest")
    assert registry.tokens == [{"service": ["it"], "scope": [scope]} for scope in ("pull", "push")]


def test_an_identity_token_is_a_login_too(registry: Registry) -> None:
    name(repository(registry, Credentials(username="", secret="identity")), DIGEST, "latest")
    assert {token["grant_type"][0] for token in registry.tokens} == {"refresh_token"}
    assert set(registry.tags) == {"latest"}


@pytest.mark.parametrize("registry", [TOKEN, 'Basic realm="it"'], indirect=True)
@pytest.mark.parametrize("login", [None, Credentials(username="user", secret="wrong-word")])
def test_without_the_right_login_nothing_is_named(registry: Registry, login: Credentials | None) -> None:
    with pytest.raises(RegistryError) as caught:
        name(repository(registry, login), DIGEST, "latest")
    assert f"docker login {registry.address}" in str(caught.value)
    assert "wrong-word" not in str(caught.value)
    assert registry.tags == {}


@pytest.mark.parametrize(
    "registry",
    [
        "Digest realm=x",
        "",
        'Bearer realm="http://elsewhere.example/token"',
        'Bearer realm="file:///x"',
        'Bearer realm="http://127.0.0.1:80@elsewhere.example/token"',
        'Bearer realm="https://[elsewhere"',
        'Bearer realm="https://elsewhere.example:port/token"',
    ],
    indirect=True,
)
def test_no_login_goes_where_it_does_not_belong(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="does not take"):
        name(repository(registry), DIGEST, "latest")
    assert registry.tokens == []


def test_other_bytes_than_those_that_passed_get_no_name(registry: Registry) -> None:
    registry.served = MANIFEST + b" "
    with pytest.raises(RegistryError, match="other bytes"):
        name(repository(registry), DIGEST, "latest")
    with pytest.raises(NotInRegistry, match="there is no"):
        name(repository(registry), "sha256:" + "0" * 64, "latest")
    assert registry.tags == {}
    registry.served = MANIFEST
    name(repository(registry), DIGEST, "latest")
    assert set(registry.tags) == {"latest"}


def test_a_registry_that_is_not_there(registry: Registry) -> None:
    gone = repository(registry)
    registry.server_close()
    with pytest.raises(RegistryUnreachable, match="unreachable"):
        name(gone, DIGEST, "latest")


def test_what_does_not_speak_http_is_no_registry() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def answer() -> None:
            for _ in range(2):  # whether it speaks TLS is asked first
                client, _ = server.accept()
                with client:
                    client.recv(4096)
                    client.sendall(b"nonsense\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(RegistryUnreachable, match="nonsense"):
            name(Repository(f"{address}/team/image", Logins(None)), DIGEST, "latest")
        thread.join()


class HubLogins:
    def credentials(self, host: str) -> Credentials | None:
        assert host == "docker.io"
        return None


@pytest.mark.parametrize(
    ("repository", "path"),
    [
        ("docker.io/team/image", "team/image"),
        ("index.docker.io/team/image", "team/image"),
        ("team/image", "team/image"),
        ("image", "library/image"),
        ("docker.io/image", "library/image"),
    ],
)
def test_docker_hub_has_another_host_than_its_names(
    repository: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(self: Transport, method: str, url: str, **_: object) -> Answer:
        asked.append(url)
        return Answer(status=401, headers={}, body=b"", challenges=('Basic realm="hub"',))

    monkeypatch.setattr(Transport, "send", refuse)
    with pytest.raises(RegistryError, match=r"docker login docker\.io"):
        Repository(repository, HubLogins()).manifest(DIGEST)
    assert asked == [f"https://registry-1.docker.io/v2/{path}/manifests/{DIGEST}"]
