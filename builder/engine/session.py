"""A BuildKit session: what an engine may ask of this process while it builds.

The engine asks for files of the context and for Dockerfiles, for secrets and for registry logins. It does so over a
connection that this process opens and hands over; on it the engine is the client. One session serves any number of
builds at once, and should: the engine then takes what they share once.
"""

from __future__ import annotations

import hashlib
import socket
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from builder.engine import wire
from builder.engine.auth import CredentialSource
from builder.engine.errors import ContextError, EngineUnavailable
from builder.engine.filesync import Counters, FileSync, SyncRequest
from builder.engine.h2server import NOT_FOUND, Call, Metadata, RpcError, Server, Unary
from builder.engine.hijack import take_over
from builder.engine.redact import Redactor
from builder.engine.tree import FileTree

if TYPE_CHECKING:
    from builder.engine.connection import Engine

SecretValue = bytes | Callable[[], bytes]
"""A secret, or what gets it when a build first asks for it. A call must not take long: the session waits for it."""

LARGEST_SECRET = 500 * 1024
"""BuildKit's own limit, in bytes."""

_HEALTH = "/grpc.health.v1.Health/Check"
_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
_CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
_DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"


class Session:
    """An open session; close it, or use it as a context manager.

    Attributes:
        id: what builds refer to it by.
        dockerfiles: the tree of Dockerfiles that it serves.
        sent: what was sent of the context.
        redact: masks the values of this session's secrets in a text.
    """

    def __init__(
        self,
        *,
        context: FileTree,
        dockerfiles: FileTree,
        secrets: Mapping[str, SecretValue],
        credentials: CredentialSource | None,
    ) -> None:
        self.id = uuid.uuid4().hex
        self.dockerfiles = dockerfiles
        self.sent = Counters()
        self.redact = Redactor()
        self._trees = {"context": (context, self.sent), "dockerfile": (dockerfiles, Counters())}
        self._secrets = dict(secrets)
        self._credentials = credentials
        self._lock = threading.Lock()
        self._errors: list[Exception] = []
        self._server: Server | None = None
        self._close_connection: Callable[[], None] | None = None
        for value in secrets.values():
            if isinstance(value, bytes):
                self.redact.learn(value)

    @classmethod
    def open(
        cls,
        engine: Engine,
        *,
        context: FileTree,
        dockerfiles: FileTree,
        secrets: Mapping[str, SecretValue] | None = None,
        credentials: CredentialSource | None = None,
        shared_key: str,
        name: str = "imgbuild",
    ) -> Session:
        """Opens a session on an engine.

        Args:
            context: the context of every build of this session.
            dockerfiles: the Dockerfiles, and `<Dockerfile>.dockerignore` files, of its builds.
            secrets: by their id. One that is not there is no error where a step says `required=false`.
            credentials: registry logins for `FROM`; None for none.
            shared_key: what the engine keeps the context under between sessions; see `shared_key_for`.
            name: how the engine's logs call this session.

        Raises:
            ContextError: a secret is larger than BuildKit allows.
            EngineError: the engine has no sessions, or does not answer.
        """
        for key, value in (secrets or {}).items():
            if isinstance(value, bytes) and len(value) > LARGEST_SECRET:
                raise _too_large(key)
        session = cls(
            context=context,
            dockerfiles=dockerfiles,
            secrets=secrets or {},
            credentials=credentials,
        )
        session._connect(engine, shared_key, name)
        return session

    def _connect(self, engine: Engine, shared_key: str, name: str) -> None:
        methods: dict[str, Callable[[Metadata], Call]] = {
            _HEALTH: lambda _: Unary(_serving),
            _SECRET: lambda _: Unary(self._secret),
            _CREDENTIALS: lambda _: Unary(self._login),
            _DIFF_COPY: self._diff_copy,
        }
        headers = [
            ("Connection", "Upgrade"),
            ("Upgrade", "h2c"),
            ("X-Docker-Expose-Session-Uuid", self.id),
            ("X-Docker-Expose-Session-Name", name),
            ("X-Docker-Expose-Session-Sharedkey", shared_key),
            *(("X-Docker-Expose-Session-Grpc-Method", method) for method in methods),
        ]
        connection = take_over(engine, "/session", headers, doing="open a build session")
        self._close_connection = connection.close
        self._server = Server(connection.source, connection.sink, methods, self._note)
        self._server.start()

    @property
    def is_open(self) -> bool:
        """Whether the engine can still ask something of it."""
        return self._server is not None and self._server.running

    @property
    def errors(self) -> tuple[Exception, ...]:
        """What went wrong on this side while it served, oldest first. The engine only learns of a status."""
        with self._lock:
            return tuple(self._errors)

    def close(self) -> None:
        """Ends the session. Builds that still use it fail."""
        if self._server is not None:
            self._server.close()
        if self._close_connection is not None:
            self._close_connection()
            self._close_connection = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _note(self, error: Exception) -> None:
        if isinstance(error, OSError):
            error = EngineUnavailable(f"the connection of the build session broke: {error}")
        with self._lock:
            self._errors.append(error)

    def _diff_copy(self, metadata: Metadata) -> Call:
        request = SyncRequest.parse(metadata)
        if request.directory not in self._trees:
            raise RpcError(NOT_FOUND, f"there is no directory {request.directory!r} here")
        tree, counters = self._trees[request.directory]
        return FileSync(tree, request, counters)

    def _secret(self, message: bytes) -> bytes:
        key = _first_text(message)
        if key not in self._secrets:
            # BuildKit goes on without it where the step says required=false.
            raise RpcError(NOT_FOUND, f"there is no secret {key!r}")
        value = self._secrets[key]
        if not isinstance(value, bytes):
            value = value()
            if len(value) > LARGEST_SECRET:
                raise _too_large(key)
            self.redact.learn(value)
            self._secrets[key] = value
        return wire.data(1, value)

    def _login(self, message: bytes) -> bytes:
        host = _first_text(message)
        found = self._credentials.credentials(host) if self._credentials is not None else None
        if found is None:
            return b""
        self.redact.learn(found.secret.encode())
        return wire.data(1, found.username.encode()) + wire.data(2, found.secret.encode())


def shared_key_for(directory: Path) -> str:
    """The shared key for a context that is made from a directory: stable for it, and different for others.

    The engine keeps one copy of the context for each key, and sends for the differences only.
    """
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        machine = ""
    # Containers made from one image may share a machine id, or have none.
    parts = (machine, socket.gethostname(), str(directory.resolve()))
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _too_large(key: str) -> ContextError:
    return ContextError(
        f"the secret {key!r} is larger than {LARGEST_SECRET // 1024} kB, which is BuildKit's limit",
        hint="give larger inputs as files of the context, bind-mounted from it",
    )


def _serving(_: bytes) -> bytes:
    return wire.integer(1, 1)


def _first_text(message: bytes) -> str:
    for number, value in wire.fields(message):
        if number == 1:
            return wire.text(value)
    return ""
