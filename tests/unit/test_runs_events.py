"""TensorBoard event files: checksums, framing, and which values stand where. TensorBoard itself reads them in
tests/engine/test_run_directory.py."""

from __future__ import annotations

import math
import struct

import pytest
from some_runs import CHECKS, CURVES, STARTED, outcome

from builder.check import Status
from builder.engine import wire
from builder.runs.events import MAX_VALUES, VERSION, crc32c, event_file, file_name, losses, record, single

READ_10 = bytes.fromhex(
    "01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018 28000000 00000000 02000000 00000000"
)


@pytest.mark.parametrize(
    ("data", "sent"),
    [
        (bytes(32), "aa36918a"),
        (b"\xff" * 32, "43aba862"),
        (bytes(range(32)), "4e79dd46"),
        (bytes(range(31, -1, -1)), "5cdb3f11"),
        (READ_10, "563a96d9"),
    ],
    ids=["zeros", "ones", "ascending", "descending", "read-10"],
)
def test_checksums_are_those_of_rfc_3720_appendix_b4(data: bytes, sent: str) -> None:
    assert struct.pack("<I", crc32c(data)).hex() == sent


def records(data: bytes) -> list[bytes]:
    """The records of an event file, each framed once more and compared: the frame is a function of the data."""
    found, at = [], 0
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        payload = data[at + 12 : at + 12 + size]
        assert data[at : at + 16 + size] == record(payload)
        found.append(payload)
        at += 16 + size
    return found


def scalars(data: bytes) -> list[tuple[str, int, float, float]]:
    """Every scalar of an event file as (tag, step, wall time, value); the first event must say the version."""
    first, *events = records(data)
    assert (3, VERSION.encode()) in list(wire.fields(first))
    found = []
    for event in events:
        fields = dict(wire.fields(event))
        step = wire.unsigned(fields.get(2, 0))
        (wall_time,) = struct.unpack("<d", wire.binary(fields[1]))
        for number, value in wire.fields(wire.binary(fields[5])):
            assert number == 1
            parts = dict(wire.fields(wire.binary(value)))
            (number_found,) = struct.unpack("<f", wire.binary(parts[2]))
            found.append((wire.text(parts[1]), step, wall_time, number_found))
    return found


def test_a_frame_as_other_writers_make_it() -> None:
    """The first record of any event file of the field; the bytes of its two checksums follow from the definition."""
    framed = record(b"")
    assert framed[:8] == bytes(8)
    # CRC-32C of eight zero bytes is 0x8c28b28a: rotated right by 15 bits, plus the constant.
    crc = 0x8C28B28A
    assert crc32c(bytes(8)) == crc
    masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32
    assert struct.unpack("<I", framed[8:12]) == (masked,)
    assert framed[12:] == struct.pack("<I", 0xA282EAD8)  # the checksum of nothing is 0


def test_every_value_has_its_tag_and_step() -> None:
    data = event_file(CHECKS, STARTED)
    assert data is not None
    found = {(tag, step): value for tag, step, _, value in scalars(data)}
    assert found == {
        (f"torch.train.amp/{name}", step): value for name, curve in CURVES.items() for step, value in enumerate(curve)
    }


def test_wall_times_follow_the_checks_and_their_steps() -> None:
    data = event_file(CHECKS, STARTED)
    assert data is not None
    # static.python took 1.5 s before it; then the steps took 0.5, 0.25 and 0.5 s.
    begun = STARTED.timestamp() + 1.5
    times = [time for tag, _, time, _ in scalars(data) if tag.endswith("/loss")]
    assert times == [begun + 0.5, begun + 0.75, begun + 1.25]


@pytest.mark.parametrize("strange", [(1e9, 1e9), (-5.0, 1.0), (math.nan, 0.1), (0.1,)])
def test_step_times_that_cannot_be_leave_steps_of_equal_length(strange: tuple[float, ...]) -> None:
    check = outcome("torch.train.amp", series={"loss": (2.0, 1.0), "step_seconds": strange}, seconds=3.0)
    data = event_file([check], STARTED)
    assert data is not None
    times = [time - STARTED.timestamp() for tag, _, time, _ in scalars(data) if tag.endswith("/loss")]
    assert times == [1.5, 3.0]


def test_series_of_different_lengths_keep_their_own() -> None:
    check = outcome("horovod.weights", series={"loss": (2.0, 1.0, 0.5), "allreduce_seconds": (0.0,)})
    data = event_file([check], STARTED)
    assert data is not None
    assert [(tag, step, value) for tag, step, _, value in scalars(data)] == [
        ("horovod.weights/loss", 0, 2.0),
        ("horovod.weights/allreduce_seconds", 0, 0.0),
        ("horovod.weights/loss", 1, 1.0),
        ("horovod.weights/loss", 2, 0.5),
    ]


def test_without_series_there_is_no_file() -> None:
    assert event_file([outcome("static.python"), outcome("torch.import", series={"loss": ()})], STARTED) is None


def test_the_number_of_values_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    small = outcome("a.small", series={"loss": (1.0,)})
    large = outcome("b.large", series={"loss": (1.0,) * MAX_VALUES})
    data = event_file([small, large], STARTED)
    assert data is not None
    assert {tag for tag, *_ in scalars(data)} == {"a.small/loss"}
    assert "b.large" in caplog.text
    fits = event_file([large], STARTED)
    assert fits is not None
    assert len(scalars(fits)) == MAX_VALUES


def test_a_failed_checks_curve_is_kept() -> None:
    data = event_file([outcome("torch.train.amp", Status.FAILED, series={"loss": (4.0, math.nan)})], STARTED)
    assert data is not None
    values = [value for *_, value in scalars(data)]
    assert values[0] == 4.0
    assert math.isnan(values[1])


@pytest.mark.parametrize(
    ("value", "kept"), [(1e39, math.inf), (-1e39, -math.inf), (3.4028234663852886e38, 3.4028234663852886e38), (0, 0)]
)
def test_what_a_32_bit_float_cannot_hold_is_infinite(value: float, kept: float) -> None:
    assert single(value) == kept


def test_a_tag_of_any_text_is_utf8() -> None:
    data = event_file([outcome("a.b", series={"lo\ud800ss\u00e9": (1.0,)})], STARTED)
    assert data is not None
    assert [tag for tag, *_ in scalars(data)] == ["a.b/lo?ss\u00e9"]


def test_the_files_name_is_one_that_tensorboard_looks_for() -> None:
    assert file_name(STARTED) == f"events.out.tfevents.{int(STARTED.timestamp())}.imgbuild"


def test_losses_are_the_ends_of_the_curve() -> None:
    assert losses(CURVES) == (4.25, 2.125, 3)
    assert losses({"step_seconds": (1.0,)}) is None
