# SPDX-License-Identifier: GPL-2.0-only
"""A backup of the metadata: what is in the file, and what comes back onto a device."""

import hashlib
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.areas import (
    HOMES,
    JUNK,
    OTHER,
    SB,
    SET,
    Disk,
    fresh,
    give_names,
    mapped,
    superblock,
    table,
)

from dmremap.errors import DmRemapError, Failure, Refused
from dmremap.ondisk import BLOCK, Entry, SetState, SlotState, View
from dmremap.ondisk._format import lib
from dmremap.ondisk.backup import (
    OUTRANK,
    Backup,
    Import,
    decode,
    encode,
    plan_blank,
    plan_import,
    write_import,
)
from dmremap.ondisk.check import examine
from dmremap.ondisk.findings import Severity
from dmremap.ondisk.layout import header, pack_empty_table, pack_super
from dmremap.ondisk.mend import mend

ENTRIES = [
    mapped(0, 100),
    Entry(2, SlotState.LOST, 8, 0),
    Entry(251, SlotState.BAD, 0, 0),
    mapped(252, 1000, 4),
    mapped(600, 2047),
]
A1, B1 = HOMES[1]


def saved(disk: Disk) -> Backup:
    return decode(encode(examine(disk), 1_700_000_001))


def planned(disk: Disk, backup: Backup) -> Import:
    plan = plan_import(View(disk, 0), backup, "disk")
    assert plan is not None
    return plan


def brought_back(disk: Disk, backup: Backup) -> Import:
    plan = planned(disk, backup)
    write_import(planned(disk, backup), disk.write)
    after = examine(disk)
    assert after.accepted
    assert after.severity is Severity.INFO
    return plan


def test_round_trip() -> None:
    backup = saved(fresh(ENTRIES, seq=7))
    assert backup.uuid == SET
    assert backup.superblock == SB
    assert backup.created == 1_700_000_001
    assert [seq for seq, _ in backup.states] == [2, 7, 7, 7]


def test_the_layout_that_the_page_describes() -> None:
    data = encode(examine(fresh(ENTRIES)), 5)
    magic, version, count, uuid, made = struct.unpack_from("<16sII16sQ", data)
    assert (magic, version, count, uuid, made) == (b"dm-remap backup\n", 1, 4, SET.bytes, 5)
    assert data[48:64] == bytes(16)
    assert data[-32:] == hashlib.sha256(data[:-32]).digest()
    blocks = zlib.decompress(data[64:-32])
    assert len(blocks) == count * BLOCK
    assert blocks[:BLOCK] == pack_super(SB, 0)
    assert header(blocks[BLOCK : 2 * BLOCK], lib.DMR_TYPE_TABLE, HOMES[0][0])


def test_every_damage_of_a_backup_is_noticed() -> None:
    data = encode(examine(fresh(ENTRIES)), 5)
    for at in range(0, len(data), 7):
        bad = bytearray(data)
        bad[at] ^= 1
        with pytest.raises(Refused) as caught:
            decode(bytes(bad))
        assert caught.value.code == "DMR-E523"
    for size in (0, 10, 64, 96, len(data) - 1):
        with pytest.raises(Refused):
            decode(data[:size])


def signed(data: bytes) -> bytes:
    return data + hashlib.sha256(data).digest()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d[:16] + struct.pack("<I", 2) + d[20:], "version 2"),
        (lambda d: d[:20] + struct.pack("<I", 1 << 30) + d[24:], "blocks"),
        (lambda d: d[:20] + struct.pack("<I", 3) + d[24:], "as many blocks"),
        (lambda d: d[:20] + struct.pack("<I", 5) + d[24:], "another number of table blocks"),
        (lambda d: d[:64] + zlib.compress(zlib.decompress(d[64:])[: 3 * BLOCK]), "as many blocks"),
        (lambda d: d[:64] + zlib.compress(zlib.decompress(d[64:]) + bytes(1)), "as many blocks"),
        (
            lambda d: d[:64] + zlib.compress(zlib.decompress(d[64:]) + bytes(BLOCK)),
            "as many blocks",
        ),
        (lambda d: d[:64] + zlib.compress(b""), "as many blocks"),
        (lambda d: d[:-2], "as many blocks"),
        (lambda d: d[:24] + OTHER.bytes + d[40:], "superblock of its set"),
        (lambda d: d[:64] + b"no zlib", "incorrect header"),
        (lambda d: d[:64] + zlib.compress(bytes(4 * BLOCK)), "superblock"),
        (
            lambda d: d[:64] + zlib.compress(zlib.decompress(d[64:])[: 3 * BLOCK] + bytes(BLOCK)),
            "another block",
        ),
    ],
)
def test_a_backup_that_is_whole_and_wrong(change: object, words: str) -> None:
    data = encode(examine(fresh(ENTRIES)), 5)[:-32]
    assert callable(change)
    with pytest.raises(Refused, match=words):
        decode(signed(change(data)))


def test_what_cannot_be_started_is_not_saved() -> None:
    disk = fresh(ENTRIES)
    disk[A1] = disk[B1] = JUNK
    with pytest.raises(ValueError, match="can be started"):
        encode(examine(disk), 5)


def test_nothing_is_to_be_done() -> None:
    disk = fresh(ENTRIES)
    plan = planned(disk, saved(disk))
    assert (plan.taken, plan.kept, plan.risky) == (0, 4, ())
    assert write_import(plan, lambda _place, _data: pytest.fail("written")) == []


@pytest.mark.parametrize("lost", [(0, 255), HOMES[1], (0, 255, *HOMES[0], *HOMES[2])])
def test_both_copies_come_back(lost: tuple[int, ...]) -> None:
    disk = fresh(ENTRIES, seq=7)
    backup = saved(disk)
    for place in lost:
        disk[place] = JUNK
    before = {place: disk[place] for place in range(340) if place not in lost}
    plan = brought_back(disk, backup)
    assert plan.taken == len(lost) // 2
    assert not plan.blank
    # An older superblock is no more than an older name; a table block is.
    assert plan.risky == tuple(place for place in lost if place in {h[0] for h in HOMES})
    load = examine(disk)
    assert (load.counts.mapped, load.counts.lost, load.counts.bad) == (4, 1, 1)
    assert all(disk[place] == block for place, block in before.items())
    top = 7 if 0 not in lost else 2
    if len(lost) == 2:
        assert load.blocks[0 if 0 in lost else 2].seq == top + OUTRANK + 2


def test_what_is_newer_on_the_device_stays() -> None:
    disk = fresh(ENTRIES, seq=7)
    backup = saved(disk)
    newer = [mapped(252, 1000, 4), mapped(253, 77)]
    for copy in (0, 1):
        disk[HOMES[1][copy]] = table(1, copy, newer, 9)
        disk[HOMES[2][copy]] = JUNK
    plan = brought_back(disk, backup)
    assert (plan.taken, plan.kept) == (1, 3)
    assert plan.risky == (HOMES[2][0],)
    assert examine(disk).blocks[2].seqs == [9, 9]
    assert examine(disk).counts.mapped == 5


def test_what_is_older_on_the_device_is_replaced() -> None:
    disk = fresh(ENTRIES, seq=7)
    backup = saved(disk)
    for copy in (0, 1):
        disk[HOMES[1][copy]] = table(1, copy, [], 3)
    plan = brought_back(disk, backup)
    assert (plan.taken, plan.risky) == (1, ())
    assert examine(disk).blocks[2].seqs == [9, 9]


def test_a_set_that_has_grown_since() -> None:
    disk = fresh(ENTRIES)
    backup = saved(disk)
    disk.data += bytes(8 * BLOCK)
    disk[0] = disk[255] = JUNK
    assert planned(disk, backup).risky == ()
    disk.bad.add(340)
    assert planned(disk, backup).risky == (0,)
    disk[340] = pack_empty_table(SET, 340)
    with pytest.raises(Refused, match="grown") as caught:
        planned(disk, backup)
    assert caught.value.code == "DMR-E524"


def test_a_lone_copy_that_may_be_old() -> None:
    disk = fresh(ENTRIES, seq=7)
    backup = saved(disk)
    give_names(disk, {140: B1}, 1)  # since the backup was made
    disk[A1] = JUNK
    disk.bad.add(140)
    assert not examine(disk).accepted
    plan = brought_back(disk, backup)
    assert plan.risky == (A1,)
    assert examine(disk).blocks[2].seq == 7 + OUTRANK + 2
    assert disk[140] == bytes(BLOCK)
    assert examine(disk).names == {140: B1}


@pytest.mark.parametrize("supers", [False, True])
def test_names_that_the_backup_does_not_have(supers: bool) -> None:
    """They are in the superblocks, or where these are gone in the stand-ins themselves."""
    disk = fresh(ENTRIES, seq=7)
    backup = saved(disk)
    give_names(disk, {140: A1, 141: B1}, 1)
    more = [*ENTRIES, mapped(270, 99)]
    for place, copy in ((140, 0), (141, 1)):
        disk[place] = table(1, copy, [e for e in more if e.slot // 252 == 1], 9, place=place)
    disk[HOMES[2][0]] = disk[HOMES[2][1]] = JUNK
    if not supers:
        disk[0] = disk[255] = JUNK
    plan = brought_back(disk, backup)
    assert HOMES[2][0] in plan.risky
    assert A1 not in plan.risky
    load = examine(disk)
    assert load.names == {140: A1, 141: B1}
    assert load.blocks[2].places == [140, 141]
    assert load.counts.mapped == len([e for e in more if e.state != SlotState.BAD])
    # What cannot be read may have been given a name since.
    disk = fresh(ENTRIES, seq=7)
    disk[0] = disk[255] = JUNK
    disk.bad.add(150)
    assert len(planned(disk, backup).risky) == 4


def test_a_name_that_only_a_torn_standin_tells() -> None:
    """Its first sector says for which copy it has something newer than the home."""
    disk = fresh(ENTRIES, seq=7)
    backup = saved(disk)
    disk[140] = table(1, 0, [], 9, place=140)[:512] + JUNK[512:]
    disk[B1] = disk[0] = disk[255] = JUNK
    plan = planned(disk, backup)
    assert plan.risky == (A1,)
    # Without a header it may be anybody's.
    disk[140] = JUNK
    assert len(planned(disk, backup).risky) == 4


def test_a_set_that_has_gone_on_elsewhere_is_not_brought_back() -> None:
    disk = fresh(ENTRIES, seq=7)
    backup = saved(disk)
    disk[0] = pack_super(superblock(seq=3, incompat=lib.DMR_INCOMPAT_SUPERSEDED), 0)
    with pytest.raises(Refused, match="gone on elsewhere") as caught:
        planned(disk, backup)
    assert caught.value.code == "DMR-E530"


def test_an_import_that_was_cut_is_outranked() -> None:
    """What it left has names and an epoch of its own, in superblocks of the same sequences."""
    backup = saved(fresh(ENTRIES, seq=7))
    disk = Disk()
    disk[0] = pack_super(superblock(state=SetState.FORMATTING, seq=41), 0)
    plan = plan_import(View(disk, 0), backup, "disk")
    assert plan
    assert plan.blank
    assert plan.load.blocks[0].base == 42


def test_two_unreadable_refuges_make_everything_doubtful() -> None:
    disk = fresh(ENTRIES, seq=7)
    backup = saved(disk)
    disk.bad |= {136, 152}
    plan = brought_back(disk, backup)
    assert len(plan.risky) == 4
    assert all(block.seq > OUTRANK for block in examine(disk).blocks)


def test_equal_sequences_that_differ_are_not_guessed_about() -> None:
    disk = fresh(ENTRIES, seq=7)
    backup = saved(disk)
    for copy in (0, 1):
        disk[HOMES[1][copy]] = table(1, copy, [mapped(252, 3)], 7)
    with pytest.raises(Refused, match="differ") as caught:
        planned(disk, backup)
    assert caught.value.code == "DMR-E514"
    disk = fresh(ENTRIES, seq=7)
    disk[A1] = table(1, 0, [mapped(252, 3)], 9)
    disk[B1] = table(1, 1, [mapped(252, 4)], 9)
    with pytest.raises(Refused, match="differ"):
        planned(disk, backup)


def test_a_unit_that_both_have_in_one_generation() -> None:
    disk = fresh(ENTRIES, seq=7)
    backup = saved(disk)
    for copy in (0, 1):
        disk[HOMES[0][copy]] = table(0, copy, [mapped(0, 1000, 4)], 9)
        disk[HOMES[1][copy]] = JUNK
    with pytest.raises(Refused, match="mapped twice"):
        planned(disk, backup)


def test_a_move_since_the_backup() -> None:
    disk = fresh(ENTRIES, seq=7)
    backup = saved(disk)
    for copy in (0, 1):
        disk[HOMES[0][copy]] = table(0, copy, [*ENTRIES[:3], mapped(5, 1000, 5)], 9)
        disk[HOMES[1][copy]] = JUNK
    brought_back(disk, backup)
    load = examine(disk)
    assert "DMR-C204" not in {one.code for one in load.findings}
    assert (load.counts.mapped, load.counts.bad) == (4, 2)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda disk: disk.__setitem__(0, pack_super(superblock(uuid=OTHER), 0)), "DMR-E504"),
        (
            lambda disk: [
                disk.__setitem__(home, pack_super(superblock(main_sectors=1 << 21, seq=9), home))
                for home in (0, 255)
            ],
            "DMR-E524",
        ),
        (lambda disk: disk.data.__delitem__(slice(-BLOCK, None)), "DMR-E511"),
        (
            lambda disk: disk.__setitem__(0, pack_super(superblock(name="other"), 0)),
            "DMR-E514",
        ),
        # Another set was made over this one, and has lost its superblocks.
        (
            lambda disk: [
                disk.__setitem__(0, bytes(BLOCK)),
                disk.__setitem__(255, bytes(BLOCK)),
                disk.__setitem__(A1, pack_empty_table(OTHER, A1)),
            ],
            "DMR-E504",
        ),
    ],
)
def test_not_onto_that(change: object, code: str) -> None:
    disk = fresh(ENTRIES)
    backup = saved(disk)
    assert callable(change)
    change(disk)
    with pytest.raises(DmRemapError) as caught:
        planned(disk, backup)
    assert caught.value.code == code


def test_a_blank_area_gets_lost_blocks() -> None:
    backup = saved(fresh(ENTRIES, seq=7))
    disk = Disk()
    assert plan_import(View(disk, 0), backup, "disk") is None
    write_import(plan_blank(View(disk, 0), backup), disk.write)
    load = examine(disk)
    assert load.accepted
    assert load.severity is Severity.INFO
    assert (load.counts.mapped, load.counts.lost, load.counts.bad) == (4, 4, 1)
    # FORMATTING first, the superblocks last.
    assert [place for place, _ in disk.log[:1]] == [0]
    assert [place for place, _ in disk.log[-2:]] == [0, 255]


def test_every_cut_of_an_import_into_a_blank_area() -> None:
    backup = saved(fresh(ENTRIES, seq=7))
    whole = Disk()
    write_import(plan_blank(View(whole, 0), backup), whole.write)
    for cut in range(1, len(whole.log)):
        disk = Disk()
        for place, block in whole.log[:cut]:
            disk[place] = block
        load = examine(disk)
        if load.accepted:
            assert cut == len(whole.log) - 1
            mend(load, disk.write)
        else:
            assert {one.code for one in load.findings} == {"DMR-C305"}
            plan = planned(disk, backup)
            assert plan.blank
            write_import(plan, disk.write)
        after = examine(disk)
        assert after.accepted
        assert after.counts.lost == after.counts.mapped == 4


def test_a_blank_area_that_takes_no_writes() -> None:
    backup = saved(fresh(ENTRIES))
    disk = Disk()
    disk.stuck.add(0)
    with pytest.raises(Failure):
        write_import(plan_blank(View(disk, 0), backup), disk.write)


def test_formatting_of_the_same_set_is_an_unfinished_import() -> None:
    backup = saved(fresh(ENTRIES))
    disk = Disk()
    disk[0] = pack_super(superblock(state=SetState.FORMATTING), 0)
    assert planned(disk, backup).blank


def test_formatting_over_a_table_in_use_is_not_overwritten() -> None:
    disk = fresh(ENTRIES)
    backup = saved(disk)
    disk[0] = pack_super(superblock(state=SetState.FORMATTING, seq=1), 0)
    disk[255] = JUNK
    with pytest.raises(Refused) as caught:
        planned(disk, backup)
    assert caught.value.code == "DMR-E514"
    assert "has mapped blocks" in str(caught.value)


@given(device=st.lists(st.sampled_from(["same", "newer", "older", "gone"]), min_size=3, max_size=3))
@settings(max_examples=64, deadline=None)
def test_an_import_never_goes_back(device: list[str]) -> None:
    """No block that the device knows becomes older than it is there."""
    disk = fresh(ENTRIES, seq=7)
    backup = saved(disk)
    for index, how in enumerate(device):
        first = index * 252
        for copy in (0, 1):
            home = HOMES[index][copy]
            match how:
                case "newer":
                    new = table(index, copy, [mapped(first + 9, 5000 + index)], 9)
                    disk[home] = new
                case "older":
                    disk[home] = table(index, copy, [], 3)
                case "gone":
                    disk[home] = JUNK
    before = examine(disk)
    plan = brought_back(disk, backup)
    assert plan.taken == sum(how in ("older", "gone") for how in device)
    assert len(plan.risky) == device.count("gone")
    after = examine(disk)
    for index, how in enumerate(device):
        was, now = before.blocks[index + 1], after.blocks[index + 1]
        assert now.seq >= was.seq
        wanted = was.body if how in ("same", "newer") else backup.states[index + 1][1]
        assert now.body == wanted
