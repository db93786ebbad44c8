"""The combinations of tests/combinations.yaml, asked of the tables of replicate/cog.

Usage: python bench/cog.py DIR, a checkout of replicate/cog, or a folder that holds its `pkg/config/*.json`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from packaging.requirements import Requirement

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from combinations import Row, load


class Verdict(Enum):
    """How their answer compares with that of the sources."""

    RIGHT = "right"
    WRONG = "wrong"
    ABSENT = "no row for the release"
    INEXPRESSIBLE = "cannot be expressed"


@dataclass(frozen=True, kw_only=True)
class Torch:
    """A row of `torch_compatibility.json`: versions without local label; `cuda` is None for the build without it."""

    version: str
    torchvision: str
    torchaudio: str
    cuda: str | None
    pythons: frozenset[str]
    index: str


@dataclass(frozen=True, kw_only=True)
class Tensorflow:
    """A row of `tf_compatibility.json`."""

    version: str
    cuda: str
    pythons: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Tables:
    """cog's tables, as its `compatibility.go` reads them: rows of torch for a CUDA without base image are left out."""

    torch: tuple[Torch, ...]
    tensorflow: tuple[Tensorflow, ...]
    tags: frozenset[str]
    cudas: frozenset[str]


class Inexpressible(Exception):
    """Their tables have no axis for something in the question; the message names it."""


class Absent(Exception):
    """They have the axes and no row for the release; cog says that it does not know."""


def read(directory: Path) -> Tables:
    """Reads the three tables."""
    nested = directory / "pkg" / "config"
    folder = nested if nested.is_dir() else directory

    def rows(name: str) -> list[dict[str, str | list[str] | None]]:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
        assert isinstance(found, list)
        return found

    images = rows("cuda_compatibility.json")
    cudas = frozenset(".".join(str(image["CUDA"]).split(".")[:2]) for image in images)
    torch = tuple(
        Torch(
            version=_public(row["Torch"]),
            torchvision=_public(row["Torchvision"]),
            torchaudio=_public(row["Torchaudio"]),
            cuda=None if row["CUDA"] is None else str(row["CUDA"]),
            pythons=frozenset(row["Pythons"] or ()),
            index=str(row["ExtraIndexURL"] or row["FindLinks"] or ""),
        )
        for row in rows("torch_compatibility.json")
    )
    return Tables(
        torch=tuple(row for row in torch if row.cuda is None or row.cuda in cudas),
        tensorflow=tuple(
            Tensorflow(version=str(row["TF"]), cuda=str(row["CUDA"]), pythons=frozenset(row["Pythons"] or ()))
            for row in rows("tf_compatibility.json")
        ),
        tags=frozenset(str(image["Tag"]) for image in images),
        cudas=cudas,
    )


def _public(version: object) -> str:
    return str(version).partition("+")[0]


def answer(row: Row, tables: Tables) -> bool:
    """What their tables say.

    Raises:
        Inexpressible: they have no axis for it.
        Absent: they have no row for the release.
    """
    asked = Requirement(row.asks)
    version = next(iter(asked.specifier)).version
    for option, what in (("--gpu", "GPUs"), ("--driver", "drivers"), ("--base", "distributions")):
        if row.all(option):
            raise Inexpressible(what)
    if asked.extras:
        raise Inexpressible("pip extras")
    if asked.name == "cuda":
        return _cuda(row, version, tables)
    if row.get("--image") is not None:
        raise Inexpressible("the base's C library")
    if asked.name == "torch":
        return _torch(row, version, tables)
    if asked.name == "tensorflow":
        return _tensorflow(row, version, tables)
    raise Inexpressible(f"project {asked.name}")


def _cuda(row: Row, version: str, tables: Tables) -> bool:
    image = row.get("--image")
    if image is None:
        return version in tables.cudas
    tag = image.removeprefix("nvidia/cuda:")
    if "-cudnn" not in tag or "-devel-ubuntu" not in tag:
        raise Inexpressible("tags other than cudnn-devel on Ubuntu")
    return tag in tables.tags


def _torch(row: Row, version: str, tables: Tables) -> bool:
    python, cuda, channel = row.get("--python"), row.get("--cuda"), row.get("--channel")
    if channel == "pypi":
        raise Inexpressible("what PyPI carries")
    if python is not None and python.endswith("t"):
        raise Inexpressible("free-threaded Pythons")
    if python is not None and int(python.split(".")[1]) < 10:
        raise Inexpressible("Pythons before 3.10")
    found = [one for one in tables.torch if one.version == version]
    for companion in row.all("--with"):
        beside = Requirement(companion)
        wanted = next(iter(beside.specifier)).version
        if beside.name not in ("torchvision", "torchaudio"):
            raise Inexpressible(f"{beside.name} beside torch")
        if "+" in wanted:
            raise Inexpressible("builds of companions")
        if found:
            found = [one for one in found if getattr(one, beside.name) == wanted] or [_NOTHING]
    if not found:
        raise Absent(f"torch {version}")
    return any(
        one is not _NOTHING
        and (python is None or python in one.pythons)
        and (cuda is None or one.cuda == (None if cuda == "cpu" else cuda))
        and (channel is None or "download.pytorch.org" in one.index)
        for one in found
    )


_NOTHING = Torch(version="", torchvision="", torchaudio="", cuda=None, pythons=frozenset(), index="")


def _tensorflow(row: Row, version: str, tables: Tables) -> bool:
    python, cuda = row.get("--python"), row.get("--cuda")
    if row.all("--with"):
        raise Inexpressible("projects beside tensorflow")
    found = [one for one in tables.tensorflow if one.version == version]
    if not found:
        raise Absent(f"tensorflow {version}")
    return any((python is None or python in one.pythons) and (cuda is None or one.cuda == cuda) for one in found)


def judge(row: Row, tables: Tables) -> tuple[Verdict, str]:
    """Compares their answer with that of the sources, and says why it cannot be compared where it cannot."""
    try:
        said = answer(row, tables)
    except Inexpressible as error:
        return Verdict.INEXPRESSIBLE, str(error)
    except Absent as error:
        # To say that one does not know is the right answer where nobody does.
        return (Verdict.RIGHT if row.valid is None else Verdict.ABSENT), str(error)
    return (Verdict.RIGHT if said is row.valid else Verdict.WRONG), "possible" if said else "impossible"


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    tables = read(Path(arguments[0]))
    counts: Counter[Verdict] = Counter()
    axes: Counter[str] = Counter()
    rows = load()
    for row in rows:
        verdict, why = judge(row, tables)
        counts[verdict] += 1
        if verdict is Verdict.INEXPRESSIBLE:
            axes[why] += 1
        else:
            truth = {True: "possible", False: "impossible", None: "unknown"}[row.valid]
            print(f"{verdict.value:<24} {row.question}: {truth}, they say {why}")
    print(f"\n{len(rows)} combinations")
    for verdict in Verdict:
        print(f"{counts[verdict]:>4} {verdict.value}")
    print("\nNo axis for")
    for what, count in axes.most_common():
        print(f"{count:>4} {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
