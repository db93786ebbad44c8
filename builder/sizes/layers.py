"""What each layer of images holds, and what a container sees of them together."""

from __future__ import annotations

import hashlib
import posixpath
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO

LIBRARY_BYTES = 100_000
"""From which size on two copies of a shared library are told; libgomp, which most frameworks bring, has 250 kB."""

FILE_BYTES = 1_000_000
"""From which size on two copies of another file are told."""

_DOCUMENT_CAP = 64 << 20
"""Bytes of a list of files that are read; the RECORD of torch has 1.5 MB, dpkg's status file 0.3 MB."""

# What a package carries inside itself, such as setuptools/_vendor, is that package's.
_DOCUMENT = re.compile(
    r"(?:.+/)?(?:site|dist)-packages/[^/]+\.dist-info/RECORD|var/lib/dpkg/status|var/lib/dpkg/info/[^/]+\.list"
)
_LIBRARY = re.compile(r"lib[^/]*\.so(?:\.[0-9][^/]*)?")
_MODULE = re.compile(r"\.(?:cpython-|abi3\.|pypy)")
_CHUNK = 1 << 20

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a layer.

    Attributes:
        bytes: of a regular file; 0 for all else. (Docker 20.10 counts the targets of symbolic links in a layer that
            was loaded, and not in one that it built: an image's size there is a few kilobytes above this sum, or it.)
        directory: whether it is one.
        link: where a symbolic link leads, as written.
        hard: the path of the file that this is another name of, which has its bytes and its digest.
        digest: SHA-256 of a large file as hexadecimal digits, else empty.
    """

    bytes: int = 0
    directory: bool = False
    link: str | None = None
    hard: str | None = None
    digest: str = ""


@dataclass
class Layer:
    """The files of one layer.

    Attributes:
        entries: by path, without a slash at the front.
        removed: paths that it takes from those below, with all that is in them.
        emptied: directories of which it shows nothing from below.
        documents: content of the files that say what is installed.
        files: how many regular files it has.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    emptied: set[str] = field(default_factory=set)
    documents: dict[str, bytes] = field(default_factory=dict)
    files: int = 0

    def take(self, member: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        """Adds one entry of the layer's archive."""
        path = posixpath.normpath(member.name).lstrip("/")
        directory, name = posixpath.split(path)
        if path == "." or path.startswith(".."):
            return
        if name == _OPAQUE:
            self.emptied.add(directory)
        elif name.startswith(_WHITEOUT):
            self.removed.add(posixpath.join(directory, name.removeprefix(_WHITEOUT)))
        elif member.isdir():
            self.entries[path] = Entry(directory=True)
        elif member.issym():
            self.entries[path] = Entry(link=member.linkname)
        elif member.islnk():
            self.entries[path] = Entry(hard=posixpath.normpath(member.linkname).lstrip("/"))
        elif member.isreg():
            self.files += 1
            if content is not None and member.size <= _DOCUMENT_CAP and _DOCUMENT.fullmatch(path):
                self.documents[path] = content.read()
                content = None
            large = member.size >= (LIBRARY_BYTES if is_library(name) else FILE_BYTES)
            digest = _sha256(content) if large and content is not None else ""
            self.entries[path] = Entry(bytes=member.size, digest=digest)
        else:
            self.entries[path] = Entry()

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum(entry.bytes for entry in self.entries.values())


@dataclass(frozen=True, slots=True)
class Seen:
    """An entry that a container sees, and the index of the layer that it comes from."""

    entry: Entry
    layer: int


@dataclass(frozen=True, slots=True)
class Gone:
    """An entry that no container sees; see `Hidden`."""

    path: str
    entry: Entry
    layer: int
    by: int
    removed: bool


def stacked(layers: Iterable[Layer]) -> tuple[Mapping[str, Seen], tuple[Gone, ...]]:
    """What a container sees of layers, lowest first, and which files of theirs it does not."""
    seen: dict[str, Seen] = {}
    gone: list[Gone] = []
    for index, layer in enumerate(layers):
        removed = set(layer.removed)
        for path, entry in layer.entries.items():
            below = seen.get(path)
            if below is not None and below.entry.directory and not entry.directory:
                removed.add(path)  # what takes the place of a directory takes away what was in it
        if removed or layer.emptied:
            for path in [path for path in seen if _covered(path, removed, layer.emptied)]:
                was = seen.pop(path)
                gone.append(Gone(path, was.entry, was.layer, index, path not in layer.entries))
        for path, entry in layer.entries.items():
            below = seen.get(path)
            if below is not None and not below.entry.directory:
                gone.append(Gone(path, below.entry, below.layer, index, removed=False))
            seen[path] = Seen(entry, index)
    # A file that is seen under another name of its own is not lost: what it takes belongs to the first such name.
    names: dict[tuple[int, str], str] = {}
    for path, held in seen.items():
        if held.entry.hard is not None:
            names.setdefault((held.layer, held.entry.hard), path)
    lost = []
    for item in gone:
        other = names.get((item.layer, item.path))
        if other is not None:
            seen[other] = Seen(item.entry, item.layer)
        elif item.entry.bytes:
            lost.append(item)
    return seen, tuple(lost)


def _covered(path: str, removed: set[str], emptied: set[str]) -> bool:
    if path in removed:
        return True
    if "" in emptied:
        return True
    end = path.rfind("/")
    while end > 0:
        if path[:end] in removed or path[:end] in emptied:
            return True
        end = path.rfind("/", 0, end)
    return False


def is_library(name: str) -> bool:
    """Whether a file of this name is a shared library that others link with, not a module of Python."""
    return _LIBRARY.fullmatch(name) is not None and not _MODULE.search(name)


def document(layers: list[Layer], seen: Mapping[str, Seen], path: str) -> bytes | None:
    """The content of a file that says what is installed; None when no container sees one there."""
    found = seen.get(path)
    return layers[found.layer].documents.get(path) if found is not None else None


def _sha256(content: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while piece := content.read(_CHUNK):
        digest.update(piece)
    return digest.hexdigest()
