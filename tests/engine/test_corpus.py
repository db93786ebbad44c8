"""Every broken image of the corpus fails, and the right check says why; every healthy variant passes.

Each broken image runs no more than the check that must fail: that is what fits into a CI job. That nothing else fails
in it is shown by `bench/corpus_table.py`, which runs the whole suite in all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from command import Built
from corpus import BROKEN, CELLS, HEALTHY, Broken, Healthy
from corpus.workshop import Workshop

from builder.check import Status, VerdictStatus, judge, suite
from builder.engine.connection import Engine
from builder.matrix import Level

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def workshop(engine: Engine, built: Built) -> Iterator[Workshop]:
    made = Workshop(engine, {base: str(built.cell(cell)["image_id"]) for base, cell in CELLS.items()})
    yield made
    made.close()


@pytest.mark.parametrize("variant", BROKEN, ids=lambda variant: variant.id)
def test_a_broken_image_fails_and_the_right_check_says_why(workshop: Workshop, variant: Broken) -> None:
    image = workshop.make(variant)
    try:
        seen = workshop.check_broken(variant, image, short=True)
    finally:
        workshop.discard(image)
    assert seen.wrong(variant) == ""


@pytest.mark.parametrize("variant", HEALTHY, ids=lambda variant: variant.id)
def test_a_healthy_variant_passes(workshop: Workshop, built: Built, variant: Healthy) -> None:
    if variant.as_built:
        # The whole suite ran in it when it was built, a moment ago.
        outcome = built.cell(CELLS[variant.base])
        assert (outcome["status"], outcome["checked"], outcome["reached"]) == ("verified", True, "cpu")
        return
    image = workshop.make(variant)
    level = Level.CPU if variant.whole else Level.STATIC
    try:
        run = workshop.check_healthy(variant, image, level)
    finally:
        workshop.discard(image)
    assert run.verdict.status is VerdictStatus.PASSED, (run.verdict.reasons, run.log_tail)
    assert run.verdict.reached is level
    assert run.suite_sha256 == suite().sha256


def test_a_crash_by_signal_costs_only_its_check(workshop: Workshop) -> None:
    (variant,) = [variant for variant in BROKEN if variant.id == "autocast-crashes"]
    image = workshop.make(variant)
    try:
        run = workshop.check_only(variant, image, ("torch.train.amp", "torch.train.regression"))
    finally:
        workshop.discard(image)
    rows = {row.name: row for row in run.verdict.checks}
    assert rows["torch.train.amp"].reason == "the check was killed by SIGSEGV"
    assert rows["torch.train.regression"].status is Status.PASSED


def test_a_healthy_image_passes_no_run_that_left_something_out(workshop: Workshop) -> None:
    """The positive twin of the short runs: what runs passes, and the image is incomplete all the same."""
    variant = HEALTHY[0]
    run = workshop.check_only(variant, workshop.make(variant), ("torch.version", "static.versions"))
    rows = {row.name: row for row in run.verdict.checks}
    assert rows["torch.version"].status is Status.PASSED
    assert rows["torch.train.amp"].reason == "the request asked for other checks only"
    assert run.verdict.status is VerdictStatus.INCOMPLETE
    assert run.verdict.reached is None


def test_a_healthy_image_is_incomplete_for_a_gpu_cell(workshop: Workshop) -> None:
    variant = HEALTHY[0]
    run = workshop.check_only(variant, workshop.make(variant), ("static.versions", "torch.version"))
    assert run.result is not None
    cell = replace(workshop.expectation(variant, Level.GPU), required=frozenset({"torch.version", "torch.gpu.*"}))
    verdict = judge(cell, run.result)
    assert verdict.status is VerdictStatus.INCOMPLETE
    assert any(reason.startswith("torch.gpu.train.amp: did not run") for reason in verdict.reasons)
