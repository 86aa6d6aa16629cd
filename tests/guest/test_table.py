# SPDX-License-Identifier: GPL-2.0-only
"""The table line: what is accepted, what is refused and in which words, and what is reported.

A refusal writes nothing to either device. Runs inside a guest, as root.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from guest.lib import (
    MIB,
    SECTOR,
    CommandError,
    dm_create,
    dm_device,
    dm_lines,
    dm_load,
    dm_message,
    dm_names,
    dm_remove,
    dm_resume,
    dmsetup,
    fault_device,
    loop_device,
    null_block,
    pattern,
    read,
    run,
    sectors,
    wait_for,
    write,
)
from guest.remapset import (
    SMALLEST_AREA,
    KernelLog,
    contents,
    entries,
    format_set,
    held,
    mapped,
    new_superblock,
    pending,
    read_superblock,
    refusal,
    remap_set,
    status,
    table,
    tag_main,
    texts,
    with_seq,
)

from dmremap.ondisk import (
    BLOCK,
    TAG_BLOCKS,
    Epoch,
    Errors,
    SetState,
    choose,
    device_writer,
    opened,
)
from dmremap.ondisk.layout import pack_super

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guest.remapset import RemapSet

pytestmark = [pytest.mark.guest, pytest.mark.module]

MAIN = 16384
SPARE = 8192
"""Sectors of the two disks here."""


@pytest.fixture(scope="module")
def blank() -> Iterator[tuple[Path, Path]]:
    """Two blank disks that no test writes to."""
    with loop_device(MAIN * SECTOR) as main, loop_device(SPARE * SECTOR) as spare:
        yield main, spare


@pytest.fixture
def disks() -> Iterator[tuple[Path, Path]]:
    """Two blank disks."""
    with loop_device(MAIN * SECTOR) as main, loop_device(SPARE * SECTOR) as spare:
        yield main, spare


def line(main: Path | str, spare: Path | str, *words: object, length: int = MAIN) -> str:
    """Return a table line; without words, of an area that is all of the spare."""
    rest = words or (0, SPARE)
    return " ".join(str(word) for word in ("0", length, "remap", main, spare, *rest))


def spoil(path: Path, block: int, data: bytes = bytes([1])) -> None:
    """Overwrite the beginning of a 4 KiB block."""
    old = read(path, block * 8, 8)
    write(path, block * 8, data + old[len(data) :])


# The line


A_UUID = "01234567-89ab-cdef-0123-456789abcdef"
EXPECTED = "expected: <main> <spare> <spare_start> <spare_len>"
NUMBERS = "spare_start and spare_len: expected numbers of sectors"
OPTION_WORDS = "number of option words: expected 0 to 9"
BEYOND = "the spare area reaches beyond the end of the spare"
NO_MAIN = "cannot open main: expected a block device that nothing holds"
NO_SPARE = "cannot open the spare: expected a block device that nothing holds"
UUID_FORM = "uuid: expected xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
NOT_BLANK = "spare area is neither blank (all zeros) nor a set"

WRONG_LINES = {
    "no arguments": ("", EXPECTED),
    "one argument": ("{main}", EXPECTED),
    "three arguments": ("{main} {spare} 0", EXPECTED),
    "spare_start no number": ("{main} {spare} x 8192", NUMBERS),
    "spare_start negative": ("{main} {spare} -8 8192", NUMBERS),
    "spare_len no number": ("{main} {spare} 0 8192s", NUMBERS),
    "spare_len over 64 bits": ("{main} {spare} 0 99999999999999999999", NUMBERS),
    "spare_len over 2^54": ("{main} {spare} 0 18014398509481985", NUMBERS),
    "spare_start misaligned": (
        "{main} {spare} 4 8184",
        "spare_start must be a multiple of 8 sectors (4 KiB)",
    ),
    "spare_len beyond the end": ("{main} {spare} 0 8193", BEYOND),
    "spare_start beyond the end": ("{main} {spare} 8200 2072", BEYOND),
    "sum beyond the end": ("{main} {spare} 8 8192", BEYOND),
    "sum that wraps if careless": ("{main} {spare} 18014398509481984 2072", BEYOND),
    "spare_len without room for a slot": (
        "{main} {spare} 0 2071",
        "spare_len is too small: expected at least 2072 sectors",
    ),
    "spare_len zero": (
        "{main} {spare} 0 0",
        "spare_len is too small: expected at least 2072 sectors",
    ),
    "#opts no number": ("{main} {spare} 0 8192 x", OPTION_WORDS),
    "#opts too big": ("{main} {spare} 0 8192 10 a b c d e f g h i j", OPTION_WORDS),
    "#opts more than there are": ("{main} {spare} 0 8192 2 main_start", OPTION_WORDS),
    "#opts fewer than there are": (
        "{main} {spare} 0 8192 2 main_start 0 uuid",
        "too many arguments behind the options",
    ),
    "#opts zero but words follow": (
        "{main} {spare} 0 8192 0 main_start 0",
        "too many arguments behind the options",
    ),
    "option without value": ("{main} {spare} 0 8192 1 main_start", "an option lacks its value"),
    "second option without value": (
        "{main} {spare} 0 8192 3 main_start 0 errors",
        "an option lacks its value",
    ),
    "unknown option": (
        "{main} {spare} 0 8192 2 nonsense 1",
        "unknown option: expected main_start, uuid, errors, remap_rate or accept_stale",
    ),
    "main_start no number": (
        "{main} {spare} 0 8192 2 main_start x",
        "main_start: expected a number of sectors",
    ),
    "main_start beyond the end": (
        "{main} {spare} 0 8192 2 main_start 16385",
        "main is too small for main_start and the length",
    ),
    "main_start leaves too little": (
        "{main} {spare} 0 8192 2 main_start 1",
        "main is too small for main_start and the length",
    ),
    "uuid too short": ("{main} {spare} 0 8192 2 uuid 0123", UUID_FORM),
    "uuid too long": (f"{{main}} {{spare}} 0 8192 2 uuid {A_UUID}0", UUID_FORM),
    "uuid with no hexadecimal digits": (
        f"{{main}} {{spare}} 0 8192 2 uuid {A_UUID[:-1]}g",
        UUID_FORM,
    ),
    "errors unknown": (
        "{main} {spare} 0 8192 2 errors maybe",
        "errors: expected confirm or medium",
    ),
    "main missing": ("/dev/nothing {spare} 0 8192", NO_MAIN),
    "spare missing": ("{main} /dev/nothing 0 8192", NO_SPARE),
    "main no block device": ("/dev/null {spare} 0 8192", NO_MAIN),
    "main and spare the same": ("{spare} {spare} 0 8192", "main is too small"),
    "uuid of no set": (
        f"{{main}} {{spare}} 0 8192 2 uuid {A_UUID}",
        "no set with this uuid on the spare: check the device names",
    ),
}


@pytest.mark.parametrize("what", WRONG_LINES)
def test_a_wrong_line_is_refused_in_words(what: str, blank: tuple[Path, Path]) -> None:
    arguments, sentence = WRONG_LINES[what]
    main, spare = blank
    before = contents(*blank)
    log = refusal(f"0 {MAIN} remap {arguments.format(main=main, spare=spare)}")
    assert f"remap: {sentence}" in log
    assert contents(*blank) == before


def test_a_line_longer_than_main_is_refused(blank: tuple[Path, Path]) -> None:
    assert "main is too small" in refusal(line(*blank, length=MAIN + 1))


def test_a_disk_that_something_holds_is_refused(blank: tuple[Path, Path]) -> None:
    for disk, sentence in zip(blank, (NO_MAIN, NO_SPARE), strict=True):
        fd = os.open(disk, os.O_RDWR | os.O_EXCL)
        try:
            assert sentence in refusal(line(*blank))
        finally:
            os.close(fd)


@pytest.mark.parametrize("which", [0, 1])
def test_a_read_only_disk_is_refused(which: int, disks: tuple[Path, Path]) -> None:
    run("blockdev", "--setro", disks[which])
    before = contents(*disks)
    assert re.search("read-only|cannot open", refusal(line(*disks)))
    assert contents(*disks) == before
    run("blockdev", "--setrw", disks[which])


# Overlaps


def test_one_disk_as_main_and_spare_is_refused_if_they_overlap(blank: tuple[Path, Path]) -> None:
    main, _ = blank
    before = contents(main)
    assert "main and spare overlap" in refusal(line(main, main, 8192, 8192, length=8193))
    assert "main and spare overlap" in refusal(
        line(main, main, 0, 8192, 2, "main_start", 8191, length=8)
    )
    assert contents(main) == before


def test_one_disk_as_main_and_spare_works_if_they_do_not_overlap(disks: tuple[Path, Path]) -> None:
    main, _ = disks
    with dm_device("set", line(main, main, 8192, 8192, length=8192)) as path:
        write(path, 8191, pattern(8191))
        assert held(path, 8191) == ["8191/0"]


def test_overlap_through_a_partition_is_refused() -> None:
    with null_block(16 * MIB) as disk:
        run("addpart", disk, 1, 2048, 8192)
        partition = Path(f"{disk}p1")
        before = contents(disk)
        log = refusal(line(disk, partition, length=4096))
        assert re.search("overlap|cannot open", log)
        log = refusal(line(partition, disk, 8192, 8192, length=8192))
        assert re.search("overlap|cannot open", log)
        assert contents(disk) == before
        run("delpart", disk, 1)


def test_two_partitions_of_one_disk_are_main_and_spare() -> None:
    with null_block(16 * MIB) as disk:
        run("addpart", disk, 1, 2048, 8192)
        run("addpart", disk, 2, 10240, 8192)
        with dm_device("set", line(f"{disk}p1", f"{disk}p2", length=8192)) as path:
            write(path, 5, pattern(5))
        assert held(disk, 2053) == ["5/0"]
        run("delpart", disk, 1)
        run("delpart", disk, 2)


def test_main_of_a_running_set_is_refused_to_another(disks: tuple[Path, Path]) -> None:
    main, spare = disks
    with dm_device("one", line(main, spare, 0, SPARE, length=8192)), loop_device(4 * MIB) as other:
        before = contents(other)
        log = refusal(line(main, other, 0, SPARE, 2, "main_start", 8191, length=8))
        assert "main or spare overlaps a set that is in use" in log
        log = refusal(line(other, main, 0, SPARE, length=SPARE))
        assert "main or spare overlaps a set that is in use" in log
        assert contents(other) == before
        with dm_device("two", line(main, other, 0, SPARE, 2, "main_start", 8192, length=8192)):
            pass


def test_spare_of_a_running_set_is_refused_to_another(disks: tuple[Path, Path]) -> None:
    main, spare = disks
    with dm_device("one", line(main, spare)), loop_device(8 * MIB) as other:
        before = contents(other, spare)
        assert "the set is in use already" in refusal(line(other, spare))
        assert contents(other, spare) == before


def test_of_two_tables_loaded_for_one_spare_only_one_starts(disks: tuple[Path, Path]) -> None:
    main, spare = disks
    with loop_device(8 * MIB) as other:
        for name, disk in (("one", main), ("two", other)):
            run("dmsetup", "create", name, "--notable")
            dm_load(name, line(disk, spare))
        try:
            dm_resume("one")
            before = contents(spare)
            with KernelLog() as log, pytest.raises(CommandError):
                dm_resume("two")
            assert "a part of main or the spare is in use by one (" in log.text
            assert contents(spare) == before
        finally:
            dm_remove("two")
            dm_remove("one")


def test_an_area_that_was_blank_when_loaded_is_looked_at_again(disks: tuple[Path, Path]) -> None:
    main, spare = disks
    run("dmsetup", "create", "late", "--notable")
    try:
        dm_load("late", line(main, spare))
        with dm_device("early", line(main, spare)):
            pass
        before = contents(spare)
        with KernelLog() as log, pytest.raises(CommandError):
            dm_resume("late")
        assert "the spare no longer holds the set that the table was loaded for" in log.text
        assert contents(spare) == before
    finally:
        dm_remove("late")


def test_two_targets_of_one_table_may_not_overlap(disks: tuple[Path, Path]) -> None:
    main, spare = disks
    with loop_device(4 * MIB) as other:
        before = contents(main, spare, other)
        log = refusal(
            f"0 1024 remap {main} {spare} 0 8192\n"
            f"1024 1024 remap {main} {other} 0 8192 2 main_start 1023\n"
        )
        assert "main or spare overlaps a set that is in use" in log
        assert contents(main, spare, other) == before


# Block sizes


def test_a_spare_with_bigger_blocks_is_refused(disks: tuple[Path, Path]) -> None:
    main, _ = disks
    with loop_device(4 * MIB, sector_size=4096) as spare:
        before = contents(main, spare)
        log = refusal(line(main, spare))
        assert "the spare's logical blocks must not be bigger than main's" in log
        assert contents(main, spare) == before


def test_main_start_must_fit_mains_blocks(disks: tuple[Path, Path]) -> None:
    _, spare = disks
    with loop_device(8 * MIB, sector_size=4096) as main:
        log = refusal(line(main, spare, 0, SPARE, 2, "main_start", 4, length=8192))
        assert "main_start and length must be multiples of main's block size" in log
        log = refusal(line(main, spare, length=8196))
        assert "main_start and length must be multiples of main's block size" in log


def test_spare_len_must_fit_mains_blocks(disks: tuple[Path, Path]) -> None:
    """Device-mapper finds out of a second table only when it has suspended the first."""
    _, spare = disks
    with loop_device(8 * MIB, sector_size=4096) as main:
        with dm_device("set", line(main, spare, 0, 4096)), KernelLog() as log:
            with pytest.raises(CommandError):
                dm_load("set", line(main, spare, 0, 4097))
            assert "spare_len must be a multiple of main's block size" in log.read()
            assert status("set").mode == "rw"
        log_of_first = refusal(line(main, spare, 0, 4097))
        assert "spare_len must be a multiple of main's block size" in log_of_first


# What the area holds


@pytest.mark.parametrize("block", [0, 1, 127, 128, 255, 256, 600, 1023])
def test_a_byte_anywhere_in_the_area_is_refused(block: int, disks: tuple[Path, Path]) -> None:
    spoil(disks[1], block, bytes(4095) + b"\1")
    before = contents(*disks)
    assert NOT_BLANK in refusal(line(*disks))
    assert contents(*disks) == before


def test_the_block_that_is_not_blank_is_named(disks: tuple[Path, Path]) -> None:
    spoil(disks[1], 600)
    assert "block 600 of the spare area is in use" in refusal(line(*disks))


def test_what_lies_outside_of_the_area_does_not_matter(disks: tuple[Path, Path]) -> None:
    main, spare = disks
    write(spare, 15, pattern(15))
    write(spare, 16 + 4096, pattern(16 + 4096))
    with dm_device("set", line(main, spare, 16, 4096)):
        assert status("set").mode == "rw"
    assert held(spare, 15) == ["15/0"]
    assert held(spare, 16 + 4096) == ["4112/0"]


def test_an_unreadable_block_is_not_blank(disks: tuple[Path, Path]) -> None:
    main, spare = disks
    with fault_device(spare) as fault:
        fault.add(600 * 8, 1, "read", "medium")
        log = refusal(line(main, fault.path))
        assert NOT_BLANK in log
        assert "block 600 of the spare area cannot be read" in log
        assert fault.counters()["writes"] == 0


def test_an_unreadable_superblock_is_not_blank(disks: tuple[Path, Path]) -> None:
    main, spare = disks
    with fault_device(spare) as fault:
        for block in (0, 255):
            fault.add(block * 8, 8, "read", "medium")
        assert NOT_BLANK in refusal(line(main, fault.path))
        assert fault.counters()["writes"] == 0


def test_a_blank_area_and_a_read_only_table_are_refused(blank: tuple[Path, Path]) -> None:
    log = refusal(line(*blank), readonly=True)
    assert "spare area is blank, but the table is read-only" in log


def test_a_blank_area_over_a_gigabyte_is_refused(blank: tuple[Path, Path]) -> None:
    main, _ = blank
    with loop_device(1025 * MIB) as spare:
        log = refusal(line(main, spare, 0, 1024 * MIB // SECTOR + 8))
        assert "spare area is over 1 GiB: format it with dmremapctl create" in log
        assert not any(read(spare, 0, 2048))


# Is it the right set?


def a_set(disks: tuple[Path, Path]) -> UUID:
    """Make a set on two blank disks and take it down."""
    with dm_device("set", line(*disks)):
        uuid = table("set").uuid
    assert uuid is not None
    return UUID(uuid)


def test_the_uuid_of_another_set_is_refused(disks: tuple[Path, Path]) -> None:
    a_set(disks)
    before = contents(*disks)
    log = refusal(line(*disks, 0, SPARE, 2, "uuid", uuid4()))
    assert "no set with this uuid on the spare: check the device names" in log
    assert contents(*disks) == before


def test_the_right_uuid_is_accepted(disks: tuple[Path, Path]) -> None:
    uuid = a_set(disks)
    with dm_device("set", line(*disks, 0, SPARE, 2, "uuid", uuid)):
        assert table("set").uuid == str(uuid)
    with dm_device("set", line(*disks, 0, SPARE, 2, "UUID", str(uuid).upper())):
        assert table("set").uuid == str(uuid)


def test_a_main_of_another_size_is_refused(disks: tuple[Path, Path]) -> None:
    a_set(disks)
    with loop_device(8 * MIB + 4096) as other:
        before = contents(other, disks[1])
        log = refusal(line(other, disks[1]))
        assert "main is not of the size that the set has recorded" in log
        assert contents(other, disks[1]) == before


def test_a_main_of_other_blocks_is_refused(disks: tuple[Path, Path]) -> None:
    a_set(disks)
    with loop_device(8 * MIB, sector_size=4096) as other:
        log = refusal(line(other, disks[1]))
        assert "the set's unit is not main's logical block size" in log


OTHER_GEOMETRY = {
    "shorter area": ((0, SPARE - 8), "spare_len is less than the set has recorded"),
    "other main_start": (
        (0, SPARE, 2, "main_start", 8),
        "main_start is not the one that the set has recorded",
    ),
    "other spare_start": ((8, SPARE - 8), NOT_BLANK),
}


@pytest.mark.parametrize("what", OTHER_GEOMETRY)
def test_another_geometry_is_refused(what: str, disks: tuple[Path, Path]) -> None:
    words, sentence = OTHER_GEOMETRY[what]
    a_set(disks)
    before = contents(*disks)
    assert sentence in refusal(line(*disks, *words, length=8192))
    assert contents(*disks) == before


def test_a_longer_area_is_refused(disks: tuple[Path, Path]) -> None:
    main, spare = disks
    with dm_device("set", line(main, spare, 0, 4096)):
        pass
    before = contents(*disks)
    log = refusal(line(*disks))
    assert "spare_len is more than the set has recorded: run dmremapctl grow" in log
    assert contents(*disks) == before


def test_a_set_does_not_show_more_of_main_later(disks: tuple[Path, Path]) -> None:
    with dm_device("set", line(*disks, length=4096)):
        pass
    before = contents(*disks)
    log = refusal(line(*disks, length=4104))
    assert "the length is more than the set has recorded" in log
    assert contents(*disks) == before


def test_one_set_may_show_less_of_main_later(disks: tuple[Path, Path]) -> None:
    a_set(disks)
    with dm_device("set", line(*disks, length=4096)) as path:
        assert sectors(path) == 4096


# Superblocks


def test_two_superblocks_that_contradict_each_other_are_refused(
    disks: tuple[Path, Path],
) -> None:
    main, spare = disks
    superblock = new_superblock(main, SPARE)
    format_set(spare, superblock)
    with opened(str(spare), write=True) as device:
        other = replace(with_seq(superblock, 2), name="other")
        device.write_block(0, 255, pack_super(other, 255))
    before = contents(*disks)
    log = refusal(line(*disks))
    assert "the two superblocks contradict each other: run dmremapctl check" in log
    assert contents(*disks) == before


@pytest.mark.parametrize("which", [0, 1])
def test_a_spare_with_superblocks_of_two_sets_is_refused(
    which: int, disks: tuple[Path, Path]
) -> None:
    main, spare = disks
    two = [new_superblock(main, SPARE), new_superblock(main, SPARE)]
    format_set(spare, two[0])
    with opened(str(spare), write=True) as device:
        device.write_block(0, 255, pack_super(two[1], 255))
    before = contents(*disks)
    sentence = "superblocks of two sets on the spare: run dmremapctl list"
    assert sentence in refusal(line(*disks))
    assert sentence in refusal(line(*disks, 0, SPARE, 2, "uuid", two[which].uuid))
    assert contents(*disks) == before


def test_a_newer_format_that_may_be_read_is_not_written(disks: tuple[Path, Path]) -> None:
    main, spare = disks
    format_set(spare, replace(new_superblock(main, SPARE), ro_compat=1))
    before = contents(*disks)
    log = refusal(line(*disks))
    assert "metadata needs a newer dm-remap to be written (ro_compat)" in log
    with dm_device("set", line(*disks), readonly=True):
        assert status("set").mode == "ro"
    assert contents(*disks) == before


def test_an_unknown_compatible_feature_is_ignored_and_kept(disks: tuple[Path, Path]) -> None:
    main, spare = disks
    format_set(spare, replace(new_superblock(main, SPARE), compat=1 << 63))
    before = contents(main)
    with dm_device("set", line(*disks)):
        assert status("set").mode == "rw"
    assert contents(main) == before
    assert read_superblock(spare).compat == 1 << 63


def test_a_format_that_was_interrupted_is_completed(disks: tuple[Path, Path]) -> None:
    main, spare = disks
    superblock = replace(new_superblock(main, SPARE), state=SetState.FORMATTING)
    with opened(str(spare), write=True) as device:
        device.write_block(0, 0, pack_super(superblock, 0))
    before = contents(*disks)
    words = (0, SPARE, 2, "uuid", superblock.uuid)
    assert "no set with this uuid" in refusal(line(*disks, *words))
    assert contents(*disks) == before
    with dm_device("set", line(*disks)):
        assert status("set").mode == "rw"
        uuid = table("set").uuid
    with dm_device("set", line(*disks, 0, SPARE, 2, "uuid", uuid)):
        pass


def test_an_interrupted_format_does_not_overwrite_what_came_after(
    disks: tuple[Path, Path],
) -> None:
    main, spare = disks
    superblock = replace(new_superblock(main, SPARE), state=SetState.FORMATTING)
    with opened(str(spare), write=True) as device:
        device.write_block(0, 0, pack_super(superblock, 0))
    spoil(spare, 700)
    before = contents(*disks)
    assert NOT_BLANK in refusal(line(*disks))
    assert contents(*disks) == before


def test_a_superblock_of_another_place_is_no_set(disks: tuple[Path, Path]) -> None:
    main, spare = disks
    with opened(str(spare), write=True) as device:
        device.write_block(0, 0, pack_super(new_superblock(main, SPARE), 255))
    before = contents(*disks)
    assert NOT_BLANK in refusal(line(*disks))
    assert contents(*disks) == before


# Main's tag


@pytest.fixture
def tagged(disks: tuple[Path, Path]) -> tuple[Path, Path, tuple[object, ...]]:
    """A formatted spare and a tagged main, and the rest of the line."""
    main, spare = disks
    superblock = new_superblock(main, SPARE, tagged=True, data_start=2048)
    format_set(spare, superblock)
    tag_main(main, superblock)
    return main, spare, (0, SPARE, 4, "main_start", 2048, "uuid", superblock.uuid)


TAGGED_LENGTH = MAIN - 2048


def test_a_tagged_main_is_known_by_its_tag(
    tagged: tuple[Path, Path, tuple[object, ...]],
) -> None:
    main, spare, words = tagged
    with dm_device("set", line(main, spare, *words, length=TAGGED_LENGTH)) as path:
        assert status("set").identity == "tag"
        assert table("set").main_start == 2048
        write(path, 0, pattern(0))
    assert held(main, 2048) == ["0/0"]


@pytest.mark.parametrize("block", TAG_BLOCKS)
def test_one_copy_of_the_tag_is_enough(
    block: int, tagged: tuple[Path, Path, tuple[object, ...]]
) -> None:
    main, spare, words = tagged
    for other in set(TAG_BLOCKS) - {block}:
        spoil(main, other, bytes(BLOCK))
    with dm_device("set", line(main, spare, *words, length=TAGGED_LENGTH)):
        assert status("set").identity == "tag"


def test_a_main_that_lost_its_tag_is_refused(
    tagged: tuple[Path, Path, tuple[object, ...]],
) -> None:
    main, spare, words = tagged
    for block in TAG_BLOCKS:
        spoil(main, block, bytes(BLOCK))
    before = contents(main, spare)
    log = refusal(line(main, spare, *words, length=TAGGED_LENGTH))
    assert "main carries no tag: see dmremapctl repair --retag MAIN SPARE" in log
    assert contents(main, spare) == before


def test_a_main_of_another_set_is_refused_by_its_tag(
    tagged: tuple[Path, Path, tuple[object, ...]],
) -> None:
    main, spare, words = tagged
    tag_main(main, new_superblock(main, SPARE, tagged=True, data_start=2048))
    before = contents(main, spare)
    log = refusal(line(main, spare, *words, length=TAGGED_LENGTH))
    assert "main carries the tag of another set" in log
    assert contents(main, spare) == before


def test_a_tag_that_contradicts_the_set_is_refused(
    tagged: tuple[Path, Path, tuple[object, ...]],
) -> None:
    main, spare, words = tagged
    superblock = new_superblock(main, SPARE, data_start=4096, uuid=UUID(str(words[-1])))
    tag_main(main, superblock)
    before = contents(main, spare)
    log = refusal(line(main, spare, *words, length=8192))
    assert "main's tag contradicts the superblock" in log
    assert contents(main, spare) == before


def test_a_main_that_was_used_with_a_newer_spare_is_refused(disks: tuple[Path, Path]) -> None:
    main, spare = disks
    superblock = new_superblock(main, SPARE, tagged=True, data_start=2048)
    format_set(spare, superblock)
    words = (0, SPARE, 4, "main_start", 2048, "uuid", superblock.uuid)
    for epoch, why in (
        (Epoch(2, 5), "the spare is an older copy of itself: run dmremapctl check"),
        (Epoch(1, 5), "main was used with another copy of the spare: run dmremapctl check"),
    ):
        tag_main(main, replace(superblock, epoch=epoch))
        before = contents(main, spare)
        assert why in refusal(line(main, spare, *words, length=TAGGED_LENGTH))
        assert contents(main, spare) == before


def test_a_tagged_main_that_became_smaller_is_refused(disks: tuple[Path, Path]) -> None:
    # Entries behind its new end would make good table blocks look damaged.
    main, spare = disks
    superblock = new_superblock(main, SPARE, tagged=True, data_start=2048)
    tag_main(main, superblock)
    bigger = replace(superblock, main_sectors=MAIN + 8, data_sectors=MAIN + 8 - 2048)
    format_set(spare, bigger)
    before = contents(main, spare)
    words = (0, SPARE, 4, "main_start", 2048, "uuid", superblock.uuid)
    log = refusal(line(main, spare, *words, length=TAGGED_LENGTH))
    assert "main is smaller than the set has recorded" in log
    assert contents(main, spare) == before


def test_a_tagged_main_is_refused_to_a_set_that_adopted(disks: tuple[Path, Path]) -> None:
    a_set(disks)
    tag_main(disks[0], new_superblock(disks[0], SPARE, tagged=True, data_start=2048))
    before = contents(*disks)
    assert "main carries another's tag: dmremapctl repair --tag-is-content" in refusal(line(*disks))
    assert contents(*disks) == before


def test_a_tagged_main_is_refused_to_a_set_to_be_made(disks: tuple[Path, Path]) -> None:
    tag_main(disks[0], new_superblock(disks[0], SPARE, tagged=True, data_start=2048))
    before = contents(*disks)
    assert "main carries the tag of another set" in refusal(line(*disks))
    assert contents(*disks) == before


def test_a_tag_that_changed_after_the_load_is_seen(
    tagged: tuple[Path, Path, tuple[object, ...]],
) -> None:
    main, spare, words = tagged
    run("dmsetup", "create", "set", "--notable")
    try:
        dm_load("set", line(main, spare, *words, length=TAGGED_LENGTH))
        with opened(str(main), write=True) as device:
            for block in TAG_BLOCKS:
                device.write_block(0, block, bytes(BLOCK))
        with KernelLog() as log, pytest.raises(CommandError):
            dm_resume("set")
        assert "main carries no tag: see" in log.text
    finally:
        dm_remove("set")


# What is accepted


def test_the_plain_line_works_on_two_blank_disks() -> None:
    with loop_device(20480 * SECTOR) as main, loop_device(20480 * SECTOR) as spare:
        with dm_device("set", f"0 20480 remap {main} {spare} 0 20480") as path:
            assert sectors(path) == 20480
            now = status("set")
            assert (now.start, now.length, now.mode, now.unit) == (0, 20480, "rw", 512)
            assert (now.mapped, now.free, now.identity) == (0, now.slots, "size")
            assert now.extra == ()
            assert entries("set") == []
            assert pending("set") == []
            write(path, 0, pattern(0, 8))
            assert held(path, 0, 8) == texts(0, 8)
        assert held(main, 0, 8) == texts(0, 8)


def test_the_plain_line_works_with_dmsetup(disks: tuple[Path, Path]) -> None:
    run("dmsetup", "create", "set", "--table", line(*disks))
    try:
        run("dmsetup", "mknodes")  # nobody else makes the node where no udevd runs
        path = Path("/dev/mapper/set")
        write(path, 3, pattern(3))
        assert held(path, 3) == ["3/0"]
        assert dmsetup("status", "set").split()[:4] == ["0", str(MAIN), "remap", "rw"]
    finally:
        run("dmsetup", "remove", "set")


def test_the_smallest_area_has_a_block_of_slots(disks: tuple[Path, Path]) -> None:
    with dm_device("set", line(*disks, 0, SMALLEST_AREA)):
        assert status("set").slots == 8


def test_the_number_of_slots_is_that_of_the_format(disks: tuple[Path, Path]) -> None:
    with dm_device("set", line(*disks)):
        assert status("set").slots == new_superblock(disks[0], SPARE).slots


def test_a_set_keeps_its_uuid(disks: tuple[Path, Path]) -> None:
    with dm_device("set", line(*disks)):
        first = table("set").uuid
    with dm_device("set", line(*disks)):
        assert table("set").uuid == first
        assert status("set").uuid == first


def test_dmsetup_table_makes_the_same_device_again(disks: tuple[Path, Path]) -> None:
    main, spare = disks
    words = (8, 4096, 4, "main_start", 16, "errors", "medium")
    with dm_device("set", line(main, spare, *words, length=8192)) as path:
        write(path, 3, pattern(3))
        printed = dmsetup("table", "set")
        parsed = table("set")
        assert (parsed.start, parsed.length, parsed.main_start) == (0, 8192, 16)
        assert (parsed.spare_start, parsed.spare_len, parsed.errors) == (8, 4096, "medium")
        assert parsed.uuid is not None
    assert held(main, 19) == ["3/0"]
    run("dmsetup", "create", "set", stdin=printed)
    try:
        run("dmsetup", "mknodes")  # nobody else makes the node where no udevd runs
        assert dmsetup("table", "set") == printed
        assert held("/dev/mapper/set", 3) == ["3/0"]
    finally:
        run("dmsetup", "remove", "set")


@pytest.mark.parametrize(
    ("words", "counts"),
    [
        ((), ("medium", 7)),
        (("errors", "confirm"), ("confirm", 7)),
        (("remap_rate", "0"), ("medium", 0)),
        (("errors", "medium", "remap_rate", "9"), ("medium", 9)),
    ],
)
def test_what_was_chosen_counts_where_the_line_has_no_word(
    disks: tuple[Path, Path], words: tuple[str, ...], counts: tuple[str, int]
) -> None:
    main, spare = disks
    chosen = replace(new_superblock(main, SPARE), errors=Errors.MEDIUM, remap_rate=7)
    format_set(spare, chosen)
    given = line(main, spare, 0, SPARE, len(words) + 2, "uuid", chosen.uuid, *words)
    with dm_device("set", given) as path:
        assert (status("set").errors, status("set").remap_rate) == counts
        # What was given, and no more: the next load asks the superblock again.
        assert dmsetup("table", "set").split()[7:] == given.split()[6:][1:]
        files = Path(f"/sys/block/dm-{os.minor(path.stat().st_rdev)}/remap-0")
        wait_for(files.is_dir, "the files in sysfs")
        assert (files / "errors").read_text() == f"{counts[0]}\n"
        assert (files / "remap_rate").read_text() == f"{counts[1]}\n"
    kept = read_superblock(spare)
    assert (kept.errors, kept.remap_rate) == (Errors.MEDIUM, 7)


def test_what_is_chosen_counts_as_it_is_at_the_resume(disks: tuple[Path, Path]) -> None:
    main, spare = disks
    superblock = replace(new_superblock(main, SPARE), remap_rate=7)
    format_set(spare, superblock)
    run("dmsetup", "create", "set", "--notable")
    try:
        dm_load("set", line(main, spare))
        assert "errors=confirm remap_rate=7" in dmsetup("status", "--inactive", "set")
        with opened(str(spare), write=True) as device:
            writer = device_writer(device, 0)
            choose(device, 0, superblock.uuid, writer, errors=Errors.MEDIUM, remap_rate=8)
        dm_resume("set")
        assert (status("set").errors, status("set").remap_rate) == ("medium", 8)
    finally:
        dm_remove("set")


def test_a_table_that_was_never_resumed_is_in_mode_init(disks: tuple[Path, Path]) -> None:
    before = contents(*disks)
    run("dmsetup", "create", "set", "--notable")
    try:
        dm_load("set", line(*disks))
        assert dmsetup("status", "--inactive", "set").split()[3] == "init"
        assert "uuid" not in dmsetup("table", "--inactive", "set")
    finally:
        dm_remove("set")
    assert contents(*disks) == before


# Messages


@pytest.fixture(scope="module")
def hurt() -> Iterator[RemapSet]:
    """A set with 259 mapped units and 5 pending ones."""
    with remap_set(name="hurt") as made:
        made.main.add(1, 129, "write", "medium")
        made.main.add(131, 129, "write", "medium")
        made.main.add(4000, 1, "write", "medium")
        write(made.path, 0, pattern(0, 260))
        write(made.path, 4000, pattern(4000))
        for sector in (6000, 6001, 7000, 7777, 16383):
            made.main.add(sector, 1, "read", "medium")
            with pytest.raises(OSError, match="No data"):
                read(made.path, sector)
        yield made


MAPPED = [*range(1, 130), *range(131, 260), 4000]
PENDING = [6000, 6001, 7000, 7777, 16383]


def test_list_names_every_mapping_once_on_any_page(hurt: RemapSet) -> None:
    assert mapped(hurt.name) == MAPPED
    for page in (37, 259, 260):
        rows = entries(hurt.name, page=page)
        assert sorted(row.sector or 0 for row in rows) == MAPPED
        assert len({row.slot for row in rows}) == len(MAPPED)
        assert {(row.sectors, row.state, row.generation) for row in rows} == {(1, "mapped", 0)}


def test_list_begins_where_it_is_told(hurt: RemapSet) -> None:
    rows = dm_message(hurt.name, "list", 200, 3).splitlines()
    assert [row.split()[2] for row in rows[:3]] == ["200", "201", "202"]
    assert rows[3] == "next 203"
    assert dm_message(hurt.name, "list", 260, 3) == "end"
    assert dm_message(hurt.name, "list", 2**64 - 1, 3) == "end"


def test_pending_names_every_unit_once_on_any_page(hurt: RemapSet) -> None:
    assert hurt.status.pending == len(PENDING)
    for page in (1, 2, 5, 6):
        assert pending(hurt.name, page=page) == PENDING
    assert dm_message(hurt.name, "pending", 6001, 1) == "6001 1\nnext 7000"
    assert dm_message(hurt.name, "pending", 7778, 9) == "16383 1\nend"
    assert dm_message(hurt.name, "pending", 2**64 - 1, 9) == "end"


def test_messages_have_no_case(hurt: RemapSet) -> None:
    assert dm_message(hurt.name, "LIST", 260, 1) == "end"


MESSAGES = "expected: list, pending, breaker, rename, scrub, remap, stop or retire"
WRONG_MESSAGES = [
    ("list", "list <from slot> <max>"),
    ("list 0", "list <from slot> <max>"),
    ("list 0 10 10", "list <from slot> <max>"),
    ("list x 10", "list <from slot> <max>"),
    ("list 0 0", "list <from slot> <max>"),
    ("list 0 -1", "list <from slot> <max>"),
    ("pending 0", "pending <from sector> <max>"),
    ("pending 18446744073709551616 1", "pending <from sector> <max>"),
    ("nonsense", f"message nonsense: {MESSAGES}"),
    ("nonsense 1 2", f"message nonsense: {MESSAGES}"),
]


def test_a_wrong_message_is_refused_in_words(hurt: RemapSet) -> None:
    before = hurt.status
    for message, sentence in WRONG_MESSAGES:
        with KernelLog() as log, pytest.raises(CommandError, match="Invalid argument"):
            dm_message(hurt.name, *message.split())
        assert sentence in log.text, message
        assert "expected" in log.text
    assert hurt.status == before


def test_status_answers_while_main_hangs(hurt: RemapSet) -> None:
    before = hurt.status
    hurt.main.hold("any")
    try:
        assert hurt.status == before
        assert hurt.mapped == MAPPED
    finally:
        hurt.main.release()


def test_a_table_with_two_targets_is_asked_by_sector(disks: tuple[Path, Path]) -> None:
    main, spare = disks
    with loop_device(8 * MIB) as main2, loop_device(4 * MIB) as spare2:
        path = dm_create(
            "set",
            f"0 1000 remap {main} {spare} 0 8192\n1000 500 remap {main2} {spare2} 0 4096\n",
        )
        try:
            assert sectors(path) == 1500
            assert status("set").length == 1000
            assert status("set", 1000).length == 500
            assert status("set").slots > status("set", 1000).slots
            assert dm_message("set", "list", 0, 1, sector=1000) == "end"
            # What the other tests ask the kernel themselves is what dmsetup prints.
            assert dm_lines("set") == dmsetup("status", "set").splitlines()
            assert dm_lines("set", table=True) == dmsetup("table", "set").splitlines()
            printed = dmsetup("ls").splitlines()
            assert sorted(dm_names()) == sorted(one.split("\t")[0] for one in printed)
        finally:
            dm_remove("set")


def test_who_is_killed_while_the_area_is_read_has_not_found_it_in_use() -> None:
    with (
        loop_device() as main,
        loop_device() as disk,
        fault_device(disk) as spare,
        dm_device("killed", f"0 {sectors(main)} linear {main} 0"),
        KernelLog() as log,
    ):
        spare.hold("read", sectors(disk) // 2, 8)
        line = f"0 {sectors(main)} remap {main} {spare.path} 0 {sectors(disk)}"
        with subprocess.Popen(["dmsetup", "load", "killed", "--table", line]) as loader:
            spare.wait_held()
            loader.kill()
            spare.release()
        assert loader.returncode == -signal.SIGKILL
        wait_for(lambda: "remap: " in log.read(), "the reason")
    assert "remap: interrupted by a signal" in log.text
