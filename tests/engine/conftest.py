"""A real engine, a prefix for everything that this run makes there, and a tiny image to build from.

Everything that the tests make carries the prefix in its name or the label, and is removed at the end.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import CELLS, LABEL, Built, Ran, imgbuild
from tiny import import_root, root_archive

from builder.engine import fields
from builder.engine.connection import Engine
from builder.engine.errors import EngineError


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The engine that the docker command would use. Without one the tests fail: they were asked for."""
    try:
        connected = Engine.connect()
    except EngineError as error:
        pytest.fail(f"the tests marked 'engine' need a Docker engine: {error}", pytrace=False)
    with connected:
        yield connected


@pytest.fixture(scope="session")
def prefix(engine: Engine) -> Iterator[str]:
    """Begins the names of this run's images and containers, and is the value of their label."""
    name = f"imgbuild-test-{secrets.token_hex(4)}"
    yield name
    _remove_all(engine, name)


@pytest.fixture(scope="session")
def tiny_base(engine: Engine, prefix: str, pytestconfig: pytest.Config) -> str:
    """Name of an image with nothing but a static busybox. Images built from it inherit the run's label."""
    return import_root(engine, root_archive(pytestconfig), f"{prefix}-base", label=f"{LABEL}={prefix}")


def _remove_all(engine: Engine, name: str) -> None:
    containers = engine.call_json(
        "GET",
        "/containers/json",
        doing="list the tests' containers",
        params={"all": True, "filters": f'{{"label":["{LABEL}={name}"]}}'},
    )
    for container in fields.sequence(containers):
        _remove(engine, f"/containers/{fields.text(fields.mapping(container).get('Id'))}")
    labelled = engine.call_json(
        "GET",
        "/images/json",
        doing="list the tests' images",
        params={"filters": f'{{"label":["{LABEL}={name}"]}}'},
    )
    every = engine.call_json("GET", "/images/json", doing="list the tests' images")
    # By name where there is one: an image with the same bytes may carry somebody else's names too.
    for image in fields.sequence(every):
        tags = fields.mapping(image).get("RepoTags")
        for tag in tags if isinstance(tags, list) else ():
            if str(tag).startswith(name):
                _remove(engine, f"/images/{tag}")
    for image in fields.sequence(labelled):
        _remove(engine, f"/images/{fields.text(fields.mapping(image).get('Id'))}")


def _remove(engine: Engine, path: str) -> None:
    try:
        engine.call("DELETE", path, doing="remove what the tests made", params={"force": True}).close()
    except EngineError as error:
        # Listed twice, or removed by the test itself: gone is gone.
        if "No such" not in str(error):
            raise


MOVED = "imgbuild lock --upgrade debian"
"""What a build says when the distribution's archive no longer has a locked version."""


@pytest.fixture(scope="session")
def built(engine: Engine, prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Builds, checks and tags `CELLS`. Takes minutes where the layer cache does not know it.

    The distribution's archive keeps no old versions. Where it has moved on since the default matrix was locked, what
    the build then asks for is done, in a copy of the project: these tests are about builds, on any later day too.
    """
    environment = {**os.environ, "IMGBUILD_STATE_DIR": str(tmp_path_factory.mktemp("state"))}
    folder: Path | None = None

    def run(*arguments: str) -> Ran:
        return imgbuild(*arguments, "--repository", prefix, environment=environment, cwd=folder)

    ran = run("build", *CELLS, "--format", "json")
    if ran.code != 0 and MOVED in ran.out + ran.err:
        folder = tmp_path_factory.mktemp("default")
        for command in (("init", str(folder)), ("lock", "--repository", prefix, "--upgrade", "debian")):
            done = imgbuild(*command, environment=environment, cwd=folder)
            assert done.code == 0, done.out + done.err
        ran = run("build", *CELLS, "--format", "json")
    assert ran.code == 0, ran.out + ran.err
    return Built(repository=prefix, report=ran.json, environment=environment, folder=folder)


@pytest.fixture(scope="session")
def good_image(built: Built) -> str:
    """Id of the image of the cell with Horovod, which passed its check."""
    return str(built.cell("torch-2.13.0-cpu-py3.11-horovod")["image_id"])
