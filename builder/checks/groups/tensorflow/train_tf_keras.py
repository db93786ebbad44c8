# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""The smallest network there is, in Keras 2."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check
from builder.checks.groups.tensorflow import on_cpu


@check(
    "tensorflow.train.tf-keras",
    level="cpu",
    needs=("tf-keras",),
    deadline=90,
    catches="A tf_keras that does not fit this TensorFlow: scripts for Keras 2 do not train.",
)
@on_cpu
def run(tensorflow: Any) -> Measured:
    import tf_keras

    from builder.checks.groups.tensorflow import _regression

    return _regression.train(tf_keras)
