"""How an image was built is remembered by its id: key, base, template, locks, times."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from builder.attest.reading import canonical
from builder.builds import REVISION_LABEL, SOURCE_LABEL, recall_build, remember_build, source_labels
from builder.lock import BasePin, Bases
from builder.matrix import load_matrix
from builder.plan import Action
from builder.project import Project, find_project
from builder.records import Records
from builder.release.statements import configuration
from builder.render import render_all

PIN = BasePin(name="bookworm", source=Bases.REGISTRY, reference="debian@sha256:1", identity="registry:1", why="")
IMAGE = "sha256:" + "a" * 64
STARTED = datetime(2026, 11, 23, 13, 0, 0, tzinfo=timezone(timedelta(hours=1)))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return find_project(None, tmp_path_factory.mktemp("nowhere"))


@pytest.fixture(scope="module")
def action(project: Project) -> Action:
    cells = [cell for cell in load_matrix(project.matrix).cells if cell.id == "torch-2.13.0-cpu-py3.11-horovod"]
    (recipe,) = render_all(cells, project.shipped_dockerfiles)
    key = recipe.key(PIN)
    return Action(recipe=recipe, base=PIN, key=key, image_id=None, check=True, tags=(), why="")


def test_a_build_is_remembered_by_the_image(project: Project, action: Action, tmp_path: Path) -> None:
    records = Records(tmp_path)
    assert recall_build(records, IMAGE) is None
    finished = STARTED + timedelta(seconds=90)
    made = remember_build(
        records, project, action, IMAGE, started=STARTED, finished=finished, labels={REVISION_LABEL: "c0ffee"}
    )
    assert recall_build(Records(tmp_path), IMAGE) == made
    assert recall_build(records, IMAGE.replace("a", "b")) is None
    assert (made.started, made.finished) == ("2026-11-23T12:00:00Z", "2026-11-23T12:01:30Z")
    assert (made.key, made.cell, made.revision) == (action.key, action.cell.id, "c0ffee")
    assert (made.base, made.base_reference, made.base_source) == ("registry:1", "debian@sha256:1", "registry")
    assert made.template == "pytorch.Dockerfile.j2"
    assert made.dockerfile == hashlib.sha256(action.recipe.dockerfile.encode()).hexdigest()
    assert set(made.files) == {file.path for file in action.recipe.files}


def test_names_that_are_no_utf8_are_written_down_all_the_same(project: Project, action: Action, tmp_path: Path) -> None:
    matrix = tmp_path / os.fsdecode(b"m\xff.yaml")
    shutil.copyfile(project.matrix, matrix)
    git = ("git", "-C", str(tmp_path))
    for arguments in (("init", "-q"), ("add", "-A"), ("remote", "add", "origin", "https://example.org/\udcff")):
        subprocess.run([*git, *arguments], check=True)
    there = find_project(matrix, tmp_path)
    assert source_labels(there)[SOURCE_LABEL] == "https://example.org/\ufffd"
    name = configuration(there, action.recipe)[0].name
    assert canonical({"name": name}).decode() == '{"name":"m\ufffd.yaml"}'


def test_the_locks_are_those_that_the_recipe_came_from(project: Project, action: Action, tmp_path: Path) -> None:
    def locks(project: Project, action: Action) -> set[str]:
        build = remember_build(Records(tmp_path), project, action, IMAGE, started=STARTED, finished=STARTED, labels={})
        for name, digest in build.locks.items():
            owner = (
                project.dockerfiles if (project.dockerfiles / "locks" / name).exists() else project.shipped_dockerfiles
            )
            assert hashlib.sha256((owner / "locks" / name).read_bytes()).hexdigest() == digest
        return set(build.locks)

    python, base = "torch-2.13.0-cpu-py3.11-bookworm.python.json", "bookworm.base.json"
    assert action.recipe.locked is not None, "the shipped template installs what is locked"
    assert python in locks(project, action)
    free = replace(action, recipe=replace(action.recipe, locked=None))
    assert python not in locks(project, free)
    own = replace(project, dockerfiles=tmp_path / "own")
    (own.dockerfiles / "locks").mkdir(parents=True)
    (own.dockerfiles / "locks" / base).write_text("{}")
    assert base in locks(own, action)
