"""Makes the images of the corpus on an engine, and checks them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import docker

from builder.check import (
    HOST_CHECKS,
    CheckRun,
    Expectation,
    Status,
    VerdictStatus,
    check_image,
    required_checks,
    suite,
)
from builder.engine.connection import Engine
from builder.matrix import Level
from corpus.variant import DEADLINE, Base, Broken, Healthy

Variant = Broken | Healthy

#: Bytes that a variant may add to its base.
LARGEST_LAYER = 50 << 20

_WHERE = """
set -eu
PYTHON=$(command -v python3)
SITE=$(python3 -I -B -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"""
_PROMISED = {
    Base.HOROVOD: frozenset({"torch", "horovod"}),
    Base.PLAIN: frozenset({"torch"}),
    Base.TENSORFLOW: frozenset({"tensorflow", "horovod"}),
}


def level_of(check: str) -> Level:
    """The level of one of the suite's checks or the host's rows."""
    if check in HOST_CHECKS:
        return HOST_CHECKS[check][0]
    return Level(suite().checks[check].level)


def _only(check: str) -> tuple[str, ...]:
    """What a short run runs so that a check, or a row of the host's, can show what it has to."""
    if check.startswith("cell."):
        return ("static.versions", "torch.version")
    return () if check in HOST_CHECKS else (check,)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What came of a broken image.

    Attributes:
        failed: reason by name of every check that failed.
        lacking: names of required checks that did not run.
        seconds: how long the container ran.
    """

    failed: Mapping[str, str]
    lacking: frozenset[str]
    seconds: float

    def wrong(self, variant: Broken) -> str:
        """Why this is not what the variant must give; empty when it is."""
        reason = self.failed.get(variant.check)
        if reason is None:
            return f"{variant.check} did not fail, but {self.failed or 'nothing'}"
        if variant.reason not in reason:
            return f"{variant.check} failed with another reason: {reason}"
        others = (set(self.failed) | self.lacking) - {variant.check}
        surprising = sorted(name for name in others if not any(fnmatchcase(name, glob) for glob in variant.also))
        return f"failed or did not run beside it: {surprising}, {self.failed}" if surprising else ""


class Workshop:
    """Makes variants of healthy images and checks them; `close` removes what it made.

    Args:
        engine: where.
        bases: ids of the healthy images; variants of a base that is missing cannot be made.
    """

    def __init__(self, engine: Engine, bases: Mapping[Base, str]) -> None:
        self._engine = engine
        self._bases = bases
        self._client = docker.from_env(timeout=600)
        self._made: list[str] = []
        self._expectations: dict[Base, Expectation] = {}

    def close(self) -> None:
        """Removes the variants; their bases stay."""
        while self._made:
            self._client.images.remove(self._made.pop(), noprune=True)
        self._client.close()

    def make(self, variant: Variant) -> str:
        """Id of a variant's image: its base itself, or a committed container of it.

        A commit adds one layer and leaves no images of single steps behind, as a build would.
        """
        base = self._bases[variant.base]
        if not variant.script and variant.settings == type(variant.settings)():
            return base
        container = self._client.containers.create(
            base,
            entrypoint=["/bin/sh", "-c"],
            command=[_WHERE + textwrap.dedent(variant.script)],
            user="0:0",
            network_mode="none",
        )
        try:
            if variant.script:
                container.start()
                code = container.wait()["StatusCode"]
                assert code == 0, f"{variant.id}: {container.logs().decode()}"
            image = container.commit(conf=self._configuration(variant))
        finally:
            container.remove(force=True)
        self._made.append(str(image.id))
        added = image.attrs["Size"] - self._client.images.get(base).attrs["Size"]
        assert added < LARGEST_LAYER, f"{variant.id} adds {added:,} bytes"
        return str(image.id)

    def discard(self, image: str) -> None:
        """Removes one variant, unless it is a base."""
        if image in self._made:
            self._made.remove(image)
            self._client.images.remove(image, noprune=True)

    def _configuration(self, variant: Variant) -> dict[str, Any]:
        configuration: dict[str, Any] = dict(self._client.images.get(self._bases[variant.base]).attrs["Config"])
        settings = variant.settings
        environment = dict(entry.split("=", 1) for entry in configuration["Env"]) | dict(settings.environment)
        configuration["Env"] = [f"{name}={value}" for name, value in environment.items()]
        configuration["Labels"] = dict(configuration["Labels"] or {}) | dict(settings.labels)
        if settings.entrypoint is not None:
            configuration["Entrypoint"] = list(settings.entrypoint)
        if settings.command is not None:
            configuration["Cmd"] = list(settings.command)
        configuration["User"] = settings.user or configuration["User"]
        configuration["WorkingDir"] = settings.workdir or configuration["WorkingDir"]
        return configuration

    def expectation(self, variant: Variant, level: Level) -> Expectation:
        """What a variant's cell promises: exactly what is in its base, unless the variant says otherwise."""
        if variant.base not in self._expectations:
            found = check_image(self._engine, self._bases[variant.base], None, deadline=DEADLINE, level=Level.STATIC)
            assert found.result is not None, found.verdict.reasons
            facts = found.result.facts
            self._expectations[variant.base] = Expectation(
                packages=facts.packages,
                promised=_PROMISED[variant.base],
                python=".".join(facts.python.split(".")[:2]),
                cuda="cpu",
                level=Level.CPU,
                required=required_checks(facts.packages),
            )
        base = self._expectations[variant.base]
        return Expectation(
            packages={**base.packages, **variant.cell.packages},
            promised=base.promised,
            python=variant.cell.python or base.python,
            cuda=variant.cell.cuda or base.cuda,
            level=level,
            required=base.required,
        )

    def check_healthy(self, variant: Healthy, image: str, level: Level) -> CheckRun:
        """Checks a healthy image up to a level."""
        return check_image(self._engine, image, self.expectation(variant, level), deadline=DEADLINE)

    def check_only(self, variant: Variant, image: str, only: tuple[str, ...]) -> CheckRun:
        """Runs a few checks alone in a variant's image, and judges it as if it had been asked for all."""
        expectation = self.expectation(variant, Level.CPU)
        return check_image(self._engine, image, expectation, deadline=DEADLINE, only=only)

    def check_broken(self, variant: Broken, image: str, *, short: bool) -> Seen:
        """Checks a broken image: the whole suite, or in short only the check that must fail."""
        level = level_of(variant.check) if short else Level.CPU
        expectation = self.expectation(variant, level)
        if short and variant.check not in HOST_CHECKS:
            # Without the checks that list the packages, nothing can be said of them.
            expectation = Expectation(level=level, required=frozenset({variant.check}))
        run = check_image(
            self._engine,
            image,
            expectation,
            deadline=variant.deadline,
            only=_only(variant.check) if short else (),
            memory_bytes=variant.memory_bytes,
        )
        assert run.verdict.status is VerdictStatus.FAILED, (variant.id, run.verdict.reasons)
        rows = {row.name: row for row in run.verdict.checks}
        required = self.expectation(variant, level).required
        idle = {name for name, row in rows.items() if row.status is Status.NOT_RUN and row.level <= level}
        return Seen(
            failed={name: row.reason for name, row in rows.items() if row.status is Status.FAILED},
            lacking=frozenset() if short else frozenset(idle & (required | HOST_CHECKS.keys())),
            seconds=run.seconds,
        )
