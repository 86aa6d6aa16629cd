# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl repair"""

from typing import Any
from uuid import UUID

import click

from dmremap import Repaired, Usage, repair
from dmremap.cli import _tag
from dmremap.cli._accept import accept
from dmremap.cli._meta import (
    finding_lines,
    left_lines,
    main_option,
    start_option,
    uuid_option,
    write_lines,
)
from dmremap.cli.common import Result, change_options, confirm, output_option, progress


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
    asked = [word for word in (main, accept_older_spare, retag, called_content) if word]
    if (retag or called_content) and len(asked) > 1:
        raise Usage("DMR-E201", "--retag and --tag-is-content go with nothing else about main")
    options: dict[str, Any] = {
        "start": start,
        "uuid": uuid,
        "dry_run": dry_run,
        "lock_timeout": lock_timeout,
    }
    if retag:
        return _tag.write(device, retag, yes=yes, **options)
    if called_content:
        return _tag.call_content(device, called_content, yes=yes, **options)
    if accept_older_spare:
        return accept(device, main=main, yes=yes, **options)

    def ask(plan: Repaired) -> None:
        whose = "" if plan.name is None else f"set {plan.name!r} ({plan.uuid})"
        blocks = len(plan.writes)
        confirm(f"Write {blocks} blocks of the metadata of {whose} to {plan.device}?", yes=yes)

    done = repair(device, main=main, confirm=ask, progress=progress(), **options)
    return Result(done, _text(done))


def _text(done: Repaired) -> str:
    found = finding_lines(done.findings)
    if done.result == "clean":
        return "\n".join([f"{done.device}: nothing to repair.", *found])
    if done.dry_run:
        return "\n".join([*found, "Would write:", *write_lines(done.writes)])
    end = left_lines(done.device, done.left)
    return "\n".join([*found, "Wrote:", *write_lines(done.writes), *end])
