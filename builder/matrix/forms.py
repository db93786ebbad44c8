"""The strict forms of the texts in `matrix.yaml`.

Every text has a strict form, because these values become parts of Dockerfiles, image references,
paths and command lines: none admits quotes, `$`, backticks, line breaks or `..`, and none begins
with `-`. Only a `reason`, which is never rendered, is free text.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from packaging.version import InvalidVersion, Version

from builder.matrix.schema import Text

VERIFIED_SUFFIX: Final = "-verified"
CANDIDATE_PREFIX: Final = "candidate-"
# The limit of the OCI distribution specification, less room for the suffix of verified images.
TAG_LIMIT: Final = 128 - len(VERIFIED_SUFFIX)
# The value of `facts` for a framework that is in no table.
NO_FACTS: Final = "none"
TAG_PLACEHOLDERS: Final = ("framework", "version", "cuda", "python", "interpreter", "base", "extras")
PATH_PLACEHOLDERS: Final = ("framework", "version", "cuda", "python")

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"[a-z0-9]+(?:[.-][a-z0-9]+)*"
_REPOSITORY = rf"(?:{_HOST}:[0-9]{{1,5}}/)?{_COMPONENT}(?:/{_COMPONENT})*"
_NO_DOTS = r"(?!.*\.\.)"
_TAG = rf"{_NO_DOTS}[A-Za-z0-9_][A-Za-z0-9_.-]*"
_NAME = r"[a-z0-9]+(?:[._-][a-z0-9]+)*"
# The normal form of PEP 440 without epoch and local part, neither of which fits into a tag.
_INT = r"(?:0|[1-9][0-9]*)"
_VERSION = rf"{_INT}(?:\.{_INT})*(?:(?:a|b|rc){_INT})?(?:\.post{_INT})?(?:\.dev{_INT})?"


def _placeholder(names: tuple[str, ...]) -> str:
    return rf"\{{(?:{'|'.join(names)})\}}"


def _path(names: tuple[str, ...] = ()) -> str:
    """Relative, below one directory: no part is empty, hidden or `..`."""
    unit = rf"(?:[A-Za-z0-9_]|{_placeholder(names)})+" if names else "[A-Za-z0-9_]+"
    part = rf"{unit}(?:[.-]{unit})*"
    return rf"{part}(?:/{part})*"


def explain_version(text: str) -> str:
    """A hint for a text that is not a version in normal form."""
    try:
        version = Version(text)
    except InvalidVersion:
        if text.endswith(".*") or text[:1] in "<>~!=,":
            return "name one exact version, for example `2.13.0`; the axis takes several"
        return "for example `2.13.0`"
    if version.epoch:
        return "an epoch does not fit into a tag; for example `2.13.0`"
    if version.local is not None:
        return f"write `{version.public}`; the local part follows from `cuda` and its channel"
    return f"write `{version}`"


def _explain_requirement(text: str) -> str:
    name, separator, version = text.partition("==")
    if separator and re.fullmatch(_NAME, name):
        return explain_version(version)
    return "write it as `<name>==<exact version>`, for example `torch==2.13.0`"


def _explain_image(text: str) -> str:
    if "@" in text:
        return "write the digest under `digest`, and here the name and tag"
    if ":" not in text:
        return f"add the tag, for example `{text.lower()}:bookworm-slim`"
    return "for example `debian:bookworm-slim`"


def _explain_cuda(text: str) -> str:
    return _misread(text, "cuda") or "for example `cpu` or `13.0`"


def _explain_python(text: str) -> str:
    if re.fullmatch(r"3\.[0-9]+t", text):
        return f"free-threaded builds cannot be named here; for example `{text[:-1]}`"
    return _misread(text, "python") or "for example `3.11`"


_UNITS: Final = {"MB": 10**6, "GB": 10**9}


def size_bytes(text: str) -> int:
    """The bytes of a text of the form `SIZE`, in decimal units as `docker images` has them: `1.2 GB` is 1.2e9."""
    number, _, unit = text.partition(" ")
    return int(Decimal(number) * _UNITS[unit])


def _explain_size(text: str) -> str:
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kKmMgGtT]?)(i?)[bB]?\s*", text)
    if match and match[3]:
        return "units are decimal, as `docker images` prints them; for example `1200 MB` or `1.2 GB`"
    written = f"{match[1]} {match[2].upper()}B" if match else ""
    return f"write `{written}`" if SIZE.matches(written) else "for example `1200 MB` or `1.2 GB`"


def _misread(text: str, what: str) -> str:
    """What `imgbuild explain` says of the same text; empty when that takes it."""
    from builder.compat import ask

    try:
        (ask.cuda_version if what == "cuda" else ask.python_version)(text)
    except ask.Misread as error:
        return error.hint
    return ""


NAME: Final = Text(noun="a lower-case name", pattern=_NAME, example="torch", limit=40)
REPOSITORY: Final = Text(noun="an image repository in lower case", pattern=_REPOSITORY, example="imgbuild", limit=200)
IMAGE: Final = Text(
    noun="an image's name and tag",
    pattern=rf"{_REPOSITORY}:{_TAG}",
    example="debian:bookworm-slim",
    limit=255,
    explain=_explain_image,
)
LEAF: Final = Text(noun="one component of an image repository", pattern=_COMPONENT, example="pytorch", limit=40)
DIGEST: Final = Text(noun="a sha256 digest", pattern=r"sha256:[0-9a-f]{64}", example="sha256:" + "0123456789abcdef" * 4)
VERSION: Final = Text(
    noun="a version in PEP 440's normal form, without epoch and local part",
    pattern=_VERSION,
    example="0.28.1",
    limit=40,
    explain=explain_version,
)
REQUIREMENT: Final = Text(
    noun="a name, `==` and an exact version",
    pattern=rf"{_NAME}=={_VERSION}",
    example="torch==2.13.0",
    limit=82,
    explain=_explain_requirement,
)
CUDA: Final = Text(
    noun="`cpu` or a CUDA version",
    pattern=r"cpu|[1-9][0-9]?\.(?:0|[1-9][0-9]?)",
    example="13.0",
    explain=_explain_cuda,
)
PYTHON: Final = Text(
    noun="a Python version of the form 3.N",
    pattern=r"3\.(?:0|[1-9][0-9]?)",
    example="3.11",
    explain=_explain_python,
)
TEMPLATE: Final = Text(
    noun="a relative path inside `dockerfiles/`",
    pattern=_path(),
    example="pytorch.Dockerfile.j2",
    limit=200,
)
CONSTRAINTS: Final = Text(
    noun="a relative path inside `dockerfiles/`, with placeholders",
    pattern=_path(PATH_PLACEHOLDERS),
    example="constraints/torch-{version}-py{python}.txt",
    limit=200,
    placeholders=PATH_PLACEHOLDERS,
)
URL: Final = Text(
    noun="an https URL without credentials, query or `..`",
    pattern=rf"{_NO_DOTS}https://{_HOST}(?::[0-9]{{1,5}})?(?:/(?!\.)[A-Za-z0-9_~+.-]+)*/?",
    example="https://wheels.example.org/cpu",
    limit=500,
)
PACKAGE: Final = Text(
    noun="the name of a Python package",
    pattern=r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*",
    example="distributed",
)
SYSTEM_PACKAGE: Final = Text(
    noun="the name of a distribution's package",
    pattern=rf"{_NO_DOTS}[a-z0-9][a-z0-9+.-]+",
    example="ca-certificates",
)
GLOB: Final = Text(
    noun="a glob over cell ids",
    pattern=rf"{_NO_DOTS}[A-Za-z0-9_*?\[][A-Za-z0-9._*?!\[\]-]*",
    example="torch-*-cpu-*",
    limit=255,
)
VALUE_GLOB: Final = Text(
    noun="a glob over an axis's values",
    pattern=rf"{_NO_DOTS}[A-Za-z0-9_*?\[][A-Za-z0-9._=*?!\[\]-]*",
    example="torch==2.*",
)
TAG_TEMPLATE: Final = Text(
    noun="a tag with placeholders",
    pattern=rf"{_NO_DOTS}(?:[A-Za-z0-9_]|{_placeholder(TAG_PLACEHOLDERS)})"
    rf"(?:[A-Za-z0-9_.-]|{_placeholder(TAG_PLACEHOLDERS)})*",
    example="{version}-{cuda}-py{python}{extras}",
    limit=255,
    placeholders=TAG_PLACEHOLDERS,
)
TAG: Final = Text(
    noun="an image tag that neither begins with `candidate-` nor ends in `-verified`",
    pattern=rf"(?!{CANDIDATE_PREFIX}|.*{VERIFIED_SUFFIX}$){_TAG}",
    example="latest",
    limit=TAG_LIMIT,
)
SIZE: Final = Text(
    noun="a size in MB or GB",
    pattern=r"(?=.*[1-9])(?:0|[1-9][0-9]{0,5})(?:\.[0-9]{1,3})? [MG]B",
    example="1.2 GB",
    limit=20,
    explain=_explain_size,
)
REASON: Final = Text(noun="one line of text", pattern=r"\S(?:.*\S)?", example="no wheel exists", limit=300)
