"""Reads back a bill of materials of imgbuild's own (`builder.attest.sbom`). One of another tool, or one that says two
things at once, is refused: what it does not tell would count as not installed.
"""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from datetime import datetime

from builder.attest.claims import Statement
from builder.attest.reading import Reader
from builder.attest.refusal import Refusal, Refused, malformed
from builder.attest.sbom import CYCLONEDX, debian_url, pypi_url
from builder.attest.software import DebianPackage, PythonDistribution, Software

_URL_CAP = 1 << 16
"""Characters of a package URL: each of a name may have become twelve."""


@dataclass(frozen=True, kw_only=True)
class Bill:
    """A bill of materials.

    Attributes:
        software: what is installed. A distribution's `sha256` may be that of the lock.
        timestamp: when the image was read.
    """

    software: Software
    timestamp: datetime


def parse_bill(statement: Statement) -> Bill:
    """The bill of materials that is a statement's predicate.

    Args:
        statement: whose signature was verified.

    Raises:
        Refused: it is none, none that imgbuild wrote, or about another image than its statement.
    """
    if statement.predicate_type != CYCLONEDX:
        raise Refused(Refusal.OTHER_PREDICATE, f"the statement is of type {statement.predicate_type}")
    top = Reader(dict(statement.predicate), "predicate")
    form = (top.text("bomFormat"), top.text("specVersion"))
    if form != ("CycloneDX", "1.6"):
        raise malformed(f"predicate is {form[0][:40]} {form[1][:40]}, expected CycloneDX 1.6")
    metadata = top.reader("metadata")
    about = _sha256(metadata.reader("component"))
    if all(subject.sha256 != about for subject in statement.subjects):
        raise Refused(Refusal.CONTRADICTION, "the bill of materials is about another image than its statement")
    systems: list[tuple[str, str]] = []
    python: list[PythonDistribution] = []
    packages: list[tuple[Reader, str]] = []
    for component in top.readers("components"):
        kind = component.text("type")
        url = component.text("purl", cap=_URL_CAP) if component.has("purl") else ""
        if kind == "operating-system":
            systems.append((component.text("name"), _version(component)))
        elif kind == "library" and url.startswith("pkg:pypi/"):
            python += _distributions(component, url)
        elif kind == "library" and url.startswith("pkg:deb/"):
            packages.append((component, url))
        else:
            raise malformed(
                f"the bill of materials has a component that imgbuild does not write: {kind[:40]} {url[:80]}"
            )
    if len(systems) > 1:
        raise malformed("the bill of materials has several operating systems")
    system, version = systems[0] if systems else ("", "")
    software = Software(
        system=system,
        system_version=version,
        python=tuple(python),
        debian=tuple(_package(component, url, system, version) for component, url in packages),
    )
    return Bill(software=software, timestamp=metadata.instant("timestamp"))


def _distributions(component: Reader, url: str) -> list[PythonDistribution]:
    """One for each place that a component names."""
    name, version = component.text("name"), _version(component)
    if url != pypi_url(name, version):
        raise malformed(f"a component is {name[:80]} {version[:40]} and {url[:80]}")
    license_, spdx = _license(component)
    sha256 = _sha256(component) if component.has("hashes") else ""
    places = component.reader("evidence").readers("occurrences")
    if not places:
        raise malformed(f"{url[:80]} is nowhere")
    return [
        PythonDistribution(
            name=name, version=version, license=license_, spdx=spdx, location=place.text("location"), sha256=sha256
        )
        for place in places
    ]


def _package(component: Reader, url: str, system: str, system_version: str) -> DebianPackage:
    more = dict(urllib.parse.parse_qsl(url.partition("?")[2]))
    package = DebianPackage(
        name=component.text("name"),
        version=component.text("version"),
        architecture=more.get("arch", ""),
        source=more.get("upstream", ""),
    )
    if url != debian_url(package, system, system_version):
        raise malformed(f"a component is {package.name[:80]} {package.version[:40]} of {system[:40]} and {url[:80]}")
    return package


def _license(component: Reader) -> tuple[str, bool]:
    if not component.has("licenses"):
        return "", False
    found = component.readers("licenses")
    if len(found) != 1:
        raise malformed("a component does not have one license")
    if found[0].has("expression"):
        return found[0].text("expression"), True
    return found[0].reader("license").text("name"), False


def _sha256(component: Reader) -> str:
    hashes = component.readers("hashes")
    if len(hashes) != 1 or hashes[0].text("alg") != "SHA-256":
        raise malformed("a component does not have one hash, its SHA-256")
    return hashes[0].sha256("content")


def _version(component: Reader) -> str:
    return component.text("version") if component.has("version") else ""
