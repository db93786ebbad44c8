"""Imports each framework once, as a stranger would: HOME=/, no user name; and finds out what stood in the way.

The checks of this group share one import of each, since an import is most of what the level `static` costs.
"""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.checks.contract import NotRun, short
from builder.checks.processes import end, ending, kill, marked

#: What is imported where it is installed. `tempfile`, which wants a place to write, stands for Python itself.
FRAMEWORKS = ("torch", "tensorflow", "jax", "mxnet")
PLAIN = "tempfile"

#: Seconds for one import; torch takes 2 and TensorFlow 6 on an idle machine. Whichever check is the first waits for
#: all of them, and again for those that fail.
DEADLINE = 60.0

#: Seconds for helpers of an import to notice that it ended; only what stays takes them.
LEAVING = 10.0

HOME, READ_ONLY, USER, NETWORK, IMPORT = "home", "readonly", "user", "network", "mapped"

#: Marks the processes that a probe starts, for whoever looks for what outlived it.
MARK = "IMGBUILD_CHECK_PROBE"


@dataclass(frozen=True)
class Import:
    """One module's import.

    Attributes:
        module: its name.
        blame: which of this group's checks has to tell of its failure; empty where it succeeded with HOME=/.
        error: what was raised, in one line; empty where nothing was.
        detail: the end of the traceback.
        path: the file that the error is about, if any.
        mapped: files of the libraries that it loaded.
        network: whom it asked, one sentence each.
        children: processes that it had started and that were there at its end: name, id, state.
        left: processes that outlived it: name, id.
        writes: files outside the places for temporary files that it opened for writing, in vain or not.
        hangs: whether it was killed because it did not end.
    """

    module: str
    blame: str = ""
    error: str = ""
    detail: str = ""
    path: str = ""
    mapped: tuple[str, ...] = ()
    network: tuple[str, ...] = ()
    children: tuple[tuple[str, int, str], ...] = ()
    left: tuple[tuple[str, int], ...] = ()
    writes: tuple[str, ...] = ()
    hangs: bool = False

    def expect_imported(self, check: str) -> None:
        """Leaves the check that calls it not run where the import failed and another check tells why."""
        if self.blame and self.blame not in (check, HOME):
            raise NotRun(f"{self.module} cannot be imported, see static.{self.blame}: {self.error}")


def modules() -> tuple[str, ...]:
    """What is imported in this image."""
    return (PLAIN, *(name for name in FRAMEWORKS if importlib.util.find_spec(name) is not None))


def stranger() -> dict[str, str]:
    """The environment that a user gets whom the image does not know, where nothing else sets HOME and USER."""
    kept = {key: value for key, value in os.environ.items() if key not in ("USER", "LOGNAME", "LNAME", "USERNAME")}
    return {**kept, "HOME": "/"}


def import_all(source: str, directory: Path) -> tuple[Import, ...]:
    """Imports every module; `source` is that of `_probe`, `directory` a place for its reports."""
    done: list[Import] = []
    for module in modules():
        done.append(_import(source, directory, module))
        if done[-1].hangs:
            break  # the others would most likely hang as well, each for as long
    return tuple(done)


def _import(source: str, directory: Path, module: str) -> Import:
    first = _probe(source, directory / f"{module}-1.json", module, stranger())
    if not first.error or first.hangs:
        return first
    home = directory / f"{module}-home"
    home.mkdir()
    known = {**os.environ, "HOME": str(home), "USER": "user", "LOGNAME": "user"}
    second = _probe(source, directory / f"{module}-2.json", module, known)
    if not second.error:
        return Import(
            module,
            blame=HOME,
            error=first.error,
            detail=first.detail,
            path=first.path,
            mapped=second.mapped,
            network=(*first.network, *second.network),
            children=second.children,
            left=(*first.left, *second.left),
            writes=(*first.writes, *second.writes),
        )
    return second


def _blame(error: dict[str, Any], network: tuple[str, ...]) -> str:
    """Which check tells of an import that failed with a home directory, too."""
    if error["errno"] == errno.EROFS:
        return READ_ONLY
    if error["errno"] in (errno.EACCES, errno.EPERM):
        return USER
    return NETWORK if network else IMPORT


def _probe(source: str, report: Path, module: str, environment: dict[str, str]) -> Import:
    mark = f"{report.name}-{os.getpid()}"
    log = report.with_suffix(".log")
    with log.open("wb") as output:  # no pipe: what the import leaves running would hold it open
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", source, module, str(report)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment, MARK: mark},
            cwd=report.parent,
            start_new_session=True,
        )
    try:
        process.wait(DEADLINE)
    except subprocess.TimeoutExpired:
        kill(process, leads=True)
        return Import(module, blame=IMPORT, error=f"the import did not end within {DEADLINE:g} s", hangs=True)
    left = _outlived(mark)
    if not report.exists() or process.returncode != 0:
        text = log.read_bytes().decode("utf-8", "replace")
        last = (text.strip().splitlines() or ["it wrote nothing"])[-1]
        how = f"its process {ending(process.returncode)}: {last}"
        return Import(module, blame=IMPORT, error=how, detail=short(text), left=left)
    found = json.loads(report.read_text(encoding="utf-8"))
    network = tuple(_asked(*event) for event in found["network"] if _beyond(*event))
    error = found["error"]
    return Import(
        module,
        blame=_blame(error, network) if error else "",
        error=error["text"] if error else "",
        detail=error["detail"] if error else "",
        path=error["path"] if error else "",
        mapped=tuple(found["mapped"]),
        network=network,
        children=tuple((name, pid, state) for name, pid, state in found["children"]),
        left=left,
        writes=tuple(path for path in found["writes"] if not _for_writing(path)),
    )


def _outlived(mark: str) -> tuple[tuple[str, int], ...]:
    """The processes that an import left running and that do not end by themselves at once; they are killed."""
    limit = time.monotonic() + LEAVING
    left = marked(MARK, mark)
    while left and time.monotonic() < limit:
        time.sleep(0.02)
        left = marked(MARK, mark)
    end(left)
    return tuple((name, pid) for pid, name in left.items())


def _for_writing(path: str) -> bool:
    """Whether a file is where anybody may write, or is bytecode, which Python writes only where it can."""
    places = ("/tmp/", "/dev/", "/proc/", os.environ.get("TMPDIR", "/tmp").rstrip("/") + "/", str(Path.cwd()) + "/")
    return path.startswith(places) or "__pycache__" in path


def _beyond(event: str, host: str, port: str) -> bool:
    """Whether something leaves this very container; looking up what is an address already does not."""
    if host in ("localhost", "", "None", socket.gethostname()):
        return False
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return True
    return bool(port) and not address.is_loopback and not address.is_unspecified


def _asked(event: str, host: str, port: str) -> str:
    return f"{event} {host}:{port}" if port else f"{event} {host}"
