# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What an image with JupyterLab promises: a server that lets in whoever has its token, kernels that compute with the
image's Python, and a health check that tells a server that answers from one that does not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.checks import processes
from builder.checks.contract import Group, Measured, NotRun, fail, short

#: Seconds from the start of a server to its first answer; it takes about 3 on an idle machine.
START_DEADLINE = 60.0
#: Seconds from SIGTERM to its end.
STOP_DEADLINE = 20.0
#: Seconds for one answer.
ANSWER_DEADLINE = 20.0

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks no proxy: what it asks for is on this machine."""


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        process: its process.
        port: on 127.0.0.1.
        token: what it lets in.
        log: the file with what it wrote.
    """

    process: subprocess.Popen[bytes]
    port: int
    token: str
    log: Path

    def ask(self, path: str, *, token: str = "", data: object = None, deadline: float = ANSWER_DEADLINE) -> Answer:
        """Asks for a path of it; with `data`, posts that as JSON.

        Raises:
            OSError: there was no answer.
        """
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=body)
        if token:
            request.add_header("Authorization", f"token {token}")
        try:
            with _direct.open(request, timeout=deadline) as answer:
                return Answer(answer.status, answer.read())
        except urllib.error.HTTPError as refused:
            with refused:
                return Answer(refused.code, refused.read())

    def said(self) -> str:
        """The end of what it wrote."""
        return short(self.log.read_text(encoding="utf-8", errors="replace")[-4000:])


@dataclass(frozen=True)
class Answer:
    """An answer of a server: its status and its body."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def launcher() -> list[str]:
    """The words that begin a start: the `jupyter` of this interpreter, or its module."""
    beside = Path(sys.executable).with_name("jupyter")
    found = str(beside) if beside.exists() else shutil.which("jupyter")
    return [found, "lab"] if found else [sys.executable, "-m", "jupyterlab"]


@contextmanager
def started() -> Iterator[Server]:
    """Starts `jupyter lab` as this user, in a directory of its own, and ends it with all that it started.

    Raises:
        Failed: it ended, or gave no answer in time.
    """
    directory = Path(tempfile.mkdtemp(prefix="jupyter-", dir=Path.cwd()))
    token, port = secrets.token_hex(16), _free_port()
    words = [*launcher(), f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    environment = {**os.environ, "JUPYTER_TOKEN": token}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            words,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        server = Server(process, port, token, directory / "log")
        try:
            _wait(server)
            yield server
        finally:
            processes.kill(process, leads=True)


def stop(server: Server) -> float:
    """Asks it to end, as `docker stop` does, and gives the seconds that it took.

    Raises:
        Failed: it did not end in time, or not by itself.
    """
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    try:
        code = server.process.wait(STOP_DEADLINE)
    except subprocess.TimeoutExpired:
        fail(f"jupyter lab still runs {STOP_DEADLINE:.0f} s after SIGTERM", detail=server.said())
    if code not in {0, -signal.SIGTERM}:
        fail(f"jupyter lab {processes.ending(code)} after SIGTERM", detail=server.said())
    return time.monotonic() - began


def _free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def _wait(server: Server) -> None:
    end = time.monotonic() + START_DEADLINE
    while time.monotonic() < end:
        code = server.process.poll()
        if code is not None:
            fail(f"jupyter lab {processes.ending(code)} before it answered", detail=server.said())
        try:
            if server.ask("/api", deadline=2).status < 500:
                return
        except OSError:
            pass  # not yet
        time.sleep(0.1)
    fail(f"jupyter lab gave no answer within {START_DEADLINE:.0f} s", detail=server.said())


def _prepare() -> tuple[Any, Measured]:
    if importlib.util.find_spec("jupyterlab") is None:
        raise NotRun("jupyterlab is not installed")
    return None, {"jupyterlab": {"version": importlib.metadata.version("jupyterlab")}}


GROUP = Group(needs=("jupyterlab",), prepare=_prepare, deadline=60)
