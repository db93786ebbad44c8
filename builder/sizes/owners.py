"""Which package each file of an image belongs to.

Python distributions name their files in `RECORD` (PyPA's specification "Recording installed projects"), Debian packages
in dpkg's `info/*.list`. What neither names is told by its directory. A compiled file of Python's belongs to whom its
source belongs.
"""

from __future__ import annotations

import csv
import posixpath
import re
from collections.abc import Mapping

from packaging.utils import canonicalize_name

from builder.attest.software import parse_status
from builder.sizes.layers import Layer, Seen, document
from builder.sizes.model import Kind, Package

# What a package carries inside itself, such as setuptools/_vendor, is that package's.
_RECORD = re.compile(r"((?:.+/)?(?:site|dist)-packages)/([^/]+)\.dist-info/RECORD")
_LIST = re.compile(r"var/lib/dpkg/info/([^/]+)\.list")
_INFO = re.compile(r"var/lib/dpkg/info/([^/]+)\.[a-z0-9]+")
_BYTECODE = re.compile(r"(?:(.*)/)?__pycache__/(.+?)\.[^./]+(?:\.opt-[0-9a-z]+)?\.pyc")

_LINKS = 40
"""Symbolic links that are followed in one path, as Linux does."""


class Owners:
    """The packages of one image and their files.

    Args:
        layers: of the image, lowest first.
        seen: what a container sees of them.
    """

    def __init__(self, layers: list[Layer], seen: Mapping[str, Seen]) -> None:
        self._seen = seen
        self._real: dict[str, str] = {"": ""}
        self._versions: dict[tuple[Kind, str], str] = {}
        self._owner: dict[str, tuple[Kind, str]] = {}
        for path in seen:
            if path.endswith("/RECORD") and (match := _RECORD.fullmatch(path)):
                self._python(match[1], match[2], document(layers, seen, path) or b"")
        self._debian(layers)

    def of(self, path: str) -> tuple[Kind, str]:
        """What a file belongs to, and its name."""
        compiled = _BYTECODE.fullmatch(path)
        source = posixpath.join(compiled[1] or "", f"{compiled[2]}.py") if compiled else path
        found = self._owner.get(source) or self._owner.get(path)
        if found is not None:
            return found
        info = _INFO.fullmatch(path)
        if info and (Kind.DEBIAN, info[1].partition(":")[0]) in self._versions:
            return Kind.DEBIAN, info[1].partition(":")[0]
        return Kind.OTHER, "/" + "/".join(path.split("/")[:-1][:2])

    def packages(self) -> tuple[Package, ...]:
        """What each takes, the largest first; those without a file are left out."""
        totals: dict[tuple[Kind, str], list[int]] = {}
        for path, item in self._seen.items():
            size = item.entry.bytes
            if not size:
                continue
            total = totals.setdefault(self.of(path), [0, 0, 0])
            total[0] += size
            total[1] += size if path.endswith(".pyc") else 0
            total[2] += 1
        found = [
            Package(
                kind=kind,
                name=name,
                version=self._versions.get((kind, name), ""),
                bytes=total,
                bytecode=bytecode,
                files=files,
            )
            for (kind, name), (total, bytecode, files) in totals.items()
        ]
        return tuple(sorted(found, key=lambda item: (-item.bytes, item.kind.value, item.name)))

    def _python(self, directory: str, stem: str, record: bytes) -> None:
        name, _, version = stem.rpartition("-")
        key = (Kind.PYTHON, canonicalize_name(name or stem))
        self._versions.setdefault(key, version if name else "")
        self._owner.setdefault(f"{directory}/{stem}.dist-info/RECORD", key)
        try:
            for row in csv.reader(record.decode("utf-8", "surrogateescape").splitlines()):
                if row:
                    self._claim(posixpath.join(f"/{directory}", row[0]), key)
        except csv.Error:
            return  # what could be read of it counts

    def _debian(self, layers: list[Layer]) -> None:
        status = document(layers, self._seen, "var/lib/dpkg/status")
        for package in parse_status(status or b""):
            self._versions[Kind.DEBIAN, package.name] = package.version
        for path in self._seen:
            match = _LIST.fullmatch(path)
            key = (Kind.DEBIAN, match[1].partition(":")[0]) if match else None
            # The lists of packages that were removed are left behind with their configuration.
            if key is not None and key in self._versions:
                content = document(layers, self._seen, path) or b""
                for line in content.decode("utf-8", "surrogateescape").splitlines():
                    self._claim(line, key)

    def _claim(self, path: str, key: tuple[Kind, str]) -> None:
        """The first that names a file has it."""
        directory, name = posixpath.split(posixpath.normpath(path).lstrip("/"))
        real = posixpath.join(self._resolved(directory), name)
        if real in self._seen:
            self._owner.setdefault(real, key)

    def _resolved(self, directory: str) -> str:
        """A directory without symbolic links: Debian's packages say `/lib`, which is a link to `usr/lib`."""
        known = self._real.get(directory)
        if known is None:
            known = self._real[directory] = self._follow(directory)
        return known

    def _follow(self, directory: str) -> str:
        done: list[str] = []
        left = directory.split("/")[::-1]
        links = 0
        while left:
            part = left.pop()
            if part in ("", "."):
                continue
            if part == "..":
                del done[-1:]
                continue
            found = self._seen.get("/".join([*done, part]))
            target = found.entry.link if found is not None else None
            if target is None:
                done.append(part)
                continue
            links += 1
            if links > _LINKS:
                return directory
            if target.startswith("/"):
                done = []
            left += target.split("/")[::-1]
        return "/".join(done)
