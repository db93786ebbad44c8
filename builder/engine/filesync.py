"""The file sync protocol of BuildKit (fsutil): the engine asks for a directory, and gets only what it lacks.

This side lists the tree, one STAT packet each; the engine compares with what it has and asks for files by their index
in the list; this side sends their bytes. FIN from the engine, answered with FIN, ends it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from builder.engine import wire
from builder.engine.h2server import ABORTED, RpcError
from builder.engine.tree import Entry, FileTree

_STAT, _REQUEST, _DATA, _FINISH, _ERROR = range(5)


class Counters:
    """What a session has sent, to see what the engine really asked for. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = self._files = self._listings = 0

    def add(self, *, bytes_: int = 0, files: int = 0, listings: int = 0) -> None:
        with self._lock:
            self._bytes += bytes_
            self._files += files
            self._listings += listings

    @property
    def bytes_sent(self) -> int:
        """Bytes of files' contents, without what the protocol adds."""
        with self._lock:
            return self._bytes

    @property
    def files_sent(self) -> int:
        """Files whose contents were sent."""
        with self._lock:
            return self._files

    @property
    def listings(self) -> int:
        """How often a tree was listed for the engine."""
        with self._lock:
            return self._listings


@dataclass(frozen=True, kw_only=True)
class SyncRequest:
    """What the engine asks for when it opens a file sync, as its metadata say.

    Attributes:
        directory: name of the directory, such as `context` or `dockerfile`.
        follow, include, exclude: see `FileTree.entries`.
    """

    directory: str
    follow: Sequence[str] = ()
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    @classmethod
    def parse(cls, metadata: Mapping[str, Sequence[str]]) -> SyncRequest:
        """Reads gRPC metadata. Values are URL-quoted where `<key>-encoded` says so."""

        def values(key: str) -> tuple[str, ...]:
            found = metadata.get(key, ())
            encoded = metadata.get(f"{key}-encoded", ())
            return tuple(unquote_plus(v) for v in found) if "1" in encoded else tuple(found)

        return cls(
            directory=next(iter(values("dir-name")), ""),
            follow=values("followpaths"),
            include=values("include-patterns"),
            exclude=values("exclude-patterns"),
        )


@dataclass
class FileSync:
    """One run of the protocol, for one tree. `receive` takes packets, `send` yields them."""

    tree: FileTree
    request: SyncRequest
    counters: Counters
    _asked: deque[int] = field(default_factory=deque)
    _finished: bool = False

    def receive(self, packet: bytes) -> None:
        """Takes a packet of the engine.

        Raises:
            WireError: it is malformed.
            RpcError: the engine gave up; the error of its build says why.
        """
        kind, index, text = _STAT, 0, ""
        for number, value in wire.fields(packet):
            if number == 1:
                kind = wire.unsigned(value)
            elif number == 3:
                index = wire.unsigned(value)
            elif number == 4:
                text = wire.text(value)
        if kind == _REQUEST:
            self._asked.append(index)
        elif kind == _FINISH:
            self._finished = True
        elif kind == _ERROR:
            # No error of this side. Often it only echoes what ended the build: "context canceled".
            raise RpcError(ABORTED, f"the engine gave up on the {self.request.directory}: {text}")

    def send(self) -> Iterator[bytes | None]:
        """Yields packets to send; None when it has to wait for the engine.

        Raises:
            ContextError: something in the tree cannot be listed or read.
            WireError: the engine asks for a file that was not listed.
        """
        self.counters.add(listings=1)
        request = self.request
        files: list[Entry] = []
        for entry in self.tree.entries(follow=request.follow, include=request.include, exclude=request.exclude):
            files.append(entry)
            yield _packet(_STAT, stat=_stat(entry))
        yield _packet(_STAT)
        while not self._finished:
            if not self._asked:
                yield None
                continue
            index = self._asked.popleft()
            if index >= len(files) or files[index].content is None:
                raise wire.WireError(f"the engine asked for file {index}, which is none")
            for chunk in files[index].chunks():
                self.counters.add(bytes_=len(chunk))
                yield _packet(_DATA, index=index, data=chunk)
            self.counters.add(files=1)
            yield _packet(_DATA, index=index)
        yield _packet(_FINISH)


def _packet(kind: int, *, stat: bytes = b"", index: int = 0, data: bytes = b"") -> bytes:
    return wire.integer(1, kind) + wire.data(2, stat) + wire.integer(3, index) + wire.data(4, data)


def _stat(entry: Entry) -> bytes:
    # uid and gid (fields 3 and 4) are left out, which means 0: who owns a checkout is nobody's business.
    return (
        wire.data(1, os.fsencode(entry.path))
        + wire.integer(2, entry.mode)
        + wire.integer(5, entry.size)
        + wire.integer(6, entry.mtime_ns)
        + wire.data(7, os.fsencode(entry.target))
    )
