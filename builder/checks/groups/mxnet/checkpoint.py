# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Saving and resuming."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from builder.checks.contract import Measured, check, expect, fail

HALF = 6


@check(
    "mxnet.checkpoint",
    level="cpu",
    deadline=60,
    catches="A checkpoint from which training does not go on exactly as if it had not been interrupted.",
)
def run(mxnet: Any) -> Measured:
    from builder.checks.groups.mxnet import _model as model

    first = model.Training(4)
    first.run(0, HALF)
    second, third = model.Training(5), model.Training(5)  # another seed: all must come from the files
    with tempfile.TemporaryDirectory() as directory:
        weights, states = Path(directory, "weights"), Path(directory, "states")
        first.net.save_parameters(str(weights))
        first.trainer.save_states(str(states))
        size = weights.stat().st_size + states.stat().st_size
        for one in (second, third):
            one.net.load_parameters(str(weights))
        second.trainer.load_states(str(states))
    through = first.run(HALF, 2 * HALF)
    resumed = second.run(HALF, 2 * HALF)
    expect(through == resumed, f"the losses differ after resuming: {through} and {resumed}")
    difference = float(abs(model.weights(first.net) - model.weights(second.net)).max())
    expect(difference == 0, f"the weights differ by {difference:.2e} after resuming")
    # The same without the optimizer's state must differ, or the comparison above proves nothing.
    if third.run(HALF, 2 * HALF) == through:
        fail("training goes on alike with and without the optimizer's state: nothing was compared")
    return {"bytes": size, "steps": HALF, "parameters": len(model.weights(first.net))}
