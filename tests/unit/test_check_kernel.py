# SPDX-License-Identifier: GPL-2.0-only
"""The check is the kernel's load: both are given the same damaged areas and must agree.

What is compared is whether the load is accepted, its errno, the counts, the order of the writes,
and every byte of the area afterwards.
"""

import errno
from collections.abc import Callable
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
from dmremap.ondisk.layout import NO_EPOCH, SUPER_HOMES, pack_super
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
            place = random.randrange(128, 140)
            disk[place] = pack_super(sb, home, place)


def _torn(block: bytes, first: bytes | None = None) -> bytes:
    """Return what is left of a write that was cut: its first sector, or another one."""
    return (block[:512] if first is None else first) + JUNK[512:]


def _damage_standin(random: Random, disk: Disk) -> None:
    place = random.randrange(128, 142)
    match random.randrange(8):
        case 0:
            disk.bad.add(place)
        case 4 | 5 | 6 | 7:
            index, copy = random.randrange(3), random.randrange(2)
            block = table(index, copy, [], random.randrange(4, 9), place=place)
            if random.random() < 0.3:
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
        for _ in range(random.randrange(5)):
            _damage_table(random, disk, every[index := random.randrange(3)], index)
        for _ in range(random.choice([0, 0, 0, 1, 2])):
            _damage_super(random, disk)
        for _ in range(random.choice([0, 0, 0, 1, 2])):
            _damage_standin(random, disk)
        if random.random() < 0.3:
            places = [0, 255, *range(128, 142), *(home for homes in HOMES for home in homes)]
            disk.stuck = set(random.sample(places, random.randrange(1, 6)))
        load = compare(by_kernel, disk)
        seen["accepted" if load.accepted else "refused"] += 1
    assert min(seen.values()) > 20, seen


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


@pytest.mark.parametrize("bad", [0, 1, 2])
@pytest.mark.parametrize(
    ("row", "put", "homes"),
    [(row, _table_state, HOMES[1]) for row in TABLE_ROWS]
    + [(row, _super_state, (0, 255)) for row in SUPER_ROWS],
    ids=lambda value: ", ".join(value[:2]) if isinstance(value, list) else "",
)
def test_the_page_says_what_the_kernel_does(
    by_kernel: KernelLoad,
    row: list[str],
    put: Callable[[Disk, int, str], None],
    homes: tuple[int, int],
    bad: int,
) -> None:
    assert len(row) == 5
    for a in row[0].split(", or "):
        for b in row[1].split(", or "):
            disk = fresh([], seq=1)
            put(disk, 0, a)
            put(disk, 1, b)
            for place in (140, 141)[:bad]:
                disk[place] = JUNK
            load = compare(by_kernel, disk)
            code, result = by_kernel(disk)
            places = list(result.place[: result.writes])
            match row[2 + bad].split(", "):
                case ["as it is"]:
                    assert (code, places) == (0, [140][:bad])
                case ["refused", number]:
                    assert errno.errorcode[code] == number
                    assert places == []
                case [first, second, "n + 2"]:
                    order = [first, second.removeprefix("then ")]
                    assert (code, places) == (
                        0,
                        [homes["AB".index(c)] for c in order] + [140][:bad],
                    )
                    block = examine(disk).blocks[2 if homes == HOMES[1] else 0]
                    assert block.seqs == [TOP + 2] * 2
                case other:
                    pytest.fail(f"not understood: {other} ({load.findings})")


TORN_ROWS = _rows("A torn stand-in that names a copy")


@pytest.mark.parametrize("bad", [0, 1])
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("row", TORN_ROWS, ids=lambda row: ", ".join(row[:3]))
def test_the_page_says_what_torn_standins_do(
    by_kernel: KernelLoad, row: list[str], number: int, bad: int
) -> None:
    """For a table block and for the superblock."""
    put, homes = (_table_state, HOMES[1]) if number else (_super_state, (0, 255))
    disk = fresh([], seq=1)
    put(disk, 0, row[0])
    put(disk, 1, row[1])
    places = []
    for i, copy in enumerate(row[2].split(" and ")):
        places.append(130 + i)
        c = "AB".index(copy)
        block = (
            table(1, c, [mapped(252, 8)], TOP + 1, place=places[-1])
            if number
            else pack_super(superblock(seq=TOP + 1), homes[c], places[-1])
        )
        disk[places[-1]] = _torn(block)
    if bad:
        places.append(140)
        disk[140] = JUNK
    load = compare(by_kernel, disk)
    code, result = by_kernel(disk)
    done = list(result.place[: result.writes])
    match row[3 + bad].split(", "):
        case ["as it is"]:
            assert (code, done) == (0, places), load.findings
        case ["refused", word]:
            assert errno.errorcode[code] == word
            assert done == []
        case [first, second, "n + 2"]:
            order = [first, second.removeprefix("then ")]
            assert (code, done) == (0, [homes["AB".index(c)] for c in order] + places)
            assert examine(disk).blocks[2 * number].seqs == [TOP + 2] * 2
        case other:
            pytest.fail(f"not understood: {other} ({load.findings})")


@pytest.mark.parametrize("copy", [0, 1])
def test_what_a_torn_standin_may_hide(by_kernel: KernelLoad, copy: int) -> None:
    """A lone copy, one home gone: which torn stand-in is held against it?"""

    def block(index: int, which: int, seq: int, uuid: UUID = SET) -> bytes:
        return table(index, which, [], seq, place=150, uuid=uuid)

    sb = pack_super(superblock(seq=99), (0, 255)[copy], 150)
    for first, accepted in (
        (bytes(512), True),
        (block(1, 1 - copy, 99), True),  # the copy that is gone
        (block(0, copy, 99), True),  # another block's
        (sb, True),
        (block(1, copy, TOP + 1), False),
        (block(1, copy, TOP), True),  # nothing newer
        (block(1, copy, TOP - 1), True),
        (block(1, 1 - copy, 99, OTHER), False),
        (reseal(block(1, 1 - copy, 99), 10**6, 150), False),  # no such home
        (reseal(block(1, 1 - copy, 99), 0, 150), False),  # the superblock's, and says table
        (reseal(sb, HOMES[0][0], 150), False),  # a table block's, and says superblock
        (JUNK, False),
    ):
        disk = fresh([], seq=1)
        _table_state(disk, copy, "n")
        disk.bad.add(HOMES[1][1 - copy])
        disk[150] = _torn(first)
        load = compare(by_kernel, disk)
        assert load.accepted is accepted, load.findings
        assert by_kernel(disk)[0] == (0 if accepted else errno.EIO)
        assert not accepted or disk[150] == bytes(BLOCK)


def test_the_page_has_every_combination() -> None:
    assert len(TABLE_ROWS) == 7
    assert len(SUPER_ROWS) == 7
    assert len(TORN_ROWS) == 10
