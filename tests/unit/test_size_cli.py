"""`imgbuild size`: which images a name means, before any engine is asked."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from builder.cli import cli, size
from builder.exits import exit_code_of
from builder.sizes import measure
from builder.sizes.model import ImageSize, LayerSize, Overview

BUILT = {"torch-2.13.0-cpu-py3.11": "r/pytorch:candidate-1", "torch-2.13.0-cpu-py3.11-horovod": "r/pytorch:candidate-2"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, str]]:
    """What the engine was asked for; two cells of the shipped matrix are built on it."""
    calls: list[dict[str, str]] = []

    def overview(engine: object, images: Mapping[str, str], note: object) -> Overview:
        calls.append(dict(images))
        layer = LayerSize(diff_id="sha256:1", made_by="RUN x", bytes=5, files=1, hidden=0)
        return Overview(
            images=tuple(
                ImageSize(
                    reference=name,
                    cell=cell,
                    id=f"sha256:{name}",
                    layers=(layer,),
                    packages=(),
                    duplicates=(),
                    hidden=(),
                )
                for name, cell in images.items()
            )
        )

    @contextmanager
    def no_engine(*_: object, **__: object) -> Iterator[None]:
        yield None

    monkeypatch.setenv("IMGBUILD_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(measure, "overview", overview)
    monkeypatch.setattr("builder.workshop.open_engine", no_engine)
    module = importlib.import_module("builder.cli.size")
    monkeypatch.setattr(
        module, "_built", lambda run, project, matrix, cells: {c.id: BUILT.get(c.id, "") for c in cells}
    )
    return calls


def run(*arguments: str) -> tuple[int, str]:
    ran: list[str] = []

    def command() -> object:
        found = CliRunner().invoke(cli, ["size", *arguments], standalone_mode=False)
        ran.append(found.output)
        if found.exception is not None:
            raise found.exception
        return found.return_value

    return exit_code_of(command), "".join(ran)


def test_it_is_a_command() -> None:
    assert cli.commands["size"] is size


def test_without_names_all_cells_that_are_built(asked: list[dict[str, str]]) -> None:
    code, said = run()
    assert code == 0
    assert asked == [{image: cell for cell, image in BUILT.items()}]
    assert "2 images: 10 B one by one, 5 B together" in said


def test_names_are_images_and_others_cells(asked: list[dict[str, str]]) -> None:
    assert run("a/b", "c:d", "a/b")[0] == 0
    assert run("torch-2.13.0-cpu-py3.11", "x:y", "torch-2.13.0-cpu-py3.1*", "busybox")[0] == 0
    cells = list(BUILT)
    assert asked[0] == {"a/b": "", "c:d": ""}
    # A name that is no cell's is an image; a cell asked for twice is read once.
    assert asked[1] == {BUILT[cells[0]]: cells[0], "x:y": "", BUILT[cells[1]]: cells[1], "busybox": ""}


def test_a_cell_that_is_not_built_is_named(asked: list[dict[str, str]]) -> None:
    code, _ = run("tensorflow-2.21.0-cpu-py3.11")
    assert (code, asked) == (18, [])
    code, said = run("*-2.*-cpu-py3.11")
    assert code == 0
    assert "tensorflow-2.21.0-cpu-py3.11 is not built as it is rendered now" in said
    assert asked == [{BUILT["torch-2.13.0-cpu-py3.11"]: "torch-2.13.0-cpu-py3.11"}]


@pytest.mark.parametrize("arguments", [("zzz*",), ("--format", "yaml"), ("--local",)])
def test_a_wrong_command_line_asks_nothing(asked: list[dict[str, str]], arguments: tuple[str, ...]) -> None:
    assert run(*arguments)[0] == 2
    assert asked == []


def test_no_built_cell_at_all(asked: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("builder.cli.size")
    monkeypatch.setattr(module, "_built", lambda run, project, matrix, cells: {cell.id: "" for cell in cells})
    assert run()[0] == 2
    assert asked == []


@pytest.mark.parametrize("format_", ["text", "json", "markdown"])
def test_every_format_names_the_cell(asked: list[dict[str, str]], format_: str) -> None:
    code, said = run("torch-2.13.0-cpu-py3.11", "--format", format_)
    assert code == 0
    assert "torch-2.13.0-cpu-py3.11" in said
    if format_ == "json":
        document = json.loads(said[said.index("{") :])
        assert document["images"][0]["cell"] == "torch-2.13.0-cpu-py3.11"
