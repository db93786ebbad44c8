"""From an image to what the suite says of it: remembered, or run now and kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from builder.carried import Options, Progress, log_lines, short_of
from builder.check import Reach, VerdictStatus, check_image
from builder.engine.connection import Engine
from builder.errors import CheckFailed, CheckIncomplete, Interrupted
from builder.matrix import Level
from builder.memory import Checked, CheckMemory, expectation
from builder.plan import Action, public_references
from builder.project import Project
from builder.publish import stale_references
from builder.report import Outcome, Status, short

# With what it needs to sign it takes 60 ms to import, and a run that has nothing to check needs none of it.
if TYPE_CHECKING:
    from builder.release.ledger import Ledger


class Checker:
    """Checks images, no more than `options.checks` of them at once. Several threads may ask.

    Args:
        engine, reach, memory, project: as for a run.
        options: how to check.
        ledger: makes what keeps every run of the suite; asked once, when there is something to check. None for none.
        note: is told, by the cell's id, what happens.
        cancel: stops everything when set.

    Attributes:
        slots: are as many as `options.checks`; whatever else runs images takes one meanwhile.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        reach: Reach,
        memory: CheckMemory,
        project: Project,
        options: Options,
        ledger: Callable[[], Ledger] | None,
        note: Callable[[str, str], None],
        cancel: threading.Event,
    ) -> None:
        self._engine = engine
        self._reach = reach
        self._memory = memory
        self._project = project
        self._options = options
        self._make_ledger = ledger
        self._note = note
        self._cancel = cancel
        self.slots = threading.Semaphore(max(1, options.checks))
        self._keeping = threading.Lock()
        self._ledger: Ledger | None = None

    def ledger(self) -> Ledger | None:
        """The one ledger of this run.

        Raises:
            ConfigError: it cannot be had: a key that cannot be used, or no directory for the runs.
        """
        with self._keeping:
            if self._ledger is None and self._make_ledger is not None:
                self._ledger = self._make_ledger()
            return self._ledger

    def earlier(self, action: Action, image_id: str) -> Checked | None:
        """The check of this content that passed and still counts, unless it is to be checked again."""
        if self._options.recheck:
            return None
        options = self._options
        found = self._memory.recall(action.recipe, image_id, user=options.user, gpus=options.gpus)
        return found if found is not None and found.counts else None

    def check(self, action: Action, progress: Progress) -> Outcome | None:
        """Runs the check and remembers it, unless this content has passed; returns the outcome when it did not pass."""
        cell = action.cell
        if self._passed(action, progress):
            return None
        level, limit = self._reach.level(cell)
        with self.slots:
            if self._cancel.is_set():
                raise Interrupted("not checked")
            # An image of the same content may have passed while this one waited.
            if self._passed(action, progress):
                return None
            self._note(cell.id, f"checking {short(progress.image_id)}")
            started = time.monotonic()
            run = check_image(
                self._engine,
                progress.image_id,
                expectation(action.recipe),
                cancel=self._cancel,
                deadline=self._options.check_deadline,
                uid=self._options.user,
                gpus=self._options.gpus or level >= Level.GPU,
                level=level,
                limit=limit,
                fail_fast=self._options.fail_fast,
            )
            progress.ran, progress.check_seconds = True, time.monotonic() - started
            # Before the next check begins: it may be of the same content.
            progress.checked = self._memory.put(
                action.recipe, progress.image_id, run, user=self._options.user, gpus=self._options.gpus
            )
        passed = run.verdict.status is VerdictStatus.PASSED
        missed = short_of(run.verdict, self._options.level) if passed else ()
        progress.run = self._entered(action, progress.checked, missed)
        if passed:
            return None
        incomplete = run.verdict.status is VerdictStatus.INCOMPLETE
        return progress.outcome(
            Status.INCOMPLETE if incomplete else Status.FAILED,
            exit_code=(CheckIncomplete if incomplete else CheckFailed).exit_code,
            reasons=run.verdict.reasons,
            detail=log_lines(run),
            # Also those that this very image got when it passed before: no tag moves, and none may look earned.
            stale=stale_references(self._engine, None, public_references(cell)),
        )

    def _passed(self, action: Action, progress: Progress) -> bool:
        """Whether an image of this content is known to have passed; notes that in `progress`."""
        progress.checked = self.earlier(action, progress.image_id)
        if progress.checked is None:
            return False
        self._memory.learn(progress.image_id)
        return True

    def _entered(self, action: Action, checked: Checked, missed: tuple[str, ...]) -> str:
        """Keeps a run; returns the directory that it left, or nothing."""
        ledger = self.ledger()
        if ledger is None:
            return ""
        from builder.release.ledger import Held

        held = Held(project=self._project, recipe=action.recipe, key=action.key)
        return str(ledger.enter(checked, name=action.cell.id, held=held, short=missed) or "")
