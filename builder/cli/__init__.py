"""The `imgbuild` command: options and printing. What a command does is below; how it ends is in `exits`.

Each command is a module of its own.
"""

from __future__ import annotations

import click

from builder import __version__
from builder.cli.build import build, check
from builder.cli.ci import ci
from builder.cli.diff import diff
from builder.cli.doctor import doctor
from builder.cli.evidence import evidence
from builder.cli.explain import explain
from builder.cli.init import init
from builder.cli.keygen import keygen
from builder.cli.lock import lock
from builder.cli.matrix import matrix_command
from builder.cli.promote import promote
from builder.cli.publish import publish
from builder.cli.render import render
from builder.cli.size import size
from builder.cli.verify import verify
from builder.exits import exit_code_of

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="imgbuild")
def cli() -> None:
    """Build deep-learning images over a CUDA x framework x Python matrix, train a model in each of them, and tag as
    verified exactly the image that passed.

    \b
    Start here:
      imgbuild doctor                  is this machine fit to build?
      imgbuild matrix                  what would be built, what is excluded, and why
      imgbuild explain torch==2.13.0 --cuda 12.4    can this work? why not, and what is nearest
      imgbuild build                   build, check and tag everything; a second run does nothing
      imgbuild build '*-horovod'       only the cells that match a glob
      imgbuild check --image REF       check any image, also one not built here
      imgbuild publish                 push what passed, with signed evidence, under the names that it has earned
      imgbuild evidence IMAGE          who checked an image, when, on what, to which level

    \b
    Without a matrix.yaml in the current folder, the one that imgbuild ships is used; `imgbuild init` writes it out.
    Exit codes: 0 done, 2 usage, 3 impossible, 4 unknown, 5 configuration, 6 template, 7 engine, 8 base, 9 build,
    10 check failed, 11 check incomplete, 12 disk full, 13 differs, 14 doctor, 15 registry or index, 16 locked,
    17 state, 18 no such image, 19 not locked, 20 not verified, 21 evidence refused, 70 a defect of imgbuild,
    130 and 143 interrupted.
    """


for command in (
    *(init, matrix_command, explain, lock, render, build, check),
    *(publish, evidence, verify, diff, size, promote, keygen),
    *(ci, doctor),
):
    cli.add_command(command)


def main() -> None:
    """Runs the command and ends the process with its exit code."""
    raise SystemExit(exit_code_of(lambda: cli.main(standalone_mode=False)))
