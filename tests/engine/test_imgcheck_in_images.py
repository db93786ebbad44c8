"""`imgcheck` inside a real image, started as people start it, rightly and wrongly."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import docker
import pytest

from builder.check.release import read
from builder.project import shipped_data

pytestmark = pytest.mark.engine

#: Seconds; the level `cpu` takes about 30 on two idle cores.
DEADLINE = 900


@dataclass(frozen=True)
class Ran:
    """How a container ended: its exit code, and what it wrote to stdout and to stderr."""

    code: int
    out: str
    err: str

    def rows(self) -> dict[str, str]:
        """What became of each check, by name."""
        found = {}
        for line in self.out.splitlines():
            for word in ("passed ", "FAILED ", "not run"):
                if line.startswith(word) and " at level " not in line:
                    found[line[len(word) :].split()[0]] = word.strip()
        return found


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    client = docker.from_env(timeout=DEADLINE)
    yield client
    client.close()


def start(client: docker.DockerClient, image: str, command: str, **options: Any) -> Ran:
    """`docker run` with these options of the SDK."""
    container = client.containers.create(image, command=shlex.split(command), **options)
    try:
        container.start()
        code = int(container.wait(timeout=DEADLINE)["StatusCode"])
        out = container.logs(stdout=True, stderr=False).decode()
        return Ran(code, out, container.logs(stdout=False, stderr=True).decode())
    finally:
        container.remove(force=True)


def test_it_is_on_the_path_small_and_the_pinned_release(client: docker.DockerClient, good_image: str) -> None:
    ran = start(client, good_image, "sh -c 'imgcheck --version && stat -c %s $(command -v imgcheck)'")
    found = read((shipped_data() / "dockerfiles/files/imgcheck.pyz").read_bytes())
    version, size = ran.out.splitlines()
    assert version == f"imgcheck {found.version} (suite {found.suite})"
    assert int(size) < 300_000
    assert ran.err == ""


def test_other_commands_are_as_quiet_as_before(client: docker.DockerClient, good_image: str) -> None:
    ran = start(client, good_image, "echo only this")
    assert (ran.code, ran.out, ran.err) == (0, "only this\n", "")


def test_a_cpu_image_at_the_highest_level_that_can_run(client: docker.DockerClient, good_image: str) -> None:
    ran = start(client, good_image, "imgcheck", shm_size="1g")
    assert ran.code == 0, ran.out
    assert set(ran.rows().values()) == {"passed"}
    assert {"static.user", "torch.train.amp", "horovod.weights"} <= ran.rows().keys()
    assert "passed at level cpu in " in ran.out.splitlines()[-1]
    assert "Try:" not in ran.out


def test_small_shared_memory_gives_the_corrected_line(client: docker.DockerClient, good_image: str) -> None:
    ran = start(client, good_image, "imgcheck", shm_size="64m")
    assert ran.code == 10
    assert {name for name, word in ran.rows().items() if word == "FAILED"} == {"torch.data"}
    assert ran.out.splitlines()[-1] == "Try: docker run --rm --shm-size=16g IMAGE"
    assert "shm: /dev/shm is 64 MiB" in ran.out


def test_an_unknown_user_is_served_by_the_entrypoint(client: docker.DockerClient, good_image: str) -> None:
    ran = start(client, good_image, "imgcheck --level static", user="12345:12345", network_mode="none")
    assert ran.code == 0, ran.out
    assert "passed at level static in " in ran.out
    assert " as user 12345 " in ran.out


def test_an_unknown_user_past_the_entrypoint_gives_the_corrected_line(
    client: docker.DockerClient, good_image: str
) -> None:
    ran = start(
        client, good_image, "--level static", entrypoint="imgcheck", user="12345:100", environment={"HOME": "/"}
    )
    assert ran.code == 10
    assert {name for name, word in ran.rows().items() if word == "FAILED"} == {"static.caches"}
    assert "user: the image has no user 12345 and HOME=/ cannot be written to" in ran.out
    line = ran.out.splitlines()[-1]
    assert line == "Try: docker run --rm -u 12345:100 -e HOME=/tmp -e USER=uid12345 IMAGE"
    # What it advises, done: the same container passes.
    mended = {"HOME": "/tmp", "USER": "uid12345"}
    ran = start(client, good_image, "--level static", entrypoint="imgcheck", user="12345:100", environment=mended)
    assert ran.code == 0, ran.out


def test_a_read_only_root_without_a_place_for_temporary_files(client: docker.DockerClient, good_image: str) -> None:
    ran = start(client, good_image, "imgcheck", read_only=True)
    assert ran.code == 11
    assert ran.out.splitlines() == [
        "imgcheck: nothing ran: there is no place for temporary files",
        "Try: docker run --rm --read-only --tmpfs /tmp:exec IMAGE",
    ]
    assert ran.err == ""
    ran = start(client, good_image, "imgcheck --level static", read_only=True, tmpfs={"/tmp": "exec"})
    assert ran.code == 0, ran.out
    assert ran.rows()["static.readonly"] == "passed"


def test_a_level_that_nothing_here_reaches_is_incomplete(client: docker.DockerClient, good_image: str) -> None:
    command = "sh -c 'imgcheck --level gpu --json /tmp/found.json >/dev/null; echo $?; cat /tmp/found.json'"
    ran = start(client, good_image, command, shm_size="1g")
    code, _, text = ran.out.partition("\n")
    assert code == "11"
    found = json.loads(text)
    assert found["exit_code"] == 11
    assert found["level"] == "gpu"
    assert found["advice"] == []  # a CPU image asks for no --gpus
    not_run = {
        row["name"] for row in found["checks"] if row["status"] == "not_run" and row["name"].startswith("torch.")
    }
    assert "torch.gpu.train.amp" in not_run
    assert found["release"]["suite"] == read((shipped_data() / "dockerfiles/files/imgcheck.pyz").read_bytes()).suite
