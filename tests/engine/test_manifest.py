"""What was measured in an image is its last layer and its labels; and nothing counts as an image before it has them.

The images are of a few hundred kB. What answers in them as `python3` is a shell script, so that an image of a framework
for CUDA, one that cannot be measured, and one that takes its time are all to be had for nothing.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from command import Ran, imgbuild
from loopback_registry import registry
from tiny_project import project

from builder.build import MANIFEST_PATH, temporary_name
from builder.check import content_id
from builder.engine.connection import Engine
from builder.engine.images import ImageDetails, inspect
from builder.measure import labels_count

pytestmark = pytest.mark.engine

ANSWER = {
    "python": "3.11.2",
    "packages": {"torch": "2.13.0+cu130", "numpy": "2.3.1"},
    "torch": {"cuda": "13.0", "cudnn": 91300, "nccl": [2, 27, 7], "architectures": ["sm_75", "compute_120"]},
    "tensorflow": None,
    "horovod": None,
}
PROGRAM = """\
#!/bin/sh
# As `python3 -s -B inside.py REQUEST RESULT`; the nonce is the request's only value.
{before}
nonce=$(sed 's/.*: "//; s/".*//' "$4")
sed "s/NONCE/$nonce/" /answer.json > "$5"
"""


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    found = docker.from_env(timeout=600)
    yield found
    found.close()


@pytest.fixture(scope="module")
def base(tiny_base: str, client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The tiny base in a registry."""
    with registry(tmp_path_factory.mktemp("registry")) as address:
        client.api.tag(tiny_base, f"{address}/tiny", "latest")
        try:
            lines = list(client.api.push(f"{address}/tiny", "latest", stream=True, decode=True))
            assert not [line for line in lines if "error" in line], lines
        finally:
            client.images.remove(f"{address}/tiny:latest")
        yield f"{address}/tiny:latest"


@dataclass(frozen=True, kw_only=True)
class Small:
    """A project of two cells, under a repository of its own."""

    root: Path
    repository: str
    engine: Engine

    def program(self, before: str = "", answer: dict[str, Any] | None = None) -> None:
        """Gives the images a `python3` that does `before`, and then answers."""
        files = self.root / "dockerfiles/files"
        (files / "python3").write_text(PROGRAM.format(before=before))
        (files / "answer.json").write_text(json.dumps({"nonce": "NONCE", **(answer or ANSWER)}))
        template = self.root / "dockerfiles/t.Dockerfile.j2"
        more = '\nCOPY --chmod=0755 {{ file("files/python3") }} /bin/python3'
        more += '\nCOPY --chmod=0644 {{ file("files/answer.json") }} /answer.json\n'
        template.write_text(template.read_text().partition("\nCOPY --chmod=0755")[0] + more)

    def arguments(self, *more: str) -> list[str]:
        return ["build", "--no-check", "--bases", "registry", "--repository", self.repository, *more]

    def build(self, *more: str, state: str = "state") -> Ran:
        environment = {**os.environ, "IMGBUILD_STATE_DIR": str(self.root / state)}
        return imgbuild(*self.arguments("--format", "json", *more), environment=environment, cwd=self.root)

    def image(self, *more: str) -> ImageDetails:
        """The image of the first cell that is built."""
        ran = self.build(*more)
        assert ran.code == 0, ran.out + ran.err
        found = inspect(self.engine, str(ran.json["cells"][0]["candidate"]))
        assert found is not None
        assert found.id == ran.json["cells"][0]["image_id"]
        return found

    def names(self, client: docker.DockerClient) -> list[str]:
        """Every name in this repository."""
        every = [tag for image in client.images.list() for tag in image.tags]
        return sorted(tag for tag in every if tag.startswith(self.repository))


@pytest.fixture
def small(base: str, prefix: str, engine: Engine, tmp_path: Path) -> Small:
    repository = f"{prefix}-{tmp_path.name.replace('_', '-').strip('-').lower()}"
    root = project(tmp_path / "p", repository="r", base=base, versions=("2.13.0",), extras=2)
    return Small(root=root, repository=repository, engine=engine)


ONE, TWO = "torch-2.13.0-cpu-py3.11-extra0", "torch-2.13.0-cpu-py3.11-extra1"


def manifest(client: docker.DockerClient, image: str) -> tuple[dict[str, Any], tarfile.TarInfo]:
    """The manifest of an image, and its entry in the file system."""
    container = client.containers.create(image, ["true"])
    try:
        stream, _ = container.get_archive(MANIFEST_PATH)
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            (member,) = archive.getmembers()
            content = archive.extractfile(member)
            assert content is not None
            return json.loads(content.read()), member
    finally:
        container.remove()


def test_an_image_without_python_says_so(small: Small, client: docker.DockerClient) -> None:
    image = small.image(ONE)
    found, file = manifest(client, image.id)
    assert found == {
        "schema": "imgbuild.manifest/1",
        "cell": ONE,
        "distribution": {"id": None, "version": None, "codename": None},
        "python": None,
        "framework": None,
        "horovod": None,
        "cuda": None,
        "packages": {"python": None, "debian": None},
    }
    assert (file.mode & 0o7777, file.uid, file.gid) == (0o644, 0, 0)
    own = {name for name in image.labels if name.startswith("io.imgbuild.")}
    assert own == {"io.imgbuild.key", "io.imgbuild.base", "io.imgbuild.cell", "io.imgbuild.measured"}
    assert image.labels["org.opencontainers.image.title"] == "bake"
    assert image.labels["org.opencontainers.image.base.digest"].startswith("sha256:")
    assert labels_count(image.labels, image.layers)


def test_what_python_says_is_in_the_manifest_and_in_short_in_the_labels(
    small: Small, client: docker.DockerClient
) -> None:
    small.program()
    image = small.image(ONE)
    found, _ = manifest(client, image.id)
    assert found["python"] == "3.11.2"
    assert found["framework"] == {"name": "torch", "version": "2.13.0+cu130"}
    assert found["packages"]["python"][0] == {"name": "numpy", "version": "2.3.1"}
    cuda = found["cuda"]
    assert (cuda["runtime"], cuda["cudnn"], cuda["nccl"]) == ("13.0", "9.13.0", "2.27.7")
    assert (cuda["architectures"], cuda["driver"]["linux"]) == (["sm_75", "compute_120"], "580.65.06")
    assert "https://" in cuda["driver"]["source"]
    said = {name.removeprefix("io.imgbuild."): value for name, value in image.labels.items()}
    assert (said["python"], said["framework"]) == ("3.11.2", "torch 2.13.0+cu130")
    assert (said["cuda"], said["cudnn"], said["nccl"], said["driver"]) == ("13.0", "9.13.0", "2.27.7", "580.65.06")
    assert said["architectures"] == "sm_75 compute_120"
    assert said["org.opencontainers.image.version"] == "2.13.0+cu130"
    # Nothing but the candidate is left under the repository.
    assert small.names(client) == [f"{small.repository}/bake:candidate-{image.labels['io.imgbuild.key']}"]


def test_one_key_built_twice_has_one_content(small: Small, client: docker.DockerClient) -> None:
    small.program()
    first = small.image(ONE)
    (name,) = small.names(client)
    client.images.remove(name)
    assert inspect(small.engine, first.id) is None
    time.sleep(1)  # another second, so another label of the time
    second = small.image(ONE)
    assert second.id != first.id
    assert content_id(second) == content_id(first)
    # Another answer is another content: the manifest is a layer.
    client.images.remove(name)
    small.program(answer={**ANSWER, "python": "3.11.3"})
    assert content_id(small.image(ONE)) != content_id(first)


def test_a_child_inherits_labels_that_do_not_count(small: Small, base: str, client: docker.DockerClient) -> None:
    small.program()
    image = small.image(ONE)
    container = client.containers.run(image.id, ["sh", "-c", "echo 1 > /more"], detach=True)
    container.wait()
    child = inspect(small.engine, str(container.commit(repository=f"{small.repository}-child", tag="1").id))
    container.remove()
    assert child is not None
    assert child.labels["io.imgbuild.cuda"] == "13.0"
    assert not labels_count(child.labels, child.layers)
    # As a base of ours it hands down nothing that is not measured in what is made of it.
    other = base.replace("/tiny:", "/child:")
    client.api.tag(child.id, *other.rsplit(":", 1))
    lines = list(client.api.push(*other.rsplit(":", 1), stream=True, decode=True))
    client.images.remove(other)
    assert not [line for line in lines if "error" in line], lines
    matrix = small.root / "matrix.yaml"
    matrix.write_text(matrix.read_text().replace(base, other))
    small.program(answer={**ANSWER, "packages": {}, "torch": None})
    grandchild = small.image(ONE)
    cuda = ("cuda", "cudnn", "nccl", "driver", "architectures", "framework")
    assert [grandchild.labels[f"io.imgbuild.{name}"] for name in cuda] == [""] * 6
    assert labels_count(grandchild.labels, grandchild.layers)


def test_what_cannot_be_measured_is_no_image(small: Small, client: docker.DockerClient) -> None:
    small.program(before="echo 'ImportError: libfoo.so.1: cannot open shared object file' >&2; exit 1")
    ran = small.build()
    assert ran.code == 9
    for cell in ran.json["cells"]:
        assert (cell["status"], cell["built"], cell["image_id"]) == ("failed", False, None)
        assert cell["reasons"][0] == (
            "the image cannot be measured: python3 ended with exit code 1: "
            "ImportError: libfoo.so.1: cannot open shared object file"
        )
    assert small.names(client) == []
    # Mended, it is built; the other cell costs it nothing.
    small.program()
    assert small.build().code == 0
    assert len(small.names(client)) == 2


def start(small: Small, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("imgbuild")), *small.arguments(*more)],
        env={**os.environ, "IMGBUILD_STATE_DIR": str(small.root / "state")},
        cwd=small.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def await_measuring(run: subprocess.Popen[str], client: docker.DockerClient) -> None:
    """Waits until a container of a run measures."""
    deadline = time.monotonic() + 60
    ours = {"status": ["running"], "label": ["io.imgbuild.owner.process"]}
    while not any("inside.py" in str(found["Command"]) for found in client.api.containers(filters=ours)):
        assert time.monotonic() < deadline
        assert run.poll() is None, run.stdout and run.stdout.read()
        time.sleep(0.05)


def test_a_signal_while_it_measures_leaves_nothing(small: Small, client: docker.DockerClient) -> None:
    small.program(before="sleep 60")
    run = start(small, ONE)
    await_measuring(run, client)
    began = time.monotonic()
    run.send_signal(signal.SIGTERM)
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 143, out
    assert "cancelled" in out
    assert time.monotonic() - began < 30
    assert small.names(client) == []


def test_a_run_that_is_killed_while_it_measures_leaves_nothing_that_counts(
    small: Small, client: docker.DockerClient
) -> None:
    small.program(before="sleep 6")
    run = start(small, ONE)
    await_measuring(run, client)
    run.kill()
    run.communicate()
    (left,) = small.names(client)
    unfinished = inspect(small.engine, left)
    assert unfinished is not None
    assert "unfinished-" in left
    assert not [name for name in unfinished.labels if name.startswith("io.imgbuild.")]
    planned = small.build(ONE, "--dry-run").json["actions"]
    assert [(action["build"], action["image_id"]) for action in planned] == [(True, None)]
    # A name of a process that lives stays; that of the killed one goes with what nothing else needs of it.
    mine = temporary_name(f"{small.repository}/bake", "0" * 64)
    client.api.tag(unfinished.id, *mine.rsplit(":", 1))
    # From the layer cache, to the same id.
    image = small.image(ONE)
    assert image.layers[:-1] == unfinished.layers
    assert small.names(client) == sorted([mine, f"{small.repository}/bake:candidate-{image.labels['io.imgbuild.key']}"])
    client.images.remove(mine)
    assert inspect(small.engine, unfinished.id) is None


def test_a_second_run_measures_nothing(small: Small) -> None:
    small.program()
    small.image(ONE)
    ran = small.build(ONE)
    assert [(cell["status"], cell["built"]) for cell in ran.json["cells"]] == [("built", False)]
    assert "measuring" not in ran.err
