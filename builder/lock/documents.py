"""Lock files as text: one form for one content, a package a line, and strict reading.

A file is JSON. What it holds ends up in requirement files and in shell commands, so every text is matched against
what it may be, and the parts against each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from builder.lock.model import (
    ARCHITECTURE,
    BaseLock,
    DebianRequest,
    EnvironmentLock,
    LockedPackage,
    MadeBase,
    PythonRequest,
)
from builder.lock.reading import LINE, Reader, decoded

PYTHON_FORMAT = "imgbuild-python-lock/1"
"""The `format` of an environment's lock file."""

BASE_FORMAT = "imgbuild-base-lock/1"
"""The `format` of a base's lock file."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PROJECT = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_VERSION = re.compile(r"[0-9][0-9a-z.!+]*")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*")
_DEBIAN = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?")
_DEBIAN_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+:~-]*")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*")


def environment_text(lock: EnvironmentLock) -> str:
    """The content of an environment's lock file: the same for equal locks."""
    packages = (
        f"{_json(name)}: {_json({'version': p.version, 'file': p.file, 'sha256': p.sha256})}"
        for name, p in sorted(lock.packages.items())
    )
    requests = (
        _block(
            {
                "requirements": _json(request.requirements),
                "after": _json(request.after),
                "deps": _json(request.deps),
                "installs": _lines(map(_json, lock.installs[request]), "[]", 6),
            },
            4,
        )
        for request in sorted(lock.installs, key=lambda request: request.order)
    )
    return _document(
        {
            "format": _json(PYTHON_FORMAT),
            "environment": _json(lock.name),
            "architecture": _json(ARCHITECTURE),
            "constraints": _json(lock.constraints),
            "packages": _lines(packages, "{}", 2),
            "requests": _lines(requests, "[]", 2),
        }
    )


def base_text(lock: BaseLock) -> str:
    """The content of a base's lock file: the same for equal locks."""
    made = lock.made
    requests = (
        _block(
            {
                "packages": _json(request.packages),
                "after": _json(request.after),
                "installs": _versions(lock.installs[request], 6),
            },
            4,
        )
        for request in sorted(lock.installs, key=lambda request: request.order)
    )
    return _document(
        {
            "format": _json(BASE_FORMAT),
            "base": _json(lock.name),
            "architecture": _json(ARCHITECTURE),
            "image": _json(lock.image),
            "refreshed": _json(lock.refreshed),
            "digest": _json(lock.digest),
            "why": _json(lock.why),
            "made": "null"
            if made is None
            else _block({"recipe": _json(made.recipe), "packages": _versions(made.packages, 4)}, 2),
            "requests": _lines(requests, "[]", 2),
        }
    )


def parse_environment(data: bytes, where: str, name: str) -> EnvironmentLock:
    """Reads the content of an environment's lock file.

    Args:
        data: the content.
        where: the file, for messages.
        name: the environment that the file's name says.

    Raises:
        ConfigError: it is malformed, or its parts do not fit together.
    """
    top = Reader(decoded(data, where), where)
    top.keys("format", "environment", "architecture", "constraints", "packages", "requests")
    _head(top, PYTHON_FORMAT, "environment", name)
    constraints = top["constraints"].text(LINE)
    if constraints and not _SHA256.fullmatch(constraints):
        top["constraints"].fail("is not a SHA-256 in hexadecimal digits, or empty")
    packages = {key: _package(key, value) for key, value in top["packages"].members(_PROJECT)}
    installs: dict[PythonRequest, tuple[str, ...]] = {}
    for value in top["requests"].items():
        request, names = _python_request(value, packages)
        if request in installs:
            value.fail("is there twice")
        installs[request] = names
    unused = packages.keys() - {name for names in installs.values() for name in names}
    if unused:
        top["packages"][min(unused)].fail("is installed by no request")
    return EnvironmentLock(name=name, constraints=constraints, packages=packages, installs=installs)


def parse_base(data: bytes, where: str, name: str) -> BaseLock:
    """Reads the content of a base's lock file; as `parse_environment`.

    Raises:
        ConfigError: it is malformed, or its parts do not fit together.
    """
    top = Reader(decoded(data, where), where)
    top.keys("format", "base", "architecture", "image", "refreshed", "digest", "why", "made", "requests")
    _head(top, BASE_FORMAT, "base", name)
    digest = None if top["digest"].value is None else top["digest"].text(_DIGEST, "a digest `sha256:…`, or null")
    made = None
    if top["made"].value is not None:
        reader = top["made"]
        reader.keys("recipe", "packages")
        made = MadeBase(
            recipe=reader["recipe"].text(_SHA256, "a SHA-256 in hexadecimal digits"),
            packages=_debian_versions(reader["packages"]),
        )
    installs: dict[DebianRequest, dict[str, str]] = {}
    for value in top["requests"].items():
        request, versions = _debian_request(value)
        if request in installs:
            value.fail("is there twice")
        installs[request] = versions
    return BaseLock(
        name=name,
        image=top["image"].text(LINE),
        refreshed=top["refreshed"].text(_DAY, "a day such as 2026-01-31"),
        digest=digest,
        why=top["why"].text(LINE),
        made=made,
        installs=installs,
    )


def _head(top: Reader, format_: str, kind: str, name: str) -> None:
    """Refuses a file of another format, of something else, or for other machines."""
    top["format"].exactly(format_)
    top[kind].exactly(name)
    if top["architecture"].value != ARCHITECTURE:
        top["architecture"].fail(f"is {_json(top['architecture'].value)}, and imgbuild locks for {ARCHITECTURE} only")


def _package(name: str, reader: Reader) -> LockedPackage:
    from packaging.utils import (
        InvalidSdistFilename,
        InvalidWheelFilename,
        canonicalize_name,
        parse_sdist_filename,
        parse_wheel_filename,
    )
    from packaging.version import InvalidVersion, Version

    reader.keys("version", "file", "sha256")
    text, file = reader["version"].text(_VERSION, "a version"), reader["file"].text(_FILE, "the name of a file")
    try:
        version = Version(text)
        if file.endswith(".whl"):
            project, found = parse_wheel_filename(file)[:2]
        else:
            project, found = parse_sdist_filename(file)
    except (InvalidVersion, InvalidWheelFilename, InvalidSdistFilename) as error:
        reader.fail(str(error))
    if str(version) != text:
        reader["version"].fail(f"{text!r} is not in normal form, which is {str(version)!r}")
    if (canonicalize_name(project), found) != (name, version):
        reader["file"].fail(f"{file!r} is no file of {name} {text}")
    return LockedPackage(
        name=name,
        version=text,
        file=file,
        sha256=reader["sha256"].text(_SHA256, "a SHA-256 in hexadecimal digits"),
    )


def _python_request(reader: Reader, packages: Mapping[str, LockedPackage]) -> tuple[PythonRequest, tuple[str, ...]]:
    reader.keys("requirements", "after", "deps", "installs")
    installs = reader["installs"].texts(_PROJECT, "a normalised project name")
    for place, name in enumerate(installs):
        if name not in packages:
            Reader(name, reader.where, f"{reader.path}.installs[{place}]").fail(f"{name!r} is not among `packages`")
    deps = reader["deps"].value
    if not isinstance(deps, bool):
        reader["deps"].fail("is not true or false")
    request = PythonRequest(
        requirements=reader["requirements"].requirements(), after=reader["after"].requirements(), deps=deps
    )
    return request, installs


def _debian_request(reader: Reader) -> tuple[DebianRequest, dict[str, str]]:
    reader.keys("packages", "after", "installs")
    request = DebianRequest(
        packages=reader["packages"].texts(_DEBIAN, "the name of a package"),
        after=reader["after"].texts(_DEBIAN, "the name of a package"),
    )
    return request, _debian_versions(reader["installs"])


def _debian_versions(reader: Reader) -> dict[str, str]:
    return {name: value.text(_DEBIAN_VERSION, "a version") for name, value in reader.members(_DEBIAN)}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=True)


def _document(fields: Mapping[str, str]) -> str:
    return _block(fields, 0) + "\n"


def _block(fields: Mapping[str, str], indent: int) -> str:
    return _lines((f"{_json(key)}: {value}" for key, value in fields.items()), "{}", indent)


def _versions(versions: Mapping[str, str], indent: int) -> str:
    return _lines((f"{_json(name)}: {_json(version)}" for name, version in sorted(versions.items())), "{}", indent)


def _lines(items: Iterable[str], brackets: str, indent: int) -> str:
    lines = [" " * (indent + 2) + item for item in items]
    return brackets if not lines else brackets[0] + "\n" + ",\n".join(lines) + "\n" + " " * indent + brackets[1]
