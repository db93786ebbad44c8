"""One repository in a registry, over the registry's HTTP API.

https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md is what this follows. Whatever is read is held
to its digest, and to a size: a registry is another machine, and often a broken proxy stands before it.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from builder.engine import fields
from builder.engine.auth import DOCKER_HUB, CredentialSource
from builder.engine.errors import NotInRegistry, RegistryError
from builder.engine.reference import InvalidReference, Reference
from builder.registry.addresses import askable, beside, next_page, origin, without_query
from builder.registry.answers import Answer, RegistryRefused, decoded, media_type, refusal
from builder.registry.login import Login
from builder.registry.patience import BUSY, DEADLINE, Busy, patiently, retry_after
from builder.registry.protocol import RepositoryLike as RepositoryLike
from builder.registry.proxies import Proxies
from builder.registry.transport import Transport
from builder.registry.values import (
    DIGEST,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    digest_of,
    parse_descriptor,
)

LARGEST_MANIFEST = 4 << 20
"""Bytes: registries refuse manifests above 4 MiB."""
LARGEST_BLOB = 64 << 20
"""Bytes of a blob, unless the caller says otherwise: configurations, bundles and SBOMs, never layers."""
_LARGEST_LIST = 16 << 20
_PAGES = 1000
_REDIRECTS = 5
_ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST))
_NO_REFERRERS = frozenset({400, 404, 405, 406, 501})
"""What registries without the referrers API answer to it."""
_HUB = "registry-1.docker.io"
_HUB_NAMES = frozenset({"", DOCKER_HUB, "index.docker.io", _HUB})


class Repository:
    """A repository. Safe to use from several threads.

    A busy registry, and one that resets a connection, is asked again a few times; one that says how long to wait is
    left alone for so long, by the whole process. Every call ends within `deadline`.

    Args:
        name: with its registry, such as `ghcr.io/owner/name`.
        logins: docker's.
        ca_bundle: certificates to trust beside the system's.
        proxies: the way out; None for what the environment says.
        deadline: seconds for one call.

    Every method raises, beside what it names:
        RegistryUnreachable: no registry answered.
        RegistryRefused: the registry answered with an error.
        RegistryError: the login cannot be read, the certificate is not trusted, an answer is too large or no answer.
        ConfigError: the CA bundle or the proxy cannot be used.

    Raises:
        InvalidReference: `name` is malformed, has a tag or a digest, or names a host that cannot be.
    """

    def __init__(
        self,
        name: str,
        logins: CredentialSource,
        ca_bundle: Path | None = None,
        *,
        proxies: Proxies | None = None,
        deadline: float = DEADLINE,
    ) -> None:
        parsed = Reference.parse(name)
        if parsed.tag or parsed.digest:
            raise InvalidReference(f"{name!r} names an image, where a repository is expected")
        self._name = name
        self._deadline = deadline
        self._host = _HUB if parsed.host in _HUB_NAMES else parsed.host
        if not askable(f"https://{self._host}/"):
            raise InvalidReference(f"{self._host!r} in {name!r} can be no registry's host and port")
        path = name.removeprefix(f"{parsed.host}/")
        self._path = f"library/{path}" if self._host == _HUB and "/" not in path else path
        self._known_as = DOCKER_HUB if self._host == _HUB else self._host
        self._transport = Transport(
            ca_bundle=ca_bundle, proxies=Proxies.from_environment() if proxies is None else proxies
        )
        self._login = Login(
            host=self._host, known_as=self._known_as, path=self._path, logins=logins, send=self._transport.send
        )

    @property
    def name(self) -> str:
        """The repository with its registry, as it was given."""
        return self._name

    def close(self) -> None:
        """Closes idle connections. The repository can still be used."""
        self._transport.close()

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def manifest(self, reference: str) -> Manifest | None:
        """The manifest under a tag or a digest; None when there is none.

        Raises:
            RegistryError: its bytes are not those of the digest.
        """
        answer = self._call(
            "GET", f"manifests/{reference}", headers={"Accept": _ACCEPT}, cap=LARGEST_MANIFEST, missing=True
        )
        if answer.status == 404:
            return None
        found = Manifest(media_type=media_type(answer), body=answer.body)
        wanted = reference if DIGEST.fullmatch(reference) else answer.headers.get("docker-content-digest", "")
        if wanted.startswith("sha256:") and found.digest != wanted:
            raise RegistryError(f"{self._host} gave other bytes than those of {self._name}@{wanted}")
        return found

    def digest(self, reference: str) -> str | None:
        """The digest under a tag, without reading the manifest where the registry says it; None when there is none."""
        answer = self._call("HEAD", f"manifests/{reference}", headers={"Accept": _ACCEPT}, missing=True)
        if answer.status == 404:
            return None
        said = answer.headers.get("docker-content-digest", "")
        if DIGEST.fullmatch(said):
            return said
        found = self.manifest(reference)
        return found.digest if found else None

    def put_manifest(self, reference: str, body: bytes, media_type: str) -> str:
        """Puts a manifest under a tag or its digest; returns its digest.

        Raises:
            RegistryError: the registry keeps it under another digest.
        """
        self._put(reference, body, media_type)
        return digest_of(body)

    def put_referrer(self, body: bytes, media_type: str) -> bool:
        """Puts a manifest that has a subject under its digest; whether the registry said that it lists it there."""
        return bool(self._put(digest_of(body), body, media_type).headers.get("oci-subject"))

    def _put(self, reference: str, body: bytes, media_type: str) -> Answer:
        answer = self._call("PUT", f"manifests/{reference}", headers={"Content-Type": media_type}, body=body)
        digest = digest_of(body)
        said = answer.headers.get("docker-content-digest", "")
        if not said.startswith("sha256:"):
            held = self.manifest(digest)
            said = held.digest if held else "nothing"
        if said != digest:
            raise RegistryError(f"{self._host} keeps {said} where {self._name}@{digest} was put")
        return answer

    def blob(self, digest: str, *, cap: int = LARGEST_BLOB) -> bytes:
        """The bytes of a blob.

        Args:
            cap: bytes that it may have.

        Raises:
            NotInRegistry: there is no such blob.
            RegistryError: its bytes are not those of the digest, or too many.
        """
        answer = self._call("GET", f"blobs/{digest}", cap=cap, missing=True)
        if answer.status == 404:
            raise NotInRegistry(f"{self._host} has no blob {digest} in {self._name}")
        if digest_of(answer.body) != digest:
            raise RegistryError(f"{self._host} gave other bytes than those of the blob {digest} in {self._name}")
        return answer.body

    def put_blob(self, data: bytes, media_type: str = "application/octet-stream") -> Descriptor:
        """Puts a blob, unless the repository has it; returns its descriptor.

        Args:
            media_type: for the descriptor; a registry does not keep it.
        """
        digest = digest_of(data)

        def upload(deadline: float) -> None:
            there = self._once("HEAD", self._url(f"blobs/{digest}"), deadline=deadline, missing=True)
            if there.status != 404:
                return
            begun = self._once("POST", self._url("blobs/uploads/"), body=b"", deadline=deadline)
            place = self._beside(self._url("blobs/uploads/"), begun.headers.get("location", ""))
            place += f"{'&' if '?' in place else '?'}{urllib.parse.urlencode({'digest': digest})}"
            kind = {"Content-Type": "application/octet-stream"}
            # An upload that broke off cannot be gone on with; it is begun anew, with another place.
            done = self._once("PUT", place, headers=kind, body=data, deadline=deadline, missing=True)
            if done.status == 404:
                raise Busy(self._refusal("PUT", place, done))

        patiently(self._host, self._deadline, upload)
        return Descriptor(media_type=media_type, digest=digest, size=len(data))

    def tags(self) -> tuple[str, ...]:
        """Every tag of the repository, sorted; none where there is no such repository."""
        found: set[str] = set()
        for answer in self._pages("tags/list?n=1000"):
            if answer.status != 404:
                found.update(fields.texts(decoded(answer).get("tags")))
        return tuple(sorted(found))

    def referrers(self, digest: str, artifact_type: str = "") -> tuple[Descriptor, ...] | None:
        """What the registry lists as attached to a digest; None when it has no referrers API.

        Args:
            artifact_type: only artifacts of this type; empty for all.
        """
        found: dict[str, Descriptor] = {}
        query = f"?{urllib.parse.urlencode({'artifactType': artifact_type})}" if artifact_type else ""
        for answer in self._pages(f"referrers/{digest}{query}", headers={"Accept": OCI_INDEX}, allowed=_NO_REFERRERS):
            if answer.status != 200 or media_type(answer) != OCI_INDEX:
                if found:
                    raise RegistryError(f"{self._host} breaks off its list of what is attached to {digest}")
                return None
            for item in fields.sequence(decoded(answer).get("manifests")):
                entry = parse_descriptor(item)
                # A registry need not filter.
                if entry is not None and (not artifact_type or entry.artifact_type == artifact_type):
                    found[entry.digest] = entry
        return tuple(found[digest] for digest in sorted(found))

    def _pages(
        self, path: str, *, headers: Mapping[str, str] | None = None, allowed: frozenset[int] = frozenset({404})
    ) -> Iterator[Answer]:
        """Every page of a list; the first also when its status is one of `allowed`.

        A list that breaks off is an error: what was on its other pages would count as not there.
        """
        url, seen = self._url(path), set[str]()
        while url not in seen:
            if len(seen) == _PAGES:
                raise RegistryError(f"{self._host} does not come to the end of its list {path} after {_PAGES} pages")
            seen.add(url)
            answer = self._page(url, headers, allowed)
            yield answer
            place = next_page(answer.headers.get("link", ""))
            if answer.status != 200 or place is None:
                return
            url, allowed = self._beside(url, place), frozenset()

    def _page(self, url: str, headers: Mapping[str, str] | None, allowed: frozenset[int]) -> Answer:
        return self._patiently(
            lambda deadline: self._once(
                "GET", url, headers=headers, cap=_LARGEST_LIST, deadline=deadline, allowed=allowed
            )
        )

    def _call(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        cap: int = LARGEST_MANIFEST,
        missing: bool = False,
    ) -> Answer:
        return self._patiently(
            lambda deadline: self._once(
                method, self._url(path), headers=headers, body=body, cap=cap, deadline=deadline, missing=missing
            )
        )

    def _patiently(self, attempt: Callable[[float], Answer]) -> Answer:
        return patiently(self._host, self._deadline, attempt)

    def _once(
        self,
        method: str,
        url: str,
        *,
        deadline: float,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        cap: int = LARGEST_MANIFEST,
        missing: bool = False,
        allowed: frozenset[int] = frozenset(),
    ) -> Answer:
        """One request with its login and its redirects. Status 404 is an answer with `missing`, as are `allowed`."""
        write = method not in ("GET", "HEAD")
        asked = False
        for _ in range(2 * _REDIRECTS):
            sent = dict(headers or {})
            own = self._is_own(url)
            authorization = self._login.header(write=write) if own else ""
            if authorization:
                sent["Authorization"] = authorization
            answer = self._transport.send(method, url, headers=sent, body=body, cap=cap, deadline=deadline)
            if answer.status == 401 and own and not asked:
                asked = True
                if self._login.answer(answer.challenges, write=write, deadline=deadline):
                    continue
            if not write and answer.status in (301, 302, 303, 307, 308):
                url = self._beside(url, answer.headers.get("location", ""))
                continue
            break
        else:
            raise RegistryError(f"{self._host} sends us on and on, at last to {urllib.parse.urlsplit(url).netloc}")
        if answer.status in BUSY:
            wait = retry_after(answer.headers.get("retry-after", ""))
            raise Busy(self._refusal(method, url, answer), wait=wait)
        if answer.status >= 300 and answer.status not in allowed and not (missing and answer.status == 404):
            raise self._refusal(method, url, answer)
        return answer

    def _refusal(self, method: str, url: str, answer: Answer) -> RegistryRefused:
        what = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2]) or "a blob"
        return refusal(
            answer,
            host=self._host,
            verb="read" if method in ("GET", "HEAD") else "write",
            what=f"{self._name} {what}",
            login=f"docker login {self._known_as}",
        )

    def _url(self, path: str) -> str:
        return f"{self._transport.scheme(self._host)}://{self._host}/v2/{self._path}/{path}"

    def _is_own(self, url: str) -> bool:
        return origin(url) == origin(self._url(""))

    def _beside(self, url: str, place: str) -> str:
        """Where an answer sends us on to.

        Raises:
            RegistryError: it does not say where, or to a place that cannot be asked, or to one without TLS that is not
                the registry itself.
        """
        there = beside(url, place)
        if not there or (urllib.parse.urlsplit(there).scheme != "https" and not self._is_own(there)):
            raise RegistryError(
                f"{self._host} sends us on to {without_query(place)[:100]!r}, which imgbuild does not follow",
                hint="a registry behind a proxy must be told its own public address" if place else "",
            )
        return there
