"""GPUs: what happens on an engine that has one, and on an engine that has none. Each test says when it was not run."""

from __future__ import annotations

import pytest
from command import Built, imgbuild

from builder.engine.connection import Engine
from builder.engine.containers import RunRequest, run

pytestmark = pytest.mark.engine


@pytest.mark.gpu
def test_a_container_is_given_the_gpus(engine: Engine, tiny_base: str) -> None:
    if not engine.info().gpu:
        pytest.skip("not run: this engine can give containers no GPU")
    result = run(engine, RunRequest(image=tiny_base, command=("sh", "-c", "ls /dev/nvidia*"), gpus=True, deadline=60))
    assert result.exit_code == 0, result.log_tail


def test_without_a_gpu_its_checks_are_incomplete_and_the_message_says_why(
    engine: Engine, built: Built, good_image: str
) -> None:
    if engine.info().gpu:
        pytest.skip("not run: this engine has a GPU, and the test above covers that")
    ran = imgbuild("check", "--image", good_image, "--gpus", environment=built.environment)
    assert ran.code == 11
    assert "this engine can give containers none" in ran.err
