"""The workflows' scripts from plan to promotion, on a real engine and a real registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest
from buildx_plugin import buildx_environment
from loopback_registry import registry
from tiny_project import project
from workflow_steps import ROOT, Runner

from builder.emit.jobs import digest_of
from builder.emit.records import CellRecord, Record
from builder.emit.registry import held_digest, promote, push
from builder.engine.connection import Engine
from builder.engine.errors import ImageMissing, RegistryError
from builder.engine.images import inspect, registry_digest, tag
from builder.site import Site

pytestmark = pytest.mark.engine

CELL = "torch-2.13.0-cpu-py3.11"
MATRIX = """\
version: 1
repository: r
axes: {framework: [torch==2.13.0], cuda: [cpu], python: ["3.11"], extras: [[]]}
bases:
  bookworm:
    image: debian:bookworm-slim
    bootstrap: {distribution: debian, suite: bookworm}
    python: ["3.11"]
frameworks:
  torch: {image: pytorch, template: small.Dockerfile.j2, channels: {cpu: wheels}}
channels: {wheels: "https://download.pytorch.org/whl/cpu"}
defaults: {base: bookworm, require: {verified: static}}
tags: ["{version}-{cuda}-py{python}{extras}"]
aliases: {latest: torch-2.13.0-cpu-py3.11}
"""
TEMPLATE = """\
{%- import "_site.j2" as site with context -%}
ARG BASE
FROM ${BASE}
{{ site.apt_install(["python-is-python3", "python3-pip"]) }}
RUN d=/usr/lib/python3/dist-packages/torch-2.13.0.dist-info && mkdir $d \\
    && printf 'Metadata-Version: 2.1\\nName: torch\\nVersion: 2.13.0\\n' > $d/METADATA
ENV TORCH_HOME=/tmp/torch
USER 1000:1000
"""
"""What installs and trains in no time: these tests are about what becomes of an image that passed."""

OWNER = "An-Owner/A-Project"
JOB = {"inputs.bases": "auto", "matrix.cells": CELL, "matrix.id": digest_of([CELL])[:10]}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(state_dir=tmp_path / "state", config=tmp_path / "site.yaml")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found
        client = docker.from_env()
        for image in client.images.list():
            for name in image.tags:
                if name.startswith(f"{found}/"):
                    client.images.remove(name, force=True)
        client.close()


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own, into which the workflows install imgbuild."""
    directory = tmp_path_factory.mktemp("python")
    subprocess.run([sys.executable, "-m", "venv", directory], check=True, capture_output=True, timeout=120)
    return directory / "bin"


def checkout(directory: Path) -> Path:
    """The repository with a small cell in its matrix."""
    directory.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, directory)
    for name in ("builder", "dockerfiles", "docs"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "matrix.yaml").write_text(MATRIX)
    (directory / "dockerfiles/small.Dockerfile.j2").write_text(TEMPLATE)
    return directory


class Machines:
    """Gives each job a machine of its own: another checkout and another state, on the one engine."""

    def __init__(self, directory: Path, python: Path, address: str) -> None:
        self.directory = directory
        self.environment = {
            **buildx_environment(),
            "PATH": f"{python}{os.pathsep}{os.environ['PATH']}",
            "GITHUB_REPOSITORY": OWNER,
            "REGISTRY": address,
            "IMGBUILD_BASES": "auto",
        }
        self.count = 0

    def new(self) -> Runner:
        self.count += 1
        state = {"IMGBUILD_STATE_DIR": str(self.directory / f"state-{self.count}")}
        return Runner(
            directory=checkout(self.directory / f"machine-{self.count}"), environment={**self.environment, **state}
        )

    def after(self, plan: Runner, *built: Runner) -> Runner:
        """One that has the artifacts of these."""
        found = self.new()
        shutil.copy(plan.directory / "plan.txt", found.directory)
        for runner in built:
            shutil.copytree(
                runner.directory / "imgbuild-records", found.directory / "imgbuild-records", dirs_exist_ok=True
            )
        return found


@pytest.fixture
def machines(tmp_path: Path, python: Path, address: str) -> Machines:
    return Machines(tmp_path, python, address)


def tags_of(address: str, repository: str) -> set[str]:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        f"http://{address}/v2/{repository}/tags/list", timeout=30
    ) as answer:
        return set(json.load(answer)["tags"])


def results(plan: str, has_jobs: str, images: str) -> dict[str, str]:
    return {"needs.plan.result": plan, "needs.plan.outputs.has_jobs": has_jobs, "needs.images.result": images}


def missing(runner: Runner) -> list[str]:
    """What `--missing` leaves on a machine."""
    command = ["imgbuild", "matrix", "--missing", "--format", "json"]
    command += ["--repository", runner.environment["IMGBUILD_REPOSITORY"]]
    ran = subprocess.run(
        command,
        cwd=runner.directory,
        env=runner.environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
    )
    return [cell["cell"] for cell in json.loads(ran.stdout)["cells"]]


def record_of(runner: Runner) -> dict[str, Any]:
    return dict(json.loads((runner.directory / f"imgbuild-records/{JOB['matrix.id']}.json").read_text()))


def test_from_plan_to_promotion_and_again(machines: Machines, address: str, engine: Engine) -> None:
    plan = machines.new()
    assert plan.job("images.yml", "plan", {"inputs.all || false": "false"}) == 0, plan.said
    assert plan.outputs["has_jobs"] == "true"
    (group,) = json.loads(plan.outputs["groups"])["include"]
    (row,) = json.loads(group["matrix"])["include"]
    assert row == {"id": JOB["matrix.id"], "name": CELL, "cells": CELL}

    built = machines.new()
    assert built.job("build-cells.yml", "cells", JOB) == 0, built.said
    assert missing(plan) == [CELL]  # as far as that machine knows, nobody has checked the image
    assert missing(built) == []
    repository = f"{OWNER.lower()}/pytorch"
    (cell,) = record_of(built)["cells"]
    # Nothing but the immutable name before the gate has said yes.
    assert {f"{address}/{repository}:{name}" for name in tags_of(address, repository)} == {cell["candidate"]}
    assert cell["digest"] == registry_digest(engine, cell["candidate"])

    no_records = machines.after(plan)
    assert no_records.job("images.yml", "gate", results("success", "true", "success")) == 11, no_records.said
    assert "left no record" in no_records.said
    gate = machines.after(plan, built)
    assert gate.job("images.yml", "gate", results("success", "true", "failure")) == 1
    assert gate.job("images.yml", "gate", results("success", "true", "success")) == 0, gate.said

    promoted = machines.after(plan, built)
    assert promoted.job("images.yml", "promote", {}) == 0, promoted.said
    assert len(cell["references"]) == 4
    for reference in cell["references"]:
        assert registry_digest(engine, reference) == cell["digest"]
        assert f"moved     {reference}" in promoted.said
    assert len(tags_of(address, repository)) == 5

    again = machines.new()
    assert again.job("images.yml", "plan", {"inputs.all || false": "false"}) == 0, again.said
    assert again.outputs["has_jobs"] == "false"
    empty = machines.after(again)
    assert empty.job("images.yml", "gate", results("success", "false", "skipped")) == 0, empty.said

    # Another machine, which has nothing but the registry: it takes what is there, and checks it.
    client = docker.from_env()
    for image in client.images.list(f"{address}/{repository}"):
        for name in image.tags:
            client.images.remove(name, force=True)
    client.close()
    elsewhere = machines.new()
    assert elsewhere.job("build-cells.yml", "cells", JOB) == 0, elsewhere.said
    assert f"pulled {cell['candidate']}" in elsewhere.said
    (taken,) = record_of(elsewhere)["cells"]
    assert taken["run"] != cell["run"], "each has a directory of its own for its run"
    assert {**taken, "run": ""} == {**cell, "run": ""}
    report = json.loads((elsewhere.directory / f"imgbuild-records/{JOB['matrix.id']}.report.json").read_text())
    assert [(found["built"], found["checked"]) for found in report["cells"]] == [(False, True)]


@pytest.mark.parametrize(
    ("plan", "has_jobs", "images"),
    [
        ("failure", "", "skipped"),
        ("success", "true", "failure"),
        ("success", "true", "cancelled"),
        ("success", "true", "skipped"),
        ("success", "", "skipped"),
        ("success", "false", "success"),
        ("skipped", "false", "skipped"),
        ("cancelled", "true", "success"),
    ],
)
def test_the_gate_takes_nothing_but_success(machines: Machines, plan: str, has_jobs: str, images: str) -> None:
    runner = machines.new()
    assert runner.job("images.yml", "gate", results(plan, has_jobs, images)) == 1
    assert "not every job has succeeded" in runner.said


def test_a_cell_that_does_not_build_is_in_no_registry_and_through_no_gate(
    tmp_path: Path, address: str, tiny_base: str
) -> None:
    directory = project(tmp_path / "p", repository="r", base=tiny_base, versions=("2.13.0",), extras=1)
    template = directory / "dockerfiles/t.Dockerfile.j2"
    template.write_text(template.read_text() + "RUN false\n")
    matrix = directory / "matrix.yaml"
    matrix.write_text(matrix.read_text().replace(tiny_base, f"{address}/tiny:latest"))
    client = docker.from_env()
    client.api.tag(tiny_base, f"{address}/tiny", "latest")
    client.api.push(f"{address}/tiny", "latest")
    client.close()
    cell = f"{CELL}-extra0"
    job = digest_of([cell])[:10]
    environment = {
        **buildx_environment(),
        "IMGBUILD_STATE_DIR": str(tmp_path / "state"),
        "IMGBUILD_JOB": job,
        "IMGBUILD_CELLS": cell,
        "IMGBUILD_REPOSITORY": f"{address}/broken",
        "IMGBUILD_BASES": "registry",
        "IMGBUILD_JOBS": job,
    }

    def step(name: str) -> subprocess.CompletedProcess[str]:
        command = [Path(sys.executable).with_name("imgbuild"), "ci", name]
        return subprocess.run(
            command, cwd=directory, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    ran = step("run")
    assert ran.returncode == 9, ran.stderr
    record = json.loads((directory / f"imgbuild-records/{job}.json").read_text())
    assert [(found["cell"], found["status"], found["digest"]) for found in record["cells"]] == [(cell, "failed", "")]
    for name in ("gate", "promote"):
        closed = step(name)
        assert closed.returncode == 10, closed.stderr
        assert f"{cell}: failed" in closed.stderr
    # What never came to a cell says so with its own code.
    for pushing in ("true", "false"):
        environment |= {"IMGBUILD_CELLS": "no-such-cell", "IMGBUILD_PUSH": pushing}
        stopped = step("run")
        assert stopped.returncode == 2
        assert "no cell is selected" in stopped.stderr


@pytest.fixture
def two(tiny_base: str) -> Iterator[tuple[str, str]]:
    """Ids of two images."""
    client = docker.from_env()
    ids = []
    for word in ("one", "two"):
        container = client.containers.create(tiny_base, ["true"])
        ids.append(str(container.commit(changes=f"LABEL workflow={word}").id))
        container.remove()
    yield ids[0], ids[1]
    for image_id in ids:
        client.images.remove(image_id, force=True)
    client.close()


def candidate(engine: Engine, address: str, name: str, image_id: str) -> CellRecord:
    reference = f"{address}/{name}:candidate-{'0' * 64}"
    tag(engine, image_id, reference)
    return CellRecord(
        cell=name,
        status="verified",
        exit_code=0,
        candidate=reference,
        digest="",
        references=(f"{address}/{name}:1", f"{address}/{name}:1-verified"),
    )


def test_a_candidate_is_pushed_once_and_never_replaced(
    engine: Engine, address: str, two: tuple[str, str], site: Site
) -> None:
    first = push(engine, candidate(engine, address, "once", two[0]), site)
    assert first.digest == registry_digest(engine, first.candidate)
    assert push(engine, first, site) == first
    other = candidate(engine, address, "once", two[1])
    with pytest.raises(RegistryError, match="is not the image that was checked"):
        push(engine, other, site)
    assert registry_digest(engine, first.candidate) == first.digest
    assert tags_of(address, "once") == {first.candidate.rpartition(":")[2]}


def test_another_image_that_took_the_candidates_name_is_not_pushed(
    engine: Engine, address: str, two: tuple[str, str], site: Site
) -> None:
    passed = replace(candidate(engine, address, "taken", two[0]), image_id=two[0])
    tag(engine, two[1], passed.candidate)
    with pytest.raises(ImageMissing, match="not the image that passed"):
        push(engine, passed, site)
    assert held_digest(engine, passed.candidate) is None
    tag(engine, two[0], passed.candidate)
    assert push(engine, passed, site).digest == registry_digest(engine, passed.candidate)


def test_what_moved_since_it_passed_is_not_promoted(
    engine: Engine, address: str, two: tuple[str, str], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in buildx_environment().items():
        monkeypatch.setenv(name, value)
    good = push(engine, candidate(engine, address, "good", two[0]), site)
    moved = push(engine, candidate(engine, address, "moved", two[0]), site)
    tag(engine, two[1], moved.candidate)
    subprocess.run(["docker", "push", "--quiet", moved.candidate], check=True, capture_output=True, timeout=120)
    with pytest.raises(RegistryError, match="nothing was promoted"):
        list(promote([good, moved], site))
    assert tags_of(address, "good") == {good.candidate.rpartition(":")[2]}
    lines = list(promote([good], site))
    assert [line.split()[:2] for line in lines] == [["moved", reference] for reference in good.references]
    assert {registry_digest(engine, reference) for reference in good.references} == {good.digest}
    assert [line.split()[0] for line in promote([good], site)] == ["unchanged", "unchanged"]
    image = inspect(engine, two[0])
    assert image is not None
    assert image.id == two[0]


def test_promotion_of_what_was_never_pushed_is_refused(tmp_path: Path) -> None:
    cell = CellRecord(cell="c", status="verified", exit_code=0, candidate="r/c:candidate", digest="", references=())
    job = digest_of(["c"])[:10]
    (tmp_path / f"{job}.json").write_text(Record(job=job, pushed=False, cells=(cell,)).to_json())
    command = [Path(sys.executable).with_name("imgbuild"), "ci"]
    options = ["--jobs", job, "--records", str(tmp_path)]
    codes = {
        name: subprocess.run([*command, name, *options], capture_output=True, timeout=60, check=False).returncode
        for name in ("gate", "promote")
    }
    assert codes == {"gate": 0, "promote": 5}
