"""Parts of the torch and rank checks that need no framework: what is mapped, what a device runs, what ranks left."""

from __future__ import annotations

import array
import copy
import sys
from pathlib import Path
from typing import Any

import pytest

from builder.checks import pair
from builder.checks.contract import Failed
from builder.checks.groups.torch._libraries import expect_own, mapped
from builder.checks.groups.torch.gpu_device import runs_on

# What is mapped

ROW = "7f00-7f01 r-xp 00000000 00:2a 12 {path}"


def maps(*paths: str) -> str:
    return "\n".join(["7f02-7f03 rw-p 00000000 00:00 0", *(ROW.format(path=path) for path in paths)])


def test_the_libraries_of_a_process() -> None:
    found = mapped(maps("/a/libc10.so", "/a/libc10.so", "/a/libgomp.so.1 (deleted)", "/a/x.cpython-311.so", "[heap]"))
    assert found == {"libc10.so": {"/a/libc10.so"}, "libgomp.so.1": {"/a/libgomp.so.1"}}


def test_torch_has_its_own_libraries(tmp_path: Path) -> None:
    (tmp_path / "libgomp.so.1").touch()
    expect_own(mapped(maps(f"{tmp_path}/libgomp.so.1", "/usr/lib/libz.so.1", "/usr/lib/libcudnn.so.9")), [tmp_path])


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (("/opt/shadow/libgomp.so.1",), "libgomp.so.1 is shadowed: /opt/shadow/libgomp.so.1 is loaded"),
        (("/a/libz.so.1", "/b/libz.so.1"), "libz.so.1 is loaded 2 times: /a/libz.so.1 and /b/libz.so.1"),
        (("/a/libcudnn.so.8", "/b/libcudnn.so.9"), "libcudnn is loaded twice: /a/libcudnn.so.8 and /b/libcudnn.so.9"),
    ],
)
def test_a_library_from_elsewhere_or_twice(tmp_path: Path, paths: tuple[str, ...], reason: str) -> None:
    (tmp_path / "libgomp.so.1").touch()
    with pytest.raises(Failed) as caught:
        expect_own(mapped(maps(*paths)), [tmp_path])
    assert str(caught.value).startswith(reason)


def test_parts_of_cudnn_are_no_second_cudnn(tmp_path: Path) -> None:
    expect_own(mapped(maps("/a/libcudnn.so.9", "/a/libcudnn_ops.so.9", "/a/libcublas.so.12")), [tmp_path])
    expect_own(mapped(maps("/a/libnvrtc.so.13", "/a/libnvrtc-builtins.so.13.0")), [tmp_path])
    with pytest.raises(Failed, match="is loaded twice"):
        expect_own(mapped(maps("/a/libnvrtc-d0da41ae.so.12", "/a/libnvrtc.so.13")), [tmp_path])


# What a device runs


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        (["sm_80", "sm_90"], (9, 0), True),
        (["sm_80"], (8, 6), True),  # a later minor version
        (["sm_86"], (8, 0), False),  # an earlier one
        (["sm_80"], (9, 0), False),  # another major version
        (["sm_80", "compute_80"], (9, 0), True),  # intermediate code
        (["compute_90"], (8, 0), False),
        (["sm_90a"], (9, 0), True),
        (["sm_100a"], (10, 3), False),
        (["sm_120"], (12, 0), True),
        ([], (9, 0), False),
        (["nonsense"], (9, 0), False),
    ],
)
def test_what_a_device_runs(architectures: list[str], capability: tuple[int, int], runs: bool) -> None:
    assert runs_on(architectures, capability) is runs


# What ranks left


def launch(tmp_path: Path, sections: dict[str, list[dict[str, Any]]], code: int = 0) -> pair.Launch:
    reports = {
        rank: {
            "rank": rank,
            "size": 2,
            "pid": 100 + rank,
            "error": None,
            "connections": ["tcp 127.0.0.1"],
            "sections": {name: copy.deepcopy(found[rank]) for name, found in sections.items()},
        }
        for rank in (0, 1)
    }
    return pair.Launch(tmp_path, 2, code, f"rank 1 ended with exit code {code}", "last words", reports)


def write(tmp_path: Path, name: str, *values: float) -> None:
    (tmp_path / name).write_bytes(array.array("f", values).tobytes())


def trained(tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    found = []
    for rank in (0, 1):
        write(tmp_path, f"weights-adam-first-{rank}", 0.0, 1.0)
        write(tmp_path, f"weights-adam-last-{rank}", 0.5, 1.0 + rank)
        steps = ["a", "b", "c"]
        found.append({"adam": {"seeded": f"s{rank}", "data": f"d{rank}", "steps": steps, "losses": [4.0, 3.5]}})
    return {"weights": found}


def test_equal_weights_after_every_step(tmp_path: Path) -> None:
    measured = pair.expect_weights(launch(tmp_path, trained(tmp_path)))
    assert measured["steps"] == 2
    assert measured["series"] == {"loss_adam_0": [4.0, 3.5], "loss_adam_1": [4.0, 3.5]}


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("steps", ["a", "x", "c"], "adam: after step 1 the weights differ across ranks, after 2 by up to 1.00e+00"),
        ("steps", ["x", "b", "c"], "adam: the ranks begin with weights that differ by up to 0.00e+00: no broadcast"),
        ("seeded", "s0", "adam: both ranks had one seed: nothing was compared"),
        ("data", "d0", "adam: both ranks had the same data: nothing was compared"),
        ("steps", ["a", "b"], "adam: the ranks noted 3 and 2 weights, not several"),
        ("losses", [4.0, "nan"], "adam: the losses of rank 1 are [4.0, 'nan']"),
        ("losses", [], "adam: the losses of rank 1 are []"),
    ],
)
def test_weights_that_drift(tmp_path: Path, key: str, value: Any, reason: str) -> None:
    sections = trained(tmp_path)
    sections["weights"][1]["adam"][key] = value
    with pytest.raises(Failed) as caught:
        pair.expect_weights(launch(tmp_path, sections))
    assert str(caught.value).startswith(reason)


def test_a_step_that_changed_nothing(tmp_path: Path) -> None:
    sections = trained(tmp_path)
    for rank in (0, 1):
        sections["weights"][rank]["adam"]["steps"] = ["a", "b", "b"]
    with pytest.raises(Failed, match="adam: a step changed no weight"):
        pair.expect_weights(launch(tmp_path, sections))


def test_a_training_without_a_step(tmp_path: Path) -> None:
    sections = trained(tmp_path)
    for rank in (0, 1):
        sections["weights"][rank]["adam"]["steps"] = ["a"]
    with pytest.raises(Failed, match="adam: the ranks noted 1 and 1 weights, not several"):
        pair.expect_weights(launch(tmp_path, sections))


def test_gradients_within_and_beyond_their_bound(tmp_path: Path) -> None:
    for rank, values in enumerate([(1.0, 3.0), (3.0, -1.0)]):
        write(tmp_path, f"gradient-alone-{rank}", *values)
        write(tmp_path, f"gradients-reduced-{rank}", 2.0, 1.0)
    write(tmp_path, "gradient-joined-0", 2.0, 1.0)
    made = launch(tmp_path, {"gradients": [{"parameters": 2, "bound": 1e-4}] * 2})
    assert pair.expect_gradients(made)["error"] == 0.0

    for rank in (0, 1):
        write(tmp_path, f"gradients-reduced-{rank}", 1.0, 0.5)  # averaged twice
    with pytest.raises(Failed, match=r"rank 0's gradient is off by 5\.00e-01"):
        pair.expect_gradients(made)
    write(tmp_path, "gradients-reduced-0", 1.0, 3.0)
    with pytest.raises(Failed, match="rank 0 kept its own, nothing was reduced"):
        pair.expect_gradients(made)


def test_reductions_are_exact(tmp_path: Path) -> None:
    total = [a + b for a, b in zip(pair.numbers(0), pair.numbers(1), strict=True)]
    good = {"reductions": {"float32 sum": total, "float32 average": [value / 2 for value in total]}}
    measured = pair.expect_reduced(launch(tmp_path, {"allreduce": [good, good]}))
    assert measured["transport"] == "tcp 127.0.0.1"
    own = {"reductions": {"float32 sum": pair.numbers(1)}}
    with pytest.raises(Failed, match="allreduce of float32 sum gave rank 1 its own values, nothing was reduced"):
        pair.expect_reduced(launch(tmp_path, {"allreduce": [good, own]}))


def test_ranks_that_believe_to_be_alone_or_end_badly(tmp_path: Path) -> None:
    good = launch(tmp_path, {"one": [{}, {}]})
    assert pair.expect_ranks(good, ["one"])["pids"] == [100, 101]
    good.reports[1]["size"] = 1
    with pytest.raises(Failed, match="the size is 1 in process 1, expected 2"):
        pair.expect_ranks(good, ["one"])
    with pytest.raises(Failed, match="did their work, but rank 1 ended with exit code 3"):
        pair.expect_ranks(launch(tmp_path, {"one": [{}, {}]}, code=3), ["one"])


def test_a_section_that_a_rank_did_not_complete(tmp_path: Path) -> None:
    made = launch(tmp_path, {"one": [{}, {}]})
    made.reports[1]["sections"] = {}
    made.reports[1]["error"] = {"section": "one", "reason": "ValueError: no", "detail": "traceback"}
    with pytest.raises(Failed, match="rank 1: ValueError: no"):
        made.section("one")
    del made.reports[0]
    with pytest.raises(Failed, match="rank 0 reported nothing"):
        made.section("one")


def test_processes_are_awaited_and_the_partner_of_a_dead_one_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair, "AFTERWARDS", 0.2)

    def start(*programs: str, deadline: float = 30) -> pair.Launch:
        commands = [
            pair.Command(f"rank {rank}", [sys.executable, "-c", program], {}) for rank, program in enumerate(programs)
        ]
        return pair.launch(commands, tmp_path, 2, deadline)

    good = start("print('a')", "print('b')")
    assert (good.code, good.printed.split()) == (0, ["a", "b"])
    dead = start("import os; os.abort()", "import time; time.sleep(600)")
    assert (dead.code, dead.how) == (-6, "rank 0 was killed by SIGABRT")
    hanging = start("pass", "import time; time.sleep(600)", deadline=0.5)
    assert (hanging.code, hanging.how) == (None, "rank 1 did not end within 0.5 s and was killed")
