"""Evidence: statements about one image, signed with a key, and the decision which of them count."""

from __future__ import annotations

from builder.attest.bundle import MEDIA_TYPE, sign
from builder.attest.claims import CheckStatement, Statement
from builder.attest.keygen import generate
from builder.attest.keys import (
    PASSWORD_VARIABLE,
    KeyKind,
    PublicKey,
    SigningKey,
    load_public_key,
    load_signing_key,
    site_signing_key,
    site_trusted_keys,
)
from builder.attest.refusal import Refusal, Refused
from builder.attest.statement import (
    EXTENSION,
    TEST_RESULT,
    Checked,
    Environment,
    Losses,
    NotRun,
    References,
    Resource,
    Subject,
    TestResult,
    check_statement,
    statement_sha256,
)
from builder.attest.trust import Verified, verify

__all__ = [
    "EXTENSION",
    "MEDIA_TYPE",
    "PASSWORD_VARIABLE",
    "TEST_RESULT",
    "CheckStatement",
    "Checked",
    "Environment",
    "KeyKind",
    "Losses",
    "NotRun",
    "PublicKey",
    "References",
    "Refusal",
    "Refused",
    "Resource",
    "SigningKey",
    "Statement",
    "Subject",
    "TestResult",
    "Verified",
    "check_statement",
    "generate",
    "load_public_key",
    "load_signing_key",
    "sign",
    "site_signing_key",
    "site_trusted_keys",
    "statement_sha256",
    "verify",
]
