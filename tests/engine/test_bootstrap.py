"""A base made from the distribution's packages: twice the same image, and never its child. About 20 s each time."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.engine.bootstrap import BootstrappedBase, BootstrapRecipe, find_base, make_base
from builder.engine.connection import Engine
from builder.engine.containers import RunRequest, run
from builder.engine.images import inspect, remove, tag, untag

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def recipe(engine: Engine) -> BootstrapRecipe:
    """What the base of these tests is made of."""
    return BootstrapRecipe(suite="bookworm", architecture=engine.info().architecture)


@pytest.fixture(scope="module")
def base(engine: Engine, prefix: str, recipe: BootstrapRecipe) -> Iterator[BootstrappedBase]:
    """A base that was just made."""
    assert shutil.which("mmdebstrap"), "these tests need mmdebstrap: sudo apt-get install mmdebstrap"
    assert find_base(engine, recipe, f"{prefix}-bootstrap/base") is None
    made = make_base(engine, recipe, repository=f"{prefix}-bootstrap/base")
    yield made
    # By name: the same packages give the same image, and it may be somebody's base under another name.
    untag(engine, made.reference)


def _run(engine: Engine, image: str, script: str) -> str:
    request = RunRequest(image=image, entrypoint=("/bin/sh", "-c"), command=(script,), deadline=60)
    result = run(engine, request)
    assert result.exit_code == 0, result.log_tail
    return result.log_tail


def test_base_is_found_again(engine: Engine, prefix: str, recipe: BootstrapRecipe, base: BootstrappedBase) -> None:
    found = find_base(engine, recipe, f"{prefix}-bootstrap/base")
    assert found is not None
    assert (found.image_id, found.reference) == (base.image_id, base.reference)
    assert (found.recipe_sha256, found.packages_sha256) == (recipe.sha256, base.packages_sha256)
    assert find_base(engine, recipe, f"{prefix}-bootstrap/other") is None
    other = BootstrapRecipe(suite=recipe.suite, architecture=recipe.architecture, include=("tini",))
    assert find_base(engine, other, f"{prefix}-bootstrap/base") is None


def test_nothing_of_this_machine_is_in_it(engine: Engine, base: BootstrappedBase) -> None:
    assert base.packages is not None
    assert any(entry.startswith("apt=") for entry in base.packages.entries)
    # The engine mounts its own hostname and resolv.conf; what the layer holds is seen in a copy of the root.
    with engine.call("GET", f"/images/{base.image_id}/get", doing="save the base", stream=True) as response:
        saved = io.BytesIO(response.content)
    with tarfile.open(fileobj=saved) as archive:
        (layer,) = [m for m in archive if m.name.endswith("layer.tar") or m.size > 50_000_000]
        stream = archive.extractfile(layer)
        assert stream is not None
        with tarfile.open(fileobj=stream) as root:
            files = {m.name.removeprefix("./"): m for m in root}
    for absent in ("etc/hostname", "etc/resolv.conf", "etc/apt/imgbuild-sources", "usr/share/man/man1/ls.1.gz"):
        assert absent not in files
    assert "usr/share/doc/apt/copyright" in files
    assert "etc/apt/sources.list" in files
    # apt's empty lock files may stay.
    left = {
        name: m.size for name, m in files.items() if m.isreg() and name.startswith(("var/cache/apt/", "var/lib/apt/"))
    }
    assert not {name: size for name, size in left.items() if size and not name.endswith("extended_states")}
    assert not [name for name, m in files.items() if m.isreg() and name.startswith("var/log/")]
    assert files.get("etc/machine-id") is None or files["etc/machine-id"].size == 0
    assert max(m.mtime for m in files.values()) <= BootstrapRecipe(suite="x", architecture="y").epoch
    text = _run(engine, base.reference, "dpkg --audit; cat /etc/apt/sources.list")
    assert text.count("deb ") == 3
    assert "-security" in text


def test_made_again_it_is_the_same_image(
    engine: Engine, prefix: str, recipe: BootstrapRecipe, base: BootstrappedBase, tmp_path: Path
) -> None:
    lines: list[str] = []
    again = make_base(engine, recipe, repository=f"{prefix}-bootstrap/base", on_line=lines.append)
    assert again == base
    assert any("apt-get update" in line for line in lines)


def test_child_with_the_inherited_labels_is_no_base(
    engine: Engine, prefix: str, recipe: BootstrapRecipe, base: BootstrappedBase
) -> None:
    name = f"{prefix}-child"
    body = {"Image": base.image_id, "Cmd": ["touch", "/child"]}
    engine.call("POST", "/containers/create", doing="create", params={"name": name}, json=body).close()
    try:
        engine.call("POST", f"/containers/{name}/start", doing="start").close()
        engine.call("POST", f"/containers/{name}/wait", doing="wait").close()
        params = {"container": name, "repo": f"{prefix}-bootstrap/base", "tag": "child"}
        engine.call("POST", "/commit", doing="commit", params=params, json={}).close()
    finally:
        engine.call("DELETE", f"/containers/{name}", doing="remove", params={"force": True, "v": True}).close()
    child = inspect(engine, f"{prefix}-bootstrap/base:child")
    assert child is not None
    try:
        assert child.labels["io.imgbuild.base.recipe"] == recipe.sha256
        assert len(child.layers) == 2
        found = find_base(engine, recipe, f"{prefix}-bootstrap/base")
        assert found is not None
        assert found.image_id == base.image_id
        # Not even under the base's own name.
        tag(engine, child.id, base.reference)
        assert find_base(engine, recipe, f"{prefix}-bootstrap/base") is None
    finally:
        tag(engine, base.image_id, base.reference)
        remove(engine, child.id, force=True)
    assert find_base(engine, recipe, f"{prefix}-bootstrap/base") is not None
