# SPDX-License-Identifier: GPL-2.0-only
"""import --metadata begins an epoch: behind all that are known, and when all else is done."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from unit.areas import HOMES, JUNK, OTHER, Disk, fresh, mapped, superblock
from unit.test_accept import Cut, cut_at, damage, judged, stuck, supers, tags
from unit.test_compare import MAIN_BLOCKS, SB, Pair, copies, tag_of

from dmremap.errors import Refused
from dmremap.ondisk import BLOCK, BlockDevice, Epoch, Superblock
from dmremap.ondisk._format import lib
from dmremap.ondisk.backup import encode
from dmremap.ondisk.check import examine
from dmremap.ondisk.epoch import OLDER
from dmremap.ondisk.layout import TAG_BLOCKS
from dmremap.sets import offline, restore

OLD = replace(SB, seq=1, epoch=Epoch(3, 3), before=Epoch(2, 2))


class Backed(Pair):
    """A spare and its main, and a backup that was made in an earlier epoch."""

    def __init__(self, where: Path, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(where, capsys)
        self.file = where / "backup"
        self.back_up(OLD)

    def back_up(self, sb: Superblock) -> None:
        self.file.write_bytes(encode(examine(fresh([mapped(0, 3000)], sb=sb, seq=7)), 1))

    def bring(self, *args: str, main: bool = True) -> tuple[int, dict[str, Any]]:
        named = ("--main", "MAIN") if main else ()
        return self.json("import", "--metadata", str(self.file), "SPARE", "--yes", *named, *args)


@pytest.fixture
def pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Backed:
    return Backed(tmp_path, capsys)


def begun(pair: Pair) -> Epoch:
    """Return the epoch that both superblocks have."""
    first, second = supers(pair)
    assert first
    assert first == second
    return first.epoch


@pytest.mark.parametrize(
    ("backup", "there", "tag", "before"),
    [
        (Epoch(3, 3), Epoch(5, 0xA5), Epoch(5, 0xA5), Epoch(5, 0xA5)),
        (Epoch(3, 3), Epoch(5, 0xA5), Epoch(4, 0xB4), Epoch(5, 0xA5)),
        (Epoch(8, 8), Epoch(5, 0xA5), Epoch(5, 0xA5), Epoch(8, 8)),
        (Epoch(3, 3), None, Epoch(9, 9), Epoch(9, 9)),
        (Epoch(9, 8), None, Epoch(9, 9), Epoch(9, 9)),
        (Epoch(9, 8), None, Epoch(2, 9), Epoch(9, 8)),
    ],
)
def test_it_is_behind_all_that_are_known(
    pair: Backed, backup: Epoch, there: Epoch | None, tag: Epoch, before: Epoch
) -> None:
    seq = 3 if backup.number > 5 else 1
    pair.back_up(replace(OLD, seq=seq, epoch=backup, before=Epoch(backup.number - 1, 1)))
    damage(pair, *HOMES[1], *(() if there else (0, 255)))
    pair.put_main(copies(tag_of(tag)))
    status, whole = pair.bring("--force")
    assert (status, whole["error"]) == (0, None)
    now = begun(pair)
    assert now.number == before.number + 1
    assert now.id not in (backup.id, tag.id, 0)
    first = supers(pair)[0]
    assert first
    assert first.before == before
    assert {one.epoch for one in tags(pair).values()} == {now}
    assert {*tags(pair)} == {*TAG_BLOCKS}
    assert judged(pair) is None
    data = whole["data"]
    assert data["epoch"]["number"] == now.number
    assert [one["block"] for one in data["main_writes"]] == [*TAG_BLOCKS]


def test_where_nothing_comes_back_none_begins(pair: Backed) -> None:
    before = pair.spare.read_bytes(), pair.main.read_bytes()
    pair.file.write_bytes(encode(examine(fresh([mapped(0, 3000)], sb=SB)), 1))
    status, whole = pair.bring()
    data = whole["data"]
    assert (status, data["result"], data["main_writes"]) == (0, "clean", [])
    assert (pair.spare.read_bytes(), pair.main.read_bytes()) == before


def test_an_older_spare_needs_force(pair: Backed) -> None:
    """Its tables may all be there, and what its slots hold is old all the same."""
    pair.put_main(copies(tag_of(Epoch(9, 9))))
    before = pair.spare.read_bytes(), pair.main.read_bytes()
    status, whole = pair.bring()
    error = whole["error"]
    assert (status, error["code"]) == (5, "DMR-E531")
    assert "--force" in error["hint"]
    assert (pair.spare.read_bytes(), pair.main.read_bytes()) == before
    assert pair.bring("--force")[0] == 0
    assert begun(pair).number == 10
    assert judged(pair) is None


def test_an_older_spare_that_has_all_is_taken_too(pair: Backed) -> None:
    pair.file.write_bytes(encode(examine(fresh([mapped(0, 3000)], sb=SB)), 1))
    pair.put_main(copies(tag_of(Epoch(9, 9))))
    assert pair.bring("--force")[0] == 0
    assert judged(pair) is None


def test_a_blank_area(pair: Backed) -> None:
    pair.spare.write_bytes(bytes(340 * BLOCK))
    pair.put_main(copies(tag_of(Epoch(9, 9))))
    status, whole = pair.bring()
    data = whole["data"]
    assert (status, data["blank"], data["compared"]) == (0, True, None)
    assert begun(pair).number == 10
    assert judged(pair) is None


def test_an_adopted_main_has_no_tag(pair: Backed) -> None:
    adopted = superblock(epoch=Epoch(5, 5), before=Epoch(4, 4))
    pair.put_spare(adopted)
    pair.back_up(superblock(seq=1, epoch=Epoch(3, 3), before=Epoch(2, 2)))
    damage(pair, *HOMES[1])
    status, whole = pair.bring("--force", main=False)
    (warning,) = whole["warnings"]
    assert (status, "this host has not seen the set" in warning) == (0, True)
    assert begun(pair).number == 6


def test_a_main_that_is_not_there_is_named(pair: Backed) -> None:
    damage(pair, *HOMES[1])
    before = pair.main.read_bytes()
    status, whole = pair.bring("--force", main=False)
    (warning,) = whole["warnings"]
    assert status == 0
    assert "main's tag was not written: an image does not say" in warning
    assert begun(pair).number == 6
    assert pair.main.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda pair: pair.put_main(copies(replace(tag_of(), uuid=OTHER))),
        lambda pair: pair.put_main(copies(replace(tag_of(), data_start=4096))),
        lambda pair: os.truncate(pair.main, (MAIN_BLOCKS + 1) * BLOCK),
        lambda pair: pair.put_main({}),
    ],
)
def test_nothing_is_written_to_what_only_resembles_main(
    pair: Backed, change: Callable[[Pair], None]
) -> None:
    damage(pair, *HOMES[1])
    change(pair)
    before = pair.spare.read_bytes(), pair.main.read_bytes()
    status, whole = pair.bring("--force")
    error = whole["error"]
    assert (status, error["code"]) == (5, "DMR-E513")
    assert (pair.spare.read_bytes(), pair.main.read_bytes()) == before


def test_there_is_none_behind_the_last(pair: Backed) -> None:
    damage(pair, *HOMES[1])
    pair.put_main(copies(tag_of(Epoch(lib.DMR_EPOCH_MAX, 9))))
    before = pair.spare.read_bytes()
    status, whole = pair.bring("--force")
    error = whole["error"]
    assert (status, error["code"]) == (5, "DMR-E532")
    assert pair.spare.read_bytes() == before


def test_a_tag_that_main_refuses_is_said(pair: Backed, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(pair, *HOMES[1])
    stuck(monkeypatch, pair.main, *TAG_BLOCKS)
    status, whole = pair.bring("--force")
    (warning,) = whole["warnings"]
    assert (status, judged(pair)) == (0, None)
    assert "has not taken 5 of 5 copies of its tag" in warning


@pytest.mark.parametrize("gone", [HOMES[1], (0, 255), None], ids=["table", "superblocks", "blank"])
def test_every_cut(
    pair: Backed, gone: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the tables are whole again a load that refused the spare as older does so still."""
    monkeypatch.setattr(BlockDevice, "flush", lambda _self: None)
    monkeypatch.setattr(os, "O_DIRECT", 0)
    pair.put_main(copies(tag_of(Epoch(9, 9))))
    if gone is None:
        pair.spare.write_bytes(bytes(340 * BLOCK))
    else:
        damage(pair, *gone)
    images = pair.spare.read_bytes(), pair.main.read_bytes()
    backup = offline.read_backup(str(pair.file))
    place = offline.locate(str(pair.spare))
    for number in range(100):
        for reached in (512, BLOCK):
            pair.spare.write_bytes(images[0])
            pair.main.write_bytes(images[1])
            made = restore.plan(backup, place, force=True, main=str(pair.main))
            with monkeypatch.context() as patch:
                cut_at(patch, number, reached)
                try:
                    restore.carry_out(made)
                except Cut:
                    pass
                else:
                    assert (judged(pair), begun(pair).number) == (None, 10)
                    assert number >= 11
                    return
            if gone is None and (number, reached) == (0, 512):
                # The mark of what is begun is torn: somebody has to look at that.
                with pytest.raises(Refused, match="not blank"):
                    restore.plan(backup, place, force=True, main=str(pair.main))
                continue
            disk = Disk(0)
            disk.data = bytearray(pair.spare.read_bytes())
            load = examine(disk)
            if load.superblock and not load.refusals and judged(pair) is None:
                # What is accepted from here on is all that was to come.
                assert load.counts == made.after.counts
            highest = max(one.epoch.number for one in tags(pair).values())
            assert highest == 9 or [sb and sb.epoch.number for sb in supers(pair)] == [10, 10]
            again = restore.plan(backup, place, force=True, main=str(pair.main))
            if again.writes:
                restore.carry_out(again)
            assert judged(pair) is None
    pytest.fail("it never ends")


def test_the_older_one_is_refused_until_the_end(
    pair: Backed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spare with old tables, and a backup with newer ones: the tables come first."""
    pair.put_main(copies(tag_of(Epoch(9, 9))))
    pair.back_up(replace(SB, seq=3, epoch=Epoch(8, 8), before=Epoch(7, 7)))
    seen: list[str | None] = []
    plainly = BlockDevice.write

    def write(self: BlockDevice, offset: int, data: bytes) -> None:
        if self.path == str(pair.spare):
            seen.append(judged(pair))
        plainly(self, offset, data)

    monkeypatch.setattr(BlockDevice, "write", write)
    assert pair.bring("--force")[0] == 0
    # Six copies of tables, and the first superblock that has the epoch.
    assert len(seen) >= 8
    assert seen[:-1] == [OLDER] * (len(seen) - 1)
    assert judged(pair) is None


def test_what_has_changed_meanwhile(pair: Backed) -> None:
    damage(pair, *HOMES[1])
    backup = offline.read_backup(str(pair.file))
    made = restore.plan(backup, offline.locate(str(pair.spare)), force=True, main=str(pair.main))
    pair.put_main(copies(tag_of(Epoch(6, 6))))
    before = pair.spare.read_bytes()
    with pytest.raises(Exception, match="has changed"):
        restore.carry_out(made)
    assert pair.spare.read_bytes() == before
    assert JUNK in before
    with pytest.raises(Refused):
        restore.plan(backup, offline.locate(str(pair.spare)), main=str(pair.main))
