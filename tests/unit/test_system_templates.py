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
HOROVOD_MPI = replace(HOROVOD, name="horovod-mpi", controller="mpi")
TORCH, TENSORFLOW = "torch-2.13.0-cpu-py3.11", "tensorflow-2.21.0-cpu-py3.11"
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


@pytest.mark.parametrize("name", [TORCH, TENSORFLOW, MXNET])
def test_horovod_over_mpi_has_open_mpi_and_horovod_over_gloo_has_none(
    tmp_path: Path, cells: dict[str, Cell], name: str
) -> None:
    over_mpi = shipped(tmp_path / "mpi", cells[name], HOROVOD_MPI).dockerfile
    over_gloo = shipped(tmp_path / "gloo", cells[name], HOROVOD).dockerfile
    assert "HOROVOD_WITH_GLOO=1 HOROVOD_WITH_MPI=1 " in over_mpi
    assert "HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 " in over_gloo
    assert not re.search(r"openmpi|\bmpi\b", over_gloo)
    # What the ranks run with is in the image; what Horovod is compiled with is not.
    stages = stages_of(over_mpi)
    assert [name for name in ("horovod", "horovod-build", "mpi") if stages[name].startswith("mpi\n")] == [
        "horovod",
        "horovod-build",
    ]
    assert stages["mpi"].startswith("framework\n")
    assert "        openmpi-bin \\\n" in stages["mpi"]
    assert "chmod ug-s /usr/bin/ssh-agent /usr/lib/openssh/ssh-keysign" in stages["mpi"]
    assert [name for name, text in stages.items() if "libopenmpi-dev" in text] == ["horovod-build"]
    # Everything below is one layer with the cells over Gloo.
    assert over_mpi.partition("\n# Open MPI")[0] == over_gloo.partition("\n# Horovod publishes")[0]


def test_the_extra_that_brings_horovod_may_have_any_name(tmp_path: Path, cells: dict[str, Cell]) -> None:
    named = shipped(tmp_path / "ring", cells[TORCH], replace(HOROVOD, name="ring"), an_extra("dask"))
    usual = shipped(tmp_path / "usual", cells[TORCH], HOROVOD, an_extra("dask"))
    assert named.dockerfile == usual.dockerfile
    assert named.constraints == usual.constraints


def stages_of(dockerfile: str) -> dict[str, str]:
    """What each stage is made from, and its lines, by its name."""
    found = {}
    for text in re.split(r"^FROM ", dockerfile, flags=re.MULTILINE)[1:]:
        first, _, rest = text.partition("\n")
        below, _, name = first.partition(" AS ")
        found[name] = f"{below}\n{rest}"
    return found


def test_a_base_without_passwd_gets_it(tmp_path: Path, cells: dict[str, Cell]) -> None:
    assert re.search(r"^ +passwd \\$", shipped(tmp_path, cells[TRIXIE]).dockerfile, re.MULTILINE)
    torch = replace(cells["torch-2.13.0-cpu-py3.11"], base=cells[TRIXIE].base, python="3.13")
    assert re.search(r"^ +passwd \\$", shipped(tmp_path, torch).dockerfile, re.MULTILINE)
    assert "passwd" not in shipped(tmp_path, cells["tensorflow-2.20.0-cpu-py3.9-bullseye"]).dockerfile


def test_ubuntus_own_user_makes_room(tmp_path: Path, cells: dict[str, Cell]) -> None:
    cell = cells["torch-2.13.0-cpu-py3.11"]
    ubuntu = replace(cell, base=replace(cell.base, image="ubuntu:24.04"))
    text = shipped(tmp_path, ubuntu).dockerfile
    assert 0 < text.index("userdel --remove ubuntu") < text.index("useradd --no-log-init --uid 1000")
    assert "userdel" not in shipped(tmp_path, cell).dockerfile


@pytest.mark.parametrize(
    ("cell", "extras", "fields", "message"),
    [
        (JAX, (), {"cuda": "11.8"}, "JAX has plugins for CUDA 12 and 13, not for 11.8"),
        (JAX, (), {"name": "flax"}, "this template installs jax, not flax"),
        (JAX, (HOROVOD,), {}, "Horovod has no binding for JAX"),
        (JAX, (an_extra("ring", "dask", "horovod"),), {}, "Horovod has no binding for JAX"),
        (MXNET, (), {"cuda": "11.2"}, "this template makes images for CPUs, not for CUDA 11.2"),
        (MXNET, (), {"name": "torch"}, "this template installs mxnet, not torch"),
        (MXNET, (replace(HOROVOD, packages=("horovod", "dask")),), {}, "must bring the package horovod and no other"),
        (MXNET, (replace(HOROVOD, packages=("dask",)),), {}, "the extra horovod must bring the package horovod"),
        (
            MXNET,
            (an_extra("ring", "dask", "horovod"),),
            {},
            "the extra ring must bring the package horovod and no",
        ),
        (MXNET, (HOROVOD, HOROVOD_MPI), {}, "one image has room for one Horovod"),
        (TENSORFLOW, (HOROVOD, HOROVOD_MPI), {}, "one image has room for one Horovod"),
        (TORCH, (HOROVOD_MPI, HOROVOD), {}, "one image has room for one Horovod"),
        (JAX, (HOROVOD_MPI,), {}, "Horovod has no binding for JAX"),
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
