# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Sums and averages over the processes."""

from __future__ import annotations

from builder.checks import pair
from builder.checks.contract import Measured, check


@check(
    "jax.workers.allreduce",
    level="cpu",
    deadline=60,
    catches="Sums and averages over the processes that are wrong in some type, or not computed at all.",
)
def run(launch: pair.Launch) -> Measured:
    return pair.expect_reduced(launch)
