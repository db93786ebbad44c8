# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Numbers that are none must stay visible."""

from __future__ import annotations

import math
from typing import Any

from builder.checks.contract import Measured, check, expect


@check(
    "mxnet.nan",
    level="cpu",
    deadline=60,
    catches="A NaN or an overflow that is hidden: a diverged training looks like a good one.",
)
def run(mxnet: Any) -> Measured:
    import numpy

    from builder.checks import arrays, grammar
    from builder.checks.groups.mxnet import _model as model

    batch = arrays.texts(grammar.BATCH, 12)
    for poison in (math.nan, math.inf):
        training = model.Training(8)
        weight = training.net.up.weight
        values = weight.data().asnumpy()
        values[0, 0] = poison
        weight.set_data(mxnet.nd.array(values))
        loss = training.step(batch)
        expect(not math.isfinite(loss), f"with a weight of {poison} the loss is {loss}: it is hidden")
        moved = training.net.head.weight.data().asnumpy()
        expect(
            not bool(numpy.isfinite(moved).all()),
            "a step with a gradient that is not finite left finite weights: it is hidden",
        )
    return {"poisons": 2}
