"""Runs one group of checks in processes of its own until each check has an outcome."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from builder.checks import worker
from builder.checks.contract import FAILED, NOT_RUN, PASSED, Check, Group, short
from builder.checks.processes import end, ending, kill, marked

#: Seconds that a worker may take to begin its next check, or to end after its last one.
GRACE = 20.0
POLL = 0.02
#: Seconds for what a group started to notice that it is over, and for the first process to wait for it; both take
#: milliseconds where a processor is free. A healthy image never waits that long.
LEAVING = 10.0
#: The variable by which the processes below this one are known, wherever they end up.
MARK = "IMGBUILD_CHECK_NONCE"
#: Why a check was not run when the first failure was to end the suite.
AFTER_FAILURE = "an earlier check failed, and the request was to stop there"


def not_run(reason: str) -> dict[str, Any]:
    """The outcome of a check that was not run."""
    return {"status": NOT_RUN, "reason": reason, "seconds": 0.0, "measured": {}, "series": {}}


class GroupRun:
    """Runs one group until each of its checks has an outcome."""

    def __init__(self, group: Group, checks: list[Check], directory: Path, *, fail_fast: bool) -> None:
        self.group = group
        self.directory = directory
        self.todo = list(checks)
        self.facts: dict[str, Any] = {}
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.attempt = 0
        self.running: Check | None = None
        self.prepared = False
        self.fail_fast = fail_fast
        self.stopped = False
        self.settled: list[str] = []
        self.left: dict[int, str] = {}

    def run(self) -> None:
        """Starts processes until nothing is left to do; each one settles at least one check."""
        while self.todo:
            self.attempt += 1
            self._attempt()

    @property
    def failed(self) -> bool:
        """Whether a check of this group failed."""
        return any(outcome["status"] == FAILED for outcome in self.outcomes.values())

    def _settle(
        self, check: Check, status: str, reason: str, seconds: float, measured: object, series: object = None
    ) -> None:
        if check not in self.todo:
            return
        self.todo.remove(check)
        self.outcomes[check.name] = {
            "status": status,
            "reason": short(reason, 600),
            "seconds": seconds,
            "measured": measured,
            "series": series or {},
        }
        if status == FAILED and self.fail_fast:
            for other in self.todo:
                self.outcomes[other.name] = not_run(AFTER_FAILURE)
            self.todo.clear()
            self.stopped = True

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
        self.running, self.prepared, self.settled = None, False, []
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
                self._over(process, since, directory)
                break
            if time.monotonic() - since > limit:
                kill(process, leads=True)
                self._lost(f"did not end within {limit:g} s and was killed", since, directory)
                break
            time.sleep(POLL)
        # Also after a hang: what has lost its parent and leads a session of its own is not below that process.
        kill(process, leads=True)
        end(marked(MARK, os.environ[MARK]))

    def _over(self, process: subprocess.Popen[bytes], since: float, directory: Path) -> None:
        """The process ended, or has nothing more to do."""
        if self.todo:
            self._lost(ending(process.returncode), since, directory)
        elif self.settled and not self.stopped:
            self._ended(process, directory)
            self._look_behind()

    def _ended(self, process: subprocess.Popen[bytes], directory: Path) -> None:
        """Waits for the end of a process whose checks are all done; when it crashes, the last that passed has failed.

        A library that breaks the end of a process breaks the end of every training: its exit code says failure.
        """
        try:
            code = process.wait(GRACE)
            how = ending(code)
        except subprocess.TimeoutExpired:
            code, how = -1, f"did not end within {GRACE:g} s"
        if code == 0:
            return
        passed = [name for name in self.settled if self.outcomes[name]["status"] == PASSED]
        outcome = self.outcomes[(passed or self.settled)[-1]]
        output = (directory / "output").read_bytes()[-4000:].decode("utf-8", "replace")
        outcome["reason"] = f"what it checked is right, but afterwards its process {how}"
        outcome["status"] = FAILED
        outcome["measured"] = {**outcome["measured"], "detail": short(output)}

    def _look_behind(self) -> None:
        """Finds what still runs after the process of the group ended, and gives it a moment to end, too."""
        limit = time.monotonic() + LEAVING
        self.left = marked(MARK, os.environ[MARK])
        while self.left and time.monotonic() < limit:
            time.sleep(POLL)
            self.left = marked(MARK, os.environ[MARK])

    def _take(self, event: dict[str, Any]) -> None:
        """Follows one event of the worker."""
        if event["event"] == "prepared":
            self.prepared = True
            self.facts.update(event["facts"])
        elif event["event"] == "unprepared":
            for check in list(self.todo):
                self._settle(check, event["status"], event["reason"], 0.0, event["measured"])
        elif event["event"] == "begin":
            # None when the first failure has ended the suite meanwhile.
            self.running = next((check for check in self.todo if check.name == event["check"]), None)
        elif event["event"] == "end" and self.running is not None:
            self.settled.append(self.running.name)
            self._settle(
                self.running, event["status"], event["reason"], event["seconds"], event["measured"], event["series"]
            )
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
