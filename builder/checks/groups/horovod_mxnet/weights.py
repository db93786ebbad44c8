# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Weights of two ranks that train with a DistributedTrainer."""

from __future__ import annotations

from builder.checks import pair
from builder.checks.contract import Measured, check


@check(
    "horovod.mxnet.weights",
    level="cpu",
    deadline=60,
    catches="Ranks whose weights drift apart while they train on different data.",
)
def run(launch: pair.Launch) -> Measured:
    return pair.expect_weights(launch)
