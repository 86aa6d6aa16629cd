# SPDX-License-Identifier: GPL-2.0-only
"""Epochs: a spare that is put back from an older copy of itself is refused, and names its reason.
And a set that has gone on elsewhere, which is the end of its epochs.

Runs inside a guest, as root.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from guest import dmioctl
from guest.lib import (
    MIB,
    SECTOR,
    CommandError,
    backing_file,
    dm_create,
    dm_load,
    dm_message,
    dm_names,
    dm_reload,
    dm_remove,
    dm_resume,
    dm_suspend,
    fault_device,
    loop_device,
    outcome,
    pattern,
    read,
    run,
    sectors,
    wait_for,
    write,
)
from guest.remapset import (
    KernelLog,
    contents,
    format_set,
    new_superblock,
    read_superblock,
    refusal,
    status,
    tag_main,
)

from dmremap.ondisk import View, opened, read_tag
from dmremap.ondisk.layout import SUPER_HOMES, TAG_BLOCKS, parse_super

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from guest.lib import Fault

    from dmremap.ondisk.layout import Epoch, Superblock

pytestmark = [pytest.mark.guest, pytest.mark.module]

SPARE = 4 * MIB // SECTOR
OLDER = "the spare is an older copy of itself: run dmremapctl check"
PARTED = "main was used with another copy of the spare: run dmremapctl check"
NAME = "set"


@dataclass
class TaggedSet:
    """A set whose main is tagged, on disks that can fail."""

    main: Fault
    spare: Path
    superblock: Superblock

    def line(self, spare: Path | None = None) -> str:
        """Return its table line, with another device in place of its spare."""
        options = f"4 main_start 2048 uuid {self.superblock.uuid}"
        length = sectors(self.main.path) - 2048
        return f"0 {length} remap {self.main.path} {spare or self.spare} 0 {SPARE} {options}"

    def start(self, *, readonly: bool = False) -> Path:
        """Start it."""
        return dm_create(NAME, self.line(), readonly=readonly)

    def copies(self) -> list[Superblock | None]:
        """Return both superblocks at their homes."""
        with opened(str(self.spare)) as device:
            blocks = [device.read_block(0, home) for home in SUPER_HOMES]
        return [parse_super(b or b"", home) for b, home in zip(blocks, SUPER_HOMES, strict=True)]

    def superblocks(self) -> Epoch:
        """Return the epoch on the spare."""
        return read_superblock(self.spare).epoch

    def tags(self) -> Epoch:
        """Return the epoch in main's tag."""
        with opened(str(self.main.path)) as device:
            found = read_tag(View(device, 0))
        assert found is not None
        assert not found.fault
        return found.epoch

    def keep(self, where: Path) -> Path:
        """Copy the spare as it is on its disk; return the file."""
        run("sync", "-f", backing_file(self.spare))
        shutil.copyfile(backing_file(self.spare), where)
        return where

    def put_back(self, kept: Path) -> None:
        """Have the spare be what it was."""
        run("dd", f"if={kept}", f"of={self.spare}", "bs=1M", "oflag=direct", "status=none")

    def wear(self, path: Path, sector: int) -> None:
        """Have a block mapped."""
        self.main.add(2048 + sector, 1, "write", "medium")
        write(path, sector, pattern(sector))


@pytest.fixture
def tagged() -> Iterator[TaggedSet]:
    with loop_device(8 * MIB) as disk, loop_device(4 * MIB) as spare, fault_device(disk) as main:
        superblock = new_superblock(main.path, SPARE, tagged=True, data_start=2048)
        format_set(spare, superblock)
        tag_main(main.path, superblock)
        try:
            yield TaggedSet(main, spare, superblock)
        finally:
            if NAME in dm_names():
                dm_remove(NAME)


def stop() -> str:
    """Stop the set as dmremapctl does."""
    dm_suspend(NAME)
    said = dm_message(NAME, "stop")
    dm_remove(NAME)
    return said


def test_a_start_and_a_stop_begin_epochs(tagged: TaggedSet) -> None:
    tagged.start()
    assert (status(NAME).epoch, status(NAME).tag) == (2, len(TAG_BLOCKS))
    first = tagged.tags()
    assert first == tagged.superblocks()
    assert first.number == 2
    assert stop().split() == ["epoch", "3", "tag", str(len(TAG_BLOCKS))]
    assert tagged.tags() == tagged.superblocks()
    assert tagged.tags().number == 3
    assert tagged.tags().id != first.id
    tagged.start()
    assert status(NAME).epoch == 4
    dm_remove(NAME)
    # Nothing is written by a device that is only removed.
    assert tagged.tags().number == 4


def test_a_start_writes_the_superblocks_and_the_tag(tagged: TaggedSet) -> None:
    """And no table block, nor anything else of main."""
    tagged.start()
    stop()
    tagged.main.reset()
    with fault_device(tagged.spare, name="counted-spare") as spare:
        dm_create(NAME, tagged.line(spare.path))
        assert tagged.main.counters()["writes"] == len(TAG_BLOCKS)
        assert spare.counters()["writes"] == len(SUPER_HOMES)
        dm_remove(NAME)


def test_a_spare_put_back_is_refused(tagged: TaggedSet, tmp_path: Path) -> None:
    kept = [tagged.keep(tmp_path / "new")]
    path = tagged.start()
    kept.append(tagged.keep(tmp_path / "running"))
    tagged.wear(path, 16)
    stop()
    stopped = tagged.keep(tmp_path / "stopped")
    for older in kept:
        tagged.put_back(older)
        before = contents(tagged.main.path, tagged.spare)
        for readonly in (False, True):
            assert OLDER in refusal(tagged.line(), readonly=readonly)
        assert contents(tagged.main.path, tagged.spare) == before
    tagged.put_back(stopped)
    assert read(tagged.start(), 16) == pattern(16)


def test_two_copies_that_were_both_used_have_parted(tagged: TaggedSet, tmp_path: Path) -> None:
    tagged.start()
    stop()
    before = tagged.keep(tmp_path / "before")
    tag = [(block, read(tagged.main.path, block * 8, 8)) for block in TAG_BLOCKS]
    tagged.start()
    dm_remove(NAME)
    # As if another main, a copy, had been used with the other one.
    for block, data in tag:
        write(tagged.main.path, block * 8, data)
    used = tagged.keep(tmp_path / "used")
    tagged.put_back(before)
    tagged.start()
    dm_remove(NAME)
    tagged.put_back(used)
    assert PARTED in refusal(tagged.line())


def test_what_is_resumed_after_a_stop_begins_another(tagged: TaggedSet, tmp_path: Path) -> None:
    path = tagged.start()
    dm_suspend(NAME)
    dm_message(NAME, "stop")
    kept = tagged.keep(tmp_path / "kept")
    assert status(NAME).epoch == 3
    dm_resume(NAME)
    wait_for(lambda: tagged.tags().number == 4, "the tag has the fourth epoch")
    assert status(NAME).epoch == 4
    tagged.wear(path, 8)
    dm_remove(NAME)
    tagged.put_back(kept)
    assert OLDER in refusal(tagged.line())


def test_a_plain_resume_begins_none(tagged: TaggedSet) -> None:
    tagged.start()
    dm_suspend(NAME)
    dm_resume(NAME)
    time.sleep(0.5)
    assert status(NAME).epoch == 2


def test_a_reload_begins_one(tagged: TaggedSet) -> None:
    tagged.start()
    dm_reload(NAME, tagged.line())
    assert status(NAME).epoch == 3
    assert tagged.tags() == tagged.superblocks()


def test_stop_is_for_a_quiet_device(tagged: TaggedSet) -> None:
    tagged.start()
    with KernelLog() as log, pytest.raises(CommandError, match="busy"):
        dm_message(NAME, "stop")
    assert "message stop: suspend the device first, again if it is" in log.text
    assert status(NAME).epoch == 2


def test_a_readonly_table_begins_none(tagged: TaggedSet) -> None:
    before = contents(tagged.main.path, tagged.spare)
    tagged.start(readonly=True)
    assert (status(NAME).epoch, status(NAME).tag) == (1, len(TAG_BLOCKS))
    dm_suspend(NAME)
    with KernelLog() as log, pytest.raises(CommandError, match="Read-only"):
        dm_message(NAME, "stop")
    assert "message stop: the set is in mode ro" in log.text
    dm_remove(NAME)
    assert contents(tagged.main.path, tagged.spare) == before


def test_a_main_that_takes_no_tag_works(tagged: TaggedSet) -> None:
    tagged.main.add(0, 2048, "write", "medium")
    with KernelLog() as log:
        path = tagged.start()
    assert "main took 0 of 5 copies of its tag" in log.text
    now = status(NAME)
    assert (now.mode, now.epoch, now.tag) == ("rw", 2, 0)
    write(path, 0, pattern(0))
    assert stop().split() == ["epoch", "3", "tag", "0"]
    # Two behind by now, which is no reason.
    tagged.main.clear()
    tagged.start()
    assert (status(NAME).epoch, status(NAME).tag) == (4, len(TAG_BLOCKS))


def test_a_spare_that_takes_no_superblock_is_ro(tagged: TaggedSet) -> None:
    path = tagged.start()
    tagged.wear(path, 8)
    stop()
    before = tagged.tags()
    with fault_device(tagged.spare, name="worn-spare") as spare:
        spare.add(128 * 8, 128 * 8, "write", "medium")  # stand-ins and the second superblock
        dm_create(NAME, tagged.line(spare.path))
        assert status(NAME).mode == "ro"
        assert read(path, 8) == pattern(8)
        dm_remove(NAME)
        assert tagged.tags() == before
        dm_create(NAME, tagged.line(spare.path))
        assert (status(NAME).mode, tagged.tags()) == ("ro", before)
        dm_remove(NAME)
    tagged.start()
    assert (status(NAME).mode, read(path, 8)) == ("rw", pattern(8))


def test_an_epoch_is_not_begun_by_a_load_that_is_refused(tagged: TaggedSet) -> None:
    tagged.start()
    dm_load(NAME, tagged.line())
    before = tagged.superblocks()
    with opened(str(tagged.main.path), write=True) as device:
        for block in TAG_BLOCKS:
            device.write_block(0, block, bytes(4096))
    with KernelLog() as log, pytest.raises(CommandError):
        dm_resume(NAME)
    assert "main carries no tag: see" in log.text
    assert tagged.superblocks() == before


# A set that has gone on elsewhere

SUPERSEDED = "the set has gone on elsewhere: run dmremapctl check"
RETIRED = "the set has gone on elsewhere, load the table of what goes on"


def resume_fails() -> str:
    """Try to resume the set; return what the kernel logs."""
    with KernelLog() as log:
        assert outcome(dmioctl.resume, NAME) == "EINVAL"
    return log.text


def test_a_set_that_is_retired_goes_on_nowhere(tagged: TaggedSet) -> None:
    path = tagged.start()
    tagged.wear(path, 8)
    before = tagged.copies()[0]
    tag = tagged.tags()
    assert before is not None
    dm_suspend(NAME)
    tagged.main.reset()
    with KernelLog() as log:
        assert dm_message(NAME, "retire") == f"retired epoch {before.epoch.number}"
    assert "both superblocks say that the set has gone on elsewhere" in log.text
    # Nothing else has changed: what takes over names this epoch.
    ended = replace(before, seq=before.seq + 1, incompat=1)
    assert tagged.copies() == [ended] * 2
    assert tagged.tags() == tag
    assert (status(NAME).mode, status(NAME).epoch) == ("ro", before.epoch.number)
    # It stays quiet, and nothing but the same message writes any more, which has nothing to do.
    for _ in range(2):
        assert RETIRED in resume_fails()
        for words in (("stop",), ("rename", "x"), ("scrub", 0, 9), ("remap", 0, 1)):
            with pytest.raises(CommandError, match="Read-only"):
                dm_message(NAME, *words)
        assert dm_message(NAME, "retire") == f"retired epoch {before.epoch.number}"
    assert tagged.copies() == [ended] * 2
    assert tagged.main.counters()["writes"] == 0
    with KernelLog() as log, pytest.raises(CommandError):
        dm_load(NAME, tagged.line())
    assert SUPERSEDED in log.text
    # What takes over is another table, and the I/O that waits goes there.
    dm_load(NAME, f"0 {sectors(tagged.main.path) - 2048} linear {tagged.main.path} 2048")
    dm_resume(NAME)
    write(path, 16, pattern(16))
    assert read(tagged.main.path, 2048 + 16) == pattern(16)
    dm_remove(NAME)
    for readonly in (False, True):
        assert SUPERSEDED in refusal(tagged.line(), readonly=readonly)


def test_a_table_that_was_loaded_before_is_not_resumed(tagged: TaggedSet) -> None:
    tagged.start()
    dm_load(NAME, tagged.line())
    dm_suspend(NAME)
    dm_message(NAME, "retire")
    assert SUPERSEDED in resume_fails()


def test_retire_is_for_a_quiet_device_that_may_write(tagged: TaggedSet) -> None:
    tagged.start()
    with KernelLog() as log, pytest.raises(CommandError, match="busy"):
        dm_message(NAME, "retire")
    assert "message retire: suspend the device first, again if it is" in log.text
    dm_remove(NAME)
    before = contents(tagged.spare)
    tagged.start(readonly=True)
    dm_suspend(NAME)
    with KernelLog() as log, pytest.raises(CommandError, match="Read-only"):
        dm_message(NAME, "retire")
    assert "message retire: the set is in mode ro" in log.text
    dm_resume(NAME)
    dm_remove(NAME)
    assert contents(tagged.spare) == before


@pytest.mark.parametrize("copy", [0, 1])
def test_a_superblock_that_cannot_be_retired_is_named(tagged: TaggedSet, copy: int) -> None:
    with fault_device(tagged.spare, name="worn-spare") as spare:
        path = dm_create(NAME, tagged.line(spare.path))
        tagged.wear(path, 8)
        dm_suspend(NAME)
        spare.add(SUPER_HOMES[copy] * 8, 8, "write", "medium")
        spare.add(128 * 8, 127 * 8, "write", "medium")
        with KernelLog() as log, pytest.raises(CommandError, match="Input/output"):
            dm_message(NAME, "retire")
        says = f"superblock copy {copy} cannot say that the set has gone on elsewhere"
        assert says + (", the other one does" if copy else "") in log.text
        assert status(NAME).mode == "ro"
        superseded = [one is not None and one.superseded for one in tagged.copies()]
        assert superseded == [copy == 1, False]
        if copy:
            # The next load would find that one, so this one ends here.
            assert RETIRED in resume_fails()
        else:
            dm_resume(NAME)
            assert read(path, 8) == pattern(8)
            dm_suspend(NAME)
        spare.clear()
        assert dm_message(NAME, "retire") == "retired epoch 2"
        assert RETIRED in resume_fails()
        dm_remove(NAME)
    first, second = tagged.copies()
    assert first is not None
    assert first == second
    assert (first.superseded, first.epoch.number) == (True, 2)
    assert SUPERSEDED in refusal(tagged.line())


def test_a_set_that_could_not_be_retired_starts_again(tagged: TaggedSet) -> None:
    with fault_device(tagged.spare, name="worn-spare") as spare:
        path = dm_create(NAME, tagged.line(spare.path))
        tagged.wear(path, 8)
        dm_suspend(NAME)
        spare.add(0, 255 * 8, "write", "medium")
        with pytest.raises(CommandError, match="Input/output"):
            dm_message(NAME, "retire")
        dm_remove(NAME)
    assert read(tagged.start(), 8) == pattern(8)
    assert status(NAME).mode == "rw"
