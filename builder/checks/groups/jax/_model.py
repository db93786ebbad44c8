# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""A small transformer in jax.numpy alone that can learn the grammar, AdamW by hand, and training steps with both."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import jax
import numpy
from jax import numpy as jnp

from builder.checks import arrays, grammar

#: Roundings on the longest path from the embedding to the logits in a low type: input, weight and product of qkv; the
#: sum with its bias, as query, key and value; scores; probabilities; the mixed values; weight and product of proj;
#: input, weight and product of up, down and head. Embeddings, biases, softmax, layer normalization, gelu and the
#: residual sums are computed in float32.
ROUNDINGS = 18
#: Products of matrices in a forward pass. Each has two in the backward pass.
PRODUCTS = 7
DECAY = 0.01


def new_model(seed: int) -> dict[str, Any]:
    """Weights that depend on the seed alone, about 62,000 numbers, as float32 and by name."""
    random = numpy.random.default_rng(seed)
    width = grammar.WIDTH
    model: dict[str, Any] = {
        "symbols": random.standard_normal((grammar.SYMBOLS, width)),
        "places": random.standard_normal((grammar.CONTEXT, width)),
    }
    for name in ("before-attention", "before-mlp", "before-head"):
        model[f"{name}.scale"], model[f"{name}.bias"] = numpy.ones(width), numpy.zeros(width)
    linear = {"qkv": (width, 3), "proj": (width, 1), "up": (width, 4), "down": (4 * width, 1), "head": (width, 1)}
    for name, (inputs, times) in linear.items():
        limit = 1 / math.sqrt(inputs)
        model[f"{name}.weight"] = random.uniform(-limit, limit, (inputs, times * width))
        model[f"{name}.bias"] = random.uniform(-limit, limit, times * width)
    return {name: jnp.asarray(values, jnp.float32) for name, values in model.items()}


def _normalized(model: dict[str, Any], name: str, hidden: Any) -> Any:
    centred = hidden - hidden.mean(-1, keepdims=True)
    deviation = jnp.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
    return centred / deviation * model[f"{name}.scale"] + model[f"{name}.bias"]


def logits_of(model: dict[str, Any], symbols: Any, dtype: Any) -> Any:
    """Logits as float32; every product of matrices has inputs and result in `dtype`."""

    def product(equation: str, left: Any, right: Any) -> Any:
        return jnp.einsum(equation, left.astype(dtype), right.astype(dtype)).astype(jnp.float32)

    def linear(name: str, values: Any) -> Any:
        return product("...i,io->...o", values, model[f"{name}.weight"]) + model[f"{name}.bias"]

    batch, length = symbols.shape
    hidden = model["symbols"][symbols] + model["places"][:length]
    qkv = linear("qkv", _normalized(model, "before-attention", hidden))
    shape = (batch, length, 3, grammar.HEADS, grammar.WIDTH // grammar.HEADS)
    query, key, value = jnp.moveaxis(qkv.reshape(shape), 2, 0)
    scores = product("bqhc,bkhc->bhqk", query, key) / math.sqrt(shape[-1])
    causal = jnp.tril(jnp.ones((length, length), bool))
    attention = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf))
    mixed = product("bhqk,bkhc->bqhc", attention, value).reshape(batch, length, grammar.WIDTH)
    hidden = hidden + linear("proj", mixed)
    hidden = hidden + linear("down", jax.nn.gelu(linear("up", _normalized(model, "before-mlp", hidden))))
    return linear("head", _normalized(model, "before-head", hidden))


def loss_of(model: dict[str, Any], symbols: Any, dtype: Any = jnp.float32) -> Any:
    """Mean cross-entropy in nats over the symbols that the grammar determines, computed in float32."""
    logits = logits_of(model, symbols[:, :-1], dtype)[:, grammar.LAG - 1 :]
    targets = symbols[:, grammar.LAG :, None]
    return (jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, targets, -1)[..., 0]).mean()


def adamw(model: Any, state: Any, gradient: Any, rate: float = grammar.RATE) -> tuple[Any, Any]:
    """One step of AdamW (Loshchilov and Hutter, 2019) with its usual constants; everything stays in float32."""
    count = state["count"] + 1
    first = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, state["first"], gradient)
    second = jax.tree.map(lambda old, new: 0.999 * old + 0.001 * new * new, state["second"], gradient)

    def moved(weight: Any, one: Any, two: Any) -> Any:
        step = (one / (1 - 0.9**count)) / (jnp.sqrt(two / (1 - 0.999**count)) + 1e-8)
        return weight - rate * (step + DECAY * weight)

    return jax.tree.map(moved, model, first, second), {"count": count, "first": first, "second": second}


def new_state(model: Any) -> dict[str, Any]:
    """The state that AdamW begins with."""
    zeros = jax.tree.map(jnp.zeros_like, model)
    return {"count": jnp.zeros((), jnp.float32), "first": zeros, "second": zeros}


def step_of(model: Any, state: Any, symbols: Any, dtype: Any) -> tuple[Any, Any, Any]:
    """Loss, weights and state after one step, not compiled."""
    loss, gradient = jax.value_and_grad(loss_of)(model, symbols, dtype)
    return (loss, *adamw(model, state, gradient))


compiled_step = partial(jax.jit, static_argnames="dtype")(step_of)
gradient_of = partial(jax.jit, static_argnames="dtype")(jax.grad(loss_of))
compiled_loss = partial(jax.jit, static_argnames="dtype")(loss_of)


class Training:
    """Weights, the optimizer's state, and the curves of the steps taken."""

    def __init__(self, seed: int, dtype: Any = jnp.float32) -> None:
        self.dtype = jnp.dtype(dtype)
        self.model = new_model(seed)
        self.state = new_state(self.model)
        self.series: dict[str, list[float]] = {"loss": [], "step_seconds": []}

    def run(self, start: int, stop: int) -> list[float]:
        """The losses of the steps from `start` to before `stop`; a step's number is its batch's seed."""
        losses = []
        for number in range(start, stop):
            symbols = arrays.texts(grammar.BATCH, number)
            began = time.perf_counter()
            loss, self.model, self.state = compiled_step(self.model, self.state, symbols, dtype=self.dtype)
            losses.append(float(loss))
            self.series["step_seconds"].append(round(time.perf_counter() - began, 6))
        self.series["loss"] += losses
        return losses


def evaluate(model: dict[str, Any], dtype: Any) -> tuple[float, float]:
    """Loss on held-out texts, and the mean over the predictions of the largest logit's size."""
    symbols = arrays.texts(grammar.HELD_OUT, grammar.HELD_OUT_SEED)
    logits = jax.jit(logits_of, static_argnames="dtype")(model, symbols[:, :-1], dtype=jnp.dtype(dtype))
    return float(compiled_loss(model, symbols, dtype=jnp.dtype(dtype))), float(jnp.abs(logits).max(-1).mean())


def vector(tree: Any) -> Any:
    """Weights or gradients as one float64 vector."""
    return arrays.vector(jax.tree.leaves(tree))
