"""Sigstore bundles, version 0.3: an envelope together with the name of the key that made its signature.

The form is that of sigstore's `protobuf-specs` (sigstore_bundle.proto) in JSON. A bundle has exactly one signature,
and here one made with a key, not with a certificate of a public service: `verificationMaterial.publicKey.hint` names
the key.

    cosign verify-blob-attestation --key imgbuild.pub --bundle FILE --insecure-ignore-tlog=true …

There is no entry of a transparency log in it: a company's images are nobody else's business.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from builder.attest.dsse import Envelope, seal
from builder.attest.keys import SigningKey
from builder.attest.reading import Reader, canonical, decode
from builder.attest.refusal import Refusal, Refused, malformed

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
"""The media type of a bundle, as a blob in a registry and in the bundle itself."""

CAP = 16 << 20
"""Bytes of the largest bundle that is read; the SBOM of an image with 1000 packages has about one MB."""

_HINT_CAP = 1024


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle as it was read. Nothing in it is verified.

    Attributes:
        hint: the id of the key that it says it was signed with.
        envelope: what was signed.
    """

    hint: str
    envelope: Envelope


def sign(statement: bytes, key: SigningKey) -> bytes:
    """A bundle with `statement`, an in-toto statement in JSON, signed with `key`."""
    return write(Bundle(hint=key.id, envelope=seal(statement, key)))


def write(bundle: Bundle) -> bytes:
    """The bundle as JSON."""
    envelope = bundle.envelope
    return canonical(
        {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": bundle.hint}},
            "dsseEnvelope": {
                "payload": base64.b64encode(envelope.payload).decode(),
                "payloadType": envelope.payload_type,
                "signatures": [{"sig": base64.b64encode(envelope.signature).decode()}],
            },
        }
    )


def parse(data: bytes) -> Bundle:
    """Reads a bundle.

    Raises:
        Refused: it is too large, malformed, of another version, signed with a certificate, or has not one signature.
    """
    if len(data) > CAP:
        raise malformed(f"the bundle has more than {CAP} bytes")
    top = Reader(decode(data, "the bundle"), "bundle")
    top.only(("mediaType", "verificationMaterial", "dsseEnvelope", "messageSignature"))
    media_type = top.text("mediaType")
    if media_type != MEDIA_TYPE:
        raise malformed(f"the bundle is of type {media_type!r}, expected {MEDIA_TYPE!r}")
    if top.has("messageSignature"):
        raise malformed("the bundle signs a file, not a statement")
    return Bundle(hint=_hint(top.reader("verificationMaterial")), envelope=_envelope(top.reader("dsseEnvelope")))


def _hint(material: Reader) -> str:
    # Log entries and time stamps may be there; a key needs neither, so they are not looked at.
    material.only(("publicKey", "certificate", "x509CertificateChain", "tlogEntries", "timestampVerificationData"))
    if material.has("certificate") or material.has("x509CertificateChain"):
        raise Refused(Refusal.OTHER_KEY, "the evidence is signed with a certificate, and only keys are trusted here")
    public_key = material.reader("publicKey")
    public_key.only(("hint",))
    return public_key.text("hint", cap=_HINT_CAP) if public_key.has("hint") else ""


def _envelope(reader: Reader) -> Envelope:
    reader.only(("payload", "payloadType", "signatures"))
    signatures = reader.readers("signatures")
    if len(signatures) != 1:
        # The specification of bundles: with several, it would be undefined which one the key belongs to.
        raise Refused(Refusal.SIGNATURES, f"the evidence has {len(signatures)} signatures; a bundle has exactly one")
    signatures[0].only(("sig", "keyid"))
    return Envelope(
        payload_type=reader.text("payloadType"),
        payload=_bytes(reader.long_text("payload"), "payload"),
        signature=_bytes(signatures[0].text("sig"), "signature"),
    )


def _bytes(text: str, what: str) -> bytes:
    try:
        # DSSE lets a writer choose either alphabet of base64.
        found = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        raise malformed(f"the {what} is not in base64") from None
    if not found:
        raise malformed(f"the {what} is empty")
    return found
