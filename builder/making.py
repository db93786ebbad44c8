"""From an action to its image: built, measured, and finished with its manifest and its labels."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from builder.build import Image, built_recipe, finish_image, open_session
from builder.builds import BuildRecord, remember_build, source_labels
from builder.engine.connection import Engine
from builder.engine.errors import ImageMissing
from builder.engine.images import inspect
from builder.engine.session import Session
from builder.engine.trace import Event
from builder.errors import Interrupted
from builder.measure import labels_of, measure_image
from builder.plan import Action
from builder.project import Project
from builder.records import Records
from builder.render import Recipe
from builder.report import short
from builder.site import Site


@dataclass(frozen=True, kw_only=True)
class Made:
    """What came of one action.

    Attributes:
        image: the image.
        record: how it was built; None where another imgbuild was faster, and its image was taken.
        seconds: how long building and measuring took.
    """

    image: Image
    record: BuildRecord | None
    seconds: float


class Maker:
    """Makes images over one session, which the first that is made opens. Several threads may make some at once.

    Args:
        engine, site, records, project: as for a run.
        recipes: every recipe of the matrix.
        on_event: is told, by the cell's id, of what a build does.
        note: is told, by the cell's id, of what is no build's.
        slots: are as many as images may run at once: what measures an image imports its framework, as a check does,
            and may take as much of the engine's memory.
        cancel: stops everything when set.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        site: Site,
        records: Records,
        project: Project,
        recipes: tuple[Recipe, ...],
        on_event: Callable[[str, Event], None],
        note: Callable[[str, str], None],
        slots: threading.Semaphore,
        cancel: threading.Event,
    ) -> None:
        self._engine = engine
        self._site = site
        self._records = records
        self._project = project
        self._recipes = recipes
        self._on_event = on_event
        self._note = note
        self._slots = slots
        self._cancel = cancel
        self._opening = threading.Lock()
        self._open = ExitStack()
        self._session: Session | None = None

    def close(self) -> None:
        """Ends the session."""
        self._open.close()

    def make(self, action: Action) -> Made:
        """Makes the image of an action whose base is known.

        Raises:
            BuildFailed: a step failed, or what was built cannot be measured. Nothing is left that counts as an image.
            EngineError: the build stalled or was cancelled, the disk is full, the engine went away, or what measures
                the image was killed.
            Interrupted: `cancel` was set meanwhile.
            StateError: what is to be remembered of it cannot be written.
        """
        began, started = time.monotonic(), _now()
        cell = action.cell
        created = source_labels(self._project)

        def on_event(event: Event) -> None:
            self._on_event(cell.id, event)

        with built_recipe(
            self._engine, self._opened_session(), action, on_event=on_event, cancel=self._cancel
        ) as unfinished:
            with self._slots:
                if self._cancel.is_set():
                    raise Interrupted("not measured")
                self._note(cell.id, f"measuring {short(unfinished.id)}")
                manifest = measure_image(self._engine, unfinished.id, cell, cancel=self._cancel)
            details = inspect(self._engine, unfinished.id)
            if details is None:
                raise ImageMissing(f"what was built for {cell.id} is gone from the engine before it was finished")
            measured = labels_of(
                manifest, cell, layers=details.layers, present=details.labels, dockerfile=action.recipe.dockerfile
            )
            image = finish_image(
                self._engine,
                action,
                unfinished,
                manifest=manifest.to_bytes(),
                labels={**created, **measured},
                on_event=on_event,
                cancel=self._cancel,
            )
        record = None
        if image.built:
            record = remember_build(
                self._records,
                self._project,
                action,
                image.id,
                started=started,
                finished=_now(),
                labels=created,
            )
        return Made(image=image, record=record, seconds=time.monotonic() - began if image.built else 0.0)

    def _opened_session(self) -> Session:
        with self._opening:
            if self._session is None:
                session = open_session(self._engine, self._recipes, self._site, self._project.root)
                self._session = self._open.enter_context(session)
            return self._session


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)
