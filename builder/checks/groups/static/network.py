"""Imports, and whom they ask."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check, expect
from builder.checks.groups.static import _imports


@check(
    "static.network",
    level="static",
    deadline=270,
    catches="A framework whose import looks up names or opens connections beyond the container.",
)
def run(state: Any) -> Measured:
    for one in state.imports:
        asked = "; ".join(one.network[:3])
        expect(not one.network, f"importing {one.module} asks the network: {asked}", error=one.error)
        one.expect_imported(_imports.NETWORK)
    return {"imported": [one.module for one in state.imports]}
