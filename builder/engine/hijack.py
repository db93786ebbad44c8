"""Takes over a connection of docker-py's: for BuildKit's session, and to end a build by hanging up."""

from __future__ import annotations

import io
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.engine.errors import EngineError, EngineUnavailable

if TYPE_CHECKING:
    import requests

    from builder.engine.connection import Engine


@dataclass(frozen=True)
class Hijacked:
    """A connection that was taken over.

    Attributes:
        source: what to receive from. It holds what was read ahead together with the response's headers.
        sink: the socket, to send on and to shut down.
    """

    source: io.BufferedReader
    sink: socket.socket
    response: requests.Response

    def close(self) -> None:
        self.response.close()


def connection_of(response: requests.Response) -> Hijacked:
    """The connection below a response whose body was not read.

    Raises:
        EngineError: docker-py's transport is not what it was when this was written.
    """
    # docker-py reaches its sockets the same way (APIClient._get_raw_response_socket).
    source = getattr(getattr(response.raw, "_fp", None), "fp", None)
    sink = getattr(getattr(source, "raw", None), "_sock", None)
    if not isinstance(source, io.BufferedReader) or not isinstance(sink, socket.socket):
        raise EngineError(
            "cannot find the socket below docker-py's response",
            hint="pip install 'docker>=7.1,<8' 'urllib3>=2,<3'",
        )
    return Hijacked(source, sink, response)


def take_over(engine: Engine, path: str, headers: Sequence[tuple[str, str]], *, doing: str) -> Hijacked:
    """POSTs a request that the engine answers by handing the connection over.

    Args:
        headers: may hold a name several times.
        doing: what it is for, to complete the sentence "cannot …".

    Raises:
        EngineUnavailable: no answer came, or not the one that hands over.
        EngineRefused: the engine answered with an error status.
    """
    import requests
    from urllib3 import HTTPHeaderDict

    from builder.engine.connection import refusal, unreachable

    prepared = engine.api.prepare_request(requests.Request("POST", engine.url(path)))
    # requests' own mapping holds a name once; urllib3's as often as needed.
    several = HTTPHeaderDict(dict(prepared.headers))
    for name, value in headers:
        several.add(name, value)
    prepared.headers = several  # type: ignore[assignment]
    try:
        response = engine.api.send(prepared, stream=True, timeout=engine.api.timeout)
    except requests.RequestException as error:
        raise unreachable(error, engine.address, doing) from error
    if response.status_code != 101:
        with engine.reading(response, doing):
            if response.status_code >= 400:
                raise refusal(response.status_code, response.text.strip()[:2000], doing)
        raise EngineUnavailable(
            f"cannot {doing}: what answers at {engine.address.url} does not hand the connection over",
            hint="a proxy between here and the engine has to pass HTTP upgrades on",
        )
    hijacked = connection_of(response)
    hijacked.sink.settimeout(None)
    return hijacked
