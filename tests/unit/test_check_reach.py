"""How far a check goes on an engine, and what it says when that is not far enough."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builder.check import Reach
from builder.check.reach import gpu_models
from builder.engine.connection import EngineInfo
from builder.matrix import Cell, Level, Policy, load_matrix
from builder.project import shipped_data

NO_GPU = "this engine can give containers no GPU"


@pytest.fixture(scope="module")
def cell() -> Cell:
    return load_matrix(shipped_data() / "matrix.yaml").cells[0]


@pytest.mark.parametrize(
    ("cuda", "verified", "gpu", "cap", "level", "why"),
    [
        ("cpu", Level.CPU, False, None, Level.CPU, ""),
        ("cpu", Level.CPU, True, None, Level.CPU, ""),
        ("cpu", Level.STATIC, True, None, Level.STATIC, ""),
        ("cpu", Level.CPU, True, Level.GPU, Level.CPU, ""),
        ("cpu", Level.CPU, False, Level.STATIC, Level.STATIC, "the check was limited to level static"),
        ("13.0", Level.GPU, True, None, Level.GPU, ""),
        ("13.0", Level.MULTI_GPU, True, None, Level.MULTI_GPU, ""),
        ("13.0", Level.GPU, False, None, Level.CPU, NO_GPU),
        ("13.0", Level.MULTI_NODE, False, None, Level.CPU, NO_GPU),
        ("13.0", Level.GPU, True, Level.CPU, Level.CPU, "the check was limited to level cpu"),
        ("13.0", Level.GPU, False, Level.CPU, Level.CPU, NO_GPU),
        ("13.0", Level.GPU, False, Level.STATIC, Level.STATIC, "the check was limited to level static"),
        ("13.0", Level.MULTI_GPU, True, Level.GPU, Level.GPU, "the check was limited to level gpu"),
    ],
)
def test_as_far_as_the_policy_asks_and_the_engine_can(
    cell: Cell, cuda: str, verified: Level, gpu: bool, cap: Level | None, level: Level, why: str
) -> None:
    wanted = replace(cell, cuda=cuda, policy=Policy(public=Level.STATIC, verified=verified))
    assert Reach(gpu=gpu, architecture="amd64", cap=cap).level(wanted) == (level, why)


def test_the_kind_of_device() -> None:
    reach = Reach(gpu=True, architecture="arm64", gpus=("NVIDIA GH200", "NVIDIA GH200"))
    assert [reach.device(level) for level in (Level.STATIC, Level.CPU)] == ["cpu/arm64"] * 2
    assert reach.device(Level.GPU) == "gpu/NVIDIA GH200 + NVIDIA GH200"
    assert Reach(gpu=True, architecture="arm64").device(Level.GPU) is None


INFO = EngineInfo(
    version="20.10.24",
    api_version="1.41",
    buildkit=True,
    storage_driver="overlay2",
    containerd_store=False,
    root_dir="/var/lib/docker",
    os="linux",
    architecture="amd64",
    cpus=2,
    memory_bytes=1 << 33,
    runtimes=("runc",),
    gpu=True,
    cdi_gpu=False,
    id="X",
    cgroup_version="2",
    local=True,
)


def test_the_models_are_those_of_the_engine_s_own_machine(tmp_path: Path) -> None:
    for number, model in enumerate(("NVIDIA H200", "NVIDIA A100-SXM4-80GB")):
        directory = tmp_path / f"0000:0{number}:00.0"
        directory.mkdir()
        (directory / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 18\nGPU UUID: \t GPU-0000\n")
    (tmp_path / "0000:09:00.0").mkdir()
    (tmp_path / "0000:09:00.0/information").write_text("IRQ: 5\n")
    assert gpu_models(tmp_path) == ("NVIDIA A100-SXM4-80GB", "NVIDIA H200")
    assert Reach.of(INFO, proc=tmp_path).gpus == ("NVIDIA A100-SXM4-80GB", "NVIDIA H200")
    # An engine elsewhere has other GPUs than this machine, and one without any has none.
    assert Reach.of(replace(INFO, local=False), proc=tmp_path).gpus == ()
    assert Reach.of(replace(INFO, gpu=False), proc=tmp_path).gpus == ()
    assert gpu_models(tmp_path / "nothing") == ()
