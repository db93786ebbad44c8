"""What facts do to a matrix. The judge here is a small one of the tests' own; the tables have tests of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

import pytest

from builder.compat.model import Combination, Finding, Reason
from builder.errors import ConfigError, ImgbuildError, Impossible, NotKnown
from builder.matrix import Base, Bootstrap, Channel, Extra, Framework, Matrix, refuse_judged, select, select_left_out
from builder.matrix.declare import declare
from builder.matrix.expand import expand
from builder.matrix.judge import Asking, Subject, describe
from builder.source import parse

TEXT = """\
version: 1
repository: imgbuild
axes:
  framework: [torch==2.13.0]
  cuda: [cpu, "13.0"]
  python: ["3.11", "3.13"]
bases:
  both: {image: "debian:trixie-slim", python: ["3.11", "3.13"]}
  old: {image: "debian:bookworm-slim", python: ["3.11"]}
frameworks:
  torch: {image: pytorch, template: t.j2, channels: {cpu: cpu}}
channels:
  cpu: https://download.pytorch.org/whl/cpu
extras:
  horovod: {packages: [horovod], version: "0.28.1", named: true}
defaults: {base: both}
tags: ["{version}-{cuda}-py{python}{extras}"]
"""
CPU311, CPU313, CUDA311, CUDA313 = (
    "torch-2.13.0-cpu-py3.11",
    "torch-2.13.0-cpu-py3.13",
    "torch-2.13.0-cuda13.0-py3.11",
    "torch-2.13.0-cuda13.0-py3.13",
)


def reason(rule: str) -> Reason:
    return Reason(rule=rule, message=f"the message of {rule}", source=f"the source of {rule}")


class Teller:
    """Finds what the test says: by the values that a combination must have, (kind, rule)."""

    def __init__(self, *rules: tuple[dict[str, object], str, str]) -> None:
        self.rules = rules
        self.asked: list[Combination] = []

    def projects(self) -> Collection[str]:
        return ("torch", "tensorflow", "horovod", "dask")

    def system(self, word: str) -> str | None:
        return {"bookworm": "debian 12", "trixie": "debian 13", "ubuntu 22.04": "ubuntu 22.04"}.get(word)

    def examine(self, combination: Combination) -> Finding:
        self.asked.append(combination)
        found: dict[str, list[Reason]] = {"forbidden": [], "unknown": [], "warnings": []}
        for values, kind, rule in self.rules:
            if all(getattr(combination, name) == value for name, value in values.items()):
                found[kind].append(reason(rule))
        return Finding(**{kind: tuple(reasons) for kind, reasons in found.items()})

    def nearest(self, combination: Combination) -> tuple[Combination, ...]:
        return (Combination(package="torch", version="2.13.0", cuda="12.6", python="3.12", channel="pytorch"),)


FORBIDS = Teller(({"package": "torch", "cuda": "13.0", "python": "3.13"}, "forbidden", "no-wheel"))
DOUBTS = Teller(({"package": "torch", "cuda": "13.0", "python": "3.13"}, "unknown", "too-new"))
BOTH = Teller(*FORBIDS.rules, ({"package": "torch", "cuda": "13.0", "python": "3.11"}, "unknown", "too-new"))
NEAREST = "nearest that works: torch 2.13.0, CUDA 12.6, Python 3.12, from pytorch"


def matrix(text: str = TEXT, judge: Teller | None = None, *, assume_new: bool = False) -> Matrix:
    return expand(declare(parse(text, "m.yaml")), Path("m.yaml"), judge=judge, assume_new=assume_new)


def refused(text: str, judge: Teller, kind: type[ImgbuildError]) -> ImgbuildError:
    with pytest.raises(kind) as caught:
        matrix(text, judge)
    return caught.value


def ids(found: Matrix) -> list[str]:
    return [cell.id for cell in found.cells]


def change(old: str, new: str, text: str = TEXT) -> str:
    assert text.count(old) == 1, f"{old!r} must occur once"
    return text.replace(old, new)


# --- what becomes of a cell --------------------------------------------------------------------


def test_without_facts_against_it_everything_is_a_cell() -> None:
    found = matrix(judge=Teller())
    assert ids(found) == [CPU311, CPU313, CUDA311, CUDA313]
    assert (found.impossible, found.unknown, found.warnings) == ((), (), ())
    assert {cell.cautions for cell in found.cells} == {()}


def test_what_facts_forbid_is_no_cell_and_keeps_its_reason() -> None:
    found = matrix(judge=FORBIDS)
    assert ids(found) == [CPU311, CPU313, CUDA311]
    (cell,) = found.impossible
    assert (cell.id, cell.reasons, str(cell.position)) == (CUDA313, (reason("no-wheel"),), "m.yaml:4:15")
    assert (cell.axes.cuda, cell.axes.python) == ("13.0", "3.13")
    assert (found.unknown, found.excluded, found.warnings) == ((), (), ())


def test_what_facts_do_not_reach_is_no_cell_unless_new_things_are_assumed_to_work() -> None:
    found = matrix(judge=DOUBTS)
    assert ids(found) == [CPU311, CPU313, CUDA311]
    assert [(cell.id, cell.reasons) for cell in found.unknown] == [(CUDA313, (reason("too-new"),))]
    assumed = matrix(judge=DOUBTS, assume_new=True)
    assert ids(assumed) == [CPU311, CPU313, CUDA311, CUDA313]
    assert assumed.unknown == ()
    assert assumed.cells[3].cautions == (reason("too-new"),)


def test_assuming_new_things_to_work_does_not_make_the_impossible_possible() -> None:
    judge = Teller(*FORBIDS.rules, *DOUBTS.rules)
    for assume_new in (False, True):
        found = matrix(judge=judge, assume_new=assume_new)
        assert [cell.id for cell in found.impossible] == [CUDA313]
        assert found.unknown == ()


def test_warnings_stay_with_their_cell_and_are_none_of_the_matrix() -> None:
    found = matrix(judge=Teller(({"python": "3.11", "package": "torch"}, "warnings", "end-of-life")))
    assert [cell.cautions for cell in found.cells] == [(reason("end-of-life"),), ()] * 2
    assert found.warnings == ()


def test_an_impossible_cell_needs_no_base_that_carries_its_python() -> None:
    text = change('old: {image: "debian:bookworm-slim", python: ["3.11"]}', "old: {image: 'o:1', python: ['3.12']}")
    text = change('python: ["3.11", "3.13"]}', 'python: ["3.11"]}', text)
    with pytest.raises(ConfigError, match=r"does not carry Python 3\.13"):
        matrix(text, Teller())
    assert ids(matrix(text, Teller(({"package": "torch", "python": "3.13"}, "forbidden", "x")))) == [CPU311, CUDA311]


def test_excluded_cells_are_not_judged() -> None:
    text = TEXT + 'exclude: [{match: {python: "3.13"}, reason: mine}]\n'
    found = matrix(text, FORBIDS)
    assert [cell.id for cell in found.excluded] == [CPU313, CUDA313]
    assert found.impossible == ()


def test_a_cell_is_judged_with_the_base_that_overrides_give_it() -> None:
    judge = Teller(({"system": "debian 12"}, "forbidden", "glibc"))
    assert matrix(judge=judge).impossible == ()
    text = TEXT + 'overrides: [{match: "*-cpu-py3.11", set: {base: old}}]\n'
    found = matrix(text, judge)
    assert [cell.id for cell in found.impossible] == [CPU311]
    assert found.warnings == ()


@pytest.mark.parametrize(("axis", "alone"), [("cuda", "12.7"), ("python", "3.99")])
@pytest.mark.parametrize("kind", ["forbidden", "unknown"])
def test_a_number_that_never_was_is_a_warning_at_its_place(axis: str, alone: str, kind: str) -> None:
    old = {"cuda": '[cpu, "13.0"]', "python": '["3.11", "3.13"]\nb'}[axis]
    text = change(old, old.replace('"13.0"', f'"13.0", "{alone}"').replace('"3.13"', f'"3.13", "{alone}"'))
    judge = Teller(({axis: alone}, kind, "never-was"))
    found = matrix(text, judge)
    line = {"cuda": 5, "python": 6}[axis]
    column = text.splitlines()[line - 1].index(f'"{alone}"') + 1
    assert found.warnings == (f"m.yaml:{line}:{column}: the message of never-was",)
    assert {getattr(cell.axes, axis) for cell in (*found.impossible, *found.unknown)} == {alone}
    assert ids(found) == [CPU311, CPU313, CUDA311, CUDA313]


def test_a_release_that_never_was_is_a_warning_at_its_place_and_is_said_once() -> None:
    text = change("[torch==2.13.0]", "[torch==2.13.0, torch==2.12.7, torch==2.12.8]")
    judge = Teller(
        ({"version": "2.12.7", "cuda": None}, "forbidden", "never-was"),
        ({"version": "2.12.8", "cuda": None}, "unknown", "never-was"),
    )
    assert matrix(text, judge).warnings == ("m.yaml:4:30: the message of never-was",)
    assert matrix(text, Teller()).warnings == ()
    none = change("template: t.j2", "template: t.j2, facts: none", text)
    assert matrix(none, judge).warnings == ()


def test_what_is_assumed_to_work_is_no_mistake() -> None:
    text = change("[torch==2.13.0]", "[torch==2.13.0, torch==99.0]")
    for kind, count in (("unknown", 0), ("forbidden", 1)):
        judge = Teller(({"version": "99.0", "cuda": None}, kind, "far"))
        assert len(matrix(text, judge).warnings) == 1
        assert len(matrix(text, judge, assume_new=True).warnings) == count


# --- what names a combination must mean a cell -------------------------------------------------

INCLUDE = 'include:\n  - {framework: torch==2.13.0, cuda: "13.0", python: "3.13"}\n'
NARROW = change('cuda: [cpu, "13.0"]', "cuda: [cpu]")


@pytest.mark.parametrize(
    ("judge", "kind", "code", "text"),
    [
        (FORBIDS, Impossible, 3, "impossible: the message of no-wheel"),
        (DOUBTS, NotKnown, 4, "not known to work: the message of too-new"),
    ],
)
def test_an_include_must_be_possible(judge: Teller, kind: type[ImgbuildError], code: int, text: str) -> None:
    error = refused(NARROW + INCLUDE, judge, kind)
    assert error.exit_code == code
    assert error.where == "m.yaml:19:5"
    assert error.message == f"the included cell {CUDA313} is {text}"
    assert NEAREST in error.hint
    assert ("--assume-new" in error.hint) is (kind is NotKnown)
    assert ids(matrix(NARROW + INCLUDE, Teller())) == [CPU311, CPU313, CUDA313]
    assert len(matrix(NARROW + INCLUDE, DOUBTS, assume_new=True).cells) == 3
    excluded = matrix(NARROW + INCLUDE + "exclude: [{match: '*-cuda*', reason: x}]\n", judge)
    assert ids(excluded) == [CPU311, CPU313]


@pytest.mark.parametrize(
    ("judge", "kind", "text"),
    [
        (FORBIDS, Impossible, "impossible: the message of no-wheel"),
        (DOUBTS, NotKnown, "not known to work: the message of too-new"),
    ],
)
@pytest.mark.parametrize("glob", [CUDA313, '"*-cuda*-py3.13"'])
def test_an_alias_must_point_to_a_cell(judge: Teller, kind: type[ImgbuildError], text: str, glob: str) -> None:
    aliases = f"aliases:\n  latest: {glob}\n"
    error = refused(TEXT + aliases, judge, kind)
    assert error.where == "m.yaml:19:11"
    assert error.message == f"the alias `latest` matches no cell: {CUDA313} is {text}"
    assert matrix(TEXT + aliases, Teller()).cells[3].aliases == ("latest",)


def test_an_alias_that_also_matches_a_cell_means_that_one() -> None:
    found = matrix(TEXT + 'aliases:\n  latest: "*-cuda*"\n', FORBIDS)
    assert [cell.aliases for cell in found.cells] == [(), (), ("latest",)]


@pytest.mark.parametrize(
    ("selected", "kind", "message"),
    [
        ((CUDA313,), Impossible, f"the cell {CUDA313} is impossible: the message of no-wheel"),
        ((CUDA311,), NotKnown, f"the cell {CUDA311} is not known to work: the message of too-new"),
        (
            ("*-cuda*",),
            NotKnown,
            f"the cell {CUDA311} is not known to work: the message of too-new; "
            "and 1 more that this selects are not cells either",
        ),
    ],
)
def test_asking_only_for_what_cannot_be_is_refused_with_the_reason(
    selected: tuple[str, ...], kind: type[ImgbuildError], message: str
) -> None:
    found = matrix(judge=BOTH)
    assert select(found, selected).cells == ()
    with pytest.raises(kind) as caught:
        refuse_judged(found, selected, judge=BOTH)
    assert caught.value.message == message
    assert caught.value.where == "m.yaml:4:15"
    assert NEAREST in caught.value.hint
    assert "the source of " in caught.value.hint
    # What does not exist at all is not refused for facts.
    refuse_judged(found, ["no-such-cell"], judge=BOTH)


def test_selection_chooses_what_is_left_out_by_the_same_arguments() -> None:
    found = matrix(judge=BOTH)
    left_out = select_left_out(found, [], only=["cuda=13.0"])
    assert ([cell.id for cell in left_out.impossible], [cell.id for cell in left_out.unknown]) == ([CUDA313], [CUDA311])
    left_out = select_left_out(found, [], only=["python=3.11"])
    assert ([cell.id for cell in left_out.impossible], [cell.id for cell in left_out.unknown]) == ([], [CUDA311])


def test_a_pattern_that_matches_only_the_impossible_says_so() -> None:
    assert select(matrix(judge=FORBIDS), [CUDA313, CPU311]).warnings == (
        f"`{CUDA313}` matches only impossible cells: {CUDA313}: the message of no-wheel",
    )
    assert select(matrix(judge=Teller()), [CUDA313, CPU311]).warnings == ()


def test_a_term_that_matches_only_what_is_no_cell_says_so() -> None:
    text = TEXT + 'exclude: [{match: {cuda: cpu, python: "3.13"}, reason: mine}]\n'
    assert select(matrix(text, FORBIDS), [], only=["python=3.13"]).warnings == (
        f"`python=3.13` matches only excluded and impossible cells: {CPU313} is excluded at m.yaml:18:19: mine",
    )
    assert select(matrix(judge=DOUBTS), [], only=["cuda=13.0"]).warnings == ()
    assert select(matrix(judge=FORBIDS), [], skip=["*-cuda*-py3.13"]).warnings == (
        f"`*-cuda*-py3.13` matches only impossible cells: {CUDA313}: the message of no-wheel",
    )


# --- what is asked -----------------------------------------------------------------------------


def subject(
    *,
    facts: str = "torch",
    cuda: str = "13.0",
    url: str | None = None,
    image: str = "debian:bookworm-slim",
    suite: str | None = None,
    extras: tuple[Extra, ...] = (),
) -> Subject:
    channel = Channel(name="c", url=url) if url is not None else None
    bootstrap = Bootstrap(distribution="debian", suite=suite, include=()) if suite is not None else None
    return Subject(
        facts=facts,
        framework=Framework(
            name="torch", version="2.13.0", image="pytorch", template="t", constraints=None, channel=channel
        ),
        cuda=cuda,
        python="3.12",
        base=Base(name="b", image=image, digest=None, bootstrap=bootstrap, pythons=("3.12",)),
        extras=extras,
    )


@pytest.mark.parametrize(
    ("url", "channel"),
    [
        (None, "pypi"),
        ("https://download.pytorch.org/whl", "pytorch"),
        ("https://download.pytorch.org/whl/cu130", "pytorch"),
        ("https://download.pytorch.org/whl/cu130/", "pytorch"),
        ("https://download.pytorch.org/whlx/cu130", None),
        ("https://wheels.example.org/whl/cu130", None),
    ],
)
def test_the_channel_that_is_asked_about(url: str | None, channel: str | None) -> None:
    assert Asking(Teller()).combination(subject(url=url)).channel == channel


@pytest.mark.parametrize(
    ("image", "suite", "system", "cuda_image"),
    [
        ("debian:bookworm-slim", None, "debian 12", None),
        ("debian:bookworm-20260101-slim", None, "debian 12", None),
        ("registry.example.org:5000/mirror/debian:trixie", None, "debian 13", None),
        ("ubuntu:22.04", None, "ubuntu 22.04", None),
        ("python:3.12-slim-bookworm", None, "debian 12", None),
        ("example/own:1", "trixie", "debian 13", None),
        ("example/own:1", None, None, None),
        ("nvidia/cuda:13.0.1-devel-ubuntu22.04", None, "ubuntu 22.04", "nvidia/cuda:13.0.1-devel-ubuntu22.04"),
        ("docker.io/nvidia/cuda:13.0.1-base-rockylinux8", None, None, "nvidia/cuda:13.0.1-base-rockylinux8"),
        ("registry.example.org/nvidia/cuda:13.0.1-base-ubuntu22.04", None, "ubuntu 22.04", None),
        ("example/cuda:1-ubuntu99.04", None, None, None),
    ],
)
def test_the_base_that_is_asked_about(
    image: str, suite: str | None, system: str | None, cuda_image: str | None
) -> None:
    asked = Asking(Teller()).combination(subject(image=image, suite=suite))
    assert (asked.system, asked.image) == (system, cuda_image)


def test_extras_are_asked_about_as_companions_where_there_is_something_to_ask() -> None:
    extras = (
        Extra(name="h", packages=("Horovod",), version="0.28.1", controller="gloo", named=True),
        Extra(name="d", packages=("dask", "unheard-of"), version=None, controller=None, named=False),
        Extra(name="p", packages=("Unheard_of.too",), version="1.0", controller=None, named=False),
        Extra(name="again", packages=("horovod",), version=None, controller=None, named=False),
    )
    asked = Asking(Teller()).combination(subject(extras=extras))
    assert asked.companions == (("dask", None), ("horovod", "0.28.1"), ("unheard-of-too", "1.0"))
    assert (asked.package, asked.version, asked.cuda, asked.python) == ("torch", "2.13.0", "13.0", "3.12")


def test_a_framework_without_facts_is_judged_only_by_what_surrounds_it() -> None:
    asking = Asking(Teller())
    image = "nvidia/cuda:13.0.1-devel-ubuntu22.04"
    expected = Combination(package="cuda", cuda="13.0", python="3.12", image=image, system="ubuntu 22.04")
    assert asking.combination(subject(facts="none", image=image)) == expected
    assert asking.combination(subject(facts="none", cuda="cpu")).cuda is None
    assert asking.combination(subject(facts="none", cuda="cpu")).version is None


def test_facts_names_another_project_or_none() -> None:
    def asked(value: str) -> set[str]:
        judge = Teller()
        text = change("template: t.j2", f"template: t.j2, facts: {value}")
        assert len(matrix(text, judge).cells) == 4
        return {combination.package for combination in judge.asked if combination.version or combination.system}

    assert asked("tensorflow") == {"tensorflow"}
    assert asked("none") == {"cuda"}


def test_facts_that_there_are_none_about() -> None:
    error = refused(change("template: t.j2", "template: t.j2, facts: tensroflow"), Teller(), ConfigError)
    assert error.where == "m.yaml:11:50"
    assert error.message == "there are no facts about `tensroflow`"
    assert error.hint == "did you mean `tensorflow`? Or write `none`"


def test_combinations_in_words() -> None:
    asked = Combination(
        package="torch",
        version="2.13.0",
        cuda="13.0",
        companions=(("dask", None), ("torchaudio", "2.9.0"), ("torchvision", "0.1")),
        channel="pypi",
        image="nvidia/cuda:1",
        system="debian 12",
    )
    near = dataclasses.replace(
        asked,
        cuda="cpu",
        python="3.12",
        companions=(("dask", None), ("torchaudio", "2.9.0"), ("torchvision", "0.28.0")),
    )
    assert describe(near, asked) == "torch 2.13.0, CPU, Python 3.12, torchvision 0.28.0"
    other = dataclasses.replace(asked, channel="pytorch", image="nvidia/cuda:2")
    assert describe(other, asked) == "torch 2.13.0, CUDA 13.0, nvidia/cuda:2, from pytorch"
    assert describe(Combination(package="cuda"), asked) == "cuda"
