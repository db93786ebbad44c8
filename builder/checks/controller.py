"""Runs every group of checks in a process of its own and writes one result.

    python3 suite.pyz --request REQUEST.json --results DIRECTORY

The request is `{"schema", "nonce", "level", "uid", "gid"}`. The result, `DIRECTORY/result.json`, appears whole or not
at all. The exit code is 0 when it was written, whatever it says; judging it is the host's business.

A check that kills its process, or hangs, costs only itself: the rest of its group starts again in a new process.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.checks import ranks, worker
from builder.checks.contract import (
    FAILED,
    LEVELS,
    NOT_RUN,
    REQUEST_SCHEMA,
    RESULT_SCHEMA,
    Check,
    Group,
    groups,
    short,
    write_json,
)
from builder.checks.facts import base_facts
from builder.checks.processes import kill

#: Seconds that a worker may take to begin its next check, or to end after its last one.
GRACE = 20.0
POLL = 0.02


@dataclass(frozen=True)
class Request:
    """What the host asks for."""

    nonce: str
    level: str
    document: Mapping[str, Any]


def say(line: str) -> None:
    """A line for whoever watches the container; nothing reads it back."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def read_request(path: Path) -> Request:
    """Raises ValueError when the file is no request that this suite understands."""
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or document.get("schema") != REQUEST_SCHEMA:
        raise ValueError(f"the request is not of schema {REQUEST_SCHEMA}")
    nonce, level = document.get("nonce"), document.get("level")
    if not isinstance(nonce, str) or not nonce:
        raise ValueError("the request has no nonce")
    if level not in LEVELS:
        raise ValueError(f"the request's level is {level!r}, not one of {', '.join(LEVELS)}")
    return Request(nonce, str(level), document)


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


class GroupRun:
    """Runs one group until each of its checks has an outcome."""

    def __init__(self, group: Group, checks: list[Check], directory: Path) -> None:
        self.group = group
        self.directory = directory
        self.todo = list(checks)
        self.facts: dict[str, Any] = {}
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.attempt = 0
        self.running: Check | None = None
        self.prepared = False

    def run(self) -> None:
        """Starts processes until nothing is left to do; each one settles at least one check."""
        while self.todo:
            self.attempt += 1
            self._attempt()

    def _settle(self, check: Check, status: str, reason: str, seconds: float, measured: object) -> None:
        self.todo.remove(check)
        self.outcomes[check.name] = {
            "status": status,
            "reason": short(reason, 600),
            "seconds": seconds,
            "measured": measured,
        }

    def _start(self, directory: Path) -> subprocess.Popen[bytes]:
        environment = dict(os.environ)
        if not self.group.image_home:
            home = directory / "home"
            home.mkdir()
            environment["HOME"] = str(home)
        command = [sys.executable, str(Path(sys.argv[0]).resolve()), "--worker", self.group.name]
        command += ["--checks", ",".join(check.name for check in self.todo), "--results", str(directory)]
        with (directory / "output").open("wb") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env=environment,
                start_new_session=True,
            )

    def _attempt(self) -> None:
        directory = self.directory / f"{self.group.name}-{self.attempt}"
        directory.mkdir()
        self.running, self.prepared = None, False
        process = self._start(directory)
        events = directory / worker.EVENTS
        position, since, limit = 0, time.monotonic(), self.group.deadline
        while True:
            ended = process.poll() is not None  # asked first: what it wrote before its end is read below
            text = events.read_bytes()[position:] if events.exists() else b""
            lines = text[: text.rfind(b"\n") + 1]
            position += len(lines)
            for line in lines.splitlines():
                self._take(json.loads(line))
                since = time.monotonic()
                limit = self.running.deadline if self.running else GRACE
            if ended or not self.todo:
                break
            if time.monotonic() - since > limit:
                kill(process, leads=True)
                self._lost(f"did not end within {limit:g} s and was killed", since, directory)
                return
            time.sleep(POLL)
        if self.todo:
            self._lost(ending(process.returncode), since, directory)
        kill(process, leads=True)

    def _take(self, event: dict[str, Any]) -> None:
        """Follows one event of the worker."""
        if event["event"] == "prepared":
            self.prepared = True
            self.facts.update(event["facts"])
        elif event["event"] == "unprepared":
            for check in list(self.todo):
                self._settle(check, event["status"], event["reason"], 0.0, event["measured"])
        elif event["event"] == "begin":
            self.running = next(check for check in self.todo if check.name == event["check"])
        elif event["event"] == "end" and self.running is not None:
            self._settle(self.running, event["status"], event["reason"], event["seconds"], event["measured"])
            self.running = None

    def _lost(self, how: str, since: float, directory: Path) -> None:
        """The process is gone before all was done: what was running failed, and what it printed last is kept."""
        output = (directory / "output").read_bytes()[-4000:].decode("utf-8", "replace")
        measured = {"detail": short(output)}
        seconds = round(time.monotonic() - since, 3)
        if self.running is not None:
            self._settle(self.running, FAILED, f"the check {how}", seconds, measured)
            return
        reason = f"the process of the group {self.group.name} {how}"
        if not self.prepared:
            reason = f"preparing the group {self.group.name} failed: its process {how}"
        for check in list(self.todo):
            self._settle(check, FAILED, reason, seconds, measured)


def run_suite(request: Request) -> dict[str, Any]:
    """Runs all groups, one after the other, and returns the result."""
    started, clock = datetime.datetime.now(datetime.timezone.utc), time.monotonic()
    facts = base_facts()
    checks = []
    top = LEVELS.index(request.level)
    work = Path(tempfile.mkdtemp(prefix="imgbuild-check-"))
    os.environ["IMGBUILD_CHECK_REQUEST"] = json.dumps(dict(request.document))
    try:
        for group in groups():
            wanted = [check for check in group.checks if LEVELS.index(check.level) <= top]
            run = GroupRun(group, wanted, work)
            began = time.monotonic()
            run.run()
            say(f"{group.name}: {time.monotonic() - began:.1f} s")
            facts.update(run.facts)
            above = {
                "status": NOT_RUN,
                "reason": f"the request goes up to level {request.level}",
                "seconds": 0.0,
                "measured": {},
            }
            for check in group.checks:
                outcome = run.outcomes.get(check.name, above)
                checks.append({"name": check.name, "level": check.level, **outcome})
                say(f"{outcome['status']:8} {check.name} {outcome['seconds']:.1f} s")
                if outcome["reason"]:
                    say(f"         {outcome['reason']}")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {
        "schema": RESULT_SCHEMA,
        "nonce": request.nonce,
        "complete": True,
        "level": request.level,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - clock, 3),
        "facts": facts,
        "checks": checks,
    }


def main() -> int:
    """The zipapp's entry: the controller, or one of the processes that it starts."""
    parser = argparse.ArgumentParser(prog="suite.pyz", description="Checks the image it runs in.")
    parser.add_argument("--request", type=Path)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--list", action="store_true", help="print the checks and what they catch")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--checks", default="", help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.list:
        for group in groups():
            for check in group.checks:
                say(f"{check.name} [{check.level}, {check.deadline:g} s] {check.catches}")
        return 0
    if arguments.rank is not None:
        return ranks.main(arguments.rank)
    if arguments.results is None:
        parser.error("--results is missing")
    if arguments.worker is not None:
        return worker.main(arguments.worker, arguments.checks.split(","), arguments.results)
    if arguments.request is None:
        parser.error("--request is missing")
    result = run_suite(read_request(arguments.request))
    write_json(arguments.results / "result.json", result)
    return 0
