# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""The version of TensorFlow, who brings it, and a first product."""

from __future__ import annotations

import re
from typing import Any

from builder.checks.contract import Measured, check, expect
from builder.checks.groups.tensorflow import installed


@check(
    "tensorflow.version",
    level="cpu",
    deadline=60,
    catches="A TensorFlow whose metadata says another version than its code, or two builds over each other.",
)
def run(tensorflow: Any) -> Measured:
    version = str(tensorflow.__version__)
    found = installed()
    expect(bool(found), "no installed package says that it is TensorFlow")
    for project, distribution in found.items():
        expect(
            _plain(distribution.version) == _plain(version),
            f"TensorFlow says it is {version}, the metadata of {project} says {distribution.version}",
        )
    bring = [
        project
        for project, distribution in found.items()
        if any(str(path) == "tensorflow/__init__.py" for path in distribution.files or ())
    ]
    expect(len(bring) == 1, f"{' and '.join(bring) or 'no package'} brought the module tensorflow: one must")
    product = tensorflow.constant([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]) @ tensorflow.constant([[0.0], [1.0], [2.0]])
    expect(product.numpy().tolist() == [[5.0], [14.0]], f"a product of matrices gave {product.numpy().tolist()}")
    return {"version": version, "from": bring[0]}


def _plain(version: str) -> str:
    """A version without the dashes and dots before `rc` and `dev`, which TensorFlow writes other than its metadata."""
    return re.sub(r"[-.]?(rc|dev)", r"\1", version)
