"""What of `docker run` would have made a check pass, from what can be seen inside the container."""

from __future__ import annotations

import os
import pwd
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.checks.contract import FAILED, NOT_RUN

#: The smallest driver on which programs of each major CUDA version run (CUDA release notes, "CUDA Toolkit and Minimum
#: Required Driver Version for CUDA Minor Version Compatibility").
DRIVERS = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}

#: Bytes of /dev/shm that a container has by default.
DEFAULT_SHM = 64 << 20
#: Below this, shared memory that ran out is the likely cause of a crash; one batch of images can be larger.
SMALL_SHM = 1 << 30
SHM = "--shm-size=16g"
#: Stands for the image in the corrected line: a container does not know the name of its image.
IMAGE = "IMAGE"

_SHM_SIGNS = ("bus error", "sigbus", "shared memory", "/dev/shm", "shm_open", "--shm-size")
_USER_SIGNS = ("getpwuid", "uid not found", "home directory", "unable to find user", "i have no name")
_USER_CHECKS = ("static.home", "static.caches")
_DRIVER_SIGNS = ("driver version is insufficient", "driver on your system is too old", "the driver goes up to cuda")


@dataclass(frozen=True)
class Situation:
    """How this container was started, as far as it can be seen from inside.

    Attributes:
        uid: the user.
        gid: its group.
        known: whether the image has a name for it.
        home: HOME.
        home_writable: whether this user can write there.
        shm_bytes: size of /dev/shm; None without one.
        read_only: whether the root file system is.
        temporary: whether there is a place for temporary files.
        devices: NVIDIA devices, such as `/dev/nvidia0`.
        visible: NVIDIA_VISIBLE_DEVICES; None where it is not set.
        driver: version of the host's NVIDIA driver; empty where none is seen.
        network: whether there is a network beyond this container.
        named: whether the container's own host name leads to an address.
    """

    uid: int
    gid: int
    known: bool
    home: str
    home_writable: bool
    shm_bytes: int | None
    read_only: bool
    temporary: bool
    devices: tuple[str, ...]
    visible: str | None
    driver: str
    network: bool
    named: bool


@dataclass(frozen=True)
class Advice:
    """One cause, and how to mend it.

    Attributes:
        cause: `shm`, `user`, `driver`, `gpus`, `hostname` or `tmpfs`.
        sentence: what is wrong.
        options: of `docker run`, that mend it; empty where none does.
    """

    cause: str
    sentence: str
    options: tuple[str, ...]


def look() -> Situation:
    """The situation of this process."""
    uid = os.getuid()
    try:
        pwd.getpwuid(uid)
        known = True
    except KeyError:
        known = False
    home = os.environ.get("HOME", "")
    try:
        shm = os.statvfs("/dev/shm")
        shm_bytes = shm.f_frsize * shm.f_blocks
    except OSError:
        shm_bytes = None
    places = (os.environ.get("TMPDIR", ""), "/tmp", "/var/tmp")
    return Situation(
        uid=uid,
        gid=os.getgid(),
        known=known,
        home=home,
        home_writable=bool(home) and os.access(home, os.W_OK | os.X_OK),
        shm_bytes=shm_bytes,
        read_only=bool(os.statvfs("/").f_flag & os.ST_RDONLY),
        temporary=any(place and os.access(place, os.W_OK | os.X_OK) for place in places),
        devices=tuple(sorted(str(path) for path in Path("/dev").glob("nvidia[0-9]*"))),
        visible=os.environ.get("NVIDIA_VISIBLE_DEVICES"),
        driver=_driver(),
        named=_named(),
        network=any(path.name != "lo" for path in Path("/sys/class/net").glob("*")),
    )


def _named() -> bool:
    # /etc/hosts and not the resolver: that may wait for a name server for a long time.
    try:
        text = Path("/etc/hosts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(socket.gethostname() in line.partition("#")[0].split()[1:] for line in text.splitlines())


def _driver() -> str:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    match = re.search(r"\b(\d+\.\d+(?:\.\d+)?)\b", text)
    return match.group(1) if match else ""


def cuda_of(facts: Mapping[str, Any]) -> str:
    """The CUDA version that a framework of this image is built for; empty for CPU builds."""
    builds = facts.get("builds")
    for built in builds.values() if isinstance(builds, Mapping) else ():
        if built.get("cuda"):
            return str(built["cuda"])
    return ""


def advise(here: Situation, rows: Iterable[Mapping[str, Any]], facts: Mapping[str, Any]) -> list[Advice]:
    """What would mend the checks that failed or did not run; nothing where how the container was started is not why."""
    troubled = [row for row in rows if row["status"] in (FAILED, NOT_RUN)]
    told = [(str(row["name"]), _text(row)) for row in troubled if row["status"] == FAILED]
    return [
        *_shm(here, told),
        *_user(here, told),
        *_gpu(here, troubled, told, cuda_of(facts)),
        *_hostname(here, told),
        *_tmpfs(here),
    ]


def _text(row: Mapping[str, Any]) -> str:
    measured = row.get("measured")
    detail = measured.get("detail", "") if isinstance(measured, Mapping) else ""
    return f"{row['reason']} {detail}".lower()


def _shm(here: Situation, told: list[tuple[str, str]]) -> Iterator[Advice]:
    size = here.shm_bytes or 0
    if size < SMALL_SHM and any(sign in text for _, text in told for sign in _SHM_SIGNS):
        has = f"{size >> 20} MiB" if here.shm_bytes is not None else "missing"
        sentence = f"/dev/shm is {has}: data loaders and NCCL pass their data through it (or use --ipc=host)"
        yield Advice("shm", sentence, (SHM,))


def _user(here: Situation, told: list[tuple[str, str]]) -> Iterator[Advice]:
    signs = any(name in _USER_CHECKS or any(sign in text for sign in _USER_SIGNS) for name, text in told)
    if not signs or (here.known and here.home_writable):
        return
    why = []
    if not here.known:
        why.append(f"the image has no user {here.uid}")
    if not here.home_writable:
        why.append(f"HOME={here.home or '(not set)'} cannot be written to")
    yield Advice("user", " and ".join(why), ("-e HOME=/tmp", f"-e USER=uid{here.uid}"))


def _gpu(
    here: Situation, troubled: list[Mapping[str, Any]], told: list[tuple[str, str]], cuda: str
) -> Iterator[Advice]:
    if not cuda:
        return
    if not here.devices:
        if any(str(row["level"]) in ("gpu", "multi-gpu", "multi-node") for row in troubled):
            why = f"this image is made for CUDA {cuda}, and the container was given no GPU"
            if here.visible in ("", "void", "none"):
                why += f" (NVIDIA_VISIBLE_DEVICES={here.visible})"
            yield Advice("gpus", why, ("--gpus all",))
        return
    needed = DRIVERS.get(int(cuda.partition(".")[0])) if cuda.partition(".")[0].isdecimal() else None
    old = bool(needed and here.driver and _version(here.driver) < _version(needed))
    if old or any(sign in text for _, text in told for sign in _DRIVER_SIGNS):
        has = f", this host has {here.driver}" if here.driver else ""
        needs = f"{needed} or later" if needed else "a later one"
        sentence = f"CUDA {cuda} needs the NVIDIA driver {needs}{has}: a newer driver mends that, no option does"
        yield Advice("driver", sentence, ())


def _hostname(here: Situation, told: list[tuple[str, str]]) -> Iterator[Advice]:
    # With a network the engine writes the name into /etc/hosts, and the ranks of Horovod look themselves up by it.
    if not here.named and not here.network and any(name.startswith("horovod") for name, _ in told):
        yield Advice("hostname", "the ranks cannot look up their own host name", ("--hostname localhost",))


def _tmpfs(here: Situation) -> Iterator[Advice]:
    if not here.temporary:
        yield Advice("tmpfs", "there is no place for temporary files", ("--tmpfs /tmp:exec",))


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def corrected(here: Situation, advice: Iterable[Advice]) -> str:
    """The `docker run` line with what was seen of the present one, and with what is advised."""
    options = [option for one in advice for option in one.options]
    words = ["docker run --rm"]
    if here.devices:
        words.append("--gpus all")
    if SHM not in options and here.shm_bytes is not None and here.shm_bytes > DEFAULT_SHM:
        words.append(f"--shm-size={here.shm_bytes >> 20}m")
    if not here.known:
        words.append(f"-u {here.uid}:{here.gid}")
    if here.read_only:
        words.append("--read-only")
        if not any(option.startswith("--tmpfs") for option in options):
            words.append("--tmpfs /tmp:exec")
    if not here.network:
        words.append("--network none")
    return " ".join([*words, *options, IMAGE])
