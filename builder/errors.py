"""The tree of imgbuild's own errors. Every class has one exit code; every instance says what, where and how to mend it.

    ImgbuildError
    ├── Impossible          3   facts forbid every combination that was asked for
    ├── NotKnown            4   the facts do not reach as far as what was asked for
    ├── ConfigError         5   matrix.yaml, the site file or an option's value is invalid
    ├── RenderError         6   a template does not render
    ├── BaseError           8   a base image can neither be pulled nor made
    ├── TooLarge            9   an image takes more than its budget
    ├── CheckFailed        10   an image did not pass its check
    ├── CheckIncomplete    11   a required check did not run
    ├── Differs            13   what is committed differs from what is rendered, or two images
    ├── DoctorFailed       14   a line of `imgbuild doctor` failed
    ├── IndexUnavailable   15   a package index is unreachable, not trusted, or refuses
    ├── LockTimeout        16   another imgbuild holds the lock
    ├── StateError         17   the state directory cannot be read or written
    ├── NotLocked          19   a lock file is missing, or does not fit what is asked for
    ├── NotVerified        20   no trusted evidence reaches what is required
    ├── EvidenceRefused    21   there is evidence, and it does not verify
    └── Interrupted       130   the run was interrupted before this was done

Errors of the engine (7 unavailable, 8 base, 9 build failed, 12 disk full, 15 registry or source, 18 no such image) have
their own tree in `builder.engine.errors`, which stands alone; `builder.exits` turns both into exit codes, in one place.
"""

from __future__ import annotations


class ImgbuildError(Exception):
    """Base of every error that a user can cause and mend.

    Args:
        message: what is wrong, one sentence, without a full stop at the end.
        where: where it is wrong, as `file:line:column` or a name; empty when that says nothing.
        hint: how to mend it, as a sentence or a command; empty when there is nothing to say.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  {self.hint}" if self.hint else text


class Impossible(ImgbuildError):
    """Facts forbid every combination that was asked for."""

    exit_code = 3


class NotKnown(ImgbuildError):
    """The facts do not reach as far as what was asked for."""

    exit_code = 4


class ConfigError(ImgbuildError):
    """A file or value that a user wrote is invalid."""

    exit_code = 5


class RenderError(ImgbuildError):
    """A template does not render."""

    exit_code = 6


class BaseError(ImgbuildError):
    """A base image can neither be pulled nor made."""

    exit_code = 8


class TooLarge(ImgbuildError):
    """An image takes more bytes than its cell's budget; `detail` says what they are, line by line."""

    exit_code = 9

    def __init__(self, message: str, *, where: str = "", hint: str = "", detail: tuple[str, ...] = ()) -> None:
        super().__init__(message, where=where, hint=hint)
        self.detail = detail


class CheckFailed(ImgbuildError):
    """An image did not pass its check."""

    exit_code = 10


class CheckIncomplete(ImgbuildError):
    """A required check did not run, so nothing is known and nothing was tagged."""

    exit_code = 11


class Differs(ImgbuildError):
    """What is committed differs from what is rendered, or two images differ and that was the question."""

    exit_code = 13


class DoctorFailed(ImgbuildError):
    """A line of `imgbuild doctor` failed."""

    exit_code = 14


class Interrupted(ImgbuildError):
    """The run was interrupted before this was done."""

    exit_code = 130


class IndexUnavailable(ImgbuildError):
    """A package index is unreachable, not trusted, or refuses."""

    exit_code = 15


class LockTimeout(ImgbuildError):
    """Another process holds a lock for longer than this one waits."""

    exit_code = 16


class StateError(ImgbuildError):
    """The state directory cannot be read or written."""

    exit_code = 17


class NotLocked(ImgbuildError):
    """A lock file is missing, or does not fit what is asked for."""

    exit_code = 19


class NotVerified(ImgbuildError):
    """No trusted evidence reaches what is required: there is none, or what it says is not enough."""

    exit_code = 20


class EvidenceRefused(ImgbuildError):
    """There is evidence, and it does not verify: tampered with, of another key, of another image, or too old."""

    exit_code = 21
