"""What the shipped templates promise of every image, as far as the Dockerfiles of the default matrix show it."""

from __future__ import annotations

import re

import pytest

from builder.errors import NotLocked
from builder.matrix import Cell, load_matrix
from builder.project import shipped_data
from builder.render import Recipe, Renderer

DATA = shipped_data()
CELLS = {cell.id: cell for cell in load_matrix(DATA / "matrix.yaml").cells}
NVIDIA = {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}


def recipe(cell: Cell) -> Recipe:
    return Renderer(DATA / "dockerfiles").render(cell)


def variables(text: str) -> dict[str, str]:
    """The variables of the last stage."""
    last = text.rpartition("\nFROM ")[2].replace("\\\n", " ")
    found = re.findall(r"^ENV (.*)$", last, re.MULTILINE)
    return dict(word.split("=", 1) for line in found for word in line.split())


@pytest.mark.parametrize("name", sorted(CELLS))
def test_gpus_are_asked_for_by_cuda_images_and_no_others(name: str) -> None:
    cell = CELLS[name]
    try:
        found = variables(recipe(cell).dockerfile)
    except NotLocked:
        pytest.fail(f"{name} is a cell of the default matrix and is not locked")
    asked = {key: value for key, value in found.items() if key.startswith("NVIDIA_")}
    assert asked == ({} if cell.cuda == "cpu" else NVIDIA)
    assert not [key for key in found if key.startswith(("OMP_", "NCCL_", "TF_", "NVIDIA_REQUIRE"))]
    assert found["PIP_CONSTRAINT"] == found["UV_CONSTRAINT"] == "/opt/imgbuild/constraints.txt"


@pytest.mark.parametrize("name", sorted(CELLS))
def test_the_venv_sees_the_users_packages_and_nothing_is_a_volume(name: str) -> None:
    text = recipe(CELLS[name]).dockerfile
    assert re.search(r"^ +&& python3 -m venv --without-pip --system-site-packages /opt/venv \\$", text, re.MULTILINE)
    assert not re.search(r"python3 -m venv (?!.*--system-site-packages).*/opt/venv", text)
    last = text.rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9][0-9]*:[1-9][0-9]*$", last, re.MULTILINE)
    assert not re.search(r"^(VOLUME|ONBUILD)", text, re.MULTILINE)
    # A server of Jupyter's is what there is to be asked; a training is healthy as long as it runs.
    assert bool(re.search(r"^HEALTHCHECK", last, re.MULTILINE)) == ("jupyter" in name)
