# SPDX-License-Identifier: GPL-2.0-only
"""The check is the kernel's load: both are given the same damaged areas and must agree.

What is compared is whether the load is accepted, its errno, the counts, the order of the writes,
and every byte of the area afterwards.
"""

import errno
from dataclasses import replace
from random import Random
from uuid import UUID

import pytest
from harness.paths import ROOT
from unit.areas import (
    AREA_BLOCKS,
    GOLDEN,
    HOMES,
    JUNK,
    MAIN_SECTORS,
    OTHER,
    SB,
    SET,
    Disk,
    fresh,
    give_names,
    mapped,
    reseal,
    superblock,
    table,
)
from unit.kernelload import KernelLoad

from dmremap.errors import Failure
from dmremap.ondisk import BLOCK, Entry, Epoch, Errors, Load, SetState, SlotState, Superblock
from dmremap.ondisk._format import ffi, lib
from dmremap.ondisk.check import examine
from dmremap.ondisk.layout import NO_EPOCH, REFUGES, SUPER_HOMES, pack_super
from dmremap.ondisk.mend import mend


def copy_of(disk: Disk) -> Disk:
    out = Disk()
    out.data = bytearray(disk.data)
    out.bad, out.stuck = set(disk.bad), set(disk.stuck)
    return out


def compare(by_kernel: KernelLoad, disk: Disk) -> Load:
    theirs, ours = copy_of(disk), copy_of(disk)
    code, result = by_kernel(theirs)
    load = examine(ours, uuid=SET)
    why = (code, result.why, load.refusals, load.findings)
    if load.refusals:
        assert code == load.refusals[0].errno, why
        assert theirs.data == disk.data
        stale_code, stale = by_kernel(copy_of(disk), accept_stale=True)
        assert (stale_code == 0) is load.stale, (why, stale_code, stale.why)
        return load
    try:
        done = mend(examine(ours, uuid=SET), ours.write)
    except Failure:
        # The kernel goes on in mode ro where it is only the epoch that cannot be written.
        assert code != 0 or result.no_raise, why
        return load
    assert (code, result.raised) == (0, 2), why
    counts = load.counts
    assert (result.mapped, result.lost, result.bad, result.free) == (
        counts.mapped,
        counts.lost,
        counts.bad,
        counts.free,
    )
    if not disk.stuck:
        assert result.away == load.away
    assert list(result.place[: result.writes]) == [one.place for one in done], why
    assert theirs.data == ours.data
    assert theirs.bad == ours.bad
    return load


def test_a_set_begins_the_same_whoever_makes_it(by_kernel: KernelLoad) -> None:
    disk = Disk()
    assert by_kernel(disk, uuid=None, formats=True)[0] == 0
    theirs = examine(disk).superblock
    assert theirs is not None
    ours = Superblock(
        uuid=theirs.uuid,
        name="",
        state=SetState.READY,
        unit=512,
        area_blocks=AREA_BLOCKS,
        segments=SB.segments,
        tagged=False,
        main_sectors=MAIN_SECTORS,
        data_start=0,
        data_sectors=MAIN_SECTORS,
        seq=2,
    )
    assert theirs == replace(ours, epoch=theirs.epoch)
    assert (theirs.epoch.number, ours.epoch.number) == (1, 1)
    assert theirs.epoch.id
    assert len({0, ours.epoch.id, Epoch.new().id}) == 3
    assert ours.before == NO_EPOCH


RATE = SB.slots // 4
"""Pieces in a minute where nobody chose."""


@pytest.mark.parametrize(
    ("errors", "rate", "counts"),
    [
        (None, None, (False, RATE)),
        (Errors.CONFIRM, 7, (False, 7)),
        (Errors.MEDIUM, 0, (True, 0)),
        (None, 2**31 - 1, (False, 2**31 - 1)),
        (Errors.MEDIUM, None, (True, RATE)),
    ],
)
def test_what_a_person_chose_counts(
    by_kernel: KernelLoad, errors: Errors | None, rate: int | None, counts: tuple[bool, int]
) -> None:
    disk = fresh(sb=superblock(errors=errors, remap_rate=rate))
    for stale in (False, True):
        code, result = by_kernel(copy_of(disk), accept_stale=stale)
        assert (code, bool(result.medium), result.rate) == (0, *counts)


@pytest.mark.parametrize("errors", [None, *Errors])
@pytest.mark.parametrize("rate", [None, 0, 9])
def test_a_word_of_the_line_counts_more_and_is_not_kept(
    by_kernel: KernelLoad, errors: Errors | None, rate: int | None
) -> None:
    disk = fresh(sb=superblock(errors=Errors.MEDIUM, remap_rate=5))
    code, result = by_kernel(disk, errors=errors, remap_rate=rate)
    assert (code, bool(result.medium)) == (0, errors is not Errors.CONFIRM)
    assert result.rate == (5 if rate is None else rate)
    load = examine(disk)
    assert load.superblock is not None
    assert (load.superblock.errors, load.superblock.remap_rate) == (Errors.MEDIUM, 5)


def test_superblocks_with_different_choices(by_kernel: KernelLoad) -> None:
    """The higher sequence wins and is written twice; of equal ones neither."""
    disk = fresh(sb=superblock(errors=Errors.CONFIRM, remap_rate=5))
    for home in SUPER_HOMES:
        changed = copy_of(disk)
        changed[home] = pack_super(superblock(errors=Errors.MEDIUM, remap_rate=6, seq=3), home)
        load = compare(by_kernel, changed)
        assert [one.code for one in load.findings] == ["DMR-C202"]
        code, result = by_kernel(changed)
        assert (code, result.medium, result.rate) == (0, 1, 6)
        assert [examine(changed).blocks[0].seqs, result.writes] == [[5, 5], 2]
        odd = copy_of(disk)
        odd[home] = pack_super(superblock(errors=Errors.CONFIRM, remap_rate=6), home)
        assert compare(by_kernel, odd).refusals[0].code == "DMR-C302"


def test_a_choice_that_is_none_is_refused(by_kernel: KernelLoad) -> None:
    disk = fresh()
    for home in SUPER_HOMES:
        raw = bytearray(disk[home])
        ffi.from_buffer("struct dmr_super *", raw).chosen_errors = 3
        disk[home] = reseal(bytes(raw), home, home)
    assert compare(by_kernel, disk).refusals[0].code == "DMR-C304"


@pytest.mark.parametrize("number", [2, 15, 16])
def test_what_the_control_plane_keeps_is_of_no_meaning(by_kernel: KernelLoad, number: int) -> None:
    disk = fresh([mapped(0, 100)])
    for block in (JUNK, table(1, 0, [], 9, place=number), pack_super(superblock(seq=9), 0, number)):
        disk[number] = block
        load = compare(by_kernel, disk)
        assert load.accepted
        assert [one.code for one in load.findings] == []


def test_a_set_that_has_gone_on_elsewhere(by_kernel: KernelLoad) -> None:
    sb = superblock(seq=9, incompat=lib.DMR_INCOMPAT_SUPERSEDED)
    load = compare(by_kernel, fresh(sb=sb))
    assert [one.code for one in load.findings] == ["DMR-C314"]


def test_a_set_of_version_1(by_kernel: KernelLoad) -> None:
    disk = Disk()
    disk[0] = (GOLDEN / "super-1.bin").read_bytes().ljust(BLOCK, b"\0")
    load = compare(by_kernel, disk)
    assert [one.code for one in load.findings] == ["DMR-C315"]
    assert by_kernel(disk)[1].why.decode() in load.refusals[0].reason


def test_a_clean_area(by_kernel: KernelLoad) -> None:
    disk = fresh([mapped(0, 100), Entry(2, SlotState.LOST, 8, 0), Entry(9, SlotState.BAD, 0, 0)])
    assert compare(by_kernel, disk).accepted


@pytest.mark.parametrize("copy", [0, 1])
def test_a_sequence_without_a_next_one(by_kernel: KernelLoad, copy: int) -> None:
    """To write both copies again would leave no valid one."""
    top = 2**63 - 1
    for seq, accepted in (
        (top, False),
        (top - 1, False),
        (top // 2 + 1, False),
        (top // 2 - 2, True),
    ):
        disk = fresh([mapped(0, 100)])
        disk[HOMES[0][copy]] = table(0, copy, [mapped(0, 100)], seq)
        load = compare(by_kernel, disk)
        assert load.accepted is accepted, seq
        assert accepted or [one.code for one in load.refusals] == ["DMR-C313"]
        code, _ = by_kernel(disk)
        assert code == (0 if accepted else errno.EINVAL)
        assert examine(disk).accepted is accepted


def _entries(random: Random, index: int) -> list[Entry]:
    first = index * 252
    out = []
    for slot in random.sample(range(first, first + 100), random.randrange(4)):
        # Few units, so that some have two slots, a few of them in one generation.
        unit, generation = random.randrange(40), random.randrange(6)
        state = random.choice([SlotState.MAPPED, SlotState.MAPPED, SlotState.LOST, SlotState.BAD])
        if state is SlotState.BAD:
            unit = generation = 0
        out.append(Entry(slot, state, unit, generation))
    return out


def _damage_table(random: Random, disk: Disk, versions: list[list[Entry]], index: int) -> None:
    copy = random.randrange(2)
    home = HOMES[index][copy]
    seq = random.randrange(4, 8)
    entries = versions[seq] if random.random() < 0.9 else _entries(random, index)
    match random.randrange(9):
        case 0:
            disk.bad.add(home)
        case 1:
            disk[home] = random.choice([JUNK, bytes(BLOCK), disk[HOMES[index][1 - copy]]])
        case 2 | 3:
            disk[home] = table(index, copy, entries, seq)
        case 4:
            disk[home] = table(index, copy, [mapped(index * 252, MAIN_SECTORS)], seq)
        case 5:
            disk[home] = table(index, copy, entries, seq, uuid=OTHER)
        case _:
            place = random.randrange(128, 140)
            give_names(
                disk, {place: home} if random.random() < 0.9 and place not in REFUGES else {}
            )
            disk[place] = table(index, copy, entries, seq, place=place)


def _damage_super(random: Random, disk: Disk) -> None:
    home = random.choice([0, 255])
    seq = random.randrange(1, 5)
    names = {1: "one", 2: "attic", 3: "three", 4: "four"}
    sb = superblock(seq=seq, name=names[seq] if random.random() < 0.9 else "odd")
    if random.random() < 0.15:
        sb = superblock(seq=seq, state=SetState.FORMATTING)
    if random.random() < 0.1:
        sb = superblock(uuid=OTHER, seq=seq, state=random.choice(list(SetState)))
    match random.randrange(4):
        case 0:
            disk.bad.add(home)
        case 1:
            disk[home] = random.choice([JUNK, bytes(BLOCK), pack_super(sb, 255 - home)])
        case 2:
            disk[home] = pack_super(sb, home)
        case _:
            place = random.choice([*REFUGES, 130])
            disk[place] = pack_super(sb, home, place)


def _torn(block: bytes, first: bytes | None = None) -> bytes:
    """Return what is left of a write that was cut: its first sector, or another one."""
    return (block[:512] if first is None else first) + JUNK[512:]


def _damage_standin(random: Random, disk: Disk) -> None:
    place = random.choice([*range(128, 142), *REFUGES[:2]])
    index, copy = random.randrange(3), random.randrange(2)
    if random.random() < 0.8 and place not in REFUGES:
        give_names(disk, {place: HOMES[index][copy]})
    match random.randrange(8):
        case 0:
            disk.bad.add(place)
        case 4 | 5 | 6 | 7:
            block = table(index, copy, [], random.randrange(4, 9), place=place)
            if random.random() < 0.1 or place in REFUGES:
                home = random.choice([0, 255])
                block = pack_super(superblock(seq=random.randrange(1, 6)), home, place)
            disk[place] = _torn(block, random.choice([None, None, None, bytes(512)]))
        case 1:
            disk[place] = JUNK
        case 2:
            disk[place] = table(0, 0, [], 9, place=place, uuid=OTHER)
        case _:
            disk[place] = reseal(table(0, 0, [], 9), random.choice([1, 300, 10**6]), place)


@pytest.mark.parametrize("seed", range(6))
def test_areas_at_random(by_kernel: KernelLoad, seed: int) -> None:
    random = Random(seed)
    seen = {"accepted": 0, "refused": 0}
    for _ in range(160):
        every = [[_entries(random, index) for _ in range(9)] for index in range(3)]
        disk = fresh([], seq=5)
        for index, versions in enumerate(every):
            for copy in (0, 1):
                disk[HOMES[index][copy]] = table(index, copy, versions[5], 5)
        # Names first, in both superblocks, before one of them is damaged.
        for _ in range(random.randrange(5)):
            _damage_table(random, disk, every[index := random.randrange(3)], index)
        for _ in range(random.choice([0, 0, 0, 1, 2])):
            _damage_standin(random, disk)
        for _ in range(random.choice([0, 0, 0, 1, 2])):
            _damage_super(random, disk)
        if random.random() < 0.3:
            places = [0, 255, *range(128, 142), 152, 253, 254]
            places += [home for homes in HOMES for home in homes]
            disk.stuck = set(random.sample(places, random.randrange(1, 6)))
        load = compare(by_kernel, disk)
        seen["accepted" if load.accepted else "refused"] += 1
    assert min(seen.values()) > 10, seen


# ------------------------------------------------- the tables in docs/format.md

PAGE = (ROOT / "docs/format.md").read_text()


def _rows(words: str) -> list[list[str]]:
    """Return the cells of the table that follows these words."""
    text = PAGE[PAGE.index(words) :]
    lines = text[text.index("\n|") :].strip().split("\n\n")[0].splitlines()[2:]
    return [
        [cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines
    ]


TABLE_ROWS = _rows("What happens to a **table block**")
SUPER_ROWS = _rows("And to the **superblock**")
TOP = 6


def _table_state(disk: Disk, copy: int, state: str) -> None:
    body = [mapped(252, 9 if state == "n, another body" else 7)]
    block = JUNK if state == "none" else table(1, copy, body, TOP - 1 if state == "lower" else TOP)
    disk[HOMES[1][copy]] = block


def _super_state(disk: Disk, copy: int, state: str) -> None:
    home = (0, 255)[copy]
    if state == "none":
        disk[home] = JUNK
        return
    sb = superblock(
        seq=TOP - 1 if state == "lower" else TOP,
        name="another" if state in ("n, another body", "lower") else "attic",
        state=SetState.FORMATTING if state == "FORMATTING" else SetState.READY,
    )
    disk[home] = pack_super(sb, home)


HIDDEN = ("", "A", "B", "AB")
"""The columns of the first table: copies that a bad stand-in has the name of."""


def _done(cell: str, homes: tuple[int, int]) -> tuple[int, list[int]]:
    """Return the errno and the places that are written, of what a cell says."""
    match cell.split(", "):
        case ["as it is"]:
            return 0, []
        case ["refused", number]:
            return getattr(errno, number), []
        case [first, second, "n + 2"]:
            return 0, [homes["AB".index(c)] for c in (first, second.removeprefix("then "))]
        case other:
            pytest.fail(f"not understood: {other}")


def _look(by_kernel: KernelLoad, disk: Disk, cell: str, number: int, erased: list[int]) -> None:
    """Compare reader, kernel and what the page says of block `number` of the metadata."""
    homes = HOMES[1] if number else (0, 255)
    load = compare(by_kernel, disk)
    code, result = by_kernel(disk)
    want, places = _done(cell, homes)
    assert code == want, load.findings
    assert list(result.place[: result.writes]) == places + ([] if want else erased)
    if places:
        assert examine(disk).blocks[number].seqs == [TOP + 2] * 2


def _id(value: object) -> str:
    return ", ".join(value[:3]) if isinstance(value, list) else str(value)


@pytest.mark.parametrize("hidden", range(4), ids=lambda i: HIDDEN[i] or "none")
@pytest.mark.parametrize("row", TABLE_ROWS, ids=_id)
def test_the_page_says_what_becomes_of_a_table(
    by_kernel: KernelLoad, row: list[str], hidden: int
) -> None:
    assert len(row) == 6
    disk = fresh([], seq=1)
    _table_state(disk, 0, row[0])
    _table_state(disk, 1, row[1])
    bad = [140 + "AB".index(copy) for copy in HIDDEN[hidden]]
    give_names(disk, {place: HOMES[1][place - 140] for place in bad})
    for place in bad:
        disk[place] = JUNK
    # What was never used is nothing, however bad.
    disk[143] = JUNK
    disk.bad |= {144, 145}
    _look(by_kernel, disk, row[2 + hidden], 2, bad)


@pytest.mark.parametrize("bad", [0, 1, 2])
@pytest.mark.parametrize("row", SUPER_ROWS, ids=_id)
def test_the_page_says_what_becomes_of_a_superblock(
    by_kernel: KernelLoad, row: list[str], bad: int
) -> None:
    assert len(row) == 5
    for a in row[0].split(", or "):
        for b in row[1].split(", or "):
            disk = fresh([], seq=1)
            _super_state(disk, 0, a)
            _super_state(disk, 1, b)
            for place in (136, 248)[:bad]:
                disk[place] = JUNK
            _look(by_kernel, disk, row[2 + bad], 0, [136, 248][:bad])


TORN_ROWS = _rows("A torn stand-in whose header has a sequence above")


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("row", TORN_ROWS, ids=_id)
def test_the_page_says_what_torn_standins_do(
    by_kernel: KernelLoad, row: list[str], number: int
) -> None:
    """For a table block and for the superblock."""
    assert len(row) == 4
    put = _table_state if number else _super_state
    disk = fresh([], seq=1)
    put(disk, 0, row[0])
    put(disk, 1, row[1])
    places = []
    for copy in ("AB".index(one) for one in row[2].split(" and ")):
        if number:
            places.append(130 + copy)
            give_names(disk, {places[-1]: HOMES[1][copy]})
            block = table(1, copy, [mapped(252, 8)], TOP + 1, place=places[-1])
        else:
            places.append(136 + 16 * copy)
            block = pack_super(superblock(seq=TOP + 1), (0, 255)[copy], places[-1])
        disk[places[-1]] = _torn(block)
    _look(by_kernel, disk, row[3], number, places)


@pytest.mark.parametrize("copy", [0, 1])
def test_what_a_torn_standin_may_hide(by_kernel: KernelLoad, copy: int) -> None:
    """A lone copy, one home gone: which torn stand-in of its name is held against it?"""

    def block(index: int, which: int, seq: int, uuid: UUID = SET) -> bytes:
        return table(index, which, [], seq, place=150, uuid=uuid)

    for first, accepted in (
        (bytes(512), True),
        (block(1, copy, TOP + 1), False),
        (block(1, copy, TOP), True),  # nothing newer
        (block(1, copy, TOP - 1), True),
        (block(1, 1 - copy, 1), False),  # it has another name
        (block(0, copy, 1), False),
        (block(1, copy, 1, OTHER), False),
        (reseal(block(1, copy, 1), 10**6, 150), False),
        (pack_super(superblock(seq=1), (0, 255)[copy], 150), False),
        (JUNK, False),
    ):
        disk = fresh([], seq=1)
        _table_state(disk, copy, "n")
        disk.bad.add(HOMES[1][1 - copy])
        give_names(disk, {150: HOMES[1][copy]})
        disk[150] = _torn(first)
        load = compare(by_kernel, disk)
        assert load.accepted is accepted, load.findings
        assert by_kernel(disk)[0] == (0 if accepted else errno.EIO)
        assert not accepted or disk[150] == bytes(BLOCK)
        # Of the copy that is gone it may be anything, and without a name of nothing.
        for names in ({150: HOMES[1][1 - copy]}, {151: HOMES[1][copy]}):
            again = fresh([], seq=1)
            _table_state(again, copy, "n")
            again.bad.add(HOMES[1][1 - copy])
            give_names(again, names)
            again[150] = _torn(first)
            assert compare(by_kernel, again).accepted


@pytest.mark.parametrize("copy", [0, 1])
def test_what_a_torn_refuge_may_hide(by_kernel: KernelLoad, copy: int) -> None:
    """Of a lone superblock."""
    home = (0, 255)[copy]
    for first, accepted in (
        (bytes(512), True),
        (pack_super(superblock(seq=TOP + 1), home, 152), False),
        (pack_super(superblock(seq=TOP), home, 152), True),
        (pack_super(superblock(seq=TOP + 1), 255 - home, 152), True),
        (pack_super(superblock(seq=TOP, uuid=OTHER), home, 152), False),
        (reseal(pack_super(superblock(), home, 152), 256, 152), False),
        (table(1, copy, [], 1, place=152), False),
        (JUNK, False),
    ):
        disk = fresh([], seq=1)
        _super_state(disk, copy, "n")
        disk.bad.add(255 - home)
        disk[152] = _torn(first)
        load = compare(by_kernel, disk)
        assert load.accepted is accepted, load.findings
        assert not accepted or by_kernel(disk)[0] == 0


@pytest.mark.parametrize("lower", [0, 1])
def test_the_lower_epoch_is_shown(by_kernel: KernelLoad, lower: int) -> None:
    """Superblocks that differ in the epoch alone, and that no place takes."""
    disk = fresh([mapped(0, 100)])
    homes = (0, 255)
    for home, number, seq in ((homes[lower], 3, 2), (homes[1 - lower], 4, 3)):
        epoch, before = Epoch(number, 100 + number), Epoch(number - 1, 99 + number)
        disk[home] = pack_super(superblock(seq=seq, epoch=epoch, before=before), home)
    disk.stuck |= {0, 255, *range(136, 255, 16)}
    for read_only in (False, True):
        code, result = by_kernel(copy_of(disk), accept_stale=read_only)
        assert (code, bool(result.no_raise)) == (0, not read_only), result.why
        assert list(result.epoch) == [3, 103]
    # What cannot be an epoch is not.
    disk[homes[lower]] = pack_super(superblock(), homes[lower])
    raw = bytearray(disk[homes[lower]])
    ffi.from_buffer("struct dmr_super *", raw).epoch.id = 0
    disk[homes[lower]] = reseal(bytes(raw), homes[lower], homes[lower])
    code, result = by_kernel(disk, accept_stale=True)
    assert (code, list(result.epoch)) == (0, [4, 104])


def test_the_page_has_every_combination() -> None:
    assert len(TABLE_ROWS) == 7
    assert len(SUPER_ROWS) == 7
    assert len(TORN_ROWS) == 10
