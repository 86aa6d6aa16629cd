# SPDX-License-Identifier: GPL-2.0-only
"""docs/places.md has a row for each place that the format fixes, and its cells say what they may.

That they are right is tested in a guest, by tests/guest/test_fixed_places.py.
"""

import re

import pytest
from guest.test_fixed_places import AREA, MOVES, NEW, ROWS, SENTENCES, Row

from dmremap.ondisk import HEAD_BLOCKS, SUPER_HOMES
from dmremap.ondisk.layout import OWN_BLOCKS, REFUGES, STANDINS

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
}
STATE = r"(rw|ro)(, [1-9]\d* mended)?(, [1-9]\d* moved)?"


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("place", PLACES)
def test_each_place_is_there_with_its_neighbours(place: str, count: int) -> None:
    state, blocks = PLACES[place]
    assert [
        row
        for row in ROWS
        if row.state == state
        and row.blocks == tuple(range(row.blocks[0], row.blocks[0] + count))
        and set(row.blocks) & set(blocks)
    ]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_cells(row: Row) -> None:
    assert row.state in (NEW, *MOVES)
    load, running = row.cells[:3], row.cells[3:]
    assert len(running) == 3
    numbers = "|".join(SENTENCES)
    for cell in load:
        assert re.fullmatch(f"{STATE}|refused ({numbers})", cell)
    for cell in running:
        assert re.fullmatch(f"{STATE}(; ({STATE}|refused ({numbers})))?", cell)


def test_whoever_is_refused_is_told_what_to_do() -> None:
    assert SENTENCES
    for number, sentence in SENTENCES.items():
        assert "dmremapctl" in sentence
        assert any(cell.endswith(f"refused {number}") for row in ROWS for cell in row.cells), number
