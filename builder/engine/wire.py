"""The little of protobuf and gRPC framing that a BuildKit session needs, bounded and typed.

Messages are read as a flat sequence of `(field number, value)`; the reader of a message knows its fields and ignores
the rest, as protobuf asks of it. Varints come as unsigned integers, everything else as bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

MAX_MESSAGE = 16 * 1024 * 1024
"""Largest gRPC message accepted, in bytes. BuildKit's own are kilobytes."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10


class WireError(ValueError):
    """Bytes that are not the message they should be: cut short, too long, or of an unknown wire type."""


def varint(value: int) -> bytes:
    """Encodes an integer; a negative one as its 64-bit two's complement, as protobuf's int64 does."""
    if not -(1 << 63) <= value < 1 << 64:
        raise WireError(f"{value} does not fit into 64 bits")
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer(number: int, value: int) -> bytes:
    """Encodes an integer field; nothing for 0, which is what an absent field means."""
    return varint(number << 3 | _VARINT) + varint(value) if value else b""


def data(number: int, value: bytes) -> bytes:
    """Encodes a field of bytes, a string in UTF-8 or a message; nothing when empty."""
    return submessage(number, value) if value else b""


def submessage(number: int, value: bytes) -> bytes:
    """Encodes a message field, also an empty one: for a message, present and empty is not absent."""
    return varint(number << 3 | _BYTES) + varint(len(value)) + value


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Reads a message's fields in their order.

    Raises:
        WireError: the message is cut short or malformed.
    """
    at, end = 0, len(message)
    while at < end:
        key, at = _read_varint(message, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise WireError("field number 0")
        if kind == _VARINT:
            value, at = _read_varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _read_varint(message, at)
        elif kind == _FIXED64:
            size = 8
        elif kind == _FIXED32:
            size = 4
        else:
            raise WireError(f"wire type {kind} of field {number}")
        if size > end - at:
            raise WireError(f"field {number} is cut short: {size} bytes announced, {end - at} there")
        yield number, message[at : at + size]
        at += size


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift, byte in enumerate(message[at : at + _VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at + shift + 1
    raise WireError("varint is cut short or longer than 10 bytes")


def signed(value: int | bytes) -> int:
    """The value of an int64 field, which travels as its unsigned two's complement."""
    number = unsigned(value)
    return number - (1 << 64) if number >> 63 else number


def unsigned(value: int | bytes) -> int:
    """The value of an unsigned integer field, or an enumeration's.

    Raises:
        WireError: the field holds bytes.
    """
    if isinstance(value, bytes):
        raise WireError("a number was expected")
    return value


def binary(value: int | bytes) -> bytes:
    """The value of a bytes or message field.

    Raises:
        WireError: the field holds a number.
    """
    if isinstance(value, int):
        raise WireError("bytes were expected")
    return value


def text(value: int | bytes) -> str:
    """The value of a string field; bytes that are not UTF-8 are shown replaced, never an error."""
    return binary(value).decode("utf-8", "replace")


def timestamp(value: int | bytes) -> float:
    """The value of a google.protobuf.Timestamp field, in seconds since 1970."""
    seconds, nanoseconds = 0, 0
    for number, part in fields(binary(value)):
        if number == 1:
            seconds = signed(part)
        elif number == 2:
            nanoseconds = signed(part)
    return seconds + nanoseconds / 1e9


def grpc_frame(message: bytes) -> bytes:
    """One gRPC message as it travels: a flag (0, uncompressed), its length in 4 bytes, the message."""
    return b"\0" + len(message).to_bytes(4, "big") + message


class GrpcReader:
    """Cuts a stream of bytes into gRPC messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Takes the next bytes and yields every message that they complete.

        Raises:
            WireError: a message is compressed, or larger than `MAX_MESSAGE`.
        """
        self._buffer += chunk
        while len(self._buffer) >= 5:
            size = int.from_bytes(self._buffer[1:5], "big")
            if self._buffer[0] != 0:
                raise WireError("a compressed gRPC message, which was not offered")
            if size > MAX_MESSAGE:
                raise WireError(f"a gRPC message of {size} bytes")
            if len(self._buffer) < 5 + size:
                return
            message = bytes(self._buffer[5 : 5 + size])
            del self._buffer[: 5 + size]
            yield message
