"""Attaching to an image in a real registry: with TLS and logins, with and without the referrers API, eight at once.

The referrers API is that of our own proxy (`referrers_proxy.py`): no registry that has it can be had here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from loopback_registry import Certificates, certificates, login_file, registry, stored_blobs
from referrers_proxy import ReferrersProxy, referrers_proxy

from builder.engine.auth import DockerLogins
from builder.engine.errors import NotInRegistry, RegistryError
from builder.registry.artifacts import (
    BUNDLE_CONTENT,
    BUNDLE_PREDICATE,
    BUNDLE_TYPE,
    attach,
    attached,
    index_tag,
    own_tag,
    payload,
    repair,
)
from builder.registry.client import Repository
from builder.registry.images import name, prove, remote_image
from builder.registry.values import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Descriptor, digest_of, to_bytes

pytestmark = pytest.mark.engine

ANNOTATIONS = {BUNDLE_CONTENT: "dsse-envelope", BUNDLE_PREDICATE: "https://slsa.dev/provenance/v1"}
CLIENTS, EACH = 8, 3


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a registry is, and how it is reached."""

    address: str
    storage: Path
    config: Path
    ca_bundle: Path | None = None
    proxy: ReferrersProxy | None = None

    def repository(self, path: str) -> Repository:
        return Repository(f"{self.address}/{path}", DockerLogins(self.config), self.ca_bundle)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module", params=["plain", "tls", "login", "tls and login", "referrers", "unfiltered referrers"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pki: Certificates
) -> Iterator[Place]:
    kind = str(request.param)
    directory = tmp_path_factory.mktemp("registry")
    tls = pki if "tls" in kind else None
    with registry(directory, tls=tls, login="login" in kind) as address:
        if "referrers" in kind:
            with referrers_proxy(address, filters="unfiltered" not in kind) as proxy:
                yield Place(address=proxy.address, storage=directory, config=directory / "none", proxy=proxy)
            return
        config = login_file(directory / "docker", address) if "login" in kind else directory / "none"
        yield Place(address=address, storage=directory, config=config, ca_bundle=tls.authority if tls else None)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("plain")
    with registry(directory) as address:
        yield Place(address=address, storage=directory, config=directory / "none")


def image(repository: Repository, word: str = "image") -> tuple[Descriptor, str]:
    """Puts an image; gives its manifest's descriptor and its configuration's digest."""
    layer = repository.put_blob(b"a layer", "application/vnd.oci.image.layer.v1.tar")
    config = repository.put_blob(
        to_bytes({"config": {"Labels": {"word": word}}, "rootfs": {"diff_ids": [layer.digest]}}),
        "application/vnd.oci.image.config.v1+json",
    )
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config.to_json(), "layers": [layer.to_json()]}
    body = to_bytes(document)
    digest = repository.put_manifest(f"candidate-{word}", body, OCI_MANIFEST)
    return Descriptor(media_type=OCI_MANIFEST, digest=digest, size=len(body)), config.digest


def bundle(repository: Repository, subject: Descriptor, content: bytes) -> Descriptor:
    return attach(
        repository,
        subject,
        artifact_type=BUNDLE_TYPE,
        payload=content,
        payload_type=BUNDLE_TYPE,
        annotations=ANNOTATIONS,
    )


def listed(repository: Repository, subject: str) -> set[str]:
    """What another client of the specification sees: the referrers API, or the list under its tag."""
    entries = repository.referrers(subject)
    if entries is not None:
        return {entry.digest for entry in entries}
    found = repository.manifest(index_tag(subject))
    assert found is not None
    return {entry["digest"] for entry in json.loads(found.body)["manifests"]}


def test_what_is_attached_is_found_and_read(place: Place) -> None:
    repository = place.repository("team/attach")
    subject, config = image(repository)
    assert prove(repository, subject.digest, config).config_digest == config
    assert attached(repository, subject.digest) == ()
    contents = {bundle(repository, subject, content).digest: content for content in (b'{"a":1}', b'{"a":2}')}
    sbom = attach(
        repository,
        subject,
        artifact_type="application/vnd.cyclonedx+json",
        payload=b"{}",
        payload_type="application/vnd.cyclonedx+json",
    )
    assert listed(repository, subject.digest) == {*contents, sbom.digest}
    bundles = attached(repository, subject.digest, BUNDLE_TYPE)
    assert {found.digest: payload(repository, found) for found in bundles} == contents
    assert {found.digest for found in attached(repository, subject.digest)} == {*contents, sbom.digest}
    assert all(found.annotations == ANNOTATIONS for found in bundles)
    assert attached(repository, subject.digest, "application/x-other") == ()
    if place.proxy:
        for kind, wanted in ((BUNDLE_TYPE, set(contents)), (sbom.artifact_type, {sbom.digest}), ("a/b", set())):
            assert {entry.digest for entry in repository.referrers(subject.digest, kind) or ()} == wanted


def test_the_layout_is_that_of_cosign(place: Place) -> None:
    repository = place.repository("team/layout")
    subject, _ = image(repository)
    made = bundle(repository, subject, b'{"mediaType":"x"}')
    found = repository.manifest(made.digest)
    assert found is not None
    assert found.media_type == OCI_MANIFEST
    digest = digest_of(b'{"mediaType":"x"}')
    assert json.loads(found.body) == {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "annotations": {
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": "https://slsa.dev/provenance/v1",
        },
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "size": 2,
        },
        "layers": [
            {
                "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
                "digest": digest,
                "size": 17,
                "annotations": {"org.opencontainers.image.title": f"{digest.replace(':', '-')}.sigstore.json"},
            }
        ],
        "subject": {"mediaType": OCI_MANIFEST, "digest": subject.digest, "size": subject.size},
    }


def test_the_same_is_attached_once(place: Place) -> None:
    repository = place.repository("team/once")
    subject, _ = image(repository)
    first = bundle(repository, subject, b"{}")
    blobs = stored_blobs(place.storage)
    assert bundle(repository, subject, b"{}") == first
    assert [found.digest for found in attached(repository, subject.digest)] == [first.digest]
    assert stored_blobs(place.storage) == blobs


def test_tags_are_used_only_where_there_is_no_api(place: Place) -> None:
    repository = place.repository("team/tags")
    subject, _ = image(repository)
    made = bundle(repository, subject, b"{}")
    tags = set(repository.tags()) - {"candidate-image"}
    assert tags == (set() if place.proxy else {index_tag(subject.digest), own_tag(subject.digest, made.digest)})


def test_another_images_artifacts_are_not_ours(place: Place) -> None:
    repository = place.repository("team/other")
    first, _ = image(repository, "one")
    second, _ = image(repository, "two")
    made = bundle(repository, first, b"{}")
    assert [found.digest for found in attached(repository, first.digest)] == [made.digest]
    assert attached(repository, second.digest) == ()
    missing = Descriptor(media_type=OCI_MANIFEST, digest=digest_of(b"missing"), size=7)
    with pytest.raises(NotInRegistry, match="to attach anything to"):
        bundle(repository, missing, b"{}")


def test_another_name_sends_nothing(place: Place) -> None:
    repository = place.repository("team/name")
    subject, config = image(repository)
    blobs = stored_blobs(place.storage)
    for tag in ("1.0", "1.0-verified", "latest"):
        name(repository, subject.digest, tag)
    assert stored_blobs(place.storage) == blobs
    assert {repository.digest(tag) for tag in ("1.0", "1.0-verified", "latest")} == {subject.digest}
    # Its twin: another image is more blobs.
    other, _ = image(repository, "other")
    assert stored_blobs(place.storage) > blobs
    name(repository, other.digest, "latest")
    assert repository.digest("latest") == other.digest
    with pytest.raises(RegistryError, match="not the image that was checked"):
        prove(repository, other.digest, config)
    with pytest.raises(NotInRegistry):
        name(repository, digest_of(b"missing"), "latest")


@pytest.mark.parametrize("place", ["tls", "login"], indirect=True)
def test_without_trust_or_login_nothing_is_said(place: Place, tmp_path: Path) -> None:
    good = place.repository("team/refused")
    image(good)
    if place.ca_bundle:
        with pytest.raises(RegistryError, match=r"certificate .* not trusted") as caught:
            Repository(good.name, DockerLogins(place.config)).tags()
        assert "ca-bundle" in caught.value.hint
    else:
        wrong = login_file(tmp_path, place.address, password="guessed-word")
        for config in (wrong, tmp_path / "no-config"):
            with pytest.raises(RegistryError, match="401") as caught:
                Repository(good.name, DockerLogins(config)).tags()
            assert caught.value.hint == f"docker login {place.address}"
            assert "guessed-word" not in str(caught.value)
    assert good.tags() == ("candidate-image",)


CLIENT = """
import sys, time
from pathlib import Path
from builder.engine.auth import DockerLogins
from builder.registry.artifacts import BUNDLE_TYPE, attach
from builder.registry.client import Repository

name, digest, gate, number, each = sys.argv[1:]
with Repository(name, DockerLogins()) as repository:
    subject = repository.manifest(digest).descriptor
    Path(gate, number).touch()
    while not Path(gate, "go").exists():
        time.sleep(0.001)
    for count in range(int(each)):
        content = b'{"client":%d,"bundle":%d}' % (int(number), count)
        attach(repository, subject, artifact_type=BUNDLE_TYPE, payload=content, payload_type=BUNDLE_TYPE)
"""


@pytest.mark.parametrize("place", ["plain", "referrers"], indirect=True)
@pytest.mark.parametrize("attempt", range(2))
def test_eight_processes_at_once_lose_nothing(place: Place, attempt: int, tmp_path: Path) -> None:
    repository = place.repository(f"team/eight-{attempt}")
    subject, _ = image(repository)
    gate = tmp_path / "gate"
    gate.mkdir()
    clients = []
    for number in range(CLIENTS):
        home = tmp_path / f"home-{number}"
        home.mkdir()
        environment = {
            **os.environ,
            "HOME": str(home),
            "DOCKER_CONFIG": str(home / "docker"),
            "XDG_CONFIG_HOME": str(home / "config"),
            "IMGBUILD_STATE_DIR": str(home / "state"),
        }
        arguments = [repository.name, subject.digest, str(gate), str(number), str(EACH)]
        clients.append(
            subprocess.Popen([sys.executable, "-c", CLIENT, *arguments], env=environment, stderr=subprocess.PIPE)
        )
    limit = time.monotonic() + 60
    while len(list(gate.iterdir())) < CLIENTS:
        assert time.monotonic() < limit, "the clients do not come up"
        time.sleep(0.01)
    (gate / "go").touch()
    for client in clients:
        _, said = client.communicate(timeout=120)
        assert client.returncode == 0, said.decode()
    wanted = {b'{"client":%d,"bundle":%d}' % (n, c) for n in range(CLIENTS) for c in range(EACH)}
    found = attached(repository, subject.digest, BUNDLE_TYPE)
    assert {payload(repository, artifact) for artifact in found} == wanted
    assert len(found) == CLIENTS * EACH
    assert listed(repository, subject.digest) == {artifact.digest for artifact in found}


def delete(place: Place, repository: Repository, digest: str) -> None:
    path = repository.name.removeprefix(f"{place.address}/")
    request = urllib.request.Request(f"http://{place.address}/v2/{path}/manifests/{digest}", method="DELETE")
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30).close()


@pytest.mark.parametrize("damage", ["deleted", "emptied", "stale", "an image"])
def test_a_damaged_list_loses_nothing_and_is_repaired(plain: Place, damage: str) -> None:
    repository = plain.repository(f"team/{damage.replace(' ', '-')}")
    subject, _ = image(repository)
    first = bundle(repository, subject, b'{"n":1}')
    tag = index_tag(subject.digest)
    old = repository.manifest(tag)
    assert old is not None
    wanted = {first.digest, bundle(repository, subject, b'{"n":2}').digest}
    full = repository.manifest(tag)
    assert full is not None
    lost = {"deleted": 2, "emptied": 2, "stale": 1, "an image": 2}[damage]
    if damage == "deleted":
        delete(plain, repository, full.digest)
        assert repository.manifest(tag) is None
    elif damage == "emptied":
        empty = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        repository.put_manifest(tag, to_bytes(empty), OCI_INDEX)
    elif damage == "stale":
        repository.put_manifest(tag, old.body, OCI_INDEX)
    else:
        name(repository, subject.digest, tag)
    assert {found.digest for found in attached(repository, subject.digest)} == wanted
    if damage == "an image":
        # The specification: what is no list is not written over while attaching, and nothing is lost either.
        with pytest.raises(RegistryError, match="is no list of artifacts"):
            bundle(repository, subject, b'{"n":3}')
        lost += 1
        assert len(attached(repository, subject.digest)) == 3
        wanted = {found.digest for found in attached(repository, subject.digest)}
    assert repair(repository, subject.digest) == lost
    assert listed(repository, subject.digest) == wanted
    assert repair(repository, subject.digest) == 0


def test_attaching_one_more_repairs_what_was_lost(plain: Place) -> None:
    repository = plain.repository("team/more")
    subject, _ = image(repository)
    first = bundle(repository, subject, b'{"n":1}')
    full = repository.manifest(index_tag(subject.digest))
    assert full is not None
    delete(plain, repository, full.digest)
    second = bundle(repository, subject, b'{"n":2}')
    assert listed(repository, subject.digest) == {first.digest, second.digest}


def test_others_entries_stay_as_they_are_and_dead_ones_go(plain: Place) -> None:
    repository = plain.repository("team/foreign")
    subject, _ = image(repository)
    other, _ = image(repository, "foreign")
    foreign = {**other.to_json(), "artifactType": "application/x-scan", "urls": ["https://scan.example/1"]}
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "annotations": {"by": "somebody"},
        "manifests": [foreign],
    }
    repository.put_manifest(index_tag(subject.digest), to_bytes(document), OCI_INDEX)
    first = bundle(repository, subject, b"{}")
    found = repository.manifest(index_tag(subject.digest))
    assert found is not None
    now = json.loads(found.body)
    assert (now["annotations"], now["manifests"][0]) == ({"by": "somebody"}, foreign)
    # It is attached to nothing, whatever the list says.
    assert [artifact.digest for artifact in attached(repository, subject.digest)] == [first.digest]
    delete(plain, repository, other.digest)
    second = bundle(repository, subject, b'{"n":2}')
    assert listed(repository, subject.digest) == {first.digest, second.digest}


def test_a_moved_tag_speaks_for_nothing(plain: Place) -> None:
    repository = plain.repository("team/moved")
    subject, _ = image(repository)
    made = bundle(repository, subject, b"{}")
    name(repository, subject.digest, own_tag(subject.digest, made.digest))
    name(repository, subject.digest, own_tag(subject.digest, digest_of(b"forged")))
    assert [artifact.digest for artifact in attached(repository, subject.digest)] == [made.digest]
    assert repair(repository, subject.digest) == 0


def test_an_index_names_one_image_of_the_platform(plain: Place) -> None:
    repository = plain.repository("team/index")
    ours, config = image(repository)
    other, _ = image(repository, "arm")

    def index(*entries: dict[str, object]) -> str:
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)}
        return repository.put_manifest("index", to_bytes(document), OCI_INDEX)

    amd64: dict[str, object] = {**ours.to_json(), "platform": {"os": "linux", "architecture": "amd64"}}
    arm64: dict[str, object] = {**other.to_json(), "platform": {"os": "linux", "architecture": "arm64"}}
    unknown: dict[str, object] = {**other.to_json(), "platform": {"os": "unknown", "architecture": "unknown"}}
    alone, both = index(amd64, unknown), index(amd64, arm64, unknown)
    assert prove(repository, alone, config).image.digest == ours.digest
    assert prove(repository, alone, ours.digest).subject.digest == alone
    assert prove(repository, alone, alone).config_digest == config
    assert remote_image(repository, both).image.digest == ours.digest
    with pytest.raises(RegistryError, match="with other images than the one that was checked"):
        prove(repository, both, config)
    with pytest.raises(RegistryError, match="not the image that was checked"):
        prove(repository, both, config, architecture="arm64")
    for wrong, count in ((index(arm64), 0), (index(amd64, {**other.to_json(), "platform": amd64["platform"]}), 2)):
        with pytest.raises(RegistryError, match=f"has {count} images for linux/amd64"):
            prove(repository, wrong, config)


def test_a_manifest_that_says_two_things_is_no_proof(plain: Place) -> None:
    repository = plain.repository("team/two")
    subject, config = image(repository)
    found = repository.manifest(subject.digest)
    assert found is not None
    document = json.loads(found.body)
    del document["mediaType"]
    # Without a word about itself it is what the registry says; the registry takes Docker's type for it as well.
    quiet = repository.put_manifest("quiet", to_bytes(document), OCI_MANIFEST)
    assert prove(repository, quiet, config).image.media_type in (OCI_MANIFEST, DOCKER_MANIFEST)
