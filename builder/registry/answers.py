"""What a registry answers, and what its errors mean.

https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#error-codes
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from builder.engine import fields
from builder.engine.errors import RegistryError

_LONGEST = 300


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer; the names of its headers are in lower case. `challenges` are those of a 401."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    challenges: tuple[str, ...] = ()


class RegistryRefused(RegistryError):
    """A registry answered a request with an error.

    Args:
        status: the answer's HTTP status.
        codes: the registry's own names of it, such as `DIGEST_INVALID`.
    """

    def __init__(self, message: str, *, status: int, codes: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.codes = codes


def refusal(answer: Answer, *, host: str, verb: str, what: str, login: str) -> RegistryRefused:
    """The error for an answer with an error status.

    Args:
        host: who answered.
        verb: `read` or `write`.
        what: the repository and the thing in it.
        login: the command that mends a missing login.
    """
    errors = [fields.mapping(item) for item in fields.sequence(_object(answer.body).get("errors"))]
    codes = tuple(code for error in errors if (code := fields.text(error.get("code"))))
    said = "; ".join(f"{fields.text(e.get('code'))}: {fields.text(e.get('message'))}" for e in errors)
    if not said:
        said = answer.body[:_LONGEST].decode(errors="replace")
    said = " ".join("".join(c if c.isprintable() else " " for c in said).split())[:_LONGEST]
    hint = {
        401: login,
        403: f"{login}, with an account that may {verb} it",
        413: "the registry, or a proxy before it, limits the size of what it takes",
        429: "the registry limits how often it is asked; try again later",
    }.get(answer.status, "")
    return RegistryRefused(
        f"{host} refuses to {verb} {what}: {answer.status} {said}".rstrip(),
        status=answer.status,
        codes=codes,
        hint=hint,
    )


def media_type(answer: Answer) -> str:
    """What the header says, without parameters; what the document says where the header says nothing of use."""
    said = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return said if said.startswith("application/vnd.") else fields.text(_object(answer.body).get("mediaType")) or said


def decoded(answer: Answer) -> Mapping[str, object]:
    """The JSON object in an answer.

    Raises:
        RegistryError: it is none.
    """
    found = _object(answer.body)
    if not found:
        raise RegistryError("a registry's list is no JSON object")
    return found


def _object(body: bytes) -> Mapping[str, object]:
    try:
        return fields.mapping(json.loads(body))
    except (ValueError, RecursionError):
        return {}
