"""What one machine remembers: the state directory, files that are whole or absent, locks, and sealed records.

Nothing here is a source of truth: a record that is lost costs a check or a question to a registry, and a record that
cannot be trusted is treated as lost.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

from builder.errors import Interrupted, LockTimeout, StateError

_log = logging.getLogger(__name__)

_KIND = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_FORMAT = 1
_DAY = 24 * 3600.0
_MOST_PRUNED = 2_000


def state_directory(environ: Mapping[str, str]) -> Path:
    """Where this machine's state lives: `IMGBUILD_STATE_DIR`, else `imgbuild` in the user's state directory.

    Raises:
        StateError: the environment names no home directory.
    """
    named = environ.get("IMGBUILD_STATE_DIR")
    if named:
        return Path(named).expanduser().absolute()
    # The XDG specification has relative paths ignored.
    base = environ.get("XDG_STATE_HOME", "")
    if base.startswith("/"):
        return Path(base) / "imgbuild"
    home = environ.get("HOME")
    if home:
        return Path(home) / ".local" / "state" / "imgbuild"
    try:
        return Path.home() / ".local" / "state" / "imgbuild"
    except RuntimeError as error:
        raise StateError("this user has no home directory", hint="set IMGBUILD_STATE_DIR") from error


def write_atomically(path: Path, data: bytes, *, mode: int = 0o666, lasting: bool = True) -> None:
    """Writes a file so that a reader, also after a crash, finds the old content or the new one, never a part.

    Args:
        path: the file; missing directories above it are made.
        data: its new content.
        mode: its permissions, before the umask.
        lasting: whether it must outlive a power failure too, which costs milliseconds for each file; False for what
            can be made again.

    Raises:
        StateError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                if lasting:
                    stream.flush()
                    os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        if lasting:
            _sync_directory(path.parent)
    except OSError as error:
        raise _state_error(error, path, "written") from error


def _sync_directory(path: Path) -> None:
    """Makes a rename in `path` last through a power failure, where the file system can."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def _state_error(error: OSError, path: Path, verb: str) -> StateError:
    hint = "set IMGBUILD_STATE_DIR to a directory of yours on a disk with space"
    return StateError(f"{path} cannot be {verb}: {error.strerror or error}", hint=hint)


class FileLock:
    """A lock between processes, held while its `with` block runs. It ends with its process, however that ends.

    Args:
        path: the lock's file; it stays.
        timeout: seconds to wait for it.
        cancel: ends the waiting when set.
        on_wait: is told once who holds it, when there is something to wait for.

    Raises:
        Interrupted: `cancel` was set.
        LockTimeout: another process holds it for longer; the message names that process.
        StateError: the file cannot be opened or locked.
    """

    def __init__(
        self,
        path: Path,
        timeout: float,
        *,
        cancel: threading.Event | None = None,
        on_wait: Callable[[str], None] = lambda holder: None,
    ) -> None:
        self._path = path
        self._timeout = timeout
        self._cancel = cancel
        self._on_wait = on_wait
        self._descriptor = -1

    def __enter__(self) -> FileLock:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise _state_error(error, self._path, "opened") from error
        try:
            self._acquire()
        except BaseException:
            os.close(self._descriptor)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The file must stay: a process that waits on its inode would otherwise hold another lock than a new one.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)

    def _acquire(self) -> None:
        deadline = time.monotonic() + self._timeout
        pause = 0.01
        told = False
        while not self._try():
            if self._cancel is not None and self._cancel.is_set():
                raise Interrupted(f"interrupted while waiting for another imgbuild ({self._holder()})")
            if not told and pause >= 0.25:  # not for the moments in which two runs merely meet
                told = True
                self._on_wait(self._holder())
            left = deadline - time.monotonic()
            if left <= 0:
                raise LockTimeout(
                    f"another imgbuild holds the lock {self._path} ({self._holder()}), and {self._timeout:g} s of "
                    "waiting were not enough",
                    hint="wait for it to end, or end it",
                )
            time.sleep(min(pause, left))
            pause = min(pause * 2, 0.25)
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        with contextlib.suppress(OSError):  # a full disk: the lock holds without the name
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(holder).encode(), 0)

    def _try(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise _state_error(error, self._path, "locked") from error
        return True

    def _holder(self) -> str:
        try:
            holder: object = json.loads(os.pread(self._descriptor, 4096, 0))
        except (OSError, ValueError):
            return "it has not said who it is"
        if not isinstance(holder, dict):
            return "it has not said who it is"
        return f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"


class Records:
    """Small JSON documents by kind and key, each sealed with the hash of its content, its kind and its key.

    The seal finds what was cut short, edited, or put in another's place. It is no signature: who can write here can
    also make one. Safe to use from several threads and processes; the last `put` wins.

    Args:
        directory: this machine's state directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "records"

    def put(self, kind: str, key: str, document: Mapping[str, object]) -> None:
        """Remembers `document` in place of an earlier one.

        Args:
            kind: lower-case letters, digits and `-`.
            key: any text.
            document: values that JSON can hold.

        Raises:
            StateError: it cannot be written.
        """
        envelope = {"format": _FORMAT, "kind": kind, "key": key, "document": document}
        sealed = {**envelope, "sha256": _seal(envelope)}
        write_atomically(self._path(kind, key), json.dumps(sealed, indent=1, sort_keys=True).encode() + b"\n")

    def get(self, kind: str, key: str) -> Mapping[str, object] | None:
        """What was last remembered; None when there is nothing, or nothing that can be believed (with a warning)."""
        path = self._path(kind, key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _state_error(error, path, "read") from error
        document = _opened(content, kind, key)
        if document is None:
            _log.warning("ignoring %s: it is damaged or was changed by hand", path)
        return document

    def forget(self, kind: str, key: str) -> None:
        """Removes a document; nothing happens when there is none."""
        path = self._path(kind, key)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _state_error(error, path, "removed") from error

    def prune(self, kinds: Sequence[str], *, days: int, gone: Callable[[str, Mapping[str, object]], bool]) -> int:
        """Removes old documents that nobody needs; looks at most once a day, and at most at the 2,000 oldest of a kind.

        What cannot be looked at or removed stays: it is in nobody's way.

        Args:
            kinds: which kinds.
            days: younger documents stay.
            gone: whether an older one may go, by its kind and content. One that cannot be believed goes unasked.

        Returns:
            how many were removed.

        Raises:
            StateError: that it looked cannot be written down.
        """
        now = time.time()
        marker = self._directory / ".pruned"
        if now - _written(marker, 0.0) < _DAY:
            return 0
        write_atomically(marker, b"", lasting=False)
        removed = 0
        for kind in kinds:
            files = ((_written(path, now), path) for path in (self._directory / kind).glob("*.json"))
            old = sorted(pair for pair in files if now - pair[0] > days * _DAY)
            for _, path in old[:_MOST_PRUNED]:
                with contextlib.suppress(OSError):
                    document = _opened(path.read_bytes(), kind, None)
                    if document is None or gone(kind, document):
                        path.unlink(missing_ok=True)
                        removed += 1
        return removed

    def _path(self, kind: str, key: str) -> Path:
        if not _KIND.fullmatch(kind):
            raise ValueError(f"{kind!r} is no kind of record")
        return self._directory / kind / f"{hashlib.sha256(key.encode()).hexdigest()}.json"


def _seal(envelope: Mapping[str, object]) -> str:
    canonical = json.dumps(envelope, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _written(path: Path, otherwise: float) -> float:
    """When a file was last written, in seconds since 1970."""
    try:
        return path.stat().st_mtime
    except OSError:
        return otherwise


def _opened(content: bytes, kind: str, key: str | None) -> Mapping[str, object] | None:
    """The document in a file's content, under any key for None; None when it cannot be believed."""
    try:
        decoded: object = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(decoded, dict):
        return None
    sealed = dict(_members(decoded))
    seal = sealed.pop("sha256", None)
    if sealed.get("format") != _FORMAT or sealed.get("kind") != kind or key not in (None, sealed.get("key")):
        return None
    if seal != _seal(sealed):
        return None
    document = sealed.get("document")
    return dict(_members(document)) if isinstance(document, dict) else None


def _members(decoded: Mapping[object, object]) -> Iterator[tuple[str, object]]:
    for key, value in decoded.items():
        if isinstance(key, str):
            yield key, value
