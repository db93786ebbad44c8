# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Two ranks that accumulate against one process on the joined batch."""

from __future__ import annotations

from builder.checks import pair
from builder.checks.contract import Measured, check


@check(
    "horovod.accumulate",
    level="cpu",
    deadline=60,
    catches="Accumulated gradients of two processes that are not that of one large batch.",
)
def run(launch: pair.Launch) -> Measured:
    return pair.expect_gradients(launch, "accumulate")
