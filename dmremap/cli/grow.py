# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl grow"""

import click

from dmremap import Grown, Size, grow
from dmremap.cli._make import cost, sectors, sectors_or_all, would
from dmremap.cli.common import (
    Result,
    change_options,
    confirm,
    fields,
    one_line,
    output_option,
    progress,
    size,
)


@click.command()
@click.argument("name", metavar="SET")
@click.option(
    "--by", callback=sectors, metavar="SIZE", help="By how much, in sectors or such as 512M."
)
@click.option(
    "--to",
    callback=sectors_or_all,
    metavar="SIZE|all",
    help="How large the area is to be; 'all': as much of the spare as can become slots.",
)
@change_options
@output_option
def command(
    name: str,
    by: int | None,
    to: Size,
    dry_run: bool,
    yes: bool,
    lock_timeout: float,
) -> Result:
    """Give a running set more of its spare: by default 1048576 slots, or what is left.

    The set goes on meanwhile; it is suspended for as long as it takes to read its tables. All of
    what is added must read as zero, and all of it is read. A command that was interrupted or
    failed can be repeated: until its last step the set is the old one.
    """

    def ask(plan: Grown) -> None:
        confirm(
            f"Let set {plan.name!r} grow on {plan.spare} from {size(plan.spare_sectors_before)} to "
            f"{size(plan.spare_sectors)}, from {plan.slots_before} to {plan.slots} slots "
            f"({cost(plan.memory_bytes)})?",
            yes=yes,
        )

    done = grow(
        name,
        by=by,
        to=to,
        dry_run=dry_run,
        confirm=ask,
        progress=progress(told=True),
        lock_timeout=lock_timeout,
    )
    if dry_run:
        return Result(done, would(done.steps))
    text = fields(
        [
            ("area", f"{size(done.spare_sectors)}, was {size(done.spare_sectors_before)}"),
            ("slots", f"{done.slots} of {done.unit_bytes} bytes, were {done.slots_before}"),
        ]
    )
    return Result(done, f"Set {one_line(done.name)} has grown.\n{text}")
