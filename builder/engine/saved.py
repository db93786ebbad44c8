"""The files of every layer of an image, in one pass over what the engine saves of it; nothing of the image runs.

`GET /images/{id}/get` sends a tar archive that holds each layer as one more archive: `<id>/layer.tar` up to Docker 24,
`blobs/sha256/<digest>` since, there also compressed. Which of them make which image is in `manifest.json`, which may
come last: layers are read as they pass by, and are put in order afterwards. The engine makes the archive below its own
temporary directory first, which takes as much of its disk as the image has bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import posixpath
import tarfile
import urllib.parse
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO

from builder.engine import fields
from builder.engine.connection import Engine
from builder.engine.errors import ContainerError, EngineRefused, ImageMissing
from builder.engine.results import StreamReader

_CHUNK = 1 << 18
"""Bytes that tarfile asks for at once."""

_DOCUMENT_CAP = 4 << 20
"""Bytes of the largest manifest or configuration that is read; a registry takes none above 4 MiB."""

_ENTRIES = 5_000_000
"""How many entries of one layer are looked at; the largest images have some hundred thousand."""

_SILENCE = 1800.0
"""Seconds that an engine may say nothing for: it writes the whole archive before it sends the first byte."""

_BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class SavedLayer:
    """One layer of a saved image.

    Attributes:
        name: of its archive in the saved one; equal names of one engine are equal layers.
        diff_id: the digest of its unpacked archive, `sha256:…`.
    """

    name: str
    diff_id: str


Take = Callable[[str, tarfile.TarInfo, IO[bytes] | None], None]
"""Is given each entry of a layer: the layer's `name`, the entry, and the content of a regular file, to be read now."""


def read_layers(
    engine: Engine, image: str, take: Take, *, skip: Callable[[str], bool] = lambda name: False
) -> tuple[SavedLayer, ...]:
    """The layers of an image, lowest first; `take` has been given all entries of them by then.

    Args:
        image: the image's id, or a name.
        take: is given every entry of every layer, layer by layer, in any order of layers.
        skip: whether the entries of a layer are known already, by its `name`.

    Raises:
        ImageMissing: there is no such image.
        ContainerError: what the engine sent is no saved image, or one whose layers cannot be read.
        DiskFull: the engine's disk cannot take the archive.
        EngineUnavailable: the engine went away.
    """
    doing = f"read the layers of {image}"
    try:
        response = engine.call(
            "GET",
            f"/images/{urllib.parse.quote(image, safe='/:@')}/get",
            doing=doing,
            # requests asks for gzip by itself, and compressing takes the engine 10 times as long as sending.
            headers={"Accept-Encoding": "identity"},
            timeout=_SILENCE,
            stream=True,
        )
    except EngineRefused as refused:
        if refused.status == 404:
            raise ImageMissing(f"the engine has no image {image}") from refused
        raise
    with engine.reading(response, doing):
        return read_saved(StreamReader(response), take, skip=skip)


def read_saved(
    stream: io.RawIOBase | IO[bytes], take: Take, *, skip: Callable[[str], bool] = lambda name: False
) -> tuple[SavedLayer, ...]:
    """As `read_layers`, of the archive of one image in `stream`, which is read once from its begin to its end."""
    documents: dict[str, bytes] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK) as archive:
            for member in archive:
                name = posixpath.normpath(member.name)
                if member.issym():
                    # A layer that occurs twice is there once.
                    links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
                content = archive.extractfile(member) if member.isreg() else None
                if content is not None:
                    _blob(name, member.size, content, documents, take, skip)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ContainerError(f"the engine sent no saved image: {error}") from error
    return _ordered(documents, links)


def _blob(
    name: str, size: int, content: IO[bytes], documents: dict[str, bytes], take: Take, skip: Callable[[str], bool]
) -> None:
    head = content.read(_BLOCK)
    # A layer without files is nothing but zeros.
    if name.endswith("layer.tar") or head[257:262] == b"ustar" or (size >= _BLOCK and not head.strip(b"\0")):
        if not skip(name):
            _layer(name, _Joined(head, content), take)
    elif head[:2] == b"\x1f\x8b":
        if not skip(name):
            with gzip.GzipFile(fileobj=_Joined(head, content)) as unpacked:
                _layer(name, unpacked, take)
    elif head[:4] == b"\x28\xb5\x2f\xfd":
        raise ContainerError(f"the layer {name} is compressed with zstd, which cannot be read here")
    elif size <= _DOCUMENT_CAP:
        documents[name] = head + content.read()


def _layer(name: str, stream: io.RawIOBase | IO[bytes] | gzip.GzipFile, take: Take) -> None:
    with tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK) as layer:
        count = 0
        while (member := layer.next()) is not None:
            count += 1
            if count > _ENTRIES:
                raise ContainerError(f"the layer {name} has more than {_ENTRIES:,} entries")
            take(name, member, layer.extractfile(member) if member.isreg() and not member.issparse() else None)
            # tarfile keeps every entry that it has seen.
            layer.members.clear()  # type: ignore[attr-defined]


class _Joined(io.RawIOBase):
    """What was read of a file already, and its rest."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        super().__init__()
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._head:
            return self._rest.read(size)
        taken, self._head = (self._head, b"") if size < 0 else (self._head[:size], self._head[size:])
        if size < 0 or len(taken) < size:
            taken += self._rest.read(-1 if size < 0 else size - len(taken))
        return taken


def _ordered(documents: Mapping[str, bytes], links: Mapping[str, str]) -> tuple[SavedLayer, ...]:
    images = fields.sequence(_decoded(documents.get("manifest.json", b"")))
    if len(images) != 1:
        raise ContainerError(f"the engine saved {len(images)} images, where one was asked for")
    manifest = fields.mapping(images[0])
    names = [posixpath.normpath(name) for name in fields.texts(manifest.get("Layers"))]
    config = fields.mapping(_decoded(documents.get(posixpath.normpath(fields.text(manifest.get("Config"))), b"")))
    diff_ids = fields.texts(fields.mapping(config.get("rootfs")).get("diff_ids"))
    if len(diff_ids) != len(names):
        raise ContainerError(f"the saved image has {len(names)} layers, and its configuration {len(diff_ids)}")
    return tuple(
        SavedLayer(name=links.get(name, name), diff_id=diff_id) for name, diff_id in zip(names, diff_ids, strict=True)
    )


def _decoded(data: bytes) -> object:
    try:
        decoded: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return decoded
