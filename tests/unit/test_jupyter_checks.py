"""The checks of JupyterLab against servers that are good and broken, and the health check that images have."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_socket

from builder.checks.contract import Failed, NotRun
from builder.checks.groups import jupyter
from builder.checks.groups.jupyter import health, kernel, server
from builder.project import shipped_data

HEALTH = shipped_data() / "dockerfiles/files/jupyter-health"

SERVER = """\
import http.server, json, os, signal, sys
from pathlib import Path

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = 200, b"{}"
        if self.path == "/api" and NEVER:
            return
        if self.path in ("/api/contents", "/lab"):
            given = self.headers.get("Authorization")
            status = 200 if given in ALLOWED else 403
            body = PAGE
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

NEVER = False
ALLOWED = ("token " + os.environ.get("JUPYTER_TOKEN", ""),)
PAGE = b"<script id=jupyter-config-data>"
port = int([word for word in sys.argv if "port=" in word][0].partition("=")[2])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
{change}
made = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
runtime = Path.home() / ".local/share/jupyter/runtime"
runtime.mkdir(parents=True, exist_ok=True)
own = runtime / f"jpserver-{{os.getpid()}}.json"
own.write_text(json.dumps({{"pid": os.getpid(), "port": made.server_port, "hostname": "0.0.0.0", "base_url": "/"}}))
made.serve_forever()
"""

Launch = Callable[[str], None]


@pytest.fixture
def loopback() -> None:
    """Lets this test ask servers of its own."""
    pytest_socket.enable_socket()
    pytest_socket.socket_allow_hosts(["127.0.0.1"], allow_unix_socket=True)


@pytest.fixture
def launch(loopback: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    """Makes what the checks start: a server with a change to its program."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)

    def make(change: str) -> None:
        program = tmp_path / "jupyter-lab"
        program.write_text(SERVER.replace("{change}", change).replace("{{", "{").replace("}}", "}"), encoding="utf-8")
        monkeypatch.setattr(jupyter, "launcher", lambda: [sys.executable, str(program)])

    return make


# The server


def test_a_good_server(launch: Launch) -> None:
    launch("")
    assert server.run.run(None)["start_seconds"] > 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("ALLOWED += (None,)", "answers 200 to whoever comes without a token, not 403"),
        ('ALLOWED += ("token " + "0" * 32,)', "answers 200 to whoever comes with a wrong token, not 403"),
        ("ALLOWED = ()", "answers 403 to its own token, not 200"),
        ('PAGE = b"Apache"', "is another one"),
        ("sys.exit(3)", "jupyter lab ended with exit code 3 before it answered"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "jupyter lab was killed by SIGKILL before it answered"),
        ("NEVER = True", "jupyter lab gave no answer within"),
        ("signal.signal(signal.SIGTERM, lambda *_: os._exit(5))", "ended with exit code 5 after SIGTERM"),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", "still runs 1 s after SIGTERM"),
    ],
)
def test_a_broken_server(launch: Launch, monkeypatch: pytest.MonkeyPatch, change: str, reason: str) -> None:
    monkeypatch.setattr(jupyter, "START_DEADLINE", 3.0 if "NEVER" in change else 60.0)
    monkeypatch.setattr(jupyter, "STOP_DEADLINE", 1.0 if "IGN" in change else 20.0)
    launch(change)
    with pytest.raises(Failed, match=reason):
        server.run.run(None)


def test_nothing_of_a_server_is_left(launch: Launch) -> None:
    launch("import subprocess; subprocess.Popen(['sleep', '600'])")
    with jupyter.started() as running:
        (below,) = jupyter.processes.descendants(running.process.pid)
    # What was killed ends when the kernel gives it the processor once more.
    end = time.monotonic() + 60
    while alive := {pid for pid in (running.process.pid, below) if runs(pid)}:
        assert time.monotonic() < end, f"still there: {alive}"
        time.sleep(0.05)


def runs(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False


def test_what_is_started_is_the_jupyter_of_this_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(jupyter.shutil, "which", lambda name: None)
    assert jupyter.launcher() == [str(tmp_path / "python"), "-m", "jupyterlab"]
    (tmp_path / "jupyter").touch()
    assert jupyter.launcher() == [str(tmp_path / "jupyter"), "lab"]


def test_an_image_without_jupyterlab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jupyter.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotRun, match="jupyterlab is not installed"):
        jupyter.GROUP.prepare()


# The kernel


class Answering:
    """A server that starts kernels."""

    token, port, status = "secret", 1, 201

    def ask(self, path: str, **given: Any) -> Any:
        assert (path, given["token"], given["data"]) == ("/api/kernels", "secret", {"name": "python3"})
        return SimpleNamespace(status=self.status, body=b"full", json={"id": "k"})

    def said(self) -> str:
        return "the log"


def computed(monkeypatch: pytest.MonkeyPatch, said: str, status: int = 201) -> Any:
    @contextmanager
    def started() -> Iterator[Any]:
        made = Answering()
        made.status = status
        yield made

    async def execute(*_: object) -> str:
        return said

    monkeypatch.setattr(kernel, "started", started)
    monkeypatch.setattr(kernel, "_execute", execute)
    return kernel.run.run(None)


def told(**changed: Any) -> str:
    return "a warning\n" + json.dumps({"executable": sys.executable, "total": 499500, "versions": {}} | changed)


def test_a_good_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert computed(monkeypatch, told(versions={"torch": "2.13.0"})) == {"versions": {"torch": "2.13.0"}}


@pytest.mark.parametrize(
    ("said", "status", "reason"),
    [
        (told(executable="/usr/bin/other/python3"), 201, "the kernel runs /usr/bin/other/python3, and not"),
        (told(total=1), 201, "computed 1, expected 499500"),
        ("", 201, "the kernel printed ''"),
        (told(), 500, "starts no kernel: status 500"),
    ],
)
def test_a_broken_kernel(monkeypatch: pytest.MonkeyPatch, said: str, status: int, reason: str) -> None:
    with pytest.raises(Failed, match=reason):
        computed(monkeypatch, said, status)


def message(kind: str, parent: str, **content: Any) -> dict[str, Any]:
    return {"header": {"msg_type": kind}, "parent_header": {"msg_id": parent} if parent else {}, "content": content}


class Channel:
    """A kernel's channel that answers what was asked with a list of messages; None closes it."""

    def __init__(self, *answers: dict[str, Any] | None) -> None:
        self.answers = list(answers)
        self.asked: dict[str, Any] = {}

    async def write_message(self, text: str) -> None:
        self.asked = json.loads(text)

    async def read_message(self) -> str | None:
        answer = self.answers.pop(0) if self.answers else None
        if answer and answer["parent_header"].get("msg_id") == "mine":
            answer["parent_header"]["msg_id"] = self.asked["header"]["msg_id"]
        return None if answer is None else json.dumps(answer)

    def close(self) -> None:
        pass


def executed(monkeypatch: pytest.MonkeyPatch, channel: Channel) -> str:
    pytest_socket.enable_socket()  # an event loop is a pair of sockets

    async def connect(request: Any) -> Channel:
        assert request.headers == {"Authorization": "token secret"}
        return channel

    def requested(url: str, headers: dict[str, str]) -> Any:
        assert url.startswith("ws://127.0.0.1:1/api/kernels/k/channels?session_id=")
        return SimpleNamespace(headers=headers)

    for name, given in (("httpclient", {"HTTPRequest": requested}), ("websocket", {"websocket_connect": connect})):
        module = types.ModuleType(f"tornado.{name}")
        vars(module).update(given)
        monkeypatch.setitem(sys.modules, "tornado", types.ModuleType("tornado"))
        monkeypatch.setitem(sys.modules, f"tornado.{name}", module)
    made: Any = Answering()
    return asyncio.run(kernel._execute(made, "k"))


REPLY, IDLE = message("execute_reply", "mine", status="ok"), message("status", "mine", execution_state="idle")
PRINTED = message("stream", "mine", name="stdout", text="42\n")


@pytest.mark.parametrize("order", [(PRINTED, REPLY, IDLE), (REPLY, PRINTED, IDLE), (PRINTED, IDLE, REPLY)])
def test_what_a_kernel_prints_comes_in_any_order(
    monkeypatch: pytest.MonkeyPatch, order: tuple[dict[str, Any], ...]
) -> None:
    others = (
        message("stream", "another", name="stdout", text="no"),
        message("stream", "mine", name="stderr", text="no"),
    )
    channel = Channel(*json.loads(json.dumps([*others, *order])))
    assert executed(monkeypatch, channel) == "42\n"
    assert channel.asked["content"]["code"] == kernel.PROGRAM


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (
            (message("execute_reply", "mine", status="error", ename="ImportError", evalue="no torch"),),
            "ImportError: no torch",
        ),
        ((message("status", "", execution_state="dead"),), "the kernel died"),
        ((message("status", "", execution_state="restarting"),), "the kernel died"),
        ((PRINTED,), "channel was closed"),
    ],
)
def test_a_kernel_that_fails(monkeypatch: pytest.MonkeyPatch, answers: tuple[dict[str, Any], ...], reason: str) -> None:
    with pytest.raises(Failed, match=reason):
        executed(monkeypatch, Channel(*json.loads(json.dumps(answers))))


# The health check, and the check of it


def test_the_health_check_of_the_images(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    launch("")
    monkeypatch.setattr(health, "COMMAND", HEALTH)
    assert "does not answer" in health.run.run(None)["hanging"]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise SystemExit(1)", "ends with 1 without a server, expected 0"),
        ("", "ends with 0 with a server that hangs, expected 1"),
        ("import time; time.sleep(600)", "took more than 2 s without a server"),
    ],
)
def test_a_health_check_that_is_wrong(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, reason: str
) -> None:
    launch("")
    (tmp_path / "health").write_text(program, encoding="utf-8")
    monkeypatch.setattr(health, "COMMAND", tmp_path / "health")
    if "sleep" in program:
        monkeypatch.setattr(health, "TIMEOUT", 2)
    with pytest.raises(Failed, match=reason):
        health.run.run(None)


def test_an_image_without_a_health_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "COMMAND", tmp_path / "none")
    with pytest.raises(NotRun, match="the image has no "):
        health.run.run(None)


def asked(home: Path, **variables: str) -> tuple[int, str]:
    """How the health check ends, and what it says."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **variables}
    ran = subprocess.run([sys.executable, "-I", HEALTH], env=environment, capture_output=True, text=True, timeout=60)
    assert ran.stderr == ""
    return ran.returncode, ran.stdout.strip()


def note(directory: Path, **server: Any) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"jpserver-{server.get('port', 0)}.json").write_text(json.dumps(server), encoding="utf-8")


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process of which /proc says that it is Jupyter's."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "jupyter-lab"])
    yield process.pid
    process.kill()
    process.wait()


@pytest.fixture
def nobody(loopback: None) -> Iterator[int]:
    """A port on which nobody answers, whatever else this machine runs."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        yield made.getsockname()[1]


@pytest.mark.parametrize(
    ("variables", "below"),
    [
        ({}, ".local/share/jupyter/runtime"),
        ({"XDG_DATA_HOME": "{home}/data"}, "data/jupyter/runtime"),
        ({"JUPYTER_DATA_DIR": "{home}/own"}, "own/runtime"),
        ({"JUPYTER_RUNTIME_DIR": "{home}/run", "JUPYTER_DATA_DIR": "{home}/own"}, "run"),
    ],
)
def test_where_servers_are_looked_for(
    tmp_path: Path, sleeper: int, nobody: int, variables: dict[str, str], below: str
) -> None:
    given = {name: value.format(home=tmp_path) for name, value in variables.items()}
    assert asked(tmp_path, **given) == (0, "no Jupyter server runs")
    note(tmp_path / below, pid=sleeper, port=nobody, hostname="127.0.0.1", base_url="/")
    code, said = asked(tmp_path, **given)
    assert code == 1
    assert said.startswith(f"the server with pid {sleeper} does not answer: ")


def test_servers_of_other_containers_with_the_same_home_do_not_count(tmp_path: Path, nobody: int) -> None:
    runtime = tmp_path / ".local/share/jupyter/runtime"
    with subprocess.Popen(["sleep", "600"]) as process:
        note(runtime, pid=process.pid, port=nobody)  # no Jupyter
        assert asked(tmp_path) == (0, "no Jupyter server runs")
        process.kill()
    note(runtime, pid=2**22 + 1, port=2)  # above the largest id of a process
    note(runtime, port=3)
    (runtime / "jpserver-4.json").write_text("{", encoding="utf-8")
    assert asked(tmp_path) == (0, "no Jupyter server runs")


ANSWER = """\
import http.server, os, socketserver, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[2]) if self.path == "/lab/api" else 500)
        self.end_headers()

    def address_string(self):
        return ""

    def log_message(self, *_):
        pass

class Unix(socketserver.UnixStreamServer):
    pass

if sys.argv[3]:
    made = Unix(sys.argv[3], Handler)
    print(0, flush=True)
else:
    made = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    print(made.server_port, flush=True)
made.serve_forever()
"""


@pytest.mark.parametrize("place", ["", "socket"])
@pytest.mark.parametrize(
    ("status", "code", "said"), [(200, 0, "1 answered"), (403, 0, "1 answered"), (503, 1, "answers with status 503")]
)
def test_a_server_that_answers(tmp_path: Path, place: str, status: int, code: int, said: str) -> None:
    sock = str(tmp_path / place) if place else ""
    command = [sys.executable, "-c", ANSWER, "jupyter-lab", str(status), sock]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            port = int(process.stdout.readline())
            runtime = tmp_path / ".local/share/jupyter/runtime"
            note(runtime, pid=process.pid, port=port, hostname="0.0.0.0", base_url="/lab/", sock=sock)
            found = asked(tmp_path, http_proxy="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9")
            assert found[0] == code
            assert found[1].endswith(said)
            if status == 200:
                process.send_signal(signal.SIGSTOP)
                assert asked(tmp_path)[0] == 1
        finally:
            process.kill()
