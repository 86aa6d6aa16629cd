# SPDX-License-Identifier: GPL-2.0-only
"""Change what the superblock of a set that does not run says: a commit by the kernel, without it.

Before anything is changed all is written that a load would write (mend.py), so that both copies of
every block are equal and durable. Then the superblock: copy A, then copy B, with the sequence + 1,
each durable before the next. Only what was asked for changes in it; the rest stays byte for byte,
also what this version knows nothing of.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

from dmremap.errors import Failure
from dmremap.ondisk._format import ffi, lib
from dmremap.ondisk.head import HEADER
from dmremap.ondisk.layout import Epoch, Errors, Segment, Superblock
from dmremap.ondisk.load import Load, Source, View, read_set, refused
from dmremap.ondisk.mend import Write, Writer, commit_super, mend


def choose(
    source: Source,
    start: int,
    uuid: UUID,
    write: Writer,
    *,
    errors: Errors | None = None,
    remap_rate: int | None = None,
) -> list[Write]:
    """Record what a person chose; of None what is recorded stays. Return what was written."""

    def change(sb: Any) -> None:
        if errors is not None:
            sb.chosen_errors = errors
        if remap_rate is not None:
            sb.chosen |= lib.DMR_CHOSE_RATE
            sb.remap_rate = lib.dmr_h32(remap_rate)

    return _change(source, start, uuid, write, change)


def call_content(source: Source, start: int, uuid: UUID, write: Writer, tag: UUID) -> list[Write]:
    """Record that the tag of set `tag` in main's data is content. Return what was written."""

    def change(sb: Any) -> None:
        ffi.buffer(sb.content_tag)[:] = tag.bytes

    return _change(source, start, uuid, write, change)


def supersede(source: Source, start: int, uuid: UUID, write: Writer) -> list[Write]:
    """Say that the set has gone on elsewhere; return what was written.

    Nothing else of it changes, not the epoch either: who takes over names that one. No load takes
    the set from the first copy on that is durable. May be repeated, also after a cut.
    """

    def change(sb: Any) -> None:
        sb.incompat |= lib.dmr_h64(lib.DMR_INCOMPAT_SUPERSEDED)

    return _change(source, start, uuid, write, change, superseded=True)


def successor(old: Superblock, new: Superblock) -> Superblock:
    """Return what a new set says that goes on for another one, on another main.

    It counts only while the old one has no later epoch than this.
    """
    return replace(new, predecessor=old.uuid, predecessor_epoch=old.epoch)


def on_next_spare(old: Superblock, area_blocks: int, segment: Segment) -> Superblock:
    """Return what a set says on another spare, with one segment of an area of so many blocks.

    It is an epoch ahead: of two spares of one set the later one counts.
    """
    return replace(
        old,
        area_blocks=area_blocks,
        segments=(segment,),
        incompat=old.incompat & ~lib.DMR_INCOMPAT_SUPERSEDED,
        epoch=Epoch.new(old.epoch.number + 1),
        before=old.epoch,
        spare_serial=old.spare_serial + 1,
        standins=(),
    )


def _change(
    source: Source,
    start: int,
    uuid: UUID,
    write: Writer,
    change: Callable[[Any], None],
    *,
    superseded: bool = False,
) -> list[Write]:
    def body_of(load: Load) -> bytes:
        raw = bytearray(HEADER) + load.blocks[0].body
        change(ffi.from_buffer("struct dmr_super *", raw))
        return bytes(raw[HEADER:])

    def read() -> Load:
        found = read_set(View(source, start), uuid)
        if superseded:
            found.refusals = [refusal for refusal in found.refusals if refusal.code != "DMR-C314"]
        if found.refusals:
            raise refused(f"set {uuid}", found.refusals)
        return found

    load = read()
    if load.blocks[0].settled and body_of(load) == load.blocks[0].body:
        return []
    written = mend(load, write)
    load = read()
    body = body_of(load)
    if body != load.blocks[0].body:
        written += commit_super(load, write, body)
    top = read().blocks[0]
    if not top.settled or top.body != body:
        raise Failure(
            "DMR-E103", "both superblocks were written, and what is read is not what was written"
        )
    return written
