# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""The smallest network there is, in Keras 3."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check, expect
from builder.checks.groups.tensorflow import on_cpu


@check(
    "tensorflow.train.regression",
    level="cpu",
    deadline=90,
    catches="A Keras that does not train at all: the smallest network there is does not fit a line.",
)
@on_cpu
def run(tensorflow: Any) -> Measured:
    import keras

    from builder.checks.groups.tensorflow import _regression

    backend = keras.backend.backend() if hasattr(keras, "backend") else ""
    expect(backend == "tensorflow", f"Keras computes with {backend}, not with TensorFlow")
    return _regression.train(keras)
