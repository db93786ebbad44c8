"""Takes credentials out of text before anybody reads it."""

from __future__ import annotations

import urllib.parse

from builder.engine.urls import redact_urls
from builder.site.settings import Site

_SHORTEST_SECRET = 4
"""A shorter password is only replaced inside a URL: elsewhere it would match ordinary words."""


def redact(text: str, site: Site) -> str:
    """`text` with `***` for credentials in URLs, and for every password in the site's settings wherever it stands."""
    for secret in sorted(_passwords(site), key=len, reverse=True):
        text = text.replace(secret, "***")
    return redact_urls(text)


def _passwords(site: Site) -> set[str]:
    found: set[str] = set()
    for url in site.urls():
        _, _, rest = url.partition("://")
        info, at, _ = rest.rpartition("@")
        if not at:
            continue
        user, colon, password = info.partition(":")
        # A token often stands where the user's name does, with nothing or a fixed word as the password.
        for secret in (password,) if colon and password else (user,):
            found |= {secret, urllib.parse.unquote(secret)}
    return {secret for secret in found if len(secret) >= _SHORTEST_SECRET}
