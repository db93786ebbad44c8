# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Values of one process in both."""

from __future__ import annotations

from builder.checks import pair
from builder.checks.contract import Measured, check


@check(
    "jax.workers.broadcast",
    level="cpu",
    deadline=60,
    catches="Values of one process that do not arrive in the other.",
)
def run(launch: pair.Launch) -> Measured:
    return pair.expect_broadcast(launch)
