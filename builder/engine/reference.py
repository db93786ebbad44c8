"""Names of images: parsing and refusing them before an engine sees them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*(?::\d{1,5})?"
)
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LONGEST_REPOSITORY = 255


class InvalidReference(ValueError):
    """A text that names no image."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The name of an image: `repository[:tag][@digest]`.

    Attributes:
        repository: `[host[:port]/]path`, at most 255 characters; the path is lower case.
        tag: at most 128 characters; empty for none.
        digest: `sha256:` and 64 hexadecimal digits; empty for none.

    Raises:
        InvalidReference: a part is malformed.
    """

    repository: str
    tag: str = ""
    digest: str = ""

    def __post_init__(self) -> None:
        _check_repository(self.repository)
        if self.tag and (not _TAG.fullmatch(self.tag) or ".." in self.tag):
            raise InvalidReference(
                f"{self.tag!r} is no tag: write at most 128 letters, digits, '_', '.' and '-', not starting with "
                "'.' or '-', and without '..'"
            )
        if self.digest and not _DIGEST.fullmatch(self.digest):
            raise InvalidReference(f"{self.digest!r} is no digest: write 'sha256:' and 64 hexadecimal digits")

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Reads `repository[:tag][@digest]`; raises InvalidReference."""
        name, at, digest = text.partition("@")
        if at and not digest:
            raise InvalidReference(f"{text!r} ends where a digest is expected")
        # A colon before the last slash belongs to a port.
        head, colon, tag = name.rpartition(":")
        if not colon or "/" in tag:
            head, tag = name, ""
        elif not tag:
            raise InvalidReference(f"{text!r} ends where a tag is expected")
        return cls(repository=head, tag=tag, digest=digest)

    @property
    def host(self) -> str:
        """The registry's host and port; empty for the default registry."""
        first, slash, _ = self.repository.partition("/")
        return first if slash and _is_host(first) else ""

    def __str__(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def _is_host(component: str) -> bool:
    return "." in component or ":" in component or component == "localhost"


def _check_repository(repository: str) -> None:
    if len(repository) > _LONGEST_REPOSITORY:
        raise InvalidReference(
            f"a repository's name has at most {_LONGEST_REPOSITORY} characters, not {len(repository)}"
        )
    components = repository.split("/")
    if len(components) > 1 and _is_host(components[0]):
        host = components.pop(0)
        if not _HOST.fullmatch(host):
            raise InvalidReference(f"{host!r} in {repository!r} is no registry's host")
    for component in components:
        if not _COMPONENT.fullmatch(component):
            raise InvalidReference(
                f"{component!r} in {repository!r} is no part of a repository's name: write lower-case letters and "
                "digits, separated by '.', '_', '__' or '-'"
            )
