"""Is this machine fit to build? One function for each line; each says what it found and what mends it.

A line is *not run* when it cannot be known from here, or when what it looks at is not needed: a machine without a GPU
is fit, it only reports GPU levels as not run.
"""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from builder.engine.connection import Engine, EngineInfo
from builder.engine.errors import EngineError
from builder.engine.owner import Leftover, leftovers
from builder.errors import ConfigError
from builder.site import Site, build_secrets, redact

GIB = 1 << 30

NEEDED_FOR_CPU = 8 * GIB
"""Free space, in bytes, that CPU images take while they are built. The default matrix leaves 1.8 GiB behind."""

NEEDED_FOR_CUDA = 20 * GIB
"""The same for a CUDA image."""


class Status(Enum):
    """How a line came out."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not_run"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line.

    Attributes:
        name: what was looked at.
        status: how it came out.
        detail: what was found, without credentials.
        mend: the command or sentence that mends it; empty when there is nothing to mend.
    """

    name: str
    status: Status
    detail: str
    mend: str = ""


def examine(site: Site, *, needed_bytes: int = NEEDED_FOR_CUDA) -> tuple[Finding, ...]:
    """Looks at everything; never raises for what it finds.

    Args:
        site: this machine's settings.
        needed_bytes: free space that the engine must have.
    """
    found = [*_engine_lines(site, needed_bytes)]
    found += [
        index_line(site),
        certificates_line(site),
        proxies_line(site),
        local_wheels_line(site),
        mirror_line(site),
        bootstrap_line(shutil.which("mmdebstrap"), user_space_hint()),
        state_line(site.state_dir),
    ]
    return tuple(
        Finding(name=f.name, status=f.status, detail=redact(f.detail, site), mend=redact(f.mend, site)) for f in found
    )


def _engine_lines(site: Site, needed_bytes: int) -> list[Finding]:
    try:
        with Engine.connect(site.engine) as engine:
            info = engine.info()
            return [
                engine_line(info, f"{engine.address.url} (from {engine.address.origin})"),
                buildkit_line(info),
                store_line(info),
                disk_line(info, needed_bytes),
                gpu_line(info),
                leftovers_line(leftovers(engine)),
            ]
    except EngineError as error:
        unknown = ("BuildKit", "image store", "disk", "GPU", "leftovers")
        return [
            Finding(name="engine", status=Status.FAILED, detail=error.message, mend=error.hint),
            *(Finding(name=name, status=Status.NOT_RUN, detail="no engine to ask") for name in unknown),
        ]


def engine_line(info: EngineInfo, where: str) -> Finding:
    """The engine was reached: which it is."""
    size = f"{info.cpus} CPUs, {info.memory_bytes / GIB:.1f} GiB"
    detail = f"Docker {info.version}, API {info.api_version}, {info.os}/{info.architecture}, {size}, at {where}"
    return Finding(name="engine", status=Status.PASSED, detail=detail)


def buildkit_line(info: EngineInfo) -> Finding:
    """Without BuildKit nothing can be built."""
    if info.buildkit:
        return Finding(name="BuildKit", status=Status.PASSED, detail="in the engine")
    return Finding(
        name="BuildKit",
        status=Status.FAILED,
        detail="the engine has none",
        mend="use a Docker engine 19.03 or newer for Linux containers",
    )


def store_line(info: EngineInfo) -> Finding:
    """Where images are kept."""
    store = "containerd's image store" if info.containerd_store else "the engine's own image store"
    return Finding(name="image store", status=Status.PASSED, detail=f"{store} on {info.storage_driver}")


def disk_line(info: EngineInfo, needed_bytes: int) -> Finding:
    """Free space at the engine's root, where it can be seen."""
    if not info.local:
        return Finding(name="disk", status=Status.NOT_RUN, detail="the engine is on another machine")
    try:
        free = shutil.disk_usage(info.root_dir).free
    except OSError as error:
        return Finding(name="disk", status=Status.NOT_RUN, detail=f"{info.root_dir} cannot be seen: {error.strerror}")
    detail = f"{free / GIB:.1f} GiB free at {info.root_dir}, {needed_bytes / GIB:.0f} GiB are needed"
    if free >= needed_bytes:
        return Finding(name="disk", status=Status.PASSED, detail=detail)
    mend = "docker builder prune && docker image prune"
    return Finding(name="disk", status=Status.FAILED, detail=detail, mend=mend)


def gpu_line(info: EngineInfo) -> Finding:
    """Whether containers can be given a GPU."""
    if info.gpu:
        way = "the nvidia runtime" if "nvidia" in info.runtimes else "CDI"
        return Finding(name="GPU", status=Status.PASSED, detail=f"NVIDIA GPUs by {way}")
    detail = "no NVIDIA runtime: GPU levels will be reported as not run"
    return Finding(name="GPU", status=Status.NOT_RUN, detail=detail)


def leftovers_line(containers: Sequence[Leftover]) -> Finding:
    """Containers whose imgbuild was killed."""
    abandoned = [container.name for container in containers if container.abandoned]
    if not abandoned:
        return Finding(name="leftovers", status=Status.PASSED, detail="no container of a killed imgbuild")
    return Finding(
        name="leftovers",
        status=Status.PASSED,
        detail=f"{len(abandoned)} containers of a killed imgbuild, which the next run removes",
        mend=f"docker rm --force --volumes {' '.join(abandoned)}",
    )


def index_line(site: Site) -> Finding:
    """Which package indexes a build asks."""
    parts = []
    if site.no_index:
        parts.append(f"none{_from(site, 'no_index')}")
    elif site.index_url:
        parts.append(f"{site.index_url}{_from(site, 'index_url')}")
    else:
        parts.append("pip's default")
    if site.extra_index_urls and not site.no_index:
        parts.append(f"and {', '.join(site.extra_index_urls)}{_from(site, 'extra_index_urls')}")
    if site.local_indexes:
        parts.append("; those in this machine's file system are searched here, and a build gets the pinned wheels")
    detail = " ".join(parts).replace(" ;", ";")
    missing = [str(path) for path in site.local_indexes if not path.is_dir()]
    if missing:
        return Finding(
            name="package index",
            status=Status.FAILED,
            detail=f"{detail}; there is no directory {', '.join(missing)}",
            mend="correct the index's address where it is set",
        )
    return Finding(name="package index", status=Status.PASSED, detail=detail)


def certificates_line(site: Site) -> Finding:
    """The CA bundle that builds get."""
    name = "certificates"
    if site.ca_bundle is None:
        return Finding(name=name, status=Status.PASSED, detail="those of each image")
    try:
        content = build_secrets(site, {})["ca.crt"]
    except ConfigError as error:
        mend = error.hint or "correct the path where it is set"
        return Finding(name=name, status=Status.FAILED, detail=f"{error.message}{_from(site, 'ca_bundle')}", mend=mend)
    count = content.count(b"-----BEGIN CERTIFICATE-----")
    detail = f"{count} in {site.ca_bundle}{_from(site, 'ca_bundle')}"
    if count:
        return Finding(name=name, status=Status.PASSED, detail=detail)
    return Finding(name=name, status=Status.FAILED, detail=detail, mend="name a file with certificates in PEM format")


def proxies_line(site: Site) -> Finding:
    """The proxies that builds get."""
    name = "proxies"
    if not site.proxies:
        return Finding(name=name, status=Status.PASSED, detail="none")
    detail = ", ".join(f"{key}: {value}" for key, value in sorted(site.proxies.items())) + _from(site, "proxies")
    for key, value in site.proxies.items():
        host = urllib.parse.urlsplit(value if "://" in value else f"http://{value}").hostname or ""
        if key != "no" and (host in ("localhost", "::1") or host.startswith("127.")):
            return Finding(
                name=name,
                status=Status.FAILED,
                detail=f"{detail}; a container does not reach {host} of this machine",
                mend="let the proxy listen on the docker bridge's address, and name that one",
            )
    return Finding(name=name, status=Status.PASSED, detail=detail)


def local_wheels_line(site: Site) -> Finding:
    """Directories with wheels that are searched on this machine."""
    name = "find-links"
    if not site.find_links:
        return Finding(name=name, status=Status.PASSED, detail="none")
    detail = ", ".join(site.find_links) + _from(site, "find_links")
    if site.local_links:
        detail += "; local ones are searched here, and a build gets the pinned wheels"
    missing = [str(path) for path in site.local_links if not path.exists()]
    if missing:
        detail = f"{detail}; there is no {', '.join(missing)}"
        return Finding(name=name, status=Status.FAILED, detail=detail, mend="correct the path where it is set")
    return Finding(name=name, status=Status.PASSED, detail=detail)


def mirror_line(site: Site) -> Finding:
    """Where the distribution's packages come from."""
    if not site.apt_mirror:
        return Finding(name="apt mirror", status=Status.PASSED, detail="the distribution's own archive")
    return Finding(name="apt mirror", status=Status.PASSED, detail=site.apt_mirror + _from(site, "apt_mirror"))


def bootstrap_line(program: str | None, user_space: str) -> Finding:
    """Whether bases can be made without a registry.

    Args:
        program: mmdebstrap's path; None when it is not installed.
        user_space: as of `user_space_hint`.
    """
    name, otherwise = "mmdebstrap", "bases can only come from a registry"
    if not program:
        detail, mend = f"not installed: {otherwise}", "sudo apt-get install mmdebstrap"
        return Finding(name=name, status=Status.NOT_RUN, detail=detail, mend=mend)
    if user_space:
        detail = f"{program}, but this user is not root and has no ids for a user name space: {otherwise}"
        return Finding(name=name, status=Status.NOT_RUN, detail=detail, mend=user_space)
    return Finding(name=name, status=Status.PASSED, detail=f"{program}: bases can be made without a registry")


def user_space_hint(subuid: Path = Path("/etc/subuid")) -> str:
    """What gives this user the ids that mmdebstrap needs without root; empty when nothing is missing."""
    uid = os.geteuid()
    if uid == 0:
        return ""
    if shutil.which("newuidmap") is None:
        return "sudo apt-get install uidmap"
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    try:
        owners = {line.partition(":")[0] for line in subuid.read_text(errors="replace").splitlines()}
    except OSError:
        owners = set()
    if owners & {user, str(uid)}:
        return ""
    return f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"


def state_line(directory: Path) -> Finding:
    """Whether this machine's state can be written."""
    # What is missing will be made; the nearest directory that exists says whether it can.
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Finding(
            name="state directory",
            status=Status.FAILED,
            detail=f"{directory} cannot be written: {error.strerror}",
            mend="set IMGBUILD_STATE_DIR to a directory of yours",
        )
    return Finding(name="state directory", status=Status.PASSED, detail=os.fspath(directory))


def _from(site: Site, name: str) -> str:
    origin = site.origins.get(name)
    return f" (from {origin})" if origin else ""
