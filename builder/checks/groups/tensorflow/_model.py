# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""A small transformer in Keras 3 that can learn the grammar, and training steps with it.

The steps are written out, with a tape and `apply`: what `fit` does, and where ranks put their reduction.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy
import tensorflow

from builder.checks import grammar
from builder.checks.contract import expect

#: Roundings on the longest path from the embedding to the logits under a mixed policy, where every layer and every sum
#: puts out the low type: both embeddings and their sum (3); LayerNorm (1); weight, product and bias of qkv (3); scores
#: and their scale (2); softmax and its product with the values (2); weight, product and bias of proj (3); residual sum
#: (1); LayerNorm (1); weight, product and bias of up (3); the four operations of gelu (4); weight, product and bias of
#: down (3); residual sum (1); LayerNorm (1); weight, product and bias of head (3). LayerNorm computes in float32.
ROUNDINGS = 31


def texts(count: int, seed: int) -> Any:
    """`count` texts of `CONTEXT` + 1 symbols as int32, the same ones on every machine and device."""
    random = numpy.random.default_rng(seed)
    symbols = numpy.empty((count, grammar.CONTEXT + 1), dtype=numpy.int32)
    symbols[:, : grammar.LAG] = random.integers(grammar.SYMBOLS, size=(count, grammar.LAG))
    for place in range(grammar.LAG, grammar.CONTEXT + 1):
        likely = (random.random(count) < grammar.LIKELY).astype(numpy.int32)
        symbols[:, place] = grammar.next_symbol(symbols[:, place - grammar.LAG], likely)
    return symbols


class LanguageModel(keras.Model):
    """Predicts the next symbol; about 62,000 parameters. `seen` has the types of what its layers put out, by name."""

    def __init__(self) -> None:
        super().__init__()
        width = grammar.WIDTH
        self.symbols = keras.layers.Embedding(grammar.SYMBOLS, width)
        self.places = keras.layers.Embedding(grammar.CONTEXT, width)
        self.before_attention = keras.layers.LayerNormalization()
        self.qkv = keras.layers.Dense(3 * width)
        self.proj = keras.layers.Dense(width)
        self.before_mlp = keras.layers.LayerNormalization()
        self.up = keras.layers.Dense(4 * width)
        self.down = keras.layers.Dense(width)
        self.before_head = keras.layers.LayerNormalization()
        self.head = keras.layers.Dense(grammar.SYMBOLS)
        self.seen: dict[str, set[str]] = {}

    def _note(self, name: str, output: Any) -> Any:
        self.seen.setdefault(name, set()).add(output.dtype.name)
        return output

    def call(self, symbols: Any) -> Any:
        length, heads = grammar.CONTEXT, grammar.HEADS
        hidden = self.symbols(symbols) + self.places(tensorflow.range(length))
        qkv = self._note("qkv", self.qkv(self.before_attention(hidden)))
        qkv = tensorflow.reshape(qkv, (-1, length, 3, heads, grammar.WIDTH // heads))
        query, key, value = tensorflow.unstack(tensorflow.transpose(qkv, (2, 0, 3, 1, 4)))
        scores = tensorflow.matmul(query, key, transpose_b=True) / math.sqrt(grammar.WIDTH // heads)
        future = 1 - tensorflow.linalg.band_part(tensorflow.ones((length, length), scores.dtype), -1, 0)
        mixed = self._note("attention", tensorflow.matmul(tensorflow.nn.softmax(scores - 1e4 * future), value))
        mixed = tensorflow.reshape(tensorflow.transpose(mixed, (0, 2, 1, 3)), (-1, length, grammar.WIDTH))
        hidden = hidden + self._note("proj", self.proj(mixed))
        raised = tensorflow.nn.gelu(self._note("up", self.up(self.before_mlp(hidden))))
        hidden = hidden + self._note("down", self.down(raised))
        return self._note("head", self.head(self.before_head(hidden)))


def loss_of(logits: Any, symbols: Any) -> Any:
    """Mean cross-entropy in nats over the symbols that the grammar determines, computed in float32."""
    logits = tensorflow.cast(logits[:, grammar.LAG - 1 :], "float32")
    losses = tensorflow.nn.sparse_softmax_cross_entropy_with_logits(symbols[:, grammar.LAG :], logits)
    return tensorflow.reduce_mean(losses)


@contextlib.contextmanager
def policy(name: str) -> Iterator[None]:
    """Layers that are made meanwhile follow this policy, such as "mixed_bfloat16"."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def new_model(seed: int, under: str = "float32") -> LanguageModel:
    """A model whose weights depend on the seed alone."""
    keras.utils.set_random_seed(seed)
    with policy(under):
        model = LanguageModel()
        model(numpy.zeros((1, grammar.CONTEXT), numpy.int32))
    model.seen.clear()
    return model


def adamw() -> keras.optimizers.Optimizer:
    """AdamW with the rate that the grammar's steps are counted for."""
    return keras.optimizers.AdamW(grammar.RATE, weight_decay=0.01)


class Training:
    """A model with its optimizer; a `LossScaleOptimizer` scales the loss and skips steps that overflow."""

    def __init__(self, seed: int, under: str = "float32", optimizer: Any = None) -> None:
        self.model = new_model(seed, under)
        self.optimizer = adamw() if optimizer is None else optimizer
        self.optimizer.build(self.model.trainable_variables)
        self.series: dict[str, list[float]] = {"loss": [], "step_seconds": []}
        self._step = tensorflow.function(self._one_step)

    def loss(self, symbols: Any) -> Any:
        return loss_of(self.model(symbols[:, :-1]), symbols)

    def scaled_gradients(self, symbols: Any, factor: Any) -> Any:
        with tensorflow.GradientTape() as tape:
            loss = self.loss(symbols)
            scaled = self.optimizer.scale_loss(loss) * factor
        return loss, tape.gradient(scaled, self.model.trainable_variables)

    def _one_step(self, symbols: Any, factor: Any) -> Any:
        loss, gradients = self.scaled_gradients(symbols, factor)
        self.optimizer.apply(gradients, self.model.trainable_variables)
        return loss

    def gradients(self, symbols: Any) -> list[Any]:
        """Gradients of the loss for each variable, without a step, each operation by itself: nothing is compiled."""
        return list(self.scaled_gradients(tensorflow.constant(symbols), 1.0)[1])

    def step(self, symbols: Any, factor: float = 1.0) -> float:
        """One step on these texts, with the loss multiplied by `factor`; returns the loss."""
        began = time.perf_counter()
        loss = float(self._step(tensorflow.constant(symbols), tensorflow.constant(factor)))
        self.series["loss"].append(loss)
        self.series["step_seconds"].append(round(time.perf_counter() - began, 6))
        return loss

    def run(self, start: int, stop: int) -> list[float]:
        """The losses of the steps from `start` to before `stop`; a step's number is its batch's seed."""
        return [self.step(texts(grammar.BATCH, number)) for number in range(start, stop)]


def evaluate(model: LanguageModel) -> tuple[float, float]:
    """Loss on held-out texts, and the mean over the predictions of the largest logit's size."""
    symbols = texts(grammar.HELD_OUT, grammar.HELD_OUT_SEED)
    logits = model(symbols[:, :-1])
    largest = tensorflow.reduce_max(tensorflow.abs(tensorflow.cast(logits, "float32")), axis=-1)
    return float(loss_of(logits, symbols)), float(tensorflow.reduce_mean(largest))


def twin(model: LanguageModel, under: str) -> LanguageModel:
    """A model with the same weights that computes under another policy."""
    other = new_model(0, under)
    other.set_weights(model.get_weights())
    return other


def vector(values: Any) -> Any:
    """Variables or gradients as one float64 vector, those of embeddings in full."""
    dense = [tensorflow.convert_to_tensor(value) for value in values]
    return numpy.concatenate([value.numpy().astype(numpy.float64).reshape(-1) for value in dense])


def weights(model: keras.Model) -> Any:
    """The trainable weights of a model as one float64 vector."""
    return vector(variable.value for variable in model.trainable_variables)


def relative_error(found: Any, expected: Any) -> float:
    """Norm of the difference over the norm of what was expected."""
    return float(numpy.linalg.norm(found - expected) / numpy.linalg.norm(expected))


def update_error(*results: Any) -> float:
    """The largest error, as a norm, that rounding leaves in differences of these float32 weight vectors.

    A step with plain SGD and rate 1 stores w - g, rounded to float32: off by at most u |w| in each number.
    """
    unit = grammar.UNIT_ROUNDOFF["float32"]
    return float(sum(unit * numpy.linalg.norm(result) for result in results))


def expect_mixed(training: Training, dtype: str) -> None:
    """Fails unless the policy acted in the steps taken: activations in `dtype`, and all that is kept in float32."""
    seen = training.model.seen
    expect(len(seen) == 6, f"the model ran only {', '.join(sorted(seen)) or 'no layer'}")
    for name, types in seen.items():
        expect(types == {dtype}, f"the policy did not act: the output of {name} is {' and '.join(sorted(types))}")
    for variable in [*training.model.trainable_variables, *training.optimizer.variables]:
        name = variable.path
        expect(not variable.dtype.endswith("float16"), f"{name} is kept in {variable.dtype}, not float32")
    for variable in training.model.trainable_variables:
        # Of the numbers of float32 one in 2^16 is a number of bfloat16, and one in 2^13 one of float16. Half of a
        # weight of 64 numbers, the smallest there is, cannot be so by chance. A weight that is one number throughout,
        # as those of LayerNorm are at their start, tells nothing of that.
        if numpy.ptp(variable.numpy()) == 0:
            continue
        rounded = tensorflow.cast(tensorflow.cast(variable.value, dtype), "float32")
        low = float(numpy.mean(rounded.numpy() == variable.numpy()))
        expect(low <= 0.5, f"{variable.path} is kept in float32, but rounded to {dtype}: {low:.0%} of it")


def expect_placed(model: keras.Model, device: str) -> None:
    """Fails unless each weight is on a device, such as `GPU:0`: TensorFlow is silent of what it puts elsewhere."""
    for variable in model.trainable_variables:
        where = str(variable.value.device)
        expect(where.endswith(f"device:{device}"), f"{variable.path} is on {where or 'no device'}, not on {device}")


def expect_finite(losses: list[float], what: str) -> None:
    """Fails when a step's loss is no number."""
    for step, loss in enumerate(losses):
        expect(math.isfinite(loss), f"the loss of step {step} of {what} is {loss}")
