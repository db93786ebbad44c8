"""Bases from a real registry: chosen in the open, pinned by digest, with docker's own logins."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from command import LABEL, Built, Ran

from builder.engine.bootstrap import BootstrapRecipe, find_base, make_base
from builder.engine.connection import Engine

os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")  # its image is in a registry; the label reaps instead

from testcontainers.core.container import DockerContainer

pytestmark = pytest.mark.engine

USER, PASSWORD = "builder", "builder-password"
# bcrypt of the password, as htpasswd -B writes it.
HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuujeYBIAf0XCpx09O.61WhZyvFNfJhwuy"
CONFIG = """\
version: 0.1
storage: {filesystem: {rootdirectory: /tmp/registry}}
http: {addr: ":5000"}
"""
AUTH = "auth: {htpasswd: {realm: test, path: /registry/htpasswd}}\n"

MATRIX = """\
version: 1
repository: unused
axes: {{framework: [torch==2.13.0], cuda: [cpu], python: ["3.11"]}}
bases:
  small:
    image: {image}
    python: ["3.11"]
{more}
frameworks:
  torch: {{image: pytorch, template: t.j2, constraints: c.txt, facts: none}}
defaults: {{base: small}}
tags: ["{{version}}"]
"""
BOOTSTRAP = "    bootstrap: {distribution: debian, suite: bookworm}\n"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the registry of Debian's package, and its configurations."""
    directory = tmp_path_factory.mktemp("registry")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    download = ["apt-get", "download", "docker-registry"]
    subprocess.run(download, cwd=directory, env=environment, check=True, capture_output=True, timeout=120)
    (package,) = directory.glob("docker-registry_*.deb")
    subprocess.run(["dpkg-deb", "-x", package, directory / "root"], check=True, capture_output=True, timeout=120)
    (directory / "open.yml").write_text(CONFIG)
    (directory / "private.yml").write_text(CONFIG + AUTH)
    (directory / "htpasswd").write_text(HTPASSWD + "\n")
    directory.chmod(0o755)
    return directory


@dataclass(frozen=True, kw_only=True)
class Registry:
    """A registry that runs: its address on the loopback interface, and what ends it."""

    address: str
    stop: Callable[[], None]


Serve = Callable[[str], Registry]


@pytest.fixture(scope="module")
def serve(program: Path, engine: Engine, built: Built, prefix: str) -> Iterator[Serve]:
    """Starts a registry with one of the configurations."""
    recipe = BootstrapRecipe(suite="bookworm", architecture=engine.info().architecture)
    repository = f"{built.repository}/base"
    base = find_base(engine, recipe, repository) or make_base(engine, recipe, repository=repository)
    containers: list[DockerContainer] = []

    def start(configuration: str) -> Registry:
        container = (
            DockerContainer(base.reference)
            .with_volume_mapping(str(program), "/registry", "ro")
            .with_command(f"/registry/root/usr/bin/docker-registry serve /registry/{configuration}")
            .with_kwargs(labels={LABEL: prefix})
        )
        container.ports["5000/tcp"] = ("127.0.0.1", None)  # not on every interface, as with_exposed_ports would
        container.start()
        containers.append(container)

        def stop() -> None:
            containers.remove(container)
            container.stop()

        return Registry(address=f"127.0.0.1:{container.get_exposed_port(5000)}", stop=stop)

    yield start
    for container in containers:
        container.stop()


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    found = docker.from_env(timeout=600)
    yield found
    found.close()


def push(client: docker.DockerClient, source: str, name: str, login: dict[str, str] | None = None) -> None:
    repository, tag = name.rsplit(":", 1)
    client.api.tag(source, repository, tag)
    try:
        for _ in range(50):
            lines = list(client.api.push(repository, tag, stream=True, decode=True, auth_config=login))
            if not any("connection refused" in line.get("error", "") for line in lines):
                break
        assert not [line for line in lines if "error" in line], lines
    finally:
        client.images.remove(name)


def project(directory: Path, image: str, more: str = "") -> Path:
    (directory / "dockerfiles").mkdir(parents=True, exist_ok=True)
    (directory / "matrix.yaml").write_text(MATRIX.format(image=image, more=more))
    (directory / "dockerfiles/c.txt").write_text("torch==2.13.0+cpu\npip==26.3\n")
    (directory / "dockerfiles/t.j2").write_text(
        "ARG BASE=x\nFROM ${BASE}\n# {{ file(cell.framework.constraints) }}\nRUN echo {{ cell.id }} > /marker\n"
    )
    return directory


def build(built: Built, root: Path, *options: str) -> Ran:
    return built.run("build", "--no-check", "--format", "json", *options, cwd=root, state=root / "state")


def only(ran: Ran) -> dict[str, Any]:
    assert ran.code == 0, ran.err + ran.out
    (cell,) = ran.json["cells"]
    return dict(cell)


def variant(client: docker.DockerClient, base: str, word: str) -> str:
    container = client.containers.run(base, ["sh", "-c", f"echo {word} > /word"], detach=True)
    container.wait()
    image = container.commit()
    container.remove()
    return str(image.id)


def test_auto_takes_the_registry_when_it_answers_and_a_repointed_tag_is_another_key(
    built: Built, serve: Serve, client: docker.DockerClient, tiny_base: str, tmp_path: Path
) -> None:
    name = f"{serve('open.yml').address}/base/small:1"
    push(client, variant(client, tiny_base, "first"), name)
    root = project(tmp_path, name, BOOTSTRAP)
    ran = build(built, root)
    first = only(ran)
    assert first["built"]
    assert "registry, " + name.rpartition(":")[0] + "@sha256:" in ran.json["bases"][0]
    assert "auto: the registry answered" in ran.json["bases"][0]
    again = only(build(built, root))
    assert (again["built"], again["key"]) == (False, first["key"])
    push(client, variant(client, tiny_base, "second"), name)
    repointed = only(build(built, root))
    assert repointed["built"]
    assert repointed["key"] != first["key"]
    # Pinned to what it was, the base is what it was.
    digest = ran.json["bases"][0].split("@", 1)[1].split()[0]
    pinned = only(build(built, project(tmp_path, name, f"    digest: {digest}\n")))
    assert (pinned["built"], pinned["key"], pinned["image_id"]) == (False, first["key"], first["image_id"])
    # The two kinds of base give different keys, and the choice is on the command line.
    bootstrapped = only(build(built, project(tmp_path, name, BOOTSTRAP), "--bases", "bootstrap"))
    assert bootstrapped["key"] not in (first["key"], repointed["key"])


def test_a_registry_that_is_not_there(built: Built, tmp_path: Path) -> None:
    name = "127.0.0.1:9/base/small:1"
    for options in ((), ("--bases", "registry")):
        ran = build(built, project(tmp_path, name), *options)
        assert ran.code == 8
        assert "127.0.0.1:9 is unreachable from the engine" in ran.err
    assert "--bases bootstrap" in build(built, project(tmp_path, name, BOOTSTRAP), "--bases", "registry").err
    fallen_back = build(built, project(tmp_path, name, BOOTSTRAP))
    assert "bootstrap, " in fallen_back.json["bases"][0]
    assert "no registry answered, connection refused, on " in fallen_back.json["bases"][0]
    remembered = build(built, tmp_path)
    assert only(remembered)["key"] == only(fallen_back)["key"]
    assert "auto keeps what was chosen" in remembered.json["bases"][0]


def test_a_private_registry_takes_the_login_of_dockers_configuration(
    built: Built,
    serve: Serve,
    client: docker.DockerClient,
    tiny_base: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = serve("private.yml").address
    name = f"{address}/base/small:1"
    push(client, variant(client, tiny_base, "private"), name, {"username": USER, "password": PASSWORD})
    root = project(tmp_path, name, BOOTSTRAP)
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").write_text("{}")
    monkeypatch.setitem(built.environment, "DOCKER_CONFIG", str(tmp_path / "docker"))
    refused = build(built, root)
    # It answers and refuses: that is no reason to take other bytes in silence.
    assert refused.code == 8
    assert "docker login" in refused.err or "--bases bootstrap" in refused.err
    token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {address: {"auth": token}}}))
    accepted = build(built, root)
    assert only(accepted)["built"]
    history = json.dumps(client.api.history(only(accepted)["image_id"]))
    assert PASSWORD not in accepted.out + accepted.err + history


def test_a_registry_that_goes_away_does_not_change_what_was_chosen(
    built: Built, serve: Serve, client: docker.DockerClient, tiny_base: str, tmp_path: Path
) -> None:
    registry = serve("open.yml")
    name = f"{registry.address}/base/small:1"
    push(client, variant(client, tiny_base, "going"), name)
    root = project(tmp_path, name, BOOTSTRAP)
    before = only(build(built, root))
    registry.stop()
    gone = build(built, root)
    assert gone.code == 8
    assert "--bases bootstrap" in gone.err
    # Only asking for it changes it, and that lasts.
    asked = only(build(built, root, "--bases", "bootstrap"))
    assert asked["key"] != before["key"]
    assert only(build(built, root))["key"] == asked["key"]


LOCKED = """\
{%- import "_site.j2" as site with context -%}
ARG BASE=x
FROM ${BASE}
{{ site.apt_locked(["tini"]) }}
RUN cat /word && dpkg-query --show tini
"""


def test_a_locked_digest_is_taken_without_a_question(
    built: Built, serve: Serve, client: docker.DockerClient, engine: Engine, tmp_path: Path
) -> None:
    """And the distribution's packages are locked on an image of a registry as on one that was made here."""
    recipe = BootstrapRecipe(suite="bookworm", architecture=engine.info().architecture)
    debian = find_base(engine, recipe, f"{built.repository}/base")
    assert debian is not None
    registry = serve("open.yml")
    name = f"{registry.address}/base/small:1"
    push(client, variant(client, debian.reference, "first"), name)
    root = project(tmp_path, name)
    (root / "matrix.yaml").write_text(MATRIX.format(image=name, more="").replace(", constraints: c.txt", ""))
    (root / "dockerfiles/t.j2").write_text(LOCKED)
    assert build(built, root).code == 19

    def lock(*options: str) -> dict[str, Any]:
        ran = built.run("lock", "--part", "debian", *options, cwd=root, state=root / "state")
        assert ran.code == 0, ran.err + ran.out
        return dict(json.loads((root / "dockerfiles/locks/small.base.json").read_text()))

    locked = lock()
    assert (locked["why"], locked["made"]) == ("", None)
    assert [(request["packages"], list(request["installs"])) for request in locked["requests"]] == [
        (["tini"], ["tini"])
    ]
    ran = build(built, root)
    first = only(ran)
    assert first["built"]
    assert f"@{locked['digest']}" in ran.json["bases"][0]
    # The tag moves, and the lock does not: until it is told to.
    push(client, variant(client, debian.reference, "second"), name)
    assert lock() == locked
    assert (only(build(built, root))["key"], only(build(built, root))["built"]) == (first["key"], False)
    moved = lock("--upgrade", "debian")
    assert moved["digest"] != locked["digest"]
    assert only(build(built, root))["key"] != first["key"]
    registry.stop()
    second = only(build(built, root, "--bases", "registry"))
    assert not second["built"]
    (root / "dockerfiles/locks/small.base.json").unlink()
    (root / "dockerfiles/t.j2").write_text("ARG BASE=x\nFROM ${BASE}\n")
    assert build(built, root, "--bases", "registry").code == 8
