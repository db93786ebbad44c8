"""Reads what a container left behind: result files and the end of its output, never more than asked for."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from builder.engine import fields
from builder.engine.connection import Engine
from builder.engine.errors import ContainerError, EngineRefused

if TYPE_CHECKING:
    import requests

_LOG_LINES = 10_000
"""How many lines of output are asked for; their last bytes are kept."""


class Results:
    """Reads result files, and sorts out those that are too large or no regular files.

    Args:
        cap: bytes of the largest file that is read.
    """

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self.outputs: dict[str, bytes] = {}
        self.oversize: list[str] = []
        self.refused: list[str] = []

    def read(self, engine: Engine, name: str, directory: str, output: str) -> None:
        """Reads the file `output` in `directory` of the container `name`; a missing file is no error."""
        path = f"{directory}/{output}"
        doing = f"read the result {output}"
        try:
            response = engine.call(
                "GET",
                f"/containers/{name}/archive",
                doing=doing,
                params={"path": path},
                stream=True,
            )
        except EngineRefused as refused:
            if refused.status == 404:
                return
            raise
        # Leaving the block closes the connection; what was not read is never sent.
        with engine.reading(response, doing):
            self._take(response, output, self._cap)

    def _take(self, response: requests.Response, output: str, cap: int) -> None:
        stat = _stat(response.headers.get("X-Docker-Container-Path-Stat", ""))
        # Go's file mode: every bit above the permissions and setuid, setgid and sticky tells of something else
        # than a regular file.
        if stat is None or fields.integer(stat.get("mode"), -1) & ~0o777 & ~_SPECIAL_BITS:
            self.refused.append(output)
        elif fields.integer(stat.get("size"), cap + 1) > cap:
            self.oversize.append(output)
        else:
            self._unpack(response, output, cap)

    def _unpack(self, response: requests.Response, output: str, cap: int) -> None:
        try:
            with tarfile.open(fileobj=StreamReader(response), mode="r|") as archive:
                member = archive.next()
                content = archive.extractfile(member) if member and member.isreg() else None
                if content is None:
                    self.refused.append(output)
                    return
                data = content.read(cap + 1)
        except tarfile.TarError as error:
            raise ContainerError(f"the engine sent no archive for the result {output}: {error}") from error
        if len(data) > cap:
            self.oversize.append(output)
        else:
            self.outputs[output] = data


_SPECIAL_BITS = 1 << 23 | 1 << 22 | 1 << 20
"""setuid, setgid and sticky in Go's os.FileMode."""


class StreamReader(io.RawIOBase):
    """What tarfile needs of a file, over an answer that is still arriving."""

    def __init__(self, response: requests.Response) -> None:
        super().__init__()
        self._pieces: Iterator[bytes] = response.iter_content(1 << 16)
        self._left = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._left) < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            self._left += piece
        end = len(self._left) if size < 0 else size
        taken, self._left = self._left[:end], self._left[end:]
        return taken


def _stat(header: str) -> Mapping[str, object] | None:
    try:
        decoded: object = json.loads(base64.b64decode(header))
    except ValueError:
        return None
    return fields.mapping(decoded) or None


def log_tail(engine: Engine, name: str, cap: int) -> str:
    """The last `cap` bytes of what the container wrote, without the engine's frame headers."""
    tail = bytearray()
    doing = "read the container's output"
    response = engine.call(
        "GET",
        f"/containers/{name}/logs",
        doing=doing,
        params={"stdout": True, "stderr": True, "tail": _LOG_LINES},
        stream=True,
    )
    with engine.reading(response, doing):
        reader = StreamReader(response)
        # Each frame: one byte for the stream, three of zero, four for the length.
        while len(head := reader.read(8)) == 8:
            left = int.from_bytes(head[4:], "big")
            while left > 0 and (piece := reader.read(min(left, 1 << 16))):
                left -= len(piece)
                tail += piece
                del tail[:-cap]
    return tail.decode(errors="replace") if cap > 0 else ""
