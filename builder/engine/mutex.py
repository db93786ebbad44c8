"""A lock on an engine, between whoever uses it, from wherever: names of containers are given out once.

Tags of images have no compare-and-swap. Creating a container with a name that exists is refused, atomically, by every
engine; so a container that is never started is the lock. It carries its owner's labels, so that whoever waits for it
removes what a killed process left.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from builder.engine import fields
from builder.engine.connection import Engine
from builder.engine.errors import EngineRefused
from builder.engine.owner import is_abandoned, owner_labels, remove_container

_CONFLICT, _NOT_FOUND = 409, 404


@contextmanager
def held(engine: Engine, name: str, image_id: str, *, timeout: float = 30.0) -> Iterator[None]:
    """Holds the lock `name` while its `with` block runs.

    Args:
        engine: whose lock it is.
        name: letters, digits, `_`, `.` and `-`.
        image_id: an image of the engine, which the lock's container needs and does not run.
        timeout: seconds to wait for another holder, who needs it for moments only.

    Raises:
        EngineRefused: another held it for longer, or the engine refused the container.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            engine.call(
                "POST",
                "/containers/create",
                doing=f"take the lock {name}",
                params={"name": name},
                json={"Image": image_id, "Cmd": ["true"], "Labels": dict(owner_labels())},
            ).close()
            break
        except EngineRefused as refused:
            if refused.status != _CONFLICT:
                raise
            if _freed(engine, name):
                continue
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    try:
        yield
    finally:
        remove_container(engine, name)


def _freed(engine: Engine, name: str) -> bool:
    """Removes the lock of a process that is gone; whether it did."""
    try:
        answer = engine.call_json("GET", f"/containers/{name}/json", doing=f"look who holds the lock {name}")
    except EngineRefused as refused:
        if refused.status == _NOT_FOUND:
            return False  # given back meanwhile
        raise
    container = fields.mapping(answer)
    labels = fields.text_mapping(fields.mapping(container.get("Config")).get("Labels"))
    # By its id: another process may have taken the lock since.
    return is_abandoned(labels) is True and remove_container(engine, fields.text(container.get("Id")))
