"""The connection to one Docker engine, and what that engine can do.

`Engine.connect` finds the engine that is meant, makes sure that it is one that imgbuild can use,
and says in one sentence, with the command that mends it, when it is not. `import docker` takes 0.1
s, so it happens here, on connecting, and nowhere earlier.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.engine import fields
from builder.engine.address import Address, resolve
from builder.engine.causes import refusal, unreachable
from builder.engine.errors import EngineRefused, EngineUnavailable
from builder.engine.tunnel import Tunnel

if TYPE_CHECKING:
    import docker
    import requests

OLDEST_API = (1, 40)
"""Docker 19.03: the first with BuildKit outside the experimental mode and with device requests (GPUs)."""

NEWEST_API = (1, 51)
"""The newest version that this package's parsing was written for; newer engines still speak it."""


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """What an engine says about itself.

    Attributes:
        version: the engine's version, such as `26.1.5`.
        api_version: the API version in use between imgbuild and the engine, such as `1.45`.
        buildkit: whether it builds with BuildKit.
        storage_driver: such as `overlay2`, or a snapshotter's name with the containerd image store.
        containerd_store: whether images live in containerd's store.
        root_dir: where the engine keeps images and containers, on its own machine.
        os, architecture: as images spell them: `linux`, `amd64`.
        cpus, memory_bytes: of the engine's machine.
        runtimes: names of the container runtimes.
        gpu: whether containers can be given NVIDIA GPUs, by the nvidia runtime or by CDI.
        cdi_gpu: whether CDI lists an NVIDIA device.
        id: the engine's own id, stable over restarts.
        cgroup_version: `1` or `2`; empty when unknown.
        local: whether it is reached by a socket on this machine.
    """

    version: str
    api_version: str
    buildkit: bool
    storage_driver: str
    containerd_store: bool
    root_dir: str
    os: str
    architecture: str
    cpus: int
    memory_bytes: int
    runtimes: tuple[str, ...]
    gpu: bool
    cdi_gpu: bool
    id: str
    cgroup_version: str
    local: bool


class Engine:
    """One engine. Safe to use from several threads, except `close`.

    Attributes:
        api: docker-py's low-level client, whose connections builds and sessions share.
        address: where the engine was found, and what said so.
    """

    def __init__(self, api: docker.APIClient, address: Address, buildkit: bool, tunnel: Tunnel | None = None) -> None:
        self.api = api
        self.address = address
        self._buildkit = buildkit
        self._tunnel = tunnel
        self._info: EngineInfo | None = None

    @classmethod
    def connect(
        cls,
        address: str | None = None,
        *,
        timeout: float = 60,
        environ: Mapping[str, str] = os.environ,
    ) -> Engine:
        """Connects to the engine at `address`, or to the one that the docker command would use.

        Args:
            address: as in DOCKER_HOST: `unix://`, `tcp://` or `ssh://`; None for the one that is
                configured.
            timeout: seconds to wait for each answer. Calls that last longer by nature set their
                own.
            environ: the environment to read DOCKER_HOST and the like from.

        Raises:
            EngineUnavailable: there is none, it may not be used, or it is too old.
        """
        where = resolve(address, environ)
        tunnel = Tunnel.open(where.url, timeout=timeout) if where.scheme == "ssh" else None
        try:
            reached = Address(url=tunnel.url, origin=where.origin) if tunnel else where
            ping = _first_answer(reached, where, timeout)
            version = _negotiate(ping, where)
            api = _client(reached, version, timeout)
        except BaseException:
            if tunnel:
                tunnel.close()
            raise
        engine = cls(api, where, False, tunnel)
        engine._buildkit = engine._finds_buildkit(ping)
        return engine

    def close(self) -> None:
        """Closes the connections; the engine keeps running."""
        self.api.close()
        if self._tunnel:
            self._tunnel.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def url(self, path: str) -> str:
        """The address of an API path such as `/info`, with the API version in it."""
        return f"{self.api.base_url}/v{self.api.api_version}{path}"

    def call(
        self,
        method: str,
        path: str,
        *,
        doing: str,
        params: Mapping[str, str | int | bool] | None = None,
        json: object = None,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        stream: bool = False,
    ) -> requests.Response:
        """One API call.

        Args:
            doing: what it is for, to complete the sentence "cannot …".
            timeout: seconds to wait for each read; None for the connection's own.
            stream: True leaves the body unread; the caller reads it within `reading`.

        Raises:
            EngineRefused: the engine answered with an error status.
            DiskFull: the engine's disk is full.
            EngineUnavailable: no answer came.
        """
        import requests

        try:
            response = self.api.request(
                method,
                self.url(path),
                params={k: _parameter(v) for k, v in (params or {}).items()},
                json=json,
                # requests takes a list for form fields; an iterator is sent in chunks.
                data=body if body is None or isinstance(body, bytes) else iter(body),
                headers=dict(headers or {}),
                timeout=self.api.timeout if timeout is None else timeout,
                stream=stream,
            )
            if response.status_code >= 400:
                with response:
                    raise refusal(response.status_code, _message_of(response), doing)
        except requests.RequestException as error:
            raise unreachable(error, self.address, doing) from error
        return response

    @contextmanager
    def reading(self, response: requests.Response, doing: str) -> Iterator[requests.Response]:
        """Closes a streamed answer in the end, read or not; raises EngineUnavailable when it breaks off."""
        import requests

        try:
            with response:
                yield response
        except requests.RequestException as error:
            raise unreachable(error, self.address, doing) from error

    def call_json(
        self,
        method: str,
        path: str,
        *,
        doing: str,
        params: Mapping[str, str | int | bool] | None = None,
        json: object = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> object:
        """Like `call`; returns the decoded answer, None when it is empty or no JSON."""
        response = self.call(method, path, doing=doing, params=params, json=json, timeout=timeout, headers=headers)
        try:
            decoded: object = response.json()
        except ValueError:
            return None
        return decoded

    def info(self) -> EngineInfo:
        """What the engine says about itself, asked once: none of it changes while it runs.

        Raises:
            EngineUnavailable: it does not answer.
        """
        if self._info is None:
            self._info = self._ask()
        return self._info

    def _ask(self) -> EngineInfo:
        doing = "ask the engine about itself"
        answer = fields.mapping(self.call_json("GET", "/info", doing=doing))
        status = {
            row[0]: row[1]
            for row in (fields.texts(item) for item in fields.sequence(answer.get("DriverStatus")))
            if len(row) == 2
        }
        runtimes = tuple(sorted(fields.mapping(answer.get("Runtimes"))))
        devices = (fields.mapping(d) for d in fields.sequence(answer.get("DiscoveredDevices")))
        cdi = any(fields.text(d.get("ID")).startswith("nvidia.com/gpu") for d in devices)
        return EngineInfo(
            version=fields.text(answer.get("ServerVersion")),
            api_version=self.api.api_version,
            buildkit=self._buildkit,
            storage_driver=fields.text(answer.get("Driver")),
            containerd_store=status.get("driver-type", "").startswith("io.containerd.snapshotter"),
            root_dir=fields.text(answer.get("DockerRootDir")),
            os=fields.text(answer.get("OSType")),
            architecture=oci_architecture(fields.text(answer.get("Architecture"))),
            cpus=fields.integer(answer.get("NCPU")),
            memory_bytes=fields.integer(answer.get("MemTotal")),
            runtimes=runtimes,
            gpu="nvidia" in runtimes or cdi,
            cdi_gpu=cdi,
            id=fields.text(answer.get("ID")),
            cgroup_version=fields.text(answer.get("CgroupVersion")),
            local=self.address.scheme == "unix",
        )

    def require_buildkit(self) -> None:
        """Raises EngineUnavailable unless the engine builds with BuildKit."""
        if not self._buildkit:
            raise EngineUnavailable(
                f"the engine at {self.address.url} has no BuildKit, which imgbuild builds with",
                hint="use a Docker engine 19.03 or newer for Linux containers (Podman's socket has no BuildKit): "
                "export DOCKER_HOST=unix:///var/run/docker.sock",
            )

    def _finds_buildkit(self, ping: _Ping) -> bool:
        # The Builder-Version header does not decide: Docker 20.10 leaves it out unless daemon.json
        # sets it, and "1" only says which builder the docker command prefers. What a build needs is
        # the session endpoint: without an upgrade it refuses (400) where there is BuildKit, and
        # does not exist (404) where there is none.
        if ping.os != "linux" or ping.podman:
            return False
        try:
            self.call("POST", "/session", doing="ask the engine for BuildKit").close()
        except EngineRefused as refused:
            return refused.status not in (404, 405, 501)
        return False


@dataclass(frozen=True, kw_only=True)
class _Ping:
    version: str
    api: tuple[int, int]
    oldest_api: tuple[int, int]
    os: str
    podman: bool


def _client(address: Address, version: str, timeout: float) -> docker.APIClient:
    import docker
    from docker.errors import DockerException

    # `timeout` is a float for requests, whatever docker-py's annotation says.
    seconds: Any = timeout
    try:
        api = docker.APIClient(
            base_url=address.url,
            version=version,
            timeout=seconds,
            tls=_tls(address) if address.tls else False,
            max_pool_size=32,
        )
    except DockerException as error:
        raise EngineUnavailable(f"the address {address.url} (from {address.origin}) cannot be used: {error}") from error
    # With trust_env, requests would let REQUESTS_CA_BUNDLE replace the engine's own CA, and read
    # .netrc.
    api.trust_env = False
    return api


def _tls(address: Address) -> docker.tls.TLSConfig:
    import docker.tls
    from docker.errors import TLSParameterError

    def existing(name: str) -> str | None:
        path = address.certificates / name if address.certificates else None
        return str(path) if path and path.is_file() else None

    certificate, key = existing("cert.pem"), existing("key.pem")
    authority = existing("ca.pem")
    try:
        return docker.tls.TLSConfig(
            client_cert=(certificate, key) if certificate and key else None,
            ca_cert=authority if address.verify else None,
            verify=address.verify,
        )
    except TLSParameterError as error:
        raise EngineUnavailable(f"the certificates in {address.certificates} cannot be used: {error}") from error


def _first_answer(reached: Address, named: Address, timeout: float) -> _Ping:
    """Asks for the version without naming one, so that engines of any age answer."""
    import requests

    api = _client(reached, ".".join(map(str, OLDEST_API)), timeout)
    try:
        ping = api.get(f"{api.base_url}/_ping", timeout=timeout)
        response = api.get(f"{api.base_url}/version", timeout=timeout)
    except requests.RequestException as error:
        raise unreachable(error, named, "reach the Docker engine") from error
    finally:
        api.close()
    if response.status_code >= 400:
        raise EngineUnavailable(
            f"{named.url} (from {named.origin}) refuses: {response.status_code} {_message_of(response)}"
        )
    try:
        answer = fields.mapping(response.json())
    except ValueError:
        answer = {}
    newest = _version_pair(fields.text(answer.get("ApiVersion")))
    if newest == (0, 0):
        raise EngineUnavailable(
            f"what listens at {named.url} (from {named.origin}) is no Docker engine",
            hint="docker version",
        )
    return _Ping(
        version=fields.text(answer.get("Version")),
        api=newest,
        oldest_api=_version_pair(fields.text(answer.get("MinAPIVersion"))),
        os=fields.text(answer.get("Os")),
        podman="Libpod-API-Version" in ping.headers,
    )


def _negotiate(ping: _Ping, address: Address) -> str:
    if ping.api < OLDEST_API:
        raise EngineUnavailable(
            f"the Docker engine {ping.version} at {address.url} is too old: its API is {_dotted(ping.api)}, "
            f"imgbuild needs {_dotted(OLDEST_API)} (Docker 19.03)",
            hint="sudo apt-get update && sudo apt-get install docker.io",
        )
    return _dotted(max(min(ping.api, NEWEST_API), ping.oldest_api))


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _version_pair(value: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", value)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _parameter(value: str | int | bool) -> str:
    return ("1" if value else "0") if isinstance(value, bool) else str(value)


def _message_of(response: requests.Response) -> str:
    try:
        message = fields.text(fields.mapping(response.json()).get("message"))
    except ValueError:
        message = ""
    return (message or response.text or response.reason or "").strip()[:2000]


def oci_architecture(machine: str) -> str:
    """The name that images use for what uname calls `machine`."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


__all__ = ["Engine", "EngineInfo", "oci_architecture", "refusal", "unreachable"]
