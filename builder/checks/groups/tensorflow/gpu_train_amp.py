# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Training in bfloat16 on a GPU."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check
from builder.checks.groups.tensorflow import need_gpu


@check(
    "tensorflow.gpu.train.amp",
    level="gpu",
    deadline=180,
    catches="A GPU image that trains on no GPU, or for whose device it has no kernels.",
)
def run(tensorflow: Any) -> Measured:
    need_gpu(tensorflow)
    from builder.checks.groups.tensorflow import _precision

    measured = _precision.train_mixed("bfloat16", "GPU:0")
    (gpu, *_) = tensorflow.config.list_physical_devices("GPU")
    return {**measured, "device": tensorflow.config.experimental.get_device_details(gpu).get("device_name", gpu.name)}
