"""What `imgbuild build` and `imgbuild check` do: the stages put together, from engine to report."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from datetime import datetime, timezone

from builder.carried import OUTCOMES, check_lines, log_lines, short_of
from builder.check import CheckRun, Reach, VerdictStatus, check_image, content_id
from builder.display import Display
from builder.engine.connection import Engine
from builder.engine.errors import EngineError, ImageMissing
from builder.engine.images import inspect, list_images
from builder.errors import CheckIncomplete, ImgbuildError, StateError
from builder.lock import Bases, Pins
from builder.matrix import Cell, Level, Matrix
from builder.memory import Checked, CheckMemory, expectation
from builder.plan import Action, candidate_tag
from builder.project import Project
from builder.render import iter_recipes
from builder.report import Outcome, Report, Status, speaking_code
from builder.site import Site, redact
from builder.workshop import Run, asked_for_gpu, ledger_of, open_engine, require_gpus, workshop


def build_cells(run: Run, project: Project, matrix: Matrix, cells: tuple[Cell, ...], *, bases: str) -> int:
    """Builds, checks and tags cells; prints the report and returns its exit code."""
    started = time.monotonic()
    with workshop(run, project, matrix, cells, bases=bases, keep_going=True) as shop:
        actions = shop.foundry.plan(shop.selected, shop.pins, shop.options)
        carried = shop.foundry.build(actions, shop.options)
        _tidy(shop.foundry.memory, shop.foundry.engine)
    by_cell = {each.action.cell.id: each.outcome for each in carried}
    by_cell |= {cell: _not_built(cell, error, run.site) for cell, error in shop.refused.items()}
    outcomes = tuple(by_cell[cell.id] for cell in cells)
    return _report(run, outcomes, started, _base_lines(shop.pins))


def _not_built(cell: str, error: ImgbuildError, site: Site) -> Outcome:
    reasons = tuple(redact(text, site) for text in str(error).split("\n  "))
    return Outcome(cell=cell, status=Status.NOT_BUILT, exit_code=error.exit_code, reasons=reasons)


def _tidy(memory: CheckMemory, engine: Engine) -> None:
    """Forgets what is about images that are gone. Where that fails, nothing that was done is less done."""
    with contextlib.suppress(EngineError, StateError):
        memory.prune(lambda: frozenset(image.id for image in list_images(engine, tagged=False)))


def show_plan(run: Run, project: Project, matrix: Matrix, cells: tuple[Cell, ...], *, bases: str) -> int:
    """Prints what `build_cells` would do, and why; changes nothing."""
    with workshop(run, project, matrix, cells, bases=bases, dry_run=True, keep_going=True) as shop:
        actions = shop.foundry.plan(shop.selected, shop.pins, shop.options)
    run.echo((_plan_json if run.json_output else _plan_text)(actions, shop.pins, shop.refused))
    return speaking_code(error.exit_code for error in shop.refused.values())


def unfinished_cells(
    run: Run, project: Project, matrix: Matrix, cells: tuple[Cell, ...], *, bases: str
) -> tuple[Cell, ...]:
    """The cells that `build_cells` would have to build, check or tag; changes nothing."""
    with workshop(run, project, matrix, cells, bases=bases, dry_run=True) as shop:
        actions = shop.foundry.plan(shop.selected, shop.pins, shop.options)
    return tuple(action.cell for action in actions if not action.nothing)


def absent_candidates(
    run: Run, project: Project, matrix: Matrix, cells: tuple[Cell, ...], *, bases: str
) -> tuple[str, ...]:
    """The immutable references of the images that `build_cells` would have to build, so far as their keys are known."""
    with workshop(run, project, matrix, cells, bases=bases, dry_run=True) as shop:
        actions = shop.foundry.plan(shop.selected, shop.pins, shop.options)
    return tuple(candidate_tag(action.cell, action.key) for action in actions if action.build and action.key)


def check_cells(run: Run, project: Project, matrix: Matrix, cells: tuple[Cell, ...]) -> int:
    """Checks the images that this engine holds for cells, remembers what came of it, and moves no tag."""
    started = time.monotonic()
    with workshop(run, project, matrix, cells, bases=Bases.AUTO.value, make=False) as shop:
        require_gpus(shop.foundry.engine, run.options.gpus or asked_for_gpu(run.options, cells))
        actions = shop.foundry.plan(shop.selected, shop.pins, shop.options)
        carried = shop.foundry.check(actions, shop.options)
    outcomes = tuple(each.outcome for each in carried)
    return _report(run, outcomes, started, _base_lines(shop.pins))


def check_reference(run: Run, reference: str, cell: tuple[Project, Cell] | None) -> int:
    """Checks any image of the engine, held to a cell if one is given. Keeps the run, and moves no tag."""
    from builder.release.ledger import Held

    started = time.monotonic()
    options, wanted, held = run.options, None, None
    if cell is not None:
        project, its_cell = cell
        held = Held(project=project, recipe=next(iter_recipes([its_cell], project)))
        wanted = expectation(held.recipe)
    with open_engine(run.site) as engine, Display(run.progress) as display:
        reach, limit = Reach.of(engine.info(), cap=options.level), ""
        level = options.level or (Level.GPU if options.gpus else Level.CPU)
        if cell is not None:
            level, limit = reach.level(cell[1])
        on_gpu = options.gpus or level >= Level.GPU
        require_gpus(engine, on_gpu or (cell is not None and asked_for_gpu(options, (cell[1],))))
        image = inspect(engine, reference)
        if image is None:
            raise ImageMissing(f"this engine holds no image {reference}", hint=f"docker pull {reference}")
        ledger = ledger_of(run.site, engine, options.runs)
        display.begin(reference)
        checked = check_image(
            engine,
            image.id,
            wanted,
            cancel=run.cancel,
            deadline=options.check_deadline,
            uid=options.user,
            gpus=on_gpu,
            level=level,
            limit=limit,
            fail_fast=options.fail_fast,
        )
        entry = Checked(
            run=checked,
            image_id=image.id,
            content=content_id(image),
            device=reach.device(level, gpus=on_gpu),
            user=options.user,
            when=datetime.now(timezone.utc),
        )
        passed = wanted is not None and checked.verdict.status is VerdictStatus.PASSED
        short = short_of(checked.verdict, options.level) if passed else ()
        kept = ledger.enter(entry, name=cell[1].id if cell else reference, held=held, short=short)
        outcome = _checked(reference, image.id, checked, short=short, kept=str(kept or ""))
        display.end(reference, outcome.status.value, ok=outcome.exit_code == 0)
    return _report(run, (outcome,), started)


def _report(run: Run, outcomes: tuple[Outcome, ...], started: float, bases: tuple[str, ...] = ()) -> int:
    report = Report(outcomes=outcomes, bases=bases, seconds=time.monotonic() - started)
    run.echo((report.to_json() if run.json_output else report.to_text()).rstrip("\n"))
    return report.exit_code


def _checked(name: str, image_id: str, run: CheckRun, *, short: tuple[str, ...], kept: str) -> Outcome:
    status, exit_code = OUTCOMES[run.verdict.status]
    if short:
        status, exit_code = Status.INCOMPLETE, CheckIncomplete.exit_code
    return Outcome(
        cell=name,
        status=status,
        exit_code=exit_code,
        image_id=image_id,
        checked=True,
        check_seconds=run.seconds,
        level=run.verdict.level.value,
        reached=run.verdict.reached.value if run.verdict.reached else "",
        unverified=run.verdict.unverified,
        checks=check_lines(run),
        run=kept,
        reasons=(*short, *run.verdict.reasons),
        detail=log_lines(run),
    )


def _base_lines(pins: Pins) -> tuple[str, ...]:
    return tuple(f"{pin.name}: {pin.source.value}, {pin.reference} ({pin.why})" for pin in pins.bases.values())


def _plan_text(actions: tuple[Action, ...], pins: Pins, refused: Mapping[str, ImgbuildError]) -> str:
    lines = [f"base     {line}" for line in _base_lines(pins)]
    lines += [f"base     {name}: would be made from the distribution's packages" for name in pins.pending]
    for action in actions:
        steps = [
            name
            for name, wanted in (("build", action.build), ("check", action.check), ("tag", bool(action.tags)))
            if wanted
        ]
        lines.append(f"{' + '.join(steps) or 'nothing':<22} {action.cell.id}: {action.why}")
    lines += [f"{'not built':<22} {cell}: {error.message}" for cell, error in refused.items()]
    return "\n".join(lines)


def _plan_json(actions: tuple[Action, ...], pins: Pins, refused: Mapping[str, ImgbuildError]) -> str:
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
        "not_built": [{"cell": cell, "reason": str(error)} for cell, error in refused.items()],
    }
    return json.dumps(document, indent=2)
