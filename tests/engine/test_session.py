"""BuildKit builds over a session of our own, on a real engine."""

from __future__ import annotations

import base64
import http.server
import io
import os
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from builder.engine import fields
from builder.engine.auth import Credentials
from builder.engine.build import BuildRequest, BuildResult, build
from builder.engine.connection import Engine
from builder.engine.disk import CHUNK
from builder.engine.errors import (
    BaseUnavailable,
    BuildCancelled,
    BuildFailed,
    BuildStalled,
    ContextError,
    DiskFull,
    EngineUnavailable,
)
from builder.engine.session import SecretValue, Session, shared_key_for
from builder.engine.trace import Event, StepLog
from builder.engine.tree import Entry, FileTree

pytestmark = pytest.mark.engine

CANARY = "canary-9f1c72d6-do-not-print"


class Workshop:
    """Builds from one-off Dockerfiles; every RUN is new to the engine unless a test repeats it.

    A COPY is not: its result is found by what it copies, whatever the variables are.
    """

    def __init__(self, engine: Engine, base: str, prefix: str) -> None:
        self.engine = engine
        self.base = base
        self.prefix = prefix
        self.unique = uuid.uuid4().hex
        self.events: list[Event] = []

    def dockerfile(self, body: str) -> str:
        return f"FROM {self.base}\nENV UNIQUE={self.unique}\n{body}\n"

    def session(
        self,
        body: str | Mapping[str, str] = "",
        *,
        context: FileTree | None = None,
        secrets: Mapping[str, SecretValue] | None = None,
        key: str = "",
    ) -> Session:
        tree = FileTree()
        bodies = {"Dockerfile": body} if isinstance(body, str) else body
        for name, text in bodies.items():
            tree.add_bytes(name, self.dockerfile(text).encode())
        return Session.open(
            self.engine,
            context=context or FileTree(),
            dockerfiles=tree,
            secrets=secrets,
            shared_key=key or uuid.uuid4().hex,
        )

    def build(
        self,
        body: str,
        *,
        context: FileTree | None = None,
        secrets: Mapping[str, SecretValue] | None = None,
        key: str = "",
        idle_timeout: float = 60,
    ) -> BuildResult:
        with self.session(body, context=context, secrets=secrets, key=key) as session:
            return build(
                self.engine,
                session,
                BuildRequest(labels={"imgbuild-test": self.prefix}),
                on_event=self.events.append,
                idle_timeout=idle_timeout,
            )

    @property
    def output(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, StepLog)]


@pytest.fixture
def workshop(engine: Engine, tiny_base: str, prefix: str) -> Workshop:
    return Workshop(engine, tiny_base, prefix)


def test_build_with_tag_and_label(workshop: Workshop, engine: Engine, prefix: str) -> None:
    tags = (f"{prefix}-a:1", f"{prefix}-a:2")
    request = BuildRequest(
        tags=tags, labels={"who": "me"}, build_args={"WORD": "x y"}, extra_hosts={"h.test": "10.9.8.7"}
    )
    body = 'ARG WORD\nRUN echo "[$WORD]" && cat /etc/hosts'
    events: list[Event] = []
    with workshop.session(body) as session:
        result = build(engine, session, request, on_event=events.append)
        again = build(engine, session, request)
    assert (result.steps_run, result.steps_cached) == (1, 0)
    assert (again.steps_run, again.steps_cached) == (0, 1)
    assert again.image_id == result.image_id
    for tag in tags:
        image = fields.mapping(engine.call_json("GET", f"/images/{tag}/json", doing="inspect"))
        assert image["Id"] == result.image_id
        config = fields.mapping(image["Config"])
        assert fields.text_mapping(config["Labels"])["who"] == "me"
    output = [e.text for e in events if isinstance(e, StepLog)]
    assert "[x y]" in output
    assert any("10.9.8.7" in line and "h.test" in line for line in output)


def test_target_stage(workshop: Workshop, engine: Engine) -> None:
    with workshop.session("RUN echo one\nFROM scratch AS two\nFROM missing-stage.invalid/x") as session:
        with pytest.raises(BaseUnavailable) as failed:
            build(engine, session, BuildRequest())
        assert "missing-stage.invalid/x" in failed.value.message
    with workshop.session("RUN echo one > /one") as session:
        assert build(engine, session, BuildRequest()).image_id.startswith("sha256:")


def test_unchanged_context_is_not_sent_again(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(300_000))
    (tmp_path / "small").write_bytes(b"12345")
    key = shared_key_for(tmp_path)
    sent = []
    for _ in range(2):
        tree = FileTree()
        tree.add_directory(".", tmp_path)
        tree.add_bytes("made", b"here")
        with workshop.session("COPY . /c", context=tree, key=key) as session:
            build(workshop.engine, session, BuildRequest())
            sent.append((session.sent.bytes_sent, session.sent.files_sent, session.sent.listings > 0))
    assert sent == [(300_009, 3, True), (0, 0, True)]


def test_changed_bytes_of_the_same_size_are_sent_again(workshop: Workshop) -> None:
    body = "COPY f /f\nRUN cat /f"
    key = uuid.uuid4().hex
    for content in (b"first\n", b"other\n"):
        tree = FileTree()
        tree.add_bytes("f", content)
        workshop.build(body, context=tree, key=key)
    assert workshop.output == ["first", "other"]


def test_concurrent_builds_take_the_context_once(workshop: Workshop, engine: Engine) -> None:
    tree = FileTree()
    tree.add_bytes("data", os.urandom(2_000_000))
    names = [f"Dockerfile.{n}" for n in range(4)]
    bodies = {name: f"COPY . /c\nRUN echo {name}" for name in names}
    with (
        workshop.session(bodies, context=tree) as session,
        ThreadPoolExecutor(len(names)) as pool,
    ):
        results = list(pool.map(lambda n: build(engine, session, BuildRequest(dockerfile=n)), names))
        assert session.sent.bytes_sent == 2_000_000
        assert session.sent.files_sent == 1
        assert session.errors == ()
    assert len({r.image_id for r in results}) == 4


def test_dockerignore_and_followed_paths(workshop: Workshop) -> None:
    tree = FileTree()
    for name in ("keep/a", "keep/b.log", "drop/c", "drop/back", "big.bin"):
        tree.add_bytes(name, name.encode())
    tree.add_bytes(".dockerignore", b"# comment\ndrop/*\n!drop/back\n**/*.log\nbig.bin\n")
    workshop.build("COPY . /c\nRUN cd /c && find . -type f | sort", context=tree)
    assert workshop.output == ["./.dockerignore", "./drop/back", "./keep/a"]


def test_long_dockerignore(workshop: Workshop) -> None:
    tree = FileTree()
    patterns = "".join(f"no/such/directory/of/any/length/{n:06}\n" for n in range(4000))
    tree.add_bytes(".dockerignore", patterns.encode() + b"f\n")
    tree.add_bytes("f", b"f")
    tree.add_bytes("g", b"g")
    workshop.build("COPY . /c\nRUN ls /c", context=tree)
    assert workshop.output == ["g"]


def test_names_that_are_not_ascii(workshop: Workshop) -> None:
    tree = FileTree()
    tree.add_bytes("dir with blank/naïve-文件", b"x")
    tree.add_bytes(".dockerignore", "über*\n".encode())
    tree.add_bytes("überflüssig", b"x")
    workshop.build('COPY ["dir with blank", "/c/"]\nCOPY . /d\nRUN cd /c && echo * && cd /d && echo *', context=tree)
    assert workshop.output == ["naïve-文件", "dir with blank"]


def test_modes_links_and_empty_directories_arrive(workshop: Workshop, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text(CANARY)
    source = tmp_path / "c"
    (source / "empty").mkdir(parents=True)
    (source / "script").write_bytes(b"#!/bin/sh\n")
    (source / "script").chmod(0o750)
    (source / "setuid").write_bytes(b"")
    (source / "setuid").chmod(0o4755)
    (source / "none").write_bytes(b"")
    (source / "sticky").mkdir()
    (source / "sticky").chmod(0o1777)
    (source / "inside").symlink_to("script")
    (source / "away").symlink_to(outside)
    (source / "broken").symlink_to("nowhere")
    os.mkfifo(source / "pipe")
    tree = FileTree()
    tree.add_directory(".", source)
    links = "for l in inside away broken; do readlink $l; done"
    workshop.build(f"COPY . /c\nRUN cd /c && stat -c '%n %a %F %u:%g' * && {links}", context=tree)
    # Whether COPY takes a FIFO along is the engine's business (20.10 does not); that it is never opened is ours.
    assert [line for line in workshop.output if not line.startswith("pipe ")] == [
        "away 777 symbolic link 0:0",
        "broken 777 symbolic link 0:0",
        "empty 755 directory 0:0",
        "inside 777 symbolic link 0:0",
        "none 644 regular empty file 0:0",
        "script 750 regular file 0:0",
        "setuid 4755 regular empty file 0:0",
        "sticky 1777 directory 0:0",
        "script",
        str(outside),
        "nowhere",
    ]


def test_unreadable_context_is_named(workshop: Workshop, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.write_bytes(b"x" * 10)
    tree = FileTree()
    tree.add_file("data", gone)

    class Vanishing(FileTree):
        def entries(self, **limits: Sequence[str]) -> Iterator[Entry]:
            listed = list(tree.entries(**limits))
            if any(entry.path == "data" for entry in listed):
                gone.unlink()
            yield from listed

    with pytest.raises(BuildFailed, match="cannot read data of the context: No such file"):
        workshop.build("COPY . /c", context=Vanishing())
    gone.write_bytes(workshop.unique.encode())
    assert workshop.build("COPY . /c", context=tree).steps_run == 1


def test_step_that_fails_while_the_context_is_sent_is_what_is_told(workshop: Workshop) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Slow(Entry):
        def chunks(self) -> Iterator[bytes]:
            for chunk in super().chunks():
                time.sleep(0.05)
                yield chunk

    class SlowTree(FileTree):
        def entries(self, **limits: Sequence[str]) -> Iterator[Entry]:
            return (Slow(**vars(entry)) for entry in super().entries(**limits))

    # Twenty seconds, of which the failure of the other stage leaves most unsent.
    tree = SlowTree()
    tree.add_bytes("data", os.urandom(400 * CHUNK))
    body = f"RUN echo broken; exit 7\nFROM {workshop.base}\nCOPY --from=0 /x /x\nCOPY data /data"
    with workshop.session(body, context=tree) as session:
        with pytest.raises(BuildFailed, match="exit code 7") as failed:
            build(workshop.engine, session, BuildRequest())
        assert failed.value.hint == ""
        assert session.errors == ()
        assert 0 < session.sent.bytes_sent < 400 * CHUNK


def test_secret_there_and_absent(workshop: Workshop) -> None:
    mounts = "RUN --mount=type=secret,id={},required=false "
    body = mounts.format("absent") + "ls /run/secrets/absent || echo absent\n"
    body += mounts.format("word") + "wc -c < /run/secrets/word\n"
    body += mounts.format("late") + "wc -c < /run/secrets/late"
    called: list[int] = []

    def late() -> bytes:
        called.append(1)
        return b"late!"

    workshop.build(body, secrets={"word": b"1234567", "late": late, "unused": _never})
    assert "absent" in workshop.output
    assert workshop.output[-2:] == ["7", "5"]
    assert called == [1]


def _never() -> bytes:
    raise AssertionError("nobody asks for this secret")


def test_missing_secret_that_is_required(workshop: Workshop) -> None:
    with pytest.raises(BuildFailed, match="nosuch"):
        workshop.build("RUN --mount=type=secret,id=nosuch,required=true true")


def test_secret_that_cannot_be_had(workshop: Workshop) -> None:
    def broken() -> bytes:
        raise ContextError("the vault is sealed")

    with pytest.raises(BuildFailed, match="the vault is sealed"):
        workshop.build("RUN --mount=type=secret,id=v true", secrets={"v": broken})


def test_too_large_secret(workshop: Workshop) -> None:
    with pytest.raises(ContextError, match="'big' is larger"):
        workshop.session("", secrets={"big": b"x" * 600_000})


def test_secret_leaves_no_trace(workshop: Workshop, engine: Engine) -> None:
    body = (
        "RUN --mount=type=secret,id=word cat /run/secrets/word && sha256sum /run/secrets/word > /sum\n"
        "RUN echo visible > /visible"
    )
    result = workshop.build(body, secrets={"word": CANARY.encode()})
    # The step did see it, and said it aloud.
    assert "***" in workshop.output
    assert CANARY not in repr(workshop.events)
    history = engine.call("GET", f"/images/{result.image_id}/history", doing="read history").text
    inspected = engine.call("GET", f"/images/{result.image_id}/json", doing="inspect").text
    assert CANARY not in history + inspected
    saved = engine.call("GET", f"/images/{result.image_id}/get", doing="save").content
    layers = _all_files(saved)
    assert any(b"visible\n" in content for content in layers)
    assert not any(CANARY.encode() in content for content in layers)


def _all_files(archive: bytes) -> list[bytes]:
    found: list[bytes] = []
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is None:
                continue
            content = file.read()
            found.append(content)
            if member.name.endswith(".tar") or "/blobs/" in f"/{member.name}":
                try:
                    found += _all_files(content)
                except tarfile.ReadError:
                    continue
    return found


def test_secret_in_a_failing_step_is_not_in_the_error(workshop: Workshop) -> None:
    body = "RUN --mount=type=secret,id=word cat /run/secrets/word; echo; false"
    with pytest.raises(BuildFailed) as failed:
        workshop.build(body, secrets={"word": CANARY.encode()})
    assert failed.value.step is not None
    assert failed.value.step.log == ("***",)
    assert CANARY not in f"{failed.value} {failed.value.step}"


def test_failing_step_is_named_with_its_lines_and_log(workshop: Workshop) -> None:
    body = (
        "# a comment\nRUN echo fine\n\nRUN echo one; \\\n    # in between\n    seq 1 40; \\\n    exit 3\nRUN echo never"
    )
    with pytest.raises(BuildFailed) as failed:
        workshop.build(body)
    step = failed.value.step
    assert step is not None
    assert step.name.startswith("[3/4] RUN echo one;")
    assert step.lines == (6, 9)
    assert step.exit_code == 3
    assert step.log == tuple(str(n) for n in range(11, 41))
    assert "lines 6-9" in failed.value.message


def test_dockerfile_that_does_not_parse(workshop: Workshop) -> None:
    with pytest.raises(BuildFailed, match="unknown instruction: FOO"):
        workshop.build("FOO bar")


def test_full_file_system_in_memory_is_not_the_engines_disk(workshop: Workshop) -> None:
    with pytest.raises(BuildFailed) as failed:
        workshop.build("RUN dd if=/dev/zero of=/dev/shm/x bs=1M count=100")
    assert "file system in memory" in failed.value.hint
    assert any("No space left on device" in line for line in failed.value.step.log)  # type: ignore[union-attr]


def test_full_disk_under_a_step_is_the_engines(workshop: Workshop) -> None:
    # What a tool prints when the layer it writes to is full; filling this machine's disk is no option.
    with pytest.raises(DiskFull, match="the engine's disk is full") as failed:
        workshop.build("RUN echo 'write error: No space left on device' >&2; exit 1")
    assert "prune" in failed.value.hint


def test_cancel_stops_the_step(workshop: Workshop, engine: Engine) -> None:
    assert _goes_on_after(workshop, engine, lambda cancel, _: cancel.set()) is False


def test_interrupt_stops_the_step(workshop: Workshop, engine: Engine) -> None:
    """A handler of events that raises, as KeyboardInterrupt does, must not leave the build running either."""

    def interrupt(_: threading.Event, event: Event) -> None:
        raise KeyboardInterrupt

    assert _goes_on_after(workshop, engine, interrupt) is False


def _goes_on_after(workshop: Workshop, engine: Engine, end: Callable[[threading.Event, Event], None]) -> bool:
    """Whether a step that counts goes on counting after the build was ended."""
    mount = f"RUN --mount=type=cache,id={workshop.unique},target=/c "
    # Never half written: the step is killed at any point.
    step = "i=$((i+1)); echo $i > /c/next; mv /c/next /c/n; sleep 0.05"
    count = mount + f"i=0; echo 0 > /c/n; echo started; while true; do {step}; done"
    look = mount + "a=$(cat /c/n); sleep 0.5; b=$(cat /c/n); echo counted $a; test $a = $b || echo goes on"
    cancel = threading.Event()
    heard: list[float] = []

    def on_event(event: Event) -> None:
        if isinstance(event, StepLog) and event.text == "started":
            time.sleep(0.3)
            heard.append(time.monotonic())
            end(cancel, event)

    with workshop.session({"count": count, "look": look}) as session:
        with pytest.raises((BuildCancelled, KeyboardInterrupt)):
            build(engine, session, BuildRequest(dockerfile="count"), on_event=on_event, cancel=cancel)
        assert time.monotonic() - heard[0] < 3
        build(engine, session, BuildRequest(dockerfile="look"), on_event=workshop.events.append)
    assert any(line.startswith("counted ") for line in workshop.output)
    return "goes on" in workshop.output


def test_cancelled_before_it_begins(workshop: Workshop, engine: Engine) -> None:
    cancel = threading.Event()
    cancel.set()
    with workshop.session("") as session, pytest.raises(BuildCancelled):
        build(engine, session, BuildRequest(), cancel=cancel)


def test_silent_step_is_given_up(workshop: Workshop) -> None:
    began = time.monotonic()
    with pytest.raises(BuildStalled) as stalled:
        # A loaded machine takes seconds to start a step, and says nothing meanwhile.
        workshop.build("RUN echo last words; sleep 300", idle_timeout=6)
    assert time.monotonic() - began < 60
    assert stalled.value.step is not None
    assert stalled.value.step.log == ("last words",)


def test_talkative_step_is_not_given_up(workshop: Workshop) -> None:
    # Longer than the idle timeout in all, but never silent for as long.
    workshop.build("RUN for i in 1 2 3 4 5 6; do echo $i; sleep 0.5; done", idle_timeout=2.5)
    assert workshop.output[-1] == "6"


def test_no_cache(workshop: Workshop, engine: Engine) -> None:
    with workshop.session("RUN echo again") as session:
        runs = [build(engine, session, BuildRequest(no_cache=flag)).steps_run for flag in (False, False, True)]
    assert runs == [1, 0, 1]


def test_closed_session_fails_the_build(workshop: Workshop, engine: Engine) -> None:
    session = workshop.session("RUN true")
    before = session.is_open
    session.close()
    assert (before, session.is_open) == (True, False)
    with pytest.raises(EngineUnavailable, match="session is closed"):
        build(engine, session, BuildRequest(), idle_timeout=30)


def test_sessions_leave_no_thread(workshop: Workshop, engine: Engine) -> None:
    for _ in range(5):
        with workshop.session("RUN true") as session:
            build(engine, session, BuildRequest())
    names = [thread.name for thread in threading.enumerate()]
    assert "buildkit-session" not in names
    assert "build-stream" not in names


class Registry(http.server.BaseHTTPRequestHandler):
    """Refuses everybody, and remembers what they showed."""

    shown: ClassVar[list[str]] = []

    # Engines try HTTPS first, and go on to HTTP when the answer to that begins as HTTP does.
    default_request_version = "HTTP/1.0"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.shown.append(self.headers.get("Authorization", ""))
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="test"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET


def test_logins_reach_the_registry_of_from(workshop: Workshop, engine: Engine) -> None:
    if engine.address.scheme != "unix":
        pytest.skip("the engine is on another machine and cannot reach a registry on this one")
    asked: list[str] = []

    class Logins:
        def credentials(self, host: str) -> Credentials | None:
            asked.append(host)
            return Credentials(username="u", secret=CANARY)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        tree = FileTree()
        tree.add_bytes("Dockerfile", f"FROM {host}/none/such:1\n".encode())
        with (
            Session.open(
                engine,
                context=FileTree(),
                dockerfiles=tree,
                credentials=Logins(),
                shared_key=workshop.unique,
            ) as session,
            pytest.raises(BaseUnavailable, match="none/such:1 is not available") as failed,
        ):
            build(engine, session, BuildRequest())
        server.shutdown()
    assert set(asked) == {host}
    assert "Basic " + base64.b64encode(f"u:{CANARY}".encode()).decode() in Registry.shown
    assert CANARY not in f"{failed.value} {failed.value.__dict__}"
