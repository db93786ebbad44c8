"""The software bill of materials of an image: CycloneDX 1.6 in JSON, and as an in-toto statement.

The same image gives the same bytes: components are sorted, the serial number is derived from the digest, and the time
is an argument. Package URLs follow the purl specification's types `pypi` and `deb`.
"""

from __future__ import annotations

import urllib.parse
import uuid
from collections.abc import Mapping
from datetime import datetime

from packaging.utils import canonicalize_name

from builder import __version__
from builder.attest.reading import rfc3339
from builder.attest.software import DebianPackage, PythonDistribution, Software
from builder.attest.statement import Subject, statement
from builder.lock.model import LockedPackage

CYCLONEDX = "https://cyclonedx.org/bom"
"""The predicate type of in-toto (spec/predicates/cyclonedx.md)."""

_SERIALS = uuid.uuid5(uuid.NAMESPACE_URL, "https://imgbuild.io/sbom/v1")


def sbom(
    software: Software,
    subjects: tuple[Subject, ...],
    *,
    timestamp: datetime,
    locked: Mapping[str, LockedPackage] | None = None,
) -> bytes:
    """The statement with the bill of materials of an image, as canonical JSON.

    Args:
        subjects: the image; the first is what the bill of materials is of.
        timestamp, locked: as `bill_of_materials`.
    """
    bill = bill_of_materials(software, subjects[0], timestamp=timestamp, locked=locked)
    return statement(subjects, CYCLONEDX, bill)


def bill_of_materials(
    software: Software,
    subject: Subject,
    *,
    timestamp: datetime,
    locked: Mapping[str, LockedPackage] | None = None,
) -> dict[str, object]:
    """A CycloneDX document as decoded JSON.

    Args:
        subject: the image, by name and digest.
        timestamp: when the image was read.
        locked: what the lock installs, by normalised name. A distribution of exactly that version gets the hash of
            the locked file: builds install nothing else under that name.
    """
    root = f"image:{subject.sha256}"
    components: list[dict[str, object]] = []
    if software.system:
        components.append(
            {
                "type": "operating-system",
                "bom-ref": f"os:{software.system}@{software.system_version}",
                "name": software.system,
                **({"version": software.system_version} if software.system_version else {}),
            }
        )
    components += _python_components(software.python, locked or {})
    components += [_debian_component(package, software) for package in software.debian]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_SERIALS, subject.sha256)}",
        "version": 1,
        "metadata": {
            "timestamp": rfc3339(timestamp),
            "tools": {"components": [{"type": "application", "name": "imgbuild", "version": __version__}]},
            "component": {
                "type": "container",
                "bom-ref": root,
                "name": subject.name,
                "version": f"sha256:{subject.sha256}",
                "hashes": [{"alg": "SHA-256", "content": subject.sha256}],
            },
        },
        "components": components,
        "dependencies": [{"ref": root, "dependsOn": [str(item["bom-ref"]) for item in components]}],
    }


def pypi_url(name: str, version: str) -> str:
    """The package URL of a Python distribution."""
    return f"pkg:pypi/{canonicalize_name(name)}{_at(version)}"


def debian_url(package: DebianPackage, system: str, system_version: str) -> str:
    """The package URL of a package of Debian or of a distribution made from it."""
    qualifiers = {
        "arch": package.architecture,
        "distro": f"{system}-{system_version}" if system_version else "",
        "upstream": package.source,
    }
    query = "&".join(f"{key}={_quoted(value)}" for key, value in qualifiers.items() if value)
    return f"pkg:deb/{system or 'debian'}/{_quoted(package.name.lower())}{_at(package.version)}?{query}".rstrip("?")


def _at(version: str) -> str:
    return f"@{_quoted(version)}" if version else ""


def _quoted(text: str) -> str:
    # The colon of an epoch may stay as it is.
    return urllib.parse.quote(text, safe=":~")


def _python_components(
    distributions: tuple[PythonDistribution, ...], locked: Mapping[str, LockedPackage]
) -> list[dict[str, object]]:
    """One component for each package URL; an image may have a distribution in several places."""
    places: dict[str, list[PythonDistribution]] = {}
    for item in distributions:
        places.setdefault(pypi_url(item.name, item.version), []).append(item)
    return [_python_component(url, found, locked) for url, found in sorted(places.items())]


def _python_component(
    url: str, found: list[PythonDistribution], locked: Mapping[str, LockedPackage]
) -> dict[str, object]:
    first = found[0]
    component: dict[str, object] = {
        "type": "library",
        "bom-ref": url,
        "name": first.name,
        "purl": url,
        "evidence": {"occurrences": [{"location": item.location} for item in found]},
    }
    if first.version:
        component["version"] = first.version
    if first.license:
        component["licenses"] = [
            {"expression": first.license} if first.spdx else {"license": {"name": first.license}},
        ]
    pin = locked.get(canonicalize_name(first.name))
    digest, file = first.sha256, ""
    if pin is not None and pin.version == first.version:
        digest, file = pin.sha256, pin.file
    if digest:
        component["hashes"] = [{"alg": "SHA-256", "content": digest}]
    if file:
        component["properties"] = [{"name": "imgbuild:file", "value": file}]
    return component


def _debian_component(package: DebianPackage, software: Software) -> dict[str, object]:
    url = debian_url(package, software.system, software.system_version)
    return {"type": "library", "bom-ref": url, "name": package.name, "version": package.version, "purl": url}
