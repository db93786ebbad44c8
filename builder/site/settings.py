"""The settings themselves, and where each of them comes from.

From the least to the most particular, and the more particular wins: the environment's general variables (proxies,
CA bundles), pip's configuration, the site file, and `IMGBUILD_*` variables. `DOCKER_HOST` and `DOCKER_CONTEXT` win
over the site file, as they do over the docker command's own configuration.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from builder.errors import ConfigError
from builder.records import state_directory
from builder.site.pip_settings import PipSetting, pip_settings
from builder.source import Node, load

_KEYS = (
    "engine",
    "index-url",
    "extra-index-urls",
    "find-links",
    "ca-bundle",
    "trusted-hosts",
    "timeout",
    "proxies",
    "apt-mirror",
    "apt-security-mirror",
    "channels",
    "state-dir",
    "signing-key",
    "trusted-keys",
)
_LISTS = ("extra-index-urls", "find-links", "trusted-hosts", "trusted-keys")
_PROXY_VARIABLES = {"http": "http_proxy", "https": "https_proxy", "no": "no_proxy"}
_PYTHON_MIRROR = ("python-build-standalone", "UV_PYTHON_INSTALL_MIRROR")
"""The name in `channels` of where uv takes Pythons from, and uv's own variable for it."""
_CA_VARIABLES = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, kw_only=True)
class Site:
    """How this machine reaches things.

    Attributes:
        engine: the engine's address; None for the one that the docker command would use.
        index_url: the package index; empty for pip's default. A `file://` URL is searched here, not in a build.
        extra_index_urls: further indexes.
        find_links: directories and URLs with wheels, as pip takes them.
        no_index: whether pip was told to use no index at all.
        ca_bundle: a file with the certificates that a build trusts; None for those of the image.
        trusted_hosts: hosts whose certificates pip does not check.
        timeout: seconds that pip waits for an answer; None for its default.
        proxies: `http`, `https` and `no`, those that are set.
        apt_mirror: the URL of the distribution's main archive; None for the distribution's own.
        apt_security_mirror: the same for its security archive.
        channels: URLs by name of a matrix's wheel channels, of `python-build-standalone` and of `conda-forge`; empty
            for a channel that is switched off.
        signing_key: a file with the private key that evidence is signed with; None to sign nothing.
        trusted_keys: files with the public keys whose evidence counts here.
        state_dir: where this machine's state lives.
        config: the site file, whether or not it exists.
        origins: by attribute, the file or variable that set it; an attribute that nothing set is absent.
    """

    engine: str | None = None
    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    ca_bundle: Path | None = None
    trusted_hosts: tuple[str, ...] = ()
    timeout: int | None = None
    proxies: Mapping[str, str] = field(default_factory=dict)
    apt_mirror: str | None = None
    apt_security_mirror: str | None = None
    channels: Mapping[str, str] = field(default_factory=dict)
    signing_key: Path | None = None
    trusted_keys: tuple[Path, ...] = ()
    state_dir: Path
    config: Path
    origins: Mapping[str, str] = field(default_factory=dict)

    def urls(self) -> tuple[str, ...]:
        """Every address in the settings: they may hold credentials."""
        single = (self.engine, self.index_url, self.apt_mirror, self.apt_security_mirror)
        several = (self.extra_index_urls, self.find_links, self.proxies.values(), self.channels.values())
        return tuple(url for url in single if url) + tuple(url for group in several for url in group if url)

    @property
    def remote_indexes(self) -> tuple[str, ...]:
        """The indexes that a build can reach, most important first, without pip's default."""
        if self.no_index:
            return ()
        return tuple(url for url in (self.index_url, *self.extra_index_urls) if url and local_path(url) is None)

    @property
    def local_indexes(self) -> tuple[Path, ...]:
        """Indexes in this machine's file system: no container can reach them."""
        if self.no_index:
            return ()
        paths = (local_path(url) for url in (self.index_url, *self.extra_index_urls) if url)
        return tuple(path for path in paths if path is not None)

    @property
    def local_links(self) -> tuple[Path, ...]:
        """Directories and pages with links in this machine's file system: no container can reach them."""
        return tuple(path for path in map(local_path, self.find_links) if path is not None)

    @property
    def remote_links(self) -> tuple[str, ...]:
        """Pages with links that a build can reach."""
        return tuple(link for link in self.find_links if local_path(link) is None)


def local_path(url: str) -> Path | None:
    """The path that a `file://` URL or a plain path means; None for an address elsewhere."""
    scheme, separator, _ = url.partition("://")
    if separator and scheme.lower() != "file":
        return None
    if not separator and not url.lower().startswith("file:"):
        return Path(url).expanduser().absolute()
    return Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path))


class _Collector:
    """Takes values in the order of their sources; the later one wins, and so does its origin."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.lists: dict[str, tuple[str, ...]] = {}
        self.mappings: dict[str, dict[str, str]] = {"proxies": {}, "channels": {}}
        self.origins: dict[str, str] = {}

    def text(self, name: str, value: str, origin: str) -> None:
        self.texts[name] = _clean(value, name, origin)
        self.origins[name] = origin

    def list(self, name: str, values: Iterable[str], origin: str) -> None:
        self.lists[name] = tuple(_clean(value, name, origin) for value in values)
        self.origins[name] = origin

    def member(self, name: str, key: str, value: str, origin: str) -> None:
        self.mappings[name][key] = _clean(value, f"{name}.{key}", origin)
        self.origins[name] = origin


def load_site(environ: Mapping[str, str], *, prefix: Path | None = None, root: Path = Path("/")) -> Site:
    """Reads this machine's settings.

    Args:
        environ: the environment.
        prefix, root: where pip's configuration is looked for, see `pip_settings`.

    Raises:
        ConfigError: a source is malformed; the message names it.
        StateError: the user has no home directory and no `IMGBUILD_STATE_DIR`.
    """
    found = _Collector()
    _general(found, environ)
    _pip(found, pip_settings(environ, prefix=prefix, root=root))
    config = _config_path(environ)
    if config.exists():
        _file(found, load(config), config)
    elif environ.get("IMGBUILD_CONFIG"):
        raise ConfigError("IMGBUILD_CONFIG names a file that does not exist", where=str(config))
    _own(found, environ)
    texts, lists = found.texts, found.lists
    return Site(
        engine=texts.get("engine") or None,
        index_url=texts.get("index_url", ""),
        extra_index_urls=lists.get("extra_index_urls", ()),
        find_links=lists.get("find_links", ()),
        no_index=texts.get("no_index", "").lower() in ("1", "true", "yes", "on"),
        ca_bundle=Path(texts["ca_bundle"]).expanduser().absolute() if texts.get("ca_bundle") else None,
        trusted_hosts=lists.get("trusted_hosts", ()),
        timeout=_seconds(found),
        proxies=found.mappings["proxies"],
        apt_mirror=texts.get("apt_mirror") or None,
        apt_security_mirror=texts.get("apt_security_mirror") or None,
        channels=found.mappings["channels"],
        signing_key=Path(texts["signing_key"]).expanduser().absolute() if texts.get("signing_key") else None,
        trusted_keys=tuple(Path(item).expanduser().absolute() for item in lists.get("trusted_keys", ())),
        state_dir=Path(texts["state_dir"]) if texts.get("state_dir") else state_directory(environ),
        config=config,
        origins=found.origins,
    )


def _general(found: _Collector, environ: Mapping[str, str]) -> None:
    for name, variable in _PROXY_VARIABLES.items():
        # Lower case wins, as in curl: upper-case HTTP_PROXY can be set by a request's header in CGI programs.
        for spelling in (variable.upper(), variable):
            if environ.get(spelling):
                found.member("proxies", name, environ[spelling], spelling)
    channel, mirror = _PYTHON_MIRROR
    if environ.get(mirror):
        found.member("channels", channel, environ[mirror], mirror)
    for variable in _CA_VARIABLES:
        if environ.get(variable):
            found.text("ca_bundle", environ[variable], variable)


def _pip(found: _Collector, settings: Mapping[str, PipSetting]) -> None:
    for name, option in (
        ("index_url", "index-url"),
        ("ca_bundle", "cert"),
        ("timeout", "timeout"),
        ("no_index", "no-index"),
    ):
        if option in settings:
            found.text(name, settings[option].value, settings[option].origin)
    for name, option in (
        ("extra_index_urls", "extra-index-url"),
        ("find_links", "find-links"),
        ("trusted_hosts", "trusted-host"),
    ):
        if option in settings:
            found.list(name, settings[option].words, settings[option].origin)
    if "proxy" in settings:
        proxy = settings["proxy"]
        # pip reads a proxy without a scheme as one that is spoken to in HTTP.
        url = proxy.value if "://" in proxy.value else f"http://{proxy.value}"
        found.member("proxies", "http", url, proxy.origin)
        found.member("proxies", "https", url, proxy.origin)


def _file(found: _Collector, node: Node, path: Path) -> None:
    for key, value in node.mapping(allowed=_KEYS).items():
        name, origin = key.replace("-", "_"), str(value.position)
        if key in _LISTS:
            values = value.strings()
            if key in ("find-links", "trusted-keys"):
                values = tuple(_beside(item, path) for item in values)
            found.list(name, values, origin)
        elif key == "proxies":
            for proxy, address in value.mapping(allowed=tuple(_PROXY_VARIABLES)).items():
                found.member(name, proxy, address.string(), str(address.position))
        elif key == "channels":
            for channel, address in value.mapping().items():
                off = address.kind == "string" and not address.text.strip()
                found.member(name, channel, "" if off else address.string(), str(address.position))
        elif key == "timeout":
            found.text(name, str(value.integer()), origin)
        elif key in ("ca-bundle", "state-dir", "signing-key"):
            found.text(name, _beside(value.string(), path), origin)
        else:
            found.text(name, value.string(), origin)


def _own(found: _Collector, environ: Mapping[str, str]) -> None:
    for variable in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        if environ.get(variable):
            # Left to the connection, which also reads the variables for TLS that belong to it.
            found.text("engine", "", variable)
    for key in _KEYS:
        name = key.replace("-", "_")
        variable = f"IMGBUILD_{name.upper()}"
        value = environ.get(variable)
        if not value or key in ("proxies", "channels", "state-dir"):
            continue
        if key in _LISTS:
            found.list(name, value.split(), variable)
        else:
            found.text(name, value, variable)
    if environ.get("IMGBUILD_STATE_DIR"):
        # `state_directory` reads it; a state directory in the site file must not hide it.
        found.texts.pop("state_dir", None)
        found.origins["state_dir"] = "IMGBUILD_STATE_DIR"
    for variable, value in environ.items():
        channel = variable.removeprefix("IMGBUILD_CHANNEL_")
        if channel and channel != variable:
            # An empty variable switches the channel off.
            found.member("channels", channel.lower().replace("_", "-"), value.strip(), variable)


def _config_path(environ: Mapping[str, str]) -> Path:
    if environ.get("IMGBUILD_CONFIG"):
        return Path(environ["IMGBUILD_CONFIG"]).expanduser().absolute()
    base = environ.get("XDG_CONFIG_HOME", "")
    home = environ.get("HOME")
    directory = Path(base) if base.startswith("/") else (Path(home) if home else Path("/")) / ".config"
    return directory / "imgbuild" / "site.yaml"


def _beside(value: str, path: Path) -> str:
    """A path of the site file: relative ones start at that file, addresses stay as they are."""
    if "://" in value or value.startswith(("~", "/")):
        return value
    return str(path.parent / value)


def _clean(value: str, name: str, origin: str) -> str:
    # A line break would end a line of the files that these values are written to.
    if _CONTROL.search(value.strip()):
        raise ConfigError(f"the value of {name} holds a line break or another control character", where=origin)
    return value.strip()


def _seconds(found: _Collector) -> int | None:
    value = found.texts.get("timeout", "")
    if not value:
        return None
    # pip takes fractions of a second; a build has no use for them.
    if not re.fullmatch(r"\d{1,6}(\.\d+)?", value):
        raise ConfigError(f"{value!r} is no number of seconds", where=found.origins["timeout"])
    return max(1, int(float(value)))
