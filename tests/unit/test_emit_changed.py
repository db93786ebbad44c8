"""`--changed-since`: what differs from a commit, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from builder.cli import cli
from builder.lock.documents import base_text
from builder.lock.model import BaseLock

MATRIX = """\
version: 1
repository: example
axes:
  framework: [torch==2.13.0]
  cuda: [cpu]
  python: ["3.11"]
  extras: [[], [dask], [tensorboard]]
bases:
  slim: {image: "debian:bookworm-slim", python: ["3.11"]}
frameworks:
  torch: {image: pytorch, template: t.Dockerfile.j2, constraints: c.txt, channels: {cpu: wheels}}
channels:
  wheels: "https://download.pytorch.org/whl/cpu"
extras:
  dask: {packages: [dask], named: true}
  tensorboard: {packages: [tensorboard], named: true}
defaults: {base: slim}
tags: ["{version}-py{python}{extras}"]
"""
TEMPLATE = """\
ARG BASE
FROM ${BASE}
{% if extras.dask is defined %}
COPY {{ file("files/dask.cfg") }} /
{% endif %}
COPY {{ file(cell.framework.constraints) }} /
"""
ALL = ["torch-2.13.0-cpu-py3.11", "torch-2.13.0-cpu-py3.11-dask", "torch-2.13.0-cpu-py3.11-tensorboard"]


class Checkout:
    """A project in a folder of a git repository, committed once."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.root = top / "images"
        self.write("matrix.yaml", MATRIX)
        self.write("dockerfiles/t.Dockerfile.j2", TEMPLATE)
        self.write("dockerfiles/c.txt", "torch==2.13.0\ndask==2026.1\ntensorboard==2.20\npip==26.3\n")
        self.write("dockerfiles/files/dask.cfg", "one\n")
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit()

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def edit(self, path: str, old: str, new: str) -> None:
        text = (self.root / path).read_text()
        assert old in text
        (self.root / path).write_text(text.replace(old, new))

    def git(self, *arguments: str) -> str:
        who = {f"GIT_{role}_{what}": "a@example" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        ran = subprocess.run(
            ["git", *arguments],
            cwd=self.top,
            env={**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull},
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return ran.stdout

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "a commit", "--allow-empty")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    made = Checkout(tmp_path / "repository")
    monkeypatch.chdir(made.root)
    return made


def matrix(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["matrix", "--assume-new", *arguments])


def changed(ref: str = "HEAD") -> list[str]:
    ran = matrix("--changed-since", ref, "--format", "json")
    assert ran.exit_code == 0, ran.output + str(ran.exception)
    return [cell["cell"] for cell in json.loads(ran.stdout)["cells"]]


def test_nothing_changed_is_nothing_to_do(checkout: Checkout) -> None:
    assert changed() == []
    ran = matrix("--changed-since", "HEAD", "--format", "github")
    assert "has_jobs=false\n" in ran.stdout
    checkout.write("README.md", "a file that no cell uses\n")
    checkout.edit("matrix.yaml", "version: 1", "# a comment\nversion: 1")
    checkout.edit("matrix.yaml", "[[], [dask], [tensorboard]]", "[[tensorboard], [], [dask]]")
    checkout.write("dockerfiles/unused.j2", "{{ nothing }}\n")
    assert changed() == []


@pytest.mark.parametrize(
    ("path", "old", "new", "cells"),
    [
        ("dockerfiles/files/dask.cfg", "one", "two", ALL[1:2]),
        ("dockerfiles/c.txt", "dask==2026.1", "dask==2026.2", ALL),
        ("dockerfiles/t.Dockerfile.j2", "ARG BASE", "# new\nARG BASE", ALL),
        ("matrix.yaml", "debian:bookworm-slim", "debian:bookworm", ALL),
        ("matrix.yaml", "{packages: [dask], named", "{packages: [dask, tensorboard], named", []),
        ("matrix.yaml", '["{version}-py', '["v{version}-py', ALL),
        ("matrix.yaml", "repository: example", "repository: other", ALL),
        ("matrix.yaml", "defaults: {", "defaults: {require: {verified: static}, ", ALL),
        ("matrix.yaml", "[tensorboard]]", "[tensorboard], [dask, tensorboard]]", [f"{ALL[1]}-tensorboard"]),
        ("matrix.yaml", "[[], [dask], ", "[[dask], ", []),
    ],
)
def test_what_changed(checkout: Checkout, path: str, old: str, new: str, cells: list[str]) -> None:
    checkout.edit(path, old, new)
    assert changed() == cells
    checkout.commit()
    assert changed() == []
    assert changed("HEAD~1") == cells


def test_an_executable_bit(checkout: Checkout) -> None:
    (checkout.root / "dockerfiles/files/dask.cfg").chmod(0o755)
    assert changed() == ALL[1:2]


def test_cells_are_chosen_first(checkout: Checkout) -> None:
    checkout.edit("dockerfiles/c.txt", "pip==26.3", "pip==26.4")
    ran = matrix("*-dask", "--changed-since", "HEAD", "--format", "json")
    assert [cell["cell"] for cell in json.loads(ran.stdout)["cells"]] == ALL[1:2]


def refused(ref: str) -> str:
    ran = matrix("--changed-since", ref)
    assert ran.exit_code == 1  # of CliRunner; the error has its own
    return str(ran.exception)


@pytest.mark.parametrize("ref", ["nonsense", "HEAD~9", "--output=x", "-h", "", "HEAD^{blob}", "a b", "0" * 40])
def test_what_is_no_commit_is_refused(checkout: Checkout, ref: str) -> None:
    said = refused(ref)
    assert "--changed-since" in said
    assert "no commit" in said
    assert changed("main") == []


def test_no_checkout_no_git_no_project(checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    outside = tmp_path / "outside"
    outside.mkdir()
    monkeypatch.chdir(outside)
    assert "`imgbuild init`" in refused("HEAD")
    checkout.root.rename(outside / "images")
    monkeypatch.chdir(outside / "images")
    assert "must be in a git checkout" in refused("HEAD")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install git" in refused("HEAD")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda c: c.write("matrix.yaml", "version: 9\n"), "does not render"),
        (lambda c: c.write("dockerfiles/t.Dockerfile.j2", "{{ oops }}"), "does not render"),
        (lambda c: (c.root / "matrix.yaml").unlink(), "has no matrix.yaml"),
        (lambda c: (c.root / "dockerfiles/files/dask.cfg").unlink(), "does not render"),
    ],
)
def test_a_commit_that_was_broken_makes_everything_new(
    checkout: Checkout, damage: Callable[[Checkout], None], says: str
) -> None:
    damage(checkout)
    checkout.commit()
    checkout.git("checkout", "--quiet", "HEAD~1", "--", "images")
    ran = matrix("--changed-since", "HEAD", "--format", "json")
    assert ran.exit_code == 0, ran.output + str(ran.exception)
    assert [cell["cell"] for cell in json.loads(ran.stdout)["cells"]] == ALL
    assert f"warning: HEAD {says}" in ran.stderr
    assert "imgbuild-changed-" not in ran.stderr


def test_the_work_tree_and_its_index_stay_as_they_are(checkout: Checkout) -> None:
    checkout.edit("dockerfiles/c.txt", "pip==26.3", "pip==26.4")
    checkout.write("untracked", "x")
    before = checkout.git("status", "--porcelain")
    assert changed() == ALL
    assert checkout.git("status", "--porcelain") == before != ""
    assert checkout.git("worktree", "list").count("\n") == 1


def test_what_git_sets_for_its_hooks_means_another_directory(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout.edit("dockerfiles/files/dask.cfg", "one", "two")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.setenv(name, "nowhere")
    assert changed() == ALL[1:2]


def test_a_template_with_another_name_is_no_other_image(checkout: Checkout) -> None:
    (checkout.root / "dockerfiles/t.Dockerfile.j2").rename(checkout.root / "dockerfiles/new.Dockerfile.j2")
    checkout.edit("matrix.yaml", "t.Dockerfile.j2", "new.Dockerfile.j2")
    assert changed() == []
    checkout.edit("dockerfiles/new.Dockerfile.j2", "ARG BASE", "# new\nARG BASE")
    assert changed() == ALL


def lock(checkout: Checkout, *, digest: str, refreshed: str) -> None:
    found = BaseLock(name="slim", image="debian:bookworm-slim", refreshed=refreshed, digest=digest, why="", made=None)
    checkout.write("dockerfiles/locks/slim.base.json", base_text(found))


def test_a_base_that_is_locked_as_other_bytes(checkout: Checkout) -> None:
    lock(checkout, digest="sha256:" + "1" * 64, refreshed="2026-01-01")
    assert changed() == ALL
    checkout.commit()
    lock(checkout, digest="sha256:" + "1" * 64, refreshed="2026-02-02")
    assert changed() == []
    lock(checkout, digest="sha256:" + "2" * 64, refreshed="2026-02-02")
    assert changed() == ALL
