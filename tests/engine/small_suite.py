"""imgbuild with a suite of three checks that take no time, one for each level, and a matrix with a cell for a GPU.

Everything else is real: the command, the engine, the builds, the containers, the controller inside them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from command import Ran

ROOT = Path(__file__).parents[2]

CPU_CELL, CUDA_CELL = "torch-2.13.0-cpu-py3.11", "torch-2.13.0-cuda13.0-py3.11"

MATRIX = """\
version: 1
repository: r
axes: {framework: [torch==2.13.0], cuda: [cpu, "13.0"], python: ["3.11"], extras: [[]]}
bases:
  bookworm:
    image: debian:bookworm-slim
    bootstrap: {distribution: debian, suite: bookworm}
    python: ["3.11"]
frameworks:
  torch: {image: pytorch, template: small.Dockerfile.j2, facts: none}
defaults: {base: bookworm}
tags: ["{version}-{cuda}-py{python}{extras}"]
"""
TEMPLATE = """\
{%- import "_site.j2" as site with context -%}
ARG BASE
FROM ${BASE}
{{ site.apt_install(["python-is-python3", "python3-pip"]) }}
RUN d=/usr/lib/python3/dist-packages/torch-2.13.0.dist-info && mkdir $d \\
    && printf 'Metadata-Version: 2.1\\nName: torch\\nVersion: 2.13.0\\n' > $d/METADATA
RUN echo {{ cell.cuda }} > /cuda
USER 1000:1000
"""
"""What is called torch here is a name and a version; for which CUDA it is built stands in a file."""

GROUP = """\
from builder.checks.contract import Group
from builder.checks.facts import packages


def _prepare():
    with open("/cuda") as stream:
        cuda = stream.read().strip()
    built = {"version": "2.13.0", "cuda": None if cuda == "cpu" else cuda}
    return None, {"packages": packages()[0], "builds": {"torch": built}}


GROUP = Group(prepare=_prepare)
"""
CHECK = """\
from builder.checks.contract import check, fail


@check("small.{name}", level="{level}", deadline=30, catches="Nothing.")
def run(state):
    {body}
"""


@dataclass(frozen=True, kw_only=True)
class SmallSuite:
    """A checkout with that suite, and a state directory of its own."""

    directory: Path
    repository: str

    @classmethod
    def make(cls, directory: Path, repository: str) -> SmallSuite:
        """Copies the program and puts other checks into it."""
        directory.mkdir()
        shutil.copytree(
            ROOT / "builder", directory / "builder", ignore=shutil.ignore_patterns("__pycache__", "groups", "data")
        )
        for name in ("dockerfiles", "docs"):
            shutil.copytree(ROOT / name, directory / name)
        (directory / "matrix.yaml").write_text(MATRIX)
        (directory / "dockerfiles/small.Dockerfile.j2").write_text(TEMPLATE)
        group = directory / "builder/checks/groups/small"
        group.mkdir(parents=True)
        (group.parent / "__init__.py").write_text("")
        (group / "__init__.py").write_text(GROUP)
        found = cls(directory=directory, repository=repository)
        for level in ("static", "cpu", "gpu"):
            found.write_check(level)
        return found

    def write_check(self, level: str, body: str = "return {}") -> None:
        """Writes one of the checks; it is called as its level."""
        path = self.directory / f"builder/checks/groups/small/{level}.py"
        path.write_text(CHECK.format(name=level, level=level, body=body))

    def edit(self, path: str, old: str, new: str) -> None:
        """Changes a file of the checkout."""
        file = self.directory / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    def run(self, *arguments: str) -> Ran:
        """Runs the command under the repository's prefix."""
        ran = subprocess.run(
            [sys.executable, "-m", "builder.cli", *arguments, "--repository", self.repository],
            cwd=self.directory,
            env={**os.environ, "IMGBUILD_STATE_DIR": str(self.directory / "state")},
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        return Ran(code=ran.returncode, out=ran.stdout, err=ran.stderr)

    def cells(self, *arguments: str, code: int = 0) -> dict[str, dict[str, object]]:
        """Runs the command and returns what its report says of each cell, by id."""
        ran = self.run(*arguments, "--format", "json")
        assert ran.code == code, ran.out + ran.err
        return {str(cell["cell"]): cell for cell in json.loads(ran.out)["cells"]}
