# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Data from worker processes to a GPU."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check
from builder.checks.groups.torch import need_gpu


@check(
    "torch.gpu.data",
    level="gpu",
    deadline=120,
    catches="Batches that arrive on the GPU with other numbers, or pinned memory that cannot be had.",
)
def run(torch: Any) -> Measured:
    from builder.checks.groups.torch import _loading

    need_gpu(torch)
    return _loading.load("cuda")
