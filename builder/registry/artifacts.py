"""What is attached to an image in its registry: bundles of signed statements, SBOMs.

An artifact is an OCI image manifest with a `subject`, laid out as cosign lays out its bundles
(https://github.com/sigstore/cosign/blob/main/specs/BUNDLE_SPEC.md). A registry with the referrers API lists it by
itself. For one without, clients keep a list themselves, an index under the tag `sha256-HEX` of the subject
(https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#referrers-tag-schema). Registries have no
compare-and-swap, so two clients that write this index at once lose one of the entries. Here

- each artifact first gets a tag of its own, `sha256-HEX.imgbuild-DIGITS`, which nobody else writes;
- whoever writes the index writes the union of what it holds and of all such tags, looks again afterwards, and goes on
  until nothing is missing. An index without an entry can then only have been written by somebody who looked before
  that entry's tag was there, and who will look again;
- a reader takes the union too, so nothing is lost even while an index is incomplete, deleted or overwritten.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

from builder.engine import fields
from builder.engine.errors import NotInRegistry, RegistryError
from builder.registry.answers import RegistryRefused
from builder.registry.protocol import RepositoryLike
from builder.registry.values import (
    DIGEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    parse_descriptor,
    to_bytes,
)

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
"""Artifact type and payload type of a sigstore bundle."""
BUNDLE_CONTENT = "dev.sigstore.bundle.content"
"""Annotation: `dsse-envelope` for a bundle with a statement."""
BUNDLE_PREDICATE = "dev.sigstore.bundle.predicateType"
"""Annotation: the predicate type of the statement in a bundle."""
CREATED = "org.opencontainers.image.created"
"""Annotation: when it was made, as in RFC 3339."""

LARGEST_PAYLOAD = 64 << 20
"""Bytes of one artifact's payload."""
MOST = 2000
"""Artifacts of one image: more are not read."""

_EMPTY = b"{}"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_TITLE = "org.opencontainers.image.title"
_OWN_DIGITS = 32
_ROUNDS = 60
"""How often an index is written before this gives up. Every client writes at most once for each entry that it had not
seen, so n clients at the same time need at most n rounds."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Something attached to an image.

    Attributes:
        descriptor: its manifest, with its type and annotations.
        subject: the digest of the image.
        payload: its first layer: what it is made for.
    """

    descriptor: Descriptor
    subject: str
    payload: Descriptor

    @property
    def digest(self) -> str:
        """The digest of its manifest."""
        return self.descriptor.digest

    @property
    def artifact_type(self) -> str:
        """What kind of artifact it is, as a media type."""
        return self.descriptor.artifact_type

    @property
    def annotations(self) -> Mapping[str, str]:
        """The manifest's annotations: claims of whoever attached it, which nothing has verified."""
        return self.descriptor.annotations


def index_tag(subject: str) -> str:
    """The tag of the list of what is attached to a digest."""
    return subject.replace(":", "-", 1)


def own_tag(subject: str, artifact: str) -> str:
    """The tag that an artifact has for itself; 113 of the 128 characters that a tag may have."""
    return f"{index_tag(subject)}.imgbuild-{artifact.removeprefix('sha256:')[:_OWN_DIGITS]}"


def attach(
    repository: RepositoryLike,
    subject: Descriptor,
    *,
    artifact_type: str,
    payload: bytes,
    payload_type: str,
    annotations: Mapping[str, str] | None = None,
) -> Descriptor:
    """Attaches a payload to an image; returns the descriptor of the artifact's manifest.

    The manifest depends on the arguments alone, so the same payload with the same annotations is one artifact,
    however often it is attached.

    Args:
        subject: the image's manifest, which the repository holds.
        artifact_type: what it is listed as, a media type.
        payload: its content.
        payload_type: the content's media type.
        annotations: of the manifest.

    Raises:
        NotInRegistry: the repository does not hold the subject.
        RegistryError: the registry refused, or what holds the tag of the list is no list. The artifact may then be
            there all the same, under its own tag, and is read from there.
    """
    if repository.manifest(subject.digest) is None:
        raise NotInRegistry(f"there is no {repository.name}@{subject.digest} to attach anything to")
    empty = repository.put_blob(_EMPTY, _EMPTY_TYPE)
    layer = repository.put_blob(payload, payload_type)
    if payload_type == BUNDLE_TYPE:
        title = {_TITLE: f"{index_tag(layer.digest)}.sigstore.json"}
        layer = Descriptor(media_type=payload_type, digest=layer.digest, size=layer.size, annotations=title)
    target = Descriptor(media_type=subject.media_type, digest=subject.digest, size=subject.size)
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": empty.to_json(),
        "layers": [layer.to_json()],
        "subject": target.to_json(),
    }
    if annotations:
        document["annotations"] = dict(annotations)
    made = Manifest(media_type=OCI_MANIFEST, body=to_bytes(document))
    if repository.referrers(subject.digest) is not None:
        listed = repository.put_referrer(made.body, OCI_MANIFEST)
        if listed or made.digest in {entry.digest for entry in repository.referrers(subject.digest) or ()}:
            return made.descriptor
    repository.put_manifest(own_tag(subject.digest, made.digest), made.body, OCI_MANIFEST)
    _complete(repository, subject.digest, made, replace=False)
    return made.descriptor


def attached(repository: RepositoryLike, subject: str, artifact_type: str = "") -> tuple[Artifact, ...]:
    """What is attached to a digest, by anybody, sorted by digest. Nothing in it has been verified but its hashes.

    Args:
        artifact_type: only artifacts of this type; empty for all.

    Raises:
        RegistryError: the registry refused or gave other bytes than those of a digest.
    """
    # Without the type: what a registry filters out by mistake would be missed.
    listed = repository.referrers(subject)
    found = {entry.digest: entry for entry in listed or ()}
    # A registry that learnt the API later must list what older clients attached; not every one does.
    index, _, is_index = _read_index(repository, subject)
    found |= {entry.digest: entry for entry, _ in index}
    manifests: dict[str, Manifest] = {}
    if listed is None or index or not is_index:
        manifests = _own(repository, subject, known=frozenset(found))
    wanted = {digest for digest, entry in found.items() if _may_be(entry, artifact_type)} | set(manifests)
    if len(wanted) > MOST:
        raise RegistryError(
            f"{repository.name}@{subject} has {len(wanted)} artifacts, more than the {MOST} that are read"
        )
    artifacts = []
    for digest in sorted(wanted):
        manifest = manifests.get(digest) or repository.manifest(digest)
        artifact = _artifact(manifest, subject) if manifest else None
        if artifact is not None and artifact_type in ("", artifact.artifact_type):
            artifacts.append(artifact)
    return tuple(artifacts)


def payload(repository: RepositoryLike, artifact: Artifact, *, cap: int = LARGEST_PAYLOAD) -> bytes:
    """The content of an artifact, held to its digest.

    Raises:
        NotInRegistry: it is gone.
        RegistryError: it is larger than `cap` bytes, or has other bytes.
    """
    return repository.blob(artifact.payload.digest, cap=cap)


def repair(repository: RepositoryLike, subject: str) -> int:
    """Writes the list of what is attached to a digest anew where artifacts are missing in it; returns how many were.

    Whatever else holds the list's tag is replaced: by the specification it belongs to the list. Nothing is done in a
    registry with the referrers API.

    Raises:
        RegistryError: the registry refused.
    """
    if repository.referrers(subject) is not None:
        return 0
    return _complete(repository, subject, None, replace=True)


def _complete(repository: RepositoryLike, subject: str, made: Manifest | None, *, replace: bool) -> int:
    """Makes the index hold every artifact with a tag of its own, and `made`; returns how many it lacked at first."""
    lacked: int | None = None
    for round_ in range(_ROUNDS):
        entries, rest, is_index = _read_index(repository, subject)
        if not is_index and not replace:
            raise RegistryError(
                f"{repository.name}:{index_tag(subject)} is no list of artifacts, so nothing can be added to it",
                hint="remove that tag; what was attached is kept under a tag of its own",
            )
        known = frozenset(entry.digest for entry, _ in entries)
        missing = _own(repository, subject, known=known)
        if made is not None and made.digest not in known:
            # A registry's list of tags may be late.
            missing[made.digest] = made
        lacked = len(missing) if lacked is None else lacked
        if not missing:
            return lacked
        _write_index(repository, subject, entries, rest, missing)
        # So that clients that began together do not go on in step.
        time.sleep(random.uniform(0, 0.02 * min(round_ + 1, 10)))
    raise RegistryError(
        f"{repository.name}:{index_tag(subject)} is written by so many at once that it is still incomplete",
        hint="nothing is lost: what was attached is kept under a tag of its own, and the next one to attach adds it",
    )


_Entry = tuple[Descriptor, Mapping[str, object]]
"""An entry of an index, as it was read and as it was written: others' entries are kept as they are."""


def _read_index(repository: RepositoryLike, subject: str) -> tuple[list[_Entry], Mapping[str, object], bool]:
    """The entries of the index, its other members, and whether its tag holds an index or nothing."""
    found = repository.manifest(index_tag(subject))
    if found is None:
        return [], {}, True
    try:
        document = found.document() if found.media_type == OCI_INDEX else None
    except RegistryError:
        document = None
    if document is None:
        return [], {}, False
    entries: list[_Entry] = []
    for item in fields.sequence(document.get("manifests")):
        entry = parse_descriptor(item)
        if entry is not None and entry.digest not in {known.digest for known, _ in entries}:
            entries.append((entry, fields.mapping(item)))
    return entries, {key: value for key, value in document.items() if key != "manifests"}, True


def _write_index(
    repository: RepositoryLike,
    subject: str,
    entries: list[_Entry],
    rest: Mapping[str, object],
    missing: Mapping[str, Manifest],
) -> None:
    added = [missing[digest].descriptor.to_json() for digest in sorted(missing)]

    def write(kept: list[_Entry]) -> None:
        document = {**rest, "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*(r for _, r in kept), *added]}
        repository.put_manifest(index_tag(subject), to_bytes(document), OCI_INDEX)

    try:
        write(entries)
    except RegistryRefused as refused:
        # Registries take no index that names what they do not have; somebody may have deleted an artifact.
        there = [pair for pair in entries if repository.manifest(pair[0].digest) is not None]
        if refused.status not in (400, 404) or len(there) == len(entries):
            raise
        write(there)


def _own(repository: RepositoryLike, subject: str, *, known: frozenset[str]) -> dict[str, Manifest]:
    """The artifacts that have a tag of their own, without those that are known."""
    prefix = own_tag(subject, "")
    short = {digest.removeprefix("sha256:")[:_OWN_DIGITS] for digest in known}
    tags = [tag for tag in repository.tags() if tag.startswith(prefix) and tag.removeprefix(prefix) not in short]
    if len(tags) > MOST:
        raise RegistryError(
            f"{repository.name}@{subject} has {len(tags)} artifacts, more than the {MOST} that are read"
        )
    found = {}
    for tag in tags:
        manifest = repository.manifest(tag)
        # A tag that was moved to something else, or deleted meanwhile, speaks for nothing.
        if manifest is None or own_tag(subject, manifest.digest) != tag or _artifact(manifest, subject) is None:
            continue
        found[manifest.digest] = manifest
    return found


def _may_be(entry: Descriptor, artifact_type: str) -> bool:
    # Lists written by old clients do not say it; then the manifest does.
    return artifact_type in ("", entry.artifact_type) or not entry.artifact_type


def _artifact(manifest: Manifest, subject: str) -> Artifact | None:
    """The artifact in a manifest; None when it is attached to something else, or has no content."""
    if manifest.media_type != OCI_MANIFEST:
        return None
    try:
        document = manifest.document()
    except RegistryError:
        return None
    target = parse_descriptor(document.get("subject"))
    layers = fields.sequence(document.get("layers"))
    content = parse_descriptor(layers[0]) if layers else None
    if target is None or target.digest != subject or content is None or not DIGEST.fullmatch(subject):
        return None
    return Artifact(descriptor=manifest.descriptor, subject=subject, payload=content)
