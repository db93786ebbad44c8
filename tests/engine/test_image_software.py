"""What is installed in an image, read without running it, against what the image says of itself when it runs."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import time
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest
from command import LABEL, Built
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name
from tiny import import_root

from builder.attest import Subject
from builder.attest.sbom import bill_of_materials
from builder.attest.software import DebianPackage, Software, installed_software
from builder.engine.connection import Engine
from builder.engine.errors import ContainerError, ImageMissing
from builder.engine.image_files import image_files
from builder.engine.images import remove
from builder.engine.owner import leftovers

pytestmark = pytest.mark.engine


def said(image: str, *command: str) -> str:
    """What a program of the image prints."""
    arguments = ["docker", "run", "--rm", "--network", "none", "--entrypoint", command[0], image, *command[1:]]
    return subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=300).stdout


def ours(engine: Engine) -> set[str]:
    return {item.name for item in leftovers(engine) if not item.abandoned}


def test_a_real_image_is_read_as_it_says_of_itself(engine: Engine, built: Built) -> None:
    outcome = built.cell("torch-2.13.0-cpu-py3.11-horovod")
    image = str(outcome["image_id"])
    began = time.monotonic()
    found = installed_software(engine, image)
    seconds = time.monotonic() - began
    listed = json.loads(said(image, "python", "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"))
    expected = {(canonicalize_name(item["name"]), item["version"]) for item in listed}
    assert {(canonicalize_name(item.name), item.version) for item in found.python} == expected
    assert len(expected) >= 20
    rows = said(image, "dpkg-query", "--show", "--showformat", "${Package} ${Version} ${Architecture}\\n").splitlines()
    assert {f"{item.name} {item.version} {item.architecture}" for item in found.debian} == set(rows)
    assert len(rows) >= 50
    assert f"ID={found.system}\n" in said(image, "cat", "/etc/os-release")
    assert all(item.license for item in found.python if item.name in ("torch", "numpy", "pip"))
    bill = bill_of_materials(found, Subject(name=image, sha256="a" * 64), timestamp=datetime.now(timezone.utc))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill)) is None
    print(f"{len(found.python)} distributions and {len(found.debian)} packages in {seconds:.1f} s")


def root(files: dict[str, str | bytes], links: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return buffer.getvalue()


SITE = "usr/local/lib/python3.12/site-packages"


@pytest.fixture(scope="module")
def strange(engine: Engine, prefix: str) -> Iterator[str]:
    """An image in which nothing could run: only metadata, some of it broken, and links that lead astray."""
    archive = root(
        {
            f"{SITE}/numpy-2.0.0.dist-info/METADATA": "Name: numpy\nVersion: 2.0.0\nLicense: BSD\n",
            f"{SITE}/numpy-1.26.4.dist-info/METADATA": "Name: numpy\nVersion: 1.26.4\n",
            f"{SITE}/numpy/other-1.dist-info/METADATA": "Name: vendored\nVersion: 1\n",
            f"{SITE}/half-1.0.dist-info/RECORD": "",
            f"{SITE}/broken-3.dist-info/METADATA": b"\xff\xfe\x00" * 1000,
            f"{SITE}/long-1.dist-info/METADATA": "Name: long\nVersion: 1\n\n" + "x" * 1_000_000,
            f"{SITE}/local-1.dist-info/METADATA": "Name: local\nVersion: 1\n",
            f"{SITE}/local-1.dist-info/direct_url.json": json.dumps(
                {"url": "https://user:canary@host/x", "archive_info": {"hashes": {"sha256": "5" * 64}}}
            ),
            "usr/lib/python3/dist-packages/old-0.5.egg-info": "Name: old\nVersion: 0.5\n",
            "usr/lib/python3/dist-packages/dir-0.6.egg-info/PKG-INFO": "Name: dir\nVersion: 0.6\n",
            "var/lib/dpkg/status.d/tzdata": "Package: tzdata\nVersion: 2026a\nArchitecture: all\n",
            "var/lib/dpkg/status.d/tzdata.md5sums": "Package: no\nVersion: 1\n",
            "etc/os-release": "ID=strange\nVERSION_ID=1\n",
        },
        {
            "usr/local/lib64": "lib",
            "usr/local/lib/python3.13": "/etc/nowhere",
            "usr/lib/python3.9": "python3.9",
            "usr/lib/python3/dist-packages/linked-1.dist-info": "/etc",
            f"{SITE}/link-1.dist-info/METADATA": "/etc/os-release",
        },
    )
    name = import_root(engine, archive, f"{prefix}-strange", label=f"{LABEL}={prefix}")
    yield name
    remove(engine, name)


def test_a_strange_image(engine: Engine, strange: str) -> None:
    before = ours(engine)
    found = installed_software(engine, strange)
    assert [(item.name, item.version, item.sha256) for item in found.python] == [
        ("broken", "3", ""),
        ("dir", "0.6", ""),
        ("local", "1", "5" * 64),
        ("long", "1", ""),
        ("numpy", "1.26.4", ""),
        ("numpy", "2.0.0", ""),
        ("old", "0.5", ""),
    ]
    assert found.python[0].location == f"/{SITE}/broken-3.dist-info"
    assert found.debian == (DebianPackage(name="tzdata", version="2026a", architecture="all", source=""),)
    assert (found.system, found.system_version) == ("strange", "1")
    assert "canary" not in repr(found)
    assert ours(engine) == before


def test_an_image_with_nothing(engine: Engine, prefix: str) -> None:
    name = import_root(engine, root({"x": "y"}, {}), f"{prefix}-nothing", label=f"{LABEL}={prefix}")
    try:
        assert installed_software(engine, name) == Software(system="", system_version="", python=(), debian=())
    finally:
        remove(engine, name)


def test_an_image_that_is_not_there(engine: Engine) -> None:
    before = ours(engine)
    with pytest.raises(ImageMissing):
        installed_software(engine, "imgbuild-test-never/made:at-all")
    with pytest.raises(ImageMissing), image_files(engine, "imgbuild-test-never/made:at-all"):
        pass
    assert ours(engine) == before


def test_files_one_by_one(engine: Engine, strange: str) -> None:
    with image_files(engine, strange) as files:
        assert files.read("/etc/os-release", cap=100) == b"ID=strange\nVERSION_ID=1\n"
        assert files.read("/etc/missing", cap=100) is None
        assert files.read("/etc", cap=100) is None
        assert files.read("/usr/local/lib64", cap=100) is None
        with pytest.raises(ContainerError, match="has 24 bytes, at most 23 are read"):
            files.read("/etc/os-release", cap=23)
        link, directory = files.stat("/usr/local/lib64"), files.stat("/etc")
        assert link is not None
        assert (link.link, link.directory, link.target) == (True, False, "/usr/local/lib")
        assert directory is not None
        assert (directory.link, directory.directory, directory.regular) == (False, True, False)
        assert list(files.walk("/nowhere", lambda path: True, cap=10)) == []
        assert dict(files.walk(f"/{SITE}/local-1.dist-info", lambda path: "METADATA" in path, cap=4)) == {
            "local-1.dist-info/METADATA": b"Name"
        }
