# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What an image with Dask promises: a cluster of worker processes that computes."""

from __future__ import annotations

import importlib.util
from typing import Any

from builder.checks.contract import Group, Measured, NotRun


def _prepare() -> tuple[Any, Measured]:
    for package in ("dask", "distributed"):
        if importlib.util.find_spec(package) is None:
            raise NotRun(f"{package} is not installed")
    import distributed

    return distributed, {"dask": {"version": distributed.__version__}}


GROUP = Group(needs=("dask", "distributed"), prepare=_prepare, deadline=90)
