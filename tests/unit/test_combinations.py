"""What primary sources say of combinations, beside what the tables and rules say."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from combinations import Row, load, page

from builder.cli import cli
from builder.compat import RULES, Facts, examine, explain, load_facts

ROWS = load()
DOCUMENT = Path(__file__).parents[2] / "docs" / "combinations.md"
EXIT_CODES = {True: 0, False: 3, None: 4}


@pytest.fixture(scope="module")
def facts() -> Facts:
    return load_facts()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_the_tables_give_the_answer_of_the_sources(row: Row, facts: Facts) -> None:
    finding = examine(row.combination(facts), facts)
    assert finding.valid == row.valid, finding
    reasons = {True: (), False: finding.forbidden, None: finding.unknown}[row.valid]
    assert all(reason.source and reason.message for reason in reasons)
    if row.rule:
        assert row.rule in {reason.rule for reason in reasons}, reasons
    if row.warns:
        assert row.warns in {reason.rule for reason in finding.warnings}, finding.warnings


@pytest.mark.parametrize("row", [row for row in ROWS if row.valid is False], ids=lambda row: row.id)
def test_what_is_offered_instead_works(row: Row, facts: Facts) -> None:
    answer = explain(row.combination(facts), facts)
    for near in answer.nearest:
        assert examine(near, facts).valid is True, near


@pytest.mark.parametrize("valid", [True, False, None])
def test_the_command_says_the_same(valid: bool | None) -> None:
    row = next(row for row in ROWS if row.valid is valid and row.options)
    ran = CliRunner().invoke(cli, ["explain", *row.words, "--format", "json"])
    assert ran.exit_code == EXIT_CODES[valid], ran.output
    said = json.loads(ran.output)
    assert said["valid"] is valid
    assert bool(said["reasons"]) is (valid is not True)


def test_the_rows_are_well_formed() -> None:
    assert not [name for name, count in Counter(row.id for row in ROWS).items() if count > 1]
    assert not [question for question, count in Counter(row.question for row in ROWS).items() if count > 1]
    names = {rule.name for rule in RULES}
    for row in ROWS:
        assert row.sources, row.id
        assert bool(row.rule) is (row.valid is not True), f"{row.id}: a rule for what does not work, and only for that"
        assert {row.rule, row.warns} <= names | {""}, row.id
        if row.index is not None:
            assert bool(row.index.beyond) is not row.confirmed, row.id


def test_there_are_enough_of_each_kind() -> None:
    answers = Counter(row.valid for row in ROWS)
    assert min(answers[True], answers[False]) >= 20
    assert answers[None] >= 5
    confirmed = Counter(row.valid for row in ROWS if row.confirmed)
    assert min(confirmed[True], confirmed[False]) >= 15


def test_the_document_shows_the_rows_as_they_are(pytestconfig: pytest.Config) -> None:
    begin, end = "<!-- rows: begin -->\n", "<!-- rows: end -->\n"
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    expected = f"{before}{begin}{page(ROWS)}{end}{after}"
    if pytestconfig.getoption("--update-golden"):
        DOCUMENT.write_text(expected, encoding="utf-8")
    else:
        assert text == expected, "write it anew: pytest tests/unit/test_combinations.py --update-golden"
