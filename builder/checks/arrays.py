# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What checks of several frameworks share and what needs NumPy alone: the texts of `grammar`, comparisons, files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy

from builder.checks import grammar
from builder.checks.contract import expect

#: Sequences of the joined batch; each rank gets its half.
JOINED = 32
#: Steps of each training of two ranks; the weights are compared after every one.
STEPS = 4


def texts(count: int, seed: int) -> Any:
    """`count` texts of `CONTEXT` + 1 symbols as int32, the same ones on every machine and device."""
    random = numpy.random.default_rng(seed)
    symbols = numpy.empty((count, grammar.CONTEXT + 1), dtype=numpy.int32)
    symbols[:, : grammar.LAG] = random.integers(grammar.SYMBOLS, size=(count, grammar.LAG))
    for place in range(grammar.LAG, grammar.CONTEXT + 1):
        likely = (random.random(count) < grammar.LIKELY).astype(numpy.int32)
        symbols[:, place] = grammar.next_symbol(symbols[:, place - grammar.LAG], likely)
    return symbols


def points(count: int, seed: int) -> tuple[Any, Any]:
    """Inputs and targets of a line in ten dimensions, as float32."""
    inputs = numpy.random.default_rng(seed).standard_normal((count, 10)).astype("float32")
    return inputs, inputs @ numpy.linspace(-1, 1, 10, dtype="float32").reshape(10, 1)


def vector(values: Iterable[Any]) -> Any:
    """Arrays as one float64 vector."""
    return numpy.concatenate([numpy.asarray(value, numpy.float64).reshape(-1) for value in values])


def relative_error(found: Any, expected: Any) -> float:
    """Norm of the difference over the norm of what was expected."""
    return float(numpy.linalg.norm(found - expected) / numpy.linalg.norm(expected))


def update_error(*results: Any) -> float:
    """The largest error, as a norm, that rounding leaves in differences of these float32 weight vectors.

    A step with plain SGD and rate 1 stores w - g, rounded to float32: off by at most u |w| in each number.
    """
    unit = grammar.UNIT_ROUNDOFF["float32"]
    return float(sum(unit * numpy.linalg.norm(result) for result in results))


def product_bound(terms: int, magnitude: Any) -> Any:
    """How far sums of `terms` float32 products may be from the exact ones, element by element.

    A sum of n products in any order is off by at most n u / (1 - n u) times the sum of their magnitudes (Higham,
    Accuracy and Stability of Numerical Algorithms, section 3.1); `magnitude` is the product of the absolute matrices.
    """
    error = terms * grammar.UNIT_ROUNDOFF["float32"]
    return error / (1 - error) * magnitude


def expect_close(found: Any, expected: Any, bound: Any, what: str) -> float:
    """Fails when an element is further from what was expected than its bound; returns the largest part of a bound."""
    error = numpy.abs(numpy.asarray(found, numpy.float64) - expected)
    inside = error <= bound
    where = int(numpy.argmax(numpy.where(numpy.isfinite(error), error - bound, numpy.inf)))
    expect(
        bool(inside.all()),
        f"{what} is off by {error.reshape(-1)[where]:.2e}, bound "
        f"{numpy.broadcast_to(bound, error.shape).reshape(-1)[where]:.2e}",
    )
    return float((error / numpy.maximum(bound, numpy.finfo(numpy.float64).tiny)).max())


def expect_finite(losses: Iterable[float], what: str) -> None:
    """Fails when a step's loss is no number."""
    for step, loss in enumerate(losses):
        expect(math.isfinite(loss), f"the loss of step {step} of {what} is {loss}")


def expect_precise(name: str, weight: Any, rounded: Callable[[Any], Any], dtype: str) -> None:
    """Fails when a float32 weight holds only numbers that the low type has too.

    Of the numbers of float32 one in 2^16 is a number of bfloat16, and one in 2^13 one of float16. Half of a weight of
    64 numbers, the smallest there is, cannot be so by chance. A weight that is one number throughout, as those of a
    layer normalization are at their start, tells nothing of that.

    Args:
        name: the weight's.
        weight: as float32.
        rounded: gives it rounded to the low type, as float32.
        dtype: that type's name.
    """
    if numpy.ptp(weight) == 0:
        return
    low = float(numpy.mean(numpy.asarray(rounded(weight)) == weight))
    expect(low <= 0.5, f"the weight {name} is kept in float32, but rounded to {dtype}: {low:.0%} of it")


# What ranks write down


def save(directory: Path, name: str, values: Any) -> str:
    """Writes a vector as raw float32 and returns its hash."""
    data = numpy.asarray(values, numpy.float32).tobytes()
    (directory / name).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def seed_of(rank: int) -> int:
    """Another one in each rank, so that equal weights can only come from a broadcast."""
    return 20 + rank


def half_of(joined: Any, rank: int) -> Any:
    """This rank's half of a batch."""
    return numpy.split(joined, 2)[rank]


class Watch:
    """Keeps the hash of a model's weights before a training and after each of its steps."""

    def __init__(self, directory: Path, name: str, rank: int, seeded: Any) -> None:
        self._directory, self._name, self._rank = directory, name, rank
        self.report: dict[str, Any] = {"seeded": self._save("seeded", seeded), "steps": [], "losses": []}
        self._data = hashlib.sha256()

    def _save(self, when: str, weights: Any) -> str:
        return save(self._directory, f"weights-{self._name}-{when}-{self._rank}", weights)

    def note(self, weights: Any) -> None:
        """Takes a vector of the weights, the first time for those that all ranks begin with."""
        self.report["steps"].append(self._save("last" if self.report["steps"] else "first", weights))

    def fed(self, batch: Any) -> Any:
        """The batch, written down as what this rank was given."""
        self._data.update(numpy.ascontiguousarray(batch).tobytes())
        return batch

    def done(self) -> dict[str, Any]:
        """The report, as `pair.expect_weights` reads it."""
        return {**self.report, "data": self._data.hexdigest()}
