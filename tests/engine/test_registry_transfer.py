"""Push and pull by the engine, and the proof that what is in the registry is what was checked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from loopback_registry import certificates, free_port, login_file, registry, stored_blobs

from builder.engine.auth import DockerLogins
from builder.engine.connection import Engine
from builder.engine.errors import ImageMissing, NotInRegistry, RegistryError, RegistryUnreachable
from builder.engine.images import inspect, registry_digest, tag, untag
from builder.engine.reference import InvalidReference
from builder.engine.transfer import Progress, pull, push
from builder.registry.client import Repository
from builder.registry.images import name, prove

pytestmark = pytest.mark.engine


class Place:
    """A registry that wants TLS, a login, or both, and the names that the engine gave images for it."""

    def __init__(self, engine: Engine, address: str, directory: Path, config: Path, ca_bundle: Path | None) -> None:
        self.engine = engine
        self.address = address
        self.directory = directory
        self.logins = DockerLogins(config)
        self.ca_bundle = ca_bundle
        self.names: list[str] = []

    def repository(self, path: str) -> Repository:
        return Repository(f"{self.address}/{path}", self.logins, self.ca_bundle)

    def tagged(self, image: str, path: str) -> str:
        reference = f"{self.address}/{path}"
        tag(self.engine, image, reference)
        self.names.append(reference)
        return reference

    def forget(self) -> None:
        for reference in self.names:
            untag(self.engine, reference)
        self.names.clear()


@pytest.fixture(scope="module", params=["plain", "tls", "login", "tls and login"])
def place(request: pytest.FixtureRequest, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    kind = str(request.param)
    directory = tmp_path_factory.mktemp("registry")
    tls = certificates(directory) if "tls" in kind else None
    with registry(directory, tls=tls, login="login" in kind) as address:
        config = login_file(directory / "docker", address) if "login" in kind else directory / "none"
        found = Place(engine, address, directory, config, tls.authority if tls else None)
        yield found
        found.forget()


@pytest.fixture(scope="module")
def two(engine: Engine, tiny_base: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Ids of two images, which a name of their own keeps."""
    client = docker.from_env()
    ids, names = [], []
    for word in ("one", "two"):
        container = client.containers.create(tiny_base, ["true"])
        ids.append(str(container.commit(f"{prefix}-transfer", word, changes=f"LABEL transfer={word}").id))
        names.append(f"{prefix}-transfer:{word}")
        container.remove()
    client.close()
    yield ids[0], ids[1]
    for reference in names:
        untag(engine, reference)


def test_what_is_pushed_is_proven_named_and_pulled(place: Place, two: tuple[str, str]) -> None:
    reference = place.tagged(two[0], "team/image:candidate-1")
    seen: list[Progress] = []
    digest = push(place.engine, reference, place.logins, show=seen.append)
    assert digest == registry_digest(place.engine, reference, place.logins)
    assert {step.status for step in seen} & {"Pushed", "Layer already exists"}
    repository = place.repository("team/image")
    assert repository.digest("candidate-1") == digest
    proven = prove(repository, digest, two[0])
    image = inspect(place.engine, two[0])
    assert image is not None
    assert proven.diff_ids == image.layers
    with pytest.raises(RegistryError, match="not the image that was checked"):
        prove(repository, digest, two[1])

    blobs = stored_blobs(place.directory)
    name(repository, digest, "latest")
    name(repository, digest, "latest-verified")
    assert push(place.engine, reference, place.logins) == digest
    assert stored_blobs(place.directory) == blobs

    place.forget()
    for wanted in (f"{place.address}/team/image:latest", f"{place.address}/team/image@{digest}"):
        assert pull(place.engine, wanted, place.logins) == digest
        found = inspect(place.engine, wanted)
        assert found is not None
        assert found.id == two[0]
    place.names.append(f"{place.address}/team/image:latest")
    place.forget()


def test_a_tag_that_was_moved_before_the_push_is_found_out(place: Place, two: tuple[str, str]) -> None:
    reference = place.tagged(two[0], "team/moved:candidate")
    place.tagged(two[1], "team/moved:candidate")
    digest = push(place.engine, reference, place.logins)
    with pytest.raises(RegistryError, match="not the image that was checked"):
        prove(place.repository("team/moved"), digest, two[0])
    prove(place.repository("team/moved"), digest, two[1])


@pytest.mark.parametrize("place", ["login", "tls and login"], indirect=True)
@pytest.mark.parametrize("password", [None, "guessed-word"])
def test_without_the_right_login_nothing_is_pushed(
    place: Place, two: tuple[str, str], password: str | None, tmp_path: Path
) -> None:
    reference = place.tagged(two[0], "team/secret:1")
    config = login_file(tmp_path, place.address, password) if password else tmp_path / "none"
    with pytest.raises(RegistryError) as caught:
        push(place.engine, reference, DockerLogins(config))
    assert not isinstance(caught.value, (NotInRegistry, RegistryUnreachable))
    assert f"docker login {place.address}" in caught.value.hint
    assert "guessed-word" not in str(caught.value)
    assert place.repository("team/secret").tags() == ()
    # Where TLS and a login are both missing on loopback, the engine tries plain HTTP and reports only that.
    with pytest.raises(RegistryError if place.ca_bundle else NotInRegistry):
        pull(place.engine, reference, DockerLogins(config))


@pytest.mark.parametrize("place", ["plain"], indirect=True)
def test_what_is_not_there(place: Place, engine: Engine) -> None:
    with pytest.raises(ImageMissing):
        push(engine, f"{place.address}/team/none:1")
    with pytest.raises(NotInRegistry):
        pull(engine, f"{place.address}/team/none:1")
    for wrong in (f"{place.address}/team/none", f"{place.address}/team/none:1@sha256:{'0' * 64}"):
        with pytest.raises(InvalidReference):
            push(engine, wrong)


def test_no_registry(engine: Engine, two: tuple[str, str]) -> None:
    reference = f"127.0.0.1:{free_port()}/team/image:1"
    tag(engine, two[0], reference)
    try:
        with pytest.raises(RegistryUnreachable, match="unreachable from the engine"):
            push(engine, reference)
        with pytest.raises(RegistryUnreachable, match="unreachable from the engine"):
            pull(engine, reference)
    finally:
        untag(engine, reference)


def test_a_registry_whose_disk_is_full_names_nothing(engine: Engine, two: tuple[str, str], tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        # The image's layer is larger; its configuration and its manifest are not.
        address = stack.enter_context(registry(tmp_path, largest_file=64 << 10))
        reference = f"{address}/team/image:1"
        tag(engine, two[0], reference)
        stack.callback(untag, engine, reference)
        with pytest.raises(RegistryError):
            push(engine, reference)
        there = Repository(f"{address}/team/image", DockerLogins(tmp_path / "none"))
        assert there.manifest("1") is None
        with pytest.raises(RegistryError, match=r"50\d"):
            there.put_blob(b"x" * (128 << 10))
        # Its twin: what fits is taken.
        small = there.put_blob(b"x" * 1024)
        assert there.blob(small.digest) == b"x" * 1024
