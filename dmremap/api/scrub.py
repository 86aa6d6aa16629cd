# SPDX-License-Identifier: GPL-2.0-only
"""Have a running set read and mend its metadata."""

from dataclasses import dataclass
from typing import Self

from dmremap.api.answer import Answer, Telling, need_root, step
from dmremap.errors import Partial
from dmremap.sets import scrub as sets
from dmremap.sets.scrub import Done, Gone, Part, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrubbing:
    """A target whose metadata is read. start: its first sector on the set's device.

    spare_start_sectors: where its area begins on the spare, in sectors of 512 bytes.
    metadata_blocks: the superblock included; None if not known.
    """

    start: int
    uuid: str | None
    spare: str
    spare_start_sectors: int
    metadata_blocks: int | None

    @classmethod
    def of(cls, part: Part) -> Self:
        """Take over a part of a plan."""
        return cls(
            start=part.start,
            uuid=part.uuid,
            spare=part.spare,
            spare_start_sectors=part.spare_start,
            metadata_blocks=part.blocks,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrubbed(Answer):
    """What came of a scrub.

    result: clean, repaired, partial (for a copy there was no place) or would scrub.
    metadata_blocks: None if not known.  copies_read: None if not known, 0 with dry_run.  written,
    failed: copies.  gone: the copies that were gone.
    """

    dry_run: bool
    result: str
    name: str
    uuid: str | None
    device: str
    metadata_blocks: int | None
    copies_read: int | None
    written: int
    failed: int
    targets: tuple[Scrubbing, ...]
    gone: tuple[Gone, ...]


def scrub(name: str, *, dry_run: bool = False, progress: Telling | None = None) -> Scrubbed:
    """Have a running set, by name or uuid, read every copy of its metadata.

    What is gone it writes again. The data is not read. The set goes on meanwhile.

    >>> dmremap.scrub("backup").result
    'clean'

    Errors: NotFound where it does not run, Refused where it is read-only, PermissionDenied but for
    root, Failure where something else writes to the spare. Copies for which there was no place are
    the answer's `error`.
    """
    need_root("have a set read its metadata")
    plan = sets.plan(name)
    if dry_run:
        return _answer(plan, None)
    done = sets.carry_out(plan, progress=step(progress, "reading the metadata"))
    return _answer(done.plan, done)


def _answer(plan: Plan, done: Done | None) -> Scrubbed:
    if done is None:
        result = "would scrub"
    else:
        result = "partial" if done.failed else "repaired" if done.written else "clean"
    return Scrubbed(
        dry_run=done is None,
        result=result,
        name=plan.name,
        uuid=plan.uuid,
        device=plan.path,
        metadata_blocks=plan.blocks,
        copies_read=plan.copies if done else 0,
        written=done.written if done else 0,
        failed=done.failed if done else 0,
        targets=tuple(map(Scrubbing.of, plan.parts)),
        gone=done.gone if done else (),
        error=_error(done) if done and done.failed else None,
    )


def _error(done: Done) -> Partial:
    copies = "copy" if done.failed == 1 else "copies"
    message = f"no place on {done.plan.spares} takes {done.failed} {copies} of the metadata"
    memory = done.only_in_memory
    if not memory:
        return Partial("DMR-E802", message)
    blocks = (
        "1 block of the metadata has" if memory == 1 else f"{memory} blocks of the metadata have"
    )
    return Partial(
        "DMR-E802",
        f"{message}; {blocks} no copy left but the one in memory",
        hint="Do not stop the set: it could not be started again. Copy the data to another disk "
        "now, from the set as it runs.",
    )
