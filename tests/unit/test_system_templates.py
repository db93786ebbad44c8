"""The templates of JAX and MXNet, and TensorFlow's beyond Debian 12: what they install, and what they refuse."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from fake_locks import write_fake_locks

from builder.errors import RenderError
from builder.matrix import Cell, Extra, load_matrix
from builder.project import shipped_data
from builder.render import Recipe, Renderer


@pytest.fixture(scope="module")
def cells() -> dict[str, Cell]:
    return {cell.id: cell for cell in load_matrix(shipped_data() / "matrix.yaml").cells}


def an_extra(name: str, *packages: str, version: str | None = None, controller: str | None = None) -> Extra:
    return Extra(name=name, packages=packages or (name,), version=version, controller=controller, named=True)


HOROVOD = an_extra("horovod", version="0.28.1", controller="gloo")
JAX, MXNET, TRIXIE = "jax-0.10.2-cpu-py3.11", "mxnet-1.9.1-cpu-py3.11", "tensorflow-2.21.0-cpu-py3.13-trixie"


def shipped(tmp_path: Path, cell: Cell, *extras: Extra, cuda: str = "cpu", name: str = "") -> Recipe:
    framework = replace(cell.framework, name=name or cell.framework.name)
    wanted = replace(cell, extras=extras, cuda=cuda, framework=framework)
    write_fake_locks([wanted], tmp_path / "own", shipped_data() / "dockerfiles")
    return Renderer(tmp_path / "own", shipped_data() / "dockerfiles").render(wanted)


def test_jax_and_jaxlib_are_of_one_release(tmp_path: Path, cells: dict[str, Cell]) -> None:
    recipe = shipped(tmp_path, cells[JAX], an_extra("dask"))
    assert recipe.constraints["jax"] == recipe.constraints["jaxlib"] == "0.10.2"
    assert "dask" in recipe.constraints
    assert "cuda-toolkit" not in recipe.constraints


@pytest.mark.parametrize("cuda", ["12.9", "13.0"])
def test_jax_for_cuda_has_the_toolkit_of_exactly_that_version(
    tmp_path: Path, cells: dict[str, Cell], cuda: str
) -> None:
    recipe = shipped(tmp_path, cells[JAX], cuda=cuda)
    assert recipe.constraints["cuda-toolkit"] == cuda
    assert "NVIDIA_VISIBLE_DEVICES=all" in recipe.dockerfile


def test_mxnet_has_the_libraries_that_its_wheel_lacks(tmp_path: Path, cells: dict[str, Cell]) -> None:
    with_horovod = shipped(tmp_path, cells[MXNET], HOROVOD).dockerfile
    without = shipped(tmp_path, cells[MXNET]).dockerfile
    for dockerfile in (with_horovod, without):
        assert re.search(r"^ +libgomp1 \\\n +libquadmath0 \\$", dockerfile, re.MULTILINE)
    assert "HOROVOD_WITH_MXNET=1" in with_horovod
    assert "horovod" not in without


def test_a_base_without_passwd_gets_it(tmp_path: Path, cells: dict[str, Cell]) -> None:
    assert re.search(r"^ +passwd \\$", shipped(tmp_path, cells[TRIXIE]).dockerfile, re.MULTILINE)
    assert "passwd" not in shipped(tmp_path, cells["tensorflow-2.20.0-cpu-py3.9-bullseye"]).dockerfile


@pytest.mark.parametrize(
    ("cell", "extras", "fields", "message"),
    [
        (JAX, (), {"cuda": "11.8"}, "JAX has plugins for CUDA 12 and 13, not for 11.8"),
        (JAX, (), {"name": "flax"}, "this template installs jax, not flax"),
        (JAX, (HOROVOD,), {}, "Horovod has no binding for JAX"),
        (JAX, (an_extra("ring", "dask", "horovod"),), {}, "Horovod has no binding for JAX"),
        (MXNET, (), {"cuda": "11.2"}, "this template makes images for CPUs, not for CUDA 11.2"),
        (MXNET, (), {"name": "torch"}, "this template installs mxnet, not torch"),
        (MXNET, (replace(HOROVOD, controller="mpi"),), {}, "this template builds Horovod with Gloo, not with MPI"),
        (MXNET, (replace(HOROVOD, packages=("horovod", "dask")),), {}, "must bring the package horovod and no other"),
        (MXNET, (an_extra("ring", "dask", "horovod"),), {}, "move it from the extra ring to one named horovod"),
        (TRIXIE, (HOROVOD,), {}, "this template compiles Horovod for Python 3.11 and earlier"),
    ],
)
def test_what_a_template_cannot_do(
    tmp_path: Path, cells: dict[str, Cell], cell: str, extras: tuple[Extra, ...], fields: dict[str, str], message: str
) -> None:
    with pytest.raises(RenderError) as caught:
        shipped(tmp_path, cells[cell], *extras, **fields)
    assert message in caught.value.message
    assert f"{cells[cell].framework.template}:" in caught.value.where
