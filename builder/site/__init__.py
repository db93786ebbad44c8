"""This machine's settings: how it reaches an engine, package indexes, mirrors and proxies.

They say how things are reached, never what an image is: no key and no rendered file depends on them. They enter a build
as secrets, which BuildKit keeps out of layers and of its cache's keys.
"""

from __future__ import annotations

from builder.engine.urls import redact_urls
from builder.site.handover import apt_sources, build_secrets
from builder.site.redaction import redact
from builder.site.settings import Site, load_site
from builder.site.wheels import site_files, site_wheels, supplies

__all__ = [
    "Site",
    "apt_sources",
    "build_secrets",
    "load_site",
    "redact",
    "redact_urls",
    "site_files",
    "site_wheels",
    "supplies",
]
