"""What a command works with: this machine's settings, its engine, and everything that a run over cells shares."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from builder.check import Reach
from builder.display import Display, Mode
from builder.engine.connection import Engine
from builder.engine.images import inspect
from builder.engine.owner import reap
from builder.errors import CheckIncomplete, ConfigError, ImgbuildError
from builder.lock import Bases, Pins, Resolver
from builder.lock.file import locks_of
from builder.matrix import CPU, Cell, Level, Matrix
from builder.memory import CheckMemory
from builder.pipeline import Foundry, Options
from builder.project import Project
from builder.records import Records
from builder.render import Recipe, locked_recipes
from builder.site import Site

if TYPE_CHECKING:
    from builder.release.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a command works with.

    Attributes:
        site: this machine's settings.
        options: how to run; `jobs` and `checks` of 0 are set by the engine's processors.
        progress: how progress is shown on standard error.
        json_output: whether the result is printed as JSON.
        cancel: set when the run is interrupted.
        echo: prints the result.
    """

    site: Site
    options: Options
    progress: Mode
    json_output: bool
    cancel: threading.Event
    echo: Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """An engine with everything that a run over a matrix needs.

    Attributes:
        foundry: what every cell of the run shares.
        selected: the recipes of the cells that were asked for and can be begun.
        pins: the bases of these.
        options: how to run.
        refused: what the others lack, a lock or a base, by the cell's id.
    """

    foundry: Foundry
    selected: tuple[Recipe, ...]
    pins: Pins
    options: Options
    refused: Mapping[str, ImgbuildError]


@contextmanager
def workshop(
    run: Run,
    project: Project,
    matrix: Matrix,
    cells: tuple[Cell, ...],
    *,
    bases: str,
    make: bool = True,
    dry_run: bool = False,
    keep_going: bool = False,
) -> Iterator[Workshop]:
    """Everything that a run over cells needs, from the recipes to the engine.

    Args:
        bases: where bases come from, as `Bases` spells it.
        make: whether a base that is nowhere may be made.
        dry_run: change nothing, also nothing that killed runs left behind.
        keep_going: whether cells that lack a lock or a base leave the others to go on.

    Raises:
        NotLocked, BaseError: no cell can be begun; without `keep_going`, one of them cannot.
    """
    # Rendering needs no engine: a template that is wrong is found before anything is asked of one.
    wanted = {cell.id for cell in cells}
    refused: dict[str, ImgbuildError] = {}
    recipes = tuple(
        locked_recipes(matrix.cells, wanted, project, lambda cell, error: _refuse(refused, (cell,), error, keep_going))
    )
    selected = tuple(recipe for recipe in recipes if recipe.cell.id in wanted)
    _require_one(selected, refused)
    records = Records(run.site.state_dir)
    with open_engine(run.site, dry_run=dry_run) as engine, Display(run.progress) as display:
        pins = Resolver(
            engine=engine,
            mode=Bases(bases),
            site=run.site,
            records=records,
            repository=matrix.repository,
            locks=locks_of(project),
            make=make and not dry_run,
            on_line=lambda text: display.note("bases", text),
            cancel=run.cancel,
        ).pins(
            (recipe.cell.base for recipe in selected),
            lambda base, error: _refuse(
                refused,
                (recipe.cell for recipe in selected if recipe.cell.base.name == base.name),
                error,
                keep_going,
            ),
        )
        selected = tuple(recipe for recipe in selected if recipe.cell.id not in refused)
        _require_one(selected, refused)
        for cell, error in refused.items():
            display.note(cell, f"not built: {error.message}")
        reach = Reach.of(engine.info(), cap=run.options.level)
        foundry = Foundry(
            engine=engine,
            site=run.site,
            records=records,
            reach=reach,
            memory=CheckMemory(records, reach, lambda image_id: inspect(engine, image_id)),
            recipes=recipes,
            project=project,
            watcher=display,
            cancel=run.cancel,
            ledger=None if dry_run else lambda: ledger_of(run.site, engine, run.options.runs),
        )
        processors = engine.info().cpus
        options = replace(
            run.options,
            jobs=run.options.jobs or min(4, max(2, processors)),
            # Two ranks train in a check: two checks at once need four processors.
            checks=run.options.checks or max(1, processors // 4),
        )
        yield Workshop(foundry=foundry, selected=selected, pins=pins, options=options, refused=refused)


def _refuse(refused: dict[str, ImgbuildError], cells: Iterable[Cell], error: ImgbuildError, keep_going: bool) -> None:
    """Keeps what cells lack, or raises it where one of them is enough to end the run."""
    if not keep_going:
        raise error
    refused.update({cell.id: error for cell in cells})


def _require_one(selected: tuple[Recipe, ...], refused: Mapping[str, ImgbuildError]) -> None:
    """Raises what the first cell lacks where every cell lacks something: it is what there is to say of the run."""
    if not selected and refused:
        raise next(iter(refused.values()))


@contextmanager
def open_engine(site: Site, *, dry_run: bool = False) -> Iterator[Engine]:
    """The engine; unless it is a dry run, with what killed runs left on it removed."""
    with Engine.connect(site.engine) as engine:
        engine.require_buildkit()
        if not dry_run:
            reap(engine)
        yield engine


def ledger_of(site: Site, engine: Engine, chosen: Path | None = None) -> Ledger:
    """Where this machine keeps its runs, with the statements on them, signed where a key is configured.

    Args:
        site: this machine's settings.
        engine: what the suite runs on.
        chosen: the directory for the runs' own directories; None for the one in the state directory.

    Raises:
        ConfigError: the key cannot be used, or `chosen` is no directory and cannot become one.
    """
    from builder.attest import site_signing_key
    from builder.release.ledger import Ledger
    from builder.release.statements import job_url
    from builder.runs import place

    if chosen is not None:
        try:
            chosen.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{chosen} cannot be made: {error.strerror or error}", where="--runs") from error
    runs, keep = place(site.state_dir, chosen)
    return Ledger(
        records=Records(site.state_dir),
        info=engine.info(),
        runs=runs,
        keep=keep,
        key=site_signing_key(site, os.environ),
        url=job_url(os.environ),
    )


def asked_for_gpu(options: Options, cells: Iterable[Cell]) -> bool:
    """Whether a level was asked for that these cells cannot reach without a GPU: then less is not enough."""
    asked = options.level is not None and options.level >= Level.GPU
    return asked and any(cell.cuda != CPU for cell in cells)


def require_gpus(engine: Engine, gpus: bool) -> None:
    """Raises CheckIncomplete where GPUs are needed and the engine has none to give."""
    if gpus and not engine.info().gpu:
        raise CheckIncomplete(
            "checks on a GPU cannot run: this engine can give containers none",
            hint="install the NVIDIA container toolkit for it, or check without --gpus and with a lower --level",
        )
