# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What an image with Apache MXNet promises: its operators compute what NumPy does, and Gluon trains."""

from __future__ import annotations

import importlib.util
from typing import Any

from builder.checks.contract import Group, Measured, NotRun


def features(mxnet: Any) -> set[str]:
    """What this build of MXNet was compiled with, such as CUDA or MKLDNN."""
    return {str(feature.name) for feature in mxnet.runtime.feature_list() if feature.enabled}


def _prepare() -> tuple[Any, Measured]:
    """Imports MXNet; a broken one fails the group, one that is not there leaves it not run."""
    if importlib.util.find_spec("mxnet") is None:
        raise NotRun("mxnet is not installed")
    import mxnet

    return mxnet, {"mxnet": {"version": mxnet.__version__, "features": sorted(features(mxnet))}}


GROUP = Group(needs=("mxnet",), prepare=_prepare, deadline=90)
