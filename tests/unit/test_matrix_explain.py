"""`imgbuild matrix --explain` and the commands' answers, by the tables that ship.

What is asked for here will not change: CUDA 12.7 never was, and PyTorch 99 and Python 3.99 are far away.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from builder.cli import cli
from builder.cli.listing import Listing, json_lines, text_lines
from builder.compat.model import Combination
from builder.errors import Impossible, NotKnown
from builder.exits import exit_code_of
from builder.matrix import load_matrix, select_left_out
from builder.matrix.judge import tables

TEXT = """\
version: 1
repository: imgbuild
axes:
  framework: [torch==2.13.0, torch==99.0.0]
  cuda: [cpu, "12.7"]
  python: ["3.11"]
bases:
  bookworm: {image: "debian:bookworm-slim", python: ["3.11"]}
frameworks:
  torch: {image: pytorch, template: t.j2, channels: {cpu: cpu, "12.7": cu127}}
channels:
  cpu: https://download.pytorch.org/whl/cpu
  cu127: https://download.pytorch.org/whl/cu127
defaults: {base: bookworm}
exclude:
  - {match: "torch-99*-cuda*", reason: not today}
tags: ["{version}-{cuda}-py{python}"]
"""
PLAIN = TEXT.replace(", torch==99.0.0]", "]").replace(
    'exclude:\n  - {match: "torch-99*-cuda*", reason: not today}\n', ""
)
KEPT = "torch-2.13.0-cpu-py3.11"
NEVER = "torch-2.13.0-cuda12.7-py3.11"
FAR = "torch-99.0.0-cpu-py3.11"
EXCLUDED = "torch-99.0.0-cuda12.7-py3.11"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "matrix.yaml"
    file.write_text(TEXT)
    return file


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_every_combination_is_listed_with_what_became_of_it(path: Path) -> None:
    ran = run("matrix", "-f", path, "--explain")
    assert ran.exit_code == 0, ran.output
    lines = ran.stdout.splitlines()
    assert f"{KEPT}  kept  public=cpu  verified=cpu  base=bookworm" in lines
    assert f"{EXCLUDED}  excluded: not today ({path}:16:13)" in lines
    never = next(index for index, line in enumerate(lines) if line.startswith(f"{NEVER}  impossible: CUDA 12.7"))
    sources = lines[lines.index("sources:") + 1 : lines.index("1 cells, 1 excluded, 1 impossible, 1 unknown")]
    number = re.search(r" \[toolkit, source (\d+)\]$", lines[never])
    assert number is not None
    assert [line.split()[0] for line in sources] == [str(place) for place in range(1, len(sources) + 1)]
    assert "cuda-toolkit-release-notes" in sources[int(number[1]) - 1]
    assert not any("cuda-toolkit-release-notes" in line for line in lines[: lines.index("sources:")])
    nearest = next(line for line in lines[never:] if line.startswith("    nearest: "))
    assert "torch 2.13.0, CUDA " in nearest
    assert any(
        line.startswith(f"{FAR}  unknown: torch 99.0.0 is newer") and "[release, source " in line for line in lines
    )
    assert "1 cells, 1 excluded, 1 impossible, 1 unknown" in lines
    assert any(line.split() == ["1", "impossible", "toolkit"] for line in lines)
    assert any(line.split() == ["1", "unknown", "release"] for line in lines)


def test_without_explain_the_impossible_is_counted_and_said_to_be_there(path: Path) -> None:
    ran = run("matrix", "-f", path)
    assert ran.stdout.splitlines()[-1] == "1 cells, 1 excluded, 1 impossible, 1 unknown"
    assert NEVER not in ran.stdout
    assert "note: combinations left out: 1 impossible, 1 unknown; `imgbuild matrix --explain` says why" in ran.stderr
    assert f"warning: {path}:5:15: CUDA 12.7 was never released" in ran.stderr
    assert "note:" not in run("matrix", "-f", path, "--explain").stderr
    path.write_text(TEXT.replace(', "12.7"]', "]").replace(", torch==99.0.0]", "]").replace("99*-cuda", "2*-cpu"))
    quiet = run("matrix", "-f", path)
    assert quiet.stdout.splitlines()[-1] == "0 cells, 1 excluded"
    assert "note:" not in quiet.stderr


def test_json_has_the_same(path: Path) -> None:
    document = json.loads(run("matrix", "-f", path, "--explain", "--format", "json").stdout)
    assert document["schema"] == "imgbuild.matrix/1"
    assert [cell["cell"] for cell in document["cells"]] == [KEPT]
    (never,) = document["impossible"]
    assert (never["cell"], never["axes"]["cuda"], never["at"]) == (NEVER, "12.7", f"{path}:4:15")
    assert never["reasons"][0]["rule"] == "toolkit"
    assert all(reason["message"] and reason["source"] for reason in never["reasons"])
    assert never["nearest"][0]["package"] == "torch"
    assert never["nearest"][0]["command"].startswith("imgbuild explain torch==2.13.0")
    (far,) = document["unknown"]
    assert (far["cell"], far["reasons"][0]["rule"]) == (FAR, "release")
    (excluded,) = document["excluded"]
    assert (excluded["cell"], excluded["reason"]) == (EXCLUDED, "not today")
    counts = document["counts"]
    assert {kind: counts[kind] for kind in ("kept", "excluded", "impossible", "unknown")} == {
        "kept": 1,
        "excluded": 1,
        "impossible": 1,
        "unknown": 1,
    }
    assert counts["by_rule"]["impossible"]["toolkit"] == 1
    assert [warning.split(": ")[1].split()[0] for warning in document["warnings"]] == ["torch", "CUDA"]
    brief = json.loads(run("matrix", "-f", path, "--format", "json").stdout)
    assert "counts" not in brief
    assert "nearest" not in brief["impossible"][0]
    assert [{**cell, "nearest": never["nearest"]} for cell in brief["impossible"]] == [never]


def test_the_keys_of_the_json_are_those_that_are_documented(path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/matrix.md").read_text(encoding="utf-8")

    def documented(key: str) -> set[str]:
        (row,) = re.findall(rf"^\| `{key}` \| (`cell`.*|with .*) \|$", text, re.MULTILINE)
        return set(re.findall(r"`(\w+)`", row))

    path.write_text(TEXT.replace("debian:bookworm-slim", "ubuntu:20.04"))
    document = json.loads(run("matrix", "-f", path, "--explain", "--format", "json").stdout)
    assert set(document) == set(re.findall(r"^\| `(\w+)` \|", text[text.index("| `schema` |") :], re.MULTILINE)[:7])
    for key in ("cells", "excluded", "impossible"):
        assert {name for item in document[key] for name in item} == documented(key)
    assert set(document["unknown"][0]) == documented("impossible")
    assert set(document["counts"]) == documented("counts")
    assert "`axes` holds `framework` (such as `torch==2.13.0`), `cuda`, `python`, `base`" in text
    assert set(document["excluded"][0]["axes"]) == {"framework", "cuda", "python", "base", "extras"}
    assert set(document["cells"][0]["warnings"][0]) == {"rule", "message", "source"}


def test_counts_by_rule_are_of_combinations_and_not_of_reasons(path: Path) -> None:
    path.write_text(
        TEXT.replace('["3.11"]\nbases', '["3.11", "3.99"]\nbases').replace(', "12.7"]', ', "12.7", "12.6"]')
    )
    matrix = load_matrix(path)
    listing = Listing(cells=matrix.cells, left_out=select_left_out(matrix, []), warnings=(), explain=False)
    assert listing.count == 12
    expected = Counter(rule for cell in matrix.impossible for rule in {reason.rule for reason in cell.reasons})
    assert listing.by_rule()["impossible"] == dict(expected)
    assert expected["python-release"] > 1
    assert list(listing.by_rule()["impossible"].values()) == sorted(expected.values(), reverse=True)


def test_an_empty_listing_is_json_too(path: Path) -> None:
    matrix = load_matrix(path)
    empty = Listing(cells=(), left_out=select_left_out(matrix, ["nothing"]), warnings=("w",), explain=False)
    assert json.loads("\n".join(json_lines(empty))) == {
        "schema": "imgbuild.matrix/1",
        "cells": [],
        "excluded": [],
        "impossible": [],
        "unknown": [],
        "warnings": ["w"],
    }
    assert list(text_lines(empty)) == ["0 cells, 0 excluded"]


def test_a_cell_carries_its_warnings(path: Path) -> None:
    """Ubuntu 20.04 has had no regular support since 2025, and its C library is new enough for today's wheels."""
    for image, rules in (("ubuntu:20.04", {"end-of-life"}), ("example/unheard-of:1", set[str]())):
        path.write_text(TEXT.replace("debian:bookworm-slim", image))
        (cell,) = load_matrix(path).cells
        assert {reason.rule for reason in cell.cautions} == rules
        (document,) = json.loads(run("matrix", "-f", path, "--format", "json").stdout)["cells"]
        assert {warning["rule"] for warning in document.get("warnings", [])} == rules
        explained = run("matrix", "-f", path, "--explain").stdout
        assert ("    warning: the regular support of ubuntu 20.04 ended" in explained) is bool(rules)


@pytest.mark.parametrize(
    ("command", "exit_code", "texts"),
    [
        (("render", NEVER), 3, [f"the cell {NEVER} is impossible: CUDA 12.7", "rule toolkit, from ", "nearest that"]),
        (("build", "--dry-run", "*-cuda*"), 3, [f"the cell {NEVER} is impossible"]),
        (("render", "--only", "framework=torch==99*"), 4, [f"the cell {FAR} is not known to work", "--assume-new"]),
        (("render", "no-such-cell"), 2, ["no cell is selected"]),
        (("render", EXCLUDED), 2, ["no cell is selected"]),
    ],
)
def test_asking_for_what_cannot_be(
    path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], exit_code: int, texts: list[str]
) -> None:
    arguments = [command[0], "-f", str(path), *command[1:]]
    assert exit_code_of(lambda: cli.main(arguments, standalone_mode=False)) == exit_code
    shown = capsys.readouterr().err
    for text in texts:
        assert text in shown


def test_the_whole_matrix_may_be_impossible(path: Path) -> None:
    path.write_text(TEXT.replace('cuda: [cpu, "12.7"]', 'cuda: ["12.7"]'))
    assert run("matrix", "-f", path).exit_code == 0
    ran = run("render", "-f", path)
    assert isinstance(ran.exception, Impossible)


def test_assume_new_makes_cells_of_what_is_unknown(path: Path) -> None:
    ran = run("matrix", "-f", path, "--assume-new", "--format", "json")
    document = json.loads(ran.stdout)
    assert [cell["cell"] for cell in document["cells"]] == [KEPT, FAR]
    assert document["cells"][1]["warnings"][0]["rule"] == "release"
    assert document["unknown"] == []
    assert [cell["cell"] for cell in document["impossible"]] == [NEVER]
    without = json.loads(run("matrix", "-f", path, "--format", "json").stdout)
    assert [cell["cell"] for cell in without["cells"]] == [KEPT]


@pytest.mark.parametrize("value", ["12.7", "12.10"])
def test_a_cuda_that_never_was(path: Path, value: str) -> None:
    path.write_text(PLAIN.replace('[cpu, "12.7"]', f'[cpu, "{value}"]'))
    matrix = load_matrix(path)
    (warning,) = matrix.warnings
    assert warning.startswith(f"{path}:5:15: CUDA {value} was never released; the nearest are 12.")
    assert [cell.axes.cuda for cell in matrix.impossible] == [value]
    path.write_text(PLAIN.replace("12.7", "12.6").replace("cu127", "cu126"))
    assert load_matrix(path).warnings == ()


def test_a_python_that_is_not_released(path: Path) -> None:
    text = PLAIN.replace(', "12.7"]', "]").replace('["3.11"]\nbases', '["3.11", "3.99"]\nbases')
    path.write_text(text)
    matrix = load_matrix(path)
    (warning,) = matrix.warnings
    assert warning.startswith(f"{path}:6:20: Python 3.99 was not released")
    assert {cell.axes.python for cell in matrix.impossible} == {"3.99"}
    path.write_text(text.replace(', "3.99"', ""))
    assert load_matrix(path).warnings == ()


def test_a_release_that_never_was(path: Path) -> None:
    path.write_text(PLAIN.replace(', "12.7"]', "]").replace("==2.13.0]", "==2.13.0, torch==2.12.77]"))
    matrix = load_matrix(path)
    (warning,) = matrix.warnings
    assert warning.startswith(f"{path}:4:30: torch 2.12.77 ")
    assert [cell.axes.framework for cell in matrix.impossible] == ["torch==2.12.77"]


def test_a_framework_without_facts_is_said_once_and_how_to_mend_it(path: Path) -> None:
    text = PLAIN.replace("[torch==2.13.0]", "[pytorch==2.13.0, pytorch==2.12.0]").replace(', "12.7"]', "]")
    text = text.replace("  torch: {image", "  pytorch: {image")
    path.write_text(text)
    unknown, empty = load_matrix(path).warnings
    assert unknown.startswith(f"{path}:4:15: the tables do not know pytorch")
    mend = "set `facts` of this framework to the project that it is, or to `none`"
    assert unknown.endswith(f"; {mend}")
    assert empty == f"{path}:4:3: the matrix has no cells"
    assert load_matrix(path, assume_new=True).warnings == ()
    ran = run("build", "-f", path, "--dry-run")
    assert isinstance(ran.exception, NotKnown)
    assert mend in ran.exception.hint
    for facts in ("torch", "none"):
        path.write_text(text.replace("template: t.j2", f"template: t.j2, facts: {facts}"))
        assert (len(load_matrix(path).cells), load_matrix(path).warnings) == (2, ())


def test_without_facts_about_the_framework_its_surroundings_are_judged(path: Path) -> None:
    own = TEXT.replace("[torch==2.13.0, torch==99.0.0]", "[mine==1.0]").replace("torch-99*-cuda*", "mine-never*")
    own = own.replace(
        "  torch: {image: pytorch, template: t.j2, ", "  mine: {image: mine, template: t.j2, facts: none, "
    )
    own = own.replace('"3.11"]\nbases', '"3.11", "3.99"]\nbases')
    path.write_text(own)
    found = load_matrix(path)
    assert [cell.id for cell in found.cells] == ["mine-1.0-cpu-py3.11"]
    assert {cell.id: cell.reasons[0].rule for cell in found.impossible} == {
        "mine-1.0-cpu-py3.99": "python-release",
        "mine-1.0-cuda12.7-py3.11": "toolkit",
        "mine-1.0-cuda12.7-py3.99": "toolkit",
    }
    path.write_text(own.replace("debian:bookworm-slim", "nvidia/cuda:12.7.0-devel-ubuntu22.04"))
    found = load_matrix(path)
    assert found.cells == ()
    assert {cell.id: cell.reasons[0].rule for cell in found.impossible}["mine-1.0-cpu-py3.11"] == "base-tag"
    path.write_text(own.replace("facts: none, ", ""))
    assert {cell.reasons[0].rule for cell in load_matrix(path).unknown} == {"project"}


def test_the_tables_are_asked_once_for_each_combination() -> None:
    judge = tables()
    assert judge.system("bookworm") == judge.system("debian 12") == "debian 12"
    assert judge.system("wormbook") is None
    asked = Combination(package="torch", version="2.13.0", cuda="12.7", python="3.11", channel="pytorch")
    assert judge.examine(asked) is judge.examine(dataclasses.replace(asked))
    assert judge.nearest(asked) is judge.nearest(dataclasses.replace(asked))
    assert judge.nearest(asked)
    assert judge.nearest(Combination(package="cuda", python="3.99")) == ()
    assert tables() is judge
