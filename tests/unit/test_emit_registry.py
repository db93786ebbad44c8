"""What a registry has, and what is done when it does not say."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from attesting import NOW as FIXED
from attesting import signing_key
from memory_repository import MemoryRepository
from releasing import put, statement

from builder.attest import References
from builder.emit import registry
from builder.emit.records import CellRecord
from builder.engine import images
from builder.engine.auth import DockerLogins
from builder.engine.connection import Engine
from builder.engine.errors import EngineRefused, ImageMissing, RegistryError, RegistryUnreachable
from builder.errors import ConfigError, EvidenceRefused
from builder.registry import client
from builder.registry.proxies import Proxies
from builder.registry.transport import Transport
from builder.release.remote import open_repository
from builder.site import Site


class Answering(Engine):
    """An engine whose registry answers every question with one error."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message

    def call_json(self, *_: Any, **__: Any) -> NoReturn:
        raise EngineRefused(self.message, status=self.status)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "PAUSES", (0.0, 0.0))


class Busy(Engine):
    """An engine whose registry is busy so many times, and then answers."""

    def __init__(self, times: int) -> None:
        self.times = times

    def call_json(self, *_: Any, **__: Any) -> object:
        self.times -= 1
        if self.times >= 0:
            raise EngineRefused("received unexpected HTTP status: 503 Service Unavailable", status=500)
        return {"Descriptor": {"digest": DIGEST}}


DIGEST = f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
CELL = CellRecord(
    cell="c", status="verified", exit_code=0, candidate="h/o/i:candidate-0", digest="", references=("h/o/i:1",)
)
FAILURES = [
    (500, "toomanyrequests: You have reached your pull rate limit", RegistryError),
    (500, "received unexpected HTTP status: 500 Internal Server Error", RegistryError),
    (500, "dial tcp: lookup h: no such host", RegistryUnreachable),
]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "manifest unknown: manifest unknown"),
        (500, "name unknown: The repository with name 'o/i' does not exist"),
        (403, "denied: requested access to the resource is denied"),
        (500, "unauthorized: authentication required"),
    ],
)
def test_what_a_registry_has_not_or_does_not_show_is_absent(status: int, message: str) -> None:
    engine = Answering(status, message)
    assert registry.held_digest(engine, CELL.candidate) is None
    assert list(registry.fetch(engine, [CELL.candidate])) == []


@pytest.mark.parametrize(("status", "message", "error"), FAILURES)
def test_a_registry_that_fails_says_nothing_of_what_it_has(status: int, message: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        registry.held_digest(Answering(status, message), CELL.candidate)


class Place:
    """A registry with one repository, and an engine with one image, which it pushes there."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.repository = MemoryRepository()
        self.site = Site(state_dir=directory / "state", config=directory / "site.yaml")
        self.pushes = 0
        self.image_id: str | None = self.made(LAYER)
        monkeypatch.setattr(registry, "open_repository", lambda name, site: nullcontext(self.repository))
        monkeypatch.setattr(registry, "inspect", lambda engine, reference: self.inspected())
        monkeypatch.setattr(registry, "push_image", self.push)

    def made(self, diff_id: str) -> str:
        image = MemoryRepository().put_image(TAG, diff_ids=(diff_id,))
        return str(image.document()["config"]["digest"])  # type: ignore[index]

    def inspected(self) -> SimpleNamespace | None:
        return SimpleNamespace(id=self.image_id, os="linux", architecture="amd64") if self.image_id else None

    def push(self, engine: Engine, reference: str, logins: DockerLogins) -> str:
        self.pushes += 1
        return self.repository.put_image(TAG, diff_ids=(LAYER,)).digest

    def cell(self, **changes: object) -> CellRecord:
        made = registry.push(Engine.__new__(Engine), replace(CELL, candidate=f"{PLACE}:{TAG}"), self.site)
        return replace(made, references=(f"{PLACE}:1", f"{PLACE}:1-verified"), **changes)  # type: ignore[arg-type]


PLACE = "registry.example/team/image"
TAG = "candidate-0"
LAYER = f"sha256:{'1' * 64}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def test_a_candidate_is_pushed_once_and_never_replaced(place: Place) -> None:
    first = place.cell()
    assert first.digest == place.repository.tagged[TAG]
    assert place.cell() == first
    assert place.pushes == 1
    place.image_id = place.made(f"sha256:{'2' * 64}")
    with pytest.raises(RegistryError, match="is not the image that was checked"):
        place.cell()
    assert (place.pushes, place.repository.tagged) == (1, {TAG: first.digest})
    place.image_id = None
    with pytest.raises(ImageMissing, match="no longer on the engine"):
        place.cell()


def test_a_candidate_that_may_be_there_is_not_pushed_over(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(reference: str) -> NoReturn:
        raise RegistryError("503 Service Unavailable")

    with monkeypatch.context() as broken:
        broken.setattr(place.repository, "manifest", busy)
        with pytest.raises(RegistryError, match="503"):
            place.cell()
    assert place.pushes == 0
    place.cell()
    assert place.pushes == 1


def test_names_are_put_on_what_passed_and_on_nothing_else(place: Place) -> None:
    cell = place.cell()
    elsewhere = replace(cell, cell="other", references=("registry.example/other:1",))
    with pytest.raises(ConfigError, match="another repository"):
        list(registry.promote([cell, elsewhere], place.site))
    with pytest.raises(RegistryError, match="nothing was promoted"):
        list(registry.promote([cell, replace(cell, digest=DIGEST)], place.site))
    assert set(place.repository.tagged) == {TAG}
    for word in ("moved", "unchanged"):
        lines = [line.split() for line in registry.promote([cell], place.site)]
        assert lines == [[word, reference, cell.digest] for reference in cell.references]
    assert place.repository.tagged == dict.fromkeys([TAG, "1", "1-verified"], cell.digest)


def test_evidence_of_every_cell_is_asked_before_anything_is_named(place: Place, tmp_path: Path) -> None:
    key = signing_key(tmp_path)
    good = place.cell()
    names = References(public=(f"{PLACE}:1",), max_age_days=30)
    recent = {"days": (FIXED - datetime.now(timezone.utc)) / timedelta(days=1) + 1, "names": names}
    put(place.repository, place.repository.manifests[good.digest], statement(good.digest, **recent), key)  # type: ignore[arg-type]
    other = place.repository.put_image("candidate-9", diff_ids=(f"sha256:{'9' * 64}",))
    nameless = replace(good, cell="other", candidate=f"{PLACE}:candidate-9", digest=other.digest)
    put(place.repository, other, statement(other.digest, **{**recent, "names": References()}), key)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no name is known"):
        list(registry.promote_by_evidence([good, nameless], (key.public,), place.site))
    assert "1" not in place.repository.tagged
    assert list(registry.promote_by_evidence([good], (key.public,), place.site)) == [
        f"moved     {PLACE}:1 {good.digest}"
    ]
    # What the policy of the matrix calls too old counts for nothing, also where there is no matrix.
    old = {**recent, "days": recent["days"] + 31}  # type: ignore[operator]
    third = place.repository.put_image("candidate-8", diff_ids=(f"sha256:{'8' * 64}",))
    put(place.repository, third, statement(third.digest, **old), key)  # type: ignore[arg-type]
    late = replace(good, candidate=f"{PLACE}:candidate-8", digest=third.digest)
    with pytest.raises(EvidenceRefused, match="at most 30 are allowed"):
        list(registry.promote_by_evidence([late], (key.public,), place.site))


@pytest.mark.parametrize("name", ["registry.example:99999/team/image", "Team/image", "team/image:1"])
def test_a_registry_that_cannot_be_is_a_mistake_of_whoever_named_it(tmp_path: Path, name: str) -> None:
    site = Site(state_dir=tmp_path, config=tmp_path / "site.yaml")
    with pytest.raises(ConfigError, match=r"write HOST\[:PORT\]/PATH"):
        open_repository(name, site)
    assert open_repository(PLACE, site).name == PLACE


def test_registries_are_reached_through_the_site_s_proxies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Path | None, Proxies]] = []

    class Recording(Transport):
        def __init__(self, *, ca_bundle: Path | None, proxies: Proxies) -> None:
            seen.append((ca_bundle, proxies))

    monkeypatch.setattr(client, "Transport", Recording)
    site = Site(
        state_dir=tmp_path,
        config=tmp_path / "site.yaml",
        ca_bundle=tmp_path / "ca.pem",
        proxies={"https": "http://proxy.example:3128", "no": ".internal.example"},
    )
    open_repository(PLACE, site)
    assert seen == [(site.ca_bundle, Proxies(https="http://proxy.example:3128", exceptions=".internal.example"))]


def test_a_busy_registry_is_asked_again_but_not_for_ever() -> None:
    assert registry.held_digest(Busy(2), CELL.candidate) == DIGEST
    with pytest.raises(RegistryError, match="503"):
        registry.held_digest(Busy(3), CELL.candidate)
