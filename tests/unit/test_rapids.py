"""The example of RAPIDS' axes makes the very combinations that theirs make, not only as many.

Their axes and excludes stand here as they were in rapidsai/ci-imgs at 7f4766380fff18d5c82f4a491d351d72a59f4faf; an
entry of `exclude` takes out what has all of its values.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from builder.matrix import Matrix, load_matrix

EXAMPLE = Path(__file__).parents[2] / "docs/examples/rapids"

IMAGES = ("ci-conda", "ci-wheel", "citestwheel")
CUDAS = ("12.2.2", "12.9.2", "13.0.3", "13.3.0")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
LINUXES = ("rockylinux8", "ubuntu22.04", "ubuntu24.04", "ubuntu26.04")
EXCLUDES: tuple[dict[str, str], ...] = (
    {"linux": "ubuntu24.04", "cuda": "12.2.2"},
    {"linux": "ubuntu26.04", "cuda": "12.2.2"},
    {"linux": "ubuntu26.04", "cuda": "12.9.2"},
    {"linux": "ubuntu26.04", "cuda": "13.0.3"},
    {"image": "ci-wheel", "cuda": "12.2.2"},
    {"image": "ci-wheel", "cuda": "13.0.3"},
    {"image": "ci-wheel", "linux": "ubuntu22.04"},
    {"image": "ci-wheel", "linux": "ubuntu24.04"},
    {"image": "ci-wheel", "linux": "ubuntu26.04"},
)


def theirs() -> tuple[set[tuple[str, str, str, str]], int]:
    """Their kept combinations, with CUDA's major and minor version, and the number of all."""
    every = list(itertools.product(IMAGES, CUDAS, PYTHONS, LINUXES))
    kept = {
        (image, cuda.rpartition(".")[0], python, linux)
        for image, cuda, python, linux in every
        if not any(
            all({"image": image, "cuda": cuda, "linux": linux}[key] == value for key, value in entry.items())
            for entry in EXCLUDES
        )
    }
    return kept, len(every)


def ours() -> Matrix:
    return load_matrix(EXAMPLE / "matrix.yaml")


def test_the_cells_are_theirs() -> None:
    kept, count = theirs()
    matrix = ours()
    cells = [(cell.framework.name, cell.cuda, cell.python, cell.base.name) for cell in matrix.cells]
    assert (len(cells), count) == (104, 192)
    assert set(cells) == kept
    assert len(matrix.excluded) == count - len(kept) == 88


def test_no_exclude_is_in_vain_and_facts_forbid_none_of_it() -> None:
    matrix = ours()
    assert (matrix.warnings, matrix.impossible, matrix.unknown) == ((), (), ())


def test_the_documented_counts_are_true() -> None:
    text = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    matrix = ours()
    by_image = [sum(cell.framework.name == name for cell in matrix.cells) for name in IMAGES]
    assert by_image == [48, 8, 48]
    assert "48 + 48 + 8 = 104" in text
    assert "3 × 4 × 4 × 4 = 192 combinations" in text
