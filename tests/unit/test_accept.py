# SPDX-License-Identifier: GPL-2.0-only
"""repair --accept-older-spare: what it asks, what it writes, and what each cut of it leaves."""

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from unit.areas import HOMES, JUNK, OTHER, Disk, fresh, mapped, superblock
from unit.test_compare import ALIEN, CASES, MAIN_BLOCKS, SB, Pair, copies, tag_of

from dmremap.errors import Busy, Failure
from dmremap.ondisk import (
    BLOCK,
    BlockDevice,
    Epoch,
    Superblock,
    Tag,
    View,
    look,
    newest_tag,
    read_tags,
)
from dmremap.ondisk._format import lib
from dmremap.ondisk.epoch import OLDER, PARTED, judge_main
from dmremap.ondisk.layout import SUPER_HOMES, TAG_BLOCKS, parse_super
from dmremap.sets import accept, offline

ACCEPT = ("repair", "SPARE", "--main", "MAIN", "--accept-older-spare")


@pytest.fixture
def pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Pair:
    return Pair(tmp_path, capsys)


def disk_of(path: Path) -> Disk:
    out = Disk(0)
    out.data = bytearray(path.read_bytes())
    return out


def supers(pair: Pair) -> list[Superblock | None]:
    disk = disk_of(pair.spare)
    return [parse_super(disk[home], home) for home in SUPER_HOMES]


def tags(pair: Pair) -> dict[int, Tag]:
    return read_tags(View(disk_of(pair.main), 0))


def judged(pair: Pair) -> str | None:
    """Return what a load says of the two."""
    sb = look(View(disk_of(pair.spare), 0)).superblock
    assert sb
    problem = judge_main(sb, tags(pair), MAIN_BLOCKS * 8)
    return problem.code if problem else None


def is_whole(pair: Pair, above: int) -> None:
    """Both superblocks and all of the tag have one epoch, above another."""
    first, second = supers(pair)
    assert first
    assert second
    assert first == second
    assert first.epoch.number > above
    found = tags(pair)
    assert {*found} == {*TAG_BLOCKS}
    assert {tag.epoch for tag in found.values()} == {first.epoch}
    assert judged(pair) is None


@pytest.mark.parametrize(("tag", "code"), CASES.items())
def test_what_is_written(pair: Pair, tag: tuple[int, int], code: str | None) -> None:
    pair.put_main(copies(tag_of(Epoch(*tag))))
    before = pair.spare.read_bytes(), pair.main.read_bytes()
    if tag[0] == lib.DMR_EPOCH_MAX:
        status, whole = pair.json(*ACCEPT, "--yes")
        assert (status, whole["error"]["code"]) == (5, "DMR-E532")
        assert (pair.spare.read_bytes(), pair.main.read_bytes()) == before
        return
    status, whole = pair.json(*ACCEPT, "--dry-run")
    assert (pair.spare.read_bytes(), pair.main.read_bytes()) == before
    assert whole["data"]["result"] == ("would accept" if code else "clean")
    status, whole = pair.json(*ACCEPT, "--yes")
    data = whole["data"]
    assert status == 0
    if code is None:
        assert (data["result"], data["writes"], data["main_writes"]) == ("clean", [], [])
        assert (pair.spare.read_bytes(), pair.main.read_bytes()) == before
        return
    number = max(tag[0], 5) + 1
    assert (data["result"], data["epoch"]["number"]) == ("accepted", number)
    assert [one["block"] for one in data["writes"]] == [0, 255]
    assert [one["block"] for one in data["main_writes"]] == [*TAG_BLOCKS]
    assert data["compared"]["verdict"] == ("older_spare" if code == OLDER else "parted")
    is_whole(pair, max(tag[0], 5))
    now = supers(pair)[0]
    assert now
    assert now.before == (Epoch(*tag) if tag[0] >= 5 else SB.epoch)
    assert replace(now, seq=2, epoch=SB.epoch, before=SB.before) == SB
    assert {*tags(pair).values()} == {replace(Tag.of(now, 0))}
    assert pair.json("check", "SPARE", "--main", "MAIN")[0] == 0
    # The rest of both is as it was.
    for path, old, places in (
        (pair.spare, before[0], SUPER_HOMES),
        (pair.main, before[1], TAG_BLOCKS),
    ):
        new = disk_of(path)
        for place in places:
            new[place] = old[place * BLOCK : (place + 1) * BLOCK]
        assert new.data == old


def test_a_person_is_told_first(pair: Pair) -> None:
    pair.put_main(copies(tag_of(Epoch(9, 1))))
    before = pair.spare.read_bytes(), pair.main.read_bytes()
    status, whole = pair.json(*ACCEPT)
    assert (status, whole["error"]["code"]) == (2, "DMR-E202")
    for words in ("mapped since", "as they were then", "'attic'", "epoch 9", "with 2 blocks"):
        assert words in whole["error"]["message"]
    assert (pair.spare.read_bytes(), pair.main.read_bytes()) == before


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda pair: pair.put_main({}), "DMR-E513"),
        (lambda pair: pair.put_main(copies(replace(tag_of(Epoch(9, 1)), uuid=OTHER))), "DMR-E513"),
        (
            lambda pair: pair.put_main(copies(replace(tag_of(Epoch(9, 1)), data_start=4096))),
            "DMR-E513",
        ),
        (lambda pair: pair.put_main(copies(replace(tag_of(Epoch(9, 1)), unit=4096))), "DMR-E513"),
        (
            lambda pair: pair.put_main(copies(replace(tag_of(Epoch(9, 1)), main_sectors=8192))),
            "DMR-E513",
        ),
        (lambda pair: os.truncate(pair.main, (MAIN_BLOCKS + 1) * BLOCK), "DMR-E513"),
        (lambda pair: os.truncate(pair.main, (MAIN_BLOCKS - 1) * BLOCK), "DMR-E513"),
        (lambda pair: pair.put_spare(superblock()), "DMR-E201"),
        (lambda pair: pair.spare.write_bytes(bytes(340 * BLOCK)), "DMR-E307"),
        (lambda pair: damage(pair, *HOMES[1]), "DMR-E514"),
        (lambda pair: pair.put_spare(replace(SB, incompat=1)), "DMR-E530"),
    ],
)
def test_nothing_is_written_to_what_only_resembles(
    pair: Pair, change: Callable[[Pair], Any], code: str
) -> None:
    pair.put_main(copies(tag_of(Epoch(9, 1))))
    change(pair)
    before = pair.spare.read_bytes(), pair.main.read_bytes()
    assert pair.json(*ACCEPT, "--yes")[1]["error"]["code"] == code
    assert (pair.spare.read_bytes(), pair.main.read_bytes()) == before


def damage(pair: Pair, *places: int) -> None:
    disk = disk_of(pair.spare)
    for place in places:
        disk[place] = JUNK
    pair.spare.write_bytes(disk.data)


def test_an_image_needs_its_main_named(pair: Pair) -> None:
    status, whole = pair.json("repair", "SPARE", "--accept-older-spare", "--yes")
    assert (status, whole["error"]["code"]) == (3, "DMR-E305")
    assert "--main" in whole["error"]["hint"]


def test_one_file_is_not_both(pair: Pair) -> None:
    disk = disk_of(pair.spare)
    pair.put_main(copies(tag_of(Epoch(9, 1))))
    main = disk_of(pair.main)
    for place in (64, 192):
        disk[place] = main[place]
    disk.data += bytes((MAIN_BLOCKS - 340) * BLOCK)
    pair.spare.write_bytes(disk.data)
    before = pair.spare.read_bytes()
    args = ("repair", "SPARE", "--main", str(pair.spare), "--accept-older-spare", "--yes")
    assert pair.json(*args)[0] == 4
    assert pair.spare.read_bytes() == before


def test_what_has_changed_since_the_question(pair: Pair) -> None:
    pair.put_main(copies(tag_of(Epoch(9, 1))))
    made = accept.plan(offline.locate(str(pair.spare)), main=str(pair.main))
    changes: list[Callable[[], None]] = [
        lambda: pair.put_main(copies(tag_of(Epoch(10, 1)))),
        lambda: damage(pair, HOMES[0][0]),
        lambda: pair.put_main(copies(tag_of())),
    ]
    for change in changes:
        change()
        before = pair.spare.read_bytes(), pair.main.read_bytes()
        with pytest.raises(Busy, match="has changed"):
            accept.carry_out(made)
        assert (pair.spare.read_bytes(), pair.main.read_bytes()) == before


def stuck(monkeypatch: pytest.MonkeyPatch, path: Path, *places: int) -> list[int]:
    """Have a file refuse to have some blocks written; return those that somebody tried to."""
    plainly = BlockDevice.write
    tried: list[int] = []

    def write(self: BlockDevice, offset: int, data: bytes) -> None:
        if self.path == str(path) and offset // BLOCK in places:
            tried.append(offset // BLOCK)
            raise Failure("DMR-E103", "it does not take that")
        plainly(self, offset, data)

    monkeypatch.setattr(BlockDevice, "write", write)
    return tried


def test_a_main_that_takes_no_tag_is_no_reason(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.put_main(copies(tag_of(Epoch(9, 1))))
    tried = stuck(monkeypatch, pair.main, *TAG_BLOCKS)
    status, out, err = pair.run(*ACCEPT, "--yes")
    assert status == 0, out + err
    assert "has not taken 5 of 5 copies of its tag" in err
    assert judged(pair) is None
    assert newest_tag(tags(pair).values()) == tag_of(Epoch(9, 1))
    # Each may take a failing disk minutes.
    assert tried == [1, 64]


def test_tags_that_contradict_each_other_must_be_written(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    parted = {**copies(tag_of(Epoch(9, 1))), 64: tag_of(Epoch(9, 2))}
    pair.put_main(parted)
    assert judged(pair) == PARTED
    with monkeypatch.context() as patch:
        stuck(patch, pair.main, *TAG_BLOCKS)
        status, whole = pair.json(*ACCEPT, "--yes")
        assert (status, whole["error"]["code"]) == (1, "DMR-E103")
    status, whole = pair.json(*ACCEPT, "--yes")
    assert (status, whole["data"]["result"]) == (0, "accepted")
    is_whole(pair, 10)


def test_a_home_that_refuses_goes_to_a_stand_in(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.put_main(copies(tag_of(Epoch(9, 1))))
    stuck(monkeypatch, pair.spare, 0)
    status, whole = pair.json(*ACCEPT, "--yes")
    assert status == 0
    places = [one["block"] for one in whole["data"]["writes"]]
    assert places[0] in range(128, 255)
    assert places[1] == 255
    assert judged(pair) is None


def test_one_superblock_is_not_enough(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tag is left as it was, and it is done again."""
    pair.put_main(copies(tag_of(Epoch(9, 1))))
    with monkeypatch.context() as patch:
        stuck(patch, pair.spare, *range(128, 256))
        status, whole = pair.json(*ACCEPT, "--yes")
        assert (status, whole["error"]["code"]) == (1, "DMR-E103")
    assert {*tags(pair).values()} == {tag_of(Epoch(9, 1))}
    assert pair.json(*ACCEPT, "--yes")[0] == 0
    assert judged(pair) is None


# --------------------------------------------------------------------- cuts


class Cut(BaseException):
    """The power is gone."""


def cut_at(patch: pytest.MonkeyPatch, number: int, reached: int) -> None:
    """Have the power go at a write, of which so many bytes reach the disk."""
    plainly, left = BlockDevice.write, [number]

    def write(self: BlockDevice, offset: int, data: bytes) -> None:
        if left[0]:
            left[0] -= 1
            return plainly(self, offset, data)
        # A disk may tear the physical sector, which is of several logical ones.
        plainly(self, offset, data[:reached] + JUNK[reached:])
        raise Cut

    patch.setattr(BlockDevice, "write", write)


def lagging(number: int, id_: int, *places: int) -> dict[int, Tag]:
    """Return a tag of which some copies only are the newest."""
    out = copies(tag_of(Epoch(2, 0x22)))
    return {**out, **copies(tag_of(Epoch(number, id_)), places)}


MAINS = {
    "older": copies(tag_of(Epoch(9, 1))),
    "older, one copy is left": {128: tag_of(Epoch(9, 1))},
    "older, the first copy is the newest": lagging(9, 1, 1),
    "older, two in the middle are": lagging(6, 1, 64, 192),
    "the same number": copies(tag_of(Epoch(5, ALIEN))),
    "one behind": lagging(4, ALIEN, 1),
    "two histories in the tag": {**lagging(7, 1, 1), 255: tag_of(Epoch(7, 2))},
}
SPARES: dict[str, Callable[[Disk], None]] = {
    "one superblock": lambda disk: disk.__setitem__(0, JUNK),
    "the other one": lambda disk: disk.__setitem__(255, JUNK),
    "a table": lambda disk: disk.__setitem__(HOMES[0][1], JUNK),
    "a torn stand-in": lambda disk: disk.__setitem__(140, JUNK),
}


@pytest.mark.parametrize(
    ("main", "spare"),
    [*((main, "clean") for main in MAINS), *(("older, one copy is left", one) for one in SPARES)],
)
def test_every_cut(pair: Pair, main: str, spare: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it leaves is refused as before, or accepted, and it can be done again."""
    pair.put_main(MAINS[main])
    disk = fresh([mapped(0, 3000)], sb=SB)
    SPARES.get(spare, id)(disk)
    pair.spare.write_bytes(disk.data)
    # The order is what is looked at, and files have no cache to lose.
    monkeypatch.setattr(BlockDevice, "flush", lambda _self: None)
    monkeypatch.setattr(os, "O_DIRECT", 0)
    images = pair.spare.read_bytes(), pair.main.read_bytes()
    refused = judged(pair)
    last = newest_tag(MAINS[main].values())
    assert refused
    assert last
    top = max(last.epoch.number, 5)
    for number in range(100):
        # Nothing of it is all of the write before.
        for reached in (512, BLOCK):
            pair.spare.write_bytes(images[0])
            pair.main.write_bytes(images[1])
            made = accept.plan(offline.locate(str(pair.spare)), main=str(pair.main))
            with monkeypatch.context() as patch:
                cut_at(patch, number, reached)
                try:
                    accept.carry_out(made)
                except Cut:
                    pass
                else:
                    is_whole(pair, top)
                    assert number >= 7
                    return
            _left(pair, refused, top, last.epoch.number)
            again = accept.plan(offline.locate(str(pair.spare)), main=str(pair.main))
            accept.carry_out(again)
            assert judged(pair) is None
            first, second = supers(pair)
            assert first == second
            assert first
            assert first.epoch.number > top
    pytest.fail("it never ends")


def _left(pair: Pair, refused: str, top: int, last: int) -> None:
    """See that what a cut leaves is what the order allows."""
    now = judged(pair)
    assert now in (None, refused)
    begun = [sb is not None and sb.epoch.number > top for sb in supers(pair)]
    found = tags(pair)
    highest = max(tag.epoch.number for tag in found.values())
    # The tag is behind both superblocks, and never behind what it was.
    assert all(begun) or highest <= top
    assert highest >= last
    best = newest_tag(found.values())
    assert best
    if all(begun) and not best.fault:
        assert now is None


def test_the_files_stay_what_they_were(pair: Pair) -> None:
    before = stat.S_IMODE(pair.spare.stat().st_mode)
    pair.put_main(copies(tag_of(Epoch(9, 1))))
    assert pair.run(*ACCEPT, "--yes")[0] == 0
    assert stat.S_IMODE(pair.spare.stat().st_mode) == before
