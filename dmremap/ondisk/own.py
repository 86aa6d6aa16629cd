# SPDX-License-Identifier: GPL-2.0-only
"""The control plane's own blocks of an area: eight payloads, each in two copies.

They are hints. No load looks at them, so that they may hold anything: what is no copy of this set,
whole and at its own home, is nothing, and nothing is no error. Who writes has made sure that the
set does not run.
"""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from dmremap.errors import Failure
from dmremap.ondisk._format import ffi, lib
from dmremap.ondisk.head import HEADER
from dmremap.ondisk.layout import FORMAT_VERSION, OWN_BLOCKS, header
from dmremap.ondisk.load import View
from dmremap.ondisk.mend import Writer

COUNT: Final[int] = lib.DMR_NR_OWN
SIZE: Final[int] = lib.DMR_OWN_SIZE
"""Bytes of a payload, whatever was given when it was written."""


@dataclass(frozen=True, slots=True)
class Own:
    """A payload; `seq` counts how often it was written."""

    seq: int
    payload: bytes


def homes(number: int) -> tuple[int, int]:
    """Return where the two copies of one of the blocks stand, counted from 0."""
    if not 0 <= number < COUNT:
        raise ValueError(f"there are {COUNT} blocks, and no number {number}")
    return OWN_BLOCKS[number], OWN_BLOCKS[number + COUNT]


def pack_own(uuid: UUID, own: Own, home: int) -> bytes:
    """Return a copy as it stands on disk."""
    if len(own.payload) > SIZE:
        raise ValueError(f"a payload of {len(own.payload)} bytes, and {SIZE} are the most")
    if not 0 < own.seq <= lib.DMR_SEQ_MAX:
        raise ValueError(f"sequence {own.seq}")
    raw = bytearray(HEADER) + own.payload.ljust(SIZE, b"\0")
    lib.dmr_seal(ffi.from_buffer("char[]", raw), lib.DMR_TYPE_OWN, uuid.bytes, own.seq, home, home)
    return bytes(raw)


def parse_own(block: bytes, uuid: UUID, place: int) -> Own | None:
    """Return what a copy says, None if the block is none of this set, or says what cannot be."""
    head = header(block, lib.DMR_TYPE_OWN, place)
    if head is None or (head.uuid, head.home, head.version) != (uuid, place, FORMAT_VERSION):
        return None
    # Another one must be possible: nobody writes so often.
    return Own(head.seq, block[HEADER:]) if head.seq <= lib.DMR_SEQ_MAX // 2 else None


def _copies(view: View, uuid: UUID, number: int) -> list[Own | None]:
    out: list[Own | None] = []
    for home in homes(number):
        block = view.block(home)
        out.append(parse_own(block, uuid, home) if block is not None else None)
    return out


def read_own(view: View, uuid: UUID, number: int) -> Own | None:
    """Return the newer copy of a payload; None where there is none, or nobody can tell which."""
    found = {copy for copy in _copies(view, uuid, number) if copy}
    newest = max((copy.seq for copy in found), default=0)
    best = [copy for copy in found if copy.seq == newest]
    return best[0] if len(best) == 1 else None


def write_own(view: View, uuid: UUID, number: int, payload: bytes, write: Writer) -> Own:
    """Write a payload: copy A, then copy B, each durable.

    If they are unequal the lesser one comes first, so that a cut leaves the old payload or the new
    one.
    """
    seqs = [stored.seq if stored else 0 for stored in _copies(view, uuid, number)]
    own = Own(max(seqs) + 1, payload.ljust(SIZE, b"\0"))
    first = int(seqs[0] > seqs[1])
    for copy in (first, 1 - first):
        home = homes(number)[copy]
        if not write(home, pack_own(uuid, own, home)):
            raise Failure("DMR-E103", f"block {home} of the area cannot be written")
    return own
