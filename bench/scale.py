"""Wall time and peak memory of `imgbuild matrix` and `imgbuild render` at 1,000 and at 10,000 cells, side by side.

The matrix is judged: its frameworks are real releases of PyTorch, and its cells are those that the facts allow, times
as many sets of extras as make the number. Where the docker command has buildx, `docker buildx bake --print` reads the
bake file of the same 1,000 cells in the same run.

python bench/scale.py [SMALL [LARGE]]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from side_by_side import ENVIRONMENT, IMGBUILD

VERSIONS = ("2.4.1", "2.5.1", "2.6.0", "2.7.1")
PYTHONS = ("3.10", "3.11", "3.12")
CUDAS = ("11.8", "12.4", "12.6")

MATRIX = """\
version: 1
repository: scale
axes:
  framework: [{frameworks}]
  cuda: [{cudas}]
  python: [{pythons}]
  extras:
{extras}
bases:
  slim:
    image: debian:bookworm-slim
    python: [{pythons}]
frameworks:
  torch: {{image: torch, template: torch.Dockerfile.j2, channels: {{{channels}}}}}
channels:
{urls}
extras:
{definitions}
defaults: {{base: slim}}
tags: ["{{version}}-{{cuda}}-py{{python}}{{extras}}"]
"""

TEMPLATE = """\
# {{ cell.id }}
ARG BASE={{ cell.base.image }}
FROM ${BASE} AS system
RUN apt-get -qq update && apt-get -qq install --yes --no-install-recommends python3 python3-venv

FROM system AS framework
RUN --mount=type=bind,source={{ file("files/install") }},target=/run/install \\
    python3 -m venv /opt/venv && /run/install {{ cell.framework.name }}=={{ cell.framework.version }} {{ channel.url }}
{% if cell.extras %}
RUN /opt/venv/bin/pip install --no-cache-dir \\
{%- for extra in cell.extras %}
    {{ extra.packages | join(" ") }}{{ " \\\\" if not loop.last }}
{%- endfor %}
{% endif %}
LABEL org.opencontainers.image.version="{{ cell.framework.version }}"
"""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One run of a command: wall seconds, and the peak of its resident memory in MB."""

    seconds: float
    megabytes: float


def measure(command: Sequence[str], output: Path, environment: dict[str, str] | None = None) -> Figures:
    """Runs a command and waits for it as the operating system accounts for it.

    Raises:
        SystemExit: it failed.
    """
    started = time.perf_counter()
    with output.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.PIPE, env={**ENVIRONMENT, **(environment or {})}
        )
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)} failed: {said.decode(errors='replace')[-2000:]}")
    return Figures(seconds=time.perf_counter() - started, megabytes=usage.ru_maxrss / 1024)


def project(directory: Path, cells: int, kept: int) -> Path:
    """Writes a project whose matrix expands to at least this many cells; returns its matrix file.

    Args:
        directory: where; must not exist.
        cells: how many.
        kept: how many combinations of framework, CUDA and Python the facts allow.
    """
    sets = -(-cells // kept)
    names = [f"x{number}" for number in range(max(1, sets.bit_length()))]
    extras = [[name for bit, name in enumerate(names) if number >> bit & 1] for number in range(sets)]
    directory.mkdir()
    (directory / "dockerfiles/files").mkdir(parents=True)
    (directory / "dockerfiles/torch.Dockerfile.j2").write_text(TEMPLATE)
    install = directory / "dockerfiles/files/install"
    install.write_text('#!/bin/sh\nexec /opt/venv/bin/pip install --no-cache-dir "$1" --extra-index-url "$2"\n')
    install.chmod(0o755)
    matrix = directory / "matrix.yaml"
    matrix.write_text(text(extras, names))
    return matrix


def text(extras: Sequence[Sequence[str]], names: Sequence[str]) -> str:
    """The matrix file."""
    label = {cuda: "cu" + cuda.replace(".", "") for cuda in CUDAS}
    return MATRIX.format(
        frameworks=", ".join(f"torch=={version}" for version in VERSIONS),
        cudas=", ".join(f'"{cuda}"' for cuda in CUDAS),
        pythons=", ".join(f'"{python}"' for python in PYTHONS),
        extras="\n".join(f"    - [{', '.join(chosen)}]" for chosen in extras),
        channels=", ".join(f'"{cuda}": {label[cuda]}' for cuda in CUDAS),
        urls="\n".join(f"  {label[cuda]}: https://download.pytorch.org/whl/{label[cuda]}" for cuda in CUDAS),
        definitions="\n".join(f"  {name}: {{packages: [package-{name}], named: true}}" for name in names),
    )


def kept_combinations() -> int:
    """How many combinations of the first three axes the facts allow."""
    with tempfile.TemporaryDirectory() as name:
        matrix = Path(name) / "matrix.yaml"
        matrix.write_text(text([[]], ["x0"]))
        told = subprocess.run(
            [IMGBUILD, "matrix", "-f", str(matrix)], capture_output=True, text=True, check=True, env=ENVIRONMENT
        )
    return int(told.stdout.splitlines()[-1].split()[0].replace(",", ""))


def main() -> None:
    """Measures, and prints a table."""
    small, large = (int(argument) for argument in (sys.argv[1:] + ["1000", "10000"][len(sys.argv) - 1 :])[:2])
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        kept = kept_combinations()
        small, large = (kept * -(-cells // kept) for cells in (small, large))
        rows: dict[str, list[Figures]] = {}
        for cells in (small, large):
            matrix = str(project(root / str(cells), cells, kept))
            rendered = root / f"rendered-{cells}"
            for label, command in {
                "matrix --format json": ["matrix", "-f", matrix, "--format", "json"],
                "matrix --format bake": ["matrix", "-f", matrix, "--format", "bake"],
                "render": ["render", "-f", matrix, "-o", str(rendered)],
                "render --check": ["render", "-f", matrix, "-o", str(rendered), "--check"],
            }.items():
                output = root / f"{label.replace(' ', '-')}-{cells}"
                rows.setdefault(label, []).append(measure([IMGBUILD, *command], output))
        print(f"{'':<32}{small:>8,} cells{'':>12}{large:>8,} cells{'':>12}ratio of times")
        for label, (one, many) in rows.items():
            print(
                f"imgbuild {label:<23}{one.seconds:7.2f} s {one.megabytes:7.0f} MB"
                f"{many.seconds:14.2f} s {many.megabytes:7.0f} MB{many.seconds / one.seconds:12.1f}"
            )
        bake = root / f"matrix---format-bake-{small}"
        if (
            shutil.which("docker")
            and not subprocess.run(["docker", "buildx", "version"], capture_output=True).returncode
        ):
            figures = measure(["docker", "buildx", "bake", "-f", str(bake), "--print"], root / "printed")
            print(f"{'docker buildx bake --print':<32}{figures.seconds:7.2f} s {figures.megabytes:7.0f} MB")
        else:
            print("docker buildx bake --print: not run, the docker command has no buildx (`.ci/prepare buildx`)")


if __name__ == "__main__":
    main()
