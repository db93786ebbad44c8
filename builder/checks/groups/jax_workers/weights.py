# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Weights of two processes that train."""

from __future__ import annotations

from builder.checks import pair
from builder.checks.contract import Measured, check


@check(
    "jax.workers.weights",
    level="cpu",
    deadline=60,
    catches="Processes whose weights drift apart while they train on different data.",
)
def run(launch: pair.Launch) -> Measured:
    return pair.expect_weights(launch)
