"""What `check --attach` takes from this machine's memory, beside what others attached to the image since."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from attesting import NOW, signing_key, verdict
from memory_repository import MemoryRepository
from releasing import put, statement

from builder import attaching
from builder.carried import Options
from builder.check import CheckRun, Reach
from builder.engine.images import ImageDetails
from builder.matrix import load_matrix
from builder.memory import Checked
from builder.project import shipped_data
from builder.release.ledger import Held
from builder.release.remote import Remote

IMAGE = "sha256:" + "5" * 64


def run_at(when: datetime) -> Checked:
    run = CheckRun(verdict=verdict(), result=None, suite_sha256="", nonce="", log_tail="", raw=b"", seconds=1.0)
    return Checked(run=run, image_id=IMAGE, content="sha256:1", device="cpu/amd64", user="12345:12345", when=when)


class Memory:
    """Remembers one run that passed, two days before NOW."""

    def __init__(self, *_: object) -> None:
        self.passed = run_at(NOW - timedelta(days=2))

    def recall(self, *_: object, **__: object) -> Checked:
        return self.passed

    def put(self, *_: object, **__: object) -> Checked:
        return run_at(NOW)


def attached_check(
    directory: Path, monkeypatch: pytest.MonkeyPatch, repository: MemoryRepository, **options: Any
) -> attaching._AttachedCheck:
    key = signing_key(directory)
    cell = next(cell for cell in load_matrix(shipped_data() / "matrix.yaml").cells if cell.cuda == "cpu")
    held = Held(project=cast("Any", None), recipe=cast("Any", SimpleNamespace(cell=cell)))
    reach = Reach(gpu=False, architecture="amd64")
    monkeypatch.setattr(attaching.Reach, "of", lambda *_, **__: reach)
    monkeypatch.setattr(attaching, "site_trusted_keys", lambda *_: (key.public,))
    monkeypatch.setattr(attaching, "require_gpus", lambda *_: None)
    monkeypatch.setattr(attaching, "CheckMemory", Memory)
    monkeypatch.setattr(attaching, "expectation", lambda _: None)
    monkeypatch.setattr(attaching, "check_image", lambda *_, **__: run_at(NOW).run)
    run = SimpleNamespace(
        options=Options(**options), site=SimpleNamespace(state_dir=Path("state")), cancel=threading.Event()
    )
    digest = repository.digest("candidate-1") or ""
    return attaching._AttachedCheck(
        run=cast("Any", run),
        remote=Remote(repository=cast("Any", repository), digest=digest),
        engine=cast("Any", SimpleNamespace(info=lambda: None)),
        display=cast("Any", None),
        key=key,
        held=held,
        reference=digest,
    )


def image() -> ImageDetails:
    return cast("ImageDetails", SimpleNamespace(id=IMAGE))


@pytest.mark.parametrize(
    ("days", "mine", "ran"),
    [(3, True, False), (1, True, True), (2, True, True), (1, False, False), (-400, True, True)],
    ids=["failed before", "failed since", "failed in the same second", "says a key nobody trusts", "a clock ahead"],
)
def test_what_is_remembered_counts_unless_somebody_saw_it_fail_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: float, mine: bool, ran: bool
) -> None:
    repository = MemoryRepository(api=True)
    published = repository.put_image("candidate-1", diff_ids=("sha256:1",))
    key = signing_key(tmp_path) if mine else signing_key(tmp_path, name="other")
    put(repository, published, statement(published.digest, failed=True, days=days), key)
    check = attached_check(tmp_path, monkeypatch, repository)
    checked, made = check._check(image(), check._evidence())
    assert made is ran
    assert checked.when == (NOW if ran else NOW - timedelta(days=2))


@pytest.mark.parametrize("recheck", [True, False])
def test_a_check_that_is_asked_for_again_remembers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recheck: bool
) -> None:
    repository = MemoryRepository(api=True)
    repository.put_image("candidate-1", diff_ids=("sha256:1",))
    check = attached_check(tmp_path, monkeypatch, repository, recheck=recheck)
    assert check._check(image(), check._evidence())[1] is recheck
