"""The corpus covers what it must, and docs/corpus.md is its table."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from corpus import BROKEN, HEALTHY, Broken
from corpus.table import Measured, document

from builder.check import HOST_CHECKS, suite

DOCUMENT = Path(__file__).parent.parent.parent / "docs/corpus.md"

#: What an image can be broken by without anybody noticing: each has an image.
KINDS = {
    "no reduction",
    "no reduction under Keras 3",
    "broadcast broken",
    "gradient averaged twice",
    "autocast off",
    "low dtype in the master weights",
    "scaler that never steps",
    "NaN loss hidden",
    "loss that does not fall",
    "wrong framework version",
    "CPU wheel in a CUDA cell",
    "two numpy versions",
    "a shadowed shared library",
    "a missing libgomp",
    "pip check broken",
    "entrypoint that prints",
    "entrypoint that swallows the exit code",
    "unwritable cache",
    "needs root",
    "needs network",
    "needs HOME",
    "forged result on stdout",
    "result file of another run",
    "exit 0 with no result",
    "hangs",
    "leaves a zombie",
    "eats memory",
}


def rows(section: str) -> list[list[str]]:
    """The cells of the rows of a section's table."""
    text = DOCUMENT.read_text(encoding="utf-8").split(f"## {section}", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [
        [re.sub(r"^`([^`]*)`$", r"\1", cell.strip()) for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines
    ]


def test_every_kind_of_defect_has_an_image() -> None:
    assert len({variant.id for variant in BROKEN}) == len(BROKEN) >= 26
    assert len({variant.id for variant in HEALTHY}) == len(HEALTHY) >= 8
    assert {variant.kind for variant in BROKEN} >= KINDS


@pytest.mark.parametrize("variant", BROKEN, ids=lambda variant: variant.id)
def test_what_must_fail_is_a_check(variant: Broken) -> None:
    known = {*suite().checks, *HOST_CHECKS}
    assert variant.check in known
    assert variant.reason
    for glob in variant.also:
        assert any(fnmatchcase(name, glob) for name in known), f"no check is called {glob}"
        assert not fnmatchcase(variant.check, glob) or glob.endswith("*")


def test_the_document_has_every_image_and_no_other() -> None:
    broken = {(row[0], row[1], row[2], row[3]) for row in rows("Broken")}
    assert broken == {(variant.id, variant.kind, variant.breaks, variant.check) for variant in BROKEN}
    assert {(row[0], row[1]) for row in rows("Healthy")} == {(variant.id, variant.differs) for variant in HEALTHY}


def test_no_image_of_the_document_is_other_than_it_must_be() -> None:
    assert "not as it must be" not in DOCUMENT.read_text(encoding="utf-8")


def test_a_document_tells_what_was_not_measured_and_what_was_wrong() -> None:
    variant = BROKEN[0]
    one = Measured(12.34, "a | b", ("torch.nan",), "another check failed")
    text = document({variant.id: one})
    assert "| a \\| b | `torch.nan` | 12.3 (**not as it must be**) |" in text
    assert text.count("not measured") == len(BROKEN) + len(HEALTHY) - 1
