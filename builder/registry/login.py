"""Answers a registry's challenge: HTTP Basic, or a token of its token service.

https://distribution.github.io/distribution/spec/auth/token/ and …/spec/auth/oauth/
"""

from __future__ import annotations

import base64
import json
import re
import threading
import urllib.parse
from collections.abc import Mapping
from typing import Protocol

from builder.engine import fields
from builder.engine.auth import Credentials, CredentialSource
from builder.engine.errors import RegistryError
from builder.registry.addresses import askable
from builder.registry.answers import Answer
from builder.registry.patience import BUSY, Busy, retry_after
from builder.registry.transport import loopback

_PARAMETER = re.compile(r'([a-z]+)="([^"]*)"')
_LARGEST = 1 << 20


class Sender(Protocol):
    """One request, as `Transport.send` makes it."""

    def __call__(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, cap: int, deadline: float
    ) -> Answer: ...


class Login:
    """The login of one repository: what to send as `Authorization`, for reading and for writing.

    Args:
        host: the registry's, for messages.
        known_as: what docker's configuration calls it.
        path: the repository's.
        logins: where its login may be found.
        send: makes a request.
    """

    def __init__(self, *, host: str, known_as: str, path: str, logins: CredentialSource, send: Sender) -> None:
        self._host = host
        self._known_as = known_as
        self._path = path
        self._logins = logins
        self._send = send
        self._lock = threading.Lock()
        self._headers: dict[bool, str] = {}

    def header(self, *, write: bool) -> str:
        """What the last challenge was answered with; empty when there was none."""
        with self._lock:
            return self._headers.get(write, "")

    def answer(self, challenges: tuple[str, ...], *, write: bool, deadline: float) -> bool:
        """Answers a challenge, and remembers the answer; False when there is no login for it.

        Raises:
            RegistryError: the login cannot be read, the registry wants another kind of login, or gives no token.
        """
        challenge = next((c for c in challenges if c.partition(" ")[0].lower() in ("bearer", "basic")), None)
        if challenge is None:
            raise self._other_way(challenges)
        login = self._logins.credentials(self._known_as)
        basic = challenge.partition(" ")[0].lower() == "basic"
        header = (_basic(login) if login else "") if basic else self._token(challenge, login, write, deadline)
        with self._lock:
            # A token is for what it was asked for; a password is for everything.
            self._headers |= {True: header, False: header} if basic else {write: header}
        return bool(header)

    def _token(self, challenge: str, login: Credentials | None, write: bool, deadline: float) -> str:
        # Another challenge may stand behind this one in the same line; the first `realm` is this one's.
        given = dict(reversed(_PARAMETER.findall(challenge.partition(" ")[2])))
        realm = given.get("realm", "")
        if not _takes_logins(realm):
            raise self._other_way((challenge,))
        query = {"service": given["service"]} if "service" in given else {}
        query["scope"] = given.get("scope") or f"repository:{self._path}:{'pull,push' if write else 'pull'}"
        headers, body, method, url = {}, None, "GET", realm
        if login and not login.username:
            form = {**query, "grant_type": "refresh_token", "refresh_token": login.secret, "client_id": "imgbuild"}
            method, body = "POST", urllib.parse.urlencode(form).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        else:
            url = f"{realm}{'&' if '?' in realm else '?'}{urllib.parse.urlencode(query)}"
            if login:
                headers["Authorization"] = _basic(login)
        answer = self._send(method, url, headers=headers, body=body, cap=_LARGEST, deadline=deadline)
        if answer.status != 200:
            error = RegistryError(
                f"{self._host} gives no token for {query['scope']}: its token service answers {answer.status}",
                hint=f"docker login {self._known_as}" if answer.status in (400, 401, 403) else "",
            )
            if answer.status in BUSY:
                raise Busy(error, wait=retry_after(answer.headers.get("retry-after", "")))
            raise error
        try:
            document = fields.mapping(json.loads(answer.body))
        except (ValueError, RecursionError):
            document = {}
        token = fields.text(document.get("token")) or fields.text(document.get("access_token"))
        if not token or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise RegistryError(f"{self._host} gives no token for {query['scope']}, but something else")
        return f"Bearer {token}"

    def _other_way(self, challenges: tuple[str, ...]) -> RegistryError:
        said = ", ".join(challenges)[:200]
        return RegistryError(f"{self._host} asks for a login in a way that imgbuild does not take: {said!r}")


def _basic(login: Credentials) -> str:
    return "Basic " + base64.b64encode(f"{login.username}:{login.secret}".encode()).decode()


def _takes_logins(url: str) -> bool:
    """Whether a login may be sent there: over TLS, or to this machine itself."""
    if not askable(url):
        return False
    parts = urllib.parse.urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and loopback(parts.netloc))
