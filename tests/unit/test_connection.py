"""Finding an engine, and saying in one sentence why it cannot be used. The servers are made here."""

from __future__ import annotations

import hashlib
import json
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from builder.engine.address import resolve
from builder.engine.connection import Engine, refusal
from builder.engine.errors import DiskFull, EngineRefused, EngineUnavailable

_INFO = {
    "ID": "ABCD",
    "ServerVersion": "26.1.5",
    "Driver": "overlayfs",
    "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"], ["odd"]],
    "DockerRootDir": "/srv/docker",
    "OSType": "linux",
    "Architecture": "aarch64",
    "NCPU": 8,
    "MemTotal": 1 << 34,
    "Runtimes": {"runc": {}, "nvidia": {}},
    "CgroupVersion": "2",
}


@dataclass(kw_only=True)
class Fake:
    """How a fake engine answers."""

    api: str = "1.45"
    oldest_api: str = "1.24"
    os: str = "linux"
    session: int = 400
    podman: bool = False
    info: tuple[int, object] = (200, _INFO)
    silent: bool = False
    seen: list[str] | None = None


@contextmanager
def _serving(path: Path, fake: Fake) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            if fake.seen is not None:
                fake.seen.append(self.path)
            if fake.silent:
                stopped.wait(10)
                return
            if self.path.endswith("/_ping"):
                status, body = 200, b"OK"
            elif self.path.endswith("/version"):
                version = {"Version": "26.1.5", "ApiVersion": fake.api, "MinAPIVersion": fake.oldest_api, "Os": fake.os}
                status, body = 200, json.dumps(version).encode()
            elif self.path.endswith("/session"):
                status, body = fake.session, b'{"message": "no upgrade"}'
            elif self.path.endswith("/info"):
                status, body = fake.info[0], json.dumps(fake.info[1]).encode()
            else:
                status, body = 404, b'{"message": "page not found"}'
            self.send_response(status)
            if fake.podman:
                self.send_header("Libpod-API-Version", "4.3.1")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _answer

        def address_string(self) -> str:
            return "test"

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True
        block_on_close = False

    stopped = threading.Event()
    with Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            stopped.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short path: a socket's has at most 107 characters."""
    return tmp_path_factory.mktemp("s") / "d.sock"


def _refused(address: str, *, timeout: float = 5) -> EngineUnavailable:
    with pytest.raises(EngineUnavailable) as caught:
        Engine.connect(address, timeout=timeout, environ={})
    assert caught.value.exit_code == 7
    return caught.value


def test_usable_engine_is_read_field_by_field(place: Path) -> None:
    with _serving(place, Fake()) as address, Engine.connect(address, environ={}) as engine:
        engine.require_buildkit()
        info = engine.info()
    assert (info.version, info.api_version, info.id) == ("26.1.5", "1.45", "ABCD")
    assert (info.storage_driver, info.containerd_store, info.root_dir) == ("overlayfs", True, "/srv/docker")
    assert (info.os, info.architecture, info.cpus, info.memory_bytes) == ("linux", "arm64", 8, 1 << 34)
    assert (info.runtimes, info.gpu, info.cdi_gpu) == (("nvidia", "runc"), True, False)
    assert (info.cgroup_version, info.buildkit, info.local) == ("2", True, True)


def test_devices_by_cdi_count_as_gpu(place: Path) -> None:
    without = {**_INFO, "Runtimes": {"runc": {}}}
    fake = Fake(info=(200, without))
    with _serving(place, fake) as address:
        with Engine.connect(address, environ={}) as engine:
            assert not engine.info().gpu
        fake.info = (200, {**without, "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]})
        with Engine.connect(address, environ={}) as engine:
            assert (engine.info().gpu, engine.info().cdi_gpu) == (True, True)


@pytest.mark.parametrize(
    ("api", "oldest", "used"),
    [("1.40", "1.12", "1.40"), ("1.51", "1.24", "1.51"), ("1.60", "1.44", "1.51"), ("1.60", "1.55", "1.55")],
)
def test_version_is_one_that_both_speak(place: Path, api: str, oldest: str, used: str) -> None:
    fake = Fake(api=api, oldest_api=oldest, seen=[])
    with _serving(place, fake) as address, Engine.connect(address, environ={}) as engine:
        engine.info()
    assert fake.seen is not None
    assert fake.seen[-1] == f"/v{used}/info"


def test_too_old(place: Path) -> None:
    with _serving(place, Fake(api="1.39")) as address:
        error = _refused(address)
    assert "too old" in error.message
    assert "1.39" in error.message
    assert "apt-get install docker.io" in error.hint


@pytest.mark.parametrize(
    "fake", [Fake(session=404), Fake(podman=True), Fake(os="windows")], ids=["no-route", "podman", "windows"]
)
def test_engine_without_buildkit(place: Path, fake: Fake) -> None:
    with _serving(place, fake) as address, Engine.connect(address, environ={}) as engine:
        assert not engine.info().buildkit
        with pytest.raises(EngineUnavailable, match="no BuildKit") as caught:
            engine.require_buildkit()
    assert "DOCKER_HOST" in caught.value.hint


def test_no_socket(place: Path) -> None:
    error = _refused(f"unix://{place}")
    assert "there is no socket" in error.message
    assert "systemctl start docker" in error.hint


def test_socket_that_nobody_listens_on(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(place))
    error = _refused(f"unix://{place}")
    assert "nothing listens" in error.message
    assert "systemctl start docker" in error.hint


def test_engine_that_does_not_answer(place: Path) -> None:
    with _serving(place, Fake(silent=True)) as address:
        error = _refused(address, timeout=0.2)
    assert "did not answer in time" in error.message


def test_something_else_listens(place: Path) -> None:
    with _serving(place, Fake(api="latest")) as address:
        assert "is no Docker engine" in _refused(address).message


# As root, permissions do not count: the child gives root up once everything is imported.
_UNPRIVILEGED = """
import os, sys
import docker, docker.tls
from builder.engine.connection import Engine
from builder.engine.errors import EngineUnavailable
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    Engine.connect(sys.argv[1], environ={}).close()
    print("connected")
except EngineUnavailable as error:
    print(error.message, "|", error.hint)
"""


@pytest.mark.parametrize(("mode", "said"), [(0o000, "no permission on unix://"), (0o777, "connected")])
def test_permission_on_the_socket(mode: int, said: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        place = directory / "d.sock"
        with _serving(place, Fake()) as address:
            place.chmod(mode)
            child = subprocess.run(
                [sys.executable, "-c", _UNPRIVILEGED, address], capture_output=True, text=True, check=True, timeout=60
            )
    assert said in child.stdout
    assert ("usermod -aG docker" in child.stdout) == (mode == 0)


def test_refusals_keep_status_and_message(place: Path) -> None:
    fake = Fake(info=(500, {"message": "it broke"}))
    with _serving(place, fake) as address, Engine.connect(address, environ={}) as engine:
        with pytest.raises(EngineRefused, match="it broke") as caught:
            engine.info()
        assert caught.value.status == 500
        fake.info = (500, {"message": "write /x: no space left on device"})
        with pytest.raises(DiskFull, match="disk is full") as full:
            engine.info()
    assert "prune" in full.value.hint


def test_refusal_in_a_stream() -> None:
    assert isinstance(refusal(500, "No space left on device", "build"), DiskFull)
    assert isinstance(refusal(500, "space", "build"), EngineRefused)


def test_engine_that_goes_away(place: Path) -> None:
    with _serving(place, Fake()) as address:
        engine = Engine.connect(address, environ={})
        engine.close()
    place.unlink()
    with pytest.raises(EngineUnavailable, match="there is no socket"):
        engine.info()


class TestAddress:
    """Which engine is meant."""

    def test_order(self, tmp_path: Path) -> None:
        environ = {"HOME": str(tmp_path)}
        assert resolve(None, environ).url == "unix:///var/run/docker.sock"
        self._context(tmp_path / ".docker", "gpu", {"Host": "ssh://me@gpu.example"})
        (tmp_path / ".docker/config.json").write_text('{"currentContext": "gpu"}')
        assert resolve(None, environ).url == "ssh://me@gpu.example"
        self._context(tmp_path / ".docker", "other", {"Host": "tcp://other.example:2376", "SkipTLSVerify": True})
        environ["DOCKER_CONTEXT"] = "other"
        assert resolve(None, environ).url == "tcp://other.example:2376"
        environ["DOCKER_HOST"] = "unix:///b.sock"
        assert (resolve(None, environ).url, resolve(None, environ).origin) == ("unix:///b.sock", "DOCKER_HOST")
        assert resolve("unix:///a.sock", environ).url == "unix:///a.sock"

    @staticmethod
    def _context(directory: Path, name: str, endpoint: object) -> Path:
        digest = hashlib.sha256(name.encode()).hexdigest()
        metadata = directory / "contexts/meta" / digest / "meta.json"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(json.dumps({"Name": name, "Endpoints": {"docker": endpoint}}))
        return directory / "contexts/tls" / digest / "docker"

    def test_contexts_certificates(self, tmp_path: Path) -> None:
        certificates = self._context(tmp_path, "tls", {"Host": "tcp://a.example:2376"})
        environ = {"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "tls"}
        assert not resolve(None, environ).tls
        certificates.mkdir(parents=True)
        address = resolve(None, environ)
        assert (address.tls, address.verify, address.certificates) == (True, True, certificates)

    def test_missing_context(self, tmp_path: Path) -> None:
        with pytest.raises(EngineUnavailable, match="'gone' does not exist"):
            resolve(None, {"HOME": str(tmp_path), "DOCKER_CONTEXT": "gone"})

    @pytest.mark.parametrize(
        ("variables", "tls", "verify"),
        [
            ({}, False, False),
            ({"DOCKER_TLS_VERIFY": "1"}, True, True),
            ({"DOCKER_CERT_PATH": "/certs"}, True, False),
            ({"DOCKER_TLS_VERIFY": "", "DOCKER_CERT_PATH": "/certs"}, True, False),
        ],
    )
    def test_tls_variables(self, variables: dict[str, str], tls: bool, verify: bool) -> None:
        address = resolve("tcp://a.example:2376", {"HOME": "/h", **variables})
        assert (address.tls, address.verify) == (tls, verify)
        assert not resolve("unix:///a.sock", {"HOME": "/h", **variables}).tls

    @pytest.mark.parametrize("address", ["", "docker.sock", "ftp://a.example", "unix://"])
    def test_malformed(self, address: str) -> None:
        with pytest.raises(EngineUnavailable, match="no address of a Docker engine"):
            resolve(None, {"DOCKER_HOST": address or "x"})


def test_ssh_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ssh"
    program.write_text('#!/bin/sh\necho "me@gpu.example: Permission denied (publickey)." >&2\nexit 255\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    error = _refused("ssh://me@gpu.example:2222")
    assert "Permission denied (publickey)" in error.message
    assert "-oProxyCommand" not in error.hint
    assert "names no host" in _refused("ssh://-oProxyCommand=x").message
    assert "is no address" in _refused("ssh://gpu.example:99999").message


def test_ssh_that_says_much_is_not_held_up(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ssh"
    program.write_text(
        '#!/bin/sh\nwhile [ "$1" != -L ]; do shift; done\nhead -c 300000 /dev/zero >&2\n'
        'ln -s "${2#*:}" "${2%%:*}"\nexec sleep 60\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with (
        _serving(place, Fake()),
        Engine.connect(f"ssh://gpu.example{place}", environ={}, timeout=5) as engine,
    ):
        assert engine.info().version == "26.1.5"


def test_ssh_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "openssh-client" in _refused("ssh://me@gpu.example").hint


def test_ssh_forwards_a_socket(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for ssh links the local socket to the far one, as forwarding would."""
    program = tmp_path / "ssh"
    program.write_text(
        '#!/bin/sh\nwhile [ "$1" != -L ]; do shift; done\nln -s "${2#*:}" "${2%%:*}"\n'
        f'shift 2; echo "$@" > {tmp_path}/arguments\nexec sleep 60\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with _serving(place, Fake()), Engine.connect(f"ssh://me@gpu.example:2222{place}", environ={}) as engine:
        assert engine.info().version == "26.1.5"
        assert not engine.info().local
        forwarded = Path(engine._tunnel.url.removeprefix("unix://"))  # type: ignore[union-attr]
        assert forwarded.is_symlink()
    assert not forwarded.parent.exists()
    assert (tmp_path / "arguments").read_text() == "-p 2222 -l me -- gpu.example\n"


def test_ctrl_c_does_not_cut_the_tunnel_off(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal sends SIGINT to the whole group of processes; what is to be cancelled lies behind the tunnel."""
    program = tmp_path / "ssh"
    program.write_text(
        '#!/bin/sh\nwhile [ "$1" != -L ]; do shift; done\nln -s "${2#*:}" "${2%%:*}"\nkill -INT $$\nexec sleep 60\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with _serving(place, Fake()), Engine.connect(f"ssh://me@gpu.example{place}", environ={}) as engine:
        process = engine._tunnel._process  # type: ignore[union-attr]
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        assert engine.info().version == "26.1.5"
    assert process.poll() is not None
