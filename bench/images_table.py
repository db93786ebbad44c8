"""Builds and checks every cell of the default matrix, one at a time, and writes docs/images.md.

Usage: python bench/images_table.py [--cold] [CELL ...]
       python bench/images_table.py --page

CELL is an id or a glob; without one, all cells of matrix.yaml and of docs/examples/variants are built, and those of
docs/examples/online and docs/examples/interpreters are tried.
Everything happens under a repository and in a state directory of its own: images of the same cells that are there stay
as they are, nothing that passed before counts, and the suite runs in every image. An image is measured, then removed;
its layers stay in the engine's build cache; of that, only what a next cell needs room for is pruned. A cell that does
not fit is *not built here*, with the bytes that it needs and those that are free; one whose base or packages cannot be
reached is *not built here* either, with what could not be reached. What was found of each cell goes into
docs/images.json, and the page is made of that (`--page`: that alone), so cells can be measured in several runs.

Two figures are of a whole matrix, and are taken when all its cells that can be built here are built in one run. Of the
default one: the bytes of its distinct layers over those of its distinct contents, at most 1.10. A content is a file by
its path, size and, from 100 kB (libraries) or 1 MB on, its SHA-256: what two layers have in common counts once. Of the
variants: the bytes of their distinct layers over the sum of their sizes, at most 0.50. Bytes are unpacked; a registry
has the same layers, compressed.

--cold empties the engine's build cache first: it is the engine's, and not only this project's.

The exit code is 1 when a cell that was built failed its build or its check, or a figure is above its bound.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fnmatch
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from side_by_side import IMGBUILD

from builder.emit.disk import cell_mb, environment_mb
from builder.engine.connection import Engine
from builder.matrix import Cell, load_matrix
from builder.release.diff_show import size
from builder.sizes.measure import Reader

ROOT = Path(__file__).resolve().parent.parent
MATRIX = ROOT / "matrix.yaml"
VARIANTS = ROOT / "docs/examples/variants/matrix.yaml"
EXAMPLES = [VARIANTS, *(ROOT / f"docs/examples/{name}/matrix.yaml" for name in ("online", "interpreters"))]
"""They have no locks: each of their cells is locked as whoever uses the example would do it."""
DATA = ROOT / "docs/images.json"
PAGE = ROOT / "docs/images.md"

REPOSITORY = "imgbuild-table"
UNREACHED = {8: "base", 15: "registry, index or channel", 19: "lock"}
"""Exit codes of what could not be begun here, which is no failure of the image."""
MOVED = {9, 19}
"""Exit codes of a build whose lock names packages that Debian's archive no longer has: .ci/demo does the same."""
ROOM = 2_000_000_000
"""Bytes that stay free on the engine's disk beside what a cell needs."""

MOST = {"matrix.yaml": 1.10, "docs/examples/variants/matrix.yaml": 0.50}
"""By matrix: the most that its figure may be."""

Row = dict[str, Any]
Figures = dict[str, dict[str, Any]]
"""By matrix: `images`, `bytes` of their distinct layers, `beside` (what those are compared with) and `date`."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Builds and checks every cell, and writes docs/images.md.")
    parser.add_argument("--cold", action="store_true", help="empty the engine's build cache first")
    parser.add_argument("--page", action="store_true", help="write the page from docs/images.json, and build nothing")
    parser.add_argument("cells", nargs="*", metavar="CELL", help="ids or globs")
    arguments = parser.parse_args()
    every = cells()
    rows = {row["cell"]: row for row in read_rows() if row["cell"] in every}
    figures = read_figures()
    if not arguments.page:
        chosen = [cell for cell in every if not arguments.cells or matches(cell, arguments.cells)]
        if not chosen:
            parser.error(f"no cell matches; there are {', '.join(every)}")
        with Bench.open(cold=arguments.cold) as bench:
            for matrix in (MATRIX, *EXAMPLES):
                name = matrix.relative_to(ROOT).as_posix()
                for cell in [cell for cell in chosen if every[cell][0] == matrix]:
                    before = rows.get(cell, {})
                    rows[cell] = bench.row(*every[cell], needed=before.get("used_bytes") or 0)
                    write(list(rows.values()), figures, every)
                    print(line(rows[cell]), flush=True)
                built = [row for row in rows.values() if row["matrix"] == name and "layers" in row]
                if name in MOST and built and all(row["cell"] in chosen for row in built):
                    figures[name] = bench.figure(name, built)
    write(list(rows.values()), figures, every)
    print(table([rows[cell] for cell in every if cell in rows]))
    print(*(told(matrix, figure) for matrix, figure in figures.items()), sep="\n")
    failed = any(row["status"] == "failed" for row in rows.values())
    return 1 if failed or any(ratio(figures[matrix]) > MOST[matrix] for matrix in figures) else 0


def cells() -> dict[str, tuple[Path, Cell]]:
    """Every cell by its id, in the order of the page, with its matrix file."""
    return {cell.id: (path, cell) for path in (MATRIX, *EXAMPLES) for cell in load_matrix(path).cells}


def matches(cell: str, globs: list[str]) -> bool:
    """Whether one of the globs means a cell."""
    return any(fnmatch.fnmatchcase(cell, glob) for glob in globs)


def read_rows() -> list[Row]:
    """What is known; nothing before the first run."""
    return list(json.loads(DATA.read_text())["cells"]) if DATA.exists() else []


def read_figures() -> Figures:
    """The figures of whole matrices, as they were last taken."""
    return dict(json.loads(DATA.read_text()).get("figures", {})) if DATA.exists() else {}


def write(rows: list[Row], figures: Figures, every: Mapping[str, object]) -> None:
    """Writes the data and the page."""
    order = list(every)
    rows = sorted(rows, key=lambda row: order.index(row["cell"]))
    data = {"schema": "imgbuild.images/1", "figures": figures, "cells": rows}
    DATA.write_text(json.dumps(data, indent=1) + "\n")
    PAGE.write_text(page(rows, figures))


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where cells are built: an engine, and directories that end with it."""

    reader: Reader
    client: Any
    directory: Path
    disk: str
    cold: bool

    @classmethod
    @contextlib.contextmanager
    def open(cls, *, cold: bool) -> Iterator[Bench]:
        """Ends with its directories, and with the images that it made."""
        client = docker.from_env(timeout=600)
        if cold:
            client.api.prune_builds(all=True)
        disk = client.info()["DockerRootDir"]
        if not Path(disk).is_dir():
            raise SystemExit(f"the engine's {disk} is not on this machine: how much is free there is not known")
        with tempfile.TemporaryDirectory() as name, Engine.connect() as engine:
            directory = Path(name)
            for matrix in (MATRIX, *EXAMPLES):  # what is committed stays as it is, the locks too
                copy = directory / matrix.parent.name
                copy.mkdir()
                shutil.copy(matrix, copy)
                shutil.copytree(ROOT / "dockerfiles", copy / "dockerfiles")
            try:
                yield cls(reader=Reader(engine), client=client, directory=directory, disk=disk, cold=cold)
            finally:
                remove_images(client)
                client.close()

    def row(self, matrix: Path, cell: Cell, *, needed: int) -> Row:
        """Builds, checks and measures one cell, and removes its image."""
        needed = max(needed, 1_000_000 * (environment_mb(cell) + cell_mb(cell)))
        free = self.make_room(needed + ROOM)
        row: Row = {
            "cell": cell.id,
            "matrix": matrix.relative_to(ROOT).as_posix(),
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "status": "not built here",
            "reason": None,
            "needed_bytes": needed,
            "free_bytes": free,
            "cold": self.cold,
        }
        if free < needed + ROOM:
            return row | {"reason": f"it needs {size(needed)}, and {size(free)} are free"}
        copy = str(self.directory / matrix.parent.name / "matrix.yaml")
        if matrix in EXAMPLES:
            code, _, said = self.imgbuild("lock", "-f", copy, cell.id)
            if code:
                return row | {"reason": why(said)}
        with Lowest(self.disk) as lowest:
            code, out, said = self.imgbuild("build", "-f", copy, cell.id)
            if code in MOVED and not self.imgbuild("lock", "-f", copy, "--upgrade", "debian", cell.id)[0]:
                code, out, said = self.imgbuild("build", "-f", copy, cell.id)
        row["used_bytes"] = free - lowest.bytes
        if not out:
            return row | {"status": "not built here" if code in UNREACHED else "failed", "reason": why(said)}
        (outcome,) = json.loads(out)["cells"]
        failed = [f"{check['name']}: {check['reason']}" for check in outcome["checks"] if check["status"] == "failed"]
        row |= {
            "status": outcome["status"],
            "reason": "; ".join([*outcome["reasons"], *failed]) or None,
            "key": outcome["key"],
            "reached": outcome["reached"],
            "required": outcome["require"],
            "build_seconds": round(outcome["build_seconds"]),
            "check_seconds": round(outcome["check_seconds"]),
            "checks": Counter(check["status"] for check in outcome["checks"]),
            "not_run": Counter(check["reason"] for check in outcome["checks"] if check["status"] == "not_run"),
        }
        if outcome["candidate"]:
            image = self.reader.read(outcome["candidate"], cell.id)
            row["layers"] = [[layer.diff_id, layer.bytes] for layer in image.layers if layer.bytes]
        remove_images(self.client)
        return row

    def figure(self, matrix: str, rows: list[Row]) -> dict[str, Any]:
        """The figure of a matrix, from the rows of its images, all of which were measured here."""
        distinct = {name: bytes_ for row in rows for name, bytes_ in row["layers"]}
        if matrix == "matrix.yaml":  # the first one: no image of another has been read yet
            layers = self.reader.layers.values()
            entries = [(path, entry) for layer in layers for path, entry in layer.entries.items()]
            beside = sum(bytes_ for _, bytes_, _ in {(path, entry.bytes, entry.digest) for path, entry in entries})
        else:
            beside = sum(bytes_ for row in rows for _, bytes_ in row["layers"])
        today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        return {"images": len(rows), "bytes": sum(distinct.values()), "beside": beside, "date": today}

    def imgbuild(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of a command with a state of its own."""
        environment = {**os.environ, "IMGBUILD_STATE_DIR": str(self.directory / "state")}
        command = [IMGBUILD, *arguments, "--repository", REPOSITORY]
        if arguments[0] == "build":
            command += ["--format", "json"]
        ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        return ran.returncode, ran.stdout, ran.stderr

    def make_room(self, needed: int) -> int:
        """Prunes what of the build cache is used least, as far as there is too little room; gives the free bytes."""
        free = shutil.disk_usage(self.disk).free
        if free < needed:
            cached = sum(item["Size"] for item in self.client.df()["BuildCache"] if not item["Shared"])
            self.client.api.prune_builds(keep_storage=max(1, cached - (needed - free)), all=True)
            free = shutil.disk_usage(self.disk).free
        return free


class Lowest:
    """The least free bytes of a disk while it is entered, looked at twice a second."""

    def __init__(self, path: str) -> None:
        self.bytes = shutil.disk_usage(path).free
        self._path = path
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Lowest:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(0.5):
            self.bytes = min(self.bytes, shutil.disk_usage(self._path).free)


def remove_images(client: Any) -> None:
    """Removes the cells' images of these runs, by name. Their bases stay: the next cell has the same one."""
    for image in client.images.list():
        for tag in image.tags:
            if tag.startswith(f"{REPOSITORY}/") and not tag.startswith(f"{REPOSITORY}/base:"):
                client.images.remove(tag)


def why(said: str) -> str:
    """The message of a command that ended with an error, without its hint."""
    errors = [line.removeprefix("error: ") for line in said.splitlines() if line.startswith("error: ")]
    # Which resolver this machine asks says nothing to a reader.
    errors = [re.sub(r"lookup (\S+) on [\d.:]+", r"lookup \1", error) for error in errors]
    return errors[0] if errors else (said.strip().splitlines() or ["it ended without a word"])[-1]


def line(row: Row) -> str:
    """One line on a terminal."""
    return f"{row['cell']}: {row['status']}" + (f": {row['reason']}" if row["reason"] else "")


def ratio(figure: Mapping[str, Any]) -> float:
    """Bytes of distinct layers beside what they are compared with."""
    return float(figure["bytes"]) / float(figure["beside"])


def told(matrix: str, figure: Mapping[str, Any]) -> str:
    """A matrix' figure in words."""
    what = "of distinct contents" if matrix == "matrix.yaml" else "one by one"
    return (
        f"{matrix}: {figure['images']} images, {size(figure['bytes'])} in distinct layers,"
        f" {size(figure['beside'])} {what}: {ratio(figure):.3f} (at most {MOST[matrix]:.2f}), on {figure['date']}."
    )


def unique(rows: list[Row]) -> dict[str, int]:
    """By cell: the bytes of the layers that no other cell's image has."""
    users = Counter(layer for row in rows for layer in {name for name, _ in row.get("layers", ())})
    return {row["cell"]: sum(bytes_ for name, bytes_ in row.get("layers", ()) if users[name] == 1) for row in rows}


def table(rows: list[Row]) -> str:
    """The cells as a Markdown table."""
    alone = unique(rows)
    lines = [
        "| cell | came to | level | size | unique | built in | checked in | checks |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "layers" not in row:
            lines.append(f"| `{row['cell']}` | {row['status']} | | | | | | |")
            continue
        checks = row["checks"]
        told = [f"{checks[name]} {label}" for name, label in LABELS.items() if checks.get(name)]
        lines.append(
            f"| `{row['cell']}` | {row['status']} | `{row['reached'] or 'none'}`"
            f" | {size(sum(bytes_ for _, bytes_ in row['layers']))} | {size(alone[row['cell']])}"
            f" | {row['build_seconds']} s | {row['check_seconds']} s | {', '.join(told)} |"
        )
    return "\n".join(lines)


LABELS = {"passed": "passed", "failed": "failed", "not_run": "not run"}


def page(rows: list[Row], figures: Figures) -> str:
    """docs/images.md."""
    built = [row for row in rows if "layers" in row]
    distinct = {name: bytes_ for row in built for name, bytes_ in row["layers"]}
    total = sum(bytes_ for row in built for _, bytes_ in row["layers"])
    lines = [
        "# The images",
        "",
        "<!-- Written by `make test-images` (bench/images_table.py): edit that, not this. -->",
        "",
        "Every cell of [matrix.yaml](../matrix.yaml), of [six variants of one image](examples/variants/README.md), of",
        "[what needs more of the world](examples/online/README.md) and of",
        "[other Pythons](examples/interpreters/README.md), as it was built and checked by `make test-images`, one at a"
        " time, on",
        "a machine without a GPU and without a registry. *Level* is the highest one of which every required check"
        " passed;",
        "*size* is unpacked, *unique* what no other image here has. The times are those of that run: layers that an"
        " earlier",
        "cell made, or that the engine's cache had, cost it nothing.",
        "",
        table(rows),
        "",
        f"Together: {size(total)} one by one, {size(sum(distinct.values()))} in distinct layers. Of whole matrices:",
        "",
        *(f"- {told(matrix, figure)}" for matrix, figure in figures.items()),
        "",
    ]
    reasons = [row for row in rows if row["reason"]]
    if reasons:
        lines += ["## Not built here, or not good", "", "| cell | why |", "|---|---|"]
        lines += [f"| `{row['cell']}` | {row['reason'].replace('|', chr(92) + '|')} |" for row in reasons]
        lines.append("")
    absent: dict[str, dict[str, int]] = {}
    for row in built:
        for reason, count in row["not_run"].items():
            absent.setdefault(reason, {})[row["cell"]] = count
    if absent:
        lines += ["## What did not run", "", "| checks | of the cells | because |", "|---|---|---|"]
        for reason, held in sorted(absent.items()):
            names = ", ".join(f"`{cell}`" for cell in held)
            counts = sorted(set(held.values()))
            many = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
            lines.append(f"| {many} | {names if len(held) < len(built) else 'all'} | {reason.replace('|', '/')} |")
        lines.append("")
    lines += ["## Room", "", "| cell | its build took, at most | free before |", "|---|---|---|"]
    lines += [f"| `{row['cell']}` | {size(row['used_bytes'])} | {size(row['free_bytes'])} |" for row in built]
    lines += ["", f"Measured on {', '.join(sorted({row['date'] for row in rows}))}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
