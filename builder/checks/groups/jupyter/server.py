"""JupyterLab's server."""

from __future__ import annotations

import time
from typing import Any

from builder.checks.contract import Measured, check, expect
from builder.checks.groups.jupyter import started, stop


@check(
    "jupyter.server",
    level="cpu",
    deadline=120,
    catches="A JupyterLab that does not start as this user, lets in whoever has no token, or does not end when asked.",
)
def run(_: Any) -> Measured:
    began = time.monotonic()
    with started() as server:
        seconds = time.monotonic() - began
        for token, who in (("", "without a token"), ("0" * 32, "with a wrong token")):
            status = server.ask("/api/contents", token=token).status
            expect(status in {401, 403}, f"the server answers {status} to whoever comes {who}, not 403")
        answer = server.ask("/api/contents", token=server.token)
        expect(answer.status == 200, f"the server answers {answer.status} to its own token, not 200")
        page = server.ask("/lab", token=server.token)
        expect(page.status == 200, f"the page of JupyterLab comes with status {page.status}, not 200")
        expect(b"jupyter-config-data" in page.body, "what the server gives for JupyterLab's page is another one")
        ended = stop(server)
    return {"start_seconds": round(seconds, 2), "stop_seconds": round(ended, 2)}
