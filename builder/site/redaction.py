"""Takes credentials out of text before anybody reads it."""

from __future__ import annotations

from builder.engine.urls import redact_urls, url_secrets
from builder.site.settings import Site


def redact(text: str, site: Site) -> str:
    """`text` with `***` for credentials in URLs, and for every password in the site's settings wherever it stands."""
    for secret in sorted(url_secrets("\n".join(site.urls())), key=len, reverse=True):
        text = text.replace(secret, "***")
    return redact_urls(text)
