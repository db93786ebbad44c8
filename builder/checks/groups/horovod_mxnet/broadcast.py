# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Values of one rank in all."""

from __future__ import annotations

from builder.checks import pair
from builder.checks.contract import Measured, check


@check(
    "horovod.mxnet.broadcast",
    level="cpu",
    deadline=60,
    catches="A broadcast after which the ranks do not have the root's values.",
)
def run(launch: pair.Launch) -> Measured:
    return pair.expect_broadcast(launch)
