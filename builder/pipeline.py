"""Carries cells through the stages, several at once, and keeps what came of each.

A cell that fails does not stop the others. Nothing here prints: progress goes to a `Watcher`, results into outcomes.
"""

from __future__ import annotations

import datetime
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from builder.build import Image, build_image, open_session
from builder.check import (
    CheckRun,
    Expectation,
    NoResult,
    VerdictStatus,
    check_image,
    judge,
    parse_result,
    required_checks,
    suite,
)
from builder.engine.connection import Engine
from builder.engine.errors import BuildFailed, DiskFull, EngineError, FailedStep
from builder.engine.images import list_images
from builder.engine.session import Session
from builder.engine.trace import Event
from builder.errors import CheckFailed, CheckIncomplete, ImgbuildError
from builder.exits import DEFECT, describe_defect
from builder.lock import Pins
from builder.matrix import Cell
from builder.plan import Action, Remembered, plan, public_references
from builder.publish import promote, stale_references
from builder.records import FileLock, Records
from builder.render import Recipe
from builder.report import CheckLine, Outcome, Status
from builder.site import Site, redact

CHECKS = "checks"
"""The kind of record that remembers what the suite said of an image."""

LOCK_TIMEOUT = 3600.0
"""Seconds to wait for another imgbuild that works on the same key: as long as a large build takes."""


class Watcher(Protocol):
    """Is told what happens, from several threads."""

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
    """

    jobs: int
    checks: int = 1
    check: bool = True
    rebuild: bool = False
    check_deadline: float = 900.0


def expectation(recipe: Recipe) -> Expectation:
    """What an image must be to pass as this cell: the pins, what must be installed, and the checks that must run."""
    cell = recipe.cell
    promised = frozenset(
        {cell.framework.name, "pip", *(package for extra in cell.extras for package in extra.packages)}
    )
    return Expectation(
        packages=recipe.constraints,
        promised=promised,
        python=cell.python,
        cuda=cell.cuda,
        level=cell.verify,
        required=required_checks(promised),
    )


class CheckMemory:
    """What the suite said of images on this machine, by image id, suite and level.

    The suite's own result is kept, not a verdict: the verdict is made again from it with what the cell expects today.
    """

    def __init__(self, records: Records, suite_sha256: str) -> None:
        self._records = records
        self._suite = suite_sha256

    def _key(self, image_id: str, cell: Cell) -> str:
        return f"{image_id.removeprefix('sha256:')}-{self._suite}-{cell.verify.value}"

    def put(self, image_id: str, cell: Cell, run: CheckRun) -> None:
        """Remembers one run of the suite."""
        self._records.put(
            CHECKS,
            self._key(image_id, cell),
            {
                "image_id": image_id,
                "suite": self._suite,
                "level": cell.verify.value,
                "nonce": run.nonce,
                "result": run.raw.decode("utf-8") if run.result is not None else None,
                "reasons": list(run.verdict.reasons),
            },
        )

    def get(self, recipe: Recipe, image_id: str) -> Remembered | None:
        """What the last run on this image comes to, judged by what the cell expects today; None when there was none."""
        document = self._records.get(CHECKS, self._key(image_id, recipe.cell))
        if document is None or document.get("image_id") != image_id:
            return None
        raw, nonce = document.get("result"), document.get("nonce")
        if not isinstance(raw, str) or not isinstance(nonce, str):
            reasons = document.get("reasons")
            reason = str(reasons[0]) if isinstance(reasons, list) and reasons else "it gave no result"
            return Remembered(passed=False, reason=reason)
        try:
            verdict = judge(expectation(recipe), parse_result(raw.encode(), nonce))
        except NoResult as error:
            return Remembered(passed=False, reason=error.message)
        if verdict.status is VerdictStatus.PASSED:
            return Remembered(passed=True)
        return Remembered(passed=False, reason=verdict.reasons[0] if verdict.reasons else verdict.status.value)


@dataclass(frozen=True, kw_only=True)
class Foundry:
    """What every cell of a run shares.

    Attributes:
        engine: where images are built and checked.
        site: this machine's settings.
        records: what this machine remembers.
        recipes: every recipe of the matrix, selected or not: the build context is made of all of them.
        project: the project's root.
        watcher: is told what happens.
        cancel: set from outside to stop everything.
    """

    engine: Engine
    site: Site
    records: Records
    recipes: tuple[Recipe, ...]
    project: Path
    watcher: Watcher
    cancel: threading.Event

    def plan(self, selected: tuple[Recipe, ...], pins: Pins, options: Options) -> tuple[Action, ...]:
        """What the selected cells need, from one look at the engine."""
        return plan(
            selected,
            pins,
            list_images(self.engine),
            CheckMemory(self.records, suite().sha256).get,
            rebuild=options.rebuild,
            check=options.check,
        )

    def carry(self, actions: tuple[Action, ...], options: Options) -> tuple[Outcome, ...]:
        """Carries every action to its end and returns the outcomes in the same order.

        Set `cancel` to stop: builds are cancelled on the engine, check containers are removed, and what was not
        finished comes back as cancelled.
        """
        if not any(action.build for action in actions):
            return self._carry_all(actions, options, None)
        with open_session(self.engine, self.recipes, self.site, self.project) as session:
            return self._carry_all(actions, options, session)

    def _carry_all(self, actions: tuple[Action, ...], options: Options, session: Session | None) -> tuple[Outcome, ...]:
        run = _Run(self, options, session)

        def carry(action: Action) -> Outcome:
            outcome = run.carry(action)
            if not action.nothing:
                doing = outcome.status.value if not outcome.reasons else f"{outcome.status.value}: {outcome.reasons[0]}"
                self.watcher.end(action.cell.id, doing, ok=outcome.exit_code == 0)
            return outcome

        with ThreadPoolExecutor(max_workers=max(1, options.jobs), thread_name_prefix="cell") as pool:
            futures = [pool.submit(carry, action) for action in actions]
            _wait(futures)
        return tuple(future.result() for future in futures)


def _wait(futures: list[Future[Outcome]]) -> None:
    """Waits for all, waking often enough for the main thread to handle signals."""
    pending = set(futures)
    while pending:
        _, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)


class _Run:
    """One run over several cells: what their threads share."""

    def __init__(self, foundry: Foundry, options: Options, session: Session | None) -> None:
        self._foundry = foundry
        self._options = options
        self._session = session
        self._memory = CheckMemory(foundry.records, suite().sha256)
        self._checking = threading.Semaphore(max(1, options.checks))
        self._labels = _labels(foundry.project)
        self._full = threading.Event()

    def carry(self, action: Action) -> Outcome:
        """One cell, from its action to its outcome; whatever goes wrong is in the outcome."""
        cell = action.cell
        progress = _Progress(cell=cell, key=action.key or "")
        try:
            if self._foundry.cancel.is_set():
                return progress.outcome(Status.CANCELLED, exit_code=130, reasons=("not started",))
            if self._full.is_set() and not action.nothing:
                reasons = ("not started: the engine's disk is full",)
                return progress.outcome(Status.CANCELLED, exit_code=DiskFull.exit_code, reasons=reasons)
            if action.nothing:
                progress.image_id = action.image_id or ""
                status = Status.UNCHANGED if self._options.check else Status.BUILT
                references = public_references(cell) if self._options.check else ()
                return progress.outcome(status, references=references, reasons=(action.why,))
            with self._lock(action):
                return self._carry_locked(action, progress)
        except DiskFull as error:
            self._full.set()
            return self._failed(progress, error.exit_code, error.message, error.hint, _step_lines(error.step))
        except BuildFailed as error:
            return self._failed(progress, error.exit_code, error.message, error.hint, _step_lines(error.step))
        except EngineError as error:
            return self._failed(progress, error.exit_code, error.message, error.hint)
        except ImgbuildError as error:
            return self._failed(progress, error.exit_code, error.message, error.hint)
        except Exception as error:  # noqa: BLE001 - a defect in one cell must not cost the others their outcome
            message, _, hint = describe_defect(error).partition("\n  ")
            return self._failed(progress, DEFECT, message, hint)

    def _lock(self, action: Action) -> AbstractContextManager[object]:
        directory = self._foundry.site.state_dir / "locks"
        return FileLock(directory / f"{action.key}.lock", timeout=LOCK_TIMEOUT)

    def _carry_locked(self, action: Action, progress: _Progress) -> Outcome:
        foundry, cell = self._foundry, action.cell
        image = self._image(action)
        progress.image_id, progress.candidate = image.id, image.candidate
        progress.built, progress.build_seconds = image.built, image.seconds
        if not self._options.check:
            return progress.outcome(Status.BUILT)
        remembered = self._memory.get(action.recipe, image.id)
        if remembered is None or not remembered.passed:
            failed = self._check(action, progress)
            if failed is not None:
                return failed
        references = public_references(cell)
        progress.moved = promote(foundry.engine, image.id, references)
        status = Status.VERIFIED if progress.built or progress.checked or progress.moved else Status.UNCHANGED
        return progress.outcome(status, references=references)

    def _image(self, action: Action) -> Image:
        if action.image_id is not None:
            return Image(id=action.image_id, key=action.key or "", candidate="", built=False, seconds=0.0)
        if self._session is None:
            raise ImgbuildError("a build was planned without a session", where=action.cell.id)
        return build_image(
            self._foundry.engine,
            self._session,
            action,
            labels=self._labels,
            on_event=lambda event: self._foundry.watcher.event(action.cell.id, event),
            cancel=self._foundry.cancel,
        )

    def _check(self, action: Action, progress: _Progress) -> Outcome | None:
        """Runs the check and remembers it; returns the outcome when it did not pass."""
        foundry, cell = self._foundry, action.cell
        with self._checking:
            if foundry.cancel.is_set():
                return progress.outcome(Status.CANCELLED, exit_code=130, reasons=("not checked",))
            foundry.watcher.note(cell.id, f"checking {progress.image_id.removeprefix('sha256:')[:12]}")
            started = time.monotonic()
            run = check_image(
                foundry.engine,
                progress.image_id,
                expectation(action.recipe),
                cancel=foundry.cancel,
                deadline=self._options.check_deadline,
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
            detail=tuple(run.log_tail.splitlines()[-20:]) if run.result is None else (),
            stale=stale_references(foundry.engine, progress.image_id, public_references(cell)),
        )

    def _failed(
        self, progress: _Progress, exit_code: int, message: str, hint: str, detail: tuple[str, ...] = ()
    ) -> Outcome:
        clean: Callable[[str], str] = lambda text: redact(text, self._foundry.site)  # noqa: E731
        cancelled = self._foundry.cancel.is_set()
        try:
            stale = stale_references(self._foundry.engine, progress.image_id or None, public_references(progress.cell))
        except EngineError:
            stale = ()
        return progress.outcome(
            Status.CANCELLED if cancelled else Status.FAILED,
            exit_code=130 if cancelled else exit_code,
            reasons=tuple(clean(text) for text in (message, hint) if text),
            detail=tuple(clean(text) for text in detail),
            stale=stale,
        )


@dataclass(kw_only=True)
class _Progress:
    """How far one cell has come; grows while it is carried."""

    cell: Cell
    key: str
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
            level=self.cell.verify.value,
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


def _step_lines(step: FailedStep | None) -> tuple[str, ...]:
    if step is None:
        return ()
    where = f" (Dockerfile line {step.lines[0]})" if step.lines else ""
    return (f"{step.name}{where}", *step.log)


def _labels(project: Path) -> Mapping[str, str]:
    """Labels outside the key: when, and from which commit, if the project is a checkout."""
    created = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    labels = {"org.opencontainers.image.created": created.isoformat().replace("+00:00", "Z")}
    try:
        found = subprocess.run(
            ["git", "-C", str(project), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return labels
    if found.returncode == 0:
        labels["org.opencontainers.image.revision"] = found.stdout.strip()
    return labels
