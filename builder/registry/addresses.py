"""Addresses that a registry's answers name, and which of them are asked."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterator

from builder.engine.urls import redact_urls

_LINK = re.compile(r"<([^<>]*)>((?:\s*;\s*[^\s;,=]+\s*(?:=\s*(?:\"[^\"]*\"|[^\s;,\"]+))?)*)")
_RELATION = re.compile(r";\s*rel\s*=\s*(?:\"([^\"]*)\"|([^\s;,\"]+))", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}


def askable(url: str) -> bool:
    """Whether an address can be asked as it stands: a host, no login in it, nothing that a request line cannot hold."""
    if not (url.isascii() and url.isprintable()) or " " in url:
        return False
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname or "", parts.port
        # What a socket does with a name; labels that are empty or too long are refused.
        host.encode("idna")
    except ValueError:
        return False
    return bool(host) and port != 0 and "@" not in parts.netloc


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of an address that can be asked: equal for two that lead to the same server."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme)


def beside(url: str, place: str) -> str:
    """The address that an answer of `url` names, in full; empty when it names none that can be asked."""
    try:
        there = urllib.parse.urljoin(url, place) if place else ""
    except ValueError:
        return ""
    return there if askable(there) else ""


def without_query(url: str) -> str:
    """An address for a message: without a login, nor what is behind the question mark, signatures and tokens."""
    return redact_urls(re.split(r"[?#]", url, maxsplit=1)[0])


def next_page(link: str) -> str | None:
    """The target of the link with the relation `next`, in the value of a `Link` header (RFC 8288); None without one."""
    return next((target for target, relations in _links(link) if "next" in relations), None)


def _links(value: str) -> Iterator[tuple[str, list[str]]]:
    for target, parameters in _LINK.findall(value):
        relation = _RELATION.search(parameters)
        yield target, ((relation[1] or relation[2] or "").lower().split() if relation else [])
