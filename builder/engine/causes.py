"""Turns what went wrong in a call to an engine into one sentence, with the command that mends it."""

from __future__ import annotations

import errno
import re

from builder.engine.address import Address
from builder.engine.errors import DiskFull, EngineRefused, EngineUnavailable

PRUNE = "free space with: docker image prune; docker builder prune; where that frees nothing, restart the engine"
"""What mends a full disk. Of a transfer that the disk cut short, the engine knows nothing that it could prune; it
removes what is left of it when it starts."""

_NO_SPACE = re.compile(r"no space left on device|\[Errno 28\]|disk quota exceeded", re.IGNORECASE)


def no_space(message: str) -> bool:
    """Whether a message, of the engine or of a step's program, says that a file system is full."""
    return _NO_SPACE.search(message) is not None


def refusal(status: int, message: str, doing: str) -> EngineRefused | DiskFull:
    """The error for an answer with an error status, or for an error in a stream (status 500)."""
    if no_space(message):
        return DiskFull(f"cannot {doing}: the engine's disk is full ({message})", hint=PRUNE)
    return EngineRefused(f"cannot {doing}: {message} (HTTP {status})", status=status)


def unreachable(error: BaseException, address: Address, doing: str) -> EngineUnavailable:
    """The error for a call that got no answer, with the command that mends its cause."""
    import requests

    where = f"{address.url} (from {address.origin})"
    cause = _system_cause(error)
    local = address.socket_path is not None
    if isinstance(cause, PermissionError):
        return EngineUnavailable(
            f"cannot {doing}: no permission on {where}",
            hint="sudo usermod -aG docker $USER && newgrp docker",
        )
    if isinstance(cause, FileNotFoundError):
        return EngineUnavailable(
            f"cannot {doing}: there is no socket at {where}; Docker is not installed or not running",
            hint="sudo systemctl start docker   (or, without Docker: sudo apt-get install docker.io)",
        )
    if isinstance(cause, ConnectionRefusedError):
        return EngineUnavailable(
            f"cannot {doing}: nothing listens at {where}",
            hint="sudo systemctl start docker" if local else "docker -H tcp://HOST:PORT version",
        )
    if isinstance(error, requests.Timeout) or isinstance(cause, TimeoutError):
        return EngineUnavailable(
            f"cannot {doing}: {where} did not answer in time",
            hint="sudo systemctl restart docker" if local else "check the network and the address",
        )
    if isinstance(error, requests.exceptions.SSLError):
        return EngineUnavailable(
            f"cannot {doing}: {where} and its certificate do not match the ones in {address.certificates}: {error}",
            hint="set DOCKER_CERT_PATH to the directory with the engine's ca.pem, cert.pem and key.pem",
        )
    if cause is not None and cause.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return EngineUnavailable(f"cannot {doing}: {where} cannot be reached over the network")
    return EngineUnavailable(
        f"cannot {doing}: the connection to {where} broke: {error}",
        hint="docker version",
    )


def _system_cause(error: BaseException) -> OSError | None:
    """The operating system's error at the bottom of requests' and urllib3's own."""
    seen: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        item = queue.pop(0)
        if not isinstance(item, BaseException) or any(item is other for other in seen):
            continue
        seen.append(item)
        # requests' errors are OSErrors too, but carry no errno.
        if isinstance(item, OSError) and item.errno is not None:
            return item
        queue += [*item.args, item.__cause__, item.__context__, getattr(item, "reason", None)]
    return next((e for e in seen if isinstance(e, TimeoutError)), None)
