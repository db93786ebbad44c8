"""What an import starts, and what becomes of it."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check, expect


@check(
    "static.processes",
    level="static",
    deadline=270,
    catches="An import that leaves a zombie or outlives itself, or any process left behind after a group of checks.",
)
def run(state: Any) -> Measured:
    # The controller adds to this outcome what it finds after each group.
    for one in state.imports:
        zombies = [f"{name} (process {pid})" for name, pid, status in one.children if status == "Z"]
        expect(not zombies, f"importing {one.module} leaves a zombie: {', '.join(zombies)}")
        left = [f"{name} (process {pid})" for name, pid in one.left]
        expect(not left, f"importing {one.module} leaves processes running: {', '.join(left)}")
        one.expect_imported("processes")
    return {"imported": [one.module for one in state.imports]}
