"""The image's entrypoint, with programs of which everything is known."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from builder.checks.contract import Measured, NotRun, check, expect, fail, short
from builder.checks.groups.static import _imports
from builder.checks.processes import end, kill, marked

#: Arguments that a shell script without quotes would split, expand or lose.
ARGUMENTS = ("two words", "a 'quote' and a \"quote\"", "", "*", "$HOME", "back\\slash", "--", "-c", "é\nnewline")
#: Exit codes that must come through: success, an ordinary failure, and what a shell makes of SIGTERM.
CODES = (0, 7, 143)
#: Seconds for one small program behind the entrypoint; it takes some hundredths.
PATIENCE = 20.0
#: Seconds for programs that were killed to be gone.
LEAVING = 5.0
#: The exit code of the program that SIGTERM reached.
TERMINATED = 42

TELL = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['IMGBUILD_SPACES'], os.getuid()]))"
END = "import sys; sys.exit(int(sys.argv[1]))"
LISTEN = (
    "import signal, sys, time\n"
    f"signal.signal(signal.SIGTERM, lambda number, frame: sys.exit({TERMINATED}))\n"
    "sys.stdout.write('ready'); sys.stdout.flush()\n"
    "time.sleep(60)\n"
)


@check(
    "static.entrypoint",
    level="static",
    deadline=120,
    optional=True,
    catches="An entrypoint that prints, swallows exit codes, splits arguments or keeps SIGTERM from the program.",
)
def run(state: Any) -> Measured:
    entrypoint = state.request.get("entrypoint")
    if not entrypoint:
        raise NotRun("the image has no entrypoint" if entrypoint == [] else "the request does not say the entrypoint")
    _tells(_command(entrypoint, TELL))
    for code in CODES:
        done = _run([*_command(entrypoint, END), str(code)])
        expect(
            done.returncode == code,
            f"the entrypoint made exit code {done.returncode} of a program's exit code {code}",
        )
        _silent(done.stdout, done.stderr)
    _forwards_sigterm(_command(entrypoint, LISTEN))
    return {"entrypoint": " ".join(entrypoint), "exit_codes": list(CODES)}


def _command(entrypoint: list[str], program: str) -> list[str]:
    """A program behind the entrypoint, from a file: a word without spaces also survives what splits the arguments."""
    file = Path.cwd() / f"program-{len(program)}.py"
    file.write_text(program, encoding="utf-8")
    return [*entrypoint, sys.executable, "-I", "-S", str(file)]


def _environment() -> dict[str, str]:
    # Once through the entrypoint has given this process a home and a name: taken back, so that it has its work to do.
    return {**_imports.stranger(), "IMGBUILD_SPACES": "two words", _imports.MARK: _mark()}


def _mark() -> str:
    return f"entrypoint-{os.getpid()}"


def _directory() -> Path:
    """The image's working directory, where the controller is: an entrypoint may be relative to it."""
    try:
        return Path(f"/proc/{os.getppid()}/cwd").resolve(strict=True)
    except OSError:
        return Path.cwd()


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            cwd=_directory(),
            start_new_session=True,
        )
    except OSError as error:
        fail(f"the entrypoint cannot be started: {error}")


def _run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    process = _start(command)
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        _end(process)
        fail(f"a program that ends at once did not end behind the entrypoint within {PATIENCE:g} s")
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _silent(out: bytes, err: bytes) -> None:
    for name, said in (("standard output", out), ("standard error", err)):
        text = short(said.decode("utf-8", "replace"), 200)
        expect(not said, f"the entrypoint prints to {name}: {text.strip()!r}")


def _tells(command: list[str]) -> None:
    """What the program is given, and that its output is all there is."""
    done = _run([*command, *ARGUMENTS])
    expected = json.dumps([list(ARGUMENTS), "two words", os.getuid()])
    out = done.stdout.decode("utf-8", "replace")
    _silent(b"", done.stderr)
    if out == expected + "\n":
        return
    for line in out.splitlines():
        try:
            arguments, spaces, uid = json.loads(line)
        except (ValueError, TypeError):
            continue
        expect(arguments == list(ARGUMENTS), f"the entrypoint changed the arguments {list(ARGUMENTS)} into {arguments}")
        expect(spaces == "two words", f"the entrypoint changed a variable's value 'two words' into {spaces!r}")
        expect(uid == os.getuid(), f"the entrypoint changed the user from {os.getuid()} to {uid}")
        own = out.replace(line, "", 1).strip()
        fail(f"the entrypoint prints to standard output: {short(own, 200)!r}")
    fail(
        f"behind the entrypoint, a program that prints ended with exit code {done.returncode} and printed {out[:200]!r}"
    )


def _forwards_sigterm(command: list[str]) -> None:
    process = _start(command)
    assert process.stdout is not None
    try:
        os.set_blocking(process.stdout.fileno(), False)
        limit, said = time.monotonic() + PATIENCE, b""
        while said != b"ready":
            expect(process.poll() is None, "behind the entrypoint, a program that waits ended by itself")
            expect(time.monotonic() < limit, "behind the entrypoint, a program did not start in time")
            said += process.stdout.read() or b""
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            fail("SIGTERM to the entrypoint did not reach the program: `docker stop` would have to kill it")
        expect(
            code == TERMINATED,
            f"SIGTERM ended the entrypoint (exit code {code}) and not the program, which ends with {TERMINATED} by it",
        )
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends an entrypoint and its program, also one that the entrypoint left behind in a process group of its own."""
    kill(process, leads=True)
    limit = time.monotonic() + LEAVING
    while left := marked(_imports.MARK, _mark()):
        end(left)
        if time.monotonic() > limit:
            break
        time.sleep(0.02)
