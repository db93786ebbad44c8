"""`imgbuild promote` and `imgbuild verify` on a real registry without a referrers API.

No GPU is needed: what a machine with one would sign is signed here by the same key.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import docker
import pytest
from command import Ran
from loopback_registry import registry, stored_blobs

from builder.attest import (
    Checked,
    Environment,
    References,
    SigningKey,
    Subject,
    check_statement,
    load_signing_key,
    sign,
)
from builder.attest.keygen import write_pair
from builder.attest.keys import KeyKind
from builder.check import CheckOutcome, Status, Verdict, VerdictStatus
from builder.engine.auth import DockerLogins
from builder.engine.connection import Engine
from builder.engine.images import tag, untag
from builder.engine.transfer import push
from builder.matrix import Level
from builder.registry.artifacts import BUNDLE_TYPE, attach
from builder.registry.client import Repository

pytestmark = pytest.mark.engine

NOW = datetime.now(timezone.utc).replace(microsecond=0)


class Place:
    """A registry, two keys, and images that were pushed into it, each in a repository of its own."""

    def __init__(self, engine: Engine, address: str, directory: Path, base: str) -> None:
        self.engine, self.address, self.directory, self.base = engine, address, directory, base
        self.keys = {}
        for name, kind in (("own", KeyKind.ECDSA_P256), ("other", KeyKind.ED25519)):
            private, _, _ = write_pair(directory / name, kind, None)
            self.keys[name] = load_signing_key(private)
        self.names: list[str] = []

    def key(self, name: str = "own") -> Path:
        """The public key's file."""
        return self.directory / name / "imgbuild.pub"

    def image(self) -> Image:
        """An image that nobody has checked, as a candidate in a repository of its own."""
        client = docker.from_env()
        container = client.containers.create(self.base, ["true"])
        made = container.commit(changes=f"LABEL promote={secrets.token_hex(8)}")
        container.remove()
        client.close()
        repository = f"{self.address}/team/image-{len(self.names)}"
        reference = f"{repository}:candidate-1"
        tag(self.engine, str(made.id), reference)
        self.names.append(reference)
        return Image(self, repository, push(self.engine, reference, DockerLogins()))

    def run(self, *arguments: str) -> Ran:
        """The command, which knows of no key but those on its line."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("IMGBUILD_")}
        ran = subprocess.run(
            [sys.executable, "-m", "builder.cli", *arguments],
            env={**environment, "IMGBUILD_STATE_DIR": str(self.directory / "state")},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Ran(code=ran.returncode, out=ran.stdout, err=ran.stderr)


class Image:
    def __init__(self, place: Place, repository: str, digest: str) -> None:
        self.place, self.repository, self.digest = place, repository, digest

    @property
    def reference(self) -> str:
        return f"{self.repository}@{self.digest}"

    def attest(
        self,
        reached: Level = Level.GPU,
        *,
        key: str = "own",
        hours: float = 1,
        failed: bool = False,
        subject: str = "",
        tamper: bool = False,
    ) -> None:
        """Attaches what a check would have signed that ended some hours ago."""
        bundle = sign(self._statement(reached, hours, failed, subject), self.signer(key))
        if tamper:
            document = json.loads(bundle)
            payload = base64.b64decode(document["dsseEnvelope"]["payload"])
            assert b'"reached":"cpu"' in payload
            changed = payload.replace(b'"reached":"cpu"', b'"reached":"gpu"').replace(
                b'"level":"cpu"', b'"level":"gpu"'
            )
            document["dsseEnvelope"]["payload"] = base64.b64encode(changed).decode()
            bundle = json.dumps(document).encode()
        with Repository(self.repository, DockerLogins()) as repository:
            found = repository.manifest(self.digest)
            assert found is not None
            attach(repository, found.descriptor, artifact_type=BUNDLE_TYPE, payload=bundle, payload_type=BUNDLE_TYPE)

    def signer(self, key: str) -> SigningKey:
        return self.place.keys[key]

    def _statement(self, reached: Level, hours: float, failed: bool, subject: str) -> bytes:
        check = CheckOutcome(
            name=f"{reached.value}.check",
            level=reached,
            status=Status.FAILED if failed else Status.PASSED,
            reason="the loss is NaN" if failed else "",
            seconds=1.0,
            measured={},
        )
        reasons = ("the loss is NaN",) if failed else ()
        finished = NOW - timedelta(hours=hours)
        return check_statement(
            Checked(
                subjects=(Subject(name=self.repository, sha256=(subject or self.digest).removeprefix("sha256:")),),
                verdict=Verdict(
                    status=VerdictStatus.FAILED if failed else VerdictStatus.PASSED,
                    level=reached,
                    reached=None if failed else reached,
                    checks=(check,),
                    facts=None,
                    reasons=reasons,
                ),
                reached=None if failed else reached,
                suite_sha256="5" * 64,
                started=finished - timedelta(minutes=1),
                finished=finished,
                stated=finished,
                cell="a-cell",
                environment=Environment(device=reached.value),
                references=References(
                    public=(f"{self.repository}:1.0",), verified=(f"{self.repository}:1.0-verified",)
                ),
            )
        )

    def promote(self, *arguments: str) -> Ran:
        return self.place.run("promote", self.reference, "--key", str(self.place.key()), *arguments)

    def verify(self, *arguments: str) -> Ran:
        return self.place.run("verify", self.reference, "--key", str(self.place.key()), *arguments)

    @property
    def named(self) -> dict[str, str | None]:
        """What the tags name, without the candidate's and those of artifacts."""
        with Repository(self.repository, DockerLogins()) as repository:
            tags = [name for name in repository.tags() if not name.startswith(("sha256-", "candidate-"))]
            return {name: repository.digest(name) for name in tags}


@pytest.fixture(scope="module")
def place(engine: Engine, tiny_base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("registry")
    with registry(directory) as address:
        found = Place(engine, address, directory, tiny_base)
        yield found
        for reference in found.names:
            untag(engine, reference)


@pytest.fixture
def image(place: Place) -> Image:
    return place.image()


def test_a_promotion_names_the_digest_and_sends_nothing(place: Place, image: Image) -> None:
    image.attest(Level.CPU, hours=2)
    first = image.promote("--format", "json")
    assert first.code == 0, first.err
    assert first.json["moved"] == [f"{image.repository}:1.0"]
    reason = "it needs level gpu, and cpu is reached"
    assert first.json["withheld"] == [{"reference": f"{image.repository}:1.0-verified", "reason": reason}]
    assert image.promote("--require", "gpu").code == 20
    assert image.named == {"1.0": image.digest}
    # Then a machine with a GPU has its say.
    image.attest(Level.GPU)
    before = stored_blobs(place.directory)
    second = image.promote("--require", "gpu")
    assert second.code == 0, second.err
    assert f"moved     {image.repository}:1.0-verified {image.digest}" in second.out
    assert image.named == {"1.0": image.digest, "1.0-verified": image.digest}
    assert stored_blobs(place.directory) == before
    third = image.promote("--require", "gpu")
    assert (third.code, third.out.count("unchanged"), third.out.count("moved")) == (0, 2, 0)
    assert stored_blobs(place.directory) == before


REFUSED = {
    "another key": ({"key": "other"}, "which is not trusted here"),
    "tampered": ({"tamper": True, "reached": Level.CPU}, "was changed"),
    "another subject": ({"subject": "sha256:" + "9" * 64}, "about another image"),
    "too old": ({"hours": 49}, "at most 1 are allowed"),
    "from the future": ({"hours": -2}, "still to come"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_evidence_that_does_not_verify_names_nothing(image: Image, what: str) -> None:
    changes, message = REFUSED[what]
    image.attest(**changes)  # type: ignore[arg-type]
    for ran in (image.verify("--max-age", "1"), image.promote("--max-age", "1")):
        assert ran.code == 21
        assert message in ran.err
    assert image.named == {}
    # The twin that is as it should be counts, whatever lies beside it.
    image.attest()
    assert image.verify("--max-age", "1", "--require", "gpu").code == 0
    assert image.promote("--max-age", "1", "--require", "gpu").code == 0
    assert image.named == {"1.0": image.digest, "1.0-verified": image.digest}


def test_a_later_failure_outweighs_what_passed_and_is_outweighed_in_turn(image: Image) -> None:
    image.attest(hours=3)
    assert image.verify("--require", "gpu").code == 0
    image.attest(Level.CPU, hours=2, failed=True)
    ran = image.verify()
    assert ran.code == 20
    assert "cpu.check: the loss is NaN" in ran.err
    assert image.promote().code == 20
    assert image.named == {}
    # A failure that somebody else signs changes nothing.
    image.attest(hours=1)
    image.attest(Level.CPU, hours=0.5, failed=True, key="other")
    assert image.verify("--require", "gpu").code == 0


def test_each_end_has_its_exit_code(place: Place, image: Image) -> None:
    key = str(place.key())
    assert image.verify().code == 20
    assert place.run("verify", image.reference).code == 5
    assert place.run("verify", image.reference, "--key", str(place.directory / "none.pub")).code == 5
    absent = f"{image.repository}@sha256:{'0' * 64}"
    assert place.run("verify", absent, "--key", key).code == 15
    assert place.run("verify", f"{image.repository}:none", "--key", key).code == 15
    assert place.run("verify", "127.0.0.1:9/a/b:1", "--key", key).code == 15
    assert place.run("verify", "NOT A NAME", "--key", key).code == 2
    ran = place.run("promote", f"{image.repository}:candidate-1", "--key", key)
    assert (ran.code, "name the image by its digest" in ran.err) == (5, True)
    image.attest(Level.CPU)
    assert image.verify().code == 0
    assert image.verify("--require", "gpu").code == 20
    found = place.run("verify", f"{image.repository}:candidate-1", "--key", key, "--format", "json")
    assert (found.code, found.json["digest"], found.json["reached"]) == (0, image.digest, "cpu")


def test_evidence_shows_what_counts_and_what_does_not(place: Place, image: Image) -> None:
    image.attest(Level.CPU)
    image.attest(key="other")
    ran = place.run("evidence", image.reference, "--key", str(place.key()), "--format", "json")
    assert ran.code == 0, ran.err
    assert (ran.json["reached"], len(ran.json["trusted"])) == ("cpu", 1)
    assert [item["refused"] for item in ran.json["doubtful"]] == ["other-key"]
    both = place.run("evidence", image.reference, "--key", str(place.key()), "--key", str(place.key("other")))
    assert "level: gpu" in both.out
    # Without any key all of it is shown, and none counts.
    none = place.run("evidence", image.reference, "--format", "json")
    assert (none.code, none.json["reached"], len(none.json["doubtful"])) == (0, None, 2)


def test_a_tag_of_ones_own_needs_the_same(image: Image) -> None:
    image.attest(Level.CPU)
    ran = image.promote("--tag", "mine", "--tag", "mine-verified")
    assert ran.code == 0, ran.err
    assert "withheld" in ran.out
    assert image.named == {"mine": image.digest}
