"""Writes the curves of a training as a TensorBoard event file, without TensorBoard.

An event file is a sequence of records, each framed as in TensorFlow's record files: the length of the data (64 bits,
little-endian), a checksum of these 8 bytes, the data, a checksum of the data. The checksum is CRC-32C, masked. The data
is a protobuf message `Event` of `tensorflow/core/util/event.proto`, of which a scalar needs these fields:

    Event          1 wall_time (double)   2 step (int64)   3 file_version (string)   5 summary (Summary)
    Summary        1 value (Value, repeated)
    Summary.Value  1 tag (string)         2 simple_value (float)

The first event says `brain.Event:2`. Values are 32-bit floats: what a series has beyond that precision is lost.
"""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache

from builder.check import CheckOutcome
from builder.engine import wire

VERSION = "brain.Event:2"
"""What a reader expects in the first event."""

MAX_VALUES = 50_000
"""Values in one file: ten times those of a whole suite, and a second of work. An image could send half a million."""

STEP_SECONDS = "step_seconds"
"""The series that says how long each step took."""

_log = logging.getLogger(__name__)

_FIXED64, _FIXED32 = 1, 5
_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
_MASK = 0xA282EAD8


def event_file(checks: Sequence[CheckOutcome], started: datetime) -> bytes | None:
    """An event file with every series of the checks as scalars `CHECK/SERIES`; None when there is no series.

    The step of a value is its index. A result does not say when each check began: they are laid end to end from
    `started`. Within a check, steps are as long as its series `step_seconds` says, else of equal length. Beyond
    `MAX_VALUES`, whole checks are left out, with a warning; the result has them.

    Args:
        checks: in the order in which they ran.
        started: when the first began.
    """
    begun = started.timestamp()
    events = [_event(begun, data=wire.data(3, VERSION.encode()))]
    room = MAX_VALUES
    for check in checks:
        room -= sum(map(len, check.series.values()))
        if room < 0:
            _log.warning("no event file has the curves of %s and what follows: too many values", check.name)
            break
        events += _check_events(check, begun)
        begun += check.seconds
    return b"".join(map(record, events)) if len(events) > 1 else None


def file_name(started: datetime) -> str:
    """A name by which TensorBoard knows an event file: it must contain `tfevents`, and the names sort by time."""
    return f"events.out.tfevents.{int(started.timestamp()):010d}.imgbuild"


def _check_events(check: CheckOutcome, begun: float) -> Iterator[bytes]:
    times = _times(check, begun)
    for step, time in enumerate(times):
        values = b"".join(
            wire.submessage(1, wire.data(1, _utf8(f"{check.name}/{name}")) + _fixed32(2, series[step]))
            for name, series in check.series.items()
            if step < len(series)
        )
        yield _event(time, data=wire.integer(2, step) + wire.submessage(5, values))


def _times(check: CheckOutcome, begun: float) -> list[float]:
    """When each step ended, in seconds since 1970."""
    steps = max((len(series) for series in check.series.values()), default=0)
    taken = check.series.get(STEP_SECONDS, ())
    # An image wrote these numbers; without this bound a strange one would put steps outside of the check.
    if len(taken) != steps or not all(0 <= seconds <= check.seconds for seconds in taken):
        taken = (check.seconds / steps,) * steps if steps else ()
    times = []
    for seconds in taken:
        begun += seconds
        times.append(begun)
    return times


def _event(wall_time: float, *, data: bytes) -> bytes:
    return _key(1, _FIXED64) + struct.pack("<d", wall_time) + data


def _fixed32(number: int, value: float) -> bytes:
    """A float field, also where it is 0: in a choice of fields, 0 and absent are different."""
    return _key(number, _FIXED32) + struct.pack("<f", single(value))


def _key(number: int, kind: int) -> bytes:
    return wire.varint(number << 3 | kind)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def single(value: float) -> float:
    """A number that a 32-bit float can hold: one beyond its range becomes infinite, as in arithmetic."""
    try:
        struct.pack("<f", value)
    except OverflowError:
        return math.copysign(math.inf, value)
    return value


def record(data: bytes) -> bytes:
    """One framed record."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", _masked(crc32c(length))) + data + struct.pack("<I", _masked(crc32c(data)))


def _masked(crc: int) -> int:
    """The checksum rotated by 15 bits plus a constant, so that one of data with checksums in it is no special case."""
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """The checksum of RFC 3720, section 12.1: CRC-32 with Castagnoli's polynomial. Vectors: appendix B.4."""
    table = _table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    """What eight steps of the division make of each byte."""
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


def losses(series: Mapping[str, Sequence[float]]) -> tuple[float, float, int] | None:
    """The first and the last loss and the number of steps; None where no loss was recorded."""
    curve = series.get("loss", ())
    return (curve[0], curve[-1], len(curve)) if curve else None
