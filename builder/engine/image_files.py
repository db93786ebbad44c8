"""Reads files of an image from a container of it that is never started, so nothing of the image runs.

The engine hands out files and whole directories as tar streams (`GET /containers/{id}/archive`) and cannot list a
directory alone: to look for files below one means to let all of it pass by, at 100 to 250 MB/s.
"""

from __future__ import annotations

import base64
import json
import logging
import posixpath
import tarfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from builder.engine import fields
from builder.engine.connection import Engine
from builder.engine.errors import ContainerError, EngineError, EngineRefused, ImageMissing
from builder.engine.owner import NAME_PREFIX, owner_labels, remove_container
from builder.engine.results import StreamReader

_log = logging.getLogger(__name__)

_CHUNK = 1 << 16
"""Bytes that tarfile asks for at once: what `StreamReader` gets from the connection in one piece."""

_ENTRIES = 5_000_000
"""How many entries of a directory are looked at; the largest images have some hundred thousand."""

_DIRECTORY_BIT = 1 << 31
_LINK_BIT = 1 << 27
_IRREGULAR = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19
"""The bits of Go's os.FileMode for devices, named pipes, sockets and what is none of the kinds."""


@dataclass(frozen=True, kw_only=True)
class FileStat:
    """What a path in an image is.

    Attributes:
        directory, link, regular: one of them is true, or none for a device and the like.
        target: where a link leads, absolute; empty for others.
        size: bytes of a regular file.
    """

    directory: bool
    link: bool
    regular: bool
    target: str
    size: int


class ImageFiles:
    """The files of one image."""

    def __init__(self, engine: Engine, image: str, name: str) -> None:
        self._engine = engine
        self._image = image
        self._name = name

    def stat(self, path: str) -> FileStat | None:
        """What `path` (absolute) is, the last link not followed; None when there is nothing."""
        try:
            response = self._engine.call(
                "HEAD", f"/containers/{self._name}/archive", doing=f"look for {path}", params={"path": path}
            )
        except EngineRefused as refused:
            # 500 without a word is a link that leads to itself: nothing that could be read.
            if refused.status in (404, 500):
                return None
            raise ContainerError(f"{self._image}: {refused.message}") from refused
        with response:
            found = _stat(response.headers.get("X-Docker-Container-Path-Stat", ""))
        if found is None:
            raise ContainerError(f"the engine does not say what {path} of {self._image} is")
        mode = fields.integer(found.get("mode"), _IRREGULAR)
        directory, link = bool(mode & _DIRECTORY_BIT), bool(mode & _LINK_BIT)
        return FileStat(
            directory=directory,
            link=link,
            regular=not directory and not link and not mode & _IRREGULAR,
            target=fields.text(found.get("linkTarget")),
            size=fields.integer(found.get("size")),
        )

    def read(self, path: str, *, cap: int) -> bytes | None:
        """The content of a regular file, the last link not followed; None when there is no such file.

        Raises:
            ContainerError: it is larger than `cap` bytes.
        """
        found = self.stat(path)
        if found is None or not found.regular:
            return None
        if found.size > cap:
            raise ContainerError(f"{path} of {self._image} has {found.size:,} bytes, at most {cap:,} are read")
        name = posixpath.basename(path)
        return dict(self.walk(path, lambda entry: entry == name, cap=cap)).get(name)

    def walk(self, path: str, wanted: Callable[[str], bool], *, cap: int) -> Iterator[tuple[str, bytes]]:
        """The regular files at and below `path` that are wanted, in the engine's order.

        Args:
            path: absolute; a directory, or a file.
            wanted: is asked for each regular file by its path, which begins with the last part of `path`.
            cap: bytes of each file that are read; the rest is left out.

        Raises:
            ContainerError: the engine's answer is no archive, or there are too many files.
        """
        doing = f"read {path} of {self._image}"
        try:
            response = self._engine.call(
                "GET",
                f"/containers/{self._name}/archive",
                doing=doing,
                params={"path": path},
                # requests asks for gzip by itself, and compressing takes the engine 10 times as long as sending.
                headers={"Accept-Encoding": "identity"},
                stream=True,
            )
        except EngineRefused as refused:
            if refused.status == 404:
                return
            raise ContainerError(f"{self._image}: {refused.message}") from refused
        with self._engine.reading(response, doing):
            try:
                with tarfile.open(fileobj=StreamReader(response), mode="r|", bufsize=_CHUNK) as archive:
                    for count, member in enumerate(archive):
                        if count > _ENTRIES:
                            raise ContainerError(f"{path} of {self._image} has more than {_ENTRIES:,} entries")
                        if not member.isreg() or not wanted(member.name):
                            continue
                        content = archive.extractfile(member)
                        if content is not None:
                            yield member.name, content.read(cap)
            except tarfile.TarError as error:
                raise ContainerError(f"the engine sent no archive of {path} of {self._image}: {error}") from error


@contextmanager
def image_files(engine: Engine, image: str) -> Iterator[ImageFiles]:
    """The files of an image, for the time of a `with` block.

    Args:
        image: the image's id, or a name.

    Raises:
        ImageMissing: there is no such image.
        ContainerError: no container could be made of it.
        EngineUnavailable: the engine went away.
    """
    name = NAME_PREFIX + uuid.uuid4().hex[:16]
    body = {
        "Image": image,
        # An image without a command needs one for a container to be made of it.
        "Entrypoint": ["none"],
        "Labels": dict(owner_labels()),
        "NetworkDisabled": True,
        "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "none"}},
    }
    doing = f"create a container of {image}"
    try:
        try:
            engine.call("POST", "/containers/create", doing=doing, params={"name": name}, json=body).close()
        except EngineRefused as refused:
            if refused.status == 404:
                raise ImageMissing(f"the engine has no image {image}") from refused
            raise ContainerError(refused.message) from refused
        yield ImageFiles(engine, image, name)
    finally:
        try:
            remove_container(engine, name)
        except EngineError as error:
            # What was read is right all the same; `reap` removes what is left.
            _log.warning("the container %s is left on the engine: %s", name, error)


def _stat(header: str) -> Mapping[str, object] | None:
    try:
        decoded: object = json.loads(base64.b64decode(header))
    except ValueError:
        return None
    return fields.mapping(decoded) or None
