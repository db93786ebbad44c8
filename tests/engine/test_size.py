"""Sizes of real images, against what the engine says of them; and a budget that stops one before its check."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest
from command import Built, imgbuild

from builder.engine.connection import Engine
from builder.engine.errors import ImageMissing
from builder.engine.images import inspect
from builder.project import shipped_data
from builder.sizes.budget import judge
from builder.sizes.measure import overview

pytestmark = pytest.mark.engine


LINKS = 200_000
"""More bytes than the targets of all symbolic links of these images have, which Docker counts in some layers."""


def size_of(engine: Engine, image: str) -> int:
    found = inspect(engine, image)
    assert found is not None
    return found.size


def build(tag: str, dockerfile: str) -> str:
    """Builds an image without a context; it inherits the label of its base."""
    command = ["docker", "build", "--quiet", "--tag", tag, "-"]
    subprocess.run(command, input=dockerfile, text=True, check=True, capture_output=True, timeout=120)
    return tag


@pytest.fixture(scope="module")
def small(engine: Engine, tiny_base: str, prefix: str) -> tuple[str, str]:
    """Two images: one, and one that adds a package, a second copy of a library, and a file that it takes away again."""
    one = build(
        f"{prefix}-small:one",
        f"FROM {tiny_base}\nRUN mkdir -p /a && head -c 3000000 /dev/zero > /a/libz.so.1 && echo x > /a/gone\n",
    )
    other = build(
        f"{prefix}-small:two",
        f"FROM {one}\nRUN mkdir -p /b && cp /a/libz.so.1 /b/libz.so.1.3\n"
        "RUN rm /a/gone && head -c 500 /dev/zero > /c\n",
    )
    return one, other


def test_layers_duplicates_and_what_is_hidden(engine: Engine, small: tuple[str, str]) -> None:
    found = overview(engine, dict.fromkeys(small, ""))
    one, other = found.images
    assert [image.bytes for image in found.images] == [
        pytest.approx(size_of(engine, name), abs=LINKS) for name in small
    ]
    assert [layer.bytes for layer in other.layers[-2:]] == [3_000_000, 500]
    assert "head -c 500" in other.layers[-1].made_by
    assert [(item.name, item.wasted) for item in other.duplicates] == [("libz.so.1", 3_000_000)]
    assert [(item.path, item.bytes, item.removed) for item in other.hidden] == [("/a/gone", 2, True)]
    assert (one.duplicates, one.hidden) == ((), ())
    assert found.unique(one) == 0
    assert found.unique(other) == 3_000_500
    assert found.distinct == other.bytes


def test_a_budget_is_judged_by_what_the_engine_says(engine: Engine, small: tuple[str, str]) -> None:
    one, other = small
    taken = size_of(engine, other)
    assert judge(engine, other, taken) is None
    over = judge(engine, other, taken - 1, one)
    assert over is not None
    assert over.before == pytest.approx(size_of(engine, one), abs=LINKS)
    assert "1 B more than its budget" in over.message
    assert "other files in /b by 3.0 MB" in over.message
    alone = judge(engine, other, taken - 1, "sha256:" + "0" * 64)  # the last good one is gone
    assert alone is not None
    assert "largest: " in alone.message
    with pytest.raises(ImageMissing):
        judge(engine, "sha256:" + "0" * 64, 1)


def test_an_image_that_is_not_there_is_named(prefix: str, built: Built) -> None:
    ran = built.run("size", f"{prefix}-none:x")
    assert ran.code == 18
    assert f"{prefix}-none:x" in ran.err


def test_the_sizes_of_a_real_image_add_up(engine: Engine, built: Built) -> None:
    outcome = built.cell("torch-2.13.0-cpu-py3.11-horovod")
    began = time.monotonic()
    ran = built.run("size", outcome["cell"], "torch-2.13.0-cpu-py3.11", "--format", "json")
    seconds = time.monotonic() - began
    assert ran.code == 0, ran.err
    first, second = ran.json["images"]
    assert first["cell"] == outcome["cell"]
    assert first["bytes"] == sum(layer["bytes"] for layer in first["layers"])
    assert first["bytes"] == pytest.approx(size_of(engine, outcome["image_id"]), abs=LINKS)
    seen = sum(item["bytes"] for item in first["packages"])
    assert first["bytes"] == seen + sum(item["bytes"] for item in first["hidden"])
    packages = {(item["kind"], item["name"]): item for item in first["packages"]}
    largest = first["packages"][0]
    assert (largest["kind"], largest["name"]) == ("python", "torch")
    assert ("debian", "libc6") in packages
    # What no package has is little: the files of this tool, and what the distribution's own tools keep.
    assert sum(item["bytes"] for item in first["packages"] if item["kind"] == "other") < first["bytes"] * 0.02
    # Both cells have the framework's layer; Horovod's is the one's alone.
    assert ("python", "horovod") in packages
    assert second["shared"] == first["shared"] >= packages["python", "torch"]["bytes"]
    print(f"two images of {first['bytes'] / 1e9:.2f} GB each in {seconds:.1f} s")


def test_a_cell_above_its_budget_gets_no_tag(engine: Engine, built: Built, tmp_path: Path) -> None:
    cell = built.cell("torch-2.13.0-cpu-py3.11")
    folder = built.folder or shipped_data()
    text = (folder / "matrix.yaml").read_text()
    changed, count = re.subn(
        r"^defaults:\n  base: (\w+)\n", r"defaults:\n  base: \1\n  budget: 5 MB\n", text, flags=re.M
    )
    assert count == 1
    (tmp_path / "matrix.yaml").write_text(changed)
    (tmp_path / "dockerfiles").symlink_to(folder / "dockerfiles")
    state = {**built.environment, "IMGBUILD_STATE_DIR": str(tmp_path / "state")}
    arguments = ("build", cell["cell"], "--format", "json", "--repository", built.repository)
    ran = imgbuild(*arguments, environment=state, cwd=tmp_path)
    assert ran.code == 9, ran.err
    (outcome,) = ran.json["cells"]
    assert (outcome["status"], outcome["exit_code"]) == ("failed", 9)
    # It is the same image: a budget is no part of the key. Nothing was built, checked or tagged.
    assert (outcome["image_id"], outcome["built"], outcome["checked"]) == (cell["image_id"], False, False)
    assert outcome["moved"] == []
    assert "more than its budget of 5.0 MB" in outcome["reasons"][0]
    assert any("torch" in line for line in outcome["detail"])
    # With a budget that it keeps to, it is as it was.
    (tmp_path / "matrix.yaml").write_text(changed.replace("5 MB", "50 GB"))
    ran = imgbuild("build", "--no-check", *arguments[1:], environment=state, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["cells"][0]["image_id"] == cell["image_id"]
