"""Levels, policy and reuse through the command on a real engine, with a suite that takes no time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from small_suite import CPU_CELL, CUDA_CELL, SmallSuite

from builder.engine.connection import Engine

pytestmark = pytest.mark.engine

NO_GPU = "this engine can give containers no GPU"
LACKING = f"not verified: reached cpu, `-verified` needs gpu: small.gpu did not run: {NO_GPU}"


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    found = docker.from_env(timeout=600)
    yield found
    found.close()


@pytest.fixture(scope="module")
def without_gpu(engine: Engine) -> None:
    if engine.info().gpu:
        pytest.skip("not run: this engine has a GPU, and these tests are about one that has none")


@pytest.fixture(scope="module")
def suite(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> SmallSuite:
    return SmallSuite.make(tmp_path_factory.mktemp("small") / "checkout", f"{prefix}-policy")


@pytest.fixture(scope="module")
def first(suite: SmallSuite) -> dict[str, dict[str, Any]]:
    """What the first build said."""
    return suite.cells("build")


def names(suite: SmallSuite, client: docker.DockerClient) -> dict[str, str]:
    """Ids of this test's images by their public names."""
    return {
        tag.partition(":")[2]: str(image.id)
        for image in client.images.list(f"{suite.repository}/pytorch")
        for tag in image.tags
        if ":candidate-" not in tag
    }


@pytest.mark.usefixtures("without_gpu")
def test_a_cuda_cell_without_a_gpu_gets_its_public_names_only(
    suite: SmallSuite, first: dict[str, dict[str, Any]], client: docker.DockerClient
) -> None:
    cpu, cuda = first[CPU_CELL], first[CUDA_CELL]
    assert (cpu["status"], cpu["reached"], cpu["unverified"]) == ("verified", "cpu", [])
    assert (cuda["status"], cuda["exit_code"], cuda["reached"]) == ("passed", 0, "cpu")
    assert cuda["unverified"] == [LACKING]
    assert cuda["require"] == {"public": "cpu", "verified": "gpu"}
    assert cuda["references"] == [f"{suite.repository}/pytorch:2.13.0-cuda13.0-py3.11"]
    rows = {row["name"]: (row["status"], row["reason"]) for row in cuda["checks"]}
    assert rows["small.gpu"] == ("not_run", NO_GPU)
    assert rows["cell.cuda"] == rows["small.cpu"] == rows["run.result"] == ("passed", None)
    held = names(suite, client)
    assert set(held) == {
        "2.13.0-cpu-py3.11",
        "2.13.0-cpu-py3.11-verified",
        "2.13.0-cuda13.0-py3.11",
    }
    assert held["2.13.0-cuda13.0-py3.11"] == cuda["image_id"]


@pytest.mark.usefixtures("without_gpu", "first")
def test_a_second_run_does_nothing_and_says_again_what_is_missing(suite: SmallSuite) -> None:
    again = suite.cells("build")
    assert {(cell["status"], cell["built"], cell["checked"]) for cell in again.values()} == {
        ("unchanged", False, False)
    }
    assert again[CUDA_CELL]["unverified"] == [LACKING]
    assert again[CUDA_CELL]["references"] == [f"{suite.repository}/pytorch:2.13.0-cuda13.0-py3.11"]
    text = suite.run("build").out
    assert LACKING in text
    assert text.count("not verified") == 1


@pytest.mark.usefixtures("without_gpu", "first")
def test_what_needs_a_gpu_for_its_public_names_gets_none(suite: SmallSuite, client: docker.DockerClient) -> None:
    before = names(suite, client)
    suite.edit("matrix.yaml", "tags: [", 'overrides: [{match: "*-cuda*", set: {require: {public: gpu}}}]\ntags: [')
    try:
        cell = suite.cells("build", CUDA_CELL, code=11)[CUDA_CELL]
    finally:
        suite.edit("matrix.yaml", 'overrides: [{match: "*-cuda*", set: {require: {public: gpu}}}]\n', "")
    assert (cell["status"], cell["moved"], cell["reached"]) == ("incomplete", [], "cpu")
    assert f"small.gpu: did not run: {NO_GPU}" in str(cell["reasons"])
    assert names(suite, client) == before


@pytest.mark.usefixtures("without_gpu", "first")
def test_a_level_caps_a_check_and_a_gpu_that_is_asked_for_must_be_there(suite: SmallSuite) -> None:
    capped = suite.cells("check", CUDA_CELL, CPU_CELL, "--level", "static", code=11)
    for cell in capped.values():
        assert (cell["status"], cell["level"], cell["reached"]) == ("incomplete", "static", "static")
        assert "small.cpu: did not run: the check was limited to level static" in str(cell["reasons"])
    # Less than one asked for would be a silent pass on a CPU.
    ran = suite.run("check", CUDA_CELL, "--level", "gpu")
    assert ran.code == 11
    assert "this engine can give containers none" in ran.err
    assert suite.cells("check", CPU_CELL, "--level", "gpu")[CPU_CELL]["status"] == "passed"
    # What was seen up to another level says nothing here.
    assert suite.cells("build")[CPU_CELL]["status"] == "unchanged"


@pytest.mark.usefixtures("first")
def test_a_check_that_passed_is_not_made_again_unless_asked_for(
    suite: SmallSuite, first: dict[str, dict[str, Any]]
) -> None:
    reused = suite.cells("check", CPU_CELL)[CPU_CELL]
    assert (reused["status"], reused["checked"]) == ("passed", False)
    assert reused["reused"]["image_id"] == first[CPU_CELL]["image_id"]  # type: ignore[index]
    assert "reused, checked 20" in suite.run("check", CPU_CELL).out
    for command in ("check", "build"):
        again = suite.cells(command, CPU_CELL, "--recheck")[CPU_CELL]
        assert (again["built"], again["checked"], again["reused"]) == (False, True, None)
        assert again["image_id"] == first[CPU_CELL]["image_id"]


@pytest.mark.usefixtures("first")
def test_an_image_with_another_label_is_not_checked_again(
    suite: SmallSuite, first: dict[str, dict[str, Any]], client: docker.DockerClient
) -> None:
    last_run = suite.cells("check", CPU_CELL)[CPU_CELL]["reused"]
    suite.edit("dockerfiles/small.Dockerfile.j2", "USER 1000", "LABEL another=label\nUSER 1000")
    cell = suite.cells("build", CPU_CELL)[CPU_CELL]
    assert (cell["status"], cell["built"], cell["checked"]) == ("verified", True, False)
    assert cell["image_id"] != first[CPU_CELL]["image_id"]
    assert cell["key"] != first[CPU_CELL]["key"]
    assert cell["reused"] == last_run
    assert names(suite, client)["2.13.0-cpu-py3.11-verified"] == cell["image_id"]
    again = suite.cells("build", CPU_CELL)[CPU_CELL]
    assert again["status"] == "unchanged"
    assert "as " + str(first[CPU_CELL]["image_id"])[7:19] in str(again["reasons"])
    # What containers start with is content: another variable is another check.
    suite.edit("dockerfiles/small.Dockerfile.j2", "LABEL another=label", "ENV ANOTHER=variable")
    other = suite.cells("build", CPU_CELL)[CPU_CELL]
    assert (other["status"], other["built"], other["checked"]) == ("verified", True, True)


@pytest.mark.usefixtures("first")
def test_an_edited_check_checks_again_and_builds_nothing(suite: SmallSuite) -> None:
    before = suite.cells("build", CPU_CELL)[CPU_CELL]
    assert before["status"] == "unchanged"
    suite.write_check("cpu", "return {'edited': True}")
    after = suite.cells("build", CPU_CELL)[CPU_CELL]
    assert (after["built"], after["checked"], after["status"]) == (False, True, "verified")
    assert after["image_id"] == before["image_id"]


@pytest.mark.usefixtures("first")
def test_after_the_first_failure_nothing_more_is_run_if_so_asked(suite: SmallSuite) -> None:
    suite.write_check("static", "fail('broken on purpose')")
    try:
        whole = suite.cells("check", CPU_CELL, code=10)[CPU_CELL]
        short = suite.cells("check", CPU_CELL, "--fail-fast", code=10)[CPU_CELL]
    finally:
        suite.write_check("static")
    for cell, row in ((whole, ("passed", None)), (short, ("not_run", "an earlier check failed"))):
        rows: Any = {check["name"]: check for check in cell["checks"]}  # type: ignore[attr-defined]
        assert rows["small.static"]["status"] == "failed"
        assert cell["reasons"][0] == "small.static: broken on purpose"  # type: ignore[index]
        assert rows["small.cpu"]["status"] == row[0]
        assert (rows["small.cpu"]["reason"] or "").startswith(row[1] or "")
        assert (cell["status"], cell["reached"]) == ("failed", None)


@pytest.mark.usefixtures("first")
def test_a_wheel_for_another_cuda_fails_by_name(suite: SmallSuite) -> None:
    suite.edit("dockerfiles/small.Dockerfile.j2", "echo {{ cell.cuda }}", "echo cpu")
    try:
        cell = suite.cells("build", CUDA_CELL, code=10)[CUDA_CELL]
    finally:
        suite.edit("dockerfiles/small.Dockerfile.j2", "echo cpu", "echo {{ cell.cuda }}")
    assert cell["reasons"] == ["cell.cuda: torch is built for CUDA cpu, the cell says 13.0"]
    assert (cell["status"], cell["moved"]) == ("failed", [])


def test_how_an_image_was_built_is_remembered(suite: SmallSuite, first: dict[str, dict[str, Any]]) -> None:
    from builder.builds import recall_build
    from builder.records import Records

    cell = first[CPU_CELL]
    build = recall_build(Records(Path(suite.directory / "state")), str(cell["image_id"]))
    assert build is not None
    assert (build.key, build.cell, build.template) == (cell["key"], CPU_CELL, "small.Dockerfile.j2")
    assert build.started <= build.finished
    assert build.base_source == "bootstrap"
