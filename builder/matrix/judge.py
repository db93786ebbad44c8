"""Facts about cells: what is asked of the tables for a cell, and what they say.

A cell is judged with the base that it gets from overrides, by framework, version, CUDA, Python, the index that its
wheels come from, what is installed beside it, and its base. What the file leaves to others is not judged: a channel
that is neither PyTorch's nor the package index may carry anything, and an extra without `version` any version.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from packaging.utils import canonicalize_name

from builder import errors
from builder.compat.model import CPU, Combination, Finding
from builder.matrix.declare import FrameworkRule
from builder.matrix.forms import NO_FACTS
from builder.matrix.model import Base, Extra, Framework, Impossible, Judged
from builder.source import nearest as nearest_word
from builder.source import quote

if TYPE_CHECKING:
    from builder.compat.model import Facts

NEAREST: Final = 3
"""How many combinations that work are offered in place of one that does not."""

_CUDA_IMAGES: Final = ("nvidia/cuda:", "docker.io/nvidia/cuda:", "nvcr.io/nvidia/cuda:")
_RELEASE: Final = re.compile(r"([a-z]+)([0-9][0-9.]*)")


class Judge(Protocol):
    """Who knows facts."""

    def projects(self) -> Collection[str]:
        """The names of all projects that there are facts about."""

    def system(self, word: str) -> str | None:
        """The distribution's release that a codename ("bookworm") or a name ("ubuntu 22.04") means, if it is known."""

    def examine(self, combination: Combination) -> Finding:
        """What the rules say."""

    def nearest(self, combination: Combination) -> tuple[Combination, ...]:
        """Combinations like this one that work, closest first."""


class NoJudge:
    """Knows nothing and forbids nothing."""

    def projects(self) -> Collection[str]:
        return ()

    def system(self, word: str) -> str | None:
        return None

    def examine(self, combination: Combination) -> Finding:
        return Finding()

    def nearest(self, combination: Combination) -> tuple[Combination, ...]:
        return ()


class Tables:
    """Judges by the tables of `builder.compat`, each combination once."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._systems = {name: name for name in facts.systems}
        self._systems.update((system.codename, name) for name, system in facts.systems.items() if system.codename)
        self._findings: dict[Combination, Finding] = {}
        self._nearest: dict[Combination, tuple[Combination, ...]] = {}

    def projects(self) -> Collection[str]:
        return self._facts.projects.keys()

    def system(self, word: str) -> str | None:
        return self._systems.get(word)

    def examine(self, combination: Combination) -> Finding:
        from builder.compat.judge import examine

        finding = self._findings.get(combination)
        if finding is None:
            finding = self._findings[combination] = examine(combination, self._facts)
        return finding

    def nearest(self, combination: Combination) -> tuple[Combination, ...]:
        from builder.compat.nearest import nearest

        if combination.version is None and combination.cuda is None:
            return ()  # a Python, a base: there is nothing to move
        found = self._nearest.get(combination)
        if found is None:
            found = self._nearest[combination] = tuple(nearest(combination, self._facts, NEAREST))
        return found


@functools.cache
def tables() -> Judge:
    """The tables that imgbuild ships, loaded when they are first needed."""
    from builder.compat.load import load_facts

    return Tables(load_facts())


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What a cell is judged by.

    Attributes:
        facts: the project that the framework is in the tables, or "none".
        framework: the framework.
        cuda: "cpu" or a version.
        python: such as "3.12".
        base: after overrides.
        extras: what is installed beside it.
    """

    facts: str
    framework: Framework
    cuda: str
    python: str
    base: Base
    extras: tuple[Extra, ...]


class Asking:
    """Turns cells into questions for one judge, with what many cells share worked out once."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self._system = functools.cache(self._system_of)
        self._companions = functools.cache(self._companions_of)

    def combination(self, subject: Subject) -> Combination:
        """What is asked about a cell."""
        image = _cuda_image(subject.base)
        system = self._system(subject.base)
        if subject.facts == NO_FACTS:
            cuda = None if subject.cuda == CPU else subject.cuda
            return Combination(package="cuda", cuda=cuda, python=subject.python, image=image, system=system)
        return Combination(
            package=str(canonicalize_name(subject.facts)),
            version=subject.framework.version,
            cuda=subject.cuda,
            python=subject.python,
            channel=_channel(subject.framework),
            companions=self._companions(subject.extras),
            image=image,
            system=system,
        )

    def release(self, facts: str, version: str) -> Combination | None:
        """What is asked about a framework's release by itself; None when there are no facts about it."""
        return None if facts == NO_FACTS else Combination(package=str(canonicalize_name(facts)), version=version)

    def _system_of(self, base: Base) -> str | None:
        words = [base.bootstrap.suite] if base.bootstrap is not None else []
        words += _system_words(base.image)
        return next((system for word in words if (system := self.judge.system(word)) is not None), None)

    def _companions_of(self, extras: tuple[Extra, ...]) -> tuple[tuple[str, str | None], ...]:
        """Without those of any version that there are no facts about: there is nothing to ask."""
        found: dict[str, str | None] = {}
        for extra in extras:
            for package in extra.packages:
                name = str(canonicalize_name(package))
                found[name] = extra.version or found.get(name)
        known = self.judge.projects()
        return tuple(sorted((name, version) for name, version in found.items() if version or name in known))


def _channel(framework: Framework) -> str | None:
    if framework.channel is None:
        return "pypi"
    return "pytorch" if framework.channel.of_pytorch else None


def _cuda_image(base: Base) -> str | None:
    for prefix in _CUDA_IMAGES:
        if base.image.startswith(prefix):
            return f"nvidia/cuda:{base.image.removeprefix(prefix)}"
    return None


def _system_words(image: str) -> Iterable[str]:
    """What in an image's name may say which distribution it holds: "debian:bookworm-slim", "x:devel-ubuntu22.04"."""
    name, _, tag = image.rpartition(":")
    distribution = name.rpartition("/")[2]
    for part in reversed(tag.split("-")):
        yield part
        yield f"{distribution} {part}"
        release = _RELEASE.fullmatch(part)
        if release is not None:
            yield f"{release[1]} {release[2]}"


def refusal(cells: Judged | Sequence[Judged], judge: Judge, *, where: str = "", what: str = "") -> errors.ImgbuildError:
    """The error for a combination that was asked for by name and is no cell.

    Args:
        cells: it; or several that were asked for together, none of which is a cell.
        judge: knows what is nearest.
        where: what asks for it; its own position when empty.
        what: how to begin the message; what it is when empty.
    """
    every = [cells] if isinstance(cells, Judged) else cells
    # One that is only unknown can be built after all.
    unknown = [cell for cell in every if not isinstance(cell, Impossible)]
    first = (unknown or every)[0]
    kind = "not known to work" if unknown else "impossible"
    message = f"{what or 'the cell'} {first.id} is {kind}: {first.reasons[0].message}"
    if len(every) > 1:
        message += f"; and {len(every) - 1} more that this selects are not cells either"
    hints = [f"rule {reason.rule}, from {reason.source}" for reason in first.reasons[:1]]
    hints += [f"also: {reason.message} (rule {reason.rule}, from {reason.source})" for reason in first.reasons[1:]]
    if close := nearest_in_words(first.combination, judge):
        hints.append(f"nearest that works: {close}")
    if hint := project_hint(first.combination, judge):
        hints.append(hint)
    if unknown:
        hints.append("`--assume-new` lets it build all the same")
    error = errors.NotKnown if unknown else errors.Impossible
    return error(message, where=where or str(first.position), hint="\n  ".join(hints))


def describe(combination: Combination, asked: Combination) -> str:
    """A combination near to the one that was asked about, such as "torch 2.13.0, CUDA 13.0, Python 3.12".

    Of channel, companions, image and distribution it names what differs from what was asked about.
    """
    words = [f"{combination.package} {combination.version}" if combination.version else combination.package]
    if combination.cuda is not None:
        words.append("CPU" if combination.cuda == CPU else f"CUDA {combination.cuda}")
    if combination.python is not None:
        words.append(f"Python {combination.python}")
    words += [
        f"{name} {version}"
        for name, version in combination.companions
        if version is not None and (name, version) not in asked.companions
    ]
    if combination.image is not None and combination.image != asked.image:
        words.append(combination.image)
    if combination.channel is not None and combination.channel != asked.channel:
        words.append(f"from {combination.channel}")
    return ", ".join(words)


def nearest_in_words(asked: Combination, judge: Judge) -> str:
    """What works near to a combination that does not, closest first; empty when nothing does."""
    return "; ".join(describe(each, asked) for each in judge.nearest(asked))


def facts_of(rule: FrameworkRule, judge: Judge) -> str:
    """The project that a framework is in the tables, or "none".

    Raises:
        ConfigError: the file names one that there are no facts about.
    """
    if rule.facts is None:
        return rule.name
    name = rule.facts.text
    if name == NO_FACTS or isinstance(judge, NoJudge) or str(canonicalize_name(name)) in judge.projects():
        return name
    hint = nearest_word(name, judge.projects())
    raise errors.ConfigError(
        f"there are no facts about {quote(name)}",
        where=str(rule.facts.position),
        hint=f"{hint} Or write `{NO_FACTS}`" if hint else f"write `{NO_FACTS}` when there are none",
    )


def project_hint(combination: Combination, judge: Judge) -> str:
    """How to mend that there are no facts about the framework; empty when there are."""
    if combination.version is None or combination.package in judge.projects():
        return ""
    return f"set `facts` of this framework to the project that it is, or to `{NO_FACTS}`"
