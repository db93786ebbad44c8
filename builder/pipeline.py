"""Carries cells through the stages, several at once, and keeps what came of each.

A cell that fails does not stop the others. Nothing here prints: progress goes to a `Watcher`, results into outcomes.
"""

from __future__ import annotations

import datetime
import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from builder.build import build_image, open_session, source_labels
from builder.builds import remember_build
from builder.carried import Carried, Progress, log_lines, short_of, step_lines
from builder.check import DEFAULT_USER, Reach, VerdictStatus, check_image
from builder.engine.connection import Engine
from builder.engine.errors import BuildFailed, DiskFull, EngineError, ImageMissing
from builder.engine.images import list_images
from builder.engine.session import Session
from builder.engine.trace import Event
from builder.errors import CheckFailed, CheckIncomplete, ImgbuildError, Interrupted
from builder.exits import DEFECT, describe_defect, interrupted_code
from builder.lock import Pins
from builder.matrix import Cell, Level
from builder.memory import Checked, CheckMemory, expectation
from builder.plan import Action, plan, public_references
from builder.project import Project
from builder.publish import promote, stale_references
from builder.records import FileLock, Records
from builder.render import Recipe
from builder.report import Outcome, Status, short
from builder.site import Site, redact

# With what it needs to sign it takes 60 ms to import, and a run that has nothing to check needs none of it.
if TYPE_CHECKING:
    from builder.release.ledger import Ledger

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
class Foundry:
    """What every cell of a run shares.

    Attributes:
        engine: where images are built and checked.
        site: this machine's settings.
        records: what this machine remembers.
        reach: how far checks can go on the engine.
        memory: what the suite said of images.
        recipes: every recipe of the matrix, selected or not: the build context is made of all of them.
        project: the project.
        watcher: is told what happens.
        cancel: set from outside to stop everything.
        ledger: makes what keeps every run of the suite, with a statement on it; asked when there is something to
            check. None to keep none.
    """

    engine: Engine
    site: Site
    records: Records
    reach: Reach
    memory: CheckMemory
    recipes: tuple[Recipe, ...]
    project: Project
    watcher: Watcher
    cancel: threading.Event
    ledger: Callable[[], Ledger] | None = None

    def plan(self, selected: tuple[Recipe, ...], pins: Pins, options: Options) -> tuple[Action, ...]:
        """What the selected cells need, from one look at the engine."""
        self.memory.refresh()
        return plan(
            selected,
            pins,
            list_images(self.engine),
            self.memory.get,
            level=lambda cell: self.reach.level(cell)[0],
            rebuild=options.rebuild,
            check=options.check,
            recheck=options.recheck,
        )

    def build(self, actions: tuple[Action, ...], options: Options) -> tuple[Carried, ...]:
        """Builds, checks and tags what each action needs; what came of them is in the same order.

        Set `cancel` to stop: builds are cancelled on the engine, check containers are removed, and what was not
        finished comes back as cancelled.
        """
        with _Run(self, options) as run:
            return run.all(actions, run.build)

    def check(self, actions: tuple[Action, ...], options: Options) -> tuple[Carried, ...]:
        """Checks the image that the engine holds for each action, unless its content has passed; moves no tag."""
        with _Run(self, options) as run:
            return run.all(actions, run.check)


class _Run:
    """One run over several cells: what their threads share."""

    def __init__(self, foundry: Foundry, options: Options) -> None:
        self._foundry = foundry
        self._options = options
        self._checking = threading.Semaphore(max(1, options.checks))
        self._full = threading.Event()
        self._opening = threading.Lock()
        self._open = ExitStack()
        self._session: Session | None = None
        self._keeping = threading.Lock()
        self._ledger: Ledger | None = None

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def all(self, actions: tuple[Action, ...], one: Callable[[Action, Progress], Outcome]) -> tuple[Carried, ...]:
        """Carries all actions through `one`, several at once."""
        if any(action.check for action in actions):
            self._opened_ledger()  # a key that cannot be used is found before hours of work, not after
        with ThreadPoolExecutor(max_workers=max(1, self._options.jobs), thread_name_prefix="cell") as pool:
            futures = [pool.submit(self._carry, action, one) for action in actions]
            _wait(futures)
        return tuple(future.result() for future in futures)

    def _carry(self, action: Action, one: Callable[[Action, Progress], Outcome]) -> Carried:
        """One cell from its action to its outcome; whatever goes wrong is in the outcome."""
        progress = Progress(
            action=action,
            key=action.key or "",
            image_id=action.image_id or "",
            candidate=action.candidate,
            level=self._foundry.reach.level(action.cell)[0],
        )
        self._foundry.watcher.begin(action.cell.id)
        outcome = self._guarded(action, progress, one)
        lines = (*outcome.reasons, *outcome.unverified)
        said = f"{outcome.status.value}: {lines[0]}" if lines else outcome.status.value
        self._foundry.watcher.end(action.cell.id, said, ok=outcome.exit_code == 0)
        return Carried(action=progress.action, outcome=outcome, checked=progress.checked, build=progress.build)

    def _guarded(self, action: Action, progress: Progress, one: Callable[[Action, Progress], Outcome]) -> Outcome:
        try:
            if self._foundry.cancel.is_set():
                raise Interrupted("not started")
            if self._full.is_set() and not action.nothing:
                raise DiskFull("not started: a disk is full")
            return one(action, progress)
        except DiskFull as error:
            self._full.set()
            return self._failed(progress, error.exit_code, error.message, error.hint, step_lines(error.step))
        except BuildFailed as error:
            return self._failed(progress, error.exit_code, error.message, error.hint, step_lines(error.step))
        except (EngineError, ImgbuildError) as error:
            return self._failed(progress, error.exit_code, error.message, error.hint)
        except Exception as error:  # noqa: BLE001 - a defect in one cell must not cost the others their outcome
            message, _, hint = describe_defect(error).partition("\n  ")
            return self._failed(progress, DEFECT, message, hint)

    def build(self, action: Action, progress: Progress) -> Outcome:
        """Builds, checks and tags one cell."""
        if action.nothing:
            return self._unchanged(action, progress)
        with self._locked(action.key or "", action.cell):
            # Another imgbuild may have done the work while this one waited.
            action = progress.action = self._planned_again(action)
            if action.nothing:
                return self._unchanged(action, progress)
            self._take_image(action, progress)
            if not self._options.check:
                return progress.outcome(Status.BUILT)
            failed = self._check(action, progress)
            if failed is not None:
                return failed
            references = public_references(action.cell, verified=progress.verified)
            with self._locked(f"tags {action.cell.repository}", action.cell):
                progress.moved = promote(self._foundry.engine, progress.image_id, references)
        status = Status.VERIFIED if progress.verified else Status.PASSED
        return progress.outcome(status, references=references, stale=self._unearned(action.cell, progress))

    def check(self, action: Action, progress: Progress) -> Outcome:
        """Checks the image of one cell, without moving a tag."""
        if action.image_id is None:
            raise ImageMissing(
                f"this engine holds no image for {action.cell.id} as it is rendered now",
                hint=f"imgbuild build --no-check {action.cell.id}",
            )
        failed = self._check(action, progress)
        if failed is not None or progress.checked is None:
            return failed or progress.outcome(Status.PASSED)
        short = short_of(progress.checked.run.verdict, self._options.level)
        if short:
            return progress.outcome(Status.INCOMPLETE, exit_code=CheckIncomplete.exit_code, reasons=short)
        return progress.outcome(Status.PASSED)

    def _unchanged(self, action: Action, progress: Progress) -> Outcome:
        progress.image_id, progress.candidate = action.image_id or "", action.candidate
        if not self._options.check:
            return progress.outcome(Status.BUILT, reasons=(action.why,))
        progress.checked = self._earlier(action, progress.image_id)
        return progress.outcome(
            Status.UNCHANGED,
            references=public_references(action.cell, verified=progress.verified),
            reasons=(action.why,),
            stale=self._unearned(action.cell, progress),
        )

    def _unearned(self, cell: Cell, progress: Progress) -> tuple[tuple[str, str], ...]:
        """Names with `-verified` that another image has, where this one has not earned them."""
        if progress.verified:
            return ()
        plain = public_references(cell, verified=False)
        return stale_references(self._foundry.engine, progress.image_id, public_references(cell)[len(plain) :])

    def _earlier(self, action: Action, image_id: str) -> Checked | None:
        """The check of this content that passed and still counts, unless it is to be checked again."""
        if self._options.recheck:
            return None
        options = self._options
        found = self._foundry.memory.recall(action.recipe, image_id, user=options.user, gpus=options.gpus)
        return found if found is not None and found.counts else None

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

    def _take_image(self, action: Action, progress: Progress) -> None:
        if action.image_id is not None:
            progress.image_id, progress.candidate = action.image_id, action.candidate
            return
        foundry, started = self._foundry, _now()
        labels = source_labels(foundry.project)
        image = build_image(
            foundry.engine,
            self._opened_session(),
            action,
            labels=labels,
            on_event=lambda event: foundry.watcher.event(action.cell.id, event),
            cancel=foundry.cancel,
        )
        progress.image_id, progress.candidate = image.id, image.candidate
        progress.built, progress.build_seconds = image.built, image.seconds
        if image.built:
            progress.build = remember_build(
                foundry.records,
                foundry.project,
                action,
                image.id,
                started=started,
                finished=_now(),
                labels=labels,
            )

    def _opened_session(self) -> Session:
        """The one session of this run, opened by the first cell that builds."""
        with self._opening:
            if self._session is None:
                foundry = self._foundry
                session = open_session(foundry.engine, foundry.recipes, foundry.site, foundry.project.root)
                self._session = self._open.enter_context(session)
            return self._session

    def _opened_ledger(self) -> Ledger | None:
        """The one ledger of this run."""
        with self._keeping:
            if self._ledger is None and self._foundry.ledger is not None:
                self._ledger = self._foundry.ledger()
            return self._ledger

    def _check(self, action: Action, progress: Progress) -> Outcome | None:
        """Runs the check and remembers it, unless this content has passed; returns the outcome when it did not pass."""
        foundry, cell = self._foundry, action.cell
        progress.checked = self._earlier(action, progress.image_id)
        if progress.checked is not None:
            foundry.memory.learn(progress.image_id)
            return None
        level, limit = foundry.reach.level(cell)
        with self._checking:
            if foundry.cancel.is_set():
                raise Interrupted("not checked")
            # An image of the same content may have passed while this one waited.
            progress.checked = self._earlier(action, progress.image_id)
            if progress.checked is not None:
                foundry.memory.learn(progress.image_id)
                return None
            foundry.watcher.note(cell.id, f"checking {short(progress.image_id)}")
            started = time.monotonic()
            run = check_image(
                foundry.engine,
                progress.image_id,
                expectation(action.recipe),
                cancel=foundry.cancel,
                deadline=self._options.check_deadline,
                uid=self._options.user,
                gpus=self._options.gpus or level >= Level.GPU,
                level=level,
                limit=limit,
                fail_fast=self._options.fail_fast,
            )
            progress.ran, progress.check_seconds = True, time.monotonic() - started
            # Before the next check begins: it may be of the same content.
            progress.checked = foundry.memory.put(
                action.recipe, progress.image_id, run, user=self._options.user, gpus=self._options.gpus
            )
        progress.run = self._entered(action, progress.checked)
        if run.verdict.status is VerdictStatus.PASSED:
            return None
        incomplete = run.verdict.status is VerdictStatus.INCOMPLETE
        return progress.outcome(
            Status.INCOMPLETE if incomplete else Status.FAILED,
            exit_code=(CheckIncomplete if incomplete else CheckFailed).exit_code,
            reasons=run.verdict.reasons,
            detail=log_lines(run),
            # Also those that this very image got when it passed before: no tag moves, and none may look earned.
            stale=stale_references(foundry.engine, None, public_references(cell)),
        )

    def _entered(self, action: Action, checked: Checked) -> str:
        """Keeps a run; returns the directory that it left, or nothing."""
        ledger = self._opened_ledger()
        if ledger is None:
            return ""
        from builder.release.ledger import Held

        held = Held(project=self._foundry.project, recipe=action.recipe, key=action.key)
        return str(ledger.enter(checked, name=action.cell.id, held=held) or "")

    def _failed(
        self, progress: Progress, exit_code: int, message: str, hint: str, detail: tuple[str, ...] = ()
    ) -> Outcome:
        cancelled = self._foundry.cancel.is_set()
        try:
            cell = progress.action.cell
            stale = stale_references(self._foundry.engine, progress.image_id or None, public_references(cell))
        except EngineError:
            stale = ()
        return progress.outcome(
            Status.CANCELLED if cancelled else Status.FAILED,
            exit_code=interrupted_code() if cancelled else exit_code,
            reasons=tuple(redact(text, self._foundry.site) for text in (message, hint) if text),
            detail=tuple(redact(text, self._foundry.site) for text in detail),
            stale=stale,
        )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _wait(futures: list[Future[Carried]]) -> None:
    """Waits for all, waking often enough for the main thread to handle signals."""
    pending = set(futures)
    while pending:
        _, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
