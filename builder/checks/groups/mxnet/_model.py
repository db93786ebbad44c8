# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""A small transformer in Gluon that can learn the grammar, and training steps with it."""

from __future__ import annotations

import math
import time
from typing import Any

import mxnet
from mxnet import autograd, gluon, nd

from builder.checks import arrays, grammar

#: Roundings on the longest path from the embedding to the logits, each operator's result: the sum of the embeddings;
#: three layer normalizations; qkv, its scaled scores, softmax, mixed values and proj; the two residual sums; up, gelu,
#: down; head.
ROUNDINGS = 16


class LanguageModel(gluon.HybridBlock):
    """Predicts the next symbol; about 62,000 parameters."""

    def __init__(self) -> None:
        # Names that do not count the models of a process: Horovod's ranks broadcast by name, and wait for each other.
        super().__init__(prefix="language-")
        width = grammar.WIDTH
        with self.name_scope():
            self.symbols = gluon.nn.Embedding(grammar.SYMBOLS, width)
            self.places = gluon.nn.Embedding(grammar.CONTEXT, width)
            self.before_attention = gluon.nn.LayerNorm(in_channels=width)
            self.qkv = gluon.nn.Dense(3 * width, flatten=False, in_units=width)
            self.proj = gluon.nn.Dense(width, flatten=False, in_units=width)
            self.before_mlp = gluon.nn.LayerNorm(in_channels=width)
            self.up = gluon.nn.Dense(4 * width, flatten=False, in_units=width)
            self.down = gluon.nn.Dense(width, flatten=False, in_units=4 * width)
            self.before_head = gluon.nn.LayerNorm(in_channels=width)
            self.head = gluon.nn.Dense(grammar.SYMBOLS, flatten=False, in_units=width)

    def hybrid_forward(self, F: Any, symbols: Any) -> Any:
        length, heads = grammar.CONTEXT, grammar.HEADS
        places = F.arange(length)
        hidden = F.broadcast_add(self.symbols(symbols), F.expand_dims(self.places(places), 0))
        qkv = F.reshape(self.qkv(self.before_attention(hidden)), (0, 0, 3, heads, -1))
        parts = F.split(F.transpose(qkv, (2, 0, 3, 1, 4)), num_outputs=3, axis=0, squeeze_axis=True)
        query, key, value = (F.reshape(part, (-3, 0, 0)) for part in parts)
        scores = F.batch_dot(query, key, transpose_b=True) / math.sqrt(grammar.WIDTH // heads)
        row = F.expand_dims(places, 1)
        future = F.broadcast_greater(F.expand_dims(places, 0), row)
        attention = F.softmax(F.broadcast_sub(scores, 1e4 * F.expand_dims(future, 0)), axis=-1)
        mixed = F.reshape(F.batch_dot(attention, value), (-4, -1, heads, 0, 0))
        mixed = F.reshape(F.transpose(mixed, (0, 2, 1, 3)), (0, 0, -3))
        hidden = hidden + self.proj(mixed)
        hidden = hidden + self.down(F.LeakyReLU(self.up(self.before_mlp(hidden)), act_type="gelu"))
        return self.head(self.before_head(hidden))


def new_model(seed: int, compiled: bool = True) -> LanguageModel:
    """A model whose weights depend on the seed alone, on the CPU."""
    mxnet.random.seed(seed)
    net = LanguageModel()
    net.initialize(mxnet.init.Xavier(), ctx=mxnet.cpu())
    if compiled:
        net.hybridize()
    return net


def loss_of(net: Any, symbols: Any) -> Any:
    """Mean cross-entropy in nats over the symbols that the grammar determines."""
    logits = net(nd.array(symbols[:, :-1]))[:, grammar.LAG - 1 :]
    targets = nd.array(symbols[:, grammar.LAG :])
    return -nd.pick(nd.log_softmax(logits, axis=-1), targets, axis=-1).mean()


def gradients(net: Any, symbols: Any) -> Any:
    """The gradient of the loss as one float64 vector, without a step."""
    with autograd.record():
        loss = loss_of(net, symbols)
    loss.backward()
    return arrays.vector(item.grad().asnumpy() for item in net.collect_params().values())


def weights(net: Any) -> Any:
    """The weights as one float64 vector."""
    return arrays.vector(item.data().asnumpy() for item in net.collect_params().values())


class Training:
    """A model with Gluon's own trainer; `series` has a loss per step."""

    def __init__(self, seed: int, optimizer: str = "adam", **options: float) -> None:
        self.net = new_model(seed)
        options = options or {"learning_rate": grammar.RATE}
        self.trainer = gluon.Trainer(self.net.collect_params(), optimizer, options, kvstore=None)
        self.series: dict[str, list[float]] = {"loss": [], "step_seconds": []}

    def step(self, symbols: Any) -> float:
        """One step on these texts; returns the loss."""
        began = time.perf_counter()
        with autograd.record():
            loss = loss_of(self.net, symbols)
        loss.backward()
        self.trainer.step(1)  # the loss is a mean already
        value = float(loss.asscalar())
        self.series["loss"].append(value)
        self.series["step_seconds"].append(round(time.perf_counter() - began, 6))
        return value

    def run(self, start: int, stop: int) -> list[float]:
        """The losses of the steps from `start` to before `stop`; a step's number is its batch's seed."""
        return [self.step(arrays.texts(grammar.BATCH, number)) for number in range(start, stop)]


def evaluate(net: Any) -> float:
    """Loss on held-out texts."""
    return float(loss_of(net, arrays.texts(grammar.HELD_OUT, grammar.HELD_OUT_SEED)).asscalar())
