"""One process for one group: prepares it, runs the checks it is told to, and tells of each step in a file.

The controller reads that file while it grows, so that it knows what was running when this process dies or hangs.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from builder.checks.contract import FAILED, NOT_RUN, PASSED, Failed, NotRun, group, one_line, plain, short

EVENTS = "events.jsonl"


def _outcome(error: Exception) -> dict[str, Any]:
    """An exception as status, reason and, unless the reason says it all, the end of its traceback."""
    if isinstance(error, NotRun):
        return {"status": NOT_RUN, "reason": one_line(error), "measured": {}, "series": {}}
    measured: dict[str, Any] = dict(error.measured) if isinstance(error, Failed) else {}
    if not isinstance(error, Failed):
        measured["detail"] = short(traceback.format_exc())
    series = measured.pop("series", {})
    return {"status": FAILED, "reason": one_line(error), "measured": measured, "series": series}


def main(group_name: str, names: list[str], directory: Path) -> int:
    """Runs `names` of one group in the order in which the group has them; `directory` gets the events."""
    descriptor = os.open(directory / EVENTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(**event: object) -> None:
        os.write(descriptor, json.dumps(plain(event), allow_nan=False).encode() + b"\n")

    own = group(group_name)
    try:
        state, facts = own.prepare()
    except Exception as error:  # noqa: BLE001 - whatever a broken image raises is the finding
        tell(event="unprepared", **_outcome(error))
        return 0
    tell(event="prepared", facts=facts)
    for check in own.checks:
        if check.name not in names:
            continue
        tell(event="begin", check=check.name)
        started = time.monotonic()
        try:
            measured = dict(check.run(state))
            series = measured.pop("series", {})
            outcome = {"status": PASSED, "reason": "", "measured": measured, "series": series}
        except Exception as error:  # noqa: BLE001 - as above
            outcome = _outcome(error)
        tell(event="end", check=check.name, seconds=round(time.monotonic() - started, 3), **outcome)
    sys.stdout.flush()
    return 0
