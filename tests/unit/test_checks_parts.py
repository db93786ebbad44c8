"""Parts of the static and TensorFlow checks that need neither an image nor a framework."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from builder.checks import pair
from builder.checks.contract import Failed, NotRun
from builder.checks.groups import tensorflow
from builder.checks.groups.static import _imports, entrypoint, user
from builder.checks.groups.tensorflow.version import _plain
from builder.checks.processes import marked

# The entrypoint and what it leaves behind


def script(tmp_path: Path, last: str) -> list[str]:
    path = tmp_path / "entrypoint"
    path.write_text(f"#!/bin/sh\n{last}\n", encoding="ascii")
    path.chmod(0o755)
    return [str(path)]


def test_a_good_entrypoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = script(tmp_path, 'exec "$@"')
    state = SimpleNamespace(request={"entrypoint": words})
    assert entrypoint.run.run(state)["entrypoint"] == words[0]


def test_an_entrypoint_that_keeps_sigterm_leaves_no_program_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # In a process group of its own, where no signal to the entrypoint's group reaches it.
    words = script(tmp_path, 'setsid "$@"\nexit $?')
    with pytest.raises(Failed, match=r"SIGTERM ended the entrypoint \(exit code -15\)"):
        entrypoint.run.run(SimpleNamespace(request={"entrypoint": words}))
    assert marked(_imports.MARK, f"entrypoint-{os.getpid()}") == {}


# How the check is confined


def examined(monkeypatch: pytest.MonkeyPatch, status: str, **asked: object) -> Any:
    monkeypatch.setattr(user, "Path", lambda path: SimpleNamespace(read_text=lambda **_: status))
    files = SimpleNamespace(roots=(), unreadable=(), count=0)
    return user.run.run(SimpleNamespace(request=asked, files=files, imports=()))


CONFINED = "CapEff:\t0000000000000000\nNoNewPrivs:\t1\n"


def test_a_check_that_is_confined_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert examined(monkeypatch, CONFINED, confined=True)["no_new_privileges"] == "1"
    assert examined(monkeypatch, "Name:\tpython3\n", confined=True)["capabilities"] == ""
    assert examined(monkeypatch, CONFINED.replace("000\n", "400\n"))["capabilities"] == "0000000000000400"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [("000\n", "400\n", "has capabilities \\(0x400\\)"), ("\t1", "\t0", "programs may gain privileges")],
)
def test_a_check_that_is_confined_less(monkeypatch: pytest.MonkeyPatch, old: str, new: str, reason: str) -> None:
    with pytest.raises(Failed, match=reason):
        examined(monkeypatch, CONFINED.replace(old, new), confined=True)


# A GPU that TensorFlow does not see


def framework(*, gpus: int, cuda: bool) -> Any:
    return SimpleNamespace(
        config=SimpleNamespace(list_physical_devices=lambda kind: ["GPU:0"] * gpus),
        sysconfig=SimpleNamespace(get_build_info=lambda: {"is_cuda_build": cuda}),
    )


@pytest.mark.parametrize(
    ("gpus", "cuda", "devices", "error", "reason"),
    [
        (0, True, ["/dev/nvidia0"], Failed, "the container has /dev/nvidia0 and TensorFlow lists no GPU"),
        (0, True, [], NotRun, "TensorFlow lists none"),
        (0, False, ["/dev/nvidia0"], NotRun, "TensorFlow is built without CUDA"),
    ],
)
def test_a_gpu_that_is_not_used(
    monkeypatch: pytest.MonkeyPatch, gpus: int, cuda: bool, devices: list[str], error: type[Exception], reason: str
) -> None:
    monkeypatch.setattr(tensorflow, "Path", lambda path: SimpleNamespace(glob=lambda pattern: devices))
    with pytest.raises(error, match=reason):
        tensorflow.need_gpu(framework(gpus=gpus, cuda=cuda))


def test_a_gpu_that_is_used() -> None:
    tensorflow.need_gpu(framework(gpus=1, cuda=True))


def test_a_pre_release_by_its_two_names() -> None:
    assert _plain("2.22.0-rc1") == _plain("2.22.0rc1")
    assert _plain("2.22.0-dev20260101") == _plain("2.22.0.dev20260101")
    assert _plain("2.22.0rc1") != _plain("2.22.0")


def test_ranks_on_the_cpu_see_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from builder.checks.groups import horovod_tensorflow, tensorflow_workers

    monkeypatch.chdir(tmp_path)
    seen: list[str] = []

    def launch(commands: Any, *_: object) -> None:
        seen.extend(command.environment["CUDA_VISIBLE_DEVICES"] for command in commands)

    monkeypatch.setattr(pair, "launch", launch)
    monkeypatch.setattr(tensorflow_workers, "free_ports", lambda count: list(range(1, count + 1)))
    monkeypatch.setattr(sys, "argv", ["suite.pyz"])
    tensorflow_workers.launch_ranks("RING")
    horovod_tensorflow.launch_ranks("horovod_tensorflow._ranks")
    assert seen == ["-1"] * 3
    tensorflow_workers.launch_ranks("NCCL")
    assert seen[3:] == ["0", "1"]
