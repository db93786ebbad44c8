# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""The numeric libraries on a GPU."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check
from builder.checks.groups.torch import need_gpu


@check(
    "torch.gpu.numerics",
    level="gpu",
    deadline=180,
    catches="A cuBLAS or cuDNN that is shadowed, does not fit the GPU or computes wrong numbers in some type.",
)
def run(torch: Any) -> Measured:
    from builder.checks.groups.torch import _libraries, _numerics

    need_gpu(torch)
    return {**_numerics.examine("cuda"), **_libraries.numeric_libraries(torch)}
