# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""TensorBoard's event files, written by TensorBoard itself: for frameworks that bring no writer of their own."""

from __future__ import annotations

import importlib.util
import struct
import tempfile

from builder.checks.contract import Measured, NotRun, expect


def written_and_read() -> Measured:
    """Writes scalars and reads them back; fails when they differ, and is not run without TensorBoard."""
    if importlib.util.find_spec("tensorboard") is None:
        raise NotRun("tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    losses = [4.2, 2.1, 1.05, 0.7, 0.6]
    # Events hold float32; what is read back must be those bits.
    expected = [(step, struct.unpack("f", struct.pack("f", loss))[0]) for step, loss in enumerate(losses)]
    with tempfile.TemporaryDirectory() as directory:
        writer = EventFileWriter(directory)
        for step, loss in enumerate(losses):
            value = Summary.Value(tag="loss", simple_value=loss)
            writer.add_event(Event(step=step, wall_time=float(step), summary=Summary(value=[value])))
        writer.close()
        events = EventAccumulator(directory).Reload()
        found = [(event.step, event.value) for event in events.Scalars("loss")]
    expect(found == expected, f"TensorBoard reads {found} where {expected} was written")
    return {"scalars": len(found)}
