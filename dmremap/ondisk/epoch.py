# SPDX-License-Identifier: GPL-2.0-only
"""Is a spare the one that main was used with last, and what makes it so. Pure.

A load compares the epoch in main's tag with the superblock's, and refuses a spare that is an older
copy of itself. When a person has said that it is to be taken all the same an epoch begins that is
later than both: docs/model/README.md says in which order it is written, and why.
"""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from dmremap.errors import Refused
from dmremap.ondisk._format import ffi, lib
from dmremap.ondisk.area import CONTRADICTION, newest_tag
from dmremap.ondisk.head import HEADER
from dmremap.ondisk.layout import Epoch, History, Superblock, Tag, put_epoch
from dmremap.ondisk.load import Refusal

OLDER: Final = "DMR-C316"
PARTED: Final = "DMR-C317"
UNFIT: Final = "DMR-C318"
EPOCH_MAX: Final = int(lib.DMR_EPOCH_MAX)


@dataclass(frozen=True, slots=True)
class Raise:
    """An epoch that is to begin, and what stands as the one before it."""

    epoch: Epoch
    before: Epoch


def history(sb: Superblock, tag: Epoch) -> History:
    """Compare the epoch in main's tag with the superblock's, as the kernel does."""
    raw = ffi.new("struct dmr_super *")
    put_epoch(raw.epoch, sb.epoch)
    put_epoch(raw.before, sb.before)
    then = ffi.new("struct dmr_epoch *")
    put_epoch(then, tag)
    return History(lib.dmr_history(raw, then))


def judge_main(sb: Superblock, copies: Mapping[int, Tag], sectors: int) -> Refusal | None:
    """Return why a load refuses a main of this size with these copies of the set's tag.

    check_tag() in the kernel.
    """
    tag = newest_tag(copies.values())
    if tag is None or tag.uuid != sb.uuid:
        raise ValueError("no tag of this set")
    newest = [copy for copy in copies.values() if copy.epoch.number == tag.epoch.number]
    for copy in newest:
        if why := _unfit(sb, copy, sectors):
            return Refusal(errno.EINVAL, why, UNFIT)
    if tag.fault:
        return Refusal(errno.EINVAL, tag.fault, PARTED)
    return _judge(sb, tag.epoch, "main's tag has")


def judge_seen(sb: Superblock, seen: Epoch) -> Refusal | None:
    """Return why a spare is not the one that this host has seen last with an adopted main.

    Of that the kernel knows nothing: there is no errno.
    """
    problem = _judge(sb, seen, "this host has seen")
    return replace(problem, errno=0) if problem else None


def _judge(sb: Superblock, then: Epoch, whose: str) -> Refusal | None:
    numbers = f"{whose} epoch {then.number}, the superblock {sb.epoch.number}"
    match history(sb, then):
        case History.OLDER_SPARE:
            reason = f"the spare is an older copy of itself: {numbers}"
            return Refusal(errno.EINVAL, reason, OLDER)
        case History.PARTED:
            reason = f"main was used with another copy of the spare: {numbers}"
            return Refusal(errno.EINVAL, reason, PARTED)
    return None


def _unfit(sb: Superblock, tag: Tag, sectors: int) -> str:
    if tag.fault:
        return tag.fault
    if tag.uuid != sb.uuid:
        return CONTRADICTION
    if (tag.data_start, tag.unit) != (sb.data_start, sb.unit):
        return "main's tag contradicts the superblock"
    if sectors < sb.main_sectors:
        return f"main has {sectors} sectors, and the set has recorded {sb.main_sectors}"
    return ""


def later(name: str, *known: Epoch, earlier: Raise | None = None) -> Raise:
    """Return the epoch of a set behind all that are known; raise Refused if there is none.

    The one before is that of the highest number, and of equal ones the first. With any other a cut
    between superblock and tag would look like two histories. `earlier` is what was returned when
    this was asked first, and is returned again if nothing has changed.
    """
    before = max(known, key=lambda epoch: epoch.number)
    if earlier and earlier.before == before:
        return earlier
    if before.number >= EPOCH_MAX:
        raise Refused("DMR-E532", f"set {name!r}: there is no epoch behind {before.number}")
    return Raise(Epoch.new(before.number + 1), before)


def with_epoch(body: bytes, new: Raise) -> bytes:
    """Return the body of a superblock in which an epoch has begun; all else is as it was."""
    raw = bytearray(HEADER) + body
    sb = ffi.from_buffer("struct dmr_super *", raw)
    put_epoch(sb.epoch, new.epoch)
    put_epoch(sb.before, new.before)
    return bytes(raw[HEADER:])
