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
    Impossible,
    Judged,
    Level,
    Matrix,
    Policy,
    Selection,
    Unknown,
)
from builder.matrix.select import LeftOut, refuse_judged, select, select_left_out

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
    "Impossible",
    "Judged",
    "LeftOut",
    "Level",
    "Matrix",
    "Policy",
    "Selection",
    "Unknown",
    "load_matrix",
    "refuse_judged",
    "select",
    "select_left_out",
]
