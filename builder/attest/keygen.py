"""Makes keys, and writes them where no key is yet."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from builder.attest.keys import KeyKind, PublicKey, load_public_key
from builder.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def generate(kind: KeyKind = KeyKind.ECDSA_P256, password: str | None = None) -> tuple[bytes, bytes]:
    """A new pair of keys as PEM: the private one (PKCS #8, encrypted when there is a password) and the public one."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        KeySerializationEncryption,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    private: EllipticCurvePrivateKey | Ed25519PrivateKey
    if kind is KeyKind.ECDSA_P256:
        private = ec.generate_private_key(ec.SECP256R1())
    else:
        private = ed25519.Ed25519PrivateKey.generate()
    encryption: KeySerializationEncryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return (
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption),
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


def write_pair(directory: Path, kind: KeyKind, password: str | None) -> tuple[Path, Path, PublicKey]:
    """Makes a pair of keys in `directory`, as `imgbuild.key` (mode 0600) and `imgbuild.pub`.

    Each file is whole or absent, and neither replaces one that is there.

    Returns:
        The paths of the private and the public key, and the public key.

    Raises:
        ConfigError: one of the files is there already, or they cannot be written.
    """
    private_pem, public_pem = generate(kind, password)
    private, public = directory / "imgbuild.key", directory / "imgbuild.pub"
    for path in (private, public):
        if os.path.lexists(path):
            raise _taken(path)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # The private one first: a public key without it would be trusted for nothing.
        _write_new(private, private_pem, 0o600)
        try:
            _write_new(public, public_pem, 0o644)
        except BaseException:
            private.unlink()
            raise
    except FileExistsError as error:
        raise _taken(Path(str(error.filename2 or error.filename))) from error
    except OSError as error:
        raise ConfigError(f"the keys cannot be written: {error.strerror}", where=str(directory)) from error
    return private, public, load_public_key(public)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Writes a file that must not be there yet, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            # The umask may have taken more away than a key's mode says.
            os.fchmod(descriptor, mode)
            stream.write(data)
            stream.flush()
            os.fsync(descriptor)
        # Unlike a rename, a link fails when the name is taken, also by another process a moment ago.
        os.link(temporary, path)
    finally:
        temporary.unlink()


def _taken(path: Path) -> ConfigError:
    return ConfigError(
        "the file is there already, and keys are never overwritten",
        where=str(path),
        hint="choose another directory",
    )
