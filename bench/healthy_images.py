"""The healthy images that the programs here run the check suite in."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# The corpus of the tests is no installed package.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from corpus import BROKEN, CELLS, HEALTHY, Base, Broken, Healthy
from corpus.table import Measured, document
from corpus.workshop import Workshop

__all__ = ["BROKEN", "HEALTHY", "Base", "Broken", "Healthy", "Measured", "Workshop", "document", "healthy_images"]


def healthy_images(given: Sequence[str]) -> Mapping[Base, str]:
    """An image for each base of the corpus.

    Args:
        given: as `BASE=IMAGE`, such as `plain=imgbuild/pytorch:2.13.0-cpu-py3.11`. What is not given is built from the
            default matrix, which takes seconds where the engine knows the layers.
    """
    found = {Base(name): image for name, _, image in (entry.partition("=") for entry in given)}
    lacking = [base for base in Base if base not in found]
    if lacking:
        program = str(Path(sys.executable).with_name("imgbuild"))
        command = [program, "build", *CELLS.values(), "--no-check", "--format", "json"]
        report = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
        ids = {cell["cell"]: cell["image_id"] for cell in report["cells"]}
        found |= {base: ids[CELLS[base]] for base in lacking}
    return found
