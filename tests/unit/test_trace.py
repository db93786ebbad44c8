from __future__ import annotations

import base64

import pytest

from builder.engine import wire
from builder.engine.dockerfile import lines_of_step
from builder.engine.errors import BaseUnavailable, BuildFailed, ContextError, DiskFull, RegistryError
from builder.engine.failure import LOG_LINES, Record, failure, is_transient, lost_layer
from builder.engine.redact import Redactor
from builder.engine.trace import (
    BuildWarning,
    Event,
    StepFinished,
    StepLog,
    StepProgress,
    StepStarted,
    TraceDecoder,
)


def time_of(seconds: float) -> bytes:
    return wire.integer(1, int(seconds)) + wire.integer(2, int(seconds % 1 * 1e9))


def vertex(
    digest: str,
    name: str,
    *,
    started: float | None = None,
    completed: float | None = None,
    cached: bool = False,
    error: str = "",
) -> bytes:
    message = wire.data(1, digest.encode()) + wire.data(3, name.encode()) + wire.integer(4, int(cached))
    message += wire.submessage(5, time_of(started)) if started is not None else b""
    message += wire.submessage(6, time_of(completed)) if completed is not None else b""
    return wire.submessage(1, message + wire.data(7, error.encode()))


def log(digest: str, data: bytes, stream: int = 1) -> bytes:
    return wire.submessage(3, wire.data(1, digest.encode()) + wire.integer(3, stream) + wire.data(4, data))


def decode(*messages: bytes) -> list[Event]:
    decoder = TraceDecoder()
    events = [e for m in messages for e in decoder.decode(base64.b64encode(m).decode())]
    return events + decoder.finish()


NAME = "[stage 2/3] RUN make"


def test_a_step_begins_once_and_ends_with_its_duration() -> None:
    events = decode(
        vertex("d", NAME),
        vertex("d", NAME, started=100.5),
        vertex("d", NAME, started=100.5),
        vertex("d", NAME, started=100.5, completed=103.25),
        vertex("d", NAME, started=100.5, completed=103.25),
    )
    assert events == [
        StepStarted(step="d", name=NAME),
        StepFinished(step="d", name=NAME, seconds=2.75, cached=False, error=""),
    ]
    assert events[0].instruction == "RUN make"


def test_a_step_found_cached_afterwards() -> None:
    events = decode(
        vertex("d", NAME, started=1, completed=1),
        vertex("d", NAME, started=1, completed=1, cached=True),
    )
    assert [e.cached for e in events if isinstance(e, StepFinished)] == [False, True]


def test_lines_are_put_together_from_pieces() -> None:
    euro = "€\n".encode()
    events = decode(
        vertex("d", NAME, started=1),
        log("d", b"one\ntw"),
        log("d", b"err", stream=2),
        log("d", b"o\n" + euro[:1]),
        log("d", euro[1:]),
        log("d", b"10%\r50%\r100%\r\n"),
        log("d", b"unfinished\xff"),
        vertex("d", NAME, started=1, completed=2),
    )
    lines = [(e.stream, e.text) for e in events if isinstance(e, StepLog)]
    assert lines == [(1, "one"), (1, "two"), (1, "€"), (1, "100%"), (1, "unfinished\ufffd"), (2, "err")]
    assert isinstance(events[-1], StepFinished)


def test_the_last_lines_come_before_the_end_also_in_one_message() -> None:
    events = decode(vertex("d", NAME, started=1, completed=2) + log("d", b"last words"))
    assert [type(e) for e in events] == [StepStarted, StepLog, StepFinished]


def test_a_line_without_end_does_not_grow_for_ever() -> None:
    events = decode(*[log("d", b"x" * 10_000) for _ in range(4)])
    assert [len(e.text) for e in events if isinstance(e, StepLog)] == [20_000, 20_000]


def test_progress_and_warnings() -> None:
    status = wire.data(1, b"transferring context:") + wire.data(2, b"d") + wire.integer(4, 5) + wire.integer(5, 9)
    warning = wire.data(1, b"d") + wire.data(3, b"short") + wire.data(4, b"a") + wire.data(4, b"b")
    events = decode(vertex("d", NAME), wire.submessage(2, status), wire.submessage(4, warning))
    assert events == [
        StepProgress(step="d", name=NAME, what="transferring context:", current=5, total=9, done=False),
        BuildWarning(step="d", name=NAME, message="short", detail="a\nb", url=""),
    ]


@pytest.mark.parametrize("broken", ["!!!", base64.b64encode(b"\x0a\x05ab").decode(), "aGFsZ", "\u00e9"])
def test_what_is_no_trace_is_refused(broken: str) -> None:
    with pytest.raises(wire.WireError):
        TraceDecoder().decode(broken)


DOCKERFILE = """\
# escape=\\
ARG BASE=x
FROM ${BASE} AS first
ENV A=b
RUN one && \\
    # a comment

    two
COPY a b

FROM first
WORKDIR /w
RUN same
RUN same
RUN <<EOF
RUN inside
EOF
run --mount=type=tmpfs,target=/t \\
    $VARIABLE
"""


@pytest.mark.parametrize(
    ("step", "lines"),
    [
        ("[first 1/3] FROM docker.io/library/x", (3, 3)),
        ("[first 2/3] RUN one &&     two", (5, 8)),
        ("[first 3/3] COPY a b", (9, 9)),
        ("[stage-1 1/5] WORKDIR /w", (12, 12)),
        ("[stage-1 2/5] RUN same", (13, 13)),
        ("[stage-1 3/5] RUN same", (14, 14)),
        ("[stage-1 4/5] RUN <<EOF (RUN inside)", (15, 17)),
        ("[stage-1 5/5] RUN --mount=type=tmpfs,target=/t     expanded", (18, 19)),
        ("[linux/amd64 stage-1 5/5] RUN --mount=type=tmpfs,target=/t     expanded", (18, 19)),
        ("[stage-1  5/15] RUN other", None),
        ("[stage-9 2/5] RUN same", None),
        ("[stage-1 2/5] COPY same same", None),
        ("[internal] load build context", None),
        ("exporting to image", None),
    ],
)
def test_lines_of_a_step(step: str, lines: tuple[int, int] | None) -> None:
    assert lines_of_step(DOCKERFILE, step) == lines


def test_lines_with_another_escape_character() -> None:
    text = "# escape=`\nFROM x\nRUN a `\n b\nRUN c\\\nRUN d\n"
    assert lines_of_step(text, "[2/4] RUN a   b") == (3, 4)
    assert lines_of_step(text, "[4/4] RUN d") == (6, 6)


def record_of(*messages: bytes, secrets: tuple[bytes, ...] = ()) -> Record:
    redact = Redactor()
    for secret in secrets:
        redact.learn(secret)
    record = Record(redact, "FROM x\nRUN make\n")
    for event in decode(*messages):
        record.add(event)
    return record


def failing(command: str, *lines: str, error: str = "exit code: 2") -> Record:
    name = f"[2/2] {command}"
    text = "".join(f"{line}\n" for line in lines).encode()
    return record_of(log("d", text), vertex("d", name, started=1, completed=2, error=error))


def test_the_failed_step_is_the_one_that_was_not_stopped() -> None:
    record = record_of(
        vertex("a", "[a 2/2] RUN a", started=1, completed=2, error="context canceled"),
        vertex("b", "[2/2] RUN make", started=1, completed=2, error="executor failed: exit code: 7"),
    )
    error = failure("failed to solve: x", record)
    assert isinstance(error, BuildFailed)
    assert error.step is not None
    assert (error.step.command, error.step.lines, error.step.exit_code) == ("RUN make", (2, 2), 7)
    assert error.message == "line 2 of the Dockerfile, 'RUN make', ended with exit code 7"


def test_only_the_last_lines_are_kept() -> None:
    error = failure("x", failing("RUN make", *map(str, range(100))))
    assert isinstance(error, BuildFailed)
    assert error.step is not None
    assert error.step.log == tuple(map(str, range(100 - LOG_LINES, 100)))


@pytest.mark.parametrize(
    ("command", "line", "kind"),
    [
        ("RUN pip install x", "OSError: [Errno 28] No space left on device", DiskFull),
        ("RUN --mount=type=tmpfs,target=/t make", "cp: No space left on device", BuildFailed),
        ("RUN make", "write /dev/shm/x: No space left on device", BuildFailed),
        ("RUN make", "inotify_add_watch: No space left on device", BuildFailed),
        ("RUN make", "there is space left", BuildFailed),
    ],
)
def test_whose_disk_is_full(command: str, line: str, kind: type[Exception]) -> None:
    assert type(failure("x", failing(command, line))) is kind


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (
            "fetch https://x.invalid/a: Connection refused",
            15,
            "could not reach https://x.invalid/a: Connection refused",
        ),
        ("dns error: Name or service not known", 15, "could not reach what it asked for: Name or service not known"),
        ("https://x.invalid/a: 404", 9, "ended with exit code"),
    ],
)
def test_what_a_step_could_not_reach_is_no_failure_of_the_image(line: str, code: int, said: str) -> None:
    error = failure("x", failing("RUN make", line))
    assert isinstance(error, BuildFailed)
    assert error.exit_code == code
    assert said in error.message


def test_the_engine_says_that_its_disk_is_full() -> None:
    message = "failed to solve: write /var/lib/docker/x: no space left on device"
    error = failure(message, record_of())
    assert isinstance(error, DiskFull)
    assert "docker builder prune" in error.hint


def test_a_base_that_cannot_be_had() -> None:
    name = "[internal] load metadata for docker.io/library/nope:1"
    record = record_of(vertex("m", name, started=1, completed=2, error="not found"))
    error = failure("failed to solve: not found", record)
    assert type(error) is BaseUnavailable
    assert error.message == "the base image docker.io/library/nope:1 is not available: not found"
    login = failure("x", record, (RegistryError("no such helper"),))
    assert type(login) is RegistryError


@pytest.mark.parametrize(
    ("step", "message", "own"),
    [
        ("[internal] load build context", "context canceled", True),
        ("[internal] load build definition from Dockerfile", "x", True),
        ("[internal] load .dockerignore", "x", True),
        ("[linux/amd64 internal] load build context", "x", True),
        ("[2/2] RUN make", "rpc error: code = Internal desc = cannot read a of the context", True),
        ("[2/2] RUN make", "process make did not complete: exit code: 2", False),
        ("[internal] load metadata for r.test/x:1", "not found", False),
    ],
)
def test_an_error_of_the_context_is_this_builds_or_another_cells(step: str, message: str, own: bool) -> None:
    record = record_of(vertex("d", step, started=1, completed=2, error="exit code: 2"))
    other = ContextError("cannot read b of the context", hint="b")
    error = failure(message, record, (other, ContextError("cannot read a of the context", hint="chmod a")))
    shown = str(error)
    assert ("cannot read" in shown) is own
    if "cannot read a" in message:
        assert (type(error), error.message, error.hint) == (BuildFailed, "cannot read a of the context", "chmod a")


def test_an_error_of_the_context_without_a_step_is_told_with_the_engines() -> None:
    error = failure("x", record_of(), (ContextError("cannot read a"),))
    assert type(error) is BuildFailed
    assert (error.message, error.hint) == ("the build failed: x", "cannot read a")


@pytest.mark.parametrize(
    ("message", "passing"),
    [
        ("ref abc123::xyz locked for 100ms: unavailable", True),
        ("runc run failed: read init-p: connection reset by peer", True),
        ("exit code: 1", False),
        ("connection reset by peer", False),
    ],
)
def test_errors_that_pass(message: str, passing: bool) -> None:
    assert is_transient(message) is passing


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        ("layer does not exist", True),
        ("failed to prepare abc: open /var/lib/docker/overlay2/x/committed: no such file or directory", True),
        ("open /src/committed: no such file or directory", False),
        ("exit code: 1", False),
    ],
)
def test_errors_of_a_build_cache_that_lost_a_layer(message: str, lost: bool) -> None:
    assert lost_layer(message) is lost


@pytest.mark.parametrize(("error", "process"), [("exit code: 1", True), ("layer does not exist", False)])
def test_a_steps_own_process_is_told_from_the_engine(error: str, process: bool) -> None:
    record = record_of(vertex("b", "[2/2] RUN b", started=1, completed=2, error=error))
    assert record.process_failed is process


def test_counts_leave_out_from_and_failures() -> None:
    record = record_of(
        vertex("f", "[1/4] FROM x", started=1, completed=1),
        vertex("a", "[2/4] COPY a b", started=1, completed=1, cached=True),
        vertex("b", "[3/4] RUN b", started=1, completed=2),
        vertex("c", "[4/4] RUN c", started=1, completed=2, error="exit code: 1"),
        vertex("i", "[internal] load build context", started=1, completed=2),
    )
    assert (record.steps_run, record.steps_cached) == (1, 1)


@pytest.mark.parametrize(
    ("secret", "said", "shown"),
    [
        (b"s3same!\n", "it is s3same!.", "it is ***."),
        (b"[global]\nindex-url = https://u:p4ssw0rd@h/simple\n", "p4ssw0rd at h", "*** at h"),
        (b"machine h login u password hunter22\n", "hunter22", "***"),
        (b"[global]\nindex-url = https://h/simple\n", "[global] https://h/simple", "[global] https://h/simple"),
        (b"no", "no way", "no way"),
        (b"", "a b", "a b"),
        (b"unrelated", "see https://me:open@h/x", "see https://***@h/x"),
        (b"export PIP_INDEX_URL=https://onlytoken@h/simple\n", "onlytoken at h", "*** at h"),
        (b"export X='https://u:p%40ssw0rd@h/s'\n", "p%40ssw0rd or p@ssw0rd", "*** or ***"),
        (b"export X=https://h/s?token=abcd1234\n", "abcd1234 at https://h/?token=other", "*** at https://h/?token=***"),
    ],
)
def test_redaction(secret: bytes, said: str, shown: str) -> None:
    redact = Redactor()
    redact.learn(secret)
    assert redact(said) == shown


def test_errors_are_redacted() -> None:
    name = "[2/2] RUN make TOKEN=abcdef"
    record = record_of(
        log("d", b"abcdef\n"),
        vertex("d", name, started=1, completed=2, error="process make TOKEN=abcdef failed"),
        secrets=(b"abcdef",),
    )
    error = failure("process make TOKEN=abcdef failed", record)
    assert isinstance(error, BuildFailed)
    assert "abcdef" not in f"{error} {error.step}"
    assert "***" in str(error)
