"""The TensorFlow image: what it promises, and that its checks see what is taken away from it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest
from command import Built

from builder.check import suite

pytestmark = pytest.mark.engine

PACKAGES = "/opt/venv/lib/python3.11/site-packages"


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    connected = docker.from_env(timeout=600)
    yield connected
    connected.close()


@pytest.fixture(scope="module")
def image(built: Built) -> str:
    return str(built.cell("tensorflow-2.21.0-cpu-py3.11-horovod")["image_id"])


Child = Callable[[str, str], str]


@pytest.fixture(scope="module")
def child(client: docker.DockerClient, image: str) -> Iterator[Child]:
    """Makes an image in which one file has another text, by a program in Python; returns its id."""
    made: list[str] = []
    configuration = client.images.get(image).attrs["Config"]

    def make(path: str, program: str) -> str:
        script = f"from pathlib import Path; path = Path('{PACKAGES}/{path}'); old = path.read_text(); {program}"
        script += "; assert new != old; path.write_text(new)"
        container = client.containers.create(
            image, entrypoint=["python3", "-c", script], command=[], user="0:0", network_mode="none"
        )
        try:
            container.start()
            assert container.wait()["StatusCode"] == 0, container.logs().decode()
            changed = str(container.commit(conf=configuration).id)
        finally:
            container.remove(force=True)
        made.append(changed)
        return changed

    yield make
    for image_id in made:
        client.images.remove(image_id, force=True, noprune=True)


def outcomes(client: docker.DockerClient, image: str, group: str, *checks: str) -> dict[str, dict[str, Any]]:
    """Runs single checks of one group in the image, confined as a check is; their ends by name."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("suite.pyz")
        entry.size, entry.mode = len(suite().archive), 0o644
        archive.addfile(entry, io.BytesIO(suite().archive))
    words = ["python3", "/opt/suite.pyz", "--worker", group, "--checks", ",".join(checks), "--results", "/tmp"]
    container = client.containers.create(
        image,
        ["sh", "-c", f"cd /tmp && {' '.join(words)} >/tmp/said 2>&1; cat /tmp/events.jsonl"],
        user="12345:12345",
        network_mode="none",
        hostname="localhost",
        tmpfs={"/tmp": "exec,mode=1777"},
        cap_drop=["ALL"],
    )
    try:
        container.put_archive("/opt", packed.getvalue())
        container.start()
        assert container.wait(timeout=400)["StatusCode"] == 0, container.logs().decode()
        events = [json.loads(line) for line in container.logs(stderr=False).decode().splitlines()]
    finally:
        container.remove(force=True)
    return {event["check"]: event for event in events if event["event"] == "end"}


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


def test_keras_3_reduces_and_without_the_patch_the_check_fails(
    client: docker.DockerClient, image: str, child: Child
) -> None:
    name = "horovod.tensorflow.keras3-optimizer"
    good = outcomes(client, image, "horovod_tensorflow", name)[name]
    assert (good["status"], good["reason"]) == ("passed", "")
    assert good["measured"]["refused"] == {}, "the image offers DistributedOptimizer with Keras 3"
    # Without our part it is Horovod as it was published.
    broken = child("horovod/_keras/__init__.py", "new = old.replace('if _is_keras_3(optimizer):', 'if False:')")
    bad = outcomes(client, broken, "horovod_tensorflow", name, "horovod.tensorflow.weights")
    assert bad[name]["status"] == "failed"
    assert "gradients are not reduced" in bad[name]["reason"]
    assert bad["horovod.tensorflow.weights"]["status"] == "passed", "each gradient by itself depends on no patch"


def test_a_policy_that_does_not_act_is_found(client: docker.DockerClient, image: str, child: Child) -> None:
    name = "tensorflow.train.amp"
    assert outcomes(client, image, "tensorflow", name)[name]["status"] == "passed"
    broken = child(
        "keras/src/dtype_policies/dtype_policy.py",
        "new = old + chr(10) + 'DTypePolicy.compute_dtype = property(lambda self: self.variable_dtype)' + chr(10)",
    )
    bad = outcomes(client, broken, "tensorflow", name)[name]
    assert bad["status"] == "failed"
    assert "the policy did not act" in bad["reason"]
