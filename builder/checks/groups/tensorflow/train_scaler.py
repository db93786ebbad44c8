# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Training in float16 with a loss scale."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check


@check(
    "tensorflow.train.scaler",
    level="cpu",
    deadline=120,
    catches="A loss scale that skips every step, never unscales, never grows, or lets an overflow into the weights.",
)
def run(tensorflow: Any) -> Measured:
    from builder.checks.groups.tensorflow import _precision

    return _precision.train_scaled("CPU:0")
