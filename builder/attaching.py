"""What `imgbuild check --attach` does: an image of a registry is checked here, and what came of it attached there."""

from __future__ import annotations

import time
from datetime import datetime, timezone

from builder.attest import (
    PublicKey,
    SigningKey,
    site_trusted_keys,
)
from builder.carried import OUTCOMES, check_lines, log_lines, short_of
from builder.check import DEFAULT_USER, Reach, VerdictStatus, check_image, content_id, suite
from builder.display import Display
from builder.engine.auth import DockerLogins
from builder.engine.connection import Engine
from builder.engine.errors import ImageMissing
from builder.engine.images import ImageDetails, inspect
from builder.engine.transfer import pull
from builder.errors import CheckIncomplete, ConfigError
from builder.matrix import Cell, Level
from builder.memory import Checked, CheckMemory, expectation
from builder.project import Project
from builder.publishing import required_key
from builder.records import Records
from builder.registry.images import prove
from builder.release.evidence import Evidence, Trusted, covering, gather
from builder.release.ledger import Held
from builder.release.publication import attach_statement
from builder.release.remote import Remote, find
from builder.render import iter_recipes
from builder.report import Outcome, Report, Status
from builder.workshop import Run, asked_for_gpu, ledger_of, open_engine, require_gpus


def check_attached(run: Run, reference: str, cell: tuple[Project, Cell] | None) -> int:
    """Checks an image of a registry, and attaches a signed statement to its digest, whatever the check came to.

    Trusted evidence that is attached already and says the same makes the check needless, unless with `recheck`.

    Args:
        reference: `REPOSITORY@sha256:…`.
        cell: what the image is held to; None for nothing.

    Raises:
        ConfigError: there is no key to sign with, `reference` has no digest, or the check is to run as another user.
        NotInRegistry: there is no such image.
        CheckIncomplete: a GPU is needed, and the engine has none.
        RegistryError: the registry refused.
    """
    started = time.monotonic()
    key = required_key(run.site)
    if run.options.user != DEFAULT_USER:
        raise ConfigError(
            f"a check as {run.options.user} is no evidence", where="--user", hint=f"evidence is of {DEFAULT_USER}"
        )
    held = None
    if cell is not None:
        held = Held(project=cell[0], recipe=next(iter_recipes([cell[1]], cell[0])))
    with (
        find(reference, run.site, by_digest=True) as remote,
        open_engine(run.site) as engine,
        Display(run.progress) as display,
    ):
        display.begin(reference)
        outcome = _AttachedCheck(
            run=run, remote=remote, engine=engine, display=display, key=key, held=held, reference=reference
        ).outcome()
        display.end(reference, outcome.status.value, ok=outcome.exit_code == 0)
    report = Report(outcomes=(outcome,), seconds=time.monotonic() - started)
    run.echo((report.to_json() if run.json_output else report.to_text()).rstrip("\n"))
    return report.exit_code


class _AttachedCheck:
    """One check of one image of a registry."""

    def __init__(
        self,
        *,
        run: Run,
        remote: Remote,
        engine: Engine,
        display: Display,
        key: SigningKey,
        held: Held | None,
        reference: str,
    ) -> None:
        self._run, self._remote, self._engine, self._display = run, remote, engine, display
        self._key, self._held, self._reference = key, held, reference
        self._options = run.options
        self._reach = Reach.of(engine.info(), cap=run.options.level)
        self._level, self._limit = self._options.level or (Level.GPU if self._options.gpus else Level.CPU), ""
        if held is not None:
            self._level, self._limit = self._reach.level(held.recipe.cell)
        self._on_gpu = self._options.gpus or self._level >= Level.GPU
        cells = (held.recipe.cell,) if held is not None else ()
        require_gpus(engine, self._on_gpu or asked_for_gpu(self._options, cells))
        self._trusted: tuple[PublicKey, ...] = site_trusted_keys(run.site, key)

    def outcome(self) -> Outcome:
        remote = self._remote
        evidence = self._evidence()
        if not self._options.recheck:
            known = self._known(evidence)
            if known is not None and known.check is not None:
                return self._unchanged(known)
        image = self._image()
        subject = prove(
            remote.repository, remote.digest, image.id, os=image.os, architecture=image.architecture
        ).subject
        ledger = ledger_of(self._run.site, self._engine, self._options.runs)
        checked, ran = self._check(image, evidence)
        short = self._short(checked)
        kept = (
            ledger.enter(checked, name=self._name, held=self._held, digest=remote.digest, short=short) if ran else None
        )
        statement = ledger.statement(
            checked, image_id=image.id, repository=remote.repository.name, digest=remote.digest, held=self._held
        )
        attached = attach_statement(remote.repository, subject, statement, self._key)
        self._display.note(self._reference, f"attached statement {attached.statement[:12]}… to {remote.reference}")
        return self._judged(image, checked, ran=ran, statement=attached.statement, kept=str(kept or ""))

    @property
    def _name(self) -> str:
        return self._held.recipe.cell.id if self._held else self._reference

    def _evidence(self) -> Evidence:
        policy = self._held.recipe.cell.policy if self._held else None
        return gather(
            self._remote.repository,
            self._remote.digest,
            self._trusted,
            max_age_days=policy.max_age_days if policy else None,
        )

    def _known(self, evidence: Evidence) -> Trusted | None:
        return covering(
            evidence,
            suite=suite().sha256,
            level=self._level,
            device=self._reach.device(self._level, gpus=self._on_gpu),
            cell=self._held.recipe.cell.id if self._held else "",
        )

    def _image(self) -> ImageDetails:
        """The image on the engine, pulled if it is not there."""
        reference = self._remote.reference
        image = inspect(self._engine, reference)
        if image is None:
            self._display.note(self._reference, f"pulling {reference}")
            pull(self._engine, reference, DockerLogins())
            image = inspect(self._engine, reference)
        if image is None:
            raise ImageMissing(f"the engine pulled {reference} and does not know it")
        return image

    def _check(self, image: ImageDetails, evidence: Evidence) -> tuple[Checked, bool]:
        """The run of the suite, and whether it was made now.

        What this machine remembers is no use when somebody saw the image fail since: attached now, it would say that
        the image passed, and lift it over nothing.
        """
        memory = CheckMemory(
            Records(self._run.site.state_dir), self._reach, lambda image_id: inspect(self._engine, image_id)
        )
        held, options = self._held, self._options
        if held is not None and not options.recheck:
            found = memory.recall(held.recipe, image.id, gpus=options.gpus)
            if found is not None and found.counts and not evidence.failed_since(found.when):
                return found, False
        made = check_image(
            self._engine,
            image.id,
            expectation(held.recipe) if held else None,
            cancel=self._run.cancel,
            deadline=options.check_deadline,
            uid=options.user,
            gpus=self._on_gpu,
            level=self._level,
            limit=self._limit,
            fail_fast=options.fail_fast,
        )
        if held is not None:
            return memory.put(held.recipe, image.id, made, user=options.user, gpus=options.gpus), True
        return Checked(
            run=made,
            image_id=image.id,
            content=content_id(image),
            device=self._reach.device(self._level, gpus=self._on_gpu),
            user=options.user,
            when=datetime.now(timezone.utc),
        ), True

    def _short(self, checked: Checked) -> tuple[str, ...]:
        """Why it did not reach the level that was asked for, although it passed."""
        verdict = checked.run.verdict
        passed = self._held is not None and verdict.status is VerdictStatus.PASSED
        return short_of(verdict, self._options.level) if passed else ()

    def _judged(self, image: ImageDetails, checked: Checked, *, ran: bool, statement: str, kept: str) -> Outcome:
        run = checked.run
        verdict = run.verdict
        status, code = OUTCOMES[verdict.status]
        short = self._short(checked)
        if short:
            status, code = Status.INCOMPLETE, CheckIncomplete.exit_code
        cell = self._held.recipe.cell if self._held else None
        return Outcome(
            cell=self._name,
            status=status,
            exit_code=code,
            image_id=image.id,
            candidate=self._remote.reference,
            checked=ran,
            check_seconds=run.seconds if ran else 0.0,
            level=verdict.level.value,
            reached=verdict.reached.value if verdict.reached else "",
            public=cell.policy.public.value if cell else "",
            verified=cell.policy.verified.value if cell else "",
            unverified=verdict.unverified,
            reused=None if ran else (checked.at, checked.image_id),
            checks=check_lines(run),
            run=kept,
            reasons=(*short, *verdict.reasons),
            detail=(*log_lines(run), f"attached statement {statement}"),
        )

    def _unchanged(self, known: Trusted) -> Outcome:
        check = known.check
        assert check is not None
        why = (
            f"checked {check.finished:%Y-%m-%d %H:%M} UTC already, which trusted evidence says, signed by "
            f"{known.verified.key_id}: statement {known.verified.sha256[:12]}…; --recheck checks again"
        )
        return Outcome(
            cell=self._name,
            status=Status.UNCHANGED,
            candidate=self._remote.reference,
            level=check.level.value,
            reached=check.reached.value if check.reached else "",
            reasons=(why,),
        )
