# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl check"""

from typing import Final
from uuid import UUID

import click

from dmremap import Checked, MetadataBlock, check
from dmremap.cli._meta import (
    compared_words,
    finding_lines,
    load_words,
    main_option,
    slots_words,
    start_option,
    uuid_option,
)
from dmremap.cli.common import Result, fields, output_option, progress

_EXIT: Final = {"clean": 0, "repairable": 1, "damaged": 2}


@click.command()
@click.argument("device")
@start_option
@uuid_option
@main_option
@click.option("--blocks", is_flag=True, help="List every block of the metadata and its copies.")
@output_option
def command(device: str, start: int, uuid: UUID | None, main: str | None, blocks: bool) -> Result:
    """Check the metadata on DEVICE, the spare of a set or a file with its image.

    Reads every copy of every block, follows the rules by which the kernel loads a set, and says
    what such a load would do. Writes nothing. Each finding has a code: see 'dmremapctl explain
    CODE'. Of the set's main device only the tag is read: it tells whether DEVICE is an older copy
    of itself. Where no main with the set's tag is there, that is not known, and is said.

    \b
    Exit codes:
    0  clean: a load accepts it as it is
    1  repairable: a load, or 'repair', puts it right without guessing
    2  damaged: a load refuses it
    3  DEVICE is not there, or has nothing of dm-remap on it

    As for every command 2 is wrong usage too, and 1 a failure, such as a device that does not
    answer: with -o json the field "error" is null when there is a verdict.
    """
    found = check(device, start=start, uuid=uuid, main=main, blocks=blocks, progress=progress())
    return Result(found, lambda: _text(found), rows="findings", exit=_EXIT[found.verdict])


def _text(found: Checked) -> str:
    # The epoch is the superblock's, and there may be none.
    epoch = None if found.name is None else compared_words(found.epoch, found.compared)
    pairs = [
        ("device", found.device),
        ("set", found.name or None),
        ("uuid", found.uuid),
        ("verdict", found.verdict),
        ("load", load_words(found.load)),
        ("epoch", epoch),
        ("slots", slots_words(found.slots)),
    ]
    listed = map(_words, found.blocks or ())
    return "\n".join([fields(pairs), *finding_lines(found.findings), *listed])


def _words(block: MetadataBlock) -> str:
    copies = []
    for copy in block.copies:
        if copy.sequence:
            away = "" if copy.place == copy.home else f" on stand-in {copy.place}"
            copies.append(f"block {copy.home}{away}, sequence {copy.sequence}")
        else:
            copies.append(f"block {copy.home} {copy.fault or 'has no copy'}")
    what = f"table block {block.block}" if block.block else "superblock"
    end = "; they contradict each other" if block.ambiguous else ""
    return f"  {what}: {'; '.join(copies)}{end}"
