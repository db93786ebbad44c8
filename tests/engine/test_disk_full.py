"""An engine whose disk really is full: one clear message that says what to prune, no tag, no container, no retry."""

from __future__ import annotations

import os
import tarfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import imgbuild
from second_engine import needed, small_engine
from tiny import import_root, root_archive

from builder.engine.bootstrap import PACKAGES_LABEL, RECIPE_LABEL, BootstrapRecipe, ImageArchive, base_reference
from builder.engine.build import BuildRequest, BuildResult, build
from builder.engine.connection import Engine
from builder.engine.containers import RunRequest, run
from builder.engine.errors import DiskFull
from builder.engine.images import list_images, load_archive
from builder.engine.session import Session
from builder.engine.trace import Event, StepStarted
from builder.engine.tree import FileTree

pytestmark = pytest.mark.engine

DISK = 192
"""Megabytes of the engine's disk."""

TOO_MUCH = 2 * DISK << 20
"""Bytes that do not fit on it, whatever else is there."""

PRUNE = "docker builder prune"


@dataclass(frozen=True, kw_only=True)
class Small:
    """The engine with the small disk, and a tiny image to build from there."""

    engine: Engine
    address: str
    base: str

    def build(self, body: str, *, context: FileTree | None = None, events: list[Event] | None = None) -> BuildResult:
        """Builds from the tiny image; nothing of it is cached."""
        dockerfiles = FileTree()
        dockerfiles.add_bytes("Dockerfile", f"FROM {self.base}\nENV U={uuid.uuid4().hex}\n{body}\n".encode())
        with Session.open(
            self.engine, context=context or FileTree(), dockerfiles=dockerfiles, shared_key=uuid.uuid4().hex
        ) as session:
            seen = [] if events is None else events
            return build(self.engine, session, BuildRequest(tags=("full:1",)), on_event=seen.append)

    @property
    def left(self) -> tuple[list[str], list[object]]:
        """The tags of every image but the base, and every container."""
        tags = [tag for image in list_images(self.engine) for tag in image.tags if tag != self.base]
        containers = self.engine.call_json("GET", "/containers/json", doing="list", params={"all": True})
        assert isinstance(containers, list)
        return tags, containers


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of the engine with the small disk. The tests are not run where there can be none."""
    if lacking := needed():
        pytest.skip(f"not run: {lacking}")
    with small_engine(DISK) as started:
        yield started


@pytest.fixture
def small(address: str, pytestconfig: pytest.Config) -> Iterator[Small]:
    """The engine, with nothing on its disk but the tiny image."""
    with Engine.connect(address) as engine:
        base = import_root(engine, root_archive(pytestconfig), "tiny", label="imgbuild-test=full")
        yield Small(engine=engine, address=address, base=base)
        # What the message's hint says, in the end, so that the next test finds room: that it helps is part of it.
        for path in ("/build/prune?all=1", "/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D"):
            engine.call("POST", path, doing="prune").close()


def sparse(path: Path, size: int) -> Path:
    """A file that takes no room here, and all of its size there."""
    with path.open("wb") as stream:
        stream.truncate(size)
    return path


def test_what_fits_is_built(small: Small) -> None:
    context = FileTree()
    context.add_bytes("file", b"x" * (8 << 20))
    small.build("COPY file /copied\nRUN dd if=/dev/zero of=/big bs=1M count=8", context=context)
    assert small.left == (["full:1"], [])


def test_a_step_that_writes_too_much(small: Small) -> None:
    events: list[Event] = []
    with pytest.raises(DiskFull, match="the engine's disk is full") as caught:
        small.build(f"RUN dd if=/dev/zero of=/big bs=1M count={TOO_MUCH >> 20}", events=events)
    assert PRUNE in caught.value.hint
    assert "line 3" in caught.value.message
    assert caught.value.step is not None
    assert any("No space left on device" in line for line in caught.value.step.log)
    started = [event for event in events if isinstance(event, StepStarted) and "RUN dd" in event.name]
    assert len(started) == 1, "one attempt: what is full stays full"
    assert small.left == ([], [])
    test_what_fits_is_built(small)


def test_a_context_that_does_not_fit(small: Small, tmp_path: Path) -> None:
    context = FileTree()
    context.add_file("big", sparse(tmp_path / "big", TOO_MUCH))
    with pytest.raises(DiskFull, match="the engine's disk is full") as caught:
        small.build("COPY big /big", context=context)
    assert PRUNE in caught.value.hint
    assert small.left == ([], [])


def test_a_copy_that_does_not_fit_beside_its_context(small: Small, tmp_path: Path) -> None:
    context = FileTree()
    context.add_file("big", sparse(tmp_path / "big", TOO_MUCH // 3))
    with pytest.raises(DiskFull, match="the engine's disk is full") as caught:
        small.build("COPY big /one\nCOPY big /two", context=context)
    assert PRUNE in caught.value.hint
    assert small.left == ([], [])


def test_an_archive_that_does_not_fit(small: Small, tmp_path: Path) -> None:
    for megabytes, fits in ((8, True), (TOO_MUCH >> 20, False)):
        layer = tmp_path / f"{megabytes}.tar"
        with tarfile.open(layer, "w") as archive, sparse(tmp_path / "big", megabytes << 20).open("rb") as content:
            entry = tarfile.TarInfo("big")
            entry.size = megabytes << 20
            archive.addfile(entry, content)
        image = ImageArchive(
            layer=layer, architecture="amd64", created=1_000_000_000, labels={}, reference=f"loaded:{megabytes}"
        )
        if fits:
            load_archive(small.engine, image.pieces())
            continue
        with pytest.raises(DiskFull, match="the engine's disk is full") as caught:
            load_archive(small.engine, image.pieces())
        assert PRUNE in caught.value.hint
    assert small.left == (["loaded:8"], [])
