"""`imgbuild lock` over a project of its own, with the real uv and an index in a directory: no network is needed."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
from package_index import make_index, make_sdist, make_wheel, sha256

from builder.cli import cli
from builder.cli.lock_report import Entry, fail
from builder.errors import ConfigError, Differs, NotLocked
from builder.exits import exit_code_of
from builder.project import shipped_data
from builder.resolve.uv import find_uv

ENVIRONMENT = "torch-2.13.0-cpu-py3.11-own"
LOCK = f"dockerfiles/locks/{ENVIRONMENT}.python.json"
MATRIX = """\
version: 1
repository: demo
axes:
  framework: [torch==2.13.0]
  cuda: [cpu]
  python: ["3.11"]
  extras: {extras}
bases:
  own:
    image: debian:bookworm-slim
    python: ["3.11"]
frameworks:
  torch: {{image: demo, template: demo.Dockerfile.j2, channels: {{cpu: pytorch-cpu}}}}
channels:
  pytorch-cpu: https://download.pytorch.org/whl/cpu
extras:
  dask: {{packages: [dask], named: true}}
  tensorboard: {{packages: [tensorboard], named: true}}
defaults: {{base: own}}
tags: ["{{version}}-{{cuda}}-py{{python}}{{extras}}"]
"""
TEMPLATE = """\
{%- set framework = ["numpy", "torch==2.13.0+cpu"] -%}
FROM {{ cell.base.image }}
# {{ python(framework) }}
{%- for extra in cell.extras %}
# {{ python(extra.packages, after=framework) }}
{%- endfor %}
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    made = [
        make_wheel(folder, "numpy", "2.4.6"),
        make_wheel(folder, "numpy", "2.4.6", tag="cp311-cp311-manylinux_2_28_x86_64"),
        make_wheel(folder, "numpy", "2.4.6", tag="cp312-cp312-manylinux_2_28_x86_64"),
        make_wheel(folder, "numpy", "2.5.0"),
        make_wheel(folder, "torch", "2.13.0+cpu", requires=["numpy>=2", "sympy"]),
        make_wheel(folder, "sympy", "1.14.0", requires=["mpmath<2"]),
        make_wheel(folder, "mpmath", "1.3.0"),
        make_wheel(folder, "mpmath", "2.0"),
        make_wheel(folder, "dask", "2026.8.0", requires=["numpy", "toolz", "pathlib2; python_version < '3.9'"]),
        make_wheel(folder, "tensorboard", "2.21.0", requires=["numpy<2.5"]),
        make_sdist(folder, "toolz", "1.2.0"),
    ]
    return {path.name: path for path in made}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "dockerfiles").mkdir(parents=True)
    (root / "dockerfiles" / "demo.Dockerfile.j2").write_text(TEMPLATE)
    extras(root, "[[], [dask]]")
    return root


def extras(project: Path, value: str) -> None:
    (project / "matrix.yaml").write_text(MATRIX.format(extras=value))


@pytest.fixture
def full(tmp_path: Path, wheels: dict[str, Path]) -> Path:
    return make_index(tmp_path / "full", list(wheels.values()))


@pytest.fixture
def older(tmp_path: Path, wheels: dict[str, Path]) -> Path:
    return make_index(tmp_path / "older", [path for name, path in wheels.items() if "numpy-2.5" not in name])


@dataclass(frozen=True)
class Ran:
    """What one run of the command came to."""

    returncode: int
    stdout: str
    stderr: str


def imgbuild(project: Path, *arguments: str, index: Path | str = "", **variables: str) -> Ran:
    """Runs the command in this process, in the project's folder and with an environment of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "IMGBUILD_"))}
    url = index.as_uri() if isinstance(index, Path) else index
    environment = {
        **kept,
        "HOME": str(project.parent),
        "PIP_CONFIG_FILE": os.devnull,
        "IMGBUILD_STATE_DIR": str(project.parent / "state"),
        "UV_CACHE_DIR": str(project.parent / "cache"),
        "IMGBUILD_CHANNEL_PYTORCH_CPU": "",
        **({"IMGBUILD_INDEX_URL": url} if url else {"PIP_NO_INDEX": "1"}),
        **variables,
    }
    before, out, err = Path.cwd(), io.StringIO(), io.StringIO()
    with patch.dict(os.environ, environment, clear=True), redirect_stdout(out), redirect_stderr(err):
        os.chdir(project)
        try:
            code = exit_code_of(lambda: cli.main(["lock", *arguments], standalone_mode=False))
        finally:
            os.chdir(before)
    return Ran(code, out.getvalue(), err.getvalue())


def versions(project: Path) -> dict[str, str]:
    packages = json.loads((project / LOCK).read_text())["packages"]
    return {name: package["version"] for name, package in packages.items()}


def test_lock_writes_what_is_asked_for_and_then_finds_nothing_to_change(project: Path, full: Path) -> None:
    ran = imgbuild(project, "--part", "python", index=full)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"{LOCK}: written" in ran.stdout
    assert "in torch-2.13.0-cpu-py3.11, torch-2.13.0-cpu-py3.11-dask" in ran.stdout
    assert versions(project) == {
        "dask": "2026.8.0",
        "mpmath": "1.3.0",
        "numpy": "2.5.0",
        "sympy": "1.14.0",
        "toolz": "1.2.0",
        "torch": "2.13.0+cpu",
    }
    before = (project / LOCK).read_bytes()
    again = imgbuild(project, "--part", "python", index=full)
    assert (again.returncode, again.stdout) == (0, "nothing changed\n")
    assert (project / LOCK).read_bytes() == before
    assert str(full.parent) not in before.decode(), "nothing of this machine is in a lock"


def test_a_lock_that_ships_is_taken_as_it_is_or_not_at_all(project: Path, full: Path) -> None:
    matrix = project / "matrix.yaml"
    matrix.write_text(matrix.read_text().replace("own", "bookworm"))
    shipped = f"dockerfiles/locks/{ENVIRONMENT.replace('own', 'bookworm')}.python.json"
    assert (shipped_data() / shipped).is_file()
    ran = imgbuild(project, "--part", "python", index=full)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads((project / shipped).read_text())["packages"]["numpy"]["version"] == "2.5.0"
    other = project.parent / "other"
    other.mkdir()
    (other / "matrix.yaml").write_bytes((shipped_data() / "matrix.yaml").read_bytes())
    assert imgbuild(other, "--part", "python", "--check").returncode == 0
    assert imgbuild(other, "--part", "python").stdout == "nothing changed\n"
    assert not (other / "dockerfiles").exists()


def test_two_indexes_with_other_bytes_under_one_name_are_not_chosen_between(project: Path, full: Path) -> None:
    same = make_index(project.parent / "same", [full.parent / "files/mpmath-1.3.0-py3-none-any.whl"])
    forged = make_wheel(project.parent / "forged", "mpmath", "1.3.0", requires=["toolz"])
    other = make_index(project.parent / "other", [forged])
    refused = imgbuild(project, "--part", "python", index=full, PIP_EXTRA_INDEX_URL=other.as_uri())
    assert refused.returncode == 19
    assert "two indexes have different files named mpmath-1.3.0-py3-none-any.whl: one has SHA-256" in refused.stderr
    assert sha256(forged) in refused.stderr
    assert not (project / LOCK).exists()
    assert imgbuild(project, "--part", "python", index=full, PIP_EXTRA_INDEX_URL=same.as_uri()).returncode == 0
    # What is locked already says which of the two is meant.
    held = imgbuild(project, "--part", "python", index=full, PIP_EXTRA_INDEX_URL=other.as_uri())
    assert (held.returncode, held.stdout) == (0, "nothing changed\n")


def test_check_needs_no_index_and_no_uv(project: Path, full: Path) -> None:
    missing = imgbuild(project, "--part", "python", "--check")
    assert missing.returncode == 19
    assert f"{LOCK}: missing: there is no lock file" in missing.stdout
    assert not (project / LOCK).exists()
    assert imgbuild(project, "--part", "python", index=full).returncode == 0
    held = imgbuild(project, "--part", "python", "--check", index="https://nowhere.invalid/simple", PATH="")
    assert (held.returncode, held.stderr) == (0, "")
    assert imgbuild(project, "--check").returncode == 19, "the base is not locked"


def test_what_is_added_is_told_by_check_and_locked_without_moving_the_rest(
    project: Path, full: Path, older: Path
) -> None:
    assert imgbuild(project, "--part", "python", index=older).returncode == 0
    assert versions(project)["numpy"] == "2.4.6"
    extras(project, "[[], [dask], [tensorboard]]")
    lacking = imgbuild(project, "--part", "python", "--check")
    assert lacking.returncode == 19
    assert "cell torch-2.13.0-cpu-py3.11-tensorboard asks for tensorboard after numpy" in lacking.stdout
    assert "imgbuild lock" in lacking.stderr
    grown = imgbuild(project, "--part", "python", index=full)
    assert "    tensorboard 2.21.0 is new\n    in torch-2.13.0-cpu-py3.11-tensorboard\n" in grown.stdout
    assert "numpy" not in grown.stdout
    assert (versions(project)["numpy"], versions(project)["tensorboard"]) == ("2.4.6", "2.21.0")
    assert imgbuild(project, "--part", "python", "--check").returncode == 0


def test_what_is_dropped_is_told_by_check_and_goes(project: Path, full: Path) -> None:
    assert imgbuild(project, "--part", "python", index=full).returncode == 0
    extras(project, "[[]]")
    (project / f"dockerfiles/locks/{ENVIRONMENT}-old.python.json").write_text("{}")
    differing = imgbuild(project, "--part", "python", "--check")
    assert differing.returncode == 13
    assert "nothing asks for dask after numpy, torch==2.13.0+cpu" in differing.stdout
    assert f"{ENVIRONMENT}-old.python.json: belongs to no cell" in differing.stdout
    selected = imgbuild(project, "--part", "python", "torch-*", "--check")
    assert "-old" not in selected.stdout, "some of the cells say nothing of the others' files"
    dropped = imgbuild(project, "--part", "python")
    assert dropped.returncode == 0, "what goes needs no index"
    assert "    dask 2026.8.0 is gone\n    toolz 1.2.0 is gone\n    in no cell\n" in dropped.stdout
    assert sorted(path.name for path in (project / "dockerfiles/locks").iterdir()) == [f"{ENVIRONMENT}.python.json"]
    assert imgbuild(project, "--part", "python", "--check").returncode == 0


def test_an_upgrade_shows_what_moves_and_in_which_cells(project: Path, full: Path, older: Path) -> None:
    assert imgbuild(project, "--part", "python", index=older).returncode == 0
    before = (project / LOCK).read_bytes()
    dry = imgbuild(project, "--part", "python", "--upgrade", "--dry-run", index=full)
    assert "would be changed" in dry.stdout
    assert "    numpy 2.4.6 -> 2.5.0\n    in torch-2.13.0-cpu-py3.11, torch-2.13.0-cpu-py3.11-dask" in dry.stdout
    assert (project / LOCK).read_bytes() == before
    other = imgbuild(project, "--part", "python", "--upgrade", "dask", "--upgrade", "toolz", index=full)
    assert other.stdout == "nothing changed\n"
    moved = imgbuild(project, "--part", "python", "--upgrade", "NumPy", "--format", "json", index=full)
    (entry,) = json.loads(moved.stdout)["locks"]
    assert entry["changes"] == [{"package": "numpy", "before": "2.4.6", "after": "2.5.0", "cells": entry["cells"]}]
    assert entry["cells"] == ["torch-2.13.0-cpu-py3.11", "torch-2.13.0-cpu-py3.11-dask"]
    wrong = imgbuild(project, "--part", "python", "--upgrade", "numpi", index=full)
    assert (wrong.returncode, "did you mean `numpy`" in wrong.stderr) == (5, True), wrong.stderr


def test_a_partial_mirror_without_hashes_gives_the_same_lock(
    project: Path, full: Path, tmp_path: Path, wheels: dict[str, Path]
) -> None:
    assert imgbuild(project, "--part", "python", index=full).returncode == 0
    before = (project / LOCK).read_bytes()
    locked = {package["file"]: package["sha256"] for package in json.loads(before)["packages"].values()}
    assert locked == {name: sha256(wheels[name]) for name in locked}
    (project / LOCK).unlink()
    partial = make_index(tmp_path / "partial", [wheels[name] for name in locked], hashes=False)
    assert imgbuild(project, "--part", "python", index=partial).returncode == 0
    assert (project / LOCK).read_bytes() == before


def test_every_index_is_looked_at_for_the_best_file(
    project: Path, older: Path, tmp_path: Path, wheels: dict[str, Path]
) -> None:
    assert imgbuild(project, "--part", "python", index=older).returncode == 0
    before = (project / LOCK).read_bytes()
    assert b"numpy-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl" in before
    (project / LOCK).unlink()
    # An index that has the release, and not its best file, must not hide the file that another has.
    lesser = make_index(tmp_path / "lesser", [wheels["numpy-2.4.6-py3-none-any.whl"]])
    ran = imgbuild(project, "--part", "python", index=lesser, IMGBUILD_EXTRA_INDEX_URLS=older.as_uri())
    assert ran.returncode == 0, ran.stderr
    assert (project / LOCK).read_bytes() == before
    (project / LOCK).unlink()
    ran = imgbuild(project, "--part", "python", index=older, IMGBUILD_EXTRA_INDEX_URLS=lesser.as_uri())
    assert (project / LOCK).read_bytes() == before


def test_wheels_in_a_directory_are_enough(project: Path, full: Path, wheels: dict[str, Path]) -> None:
    assert imgbuild(project, "--part", "python", index=full).returncode == 0
    before = (project / LOCK).read_bytes()
    (project / LOCK).unlink()
    folder = str(next(iter(wheels.values())).parent)
    ran = imgbuild(project, "--part", "python", IMGBUILD_FIND_LINKS=folder)
    assert ran.returncode == 0, ran.stderr
    assert (project / LOCK).read_bytes() == before


def test_nothing_is_written_where_something_is_in_the_way(project: Path, full: Path) -> None:
    (project / "dockerfiles/locks").write_text("")
    ran = imgbuild(project, "--part", "python", index=full)
    assert (ran.returncode, "is not a directory" in ran.stderr) == (5, True), ran.stderr


def test_what_cannot_be_satisfied_is_explained_and_nothing_is_written(project: Path, full: Path) -> None:
    template = project / "dockerfiles/demo.Dockerfile.j2"
    template.write_text(TEMPLATE.replace('"numpy", ', '"numpy>=2.5", '))
    extras(project, "[[], [tensorboard]]")
    ran = imgbuild(project, "--part", "python", index=full)
    assert ran.returncode == 3
    assert f"error: {ENVIRONMENT}: No solution found" in ran.stderr
    assert "tensorboard is asked for by torch-2.13.0-cpu-py3.11-tensorboard" in ran.stderr
    assert "numpy>=2.5 is asked for by torch-2.13.0-cpu-py3.11, torch-2.13.0-cpu-py3.11-tensorboard" in ran.stderr
    assert not (project / "dockerfiles/locks").exists()
    template.write_text(TEMPLATE.replace('"numpy", ', '"numppy", '))
    unknown = imgbuild(project, "--part", "python", index=full)
    assert (unknown.returncode, "numppy" in unknown.stderr) == (3, True)


def test_a_lock_file_that_was_damaged_is_told_with_its_place(project: Path, full: Path) -> None:
    assert imgbuild(project, "--part", "python", index=full).returncode == 0
    text = (project / LOCK).read_text()
    (project / LOCK).write_text(text.replace('"sha256": "', '"sha256": "x', 1))
    for arguments in (["--check"], []):
        ran = imgbuild(project, "--part", "python", *arguments, index=full)
        assert ran.returncode == 5
        assert f"{LOCK}: packages." in ran.stderr
    (project / LOCK).write_text(json.dumps(json.loads(text)))
    reformatted = imgbuild(project, "--part", "python", "--check")
    assert (reformatted.returncode, "not written as imgbuild writes it" in reformatted.stdout) == (13, True)
    assert imgbuild(project, "--part", "python").returncode == 0
    assert (project / LOCK).read_text() == text


def test_constraints_bind_and_are_part_of_the_lock(project: Path, full: Path) -> None:
    matrix = project / "matrix.yaml"
    matrix.write_text(matrix.read_text().replace("demo.Dockerfile.j2, ", "demo.Dockerfile.j2, constraints: own.txt, "))
    (project / "dockerfiles/own.txt").write_text("numpy==2.4.6\n")
    assert imgbuild(project, "--part", "python", index=full).returncode == 0
    assert versions(project)["numpy"] == "2.4.6"
    assert imgbuild(project, "--part", "python", "--check").returncode == 0
    (project / "dockerfiles/own.txt").write_text("numpy==2.5.0\n")
    changed = imgbuild(project, "--part", "python", "--check")
    assert (changed.returncode, "have changed since" in changed.stdout) == (19, True)
    assert "numpy 2.4.6 -> 2.5.0" in imgbuild(project, "--part", "python", index=full).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--check", "--upgrade"], 2, "--check resolves nothing"),
        (["--check", "--dry-run"], 2, "--check resolves nothing"),
        (["no-such-*"], 2, "no cell is selected"),
        (["--upgrade", "torch"], 5, "is not among the locked packages"),
    ],
)
def test_a_wrong_command_line_is_told_before_anything_is_done(
    project: Path, arguments: list[str], code: int, said: str
) -> None:
    ran = imgbuild(project, *arguments)
    assert (ran.returncode, said in ran.stderr) == (code, True), ran.stderr


def test_check_as_json_names_what_is_missing(project: Path, full: Path) -> None:
    ran = imgbuild(project, "--check", "--format", "json")
    assert ran.returncode == 19
    assert [(lock["kind"], lock["status"]) for lock in json.loads(ran.stdout)["locks"]] == [
        ("environment", "missing"),
        ("base", "missing"),
    ]


def test_what_is_missing_weighs_more_than_what_is_left_over(tmp_path: Path) -> None:
    entry = Entry(kind="base", name="b", path=tmp_path / "b.base.json", cells=["c"])
    fail([entry], [])
    entry.leftover = ["x"]
    with pytest.raises(Differs):
        fail([entry], [])
    entry.missing = ["y"]
    with pytest.raises(NotLocked):
        fail([entry], [])
    with pytest.raises(Differs):
        fail([], [tmp_path / "old.base.json"])


def test_without_uv_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Path(find_uv()).is_file()
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="needs uv") as caught:
        find_uv()
    assert "pip install 'imgbuild[lock]'" in caught.value.hint
