"""Takes credentials out of URLs before anybody reads them."""

from __future__ import annotations

import re

# Up to the last "@" before a slash or a space: an unquoted "@" in a password must not end the match early.
_USER_INFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s]*@")
_QUERY = re.compile(
    r"([?&](?:access_token|api[_-]?key|auth|key|password|secret|sig|signature|token)=)[^&#\s\"']+", re.I
)


def redact_urls(text: str) -> str:
    """`text` with `***` for the credentials in every URL in it."""
    return _QUERY.sub(r"\1***", _USER_INFO.sub(r"\1***@", text))
