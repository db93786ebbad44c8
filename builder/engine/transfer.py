"""Images between an engine and a registry: push and pull, as the engine does them itself."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from builder.engine import fields
from builder.engine.auth import CredentialSource
from builder.engine.causes import refusal
from builder.engine.connection import Engine
from builder.engine.errors import EngineRefused, ImageMissing, RegistryError, RegistryUnreachable
from builder.engine.images import PAUSES, is_busy, login_header, registry_failure, registry_of
from builder.engine.reference import InvalidReference, Reference

_SILENCE = 900.0
"""Seconds that an engine may say nothing for: it unpacks a large layer without a word."""
_SHORT = 30.0
"""Seconds. An engine sends each layer up to five times by itself, with pauses of 50 s in all: what took so long to
fail is not tried again. Its first requests and the manifest it sends once."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PULLED = re.compile(r"Digest: (sha256:[0-9a-f]{64})")
_RESET = re.compile(r"(?<![\w/.-])(?:connection reset by peer|broken pipe|unexpected eof|eof)(?![\w/-])")
_NO_LOGIN = re.compile(r"unauthorized|denied|forbidden|no basic auth|\b40[13]\b")
_TOO_LARGE = re.compile(r"\b413\b|too large")
_NOT_HERE = re.compile(r"does not exist locally|no such image|tag does not exist")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a layer is.

    Attributes:
        layer: its short id.
        status: what happens to it, in the engine's words, such as `Pushing`.
        done, total: bytes; 0 when unknown.
    """

    layer: str
    status: str
    done: int = 0
    total: int = 0


Show = Callable[[Progress], None]


def push(engine: Engine, reference: str, logins: CredentialSource | None = None, *, show: Show | None = None) -> str:
    """Pushes an image under its name; returns the digest that the registry has for it.

    Layers that the registry has are not sent again. A registry that is busy, and a connection that breaks off, are
    tried again a few times.

    Args:
        reference: a name with a tag, which the engine knows.
        logins: where the registry's login may be found; None to push without one.
        show: is told how each layer gets on.

    Raises:
        InvalidReference: `reference` is malformed, has no tag, or has a digest.
        ImageMissing: the engine has no image of this name.
        RegistryUnreachable: no registry answered.
        RegistryError: the registry refused.
        DiskFull: a disk is full.
    """
    name = Reference.parse(reference)
    if not name.tag or name.digest:
        raise InvalidReference(f"{reference!r} cannot be pushed: write REPOSITORY:TAG")
    # The engine wants the header also where there is no login.
    headers = {"X-Registry-Auth": "e30=", **login_header(name, logins)}
    path, params = f"/images/{name.repository}/push", {"tag": name.tag}
    try:
        said = _patiently(engine, path, params, headers, f"push {reference}", show)
    except EngineRefused as refused:
        raise _push_failure(refused, name) from refused
    if not _DIGEST.fullmatch(said):
        raise RegistryError(f"the engine pushed {reference} and named no digest for it")
    return said


def pull(engine: Engine, reference: str, logins: CredentialSource | None = None, *, show: Show | None = None) -> str:
    """Pulls an image; returns its digest in the registry.

    Args:
        reference: a name with a tag or a digest; without either, `latest`.
        logins: where the registry's login may be found; None to pull without one.
        show: is told how each layer gets on.

    Raises:
        InvalidReference: `reference` is malformed.
        NotInRegistry: the registry has no such image, or refuses to say.
        RegistryUnreachable: no registry answered.
        RegistryError: the registry failed, or gave another image than that of the digest.
        DiskFull: the engine's disk is full.
    """
    name = Reference.parse(reference)
    params = {"fromImage": name.repository, "tag": name.digest or name.tag or "latest"}
    try:
        said = _patiently(engine, "/images/create", params, login_header(name, logins), f"pull {reference}", show)
    except EngineRefused as refused:
        raise registry_failure(refused, name) from refused
    if not _DIGEST.fullmatch(said) or (name.digest and said != name.digest):
        raise RegistryError(f"the engine pulled {reference} as {said or 'nothing that it names'}")
    return said


def _patiently(
    engine: Engine, path: str, params: dict[str, str], headers: dict[str, str], doing: str, show: Show | None
) -> str:
    pauses = list(PAUSES)
    while True:
        began = time.monotonic()
        try:
            return _transfer(engine, path, params, headers, doing, show)
        except EngineRefused as refused:
            said = refused.message.lower()
            passing = is_busy(said) or _RESET.search(said)
            if not pauses or not passing or time.monotonic() - began > _SHORT:
                raise
        time.sleep(pauses.pop(0))


def _transfer(
    engine: Engine, path: str, params: dict[str, str], headers: dict[str, str], doing: str, show: Show | None
) -> str:
    """The digest that the engine names in the end; empty when it names none."""
    response = engine.call("POST", path, doing=doing, params=params, headers=headers, timeout=_SILENCE, stream=True)
    digest = ""
    with engine.reading(response, doing):
        for line in response.iter_lines():
            event = _decoded(line)
            error = fields.text(fields.mapping(event.get("errorDetail")).get("message"))
            error = error or fields.text(event.get("error"))
            if error:
                raise refusal(500, error, doing)
            status = fields.text(event.get("status"))
            pulled = _PULLED.fullmatch(status)
            pushed = fields.text(fields.mapping(event.get("aux")).get("Digest"))
            digest = pushed or (pulled[1] if pulled else digest)
            layer = fields.text(event.get("id"))
            if show is not None and layer:
                detail = fields.mapping(event.get("progressDetail"))
                done, total = fields.integer(detail.get("current")), fields.integer(detail.get("total"))
                show(Progress(layer=layer, status=status, done=done, total=total))
    return digest


def _push_failure(refused: EngineRefused, name: Reference) -> Exception:
    said = refused.message.replace(str(name), "").lower()
    host = registry_of(name)
    if _NOT_HERE.search(said):
        return ImageMissing(f"there is no {name} on the engine to be pushed")
    if _TOO_LARGE.search(said):
        return RegistryError(
            f"{host} refuses {name}: {refused.message}",
            hint="the registry, or a proxy before it, limits the size of what it takes",
        )
    if _NO_LOGIN.search(said):
        hint = f"docker login {name.host}".strip() + f", with an account that may write {name.repository}"
        return RegistryError(f"{host} refuses {name}: {refused.message}", hint=hint)
    failure = registry_failure(refused, name)
    if isinstance(failure, RegistryUnreachable):
        return RegistryUnreachable(failure.message, cause=failure.cause, hint="check the engine's network and proxy")
    # Nothing can be missing in a registry that is written to.
    return RegistryError(f"{host} refuses {name}: {refused.message}")


def _decoded(line: bytes) -> dict[str, object]:
    try:
        event: object = json.loads(line)
    except ValueError:
        return {}
    return dict(fields.mapping(event))
