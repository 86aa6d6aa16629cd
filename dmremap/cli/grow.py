# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl grow"""

from typing import Literal

import click

from dmremap.cli._make import sectors, sectors_or_all
from dmremap.cli.common import (
    Result,
    change_options,
    confirm,
    fields,
    need_root,
    one_line,
    output_option,
    progress,
    size,
)
from dmremap.errors import Usage


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
    to: Literal["all"] | int | None,
    dry_run: bool,
    yes: bool,
    lock_timeout: float,
) -> Result:
    """Give a running set more of its spare: by default 1048576 slots, or what is left.

    The set goes on meanwhile; it is suspended for as long as it takes to read its tables. All of
    what is added must read as zero, and all of it is read. A command that was interrupted or
    failed can be repeated: until its last step the set is the old one.
    """
    if by is not None and to is not None:
        raise Usage("DMR-E201", "--by and --to exclude each other")
    need_root("let a set grow")
    from dmremap.host.lock import locked
    from dmremap.sets import grow

    plan = grow.plan(name, by=by, to=to, progress=progress("checking the spare", told=True))
    before, after = plan.before, plan.after
    data: dict[str, object] = {
        "dry_run": dry_run,
        "result": "would grow" if dry_run else "grown",
        "name": plan.name,
        "uuid": before.uuid,
        "device": plan.path,
        "spare": plan.spare.path,
        "spare_start_sectors": plan.old.spare_start,
        "spare_sectors_before": before.area_sectors,
        "spare_sectors": after.area_sectors,
        "unit_bytes": after.unit,
        "slots_before": before.slots,
        "slots": after.slots,
        "memory_bytes": plan.cost.memory,
        "reads_bytes": plan.cost.reads,
        "segments": len(after.segments),
        "table": plan.new.line,
        "steps": plan.steps,
    }
    if dry_run:
        text = "Would:\n" + "\n".join(f"  {one_line(step)}" for step in plan.steps)
        return Result(data, text)
    confirm(
        f"Let set {plan.name!r} grow on {plan.spare.path} from {size(before.area_sectors)} to "
        f"{size(after.area_sectors)}, from {before.slots} to {after.slots} slots "
        f"({plan.cost.words})?",
        yes=yes,
    )
    # As with create: reading takes long and people take longer, so others may work meanwhile.
    with locked(lock_timeout):
        warnings = grow.carry_out(plan, progress=progress("writing tables"))
    text = fields(
        [
            ("area", f"{size(after.area_sectors)}, was {size(before.area_sectors)}"),
            ("slots", f"{after.slots} of {after.unit} bytes, were {before.slots}"),
        ]
    )
    return Result(data, f"Set {one_line(plan.name)} has grown.\n{text}", warnings=warnings)
