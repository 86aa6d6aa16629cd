# SPDX-License-Identifier: GPL-2.0-only
"""What a check says of an area: what a load would make of it, and what it would pass over."""

from uuid import UUID

from dmremap.ondisk._format import lib
from dmremap.ondisk.device import Progress
from dmremap.ondisk.findings import Finding
from dmremap.ondisk.load import Load, Source, View, listed, read_set


def examine(
    source: Source, start: int = 0, uuid: UUID | None = None, progress: Progress | None = None
) -> Load:
    """Find out what a load of the area at sector `start` would do, and all else that is to be said.

    With `uuid` only that set counts, as for the kernel; without it the set is the one whose
    superblock is there. Reading is all that is done.
    """
    load = read_set(View(source, start), uuid, progress)
    if len(load.blocks) > 1:
        _features(load)
        _copies(load)
        _leftovers(load)
        _slots(load)
        load.findings.sort(key=lambda finding: -finding.severity)
    return load


def _features(load: Load) -> None:
    if load.superblock and load.superblock.compat & ~lib.DMR_COMPAT_KNOWN:
        text = f"the compat word is {load.superblock.compat:#x}"
        load.findings.append(Finding("DMR-C106", text))


def _copies(load: Load) -> None:
    """Say which blocks a load would write again, and where copies live."""
    grouped: dict[str, list[int]] = {}
    for block in load.blocks:
        if not block.seq or block.ambiguous:
            continue
        for copy in (0, 1):
            home = block.homes[copy]
            if not block.seqs[copy]:
                grouped.setdefault(block.faults.get(home, "is no copy"), []).append(home)
            elif block.seqs[copy] < block.seq:
                load.findings.append(
                    Finding(
                        "DMR-C202",
                        f"the copy of block {home} has sequence {block.seqs[copy]}, the other "
                        f"one {block.seq}",
                        (home,),
                    )
                )
            elif block.place(copy) != home:
                load.findings.append(
                    Finding(
                        "DMR-C101",
                        f"the copy that belongs to block {home} lives on stand-in "
                        f"{block.place(copy)}",
                        (home, block.place(copy)),
                    )
                )
        for place in block.older:
            load.findings.append(
                Finding(
                    "DMR-C107", f"stand-in {place} holds a copy that another one replaced", (place,)
                )
            )
    for why, homes in grouped.items():
        load.findings.append(
            Finding(
                "DMR-C201",
                f"block {homes[0]} {why}; its other copy is good"
                if len(homes) == 1
                else f"{len(homes)} blocks ({listed(homes)}): each {why}; "
                "the other copies are good",
                tuple(homes),
            )
        )


def _leftovers(load: Load) -> None:
    """Say what in the head belongs to nothing."""
    head, sb = load.head, load.superblock
    if not any(refusal.code == "DMR-C308" for refusal in load.refusals):
        used = load.bad_standins
        for place, why in head.bad.items():
            code = "DMR-C203" if place in used else "DMR-C111"
            load.findings.append(Finding(code, f"stand-in {place} {why}", (place,)))
    for superblock in head.supers:
        if superblock.head.uuid != load.uuid:
            text = f"block {superblock.place} has a superblock of set {superblock.head.uuid}"
            load.findings.append(Finding("DMR-C102", text, (superblock.place,)))
    for place, (found, _) in head.tables.items():
        where = sb.table_copy(found.home) if sb else None
        faults = load.blocks[where[0]].faults if where else {}
        if found.uuid != load.uuid:
            text = f"stand-in {place} has a table block of set {found.uuid}"
            load.findings.append(Finding("DMR-C102", text, (place,)))
        elif not where:
            text = f"stand-in {place} stands for block {found.home}, which no table block is at"
            load.findings.append(Finding("DMR-C108", text, (place,)))
        elif load.names.get(place) != found.home:
            text = f"stand-in {place} stands for block {found.home}, and has no such name"
            load.findings.append(Finding("DMR-C108", text, (place,)))
        elif place in faults:
            text = f"stand-in {place} {faults[place]}"
            load.findings.append(Finding("DMR-C108", text, (place,)))
    if head.reserved:
        text = f"reserved blocks {listed(head.reserved)} are not blank"
        load.findings.append(Finding("DMR-C109", text, tuple(head.reserved)))


def _slots(load: Load) -> None:
    for code, number, text in (
        ("DMR-C103", load.counts.lost, "mapped blocks whose content is lost: {}"),
        ("DMR-C104", load.counts.bad, "slots that are bad: {}"),
    ):
        if number:
            load.findings.append(Finding(code, text.format(number)))
