# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""A training that was interrupted against one that was not."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from builder.checks.contract import Measured, check, expect, fail


@check(
    "torch.checkpoint",
    level="cpu",
    deadline=60,
    catches="A checkpoint from which training does not go on exactly as if it had not been interrupted.",
)
def run(torch: Any) -> Measured:
    from builder.checks import training

    half = 6
    first = training.new_training(4, dtype=torch.bfloat16)
    first.run(0, half)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "checkpoint.pt"
        state = {"model": first.model.state_dict(), "optimizer": first.optimizer.state_dict()}
        torch.save(state, path)
        size = path.stat().st_size
        saved = torch.load(path, weights_only=True)
    through = first.run(half, 2 * half)

    second = training.new_training(5, dtype=torch.bfloat16)  # another seed: all must come from the file
    second.model.load_state_dict(saved["model"])
    second.optimizer.load_state_dict(saved["optimizer"])
    resumed = second.run(half, 2 * half)
    expect(through == resumed, f"the losses differ after resuming: {through} and {resumed}")
    left, right = training.weights(first.model), training.weights(second.model)
    difference = float((left - right).abs().max())
    expect(torch.equal(left, right), f"the weights differ by {difference:.2e} after resuming")

    # The same without the optimizer's state must differ, or the comparison above proves nothing.
    third = training.new_training(5, dtype=torch.bfloat16)
    third.model.load_state_dict(saved["model"])
    if third.run(half, 2 * half) == through:
        fail("training goes on alike with and without the optimizer's state: nothing was compared")
    return {"bytes": size, "steps": half, "parameters": left.numel()}
