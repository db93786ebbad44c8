"""The keys that evidence is signed with and verified against: ECDSA over P-256 with SHA-256, and Ed25519.

Private keys are PKCS #8 in PEM, with or without a password; public ones are SubjectPublicKeyInfo in PEM. Both are what
`openssl`, cosign (`cosign import-key-pair`, `--key`) and key services write and read. A key's id is the one that
sigstore puts into a bundle as its hint: base64 of the SHA-256 of the DER form of the public key.

`cryptography` takes 30 ms to import, so that happens where a key is used.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import ConfigError
from builder.site import Site

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PASSWORD_VARIABLE = "IMGBUILD_SIGNING_KEY_PASSWORD"
"""The environment variable with the password of the signing key."""

_CAP = 1 << 16
"""Bytes of the largest key file that is read; a P-256 key has about 250."""

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,60})-----")


class KeyKind(Enum):
    """The two kinds of keys."""

    ECDSA_P256 = "ecdsa-p256"
    ED25519 = "ed25519"


@dataclass(frozen=True, kw_only=True)
class PublicKey:
    """A key that signatures are verified against. Two are equal when they are the same key, wherever they came from.

    Attributes:
        kind: which of the two.
        der: its SubjectPublicKeyInfo.
        origin: where it was read from, for messages; empty when it was not read from a file.
    """

    kind: KeyKind
    der: bytes = field(repr=False)
    origin: str = field(default="", compare=False)

    @property
    def id(self) -> str:
        """base64 of the SHA-256 of `der`: the hint in a sigstore bundle."""
        return base64.b64encode(hashlib.sha256(self.der).digest()).decode()

    @property
    def pem(self) -> bytes:
        """The key as a file holds it."""
        body = base64.b64encode(self.der).decode()
        lines = [body[start : start + 64] for start in range(0, len(body), 64)]
        return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""]).encode()

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` was made over `message` with this key: in DER for ECDSA, of 64 bytes for Ed25519."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import load_der_public_key

        key = load_der_public_key(self.der)
        try:
            if isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(signature, message, ec.ECDSA(SHA256()))
            elif isinstance(key, ed25519.Ed25519PublicKey):
                key.verify(signature, message)
            else:
                return False
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    """A key that signs. Its representation shows nothing of the secret."""

    public: PublicKey
    private: EllipticCurvePrivateKey | Ed25519PrivateKey = field(repr=False, compare=False)

    @property
    def id(self) -> str:
        """The id of its public key."""
        return self.public.id

    def sign(self, message: bytes) -> bytes:
        """A signature over `message`: in DER for ECDSA (with SHA-256), of 64 bytes for Ed25519 (RFC 8032, pure)."""
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.hashes import SHA256

        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            return self.private.sign(message, ec.ECDSA(SHA256()))
        return self.private.sign(message)


def load_signing_key(path: Path, password: str | None = None) -> SigningKey:
    """Reads a private key.

    A key without a password may not be readable by everybody, nor writable by others than its owner, as with ssh. Its
    group may read it, because that is how clusters hand secrets to programs that do not run as root.

    Raises:
        ConfigError: there is none, it is of another kind, others may read it, or the password is wrong or missing.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data, mode = _read(path, "the signing key")
    label = _label(data, path, "the signing key")
    if label.startswith("ENCRYPTED ") and label.endswith(("COSIGN PRIVATE KEY", "SIGSTORE PRIVATE KEY")):
        raise ConfigError(
            "the signing key is encrypted in cosign's own form, which only cosign reads",
            where=str(path),
            hint="make a key with `imgbuild keygen`; cosign verifies with its public half, and takes the private one "
            "with `cosign import-key-pair`",
        )
    if label in ("PUBLIC KEY", "CERTIFICATE"):
        raise ConfigError(
            f"the signing key must be a private key, and this is a {label.lower()}",
            where=str(path),
            hint="name the file that `imgbuild keygen` calls imgbuild.key",
        )
    if label == "OPENSSH PRIVATE KEY":
        raise ConfigError("the signing key is in OpenSSH's own form, which is not read", where=str(path), hint=_MAKE)
    if not label.endswith("PRIVATE KEY"):
        raise ConfigError(f"the signing key must be a private key in PEM, and this is {label!r}", where=str(path))
    encrypted = label == "ENCRYPTED PRIVATE KEY" or b"Proc-Type: 4,ENCRYPTED" in data
    _guarded(path, mode, encrypted=encrypted)
    if encrypted and not password:
        raise ConfigError(
            "the signing key is encrypted, and there is no password", where=str(path), hint=f"set {PASSWORD_VARIABLE}"
        )
    try:
        key = load_pem_private_key(data, password.encode() if encrypted and password else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if encrypted:
            raise ConfigError(
                "the signing key cannot be decrypted: the password is wrong, or the file is damaged",
                where=str(path),
                hint=f"{PASSWORD_VARIABLE} holds the password",
            ) from error
        raise ConfigError("the signing key is damaged", where=str(path), hint=_MAKE) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise _other_kind("signing", _described(key), path)
    return SigningKey(public=_public(key.public_key(), path, "signing"), private=key)


def load_public_key(path: Path) -> PublicKey:
    """Reads a public key.

    Raises:
        ConfigError: there is none, it is of another kind, or the file holds something else or several.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data, _ = _read(path, "the trusted key")
    label = _label(data, path, "the trusted key")
    if label.endswith("PRIVATE KEY"):
        raise ConfigError(
            "a trusted key must be a public key, and this is a private one: it must not leave the machine that signs",
            where=str(path),
            hint="name the file that `imgbuild keygen` calls imgbuild.pub",
        )
    if label != "PUBLIC KEY":
        raise ConfigError(
            f"a trusted key must be a public key in PEM, and this is a {label.lower()}",
            where=str(path),
            hint="openssl x509 -pubkey -noout -in FILE" if label == "CERTIFICATE" else _MAKE,
        )
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError("the trusted key is damaged", where=str(path), hint=_MAKE) from error
    return _public(key, path, "trusted")


def site_signing_key(site: Site, environ: Mapping[str, str]) -> SigningKey | None:
    """The key that this machine signs with; None when its settings name none.

    Raises:
        ConfigError: as `load_signing_key`.
    """
    if site.signing_key is None:
        return None
    return load_signing_key(site.signing_key, environ.get(PASSWORD_VARIABLE) or None)


def site_trusted_keys(site: Site, signing: SigningKey | None = None) -> tuple[PublicKey, ...]:
    """The keys that this machine trusts, each once: those of its settings, and its own.

    Whoever holds the signing key can make any evidence with it, so not to trust it would protect nobody.

    Raises:
        ConfigError: as `load_public_key`.
    """
    keys = [load_public_key(path) for path in site.trusted_keys]
    if signing is not None:
        keys.append(signing.public)
    return tuple({key.id: key for key in reversed(keys)}.values())[::-1]


_MAKE = "`imgbuild keygen DIRECTORY` makes a pair of keys"


def _read(path: Path, what: str) -> tuple[bytes, int]:
    try:
        # A path that names a pipe or a terminal must not make the caller wait.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigError(f"{what} is no regular file", where=str(path), hint=_MAKE)
            data = os.read(descriptor, _CAP + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigError(f"{what} cannot be read: {error.strerror}", where=str(path), hint=_MAKE) from error
    if len(data) > _CAP:
        raise ConfigError(f"{what} has more than {_CAP} bytes", where=str(path), hint=_MAKE)
    return data, mode


def _label(data: bytes, path: Path, what: str) -> str:
    """What the one PEM block in `data` says it is; the parameters that openssl writes before an EC key do not count."""
    labels = [label for label in _BLOCK.findall(data.decode("latin-1")) if label != "EC PARAMETERS"]
    if not labels:
        raise ConfigError(f"{what} is not in PEM", where=str(path), hint=_MAKE)
    if len(labels) > 1:
        raise ConfigError(
            f"the file holds {len(labels)} keys or certificates",
            where=str(path),
            hint="put each into a file of its own",
        )
    return str(labels[0])


def _guarded(path: Path, mode: int, *, encrypted: bool) -> None:
    # The password guards an encrypted key against readers.
    loose = stat.S_IWGRP | stat.S_IWOTH | (0 if encrypted else stat.S_IROTH)
    if mode & loose:
        raise ConfigError(
            f"the signing key has mode {stat.S_IMODE(mode):04o}: others than its owner may "
            f"{'read' if mode & stat.S_IROTH and not encrypted else 'change'} it",
            where=str(path),
            hint=f"chmod 600 {path}",
        )


def _public(key: object, path: Path, purpose: str) -> PublicKey:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        kind = KeyKind.ECDSA_P256
    elif isinstance(key, ed25519.Ed25519PublicKey):
        kind = KeyKind.ED25519
    else:
        raise _other_kind(purpose, _described(key), path)
    return PublicKey(kind=kind, der=key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), origin=str(path))


def _described(key: object) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey):
        return f"elliptic curve {key.curve.name}"
    if isinstance(key, rsa.RSAPublicKey | rsa.RSAPrivateKey):
        return f"RSA of {key.key_size} bits"
    return type(key).__name__.lstrip("_").removesuffix("PublicKey").removesuffix("PrivateKey")


def _other_kind(purpose: str, found: str, path: Path) -> ConfigError:
    return ConfigError(
        f"the {purpose} key is {found}; imgbuild uses elliptic curve P-256 (ecdsa-p256) and Ed25519",
        where=str(path),
        hint=_MAKE,
    )
