# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl assemble"""

from typing import TYPE_CHECKING

import click

from dmremap import assemble
from dmremap.cli._make import rate_option, sectors
from dmremap.cli.common import Result, change_options, output_option

if TYPE_CHECKING:
    from dmremap import Assembled, ErrorPolicy


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME|UUID]...")
@click.option("--all", "everything", is_flag=True, help="Start every set whose devices are there.")
@click.option("--main", help="The main device; must be the one that the set names.")
@click.option("--spare", help="Look for the superblock here only.")
@click.option(
    "--spare-start", callback=sectors, default="0", help="Where the area starts on --spare."
)
@click.option("--name", help="Call the device so, instead of what the superblock says.")
@click.option(
    "--errors",
    type=click.Choice(["confirm", "medium"]),
    help="Which errors may remap, see 'create'; recorded in the set.",
)
@rate_option("How many pieces may be remapped in a minute, see 'create'; recorded in the set.")
@click.option("--readonly", is_flag=True, help="Write nothing to either device.")
@change_options
@output_option
def command(
    names: tuple[str, ...],
    everything: bool,
    main: str | None,
    spare: str | None,
    spare_start: int,
    name: str | None,
    errors: "ErrorPolicy | None",
    remap_rate: int | None,
    readonly: bool,
    dry_run: bool,
    yes: bool,  # noqa: ARG001 - nothing is asked here
    lock_timeout: float,
) -> Result:
    """Start sets that exist on disk.

    Give names or uuids, or --all, or --spare. Sets are found by reading the superblocks of all
    block devices; the main device is known by its tag or, of an adopted set, by its id and size.

    --errors and --remap-rate are written to the spare before the start, and count for every start
    from then on. With --readonly nothing is written, and they count for this one.
    """
    done = assemble(
        *names,
        everything=everything,
        main=main,
        spare=spare,
        spare_start=spare_start,
        name=name,
        errors=errors,
        remap_rate=remap_rate,
        readonly=readonly,
        dry_run=dry_run,
        lock_timeout=lock_timeout,
    )

    def text() -> str:
        return "\n".join(_words(each, dry_run=dry_run) for each in done.sets) or "No set was found."

    return Result(done, text, rows="sets")


def _words(done: "Assembled", *, dry_run: bool) -> str:
    words = f"{done.name}: {done.result}" + (f", {done.device}" if done.device else "")
    if done.recorded:
        words += f"\n  {'would record' if dry_run else 'recorded'}: {', '.join(done.recorded)}"
    return words + (f"\n  {done.table}" if dry_run and done.table else "")
