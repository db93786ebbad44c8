"""Patience with a registry that is busy: a few more attempts, the pauses that it asks for, and a deadline over all.

What may pass by itself (status 429 or 5xx, a connection that was reset) is raised as `Busy`; everything else is final.
"""

from __future__ import annotations

import email.utils
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from builder.engine.errors import RegistryError

T = TypeVar("T")

PAUSES = (0.5, 2.0)
"""Seconds to wait before a registry that was busy is asked again; then its answer counts."""

DEADLINE = 120.0
"""Seconds for one call with everything that it takes: repetitions, redirects, a registry's own pauses."""

BUSY = frozenset({429, 500, 502, 503, 504})
"""What a registry answers when it may do better in a moment."""


class Busy(Exception):
    """Not for callers of this room: what `patiently` tries again.

    Args:
        error: what to say when patience ends.
        wait: seconds that the registry asks for; None where it names none.
    """

    def __init__(self, error: RegistryError, *, wait: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait = wait


_paused: dict[str, float] = {}
_paused_lock = threading.Lock()
"""Until when a registry asked to be left alone. It means the whole process, not the one thread that was told."""


def patiently(host: str, seconds: float, attempt: Callable[[float], T]) -> T:
    """What `attempt` returns; tries again while the registry is busy, for at most so many seconds.

    Args:
        host: whose pauses count.
        attempt: is given the deadline, on the clock of `time.monotonic`.

    Raises:
        RegistryError: of the last attempt, or the registry's pause would last too long.
    """
    deadline = time.monotonic() + seconds
    pauses = list(PAUSES)
    while True:
        _wait_for(host, deadline)
        try:
            return attempt(deadline)
        except Busy as busy:
            now = time.monotonic()
            if busy.wait is not None:
                if now + busy.wait >= deadline:
                    raise _too_long(busy, seconds) from None
                with _paused_lock:
                    _paused[host] = max(_paused.get(host, 0.0), now + busy.wait)
            elif pauses and now + pauses[0] < deadline:
                time.sleep(pauses.pop(0))
            else:
                raise busy.error from None


def _too_long(busy: Busy, seconds: float) -> RegistryError:
    return RegistryError(
        f"{busy.error.message}; it asks to wait for {busy.wait:g} s, and imgbuild waits for at most {seconds:g} s",
        hint="try again later",
    )


def _wait_for(host: str, deadline: float) -> None:
    while True:
        with _paused_lock:
            until = _paused.get(host, 0.0)
        left = until - time.monotonic()
        if left <= 0:
            return
        if until >= deadline:
            raise RegistryError(f"{host} asks everybody to wait for {left:.0f} s more", hint="try again later")
        time.sleep(left)


def retry_after(value: str) -> float | None:
    """Seconds that a `Retry-After` header asks for, at least half a second; None when it says nothing readable."""
    if value.isascii() and value.strip().isdigit():
        return max(0.5, float(value))
    try:
        when = email.utils.parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.5, when - time.time())
