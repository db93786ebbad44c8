"""Where Python packages come from on this machine, and whether those places answer.

uv takes an index that answers 401 for one that does not have the project: it would lock what another index has. So
every index is asked once, before anything is resolved, and one that does not answer ends the run.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import netrc
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from builder.errors import ConfigError, IndexUnavailable
from builder.render import channel_variable
from builder.site import redact, redact_urls, site_wheels
from builder.site.settings import local_path

if TYPE_CHECKING:
    from builder.matrix import Channel
    from builder.resolve.target import Target
    from builder.site import Site

_TRIES = 3
_PAUSE = 0.5
_TIMEOUT = 30.0
"""Seconds for one answer, unless the site says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """A package index.

    Attributes:
        url: its address, which may hold credentials.
        setting: what names it: the file or variable of a setting, or the channel of the matrix.
        hint: how to mend it when it does not answer.
    """

    url: str
    setting: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Every place that packages of one environment may come from.

    Attributes:
        indexes: the indexes, the channel among them; none when the site forbids every index.
        links: directories, pages and URLs with files.
    """

    indexes: tuple[Index, ...]
    links: tuple[str, ...]


def sources_of(
    site: Site, channel: Channel | None, framework: Mapping[str, str], target: Target, built_in: Callable[[], str]
) -> Sources:
    """Where the packages of an environment come from, as a build on this machine has it.

    Args:
        site: this machine's settings.
        channel: the framework's wheel channel.
        framework: the framework's version by name. A channel is not asked when the site itself has that wheel: a
            machine that cannot reach the channel has no other way.
        target: what the wheel must run on.
        built_in: says which index is asked where the site names none.

    Raises:
        ConfigError: a directory that is named as an index is not there.
    """
    indexes: list[Index] = []
    if not site.no_index:
        indexes.append(_index(site.index_url or built_in(), site.origins.get("index_url", ""), "index-url"))
        origin = site.origins.get("extra_index_urls", "")
        indexes += [_index(url, origin, "extra-index-urls") for url in site.extra_index_urls]
        indexes += [] if channel is None else _channel(site, channel, framework, target)
    for index in indexes:
        path = local_path(index.url)
        if path is not None and not path.is_dir():
            raise ConfigError(f"the package index {path} is not there", where=index.setting, hint=index.hint)
    return Sources(
        indexes=tuple({index.url: index for index in indexes}.values()),
        # pip only warns of a directory that is not there.
        links=tuple(link for link in site.find_links if (path := local_path(link)) is None or path.exists()),
    )


def _channel(site: Site, channel: Channel, framework: Mapping[str, str], target: Target) -> list[Index]:
    """The channel, as the site has it, unless the site switches it off or has its wheel."""
    replaced = site.channels.get(channel.name)
    if replaced is None and target.best(wheel.name for wheel in site_wheels(site, framework)) is not None:
        return []
    if replaced == "":
        return []
    hint = (
        f"set {channel_variable(channel.name)} to a mirror of it, or to nothing to do without; or put the wheel into a "
        "directory of pip's find-links"
    )
    setting = site.origins.get("channels", "") if replaced else f"channel {channel.name}"
    return [Index(url=replaced or channel.url, setting=setting, hint=hint)]


def _index(url: str, origin: str, key: str) -> Index:
    return Index(url=url, setting=origin or key, hint=f"mend `{key}` in the site file, or pip's setting of that name")


class Indexes:
    """Asks indexes, each once."""

    def __init__(self, site: Site, pause: Callable[[float], None] = time.sleep) -> None:
        self._site = site
        self._asked: dict[str, IndexUnavailable | None] = {}
        self._pause = pause

    def ask(self, indexes: Iterable[Index], project: str) -> None:
        """Asks each index for a project, which it need not have.

        Raises:
            IndexUnavailable: one is unreachable, not trusted, or refuses.
        """
        for index in indexes:
            if index.url not in self._asked and local_path(index.url) is None:
                try:
                    with self._open(f"{index.url.rstrip('/')}/{project}/", index, missing=True):
                        self._asked[index.url] = None
                except IndexUnavailable as error:
                    self._asked[index.url] = error
            if (failed := self._asked.get(index.url)) is not None:
                raise failed

    def sha256(self, url: str) -> str:
        """The SHA-256 of a file that an index gives no hash of.

        Raises:
            IndexUnavailable: it cannot be had.
        """
        path = local_path(url)
        where = Index(url=url, setting=redact_urls(url), hint="")
        if path is None:
            with self._open(url, where) as stream:
                return _digest(stream)
        try:
            with path.open("rb") as file:
                return _digest(file)
        except OSError as error:
            raise IndexUnavailable(f"cannot be read: {error.strerror}", where=str(path)) from error

    def _open(self, url: str, index: Index, *, missing: bool = False) -> IO[bytes]:
        """The answer to a GET; with `missing`, that there is no such page is an answer as well."""
        tries = 0
        while True:
            tries += 1
            try:
                answer: IO[bytes] = self._opener(url).open(self._request(url), timeout=self._site.timeout or _TIMEOUT)
                return answer
            except urllib.error.HTTPError as error:
                if missing and error.code in (404, 410):
                    return error
                error.close()
                if error.code < 500 or tries == _TRIES:
                    raise self._refused(error, index) from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                cause = error.reason if isinstance(error, urllib.error.URLError) else error
                if isinstance(cause, ssl.SSLCertVerificationError):
                    raise self._untrusted(cause, index) from None
                if tries == _TRIES or isinstance(error, ValueError):
                    raise self._unreachable(cause, index) from None
            self._pause(_PAUSE * tries)

    def _opener(self, url: str) -> urllib.request.OpenerDirector:
        parts = urllib.parse.urlsplit(url)
        trusted = parts.hostname in self._site.trusted_hosts or parts.netloc in self._site.trusted_hosts
        try:
            context = ssl.create_default_context(cafile=self._site.ca_bundle)
        except (OSError, ssl.SSLError) as error:
            where = self._site.origins.get("ca_bundle", "")
            raise ConfigError(f"the CA bundle {self._site.ca_bundle} cannot be used: {error}", where=where) from None
        if trusted:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        proxies = {name: proxy for name, proxy in self._site.proxies.items() if name in ("http", "https")}
        if _without_proxy(parts.hostname or "", self._site.proxies.get("no", "")):
            proxies = {}
        return urllib.request.build_opener(
            urllib.request.ProxyHandler(proxies), urllib.request.HTTPSHandler(context=context)
        )

    def _request(self, url: str) -> urllib.request.Request:
        parts = urllib.parse.urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        where = (parts.scheme, host)
        request = urllib.request.Request(urllib.parse.urlunsplit(parts._replace(netloc=host)))
        request.add_header("Accept", "application/vnd.pypi.simple.v1+json, text/html;q=0.5, */*;q=0.1")
        # uv leaves the credentials out of the addresses of files.
        same = (urllib.parse.urlsplit(url) for url in self._site.urls())
        known = (other for other in (parts, *same) if (other.scheme, other.netloc.rpartition("@")[2]) == where)
        user, password = next(((o.username, o.password) for o in known if o.username), (None, None))
        if user is None and parts.hostname:
            user, password = _netrc(parts.hostname)
        if user is not None:
            pair = f"{urllib.parse.unquote(user)}:{urllib.parse.unquote(password or '')}"
            # Not to where a redirect leads.
            request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
        return request

    def _refused(self, error: urllib.error.HTTPError, index: Index) -> IndexUnavailable:
        what = f"{redact(index.url, self._site)} answers {error.code} {error.reason}"
        hint = index.hint
        if error.code in (401, 407):
            hint = "put the credentials into its URL or into ~/.netrc" + (f"; or {hint}" if hint else "")
        return IndexUnavailable(what, where=index.setting, hint=hint)

    def _untrusted(self, error: ssl.SSLCertVerificationError, index: Index) -> IndexUnavailable:
        what = f"the certificate of {redact(index.url, self._site)} is not trusted: {error.verify_message}"
        bundle = self._site.ca_bundle
        having = f"which is {bundle} ({self._site.origins.get('ca_bundle', '')})" if bundle else "which nothing sets"
        return IndexUnavailable(
            what, where=index.setting, hint=f"add the CA to the `ca-bundle` of this machine, {having}"
        )

    def _unreachable(self, cause: object, index: Index) -> IndexUnavailable:
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        what = f"{redact(index.url, self._site)} cannot be reached: {redact(reason, self._site)}"
        return IndexUnavailable(what, where=index.setting, hint=index.hint)


def _without_proxy(host: str, exceptions: str) -> bool:
    """Whether `no_proxy` names a host: the host itself, a domain that it is in, or `*`."""
    names = [name.strip().lstrip(".").lower() for name in exceptions.split(",")]
    return any(name == "*" or host == name or host.endswith(f".{name}") for name in names if name)


def _netrc(host: str) -> tuple[str | None, str | None]:
    try:
        found = netrc.netrc().authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return None, None
    return (found[0], found[2]) if found else (None, None)


def _digest(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()
