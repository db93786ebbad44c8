"""A repository in memory, with and without a referrers API."""

from __future__ import annotations

from builder.engine.errors import NotInRegistry
from builder.registry.values import OCI_MANIFEST, Descriptor, Manifest, digest_of, parse_descriptor, to_bytes


class MemoryRepository:
    """What `builder.registry.client.RepositoryLike` asks for."""

    def __init__(self, *, api: bool = False) -> None:
        self.api = api
        self.tagged: dict[str, str] = {}
        self.manifests: dict[str, Manifest] = {}
        self.blobs: dict[str, bytes] = {}

    @property
    def name(self) -> str:
        return "registry.example/team/image"

    def manifest(self, reference: str) -> Manifest | None:
        return self.manifests.get(self.tagged.get(reference, reference))

    def digest(self, reference: str) -> str | None:
        found = self.manifest(reference)
        return found.digest if found else None

    def put_manifest(self, reference: str, body: bytes, media_type: str) -> str:
        digest = digest_of(body)
        self.manifests[digest] = Manifest(media_type=media_type, body=body)
        if reference != digest:
            self.tagged[reference] = digest
        return digest

    def delete_manifest(self, digest: str) -> None:
        """As registries do it: the tags that name it go with it, and a list that names it stays."""
        del self.manifests[digest]
        self.tagged = {tag: named for tag, named in self.tagged.items() if named != digest}

    def put_referrer(self, body: bytes, media_type: str) -> bool:
        self.put_manifest(digest_of(body), body, media_type)
        return self.api

    def blob(self, digest: str, *, cap: int = 0) -> bytes:
        if digest not in self.blobs:
            raise NotInRegistry(digest)
        return self.blobs[digest]

    def put_blob(self, data: bytes, media_type: str = "application/octet-stream") -> Descriptor:
        self.blobs[digest_of(data)] = data
        return Descriptor(media_type=media_type, digest=digest_of(data), size=len(data))

    def tags(self) -> tuple[str, ...]:
        return tuple(sorted(self.tagged))

    def referrers(self, digest: str, artifact_type: str = "") -> tuple[Descriptor, ...] | None:
        if not self.api:
            return None
        found = []
        for manifest in self.manifests.values():
            target = parse_descriptor(manifest.document().get("subject"))
            entry = manifest.descriptor
            if target is not None and target.digest == digest and artifact_type in ("", entry.artifact_type):
                found.append(entry)
        return tuple(found)

    def put_image(self, tag: str, *, diff_ids: tuple[str, ...] = (), layers: int | None = None) -> Manifest:
        """Puts an image whose layers exist in name only."""
        config = self.put_blob(to_bytes({"config": {"Labels": {"tag": tag}}, "rootfs": {"diff_ids": list(diff_ids)}}))
        count = len(diff_ids) if layers is None else layers
        layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest_of(b"l"), "size": 1}
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config.to_json() | {"mediaType": "application/vnd.oci.image.config.v1+json"},
            "layers": [layer] * count,
        }
        digest = self.put_manifest(tag, to_bytes(document), OCI_MANIFEST)
        return self.manifests[digest]
