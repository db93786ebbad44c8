"""The parts of a cell that follow from its values, and what is wrong when they do not fit together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from builder.errors import ConfigError
from builder.matrix.declare import Candidate, Declarations, Placed, Requirements
from builder.matrix.model import CONDA, CPU, DISTRIBUTION, UV, Base, Channel, Framework, Level, Policy
from builder.matrix.names import fill
from builder.source import quote

OLDEST_BUILT: Final = 9
"""The minor version of the first Python 3 that uv and conda-forge are asked for: the check in every image needs it."""


def framework_of(declarations: Declarations, candidate: Candidate) -> Framework:
    """The framework as a cell with these values installs it."""
    name, _, version = candidate.framework.text.partition("==")
    rule = declarations.frameworks[name]
    channel = rule.channels.get(candidate.cuda.text)
    values = {
        "framework": name,
        "version": version,
        "cuda": candidate.cuda.text,
        "python": candidate.python.text,
    }
    return Framework(
        name=name,
        version=version,
        image=rule.image,
        template=rule.template,
        constraints=None if rule.constraints is None else fill(rule.constraints, values),
        channel=(Channel(name=channel, url=declarations.channels[channel]) if channel is not None else None),
    )


def policy_of(id: str, cuda: str, override: Requirements, default: Requirements) -> Policy:
    """What is required of a cell: what an override says, else what `defaults` say, else what its CUDA suggests.

    Raises:
        ConfigError: a cell with this CUDA cannot be held to that, or its tags need more than `-verified`.
    """
    public = override.public or default.public
    verified = override.verified or default.verified
    if public is not None and cuda == CPU and Level(public.text) > Level.CPU:
        raise _unfit(id, "public", public, cuda, overridden=public is override.public)
    verified_level = Level(verified.text) if verified is not None else Level.CPU if cuda == CPU else Level.GPU
    if verified is not None and (verified_level > Level.CPU if cuda == CPU else verified_level < Level.GPU):
        raise _unfit(id, "verified", verified, cuda, overridden=verified is override.verified)
    public_level = Level(public.text) if public is not None else min(Level.CPU, verified_level)
    if public is not None and verified_level < public_level:
        raise ConfigError(
            f"{id} would need {quote(public_level.value)} for its tags, and only {quote(verified_level.value)} for "
            "the same with `-verified`",
            where=str(public.position),
            hint=f"let `public` be at most {quote(verified_level.value)}, or raise `verified`",
        )
    age = override.max_age or default.max_age
    return Policy(public=public_level, verified=verified_level, max_age_days=None if age is None else int(age.text))


def _unfit(id: str, field: str, placed: Placed, cuda: str, *, overridden: bool) -> ConfigError:
    """The error for a level that a cell with this CUDA can never have, or that would say too little of it."""
    if cuda == CPU:
        why, glob, mended = "a CPU cell has no GPU to use", "*-cpu-*", Level.CPU
    else:
        why, glob, mended = "a CUDA cell's `-verified` needs at least `gpu`", "*-cuda*", Level.GPU
    mend = f'add the override `{{match: "{glob}", set: {{require: {{{field}: {mended.value}}}}}}}`'
    return ConfigError(
        f"{id} cannot be {field} at {quote(placed.text)}: {why}",
        where=str(placed.position),
        hint="narrow the override's glob, so that it does not match this cell" if overridden else mend,
    )


def declared_twice(id: str, candidate: Candidate, other: Candidate) -> ConfigError:
    """The error for two candidates of one name."""
    hint = "remove one of them"
    if candidate.extras != other.extras:
        hint = "they differ in extras that are not `named: true`, so their names are the same"
    return ConfigError(
        f"the cell {id} is declared twice, first at {other.position}", where=str(candidate.position), hint=hint
    )


def require_python(id: str, interpreter: str, python: Placed, base: Base, bases: Mapping[str, Base]) -> None:
    """Looks whether a cell's Python can be had from where it is to come from.

    Raises:
        ConfigError: its base does not carry it, or it is older than what uv and conda-forge are asked for.
    """
    if interpreter == DISTRIBUTION:
        if python.text not in base.pythons:
            raise _python_missing(id, python, base, bases)
        return
    if int(python.text.partition(".")[2]) < OLDEST_BUILT:
        raise ConfigError(
            f"{id} cannot have Python {python.text} from {quote(interpreter)}: `imgcheck`, which every image carries, "
            f"needs 3.{OLDEST_BUILT}",
            where=str(python.position),
            hint=f"take a later Python, or `interpreter: {DISTRIBUTION}` on a base that carries {python.text}",
        )


def _python_missing(id: str, python: Placed, base: Base, bases: Mapping[str, Base]) -> ConfigError:
    """The error for a cell whose base does not carry its Python."""
    carrying = [name for name, each in bases.items() if python.text in each.pythons]
    other = f"`interpreter: {UV}` or `interpreter: {CONDA}` brings it to any base"
    hint = (
        f"{quote(carrying[0])} carries it: choose it by `include`, the axis `base` or an override; or {other}"
        if carrying
        else f"no base carries it, {quote(base.name)} carries {', '.join(base.pythons)}; {other}; "
        "or add a base that does, or exclude the cell"
    )
    return ConfigError(
        f"the base {quote(base.name)} of {id} does not carry Python {python.text}",
        where=str(python.position),
        hint=hint,
    )
