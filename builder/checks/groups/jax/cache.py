# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""The cache of compiled programs, which a second process finds."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from builder.checks import pair
from builder.checks.contract import Measured, check, expect

VARIABLE = "JAX_COMPILATION_CACHE_DIR"


@check(
    "jax.cache",
    level="cpu",
    deadline=120,
    catches="A cache of compiled programs that cannot be written, or from which nothing comes back.",
)
def run(jax: Any) -> Measured:
    # Where the image itself says; else where a user would switch it on.
    cache = Path(os.environ.get(VARIABLE) or tempfile.mkdtemp(prefix="cache-", dir=Path.cwd()))
    found = []
    for which in ("first", "second"):
        directory = Path(tempfile.mkdtemp(prefix=f"{which}-", dir=Path.cwd()))
        command = pair.Command(
            f"the {which} process",
            pair.program("jax._cached", directory),
            {**os.environ, VARIABLE: str(cache), "JAX_PLATFORMS": "cpu"},
        )
        made = pair.launch([command], directory, 1, 50)
        found.append(made.section("compile")[0])
    expect(found[0]["result"] == found[1]["result"] != 0, f"a program from the cache computes {found[1]['result']}")
    expect(any(cache.iterdir()), f"the cache in {cache} holds nothing after a compilation")
    expect(found[1]["hits"] > 0, f"a second process did not find in {cache} what the first had compiled")
    return {"directory": str(cache), "hits": found[1]["hits"]}
