"""BuildKit's progress (`moby.buildkit.trace` messages of the build stream) as a sequence of events.

BuildKit repeats a step's state whenever it changes, and sends what a step writes in pieces of any size; here each
change is one event and each written line another.
"""

from __future__ import annotations

import base64
import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from builder.engine import wire

_INSTRUCTION = re.compile(r"\[(?:.+ )? *(?P<index>\d+)/(?P<total>\d+)\] (?P<command>.*)", re.DOTALL)

_LONGEST_LINE = 16 * 1024
"""Characters of an unfinished line kept; more is sent on as a line of its own."""


@dataclass(frozen=True, kw_only=True)
class StepEvent:
    """Something that happened in a step.

    Attributes:
        step: BuildKit's digest of the step: the same in every event of the step, also in other builds that share it.
        name: such as `[stage 3/7] RUN make` or `[internal] load build context`.
    """

    step: str
    name: str

    @property
    def instruction(self) -> str:
        """The Dockerfile instruction of the step, with variables expanded; empty for steps of BuildKit's own."""
        match = _INSTRUCTION.fullmatch(self.name)
        return match["command"] if match else ""


@dataclass(frozen=True, kw_only=True)
class StepStarted(StepEvent):
    """A step began."""


@dataclass(frozen=True, kw_only=True)
class StepLog(StepEvent):
    """A step wrote a line. `stream` is 1 for its standard output, 2 for standard error."""

    stream: int
    text: str


@dataclass(frozen=True, kw_only=True)
class StepProgress(StepEvent):
    """A part of a step, such as a transfer, came on.

    Attributes:
        what: such as `transferring context:` or a layer's digest.
        current, total: bytes; `total` is 0 when unknown.
        done: whether the part is complete.
    """

    what: str
    current: int
    total: int
    done: bool


@dataclass(frozen=True, kw_only=True)
class StepFinished(StepEvent):
    """A step ended. BuildKit may say so twice, first without and then with `cached`.

    Attributes:
        seconds: how long it took.
        cached: whether it did not run, its result being there already.
        error: why it failed; empty when it did not.
    """

    seconds: float
    cached: bool
    error: str

    @property
    def cancelled(self) -> bool:
        """Whether it ended because the build was cancelled, or another step failed."""
        return "context canceled" in self.error


@dataclass(frozen=True, kw_only=True)
class BuildWarning(StepEvent):
    """BuildKit's remark on a Dockerfile. `detail` explains it, `url` leads to more; both may be empty."""

    message: str
    detail: str
    url: str


Event = StepStarted | StepLog | StepProgress | StepFinished | BuildWarning


@dataclass
class _Step:
    name: str = ""
    started: float | None = None
    ended: tuple[float, bool, str] | None = None
    open_lines: dict[int, _OpenLine] = field(default_factory=dict)


class _OpenLine:
    """What a step wrote on one stream since its last line break."""

    def __init__(self) -> None:
        self.text = ""
        # Pieces end anywhere, also within a character.
        self.decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def add(self, data: bytes, *, last: bool = False) -> list[str]:
        self.text += self.decode(data, last)
        *lines, self.text = self.text.split("\n")
        if len(self.text) > _LONGEST_LINE or (last and self.text):
            lines.append(self.text)
            self.text = ""
        return lines


class TraceDecoder:
    """Decodes one build's trace; it remembers what it has seen of each step."""

    def __init__(self) -> None:
        self._steps: dict[str, _Step] = {}

    def decode(self, encoded: str) -> list[Event]:
        """Decodes the `aux` value of one `moby.buildkit.trace` line.

        Raises:
            WireError: it is not such a message.
        """
        try:
            message = base64.b64decode(encoded, validate=True)
        except ValueError as error:
            raise wire.WireError(f"a trace message is no base64: {error}") from error
        events: list[Event] = []
        # A step's last lines may come in the same message as its end, which has the lower field number.
        ended: list[Event] = []
        for number, value in wire.fields(message):
            if number == 1:
                for event in self._vertex(wire.binary(value)):
                    (ended if isinstance(event, StepFinished) else events).append(event)
            elif number == 2:
                events += self._status(wire.binary(value))
            elif number == 3:
                events += self._log(wire.binary(value))
            elif number == 4:
                events += self._warning(wire.binary(value))
        for event in ended:
            events += self._rest_of_log(event.step)
            events.append(event)
        return events

    def finish(self) -> list[Event]:
        """What steps wrote without a line break at the end, once the stream has ended."""
        return [event for step in self._steps for event in self._rest_of_log(step)]

    def _step(self, digest: str) -> _Step:
        return self._steps.setdefault(digest, _Step())

    def _vertex(self, message: bytes) -> Iterator[Event]:
        digest, name, cached, error = "", "", False, ""
        started = completed = None
        for number, value in wire.fields(message):
            if number == 1:
                digest = wire.text(value)
            elif number == 3:
                name = wire.text(value)
            elif number == 4:
                cached = wire.unsigned(value) != 0
            elif number == 5:
                started = wire.timestamp(value)
            elif number == 6:
                completed = wire.timestamp(value)
            elif number == 7:
                error = wire.text(value)
        step = self._step(digest)
        step.name = name or step.name
        if started is not None and step.started is None:
            yield StepStarted(step=digest, name=step.name)
        if started is not None:
            step.started = started
        if completed is None:
            return
        ended = (completed, cached, error)
        if step.ended is None or step.ended[1:] != ended[1:] or completed > step.ended[0]:
            step.ended = ended
            seconds = max(0.0, completed - (step.started if step.started is not None else completed))
            yield StepFinished(step=digest, name=step.name, seconds=seconds, cached=cached, error=error)

    def _status(self, message: bytes) -> Iterator[Event]:
        digest, what, name, current, total, done = "", "", "", 0, 0, False
        for number, value in wire.fields(message):
            if number == 1:
                what = wire.text(value)
            elif number == 2:
                digest = wire.text(value)
            elif number == 3:
                name = wire.text(value)
            elif number == 4:
                current = wire.signed(value)
            elif number == 5:
                total = wire.signed(value)
            elif number == 8:
                done = True
        yield StepProgress(
            step=digest,
            name=self._step(digest).name,
            what=what or name,
            current=current,
            total=total,
            done=done,
        )

    def _log(self, message: bytes) -> Iterator[Event]:
        digest, stream, data = "", 1, b""
        for number, value in wire.fields(message):
            if number == 1:
                digest = wire.text(value)
            elif number == 3:
                stream = wire.signed(value)
            elif number == 4:
                data = wire.binary(value)
        step = self._step(digest)
        for line in step.open_lines.setdefault(stream, _OpenLine()).add(data):
            yield _line(digest, step, stream, line)

    def _rest_of_log(self, digest: str) -> list[Event]:
        step = self._step(digest)
        return [
            _line(digest, step, stream, line)
            for stream, open_line in step.open_lines.items()
            for line in open_line.add(b"", last=True)
        ]

    def _warning(self, message: bytes) -> Iterator[Event]:
        digest, short, detail, url = "", "", [], ""
        for number, value in wire.fields(message):
            if number == 1:
                digest = wire.text(value)
            elif number == 3:
                short = wire.text(value)
            elif number == 4:
                detail.append(wire.text(value))
            elif number == 5:
                url = wire.text(value)
        yield BuildWarning(
            step=digest,
            name=self._step(digest).name,
            message=short,
            detail="\n".join(detail),
            url=url,
        )


def _line(digest: str, step: _Step, stream: int, text: str) -> StepLog:
    # A progress bar draws over itself: what stands after the last carriage return is what one would see.
    seen = text.rstrip("\r").rpartition("\r")[2]
    return StepLog(step=digest, name=step.name, stream=stream, text=seen)
