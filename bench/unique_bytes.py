"""What a registry keeps of the built images, beside the bytes of what they are made of.

Usage: python bench/unique_bytes.py [-f FILE] [--variants GLOB|CELL ...]

For all cells that are built: the bytes of their distinct layers over those of their distinct contents, which may be at
most 1.10. A content is a file by its path, size and, from 100 kB (libraries) or 1 MB on, its SHA-256: what two images
have in common counts once, whatever layers it is in. With `--variants`: the bytes of the distinct layers of these cells
over the sum of their sizes, which may be at most 0.50. Bytes are unpacked; a registry has the same layers, compressed.
The exit code is 1 when a bound is not kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import IO, Any

from side_by_side import IMGBUILD

from builder.engine.connection import Engine
from builder.engine.saved import read_layers
from builder.release.diff_show import size
from builder.sizes.layers import Layer

ROOT = Path(__file__).resolve().parent.parent
MOST = 1.10
"""Bytes of distinct layers for each byte of distinct content."""
MOST_OF_VARIANTS = 0.50
"""Bytes of the variants' distinct layers for each byte of their sum."""

Content = tuple[str, int, str]
"""A file's path, bytes, and SHA-256 where it was taken."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Unique bytes of the built images.")
    parser.add_argument("-f", "--matrix", type=Path, default=ROOT / "matrix.yaml", help="the matrix file")
    parser.add_argument("--variants", nargs="+", default=[], metavar="CELL", help="ids or globs of cells")
    arguments = parser.parse_args()
    document = sizes(arguments.matrix)
    names = [image["image"] for image in document["images"]]
    distinct, content = document["distinct"], sum(bytes_ for _, bytes_, _ in contents(names))
    ratio = distinct / content
    print(f"{len(names)} images: {size(document['sum'])} one by one, {size(distinct)} in distinct layers")
    print(f"distinct contents: {size(content)}; ratio {ratio:.3f}  (at most {MOST:.2f})")
    for image in document["images"]:
        print(f"  {size(image['unique']):>9} unique of {size(image['bytes']):>9}  {image['cell']}")
    failed = ratio > MOST
    if arguments.variants:
        found = sizes(arguments.matrix, *arguments.variants)
        ratio = found["distinct"] / found["sum"]
        print(
            f"{len(found['images'])} variants: {size(found['distinct'])} of {size(found['sum'])}; ratio {ratio:.3f}"
            f"  (at most {MOST_OF_VARIANTS:.2f})"
        )
        failed = failed or ratio > MOST_OF_VARIANTS
    return 1 if failed else 0


def sizes(matrix: Path, *cells: str) -> dict[str, Any]:
    """What `imgbuild size` says of cells that are built."""
    command = [IMGBUILD, "size", "-f", str(matrix), "--format", "json", *cells]
    return dict(json.loads(subprocess.check_output(command)))


def contents(images: list[str]) -> set[Content]:
    """Every file of these images, each once."""
    layers: dict[str, Layer] = {}

    def take(name: str, member: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        layers.setdefault(name, Layer()).take(member, content)

    with Engine.connect() as engine:
        for image in images:
            known = set(layers)
            read_layers(engine, image, take, skip=known.__contains__)
    return {
        (path, entry.bytes, entry.digest)
        for layer in layers.values()
        for path, entry in layer.entries.items()
        if entry.bytes
    }


if __name__ == "__main__":
    sys.exit(main())
