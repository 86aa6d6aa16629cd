# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl import"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from dmremap.cli._meta import (
    alone,
    both_lines,
    compared_row,
    epoch_row,
    main_option,
    place_of,
    start_option,
    untaken,
    write_rows,
)
from dmremap.cli.common import Result, change_options, confirm, output_option, progress
from dmremap.errors import Usage

if TYPE_CHECKING:
    from dmremap.sets.restore import Restore


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
    place = place_of(device, start, "write block devices")
    from dmremap.sets import offline, restore

    backup = offline.read_backup(file)
    plan = restore.plan(backup, place, force=force, main=main, progress=progress("checking"))
    row: dict[str, object] = {
        "file": file,
        "created": backup.created,
        "device": place.path,
        "start_sectors": start,
        "uuid": backup.uuid,
        "name": backup.superblock.name,
        "dry_run": dry_run,
        "result": "clean",
        "blank": plan.plan.blank,
        "taken": plan.plan.taken,
        "kept": plan.plan.kept,
        "risky": plan.plan.risky,
        "slots": plan.after.counts,
        "writes": write_rows(plan.writes, start),
        "epoch": epoch_row(plan.after.superblock.epoch) if plan.after.superblock else None,
        "compared": compared_row(plan.compared),
        "main_writes": write_rows(plan.main_writes, 0),
    }
    lines = _lines(plan)
    if not plan.writes:
        return Result(row, "\n".join([*lines, "Nothing is to be written."]))
    if dry_run:
        steps = both_lines(plan.writes, plan.main_writes, plan.main)
        return Result({**row, "result": "would import"}, "\n".join([*lines, *steps]))
    confirm(
        "\n".join([*lines, f"Write {len(plan.writes)} blocks of metadata to {place.path}?"]),
        yes=yes,
    )
    with alone(place, lock_timeout):
        _after, done, tags, warnings = restore.carry_out(plan)
    return Result(
        {
            **row,
            "result": "imported",
            "writes": write_rows(done, start),
            "main_writes": write_rows(tags, 0),
        },
        "\n".join([*lines, f"Wrote {len(done)} blocks of metadata to {place.path}."]),
        warnings=(*_warnings(plan), *untaken(plan.main, plan.main_writes, tags), *warnings),
    )


def _warnings(plan: "Restore") -> tuple[str, ...]:
    sb, found = plan.backup.superblock, plan.found
    if not sb.tagged and plan.epoch and not found.epoch:
        number = plan.epoch.epoch.number
        what = f"{found.why}; a host that has seen a later epoch than {number} refuses the spare"
        return (f"{what} as an older one: see 'dmremapctl check' there",)
    if not sb.tagged or plan.main:
        return ()
    what = f"main's tag was not written: {plan.found.why}"
    return (f"{what}; if the spare is refused as an older one see 'dmremapctl check'",)


def _when(seconds: int) -> str:
    """Return a time for people, whatever the file says."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{seconds} seconds after 1970"


def _lines(plan: "Restore") -> list[str]:
    backup, merged = plan.backup, plan.plan
    out = [
        f"Backup of set {backup.superblock.name} ({backup.uuid}), made {_when(backup.created)}.",
        f"{merged.taken} blocks are newest in the backup, {merged.kept} on the device.",
    ]
    if merged.risky:
        out.append(
            f"{len(merged.risky)} blocks may have been newer: what was mapped since the backup "
            "will read as main has it."
        )
    if merged.blank and plan.after.counts.mapped:
        out.append(
            f"{plan.after.counts.mapped} mapped blocks become lost: they are errors until they "
            "are written again."
        )
    return out
