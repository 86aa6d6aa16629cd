# SPDX-License-Identifier: GPL-2.0-only
"""The control plane's own blocks: what is read back, after a cut too; and nobody minds them."""

from random import Random

import pytest
from unit.areas import HOMES, JUNK, OTHER, SB, SET, Disk, fresh, mapped, reseal, superblock, table
from unit.kernelload import KernelLoad

from dmremap.errors import Failure
from dmremap.ondisk import BLOCK, View, find, look
from dmremap.ondisk._format import lib
from dmremap.ondisk.check import examine
from dmremap.ondisk.head import SECTOR
from dmremap.ondisk.layout import OWN_BLOCKS, Tag, header, pack_super, pack_tag
from dmremap.ondisk.own import COUNT, SIZE, Own, homes, pack_own, parse_own, read_own, write_own


def padded(text: bytes) -> bytes:
    return text.ljust(SIZE, b"\0")


def payload(disk: Disk, number: int = 0) -> bytes | None:
    own = read_own(View(disk, 0), SET, number)
    return own.payload.rstrip(b"\0") if own else None


def write(disk: Disk, text: bytes, number: int = 0) -> Own:
    return write_own(View(disk, 0), SET, number, text, disk.write)


def test_each_block_has_two_homes() -> None:
    every = [home for number in range(COUNT) for home in homes(number)]
    assert sorted(every) == list(OWN_BLOCKS) == list(range(1, 17))
    assert homes(0) == (1, 9)
    for number in (-1, COUNT):
        with pytest.raises(ValueError, match="no number"):
            homes(number)


def test_what_was_written_is_read() -> None:
    disk = fresh()
    for number in range(COUNT):
        assert payload(disk, number) is None
        assert write(disk, b"stamp %d" % number, number) == Own(1, padded(b"stamp %d" % number))
    assert [payload(disk, number) for number in range(COUNT)] == [
        b"stamp %d" % number for number in range(COUNT)
    ]
    assert write(disk, b"another").seq == 2
    assert payload(disk) == b"another"
    assert [place for place, _ in disk.log[-2:]] == [1, 9]
    assert header(disk[9], lib.DMR_TYPE_OWN, 9)
    assert read_own(View(disk, 0), OTHER, 0) is None


def test_what_no_block_can_hold() -> None:
    assert pack_own(SET, Own(1, bytes(SIZE)), 1)
    with pytest.raises(ValueError, match="4033 bytes"):
        pack_own(SET, Own(1, bytes(SIZE + 1)), 1)
    for seq in (0, lib.DMR_SEQ_MAX + 1):
        with pytest.raises(ValueError, match="sequence"):
            pack_own(SET, Own(seq, b""), 1)


@pytest.mark.parametrize(
    "block",
    [
        bytes(BLOCK),
        JUNK,
        pack_own(OTHER, Own(9, b"x"), 1),
        pack_own(SET, Own(9, b"x"), 2),
        reseal(pack_own(SET, Own(9, b"x"), 1), 2, 1),
        pack_own(SET, Own(lib.DMR_SEQ_MAX // 2 + 1, b"x"), 1),
        pack_super(SB, 1),
        pack_own(SET, Own(9, b"x"), 1)[:-1] + b"x",
    ],
)
def test_anything_else_is_nothing(block: bytes) -> None:
    assert parse_own(block, SET, 1) is None
    disk = fresh()
    write(disk, b"stamp")
    disk[1] = block
    assert payload(disk) == b"stamp"
    disk.bad.add(9)
    assert payload(disk) is None
    # And what stood there does not come back, whatever it was.
    write(disk, b"new")
    assert payload(disk) == b"new"


def test_two_copies_of_one_sequence_that_differ_are_nothing() -> None:
    disk = fresh()
    for home, text in zip(homes(3), (b"one", b"two"), strict=True):
        disk[home] = pack_own(SET, Own(4, text), home)
    assert payload(disk, 3) is None
    assert write(disk, b"three", 3).seq == 5
    assert payload(disk, 3) == b"three"


@pytest.mark.parametrize("unequal", [None, 0, 1])
def test_every_cut_leaves_the_old_or_the_new(unequal: int | None) -> None:
    for cut in range(2):
        for reached in (b"", pack_own(SET, Own(3, padded(b"new")), 1)[:SECTOR], None):
            disk = fresh()
            write(disk, b"oldest")
            older = disk[homes(0)[unequal or 0]]
            write(disk, b"old")
            if unequal is not None:
                disk[homes(0)[unequal]] = older
            done = 0

            def torn(
                place: int,
                data: bytes,
                disk: Disk = disk,
                cut: int = cut,
                part: bytes | None = reached,
            ) -> bool:
                nonlocal done
                if done == cut:
                    disk[place] = data if part is None else part + disk[place][len(part) :]
                    return False
                done += 1
                return disk.write(place, data)

            with pytest.raises(Failure):
                write_own(View(disk, 0), SET, 0, b"new", torn)
            assert payload(disk) in (b"old", b"new")
            assert payload(disk) == b"new" or not (cut or reached is None)


def anything(random: Random, place: int) -> bytes:
    """Return what may stand in one of these blocks."""
    return random.choice(
        (
            random.randbytes(BLOCK),
            JUNK,
            bytes(BLOCK),
            pack_own(random.choice((SET, OTHER)), Own(random.randrange(1, 2**62), b"x"), place),
            reseal(
                pack_super(superblock(uuid=random.choice((SET, OTHER)), seq=9, name="no"), 0),
                random.choice((0, 255, place)),
                place,
            ),
            reseal(table(0, 0, [mapped(0, 9)], 9), HOMES[0][0], place),
            pack_tag(Tag(OTHER, "no", 1 << 20, 2048, 512), place),
            pack_super(SB, 0),
        )
    )


def test_nobody_minds_what_stands_there(by_kernel: KernelLoad) -> None:
    """Not the kernel's load, with and without the uuid, nor whoever looks, checks or finds."""
    random = Random(14)
    disk = fresh([mapped(0, 100)])
    plain = examine(disk)
    for _ in range(40):
        for place in OWN_BLOCKS:
            disk[place] = anything(random, place)
        disk.bad = set(random.sample(OWN_BLOCKS, random.choice((0, 0, 1, 16))))
        load = examine(disk)
        assert (load.accepted, load.findings) == (True, plain.findings)
        assert (load.blocks, load.counts) == (plain.blocks, plain.counts)
        assert find(View(disk, 0))[0].superblock == look(View(disk, 0)).superblock == SB
        assert len(find(View(disk, 0))) == 1
        before = [disk[place] for place in OWN_BLOCKS]
        for uuid in (SET, None):
            copy = Disk()
            copy.data, copy.bad = bytearray(disk.data), set(disk.bad)
            code, result = by_kernel(copy, uuid=uuid)
            assert (code, result.mapped, result.format) == (0, 1, 0), result.why
            assert not set(result.place[: result.writes]) & {*OWN_BLOCKS}
            assert [copy[place] for place in OWN_BLOCKS] == before


def test_an_area_with_something_there_is_not_blank(by_kernel: KernelLoad) -> None:
    for place in (OWN_BLOCKS[0], OWN_BLOCKS[-1]):
        disk = Disk()
        disk[place] = pack_own(SET, Own(1, b"x"), place)
        code, result = by_kernel(disk, uuid=None, formats=True)
        assert code
        assert not result.writes
    code, _ = by_kernel(Disk(), uuid=None, formats=True)
    assert code == 0
