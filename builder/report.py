"""What came of a run: outcomes as text and JSON. The exit code is a property of the report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum


class Status(Enum):
    """What came of one cell."""

    VERIFIED = "verified"
    """Its image reached in this run what `-verified` needs, and carries all its names."""
    PASSED = "passed"
    """Its image passed the check: it has its public names, if names were asked for; what `-verified` lacks is said."""
    UNCHANGED = "unchanged"
    """It passed before and has the names that it earned; nothing was built and nothing checked."""
    BUILT = "built"
    """Its image is there and was not checked, as asked for; it carries no public tag."""
    FAILED = "failed"
    """Its build or its check failed; no tag moved."""
    INCOMPLETE = "incomplete"
    """A required check did not run; no tag moved."""
    NOT_BUILT = "not built"
    """It could not be begun here: its base is not to be had, or its packages are not locked. Nothing was tried."""
    CANCELLED = "cancelled"
    """The run was interrupted before it was finished."""


@dataclass(frozen=True, kw_only=True)
class CheckLine:
    """One check of a cell: its name, `passed`, `failed` or `not_run`, the reason of the latter two, and seconds."""

    name: str
    status: str
    reason: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one cell.

    Attributes:
        cell: its id.
        status: what came of it.
        exit_code: 0, or the code of what went wrong.
        key: its content key; empty when it was not known.
        image_id: the image that was built or found; empty when there is none.
        candidate: the image's immutable reference.
        built, checked: whether this run did that.
        build_seconds, check_seconds: how long that took.
        level: the level up to which the suite was asked to go.
        reached: the highest level up to which every required check ran and passed; empty when there is none, or it
            is not known.
        public, verified: the levels that public names and those with `-verified` need; empty without a cell.
        unverified: what is missing for `-verified` although the image passed, one line each.
        reused: when and as which image the content was checked that was not checked again; None otherwise.
        checks: every check of the last run of the suite on this image.
        run: the directory that a check of this run left; empty when there is none.
        moved: references that this run put on the image.
        references: every public reference that points to the image because it passed.
        stale: references of this cell that still point to an image that has not earned them, with its id: another
            one, or this one when it passed before and does not now.
        reasons: why it is not verified, most important first.
        detail: more lines for a reader, such as the log of a failed step.
    """

    cell: str
    status: Status
    exit_code: int = 0
    key: str = ""
    image_id: str = ""
    candidate: str = ""
    built: bool = False
    checked: bool = False
    build_seconds: float = 0.0
    check_seconds: float = 0.0
    level: str = ""
    reached: str = ""
    public: str = ""
    verified: str = ""
    unverified: tuple[str, ...] = ()
    reused: tuple[str, str] | None = None
    checks: tuple[CheckLine, ...] = ()
    run: str = ""
    moved: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    stale: tuple[tuple[str, str], ...] = ()
    reasons: tuple[str, ...] = ()
    detail: tuple[str, ...] = ()


# When cells fail in different ways, the first of these speaks for the run: what stops everything comes before what
# stops one cell, and a failure before an absence.
_PRECEDENCE = (130, 143, 70, 7, 12, 17, 16, 15, 5, 6, 9, 10, 21, 20, 8, 19, 11)


def speaking_code(codes: Iterable[int]) -> int:
    """The exit code of a run whose cells ended with these: 0 when all are; otherwise the one that speaks for it."""
    wrong = set(codes) - {0}
    for code in _PRECEDENCE:
        if code in wrong:
            return code
    return min(wrong, default=0)


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole run.

    Attributes:
        outcomes: one for each selected cell, in the order of the matrix.
        bases: how each base was chosen, one sentence each.
        warnings: what a reader should know.
        seconds: how long the run took.
    """

    outcomes: tuple[Outcome, ...]
    bases: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 when every outcome is good; otherwise the code of the failure that speaks for the run."""
        return speaking_code(outcome.exit_code for outcome in self.outcomes)

    def to_json(self) -> str:
        """One JSON object, indented, with a newline at the end."""
        document = {
            "schema": "imgbuild.report/1",
            "exit_code": self.exit_code,
            "seconds": round(self.seconds, 2),
            "bases": list(self.bases),
            "warnings": list(self.warnings),
            "cells": [_outcome_json(outcome) for outcome in self.outcomes],
        }
        return json.dumps(document, indent=2) + "\n"

    def to_text(self) -> str:
        """A block of lines for each cell and a closing line, with a newline at the end."""
        lines = list(self._lines())
        return "\n".join(lines) + "\n"

    def _lines(self) -> Iterator[str]:
        for line in self.bases:
            yield f"base     {line}"
        for outcome in self.outcomes:
            yield from _outcome_lines(outcome)
        for warning in self.warnings:
            yield f"warning  {warning}"
        built = sum(outcome.built for outcome in self.outcomes)
        checked = sum(outcome.checked for outcome in self.outcomes)
        good = sum(outcome.exit_code == 0 for outcome in self.outcomes)
        bad = len(self.outcomes) - good
        yield (
            f"{len(self.outcomes)} cells: {good} good, {bad} not; "
            f"{built} built, {checked} checked, in {self.seconds:.1f} s"
        )


def _outcome_lines(outcome: Outcome) -> Iterator[str]:
    done = []
    if outcome.built:
        done.append(f"built in {outcome.build_seconds:.1f} s")
    if outcome.checked:
        done.append(f"checked in {outcome.check_seconds:.1f} s")
    # What is unchanged has said so in its reason, and what it lacks in `unverified`.
    unchanged = outcome.status is Status.UNCHANGED
    if outcome.reused is not None and not unchanged:
        when, image_id = outcome.reused
        done.append(f"reused, checked {when} as {short(image_id)}")
    doing = ", ".join(done) or "nothing built, nothing checked"
    image = f" {short(outcome.image_id)}" if outcome.image_id else ""
    yield f"{outcome.status.value:<10} {outcome.cell}{image}: {doing}"
    for reason in (*outcome.reasons, *outcome.unverified):
        yield f"    {reason}"
    if not unchanged:
        yield from _check_lines(outcome.checks, outcome.reasons)
    for line in outcome.detail:
        yield f"    | {line}"
    if outcome.run:
        yield f"    run: {outcome.run}"
    for reference in outcome.references:
        yield f"    {reference}"
    for reference, image_id in outcome.stale:
        yield f"    stale: {reference} still points to {short(image_id)}"


def _check_lines(checks: tuple[CheckLine, ...], said: tuple[str, ...]) -> Iterator[str]:
    """How many passed, each failure that was not said yet, and what did not run, together where it shares a reason."""
    passed = sum(check.status == "passed" for check in checks)
    if passed:
        yield f"    {passed} checks passed"
    not_run: dict[str, list[str]] = {}
    for check in checks:
        if check.status == "failed":
            if f"{check.name}: {check.reason}" in said:
                continue
            yield f"    failed: {check.name}: {check.reason}"
        elif check.status != "passed":
            not_run.setdefault(check.reason, []).append(check.name)
    for reason, names in not_run.items():
        yield f"    not run: {', '.join(names)}: {reason}"


def short(image_id: str) -> str:
    """The first 12 hexadecimal digits of an image id."""
    return image_id.removeprefix("sha256:")[:12]


def _outcome_json(outcome: Outcome) -> dict[str, object]:
    return {
        "cell": outcome.cell,
        "status": outcome.status.value,
        "exit_code": outcome.exit_code,
        "key": outcome.key or None,
        "image_id": outcome.image_id or None,
        "candidate": outcome.candidate or None,
        "built": outcome.built,
        "checked": outcome.checked,
        "build_seconds": round(outcome.build_seconds, 2),
        "check_seconds": round(outcome.check_seconds, 2),
        "level": outcome.level or None,
        "reached": outcome.reached or None,
        "require": {"public": outcome.public, "verified": outcome.verified} if outcome.public else None,
        "unverified": list(outcome.unverified),
        "reused": {"checked": outcome.reused[0], "image_id": outcome.reused[1]} if outcome.reused else None,
        "checks": [
            {
                "name": check.name,
                "status": check.status,
                "reason": check.reason or None,
                "seconds": round(check.seconds, 2),
            }
            for check in outcome.checks
        ],
        "run": outcome.run or None,
        "moved": list(outcome.moved),
        "references": list(outcome.references),
        "stale": [{"reference": reference, "image_id": image_id} for reference, image_id in outcome.stale],
        "reasons": list(outcome.reasons),
        "detail": list(outcome.detail),
    }
