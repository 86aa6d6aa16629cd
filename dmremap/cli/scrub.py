# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl scrub"""

import click

from dmremap import Scrubbed, Usage, scrub
from dmremap.cli.common import Result, dry_run_option, one_line, output_option, progress


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
    done = scrub(name, dry_run=dry_run, progress=progress())
    return Result(done, _would(done) if dry_run else _words(done), rows="gone")


def _spares(done: Scrubbed) -> str:
    return ", ".join(dict.fromkeys(target.spare for target in done.targets))


def _would(plan: Scrubbed) -> str:
    blocks = plan.metadata_blocks
    what = f"all {2 * blocks} copies" if blocks is not None else "every copy"
    step = one_line(f"have {plan.name} read {what} of its metadata on {_spares(plan)}")
    return f"Would:\n  {step}\n  write again those that are gone"


def _words(done: Scrubbed) -> str:
    of = "" if done.copies_read is None else f"{done.copies_read} "
    if not done.gone:
        return f"{one_line(done.name)}: all {of}copies of the metadata are in order."
    were = "was" if len(done.gone) == 1 else "were"
    count = f"{len(done.gone)} of {of}" if of else f"{len(done.gone)} of the "
    lines = [f"{one_line(done.name)}: {count}copies of the metadata {were} gone."]
    for gone in done.gone:
        where = f"{gone.what}, block {gone.home} of the area"
        if len(done.targets) > 1:
            where += f" of the target at sector {gone.target}"
        end = "written again" if gone.result == "written" else "no place takes it"
        lines.append(f"  {where}: {end}")
    if not done.failed:
        lines.append("Every block has two good copies now; nothing is lost.")
        lines.append(
            f"Look at the SMART values of the spare, {one_line(_spares(done))}: where blocks go, "
            "more may follow. Run this again in a few days."
        )
    return "\n".join(lines)
