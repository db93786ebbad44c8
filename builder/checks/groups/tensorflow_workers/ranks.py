# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Two workers that know of each other."""

from __future__ import annotations

from builder.checks import pair
from builder.checks.contract import Measured, check


@check(
    "tensorflow.workers.ranks",
    level="cpu",
    deadline=60,
    catches="Two workers that each believe to be alone, do not find each other, or crash or hang.",
)
def run(launch: pair.Launch) -> Measured:
    return pair.expect_ranks(launch, ("gradients", "weights"))
