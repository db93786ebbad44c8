# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""The version of torch, and a first product."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from builder.checks.contract import Measured, check, expect


@check(
    "torch.version",
    level="cpu",
    deadline=30,
    catches="A torch whose metadata says another version than its code, or whose kernels do not load.",
)
def run(torch: Any) -> Measured:
    metadata = importlib.metadata.version("torch")
    expect(
        str(torch.__version__) == metadata,
        f"torch says it is {torch.__version__}, its metadata says {metadata}",
    )
    product = torch.arange(6.0).reshape(2, 3) @ torch.arange(3.0)
    expect(product.tolist() == [5.0, 14.0], f"a product of matrices gave {product.tolist()}")
    return {"version": metadata}
