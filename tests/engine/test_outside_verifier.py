"""Bundles made here, judged by sigstore's own JavaScript implementation (npm's `@sigstore/verify`) and by ours.

The two must agree on every bundle: whatever is accepted here, cosign's users accept too, and a forgery that ours lets
through would show. It needs node 18.17 or newer and npm, and takes the packages in `tests/outside/package-lock.json`
from npm's configured registry, once.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from builder.attest import (
    Checked,
    KeyKind,
    Refused,
    SigningKey,
    Subject,
    check_statement,
    generate,
    load_signing_key,
    sign,
    verify,
)
from builder.attest.bundle import Bundle, write
from builder.attest.dsse import IN_TOTO, Envelope, seal
from builder.attest.provenance import Built, provenance
from builder.check import CheckOutcome, Status, Verdict, VerdictStatus
from builder.matrix import Axes, Level

pytestmark = pytest.mark.engine

_HERE = Path(__file__).parent.parent / "outside"
DIGEST = "a" * 64


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the outside verifier says of one bundle."""

    accepted: bool
    reason: str
    predicate_type: str


class Outside:
    """The outside verifier, installed in `directory`."""

    def __init__(self, node: str, directory: Path) -> None:
        self._node = node
        self._directory = directory

    def judge(self, key: Path, *bundles: Path) -> list[Answer]:
        ran = subprocess.run(
            [self._node, "verify.mjs", str(key), *map(str, bundles)],
            cwd=self._directory,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ran.returncode == 0, ran.stderr
        rows = [json.loads(line) for line in ran.stdout.splitlines()]
        assert [row["bundle"] for row in rows] == [str(bundle) for bundle in bundles]
        return [
            Answer(accepted=row["accepted"], reason=row["reason"], predicate_type=row["predicateType"]) for row in rows
        ]


@pytest.fixture(scope="session")
def outside(pytestconfig: pytest.Config) -> Outside:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.fail("the outside verifier needs node (18.17 or newer) and npm", pytrace=False)
    files = [_HERE / name for name in ("package.json", "package-lock.json", "verify.mjs")]
    version = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
    assert pytestconfig.cache is not None
    directory = pytestconfig.cache.mkdir(f"outside-verifier-{version}")
    if not (directory / "installed").exists():
        for path in files:
            shutil.copy(path, directory)
        # No script of a package is run, and only what the lock names, byte for byte, is installed.
        ran = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if ran.returncode:
            pytest.fail(f"npm could not install the outside verifier: {ran.stderr[-2000:]}", pytrace=False)
        (directory / "installed").touch()
    return Outside(node, directory)


@dataclass(frozen=True, kw_only=True)
class Keys:
    """A key that signs, its public half as a file, and a stranger's key of the same kind."""

    own: SigningKey
    public: Path
    stranger: SigningKey


@pytest.fixture(params=list(KeyKind), ids=[kind.value for kind in KeyKind])
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> Keys:
    def key(name: str) -> SigningKey:
        private, public = generate(request.param)
        (tmp_path / f"{name}.key").write_bytes(private)
        (tmp_path / f"{name}.key").chmod(0o600)
        (tmp_path / f"{name}.pub").write_bytes(public)
        return load_signing_key(tmp_path / f"{name}.key")

    return Keys(own=key("own"), public=tmp_path / "own.pub", stranger=key("stranger"))


def statement() -> bytes:
    ended = datetime.now(timezone.utc) - timedelta(minutes=5)
    check = CheckOutcome(
        name="torch.train.amp", level=Level.CPU, status=Status.PASSED, reason="", seconds=3.5, measured={}
    )
    known = {"reached": Level.CPU} if "reached" in Verdict.__dataclass_fields__ else {}
    return check_statement(
        Checked(
            subjects=(Subject(name="registry.example/é", sha256=DIGEST),),
            verdict=Verdict(
                status=VerdictStatus.PASSED, level=Level.CPU, checks=(check,), facts=None, reasons=(), **known
            ),
            reached=Level.CPU,
            suite_sha256="c" * 64,
            started=ended - timedelta(minutes=1),
            finished=ended,
            stated=ended,
        )
    )


def accepted_here(bundle: bytes, key: SigningKey) -> bool:
    try:
        verify(bundle, [key.public], subject_digest=f"sha256:{DIGEST}")
    except Refused:
        return False
    return True


def test_every_kind_of_statement_is_accepted(outside: Outside, keys: Keys, tmp_path: Path) -> None:
    subjects = (Subject(name="a", sha256=DIGEST),)
    axes = Axes(framework="torch==2.13.0", cuda="cpu", python="3.11", base="bookworm", extras=())
    built = Built(
        subjects=subjects,
        cell="a",
        interpreter="distribution",
        axes=axes,
        repository="imgbuild/pytorch",
        key="1" * 64,
        dockerfile="2" * 64,
        base="registry:sha256:" + "3" * 64,
        base_name="debian:bookworm-slim",
        version="0",
    )
    payloads = {
        "https://in-toto.io/attestation/test-result/v0.1": statement(),
        "https://slsa.dev/provenance/v1": provenance(built),
    }
    files = []
    for index, payload in enumerate(payloads.values()):
        files.append(tmp_path / f"{index}.json")
        files[-1].write_bytes(sign(payload, keys.own))
        assert accepted_here(files[-1].read_bytes(), keys.own)
    answers = outside.judge(keys.public, *files)
    assert [(answer.accepted, answer.reason) for answer in answers] == [(True, "")] * 2
    assert [answer.predicate_type for answer in answers] == list(payloads)


def tampered(keys: Keys) -> dict[str, bytes]:
    """Twins of a good bundle, each changed in one way."""
    good = Bundle(hint=keys.own.id, envelope=seal(statement(), keys.own))
    payload, signature = good.envelope.payload, good.envelope.signature

    def envelope(payload_type: str = IN_TOTO, payload: bytes = payload, signature: bytes = signature) -> bytes:
        return write(
            Bundle(hint=keys.own.id, envelope=Envelope(payload_type=payload_type, payload=payload, signature=signature))
        )

    def edited(change: Callable[[dict[str, Any]], None]) -> bytes:
        document = json.loads(write(good))
        change(document)
        return json.dumps(document).encode()

    def set_signatures(*signatures: bytes) -> bytes:
        rows = [{"sig": base64.b64encode(item).decode()} for item in signatures]
        return edited(lambda document: document["dsseEnvelope"].update(signatures=rows))

    flipped = bytearray(signature)
    flipped[-1] ^= 1
    stranger = seal(payload, keys.stranger)
    return {
        "payload": envelope(payload=payload.replace(b"PASSED", b"WARNED")),
        "one blank more": envelope(payload=payload + b" "),
        "payload type": envelope(payload_type="application/vnd.in-toto+jsom"),
        "signature": envelope(signature=bytes(flipped)),
        "signature cut": envelope(signature=signature[:-1]),
        "signature of another statement": envelope(signature=keys.own.sign(b"something else")),
        "signature without PAE": envelope(signature=keys.own.sign(payload)),
        "stranger's signature": envelope(signature=stranger.signature),
        "stranger's bundle": write(Bundle(hint=keys.stranger.id, envelope=stranger)),
        "no signature": set_signatures(),
        "two signatures, both a stranger's": set_signatures(stranger.signature, stranger.signature),
        "two signatures, the first good": set_signatures(signature, stranger.signature),
        "no key": edited(lambda document: document["verificationMaterial"].clear()),
        "no envelope": edited(lambda document: document.pop("dsseEnvelope")),
        "no media type": edited(lambda document: document.pop("mediaType")),
    }


def test_no_tampered_twin_is_accepted_by_anybody(outside: Outside, keys: Keys, tmp_path: Path) -> None:
    twins = {"": write(Bundle(hint=keys.own.id, envelope=seal(statement(), keys.own))), **tampered(keys)}
    files = []
    for index, bundle in enumerate(twins.values()):
        files.append(tmp_path / f"{index}.json")
        files[-1].write_bytes(bundle)
    answers = dict(zip(twins, outside.judge(keys.public, *files), strict=True))
    # The untouched one shows that what is refused is refused for its change.
    assert answers.pop("").accepted
    assert accepted_here(twins.pop(""), keys.own)
    assert [name for name, answer in answers.items() if answer.accepted] == []
    assert [name for name, bundle in twins.items() if accepted_here(bundle, keys.own)] == []
    for name in ("payload", "payload type", "signature", "stranger's signature"):
        assert "signature verification failed" in answers[name].reason


def test_the_hint_is_the_one_that_the_outside_expects(outside: Outside, keys: Keys, tmp_path: Path) -> None:
    """verify.mjs derives the key's name by itself, as cosign does, and looks the key up by it."""
    bundle = tmp_path / "renamed.json"
    bundle.write_bytes(write(Bundle(hint=f"not-{keys.own.id}", envelope=seal(statement(), keys.own))))
    (answer,) = outside.judge(keys.public, bundle)
    assert not answer.accepted
    assert "key not found" in answer.reason
