"""The lock on an engine: one holder at a time, and none for ever."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from builder.engine.connection import Engine
from builder.engine.errors import EngineRefused
from builder.engine.images import inspect
from builder.engine.mutex import held

pytestmark = pytest.mark.engine


@pytest.fixture
def image_id(engine: Engine, tiny_base: str) -> str:
    found = inspect(engine, tiny_base)
    assert found is not None
    return found.id


def test_one_holds_it_at_a_time(engine: Engine, prefix: str, image_id: str) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with held(engine, f"{prefix}-lock", image_id):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.1)
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1, 1, 1, 1]


def test_another_lock_is_free_and_a_held_one_is_not_waited_for_without_end(
    engine: Engine, prefix: str, image_id: str
) -> None:
    with held(engine, f"{prefix}-lock", image_id):
        with held(engine, f"{prefix}-another", image_id, timeout=0):
            pass
        with pytest.raises(EngineRefused), held(engine, f"{prefix}-lock", image_id, timeout=0.3):
            pass
    with held(engine, f"{prefix}-lock", image_id, timeout=0):
        pass


def test_it_is_given_back_when_its_holder_fails(engine: Engine, prefix: str, image_id: str) -> None:
    with pytest.raises(ZeroDivisionError), held(engine, f"{prefix}-lock", image_id):
        _ = 1 / 0
    with held(engine, f"{prefix}-lock", image_id, timeout=0):
        pass


def test_the_lock_of_a_process_that_was_killed_is_taken_over(engine: Engine, prefix: str, image_id: str) -> None:
    program = (
        "import os, signal, sys\n"
        "from builder.engine.connection import Engine\n"
        "from builder.engine.mutex import held\n"
        "with Engine.connect() as engine, held(engine, sys.argv[1], sys.argv[2]):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    name = f"{prefix}-killed"
    killed = subprocess.run([sys.executable, "-c", program, name, image_id], check=False)
    assert killed.returncode == -signal.SIGKILL
    # And the twin that lives is waited for.
    with (
        held(engine, name, image_id, timeout=0),
        pytest.raises(EngineRefused),
        held(engine, name, image_id, timeout=0.3),
    ):
        pass
