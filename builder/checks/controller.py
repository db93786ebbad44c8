"""Runs every group of checks in a process of its own and writes one result.

    python3 -I -S suite.pyz --request REQUEST.json --results DIRECTORY

Without site-packages, so that whatever they hold cannot end this process; the groups' processes have them.

The request is `{"schema", "nonce", "level", "uid", "gid", "fail_fast", "only"}`. The result, `DIRECTORY/result.json`,
appears whole or not at all. The exit code is 0 when it was written, whatever it says; judging it is the host's
business.

A check that kills its process, or hangs, costs only itself: the rest of its group starts again in a new process.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from builder.checks import worker
from builder.checks.contract import (
    FAILED,
    LEVELS,
    REQUEST_SCHEMA,
    RESULT_SCHEMA,
    groups,
    short,
    write_json,
)
from builder.checks.facts import base_facts
from builder.checks.group_run import AFTER_FAILURE, LEAVING, MARK, POLL, GroupRun, not_run
from builder.checks.processes import zombies

#: Why a check was not run when only some were asked for.
NOT_ASKED = "the request asked for other checks only"
#: The check whose outcome tells of processes that a group left behind.
LEFT_BEHIND = "static.processes"


@dataclass(frozen=True)
class Request:
    """What the host asks for."""

    nonce: str
    level: str
    fail_fast: bool
    document: Mapping[str, Any]
    only: tuple[str, ...] = ()

    def asks_for(self, name: str) -> bool:
        """Whether a check is asked for: by name or glob where the request has some, and else each of its level."""
        return not self.only or any(fnmatchcase(name, glob) for glob in self.only)


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
    only = tuple(map(str, document.get("only") or ()))
    return Request(nonce, str(level), document.get("fail_fast") is True, document, only)


def _zombies() -> dict[int, str]:
    """Name by id of the processes that ended and that the first process of this container does not wait for.

    Nothing where this process is further down: then it is no container of ours, and they are others' business.
    """
    if os.getpid() == 1:
        # Without an entrypoint this process inherits them, and waiting is its own duty.
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    return zombies([1]) if os.getppid() in (0, 1) else {}


def _new_zombies(before: Mapping[int, str]) -> dict[int, str]:
    """Those that were not there before and stay: every process is one until its parent, woken by it, has waited."""
    limit = time.monotonic() + LEAVING
    while True:
        new = {pid: name for pid, name in _zombies().items() if pid not in before}
        if not new or time.monotonic() > limit:
            return new
        time.sleep(POLL)


def _left_behind(group: str, running: Mapping[int, str], ended: Mapping[int, str]) -> str:
    """One sentence on what a group left; empty when that is nothing."""
    said = []
    for how, found in (("running", running), ("as zombies", ended)):
        if found:
            names = ", ".join(f"{name} (process {pid})" for pid, name in sorted(found.items())[:3])
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            said.append(f"{how} {names}{more}")
    return f"the group {group} left {' and '.join(said)}" if said else ""


def run_suite(request: Request, on_line: Callable[[str], None] = say) -> dict[str, Any]:
    """Runs all groups, one after the other, and returns the result; `on_line` gets a line or two for each check."""
    started, clock = datetime.datetime.now(datetime.timezone.utc), time.monotonic()
    facts = base_facts()
    checks: list[dict[str, Any]] = []
    behind: list[str] = []
    top = LEVELS.index(request.level)
    failed = False
    work = Path(tempfile.mkdtemp(prefix="imgbuild-check-"))
    os.environ["IMGBUILD_CHECK_REQUEST"] = json.dumps(dict(request.document))
    os.environ[MARK] = request.nonce
    try:
        for group in groups():
            wanted = [check for check in group.checks if LEVELS.index(check.level) <= top]
            asked = [check for check in wanted if request.asks_for(check.name)]
            run = GroupRun(group, asked, work, fail_fast=request.fail_fast)
            began, before = time.monotonic(), _zombies()
            if not (request.fail_fast and failed):
                run.run()
                left = _left_behind(group.name, run.left, _new_zombies(before))
                behind += [left] if left else []
                failed = failed or run.failed or bool(left)
            on_line(f"{group.name}: {time.monotonic() - began:.1f} s")
            facts.update(run.facts)
            for check in group.checks:
                outcome = run.outcomes.get(check.name) or not_run(
                    f"the request goes up to level {request.level}"
                    if check not in wanted
                    else NOT_ASKED
                    if check not in asked
                    else AFTER_FAILURE
                )
                checks.append({"name": check.name, "level": check.level, **outcome})
                _tell(checks[-1], on_line)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for row in checks:
        if behind and row["name"] == LEFT_BEHIND and row["status"] != FAILED:
            row.update(status=FAILED, reason=short("; ".join(behind), 600))
            _tell(row, on_line)
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


def _tell(row: Mapping[str, Any], on_line: Callable[[str], None]) -> None:
    on_line(f"{row['status']:8} {row['name']} {row['seconds']:.1f} s")
    if row["reason"]:
        on_line(f"         {row['reason']}")


def run_program(name: str, directory: Path) -> int:
    """Runs `main(directory)` of a module below `groups/`, such as `horovod._ranks`: what a group starts by itself."""
    program: Callable[[Path], int] = importlib.import_module(f"builder.checks.groups.{name}").main
    return program(directory)


def main() -> int:
    """The zipapp's entry: the controller, or one of the processes that it starts."""
    parser = argparse.ArgumentParser(prog="suite.pyz", description="Checks the image it runs in.")
    parser.add_argument("--request", type=Path)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--list", action="store_true", help="print the checks and what they catch")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--checks", default="", help=argparse.SUPPRESS)
    parser.add_argument("--program", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.list:
        for group in groups():
            for check in group.checks:
                say(f"{check.name} [{check.level}, {check.deadline:g} s] {check.catches}")
        return 0
    if arguments.results is None:
        parser.error("--results is missing")
    if arguments.program is not None:
        return run_program(arguments.program, arguments.results)
    if arguments.worker is not None:
        return worker.main(arguments.worker, arguments.checks.split(","), arguments.results)
    if arguments.request is None:
        parser.error("--request is missing")
    result = run_suite(read_request(arguments.request))
    write_json(arguments.results / "result.json", result)
    return 0
