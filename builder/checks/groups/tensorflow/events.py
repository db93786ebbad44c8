# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""TensorBoard's event files."""

from __future__ import annotations

import importlib.util
import struct
import tempfile
from typing import Any

from builder.checks.contract import Measured, NotRun, check, expect
from builder.checks.groups.tensorflow import on_cpu


@check(
    "tensorflow.events",
    level="cpu",
    needs=("tensorboard",),
    deadline=90,
    catches="Event files that TensorFlow cannot write or TensorBoard cannot read.",
)
@on_cpu
def run(tensorflow: Any) -> Measured:
    if importlib.util.find_spec("tensorboard") is None:
        raise NotRun("tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    losses = [4.2, 2.1, 1.05, 0.7, 0.6]
    # Events hold float32; what is read back must be those bits.
    expected = [(step, struct.unpack("f", struct.pack("f", loss))[0]) for step, loss in enumerate(losses)]
    with tempfile.TemporaryDirectory() as directory:
        with tensorflow.summary.create_file_writer(directory).as_default():
            for step, loss in enumerate(losses):
                tensorflow.summary.scalar("loss", loss, step)
            tensorflow.summary.histogram("losses", losses, 0, buckets=3)
        events = EventAccumulator(directory).Reload()
        found = [(event.step, float(tensor_util.make_ndarray(event.tensor_proto))) for event in events.Tensors("loss")]
        histogram = tensor_util.make_ndarray(events.Tensors("losses")[0].tensor_proto)
    count = int(histogram[:, 2].sum())
    expect(found == expected, f"TensorBoard reads {found} where {expected} was written")
    expect(count == len(losses), f"TensorBoard reads a histogram of {count}, not {len(losses)} values")
    return {"scalars": len(found)}
