"""What CI systems are given: within their limits, valid by their own schemas, every cell exactly once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from emitting import REPOSITORY, six_hundred, some_cells
from fake_locks import fake_base

from builder.emit.bake import bake, pinned
from builder.emit.buildkite import JOBS_PER_UPLOAD, buildkite
from builder.emit.github import JOBS_PER_MATRIX, OUTPUT_BYTES, github
from builder.emit.gitlab import gitlab
from builder.emit.jobs import Job, make_jobs
from builder.emit.records import parse_plan
from builder.errors import ConfigError
from builder.lock.file import Locks, write_base

CHECK_JSONSCHEMA = Path(sys.executable).with_name("check-jsonschema")


def outputs(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def inner(text: str) -> Iterator[list[dict[str, str]]]:
    for group in json.loads(outputs(text)["groups"])["include"]:
        yield json.loads(group["matrix"])["include"]


def jobs_of(count: int) -> tuple[Job, ...]:
    return tuple(
        Job(id=f"{number:010x}", name=f"cell-{number}", cells=(f"cell-{number}",), environment="e", disk_mb=1)
        for number in range(count)
    )


def test_600_cells_for_github() -> None:
    cells = six_hundred()
    text = github(make_jobs(cells, max_jobs=None, disk_gb=14))
    groups = list(inner(text))
    assert [len(group) for group in groups] == [200, 200, 200]
    assert max(map(len, groups)) <= JOBS_PER_MATRIX
    rows = [row for group in groups for row in group]
    named = [cell for row in rows for cell in row["cells"].split()]
    assert sorted(named) == sorted(cell.id for cell in cells)
    assert len({row["id"] for row in rows}) == 600
    assert {tuple(row) for row in rows} == {("id", "name", "cells")}
    # One matrix cannot hold them: a workflow that asks for it fails, and builds no part of them.
    assert set(outputs(text)) == {"has_jobs", "groups"}
    outer = json.loads(outputs(text)["groups"])["include"]
    assert [group["id"] for group in outer] == ["group-1", "group-2", "group-3"]
    assert parse_plan(text, "plan") == tuple(row["id"] for row in rows)


@pytest.mark.parametrize("max_jobs", [256, 100])
def test_packed_for_github_is_one_matrix_and_one_group(max_jobs: int) -> None:
    cells = six_hundred()
    text = github(make_jobs(cells, max_jobs=max_jobs, disk_gb=14))
    rows = json.loads(outputs(text)["matrix"])["include"]
    assert [rows] == list(inner(text))
    assert len(rows) <= max_jobs
    assert sorted(cell for row in rows for cell in row["cells"].split()) == sorted(cell.id for cell in cells)


def test_every_output_is_one_line_that_github_takes() -> None:
    text = github(make_jobs(six_hundred(), max_jobs=256, disk_gb=14))
    assert [line.split("=")[0] for line in text.splitlines()] == ["has_jobs", "groups", "matrix"]
    assert outputs(text)["has_jobs"] == "true"
    assert REPOSITORY.split("/")[1] not in text
    assert text == github(make_jobs(six_hundred(), max_jobs=256, disk_gb=14))


def test_nothing_to_do_for_github() -> None:
    assert outputs(github(())) == {"has_jobs": "false", "groups": '{"include":[]}', "matrix": '{"include":[]}'}


@pytest.mark.parametrize(("count", "groups"), [(256, 1), (257, 2)])
def test_the_limit_of_one_matrix(count: int, groups: int) -> None:
    text = github(jobs_of(count))
    assert len(list(inner(text))) == groups
    assert ("matrix" in outputs(text)) is (groups == 1)


def test_what_github_would_not_take_is_refused_with_advice() -> None:
    with pytest.raises(ConfigError, match=r"more than the 65536") as caught:
        github(jobs_of(65537))
    assert "--shard" in caught.value.hint
    with pytest.raises(ConfigError, match=r"`groups` would have [\d.]+ MB") as caught:
        github(jobs_of(20_000))
    assert "--max-jobs" in caught.value.hint
    largest = github(jobs_of(5_000))
    assert max(len(line) * 2 for line in largest.splitlines()) <= OUTPUT_BYTES


def check(kind: str, path: Path) -> None:
    """Holds a file to the schema that its system publishes, which check-jsonschema carries."""
    ran = subprocess.run(
        [CHECK_JSONSCHEMA, "--builtin-schema", kind, path], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def gitlab_jobs(document: dict[str, Any]) -> dict[str, Any]:
    return {name: job for name, job in document.items() if isinstance(job, dict) and job.get("extends") == ".cells"}


@pytest.mark.parametrize("max_jobs", [200, 600])
def test_a_child_pipeline_for_gitlab(tmp_path: Path, max_jobs: int) -> None:
    cells = six_hundred()
    jobs = make_jobs(cells, max_jobs=max_jobs, disk_gb=14)
    text = gitlab(jobs)
    document = yaml.safe_load(text)
    found = gitlab_jobs(document)
    assert list(found) == [job.name for job in jobs]
    assert len(found) <= max_jobs
    named = [cell for job in found.values() for cell in job["variables"]["IMGBUILD_CELLS"].split()]
    assert sorted(named) == sorted(cell.id for cell in cells)
    assert document["gate"]["variables"]["IMGBUILD_JOBS"].split() == [job.id for job in jobs]
    assert document["gate"]["when"] == "always"
    assert document["stages"] == ["images", "gate", "promote"]
    # on_success, GitLab's default, after the gate's stage.
    assert "when" not in document["promote"]
    # Of two pipelines, one after the other; builds need not wait.
    assert [name for name, job in document.items() if "resource_group" in job] == ["promote"]
    assert document["promote"]["resource_group"] == "imgbuild-promote"
    assert "parallel" not in text
    (tmp_path / "child.yml").write_text(text)
    check("vendor.gitlab-ci", tmp_path / "child.yml")


def test_a_pipeline_that_is_not_valid_is_found_by_the_schemas(tmp_path: Path) -> None:
    for kind, text in (
        ("vendor.gitlab-ci", "job: {script: 3}\n"),
        ("vendor.buildkite", "steps: [{command: 3}]\n"),
        ("vendor.github-workflows", "on: push\njobs: {a: {steps: []}}\n"),
    ):
        (tmp_path / "bad.yml").write_text(text)
        with pytest.raises(AssertionError):
            check(kind, tmp_path / "bad.yml")


def test_nothing_to_do_for_gitlab_is_a_gate_alone(tmp_path: Path) -> None:
    document = yaml.safe_load(gitlab(()))
    assert gitlab_jobs(document) == {}
    assert document["gate"]["variables"]["IMGBUILD_JOBS"] == ""
    assert "promote" not in document
    (tmp_path / "child.yml").write_text(gitlab(()))
    check("vendor.gitlab-ci", tmp_path / "child.yml")


def test_what_gitlab_would_not_take_is_refused_with_advice() -> None:
    with pytest.raises(ConfigError, match="more than one child pipeline holds") as caught:
        gitlab(jobs_of(20_000))
    assert "--max-jobs" in caught.value.hint


def buildkite_steps(documents: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        step
        for document in documents
        for group in yaml.safe_load(document)["steps"]
        if "group" in group
        for step in group["steps"]
    ]


@pytest.mark.parametrize(("max_jobs", "uploads"), [(None, 2), (300, 1)])
def test_uploads_for_buildkite(tmp_path: Path, max_jobs: int | None, uploads: int) -> None:
    cells = six_hundred()
    jobs = make_jobs(cells, max_jobs=max_jobs, disk_gb=14)
    documents = buildkite(jobs)
    assert len(documents) == uploads
    steps = buildkite_steps(documents)
    assert sorted(cell for step in steps for cell in step["env"]["IMGBUILD_CELLS"].split()) == sorted(
        cell.id for cell in cells
    )
    assert {step["env"]["IMGBUILD_JOB"] for step in steps} == {job.id for job in jobs}
    loaded = [yaml.safe_load(document)["steps"] for document in documents]
    keys = [step["key"] for document in loaded for step in document]
    assert keys[-2:] == ["gate", "promote"]
    assert len(set(keys)) == len(keys)
    assert loaded[-1][-2]["depends_on"] == keys[:-2]
    assert loaded[-1][-1]["depends_on"] == ["gate"]
    alone = {"concurrency": 1, "concurrency_group": "imgbuild-promote", "concurrency_method": "eager"}
    assert alone.items() <= loaded[-1][-1].items()
    assert not any("concurrency" in step for step in (*steps, loaded[-1][-2]))
    for number, (text, document) in enumerate(zip(documents, loaded, strict=True)):
        assert sum(len(step["steps"]) if "group" in step else 1 for step in document) <= JOBS_PER_UPLOAD
        (tmp_path / f"{number}.yml").write_text(text)
        check("vendor.buildkite", tmp_path / f"{number}.yml")
    # `pipeline upload` puts variables into a text before any shell sees it.
    assert "$" not in "".join(documents)


@pytest.mark.parametrize(("count", "uploads"), [(498, 1), (499, 2), (996, 2), (997, 3)])
def test_the_limit_of_one_upload(count: int, uploads: int) -> None:
    documents = buildkite(jobs_of(count))
    assert len(documents) == uploads
    assert len(buildkite_steps(documents)) == count


def test_nothing_to_do_for_buildkite_is_a_gate_alone(tmp_path: Path) -> None:
    (document,) = buildkite(())
    assert [step["key"] for step in yaml.safe_load(document)["steps"]] == ["gate"]
    (tmp_path / "0.yml").write_text(document)
    check("vendor.buildkite", tmp_path / "0.yml")
    with pytest.raises(ConfigError, match="more than one gate can name"):
        buildkite(jobs_of(20_000))


def test_a_bake_file_names_what_render_writes() -> None:
    cells = some_cells(2, ("cpu", "13.0"), ("3.11",), 2)
    document = json.loads(bake(cells, "out/rendered", lambda base: base.image))
    assert document["group"]["default"]["targets"] == list(document["target"])
    targets = list(document["target"].values())
    assert [target["dockerfile"] for target in targets] == [f"{cell.id}.Dockerfile" for cell in cells]
    assert {target["context"] for target in targets} == {"out/rendered"}
    assert [target["args"]["BASE"] for target in targets] == [cell.base.image for cell in cells]
    tags = [tag for target in targets for tag in target["tags"]]
    assert tags == [f"{cell.repository}:unchecked-{cell.id}" for cell in cells]
    assert not {tag.split(":")[1] for tag in tags} & {tag for cell in cells for tag in cell.tags}


def test_a_bake_file_pins_bases_as_their_locks_do(tmp_path: Path) -> None:
    (cell,) = some_cells(1, ("cpu",), ("3.11",), 1)
    locks = Locks(tmp_path)
    assert pinned(cell.base, locks) == cell.base.image
    digest, other = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
    lock = replace(fake_base(cell, ()), digest=digest, why="")
    write_base(locks, lock)
    assert pinned(cell.base, Locks(tmp_path)) == f"{cell.base.image}@{digest}"
    assert pinned(replace(cell.base, digest=other), Locks(tmp_path)) == f"{cell.base.image}@{other}"
    write_base(locks, replace(lock, image="debian:another"))
    assert pinned(cell.base, Locks(tmp_path)) == cell.base.image
