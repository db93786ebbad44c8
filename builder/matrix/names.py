"""Names: cell ids, tags and aliases. They are made from fields and never parsed back."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from builder.errors import ConfigError, ImgbuildError
from builder.matrix.declare import Alias, Candidate, Placed
from builder.matrix.forms import TAG, TAG_LIMIT, VERIFIED_SUFFIX
from builder.matrix.globs import compiled
from builder.matrix.judge import Judge, refusal
from builder.matrix.model import CPU, DISTRIBUTION, Cell, Excluded, Extra, Judged
from builder.matrix.rules import nearest_id
from builder.source import Position, quote


def cell_id(
    candidate: Candidate, extras: Mapping[str, Extra], default_base: str, default_interpreter: str = DISTRIBUTION
) -> str:
    """For example "torch-2.13.0-cuda13.0-py3.11-uv-trixie-horovod".

    Interpreter and base are part of it only if they are not the default ones, an extra only if it is named.
    """
    name, _, version = candidate.framework.text.partition("==")
    parts = [name, version, cuda_name(candidate.cuda.text), f"py{candidate.python.text}"]
    if (interpreter := named_interpreter(candidate, default_interpreter)) is not None:
        parts.append(interpreter)
    if candidate.base.text != default_base:
        parts.append(candidate.base.text)
    parts.extend(name for name in candidate.extras if extras[name].named)
    return "-".join(parts)


def named_interpreter(candidate: Candidate, default: str) -> str | None:
    """The interpreter that a cell's id names; None where it is the default one, which it does not."""
    own = candidate.interpreter
    return None if own is None or own.text == default else own.text


def cuda_name(cuda: str) -> str:
    """ "cpu", or "cuda13.0" for "13.0"."""
    return cuda if cuda == CPU else f"cuda{cuda}"


def tag_values(candidate: Candidate, base: str, interpreter: str, extras: Iterable[Extra]) -> dict[str, str]:
    """What each placeholder of a tag renders to."""
    name, _, version = candidate.framework.text.partition("==")
    return {
        "framework": name,
        "version": version,
        "cuda": cuda_name(candidate.cuda.text),
        "python": candidate.python.text,
        "interpreter": "" if interpreter == DISTRIBUTION else f"-{interpreter}",
        "base": base,
        "extras": "".join(f"-{e.name}{e.version or ''}" for e in extras if e.named),
    }


def fill(template: str, values: Mapping[str, str]) -> str:
    """`template` with its placeholders replaced; the form of templates allows only known ones."""
    return template.format_map(values)


def render_tags(templates: Sequence[Placed], values: Mapping[str, str], id: str) -> tuple[str, ...]:
    """The tags of one cell.

    Raises:
        ConfigError: a template renders to something that is not a valid tag, or is too long to
            take the suffix of verified images.
    """
    tags = []
    for template in templates:
        tag = fill(template.text, values)
        where = str(template.position)
        if len(tag) > TAG_LIMIT:
            raise ConfigError(
                f"the tag {quote(tag)} of {id} has {len(tag)} characters, more than {TAG_LIMIT}",
                where=where,
                hint=f"a tag has at most 128 characters, and `{VERIFIED_SUFFIX}` must fit too",
            )
        if not TAG.matches(tag):
            raise ConfigError(
                f"{quote(template.text)} renders {quote(tag)} for {id}, which is not {TAG.noun}",
                where=where,
                hint=f"for example `{'{version}-{cuda}-py{python}{extras}'}`",
            )
        tags.append(tag)
    return tuple(tags)


def resolve_aliases(
    aliases: Sequence[Alias], ids: Sequence[str], left_out: Sequence[Excluded | Judged], judge: Judge
) -> dict[str, tuple[str, ...]]:
    """The aliases of each cell id that has any.

    Args:
        aliases: of the file.
        ids: of the cells.
        left_out: combinations that are no cells.
        judge: knows what is nearest to an impossible one.

    Raises:
        ConfigError: a glob matches no cell, only excluded ones, or more than one.
        Impossible: it matches no cell, and a combination that facts forbid.
        NotKnown: likewise, one that the facts do not reach.
    """
    known = set(ids)
    resolved: dict[str, tuple[str, ...]] = {}
    for alias in aliases:
        for glob in alias.globs:
            if glob.text in known:
                found = [glob.text]
            else:
                match = compiled(glob.text)
                found = [id for id in ids if match(id)]
            if len(found) != 1:
                raise _alias_error(alias, glob, found, ids, left_out, judge)
            resolved[found[0]] = (*resolved.get(found[0], ()), alias.tag.text)
    return resolved


def _alias_error(
    alias: Alias,
    glob: Placed,
    found: Sequence[str],
    ids: Sequence[str],
    left_out: Sequence[Excluded | Judged],
    judge: Judge,
) -> ImgbuildError:
    name = f"the alias {quote(alias.tag.text)}"
    where = str(glob.position)
    if found:
        some = ", ".join(found[:3]) + (", …" if len(found) > 3 else "")
        return ConfigError(
            f"{name} matches {len(found)} cells, not one: {some}",
            where=where,
            hint="narrow the glob until it matches one cell",
        )
    match = compiled(glob.text)
    meant = [cell for cell in left_out if match(cell.id)]
    for cell in meant:
        if isinstance(cell, Excluded):
            return ConfigError(
                f"{name} points to the excluded cell {cell.id}: {cell.reason}",
                where=where,
                hint=f"it is excluded at {cell.by}; point the alias to another cell",
            )
    judged = [cell for cell in meant if isinstance(cell, Judged)]
    if judged:
        return refusal(judged, judge, where=where, what=f"{name} matches no cell:")
    return ConfigError(f"{name} matches no cell: {quote(glob.text)}", where=where, hint=nearest_id(glob.text, ids))


def check_references(cells: Sequence[Cell], templates: Sequence[Placed], aliases: Sequence[Alias]) -> None:
    """Looks that no two cells claim the same `repository:tag`.

    Raises:
        ConfigError: two do; the position is that of the tag's template, or of the alias.
    """
    alias_at = {alias.tag.text: alias.tag.position for alias in aliases}
    tag_claims = (
        (cell, tag, template.position) for cell in cells for tag, template in zip(cell.tags, templates, strict=True)
    )
    alias_claims = ((cell, alias, alias_at[alias]) for cell in cells for alias in cell.aliases)
    owner: dict[tuple[str, str], Cell] = {}
    # Tags come first, so that an alias which collides with a tag is the one that is reported.
    for cell, tag, position in itertools.chain(tag_claims, alias_claims):
        key = (cell.repository, tag)
        if key in owner:
            raise _collision(cell, owner[key], tag, position, templates)
        owner[key] = cell


def _collision(cell: Cell, other: Cell, tag: str, position: Position, templates: Sequence[Placed]) -> ConfigError:
    reference = f"{cell.repository}:{tag}"
    if other is cell:
        return ConfigError(
            f"{reference} is given to {cell.id} twice",
            where=str(position),
            hint="remove one of the tags or aliases that give it",
        )
    text = "".join(template.text for template in templates)
    missing = [name for name in _differences(cell, other) if f"{{{name}}}" not in text]
    hint = "choose another name for one of them"
    if tag not in cell.aliases and missing:
        hint = "add " + " or ".join(f"`{{{name}}}`" for name in missing) + " to `tags`"
    return ConfigError(f"{reference} would be both {other.id} and {cell.id}", where=str(position), hint=hint)


def _differences(one: Cell, other: Cell) -> list[str]:
    """The placeholders that render differently for the two."""
    pairs = {
        "framework": (one.framework.name, other.framework.name),
        "version": (one.framework.version, other.framework.version),
        "cuda": (one.cuda, other.cuda),
        "python": (one.python, other.python),
        "interpreter": (one.interpreter, other.interpreter),
        "base": (one.base.name, other.base.name),
        "extras": (
            tuple(extra for extra in one.extras if extra.named),
            tuple(extra for extra in other.extras if extra.named),
        ),
    }
    return [name for name, (left, right) in pairs.items() if left != right]
