"""The TensorFlow image: what it promises. What its checks see when something is taken away is in the corpus."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from command import Built

from builder.runs import latest

pytestmark = pytest.mark.engine

CELL = "tensorflow-2.21.0-cpu-py3.11-horovod"


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    connected = docker.from_env(timeout=600)
    yield connected
    connected.close()


@pytest.fixture(scope="module")
def image(built: Built) -> str:
    return str(built.cell(CELL)["image_id"])


def run(client: docker.DockerClient, image: str, script: str, **options: Any) -> str:
    said = client.containers.run(image, ["sh", "-c", script], remove=True, network_mode="none", **options)
    return str(said.decode())


def test_the_images_contract(client: docker.DockerClient, image: str) -> None:
    attributes = client.images.get(image).attrs
    assert attributes["Config"]["User"] == "1000:1000"
    assert attributes["Config"]["Labels"]["org.opencontainers.image.title"] == "tensorflow"
    assert "TENSORFLOW_VERSION=2.21.0" in attributes["Config"]["Env"]
    script = "id -u; echo $HOME; command -v python; python -m pip check; touch $HOME/here && echo writable"
    said = run(client, image, script, user="54321:0", read_only=True, tmpfs={"/tmp": "mode=1777"})
    words = ["54321", "/tmp/home-54321", "/opt/venv/bin/python", "No broken requirements found.", "writable"]
    assert said.splitlines() == words


def test_one_package_has_the_files_and_the_other_stands_for_it(client: docker.DockerClient, image: str) -> None:
    script = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({n: [m.version(n), len(m.files(n))] for n in ('tensorflow', 'tensorflow-cpu')}))"
    )
    found = json.loads(run(client, image, f'python -c "{script}"'))
    assert found["tensorflow"][0] == found["tensorflow-cpu"][0] == "2.21.0"
    assert found["tensorflow"][1] < 10 < found["tensorflow-cpu"][1]
    assert "tensorflow==2.21.0\n" in run(client, image, "cat /opt/imgbuild/constraints.txt")


def test_keras_3_reduces_and_the_image_offers_it(built: Built) -> None:
    """What must fail without our part of Horovod is in the corpus: `keras3-reduces-nothing`."""
    rows = checks_of(built)
    row = rows["horovod.tensorflow.keras3-optimizer"]
    assert row["status"] == "passed"
    assert row["measured"]["refused"] == "{}", "the image offers DistributedOptimizer with Keras 3"


def checks_of(built: Built) -> dict[str, dict[str, Any]]:
    """The rows of the check that ran when the image was built, by name."""
    runs = Path(built.environment["IMGBUILD_STATE_DIR"]) / "runs"
    (stored,) = latest(runs, name=CELL)
    document = json.loads((stored.path / "run.json").read_text())
    return {row["name"]: row for row in document["checks"]}
