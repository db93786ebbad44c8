"""Why evidence does not count: one word for programs, one sentence for people."""

from __future__ import annotations

from enum import Enum

from builder.errors import EvidenceRefused


class Refusal(Enum):
    """What is wrong with a bundle.

    `OTHER_KEY` alone may be nobody's fault: anybody can attach evidence to an image, and it does not count here.
    """

    NO_TRUSTED_KEY = "no-trusted-key"
    OTHER_KEY = "other-key"
    TAMPERED = "tampered"
    PAYLOAD_TYPE = "payload-type"
    OTHER_SUBJECT = "other-subject"
    OTHER_PREDICATE = "other-predicate"
    NOT_IN_TOTO = "not-in-toto"
    MALFORMED = "malformed"
    SIGNATURES = "signatures"
    CONTRADICTION = "contradiction"
    TOO_OLD = "too-old"
    IN_THE_FUTURE = "in-the-future"


class Refused(EvidenceRefused):
    """Evidence that does not count.

    Args:
        refusal: what is wrong.
        message, hint: as `ImgbuildError`.
    """

    def __init__(self, refusal: Refusal, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.refusal = refusal


def malformed(message: str) -> Refused:
    """The refusal of bytes that are not of the form that they should be."""
    return Refused(Refusal.MALFORMED, f"the evidence is malformed: {message}")
