# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""TensorBoard's event files."""

from __future__ import annotations

from typing import Any

from builder.checks import event_files
from builder.checks.contract import Measured, check


@check(
    "mxnet.events",
    level="cpu",
    needs=("tensorboard",),
    deadline=60,
    catches="A TensorBoard that cannot write or read event files without TensorFlow.",
)
def run(mxnet: Any) -> Measured:
    return event_files.written_and_read()
