"""Images in a registry: proving that one is the image that was checked, and giving it one more name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from builder.engine import fields
from builder.engine.errors import NotInRegistry, RegistryError
from builder.registry.protocol import RepositoryLike
from builder.registry.values import DOCKER_INDEX, IMAGES, INDEXES, OCI_INDEX, Descriptor, Manifest, parse_descriptor

_LARGEST_CONFIG = 8 << 20


@dataclass(frozen=True, kw_only=True)
class RemoteImage:
    """An image in a registry.

    Attributes:
        subject: the manifest that the digest names: an image's, or an index's.
        image: the manifest of the one image of the platform; the same as `subject` unless that is an index.
        config_digest: the digest of the image's configuration; the image id on an engine without containerd's store.
        config: the configuration's JSON bytes, held to their digest.
        layers: the image's layers, lowest first, as they are kept (compressed).
        diff_ids: the layers' digests when unpacked.
    """

    subject: Descriptor
    image: Descriptor
    config_digest: str
    config: bytes
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]


def remote_image(
    repository: RepositoryLike, digest: str, *, os: str = "linux", architecture: str = "amd64"
) -> RemoteImage:
    """The image that a digest names, by itself or through an index.

    Raises:
        NotInRegistry: there is no such manifest, or its configuration is missing.
        RegistryError: it is no image, or an index without exactly one image for the platform.
    """
    subject = _manifest(repository, digest)
    image = subject
    if subject.media_type in INDEXES:
        image = _manifest(repository, _one_of(subject, f"{repository.name}@{digest}", os, architecture).digest)
    if image.media_type not in IMAGES:
        raise RegistryError(f"{repository.name}@{image.digest} is no image, but {image.media_type or 'unknown'}")
    document = image.document()
    config = parse_descriptor(document.get("config"))
    layers = tuple(map(parse_descriptor, fields.sequence(document.get("layers"))))
    known = tuple(layer for layer in layers if layer is not None)
    if config is None or len(known) != len(layers):
        raise RegistryError(f"the manifest {repository.name}@{image.digest} is malformed")
    body = repository.blob(config.digest, cap=_LARGEST_CONFIG)
    diff_ids = _diff_ids(body)
    if len(diff_ids) != len(known):
        raise RegistryError(
            f"{repository.name}@{image.digest} has {len(known)} layers, and its configuration {len(diff_ids)}"
        )
    return RemoteImage(
        subject=subject.descriptor,
        image=image.descriptor,
        config_digest=config.digest,
        config=body,
        layers=known,
        diff_ids=diff_ids,
    )


def prove(
    repository: RepositoryLike, digest: str, image_id: str, *, os: str = "linux", architecture: str = "amd64"
) -> RemoteImage:
    """Proves that a digest is the image that was checked.

    An engine's image id is the digest of the image's configuration, and with containerd's image store that of its
    manifest, or of an index over it. Both are hashes over all of the image: the configuration holds the layers'.

    Args:
        digest: of a manifest in the repository.
        image_id: the engine's id of the image that was checked.
        os, architecture: of that image, for an index.

    Raises:
        NotInRegistry: there is no such manifest.
        RegistryError: it is another image, or an index that leads to other images too.
    """
    found = remote_image(repository, digest, os=os, architecture=architecture)
    if image_id not in (found.config_digest, found.image.digest, found.subject.digest):
        raise RegistryError(
            f"{repository.name}@{digest} is not the image that was checked: that was {image_id}, and the registry has "
            f"{found.config_digest}",
            hint="somebody else pushed at the same time; nothing was named",
        )
    if found.subject.digest != found.image.digest:
        _leads_to_one(repository, found)
    return found


def _leads_to_one(repository: RepositoryLike, image: RemoteImage) -> None:
    """Refuses an index that has something else to run: evidence about the index would speak for that as well."""
    index = _manifest(repository, image.subject.digest)
    for item in fields.sequence(index.document().get("manifests")):
        entry = parse_descriptor(item)
        platform = fields.mapping(fields.mapping(item).get("platform"))
        # BuildKit's statements on a build are entries for a platform that no machine has.
        if fields.text(platform.get("os")) == fields.text(platform.get("architecture")) == "unknown":
            continue
        if entry is None or entry.digest != image.image.digest:
            raise RegistryError(
                f"{repository.name}@{index.digest} is an index with other images than the one that was checked",
                hint=f"name that one alone: {repository.name}@{image.image.digest}",
            )


def put_image(
    repository: RepositoryLike,
    tag: str,
    push: Callable[[], str],
    *,
    image_id: str,
    os: str = "linux",
    architecture: str = "amd64",
) -> tuple[RemoteImage, bool]:
    """Makes sure that a repository holds an image under a tag that is never moved, and proves that it is the image.

    Args:
        push: pushes it under that tag; gives the digest that the engine says. Called only where the tag names nothing.
        image_id, os, architecture: as for `prove`.

    Returns:
        the image, and whether it was pushed now.

    Raises:
        RegistryError: the registry refused, or holds another image under this tag, which is never replaced.
        EngineError: the engine could not push.
    """
    held = _held(repository, tag)
    digest = held or push()
    if held is None:
        now = _held(repository, tag)
        if now != digest:
            raise RegistryError(
                f"{repository.name}:{tag} does not read back as what was pushed, {digest}, but as {now or 'nothing'}",
                hint="somebody else pushed at the same time; nothing was named",
            )
    return prove(repository, digest, image_id, os=os, architecture=architecture), held is None


def name(repository: RepositoryLike, digest: str, tag: str) -> bool:
    """Gives the manifest with this digest one more name: the same bytes, so that the digest stays; no layer is sent.

    Returns:
        whether the tag did not name it before.

    Raises:
        NotInRegistry: there is no such manifest.
        RegistryError: the registry refused, or the tag reads back as something else.
    """
    if _held(repository, tag) == digest:
        return False
    found = _manifest(repository, digest)
    repository.put_manifest(tag, found.body, found.media_type)
    now = _held(repository, tag)
    if now != digest:
        raise RegistryError(
            f"{repository.name}:{tag} reads back as {now or 'nothing'}, and not as {digest}",
            hint="it was moved at the same time",
        )
    return True


def _held(repository: RepositoryLike, tag: str) -> str | None:
    """What a tag names, by the bytes that a registry gives for it, and not by what it says of them."""
    found = repository.manifest(tag)
    return found.digest if found else None


def _manifest(repository: RepositoryLike, digest: str) -> Manifest:
    found = repository.manifest(digest)
    if found is None:
        raise NotInRegistry(f"there is no {repository.name}@{digest}")
    said = fields.text(found.document().get("mediaType"))
    # Read as two things, one document could be an index for one reader and an image for another.
    if said and said != found.media_type:
        raise RegistryError(f"{repository.name}@{digest} is sent as {found.media_type}, and says that it is {said}")
    return found


def _one_of(index: Manifest, name: str, os: str, architecture: str) -> Descriptor:
    assert index.media_type in (OCI_INDEX, DOCKER_INDEX)
    fitting = []
    for item in fields.sequence(index.document().get("manifests")):
        entry = parse_descriptor(item)
        platform = fields.mapping(fields.mapping(item).get("platform"))
        there = (fields.text(platform.get("os")), fields.text(platform.get("architecture")))
        # An entry without a platform is taken only where it is alone.
        if entry is not None and entry.media_type in IMAGES and there in ((os, architecture), ("", "")):
            fitting.append(entry)
    if len(fitting) != 1:
        raise RegistryError(
            f"the index {name} has {len(fitting)} images for {os}/{architecture}, where one is expected"
        )
    return fitting[0]


def _diff_ids(config: bytes) -> tuple[str, ...]:
    try:
        document = fields.mapping(json.loads(config))
    except (ValueError, RecursionError):
        document = {}
    return fields.texts(fields.mapping(document.get("rootfs")).get("diff_ids"))
