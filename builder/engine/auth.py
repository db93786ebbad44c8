"""Registry logins, as `docker login` left them: docker's config.json and its credential helpers."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from builder.engine.errors import RegistryError

if TYPE_CHECKING:
    from docker.auth import AuthConfig

DOCKER_HUB = "docker.io"
_DOCKER_HUB_NAMES = {DOCKER_HUB, "index.docker.io", "registry-1.docker.io"}


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """A login.

    Attributes:
        username: empty when `secret` is an identity token.
        secret: a password, or an identity (refresh) token. Never printed, also not by repr.
    """

    username: str
    secret: str

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, secret=***)"


class CredentialSource(Protocol):
    """Where a session finds the login for a registry."""

    def credentials(self, host: str) -> Credentials | None:
        """The login for a registry such as `registry.example.com:5000`; None to use it without.

        Raises:
            RegistryError: the login is kept somewhere that cannot be read.
        """
        ...


_PATIENCE = 60.0
"""Seconds that a credential helper gets; it may ask somebody to unlock a keychain."""


class DockerLogins:
    """The logins in docker's configuration, read when first asked for.

    Args:
        config: docker's config.json; None for the one that the docker command uses.
        environ: the environment, for DOCKER_CONFIG and HOME.
    """

    def __init__(self, config: Path | None = None, *, environ: Mapping[str, str] = os.environ) -> None:
        self._path = config or _default_config(environ)
        self._loaded: AuthConfig | None = None

    def credentials(self, host: str) -> Credentials | None:
        """See `CredentialSource.credentials`. Asking a credential helper runs it, every time."""
        from docker.errors import DockerException

        name = DOCKER_HUB if host in _DOCKER_HUB_NAMES else host
        try:
            found = _in_time(lambda: self._load().resolve_authconfig(name))
        except TimeoutError as error:
            raise RegistryError(
                f"cannot get the login for {host}: its credential helper did not answer in {_PATIENCE:g} s",
                hint=f"check credsStore and credHelpers in {self._path}; it may wait for a password",
            ) from error
        except DockerException as error:
            raise RegistryError(
                f"cannot get the login for {host}: {error}",
                hint=f"check credsStore and credHelpers in {self._path}, or: docker login {host}",
            ) from error
        except ValueError as error:
            # The decoder's message would show what it decoded.
            raise RegistryError(f"{self._path} holds an invalid login for {host}") from error
        if not isinstance(found, dict):
            return None
        # docker-py spells the keys in lower case for logins in the file, and not for those of helpers.
        entry = {str(k).lower(): v for k, v in found.items() if isinstance(v, str)}
        if entry.get("identitytoken"):
            return Credentials(username="", secret=entry["identitytoken"])
        if entry.get("username") or entry.get("password"):
            return Credentials(username=entry.get("username", ""), secret=entry.get("password", ""))
        return None

    def _load(self) -> AuthConfig:
        from docker.auth import AuthConfig
        from docker.errors import InvalidConfigFile

        if self._loaded is None:
            content = _read(self._path)
            # With an empty mapping docker-py would look for the file itself, in other places too.
            sections: dict[str, object] = {"auths": {}}
            for name in ("auths", "credsStore", "credHelpers"):
                if content.get(name):
                    sections[name] = content[name]
            try:
                self._loaded = AuthConfig.load_config(None, sections)
            except (InvalidConfigFile, ValueError, AttributeError) as error:
                raise RegistryError(
                    f"{self._path} holds logins that cannot be read", hint="docker login REGISTRY"
                ) from error
        return self._loaded


def _in_time(ask: Callable[[], object]) -> object:
    """What `ask` returns or raises. Raises TimeoutError after `_PATIENCE`.

    docker-py runs a helper without a limit, and from its thread nothing can end it; it is left to itself.
    """
    answer: Future[object] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except Exception as error:  # noqa: BLE001  (every error of the thread is the caller's)
            answer.set_exception(error)

    threading.Thread(target=run, name="credential-helper", daemon=True).start()
    try:
        return answer.result(_PATIENCE)
    except FutureTimeout:
        # In Python 3.10 this is not the builtin.
        raise TimeoutError from None


def _default_config(environ: Mapping[str, str]) -> Path:
    directory = environ.get("DOCKER_CONFIG")
    home = environ.get("HOME")
    base = Path(directory) if directory else (Path(home) if home else Path.home()) / ".docker"
    return base / "config.json"


def _read(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise RegistryError(f"docker's configuration {path} cannot be read: {reason}") from None
    if not isinstance(content, dict):
        raise RegistryError(f"docker's configuration {path} is no JSON object")
    return content
