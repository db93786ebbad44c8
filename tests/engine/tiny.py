"""A tiny root file system to build from, made on this machine: nothing but a static busybox."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from builder.engine.connection import Engine

_APPLETS = """
    awk cat chmod cp cut date dd df du echo env expr false find grep head id ln ls md5sum mkdir mkfifo mv nc od ps pwd
    readlink rm sed seq sh sha256sum sleep sort stat tail tar tee test touch tr true uname wc
"""
"""Programs of busybox that the image has by name."""


def root_archive(config: pytest.Config) -> bytes:
    """The root file system as a tar archive."""
    busybox = _busybox(config).read_bytes()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for directory, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("root", 0o700)):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(busybox), 0o755
        archive.addfile(entry, io.BytesIO(busybox))
        for applet in _APPLETS.split():
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
        # A build's first RUN is no place to find out that /etc/passwd is missing.
        passwd = b"root:x:0:0:root:/root:/bin/sh\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(passwd)
        archive.addfile(entry, io.BytesIO(passwd))
    return buffer.getvalue()


def import_root(engine: Engine, archive: bytes, repository: str, *, label: str) -> str:
    """Makes an image of a root file system; returns its name. Images built from it inherit the label."""
    engine.call(
        "POST",
        "/images/create",
        doing="import the tests' base image",
        params={"fromSrc": "-", "repo": repository, "tag": "latest", "changes": f"LABEL {label}"},
        body=archive,
        headers={"Content-Type": "application/x-tar"},
    ).close()
    return f"{repository}:latest"


def _busybox(config: pytest.Config) -> Path:
    """A static busybox: IMGBUILD_TEST_BUSYBOX, this machine's, or the one of Debian's package, kept in the cache."""
    named = os.environ.get("IMGBUILD_TEST_BUSYBOX") or shutil.which("busybox")
    if named and _is_static(Path(named)):
        return Path(named)
    cache = config.cache
    assert cache is not None, "the tests' base image needs pytest's cache"
    directory = cache.mkdir("imgbuild-busybox")
    found = directory / "busybox"
    if not found.exists():
        unpacked = directory / "unpacked"
        try:
            _run(["apt-get", "download", "busybox-static"], directory)
            package = next(directory.glob("busybox-static_*.deb"))
            _run(["dpkg-deb", "-x", str(package), str(unpacked)], directory)
        except (OSError, subprocess.SubprocessError, StopIteration) as error:
            pytest.fail(
                "no static busybox for the tests' base image: install the package busybox-static, or name one in "
                f"IMGBUILD_TEST_BUSYBOX ({error})",
                pytrace=False,
            )
        programs = [p for p in (unpacked / "bin/busybox", unpacked / "usr/bin/busybox") if p.is_file()]
        # Under its final name only when complete, for runs at the same time.
        programs[0].replace(found)
    return found


def _run(command: list[str], directory: Path) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(command, cwd=directory, env=environment, check=True, capture_output=True, timeout=120)


def _is_static(program: Path) -> bool:
    """Whether an ELF program names no interpreter (loader) in its first page."""
    head = program.read_bytes()[:4096]
    return head.startswith(b"\x7fELF") and b"ld-linux" not in head and b"ld-musl" not in head
