"""What is offered in place of a combination that does not work: it works, it is near, and it is the same each time."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path

import pytest
from small_facts import SMALL

from builder.compat import Combination, describe, examine, load_facts
from builder.compat.moves import MOVES
from builder.compat.nearest import changed, nearest


def torch(version: str = "2.13.0", **others: object) -> Combination:
    return dataclasses.replace(Combination(package="torch", version=version), **others)  # type: ignore[arg-type]


def offered(asked: Combination, limit: int = 3) -> list[str]:
    return [describe(one) for one in nearest(asked, SMALL, limit)]


VERSIONS = ("2.10.0", "2.10.1", "2.11.0", "2.12.0", "2.13.0", "2.14.0")
CUDAS = (None, "cpu", "11.8", "12.4", "12.6", "12.7", "12.8", "12.9", "13.0", "13.9")
PYTHONS = (None, "3.9", "3.12", "3.14t", "3.16")
REST = (
    {},
    {"channel": "pypi"},
    {"channel": "pytorch", "companions": (("torchvision", "0.28.0"),)},
    {"gpus": ("V100",), "driver": "550.54.14"},
    {"gpus": ("H100", "RTX 50xx")},
    {"image": "nvidia/cuda:12.4.0-cudnn-devel-ubuntu22.04", "system": "ubuntu 22.04"},
    {"companions": (("horovod", "0.28.1"), ("torchaudio", None))},
)


def test_everything_that_is_offered_works_and_keeps_what_cannot_move() -> None:
    questions = 0
    for version, cuda, python, rest in itertools.product(VERSIONS, CUDAS, PYTHONS, REST):
        asked = torch(version, cuda=cuda, python=python, **rest)
        if examine(asked, SMALL).valid:
            continue
        questions += 1
        for one in nearest(asked, SMALL):
            assert examine(one, SMALL).valid is True, (describe(asked), describe(one))
            assert one != asked
            assert (one.gpus, one.driver, one.system) == (asked.gpus, asked.driver, asked.system)
            assert [name for name, _ in one.companions] == [name for name, _ in asked.companions]
            for name in ("cuda", "python", "channel", "image"):
                assert (getattr(one, name) is None) == (getattr(asked, name) is None)
    assert questions > 1000


def test_the_answer_is_the_same_each_time_and_does_not_depend_on_what_was_asked_before() -> None:
    asked = [torch(version, cuda="12.4", python="3.9") for version in VERSIONS]
    first = [nearest(one, dataclasses.replace(SMALL)) for one in asked]
    shared = dataclasses.replace(SMALL)
    assert first == [nearest(one, shared) for one in reversed(asked)][::-1]
    assert first == [nearest(one, shared) for one in asked]


def test_one_answer_for_each_set_of_axes_that_has_to_move_and_none_that_moves_more() -> None:
    asked = torch(cuda="12.8", python="3.9")
    moved = [set(changed(asked, one)) for one in nearest(asked, SMALL, 2)]
    assert moved == [{"python"}, {"version", "cuda"}]
    # There is no third set, so the next in order of distance fills the room.
    moved = [set(changed(asked, one)) for one in nearest(asked, SMALL, 3)]
    assert moved == [{"python"}, {"python"}, {"version", "cuda"}]


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        # A patch is nearer than a minor, a minor than a Python, a Python than a channel, a channel than CUDA.
        (torch("2.10.2", cuda="12.6"), "torch==2.10.1 --cuda 12.6"),
        (torch("2.11.0", cuda="12.6", python="3.10"), "torch==2.12.0 --cuda 12.6 --python 3.10"),
        (torch("2.12.0", python="3.14"), "torch==2.13.0 --python 3.14"),
        (torch("2.10.1", python="3.14"), "torch==2.13.0 --python 3.14"),
        (torch("2.13.0", python="3.16"), "torch==2.13.0 --python 3.14"),
        (torch("2.13.0", cuda="12.6", channel="pypi"), "torch==2.10.1 --cuda 12.6 --channel pypi"),
        (torch("2.13.0", cuda="cpu", channel="pypi"), "torch==2.13.0 --cuda cpu --channel pytorch"),
        (torch("2.13.0", cuda="12.7"), "torch==2.13.0 --cuda 12.8"),
        (torch("2.13.0", cuda="13.9"), "torch==2.13.0 --cuda 13.0"),
        (torch("2.14.0", cuda="13.0"), "torch==2.13.0 --cuda 13.0"),
        # What stands beside it moves with it.
        (
            torch("2.11.0", cuda="12.6", companions=(("torchvision", "0.26.0"),), channel="pytorch"),
            "torch==2.12.0 --cuda 12.6 --channel pytorch --with torchvision==0.27.0",
        ),
        (
            torch("2.13.0", companions=(("torchvision", "0.27.0"),)),
            "torch==2.13.0 --with torchvision==0.28.0",
        ),
        # A GPU that the build has no code for asks for another build; a driver that is too old likewise.
        (torch("2.13.0", cuda="13.0", gpus=("V100",)), "torch==2.13.0 --cuda 12.8 --gpu V100"),
        (
            torch("2.13.0", cuda="13.0", gpus=("RTX 4090",), driver="570.124.06"),
            "torch==2.13.0 --cuda 12.8 --gpu 'RTX 4090' --driver 570.124.06",
        ),
        # The image alone moves when it alone is wrong.
        (
            torch("2.13.0", image="nvidia/cuda:12.4.0-cudnn-devel-ubuntu22.04"),
            "torch==2.13.0 --image nvidia/cuda:12.4.1-cudnn-devel-ubuntu22.04",
        ),
        (
            Combination(
                package="tensorflow",
                version="2.14.1",
                cuda="11.8",
                image="nvidia/cuda:12.4.1-cudnn-devel-ubuntu22.04",
                gpus=("8.9",),
            ),
            "tensorflow==2.14.1 --cuda 11.8 --gpu 8.9 --image nvidia/cuda:11.8.0-cudnn-devel-ubuntu22.04",
        ),
        (
            Combination(package="tensorflow", version="2.15.0", cuda="cpu", python="3.11"),
            "tensorflow-cpu==2.15.0 --cuda cpu --python 3.11",
        ),
        (
            Combination(package="jax", version="0.7.0", extras=("cuda13",)),
            "'jax[cuda13]==0.8.0'",
        ),
        (
            Combination(package="tensorflow", version="2.15.0", extras=("and-cuda",), python="3.10"),
            "'tensorflow[and-cuda]==2.14.1' --python 3.10",
        ),
        (
            Combination(package="mxnet", version="1.9.1", companions=(("numpy", "2.0.0"),)),
            "mxnet==1.9.1 --with numpy==1.23.5",
        ),
        # What has wheels for any Python, and works on some.
        (
            Combination(package="mxnet", version="1.9.1", python="3.12"),
            "mxnet==1.9.1 --python 3.11",
        ),
        # What is compiled has no builds, and moves all the same; beside a framework, to what is known to build with it.
        (Combination(package="horovod", version="0.29.0"), "horovod==0.28.1"),
        (
            Combination(package="horovod", version="0.29.0", cuda="12.8", python="3.12"),
            "horovod==0.28.1 --cuda 12.8 --python 3.12",
        ),
        (
            torch("2.13.0", cuda="12.8", companions=(("horovod", "0.29.0"),)),
            "torch==2.13.0 --cuda 12.8 --with horovod==0.28.1",
        ),
        (
            torch("2.13.0", companions=(("horovod", "0.27.0"),)),
            "torch==2.13.0 --with horovod==0.28.1",
        ),
        # A build for all of a major keeps the CUDA that is asked for, where that exists.
        (
            Combination(package="jax", version="0.8.0", cuda="12.4", python="3.9"),
            "jax==0.8.0 --cuda 12.4 --python 3.11",
        ),
        (Combination(package="jax", version="0.8.0", cuda="12.7"), "jax==0.8.0 --cuda 12.8"),
        (Combination(package="jax", version="0.7.0", cuda="13.0"), "jax==0.8.0 --cuda 13.0"),
        (Combination(package="cuda", version="12.7", cuda="12.7"), "cuda==12.8"),
        (
            Combination(package="cuda", version="13.0", cuda="13.0", gpus=("V100",)),
            "cuda==12.8 --gpu V100",
        ),
    ],
    ids=lambda value: describe(value) if isinstance(value, Combination) else "",
)
def test_the_closest_comes_first(asked: Combination, first: str) -> None:
    assert examine(asked, SMALL).valid is not True
    assert offered(asked)[0] == first


@pytest.mark.parametrize(
    "asked",
    [
        torch("2.13.0", gpus=("9.9",)),
        torch("2.13.0", cuda="13.0", driver="390.157", gpus=("H100",)),
        Combination(package="nothing", version="1.0"),
        Combination(package="torch"),
        # No version of Horovod builds with any release that has wheels for this Python.
        Combination(package="jax", version="0.8.0", companions=(("horovod", "0.28.1"),)),
    ],
    ids=lambda value: describe(value) if isinstance(value, Combination) else "",
)
def test_nothing_is_offered_when_nothing_works(asked: Combination) -> None:
    assert nearest(asked, SMALL) == ()


@pytest.mark.parametrize(
    "asked",
    [
        Combination(package="cuda", version="12.7", cuda="12.7", image="nvidia/cuda:12.7.0-devel-ubuntu22.04"),
        Combination(package="cuda", cuda="12.7", image="nvidia/cuda:12.7.0-devel-ubuntu22.04"),
        torch("2.13.0", cuda="12.7", image="nvidia/cuda:12.7.0-devel-ubuntu22.04"),
        torch("2.13.0", cuda="12.4", image="nvidia/cuda:12.4.1-devel-ubuntu22.04"),
        torch("2.13.0", cuda="11.8", image="nvidia/cuda:11.8.0-cudnn8-devel-ubuntu22.04"),
    ],
    ids=describe,
)
def test_an_image_that_agrees_with_the_cuda_moves_with_it(asked: Combination) -> None:
    facts = load_facts()
    answers = nearest(asked, facts)
    assert answers
    for one in answers:
        assert one.cuda not in (None, "cpu"), describe(one)
        assert str(one.image).startswith(f"nvidia/cuda:{one.cuda}."), describe(one)


def test_a_horovod_that_never_was_becomes_one_that_builds_on_the_python() -> None:
    asked = torch("2.13.0", python="3.11", companions=(("horovod", "0.29.0"),))
    assert nearest(asked, load_facts())[0] == dataclasses.replace(asked, companions=(("horovod", "0.28.1"),))


def test_an_image_that_disagrees_with_the_cuda_stays() -> None:
    asked = torch("2.13.0", cuda="12.4", image="nvidia/cuda:12.8.1-devel-ubuntu22.04")
    assert nearest(asked, load_facts())[0] == dataclasses.replace(asked, cuda="12.6")


def test_no_more_are_offered_than_asked_for() -> None:
    asked = torch(cuda="12.4", python="3.9")
    every = nearest(asked, SMALL, 50)
    assert [len(nearest(asked, SMALL, limit)) for limit in (0, 1, 2, 3)] == [0, 1, 2, 3]
    assert len(set(every)) == len(every) > 5
    assert set(nearest(asked, SMALL, 3)) <= set(every)


def test_the_shipped_tables_offer_something_for_every_cuda_and_python_of_a_release() -> None:
    facts = load_facts()
    for cuda, python in itertools.product(("11.8", "12.7", "12.8", "13.5"), ("3.8", "3.13", "3.16")):
        asked = torch("2.13.0", cuda=cuda, python=python, channel="pypi")
        answers = nearest(asked, facts)
        assert len(answers) == 3
        assert all(examine(one, facts).valid is True for one in answers)


def test_the_page_lists_every_move_with_its_cost_the_cheapest_first() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "explain.md").read_text()
    table = page.split("<!-- moves: begin -->", 1)[1].split("<!-- moves: end -->", 1)[0]
    rows = [line for line in table.splitlines() if re.match(r"\| \d", line)]
    assert rows == [f"| {move.cost} | {move.what} |" for move in MOVES]
    assert list(MOVES) == sorted(MOVES, key=lambda move: move.cost)
