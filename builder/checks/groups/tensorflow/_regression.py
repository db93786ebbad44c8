# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""The smallest network there is, with either Keras: they have the same names here."""

from __future__ import annotations

from typing import Any

import numpy

from builder.checks.contract import Measured, expect

#: Ten epochs, since an epoch costs Keras more than thirty steps of so small a network.
EPOCHS = 10
STEPS = 300


def train(keras: Any) -> Measured:
    """Fits a 10-5-1 network to a line with Adam and the mean squared error, as a first script would."""
    keras.utils.set_random_seed(0)
    inputs = numpy.random.default_rng(0).standard_normal((64, 10)).astype("float32")
    targets = inputs @ numpy.linspace(-1, 1, 10, dtype="float32").reshape(10, 1)
    layers = [keras.layers.Input((10,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(1)]
    net = keras.Sequential(layers)
    net.compile(keras.optimizers.Adam(0.02), "mse")
    # Every batch holds all points, as often as an epoch has steps.
    repeats = (STEPS // EPOCHS, 1)
    several = (numpy.tile(inputs, repeats), numpy.tile(targets, repeats))
    history = net.fit(*several, batch_size=64, epochs=EPOCHS, shuffle=False, verbose=0)
    losses = [float(loss) for loss in history.history["loss"]]
    # The best constant has the variance of the targets as its loss; a tenth of it needs the inputs.
    bound = float(targets.var()) / 10
    predicted = net.predict(inputs, batch_size=64, verbose=0)
    found = float(numpy.mean((predicted - targets) ** 2))
    expect(0 <= found < bound, f"a 10-5-1 network ends at loss {found:.4f}, bound {bound:.4f}", series={"loss": losses})
    return {"loss": found, "bound": bound, "steps": STEPS, "keras": keras.__version__, "series": {"loss": losses}}
