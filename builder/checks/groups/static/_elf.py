"""What shared libraries say of themselves, and where the loader would find what they need; nothing is loaded here.

Formats: the ELF specification (System V ABI, chapters 4 and 5) for the headers; `ld.so(8)` of glibc for the order of
the search; `cache.h` of glibc for /etc/ld.so.cache.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<qQ")
_LOAD, _DYNAMIC_SEGMENT = 1, 2
_NEEDED, _STRTAB, _SONAME, _RPATH, _RUNPATH = 1, 5, 14, 15, 29
_ELF64_LITTLE = b"\x7fELF\x02\x01"
#: The longest name or search path that is read.
_TEXT = 4096

_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_CACHE_HEADER = struct.Struct("<20sII")
_CACHE_ENTRIES_AT = 48
_CACHE_ENTRY = struct.Struct("<iIIIQ")

#: `DT_RPATH` and the places that come after it, as a finding names them.
LIBRARY_PATH, SYSTEM = "LD_LIBRARY_PATH", "the system's directories"


@dataclass(frozen=True)
class Library:
    """One shared library, or program.

    Attributes:
        path: of the file.
        size: in bytes.
        machine: ELF's number of the processor.
        soname: the name that others ask for; the file's own where it says none.
        needed: the names that it asks for.
        rpath: its DT_RPATH, which the loader heeds only where there is no DT_RUNPATH.
        runpath: its DT_RUNPATH.
    """

    path: Path
    size: int
    machine: int
    soname: str
    needed: tuple[str, ...]
    rpath: str
    runpath: str


def read(path: Path) -> Library | None:
    """Reads the headers of a 64-bit little-endian ELF file; None when it is something else, or damaged."""
    try:
        with path.open("rb", buffering=0) as file:
            return _read(path, file.fileno())
    except (OSError, struct.error, ValueError):
        return None


def _read(path: Path, descriptor: int) -> Library | None:
    head = os.pread(descriptor, _HEADER.size, 0)
    if not head.startswith(_ELF64_LITTLE):
        return None
    fields = _HEADER.unpack(head)
    machine, at, each, count = fields[2], fields[5], fields[9], fields[10]
    table = os.pread(descriptor, each * count, at)
    segments = [_SEGMENT.unpack_from(table, index * each) for index in range(count)]
    entries: list[tuple[int, int]] = []
    for kind, _, offset, _, _, length, _, _ in segments:
        if kind == _DYNAMIC_SEGMENT:
            data = os.pread(descriptor, length, offset)
            entries += _DYNAMIC.iter_unpack(data[: len(data) // _DYNAMIC.size * _DYNAMIC.size])
    strings = next((value for tag, value in entries if tag == _STRTAB), 0)
    # The table of strings is given as an address; a segment says where in the file that is.
    for kind, _, offset, address, _, length, _, _ in segments:
        if kind == _LOAD and address <= strings < address + length:
            strings += offset - address
            break

    def texts(tag: int) -> list[str]:
        found = []
        for own, value in entries:
            if own == tag:
                text = os.pread(descriptor, _TEXT, strings + value)
                found.append(text.partition(b"\0")[0].decode("utf-8", "replace"))
        return found

    return Library(
        path=path,
        size=os.fstat(descriptor).st_size,
        machine=machine,
        soname=(texts(_SONAME) or [path.name])[0],
        needed=tuple(texts(_NEEDED)),
        rpath=":".join(texts(_RPATH)),
        runpath=":".join(texts(_RUNPATH)),
    )


def cache(path: Path = Path("/etc/ld.so.cache")) -> dict[str, list[Path]]:
    """What ldconfig wrote down: files by the name they are asked for, the preferred first; empty without that file."""
    try:
        data = path.read_bytes()
    except OSError:
        return {}
    start = data.find(_CACHE_MAGIC)  # older files have a table of another form before it
    if start < 0 or len(data) < start + _CACHE_ENTRIES_AT:
        return {}
    data = data[start:]
    _, count, _ = _CACHE_HEADER.unpack_from(data)
    found: dict[str, list[Path]] = {}
    for index in range(count):
        at = _CACHE_ENTRIES_AT + index * _CACHE_ENTRY.size
        if at + _CACHE_ENTRY.size > len(data):
            break
        _, key, value, _, _ = _CACHE_ENTRY.unpack_from(data, at)
        name, file = (data[place : data.find(b"\0", place)].decode("utf-8", "replace") for place in (key, value))
        found.setdefault(name, []).append(Path(file))
    return found


class Loader:
    """Where the dynamic loader would look, with these variables and on this system.

    Args:
        environment: of which LD_LIBRARY_PATH counts.
        program: whose own DT_RPATH counts for everything that it loads, and whose processor everything must fit.
    """

    def __init__(self, environment: Mapping[str, str], program: Library) -> None:
        parts = re.split("[:;]", environment["LD_LIBRARY_PATH"]) if environment.get("LD_LIBRARY_PATH") else []
        self.library_path = [Path(part or ".") for part in parts]
        self.machine = program.machine
        self._program = [] if program.runpath else self._directories(program.rpath, program.path)
        self._cache = cache()
        triplet = {62: "x86_64-linux-gnu", 183: "aarch64-linux-gnu"}.get(program.machine, "")
        roots = [Path(root) for root in ("/lib64", "/usr/lib64", "/lib", "/usr/lib")]
        # The directories that the C library of Debian and Ubuntu is built with, then everybody's.
        self.system = [root / triplet for root in roots[2:] if triplet] + roots
        self._names: dict[Path, frozenset[str]] = {}
        self._fits: dict[Path, bool] = {}

    def _directories(self, text: str, origin: Path) -> list[Path]:
        found = []
        for part in text.split(":"):
            for name, value in (("ORIGIN", str(origin.parent)), ("LIB", "lib"), ("PLATFORM", os.uname().machine)):
                part = part.replace(f"${{{name}}}", value).replace(f"${name}", value)
            if part:
                found.append(Path(part))
        return found

    def _in(self, directories: Iterable[Path], name: str) -> Path | None:
        for directory in directories:
            if name in self.names(directory) and self._usable(directory / name):
                return directory / name
        return None

    def names(self, directory: Path) -> frozenset[str]:
        """The names in a directory; none where it cannot be read."""
        if directory not in self._names:
            try:
                self._names[directory] = frozenset(path.name for path in directory.iterdir())
            except OSError:
                self._names[directory] = frozenset()
        return self._names[directory]

    def _usable(self, path: Path) -> bool:
        """Whether it is a library for this processor; the loader passes over others."""
        if path not in self._fits:
            library = read(path)
            self._fits[path] = library is not None and library.machine == self.machine
        return self._fits[path]

    def find(self, name: str, library: Library) -> tuple[Path | None, str]:
        """The file that `library` gets when it asks for a name, and by which rule; None when there is none."""
        if "/" in name:
            return (Path(name) if self._usable(Path(name)) else None), "its own path"
        if not library.runpath:
            own = self._directories(library.rpath, library.path)
            found = self._in([*own, *self._program], name)
            if found is not None:
                return found, "DT_RPATH"
        found = self._in(self.library_path, name)
        if found is not None:
            return found, LIBRARY_PATH
        found = self._in(self._directories(library.runpath, library.path), name)
        if found is not None:
            return found, "DT_RUNPATH"
        found = self.in_system(name)
        return found, SYSTEM if found is not None else ""

    def in_system(self, name: str) -> Path | None:
        """The file that ldconfig or the system's directories have for a name."""
        for path in self._cache.get(name, []):
            if self._usable(path):
                return path
        return self._in(self.system, name)
