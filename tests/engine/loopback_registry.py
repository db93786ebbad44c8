"""A registry of Debian's package on this machine's loopback interface, for the time of a test.

Plain, with TLS, with a login, or with both; and one whose disk takes no large file.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

USER, PASSWORD = "a-user", "a pass:word"

_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {directory}/data}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"{tls}}}
{login}
"""
_programs: list[Path] = []


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """PEM files: an authority that nobody knows, and a certificate that it signed for this machine."""

    authority: Path
    certificate: Path
    key: Path


@contextmanager
def registry(
    directory: Path, *, tls: Certificates | None = None, login: bool = False, largest_file: int = 0
) -> Iterator[str]:
    """Serves an empty registry; gives its address, such as `127.0.0.1:5000`.

    Args:
        directory: where it keeps what it has, below `data`.
        tls: serve https with these.
        login: ask for USER and PASSWORD.
        largest_file: bytes from which on writing a file fails, as on a full disk; 0 for no such limit.
    """
    program = _program(directory)
    port = free_port()
    config = _CONFIG.format(
        directory=directory,
        port=port,
        tls=f', tls: {{certificate: "{tls.certificate}", key: "{tls.key}"}}' if tls else "",
        login=f'auth: {{htpasswd: {{realm: tests, path: "{directory}/htpasswd"}}}}' if login else "",
    )
    (directory / "registry.yml").write_text(config)
    if login:
        (directory / "htpasswd").write_text(f"{USER}:{_bcrypt(PASSWORD)}\n")
    limit = (resource.RLIMIT_FSIZE, (largest_file, largest_file))
    log = directory / "registry.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [program, "serve", directory / "registry.yml"],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        ) as server,
    ):
        if largest_file:
            resource.prlimit(server.pid, *limit)
        try:
            _wait(port, server, log)
            yield f"127.0.0.1:{port}"
        finally:
            server.kill()


def login_file(directory: Path, address: str, password: str = PASSWORD) -> Path:
    """A docker configuration with the login for a registry."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "config.json"
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {address: {"auth": auth}}}))
    return path


def stored_blobs(directory: Path) -> set[str]:
    """The digests of all that a registry keeps in its directory: layers, configurations, manifests."""
    return {path.name for path in (directory / "data/docker/registry/v2/blobs/sha256").glob("??/*")}


def certificates(directory: Path) -> Certificates:
    """Makes an authority and a certificate for 127.0.0.1, localhost and registry.test."""
    found = Certificates(
        authority=directory / "authority.pem", certificate=directory / "server.pem", key=directory / "server.key"
    )
    key, request, extensions = directory / "authority.key", directory / "server.csr", directory / "extensions"
    extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:registry.test\n")
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    _openssl("req", "-x509", *new, "-keyout", key, "-out", found.authority, "-days", "2", "-subj", "/CN=Tests")
    _openssl("req", *new, "-keyout", found.key, "-out", request, "-subj", "/CN=127.0.0.1")
    signing = ["-CA", found.authority, "-CAkey", key, "-CAcreateserial", "-extfile", extensions]
    _openssl("x509", "-req", "-in", request, "-out", found.certificate, "-days", "2", *signing)
    return found


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


def _bcrypt(password: str) -> str:
    """The only hash that the registry takes. Python's own `crypt` is gone since 3.13; Debian always has perl."""
    alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    # The last of 22 digits carries only two bits.
    salt = "$2b$05$" + "".join(secrets.choice(alphabet) for _ in range(21)) + "."
    command = ["perl", "-e", "print crypt($ARGV[0], $ARGV[1])", password, salt]
    found = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    assert found.startswith(salt[:7]), "perl's crypt knows no bcrypt"
    return found


def _program(directory: Path) -> Path:
    """The registry's program, downloaded once in a test run."""
    if _programs and _programs[0].exists():
        return _programs[0]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        for command in (
            ["apt-get", "download", "docker-registry"],
            ["sh", "-c", "dpkg-deb -x docker-registry_*.deb ."],
        ):
            subprocess.run(command, cwd=directory, env=environment, check=True, capture_output=True, timeout=120)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.fail(f"no registry for the tests: apt-get cannot download docker-registry ({error})", pytrace=False)
    _programs[:] = [directory / "usr/bin/docker-registry"]
    return _programs[0]


def _wait(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            assert server.poll() is None, log.read_text(errors="replace")
            time.sleep(0.1)
    pytest.fail(f"the registry does not answer on port {port}", pytrace=False)
