"""`.ci/prepare buildx`: the machine's own, the distribution's, or the one of a newer Debian."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TOOLS = ["sh", "dirname", "basename", "env", "cat", "mktemp", "mkdir", "grep", "sed", "mv", "cp", "find", "rm", "chmod"]


class Machine:
    """A checkout, and programs that only note what they are asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / ".ci").mkdir()
        shutil.copy(ROOT / ".ci/prepare", root / ".ci/prepare")
        self.programs = root / "bin"
        self.programs.mkdir()
        for name in TOOLS:
            (self.programs / name).symlink_to(shutil.which(name) or name)
        self.program("id", "echo 0")
        self.program("docker", "exit 1")
        self.program("apt-cache")
        self.program(
            "dpkg-deb",
            'to="$3/usr/libexec/docker/cli-plugins"; mkdir -p "$to"; echo plugin >"$to/docker-buildx"',
        )
        self.program(
            "apt-get",
            f'echo "$*" >>{root}/apt\ncase $* in *" download "*) : >docker-buildx_0.13.1_amd64.deb ;; esac',
        )

    def program(self, name: str, text: str = "") -> None:
        file = self.programs / name
        file.unlink(missing_ok=True)
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    def prepare(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.root / ".ci/prepare", "buildx"],
            env={"PATH": os.fspath(self.programs), "TMPDIR": os.fspath(self.root)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @property
    def asked(self) -> str:
        noted = self.root / "apt"
        return noted.read_text() if noted.exists() else ""

    @property
    def plugin(self) -> Path:
        return self.root / ".ci/.buildx/cli-plugins/docker-buildx"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_machine_has_it(machine: Machine) -> None:
    machine.program("docker")
    assert machine.prepare().returncode == 0
    assert machine.asked == ""
    assert not machine.plugin.exists()


def test_the_distribution_has_it(machine: Machine) -> None:
    machine.program("apt-cache", "echo docker-buildx")
    ran = machine.prepare()
    assert ran.returncode == 0, ran.stderr
    assert "install --yes --no-install-recommends docker-buildx" in machine.asked
    assert not machine.plugin.exists()


def test_a_newer_debian_has_it_and_nothing_is_installed(machine: Machine) -> None:
    ran = machine.prepare()
    assert ran.returncode == 0, ran.stderr
    assert machine.plugin.read_text() == "plugin\n"
    assert os.access(machine.plugin, os.X_OK)
    assert "install" not in machine.asked
    # The machine's own lists of packages stay as they are.
    for line in machine.asked.splitlines():
        assert "Dir::Etc::SourceList=/dev/null" in line
        assert f"Dir::State::Lists={machine.root}/" in line
        assert f"Dir::Cache={machine.root}/" in line
    assert [path.name for path in machine.root.iterdir() if path.name.startswith("tmp.")] == []
    asked = machine.asked
    assert machine.prepare().returncode == 0
    assert machine.asked == asked


def test_what_cannot_be_downloaded_is_said(machine: Machine) -> None:
    machine.program("apt-get", "exit 100")
    ran = machine.prepare()
    assert ran.returncode == 1
    assert "could not be downloaded" in ran.stderr
    assert not machine.plugin.exists()
    assert [path.name for path in machine.root.iterdir() if path.name.startswith("tmp.")] == []
