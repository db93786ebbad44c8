"""Publishing one image: pushed once, proven, its evidence attached once, named by what that says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from attesting import signing_key
from memory_repository import MemoryRepository
from releasing import NAMES, REPOSITORY, statement

from builder.attest import TEST_RESULT, SigningKey
from builder.attest.provenance import SLSA
from builder.attest.statement import Subject
from builder.attest.statement import statement as in_toto
from builder.engine.errors import RegistryError
from builder.errors import NotVerified
from builder.matrix import Level
from builder.registry.values import Manifest
from builder.release.evidence import gather
from builder.release.promotion import Name
from builder.release.publication import Candidate, Publication, Publisher, attach_statement, to_json

TAG = "candidate-1"
REFERENCE = f"{REPOSITORY}:{TAG}"
NOW = datetime.now(timezone.utc)


class Engine:
    """An engine with one image, which pushes it into a repository in memory."""

    def __init__(self, repository: MemoryRepository) -> None:
        self.repository = repository
        self.pushes = 0
        self.diff_id = "sha256:" + "1" * 64
        elsewhere = MemoryRepository()
        self.image = elsewhere.put_image(TAG, diff_ids=(self.diff_id,))
        self.image_id = str(self.image.document()["config"]["digest"])  # type: ignore[index]

    def push(self) -> str:
        self.pushes += 1
        return self.repository.put_image(TAG, diff_ids=(self.diff_id,)).digest


@pytest.fixture
def repository() -> MemoryRepository:
    return MemoryRepository()


@pytest.fixture
def engine(repository: MemoryRepository) -> Engine:
    return Engine(repository)


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return signing_key(tmp_path)


def names() -> tuple[Name, ...]:
    return (
        *(Name(reference=item, level=Level.CPU) for item in NAMES.public),
        *(Name(reference=item, level=Level.GPU) for item in NAMES.verified),
    )


def age() -> float:
    """Days from a time some hours ago to the fixed one that `statement` counts from."""
    from attesting import NOW as FIXED

    return (FIXED - (NOW - timedelta(hours=6))) / timedelta(days=1)


def candidate(engine: Engine, **changes: object) -> Candidate:
    made = Candidate(
        cell="a-cell",
        reference=REFERENCE,
        image_id=engine.image_id,
        os="linux",
        architecture="amd64",
        push=engine.push,
        make={
            TEST_RESULT: lambda digest: statement(digest, days=age()),
            SLSA: lambda digest: in_toto(
                (Subject(name=REPOSITORY, sha256=digest.removeprefix("sha256:")),), SLSA, {"buildDefinition": {}}
            ),
        },
        names=names(),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def publisher(key: SigningKey, **changes: object) -> Publisher:
    return replace(Publisher(key=key, trusted=(key.public,)), **changes)  # type: ignore[arg-type]


def tags(repository: MemoryRepository) -> set[str]:
    return {tag for tag in repository.tagged if not tag.startswith("sha256-")}


def test_the_same_twice_pushes_attaches_and_moves_once(
    repository: MemoryRepository, engine: Engine, key: SigningKey
) -> None:
    first = publisher(key).publish(repository, candidate(engine))
    assert (first.status, first.exit_code, first.pushed, first.reached) == ("published", 0, True, Level.CPU)
    assert [(item.kind, item.new) for item in first.attached] == [("check", True), ("provenance", True)]
    assert first.promotion is not None
    assert first.promotion.moved == NAMES.public
    assert [name for name, _ in first.promotion.withheld] == list(NAMES.verified)
    assert tags(repository) == {TAG, "1.0", "latest"}
    before = dict(repository.tagged), set(repository.blobs), set(repository.manifests)
    second = publisher(key).publish(repository, candidate(engine))
    assert (second.status, second.pushed, engine.pushes) == ("unchanged", False, 1)
    assert [(item.statement, item.new) for item in second.attached] == [(i.statement, False) for i in first.attached]
    assert (dict(repository.tagged), set(repository.blobs), set(repository.manifests)) == before


def test_a_statement_that_says_something_else_is_attached_beside(
    repository: MemoryRepository, engine: Engine, key: SigningKey
) -> None:
    publisher(key).publish(repository, candidate(engine))

    def later(digest: str) -> bytes:
        return statement(digest, days=age(), stated=NOW)

    def other(digest: str) -> bytes:
        return statement(digest, days=age() - 0.1)

    made: list[Callable[[str], bytes]] = [later, other]
    done = [publisher(key).publish(repository, candidate(engine, make={TEST_RESULT: one})) for one in made]
    assert [item.attached[0].new for item in done] == [False, True]


def test_what_another_key_attached_is_not_taken_for_ours(
    repository: MemoryRepository, engine: Engine, key: SigningKey, tmp_path: Path
) -> None:
    other = signing_key(tmp_path, name="other")
    both = (key.public, other.public)
    publisher(other, trusted=both).publish(repository, candidate(engine))
    done = publisher(key, trusted=both).publish(repository, candidate(engine))
    assert [item.new for item in done.attached] == [True, True]


def test_a_registry_that_holds_another_image_as_the_candidate_gets_nothing(
    repository: MemoryRepository, engine: Engine, key: SigningKey
) -> None:
    repository.put_image(TAG, diff_ids=("sha256:" + "2" * 64, "sha256:" + "3" * 64))
    before = dict(repository.tagged), set(repository.blobs)
    with pytest.raises(RegistryError, match="is not the image that was checked"):
        publisher(key).publish(repository, candidate(engine))
    assert (dict(repository.tagged), set(repository.blobs)) == before
    assert engine.pushes == 0


def test_a_tag_that_was_moved_between_the_check_and_the_push_is_found(
    repository: MemoryRepository, engine: Engine, key: SigningKey
) -> None:
    # What the engine pushes under the name is no longer what passed.
    engine.diff_id = "sha256:" + "4" * 64
    checked = engine.image_id
    repository.put_image("spare", diff_ids=())
    with pytest.raises(RegistryError, match="is not the image that was checked"):
        publisher(key).publish(repository, candidate(engine, image_id=checked))
    assert tags(repository) == {TAG, "spare"}
    assert gather(repository, repository.tagged[TAG], (key.public,)).trusted == ()


def test_what_was_pushed_and_reads_back_as_something_else_is_found(
    repository: MemoryRepository, engine: Engine, key: SigningKey
) -> None:
    def push() -> str:
        digest = engine.push()
        repository.put_image(TAG, diff_ids=("sha256:" + "5" * 64,) * 2)
        return digest

    with pytest.raises(RegistryError, match="does not read back as what was pushed"):
        publisher(key).publish(repository, candidate(engine, push=push))
    assert tags(repository) == {TAG}


def test_a_later_failure_keeps_a_pushed_image_from_its_names(
    repository: MemoryRepository, engine: Engine, key: SigningKey
) -> None:
    first = publisher(key, names=False).publish(repository, candidate(engine))
    assert first.promotion is None
    assert tags(repository) == {TAG}
    image: Manifest = repository.manifests[first.digest]
    attach_statement(repository, image.descriptor, statement(first.digest, days=age() - 0.1, failed=True), key)
    done = publisher(key).publish(repository, candidate(engine))
    assert (done.status, done.exit_code) == ("failed", NotVerified.exit_code)
    assert "it failed on" in done.reasons[0]
    assert (done.digest, done.promotion, tags(repository)) == (first.digest, None, {TAG})


def test_a_check_that_is_too_old_names_nothing(repository: MemoryRepository, engine: Engine, key: SigningKey) -> None:
    done = publisher(key).publish(
        repository, candidate(engine, make={TEST_RESULT: lambda d: statement(d, days=age() + 9)}, max_age_days=7)
    )
    assert (done.status, tags(repository)) == ("failed", {TAG})
    assert publisher(key).publish(repository, candidate(engine, max_age_days=7)).status == "published"


def test_what_is_printed_names_the_digest_the_statements_and_the_names(
    repository: MemoryRepository, engine: Engine, key: SigningKey
) -> None:
    done = publisher(key).publish(repository, candidate(engine, lacking=("no SBOM: the reason",)))
    text = "\n".join(done.to_lines())
    for word in (f"published  a-cell {done.digest}", "no SBOM: the reason", f"pushed: {REFERENCE}", "attached: check"):
        assert word in text
    assert f"moved: {NAMES.public[0]}" in text
    assert f"withheld: {NAMES.verified[0]}: it needs level gpu, and cpu is reached" in text
    failed = Publication(cell="b", exit_code=11, reasons=("not checked",))
    document = json.loads(to_json((done, failed), 11))
    assert document["exit_code"] == 11
    assert [cell["status"] for cell in document["cells"]] == ["published", "failed"]
    assert document["cells"][0]["moved"] == list(NAMES.public)
