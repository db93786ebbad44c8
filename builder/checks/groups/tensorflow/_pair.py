# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What one of two ranks computes with TensorFlow, and writes down for `pair` to compare.

Nothing that is compared between the ranks travels through what reduces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy

from builder.checks import grammar
from builder.checks.groups.tensorflow import _model as model

#: Sequences of the joined batch; each rank gets its half.
JOINED = 32
#: Steps of each training; the weights are compared after every one.
STEPS = 4

#: What the ranks train with: with and without momentum, moments and decay.
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd-momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(grammar.RATE),
    "adamw": lambda: keras.optimizers.AdamW(grammar.RATE, weight_decay=0.01),
}


def save(directory: Path, name: str, vector: Any) -> str:
    """Writes a vector as raw float32 and returns its hash."""
    data = numpy.asarray(vector, numpy.float32).tobytes()
    (directory / name).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def seed_of(rank: int) -> int:
    """Another one in each rank, so that equal weights can only come from a broadcast."""
    return 20 + rank


def half_of(joined: Any, rank: int) -> Any:
    """This rank's half of a batch."""
    return numpy.split(joined, 2)[rank]


def halves(directory: Path, rank: int) -> Any:
    """This rank's half of the joined batch; writes its gradient, and in rank 0 that of the joined batch."""
    joined = model.texts(JOINED, 11)
    half = half_of(joined, rank)
    training = model.Training(7)
    save(directory, f"gradient-alone-{rank}", model.vector(training.gradients(half)))
    if rank == 0:
        save(directory, "gradient-joined-0", model.vector(training.gradients(joined)))
    return half


def gradient_report(net: Any, gradient: Any, *weights: Any) -> dict[str, Any]:
    """What the parent needs to know of a reduced gradient beside its file.

    Args:
        net: the model.
        gradient: the vector.
        weights: vectors of stored weights that it is the difference of, when it is.
    """
    bound = grammar.summation_bound(JOINED, model.ROUNDINGS, condition=1.0)
    if weights:
        bound += model.update_error(*weights) / float(numpy.linalg.norm(gradient))
    return {"parameters": sum(int(numpy.prod(item.shape)) for item in net.trainable_variables), "bound": bound}


class Watch:
    """Keeps the hash of a model's weights before a training and after each of its steps."""

    def __init__(self, directory: Path, name: str, rank: int, weights: Callable[[], Any]) -> None:
        self._directory, self._name, self._rank, self._weights = directory, name, rank, weights
        self.report: dict[str, Any] = {"seeded": self._save("seeded"), "steps": [], "losses": []}
        self._data = hashlib.sha256()

    def _save(self, when: str) -> str:
        return save(self._directory, f"weights-{self._name}-{when}-{self._rank}", self._weights())

    def follow(self, weights: Callable[[], Any]) -> None:
        """From now on the weights are these."""
        self._weights = weights

    def note(self) -> None:
        """Takes the weights as they are now, the first time for those that all ranks begin with."""
        self.report["steps"].append(self._save("last" if self.report["steps"] else "first"))

    def fed(self, batch: Any) -> Any:
        """The batch, written down as what this rank was given."""
        self._data.update(numpy.asarray(batch).tobytes())
        return batch

    def done(self) -> dict[str, Any]:
        """The report, as `pair.expect_weights` reads it."""
        return {**self.report, "data": self._data.hexdigest()}


def points(count: int, seed: int) -> tuple[Any, Any]:
    """Inputs and targets of a line in ten dimensions."""
    inputs = numpy.random.default_rng(seed).standard_normal((count, 10)).astype("float32")
    return inputs, inputs @ numpy.linspace(-1, 1, 10, dtype="float32").reshape(10, 1)


def small_net(maker: Any, seed: int) -> Any:
    """A 10-5-1 network of either Keras."""
    maker.utils.set_random_seed(seed)
    return maker.Sequential([maker.layers.Input((10,)), maker.layers.Dense(5, "tanh"), maker.layers.Dense(1)])
