"""Images on an engine: listing, inspecting, naming, removing, loading, and asking a registry for a digest."""

from __future__ import annotations

import base64
import json
import re
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from builder.engine import fields
from builder.engine.auth import DOCKER_HUB, CredentialSource
from builder.engine.connection import Engine, refusal
from builder.engine.errors import (
    EngineError,
    EngineRefused,
    ImageMissing,
    NotInRegistry,
    RegistryError,
    RegistryUnreachable,
)
from builder.engine.reference import Reference

_CHUNK = 1 << 20
_NEVER = datetime.fromtimestamp(0, tz=timezone.utc)
_ABSENT = ("manifest unknown", "name unknown", "not found")
"""What registries say of an image or a repository that they have not."""
# What a registry that is busy answers, as engines pass it on: not a statement about the image.
_BUSY = re.compile(r"unexpected http status: (?:429|5\d\d)|toomanyrequests")
PAUSES = (0.5, 2.0)
"""Seconds to wait before a registry that was busy is asked again; then its answer counts."""

# As words of their own: a repository may be called team/geofence, and stands in most messages.
_UNREACHABLE = re.compile(
    r"(?<![\w/.-])(?:no such host|connection refused|timeout|deadline exceeded|temporary failure"
    r"|network is unreachable|no route to host|connection reset|eof|server misbehaving)(?![\w/-])"
)


@dataclass(frozen=True, kw_only=True)
class ImageSummary:
    """One image, as a listing shows it.

    Attributes:
        id: `sha256:…`, the engine's own id.
        tags: every `repository:tag` that names it, sorted.
        labels: its labels, inherited ones included.
        created: when it was made, in UTC.
        size: bytes, shared layers included.
    """

    id: str
    tags: tuple[str, ...]
    labels: Mapping[str, str]
    created: datetime
    size: int


@dataclass(frozen=True, kw_only=True)
class ImageDetails(ImageSummary):
    """One image in full.

    Attributes:
        layers: the layers' diff ids, lowest first.
        environment: the variables that its containers start with.
        entrypoint, command: None where the image sets none.
        user, workdir: as written in the image; empty for root and `/`.
        architecture, os: as images spell them: `amd64`, `linux`.
        tagged: when the engine last gave it a name; None when unknown.
        digests: every `repository@sha256:…` under which a registry is known to hold it, sorted.
        volumes: paths at which its containers get a writable volume of their own, sorted.
        repeated: the entries `NAME=value` of variables that are set several times, in their order; `environment` has
            the last of each. Its containers get all of them, and programs differ in which one they take.
    """

    layers: tuple[str, ...]
    environment: Mapping[str, str]
    entrypoint: tuple[str, ...] | None
    command: tuple[str, ...] | None
    user: str
    workdir: str
    architecture: str
    os: str
    digests: tuple[str, ...]
    tagged: datetime | None
    volumes: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()


def list_images(engine: Engine, *, label: str | None = None, tagged: bool = True) -> tuple[ImageSummary, ...]:
    """The engine's images, newest first, in one call.

    Args:
        label: `key` or `key=value` that they must have. A child inherits its parent's labels, so a label alone
            never says what an image is: look at its tags too.
        tagged: leave out images without a tag: what a rebuild replaced keeps its labels.
    """
    filters = {"label": [label]} if label else {}
    answer = engine.call_json("GET", "/images/json", doing="list images", params={"filters": json.dumps(filters)})
    images = (_summary(fields.mapping(item)) for item in fields.sequence(answer))
    chosen = [image for image in images if image.tags or not tagged]
    return tuple(sorted(chosen, key=lambda image: (image.created, image.id), reverse=True))


def inspect(engine: Engine, reference: str) -> ImageDetails | None:
    """The image that `reference` (a name or an id) resolves to on the engine; None when there is none."""
    try:
        answer = engine.call_json("GET", f"/images/{_quoted(reference)}/json", doing=f"inspect {reference}")
    except EngineRefused as refused:
        if refused.status == 404:
            return None
        raise
    image = fields.mapping(answer)
    config = fields.mapping(image.get("Config"))
    variables = fields.texts(config.get("Env"))
    return ImageDetails(
        id=fields.text(image.get("Id")),
        tags=_names(image.get("RepoTags")),
        labels=fields.text_mapping(config.get("Labels")),
        created=_instant(fields.text(image.get("Created"))) or _NEVER,
        size=fields.integer(image.get("Size")),
        layers=fields.texts(fields.mapping(image.get("RootFS")).get("Layers")),
        environment=dict(map(_variable, variables)),
        repeated=repeated(variables),
        entrypoint=fields.texts(config.get("Entrypoint")) or None,
        command=fields.texts(config.get("Cmd")) or None,
        user=fields.text(config.get("User")),
        workdir=fields.text(config.get("WorkingDir")),
        architecture=fields.text(image.get("Architecture")),
        os=fields.text(image.get("Os")),
        digests=_names(image.get("RepoDigests")),
        volumes=tuple(sorted(fields.mapping(config.get("Volumes")))),
        tagged=_instant(fields.text(fields.mapping(image.get("Metadata")).get("LastTagTime"))),
    )


def tag(engine: Engine, image_id: str, reference: str) -> None:
    """Names the image `image_id`, and reads back that the name now means it.

    Raises:
        InvalidReference: `reference` is malformed.
        ImageMissing: the image is gone.
        EngineError: the name means another image right after: somebody else moved it.
    """
    name = Reference.parse(reference)
    try:
        engine.call(
            "POST",
            f"/images/{_quoted(image_id)}/tag",
            doing=f"tag {image_id} as {reference}",
            params={"repo": name.repository, "tag": name.tag or "latest"},
        ).close()
    except EngineRefused as refused:
        if refused.status == 404:
            raise ImageMissing(f"cannot tag {image_id} as {reference}: the image is gone") from refused
        raise
    found = inspect(engine, reference)
    if found is None or found.id != image_id:
        now = found.id if found else "nothing"
        raise EngineError(f"{reference} was to name {image_id}, but names {now}: it was moved at the same time")


def untag(engine: Engine, reference: str) -> bool:
    """Takes one name from an image; False when nothing has that name.

    An image without any name left is removed, unless a container or another image needs it.
    """
    if not Reference.parse(reference).tag:
        raise ValueError(f"{reference!r} has no tag")
    return remove(engine, reference)


def remove(engine: Engine, image: str, *, force: bool = False) -> bool:
    """Removes an image by id or name; False when there is none.

    Args:
        force: also when several names or a stopped container hold it.

    Raises:
        EngineRefused: something still needs it (status 409).
    """
    try:
        engine.call(
            "DELETE", f"/images/{_quoted(image)}", doing=f"remove {image}", params={"force": force}, timeout=300
        ).close()
    except EngineRefused as refused:
        if refused.status == 404:
            return False
        raise
    return True


def load_archive(engine: Engine, source: Path | Iterable[bytes], *, timeout: float = 600) -> str:
    """Loads what `docker save` writes; returns the id of its (first) image.

    Args:
        source: a file, or the bytes in pieces.
        timeout: seconds that the engine may be silent for.

    Raises:
        EngineRefused: the archive is not one.
        DiskFull: the engine's disk is full.
    """
    doing = "load an image"
    body = _pieces(source) if isinstance(source, Path) else source
    response = engine.call(
        "POST",
        "/images/load",
        doing=doing,
        params={"quiet": True},
        body=body,
        headers={"Content-Type": "application/x-tar"},
        timeout=timeout,
        stream=True,
    )
    with engine.reading(response, doing):
        for line in response.iter_lines():
            event = _decoded(line)
            error = fields.text(event.get("error"))
            if error:
                raise refusal(500, error, doing)
            _, found, name = fields.text(event.get("stream")).strip().partition("Loaded image")
            if found:
                name = name.removeprefix(" ID").removeprefix(":").strip()
                image = inspect(engine, name)
                if image is not None:
                    return image.id
    raise EngineRefused(f"cannot {doing}: the engine named no image in it", status=500)


def registry_digest(engine: Engine, reference: str, logins: CredentialSource | None = None) -> str:
    """The digest that `reference` has in its registry now, as the engine sees it. A busy registry is asked again.

    Args:
        engine: asks the registry.
        reference: a name with or without a tag.
        logins: where the registry's login may be found; None to ask without one.

    Raises:
        RegistryUnreachable: no registry answered.
        NotInRegistry: the registry has no such image, or refuses to say.
        RegistryError: the registry failed.
    """
    name = Reference.parse(reference)
    try:
        answer = _asked_patiently(engine, reference, login_header(name, logins))
    except EngineRefused as refused:
        raise registry_failure(refused, name) from refused
    digest = fields.text(fields.mapping(fields.mapping(answer).get("Descriptor")).get("digest"))
    if not digest.startswith("sha256:"):
        raise RegistryError(f"{registry_of(name)} named no digest for {reference}")
    return digest


def login_header(name: Reference, logins: CredentialSource | None) -> dict[str, str]:
    """The header with which an engine is lent a login for one call; none where there is no login.

    Raises:
        RegistryError: the login cannot be read.
    """
    login = logins.credentials(name.host or DOCKER_HUB) if logins else None
    if login is None:
        return {}
    account = {"username": login.username, "password": login.secret, "serveraddress": name.host}
    if not login.username:
        account = {"identitytoken": login.secret, "serveraddress": name.host}
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(account).encode()).decode()}


def registry_of(name: Reference) -> str:
    """What messages call the registry of a name."""
    return name.host or "the default registry"


def is_busy(message: str) -> bool:
    """Whether what an engine passes on from a registry says only that it is busy now."""
    return _BUSY.search(message.lower()) is not None


def registry_failure(refused: EngineRefused, name: Reference) -> RegistryError:
    """The error for what an engine passes on from a registry that it asked for an image.

    It is NotInRegistry, RegistryUnreachable, or RegistryError where the registry itself failed.
    """
    host = registry_of(name)
    said = refused.message.replace(str(name), "").lower()
    unreachable = _UNREACHABLE.search(said)
    if unreachable:
        return RegistryUnreachable(
            f"{host} is unreachable from the engine: {refused.message}",
            cause=unreachable[0],
            hint="check the engine's network and proxy, or use a base that is made without a registry",
        )
    if refused.status in (401, 403) or any(sign in said for sign in ("unauthorized", "denied", "no basic auth")):
        return NotInRegistry(
            f"{host} refuses {name}, or has no such image: {refused.message}",
            hint=f"docker login {name.host}".strip(),
        )
    if refused.status == 404 or any(sign in said for sign in _ABSENT):
        return NotInRegistry(f"{host} has no {name}: {refused.message}")
    return RegistryError(f"{host} failed: {refused.message}")


def _asked_patiently(engine: Engine, reference: str, headers: Mapping[str, str]) -> object:
    pauses = list(PAUSES)
    path = f"/distribution/{_quoted(reference)}/json"
    while True:
        try:
            return engine.call_json("GET", path, doing=f"look up {reference}", headers=headers)
        except EngineRefused as refused:
            if not pauses or not is_busy(refused.message):
                raise
        time.sleep(pauses.pop(0))


def _summary(image: Mapping[str, object]) -> ImageSummary:
    return ImageSummary(
        id=fields.text(image.get("Id")),
        tags=_names(image.get("RepoTags")),
        labels=fields.text_mapping(image.get("Labels")),
        created=datetime.fromtimestamp(fields.integer(image.get("Created")), tz=timezone.utc),
        size=fields.integer(image.get("Size")),
    )


def _names(value: object) -> tuple[str, ...]:
    return tuple(sorted(name for name in fields.texts(value) if not name.startswith("<none>")))


def repeated(variables: Iterable[str]) -> tuple[str, ...]:
    """Those of an image's variables, written `NAME=value`, whose name stands several times, in their order."""
    entries = tuple(variables)
    names = Counter(_variable(item)[0] for item in entries)
    return tuple(item for item in entries if names[_variable(item)[0]] > 1)


def _variable(item: str) -> tuple[str, str]:
    name, _, value = item.partition("=")
    return name, value


def _instant(value: str) -> datetime | None:
    """A time in the engine's spelling; None when there is none, which Go writes as the first of January of year 1."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", value)
    if not match or value.startswith("0001-"):
        return None
    # Go writes up to nine digits of a second, datetime reads six.
    fraction = (match[2] or "")[:6].ljust(6, "0")
    zone = "+00:00" if match[3] == "Z" else match[3]
    try:
        return datetime.fromisoformat(f"{match[1]}.{fraction}{zone}").astimezone(timezone.utc)
    except ValueError:
        return None


def _quoted(name: str) -> str:
    # A name with "/" must stay one path: the engine's router expects its slashes unquoted.
    return urllib.parse.quote(name, safe="/:@")


def _decoded(line: bytes) -> Mapping[str, object]:
    try:
        event: object = json.loads(line)
    except ValueError:
        return {}
    return fields.mapping(event)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            yield piece
