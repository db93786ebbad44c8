"""Answers in words and as JSON."""

from __future__ import annotations

import shlex

from builder.compat.judge import examine
from builder.compat.model import Answer, Combination, Facts, Reason
from builder.compat.nearest import changed, nearest
from builder.compat.rules.view import DRIVER_QUESTION


def explain(combination: Combination, facts: Facts) -> Answer:
    """What the rules say, and the combinations nearest to this one that work, where it does not or nobody knows."""
    finding = examine(combination, facts)
    near = () if finding.valid else nearest(combination, facts)
    return Answer(combination=combination, finding=finding, nearest=near)


def describe(combination: Combination) -> str:
    """The combination as a user would type it: `torch==2.13.0 --cuda 12.6 --python 3.12`."""
    extras = f"[{','.join(combination.extras)}]" if combination.extras else ""
    version = f"=={combination.version}" if combination.version is not None else ""
    words = [f"{combination.package}{extras}{version}"]
    cuda = combination.cuda
    if combination.package == DRIVER_QUESTION:
        # The options alone ask about driver, GPU and image; with a version, the toolkit is the requirement.
        words, cuda = (words, None) if combination.version is not None else ([], cuda)
    for option, value in (
        ("--cuda", cuda),
        ("--python", combination.python),
        ("--channel", combination.channel),
        *(("--gpu", gpu) for gpu in combination.gpus),
        ("--driver", combination.driver),
        *(("--with", name if held is None else f"{name}=={held}") for name, held in combination.companions),
        ("--image", combination.image),
        ("--base", combination.system),
    ):
        if value is not None:
            words += [option, value]
    return " ".join(shlex.quote(word) if " " in word or "[" in word else word for word in words)


def command(combination: Combination) -> str:
    """The command that asks about it again."""
    return f"imgbuild explain {describe(combination)}"


def as_json(answer: Answer) -> dict[str, object]:
    """The answer for machines.

    Returns:
        `valid`: true, false, or null when the facts do not reach; `reasons`: when it is null, what is unknown;
        `warnings`; `nearest`: combinations that work, closest first. A reason has `rule`, `message` and `source`.
    """
    finding = answer.finding
    reasons = finding.unknown if finding.valid is None else finding.forbidden
    return {
        "valid": finding.valid,
        "reasons": [_reason(reason) for reason in reasons],
        "warnings": [_reason(reason) for reason in finding.warnings],
        "nearest": [_combination(one, changed(answer.combination, one)) for one in answer.nearest],
    }


def _reason(reason: Reason) -> dict[str, str]:
    return {"rule": reason.rule, "message": reason.message, "source": reason.source}


# Fields by the names of the options that they are typed with.
_NAMES = {"companions": "with", "gpus": "gpu", "system": "base"}


def _combination(combination: Combination, moved: tuple[str, ...]) -> dict[str, object]:
    return {
        "package": combination.package,
        "version": combination.version,
        "cuda": combination.cuda,
        "python": combination.python,
        "channel": combination.channel,
        "extras": list(combination.extras),
        "with": dict(combination.companions),
        "gpu": list(combination.gpus),
        "driver": combination.driver,
        "image": combination.image,
        "base": combination.system,
        "changed": [_NAMES.get(name, name) for name in moved],
        "command": command(combination),
    }
