# SPDX-License-Identifier: GPL-2.0-only
"""The sets that are measured are what their rows say of them."""

from array import array
from pathlib import Path

import pytest
from harness.bench import plan
from harness.bench.plan import ORDERS, Order
from unit.areas import entries_of

from dmremap.ondisk import BLOCK, opened
from dmremap.ondisk.check import examine


def test_the_area_has_just_the_slots_that_are_mapped() -> None:
    assert plan.segment().slots == plan.SLOTS
    assert plan.segment().table_blocks == plan.TABLE_BLOCKS
    units = plan.mapped_units()
    assert len(units) == len(set(units)) == plan.SLOTS
    assert max(units) < plan.MAIN_UNITS


def test_scattered_units_are_all_over_main_and_not_in_the_stretch() -> None:
    scattered = plan.mapped_units()[: plan.SCATTERED]
    assert not any(plan.in_dense(unit) for unit in scattered)
    tenths = [0] * 10
    for unit in scattered:
        tenths[unit * 10 // plan.MAIN_UNITS] += 1
    assert min(tenths) > 0.98 * plan.SCATTERED / 10


def test_the_stretch_has_successive_units_in_successive_slots() -> None:
    stretch = plan.mapped_units()[plan.SCATTERED :]
    assert list(stretch) == list(range(plan.DENSE_START, plan.DENSE_START + plan.DENSE))


@pytest.mark.parametrize("order", ORDERS)
def test_reads_of_unmapped_units_meet_no_mapping(order: Order) -> None:
    positions = plan.unmapped(order).logical
    assert len(positions) >= plan.COUNT
    assert not {offset // plan.UNIT for offset in positions} & set(plan.mapped_units())


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("where", ["scattered", "dense"])
def test_reads_of_mapped_units_are_compared_at_the_slots_that_serve_them(
    where: str, order: Order
) -> None:
    positions = plan.WHERE[where](order)
    assert len(positions.logical) == len(positions.served) == plan.COUNT
    units, data = plan.mapped_units(), plan.segment().data * BLOCK
    for logical, served in zip(positions.logical, positions.served, strict=True):
        slot = (served - data) // plan.UNIT
        assert units[slot] * plan.UNIT == logical
        assert plan.in_dense(units[slot]) == (where == "dense")


@pytest.mark.parametrize("where", plan.WHERE)
def test_positions_are_aligned_inside_main_and_in_order(where: str) -> None:
    size = plan.LARGE if where == "large" else plan.UNIT
    for order in ORDERS:
        positions = plan.WHERE[where](order).logical
        assert all(at % size == 0 and at + size <= plan.MAIN_BYTES for at in positions)
        assert (list(positions) == sorted(positions)) == (order == "sequential")


def test_the_images_hold_the_sets(tmp_path: Path) -> None:
    for name in plan.UUIDS:
        plan.write_image(name, tmp_path / name)
        assert (tmp_path / name).stat().st_size == plan.AREA_BYTES
        assert (tmp_path / name).stat().st_blocks * 512 < 64 << 20
    with opened(str(tmp_path / "full")) as device:
        load = examine(device)
    assert load.uuid == plan.UUIDS["full"]
    assert not load.findings
    assert array("Q", (entry.unit for entry in entries_of(load))) == plan.mapped_units()


def test_positions_are_written_as_the_program_reads_them(tmp_path: Path) -> None:
    plan.write_positions(tmp_path)
    read = array("Q", (tmp_path / "dense-random-served").read_bytes())
    assert tuple(read) == plan.dense("random").served
    assert len(list(tmp_path.iterdir())) == len(plan.WHERE) * len(ORDERS) * 2
