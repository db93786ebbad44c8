"""Runs the whole check suite in every image of the corpus and writes docs/corpus.md.

Usage: python bench/corpus_table.py [--only GLOB] [--keep FILE] [BASE=IMAGE ...]

Shows what the tests, which run one check in each broken image, cannot: that each is broken in exactly one way. The exit
code is 1 when that is untrue of one of them, or a healthy one does not pass; the document is written all the same.

With `--keep`, results are kept in a file after each image, and a later run goes on with those that are missing or were
made by another suite. Takes an hour on two idle cores. BASE=IMAGE: see `healthy_images`.
"""

from __future__ import annotations

import argparse
import json
import sys
from fnmatch import fnmatchcase
from pathlib import Path

from healthy_images import BROKEN, HEALTHY, Broken, Healthy, Measured, Workshop, document, healthy_images

from builder.check import VerdictStatus, suite
from builder.engine.connection import Engine
from builder.matrix import Level

DOCUMENT = Path(__file__).resolve().parent.parent / "docs/corpus.md"


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the check suite in every image of the corpus.")
    parser.add_argument("--only", default="*", help="ids of the images to run, as a glob")
    parser.add_argument("--keep", type=Path, help="a file of results to go on with")
    parser.add_argument("images", nargs="*", metavar="BASE=IMAGE")
    arguments = parser.parse_args()
    found = load(arguments.keep)
    with Engine.connect() as engine:
        workshop = Workshop(engine, healthy_images(arguments.images))
        try:
            variants: tuple[Broken | Healthy, ...] = (*BROKEN, *HEALTHY)
            for variant in variants:
                if variant.id in found or not fnmatchcase(variant.id, arguments.only):
                    continue
                found[variant.id] = one = measure(workshop, variant)
                print(f"{one.seconds:6.1f} s  {variant.id:36} {one.wrong or one.reason or 'passed'}", flush=True)
                if arguments.keep is not None:
                    save(arguments.keep, found)
        finally:
            workshop.close()
    DOCUMENT.write_text(document(found), encoding="utf-8")
    wrong = [name for name, one in found.items() if one.wrong]
    print(f"{len(found)} of {len(BROKEN) + len(HEALTHY)} images, {len(wrong)} not as they must be: {', '.join(wrong)}")
    return 1 if wrong else 0


def measure(workshop: Workshop, variant: Broken | Healthy) -> Measured:
    """Makes an image, runs the whole suite in it and removes it."""
    image = workshop.make(variant)
    try:
        if isinstance(variant, Healthy):
            run = workshop.check_healthy(variant, image, Level.CPU)
            wrong = "" if run.verdict.status is VerdictStatus.PASSED else "; ".join(run.verdict.reasons)
            return Measured(seconds=run.seconds, reason="", others=(), wrong=wrong)
        seen = workshop.check_broken(variant, image, short=False)
    finally:
        workshop.discard(image)
    others = tuple(sorted((set(seen.failed) | seen.lacking) - {variant.check}))
    return Measured(
        seconds=seen.seconds, reason=seen.failed.get(variant.check, ""), others=others, wrong=seen.wrong(variant)
    )


def load(path: Path | None) -> dict[str, Measured]:
    """What an earlier run of the same suite kept, without what was wrong then."""
    if path is None or not path.exists():
        return {}
    kept = json.loads(path.read_text(encoding="utf-8"))
    if kept["suite"] != suite().sha256:
        return {}
    found = {name: Measured(**{**one, "others": tuple(one["others"])}) for name, one in kept["images"].items()}
    return {name: one for name, one in found.items() if not one.wrong}


def save(path: Path, found: dict[str, Measured]) -> None:
    images = {name: vars(one) for name, one in found.items()}
    path.write_text(json.dumps({"suite": suite().sha256, "images": images}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
