# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Fine-tuning of a saved model."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check


@check(
    "torch.finetune",
    level="cpu",
    deadline=120,
    catches="Pre-trained weights that do not load, frozen layers that move, or a new head that learns nothing.",
)
def run(torch: Any) -> Measured:
    from builder.checks.groups.torch._finetune import finetune

    return finetune("cpu")
