# SPDX-License-Identifier: GPL-2.0-only
"""docs/format.md says what the header says, and is enough to write a reader from."""

import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from unit.areas import AREA_BLOCKS, HOMES, SB, SET, fresh, mapped, superblock

from dmremap.ondisk import BLOCK, TAG_BLOCKS, Entry, Epoch, SlotState, segment_for
from dmremap.ondisk._format import ffi, lib
from dmremap.ondisk.layout import (
    SCRATCH_BLOCKS,
    History,
    Tag,
    pack_empty_table,
    pack_super,
    pack_tag,
)

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "format.md").read_text()
HEADER = (ROOT / "kernel" / "dm-remap-format.h").read_text()
STRUCTS = ["header", "epoch", "super", "segment", "table", "entry", "tag", "own"]


def rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("|--"):
            yield [cell.strip().strip("`") for cell in line.strip("|").split("|")]


def section(title: str) -> str:
    """Return the text from a heading to the next one."""
    found = re.search(
        rf"^#+ [^\n]*{re.escape(title)}`?\n(.*?)(?=^#|\Z)", TEXT, re.MULTILINE | re.DOTALL
    )
    assert found, title
    return found[1]


def fields_in_header(name: str) -> list[str]:
    found = re.search(rf"^struct dmr_{name} \{{\n(.*?)^\}};", HEADER, re.MULTILINE | re.DOTALL)
    assert found
    return re.findall(r"(\w+)(?:\[\w+\])?;", found[1])


@pytest.mark.parametrize("name", STRUCTS)
def test_offsets_and_sizes(name: str) -> None:
    kind = f"struct dmr_{name}"
    table = [row for row in rows(section(kind)) if row[0].isdigit()]
    assert [row[2] for row in table] == fields_in_header(name)
    end = 0
    for offset, size, field, *_ in table:
        assert int(offset) == end == ffi.offsetof(kind, field), field
        end += int(size)
    assert end == ffi.sizeof(kind)


def test_every_structure_is_described() -> None:
    assert sorted(re.findall(r"^struct dmr_(\w+) \{", HEADER, re.MULTILINE)) == sorted(STRUCTS)


def test_constants() -> None:
    table = {row[0]: row[1] for row in rows(TEXT) if row[0].startswith("DMR_")}
    assert len(table) > 25
    for name, value in table.items():
        assert int(value) == getattr(lib, name), name
    numbers = set(re.findall(r"^#define (DMR_[A-Z0-9_]+)[ \t]+[(0-9\"]", HEADER, re.MULTILINE))
    told = {"DMR_MAGIC", "DMR_MAGIC_SIZE", "DMR_MAIN_TAGGED", "DMR_CHOSE_RATE"}  # in words
    assert numbers - set(table) == told
    assert "bit 0: main has a tag" in TEXT
    assert "bit 0: `remap_rate` counts" in TEXT
    assert (lib.DMR_MAIN_TAGGED, lib.DMR_CHOSE_RATE) == (1, 1)
    assert "0 nothing, 1 `confirm`, 2 `medium`" in TEXT
    assert (lib.DMR_CHOSE_CONFIRM, lib.DMR_CHOSE_MEDIUM) == (1, 2)


def test_places_on_main() -> None:
    for blocks, words in (
        (TAG_BLOCKS, "Type 3, in blocks {}"),
        (SCRATCH_BLOCKS, "Blocks {} of a tagged"),
    ):
        *most, last = map(str, blocks)
        assert words.format(f"{', '.join(most)} and {last}") in " ".join(TEXT.split())


def test_what_the_epochs_say() -> None:
    def raw(block: bytes, name: str) -> Any:
        return ffi.from_buffer(f"struct dmr_{name} *", bytearray(block))

    sb = raw(pack_super(superblock(epoch=Epoch(9, 90), before=Epoch(8, 80)), 0), "super")
    less = {"higher": (-1, 90), "the same": (0, 90), "one less": (1, 80), "less by more": (2, 70)}
    verdict = {
        "accepted": History.SAME,
        "refused: the spare is an older copy of itself": History.OLDER_SPARE,
        "refused: main was used with another copy of the spare": History.PARTED,
    }
    table = [row for row in rows(section("struct dmr_epoch")) if row[0] in less]
    assert {row[0] for row in table} == set(less)
    for number, whose, words in table:
        by, fitting = less[number]
        ids = {"any": (fitting, 5), "another": (5,)}.get(whose, (fitting,))
        found = {
            lib.dmr_history(sb, ffi.addressof(raw(pack_tag(tag, 1), "tag"), "epoch"))
            for one in ids
            for tag in [replace(Tag.of(SB, 0), epoch=Epoch(9 - by, one))]
        }
        assert found == {verdict[words.partition(": main is")[0]]}, number


def test_types_and_states() -> None:
    types = (lib.DMR_TYPE_SUPER, lib.DMR_TYPE_TABLE, lib.DMR_TYPE_TAG, lib.DMR_TYPE_OWN)
    assert types == (1, 2, 3, 4)
    assert "1 superblock, 2 table block, 3 tag, 4 the control plane's" in TEXT
    assert (lib.DMR_FORMATTING, lib.DMR_READY) == (1, 2)
    assert "1 FORMATTING, 2 READY" in TEXT


def test_the_example_of_a_checksum() -> None:
    found = re.search(r"being zero, with\n\n((?:    [0-9a-f ]+\n){3})", TEXT)
    assert found
    start = bytes.fromhex(found[1])
    assert pack_empty_table(SET, 256) == start.ljust(BLOCK, b"\0")


def test_the_example_of_a_segment() -> None:
    segment = segment_for(2048, 512)
    assert segment is not None
    assert (
        f"segment has {segment.blocks} blocks, {segment.slots} slots and {segment.table_blocks} "
        in TEXT
    )
    last = segment.copy_a + segment.table_blocks - 1
    words = " ".join(TEXT.split())
    assert f"copy A in blocks {segment.copy_a} to {last}, the slots from block {last + 1}" in words
    assert f"copy B in blocks {segment.copy_b} to 2047" in words


# ------------------------------------ a reader that knows nothing but the page


def crc32c(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def valid(block: bytes, kind: int, place: int) -> tuple[int, int] | None:
    """Return sequence and home."""
    magic, crc, type_, _, uuid, seq, home = struct.unpack_from("<8sIHH16sQQ", block)
    covered = uuid + struct.pack("<Q", place) + block[:8] + bytes(4) + block[12:]
    if magic != b"dm-remap" or type_ != kind or not 1 <= seq < 1 << 63 or crc32c(covered) != crc:
        return None
    return seq, home


def newest(image: bytes, kind: int, homes: tuple[int, int], standins: range) -> bytes:
    found: list[tuple[int, bytes]] = []
    for place in (*homes, *standins):
        block = image[place * 4096 : place * 4096 + 4096]
        good = valid(block, kind, place) if any(block) else None
        if good and good[1] in homes and (place in standins or good[1] == place):
            found.append((good[0], block))
    return max(found)[1]


def test_a_reader_written_from_the_page() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    entries = [mapped(0, 17, 2), Entry(251, SlotState.LOST, 18, 0), mapped(600, 2047)]
    disk = fresh(entries)
    image = bytes(disk.data)
    standins = range(128, 255)
    sb = newest(image, 1, (0, 255), standins)
    state, unit, area, count = struct.unpack_from("<IIQI", sb, 88)
    assert (state, unit, area, count) == (2, 512, AREA_BLOCKS, 1)
    assert UUID(bytes=sb[16:32]) == SET
    assert sb[304:432].rstrip(b"\0") == b"attic"
    start, blocks, slots, tables = struct.unpack_from("<QQII", sb, 512)
    assert [(start + i, start + blocks - tables + i) for i in range(tables)] == list(HOMES)
    live = {}
    for index in range(tables):
        homes = (start + index, start + blocks - tables + index)
        table = newest(image, 2, homes, standins)
        for i in range(min(252, slots - index * 252)):
            mapped_unit, state_gen, zero = struct.unpack_from("<QII", table, 64 + 16 * i)
            assert zero == 0
            if state_gen:
                live[index * 252 + i] = (mapped_unit, state_gen & 255, state_gen >> 8)
    assert live == {0: (17, 1, 2), 251: (18, 2, 0), 600: (2047, 1, 0)}


def test_the_reader_agrees_about_every_kind_of_block() -> None:
    assert valid(pack_super(SB, 255, 130), 1, 130) == (2, 255)
    assert valid(pack_super(SB, 255, 130), 1, 255) is None
    assert valid(pack_tag(Tag(SET, "x", 4096, 2048, 512), 255), 3, 255) == (1, 255)
