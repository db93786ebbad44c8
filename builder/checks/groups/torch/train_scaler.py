# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Training in float16 with a gradient scaler."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, NotRun, check


@check(
    "torch.train.scaler",
    level="cpu",
    deadline=120,
    catches="A gradient scaler that skips every step, diverges, never unscales, or lets an overflow into the weights.",
)
def run(torch: Any) -> Measured:
    from builder.checks.groups.torch import _mixed

    if not hasattr(torch.amp, "GradScaler"):
        raise NotRun(f"torch {torch.__version__} has no gradient scaler for the CPU")
    return _mixed.train_scaled("cpu", torch.amp.GradScaler("cpu"))
