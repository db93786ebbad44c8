"""`.ci/prepare` on machines that lack something: what it installs, and when it says at once that it cannot help."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PERMISSION = "cannot reach the Docker engine: no permission on unix:///var/run/docker.sock (from the default)"
NO_SOCKET = "cannot reach the Docker engine: there is no socket at unix:///var/run/docker.sock (from the default)"


class Machine:
    """A checkout with an environment, in which apt-get only notes what it is to install.

    There is an engine once `up` exists: docker.io "starts" one.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.programs = root / "bin"
        self.programs.mkdir()
        (root / ".ci").mkdir()
        shutil.copy(ROOT / ".ci/prepare", root / ".ci/prepare")
        (root / ".venv/bin").mkdir(parents=True)
        for name in ("sh", "dirname", "env", "cat"):
            (self.programs / name).symlink_to(shutil.which(name) or name)
        self.program("apt-get", f'echo "$*" >>{root}/apt\ncase $* in *docker.io*) : >{root}/up ;; esac')
        self.program("sudo", '"$@"')
        self.program("id", "echo 1000")
        self.without_engine(NO_SOCKET)

    def program(self, name: str, text: str = "") -> None:
        file = self.programs / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    def without_engine(self, reason: str) -> None:
        python = self.root / ".venv/bin/python"
        python.write_text(f"#!/bin/sh\n[ -e {self.root}/up ] || {{ echo '{reason}' >&2; exit 1; }}\n")
        python.chmod(0o755)

    def prepare(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.root / ".ci/prepare", "engine"],
            env={"PATH": os.fspath(self.programs)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    def installed(self) -> set[str]:
        noted = self.root / "apt"
        lines = noted.read_text().splitlines() if noted.exists() else []
        words = {word for line in lines if " install " in line for word in line.split(" install ")[1].split()}
        # The host's own keyring cannot be hidden from the script.
        return {word for word in words if not word.startswith("-")} - {"debian-archive-keyring"}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_everything_is_missing(machine: Machine) -> None:
    ran = machine.prepare()
    assert ran.returncode == 0, ran.stderr
    assert machine.installed() == {"mmdebstrap", "uidmap", "docker.io", "iptables", "docker-cli"}


def test_nothing_is_missing(machine: Machine) -> None:
    for name in ("mmdebstrap", "newuidmap", "docker", "dockerd"):
        machine.program(name)
    (machine.root / "up").touch()
    ran = machine.prepare()
    assert ran.returncode == 0, ran.stderr
    assert machine.installed() == set()


def test_root_needs_no_ids(machine: Machine) -> None:
    machine.program("id", "echo 0")
    assert machine.prepare().returncode == 0
    assert "uidmap" not in machine.installed()
    assert "mmdebstrap" in machine.installed()


@pytest.mark.parametrize("reason", [PERMISSION, NO_SOCKET.replace("the default", "DOCKER_HOST"), "site.yaml: broken"])
def test_what_no_start_mends_is_said_at_once(machine: Machine, reason: str) -> None:
    machine.without_engine(reason)
    ran = machine.prepare()
    assert ran.returncode == 1
    assert reason in ran.stderr
    assert "docker.io" not in machine.installed()
    machine.without_engine(NO_SOCKET)
    assert machine.prepare().returncode == 0
    assert "docker.io" in machine.installed()


def test_the_reason_comes_from_the_engine_that_imgbuild_would_use(machine: Machine, tmp_path: Path) -> None:
    python = machine.root / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} DOCKER_HOST=unix://{tmp_path}/none exec {sys.executable} "$@"\n')
    ran = machine.prepare()
    assert ran.returncode == 1
    assert f"there is no socket at unix://{tmp_path}/none (from DOCKER_HOST)" in ran.stderr


@pytest.mark.parametrize("words", [(), ("environment",), ("everything",)])
def test_what_it_does_not_understand_it_says_how_to_ask(words: tuple[str, ...]) -> None:
    ran = subprocess.run([ROOT / ".ci/prepare", *words], capture_output=True, text=True, timeout=20, check=False)
    assert ran.returncode == 1
    assert ran.stderr.startswith("prepare: usage: .ci/prepare environment DIR [EXTRAS] | engine")
