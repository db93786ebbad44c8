"""The package index of this machine. What cannot be asked is "not run", with the reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from asking import Resolver, Said
from combinations import Resolution, Row, load

from builder.compat import Combination, explain, load_facts
from builder.site import load_site

_AT_ONCE = 8


@pytest.fixture(scope="session")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> Resolver:
    """Asks the index that pip is configured with on this machine."""
    site = load_site(os.environ)
    if site.no_index:
        pytest.skip("not run: pip is told to use no index (no-index)")
    uv = pytest.importorskip("uv", reason="not run: uv is not installed")
    found = Resolver(uv.find_uv_bin(), site, tmp_path_factory.mktemp("resolver"))
    probe = found.ask(Resolution(packages=("six==1.16.0",), python="3.12", glibc="2.28", resolves=True, beyond=""))
    if probe.resolves is None:
        pytest.skip(f"not run: this machine's package index cannot be reached: {probe.words[-300:]}")
    return found


@pytest.fixture(scope="session")
def answers(resolver: Resolver) -> Iterator[dict[str, Future[Said]]]:
    """What the index says of every row that is a question for it, by the row's id."""
    rows: list[tuple[Row, Resolution]] = [(row, row.index) for row in load() if row.index is not None]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield {row.id: pool.submit(resolver.ask, index) for row, index in rows}
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def offers(resolver: Resolver) -> Iterator[dict[str, tuple[Combination, Future[Said]]]]:
    """The first thing that imgbuild offers instead of a row that the index refuses, and what the index says of it.

    By the row's id. What comes from another channel than the index is left out.
    """
    facts = load_facts()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = {}
        for row in load():
            if row.index is not None and row.is_plain and row.valid is False:
                nearest = explain(row.combination(facts), facts).nearest
                offered = [near for near in nearest if near.channel != "pytorch"]
                for near in offered[:1]:
                    found[row.id] = (near, pool.submit(resolver.ask, _as_resolution(near, row.index)))
        yield found
        pool.shutdown(cancel_futures=True)


def _as_resolution(combination: Combination, like: Resolution) -> Resolution:
    extras = f"[{','.join(combination.extras)}]" if combination.extras else ""
    beside = [name if version is None else f"{name}=={version}" for name, version in combination.companions]
    return Resolution(
        packages=(f"{combination.package}{extras}=={combination.version}", *beside),
        python=combination.python or like.python,
        glibc=like.glibc,
        resolves=True,
        beyond="",
    )
