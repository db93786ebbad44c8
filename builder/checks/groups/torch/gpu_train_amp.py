# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Training in bfloat16 on a GPU."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check
from builder.checks.groups.torch import need_gpu


@check(
    "torch.gpu.train.amp",
    level="gpu",
    deadline=180,
    catches="A GPU image that trains on no GPU, or for whose device it has no kernels.",
)
def run(torch: Any) -> Measured:
    from builder.checks.groups.torch import _mixed

    need_gpu(torch)
    return {**_mixed.train_mixed("cuda", torch.bfloat16), "device": torch.cuda.get_device_name(0)}
