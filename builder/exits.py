"""How a run ends: signals become cancellation, and errors become exit codes, here and nowhere else."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from builder.errors import ImgbuildError

DEFECT = 70
"""The exit code of a defect of imgbuild's own: EX_SOFTWARE of sysexits.h."""

_CALLS = 6
"""Of a traceback that cannot be written: enough to find the line, few enough for one line."""

_BROKEN_PIPE = 128 + signal.SIGPIPE
_received: list[int] = []


@contextmanager
def cancellable() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second signal ends the process without waiting."""
    cancel = threading.Event()

    def handle(number: int, _frame: object) -> None:
        if cancel.is_set():
            # Threads may be waiting for the engine; leaving now cancels the builds, and the next run removes what a
            # check leaves behind.
            os._exit(128 + number)
        _received.append(number)
        cancel.set()
        os.write(2, b"\nstopping: builds are cancelled and containers removed; once more to leave at once\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupted_code() -> int:
    """The exit code of a run that was interrupted: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + (_received[0] if _received else signal.SIGINT)


def exit_code_of(command: Callable[[], object]) -> int:
    """Runs a command to its end, says on standard error what went wrong, and returns the exit code.

    Args:
        command: may return its code, or raise `SystemExit` with it.
    """
    from builder.engine.errors import EngineError

    try:
        result = command()
        code = result if isinstance(result, int) else 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (ImgbuildError, EngineError) as error:
        click.echo(f"error: {_redacted(str(error))}", err=True)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output is gone, and so is the need to say anything.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the last resort: a defect of ours must not end in a traceback
        click.echo(f"error: {describe_defect(error)}", err=True)
        code = DEFECT
    return 128 + _received[0] if _received else code


def describe_defect(error: Exception) -> str:
    """Keeps the traceback of a defect of imgbuild's own in a file; returns what to tell the user of it.

    Where no file can be written, what is returned names the innermost calls instead.
    """
    what = f"a defect of imgbuild's own: {type(error).__name__}: {_redacted(str(error))}"
    try:
        name = _written(_redacted("".join(traceback.format_exception(error))))
    except OSError as unwritten:
        calls = [
            f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)[-_CALLS:]
        ]
        why = unwritten.strerror or str(unwritten)
        said = f"please report it with these calls, as its traceback cannot be written ({why})"
        return f"{what}\n  {said}: {', '.join(reversed(calls))}"
    return f"{what}\n  please report it with {name}"


def _written(text: str) -> str:
    """Writes a new temporary file; returns its name. What cannot be written whole is not left there."""
    prefix = f"imgbuild-defect-{int(time.time())}-"
    # Not buffered: a disk that is full is noticed here, and not when the file is closed.
    with tempfile.NamedTemporaryFile("wb", buffering=0, prefix=prefix, suffix=".txt", delete=False) as file:
        try:
            data = memoryview(text.encode("utf-8", "backslashreplace"))
            while data:
                data = data[file.write(data) :]
        except OSError:
            with suppress(OSError):
                Path(file.name).unlink()
            raise
    return file.name


def _redacted(text: str) -> str:
    from builder.site import redact_urls

    return redact_urls(text)
