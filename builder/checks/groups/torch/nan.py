# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Numbers that are none must stay visible."""

from __future__ import annotations

import math
from typing import Any

from builder.checks.contract import Measured, check, expect, fail


@check(
    "torch.nan",
    level="cpu",
    deadline=60,
    catches="A NaN or an overflow that is hidden: a diverged training looks like a good one.",
)
def run(torch: Any) -> Measured:
    operations = _operations(torch)
    for name, found in operations.items():
        expect(math.isnan(found), f"{name} of numbers with a NaN among them is {found}, not NaN")
    for dtype in (None, torch.bfloat16):
        _poisoned_training(torch, dtype)
    return {"operations": len(operations), "poisons": 2}


def _operations(torch: Any) -> dict[str, float]:
    """What operations give for a poisoned input; IEEE 754 says NaN for each."""
    functional = torch.nn.functional
    values = torch.tensor([[1.0, math.nan, 2.0], [0.5, 1.5, 3.0]])
    zeros = torch.zeros_like(values)
    found = {
        "the sum": values.sum(),
        "the mean": values.mean(),
        "the largest": values.max(),
        "the product": (values @ values.T)[0, 0],
        "relu": functional.relu(values)[0, 1],
        "softmax": functional.softmax(values, -1)[0, 0],
        "layer_norm": functional.layer_norm(values, (3,))[0, 0],
        "mse_loss": functional.mse_loss(values, zeros),
        "l1_loss": functional.l1_loss(values, zeros),
        "cross_entropy": functional.cross_entropy(values, torch.tensor([0, 1])),
        "the gradient's norm": torch.linalg.vector_norm(values),
        "infinity minus infinity": torch.tensor(math.inf) - torch.tensor(math.inf),
    }
    return {name: float(value) for name, value in found.items()}


def _poisoned_training(torch: Any, dtype: Any) -> None:
    """One weight that is no number: loss, gradient and, after a step, the weights must tell."""
    from builder.checks import language, training

    precision = f"autocast in {dtype}" if dtype else "float32"
    batch = language.texts(training.BATCH, 12)
    for poison in (math.nan, math.inf):
        one = training.new_training(8, dtype=dtype)
        with torch.no_grad():
            one.model.block.up.weight[0, 0] = poison
        loss = one.loss(batch)
        value = float(loss.item())
        expect(not math.isfinite(value), f"with a weight of {poison} the loss in {precision} is {value}: it is hidden")
        loss.backward()
        gradient = training.gradient(one.model)
        expect(
            not bool(torch.isfinite(gradient).all()),
            f"with a weight of {poison} the gradient in {precision} is finite: it is hidden",
        )
        try:
            torch.nn.utils.clip_grad_norm_(one.model.parameters(), 1.0, error_if_nonfinite=True)
        except RuntimeError:
            pass
        else:
            fail("clip_grad_norm_ with error_if_nonfinite let a gradient pass that is not finite")
        one.optimizer.step()
        head = one.model.head.weight
        expect(
            not bool(torch.isfinite(head).all()),
            f"a step with a gradient that is not finite left finite weights in {precision}: it is hidden",
        )
