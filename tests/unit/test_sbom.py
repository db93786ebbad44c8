"""The bill of materials: what is read from an image's files, and CycloneDX's own opinion of what is made of it."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from attesting import DIGEST, IMAGE_ID, NOW
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from builder.attest import Subject
from builder.attest.bill import parse_bill
from builder.attest.claims import parse_statement
from builder.attest.sbom import CYCLONEDX, bill_of_materials, debian_url, pypi_url, sbom
from builder.attest.software import (
    DebianPackage,
    PythonDistribution,
    Software,
    _archive_hash,
    _path,
    os_release,
    parse_metadata,
    parse_status,
    prefixes,
)
from builder.lock.model import LockedPackage

SUBJECT = Subject(name="registry.example/imgbuild/pytorch", sha256=DIGEST)


def distribution(name: str = "numpy", version: str = "2.4.6", **changes: Any) -> PythonDistribution:
    values: dict[str, Any] = {
        "name": name,
        "version": version,
        "license": "BSD-3-Clause AND 0BSD",
        "spdx": True,
        "location": f"/opt/venv/lib/python3.11/site-packages/{name}-{version}.dist-info",
        "sha256": "",
    }
    return PythonDistribution(**{**values, **changes})


SOFTWARE = Software(
    system="debian",
    system_version="12",
    python=(
        distribution(),
        distribution(location="/usr/lib/python3/dist-packages/numpy-2.4.6.egg-info"),
        distribution("numpy", "1.26.4"),
        distribution("torch", "2.13.0+cpu", license="New BSD", spdx=False),
        distribution("ruamel.yaml_x", "1", license="", sha256="9" * 64),
        distribution("broken", "", license=""),
    ),
    debian=(
        DebianPackage(name="libc6", version="2.36-9+deb12u13", architecture="amd64", source="glibc"),
        DebianPackage(name="g++", version="4:12.2.0-3", architecture="amd64", source="gcc-defaults"),
        DebianPackage(name="tini", version="0.19.0-1", architecture="amd64", source=""),
    ),
)
LOCKED = {
    "torch": LockedPackage(name="torch", version="2.13.0+cpu", file="torch-2.13.0+cpu.whl", sha256="7" * 64),
    "numpy": LockedPackage(name="numpy", version="2.4.6", file="numpy-2.4.6.whl", sha256="8" * 64),
}


def bill(software: Software = SOFTWARE) -> dict[str, Any]:
    return json.loads(json.dumps(bill_of_materials(software, SUBJECT, timestamp=NOW, locked=LOCKED)))  # type: ignore[no-any-return]


def component(document: dict[str, Any], reference: str) -> dict[str, Any]:
    (found,) = [item for item in document["components"] if item["bom-ref"] == reference]
    return dict(found)


def problems(document: dict[str, Any]) -> object:
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document))


@pytest.mark.parametrize(
    "software",
    [SOFTWARE, Software(system="", system_version="", python=(), debian=())],
    ids=["full", "nothing found"],
)
def test_cyclonedx_takes_it(software: Software) -> None:
    assert problems(bill(software)) is None


def test_cyclonedx_refuses_a_wrong_one() -> None:
    document = bill()
    document["components"][0]["type"] = "thing"
    assert problems(document) is not None


def test_what_it_says_of_the_image() -> None:
    document = bill()
    image = document["metadata"]["component"]
    assert (image["type"], image["name"], image["version"]) == ("container", SUBJECT.name, f"sha256:{DIGEST}")
    assert document["metadata"]["timestamp"] == "2026-03-01T12:00:00Z"
    references = [item["bom-ref"] for item in document["components"]]
    assert len(set(references)) == len(references) == 9
    assert document["dependencies"] == [{"ref": image["bom-ref"], "dependsOn": references}]


def test_a_python_distribution() -> None:
    torch = component(bill(), "pkg:pypi/torch@2.13.0%2Bcpu")
    assert torch["name"] == "torch"
    assert torch["version"] == "2.13.0+cpu"
    assert torch["licenses"] == [{"license": {"name": "New BSD"}}]
    assert torch["hashes"] == [{"alg": "SHA-256", "content": "7" * 64}]
    assert torch["properties"] == [{"name": "imgbuild:file", "value": "torch-2.13.0+cpu.whl"}]
    assert component(bill(), "pkg:pypi/ruamel-yaml-x@1")["hashes"] == [{"alg": "SHA-256", "content": "9" * 64}]
    broken = component(bill(), "pkg:pypi/broken")
    assert {"version", "licenses", "hashes"} & broken.keys() == set()


def test_two_versions_of_one_distribution_and_two_places_of_one_version() -> None:
    new, old = component(bill(), "pkg:pypi/numpy@2.4.6"), component(bill(), "pkg:pypi/numpy@1.26.4")
    assert len(new["evidence"]["occurrences"]) == 2
    assert new["licenses"] == [{"expression": "BSD-3-Clause AND 0BSD"}]
    assert new["hashes"] == [{"alg": "SHA-256", "content": "8" * 64}]
    # The lock says nothing of a version that it does not have.
    assert "hashes" not in old


def test_package_urls_read_back_as_what_they_mean() -> None:
    url = PackageURL.from_string(component(bill(), pypi_url("torch", "2.13.0+cpu"))["purl"])
    assert (url.type, url.name, url.version) == ("pypi", "torch", "2.13.0+cpu")
    for package in SOFTWARE.debian:
        text = debian_url(package, "debian", "12")
        url = PackageURL.from_string(text)
        qualifiers = {"arch": "amd64", "distro": "debian-12"} | ({"upstream": package.source} if package.source else {})
        assert (url.type, url.namespace, url.name, url.version) == ("deb", "debian", package.name, package.version)
        assert url.qualifiers == qualifiers
        assert component(bill(), text)["version"] == package.version


def test_the_same_image_gives_the_same_bytes() -> None:
    subjects = (SUBJECT, Subject(name="image-id", sha256=IMAGE_ID))
    first = sbom(SOFTWARE, subjects, timestamp=NOW, locked=LOCKED)
    assert first == sbom(SOFTWARE, subjects, timestamp=NOW, locked=LOCKED)
    document = json.loads(first)
    assert document["predicateType"] == CYCLONEDX
    assert document["predicate"] == bill()
    serial = document["predicate"]["serialNumber"]
    assert uuid.UUID(serial.removeprefix("urn:uuid:")).version == 5
    other = json.loads(sbom(SOFTWARE, (Subject(name=SUBJECT.name, sha256="0" * 64),), timestamp=NOW))
    assert other["predicate"]["serialNumber"] != serial


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Metadata-Version: 2.4\nName: NumPy\nVersion: 2.4.6\nLicense-Expression: BSD-3-Clause\n\nLicense: no\n",
            ("NumPy", "2.4.6", "BSD-3-Clause", True),
        ),
        ("Name: a\nVersion: 1\nLicense: MIT\n", ("a", "1", "MIT", False)),
        (
            "Name: a\nVersion: 1\nClassifier: License :: OSI Approved :: MIT License\nClassifier: X :: Y\n",
            ("a", "1", "MIT License", False),
        ),
        (
            "Name: a\nVersion: 1\nLicense: UNKNOWN\nClassifier: License :: OSI Approved\n",
            ("a", "1", "", False),
        ),
        (
            "Name: a\nVersion: 1\nLicense: Copyright 2020\n        All rights\nClassifier: License :: Public Domain\n",
            ("a", "1", "Public Domain", False),
        ),
        ("Name: a\nVersion: 1\nLicense: " + "x" * 300 + "\n", ("a", "1", "", False)),
        ("no header at all", ("some_name", "1.5", "", False)),
        ("", ("some_name", "1.5", "", False)),
        ("Name: \x1b[31ma\nVersion: 1\n", ("[31ma", "1", "", False)),
        ("Name: caf\u00e9\nVersion: 1\nLicense: \ufffd\n", ("caf\u00e9", "1", "\ufffd", False)),
    ],
)
def test_metadata(text: str, expected: tuple[str, str, str, bool]) -> None:
    assert parse_metadata(text.encode(), "some_name-1.5-py3") == expected


def test_a_damaged_encoding_is_no_obstacle() -> None:
    assert parse_metadata(b"Name: a\nVersion: 1\nAuthor: \xff\xfe\n\n\xff", "x")[:2] == ("a", "1")


STATUS = b"""Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc (2.36-9)
Version: 2.36-9+deb12u13
Description: the C library
 Version: not this one
 .
 more

Package: held
Status: hold ok installed
Version: 1

Package: removed
Status: deinstall ok config-files
Version: 1

Package: half
Status: install ok half-configured
Version: 1

Status: install ok installed
Version: 1
"""


def test_the_status_of_dpkg() -> None:
    assert parse_status(STATUS) == [
        DebianPackage(name="libc6", version="2.36-9+deb12u13", architecture="amd64", source="glibc"),
        DebianPackage(name="held", version="1", architecture="", source=""),
    ]
    assert parse_status(b"") == []
    assert parse_status(b"\xff\xfe: \x00\n\n\n") == []


def test_the_status_of_an_image_without_dpkg() -> None:
    paragraph = b"Package: base-files\nVersion: 12\nArchitecture: amd64\n"
    assert [item.name for item in parse_status(paragraph, stated=False)] == ["base-files"]
    assert parse_status(paragraph) == []


def test_os_release() -> None:
    assert os_release(b"NAME=\"Debian GNU/Linux\"\nID=debian\nVERSION_ID='12'\n# x\nlower=1\n") == {
        "NAME": "Debian GNU/Linux",
        "ID": "debian",
        "VERSION_ID": "12",
    }


def test_where_pythons_are_looked_for() -> None:
    found = prefixes(
        {
            "PATH": "/opt/venv/bin:/usr/local/sbin/:/usr/bin:/bin:relative/bin:/opt/tool",
            "VIRTUAL_ENV": "/srv/venv/",
            "HOME": "/home/user",
        }
    )
    assert found[:2] == ("/srv/venv", "/opt/venv")
    assert {"/usr", "/usr/local", "/opt/conda", "/home/user/.local"} <= set(found)
    assert len(set(found)) == len(found)
    assert not {"/", "", "relative", "/opt"} & set(found)
    assert prefixes({})


@pytest.mark.parametrize(
    "stem", ["plain-1.0", "a\nb-1.0", "\udcff-1.0", "\x1b[2J-\u202e", "n" * 9000, "n-" + "\U0001f600" * 9000]
)
@pytest.mark.parametrize("more", ["", "License-Expression: " + "MIT AND " * 3000 + "MIT", "License: \x85"])
def test_whatever_an_image_calls_its_files_its_bill_is_written_and_read(stem: str, more: str) -> None:
    # A name in an image may be any bytes: what tar gives for those that are no UTF-8 are lone surrogates.
    name, version, license_, spdx = parse_metadata(more.encode(), stem)
    found = PythonDistribution(
        name=name,
        version=version,
        license=license_,
        spdx=spdx,
        location=_path(f"/opt/venv/lib/{stem}.dist-info"),
        sha256="",
    )
    paragraph = f"Package: {stem}\nVersion: 1\nSource: {stem}\nArchitecture: amd64".encode("utf-8", "surrogateescape")
    debian = tuple(parse_status(paragraph, stated=False))
    software = Software(system="debian", system_version="12", python=(found,), debian=debian)
    subjects = (Subject(name="image-id", sha256=IMAGE_ID),)
    assert parse_bill(parse_statement(sbom(software, subjects, timestamp=NOW))).software == software


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"url": "https://u:canary@h/x", "archive_info": {"hashes": {"sha256": "1" * 64}}}, "1" * 64),
        ({"archive_info": {"hash": f"sha256={'1' * 64}"}}, "1" * 64),
        ({"archive_info": {"hash": f"md5={'1' * 32}"}}, ""),
        ({"archive_info": {"hashes": {"sha256": "canary"}}}, ""),
        ({"archive_info": {"hashes": []}}, ""),
        ({"dir_info": {}}, ""),
        ([], ""),
    ],
)
def test_the_hash_of_the_archive_that_was_installed(document: object, expected: str) -> None:
    assert _archive_hash(json.dumps(document).encode()) == expected


def test_a_damaged_direct_url_is_no_hash() -> None:
    assert _archive_hash(b"{") == ""
    assert _archive_hash(b"\xff") == ""
    assert _archive_hash(b"[" * 100_000) == ""
