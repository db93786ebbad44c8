"""What an image may be called: by what counts of its evidence, and by nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from attesting import NOW, signing_key
from memory_repository import MemoryRepository
from releasing import NAMES, REPOSITORY, put, statement

from builder.attest import References, Refusal, Refused, SigningKey
from builder.attest.bundle import CAP
from builder.attest.statement import TestResult
from builder.errors import ConfigError, EvidenceRefused, NotVerified
from builder.matrix import Level
from builder.registry.artifacts import BUNDLE_TYPE, attach
from builder.registry.values import Manifest, digest_of
from builder.release.evidence import Evidence, covering, gather, require
from builder.release.promotion import Promotion, chosen, names_of, promote
from builder.release.show import to_document, to_lines

PUBLIC, VERIFIED = NAMES.public, NAMES.verified


class Case:
    """An image in a repository, a trusted key and another one."""

    def __init__(self, directory: Path, *, api: bool = False) -> None:
        self.repository = MemoryRepository(api=api)
        self.image: Manifest = self.repository.put_image("candidate-1", diff_ids=("sha256:" + "1" * 64,))
        self.key: SigningKey = signing_key(directory)
        self.other: SigningKey = signing_key(directory, name="other")

    @property
    def digest(self) -> str:
        return self.image.digest

    def attest(
        self, *, key: SigningKey | None = None, digest: str = "", tamper: bool = False, **changes: object
    ) -> None:
        made = statement(digest or self.digest, **changes)  # type: ignore[arg-type]
        put(self.repository, self.image, made, key or self.key, tamper=tamper)

    def evidence(self, *, max_age: int | None = None) -> Evidence:
        return gather(self.repository, self.digest, (self.key.public,), max_age_days=max_age, now=NOW)

    def promote(self, *, level: Level | None = None, max_age: int | None = None) -> Promotion:
        evidence = self.evidence(max_age=max_age)
        return promote(self.repository, evidence, names_of(evidence), level=level)

    @property
    def named(self) -> Mapping[str, str]:
        """What every tag but those of artifacts names."""
        return {
            f"{REPOSITORY}:{tag}": digest
            for tag, digest in self.repository.tagged.items()
            if not tag.startswith(("sha256-", "candidate-"))
        }


@pytest.fixture(params=[False, True], ids=["list", "api"])
def case(tmp_path: Path, request: pytest.FixtureRequest) -> Case:
    return Case(tmp_path, api=bool(request.param))


def test_what_reached_gpu_gets_all_its_names_and_only_once(case: Case) -> None:
    case.attest()
    case.attest(reached=Level.GPU, days=0.25)
    before = set(case.repository.blobs)
    done = case.promote(level=Level.GPU)
    assert (done.moved, done.level) == ((*PUBLIC, *VERIFIED), Level.GPU)
    assert case.named == dict.fromkeys((*PUBLIC, *VERIFIED), case.digest)
    again = case.promote(level=Level.GPU)
    assert (again.moved, again.unchanged) == ((), done.moved)
    assert set(case.repository.blobs) == before


def test_what_reached_cpu_gets_its_public_names_and_is_told_why_no_more(case: Case) -> None:
    case.attest()
    done = case.promote()
    assert done.moved == PUBLIC
    assert done.withheld == tuple((name, "it needs level gpu, and cpu is reached") for name in VERIFIED)
    with pytest.raises(NotVerified, match=r"it reached cpu. Not run: torch\.gpu\.train\.amp: no GPU was given"):
        case.promote(level=Level.GPU)


REFUSED = {
    "another key": ({"other": True}, Refusal.OTHER_KEY, "not trusted here"),
    "tampered": ({"tamper": True}, Refusal.TAMPERED, "does not verify"),
    "another subject": ({"digest": "sha256:" + "9" * 64}, Refusal.OTHER_SUBJECT, "another image"),
    "too old": ({"days": 31.0}, Refusal.TOO_OLD, "31 days ago"),
    "from the future": ({"days": -1.0}, Refusal.IN_THE_FUTURE, "still to come"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_evidence_that_does_not_verify_moves_nothing(case: Case, what: str) -> None:
    changes, refusal, message = REFUSED[what]
    key = case.other if "other" in changes else case.key
    case.attest(key=key, reached=Level.GPU, **{name: value for name, value in changes.items() if name != "other"})  # type: ignore[arg-type]
    evidence = case.evidence(max_age=30)
    assert [item.why.refusal for item in evidence.doubtful] == [refusal]
    assert evidence.trusted == ()
    with pytest.raises(EvidenceRefused, match=message):
        require(evidence, Level.CPU)
    with pytest.raises(EvidenceRefused, match=message):
        promote(case.repository, evidence, names_of(evidence))
    assert case.named == {}
    # The twin that differs in nothing else counts.
    case.attest(reached=Level.GPU)
    assert case.promote(level=Level.GPU, max_age=30).moved == (*PUBLIC, *VERIFIED)


def test_gpu_evidence_of_another_key_does_not_lift_what_a_trusted_one_says(case: Case) -> None:
    case.attest()
    case.attest(key=case.other, reached=Level.GPU, days=0.25)
    assert case.promote().moved == PUBLIC
    with pytest.raises(NotVerified, match="reached cpu") as raised:
        case.promote(level=Level.GPU)
    assert "does not count: the evidence is signed with the key" in raised.value.hint


def test_an_image_without_evidence_gets_no_name(case: Case) -> None:
    with pytest.raises(NotVerified, match="nothing says"):
        case.promote()
    with pytest.raises(NotVerified, match="nothing says"):
        require(case.evidence(), Level.STATIC)


def test_a_later_failure_outweighs_every_level_and_a_later_pass_outweighs_that(case: Case) -> None:
    case.attest(reached=Level.GPU, days=3)
    assert case.evidence().reached is Level.GPU
    case.attest(failed=True, days=2)
    with pytest.raises(NotVerified, match=r"it failed on 2026-02-27 12:00 UTC: torch\.train\.amp: NaN"):
        case.promote()
    case.attest(days=1)
    done = case.promote()
    # The pass at gpu was before the failure.
    assert (done.level, done.moved) == (Level.CPU, PUBLIC)


def test_what_failed_as_a_cell_is_not_mended_by_a_run_that_is_held_to_none(case: Case) -> None:
    nothing = References()
    case.attest(failed=True, days=3)
    case.attest(reached=Level.GPU, days=2, cell="", names=nothing)
    with pytest.raises(NotVerified, match="it failed on") as raised:
        case.promote()
    assert "`imgbuild check a-cell --image" in raised.value.hint
    assert case.named == {}
    # The twin that is held to the cell does, and then the other one's level counts.
    case.attest(days=2.5)
    assert case.promote(level=Level.GPU).moved == (*PUBLIC, *VERIFIED)


def test_what_failed_held_to_no_cell_is_mended_by_any_run(case: Case) -> None:
    case.attest(failed=True, days=3, cell="", names=References())
    case.attest(days=2)
    assert case.promote().moved == PUBLIC


def test_a_run_that_failed_gives_no_names(case: Case) -> None:
    case.attest(failed=True, days=3, cell="")
    case.attest(reached=Level.GPU, days=2, cell="", names=References())
    assert names_of(case.evidence()) == ()
    assert case.evidence().reached is Level.GPU


def test_an_earlier_failure_does_not_count_any_more(case: Case) -> None:
    case.attest(failed=True, days=3)
    case.attest(reached=Level.GPU, days=2)
    assert case.promote(level=Level.GPU).moved == (*PUBLIC, *VERIFIED)


def test_of_a_pass_and_a_failure_in_one_second_the_failure_counts(case: Case) -> None:
    case.attest(reached=Level.GPU)
    case.attest(failed=True)
    assert case.evidence().reached is None


def test_a_failure_that_another_key_says_does_not_count(case: Case) -> None:
    case.attest(days=2)
    case.attest(failed=True, key=case.other)
    assert case.promote().moved == PUBLIC


@pytest.mark.parametrize("days", [-400.0, 400.0], ids=["a clock that is ahead", "longer ago than is allowed"])
def test_a_failure_counts_whatever_its_clock_says(case: Case, days: float) -> None:
    case.attest(failed=True, days=days)
    evidence = case.evidence(max_age=30)
    assert evidence.doubtful == ()
    with pytest.raises(NotVerified, match=r"it failed on"):
        require(evidence, Level.STATIC)
    case.attest(days=1)
    if days > 0:
        # A run that passed outweighs it, as it ended later.
        assert case.promote(max_age=30).moved == PUBLIC
        return
    with pytest.raises(NotVerified, match=r"it failed on 2027-04-05") as raised:
        require(case.evidence(max_age=30), Level.STATIC, now=NOW)
    assert "still to come: it counts until a run ends later" in raised.value.hint
    ahead, passed = (item.artifact for item in case.evidence(max_age=30).trusted)
    assert f"or until its artifact {REPOSITORY}@{ahead} is deleted" in raised.value.hint
    assert f"`oras manifest delete {REPOSITORY}@{ahead}`" in raised.value.hint
    assert passed not in raised.value.hint
    with pytest.raises(NotVerified):
        case.promote()
    assert case.named == {}
    # Its twin: what passed by such a clock counts for nothing.
    case.attest(days=-500.0, reached=Level.GPU)
    assert case.evidence().reached is None


@pytest.mark.parametrize("api", [True, False], ids=["api", "list"])
def test_a_failure_by_a_clock_that_was_ahead_goes_with_the_artifact_that_is_named(tmp_path: Path, api: bool) -> None:
    case = Case(tmp_path, api=api)
    case.attest(days=1)
    case.attest(failed=True, days=-400)
    case.attest(failed=True, days=-401)
    with pytest.raises(NotVerified) as raised:
        require(case.evidence(), Level.STATIC, now=NOW)
    named = re.findall(r"artifact \S+@(sha256:[0-9a-f]{64}) ", raised.value.hint)
    assert len(named) == 2
    for digest in named:
        with pytest.raises(NotVerified):
            case.promote()
        case.repository.delete_manifest(digest)
    assert case.promote().moved == PUBLIC


def test_a_pass_that_is_too_old_is_what_is_wrong_and_not_the_failure_that_it_outweighed(case: Case) -> None:
    case.attest(failed=True, days=50)
    case.attest(days=40)
    assert require(case.evidence(), Level.CPU).cell == "a-cell"
    for evidence in (case.evidence(max_age=30), case.evidence().within_age(30, now=NOW)):
        assert evidence.reached is None
        with pytest.raises(EvidenceRefused, match="40 days ago; at most 30 are allowed") as refused:
            require(evidence, Level.CPU)
        assert "failed" not in str(refused.value)
        with pytest.raises(EvidenceRefused):
            promote(case.repository, evidence, names_of(case.evidence()))
    assert case.named == {}
    # A run that came to nothing since lifts nothing, and takes nothing away.
    case.attest(reached=None, days=2)
    with pytest.raises(NotVerified, match="it reached no level") as unreached:
        require(case.evidence(max_age=30), Level.CPU)
    assert "does not count: the check ended on 2026-01-20, 40 days ago" in unreached.value.hint
    # Its twin: what failed after the pass, whatever the age of either, is what is wrong.
    case.attest(failed=True, days=35)
    with pytest.raises(NotVerified, match=r"it failed on 2026-01-25"):
        require(case.evidence(max_age=30), Level.CPU)


def test_a_pass_that_is_too_old_and_held_to_no_cell_outweighs_no_cell_s_failure(case: Case) -> None:
    case.attest(failed=True, days=50)
    case.attest(days=40, cell="", names=References())
    with pytest.raises(NotVerified, match=r"it failed on 2026-01-10"):
        require(case.evidence(max_age=30), Level.CPU)


def test_what_was_said_last_gives_the_names(case: Case) -> None:
    hour = timedelta(hours=1)
    # A later run, of which something was said before.
    case.attest(days=0.99, reached=Level.GPU, stated=NOW - timedelta(days=0.98))
    policies = [replace(NAMES, verified_level=level) for level in (Level.GPU, Level.MULTI_GPU, Level.MULTI_NODE)]
    for number, names in enumerate(policies):
        case.attest(days=1, reached=Level.GPU, names=names, stated=NOW - timedelta(days=0.9) + number * hour)
        assert case.evidence().stated == names


def test_how_old_a_check_may_be_stands_in_the_latest_statement_on_a_cell(case: Case) -> None:
    case.attest(days=20, reached=Level.GPU, names=replace(NAMES, max_age_days=90))
    case.attest(days=10, names=replace(NAMES, max_age_days=15))
    assert case.evidence().reached is Level.GPU
    for days, refused in ((None, [Refusal.TOO_OLD]), (19, [Refusal.TOO_OLD]), (20, [])):
        found = case.evidence().within_age(days, now=NOW)
        assert [item.why.refusal for item in found.doubtful] == refused
        assert found.reached is (Level.CPU if refused else Level.GPU)
    later = case.evidence().within_age(None, now=NOW + timedelta(days=6))
    with pytest.raises(EvidenceRefused, match="16 days ago; at most 15 are allowed"):
        promote(case.repository, later, names_of(case.evidence()))
    assert case.named == {}
    # A failure is not forgotten for its age.
    case.attest(failed=True, days=9, names=replace(NAMES, max_age_days=1))
    with pytest.raises(NotVerified, match="it failed on"):
        require(case.evidence().within_age(None, now=NOW), Level.STATIC)


def test_less_than_a_name_needs_cannot_be_asked_for(case: Case) -> None:
    case.attest(reached=Level.STATIC)
    with pytest.raises(NotVerified, match="not verified at cpu: it reached static"):
        case.promote(level=Level.STATIC)
    evidence = case.evidence()
    with pytest.raises(NotVerified, match="not verified at cpu"):
        promote(case.repository, evidence, chosen(["latest"], REPOSITORY, evidence, Level.STATIC), level=Level.STATIC)
    assert case.named == {}
    # A name that is no cell's may be given for less, if somebody says so.
    mine = chosen(["mine"], REPOSITORY, evidence, Level.STATIC)
    assert promote(case.repository, evidence, mine, level=Level.STATIC).moved == (f"{REPOSITORY}:mine",)


def test_a_check_without_a_cell_lifts_the_level_and_names_nothing(case: Case) -> None:
    case.attest(reached=Level.GPU, cell="", names=References())
    evidence = case.evidence()
    assert names_of(evidence) == ()
    with pytest.raises(ConfigError, match="no name is known"):
        case.promote()
    case.attest(days=1)
    assert case.promote(level=Level.GPU).moved == (*PUBLIC, *VERIFIED)


def test_names_in_another_repository_are_refused_before_anything_moves(case: Case) -> None:
    names = References(public=(PUBLIC[0], "registry.example/team/elsewhere:1.0"))
    case.attest(names=names)
    with pytest.raises(ConfigError, match="another repository"):
        case.promote()
    assert case.named == {}


def test_chosen_tags_need_what_the_evidence_says(case: Case) -> None:
    case.attest()
    evidence = case.evidence()
    names = tuple(chosen(["mine", "mine-verified"], REPOSITORY, evidence, None))
    assert [name.level for name in names] == [Level.CPU, Level.GPU]
    # Asking for less does not make less of it.
    assert [name.level for name in chosen(["x-verified"], REPOSITORY, evidence, Level.CPU)] == [Level.GPU]
    assert [name.level for name in chosen(["x"], REPOSITORY, evidence, Level.MULTI_GPU)] == [Level.MULTI_GPU]
    assert promote(case.repository, evidence, names).moved == (f"{REPOSITORY}:mine",)
    with pytest.raises(ConfigError, match="is no tag"):
        tuple(chosen(["no tag"], REPOSITORY, evidence, None))


def test_a_tag_that_is_moved_while_it_is_put_is_an_error(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    from builder.engine.errors import RegistryError

    case.attest()
    evidence = case.evidence()
    real = case.repository.put_manifest
    intruder = case.repository.put_image("other", diff_ids=("sha256:" + "2" * 64,))

    def put_and_lose(reference: str, body: bytes, media_type: str) -> str:
        real(reference, body, media_type)
        return real(reference, intruder.body, intruder.media_type)

    monkeypatch.setattr(case.repository, "put_manifest", put_and_lose)
    with pytest.raises(RegistryError, match="reads back as"):
        promote(case.repository, evidence, names_of(evidence))


def covered(case: Case, **changes: object) -> bool:
    check = case.evidence().checks[0]
    asked = {"suite": check.suite, "level": Level.CPU, "device": "cpu", "cell": "a-cell"}
    return covering(case.evidence(max_age=30), **{**asked, **changes}) is not None  # type: ignore[arg-type]


def test_what_makes_another_check_needless(case: Case) -> None:
    case.attest()
    assert covered(case)
    assert covered(case, cell="")
    assert not covered(case, cell="another-cell")
    assert not covered(case, suite="0" * 64)
    assert not covered(case, level=Level.GPU)
    assert not covered(case, device="gpu/NVIDIA H200")
    assert not covered(case, device=None)
    case.attest(failed=True, days=0.1)
    assert not covered(case)


def test_what_is_too_old_makes_no_check_needless(case: Case) -> None:
    case.attest(days=31)
    assert not covered(case)


def test_what_evidence_prints_names_who_what_when_and_what_does_not_count(case: Case) -> None:
    case.attest(reached=Level.GPU)
    case.attest(key=case.other)
    text = "\n".join(to_lines(case.evidence()))
    for word in (
        "level: gpu",
        f"signed by {case.key.id}",
        "ran on 2026-03-01 00:00 UTC in 60 s",
        "A processor",
        "not run: torch.gpu.train.amp: no GPU was given",
        "does not count: check",
        "which is not trusted here",
    ):
        assert word in text
    document = to_document(case.evidence())
    assert document["reached"] == "gpu"
    assert [item["refused"] for item in document["doubtful"]] == ["other-key"]  # type: ignore[attr-defined]
    assert document["trusted"][0]["check"]["result"] == TestResult.PASSED.value  # type: ignore[index]


def test_without_a_trusted_key_nothing_counts(case: Case) -> None:
    case.attest()
    evidence = gather(case.repository, case.digest, (), now=NOW)
    with pytest.raises(Refused, match="no key is trusted"):
        require(evidence, Level.STATIC)


@pytest.mark.parametrize("damage", ["missing", "huge"])
def test_an_artifact_whose_content_cannot_be_read_hides_nothing_else(case: Case, damage: str) -> None:
    case.attest()
    assert case.evidence().doubtful == ()
    content = b" " * (CAP + 1 if damage == "huge" else 10)
    attach(case.repository, case.image.descriptor, artifact_type=BUNDLE_TYPE, payload=content, payload_type=BUNDLE_TYPE)
    if damage == "missing":
        del case.repository.blobs[digest_of(content)]
    found = case.evidence()
    assert found.reached is Level.CPU
    assert [item.why.refusal for item in found.doubtful] == [Refusal.MALFORMED]
    assert ("missing in the registry" if damage == "missing" else "more than the") in found.doubtful[0].why.message
