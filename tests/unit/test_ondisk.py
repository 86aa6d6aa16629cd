# SPDX-License-Identifier: GPL-2.0-only
"""The metadata on image files: written, read, damaged, and pinned byte by byte."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.areas import entries_of

from dmremap.errors import Busy, NotFound
from dmremap.ondisk import (
    BLOCK,
    HEAD_BLOCKS,
    BlockDevice,
    Entry,
    Epoch,
    Errors,
    SetState,
    SlotState,
    Superblock,
    Tag,
    View,
    find,
    first_super,
    format_area,
    look,
    opened,
    read_tag,
    segment_for,
    write_tag,
)
from dmremap.ondisk._format import ffi, lib
from dmremap.ondisk.check import examine
from dmremap.ondisk.layout import (
    REFUGES,
    SCRATCH_BLOCKS,
    STANDINS,
    TAG_BLOCKS,
    Invalid,
    Segment,
    pack_super,
    pack_table,
    pack_tag,
    parse_super,
    parse_tag,
)
from dmremap.ondisk.load import Counts

GOLDEN = Path(__file__).parent / "golden"
SET = UUID("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0")
OTHER = UUID("11111111-2222-3333-4444-555555555555")
AREA_BLOCKS = 2048


def superblock(uuid: UUID = SET, **changes: object) -> Superblock:
    segment = segment_for(AREA_BLOCKS, 512)
    assert segment is not None
    plain = Superblock(
        uuid=uuid,
        name="backup",
        state=SetState.READY,
        unit=512,
        area_blocks=AREA_BLOCKS,
        segments=(segment,),
        tagged=True,
        main_sectors=1 << 21,
        data_start=2048,
        data_sectors=(1 << 21) - 2048,
        main_offset=0,
        created=1_700_000_000,
        main_id_type=3,
        main_id=bytes.fromhex("5000c500a1b2c3d4"),
        main_serial="WD-1234 ü",
        seq=7,
        epoch=Epoch(5, 0x5555AAAA5555AAAA),
        before=Epoch(4, 0x4444BBBB4444BBBB),
        predecessor=OTHER,
        predecessor_epoch=Epoch(9, 0x99),
        content_tag=UUID("22222222-3333-4444-5555-666666666666"),
        standins=((128, 256), (254, 257)),
        spare_serial=2,
        errors=Errors.MEDIUM,
        remap_rate=60,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture
def image(tmp_path: Path) -> Iterator[BlockDevice]:
    path = tmp_path / "spare.img"
    with path.open("wb") as file:
        file.truncate(AREA_BLOCKS * BLOCK)
    with opened(str(path), write=True) as device:
        yield device


def test_crc32c_is_the_kernels() -> None:
    # The check value of CRC-32C, with the inversions that the kernel's function leaves out.
    assert lib.dmr_crc32c_raw(0xFFFFFFFF, b"123456789", 9) ^ 0xFFFFFFFF == 0xE3069283


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("super", pack_super(superblock(), 0)),
        ("super-standin", pack_super(superblock(), 255, 128)),
        ("tag", pack_tag(Tag.of(superblock(), 8), 1)),
        (
            "table",
            pack_table(
                SET,
                [
                    Entry(0, SlotState.MAPPED, 4096, 1),
                    Entry(1, SlotState.LOST, 4097, 2),
                    Entry(251, SlotState.BAD, 0, 0),
                ],
                0,
                256,
                9,
            ),
        ),
    ],
)
def test_golden(name: str, block: bytes) -> None:
    """The format is on people's disks: these bytes never change."""
    golden = GOLDEN / f"{name}.bin"
    pinned = golden.read_bytes()
    assert block.rstrip(b"\0") == pinned
    known = dict(line.split()[::-1] for line in (GOLDEN / "SHA256SUMS").read_text().splitlines())
    assert hashlib.sha256(block).hexdigest() == known[f"{name}.bin"]


def test_super_round_trip() -> None:
    sb = superblock()
    assert parse_super(pack_super(sb, 255), 255) == sb
    assert parse_super(pack_super(sb, 0, 130), 130) == sb


def test_a_block_counts_only_where_it_was_written() -> None:
    block = pack_super(superblock(), 0)
    assert parse_super(block, 255) is None
    assert parse_super(block, 0) is not None


def test_a_flipped_bit_anywhere_is_noticed() -> None:
    block = pack_super(superblock(), 0)
    for byte in (*range(0, 700, 13), BLOCK - 1):
        bad = bytearray(block)
        bad[byte] ^= 0x10
        assert parse_super(bytes(bad), 0) is None


def test_what_cannot_be_is_not_packed() -> None:
    with pytest.raises(ValueError, match="unit"):
        pack_super(superblock(unit=768), 0)
    with pytest.raises(ValueError, match="longer"):
        pack_super(superblock(name="x" * 128), 0)


def test_a_newer_format_is_refused_and_not_ignored() -> None:
    sb = superblock()
    block = pack_super(sb, 0)
    newer = bytearray(block)
    newer[80] = 2  # the incompat word
    sealed = _reseal(bytes(newer), 0)
    with pytest.raises(Invalid, match="newer"):
        parse_super(sealed, 0)


OLD = "version 1: save the data with the dm-remap that made it"


def test_version_1_is_refused_with_what_to_do() -> None:
    """It was in no release: of its bytes these two blocks are left, for this."""
    block, tag = (
        (GOLDEN / f"{name}.bin").read_bytes().ljust(BLOCK, b"\0") for name in ("super-1", "tag-1")
    )
    with pytest.raises(Invalid, match=OLD):
        parse_super(block, 0)
    found = parse_tag(tag, 1)
    assert found is not None
    assert (found.uuid, found.set_name) == (SET, str(SET))
    assert OLD in found.fault


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"epoch": Epoch(0, 0)}, "impossible epoch"),
        ({"epoch": Epoch(5, 0)}, "impossible epoch"),
        ({"epoch": Epoch(1 << 62, 1), "before": Epoch((1 << 62) - 1, 1)}, None),
        ({"epoch": Epoch((1 << 62) + 1, 1), "before": Epoch(1 << 62, 1)}, "impossible epoch"),
        ({"epoch": Epoch(6, 1)}, "epoch before"),
        ({"epoch": Epoch(1, 1)}, "epoch before"),
        ({"epoch": Epoch(1, 1), "before": Epoch(0, 0)}, None),
        ({"before": Epoch(4, 0)}, "epoch before"),
        ({"predecessor_epoch": Epoch(1, 0)}, "predecessor"),
        ({"spare_serial": 0}, "serial number 0"),
        ({"standins": ((128, 255),)}, "stand-in is named"),
        ({"standins": ((136, 256),)}, "stand-in is named"),
        ({"standins": ((129, 256 + 1000),)}, "stand-in is named"),
        ({"standins": ((129, AREA_BLOCKS),)}, "stand-in is named"),
        ({"standins": ((129, AREA_BLOCKS - 1),)}, None),
        ({"incompat": lib.DMR_INCOMPAT_SUPERSEDED}, None),
    ],
)
def test_what_a_superblock_may_say(change: dict[str, object], why: str | None) -> None:
    sb = replace(superblock(), **change)  # type: ignore[arg-type]
    if why is not None:
        with pytest.raises(ValueError, match=why):
            pack_super(sb, 0)
        return
    assert parse_super(pack_super(sb, 0), 0) == sb
    assert sb.superseded is ("incompat" in change)


def _tags(image: BlockDevice, *tags: Tag) -> Tag | None:
    for place, tag in zip(TAG_BLOCKS, tags, strict=True):
        image.write_block(0, place, pack_tag(tag, place))
    return read_tag(View(image, 0))


@pytest.mark.parametrize("at", range(5))
def test_the_highest_copy_of_a_tag_counts(image: BlockDevice, at: int) -> None:
    old, new = (Tag.of(superblock(epoch=Epoch(number, 7)), 0) for number in (4, 5))
    odd = replace(new, epoch=Epoch(5, 8))
    tags = [old] * 5
    tags[at] = new
    tags[at - 1] = replace(old, name="other")
    assert _tags(image, *tags) == new
    tags[at - 1] = odd
    found = _tags(image, *tags)
    assert found is not None
    assert found.fault == "the copies of main's tag contradict each other"
    assert found.set_name == str(SET)


def test_a_copy_of_the_tag_in_the_place_of_another_one_is_none(image: BlockDevice) -> None:
    image.write_block(0, 64, _reseal(pack_tag(Tag.of(superblock(), 0), 1), 64))
    assert read_tag(View(image, 0)) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"epoch": Epoch(5, 0)}, "impossible epoch"),
        ({"unit": 768}, "impossible main"),
        ({"data_start": 2047}, "impossible main"),
        ({"data_start": (1 << 21) + 1}, "impossible main"),
        ({"main_sectors": (1 << 54) + 1}, "impossible main"),
        ({"data_start": 1 << 21}, ""),
    ],
)
def test_what_a_tag_may_say(change: dict[str, object], why: str) -> None:
    tag = replace(Tag.of(superblock(), 0), **change)  # type: ignore[arg-type]
    found = parse_tag(pack_tag(tag, 1), 1)
    assert found is not None
    assert why in found.fault
    assert bool(why) is bool(found.fault)


def test_no_copy_of_the_tag_has_a_scratch_block_for_a_neighbour() -> None:
    """Nor is one behind the first MiB, or in a physical sector of 64 KiB with another copy."""
    used = [*TAG_BLOCKS, *SCRATCH_BLOCKS]
    assert len(set(used)) == len(used)
    assert 0 < min(used) < max(used) < HEAD_BLOCKS
    assert min(abs(tag - block) for tag in TAG_BLOCKS for block in SCRATCH_BLOCKS) > 15
    assert len({place // 16 for place in TAG_BLOCKS}) == len(TAG_BLOCKS)
    assert list(REFUGES) == [place for place in STANDINS if lib.dmr_is_refuge(place)]
    assert len(REFUGES) == lib.DMR_NR_REFUGES


def _reseal(block: bytes, place: int) -> bytes:
    raw = bytearray(block)
    view = ffi.from_buffer("struct dmr_header *", raw)
    view.crc = lib.dmr_h32(lib.dmr_block_crc(view, place))
    return bytes(raw)


def test_tag_round_trip(image: BlockDevice) -> None:
    tag = Tag(SET, "Sicherung ü", 1 << 21, 2048, 4096)
    assert parse_tag(pack_tag(tag, 255), 255) == tag
    assert read_tag(View(image, 0)) is None
    write_tag(image, tag)
    assert read_tag(View(image, 0)) == tag
    image.write_block(0, 1, b"\xff" * BLOCK)
    assert read_tag(View(image, 0)) == tag  # another copy
    image.zero(list(image.written))
    assert read_tag(View(image, 0)) is None
    assert image.first_nonzero(0, AREA_BLOCKS * BLOCK) is None


@pytest.mark.parametrize("start", [0, 8, 4096])
@pytest.mark.parametrize("unit", [512, 1024, 2048, 4096])
def test_format_and_read_back(image: BlockDevice, unit: int, start: int) -> None:
    blocks = AREA_BLOCKS - start // 8
    segment = segment_for(blocks, unit)
    assert segment is not None
    sb = superblock(unit=unit, area_blocks=blocks, segments=(segment,), seq=1)
    format_area(image, sb, start)
    load = examine(image, start)
    assert not load.findings
    assert load.superblock == replace(sb, seq=2)
    assert load.counts == Counts(sb.slots, free=sb.slots)


def test_wiping_leaves_a_blank_area(image: BlockDevice) -> None:
    sb = superblock()
    format_area(image, sb)
    assert image.first_nonzero(0, AREA_BLOCKS * BLOCK) == (0, True)
    slot = AREA_BLOCKS // 2 * BLOCK
    other = BlockDevice(image.fd, image.path)
    other.write(slot, b"x" * BLOCK)  # not written by the format: not touched
    image.zero(list(image.written))
    assert image.first_nonzero(0, AREA_BLOCKS * BLOCK) == (slot, True)


def test_what_is_in_the_way_of_a_format_stays(image: BlockDevice) -> None:
    sb = superblock()
    home = sb.segments[0].copy_b
    data = b"x" * BLOCK
    BlockDevice(image.fd, image.path).write(home * BLOCK, data)
    with pytest.raises(Busy, match="has changed"):
        format_area(image, sb)
    image.zero(list(image.written))
    assert image.read_block(0, home) == data
    assert image.first_nonzero(0, AREA_BLOCKS * BLOCK) == (home * BLOCK, True)


def test_clearing_ends_the_set_that_was_there(image: BlockDevice) -> None:
    old = superblock(OTHER)
    format_area(image, old)
    image.write_block(0, 128, pack_super(old, 0, 128))
    new = superblock()
    format_area(image, new, clear=True)
    assert [load.uuid for load in find(View(image, 0))] == [SET]
    assert not examine(image).findings


def test_each_copy_of_the_superblock_is_enough(image: BlockDevice) -> None:
    sb = superblock()
    format_area(image, sb)
    for home, other in ((0, 255), (255, 0)):
        good = image.read_block(0, home)
        assert good is not None
        image.write_block(0, home, b"\x5a" * BLOCK)
        assert look(View(image, 0)).superblock == replace(sb, seq=sb.seq + 1)
        image.write_block(0, home, good)
        assert other != home
    image.write_block(0, 0, bytes(BLOCK))
    image.write_block(0, 255, bytes(BLOCK))
    assert look(View(image, 0)).superblock is None
    image.write_block(0, 200, pack_super(sb, 255, 200))
    assert look(View(image, 0)).superblock == sb


def test_the_highest_sequence_wins_wherever_it_is(image: BlockDevice) -> None:
    sb = superblock(seq=1)
    format_area(image, sb)
    newest = replace(sb, seq=30, name="renamed")
    image.write_block(0, 248, pack_super(newest, 0, 248))
    image.write_block(0, 136, pack_super(replace(sb, seq=20, name="older"), 255, 136))
    assert look(View(image, 0)).superblock == newest


def test_equal_sequences_that_differ_are_not_guessed_about(image: BlockDevice) -> None:
    sb = superblock()
    image.write_block(0, 0, pack_super(sb, 0))
    image.write_block(0, 255, pack_super(replace(sb, name="other"), 255))
    load = look(View(image, 0))
    assert load.superblock is None
    assert [one.code for one in load.refusals] == ["DMR-C302"]


def test_formatting_counts_only_without_ready(image: BlockDevice) -> None:
    making = superblock(state=SetState.FORMATTING, seq=99)
    image.write_block(0, 0, pack_super(making, 0))
    assert look(View(image, 0)).superblock == making
    ready = superblock(seq=2)
    image.write_block(0, 255, pack_super(ready, 255))
    assert look(View(image, 0)).superblock == ready


def test_two_sets_in_one_area_are_a_problem(image: BlockDevice) -> None:
    image.write_block(0, 0, pack_super(superblock(), 0))
    image.write_block(0, 255, pack_super(superblock(OTHER), 255))
    assert look(View(image, 0)).superblock is None
    assert [one.code for one in look(View(image, 0)).refusals] == ["DMR-C303"]
    found = find(View(image, 0))
    assert [load.superblock and load.superblock.uuid for load in found] == [SET, OTHER]
    assert all([one.code for one in load.refusals] == ["DMR-C303"] for load in found)


def test_two_sets_on_stand_ins_are_a_problem(image: BlockDevice) -> None:
    """Each is one that the kernel takes if it is told which: nobody has told us."""
    for place, uuid in ((136, SET), (152, OTHER)):
        image.write_block(0, place, pack_super(superblock(uuid), 0, place))
        assert not look(View(image, 0), uuid).refusals
    found = find(View(image, 0))
    assert [load.uuid for load in found] == [SET, OTHER]
    assert all([one.code for one in load.refusals] == ["DMR-C303"] for load in found)


def test_what_another_set_has_left_is_no_problem(image: BlockDevice) -> None:
    format_area(image, superblock())
    image.write_block(0, 136, pack_super(superblock(OTHER, seq=99), 0, 136))
    (load,) = find(View(image, 0))
    assert (load.uuid, load.refusals) == (SET, [])


def test_tables(image: BlockDevice) -> None:
    sb = superblock()
    format_area(image, sb)
    segment = sb.segments[0]
    entries = [Entry(252, SlotState.MAPPED, 5, 1), Entry(300, SlotState.LOST, 6, 2)]
    # Copy A is newer: a commit that was cut between its copies.
    image.write_block(0, segment.copy_a + 1, pack_table(SET, entries, 252, segment.copy_a + 1, 8))
    assert entries_of(examine(image)) == entries
    image.write_block(0, segment.copy_a + 1, b"\1" * BLOCK)
    assert entries_of(examine(image)) == []
    assert examine(image).accepted
    image.write_block(0, segment.copy_b + 1, b"\1" * BLOCK)
    assert [one.code for one in examine(image).refusals] == ["DMR-C306"]


def test_an_impossible_entry_is_reported(image: BlockDevice) -> None:
    sb = superblock()
    format_area(image, sb)
    home = sb.segments[0].copy_a
    wrong = [Entry(0, SlotState.MAPPED, sb.units, 1)]
    image.write_block(0, home, pack_table(SET, wrong, 0, home, 8))
    load = examine(image)
    assert load.accepted
    assert "unit lies outside of main" in load.findings[0].message


def test_blank_check_finds_a_single_bit(image: BlockDevice) -> None:
    seen: list[tuple[int, int]] = []
    size = AREA_BLOCKS * BLOCK
    assert image.first_nonzero(0, size, lambda done, total: seen.append((done, total))) is None
    assert seen[0] == (0, size)
    assert seen[-1] == (size, size)
    image.write_block(0, 1500, bytes(4000) + b"\1" + bytes(95))
    assert image.first_nonzero(0, size) == (1500 * BLOCK, True)
    assert image.first_nonzero(0, 1500 * BLOCK) is None


def test_what_cannot_be_read_is_not_blank(image: BlockDevice) -> None:
    # Past the end of the file, as unreadable as a bad sector.
    size = AREA_BLOCKS * BLOCK
    assert image.first_nonzero(size - BLOCK, 2 * BLOCK) == (size, False)


def test_a_missing_device_has_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound), opened(str(tmp_path / "none")):
        pass


@given(blocks=st.integers(HEAD_BLOCKS, 1 << 27), unit=st.sampled_from([512, 1024, 2048, 4096]))
@settings(max_examples=300, deadline=None)
def test_a_segment_fits_and_wastes_nothing(blocks: int, unit: int) -> None:
    segment = segment_for(blocks, unit)
    if segment is None:
        assert blocks < HEAD_BLOCKS + 3
        return
    per_block = BLOCK // unit

    def need(slots: int) -> int:
        return 2 * -(-slots // 252) + -(-slots // per_block)

    assert need(segment.slots) <= segment.blocks == blocks - HEAD_BLOCKS
    assert segment.slots == 1 << 24 or need(segment.slots + 1) > segment.blocks
    assert segment.data + -(-segment.slots // per_block) <= segment.copy_b
    assert segment.copy_b + segment.table_blocks == blocks


def test_no_room_no_segment() -> None:
    assert segment_for(0, 512) is None
    assert segment_for(HEAD_BLOCKS + 2, 512) is None
    assert segment_for(HEAD_BLOCKS + 3, 512) == Segment(HEAD_BLOCKS, 3, 8, 1)


@pytest.mark.parametrize("start", [0, 8, 4104])
def test_a_superblock_is_found_anywhere(image: BlockDevice, start: int) -> None:
    size = AREA_BLOCKS * BLOCK
    assert first_super(image, 0, size) is None
    image.write(77 * BLOCK, b"dm-remap" + bytes(BLOCK - 8))  # the word alone is no superblock
    image.write(78 * BLOCK + 512, b"dm-remap" + bytes(BLOCK - 8 - 512 + 512))
    assert first_super(image, 0, size) is None
    blocks = AREA_BLOCKS - start // 8
    segment = segment_for(blocks, 512)
    assert segment is not None
    format_area(image, superblock(area_blocks=blocks, segments=(segment,)), start)
    assert first_super(image, 0, size) == start * 512


def test_the_first_unreadable_block(image: BlockDevice) -> None:
    size = AREA_BLOCKS * BLOCK
    assert image.first_unreadable([(0, BLOCK), (size - BLOCK, size)]) is None
    assert image.first_unreadable([(0, BLOCK), (size - BLOCK, size + BLOCK)]) == size
