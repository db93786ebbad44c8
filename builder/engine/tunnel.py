"""Reaches an engine over ssh: the system's ssh forwards a socket of this machine to the engine's.

Builds hijack their connection for BuildKit's session, which a forwarded socket carries like a local
one. Using the ssh command means that keys, agents, jump hosts and ~/.ssh/config work as they do in
a terminal.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
import urllib.parse
from pathlib import Path
from typing import IO

from builder.engine.errors import EngineUnavailable

REMOTE_SOCKET = "/var/run/docker.sock"

_SAID = 64 * 1024
"""Bytes of what ssh said that an error shows at most."""


class Tunnel:
    """A forwarded socket; `url` is its `unix://` address on this machine."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path, said: IO[bytes]) -> None:
        self._process = process
        self._directory = directory
        self._said = said
        self.url = f"unix://{directory / 'docker.sock'}"

    @classmethod
    def open(cls, url: str, *, timeout: float = 60) -> Tunnel:
        """Starts ssh and waits until it forwards.

        Args:
            url: `ssh://[user@]host[:port][/path/of/the/socket]`.
            timeout: seconds until it must stand.

        Raises:
            EngineUnavailable: ssh is not installed, refuses the host or the user, or does not get
                through.
        """
        try:
            parts = urllib.parse.urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise EngineUnavailable(f"{url!r} is no address: {error}", hint="write ssh://user@host:port") from error
        if not host or host.startswith("-") or (parts.username or "").startswith("-"):
            raise EngineUnavailable(f"{url!r} names no host", hint="write ssh://user@host")
        if shutil.which("ssh") is None:
            raise EngineUnavailable(f"{url} needs the ssh command", hint="sudo apt-get install openssh-client")
        directory = Path(tempfile.mkdtemp(prefix="imgbuild-ssh-"))
        remote = parts.path if parts.path not in ("", "/") else REMOTE_SOCKET
        command = ["ssh", "-nNT", "-o", "ExitOnForwardFailure=yes", "-o", "ServerAliveInterval=15"]
        command += ["-L", f"{directory / 'docker.sock'}:{remote}"]
        command += ["-p", str(port)] if port else []
        command += ["-l", urllib.parse.unquote(parts.username)] if parts.username else []
        # A file, as nobody reads a pipe while ssh works: it would block once that is full.
        said = tempfile.TemporaryFile()  # noqa: SIM115  (closed together with ssh)
        process = subprocess.Popen(
            # A terminal sends Ctrl-C to ssh too, but cancelling on the far engine still needs the tunnel.
            ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *command, "--", host],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        tunnel = cls(process, directory, said)
        try:
            tunnel._wait(host, time.monotonic() + timeout)
        except BaseException:
            tunnel.close()
            raise
        return tunnel

    def _wait(self, host: str, deadline: float) -> None:
        socket_path = self._directory / "docker.sock"
        while not socket_path.exists():
            if self._process.poll() is not None:
                self._said.seek(0)
                said = self._said.read(_SAID).decode(errors="replace").strip()
                raise EngineUnavailable(
                    f"ssh to {host} failed: {said or 'it said nothing'}",
                    hint=f"ssh {host} docker version",
                )
            if time.monotonic() > deadline:
                raise EngineUnavailable(f"ssh to {host} did not get through in time", hint=f"ssh {host}")
            time.sleep(0.05)

    def close(self) -> None:
        """Ends ssh and removes the socket."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._said.close()
        shutil.rmtree(self._directory, ignore_errors=True)
