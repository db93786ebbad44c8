"""Selection by globs over ids and by terms over axes."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import ConfigError
from builder.matrix import Matrix, select, select_left_out
from builder.matrix.declare import declare
from builder.matrix.expand import expand
from builder.source import parse

TEXT = """\
version: 1
repository: imgbuild
axes:
  framework: [torch==2.13.0, jax==0.10.0]
  cuda: [cpu, "13.0"]
  python: ["3.11", "3.13"]
  extras: [[], [horovod, dask]]
bases:
  bookworm: {image: "debian:bookworm-slim", python: ["3.11"]}
  trixie: {image: "debian:trixie-slim", python: ["3.13"]}
frameworks:
  torch: {image: pytorch, template: t.j2, constraints: t.txt}
  jax: {image: jax, template: j.j2, constraints: j.txt}
extras:
  horovod: {packages: [horovod], named: true}
  dask: {packages: [dask]}
defaults: {base: bookworm}
exclude: [{match: {framework: "jax==*", extras: horovod}, reason: no JAX support}]
overrides: [{match: "*-py3.13*", set: {base: trixie}}]
tags: ["{version}-{cuda}-py{python}{extras}"]
"""
EXAMPLE = "for example `*-horovod` or `python=3.11`"


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return expand(declare(parse(TEXT, "m.yaml")), Path("m.yaml"))


def ids(matrix: Matrix, *patterns: str, only: tuple[str, ...] = (), skip: tuple[str, ...] = ()) -> list[str]:
    selection = select(matrix, patterns, only=only, skip=skip)
    assert selection.warnings == ()
    return [cell.id for cell in selection.cells]


def test_no_pattern_selects_everything_in_order(matrix: Matrix) -> None:
    assert len(matrix.cells) == 12
    assert select(matrix, []).cells == matrix.cells


def test_patterns_are_alternatives_and_keep_the_order_of_the_matrix(matrix: Matrix) -> None:
    assert ids(matrix, "jax-*-cpu-py3.11", "torch-2.13.0-cpu-py3.11") == [
        "torch-2.13.0-cpu-py3.11",
        "jax-0.10.0-cpu-py3.11",
    ]


def test_a_cell_that_two_patterns_match_comes_once(matrix: Matrix) -> None:
    assert len(ids(matrix, "torch-*", "torch-2.13.0-cpu-*")) == 8


@pytest.mark.parametrize("pattern", ["torch-2.13.0-cpu-py3.1[13]", "torch-2.13.0-cpu-py3.1?"])
def test_globs(matrix: Matrix, pattern: str) -> None:
    assert ids(matrix, pattern) == ["torch-2.13.0-cpu-py3.11", "torch-2.13.0-cpu-py3.13"]


def test_globs_match_the_whole_id_and_its_case(matrix: Matrix) -> None:
    assert select(matrix, ["torch"]).cells == ()
    assert select(matrix, ["TORCH-*"]).cells == ()
    assert select(matrix, ["torch-*"]).cells != ()


@pytest.mark.parametrize(
    ("term", "count"),
    [
        ("python=3.11", 6),
        ("extras=horovod", 4),
        ("extras=dask", 4),
        ("cuda=cpu", 6),
        ("cuda=13.*", 6),
        ("framework=torch", 8),
        ("framework=torch==2.13.0", 8),
        ("framework=jax==0.*", 4),
        ("base=trixie", 6),
        ("*-horovod", 4),
        ("torch-*", 8),
    ],
)
def test_only_and_skip_divide_the_matrix(matrix: Matrix, term: str, count: int) -> None:
    kept, left = ids(matrix, only=(term,)), ids(matrix, skip=(term,))
    assert len(kept) == count
    assert sorted(kept + left) == sorted(cell.id for cell in matrix.cells)


def test_globs_over_ids_are_alternatives_and_add_up_with_axes(matrix: Matrix) -> None:
    horovod = ["torch-2.13.0-cpu-py3.11-horovod", "torch-2.13.0-cuda13.0-py3.11-horovod"]
    assert ids(matrix, only=("*-horovod", "python=3.11")) == horovod
    assert len(ids(matrix, only=("*-horovod", "jax-*"))) == 8
    assert ids(matrix, "*-horovod", skip=("*-cuda13.0-*", "python=3.13")) == horovod[:1]


def test_excluded_cells_are_chosen_by_the_same_arguments(matrix: Matrix) -> None:
    def excluded(*patterns: str, only: tuple[str, ...] = (), skip: tuple[str, ...] = ()) -> int:
        return len(select_left_out(matrix, patterns, only=only, skip=skip).excluded)

    assert excluded() == len(matrix.excluded) == 4
    assert (excluded("jax-*"), excluded("torch-*")) == (4, 0)
    assert (excluded(only=("python=3.11",)), excluded(skip=("python=3.11",))) == (2, 2)
    assert (excluded(only=("framework=jax", "*-cpu-*")), excluded(only=("framework=torch",))) == (2, 0)
    assert (excluded(only=("extras=horovod",)), excluded(skip=("*-horovod",))) == (4, 0)
    with pytest.raises(ConfigError):
        excluded(only=("pyton=3.11",))


def test_terms_on_one_axis_are_alternatives_and_axes_add_up(matrix: Matrix) -> None:
    assert len(ids(matrix, only=("python=3.11", "python=3.13"))) == 12
    assert ids(matrix, only=("python=3.11", "extras=horovod", "cuda=cpu")) == ["torch-2.13.0-cpu-py3.11-horovod"]
    assert ids(matrix, "*-cpu-*", only=("framework=torch",), skip=("extras=horovod", "python=3.13")) == [
        "torch-2.13.0-cpu-py3.11"
    ]


@pytest.mark.parametrize(
    ("pattern", "warning"),
    [
        (
            "torch-2.13.0-cpu-py3.12",
            "`torch-2.13.0-cpu-py3.12` matches no cell; did you mean `torch-2.13.0-cpu-py3.13`?",
        ),
        (
            "jax-*-cpu-py3.11-horovod",
            "`jax-*-cpu-py3.11-horovod` matches only excluded cells: jax-0.10.0-cpu-py3.11-horovod "
            "is excluded at m.yaml:18:19: no JAX support",
        ),
    ],
)
def test_a_pattern_that_matches_nothing(matrix: Matrix, pattern: str, warning: str) -> None:
    selection = select(matrix, [pattern, "torch-2.13.0-cpu-py3.11"])
    assert selection.warnings == (warning,)
    assert [cell.id for cell in selection.cells] == ["torch-2.13.0-cpu-py3.11"]


def test_a_tag_in_place_of_a_cell(matrix: Matrix) -> None:
    def warning(text: str) -> str:
        (found,) = select(matrix, [text]).warnings
        return found

    assert warning("2.13.0-cuda13.0-py3.11") == (
        "`2.13.0-cuda13.0-py3.11` matches no cell; it is a tag of `torch-2.13.0-cuda13.0-py3.11`"
    )
    aliased = expand(declare(parse(f"{TEXT}aliases: {{newest: '*-cpu-py3.13-horovod'}}\n", "m.yaml")), Path("m.yaml"))
    assert select(aliased, ["newest"]).warnings == (
        "`newest` matches no cell; it is a tag of `torch-2.13.0-cpu-py3.13-horovod`",
    )


def test_cells_are_named_one_by_one_as_by_globs(matrix: Matrix) -> None:
    some = [cell.id for cell in matrix.cells][1::3]
    assert ids(matrix, *reversed(some)) == some
    assert ids(matrix, *some, "*-cuda*-horovod") == [
        cell.id for cell in matrix.cells if cell.id in some or ("cuda" in cell.id and "horovod" in cell.id)
    ]
    assert ids(matrix, skip=tuple(some)) == [cell.id for cell in matrix.cells if cell.id not in some]
    assert ids(matrix, only=tuple(some)) == some


def test_a_term_that_matches_nothing(matrix: Matrix) -> None:
    selection = select(matrix, [], only=["python=3.12"])
    assert selection.cells == ()
    assert selection.warnings == ("`python=3.12` matches no cell; did you mean `3.13`?",)
    selection = select(matrix, [], skip=["extras=horovd"])
    assert selection.cells == matrix.cells
    assert selection.warnings == ("`extras=horovd` matches no cell; did you mean `horovod`?",)
    selection = select(matrix, [], skip=["torch-2.13.0-cpu-py3.12"])
    assert selection.cells == matrix.cells
    assert selection.warnings == ("`torch-2.13.0-cpu-py3.12` matches no cell; did you mean `torch-2.13.0-cpu-py3.13`?",)


@pytest.mark.parametrize(
    ("term", "message", "hint"),
    [
        ("", "`` is neither a glob over cell ids nor of the form `axis=glob`", EXAMPLE),
        ("python=", "`python=` is neither a glob over cell ids nor of the form `axis=glob`", EXAMPLE),
        ("pyton=3.11", "`pyton` is not an axis", "did you mean `python`?"),
    ],
)
def test_terms_that_are_not_terms(matrix: Matrix, term: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as only:
        select(matrix, [], only=[term])
    assert (only.value.where, only.value.message, only.value.hint) == ("--only", message, hint)
    with pytest.raises(ConfigError) as skip:
        select(matrix, [], skip=[term])
    assert skip.value.where == "--skip"
