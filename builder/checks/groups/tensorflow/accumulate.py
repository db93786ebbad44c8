# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Micro-batches against one batch."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check, expect
from builder.checks.groups.tensorflow import on_cpu

PARTS = 4


@check(
    "tensorflow.accumulate",
    level="cpu",
    deadline=90,
    catches="Gradients of micro-batches that do not add up to the gradient of the whole batch.",
)
@on_cpu
def run(tensorflow: Any) -> Measured:
    import keras
    import numpy

    from builder.checks import grammar
    from builder.checks.groups.tensorflow import _model as model

    batch = model.texts(grammar.BATCH, 3)
    # Plain SGD with rate 1 subtracts the gradient, so that the weights show it.
    whole = model.Training(3, optimizer=keras.optimizers.SGD(1.0))
    start = model.weights(whole.model)
    whole.step(batch)
    expected = start - model.weights(whole.model)

    parts = model.Training(3, optimizer=keras.optimizers.SGD(1.0, gradient_accumulation_steps=PARTS))
    norms = []
    for number, part in enumerate(numpy.split(batch, PARTS)):
        now = model.weights(parts.model)
        expect(bool(numpy.array_equal(now, start)), f"micro-batch {number} of {PARTS} came with other weights")
        norms.append(numpy.linalg.norm(model.vector(parts.gradients(part))) / PARTS)
        parts.step(part)
    found = start - model.weights(parts.model)
    error = model.relative_error(found, expected)
    size = float(numpy.linalg.norm(expected))
    bound = grammar.summation_bound(grammar.BATCH, model.ROUNDINGS, float(sum(norms)) / size)
    bound += model.update_error(start, start) / size
    expect(
        error <= bound,
        f"{PARTS} micro-batches and one batch differ by {error:.2e} of the gradient, bound {bound:.2e}",
    )
    return {"error": error, "bound": bound, "micro_batches": PARTS}
