"""Reading results that may be anything, and judging those that can be read."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest

from builder.check import (
    HOST_CHECKS,
    CheckResult,
    Expectation,
    NoResult,
    Status,
    Verdict,
    VerdictStatus,
    judge,
    parse_result,
    required_checks,
    suite,
)
from builder.check.judge import failed_verdict
from builder.checks.groups.tensorflow import PROJECTS
from builder.errors import CheckFailed, ConfigError
from builder.matrix import Level

NONCE = "0123456789abcdef"
PACKAGES = {"pip": "26.3", "torch": "2.13.0+cpu", "numpy": "2.4.6", "horovod": "0.28.1"}


def check(name: str, status: str = "passed", *, level: str = "cpu", reason: str | None = None) -> dict[str, Any]:
    if reason is None:
        reason = "" if status == "passed" else "because"
    return {"name": name, "level": level, "status": status, "reason": reason, "seconds": 0.5, "measured": {}}


def document(**changes: Any) -> dict[str, Any]:
    """A result as the suite writes it."""
    facts = {
        "python": "3.11.2",
        "platform": "Linux-6.1-x86_64-with-glibc2.36",
        "system": "Debian GNU/Linux 12 (bookworm)",
        "uid": 12345,
        "packages": dict(PACKAGES),
        "cpu": {"model": "some processor", "count": 2},
        "devices": [],
        "torch": {"version": "2.13.0+cpu", "cuda": None, "num_threads": 2, "capability": "AVX2"},
        "horovod": {"version": "0.28.1", "gloo": True, "mpi": False, "nccl": False},
        "tensorflow": {"version": "2.21.0", "cuda": None, "keras": "3.12.0", "gpus": []},
        "builds": {"torch": {"version": "2.13.0+cpu", "cuda": None}},
    }
    facts.update(changes.pop("facts", {}))
    return {
        "schema": "imgbuild.check-result/1",
        "nonce": NONCE,
        "complete": True,
        "level": "cpu",
        "started": "2026-11-23T12:00:00+00:00",
        "seconds": 20.5,
        "facts": facts,
        "checks": [
            check("static.python", level="static"),
            check("torch.train.amp"),
            check("horovod.weights"),
            check("torch.gpu.train.amp", "not_run", level="gpu", reason="no GPU"),
        ],
        **changes,
    }


def result(**changes: Any) -> CheckResult:
    return parse_result(json.dumps(document(**changes)).encode(), NONCE)


def expectation(**changes: Any) -> Expectation:
    whole = Expectation(
        packages=PACKAGES,
        promised=frozenset({"torch", "horovod"}),
        python="3.11",
        cuda="cpu",
        level=Level.CPU,
        required=frozenset({"static.*", "torch.*", "horovod.*"}),
    )
    return replace(whole, **changes)


def with_check(*checks: dict[str, Any]) -> list[dict[str, Any]]:
    """The checks of `document`, those of the same name replaced."""
    replaced = {item["name"]: item for item in checks}
    return [replaced.pop(item["name"], item) for item in document()["checks"]] + list(replaced.values())


# Reading


def test_a_good_result_is_read_into_its_types() -> None:
    read = result()
    assert read.level is Level.CPU
    assert read.facts.packages == PACKAGES
    assert read.facts.torch is not None
    assert (read.facts.torch.version, read.facts.torch.cuda) == ("2.13.0+cpu", None)
    assert read.facts.horovod is not None
    assert read.facts.horovod.gloo
    assert [(item.name, item.status, item.level) for item in read.checks][-1] == (
        "torch.gpu.train.amp",
        Status.NOT_RUN,
        Level.GPU,
    )


def test_facts_that_are_absent_are_none() -> None:
    read = result(facts={"torch": None, "horovod": None})
    assert read.facts.torch is None
    assert read.facts.horovod is None


def test_a_result_for_another_request_is_refused() -> None:
    with pytest.raises(NoResult, match="another request: its nonce"):
        parse_result(json.dumps(document()).encode(), "another")
    assert issubclass(NoResult, CheckFailed)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no JSON"),
        (b"\xff\xfe\x00garbage", "is no JSON"),
        (b"{", "is no JSON"),
        (b"[]", "result is not an object"),
        (b"null", "result is not an object"),
        (b"7", "result is not an object"),
        (b'{"schema": 1}', "result.schema is not a text"),
        (b'{"schema": "imgbuild.check-result/2"}', "is of schema 'imgbuild.check-result/2'"),
        (b'{"a": 1, "a": 2}', "a key twice"),
        (b'{"a": NaN}', "the number NaN"),
        (b'{"a": -Infinity}', "the number -Infinity"),
        (b"[" * 200_000, "nested too deeply"),
        (b"9" * 100_000, "is no JSON"),
        (b" " * (1 << 20) + b"{}", "more than 1048576 bytes"),
        (b"\x00" * 1000, "is no JSON"),
    ],
)
def test_what_is_no_result_is_refused_in_words(data: bytes, message: str) -> None:
    with pytest.raises(NoResult) as caught:
        parse_result(data, NONCE)
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 1000


def path_of(root: dict[str, Any], path: str) -> tuple[Any, Any]:
    """The object that holds the last part of a path, and that part."""
    parts: list[Any] = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in parts[:-1]:
        root = root[part]
    return root, parts[-1]


LEAVES = [
    ("complete", False, "is not complete"),
    ("complete", "true", "result.complete is not true or false"),
    ("complete", 1, "result.complete is not true or false"),
    ("level", "cosmic", "result.level is not a level"),
    ("seconds", -1, "result.seconds is not a number from 0"),
    ("seconds", True, "result.seconds is not a number from 0"),
    ("seconds", 10**400, "result.seconds is not a number from 0"),
    ("seconds", "1", "result.seconds is not a number from 0"),
    ("started", None, "result.started is not a text"),
    ("checks", {}, "result.checks is not a list"),
    ("checks", [], "has no checks"),
    ("checks", [1], "result.checks[0] is not an object"),
    ("checks", [check("a.b"), check("a.b")], "two checks of one name"),
    ("checks/0/name", "A b", "is no name of a check"),
    ("checks/0/name", "x" * 500, "is no name of a check"),
    ("checks/0/name", 5, "result.checks[0].name is not a text"),
    ("checks/0/status", "ok", "the status of static.python is none of the three"),
    ("checks/0/status", None, "result.checks[0].status is not a text"),
    ("checks/0/level", "", "result.checks[0].level is not a level"),
    ("checks/3/reason", "", "torch.gpu.train.amp is not_run without a reason"),
    ("checks/0/measured", [], "result.checks[0].measured is not an object"),
    ("facts", [], "result.facts is not an object"),
    ("facts/python", 3.11, "result.facts.python is not a text"),
    ("facts/uid", -1, "result.facts.uid is not a whole number"),
    ("facts/uid", 1.5, "result.facts.uid is not a whole number"),
    ("facts/packages", ["torch"], "result.facts.packages is not an object"),
    ("facts/packages", {"torch": 2}, "'torch' is no package with a version"),
    ("facts/packages", {"torch": ""}, "'torch' is no package with a version"),
    ("facts/packages", {"../x": "1"}, "'../x' is no package with a version"),
    ("facts/packages", {"Torch": "1"}, "'Torch' is no package with a version"),
    ("facts/devices", [1], "result.facts.devices is not a list of texts"),
    ("facts/cpu", None, "result.facts.cpu is not an object"),
    ("facts/torch", "2.13", "result.facts.torch is not an object"),
    ("facts/torch/version", None, "result.facts.torch.version is not a text"),
    ("facts/horovod/gloo", 1, "result.facts.horovod.gloo is not true or false"),
    ("facts/tensorflow/gpus", [1], "result.facts.tensorflow.gpus is not a list of texts"),
    ("facts/builds/torch", "2.13", "result.facts.builds.torch is not an object"),
]


@pytest.mark.parametrize(("path", "value", "message"), LEAVES)
def test_every_field_is_looked_at(path: str, value: object, message: str) -> None:
    changed = document()
    holder, last = path_of(changed, path)
    holder[last] = value
    with pytest.raises(NoResult) as caught:
        parse_result(json.dumps(changed).encode(), NONCE)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "path", sorted({path for path, _, _ in LEAVES if path not in ("facts/torch", "facts/builds/torch")})
)
def test_no_field_may_be_missing(path: str) -> None:
    changed = document()
    holder, last = path_of(changed, path)
    del holder[last]
    with pytest.raises(NoResult):
        parse_result(json.dumps(changed).encode(), NONCE)


def curve(*points: object, name: object = "loss") -> bytes:
    """A result with one series of a check."""
    checks = [{**check("torch.train.amp"), "series": {name: list(points)}}]
    return json.dumps(document(checks=checks)).encode()


def test_a_curve_of_any_numbers_is_read() -> None:
    far = 10**400  # an integer, which no float can hold
    (found,) = parse_result(curve(1, 0.5, "nan", "inf", "-inf", far, -far, 1e300), NONCE).checks
    first, second, unknown, *rest = found.series["loss"]
    assert (first, second, math.isnan(unknown)) == (1.0, 0.5, True)
    assert rest == [math.inf, -math.inf, math.inf, -math.inf, math.inf]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (curve(True), "a series of torch.train.amp holds what is no number"),
        (curve(None), "a series of torch.train.amp holds what is no number"),
        (curve("1"), "a series of torch.train.amp holds what is no number"),
        (curve([1.0]), "a series of torch.train.amp holds what is no number"),
        (curve(1.0, name="../loss"), "'../loss' of torch.train.amp is no series of numbers"),
    ],
)
def test_a_curve_of_anything_else_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(NoResult, match=re.escape(message)):
        parse_result(data, NONCE)


def test_text_of_an_image_cannot_write_to_the_terminal() -> None:
    read = result(checks=with_check(check("torch.train.amp", "failed", reason="\x1b[2Jgone\r\nand \u202ebidi")))
    assert read.checks[1].reason == "[2Jgone and bidi"


# Judging


def reasons(verdict: Verdict) -> str:
    return "; ".join(verdict.reasons)


def test_passes_when_all_that_is_required_passed_and_the_facts_are_the_cells() -> None:
    verdict = judge(expectation(), result())
    assert verdict.status is VerdictStatus.PASSED
    assert verdict.level is Level.CPU
    assert verdict.reasons == ()
    assert verdict.facts == result().facts
    assert verdict.checks[4:] == result().checks
    assert [(row.name, row.status) for row in verdict.checks[:4]] == [
        ("run.result", Status.PASSED),
        ("cell.python", Status.PASSED),
        ("cell.packages", Status.PASSED),
        ("cell.cuda", Status.PASSED),
    ]
    assert (verdict.reached, verdict.verified, verdict.unverified) == (Level.CPU, True, ())


def test_a_required_check_that_failed_fails() -> None:
    checks = with_check(check("horovod.weights", "failed", reason="the weights differ across ranks"))
    verdict = judge(expectation(), result(checks=checks))
    assert verdict.status is VerdictStatus.FAILED
    assert verdict.reasons == ("horovod.weights: the weights differ across ranks",)


def test_a_check_that_is_not_required_fails_too() -> None:
    verdict = judge(expectation(), result(checks=with_check(check("dask.compute", "failed"))))
    assert verdict.status is VerdictStatus.FAILED
    assert verdict.reasons == ("dask.compute: because",)


def test_a_check_that_is_not_required_need_not_run() -> None:
    verdict = judge(expectation(), result(checks=with_check(check("dask.compute", "not_run"))))
    assert verdict.status is VerdictStatus.PASSED


def test_a_required_check_that_did_not_run_is_incomplete() -> None:
    verdict = judge(expectation(), result(checks=with_check(check("horovod.weights", "not_run", reason="no Gloo"))))
    assert verdict.status is VerdictStatus.INCOMPLETE
    assert verdict.reasons == ("horovod.weights: did not run: no Gloo",)


def test_a_required_check_that_the_suite_lacks_is_incomplete() -> None:
    verdict = judge(expectation(required=frozenset({"torch.*", "mxnet.train"})), result())
    assert verdict.status is VerdictStatus.INCOMPLETE
    assert verdict.reasons == ("mxnet.train: required, but the suite has no such check",)


def test_failed_outweighs_incomplete_and_both_are_told() -> None:
    checks = with_check(check("horovod.weights", "not_run"), check("torch.train.amp", "failed"))
    verdict = judge(expectation(), result(checks=checks))
    assert verdict.status is VerdictStatus.FAILED
    assert verdict.reasons == ("torch.train.amp: because", "horovod.weights: did not run: because")


def test_a_gpu_cell_is_not_passed_by_what_ran_on_a_cpu() -> None:
    wanted = expectation(level=Level.GPU)
    verdict = judge(wanted, result(level="gpu"))
    assert verdict.status is VerdictStatus.INCOMPLETE
    assert reasons(verdict) == "torch.gpu.train.amp: did not run: no GPU"
    ran = with_check(check("torch.gpu.train.amp", level="gpu"))
    assert judge(wanted, result(level="gpu", checks=ran)).status is VerdictStatus.PASSED
    shallow = judge(wanted, result(level="cpu", checks=ran))
    assert shallow.status is VerdictStatus.INCOMPLETE
    assert reasons(shallow) == "the checks went up to cpu, required is gpu"


def test_requiring_nothing_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match="no check is required"):
        judge(expectation(required=frozenset()), result())


def test_requiring_only_what_lies_above_the_level_is_incomplete() -> None:
    verdict = judge(expectation(required=frozenset({"torch.gpu.*"})), result())
    assert verdict.status is VerdictStatus.INCOMPLETE
    assert verdict.reasons == ("none of the required checks belongs to level cpu",)


TORCH = document()["facts"]["torch"]


@pytest.mark.parametrize(
    ("facts", "row", "reason"),
    [
        (
            {"packages": {**PACKAGES, "torch": "2.12.0+cpu"}},
            "cell.packages",
            "torch is 2.12.0+cpu, the cell says 2.13.0+cpu",
        ),
        ({"packages": {**PACKAGES, "torch": "2.13.0"}}, "cell.packages", "torch is 2.13.0, the cell says 2.13.0+cpu"),
        ({"packages": {**PACKAGES, "numpy": "1, 2"}}, "cell.packages", "numpy is 1, 2, the cell says 2.4.6"),
        (
            {"packages": {**PACKAGES, "intruder": "1.0", "other": "2"}},
            "cell.packages",
            "installed but not pinned: intruder 1.0, other 2",
        ),
        (
            {"packages": {key: value for key, value in PACKAGES.items() if key != "horovod"}},
            "cell.packages",
            "horovod is promised and not installed",
        ),
        (
            {"packages": {}},
            "cell.packages",
            "horovod is promised and not installed; torch is promised and not installed",
        ),
        ({"python": "3.12.1"}, "cell.python", "Python is 3.12.1, the cell says 3.11"),
        ({"python": "3.1"}, "cell.python", "Python is 3.1, the cell says 3.11"),
        (
            {"torch": {**TORCH, "version": "2.12.0+cpu"}},
            "cell.packages",
            "torch says it is 2.12.0+cpu, the cell says 2.13.0+cpu",
        ),
        ({"torch": {**TORCH, "cuda": "13.0"}}, "cell.cuda", "torch is built for CUDA 13.0, the cell says cpu"),
        ({"torch": None, "builds": {}}, "cell.cuda", "torch could not be asked which CUDA it is built for"),
    ],
)
def test_an_image_that_is_not_what_its_cell_promises_fails(facts: dict[str, Any], row: str, reason: str) -> None:
    verdict = judge(expectation(), result(facts=facts))
    assert verdict.status is VerdictStatus.FAILED
    assert verdict.reached is None
    assert verdict.reasons == (f"{row}: {reason}",)
    assert [(each.name, each.reason) for each in verdict.checks if each.status is Status.FAILED] == [(row, reason)]


def test_a_reason_does_not_grow_with_the_number_of_packages() -> None:
    packages = {**PACKAGES, **{f"intruder-{number}": "1" for number in range(500)}}
    (reason,) = judge(expectation(), result(facts={"packages": packages})).reasons
    assert reason.endswith(", and 488 more")
    assert len(reason) < 600


def test_what_nobody_promises_is_not_run_and_says_so() -> None:
    def host(verdict: Verdict) -> dict[str, tuple[Status, str]]:
        rows = (row for row in verdict.checks if row.name.startswith("cell."))
        return {row.name: (row.status, row.reason) for row in rows}

    free = judge(expectation(packages={}, promised=frozenset(), python="", cuda=""), result())
    assert free.status is VerdictStatus.PASSED
    assert host(free) == {
        "cell.python": (Status.NOT_RUN, "no version of Python is promised"),
        "cell.packages": (Status.NOT_RUN, "no packages are promised"),
        "cell.cuda": (Status.NOT_RUN, "no framework with a CUDA of its own is promised"),
    }
    assert set(host(judge(None, result())).values()) == {(Status.NOT_RUN, "the image is held to no cell of a matrix")}


def test_what_broke_the_asking_is_blamed_and_not_the_cell() -> None:
    # torch that cannot be imported has failed by its own name; a torch that passed and says nothing is another matter.
    broken = result(
        facts={"torch": None, "builds": {}}, checks=with_check(check("torch.train.amp", "failed", reason="no libtorch"))
    )
    verdict = judge(expectation(), broken)
    assert verdict.reasons == (
        "torch.train.amp: no libtorch",
        "cell.cuda: did not run: torch could not be asked which CUDA it is built for",
    )
    unlisted = result(
        facts={"packages": {}}, checks=with_check(check("static.python", "failed", level="static", reason="crashed"))
    )
    assert judge(expectation(), unlisted).reasons[0] == "static.python: crashed"
    assert "cell.packages" not in {
        row.name for row in judge(expectation(), unlisted).checks if row.status is Status.FAILED
    }


def test_an_image_that_was_checked_statically_is_not_asked_for_its_cuda() -> None:
    wanted = expectation(level=Level.STATIC)
    checks = [
        check("static.python", level="static"),
        check("torch.train.amp", "not_run"),
        check("horovod.weights", "not_run"),
    ]
    verdict = judge(wanted, result(level="static", checks=checks, facts={"torch": None, "builds": {}}))
    assert (verdict.status, verdict.reached) == (VerdictStatus.PASSED, Level.STATIC)
    assert [row.reason for row in verdict.checks if row.name == "cell.cuda"] == ["the checks went up to level static"]


NCCL = {"version": "0.28.1", "gloo": True, "mpi": False, "nccl": True}


def test_cuda_is_compared_by_major_and_minor_version() -> None:
    facts = {"torch": {**TORCH, "cuda": "13.0"}, "horovod": NCCL}
    assert judge(expectation(cuda="13.0.2"), result(facts=facts)).status is VerdictStatus.PASSED
    verdict = judge(expectation(cuda="12.8"), result(facts=facts))
    assert reasons(verdict) == "cell.cuda: torch is built for CUDA 13.0, the cell says 12.8"
    cpu = judge(expectation(cuda="13.0"), result(facts={"horovod": NCCL}))
    assert reasons(cpu) == "cell.cuda: torch is built for CUDA cpu, the cell says 13.0"


def test_a_horovod_for_cuda_has_nccl_operations() -> None:
    facts = {"torch": {**TORCH, "cuda": "13.0"}}
    wanted = expectation(cuda="13.0")
    verdict = judge(wanted, result(facts={**facts, "horovod": {**NCCL, "nccl": False}}))
    assert reasons(verdict) == "cell.cuda: horovod has no NCCL operations, the cell is for CUDA 13.0"
    assert judge(wanted, result(facts={**facts, "horovod": NCCL})).status is VerdictStatus.PASSED
    only_torch = replace(wanted, promised=frozenset({"torch"}))
    assert judge(only_torch, result(facts=facts)).status is VerdictStatus.PASSED


@pytest.mark.parametrize(
    ("pinned", "installed", "said", "reason"),
    [
        ("2.14.1", "2.14.1", "2.14.1+cu130", ""),  # as the package index has it
        ("2.14.1+cu130", "2.14.1+cu130", "2.14.1+cu130", ""),  # as PyTorch's channel has it
        ("2.14.1", "2.14.1", "2.14.0+cu130", "torch says it is 2.14.0+cu130, the cell says 2.14.1"),
        ("2.14.1", "2.14.1+cu130", "2.14.1+cu130", "torch is 2.14.1+cu130, the cell says 2.14.1"),
        ("2.14.1+cu130", "2.14.1+cu130", "2.14.1+cpu", "torch says it is 2.14.1+cpu, the cell says 2.14.1+cu130"),
        ("2.14.1+cu130", "2.14.1+cu130", "2.14.1", "torch says it is 2.14.1, the cell says 2.14.1+cu130"),
    ],
)
def test_a_build_of_the_package_index_says_more_of_itself_than_its_version(
    pinned: str, installed: str, said: str, reason: str
) -> None:
    facts = {
        "torch": {**TORCH, "version": said, "cuda": "13.0"},
        "packages": {**PACKAGES, "torch": installed},
        "horovod": NCCL,
    }
    verdict = judge(expectation(cuda="13.0", packages={**PACKAGES, "torch": pinned}), result(facts=facts))
    assert reasons(verdict) == (f"cell.packages: {reason}" if reason else "")


FOR_13 = "torch is built for CUDA 13.0, the cell says cpu"


@pytest.mark.parametrize(
    ("facts", "level", "reason"),
    [
        ({"builds": {"torch": {"version": "2.13.0+cpu", "cuda": None}}, "torch": None}, "cpu", ""),
        ({"builds": {"torch": {"version": "2.13.0+cu130", "cuda": "13.0"}}, "torch": None}, "cpu", FOR_13),
        ({"builds": {"torch": {"cuda": "13.0.1"}}, "torch": None}, "static", FOR_13),
        # What runs is what was imported.
        ({"builds": {"torch": {"cuda": "13.0"}}}, "cpu", ""),
        ({"builds": {}, "torch": None}, "cpu", "torch could not be asked which CUDA it is built for"),
    ],
)
def test_what_a_framework_s_files_say_counts_where_it_cannot_be_imported(
    facts: dict[str, Any], level: str, reason: str
) -> None:
    verdict = judge(expectation(), result(facts=facts, level=level))
    (row,) = [row for row in verdict.checks if row.name == "cell.cuda"]
    assert (row.status, row.reason) == (Status.FAILED if reason else Status.PASSED, reason)


def test_tensorflow_is_held_to_its_cell_too() -> None:
    tensorflow = {"version": "2.21.0", "cuda": "12.5", "keras": "3.12.0", "gpus": []}
    wanted = expectation(
        promised=frozenset({"tensorflow"}), packages={"tensorflow": "2.21.0", "pip": "26.3"}, cuda="12.5"
    )
    facts = {"tensorflow": tensorflow, "torch": None, "packages": {"tensorflow": "2.21.0", "pip": "26.3"}}
    assert judge(wanted, result(facts=facts)).status is VerdictStatus.PASSED
    cpu = judge(wanted, result(facts={**facts, "tensorflow": {**tensorflow, "cuda": None}}))
    assert cpu.reasons == ("cell.cuda: tensorflow is built for CUDA cpu, the cell says 12.5",)
    other = judge(wanted, result(facts={**facts, "tensorflow": {**tensorflow, "version": "2.20.0"}}))
    assert other.reasons == ("cell.packages: tensorflow says it is 2.20.0, the cell says 2.21.0",)


@pytest.mark.parametrize(
    ("packages", "cuda", "reason"),
    [
        ({}, "cpu", ""),
        ({"jax-cuda12-plugin": "0.10.2", "nvidia-cuda-runtime-cu12": "12.9.79"}, "12.9", ""),
        ({"jax-cuda13-plugin": "0.10.2", "nvidia-cuda-runtime": "13.0.96"}, "13.0", ""),
        ({"jax-cuda12-plugin": "0.10.2"}, "cpu", "jax is built for CUDA 12, the cell says cpu"),
        ({}, "12.9", "jax is built for CUDA cpu, the cell says 12.9"),
        ({"jax-cuda12-plugin": "0.10.2"}, "12.9", "jax is built for CUDA 12, the cell says 12.9"),
        (
            {"jax-cuda12-plugin": "0.10.2", "nvidia-cuda-runtime-cu12": "12.8.90"},
            "12.9",
            "jax is built for CUDA 12.8, the cell says 12.9",
        ),
        (
            {"jax-cuda13-plugin": "0.10.2", "nvidia-cuda-runtime": "12.9.79"},
            "12.9",
            "jax is built for CUDA 13, the cell says 12.9",
        ),
    ],
)
def test_jax_is_for_the_cuda_beside_its_plugin(packages: dict[str, str], cuda: str, reason: str) -> None:
    installed = {"jax": "0.10.2", **packages}
    wanted = expectation(promised=frozenset({"jax"}), packages=installed, cuda=cuda)
    verdict = judge(wanted, result(facts={"packages": installed, "torch": None, "tensorflow": None, "builds": {}}))
    (row,) = [row for row in verdict.checks if row.name == "cell.cuda"]
    assert (row.status, row.reason) == (Status.FAILED if reason else Status.PASSED, reason)


def test_names_and_versions_are_compared_as_packages_do() -> None:
    packages = {
        "Torch": "2.13.0+cpu",
        "pip": "26.03",
        "numpy": "2.4.6.0",
        "Horovod": "0.28.1",
        "typing_extensions": "4",
    }
    facts = {"packages": {**PACKAGES, "typing-extensions": "4.0"}}
    wanted = expectation(packages=packages, promised=frozenset({"Torch"}))
    assert judge(wanted, result(facts=facts)).status is VerdictStatus.PASSED


def test_a_pin_that_is_not_promised_need_not_be_installed() -> None:
    verdict = judge(expectation(packages={**PACKAGES, "spare": "1"}), result())
    assert verdict.status is VerdictStatus.PASSED


# Levels

GPU_ROWS = {
    "ran": [check("torch.gpu.train.amp", level="gpu")],
    "absent": [check("torch.gpu.train.amp", "not_run", level="gpu", reason="the request goes up to level cpu")],
    "broken": [check("torch.gpu.train.amp", "failed", level="gpu", reason="NaN")],
}
CPU_ROWS = {
    "ran": [check("torch.train.amp"), check("horovod.weights")],
    "absent": [check("torch.train.amp"), check("horovod.weights", "not_run", reason="no Gloo")],
    "broken": [check("torch.train.amp", "failed", reason="no loss"), check("horovod.weights")],
    "none": [],
}
STATIC_ROWS = {
    "ran": [check("static.python", level="static")],
    "absent": [check("static.python", "not_run", level="static", reason="no shell")],
    "broken": [check("static.python", "failed", level="static", reason="two")],
    "none": [],
}


@pytest.mark.parametrize(
    ("static", "cpu", "gpu", "reached"),
    [
        ("ran", "ran", "ran", Level.GPU),
        ("ran", "ran", "absent", Level.CPU),
        ("ran", "ran", "broken", None),
        ("ran", "absent", "ran", Level.STATIC),
        ("ran", "absent", "absent", Level.STATIC),
        ("ran", "absent", "broken", None),
        ("ran", "broken", "ran", None),
        ("ran", "broken", "absent", None),
        ("ran", "broken", "broken", None),
        ("absent", "ran", "ran", None),
        ("absent", "ran", "absent", None),
        ("absent", "absent", "absent", None),
        ("broken", "ran", "ran", None),
        ("broken", "absent", "absent", None),
        # A level needs a check of its own: what has none at `cpu` did not show that it works on one.
        ("ran", "none", "absent", Level.STATIC),
        ("ran", "none", "ran", Level.GPU),
        ("none", "ran", "absent", Level.CPU),
        ("none", "none", "absent", None),
    ],
)
@pytest.mark.parametrize("public", [Level.STATIC, Level.CPU, Level.GPU])
def test_the_level_that_is_reached(static: str, cpu: str, gpu: str, reached: Level | None, public: Level) -> None:
    """Whatever the policy asks for, what was reached is the same; and what it comes to follows from both."""
    rows = [*STATIC_ROWS[static], *CPU_ROWS[cpu], *GPU_ROWS[gpu]]
    required = frozenset(row["name"] for row in rows)
    wanted = expectation(level=public, verified=Level.GPU, required=required)
    verdict = judge(wanted, result(level="gpu", checks=rows))
    assert verdict.reached is reached
    if "broken" in (static, cpu, gpu):
        assert verdict.status is VerdictStatus.FAILED
    elif reached is None or reached < public:
        assert verdict.status is VerdictStatus.INCOMPLETE
    else:
        assert verdict.status is VerdictStatus.PASSED
    assert verdict.verified is (reached is Level.GPU)
    assert bool(verdict.unverified) is (verdict.status is VerdictStatus.PASSED and reached is not Level.GPU)
    assert bool(verdict.reasons) is (verdict.status is not VerdictStatus.PASSED)


def test_nothing_is_reached_above_what_was_asked_for() -> None:
    # The row says that it ran on a GPU, in an answer to a request that did not ask for it.
    rows = with_check(check("torch.gpu.train.amp", level="gpu"))
    assert judge(expectation(verified=Level.GPU), result(level="cpu", checks=rows)).reached is Level.CPU
    assert judge(expectation(verified=Level.GPU), result(level="gpu", checks=rows)).reached is Level.GPU


def test_what_is_missing_for_verified_is_said_with_the_host_s_reason() -> None:
    rows = with_check(
        check("torch.gpu.train.amp", "not_run", level="gpu", reason="the request goes up to level cpu"),
        check("torch.gpu.numerics", "not_run", level="gpu", reason="the request goes up to level cpu"),
    )
    wanted = expectation(verified=Level.GPU)
    verdict = judge(wanted, result(checks=rows), limit="this engine can give containers no GPU")
    assert (verdict.status, verdict.reached, verdict.verified) == (VerdictStatus.PASSED, Level.CPU, False)
    assert verdict.unverified == (
        "not verified: reached cpu, `-verified` needs gpu: torch.gpu.train.amp, torch.gpu.numerics did not run: "
        "this engine can give containers no GPU",
    )
    above = {row.reason for row in verdict.checks if row.level is Level.GPU}
    assert above == {"this engine can give containers no GPU"}
    # The same with more required, and with no check at that level at all.
    (line,) = judge(
        replace(wanted, verified=Level.MULTI_GPU), result(level="gpu", checks=with_check(*GPU_ROWS["ran"]))
    ).unverified[:1]
    assert line.startswith(
        "not verified: reached gpu, `-verified` needs multi-gpu: none of the required checks belongs"
    )


def test_below_what_public_names_need_it_is_incomplete_and_says_why() -> None:
    verdict = judge(expectation(level=Level.GPU), result(), limit="this engine can give containers no GPU")
    assert verdict.status is VerdictStatus.INCOMPLETE
    assert verdict.reached is Level.CPU
    assert verdict.reasons == (
        "torch.gpu.train.amp: did not run: this engine can give containers no GPU",
        "the checks went up to cpu, required is gpu: this engine can give containers no GPU",
    )


# Runs without a result


def test_without_a_result_one_row_says_why() -> None:
    verdict = failed_verdict(Level.CPU, "exit code 0 but no result was written", "its entrypoint is /x")
    assert [(row.name, row.status, row.level) for row in verdict.checks] == [
        ("run.result", Status.FAILED, Level.STATIC)
    ]
    assert verdict.reasons == ("run.result: exit code 0 but no result was written; its entrypoint is /x",)
    assert (verdict.status, verdict.reached, verdict.facts) == (VerdictStatus.FAILED, None, None)


@pytest.mark.parametrize("name", sorted(HOST_CHECKS))
def test_what_is_the_host_s_to_say_makes_a_result_none(name: str) -> None:
    data = json.dumps(document(checks=[*document()["checks"], check(name)])).encode()
    with pytest.raises(NoResult, match="the host's to say"):
        parse_result(data, NONCE)


# Images that were not built here


def whole_suite(*packages: str, **status: str) -> list[dict[str, Any]]:
    """A row for every check of the suite: passed up to `cpu` where these packages are what it needs."""
    rows = []
    for spec in suite().checks.values():
        runs = spec.needs <= set(packages) and spec.level in ("static", "cpu")
        rows.append(
            check(spec.name, status.get(spec.name.replace(".", "_"), "passed" if runs else "not_run"), level=spec.level)
        )
    return rows


def facts_with(*packages: str) -> dict[str, Any]:
    found: dict[str, Any] = {"packages": dict.fromkeys(packages, "1")}
    return found if "torch" in packages else {**found, "torch": None}


def test_without_a_cell_what_it_has_decides() -> None:
    has = ("pip", "torch", "horovod")
    verdict = judge(None, result(checks=whole_suite(*has), facts=facts_with(*has)))
    assert verdict.status is VerdictStatus.PASSED, verdict.reasons
    assert (verdict.level, verdict.reached) == (Level.CPU, Level.CPU)


def test_without_a_cell_what_it_has_must_work() -> None:
    has = ("pip", "torch", "horovod")
    rows = whole_suite(*has, horovod_weights="not_run")
    verdict = judge(None, result(checks=rows, facts=facts_with(*has)))
    assert verdict.status is VerdictStatus.INCOMPLETE
    assert verdict.reasons == ("horovod.weights: did not run: because",)
    without = judge(None, result(checks=rows, facts=facts_with("pip", "torch")))
    assert without.status is VerdictStatus.PASSED, without.reasons


def test_without_a_cell_an_image_that_trains_nothing_is_incomplete() -> None:
    verdict = judge(None, result(checks=whole_suite("pip"), facts=facts_with("pip")))
    assert verdict.status is VerdictStatus.INCOMPLETE
    assert verdict.reasons[0] == "nothing to train with was found"
    assert verdict.reached is Level.STATIC


def test_required_checks_follow_the_packages() -> None:
    assert not any(name.startswith("torch") for name in required_checks(["pip"]))
    assert {"torch.train.amp", "horovod.weights"} <= required_checks(["Torch", "horovod"])
    assert "horovod.weights" not in required_checks(["torch"])
    assert required_checks([])


@pytest.mark.parametrize("project", PROJECTS)
def test_tensorflow_under_another_name_must_train_too(project: str) -> None:
    assert "tensorflow.train.amp" in required_checks(["tensorflow"])
    assert required_checks([project, "horovod"]) == required_checks(["tensorflow", "horovod"])


def test_a_result_must_have_a_line_for_every_check_of_the_suite() -> None:
    names = frozenset(suite().checks)
    assert {"torch.train.amp", "horovod.weights", "static.python", "torch.gpu.train.amp"} <= names
    data = json.dumps(document(checks=[check(name) for name in sorted(names)])).encode()
    assert {line.name for line in parse_result(data, NONCE, names).checks} == names
    data = json.dumps(document(checks=[check(name) for name in sorted(names - {"torch.train.amp"})])).encode()
    with pytest.raises(NoResult, match=r"says nothing of torch\.train\.amp"):
        parse_result(data, NONCE, names)
