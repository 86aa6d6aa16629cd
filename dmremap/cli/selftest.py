# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl selftest"""

import sys

import click

from dmremap import Backing, Phase, self_test
from dmremap.cli.common import Result, envelope, output_option, to_json, write


@click.command()
@click.option(
    "--backing",
    type=click.Choice(["loop", "ram"]),
    default="loop",
    show_default=True,
    help="Test on loop devices over new files, or on ram disks (module brd, if nobody has any).",
)
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False),
    help="Where the files of loop devices go; default: the directory for temporary files.",
)
@click.option(
    "--size",
    type=click.IntRange(min=4, max=4096),
    default=16,
    show_default=True,
    metavar="MIB",
    help="Size of the main device; the spare has half of it.",
)
@click.option(
    "--module-file",
    type=click.Path(exists=True, dir_okay=False),
    help="The module to load; default: the installed one.",
)
@output_option
@click.pass_context
def command(
    context: click.Context,
    *,
    backing: Backing,
    directory: str | None,
    size: int,
    module_file: str | None,
) -> Result | None:
    """Try the whole life of a set on this machine, on devices of its own.

    Loads the module, makes a set, writes and verifies it, lets blocks of its main device
    fail, writes them again, stops and assembles the set, verifies it, removes everything
    and unloads the module. Prints each phase with the seconds it took. A module that was
    loaded before stays loaded. Nothing that the test has not made itself is touched, and
    all of it is taken apart at any failure.

    The exit code is not 0 as soon as one byte is wrong.
    """
    form = context.meta["dmremap.output"]

    def report(phase: Phase) -> None:
        if form == "table":
            write(f"{phase.phase + ':':<22}{phase.seconds:7.2f} s  {phase.detail}\n")
        elif form == "jsonl":
            write(to_json(envelope("selftest", phase)) + "\n")
        sys.stdout.flush()

    passed = self_test(
        report=report,
        backing=backing,
        directory=directory,
        main_mib=size,
        module_file=module_file,
    )
    if form == "json":
        return Result(passed)
    if form == "table":
        write("The self test passed.\n")
    return None
