"""A registry that is busy, refuses, breaks off, lies or sends us elsewhere: what the client makes of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from builder.engine.auth import Credentials
from builder.engine.errors import NotInRegistry, RegistryError, RegistryUnreachable
from builder.registry import patience
from builder.registry.answers import RegistryRefused
from builder.registry.client import Repository
from builder.registry.values import OCI_MANIFEST, digest_of

pytestmark = pytest.mark.engine

BODY = b'{"schemaVersion":2}'
DIGEST = digest_of(BODY)
Answering = Callable[["Handler"], None]


class Server(ThreadingHTTPServer):
    """Answers each request with the next one of a script, and for ever with the script's last."""

    daemon_threads = True

    def __init__(self, *script: Answering) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server_port}"
        self.script = list(script)
        self.asked: list[tuple[str, str, str | None]] = []
        self.times: list[float] = []
        self.connections = 0
        self.lock = threading.Lock()

    def next(self) -> Answering:
        with self.lock:
            return self.script.pop(0) if len(self.script) > 1 else self.script[0]


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    late = False

    def log_message(self, *_: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def _any(self) -> None:
        with self.server.lock:
            self.server.asked.append((self.command, self.path, self.headers.get("Authorization")))
            self.server.times.append(time.monotonic())
        answering = self.server.next()
        if not getattr(answering, "early", False):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answering(self)

    do_GET = do_HEAD = do_PUT = do_POST = _any


def says(status: int, body: bytes = b"", **headers: str) -> Answering:
    def answer(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in {"content_length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    return answer


def breaks_off(handler: Handler) -> None:
    """Half of what it promised, and then the connection is closed."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(BODY)))
    handler.end_headers()
    handler.wfile.write(BODY[: len(BODY) // 2])
    handler.close_connection = True


def hangs_up(handler: Handler) -> None:
    handler.close_connection = True


def closes_after(handler: Handler) -> None:
    """A good answer, after which the connection is closed without a word, as idle ones are."""
    good(handler)
    handler.close_connection = True


def errors(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


good = says(200, BODY, content_type=OCI_MANIFEST)
created = says(201, docker_content_digest=DIGEST)


@contextmanager
def serving(*script: Answering) -> Iterator[Server]:
    with Server(*script) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Logins:
    def __init__(self, login: Credentials | None = None) -> None:
        self.login = login

    def credentials(self, host: str) -> Credentials | None:
        return self.login


def repository(server: Server, deadline: float = 30.0, login: Credentials | None = None) -> Repository:
    return Repository(f"{server.address}/team/image", Logins(login), deadline=deadline)


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSES", (0.05, 0.05))


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("busy", [says(503), says(429), says(500, b"disk"), breaks_off, hangs_up])
def test_what_may_pass_is_tried_again_but_not_for_ever(busy: Answering) -> None:
    with serving(busy, busy, good) as server:
        found = repository(server).manifest(DIGEST)
        assert found is not None
        assert found.body == BODY
        assert len(server.asked) == 3
    with serving(busy) as server, pytest.raises(RegistryError) as caught:
        repository(server).manifest(DIGEST)
    assert len(server.asked) == 3
    assert server.address in str(caught.value)


@pytest.mark.usefixtures("short_pauses")
def test_a_writer_is_as_patient_as_a_reader() -> None:
    with serving(says(503), says(503), created) as server:
        assert repository(server).put_manifest("latest", BODY, OCI_MANIFEST) == DIGEST
    with (
        serving(says(503, b"upstream is down")) as server,
        pytest.raises(RegistryRefused, match="503 upstream is down"),
    ):
        repository(server).put_manifest("latest", BODY, OCI_MANIFEST)
    assert [method for method, _, _ in server.asked] == ["PUT"] * 3


def test_everybody_waits_for_as_long_as_the_registry_asks() -> None:
    with serving(says(429, retry_after="1"), created) as server:
        # Of another repository in the same registry, as another cell's worker has it.
        other = Repository(f"{server.address}/team/other", Logins())
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(repository(server).put_manifest, "latest", BODY, OCI_MANIFEST)
            while not server.times:
                time.sleep(0.005)
            time.sleep(0.1)
            second = pool.submit(other.put_manifest, "latest", BODY, OCI_MANIFEST)
            assert first.result() == second.result() == DIGEST
    assert len(server.times) == 3
    assert all(later - server.times[0] >= 1.0 for later in server.times[1:])


def test_a_pause_beyond_the_deadline_ends_the_call() -> None:
    began = time.monotonic()
    with serving(says(429, retry_after="3600")) as server:
        with pytest.raises(RegistryError, match="asks to wait for 3600 s"):
            repository(server).put_manifest("latest", BODY, OCI_MANIFEST)
        assert len(server.asked) == 1
    assert time.monotonic() - began < 10


def test_pauses_without_end_end_at_the_deadline() -> None:
    began = time.monotonic()
    with serving(says(429, retry_after="1")) as server, pytest.raises(RegistryError, match="429"):
        repository(server, deadline=2.5).manifest(DIGEST)
    assert 2 <= len(server.asked) <= 3
    assert time.monotonic() - began < 2.5 + 1.0


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (400, "MANIFEST_INVALID", ""),
        (401, "UNAUTHORIZED", "docker login 127.0.0.1"),
        (403, "DENIED", "an account that may write it"),
        (405, "UNSUPPORTED", ""),
        (413, "SIZE_INVALID", "limits the size"),
    ],
)
def test_a_refusal_is_final(status: int, code: str, hint: str) -> None:
    refusing = says(status, errors(code, "so it is"), www_authenticate='Basic realm="it"')
    with serving(refusing) as server, pytest.raises(RegistryRefused) as caught:
        repository(server).put_manifest("latest", BODY, OCI_MANIFEST)
    assert len(server.asked) == 1
    assert (caught.value.status, caught.value.codes) == (status, (code,))
    assert f"{status} {code}: so it is" in caught.value.message
    assert hint in caught.value.hint
    assert bool(hint) == bool(caught.value.hint)


def test_a_refusal_before_the_body_was_read_is_understood() -> None:
    def too_large(handler: Handler) -> None:
        says(413, b"client intended to send too large body", connection="close")(handler)
        handler.close_connection = True

    too_large.early = True  # type: ignore[attr-defined]
    begun = says(202, location="/v2/team/image/blobs/uploads/x")
    with serving(says(404), begun, too_large) as server, pytest.raises(RegistryRefused, match="413"):
        repository(server).put_blob(b"x" * (16 << 20))


def test_other_bytes_are_reported_and_not_taken() -> None:
    digest = digest_of(b"other")
    with serving(good) as server:
        there = repository(server)
        with pytest.raises(RegistryError, match="other bytes than those of"):
            there.manifest(digest)
        with pytest.raises(RegistryError, match="other bytes than those of the blob"):
            there.blob(digest)
        assert there.blob(DIGEST) == BODY
        assert len(server.asked) == 3
    wrong = says(200, BODY, content_type=OCI_MANIFEST, docker_content_digest=digest)
    with serving(wrong) as server, pytest.raises(RegistryError, match="other bytes"):
        repository(server).manifest("latest")
    with serving(says(201, docker_content_digest=digest)) as server, pytest.raises(RegistryError, match="keeps"):
        repository(server).put_manifest("latest", BODY, OCI_MANIFEST)


def test_bytes_that_changed_on_the_way_up_are_reported() -> None:
    begun = says(202, location="/v2/team/image/blobs/uploads/x?_state=1")
    with serving(says(404), begun, says(400, errors("DIGEST_INVALID", "not what was uploaded"))) as server:
        with pytest.raises(RegistryRefused, match="DIGEST_INVALID"):
            repository(server).put_blob(BODY)
        assert server.asked[-1][1] == f"/v2/team/image/blobs/uploads/x?_state=1&digest={DIGEST.replace(':', '%3A')}"
        assert [method for method, _, _ in server.asked] == ["HEAD", "POST", "PUT"]


@pytest.mark.usefixtures("short_pauses")
def test_an_upload_that_broke_off_begins_anew() -> None:
    begun = says(202, location="/v2/team/image/blobs/uploads/x")
    with serving(says(404), begun, hangs_up, says(404), begun, says(201)) as server:
        assert repository(server).put_blob(BODY).digest == DIGEST
    assert [method for method, _, _ in server.asked] == ["HEAD", "POST", "PUT"] * 2


def test_what_is_there_is_not_sent_again() -> None:
    with serving(says(200)) as server:
        assert repository(server).put_blob(BODY).digest == DIGEST
    assert [method for method, _, _ in server.asked] == ["HEAD"]


def test_what_is_not_there_is_no_error_for_a_manifest() -> None:
    with serving(says(404, errors("MANIFEST_UNKNOWN", "unknown"))) as server:
        there = repository(server)
        assert there.manifest("latest") is None
        assert there.digest("latest") is None
        assert there.tags() == ()
        assert there.referrers(DIGEST) is None
        with pytest.raises(NotInRegistry):
            there.blob(DIGEST)


def test_too_much_is_not_read() -> None:
    with serving(good) as server:
        there = repository(server)
        assert there.blob(DIGEST, cap=len(BODY)) == BODY
        with pytest.raises(RegistryError, match="more than 18 bytes"):
            there.blob(DIGEST, cap=len(BODY) - 1)


def test_connections_are_kept_and_replaced_when_they_were_closed() -> None:
    with serving(good) as server:
        there = repository(server)
        for _ in range(5):
            there.manifest(DIGEST)
        # One more, which asks whether it speaks TLS.
        assert server.connections == 2
    with serving(closes_after) as server:
        there = repository(server)
        for _ in range(5):
            there.manifest(DIGEST)
        assert len(server.asked) == 5


LOGIN = Credentials(username="user", secret="a-secret-word")


def test_a_login_does_not_follow_to_another_host() -> None:
    with serving(good) as storage:
        # 127.0.0.1 and localhost are one machine, and two hosts; the way there has to be taken for plain HTTP too.
        moved = says(307, location=f"http://{storage.address}/v2/team/image/blobs/{DIGEST}")
        asking = says(401, www_authenticate='Basic realm="it"')
        with serving(asking, moved) as server:
            with pytest.raises(RegistryError, match="does not follow"):
                repository(server, login=LOGIN).blob(DIGEST)
            assert server.asked[-1][2] is not None
        assert storage.asked == []
    with serving(asking, says(307, location="other"), good) as server:
        assert repository(server, login=LOGIN).blob(DIGEST) == BODY
        assert server.asked[-1][1] == "/v2/team/image/blobs/other"
        assert server.asked[-1][2] == server.asked[-2][2] != server.asked[0][2]


@pytest.mark.parametrize("place", ["", "http://elsewhere.example/x", "file:///etc/passwd", "https://[x"])
def test_nowhere_is_gone_that_is_not_safe(place: str) -> None:
    with serving(says(307, location=place)) as server, pytest.raises(RegistryError, match="does not follow"):
        repository(server).blob(DIGEST)


def test_redirects_end() -> None:
    with serving(says(307, location="again")) as server, pytest.raises(RegistryError, match="on and on"):
        repository(server).blob(DIGEST)
    assert len(server.asked) <= 10


def drips(handler: Handler) -> None:
    """A byte now and then, so that the connection is never silent for long."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    for _ in range(100):
        try:
            handler.wfile.write(b"x")
        except OSError:
            break
        time.sleep(0.1)
    handler.close_connection = True


def test_a_body_that_drips_ends_at_the_deadline() -> None:
    with serving(drips) as server:
        started = time.monotonic()
        with pytest.raises(RegistryUnreachable, match="in time"):
            repository(server, deadline=1.0).manifest(DIGEST)
        # It goes on for 10 s; a second is the deadline.
        assert time.monotonic() - started < 5


def drips_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    for _ in range(100):
        try:
            handler.wfile.write(b"x")
        except OSError:
            break
        time.sleep(0.1)
    handler.close_connection = True


def test_headers_that_drip_end_at_the_deadline() -> None:
    with serving(drips_headers) as server:
        started = time.monotonic()
        with pytest.raises(RegistryUnreachable, match="in time"):
            repository(server, deadline=1.0).manifest(DIGEST)
        assert time.monotonic() - started < 5


def test_a_body_that_is_taken_slowly_ends_at_the_deadline() -> None:
    def sips(handler: Handler) -> None:
        for _ in range(100):
            if not handler.rfile.read(1 << 16):
                break
            time.sleep(0.1)
        handler.close_connection = True

    sips.early = True  # type: ignore[attr-defined]
    with serving(sips) as server:
        started = time.monotonic()
        with pytest.raises(RegistryUnreachable, match="in time"):
            repository(server, deadline=1.0).put_manifest("latest", b"x" * (64 << 20), OCI_MANIFEST)
        assert time.monotonic() - started < 5


def in_chunks(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", OCI_MANIFEST)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    half = len(BODY) // 2
    for piece in (BODY[:half], BODY[half:], b""):
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))


def test_connections_are_kept_after_every_kind_of_answer() -> None:
    with serving(in_chunks, good, in_chunks, says(404), good) as server:
        there = repository(server)
        for _ in range(3):
            assert there.blob(DIGEST) == BODY
        assert there.manifest("none") is None
        assert there.digest("latest") == DIGEST
        assert server.connections == 2


@pytest.mark.parametrize("length", ["\xb2", "9" * 5000])
def test_a_length_that_is_none_is_not_believed(length: str) -> None:
    def answer(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: " + length.encode("latin-1") + b"\r\n\r\n" + BODY)
        handler.close_connection = True

    with serving(answer) as server:
        assert repository(server).blob(DIGEST) == BODY


def test_pages_linked_in_several_lines() -> None:
    def first(handler: Handler) -> None:
        body = b'{"tags":["a"]}'
        handler.send_response(200)
        handler.send_header("Link", '<?last=a>; rel="next"')
        handler.send_header("Link", '<https://registry.example/help>; rel="help"')
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with serving(first, says(200, b'{"tags":["b"]}')) as server:
        assert repository(server).tags() == ("a", "b")


def test_lists_come_in_pages_and_end() -> None:
    first = says(200, b'{"tags":["b","a"]}', link='</v2/team/image/tags/list?n=2&last=b>; rel="next"')
    with serving(first, says(200, b'{"tags":["c"]}')) as server:
        assert repository(server).tags() == ("a", "b", "c")
        assert server.asked[1][1] == "/v2/team/image/tags/list?n=2&last=b"
    with serving(first) as server:
        assert repository(server).tags() == ("a", "b")
    with serving(says(200, b"<html>")) as server, pytest.raises(RegistryError, match="no JSON"):
        repository(server).tags()


def test_nobody_there_and_nobody_who_answers() -> None:
    with serving(good) as server:
        gone = repository(server)
    with pytest.raises(RegistryUnreachable, match="Connection refused"):
        gone.manifest(DIGEST)
    with serving(lambda handler: time.sleep(1.5)) as server, pytest.raises(RegistryUnreachable, match="in time"):
        repository(server, deadline=0.5).manifest(DIGEST)
