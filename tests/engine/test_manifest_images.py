"""What the built images say of themselves, beside what their files say when nothing of them runs."""

from __future__ import annotations

import json

import pytest
from command import CELLS, Built
from packaging.utils import canonicalize_name

from builder.attest.software import installed_software
from builder.build import MANIFEST_PATH
from builder.engine.connection import Engine
from builder.engine.containers import read_from_image
from builder.engine.images import inspect
from builder.measure import labels_count

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("cell", CELLS)
def test_a_built_image_says_what_is_in_it(built: Built, engine: Engine, cell: str) -> None:
    framework = cell.partition("-")[0]
    image = inspect(engine, str(built.cell(cell)["image_id"]))
    assert image is not None
    data = read_from_image(engine, image.id, MANIFEST_PATH, cap=1 << 20)
    assert data is not None
    manifest = json.loads(data)
    files = installed_software(engine, image.id)
    assert [(item["name"], item["version"]) for item in manifest["packages"]["python"]] == sorted(
        (str(canonicalize_name(item.name)), item.version) for item in files.python
    )
    assert [(item["name"], item["version"]) for item in manifest["packages"]["debian"]] == sorted(
        (item.name, item.version) for item in files.debian
    )
    assert manifest["distribution"] == {"id": "debian", "version": "12", "codename": "bookworm"}
    assert (manifest["cell"], manifest["cuda"]) == (cell, None)
    assert manifest["framework"]["name"] == framework
    assert manifest["framework"] in manifest["packages"]["python"]
    horovod = {"version": "0.28.1", "frameworks": [framework], "gloo": True, "mpi": False, "nccl": None}
    assert manifest["horovod"] == (horovod if cell.endswith("horovod") else None)
    assert labels_count(image.labels, image.layers)
    said = {name.removeprefix("io.imgbuild."): value for name, value in image.labels.items()}
    assert said["framework"] == f"{framework} {manifest['framework']['version']}"
    assert (said["python"], said.get("cuda")) == (manifest["python"], None)
