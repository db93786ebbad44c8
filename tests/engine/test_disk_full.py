"""An engine whose disk really is full: one clear message that says what to prune, no tag, no container, no retry."""

from __future__ import annotations

import os
import shutil
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

    @property
    def disk(self) -> Path:
        """The engine's disk."""
        return Path(self.engine.info().root_dir)

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


@pytest.fixture
def small(pytestconfig: pytest.Config) -> Iterator[Small]:
    """An engine with a small disk and nothing on it but the tiny image. Not run where there can be none.

    Each test has its own: what a transfer leaves that the disk cut short, the engine removes only when it starts.
    """
    if lacking := needed():
        pytest.skip(f"not run: {lacking}")
    with small_engine(DISK) as address, Engine.connect(address) as engine:
        base = import_root(engine, root_archive(pytestconfig), "tiny", label="imgbuild-test=full")
        yield Small(engine=engine, address=address, base=base)


def await_room(small: Small) -> None:
    """Waits until the engine has removed what a step that failed had written. The containerd store takes its time."""
    deadline = time.monotonic() + 60
    while shutil.disk_usage(small.disk).free < DISK // 2 << 20:
        assert time.monotonic() < deadline, "what a failed step wrote stays on the disk"
        time.sleep(0.1)


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
    await_room(small)
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


def test_a_check_whose_files_do_not_fit(small: Small) -> None:
    request = RunRequest(image=small.base, command=("true",), files={"big": bytes(1 << 20)}, deadline=30)
    assert run(small.engine, request).exit_code == 0
    fill(small)
    with pytest.raises(DiskFull, match="the engine's disk is full") as caught:
        run(small.engine, request)
    assert PRUNE in caught.value.hint
    assert small.left == ([], [])


def fill(small: Small) -> None:
    """Leaves no byte on the engine's disk."""
    with (small.disk / "fill").open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, shutil.disk_usage(small.disk).free)


MATRIX = """\
version: 1
repository: unused
axes: {framework: [torch==2.13.0], cuda: [cpu], python: ["3.11"]}
bases:
  disk-full-base:
    image: debian:bookworm-slim
    bootstrap: {distribution: debian, suite: bookworm}
    python: ["3.11"]
frameworks:
  torch: {image: pytorch, template: t.j2, constraints: c.txt, facts: none}
defaults: {base: disk-full-base}
tags: ["{version}"]
"""


def test_the_command(small: Small, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    name_as_base(small, pytestconfig, tmp_path, "full")
    root = tmp_path / "project"
    (root / "dockerfiles").mkdir(parents=True)
    (root / "matrix.yaml").write_text(MATRIX)
    (root / "dockerfiles/c.txt").write_text("torch==2.13.0+cpu\npip==26.3\n")
    environment = {**os.environ, "DOCKER_HOST": small.address, "IMGBUILD_STATE_DIR": str(tmp_path / "state")}
    arguments = ["build", "--bases", "bootstrap", "--no-check", "--repository", "full"]
    template = "ARG BASE=x\nFROM ${{BASE}}\n# {{{{ file(cell.framework.constraints) }}}}\n"
    template += "RUN dd if=/dev/zero of=/big bs=1M count={}\n"

    (root / "dockerfiles/t.j2").write_text(template.format(TOO_MUCH >> 20))
    before = small.left
    began = time.monotonic()
    ran = imgbuild(*arguments, environment=environment, cwd=root)
    assert ran.code == 12, ran.out + ran.err
    assert time.monotonic() - began < 60
    assert ran.out.count("the engine's disk is full") == 1
    assert ran.out.count(PRUNE) == 1
    assert small.left == before

    await_room(small)
    (root / "dockerfiles/t.j2").write_text(template.format(1))
    ran = imgbuild(*arguments, environment=environment, cwd=root)
    assert ran.code == 0, ran.out + ran.err
    assert len(small.left[0]) == len(before[0]) + 1


def name_as_base(small: Small, config: pytest.Config, tmp_path: Path, repository: str) -> None:
    """Gives the engine the tiny root as what the matrix's base has been made into."""
    recipe = BootstrapRecipe(suite="bookworm", architecture=small.engine.info().architecture)
    packages = "0" * 64
    layer = tmp_path / "layer.tar"
    layer.write_bytes(root_archive(config))
    image = ImageArchive(
        layer=layer,
        architecture=recipe.architecture,
        created=1_000_000_000,
        labels={RECIPE_LABEL: recipe.sha256, PACKAGES_LABEL: packages},
        reference=base_reference(recipe, packages, f"{repository}/base"),
    )
    load_archive(small.engine, image.pieces())
