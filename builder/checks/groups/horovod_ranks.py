# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What an image with Horovod promises: two processes that train as one. `ranks` is the program that each of them runs.

This side compares files with the standard library; neither Horovod nor torch takes part in the comparison.
"""

from __future__ import annotations

import array
import importlib.metadata
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.checks import ranks
from builder.checks.contract import Group, Measured, NotRun, expect, fail, short
from builder.checks.processes import kill

#: Seconds for both ranks, import included; they take about 10 on two idle cores.
LAUNCH_DEADLINE = 150.0


@dataclass(frozen=True)
class Launch:
    """How the two ranks ended (`code` is the launcher's, None when it was killed) and what they left."""

    directory: Path
    code: int | None
    how: str
    output: str
    reports: dict[int, dict[str, Any]]

    def section(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """What both ranks report of a section; fails when one of them did not complete it."""
        found = []
        for rank in (0, 1):
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
        return found[0], found[1]

    def vector(self, name: str) -> array.array[float]:
        """A vector that a rank wrote."""
        values = array.array("f")
        values.frombytes((self.directory / name).read_bytes())
        return values


def _distance(left: array.array[float], right: array.array[float]) -> float:
    if len(left) != len(right):
        fail(f"vectors of {len(left)} and {len(right)} numbers cannot be compared")
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(left, right)))  # noqa: B905 - Python 3.9


def _norm(vector: array.array[float]) -> float:
    return math.sqrt(sum(value * value for value in vector))


def _largest(left: array.array[float], right: array.array[float]) -> float:
    return max(abs(a - b) for a, b in zip(left, right))  # noqa: B905 - Python 3.9


def _launcher() -> list[str]:
    beside = Path(sys.executable).with_name("horovodrun")
    found = str(beside) if beside.exists() else shutil.which("horovodrun")
    return [found] if found else [sys.executable, "-m", "horovod.runner.launch"]


def _diagnose(environment: dict[str, str]) -> None:
    """Says why no rank reported anything, where importing Horovod alone shows it."""
    command = [sys.executable, "-c", "import horovod.torch as hvd; print(bool(hvd.gloo_built()))"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=90)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        fail(f"horovod.torch cannot be imported: {last}", detail=short(done.stderr))
    if done.stdout.strip() == "False":
        raise NotRun("Horovod is built without Gloo")


def _prepare() -> tuple[Any, Measured]:
    """Launches the two ranks once, for all checks of this group."""
    for package in ("torch", "horovod"):
        if importlib.util.find_spec(package) is None:
            raise NotRun(f"{package} is not installed")
    directory = Path(tempfile.mkdtemp(prefix="ranks-", dir=Path.cwd()))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [*_launcher(), "--gloo", "-np", "2", "-H", "localhost:2", sys.executable]
    command += [str(Path(sys.argv[0]).resolve()), "--rank", str(directory)]
    log = directory / "output"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        code = None
        try:
            code = process.wait(LAUNCH_DEADLINE)
            how = f"horovodrun ended with exit code {code}"
        except subprocess.TimeoutExpired:
            kill(process, leads=False)
            how = f"horovodrun did not end within {LAUNCH_DEADLINE:g} s and was killed"
    reports = {}
    for rank in (0, 1):
        path = directory / f"rank-{rank}.json"
        if path.exists():
            reports[rank] = json.loads(path.read_text(encoding="utf-8"))
    if not reports:
        _diagnose(environment)
    version = importlib.metadata.version("horovod")
    facts = {"horovod": {"version": version, **reports[0]["built"]}} if 0 in reports else {}
    return Launch(directory, code, how, short(log.read_bytes().decode("utf-8", "replace")), reports), facts


GROUP = Group("horovod", prepare=_prepare, deadline=LAUNCH_DEADLINE + 120)


@GROUP.check(
    "horovod.ranks",
    level="cpu",
    deadline=60,
    catches="Two processes that each believe to be alone, or that crash or hang when they end.",
)
def _ranks(launch: Launch) -> Measured:
    found = []
    for rank in (0, 1):
        report = launch.reports.get(rank)
        if report is None:
            fail(f"rank {rank} reported nothing: {launch.how}", detail=launch.output)
        expect(report["size"] == 2, f"size() is {report['size']} in process {rank}, expected 2")
        expect(report["rank"] == rank, f"rank() is {report['rank']} in process {rank}")
        found.append(report["pid"])
    expect(found[0] != found[1], "both ranks ran in one process")
    done = all(report["sections"].keys() == ranks.SECTIONS.keys() for report in launch.reports.values())
    if done and launch.code != 0:
        fail(f"both ranks did their work, but {launch.how}", detail=launch.output)
    return {"size": 2, "pids": found}


@GROUP.check(
    "horovod.allreduce",
    level="cpu",
    deadline=60,
    catches="Sums and averages over the ranks that are wrong in some type, or not computed at all.",
)
def _allreduce(launch: Launch) -> Measured:
    first, second = ranks.numbers(0), ranks.numbers(1)
    total = [a + b for a, b in zip(first, second)]  # noqa: B905 - Python 3.9
    expected = {"sum": total, "average": [value / 2 for value in total]}  # exact in every type
    found = launch.section("allreduce")
    for rank in (0, 1):
        for name, values in found[rank].items():
            if values != expected[name.split()[1]]:
                own = values == (first, second)[rank]
                what = "its own values, nothing was reduced" if own else "other numbers"
                fail(f"allreduce of {name} gave rank {rank} {what}")
    return {"reductions": sorted(found[0]), "length": len(total)}


@GROUP.check(
    "horovod.broadcast",
    level="cpu",
    deadline=60,
    catches="A broadcast after which the ranks do not have the root's values.",
)
def _broadcast(launch: Launch) -> Measured:
    found = launch.section("broadcast")
    for rank in (0, 1):
        for root in (0, 1):
            if found[rank][f"root {root}"] != ranks.numbers(root):
                fail(f"after a broadcast from rank {root}, rank {rank} does not have its values")
    return {"roots": 2}


@GROUP.check(
    "horovod.gradients",
    level="cpu",
    deadline=60,
    catches="Gradients of two processes that are not the gradient of one process on the joined batch.",
)
def _gradients(launch: Launch) -> Measured:
    report = launch.section("gradients")[0]
    parameters = report["parameters"]
    alone = [launch.vector(f"gradient-alone-{rank}") for rank in (0, 1)]
    reduced = [launch.vector(f"gradient-reduced-{rank}") for rank in (0, 1)]
    joined = launch.vector("gradient-joined-0")
    expect(len(joined) == parameters > 0, f"{len(joined)} gradients of {parameters} parameters")
    norm = _norm(joined)
    # `training.summation_bound`, of which the ranks know all but the condition of the sum.
    bound = report["bound"] * (_norm(alone[0]) + _norm(alone[1])) / 2 / norm
    apart = _distance(alone[0], alone[1]) / norm
    expect(apart > 100 * bound, f"both ranks had the same data ({apart:.2e}): nothing was compared")
    errors = []
    for rank in (0, 1):
        error = _distance(reduced[rank], joined) / norm
        own = _distance(reduced[rank], alone[rank]) / norm
        if error > bound and own <= bound:
            fail(
                f"the gradients differ across ranks: rank {rank} kept its own, nothing was reduced",
                error=error,
                bound=bound,
            )
        expect(
            error <= bound,
            f"rank {rank}'s gradient is off by {error:.2e} from one process on the joined batch, bound {bound:.2e}",
        )
        errors.append(error)
    return {"error": max(errors), "bound": bound, "apart_alone": apart, "parameters": parameters}


@GROUP.check(
    "horovod.weights",
    level="cpu",
    deadline=60,
    catches="Ranks whose weights drift apart while they train on different data.",
)
def _weights(launch: Launch) -> Measured:
    first, second = launch.section("weights")
    expect(first["seeded"] != second["seeded"], "both ranks had one seed: nothing was compared")
    expect(first["data"] != second["data"], "both ranks had the same data: nothing was compared")
    start = [launch.vector(f"weights-first-{rank}") for rank in (0, 1)]
    end = [launch.vector(f"weights-last-{rank}") for rank in (0, 1)]
    if start[0] != start[1]:
        apart = _largest(start[0], start[1])
        fail(f"broadcast_parameters left the weights different across ranks, by up to {apart:.2e}")
    expect(_largest(start[0], end[0]) > 0, f"{ranks.STEPS} steps changed no weight")
    if end[0] != end[1]:
        apart = _largest(end[0], end[1])
        fail(
            f"after {ranks.STEPS} steps the weights differ across ranks by up to {apart:.2e}: "
            "gradients are not reduced",
            largest=apart,
        )
    return {
        "steps": ranks.STEPS,
        "parameters": len(end[0]),
        "moved": _largest(start[0], end[0]),
        "losses": [first["losses"][-1], second["losses"][-1]],
    }
