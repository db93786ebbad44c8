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
from contextlib import contextmanager

import click

from builder.errors import ImgbuildError

DEFECT = 70
"""The exit code of a defect of imgbuild's own: EX_SOFTWARE of sysexits.h."""

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
    """Keeps the traceback of a defect of imgbuild's own in a file; returns what to tell the user of it."""
    with tempfile.NamedTemporaryFile(
        "w", prefix=f"imgbuild-defect-{int(time.time())}-", suffix=".txt", delete=False
    ) as file:
        file.write(_redacted("".join(traceback.format_exception(error))))
    what = f"{type(error).__name__}: {_redacted(str(error))}"
    return f"a defect of imgbuild's own: {what}\n  please report it with {file.name}"


def _redacted(text: str) -> str:
    from builder.site import redact_urls

    return redact_urls(text)
