"""Planning: pure decisions from what is wanted and what is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone

import pytest

from builder.engine.images import ImageSummary
from builder.lock import BasePin, Bases, Pins
from builder.matrix import Cell, Level, Policy, load_matrix
from builder.plan import (
    KEY_LABEL,
    Action,
    Remembered,
    candidate_tag,
    candidates,
    next_candidate,
    plan,
    public_references,
)
from builder.project import shipped_data
from builder.render import Recipe, render_all

PIN = BasePin(name="bookworm", source=Bases.BOOTSTRAP, reference="b", identity="bootstrap:1:2", why="")
PINS = Pins(bases={"bookworm": PIN})


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    data = shipped_data()
    cells = [cell for cell in load_matrix(data / "matrix.yaml").cells if cell.id == "torch-2.13.0-cpu-py3.11-horovod"]
    return render_all(cells, data / "dockerfiles")[0]


@pytest.fixture(scope="module")
def cuda(recipe: Recipe) -> Recipe:
    """The same for a GPU: public after a check on a CPU, verified after one on a GPU."""
    policy = Policy(public=Level.CPU, verified=Level.GPU)
    return replace(recipe, cell=replace(recipe.cell, cuda="13.0", policy=policy))


def image(number: int, key: str, *tags: str) -> ImageSummary:
    return ImageSummary(
        id=f"sha256:{number:064x}",
        tags=tags,
        labels={KEY_LABEL: key},
        created=datetime(2026, 1, number, tzinfo=timezone.utc),
        size=1,
    )


Memory = Callable[[Recipe, str], Remembered | None]


def nothing_known(recipe: Recipe, image_id: str) -> Remembered | None:
    return None


def passed(recipe: Recipe, image_id: str) -> Remembered | None:
    return Remembered(passed=True)


def failed(recipe: Recipe, image_id: str) -> Remembered | None:
    return Remembered(passed=False, reason="horovod.allreduce: wrong sum")


def only_on_a_cpu(recipe: Recipe, image_id: str) -> Remembered | None:
    return Remembered(passed=True, reached=Level.CPU, unverified=("not verified: no GPU",))


def up_to_cpu(cell: Cell) -> Level:
    return Level.CPU


def decide(
    recipe: Recipe,
    *images: ImageSummary,
    memory: Memory = nothing_known,
    level: Callable[[Cell], Level] = lambda cell: cell.policy.verified,
    **options: bool,
) -> Action:
    (action,) = plan([recipe], PINS, images, memory, level=level, **options)
    return action


def test_no_image_is_built_checked_and_tagged(recipe: Recipe) -> None:
    action = decide(recipe)
    assert (action.build, action.check, action.tags) == (True, True, public_references(recipe.cell))
    assert action.key == recipe.key(PIN)


def test_an_unchecked_candidate_is_checked_and_not_built(recipe: Recipe) -> None:
    key = recipe.key(PIN)
    action = decide(recipe, image(1, key, candidate_tag(recipe.cell, key)))
    assert (action.build, action.check) == (False, True)


def test_a_failed_candidate_is_checked_again_and_not_built(recipe: Recipe) -> None:
    key = recipe.key(PIN)
    action = decide(recipe, image(1, key, candidate_tag(recipe.cell, key)), memory=failed)
    assert (action.build, action.check) == (False, True)
    assert "wrong sum" in action.why


def test_a_verified_image_with_all_its_tags_needs_nothing(recipe: Recipe) -> None:
    key = recipe.key(PIN)
    held = image(1, key, candidate_tag(recipe.cell, key), *public_references(recipe.cell))
    assert decide(recipe, held, memory=passed).nothing
    assert not decide(recipe, held, memory=nothing_known).nothing


def test_a_tag_that_was_moved_goes_back_to_the_verified_image(recipe: Recipe) -> None:
    key = recipe.key(PIN)
    references = public_references(recipe.cell)
    good = image(1, key, candidate_tag(recipe.cell, key), *references[1:])
    child = image(2, key, references[0])
    action = decide(recipe, good, child, memory=passed)
    assert (action.build, action.check, action.tags) == (False, False, references[:1])


def test_a_label_or_a_tag_alone_is_no_candidate(recipe: Recipe) -> None:
    cell, key = recipe.cell, recipe.key(PIN)
    only_label = image(1, key, "someone/else:latest")
    only_tag = image(2, "0" * 64, candidate_tag(cell, key))
    other_repository = image(3, key, f"other/pytorch:candidate-{key}")
    longer = image(4, key, candidate_tag(cell, key) + "-evil")
    both = image(5, key, candidate_tag(cell, key))
    assert candidates(cell, key, [only_label, only_tag, other_repository, longer]) == ()
    assert candidates(cell, key, [only_label, only_tag, both]) == ((1, both),)
    assert decide(recipe, only_label, only_tag, other_repository, longer, memory=passed).build


def test_the_newest_candidate_counts_and_none_is_overwritten(recipe: Recipe) -> None:
    cell, key = recipe.cell, recipe.key(PIN)
    numbers = (10, 1, 2)
    images = [image(number, key, candidate_tag(cell, key, number)) for number in numbers]
    assert decide(recipe, *images).image_id == images[0].id
    assert next_candidate(cell, key, images) == candidate_tag(cell, key, 3)
    foreign = image(3, "f" * 64, candidate_tag(cell, key))
    assert next_candidate(cell, key, [foreign]) == candidate_tag(cell, key, 2)
    assert next_candidate(cell, key, []) == candidate_tag(cell, key)


def test_a_rebuild_builds_beside_what_is_there(recipe: Recipe) -> None:
    key = recipe.key(PIN)
    held = image(1, key, candidate_tag(recipe.cell, key), *public_references(recipe.cell))
    action = decide(recipe, held, memory=passed, rebuild=True)
    assert (action.build, action.rebuild) == (True, True)


def test_without_a_check_there_are_no_tags(recipe: Recipe) -> None:
    key = recipe.key(PIN)
    assert decide(recipe, check=False).tags == ()
    assert decide(recipe, image(1, key, candidate_tag(recipe.cell, key)), check=False).nothing


def test_a_base_that_is_still_to_be_made_leaves_the_key_open(recipe: Recipe) -> None:
    (action,) = plan([recipe], Pins(bases={}, pending=("bookworm",)), (), nothing_known)
    assert (action.key, action.build) == (None, True)
    assert "bookworm" in action.why


def test_verified_references_come_last(recipe: Recipe) -> None:
    references = public_references(recipe.cell)
    assert references == (
        "imgbuild/pytorch:2.13.0-cpu-py3.11-horovod0.28.1",
        "imgbuild/pytorch:latest",
        "imgbuild/pytorch:2.13.0-cpu-py3.11-horovod0.28.1-verified",
        "imgbuild/pytorch:latest-verified",
    )


def test_what_cannot_be_verified_here_is_not_planned_to_be(cuda: Recipe) -> None:
    public = public_references(cuda.cell, verified=False)
    assert decide(cuda, level=up_to_cpu).tags == public
    assert decide(cuda, level=lambda cell: Level.GPU).tags == public_references(cuda.cell)
    assert not any(reference.endswith("-verified") for reference in public)


def test_what_passed_without_a_gpu_has_its_public_names_and_needs_nothing(cuda: Recipe) -> None:
    key = cuda.key(PIN)
    public = public_references(cuda.cell, verified=False)
    held = image(1, key, candidate_tag(cuda.cell, key), *public)
    action = decide(cuda, held, memory=only_on_a_cpu, level=up_to_cpu)
    assert action.nothing
    assert action.why == "passed, nothing changed"
    assert action.last is not None
    assert (action.last.verified, action.last.unverified) == (False, ("not verified: no GPU",))
    # The same memory of a cell that passed as verified asks for the rest.
    assert decide(cuda, held, memory=passed).tags == public_references(cuda.cell)[len(public) :]
    bare = image(1, key, candidate_tag(cuda.cell, key))
    assert decide(cuda, bare, memory=only_on_a_cpu).tags == public


def test_a_check_of_the_same_content_counts_and_is_named(recipe: Recipe) -> None:
    key = recipe.key(PIN)
    first = "sha256:" + "ab" * 32

    def elsewhere(recipe: Recipe, image_id: str) -> Remembered | None:
        return Remembered(passed=True, image_id=first, when="2026-11-23T12:00:00Z", reused=True)

    held = image(1, key, candidate_tag(recipe.cell, key), *public_references(recipe.cell))
    action = decide(recipe, held, memory=elsewhere)
    assert action.nothing
    assert action.why == "verified, checked 2026-11-23T12:00:00Z as abababababab, nothing changed"


def test_what_passed_too_long_ago_is_checked_again(recipe: Recipe) -> None:
    key = recipe.key(PIN)

    def old(recipe: Recipe, image_id: str) -> Remembered | None:
        return Remembered(passed=False, expired=True, reason="it was checked in May, more than 30 days ago")

    held = image(1, key, candidate_tag(recipe.cell, key), *public_references(recipe.cell))
    action = decide(recipe, held, memory=old)
    assert (action.build, action.check, action.tags) == (False, True, public_references(recipe.cell))
    assert action.why == "it was checked in May, more than 30 days ago"


def test_what_passed_is_checked_again_when_asked_for(recipe: Recipe) -> None:
    key = recipe.key(PIN)
    held = image(1, key, candidate_tag(recipe.cell, key), *public_references(recipe.cell))
    assert decide(recipe, held, memory=passed).check is False
    action = decide(recipe, held, memory=passed, recheck=True)
    assert (action.build, action.check) == (False, True)


def test_a_candidate_tag_fits_into_a_tag(recipe: Recipe) -> None:
    tag = candidate_tag(recipe.cell, recipe.key(PIN), 999).rpartition(":")[2]
    assert len(tag) <= 128
