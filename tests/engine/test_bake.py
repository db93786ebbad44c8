"""The bake file, as buildx reads and builds it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import docker
import pytest
from buildx_plugin import buildx_environment
from command import imgbuild
from tiny_project import project

pytestmark = pytest.mark.engine


def bake(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", "buildx", "bake", "--file", "docker-bake.json", *arguments],
        cwd=directory,
        env=buildx_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def emit(directory: Path) -> dict[str, object]:
    environment = buildx_environment()
    ran = imgbuild("matrix", "--assume-new", "--format", "bake", environment=environment, cwd=directory)
    assert ran.code == 0, ran.err
    (directory / "docker-bake.json").write_text(ran.out)
    assert imgbuild("render", "--assume-new", environment=environment, cwd=directory).code == 0
    return dict(ran.json)


def test_bake_prints_a_thousand_cells(tmp_path: Path) -> None:
    directory = project(
        tmp_path, repository="r", base="debian:bookworm-slim", versions=("2.12.0", "2.13.0"), extras=500
    )
    document = emit(directory)
    ran = bake(directory, "--print")
    assert ran.returncode == 0, ran.stderr
    printed = json.loads(ran.stdout)
    assert len(printed["target"]) == 1000
    assert sorted(printed["group"]["default"]["targets"]) == sorted(printed["target"])
    # Nothing that bake did not understand, and nothing that it added.
    assert printed["target"] == document["target"]
    for target in printed["target"].values():
        assert (directory / target["context"] / target["dockerfile"]).is_file()


def test_bake_refuses_what_is_no_bake_file(tmp_path: Path) -> None:
    (tmp_path / "docker-bake.json").write_text('{"target": {"a.b": {"context": "."}}}')
    assert bake(tmp_path, "--print").returncode != 0


def test_bake_builds_what_render_wrote(tmp_path: Path, tiny_base: str, prefix: str) -> None:
    repository = f"{prefix}-bake"
    directory = project(tmp_path, repository=repository, base=tiny_base, versions=("2.13.0",), extras=2)
    document = emit(directory)
    ran = bake(directory)
    assert ran.returncode == 0, ran.stderr
    client = docker.from_env()
    tags = [f"{repository}/bake:unchecked-torch-2.13.0-cpu-py3.11-extra{number}" for number in range(2)]
    try:
        assert [target["tags"] for target in document["target"].values()] == [[tag] for tag in tags]  # type: ignore[attr-defined]
        for tag in tags:
            said = client.containers.run(tag, ["cat", "/cell", "/note"], remove=True).decode()
            assert said == f"{tag.partition('unchecked-')[2]}\na file of the context\n"
        assert {tag for image in client.images.list(f"{repository}/bake") for tag in image.tags} == set(tags)
    finally:
        for tag in tags:
            client.images.remove(tag, force=True)
        client.close()
