# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl repair"""

from uuid import UUID

import click

from dmremap.cli._accept import accept
from dmremap.cli._meta import (
    alone,
    finding_lines,
    finding_rows,
    main_option,
    place_of,
    start_option,
    uuid_option,
    write_lines,
    write_rows,
)
from dmremap.cli._tag import content as call_content
from dmremap.cli._tag import retag as rewrite_tag
from dmremap.cli.common import Result, change_options, confirm, output_option, progress
from dmremap.errors import Usage


@click.command()
@click.argument("device")
@start_option
@uuid_option
@main_option
@click.option(
    "--accept-older-spare",
    is_flag=True,
    help="Take DEVICE although main was used with a later state of it.",
)
@click.option("--retag", metavar="MAIN", help="Write the set's tag to its main device, MAIN.")
@click.option(
    "--tag-is-content",
    "called_content",
    metavar="MAIN",
    help="Record that the tag on MAIN, the set's adopted main device, is content of its data.",
)
@change_options
@output_option
def command(
    device: str,
    start: int,
    uuid: UUID | None,
    main: str | None,
    accept_older_spare: bool,
    retag: str | None,
    called_content: str | None,
    dry_run: bool,
    yes: bool,
    lock_timeout: float,
) -> Result:
    """Write to DEVICE, the spare of a set that does not run, what starting the set would write.

    Both copies of every block whose copies are not equal, the lesser one first; a copy whose place
    cannot be written goes to a stand-in. Stand-ins that cannot be read are erased. Where no load
    would go on this does not either: it never chooses between two answers. The tag on the main
    device is read, where there is one, and not touched.

    --accept-older-spare is for a spare that main's tag refuses because it is an older copy of
    itself, when the one that main was used with last is gone. It says what is lost, asks, and has
    the set begin an epoch with this spare, in both superblocks and then in main's tag. The main
    device must be there; it is searched for, or named with --main. An adopted one has no tag and is
    not touched: there it is about what this host has seen of the set.

    --retag is for a main device that has lost its tag, or whose tag cannot be read, so that the
    set is not started. Nothing else is written to MAIN than the five copies of the tag, and
    nothing at all if its first MiB holds anything but zeroes. Whether it is the set's main, with
    the set's data, only you can know: on another disk what is read from the set is wrong.

    --tag-is-content is for an adopted main device in whose data somebody has made a set, so that
    it looks like the main of that set. MAIN is only read.

    DEVICE may be a file with the image of a spare. --dry-run shows each block that would be
    written.
    """
    asked = [one for one in (main, accept_older_spare, retag, called_content) if one]
    if (retag or called_content) and len(asked) > 1:
        raise Usage("DMR-E201", "--retag and --tag-is-content go with nothing else about main")
    place = place_of(device, start, "write block devices")
    if retag or called_content:
        disk = place_of(retag or called_content or "", 0, "write block devices")
        write = rewrite_tag if retag else call_content
        return write(place, disk, uuid, dry_run=dry_run, yes=yes, timeout=lock_timeout)
    if accept_older_spare:
        return accept(place, main, uuid, dry_run=dry_run, yes=yes, lock_timeout=lock_timeout)
    from dmremap.sets import offline

    plan = offline.plan_repair(place, uuid, progress("checking"), main)
    before = plan.before
    data: dict[str, object] = {
        "device": place.path,
        "file": place.is_file,
        "start_sectors": start,
        "uuid": before.uuid,
        "name": before.superblock.name if before.superblock else None,
        "dry_run": dry_run,
        "result": "clean",
        "findings": finding_rows(before.findings),
        "writes": write_rows(plan.writes, start),
        "left": [],
    }
    found = finding_lines(before.findings)
    if not plan.writes:
        return Result(data, "\n".join([f"{place.path}: nothing to repair.", *found]))
    if dry_run:
        lines = [*found, "Would write:", *write_lines(plan.writes)]
        return Result({**data, "result": "would repair"}, "\n".join(lines))
    whose = f"set {before.superblock.name!r} ({before.uuid})" if before.superblock else ""
    confirm(f"Write {len(plan.writes)} blocks of the metadata of {whose} to {place.path}?", yes=yes)
    with alone(place, lock_timeout):
        after, done = offline.repair(plan)
    # A stand-in that cannot be erased stays as it is; everything outranks it now.
    left = [one for one in after.findings if one.severity > 0]
    end = ["What is left:", *finding_lines(left)] if left else [f"{place.path} is clean now."]
    return Result(
        {
            **data,
            "result": "repaired",
            "writes": write_rows(done, start),
            "left": finding_rows(left),
        },
        "\n".join([*found, "Wrote:", *write_lines(done), *end]),
    )
