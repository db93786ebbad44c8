"""A base's lock: its digest, its made equivalent, and the distribution's packages that cells install on it.

Versions come from apt itself, which is asked inside the base, in a build that is thrown away: with the same sources,
mirrors and certificates as the build of an image, and so without any knowledge of its own of what a package needs.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from builder.engine.auth import DockerLogins
from builder.engine.bootstrap import BootstrappedBase, bases_of, packages_of
from builder.engine.build import BuildRequest, build
from builder.engine.connection import Engine
from builder.engine.containers import read_from_image
from builder.engine.errors import RegistryError, RegistryUnreachable
from builder.engine.images import remove
from builder.engine.session import Session, shared_key_for
from builder.engine.tree import FileTree
from builder.errors import BaseError, ImgbuildError
from builder.lock import Bases
from builder.lock.base_locks import archive_moved, misfits
from builder.lock.model import BaseLock, DebianRequest, MadeBase
from builder.lock.origins import bootstrap_recipe, make_locally, registry_digest_of, registry_reference
from builder.matrix import Base
from builder.project import Project
from builder.render import renderer_of
from builder.render.locked import preferences
from builder.site import Site, build_secrets

TEMPLATE = "_resolve.Dockerfile.j2"
"""The template of the build that asks apt."""

NO_REGISTRY = "no registry could be reached when it was locked"
NOT_ASKED = "it was locked with --bases bootstrap"
"""Why a lock has no digest; the same on every machine."""

_RESULT_CAP = 64 << 20
_INSTALLED = re.compile(r"^Inst (\S+?)(?::\S+)? (?:\[\S+\] )?\((\S+)", re.MULTILINE)
_REMOVED = re.compile(r"^Remv (\S+)", re.MULTILINE)
_COMPLAINT = re.compile(r"^E: (.+)$", re.MULTILINE)


def lock_base(
    engine: Engine,
    base: Base,
    requests: Iterable[DebianRequest],
    *,
    site: Site,
    project: Project,
    repository: str,
    mode: Bases = Bases.AUTO,
    previous: BaseLock | None = None,
    upgrade: bool = False,
    today: str,
    on_line: Callable[[str], None] = lambda line: None,
    cancel: threading.Event | None = None,
) -> BaseLock:
    """The lock of a base.

    What is locked already stays as it is, and nothing is asked about it; only what is missing is found out, in the
    locked versions as far as the archive still has them. What is no longer asked for is dropped.

    Args:
        engine: apt is asked in a build on it.
        base: the base.
        requests: what cells on it install.
        site: the mirrors, proxies and CA.
        project: its templates reach the site.
        repository: the prefix of the matrix's images; a made base is kept as `<repository>/base`.
        mode: which forms of the base are locked: the registry's, the one that is made, or, with `AUTO`, all that are
            to be had.
        previous: the lock that there is.
        upgrade: find out everything anew, in the versions that the distribution has today.
        today: the day, ISO 8601, that the lock carries when anything was taken from the distribution.
        on_line: receives progress, a line at a time.
        cancel: ends what runs on the engine when set.

    Raises:
        BaseError: the base can be had from nowhere, or apt cannot install what is asked for.
        EngineError: the build that asks apt failed.
    """
    locker = _Locker(
        engine=engine,
        site=site,
        project=project,
        repository=f"{repository}/base",
        mode=mode,
        today=today,
        on_line=on_line,
        cancel=cancel,
    )
    return locker.lock(base, requests, previous, upgrade)


@dataclass(frozen=True, kw_only=True)
class _Locker:
    """Locks bases; its fields are arguments of `lock_base`, and `repository` is that of made bases."""

    engine: Engine
    site: Site
    project: Project
    repository: str
    mode: Bases
    today: str
    on_line: Callable[[str], None]
    cancel: threading.Event | None

    def lock(self, base: Base, requests: Iterable[DebianRequest], previous: BaseLock | None, upgrade: bool) -> BaseLock:
        wanted = sorted(set(requests), key=lambda request: request.order)
        known = None if upgrade or previous is None or misfits(previous, base) else previous
        start = known if known is not None else self._base(base)
        installs = dict(start.installs)
        missing = [request for request in wanted if request not in installs]
        if missing:
            # What stands in the lock together stays together.
            kept = {name: version for versions in installs.values() for name, version in versions.items()}
            installs.update(self._resolve(base, start, missing, kept))
        return replace(start, installs={request: installs[request] for request in wanted})

    def _base(self, base: Base) -> BaseLock:
        """The base itself, as it is to be had today."""
        digest, why = self._digest(base)
        made: MadeBase | None = None
        if base.bootstrap is not None and self.mode is not Bases.REGISTRY:
            found = self._made_today(base, "to lock it")
            made = MadeBase(recipe=found.recipe_sha256, packages=packages_of(self.engine, found).versions)
        return BaseLock(name=base.name, image=base.image, refreshed=self.today, digest=digest, why=why, made=made)

    def _digest(self, base: Base) -> tuple[str | None, str]:
        if self.mode is Bases.BOOTSTRAP:
            return None, NOT_ASKED
        try:
            return registry_digest_of(self.engine, base, base.digest), ""
        except RegistryUnreachable as error:
            if base.bootstrap is None or self.mode is Bases.REGISTRY:
                raise BaseError(error.message, where=f"base {base.name}", hint=error.hint) from None
            return None, NO_REGISTRY
        except RegistryError as error:
            raise BaseError(error.message, where=f"base {base.name}", hint=error.hint) from None

    def _made_today(self, base: Base, why: str) -> BootstrappedBase:
        return make_locally(
            self.engine,
            base,
            why,
            site=self.site,
            repository=self.repository,
            on_line=self.on_line,
            cancel=self.cancel,
        )

    def _resolve(
        self, base: Base, lock: BaseLock, requests: list[DebianRequest], kept: Mapping[str, str]
    ) -> dict[DebianRequest, dict[str, str]]:
        """What requests install on the base, in whichever form cells may use it: both forms, where there are two."""
        forms = list(self._forms(base, lock))
        versions: list[dict[str, str]] = [{} for _ in requests]
        for reference in forms:
            self.on_line(f"base {base.name}: asking apt what {len(requests)} requests install on {reference}")
            for found, added in zip(versions, self._ask(base, reference, requests, kept), strict=True):
                for name, version in added.items():
                    if found.setdefault(name, version) != version:
                        raise BaseError(
                            f"{name} is {version} on {reference}, and {found[name]} on {forms[0]}",
                            where=f"base {base.name}",
                            hint="lock again in a while: the archive is just being changed",
                        )
        return {request: dict(sorted(added.items())) for request, added in zip(requests, versions, strict=True)}

    def _forms(self, base: Base, lock: BaseLock) -> Iterable[str]:
        """What `FROM` names for each form of the base."""
        if lock.made is not None:
            yield self._made(base, lock.made)
        if lock.digest is not None:
            yield registry_reference(base, lock.digest)

    def _made(self, base: Base, made: MadeBase) -> str:
        """The base that is locked: one that is there, or made again, as long as the archive has its packages."""
        recipe = bootstrap_recipe(self.engine, base)
        for found in bases_of(self.engine, recipe, self.repository):
            if packages_of(self.engine, found).versions == dict(made.packages):
                return found.reference
        again = self._made_today(base, "to ask apt in it")
        versions = packages_of(self.engine, again).versions
        if versions != dict(made.packages):
            raise archive_moved(base, made.packages, versions)
        return again.reference

    def _ask(
        self, base: Base, reference: str, requests: list[DebianRequest], kept: Mapping[str, str]
    ) -> list[Mapping[str, str]]:
        """Versions by name of what each request adds to what the requests before it bring."""
        lines = [" ".join((*request.after, *request.packages)) for request in requests]
        lines += [" ".join(request.after) for request in requests]
        simulated = dict(zip(lines, self._simulate(base, reference, lines, kept), strict=True))
        added: list[Mapping[str, str]] = []
        for request in requests:
            before = simulated[" ".join(request.after)]
            after = simulated[" ".join((*request.after, *request.packages))]
            added.append({name: version for name, version in after.items() if before.get(name) != version})
        return added

    def _simulate(
        self, base: Base, reference: str, lines: list[str], kept: Mapping[str, str]
    ) -> Iterable[Mapping[str, str]]:
        """Versions by name of what apt would install, for each line of package names."""
        engine, renderer = self.engine, renderer_of(self.project)
        context, dockerfiles = FileTree(), FileTree()
        dockerfiles.add_bytes("Dockerfile", renderer.render_text(TEMPLATE, image=base.image).encode())
        script = renderer.read("files/apt-resolve")
        context.add_bytes(script.path, script.data, mode=script.mode)
        context.add_bytes("preferences", preferences(kept).encode())
        context.add_bytes("requests", "".join(f"{line}\n" for line in lines).encode())
        session = Session.open(
            engine,
            context=context,
            dockerfiles=dockerfiles,
            secrets=build_secrets(self.site, {}),
            credentials=DockerLogins(),
            shared_key=shared_key_for(self.project.root / "lock"),
        )
        with session:
            built = build(
                engine,
                session,
                # Without the cache, which would answer with an older archive.
                BuildRequest(build_args={"BASE": reference}, no_cache=True),
                cancel=self.cancel,
            )
        try:
            result = read_from_image(engine, built.image_id, "/resolved", cap=_RESULT_CAP)
        finally:
            remove(engine, built.image_id)
        if result is None:
            raise ImgbuildError("the build that asks apt gave no result", where=f"base {base.name}")
        return parse_simulations(result.decode("utf-8", "replace"), lines, f"base {base.name}")


def parse_simulations(text: str, lines: list[str], where: str) -> list[Mapping[str, str]]:
    """Reads what `files/apt-resolve` wrote: versions by name of what apt would install, for each line of names.

    Raises:
        BaseError: apt cannot install what a line asks for, or would remove something for it.
    """
    answers = text.split("request\n")[1:]
    if len(answers) != len(lines):
        raise BaseError(f"apt answered {len(answers)} of {len(lines)} questions", where=where)
    found: list[Mapping[str, str]] = []
    for line, answer in zip(lines, answers, strict=True):
        complaints = _COMPLAINT.findall(answer)
        if not answer.endswith("status 0\n"):
            said = "; ".join(complaints) or "it says nothing"
            raise BaseError(f"apt cannot install {line}: {said}", where=where, hint="mend what the template asks for")
        removed = _REMOVED.findall(answer)
        if removed:
            raise BaseError(f"apt would remove {', '.join(removed)} to install {line}", where=where)
        found.append(dict(_INSTALLED.findall(answer)))
    return found
