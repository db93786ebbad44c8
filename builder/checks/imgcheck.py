"""`imgcheck`: the suite as a command inside an image, for whoever runs it there.

    imgcheck [--level LEVEL] [--json FILE] [--list] [--version]

It runs as the present user, in the container as it was started, up to the highest level that can run here: `gpu` where
there is a GPU, or where a framework of the image is built for one, else `cpu`. It prints a table, and where how the
container was started is why something failed or did not run, the corrected `docker run` line.

Exit code: 0 when everything that the image's packages ask for ran and passed; 10 when something failed; 11 when nothing
failed and something did not run; 2 when the command line is wrong; 130 when it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import pkgutil
import secrets
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builder.checks import controller
from builder.checks.advice import advise, corrected, cuda_of, look
from builder.checks.contract import FAILED, LEVELS, NOT_RUN, PASSED, REQUEST_SCHEMA, Check, groups, write_json
from builder.checks.facts import builds, site_directories
from builder.checks.groups.tensorflow import PROJECTS as TENSORFLOW

#: They ask how the host started the container; here nobody says how it should have been.
HOST_ASKS = ("static.readonly",)
#: Characters of a reason in the table.
WIDTH = 100


def release() -> dict[str, str]:
    """Which release of the suite this is: `version` of imgbuild and `suite`, the hash of its files."""
    try:
        data = pkgutil.get_data("builder.checks", "release.json")
    except OSError:
        data = None
    found = json.loads(data) if data else {}
    return {"version": str(found.get("version", "unreleased")), "suite": str(found.get("suite", ""))}


def asked(packages: Mapping[str, str], level: str) -> list[Check]:
    """The checks that an image with these packages must pass up to a level."""
    top = LEVELS.index(level)
    # Each of these projects brings the module that the checks need, `tensorflow-cpu` for one.
    names = {*packages, "tensorflow"} if packages.keys() & set(TENSORFLOW) else set(packages)
    return [
        check
        for group in groups()
        for check in group.checks
        if not check.optional
        and not check.controller  # its packages do not tell with which one Horovod was asked for
        and check.name not in HOST_ASKS
        and LEVELS.index(check.level) <= top
        and {*group.needs, *check.needs} <= names
    ]


def table(rows: list[Mapping[str, Any]]) -> list[str]:
    """The rows as lines: what became of a check, its name, seconds, and why where it did not pass."""
    words = {PASSED: "passed", FAILED: "FAILED", NOT_RUN: "not run"}
    width = max((len(str(row["name"])) for row in rows), default=0)
    lines = []
    for row in rows:
        reason = str(row["reason"])
        reason = reason if len(reason) <= WIDTH or row["status"] == FAILED else reason[: WIDTH - 1] + "…"
        lines.append(f"{words[row['status']]:7}  {row['name']:{width}}  {row['seconds']:6.1f} s  {reason}".rstrip())
    return lines


def verdict(rows: list[Mapping[str, Any]], required: set[str]) -> int:
    """The exit code."""
    if any(row["status"] == FAILED for row in rows):
        return 10
    ran = {str(row["name"]) for row in rows if row["status"] == PASSED}
    return 0 if required and required <= ran else 11


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{line.strip()[:78]}")
        sys.stderr.flush()


def _no_temporary_files() -> bool:
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return True
    return False


def run(level: str | None, report: Path | None) -> int:
    """Runs the suite, prints the table and the advice, and returns the exit code."""
    here = look()
    if _no_temporary_files():
        advice = advise(here, [], {})
        controller.say("imgcheck: nothing ran: there is no place for temporary files")
        controller.say(f"Try: {corrected(here, advice)}")
        return 11
    if level is None:
        level = "gpu" if here.devices or _made_for_gpu() else "cpu"
    nonce = secrets.token_hex(16)
    document = {"schema": REQUEST_SCHEMA, "nonce": nonce, "level": level, "origin": "imgcheck"}
    result = controller.run_suite(controller.Request(nonce, level, False, document), _progress)
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    facts = result["facts"]
    required = {check.name for check in asked(facts["packages"], level)}
    # What nobody asks of this image and what did not run is no news.
    rows = [row for row in result["checks"] if row["status"] != NOT_RUN or row["name"] in required]
    code = verdict(rows, required)
    for line in table(rows):
        controller.say(line)
    advice = advise(here, rows, facts) if code else []
    words = {0: "passed", 10: "FAILED", 11: "incomplete"}
    of = f"suite {release()['version']}" + (f" {release()['suite'][:12]}" if release()["suite"] else "")
    controller.say(f"{words[code]} at level {level} in {result['seconds']:.0f} s as user {here.uid} ({of})")
    for one in advice:
        controller.say(f"{one.cause}: {one.sentence}")
    if any(one.options for one in advice):
        controller.say(f"Try: {corrected(here, advice)}")
    if report is not None:
        found = [{"cause": one.cause, "sentence": one.sentence, "options": one.options} for one in advice]
        run_line = corrected(here, advice) if any(one.options for one in advice) else None
        write_json(report, {**result, "release": release(), "exit_code": code, "advice": found, "run": run_line})
    return code


def _made_for_gpu() -> bool:
    """Whether a framework is built for CUDA, from its own small files: nothing is imported."""
    return bool(cuda_of({"builds": builds(site_directories())}))


def main() -> int:
    """The command's entry; also that of the processes which the suite starts through the same file."""
    if any(word in ("--worker", "--program", "--request") for word in sys.argv[1:2]):
        return controller.main()
    parser = argparse.ArgumentParser(prog="imgcheck", description="Checks the image it runs in, as it was started.")
    parser.add_argument("--level", choices=LEVELS, help="up to which level (default: the highest that can run here)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found")
    parser.add_argument("--list", action="store_true", help="print the checks and what they catch")
    parser.add_argument("--version", action="store_true", help="print which release this is")
    arguments = parser.parse_args()
    if arguments.version:
        found = release()
        controller.say(f"imgcheck {found['version']} (suite {found['suite'] or 'unreleased'})")
        return 0
    if arguments.list:
        for group in groups():
            for check in group.checks:
                controller.say(f"{check.name} [{check.level}, {check.deadline:g} s] {check.catches}")
        return 0
    if arguments.json is not None and not arguments.json.resolve().parent.is_dir():
        parser.error(f"--json: there is no directory {arguments.json.resolve().parent}")
    try:
        return run(arguments.level, arguments.json)
    except KeyboardInterrupt:
        return 130
