from __future__ import annotations

import pytest

from builder.engine import wire


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, b"\x00"), (1, b"\x01"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02"), (-1, b"\xff" * 9 + b"\x01")],
)
def test_varint_as_protobuf_documents_it(value: int, encoded: bytes) -> None:
    assert wire.varint(value) == encoded


@pytest.mark.parametrize("value", [1 << 64, -(1 << 63) - 1])
def test_varint_out_of_range(value: int) -> None:
    with pytest.raises(wire.WireError):
        wire.varint(value)


def test_message_round_trip() -> None:
    message = wire.integer(1, 2**63) + wire.integer(6, -5) + wire.data(2, b"ab") + wire.submessage(3, b"")
    found = list(wire.fields(message))
    assert [number for number, _ in found] == [1, 6, 2, 3]
    assert wire.unsigned(found[0][1]) == 2**63
    assert wire.signed(found[1][1]) == -5
    assert wire.binary(found[2][1]) == b"ab"
    assert wire.text(found[3][1]) == ""


def test_absent_fields_are_not_encoded() -> None:
    assert wire.integer(1, 0) + wire.data(2, b"") == b""


def test_fixed_fields_are_stepped_over() -> None:
    message = b"\x09" + b"8bytes!!" + b"\x15" + b"four" + wire.integer(3, 7)
    assert list(wire.fields(message)) == [(1, b"8bytes!!"), (2, b"four"), (3, 7)]


@pytest.mark.parametrize(
    "broken",
    [
        b"\x08",  # a field without its value
        b"\x80",  # half a varint
        b"\x08" + b"\xff" * 11,  # a varint without end
        b"\x12\x05abc",  # five bytes announced, three there
        b"\x12\xff\xff\xff\xff\x0fabc",  # four gigabytes announced
        b"\x0b",  # a group
        b"\x00\x01",  # field number 0
        b"\x09abc",  # a fixed64 cut short
    ],
)
def test_broken_messages_are_refused(broken: bytes) -> None:
    with pytest.raises(wire.WireError):
        list(wire.fields(broken))


def test_values_of_the_wrong_kind() -> None:
    with pytest.raises(wire.WireError):
        wire.unsigned(b"x")
    with pytest.raises(wire.WireError):
        wire.text(3)
    assert wire.unsigned(3) == 3


def test_timestamp() -> None:
    assert wire.timestamp(wire.integer(1, 12) + wire.integer(2, 500_000_000)) == 12.5


def test_grpc_messages_in_pieces_of_any_size() -> None:
    stream = wire.grpc_frame(b"one") + wire.grpc_frame(b"") + wire.grpc_frame(b"three")
    for size in (1, 2, 7, len(stream)):
        reader = wire.GrpcReader()
        pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
        assert [m for piece in pieces for m in reader.feed(piece)] == [b"one", b"", b"three"]


@pytest.mark.parametrize("header", [b"\x01\x00\x00\x00\x00", b"\x00\xff\xff\xff\xff"])
def test_compressed_or_huge_grpc_messages_are_refused(header: bytes) -> None:
    with pytest.raises(wire.WireError):
        list(wire.GrpcReader().feed(header))
