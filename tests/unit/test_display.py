from __future__ import annotations

import io
import json
import threading

import pytest

from builder.display import Display, amount, duration
from builder.engine.trace import BuildWarning, Event, StepFinished, StepLog, StepProgress, StepStarted

RUN = "[stage 2/3] RUN make"
TERMINAL = {"TERM": "xterm"}


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """What one would see: the text with the erasing carried out."""
        lines: list[str] = []
        for part in self.getvalue().replace("\x1b[J", "").split("\n"):
            text = part
            while text.startswith("\x1b["):
                count, _, text = text[2:].partition("F")
                del lines[len(lines) - int(count) :]
            lines.append(text)
        return [line for line in lines if line]


def started(name: str = RUN, step: str = "d") -> StepStarted:
    return StepStarted(step=step, name=name)


def said(text: str, step: str = "d") -> StepLog:
    return StepLog(step=step, name=RUN, stream=1, text=text)


def finished(name: str = RUN, *, seconds: float = 3.21, cached: bool = False, error: str = "") -> StepFinished:
    return StepFinished(step="d", name=name, seconds=seconds, cached=cached, error=error)


def plain(*events: Event) -> list[str]:
    stream = io.StringIO()
    with Display("plain", stream=stream) as display:
        tell = display.begin("cell")
        for event in events:
            tell(event)
    return stream.getvalue().splitlines()


def test_plain_lines_carry_label_step_and_duration() -> None:
    assert plain(started(), said("cc x.c"), finished()) == [
        "cell | [stage 2/3] RUN make",
        "cell | [stage 2/3] cc x.c",
        "cell | [stage 2/3] in 3.2 s",
    ]


def test_plain_tells_cached_failed_cancelled_and_warnings_apart() -> None:
    assert plain(
        finished(cached=True),
        finished(error="exit code: 2"),
        finished(error="context canceled"),
        BuildWarning(step="d", name=RUN, message="old style", detail="", url=""),
    ) == [
        "cell | [stage 2/3] cached",
        "cell | [stage 2/3] failed after 3.2 s: exit code: 2",
        "cell | [stage 2/3] cancelled after 3.2 s",
        "cell | warning: old style",
    ]


def test_plain_leaves_out_quick_steps_of_buildkits_own() -> None:
    internal = "[internal] load build context"
    progress = StepProgress(step="d", name=internal, what="x", current=1, total=2, done=False)
    assert plain(started(internal), progress, finished(internal, seconds=0.1)) == []
    assert plain(finished(internal, seconds=12)) == ["cell | [internal] load build context in 12.0 s"]


def test_what_a_step_writes_cannot_move_the_cursor() -> None:
    lines = plain(said("\x1b[2J\x1b]0;title\x07red\x1b[31m\x08 a\tb"))
    assert lines == ["cell | [stage 2/3] red a b"]


def test_a_shared_step_is_told_once_and_passed_on() -> None:
    stream = io.StringIO()
    display = Display("plain", stream=stream)
    first, second = display.begin("one"), display.begin("two")
    first(said("a"))
    second(said("a"))
    display.end("one", "failed elsewhere", ok=False)
    second(said("b"))
    assert [line for line in stream.getvalue().splitlines() if "[stage" in line] == [
        "one | [stage 2/3] a",
        "two | [stage 2/3] b",
    ]


def test_the_end_says_how_and_how_long() -> None:
    stream = io.StringIO()
    display = Display("plain", stream=stream)
    display.begin("cell")
    display.end("cell", "built sha256:1", ok=True)
    display.begin("cell")
    display.end("cell", "a step failed", ok=False)
    good, bad = stream.getvalue().splitlines()
    assert good == "cell | done in 0.0 s: built sha256:1"
    assert bad == "cell | FAILED in 0.0 s: a step failed"


def test_json_lines() -> None:
    stream = io.StringIO()
    with Display("json", stream=stream) as display:
        tell = display.begin("cell")
        tell(said('a "b"\n\x1b[1m'))
        tell(finished())
        display.note("cell", "hm")
        display.end("cell", "built", ok=True)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["begin", "step-log", "step-finished", "note", "end"]
    assert {line["label"] for line in lines} == {"cell"}
    assert lines[1]["text"] == 'a "b"\n\x1b[1m'
    assert (lines[2]["name"], lines[2]["seconds"], lines[2]["cached"]) == (RUN, 3.21, False)
    assert lines[4]["ok"] is True


@pytest.mark.parametrize(
    ("environ", "live"),
    [(TERMINAL, True), ({**TERMINAL, "CI": "true"}, False), ({"TERM": "dumb"}, False), ({}, False)],
)
def test_live_only_where_it_can_be_seen(environ: dict[str, str], live: bool) -> None:
    assert Display(stream=Terminal(), environ=environ).live is live
    assert Display(stream=io.StringIO(), environ=environ).live is False
    assert Display("plain", stream=Terminal(), environ=environ).live is False


def test_live_view_draws_one_line_per_build_and_erases_it() -> None:
    stream = Terminal()
    with Display(stream=stream, environ=TERMINAL) as display:
        for label in ("one", "two"):
            display.begin(label)(started())
            display.event(label, said("compiling"))
        display.note("one", "hello")
        middle = stream.screen()
        display.end("one", "built", ok=True)
        display.end("two", "broken", ok=False)
    assert middle[0] == "one | hello"
    assert [line.split()[0] for line in middle[1:]] == ["one", "two"]
    assert all("[stage 2/3] RUN make | compiling" in line for line in middle[1:])
    assert [line.split(" in ")[0] for line in stream.screen()] == ["one | hello", "one | done", "two | FAILED"]


def test_live_lines_fit_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "5")
    stream = Terminal()
    display = Display(stream=stream, environ=TERMINAL)
    for n in range(9):
        display.begin(f"cell-{n}")(started(RUN + " 漢字" * 50))
    display.note("x", "y")
    drawn = stream.screen()[1:]
    assert len(drawn) == 3
    assert drawn[-1] == "... and 7 more"
    for line in drawn:
        assert sum(2 if ord(c) > 0x2E80 else 1 for c in line) < 40


def test_characters_that_the_stream_cannot_write() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Display("plain", stream=stream).note("cell", "naïve")
    assert raw.getvalue() == b"cell | na?ve\n"


def test_many_threads_write_whole_lines() -> None:
    stream = io.StringIO()
    display = Display("json", stream=stream)

    def work(label: str) -> None:
        tell = display.begin(label)
        for _ in range(200):
            tell(said("x" * 100))

    threads = [threading.Thread(target=work, args=(f"c{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([json.loads(line) for line in stream.getvalue().splitlines()]) == 8 * 201


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (59.99, "1 min 00 s"), (185, "3 min 05 s"), (3725, "1 h 02 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("current", "total", "text"), [(5, 0, "5 B"), (1500, 0, "1.5 kB"), (3_100_000, 8_000_000, "3.1 of 8.0 MB")]
)
def test_amount(current: int, total: int, text: str) -> None:
    assert amount(current, total) == text
