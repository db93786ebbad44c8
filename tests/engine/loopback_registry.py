"""A registry of Debian's package on this machine's loopback interface, for the time of a test."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {directory}/data}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@contextmanager
def registry(directory: Path) -> Iterator[str]:
    """Serves an empty registry; gives its address, such as `127.0.0.1:5000`."""
    program = _program(directory)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (directory / "registry.yml").write_text(_CONFIG.format(directory=directory, port=port))
    with subprocess.Popen(
        [program, "serve", directory / "registry.yml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
    ) as server:
        try:
            _wait(f"http://127.0.0.1:{port}/v2/", server)
            yield f"127.0.0.1:{port}"
        finally:
            server.kill()


def _program(directory: Path) -> Path:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        for command in (
            ["apt-get", "download", "docker-registry"],
            ["sh", "-c", "dpkg-deb -x docker-registry_*.deb ."],
        ):
            subprocess.run(command, cwd=directory, env=environment, check=True, capture_output=True, timeout=120)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.fail(f"no registry for the tests: apt-get cannot download docker-registry ({error})", pytrace=False)
    return directory / "usr/bin/docker-registry"


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(100):
        try:
            opener.open(url, timeout=5).close()
            return
        except urllib.error.URLError:
            assert server.poll() is None, server.stdout and server.stdout.read()
            time.sleep(0.1)
    pytest.fail(f"the registry does not answer at {url}", pytrace=False)
