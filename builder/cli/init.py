"""`imgbuild init`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from builder.errors import ConfigError


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option("--force", is_flag=True, help="Overwrite files that are there already.")
@click.option("--dry-run", is_flag=True, help="Only say what would be written.")
def init(directory: Path, force: bool, dry_run: bool) -> None:
    """Write the default matrix.yaml and its templates into DIRECTORY, as a project to start from."""
    from builder.project import DOCKERFILES, MATRIX, SCHEMA, is_written, refuse_obstacles, shipped_data, write_output

    data = shipped_data()
    sources = [
        data / MATRIX,
        data / SCHEMA,
        *sorted(path for path in (data / DOCKERFILES).rglob("*") if path.is_file()),
    ]
    targets = [
        (directory / source.relative_to(data), source.read_bytes(), 0o755 if os.access(source, os.X_OK) else 0o644)
        for source in sources
    ]
    refuse_obstacles(target for target, _, _ in targets)
    existing = [
        target for target, content, mode in targets if os.path.lexists(target) and not is_written(target, content, mode)
    ]
    if existing and not force:
        raise ConfigError(
            f"{len(existing)} files are there already and differ",
            where=str(existing[0]),
            hint="choose an empty folder, or overwrite them with --force",
        )
    for target, content, mode in targets:
        if not dry_run:
            write_output(target, content, mode)
        click.echo(f"{'would write' if dry_run else 'wrote'} {target}")
