# SPDX-License-Identifier: GPL-2.0-only
"""The sets that are measured, and where on them I/O goes. Pure, and the same in every run.

Main is 1 TiB of 4 KiB blocks, so a unit is 4 KiB and one read of 4 KiB is one unit. Both sets
have SLOTS slots: ``empty`` maps nothing. ``full`` maps all: DENSE units that follow each other,
in slots that follow each other, and the rest scattered at random over all of main. So the lookup
table is as full as it gets, and a read of an unmapped unit anywhere finds the chain of its region
as long as the chains are on average.
"""

from __future__ import annotations

import functools
from array import array
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from dmremap.ondisk import (
    BLOCK,
    BLOCK_SECTORS,
    HEAD_BLOCKS,
    Segment,
    SetState,
    Superblock,
    opened,
    segment_for,
    write_mapped_area,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

SECTOR = 512
UNIT = BLOCK
SLOTS = 1_000_000
MAIN_BYTES = 1 << 40
MAIN_UNITS = MAIN_BYTES // UNIT
DENSE = 1 << 16
DENSE_START = MAIN_UNITS // 2
"""Units [DENSE_START, DENSE_START + DENSE) are in slots [SLOTS - DENSE, SLOTS)."""
SCATTERED = SLOTS - DENSE
SEED = 6

TABLE_BLOCKS = -(-SLOTS // 252)
AREA_BLOCKS = HEAD_BLOCKS + 2 * TABLE_BLOCKS + SLOTS
AREA_BYTES = AREA_BLOCKS * BLOCK
AREA_SECTORS = AREA_BLOCKS * BLOCK_SECTORS

LARGE = 128 << 10
"""Bytes of a large read."""
COUNT = 2500
"""I/Os in one measurement, of 4 KiB."""
LARGE_COUNT = 600

SetName = Literal["empty", "full"]
UUIDS: dict[SetName, UUID] = {
    "empty": UUID("5e700000-0000-4000-8000-000000000000"),
    "full": UUID("5e7f0000-0000-4000-8000-00000000ffff"),
}

Order = Literal["random", "sequential"]
ORDERS: tuple[Order, ...] = ("random", "sequential")


def segment() -> Segment:
    """Return the one segment of both sets."""
    made = segment_for(AREA_BLOCKS, UNIT)
    assert made is not None
    return made


def superblock(name: SetName) -> Superblock:
    """Describe a set."""
    return Superblock(
        uuid=UUIDS[name],
        name=name,
        state=SetState.READY,
        unit=UNIT,
        area_blocks=AREA_BLOCKS,
        segments=(segment(),),
        tagged=False,
        main_sectors=MAIN_BYTES // SECTOR,
        data_start=0,
        data_sectors=MAIN_BYTES // SECTOR,
    )


def table_line(name: SetName, main: str, spare: str) -> str:
    """Return the table of a set."""
    size = MAIN_BYTES // SECTOR
    return f"0 {size} remap {main} {spare} 0 {AREA_SECTORS} 2 uuid {UUIDS[name]}"


def in_dense(unit: int) -> bool:
    """Say whether a unit is in the fully mapped stretch."""
    return DENSE_START <= unit < DENSE_START + DENSE


@functools.cache
def mapped_units() -> array[int]:
    """Return the unit of each slot of the full set."""
    random = Random(SEED)
    some = random.sample(range(MAIN_UNITS), SCATTERED + 4 * DENSE)
    scattered = [unit for unit in some if not in_dense(unit)][:SCATTERED]
    return array("Q", [*scattered, *range(DENSE_START, DENSE_START + DENSE)])


def write_image(name: SetName, path: Path) -> None:
    """Write the sparse image of a spare with a set: 3.9 GiB of which 32 MiB are data."""
    with path.open("wb") as file:
        file.truncate(AREA_BYTES)
    with opened(str(path), write=True) as device:
        write_mapped_area(device, superblock(name), mapped_units() if name == "full" else ())


@dataclass(frozen=True)
class Positions:
    """Where one measurement goes, in bytes: on the mapped device, and on what serves it."""

    logical: tuple[int, ...]
    served: tuple[int, ...]
    """The same on main, or in the slots of the spare."""


def _on_main(units: Iterable[int]) -> Positions:
    offsets = tuple(unit * UNIT for unit in units)
    return Positions(offsets, offsets)


def _on_slots(slots: Iterable[int]) -> Positions:
    chosen = list(slots)
    units = mapped_units()
    data = segment().data * BLOCK
    return Positions(
        tuple(units[slot] * UNIT for slot in chosen),
        tuple(data + slot * UNIT for slot in chosen),
    )


def _spread(limit: int, count: int, order: Order) -> list[int]:
    """Return numbers below a limit: at random, or one after the other from a random one on."""
    random = Random(SEED + count)
    if order == "random":
        return random.choices(range(limit), k=count)
    start = random.randrange(limit - count)
    return list(range(start, start + count))


def anywhere(order: Order) -> Positions:
    """4 KiB anywhere on main."""
    return _on_main(_spread(MAIN_UNITS, COUNT, order))


def large(order: Order) -> Positions:
    """128 KiB anywhere on main."""
    step = LARGE // UNIT
    return _on_main(n * step for n in _spread(MAIN_UNITS // step, LARGE_COUNT, order))


def unmapped(order: Order) -> Positions:
    """4 KiB anywhere on main but in units that the full set maps."""
    mapped = set(mapped_units())
    return _on_main(
        unit for unit in _spread(MAIN_UNITS, COUNT + COUNT // 10, order) if unit not in mapped
    )


def scattered(order: Order) -> Positions:
    """4 KiB in scattered units of the full set: in any order of units, or in ascending order."""
    slots = _spread(SCATTERED, COUNT, "random")
    units = mapped_units()
    return _on_slots(sorted(slots, key=units.__getitem__) if order == "sequential" else slots)


def dense(order: Order) -> Positions:
    """4 KiB in the fully mapped stretch of the full set."""
    return _on_slots(SLOTS - DENSE + slot for slot in _spread(DENSE, COUNT, order))


WHERE: dict[str, Callable[[Order], Positions]] = {
    "anywhere": anywhere,
    "large": large,
    "unmapped": unmapped,
    "scattered": scattered,
    "dense": dense,
}


def write_positions(directory: Path) -> None:
    """Write a file of native 64-bit offsets for each kind: ``<where>-<order>-<side>``."""
    for where, make in WHERE.items():
        for order in ORDERS:
            positions = make(order)
            for side in ("logical", "served"):
                data = array("Q", getattr(positions, side)).tobytes()
                (directory / f"{where}-{order}-{side}").write_bytes(data)
