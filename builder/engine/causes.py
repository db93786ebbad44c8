"""Turns what went wrong in a call to an engine into one sentence, with the command that mends it."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence

from builder.engine.address import Address
from builder.engine.errors import DiskFull, EngineRefused, EngineUnavailable

PRUNE = "free space with: docker image prune; docker builder prune; where that frees nothing, restart the engine"
"""What mends a full disk. Of a transfer that the disk cut short, the engine knows nothing that it could prune; it
removes what is left of it when it starts."""

_NO_SPACE = re.compile(r"no space left on device|\[Errno 28\]|disk quota exceeded", re.IGNORECASE)


_SAID = re.compile(r"imgbuild: (.+)")
_MISMATCH = "THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE"
_REQUIREMENT = re.compile(r"\s+([A-Za-z0-9][A-Za-z0-9._-]*==\S+)(?: from (\S+))?.*:")
_EXPECTED = re.compile(r"\s+Expected sha256 ([0-9a-f]{64})")
_GOT = re.compile(r"\s+Got\s+([0-9a-f]{64})")


def named_cause(log: Sequence[str]) -> tuple[str, str] | None:
    """What a step's output says of why it failed, as a message and a hint; None when it is nothing that is known.

    Known are a line that begins with `imgbuild: `, which a step's own script writes as its last word, and pip's report
    of a file whose hash is not the one in the requirements.
    """
    for line in reversed(log):
        said = _SAID.fullmatch(line.strip())
        if said:
            message, _, hint = said[1].partition("; ")
            return message, hint
    places = [place for place, line in enumerate(log) if _MISMATCH in line]
    if not places:
        return None
    name, file, expected, got = "", "", "", ""
    for line in log[places[-1] + 1 :]:
        requirement, wanted, found = _REQUIREMENT.fullmatch(line), _EXPECTED.fullmatch(line), _GOT.fullmatch(line)
        if requirement and not name:
            name, file = requirement[1], (requirement[2] or "").rpartition("/")[2]
        expected = expected or (wanted[1] if wanted else "")
        got = got or (found[1] if found else "")
    if not (name and expected and got):
        return "the hash of a package differs from the lock", _WHY_ANOTHER_HASH
    which = f"{name} ({file})" if file else name
    message = f"the hash of {which} differs from the lock: it is sha256:{got}, the lock says sha256:{expected}"
    return message, _WHY_ANOTHER_HASH


_WHY_ANOTHER_HASH = (
    "the file is not the one that was locked: find out why; only if it is to be trusted, "
    "run: imgbuild lock --upgrade PACKAGE"
)


_LAST = 12
"""Lines at the end of a step's output in which it says why it gave up; pip and uv take up to 8."""

_NO_WAY = re.compile(
    r"name or service not known|temporary failure in name resolution|no address associated with hostname"
    r"|connection refused|connection timed out|network is unreachable|no route to host",
    re.IGNORECASE,
)
_URL = re.compile(r"https?://[^\s`'\"()<>]+")


def unreached(log: Sequence[str]) -> tuple[str, str] | None:
    """What a step says at its end that it could not reach: a URL, empty where none is named, and why. None for none."""
    last = log[-_LAST:]
    signs = [match[0] for line in last if (match := _NO_WAY.search(line))]
    urls = [match[0].rstrip(".,:;") for line in last if (match := _URL.search(line))]
    return (urls[-1] if urls else "", signs[-1]) if signs else None


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
