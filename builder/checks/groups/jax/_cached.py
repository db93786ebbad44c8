# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Compiles one function with the cache switched on, and tells what came from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from builder.checks.rank_report import run_sections


def main(directory: Path) -> int:
    """Runs as a process of `jax.cache`."""
    hits = []

    def listen(event: str, **_: Any) -> None:
        if event.endswith("/cache_hits"):
            hits.append(event)

    def compile_one() -> dict[str, Any]:
        jax.monitoring.register_event_listener(listen)
        # What compiles within a second, or is small, is not kept otherwise.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        values = jax.numpy.arange(64.0).reshape(8, 8)
        result = jax.jit(lambda matrix: (matrix @ matrix.T).sum())(values)
        return {"result": float(result), "hits": len(hits)}

    report = {"rank": 0, "size": 1}
    return 0 if run_sections(directory, 0, report, {"compile": compile_one}) else 1
