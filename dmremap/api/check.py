# SPDX-License-Identifier: GPL-2.0-only
"""What state the metadata on a spare is in."""

from dataclasses import dataclass, field
from typing import Final, Self
from uuid import UUID

from dmremap.api.answer import MAYBE, Answer, Telling, step
from dmremap.api.metadata import Compared, Epoch, Finding, Loading, findings, place_of
from dmremap.ondisk import load
from dmremap.ondisk.findings import Severity
from dmremap.ondisk.load import Counts
from dmremap.sets import offline

_VERDICTS: Final = {
    Severity.INFO: "clean",
    Severity.REPAIRABLE: "repairable",
    Severity.DAMAGED: "damaged",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataCopy:
    """One of the two copies of a metadata block.

    home: the block of the area where it belongs.  place: where it is, None where there is none.
    sequence: 0 where there is none.  fault: why there is none.
    """

    home: int
    place: int | None
    sequence: int
    fault: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataBlock:
    """A metadata block. block: 0 is the superblock, then the table blocks, as their slots go.

    ambiguous: its copies have one sequence and contradict each other.
    """

    block: int
    sequence: int
    ambiguous: bool
    copies: tuple[MetadataCopy, ...]

    @classmethod
    def of(cls, block: load.Block) -> Self:
        """Take over a block of a load."""
        return cls(
            block=block.number,
            sequence=block.seq,
            ambiguous=block.ambiguous,
            copies=tuple(
                MetadataCopy(
                    home=block.homes[copy],
                    place=block.places[copy] if block.seqs[copy] else None,
                    sequence=block.seqs[copy],
                    fault=None if block.seqs[copy] else block.faults.get(block.homes[copy]),
                )
                for copy in (0, 1)
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked(Answer):
    """What a check found.

    verdict: clean (a load accepts it as it is), repairable (a load, or `repair`, puts it right) or
    damaged (a load refuses it).  running: the name of the set that has the device now.  epoch,
    before: what the superblock says.  slots: counts, None where no table could be read.
    blocks: None if not asked for.
    """

    device: str
    file: bool
    start_sectors: int
    uuid: UUID | None
    name: str | None
    verdict: str
    running: str | None
    epoch: Epoch | None
    before: Epoch | None
    compared: Compared | None
    load: Loading
    slots: Counts | None
    metadata_blocks: int
    copies_away: int
    findings: tuple[Finding, ...]
    blocks: tuple[MetadataBlock, ...] | None = field(default=None, metadata=MAYBE)


def check(
    device: str,
    *,
    start: int = 0,
    uuid: UUID | None = None,
    main: str | None = None,
    blocks: bool = False,
    progress: Telling | None = None,
) -> Checked:
    """Check the metadata on a spare, or in a file with its image. Writes nothing.

    It reads every copy of every block of the metadata and says what a load would do by the rules of
    the kernel. start: sectors of 512 bytes, where the area begins. uuid: only this set is meant.
    main: the set's main, whose tag tells whether the spare is an older copy of itself; without it
    it is searched for, unless the spare is a file. blocks: list all blocks of the metadata.

    >>> dmremap.check("spare.img").verdict
    'clean'

    Errors: NotFound where the device does not exist or has nothing of dm-remap, PermissionDenied
    for a block device but for root, Refused for a main device.
    """
    place = place_of(device, start, "read block devices")
    checked = offline.check(place, uuid, step(progress, "checking"), main)
    found = checked.load
    sb = found.superblock
    return Checked(
        device=place.path,
        file=place.is_file,
        start_sectors=start,
        uuid=found.uuid,
        name=sb.name if sb else None,
        verdict=_VERDICTS[checked.severity],
        running=checked.running,
        epoch=Epoch.of(sb.epoch) if sb else None,
        before=Epoch.of(sb.before) if sb else None,
        compared=Compared.of(checked.compared) if checked.compared else None,
        load=Loading.of(found),
        slots=found.counts if len(found.blocks) > 1 else None,
        metadata_blocks=len(found.blocks),
        copies_away=found.away,
        findings=findings(found.findings),
        blocks=tuple(map(MetadataBlock.of, found.blocks)) if blocks else None,
    )
