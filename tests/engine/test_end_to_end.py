"""The main job on a real engine, through the command itself: build, train, tag, and do nothing the second time."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from command import CELLS, Built, imgbuild

pytestmark = pytest.mark.engine

HOROVOD = "torch-2.13.0-cpu-py3.11-horovod"


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    found = docker.from_env(timeout=600)
    yield found
    found.close()


@pytest.fixture(scope="module")
def built_horovod(built: Built) -> dict[str, Any]:
    return built.cell(HOROVOD)


def ids(client: docker.DockerClient) -> dict[str, str]:
    return {tag: str(image.id) for image in client.images.list() for tag in image.tags}


def cell_of(report: Any, name: str) -> dict[str, Any]:
    return dict(next(cell for cell in report["cells"] if cell["cell"] == name))


def test_every_cell_is_built_checked_and_tagged(built: Built) -> None:
    assert {cell["status"] for cell in built.report["cells"]} == {"verified"}
    for cell in built.report["cells"]:
        assert (cell["built"], cell["checked"]) == (True, True)
        assert cell["moved"] == cell["references"]
        assert {check["status"] for check in cell["checks"]} <= {"passed", "not_run"}


def test_training_ran_in_mixed_precision_and_on_two_horovod_processes(built_horovod: dict[str, Any]) -> None:
    passed = {check["name"] for check in built_horovod["checks"] if check["status"] == "passed"}
    wanted = {"torch.train.amp", "torch.accumulate", "torch.checkpoint", "torch.events"}
    wanted |= {"horovod.allreduce", "horovod.broadcast", "horovod.gradients", "horovod.weights"}
    assert wanted <= passed


def test_the_tags_point_to_the_very_id_that_was_checked(
    built: Built, built_horovod: dict[str, Any], client: docker.DockerClient
) -> None:
    checked = built_horovod["image_id"]
    tag = f"{built.repository}/pytorch:2.13.0-cpu-py3.11-horovod0.28.1"
    assert set(built_horovod["references"]) == {
        tag,
        f"{tag}-verified",
        f"{built.repository}/pytorch:latest",
        f"{built.repository}/pytorch:latest-verified",
    }
    for reference in built_horovod["references"]:
        assert client.images.get(reference).id == checked


def test_no_label_says_verified(built_horovod: dict[str, Any], client: docker.DockerClient) -> None:
    labels = client.images.get(built_horovod["image_id"]).labels
    assert labels["io.imgbuild.key"] == built_horovod["key"]
    assert "verified" not in json.dumps(labels).lower()


def test_a_second_run_does_nothing_and_says_so(built: Built, client: docker.DockerClient) -> None:
    before = (ids(client), len(client.images.list(all=True)), len(client.containers.list(all=True)))
    for _ in range(3):
        ran = built.run("build", *CELLS, "--format", "json")
        assert ran.code == 0, ran.err
        assert {(cell["status"], cell["built"], cell["checked"]) for cell in ran.json["cells"]} == {
            ("unchanged", False, False)
        }
    assert "nothing built, nothing checked" in built.run("build", *CELLS).out
    dry = built.run("build", *CELLS, "--dry-run", "--format", "json").json
    actions = {(action["build"], action["check"], *action["tags"]) for action in dry["actions"]}
    assert actions == {(False, False)}
    assert (ids(client), len(client.images.list(all=True)), len(client.containers.list(all=True))) == before


def test_without_its_record_an_image_is_checked_again_and_not_built(
    built: Built, built_horovod: dict[str, Any], tmp_path: Path
) -> None:
    ran = built.run("build", HOROVOD, "--format", "json", state=tmp_path)
    cell = cell_of(ran.json, HOROVOD)
    assert (cell["status"], cell["built"], cell["checked"]) == ("verified", False, True)
    assert cell["image_id"] == built_horovod["image_id"]


def test_only_a_check_as_an_unknown_user_counts(built: Built, tmp_path: Path) -> None:
    def planned(state: Path) -> list[bool]:
        ran = built.run("build", HOROVOD, "--dry-run", "--format", "json", state=state)
        return [action["check"] for action in ran.json["actions"]]

    as_root = built.run("check", HOROVOD, "--user", "0:0", "--format", "json", state=tmp_path / "root")
    assert cell_of(as_root.json, HOROVOD)["status"] == "passed"
    assert planned(tmp_path / "root") == [True]
    as_unknown = built.run("check", HOROVOD, "--format", "json", state=tmp_path / "unknown")
    assert cell_of(as_unknown.json, HOROVOD)["status"] == "passed"
    assert planned(tmp_path / "unknown") == [False]


def test_a_tampered_record_is_not_believed(built: Built, tmp_path: Path) -> None:
    state = tmp_path / "state"
    subprocess.run(["cp", "-a", built.environment["IMGBUILD_STATE_DIR"], state], check=True)
    plan = built.run("build", HOROVOD, "--dry-run", "--format", "json", state=state).json
    assert [action["check"] for action in plan["actions"]] == [False]
    records = [path for path in state.rglob("*") if path.is_file() and "failed" in path.read_text(errors="replace")]
    records += [path for path in state.rglob("checks/*") if path.is_file()]
    for path in records:
        path.write_text(path.read_text().replace("2.13.0", "2.13.1"))
    plan = built.run("build", HOROVOD, "--dry-run", "--format", "json", state=state).json
    assert [(action["build"], action["check"]) for action in plan["actions"]] == [(False, True)]


@pytest.fixture
def broken_child(built_horovod: dict[str, Any], client: docker.DockerClient, built: Built) -> Iterator[str]:
    """Id of an image FROM the verified one in which every check would exit with 0 and write nothing."""
    container = client.containers.create(
        built_horovod["image_id"],
        entrypoint=["/bin/sh", "-c"],
        command=["rm /opt/venv/bin/python3 && ln -s /bin/true /opt/venv/bin/python3"],
        user="0:0",
    )
    container.start()
    assert container.wait()["StatusCode"] == 0
    configuration = client.images.get(built_horovod["image_id"]).attrs["Config"]
    image = container.commit(conf=configuration)
    container.remove()
    yield str(image.id)
    assert image.id is not None
    client.images.remove(image.id, force=True)


def test_a_tag_that_was_moved_away_goes_back_without_a_build_or_a_check(
    built: Built, built_horovod: dict[str, Any], broken_child: str, client: docker.DockerClient
) -> None:
    reference = f"{built.repository}/pytorch:latest-verified"
    client.api.tag(broken_child, *reference.split(":"))
    assert client.images.get(reference).id == broken_child
    cell = cell_of(built.run("build", HOROVOD, "--format", "json").json, HOROVOD)
    assert (cell["built"], cell["checked"], cell["moved"]) == (False, False, [reference])
    assert client.images.get(reference).id == built_horovod["image_id"]


def test_a_broken_child_is_never_taken_for_the_verified_image(
    built: Built, built_horovod: dict[str, Any], broken_child: str, client: docker.DockerClient
) -> None:
    # It inherits every label. Even with the candidate's own tag it is another id, and must pass its own check.
    assert client.images.get(broken_child).labels["io.imgbuild.key"] == built_horovod["key"]
    assert cell_of(built.run("build", HOROVOD, "--format", "json").json, HOROVOD)["status"] == "unchanged"
    candidate = f"{built.repository}/pytorch:candidate-{built_horovod['key']}"
    client.api.tag(broken_child, *candidate.split(":"))
    try:
        ran = built.run("build", HOROVOD, "--format", "json")
        assert ran.code == 10
        cell = cell_of(ran.json, HOROVOD)
        assert (cell["image_id"], cell["status"], cell["moved"]) == (broken_child, "failed", [])
        assert cell["reasons"] == ["run.result: exit code 0 but no result was written"]
        assert {stale["image_id"] for stale in cell["stale"]} == {built_horovod["image_id"]}
        for reference in built_horovod["references"]:
            assert client.images.get(reference).id == built_horovod["image_id"]
        # A failed verdict is checked again, not built again.
        again = cell_of(built.run("build", HOROVOD, "--format", "json").json, HOROVOD)
        assert (again["built"], again["checked"], again["status"]) == (False, True, "failed")
    finally:
        client.api.tag(built_horovod["image_id"], *candidate.split(":"))
    assert cell_of(built.run("build", HOROVOD, "--format", "json").json, HOROVOD)["status"] == "unchanged"


def test_check_takes_an_image_that_was_not_built_here(
    built: Built, good_image: str, prefix: str, client: docker.DockerClient, tiny_base: str
) -> None:
    container = client.containers.create(good_image, entrypoint=["true"])
    configuration = {**client.images.get(good_image).attrs["Config"], "Labels": {}}
    foreign = f"{prefix}-foreign:1"
    container.commit(*foreign.split(":"), conf=configuration)
    container.remove()
    ran = imgbuild("check", "--image", foreign, "--format", "json", environment=built.environment)
    assert ran.code == 0, ran.out
    assert ran.json["cells"][0]["status"] == "passed"
    assert ran.json["cells"][0]["moved"] == []
    nothing = imgbuild("check", "--image", tiny_base, "--format", "json", environment=built.environment)
    assert nothing.code == 10
    assert "python3" in nothing.json["cells"][0]["reasons"][0]
    missing = imgbuild("check", "--image", f"{prefix}-no-such-image:1", environment=built.environment)
    assert missing.code == 18
    assert "holds no image" in missing.err


def run_in(image: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", "run", "--rm", "--network", "none", *arguments[:-1], image, "sh", "-c", arguments[-1]],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_image_runs_as_anyone_and_its_entrypoint_is_silent(good_image: str) -> None:
    for options in ((), ("-u", "12345:12345"), ("-u", "0:0"), ("--read-only", "--tmpfs", "/tmp", "-u", "12345")):
        ran = run_in(good_image, *options, 'touch "$HOME/x" && python -c "import getpass; getpass.getuser()"; exit 7')
        assert (ran.returncode, ran.stdout, ran.stderr) == (7, "", ""), options
    assert run_in(good_image, "id -u; pwd; command -v python").stdout.split() == [
        "1000",
        "/workspace",
        "/opt/venv/bin/python",
    ]


def test_the_image_holds_no_compiler_and_nothing_of_the_build(good_image: str) -> None:
    ran = run_in(
        good_image, "-u", "0:0", "command -v gcc g++ cc make cmake; ls -A /tmp /var/lib/apt/lists /root/.cache"
    )
    assert ran.stdout.split() == ["/tmp:", "/var/lib/apt/lists:"], ran.stderr
    found = run_in(good_image, "-u", "0:0", "find / -xdev \\( -name pip.conf -o -path '/run/*' -type f \\) | head")
    assert found.stdout == ""


def test_nothing_of_the_site_is_in_the_image(
    built: Built, built_horovod: dict[str, Any], client: docker.DockerClient
) -> None:
    """The candidate's configuration and history name no index, proxy, mirror or file of this machine."""
    attributes = json.dumps(client.api.inspect_image(built_horovod["image_id"])["Config"])
    history = json.dumps(client.api.history(built_horovod["image_id"]))
    assert "site.env" in history, "the steps do enter the site's settings"
    for variable in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "http_proxy", "HTTPS_PROXY"):
        assert variable not in attributes + history
