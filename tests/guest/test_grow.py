# SPDX-License-Identifier: GPL-2.0-only
"""Sets that grow: what the kernel takes for an extension, what dmremapctl makes of it.

In a guest, as root. Areas are counted in sectors, metadata in blocks of the area.
"""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from guest import answers, dmioctl
from guest.lib import (
    MIB,
    CommandError,
    Device,
    background,
    describe,
    dm_create,
    dm_device,
    dm_load,
    dm_names,
    dm_reload,
    dm_resume,
    dm_suspend,
    loop_device,
    pattern,
    read,
    try_write,
    write,
)
from guest.remapset import (
    SMALLEST_AREA,
    KernelLog,
    contents,
    held,
    mapped,
    refusal,
    remap_set,
    status,
    table,
    texts,
    without_epochs,
)

from dmremap.cli import main as dmremapctl
from dmremap.dm.lines import parse_table_line
from dmremap.ondisk import (
    BLOCK,
    Entry,
    Segment,
    SlotState,
    Superblock,
    View,
    extension_for,
    look,
    opened,
)
from dmremap.ondisk.layout import pack_empty_table, pack_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from uuid import UUID

    from guest.remapset import RemapSet

pytestmark = [pytest.mark.guest, pytest.mark.module]

AREA, SPARE = 4096, 8192
UNPREPARED = "spare_len is more than the set has recorded: run dmremapctl grow"


class Answer(answers.Answer):
    @property
    def words(self) -> str:
        error = self.whole["error"]
        return " ".join([error["message"], error["hint"], *error["notes"]])


Ctl = Callable[..., Answer]


@pytest.fixture
def grow(capfd: pytest.CaptureFixture[str]) -> Ctl:
    return lambda *args: Answer(*answers.ask(capfd, "grow", *args, "--yes"))


@pytest.fixture
def half() -> Iterator[RemapSet]:
    """A set that has the first half of its spare."""
    with remap_set("remap_rate", "0", spare_len=AREA) as made:
        yield made


def superblock(one: RemapSet, start: int = 0) -> Superblock:
    with opened(str(one.spare_disk)) as device:
        load = look(View(device, start))
    assert not load.refusals
    assert load.superblock
    return load.superblock


def extension(one: RemapSet, to: int = SPARE) -> Segment:
    segment = extension_for(superblock(one), to // 8)
    assert segment
    return segment


def homes(segment: Segment) -> list[int]:
    """Return the places of all table blocks, in the order in which they are written."""
    return [
        first + i for first in (segment.copy_a, segment.copy_b) for i in range(segment.table_blocks)
    ]


def put(one: RemapSet, place: int, block: bytes) -> None:
    write(one.spare_disk, place * 8, block)


def prepare(one: RemapSet, to: int = SPARE, count: int | None = None) -> Segment:
    """Write the first so many table blocks of an extension."""
    uuid, segment = superblock(one).uuid, extension(one, to)
    for home in homes(segment)[:count]:
        put(one, home, pack_empty_table(uuid, home))
    return segment


def longer(one: RemapSet, to: int = SPARE) -> str:
    return replace(parse_table_line(one.line), spare_len=to).line


def load_refused(one: RemapSet, line: str, reason: str = UNPREPARED) -> None:
    """Load a table that ctr must refuse; the one in force goes on."""
    with KernelLog() as log, pytest.raises(CommandError):
        dm_load(one.name, line)
    assert reason in log.text
    assert one.status.mode == "rw"
    assert not dmioctl.lines(one.name, inactive=True)
    write(one.path, 4000, pattern(4000, 8, 3))
    assert held(one.path, 4000, 8) == texts(4000, 8, 3)


def resume_refused(one: RemapSet, reason: str) -> None:
    """Put a table in force that the load must refuse; then give the set its old one back."""
    with KernelLog() as log, pytest.raises(CommandError):
        dm_resume(one.name)
    assert reason in log.text
    assert dmioctl.info(one.name).suspended
    dm_reload(one.name, one.line)
    assert one.status.mode == "rw"


def fill(one: RemapSet, first: int, count: int, generation: int = 1) -> None:
    """Let main refuse sectors, and write to them one by one."""
    one.main.add(first, count, "write", "medium")
    for sector in range(first, first + count):
        write(one.path, sector, pattern(sector, 1, generation))


def grown_slots(one: RemapSet, to: int = SPARE) -> int:
    return superblock(one).slots + extension(one, to).slots


@contextmanager
def writer(one: RemapSet, first: int, count: int = 64) -> Iterator[Callable[[], int]]:
    """Write and verify a range as long as the block runs; gives the number of rounds so far."""
    stop, rounds = threading.Event(), 0

    def work() -> None:
        nonlocal rounds
        with Device(one.path) as device:
            while not stop.is_set():
                device.write(first, pattern(first, count, rounds + 1))
                assert describe(device.read(first, count)) == texts(first, count, rounds + 1)
                rounds += 1

    future = background(work)
    try:
        yield lambda: rounds
    finally:
        stop.set()
        future.result(60)


# What dmremapctl does


def test_a_full_set_grows_while_it_works(grow: Ctl) -> None:
    with remap_set("remap_rate", "0", spare_len=SMALLEST_AREA) as one:
        slots = one.status.slots
        fill(one, 1000, slots)
        one.main.add(2000, 100, "write", "medium")
        assert one.status.free == 0
        assert try_write(one.path, 2000, pattern(2000)) != "OK"
        expected = grown_slots(one)

        with writer(one, 0) as rounds:
            data = grow("set").data
            during = rounds()
        assert during > 0
        assert (data["slots_before"], data["slots"]) == (slots, expected)
        assert data["result"] == "grown"
        line = table("set")
        assert (line.spare_len, line.remap_rate) == (SPARE, 0)
        assert data["table"] == line.line

        shown = one.status
        assert (shown.mode, shown.slots, shown.mapped) == ("rw", expected, slots)
        assert held(one.path, 1000, slots) == texts(1000, slots, 1)
        for sector in range(2000, 2100):
            write(one.path, sector, pattern(sector, 1, 2))
        everything = [*range(1000, 1000 + slots), *range(2000, 2100)]
        assert one.mapped == everything

        one.remove()
        log = refusal(one.line)
        assert "spare_len is less than the set has recorded" in log
        dm_create("set", line.line)
        assert (one.status.slots, one.mapped) == (expected, everything)
        assert held(one.path, 1000, slots) == texts(1000, slots, 1)
        assert held(one.path, 2000, 100) == texts(2000, 100, 2)
        assert held(one.main.path, 2000) == ["zero"]


def test_dry_run(grow: Ctl, half: RemapSet) -> None:
    before = contents(half.spare_disk)
    data = grow("set", "--dry-run").data
    assert (data["result"], data["spare_sectors"]) == ("would grow", SPARE)
    assert len(data["steps"]) == 5
    assert contents(half.spare_disk) == before
    assert half.status.slots == data["slots_before"]


def test_it_grows_twice(grow: Ctl, half: RemapSet, tmp_path: Path) -> None:
    fill(half, 1000, 10)
    first = grow("set", "--by", "1M").data
    assert (first["spare_sectors"], first["segments"]) == (AREA + 2048, 2)
    fill(half, 1100, 10)
    second = grow(first["uuid"], "--to", SPARE).data
    assert (second["segments"], second["slots_before"]) == (3, first["slots"])
    fill(half, 1200, 10)
    everything = [*range(1000, 1010), *range(1100, 1110), *range(1200, 1210)]
    assert half.mapped == everything
    line = table("set").line
    half.remove()
    image = tmp_path / "spare.img"
    image.write_bytes(read(half.spare_disk, 0, SPARE))
    assert dmremapctl(["check", str(image)]) == 0
    dm_create("set", line)
    assert half.mapped == everything
    assert half.status.slots == second["slots"] == superblock(half).slots
    assert grow("set").error == "DMR-E527"
    assert grow("set", "--by", "1M").error == "DMR-E511"


def test_it_can_be_repeated_after_any_cut(grow: Ctl, half: RemapSet) -> None:
    segment = extension(half)
    assert segment.table_blocks == 16
    fill(half, 1000, 10)
    for written in (1, 15, 16, 17, 31):
        prepare(half, count=written)
        load_refused(half, longer(half))
        half.recreate()
        assert half.mapped == list(range(1000, 1010))
        assert len(superblock(half).segments) == 1
        assert grow("set", "--dry-run").code == 0
    assert grow("set").data["slots"] == half.status.slots
    assert half.mapped == list(range(1000, 1010))


def test_after_a_cut_it_may_grow_less_far_or_farther(grow: Ctl, half: RemapSet) -> None:
    prepare(half, AREA + 2048)
    load_refused(half, longer(half))
    load_refused(half, longer(half, AREA + 1024))
    assert grow("set", "--by", 1024).data["spare_sectors"] == AREA + 1024
    assert grow("set").data["spare_sectors"] == SPARE
    half.remove()
    dm_create("set", longer(half))


def test_an_extension_that_is_not_blank_is_left_alone(grow: Ctl, half: RemapSet) -> None:
    segment = extension(half)
    blank = contents(half.spare_disk)
    for place in (segment.copy_a, segment.data + 3, SPARE // 8 - 1):
        put(half, place, bytes(BLOCK - 1) + b"x")
        before = contents(half.spare_disk)
        answer = grow("set")
        assert answer.error == "DMR-E505"
        assert str(place * BLOCK) in answer.words
        assert contents(half.spare_disk) == before
        put(half, place, bytes(BLOCK))

    half.spare.add(place * 8 + 7, 1, "read", "medium")
    answer = grow("set")
    assert answer.error == "DMR-E518"
    assert str(place * BLOCK) in answer.words
    assert contents(half.spare_disk) == blank
    half.spare.clear()
    assert grow("set").code == 0


def test_the_area_of_another_set_behind(grow: Ctl, half: RemapSet) -> None:
    with loop_device(8 * MIB) as main:
        line = f"0 8192 remap {main} {half.spare.path} {AREA + 1024} {SMALLEST_AREA}"
        with dm_device("two", line):
            answer = grow("set")
            assert (answer.error, "'two'" in answer.words) == ("DMR-E403", True)
            assert grow("set", "--to", AREA + 1032).error == "DMR-E403"
            assert grow("set", "--to", AREA + 1024).code == 0
        answer = grow("set")
        assert (answer.error, "metadata of a set" in answer.words) == ("DMR-E504", True)


def test_what_else_is_on_the_spare(grow: Ctl, half: RemapSet) -> None:
    with dm_device("holder", f"0 8 linear {half.spare.path} {SPARE - 8}"):
        answer = grow("set")
        assert (answer.error, "holder" in answer.words) == ("DMR-E403", True)
    entry = struct.pack("<B3sB3sII", 0, bytes(3), 0x83, bytes(3), 2048, 2048)
    with remap_set(spare_start=2048, spare_len=SMALLEST_AREA, name="two") as two:
        write(two.spare_disk, 0, bytes(446) + entry + bytes(48) + b"\x55\xaa")
        answer = grow("two")
        assert (answer.error, " dos," in answer.words) == ("DMR-E503", True)


def test_a_set_that_cannot_grow_now(grow: Ctl, half: RemapSet) -> None:
    assert grow("nobody").error == "DMR-E303"
    dm_suspend("set")
    assert grow("set").error == "DMR-E409"
    dm_resume("set")
    dm_load("set", f"0 8 linear {half.main_disk} 0")
    assert grow("set").error == "DMR-E409"
    dmioctl.clear("set")
    half.recreate(readonly=True)
    assert grow("set").error == "DMR-E529"
    half.remove()
    answer = grow("set")
    assert (answer.error, "assemble" in answer.words) == ("DMR-E303", True)


def test_an_attempt_that_was_killed_before_the_resume(grow: Ctl, half: RemapSet) -> None:
    prepare(half)
    dm_load("set", longer(half))
    assert half.status.mode == "rw", "the old table answers"
    assert grow("set").data["spare_sectors"] == SPARE
    assert half.status.mode == "rw"


def test_a_signal_does_not_leave_it_suspended(half: RemapSet) -> None:
    half.spare.hold("write", 0, 8)
    program = "import sys; from dmremap.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "grow", "set", "--yes"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    half.spare.wait_held()  # in the resume, which writes superblock 0
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    half.spare.release()
    out, _ = process.communicate(timeout=60)
    assert b"DMR-E109" in out
    assert (half.status.mode, table(half.name).spare_len) == ("rw", SPARE)
    assert try_write(half.path, 0, pattern(0)) == "OK"


def test_a_name_with_blanks(grow: Ctl, capfd: pytest.CaptureFixture[str]) -> None:
    with loop_device(8 * MIB) as main, loop_device(SPARE * 512) as spare:
        made = ("create", main, spare, "--name", "my set", "--spare-size", AREA, "--yes")
        assert Answer(*answers.ask(capfd, *made)).data
        assert grow("my set").data["spare_sectors"] == SPARE
        assert Answer(*answers.ask(capfd, "remove", "my set", "--yes")).data


def test_tables_that_cannot_be_written(grow: Ctl, half: RemapSet) -> None:
    segment = extension(half)
    half.spare.add((segment.copy_b + 3) * 8, 1, "write", "medium")
    answer = grow("set")
    assert answer.error == "DMR-E103"
    assert "can be repeated" in answer.words
    assert (half.status.mode, table("set").spare_len) == ("rw", AREA)
    half.spare.clear()
    assert grow("set").code == 0


def test_superblocks_that_cannot_be_written(grow: Ctl, half: RemapSet) -> None:
    fill(half, 1000, 10)
    half.spare.add(0, 2048, "write", "medium")
    answer = grow("set")
    assert answer.code
    assert "old table back" in answer.words
    # It cannot begin an epoch.
    assert (half.status.mode, table("set").spare_len) == ("ro", AREA)
    assert half.mapped == list(range(1000, 1010))
    write(half.path, 0, pattern(0, 8))
    half.spare.clear()
    half.recreate()
    assert grow("set").data["slots"] == half.status.slots


def test_one_superblock_is_written_and_then_the_other(grow: Ctl, half: RemapSet) -> None:
    # Superblock 1 fails at home and on all eight refuges, which is when the load gives up.
    half.spare.add(128 * 8, 128 * 8, "write", "medium", 9)
    answer = grow("set")
    assert answer.data["spare_sectors"] == SPARE
    assert "second attempt" in answer.whole["warnings"][0]
    assert half.status.mode == "rw"
    fill(half, 1000, 10)


# What the kernel takes


def test_no_tables(half: RemapSet) -> None:
    before = contents(half.spare_disk)
    load_refused(half, longer(half))
    load_refused(half, longer(half, AREA + 8), "a set grows by at least 3 blocks")
    assert contents(half.spare_disk) == before


def wrong_uuid(uuid: UUID, home: int) -> bytes:
    del uuid
    return pack_empty_table(uuid4(), home)


def wrong_home(uuid: UUID, home: int) -> bytes:
    return pack_empty_table(uuid, home + 1)


def used(uuid: UUID, home: int) -> bytes:
    return pack_table(uuid, [Entry(0, SlotState.MAPPED, 5, 0)], 0, home, 1)


def bad(uuid: UUID, home: int) -> bytes:
    return pack_table(uuid, [Entry(7, SlotState.BAD, 0, 0)], 0, home, 1)


def torn(uuid: UUID, home: int) -> bytes:
    return pack_empty_table(uuid, home)[:-1] + b"x"


def test_tables_that_are_not_empty_and_ours(grow: Ctl, half: RemapSet) -> None:
    uuid, places = superblock(half).uuid, homes(prepare(half))
    for make in (wrong_uuid, wrong_home, used, bad, torn):
        for index in (31, 16, 0):
            put(half, places[index], make(uuid, places[index]))
            load_refused(half, longer(half))
            if index:
                put(half, places[index], pack_empty_table(uuid, places[index]))
        before = contents(half.spare_disk)
        assert grow("set").error in ("DMR-E504", "DMR-E505")
        assert contents(half.spare_disk) == before
    half.remove()
    assert UNPREPARED in refusal(longer(half))
    assert contents(half.spare_disk) == before


def test_a_table_that_cannot_be_read(half: RemapSet) -> None:
    home = homes(prepare(half))[16]
    half.spare.add(home * 8, 1, "read", "medium")
    load_refused(half, longer(half))


def test_read_only(half: RemapSet) -> None:
    prepare(half)
    half.remove()
    before = contents(half.spare_disk)
    log = refusal(longer(half), readonly=True)
    assert "spare_len is more than the set has recorded, and the table is read-only" in log
    assert contents(half.spare_disk) == before
    half.create()


def test_growing_when_it_is_created(half: RemapSet) -> None:
    slots = grown_slots(half)
    fill(half, 1000, 10)
    prepare(half)
    half.remove()
    dm_create("set", longer(half))
    assert (half.status.slots, half.mapped) == (slots, list(range(1000, 1010)))
    assert superblock(half).slots == slots


def grown_parts(half: RemapSet) -> tuple[list[bytes], list[bytes]]:
    """Let the set grow and remove it; return both superblocks before and after."""
    fill(half, 1000, 10)
    prepare(half)
    before = [read(half.spare_disk, home * 8, 8) for home in (0, 255)]
    dm_reload("set", longer(half))
    after = [read(half.spare_disk, home * 8, 8) for home in (0, 255)]
    half.remove()
    assert before[0] != after[0]
    assert before[1] != after[1]
    return before, after


@pytest.mark.parametrize("old", [0, 1])
def test_a_cut_between_the_superblocks(half: RemapSet, old: int) -> None:
    before, _ = grown_parts(half)
    put(half, (0, 255)[old], before[old])
    assert "spare_len is less than the set has recorded" in refusal(half.line)
    dm_create("set", longer(half))
    fill(half, 1100, 10)
    assert half.mapped == [*range(1000, 1010), *range(1100, 1110)]
    sb = superblock(half)
    assert half.status.slots == sb.slots
    with opened(str(half.spare_disk)) as device:
        bodies = {(device.read_block(0, home) or b"")[64:] for home in (0, 255)}
    assert len(bodies) == 1


def test_a_cut_before_the_superblocks(half: RemapSet) -> None:
    before, _ = grown_parts(half)
    for home, block in zip((0, 255), before, strict=True):
        put(half, home, block)
    half.create()
    assert half.mapped == list(range(1000, 1010))
    assert len(superblock(half).segments) == 1
    dm_reload("set", longer(half))
    assert half.mapped == list(range(1000, 1010))
    assert len(superblock(half).segments) == 2


def test_a_superblock_goes_to_a_stand_in(half: RemapSet) -> None:
    prepare(half)
    half.spare.add(0, 8, "write", "medium")
    dm_reload("set", longer(half))
    assert (half.status.copies, half.status.mode) == (1, "rw")
    fill(half, 1000, 10)
    half.remove()
    # At home there is still the old one.
    assert "spare_len is less than the set has recorded" in refusal(half.line)
    dm_create("set", longer(half))
    assert half.mapped == list(range(1000, 1010))


def test_a_load_that_failed_can_be_repeated(half: RemapSet) -> None:
    fill(half, 1000, 10)
    prepare(half)
    half.spare.add(0, 2048, "write", "medium")
    dm_load("set", longer(half))
    for _ in range(2):
        with pytest.raises(CommandError):
            dm_resume("set")
    half.spare.clear()
    dm_resume("set")
    assert (half.status.mode, half.status.slots) == ("rw", superblock(half).slots)
    fill(half, 1100, 10)
    assert half.mapped == [*range(1000, 1010), *range(1100, 1110)]


def test_what_happens_between_load_and_resume(half: RemapSet) -> None:
    """The load looks again, and a set that it refuses is the one that it was."""
    fill(half, 1000, 10)
    segment = prepare(half)
    uuid, pair = superblock(half).uuid, (segment.copy_a + 2, segment.copy_b + 2)
    head = without_epochs(read(half.spare_disk, 0, 2048))

    def again(reason: str) -> None:
        resume_refused(half, reason)
        assert without_epochs(read(half.spare_disk, 0, 2048)) == head
        assert half.mapped == list(range(1000, 1010))

    dm_load("set", longer(half))
    for home in pair:
        put(half, home, bytes(BLOCK))
    again("are gone")
    prepare(half)
    dm_load("set", longer(half))
    for home in pair:
        put(half, home, bad(uuid, home))
    again("the extension is in use")
    prepare(half)
    dm_load("set", longer(half))
    put(half, pair[0], pack_table(uuid, [Entry(600, SlotState.MAPPED, 5, 0)], 504, pair[0], 5))
    again("the extension is in use")

    # One copy is enough, as it is for every other block.
    prepare(half)
    dm_load("set", longer(half))
    put(half, pair[0], bytes(BLOCK))
    dm_resume("set")
    assert half.status.slots == superblock(half).slots
    assert mapped("set") == list(range(1000, 1010))
    assert read(half.spare_disk, pair[0] * 8, 8)[64:] == bytes(BLOCK - 64)


def test_a_table_that_was_loaded_before_the_set_grew(half: RemapSet) -> None:
    """Only one of two tables can be in force, but both may have been accepted."""
    prepare(half)
    dm_load("set", longer(half))
    assert dm_names().count("set") == 1
    dmioctl.clear("set")
    assert status("set").slots == superblock(half).slots
    dm_reload("set", longer(half))
    load_refused(half, half.line, "spare_len is less than the set has recorded")
