# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Two processes against one."""

from __future__ import annotations

from builder.checks import pair
from builder.checks.contract import Measured, check


@check(
    "jax.workers.gradients",
    level="cpu",
    deadline=60,
    catches="Gradients of two processes that are not the gradient of one process on the joined batch.",
)
def run(launch: pair.Launch) -> Measured:
    return pair.expect_gradients(launch)
