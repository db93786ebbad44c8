"""HTTP between this process and a registry: connections that stay open, proxies, certificates."""

from __future__ import annotations

import functools
import http.client
import io
import ipaddress
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from builder.engine.errors import RegistryError, RegistryUnreachable
from builder.engine.urls import redact_urls
from builder.errors import ConfigError
from builder.registry.answers import Answer
from builder.registry.patience import Busy
from builder.registry.proxies import Proxies

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_SILENCE = 60.0
"""Seconds that a connection may say nothing."""
_PROBE = 5.0
_CHUNK = 1 << 16
_RECORD = 1 << 14
"""Bytes of the largest record of TLS (RFC 8446, 5.1)."""
_IDLE = 8
"""Connections that are kept for later, for each host."""
_DOCKERS_CERTIFICATES = Path("/etc/docker/certs.d")
"""Where the engine looks for the authorities of single registries; what it trusts is trusted here too."""


class Transport:
    """Sends requests, over connections that stay open. Safe to use from several threads.

    Args:
        ca_bundle: certificates to trust beside the system's, and beside those that docker has for the host.
        proxies: which way out leads to which host.
    """

    def __init__(self, *, ca_bundle: Path | None, proxies: Proxies) -> None:
        self._ca_bundle = ca_bundle
        self._proxies = proxies
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = {}
        self._schemes: dict[str, str] = {}

    def scheme(self, host: str) -> str:
        """`https`; for this machine itself, what it speaks: as docker, plain HTTP there and nowhere else."""
        if not loopback(host):
            return "https"
        with self._lock:
            known = self._schemes.get(host)
        if known is None:
            known = "https" if self._speaks_tls(host) else "http"
            with self._lock:
                self._schemes[host] = known
        return known

    def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, cap: int, deadline: float
    ) -> Answer:
        """One request and its answer, whatever its status; redirects are the caller's.

        Args:
            cap: bytes that the answer's body may have.
            deadline: when to give up, on the clock of `time.monotonic`.

        Raises:
            Busy: the connection was reset.
            RegistryUnreachable: nobody answered.
            RegistryError: the certificate is not trusted, or the answer is too large.
        """
        parts = urllib.parse.urlsplit(url)
        origin = (parts.scheme, parts.netloc)
        target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        while True:
            connection = self._take(origin)
            reused = connection.sock is not None
            _set_timeout(connection, _left(deadline, parts.netloc))
            try:
                answer, reusable = _exchange(connection, method, target, headers, body, cap, deadline, parts.netloc)
            except RegistryError:
                connection.close()
                raise
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                # A server closes a connection that it has not been asked over for long: that says nothing of it.
                # Whether it has begun to act upon a write is not known; the caller begins that anew.
                if reused and _is_reset(error):
                    self._forget(origin)
                    if method in ("GET", "HEAD"):
                        continue
                raise _failure(error, parts.netloc) from None
            if reusable:
                self._keep(origin, connection)
            else:
                connection.close()
            return answer

    def close(self) -> None:
        """Closes the connections that wait to be used again."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def _take(self, origin: tuple[str, str]) -> http.client.HTTPConnection:
        with self._lock:
            waiting = self._idle.get(origin)
            if waiting:
                return waiting.pop()
        return self._connection(*origin)

    def _keep(self, origin: tuple[str, str], connection: http.client.HTTPConnection) -> None:
        with self._lock:
            waiting = self._idle.setdefault(origin, [])
            if len(waiting) < _IDLE:
                waiting.append(connection)
                return
        connection.close()

    def _forget(self, origin: tuple[str, str]) -> None:
        with self._lock:
            waiting = self._idle.pop(origin, [])
        for connection in waiting:
            connection.close()

    def _connection(self, scheme: str, netloc: str) -> http.client.HTTPConnection:
        if scheme == "http":
            return http.client.HTTPConnection(netloc)
        context = self._context(netloc)
        proxy = self._proxies.way_to(netloc)
        if proxy is None:
            return http.client.HTTPSConnection(netloc, context=context)
        connection = http.client.HTTPSConnection(proxy.host, proxy.port, context=context)
        parts = urllib.parse.urlsplit(f"//{netloc}")
        connection.set_tunnel(parts.hostname or "", parts.port or 443, dict(proxy.headers))
        return connection

    def _context(self, netloc: str) -> ssl.SSLContext:
        return _context(self._ca_bundle, netloc)

    def _speaks_tls(self, host: str) -> bool:
        parts = urllib.parse.urlsplit(f"//{host}")
        name, port = parts.hostname or "", parts.port or 443
        context = self._context(host)
        try:
            with (
                socket.create_connection((name, port), timeout=_PROBE) as plain,
                context.wrap_socket(plain, server_hostname=name),
            ):
                return True
        except ssl.SSLCertVerificationError:
            # It does; the request itself will say what is wrong with the certificate.
            return True
        except OSError:
            return False


@functools.lru_cache(maxsize=32)
def _context(ca_bundle: Path | None, netloc: str) -> ssl.SSLContext:
    # Reading the system's certificates takes 20 ms, so it is done once for a host.
    context = ssl.create_default_context()
    try:
        for path in sorted((_DOCKERS_CERTIFICATES / netloc).glob("*.crt")):
            context.load_verify_locations(path)
    except (OSError, ssl.SSLError):
        pass  # the engine's own; whether the certificate is trusted then shows itself
    if ca_bundle is not None:
        try:
            context.load_verify_locations(ca_bundle)
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror or str(error)
            raise ConfigError(
                f"the CA bundle cannot be used: {reason}", where=str(ca_bundle), hint="set `ca-bundle` in the site file"
            ) from None
    return context


def _exchange(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes | None,
    cap: int,
    deadline: float,
    host: str,
) -> tuple[Answer, bool]:
    connection.response_class = _response_class(deadline, host)
    whole = True
    try:
        pieces_sent = None if body is None else _in_time(connection, body, deadline, host)
        length = {} if body is None else {"Content-Length": str(len(body))}
        connection.request(method, target, body=pieces_sent, headers={**headers, **length})
    except (BrokenPipeError, ConnectionResetError):
        # A server that refuses a large body answers before it has read it.
        whole = False
        try:
            response = connection.getresponse()
        except (OSError, http.client.HTTPException):
            response = None
        if response is None:
            raise
    else:
        response = connection.getresponse()
    expected = response.length
    pieces, size = [], 0
    while piece := response.read1(_CHUNK):
        size += len(piece)
        if size > cap:
            raise RegistryError(f"{host} answers with more than {cap} bytes, which imgbuild does not take")
        pieces.append(piece)
    if expected is not None and expected != size:
        raise http.client.IncompleteRead(b"", expected - size)
    reusable = whole and not response.will_close
    response.close()
    answer = Answer(
        status=response.status,
        headers=_headers(response),
        body=b"".join(pieces),
        challenges=tuple(response.headers.get_all("WWW-Authenticate") or ()),
    )
    return answer, reusable


def _in_time(connection: http.client.HTTPConnection, body: bytes, deadline: float, host: str) -> Iterator[bytes]:
    """A body in pieces of one TLS record each: the time that is left is set anew for each, so that a server that takes
    them slowly outlasts no deadline."""
    for start in range(0, len(body), _RECORD):
        _set_timeout(connection, _left(deadline, host))
        yield body[start : start + _RECORD]


def _response_class(deadline: float, host: str) -> type[http.client.HTTPResponse]:
    """Answers of which every read, also of the status line and the headers, ends at a deadline: a socket's own timeout
    is for a single piece, and a server can drip one byte at a time."""

    class Response(http.client.HTTPResponse):
        def __init__(
            self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
        ) -> None:
            super().__init__(sock, debuglevel, method, url)
            self.fp.close()
            self.fp = io.BufferedReader(_Timed(sock, lambda: _left(deadline, host)))

    return Response


class _Timed(io.RawIOBase):
    """What comes from a socket; before each read its timeout is what is left."""

    def __init__(self, sock: socket.socket, left: Callable[[], float]) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._left = left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        self._sock.settimeout(self._left())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _headers(response: http.client.HTTPResponse) -> dict[str, str]:
    headers = {name.lower(): value for name, value in response.getheaders()}
    # A list's pages may be linked in several lines.
    links = response.headers.get_all("Link") or ()
    return headers | ({"link": ", ".join(links)} if links else {})


def _set_timeout(connection: http.client.HTTPConnection, seconds: float) -> None:
    connection.timeout = seconds
    if connection.sock is not None:
        connection.sock.settimeout(seconds)


def _left(deadline: float, host: str) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise RegistryUnreachable(f"{host} did not answer in time", cause="timeout")
    return min(left, _SILENCE)


def _is_reset(error: BaseException) -> bool:
    kinds = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, http.client.IncompleteRead)
    return isinstance(error, (*kinds, ssl.SSLEOFError, ssl.SSLZeroReturnError))


def _failure(error: OSError | http.client.HTTPException, host: str) -> Exception:
    """The error for a request that got no answer; `Busy` when another attempt may get one."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return RegistryError(
            f"the certificate of {host} is not trusted: {error.verify_message}",
            hint="add the authority that signed it to the `ca-bundle` of this machine's site file",
        )
    if isinstance(error, TimeoutError):
        return RegistryUnreachable(f"{host} did not answer in time", cause="timeout")
    reason = redact_urls(getattr(error, "strerror", None) or str(error) or type(error).__name__)
    if isinstance(error, http.client.IncompleteRead):
        reason = "the connection broke off in the middle of an answer"
    unreachable = RegistryUnreachable(
        f"{host} is unreachable: {reason}", cause=reason, hint="check its name, the network and the proxy settings"
    )
    return Busy(unreachable) if _is_reset(error) else unreachable


def loopback(host: str) -> bool:
    """Whether a host, with or without a port, is this machine itself."""
    name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
