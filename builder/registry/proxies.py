"""Which proxy leads to a registry: `HTTPS_PROXY` and `NO_PROXY`, read as Go's programs and so the engine read them.

https://pkg.go.dev/golang.org/x/net/http/httpproxy
"""

from __future__ import annotations

import base64
import ipaddress
import os
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field

from builder.engine.urls import redact_urls
from builder.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """A proxy that tunnels: where it is, and the headers that it wants (a login), which repr does not show."""

    host: str
    port: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class Proxies:
    """The settings.

    Attributes:
        https: the proxy's URL for https; empty for none.
        exceptions: hosts, domains, addresses and networks without it, separated by commas; `*` is everything.
    """

    https: str = field(default="", repr=False)
    exceptions: str = ""

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> Proxies:
        """From a site's `proxies`: the members `https` and `no`."""
        return cls(https=settings.get("https", ""), exceptions=settings.get("no", ""))

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Proxies:
        """From `https_proxy` and `no_proxy`; lower case wins, as in curl."""
        values = {name: environ.get(name.lower()) or environ.get(name) or "" for name in ("HTTPS_PROXY", "NO_PROXY")}
        return cls(https=values["HTTPS_PROXY"], exceptions=values["NO_PROXY"])

    def way_to(self, netloc: str) -> Proxy | None:
        """The proxy for a host with or without a port; None for the direct way, which this machine itself always is.

        Raises:
            ConfigError: the setting is no URL that imgbuild can use.
        """
        parts = urllib.parse.urlsplit(f"//{netloc}")
        if not self.https or self._is_exception(parts.hostname or "", parts.port or 443):
            return None
        url = self.https if "://" in self.https else f"http://{self.https}"
        try:
            proxy = urllib.parse.urlsplit(url)
            host, port = proxy.hostname, proxy.port
            (host or "").encode("idna")  # as a socket will
        except ValueError:
            host, port = None, None
        if not host or proxy.scheme != "http":
            raise ConfigError(
                f"the proxy {redact_urls(url)} cannot be used for a registry",
                where="`proxies` of the site settings, or HTTPS_PROXY",
                hint="write http://HOST:PORT",
            )
        headers = {}
        if proxy.username is not None:
            login = f"{urllib.parse.unquote(proxy.username)}:{urllib.parse.unquote(proxy.password or '')}"
            headers["Proxy-Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        return Proxy(host=host, port=port or 80, headers=headers)

    def _is_exception(self, host: str, port: int) -> bool:
        if host == "localhost":
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            address = None
        if address is not None and address.is_loopback:
            return True
        return any(
            _matches(entry.strip().lower(), host, port, address)
            for entry in self.exceptions.split(",")
            if entry.strip()
        )


def _matches(entry: str, host: str, port: int, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
    if entry == "*":
        return True
    if address is not None:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            pass  # a name, or an address with a port
    name, colon, number = entry.rpartition(":")
    if colon and number.isdigit():
        if int(number) != port:
            return False
        entry = name.strip("[]")
    # ".example.com" means what is below it, "example.com" means itself too.
    return host == entry or host.endswith(entry if entry.startswith(".") else f".{entry.removeprefix('*.')}")
