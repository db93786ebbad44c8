"""pylock.toml (PEP 751), as far as uv writes it for one platform."""

from __future__ import annotations

import importlib
import sys
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from builder.errors import NotLocked


@dataclass(frozen=True, kw_only=True)
class ReleaseFile:
    """A file of a release.

    Attributes:
        name: of the file.
        url: where it is.
        sha256: where one is known.
        disputed: another one that a further index gives for a file of this name; None when all agree.
    """

    name: str
    url: str
    sha256: str | None
    disputed: str | None = None


@dataclass(frozen=True, kw_only=True)
class Release:
    """A version that was chosen, and its files that could be installed on the target."""

    name: str
    version: str
    files: tuple[ReleaseFile, ...]


def pylock_of(versions: Mapping[str, str]) -> str:
    """A lock that says no more than versions by name: enough for uv to prefer them."""
    packages = "".join(
        f'\n[[packages]]\nname = "{name}"\nversion = "{version}"\n' for name, version in sorted(versions.items())
    )
    return f'lock-version = "1.0"\ncreated-by = "imgbuild"\n{packages}'


def read_pylock(text: str) -> tuple[Release, ...]:
    """Reads what uv writes as pylock.toml (PEP 751), field by field.

    Raises:
        NotLocked: it is not what it should be.
    """
    # Python 3.10 has no parser of its own.
    parser = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        document: object = parser.loads(text)
    except ValueError as error:
        raise NotLocked(f"uv wrote what is not TOML: {error}") from None
    return tuple(_release(entry) for entry in _tables(_table(document).get("packages", [])))


def _release(entry: Mapping[str, object]) -> Release:
    name, version = entry.get("name"), entry.get("version")
    if not isinstance(name, str) or not isinstance(version, str):
        # A directory, an archive or a repository: a lock could not say what it holds.
        raise NotLocked(f"{name} has no version", hint="ask for it as NAME or NAME==VERSION, not as a URL")
    files = [_file(file) for file in _tables(entry.get("wheels", []))]
    if "sdist" in entry:
        files.append(_file(_table(entry["sdist"])))
    return Release(name=canonical(name), version=version, files=tuple(files))


def _file(entry: Mapping[str, object]) -> ReleaseFile:
    url, hashes = entry.get("url", entry.get("path")), _table(entry.get("hashes", {}))
    if not isinstance(url, str):
        raise NotLocked("uv names a file without an address")
    path = urllib.parse.urlsplit(url).path if "://" in url else url
    name, sha256 = entry.get("name"), hashes.get("sha256")
    return ReleaseFile(
        name=name if isinstance(name, str) else urllib.parse.unquote(PurePosixPath(path).name),
        url=url,
        sha256=sha256 if isinstance(sha256, str) else None,
    )


def _table(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise NotLocked("uv wrote a lock of another form than PEP 751's")
    return {key: member for key, member in value.items() if isinstance(key, str)}


def _tables(value: object) -> list[dict[str, object]]:
    if not isinstance(value, list):
        raise NotLocked("uv wrote a lock of another form than PEP 751's")
    return [_table(member) for member in value]


def canonical(name: str) -> str:
    """A project's name in normal form (PEP 503)."""
    from packaging.utils import canonicalize_name

    return str(canonicalize_name(name))
