# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl import"""

from datetime import UTC, datetime

import click

from dmremap import Imported, Usage, import_metadata
from dmremap.cli._meta import both_lines, main_option, start_option
from dmremap.cli.common import Result, change_options, confirm, output_option, progress


@click.command()
@click.option("--metadata", is_flag=True, help="Bring back the set's metadata; needed.")
@click.argument("file")
@click.argument("device")
@click.option(
    "--force",
    is_flag=True,
    help="Go on where the backup may be older than what is gone, where DEVICE is an older copy of "
    "the spare, or where something else has put its signature into the first MiB.",
)
@start_option
@main_option
@change_options
@output_option
def command(
    metadata: bool,
    file: str,
    device: str,
    force: bool,
    start: int,
    main: str | None,
    dry_run: bool,
    yes: bool,
    lock_timeout: float,
) -> Result:
    """Bring the metadata that 'export' has saved to FILE back onto DEVICE.

    DEVICE is the set's own spare, or a blank device with room for its area. On the set's own spare
    each block keeps its newest state, be that on the device or in the file. Where both copies of a
    block are gone the file's is taken, with --force only, because the set may have mapped blocks
    since. On a blank device every block that was mapped becomes lost, because its data is not
    in the file: it reads as an error until it is written again.

    The set begins an epoch with what it has then, so that older copies of its spare are refused. It
    is written to the tag of the main device too, which should be there. Where that tag, or for an
    adopted main what this host has seen, says that DEVICE is an older copy of the spare --force is
    needed.
    """
    if not metadata:
        raise Usage("DMR-E201", "say what to bring back: --metadata")

    def ask(plan: Imported) -> None:
        question = f"Write {len(plan.writes)} blocks of metadata to {plan.device}?"
        confirm("\n".join([*_lines(plan), question]), yes=yes)

    done = import_metadata(
        file,
        device,
        start=start,
        main=main,
        force=force,
        dry_run=dry_run,
        confirm=ask,
        progress=progress(),
        lock_timeout=lock_timeout,
    )
    if done.result == "clean":
        steps = ["Nothing is to be written."]
    elif dry_run:
        steps = both_lines(done.writes, done.main_writes, done.main)
    else:
        steps = [f"Wrote {len(done.writes)} blocks of metadata to {done.device}."]
    return Result(done, "\n".join([*_lines(done), *steps]))


def _when(seconds: int) -> str:
    """Return a time for people, whatever the file says."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{seconds} seconds after 1970"


def _lines(plan: Imported) -> list[str]:
    out = [
        f"Backup of set {plan.name} ({plan.uuid}), made {_when(plan.created)}.",
        f"{plan.taken} blocks are newest in the backup, {plan.kept} on the device.",
    ]
    if plan.risky:
        out.append(
            f"{len(plan.risky)} blocks may have been newer: what was mapped since the backup "
            "will read as main has it."
        )
    if plan.blank and plan.slots.mapped:
        out.append(
            f"{plan.slots.mapped} mapped blocks become lost: they are errors until they are "
            "written again."
        )
    return out
