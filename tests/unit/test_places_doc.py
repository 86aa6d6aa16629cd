# SPDX-License-Identifier: GPL-2.0-only
"""docs/places.md has a row for each place that the format fixes, and its cells say what they may.

That they are right is tested in a guest, by tests/guest/test_fixed_places.py.
"""

import re
from itertools import chain

import pytest
from guest.test_fixed_places import (
    AREA,
    MAIN,
    MAIN_BLOCKS,
    MAIN_ROWS,
    MOVES,
    NEW,
    REFUSED,
    ROWS,
    SENTENCES,
    UNTOUCHED,
    Row,
)

from dmremap.ondisk import BLOCK_SECTORS, HEAD_BLOCKS, SUPER_HOMES
from dmremap.ondisk.layout import OWN_BLOCKS, REFUGES, SCRATCH_BLOCKS, STANDINS, TAG_BLOCKS

TABLE = 3
COPY_A = range(HEAD_BLOCKS, HEAD_BLOCKS + TABLE)
COPY_B = range(AREA - TABLE, AREA)
COPIES_A, BOTH = MOVES
RESERVED = range(OWN_BLOCKS[-1] + 1, STANDINS[0])
PLACES = {
    "the first block": (NEW, [0]),
    "the control plane's": (NEW, OWN_BLOCKS),
    "reserved": (NEW, RESERVED),
    "never used": (NEW, sorted(set(STANDINS) - set(REFUGES))),
    "refuges": (NEW, REFUGES),
    "the second superblock": (NEW, SUPER_HOMES[1:]),
    "copy A": (NEW, COPY_A),
    "copy B": (NEW, COPY_B),
    "the last block": (NEW, [AREA - 1]),
    "used": (COPIES_A, range(128, 131)),
    "a used refuge": (COPIES_A, REFUGES[:1]),
    "used by both copies": (BOTH, range(128, 130)),
    "main's first block": (MAIN, [0]),
    "copies of the tag": (MAIN, TAG_BLOCKS[1:-1]),
    "scratch": (MAIN, SCRATCH_BLOCKS),
    "the end of the first MiB": (MAIN, [HEAD_BLOCKS - 1]),
    "the first of the data": (MAIN, [HEAD_BLOCKS]),
    "main's last block": (MAIN, [MAIN_BLOCKS - 1]),
}
STATE = r"(rw|ro)(, [1-9]\d* mended)?(, [1-9]\d* moved)?"
STATE_OF_MAIN = f"rw(, tag [0-{len(TAG_BLOCKS) - 1}])?(, maps nothing)?"


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("place", PLACES)
def test_each_place_is_there_with_its_neighbours(place: str, count: int) -> None:
    state, blocks = PLACES[place]
    assert [
        row
        for row in chain(ROWS, MAIN_ROWS)
        if row.state == state
        and row.blocks == tuple(range(row.blocks[0], row.blocks[0] + count))
        and set(row.blocks) & set(blocks)
    ]


@pytest.mark.parametrize(
    "blocks",
    [(place,) for place in (*TAG_BLOCKS, *SCRATCH_BLOCKS)]
    + [TAG_BLOCKS, SCRATCH_BLOCKS[:3], SCRATCH_BLOCKS, tuple(range(HEAD_BLOCKS))],
)
def test_each_place_of_main_is_there(blocks: tuple[int, ...]) -> None:
    assert blocks in [row.blocks for row in MAIN_ROWS]


def test_what_main_holds_beside_them_is_in_no_row() -> None:
    kept = {unit // BLOCK_SECTORS + HEAD_BLOCKS for unit in (*REFUSED, *UNTOUCHED)}
    assert not [row for row in MAIN_ROWS if kept & set(row.blocks)]


@pytest.mark.parametrize("row", [*ROWS, *MAIN_ROWS], ids=lambda row: row.name)
def test_cells(row: Row) -> None:
    assert row.state in (NEW, *MOVES, MAIN)
    state = STATE_OF_MAIN if row.state == MAIN else STATE
    load, running = row.cells[:3], row.cells[3:]
    assert len(running) == 3
    numbers = "|".join(SENTENCES)
    for cell in load:
        assert re.fullmatch(f"{state}|refused ({numbers})", cell)
    for cell in running:
        assert re.fullmatch(f"{state}(; ({state}|refused ({numbers})))?", cell)


def test_whoever_is_refused_is_told_what_to_do() -> None:
    assert SENTENCES
    for number, sentence in SENTENCES.items():
        assert "dmremapctl" in sentence
        assert any(
            cell.endswith(f"refused {number}")
            for row in chain(ROWS, MAIN_ROWS)
            for cell in row.cells
        ), number
