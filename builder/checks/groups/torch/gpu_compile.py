# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""torch.compile on a GPU."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check
from builder.checks.groups.torch import need_gpu


@check(
    "torch.gpu.compile",
    level="gpu",
    deadline=600,
    optional=True,
    catches="A Triton that does not work with the image's C compiler, or whose kernels compute something else.",
)
def run(torch: Any) -> Measured:
    from builder.checks.groups.torch import _compiled

    need_gpu(torch)
    return _compiled.compare("cuda")
