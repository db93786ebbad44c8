"""A real engine, a prefix for everything that this run makes there, and a tiny image to build from.

Everything that the tests make carries the prefix in its name or the label, and is removed at the end.
"""

from __future__ import annotations

import io
import os
import secrets
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Built, imgbuild

from builder.engine import fields
from builder.engine.connection import Engine
from builder.engine.errors import EngineError

LABEL = "imgbuild-test"

_APPLETS = """
    awk cat chmod cp cut date dd df du echo env expr false find grep head id ln ls md5sum mkdir mkfifo mv nc od ps pwd
    readlink rm sed seq sh sha256sum sleep sort stat tail tar tee test touch tr true uname wc
"""
"""Programs of busybox that the image has by name."""


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The engine that the docker command would use. Without one the tests fail: they were asked for."""
    try:
        connected = Engine.connect()
    except EngineError as error:
        pytest.fail(f"the tests marked 'engine' need a Docker engine: {error}", pytrace=False)
    with connected:
        yield connected


@pytest.fixture(scope="session")
def prefix(engine: Engine) -> Iterator[str]:
    """Begins the names of this run's images and containers, and is the value of their label."""
    name = f"imgbuild-test-{secrets.token_hex(4)}"
    yield name
    _remove_all(engine, name)


@pytest.fixture(scope="session")
def tiny_base(engine: Engine, prefix: str, pytestconfig: pytest.Config) -> str:
    """Name of an image with nothing but a static busybox. Images built from it inherit the run's label."""
    busybox = _busybox(pytestconfig).read_bytes()
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
    name = f"{prefix}-base:latest"
    params = {
        "fromSrc": "-",
        "repo": f"{prefix}-base",
        "tag": "latest",
        "changes": f"LABEL {LABEL}={prefix}",
    }
    engine.call(
        "POST",
        "/images/create",
        doing="import the tests' base image",
        params=params,
        body=buffer.getvalue(),
        headers={"Content-Type": "application/x-tar"},
    )
    return name


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


def _remove_all(engine: Engine, name: str) -> None:
    containers = engine.call_json(
        "GET",
        "/containers/json",
        doing="list the tests' containers",
        params={"all": True, "filters": f'{{"label":["{LABEL}={name}"]}}'},
    )
    for container in fields.sequence(containers):
        _remove(engine, f"/containers/{fields.text(fields.mapping(container).get('Id'))}")
    labelled = engine.call_json(
        "GET",
        "/images/json",
        doing="list the tests' images",
        params={"filters": f'{{"label":["{LABEL}={name}"]}}'},
    )
    every = engine.call_json("GET", "/images/json", doing="list the tests' images")
    # By name where there is one: an image with the same bytes may carry somebody else's names too.
    for image in fields.sequence(every):
        tags = fields.mapping(image).get("RepoTags")
        for tag in tags if isinstance(tags, list) else ():
            if str(tag).startswith(name):
                _remove(engine, f"/images/{tag}")
    for image in fields.sequence(labelled):
        _remove(engine, f"/images/{fields.text(fields.mapping(image).get('Id'))}")


def _remove(engine: Engine, path: str) -> None:
    try:
        engine.call("DELETE", path, doing="remove what the tests made", params={"force": True}).close()
    except EngineError as error:
        # Listed twice, or removed by the test itself: gone is gone.
        if "No such" not in str(error):
            raise


@pytest.fixture(scope="session")
def built(engine: Engine, prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Builds, checks and tags the default matrix. Takes minutes where the layer cache does not know it."""
    environment = {**os.environ, "IMGBUILD_STATE_DIR": str(tmp_path_factory.mktemp("state"))}
    ran = imgbuild("build", "--format", "json", "--repository", prefix, environment=environment)
    assert ran.code == 0, ran.out + ran.err
    return Built(repository=prefix, report=ran.json, environment=environment)


@pytest.fixture(scope="session")
def good_image(built: Built) -> str:
    """Id of the image of the cell with Horovod, which passed its check."""
    return str(built.cell("-horovod")["image_id"])
