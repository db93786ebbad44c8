"""Hands the settings to a build, as BuildKit secrets.

The secrets lie below `/run/secrets` during one step, and in no layer and no cache key:

- `site.env`: a file for `.` in a POSIX shell, which exports what pip, apt, curl and Python read;
- `ca.crt`: the certificates;
- `apt.conf` and `apt.sources`: apt's settings, and its sources with `@SUITE@` for the suite's name.

A secret without content is not there at all.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from builder.engine.apt import mirror_sources
from builder.errors import ConfigError
from builder.site.settings import Site

SECRET_LIMIT = 500 * 1024
"""The largest secret, in bytes, that BuildKit takes."""

SECRETS = "/run/secrets"
"""Where a step finds its secrets."""

_SOURCES = "/dev/shm/imgbuild-apt.sources.list"
"""The sources with the suite's name in them: in memory, so that they end with the step."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def build_secrets(site: Site, channels: Mapping[str, str]) -> dict[str, bytes]:
    """What the steps of a build get to know of this machine, by secret id.

    Args:
        channels: the values of the variables by which a site replaces wheel channels; an empty value switches one off.

    Raises:
        ConfigError: the CA bundle cannot be read, or is too large for a secret.
        ValueError: a channel's variable is no name of a shell variable.
    """
    secrets: dict[str, bytes] = {}
    variables = _pip_variables(site) | _proxy_variables(site)
    if site.ca_bundle is not None:
        secrets["ca.crt"] = _certificates(site)
        for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            variables[name] = f"{SECRETS}/ca.crt"
    configuration = _apt_configuration(site)
    if configuration:
        secrets["apt.conf"] = configuration.encode()
        variables["APT_CONFIG"] = f"{SECRETS}/apt.conf"
    for variable, url in channels.items():
        if not _VARIABLE.fullmatch(variable):
            raise ValueError(f"{variable!r} is no name of a shell variable")
        variables[variable] = url
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())]
    if site.apt_mirror:
        secrets["apt.sources"] = apt_sources(site, "@SUITE@").encode()
        lines.append(_WRITE_SOURCES)
    if lines:
        secrets["site.env"] = ("\n".join(lines) + "\n").encode()
    return secrets


# The step's own release names the suite; a subshell, because os-release sets variables such as NAME and VERSION.
_WRITE_SOURCES = f"""\
if [ -r /etc/os-release ]; then
    sed "s/@SUITE@/$(. /etc/os-release && echo "$VERSION_CODENAME")/" {SECRETS}/apt.sources > {_SOURCES}
fi"""


def apt_sources(site: Site, suite: str) -> str:
    """apt's sources with the site's mirrors in place of the distribution's own; empty without a mirror.

    Args:
        suite: such as `bookworm`.
    """
    if not site.apt_mirror:
        return ""
    return mirror_sources(site.apt_mirror, site.apt_security_mirror, suite)


def _pip_variables(site: Site) -> dict[str, str]:
    variables: dict[str, str] = {}
    indexes = site.remote_indexes
    if indexes and site.index_url:
        variables["PIP_INDEX_URL"] = indexes[0]
        indexes = indexes[1:]
    if indexes:
        variables["PIP_EXTRA_INDEX_URL"] = " ".join(indexes)
    # A site that names only an index in its file system wants no other: pip must not fall back to the public one.
    if site.no_index or (site.index_url and not site.remote_indexes):
        variables["PIP_NO_INDEX"] = "1"
    if site.remote_links:
        variables["PIP_FIND_LINKS"] = " ".join(site.remote_links)
    if site.trusted_hosts:
        variables["PIP_TRUSTED_HOST"] = " ".join(site.trusted_hosts)
    if site.timeout is not None:
        variables["PIP_DEFAULT_TIMEOUT"] = str(site.timeout)
    return variables


def _proxy_variables(site: Site) -> dict[str, str]:
    variables: dict[str, str] = {}
    for name, value in site.proxies.items():
        # Programs disagree on which case they read.
        variables[f"{name}_proxy"] = value
        variables[f"{name.upper()}_PROXY"] = value
    return variables


def _certificates(site: Site) -> bytes:
    path = site.ca_bundle
    where = site.origins.get("ca_bundle", "")
    if path is None:
        return b""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the CA bundle {path} cannot be read: {error.strerror}", where=where) from error
    if len(content) > SECRET_LIMIT:
        raise ConfigError(
            f"the CA bundle {path} has {len(content):,} bytes, and a build secret holds {SECRET_LIMIT:,} at most",
            where=where,
            hint="point `ca-bundle` in the site file at a file with only the certificates that a build needs",
        )
    return content


def _apt_configuration(site: Site) -> str:
    lines: list[str] = []
    for name in ("http", "https"):
        if name in site.proxies:
            lines.append(f'Acquire::{name}::Proxy "{_apt_value(site.proxies[name])}";')
    for host in filter(None, (part.strip() for part in site.proxies.get("no", "").split(","))):
        # apt names hosts one by one; it knows no domains, networks or "*".
        if any(name in site.proxies for name in ("http", "https")) and re.fullmatch(r"[A-Za-z0-9.-]+", host):
            lines += [f'Acquire::{name}::Proxy::{host} "DIRECT";' for name in ("http", "https")]
    if site.ca_bundle is not None:
        lines.append(f'Acquire::https::CAInfo "{SECRETS}/ca.crt";')
    if site.apt_mirror:
        lines += [f'Dir::Etc::sourcelist "{_SOURCES}";', 'Dir::Etc::sourceparts "/dev/null";']
    return "\n".join(lines) + "\n" if lines else ""


def _apt_value(value: str) -> str:
    # apt's configuration has no escape for a quote inside of a value.
    return value.replace('"', "%22")
