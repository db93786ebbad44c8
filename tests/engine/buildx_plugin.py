"""The docker command's buildx: the machine's own, or the one that `.ci/prepare buildx` unpacks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def buildx_environment() -> dict[str, str]:
    """The environment in which `docker buildx` works. Without it the tests fail: they were asked for."""
    for environment in ({**os.environ}, {**os.environ, "DOCKER_CONFIG": str(ROOT / ".ci/.buildx")}):
        command = ["docker", "buildx", "version"]
        if subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False).returncode == 0:
            return environment
    pytest.fail("the docker command has no buildx: run `.ci/prepare buildx`", pytrace=False)
