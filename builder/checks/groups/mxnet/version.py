# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""The version of MXNet, and what it is built with."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from builder.checks.contract import Measured, check, expect
from builder.checks.groups.mxnet import features


def brought_by() -> list[str]:
    """The installed projects that bring the module: each build for a CUDA is one of its own, such as mxnet-cu112."""
    found = set()
    for distribution in importlib.metadata.distributions():
        if any(str(path) == "mxnet/__init__.py" for path in distribution.files or ()):
            found.add(distribution.metadata["Name"])
    return sorted(found)


@check(
    "mxnet.version",
    level="cpu",
    deadline=60,
    catches="An MXNet whose metadata says another version than its code, or two builds over each other.",
)
def run(mxnet: Any) -> Measured:
    bring = brought_by()
    expect(len(bring) == 1, f"{' and '.join(bring) or 'no package'} brought the module mxnet: one must")
    metadata = importlib.metadata.version(bring[0])
    expect(mxnet.__version__ == metadata, f"mxnet says it is {mxnet.__version__}, its metadata say {metadata}")
    cuda = "CUDA" in features(mxnet)
    expect(cuda == ("-cu" in bring[0]), f"{bring[0]} is built {'for' if cuda else 'without'} CUDA")
    product = mxnet.nd.dot(mxnet.nd.arange(6).reshape((2, 3)), mxnet.nd.arange(3)).asnumpy().tolist()
    expect(product == [5.0, 14.0], f"a product of matrices gave {product}")
    return {"version": metadata, "from": bring[0], "cuda": cuda}
