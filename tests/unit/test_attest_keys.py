"""Keys: what is taken, what is refused, and that a secret does not get out by accident."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from attesting import signing_key
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from builder.attest import KeyKind, generate, load_public_key, load_signing_key, site_signing_key, site_trusted_keys
from builder.cli import cli
from builder.errors import ConfigError
from builder.site import load_site

KINDS = list(KeyKind)


def written(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("password", [None, "a passwörd"])
def test_a_pair_signs_and_verifies(tmp_path: Path, kind: KeyKind, password: str | None) -> None:
    private, public = generate(kind, password)
    signing = load_signing_key(written(tmp_path / "k", private), password)
    trusted = load_public_key(written(tmp_path / "p", public))
    assert signing.public == trusted
    assert trusted.kind is kind
    assert trusted.pem == public
    signature = signing.sign(b"message")
    assert trusted.verifies(signature, b"message")
    assert not trusted.verifies(signature, b"massage")
    assert not trusted.verifies(signature[:-1] + bytes([signature[-1] ^ 1]), b"message")
    assert not trusted.verifies(b"", b"message")
    other = signing_key(tmp_path, kind, "other")
    assert not trusted.verifies(other.sign(b"message"), b"message")


def test_the_id_is_sigstores_hint(tmp_path: Path) -> None:
    _, public = generate()
    key = load_public_key(written(tmp_path / "p", public))
    der = base64.b64decode(re.sub(rb"-----[A-Z ]+-----|\n", b"", public))
    assert key.id == base64.b64encode(hashlib.sha256(der).digest()).decode()
    assert len(key.id) == 44


@pytest.mark.parametrize(
    "arguments",
    [
        ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        ["genpkey", "-algorithm", "ED25519"],
        ["ecparam", "-name", "prime256v1", "-genkey"],
    ],
    ids=["ec", "ed25519", "sec1-with-parameters"],
)
def test_keys_of_openssl_are_taken(tmp_path: Path, arguments: list[str]) -> None:
    openssl = shutil.which("openssl")
    assert openssl, "openssl is needed: apt-get install openssl"
    made = tmp_path / "key.pem"
    subprocess.run([openssl, *arguments, "-out", made], check=True, capture_output=True)
    made.chmod(0o600)
    subprocess.run([openssl, "pkey", "-in", made, "-pubout", "-out", tmp_path / "pub"], check=True)
    key = load_signing_key(made)
    assert key.public == load_public_key(tmp_path / "pub")
    if key.public.kind is KeyKind.ECDSA_P256:
        (tmp_path / "message").write_bytes(b"message")
        (tmp_path / "signature").write_bytes(key.sign(b"message"))
        answer = subprocess.run(
            [openssl, "dgst", "-sha256", "-verify", "pub", "-signature", "signature", "message"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert answer.stdout == "Verified OK\n"


def private_pem(key: object, password: bytes = b"") -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    found: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)  # type: ignore[attr-defined]
    return found


def public_pem(key: object) -> bytes:
    public = key.public_key()  # type: ignore[attr-defined]
    found: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return found


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: ec.generate_private_key(ec.SECP384R1()), "elliptic curve secp384r1"),
        (lambda: ec.generate_private_key(ec.SECP256K1()), "elliptic curve secp256k1"),
        (lambda: rsa.generate_private_key(65537, 2048), "RSA of 2048 bits"),
        (ed448.Ed448PrivateKey.generate, "Ed448"),
        (lambda: dsa.generate_private_key(2048), "DSA"),
    ],
    ids=["p384", "secp256k1", "rsa", "ed448", "dsa"],
)
def test_other_kinds_are_refused(tmp_path: Path, make: object, found: str) -> None:
    key = make()  # type: ignore[operator]
    wanted = f"{found}; imgbuild uses elliptic curve P-256 \\(ecdsa-p256\\) and Ed25519"
    with pytest.raises(ConfigError, match=f"the signing key is {wanted}"):
        load_signing_key(written(tmp_path / "k", private_pem(key)))
    with pytest.raises(ConfigError, match=f"the trusted key is {wanted}"):
        load_public_key(written(tmp_path / "p", public_pem(key)))


def test_a_password_that_is_missing_or_wrong_is_said(tmp_path: Path) -> None:
    private, _ = generate(KeyKind.ED25519, "right")
    path = written(tmp_path / "k", private)
    with pytest.raises(ConfigError, match=r"encrypted, and there is no password\n.*set IMGBUILD_SIGNING_KEY_PASSWORD"):
        load_signing_key(path)
    with pytest.raises(ConfigError, match="the password is wrong, or the file is damaged"):
        load_signing_key(path, "wrong")
    assert load_signing_key(path, "right").public.kind is KeyKind.ED25519


def test_a_password_for_a_key_that_has_none_does_no_harm(tmp_path: Path) -> None:
    private, _ = generate()
    assert load_signing_key(written(tmp_path / "k", private), "a password").id


@pytest.mark.parametrize(
    ("mode", "encrypted", "refused"),
    [
        (0o600, False, ""),
        (0o400, False, ""),
        (0o440, False, ""),
        (0o640, False, ""),
        (0o644, True, ""),
        (0o604, False, "read"),
        (0o644, False, "read"),
        (0o666, False, "read"),
        (0o620, False, "change"),
        (0o622, True, "change"),
    ],
)
def test_who_may_read_the_signing_key(tmp_path: Path, mode: int, encrypted: bool, refused: str) -> None:
    private, _ = generate(KeyKind.ED25519, "p" if encrypted else None)
    path = written(tmp_path / "k", private, mode)
    if not refused:
        assert load_signing_key(path, "p").id
        return
    with pytest.raises(ConfigError, match=rf"has mode {mode:04o}: .* may {refused} it\n  chmod 600 "):
        load_signing_key(path, "p")


PUBLIC = generate(KeyKind.ED25519)[1]
PRIVATE = generate(KeyKind.ED25519)[0]
CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
COSIGN = b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\neyJrZGYi\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not in PEM"),
        (b"\xff\xfe\x00 no key", "is not in PEM"),
        (PUBLIC, "must be a private key, and this is a public key"),
        (CERTIFICATE, "must be a private key, and this is a certificate"),
        (COSIGN, "cosign's own form"),
        (PRIVATE + PRIVATE, "holds 2 keys"),
        (PRIVATE.replace(b"MC4C", b"MC4D"), "is damaged"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "OpenSSH's own form"),
        (b"-----BEGIN NEW THING-----\n-----END NEW THING-----\n", "must be a private key in PEM"),
        (b"x" * 70_000, "more than 65536 bytes"),
    ],
    ids=["empty", "binary", "public", "certificate", "cosign", "two", "damaged", "openssh", "other", "large"],
)
def test_what_is_no_signing_key(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_signing_key(written(tmp_path / "k", data))
    assert caught.value.where == str(tmp_path / "k")
    assert load_signing_key(written(tmp_path / "good", PRIVATE)).id


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not in PEM"),
        (PRIVATE, "must not leave the machine that signs"),
        (CERTIFICATE, "this is a certificate"),
        (PUBLIC + PUBLIC, "holds 2 keys"),
        (PUBLIC.replace(b"MCow", b"MCox"), "is damaged"),
    ],
    ids=["empty", "private", "certificate", "two", "damaged"],
)
def test_what_is_no_trusted_key(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_public_key(written(tmp_path / "p", data))
    assert load_public_key(written(tmp_path / "good", PUBLIC)).id


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_signing_key(tmp_path / "missing")
    with pytest.raises(ConfigError, match="no regular file"):
        load_public_key(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="no regular file"):
        load_signing_key(tmp_path / "pipe")


def test_nothing_of_the_secret_is_shown(tmp_path: Path) -> None:
    key = signing_key(tmp_path)
    body = (tmp_path / "own-ecdsa-p256.key").read_text().splitlines()[1]
    assert "BEGIN" not in repr(key)
    assert body not in repr(key)
    assert "private" not in repr(key)


class TestKeygen:
    """The command."""

    @pytest.mark.parametrize("kind", [kind.value for kind in KINDS])
    def test_it_writes_a_pair(self, tmp_path: Path, kind: str) -> None:
        ran = CliRunner().invoke(cli, ["keygen", str(tmp_path / "new"), "--kind", kind])
        assert ran.exit_code == 0, ran.output
        private, public = tmp_path / "new/imgbuild.key", tmp_path / "new/imgbuild.pub"
        assert stat.S_IMODE(private.stat().st_mode) == 0o600
        assert stat.S_IMODE(public.stat().st_mode) == 0o644
        key = load_signing_key(private)
        assert key.public == load_public_key(public)
        assert key.public.kind.value == kind
        assert f"key id: {key.id}" in ran.output
        assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["imgbuild.key", "imgbuild.pub"]

    def test_a_password_encrypts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("IMGBUILD_SIGNING_KEY_PASSWORD", "canary-password")
        ran = CliRunner().invoke(cli, ["keygen", str(tmp_path)])
        assert "(encrypted, mode 0600)" in ran.output
        assert "canary-password" not in ran.output
        with pytest.raises(ConfigError, match="there is no password"):
            load_signing_key(tmp_path / "imgbuild.key")
        assert load_signing_key(tmp_path / "imgbuild.key", "canary-password").id

    @pytest.mark.parametrize("name", ["imgbuild.key", "imgbuild.pub"])
    @pytest.mark.parametrize("how", ["file", "dangling link"])
    def test_nothing_is_overwritten(self, tmp_path: Path, name: str, how: str) -> None:
        if how == "file":
            (tmp_path / name).write_text("mine")
        else:
            (tmp_path / name).symlink_to(tmp_path / "nowhere")
        ran = CliRunner().invoke(cli, ["keygen", str(tmp_path)])
        assert isinstance(ran.exception, ConfigError)
        assert "never overwritten" in str(ran.exception)
        assert [path.name for path in tmp_path.iterdir()] == [name]

    def test_a_loser_of_the_race_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "imgbuild.pub").write_text("the winner's")
        monkeypatch.setattr(os.path, "lexists", lambda path: False)
        ran = CliRunner().invoke(cli, ["keygen", str(tmp_path)])
        assert isinstance(ran.exception, ConfigError)
        assert ran.exception.where == str(tmp_path / "imgbuild.pub")
        assert [path.name for path in tmp_path.iterdir()] == ["imgbuild.pub"]
        assert (tmp_path / "imgbuild.pub").read_text() == "the winner's"


class TestSite:
    """What the site's settings name."""

    def test_the_own_key_is_trusted_too_and_each_key_once(self, tmp_path: Path) -> None:
        private, public = generate(KeyKind.ED25519, "secret")
        written(tmp_path / "own.key", private)
        written(tmp_path / "own.pub", public)
        written(tmp_path / "other.pub", PUBLIC)
        environ = {
            "HOME": str(tmp_path),
            "IMGBUILD_SIGNING_KEY": str(tmp_path / "own.key"),
            "IMGBUILD_TRUSTED_KEYS": f"{tmp_path}/other.pub {tmp_path}/own.pub",
            "IMGBUILD_SIGNING_KEY_PASSWORD": "secret",
        }
        site = load_site(environ, prefix=tmp_path, root=tmp_path)
        signing = site_signing_key(site, environ)
        assert signing is not None
        other = load_public_key(tmp_path / "other.pub")
        assert site_trusted_keys(site, signing) == (other, signing.public)
        assert site_trusted_keys(load_site({"HOME": str(tmp_path)}, prefix=tmp_path, root=tmp_path), signing) == (
            signing.public,
        )

    def test_without_settings_there_is_no_key(self, tmp_path: Path) -> None:
        site = load_site({"HOME": str(tmp_path)}, prefix=tmp_path, root=tmp_path)
        assert site_signing_key(site, {}) is None
        assert site_trusted_keys(site) == ()
