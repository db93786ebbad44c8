"""The directory of one run: what a check found, for people, for CI systems, and for what is signed later.

    run.json       what was asked, of which image, on what, and what came of it; `imgbuild.run/1`
    result.json    as the container wrote it; `result.refused` when it could not be taken for a result
    log.txt        the end of what the container wrote
    junit.xml      for CI systems
    summary.md     for people
    events/        TensorBoard event files, where something was trained
    …              what `add` puts there: statements, bundles, an SBOM

A directory appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from builder.check import CheckOutcome, CheckRun
from builder.errors import StateError
from builder.matrix import Policy
from builder.records import write_atomically
from builder.runs import events
from builder.runs.junit import junit
from builder.runs.markdown import summary
from builder.runs.model import Run
from builder.runs.reading import SCHEMA, run_from_json

_log = logging.getLogger(__name__)

KEEP = 50
"""Runs that are kept in the state directory; each is some hundred kilobytes."""

EVENTS = "events"

_NAME = re.compile(r"\d{8}T\d{6}Z-[A-Za-z0-9._-]+")
"""A run's directory. Nothing else is ever removed."""

_TEMPORARY = re.compile(r"\.\d{8}T\d{6}Z-[A-Za-z0-9._-]+\.tmp")
_ABANDONED = 86400.0
"""Seconds after which a temporary directory belongs to nobody: writing one takes less than a second."""

_ADDED = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_OURS = frozenset({"run.json", "result.json", "result.refused", "log.txt", "junit.xml", "summary.md", EVENTS})
_READ_CAP = 8 << 20
"""Bytes of a run.json. Its checks come from a result of at most 1 MiB; escapes and spaces make that at most 4."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A run that was found, and its directory."""

    path: Path
    run: Run


def runs_directory(state_dir: Path) -> Path:
    """Where runs are kept unless somebody chose another place."""
    return state_dir / "runs"


def place(state_dir: Path, chosen: Path | None) -> tuple[Path, int | None]:
    """The directory for runs, and how many are kept there, for `write_run`: all of them where a user chose it."""
    return (runs_directory(state_dir), KEEP) if chosen is None else (chosen, None)


def write_run(directory: Path, run: Run, check: CheckRun, *, keep: int | None = None) -> Path:
    """Writes the directory of a run, `UTC-CELL-IMAGE`, and returns it.

    Args:
        directory: where; it is made if it is not there.
        run, check: the run, and what `check_image` returned.
        keep: how many runs stay in `directory`, the newest, at least one; the others are removed. None removes
            nothing, which is right for a directory that somebody chose.

    Raises:
        StateError: it cannot be written.
    """
    name = _name(run)
    temporary = directory / f".{name}-{secrets.token_hex(4)}.tmp"
    try:
        temporary.mkdir(parents=True)
        try:
            for path, data in _contents(run, check).items():
                _write(temporary / path, data)
            _sync(temporary)
            final = _rename(temporary, directory, name)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync(directory)
    except OSError as error:
        raise StateError(
            f"the run cannot be written to {directory}: {error.strerror or error}",
            hint="free space there, or choose another directory with --runs",
        ) from error
    if keep is not None:
        _prune(directory, max(1, keep))
    return final


def add(directory: Path, name: str, data: bytes) -> Path:
    """Puts a file into a run's directory, whole or not at all, in place of one of that name.

    Args:
        directory: as `write_run` returned it.
        name: for instance `statement.json`: lower-case letters, digits, `.`, `_` and `-`; not one that `write_run`
            wrote.

    Raises:
        StateError: it cannot be written.
        ValueError: the name is not allowed.
    """
    if not _ADDED.fullmatch(name) or name in _OURS:
        raise ValueError(f"{name!r} is no name for a file that is added to a run")
    path = directory / name
    if not directory.is_dir():
        # Made anew it would be a run without a run.json.
        raise StateError(f"{path} cannot be written: the run's directory was removed")
    write_atomically(path, data)
    return path


def latest(
    directory: Path,
    *,
    image_id: str = "",
    content_id: str = "",
    name: str = "",
    since: datetime | None = None,
    limit: int = KEEP,
) -> tuple[Stored, ...]:
    """The runs in a directory, the newest first; one that cannot be read is left out with a warning.

    Args:
        directory: as given to `write_run`; there need not be one.
        image_id, content_id: of this image: runs with the one or the other. Both empty for any image.
        name: only runs of this cell or reference; empty for all.
        since: only runs that started at that time (to the second) or later.
        limit: no more than these.

    Raises:
        StateError: the directory cannot be read.
    """
    found: list[Stored] = []
    for path in reversed(_runs(directory)):
        if len(found) >= limit:
            break
        run = read_run(path)
        if run is None:
            continue
        if (image_id or content_id) and not (
            (image_id and run.image_id == image_id) or (content_id and run.content_id == content_id)
        ):
            continue
        if (name and run.name != name) or (since is not None and run.started < since.replace(microsecond=0)):
            continue
        found.append(Stored(path=path, run=run))
    return tuple(found)


def read_run(path: Path) -> Run | None:
    """The run whose directory this is; None when it cannot be read, with a warning."""
    file = path / "run.json"
    try:
        with file.open("rb") as stream:
            data = stream.read(_READ_CAP + 1)
        if len(data) > _READ_CAP:
            raise ValueError(f"it has more than {_READ_CAP} bytes")
        return run_from_json(data)
    except (OSError, ValueError) as error:
        _log.warning("ignoring %s: %s", file, error)
        return None


def _name(run: Run) -> str:
    cell = re.sub(r"[^A-Za-z0-9._-]+", "-", run.name)[:100]
    return f"{run.started:%Y%m%dT%H%M%SZ}-{cell}-{run.image_id.removeprefix('sha256:')[:12]}"


def _contents(run: Run, check: CheckRun) -> dict[str, bytes]:
    """Every file by its path relative to the run's directory."""
    contents = {
        "run.json": _run_json(run),
        "junit.xml": junit([run]),
        "summary.md": summary([run]).encode("utf-8", "replace"),
    }
    if check.raw:
        contents["result.json" if check.result is not None else "result.refused"] = check.raw
    if check.log_tail:
        contents["log.txt"] = _printable(check.log_tail).encode("utf-8", "replace")
    curves = events.event_file(run.checks, run.started)
    if curves is not None:
        contents[f"{EVENTS}/{events.file_name(run.started)}"] = curves
    return contents


def _printable(log: str) -> str:
    """A log whose reading on a terminal does nothing but show it."""
    return "".join(character if character.isprintable() or character in "\n\t" else "\ufffd" for character in log)


def _run_json(run: Run) -> bytes:
    """One field a line, and one check a line."""
    document: dict[str, object] = {
        "schema": SCHEMA,
        "cell": run.name,
        "image_id": run.image_id,
        "content_id": run.content_id or None,
        "digest": run.digest or None,
        "suite": run.suite,
        "nonce": run.nonce,
        "level": run.level.value,
        "reached": run.reached.value if run.reached else None,
        "required": _policy_json(run.policy) if run.policy else None,
        "verdict": run.status.value,
        "reasons": list(run.reasons),
        "unverified": list(run.unverified),
        "environment": dict(run.environment),
        "started": run.started.isoformat(timespec="milliseconds"),
        "seconds": round(run.seconds, 3),
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in document.items()]
    checks = ",\n".join(f"  {json.dumps(_check_json(check), allow_nan=False)}" for check in run.checks)
    lines.append(f' "checks": [\n{checks}\n ]' if checks else ' "checks": []')
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _policy_json(policy: Policy) -> Mapping[str, object]:
    return {
        "public": policy.public.value,
        "verified": policy.verified.value,
        "max_age_days": policy.max_age_days,
    }


def _check_json(check: CheckOutcome) -> Mapping[str, object]:
    return {
        "name": check.name,
        "level": check.level.value,
        "status": check.status.value,
        "reason": check.reason,
        "seconds": round(check.seconds, 3),
        "measured": {name: _finite(value) for name, value in check.measured.items()},
        "series": {name: [_finite(value) for value in curve] for name, curve in check.series.items()},
    }


def _finite(value: object) -> object:
    """JSON has no numbers that are not finite: they are words, as in the result."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    if path.parent.name == EVENTS:
        _sync(path.parent)


def _sync(path: Path) -> None:
    """Makes what was made in a directory last through a power failure, where the file system can."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def _rename(temporary: Path, directory: Path, name: str) -> Path:
    """Gives the directory its name; a second run of one image in one second gets a number."""
    for attempt in range(1, 1000):
        final = directory / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            # Over a directory with files in it, this fails on every POSIX system.
            return temporary.rename(final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
    raise FileExistsError(errno.EEXIST, "too many runs of one image in one second", str(directory / name))


def _runs(directory: Path) -> list[Path]:
    """The runs in a directory, the oldest first: their names begin with the time."""
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StateError(f"{directory} cannot be read: {error.strerror or error}") from error
    paths = [Path(entry.path) for entry in entries if _NAME.fullmatch(entry.name) and _is_directory(entry)]
    return sorted(paths, key=_order)


def _order(path: Path) -> tuple[str, int, str]:
    """By time; within one second in the order of writing, as the file system knows it."""
    try:
        written = (path / "run.json").stat().st_mtime_ns
    except OSError:
        written = 0
    return path.name[:16], written, path.name


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _prune(directory: Path, keep: int) -> None:
    """Removes the oldest runs, and what killed processes left. Several processes may do so at once."""
    runs = _runs(directory)
    for path in runs[: max(0, len(runs) - keep)]:
        doomed = directory / f".{path.name}-{secrets.token_hex(4)}.tmp"
        # Out of sight first, so that nobody reads half a run; who comes second finds it gone.
        with contextlib.suppress(OSError):
            path.rename(doomed)
            shutil.rmtree(doomed)
    horizon = time.time() - _ABANDONED
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory):
            if _TEMPORARY.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    state = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(state.st_mode) and state.st_mtime < horizon:
                        shutil.rmtree(entry.path)
