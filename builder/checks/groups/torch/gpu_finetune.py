# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Fine-tuning of a saved model on a GPU."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check
from builder.checks.groups.torch import need_gpu


@check(
    "torch.gpu.finetune",
    level="gpu",
    deadline=180,
    catches="A model that does not survive the way from the GPU into a file and back, or its fine-tuning there.",
)
def run(torch: Any) -> Measured:
    from builder.checks.groups.torch._finetune import finetune

    need_gpu(torch)
    return finetune("cuda")
