"""Carries cells through the stages, several at once, and keeps what came of each.

A cell that fails does not stop the others. Nothing here prints: progress goes to a `Watcher`, results into outcomes.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from builder.build import build_image, open_session, source_labels
from builder.check import DEFAULT_USER, CheckRun, VerdictStatus, check_image
from builder.engine.connection import Engine
from builder.engine.errors import BuildFailed, DiskFull, EngineError, FailedStep, ImageMissing
from builder.engine.images import list_images
from builder.engine.session import Session
from builder.engine.trace import Event
from builder.errors import CheckFailed, CheckIncomplete, ImgbuildError, Interrupted
from builder.exits import DEFECT, describe_defect, interrupted_code
from builder.lock import Pins
from builder.matrix import Cell
from builder.memory import CheckMemory, expectation
from builder.plan import Action, plan, public_references
from builder.project import Project
from builder.publish import promote, stale_references
from builder.records import FileLock, Records
from builder.render import Recipe
from builder.report import CheckLine, Outcome, Status, short
from builder.site import Site, redact

LOCK_TIMEOUT = 4 * 3600.0
"""Seconds to wait for another imgbuild that works on the same key: longer than any build and check of one image."""


class Watcher(Protocol):
    """Is told what happens, from several threads."""

    def begin(self, label: str) -> object:
        """A cell is taken up."""

    def event(self, label: str, event: Event) -> None:
        """A build said something."""

    def note(self, label: str, text: str) -> None:
        """Something happened that is not a build's event."""

    def end(self, label: str, outcome: str, *, ok: bool) -> None:
        """A cell came to its end."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to run.

    Attributes:
        jobs: how many cells are carried at once.
        checks: how many of them may be checked at once; a check trains on two processes and needs the processors.
        check: False to stop before the check.
        rebuild: make new candidates beside existing ones.
        check_deadline: seconds that a check may take.
        user: UID:GID that checks run as. Only a check as the default one counts for tags.
        gpus: give checks every GPU of the engine.
    """

    jobs: int = 1
    checks: int = 1
    check: bool = True
    rebuild: bool = False
    check_deadline: float = 900.0
    user: str = DEFAULT_USER
    gpus: bool = False


@dataclass(frozen=True, kw_only=True)
class Foundry:
    """What every cell of a run shares.

    Attributes:
        engine: where images are built and checked.
        site: this machine's settings.
        records: what this machine remembers.
        recipes: every recipe of the matrix, selected or not: the build context is made of all of them.
        project: the project.
        watcher: is told what happens.
        cancel: set from outside to stop everything.
    """

    engine: Engine
    site: Site
    records: Records
    recipes: tuple[Recipe, ...]
    project: Project
    watcher: Watcher
    cancel: threading.Event

    def plan(self, selected: tuple[Recipe, ...], pins: Pins, options: Options) -> tuple[Action, ...]:
        """What the selected cells need, from one look at the engine."""
        return plan(
            selected,
            pins,
            list_images(self.engine),
            CheckMemory(self.records).get,
            rebuild=options.rebuild,
            check=options.check,
        )

    def build(self, actions: tuple[Action, ...], options: Options) -> tuple[Outcome, ...]:
        """Builds, checks and tags what each action needs; the outcomes come in the same order.

        Set `cancel` to stop: builds are cancelled on the engine, check containers are removed, and what was not
        finished comes back as cancelled.
        """
        with _Run(self, options) as run:
            return run.all(actions, run.build)

    def check(self, actions: tuple[Action, ...], options: Options) -> tuple[Outcome, ...]:
        """Checks the image that the engine holds for each action, also one that passed before; moves no tag."""
        with _Run(self, options) as run:
            return run.all(actions, run.check)


class _Run:
    """One run over several cells: what their threads share."""

    def __init__(self, foundry: Foundry, options: Options) -> None:
        self._foundry = foundry
        self._options = options
        self._memory = CheckMemory(foundry.records, options.user)
        self._checking = threading.Semaphore(max(1, options.checks))
        self._full = threading.Event()
        self._opening = threading.Lock()
        self._open = ExitStack()
        self._session: Session | None = None

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def all(self, actions: tuple[Action, ...], one: Callable[[Action, _Progress], Outcome]) -> tuple[Outcome, ...]:
        """Carries all actions through `one`, several at once."""
        with ThreadPoolExecutor(max_workers=max(1, self._options.jobs), thread_name_prefix="cell") as pool:
            futures = [pool.submit(self._carry, action, one) for action in actions]
            _wait(futures)
        return tuple(future.result() for future in futures)

    def _carry(self, action: Action, one: Callable[[Action, _Progress], Outcome]) -> Outcome:
        """One cell from its action to its outcome; whatever goes wrong is in the outcome."""
        progress = _Progress(
            cell=action.cell,
            key=action.key or "",
            image_id=action.image_id or "",
            candidate=action.candidate,
            level=action.cell.verify.value,
        )
        self._foundry.watcher.begin(action.cell.id)
        outcome = self._guarded(action, progress, one)
        said = f"{outcome.status.value}: {outcome.reasons[0]}" if outcome.reasons else outcome.status.value
        self._foundry.watcher.end(action.cell.id, said, ok=outcome.exit_code == 0)
        return outcome

    def _guarded(self, action: Action, progress: _Progress, one: Callable[[Action, _Progress], Outcome]) -> Outcome:
        try:
            if self._foundry.cancel.is_set():
                raise Interrupted("not started")
            if self._full.is_set() and not action.nothing:
                raise DiskFull("not started: a disk is full")
            return one(action, progress)
        except DiskFull as error:
            self._full.set()
            return self._failed(progress, error.exit_code, error.message, error.hint, _step_lines(error.step))
        except BuildFailed as error:
            return self._failed(progress, error.exit_code, error.message, error.hint, _step_lines(error.step))
        except (EngineError, ImgbuildError) as error:
            return self._failed(progress, error.exit_code, error.message, error.hint)
        except Exception as error:  # noqa: BLE001 - a defect in one cell must not cost the others their outcome
            message, _, hint = describe_defect(error).partition("\n  ")
            return self._failed(progress, DEFECT, message, hint)

    def build(self, action: Action, progress: _Progress) -> Outcome:
        """Builds, checks and tags one cell."""
        if action.nothing:
            return self._unchanged(action, progress)
        with self._locked(action.key or "", action.cell):
            # Another imgbuild may have done the work while this one waited.
            action = self._planned_again(action)
            if action.nothing:
                return self._unchanged(action, progress)
            self._take_image(action, progress)
            if not self._options.check:
                return progress.outcome(Status.BUILT)
            if action.check:
                failed = self._check(action, progress)
                if failed is not None:
                    return failed
            references = public_references(action.cell)
            with self._locked(f"tags {action.cell.repository}", action.cell):
                progress.moved = promote(self._foundry.engine, progress.image_id, references)
        return progress.outcome(Status.VERIFIED, references=references)

    def check(self, action: Action, progress: _Progress) -> Outcome:
        """Checks the image of one cell, without moving a tag."""
        if action.image_id is None:
            raise ImageMissing(
                f"this engine holds no image for {action.cell.id} as it is rendered now",
                hint=f"imgbuild build --no-check {action.cell.id}",
            )
        return self._check(action, progress) or progress.outcome(Status.PASSED)

    def _unchanged(self, action: Action, progress: _Progress) -> Outcome:
        progress.image_id, progress.candidate = action.image_id or "", action.candidate
        if not self._options.check:
            return progress.outcome(Status.BUILT, reasons=(action.why,))
        return progress.outcome(Status.UNCHANGED, references=public_references(action.cell), reasons=(action.why,))

    def _locked(self, what: str, cell: Cell) -> FileLock:
        """A lock between all imgbuild processes that share this machine's state."""
        name = hashlib.sha256(f"{self._foundry.engine.info().id} {what}".encode()).hexdigest()
        return FileLock(
            self._foundry.site.state_dir / "locks" / f"{name}.lock",
            timeout=LOCK_TIMEOUT,
            cancel=self._foundry.cancel,
            on_wait=lambda holder: self._foundry.watcher.note(cell.id, f"waiting for another imgbuild: {holder}"),
        )

    def _planned_again(self, action: Action) -> Action:
        pins = Pins(bases={action.base.name: action.base} if action.base else {})
        return self._foundry.plan((action.recipe,), pins, self._options)[0]

    def _take_image(self, action: Action, progress: _Progress) -> None:
        if action.image_id is not None:
            progress.image_id, progress.candidate = action.image_id, action.candidate
            return
        image = build_image(
            self._foundry.engine,
            self._opened_session(),
            action,
            labels=source_labels(self._foundry.project),
            on_event=lambda event: self._foundry.watcher.event(action.cell.id, event),
            cancel=self._foundry.cancel,
        )
        progress.image_id, progress.candidate = image.id, image.candidate
        progress.built, progress.build_seconds = image.built, image.seconds

    def _opened_session(self) -> Session:
        """The one session of this run, opened by the first cell that builds."""
        with self._opening:
            if self._session is None:
                foundry = self._foundry
                session = open_session(foundry.engine, foundry.recipes, foundry.site, foundry.project.root)
                self._session = self._open.enter_context(session)
            return self._session

    def _check(self, action: Action, progress: _Progress) -> Outcome | None:
        """Runs the check and remembers it; returns the outcome when it did not pass."""
        foundry, cell = self._foundry, action.cell
        with self._checking:
            if foundry.cancel.is_set():
                raise Interrupted("not checked")
            foundry.watcher.note(cell.id, f"checking {short(progress.image_id)}")
            started = time.monotonic()
            run = check_image(
                foundry.engine,
                progress.image_id,
                expectation(action.recipe),
                cancel=foundry.cancel,
                deadline=self._options.check_deadline,
                uid=self._options.user,
                gpus=self._options.gpus,
            )
        progress.checked, progress.check_seconds = True, time.monotonic() - started
        progress.checks = check_lines(run)
        self._memory.put(progress.image_id, cell, run)
        if run.verdict.status is VerdictStatus.PASSED:
            return None
        incomplete = run.verdict.status is VerdictStatus.INCOMPLETE
        return progress.outcome(
            Status.INCOMPLETE if incomplete else Status.FAILED,
            exit_code=(CheckIncomplete if incomplete else CheckFailed).exit_code,
            reasons=run.verdict.reasons,
            detail=log_lines(run),
            stale=stale_references(foundry.engine, progress.image_id, public_references(cell)),
        )

    def _failed(
        self, progress: _Progress, exit_code: int, message: str, hint: str, detail: tuple[str, ...] = ()
    ) -> Outcome:
        cancelled = self._foundry.cancel.is_set()
        try:
            stale = stale_references(self._foundry.engine, progress.image_id or None, public_references(progress.cell))
        except EngineError:
            stale = ()
        return progress.outcome(
            Status.CANCELLED if cancelled else Status.FAILED,
            exit_code=interrupted_code() if cancelled else exit_code,
            reasons=tuple(redact(text, self._foundry.site) for text in (message, hint) if text),
            detail=tuple(redact(text, self._foundry.site) for text in detail),
            stale=stale,
        )


@dataclass(kw_only=True)
class _Progress:
    """How far one cell has come; grows while it is carried."""

    cell: Cell
    key: str
    level: str
    image_id: str = ""
    candidate: str = ""
    built: bool = False
    checked: bool = False
    build_seconds: float = 0.0
    check_seconds: float = 0.0
    checks: tuple[CheckLine, ...] = ()
    moved: tuple[str, ...] = ()

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
        return Outcome(
            cell=self.cell.id,
            status=status,
            exit_code=exit_code,
            key=self.key,
            image_id=self.image_id,
            candidate=self.candidate,
            built=self.built,
            checked=self.checked,
            build_seconds=self.build_seconds,
            check_seconds=self.check_seconds,
            level=self.level,
            checks=self.checks,
            moved=self.moved,
            references=references,
            stale=stale,
            reasons=reasons,
            detail=detail,
        )


def check_lines(run: CheckRun) -> tuple[CheckLine, ...]:
    """A run's checks as a report shows them."""
    return tuple(
        CheckLine(name=check.name, status=check.status.value, reason=check.reason, seconds=check.seconds)
        for check in run.verdict.checks
    )


def log_lines(run: CheckRun) -> tuple[str, ...]:
    """The end of what a check wrote, where there is no result that would say more."""
    return tuple(run.log_tail.splitlines()[-20:]) if run.result is None else ()


def _wait(futures: list[Future[Outcome]]) -> None:
    """Waits for all, waking often enough for the main thread to handle signals."""
    pending = set(futures)
    while pending:
        _, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)


def _step_lines(step: FailedStep | None) -> tuple[str, ...]:
    if step is None:
        return ()
    where = f" (Dockerfile line {step.lines[0]})" if step.lines else ""
    return (f"{step.name}{where}", *step.log)
