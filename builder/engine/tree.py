"""What a build's context is: a virtual tree of files made in memory and files on disk.

Everything is listed as owned by uid and gid 0. Links are kept as links; nothing here reads through one. Files on disk
are read in chunks, when the engine asks for them.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from builder.engine.disk import CHUNK, OnDisk
from builder.engine.errors import ContextError
from builder.engine.patterns import Patterns, Verdict, clean, has_wildcard

# Go's os.FileMode bits, which is how modes travel.
GO_DIRECTORY = 1 << 31
GO_LINK = 1 << 27
GO_FIFO = 1 << 25
GO_SETUID = 1 << 23
GO_SETGID = 1 << 22
GO_STICKY = 1 << 20

_EPOCH_NS = 1_000_000_000 * 10**9
"""2001-09-09: the modification time of directories made here, and the earliest one of files made here."""

_MOST_STEPS = 40
_MOST_FOLLOWED = 10_000
"""Links followed one after the other (as many as Linux follows), and paths that links may lead to in one listing."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file, directory, link or FIFO of a tree.

    Attributes:
        path: relative, with `/` between names.
        mode: Go's os.FileMode bits.
        size: in bytes; 0 for what is no regular file.
        mtime_ns: modification time, in nanoseconds since 1970.
        target: of a link.
        content: the bytes of a file in memory, or where a file lies on disk; None for what is no regular file.
    """

    path: str
    mode: int
    size: int = 0
    mtime_ns: int = _EPOCH_NS
    target: str = ""
    content: bytes | OnDisk | None = None

    @property
    def is_directory(self) -> bool:
        return bool(self.mode & GO_DIRECTORY)

    def chunks(self) -> Iterator[bytes]:
        """The file's bytes, in pieces of at most `CHUNK`.

        Raises:
            ContextError: the file cannot be read, or has become something else since it was listed.
        """
        if isinstance(self.content, bytes):
            for start in range(0, len(self.content), CHUNK):
                yield self.content[start : start + CHUNK]
        elif self.content is not None:
            yield from self.content.chunks(self.path)


class FileTree:
    """A tree of files. Fill it first, then list and read it from as many threads as needed.

    What is added later replaces what is there; a file added below a directory of the disk covers the file there.
    """

    def __init__(self) -> None:
        self._root = _Directory()

    def add_bytes(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Adds a file made in memory. Its modification time is derived from its content and mode.

        The engine takes a file of the same size and time for unchanged, so the time has to differ with the bytes.

        Raises:
            ContextError: `path` is absolute, empty, has `..` in it, or runs through a file.
        """
        self._put(path, _Leaf(data, mode & 0o7777))

    def add_link(self, path: str, target: str) -> None:
        """Adds a symbolic link. Raises ContextError as `add_bytes` does."""
        self._put(path, _Leaf(None, 0o777, target))

    def add_file(self, path: str, source: Path) -> None:
        """Adds a file of the disk, which stays there until the engine asks for it. A link is kept as a link.

        Raises:
            ContextError: as `add_bytes`; or there is no such file, or it is a directory.
        """
        try:
            status = source.lstat()
        except OSError as error:
            raise ContextError(f"cannot add {source} to the context: {error.strerror}") from error
        if stat.S_ISDIR(status.st_mode):
            raise ContextError(f"cannot add {source} to the context as a file: it is a directory")
        self._put(path, _Leaf(OnDisk(source.parent.absolute(), source.absolute())))

    def add_directory(self, path: str, source: Path) -> None:
        """Adds a directory of the disk with all below it; `path` may be `.` for the root of the tree.

        The directory itself may be reached through a link; links inside are kept as links.

        Raises:
            ContextError: as `add_bytes`; or there is no such directory.
        """
        if not source.is_dir():
            raise ContextError(f"cannot add {source} to the context: it is no directory")
        self._directory([] if path == "." else _names(path)).source = OnDisk(source.resolve(), source.resolve())

    def _put(self, path: str, leaf: _Leaf) -> None:
        names = _names(path)
        self._directory(names[:-1]).children[names[-1]] = leaf

    def _directory(self, names: Sequence[str]) -> _Directory:
        here = self._root
        for name in names:
            child = here.children.setdefault(name, _Directory())
            if isinstance(child, _Leaf):
                raise ContextError(f"{'/'.join(names)} in the context runs through the file {name}")
            here = child
        return here

    def entries(
        self,
        *,
        follow: Sequence[str] = (),
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> Iterator[Entry]:
        """Lists the tree in preorder, siblings sorted by their bytes.

        Args:
            follow: paths, with wildcards, to which the listing is limited, together with their parents and with
                what links on the way lead to inside the tree. Empty for the whole tree.
            include: patterns to which the listing is limited further.
            exclude: patterns of what to leave out, as in a `.dockerignore` file.

        Raises:
            ContextError: a directory cannot be read, or a device is part of the listing.
            PatternError: a pattern cannot be read.
        """
        limits = [list(include), self._followed(follow) if follow else []]
        walk = _Walk([Patterns(lines) for lines in limits if lines], Patterns(exclude))
        yield from walk.below(_Place(self._root, None), "", None, [])

    def read(self, path: str) -> bytes | None:
        """The content of one file, links not followed; None when there is no such file. For small files.

        Raises:
            ContextError: the file cannot be read.
        """
        entry = self._find(clean(path).split("/"))
        return b"".join(entry.chunks()) if entry and entry.content is not None else None

    def _place(self, names: Sequence[str]) -> _Place:
        place = _Place(self._root, None)
        for name in names:
            place = place.child(name)
        return place

    def _find(self, names: Sequence[str]) -> Entry | None:
        return self._place(names).entry("/".join(names))

    def _followed(self, paths: Sequence[str]) -> list[str]:
        """The paths that `paths` name, and those that links on the way lead to."""
        found: set[str] = set()
        links: set[str] = set()
        queue = [(clean(p), 0) for p in paths]
        while queue:
            path, steps = queue.pop()
            if path not in found and steps <= _MOST_STEPS and len(found) < _MOST_FOLLOWED:
                found.add(path)
                queue += [(further, steps + 1) for further in self._led_on(path, links)]
        # An empty path is the root of the tree, and so everything.
        return ["**"] if "" in found else sorted(found | links)

    def _led_on(self, path: str, links: set[str]) -> list[str]:
        """The paths that `path` leads to in one step: its first link resolved, or its first wildcard expanded.

        A link on the way is added to `links`: it is listed too, but not all that it leads to.
        """
        names = path.split("/")
        for depth, name in enumerate(names):
            parent, rest = names[:depth], names[depth + 1 :]
            if has_wildcard(name):
                place = self._place(parent)
                pattern = Patterns([name])
                matching = [n for n in place.names("/".join(parent)) if pattern.match(n).matched]
                # A name found on disk may itself hold a wildcard; following it again would not end.
                plain = [n for n in matching if not has_wildcard(n)]
                return ["/".join([*parent, n, *rest]) for n in plain]
            entry = self._find([*parent, name])
            if entry is None:
                return []
            if entry.target:
                links.add(entry.path)
                base = [] if entry.target.startswith("/") else parent
                return [clean("/".join([*base, entry.target, *rest]))]
        return []


def _names(path: str) -> list[str]:
    names = path.split("/")
    if path.startswith("/") or "\0" in path or any(n in ("", ".", "..") for n in names):
        raise ContextError(f"{path!r} is no path inside a context: relative, without '.' or '..'")
    return names


@dataclass
class _Directory:
    """A directory made here: what was added, on top of what lies in `source`."""

    children: dict[str, _Directory | _Leaf] = field(default_factory=dict)
    source: OnDisk | None = None


@dataclass(frozen=True)
class _Leaf:
    """Bytes in memory, a link, or something on disk that is looked at when it is listed."""

    content: bytes | OnDisk | None
    mode: int = 0o644
    target: str = ""


@dataclass(frozen=True)
class _Place:
    """A place in the tree: what was added there, and what lies there on disk. Both may be missing."""

    node: _Directory | _Leaf | None
    disk: OnDisk | None

    # Asked once for every child.
    @cached_property
    def _directory_on_disk(self) -> OnDisk | None:
        if isinstance(self.node, _Leaf):
            return None
        if self.node is not None and self.node.source is not None:
            return self.node.source
        disk = self.disk
        return disk if disk is not None and not disk.path.is_symlink() and disk.path.is_dir() else None

    def child(self, name: str) -> _Place:
        node = self.node.children.get(name) if isinstance(self.node, _Directory) else None
        disk = self._directory_on_disk
        return _Place(node, disk.child(name) if disk is not None else None)

    def names(self, path: str) -> list[str]:
        """What is in the directory here, sorted by bytes; nothing when this is none."""
        names = set(self.node.children) if isinstance(self.node, _Directory) else set()
        disk = self._directory_on_disk
        if disk is not None:
            try:
                names.update(entry.name for entry in os.scandir(disk.path))
            except OSError as error:
                raise ContextError(f"cannot list {path or '.'} of the context: {error.strerror}") from error
        return sorted(names, key=os.fsencode)

    def entry(self, path: str, *, refuse_devices: bool = False) -> Entry | None:
        """How this is listed; None for a socket, for what vanished, and for a device that is not refused."""
        node = self.node
        if isinstance(node, _Directory):
            disk = self._directory_on_disk
            if disk is None:
                return Entry(path=path, mode=GO_DIRECTORY | 0o755)
            return _entry_on_disk(disk, path, refuse_devices)
        if node is None:
            return _entry_on_disk(self.disk, path, refuse_devices) if self.disk else None
        if isinstance(node.content, OnDisk):
            return _entry_on_disk(node.content, path, refuse_devices)
        if node.content is None:
            return Entry(path=path, mode=GO_LINK | 0o777, target=node.target)
        return Entry(
            path=path,
            mode=_go_mode(stat.S_IFREG | node.mode),
            size=len(node.content),
            mtime_ns=_content_time(node.content, node.mode),
            content=node.content,
        )


@dataclass(frozen=True)
class _Walk:
    """One listing: what it is limited to (all of `wanted` must match), and what it leaves out."""

    wanted: list[Patterns]
    excluded: Patterns

    def below(self, place: _Place, path: str, above: list[Verdict] | None, pending: list[Entry]) -> Iterator[Entry]:
        """Lists what is below a directory.

        Args:
            above: what each list of patterns says of the directory itself.
            pending: directories on the way here that are listed only once something inside them is.
        """
        for name in place.names(path):
            here = f"{path}/{name}" if path else name
            verdicts = [
                patterns.match(here, above[i] if above else None)
                for i, patterns in enumerate([*self.wanted, self.excluded])
            ]
            listed = all(v.matched for v in verdicts[:-1]) and not verdicts[-1].matched
            child = place.child(name)
            entry = child.entry(here, refuse_devices=listed)
            if entry is None:
                continue
            if listed:
                yield from pending
                pending.clear()
                yield entry
            if entry.is_directory and (listed or self._may_be_below(here, verdicts)):
                if not listed:
                    pending.append(entry)
                yield from self.below(child, here, verdicts, pending)
                if pending and pending[-1] is entry:
                    pending.pop()

    def _may_be_below(self, path: str, verdicts: list[Verdict]) -> bool:
        """Whether something below a directory that is not listed itself may be."""
        for patterns, verdict in zip(self.wanted, verdicts, strict=False):
            if not verdict.matched and not patterns.may_match_below(path, negated=False):
                return False
        return not verdicts[-1].matched or self.excluded.may_match_below(path, negated=True)


def _entry_on_disk(disk: OnDisk, path: str, refuse_devices: bool) -> Entry | None:
    try:
        status = disk.path.lstat()
        target = os.readlink(disk.path) if stat.S_ISLNK(status.st_mode) else ""  # noqa: PTH115 - bytes as they are
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ContextError(f"cannot look at {path} of the context: {error.strerror}") from error
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        return Entry(path=path, mode=GO_LINK | 0o777, mtime_ns=status.st_mtime_ns, target=target)
    if stat.S_ISSOCK(mode):
        return None
    if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
        if not refuse_devices:
            return None
        raise ContextError(
            f"{path} in the context is a device, which a build cannot be given",
            hint="remove it, or leave it out in .dockerignore",
        )
    regular = stat.S_ISREG(mode)
    return Entry(
        path=path,
        mode=_go_mode(mode),
        size=status.st_size if regular else 0,
        mtime_ns=status.st_mtime_ns,
        content=disk if regular else None,
    )


def _go_mode(mode: int) -> int:
    out = mode & 0o777
    for bit, go in (
        (stat.S_ISUID, GO_SETUID),
        (stat.S_ISGID, GO_SETGID),
        (stat.S_ISVTX, GO_STICKY),
    ):
        out |= go if mode & bit else 0
    if stat.S_ISDIR(mode):
        out |= GO_DIRECTORY
    elif stat.S_ISFIFO(mode):
        out |= GO_FIFO
    return out


def _content_time(data: bytes, mode: int) -> int:
    """A time between 2001 and 2010 that differs when the bytes or the mode do."""
    digest = hashlib.sha256(mode.to_bytes(4, "big") + data).digest()
    seconds = int.from_bytes(digest[:4], "big") >> 4
    nanoseconds = int.from_bytes(digest[4:8], "big") % 10**9
    return _EPOCH_NS + seconds * 10**9 + nanoseconds
