"""What a built image really is: measured in it, written into it as a manifest, and in short as its labels."""

from __future__ import annotations

from builder.measure.image import measure_image
from builder.measure.labels import labels_count, labels_of
from builder.measure.manifest import SCHEMA, Manifest

__all__ = ["SCHEMA", "Manifest", "labels_count", "labels_of", "measure_image"]
