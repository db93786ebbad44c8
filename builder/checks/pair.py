"""Two or more ranks, seen from outside: started, awaited, and what they left compared.

The standard library alone: neither a framework nor what it reduces with takes part in a comparison, so that one which
reduces nothing cannot hide it. What runs in the ranks is in the groups' `_ranks.py`: each writes `rank-N.json`, section
by section, and vectors as files of raw float32.
"""

from __future__ import annotations

import array
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.checks.contract import Measured, expect, fail, short
from builder.checks.processes import ending, kill

#: Seconds that a process may go on after another one failed: it waits for a partner that is gone.
AFTERWARDS = 15.0
POLL = 0.02


@dataclass(frozen=True)
class Command:
    """A process to start: its words, its environment, and what it is called in messages."""

    name: str
    words: Sequence[str]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Launch:
    """How the processes ended, and what the ranks left.

    Attributes:
        directory: with their files.
        ranks: their number.
        code: 0 when every process ended with it, None when one had to be killed, else that of the first that failed.
        how: the same in words.
        printed: what they printed.
        reports: by rank; one that wrote none is missing.
    """

    directory: Path
    ranks: int
    code: int | None
    how: str
    printed: str
    reports: dict[int, dict[str, Any]]

    @property
    def output(self) -> str:
        """The end of what they printed."""
        return short(self.printed)

    def section(self, name: str) -> list[dict[str, Any]]:
        """What each rank reports of a section, by rank; fails when one of them did not complete it."""
        found = []
        for rank in range(self.ranks):
            report = self.reports.get(rank)
            if report is None:
                fail(f"rank {rank} reported nothing: {self.how}", detail=self.output)
            error = report["error"]
            if error is not None and error["section"] == name:
                fail(f"rank {rank}: {error['reason']}", detail=error["detail"])
            if name not in report["sections"]:
                others = [item["error"] for item in self.reports.values() if item["error"]]
                why = f"{others[0]['section']}: {others[0]['reason']}" if others else self.how
                fail(f"rank {rank} did not complete {name}: {why}", detail=self.output)
            found.append(report["sections"][name])
        return found

    def vector(self, name: str) -> array.array[float]:
        """A vector that a rank wrote."""
        path = self.directory / name
        expect(path.is_file(), f"no rank wrote {name}", detail=self.output)
        values = array.array("f")
        values.frombytes(path.read_bytes())
        return values

    def transport(self) -> str:
        """The addresses over which the ranks were connected, as each of them saw its own sockets."""
        return " and ".join(sorted({word for report in self.reports.values() for word in report["connections"]}))


def nccl_paths(made: Launch) -> str:
    """Over what NCCL connected the GPUs, as it says itself under NCCL_DEBUG=INFO, such as `P2P/CUMEM`."""
    return " and ".join(sorted(set(re.findall(r" via ((?:P2P|SHM|NET)[/\w]*)", made.printed)))) or "not told"


def program(name: str, directory: Path) -> list[str]:
    """The words that run `main(directory)` of a module below `groups/`, such as `horovod._ranks`, in a process."""
    return [sys.executable, str(Path(sys.argv[0]).resolve()), "--program", name, "--results", str(directory)]


def launch(commands: Sequence[Command], directory: Path, ranks: int, deadline: float) -> Launch:
    """Runs processes side by side to their end; what outlives `deadline` seconds, or a failed partner, is killed."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    logs = [directory / f"output-{index}" for index in range(len(commands))]
    code: int | None = 0
    how = f"{' and '.join(command.name for command in commands)} ended with exit code 0"
    try:
        for command, log in zip(commands, logs):  # noqa: B905 - Python 3.9
            with log.open("wb") as output:
                running[command.name] = subprocess.Popen(
                    list(command.words),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(command.environment),
                )
        end = time.monotonic() + deadline
        while running:
            for name, process in list(running.items()):
                ended = process.poll()
                if ended is None:
                    continue
                del running[name]
                if ended != 0 and code == 0:
                    code, how = ended, f"{name} {ending(ended)}"
                    end = min(end, time.monotonic() + AFTERWARDS)
            if running and time.monotonic() > end:
                if code == 0:
                    code, how = None, f"{' and '.join(running)} did not end within {deadline:g} s and was killed"
                break
            time.sleep(POLL)
    finally:
        for process in running.values():
            kill(process, leads=False)
    reports = {}
    for rank in range(ranks):
        path = directory / f"rank-{rank}.json"
        if path.exists():
            reports[rank] = json.loads(path.read_text(encoding="utf-8"))
    printed = "\n".join(log.read_bytes().decode("utf-8", "replace") for log in logs if log.exists())
    return Launch(directory, ranks, code, how, printed, reports)


# Vectors


def distance(left: array.array[float], right: array.array[float]) -> float:
    """The norm of the difference; vectors of different length fail."""
    if len(left) != len(right):
        fail(f"vectors of {len(left)} and {len(right)} numbers cannot be compared")
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(left, right)))  # noqa: B905 - Python 3.9


def norm(vector: array.array[float]) -> float:
    """The Euclidean norm."""
    return math.sqrt(sum(value * value for value in vector))


def largest(left: array.array[float], right: array.array[float]) -> float:
    """The largest difference of two elements."""
    return max((abs(a - b) for a, b in zip(left, right)), default=0.0)  # noqa: B905 - Python 3.9


# Comparisons


def numbers(rank: int, length: int = 257) -> list[int]:
    """Rank-dependent integers from -15 to 37 in two ranks, sums from -23 to 52: exact in every type that is reduced.

    An odd length splits badly.
    """
    return [(rank + 1) * (index % 31 - 15) + 7 * rank for index in range(length)]


def expect_ranks(made: Launch, sections: Sequence[str]) -> Measured:
    """Fails unless the ranks knew of each other, ran in processes of their own and ended well."""
    pids = []
    for rank in range(made.ranks):
        report = made.reports.get(rank)
        if report is None:
            fail(f"rank {rank} reported nothing: {made.how}", detail=made.output)
        expect(report["size"] == made.ranks, f"the size is {report['size']} in process {rank}, expected {made.ranks}")
        expect(report["rank"] == rank, f"process {rank} believes to be rank {report['rank']}")
        pids.append(report["pid"])
    expect(len(set(pids)) == made.ranks, "the ranks ran in one process")
    done = all(set(sections) <= set(report["sections"]) for report in made.reports.values())
    if done and made.code != 0:
        fail(f"both ranks did their work, but {made.how}", detail=made.output)
    return {"size": made.ranks, "pids": pids, "transport": made.transport()}


def expect_reduced(made: Launch) -> Measured:
    """Fails unless every reduction of section `allreduce` is exact in both ranks.

    The section has `reductions`, by "TYPE OPERATION", and may have `allreduce_seconds`.
    """
    first, second = numbers(0), numbers(1)
    pairs = list(zip(first, second))  # noqa: B905 - Python 3.9
    expected = {
        "sum": [a + b for a, b in pairs],
        "average": [(a + b) / 2 for a, b in pairs],
        "max": [max(pair) for pair in pairs],
        "min": [min(pair) for pair in pairs],
    }
    found = made.section("allreduce")
    for rank in (0, 1):
        expect(bool(found[rank]["reductions"]), f"rank {rank} reduced nothing")
        for name, values in found[rank]["reductions"].items():
            if values != expected[name.split()[1]]:
                own = values == (first, second)[rank]
                what = "its own values, nothing was reduced" if own else "other numbers"
                fail(f"allreduce of {name} gave rank {rank} {what}")
    seconds = found[0].get("allreduce_seconds", [])
    return {
        "reductions": sorted(found[0]["reductions"]),
        "length": len(first),
        "refused": found[0].get("refused", []),
        "transport": made.transport(),
        "series": {"allreduce_seconds": seconds} if seconds else {},
    }


def expect_broadcast(made: Launch) -> Measured:
    """Fails unless section `broadcast` has, in both ranks and by "root N", the numbers of that root."""
    found = made.section("broadcast")
    for rank in (0, 1):
        for root in (0, 1):
            if found[rank][f"root {root}"] != numbers(root):
                fail(f"after a broadcast from rank {root}, rank {rank} does not have its values")
    return {"roots": 2}


def expect_gradients(made: Launch, section: str = "gradients", rounding: float = 0.0) -> Measured:
    """Fails unless the gradients of two ranks, averaged, are that of one process on the joined batch.

    The ranks wrote `gradient-alone-N` of their halves and `gradient-joined-0`, and for this section
    `SECTION-reduced-N`; it has `bound`, `training.summation_bound` without the condition of the sum, which only the
    files of both tell.

    Args:
        made: the launch.
        section: its name.
        rounding: the u of a type that the ranks send their gradients in, when it is lower: each rank's part is rounded
            to it, their sum, and its half, all of them relative errors of at most u.
    """
    report = made.section(section)[0]
    parameters = report["parameters"]
    alone = [made.vector(f"gradient-alone-{rank}") for rank in (0, 1)]
    reduced = [made.vector(f"{section}-reduced-{rank}") for rank in (0, 1)]
    joined = made.vector("gradient-joined-0")
    expect(len(joined) == parameters > 0, f"{len(joined)} gradients of {parameters} parameters")
    size = norm(joined)
    condition = (norm(alone[0]) + norm(alone[1])) / 2 / size
    # Numbers below the smallest normal one of float16 are off by up to 2^-25 in each of the three roundings.
    tiny = 3 * math.sqrt(parameters) * 2.0**-25 / size if rounding else 0.0
    bound = report["bound"] * condition + rounding * (condition + 2) + tiny
    apart = distance(alone[0], alone[1]) / size
    expect(apart > 10 * bound, f"both ranks had the same data ({apart:.2e}): nothing was compared")
    errors = []
    for rank in (0, 1):
        error = distance(reduced[rank], joined) / size
        own = distance(reduced[rank], alone[rank]) / size
        if error > bound and own <= bound:
            fail(
                f"the gradients differ across ranks: rank {rank} kept its own, nothing was reduced",
                error=error,
                bound=bound,
            )
        expect(
            error <= bound,
            f"rank {rank}'s gradient is off by {error:.2e} from one process on the joined batch, bound {bound:.2e}",
            norm_of_reduced=norm(reduced[rank]) / size,
        )
        errors.append(error)
    expect(reduced[0] == reduced[1], "the reduced gradients differ across ranks")
    return {"error": max(errors), "bound": bound, "apart_alone": apart, "parameters": parameters}


def expect_weights(made: Launch, section: str = "weights") -> Measured:
    """Fails unless the weights of both ranks are equal, bit for bit, after every step of every training.

    The section has, for each training, `seeded` and `data` (hashes that must differ across the ranks), `steps`
    (the weights' hash before the first step and after each) and `losses`; the vectors before the first step and after
    the last are `weights-TRAINING-first-N` and `…-last-N`.
    """
    found = made.section(section)
    expect(bool(found[0]) and found[0].keys() == found[1].keys(), "the ranks trained with different optimizers")
    measured: dict[str, Any] = {"optimizers": sorted(found[0]), "series": {}}
    for name, first in found[0].items():
        second = found[1][name]
        expect(first["seeded"] != second["seeded"], f"{name}: both ranks had one seed: nothing was compared")
        expect(first["data"] != second["data"], f"{name}: both ranks had the same data: nothing was compared")
        counts = len(first["steps"]), len(second["steps"])
        expect(counts[0] == counts[1] > 1, f"{name}: the ranks noted {counts[0]} and {counts[1]} weights, not several")
        for step, (left, right) in enumerate(zip(first["steps"], second["steps"])):  # noqa: B905 - Python 3.9
            if left == right:
                continue
            last = [made.vector(f"weights-{name}-last-{rank}") for rank in (0, 1)]
            apart = largest(last[0], last[1])
            start = [made.vector(f"weights-{name}-first-{rank}") for rank in (0, 1)]
            if step == 0:
                apart = largest(start[0], start[1])
                fail(f"{name}: the ranks begin with weights that differ by up to {apart:.2e}: no broadcast")
            fail(
                f"{name}: after step {step} the weights differ across ranks, after {len(first['steps']) - 1} by up to "
                f"{apart:.2e}: gradients are not reduced",
                largest=apart,
            )
        expect(len(set(first["steps"])) == len(first["steps"]), f"{name}: a step changed no weight")
        for rank, losses in enumerate((first["losses"], second["losses"])):
            # A report has words in the place of numbers that JSON cannot hold.
            bad = [loss for loss in losses if isinstance(loss, str) or not math.isfinite(loss)]
            expect(bool(losses) and not bad, f"{name}: the losses of rank {rank} are {losses[:8]}")
        measured["steps"] = measured.get("steps", 0) + len(first["steps"]) - 1
        measured["series"].update({f"loss_{name}_{rank}": found[rank][name]["losses"] for rank in (0, 1)})
    return measured
