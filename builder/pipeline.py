"""Carries cells through the stages, several at once, and keeps what came of each.

A cell that fails does not stop the others. Nothing here prints: progress goes to a `Watcher`, results into outcomes.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from builder.carried import Carried, Options, Progress, short_of, step_lines
from builder.check import Reach
from builder.checking import Checker
from builder.engine.connection import Engine
from builder.engine.errors import BuildFailed, DiskFull, EngineError, ImageMissing
from builder.engine.images import inspect, list_images
from builder.engine.trace import Event
from builder.errors import CheckIncomplete, ImgbuildError, Interrupted, TooLarge
from builder.exits import DEFECT, describe_defect, interrupted_code
from builder.lock import Pins
from builder.matrix import Cell
from builder.memory import CheckMemory
from builder.plan import Action, plan, public_references
from builder.project import Project
from builder.publish import promote, stale_references
from builder.records import FileLock, Records
from builder.render import Recipe
from builder.report import Outcome, Status
from builder.site import Site, redact

# A run that has nothing to check, or nothing to build, needs nothing of what they import.
if TYPE_CHECKING:
    from builder.making import Maker
    from builder.release.ledger import Ledger

__all__ = ["Foundry", "Options", "Watcher"]

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
        self._full = threading.Event()
        self._opening = threading.Lock()
        self._maker: Maker | None = None
        self._checker = Checker(
            engine=foundry.engine,
            reach=foundry.reach,
            memory=foundry.memory,
            project=foundry.project,
            options=options,
            ledger=foundry.ledger,
            note=foundry.watcher.note,
            cancel=foundry.cancel,
        )

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        if self._maker is not None:
            self._maker.close()

    def all(self, actions: tuple[Action, ...], one: Callable[[Action, Progress], Outcome]) -> tuple[Carried, ...]:
        """Carries all actions through `one`, several at once."""
        if any(action.check for action in actions):
            self._checker.ledger()  # a key that cannot be used is found before hours of work, not after
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
        except TooLarge as error:
            return self._failed(progress, error.exit_code, error.message, error.hint, error.detail)
        except (EngineError, ImgbuildError) as error:
            return self._failed(progress, error.exit_code, error.message, error.hint)
        except Exception as error:  # noqa: BLE001 - a defect in one cell must not cost the others their outcome
            message, _, hint = describe_defect(error).partition("\n  ")
            return self._failed(progress, DEFECT, message, hint)

    def build(self, action: Action, progress: Progress) -> Outcome:
        """Builds, checks and tags one cell."""
        if action.nothing:
            self._keep_to_budget(action.cell, action.image_id or "")
            return self._unchanged(action, progress)
        with self._locked(action.key or "", action.cell):
            # Another imgbuild may have done the work while this one waited.
            action = progress.action = self._planned_again(action)
            if action.nothing:
                self._keep_to_budget(action.cell, action.image_id or "")
                return self._unchanged(action, progress)
            self._take_image(action, progress)
            self._keep_to_budget(action.cell, progress.image_id)
            if not self._options.check:
                return progress.outcome(Status.BUILT)
            failed = self._checker.check(action, progress)
            if failed is not None:
                return failed
            references = public_references(action.cell, verified=progress.verified)
            with self._locked(f"tags {action.cell.repository}", action.cell):
                progress.moved = promote(self._foundry.engine, progress.image_id, references)
        status = Status.VERIFIED if progress.verified else Status.PASSED
        return progress.outcome(status, references=references, stale=self._unearned(action.cell, progress))

    def _keep_to_budget(self, cell: Cell, image_id: str) -> None:
        """Raises TooLarge where an image takes more than its cell may, also one that passed under a larger budget."""
        if cell.budget is None:
            return
        from builder.sizes.budget import judge

        engine = self._foundry.engine
        # What has the cell's first name passed its check: the last good image.
        last = inspect(engine, public_references(cell, verified=False)[0])
        over = judge(engine, image_id, cell.budget, last.id if last is not None else None)
        if over is not None:
            raise over.error(cell.id)

    def check(self, action: Action, progress: Progress) -> Outcome:
        """Checks the image of one cell, without moving a tag."""
        if action.image_id is None:
            raise ImageMissing(
                f"this engine holds no image for {action.cell.id} as it is rendered now",
                hint=f"imgbuild build --no-check {action.cell.id}",
            )
        failed = self._checker.check(action, progress)
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
        progress.checked = self._checker.earlier(action, progress.image_id)
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
        """The image of an action: the one that the engine holds, or one that is made now."""
        if action.image_id is not None:
            progress.image_id, progress.candidate = action.image_id, action.candidate
            return
        made = self._opened_maker().make(action)
        progress.image_id, progress.candidate = made.image.id, made.image.candidate
        progress.built, progress.build, progress.build_seconds = made.image.built, made.record, made.seconds

    def _opened_maker(self) -> Maker:
        """The one maker of this run, with its session."""
        from builder.making import Maker

        with self._opening:
            if self._maker is None:
                foundry = self._foundry
                self._maker = Maker(
                    engine=foundry.engine,
                    site=foundry.site,
                    records=foundry.records,
                    project=foundry.project,
                    recipes=foundry.recipes,
                    on_event=foundry.watcher.event,
                    note=foundry.watcher.note,
                    slots=self._checker.slots,
                    cancel=foundry.cancel,
                )
            return self._maker

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


def _wait(futures: list[Future[Carried]]) -> None:
    """Waits for all, waking often enough for the main thread to handle signals."""
    pending = set(futures)
    while pending:
        _, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
