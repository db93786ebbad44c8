"""The list of what is attached, while others write it; and proofs. In memory."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from memory_repository import MemoryRepository

from builder.engine.errors import NotInRegistry, RegistryError
from builder.registry import artifacts
from builder.registry.artifacts import attach, attached, index_tag, own_tag, payload, repair
from builder.registry.images import name, prove, remote_image
from builder.registry.values import OCI_INDEX, OCI_MANIFEST, Descriptor, Manifest, digest_of, to_bytes

KIND = "application/x-kind"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.registry.artifacts.time.sleep", lambda seconds: None)


def put(repository: MemoryRepository, subject: Manifest, content: bytes) -> str:
    target = subject.descriptor
    return attach(repository, target, artifact_type=KIND, payload=content, payload_type=KIND).digest


def listed(repository: MemoryRepository, subject: str) -> set[str]:
    found = repository.manifest(index_tag(subject))
    return {entry["digest"] for entry in json.loads(found.body)["manifests"]} if found else set()


class Interfered(MemoryRepository):
    """Something else happens in the registry right after each of the first writes of a list."""

    def __init__(self, times: int, interfere: Callable[[MemoryRepository, bytes], None]) -> None:
        super().__init__()
        self.times = times
        self.interfere = interfere
        self.writes = 0

    def put_manifest(self, reference: str, body: bytes, media_type: str) -> str:
        before = self.manifest(reference)
        digest = super().put_manifest(reference, body, media_type)
        if media_type == OCI_INDEX:
            self.writes += 1
            if self.writes <= self.times:
                self.interfere(self, before.body if before else b'{"manifests":[]}')
        return digest


def overwrite(repository: MemoryRepository, before: bytes) -> None:
    """Another client writes the list that it read before ours was there."""
    digest = digest_of(before)
    repository.manifests[digest] = Manifest(media_type=OCI_INDEX, body=before)
    subject = next(tag for tag in repository.tagged if tag.startswith("sha256-") and "." not in tag)
    repository.tagged[subject] = digest


@pytest.mark.parametrize("times", [0, 1, 7])
def test_a_list_that_others_overwrite_is_written_again(times: int) -> None:
    repository = Interfered(times, overwrite)
    subject = repository.put_image("candidate")
    made = put(repository, subject, b"1")
    assert listed(repository, subject.digest) == {made}
    assert repository.writes == times + 1


def test_it_is_not_written_for_ever_and_nothing_is_lost_then() -> None:
    repository = Interfered(10_000, overwrite)
    subject = repository.put_image("candidate")
    with pytest.raises(RegistryError, match="still incomplete") as caught:
        put(repository, subject, b"1")
    assert "nothing is lost" in caught.value.hint
    assert repository.writes < 100
    assert listed(repository, subject.digest) == set()
    (found,) = attached(repository, subject.digest)
    assert payload(repository, found) == b"1"
    repository.times = 0
    assert repair(repository, subject.digest) == 1
    assert listed(repository, subject.digest) == {found.digest}


def test_a_list_of_tags_that_is_late_hides_nothing() -> None:
    class Late(MemoryRepository):
        def tags(self) -> tuple[str, ...]:
            return ()

    repository = Late()
    subject = repository.put_image("candidate")
    made = [put(repository, subject, content) for content in (b"1", b"2")]
    assert listed(repository, subject.digest) == set(made)


@pytest.mark.parametrize("api", [True, False])
def test_the_same_payload_is_one_artifact_and_annotations_make_another(api: bool) -> None:
    repository = MemoryRepository(api=api)
    subject = repository.put_image("candidate")
    assert put(repository, subject, b"1") == put(repository, subject, b"1")
    other = attach(
        repository, subject.descriptor, artifact_type=KIND, payload=b"1", payload_type=KIND, annotations={"a": "b"}
    )
    assert {found.digest for found in attached(repository, subject.digest)} == {
        put(repository, subject, b"1"),
        other.digest,
    }
    assert {tag for tag in repository.tags() if tag.startswith("sha256-")} == (
        set()
        if api
        else {index_tag(subject.digest)}
        | {own_tag(subject.digest, d) for d in (put(repository, subject, b"1"), other.digest)}
    )


def test_a_registry_that_learns_the_api_still_shows_what_was_attached_before() -> None:
    repository = MemoryRepository()
    subject = repository.put_image("candidate")
    before = put(repository, subject, b"1")

    class Forgetful(MemoryRepository):
        """Lists only what was put since."""

        def referrers(self, digest: str, artifact_type: str = "") -> tuple[Descriptor, ...] | None:
            found = super().referrers(digest, artifact_type) or ()
            return tuple(entry for entry in found if entry.digest != before)

    later = Forgetful(api=True)
    later.tagged, later.manifests, later.blobs = repository.tagged, repository.manifests, repository.blobs
    now = put(later, subject, b"2")
    assert {found.digest for found in attached(later, subject.digest)} == {before, now}


def test_a_list_that_is_cut_short_beside_the_api_hides_nothing() -> None:
    repository = MemoryRepository()
    subject = repository.put_image("candidate")
    made = {put(repository, subject, content) for content in (b"1", b"2")}
    entries = [repository.manifests[min(made)].descriptor.to_json()]
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    repository.put_manifest(index_tag(subject.digest), to_bytes(index), OCI_INDEX)
    assert {found.digest for found in attached(repository, subject.digest)} == made

    class Learnt(MemoryRepository):
        """Has the API now, and lists only what is put from now on."""

        def referrers(self, digest: str, artifact_type: str = "") -> tuple[Descriptor, ...] | None:
            return ()

    later = Learnt(api=True)
    later.tagged, later.manifests, later.blobs = repository.tagged, repository.manifests, repository.blobs
    assert {found.digest for found in attached(later, subject.digest)} == made


def test_a_registry_that_serves_the_api_but_does_not_list_gets_the_tags() -> None:
    class Broken(MemoryRepository):
        def referrers(self, digest: str, artifact_type: str = "") -> tuple[Descriptor, ...] | None:
            return ()

    repository = Broken()
    subject = repository.put_image("candidate")
    made = put(repository, subject, b"1")
    assert listed(repository, subject.digest) == {made}
    assert [found.digest for found in attached(repository, subject.digest)] == [made]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"subject": None, "layers": []},
        {"subject": {"digest": digest_of(b"another")}, "layers": [{"digest": digest_of(b"1")}]},
        {"layers": [{"digest": digest_of(b"1")}]},
    ],
)
def test_a_list_is_not_believed(document: dict[str, object]) -> None:
    repository = MemoryRepository()
    subject = repository.put_image("candidate")
    forged = repository.put_manifest("forged", to_bytes(document), OCI_MANIFEST)
    gone = {"mediaType": OCI_MANIFEST, "digest": digest_of(b"gone"), "size": 1}
    entry = {"mediaType": OCI_MANIFEST, "digest": forged, "size": 1, "artifactType": KIND}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry, gone, None, {}, "x"]}
    repository.put_manifest(index_tag(subject.digest), to_bytes(index), OCI_INDEX)
    assert attached(repository, subject.digest) == ()
    made = put(repository, subject, b"1")
    assert [found.digest for found in attached(repository, subject.digest, KIND)] == [made]
    # Nor does one that cannot be read hide anything, and it can be mended.
    repository.put_manifest(index_tag(subject.digest), b'{"manifests":[],"manifests":[]}', OCI_INDEX)
    assert [found.digest for found in attached(repository, subject.digest, KIND)] == [made]
    with pytest.raises(RegistryError, match="no list of artifacts"):
        put(repository, subject, b"2")
    repair(repository, subject.digest)
    assert made in listed(repository, subject.digest)


def test_what_a_registry_with_the_api_does_not_list_is_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    repository = MemoryRepository(api=True)
    subject = repository.put_image("candidate")
    repository.put_manifest(index_tag(subject.digest), b"{}", OCI_MANIFEST)
    monkeypatch.setattr(repository, "put_referrer", lambda body, media_type: False)
    monkeypatch.setattr(repository, "referrers", lambda digest, artifact_type="": ())
    with pytest.raises(RegistryError, match="no list of artifacts"):
        put(repository, subject, b"1")
    assert len(attached(repository, subject.digest)) == 1


def test_too_many_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    repository = MemoryRepository()
    subject = repository.put_image("candidate")
    for content in (b"1", b"2", b"3"):
        put(repository, subject, content)
    assert len(attached(repository, subject.digest)) == 3
    monkeypatch.setattr(artifacts, "MOST", 2)
    with pytest.raises(RegistryError, match="3 artifacts, more than the 2"):
        attached(repository, subject.digest)


def test_a_proof_needs_the_same_image() -> None:
    repository = MemoryRepository()
    image = repository.put_image("candidate", diff_ids=("sha256:a", "sha256:b"))
    other = repository.put_image("other")
    found = remote_image(repository, image.digest)
    assert found.diff_ids == ("sha256:a", "sha256:b")
    assert prove(repository, image.digest, found.config_digest) == found
    # With containerd's image store, an engine's id of an image is its manifest's digest.
    assert prove(repository, image.digest, image.digest) == found
    for wrong in (remote_image(repository, other.digest).config_digest, other.digest, ""):
        with pytest.raises(RegistryError, match="not the image that was checked"):
            prove(repository, image.digest, wrong)
    with pytest.raises(NotInRegistry):
        prove(repository, digest_of(b"none"), found.config_digest)


def test_a_manifest_with_other_layers_than_its_configuration_is_no_proof() -> None:
    repository = MemoryRepository()
    odd = repository.put_image("odd", diff_ids=("sha256:a",), layers=2)
    with pytest.raises(RegistryError, match="2 layers, and its configuration 1"):
        remote_image(repository, odd.digest)


def test_what_is_no_image_is_no_proof() -> None:
    repository = MemoryRepository()
    for media_type, document in (
        ("application/x-other", {}),
        (OCI_MANIFEST, {}),
        (OCI_MANIFEST, {"config": {"digest": digest_of(b"c")}, "layers": ["x"]}),
        (OCI_MANIFEST, {"mediaType": OCI_INDEX}),
        (OCI_INDEX, {"manifests": []}),
    ):
        digest = repository.put_manifest("x", to_bytes(document), media_type)
        with pytest.raises(RegistryError):
            remote_image(repository, digest)


@pytest.mark.parametrize(
    "more",
    [
        ', "config": {}',
        ', "Config": {}',
        ', "CONFIG": null',
        ', "layer\u017f": []',
        ', "MediaType": "x"',
    ],
)
def test_a_manifest_that_other_programs_read_otherwise_is_no_proof(more: str) -> None:
    # Go's programs, the engine and most registries among them, take `Config` for `config`; the last one wins.
    repository = MemoryRepository()
    image = repository.put_image("candidate", diff_ids=("sha256:a",))
    config = prove(repository, image.digest, remote_image(repository, image.digest).config_digest).config_digest
    doubled = repository.put_manifest("doubled", image.body[:-1] + more.encode() + b"}", OCI_MANIFEST)
    with pytest.raises(RegistryError, match="two ways"):
        prove(repository, doubled, config)


def test_a_descriptor_that_other_programs_read_otherwise_is_no_proof() -> None:
    repository = MemoryRepository()
    image = repository.put_image("candidate")
    config = remote_image(repository, image.digest).config_digest
    twice = image.body.replace(b'"config":{', b'"config":{"Digest":"' + digest_of(b"evil").encode() + b'",')
    assert twice != image.body
    with pytest.raises(RegistryError, match="two ways"):
        prove(repository, repository.put_manifest("twice", twice, OCI_MANIFEST), config)
    # The keys of annotations are anybody's own, and programs tell them apart.
    noted = image.body[:-1] + b',"annotations":{"Config":"a","config":"b","SIZE":"c"}}'
    prove(repository, repository.put_manifest("noted", noted, OCI_MANIFEST), config)


def test_of_an_index_nothing_is_proven_that_was_not_checked() -> None:
    repository = MemoryRepository()
    ours, other = repository.put_image("ours"), repository.put_image("other", diff_ids=("sha256:a",))
    config = remote_image(repository, ours.digest).config_digest

    def index(*entries: dict[str, object]) -> str:
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)}
        return repository.put_manifest("index", to_bytes(document), OCI_INDEX)

    def on(manifest: Manifest, architecture: str, os: str = "linux", **changes: object) -> dict[str, object]:
        platform = {"os": os, "architecture": architecture}
        return {**manifest.descriptor.to_json(), "platform": platform, **changes}

    amd64 = on(ours, "amd64")
    # What BuildKit says of a build lies in an index as an image for no platform.
    alone = index(amd64, on(other, "unknown", "unknown"))
    assert prove(repository, alone, config).subject.digest == alone
    for more in (
        on(other, "arm64"),
        on(other, "amd64", digest="sha512:" + "0" * 128),
        on(other, "arm64", mediaType=OCI_INDEX),
        {**other.descriptor.to_json(), "mediaType": OCI_INDEX},
    ):
        several = index(more, amd64)
        assert remote_image(repository, several).image.digest == ours.digest
        with pytest.raises(RegistryError, match="other images") as caught:
            prove(repository, several, config)
        assert ours.digest in caught.value.hint


def test_a_name_that_reads_back_as_something_else_is_an_error() -> None:
    class Moving(MemoryRepository):
        def put_manifest(self, reference: str, body: bytes, media_type: str) -> str:
            digest = super().put_manifest(reference, body, media_type)
            if reference == "latest":
                self.tagged["latest"] = self.tagged["other"]
            return digest

    for kind in (MemoryRepository, Moving):
        repository = kind()
        image = repository.put_image("candidate")
        repository.put_image("other", diff_ids=("sha256:a",))
        if kind is Moving:
            with pytest.raises(RegistryError, match="reads back as"):
                name(repository, image.digest, "latest")
        else:
            name(repository, image.digest, "latest")
            assert repository.tagged["latest"] == image.digest
