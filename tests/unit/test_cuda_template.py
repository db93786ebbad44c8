"""The shipped template for PyTorch in cells for CUDA, on NVIDIA's own bases, and with the companions of PyTorch."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fake_locks import VERSION, write_fake_locks

from builder.errors import RenderError
from builder.matrix import Cell, Extra, load_matrix
from builder.project import shipped_data
from builder.render import Recipe, Renderer, render_all

MATRIX = """\
version: 1
repository: imgbuild
axes:
  framework: [torch==2.14.1]
  cuda: ["13.0"]
  python: ["3.11"]
  extras: [[horovod, torchvision, dask], [dask]]
bases:
  cuda-slim:
    image: debian:bookworm-slim
    bootstrap: {distribution: debian, suite: bookworm}
    python: ["3.11"]
frameworks:
  torch: {image: pytorch, template: pytorch.Dockerfile.j2, channels: {cpu: pytorch-cpu}}
channels:
  pytorch-cpu: https://download.pytorch.org/whl/cpu
extras:
  horovod: {packages: [horovod], version: "0.28.1", controller: gloo, named: true}
  torchvision: {packages: [torchvision], version: "0.29.1"}
  dask: {packages: [dask]}
defaults: {base: cuda-slim}
include:
  - {framework: torch==2.13.0, cuda: cpu, python: "3.11", extras: [horovod]}
  - {framework: torch==2.14.1, cuda: cpu, python: "3.11", extras: [horovod]}
tags: ["{version}-{cuda}-py{python}-{base}{extras}"]
"""

WITH_HOROVOD = "torch-2.14.1-cuda13.0-py3.11-horovod"
WITHOUT = "torch-2.14.1-cuda13.0-py3.11"
OLDER_CPU = "torch-2.13.0-cpu-py3.11-horovod"
NEWER_CPU = "torch-2.14.1-cpu-py3.11-horovod"
ONLINE = Path(__file__).parents[2] / "docs/examples/online"
"""What cannot be built where only a package index and the distribution's archive are reached."""

COMPANIONS_CPU = "torch-2.11.0-cpu-py3.11"
RUNTIME = "torch-2.14.1-cuda13.0-py3.10-cuda-runtime"
DEVEL = "torch-2.14.1-cuda13.0-py3.10-cuda-devel-horovod"

DEBIAN_PATH = "PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cell]:
    """By id; that the facts let them all through is part of what is tested here."""
    path = tmp_path_factory.mktemp("cuda-matrix") / "matrix.yaml"
    path.write_text(MATRIX)
    every = (*load_matrix(path).cells, *load_matrix(ONLINE / "matrix.yaml").cells)
    assert len({cell.id for cell in every}) == len(every)
    return {cell.id: cell for cell in every}


@pytest.fixture(scope="module")
def recipes(cells: dict[str, Cell], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recipe]:
    directory = tmp_path_factory.mktemp("cuda-locks")
    shipped = shipped_data() / "dockerfiles"
    write_fake_locks(cells.values(), directory, shipped)
    return {recipe.cell.id: recipe for recipe in render_all(cells.values(), directory, shipped)}


def render(cell: Cell, directory: Path) -> Recipe:
    shipped = shipped_data() / "dockerfiles"
    write_fake_locks([cell], directory, shipped)
    return Renderer(directory, shipped).render(cell)


def stages(recipe: Recipe) -> dict[str, tuple[str, str]]:
    """By name: the stage or image below it, and its text."""
    found = re.split(r"^FROM (\S+) AS (\S+)\n", recipe.dockerfile, flags=re.MULTILINE)[1:]
    return {name: (below, text) for below, name, text in zip(found[::3], found[1::3], found[2::3], strict=True)}


def in_image(recipe: Recipe) -> list[str]:
    """The stages that the image's layers come from, outermost first."""
    below = {name: parent for name, (parent, _) in stages(recipe).items()}
    chain = ["image"]
    while below[chain[-1]] in below:
        chain.append(below[chain[-1]])
    return chain


def installed(recipe: Recipe, stage: str) -> str:
    """The lists of packages that a stage mounts, as one text."""
    text = stages(recipe)[stage][1]
    return "".join(file.data.decode() for file in recipe.files if f"source={file.path}," in text)


def test_cudas_libraries_are_a_layer_of_their_own_below_the_framework(recipes: dict[str, Recipe]) -> None:
    recipe = recipes[WITH_HOROVOD]
    assert in_image(recipe) == ["image", "extras", "horovod", "framework", "cuda", "system"]
    assert "cuda-toolkit==13.0 " in installed(recipe, "cuda")
    assert "nvidia-nccl-cu13==" in installed(recipe, "cuda")
    assert "nvidia" not in installed(recipe, "framework")
    assert "torch==2.14.1 " in installed(recipe, "framework")
    assert "torch==" not in installed(recipe, "cuda")
    assert in_image(recipes[OLDER_CPU]) == ["image", "horovod", "framework", "system"]


def test_cells_with_and_without_horovod_share_cuda_and_the_framework(recipes: dict[str, Recipe]) -> None:
    one, other = stages(recipes[WITH_HOROVOD]), stages(recipes[WITHOUT])
    assert "horovod-build" in one
    assert "horovod-build" not in other
    assert [one[name] for name in ("system", "cuda")] == [other[name] for name in ("system", "cuda")]
    assert one["framework"][1].split("\n\n")[0] == other["framework"][1].split("\n\n")[0]


def test_the_framework_must_be_built_for_the_cuda_of_the_cell(recipes: dict[str, Recipe]) -> None:
    assert 'assert torch.version.cuda == "13.0"' in stages(recipes[WITHOUT])["framework"][1]
    assert "torch.version.cuda" not in recipes[OLDER_CPU].dockerfile


def test_a_channel_of_pytorchs_names_the_cuda_in_the_version(cells: dict[str, Cell], tmp_path: Path) -> None:
    cell = cells[WITHOUT]
    channel = cells[OLDER_CPU].framework.channel
    recipe = render(replace(cell, framework=replace(cell.framework, channel=channel)), tmp_path)
    assert recipe.constraints["torch"] == "2.14.1+cu130"
    assert recipe.constraints["dask"] == VERSION


def test_the_cuda_compiler_stays_out_of_the_image(recipes: dict[str, Recipe]) -> None:
    recipe = recipes[WITH_HOROVOD]
    compiler = "cuda-toolkit[cccl,nvcc]==13.0.*"
    asked = [name for name, (_, text) in stages(recipe).items() if "CUDA_HOME=" in text]
    assert asked == ["horovod-build"]
    assert "horovod-build" not in in_image(recipe)
    build = stages(recipe)["horovod-build"][1]
    assert "HOROVOD_GPU_OPERATIONS=NCCL" in build
    assert "HOROVOD_NCCL_LINK=SHARED" in build
    assert "_cuda_getArchFlags" in build
    requests = Renderer(shipped_data() / "dockerfiles").collect(recipe.cell).python
    with_compiler = [request for request in requests if compiler in request.requirements]
    assert len(with_compiler) == 1
    assert all(compiler not in request.after for request in requests)


@pytest.mark.parametrize(
    ("cell", "patched", "nccl"),
    [(WITH_HOROVOD, True, True), (DEVEL, True, True), (NEWER_CPU, True, False), (OLDER_CPU, False, False)],
)
def test_which_horovod_is_patched_and_which_has_nccl(
    recipes: dict[str, Recipe], cell: str, patched: bool, nccl: bool
) -> None:
    recipe = recipes[cell]
    files = {file.path for file in recipe.files}
    assert ("files/horovod-torch.patch" in files) is patched
    assert ("files/c++17" in files) is not patched
    assert ("patch --directory /tmp/horovod --strip 1 --fuzz 0" in recipe.dockerfile) is patched
    assert ("HOROVOD_GPU_OPERATIONS=NCCL" in recipe.dockerfile) is nccl


def test_nccl_reduces_what_mpi_starts(cells: dict[str, Cell], tmp_path: Path) -> None:
    over_mpi = Extra(name="horovod-mpi", packages=("horovod",), version="0.28.1", controller="mpi", named=True)
    recipe = render(replace(cells[WITH_HOROVOD], extras=(over_mpi,)), tmp_path)
    assert in_image(recipe) == ["image", "horovod", "mpi", "framework", "cuda", "system"]
    build = stages(recipe)["horovod-build"][1]
    assert "HOROVOD_GPU_OPERATIONS=NCCL" in build
    assert "HOROVOD_WITH_GLOO=1 HOROVOD_WITH_MPI=1 " in build


def test_the_patch_is_for_one_release_of_horovod(cells: dict[str, Cell], tmp_path: Path) -> None:
    def with_version(id: str, version: str | None) -> Cell:
        horovod = Extra(name="horovod", packages=("horovod",), version=version, controller="gloo", named=True)
        return replace(cells[id], extras=(horovod,))

    for version in ("0.28.0", None):
        with pytest.raises(RenderError, match=r"patches Horovod 0\.28\.1 and no other"):
            render(with_version(WITH_HOROVOD, version), tmp_path)
    assert "horovod" in render(with_version(WITH_HOROVOD, "0.28.1"), tmp_path).constraints
    assert "horovod" in render(with_version(OLDER_CPU, None), tmp_path).constraints


def test_companions_without_cuda_come_from_pytorchs_channel_alone(cells: dict[str, Cell], tmp_path: Path) -> None:
    cell = cells[COMPANIONS_CPU]
    recipe = render(cell, tmp_path)
    assert recipe.constraints["torchvision"] == "0.26.0+cpu"
    assert recipe.constraints["torchaudio"] == "2.11.0+cpu"
    channel = "IMGBUILD_CHANNEL_PYTORCH_CPU-https://download.pytorch.org/whl/cpu"
    assert channel in stages(recipe)["extras"][1]
    any_version = Extra(name="vision", packages=("torchvision",), version=None, controller=None, named=True)
    with pytest.raises(RenderError, match="say the `version` of the extra vision: torchvision without CUDA is only in"):
        render(replace(cell, extras=(any_version,)), tmp_path)
    board = replace(any_version, packages=("tensorboard",))
    assert channel not in stages(render(replace(cell, extras=(board,)), tmp_path))["extras"][1]
    with_cuda = render(replace(cells[WITHOUT], extras=(any_version,)), tmp_path)
    assert with_cuda.constraints["torchvision"] == VERSION
    assert render(cells[WITH_HOROVOD], tmp_path).constraints["torchvision"] == "0.29.1"


@pytest.mark.parametrize("cell", [RUNTIME, DEVEL])
def test_on_nvidias_bases_the_framework_runs_with_its_own_cuda(recipes: dict[str, Recipe], cell: str) -> None:
    recipe = recipes[cell]
    assert recipe.dockerfile.count("PATH=/opt/venv/bin:/usr/local/nvidia/bin:/usr/local/cuda/bin:/usr/local/sbin:") == 1
    assert recipe.dockerfile.count("LD_LIBRARY_PATH=/usr/local/nvidia/lib:/usr/local/nvidia/lib64\n") == 1
    slim = recipes[WITHOUT].dockerfile
    assert slim.count(DEBIAN_PATH) == 1
    assert "LD_LIBRARY_PATH" not in slim


@pytest.mark.parametrize("cell", [WITH_HOROVOD, WITHOUT, NEWER_CPU, COMPANIONS_CPU, RUNTIME, DEVEL])
def test_hadolint_passes_also_what_is_not_built_here(recipes: dict[str, Recipe], cell: str, tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text(recipes[cell].dockerfile)
    program = Path(sys.executable).with_name("hadolint")
    ran = subprocess.run([program, "--no-color", path], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_the_example_says_of_each_cell_what_it_needs() -> None:
    readme = (ONLINE / "README.md").read_text()
    online = [cell.id for cell in load_matrix(ONLINE / "matrix.yaml").cells]
    assert online == [COMPANIONS_CPU, RUNTIME, DEVEL]
    assert [id for id in online if f"| `{id}`" not in readme] == []
