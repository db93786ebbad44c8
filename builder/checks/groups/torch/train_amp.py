# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Training in bfloat16."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check


@check(
    "torch.train.amp",
    level="cpu",
    deadline=120,
    catches="Mixed precision that is silently off or wrong, and a transformer that does not learn.",
)
def run(torch: Any) -> Measured:
    from builder.checks.groups.torch import _mixed

    return _mixed.train_mixed("cpu", torch.bfloat16)
