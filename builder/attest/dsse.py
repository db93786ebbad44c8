"""DSSE v1: a payload with its type and signatures over both.

What is signed is the pre-authentication encoding (PAE) of the specification's `protocol.md`:

    "DSSEv1" SP LEN(type) SP type SP LEN(payload) SP payload

with LEN as decimal digits of the number of bytes. So a payload cannot be passed off as one of another type.
"""

from __future__ import annotations

from dataclasses import dataclass

from builder.attest.keys import SigningKey

IN_TOTO = "application/vnd.in-toto+json"
"""The payload type of every in-toto statement."""


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """What was signed, and the signature over it. DSSE allows several signatures, a sigstore bundle has one.

    Attributes:
        payload_type: what the payload is; part of what is signed.
        payload: the bytes.
        signature: over `pre_authentication_encoding(payload_type, payload)`.
    """

    payload_type: str
    payload: bytes
    signature: bytes

    @property
    def signed(self) -> bytes:
        """The bytes that the signature is over."""
        return pre_authentication_encoding(self.payload_type, self.payload)


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, key: SigningKey, *, payload_type: str = IN_TOTO) -> Envelope:
    """Signs a payload."""
    signature = key.sign(pre_authentication_encoding(payload_type, payload))
    return Envelope(payload_type=payload_type, payload=payload, signature=signature)
