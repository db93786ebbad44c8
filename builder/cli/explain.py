"""`imgbuild explain`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from builder.cli.options import assume_new, format_option, load, matrix_options, note

if TYPE_CHECKING:
    from builder.compat import Answer, Combination, Facts, Reason

T = TypeVar("T")

IMPOSSIBLE = 3
UNKNOWN = 4


@click.command()
@click.argument("what", metavar="[REQUIREMENT | CELL]", required=False)
@click.option("--cuda", metavar="VERSION", help="A CUDA version such as 12.6, or `cpu`.")
@click.option("--python", metavar="VERSION", help="Such as 3.12, or 3.13t for the free-threaded build.")
@click.option("--channel", type=click.Choice(["pypi", "pytorch"]), help="The index that the wheels come from.")
@click.option(
    "--gpu",
    "gpus",
    multiple=True,
    metavar="NAME|CC",
    help="A GPU that it must run on: a name such as H100, or a compute capability such as 9.0; may be repeated.",
)
@click.option("--driver", metavar="VERSION", help="The Linux driver, such as 570.124.06.")
@click.option(
    "--with",
    "companions",
    multiple=True,
    metavar="PACKAGE==VERSION",
    help="Another project beside it, such as torchvision==0.28.0; may be repeated.",
)
@click.option("--image", metavar="REF", help="The base image, such as nvidia/cuda:12.4.1-devel-ubuntu22.04.")
@click.option("--base", "system", metavar="SYSTEM", help="The base's distribution, such as 'debian 12'.")
@click.option("--rules", is_flag=True, help="List the rules, and end.")
@matrix_options
@format_option
@click.pass_context
def explain(
    context: click.Context,
    what: str | None,
    cuda: str | None,
    python: str | None,
    channel: str | None,
    gpus: tuple[str, ...],
    driver: str | None,
    companions: tuple[str, ...],
    image: str | None,
    system: str | None,
    rules: bool,
    matrix_path: Path | None,
    repository: str | None,
    format_: str,
) -> None:
    """Say whether a combination can work, which fact forbids it, and what is nearest to it that works.

    REQUIREMENT is a framework with an exact version: torch, tensorflow, tensorflow-cpu, jax or mxnet; `cuda==12.4`, or
    none at all, asks about driver, GPU and image alone. CELL is the id of a cell of the matrix, or a glob over ids.

    \b
    Examples:
      imgbuild explain torch==2.13.0 --cuda 13.0 --python 3.12 --gpu H100 --driver 570.124.06
      imgbuild explain 'tensorflow[and-cuda]==2.15.1' --python 3.11
      imgbuild explain torch==2.13.0+cpu --with torchvision==0.28.0 --base 'debian 12'
      imgbuild explain cuda==12.4 --gpu 'RTX 4090' --driver 535.54.03
      imgbuild explain --image nvidia/cuda:12.4.1-devel-ubuntu22.04
      imgbuild explain 'torch-*'

    Exit codes: 0 possible, 3 impossible, 4 unknown.
    """
    from builder.compat import RULES, load_facts
    from builder.compat import explain as explained
    from builder.compat.ask import projects

    if rules:
        for rule in RULES:
            click.echo(f"{rule.name:<18} {rule.doc}")
        return
    options = (cuda, python, channel, driver, image, system, *gpus, *companions)
    if what is None and (not any(options) or channel or companions):
        raise click.UsageError("name a framework with its version, such as torch==2.13.0, or a cell of the matrix")
    facts = load_facts()
    if what is None or _is_requirement(what, facts):
        asked = _combination(what, facts, cuda, python, channel, gpus, driver, companions, image, system)
        answer = explained(asked, facts)
        if format_ == "json":
            _echo_json(answer, None)
        else:
            _echo_text(answer, None)
        answers = [answer]
    elif any(options):
        hint = f"known projects: {', '.join(projects(facts))}"
        raise click.UsageError(f"{what!r} is not of the form PROJECT==VERSION, which the other options need; {hint}")
    else:
        answers = _cells(what, facts, matrix_path, repository, format_)
    context.exit(_exit_code(answers, assume_new()))


def _is_requirement(what: str, facts: Facts) -> bool:
    """Whether it is meant as a requirement: it compares versions, has extras, or is a project's name."""
    from builder.compat.rules.view import DRIVER_QUESTION

    return any(sign in what for sign in "=<>~!@;") or what in facts.projects or what == DRIVER_QUESTION


def _combination(
    what: str | None,
    facts: Facts,
    cuda: str | None,
    python: str | None,
    channel: str | None,
    gpus: tuple[str, ...],
    driver: str | None,
    companions: tuple[str, ...],
    image: str | None,
    system: str | None,
) -> Combination:
    from builder.compat import ask

    return _read(
        None,
        lambda: ask.combine(
            ask.NO_REQUIREMENT if what is None else _read("REQUIREMENT", lambda: ask.requirement(what, facts)),
            cuda=None if cuda is None else _read("--cuda", lambda: ask.cuda_version(cuda)),
            python=None if python is None else _read("--python", lambda: ask.python_version(python)),
            channel=channel,
            gpus=[_read("--gpu", lambda one=one: ask.gpu(one, facts)) for one in gpus],  # type: ignore[misc]
            driver=None if driver is None else _read("--driver", lambda: ask.driver_version(driver)),
            companions=[_read("--with", lambda one=one: ask.beside(one, facts)) for one in companions],  # type: ignore[misc]
            image=None if image is None else _read("--image", lambda: ask.image(image)),
            system=None if system is None else _read("--base", lambda: ask.system(system, facts)),
        ),
    )


def _read(option: str | None, parse: Callable[[], T]) -> T:
    """What the user wrote, or an error about the command line."""
    from builder.compat.ask import Misread

    try:
        return parse()
    except Misread as error:
        if option is None:
            raise click.UsageError(str(error)) from error
        raise click.BadParameter(str(error), param_hint=option) from error


def _cells(what: str, facts: Facts, matrix_path: Path | None, repository: str | None, format_: str) -> list[Answer]:
    """Explains cells of the matrix, also those that facts left out. A glob gives a list, an id its one cell."""
    from builder.compat import as_json
    from builder.compat import explain as explained
    from builder.matrix import select, select_left_out

    _, matrix = load(matrix_path, repository)
    selection = select(matrix, (what,))
    left_out = select_left_out(matrix, (what,))
    for excluded in left_out.excluded:
        note(f"note: {excluded.id} is excluded at {excluded.by}: {excluded.reason}")
    found = [(cell.id, cell.combination) for cell in selection.cells]
    found += [(cell.id, cell.combination) for cell in left_out.impossible]
    found += [(cell.id, cell.combination) for cell in left_out.unknown]
    if not found:
        raise click.UsageError(
            "; ".join([*selection.warnings, "write PROJECT==VERSION for a combination that is no cell"])
        )
    answers = [explained(combination, facts) for _, combination in found]
    answered = [(id, answer) for (id, _), answer in zip(found, answers, strict=True)]
    if format_ == "json" and any(sign in what for sign in "*?["):
        cells = [{"cell": id, **as_json(answer)} for id, answer in answered]
        click.echo(json.dumps({"cells": cells}, indent=2))
        return answers
    for id, answer in answered:
        if format_ == "json":
            _echo_json(answer, id)
        else:
            _echo_text(answer, id)
    return answers


def _echo_json(answer: Answer, cell: str | None) -> None:
    from builder.compat import as_json

    document = as_json(answer)
    click.echo(json.dumps(document if cell is None else {"cell": cell, **document}, indent=2))


def _echo_text(answer: Answer, cell: str | None) -> None:
    from builder.compat import describe
    from builder.compat.answer import command

    finding = answer.finding
    verdict = {True: "possible", False: "impossible", None: "unknown"}[finding.valid]
    name = describe(answer.combination)
    click.echo(f"{verdict}: {name if cell is None else f'{cell} ({name})'}")
    for reason in finding.forbidden:
        _echo_reason("", reason)
    for reason in finding.unknown:
        _echo_reason("unknown: " if finding.forbidden else "", reason)
    for reason in finding.warnings:
        _echo_reason("warning: ", reason)
    if answer.nearest:
        click.echo("nearest that work:")
        for near in answer.nearest:
            click.echo(f"  {command(near)}")


def _echo_reason(prefix: str, reason: Reason) -> None:
    click.echo(f"  {prefix}{reason.rule}: {reason.message}")
    click.echo(f"    source: {reason.source}")


def _exit_code(answers: list[Answer], new_works: bool) -> int:
    """The worst of the answers."""
    verdicts = {answer.finding.valid for answer in answers}
    if False in verdicts:
        return IMPOSSIBLE
    return UNKNOWN if None in verdicts and not new_works else 0
