# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""TensorBoard's event files."""

from __future__ import annotations

import importlib.util
import struct
import tempfile
from typing import Any

from builder.checks.contract import Measured, NotRun, check, expect


@check(
    "torch.events",
    level="cpu",
    needs=("tensorboard",),
    deadline=90,
    catches="Event files that torch cannot write or TensorBoard cannot read.",
)
def run(torch: Any) -> Measured:
    if importlib.util.find_spec("tensorboard") is None:
        raise NotRun("tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    from builder.checks import training

    losses = training.new_training(6).run(0, 5)
    # Events hold float32; what is read back must be those bits.
    expected = [(step, struct.unpack("f", struct.pack("f", loss))[0]) for step, loss in enumerate(losses)]
    with tempfile.TemporaryDirectory() as directory:
        with SummaryWriter(directory) as writer:
            for step, loss in enumerate(losses):
                writer.add_scalar("loss", loss, step)
            writer.add_histogram("losses", torch.tensor(losses), 0)
        events = EventAccumulator(directory).Reload()
        found = [(event.step, event.value) for event in events.Scalars("loss")]
        count = events.Histograms("losses")[0].histogram_value.num
    expect(found == expected, f"TensorBoard reads {found} where {expected} was written")
    expect(count == len(losses), f"TensorBoard reads a histogram of {count}, not {len(losses)} values")
    return {"scalars": len(found)}
