# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl scrub"""

from typing import TYPE_CHECKING

import click

from dmremap.cli.common import Result, dry_run_option, need_root, one_line, output_option, progress
from dmremap.errors import Partial, Usage

if TYPE_CHECKING:
    from dmremap.sets.scrub import Done, Plan


@click.command()
@click.argument("name", metavar="SET")
@click.option("--metadata", is_flag=True, help="Read the set's metadata; needed.")
@dry_run_option
@output_option
def command(name: str, metadata: bool, dry_run: bool) -> Result:
    """Have a running set read every copy of its metadata and write again what is gone.

    A set works from memory: nothing else reads its metadata on the spare before it is started the
    next time, and that is refused if both copies of a block have died by then. Run this from time
    to time, such as once a month. The set goes on meanwhile.

    --metadata is needed: the data, on main and in the slots, is not read yet.

    \b
    Exit codes, beside those of every command:
    0  all copies were in order, or are written again
    8  for a copy there was no place: the set goes on, but copy the data while it does
    """
    if not metadata:
        raise Usage(
            "DMR-E201",
            "say what to read: --metadata",
            hint="It is all that 'scrub' reads today; the data is not read.",
        )
    need_root("have a set read its metadata")
    from dmremap.sets import scrub

    made = scrub.plan(name)
    if dry_run:
        count = made.copies
        what = f"all {count} copies" if count is not None else "every copy"
        step = one_line(f"have {made.name} read {what} of its metadata on {made.spares}")
        return Result(_data(made, None), f"Would:\n  {step}\n  write again those that are gone")
    done = scrub.carry_out(made, progress=progress("reading the metadata"))
    return Result(_data(done.plan, done), _words(done), rows="gone", error=_error(done))


def _data(plan: "Plan", done: "Done | None") -> dict[str, object]:
    if done is None:
        result = "would scrub"
    else:
        result = "partial" if done.failed else "repaired" if done.written else "clean"
    return {
        "dry_run": done is None,
        "result": result,
        "name": plan.name,
        "uuid": plan.uuid,
        "device": plan.path,
        "metadata_blocks": plan.blocks,
        "copies_read": plan.copies if done else 0,
        "written": done.written if done else 0,
        "failed": done.failed if done else 0,
        "targets": [
            {
                "start": part.start,
                "uuid": part.uuid,
                "spare": part.spare,
                "spare_start_sectors": part.spare_start,
                "metadata_blocks": part.blocks,
            }
            for part in plan.parts
        ],
        "gone": done.gone if done else [],
    }


def _words(done: "Done") -> str:
    plan = done.plan
    of = "" if plan.copies is None else f"{plan.copies} "
    if not done.gone:
        return f"{one_line(plan.name)}: all {of}copies of the metadata are in order."
    were = "was" if len(done.gone) == 1 else "were"
    count = f"{len(done.gone)} of {of}" if of else f"{len(done.gone)} of the "
    lines = [f"{one_line(plan.name)}: {count}copies of the metadata {were} gone."]
    for one in done.gone:
        where = f"{one.what}, block {one.home} of the area"
        if len(plan.parts) > 1:
            where += f" of the target at sector {one.target}"
        end = "written again" if one.result == "written" else "no place takes it"
        lines.append(f"  {where}: {end}")
    if not done.failed:
        lines.append("Every block has two good copies now; nothing is lost.")
        lines.append(
            f"Look at the SMART values of the spare, {one_line(plan.spares)}: where blocks go, "
            "more may follow. Run this again in a few days."
        )
    return "\n".join(lines)


def _error(done: "Done") -> Partial | None:
    if not done.failed:
        return None
    copies = "copy" if done.failed == 1 else "copies"
    message = f"no place on {done.plan.spares} takes {done.failed} {copies} of the metadata"
    memory = done.only_in_memory
    if not memory:
        return Partial("DMR-E802", message)
    blocks = (
        "1 block of the metadata has" if memory == 1 else f"{memory} blocks of the metadata have"
    )
    return Partial(
        "DMR-E802",
        f"{message}; {blocks} no copy left but the one in memory",
        hint="Do not stop the set: it could not be started again. Copy the data to another disk "
        "now, from the set as it runs.",
    )
