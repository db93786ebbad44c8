# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Saving and resuming, in TensorFlow's format and in Keras's own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from builder.checks.contract import Measured, check, expect, fail
from builder.checks.groups.tensorflow import on_cpu

HALF = 6


@check(
    "tensorflow.checkpoint",
    level="cpu",
    deadline=90,
    catches="A checkpoint from which training does not go on exactly as if it had not been interrupted.",
)
@on_cpu
def run(tensorflow: Any) -> Measured:
    from builder.checks.groups.tensorflow import _model as model

    def files(training: model.Training) -> Any:
        return tensorflow.train.Checkpoint(model=training.model, optimizer=training.optimizer)

    first = model.Training(4, "mixed_bfloat16")
    first.run(0, HALF)
    second = model.Training(5, "mixed_bfloat16")  # another seed: all must come from the file
    third = model.Training(5, "mixed_bfloat16")
    with tempfile.TemporaryDirectory() as directory:
        path = files(first).write(f"{directory}/checkpoint")
        size = sum(file.stat().st_size for file in Path(directory).iterdir())
        files(second).read(path).assert_consumed()
        tensorflow.train.Checkpoint(model=third.model).read(path).expect_partial()
    through = first.run(HALF, 2 * HALF)
    resumed = second.run(HALF, 2 * HALF)
    expect(through == resumed, f"the losses differ after resuming: {through} and {resumed}")
    difference = float(abs(model.weights(first.model) - model.weights(second.model)).max())
    expect(difference == 0, f"the weights differ by {difference:.2e} after resuming")
    # The same without the optimizer's state must differ, or the comparison above proves nothing.
    if third.run(HALF, 2 * HALF) == through:
        fail("training goes on alike with and without the optimizer's state: nothing was compared")
    _whole_model()
    return {"bytes": size, "steps": HALF, "parameters": len(model.weights(first.model))}


def _whole_model() -> None:
    """One `.keras` file holds a model, what it was compiled with and its optimizer's state."""
    import keras
    import numpy

    random = numpy.random.default_rng(4)
    inputs, targets = (random.standard_normal((16, width)).astype("float32") for width in (10, 1))
    keras.utils.set_random_seed(4)
    net = keras.Sequential([keras.layers.Input((10,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(1)])
    net.compile(keras.optimizers.Adam(0.02), "mse")

    def train(one: Any) -> list[float]:
        losses = []
        for _ in range(HALF):
            one.reset_metrics()  # what train_on_batch gives is the mean of all steps since, up to Keras 3.10 at least
            losses.append(float(one.train_on_batch(inputs, targets)))
        return losses

    train(net)
    with tempfile.TemporaryDirectory() as directory:
        net.save(f"{directory}/net.keras")
        loaded = keras.models.load_model(f"{directory}/net.keras")
    through, resumed = train(net), train(loaded)
    expect(through == resumed, f"a .keras file is resumed with other losses: {through} and {resumed}")
