"""The checks of torch, of its own distribution and of Horovod on the real image, and on children broken in one way."""

from __future__ import annotations

import importlib.resources
import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

import docker
import pytest

from builder.check.suite import modules_in, pack
from builder.engine.connection import Engine
from builder.engine.containers import RunRequest
from builder.engine.containers import run as run_container

pytestmark = pytest.mark.engine

SITE = "/opt/venv/lib/python3.11/site-packages"
VOLUME = "/imgbuild-check"
PROGRAM = ("python3", "-I", "-S", f"{VOLUME}/suite.pyz", "--request", f"{VOLUME}/request.json")
DEADLINE = 600.0

Child = Callable[[str, str], str]
Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def child(good_image: str) -> Iterator[Child]:
    """Makes an image whose file, below the site-packages, has a text at its end; returns its id."""
    client = docker.from_env(timeout=600)
    made: list[str] = []
    configuration = client.images.get(good_image).attrs["Config"]

    def make(path: str, text: str) -> str:
        command = ["/bin/sh", "-c", 'printf "%s" "$2" >> "$1"', "sh", f"{SITE}/{path}", text]
        container = client.containers.create(
            good_image, entrypoint=command, command=[], user="0:0", network_mode="none"
        )
        try:
            container.start()
            assert container.wait()["StatusCode"] == 0, container.logs().decode()
            made.append(str(container.commit(conf=configuration).id))
        finally:
            container.remove(force=True)
        return made[-1]

    yield make
    for image_id in made:
        client.images.remove(image_id, noprune=True)
    client.close()


def run(
    engine: Engine,
    image: str,
    group: str,
    *files: str,
    level: str = "cpu",
    shm_bytes: int = 1 << 30,
    environment: dict[str, str] | None = None,
    command: tuple[str, ...] = (*PROGRAM, "--results", f"{VOLUME}/results"),
    output: str = "result.json",
) -> Rows:
    """Runs one group of the real suite, or some of its files, as a check would; returns its rows by name."""
    sources = {}
    for name, data in modules_in(importlib.resources.files("builder") / "checks").items():
        path = PurePosixPath(name)
        below = path.parts[0] == "groups" and len(path.parts) == 3
        wanted = not files or path.stem in files or path.stem.startswith("_")
        if not below or (path.parts[1] == group and wanted):
            sources[name] = data
    # A nonce of its own: what a controller leaves behind is found, and ended, by it.
    nonce = secrets.token_hex(16)
    request = {"schema": "imgbuild.check-request/1", "nonce": nonce, "level": level, "uid": 12345, "gid": 12345}
    done = run_container(
        engine,
        RunRequest(
            image=image,
            command=command,
            user="12345:12345",
            hostname="localhost",
            tmpfs={"/tmp": "rw,exec,mode=1777,size=1g"},
            environment=environment or {},
            shm_bytes=shm_bytes,
            files={"suite.pyz": pack(sources).archive, "request.json": json.dumps(request).encode()},
            output=(output,),
            deadline=DEADLINE,
        ),
    )
    assert output in done.outputs, done.log_tail
    return {row["name"]: row for row in json.loads(done.outputs[output])["checks"]}


def failures(rows: Rows) -> dict[str, str]:
    return {name: row["reason"] for name, row in rows.items() if row["status"] == "failed"}


# The positive twins


def test_torch_passes_with_its_curves(engine: Engine, good_image: str) -> None:
    rows = run(engine, good_image, "torch")
    assert failures(rows) == {}
    passed = {name for name, row in rows.items() if row["status"] == "passed"}
    assert {"torch.train.amp", "torch.finetune", "torch.nan", "torch.numerics", "torch.data"} <= passed
    assert rows["torch.compile"]["reason"].startswith("no C compiler")
    for name, curves in {
        "torch.train.amp": {"loss", "step_seconds"},
        "torch.train.scaler": {"loss", "step_seconds", "loss_scale"},
        "torch.train.regression": {"loss", "step_seconds"},
    }.items():
        series = rows[name]["series"]
        assert series.keys() == curves
        assert len({len(values) for values in series.values()}) == 1
    assert rows["torch.data"]["measured"]["batch_bytes"] > 64 << 20


def test_two_ranks_pass_under_both(engine: Engine, good_image: str) -> None:
    for group, prefix in (("torch_ddp", "torch.ddp"), ("horovod", "horovod")):
        rows = run(engine, good_image, group)
        assert failures(rows) == {}
        weights = rows[f"{prefix}.weights"]["measured"]
        assert weights["optimizers"] == ["adam", "adamw", "adamw-accumulated", "sgd-momentum"]
        assert weights["steps"] == 16
        assert "127.0.0.1" in rows[f"{prefix}.ranks"]["measured"]["transport"]
        assert len(rows[f"{prefix}.allreduce"]["series"]["allreduce_seconds"]) == 20


def test_what_needs_more_than_there_is_says_so(engine: Engine, good_image: str) -> None:
    rows = run(engine, good_image, "torch_ddp", "nccl", "nodes", level="multi-node")
    assert {name: row["status"] for name, row in rows.items()} == {
        "torch.ddp.nccl": "not_run",
        "torch.ddp.nodes": "not_run",
    }
    assert "no GPU was given" in rows["torch.ddp.nccl"]["reason"]
    assert rows["torch.ddp.nodes"]["reason"].startswith("no other node was named: MASTER_ADDR")
    gpu = run(engine, good_image, "torch", "gpu_device", "gpu_numerics", level="gpu")
    assert {row["reason"] for row in gpu.values()} == {"no GPU can be used: torch is built without CUDA"}


def test_two_nodes_that_the_environment_names(engine: Engine, good_image: str) -> None:
    """Two suites in one container stand for two nodes: they share nothing but the address of rank 0."""
    one = f"mkdir /tmp/$RANK && {' '.join(PROGRAM)} --results /tmp/$RANK"
    script = f"(export RANK=1; {one}) & (export RANK=0; {one}); wait; cp /tmp/0/result.json {VOLUME}/results/0.json"
    rows = run(
        engine,
        good_image,
        "torch_ddp",
        "nodes",
        level="multi-node",
        environment={"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517", "WORLD_SIZE": "2"},
        command=("sh", "-c", script),
        output="0.json",
    )
    assert rows["torch.ddp.nodes"]["status"] == "passed", rows
    assert rows["torch.ddp.nodes"]["measured"]["nodes"] == 2


# How the container is run


def test_too_little_shared_memory_names_the_option(engine: Engine, good_image: str) -> None:
    rows = run(engine, good_image, "torch", "data", shm_bytes=64 << 20)
    reason = failures(rows)["torch.data"]
    assert "/dev/shm has 64 MiB: docker run --shm-size=1g" in reason


def test_a_shadowed_library(engine: Engine, good_image: str, child: Child) -> None:
    # A file of torch's own name in another place, which the loader is told to prefer.
    image = child("torch/version.py", "\n")
    client = docker.from_env(timeout=600)
    try:
        copied = client.containers.create(
            image,
            entrypoint=["/bin/sh", "-c", f"mkdir /opt/shadow && cp {SITE}/torch/lib/libgomp.so.1 /opt/shadow/"],
            command=[],
            user="0:0",
            network_mode="none",
        )
        try:
            copied.start()
            assert copied.wait()["StatusCode"] == 0, copied.logs().decode()
            shadowed = str(copied.commit(conf=client.images.get(image).attrs["Config"]).id)
        finally:
            copied.remove(force=True)
        try:
            rows = run(engine, shadowed, "torch", "numerics", "version", environment={"LD_LIBRARY_PATH": "/opt/shadow"})
            healthy = run(engine, shadowed, "torch", "numerics", "version")
        finally:
            client.images.remove(shadowed, noprune=True)
    finally:
        client.close()
    reason = failures(rows)
    assert reason.keys() == {"torch.numerics"}
    assert reason["torch.numerics"].startswith("libgomp.so.1 is shadowed: /opt/shadow/libgomp.so.1 is loaded")
    assert failures(healthy) == {}


# Broken in one way that the corpus (tests/corpus) does not have

NUMPY_DOES_NOT_FIT = """
def from_numpy(array):
    raise RuntimeError('Numpy is not available')
"""

REDUCES_NOTHING_AFTER_TWO_STEPS = """
_forward = DistributedDataParallel.forward
def _forward_twice(self, *inputs, **named):
    self._seen = getattr(self, '_seen', 0) + 1
    return (_forward if self._seen <= 2 else type(self).alone)(self, *inputs, **named)
DistributedDataParallel.forward = _forward_twice
DistributedDataParallel.alone = lambda self, *inputs, **named: self.module(*inputs, **named)
"""

SUMS_BFLOAT16_WRONG = """
_all_reduce = all_reduce
def all_reduce(tensor, *rest, **named):
    found = _all_reduce(tensor, *rest, **named)
    if tensor.dtype == torch.bfloat16:
        tensor.add_(1)
    return found
"""


@pytest.mark.parametrize(
    ("path", "text", "group", "files", "reasons"),
    [
        (
            "torch/__init__.py",
            NUMPY_DOES_NOT_FIT,
            "torch",
            ("data", "version"),
            {"torch.data": "RuntimeError: Numpy is not available"},
        ),
        (
            "torch/nn/parallel/distributed.py",
            REDUCES_NOTHING_AFTER_TWO_STEPS,
            "torch_ddp",
            (),
            {"torch.ddp.weights": "sgd-momentum: after step 3 the weights differ across ranks"},
        ),
        (
            "torch/distributed/distributed_c10d.py",
            SUMS_BFLOAT16_WRONG,
            "torch_ddp",
            (),
            {"torch.ddp.allreduce": "allreduce of bfloat16 sum gave rank 0 other numbers"},
        ),
    ],
    ids=[
        "numpy-does-not-fit",
        "ddp-stops-reducing",
        "ddp-bfloat16-wrong",
    ],
)
def test_a_defect_fails_its_checks_alone(
    engine: Engine,
    child: Child,
    path: str,
    text: str,
    group: str,
    files: tuple[str, ...],
    reasons: dict[str, str],
) -> None:
    rows = run(engine, child(path, text), group, *files)
    found = failures(rows)
    assert found.keys() == reasons.keys()
    assert {name: found[name][: len(start)] for name, start in reasons.items()} == reasons
    assert "passed" in {row["status"] for row in rows.values()}
