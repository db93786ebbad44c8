"""A corpus of images for the check suite: broken in exactly one way each, or healthy though unusual.

Every image is a thin layer on an image that passes. `tests/engine/test_corpus.py` checks each of them, up to what is
needed to see its defect named; `bench/corpus_table.py` runs the whole suite in all of them, shows that nothing else
fails, and writes `docs/corpus.md`.
"""

from __future__ import annotations

from corpus.broken_horovod import HOROVOD
from corpus.broken_runs import RUNS
from corpus.broken_static import STATIC
from corpus.broken_tensorflow import TENSORFLOW
from corpus.broken_torch import TORCH
from corpus.healthy import HEALTHY
from corpus.variant import CELLS, Base, Broken, Cell, Healthy, Settings

BROKEN: tuple[Broken, ...] = (*HOROVOD, *TORCH, *TENSORFLOW, *STATIC, *RUNS)

__all__ = ["BROKEN", "CELLS", "HEALTHY", "Base", "Broken", "Cell", "Healthy", "Settings"]
