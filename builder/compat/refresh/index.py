"""What a package index tells of a project: releases, dates, the Pythons and glibc of wheels, and what they require.

It speaks the simple API in its JSON form. A wheel's METADATA comes from beside it where the index offers that, and else
from the wheel itself, of which only the end and that one member are read.
"""

from __future__ import annotations

import base64
import email.parser
import io
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from builder.compat.refresh.raw import specifier_text
from builder.errors import ConfigError

ACCEPT: Final = "application/vnd.pypi.simple.v1+json"
_TIMEOUT_S: Final = 60
_BLOCK: Final = 65_536
_GLIBC_OF: Final = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}

# (URL, extra request headers) → (body, answer's headers in lower case). Raises ConfigError.
Fetch = Callable[[str, Mapping[str, str]], tuple[bytes, Mapping[str, str]]]


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A wheel that Linux on x86_64 can install.

    Attributes:
        pythons: None when it serves every Python.
        stable_abi: the oldest Python of an abi3 wheel, which serves the later ones as well; None for others.
        glibc: None when it holds no binaries.
        metadata_offered: whether the index offers its METADATA beside it.
    """

    filename: str
    url: str
    pythons: frozenset[str] | None
    stable_abi: str | None
    glibc: tuple[int, int] | None
    metadata_offered: bool


@dataclass(frozen=True, kw_only=True)
class IndexRelease:
    """One release as an index shows it: only what is installable, so neither pre-releases nor empty ones."""

    version: str
    date: str | None
    requires_python: str
    yanked: bool
    wheels: tuple[Wheel, ...]

    def pythons(self, known: Collection[str]) -> frozenset[str] | None:
        """Pythons with a wheel, those of `known` for a stable ABI; None when it does not depend on it."""
        from packaging.specifiers import SpecifierSet

        if not self.wheels or any(wheel.pythons is None and wheel.stable_abi is None for wheel in self.wheels):
            return None
        found = set().union(*(wheel.pythons or () for wheel in self.wheels))
        allowed = SpecifierSet(self.requires_python)
        for wheel in self.wheels:
            if wheel.stable_abi is not None:
                oldest = _minor(wheel.stable_abi)
                found |= {python for python in known if _minor(python) >= oldest and f"{python}.0" in allowed}
        return frozenset(found)

    def glibc(self) -> str | None:
        """The glibc that every Python's wheel loads with; None when no wheel holds binaries."""
        tags = [wheel.glibc for wheel in self.wheels if wheel.glibc is not None]
        if len(tags) < len(self.wheels) or not tags:
            return None
        best: dict[object, tuple[int, int]] = {}
        for wheel in self.wheels:
            if wheel.glibc is not None:
                key = wheel.pythons or wheel.stable_abi
                best[key] = min(best.get(key, wheel.glibc), wheel.glibc)
        return "{}.{}".format(*max(best.values()))


def read_project(fetch: Fetch, index_url: str, project: str, *, sources: bool = False) -> dict[str, IndexRelease]:
    """A project's releases by version in normal form, oldest first.

    Args:
        sources: whether releases without a wheel count.

    Raises:
        ConfigError: the index does not answer in its JSON form, or not for this project.
    """
    from packaging.version import InvalidVersion, Version

    url = f"{index_url.rstrip('/')}/{project}/"
    body, headers = fetch(url, {"Accept": ACCEPT})
    if "json" not in headers.get("content-type", ""):
        raise ConfigError("the index does not answer in the JSON form of the simple API", where=url)
    try:
        document = json.loads(body)
        files = [item for item in document["files"] if isinstance(item, dict)]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"the index's answer is not readable: {error}", where=url) from error
    groups: dict[Version, list[Mapping[str, object]]] = {}
    for item in files:
        version = _version_of(_str(item.get("filename")), project)
        try:
            parsed = Version(version) if version else None
        except InvalidVersion:
            parsed = None
        if parsed is not None and not parsed.is_prerelease:
            groups.setdefault(parsed, []).append(item)
    releases = {}
    for parsed in sorted(groups):
        release = _release(str(parsed), groups[parsed], url)
        if release.wheels or sources:
            releases[release.version] = release
    return releases


def _release(version: str, files: Iterable[Mapping[str, object]], base: str) -> IndexRelease:
    wheels, dates, specifiers, withdrawn = [], [], [], []
    for item in files:
        filename = _str(item.get("filename"))
        dates.append(_str(item.get("upload-time"))[:10])
        withdrawn.append(item.get("yanked", False) not in (False, None))
        wheel = _wheel(filename, urllib.parse.urljoin(base, _str(item.get("url"))), item)
        if wheel is not None:
            wheels.append(wheel)
        if wheel is not None or not filename.endswith(".whl"):
            specifiers.append(_specifier(_str(item.get("requires-python"))))
    return IndexRelease(
        version=version,
        date=min(filter(None, dates), default=None),
        requires_python=specifiers[0] if specifiers else "",
        yanked=all(withdrawn),
        wheels=tuple(wheels),
    )


def _wheel(filename: str, url: str, item: Mapping[str, object]) -> Wheel | None:
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    if not filename.endswith(".whl"):
        return None
    try:
        tags = parse_wheel_filename(filename)[3]
    except InvalidWheelFilename:
        return None
    glibcs = [_glibc(tag.platform) for tag in tags]
    if all(glibc is None for glibc in glibcs):
        return None
    pythons, stable_abi, any_python = set(), None, False
    for tag in tags:
        if tag.interpreter.startswith("py3"):
            any_python = True
        elif tag.interpreter.startswith("cp3") and len(tag.interpreter) > 3:
            python = f"3.{tag.interpreter[3:]}"
            if tag.abi == "abi3":
                stable_abi = python
            else:
                pythons.add(f"{python}t" if tag.abi.endswith("t") else python)
    if not (any_python or pythons or stable_abi):
        return None
    binary = [glibc for glibc in glibcs if glibc]
    offered = item.get("core-metadata", item.get("data-dist-info-metadata", False))
    return Wheel(
        filename=filename,
        url=url,
        pythons=None if any_python or stable_abi else frozenset(pythons),
        stable_abi=None if any_python else stable_abi,
        glibc=min(binary) if binary else None,
        metadata_offered=offered not in (False, None),
    )


def _glibc(platform: str) -> tuple[int, int] | tuple[()] | None:
    """The glibc of a platform tag; () for any platform, None for one that is not Linux on x86_64."""
    if platform == "any":
        return ()
    if not platform.endswith("_x86_64"):
        return None
    name = platform.removesuffix("_x86_64")
    if name in _GLIBC_OF:
        return _GLIBC_OF[name]
    parts = name.split("_")
    if parts[0] == "manylinux" and len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
        return int(parts[1]), int(parts[2])
    return None


def requirements(fetch: Fetch, wheel: Wheel) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a wheel requires, as written, and the extras that it offers.

    Raises:
        ConfigError: neither the METADATA beside the wheel nor the one in it can be read.
    """
    if wheel.metadata_offered:
        body, _ = fetch(f"{wheel.url}.metadata", {})
    else:
        body = _metadata_within(fetch, wheel)
    message = email.parser.Parser().parsestr(body.decode("utf-8", "replace"), headersonly=True)
    return tuple(message.get_all("Requires-Dist", ())), tuple(message.get_all("Provides-Extra", ()))


def _metadata_within(fetch: Fetch, wheel: Wheel) -> bytes:
    try:
        with zipfile.ZipFile(_RemoteFile(fetch, wheel.url)) as archive:
            names = [
                name for name in archive.namelist() if name.count("/") == 1 and name.endswith(".dist-info/METADATA")
            ]
            return archive.read(names[0])
    except (zipfile.BadZipFile, IndexError, OSError) as error:
        raise ConfigError(f"METADATA cannot be read from the wheel: {error}", where=wheel.url) from error


class _RemoteFile(io.RawIOBase):
    """A file behind a server that answers byte ranges, read in blocks."""

    def __init__(self, fetch: Fetch, url: str) -> None:
        super().__init__()
        self._fetch = fetch
        self._url = url
        self._at = 0
        self._blocks: dict[int, bytes] = {}
        tail, headers = fetch(url, {"Range": f"bytes=-{_BLOCK}"})
        span, _, total = headers.get("content-range", "").removeprefix("bytes ").partition("/")
        if not total.isdigit():
            raise OSError("the server does not answer byte ranges")
        self._size = int(total)
        self._tail_at = int(span.split("-")[0])
        self._tail = tail

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._at + size, self._size)
        parts = []
        while self._at < end:
            if self._at >= self._tail_at:
                part = self._tail[self._at - self._tail_at : end - self._tail_at]
            else:
                part = self._block(self._at // _BLOCK)[self._at % _BLOCK :][: min(end, self._tail_at) - self._at]
            if not part:
                raise OSError("the server's answer is shorter than the file")
            parts.append(part)
            self._at += len(part)
        return b"".join(parts)

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            first = number * _BLOCK
            last = min(first + _BLOCK, self._size) - 1
            self._blocks[number], _ = self._fetch(self._url, {"Range": f"bytes={first}-{last}"})
        return self._blocks[number]


def fetch_with(context: ssl.SSLContext | None) -> Fetch:
    """A `Fetch` over HTTP, with the proxies of the environment.

    Args:
        context: the authorities to trust; None for the system's.
    """

    def fetch(url: str, headers: Mapping[str, str]) -> tuple[bytes, Mapping[str, str]]:
        plain, authorization = _without_credentials(url)
        request = urllib.request.Request(plain, headers={**headers, **authorization})
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=context) as answer:
                return answer.read(), {name.lower(): value for name, value in answer.headers.items()}
        except urllib.error.HTTPError as error:
            raise ConfigError(f"the index answers {error.code} {error.reason}", where=url) from error
        except (urllib.error.URLError, TimeoutError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise ConfigError(f"the index cannot be reached: {reason}", where=url) from error

    return fetch


def _without_credentials(url: str) -> tuple[str, dict[str, str]]:
    """A URL without its user and password, and the header that says them; urllib does not do that by itself."""
    parts = urllib.parse.urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    token = base64.b64encode(urllib.parse.unquote(user).encode()).decode()
    return urllib.parse.urlunsplit(parts._replace(netloc=host)), {"Authorization": f"Basic {token}"}


def _specifier(text: str) -> str:
    """Requires-Python in one order of its clauses; empty for what is none."""
    from packaging.specifiers import InvalidSpecifier

    try:
        return specifier_text(text)
    except InvalidSpecifier:
        return ""


def _version_of(filename: str, project: str) -> str:
    """The version in a file's name; empty for a file of another form."""
    if filename.endswith(".whl"):
        parts = filename.split("-")
        return parts[1] if len(parts) >= 5 else ""
    for suffix in (".tar.gz", ".zip", ".tar.bz2"):
        if filename.endswith(suffix):
            stem = filename.removesuffix(suffix)
            return stem.rpartition("-")[2]
    return ""


def _minor(python: str) -> int:
    return int(python.split(".")[1].removesuffix("t"))


def _str(value: object) -> str:
    return value if isinstance(value, str) else ""
