# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""The versions of JAX and of the library below it."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from builder.checks.contract import Measured, check, expect
from builder.checks.groups.jax import plugins


@check(
    "jax.version",
    level="cpu",
    deadline=60,
    catches="A JAX whose metadata says another version than its code, or with a jaxlib or a plugin of another release.",
)
def run(jax: Any) -> Measured:
    import jaxlib

    for name, module in (("jax", jax), ("jaxlib", jaxlib)):
        metadata = importlib.metadata.version(name)
        expect(module.__version__ == metadata, f"{name} says it is {module.__version__}, its metadata say {metadata}")
    for name, version in plugins().items():
        # A plugin of another release is left out at the start, with a warning only: JAX then computes on the CPU.
        expect(version == jaxlib.__version__, f"{name} is {version}, jaxlib {jaxlib.__version__}: JAX does not load it")
    return {"version": jax.__version__, "jaxlib": jaxlib.__version__, "plugins": plugins()}
