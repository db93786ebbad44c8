"""What can go wrong between this process and an engine. The tree stands alone.

Every class has one exit code:

    EngineError             1   (base)
    ├── EngineRefused       7   the engine answered a request with an error
    ├── EngineUnavailable   7   no engine, no permission on its socket, too old, without BuildKit
    ├── BaseUnavailable     8   a base image can neither be pulled nor made
    ├── BuildFailed         9   a build step failed, or a build ended without a result
    │   ├── SourceUnreachable  15   a step could not reach where its packages are from
    │   └── BuildStalled    9   a build said nothing for too long and was cancelled
    ├── ContextError        9   a build's context cannot be sent as it is
    ├── ContainerError     10   a container could not be created, started, read or removed
    ├── DiskFull           12   the engine's disk, or this machine's, is full
    ├── RegistryError      15   a registry refused
    │   ├── NotInRegistry         it has no such image, or does not let us see it
    │   └── RegistryUnreachable   no registry answered
    ├── ImageMissing       18   an image that must exist on the engine does not
    ├── BuildCancelled    130   the caller cancelled a build
    └── RunCancelled      130   the caller cancelled a container's run
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FailedStep:
    """The step at which a build failed.

    Attributes:
        name: BuildKit's name of the step, such as `[stage 3/7] RUN make`; empty when unknown.
        command: the instruction without the `[stage 3/7]` prefix.
        lines: first and last line of the instruction in the Dockerfile, from 1; None when unknown.
        log: the last lines that this step itself wrote, oldest first.
        exit_code: how the step's process ended; None when the failure was not a process's.
    """

    name: str
    command: str
    lines: tuple[int, int] | None = None
    log: tuple[str, ...] = ()
    exit_code: int | None = None


class EngineError(Exception):
    """Base of every error of this package.

    Args:
        message: what is wrong, one sentence, without a full stop at the end.
        hint: how to mend it, as a sentence or a command; empty when there is nothing to say.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class EngineUnavailable(EngineError):
    """No engine answers, its socket may not be opened, it is too old, or it has no BuildKit."""

    exit_code = 7


class EngineRefused(EngineError):
    """The engine answered a request with an error; `status` is the HTTP status, 500 for one inside a stream."""

    exit_code = 7

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class BaseUnavailable(EngineError):
    """A base image can neither be pulled nor made."""

    exit_code = 8


class BuildFailed(EngineError):
    """A build ended without an image. `step` says where, when BuildKit named a step."""

    exit_code = 9

    def __init__(self, message: str, *, hint: str = "", step: FailedStep | None = None) -> None:
        super().__init__(message, hint=hint)
        self.step = step


class SourceUnreachable(BuildFailed):
    """A step could not reach where what it installs comes from."""

    exit_code = 15


class BuildStalled(BuildFailed):
    """A build said nothing for longer than its idle timeout, and was cancelled on the engine."""


class ContextError(EngineError):
    """A build's context cannot be sent as it is: a bad name, a device, a file that cannot be read."""

    exit_code = 9


class ImageMissing(EngineError):
    """An image that must exist on the engine does not."""

    exit_code = 18


class ContainerError(EngineError):
    """A container could not be created, started, read or removed."""

    exit_code = 10


class DiskFull(EngineError):
    """The engine's disk is full, or this machine's. `step` says where, when a build noticed it in a step."""

    exit_code = 12

    def __init__(self, message: str, *, hint: str = "", step: FailedStep | None = None) -> None:
        super().__init__(message, hint=hint)
        self.step = step


class RegistryError(EngineError):
    """A registry refused or is unreachable."""

    exit_code = 15


class NotInRegistry(RegistryError):
    """A registry has no such image, or does not let us see it: many say the same of both."""


class RegistryUnreachable(RegistryError):
    """No registry answered: there may be none, or none that this engine can reach.

    Args:
        cause: the sign of it in a few words, such as `no such host`.
    """

    def __init__(self, message: str, *, cause: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.cause = cause


class BuildCancelled(EngineError):
    """The caller cancelled a build, and it was stopped on the engine."""

    exit_code = 130


class RunCancelled(EngineError):
    """The caller cancelled a container's run; the container was killed and removed."""

    exit_code = 130
