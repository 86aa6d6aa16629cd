# SPDX-License-Identifier: GPL-2.0-only
"""How much of a spare a new set takes, what that costs, and what is read for it."""

import json
import os
import subprocess
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from unit.areas import SB
from unit.shim import KERNEL, SHIM, empty_headers

from dmremap.cli import main
from dmremap.dm import module
from dmremap.errors import Refused
from dmremap.host import blockdev
from dmremap.host.blockdev import DeviceFacts, Signature
from dmremap.host.sizes import binary_size
from dmremap.ondisk import (
    BLOCK,
    HEAD_BLOCKS,
    MAX_SLOTS,
    BlockDevice,
    Segment,
    View,
    look,
    opened,
    segment_blocks,
    segment_for,
)
from dmremap.sets import assemble, create, extent, naming, seen
from dmremap.sets.create import Plan, Request
from dmremap.sets.extent import DEFAULT_SLOTS, SLOT_MEMORY, Cost

SCHEMA = json.loads(resources.files("dmremap").joinpath("schema/dmremap-1.json").read_text())
MIB = 1 << 20
UNITS = (512, 1024, 2048, 4096)
LARGE = 1 << 40  # sectors
SPARE = 64 * MIB // 512  # sectors, in a plan
FEW = 1 << 14
"""The slots that a set in a plan begins with, so that little has to be read."""
HEADS = 5 * MIB
"""More than is read before the area is: its first MiB, main's tag, where signatures may be."""


def slots(blocks: int, unit: int) -> int:
    segment = segment_for(blocks, unit)
    return segment.slots if segment else 0


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("count", [1, 8, 252, 253, 100_000, DEFAULT_SLOTS, MAX_SLOTS])
def test_the_smallest_segment_that_has_so_many_slots(unit: int, count: int) -> None:
    blocks = HEAD_BLOCKS + segment_blocks(count, unit)
    assert slots(blocks, unit) >= count > slots(blocks - 1, unit)


@pytest.mark.parametrize("unit", UNITS)
def test_what_a_set_takes_of_a_large_spare(unit: int) -> None:
    taken = extent.first_area(LARGE, unit, None)
    assert slots(taken // 8, unit) == DEFAULT_SLOTS
    assert slots(taken // 8 - 1, unit) < DEFAULT_SLOTS
    whole = extent.first_area(LARGE, unit, "all")
    assert slots(whole // 8, unit) == MAX_SLOTS > slots(whole // 8 - 1, unit)
    assert extent.first_area(LARGE, unit, LARGE) == LARGE


@pytest.mark.parametrize("asked", [None, "all"])
def test_a_small_spare_is_taken_whole(asked: Any) -> None:
    taken = extent.first_area(LARGE, 512, None)
    for room in (0, 7, 8, 2072, 16389, taken - 8, taken):
        assert extent.first_area(room, 512, asked) == room // 8 * 8
    assert extent.first_area(taken + 8, 512, None) == taken


def test_what_is_asked_for_is_taken() -> None:
    """What is not there is refused, not made less."""
    assert extent.first_area(100, 512, 16389) == 16384


def test_what_slots_cost() -> None:
    cost = Cost(DEFAULT_SLOTS, 0, 0)
    assert cost.memory == 24 * MIB
    assert cost.words == "24 MiB of memory while the set runs"
    assert extent.metadata(Segment(256, 1000, 252 * 4, 4)) == 8 * BLOCK


def test_the_bar_of_memory() -> None:
    """A set that nobody gave a size asks for 64 MB at most."""
    assert Cost(DEFAULT_SLOTS, 0, 0).memory <= 64_000_000


def test_the_memory_is_what_the_kernel_allocates(tmp_path: Path) -> None:
    """By the sizes of the kernel's own structures, as slots_create() and remap_ctr() use them."""
    text = (KERNEL / "dm-remap-slots.c").read_text()
    assert "r->nr_heads = r->nr_slots + r->nr_slots / 2;" in text
    source = tmp_path / "sizes.c"
    source.write_text(
        '#include "dm-remap.h"\n'
        "int sizes[3];\n"
        "int *find(void)\n"
        "{\n"
        "\tstruct remap *r = 0;\n"
        "\tsizes[0] = sizeof(*r->slot), sizes[1] = sizeof(*r->head);\n"
        "\tsizes[2] = sizeof(*r->mblock);\n"
        "\treturn sizes;\n"
        "}\n"
        "int printf(const char *, ...);\n"
        'int main(void) { find(); printf("%d %d %d", sizes[0], sizes[1], sizes[2]); return 0; }\n'
    )
    empty_headers(tmp_path, KERNEL / "dm-remap.h")
    options = ["-w", "-include", str(SHIM / "shim.h"), "-I", str(tmp_path), "-I", str(KERNEL)]
    subprocess.run(["cc", *options, "-c", str(source), "-o", str(tmp_path / "sizes.o")], check=True)
    program = tmp_path / "sizes"
    subprocess.run(["cc", str(tmp_path / "sizes.o"), "-o", str(program)], check=True)
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    slot, head, block = map(int, printed.split())
    allocated = slot + 1.5 * head + block / 252
    assert SLOT_MEMORY - 2 <= allocated <= SLOT_MEMORY


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (24 * MIB, "24 MiB"), (1 << 52, "4096 TiB")],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert binary_size(count) == text


# A plan, on images


class Images:
    """Main and spare as sparse files, and what is read of each, in bytes."""

    def __init__(self, where: Path) -> None:
        self.facts = {
            path: DeviceFacts(path, devno=number, sectors=sectors)
            for path, number, sectors in (
                (str(where / "main"), (0, 1), 64 * MIB // 512),
                (str(where / "spare"), (0, 0), SPARE),
            )
        }
        self.main, self.spare = self.facts
        for path, facts in self.facts.items():
            with open(path, "wb") as file:
                file.truncate(facts.sectors * 512)
        self.read = dict.fromkeys(self.facts, 0)

    def change(self, path: str, **changes: Any) -> None:
        self.facts[path] = replace(self.facts[path], **changes)

    def plan(self, **request: Any) -> Plan:
        return create.plan(Request(self.main, self.spare, **request))


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Images:
    made = Images(tmp_path)
    plainly = BlockDevice.read

    def read(self: BlockDevice, offset: int, length: int) -> bytes | None:
        made.read[self.path] += length
        return plainly(self, offset, length)

    monkeypatch.setattr(extent, "DEFAULT_SLOTS", FEW)
    monkeypatch.setattr(BlockDevice, "read", read)
    monkeypatch.setattr(BlockDevice, "devno", property(lambda self: made.facts[self.path].devno))
    monkeypatch.setattr(blockdev, "facts", lambda path, **_: made.facts[path])
    monkeypatch.setattr(blockdev, "with_signatures", lambda facts: facts)
    monkeypatch.setattr(module, "ensure", lambda **_: None)
    monkeypatch.setattr(naming, "need_free", lambda _name: None)
    monkeypatch.setattr(assemble, "start", lambda *_: None)
    monkeypatch.setattr(seen, "learn", lambda *_: ())
    return made


def test_a_plan_says_what_it_costs(images: Images) -> None:
    plan = images.plan()
    area = 256 * 8 + segment_blocks(FEW, 512) * 8
    assert plan.superblock.area_sectors == plan.area.sectors == plan.table.spare_len == area
    assert plan.cost == Cost(FEW, area * 512, 2 * 66 * BLOCK)
    where = f"{images.spare}, sectors 0 to {area - 1}"
    assert plan.steps[0] == f"read all 9.5 MiB of {where}"
    assert plan.steps[1] == f"write metadata of 16384 slots, 528 KiB, to {where}"
    left = SPARE - area
    assert plan.steps[2] == (
        f"leave {left} sectors of {images.spare} as they are: 'dmremapctl grow' can take them later"
    )
    assert plan.steps[-1] == "keep 384 KiB of memory while the set runs"


def test_what_somebody_has_asked_for(images: Images) -> None:
    whole = images.plan(spare_sectors="all")
    assert whole.area.sectors == SPARE
    assert whole.superblock.slots > FEW
    some = images.plan(spare_sectors=1 << 14)
    assert some.area.sectors == 1 << 14
    for plan in (whole, some):
        assert not any("leave" in step for step in plan.steps)
    behind = images.plan(spare_start=SPARE - 8192)
    assert (behind.area.start, behind.area.sectors) == (SPARE - 8192, 8192)
    with pytest.raises(Refused, match="ends at sector"):
        images.plan(spare_start=SPARE - 8192, spare_sectors=8200)


def test_more_than_a_set_can_have_is_not_read(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extent, "MAX_SLOTS", 1000)
    plan = images.plan(spare_sectors="all")
    assert plan.superblock.slots == 1000
    assert images.read[images.spare] < HEADS + 2 * MIB
    assert "no set has more than" in plan.steps[2]


def test_the_area_is_read_once(images: Images) -> None:
    """And after that the first MiB, and the places of the tables just before they are written."""
    plan = images.plan(spare_sectors="all")
    looked = images.read[images.spare] - plan.cost.reads
    assert 0 < looked < HEADS
    create.carry_out(plan)
    again = images.read[images.spare] - plan.cost.reads - looked
    assert plan.cost.writes <= again < plan.cost.writes + MIB + HEADS
    with open(images.spare, "rb") as file, opened(images.spare) as device:
        found = look(View(device, 0)).superblock
        assert file.seek(0, 2) == SPARE * 512
    assert found
    assert found.segments == plan.superblock.segments


def test_what_is_forced_is_not_read(images: Images) -> None:
    plan = images.plan(force=True)
    assert plan.cost.reads == 0
    assert images.read[images.spare] < HEADS
    assert not any(step.startswith("read") for step in plan.steps)


def test_all_of_a_spare_is_given_although_not_all_is_taken(images: Images) -> None:
    """So --force removes what is recognised at its end, and no hint asks for the whole device."""
    images.change(images.spare, signatures=(Signature("gpt", (SPARE - 1) * 512, ""),))
    with pytest.raises(Refused, match="holds gpt") as caught:
        images.plan()
    assert caught.value.code == "DMR-E503"
    assert "whole device" not in str(caught.value.hint)
    assert [finding.code for finding in images.plan(force=True).destroys] == ["DMR-E503"]
    with pytest.raises(Refused, match="outside of the area"):
        images.plan(force=True, spare_sectors=1 << 14)


def test_the_command(
    images: Images, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    def answer(*options: str) -> dict[str, Any]:
        main(["create", images.main, images.spare, *options, "-o", "json"])
        whole: dict[str, Any] = json.loads(capsys.readouterr().out)
        jsonschema.Draft202012Validator(SCHEMA).validate(whole)
        return whole

    made = answer("--dry-run")["data"]
    assert (made["slots"], made["memory_bytes"]) == (FEW, FEW * SLOT_MEMORY)
    assert made["reads_bytes"] == made["spare_sectors"] * 512 < SPARE * 512
    assert answer("--dry-run", "--spare-size", "all")["data"]["spare_sectors"] == SPARE
    asked = answer()["error"]["message"]  # there is no terminal
    assert "with 16384 slots (384 KiB of memory while the set runs)?" in asked


@pytest.mark.parametrize("unit", [256, 8192])
def test_blocks_that_no_set_can_have(images: Images, unit: int) -> None:
    images.change(images.main, logical=unit)
    with pytest.raises(Refused, match=f"logical blocks of {unit} bytes"):
        images.plan()


def test_a_little_that_is_left_is_no_slot() -> None:
    assert extent.left_over(SB, SB.area_sectors + 7, "/dev/sdb") is None
    assert extent.left_over(SB, SB.area_sectors + 16, "/dev/sdb") == (
        "leave 16 sectors of /dev/sdb as they are"
    )
    said = extent.left_over(SB, SB.area_sectors + 24, "/dev/sdb")
    assert said
    assert said.endswith("'dmremapctl grow' can take them later")
