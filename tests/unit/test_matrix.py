"""Expansion, and every refusal with its exact position and nearest word.

`GOOD` is valid; each bad case changes one piece of it, so it fails for that piece alone.
"""

# The table of refusals holds one case a row, however long.
# ruff: noqa: E501

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path
from types import FrameType

import jsonschema
import pytest
import yaml
from packaging.version import Version

from builder.errors import ConfigError
from builder.matrix import Channel, Level, Matrix, Policy, load_matrix
from builder.matrix.declare import declare
from builder.matrix.describe import field_tables, json_schema, json_schema_text, main, with_tables
from builder.matrix.expand import MAX_CELLS, expand
from builder.matrix.fields import MATRIX
from builder.matrix.forms import TAG_LIMIT, VERSION
from builder.matrix.judge import NoJudge
from builder.source import parse

ROOT = Path(__file__).parents[2]

GOOD = """\
version: 1
repository: imgbuild
axes:
  framework: [torch==2.13.0]
  cuda: [cpu, "13.0"]
  python: ["3.11"]
  extras:
    - [dask]
    - [horovod, dask]
bases:
  bookworm:
    image: debian:bookworm-slim
    bootstrap: {distribution: debian, suite: bookworm}
    python: ["3.11"]
  trixie:
    image: debian:trixie-slim
    python: ["3.13"]
frameworks:
  torch:
    image: pytorch
    template: pytorch.Dockerfile.j2
    constraints: constraints/torch-{version}-py{python}.txt
    channels: {cpu: pytorch-cpu}
channels:
  pytorch-cpu: https://wheels.example.org/cpu
extras:
  horovod: {packages: [horovod], version: "0.28.1", controller: gloo, named: true}
  dask: {packages: [dask, distributed]}
defaults: {base: bookworm}
tags: ["{version}-{cuda}-py{python}{extras}"]
aliases:
  latest: "*-cpu-*-horovod"
"""

IDS = [
    "torch-2.13.0-cpu-py3.11",
    "torch-2.13.0-cpu-py3.11-horovod",
    "torch-2.13.0-cuda13.0-py3.11",
    "torch-2.13.0-cuda13.0-py3.11-horovod",
]


def change(old: str, new: str, text: str = GOOD) -> str:
    assert text.count(old) == 1, f"{old!r} must occur once"
    return text.replace(old, new)


def matrix(text: str = GOOD) -> Matrix:
    return expand(declare(parse(text, "m.yaml")), Path("m.yaml"))


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        matrix(text)
    assert caught.value.exit_code == 5
    return caught.value


def schema_accepts(text: str) -> bool:
    validator = jsonschema.Draft202012Validator(json_schema())
    return validator.is_valid(yaml.safe_load(text))


def ids(found: Matrix) -> list[str]:
    return [cell.id for cell in found.cells]


# --- channels ----------------------------------------------------------------------------------

INDEXES = change(
    "channels:\n  pytorch-cpu: https://wheels.example.org/cpu",
    "channels:\n  pytorch-cpu: https://download.pytorch.org/whl/cpu\n  new: https://download.pytorch.org/whl/cu130/",
)


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("https://download.pytorch.org/whl/cpu", "cpu"),
        ("https://download.pytorch.org/whl/cu126/", "cu126"),
        ("https://download.pytorch.org/whl/nightly/cu118", "cu118"),
        ("https://download.pytorch.org/whl/cu92", "cu92"),
        ("https://download.pytorch.org/whl/rocm6.2", None),
        ("https://download.pytorch.org/whl", None),
        ("https://download.pytorch.org/whlx/cu126", None),
        ("https://wheels.example.org/cu126", None),
    ],
)
def test_the_builds_that_an_index_of_pytorch_holds(url: str, label: str | None) -> None:
    assert Channel(name="c", url=url).label == label


def test_an_index_of_pytorch_must_be_for_the_cuda_that_it_is_named_for() -> None:
    def channels(text: str) -> str:
        return change("channels: {cpu: pytorch-cpu}", f"channels: {text}", INDEXES)

    found = matrix(channels('{cpu: pytorch-cpu, "13.0": new}'))
    assert [cell.framework.channel and cell.framework.channel.name for cell in found.cells[1:3]] == [
        "pytorch-cpu",
        "new",
    ]
    error = refused(channels('{cpu: pytorch-cpu, "12.6": new}'))
    assert error.where == "m.yaml:23:42"
    assert error.message == "`new` is PyTorch's index `cu130`, and `12.6` needs `cu126`"
    assert error.hint == "define a channel for it under `channels`"
    # A CUDA that never was is a matter for the facts, and its index is named like any other.
    assert len(matrix(change("/whl/cu130/", "/whl/cu1210", channels('{"12.10": new}'))).cells) == 4
    error = refused(channels('{"13.0": pytorch-cpu}'))
    assert error.message == "`pytorch-cpu` is PyTorch's index `cpu`, and `13.0` needs `cu130`"
    assert error.hint == "did you mean `new`?"


# --- expansion ---------------------------------------------------------------------------------


def test_the_good_matrix() -> None:
    found = matrix()
    assert ids(found) == IDS
    assert found.warnings == ()
    assert found.excluded == ()
    cell = found.cells[1]
    assert (cell.framework.name, cell.framework.version) == ("torch", "2.13.0")
    assert cell.framework.constraints == "constraints/torch-2.13.0-py3.11.txt"
    assert cell.framework.channel == Channel(name="pytorch-cpu", url="https://wheels.example.org/cpu")
    assert cell.repository == "imgbuild/pytorch"
    assert cell.tags == ("2.13.0-cpu-py3.11-horovod0.28.1",)
    assert cell.aliases == ("latest",)
    assert [extra.name for extra in cell.extras] == ["horovod", "dask"]
    assert cell.base.name == "bookworm"
    assert cell.base.digest is None
    assert cell.policy == Policy(public=Level.CPU, verified=Level.CPU, max_age_days=None)
    assert str(cell.position) == "m.yaml:9:7"
    cuda = found.cells[2]
    assert cuda.cuda == "13.0"
    assert cuda.tags == ("2.13.0-cuda13.0-py3.11",)
    assert cuda.aliases == ()
    assert cuda.framework.channel is None
    assert cuda.policy == Policy(public=Level.CPU, verified=Level.GPU, max_age_days=None)


def test_expansion_is_deterministic() -> None:
    assert matrix() == matrix()


def test_extras_are_listed_in_the_order_of_their_section() -> None:
    assert matrix(change("[horovod, dask]", "[dask, horovod]")).cells == tuple(matrix().cells)


def test_values_are_frozen_all_the_way_down() -> None:
    def walk(value: object) -> None:
        if isinstance(value, tuple):
            for item in value:
                walk(item)
        elif is_dataclass(value) and not isinstance(value, type):
            for field in fields(value):
                with pytest.raises(FrozenInstanceError):
                    setattr(value, field.name, None)
                walk(getattr(value, field.name))
        else:
            assert not isinstance(value, (list, dict, set))

    walk(matrix())
    assert len({hash(cell) for cell in matrix().cells}) == 4


def test_a_base_axis_becomes_part_of_the_id() -> None:
    text = change('python: ["3.11"]\n  extras', 'python: ["3.13"]\n  base: [trixie]\n  extras')
    text = change('latest: "*-cpu-*-horovod"', "latest: torch-2.13.0-cpu-py3.13-trixie-horovod", text)
    assert ids(matrix(text))[0] == "torch-2.13.0-cpu-py3.13-trixie"


def test_include_adds_a_cell_at_its_own_position() -> None:
    text = GOOD + (
        'include:\n  - {framework: torch==2.12.0, cuda: cpu, python: "3.13", base: trixie, '
        "extras: [dask], reason: old driver}\n"
    )
    cell = matrix(text).cells[-1]
    assert cell.id == "torch-2.12.0-cpu-py3.13-trixie"
    assert cell.tags == ("2.12.0-cpu-py3.13",)
    assert str(cell.position) == "m.yaml:34:5"


@pytest.mark.parametrize(
    ("match", "left"),
    [
        ('"*-cuda*"', IDS[:2]),
        ('{cuda: "13.*"}', IDS[:2]),
        ('{cuda: "13.0", extras: horovod}', IDS[:3]),
        ("{framework: torch==2.*, cuda: cpu, extras: hor*}", [IDS[0], *IDS[2:]]),
        (IDS[3], IDS[:3]),
    ],
)
def test_exclude_keeps_the_reason(match: str, left: list[str]) -> None:
    text = change('aliases:\n  latest: "*-cpu-*-horovod"\n', "")
    text += f'exclude:\n  - match: {match}\n    reason: "no wheel: $x"\n'
    found = matrix(text)
    assert ids(found) == left
    assert [cell.id for cell in found.excluded] == [id for id in IDS if id not in left]
    assert {cell.reason for cell in found.excluded} == {"no wheel: $x"}
    assert {str(cell.by) for cell in found.excluded} == {"m.yaml:32:12"}
    assert found.warnings == ()


def test_of_several_exclusions_the_first_gives_the_reason() -> None:
    text = GOOD + 'exclude:\n  - {match: "*-cuda*", reason: one}\n  - {match: "*-horovod", reason: two}\n'
    text = change('"*-cpu-*-horovod"', "torch-2.13.0-cpu-py3.11", text)
    found = matrix(text)
    assert [cell.reason for cell in found.excluded] == ["two", "one", "one"]
    # A rule whose cells were all taken by an earlier one does match, so it is no mistake.
    covered = matrix(text + f"  - {{match: {IDS[3]}, reason: three}}\n")
    assert covered.excluded == found.excluded
    assert covered.warnings == ()


def test_overrides_that_agree_or_set_different_things_add_up() -> None:
    text = change('python: ["3.11"]\n  trixie', 'python: ["3.11"]\n  other: {image: "o:1", python: ["3.11"]}\n  trixie')
    text += (
        'overrides:\n  - {match: "*-cuda*", set: {require: {verified: multi-node}}}\n'
        '  - {match: "*-cuda*-horovod", set: {require: {verified: multi-node}}}\n'
        '  - {match: "*-horovod", set: {base: other}}\n'
        '  - {match: "*-cpu-*", set: {require: {verified: static}}}\n'
    )
    assert [(cell.policy.verified.value, cell.base.name) for cell in matrix(text).cells] == [
        ("static", "bookworm"),
        ("static", "other"),
        ("multi-node", "bookworm"),
        ("multi-node", "other"),
    ]


@pytest.mark.parametrize(
    ("defaults", "override", "cpu", "cuda"),
    [
        # Nothing is said: the strongest claim that a cell of its kind can make, and a public one without a GPU.
        (None, None, ("cpu", "cpu", None), ("cpu", "gpu", None)),
        # Each key stands for itself.
        ("max-age: 30", None, ("cpu", "cpu", 30), ("cpu", "gpu", 30)),
        ("max-age: 30", '"*-cuda*", set: {require: {public: gpu}}', ("cpu", "cpu", 30), ("gpu", "gpu", 30)),
        ("max-age: 30", '"*-cuda*", set: {require: {max-age: 7}}', ("cpu", "cpu", 30), ("cpu", "gpu", 7)),
        ("public: static", '"*-cuda*", set: {require: {public: gpu}}', ("static", "cpu", None), ("gpu", "gpu", None)),
        ("public: static", '"*-cuda*", set: {require: {verified: multi-gpu}}', ("static", "cpu", None), ("static", "multi-gpu", None)),
        # Less for `-verified` lowers what nobody said of the tags.
        (None, '"*-cpu-*", set: {require: {verified: static}}', ("static", "static", None), ("cpu", "gpu", None)),
        (None, '"*-cuda*", set: {require: {public: multi-node, verified: multi-node}}', ("cpu", "cpu", None), ("multi-node", "multi-node", None)),
    ],
)  # fmt: skip
def test_what_is_required_of_a_cell(
    defaults: str | None, override: str | None, cpu: tuple[object, ...], cuda: tuple[object, ...]
) -> None:
    text = change("{base: bookworm}", f"{{base: bookworm, require: {{{defaults}}}}}") if defaults else GOOD
    text += f"overrides: [{{match: {override}}}]\n" if override else ""
    found = [
        (cell.policy.public.value, cell.policy.verified.value, cell.policy.max_age_days) for cell in matrix(text).cells
    ]
    assert found == [cpu, cpu, cuda, cuda]
    assert schema_accepts(text)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("1200 MB", 1_200_000_000),
        ("1.2 GB", 1_200_000_000),
        ("0.5 MB", 500_000),
        ("999999.999 GB", 999_999_999_000_000),
    ],
)
def test_a_budget_is_in_decimal_units(written: str, found: int) -> None:
    text = change("{base: bookworm}", f"{{base: bookworm, budget: {written}}}")
    assert {cell.budget for cell in matrix(text).cells} == {found}
    assert schema_accepts(text)
    assert {cell.budget for cell in matrix().cells} == {None}


def test_a_budget_of_some_cells_takes_the_place_of_the_default() -> None:
    text = change("{base: bookworm}", "{base: bookworm, budget: 1 GB}")
    text += 'overrides: [{match: "*-cuda*", set: {budget: 6.5 GB}}]\n'
    assert [cell.budget for cell in matrix(text).cells] == [10**9, 10**9, 6_500_000_000, 6_500_000_000]
    assert schema_accepts(text)


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("1200MB", "write `1200 MB`"),
        ("1200 mb", "write `1200 MB`"),
        ('"1.2GB"', "write `1.2 GB`"),
        ('"1.2 G"', "write `1.2 GB`"),
        ('"1 GiB"', "units are decimal, as `docker images` prints them; for example `1200 MB` or `1.2 GB`"),
        ('"0 GB"', "for example `1200 MB` or `1.2 GB`"),
        ('"0.000 MB"', "for example `1200 MB` or `1.2 GB`"),
        ('"-1 GB"', "for example `1200 MB` or `1.2 GB`"),
        ('"1,2 GB"', "for example `1200 MB` or `1.2 GB`"),
        ('"1e3 MB"', "for example `1200 MB` or `1.2 GB`"),
        ('"1200 MB "', "write `1200 MB`"),
        ('"much"', "for example `1200 MB` or `1.2 GB`"),
    ],
)
def test_a_budget_that_is_no_size_is_refused(written: str, hint: str) -> None:
    text = change("{base: bookworm}", f"{{base: bookworm, budget: {written}}}")
    error = refused(text)
    assert error.where.startswith("m.yaml:")
    assert error.message.startswith("`budget` cannot be ")
    assert error.message.endswith("it must be a size in MB or GB")
    assert error.hint == hint
    assert not schema_accepts(text)


@pytest.mark.parametrize(
    ("first", "second", "field", "cell"),
    [
        (
            '"*-cuda*", set: {require: {verified: multi-node}}',
            '"*-cuda*-horovod", set: {require: {verified: multi-gpu}}',
            "require.verified",
            IDS[3],
        ),
        (
            '"*-cuda*", set: {require: {verified: multi-node}}',
            f"{IDS[2]}, set: {{require: {{verified: multi-gpu}}}}",
            "require.verified",
            IDS[2],
        ),
        ('"*", set: {require: {max-age: 7}}', '"*-cpu-*", set: {require: {max-age: 8}}', "require.max-age", IDS[0]),
        ('"*", set: {base: other}', '"*-cpu-*", set: {base: another}', "base", IDS[0]),
        ('"*", set: {budget: 1 GB}', '"*-cpu-*", set: {budget: 2 GB}', "budget", IDS[0]),
    ],
)
def test_overrides_that_contradict_each_other(first: str, second: str, field: str, cell: str) -> None:
    bases = '  other: {image: "o:1", python: ["3.11"]}\n  another: {image: "a:1", python: ["3.11"]}\n'
    text = change("frameworks:\n", bases + "frameworks:\n")
    rules = f"overrides:\n  - {{match: {first}}}\n  - {{match: {second}}}\n"
    error = refused(text + rules)
    one, two = (rule.rpartition(": ")[2].rstrip("}") for rule in (first, second))
    columns = [line.rindex(": ") + 3 for line in rules.splitlines()[1:]]
    assert error.where == f"m.yaml:37:{columns[1]}"
    assert error.message == (
        f"two overrides contradict each other: they set `{field}` of {cell} to `{one}` (at m.yaml:36:{columns[0]}) "
        f"and to `{two}`"
    )
    assert error.hint.startswith("narrow the glob `")
    # Each of them alone is fine.
    assert matrix(text + f"overrides:\n  - {{match: {first}}}\n").warnings == ()
    assert matrix(text + f"overrides:\n  - {{match: {second}}}\n").warnings == ()


def test_no_cycle_of_overrides_can_be_written() -> None:
    """Overrides match ids, and no override changes an id: one that seems to undo another never sees its work."""
    text = change('python: ["3.11"]\n  trixie', 'python: ["3.11"]\n  other: {image: "o:1", python: ["3.11"]}\n  trixie')
    there = '  - {match: "*-py3.11*", set: {base: other}}\n'
    back = '  - {match: "*-other*", set: {base: bookworm}}\n'
    for rules in (there + back, back + there):
        found = matrix(text + "overrides:\n" + rules)
        assert [cell.base.name for cell in found.cells] == ["other"] * 4
        assert ids(found) == IDS
        assert [warning.partition("; ")[0] for warning in found.warnings] == [
            f"m.yaml:{36 if rules.startswith(there) else 35}:13: this override matches no cell"
        ]
    # Nor does an exclude see a base that an override sets.
    text += "overrides:\n" + there + "exclude: [{match: {base: other}, reason: x}]\n"
    assert ids(matrix(text)) == IDS


def test_an_override_changes_the_base_and_not_the_id() -> None:
    text = change('python: ["3.11"]\n  extras', 'python: ["3.13"]\n  extras')
    text += 'overrides:\n  - {match: "*", set: {base: trixie}}\n'
    cell = matrix(text).cells[0]
    assert cell.id == "torch-2.13.0-cpu-py3.13"
    assert cell.base.name == "trixie"


def test_several_aliases_with_one_name_in_different_repositories() -> None:
    text = change("framework: [torch==2.13.0]", "framework: [torch==2.13.0, jax==0.10.0]")
    text = change("channels:\n  py", "  jax: {image: jax, template: j.j2, constraints: jax.txt}\nchannels:\n  py", text)
    text = change('"*-cpu-*-horovod"', '["torch-*-cpu-*-horovod", "jax-*-cpu-*-horovod"]', text)
    owners = {cell.repository for cell in matrix(text).cells if cell.aliases == ("latest",)}
    assert owners == {"imgbuild/pytorch", "imgbuild/jax"}


def test_levels_are_ordered() -> None:
    assert sorted([Level.GPU, Level.STATIC, Level.MULTI_NODE]) == [Level.STATIC, Level.GPU, Level.MULTI_NODE]
    assert Level.STATIC < Level.CPU < Level.GPU < Level.MULTI_GPU < Level.MULTI_NODE
    assert Level.GPU >= Level.GPU


def test_the_work_grows_linearly_up_to_ten_thousand_cells() -> None:
    def text(count: int) -> str:
        versions = ", ".join(f"torch==2.{n}.0" for n in range(count // 4))
        return change('"*-cpu-*-horovod"', IDS[1], change("torch==2.13.0]", f"{versions}]")).replace(
            "defaults: {base: bookworm}",
            'defaults: {base: bookworm}\nexclude: [{match: "torch-2.20.*", reason: x}]',
        )

    def calls(count: int) -> int:
        declarations = declare(parse(text(count), "m.yaml"))
        entered = 0

        def profile(frame: object, event: str, argument: object) -> None:
            nonlocal entered
            entered += event in ("call", "c_call")

        sys.setprofile(profile)
        try:
            found = expand(declarations, Path("m.yaml"))
        finally:
            sys.setprofile(None)
        assert len(found.cells) + len(found.excluded) == count
        return entered

    small, medium, large = calls(1_000), calls(2_000), calls(10_000)
    assert large - medium == pytest.approx(8 * (medium - small), rel=0.05)


def test_rules_that_match_nothing_cost_little_in_a_large_matrix() -> None:
    versions = ", ".join(f"torch==2.{n}.0" for n in range(500))
    text = change('"*-cpu-*-horovod"', "torch-2.7.0-cpu-py3.11", change("torch==2.13.0]", f"{versions}]"))
    rules = [f'  - {{match: "torch-2.*-cpu-py3.12-x{n}", reason: x}}\n' for n in range(10)]
    compared = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal compared
        compared += event == "call" and frame.f_code.co_name == "set_seq1"

    declarations = declare(parse(text + "exclude:\n" + "".join(rules), "m.yaml"))
    sys.setprofile(profile)
    try:
        found = expand(declarations, Path("m.yaml"))
    finally:
        sys.setprofile(None)
    assert len(found.cells) == 2000
    assert len(found.warnings) == len(rules)
    assert "; did you mean `torch-2." in found.warnings[0]
    # Words are compared by difflib, at most some hundreds for each rule.
    assert 0 < compared < 300 * len(rules)


def test_a_product_bomb_is_refused_before_it_expands() -> None:
    versions = ", ".join(f"torch==2.{n}.0" for n in range(3000))
    cudas = ", ".join(f'"{a}.{b}"' for a in range(1, 30) for b in range(30))
    text = change("torch==2.13.0]", f"{versions}]")
    error = refused(change('[cpu, "13.0"]', f"[{cudas}]", text))
    assert error.message == f"the axes make 5,220,000 cells, more than {MAX_CELLS:,}"
    assert error.where == "m.yaml:4:3"


# --- warnings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("addition", "warning"),
    [
        (
            "exclude:\n  - {match: torch-2.13.0-cpu-py3.12, reason: x}\n",
            "m.yaml:34:13: this `exclude` matches no cell; did you mean `torch-2.13.0-cpu-py3.11`?",
        ),
        (
            "exclude:\n  - {match: {framework: trch==2.13.0}, reason: x}\n",
            "m.yaml:34:13: this `exclude` matches no cell: no cell has `framework` `trch==2.13.0`; "
            "did you mean `torch==2.13.0`?",
        ),
        (
            'exclude:\n  - {match: {base: "book*", python: "3.9"}, reason: x}\n',
            "m.yaml:34:13: this `exclude` matches no cell: no cell has `python` `3.9`; known: 3.11",
        ),
        (
            'overrides:\n  - {match: "*-cuda12*", set: {require: {verified: gpu}}}\n',
            "m.yaml:34:13: this override matches no cell",
        ),
    ],
)
def test_rules_that_match_nothing(addition: str, warning: str) -> None:
    found = matrix(GOOD + addition)
    assert ids(found) == IDS
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith(warning)


def test_an_exclusion_whose_values_only_occur_apart() -> None:
    text = change("    - [horovod, dask]\n", "")
    text += 'include:\n  - {framework: torch==2.13.0, cuda: cpu, python: "3.11", extras: [horovod]}\n'
    text += 'exclude:\n  - {match: {cuda: "13.0", extras: horovod}, reason: x}\n'
    assert matrix(text).warnings == ("m.yaml:35:13: this `exclude` matches no cell: no cell has all of its values",)
    both = change('cuda: cpu, python: "3.11"', 'cuda: "13.0", python: "3.11"', text)
    both = change('"*-cpu-*-horovod"', IDS[0], both)
    assert matrix(both).warnings == ()


@pytest.mark.parametrize("axis", ["framework: [torch==2.13.0]", 'cuda: [cpu, "13.0"]'])
def test_an_empty_matrix_is_a_warning(axis: str) -> None:
    text = change('aliases:\n  latest: "*-cpu-*-horovod"\n', "")
    text = change(axis, f"{axis.split(':')[0]}: []", text)
    found = matrix(text)
    assert found.cells == ()
    assert found.warnings == ("m.yaml:4:3: the matrix has no cells",)


# --- refusals ----------------------------------------------------------------------------------

# (old, new, position, message, hint, whether JSON Schema can tell too)
BAD: list[tuple[str, str, str, str, str, bool]] = [
    # keys and types
    ("repository: i", "repositry: i", "2:1", "unknown key `repositry` in the file", "did you mean `repository`?", True),
    ("  cuda: [", "  cudda: [", "5:3", "unknown key `cudda` in `axes`", "did you mean `cuda`?", True),
    ("image: pytorch", "imag: pytorch", "20:5", "unknown key `imag` in `torch`", "did you mean `image`?", True),
    ("named: true", "name: true", "27:71", "unknown key `name` in `horovod`", "did you mean `named`?", True),
    ("version: 1\n", "", "1:1", "the file lacks the required key `version`", "add `version: …` to it", True),
    ("defaults: {base: bookworm}", "defaults: {}", "29:11", "`defaults` lacks the required key `base`", "add", True),
    ("version: 1\n", "version: 2\n", "1:10", "`version` is 2, but this imgbuild reads version 1", "install", True),
    ("version: 1\n", "version: '1'\n", "1:10", "`version` must be a whole number, found the string `1`", "write", True),
    ('["3.11"]\n  extras', "[3.10]\n  extras", "6:12", "item 1 of `python` must be a string, found `3.10`", 'quote it: "3.10"', True),
    ('[cpu, "13.0"]', "[cpu, 13.0]", "5:15", "item 2 of `cuda` must be a string, found `13.0`", 'quote it: "13.0"', True),
    ('version: "0.28.1"', "version: 1.0", "27:43", "`version` must be a string, found `1.0`", 'quote it: "1.0"', True),
    ("named: true", "named: yes", "27:78", "`named` must be `true` or `false`, found `yes`", "write `true`", False),
    ("    - [dask]\n", "    - dask\n", "8:7", "item 1 of `extras` must be a list, found the string", "write it as a list: [dask]", True),
    ("[torch==2.13.0]", "torch==2.13.0", "4:14", "`framework` must be a list, found the string", "write it as a list", True),
    ("[dask, distributed]", "[]", "28:20", "`packages` is an empty list", "add an item", True),
    # duplicates
    ("version: 1\n", "version: 1\nversion: 1\n", "2:1", "the key `version` occurs twice", "it stands at m.yaml:1:1", False),
    ('[cpu, "13.0"]', "[cpu, cpu]", "5:15", "`cpu` occurs twice in `cuda`", "it stands at m.yaml:5:10", True),
    ("[dask, distributed]", "[dask, dask]", "28:27", "`dask` occurs twice in `packages`", "it stands", True),
    ("- [horovod, dask]", "- []", "9:7", "the cell torch-2.13.0-cpu-py3.11 is declared twice, first at m.yaml:8:7", "they differ in extras", False),
    ("- [horovod, dask]", "- [dask]", "9:7", "the cell torch-2.13.0-cpu-py3.11 is declared twice", "remove one", False),
    # undefined names
    ("[torch==2.13.0]", "[troch==2.13.0]", "4:15", "`troch` is not defined under `frameworks`", "did you mean `torch`?", False),
    ("- [horovod, dask]", "- [horovd, dask]", "9:8", "`horovd` is not defined under `extras`", "did you mean `horovod`?", False),
    ("{base: bookworm}", "{base: bookwurm}", "29:18", "`bookwurm` is not defined under `bases`", "did you mean `bookworm`?", False),
    ("{cpu: pytorch-cpu}", "{cpu: pytorch-cpus}", "23:21", "`pytorch-cpus` is not defined under `channels`", "did you mean `pytorch-cpu`?", False),
    ("defaults:", "overrides: [{match: '*', set: {base: trixi}}]\ndefaults:", "29:38", "`trixi` is not defined under `bases`", "did you mean `trixie`?", False),
    ("defaults:", "include: [{framework: torsh==1.0, cuda: cpu, python: '3.11'}]\ndefaults:", "29:23", "`torsh` is not defined under `frameworks`", "did you mean `torch`?", False),
    # versions
    ("torch==2.13.0]", "torch]", "4:15", "item 1 of `framework` cannot be `torch`", "write it as `<name>==<exact version>`", True),
    ("torch==2.13.0]", "torch>=2.13.0]", "4:15", "item 1 of `framework` cannot be `torch>=2.13.0`", "write it as", True),
    ("torch==2.13.0]", "torch==02.13]", "4:15", "item 1 of `framework` cannot be `torch==02.13`", "write `2.13`", True),
    ("torch==2.13.0]", "torch==2.13.0+cu130]", "4:15", "item 1 of `framework` cannot be `torch==2.13.0+cu130`", "write `2.13.0`; the local part", True),
    ("torch==2.13.0]", "torch==v2.13]", "4:15", "item 1 of `framework` cannot be `torch==v2.13`", "write `2.13`", True),
    ("torch==2.13.0]", "torch==2.13.*]", "4:15", "item 1 of `framework` cannot be `torch==2.13.*`", "name one exact version", True),
    ("torch==2.13.0]", "torch===2.13]", "4:15", "item 1 of `framework` cannot be `torch===2.13`", "name one exact version", True),
    ("torch==2.13.0]", "torch==1!2.13]", "4:15", "item 1 of `framework` cannot be `torch==1!2.13`", "an epoch does not fit into a tag", True),
    ("torch==2.13.0]", "torch==2.13.0-rc1]", "4:15", "item 1 of `framework` cannot be `torch==2.13.0-rc1`", "write `2.13.0rc1`", True),
    ("torch==2.13.0]", "torch==2.13.0, torch==2.13]", "4:30", "`torch==2.13` is the release that m.yaml:4:15 calls `torch==2.13.0`", "write it in one way", False),
    ("defaults:", "include: [{framework: torch==2.13, cuda: cpu, python: '3.11'}]\ndefaults:", "29:23", "`torch==2.13` is the release that m.yaml:4:15 calls `torch==2.13.0`", "write it in one way", False),
    ("torch==2.13.0]", "torch==2.13.0, torch==2.13.0]", "4:30", "`torch==2.13.0` occurs twice in `framework`", "it stands at m.yaml:4:15", True),
    ('["3.11"]\n  extras', '["3.11", "3.11"]\n  extras', "6:20", "`3.11` occurs twice in `python`", "it stands at m.yaml:6:12", True),
    ('version: "0.28.1"', 'version: "0.28.*"', "27:43", "`version` cannot be `0.28.*`", "name one exact version", True),
    ("torch==2.13.0]", "torch==latest]", "4:15", "item 1 of `framework` cannot be `torch==latest`", "for example", True),
    ('[cpu, "13.0"]', '[cpu, "13"]', "5:15", "item 2 of `cuda` cannot be `13`", "write `12.6`, or `cpu`", True),
    ('[cpu, "13.0"]', '[cpu, "13.0.1"]', "5:15", "item 2 of `cuda` cannot be `13.0.1`", "write `13.0`", True),
    ('[cpu, "13.0"]', "[cpu, cu130]", "5:15", "item 2 of `cuda` cannot be `cu130`", "did you mean `13.0`?", True),
    # `imgbuild explain` takes it, and the axis does not.
    ('[cpu, "13.0"]', '[cpu, "130.0"]', "5:15", "item 2 of `cuda` cannot be `130.0`", "for example `cpu` or `13.0`", True),
    ('[cpu, "13.0"]', "[gpu]", "5:10", "item 1 of `cuda` cannot be `gpu`", "write `12.6`, or `cpu`", True),
    ('["3.11"]\n  extras', '["3.11.2"]\n  extras', "6:12", "item 1 of `python` cannot be `3.11.2`", "did you mean `3.11`?", True),
    ('["3.11"]\n  extras', "[py311]\n  extras", "6:12", "item 1 of `python` cannot be `py311`", "did you mean `3.11`?", True),
    ('["3.11"]\n  extras', "[3.13t]\n  extras", "6:12", "item 1 of `python` cannot be `3.13t`", "free-threaded builds cannot be named here", True),
    ('["3.11"]\n  extras', '["2.7"]\n  extras', "6:12", "item 1 of `python` cannot be `2.7`", "for example `3.11`", True),
    # hostile values
    ("repository: imgbuild", "repository: ImgBuild", "2:13", "`repository` cannot be `ImgBuild`", "for example", True),
    ("repository: imgbuild", "repository: a/../b", "2:13", "`repository` cannot be `a/../b`", "for example", True),
    ("repository: imgbuild", "repository: -v", "2:13", "`repository` cannot be `-v`", "for example", True),
    ("image: pytorch", 'image: "a\\nRUN x"', "20:12", "`image` contains the control character U+000A", "write the value on one line", True),
    ("image: pytorch", 'image: "a\\rb"', "20:12", "`image` contains the control character U+000D", "remove it", True),
    ("image: pytorch", 'image: "# syntax=evil"', "20:12", "`image` cannot be `# syntax=evil`", "for example", True),
    ("image: pytorch", "image: a/b", "20:12", "`image` cannot be `a/b`", "for example", True),
    ("image: debian:bookworm-slim", "image: '${BASE}:x'", "12:12", "`image` cannot be `${BASE}:x`", "for example", True),
    ("image: debian:bookworm-slim", "image: '`id`:x'", "12:12", "`image` cannot be ``id`:x`", "for example", True),
    ("image: debian:bookworm-slim", "image: debian", "12:12", "`image` cannot be `debian`", "add the tag", True),
    ("image: debian:bookworm-slim", "image: debian@sha256:00", "12:12", "`image` cannot be `debian@sha256:00`", "write the digest under `digest`", True),
    ("image: debian:bookworm-slim", "image: debian:x y", "12:12", "`image` cannot be `debian:x y`", "for example", True),
    ("image: debian:bookworm-slim\n", "image: debian:x\n    digest: sha256:12\n", "13:13", "`digest` cannot be `sha256:12`", "for example `sha256:0", True),
    ("template: pytorch.Dockerfile.j2", "template: ../x.j2", "21:15", "`template` cannot be `../x.j2`", "for example", True),
    ("template: pytorch.Dockerfile.j2", "template: /etc/passwd", "21:15", "`template` cannot be `/etc/passwd`", "for example", True),
    ("template: pytorch.Dockerfile.j2", "template: a/../x", "21:15", "`template` cannot be `a/../x`", "for example", True),
    ("constraints/torch-{version}-py{python}.txt", "constraints/../x.txt", "22:18", "`constraints` cannot be", "for example", True),
    ("constraints/torch-{version}-py{python}.txt", "c/{verson}.txt", "22:18", "unknown placeholder `{verson}` in `constraints`", "did you mean `version`?", True),
    ("constraints/torch-{version}-py{python}.txt", "c/{version!r}.txt", "22:18", "unknown placeholder `{version!r}` in `constraints`", "did you mean `version`?", True),
    ("constraints/torch-{version}-py{python}.txt", "'c/{version.txt'", "22:18", "`constraints` cannot be `c/{version.txt`", "for example", True),
    ("https://wheels.example.org/cpu", "http://wheels.example.org/cpu", "25:16", "`pytorch-cpu` cannot be `http:", "for example", True),
    ("https://wheels.example.org/cpu", "https://u:p@wheels.example.org", "25:16", "`pytorch-cpu` cannot be `https://u:p", "for example", True),
    ("https://wheels.example.org/cpu", "https://wheels.example.org/a/../b", "25:16", "`pytorch-cpu` cannot be", "for example", True),
    ("https://wheels.example.org/cpu", "https://wheels.example.org/$(id)", "25:16", "`pytorch-cpu` cannot be", "for example", True),
    ("[dask, distributed]", "[dask, --pre]", "28:27", "item 2 of `packages` cannot be `--pre`", "for example", True),
    ("[dask, distributed]", "[dask, 'x;id']", "28:27", "item 2 of `packages` cannot be `x;id`", "for example", True),
    ("  pytorch-cpu: h", "  Pytorch: h", "25:3", "a key of `channels` cannot be `Pytorch`", "for example", True),
    ("{cpu: pytorch-cpu}", "{cuda: pytorch-cpu}", "23:16", "a key of `channels` cannot be `cuda`", "write `12.6`, or `cpu`", True),
    ("suite: bookworm}", "suite: Bookworm}", "13:46", "`suite` cannot be `Bookworm`", "for example", True),
    ("distribution: debian", "distribution: debain", "13:31", "`distribution` cannot be `debain`", "did you mean `debian`?", True),
    ("suite: bookworm}", "suite: bookworm, include: [-y]}", "13:66", "item 1 of `include` cannot be `-y`", "for example", True),
    ("controller: gloo", "controller: glo", "27:65", "`controller` cannot be `glo`", "did you mean `gloo`?", True),
    ("  dask: {pack", "  " + "d" * 41 + ": {pack", "28:3", "a key of `extras` has 41 characters, more than 40", "shorten it", True),
    # extras
    ("packages: [horovod], ", "packages: [horovod, x], ", "27:46", "`version` can only pin a single package", "pin them", False),
    # bases and levels
    ('["3.11"]\n  extras', '["3.11", "3.13"]\n  extras', "6:20", "the base `bookworm` of torch-2.13.0-cpu-py3.13 does not carry Python 3.13", "`trixie` carries it", False),
    ('["3.11"]\n  extras', '["3.11", "3.12"]\n  extras', "6:20", "the base `bookworm` of torch-2.13.0-cpu-py3.12 does not carry Python 3.12", "no base carries it, `bookworm` carries 3.11", False),
    ("{base: bookworm}", "{base: bookworm, require: {verified: cpu}}", "29:48", "torch-2.13.0-cuda13.0-py3.11 cannot be verified at `cpu`: a CUDA cell's `-verified` needs at least `gpu`", 'add the override `{match: "*-cuda*", set: {require: {verified: gpu}}}`', False),
    ("{base: bookworm}", "{base: bookworm, require: {verified: gpu}}", "29:48", "torch-2.13.0-cpu-py3.11 cannot be verified at `gpu`: a CPU cell has no GPU", 'add the override `{match: "*-cpu-*", set: {require: {verified: cpu}}}`', False),
    ("{base: bookworm}", "{base: bookworm, require: {public: gpu}}", "29:46", "torch-2.13.0-cpu-py3.11 cannot be public at `gpu`: a CPU cell has no GPU", 'add the override `{match: "*-cpu-*", set: {require: {public: cpu}}}`', False),
    ("{base: bookworm}", "{base: bookworm, require: {verified: gpus}}", "29:48", "`verified` cannot be `gpus`", "did you mean `gpu`?", True),
    ("{base: bookworm}", "{base: bookworm, require: {}}", "29:37", "`require` is an empty mapping", "known: public, verified, max-age", True),
    ("{base: bookworm}", "{base: bookworm, require: gpu}", "29:37", "`require` must be a mapping, found the string `gpu`", "", True),
    ("{base: bookworm}", "{base: bookworm, require: {verifed: gpu}}", "29:38", "unknown key `verifed` in `require`", "did you mean `verified`?", True),
    ("{base: bookworm}", "{base: bookworm, require: {max-age: 0}}", "29:47", "`max-age` cannot be 0: it must be a number of days from 1 to 3650", "for example `30`", True),
    ("{base: bookworm}", "{base: bookworm, require: {max-age: -1}}", "29:47", "`max-age` cannot be -1", "for example `30`", True),
    ("{base: bookworm}", "{base: bookworm, require: {max-age: 3651}}", "29:47", "`max-age` cannot be 3651", "remove it where the age does not matter", True),
    ("{base: bookworm}", "{base: bookworm, require: {max-age: 30d}}", "29:47", "`max-age` must be a whole number, found the string `30d`", "", True),
    ("{base: bookworm}", "{base: bookworm, require: {max-age: 1.5}}", "29:47", "`max-age` must be a whole number", "", True),
    ("{base: bookworm}", "{base: bookworm, verify: cpu}", "29:28", "`defaults` no longer takes `verify`", "write `require: {verified: …}`", True),
    ("defaults:", 'overrides: [{match: "*", set: {verify: gpu}}]\ndefaults:', "29:32", "`set` no longer takes `verify`", "write `require: {verified: …}`", True),
    ("defaults:", 'overrides: [{match: "*", set: {require: {verified: static}}}]\ndefaults:', "29:52", "torch-2.13.0-cuda13.0-py3.11 cannot be verified at `static`", "narrow the override's glob", False),
    ("defaults:", 'overrides: [{match: "*", set: {require: {public: multi-gpu}}}]\ndefaults:', "29:50", "torch-2.13.0-cpu-py3.11 cannot be public at `multi-gpu`", "narrow the override's glob", False),
    ("defaults:", 'overrides: [{match: "*-cuda*", set: {require: {public: multi-gpu}}}]\ndefaults:', "29:56", "torch-2.13.0-cuda13.0-py3.11 would need `multi-gpu` for its tags, and only `gpu` for the same with `-verified`", "let `public` be at most `gpu`, or raise `verified`", False),
    ("defaults:", 'overrides: [{match: "*-cpu-*", set: {require: {public: cpu, verified: static}}}]\ndefaults:', "29:56", "torch-2.13.0-cpu-py3.11 would need `cpu` for its tags, and only `static`", "let `public` be at most `static`", False),
    ("defaults:", 'overrides: [{match: "*", set: {}}]\ndefaults:', "29:31", "`set` is an empty mapping", "known: base, require", True),
    # exclude
    ("defaults:", 'exclude: [{match: "*"}]\ndefaults:', "29:11", "item 1 of `exclude` lacks the required key `reason`", "add", True),
    ("defaults:", 'exclude: [{match: "*", reason: ""}]\ndefaults:', "29:32", "`reason` is an empty string", "give", True),
    ("defaults:", "exclude: [{match: {pyton: '3.11'}, reason: x}]\ndefaults:", "29:20", "unknown key `pyton` in `match`", "did you mean `python`?", True),
    ("defaults:", "exclude: [{match: {}, reason: x}]\ndefaults:", "29:19", "`match` is an empty mapping", "known: framework", True),
    ("defaults:", "exclude: [{match: {python: 3.11}, reason: x}]\ndefaults:", "29:28", "`python` must be a string, found `3.11`", 'quote it: "3.11"', True),
    ("defaults:", "exclude: [{match: 'a b', reason: x}]\ndefaults:", "29:19", "`match` cannot be `a b`", "for example", True),
    # tags and aliases
    ("py{python}{extras}", "py{pyton}{extras}", "30:8", "unknown placeholder `{pyton}` in item 1 of `tags`", "did you mean `python`?", True),
    ("py{python}{extras}", "py{python}", "30:8", "imgbuild/pytorch:2.13.0-cpu-py3.11 would be both torch-2.13.0-cpu-py3.11 and torch-2.13.0-cpu-py3.11-horovod", "add `{extras}` to `tags`", False),
    ("-{cuda}-", "-", "30:8", "imgbuild/pytorch:2.13.0-py3.11 would be both", "add `{cuda}` to `tags`", False),
    ('["{version}-', '["{extras}{version}-', "30:8", "`{extras}{version}-{cuda}-py{python}{extras}` renders `-horovod0.28.1", "for example", False),
    ('["{version}-', '["-{version}-', "30:8", "item 1 of `tags` cannot be", "for example", True),
    ('["{version}-', '["a..b{version}-', "30:8", "item 1 of `tags` cannot be", "for example", True),
    ('{extras}"]', '{extras}-verified"]', "30:8", "`{version}-{cuda}-py{python}{extras}-verified` renders", "for example", False),
    ('["{version}-', '["' + "x" * 70 + "{version}{version}{version}{version}{version}-", "30:8", "the tag `xxx", "a tag has at most 128 characters", False),
    ('{extras}"]', '{extras}", "{version}-{cuda}-py{python}{extras}"]', "30:47", "`{version}-{cuda}-py{python}{extras}` occurs twice in `tags`", "it stands at m.yaml:30:8", True),
    ('{extras}"]', '{extras}", "2.13.0-{cuda}-py{python}{extras}"]', "30:47", "imgbuild/pytorch:2.13.0-cpu-py3.11 is given to torch-2.13.0-cpu-py3.11 twice", "remove one", False),
    ("  latest:", "  La test:", "32:3", "a key of `aliases` cannot be `La test`", "for example `latest`", True),
    ("  latest:", "  latest-verified:", "32:3", "a key of `aliases` cannot be `latest-verified`", "for example `latest`", True),
    ('"*-cpu-*-horovod"', '"*-cpu-*"', "32:11", "the alias `latest` matches 2 cells, not one: torch-2.13.0-cpu-py3.11, torch-2.13.0-cpu-py3.11-horovod", "narrow the glob", False),
    ('"*-cpu-*-horovod"', "torch-2.13.0-cpu-py3.11-horovd", "32:11", "the alias `latest` matches no cell: `torch-2.13.0-cpu-py3.11-horovd`", "did you mean `torch-2.13.0-cpu-py3.11-horovod`?", False),
    ("defaults:", 'exclude: [{match: "*-cpu-*-horovod", reason: too old}]\ndefaults:', "33:11", "the alias `latest` points to the excluded cell torch-2.13.0-cpu-py3.11-horovod: too old", "it is excluded at m.yaml:29:19", False),
    ("  latest:", "  2.13.0-cuda13.0-py3.11:", "32:3", "imgbuild/pytorch:2.13.0-cuda13.0-py3.11 would be both torch-2.13.0-cuda13.0-py3.11 and torch-2.13.0-cpu-py3.11-horovod", "choose another name", False),
    ('"*-cpu-*-horovod"', f"[{IDS[0]}, {IDS[1]}]", "32:3", "imgbuild/pytorch:latest would be both", "choose another name", False),
    ('"*-cpu-*-horovod"', f'["*-cpu-*-horovod", {IDS[1]}]', "32:3", f"imgbuild/pytorch:latest is given to {IDS[1]} twice", "remove one", False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "position", "message", "hint", "schema_refuses"),
    BAD,
    ids=[f"{number}-{case[3][:40]}" for number, case in enumerate(BAD)],
)
def test_refused(old: str, new: str, position: str, message: str, hint: str, schema_refuses: bool) -> None:
    text = change(old, new)
    error = refused(text)
    assert error.where == f"m.yaml:{position}"
    assert error.message.startswith(message)
    assert error.hint.startswith(hint)
    assert schema_accepts(text) is not schema_refuses


def test_an_override_cannot_make_an_id_untrue() -> None:
    text = change('"3.11"]\n  extras', '"3.13"]\n  base: [trixie]\n  extras')
    text = change('"*-cpu-*-horovod"', "torch-2.13.0-cpu-py3.13-trixie-horovod", text)
    assert matrix(text).cells
    error = refused(text + 'overrides: [{match: "*", set: {base: bookworm}}]\n')
    assert error.where == "m.yaml:34:38"
    assert error.message == "`bookworm` cannot replace the base of torch-2.13.0-cpu-py3.13-trixie, whose id names it"


def test_two_bases_that_differ_only_there_need_it_in_the_tag() -> None:
    text = change('python: ["3.11"]\n  trixie', 'python: ["3.11", "3.13"]\n  trixie')
    text = change('python: ["3.13"]', 'python: ["3.11", "3.13"]', text)
    text = change('"3.11"]\n  extras', '"3.11"]\n  base: [bookworm, trixie]\n  extras', text)
    text = change('"*-cpu-*-horovod"', IDS[1], text)
    error = refused(text)
    assert error.hint == "add `{base}` to `tags`"
    assert len(matrix(change("py{python}{extras}", "py{python}-{base}{extras}", text)).cells) == 8


def test_the_longest_tag_leaves_room_for_verified() -> None:
    rendered = "2.13.0-cuda13.0-py3.11-horovod0.28.1"
    room = TAG_LIMIT - len(rendered)
    longest = matrix(change('["{version}-', '["' + "x" * room + "{version}-"))
    assert max(len(cell.tags[0] + "-verified") for cell in longest.cells) == 128
    assert "more than 119" in refused(change('["{version}-', '["' + "x" * (room + 1) + "{version}-")).message


def test_versions_in_normal_form_are_what_packaging_prints() -> None:
    for text in ("2.13.0", "1.0rc1", "1.0a2", "2.0.post1", "1.0.dev3", "1", "2024.1"):
        assert VERSION.matches(text)
        assert str(Version(text)) == text
    for text in ("v1.0", "1.0-rc1", "1.0.RC1", "1!1.0", "1.0+x", "2024.01", "1.0.", ""):
        assert not VERSION.matches(text)


# --- the repository's own files ----------------------------------------------------------------


def test_load_matrix_takes_another_repository(tmp_path: Path) -> None:
    path = tmp_path / "matrix.yaml"
    path.write_text(GOOD)
    found = load_matrix(path, repository="localhost:5000/test-1", judge=NoJudge())
    assert {cell.repository for cell in found.cells} == {"localhost:5000/test-1/pytorch"}
    assert ids(found) == ids(load_matrix(path, judge=NoJudge()))
    assert found.path == path
    for bad in ("Upper", "a b", "a/../b", "", "-x", "x:latest", "a\n"):
        with pytest.raises(ConfigError, match="is not an image repository") as caught:
            load_matrix(path, repository=bad)
        assert caught.value.where == "repository"


def test_the_default_matrix_loads_without_warnings() -> None:
    found = load_matrix(ROOT / "matrix.yaml")
    assert found.cells
    assert found.warnings == ()
    assert schema_accepts((ROOT / "matrix.yaml").read_text(encoding="utf-8"))


def test_the_default_matrix_names_its_schema_for_editors() -> None:
    first = (ROOT / "matrix.yaml").read_text(encoding="utf-8").splitlines()[0]
    prefix = "# yaml-language-server: $schema="
    assert first.startswith(prefix)
    assert (ROOT / first.removeprefix(prefix)).is_file()


def test_the_schema_is_a_valid_schema_and_accepts_the_good_matrix() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert schema_accepts(GOOD)


def test_the_committed_schema_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    printed = capsys.readouterr().out
    assert printed == json_schema_text()
    assert json.loads(printed) == json_schema()
    # `python -m builder.matrix.describe schema > docs/matrix.schema.json` renews it.
    assert (ROOT / "docs/matrix.schema.json").read_text(encoding="utf-8") == printed


def test_the_documented_fields_are_current(tmp_path: Path) -> None:
    document = (ROOT / "docs/matrix.md").read_text(encoding="utf-8")
    assert field_tables() in document
    # `python -m builder.matrix.describe docs docs/matrix.md` renews them.
    assert with_tables(document) == document
    stale = tmp_path / "matrix.md"
    stale.write_text(document.replace("The version of this schema.", "Stale."), encoding="utf-8")
    assert main(["docs", str(stale)]) == 0
    assert stale.read_text(encoding="utf-8") == document


def test_describe_refuses_other_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("usage:")


def test_the_documented_error_is_real() -> None:
    document = (ROOT / "docs/matrix.md").read_text(encoding="utf-8")
    error = refused(change("[torch==2.13.0]", "[troch==2.13.0]"))
    shown = str(error).replace("m.yaml:4:15", "matrix.yaml:9:15")
    assert f"```\n{shown}\n```" in document


def test_every_field_is_documented_and_every_optional_one_says_what_holds_without_it() -> None:
    for record in MATRIX.records():
        assert record.doc
        for field in record.fields:
            assert field.doc
            assert field.example
            assert field.required is (field.default == "")


def test_importing_the_matrix_stays_light() -> None:
    program = "import sys, builder.matrix\nprint(sorted({'docker', 'jinja2', 'h2', 'requests'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
