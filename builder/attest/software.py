"""What is installed in an image, read from its files without running anything of it.

Python distributions are found where interpreters look for them: `site-packages` and `dist-packages` below the prefixes
that the image's environment names (VIRTUAL_ENV, CONDA_PREFIX, PATH, PYTHONPATH) and the usual ones. Their metadata is
that of the core metadata specification. Debian's packages are those of dpkg's status file (or, in images without dpkg,
of `status.d`).
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.parser import HeaderParser

from packaging.utils import canonicalize_name

from builder.engine.connection import Engine
from builder.engine.errors import ImageMissing
from builder.engine.image_files import ImageFiles, image_files
from builder.engine.images import inspect

_MINORS = range(6, 21)
"""Python 3.x that is looked for; a probe takes 4 ms."""

_METADATA_CAP = 1 << 18
"""Bytes of a METADATA file that are read. Its header comes first; after it is the project's description."""

_STATUS_CAP = 64 << 20
_OS_RELEASE_CAP = 1 << 16
_TEXT_CAP = 200
"""Characters of the longest licence that is a name and not the text itself, and of a name or version."""

_EXPRESSION_CAP = 2000
"""Characters of the longest SPDX expression; a longer one is left out, since a part of it would say another thing."""

_PATH_CAP = 2000

_HEX = re.compile(r"[0-9a-f]{64}")
_DIST_INFO = re.compile(r"[^/]+/([^/]+)\.(?:dist-info/METADATA|egg-info/PKG-INFO|egg-info)")
_DIRECT_URL = re.compile(r"([^/]+/[^/]+\.dist-info)/direct_url\.json")
_UNKNOWN = ("", "unknown", "none", "other", "other/proprietary license")


@dataclass(frozen=True, kw_only=True)
class PythonDistribution:
    """One installed Python distribution.

    Attributes:
        name: as it names itself; `canonicalize_name` gives what it is compared by.
        version: with its local part; empty when its metadata has none.
        license: an SPDX expression, or another short name when `spdx` is false; empty when it states none.
        spdx: whether `license` is the field of SPDX expressions.
        location: the directory or file of its metadata in the image.
        sha256: of the archive that it was installed from, where the installer wrote that down; else empty.
    """

    name: str
    version: str
    license: str
    spdx: bool
    location: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class DebianPackage:
    """One installed package of the distribution.

    Attributes:
        name, version, architecture: as dpkg has them.
        source: name of the source package, where it differs; else empty.
    """

    name: str
    version: str
    architecture: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Software:
    """What is installed in one image.

    Attributes:
        system: the distribution's id, such as `debian`; empty when the image does not say.
        system_version: such as `12`.
        python: sorted by name, version and place.
        debian: sorted by name, architecture and version.
    """

    system: str
    system_version: str
    python: tuple[PythonDistribution, ...]
    debian: tuple[DebianPackage, ...]


def installed_software(engine: Engine, image: str) -> Software:
    """What is installed in an image.

    It takes 4 to 10 s for each GB of Python packages: the engine cannot list a directory, only send all of it.

    Args:
        image: the image's id, or a name.

    Raises:
        ImageMissing: there is no such image.
        ContainerError: no container could be made of it, or its files cannot be read.
        EngineUnavailable: the engine went away.
    """
    details = inspect(engine, image)
    if details is None:
        raise ImageMissing(f"the engine has no image {image}")
    with image_files(engine, details.id) as files:
        release = os_release(_first(files, ("/usr/lib/os-release", "/etc/os-release")))
        python: list[PythonDistribution] = []
        for directory in _site_directories(files, details.environment):
            python += _distributions(files, directory)
        debian = parse_status(files.read("/var/lib/dpkg/status", cap=_STATUS_CAP) or b"")
        for name, content in files.walk("/var/lib/dpkg/status.d", lambda name: True, cap=_METADATA_CAP):
            if not name.endswith(".md5sums"):
                debian += parse_status(content, stated=False)
    return Software(
        system=release.get("ID", ""),
        system_version=release.get("VERSION_ID", ""),
        python=tuple(sorted(set(python), key=lambda item: (canonicalize_name(item.name), item.version, item.location))),
        debian=tuple(sorted(set(debian), key=lambda item: (item.name, item.architecture, item.version))),
    )


def prefixes(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Where Pythons may be installed, from an image's environment; each once, the most likely first."""
    found = [environment.get("VIRTUAL_ENV", ""), environment.get("CONDA_PREFIX", "")]
    for entry in environment.get("PATH", "").split(":"):
        directory, last = posixpath.split(entry.rstrip("/"))
        if last in ("bin", "sbin"):
            found.append(directory)
    found += ["/usr", "/usr/local", "/opt/conda", "/opt/venv"]
    if environment.get("HOME", "").startswith("/"):
        found.append(f"{environment['HOME'].rstrip('/')}/.local")
    clean = (posixpath.normpath(item) for item in found if item.startswith("/"))
    return tuple(dict.fromkeys(item for item in clean if item not in ("/", "//")))


def parse_metadata(data: bytes, fallback: str) -> tuple[str, str, str, bool]:
    """Name, version, licence and whether that is an SPDX expression, from a METADATA or PKG-INFO file.

    Args:
        fallback: `name-version` of the file's directory, for what the file does not say.
    """
    header = HeaderParser().parsestr(data.decode("utf-8", "replace"))
    named, _, versioned = fallback.partition("-")
    name = (_line(header.get("Name")) or _line(named))[:_TEXT_CAP]
    version = (_line(header.get("Version")) or _line(versioned.partition("-")[0]))[:_TEXT_CAP]
    expression = _line(header.get("License-Expression"))
    if 0 < len(expression) <= _EXPRESSION_CAP:
        return name, version, expression, True
    stated = str(header.get("License") or "")
    # Some put the whole text of the licence there, as lines that go on.
    license_ = "" if "\n" in stated.strip() or len(stated) > _TEXT_CAP else _line(stated)
    if license_.lower() in _UNKNOWN:
        classifiers = [str(value) for value in header.get_all("Classifier") or ()]
        names = [item.rpartition(" :: ")[2].strip() for item in classifiers if item.startswith("License :: ")]
        license_ = " / ".join(dict.fromkeys(item for item in names if item != "OSI Approved"))
    return name, version, _line(license_)[:_EXPRESSION_CAP], False


def parse_status(data: bytes, *, stated: bool = True) -> list[DebianPackage]:
    """The installed packages of a dpkg status file.

    Args:
        stated: whether a paragraph must say that its package is installed; those in `status.d` do not.
    """
    found = []
    for paragraph in re.split(r"\n[ \t]*\n", data.decode("utf-8", "replace")):
        fields: dict[str, str] = {}
        for line in paragraph.splitlines():
            key, separator, value = line.partition(":")
            if separator and not line[:1].isspace():
                fields[key.lower()] = _line(value[:_TEXT_CAP])
        if stated and fields.get("status", "").split()[-1:] != ["installed"]:
            continue
        if fields.get("package") and fields.get("version"):
            source = fields.get("source", "").partition(" ")[0]
            found.append(
                DebianPackage(
                    name=fields["package"],
                    version=fields["version"],
                    architecture=fields.get("architecture", ""),
                    source="" if source == fields["package"] else source,
                )
            )
    return found


def os_release(data: bytes) -> dict[str, str]:
    """The values of an os-release file, without their quotes."""
    found = {}
    for line in data.decode("utf-8", "replace").splitlines():
        key, separator, value = line.partition("=")
        if separator and re.fullmatch(r"[A-Z_0-9]+", key):
            found[key] = _line(value.strip().strip("\"'"))[:_TEXT_CAP]
    return found


def _first(files: ImageFiles, paths: Iterable[str]) -> bytes:
    for path in paths:
        content = files.read(path, cap=_OS_RELEASE_CAP)
        if content is not None:
            return content
    return b""


def _site_directories(files: ImageFiles, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The directories of an image that hold Python distributions, each once however many links lead to it."""
    candidates = []
    for prefix in prefixes(environment):
        for lib in ("lib", "lib64"):
            found = files.stat(f"{prefix}/{lib}")
            if found is None or not found.directory:
                # A virtual environment's lib64 is a link to its lib.
                continue
            # Debian's own packages are in a directory for every Python 3.
            for version in ("python3", *(f"python3.{minor}" for minor in _MINORS)):
                if files.stat(f"{prefix}/{lib}/{version}") is not None:
                    candidates += [f"{prefix}/{lib}/{version}/{last}" for last in ("site-packages", "dist-packages")]
    candidates += [item for item in environment.get("PYTHONPATH", "").split(":") if item.startswith("/")]
    directories: dict[str, None] = {}
    for candidate in candidates:
        path = posixpath.normpath(candidate)
        found = files.stat(path)
        if found is not None and found.link:
            path = posixpath.normpath(found.target)
            found = files.stat(path)
        if found is not None and found.directory and path != "/":
            directories[path] = None
    return tuple(directories)


def _distributions(files: ImageFiles, directory: str) -> list[PythonDistribution]:
    parent = posixpath.dirname(directory)
    hashes: dict[str, str] = {}
    metadata: dict[str, tuple[str, bytes]] = {}

    def wanted(path: str) -> bool:
        return bool(_DIST_INFO.fullmatch(path) or _DIRECT_URL.fullmatch(path))

    for path, content in files.walk(directory, wanted, cap=_METADATA_CAP):
        direct = _DIRECT_URL.fullmatch(path)
        if direct:
            hashes[f"{parent}/{direct[1]}"] = _archive_hash(content)
            continue
        match = _DIST_INFO.fullmatch(path)
        if match:
            location = f"{parent}/{path.removesuffix('/METADATA').removesuffix('/PKG-INFO')}"
            metadata[location] = (match[1], content)
    found = []
    for location, (stem, content) in metadata.items():
        name, version, license_, spdx = parse_metadata(content, stem)
        found.append(
            PythonDistribution(
                name=name,
                version=version,
                license=license_,
                spdx=spdx,
                location=_path(location),
                sha256=hashes.get(location, ""),
            )
        )
    return found


def _archive_hash(data: bytes) -> str:
    """The SHA-256 in a `direct_url.json` (PEP 610). Its address stays out: it may hold credentials."""
    try:
        document: object = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    archive = document.get("archive_info") if isinstance(document, dict) else None
    hashes = archive.get("hashes") if isinstance(archive, dict) else None
    value = hashes.get("sha256") if isinstance(hashes, dict) else None
    if value is None and isinstance(archive, dict) and isinstance(archive.get("hash"), str):
        # The older form of the same field.
        algorithm, _, value = str(archive["hash"]).partition("=")
        value = value if algorithm == "sha256" else None
    return value if isinstance(value, str) and _HEX.fullmatch(value) else ""


def _path(path: str) -> str:
    """A path as one line of text: a name in an image may be any bytes, and a document of JSON may not."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in path)
    return "".join(shown)[:_PATH_CAP]


def _line(value: object) -> str:
    text = "" if value is None else str(value)
    clean = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(clean.split())
