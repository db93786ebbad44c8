"""Puts another name on a manifest in its registry: the registry's own API, and the manifest's own bytes.

`docker buildx imagetools create` can do this too, but before version 0.16 it wraps an image into a new index, which has
another digest than the one that was checked. Debian 13 has 0.13.

https://distribution.github.io/distribution/spec/api/ and …/spec/auth/token/ are what this follows.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import ipaddress
import json
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from builder.engine import fields
from builder.engine.auth import DOCKER_HUB, Credentials, CredentialSource
from builder.engine.errors import RegistryError, RegistryUnreachable
from builder.engine.images import PAUSES
from builder.engine.reference import Reference

_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_LARGEST = 4 << 20
"""Registries refuse manifests above 4 MiB."""

_PATIENCE = 60.0
_BUSY = frozenset({429, 500, 502, 503, 504})
_HUB = "registry-1.docker.io"
_HUB_NAMES = frozenset({"", "docker.io", "index.docker.io", _HUB})
_PARAMETER = re.compile(r'([a-z]+)="([^"]*)"')


@dataclass(frozen=True, kw_only=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(kw_only=True)
class Manifests:
    """The manifests of one repository.

    Attributes:
        repository: with its registry, such as `ghcr.io/owner/name`.
        logins: docker's.
        ca_bundle: certificates to trust beside the system's.
    """

    repository: str
    logins: CredentialSource
    ca_bundle: Path | None = None
    _authorization: str = field(default="", init=False, repr=False)

    def name(self, digest: str, tag: str) -> None:
        """Gives the manifest with this digest one more name.

        Raises:
            RegistryUnreachable: no registry answered.
            RegistryError: the registry refused, has no such manifest, or gave other bytes than the digest's.
        """
        found = self._call("GET", digest, headers={"Accept": ", ".join(_TYPES)})
        if f"sha256:{hashlib.sha256(found.body).hexdigest()}" != digest:
            raise RegistryError(f"{self._host} gave other bytes than those of {self.repository}@{digest}")
        kind = found.headers.get("Content-Type", _TYPES[1])
        self._call("PUT", tag, headers={"Content-Type": kind}, body=found.body)

    @property
    def _host(self) -> str:
        host = Reference.parse(self.repository).host
        return _HUB if host in _HUB_NAMES else host

    @property
    def _path(self) -> str:
        path = self.repository.removeprefix(f"{Reference.parse(self.repository).host}/")
        return f"library/{path}" if self._host == _HUB and "/" not in path else path

    def _call(self, method: str, reference: str, *, headers: Mapping[str, str], body: bytes | None = None) -> _Answer:
        url = f"{_scheme(self._host)}://{self._host}/v2/{self._path}/manifests/{reference}"
        pauses = list(PAUSES)
        asked = False
        while True:
            request = urllib.request.Request(url, data=body, method=method, headers=dict(headers))
            if self._authorization:
                # Not for the host that an answer may send us on to.
                request.add_unredirected_header("Authorization", self._authorization)
            answer = self._send(request)
            if answer.status in _BUSY and pauses:
                time.sleep(pauses.pop(0))
            elif answer.status == 401 and not asked:
                # A token counts for what it was asked for, so writing may need another than reading did.
                self._authorization = self._authorized(answer.headers.get("Www-Authenticate", ""))
                asked = True
            else:
                break
        if answer.status >= 300:
            said = " ".join(answer.body[:300].decode(errors="replace").split())
            raise RegistryError(
                f"{self._host} refuses to {'read' if method == 'GET' else 'write'} {self.repository} {reference}: "
                f"{answer.status} {said}".rstrip(),
                hint=f"docker login {self._host}" if answer.status in (401, 403) else "",
            )
        return answer

    def _authorized(self, challenge: str) -> str:
        """What answers a challenge: a header's value; empty when there is no login and none is needed."""
        login = self.logins.credentials(DOCKER_HUB if self._host == _HUB else self._host)
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic":
            return _basic(login) if login else ""
        given = dict(_PARAMETER.findall(rest))
        if scheme.lower() != "bearer" or not _takes_logins(given.get("realm", "")):
            raise RegistryError(f"{self._host} asks for a login in a way that imgbuild does not take: {challenge!r}")
        query = {name: given[name] for name in ("service", "scope") if name in given}
        if login and not login.username:
            form = {**query, "grant_type": "refresh_token", "refresh_token": login.secret, "client_id": "imgbuild"}
            request = urllib.request.Request(given["realm"], data=urllib.parse.urlencode(form).encode())
        else:
            request = urllib.request.Request(f"{given['realm']}?{urllib.parse.urlencode(query)}")
            if login:
                request.add_unredirected_header("Authorization", _basic(login))
        answer = self._send(request)
        if answer.status >= 300:
            raise RegistryError(f"{self._host} gives no token: {answer.status}", hint=f"docker login {self._host}")
        try:
            document = fields.mapping(json.loads(answer.body))
        except ValueError:
            document = {}
        token = fields.text(document.get("token")) or fields.text(document.get("access_token"))
        if not token:
            raise RegistryError(f"{self._host} gives no token")
        return f"Bearer {token}"

    def _send(self, request: urllib.request.Request) -> _Answer:
        context = ssl.create_default_context()
        if self.ca_bundle is not None:
            context.load_verify_locations(self.ca_bundle)
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
        try:
            with opener.open(request, timeout=_PATIENCE) as found:
                return _Answer(
                    status=found.status, headers=_canonical(found.headers.items()), body=found.read(_LARGEST)
                )
        except urllib.error.HTTPError as error:
            with error:
                return _Answer(status=error.code, headers=_canonical(error.headers.items()), body=error.read(_LARGEST))
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise RegistryUnreachable(f"{self._host} is unreachable: {reason}", cause=str(reason)) from None


def _canonical(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Header names as they are usually written; HTTP does not care for their case."""
    return {"-".join(part.capitalize() for part in name.split("-")): value for name, value in headers}


def _basic(login: Credentials) -> str:
    return "Basic " + base64.b64encode(f"{login.username}:{login.secret}".encode()).decode()


def _takes_logins(url: str) -> bool:
    """Whether a login may be sent there: over TLS, or to this machine itself."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname or "", parts.port  # which is looked at when it is asked for
    except ValueError:
        return False
    return "@" not in parts.netloc and bool(host) and parts.scheme in ("https", _scheme(host))


def _scheme(host: str) -> str:
    """Without TLS on this machine itself, and nowhere else: as docker does by default."""
    name = host.rpartition(":")[0] if ":" in host else host
    try:
        loopback = ipaddress.ip_address(name).is_loopback
    except ValueError:
        loopback = name == "localhost"
    return "http" if loopback else "https"
