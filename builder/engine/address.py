"""Which engine is meant, found as the docker command finds it.

The first of these that says something wins: an explicit address, `DOCKER_HOST`, `DOCKER_CONTEXT`,
the current context of the docker command's configuration, and then the default socket.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.engine import fields
from builder.engine.errors import EngineUnavailable

DEFAULT = "unix:///var/run/docker.sock"
SCHEMES = ("unix", "tcp", "http", "https", "ssh")


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where an engine listens.

    Attributes:
        url: `unix:///path`, `tcp://host:port` or `ssh://[user@]host[:port]`.
        origin: what said so, for messages: `DOCKER_HOST`, `context NAME`, `the default`, `the site
            settings`.
        tls: whether the connection is TLS; never for a socket or ssh.
        verify: whether the engine's certificate is checked.
        certificates: a directory with ca.pem, cert.pem and key.pem, those that exist are used; None
            for none.
    """

    url: str
    origin: str
    tls: bool = False
    verify: bool = True
    certificates: Path | None = None

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0]

    @property
    def socket_path(self) -> Path | None:
        """The path of a `unix://` address, else None."""
        return Path(self.url[len("unix://") :]) if self.scheme == "unix" else None


def resolve(explicit: str | None, environ: Mapping[str, str]) -> Address:
    """The engine that is meant.

    Raises:
        EngineUnavailable: the address is malformed, or the context that is asked for does not
            exist.
    """
    if explicit:
        return _plain(explicit, "the site settings", environ)
    if environ.get("DOCKER_HOST"):
        return _plain(environ["DOCKER_HOST"], "DOCKER_HOST", environ)
    directory = _configuration_directory(environ)
    name = environ.get("DOCKER_CONTEXT") or _current_context(directory)
    if name and name != "default":
        return _context(name, directory)
    return _plain(DEFAULT, "the default", environ)


def _plain(url: str, origin: str, environ: Mapping[str, str]) -> Address:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES or not rest:
        raise EngineUnavailable(
            f"{url!r} (from {origin}) is no address of a Docker engine",
            hint="write unix:///path/to/docker.sock, tcp://host:2376 or ssh://user@host",
        )
    tcp = scheme in ("tcp", "http", "https")
    # The docker command takes TLS to be wanted as soon as either variable is set, and checks the
    # certificate only when the first one is not empty.
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    directory = environ.get("DOCKER_CERT_PATH")
    tls = tcp and (verify or bool(directory) or bool(environ.get("DOCKER_TLS")) or scheme == "https")
    certificates = Path(directory).expanduser() if directory else _configuration_directory(environ)
    return Address(
        url=f"tcp://{rest}" if tcp else url,
        origin=origin,
        tls=tls,
        verify=verify or scheme == "https",
        certificates=certificates if tls else None,
    )


def _configuration_directory(environ: Mapping[str, str]) -> Path:
    if environ.get("DOCKER_CONFIG"):
        return Path(environ["DOCKER_CONFIG"]).expanduser()
    home = environ.get("HOME")
    return (Path(home) if home else Path("~").expanduser()) / ".docker"


def _read_json(path: Path) -> Mapping[str, object] | None:
    try:
        document: object = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return fields.mapping(document)


def _current_context(directory: Path) -> str:
    # A configuration that cannot be read is the docker command's business; the default engine is
    # still there.
    configuration = _read_json(directory / "config.json")
    return fields.text(configuration.get("currentContext")) if configuration else ""


def _context(name: str, directory: Path) -> Address:
    # The docker command names a context's directory by the hash of its name.
    digest = hashlib.sha256(name.encode()).hexdigest()
    metadata = _read_json(directory / "contexts" / "meta" / digest / "meta.json")
    endpoint = fields.mapping(fields.mapping((metadata or {}).get("Endpoints")).get("docker"))
    host = fields.text(endpoint.get("Host"))
    if not host:
        raise EngineUnavailable(
            f"the docker context {name!r} does not exist or names no engine",
            hint="docker context ls",
        )
    scheme, _, rest = host.partition("://")
    certificates = directory / "contexts" / "tls" / digest / "docker"
    tls = scheme in ("tcp", "https") and certificates.is_dir()
    return Address(
        url=f"tcp://{rest}" if scheme in ("http", "https") else host,
        origin=f"the docker context {name!r}",
        tls=tls,
        verify=not fields.boolean(endpoint.get("SkipTLSVerify")),
        certificates=certificates if tls else None,
    )
