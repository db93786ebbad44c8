# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Two processes that know of each other."""

from __future__ import annotations

from builder.checks import pair
from builder.checks.contract import Measured, check


@check(
    "jax.workers.ranks",
    level="cpu",
    deadline=60,
    catches="Two processes that each believe to be alone, do not find each other, or crash or hang.",
)
def run(launch: pair.Launch) -> Measured:
    return pair.expect_ranks(launch, ("allreduce", "broadcast", "gradients", "weights"))
