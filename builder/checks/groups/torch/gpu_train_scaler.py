# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Training in float16 on a GPU."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check
from builder.checks.groups.torch import need_gpu


@check(
    "torch.gpu.train.scaler",
    level="gpu",
    deadline=180,
    catches="Training in float16 on the GPU that overflows or never steps.",
)
def run(torch: Any) -> Measured:
    from builder.checks.groups.torch import _mixed

    need_gpu(torch)
    return _mixed.train_scaled("cuda", torch.amp.GradScaler("cuda"))
