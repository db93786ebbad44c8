"""A project whose images are made of a tiny base and nothing that would have to be fetched."""

from __future__ import annotations

from pathlib import Path

MATRIX = """\
version: 1
repository: {repository}
axes:
  framework: [{frameworks}]
  cuda: [cpu]
  python: ["3.11"]
  extras: [{extras}]
bases:
  tiny: {{image: {base}, python: ["3.11"]}}
frameworks:
  torch: {{image: bake, template: t.Dockerfile.j2, channels: {{cpu: wheels}}}}
channels:
  wheels: "https://download.pytorch.org/whl/cpu"
extras: {{{definitions}}}
defaults: {{base: tiny}}
tags: ["{{version}}{{extras}}"]
"""
TEMPLATE = """\
ARG BASE
FROM ${BASE}
COPY {{ file("files/note") }} /note
RUN echo {{ cell.id }} > /cell
"""


def project(directory: Path, *, repository: str, base: str, versions: tuple[str, ...], extras: int) -> Path:
    """Writes it into a directory: a cell for each version and extra, the names of which are extra0, extra1, …"""
    names = [f"extra{number}" for number in range(extras)]
    (directory / "dockerfiles/files").mkdir(parents=True)
    (directory / "matrix.yaml").write_text(
        MATRIX.format(
            repository=repository,
            base=base,
            frameworks=", ".join(f"torch=={version}" for version in versions),
            extras=", ".join(f"[{name}]" for name in names),
            definitions=", ".join(f"{name}: {{packages: [{name}], named: true}}" for name in names),
        )
    )
    (directory / "dockerfiles/t.Dockerfile.j2").write_text(TEMPLATE)
    (directory / "dockerfiles/files/note").write_text("a file of the context\n")
    return directory
