"""Locks environments and bases with what this machine has: uv and the site's indexes, and an engine."""

from __future__ import annotations

import datetime
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

from builder.errors import ImgbuildError, Interrupted
from builder.resolve.indexes import Indexes, sources_of
from builder.resolve.plan import previous_environment
from builder.resolve.python import Resolving, Upgrade, lock_environment
from builder.resolve.uv import Uv, built_in_index, find_uv

if TYPE_CHECKING:
    from builder.lock.bases import Bases
    from builder.lock.file import Locks
    from builder.lock.model import BaseLock, EnvironmentLock
    from builder.project import Project
    from builder.resolve.plan import Environment, Ground
    from builder.site import Site


def lock_environments(
    environments: Sequence[Environment],
    locks: Locks,
    *,
    site: Site,
    upgrade: Upgrade,
    cancel: threading.Event,
    on_failure: Callable[[ImgbuildError], None],
) -> tuple[EnvironmentLock, ...]:
    """Locks each environment, and writes nothing.

    Args:
        environments: what to lock.
        locks: the locks so far.
        site: where packages come from on this machine.
        upgrade: what may move.
        cancel: ends the resolving when set.
        on_failure: is told why others than the first cannot be locked, each reason once.

    Raises:
        ImgbuildError: the first environment that cannot be locked, after all were tried; see `lock_environment`.
    """
    indexes = Indexes(site)
    # One after the other: what Python knows of its own installation, by which uv is found, is no matter for threads
    # (its `sysconfig` hands out a half-filled table), and an index is to be asked once.
    preparing = threading.Lock()

    def locked(environment: Environment) -> EnvironmentLock:
        if cancel.is_set():
            raise Interrupted("interrupted before everything was resolved; nothing was written")

        previous = previous_environment(environment, locks)
        shipped = previous is not None and not locks.owns(locks.python_path(environment.name))
        if previous is not None and shipped and not upgrade.concerns(previous):
            return previous  # as it is, with what other matrices ask for

        def resolver() -> Resolving:
            with preparing:
                program = find_uv()
                sources = sources_of(
                    site,
                    environment.channel,
                    environment.framework,
                    environment.target,
                    lambda: built_in_index(program),
                )
                indexes.ask(sources.indexes, next(iter(environment.framework)))
            return Uv(
                program=program,
                site=site,
                sources=sources,
                target=environment.target,
                provided=next(iter(environment.requests.values())).provided,
                cancel=cancel,
            )

        return lock_environment(
            environment.name,
            environment.requests,
            target=environment.target,
            resolver=resolver,
            hash_of=indexes.sha256,
            previous=previous,
            upgrade=upgrade,
        )

    # uv itself uses every core only for a moment, and then waits for the index.
    with ThreadPoolExecutor(max_workers=min(8, 2 * (os.cpu_count() or 1))) as pool:
        pending = [pool.submit(locked, environment) for environment in environments]
        found: list[EnvironmentLock] = []
        failures: list[ImgbuildError] = []
        for future in pending:
            try:
                found.append(future.result())
            except ImgbuildError as error:
                failures.append(error)
    if cancel.is_set():
        raise Interrupted("interrupted before everything was resolved; nothing was written")
    told = {str(failure) for failure in failures[:1]}
    for failure in failures[1:]:
        if str(failure) not in told:  # an index that is away is so for every environment
            told.add(str(failure))
            on_failure(failure)
    if failures:
        raise failures[0]
    return tuple(found)


def lock_bases(
    grounds: Sequence[Ground],
    locks: Locks,
    *,
    project: Project,
    repository: str,
    site: Site,
    mode: Bases,
    upgrade: bool,
    cancel: threading.Event,
    on_line: Callable[[str], None],
) -> tuple[BaseLock, ...]:
    """Locks each base, and writes nothing. An engine is needed only where a lock lacks something, or may move.

    Args:
        grounds: the bases, and what is installed on them.
        locks: the locks so far.
        project: has the templates that ask a distribution.
        repository: the prefix of the matrix's images, for a base that must be made.
        site: how this machine reaches things.
        mode: where bases may come from.
        upgrade: whether everything of the distribution may move.
        cancel: ends the work when set.
        on_line: receives progress, a line at a time.

    Raises:
        ImgbuildError, EngineError: a base cannot be locked.
    """
    from builder.engine.connection import Engine
    from builder.lock.base_locks import fit_engine
    from builder.resolve.debian import lock_base
    from builder.resolve.plan import missing_debian, previous_base, pruned_debian

    today = datetime.date.today().isoformat()
    found: list[BaseLock] = []
    with ExitStack() as stack:
        engine: Engine | None = None
        for ground in grounds:
            before = previous_base(ground, locks)
            if before is not None and not upgrade and not missing_debian(ground, before):
                own = locks.owns(locks.base_path(ground.base.name))
                found.append(pruned_debian(ground, before) if own else before)
                continue
            if engine is None:
                engine = stack.enter_context(Engine.connect(site.engine))
                engine.require_buildkit()
                fit_engine(engine.info().architecture, str(locks.base_path(ground.base.name)))
            found.append(
                lock_base(
                    engine,
                    ground.base,
                    ground.asked,
                    site=site,
                    mode=mode,
                    previous=before,
                    upgrade=upgrade,
                    today=today,
                    project=project,
                    repository=repository,
                    cancel=cancel,
                    on_line=on_line,
                )
            )
    return tuple(found)
