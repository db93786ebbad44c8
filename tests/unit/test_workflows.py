"""The workflows: valid, safe to run as scripts, and with one gate before anything public moves."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
CHECK_JSONSCHEMA = Path(sys.executable).with_name("check-jsonschema")


def load(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / ".github/workflows" / name).read_text()))


def steps() -> list[tuple[str, dict[str, Any]]]:
    return [
        (path.name, step)
        for path in WORKFLOWS
        for job in yaml.safe_load(path.read_text())["jobs"].values()
        for step in job.get("steps", ())
    ]


def test_they_are_valid() -> None:
    assert [path.name for path in WORKFLOWS] == ["build-cells.yml", "ci.yml", "images.yml"]
    command = [CHECK_JSONSCHEMA, "--builtin-schema", "vendor.github-workflows", *WORKFLOWS]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_no_expression_becomes_part_of_a_script() -> None:
    scripts = [step["run"] for _, step in steps() if "run" in step]
    assert len(scripts) >= 8
    assert [script for script in scripts if "${{" in script] == []


def test_every_script_is_valid_bash() -> None:
    for name, step in steps():
        if "run" in step:
            ran = subprocess.run(["bash", "-n", "-c", step["run"]], capture_output=True, timeout=20, check=False)
            assert ran.returncode == 0, (name, step)


def test_a_pipe_that_breaks_breaks_the_step() -> None:
    """Only with `shell: bash` written out does GitHub set pipefail."""
    for path in WORKFLOWS:
        document = yaml.safe_load(path.read_text())
        piped = [step for name, step in steps() if name == path.name and " | " in step.get("run", "")]
        assert not piped or document["defaults"]["run"]["shell"] == "bash", path.name


def test_nothing_public_moves_before_the_gate() -> None:
    jobs = load("images.yml")["jobs"]
    assert set(jobs) == {"plan", "images", "gate", "promote"}
    assert jobs["gate"]["needs"] == ["plan", "images"]
    assert jobs["gate"]["if"] == "always()"
    assert "gate" in jobs["promote"]["needs"]
    # Without a status function in it, a condition also demands that what is needed succeeded.
    assert not re.search(r"always|failure|cancelled|success", jobs["promote"]["if"])
    promoting = [
        (name, job)
        for path in WORKFLOWS
        for name, job in load(path.name)["jobs"].items()
        for step in job.get("steps", ())
        if "promote" in step.get("run", "")
    ]
    assert [name for name, _ in promoting] == ["promote"]
    writers = {
        (path.name, name)
        for path in WORKFLOWS
        for name, job in load(path.name)["jobs"].items()
        if {**load(path.name)["permissions"], **job.get("permissions", {})}.get("packages") == "write"
    }
    assert writers == {("build-cells.yml", "cells"), ("images.yml", "images"), ("images.yml", "promote")}


def test_the_nested_matrices_fit_together() -> None:
    outer, inner = load("images.yml")["jobs"]["images"], load("build-cells.yml")
    assert outer["uses"] == "./.github/workflows/build-cells.yml"
    assert outer["strategy"] == {"fail-fast": False, "matrix": "${{ fromJSON(needs.plan.outputs.groups) }}"}
    assert outer["with"]["matrix"] == "${{ matrix.matrix }}"
    assert outer["if"] == "needs.plan.outputs.has_jobs == 'true'"
    # YAML 1.1 reads the key `on` as true.
    assert set(outer["with"]) <= set(inner[True]["workflow_call"]["inputs"])
    cells = inner["jobs"]["cells"]
    assert cells["strategy"] == {"fail-fast": False, "matrix": "${{ fromJSON(inputs.matrix) }}"}
    used = set(re.findall(r"matrix\.(\w+)", yaml.safe_dump(cells)))
    assert used - {"matrix"} == {"id", "name", "cells"}


def test_a_job_that_is_run_again_replaces_its_artifacts() -> None:
    """Names of artifacts belong to a run, and not to one attempt: without `overwrite` a second one cannot upload."""
    uploads = [step["with"] for _, step in steps() if str(step.get("uses")).startswith("actions/upload-artifact@")]
    assert [upload["overwrite"] for upload in uploads] == [True, True]
    assert len({upload["name"] for upload in uploads}) == 2


def test_ci_runs_what_anyone_can_run() -> None:
    assert [step["run"] for name, step in steps() if name == "ci.yml" and "run" in step] == [".ci/run"]


@pytest.mark.parametrize("name", ["build-cells.yml", "images.yml"])
def test_no_registry_or_repository_is_in_an_output(name: str) -> None:
    for job in load(name)["jobs"].values():
        assert set(job.get("outputs", {})) <= {"has_jobs", "groups"}
