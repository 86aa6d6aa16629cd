# SPDX-License-Identifier: GPL-2.0-only
"""What a superblock says is changed without the kernel, and the kernel takes it as it is."""

import errno
from collections.abc import Callable

import pytest
from unit.areas import (
    AREA_BLOCKS,
    HOMES,
    JUNK,
    OTHER,
    SB,
    SET,
    Disk,
    fresh,
    mapped,
    superblock,
    table,
)
from unit.kernelload import KernelLoad

from dmremap.errors import DmRemapError
from dmremap.ondisk import BLOCK, Epoch, Errors, Superblock, choose
from dmremap.ondisk._format import ffi, lib
from dmremap.ondisk.change import on_next_spare, successor, supersede
from dmremap.ondisk.check import examine
from dmremap.ondisk.head import HEADER
from dmremap.ondisk.layout import NO_EPOCH, STANDINS, SUPER_HOMES, pack_super
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


# ------------------------------------------------------------ to go on elsewhere


def retired(disk: Disk) -> list[Write]:
    return supersede(disk, 0, SET, disk.write)


def test_a_set_that_has_gone_on_is_whole_and_refused(by_kernel: KernelLoad) -> None:
    disk = fresh([mapped(0, 9)])
    assert [(one.home, one.sequence) for one in retired(disk)] == [(0, 3), (255, 3)]
    load = examine(disk)
    assert [(one.code, one.name) for one in load.refusals] == [("DMR-C314", "EINVAL")]
    assert load.superblock == superblock(seq=3, incompat=lib.DMR_INCOMPAT_SUPERSEDED)
    assert load.counts.mapped == 1
    for stale in (False, True):
        code, result = by_kernel(_copy(disk), accept_stale=stale)
        assert (code, result.writes) == (errno.EINVAL, 0)
        assert result.why == b"the set has gone on elsewhere: run dmremapctl check"
    # It is done, and a person cannot choose anything for it.
    disk.log.clear()
    assert retired(disk) == []
    with pytest.raises(DmRemapError) as caught:
        medium(disk)
    assert (caught.value.code, disk.log) == ("DMR-E530", [])


def test_the_first_copy_ends_it_and_the_rest_can_follow(by_kernel: KernelLoad) -> None:
    whole = fresh([mapped(0, 9)], sb=superblock(seq=5))
    whole[255] = pack_super(superblock(seq=4, name="old"), 255)
    done = retired(_copy(whole))
    ended = []
    for cut in range(len(done) + 1):
        disk = _copy(whole)
        for one in done[:cut]:
            disk[one.place] = one.data
        ended.append(by_kernel(_copy(disk))[0])
        retired(disk)
        assert by_kernel(disk)[0] == errno.EINVAL
        assert examine(disk).blocks[0].settled
    assert ended == [0, 0, 0, errno.EINVAL, errno.EINVAL]


def test_what_cannot_be_retired_says_so(by_kernel: KernelLoad) -> None:
    disk = fresh()
    disk.stuck = {255, *STANDINS}
    with pytest.raises(DmRemapError, match="block 255 cannot be written anywhere"):
        retired(disk)
    assert by_kernel(_copy(disk))[0] == errno.EINVAL
    disk.stuck = set()
    retired(disk)
    assert examine(disk).blocks[0].settled
    broken = fresh()
    broken[HOMES[0][0]] = broken[HOMES[0][1]] = JUNK
    with pytest.raises(DmRemapError, match="are gone"):
        retired(broken)
    assert broken.log == []


def test_what_takes_over_names_where_the_old_one_ended() -> None:
    disk = fresh()
    retired(disk)
    old = examine(disk).superblock
    assert old is not None
    new = successor(old, superblock(uuid=OTHER, epoch=Epoch(1, 5), before=NO_EPOCH))
    assert (new.predecessor, new.predecessor_epoch) == (SET, SB.epoch)
    assert (new.uuid, new.epoch, new.spare_serial) == (OTHER, Epoch(1, 5), 1)
    found = examine(fresh(sb=new)).superblock
    assert found == new


def test_another_spare_is_an_epoch_ahead() -> None:
    old = superblock(
        incompat=lib.DMR_INCOMPAT_SUPERSEDED, standins=((STANDINS[0], HOMES[0][0]),), spare_serial=4
    )
    new = on_next_spare(old, AREA_BLOCKS, SB.segments[0])
    assert (new.uuid, new.spare_serial, new.superseded, new.standins) == (SET, 5, False, ())
    assert (new.epoch.number, new.before) == (old.epoch.number + 1, old.epoch)
    load = examine(fresh(sb=new))
    assert load.accepted
    assert load.superblock == new


def _copy(disk: Disk) -> Disk:
    out = Disk()
    out.data[:] = disk.data
    return out
