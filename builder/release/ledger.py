"""What this machine keeps of its runs of the suite: a directory for people and CI systems, and a statement to cite.

Every run gets a statement at once, about the image's id: that is what a later statement cites that takes its result
over for another image. The statement itself is remembered, so that what is cited can be shown, and that a statement
made later says on what the suite ran, and not on what it was published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from builder.attest import Environment, Refused, SigningKey, sign, statement_sha256
from builder.attest.claims import parse_check, parse_statement
from builder.check import VerdictStatus
from builder.engine import fields
from builder.engine.connection import EngineInfo
from builder.memory import STATEMENTS, Checked
from builder.project import Project
from builder.records import Records
from builder.release.statements import check_of, environment, subjects
from builder.render import Recipe
from builder.runs import add, run_of, write_run

STATEMENT_FILE = "statement.json"
BUNDLE_FILE = "bundle.json"


@dataclass(frozen=True, kw_only=True)
class Held:
    """The cell that an image is held to.

    Attributes:
        project: the project of the matrix.
        recipe: the rendered cell.
        key: its content key; None when it is not known.
    """

    project: Project
    recipe: Recipe
    key: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Where runs are kept, and what their statements share.

    Attributes:
        records: what this machine remembers.
        info: the engine's.
        runs: the directory for the runs' own directories; None to write none.
        keep: how many of them stay; None for all.
        key: what statements are signed with; None to sign nothing.
        url: of the CI job; empty for none.
    """

    records: Records
    info: EngineInfo
    runs: Path | None = None
    keep: int | None = None
    key: SigningKey | None = None
    url: str = ""

    def enter(
        self,
        checked: Checked,
        *,
        name: str,
        held: Held | None = None,
        digest: str = "",
        short: tuple[str, ...] = (),
    ) -> Path | None:
        """Keeps a run that was just made; returns its directory, when one is written.

        Args:
            checked: the run.
            name: the cell's id, or the reference of an image that is held to none.
            held: the cell; None for none.
            digest: of the image's manifest, where it came from a registry.
            short: why it did not reach the level that was asked for by name, although it passed: for whoever asked,
                the run is incomplete. The statement says the level that was reached, whatever was asked for.

        Raises:
            StateError: it cannot be written.
        """
        where = environment(checked, self.info)
        statement = self._make(checked, held, where)
        self._remember(checked, statement)
        if self.runs is None:
            return None
        run = run_of(
            checked.run,
            name=name,
            image_id=checked.image_id,
            content_id=checked.content,
            digest=digest,
            policy=held.recipe.cell.policy if held else None,
            environment=_said(where),
        )
        if short:
            run = replace(run, status=VerdictStatus.INCOMPLETE, reasons=(*short, *run.reasons))
        directory = write_run(self.runs, run, checked.run, keep=self.keep)
        add(directory, STATEMENT_FILE, statement)
        if self.key is not None:
            add(directory, BUNDLE_FILE, sign(statement, self.key))
        return directory

    def statement(
        self, checked: Checked, *, image_id: str, repository: str = "", digest: str = "", held: Held | None = None
    ) -> bytes:
        """The statement that a run's result makes about an image.

        It cites the statement on the run itself where that was of another image.

        Args:
            checked: the run, made now or remembered.
            image_id: the image; of the same content as the run's.
            repository, digest: where and what the image is in a registry.
            held: the cell.

        Raises:
            StateError: what is to be cited cannot be remembered.
        """
        first = self.first(checked, held)
        return check_of(
            checked,
            about=subjects(image_id, repository=repository, digest=digest),
            where=_environment(first) or environment(checked, self.info),
            stated=_now(),
            project=held.project if held else None,
            recipe=held.recipe if held else None,
            key=held.key if held else None,
            repository=repository,
            reused=None if image_id == checked.image_id else statement_sha256(first),
            url=self.url,
        )

    def first(self, checked: Checked, held: Held | None = None) -> bytes:
        """The statement that was made when the suite ran; made now when nothing is remembered of it.

        Raises:
            StateError: it cannot be remembered.
        """
        document = self.records.get(STATEMENTS, _name(checked))
        known = fields.text(fields.mapping(document).get("statement")).encode()
        if known and statement_sha256(known) == fields.text(fields.mapping(document).get("sha256")):
            return known
        made = self._make(checked, held, environment(checked, self.info))
        self._remember(checked, made)
        return made

    def _make(self, checked: Checked, held: Held | None, where: Environment) -> bytes:
        return check_of(
            checked,
            about=subjects(checked.image_id),
            where=where,
            stated=_now(),
            project=held.project if held else None,
            recipe=held.recipe if held else None,
            key=held.key if held else None,
            url=self.url,
        )

    def _remember(self, checked: Checked, statement: bytes) -> None:
        document = {
            "image_id": checked.image_id,
            "content": checked.content,
            "sha256": statement_sha256(statement),
            "statement": statement.decode(),
        }
        self.records.put(STATEMENTS, _name(checked), document)


def _name(checked: Checked) -> str:
    """What names one run: its own random number, or where there is none what ran and when."""
    return checked.run.nonce or f"{checked.image_id} {checked.run.suite_sha256} {checked.when.isoformat()}"


def _environment(statement: bytes) -> Environment | None:
    """On what a remembered run ran; None when its statement cannot be read any more."""
    try:
        return parse_check(parse_statement(statement)).environment
    except Refused:
        return None


def _said(where: Environment) -> Mapping[str, str]:
    """What a run's files say of the machine."""
    said = {
        "engine": f"Docker {where.engine}" if where.engine else "",
        "kernel": where.kernel,
        "device": where.device,
        "gpus": ", ".join(where.gpus),
        "driver": where.driver,
        "cuda": where.cuda,
        "user": where.user,
    }
    return {name: value for name, value in said.items() if value}


def _now() -> datetime:
    return datetime.now(timezone.utc)
