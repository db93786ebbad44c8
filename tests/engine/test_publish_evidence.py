"""`imgbuild publish` and `imgbuild check --attach`, from a build to names in a registry, with a suite of three checks.

The registry is Debian's, behind a proxy that adds the referrers API and writes down every request.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from command import Ran
from loopback_registry import certificates, login_file, registry, stored_blobs
from referrers_proxy import ReferrersProxy, referrers_proxy
from small_suite import CPU_CELL, CUDA_CELL, SmallSuite

from builder.attest import CheckStatement, SigningKey, load_signing_key, statement_sha256
from builder.attest.claims import parse_check, parse_statement
from builder.attest.keygen import write_pair
from builder.attest.keys import KeyKind
from builder.emit.jobs import digest_of
from builder.engine.auth import DockerLogins
from builder.engine.connection import Engine
from builder.engine.images import inspect, list_images, tag, untag
from builder.matrix import Level
from builder.registry.client import Repository
from builder.release.publication import attach_statement

pytestmark = pytest.mark.engine


@dataclass(frozen=True, kw_only=True)
class Shop:
    """A checkout whose images go into a registry, with a key of its own."""

    suite: SmallSuite
    proxy: ReferrersProxy
    directory: Path
    key: SigningKey

    @property
    def repository(self) -> str:
        return f"{self.suite.repository}/pytorch"

    @property
    def public_key(self) -> str:
        return str(self.directory / "keys/imgbuild.pub")

    def run(self, *arguments: str, key: str = "keys", environment: Mapping[str, str] | None = None) -> Ran:
        """The command, with the named key to sign with; none when it is empty."""
        own = {"IMGBUILD_SIGNING_KEY": str(self.directory / key / "imgbuild.key")} if key else {}
        base = {name: value for name, value in os.environ.items() if "_KEY" not in name}
        ran = subprocess.run(
            [sys.executable, "-m", "builder.cli", *arguments],
            cwd=self.suite.directory,
            env={**base, "IMGBUILD_STATE_DIR": str(self.suite.directory / "state"), **own, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        return Ran(code=ran.returncode, out=ran.stdout, err=ran.stderr)

    def cells(self, *arguments: str, code: int = 0, key: str = "keys") -> dict[str, dict[str, Any]]:
        """What a command's JSON says of each cell, by id."""
        ran = self.run(*arguments, "--repository", self.suite.repository, "--format", "json", key=key)
        assert ran.code == code, ran.out + ran.err
        return {str(cell["cell"]): cell for cell in ran.json["cells"]}

    def evidence(self, digest: str) -> Any:
        ran = self.run("evidence", f"{self.repository}@{digest}", "--format", "json")
        assert ran.code == 0, ran.err
        return ran.json

    def verify(self, digest: str, *arguments: str) -> Ran:
        return self.run("verify", f"{self.repository}@{digest}", "--key", self.public_key, *arguments, key="")

    def names(self) -> dict[str, str | None]:
        """What the public tags name in the registry."""
        with Repository(self.repository, DockerLogins()) as repository:
            tags = [name for name in repository.tags() if not name.startswith(("sha256-", "candidate-"))]
            return {name: repository.digest(name) for name in tags}


@pytest.fixture(scope="module")
def shop(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    directory = tmp_path_factory.mktemp("publish")
    for name in ("keys", "others"):
        write_pair(directory / name, KeyKind.ECDSA_P256, None)
    (directory / "registry").mkdir()
    with registry(directory / "registry") as address, referrers_proxy(address) as proxy:
        suite = SmallSuite.make(directory / "checkout", f"{proxy.address}/small")
        key = load_signing_key(directory / "keys/imgbuild.key")
        yield Shop(suite=suite, proxy=proxy, directory=directory, key=key)
        for image in list_images(engine):
            for name in image.tags:
                if name.startswith(f"{proxy.address}/"):
                    untag(engine, name)


@pytest.fixture(scope="module")
def built(shop: Shop) -> dict[str, dict[str, Any]]:
    """What the build said, after what is refused before it."""
    ran = shop.run("publish", "--repository", shop.suite.repository, key="")
    assert ran.code == 5
    assert "there is no key to sign evidence with" in ran.err
    assert "imgbuild keygen" in ran.err
    absent = shop.cells("publish", code=18)
    assert {cell["exit_code"] for cell in absent.values()} == {18}
    shop.cells("build", "--no-check")
    unchecked = shop.cells("publish", code=11)
    assert "was not checked here by this suite" in unchecked[CPU_CELL]["reasons"][0]
    assert shop.proxy.writes() == []
    return shop.cells("build")


@pytest.fixture(scope="module")
def first(shop: Shop, built: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What the first publication said."""
    shop.proxy.writes()
    return shop.cells("publish")


@pytest.fixture(autouse=True)
def _without_gpu(engine: Engine) -> None:
    if engine.info().gpu:
        pytest.skip("not run: this engine has a GPU, and these tests are about one that has none")


def statement(shop: Shop, digest: str, kind: str = "check") -> tuple[bytes, str]:
    """The one trusted statement of a kind, as it was signed, and its hash."""
    wanted = {item["statement"] for item in shop.evidence(digest)["trusted"] if item["kind"] == kind}
    assert len(wanted) == 1
    with Repository(shop.repository, DockerLogins()) as repository:
        for entry in repository.referrers(digest) or ():
            manifest = repository.manifest(entry.digest)
            assert manifest is not None
            layer: Any = manifest.document()["layers"]
            bundle = json.loads(repository.blob(layer[0]["digest"]))
            payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
            if statement_sha256(payload) in wanted:
                return payload, statement_sha256(payload)
    raise AssertionError(f"no {kind} is attached to {digest}")


def check(shop: Shop, digest: str) -> CheckStatement:
    return parse_check(parse_statement(statement(shop, digest)[0]))


def test_every_run_leaves_a_signed_statement(shop: Shop, built: dict[str, dict[str, Any]]) -> None:
    runs = sorted((shop.suite.directory / "state/runs").iterdir())
    assert len(runs) == 2
    for run in runs:
        assert {"run.json", "statement.json", "bundle.json", "junit.xml"} <= {path.name for path in run.iterdir()}
    found = shop.run("evidence", built[CPU_CELL]["image_id"], "--format", "json")
    assert (found.code, found.json["reached"]) == (0, "cpu")
    assert found.json["trusted"][0]["signed_by"] == shop.key.id


def test_what_is_published_is_what_was_checked_with_evidence_and_the_names_it_earned(
    shop: Shop, built: dict[str, dict[str, Any]], first: dict[str, dict[str, Any]], engine: Engine
) -> None:
    cpu, cuda = first[CPU_CELL], first[CUDA_CELL]
    for cell_id, cell in first.items():
        assert (cell["status"], cell["pushed"], cell["reached"]) == ("published", True, "cpu")
        assert [(item["kind"], item["new"]) for item in cell["attached"]] == [
            ("check", True),
            ("provenance", True),
            ("sbom", True),
        ]
        assert cell["image_id"] == built[cell_id]["image_id"]
        image = inspect(engine, f"{shop.repository}@{cell['digest']}")
        assert image is not None
        assert image.id == cell["image_id"]
    plain, cuda_plain = "2.13.0-cpu-py3.11", "2.13.0-cuda13.0-py3.11"
    assert shop.names() == {
        plain: cpu["digest"],
        f"{plain}-verified": cpu["digest"],
        cuda_plain: cuda["digest"],
    }
    reason = "it needs level gpu, and cpu is reached"
    assert cuda["withheld"] == [{"reference": f"{shop.repository}:{cuda_plain}-verified", "reason": reason}]
    found = check(shop, cpu["digest"])
    assert (found.cell, found.reached, found.reused) == (CPU_CELL, Level.CPU, None)
    assert {"suite", "matrix.yaml", "Dockerfile", "key"} <= set(found.configuration)
    assert found.environment.engine == engine.info().version
    assert found.environment.kernel == os.uname().release
    about = parse_statement(statement(shop, cpu["digest"])[0]).subjects
    assert [(item.name, f"sha256:{item.sha256}") for item in about] == [
        (shop.repository, cpu["digest"]),
        ("image-id", cpu["image_id"]),
    ]
    bill = json.loads(statement(shop, cpu["digest"], "sbom")[0])["predicate"]
    assert {"torch", "pip", "base-files"} <= {item["name"] for item in bill["components"]}
    made = json.loads(statement(shop, cpu["digest"], "provenance")[0])["predicate"]["buildDefinition"]
    assert made["externalParameters"]["cell"] == CPU_CELL


def test_nothing_secret_and_nothing_of_this_machine_is_published(shop: Shop, first: dict[str, dict[str, Any]]) -> None:
    private = (shop.directory / "keys/imgbuild.key").read_text().splitlines()[1]
    for cell in first.values():
        for kind in ("check", "provenance", "sbom"):
            text = statement(shop, cell["digest"], kind)[0].decode()
            for word in (private, str(shop.directory), os.uname().nodename):
                assert word not in text


def test_the_same_again_sends_nothing_and_moves_nothing(shop: Shop, first: dict[str, dict[str, Any]]) -> None:
    before = stored_blobs(shop.directory / "registry"), shop.names()
    shop.proxy.writes()
    again = shop.cells("publish")
    assert shop.proxy.writes() == []
    assert (stored_blobs(shop.directory / "registry"), shop.names()) == before
    for cell_id, cell in again.items():
        assert (cell["status"], cell["moved"], cell["pushed"]) == ("unchanged", [], False)
        assert [(i["statement"], i["new"]) for i in cell["attached"]] == [
            (i["statement"], False) for i in first[cell_id]["attached"]
        ]
    # Without this machine's names of them, the images are found all the same.
    text = shop.run("publish", CPU_CELL, "--repository", shop.suite.repository).out
    assert f"unchanged  {CPU_CELL} {first[CPU_CELL]['digest']}" in text


def test_a_cluster_admits_what_is_verified_and_nothing_else(shop: Shop, first: dict[str, dict[str, Any]]) -> None:
    cpu, cuda = first[CPU_CELL]["digest"], first[CUDA_CELL]["digest"]
    assert shop.verify(cpu, "--require", "cpu").code == 0
    assert shop.verify(cuda, "--require", "gpu").code == 20
    other = shop.run("verify", f"{shop.repository}@{cpu}", "--key", str(shop.directory / "others/imgbuild.pub"), key="")
    assert other.code == 21


def test_what_trusted_evidence_says_is_not_checked_again(shop: Shop, first: dict[str, dict[str, Any]]) -> None:
    reference = f"{shop.repository}@{first[CPU_CELL]['digest']}"
    asked = ("check", CPU_CELL, "--image", reference, "--attach")
    shop.proxy.writes()
    cell = shop.cells(*asked)[CPU_CELL]
    assert (cell["status"], cell["checked"]) == ("unchanged", False)
    assert shop.key.id in cell["reasons"][0]
    assert shop.proxy.writes() == []
    assert shop.cells(*asked, "--recheck")[CPU_CELL]["checked"] is True
    assert len([i for i in shop.evidence(first[CPU_CELL]["digest"])["trusted"] if i["kind"] == "check"]) == 2
    # To somebody who does not trust that key, it says nothing.
    other = shop.cells(*asked, key="others")[CPU_CELL]
    assert other["status"] == "passed"


def test_an_image_that_the_engine_lacks_is_pulled_and_checked_by_its_digest(
    shop: Shop, first: dict[str, dict[str, Any]], engine: Engine, tmp_path: Path
) -> None:
    digest = first[CPU_CELL]["digest"]
    asked = ("check", "--image", f"{shop.repository}@{digest}", "--level", "cpu", "--attach", "--recheck")
    # Another machine: no memory, no matrix.
    ran = shop.run(*asked, "--format", "json", environment={"IMGBUILD_STATE_DIR": str(tmp_path / "state")})
    assert ran.code == 11, ran.out + ran.err
    assert ran.json["cells"][0]["checked"] is True
    assert "nothing to train with" in str(ran.json["cells"][0]["reasons"])
    refused = shop.run("check", "--image", f"{shop.repository}:2.13.0-cpu-py3.11", "--attach")
    assert (refused.code, "by its digest" in refused.err) == (5, True)
    assert shop.run("check", "--image", f"{shop.repository}@{digest}", "--attach", key="").code == 5
    assert shop.run("check", CPU_CELL, "--attach").code == 2
    assert shop.run(*asked, "--user", "0:0").code == 5
    assert shop.run("check", "--image", f"{shop.repository}@{digest}", "--attach", "--level", "gpu").code == 11


def test_what_a_gpu_says_moves_verified_without_a_layer(shop: Shop, first: dict[str, dict[str, Any]]) -> None:
    cuda = first[CUDA_CELL]["digest"]
    reference = f"{shop.repository}@{cuda}"
    name = "2.13.0-cuda13.0-py3.11-verified"
    assert shop.run("promote", reference, "--require", "gpu").code == 20
    attach_gpu(shop, cuda, "others")
    assert shop.run("promote", reference, "--require", "gpu").code == 20
    assert name not in shop.names()
    attach_gpu(shop, cuda, "keys")
    before = stored_blobs(shop.directory / "registry")
    shop.proxy.writes()
    done = shop.run("promote", reference, "--require", "gpu")
    assert done.code == 0, done.err
    assert shop.names()[name] == cuda
    assert stored_blobs(shop.directory / "registry") == before
    assert shop.proxy.writes() == [f"PUT /v2/small/pytorch/manifests/{name}"]
    assert shop.verify(cuda, "--require", "gpu").code == 0
    # What this machine, which has no GPU, publishes next takes nothing away.
    again = shop.cells("publish", CUDA_CELL)[CUDA_CELL]
    assert (again["status"], again["withheld"]) == ("unchanged", [])


def attach_gpu(shop: Shop, digest: str, key: str) -> None:
    """Attaches what a machine with a GPU would: the statement of this one, at its level."""
    found = json.loads(statement(shop, digest)[0]) if key == "others" else json.loads(_first_check(shop, digest))
    own = found["predicate"]["https://imgbuild.io/check/v1"]
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    own |= {"level": "gpu", "reached": "gpu", "started": now, "finished": now, "stated": now, "not_run": []}
    made = json.dumps(found).encode()
    with Repository(shop.repository, DockerLogins()) as repository:
        manifest = repository.manifest(digest)
        assert manifest is not None
        attach_statement(repository, manifest.descriptor, made, load_signing_key(shop.directory / key / "imgbuild.key"))


def _first_check(shop: Shop, digest: str) -> bytes:
    return statement(shop, digest)[0]


def test_another_image_of_the_same_content_is_stated_and_not_checked_again(
    shop: Shop, first: dict[str, dict[str, Any]]
) -> None:
    runs = set((shop.suite.directory / "state/runs").iterdir())
    shop.suite.edit("dockerfiles/small.Dockerfile.j2", "USER 1000", "LABEL another=label\nUSER 1000")
    built = shop.cells("build", CPU_CELL)[CPU_CELL]
    assert (built["built"], built["checked"]) == (True, False)
    assert set((shop.suite.directory / "state/runs").iterdir()) == runs
    shop.proxy.writes()
    done = shop.cells("publish", CPU_CELL)[CPU_CELL]
    assert done["digest"] != first[CPU_CELL]["digest"]
    assert shop.names()["2.13.0-cpu-py3.11-verified"] == done["digest"]
    found = check(shop, done["digest"])
    cited = {statement_sha256((run / "statement.json").read_bytes()) for run in runs}
    assert found.reused in cited
    assert found.stated > found.finished
    # The layers are there already.
    sent = [line for line in shop.proxy.writes() if line.startswith("PATCH")]
    assert len(sent) == 1, sent  # the configuration alone


def test_a_failure_that_is_found_later_takes_the_verification_away(
    shop: Shop, first: dict[str, dict[str, Any]]
) -> None:
    digest = str(shop.names()["2.13.0-cpu-py3.11-verified"])
    reference = f"{shop.repository}@{digest}"
    shop.suite.write_check("cpu", 'fail("it does not learn")')
    try:
        cell = shop.cells("check", CPU_CELL, "--image", reference, "--attach", code=10)[CPU_CELL]
        assert "small.cpu: it does not learn" in cell["reasons"]
        ran = shop.verify(digest)
        assert ran.code == 20
        assert "small.cpu: it does not learn" in ran.err
        assert shop.run("promote", reference).code == 20
        failed = shop.cells("publish", CPU_CELL, code=10)[CPU_CELL]
        assert "did not pass: small.cpu: it does not learn" in failed["reasons"][0]
    finally:
        shop.suite.write_check("cpu")
    # This machine remembers that the suite as it was passed, and yet the registry's last word is the failure.
    again = shop.cells("publish", CPU_CELL, code=20)[CPU_CELL]
    assert "it failed on" in again["reasons"][0]
    assert shop.cells("check", CPU_CELL, "--image", reference, "--attach", "--recheck")[CPU_CELL]["checked"] is True
    assert shop.verify(digest).code == 0
    assert shop.cells("publish", CPU_CELL)[CPU_CELL]["exit_code"] == 0


def test_a_candidate_that_is_another_image_in_the_registry_names_nothing(
    shop: Shop, first: dict[str, dict[str, Any]]
) -> None:
    cpu, cuda = shop.cells("publish", CPU_CELL)[CPU_CELL], first[CUDA_CELL]
    candidate = cpu["candidate"].rpartition(":")[2]
    names = shop.names()
    with Repository(shop.repository, DockerLogins()) as repository:
        mine, other = repository.manifest(candidate), repository.manifest(cuda["digest"])
        assert mine is not None
        assert other is not None
        repository.put_manifest(candidate, other.body, other.media_type)
        try:
            done = shop.cells("publish", CPU_CELL, code=15)
        finally:
            repository.put_manifest(candidate, mine.body, mine.media_type)
    assert "is not the image that was checked" in done[CPU_CELL]["reasons"][0]
    assert shop.names() == names


@pytest.mark.usefixtures("first")
def test_a_job_pushes_evidence_and_the_promotion_trusts_nothing_else(shop: Shop) -> None:
    job = digest_of([CPU_CELL])[:16]
    records = str(shop.directory / "records")
    asked = ("--job", job, "--cells", CPU_CELL, "--records", records, "--repository", shop.suite.repository)
    ran = shop.run("ci", "run", *asked)
    assert ran.code == 0, ran.out + ran.err
    record = json.loads(Path(records, f"{job}.json").read_text())
    digest = record["cells"][0]["digest"]
    assert shop.verify(digest).code == 0
    promote = ("ci", "promote", "--jobs", job, "--records", records)
    trusting = {"IMGBUILD_TRUSTED_KEYS": shop.public_key}
    done = shop.run(*promote, key="", environment=trusting)
    assert done.code == 0, done.err
    assert f"{shop.repository}:2.13.0-cpu-py3.11-verified {digest}" in done.out
    doubting = {"IMGBUILD_TRUSTED_KEYS": str(shop.directory / "others/imgbuild.pub")}
    with Repository(shop.repository, DockerLogins()) as repository:
        assert repository.digest("2.13.0-cpu-py3.11") == digest
    refused = shop.run(*promote, key="", environment=doubting)
    # It has signed nothing of this digest, or of this run.
    assert refused.code in (20, 21)
    assert "moved" not in refused.out
    unsigned = shop.run(*promote, key="")
    assert (unsigned.code, "nothing is signed" in unsigned.out) == (0, True), unsigned.err
    asked = ("matrix", CPU_CELL, "--unpublished", "--format", "github", "--repository", shop.suite.repository)
    for environment, there in (({}, True), (trusting, True), (doubting, False)):
        listed = shop.run(*asked, key="", environment=environment)
        assert listed.code == 0, listed.err
        assert (CPU_CELL in listed.out) is not there


def test_tls_with_a_company_ca_and_a_login(
    shop: Shop, first: dict[str, dict[str, Any]], engine: Engine, tmp_path: Path
) -> None:
    """The same images under the name of another registry: what passed is known by its content."""
    shop.suite.run("build", CPU_CELL)
    place = tmp_path / "registry"
    place.mkdir()
    tls = certificates(place)
    with registry(place, tls=tls, login=True) as address:
        repository = f"{address}/small"
        names = []
        for image in list_images(engine):
            for name in image.tags:
                if name.startswith(f"{shop.proxy.address}/small/") and (":candidate-" in name or "/base:" in name):
                    names.append(name.replace(shop.proxy.address, address))
                    tag(engine, image.id, names[-1])
        other = replace(shop, suite=replace(shop.suite, repository=repository))
        login_file(tmp_path / "docker", address)
        reaching = {
            "DOCKER_CONFIG": str(tmp_path / "docker"),
            "IMGBUILD_CA_BUNDLE": str(tls.authority),
        }
        asked = ("publish", CPU_CELL, "--repository", repository, "--format", "json")
        try:
            ran = other.run(*asked, environment=reaching)
            assert ran.code == 0, ran.out + ran.err
            (cell,) = ran.json["cells"]
            assert cell["moved"] == [f"{other.repository}:2.13.0-cpu-py3.11{end}" for end in ("", "-verified")]
            reference = f"{other.repository}@{cell['digest']}"
            key = ("--key", shop.public_key)
            assert other.run("verify", reference, *key, key="", environment=reaching).code == 0
            again = other.run(*asked, environment=reaching)
            assert again.json["cells"][0]["status"] == "unchanged"
            # Without the authority, and without the login.
            for variable in reaching:
                less = {name: value for name, value in reaching.items() if name != variable}
                assert other.run("verify", reference, *key, key="", environment=less).code == 15
        finally:
            for name in names:
                untag(engine, name)
