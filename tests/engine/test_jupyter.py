"""`docker run IMAGE jupyter lab`: as any user, behind its token, and with a health that the engine knows."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest
from command import LABEL, Built

pytestmark = pytest.mark.engine

CELL = "torch-2.13.0-cpu-py3.11-jupyter"
TOKEN = "a-token-of-this-test"
PATIENCE = 90.0
"""Seconds for a server to start, and for the engine to notice."""

direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    connected = docker.from_env(timeout=600)
    yield connected
    connected.close()


@pytest.fixture(scope="module")
def image(built: Built) -> str:
    """The image with Jupyter, on the layers that `built` made."""
    ran = built.run("build", CELL, "--no-check", "--format", "json")
    assert ran.code == 0, ran.out + ran.err
    (cell,) = ran.json["cells"]
    return str(cell["candidate"])


@contextmanager
def running(client: docker.DockerClient, built: Built, image: str, *command: str, **options: Any) -> Iterator[Any]:
    second = 10**9
    health = {"interval": second, "timeout": 10 * second, "retries": 1, "start_period": 0}
    labels = {LABEL: built.repository}
    container = client.containers.run(image, list(command), detach=True, healthcheck=health, labels=labels, **options)
    try:
        yield container
    finally:
        container.remove(force=True)


def status(container: Any, path: str, token: str) -> int | None:
    """The status of its server's answer; None where there is none yet."""
    container.reload()
    address = container.attrs["NetworkSettings"]["IPAddress"]
    headers = {"Authorization": f"token {token}"} if token else {}
    try:
        with direct.open(urllib.request.Request(f"http://{address}:8888{path}", headers=headers), timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code
    except OSError:
        return None


def health(container: Any) -> str:
    container.reload()
    return str(container.attrs["State"]["Health"]["Status"])


def wait_for(what: Callable[[], object], wanted: object, container: Any) -> None:
    end = time.monotonic() + PATIENCE
    while (found := what()) != wanted:
        assert time.monotonic() < end, f"{found} and not {wanted}: {container.logs().decode()[-2000:]}"
        time.sleep(0.2)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"user": "12345:12345"},
        {"user": "0"},
        {"user": "12345", "read_only": True, "tmpfs": {"/tmp": ""}, "environment": {"HOME": "/"}},
    ],
    ids=["the image's user", "an unknown user", "root", "a read-only root and no home"],
)
def test_a_server_that_only_its_token_opens(
    client: docker.DockerClient, built: Built, image: str, options: dict[str, Any]
) -> None:
    given = {**options, "environment": {**options.get("environment", {}), "JUPYTER_TOKEN": TOKEN}}
    with running(client, built, image, "jupyter", "lab", **given) as container:
        wait_for(lambda: status(container, "/api/contents", TOKEN), 200, container)
        assert status(container, "/api/contents", "") == 403
        assert status(container, "/lab", TOKEN) == 200
        wait_for(lambda: health(container), "healthy", container)


def test_its_own_token_and_its_health(client: docker.DockerClient, built: Built, image: str, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o777)
    (tmp_path / "home").chmod(0o777)
    for parent in (tmp_path, *tmp_path.parents[:-2]):
        parent.chmod(parent.stat().st_mode | 0o055)
    mounted = {str(tmp_path / "home"): {"bind": "/home/user", "mode": "rw"}}
    with running(
        client, built, image, "jupyter", "lab", volumes=mounted, environment={"JUPYTER_TOKEN": ""}
    ) as container:
        wait_for(lambda: status(container, "/api/contents", ""), 403, container)
        said = container.logs().decode()
        assert "http://127.0.0.1:8888/lab?token=" in said
        token = said.partition("/lab?token=")[2].split()[0]
        assert len(token) >= 32
        assert status(container, "/api/contents", token) == 200
        wait_for(lambda: health(container), "healthy", container)
        (note,) = (tmp_path / "home").rglob("jpserver-*.json")
        number = note.stem.removeprefix("jpserver-")
        assert container.exec_run(["sh", "-c", f"kill -STOP {number}"]).exit_code == 0
        wait_for(lambda: health(container), "unhealthy", container)
        assert container.exec_run(["sh", "-c", f"kill -CONT {number}"]).exit_code == 0
        wait_for(lambda: health(container), "healthy", container)


def test_a_container_without_a_server_is_healthy(client: docker.DockerClient, built: Built, image: str) -> None:
    with running(client, built, image, "sleep", "600") as container:
        wait_for(lambda: health(container), "healthy", container)


def test_only_this_image_has_a_health_check(client: docker.DockerClient, built: Built, image: str) -> None:
    plain = client.images.get(str(built.cell("torch-2.13.0-cpu-py3.11")["image_id"])).attrs["Config"]
    own = client.images.get(image).attrs["Config"]
    assert set(own["ExposedPorts"]) == {"6006/tcp", "8888/tcp"}
    assert own["Healthcheck"]["Test"][0] == "CMD"
    assert set(plain["ExposedPorts"]) == {"6006/tcp"}
    assert not plain.get("Healthcheck")
