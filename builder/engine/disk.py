"""Files on disk that are read later than they are listed, when something else may lie at their place."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builder.engine.errors import ContextError

CHUNK = 64 * 1024
"""Bytes read from a file at a time."""


@dataclass(frozen=True)
class OnDisk:
    """A place on disk, and the directory that reading it must not leave.

    Attributes:
        root: how it is reached is the caller's business, also through links.
        path: the place, at or below `root`; no link on the way from there is followed.
    """

    root: Path
    path: Path

    def child(self, name: str) -> OnDisk:
        return OnDisk(self.root, self.path / name)

    def chunks(self, shown: str) -> Iterator[bytes]:
        """The file's bytes, in pieces of at most `CHUNK`.

        Args:
            shown: its path in the context, for errors.

        Raises:
            ContextError: the file cannot be read, or is no regular file that is reached without links (any more).
        """
        try:
            with os.fdopen(self._open(), "rb", buffering=0) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise ContextError(f"{shown} in the context is no longer a regular file")
                while chunk := file.read(CHUNK):
                    yield chunk
        except OSError as error:
            raise ContextError(f"cannot read {shown} of the context: {error.strerror}") from error

    def _open(self) -> int:
        """Opens it, a name at a time: O_NOFOLLOW guards only the last name of a path."""
        *directories, name = self.path.relative_to(self.root).parts
        held = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for directory in directories:
                inner = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=held)
                os.close(held)
                held = inner
            # O_NONBLOCK: what was a file when listed may by now be a FIFO, which would block.
            return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=held)
        finally:
            os.close(held)
