"""Descriptors and manifests, as the OCI image specification defines them.

https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md, …/manifest.md and …/image-index.md
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from builder.engine import fields
from builder.engine.errors import RegistryError

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"

IMAGES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
"""Media types of the manifest of one image."""
INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})
"""Media types of a list of manifests."""

_MEMBERS = {
    name.casefold(): name
    for name in (
        *("schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations"),
        *("digest", "size", "urls", "data", "platform", "os", "architecture", "variant"),
    )
}
"""The members of manifests and descriptors, as programs find them that do not heed upper and lower case."""

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def digest_of(data: bytes) -> str:
    """`sha256:` and the SHA-256 of the bytes in hexadecimal digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """What points to content in a registry.

    Attributes:
        media_type: of the content.
        digest: `sha256:…` of its bytes.
        size: their number.
        artifact_type: what kind of artifact a manifest is; empty where nothing says so.
        annotations: a manifest's own, or those of a layer.
    """

    media_type: str
    digest: str
    size: int
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The members of the specification, without empty optional ones."""
        said: dict[str, object] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.artifact_type:
            said["artifactType"] = self.artifact_type
        if self.annotations:
            said["annotations"] = dict(self.annotations)
        return said


def parse_descriptor(value: object) -> Descriptor | None:
    """The descriptor in decoded JSON; None when it has no SHA-256 digest."""
    found = fields.mapping(value)
    digest = fields.text(found.get("digest"))
    if not DIGEST.fullmatch(digest):
        return None
    return Descriptor(
        media_type=fields.text(found.get("mediaType")),
        digest=digest,
        size=fields.integer(found.get("size")),
        artifact_type=fields.text(found.get("artifactType")),
        annotations=fields.text_mapping(found.get("annotations")),
    )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest or an index, as its registry keeps it.

    Attributes:
        media_type: what the registry says that it is; what the document itself says where both are known to differ
            is refused when it is read.
        body: its bytes.
    """

    media_type: str
    body: bytes

    @property
    def digest(self) -> str:
        """The digest of its bytes."""
        return digest_of(self.body)

    @property
    def descriptor(self) -> Descriptor:
        """What points to it, with the artifact's type and annotations, as a list of referrers has them."""
        document = self.document()
        kind = fields.text(document.get("artifactType"))
        if not kind and self.media_type == OCI_MANIFEST:
            kind = fields.text(fields.mapping(document.get("config")).get("mediaType"))
        return Descriptor(
            media_type=self.media_type,
            digest=self.digest,
            size=len(self.body),
            artifact_type=kind,
            annotations=fields.text_mapping(document.get("annotations")),
        )

    def document(self) -> Mapping[str, object]:
        """Its content.

        Raises:
            RegistryError: it is no JSON object, or one that programs read in different ways: a member stands in it
                twice, or in another spelling. Go's programs, Docker and most registries, take `Config` for `config`,
                so that a proof about the one would not hold for what they pull.
        """
        doubled: list[str] = []

        def members(pairs: list[tuple[str, object]]) -> dict[str, object]:
            found = dict(pairs)
            if len(found) != len(pairs):
                doubled.append("a member stands in it twice")
            return found

        try:
            found: object = json.loads(self.body.decode("utf-8"), object_pairs_hook=members)
            odd = _odd_member(found)
        except (ValueError, RecursionError):
            found, odd = None, ""
        if not isinstance(found, dict):
            raise RegistryError(f"the manifest {self.digest} is no JSON object")
        if doubled or odd:
            raise RegistryError(
                f"the manifest {self.digest} can be read in two ways: {doubled[0] if doubled else odd}",
                hint="no program writes such a manifest by itself: find out who put it there",
            )
        return fields.mapping(found)


def _odd_member(value: object) -> str:
    """What is wrong with the first member whose name some programs take for another; empty for none."""
    if isinstance(value, list):
        return next((odd for item in value if (odd := _odd_member(item))), "")
    if not isinstance(value, dict):
        return ""
    for key, item in value.items():
        if _MEMBERS.get(key.casefold(), key) != key:
            return f"{key!a} is not {_MEMBERS[key.casefold()]!r}"
        # The keys of annotations are data, which every program takes as they are.
        odd = "" if key == "annotations" else _odd_member(item)
        if odd:
            return odd
    return ""


def to_bytes(document: Mapping[str, object]) -> bytes:
    """A document as bytes, the same ones for the same content."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
