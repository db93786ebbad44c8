# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Numbers that are none must stay visible."""

from __future__ import annotations

import math
from typing import Any

from builder.checks.contract import Measured, check, expect, fail
from builder.checks.groups.jax import on_cpu


@check(
    "jax.nan",
    level="cpu",
    deadline=60,
    catches="A NaN or an overflow that is hidden: a diverged training looks like a good one.",
)
def run(jax: Any) -> Measured:
    with on_cpu(jax):
        return _poisoned(jax)


def _poisoned(jax: Any) -> Measured:
    import numpy

    from builder.checks import arrays, grammar
    from builder.checks.groups.jax import _model as model

    batch = arrays.texts(grammar.BATCH, 12)
    for dtype in ("float32", "bfloat16"):
        for poison in (math.nan, math.inf):
            training = model.Training(8, dtype)
            training.model["up.weight"] = training.model["up.weight"].at[0, 0].set(poison)
            loss, after, _ = model.compiled_step(training.model, training.state, batch, dtype=training.dtype)
            value = float(loss)
            expect(not math.isfinite(value), f"with a weight of {poison} the loss in {dtype} is {value}: it is hidden")
            head = numpy.asarray(after["head.weight"])
            expect(
                not bool(numpy.isfinite(head).all()),
                f"a step with a gradient that is not finite left finite weights in {dtype}: it is hidden",
            )
    with jax.debug_nans(True):
        try:
            jax.jit(lambda value: value - value)(jax.numpy.float32(math.inf)).block_until_ready()
        except FloatingPointError:
            return {"poisons": 4}
    fail("debug_nans lets a NaN pass that a compiled function computed")
