# SPDX-License-Identifier: GPL-2.0-only
"""What user space asks of the `remap` target and is told by it: messages, sysfs, events.

Runs inside a guest, as root.
"""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
from guest import dmioctl
from guest.lib import (
    MIB,
    SECTOR,
    Device,
    background,
    describe,
    dm_device,
    dm_lines,
    dm_message,
    dm_reload,
    dm_resume,
    dm_suspend,
    loop_device,
    outcome,
    pattern,
    read,
    try_read,
    try_write,
    wait_for,
    write,
)
from guest.remapset import (
    SMALLEST_AREA,
    KernelLog,
    by_hand,
    entries,
    held,
    mapped,
    pending,
    remap_set,
    status,
    table,
    texts,
)

from dmremap.dm.messages import ListEntry, RemapReply, parse_remap, remap_message
from dmremap.ondisk import BLOCK, SUPER_HOMES, Segment, segment_for
from dmremap.ondisk.layout import parse_super

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guest.remapset import RemapSet

pytestmark = [pytest.mark.guest, pytest.mark.module]


def said(made: RemapSet, text: str, sector: int = 0) -> str:
    """Send a message and return ``OK`` or the name of the errno."""
    return outcome(dmioctl.message, made.name, sector, text)


def refused(made: RemapSet, text: str, *, errno: str, log: str, sector: int = 0) -> None:
    """Send a message that must fail with this errno and this line in the log."""
    with KernelLog() as lines:
        assert said(made, text, sector) == errno, text
    assert log in lines.text, text


@contextmanager
def suspended(name: str) -> Iterator[None]:
    """Have a device suspended while the block runs."""
    dm_suspend(name)
    try:
        yield
    finally:
        dm_resume(name)


class Uevents:
    """The uevents of remap targets from now on."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15)
        self.sock.bind((0, 1))  # what the kernel itself sends

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def read(self, timeout: float = 0.0) -> list[dict[str, str]]:
        """Return those that are there, after waiting so long for the first one."""
        self.sock.settimeout(timeout)
        found: list[dict[str, str]] = []
        while True:
            try:
                words = self.sock.recv(65536).decode().split("\0")
            except (BlockingIOError, TimeoutError):
                return found
            self.sock.settimeout(0)
            pairs = dict(word.split("=", 1) for word in words if "=" in word)
            if "DM_REMAP_EVENT" in pairs:
                found.append(pairs)

    def until(self, kind: str, count: int) -> list[dict[str, str]]:
        """Return all until the counts of one kind make this sum."""
        found: list[dict[str, str]] = []
        deadline = time.monotonic() + 15
        while total(found, kind) < count and time.monotonic() < deadline:
            found += self.read(timeout=0.2)
        assert total(found, kind) == count, found
        return found


def total(uevents: list[dict[str, str]], kind: str) -> int:
    """Return how many of a kind happened."""
    return sum(int(e["DM_REMAP_COUNT"]) for e in uevents if e["DM_REMAP_EVENT"] == kind)


# The breaker


def breaker(made: RemapSet) -> str | None:
    """Return what the status says of the breaker."""
    return made.status.breaker


@pytest.fixture
def tiny() -> Iterator[RemapSet]:
    """A set of eight slots, whose main takes no write to its first 64 sectors."""
    with remap_set(spare_len=SMALLEST_AREA) as made:
        assert made.status.slots == 8
        made.main.add(0, 64, "write", "medium")
        yield made


def test_a_quarter_of_the_slots_may_be_mapped_in_a_minute(tiny: RemapSet) -> None:
    tiny.main.add(100, 1, "read", "medium")
    with Uevents() as uevents, Device(tiny.path) as device:
        assert breaker(tiny) == "closed"
        assert [outcome(device.write, n, pattern(n)) for n in range(4)] == [
            *["OK"] * 2,
            *["ENODATA"] * 2,
        ]
        assert breaker(tiny) == "open"
        assert (tiny.mapped, tiny.status.free, tiny.status.mode) == ([0, 1], 6, "rw")
        (event,) = [e for e in uevents.until("breaker", 1) if e["DM_REMAP_EVENT"] == "breaker"]
        assert "DM_REMAP_SECTOR" not in event
        # What is mapped takes writes, main takes the others, and reads are looked after.
        device.write(0, pattern(0, 2, 1))
        device.write(80, pattern(80, 8))
        assert describe(device.read(0, 2)) == texts(0, 2, 1)
        assert outcome(device.read, 96, 8) == "ENODATA"
        assert tiny.pending == [100]

        dm_message(tiny.name, "breaker", "close")
        assert breaker(tiny) == "closed"
        # With it a new minute begins.
        assert [outcome(device.write, n, pattern(n)) for n in range(2, 5)] == [
            *["OK"] * 2,
            "ENODATA",
        ]
        uevents.until("breaker", 2)
    assert tiny.mapped == [0, 1, 2, 3]
    assert held(tiny.path, 0, 4) == texts(0, 4, g1=[0, 1])


def test_without_a_rate_only_the_slots_are_the_limit() -> None:
    with remap_set("remap_rate", "0", spare_len=SMALLEST_AREA) as made:
        made.main.add(0, 64, "write", "medium")
        write(made.path, 0, pattern(0, 8))
        assert made.mapped == list(range(8))
        assert try_write(made.path, 8, pattern(8)) == "ENODATA"
        assert breaker(made) == "closed"


def test_the_rate_counts_pieces() -> None:
    with remap_set("remap_rate", "2", main_options=("physical", "4096")) as made:
        made.main.add(0, 64, "write", "medium")
        write(made.path, 8, pattern(8, 16))
        assert made.mapped == list(range(8, 24))
        assert try_write(made.path, 24, pattern(24, 8)) == "ENODATA"
        assert made.mapped == list(range(8, 24))
        assert made.status.free == made.status.slots - 16


def test_the_table_has_a_rate_if_one_was_given(small: RemapSet) -> None:
    assert table(small.name).remap_rate is None
    assert "remap_rate" not in dm_lines(small.name, table=True)[0]
    for rate in (0, 7):
        dm_reload(small.name, f"{small.line} 2 remap_rate {rate}")
        assert table(small.name).remap_rate == rate
        dm_reload(small.name, table(small.name).line)
        assert table(small.name).remap_rate == rate


def test_the_breaker_is_opened_and_closed_by_hand(small: RemapSet) -> None:
    small.main.add(0, 64, "write", "medium")
    with Uevents() as uevents:
        for _ in range(2):  # opened once
            dm_message(small.name, "BREAKER", "OPEN")
        assert breaker(small) == "open"
        assert try_write(small.path, 8, pattern(8)) == "ENODATA"
        assert (small.mapped, small.status.free) == ([], small.status.slots)
        dm_message(small.name, "Breaker", "Close")
        assert try_write(small.path, 8, pattern(8)) == "OK"
        found = uevents.until("breaker", 2) + uevents.read(timeout=1.5)
        assert total(found, "breaker") == 2
    assert small.mapped == [8]


def test_a_new_load_closes_the_breaker(small: RemapSet) -> None:
    dm_message(small.name, "breaker", "open")
    with suspended(small.name):
        pass
    assert breaker(small) == "open"  # a suspend is no load
    dm_reload(small.name, small.line)
    assert breaker(small) == "closed"
    dm_message(small.name, "breaker", "open")
    small.recreate()
    assert breaker(small) == "closed"


@pytest.mark.usefixtures("fresh_module")
@pytest.mark.parametrize("words", ["breaker", "breaker ajar", "breaker open now"])
def test_words_that_no_breaker_knows(words: str, small: RemapSet) -> None:
    refused(small, words, errno="EINVAL", log="message breaker: expected: breaker open|close")
    assert breaker(small) == "closed"


# Mapping by hand


def small_segment() -> Segment:
    """Return the one segment of `small`, in blocks of 4 KiB."""
    segment = segment_for(4 * MIB // BLOCK, SECTOR)
    assert segment is not None
    return segment


@pytest.fixture
def written(small: RemapSet) -> RemapSet:
    """A set with data in its first 256 sectors."""
    write(small.path, 0, pattern(0, 256))
    small.reset()
    return small


@pytest.mark.usefixtures("fresh_module")
def test_only_a_suspended_device_is_mapped_by_hand(written: RemapSet) -> None:
    for lost in ("", " lost"):
        refused(
            written,
            f"remap 8 4{lost}",
            errno="EBUSY",
            log="message remap: suspend the device first",
        )
    with suspended(written.name):
        assert by_hand(written, 8, 4).done == 4
    refused(written, "remap 8 4", errno="EBUSY", log="suspend the device first")
    assert written.mapped == [8, 9, 10, 11]


def test_blocks_mapped_by_hand_are_copied_and_stay(written: RemapSet) -> None:
    with Uevents() as uevents:
        with suspended(written.name):
            assert by_hand(written, 8, 3) == RemapReply(3, 3)
            assert written.status.mapped == 3
            assert entries(written.name) == [
                ListEntry(sector, 1, slot, "mapped", 0) for slot, sector in enumerate((8, 9, 10))
            ]
        (event,) = uevents.until("remapped", 3)
    assert (event["DM_NAME"], event["DM_REMAP_SECTOR"]) == (written.name, "8")
    now = written.status
    assert (now.mapped, now.remapped, now.lost) == (3, 3, 0)
    assert now.free == now.slots - 3
    assert (now.write_errors, now.read_errors, now.transient) == (0, 0, 0)
    assert held(written.path, 0, 64) == texts(0, 64)
    written.recreate()
    assert held(written.path, 0, 64) == texts(0, 64)
    written.main.add(8, 3, "any", "medium")
    assert held(written.path, 0, 64) == texts(0, 64)
    write(written.path, 4, pattern(4, 8, 1))
    assert held(written.path, 0, 64) == texts(0, 64, g1=range(4, 12))
    assert held(written.main_disk, 8, 3) == texts(8, 3)  # main's own copy is what it was


def test_data_is_durable_before_metadata_and_both_before_the_reply(written: RemapSet) -> None:
    segment = small_segment()
    places = ((segment.data, 1), (segment.copy_a, 2), (segment.copy_b, 3))
    with suspended(written.name):
        for unit, (block, writes) in enumerate(places, 8):
            written.spare.reset()
            written.spare.hold("write", block * 8, 8)
            reply = background(by_hand, written, unit, 1)
            try:
                written.spare.wait_held()
                counters = written.spare.counters()
                assert (counters["writes"], counters["fua"]) == (writes, writes)
                assert not reply.done()
                assert written.mapped == list(range(8, unit))
            finally:
                written.spare.release()  # or the resume would wait for it
            assert reply.result(30) == RemapReply(1, 1)
            assert written.spare.counters()["writes"] == 3


def test_what_is_mapped_already_counts_as_done(written: RemapSet) -> None:
    written.main.add(9, 1, "write", "medium")
    write(written.path, 9, pattern(9, 1, 1))
    with suspended(written.name):
        assert by_hand(written, 8, 3) == RemapReply(3, 3)
        written.reset()
        written.main.add(8, 3, "any", "medium")
        for lost in (False, True):
            assert by_hand(written, 8, 3, lost=lost) == RemapReply(3, 3)
        assert written.main.counters()["reads"] == 0
        assert written.spare.counters()["writes"] == 0
    assert (written.status.mapped, written.status.lost) == (3, 0)
    assert held(written.path, 8, 3) == texts(8, 3, g1=[9])


def test_slots_that_are_slow_to_refuse_stop_it(written: RemapSet) -> None:
    """Sixteen of them would be tried otherwise, and a resume waits for the message."""
    segment = small_segment()
    written.spare.add(segment.data * 8, segment.slots, "write", "medium")
    written.spare.delay(11)
    with suspended(written.name):
        begin = time.monotonic()
        assert by_hand(written, 8, 1) == RemapReply(0, 1, "failed", 8)
        assert 10 < time.monotonic() - begin < 20
        # No other one has taken what it refused.
        assert written.status.bad == 0
        written.spare.delay(0)
        assert by_hand(written, 8, 1) == RemapReply(0, 1, "failed", 8)
        written.spare.clear()
        assert by_hand(written, 8, 1) == RemapReply(1, 1)
    assert held(written.path, 0, 64) == texts(0, 64)


def test_a_block_that_cannot_be_read_stops_it(written: RemapSet) -> None:
    written.main.add(20, 1, "read", "medium")
    with suspended(written.name):
        for _ in range(2):
            assert by_hand(written, 16, 16) == RemapReply(4, 16, "unreadable", 20)
            assert written.mapped == [16, 17, 18, 19]
        assert by_hand(written, 20, 1, lost=True) == RemapReply(1, 1)
        assert by_hand(written, 16, 16) == RemapReply(16, 16)
    assert (written.status.mapped, written.status.lost) == (16, 1)
    written.recreate()
    with Device(written.path) as device:
        assert [n for n in range(64) if outcome(device.read, n) != "OK"] == [20]
        assert describe(device.read(21, 40)) == texts(21, 40)


@pytest.mark.parametrize("lost", [False, True])
def test_a_full_spare_stops_it(lost: bool) -> None:
    with remap_set(spare_len=SMALLEST_AREA) as made:
        with suspended(made.name):
            assert by_hand(made, 100, 16, lost=lost) == RemapReply(8, 16, "full", 108)
            assert by_hand(made, 100, 8, lost=lost) == RemapReply(8, 8)
        assert made.status.free == 0
        made.recreate()
        assert made.mapped == list(range(100, 108))


def test_a_spare_that_is_gone_stops_it_and_takes_nothing(written: RemapSet) -> None:
    written.spare.dead("offline")
    with suspended(written.name):
        assert by_hand(written, 8, 4) == RemapReply(0, 4, "failed", 8)
        now = written.status
        assert (now.mode, now.mapped, now.free, now.bad) == ("rw", 0, now.slots, 0)
        written.spare.dead()
        assert by_hand(written, 8, 4) == RemapReply(4, 4)
    assert held(written.path, 8, 4) == texts(8, 4)


@pytest.mark.usefixtures("fresh_module")
def test_metadata_that_cannot_be_written_stops_it_for_good(written: RemapSet) -> None:
    segment = small_segment()
    written.spare.add(0, segment.data * 8, "write", "ioerr")  # stand-ins and copy A
    with suspended(written.name):
        assert by_hand(written, 8, 4) == RemapReply(0, 4, "failed", 8)
        assert (written.status.mode, written.status.doubt) == ("ro", 4)
        refused(written, "remap 8 4", errno="EROFS", log="message remap: the set is in mode ro")
    with Device(written.path) as device:
        assert outcome(device.read, 8) == "EIO"
        assert outcome(device.write, 8, pattern(8, 1, 1)) == "EIO"
        assert describe(device.read(12, 8)) == texts(12, 8)
    written.spare.clear()
    written.recreate()
    assert held(written.path, 0, 64) == texts(0, 64)


BAD_RANGES = [
    "remap 8",
    "remap",
    "remap 8 8 gone",
    "remap 8 8 lost now",
    "remap x 8",
    "remap 8 x",
    "remap -8 8",
    "remap 8 -8",
    "remap 8 0",
    "remap 4 8",
    "remap 8 4",
    "remap 8 12",
    "remap 16384 8",
    "remap 16376 16",
    "remap 8 18446744073709551608",
    "remap 18446744073709551608 16",
]


@pytest.mark.usefixtures("fresh_module")
def test_ranges_that_cannot_be_mapped() -> None:
    with (
        loop_device(8 * MIB, sector_size=4096) as main,
        remap_set(main_disk=main) as made,
        suspended(made.name),
    ):
        assert made.status.unit == 4096
        made.reset()
        # Ten lines are logged in five seconds.
        for words in BAD_RANGES[:9]:
            refused(made, words, errno="EINVAL", log="expected: remap <sector> <count> [lost]")
        for words in BAD_RANGES[9:]:
            assert said(made, words) == "EINVAL", words
        assert made.main.counters()["reads"] == 0
        assert by_hand(made, 16376, 8) == RemapReply(1, 1)
        assert by_hand(made, 0, 16) == RemapReply(2, 2)
        assert mapped(made.name) == [0, 8, 16376]


def test_many_blocks_take_several_commits(small: RemapSet) -> None:
    write(small.path, 0, pattern(0, 512))
    small.reset()
    with suspended(small.name):
        assert by_hand(small, 100, 300) == RemapReply(300, 300)
    counters = small.spare.counters()
    # 64 blocks share a commit: five of them; the one that crosses slot 252 has two table blocks.
    assert counters["writes"] == 300 + 2 * (5 + 1)
    assert counters["write_sectors"] == 300 + 2 * (5 + 1) * 8
    assert counters["fua"] == counters["writes"]
    small.main.add(100, 300, "any", "medium")
    small.recreate()
    assert small.mapped == list(range(100, 400))
    assert held(small.path, 0, 512) == texts(0, 512)


def test_sectors_of_a_request_are_those_of_the_device() -> None:
    with remap_set("main_start", "24", length=1000) as lower, loop_device() as linear:
        write(lower.path, 0, pattern(0, 1000))
        lower.remove()
        line = lower.line.split(maxsplit=2)[2]
        with dm_device("upper", f"0 512 linear {linear} 0\n512 1000 {line}\n") as path:
            lower.main.add(24 + 30, 1, "read", "medium")
            with suspended("upper"):
                ask = remap_message(512 + 20, 40)
                assert outcome(dmioctl.message, "upper", 0, ask) == "EINVAL"  # the linear target
                for outside in (remap_message(20, 8), remap_message(512 + 996, 8)):
                    assert outcome(dmioctl.message, "upper", 512, outside) == "EINVAL"
                reply = parse_remap(dm_message("upper", ask, sector=512))
                assert reply == RemapReply(10, 40, "unreadable", 512 + 30)
                lost = remap_message(512 + 30, 1, lost=True)
                assert parse_remap(dm_message("upper", lost, sector=600)).done == 1
            assert mapped("upper", sector=512) == [512 + n for n in range(20, 31)]
            assert status("upper", 512).lost == 1
            assert describe(read(path, 512, 30)) == texts(0, 30)
            lower.main.add(24 + 60, 1, "read", "medium")
            assert try_read(path, 512 + 56, 8) == "ENODATA"
            assert pending("upper", 512) == [512 + 60]
        lower.create()
        assert lower.mapped == list(range(20, 31))


def test_it_stops_after_ten_seconds_and_a_resume_waits_for_that(written: RemapSet) -> None:
    """Every second slot takes a second to refuse its data."""
    segment = small_segment()
    for slot in range(0, 80, 2):
        written.spare.add(segment.data * 8 + slot, 1, "write", "medium")
    written.spare.delay(1)
    dm_suspend(written.name)
    begin = time.monotonic()
    reply = background(by_hand, written, 8, 40)
    wait_for(lambda: written.spare.counters()["failed"] > 0, "a slot to refuse")
    resume = background(dm_resume, written.name)
    time.sleep(2)
    assert not resume.done()
    assert not reply.done()
    assert written.status.mode == "rw"  # status answers meanwhile
    first = reply.result(30)
    took = time.monotonic() - begin
    resume.result(5)
    print(f"10 s limit: reply after {took:.1f} s, {first}")
    assert 9.5 < took < 13
    assert (first.total, first.obstacle) == (40, None)
    assert 8 <= first.done <= 12
    assert written.mapped == list(range(8, 8 + first.done))
    assert held(written.path, 0, 64) == texts(0, 64)
    written.heal()
    with suspended(written.name):
        assert by_hand(written, 8, 40) == RemapReply(40, 40)
    # The slot that refused when the time was over was the last one.
    assert written.status.bad in (first.done, first.done + 1)
    written.main.add(8, 40, "any", "medium")
    written.recreate()
    assert held(written.path, 0, 64) == texts(0, 64)


def test_lost_blocks_are_not_read_and_come_back_with_a_write(written: RemapSet) -> None:
    with suspended(written.name):
        assert by_hand(written, 8, 4, lost=True) == RemapReply(4, 4)
        assert written.main.counters()["reads"] == 0
        assert written.spare.counters()["writes"] == 2  # nothing but the table block
    assert {row.state for row in entries(written.name)} == {"lost"}
    assert (written.status.mapped, written.status.lost) == (4, 4)
    for _ in range(2):
        with Device(written.path) as device:
            assert [outcome(device.read, n) for n in range(7, 13)] == [
                "OK",
                *["ENODATA"] * 4,
                "OK",
            ]
            assert outcome(device.read, 0, 64) == "ENODATA"
        assert written.pending == []
        written.recreate()
    write(written.path, 9, pattern(9, 2, 1))
    assert (written.status.mapped, written.status.lost) == (4, 2)
    assert held(written.path, 9, 2) == texts(9, 2, 1)
    written.recreate()
    assert held(written.path, 9, 2) == texts(9, 2, 1)
    assert (try_read(written.path, 8), try_read(written.path, 11)) == ("ENODATA", "ENODATA")
    assert held(written.main_disk, 8, 4) == texts(8, 4)  # main was not written


def test_a_pending_block_that_is_mapped_by_hand_is_pending_no_more(written: RemapSet) -> None:
    written.main.add(20, 2, "read", "medium")
    assert try_read(written.path, 16, 8) == "ENODATA"
    assert written.pending == [20, 21]
    with suspended(written.name):
        assert by_hand(written, 21, 1, lost=True).done == 1
    assert written.pending == [20]


def test_an_open_breaker_does_not_keep_a_request_back(written: RemapSet) -> None:
    dm_message(written.name, "breaker", "open")
    with suspended(written.name):
        assert by_hand(written, 8, 4) == RemapReply(4, 4)
    assert breaker(written) == "open"
    assert written.mapped == [8, 9, 10, 11]


@pytest.mark.usefixtures("fresh_module")
def test_a_read_only_table_maps_nothing_by_hand(written: RemapSet) -> None:
    written.recreate(readonly=True)
    with suspended(written.name):
        for words in ("remap 8 4", "remap 8 4 lost"):
            refused(written, words, errno="EROFS", log="message remap: the set is in mode ro")
    assert (written.mapped, written.spare.counters()["writes"]) == ([], 0)


# Another name


def names(made: RemapSet) -> tuple[str, str]:
    """Return the set's name in both copies of the superblock at home."""
    found = []
    for place in SUPER_HOMES:
        superblock = parse_super(read(made.spare_disk, place * 8, 8), place)
        assert superblock is not None
        found.append(superblock.name)
    first, second = found
    return first, second


def test_a_rename_reaches_both_superblocks(small: RemapSet) -> None:
    for name in ("data", "x" * 127, "a~b!", "1"):
        small.reset()
        assert dm_message(small.name, "rename", name) == ""
        assert names(small) == (name, name)
        counters = small.spare.counters()
        assert (counters["writes"], counters["fua"]) == (2, 2)
    dm_message(small.name, "rename", "two\\ words")
    small.recreate()
    assert names(small) == ("two words", "two words")
    assert small.status.mode == "rw"


@pytest.mark.usefixtures("fresh_module")
def test_names_that_are_refused(small: RemapSet) -> None:
    dm_message(small.name, "rename", "good")
    for name in ("", "x" * 128, "a/b", "/", "a\x7fb", "a\x01", "two words", "à", "日本"):
        refused(
            small,
            f"rename {name}",
            errno="EINVAL",
            log="expected: rename <name>, 1 to 127 printable ASCII characters without '/'",
        )
    assert names(small) == ("good", "good")


@pytest.mark.usefixtures("fresh_module")
def test_a_read_only_table_is_not_renamed(small: RemapSet) -> None:
    dm_message(small.name, "rename", "good")
    small.recreate(readonly=True)
    refused(small, "rename other", errno="EROFS", log="message rename: the set is in mode ro")
    assert names(small) == ("good", "good")


@pytest.mark.usefixtures("fresh_module")
def test_scrubs_that_are_refused(small: RemapSet) -> None:
    for words in ("scrub", "scrub 0", "scrub 0 0", "scrub x 1", "scrub 0 1 2"):
        refused(small, words, errno="EINVAL", log="expected: scrub <from copy> <max>")
    assert dm_message(small.name, "scrub", (1 << 64) - 1, 1) == "end"
    assert dm_message(small.name, "scrub", 1, 1) == "next 2"
    small.recreate(readonly=True)
    refused(small, "scrub 0 1", errno="EROFS", log="message scrub: the set is in mode ro")


def test_a_rename_while_suspended(small: RemapSet) -> None:
    with suspended(small.name):
        dm_message(small.name, "rename", "quiet")
    assert names(small) == ("quiet", "quiet")


def test_a_superblock_that_cannot_be_written_has_its_name_on_a_stand_in(small: RemapSet) -> None:
    small.spare.add(0, 8, "write", "medium")
    dm_message(small.name, "rename", "moved")
    assert (small.status.copies, small.status.mode) == (1, "rw")
    assert names(small)[1] == "moved"
    small.spare.clear()
    small.recreate()
    assert names(small)[1] == "moved"


def test_renames_while_blocks_are_being_mapped(small: RemapSet) -> None:
    small.main.add(0, 512, "write", "medium")

    def work(first: int) -> None:
        with Device(small.path) as device:
            for sector in range(first, first + 80):
                device.write(sector, pattern(sector))

    writers = [background(work, first) for first in (0, 80, 160)]
    count = 0
    while not all(writer.done() for writer in writers):
        count += 1
        dm_message(small.name, "rename", f"name-{count}")
    for writer in writers:
        writer.result(60)
    assert count > 3
    assert names(small) == (f"name-{count}",) * 2
    small.main.clear()
    small.recreate()
    assert small.mapped == list(range(240))
    assert held(small.path, 0, 240) == texts(0, 240)


# sysfs

FILES = {
    *("mode", "unit", "mapped", "slots"),
    *("lost", "pending", "bad", "free", "doubt", "read_errors", "write_errors", "transient"),
    *("remapped", "copies", "identity", "seq", "uuid", "breaker", "moved", "gone", "memory"),
    *("flush_errors", "main", "spare", "epoch", "tag", "errors", "remap_rate"),
}
"""What docs/interface.md promises."""


def group(path: Path, start: int = 0) -> Path:
    """Return the directory of a target that begins at a sector of a device."""
    return Path(f"/sys/block/dm-{os.minor(path.stat().st_rdev)}/remap-{start}")


def names_in(directory: Path) -> set[str]:
    """Return the names of the files of a directory that may not be there."""
    try:
        return set(os.listdir(directory))
    except FileNotFoundError:
        return set()


def values(directory: Path) -> dict[str, str]:
    """Return what all files of a directory say. They are made soon after a resume."""
    wait_for(lambda: names_in(directory) == FILES, f"the files of {directory}")
    texts = {file.name: file.read_text() for file in directory.iterdir()}
    assert all(text.endswith("\n") and text.count("\n") == 1 for text in texts.values()), texts
    return {name: text[:-1] for name, text in texts.items()}


def status_values(name: str, start: int = 0) -> dict[str, str]:
    """Return what the status line says, under the names of the files."""
    line = next(line for line in dm_lines(name) if line.startswith(f"{start} "))
    mode, unit, used, *rest = line.split()[3:]
    count, _, slots = used.partition("/")
    pairs = dict(word.split("=", 1) for word in rest)
    return {"mode": mode, "unit": unit, "mapped": count, "slots": slots, **pairs}


def test_every_value_of_the_status_is_a_file(small: RemapSet) -> None:
    files = group(small.path)
    small.main.add(8, 3, "write", "medium")
    small.main.add(20, 1, "read", "medium")
    write(small.path, 8, pattern(8, 3))
    assert try_read(small.path, 20) == "ENODATA"
    dm_message(small.name, "breaker", "open")
    small.main.add(0, 0, "flush", "ioerr")
    with Device(small.path) as device, pytest.raises(OSError, match="Input/output error"):
        device.flush()
    wait_for(lambda: small.status.seq >= 4, "events: remapped, pending, breaker, probe")
    now = values(files)
    assert (now["flush_errors"], now["main"], now["spare"]) == ("1", "failing", "ok")
    assert now == status_values(small.name)
    assert set(now) == FILES
    assert (now["mode"], now["mapped"], now["pending"], now["breaker"]) == ("rw", "3", "1", "open")
    assert {stat.S_IMODE(file.stat().st_mode) for file in files.iterdir()} == {0o444}
    assert stat.S_IMODE(files.stat().st_mode) == 0o755


def test_anybody_may_read_the_files(small: RemapSet) -> None:
    files = group(small.path)
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            os._exit(0 if set(values(files)) == FILES else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def test_the_files_are_there_from_resume_to_suspend(small: RemapSet) -> None:
    files = group(small.path)
    for _ in range(2):
        assert values(files)["mode"] == "rw"
        opened = (files / "mode").open()
        with suspended(small.name):
            wait_for(lambda: not files.exists(), "no files in sysfs")
            with opened, pytest.raises(OSError, match="No such device"):
                opened.read()
    dm_suspend(small.name, flush=False, lockfs=False)
    wait_for(lambda: not files.exists(), "no files in sysfs")
    dm_resume(small.name)
    # A reload has those of the new table, and what is not a set has none.
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    assert values(files)["remapped"] == "1"
    dm_reload(small.name, small.line)
    assert (values(files)["remapped"], values(files)["mapped"]) == ("0", "1")
    dm_reload(small.name, f"0 16384 linear {small.main.path} 0")
    assert not files.exists()
    dm_reload(small.name, small.line)
    assert values(files) == status_values(small.name)
    small.remove()
    assert not files.exists()
    small.create(readonly=True)
    assert values(group(small.path))["mode"] == "ro"


def test_two_targets_of_a_table_have_a_directory_each() -> None:
    with remap_set(name="one", length=1000) as one, remap_set(name="two", length=1000) as two:
        one.remove()
        two.remove()
        table = f"{one.line}\n1000 {two.line.split(maxsplit=1)[1]}\n"
        with dm_device("both", table) as path:
            two.main.add(20, 2, "write", "medium")
            write(path, 1020, pattern(1020, 2))
            first, second = group(path), group(path, 1000)
            wait_for(lambda: status("both", 1000).seq > 0, "an event")
            assert values(first) == status_values("both")
            assert values(second) == status_values("both", 1000)
            assert (values(first)["mapped"], values(second)["mapped"]) == ("0", "2")
            with suspended("both"):
                wait_for(lambda: not first.exists() and not second.exists(), "no files in sysfs")
        assert not first.exists()
        assert not second.exists()
        one.create()
        two.create()


def test_readers_do_not_get_in_the_way_of_suspend_and_resume(small: RemapSet) -> None:
    files = group(small.path)
    stop = threading.Event()
    counts = [0, 0]

    def look(number: int) -> None:
        while not stop.is_set():
            for name in ("seq", "uuid", "mapped"):
                try:
                    assert (files / name).read_text().strip()
                except OSError:  # it is gone, or goes while it is read
                    continue
                counts[number] += 1

    readers = [background(look, number) for number in range(2)]
    begin = time.monotonic()
    rounds = 0
    while time.monotonic() - begin < 3 or rounds < 10:
        rounds += 1
        if rounds % 4:
            dm_suspend(small.name, flush=rounds % 2 == 0)
            dm_resume(small.name)
        else:
            dm_reload(small.name, small.line)
    stop.set()
    for reader in readers:
        reader.result(10)
    print(f"{rounds} rounds of suspend and resume while {sum(counts)} values were read")
    assert min(counts) > 10
    assert values(files) == status_values(small.name)


# Events


def test_pending_blocks_beyond_those_that_are_noted_are_counted() -> None:
    """There is room for 4,096 notes."""
    with remap_set(main_options=("physical", "4096")) as made, Uevents() as uevents:
        made.main.add(0, 4800, "read", "medium")
        with Device(made.path) as device:
            for sector in range(0, 4800, 240):
                assert outcome(device.read, sector, 240) == "ENODATA"
        uevents.until("pending", 4800)
        assert made.status.pending == 4096
        assert made.pending == list(range(4096))


def test_who_sleeps_for_a_while_misses_no_count(small: RemapSet) -> None:
    """The counts of the uevents make the counters of the status, whenever they are read."""
    small.main.add(0, 512, "write", "medium")
    small.main.add(1000, 240, "read", "medium")
    arrivals: list[tuple[float, dict[str, str]]] = []
    stop = threading.Event()
    with Uevents() as asleep, Uevents() as awake:

        def listen() -> None:
            while not stop.is_set():
                arrivals.extend((time.monotonic(), event) for event in awake.read(timeout=0.1))

        listener = background(listen)
        begin = time.monotonic()
        with Device(small.path) as device:
            for number in range(240):  # more must not be mapped while main takes nothing
                device.write(number, pattern(number))
                assert outcome(device.read, 1000 + number) == "ENODATA"
                if number == 10:
                    dm_message(small.name, "breaker", "open")
                    dm_message(small.name, "breaker", "close")
                if time.monotonic() - begin > 4:
                    break
                time.sleep(0.012)
        time.sleep(1.3)  # what is noted is told within a second
        found = asleep.read()
        stop.set()
        listener.result(10)
    now = small.status
    assert now.remapped > 20
    assert total(found, "remapped") == now.remapped == now.mapped
    assert total(found, "pending") == now.pending
    assert total(found, "breaker") == 2
    numbers = [int(event["DM_REMAP_SEQ"]) for event in found]
    assert numbers == list(range(1, now.seq + 1))
    assert {(event["DM_NAME"], event["DM_REMAP_TARGET"]) for event in found} == {(small.name, "0")}
    assert [event for _, event in arrivals] == found
    for kind in ("remapped", "pending"):
        times = [when for when, event in arrivals if event["DM_REMAP_EVENT"] == kind]
        gaps = [after - before for before, after in pairwise(times)]
        print(f"{kind}: {len(times)} uevents, gaps {[round(gap, 2) for gap in gaps]}")
        assert all(gap > 0.8 for gap in gaps), gaps  # a second, less what the clock is off
        assert len(times) >= 2
