# SPDX-License-Identifier: GPL-2.0-only
"""Change what the superblock of a set says that does not run: a commit by the kernel, without it.

Before anything is changed all is written that a load would write (mend.py), so that both copies of
every block are equal and durable. Then the superblock: copy A, then copy B, with the sequence + 1,
each durable before the next. Only what was asked for changes in it; the rest stays byte for byte,
also what this version knows nothing of.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from dmremap.errors import Failure
from dmremap.ondisk._format import ffi, lib
from dmremap.ondisk.head import HEADER
from dmremap.ondisk.layout import Errors
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


def _change(
    source: Source,
    start: int,
    uuid: UUID,
    write: Writer,
    change: Callable[[Any], None],
) -> list[Write]:
    def body_of(load: Load) -> bytes:
        raw = bytearray(HEADER) + load.blocks[0].body
        change(ffi.from_buffer("struct dmr_super *", raw))
        return bytes(raw[HEADER:])

    load = _read(source, start, uuid)
    if load.blocks[0].settled and body_of(load) == load.blocks[0].body:
        return []
    done = mend(load, write)
    load = _read(source, start, uuid)
    body = body_of(load)
    if body != load.blocks[0].body:
        done += commit_super(load, write, body)
    top = _read(source, start, uuid).blocks[0]
    if not top.settled or top.body != body:
        raise Failure(
            "DMR-E103", "both superblocks were written, and what is read is not what was written"
        )
    return done


def _read(source: Source, start: int, uuid: UUID) -> Load:
    load = read_set(View(source, start), uuid)
    if load.refusals:
        raise refused(f"set {uuid}", load.refusals)
    return load
