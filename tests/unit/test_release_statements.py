"""From runs and builds to statements: what is said, of what, and what is cited."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from xml.etree import ElementTree

import pytest
from attesting import FACTS, signing_key, verdict
from attesting import outcome as check_outcome

from builder.attest import statement_sha256, verify
from builder.attest.claims import CheckStatement, parse_check, parse_statement
from builder.builds import BuildRecord
from builder.check import CheckRun
from builder.engine.connection import EngineInfo
from builder.matrix import Level, Matrix, load_matrix
from builder.memory import Checked
from builder.project import Project, find_project
from builder.records import Records
from builder.release.ledger import BUNDLE_FILE, STATEMENT_FILE, Held, Ledger
from builder.release.statements import (
    configuration,
    environment,
    job_url,
    provenance_of,
    references,
    same_but_for_time,
    subjects,
)
from builder.render import Recipe, iter_recipes

ROOT = Path(__file__).parent.parent.parent
IMAGE_ID, OTHER_ID = "sha256:" + "1" * 64, "sha256:" + "2" * 64
DIGEST = "sha256:" + "3" * 64
REPOSITORY = "registry.example/team/pytorch"
WHEN = datetime.now(timezone.utc) - timedelta(hours=1)
INFO = EngineInfo(
    version="26.1.5",
    api_version="1.45",
    buildkit=True,
    storage_driver="overlay2",
    containerd_store=False,
    root_dir="/var/lib/docker",
    os="linux",
    architecture="amd64",
    cpus=8,
    memory_bytes=64 << 30,
    runtimes=("runc",),
    gpu=False,
    cdi_gpu=False,
    id="an-engine",
    cgroup_version="2",
    local=True,
)


@pytest.fixture(scope="module")
def project() -> Project:
    return find_project(ROOT / "matrix.yaml", ROOT)


@pytest.fixture(scope="module")
def matrix(project: Project) -> Matrix:
    return load_matrix(project.matrix, repository="registry.example/team")


@pytest.fixture(scope="module")
def recipe(project: Project, matrix: Matrix) -> Recipe:
    return next(iter_recipes([matrix.cells[0]], project))


def run(level: Level = Level.CPU, **changes: object) -> Checked:
    found = replace(
        verdict(level=level),
        reached=level,
        facts=replace(FACTS, platform="Linux-6.1.0-13-amd64-x86_64-with-glibc2.36"),
    )
    made = CheckRun(
        verdict=found,
        result=None,
        suite_sha256="c" * 64,
        nonce="a-nonce",
        log_tail="",
        raw=b"{}",
        seconds=20.0,
    )
    values: dict[str, object] = {
        "run": made,
        "image_id": IMAGE_ID,
        "content": "f" * 64,
        "device": "cpu/amd64",
        "user": "12345:12345",
        "when": WHEN,
    }
    return Checked(**{**values, **changes})  # type: ignore[arg-type]


def read(statement: bytes) -> CheckStatement:
    return parse_check(parse_statement(statement))


def ledger(tmp_path: Path, **changes: object) -> Ledger:
    return replace(Ledger(records=Records(tmp_path / "state"), info=INFO, runs=tmp_path / "runs"), **changes)  # type: ignore[arg-type]


def test_the_environment_is_the_engines_and_the_containers() -> None:
    found = environment(run(), INFO)
    assert (found.engine, found.kernel, found.architecture) == ("26.1.5", "6.1.0-13-amd64", "amd64")
    assert (found.cpu, found.cpus, found.memory_bytes) == ("A processor", 8, 64 << 30)
    assert (found.user, found.device, found.gpus, found.driver, found.cuda) == ("12345:12345", "cpu/amd64", (), "", "")


def test_a_run_on_a_gpu_says_model_driver_and_cuda(tmp_path: Path) -> None:
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n")
    device = check_outcome(
        "torch.gpu.device", level=Level.GPU, measured={"devices": '["NVIDIA H200 (9.0)"]', "driver_cuda": 12040}
    )
    made = run(Level.GPU)
    made = replace(made, run=replace(made.run, verdict=replace(made.run.verdict, checks=(device,))), device="gpu/H200")
    found = environment(made, INFO, driver_file=version)
    assert (found.gpus, found.driver, found.cuda, found.device) == (
        ("NVIDIA H200 (9.0)",),
        "535.104.05",
        "12.4",
        "gpu/H200",
    )
    # This machine's driver says nothing of another machine's engine.
    assert environment(made, replace(INFO, local=False), driver_file=version).driver == ""
    version.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (builder@x)\n"
    )
    assert environment(made, INFO, driver_file=version).driver == "570.86.15"


def test_the_configuration_holds_the_hashes_of_what_decided_the_image(project: Project, recipe: Recipe) -> None:
    found = {item.name: item.sha256 for item in configuration(project, recipe, "d" * 64)}
    assert found["matrix.yaml"] == hashlib.sha256(project.matrix.read_bytes()).hexdigest()
    assert found["Dockerfile"] == hashlib.sha256(recipe.dockerfile.encode()).hexdigest()
    assert found["key"] == "d" * 64
    locks = set(found) - {"matrix.yaml", "Dockerfile", "key"}
    assert len(locks) == 2
    for name in locks:
        path = ROOT / "dockerfiles/locks" / name
        assert found[name] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "key" not in {item.name for item in configuration(project, recipe)}


def test_the_names_are_the_cells_with_their_levels(recipe: Recipe) -> None:
    given = references(recipe.cell)
    assert given.public == tuple(f"{recipe.cell.repository}:{tag}" for tag in (*recipe.cell.tags, *recipe.cell.aliases))
    assert given.verified == tuple(f"{name}-verified" for name in given.public)
    mirror = references(recipe.cell, "mirror.example/x")
    assert mirror.public == tuple(f"mirror.example/x:{tag}" for tag in (*recipe.cell.tags, *recipe.cell.aliases))
    assert (given.public_level, given.verified_level) == (recipe.cell.policy.public, recipe.cell.policy.verified)


def test_a_run_is_kept_with_a_signed_statement_about_its_image(
    tmp_path: Path, project: Project, recipe: Recipe
) -> None:
    key = signing_key(tmp_path)
    book = ledger(tmp_path, key=key, url="https://ci.example/7")
    directory = book.enter(run(), name=recipe.cell.id, held=Held(project=project, recipe=recipe))
    assert directory is not None
    statement = (directory / STATEMENT_FILE).read_bytes()
    found = verify((directory / BUNDLE_FILE).read_bytes(), (key.public,), subject_digest=IMAGE_ID)
    assert found.payload == statement
    assert found.check is not None
    assert (found.check.cell, found.check.reached, found.check.reused) == (recipe.cell.id, Level.CPU, None)
    assert found.check.url == "https://ci.example/7"
    assert found.check.references == references(recipe.cell)
    document = json.loads((directory / "run.json").read_text())
    assert document["environment"]["kernel"] == "6.1.0-13-amd64"
    assert document["content_id"] == "f" * 64
    assert book.first(run()) == statement


def test_without_a_key_a_run_is_kept_unsigned(tmp_path: Path) -> None:
    directory = ledger(tmp_path).enter(run(), name="an-image")
    assert directory is not None
    assert (directory / STATEMENT_FILE).exists()
    assert not (directory / BUNDLE_FILE).exists()
    assert ledger(tmp_path, runs=None).enter(run(), name="an-image") is None


def test_a_run_that_fell_short_of_the_level_asked_for_says_so_in_every_file(tmp_path: Path) -> None:
    why = "level gpu was asked for, and cpu was reached"
    for short, said_of_it, failures in (((why,), "incomplete", "1"), ((), "passed", "0")):
        directory = ledger(tmp_path / said_of_it).enter(run(), name="an-image", short=short)
        assert directory is not None
        said = json.loads((directory / "run.json").read_text())
        assert (said["verdict"], why in said["reasons"]) == (said_of_it, bool(short))
        junit = ElementTree.parse(directory / "junit.xml").getroot()
        assert [suite.get("failures") for suite in junit.iter("testsuite")] == [failures]
        assert (why in (directory / "summary.md").read_text()) == bool(short)
        statement = read((directory / STATEMENT_FILE).read_bytes())
        assert statement.reached is Level.CPU


def test_the_same_image_is_stated_under_its_digest_and_cites_nothing(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    book.enter(run(), name="an-image")
    found = read(book.statement(run(), image_id=IMAGE_ID, repository=REPOSITORY, digest=DIGEST))
    assert found.reused is None
    statement = parse_statement(book.statement(run(), image_id=IMAGE_ID, repository=REPOSITORY, digest=DIGEST))
    assert [(item.name, item.sha256) for item in statement.subjects] == [
        (REPOSITORY, "3" * 64),
        ("image-id", "1" * 64),
    ]


def test_another_image_of_the_same_content_cites_the_statement_on_the_run(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    directory = book.enter(run(), name="an-image")
    assert directory is not None
    first = (directory / STATEMENT_FILE).read_bytes()
    found = read(book.statement(run(), image_id=OTHER_ID, repository=REPOSITORY, digest=DIGEST))
    assert found.reused == statement_sha256(first)
    # It is as old as the run, and newer than it only in when it was made.
    assert (found.started, found.finished) == (read(first).started, read(first).finished)
    assert found.stated > found.finished


def test_what_was_run_before_there_were_statements_is_stated_now_and_then_cited_as_that(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    one = read(book.statement(run(), image_id=OTHER_ID))
    two = read(book.statement(run(), image_id=OTHER_ID))
    assert one.reused == two.reused == statement_sha256(book.first(run()))
    assert parse_statement(book.first(run())).subjects[0].sha256 == "1" * 64


def test_a_statement_says_on_what_the_suite_ran_and_not_on_what_it_was_published(tmp_path: Path) -> None:
    ledger(tmp_path).enter(run(), name="an-image")
    upgraded = ledger(tmp_path, info=replace(INFO, version="29.0.0", cpus=2))
    found = read(upgraded.statement(run(), image_id=IMAGE_ID, repository=REPOSITORY, digest=DIGEST))
    assert (found.environment.engine, found.environment.cpus) == ("26.1.5", 8)


def test_statements_of_one_run_differ_in_nothing_but_their_time(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    one = book.statement(run(), image_id=IMAGE_ID)
    two = replace(book, url="https://ci.example/8").statement(run(), image_id=IMAGE_ID)
    assert same_but_for_time(one, two)
    assert not same_but_for_time(one, book.statement(run(when=WHEN + timedelta(seconds=5)), image_id=IMAGE_ID))
    assert not same_but_for_time(one, book.statement(run(), image_id=OTHER_ID))


def test_the_provenance_says_what_the_build_was_made_of(recipe: Recipe) -> None:
    record = BuildRecord(
        image_id=IMAGE_ID,
        key="d" * 64,
        cell=recipe.cell.id,
        started="2026-03-01T10:00:00Z",
        finished="2026-03-01T10:05:00Z",
        base="bootstrap:" + "4" * 64 + ":" + "5" * 64,
        base_reference="imgbuild/base:x",
        base_source="bootstrap",
        template="pytorch.Dockerfile.j2",
        dockerfile="6" * 64,
        files={"a/file": "7" * 64},
        locks={"bookworm.base.json": "8" * 64},
        revision="9" * 40 + "-dirty",
    )
    made = provenance_of(record, recipe.cell, INFO, about=subjects(IMAGE_ID, repository=REPOSITORY, digest=DIGEST))
    predicate = json.loads(made)["predicate"]
    definition = predicate["buildDefinition"]
    assert definition["externalParameters"]["cell"] == recipe.cell.id
    assert definition["internalParameters"]["key"] == "d" * 64
    assert predicate["runDetails"]["metadata"] == {
        "startedOn": "2026-03-01T10:00:00Z",
        "finishedOn": "2026-03-01T10:05:00Z",
    }
    digests = {item["name"]: item.get("digest") for item in definition["resolvedDependencies"]}
    assert digests["base"] == {"sha256": "5" * 64}
    assert digests["a/file"] == {"sha256": "7" * 64}
    assert digests["bookworm.base.json"] == {"sha256": "8" * 64}
    # A checkout with changes is not its commit.
    assert "source" not in digests


def test_the_address_of_a_job_is_what_its_system_says() -> None:
    github = {"GITHUB_SERVER_URL": "https://g.example", "GITHUB_REPOSITORY": "a/b", "GITHUB_RUN_ID": "7"}
    assert job_url(github) == "https://g.example/a/b/actions/runs/7"
    assert job_url({"CI_JOB_URL": "https://l.example/1"}) == "https://l.example/1"
    assert job_url({"BUILDKITE_BUILD_URL": "https://k.example/2"}) == "https://k.example/2"
    assert job_url({"GITHUB_RUN_ID": "7"}) == ""
