"""What is checked again and what is not: content, suite, level, user, device, age, and what the cell expects today."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from builder import memory as memory_module
from builder.check import CheckRun, Reach, Status, VerdictStatus, content_id, judge, parse_result, suite
from builder.check.judge import failed_verdict
from builder.check.suite import Suite
from builder.engine.images import ImageDetails
from builder.matrix import Level, Policy, load_matrix
from builder.memory import CheckMemory, expectation
from builder.plan import Remembered
from builder.project import shipped_data
from builder.records import Records
from builder.render import Recipe, render_all

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=timezone.utc)
NONCE = "f" * 32
HERE = Reach(gpu=False, architecture="amd64")
FIRST, CHILD, OTHER = ("sha256:" + letter * 64 for letter in "abc")


def details(image_id: str = FIRST, **changes: Any) -> ImageDetails:
    found = ImageDetails(
        id=image_id,
        tags=(),
        labels={},
        created=NOW,
        size=1,
        layers=("sha256:1", "sha256:2"),
        environment={"PATH": "/usr/bin", "LANG": "C"},
        entrypoint=("/entry",),
        command=("bash",),
        user="1000:1000",
        workdir="/workspace",
        architecture="amd64",
        os="linux",
        digests=(),
        tagged=None,
    )
    return replace(found, **changes)


# Content


@pytest.mark.parametrize(
    "change",
    [
        {"id": CHILD},
        {"labels": {"a": "b"}},
        {"created": NOW + timedelta(days=1)},
        {"tags": ("r:t",)},
        {"digests": ("r@sha256:1",)},
        {"size": 2},
        {"tagged": NOW},
        {"environment": {"LANG": "C", "PATH": "/usr/bin"}},
    ],
)
def test_what_a_check_cannot_see_changes_no_content(change: dict[str, Any]) -> None:
    assert content_id(details(**change)) == content_id(details())


@pytest.mark.parametrize(
    "change",
    [
        {"layers": ("sha256:2", "sha256:1")},
        {"layers": ("sha256:1",)},
        {"environment": {"PATH": "/usr/bin"}},
        {"environment": {"PATH": "/usr/bin", "LANG": "D"}},
        {"entrypoint": None},
        {"entrypoint": ("/entry", "bash")},
        {"command": None},
        {"user": ""},
        {"workdir": ""},
        {"os": "windows"},
        {"architecture": "arm64"},
        {"volumes": ("/data",)},
        {"repeated": ("LANG=D", "LANG=C")},
    ],
)
def test_what_a_check_can_see_does(change: dict[str, Any]) -> None:
    assert content_id(details(**change)) != content_id(details())


def test_images_without_layers_are_never_taken_for_one_another() -> None:
    assert content_id(details(FIRST, layers=())) != content_id(details(CHILD, layers=()))


# Memory


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    data = shipped_data()
    cells = [cell for cell in load_matrix(data / "matrix.yaml").cells if cell.id == "torch-2.13.0-cpu-py3.11-horovod"]
    return render_all(cells, data / "dockerfiles")[0]


@pytest.fixture(scope="module")
def cuda(recipe: Recipe) -> Recipe:
    """A cell for a GPU, as far as a check is concerned; its pins are the CPU cell's."""
    return replace(recipe, cell=replace(recipe.cell, cuda="13.0", policy=Policy(public=Level.CPU, verified=Level.GPU)))


def raw(recipe: Recipe, level: Level, **failed: str) -> bytes:
    """What the suite writes about an image that is what the cell says, checked up to a level."""
    cell = recipe.cell
    rows: list[dict[str, object]] = [
        {
            "name": spec.name,
            "level": spec.level,
            "status": "failed" if spec.name in failed else "passed" if Level(spec.level) <= level else "not_run",
            "reason": failed.get(spec.name, "" if Level(spec.level) <= level else "above"),
            "seconds": 0.1,
            "measured": {},
        }
        for spec in suite().checks.values()
    ]
    torch = recipe.constraints["torch"]
    facts = {
        "python": f"{cell.python}.2",
        "platform": "Linux",
        "system": "Debian",
        "uid": 12345,
        "packages": dict(recipe.constraints),
        "cpu": {"model": "x"},
        "devices": [],
        "torch": {
            "version": torch,
            "cuda": None if cell.cuda == "cpu" else cell.cuda,
            "num_threads": 1,
            "capability": "",
        },
        "horovod": None,
    }
    return json.dumps(
        {
            "schema": "imgbuild.check-result/1",
            "nonce": NONCE,
            "complete": True,
            "level": level.value,
            "started": NOW.isoformat(),
            "seconds": 1.0,
            "facts": facts,
            "checks": rows,
        }
    ).encode()


def ran(recipe: Recipe, level: Level = Level.CPU, limit: str = "", **failed: str) -> CheckRun:
    data = raw(recipe, level, **failed)
    result = parse_result(data, NONCE)
    return CheckRun(
        verdict=judge(expectation(recipe), result, limit=limit),
        result=result,
        suite_sha256=suite().sha256,
        nonce=NONCE,
        log_tail="",
        raw=data,
        seconds=21.5,
        limit=limit,
    )


class Engine:
    """Counts how often it is asked about an image."""

    def __init__(self, *images: ImageDetails) -> None:
        self.images = {image.id: image for image in images}
        self.asked: list[str] = []

    def inspect(self, image_id: str) -> ImageDetails | None:
        self.asked.append(image_id)
        return self.images.get(image_id)


Make = Callable[..., CheckMemory]


@pytest.fixture
def engine() -> Engine:
    return Engine(details(FIRST), details(CHILD, labels={"io.imgbuild.key": "1"}), details(OTHER, user="0"))


@pytest.fixture
def make(tmp_path: Path, engine: Engine) -> Make:
    """A memory as another run of imgbuild on this machine has it, a time after `NOW`."""

    def made(reach: Reach = HERE, *, later: timedelta = timedelta(0)) -> CheckMemory:
        return CheckMemory(Records(tmp_path), reach, engine.inspect, lambda: NOW + later)

    return made


def test_nothing_is_known_of_what_was_never_checked(make: Make, recipe: Recipe) -> None:
    assert make().get(recipe, FIRST) is None


def test_what_passed_is_known_to_the_next_run(make: Make, recipe: Recipe) -> None:
    run = ran(recipe)
    assert run.verdict.status is VerdictStatus.PASSED, run.verdict.reasons
    put = make().put(recipe, FIRST, run)
    assert make().get(recipe, FIRST) == Remembered(
        passed=True, reached=Level.CPU, image_id=FIRST, when="2026-11-23T12:00:00Z"
    )
    recalled = make().recall(recipe, FIRST)
    assert recalled is not None
    assert (recalled.content, recalled.device, recalled.when) == (content_id(details()), "cpu/amd64", NOW)
    assert (recalled.run.raw, recalled.run.seconds, recalled.run.verdict) == (run.raw, 21.5, run.verdict)
    assert recalled == put


def test_an_image_of_the_same_content_is_not_checked_again(make: Make, recipe: Recipe) -> None:
    make().put(recipe, FIRST, ran(recipe))
    known = make().get(recipe, CHILD)
    assert known is not None
    assert (known.passed, known.reused, known.image_id, known.when) == (True, True, FIRST, "2026-11-23T12:00:00Z")
    assert make().get(recipe, OTHER) is None


def test_the_engine_is_asked_once_about_an_image(make: Make, recipe: Recipe, engine: Engine) -> None:
    make().put(recipe, FIRST, ran(recipe))
    assert engine.asked == [FIRST]
    make().get(recipe, FIRST)
    assert engine.asked == [FIRST], "what an image id stands for never changes"
    memory = make()
    memory.get(recipe, CHILD)
    memory.recall(recipe, CHILD)
    assert engine.asked == [FIRST, CHILD]
    memory.learn(CHILD)
    make().get(recipe, CHILD)
    assert engine.asked == [FIRST, CHILD]


def test_looking_writes_nothing(make: Make, recipe: Recipe, tmp_path: Path) -> None:
    make().put(recipe, FIRST, ran(recipe))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    make().get(recipe, CHILD)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_image_that_is_gone_is_known_by_what_was_written_down(make: Make, recipe: Recipe, engine: Engine) -> None:
    make().put(recipe, FIRST, ran(recipe))
    engine.images.clear()
    assert make().get(recipe, FIRST) is not None
    assert make().get(recipe, CHILD) is None


@pytest.mark.parametrize(
    ("reach", "known"),
    [
        (HERE, True),
        (Reach(gpu=True, architecture="amd64", gpus=("NVIDIA H200",)), True),
        (Reach(gpu=False, architecture="arm64"), False),
        (Reach(gpu=False, architecture="amd64", cap=Level.STATIC), False),
    ],
    ids=["same", "a GPU that the cell does not use", "another architecture", "another level"],
)
def test_another_device_or_level_is_another_check(make: Make, recipe: Recipe, reach: Reach, known: bool) -> None:
    make().put(recipe, FIRST, ran(recipe))
    assert (make(reach).get(recipe, FIRST) is not None) is known


def test_each_model_of_gpu_is_a_device_of_its_own(make: Make, cuda: Recipe) -> None:
    def reach(*models: str) -> Reach:
        return Reach(gpu=True, architecture="amd64", gpus=models)

    run = ran(cuda, Level.GPU)
    assert run.verdict.verified, (run.verdict.reasons, run.verdict.unverified)
    put = make(reach("NVIDIA H200")).put(cuda, FIRST, run)
    assert put.device == "gpu/NVIDIA H200"
    known = make(reach("NVIDIA H200")).get(cuda, FIRST)
    assert known is not None
    assert known.verified
    assert make(reach("NVIDIA A100")).get(cuda, FIRST) is None
    assert make(reach("NVIDIA H200", "NVIDIA H200")).get(cuda, FIRST) is None
    # Without a GPU it was never checked: what a GPU showed is not what this engine would show.
    assert make(HERE).get(cuda, FIRST) is None


def test_a_gpu_of_which_nobody_says_what_it_is_is_not_remembered(make: Make, cuda: Recipe, tmp_path: Path) -> None:
    unknown = Reach(gpu=True, architecture="amd64")
    memory = make(unknown)
    assert memory.put(cuda, FIRST, ran(cuda, Level.GPU)).device is None
    assert memory.get(cuda, FIRST) is None
    assert not list((tmp_path / "records/checks").glob("*"))


def test_what_failed_there_or_with_gpus_at_hand_counts_all_the_same(make: Make, recipe: Recipe, cuda: Recipe) -> None:
    hour = timedelta(hours=1)
    failure = {"torch.version": "loads no more"}
    make().put(cuda, FIRST, ran(cuda, Level.CPU, limit=HERE.level(cuda.cell)[1]))
    assert make().get(cuda, FIRST) is not None
    made = make(Reach(gpu=True, architecture="amd64"), later=hour).put(cuda, FIRST, ran(cuda, Level.GPU, **failure))
    assert made.device is None
    known = make().recall(cuda, FIRST)
    assert known is not None
    assert (known.run.verdict.status, known.device, known.when) == (VerdictStatus.FAILED, None, NOW + hour)
    here = Reach(gpu=True, architecture="amd64", gpus=("NVIDIA H200",))
    make(here).put(recipe, CHILD, ran(recipe))
    make(here, later=hour).put(recipe, CHILD, ran(recipe, Level.CPU, **failure), gpus=True)
    known = make(here).recall(recipe, CHILD)
    assert known is not None
    assert known.run.verdict.status is VerdictStatus.FAILED
    # A run that passes later outweighs it.
    make(here, later=2 * hour).put(recipe, CHILD, ran(recipe))
    known = make(here).recall(recipe, CHILD)
    assert known is not None
    assert known.counts


H200 = Reach(gpu=True, architecture="amd64", gpus=("NVIDIA H200",))
NAMELESS = Reach(gpu=True, architecture="amd64")


@pytest.mark.parametrize("where", [H200, NAMELESS], ids=["a known GPU", "a GPU of which nobody says what it is"])
def test_what_failed_on_a_gpu_is_known_when_the_gpu_is_gone(make: Make, cuda: Recipe, where: Reach) -> None:
    hour = timedelta(hours=1)
    limit = HERE.level(cuda.cell)[1]
    make().put(cuda, FIRST, ran(cuda, Level.CPU, limit=limit))
    make(where, later=hour).put(cuda, FIRST, ran(cuda, Level.GPU, **{"torch.version": "loads no more"}))
    known = make().recall(cuda, FIRST)
    assert known is not None
    assert (known.run.verdict.status, known.device, known.when) == (
        VerdictStatus.FAILED,
        where.device(Level.GPU),
        NOW + hour,
    )
    # Its twins: a run that passes later outweighs it, as far as it goes.
    make(later=2 * hour).put(cuda, FIRST, ran(cuda, Level.CPU, limit=limit))
    known = make().recall(cuda, FIRST)
    assert known is not None
    assert known.counts


@pytest.mark.parametrize("where", [H200, NAMELESS], ids=["a known GPU", "a GPU of which nobody says what it is"])
def test_a_pass_takes_the_place_of_what_failed_up_to_its_level(make: Make, cuda: Recipe, where: Reach) -> None:
    hour = timedelta(hours=1)
    failure = {"torch.version": "loads no more"}
    make().put(cuda, FIRST, ran(cuda, Level.CPU, limit=HERE.level(cuda.cell)[1]))
    make(where, later=hour).put(cuda, FIRST, ran(cuda, Level.GPU, **failure))
    # A pass that went less far does not take it away.
    capped = replace(where, cap=Level.STATIC)
    make(capped, later=2 * hour).put(cuda, FIRST, ran(cuda, Level.STATIC, limit="the check was limited"))
    known = make().recall(cuda, FIRST)
    assert known is not None
    assert known.run.verdict.status is VerdictStatus.FAILED
    # One that went as far does, also where nobody says on what it ran.
    make(where, later=3 * hour).put(cuda, FIRST, ran(cuda, Level.GPU))
    known = make().recall(cuda, FIRST)
    assert known is not None
    assert (known.counts, known.when) == (True, NOW)


def test_a_cuda_cell_without_a_gpu_is_remembered_as_what_it_is(make: Make, cuda: Recipe) -> None:
    make().put(cuda, FIRST, ran(cuda, Level.CPU, limit=HERE.level(cuda.cell)[1]))
    known = make().get(cuda, FIRST)
    assert known is not None
    assert (known.passed, known.verified, known.reached) == (True, False, Level.CPU)
    (line,) = known.unverified
    assert line.startswith("not verified: reached cpu, `-verified` needs gpu: torch.gpu.")
    assert line.endswith("did not run: this engine can give containers no GPU")


def test_another_suite_is_another_check(make: Make, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    make().put(recipe, FIRST, ran(recipe))
    assert make().get(recipe, FIRST) is not None
    edited = Suite(archive=b"", sha256="0" * 64, checks=suite().checks)
    monkeypatch.setattr(memory_module, "suite", lambda: edited)
    assert make().get(recipe, FIRST) is None


def test_another_user_is_another_check(make: Make, recipe: Recipe) -> None:
    make().put(recipe, FIRST, ran(recipe), user="0:0")
    assert make().get(recipe, FIRST) is None, "a check as root says nothing about an unknown user"
    assert make().recall(recipe, FIRST, user="0:0") is not None


@pytest.mark.parametrize(("days", "passed"), [(None, True), (31, True), (30, True), (29, False), (1, False)])
def test_what_is_older_than_the_policy_s_age_does_not_count(
    make: Make, recipe: Recipe, days: int | None, passed: bool
) -> None:
    make().put(recipe, FIRST, ran(recipe))
    cell = replace(recipe.cell, policy=replace(recipe.cell.policy, max_age_days=days))
    known = make(later=timedelta(days=30)).get(replace(recipe, cell=cell), FIRST)
    assert known is not None
    assert (known.passed, known.expired) == (passed, not passed)
    if not passed:
        unit = "day" if days == 1 else "days"
        assert known.reason == f"it was checked 2026-11-23T12:00:00Z, more than {days} {unit} ago"


def test_a_check_made_again_is_young_again(make: Make, recipe: Recipe) -> None:
    limited = replace(recipe, cell=replace(recipe.cell, policy=replace(recipe.cell.policy, max_age_days=7)))
    make().put(limited, FIRST, ran(recipe))
    memory = make(later=timedelta(days=8))
    old = memory.get(limited, CHILD)
    assert old is not None
    assert old.expired
    memory.put(limited, CHILD, ran(recipe))
    for image_id, reused in ((CHILD, False), (FIRST, True)):
        known = memory.get(limited, image_id)
        assert known is not None
        assert (known.passed, known.image_id, known.reused) == (True, CHILD, reused)


def test_what_failed_is_remembered_with_its_check(make: Make, recipe: Recipe) -> None:
    make().put(recipe, FIRST, ran(recipe, Level.CPU, **{"horovod.weights": "the weights differ"}))
    known = make().get(recipe, CHILD)
    assert known is not None
    assert (known.passed, known.reason, known.reached) == (False, "horovod.weights: the weights differ", None)


def test_a_run_without_a_result_is_remembered_as_one(make: Make, recipe: Recipe) -> None:
    verdict = failed_verdict(Level.CPU, "the check ran out of memory")
    run = replace(ran(recipe), verdict=verdict, result=None, raw=b"garbage\xff")
    make().put(recipe, FIRST, run)
    recalled = make().recall(recipe, FIRST)
    assert recalled is not None
    assert recalled.run.verdict == verdict
    assert [row.name for row in recalled.run.verdict.checks if row.status is Status.FAILED] == ["run.result"]


def test_what_the_cell_expects_today_decides(make: Make, recipe: Recipe) -> None:
    make().put(recipe, FIRST, ran(recipe))
    other = replace(recipe, cell=replace(recipe.cell, id="other", python="3.12"))
    known = make().get(other, FIRST)
    assert known is not None
    assert (known.passed, known.reason) == (False, "cell.python: Python is 3.11.2, the cell says 3.12")


def test_what_another_run_wrote_meanwhile_is_seen_after_a_refresh(make: Make, recipe: Recipe) -> None:
    one, two = make(), make()
    assert one.get(recipe, FIRST) is None
    two.put(recipe, FIRST, ran(recipe))
    one.refresh()
    assert one.get(recipe, FIRST) is not None


def test_a_record_that_was_changed_by_hand_is_not_believed(make: Make, recipe: Recipe, tmp_path: Path) -> None:
    make().put(recipe, FIRST, ran(recipe))
    (path,) = (tmp_path / "records/checks").glob("*.json")
    good = path.read_text()
    path.write_text(good.replace("2026-11-23", "2036-11-23"))
    assert make().get(recipe, FIRST) is None
    path.write_text(good)
    assert make().get(recipe, FIRST) is not None


# Pruning


def aged(directory: Path, days: float) -> None:
    import os
    import time

    then = time.time() - days * 86400
    for path in directory.rglob("*.json"):
        os.utime(path, (then, then))


def test_what_is_old_and_about_no_image_goes(make: Make, recipe: Recipe, tmp_path: Path) -> None:
    make().put(recipe, FIRST, ran(recipe))
    make().put(recipe, OTHER, ran(recipe))
    make().learn(CHILD)
    aged(tmp_path, 91)
    # FIRST is gone, and CHILD has its content: the check stays, and what FIRST stood for goes.
    assert make().prune(lambda: frozenset({CHILD})) == 3
    assert make().get(recipe, CHILD) is not None
    kinds = sorted(path.parent.name for path in (tmp_path / "records").rglob("*.json"))
    assert kinds == ["checks", "contents"]


def test_what_is_young_stays_and_nobody_is_asked(make: Make, recipe: Recipe, tmp_path: Path) -> None:
    make().put(recipe, FIRST, ran(recipe))
    aged(tmp_path, 89)

    def held() -> frozenset[str]:
        raise AssertionError("the engine need not be asked")

    assert make().prune(held) == 0
    aged(tmp_path, 91)
    assert make().prune(held) == 0, "not twice a day"


# Failures, and what was given to the container


def test_a_later_failure_counts_at_whatever_level_it_was_found(make: Make, cuda: Recipe) -> None:
    here = Reach(gpu=True, architecture="amd64", gpus=("NVIDIA H200",))
    capped = replace(here, cap=Level.CPU)
    hour = timedelta(hours=1)
    make(capped).put(cuda, FIRST, ran(cuda, Level.CPU, **{"torch.version": "does not load"}))
    make(here, later=hour).put(cuda, FIRST, ran(cuda, Level.GPU))
    known = make(here).get(cuda, FIRST)
    assert known is not None
    assert known.verified, "what failed before is mended by what passed since"
    make(capped, later=2 * hour).put(cuda, FIRST, ran(cuda, Level.CPU, **{"torch.version": "loads no more"}))
    known = make(here).get(cuda, FIRST)
    assert known is not None
    assert (known.passed, known.reached, known.reason) == (False, None, "torch.version: loads no more")
    make(here, later=3 * hour).put(cuda, FIRST, ran(cuda, Level.GPU))
    known = make(here).get(cuda, FIRST)
    assert known is not None
    assert known.verified


def test_a_later_pass_at_a_lower_level_takes_nothing_away(make: Make, cuda: Recipe) -> None:
    here = Reach(gpu=True, architecture="amd64", gpus=("NVIDIA H200",))
    make(here).put(cuda, FIRST, ran(cuda, Level.GPU))
    make(replace(here, cap=Level.CPU), later=timedelta(hours=1)).put(cuda, FIRST, ran(cuda, Level.CPU))
    known = make(here).get(cuda, FIRST)
    assert known is not None
    assert known.verified


def test_what_passed_with_gpus_at_hand_did_not_pass_without(make: Make, recipe: Recipe) -> None:
    here = Reach(gpu=True, architecture="amd64", gpus=("NVIDIA H200",))
    assert make(here).put(recipe, FIRST, ran(recipe), gpus=True).device == "gpu/NVIDIA H200"
    assert make(here).get(recipe, FIRST) is None
    assert make(here).recall(recipe, FIRST, gpus=True) is not None
    make(here).put(recipe, FIRST, ran(recipe))
    assert make(here).get(recipe, FIRST) is not None


def test_a_content_id_of_an_earlier_form_is_asked_for_again(make: Make, tmp_path: Path, engine: Engine) -> None:
    records = Records(tmp_path)
    records.put("contents", FIRST, {"image_id": FIRST, "content": content_id(details(OTHER, user="0"))})
    assert make().content(FIRST) == content_id(details())
    assert engine.asked == [FIRST]
    make().learn(FIRST)
    engine.asked.clear()
    assert make().content(FIRST) == content_id(details())
    assert engine.asked == []


def test_a_statement_lives_as_long_as_an_image_that_may_cite_it(make: Make, recipe: Recipe, tmp_path: Path) -> None:
    records = Records(tmp_path)
    for name, image_id in (("kept", FIRST), ("gone", OTHER)):
        content = make().learn(image_id)
        records.put("statements", name, {"image_id": image_id, "content": content, "statement": "{}"})
    make().learn(CHILD)
    aged(tmp_path, 91)
    make().prune(lambda: frozenset({CHILD}))
    assert records.get("statements", "kept") is not None
    assert records.get("statements", "gone") is None
