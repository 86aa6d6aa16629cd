# SPDX-License-Identifier: GPL-2.0-only
"""What the verbs for metadata at rest say of it."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from dmremap.api.answer import need_root
from dmremap.host.lock import locked
from dmremap.ondisk import Epoch as EpochOnDisk
from dmremap.ondisk.findings import Finding as Found
from dmremap.ondisk.findings import Severity
from dmremap.ondisk.load import Load
from dmremap.ondisk.mend import Write
from dmremap.sets import compare, offline
from dmremap.sets.offline import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found. blocks: of the area, 4096 bytes each, that it is about."""

    code: str
    severity: Severity
    message: str
    next_step: str
    blocks: tuple[int, ...]

    @classmethod
    def of(cls, found: Found) -> Self:
        """Take over a finding of a check."""
        return cls(
            code=found.code,
            severity=found.severity,
            message=found.message,
            next_step=found.next_step,
            blocks=found.blocks,
        )


def findings(found: Iterable[Found]) -> tuple[Finding, ...]:
    """Take over the findings of a check."""
    return tuple(map(Finding.of, found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """What a load would do.

    action: accept, mend or refuse.  errno: the name that the kernel would return, None where it
    would not and dmremapctl refuses.  code: of a finding.  accept_stale: whether the table option
    of that name would start it, read-only.
    """

    action: str
    errno: str | None
    code: str | None
    reason: str | None
    accept_stale: bool

    @classmethod
    def of(cls, load: Load) -> Self:
        """Take over the outcome of a load."""
        first = load.refusals[0] if load.refusals else None
        mends = not first and load.severity > 0
        return cls(
            action="refuse" if first else "mend" if mends else "accept",
            errno=first.name or None if first else None,
            code=first.code if first else None,
            reason=first.reason if first else None,
            accept_stale=load.stale,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """An epoch of a set.

    id: 16 hexadecimal digits; not every program that reads JSON takes a number of 64 bits for what
    it is.
    """

    number: int
    id: str

    @classmethod
    def of(cls, epoch: EpochOnDisk | None) -> Self | None:
        """Take over an epoch; None where there is none."""
        if epoch is None or not epoch.number:
            return None
        return cls(number=epoch.number, id=f"{epoch.id:016x}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What main's tag, or this host, says of a spare.

    verdict: same, older_spare, parted, unfit or not_compared.  main: whose tag was read.
    tag_epoch: what it says.  seen_epoch: what this host has seen last, of a main that has no tag.
    reason: why the spare is refused, or not compared.
    """

    verdict: str
    main: str | None
    tag_epoch: Epoch | None
    seen_epoch: Epoch | None
    reason: str | None

    @classmethod
    def of(cls, compared: compare.Compared) -> Self:
        """Take over a comparison."""
        tag = compared.tag
        return cls(
            verdict=compared.verdict,
            main=compared.main,
            tag_epoch=Epoch.of(tag.epoch) if tag and not tag.fault else None,
            seen_epoch=Epoch.of(compared.seen),
            reason=compared.reason,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockWrite:
    """A block of 4096 bytes that is written.

    block: of the area.  offset_bytes: on the device.  home: the block of the area that it stands
    for, None for one that is erased.  sequence: the one that it gets.
    """

    block: int
    offset_bytes: int
    home: int | None
    sequence: int
    what: str


def block_writes(writes: Iterable[Write], start: int) -> tuple[BlockWrite, ...]:
    """Take over the writes to an area that starts at a sector."""
    return tuple(
        BlockWrite(
            block=write.place,
            offset_bytes=start * 512 + write.place * 4096,
            home=write.home,
            sequence=write.sequence,
            what=write.what,
        )
        for write in writes
    )


def place_of(path: str, start: int, what: str) -> Place:
    """Return a device or image; devices need root, images do not."""
    place = offline.locate(path, start)
    if not place.is_file:
        need_root(what)
    return place


@contextlib.contextmanager
def alone(place: Place, timeout: float) -> Iterator[None]:
    """Hold the lock of all commands that change devices; an image has one of its own."""
    with contextlib.nullcontext() if place.is_file else locked(timeout):
        yield


def untaken(main: Place | None, planned: int, taken: int) -> tuple[str, ...]:
    """Return a warning if main has not taken all copies of its tag."""
    if planned == taken or main is None:
        return ()
    return (f"{main.path} has not taken {planned - taken} of {planned} copies of its tag",)
