# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What an image with JAX promises: XLA computes what NumPy does, and what is differentiated and compiled trains."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

from builder.checks.contract import Group, Measured, NotRun, fail

#: The projects of a plugin, each for one major version of CUDA.
PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin")


def plugins() -> dict[str, str]:
    """The CUDA plugins that are installed: version by name."""
    found = {}
    for name in PLUGINS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def on_cpu(jax: Any) -> contextlib.AbstractContextManager[Any]:
    """What is computed meanwhile is computed on the CPU, also where there is a GPU."""
    return jax.default_device(jax.local_devices(backend="cpu")[0])


def gpu(jax: Any) -> Any:
    """The first GPU that JAX has.

    Raises:
        NotRun: there is no plugin, or no GPU was given to the check.
        Failed: there is a GPU, and JAX has none. It then computes on the CPU, with a line in the log.
    """
    if not plugins():
        raise NotRun("no GPU was given to the check: JAX has no plugin for CUDA")
    try:
        return jax.local_devices(backend="cuda")[0]
    except RuntimeError as error:
        said = str(error)
    devices = sorted(str(path) for path in Path("/dev").glob("nvidia[0-9]*"))
    if devices:
        fail(f"the container has {', '.join(devices)} and JAX has no GPU: {said}")
    raise NotRun("no GPU was given to the check: JAX has none")


def _prepare() -> tuple[Any, Measured]:
    """Imports JAX; a broken one fails the group, one that is not there leaves it not run."""
    if importlib.util.find_spec("jax") is None:
        raise NotRun("jax is not installed")
    import jax

    return jax, {"jax": {"version": jax.__version__, "plugins": plugins()}}


GROUP = Group(needs=("jax",), prepare=_prepare, deadline=90)
