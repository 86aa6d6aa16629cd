# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl remove"""

import click

from dmremap import Removed, remove
from dmremap.cli.common import Result, change_options, output_option


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME|UUID]...")
@click.option("--all", "everything", is_flag=True, help="Stop every set.")
@click.option(
    "--deferred", is_flag=True, help="If it is in use, let it go when its last user closes it."
)
@change_options
@output_option
def command(
    names: tuple[str, ...],
    everything: bool,
    deferred: bool,
    dry_run: bool,
    yes: bool,  # noqa: ARG001 - nothing is lost, so nothing is asked
    lock_timeout: float,
) -> Result:
    """Stop sets. What is on disk stays, and 'assemble' brings them back.

    Copies of the spare that were made before, such as snapshots and images, are refused from then
    on as older copies of it: everywhere if main has a tag, on this host if it was adopted.

    Of an adopted set the udev rule /etc/udev/rules.d/59-dmremap-UUID.rules stays too: without the
    set the disk must not be mounted.
    """
    done = remove(
        *names,
        everything=everything,
        deferred=deferred,
        dry_run=dry_run,
        lock_timeout=lock_timeout,
    )
    return Result(done, lambda: _text(done.sets) or "No set is running.", rows="sets")


def _text(sets: tuple[Removed, ...]) -> str:
    lines: list[str] = []
    for done in sets:
        lines.append(f"{done.name}: {done.result}")
        if done.result != "failed":
            lines.append(f"  to bring it back: {done.back}")
        if done.rule:
            lines.append(f"  its udev rule stays: {done.rule}")
    return "\n".join(lines)
