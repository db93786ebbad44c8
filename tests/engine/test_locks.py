"""Builds from lock files on a real engine: what is locked is installed, and nothing else is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from command import Built, Ran

from builder.lock import EnvironmentLock, LockedPackage, PythonRequest
from builder.lock.file import Locks, write_environment

pytestmark = pytest.mark.engine

MATRIX = """\
version: 1
repository: unused
axes: {framework: [tiny-locked==1.0], cuda: [cpu], python: ["3.11"]}
bases:
  locks-base:
    image: debian:bookworm-slim
    bootstrap: {distribution: debian, suite: bookworm}
    python: ["3.11"]
frameworks:
  tiny-locked: {image: locked, template: t.j2, facts: none}
defaults: {base: locks-base}
tags: ["{version}"]
"""
TEMPLATE = """\
{%- import "_site.j2" as site with context -%}
ARG BASE=x
FROM ${BASE} AS tools
{{ site.apt_locked(["python3", "python3-venv"]) }}
RUN python3 -m venv /opt/tools

FROM tools AS image
{{ site.apt_locked(["tini"], after=["python3", "python3-venv"]) }}
RUN {{ site.pip_mounts() }} \\
    {{ site.packages(python(["tiny-locked==1.0"])) }} \\
    {{ site.enter_pip(none) }} \\
    && pip install --target /installed --no-index {{ site.locked() }}
"""
WHEEL = "tiny_locked-1.0-py3-none-any.whl"
ENVIRONMENT = "tiny-locked-1.0-cpu-py3.11-locks-base"


def make_wheel(path: Path) -> str:
    """Writes a wheel of one module; returns its SHA-256."""
    information = "tiny_locked-1.0.dist-info"
    files = {
        "tiny_locked.py": "VALUE = 1\n",
        f"{information}/METADATA": "Metadata-Version: 2.1\nName: tiny-locked\nVersion: 1.0\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{information}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, f"{information}/RECORD": record}.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class LockedProject:
    """A project whose locks hold today's versions; copied for each test."""

    root: Path
    built: Built

    @property
    def base(self) -> Path:
        return self.root / "dockerfiles/locks/locks-base.base.json"

    @property
    def python(self) -> Path:
        return self.root / f"dockerfiles/locks/{ENVIRONMENT}.python.json"

    def change(self, path: Path, *keys: str | int, value: object) -> None:
        """Changes one value of a lock file."""
        document = json.loads(path.read_text())
        place: Any = document
        for key in keys[:-1]:
            place = place[key]
        assert place[keys[-1]] != value
        place[keys[-1]] = value
        path.write_text(json.dumps(document))

    def run(self, *arguments: str) -> Ran:
        return self.built.run(*arguments, cwd=self.root, state=self.root / "state")

    def build(self, *options: str) -> Ran:
        return self.run("build", "--no-check", "--bases", "bootstrap", "--format", "json", *options)

    def refused(self, code: int) -> list[str]:
        """The reasons of the one cell, which failed with this exit code."""
        ran = self.build()
        assert ran.code == code, ran.out + ran.err
        (cell,) = ran.json["cells"]
        assert cell["exit_code"] == code
        return list(cell["reasons"])


@pytest.fixture(scope="module")
def original(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> LockedProject:
    root = tmp_path_factory.mktemp("locked")
    (root / "dockerfiles").mkdir()
    (root / "wheels").mkdir()
    (root / "matrix.yaml").write_text(MATRIX)
    (root / "dockerfiles/t.j2").write_text(TEMPLATE)
    package = LockedPackage(name="tiny-locked", version="1.0", file=WHEEL, sha256=make_wheel(root / "wheels" / WHEEL))
    installs = {PythonRequest(requirements=("tiny-locked==1.0",), after=()): ("tiny-locked",)}
    lock = EnvironmentLock(name=ENVIRONMENT, constraints="", packages={"tiny-locked": package}, installs=installs)
    write_environment(Locks(root / "dockerfiles/locks"), lock)
    environment = {**os.environ, "IMGBUILD_FIND_LINKS": str(root / "wheels")}
    project = LockedProject(root=root, built=Built(repository=prefix, report={}, environment=environment))
    ran = project.run("lock", "--part", "debian")
    assert ran.code == 0, ran.out + ran.err
    return project


@pytest.fixture
def project(original: LockedProject, tmp_path: Path) -> LockedProject:
    shutil.copytree(original.root, tmp_path / "project")
    return LockedProject(root=tmp_path / "project", built=original.built)


@pytest.fixture
def client() -> Iterator[docker.DockerClient]:
    found = docker.from_env(timeout=600)
    yield found
    found.close()


def test_exactly_what_is_locked_is_installed(project: LockedProject, client: docker.DockerClient) -> None:
    lock = json.loads(project.base.read_text())
    assert [request["after"] for request in lock["requests"]] == [[], ["python3", "python3-venv"]]
    assert list(lock["requests"][1]["installs"]) == ["tini"]
    assert lock["digest"] or lock["why"]
    ran = project.build()
    assert ran.code == 0, ran.out + ran.err
    (cell,) = ran.json["cells"]
    query = (
        "dpkg-query -W -f '${Package} ${Version}\\n'; ls -A /etc/apt/preferences.d /var/lib/apt/lists; ls /installed"
    )
    out = client.containers.run(cell["image_id"], ["sh", "-c", query], remove=True).decode()
    installed = dict(line.split(" ") for line in out.splitlines() if " " in line)
    expected = dict(lock["made"]["packages"])
    for request in lock["requests"]:
        expected |= request["installs"]
    assert installed == expected
    assert (
        "/etc/apt/preferences.d:\n\n/var/lib/apt/lists:\n__pycache__\ntiny_locked-1.0.dist-info\ntiny_locked.py\n"
        in out
    )
    # The lock is the same for everybody: nothing of this machine is in it.
    assert "://" not in project.base.read_text()


def test_locking_twice_changes_nothing(project: LockedProject) -> None:
    before = project.base.read_bytes()
    # What is locked is not asked for again: neither an archive nor a base is there to be asked.
    ran = project.run("lock", "--part", "debian", "--format", "json")
    assert ran.code == 0, ran.out + ran.err
    assert project.base.read_bytes() == before
    again = project.run("lock", "--part", "debian", "--upgrade", "debian")
    assert again.code == 0, again.out + again.err
    assert project.base.read_bytes() == before


def test_a_new_request_is_added_and_the_others_stay(project: LockedProject) -> None:
    before = json.loads(project.base.read_text())
    template = project.root / "dockerfiles/t.j2"
    template.write_text(template.read_text().replace('["tini"]', '["tini", "hello"]'))
    assert project.build().code == 19
    ran = project.run("lock", "--part", "debian")
    assert ran.code == 0, ran.out + ran.err
    after = json.loads(project.base.read_text())
    assert list(after["requests"][1]["installs"]) == ["hello", "tini"]
    assert (after["requests"][0], after["made"], after["refreshed"]) == (
        before["requests"][0],
        before["made"],
        before["refreshed"],
    )
    template.write_text(template.read_text().replace('"hello"', '"no-such-package"'))
    ran = project.run("lock", "--part", "debian")
    assert ran.code == 8, ran.out + ran.err
    assert "Unable to locate package no-such-package" in ran.err
    assert json.loads(project.base.read_text()) == after


def test_a_wrong_hash_is_refused(project: LockedProject) -> None:
    right = json.loads(project.python.read_text())["packages"]["tiny-locked"]["sha256"]
    wrong = "0" * 64
    project.change(project.python, "packages", "tiny-locked", "sha256", value=wrong)
    reasons = project.refused(9)
    assert f"the hash of tiny-locked==1.0 ({WHEEL}) differs from the lock" in reasons[0]
    assert right in reasons[0]
    assert wrong in reasons[0]
    project.change(project.python, "packages", "tiny-locked", "sha256", value=right)
    assert project.build().code == 0


def test_a_wrong_version_of_a_distributions_package_is_refused(project: LockedProject) -> None:
    right = json.loads(project.base.read_text())["requests"][1]["installs"]["tini"]
    project.change(project.base, "requests", 1, "installs", "tini", value="0.0.1-1")
    reasons = project.refused(9)
    assert reasons[0] == f"tini is {right}, the lock says 0.0.1-1"
    assert "imgbuild lock --upgrade debian" in reasons[1]
    project.change(project.base, "requests", 1, "installs", "tini", value=right)
    assert project.build().code == 0


def test_a_package_that_the_lock_does_not_name_is_refused(project: LockedProject) -> None:
    project.change(project.base, "requests", 1, "installs", value={})
    reasons = project.refused(9)
    assert reasons[0].startswith("tini is ")
    assert reasons[0].endswith(", the lock says nothing of it")


def test_a_base_that_is_not_the_locked_one_is_refused(project: LockedProject) -> None:
    right = json.loads(project.base.read_text())["made"]["packages"]["apt"]
    project.change(project.base, "made", "packages", "apt", value="9.9.9")
    dry = project.run("build", "--bases", "bootstrap", "--dry-run", "--format", "json")
    assert dry.json["pending_bases"] == ["locks-base"]
    ran = project.build()
    assert ran.code == 19, ran.out + ran.err
    assert f"apt is {right}, the lock says 9.9.9" in ran.err
    assert "imgbuild lock --upgrade debian" in ran.err
    project.change(project.base, "made", "packages", "apt", value=right)
    assert project.build().code == 0


def test_a_lock_that_is_missing_or_tampered_with(project: LockedProject) -> None:
    text = project.python.read_text()
    project.python.unlink()
    ran = project.build()
    assert ran.code == 19
    assert "imgbuild lock" in ran.err
    project.python.write_text(text.replace('"tiny-locked": {', '"other": {'))
    assert project.build().code == 5
    project.python.write_text(text)
    assert project.build().code == 0


def test_the_registrys_form_needs_a_digest_in_the_lock(project: LockedProject) -> None:
    if json.loads(project.base.read_text())["digest"] is not None:
        project.change(project.base, "digest", value=None)
        project.change(project.base, "why", value="no registry")
    ran = project.run("build", "--no-check", "--bases", "registry", "--format", "json")
    assert ran.code == 19, ran.out + ran.err
    assert "debian:bookworm-slim is locked without a digest" in ran.err
    automatic = project.run("build", "--no-check", "--format", "json")
    assert automatic.code == 0, automatic.out + automatic.err
    assert "bootstrap, " in automatic.json["bases"][0]
    assert "the lock has no digest" in automatic.json["bases"][0]
