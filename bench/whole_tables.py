"""`imgbuild matrix --explain` over every release of PyTorch × every CUDA × every Python of the fact tables.

Usage: python bench/whole_tables.py [FRAMEWORK [DIRECTORY]]

Writes the matrix and what is said of it into DIRECTORY (default: a temporary one), and prints how many combinations
are kept, impossible and unknown, how many each rule speaks of, the wall time and the peak memory. Every build of
PyTorch is looked for on its makers' own channel. The CUDA versions are those of the tables, the numbers that never were
included; the Pythons likewise, and one beyond.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from packaging.version import Version
from scale import measure
from side_by_side import IMGBUILD

from builder.compat import load_facts

MATRIX = """\
version: 1
repository: whole
axes:
  framework: [{frameworks}]
  cuda: [cpu, {cudas}]
  python: [{pythons}]
bases:
  every: {{image: "example/every-python:1", python: [{pythons}]}}
frameworks:
  {name}: {{image: {name}, template: {name}.Dockerfile.j2, channels: {{{channels}}}}}
channels:
{urls}
defaults: {{base: every}}
tags: ["{{version}}-{{cuda}}-py{{python}}"]
"""


def text(name: str) -> str:
    """The matrix file."""
    facts = load_facts()
    releases = sorted({release for row in facts.projects[name].rows for release in row.releases}, key=Version)
    cudas = sorted(facts.toolkits, key=Version)
    pythons = sorted((python for python in facts.pythons if python.startswith("3.")), key=Version)
    newest = Version(pythons[-1])
    label = {"cpu": "cpu", **{cuda: "cu" + cuda.replace(".", "") for cuda in cudas}}
    # Only PyTorch has a channel of its own.
    on_channel = label if name == "torch" else {}
    return MATRIX.format(
        name=name,
        frameworks=", ".join(f"{name}=={release}" for release in releases),
        cudas=", ".join(f'"{cuda}"' for cuda in cudas),
        pythons=", ".join(f'"{python}"' for python in (*pythons, f"3.{newest.minor + 1}")),
        channels=", ".join(f'"{cuda}": {index}' for cuda, index in on_channel.items()),
        urls="\n".join(f"  {index}: https://download.pytorch.org/whl/{index}" for index in label.values()),
    )


def main(name: str, directory: Path) -> None:
    """Measures, and prints."""
    directory.mkdir(parents=True, exist_ok=True)
    matrix = directory / "matrix.yaml"
    matrix.write_text(text(name))
    found: dict[str, dict[str, object]] = {}
    for label, arguments in {
        "matrix --format json": ["--format", "json"],
        "matrix --explain": ["--explain"],
        "matrix --explain --format json": ["--explain", "--format", "json"],
    }.items():
        output = directory / label.replace(" ", "-")
        figures = measure([IMGBUILD, "matrix", "-f", str(matrix), *arguments], output)
        print(f"imgbuild {label:<32}{figures.seconds:7.2f} s {figures.megabytes:6.0f} MB")
        if "json" in arguments:
            started = time.perf_counter()
            found[label] = json.loads(output.read_text())
            print(f"{'reading that':<41}{time.perf_counter() - started:7.2f} s")
    counts = found["matrix --explain --format json"]["counts"]
    assert isinstance(counts, dict)
    kinds = {kind: number for kind, number in counts.items() if kind != "by_rule"}
    print(f"{sum(kinds.values()):,} combinations: " + ", ".join(f"{number:,} {kind}" for kind, number in kinds.items()))
    for kind, rules in counts["by_rule"].items():
        for rule, number in rules.items():
            print(f"  {number:>7,}  {kind:<11} {rule}")


if __name__ == "__main__":
    framework = sys.argv[1] if len(sys.argv) > 1 else "torch"
    if len(sys.argv) > 2:
        main(framework, Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as name:
            main(framework, Path(name))
