"""A summary in Markdown (GitHub's dialect), for the page of a CI job."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.check import CheckOutcome, Status, VerdictStatus
from builder.errors import ConfigError
from builder.runs.events import losses
from builder.runs.model import Run, by_reason

SUMMARY_CAP = 1_000_000
"""Bytes. GitHub drops the whole summary of a step above 1024 KiB; the rest of that is for what others write."""

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
"""The variable that names the file with a step's summary."""

_LEAST = 2000
"""Bytes below which a summary would say nothing."""

_CLOSING = 200
"""Bytes of the two lines that say what was left out."""

_NAMES, _REASONS = 6, 3
"""Names of checks, and reasons, that a table lists; the details list all."""

_WORST_FIRST = (VerdictStatus.FAILED, VerdictStatus.INCOMPLETE, VerdictStatus.PASSED)

# Punctuation that means something to Markdown or to GitHub. References where a backslash would not do everywhere: a
# table is cut at its pipes before anything else is read, and GitHub takes dollars for formulas.
_ESCAPES = str.maketrans(
    {character: f"&#{ord(character)};" for character in "|`\\$"}
    | {character: f"\\{character}" for character in "*_[]~#!"}
    | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
)
_LIST_MARK = re.compile(r"^(\d{0,9})([-+.)=])")


@dataclass(frozen=True, kw_only=True)
class Unchecked:
    """A cell that was not checked in this run, for the same table: its id, what came of it, and why."""

    name: str
    status: str
    reason: str


def summary(runs: Sequence[Run], unchecked: Sequence[Unchecked] = (), *, cap: int = SUMMARY_CAP) -> str:
    """A table of cells, and below it the details of each run: what failed, what did not run and why, losses, times.

    Args:
        runs: in the order of the table.
        unchecked: cells without a run, below them.
        cap: bytes of UTF-8. Details that do not fit are left out, those of passed images first, then rows; a line
            says so.
    """
    head = [
        "### imgbuild check\n",
        "| cell | verdict | reached | missing for verified |",
        "|---|---|---|---|",
    ]
    rows = [_row(run) for run in runs]
    rows += [f"| {code(cell.name)} | {text(cell.status)} | | {text(cell.reason)} |" for cell in unchecked]
    worst_first = sorted(runs, key=lambda run: _WORST_FIRST.index(run.status))
    details = ["\n" + "\n".join(_details(run)) for run in worst_first]
    room = cap - _CLOSING - sum(_size(line) for line in head)
    kept_rows, room = _fitting(rows, room)
    kept_details, _ = _fitting(details, room)
    lines = [*head, *kept_rows]
    if len(kept_rows) < len(rows):
        lines.append(f"\n{len(rows) - len(kept_rows)} more cells are left out of this table for its size.")
    lines += kept_details
    if len(kept_details) < len(details):
        lines.append(f"\nThe details of {len(details) - len(kept_details)} cells are left out for their size.")
    return "\n".join(lines) + "\n"


def append_summary(environ: Mapping[str, str], runs: Sequence[Run], unchecked: Sequence[Unchecked] = ()) -> bool:
    """Appends the summary to that of a GitHub Actions step.

    Returns:
        Whether it did: not outside of GitHub Actions, and not where the step has filled its summary already, since
        GitHub would drop all of it.

    Raises:
        ConfigError: the file that the variable names cannot be written.
    """
    named = environ.get(STEP_SUMMARY)
    if not named:
        return False
    path = Path(named)
    try:
        room = SUMMARY_CAP - (path.stat().st_size if path.exists() else 0)
        if room < _LEAST:
            return False
        with path.open("a", encoding="utf-8") as stream:
            stream.write("\n" + summary(runs, unchecked, cap=room - 1))
    except OSError as error:
        raise ConfigError(f"the step's summary cannot be written: {error.strerror or error}", where=named) from None
    return True


def _fitting(parts: Iterable[str], room: int) -> tuple[list[str], int]:
    """The first parts that fit, and the bytes that are left."""
    kept = []
    for part in parts:
        if _size(part) > room:
            break
        kept.append(part)
        room -= _size(part)
    return kept, room


def _size(line: str) -> int:
    return len(line.encode("utf-8", "replace")) + 1


def _row(run: Run) -> str:
    reached = run.reached.value if run.reached else "–"
    return f"| {code(run.name)} | {run.status.value} | {reached} | {'<br>'.join(_missing(run))} |"


def _missing(run: Run) -> Iterator[str]:
    """What keeps the image from being verified."""
    failed = run.with_status(Status.FAILED)
    if failed:
        yield f"failed: {_names(failed)}"
    elif run.status is not VerdictStatus.PASSED:
        yield from (text(reason) for reason in run.reasons[:_REASONS])
        if len(run.reasons) > _REASONS:
            yield f"and {len(run.reasons) - _REASONS} more"
    elif run.policy is None:
        yield "not held to a cell"
    else:
        yield from map(text, run.unverified)


def _names(checks: Sequence[CheckOutcome]) -> str:
    listed = ", ".join(code(check.name) for check in checks[:_NAMES])
    return f"{listed} and {len(checks) - _NAMES} more" if len(checks) > _NAMES else listed


def _details(run: Run) -> Iterator[str]:
    passed = len(run.with_status(Status.PASSED))
    # Within an element that begins a line, HTML's escapes are read and Markdown's are not.
    name = html.escape(_line(run.name))
    label = f"{name}: {run.status.value}, {passed} of {len(run.checks)} checks passed, {run.seconds:.1f} s"
    # Open where there is something to mend.
    yield f"<details{'' if run.status is VerdictStatus.PASSED else ' open'}><summary>{label}</summary>\n"
    yield f"Image {code(run.image_id)}, checked up to level {run.level.value} with suite {code(run.suite[:12])}."
    yield from _list("Why", [text(reason) for reason in (*run.reasons, *run.unverified)])
    yield from _list("Failed", [f"{code(c.name)}: {text(c.reason)}" for c in run.with_status(Status.FAILED)])
    grouped = by_reason(run.with_status(Status.NOT_RUN))
    not_run = [f"{text(reason)}: {', '.join(code(c.name) for c in checks)}" for reason, checks in grouped.items()]
    yield from _list("Not run", not_run)
    yield from _ran(run)
    yield from _list("Ran on", [f"{text(name)}: {text(value)}" for name, value in run.environment.items()])
    yield "\n</details>"


def _list(title: str, items: Sequence[str]) -> Iterator[str]:
    if items:
        yield f"\n**{title}**\n"
        yield from (f"- {item}" for item in items)


def _ran(run: Run) -> Iterator[str]:
    """How long each check took, and what became of its loss."""
    ran = [check for check in run.checks if check.status is not Status.NOT_RUN]
    if not ran:
        return
    yield "\n| check | outcome | seconds | loss |"
    yield "|---|---|---|---|"
    for check in ran:
        curve = losses(check.series)
        loss = f"{curve[0]:.4g} → {curve[1]:.4g} in {curve[2]} steps" if curve else ""
        yield f"| {code(check.name)} | {check.status.value} | {check.seconds:.2f} | {loss} |"


def text(value: str) -> str:
    """Any text as one line of plain text: no markup, no table cell's end, no link, no HTML."""
    escaped = _LIST_MARK.sub(r"\1\\\2", _line(value).translate(_ESCAPES))
    return escaped.replace("://", "&#58;//").replace("www.", "www&#46;")


def _line(value: str) -> str:
    return " ".join("".join(character if character.isprintable() else " " for character in value).split())


def code(value: str) -> str:
    """Any text as code; HTML's element, since nothing can be escaped between backticks."""
    return f"<code>{text(value)}</code>" if value else ""
