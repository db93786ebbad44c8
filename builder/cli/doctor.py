"""`imgbuild doctor`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from builder.cli.options import format_option, load, matrix_options, this_site
from builder.errors import DoctorFailed


@click.command()
@matrix_options
@format_option
def doctor(matrix_path: Path | None, repository: str | None, format_: str) -> None:
    """Say whether this machine is fit to build the matrix, line by line, with the command that mends what is not."""
    from builder.doctor import NEEDED_FOR_CPU, NEEDED_FOR_CUDA, examine
    from builder.matrix import CPU

    _, matrix = load(matrix_path, repository)
    cuda = any(cell.cuda != CPU for cell in matrix.cells)
    findings = examine(this_site(), needed_bytes=NEEDED_FOR_CUDA if cuda else NEEDED_FOR_CPU)
    failed = [finding for finding in findings if finding.status.value == "failed"]
    if format_ == "json":
        document = [
            {
                "name": finding.name,
                "status": finding.status.value,
                "detail": finding.detail,
                "mend": finding.mend or None,
            }
            for finding in findings
        ]
        click.echo(json.dumps({"schema": "imgbuild.doctor/1", "findings": document}, indent=2))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            click.echo(f"{finding.status.value.replace('_', ' '):<8} {finding.name:<{width}}  {finding.detail}")
            if finding.mend:
                click.echo(f"{'':<8} {'':<{width}}  mend: {finding.mend}")
    if failed:
        raise DoctorFailed(f"{len(failed)} of {len(findings)} lines failed", hint=failed[0].mend)
