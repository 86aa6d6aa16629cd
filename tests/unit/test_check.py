# SPDX-License-Identifier: GPL-2.0-only
"""What a load would do, for every way in which an area can be damaged; and what mends it."""

import errno
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.areas import (
    AREA_BLOCKS,
    GOLDEN,
    HOMES,
    JUNK,
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

from dmremap.errors import Failure
from dmremap.ondisk import BLOCK, Entry, Load, SetState, SlotState, View
from dmremap.ondisk._format import ffi, lib
from dmremap.ondisk.check import examine
from dmremap.ondisk.findings import CODES, Finding, Severity
from dmremap.ondisk.layout import Tag, header, pack_super, pack_tag
from dmremap.ondisk.load import Overlay
from dmremap.ondisk.mend import mend

ENTRIES = [
    mapped(0, 100),
    mapped(1, 7, 3),
    Entry(2, SlotState.LOST, 8, 0),
    Entry(251, SlotState.BAD, 0, 0),
    mapped(252, 1000),
    mapped(600, 2047),
]
A1, B1 = HOMES[1]


def codes(load: Load) -> set[str]:
    return {one.code for one in load.findings}


def mended(disk: Disk) -> Load:
    """Mend, and see that the next load finds nothing to do and the same mappings."""
    before = examine(disk)
    assert not before.refusals
    done = mend(examine(disk), disk.write)
    after = examine(disk)
    assert not after.refusals
    assert after.severity is Severity.INFO
    assert mend(examine(disk), lambda _place, _data: pytest.fail("written twice")) == []
    assert after.counts == before.counts
    assert [one.place for one in done] == [number for number, _ in disk.log]
    return after


def seqs(disk: Disk, *places: int) -> list[int]:
    out = []
    for place in places:
        head = header(disk[place], lib.DMR_TYPE_TABLE, place) or header(
            disk[place], lib.DMR_TYPE_SUPER, place
        )
        assert head is not None
        out.append(head.seq)
    return out


def test_a_clean_set() -> None:
    load = examine(fresh(ENTRIES))
    assert load.accepted
    assert load.uuid == SET
    assert load.superblock == SB
    assert codes(load) == {"DMR-C103", "DMR-C104"}
    assert load.severity is Severity.INFO
    assert (load.counts.mapped, load.counts.lost, load.counts.bad) == (5, 1, 1)
    assert load.counts.free == SB.slots - 6
    assert mend(load, lambda _place, _data: pytest.fail("nothing to write")) == []


@pytest.mark.parametrize("how", ["bad", "junk", "zero", "other set", "swapped", "bit"])
@pytest.mark.parametrize("place", [0, 255, *(home for homes in HOMES for home in homes)])
def test_every_single_block(place: int, how: str) -> None:
    disk = fresh(ENTRIES)
    good = disk[place]
    match how:
        case "bad":
            disk.bad.add(place)
        case "junk":
            disk[place] = JUNK
        case "zero":
            disk[place] = bytes(BLOCK)
        case "other set" if place in (0, 255):
            # FORMATTING: a READY one at home would say that the area is the other set's.
            other = superblock(uuid=OTHER, seq=99, state=SetState.FORMATTING)
            disk[place] = pack_super(other, place)
        case "other set":
            raw = bytearray(good)
            head = ffi.from_buffer("struct dmr_header *", raw)
            lib.dmr_seal(head, lib.DMR_TYPE_TABLE, OTHER.bytes, 99, place, place)
            disk[place] = bytes(raw)
        case "swapped":
            disk[place] = disk[next(h for h in (*HOMES[0], *HOMES[1]) if h != place)]
        case "bit":
            raw = bytearray(good)
            raw[1000] ^= 4
            disk[place] = bytes(raw)
    load = examine(disk)
    assert load.accepted
    assert load.severity is Severity.REPAIRABLE
    assert "DMR-C201" in codes(load)
    missing = [one for one in load.findings if one.code == "DMR-C201"]
    assert [one.blocks for one in missing] == [(place,)]
    pair = (0, 255) if place in (0, 255) else next(homes for homes in HOMES if place in homes)
    twin = pair[1] if pair[0] == place else pair[0]
    base = seqs(disk, twin)[0]
    mended(disk)
    # The lesser copy first, both with two more.
    assert [number for number, _ in disk.log] == [place, twin]
    assert seqs(disk, place, twin) == [base + 2, base + 2]


@pytest.mark.parametrize(("newer", "first"), [(0, 1), (1, 0)], ids=["A is newer", "B is newer"])
def test_a_commit_that_was_cut(newer: int, first: int) -> None:
    disk = fresh(ENTRIES)
    disk[HOMES[1][newer]] = table(1, newer, [mapped(252, 1000), mapped(253, 1001)], 2)
    load = examine(disk)
    assert codes(load) >= {"DMR-C202"}
    assert load.counts.mapped == 6
    mended(disk)
    assert [number for number, _ in disk.log] == [HOMES[1][first], HOMES[1][1 - first]]
    assert seqs(disk, A1, B1) == [4, 4]


def gone(disk: Disk) -> None:
    disk[A1], disk[B1] = JUNK, bytes(BLOCK)


def contradiction(disk: Disk) -> None:
    disk[B1] = table(1, 1, [mapped(252, 5)])


def lone_with_bad_standin(disk: Disk) -> None:
    give_names(disk, {130: B1})
    disk[A1] = JUNK
    disk.bad.add(130)


def two_bad_refuges(disk: Disk) -> None:
    disk.bad.add(136)
    disk[248] = JUNK


def twice(disk: Disk) -> None:
    for copy in (0, 1):
        disk[HOMES[1][copy]] = table(1, copy, [mapped(252, 100)])


def both_supers(disk: Disk) -> None:
    disk[0] = JUNK
    disk.bad.add(255)


def supers_contradict(disk: Disk) -> None:
    disk[0] = pack_super(superblock(name="other"), 0)


def two_sets(disk: Disk) -> None:
    disk[0] = pack_super(superblock(uuid=OTHER), 0)


def formatting(disk: Disk) -> None:
    disk[0] = pack_super(superblock(state=SetState.FORMATTING), 0)
    disk[255] = bytes(BLOCK)


def feature(disk: Disk, at: int) -> None:
    for home in (0, 255):
        raw = bytearray(pack_super(superblock(seq=9), home))
        raw[at] = 2
        disk[home] = reseal(bytes(raw), home, home)


def superseded(disk: Disk) -> None:
    disk[0] = pack_super(superblock(seq=3, incompat=lib.DMR_INCOMPAT_SUPERSEDED), 0)


def version_1(disk: Disk) -> None:
    disk[255] = bytes(BLOCK)
    disk[0] = (GOLDEN / "super-1.bin").read_bytes().ljust(BLOCK, b"\0")


def truncated(disk: Disk) -> None:
    del disk.data[-1:]


@pytest.mark.parametrize(
    ("damage", "code", "number", "stale"),
    [
        (gone, "DMR-C306", errno.EIO, True),
        (lone_with_bad_standin, "DMR-C307", errno.EIO, True),
        (two_bad_refuges, "DMR-C308", errno.EIO, True),
        (contradiction, "DMR-C309", errno.EINVAL, False),
        (twice, "DMR-C310", errno.EINVAL, False),
        (both_supers, "DMR-C301", errno.ENODATA, False),
        (supers_contradict, "DMR-C302", errno.EINVAL, False),
        (two_sets, "DMR-C303", errno.EINVAL, False),
        (lambda disk: feature(disk, 80), "DMR-C304", errno.EINVAL, False),
        (formatting, "DMR-C305", errno.ENODATA, False),
        (truncated, "DMR-C311", errno.EINVAL, False),
        (lambda disk: feature(disk, 72), "DMR-C312", errno.EINVAL, False),
        (superseded, "DMR-C314", errno.EINVAL, False),
        (version_1, "DMR-C315", errno.EINVAL, False),
    ],
)
def test_what_no_load_accepts(
    damage: Callable[[Disk], None], code: str, number: int, stale: bool
) -> None:
    disk = fresh(ENTRIES)
    damage(disk)
    load = examine(disk)
    assert not load.accepted
    assert load.head.ours
    assert load.severity is Severity.DAMAGED
    assert code in codes(load)
    assert (load.refusals[0].code, load.refusals[0].errno) == (code, number)
    assert load.stale is stale
    with pytest.raises(ValueError, match="refused"):
        mend(load, disk.write)
    assert disk.log == []


def test_a_newer_superblock_is_not_passed_over() -> None:
    disk = fresh()
    raw = bytearray(pack_super(superblock(seq=3), 0))
    raw[80] = 2
    disk[0] = reseal(bytes(raw), 0, 0)
    load = examine(disk)
    assert [one.code for one in load.refusals] == ["DMR-C304"]


def test_an_unknown_compatible_feature_is_ignored() -> None:
    disk = fresh()
    feature(disk, 64)
    load = examine(disk)
    assert load.accepted
    assert codes(load) == {"DMR-C106"}


@pytest.mark.parametrize("copy", [0, 1])
@pytest.mark.parametrize("home", ["old", "bad", "junk"])
def test_a_copy_on_a_standin(copy: int, home: str) -> None:
    disk = fresh(ENTRIES)
    give_names(disk, {130: HOMES[1][copy]})
    new = [mapped(252, 1000), mapped(253, 1001)]
    disk[HOMES[1][1 - copy]] = table(1, 1 - copy, new, 2)
    disk[130] = table(1, copy, new, 2, place=130)
    if home == "bad":
        disk.bad.add(HOMES[1][copy])
    elif home == "junk":
        disk[HOMES[1][copy]] = JUNK
    load = examine(disk)
    assert load.severity is Severity.INFO
    assert "DMR-C101" in codes(load)
    assert load.away == 1
    assert load.counts.mapped == 6
    # It stays where it lives when both are written again.
    disk[HOMES[1][1 - copy]] = JUNK
    mended(disk)
    assert [number for number, _ in disk.log] == [HOMES[1][1 - copy], 130]


@pytest.mark.parametrize("copy", [0, 1])
def test_a_copy_does_not_go_home_while_its_standin_can_be_read(copy: int) -> None:
    disk = fresh(ENTRIES, seq=3)
    give_names(disk, {131: HOMES[1][copy]})
    disk[HOMES[1][copy]] = JUNK
    disk[131] = table(1, copy, [], 2, place=131)  # a commit was cut, or its write was
    load = examine(disk)
    assert load.away == 1
    mended(disk)
    assert [number for number, _ in disk.log] == [131, HOMES[1][1 - copy]]


@pytest.mark.parametrize("home", [0, 255])
def test_a_lone_superblock_and_a_bad_standin(home: int) -> None:
    disk = fresh(ENTRIES)
    disk[home] = JUNK
    assert examine(disk).accepted
    disk.bad.add(140)  # a table's, and never used
    assert examine(disk).accepted
    disk.bad.add(152)
    load = examine(disk)
    assert [(one.code, one.errno) for one in load.refusals] == [("DMR-C307", errno.EIO)]
    assert load.stale


def test_a_superblock_on_standins_only() -> None:
    disk = fresh()
    newest = superblock(seq=8, name="renamed")
    disk[136], disk[200] = pack_super(newest, 255, 136), pack_super(newest, 0, 200)
    load = examine(disk)
    assert load.superblock == newest
    assert load.severity is Severity.INFO
    assert load.blocks[0].places == [200, 136]
    # On one that is a table's it counts for nothing.
    disk = fresh()
    disk[128], disk[201] = pack_super(newest, 255, 128), pack_super(newest, 0, 201)
    assert examine(disk).superblock == SB


def test_what_was_never_used_hides_nothing() -> None:
    """However many of them, and with what is left of anything else."""
    disk = fresh(ENTRIES)
    disk.bad |= {130, 131, 254}
    disk[132], disk[133] = JUNK, JUNK[:512] + bytes(BLOCK - 512)
    disk[134] = table(1, 0, [], 99, place=134)
    disk[A1] = JUNK
    load = examine(disk)
    assert load.accepted
    assert {
        one.code for one in load.findings if one.blocks and one.blocks[0] in range(130, 255)
    } == {
        "DMR-C108",
        "DMR-C111",
    }
    mended(disk)
    assert [number for number, _ in disk.log] == [A1, B1]


def test_one_refuge_that_cannot_be_read() -> None:
    disk = fresh(ENTRIES)
    disk.bad.add(136)
    disk.stuck.add(136)
    done = mend(examine(disk), disk.write)
    # It may hide a version of either copy, which both outrank from now on.
    assert [one.place for one in done] == [0, 255]
    assert seqs(disk, 0, 255) == [4, 4]
    disk.stuck.clear()
    disk.log.clear()
    mended(disk)
    assert [number for number, _ in disk.log] == [0, 255, 136]


def test_one_torn_standin_is_erased_last() -> None:
    disk = fresh(ENTRIES)
    give_names(disk, {140: A1})
    disk[140] = JUNK
    load = examine(disk)
    assert codes(load) >= {"DMR-C203"}
    assert load.severity is Severity.REPAIRABLE
    disk[A1] = table(1, 0, [mapped(252, 1000)], 2)
    mended(disk)
    assert [number for number, _ in disk.log] == [B1, A1, 140]
    assert disk[140] == bytes(BLOCK)


def test_a_tag_on_a_standin_is_torn_too() -> None:
    disk = fresh()
    give_names(disk, {140: A1})
    disk[140] = reseal(pack_tag(Tag(SET, "x", 4096, 2048, 512), 1), 1, 140)
    assert "DMR-C203" in codes(examine(disk))


def test_what_cannot_be_read_is_outranked() -> None:
    """Whether it can be erased or not: it may hide a version of the copy that it is named for."""
    disk = fresh(ENTRIES)
    give_names(disk, {140: A1})
    disk.bad.add(140)
    disk.stuck.add(140)
    disk[B1] = JUNK
    assert not examine(disk).accepted  # nobody knows whether A is the newest
    disk[B1] = table(1, 1, [mapped(252, 1000)], 5)
    done = mend(examine(disk), disk.write)
    assert [one.place for one in done] == [A1, B1]
    assert seqs(disk, A1, B1) == [7, 7]
    # With equal copies, too.
    assert [one.place for one in mend(examine(disk), disk.write)] == [A1, B1]
    disk.stuck.clear()
    assert [one.place for one in mend(examine(disk), disk.write)] == [A1, B1, 140]


@pytest.mark.parametrize("torn", [False, True])
def test_a_standin_is_for_one_copy(torn: bool) -> None:
    """What it holds for another one counts for nothing; torn it may be anything of its own."""
    disk = fresh(ENTRIES)
    give_names(disk, {140: A1})
    disk[140] = table(2, 0, [], 9, place=140)
    if torn:
        disk[140] = disk[140][:2048] + JUNK[2048:]
    load = examine(disk)
    assert load.accepted
    assert load.counts.mapped == 5
    assert load.blocks[2].unseen == [torn, False]


def test_a_place_that_cannot_be_written() -> None:
    disk = fresh(ENTRIES, seq=2)
    give_names(disk, {132: HOMES[0][1], 135: A1})
    disk.bad |= {A1, 131}
    disk.stuck |= {A1, 135, 128}
    disk[132] = table(0, 1, ENTRIES[:4], 1, place=132)  # older than its home, and named
    done = mend(examine(disk), disk.write)
    # First the one that has its name, then those that were never used, each with a name first.
    assert [one.place for one in done] == [0, 255, 0, 255, 129, B1]
    assert seqs(disk, 0, 255) == [4, 4]
    load = examine(disk)
    assert load.severity is Severity.INFO
    assert load.away == 1
    assert load.names == {132: HOMES[0][1], 135: A1, 128: A1, 129: A1}
    for log, stuck in enumerate((disk.log[:1], disk.log[:2])):
        # The name is durable in both superblocks before the stand-in is written.
        again = fresh(ENTRIES, seq=2)
        again.stuck |= {A1, *((255, *range(136, 255, 16)) if log else (0, *range(136, 255, 16)))}
        again.bad.add(A1)
        with pytest.raises(Failure, match="cannot be written anywhere"):
            mend(examine(again), again.write)
        assert [place for place, _ in again.log] == [0][:log], stuck
    disk = fresh(ENTRIES)
    disk.bad.add(A1)
    disk.stuck |= {A1, 128, 129, 130}
    with pytest.raises(Failure, match="128, 129, 130"):
        mend(examine(disk), disk.write)
    assert {place for place, _ in disk.log} == {0, 255}


def test_stand_ins_that_refuse_for_good_are_not_all_that_is_tried() -> None:
    disk = fresh(ENTRIES)
    give_names(disk, {128: A1, 129: A1, 130: A1})
    disk.bad.add(A1)
    disk.stuck |= {A1, 128, 129, 130}
    done = [one.place for one in mend(examine(disk), disk.write)]
    assert done == [0, 255, 131, B1]


def test_neighbours_are_not_the_two_copies_of_a_block() -> None:
    disk = fresh(ENTRIES)
    disk[A1] = table(1, 0, ENTRIES[4:5], 2)
    disk.stuck |= {0, 255, A1, B1}
    done = [one.place for one in mend(examine(disk), disk.write)]
    assert done == [136, 248, 254, 136, 248, 128]
    assert examine(disk).blocks[2].places == [128, 254]


def test_a_superblock_that_cannot_be_written() -> None:
    disk = fresh(ENTRIES)
    disk.bad.add(0)
    disk.stuck |= {0, 136}
    disk[152] = JUNK[:10].ljust(BLOCK, b"\0")  # somebody was there
    load = examine(disk)
    assert not load.accepted  # it may have hidden a copy
    disk[152] = table(0, 0, place=152)
    mended(disk)
    assert [number for number, _ in disk.log] == [168, 255]


def test_a_move_that_was_cut() -> None:
    entries = [mapped(3, 50, 1), mapped(300, 50, 2), mapped(301, 51, 5), mapped(4, 51, 4)]
    disk = fresh(entries)
    load = examine(disk)
    assert "DMR-C204" in codes(load)
    assert (load.counts.mapped, load.counts.bad) == (2, 2)
    done = mend(examine(disk), disk.write)
    # One commit: copy A, then copy B.
    assert [one.place for one in done] == list(HOMES[0])
    assert seqs(disk, *HOMES[0], *HOMES[1]) == [2, 2, 1, 1]
    after = examine(disk)
    assert after.severity is Severity.INFO
    assert (after.counts.mapped, after.counts.bad) == (2, 2)


def test_the_loser_of_a_move_stays_until_all_has_two_copies() -> None:
    """Were it BAD at once, the winner's only copy might be lost before it has a second one."""
    entries = [mapped(3, 50, 1), mapped(300, 50, 2)]
    disk = fresh(entries, seq=4)
    disk[HOMES[0][1]] = table(0, 1, [], 3)
    disk[HOMES[1][1]] = table(1, 1, [], 3)
    mend(examine(disk), disk.write)
    whole = disk.log
    for cut in range(len(whole)):
        again = fresh(entries, seq=4)
        again[HOMES[0][1]] = table(0, 1, [], 3)
        again[HOMES[1][1]] = table(1, 1, [], 3)
        for place, block in whole[:cut]:
            again[place] = block
        for lost in HOMES[1] if cut < 4 else ():
            broken = Disk()
            broken.data = bytearray(again.data)
            broken[lost] = JUNK
            assert examine(broken).counts.mapped == 1, (cut, lost)
        assert (examine(again).counts.mapped, examine(again).counts.bad) == (1, 1)


def test_a_move_that_was_cut_in_an_unequal_block() -> None:
    disk = fresh([mapped(3, 50, 1), mapped(300, 50, 2)])
    disk[HOMES[0][1]] = table(0, 1, [], 0 + 9)
    disk[HOMES[0][0]] = table(0, 0, [mapped(3, 50, 1)], 10)
    done = mend(examine(disk), disk.write)
    assert [(one.place, one.sequence) for one in done] == [
        (HOMES[0][1], 12),
        (HOMES[0][0], 12),
        (HOMES[0][0], 13),
        (HOMES[0][1], 13),
    ]


def test_three_entries_of_one_unit() -> None:
    disk = fresh([mapped(0, 50, 1), mapped(252, 50, 2), mapped(600, 50, 1)])
    load = examine(disk)
    assert load.accepted
    assert (load.counts.mapped, load.counts.bad) == (1, 2)


def test_impossible_entries_are_no_copy() -> None:
    disk = fresh(ENTRIES)
    disk[A1] = table(1, 0, [mapped(252, SB.units)], 9)
    load = examine(disk)
    assert load.accepted
    found = next(one for one in load.findings if one.code == "DMR-C201")
    assert "unit lies outside of main" in found.message
    mended(disk)
    assert seqs(disk, A1, B1) == [3, 3]


def test_a_table_block_of_another_version_is_no_copy() -> None:
    disk = fresh(ENTRIES)
    raw = bytearray(disk[A1])
    raw[14] = 1
    view = ffi.from_buffer("struct dmr_header *", raw)
    view.crc = lib.dmr_h32(lib.dmr_block_crc(view, A1))
    disk[A1] = bytes(raw)
    assert "DMR-C201" in codes(examine(disk))


def test_standins_that_say_nothing() -> None:
    disk = fresh(ENTRIES)
    give_names(disk, {131: A1, 134: A1, 135: B1})
    disk[131] = table(1, 0, [], 1, place=131, uuid=OTHER)
    disk[132] = reseal(table(1, 0), 270, 132)  # a slot is there
    disk[133] = pack_super(superblock(uuid=OTHER), 0, 133)
    disk[134] = table(1, 0, [mapped(252, SB.units)], 9, place=134)
    disk[135] = table(1, 1, [], 0 + 1, place=135)
    disk[HOMES[1][0]] = table(1, 0, ENTRIES[4:5], 2)
    disk[HOMES[1][1]] = table(1, 1, ENTRIES[4:5], 2)
    disk[16] = disk[17] = disk[127] = JUNK
    disk[1] = reseal(table(1, 0), 1, 1)
    load = examine(disk)
    assert load.severity is Severity.INFO
    by_block = {one.blocks[0]: one.code for one in load.findings if one.blocks}
    assert by_block == {
        131: "DMR-C102",
        132: "DMR-C108",
        133: "DMR-C102",
        134: "DMR-C108",
        135: "DMR-C107",
        17: "DMR-C109",
    }


def test_equal_sequences_are_told_apart_by_what_they_say_only() -> None:
    disk = fresh(ENTRIES)
    give_names(disk, {131: A1, 133: B1, 134: A1})
    disk[131] = table(1, 0, ENTRIES[4:5], 1, place=131)
    assert examine(disk).accepted
    # A home may hold what it refused to write: the copy lives on its stand-in, the last of several.
    assert examine(disk).blocks[2].places == [131, B1]
    disk[134] = table(1, 0, ENTRIES[4:5], 1, place=134)
    load = examine(disk)
    assert load.blocks[2].places == [134, B1]
    assert load.blocks[2].older == [131]
    disk[152] = reseal(disk[255], 255, 152)
    disk[168] = reseal(disk[0], 0, 168)
    assert examine(disk).blocks[0].places == [168, 152]
    # The one that it has tried last: copy A looks from below, copy B from above.
    disk[184], disk[200] = reseal(disk[0], 0, 184), reseal(disk[255], 255, 200)
    assert examine(disk).blocks[0].places == [184, 152]
    disk[134] = bytes(BLOCK)
    disk[131] = table(1, 0, [mapped(252, 9)], 1, place=131)
    assert [one.code for one in examine(disk).refusals] == ["DMR-C309"]
    # A higher one ends the dispute.
    disk[133] = table(1, 1, [mapped(252, 77)], 2, place=133)
    assert examine(disk).accepted


def test_formatting_counts_only_without_ready() -> None:
    disk = fresh()
    disk[0] = pack_super(superblock(state=SetState.FORMATTING, seq=99), 0)
    load = examine(disk)
    assert load.superblock == SB
    assert "DMR-C201" in codes(load)
    mended(disk)
    assert seqs(disk, 0, 255) == [4, 4]


def test_two_sets_of_which_one_is_meant() -> None:
    disk = fresh()
    disk[200] = pack_super(superblock(uuid=OTHER, seq=99), 0, 200)
    for uuid in (None, SET):
        load = examine(disk, uuid=uuid)
        assert load.uuid == SET
        assert load.accepted
        assert codes(load) == {"DMR-C102"}
    assert [one.code for one in examine(disk, uuid=OTHER).refusals] == ["DMR-C303"]
    nobody = superblock().uuid.int ^ 1
    load = examine(disk, uuid=type(SET)(int=nobody))
    assert load.refusals[0].errno == errno.ENODATA


def test_what_is_not_ours() -> None:
    for disk in (Disk(), Disk(3)):
        load = examine(disk)
        assert not load.head.ours
        if disk.size == AREA_BLOCKS * BLOCK:
            assert load.findings == []
    disk = Disk()
    disk[0] = JUNK
    assert examine(disk).findings == []
    disk.bad |= {0, 255}
    assert codes(examine(disk)) == {"DMR-C301"}


def test_a_table_without_a_superblock_is_ours() -> None:
    disk = fresh()
    disk[0] = disk[255] = bytes(BLOCK)
    load = examine(disk)
    assert load.head.ours
    assert load.uuid == SET
    assert codes(load) == {"DMR-C301"}


def test_a_damaged_superblock_alone_is_ours() -> None:
    disk = Disk()
    raw = bytearray(pack_super(SB, 0))
    raw[700] ^= 1
    disk[0] = bytes(raw)
    assert examine(disk).head.ours


def test_a_damaged_tag_of_a_main_is_no_spare() -> None:
    disk = Disk()
    tag = Tag(SET, "attic", 1 << 20, 2048, 512)
    disk[1] = pack_tag(tag, 1)
    disk[255] = pack_tag(tag, 255)[:512] + JUNK[512:]
    load = examine(disk)
    assert (load.head.ours, load.refusals) == (False, [])


def test_an_overlay_shows_what_would_be() -> None:
    disk = fresh(ENTRIES)
    disk[A1] = JUNK
    done = mend(examine(disk), lambda _place, _data: True)
    over = Overlay(View(disk, 0), {one.place: one.data for one in done})
    assert examine(over).severity is Severity.INFO
    assert examine(disk).severity is Severity.REPAIRABLE


def test_an_area_behind_the_start() -> None:
    disk = fresh(ENTRIES)
    moved = Disk(AREA_BLOCKS + 2)
    moved.data[2 * BLOCK :] = disk.data
    assert examine(moved, 16).counts == examine(disk).counts
    assert not examine(moved).accepted


def test_several_segments() -> None:
    segment = SB.segments[0]
    half = replace(segment, blocks=segment.blocks // 2, slots=252, table_blocks=1)
    rest = replace(half, start=half.start + half.blocks, slots=100)
    sb = superblock(segments=(half, rest))
    disk = Disk()
    for home in (0, 255):
        disk[home] = pack_super(sb, home)
    from dmremap.ondisk.layout import pack_table

    for one, first, entries in ((half, 0, [mapped(251, 1)]), (rest, 252, [mapped(351, 2)])):
        for home in (one.copy_a, one.copy_b):
            disk[home] = pack_table(SET, entries, first, home, 1)
    load = examine(disk)
    assert load.accepted
    assert (load.counts.slots, load.counts.mapped) == (352, 2)
    give_names(disk, {140: rest.copy_b})
    disk[140] = reseal(disk[rest.copy_b], rest.copy_b, 140)
    disk[rest.copy_b] = JUNK
    load = examine(disk)
    assert load.away == 1
    assert load.severity is Severity.INFO


CHOICES = st.sampled_from(["good", "old", "new", "none", "differs"])


@given(
    a=CHOICES,
    b=CHOICES,
    away=st.sampled_from(["none", "old", "new", "same A", "same B"]),
    bad=st.sampled_from(["", "A", "B", "AB"]),
)
@settings(max_examples=300, deadline=None)
def test_every_mixture_is_mended_or_refused(a: str, b: str, away: str, bad: str) -> None:
    """Whatever a table block looks like, a load that is accepted ends with two equal copies."""
    disk = fresh(ENTRIES, seq=5)
    give_names(disk, {128: HOMES[1][away in ("new", "same B")], 140: A1, 141: B1})
    for copy, how in enumerate((a, b)):
        match how:
            case "old":
                disk[HOMES[1][copy]] = table(1, copy, [], 4)
            case "new":
                disk[HOMES[1][copy]] = table(1, copy, [mapped(253, 5)], 6)
            case "none":
                disk.bad.add(HOMES[1][copy])
            case "differs":
                disk[HOMES[1][copy]] = table(1, copy, [mapped(254, 6)], 5)
    match away:
        case "old":
            disk[128] = table(1, 0, [], 4, place=128)
        case "new":
            disk[128] = table(1, 1, [mapped(253, 5)], 6, place=128)
        case "same A" | "same B":
            copy = int(away[-1] == "B")
            disk[128] = table(1, copy, [mapped(252, 1000)], 5, place=128)
    disk.bad |= {140 + "AB".index(copy) for copy in bad}
    load = examine(disk)
    block = load.blocks[2]
    known = any(block.seqs[copy] and "AB"[copy] not in bad for copy in (0, 1))
    refused = block.ambiguous or not known
    assert load.accepted is not refused
    if refused:
        assert load.severity is Severity.DAMAGED
        return
    top = block.seq
    unequal = block.seqs[0] != block.seqs[1] or bool(bad)
    after = mended(disk)
    assert after.blocks[2].seqs == [top + 2 * unequal] * 2
    assert after.blocks[2].body == block.body


def test_findings_have_codes() -> None:
    assert Finding("DMR-C201", "x").severity is Severity.REPAIRABLE
    with pytest.raises(ValueError, match="DMR-C999"):
        Finding("DMR-C999", "x")
    for name, code in CODES.items():
        assert name[:5] == "DMR-C"
        assert name[5] in "123"
        assert code.title
        assert code.meaning.endswith(".")
        assert code.next_step.endswith(".")


@pytest.mark.parametrize(
    ("bad", "reads"),
    [
        (set(), 1),
        ({0}, 1 + 17 + 16),
        ({136}, 1 + 17 + 16),
        ({0, 15}, 1 + 17 + 16),
        ({1, 255}, 1 + 17 + 32),
        ({256}, 1 + 17),
        (set(range(257)), 1 + 17 + 256),
    ],
)
def test_where_some_cannot_be_read_most_are_read_together(bad: set[int], reads: int) -> None:
    disk = fresh()
    whole = list(View(disk, 0).first)
    worn = Worn(disk, bad)
    found = View(worn, 0).first
    assert found == [None if place in bad else block for place, block in enumerate(whole)]
    assert worn.reads == reads


def test_an_area_without_a_block_is_not_read() -> None:
    worn = Worn(Disk(0), set())
    assert View(worn, 0).first == []
    assert worn.reads == 0


class Worn:
    """A source of which some blocks cannot be read, and that counts."""

    def __init__(self, disk: Disk, bad: set[int]) -> None:
        self.disk, self.bad, self.reads = disk, bad, 0

    @property
    def size(self) -> int:
        return self.disk.size

    def read(self, offset: int, length: int) -> bytes | None:
        self.reads += 1
        touched = range(offset // BLOCK, (offset + length) // BLOCK)
        return None if self.bad.intersection(touched) else self.disk.read(offset, length)
