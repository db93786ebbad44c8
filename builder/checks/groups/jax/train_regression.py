# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""The smallest network there is."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check, expect
from builder.checks.groups.jax import on_cpu

STEPS = 300


@check(
    "jax.train.regression",
    level="cpu",
    deadline=60,
    catches="Derivatives or compiled steps that do not work at all: the smallest network does not fit a line.",
)
def run(jax: Any) -> Measured:
    with on_cpu(jax):
        return _train(jax)


def _train(jax: Any) -> Measured:
    from builder.checks import arrays
    from builder.checks.groups.jax import _model as model

    jnp = jax.numpy
    inputs, targets = arrays.points(64, 0)
    keys = jax.random.split(jax.random.key(0), 2)
    net = {
        "first": jax.random.uniform(keys[0], (11, 5), minval=-1, maxval=1) / 10**0.5,
        "second": jax.random.uniform(keys[1], (6, 1), minval=-1, maxval=1) / 5**0.5,
    }

    def error(net: Any) -> Any:
        hidden = jax.nn.relu(inputs @ net["first"][:-1] + net["first"][-1])
        return jnp.mean((hidden @ net["second"][:-1] + net["second"][-1] - targets) ** 2)

    def step(net: Any, state: Any) -> Any:
        loss, gradient = jax.value_and_grad(error)(net)
        return (loss, *model.adamw(net, state, gradient, rate=0.02))

    compiled = jax.jit(step)
    state, losses = model.new_state(net), []
    for _ in range(STEPS):
        loss, net, state = compiled(net, state)
        losses.append(float(loss))
    # The best constant has the variance of the targets as its loss; a tenth of it needs the inputs.
    bound = float(targets.var()) / 10
    found = float(error(net))
    expect(0 <= found < bound, f"a 10-5-1 network ends at loss {found:.4f}, bound {bound:.4f}", series={"loss": losses})
    return {"loss": found, "bound": bound, "steps": STEPS, "series": {"loss": losses}}
