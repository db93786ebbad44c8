"""Makes a Debian or Ubuntu root file system from the distribution's packages, on this machine, with mmdebstrap.

The same recipe and the same packages give the same bytes: mmdebstrap sorts the archive and limits its time stamps to
SOURCE_DATE_EPOCH, and what it would copy from this machine, or log, is removed. A mirror serves the packages but
leaves no trace: the distribution's own sources are put back before the archive is written.
"""

from __future__ import annotations

import collections
import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from builder.engine.causes import no_space
from builder.engine.errors import BaseUnavailable, BuildCancelled, DiskFull
from builder.engine.urls import redact_urls

PATH_EXCLUDES = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/groff/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    "path-exclude=/usr/share/man/*",
)
"""What dpkg leaves out, now and in every later installation: the slim images' choice. Licences stay."""

# policy-rc.d keeps packages that are installed later from starting services inside a build. The rest is what this
# machine, the installation and apt have left behind.
CLEAN_UP = " && ".join(
    (
        """printf '#!/bin/sh\\nexit 101\\n' > "$1/usr/sbin/policy-rc.d\"""",
        'chmod 755 "$1/usr/sbin/policy-rc.d"',
        'rm -f "$1/etc/hostname" "$1/etc/resolv.conf" "$1/var/lib/dbus/machine-id" "$1/var/cache/ldconfig/aux-cache"',
        '{ [ ! -e "$1/etc/machine-id" ] || : > "$1/etc/machine-id"; }',
        'rm -f "$1"/var/cache/debconf/*-old "$1"/var/lib/dpkg/*-old',
        'find "$1/var/log" -mindepth 1 ! -type d -delete',
        'find "$1/var/cache/apt" "$1/var/lib/apt/lists" -type f -delete',
    )
)

# The values come by the environment: a command line, which everybody can read, must not show a mirror's password.
_USE_MIRROR = (
    'cp -p "$1/etc/apt/sources.list" "$1/etc/apt/imgbuild-sources"'
    ' && printf %s "$IMGBUILD_SOURCES" > "$1/etc/apt/sources.list"'
)
_FORGET_MIRROR = 'mv "$1/etc/apt/imgbuild-sources" "$1/etc/apt/sources.list"'
_USE_CERTIFICATES = 'printf %s "$IMGBUILD_APT" > "$1/etc/apt/apt.conf.d/00imgbuild-site"'
_FORGET_CERTIFICATES = 'rm "$1/etc/apt/apt.conf.d/00imgbuild-site"'

_LINES_KEPT = 12

_TOO_LITTLE_SPACE = "You don't have enough free space"
"""What apt says when it looks before it downloads."""


def make_root(
    target: Path,
    work: Path,
    *,
    suite: str,
    architecture: str,
    include: Sequence[str],
    epoch: int,
    sources: str,
    proxies: Mapping[str, str],
    ca_bundle: Path | None,
    on_line: Callable[[str], None],
    cancel: threading.Event | None = None,
) -> None:
    """Writes the root file system to `target` as a tar archive.

    Args:
        target: the archive; overwritten.
        work: an empty directory, readable for everyone, for the file system while it is made.
        suite: such as `bookworm`.
        architecture: as Debian spells it, such as `amd64`.
        include: packages besides the essential ones and apt.
        epoch: seconds since 1970; no file is newer.
        sources: apt's sources to install from; empty for the distribution's own.
        proxies: `http`, `https` and `no`, those that are to be used.
        ca_bundle: certificates for a mirror that is spoken to in HTTPS.
        on_line: receives what mmdebstrap says, a line at a time.
        cancel: ends mmdebstrap when set.

    Raises:
        BaseUnavailable: mmdebstrap is not installed, or failed.
        BuildCancelled: `cancel` was set.
        DiskFull: this machine's disk is full.
    """
    program = shutil.which("mmdebstrap")
    if program is None:
        raise BaseUnavailable(
            "a base without a registry is made by mmdebstrap, which is not installed here",
            hint="sudo apt-get install mmdebstrap",
        )
    command = [program, "--mode=auto", "--variant=apt", "--format=tar", "--skip=output/dev"]
    command += [f"--architectures={architecture}"]
    command += [f"--include={','.join(include)}"] if include else []
    command += [f"--dpkgopt={option}" for option in PATH_EXCLUDES]
    environment = _environment(work, epoch, proxies)
    if sources:
        command += [f"--setup-hook={_USE_MIRROR}", f"--customize-hook={_FORGET_MIRROR}"]
        environment["IMGBUILD_SOURCES"] = sources
    if ca_bundle is not None:
        command += [f"--setup-hook={_USE_CERTIFICATES}", f"--customize-hook={_FORGET_CERTIFICATES}"]
        environment["IMGBUILD_APT"] = f'Acquire::https::CAInfo "{ca_bundle}";\n'
    command += [f"--customize-hook={CLEAN_UP}", suite, str(target)]
    last = _run(command, environment, on_line, cancel or threading.Event())
    if last is not None:
        said = "\n".join(f"    {line}" for line in last)
        if no_space(said) or _TOO_LITTLE_SPACE in said:
            raise DiskFull(
                f"this machine's disk is full, so mmdebstrap could not make {suite} for {architecture}:\n{said}",
                hint=f"free space for {work.parent}, or: export TMPDIR=DIRECTORY_ON_A_LARGER_DISK",
            )
        raise BaseUnavailable(
            f"mmdebstrap could not make {suite} for {architecture}:\n{said}",
            hint="check that the distribution's mirror can be reached from here: sudo apt-get update",
        )


def _environment(work: Path, epoch: int, proxies: Mapping[str, str]) -> dict[str, str]:
    # What apt or dpkg would read from the environment must not shape the image.
    kept = ("PATH", "HOME", "USER", "LOGNAME")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    # mmdebstrap needs chroot and friends, which a user's PATH may lack.
    environment["PATH"] = os.pathsep.join(filter(None, (environment.get("PATH"), "/usr/sbin:/sbin")))
    environment |= {"LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": str(epoch), "TMPDIR": str(work)}
    return environment | {f"{name}_proxy": value for name, value in proxies.items()}


def _run(
    command: Sequence[str], environment: Mapping[str, str], on_line: Callable[[str], None], cancel: threading.Event
) -> tuple[str, ...] | None:
    """Runs mmdebstrap; None when it succeeded, else the last lines that it wrote. Ends it when `cancel` is set."""
    last: collections.deque[str] = collections.deque(maxlen=_LINES_KEPT)
    process = subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
        errors="replace",
    )
    done = threading.Event()
    watch = threading.Thread(target=_end_when, args=(process, cancel, done), name="mmdebstrap", daemon=True)
    watch.start()
    try:
        for raw in process.stdout or ():
            line = redact_urls(raw.rstrip())
            if line:
                last.append(line)
                on_line(line)
        code = process.wait()
        if cancel.is_set():
            raise BuildCancelled("making the base was cancelled")
        return None if code == 0 else tuple(last)
    finally:
        done.set()
        watch.join()
        _end(process)
        if process.stdout:
            process.stdout.close()


def _end_when(process: subprocess.Popen[str], cancel: threading.Event, done: threading.Event) -> None:
    while not done.wait(0.2):
        if cancel.is_set():
            _end(process)
            return


def _end(process: subprocess.Popen[str]) -> None:
    """Ends mmdebstrap and its children, when an interruption left them running."""
    for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
