"""Tags on a real engine: to an id, read back, all or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import docker
import pytest

from builder.engine.connection import Engine
from builder.engine.errors import EngineError
from builder.engine.images import inspect, untag
from builder.publish import promote, stale_references

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def two(tiny_base: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Ids of two images. As a candidate tag does, a name of their own keeps them when other names go."""
    client = docker.from_env()
    ids = []
    for word in ("one", "two"):
        container = client.containers.create(tiny_base, ["true"])
        ids.append(str(container.commit(f"{prefix}-publish", word, changes=f"LABEL word={word}").id))
        container.remove()
    yield ids[0], ids[1]
    for image_id in ids:
        client.images.remove(image_id, force=True)
    client.close()


@pytest.fixture
def reference(engine: Engine, prefix: str) -> Iterator[Callable[[str], str]]:
    made: list[str] = []

    def make(tag: str) -> str:
        made.append(f"{prefix}-publish:{tag}")
        return made[-1]

    yield make
    for name in made:
        untag(engine, name)


def holder(engine: Engine, name: str) -> str | None:
    found = inspect(engine, name)
    return found.id if found else None


def test_references_move_to_the_id_and_only_once(
    engine: Engine, two: tuple[str, str], reference: Callable[[str], str]
) -> None:
    names = (reference("a"), reference("a-verified"))
    assert promote(engine, two[0], names) == names
    assert promote(engine, two[0], names) == ()
    assert promote(engine, two[1], names[:1]) == names[:1]
    assert [holder(engine, name) for name in names] == [two[1], two[0]]


def test_when_one_cannot_be_put_all_go_back(
    engine: Engine, two: tuple[str, str], reference: Callable[[str], str]
) -> None:
    old, new = reference("old"), reference("new")
    promote(engine, two[0], [old])
    with pytest.raises((EngineError, ValueError)):
        promote(engine, two[1], [old, new, f"{new}/not-a-reference"])
    assert holder(engine, old) == two[0]
    assert holder(engine, new) is None


def test_an_image_that_is_not_there_gets_no_tag(engine: Engine, reference: Callable[[str], str]) -> None:
    name = reference("none")
    with pytest.raises(EngineError):
        promote(engine, "sha256:" + "0" * 64, [name])
    assert holder(engine, name) is None


def test_stale_references_are_those_of_another_image(
    engine: Engine, two: tuple[str, str], reference: Callable[[str], str]
) -> None:
    mine, stale, absent = reference("mine"), reference("stale"), reference("absent")
    promote(engine, two[0], [stale])
    promote(engine, two[1], [mine])
    assert stale_references(engine, two[1], [mine, stale, absent]) == ((stale, two[0]),)
