"""The parts of a cell that follow from its values, and what is wrong when they do not fit together."""

from __future__ import annotations

from collections.abc import Mapping

from builder.errors import ConfigError
from builder.matrix.declare import Candidate, Declarations, Placed
from builder.matrix.model import CPU, Base, Channel, Framework, Level
from builder.matrix.names import fill
from builder.source import quote


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


def verify_of(id: str, cuda: str, override: Placed | None, default: Placed | None) -> Level:
    """The level at which a cell is verified.

    Raises:
        ConfigError: a cell with this CUDA cannot be.
    """
    chosen = override or default
    if chosen is None:
        return Level.CPU if cuda == CPU else Level.GPU
    level = Level(chosen.text)
    if cuda != CPU and level < Level.GPU:
        why = "a CUDA cell's `-verified` needs at least `gpu`"
        mend = 'add the override `{match: "*-cuda*", set: {verify: gpu}}`'
    elif cuda == CPU and level > Level.CPU:
        why = "a CPU cell has no GPU to use"
        mend = 'add the override `{match: "*-cpu-*", set: {verify: cpu}}`'
    else:
        return level
    raise ConfigError(
        f"{id} cannot be verified at {quote(level.value)}: {why}",
        where=str(chosen.position),
        hint=mend if override is None else "narrow the override's glob, so that it does not match this cell",
    )


def declared_twice(id: str, candidate: Candidate, other: Candidate) -> ConfigError:
    """The error for two candidates of one name."""
    hint = "remove one of them"
    if candidate.extras != other.extras:
        hint = "they differ in extras that are not `named: true`, so their names are the same"
    return ConfigError(
        f"the cell {id} is declared twice, first at {other.position}", where=str(candidate.position), hint=hint
    )


def python_missing(id: str, python: Placed, base: Base, bases: Mapping[str, Base]) -> ConfigError:
    """The error for a cell whose base does not carry its Python."""
    carrying = [name for name, each in bases.items() if python.text in each.pythons]
    hint = (
        f"{quote(carrying[0])} carries it: choose it by `include`, the axis `base` or an override"
        if carrying
        else f"no base carries it, {quote(base.name)} carries {', '.join(base.pythons)}; "
        "add such a base, or exclude the cell"
    )
    return ConfigError(
        f"the base {quote(base.name)} of {id} does not carry Python {python.text}",
        where=str(python.position),
        hint=hint,
    )
