"""docs/images.md: made of docs/images.json, a row for every cell, none of them good without having been checked."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(scope="module")
def images() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module("images_table")
        for name in ("images_table", "side_by_side"):
            sys.modules.pop(name, None)


def row(cell: str, **fields: Any) -> dict[str, Any]:
    return {"cell": cell, "status": "not built here", "reason": "no room", "date": "2026-11-24", **fields}


def built(cell: str, *layers: tuple[str, int]) -> dict[str, Any]:
    return row(
        cell,
        status="verified",
        reason=None,
        reached="cpu",
        build_seconds=1,
        check_seconds=2,
        checks={"passed": 3, "not_run": 1},
        not_run={"no GPU": 1},
        layers=[list(layer) for layer in layers],
        used_bytes=5,
        free_bytes=6,
    )


def test_the_page_is_that_of_the_data(images: ModuleType) -> None:
    assert images.PAGE.read_text() == images.page(images.read_rows(), images.read_figures()), (
        "run: python bench/images_table.py --page"
    )


def test_every_cell_has_one_row_and_what_was_not_built_a_reason(images: ModuleType) -> None:
    rows = images.read_rows()
    assert [found["cell"] for found in rows] == list(images.cells()), "run: make test-images"
    for found in rows:
        if found["status"] in {"verified", "passed"}:
            assert found["layers"]
            assert found["checks"]["passed"] > 0
            assert not found["checks"].get("failed")
        else:
            assert found["reason"]


def test_bytes_that_two_images_have_are_nobodys_own(images: ModuleType) -> None:
    one, two = built("one", ("base", 100), ("a", 7)), built("two", ("base", 100), ("b", 9))
    assert images.unique([one, two]) == {"one": 7, "two": 9}
    assert images.unique([one]) == {"one": 107}
    figure = {"images": 2, "bytes": 116, "beside": 110, "date": "2026-11-24"}
    said = images.page([one, two, row("three")], {"matrix.yaml": figure})
    assert "Together: 216 B one by one, 116 B in distinct layers." in said
    assert "- matrix.yaml: 2 images, 116 B in distinct layers, 110 B of distinct contents: 1.055 (at most 1.10)" in said
    assert "| `one` | verified | `cpu` | 107 B | 7 B | 1 s | 2 s | 3 passed, 1 not run |" in said
    assert "| `three` | not built here | | | | | | |" in said
    assert "| `three` | no room |" in said
    assert "| 1 | `one`, `two` | no GPU |" not in said
    assert "| 1 | all | no GPU |" in said


def test_the_message_of_a_command_without_its_hint(images: ModuleType) -> None:
    assert images.why("note: x\nerror: f: no lock\n  run that\n") == "f: no lock"
    assert images.why("Killed\n") == "Killed"
    assert images.why("") == "it ended without a word"


def test_the_figures_of_whole_matrices_keep_their_bounds(images: ModuleType) -> None:
    figures, rows = images.read_figures(), images.read_rows()
    assert list(figures) == list(images.MOST), "run: make test-images"
    for matrix, figure in figures.items():
        built = [found for found in rows if found["matrix"] == matrix and "layers" in found]
        assert figure["images"] == len(built), f"{matrix}: images not measured together: run make test-images"
        assert 0 < images.ratio(figure) <= images.MOST[matrix]
