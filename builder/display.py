"""What several builds at once do, told to people (a live view, or plain lines) and to programs (JSON lines).

It knows labels and events, and writes to one stream. In the live view every build has one line, drawn over as it
comes on; what has ended is written above and stays.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Literal, TextIO

from builder.engine.trace import (
    BuildWarning,
    Event,
    StepFinished,
    StepLog,
    StepProgress,
    StepStarted,
)

Mode = Literal["auto", "plain", "json"]

_REDRAW = 0.1
"""Seconds between two drawings of the live view."""

_SLOW = 1.0
"""Seconds from which a step of BuildKit's own is worth a plain line."""

_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PLACE = re.compile(r"\[([^\]]+)\] ?")
_EVENT_NAMES: Mapping[type, str] = {
    StepStarted: "step-started",
    StepLog: "step-log",
    StepProgress: "step-progress",
    StepFinished: "step-finished",
    BuildWarning: "warning",
}


@dataclass
class _Build:
    label: str
    began: float
    running: dict[str, str] = field(default_factory=dict)
    said: str = ""


class Display:
    """Writes the events of builds. Safe to use from several threads; use it as a context manager.

    Args:
        mode: `auto` is the live view on a terminal and plain lines elsewhere, and where the environment says CI, or
            TERM=dumb.
        stream: standard error when None.
        environ: the environment.
    """

    def __init__(
        self,
        mode: Mode = "auto",
        *,
        stream: TextIO | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._json = mode == "json"
        self.live = mode == "auto" and _is_terminal(self._stream, environ)
        self._lock = threading.RLock()
        self._builds: dict[str, _Build] = {}
        self._tellers: dict[str, str] = {}
        self._drawn = 0
        self._last_drawing = 0.0
        self._stopped = threading.Event()
        self._ticker: threading.Thread | None = None

    def __enter__(self) -> Display:
        if self.live:
            self._ticker = threading.Thread(target=self._tick, name="display", daemon=True)
            self._ticker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        if self._ticker is not None:
            self._ticker.join()
        with self._lock:
            self._erase()
            self._stream.flush()

    def begin(self, label: str) -> Callable[[Event], None]:
        """Announces a build; returns what to tell its events to."""
        with self._lock:
            self._builds[label] = _Build(label, time.monotonic())
            if self._json:
                self._write_json(label, "begin", {})
            elif self.live:
                self._draw()
        return lambda event: self.event(label, event)

    def event(self, label: str, event: Event) -> None:
        """Shows an event of a build."""
        with self._lock:
            if self._json:
                self._write_json(label, _EVENT_NAMES[type(event)], asdict(event))
                return
            build = self._builds.setdefault(label, _Build(label, time.monotonic()))
            self._note(build, event)
            if self.live:
                self._draw()
            else:
                for line in self._plain(label, event):
                    self._write(f"{label} | {line}")

    def end(self, label: str, outcome: str, *, ok: bool) -> None:
        """Says how a build, or what was done after it under its label, ended.

        Args:
            outcome: a few words, such as `built sha256:…` or `a step failed`.
        """
        with self._lock:
            build = self._builds.pop(label, None)
            seconds = time.monotonic() - build.began if build else 0.0
            # Other builds that share a step with this one go on telling what it writes.
            self._tellers = {step: who for step, who in self._tellers.items() if who != label}
            if self._json:
                fields = {"ok": ok, "outcome": outcome, "seconds": round(seconds, 3)}
                self._write_json(label, "end", fields)
                return
            mark = "done" if ok else "FAILED"
            self._write(f"{label} | {mark} in {duration(seconds)}: {_clean(outcome)}")

    def note(self, label: str, text: str) -> None:
        """Shows a line about something else than a build's events."""
        with self._lock:
            if self._json:
                self._write_json(label, "note", {"text": text})
            else:
                self._write(f"{label} | {_clean(text)}")

    def _note(self, build: _Build, event: Event) -> None:
        """Keeps what the live line of a build shows."""
        if isinstance(event, StepStarted):
            build.running[event.step] = event.name
            build.said = ""
        elif isinstance(event, StepLog):
            build.said = event.text.strip() or build.said
        elif isinstance(event, StepProgress):
            build.said = f"{event.what} {amount(event.current, event.total)}"
        elif isinstance(event, StepFinished):
            build.running.pop(event.step, None)

    def _plain(self, label: str, event: Event) -> list[str]:
        name = _clean(event.name)
        match = _PLACE.match(name)
        place = match[0].strip() if match else name
        if isinstance(event, StepStarted):
            return [name] if event.instruction else []
        if isinstance(event, StepLog):
            # Builds that share a step all hear of it; the first one tells.
            told_by = self._tellers.setdefault(event.step, label)
            return [f"{place} {_clean(event.text)}"] if told_by == label else []
        if isinstance(event, BuildWarning):
            return [f"warning: {_clean(event.message)}"]
        if isinstance(event, StepFinished):
            title = place if event.instruction else name
            if event.cancelled:
                return [f"{title} cancelled after {duration(event.seconds)}"]
            if event.error:
                return [f"{title} failed after {duration(event.seconds)}: {_clean(event.error)}"]
            if not event.instruction:
                return [f"{name} in {duration(event.seconds)}"] if event.seconds >= _SLOW else []
            return [f"{title} " + ("cached" if event.cached else f"in {duration(event.seconds)}")]
        return []

    def _write_json(self, label: str, event: str, fields: Mapping[str, object]) -> None:
        line = {"label": label, "event": event, "time": round(time.time(), 3), **fields}
        self._stream.write(json.dumps(line, ensure_ascii=True) + "\n")
        self._stream.flush()

    def _write(self, line: str) -> None:
        self._erase()
        self._stream.write(_printable(line, self._stream) + "\n")
        if self.live:
            self._draw(now=True)
        self._stream.flush()

    def _tick(self) -> None:
        while not self._stopped.wait(_REDRAW):
            with self._lock:
                self._draw(now=True)

    def _draw(self, *, now: bool = False) -> None:
        moment = time.monotonic()
        if not now and moment - self._last_drawing < _REDRAW:
            return
        self._last_drawing = moment
        width, height = shutil.get_terminal_size()
        # The last line of the screen stays free, or the terminal scrolls and the erasing misses.
        shown = list(self._builds.values())
        room = max(1, height - 2)
        lines = [_live_line(build, moment, width - 1) for build in shown[:room]]
        if len(shown) > room:
            lines[-1] = f"... and {len(shown) - room + 1} more"
        self._erase()
        self._stream.write("".join(_printable(line, self._stream) + "\n" for line in lines))
        self._drawn = len(lines)
        self._stream.flush()

    def _erase(self) -> None:
        if self._drawn:
            self._stream.write(f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0


def duration(seconds: float) -> str:
    """Seconds as people read them: `0.4 s`, `3 min 05 s`, `1 h 02 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def amount(current: int, total: int) -> str:
    """Bytes as people read them: `3.1 MB`, or `3.1 of 8.0 MB` when the total is known."""
    unit, size = "B", 1
    for name, bytes_ in (("kB", 10**3), ("MB", 10**6), ("GB", 10**9)):
        if max(current, total) >= bytes_:
            unit, size = name, bytes_
    digits = 0 if size == 1 else 1
    if total:
        return f"{current / size:.{digits}f} of {total / size:.{digits}f} {unit}"
    return f"{current / size:.{digits}f} {unit}"


def _is_terminal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    return stream.isatty() and not environ.get("CI") and environ.get("TERM", "dumb") != "dumb"


def _clean(text: str) -> str:
    """Text on one line, without what would move the cursor or colour the rest of the screen."""
    return _CONTROL.sub("", text.replace("\t", " ").replace("\n", " "))


def _printable(line: str, stream: TextIO) -> str:
    """The line in what the stream's encoding can say: a C locale must not end a build."""
    encoding = stream.encoding or "utf-8"
    return line.encode(encoding, "replace").decode(encoding)


def _live_line(build: _Build, moment: float, width: int) -> str:
    text = f"{build.label} {duration(moment - build.began)}"
    if build.running:
        *others, name = build.running.values()
        text += f" {name}" + (f" (and {len(others)} more)" if others else "")
    if build.said:
        text += f" | {build.said}"
    return _cut(_clean(text), width)


def _cut(text: str, width: int) -> str:
    """The text cut to a number of terminal cells; East Asian characters take two, combining ones none."""
    used = 0
    for index, char in enumerate(text):
        if not unicodedata.combining(char):
            used += 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if used > width:
            return text[: max(0, index - 3)] + "..."
    return text
