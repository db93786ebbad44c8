"""Which bundles count, and for which single reason each of the others does not."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from attesting import DIGEST, IMAGE_ID, NOW, checked, signing_key

from builder.attest import KeyKind, Refusal, Refused, SigningKey, TestResult, Verified, check_statement, sign, verify
from builder.attest.bundle import CAP, MEDIA_TYPE, Bundle, parse, write
from builder.attest.dsse import IN_TOTO, Envelope, pre_authentication_encoding, seal
from builder.attest.statement import TEST_RESULT, statement
from builder.errors import EvidenceRefused
from builder.matrix import Level

KINDS = list(KeyKind)
WANTED = f"sha256:{DIGEST}"


@pytest.fixture(params=KINDS, ids=[kind.value for kind in KINDS])
def key(request: pytest.FixtureRequest, tmp_path: Path) -> SigningKey:
    return signing_key(tmp_path, request.param)


def verified(bundle: bytes, *keys: SigningKey, **options: object) -> Verified:
    arguments: dict[str, object] = {"subject_digest": WANTED, "now": NOW, **options}
    return verify(bundle, [key.public for key in keys], **arguments)  # type: ignore[arg-type]


def refusal(bundle: bytes, *keys: SigningKey, **options: object) -> tuple[Refusal, str]:
    with pytest.raises(Refused) as caught:
        verified(bundle, *keys, **options)
    assert isinstance(caught.value, EvidenceRefused)
    assert caught.value.exit_code == 21
    assert "\n" not in caught.value.message
    return caught.value.refusal, caught.value.message


def resigned(key: SigningKey, change: Callable[[dict[str, object]], object]) -> bytes:
    """A bundle with a changed statement, signed with `key`: nothing but its words is wrong."""
    document = json.loads(check_statement(checked()))
    change(document)
    return sign(json.dumps(document).encode(), key)


def changed(bundle: bytes, change: Callable[[dict[str, object]], object]) -> bytes:
    """The bundle itself changed, after it was signed."""
    document = json.loads(bundle)
    change(document)
    return json.dumps(document).encode()


class TestAccepted:
    """What counts."""

    def test_a_bundle_of_each_kind_of_key(self, key: SigningKey) -> None:
        payload = check_statement(checked())
        found = verified(sign(payload, key), key)
        assert found.key_id == key.id
        assert found.payload == payload
        assert found.predicate_type == TEST_RESULT
        assert found.check is not None
        assert found.check.result is TestResult.PASSED
        assert found.check.reached is Level.CPU

    def test_either_name_of_the_image(self, key: SigningKey) -> None:
        bundle = sign(check_statement(checked()), key)
        assert verified(bundle, key, subject_digest=f"sha256:{IMAGE_ID}").check is not None

    def test_one_of_several_trusted_keys(self, key: SigningKey, tmp_path: Path) -> None:
        others = [signing_key(tmp_path, kind, "other") for kind in KINDS]
        assert verified(sign(check_statement(checked()), key), *others, key).key_id == key.id

    def test_a_hint_of_another_tool(self, key: SigningKey, tmp_path: Path) -> None:
        envelope = seal(check_statement(checked()), key)
        for hint in ("", "kms-key-7"):
            found = verified(write(Bundle(hint=hint, envelope=envelope)), signing_key(tmp_path, name="other"), key)
            assert found.key_id == key.id

    def test_another_predicate(self, key: SigningKey) -> None:
        bundle = sign(statement(checked().subjects, "https://example.com/other/v1", {"a": 1}), key)
        found = verified(bundle, key)
        assert (found.check, found.predicate_type) == (None, "https://example.com/other/v1")
        assert refusal(bundle, key, predicate_type=TEST_RESULT)[0] is Refusal.OTHER_PREDICATE

    def test_log_entries_and_url_safe_base64(self, key: SigningKey) -> None:
        def rewrite(document: dict[str, dict[str, object]]) -> None:
            document["verificationMaterial"] |= {"tlogEntries": [], "timestampVerificationData": {}}
            envelope = document["dsseEnvelope"]
            envelope["payload"] = str(envelope["payload"]).replace("+", "-").replace("/", "_")
            envelope["signatures"][0]["keyid"] = ""  # type: ignore[index]

        assert verified(changed(sign(check_statement(checked()), key), rewrite), key).check is not None  # type: ignore[arg-type]


class TestKeys:
    """Whose signature it is."""

    def test_no_key_is_trusted(self, key: SigningKey) -> None:
        assert refusal(sign(check_statement(checked()), key))[0] is Refusal.NO_TRUSTED_KEY

    @pytest.mark.parametrize("kind", KINDS)
    def test_another_key(self, key: SigningKey, tmp_path: Path, kind: KeyKind) -> None:
        other = signing_key(tmp_path, kind, "other")
        why, message = refusal(sign(check_statement(checked()), other), key)
        assert why is Refusal.OTHER_KEY
        assert other.id in message

    def test_another_key_under_a_trusted_name(self, key: SigningKey, tmp_path: Path) -> None:
        envelope = seal(check_statement(checked()), signing_key(tmp_path, key.public.kind, "other"))
        assert refusal(write(Bundle(hint=key.id, envelope=envelope)), key)[0] is Refusal.TAMPERED

    def test_a_certificate(self, key: SigningKey) -> None:
        def certified(document: dict[str, object]) -> None:
            document["verificationMaterial"] = {"certificate": {"rawBytes": "AAAA"}}

        why, message = refusal(changed(sign(check_statement(checked()), key), certified), key)
        assert why is Refusal.OTHER_KEY
        assert "certificate" in message

    def test_two_signatures(self, key: SigningKey, tmp_path: Path) -> None:
        other = signing_key(tmp_path, key.public.kind, "other")
        both = [
            {"sig": base64.b64encode(seal(check_statement(checked()), one).signature).decode()}
            for one in (other, other)
        ]

        def doubled(document: dict[str, dict[str, object]]) -> None:
            document["dsseEnvelope"]["signatures"] = both

        bundle = sign(check_statement(checked()), key)
        assert refusal(changed(bundle, doubled), key)[0] is Refusal.SIGNATURES  # type: ignore[arg-type]
        # Also when one of them is good: sigstore's bundles have one, and an outside verifier refuses these too.
        both[0] = json.loads(bundle)["dsseEnvelope"]["signatures"][0]
        assert refusal(changed(bundle, doubled), key)[0] is Refusal.SIGNATURES  # type: ignore[arg-type]
        both.clear()
        assert refusal(changed(bundle, doubled), key)[0] is Refusal.SIGNATURES  # type: ignore[arg-type]


class TestTampering:
    """What was changed after it was signed."""

    def test_the_payload(self, key: SigningKey) -> None:
        envelope = seal(check_statement(checked()), key)
        for old, new in ((b'"PASSED"', b'"FAILED"'), (DIGEST.encode(), b"9" * 64), (b"{", b" {")):
            payload = envelope.payload.replace(old, new, 1)
            assert payload != envelope.payload
            twin = Envelope(payload_type=IN_TOTO, payload=payload, signature=envelope.signature)
            assert refusal(write(Bundle(hint=key.id, envelope=twin)), key)[0] is Refusal.TAMPERED

    def test_every_bit_of_the_signature(self, key: SigningKey) -> None:
        envelope = seal(check_statement(checked()), key)
        for index in range(len(envelope.signature) * 8):
            signature = bytearray(envelope.signature)
            signature[index // 8] ^= 1 << index % 8
            twin = Envelope(payload_type=IN_TOTO, payload=envelope.payload, signature=bytes(signature))
            assert refusal(write(Bundle(hint=key.id, envelope=twin)), key)[0] is Refusal.TAMPERED

    def test_the_type_of_the_payload(self, key: SigningKey) -> None:
        payload = check_statement(checked())
        envelope = seal(payload, key)
        twin = Envelope(payload_type="application/json", payload=payload, signature=envelope.signature)
        assert refusal(write(Bundle(hint=key.id, envelope=twin)), key)[0] is Refusal.PAYLOAD_TYPE

    def test_what_was_signed_as_something_else(self, key: SigningKey) -> None:
        payload = check_statement(checked())
        other = seal(payload, key, payload_type="text/plain")
        assert refusal(write(Bundle(hint=key.id, envelope=other)), key)[0] is Refusal.PAYLOAD_TYPE
        passed_off = Envelope(payload_type=IN_TOTO, payload=payload, signature=other.signature)
        assert refusal(write(Bundle(hint=key.id, envelope=passed_off)), key)[0] is Refusal.TAMPERED

    def test_the_encoding_of_the_specification(self) -> None:
        # The example in DSSE's protocol.md.
        assert pre_authentication_encoding("http://example.com/HelloWorld", b"hello world") == (
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        )
        # LEN counts bytes, not characters.
        assert pre_authentication_encoding("é", b"") == b"DSSEv1 2 \xc3\xa9 0 "


class TestWords:
    """What is signed, and does not count all the same."""

    def test_another_image(self, key: SigningKey) -> None:
        why, message = refusal(sign(check_statement(checked()), key), key, subject_digest="sha256:" + "9" * 64)
        assert why is Refusal.OTHER_SUBJECT
        assert "sha256:aaaaaaaaaaaa" in message
        assert "sha256:999999999999" in message

    @pytest.mark.parametrize(
        "payload",
        [b"[]", b"{}", b'{"_type": "https://in-toto.io/Statement/v0.1"}', b'"text"'],
        ids=["list", "empty", "old version", "text"],
    )
    def test_no_in_toto(self, key: SigningKey, payload: bytes) -> None:
        assert refusal(sign(payload, key), key)[0] is Refusal.NOT_IN_TOTO

    @pytest.mark.parametrize(
        "payload",
        [b"\xff", b"{", b'{"a": NaN}', b'{"a": 1e999}', b'{"a": 1, "a": 2}', b"[" * 100_000, b"9" * 5000, b""],
        ids=["no UTF-8", "cut", "NaN", "infinite", "twice", "deep", "long number", "empty"],
    )
    def test_no_json(self, key: SigningKey, payload: bytes) -> None:
        assert refusal(sign(payload, key), key)[0] is Refusal.MALFORMED

    def test_too_old(self, key: SigningKey) -> None:
        ended = NOW - timedelta(days=30, seconds=1)
        old = sign(check_statement(checked(started=ended, finished=ended, stated=ended)), key)
        why, message = refusal(old, key, max_age_days=30)
        assert why is Refusal.TOO_OLD
        assert "2026-01-30" in message
        assert "30 days ago" in message
        assert verified(old, key).check is not None
        assert verified(old, key, max_age_days=31).check is not None

    def test_a_new_statement_on_an_old_run_is_old(self, key: SigningKey) -> None:
        ended = NOW - timedelta(days=90)
        reused = checked(started=ended, finished=ended, stated=NOW, reused="1" * 64)
        assert refusal(sign(check_statement(reused), key), key, max_age_days=30)[0] is Refusal.TOO_OLD

    @pytest.mark.parametrize("field", ["finished", "stated"])
    def test_of_the_future(self, key: SigningKey, field: str) -> None:
        ahead = NOW + timedelta(hours=1, seconds=1)
        times = {"finished": ahead, "stated": ahead} if field == "finished" else {"stated": ahead}
        assert refusal(sign(check_statement(checked(**times)), key), key)[0] is Refusal.IN_THE_FUTURE
        near = {name: moment - timedelta(seconds=2) for name, moment in times.items()}
        assert verified(sign(check_statement(checked(**near)), key), key).check is not None


EXTENSION = "https://imgbuild.io/check/v1"


def within(document: dict[str, object], *path: str) -> dict[str, object]:
    found: object = document
    for step in path:
        assert isinstance(found, dict)
        found = found[step]
    assert isinstance(found, dict)
    return found


def setting(*path: str, to: object) -> Callable[[dict[str, object]], None]:
    def change(document: dict[str, object]) -> None:
        within(document, *path[:-1])[path[-1]] = to

    return change


def dropping(*path: str) -> Callable[[dict[str, object]], None]:
    def change(document: dict[str, object]) -> None:
        del within(document, *path[:-1])[path[-1]]

    return change


OWN = ("predicate", EXTENSION)


@pytest.mark.parametrize(
    "change",
    [
        setting("predicate", "failedTests", to=["torch.train.scaler"]),
        setting(*OWN, "reasons", to=["something did not run"]),
        setting(*OWN, "reached", to=None),
        setting("predicate", "passedTests", to=[]),
        setting(*OWN, "reached", to="gpu"),
        setting(*OWN, "finished", to="2026-03-01T10:00:00Z"),
        setting(*OWN, "stated", to="2026-03-01T10:58:59Z"),
        setting("predicate", "warnedTests", to=["torch.train.amp"]),
        setting("predicate", "result", to="FAILED"),
    ],
    ids=[
        "failed",
        "reasons",
        "no level",
        "nothing passed",
        "beyond",
        "ended early",
        "stated early",
        "twice",
        "reached",
    ],
)
def test_a_contradiction(key: SigningKey, change: Callable[[dict[str, object]], object]) -> None:
    assert refusal(resigned(key, change), key)[0] is Refusal.CONTRADICTION
    assert verified(resigned(key, lambda document: None), key).check is not None


def test_a_level_is_not_reached_by_nothing(key: SigningKey) -> None:
    def change(passed: list[str]) -> Callable[[dict[str, object]], None]:
        def changes(document: dict[str, object]) -> None:
            setting("predicate", "result", to="WARNED")(document)
            setting(*OWN, "reasons", to=["something did not run"])(document)
            setting("predicate", "passedTests", to=passed)(document)

        return changes

    assert refusal(resigned(key, change([])), key)[0] is Refusal.CONTRADICTION
    assert verified(resigned(key, change(["static.python"])), key).check is not None


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (dropping("predicate", EXTENSION), f"predicate.{EXTENSION} is missing"),
        (dropping(*OWN, "level"), "level is missing"),
        (dropping("subject"), "subject is missing"),
        (dropping("predicate"), "predicate is not an object"),
        (dropping("predicateType"), "predicateType is missing"),
        (setting("subject", to=[]), "about nothing"),
        (setting("subject", to=[{"digest": {"sha512": "0" * 128}}]), "no subject has a sha256"),
        (setting("subject", to=[{"digest": {"sha256": "A" * 64}}]), "is not a SHA-256"),
        (setting("subject", to=[{"name": "x"}]), "digest is missing"),
        (setting("predicate", "result", to="passed"), "none of the three"),
        (setting("predicate", "result", to=True), "result is not a text"),
        (setting("predicate", "passedTests", to="torch"), "passedTests is not a list"),
        (setting("predicate", "passedTests", to=[1]), "passedTests.0 is not a text"),
        (setting("predicate", "configuration", to=[]), "does not name the suite"),
        (setting("predicate", "configuration", to=[{"name": "suite"}]), "digest is missing"),
        (setting(*OWN, "level", to="quantum"), "level is not one of"),
        (setting(*OWN, "reached", to=7), "reached is not one of"),
        (setting(*OWN, "finished", to="2026-03-01T12:00:00"), "finished is not a time"),
        (setting(*OWN, "finished", to="2026-13-01T12:00:00Z"), "finished is not a time"),
        (setting(*OWN, "not_run", to=[{"name": "a"}]), "level is missing"),
        (setting(*OWN, "durations", to={"a": "1"}), "durations.a is not a number"),
        (setting(*OWN, "durations", to={"a": True}), "durations.a is not a number"),
        (setting(*OWN, "losses", to={"a": {"first": 1}}), "last is missing"),
        (setting(*OWN, "environment", to={}), "engine is missing"),
        (setting(*OWN, "reused", to={"sha256": "abc"}), "reused.sha256 is not"),
        (setting(*OWN, "cell", to="x" * 5000), "at most 4096 characters"),
        (setting(*OWN, "cell", to="a\x1b[31mb"), "not a text of one line"),
        (setting(*OWN, "cell", to="\ud800"), "not a text of one line"),
        (setting(*OWN, "cell", to="a\u2028b"), "not a text of one line"),
        (setting(*OWN, "failures", to={"\x1b[2J": "why"}), "name is no text of one line"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_statement(key: SigningKey, change: Callable[[dict[str, object]], object], where: str) -> None:
    why, message = refusal(resigned(key, change), key)
    assert why is Refusal.MALFORMED
    assert where in message


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (setting("mediaType", to="application/vnd.dev.sigstore.bundle+json;version=0.1"), "expected"),
        (dropping("mediaType"), "mediaType is missing"),
        (dropping("verificationMaterial"), "verificationMaterial is missing"),
        (setting("verificationMaterial", to={}), "publicKey is missing"),
        (setting("verificationMaterial", "publicKey", "hint", to="x" * 2000), "at most 1024 characters"),
        (setting("verificationMaterial", "publicKey", "rawBytes", to=""), "unknown field 'rawBytes'"),
        (dropping("dsseEnvelope"), "dsseEnvelope is missing"),
        (setting("dsseEnvelope", "payload", to="%%%"), "payload is not in base64"),
        (setting("dsseEnvelope", "payload", to="YQ"), "payload is not in base64"),
        (setting("dsseEnvelope", "payload", to=""), "payload is empty"),
        (setting("dsseEnvelope", "signatures", to=[{"sig": ""}]), "signature is empty"),
        (setting("dsseEnvelope", "signatures", to=[{"sig": 3}]), "sig is not a text"),
        (setting("dsseEnvelope", "signatures", to="sig"), "signatures is not a list"),
        (setting("dsseEnvelope", "extra", to=1), "unknown field 'extra'"),
        (setting("messageSignature", to={}), "signs a file"),
        (setting("more", to={}), "unknown field 'more'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_bundle(key: SigningKey, change: Callable[[dict[str, object]], object], where: str) -> None:
    bundle = sign(check_statement(checked()), key)
    why, message = refusal(changed(bundle, change), key)
    assert why is Refusal.MALFORMED
    assert where in message
    assert verified(changed(bundle, lambda document: None), key).check is not None


def test_a_bundle_that_is_too_large(key: SigningKey) -> None:
    bundle = sign(check_statement(checked()), key)
    assert verified(bundle + b" " * (CAP - len(bundle)), key).check is not None
    assert refusal(bundle + b" " * (CAP - len(bundle) + 1), key)[0] is Refusal.MALFORMED


def test_a_bundle_is_read_as_it_was_written(key: SigningKey) -> None:
    bundle = Bundle(hint=key.id, envelope=seal(b"{}", key))
    assert parse(write(bundle)) == bundle
    assert json.loads(write(bundle))["mediaType"] == MEDIA_TYPE


@pytest.mark.parametrize(
    "digest", ["", "latest", "sha512:" + "0" * 128, "sha256:abc", "sha256:" + "A" * 64, "sha256:" + "g" * 64]
)
def test_a_digest_that_is_none_is_a_defect_of_the_caller(key: SigningKey, digest: str) -> None:
    with pytest.raises(ValueError, match="is no sha256 digest"):
        verified(sign(check_statement(checked()), key), key, subject_digest=digest)


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    items: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


STRANGE: tuple[object, ...] = (None, True, 0, -1, 1e308, 10**19, "", "x" * 5000, "\ud800", [], {}, [[]], {"a": 1}, "é")


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_in_a_bundle_it_is_read_or_refused(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    key = signing_key(tmp_path, KeyKind.ED25519)
    outcomes = {True: 0, False: 0}
    for number in range(500):
        statement_first = number % 2 == 0
        good = check_statement(checked())
        document = json.loads(good if statement_first else sign(good, key))
        path = chance.choice(list(places(document)))
        holder: Any = document
        for step in path[:-1]:
            holder = holder[step]
        if chance.random() < 0.2:
            del holder[path[-1]]
        else:
            holder[path[-1]] = chance.choice(STRANGE)
        data = json.dumps(document).encode()
        bundle = sign(data, key) if statement_first else data
        try:
            verified(bundle, key, max_age_days=3)
        except Refused:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
    # A name or a reason may be any text; most of the rest may not.
    assert min(outcomes.values()) > 20
