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

from dmremap.errors import Busy, NotFound
from dmremap.ondisk import (
    BLOCK,
    HEAD_BLOCKS,
    BlockDevice,
    Entry,
    SetState,
    SlotState,
    Superblock,
    Tag,
    first_super,
    format_area,
    opened,
    read_head,
    read_tables,
    read_tag,
    segment_for,
    write_tag,
)
from dmremap.ondisk._format import lib
from dmremap.ondisk.layout import (
    Invalid,
    Segment,
    pack_super,
    pack_table,
    pack_tag,
    parse_super,
    parse_tag,
)

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
        ("tag", pack_tag(Tag(SET, "backup", 1 << 21, 2048, 512), 1)),
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
    newer[80] = 1  # the incompat word
    sealed = _reseal(bytes(newer), 0)
    with pytest.raises(Invalid, match="newer"):
        parse_super(sealed, 0)


def _reseal(block: bytes, place: int) -> bytes:
    from dmremap.ondisk._format import ffi

    raw = bytearray(block)
    view = ffi.from_buffer("struct dmr_header *", raw)
    view.crc = lib.dmr_h32(lib.dmr_block_crc(view, place))
    return bytes(raw)


def test_tag_round_trip(image: BlockDevice) -> None:
    tag = Tag(SET, "Sicherung ü", 1 << 21, 2048, 4096)
    assert parse_tag(pack_tag(tag, 255), 255) == tag
    assert read_tag(image) is None
    write_tag(image, tag)
    assert read_tag(image) == tag
    image.write_block(0, 1, b"\xff" * BLOCK)
    assert read_tag(image) == tag  # the second copy
    image.zero(list(image.written))
    assert read_tag(image) is None
    assert image.first_nonzero(0, AREA_BLOCKS * BLOCK) is None


@pytest.mark.parametrize("start", [0, 8, 4096])
@pytest.mark.parametrize("unit", [512, 1024, 2048, 4096])
def test_format_and_read_back(image: BlockDevice, unit: int, start: int) -> None:
    blocks = AREA_BLOCKS - start // 8
    segment = segment_for(blocks, unit)
    assert segment is not None
    sb = superblock(unit=unit, area_blocks=blocks, segments=(segment,), seq=1)
    format_area(image, sb, start)
    head = read_head(image, start)
    assert head.problems == ()
    assert head.unreadable == ()
    assert head.superblock == replace(sb, seq=2)
    tables = read_tables(image, replace(sb, seq=2), start)
    assert tables.entries == ()
    assert tables.problems == ()


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
    head = read_head(image)
    assert [sb.uuid for sb in head.superblocks] == [SET]
    assert head.problems == ()
    assert read_tables(image, new).problems == ()


def test_each_copy_of_the_superblock_is_enough(image: BlockDevice) -> None:
    sb = superblock()
    format_area(image, sb)
    for home, other in ((0, 255), (255, 0)):
        good = image.read_block(0, home)
        assert good is not None
        image.write_block(0, home, b"\x5a" * BLOCK)
        assert read_head(image).of(SET) == replace(sb, seq=sb.seq + 1)
        image.write_block(0, home, good)
        assert other != home
    image.write_block(0, 0, bytes(BLOCK))
    image.write_block(0, 255, bytes(BLOCK))
    assert read_head(image).superblocks == ()
    image.write_block(0, 200, pack_super(sb, 255, 200))
    assert read_head(image).superblock == sb


def test_the_highest_sequence_wins_wherever_it_is(image: BlockDevice) -> None:
    sb = superblock(seq=1)
    format_area(image, sb)
    newest = replace(sb, seq=30, name="renamed")
    image.write_block(0, 254, pack_super(newest, 0, 254))
    image.write_block(0, 128, pack_super(replace(sb, seq=20, name="older"), 255, 128))
    assert read_head(image).superblock == newest


def test_equal_sequences_that_differ_are_not_guessed_about(image: BlockDevice) -> None:
    sb = superblock()
    image.write_block(0, 0, pack_super(sb, 0))
    image.write_block(0, 255, pack_super(replace(sb, name="other"), 255))
    head = read_head(image)
    assert head.superblocks == ()
    assert "contradict" in head.problems[0]


def test_formatting_counts_only_without_ready(image: BlockDevice) -> None:
    making = superblock(state=SetState.FORMATTING, seq=99)
    image.write_block(0, 0, pack_super(making, 0))
    assert read_head(image).superblock == making
    ready = superblock(seq=2)
    image.write_block(0, 255, pack_super(ready, 255))
    assert read_head(image).superblock == ready


def test_two_sets_in_one_area_are_a_problem(image: BlockDevice) -> None:
    image.write_block(0, 0, pack_super(superblock(), 0))
    image.write_block(0, 255, pack_super(superblock(OTHER), 255))
    head = read_head(image)
    assert head.superblock is None
    assert {sb.uuid for sb in head.superblocks} == {SET, OTHER}
    assert any("several sets" in problem for problem in head.problems)


def test_tables(image: BlockDevice) -> None:
    sb = superblock()
    format_area(image, sb)
    segment = sb.segments[0]
    entries = [Entry(252, SlotState.MAPPED, 5, 1), Entry(300, SlotState.LOST, 6, 2)]
    # Copy A is newer: a commit that was cut between its copies.
    image.write_block(0, segment.copy_a + 1, pack_table(SET, entries, 252, segment.copy_a + 1, 8))
    assert read_tables(image, sb).entries == tuple(entries)
    image.write_block(0, segment.copy_a + 1, b"\1" * BLOCK)
    assert read_tables(image, sb).entries == ()
    assert read_tables(image, sb).problems == ()
    image.write_block(0, segment.copy_b + 1, b"\1" * BLOCK)
    assert read_tables(image, sb).problems == (
        f"table block {segment.copy_a + 1}: no copy is left",
    )


def test_an_impossible_entry_is_reported(image: BlockDevice) -> None:
    sb = superblock()
    format_area(image, sb)
    home = sb.segments[0].copy_a
    wrong = [Entry(0, SlotState.MAPPED, sb.units, 1)]
    image.write_block(0, home, pack_table(SET, wrong, 0, home, 8))
    assert read_tables(image, sb).problems == (
        f"table block {home}: table block: unit lies outside of main",
    )


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
