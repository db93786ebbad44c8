"""What goes wrong on a real engine: one clear message, its own exit code, nothing half-tagged, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from command import CELLS, Built

pytestmark = pytest.mark.engine

MATRIX = """\
version: 1
repository: unused
axes:
  framework: [torch==2.13.0]
  cuda: [cpu]
  python: ["3.11"]
  extras:
    - [one]
    - [two]
bases:
  failures-base:
    image: debian:bookworm-slim
    bootstrap: {distribution: debian, suite: bookworm}
    python: ["3.11"]
frameworks:
  torch: {image: pytorch, template: t.j2, constraints: c.txt, facts: none}
extras:
  one: {packages: [one], named: true}
  two: {packages: [two], named: true}
defaults: {base: failures-base}
tags: ["{version}{extras}"]
"""
CONSTRAINTS = "torch==2.13.0+cpu\none==1\ntwo==1\npip==26.3\n"
TEMPLATE = "ARG BASE=x\nFROM ${BASE}\n# {{ file(cell.framework.constraints) }}\n"

Project = Callable[[str], Path]


@pytest.fixture
def project(tmp_path: Path, built: Built) -> Project:
    """Makes a project of two cells from the lines that end its template. It shares the base of this run's prefix."""

    def make(lines: str) -> Path:
        root = tmp_path / "project"
        (root / "dockerfiles").mkdir(parents=True)
        (root / "matrix.yaml").write_text(MATRIX)
        (root / "dockerfiles/c.txt").write_text(CONSTRAINTS)
        (root / "dockerfiles/t.j2").write_text(TEMPLATE + lines + "\n")
        return root

    return make


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    found = docker.from_env(timeout=600)
    yield found
    found.close()


def references(client: docker.DockerClient, prefix: str, word: str) -> list[str]:
    return [tag for image in client.images.list() for tag in image.tags if tag.startswith(prefix) and word in tag]


def test_a_step_that_fails_is_named_and_the_other_cell_finishes(
    built: Built, project: Project, client: docker.DockerClient, tmp_path: Path
) -> None:
    root = project("RUN {% if extras.two is defined %}echo about to break && exit 42{% else %}true{% endif %}")
    ran = built.run("build", "--no-check", "--format", "json", cwd=root, state=tmp_path / "state")
    assert ran.code == 9
    one, two = ran.json["cells"]
    assert (one["status"], one["built"], one["references"]) == ("built", True, [])
    assert two["status"] == "failed"
    text = "\n".join((*two["reasons"], *two["detail"]))
    assert "about to break" in text
    assert "exit 42" in text
    assert "Dockerfile line 4" in text
    assert references(client, built.repository, "2.13.0-one") == []
    assert len(references(client, built.repository, one["key"])) == 1


def test_a_cell_that_cannot_be_begun_is_not_built_and_the_others_are(
    built: Built, project: Project, client: docker.DockerClient, tmp_path: Path
) -> None:
    root = project("RUN echo begun {% if extras.two is defined %}{{ python(['torch']) }}{% endif %}")
    matrix = (root / "matrix.yaml").read_text()
    assert "\nbases:\n" in matrix
    matrix = matrix.replace(
        "\nbases:\n",
        "\ninclude:\n"
        "  - {framework: torch==2.13.0, cuda: cpu, python: '3.11', base: nowhere, extras: [one], reason: y}\n"
        "bases:\n  nowhere: {image: 'localhost:1/nothing:1', python: ['3.11']}\n",
    ).replace('tags: ["{version}{extras}"]', 'tags: ["{version}{extras}-{base}"]')
    (root / "matrix.yaml").write_text(matrix)
    arguments = ("build", "--no-check", "--format", "json")
    ran = built.run(*arguments, cwd=root, state=tmp_path / "state")
    assert ran.code == 8, ran.err
    one, two, nowhere = ran.json["cells"]
    assert (one["status"], one["exit_code"], one["built"]) == ("built", 0, True)
    assert (two["status"], two["exit_code"], two["built"]) == ("not built", 19, False)
    assert "is not locked" in two["reasons"][0]
    assert two["reasons"][1].startswith("run `imgbuild lock`")
    assert (nowhere["status"], nowhere["exit_code"], nowhere["built"]) == ("not built", 8, False)
    assert "localhost:1" in nowhere["reasons"][0]
    assert len(references(client, built.repository, one["key"])) == 1
    # It is said before anything is built, and again where it is all that there is.
    dry = built.run(*arguments, "--dry-run", cwd=root, state=tmp_path / "state")
    assert dry.code == 8, dry.err
    assert [item["cell"] for item in dry.json["not_built"]] == [two["cell"], nowhere["cell"]]
    assert [item["cell"] for item in dry.json["actions"]] == [one["cell"]]
    alone = built.run(*arguments, two["cell"], cwd=root, state=tmp_path / "state")
    assert (alone.code, alone.out) == (19, "")
    assert "is not locked" in alone.err
    # Alone, the cell that can be begun is all good.
    assert built.run(*arguments, one["cell"], cwd=root, state=tmp_path / "state").code == 0


def test_an_image_whose_check_fails_gets_no_tag(
    built: Built, project: Project, client: docker.DockerClient, tmp_path: Path
) -> None:
    root = project("RUN echo {{ cell.id }} > /marker")
    ran = built.run("build", "--only", "extras=one", "--format", "json", cwd=root, state=tmp_path / "state")
    assert ran.code == 10
    (cell,) = ran.json["cells"]
    assert cell["reasons"] == ["run.result: the image has no python3 to run the check with"]
    assert (cell["built"], cell["checked"], cell["moved"], cell["references"]) == (True, True, [], [])
    assert references(client, built.repository, "2.13.0-one") == []


def test_two_runs_at_once_build_one_image(built: Built, project: Project, tmp_path: Path) -> None:
    root = project("RUN echo together && sleep 3")
    arguments = ["build", "--no-check", "--only", "extras=one", "--format", "json", "--repository", built.repository]
    environment = {**built.environment, "IMGBUILD_STATE_DIR": str(tmp_path / "state")}
    runs = [start(arguments, environment, root) for _ in range(2)]
    outputs = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sorted(output.count('"built": true') for output in outputs) == [0, 1]


def test_two_runs_that_share_no_state_agree_on_one_candidate(
    built: Built, project: Project, client: docker.DockerClient, tmp_path: Path
) -> None:
    root = project("RUN echo apart && sleep 4")
    arguments = ["build", "--no-check", "--only", "extras=one", "--format", "json", "--repository", built.repository]
    runs = []
    for name in ("here", "there"):
        runs.append(start(arguments, {**built.environment, "IMGBUILD_STATE_DIR": str(tmp_path / name)}, root))
        time.sleep(1.3)  # another second, so another creation date and another image id
    cells = [json.loads(run.communicate(timeout=120)[0])["cells"][0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sorted(cell["built"] for cell in cells) == [False, True]
    assert len({cell["image_id"] for cell in cells}) == 1
    assert references(client, built.repository, cells[0]["key"]) == [cells[0]["candidate"]]


def test_a_cell_without_an_image_does_not_cost_the_others_their_check(
    built: Built, project: Project, tmp_path: Path
) -> None:
    root = project("RUN echo {{ cell.id }} only one is built")
    assert built.run("build", "--no-check", "--only", "extras=one", cwd=root, state=tmp_path / "state").code == 0
    ran = built.run("check", "*", "--format", "json", cwd=root, state=tmp_path / "state")
    assert ran.code == 10
    one, two = ran.json["cells"]
    assert (one["checked"], one["reasons"]) == (True, ["run.result: the image has no python3 to run the check with"])
    assert (two["checked"], two["exit_code"]) == (False, 18)
    assert "holds no image" in two["reasons"][0]


def test_a_state_directory_that_cannot_be_written(built: Built) -> None:
    ran = built.run("build", CELLS[0], "--rebuild", "--no-check", "--bases", "bootstrap", state=Path("/proc/imgbuild"))
    assert ran.code == 17, ran.err
    assert "Traceback" not in ran.err


def test_a_signal_ends_the_making_of_a_base(built: Built, tmp_path: Path, client: docker.DockerClient) -> None:
    repository = f"{built.repository}-other"
    environment = {**built.environment, "IMGBUILD_STATE_DIR": str(tmp_path)}
    arguments = ["build", "--no-check", "--bases", "bootstrap", "--repository", repository, "--progress", "plain"]
    run = start(arguments, environment, tmp_path)
    assert run.stderr is not None
    for line in run.stderr:
        if "downloading" in line or "apt-get update" in line:
            break
    run.send_signal(signal.SIGINT)
    began = time.monotonic()
    run.communicate(timeout=60)
    assert run.returncode == 130
    assert time.monotonic() - began < 25
    assert references(client, repository, "base") == []


def start(arguments: list[str], environment: dict[str, str], cwd: Path) -> subprocess.Popen[str]:
    program = Path(sys.executable).with_name("imgbuild")
    return subprocess.Popen(
        [str(program), *arguments],
        env=environment,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def await_(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(0.1)


def process_is_running(marker: str) -> bool:
    """Whether some process of this machine, in a container or not, has the marker in its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker in path.read_text(errors="replace") and int(path.parent.name) != os.getpid():
                return True
        except OSError:
            continue
    return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_the_build_on_the_engine(
    built: Built, project: Project, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    marker = f"31{int(time.time())}"
    root = project(f"RUN sleep {marker}")
    arguments = ["build", "--no-check", "--only", "extras=one", "--repository", built.repository]
    environment = {**built.environment, "IMGBUILD_STATE_DIR": str(tmp_path / "state")}
    run = start(arguments, environment, root)
    await_(lambda: process_is_running(f"sleep {marker}") or process_is_running(f"sleep\0{marker}"), "the step starts")
    run.send_signal(number)
    out, err = run.communicate(timeout=60)
    assert run.returncode == code, out + err
    assert "cancelled" in out
    await_(lambda: not process_is_running(f"sleep\0{marker}"), "the step ends on the engine")


def check_containers(client: docker.DockerClient, image: str) -> list[str]:
    found = client.api.containers(all=True, filters={"ancestor": image})
    return [str(container["Id"]) for container in found]


@pytest.fixture
def endless(good_image: str, client: docker.DockerClient, prefix: str) -> Iterator[str]:
    """Name of a child of the good image whose check never ends, whatever it is told."""
    name = f"{prefix}-endless:1"
    script = 'rm /opt/venv/bin/python3 && printf \'#!/bin/sh\\ntrap "" TERM INT\\nsleep 3600 & wait\\n'
    script += "while :; do sleep 1; done\\n' > /opt/venv/bin/python3 && chmod 755 /opt/venv/bin/python3"
    container = client.containers.create(good_image, entrypoint=["/bin/sh", "-c"], command=[script], user="0:0")
    container.start()
    assert container.wait()["StatusCode"] == 0, container.logs()
    container.commit(*name.split(":"), conf=client.images.get(good_image).attrs["Config"])
    container.remove()
    yield name
    client.images.remove(name, force=True)


def test_a_check_that_never_ends_is_killed_at_its_deadline(
    built: Built, endless: str, client: docker.DockerClient
) -> None:
    started = time.monotonic()
    environment = built.environment
    run = start(["check", "--image", endless, "--check-deadline", "5"], environment, Path.cwd())
    out, err = run.communicate(timeout=60)
    assert run.returncode == 10, err
    assert "did not end within 5 s and was killed" in out
    assert time.monotonic() - started < 40
    assert check_containers(client, endless) == []


def test_a_signal_during_a_check_leaves_no_container(built: Built, endless: str, client: docker.DockerClient) -> None:
    run = start(["check", "--image", endless], built.environment, Path.cwd())
    await_(lambda: len(check_containers(client, endless)) == 1, "the check starts")
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 143, err
    assert check_containers(client, endless) == []


def test_what_a_killed_run_leaves_is_removed_by_the_next(
    built: Built, endless: str, client: docker.DockerClient
) -> None:
    run = start(["check", "--image", endless], built.environment, Path.cwd())
    await_(lambda: len(check_containers(client, endless)) == 1, "the check starts")
    run.kill()
    run.communicate(timeout=60)
    assert len(check_containers(client, endless)) == 1
    assert built.run("build", CELLS[0]).code == 0
    assert check_containers(client, endless) == []
