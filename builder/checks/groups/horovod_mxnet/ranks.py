# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Two processes that know of each other."""

from __future__ import annotations

from builder.checks import pair
from builder.checks.contract import Measured, check


@check(
    "horovod.mxnet.ranks",
    level="cpu",
    deadline=60,
    catches="Two processes that each believe to be alone, or that crash or hang when they end.",
)
def run(launch: pair.Launch) -> Measured:
    return pair.expect_ranks(launch, ("allreduce", "broadcast", "exchange", "gradients", "weights"))
