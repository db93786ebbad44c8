"""Size and first import of a PyTorch image beside the naive one: what is smaller, and what it costs.

Usage: python bench/naive.py [-f FILE] [--runs N] [--keep] [CELL]

The naive image has the same base and the same locked packages, installed as most Dockerfiles do: `python3 -m venv` and
`pip install --no-cache-dir`. Prints both sizes and their ratio, which may be at most 0.70, the sum of the wheels
unpacked, and the time to a first `import torch` in a new container of each, in turn. The exit code is 1 when the bound
is not kept. Both images are built where they are not there; the naive one is removed in the end. Needs an idle machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from side_by_side import IMGBUILD

from builder.release.diff_show import size

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 0.70
"""The largest size that ours may have beside the naive one."""

REPOSITORY = "imgbuild-naive"

TEMPLATE = """\
{%- import "_site.j2" as site with context -%}
{%- set system = ["ca-certificates", "python3", "tini"] -%}
{%- set framework = ["numpy", "pip", "setuptools", "torch==" ~ cell.framework.version ~ "+cpu"] -%}
{%- set extra = cell.extras | map(attribute="packages") | sum(start=()) | list -%}
ARG BASE
FROM ${BASE}
{{ site.apt_locked(system) }}
{{ site.apt_locked(["python3-venv"], after=system) }}
RUN {{ site.mounts() }} \\
    --mount=type=tmpfs,target=/tmp \\
    {{ site.packages(python(framework)) }} \\
    {{ site.packages(python(extra, after=framework), "extras") }} \\
    {{ site.enter_pip(channel) }} \\
    && python3 -m venv /opt/venv \\
    && for list in packages extras; do \\
        /opt/venv/bin/python -m pip install --no-input --progress-bar off ${channel:+--extra-index-url "$channel"} \\
            --no-cache-dir --no-deps --require-hashes \\
            --find-links /run/$list/wheels --requirement /run/$list/list.txt \\
        || exit 1; \\
    done
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Compares a PyTorch image with the naive one.")
    parser.add_argument("-f", "--matrix", type=Path, default=ROOT / "matrix.yaml", help="the matrix file")
    parser.add_argument("--runs", type=int, default=9, help="containers of each image")
    parser.add_argument("--keep", action="store_true", help="leave the naive image on the engine")
    parser.add_argument("cell", nargs="?", default="torch-2.13.0-cpu-py3.11")
    arguments = parser.parse_args()
    matrix = arguments.matrix.resolve()
    ours = built(matrix, arguments.cell)
    with tempfile.TemporaryDirectory() as directory:
        project = Path(directory)
        shutil.copytree(matrix.parent / "dockerfiles", project / "dockerfiles")
        shutil.copy(matrix, project / "matrix.yaml")
        (project / "dockerfiles/pytorch.Dockerfile.j2").write_text(TEMPLATE, encoding="utf-8")
        # What only the naive one installs from the distribution is locked beside what is locked already.
        command = [IMGBUILD, "lock", "-f", str(project / "matrix.yaml"), "--repository", REPOSITORY, arguments.cell]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        naive = built(project / "matrix.yaml", arguments.cell, "--repository", REPOSITORY)
    try:
        return compared(ours, naive, arguments.runs)
    finally:
        if not arguments.keep:
            subprocess.run(["docker", "rmi", naive], stdout=subprocess.DEVNULL, check=True)


def built(matrix: Path, cell: str, *options: str) -> str:
    """The candidate of a cell, made where it is not there."""
    command = [IMGBUILD, "build", "--no-check", "-f", str(matrix), "--format", "json", *options, cell]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {ran.returncode}\n{ran.stdout}{ran.stderr}")
    return str(json.loads(ran.stdout)["cells"][0]["candidate"])


def compared(ours: str, naive: str, runs: int) -> int:
    """Prints what there is to say of two images; 1 when a bound is not kept."""
    document = json.loads(subprocess.check_output([IMGBUILD, "size", "--format", "json", ours, naive]))
    one, other = document["images"]
    ratio = one["bytes"] / other["bytes"]
    print(f"ours   {size(one['bytes']):>9}, {size(one['bytecode'])} of it bytecode")
    print(f"naive  {size(other['bytes']):>9}, {size(other['bytecode'])} of it bytecode")
    print(f"ratio  {ratio:9.3f}  (at most {LARGEST:.2f})")
    print(f"the wheels of the naive one unpacked: {size(unpacked(other))}; of ours: {size(unpacked(one))}")
    seconds: Mapping[str, list[float]] = {ours: [], naive: []}
    for image in seconds:
        first_import(image)
    for _ in range(runs):
        for image, times in seconds.items():
            times.append(first_import(image))
    medians = [statistics.median(times) for times in seconds.values()]
    slower = statistics.median(mine / its for mine, its in zip(seconds[ours], seconds[naive], strict=True))
    print(
        f"import torch in a new container, median of {runs} in turn: ours {medians[0]:.2f} s, naive {medians[1]:.2f} s"
    )
    print(f"median of the ratios {slower:.3f}; spread of ours {min(seconds[ours]):.2f} to {max(seconds[ours]):.2f} s")
    return 1 if ratio > LARGEST else 0


def unpacked(image: Mapping[str, list[dict[str, object]]]) -> int:
    """Bytes of an image's Python distributions as their wheels hold them: without bytecode."""
    python = [item for item in image["packages"] if item["kind"] == "python"]
    return sum(int(str(item["bytes"])) - int(str(item["bytecode"])) for item in python)


def first_import(image: str) -> float:
    """Seconds from the start of a new container to its end, after `import torch`."""
    command = ["docker", "run", "--rm", "--network", "none", image, "python", "-c", "import torch"]
    started = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
