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
    # The package index takes no local versions: a torch from there that says 2.14.1+cu130 has 2.14.1 in its metadata.
    said = str(torch.__version__)
    expect(
        metadata in (said, said.partition("+")[0]),
        f"torch says it is {said}, its metadata says {metadata}",
    )
    product = torch.arange(6.0).reshape(2, 3) @ torch.arange(3.0)
    expect(product.tolist() == [5.0, 14.0], f"a product of matrices gave {product.tolist()}")
    return {"version": said}
