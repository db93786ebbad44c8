"""What `imgbuild build` and `imgbuild check` do: the stages put together, from engine to report."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from builder.check import CheckRun, VerdictStatus, check_image, suite
from builder.display import Display, Mode
from builder.engine.connection import Engine
from builder.engine.errors import ImageMissing
from builder.engine.images import inspect, list_images
from builder.engine.owner import reap
from builder.errors import CheckFailed, CheckIncomplete
from builder.lock import Bases, Pins, Resolver
from builder.matrix import Cell, Matrix
from builder.pipeline import CheckMemory, Foundry, Options, check_lines, expectation
from builder.plan import Action, candidates
from builder.project import Project
from builder.records import Records
from builder.render import render_all
from builder.report import Outcome, Report, Status
from builder.site import Site

Echo = Callable[[str], None]


def build_command(
    project: Project,
    matrix: Matrix,
    cells: tuple[Cell, ...],
    site: Site,
    *,
    jobs: int | None,
    bases: str,
    check: bool,
    rebuild: bool,
    check_deadline: float,
    progress: Mode,
    dry_run: bool,
    json_output: bool,
    cancel: threading.Event,
    echo: Echo,
) -> int:
    """Builds, checks and tags cells; prints the report and returns its exit code."""
    started = time.monotonic()
    # Rendering needs no engine: a template that is wrong is found before anything is asked of one.
    recipes = render_all(matrix.cells, project.dockerfiles, project.shipped_dockerfiles)
    wanted = {cell.id for cell in cells}
    selected = tuple(recipe for recipe in recipes if recipe.cell.id in wanted)
    records = Records(site.state_dir)
    with _engine(site) as engine, Display(progress) as display:
        pins = Resolver(
            engine=engine,
            mode=Bases(bases),
            site=site,
            records=records,
            repository=matrix.repository,
            make=not dry_run,
            on_line=lambda text: display.note("bases", text),
        ).pins(recipe.cell.base for recipe in selected)
        foundry = Foundry(
            engine=engine,
            site=site,
            records=records,
            recipes=recipes,
            project=project.root,
            watcher=display,
            cancel=cancel,
        )
        processors = engine.info().cpus
        options = Options(
            jobs=jobs or min(4, max(2, processors)),
            # Two ranks train in a check: two checks at once need four processors.
            checks=max(1, processors // 4),
            check=check,
            rebuild=rebuild,
            check_deadline=check_deadline,
        )
        actions = foundry.plan(selected, pins, options)
        if dry_run:
            echo(_plan_json(actions, pins) if json_output else _plan_text(actions, pins))
            return 0
        outcomes = foundry.carry(actions, options)
    report = Report(
        outcomes=outcomes,
        bases=_base_lines(pins),
        seconds=time.monotonic() - started,
    )
    echo((report.to_json() if json_output else report.to_text()).rstrip("\n"))
    return report.exit_code


def check_cells(
    project: Project,
    matrix: Matrix,
    cells: tuple[Cell, ...],
    site: Site,
    *,
    deadline: float,
    user: str,
    gpus: bool,
    json_output: bool,
    cancel: threading.Event,
    echo: Echo,
) -> int:
    """Checks the images that this engine holds for cells, remembers what came of it, and moves no tag."""
    started = time.monotonic()
    recipes = render_all(cells, project.dockerfiles, project.shipped_dockerfiles)
    records = Records(site.state_dir)
    outcomes: list[Outcome] = []
    with _engine(site) as engine:
        _require_gpus(engine, gpus)
        pins = Resolver(
            engine=engine,
            mode=Bases.AUTO,
            site=site,
            records=records,
            repository=matrix.repository,
            make=False,
        ).pins(recipe.cell.base for recipe in recipes)
        images = list_images(engine)
        memory = CheckMemory(records, suite().sha256)
        for recipe in recipes:
            base = pins.bases.get(recipe.cell.base.name)
            key = recipe.key(base) if base is not None else ""
            known = candidates(recipe.cell, key, images) if key else ()
            if not known:
                raise ImageMissing(
                    f"this engine holds no image for {recipe.cell.id} as it is rendered now",
                    hint=f"imgbuild build --no-check {recipe.cell.id}",
                )
            image_id = known[-1][1].id
            run = check_image(
                engine, image_id, expectation(recipe), cancel=cancel, deadline=deadline, uid=user, gpus=gpus
            )
            memory.put(image_id, recipe.cell, run)
            outcome = _checked(recipe.cell.id, image_id, run)
            outcomes.append(replace(outcome, key=key, level=recipe.cell.verify.value))
    report = Report(outcomes=tuple(outcomes), bases=_base_lines(pins), seconds=time.monotonic() - started)
    echo((report.to_json() if json_output else report.to_text()).rstrip("\n"))
    return report.exit_code


def check_reference(
    reference: str,
    cell: tuple[Project, Cell] | None,
    site: Site,
    *,
    deadline: float,
    user: str,
    gpus: bool,
    json_output: bool,
    cancel: threading.Event,
    echo: Echo,
) -> int:
    """Checks any image of the engine, held to a cell if one is given. Remembers nothing and moves no tag."""
    started = time.monotonic()
    wanted = None
    if cell is not None:
        project, its_cell = cell
        wanted = expectation(render_all([its_cell], project.dockerfiles, project.shipped_dockerfiles)[0])
    with _engine(site) as engine:
        _require_gpus(engine, gpus)
        image = inspect(engine, reference)
        if image is None:
            raise ImageMissing(f"this engine holds no image {reference}", hint=f"docker pull {reference}")
        run = check_image(engine, image.id, wanted, cancel=cancel, deadline=deadline, uid=user, gpus=gpus)
    report = Report(outcomes=(_checked(reference, image.id, run),), seconds=time.monotonic() - started)
    echo((report.to_json() if json_output else report.to_text()).rstrip("\n"))
    return report.exit_code


@contextmanager
def _engine(site: Site) -> Iterator[Engine]:
    """The engine, with what killed runs left on it removed."""
    with Engine.connect(site.engine) as engine:
        engine.require_buildkit()
        reap(engine)
        yield engine


def _require_gpus(engine: Engine, gpus: bool) -> None:
    if gpus and not engine.info().gpu:
        raise CheckIncomplete(
            "checks on a GPU cannot run: this engine can give containers none",
            hint="install the NVIDIA container toolkit for it, or check without --gpus",
        )


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
        detail=tuple(run.log_tail.splitlines()[-20:]) if run.result is None else (),
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
                "build": action.build,
                "check": action.check,
                "tags": list(action.tags),
                "why": action.why,
            }
            for action in actions
        ],
    }
    return json.dumps(document, indent=2)
