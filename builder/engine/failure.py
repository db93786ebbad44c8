"""Turns how a build ended into the error that says what to do about it."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

from builder.engine.causes import PRUNE, named_cause, no_space, unreached
from builder.engine.dockerfile import lines_of_step
from builder.engine.errors import (
    BaseUnavailable,
    BuildFailed,
    ContextError,
    DiskFull,
    EngineError,
    FailedStep,
    RegistryError,
    SourceUnreachable,
)
from builder.engine.redact import Redactor
from builder.engine.trace import Event, StepEvent, StepFinished, StepLog

LOG_LINES = 30
"""Lines of a failed step's own output that an error carries."""

# What a step can fill up that is not the engine's disk: its own tmpfs mounts, and inotify's table of watches.
_SMALL_FILE_SYSTEM = re.compile(r"type=tmpfs|/dev/shm|/sys/|/proc/|inotify", re.IGNORECASE)
_TRANSIENT = re.compile(r"ref \S+ locked\b.*\bunavailable|read init-p: connection reset by peer", re.DOTALL)
# What an engine says when its build cache names a layer that its store no longer has. Measured with Docker 20.10: an
# image with the same layers was removed meanwhile, or the engine was killed while it wrote.
_LOST_LAYER = re.compile(r"layer does not exist|failed to prepare \S+: open \S+/committed: no such file or directory")
_EXIT_CODE = re.compile(r"exit code: (\d+)")
_BASE_STEP = re.compile(r"\[internal\] load metadata for |\[(?:.+ )? *\d+/\d+\] FROM ")
_LOCAL_STEP = re.compile(r"\[(?:\S+ )?internal\] load (?!metadata for )")
_WRAPPERS = re.compile(
    r"^(?:failed to solve(?: with frontend \S+)?: |failed to (?:build LLB|create LLB definition): "
    r"|rpc error: code = \w+ desc = )+"
)


@dataclass
class Record:
    """What one build did, for its result or its error."""

    redact: Redactor
    dockerfile: str = ""
    _logs: dict[str, deque[str]] = field(default_factory=dict)
    _ended: dict[str, StepFinished] = field(default_factory=dict)
    _seen: dict[str, StepEvent] = field(default_factory=dict)
    _running: dict[str, StepEvent] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Takes an event as BuildKit sent it, not yet redacted."""
        self._seen[event.step] = event
        if isinstance(event, StepLog):
            tail = self._logs.setdefault(event.step, deque(maxlen=LOG_LINES))
            tail.append(self.redact(event.text))
        elif isinstance(event, StepFinished):
            self._ended[event.step] = event
            self._running.pop(event.step, None)
            return
        self._running[event.step] = event

    @property
    def steps_run(self) -> int:
        """Instructions that were carried out. `FROM` is not counted."""
        return sum(1 for step in self._instructions() if not step.cached)

    @property
    def steps_cached(self) -> int:
        """Instructions whose results were there already."""
        return sum(1 for step in self._instructions() if step.cached)

    def _instructions(self) -> list[StepFinished]:
        return [
            step
            for step in self._ended.values()
            if step.instruction and not step.instruction.startswith("FROM ") and not step.error
        ]

    @property
    def failed(self) -> StepFinished | None:
        """The step that failed, rather than one that was stopped because of it."""
        failed = [step for step in self._ended.values() if step.error]
        return next((s for s in failed if not s.cancelled), failed[0] if failed else None)

    @property
    def process_failed(self) -> bool:
        """Whether it was a step's own process that ended the build, whatever the engine's message quotes of it."""
        return self.failed is not None and _EXIT_CODE.search(self.failed.error) is not None

    @property
    def current(self) -> StepEvent | None:
        """The step from which something was heard last, of those that have not ended."""
        return next(reversed(self._running.values()), None)

    def describe(self, step: StepEvent) -> FailedStep:
        """What an error says of a step."""
        error = step.error if isinstance(step, StepFinished) else ""
        exit_code = _EXIT_CODE.search(error)
        return FailedStep(
            name=self.redact(step.name),
            command=self.redact(step.instruction or step.name),
            lines=lines_of_step(self.dockerfile, step.name),
            log=tuple(self._logs.get(step.step, ())),
            exit_code=int(exit_code[1]) if exit_code else None,
        )


def is_transient(message: str) -> bool:
    """Whether the engine's error is one of those that the next attempt does not meet."""
    return _TRANSIENT.search(message) is not None


def lost_layer(message: str) -> bool:
    """Whether the engine's build cache refers to a layer that is gone: only a build without the cache mends that."""
    return _LOST_LAYER.search(message) is not None


def failure(message: str, record: Record, own_errors: tuple[Exception, ...] = ()) -> EngineError:
    """The error for a build that the engine reports as failed.

    Args:
        message: the engine's.
        record: what the build did.
        own_errors: what went wrong on this side while the engine asked for files, secrets and logins: for this build,
            or for another one of the same session.
    """
    plain = record.redact(_WRAPPERS.sub("", message.strip()))
    failed = record.failed
    step = record.describe(failed) if failed else None
    if no_space(plain):
        return DiskFull(f"the engine's disk is full: {plain}", hint=PRUNE, step=step)
    context = _context_error(plain, step, record, own_errors)
    if context is not None:
        # The engine only saw a status; what was behind it is known here.
        return BuildFailed(record.redact(context.message), hint=context.hint, step=step)
    for error in own_errors:
        if isinstance(error, RegistryError) and (step is None or _BASE_STEP.match(step.name)):
            return RegistryError(record.redact(error.message), hint=error.hint)
    if step is None:
        return BuildFailed(f"the build failed: {plain}", hint=_own(own_errors, record))
    if _BASE_STEP.match(step.name):
        base = _BASE_STEP.sub("", step.name)
        return BaseUnavailable(
            f"the base image {base} is not available: {plain}",
            hint="docker pull it, log in to its registry, or choose a base that this machine has",
        )
    # Those of files and logins would have been told above, were they this build's.
    others = tuple(error for error in own_errors if not isinstance(error, ContextError | RegistryError))
    return _failed_step(step, plain, _own(others, record))


def _context_error(
    message: str, step: FailedStep | None, record: Record, own_errors: tuple[Exception, ...]
) -> ContextError | None:
    """The error of the context that ended this build, rather than another build of the same session."""
    candidates = [error for error in own_errors if isinstance(error, ContextError)]
    quoted = [error for error in candidates if record.redact(error.message) in message]
    if quoted:
        return quoted[0]
    # The engine loads a session's files once for all builds that wait for them.
    loading = step is not None and _LOCAL_STEP.match(step.name)
    return candidates[0] if candidates and loading else None


def _failed_step(step: FailedStep, message: str, hint: str) -> EngineError:
    ended = f"ended with exit code {step.exit_code}" if step.exit_code is not None else "failed"
    text = f"{_where(step)} {ended}"
    if step.exit_code is None:
        text += f": {message}"
    said = [line for line in step.log if no_space(line)]
    if not said:
        named = named_cause(step.log)
        if named is not None:
            return BuildFailed(named[0], hint=named[1] or hint, step=step)
        missed = unreached(step.log)
        if missed is not None:
            url, why = missed
            return SourceUnreachable(
                f"{_where(step)} could not reach {url or 'what it asked for'}: {why}",
                hint=hint or "check the network, or name a mirror or a proxy in the site settings (docs/site.md)",
                step=step,
            )
        return BuildFailed(text, hint=hint, step=step)
    # All that a step can write to lies on the engine's disk, apart from its small file systems in memory.
    if not any(_SMALL_FILE_SYSTEM.search(t) for t in (step.command, *said)):
        return DiskFull(f"the engine's disk is full: {text}", hint=PRUNE, step=step)
    return BuildFailed(
        text,
        hint="it ran out of space, by its log on a file system in memory (tmpfs, /dev/shm) of its own",
        step=step,
    )


def _where(step: FailedStep) -> str:
    command = step.command if len(step.command) <= 200 else step.command[:197] + "..."
    if step.lines is None:
        return f"the step {command!r}"
    first, last = step.lines
    return (
        f"line {first} of the Dockerfile, {command!r},"
        if first == last
        else (f"lines {first}-{last} of the Dockerfile, {command!r},")
    )


def _own(errors: tuple[Exception, ...], record: Record) -> str:
    return record.redact("; ".join(dict.fromkeys(str(e) for e in errors)))
