# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl check"""

from typing import TYPE_CHECKING
from uuid import UUID

import click

from dmremap.cli._meta import (
    compared_row,
    compared_words,
    epoch_row,
    finding_lines,
    finding_rows,
    load_row,
    load_words,
    main_option,
    named,
    place_of,
    slots_words,
    start_option,
    uuid_option,
)
from dmremap.cli.common import Result, fields, output_option, progress

if TYPE_CHECKING:
    from dmremap.ondisk.load import Block


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
    place = place_of(device, start, "read block devices")
    from dmremap.ondisk.findings import Severity
    from dmremap.sets import offline

    checked = offline.check(place, uuid, progress("checking"), main)
    load = checked.load
    verdict = {
        Severity.INFO: "clean",
        Severity.REPAIRABLE: "repairable",
        Severity.DAMAGED: "damaged",
    }[checked.severity]
    data: dict[str, object] = {
        "device": place.path,
        "file": place.is_file,
        "start_sectors": start,
        "uuid": load.uuid,
        "name": load.superblock.name if load.superblock else None,
        "verdict": verdict,
        "running": checked.running,
        "epoch": epoch_row(load.superblock.epoch) if load.superblock else None,
        "before": epoch_row(load.superblock.before) if load.superblock else None,
        "compared": compared_row(checked.compared),
        "load": load_row(load),
        "slots": load.counts if len(load.blocks) > 1 else None,
        "metadata_blocks": len(load.blocks),
        "copies_away": load.away,
        "findings": finding_rows(load.findings),
    }
    if blocks:
        data["blocks"] = [_block(one) for one in load.blocks]

    def text() -> str:
        pairs = [
            ("device", place.path),
            *named(load.uuid, load),
            ("verdict", verdict),
            ("load", load_words(load)),
            ("epoch", compared_words(load, checked.compared)),
            ("slots", slots_words(load)),
        ]
        listed = [*map(_words, load.blocks)] if blocks else []
        return "\n".join([fields(pairs), *finding_lines(load.findings), *listed])

    return Result(data, text, rows="findings", exit=int(checked.severity))


def _block(one: "Block") -> dict[str, object]:
    return {
        "block": one.number,
        "sequence": one.seq,
        "ambiguous": one.ambiguous,
        "copies": [
            {
                "home": one.homes[copy],
                "place": one.places[copy] if one.seqs[copy] else None,
                "sequence": one.seqs[copy],
                "fault": None if one.seqs[copy] else one.faults.get(one.homes[copy]),
            }
            for copy in (0, 1)
        ],
    }


def _words(one: "Block") -> str:
    copies = []
    for copy in (0, 1):
        home, place = one.homes[copy], one.places[copy]
        if one.seqs[copy]:
            where = f"{home}" if place == home else f"{home} on stand-in {place}"
            copies.append(f"block {where}, sequence {one.seqs[copy]}")
        else:
            copies.append(f"block {home} {one.faults.get(home, 'has no copy')}")
    what = f"table block {one.number}" if one.number else "superblock"
    end = "; they contradict each other" if one.ambiguous else ""
    return f"  {what}: {'; '.join(copies)}{end}"
