"""What `imgbuild build` and `imgbuild check` do: the stages put together, from engine to report."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

from builder.check import CheckRun, VerdictStatus, check_image
from builder.display import Display, Mode
from builder.emit.registry import AT_ONCE, held_digest
from builder.engine.connection import Engine
from builder.engine.errors import ImageMissing
from builder.engine.images import inspect
from builder.engine.owner import reap
from builder.errors import CheckFailed, CheckIncomplete
from builder.lock import Bases, Pins, Resolver
from builder.lock.file import locks_of
from builder.matrix import Cell, Matrix
from builder.memory import expectation
from builder.pipeline import Foundry, Options, check_lines, log_lines
from builder.plan import Action, candidate_tag, public_references
from builder.project import Project
from builder.records import Records
from builder.render import Recipe, iter_recipes, locked_recipes
from builder.report import Outcome, Report, Status
from builder.site import Site


@dataclass(frozen=True, kw_only=True)
class Run:
    """What every command of this module works with.

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


def build_cells(run: Run, project: Project, matrix: Matrix, cells: tuple[Cell, ...], *, bases: str) -> int:
    """Builds, checks and tags cells; prints the report and returns its exit code."""
    started = time.monotonic()
    with _workshop(run, project, matrix, cells, bases=bases) as shop:
        actions = shop.foundry.plan(shop.selected, shop.pins, shop.options)
        outcomes = shop.foundry.build(actions, shop.options)
    return _report(run, outcomes, started, _base_lines(shop.pins))


def show_plan(run: Run, project: Project, matrix: Matrix, cells: tuple[Cell, ...], *, bases: str) -> int:
    """Prints what `build_cells` would do, and why; changes nothing."""
    with _workshop(run, project, matrix, cells, bases=bases, dry_run=True) as shop:
        actions = shop.foundry.plan(shop.selected, shop.pins, shop.options)
    run.echo(_plan_json(actions, shop.pins) if run.json_output else _plan_text(actions, shop.pins))
    return 0


def unfinished_cells(
    run: Run, project: Project, matrix: Matrix, cells: tuple[Cell, ...], *, bases: str
) -> tuple[Cell, ...]:
    """The cells that `build_cells` would have to build, check or tag; changes nothing."""
    with _workshop(run, project, matrix, cells, bases=bases, dry_run=True) as shop:
        actions = shop.foundry.plan(shop.selected, shop.pins, shop.options)
    return tuple(action.cell for action in actions if not action.nothing)


def absent_candidates(
    run: Run, project: Project, matrix: Matrix, cells: tuple[Cell, ...], *, bases: str
) -> tuple[str, ...]:
    """The immutable references of the images that `build_cells` would have to build, so far as their keys are known."""
    with _workshop(run, project, matrix, cells, bases=bases, dry_run=True) as shop:
        actions = shop.foundry.plan(shop.selected, shop.pins, shop.options)
    return tuple(candidate_tag(action.cell, action.key) for action in actions if action.build and action.key)


def unpublished_cells(
    run: Run, project: Project, matrix: Matrix, cells: tuple[Cell, ...], *, bases: str
) -> tuple[Cell, ...]:
    """The cells that their registry does not hold under all their public names as the candidate of their key.

    So a cell counts as unpublished whose image was pushed and never promoted, since another cell had failed.

    Raises:
        RegistryUnreachable: a registry did not answer.
    """
    with _workshop(run, project, matrix, cells, bases=bases, dry_run=True) as shop:
        actions = shop.foundry.plan(shop.selected, shop.pins, shop.options)

        def published(action: Action) -> bool:
            if action.key is None:  # its base would have to be made first
                return False
            engine = shop.foundry.engine
            digest = held_digest(engine, candidate_tag(action.cell, action.key))
            return digest is not None and all(
                held_digest(engine, reference) == digest for reference in public_references(action.cell)
            )

        with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="registry") as pool:
            there = list(pool.map(published, actions))
    return tuple(action.cell for action, held in zip(actions, there, strict=True) if not held)


def check_cells(run: Run, project: Project, matrix: Matrix, cells: tuple[Cell, ...]) -> int:
    """Checks the images that this engine holds for cells, remembers what came of it, and moves no tag."""
    started = time.monotonic()
    with _workshop(run, project, matrix, cells, bases=Bases.AUTO.value, make=False) as shop:
        _require_gpus(shop.foundry.engine, run.options.gpus)
        actions = shop.foundry.plan(shop.selected, shop.pins, shop.options)
        outcomes = shop.foundry.check(actions, shop.options)
    return _report(run, outcomes, started, _base_lines(shop.pins))


def check_reference(run: Run, reference: str, cell: tuple[Project, Cell] | None) -> int:
    """Checks any image of the engine, held to a cell if one is given. Remembers nothing and moves no tag."""
    started = time.monotonic()
    wanted = None
    if cell is not None:
        project, its_cell = cell
        wanted = expectation(next(iter_recipes([its_cell], project)))
    with _engine(run.site) as engine, Display(run.progress) as display:
        _require_gpus(engine, run.options.gpus)
        image = inspect(engine, reference)
        if image is None:
            raise ImageMissing(f"this engine holds no image {reference}", hint=f"docker pull {reference}")
        display.begin(reference)
        checked = check_image(
            engine,
            image.id,
            wanted,
            cancel=run.cancel,
            deadline=run.options.check_deadline,
            uid=run.options.user,
            gpus=run.options.gpus,
        )
        outcome = _checked(reference, image.id, checked)
        display.end(reference, outcome.status.value, ok=outcome.exit_code == 0)
    return _report(run, (outcome,), started)


@dataclass(frozen=True, kw_only=True)
class _Workshop:
    """An engine with everything that a run over a matrix needs."""

    foundry: Foundry
    selected: tuple[Recipe, ...]
    pins: Pins
    options: Options


@contextmanager
def _workshop(
    run: Run,
    project: Project,
    matrix: Matrix,
    cells: tuple[Cell, ...],
    *,
    bases: str,
    make: bool = True,
    dry_run: bool = False,
) -> Iterator[_Workshop]:
    # Rendering needs no engine: a template that is wrong is found before anything is asked of one.
    wanted = {cell.id for cell in cells}
    recipes = tuple(locked_recipes(matrix.cells, wanted, project))
    selected = tuple(recipe for recipe in recipes if recipe.cell.id in wanted)
    records = Records(run.site.state_dir)
    with _engine(run.site, dry_run=dry_run) as engine, Display(run.progress) as display:
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
        ).pins(recipe.cell.base for recipe in selected)
        foundry = Foundry(
            engine=engine,
            site=run.site,
            records=records,
            recipes=recipes,
            project=project,
            watcher=display,
            cancel=run.cancel,
        )
        processors = engine.info().cpus
        options = replace(
            run.options,
            jobs=run.options.jobs or min(4, max(2, processors)),
            # Two ranks train in a check: two checks at once need four processors.
            checks=run.options.checks or max(1, processors // 4),
        )
        yield _Workshop(foundry=foundry, selected=selected, pins=pins, options=options)


@contextmanager
def _engine(site: Site, *, dry_run: bool = False) -> Iterator[Engine]:
    """The engine; unless it is a dry run, with what killed runs left on it removed."""
    with Engine.connect(site.engine) as engine:
        engine.require_buildkit()
        if not dry_run:
            reap(engine)
        yield engine


def _require_gpus(engine: Engine, gpus: bool) -> None:
    if gpus and not engine.info().gpu:
        raise CheckIncomplete(
            "checks on a GPU cannot run: this engine can give containers none",
            hint="install the NVIDIA container toolkit for it, or check without --gpus",
        )


def _report(run: Run, outcomes: tuple[Outcome, ...], started: float, bases: tuple[str, ...] = ()) -> int:
    report = Report(outcomes=outcomes, bases=bases, seconds=time.monotonic() - started)
    run.echo((report.to_json() if run.json_output else report.to_text()).rstrip("\n"))
    return report.exit_code


_OUTCOMES = {
    VerdictStatus.PASSED: (Status.PASSED, 0),
    VerdictStatus.FAILED: (Status.FAILED, CheckFailed.exit_code),
    VerdictStatus.INCOMPLETE: (Status.INCOMPLETE, CheckIncomplete.exit_code),
}


def _checked(name: str, image_id: str, run: CheckRun) -> Outcome:
    status, exit_code = _OUTCOMES[run.verdict.status]
    return Outcome(
        cell=name,
        status=status,
        exit_code=exit_code,
        image_id=image_id,
        checked=True,
        check_seconds=run.seconds,
        level=run.verdict.level.value,
        checks=check_lines(run),
        reasons=run.verdict.reasons,
        detail=log_lines(run),
    )


def _base_lines(pins: Pins) -> tuple[str, ...]:
    return tuple(f"{pin.name}: {pin.source.value}, {pin.reference} ({pin.why})" for pin in pins.bases.values())


def _plan_text(actions: tuple[Action, ...], pins: Pins) -> str:
    lines = [f"base     {line}" for line in _base_lines(pins)]
    lines += [f"base     {name}: would be made from the distribution's packages" for name in pins.pending]
    for action in actions:
        steps = [
            name
            for name, wanted in (("build", action.build), ("check", action.check), ("tag", bool(action.tags)))
            if wanted
        ]
        lines.append(f"{' + '.join(steps) or 'nothing':<22} {action.cell.id}: {action.why}")
    return "\n".join(lines)


def _plan_json(actions: tuple[Action, ...], pins: Pins) -> str:
    document = {
        "schema": "imgbuild.plan/1",
        "bases": [
            {
                "name": pin.name,
                "source": pin.source.value,
                "reference": pin.reference,
                "identity": pin.identity,
                "why": pin.why,
            }
            for pin in pins.bases.values()
        ],
        "pending_bases": list(pins.pending),
        "actions": [
            {
                "cell": action.cell.id,
                "key": action.key,
                "image_id": action.image_id,
                "candidate": action.candidate or None,
                "build": action.build,
                "check": action.check,
                "tags": list(action.tags),
                "why": action.why,
            }
            for action in actions
        ],
    }
    return json.dumps(document, indent=2)
