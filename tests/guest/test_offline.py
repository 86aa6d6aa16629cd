# SPDX-License-Identifier: GPL-2.0-only
"""examine, check, repair, export and import on block devices, with the kernel as the judge.

In a guest, as root. Verbs are called in this process. Metadata is counted in blocks of the area,
which the sets here have from the start of their spare, unless a test says otherwise.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from guest import answers
from guest.lib import (
    MIB,
    SECTOR,
    CommandError,
    dm_create,
    dm_device,
    dm_names,
    dm_remove,
    loop_device,
    pattern,
    read,
    run,
    sectors,
    try_read,
    write,
)
from guest.remapset import (
    RemapSet,
    format_set,
    held,
    mapped,
    new_superblock,
    read_superblock,
    remap_set,
    segment_of,
    tagged_set,
    texts,
    with_seq,
    without_epochs,
)

from dmremap.ondisk import BLOCK, SUPER_HOMES, Entry, SlotState, Superblock
from dmremap.ondisk.layout import ENTRIES, REFUGES, STANDINS, pack_super, pack_table

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.guest, pytest.mark.module]

FIRST, COUNT = 64, 300
LATER = FIRST + COUNT
"""The sector that was mapped last, by a commit of its own."""
GOOD = 1000
MAPPED = list(range(FIRST, LATER + 1))
SPARE = MIB + MIB // 2
JUNK = b"\xa5" * BLOCK


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    whole: dict[str, Any]

    @property
    def data(self) -> dict[str, Any]:
        assert self.whole["error"] is None, self.whole
        data: dict[str, Any] = self.whole["data"]
        return data

    @property
    def error(self) -> str:
        error = self.whole["error"]
        assert error, self.whole
        assert self.code == error["exit"]
        code: str = error["code"]
        return code

    @property
    def message(self) -> str:
        message: str = self.whole["error"]["message"]
        return message

    @property
    def findings(self) -> dict[str, list[int]]:
        return {one["code"]: one["blocks"] for one in self.data["findings"]}

    @property
    def written(self) -> list[int]:
        return [one["block"] for one in self.data["writes"]]


Ctl = Callable[..., Answer]


@pytest.fixture
def ctl(capfd: pytest.CaptureFixture[str]) -> Ctl:
    return lambda *args: Answer(*answers.ask(capfd, *args))


@dataclass
class Stopped:
    """A set with mapped sectors that does not run; `before` is its area before the last commit."""

    set: RemapSet
    before: bytes
    start: int = 0

    @property
    def device(self) -> Path:
        """The spare. The disk under it is held, and no commands' business."""
        return self.set.spare.path

    @property
    def area(self) -> bytes:
        disk = self.set.spare_disk
        return read(disk, self.start, sectors(disk) - self.start)

    @area.setter
    def area(self, data: bytes) -> None:
        write(self.set.spare_disk, self.start, data)

    @property
    def superblock(self) -> Superblock:
        return read_superblock(self.set.spare_disk, self.start)

    def home(self, copy: int, index: int = 1) -> int:
        segment = segment_of(self.set)
        return (segment.copy_a, segment.copy_b)[copy] + index

    def sector(self, place: int) -> int:
        return self.start + place * 8

    def put(self, place: int, block: bytes = JUNK) -> None:
        write(self.set.spare_disk, self.sector(place), block)

    def put_entries(self, index: int, *entries: Entry, seq: int = 1000) -> None:
        for home in (self.home(0, index), self.home(1, index)):
            uuid = self.superblock.uuid
            self.put(home, pack_table(uuid, list(entries), index * ENTRIES, home, seq))

    def fail(self, place: int, direction: str, times: int | str = 0, count: int = 1) -> None:
        self.set.spare.add(self.sector(place), count * 8, direction, "medium", times)

    def untouched(self, before: bytes) -> None:
        assert changed(before, self.area) == []

    def starts(self, *newer: int, writes: bool = False) -> None:
        """Start the set, see whether it writes more than an epoch, and find every mapping."""
        self.set.spare.reset()
        self.set.create()
        counters = self.set.spare.counters()
        wrote = counters["writes"] + counters["write_zeroes"] + counters["discards"]
        assert (wrote > len(SUPER_HOMES)) is writes, counters
        assert wrote >= len(SUPER_HOMES)
        units = [*MAPPED, *newer]
        assert self.set.mapped == units
        assert held(self.set.path, FIRST, len(units)) == texts(FIRST, len(units))


def changed(old: bytes, new: bytes) -> list[int]:
    """Return the blocks that differ."""
    assert len(old) == len(new)
    places = range(0, len(old) if old != new else 0, BLOCK)
    return [at // BLOCK for at in places if old[at : at + BLOCK] != new[at : at + BLOCK]]


@contextmanager
def stopped_set(start: int = 0) -> Iterator[Stopped]:
    """Have a set with mapped sectors that was removed."""
    size = SPARE + start * SECTOR
    with remap_set("remap_rate", "0", spare_size=size, spare_start=start, name="kept") as made:
        made.main.add(FIRST, len(MAPPED), "write", "medium")
        for first in (FIRST, FIRST + COUNT // 2):  # 256 without one that main takes are the limit
            write(made.path, first, pattern(first, COUNT // 2))
            write(made.path, GOOD, pattern(GOOD))
        before = read(made.spare_disk, start, SPARE // SECTOR)
        write(made.path, LATER, pattern(LATER))
        assert made.mapped == MAPPED
        made.remove()
        made.heal()
        yield Stopped(made, before, start)


@pytest.fixture(scope="module")
def kept() -> Iterator[tuple[Stopped, bytes]]:
    """The set of most tests, and its area."""
    with stopped_set() as one:
        yield one, one.area


@pytest.fixture
def one(kept: tuple[Stopped, bytes]) -> Iterator[Stopped]:
    """A set that does not run, as it was made."""
    one, area = kept
    one.area = area
    yield one
    one.set.heal()
    if one.set.name in dm_names():
        one.set.remove()


@pytest.fixture
def running(one: Stopped) -> Stopped:
    one.set.create()
    return one


@contextmanager
def nothing_written(*stopped: Stopped) -> Iterator[None]:
    """See that neither the spares' bytes change nor a write arrives there."""
    areas = [one.area for one in stopped]
    for one in stopped:
        one.set.reset()
    yield
    for one, area in zip(stopped, areas, strict=True):
        for leg in (one.set.main, one.set.spare):
            counters = leg.counters()
            assert counters["writes"] == counters["write_zeroes"] == counters["discards"] == 0
        one.untouched(area)


@contextmanager
def read_only(lower: Path) -> Iterator[Path]:
    line = f"0 {sectors(lower)} linear {lower} 0"
    with dm_device("read-only", line, readonly=True) as path:
        yield path


# examine


def test_examine_a_spare(ctl: Ctl, running: Stopped) -> None:
    for words in ("kept", None):
        with nothing_written(running):
            answer = ctl("examine", running.device)
        data = answer.data
        assert answer.code == 0
        assert (data["role"], data["running"], data["file"]) == ("spare", words, False)
        assert data["uuid"] == str(running.superblock.uuid) == data["set"]["uuid"]
        assert data["set"]["state"] == "ready"
        assert data["set"]["kind"] == "adopted"
        assert data["set"]["main_sectors"] == sectors(running.set.main.path)
        assert data["set"]["area_sectors"] == SPARE // SECTOR
        assert data["slots"]["mapped"] == len(MAPPED)
        assert data["load"]["action"] == "accept"
        assert data["size_bytes"] == SPARE
        if words:
            running.set.remove()
    # The disk under it is the same spare, whoever holds it.
    assert ctl("examine", running.set.spare_disk).data["role"] == "spare"


def test_examine_a_tagged_main(ctl: Ctl) -> None:
    with tagged_set() as made:
        for words in ("set", None):
            data = ctl("examine", made.main.path).data
            assert (data["role"], data["running"]) == ("main", words)
            assert data["uuid"] == data["tag"]["uuid"] == made.line.split()[-1]
            assert data["tag"]["data_start_sectors"] == 2048
            assert data["set"] is None
            if words:
                made.remove()


def test_an_adopted_main_is_known_while_its_set_runs(ctl: Ctl, small: RemapSet) -> None:
    data = ctl("examine", small.main.path).data
    assert (data["role"], data["running"]) == ("main", "set")
    assert data["uuid"] == ctl("examine", small.spare.path).data["uuid"]
    small.remove()
    answer = ctl("examine", small.main.path)
    assert (answer.code, answer.error) == (3, "DMR-E307")


def test_examine_what_is_not_ours(ctl: Ctl) -> None:
    with loop_device() as disk:
        answer = ctl("examine", disk)
        assert (answer.code, answer.error) == (3, "DMR-E307")
        assert (answer.whole["data"]["role"], answer.whole["data"]["holds"]) == ("none", [])
        run("mkfs.ext4", "-q", "-L", "precious", disk)
        answer = ctl("examine", disk)
        assert (answer.code, answer.error) == (3, "DMR-E307")
        assert "ext4 (precious)" in answer.message
        (holds,) = answer.whole["data"]["holds"]
        assert (holds["type"], holds["label"]) == ("ext4", "precious")
        for verb in ("check", "repair"):
            assert ctl(verb, disk).error == "DMR-E307"


def test_examine_and_check_an_image(ctl: Ctl, one: Stopped, tmp_path: Path) -> None:
    image = tmp_path / "spare.img"
    image.write_bytes(one.area)
    data = ctl("examine", image).data
    assert (data["role"], data["file"], data["running"]) == ("spare", True, None)
    assert data["slots"] == ctl("examine", one.device).data["slots"]
    answer = ctl("check", image)
    assert (answer.code, answer.data["verdict"], answer.findings) == (0, "clean", {})
    assert image.read_bytes() == one.area


def test_an_area_that_begins_later(ctl: Ctl, kept: tuple[Stopped, bytes]) -> None:
    one, area = kept
    with loop_device(SPARE + 2 * MIB) as disk:
        write(disk, 4096, area)
        later = Stopped(replace(one.set, spare_disk=disk), b"", 4096)
        assert ctl("examine", disk).error == "DMR-E307"
        assert ctl("examine", disk, "--start", 4096).data["slots"]["mapped"] == len(MAPPED)
        home = later.home(0)
        later.put(home)
        assert ctl("check", disk, "--start", "2M").findings == {"DMR-C201": [home]}
        answer = ctl("repair", disk, "--start", "2M", "--yes")
        assert answer.written == [home, later.home(1)]
        assert answer.data["writes"][0]["offset_bytes"] == later.sector(home) * SECTOR
        line = one.set.line.replace(f"{one.device} 0", f"{disk} 4096")
        repaired = later.area
        with dm_device("later", line) as path:
            assert mapped("later") == MAPPED
            assert held(path, FIRST, len(MAPPED)) == texts(FIRST, len(MAPPED))
        assert changed(without_epochs(repaired), without_epochs(later.area)) == []


# check


def test_check_a_clean_set(ctl: Ctl, running: Stopped) -> None:
    with nothing_written(running):
        answer = ctl("check", running.device)
    assert (answer.code, answer.data["verdict"]) == (0, "clean")
    assert (answer.data["running"], list(answer.findings)) == ("kept", ["DMR-C105"])
    running.set.remove()
    with nothing_written(running):
        answer = ctl("check", running.device, "--blocks")
    assert (answer.code, answer.data["verdict"]) == (0, "clean")
    assert (answer.data["running"], answer.findings) == (None, {})
    blocks = answer.data["blocks"]
    assert len(blocks) == 1 + segment_of(running.set).table_blocks == answer.data["metadata_blocks"]
    assert [copy["place"] for copy in blocks[2]["copies"]] == [running.home(0), running.home(1)]
    running.starts()


# What a load puts right, and what does so without one. Each of these may be called again.


def older_copy(copy: int) -> Callable[[Stopped], None]:
    def damage(one: Stopped) -> None:
        home = one.home(copy)
        one.put(home, one.before[home * BLOCK :][:BLOCK])

    return damage


def overwritten(place: int | tuple[int, int]) -> Callable[[Stopped], None]:
    """Overwrite a block: a number, or copy and index of a table block."""
    return lambda one: one.put(place if isinstance(place, int) else one.home(*place))


def unreadable(place: int | tuple[int, int]) -> Callable[[Stopped], None]:
    def damage(one: Stopped) -> None:
        number = place if isinstance(place, int) else one.home(*place)
        one.fail(number, "read", "until_written")

    return damage


def newer_superblock(home: int) -> Callable[[Stopped], None]:
    def damage(one: Stopped) -> None:
        one.put(home, pack_super(with_seq(one.superblock, 7), home))

    return damage


def all_of(*damages: Callable[[Stopped], None]) -> Callable[[Stopped], None]:
    def damage(one: Stopped) -> None:
        for each in damages:
            each(one)

    return damage


def moved(one: Stopped) -> None:
    """Leave a move that was cut: its sector has two slots, and the data is in the newer one."""
    slot = 2 * ENTRIES
    one.put_entries(2, Entry(slot, SlotState.MAPPED, FIRST, 7))
    write(one.set.spare_disk, one.start + segment_of(one.set).data * 8 + slot, pattern(FIRST))


def home_refuses(copy: int, standins: int = 0) -> Callable[[Stopped], None]:
    def damage(one: Stopped) -> None:
        one.put(one.home(0))
        one.fail(one.home(copy), "write")
        if standins:  # where this copy looks first
            first = STANDINS[-standins] if copy else STANDINS[0]
            one.fail(first, "write", count=standins)

    return damage


def named(place: int, copy: int, index: int = 1) -> Callable[[Stopped], None]:
    """Have a stand-in be named for a copy that never came there, or came home again."""

    def damage(one: Stopped) -> None:
        superblock = replace(one.superblock, standins=((place, one.home(copy, index)),))
        for home in SUPER_HOMES:
            one.put(home, pack_super(superblock, home))

    return damage


def stays_bad(place: int) -> Callable[[Stopped], None]:
    def damage(one: Stopped) -> None:
        one.fail(place, "read")
        one.fail(place, "write")

    return damage


REPAIRABLE: dict[str, tuple[Callable[[Stopped], None], set[str]]] = {
    "copy A is overwritten": (overwritten((0, 1)), {"DMR-C201"}),
    "copy B is overwritten": (overwritten((1, 1)), {"DMR-C201"}),
    "copy A cannot be read": (unreadable((0, 1)), {"DMR-C201"}),
    "copy A is older": (older_copy(0), {"DMR-C202"}),
    "copy B is older": (older_copy(1), {"DMR-C202"}),
    "superblock A is overwritten": (overwritten(0), {"DMR-C201"}),
    "superblock B cannot be read": (unreadable(255), {"DMR-C201"}),
    "superblock B is newer": (newer_superblock(255), {"DMR-C202"}),
    "one of each": (
        all_of(overwritten(255), overwritten((0, 0)), older_copy(1), unreadable((1, 2))),
        {"DMR-C201", "DMR-C202"},
    ),
    "an unreadable refuge": (unreadable(REFUGES[-1]), {"DMR-C203"}),
    "an unreadable stand-in": (all_of(named(254, 0), unreadable(254)), {"DMR-C203"}),
    "a torn stand-in and an older copy": (
        all_of(named(140, 1), overwritten(140), older_copy(1)),
        {"DMR-C202", "DMR-C203"},
    ),
    "a torn stand-in of a copy that is gone": (
        all_of(named(140, 0), overwritten(140), overwritten((0, 1))),
        {"DMR-C201", "DMR-C203"},
    ),
    "a stand-in that stays unreadable": (all_of(named(140, 1), stays_bad(140)), {"DMR-C203"}),
    "a refuge that stays unreadable": (stays_bad(REFUGES[1]), {"DMR-C203"}),
    "a cut move and a lone copy": (
        all_of(moved, overwritten((1, 0))),
        {"DMR-C104", "DMR-C201", "DMR-C204"},
    ),
    "the lesser copy's home refuses": (home_refuses(0), {"DMR-C201"}),
    "the winner's home refuses": (home_refuses(1), {"DMR-C201"}),
    "a home and a stand-in refuse": (home_refuses(1, 2), {"DMR-C201"}),
    "a home refuses in a cut move": (
        all_of(moved, lambda one: one.fail(one.home(1, 0), "write")),
        {"DMR-C104", "DMR-C204"},
    ),
}


@pytest.mark.parametrize("case", REPAIRABLE)
def test_repair_writes_what_a_load_writes(case: str, ctl: Ctl, one: Stopped) -> None:
    damage, codes = REPAIRABLE[case]
    damage(one)
    damaged = one.area
    with nothing_written(one):
        answer = ctl("check", one.device)
    assert (answer.code, answer.data["verdict"]) == (1, "repairable")
    assert set(answer.findings) == codes
    assert answer.data["load"]["action"] == "mend"

    one.starts(writes=True)
    one.set.remove()
    by_kernel = one.area
    one.set.spare.clear()
    one.area = damaged
    damage(one)
    one.untouched(damaged)

    answer = ctl("repair", one.device, "--yes")
    assert (answer.code, answer.data["result"]) == (0, "repaired")
    assert changed(without_epochs(by_kernel), without_epochs(one.area)) == []
    assert set(changed(damaged, one.area)) <= set(answer.written)
    if "refuse" not in case and "stays" not in case:
        assert answer.data["left"] == []
        one.starts()


def test_stand_ins_that_were_never_used_are_left_alone(ctl: Ctl, one: Stopped) -> None:
    """Two, which might hide two copies had they a name, and what no load reads."""
    all_of(unreadable(128), overwritten(254), overwritten(9), overwritten(17))(one)
    with nothing_written(one):
        answer = ctl("check", one.device)
        assert (answer.code, answer.data["verdict"]) == (0, "clean")
        assert answer.findings == {"DMR-C109": [17], "DMR-C111": [254]}
        assert ctl("repair", one.device, "--yes").data["result"] == "clean"
    one.starts()
    assert one.area[254 * BLOCK :][:BLOCK] == JUNK


def test_a_dry_run_says_what_would_be_written(ctl: Ctl, one: Stopped) -> None:
    all_of(newer_superblock(0), older_copy(1), overwritten(REFUGES[0]))(one)
    with nothing_written(one):
        would = ctl("repair", one.device, "--dry-run")
    assert (would.code, would.data["result"]) == (0, "would repair")
    assert would.written == [255, 0, one.home(1), one.home(0), REFUGES[0]]
    done = ctl("repair", one.device, "--yes")
    assert done.data["writes"] == would.data["writes"]
    assert ctl("check", one.device).code == 0
    one.starts()


def test_repair_of_an_image_writes_the_same(ctl: Ctl, one: Stopped, tmp_path: Path) -> None:
    all_of(older_copy(0), overwritten((1, 0)), overwritten(255))(one)
    image = tmp_path / "spare.img"
    image.write_bytes(one.area)
    assert ctl("check", image).code == 1
    with loop_device(SPARE, image=image) as loop:
        answer = ctl("repair", image, "--yes")
        assert (answer.code, answer.error) == (4, "DMR-E403")
        assert str(loop) in answer.message
    assert changed(image.read_bytes(), one.area) == []
    answer = ctl("repair", image, "--yes")
    assert answer.written == [255, 0, one.home(1, 0), one.home(0, 0), one.home(0), one.home(1)]
    one.starts(writes=True)
    assert changed(without_epochs(image.read_bytes()), without_epochs(one.area)) == []


def test_a_clean_set_needs_no_repair(ctl: Ctl, one: Stopped) -> None:
    with nothing_written(one):
        answer = ctl("repair", one.device, "--yes")
        assert (answer.data["result"], answer.written) == ("clean", [])


def test_copies_on_stand_ins_stay_there(ctl: Ctl, running: Stopped) -> None:
    one, home, newest = running, running.home(1), LATER + 1
    one.fail(home, "write")
    one.set.main.add(newest, 1, "write", "medium")
    write(one.set.path, newest, pattern(newest))
    assert one.set.status.copies == 1
    one.set.remove()
    answer = ctl("check", one.device, "--blocks")
    assert (answer.code, answer.findings) == (0, {"DMR-C101": [home, STANDINS[-1]]})
    assert answer.data["blocks"][2]["copies"][1]["place"] == STANDINS[-1]
    one.put(one.home(0))
    answer = ctl("repair", one.device, "--yes")
    assert answer.written == [one.home(0), STANDINS[-1]]
    one.starts(newest)
    assert one.set.status.copies == 1


# What nobody may put right


def contradicting(one: Stopped) -> None:
    one.put_entries(1, Entry(ENTRIES, SlotState.MAPPED, 9000, 0))
    home = one.home(0)
    other = [Entry(ENTRIES, SlotState.MAPPED, 9001, 0)]
    one.put(home, pack_table(one.superblock.uuid, other, ENTRIES, home, 1000))


def contradicting_superblocks(one: Stopped) -> None:
    one.put(255, pack_super(replace(one.superblock, name="another"), 255))


def mapped_twice(one: Stopped) -> None:
    for index in (2, 3):
        one.put_entries(index, Entry(index * ENTRIES, SlotState.MAPPED, 9000, 3))


DAMAGED: dict[str, tuple[Callable[[Stopped], None], str, int]] = {
    "both overwritten": (
        all_of(overwritten((0, 1)), overwritten((1, 1))),
        "DMR-C306",
        errno.EIO,
    ),
    "both unreadable": (all_of(unreadable((0, 1)), unreadable((1, 1))), "DMR-C306", errno.EIO),
    "a lone copy and a torn stand-in": (
        all_of(named(130, 0), overwritten((1, 1)), overwritten(130)),
        "DMR-C307",
        errno.EIO,
    ),
    "a lone superblock and an unreadable refuge": (
        all_of(overwritten(0), unreadable(REFUGES[0])),
        "DMR-C307",
        errno.EIO,
    ),
    "two unreadable refuges": (
        all_of(unreadable(REFUGES[0]), overwritten(REFUGES[-1])),
        "DMR-C308",
        errno.EIO,
    ),
    "contradicting copies": (contradicting, "DMR-C309", errno.EINVAL),
    "contradicting superblocks": (contradicting_superblocks, "DMR-C302", errno.EINVAL),
    "mapped twice": (mapped_twice, "DMR-C310", errno.EINVAL),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_no_load_accepts_is_not_repaired(
    case: str, ctl: Ctl, one: Stopped, tmp_path: Path
) -> None:
    damage, code, number = DAMAGED[case]
    damage(one)
    with nothing_written(one):
        answer = ctl("check", one.device)
        assert (answer.code, answer.data["verdict"]) == (2, "damaged")
        assert code in answer.findings
        assert answer.data["load"]["errno"] == errno.errorcode[number]
        assert answer.data["load"]["code"] == code
        answer = ctl("repair", one.device, "--yes")
        assert (answer.code, answer.error) == (5, "DMR-E514")
        answer = ctl("export", "--metadata", one.device, tmp_path / "backup")
        assert (answer.code, answer.error) == (5, "DMR-E514")
        with pytest.raises(CommandError) as caught:
            one.set.create()
        assert os.strerror(number) in caught.value.stderr
    assert not (tmp_path / "backup").exists()


def test_both_superblocks_gone(ctl: Ctl, one: Stopped) -> None:
    for place in (0, 255):
        one.put(place)
    with nothing_written(one):
        answer = ctl("check", one.device)
        assert (answer.code, list(answer.findings)) == (2, ["DMR-C301"])
        assert ctl("repair", one.device, "--yes").error == "DMR-E514"
        with pytest.raises(CommandError):
            one.set.create()


# Where repair does not write


def test_repair_is_refused_on_a_running_set(ctl: Ctl, running: Stopped) -> None:
    running.put(running.home(0))
    with nothing_written(running):
        for path in (running.device, running.set.main.path, running.set.spare_disk):
            answer = ctl("repair", path, "--yes")
            assert (answer.code, answer.error) == (4, "DMR-E403")
    # Nor if it is only read.
    running.set.recreate(readonly=True)
    with nothing_written(running):
        assert ctl("repair", running.device, "--yes").error == "DMR-E403"
        assert ctl("check", running.device).code == 1


def test_repair_is_refused_on_main(ctl: Ctl) -> None:
    with tagged_set() as made:
        made.remove()
        made.reset()
        answer = ctl("repair", made.main.path, "--yes")
        assert (answer.code, answer.error) == (5, "DMR-E522")
        assert ctl("check", made.main.path).error == "DMR-E522"
        assert made.main.counters()["writes"] == 0


def test_repair_is_refused_on_other_devices(ctl: Ctl, one: Stopped) -> None:
    one.put(one.home(0))
    with nothing_written(one):
        answer = ctl("repair", one.device, "--uuid", uuid4(), "--yes")
        assert (answer.code, answer.error) == (5, "DMR-E504")
        assert str(one.superblock.uuid) in answer.message
        answer = ctl("repair", one.set.spare_disk, "--yes")
        assert (answer.code, answer.error) == (4, "DMR-E403")
        with read_only(one.device) as path:
            assert ctl("check", path).code == 1
            answer = ctl("repair", path, "--yes")
            assert (answer.code, answer.error) == (5, "DMR-E502")
        fd = os.open(one.device, os.O_RDONLY | os.O_EXCL)
        try:
            answer = ctl("repair", one.device, "--yes")
            assert answer.error == "DMR-E404"
        finally:
            os.close(fd)
        assert ctl("repair", one.device).error == "DMR-E202"
    assert ctl("repair", one.device, "--uuid", one.superblock.uuid, "--yes").code == 0
    one.starts()


# Errors while repair writes


def test_a_home_that_refuses_goes_to_a_stand_in(ctl: Ctl, one: Stopped) -> None:
    one.put(one.home(0))
    one.fail(one.home(0), "write")
    answer = ctl("repair", one.device, "--yes")
    # Its name is durable before anything stands there.
    assert answer.written == [*SUPER_HOMES, 128, one.home(1)]
    first, second = answer.data["writes"][2:]
    assert (first["block"], first["home"]) == (128, one.home(0))
    assert (second["block"], second["home"]) == (one.home(1), one.home(1))
    answer = ctl("check", one.device)
    assert (answer.code, answer.findings) == (0, {"DMR-C101": [one.home(0), 128]})
    one.starts()
    assert one.set.status.copies == 1
    one.set.spare.clear()
    one.set.remove()
    one.starts()


def test_a_copy_that_can_be_written_nowhere(ctl: Ctl, one: Stopped) -> None:
    one.put(one.home(0))
    damaged = one.area
    # The lesser copy is written, then no table block more.
    one.fail(one.home(1), "write")
    one.fail(STANDINS[0], "write", count=len(STANDINS))
    answer = ctl("repair", one.device, "--yes")
    assert (answer.code, answer.error) == (1, "DMR-E103")
    for place in (one.home(1), 254, 253, 252):
        assert str(place) in answer.message
    # And the names of what was tried.
    assert changed(damaged, one.area) == [*SUPER_HOMES, one.home(0)]
    answer = ctl("check", one.device)
    assert (answer.code, list(answer.findings)) == (1, ["DMR-C202"])
    one.set.heal()
    left = one.area
    one.starts(writes=True)
    one.set.remove()
    by_kernel, one.area = one.area, left
    assert ctl("repair", one.device, "--yes").written == [one.home(1), one.home(0)]
    assert changed(without_epochs(by_kernel), without_epochs(one.area)) == []
    one.starts()


@pytest.mark.parametrize("how", ["every write", "every flush", "offline"])
def test_nothing_can_be_written(how: str, ctl: Ctl, one: Stopped) -> None:
    one.put(one.home(0))
    if how == "every flush":
        one.set.spare.add(0, 0, "flush", "medium")
    else:
        one.set.spare.readonly("target" if how == "every write" else "offline")
    answer = ctl("repair", one.device, "--yes")
    assert (answer.code, answer.error) == (1, "DMR-E103")
    one.set.heal()
    # Without flushes it may have been written all the same.
    one.starts(writes=True)


def test_a_flush_that_fails_once(ctl: Ctl, one: Stopped) -> None:
    one.put(one.home(0))
    one.set.spare.add(0, 0, "flush", "medium", 1)
    answer = ctl("repair", one.device, "--yes")
    assert answer.written == [*SUPER_HOMES, 128, one.home(1)]
    one.starts()


# export and import


def exported(ctl: Ctl, one: Stopped, file: Path) -> None:
    with nothing_written(one):
        data = ctl("export", "--metadata", one.device, file).data
    assert data["uuid"] == str(one.superblock.uuid)
    assert data["metadata_blocks"] == 1 + segment_of(one.set).table_blocks
    assert file.stat().st_size == data["bytes"]


@pytest.mark.parametrize("runs", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("gone", [overwritten, unreadable])
def test_a_table_block_comes_back(
    gone: Any, runs: bool, ctl: Ctl, running: Stopped, tmp_path: Path
) -> None:
    one, file = running, tmp_path / "backup"
    if runs:
        exported(ctl, one, file)
    one.set.remove()
    if not runs:
        exported(ctl, one, file)
    all_of(gone((0, 1)), gone((1, 1)))(one)
    with nothing_written(one):
        assert ctl("check", one.device).code == 2
        answer = ctl("import", "--metadata", file, one.device, "--yes")
        assert (answer.code, answer.error) == (5, "DMR-E526")
        would = ctl("import", "--metadata", file, one.device, "--force", "--dry-run")
        assert would.data["result"] == "would import"
    answer = ctl("import", "--metadata", file, one.device, "--force", "--yes")
    assert (answer.code, answer.data["result"]) == (0, "imported")
    assert answer.data["writes"] == would.data["writes"]
    assert set(answer.written) == {one.home(0), one.home(1), *SUPER_HOMES}
    assert (answer.data["risky"], answer.data["taken"]) == ([one.home(0)], 1)
    assert answer.data["slots"]["mapped"] == len(MAPPED)
    assert ctl("check", one.device).code == 0
    one.starts()


def test_superblocks_come_back(ctl: Ctl, one: Stopped, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    exported(ctl, one, file)
    for place in (0, 255):
        one.put(place)
    answer = ctl("import", "--metadata", file, one.device, "--yes")
    assert set(answer.written) == {0, 255}
    one.starts()
    one.set.remove()
    answer = ctl("import", "--metadata", file, one.device, "--yes")
    assert (answer.data["result"], answer.written) == ("clean", [])


def test_what_is_newer_than_the_backup(ctl: Ctl, running: Stopped, tmp_path: Path) -> None:
    one, file, newest = running, tmp_path / "backup", LATER + 1
    exported(ctl, one, file)
    one.set.main.add(newest, 1, "write", "medium")
    write(one.set.path, newest, pattern(newest))
    one.set.remove()
    whole = one.area
    # Of another block: what is on the device stays.
    for copy in (0, 1):
        one.put(one.home(copy, 0))
    ctl("import", "--metadata", file, one.device, "--force", "--yes")
    one.starts(newest)
    one.set.remove()
    # Of the same: that is the risk.
    one.area = whole
    for copy in (0, 1):
        one.put(one.home(copy, 1))
    answer = ctl("import", "--metadata", file, one.device, "--force", "--yes")
    assert answer.data["risky"] == [one.home(0)]
    one.starts()
    assert held(one.set.path, newest) == ["zero"]


def test_import_onto_a_blank_disk(ctl: Ctl, one: Stopped, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    exported(ctl, one, file)
    with loop_device(SPARE) as disk:
        answer = ctl("import", "--metadata", file, disk, "--yes")
        assert answer.data["blank"]
        assert answer.data["slots"]["lost"] == len(MAPPED)
        assert ctl("check", disk).findings.keys() == {"DMR-C103"}
        dm_create("kept", one.set.line.replace(str(one.device), str(disk)))
        assert one.set.status.lost == len(MAPPED)
        assert try_read(one.set.path, FIRST) == "ENODATA"
        assert try_read(one.set.path, LATER + 1) == "OK"
        write(one.set.path, FIRST, pattern(FIRST, 1, 2))
        assert held(one.set.path, FIRST) == [f"{FIRST}/2"]
        dm_remove("kept")


def test_where_import_is_refused(ctl: Ctl, running: Stopped, tmp_path: Path) -> None:
    one, file = running, tmp_path / "backup"
    exported(ctl, one, file)
    one.put(one.home(0))

    def refused(path: Path, code: str) -> None:
        answer = ctl("import", "--metadata", file, path, "--force", "--yes")
        assert answer.error == code
        assert answer.code == int(code[5])

    with nothing_written(one):
        for path in (one.device, one.set.main.path, one.set.spare_disk):
            refused(path, "DMR-E403")
        one.set.remove()
        with read_only(one.device) as path:
            refused(path, "DMR-E502")
    with loop_device(SPARE) as disk:
        format_set(disk, new_superblock(one.set.main.path, SPARE // SECTOR))
        before = read(disk, 0, sectors(disk))
        refused(disk, "DMR-E504")
        assert changed(before, read(disk, 0, sectors(disk))) == []
    with loop_device(SPARE - BLOCK) as disk:
        refused(disk, "DMR-E511")
        assert not any(read(disk, 0, sectors(disk)))
    with tagged_set() as made, nothing_written(Stopped(made, b"")):
        refused(made.main.path, "DMR-E403")
        made.remove()
        refused(made.main.path, "DMR-E522")
        refused(made.spare.path, "DMR-E504")
    assert ctl("import", "--metadata", file, one.device, "--yes").code == 0
    one.starts()


def test_a_home_that_refuses_what_is_imported(ctl: Ctl, one: Stopped, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    exported(ctl, one, file)
    for copy in (0, 1):
        one.put(one.home(copy))
        one.fail(one.home(copy), "write")
    answer = ctl("import", "--metadata", file, one.device, "--force", "--yes")
    assert set(answer.written) == {STANDINS[0], STANDINS[-1], *SUPER_HOMES}
    one.starts()
    assert one.set.status.copies == 2


def test_an_import_that_is_cut(ctl: Ctl, one: Stopped, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    exported(ctl, one, file)
    for copy in (0, 1):
        one.put(one.home(copy))
    one.fail(one.home(1), "write")
    one.fail(STANDINS[0], "write", count=len(STANDINS))
    answer = ctl("import", "--metadata", file, one.device, "--force", "--yes")
    assert (answer.code, answer.error) == (1, "DMR-E103")
    one.set.heal()
    # One copy is there, which is all that a load wants.
    one.starts(writes=True)
