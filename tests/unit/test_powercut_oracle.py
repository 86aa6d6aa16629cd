# SPDX-License-Identifier: GPL-2.0-only
"""The power-cut test's judge notices what it is there for: doctored states and logs fail."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from guest.lib import pattern
from powercut import judge as judging
from powercut.judge import Judge, checked, not_forced
from powercut.log import SECTOR, Entry, Flush, Mark, Write
from powercut.oracle import FIRST, Oracle, generation
from powercut.reader import Copies, Refused, copies, load

from dmremap.ondisk import BLOCK, HEAD_BLOCKS, SetState, SlotState, Superblock, segment_for
from dmremap.ondisk import Entry as Slot
from dmremap.ondisk._format import ffi, lib
from dmremap.ondisk.layout import pack_empty_table, pack_super, pack_table

SET = UUID("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0")
MAIN = pattern(0, 256, FIRST)
BLOCKS = HEAD_BLOCKS + 40
SIZE = BLOCKS * BLOCK
SEGMENT = segment_for(BLOCKS, SECTOR)
assert SEGMENT is not None
HOMES = (SEGMENT.copy_a, SEGMENT.copy_b)
SLOT = SEGMENT.data * BLOCK
SUPER = Superblock(
    uuid=SET,
    name="",
    state=SetState.READY,
    unit=SECTOR,
    area_blocks=BLOCKS,
    segments=(SEGMENT,),
    tagged=False,
    main_sectors=256,
    data_start=0,
    data_sectors=256,
)


def mapped(slot: int, unit: int, number: int = 0) -> Slot:
    return Slot(slot, SlotState.MAPPED, unit, number)


def table(home: int, seq: int, *slots: Slot) -> bytes:
    return pack_table(SET, list(slots), 0, home, seq)


def spare(
    *slots: Slot, content: dict[int, bytes] | None = None, names: dict[int, int] | None = None
) -> bytearray:
    """Return a spare with these mappings, with this in its slots, and names of stand-ins."""
    image = bytearray(SIZE)
    superblock = replace(SUPER, standins=tuple((names or {}).items()))
    blocks = {home: pack_super(superblock, home) for home in (0, 255)}
    for index in range(SUPER.segments[0].table_blocks):
        for first in HOMES:
            blocks[first + index] = pack_empty_table(SET, first + index)
    blocks |= {home: table(home, 2, *slots) for home in HOMES}
    for block, data in blocks.items():
        image[block * BLOCK : (block + 1) * BLOCK] = data
    for slot, data in (content or {}).items():
        image[SLOT + slot * SECTOR : SLOT + slot * SECTOR + len(data)] = data
    return image


def told(*marks: str) -> Oracle:
    oracle = Oracle()
    oracle.follow([Mark(text) for text in marks])
    return oracle


REMAPPED = ("bad 9", "ready", "begin 8 2 5", "ack 8 2 5 0")


def problems(image: bytearray, main: bytes = MAIN) -> list[str]:
    return told(*REMAPPED).check(load(image), bytearray(main), image)


def test_an_honoured_promise_is_no_problem() -> None:
    assert problems(spare(mapped(3, 9), content={3: pattern(9, 1, 5)})) == []


def test_a_lost_mapping_is_noticed() -> None:
    assert problems(spare()) == [
        "the mapping of sector 9 is lost",
        "sector 9 reads as generation 1, promised 5 to 5",
    ]
    # Even where main happens to hold the data.
    healed = MAIN[: 9 * SECTOR] + pattern(9, 1, 5) + MAIN[10 * SECTOR :]
    assert problems(spare(), healed) == ["the mapping of sector 9 is lost"]


@pytest.mark.parametrize(
    "data",
    [bytes(SECTOR), pattern(9, 1, 1), pattern(9, 1, 6), pattern(8, 1, 5), b"\1" * SECTOR],
    ids=["nothing", "old", "never written", "another sector's", "garbage"],
)
def test_wrong_data_in_a_slot_is_noticed(data: bytes) -> None:
    assert len(problems(spare(mapped(3, 9), content={3: data}))) == 1


def test_a_torn_slot_is_noticed() -> None:
    data = pattern(9, 1, 5)[:256] + bytes(256)
    assert len(problems(spare(mapped(3, 9), content={3: data}))) == 1


def test_a_mapping_that_nobody_asked_for_is_judged_too() -> None:
    content = {3: pattern(9, 1, 5), 4: pattern(200, 1, 5)}
    assert problems(spare(mapped(3, 9), mapped(4, 200), content=content)) == [
        "sector 200 reads as generation 5, promised 1 to 1"
    ]


def test_two_live_slots_of_a_unit_are_refused_unless_one_is_newer() -> None:
    with pytest.raises(Refused, match="two live slots"):
        load(spare(mapped(3, 9), mapped(4, 9)))
    assert load(spare(mapped(3, 9, 1), mapped(4, 9))).lookup == {9: mapped(3, 9, 1)}
    assert load(spare(mapped(3, 9, 1), mapped(4, 9))).shadowed == (4,)


def test_no_set_is_refused() -> None:
    with pytest.raises(Refused, match="no set"):
        load(bytes(SIZE))
    image = spare()
    for home in HOMES:
        image[home * BLOCK] ^= 1
    with pytest.raises(Refused, match="no copy is left"):
        load(image)


def test_copies_that_differ_and_stand_ins_are_counted() -> None:
    image = spare(mapped(3, 9))
    assert copies(image, SUPER) == Copies(0, 0, {9: (0, True)})
    image[HOMES[0] * BLOCK : (HOMES[0] + 1) * BLOCK] = table(HOMES[0], 3)
    assert copies(image, SUPER) == Copies(1, 0, {})
    assert load(image).lookup == {}
    standin = bytearray(table(HOMES[1], 4, mapped(7, 8)))
    lib.dmr_seal(
        ffi.from_buffer("char[]", standin), lib.DMR_TYPE_TABLE, SET.bytes, 4, HOMES[1], 130
    )
    image[130 * BLOCK : 131 * BLOCK] = standin
    # Without a name it is nothing.
    assert copies(image, SUPER) == Copies(1, 0, {})
    assert load(image).lookup == {}
    named = replace(SUPER, standins=((130, HOMES[1]),))
    image[:BLOCK] = pack_super(replace(named, seq=2), 0)
    assert copies(image, named) == Copies(1, 1, {})
    assert load(image).lookup == {8: mapped(7, 8)}
    named = replace(SUPER, standins=((130, HOMES[0]),))
    image[:BLOCK] = pack_super(replace(named, seq=3), 0)
    assert load(image).lookup == {}


def test_when_a_write_is_durable() -> None:
    def allowed(*marks: str) -> list[int]:
        oracle = told("ready", *marks)
        return [number for number in range(8) if oracle.allows(20, number)]

    begun, acked = "begin 20 1 3", "ack 20 1 3 0"
    assert allowed() == [1]
    assert allowed(begun) == [1, 2, 3]
    assert allowed(begun, acked) == [1, 2, 3]
    assert allowed(begun, "ack 20 1 3 1") == [3]
    assert allowed(begun, "fail 20 1 3", "flush 4", "flushed 4") == [1, 2, 3]
    assert allowed(begun, "flush 4", acked, "flushed 4") == [1, 2, 3]
    assert allowed(begun, acked, "flush 4", "begin 20 1 5") == [1, 2, 3, 4, 5]
    assert allowed(begun, acked, "flush 4", "begin 20 1 5", "flushed 4") == [3, 4, 5]
    assert told("ready").allows(20, None) is False
    with pytest.raises(ValueError, match="means nothing"):
        told("hello")


def test_when_a_lost_sector_is_an_error() -> None:
    lost = ("ready", "begin 20 2 3", "ack 20 2 3 0", "losing 20 2", "lost 20 2")
    image = spare(
        Slot(5, SlotState.LOST, 20, 0),
        Slot(6, SlotState.LOST, 21, 0),
        content={5: pattern(20, 1, 3)},
    )
    old = bytearray(MAIN)
    old[20 * SECTOR : 22 * SECTOR] = pattern(20, 2, 3)

    def found(image: bytearray, *marks: str) -> list[str]:
        return told(*marks).check(load(image), old, image)

    filled = spare(mapped(5, 20), Slot(6, SlotState.LOST, 21, 0), content={5: pattern(20, 1, 7)})
    stale = spare(mapped(5, 20), Slot(6, SlotState.LOST, 21, 0), content={5: pattern(20, 1, 3)})
    assert found(image, *lost) == []
    assert found(image, *lost[:4]) == []
    assert found(spare(), *lost[:4]) == []
    assert found(image, *lost[:3]) == ["sector 20 is an error", "sector 21 is an error"]
    assert len(found(spare(), *lost)) == 6  # no mapping, no error, and old data
    assert found(image, *lost, "begin 20 1 7") == []
    assert found(filled, *lost, "begin 20 1 7") == []
    assert found(filled, *lost) == [
        "sector 20 is no error",
        "sector 20 reads as generation 7, promised 4 to 3",
    ]
    assert len(found(stale, *lost, "begin 20 1 7")) == 1
    assert found(filled, *lost, "begin 20 1 7", "ack 20 1 7 0") == []
    assert found(image, *lost, "begin 20 1 7", "ack 20 1 7 0") == ["sector 20 is an error"]
    assert found(image, *lost, "begin 20 1 7", "fail 20 1 7") == []


MOVED = (*REMAPPED, "worn 9", "begin 9 1 7", "ack 9 1 7 0")


def test_a_move_is_durable_and_raises_the_generation() -> None:
    def found(*slots: Slot, marks: tuple[str, ...] = MOVED) -> list[str]:
        image = spare(*slots, content={3: pattern(9, 1, 5), 4: pattern(9, 1, 7)})
        return told(*marks).check(load(image), bytearray(MAIN), image)

    assert found(mapped(3, 9), mapped(4, 9, 1)) == []
    assert found(mapped(4, 9, 1)) == []
    assert found(mapped(3, 9), mapped(4, 9, 1), marks=(*MOVED, "done")) == [
        "slot 3 is not bad after all"
    ]
    assert found(mapped(4, 9)) == ["sector 9 has moved 1 times, and its mapping has generation 0"]
    assert len(found(mapped(3, 9))) == 2
    # Until it is acknowledged, either slot.
    for slots in ((mapped(3, 9),), (mapped(4, 9, 1),)):
        assert found(*slots, marks=MOVED[:-1]) == []
        assert found(*slots, marks=(*MOVED[:-1], "fail 9 1 7")) == []


def test_what_a_failed_write_has_left_is_not_promised() -> None:
    oracle = told("bad 9", "ready", "begin 9 1 5", "fail 9 1 5", "begin 9 1 6", "ack 9 1 6 0")
    assert [n for n in range(8) if oracle.allows(9, n)] == [1, 2, 3, 4, 5, 6]
    assert oracle.mapped == set()
    assert told("bad 9", "ready", "heal 9", "begin 9 1 5", "ack 9 1 5 0").mapped == set()


def test_both_copies_know_of_a_move() -> None:
    image = spare(mapped(3, 9, 1))
    image[HOMES[1] * BLOCK : (HOMES[1] + 1) * BLOCK] = table(HOMES[1], 1, mapped(3, 9))
    assert copies(image, SUPER).both == {9: (0, True)}
    judge = Judge([], 1, MAIN, SIZE, told(*MOVED))
    judge._judge_copies(4, copies(image, SUPER))
    assert judge.problems == ["cut 4: a copy does not know that sector 9 has moved or is written"]


def test_a_generation_is_told_only_of_the_sectors_own_pattern() -> None:
    assert generation(7, pattern(7, 1, 4)) == 4
    assert generation(8, pattern(7, 1, 4)) is None
    assert generation(7, None) is None


# Logs. In each a set is formatted and a few bad sectors are remapped by the protocol, or almost.

FAULTS = ("none", "data not forced", "ack too early", "no copy B", "no table", "publish old data")


def commits(fault: str) -> list[Entry]:
    log: list[Entry] = [Mark("bad 9 10 11 12 13 14 15 16")]

    def block(place: int, data: bytes) -> None:
        log.append(Write("spare", place * BLOCK, data, fua=True))

    for index in range(SUPER.segments[0].table_blocks):
        for home in HOMES:
            block(home + index, pack_empty_table(SET, home + index))
    for home in (255, 0):
        block(home, pack_super(SUPER, home))
    log.append(Mark("ready"))
    slots: list[Slot] = []
    for seq, sector in enumerate(range(9, 17), 2):
        slot = 100 + 10 * (sector - 9)  # so that a torn table block is torn
        slots.append(mapped(slot, sector))
        number = 50 + seq
        ack = Mark(f"ack {sector} 1 {number} 0")
        log.append(Mark(f"begin {sector} 1 {number}"))
        data = pattern(sector, 1, number - (fault == "publish old data"))
        log.append(Write("spare", SLOT + slot * SECTOR, data, fault != "data not forced"))
        if fault == "no table":
            log.append(ack)
            continue
        block(HOMES[0], table(HOMES[0], seq, *slots))
        if fault == "ack too early":
            log.append(ack)
        if fault != "no copy B":
            block(HOMES[1], table(HOMES[1], seq, *slots))
        if fault != "ack too early":
            log.append(ack)
    log.append(Mark("begin 40 1 99"))  # promises after the last change are kept, too
    return log


@pytest.mark.parametrize("fault", FAULTS)
def test_a_log_that_breaks_the_protocol_fails(fault: str) -> None:
    judge = Judge(commits(fault), 1, MAIN, SIZE)
    judge.judge_all()
    if fault == "none":
        assert judge.problems == []
        assert judge.oracle.mapped == set(range(9, 17))
        assert judge.states > 100
        assert judge.formatting
        assert len(judge.between) == 8
    else:
        assert judge.problems


MOVES = ("none", "bad first", "generation", "one copy", "data not forced", "never bad", "back")


def moves(fault: str) -> list[Entry]:
    """Return a log in which a mapped sector moves to a slot of another table block."""
    log = commits("none")
    first, slot = lib.DMR_ENTRIES, lib.DMR_ENTRIES + 9
    stay = [mapped(100 + 10 * (sector - 9), sector) for sector in range(10, 17)]
    gone = Slot(100, SlotState.BAD, 0, 0)

    def commit(index: int, seq: int, *slots: Slot, count: int = 2) -> None:
        for home in HOMES[:count]:
            place = home + index
            data = pack_table(SET, list(slots), first * index, place, seq)
            log.append(Write("spare", place * BLOCK, data, fua=True))

    ack = Mark("ack 9 1 200 0")
    log += [Mark("worn 9"), Mark("begin 9 1 200")]
    data = pattern(9, 1, 200)
    log.append(Write("spare", SLOT + slot * SECTOR, data, fault != "data not forced"))
    if fault == "bad first":
        commit(0, 10, gone, *stay)
    moved = mapped(slot, 9, 0 if fault == "generation" else 1)
    commit(1, 2, moved, count=1 if fault == "one copy" else 2)
    log.append(ack)
    if fault == "back":
        commit(1, 3)
    elif fault != "never bad":
        commit(0, 10 + (fault == "bad first"), gone, *stay)
    return [*log, Mark("done")]


@pytest.mark.parametrize("fault", MOVES)
def test_a_move_that_breaks_the_protocol_fails(fault: str) -> None:
    judge = Judge(moves(fault), 1, MAIN, SIZE)
    judge.judge_all()
    assert bool(judge.problems) == (fault != "none"), judge.problems
    assert judge.oracle.moved == {9: 1}
    assert judge.moving or fault in ("bad first", "generation")


def test_a_flush_that_does_not_reach_a_leg_fails() -> None:
    for flushed in (True, False):
        log: list[Entry] = [*commits("none"), Mark("begin 30 1 70")]
        log.append(Write("main", 30 * SECTOR, pattern(30, 1, 70)))
        log += [Mark("ack 30 1 70 0"), Mark("flush 71")]
        log += [Flush("main", len(log))] if flushed else []
        log += [Mark("flushed 71"), Write("main", 0, pattern(0, 1, FIRST), fua=True)]
        judge = Judge(log, 1, MAIN, SIZE)
        judge.judge_all()
        assert bool(judge.problems) != flushed


def test_a_write_through_that_is_none_is_noticed() -> None:
    for forced in (True, False):
        log: list[Entry] = [Write("main", 0, pattern(0, 2, 7), fua=forced), Mark("ack 0 2 7 1")]
        assert bool(not_forced(log)) != forced


def test_what_only_the_check_refuses_is_refused() -> None:
    """A lone copy beside a torn stand-in: the reader would take it, a load does not."""
    image = spare(mapped(0, 9), names={128: HOMES[1]})
    load(image)
    assert checked(image).lookup == load(image).lookup
    image[HOMES[0] * BLOCK : (HOMES[0] + 1) * BLOCK] = b"\x5a" * BLOCK
    checked(image)
    image[128 * BLOCK : 129 * BLOCK] = b"dm-remap" * (BLOCK // 8)
    load(image)
    with pytest.raises(Refused, match="DMR-C307"):
        checked(image)
    judge = Judge([], 1, MAIN, SIZE, told("ready"))
    replay = judge.start()
    replay.images["spare"] = image
    assert judge.state(replay, "4") is None
    assert len(judge.problems) == 1


def test_a_reader_and_a_check_that_disagree_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    other = load(spare(mapped(0, 9), mapped(1, 10)))
    monkeypatch.setattr(judging, "load", lambda _image: other)
    judge = Judge([], 1, MAIN, SIZE)
    replay = judge.start()
    replay.images["spare"] = spare(mapped(0, 9))
    assert judge.state(replay, "4") is None
    assert len(judge.problems) == 1
    assert "the reader finds" in judge.problems[0]
