# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl list"""

import click

from dmremap import Set, find
from dmremap.cli.common import Result, one_line, output_option, size, table


@click.command()
@click.option("--running", "only_running", is_flag=True, help="Do not look for sets on disk.")
@output_option
def command(only_running: bool) -> Result:
    """List sets: those that run, and those found on disk.

    Finding sets reads the metadata of every block device, which only root can do.
    """
    found = find(running_only=only_running)
    return Result(found, lambda: _text(found.sets) or "No set was found.", rows="sets")


def _text(sets: tuple[Set, ...]) -> str:
    shown = [
        [
            known.name,
            known.state,
            "-" if known.data_sectors is None else size(known.data_sectors),
            known.main or "-",
            known.spare or "-",
            known.uuid or "-",
            "; ".join(known.problems or ()),
        ]
        for known in sets
    ]
    steps = [
        one_line(f"{known.name}: {finding.code}: {finding.next_step}")
        for known in sets
        for finding in known.findings or ()
    ]
    head = ["NAME", "STATE", "SIZE", "MAIN", "SPARE", "UUID", "PROBLEM"]
    return "\n".join([table(head, shown), *steps])
