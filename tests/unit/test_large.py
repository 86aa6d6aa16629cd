# SPDX-License-Identifier: GPL-2.0-only
"""A large set: what is read of it, and the memory that looking at it takes."""

import tracemalloc
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from unit.areas import SB

from dmremap.ondisk import (
    BLOCK,
    HEAD_BLOCKS,
    BlockDevice,
    Segment,
    View,
    format_area,
    look,
    opened,
    segment_blocks,
    segment_for,
)
from dmremap.ondisk.backup import decode, encode
from dmremap.ondisk.check import examine
from dmremap.ondisk.load import Counts, lookup, read_set
from dmremap.sets import offline

MIB = 1 << 20
SLOTS = 252 * 500
AREA = HEAD_BLOCKS + segment_blocks(SLOTS, 512)
SEGMENT = cast("Segment", segment_for(AREA, 512))
LARGE = replace(SB, area_blocks=AREA, segments=(SEGMENT,), seq=1)
TABLES = 2 * SEGMENT.table_blocks * BLOCK


@pytest.fixture
def image(tmp_path: Path) -> str:
    """A spare of 66 MiB with a set that has nothing mapped."""
    path = tmp_path / "spare.img"
    with path.open("wb") as file:
        file.truncate(AREA * BLOCK)
    with opened(str(path), write=True) as device:
        format_area(device, LARGE)
    return str(path)


def read_by(monkeypatch: pytest.MonkeyPatch, function: Callable[[], object]) -> int:
    """Return how many bytes of devices a function reads."""
    plainly, sizes = BlockDevice.read, []

    def read(self: BlockDevice, offset: int, length: int) -> bytes | None:
        sizes.append(length)
        return plainly(self, offset, length)

    with monkeypatch.context() as patch:
        patch.setattr(BlockDevice, "read", read)
        function()
    return sum(sizes)


def test_who_looks_reads_the_tables_and_no_slot(
    image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = offline.locate(image)
    for function, tables in (
        (lambda: offline.check(place), TABLES),
        (lambda: offline.member(place), TABLES),
        (lambda: offline.export(place), 2 * TABLES),
        (lambda: find(image), 0),
    ):
        assert tables < read_by(monkeypatch, function) <= tables + 3 * MIB < AREA * BLOCK // 3


def find(image: str) -> None:
    """Look as far as whoever looks for sets does."""
    with opened(image) as device:
        assert look(View(device, 0)).accepted


def test_progress_is_in_bytes(image: str) -> None:
    seen: list[tuple[int, int]] = []
    with opened(image) as device:
        read_set(View(device, 0), None, lambda *step: seen.append(step))
    assert seen == [(TABLES // 2, TABLES), (TABLES, TABLES)]


def peak(function: Callable[[], object]) -> int:
    """Return how many bytes a function takes at most, beyond what there was."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("stride", [1, 8, 252, 256])
def test_the_lookup_takes_a_few_bytes_a_unit(image: str, stride: int) -> None:
    with opened(image) as device:
        load = read_set(View(device, 0), None)
    mapped = 0
    for block in load.blocks[1:]:
        # Unit, then state and generation: MAPPED.
        entries = array("Q", [1] * 504)
        entries[::2] = array("Q", range(mapped, mapped + 252 * stride, stride))
        block.body = entries.tobytes()
        mapped += 252 * stride
    count = 252 * (len(load.blocks) - 1)
    assert peak(lambda: lookup(load)) < 16 * count + MIB // 4
    assert load.counts == Counts(SEGMENT.slots, count, 0, 0, SEGMENT.slots - count)
    assert not load.refusals


def test_a_backup_is_not_in_memory_as_a_whole(image: str) -> None:
    with opened(image) as device:
        data = encode(examine(device), 5)
    assert peak(lambda: decode(data)) < TABLES // 4
