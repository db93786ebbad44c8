"""The rendered Dockerfiles of the default matrix, line by line, and what hadolint says of them.

The locks are made up, so that the golden files change with the templates and not with every upgrade.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from fake_locks import write_fake_locks

from builder.matrix import load_matrix
from builder.project import shipped_data
from builder.render import render_all

GOLDEN = Path(__file__).parent.parent / "golden"


@functools.cache
def rendered() -> dict[str, str]:
    data = shipped_data()
    matrix = load_matrix(data / "matrix.yaml")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_fake_locks(matrix.cells, directory, data / "dockerfiles")
        recipes = render_all(matrix.cells, directory, data / "dockerfiles")
    return {recipe.name: recipe.dockerfile for recipe in recipes}


def test_rendered_dockerfiles_are_the_golden_ones(request: pytest.FixtureRequest) -> None:
    files = rendered()
    if request.config.getoption("--update-golden"):
        GOLDEN.mkdir(exist_ok=True)
        for old in GOLDEN.glob("*.Dockerfile"):
            old.unlink()
        for name, text in files.items():
            (GOLDEN / name).write_text(text)
    assert {path.name: path.read_text() for path in GOLDEN.glob("*.Dockerfile")} == files, "see: make golden"


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("hadolint")
    return subprocess.run([program, "--no-color", path], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", sorted(rendered()))
def test_hadolint_passes(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(rendered()[name])
    result = hadolint(path)
    assert (result.returncode, result.stdout) == (0, "")


def test_hadolint_would_say_something(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text("FROM debian\nRUN cd /tmp && sudo true\n")
    result = hadolint(path)
    assert result.returncode == 1
    assert "DL3004" in result.stdout


@pytest.mark.parametrize("name", sorted(rendered()))
def test_every_exception_for_hadolint_is_explained(name: str) -> None:
    text = rendered()[name]
    codes = {
        code.strip()
        for line in text.splitlines()
        if line.startswith("# hadolint ignore=")
        for code in line.split("=", 1)[1].split(",")
    }
    comments = " ".join(line for line in text.splitlines() if line.startswith("#") and "ignore=" not in line)
    assert codes, "the default templates have some exceptions"
    assert {code for code in codes if f"({code})" not in comments} == set()
