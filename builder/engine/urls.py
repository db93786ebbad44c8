"""Finds credentials in URLs, and takes them out before anybody reads them."""

from __future__ import annotations

import re
import urllib.parse

SHORTEST_SECRET = 4
"""A shorter value is only masked where it stands in a URL: elsewhere it would match ordinary words."""

# Up to the last "@" before a slash or a space: an unquoted "@" in a password must not end the match early.
_USER_INFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^/\s]*)@")
_QUERY = re.compile(
    r"([?&](?:access_token|api[_-]?key|auth|key|password|secret|sig|signature|token)=)([^&#\s\"']+)", re.I
)


def redact_urls(text: str) -> str:
    """`text` with `***` for the credentials in every URL in it."""
    return _QUERY.sub(r"\1***", _USER_INFO.sub(r"\1***@", text))


def url_secrets(text: str) -> set[str]:
    """The secrets in the URLs of a text, as written and unquoted, without those that are too short to look for."""
    found = {value for _, value in _QUERY.findall(text)}
    for scheme, info in _USER_INFO.findall(text):
        user, _, password = info.partition(":")
        if password:
            found.add(password)
        elif scheme.lower() != "ssh://":
            # A token often stands where the user's name does. A user of ssh is none.
            found.add(user)
    found |= {urllib.parse.unquote(value) for value in found}
    return {value for value in found if len(value) >= SHORTEST_SECRET}
