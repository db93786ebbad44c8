"""Combinations that a package index can judge, really resolved: neither our tables nor our answers test themselves."""

from __future__ import annotations

from concurrent.futures import Future

import pytest
from asking import Said
from combinations import Row, load

from builder.compat import Combination, describe, examine, load_facts

pytestmark = pytest.mark.index

ROWS = [row for row in load() if row.index is not None]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_the_index_says_so_too(row: Row, answers: dict[str, Future[Said]]) -> None:
    assert row.index is not None
    said = answers[row.id].result()
    if said.resolves is None:
        pytest.skip(f"not run: the index gave no answer: {said.words[-300:]}")
    assert said.resolves == row.index.resolves, said.words
    valid = examine(row.combination(load_facts()), load_facts()).valid
    if row.confirmed:
        assert valid == said.resolves, f"the resolver says {said.resolves}, imgbuild says {valid}: {said.words}"
    else:
        assert valid == row.valid, f"the index does not know this: {row.index.beyond}"


@pytest.mark.parametrize("row", [row for row in ROWS if row.is_plain and row.valid is False], ids=lambda row: row.id)
def test_what_is_offered_instead_really_resolves(row: Row, offers: dict[str, tuple[Combination, Future[Said]]]) -> None:
    assert row.id in offers, "nothing is offered"
    near, answer = offers[row.id]
    said = answer.result()
    if said.resolves is None:
        pytest.skip(f"not run: the index gave no answer: {said.words[-300:]}")
    assert said.resolves, f"{describe(near)}: {said.words}"
