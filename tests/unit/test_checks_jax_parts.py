"""The GPU of the checks of JAX, against a JAX that is made for the test."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from builder.checks.contract import Failed, NotRun
from builder.checks.groups import jax


def made(*gpus: str) -> Any:
    def local_devices(backend: str) -> list[str]:
        assert backend == "cuda"
        if not gpus:
            raise RuntimeError("Unknown backend cuda")
        return list(gpus)

    return SimpleNamespace(local_devices=local_devices)


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /dev; the plugin for CUDA is there."""
    monkeypatch.setattr(jax, "Path", lambda path: tmp_path if path == "/dev" else Path(path))
    monkeypatch.setattr(jax, "plugins", lambda: {"jax-cuda12-plugin": "0.10.2"})
    return tmp_path


def test_the_first_gpu(devices: Path) -> None:
    assert jax.gpu(made("cuda:0", "cuda:1")) == "cuda:0"


def test_a_gpu_that_jax_does_not_have_is_a_broken_image(devices: Path) -> None:
    (devices / "nvidia0").touch()
    with pytest.raises(Failed, match="nvidia0 and JAX has no GPU: Unknown backend cuda"):
        jax.gpu(made())


def test_no_gpu_and_no_plugin_are_not_run(devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (devices / "nvidiactl").touch()
    with pytest.raises(NotRun, match="JAX has none"):
        jax.gpu(made())
    monkeypatch.setattr(jax, "plugins", dict)
    with pytest.raises(NotRun, match="JAX has no plugin for CUDA"):
        jax.gpu(made("cuda:0"))
