# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Training in bfloat16, under Keras's mixed policy."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check


@check(
    "tensorflow.train.amp",
    level="cpu",
    deadline=120,
    catches="A mixed policy that is silently off or wrong, and a transformer that does not learn.",
)
def run(tensorflow: Any) -> Measured:
    from builder.checks.groups.tensorflow import _precision

    return _precision.train_mixed("bfloat16", "CPU:0")
