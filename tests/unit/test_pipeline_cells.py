"""What becomes of a cell on its way through the pipeline, with an engine and a suite that are made up."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest
from test_check_memory import details, ran

from builder import checking, commands, making, pipeline
from builder.build import Image, Unfinished
from builder.check import CheckRun, Reach
from builder.engine.connection import Engine
from builder.engine.errors import EngineError
from builder.engine.images import ImageDetails, ImageSummary
from builder.errors import CheckFailed, CheckIncomplete, ConfigError, StateError
from builder.lock import BasePin, Bases, Pins
from builder.matrix import Cell, Level, Policy, load_matrix
from builder.measure import Manifest
from builder.measure.manifest import Distribution, Packages
from builder.memory import Checked, CheckMemory
from builder.pipeline import Foundry, Options
from builder.plan import KEY_LABEL, Action, candidate_tag, public_references
from builder.project import Project, shipped_data
from builder.records import Records
from builder.render import Recipe, render_all
from builder.report import Outcome, Report, Status
from builder.site import Site

PIN = BasePin(name="bookworm", source=Bases.BOOTSTRAP, reference="b", identity="bootstrap:1:2", why="")
PINS = Pins(bases={"bookworm": PIN})
HERE = Reach(gpu=False, architecture="amd64")
H200 = Reach(gpu=True, architecture="amd64", gpus=("NVIDIA H200",))
FAILS = {"horovod.weights": "the weights differ"}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    data = shipped_data()
    cells = [cell for cell in load_matrix(data / "matrix.yaml").cells if cell.id == "torch-2.13.0-cpu-py3.11-horovod"]
    return render_all(cells, data / "dockerfiles")[0]


class Silent:
    """A watcher that says nothing."""

    def begin(self, label: str) -> None: ...
    def event(self, label: str, event: object) -> None: ...
    def note(self, label: str, text: str) -> None: ...
    def end(self, label: str, outcome: str, *, ok: bool) -> None: ...


@dataclass
class Ledger:
    """Keeps the runs that it is given, in a directory that is only a name."""

    entered: list[str] = field(default_factory=list)
    short: list[tuple[str, ...]] = field(default_factory=list)

    def enter(self, checked: Checked, *, name: str, held: object, short: tuple[str, ...]) -> Path:
        self.entered.append(name)
        self.short.append(short)
        return Path("/runs") / name


@dataclass
class World:
    """An engine's images, and a suite whose findings are set."""

    state: Path
    images: dict[str, ImageDetails] = field(default_factory=dict)
    suite: Callable[[Recipe, Level], CheckRun] = lambda recipe, level: ran(recipe, level)
    checked: list[str] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    opened: int = 0
    recipes: tuple[Recipe, ...] = ()

    def hold(self, recipe: Recipe, image_id: str, *tags: str) -> str:
        """Puts an image for a recipe onto the engine, under its candidate's name and these."""
        key = recipe.key(PIN)
        names = (candidate_tag(recipe.cell, key), *tags)
        self.images[image_id] = details(image_id, tags=names, labels={KEY_LABEL: key})
        return image_id

    def list_images(self, engine: object, **_: object) -> tuple[ImageSummary, ...]:
        return tuple(self.images.values())

    def check_image(self, engine: object, image_id: str, expectation: object, *, level: Level, **_: object) -> CheckRun:
        self.checked.append(image_id)
        recipe = next(each for each in self.recipes if self.images[image_id].labels[KEY_LABEL] == each.key(PIN))
        return self.suite(recipe, level)

    def promote(self, engine: object, image_id: str, references: Iterable[str]) -> tuple[str, ...]:
        image, wanted = self.images[image_id], tuple(references)
        self.images[image_id] = replace(image, tags=tuple(sorted({*image.tags, *wanted})))
        return tuple(name for name in wanted if name not in image.tags)

    def stale(self, engine: object, image_id: str | None, references: Iterable[str]) -> tuple[tuple[str, str], ...]:
        wanted = tuple(references)
        return tuple(
            (name, image.id)
            for name in wanted
            for image in self.images.values()
            if name in image.tags and image.id != image_id
        )

    def open(self) -> Ledger:
        self.opened += 1
        return self.ledger

    def run(
        self, *recipes: Recipe, reach: Reach = HERE, check_only: bool = False, options: Options | None = None
    ) -> tuple[Outcome, ...]:
        """One run over recipes, as a fresh imgbuild on this machine makes it."""
        self.recipes = recipes
        records = Records(self.state)
        foundry = Foundry(
            engine=cast(Engine, Info()),
            site=cast(Site, Place(self.state)),
            records=records,
            reach=reach,
            memory=CheckMemory(records, reach, self.images.get),
            recipes=recipes,
            project=cast(Project, None),
            watcher=Silent(),
            cancel=threading.Event(),
            ledger=self.open,  # type: ignore[arg-type]
        )
        options = options or Options()
        actions = foundry.plan(recipes, PINS, options)
        carried = (foundry.check if check_only else foundry.build)(actions, options)
        return tuple(each.outcome for each in carried)


class Info:
    """What a lock's name is made of."""

    id = "engine"

    def info(self) -> Info:
        return self


@dataclass
class Place:
    """This machine's settings, as far as a run looks at them here."""

    state_dir: Path

    def redact(self, text: str) -> str:
        return text


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(state=tmp_path)
    monkeypatch.setattr(pipeline, "list_images", world.list_images)
    monkeypatch.setattr(checking, "check_image", world.check_image)
    monkeypatch.setattr(pipeline, "promote", world.promote)
    for module in (pipeline, checking):
        monkeypatch.setattr(module, "stale_references", world.stale)
    monkeypatch.setattr(pipeline, "redact", lambda text, site: text)
    return world


ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def document(outcome: Outcome) -> dict[str, object]:
    """The outcome as the report's JSON has it."""
    (found,) = json.loads(Report(outcomes=(outcome,)).to_json())["cells"]
    return dict(found)


def test_what_passed_is_named_once_and_then_unchanged(world: World, recipe: Recipe) -> None:
    world.hold(recipe, ONE)
    (first,) = world.run(recipe)
    assert (first.status, first.exit_code, first.reached) == (Status.VERIFIED, 0, "cpu")
    assert first.moved == public_references(recipe.cell)
    (second,) = world.run(recipe)
    assert (second.status, second.exit_code, second.reached, second.moved) == (Status.UNCHANGED, 0, "cpu", ())
    assert world.checked == [ONE]


def test_what_is_unchanged_still_says_what_ran_and_what_did_not(world: World, recipe: Recipe) -> None:
    world.hold(recipe, ONE)
    (first,), (second,) = world.run(recipe), world.run(recipe)
    assert first.checks == second.checks
    assert {check.status for check in second.checks} >= {"passed", "not_run"}
    assert all(check.reason for check in second.checks if check.status == "not_run")
    found = document(second)
    assert cast(dict[str, str], found["reused"])["image_id"] == ONE
    assert document(first)["reused"] is None
    # A person is not told anew what did not change.
    assert len(Report(outcomes=(second,)).to_text().splitlines()) < len(
        Report(outcomes=(first,)).to_text().splitlines()
    )


def test_an_image_that_fails_after_it_passed_is_said_to_bear_its_names(world: World, recipe: Recipe) -> None:
    world.hold(recipe, ONE)
    world.run(recipe)
    world.suite = lambda recipe, level: ran(recipe, level, **FAILS)
    (failed,) = world.run(recipe, options=Options(recheck=True))
    assert (failed.status, failed.exit_code, failed.reached) == (Status.FAILED, CheckFailed.exit_code, "")
    assert failed.references == ()
    assert failed.stale == tuple((name, ONE) for name in public_references(recipe.cell))
    # It is not forgotten: without --recheck it is checked again, and while it fails it stays failed.
    (again,) = world.run(recipe)
    assert again.status is Status.FAILED
    world.suite = lambda recipe, level: ran(recipe, level)
    (mended,) = world.run(recipe)
    assert (mended.status, mended.stale) == (Status.VERIFIED, ())


def test_an_image_that_failed_at_once_has_no_names_to_lose(world: World, recipe: Recipe) -> None:
    world.hold(recipe, ONE)
    world.suite = lambda recipe, level: ran(recipe, level, **FAILS)
    (failed,) = world.run(recipe)
    assert (failed.status, failed.stale, failed.moved) == (Status.FAILED, (), ())


def twin(recipe: Recipe) -> Recipe:
    """Another cell that comes to an image of the same content."""
    cell = replace(recipe.cell, id="twin", tags=("twin",), aliases=())
    return replace(recipe, cell=cell, dockerfile=recipe.dockerfile + "\n# twin\n")


def test_two_images_of_one_content_in_one_run_are_checked_once(world: World, recipe: Recipe) -> None:
    other = twin(recipe)
    assert other.key(PIN) != recipe.key(PIN)
    world.hold(recipe, ONE)
    world.hold(other, TWO)
    outcomes = world.run(recipe, other, options=Options(jobs=2, checks=1))
    assert [each.status for each in outcomes] == [Status.VERIFIED] * 2
    assert len(world.checked) == 1
    assert sorted(each.checked for each in outcomes) == [False, True]
    (reused,) = (each for each in outcomes if not each.checked)
    assert reused.reused is not None
    assert reused.reused[1] == world.checked[0] != reused.image_id


@pytest.mark.parametrize(("checks", "seconds"), [(1, 0.3), (2, 30.0)], ids=["one at a time", "two at a time"])
def test_an_image_is_measured_when_it_might_be_checked(
    world: World, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, checks: int, seconds: float
) -> None:
    other, both, measured = twin(recipe), threading.Barrier(2), []
    met: list[str] = []

    def meet(who: str) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(seconds)
            met.append(who)

    def suite(recipe: Recipe, level: Level) -> CheckRun:
        if recipe.cell.id != "twin":
            meet("check")
        return ran(recipe, level)

    def measure(engine: object, image_id: str, cell: Cell, **_: object) -> Manifest:
        meet("measure")
        measured.append(image_id)
        return Manifest(
            cell=cell.id,
            distribution=Distribution(id=None, version=None, codename=None),
            python=None,
            framework=None,
            horovod=None,
            cuda=None,
            packages=Packages(python=None, debian=None),
        )

    def finish(engine: object, action: Action, *_: object, **__: object) -> Image:
        world.hold(other, TWO)
        return Image(id=TWO, key=action.key or "", candidate=action.candidate, built=True)

    nothing = contextlib.nullcontext
    monkeypatch.setattr(making.Maker, "_opened_session", lambda _: None)
    monkeypatch.setattr(making, "source_labels", lambda _: {})
    monkeypatch.setattr(
        making, "built_recipe", lambda *_, **__: nothing(Unfinished(id="sha256:3", name="n", seconds=0.0))
    )
    monkeypatch.setattr(making, "measure_image", measure)
    monkeypatch.setattr(making, "inspect", lambda *_: details("sha256:3"))
    monkeypatch.setattr(making, "finish_image", finish)
    monkeypatch.setattr(making, "remember_build", lambda *_, **__: None)
    world.hold(recipe, ONE)
    world.suite = suite
    outcomes = world.run(recipe, other, options=Options(jobs=2, checks=checks, recheck=True))
    assert [outcome.exit_code for outcome in outcomes] == [0, 0], [outcome.reasons for outcome in outcomes]
    assert measured == ["sha256:3"]
    assert sorted(met) == ([] if checks == 1 else ["check", "measure"])


def test_two_images_of_one_content_are_both_checked_again_when_asked(world: World, recipe: Recipe) -> None:
    other = twin(recipe)
    world.hold(recipe, ONE)
    world.hold(other, TWO)
    world.run(recipe, other, options=Options(jobs=2, checks=1, recheck=True))
    assert sorted(world.checked) == [ONE, TWO]


def cuda_of(recipe: Recipe) -> Recipe:
    policy = Policy(public=Level.CPU, verified=Level.GPU)
    return replace(recipe, cell=replace(recipe.cell, cuda="13.0", policy=policy))


def without_gpu(recipe: Recipe, level: Level) -> CheckRun:
    """A run up to `gpu` whose container had no GPU: its checks there did not run."""
    at_cpu = ran(recipe, Level.CPU)
    return replace(at_cpu, verdict=replace(at_cpu.verdict, level=level))


def test_a_level_that_was_asked_for_by_name_and_not_reached_is_no_success(world: World, recipe: Recipe) -> None:
    cuda = cuda_of(recipe)
    world.hold(cuda, ONE)
    world.suite = without_gpu
    asked = Options(level=Level.GPU, recheck=True)
    (outcome,) = world.run(cuda, reach=replace(H200, cap=Level.GPU), check_only=True, options=asked)
    assert (outcome.status, outcome.exit_code) == (Status.INCOMPLETE, CheckIncomplete.exit_code)
    assert outcome.reasons == ("level gpu was asked for, and cpu was reached",)
    assert outcome.unverified
    (unasked,) = world.run(cuda, reach=H200, check_only=True, options=Options(recheck=True))
    assert (unasked.status, unasked.exit_code) == (Status.PASSED, 0)
    world.suite = lambda recipe, level: ran(recipe, level)
    (reached,) = world.run(cuda, reach=replace(H200, cap=Level.GPU), check_only=True, options=asked)
    assert (reached.status, reached.exit_code, reached.reached) == (Status.PASSED, 0, "gpu")
    assert world.ledger.short == [outcome.reasons, (), ()], "the run's own files say it too"


def test_a_level_below_gpu_is_a_limit(world: World, recipe: Recipe) -> None:
    cuda = cuda_of(recipe)
    world.hold(cuda, ONE)
    (outcome,) = world.run(cuda, reach=replace(H200, cap=Level.CPU), check_only=True, options=Options(level=Level.CPU))
    assert (outcome.status, outcome.exit_code, outcome.reached) == (Status.PASSED, 0, "cpu")
    assert outcome.unverified


def test_each_check_leaves_a_directory_and_what_was_reused_none(world: World, recipe: Recipe) -> None:
    world.hold(recipe, ONE)
    (first,), (second,) = world.run(recipe), world.run(recipe)
    assert (first.run, document(first)["run"]) == (f"/runs/{recipe.cell.id}",) * 2
    assert (second.run, document(second)["run"]) == ("", None)
    assert f"    run: /runs/{recipe.cell.id}" in Report(outcomes=(first,)).to_text().splitlines()
    assert world.ledger.entered == [recipe.cell.id]


def test_the_ledger_is_opened_only_where_there_is_something_to_check(world: World, recipe: Recipe) -> None:
    world.hold(recipe, ONE)
    world.run(recipe)
    assert world.opened == 1
    world.run(recipe)
    world.run(recipe, check_only=True)
    assert world.opened == 1


def test_a_key_that_cannot_be_used_is_found_before_the_check(
    world: World, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Ledger:
        raise ConfigError("this is no key")

    world.hold(recipe, ONE)
    monkeypatch.setattr(world, "open", broken)
    with pytest.raises(ConfigError, match="this is no key"):
        world.run(recipe)
    assert world.checked == []


@pytest.mark.parametrize("error", [EngineError("the engine is gone"), StateError("the disk is full")])
def test_housekeeping_that_fails_costs_no_report(error: Exception, tmp_path: Path) -> None:
    class Memory:
        asked = 0

        def prune(self, held: object) -> int:
            self.asked += 1
            raise error

    memory = Memory()
    commands._tidy(cast(CheckMemory, memory), cast(Engine, None))
    assert memory.asked == 1


@pytest.mark.parametrize(
    "rooms",
    [
        ("builder.attest", "builder.runs", "builder.release", "builder.registry", "cryptography"),
        ("builder.build", "builder.making", "builder.measure"),
    ],
    ids=["for evidence", "to build"],
)
def test_what_a_run_with_nothing_to_do_does_not_need_is_not_imported(rooms: tuple[str, ...]) -> None:
    """It takes 60 ms and more, as much as everything else that such a run adds to docker's own import."""
    code = (
        "import sys, builder.commands\n"
        f"print(*sorted(name for name in sys.modules if name.startswith({rooms!r}) and name != 'builder.builds'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
