# SPDX-License-Identifier: GPL-2.0-only
"""A set of the `remap` target for the tests in a guest: made, looked at, taken apart.

Both legs are fault devices, so that a test can fail them, hold them and count what arrives there.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self, TypeVar
from uuid import UUID, uuid4

from guest.lib import (
    MIB,
    SECTOR,
    CommandError,
    Device,
    Fault,
    describe,
    dm_create,
    dm_lines,
    dm_message,
    dm_names,
    dm_remove,
    fault_device,
    load_module,
    loop_device,
    queue,
    read,
    sectors,
    wait_for,
)

from dmremap.dm.lines import RemapTable, Status, parse_status_line, parse_table_line
from dmremap.dm.messages import (
    ListEntry,
    ListPage,
    PendingPage,
    RemapReply,
    ScrubPage,
    parse_list,
    parse_pending,
    parse_remap,
    parse_scrub,
    remap_message,
)
from dmremap.ondisk import (
    BLOCK,
    BLOCK_SECTORS,
    SUPER_HOMES,
    Epoch,
    Segment,
    SetState,
    Superblock,
    Tag,
    View,
    format_area,
    look,
    opened,
    segment_for,
    write_tag,
)
from dmremap.ondisk.layout import (
    NO_EPOCH,
    STANDINS,
    pack_empty_table,
    pack_super,
    parse_super,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

P = TypeVar("P", ListPage, PendingPage, ScrubPage)

SMALLEST_AREA = 2072
"""Sectors of the smallest area: it has one block of slots."""


class KernelLog:
    """The lines that the kernel logs from now on."""

    def __init__(self) -> None:
        self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self.fd, 0, os.SEEK_END)
        self.text = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.read()
        os.close(self.fd)

    def read(self) -> str:
        """Return all of them so far; they stay in `text`."""
        while True:
            try:
                record = os.read(self.fd, 8192).decode(errors="replace")
            except BlockingIOError:
                return self.text
            except BrokenPipeError as error:
                raise AssertionError(
                    "lines of the log were overwritten before this read"
                ) from error
            self.text += record.splitlines()[0].partition(";")[2] + "\n"


def refusal(table: str, *, name: str = "refused", readonly: bool = False) -> str:
    """Create a device that must be refused; return what the kernel logs about it."""
    with KernelLog() as log:
        try:
            dm_create(name, table, readonly=readonly)
        except CommandError:
            pass
        else:
            dm_remove(name)
            raise AssertionError(f"this table was accepted: {table}")
    assert name not in dm_names()
    return log.text


@dataclass(frozen=True)
class Contents:
    """All bytes of a device, too many to print."""

    path: Path | str
    data: bytes = field(repr=False)


def contents(*paths: Path | str) -> list[Contents]:
    """Return all that devices hold, to be compared."""
    return [Contents(path, read(path, 0, sectors(path))) for path in paths]


def status(name: str, sector: int = 0) -> Status:
    """Return the status of the target that starts at a sector."""
    lines = dm_lines(name)
    return parse_status_line(next(line for line in lines if int(line.split()[0]) == sector))


def table(name: str) -> RemapTable:
    """Return the table of a device of one target."""
    (line,) = dm_lines(name, table=True)
    return parse_table_line(line)


def _pages(parse: Callable[[str], P], name: str, word: str, sector: int, page: int) -> Iterator[P]:
    """Yield all replies to a message that is answered in pages."""
    start: int | None = 0
    while start is not None:
        reply = parse(dm_message(name, word, start, page, sector=sector))
        yield reply
        start = reply.next


def entries(name: str, sector: int = 0, page: int = 1000) -> list[ListEntry]:
    """Return all slots that are not free, of the target at a sector."""
    replies = _pages(parse_list, name, "list", sector, page)
    return [entry for reply in replies for entry in reply.entries]


def mapped(name: str, sector: int = 0) -> list[int]:
    """Return the first sectors of all mapped units, sorted."""
    return sorted(
        entry.sector
        for entry in entries(name, sector)
        if entry.sector is not None and entry.state != "doubt"
    )


def pending(name: str, sector: int = 0, page: int = 1000) -> list[int]:
    """Return the first sectors of all pending units."""
    replies = _pages(parse_pending, name, "pending", sector, page)
    return [entry.sector for reply in replies for entry in reply.entries]


def scrub(name: str, sector: int = 0, page: int = 1000) -> list[tuple[int, str]]:
    """Have all metadata read; return the homes of what was gone and what became of it."""
    replies = _pages(parse_scrub, name, "scrub", sector, page)
    return [(entry.block, entry.result) for reply in replies for entry in reply.entries]


def texts(first: int, count: int, generation: int = 0, **other: Iterable[int]) -> list[str]:
    """Return what describe() says of sectors; `other` are those of generations g1, g2...

    >>> texts(4, 3, g2=[5])
    ['4/0', '5/2', '6/0']
    """
    of = {sector: int(name[1:]) for name, numbers in other.items() for sector in numbers}
    return [f"{sector}/{of.get(sector, generation)}" for sector in range(first, first + count)]


def held(path: Path | str, sector: int = 0, count: int = 1) -> list[str]:
    """Say what is in sectors of a device, see describe()."""
    return describe(read(path, sector, count))


@dataclass(frozen=True)
class RemapSet:
    """A device with one `remap` target."""

    name: str
    path: Path
    line: str
    main: Fault
    spare: Fault
    main_disk: Path
    spare_disk: Path

    @property
    def status(self) -> Status:
        """What the target says of itself."""
        return status(self.name)

    @property
    def mapped(self) -> list[int]:
        """The first sectors of all mapped units, sorted."""
        return mapped(self.name)

    @property
    def pending(self) -> list[int]:
        """The first sectors of all pending units."""
        return pending(self.name)

    def remove(self) -> None:
        """Remove the device."""
        dm_remove(self.name)

    def create(self, *, readonly: bool = False) -> None:
        """Create the device that was removed."""
        dm_create(self.name, self.line, readonly=readonly)

    def recreate(self, *, readonly: bool = False) -> None:
        """Remove and create."""
        self.remove()
        self.create(readonly=readonly)

    def refused(self) -> str:
        """Fail to create the device that was removed; return what the kernel logs."""
        return refusal(self.line, name=self.name)

    def reset(self) -> None:
        """Set the counters of both legs to zero."""
        self.main.reset()
        self.spare.reset()

    def heal(self) -> None:
        """End all that fails or holds in both legs."""
        for leg in (self.main, self.spare):
            leg.delay(0)
            leg.release()
            leg.clear()
            leg.dead()
            leg.readonly()

    def wait_event(self, after: int) -> None:
        """Wait until the number of events is higher."""
        wait_for(lambda: self.status.seq > after, "an event")


@contextmanager
def remap_set(
    *options: str,
    main_size: int = 8 * MIB,
    spare_size: int = 4 * MIB,
    main_disk: Path | None = None,
    spare_disk: Path | None = None,
    main_options: Iterable[str] = (),
    spare_options: Iterable[str] = (),
    spare_start: int = 0,
    spare_len: int | None = None,
    length: int | None = None,
    readonly: bool = False,
    name: str = "set",
) -> Iterator[RemapSet]:
    """Have a set over two fault devices while the block runs."""
    load_module("dm_remap")
    with ExitStack() as stack:
        main_disk = main_disk or stack.enter_context(loop_device(main_size))
        spare_disk = spare_disk or stack.enter_context(loop_device(spare_size))
        main = stack.enter_context(fault_device(main_disk, *main_options, name=f"{name}-main"))
        spare = stack.enter_context(fault_device(spare_disk, *spare_options, name=f"{name}-spare"))
        if length is None:
            length = sectors(main.path)
            if "main_start" in options:
                length -= int(options[options.index("main_start") + 1])
        if spare_len is None:
            spare_len = sectors(spare.path) - spare_start
        line = f"0 {length} remap {main.path} {spare.path} {spare_start} {spare_len}"
        if options:
            line += f" {len(options)} {' '.join(options)}"
        path = dm_create(name, line, readonly=readonly)
        made = RemapSet(name, path, line, main, spare, main_disk, spare_disk)
        try:
            yield made
        finally:
            with suppress(CommandError):
                made.heal()
            if name in dm_names():
                dm_remove(name)


def segment_of(made: RemapSet) -> Segment:
    """Return the one segment of a set."""
    unit = int(queue(made.main.path, "logical_block_size"))
    segment = segment_for(int(made.line.split()[6]) // 8, unit)
    assert segment is not None
    return segment


def by_hand(
    made: RemapSet, sector: int, count: int, *, lost: bool = False, at: int = 0
) -> RemapReply:
    """Have blocks mapped by hand and return how far it came."""
    return parse_remap(dm_message(made.name, remap_message(sector, count, lost=lost), sector=at))


def new_superblock(
    main: Path,
    spare_len: int,
    *,
    tagged: bool = False,
    data_start: int = 0,
    uuid: UUID | None = None,
) -> Superblock:
    """Describe a set that covers an area, as the kernel and the control plane do."""
    unit = int(queue(main, "logical_block_size"))
    blocks = spare_len // BLOCK_SECTORS
    segment = segment_for(blocks, unit)
    assert segment is not None
    return Superblock(
        uuid=uuid or uuid4(),
        name="test",
        state=SetState.READY,
        unit=unit,
        area_blocks=blocks,
        segments=(segment,),
        tagged=tagged,
        main_sectors=sectors(main),
        data_start=data_start,
        data_sectors=sectors(main) - data_start,
    )


def format_set(spare: Path, superblock: Superblock, start: int = 0) -> None:
    """Write a set onto a spare whose area is blank, without the kernel's help."""
    with opened(str(spare), write=True) as device:
        format_area(device, superblock, start)


def read_superblock(spare: Path, start: int = 0) -> Superblock:
    """Return what the superblocks of the area say that begins at a sector of a spare."""
    with opened(str(spare)) as device:
        load = look(View(device, start))
    assert load.superblock is not None, load.refusals
    return load.superblock


def without_epochs(area: bytes) -> bytes:
    """Return an area as if each superblock were of its first epoch, which every load replaces."""
    changed = bytearray(area)
    for place in (*SUPER_HOMES, *STANDINS):
        where = slice(place * BLOCK, (place + 1) * BLOCK)
        block = area[where]
        superblock = parse_super(block, place)
        for home in SUPER_HOMES:
            if superblock and pack_super(superblock, home, place) == block:
                first = replace(superblock, seq=1, epoch=Epoch(1, 1), before=NO_EPOCH)
                changed[where] = pack_super(first, home, place)
    return bytes(changed)


def write_extension(spare: Path, superblock: Superblock, segment: Segment) -> None:
    """Write the empty tables of one segment more, and flush; nothing else says that it is there."""
    with Device(spare) as device:
        for first in (segment.copy_a, segment.copy_b):
            for home in range(first, first + segment.table_blocks):
                device.write(home * BLOCK_SECTORS, pack_empty_table(superblock.uuid, home))
        device.flush()


def tag_main(main: Path, superblock: Superblock) -> None:
    """Write the tag of a set onto its main."""
    with opened(str(main), write=True) as device:
        write_tag(device, Tag.of(superblock, 0))


@contextmanager
def tagged_set(*, main_size: int = 8 * MIB, spare_size: int = 4 * MIB) -> Iterator[RemapSet]:
    """Have a set whose main is tagged; its data starts at sector 2048 of main."""
    with loop_device(main_size) as main, loop_device(spare_size) as spare:
        superblock = new_superblock(main, spare_size // SECTOR, tagged=True, data_start=2048)
        format_set(spare, superblock)
        tag_main(main, superblock)
        options = ("main_start", "2048", "uuid", str(superblock.uuid))
        with remap_set(*options, main_disk=main, spare_disk=spare) as made:
            yield made


def with_seq(superblock: Superblock, seq: int) -> Superblock:
    """Return a superblock with another sequence."""
    return replace(superblock, seq=seq)
