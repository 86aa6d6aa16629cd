# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl import"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from dmremap.cli._meta import alone, place_of, start_option, write_lines, write_rows
from dmremap.cli.common import Result, change_options, confirm, output_option, progress
from dmremap.errors import Usage

if TYPE_CHECKING:
    from dmremap.offline import Restore


@click.command()
@click.option("--metadata", is_flag=True, help="Bring back the set's metadata; needed.")
@click.argument("file")
@click.argument("device")
@click.option(
    "--force",
    is_flag=True,
    help="Go on where the backup may be older than what is gone, or where something else has "
    "put its signature into the first MiB.",
)
@start_option
@change_options
@output_option
def command(
    metadata: bool,
    file: str,
    device: str,
    force: bool,
    start: int,
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
    """
    if not metadata:
        raise Usage("DMR-E201", "say what to bring back: --metadata")
    place = place_of(device, start, "write block devices")
    from dmremap import offline

    backup = offline.read_backup(file)
    plan = offline.plan_restore(backup, place, force=force, progress=progress("checking"))
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
    }
    lines = _lines(plan)
    if not plan.writes:
        return Result(row, "\n".join([*lines, "Nothing is to be written."]))
    if dry_run:
        text = "\n".join([*lines, "Would write:", *write_lines(plan.writes)])
        return Result({**row, "result": "would import"}, text)
    confirm(
        "\n".join([*lines, f"Write {len(plan.writes)} blocks of metadata to {place.path}?"]),
        yes=yes,
    )
    with alone(place, lock_timeout):
        _after, done = offline.restore(plan)
    return Result(
        {**row, "result": "imported", "writes": write_rows(done, start)},
        "\n".join([*lines, f"Wrote {len(done)} blocks of metadata to {place.path}."]),
    )


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
