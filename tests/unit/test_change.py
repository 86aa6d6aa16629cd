# SPDX-License-Identifier: GPL-2.0-only
"""What a superblock says is changed without the kernel, and the kernel takes it as it is."""

from collections.abc import Callable

import pytest
from unit.areas import HOMES, JUNK, SB, SET, Disk, fresh, mapped, superblock, table
from unit.kernelload import KernelLoad

from dmremap.errors import DmRemapError
from dmremap.ondisk import BLOCK, Errors, Superblock, choose
from dmremap.ondisk._format import ffi, lib
from dmremap.ondisk.check import examine
from dmremap.ondisk.head import HEADER
from dmremap.ondisk.layout import STANDINS, SUPER_HOMES, pack_super
from dmremap.ondisk.mend import Write

Change = Callable[[Disk], list[Write]]


def medium(disk: Disk) -> list[Write]:
    return choose(disk, 0, SET, disk.write, errors=Errors.MEDIUM, remap_rate=7)


def top(disk: Disk) -> Superblock:
    load = examine(disk)
    assert load.accepted
    assert load.superblock is not None
    return load.superblock


def test_what_is_chosen_is_written_copy_a_first(by_kernel: KernelLoad) -> None:
    disk = fresh([mapped(0, 9)])
    done = medium(disk)
    assert [(one.place, one.home, one.sequence) for one in done] == [(0, 0, 3), (255, 255, 3)]
    assert [place for place, _ in disk.log] == list(SUPER_HOMES)
    # And nothing else of it, but the sequence and the checksum.
    before, after = pack_super(SB, 0)[HEADER:], disk[0][HEADER:]
    changed = [at + HEADER for at in range(len(after)) if before[at] != after[at]]
    assert changed == [2560, 2561, 2564]
    assert (top(disk).errors, top(disk).remap_rate) == (Errors.MEDIUM, 7)
    code, result = by_kernel(disk)
    assert (code, result.medium, result.rate, result.mapped) == (0, 1, 7, 1)


def test_what_is_not_spoken_of_stays() -> None:
    disk = fresh()
    choose(disk, 0, SET, disk.write, remap_rate=0)
    assert (top(disk).errors, top(disk).remap_rate) == (None, 0)
    choose(disk, 0, SET, disk.write, errors=Errors.CONFIRM)
    assert (top(disk).errors, top(disk).remap_rate) == (Errors.CONFIRM, 0)
    written = len(disk.log)
    assert choose(disk, 0, SET, disk.write, errors=Errors.CONFIRM, remap_rate=0) == []
    assert len(disk.log) == written


def test_what_nobody_knows_stays() -> None:
    """A bit of compat, and the reserved bytes that it gives a meaning to."""
    disk = fresh(sb=superblock(compat=4))
    for home in SUPER_HOMES:
        raw = bytearray(disk[home])
        raw[4000:4008] = b"\1\2\3\4\5\6\7\10"
        lib.dmr_seal(ffi.from_buffer("char[]", raw), 1, SET.bytes, 2, home, home)
        disk[home] = bytes(raw)
    medium(disk)
    assert disk[0][4000:4008] == disk[255][4000:4008] == b"\1\2\3\4\5\6\7\10"
    assert top(disk).compat == 4


@pytest.mark.parametrize("lesser", [0, 1])
def test_copies_are_equal_first(by_kernel: KernelLoad, lesser: int) -> None:
    disk = fresh(sb=superblock(seq=5, name="new"))
    disk[SUPER_HOMES[lesser]] = pack_super(superblock(seq=4), SUPER_HOMES[lesser])
    disk[HOMES[1][0]] = JUNK
    done = medium(disk)
    homes = [SUPER_HOMES[lesser], SUPER_HOMES[1 - lesser]]
    assert [one.home for one in done] == [*homes, *HOMES[1], *SUPER_HOMES]
    assert [one.sequence for one in done if one.home in SUPER_HOMES] == [7, 7, 8, 8]
    assert (top(disk).name, top(disk).errors) == ("new", Errors.MEDIUM)
    code, result = by_kernel(disk)
    assert (code, result.medium) == (0, 1)


@pytest.mark.parametrize("damage", [(0, 255), (HOMES[0][0], HOMES[0][1])])
def test_nothing_is_written_to_what_no_load_accepts(damage: tuple[int, ...]) -> None:
    disk = fresh()
    for place in damage:
        disk[place] = JUNK
    with pytest.raises(DmRemapError):
        medium(disk)
    assert disk.log == []


def test_equal_sequences_with_different_choices_are_left_alone() -> None:
    disk = fresh()
    disk[255] = pack_super(superblock(remap_rate=1), 255)
    with pytest.raises(DmRemapError, match="contradict each other"):
        medium(disk)
    assert disk.log == []


def test_a_place_that_refuses_is_left_for_a_stand_in(by_kernel: KernelLoad) -> None:
    """A table's copy that lives on one is not overwritten by it."""
    disk = fresh([mapped(0, 9)])
    disk[STANDINS[0]] = table(0, 0, [mapped(0, 9)], 1, place=STANDINS[0])
    disk.stuck = {255}
    medium(disk)
    load = examine(disk)
    assert load.blocks[0].seqs == [3, 3]
    assert load.blocks[0].places[0] == 0
    assert load.blocks[0].places[1] in STANDINS[1:]
    code, result = by_kernel(disk)
    assert (code, result.medium, result.mapped) == (0, 1, 1)


def test_what_can_be_written_nowhere_leaves_a_set(by_kernel: KernelLoad) -> None:
    for stuck, chosen in (((0, 255), 0), ((255,), 1)):
        disk = fresh()
        disk.stuck = {*stuck, *STANDINS}
        with pytest.raises(DmRemapError, match="cannot be written anywhere"):
            medium(disk)
        disk.stuck = set()
        code, result = by_kernel(disk)
        assert (code, result.medium) == (0, chosen)


def test_what_does_not_keep_it_is_noticed() -> None:
    disk = fresh()
    lost = Disk()
    lost.data[:] = disk.data

    def forgets(place: int, block: bytes) -> bool:
        assert len(block) == BLOCK
        return place == 255 or disk.write(place, block)

    with pytest.raises(DmRemapError, match="what is read is not what was written"):
        choose(disk, 0, SET, forgets, errors=Errors.MEDIUM)


def test_any_cut_leaves_the_old_choice_or_the_new_one(by_kernel: KernelLoad) -> None:
    whole = fresh([mapped(0, 9)], sb=superblock(seq=5))
    whole[255] = pack_super(superblock(seq=4, name="old"), 255)
    done = medium(_copy(whole))
    seen = []
    for cut in range(len(done) + 1):
        disk = _copy(whole)
        for one in done[:cut]:
            disk[one.place] = one.data
        code, result = by_kernel(disk)
        assert (code, result.mapped) == (0, 1)
        seen.append(result.medium)
    assert seen == [0, 0, 0, 1, 1]


def _copy(disk: Disk) -> Disk:
    out = Disk()
    out.data[:] = disk.data
    return out
