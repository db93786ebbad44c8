"""What was asked of a run, how far a cell is while it is carried, and what is left of that when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.builds import BuildRecord
from builder.check import DEFAULT_USER, CheckRun, Verdict, VerdictStatus
from builder.engine.errors import FailedStep
from builder.errors import CheckFailed, CheckIncomplete
from builder.matrix import Level
from builder.memory import Checked
from builder.plan import Action
from builder.report import CheckLine, Outcome, Status

OUTCOMES: Mapping[VerdictStatus, tuple[Status, int]] = {
    VerdictStatus.PASSED: (Status.PASSED, 0),
    VerdictStatus.FAILED: (Status.FAILED, CheckFailed.exit_code),
    VerdictStatus.INCOMPLETE: (Status.INCOMPLETE, CheckIncomplete.exit_code),
}
"""What a verdict makes of a cell whose image was only checked, and the exit code."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to run.

    Attributes:
        jobs: how many cells are carried at once.
        checks: how many of them may be checked or measured at once; a check trains on two processes and needs the
            processors, and both may take most of the memory.
        check: False to stop before the check.
        rebuild: make new candidates beside existing ones.
        check_deadline: seconds that a check may take.
        user: UID:GID that checks run as. Only a check as the default one counts for tags.
        gpus: give every check the GPUs of the engine; those that go up to `gpu` get them anyway.
        level: the highest level that checks may go up to; None for as far as cells ask and the engine can.
        recheck: check also what passed before.
        fail_fast: end a check after the first failure.
        runs: where checks leave their directories; None for the state directory, which keeps the newest.
    """

    jobs: int = 1
    checks: int = 1
    check: bool = True
    rebuild: bool = False
    check_deadline: float = 900.0
    user: str = DEFAULT_USER
    gpus: bool = False
    level: Level | None = None
    recheck: bool = False
    fail_fast: bool = False
    runs: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What came of one action: for the report, and for statements about the image.

    Attributes:
        action: what was to be done, as it stood when it was done.
        outcome: for the report.
        checked: the run of the suite that decided, made now or remembered; the image that it ran in is another one
            than the outcome's where it was reused. None where nothing was checked.
        build: how the image was built, when this run built it; `builds.recall_build` knows earlier ones.
    """

    action: Action
    outcome: Outcome
    checked: Checked | None = None
    build: BuildRecord | None = None


@dataclass(kw_only=True)
class Progress:
    """How far one cell has come; grows while it is carried."""

    action: Action
    key: str
    level: Level
    image_id: str = ""
    candidate: str = ""
    built: bool = False
    build: BuildRecord | None = None
    ran: bool = False
    checked: Checked | None = None
    build_seconds: float = 0.0
    check_seconds: float = 0.0
    moved: tuple[str, ...] = ()
    run: str = ""

    @property
    def verified(self) -> bool:
        """Whether the image is known to have reached what `-verified` needs."""
        return self.checked is not None and self.checked.run.verdict.verified

    def outcome(
        self,
        status: Status,
        *,
        exit_code: int = 0,
        reasons: tuple[str, ...] = (),
        detail: tuple[str, ...] = (),
        references: tuple[str, ...] = (),
        stale: tuple[tuple[str, str], ...] = (),
    ) -> Outcome:
        cell, run = self.action.cell, self.checked.run if self.checked else None
        return Outcome(
            cell=cell.id,
            status=status,
            exit_code=exit_code,
            key=self.key,
            image_id=self.image_id,
            candidate=self.candidate,
            built=self.built,
            checked=self.ran,
            build_seconds=self.build_seconds,
            check_seconds=self.check_seconds,
            level=self.level.value,
            reached=run.verdict.reached.value if run and run.verdict.reached else "",
            public=cell.policy.public.value,
            verified=cell.policy.verified.value,
            unverified=run.verdict.unverified if run else (),
            reused=(self.checked.at, self.checked.image_id) if self.checked and not self.ran else None,
            checks=check_lines(run) if run else (),
            run=self.run,
            moved=self.moved,
            references=references,
            stale=stale,
            reasons=reasons,
            detail=detail,
        )


def short_of(verdict: Verdict, asked: Level | None) -> tuple[str, ...]:
    """Why an image did not reach the level that was asked for by name, although it passed; empty when it did.

    A level below `gpu` is a limit and no demand. One above what its cell asks for counts as that.

    Args:
        verdict: on an image that passed.
        asked: the level; None where none was named.
    """
    if asked is None or asked < Level.GPU or verdict.reached is None or verdict.reached >= min(asked, verdict.level):
        return ()
    return (f"level {asked.value} was asked for, and {verdict.reached.value} was reached",)


def check_lines(run: CheckRun) -> tuple[CheckLine, ...]:
    """A run's checks as a report shows them."""
    return tuple(
        CheckLine(name=check.name, status=check.status.value, reason=check.reason, seconds=check.seconds)
        for check in run.verdict.checks
    )


def log_lines(run: CheckRun) -> tuple[str, ...]:
    """The end of what a check wrote, where there is no result that would say more."""
    return tuple(run.log_tail.splitlines()[-20:]) if run.result is None else ()


def step_lines(step: FailedStep | None) -> tuple[str, ...]:
    """The step at which a build failed, and the end of its log."""
    if step is None:
        return ()
    where = f" (Dockerfile line {step.lines[0]})" if step.lines else ""
    return (f"{step.name}{where}", *step.log)
