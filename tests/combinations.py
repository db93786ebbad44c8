"""The combinations of `combinations.yaml`: questions with the answers of primary sources."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from builder.compat import Combination, Facts, ask

PATH = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """What a package index says of a combination.

    Attributes:
        packages: the requirements that are resolved together.
        python: such as "3.12" or "3.13t".
        glibc: of the machine that the wheels must load on.
        resolves: whether the index has a solution.
        beyond: what the index does not know; empty when it tells all that matters.
    """

    packages: tuple[str, ...]
    python: str
    glibc: str
    resolves: bool
    beyond: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One combination.

    Attributes:
        id: its name.
        asks: the requirement.
        options: of `imgbuild explain`, each with its value, in the order in which they are shown.
        valid: the right answer: None where no source reaches.
        rule: that must say why; empty for a combination that works.
        warns: a rule that must warn; empty for none in particular.
        why: the fact, one sentence.
        sources: where it was read.
        index: what an index says; None when it is not a question for one.
    """

    id: str
    asks: str
    options: tuple[tuple[str, str], ...]
    valid: bool | None
    rule: str
    warns: str
    why: str
    sources: tuple[str, ...]
    index: Resolution | None

    @property
    def words(self) -> list[str]:
        """The question as the arguments of `imgbuild explain`."""
        return [self.asks, *(word for option in self.options for word in option)]

    @property
    def question(self) -> str:
        """The question as it is typed."""
        return shlex.join(self.words)

    @property
    def confirmed(self) -> bool:
        """Whether really resolving it gives the same answer."""
        return self.index is not None and self.index.resolves == self.valid

    @property
    def is_plain(self) -> bool:
        """Whether the index is asked for the very packages of the question, on a distribution that is not said."""
        beside = self.all("--with")
        return self.index is not None and self.index.packages == (self.asks, *beside) and not self.get("--image")

    def get(self, option: str) -> str | None:
        """The value of an option that is given once at most, such as "--cuda"."""
        return next((value for name, value in self.options if name == option), None)

    def all(self, option: str) -> tuple[str, ...]:
        """The values of an option."""
        return tuple(value for name, value in self.options if name == option)

    def combination(self, facts: Facts) -> Combination:
        """The question, as the rules take it."""
        driver, image, system = self.get("--driver"), self.get("--image"), self.get("--base")
        return ask.combine(
            ask.requirement(self.asks, facts),
            cuda=self.get("--cuda"),
            python=self.get("--python"),
            channel=self.get("--channel"),
            gpus=[ask.gpu(gpu, facts) for gpu in self.all("--gpu")],
            driver=None if driver is None else ask.driver_version(driver),
            companions=[ask.beside(companion, facts) for companion in self.all("--with")],
            image=None if image is None else ask.image(image),
            system=None if system is None else ask.system(system, facts),
        )


_OPTIONS = {
    "python": "--python",
    "cuda": "--cuda",
    "channel": "--channel",
    "with": "--with",
    "gpus": "--gpu",
    "driver": "--driver",
    "image": "--image",
    "system": "--base",
}
_OTHERS = {"id", "asks", "valid", "rule", "warns", "why", "source", "index"}


def load() -> tuple[Row, ...]:
    """The combinations, in the order of the file."""
    document = yaml.safe_load(PATH.read_text(encoding="utf-8"))
    assert isinstance(document, list)
    return tuple(_row(value) for value in document)


def _row(value: object) -> Row:
    assert isinstance(value, dict), value
    unknown = set(value) - _OTHERS - set(_OPTIONS)
    assert not unknown, f"{value.get('id')}: {unknown}"
    valid = value["valid"]
    assert valid is None or isinstance(valid, bool), value["id"]
    options = tuple((flag, text) for key, flag in _OPTIONS.items() for text in _texts(value.get(key)))
    asks = _text(value["asks"])
    return Row(
        id=_text(value["id"]),
        asks=asks,
        options=options,
        valid=valid,
        rule=_text(value.get("rule", "")),
        warns=_text(value.get("warns", "")),
        why=_text(value["why"]),
        sources=_texts(value["source"]),
        index=_resolution(value["index"], asks, dict(options).get("--python"), options) if "index" in value else None,
    )


def _resolution(value: object, asks: str, python: str | None, options: Sequence[tuple[str, str]]) -> Resolution:
    assert isinstance(value, Mapping)
    assert set(value) <= {"packages", "resolves", "glibc", "beyond"}, value
    resolves = value["resolves"]
    assert isinstance(resolves, bool)
    beside = tuple(text for flag, text in options if flag == "--with")
    return Resolution(
        packages=_texts(value.get("packages")) or (asks, *beside),
        python=python or "3.12",
        glibc=_text(value.get("glibc", "2.28")),
        resolves=resolves,
        beyond=_text(value.get("beyond", "")),
    )


def _text(value: object) -> str:
    assert isinstance(value, str), f"{value!r} must be quoted"
    return value


def _texts(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(_text(one) for one in _sequence(value))


def _sequence(value: object) -> Sequence[object]:
    assert isinstance(value, list), value
    return value


_WORDS = {True: "possible", False: "impossible", None: "unknown"}


def page(rows: Sequence[Row]) -> str:
    """The table of `docs/combinations.md`."""
    lines = ["| question | answer | rule | why, and where it was read | an index says |", "|---|---|---|---|---|"]
    for row in rows:
        answer = _WORDS[row.valid]
        rule = f"`{row.rule}`" if row.rule else f"warns: `{row.warns}`" if row.warns else ""
        said = ""
        if row.index is not None:
            said = (
                "the same"
                if row.confirmed
                else f"{'possible' if row.index.resolves else 'impossible'}: {row.index.beyond}"
            )
        sources = "; ".join(re.sub(r"[|]", r"\\|", source) for source in row.sources)
        lines.append(f"| `{row.question}` | {answer} | {rule} | {row.why} ({sources}) | {said} |")
    return "\n".join(lines) + "\n"
