"""`imgbuild explain`: what users may type, what it answers, how it ends, and that its page says the same."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from small_facts import SMALL

from builder.cli import cli
from builder.compat import RULES, Combination, ask, describe, explain
from builder.compat.answer import as_json

PAGE = Path(__file__).parent.parent.parent / "docs" / "explain.md"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["explain", *arguments], prog_name="imgbuild")


def test_possible_impossible_and_unknown_have_their_own_codes_and_first_words() -> None:
    possible = run("torch==2.13.0", "--cuda", "13.0", "--python", "3.12")
    assert (possible.exit_code, possible.output) == (0, "possible: torch==2.13.0 --cuda 13.0 --python 3.12\n")
    impossible = run("torch==2.13.0", "--cuda", "12.8", "--python", "3.12")
    assert impossible.exit_code == 3
    lines = impossible.output.splitlines()
    assert lines[0] == "impossible: torch==2.13.0 --cuda 12.8 --python 3.12"
    assert lines[1].startswith("  cuda-build: torch 2.13.0 has no build for CUDA 12.8; its builds are for CUDA 12.6")
    assert lines[2].startswith("    source: ")
    unknown = run("torch==99.0", "--cuda", "13.0")
    assert unknown.exit_code == 4
    assert unknown.output.startswith("unknown: torch==99.0 --cuda 13.0\n  release: ")


def test_the_options_alone_ask_about_image_driver_and_gpu() -> None:
    ran = run("--image", "nvidia/cuda:12.4.0-cudnn-devel-ubuntu22.04")
    assert ran.exit_code == 3
    assert ran.output.startswith("impossible: --image nvidia/cuda:12.4.0-cudnn-devel-ubuntu22.04\n  base-tag: ")
    near = re.search(r"^  imgbuild explain (.*)$", ran.output, re.MULTILINE)
    assert near is not None
    assert near[1] == "--image nvidia/cuda:12.4.1-cudnn-devel-ubuntu22.04"
    assert run(*shlex.split(near[1])).exit_code == 0
    assert run("--cuda", "13.0", "--driver", "535.54.03", "--gpu", "RTX 4090").exit_code == 3
    assert run("--cuda", "12.4", "--driver", "550.54.15", "--gpu", "RTX 4090").exit_code == 0
    assert run("--python", "3.16").exit_code == 3


def test_what_is_offered_can_be_pasted_and_is_possible() -> None:
    for asked in (
        ["torch==2.13.0", "--cuda", "12.8", "--python", "3.12"],
        ["tensorflow[and-cuda]==2.15.0", "--python", "3.11"],
        ["torch==2.13.0", "--cuda", "13.0", "--gpu", "RTX 4090", "--driver", "570.124.06"],
    ):
        output = run(*asked).output
        commands = re.findall(r"^  (imgbuild explain .*)$", output, re.MULTILINE)
        assert len(commands) == 3
        for command in commands:
            assert run(*shlex.split(command)[2:]).exit_code == 0, command


def test_json_has_the_reasons_or_what_is_unknown() -> None:
    ran = run("torch==2.13.0", "--cuda", "12.8", "--python", "3.12", "--format", "json")
    assert ran.exit_code == 3
    answer = json.loads(ran.output)
    assert set(answer) == {"valid", "reasons", "warnings", "nearest"}
    assert answer["valid"] is False
    assert [set(reason) for reason in answer["reasons"]] == [{"rule", "message", "source"}]
    first = answer["nearest"][0]
    assert {key: first[key] for key in ("package", "python", "channel", "extras", "with")} == {
        "package": "torch",
        "python": "3.12",
        "channel": None,
        "extras": [],
        "with": {},
    }
    assert set(first["changed"]) <= {"version", "cuda", "python"}
    assert first["changed"]
    assert shlex.split(first["command"])[:2] == ["imgbuild", "explain"]
    unknown = json.loads(run("torch==99.0", "--format", "json").output)
    assert (unknown["valid"], unknown["reasons"][0]["rule"]) == (None, "release")
    possible = json.loads(run("torch==2.13.0", "--format", "json").output)
    assert (possible["valid"], possible["reasons"], possible["nearest"]) == (True, [], [])


def test_assume_new_ends_well_and_still_says_null() -> None:
    ran = run("torch==99.0", "--assume-new", "--format", "json")
    assert (ran.exit_code, json.loads(ran.output)["valid"]) == (0, None)
    assert run("torch==2.13.0", "--cuda", "12.8", "--assume-new").exit_code == 3


MATRIX = """\
version: 1
repository: mine
axes:
  framework: [torch==2.13.0]
  cuda: [cpu, "12.8"]
  python: ["3.11", "3.12"]
bases:
  bookworm: {image: "debian:bookworm-slim", python: ["3.11", "3.12"]}
frameworks:
  torch:
    image: pytorch
    template: pytorch.Dockerfile.j2
    constraints: constraints/torch.txt
    channels: {cpu: cpu}
channels: {cpu: "https://download.pytorch.org/whl/cpu"}
defaults: {base: bookworm}
exclude:
  - {match: "*-cpu-py3.12", reason: nobody uses it}
tags: ["{version}-{cuda}-py{python}"]
"""


@pytest.fixture
def matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "matrix.yaml").write_text(MATRIX)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("matrix")
def test_a_cell_of_the_matrix_is_explained_also_when_facts_left_it_out() -> None:
    kept = run("torch-2.13.0-cpu-py3.11", "--format", "json")
    assert kept.exit_code == 0, kept.output
    answer = json.loads(kept.stdout)
    assert (answer["cell"], answer["valid"]) == ("torch-2.13.0-cpu-py3.11", True)
    impossible = run("torch-2.13.0-cuda12.8-py3.11")
    assert impossible.exit_code == 3
    assert "impossible: torch-2.13.0-cuda12.8-py3.11 (torch==2.13.0 --cuda 12.8 --python 3.11" in impossible.stdout


@pytest.mark.usefixtures("matrix")
def test_a_glob_is_a_list_and_the_worst_answer_decides() -> None:
    ran = run("*-py3.11", "--format", "json")
    assert ran.exit_code == 3
    cells = json.loads(ran.stdout)["cells"]
    assert {cell["cell"]: cell["valid"] for cell in cells} == {
        "torch-2.13.0-cpu-py3.11": True,
        "torch-2.13.0-cuda12.8-py3.11": False,
    }
    one = run("*-cpu-py3.11", "--format", "json")
    assert (one.exit_code, len(json.loads(one.stdout)["cells"])) == (0, 1)


@pytest.mark.usefixtures("matrix")
def test_a_cell_that_is_none_is_a_usage_error_that_names_the_nearest() -> None:
    missing = run("torch-2.13.0-cpu-py3.13")
    assert missing.exit_code == 2
    assert "did you mean `torch-2.13.0-cpu-py3.11`?" in missing.stderr
    excluded = run("torch-2.13.0-cpu-py3.12")
    assert excluded.exit_code == 2
    assert "nobody uses it" in excluded.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name a framework with its version"),
        (["--with", "numpy==1.26.4"], "name a framework with its version"),
        (["horovod==0.28.1"], "--with horovod==0.28.1`"),
        (["cuda"], "write one `==` and an exact version, such as `cuda==1"),
        (["torch"], "write one `==` and an exact version, such as `torch==2."),
        (["torch>=2.13"], "does not name one release"),
        (["torch==2.13.*"], "does not name one release"),
        (["torch==2.12.0,==2.13.0"], "does not name one release"),
        (["torch==abc"], "is not a requirement"),
        (["torch==2.13.0=="], "is not a requirement"),
        (["torch @ https://example.org/torch.whl"], "has a URL or a marker"),
        (["torch==2.13.0; python_version > '3'"], "has a URL or a marker"),
        (["torch==2.13.0+rocm6"], "names no CUDA"),
        (["torch==2.13.0+cu126", "--cuda", "13.0"], "contradicts the requirement"),
        (["torch==2.13.0+cu126", "--channel", "pypi"], "only channel pytorch"),
        (["torch==2.13.0", "--cuda", "12.6.1"], "write `12.6`"),
        (["torch==2.13.0", "--cuda", "cu126"], "did you mean `12.6`?"),
        (["torch==2.13.0", "--cuda", "12"], "is not a CUDA version"),
        (["torch==2.13.0", "--cuda", "12.6\nx"], "is not a CUDA version"),
        (["torch==2.13.0", "--python", "3.12.1"], "did you mean `3.12`?"),
        (["torch==2.13.0", "--python", "py311"], "did you mean `3.11`?"),
        (["torch==2.13.0", "--python", "three"], "is not a Python version"),
        (["torch==2.13.0", "--channel", "conda"], "'conda' is not one of"),
        (["torch==2.13.0", "--gpu", "H10"], "did you mean `H100`?"),
        (["torch==2.13.0", "--gpu", "sm_90"], "did you mean `9.0`?"),
        (["torch==2.13.0", "--gpu", "Voodoo 2"], "give its name"),
        (["torch==2.13.0", "--driver", "new"], "is not a Linux driver version"),
        (["torch==2.13.0", "--with", "torchvision>=0.28"], "does not name one release"),
        (["torch==2.13.0", "--with", "torch==2.13.0"], "is the requirement itself"),
        (["torch==2.13.0", "--with", "numpy==1.26.4", "--with", "numpy==2.0.0"], "given twice"),
        (["torch==2.13.0", "--image", "no image"], "is not an image"),
        (["torch==2.13.0", "--base", "debain 12"], "did you mean `debian 12`?"),
        (["cuda==12.4rc1"], "is not a CUDA toolkit"),
        (["cuda[x]==12.4"], "is not a CUDA toolkit"),
        (["some-cell", "--cuda", "12.6"], "not of the form PROJECT==VERSION"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_read_ends_with_2_and_says_how_to_write_it(arguments: list[str], says: str) -> None:
    ran = run(*arguments)
    assert ran.exit_code == 2, ran.output
    assert says in " ".join(ran.stderr.split())
    assert "Traceback" not in ran.output


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("H100", "H100"),
        ("h100", "H100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("nvidia geforce rtx 4090", "RTX 4090"),
        ("RTX4090", "RTX 4090"),
        ("rtx 4070 ti", "RTX 4070 Ti"),
        ("RTX 5090", "RTX 50xx"),
        ("RTX 5070 Ti", "RTX 50xx"),
        ("9.0", "9.0"),
        ("12.0", "12.0"),
    ],
)
def test_a_gpu_is_known_by_what_people_and_nvidia_smi_call_it(text: str, name: str) -> None:
    assert ask.gpu(text, SMALL) == name


@pytest.mark.parametrize("text", ["RTX 4090 Ti", "H1000", "L40", "90", "v", ""])
def test_another_gpu_is_not_taken_for_a_known_one(text: str) -> None:
    with pytest.raises(ask.Misread):
        ask.gpu(text, SMALL)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("torch==2.13.0", ("torch", "2.13.0", (), None, None)),
        ("torch==2.13", ("torch", "2.13.0", (), None, None)),
        ("Torch == 2.13.0", ("torch", "2.13.0", (), None, None)),
        ("torch==2.13.0+cu126", ("torch", "2.13.0", (), "12.6", "pytorch")),
        ("torch==2.13.0+cpu", ("torch", "2.13.0", (), "cpu", "pytorch")),
        ("tensorflow[and_cuda]==2.14.1", ("tensorflow", "2.14.1", ("and-cuda",), None, None)),
        ("mxnet-cu112==1.9.1", ("mxnet", "1.9.1", (), "11.2", None)),
        ("cuda==12.4", ("cuda", "12.4", (), "12.4", None)),
        ("cuda==12.4.1", ("cuda", "12.4.1", (), "12.4", None)),
        ("torch==3.0rc1", ("torch", "3.0rc1", (), None, None)),
    ],
)
def test_a_requirement_is_taken_apart(text: str, asked: tuple[object, ...]) -> None:
    found = ask.requirement(text, SMALL)
    assert (found.package, found.version, found.extras, found.cuda, found.channel) == asked


@pytest.mark.parametrize("text", ["debian 12", "debian:12", "Debian-12", "bookworm", "debian12"])
def test_a_distribution_has_several_names(text: str) -> None:
    assert ask.system(text, SMALL) == "debian 12"


def test_a_combination_is_described_as_it_is_typed() -> None:
    full = Combination(
        package="tensorflow",
        version="2.14.1",
        extras=("and-cuda",),
        cuda="11.8",
        python="3.10",
        channel="pypi",
        companions=(("keras", None), ("numpy", "1.26.4")),
        gpus=("8.0", "RTX 4090"),
        driver="550.54.14",
        image="nvidia/cuda:12.4.1-devel-ubuntu22.04",
        system="ubuntu 22.04",
    )
    words = shlex.split(describe(full))
    assert words[0] == "tensorflow[and-cuda]==2.14.1"
    asked = ask.requirement(words[0], SMALL)
    options: dict[str, list[str]] = {}
    for name, value in zip(words[1::2], words[2::2], strict=True):
        options.setdefault(name, []).append(value)
    again = ask.combine(
        asked,
        cuda=options["--cuda"][0],
        python=options["--python"][0],
        channel=options["--channel"][0],
        gpus=options["--gpu"],
        driver=options["--driver"][0],
        companions=[ask.beside(one, SMALL) for one in options["--with"]],
        image=options["--image"][0],
        system=options["--base"][0],
    )
    assert again == full


def test_json_of_an_answer_names_what_moved_as_the_options_do() -> None:
    asked = Combination(package="mxnet", version="1.9.1", companions=(("numpy", "1.26.4"),))
    first = as_json(explain(asked, SMALL))["nearest"]
    assert isinstance(first, list)
    assert first[0]["changed"] == ["with"]
    assert first[0]["with"] == {"numpy": "1.23.5"}
    assert first[0]["command"] == "imgbuild explain mxnet==1.9.1 --with numpy==1.23.5"


def test_rules_are_listed_with_a_sentence_each() -> None:
    ran = run("--rules")
    assert ran.exit_code == 0
    assert [line.split()[0] for line in ran.output.splitlines()] == [rule.name for rule in RULES]
    assert all(rule.doc and rule.doc.endswith(".") for rule in RULES)


def test_the_page_lists_every_rule_in_order() -> None:
    table = PAGE.read_text().split("<!-- rules: begin -->", 1)[1].split("<!-- rules: end -->", 1)[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{rule.name}` | {rule.doc} |" for rule in RULES]


EXAMPLE = re.compile(r"(?<=^```\n)\$ (imgbuild explain [^\n]*)\n(.*?)(?=^```$)", re.MULTILINE | re.DOTALL)


def test_the_page_shows_what_is_printed(pytestconfig: pytest.Config) -> None:
    text = PAGE.read_text()
    printed = EXAMPLE.sub(lambda shown: f"$ {shown[1]}\n{run(*shlex.split(shown[1])[2:]).output}", text)
    assert len(EXAMPLE.findall(text)) >= 4
    if pytestconfig.getoption("--update-golden"):
        PAGE.write_text(printed)
    else:
        assert text == printed, "write it anew: pytest tests/unit/test_explain.py --update-golden"
