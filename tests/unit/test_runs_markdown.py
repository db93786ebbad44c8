"""The Markdown summary: what it says, that no text breaks it, and its size. Read by a CommonMark parser with tables."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from some_runs import a_run, check_run, failed, outcome

from builder.check import Status, VerdictStatus
from builder.errors import ConfigError
from builder.matrix import Level
from builder.runs import Unchecked, append_summary, summary
from builder.runs.markdown import SUMMARY_CAP, code, text

INCOMPLETE = check_run(
    status=VerdictStatus.INCOMPLETE, reasons=("torch.gpu.train.amp: did not run: no GPU at hand",), reached=Level.CPU
)


def rendered(markdown: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)


def rows(markdown: str) -> list[list[str]]:
    """The rows of the first table as text, as a reader's page shows them."""
    table = rendered(markdown).split("</table>", 1)[0]
    return [
        [html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in re.findall(r"<t[hd]>(.*?)</t[hd]>", row, re.DOTALL)]
        for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    ]


def test_the_table_says_what_each_cell_reached_and_lacks() -> None:
    bad = failed(outcome("torch.train.amp", Status.FAILED, "loss is nan"))
    runs = [a_run(), a_run(bad, name="bad"), a_run(INCOMPLETE, name="half"), a_run(name="any", policy=None)]
    table = rows(summary(runs, [Unchecked(name="broken", status="failed", reason="pip cannot find torch")]))
    assert table == [
        ["cell", "verdict", "reached", "missing for verified"],
        [
            "torch-2.13.0-cu126-py3.11",
            "passed",
            "cpu",
            "not verified: reached cpu, `-verified` needs gpu: torch.gpu.train.amp did not run: no GPU at hand",
        ],
        ["bad", "failed", "–", "failed: torch.train.amp"],
        ["half", "incomplete", "cpu", "torch.gpu.train.amp: did not run: no GPU at hand"],
        ["any", "passed", "cpu", "not held to a cell"],
        ["broken", "failed", "", "pip cannot find torch"],
    ]


def test_details_group_what_did_not_run_by_its_reason() -> None:
    page = rendered(summary([a_run()]))
    assert "<li>no GPU at hand: <code>torch.gpu.train.amp</code>, <code>torch.gpu.train.scaler</code></li>" in page
    assert "<td>4.25 → 2.125 in 3 steps</td>" in page
    assert "<td>1.50</td>" in page
    assert "<details><summary>torch-2.13.0-cu126-py3.11: passed, 2 of 4 checks passed, 4.5 s</summary>" in page


def test_details_of_a_failure_are_open_and_say_why() -> None:
    page = rendered(summary([a_run(failed(outcome("torch.train.amp", Status.FAILED, "loss is nan")))]))
    assert "<details open><summary>" in page
    assert "<li><code>torch.train.amp</code>: loss is nan</li>" in page


TEXTS = [
    "a | b || c \\| d",
    "`code` ``more`` \\`",
    "<script>alert(1)</script> </details> <!-- x",
    "&lt; &amp; &#124;",
    "**bold** _it_ ~~gone~~ # head ![i](u) [l](u)",
    "- item",
    "1. item",
    "1) item",
    "+ item",
    "--- ===",
    "\\",
    "$a$ and $$b$$",
    "snake_case_name is libcu_x.so",
]


@pytest.mark.parametrize("value", TEXTS)
def test_any_text_is_shown_as_it_is(value: str) -> None:
    bad = failed(outcome("torch.train.amp", Status.FAILED, value), reasons=(value,))
    markdown = summary([a_run(bad, name=value)], [Unchecked(name=value, status=value, reason=value)])
    table = rows(markdown)
    assert table[1] == [value, "failed", "–", "failed: torch.train.amp"]
    assert table[2] == [value, value, "", value]
    page = rendered(markdown)
    assert f"<li>{html.escape(value, quote=False)}</li>" in page.replace("&quot;", '"')
    assert f"<summary>{html.escape(value, quote=False)}: failed" in page.replace("&quot;", '"').replace("&#x27;", "'")
    assert page.count("</details>") == 1


def test_links_and_control_characters_do_nothing() -> None:
    assert "https://" not in text("see https://example.org")
    assert text("www.example.org").startswith("www&#46;")
    assert text("a\nb\r\n\x1b[31mc\u2028d") == "a b \\[31mc d"
    assert code("") == ""


def many(count: int) -> list[str]:
    return [f"torch-2.13.0-cu126-py3.11-cell{number}" for number in range(count)]


def test_details_of_passed_images_go_first_when_there_is_no_room() -> None:
    bad = failed(outcome("torch.train.amp", Status.FAILED, "loss is nan"))
    runs = [a_run(name=name) for name in many(100)] + [a_run(bad, name="bad")]
    whole = summary(runs)
    cut = summary(runs, cap=60_000)
    assert len(cut.encode()) <= 60_000 < len(whole.encode())
    assert len(rows(cut)) == 102
    assert "<summary>bad: failed" in cut
    kept = cut.count("<details")
    assert 1 < kept < 101
    assert f"The details of {101 - kept} cells are left out for their size." in cut
    assert "left out" not in whole


def test_rows_are_left_out_when_even_they_do_not_fit() -> None:
    cells = [Unchecked(name=name, status="built", reason="é" * 100) for name in many(10_000)]
    cut = summary([], cells)
    assert len(cut.encode()) <= SUMMARY_CAP
    shown = len(rows(cut)) - 1
    assert 0 < shown < 10_000
    assert f"{10_000 - shown} more cells are left out of this table for its size." in cut


def test_a_github_steps_summary_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "summary"
    path.write_text("### theirs\n")
    assert append_summary({"GITHUB_STEP_SUMMARY": str(path)}, [a_run()])
    assert path.read_text().startswith("### theirs\n\n### imgbuild check\n")
    assert append_summary({"GITHUB_STEP_SUMMARY": str(tmp_path / "new")}, [a_run()])


def test_outside_of_github_nothing_is_written() -> None:
    assert not append_summary({}, [a_run()])
    assert not append_summary({"GITHUB_STEP_SUMMARY": ""}, [a_run()])


def test_a_full_summary_of_a_step_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "summary"
    path.write_bytes(b"x" * (SUMMARY_CAP - 1000))
    assert not append_summary({"GITHUB_STEP_SUMMARY": str(path)}, [a_run()])
    assert path.stat().st_size == SUMMARY_CAP - 1000
    path.write_bytes(b"x" * (SUMMARY_CAP - 5000))
    assert append_summary({"GITHUB_STEP_SUMMARY": str(path)}, [a_run(name=name) for name in many(50)])
    assert SUMMARY_CAP - 5000 < path.stat().st_size <= SUMMARY_CAP


def test_a_summary_that_cannot_be_written_is_an_error_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path}.*cannot be written"):
        append_summary({"GITHUB_STEP_SUMMARY": str(tmp_path)}, [a_run()])
