# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""A notebook's kernel, asked as a browser asks it."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from pathlib import Path
from typing import Any

from builder.checks.contract import Measured, check, expect, fail, short
from builder.checks.groups.jupyter import Server, started

#: Seconds for the kernel's start, the import of the framework and the sum.
DEADLINE = 120.0

NUMBERS = 1000

#: What a notebook's first cell may be: the frameworks that are there, and NumPy, whose sum is known.
PROGRAM = f"""
import importlib, importlib.util, json, sys, numpy
names = [name for name in ("torch", "tensorflow", "jax", "mxnet") if importlib.util.find_spec(name)]
versions = {{name: importlib.import_module(name).__version__ for name in names}}
total = int(numpy.arange({NUMBERS}).sum())
print(json.dumps({{"executable": sys.executable, "total": total, "versions": versions}}))
"""


@check(
    "jupyter.kernel",
    level="cpu",
    deadline=240,
    catches="Kernels that do not start, run another Python than the image's, or cannot import its framework.",
)
def run(_: Any) -> Measured:
    with started() as server:
        answer = server.ask("/api/kernels", token=server.token, data={"name": "python3"}, deadline=60)
        expect(answer.status == 201, f"the server starts no kernel: status {answer.status}: {short(str(answer.body))}")
        said = asyncio.run(asyncio.wait_for(_execute(server, str(answer.json["id"])), DEADLINE))
    try:
        found = json.loads(said.strip().splitlines()[-1])
    except (ValueError, IndexError):
        fail(f"the kernel printed {short(said)!r}", detail=server.said())
    # python, python3 and python3.11 of one venv are one Python; the target of their links is that of every venv.
    expect(
        Path(found["executable"]).parent == Path(sys.executable).parent,
        f"the kernel runs {found['executable']}, and not {sys.executable}",
    )
    expected = NUMBERS * (NUMBERS - 1) // 2
    expect(found["total"] == expected, f"the kernel computed {found['total']}, expected {expected}")
    return {"versions": found["versions"]}


async def _execute(server: Server, kernel: str) -> str:
    """What PROGRAM prints in a kernel.

    Raises:
        Failed: it raised, or the kernel died.
    """
    from tornado.httpclient import HTTPRequest
    from tornado.websocket import websocket_connect

    session, message = uuid.uuid4().hex, uuid.uuid4().hex
    address = f"ws://127.0.0.1:{server.port}/api/kernels/{kernel}/channels?session_id={session}"
    channel = await websocket_connect(HTTPRequest(address, headers={"Authorization": f"token {server.token}"}))
    header = {"msg_id": message, "msg_type": "execute_request", "username": "", "session": session, "version": "5.3"}
    content = {"code": PROGRAM, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    request = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}
    await channel.write_message(json.dumps({**request, "buffers": []}))
    printed, replied, idle = [], False, False
    # The reply and the output come over two sockets, in any order; `idle` is the last of the output.
    while not (replied and idle):
        text = await channel.read_message()
        if text is None:
            fail("the kernel's channel was closed", detail=server.said())
        answer = json.loads(text)
        kind, content = answer["header"]["msg_type"], answer["content"]
        if kind == "status" and content["execution_state"] in {"dead", "restarting"}:
            fail("the kernel died", detail=server.said())
        if answer["parent_header"].get("msg_id") != message:
            continue
        if kind == "stream" and content["name"] == "stdout":
            printed.append(content["text"])
        elif kind == "execute_reply":
            replied = True
            if content["status"] != "ok":
                fail(f"the kernel raised {content.get('ename')}: {short(str(content.get('evalue')))}")
        elif kind == "status":
            idle = content["execution_state"] == "idle"
    channel.close()
    return "".join(printed)
