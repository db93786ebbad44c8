"""The matrix: parse and validate `matrix.yaml`, expand it into cells, select some of them."""

from __future__ import annotations

from builder.matrix.expand import load_matrix
from builder.matrix.model import (
    CPU,
    Axes,
    Base,
    Bootstrap,
    Cell,
    Channel,
    Excluded,
    Extra,
    Framework,
    Level,
    Matrix,
    Selection,
)
from builder.matrix.select import select, select_excluded

__all__ = [
    "CPU",
    "Axes",
    "Base",
    "Bootstrap",
    "Cell",
    "Channel",
    "Excluded",
    "Extra",
    "Framework",
    "Level",
    "Matrix",
    "Selection",
    "load_matrix",
    "select",
    "select_excluded",
]
