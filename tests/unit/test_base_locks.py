"""Whether a base may be taken as it is found: pure decisions between a lock and what there is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builder.engine.bootstrap import BootstrapRecipe, PackageSet
from builder.errors import NotLocked
from builder.lock import BaseLock, MadeBase
from builder.lock.base_locks import archive_moved, base_lock, fit_engine, locked_digest, locked_made, misfits
from builder.lock.file import Locks, write_base
from builder.matrix import Base, Bootstrap

RECIPE = BootstrapRecipe(suite="bookworm", architecture="amd64")
BASE = Base(
    name="bookworm",
    image="debian:bookworm-slim",
    digest=None,
    bootstrap=Bootstrap(distribution="debian", suite="bookworm", include=()),
    pythons=("3.11",),
)
LOCK = BaseLock(
    name="bookworm",
    image="debian:bookworm-slim",
    refreshed="2026-01-02",
    digest="sha256:" + "1" * 64,
    why="",
    made=MadeBase(recipe=RECIPE.sha256, packages={"dpkg": "1.21"}),
)


def test_a_lock_must_be_of_this_image(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    assert base_lock(locks, BASE) is None
    write_base(locks, LOCK)
    locks = Locks(tmp_path)
    assert base_lock(locks, BASE) == LOCK
    assert base_lock(locks, replace(BASE, digest=LOCK.digest)) == LOCK
    with pytest.raises(NotLocked, match="locks the image debian:bookworm-slim, and the base bookworm is debian:12"):
        base_lock(locks, replace(BASE, image="debian:12"))
    with pytest.raises(NotLocked, match=r"locks sha256:1+, and the base bookworm is sha256:2+"):
        base_lock(locks, replace(BASE, digest="sha256:" + "2" * 64))


def test_an_engine_for_other_machines_is_refused() -> None:
    fit_engine("amd64", "b.base.json")
    with pytest.raises(NotLocked, match="is for amd64, and the engine builds for arm64") as caught:
        fit_engine("arm64", "b.base.json")
    assert caught.value.where == "b.base.json"


def test_a_digest_that_was_never_found_out_is_not_invented() -> None:
    assert locked_digest(BASE, LOCK) == LOCK.digest
    with pytest.raises(NotLocked, match="locked without a digest: no registry") as caught:
        locked_digest(BASE, replace(LOCK, digest=None, why="no registry"))
    assert "--bases bootstrap" in caught.value.hint
    assert "imgbuild lock --upgrade debian" in caught.value.hint
    with pytest.raises(NotLocked) as caught:
        locked_digest(replace(BASE, bootstrap=None), replace(LOCK, digest=None, why="no registry"))
    assert "--bases bootstrap" not in caught.value.hint


def test_a_made_base_must_be_of_this_recipe() -> None:
    assert locked_made(BASE, LOCK, RECIPE) == LOCK.made
    with pytest.raises(NotLocked, match="was made by another recipe"):
        locked_made(BASE, LOCK, replace(RECIPE, include=("tini",)))
    with pytest.raises(NotLocked, match="was not made when it was locked"):
        locked_made(BASE, replace(LOCK, made=None), RECIPE)


def test_an_archive_that_moved_on_is_told_by_its_first_differences() -> None:
    locked = {"a": "1", "b": "1", "gone": "1", "same": "1", "z": "1"}
    found = {"a": "2", "b": "2", "new": "1", "same": "1", "z": "2"}
    error = archive_moved(BASE, locked, found)
    assert error.exit_code == 19
    assert (
        "a is 2, the lock says 1; b is 2, the lock says 1; gone is absent, the lock says 1; and 2 more" in error.message
    )
    assert error.hint == "run `imgbuild lock --upgrade debian`, and commit what it writes"


def test_a_package_set_has_versions_by_name() -> None:
    found = PackageSet(entries=("apt=2.6.1=amd64", "bsdutils=1:2.38.1-5+deb12u3=amd64"))
    assert found.versions == {"apt": "2.6.1", "bsdutils": "1:2.38.1-5+deb12u3"}


def test_a_lock_fits_the_base_as_it_is_declared_now() -> None:
    assert misfits(LOCK, BASE) == ()
    assert misfits(replace(LOCK, digest=None, why="no registry"), BASE) == ()
    assert misfits(replace(LOCK, made=None), replace(BASE, bootstrap=None)) == ()
    changed = replace(BASE, bootstrap=Bootstrap(distribution="debian", suite="bookworm", include=("tini",)))
    assert misfits(LOCK, changed) == ("the base's equivalent was made by another recipe",)
    assert misfits(LOCK, replace(BASE, image="debian:12")) == (
        "it is of debian:bookworm-slim, and the base is debian:12",
    )
    assert len(misfits(LOCK, replace(BASE, digest="sha256:" + "2" * 64))) == 1
    neither = replace(LOCK, digest=None, why="no registry", made=None)
    assert misfits(neither, BASE) == ("it has neither a digest nor an equivalent that can be made",)
