"""What the suite said of images on this machine, so that nothing unchanged is checked twice.

A run is remembered by the image's content (`check.content`), suite, level, user and kind of device: an image that
differs from a checked one in a label or a date alone is not checked again. The suite's own result is kept, not a
verdict: the verdict is made again from it with what the cell expects today.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from builder.builds import BUILDS
from builder.check import (
    DEFAULT_USER,
    CheckRun,
    Expectation,
    NoResult,
    Reach,
    Verdict,
    VerdictStatus,
    content_id,
    judge,
    parse_result,
    required_checks,
    suite,
)
from builder.check.content import CONTENT_FORMAT
from builder.check.judge import failed_verdict
from builder.engine import fields
from builder.engine.images import ImageDetails
from builder.matrix import Level
from builder.plan import Remembered
from builder.records import Records
from builder.render import Recipe

CHECKS = "checks"
"""The kind of record that remembers runs of the suite."""

CONTENTS = "contents"
"""The kind of record that remembers the content ids of image ids: what an image id stands for never changes."""

STATEMENTS = "statements"
"""The kind of record that remembers the statements on runs, for later ones to cite."""

UNKNOWN = "unknown"
"""The device, in records, of a run on a GPU of which nobody says what it is."""

FAILED = "failed"
"""In keys, in place of a device: the last failure up to a level on whatever device, for when that one is not here."""

KEEP_DAYS = 90
"""Days after which a record may go, when the engine holds no image that it is about."""


def expectation(recipe: Recipe) -> Expectation:
    """What an image must be to pass as this cell: the pins, what must be installed, and the checks that must run."""
    cell = recipe.cell
    packages = (package for extra in cell.extras for package in extra.packages)
    promised = frozenset({cell.framework.name, "pip", *packages})
    return Expectation(
        packages=recipe.constraints,
        promised=promised,
        python=cell.python,
        cuda=cell.cuda,
        level=cell.policy.public,
        verified=cell.policy.verified,
        required=required_checks(promised, controllers=[extra.controller for extra in cell.extras if extra.controller]),
    )


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One run of the suite, made now or remembered.

    Attributes:
        run: what it brought; its verdict is by what the cell expects today.
        image_id: the image that it ran in.
        content: that image's content id.
        device: the kind of device; None for a GPU of which nobody says what it is.
        user: as which it ran, `UID:GID`.
        when: when it ended, UTC.
        expired: whether that is longer ago than the cell's policy lets it count.
    """

    run: CheckRun
    image_id: str
    content: str
    device: str | None
    user: str
    when: datetime
    expired: bool = False

    @property
    def counts(self) -> bool:
        """Whether the image passed, and not too long ago."""
        return self.run.verdict.status is VerdictStatus.PASSED and not self.expired

    @property
    def at(self) -> str:
        """`when` in ISO 8601, with seconds."""
        return self.when.isoformat(timespec="seconds").replace("+00:00", "Z")


def _now() -> datetime:
    return datetime.now(timezone.utc)


class CheckMemory:
    """Remembers runs of the suite on this machine. Safe to use from several threads.

    Args:
        records: where.
        reach: how far checks go here, and on which device.
        inspect: what the engine says of an image id.
        now: the time.
    """

    def __init__(
        self,
        records: Records,
        reach: Reach,
        inspect: Callable[[str], ImageDetails | None],
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._records = records
        self._reach = reach
        self._inspect = inspect
        self._now = now
        self._suite = suite().sha256
        self._contents: dict[str, str] = {}
        self._recalled: dict[tuple[str, str, str, bool], Checked | None] = {}

    def refresh(self) -> None:
        """Makes the next questions look at the records again: another imgbuild may have written some."""
        self._recalled = {}

    def content(self, image_id: str) -> str | None:
        """The content id of an image; None when the engine does not hold it and nothing is remembered of it."""
        known = self._contents.get(image_id)
        if known is None:
            known = self._recorded(image_id)
            if not known:
                details = self._inspect(image_id)
                known = content_id(details) if details is not None and details.id == image_id else ""
            if known:
                self._contents[image_id] = known
        return known or None

    def _recorded(self, image_id: str) -> str:
        document = fields.mapping(self._records.get(CONTENTS, image_id))
        # What an earlier imgbuild took for content may have left out what counts today.
        return fields.text(document.get("content")) if document.get("format") == CONTENT_FORMAT else ""

    def learn(self, image_id: str) -> str | None:
        """As `content`, and remembers it, so that the engine need not be asked again."""
        content = self.content(image_id)
        if content is not None and self._recorded(image_id) != content:
            self._records.put(CONTENTS, image_id, {"image_id": image_id, "content": content, "format": CONTENT_FORMAT})
        return content

    def put(
        self, recipe: Recipe, image_id: str, run: CheckRun, *, user: str = DEFAULT_USER, gpus: bool = False
    ) -> Checked:
        """Remembers one run of the suite, unless it passed on a device of which nobody says what it is.

        A failure is also remembered without its device, until a run passes that goes as far, on whatever device.

        Args:
            recipe, image_id: the cell, and the image that was checked.
            run: what came of it.
            user: as which it ran.
            gpus: whether the container had the GPUs also at a level that needs none.

        Raises:
            StateError: it cannot be written.
        """
        content = self.learn(image_id) or image_id
        level = run.verdict.level
        device = self._reach.device(level, gpus=gpus)
        found = Checked(run=run, image_id=image_id, content=content, device=device, user=user, when=self._now())
        failed = run.verdict.status is VerdictStatus.FAILED
        document = {
            "image_id": image_id,
            "content": content,
            "suite": self._suite,
            "level": level.value,
            "user": user,
            "device": device or UNKNOWN,
            "when": found.when.isoformat(),
            "seconds": run.seconds,
            "nonce": run.nonce,
            "result": run.raw.decode("utf-8") if run.result is not None else None,
            "reason": run.verdict.checks[0].reason if run.result is None else "",
        }
        if failed:
            self._records.put(CHECKS, self._key(content, level, user, FAILED), document)
        if device is not None:
            self._records.put(CHECKS, self._key(content, level, user, device), document)
        reached = run.verdict.reached
        for mended in Level:
            if not failed and reached is not None and mended <= reached:
                self._records.forget(CHECKS, self._key(content, mended, user, FAILED))
        self.refresh()
        return found

    def recall(self, recipe: Recipe, image_id: str, *, user: str = DEFAULT_USER, gpus: bool = False) -> Checked | None:
        """The last run on an image of this content, as far as checks of the cell go here; None when there was none.

        A later run that failed takes its place, whatever level that went up to and on whatever it ran: an image that
        failed last does not count as one that passed.

        Args:
            recipe, image_id: the cell, and the image.
            user, gpus: as for `put`.
        """
        asked = (recipe.cell.id, image_id, user, gpus)
        known = self._recalled
        if asked not in known:
            known[asked] = self._read(recipe, image_id, user, gpus)
        return known[asked]

    def get(self, recipe: Recipe, image_id: str) -> Remembered | None:
        """What the last run as the default user comes to, judged by what the cell expects today."""
        found = self.recall(recipe, image_id)
        if found is None:
            return None
        verdict = found.run.verdict
        reason = verdict.reasons[0] if verdict.reasons else ""
        if found.expired and not reason:
            age = recipe.cell.policy.max_age_days
            reason = f"it was checked {found.at}, more than {age} {'day' if age == 1 else 'days'} ago"
        return Remembered(
            passed=found.counts,
            reason=reason,
            expired=found.expired and verdict.status is VerdictStatus.PASSED,
            reached=verdict.reached,
            unverified=verdict.unverified,
            image_id=found.image_id,
            when=found.at,
            reused=found.image_id != image_id,
        )

    def _read(self, recipe: Recipe, image_id: str, user: str, gpus: bool) -> Checked | None:
        level, limit = self._reach.level(recipe.cell)
        content = self.content(image_id)
        if content is None:
            return None
        found = self._made(recipe, content, level, user, self._reach.device(level, gpus=gpus), limit)
        if found is None:
            return None
        for other in Level:
            later = self._made(recipe, content, other, user, FAILED, limit, since=found.when)
            if later is not None and later.run.verdict.status is VerdictStatus.FAILED:
                found = later
        return found

    def _made(
        self,
        recipe: Recipe,
        content: str,
        level: Level,
        user: str,
        device: str | None,
        limit: str,
        *,
        since: datetime | None = None,
    ) -> Checked | None:
        """What is remembered of one level and device, or failure, if it is later than `since`."""
        document = self._records.get(CHECKS, self._key(content, level, user, device)) if device is not None else None
        if document is None:
            return None
        when = _instant(document.get("when"))
        if when is None or (since is not None and when <= since) or fields.text(document.get("content")) != content:
            return None
        age = recipe.cell.policy.max_age_days
        ran_on = fields.text(document.get("device"))
        return Checked(
            run=self._run(recipe, document, level, limit),
            image_id=fields.text(document.get("image_id")),
            content=content,
            device=None if ran_on == UNKNOWN else ran_on,
            user=user,
            when=when,
            expired=age is not None and self._now() - when > timedelta(days=age),
        )

    def _run(self, recipe: Recipe, document: Mapping[str, object], level: Level, limit: str) -> CheckRun:
        raw, nonce = document.get("result"), fields.text(document.get("nonce"))
        seconds = document.get("seconds")
        result = None
        verdict: Verdict
        if isinstance(raw, str):
            try:
                result = parse_result(raw.encode(), nonce, frozenset(suite().checks))
                verdict = judge(expectation(recipe), result, limit=limit)
            except NoResult as error:
                verdict = failed_verdict(level, error.message)
        else:
            verdict = failed_verdict(level, fields.text(document.get("reason")) or "it gave no result")
        return CheckRun(
            verdict=verdict,
            result=result,
            suite_sha256=self._suite,
            nonce=nonce,
            log_tail="",
            raw=raw.encode() if isinstance(raw, str) else b"",
            seconds=float(seconds) if isinstance(seconds, int | float) else 0.0,
            limit=limit,
        )

    def _key(self, content: str, level: Level, user: str, device: str) -> str:
        return f"{content} {self._suite} {level.value} {user} {device}"

    def prune(self, held: Callable[[], frozenset[str]]) -> int:
        """Forgets what was written long ago about images that are gone; looks at most once a day.

        Args:
            held: the ids of all images of the engine; asked only when there is something to look at.

        Returns:
            how many records went.
        """
        ids: frozenset[str] | None = None
        contents: set[str] = set()

        def gone(kind: str, document: Mapping[str, object]) -> bool:
            nonlocal ids
            if ids is None:
                ids = held()
                contents.update(filter(None, map(self._recorded, ids)))
            if fields.text(document.get("image_id")) in ids:
                return False
            # Another image of the same content lives by the check of one that is gone, and cites its statement.
            return kind not in (CHECKS, STATEMENTS) or document.get("content") not in contents

        return self._records.prune((CHECKS, CONTENTS, STATEMENTS, BUILDS), days=KEEP_DAYS, gone=gone)


def _instant(value: object) -> datetime | None:
    try:
        when = datetime.fromisoformat(fields.text(value))
    except ValueError:
        return None
    return when if when.tzinfo is not None else None
