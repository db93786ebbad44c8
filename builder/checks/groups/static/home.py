"""Imports with no home directory and no user name."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from builder.checks.contract import Measured, check, fail
from builder.checks.groups.static import _imports


@check(
    "static.home",
    level="static",
    deadline=270,
    catches="A framework, or Python itself, that cannot be imported with HOME=/ and without USER.",
)
def run(state: Any) -> Measured:
    for one in state.imports:
        if one.blame == _imports.HOME:
            fail(f"importing {one.module} needs a home directory or a user name: {one.error}", detail=one.detail)
        one.expect_imported(_imports.HOME)
    names = [one.module for one in state.imports]
    return {"imported": names, "temporary": tempfile.gettempdir(), "home": os.environ.get("HOME", "")}
