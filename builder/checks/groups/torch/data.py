# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Data from worker processes."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check


@check(
    "torch.data",
    level="cpu",
    deadline=120,
    catches="DataLoader workers that die or hand on wrong numbers: too little shared memory, another NumPy.",
)
def run(torch: Any) -> Measured:
    from builder.checks.groups.torch import _loading

    return _loading.load("cpu")
