"""Broken children of a good image: each must fail its check, and the message must name the cause."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import docker
import pytest

from builder.check import (
    CheckResult,
    CheckRun,
    Expectation,
    Status,
    VerdictStatus,
    check_image,
    judge,
    required_checks,
    suite,
)
from builder.engine.connection import Engine
from builder.matrix import Level

pytestmark = pytest.mark.engine

#: Seconds; a good image takes about 25 on two idle cores.
DEADLINE = 400.0

#: Sets SITE to where the image's packages are, and PYTHON to its interpreter.
WHERE = (
    "PYTHON=$(command -v python3)"
    " && SITE=$(python3 -c 'import torch, pathlib; print(pathlib.Path(torch.__file__).parent.parent)')"
)

Build = Callable[[str], str]


@pytest.fixture(scope="module")
def child(good_image: str) -> Iterator[Build]:
    """Makes an image of what shell commands, run as root, leave of the good one; returns its id.

    A committed container, not a build: that adds one layer, keeps the image's configuration and leaves no images of
    single steps behind.
    """
    client = docker.from_env(timeout=600)
    made: list[str] = []
    configuration = client.images.get(good_image).attrs["Config"]

    def make(script: str) -> str:
        words = " && ".join([WHERE, *(line.strip() for line in script.strip().splitlines())])
        container = client.containers.create(
            good_image, entrypoint=["/bin/sh", "-c"], command=[words], user="0:0", network_mode="none"
        )
        try:
            container.start()
            assert container.wait()["StatusCode"] == 0, container.logs().decode()
            image = container.commit(conf=configuration)
        finally:
            container.remove(force=True)
        made.append(str(image.id))
        return str(image.id)

    yield make
    for image_id in made:
        client.images.remove(image_id, force=True, noprune=True)
    client.close()


@pytest.fixture(scope="module")
def good(engine: Engine, good_image: str) -> CheckRun:
    return check_image(engine, good_image, None, deadline=DEADLINE)


def result_of(run: CheckRun) -> CheckResult:
    assert run.result is not None, (run.verdict.reasons, run.log_tail)
    return run.result


@pytest.fixture(scope="module")
def expectation(good: CheckRun) -> Expectation:
    """What the good image's cell promises: exactly what is in it."""
    facts = result_of(good).facts
    return Expectation(
        packages=facts.packages,
        promised=frozenset({"torch", "horovod"}),
        python=".".join(facts.python.split(".")[:2]),
        cuda="cpu",
        level=Level.CPU,
        required=required_checks(facts.packages),
    )


def write(path: str, text: str, *, append: bool = False) -> str:
    """A shell command that writes a file; `text` may have no single quotes."""
    escaped = text.replace("\\", "\\\\").replace("%", "%%").replace("\n", "\\n")
    return f"printf '{escaped}' {'>>' if append else '>'} {path}"


def statuses(run: CheckRun) -> dict[str, Status]:
    return {check.name: check.status for check in result_of(run).checks}


# The positive twin


def test_the_good_image_passes(good: CheckRun, expectation: Expectation) -> None:
    assert good.verdict.status is VerdictStatus.PASSED, (good.verdict.reasons, good.log_tail)
    verdict = judge(expectation, result_of(good))
    assert verdict.status is VerdictStatus.PASSED, verdict.reasons
    assert good.suite_sha256 == suite().sha256
    found = statuses(good)
    for name in ("torch.train.amp", "torch.checkpoint", "horovod.weights", "horovod.gradients", "static.user"):
        assert found[name] is Status.PASSED
    assert found["torch.gpu.train.amp"] is Status.NOT_RUN
    assert good.seconds < DEADLINE


def test_the_good_image_is_incomplete_for_a_gpu_cell(
    engine: Engine, good_image: str, good: CheckRun, expectation: Expectation
) -> None:
    cell = Expectation(
        packages=expectation.packages,
        promised=expectation.promised,
        level=Level.GPU,
        required=frozenset({"torch.gpu.*"}),
    )
    verdict = judge(cell, result_of(good))
    assert verdict.status is VerdictStatus.INCOMPLETE
    assert any(reason.startswith("torch.gpu.train.amp: did not run") for reason in verdict.reasons)


# What must not pass

ALLREDUCE_RETURNS_ITS_INPUT = """

_really_allreduce_async = _allreduce_async

def _allreduce_async(tensor, output, *rest):
    output.copy_(tensor.detach())
    scratch = tensor.detach().clone()
    handle = _really_allreduce_async(scratch, scratch, *rest)
    _handle_map[handle] = (tensor, output)
    return handle
"""

OPTIMIZER_REDUCES_NOTHING = """

import contextlib as _contextlib

def DistributedOptimizer(optimizer, *rest, **named):
    optimizer.synchronize = lambda: None
    optimizer.skip_synchronize = _contextlib.nullcontext
    return optimizer
"""

AUTOCAST_IS_OFF = """

_init = autocast.__init__

def _init_disabled(self, device_type, dtype=None, enabled=True, cache_enabled=None):
    _init(self, device_type, dtype=dtype, enabled=False, cache_enabled=cache_enabled)

autocast.__init__ = _init_disabled
"""

AUTOCAST_CRASHES = """

import os as _os, signal as _signal

def _crash(self, *rest, **named):
    _os.kill(_os.getpid(), _signal.SIGSEGV)

autocast.__init__ = _crash
"""

SHUTDOWN_CRASHES = """

import os as _os, signal as _signal

def shutdown():
    _os.kill(_os.getpid(), _signal.SIGSEGV)
"""

SCALER_DOES_NOT_UNSCALE = """

_unscale = GradScaler._unscale_grads_

def _unscale_by_one(self, optimizer, inv_scale, found_inf, allow_fp16):
    return _unscale(self, optimizer, inv_scale * 0 + 1, found_inf, allow_fp16)

GradScaler._unscale_grads_ = _unscale_by_one
"""


def test_an_allreduce_that_returns_its_input(engine: Engine, child: Build, expectation: Expectation) -> None:
    image = child(write("$SITE/horovod/torch/mpi_ops.py", ALLREDUCE_RETURNS_ITS_INPUT, append=True))
    run = check_image(engine, image, expectation, deadline=DEADLINE)
    assert run.verdict.status is VerdictStatus.FAILED
    told = "\n".join(run.verdict.reasons)
    assert "horovod.allreduce: allreduce of float32 sum gave rank 0 its own values, nothing was reduced" in told
    assert "horovod.gradients: the gradients differ across ranks: rank 0 kept its own" in told
    assert "horovod.weights: after 8 steps the weights differ across ranks" in told
    assert statuses(run)["horovod.broadcast"] is Status.PASSED


def test_an_optimizer_that_lets_the_ranks_drift(engine: Engine, child: Build, expectation: Expectation) -> None:
    image = child(write("$SITE/horovod/torch/__init__.py", OPTIMIZER_REDUCES_NOTHING, append=True))
    run = check_image(engine, image, expectation, deadline=DEADLINE)
    assert run.verdict.status is VerdictStatus.FAILED
    told = "\n".join(run.verdict.reasons)
    assert "horovod.gradients: the gradients differ across ranks" in told
    assert "horovod.weights: after 8 steps the weights differ across ranks" in told
    assert statuses(run)["horovod.allreduce"] is Status.PASSED


def test_autocast_that_is_off(engine: Engine, child: Build, expectation: Expectation) -> None:
    image = child(write("$SITE/torch/amp/autocast_mode.py", AUTOCAST_IS_OFF, append=True))
    run = check_image(engine, image, expectation, deadline=DEADLINE)
    assert run.verdict.status is VerdictStatus.FAILED
    told = "\n".join(run.verdict.reasons)
    cause = "autocast did not act: the output of block.qkv is torch.float32, expected torch.bfloat16"
    assert f"torch.train.amp: {cause}" in told
    assert f"horovod.weights: rank 0: {cause}" in told


def test_a_crash_by_signal_costs_only_its_check(engine: Engine, child: Build, expectation: Expectation) -> None:
    image = child(write("$SITE/torch/amp/autocast_mode.py", AUTOCAST_CRASHES, append=True))
    run = check_image(engine, image, expectation, deadline=DEADLINE)
    assert run.verdict.status is VerdictStatus.FAILED
    assert "torch.train.amp: the check was killed by SIGSEGV" in run.verdict.reasons
    found = statuses(run)
    assert found["torch.accumulate"] is Status.PASSED
    assert found["horovod.gradients"] is Status.PASSED
    assert found["horovod.weights"] is Status.FAILED


def test_ranks_that_crash_after_their_work(engine: Engine, child: Build, expectation: Expectation) -> None:
    image = child(write("$SITE/horovod/torch/__init__.py", SHUTDOWN_CRASHES, append=True))
    run = check_image(engine, image, expectation, deadline=DEADLINE)
    assert run.verdict.status is VerdictStatus.FAILED
    reason = "horovod.ranks: both ranks did their work, but horovodrun ended with exit code"
    assert [told[: len(reason)] for told in run.verdict.reasons] == [reason]
    assert statuses(run)["horovod.weights"] is Status.PASSED


def test_a_scaler_that_does_not_unscale(engine: Engine, child: Build, expectation: Expectation) -> None:
    """AdamW trains all the same with it: only the gradients themselves tell."""
    image = child(write("$SITE/torch/amp/grad_scaler.py", SCALER_DOES_NOT_UNSCALE, append=True))
    run = check_image(engine, image, expectation, deadline=DEADLINE)
    assert run.verdict.status is VerdictStatus.FAILED
    cause = "torch.train.scaler: the unscaled gradient in float16 differs from float32"
    assert [told[: len(cause)] for told in run.verdict.reasons] == [cause]


def test_another_torch_than_the_cell_says(engine: Engine, child: Build, expectation: Expectation) -> None:
    version = expectation.packages["torch"]
    image = child("sed -i 's/^Version: .*/Version: 2.0.1/' $SITE/torch-*.dist-info/METADATA")
    run = check_image(engine, image, expectation, deadline=DEADLINE)
    assert run.verdict.status is VerdictStatus.FAILED
    assert f"torch is 2.0.1, the cell says {version}" in run.verdict.reasons
    assert f"torch.import: torch says it is {version}, its metadata says 2.0.1" in run.verdict.reasons


def test_a_package_that_is_missing_and_one_that_nobody_pinned(
    engine: Engine, child: Build, expectation: Expectation
) -> None:
    image = child(
        "rm -r $SITE/horovod $SITE/horovod-*.dist-info\n"
        "mkdir $SITE/intruder-1.0.dist-info\n"
        + write("$SITE/intruder-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: intruder\nVersion: 1.0\n")
    )
    run = check_image(engine, image, expectation, deadline=DEADLINE)
    assert run.verdict.status is VerdictStatus.FAILED
    assert "horovod is promised and not installed" in run.verdict.reasons
    assert "installed but not pinned: intruder 1.0" in run.verdict.reasons
    assert "horovod.weights: did not run: horovod is not installed" in run.verdict.reasons


def wrapper(body: str) -> str:
    """Commands that put a shell script in the place of the image's interpreter."""
    return "rm $PYTHON\n" + write("$PYTHON", f"#!/bin/sh\n{body}\n") + "\nchmod 755 $PYTHON"


FORGED = json.dumps({"schema": "imgbuild.check-result/1", "nonce": "guessed", "complete": True}).replace('"', '\\"')


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("exit 0", "exit code 0 but no result was written"),
        ("echo no such library; exit 3", "the check ended with exit code 3: no such library"),
        ("exec sleep 1234", "the check did not end within 6 s and was killed"),
        ("kill -SEGV $$", "the check ended with exit code 139"),
        ("echo garbage > /imgbuild-check/results/result.json", "the result is no JSON"),
        ("head -c 2000000 /dev/zero > /imgbuild-check/results/result.json", "the result has more than 1048576 bytes"),
        ("ln -s /etc/passwd /imgbuild-check/results/result.json", "the result is not a regular file"),
        (f'echo "{FORGED}" > /imgbuild-check/results/result.json', "the result is the answer to another request"),
    ],
    ids=["silent", "fails", "hangs", "signal", "garbage", "huge", "link", "forged"],
)
def test_an_interpreter_that_does_something_else(
    engine: Engine, child: Build, expectation: Expectation, body: str, reason: str
) -> None:
    run = check_image(engine, child(wrapper(body)), expectation, deadline=6)
    assert run.verdict.status is VerdictStatus.FAILED
    assert run.verdict.reasons[0].startswith(reason)
    # After an exit code that is not 0, the entrypoint may be to blame, and is named.
    how = ["the check was started through the image's entrypoint, /usr/bin/tini -s -g -- /opt/imgbuild/entrypoint"]
    assert list(run.verdict.reasons[1:]) == (how if "exit code" in reason and "code 0" not in reason else [])
    assert run.result is None


def test_an_image_without_python(engine: Engine, child: Build, expectation: Expectation) -> None:
    run = check_image(engine, child("rm -f $PYTHON /usr/bin/python3"), expectation, deadline=30)
    assert run.verdict.status is VerdictStatus.FAILED
    assert "python3" in run.verdict.reasons[0]
