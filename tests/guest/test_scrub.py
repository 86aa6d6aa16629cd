# SPDX-License-Identifier: GPL-2.0-only
"""`dmremapctl scrub --metadata` on running sets. In a guest, as root.

What the kernel's message does by itself is in test_media.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from guest import answers
from guest.lib import (
    MIB,
    CommandError,
    dm_create,
    dm_message,
    dm_names,
    dm_remove,
    dm_resume,
    dm_suspend,
    loop_device,
    pattern,
    write,
)
from guest.remapset import (
    SMALLEST_AREA,
    KernelLog,
    RemapSet,
    held,
    remap_set,
    segment_of,
    tagged_set,
    texts,
)

from dmremap.ondisk.layout import pack_empty_table
from dmremap.sets import scrub as dmremap_scrub

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.guest, pytest.mark.module]

SLOTS = 300
"""Units mapped: entries in the first two table blocks."""
DATA = 2048
"""The sector of main at which the data of a tagged set begins."""


class Answer(answers.Answer):
    @property
    def ended(self) -> tuple[int, str]:
        return self.code, self.error

    @property
    def gone(self) -> list[tuple[str, int, str]]:
        return [(one["which"], one["block"], one["result"]) for one in self.whole["data"]["gone"]]


Ctl = Callable[..., Answer]


@pytest.fixture
def ctl(capfd: pytest.CaptureFixture[str]) -> Ctl:
    return lambda *args: Answer(*answers.ask(capfd, *args))


@pytest.fixture
def one() -> Iterator[RemapSet]:
    """A tagged set in which units are mapped."""
    with tagged_set() as made:
        made.main.add(DATA, SLOTS, "write", "medium")
        for first in range(0, SLOTS, 150):
            write(made.path, first, pattern(first, 150))
            write(made.path, SLOTS, pattern(SLOTS))
        assert made.status.mapped == SLOTS
        yield made


def fail(made: RemapSet, *homes: int) -> None:
    """Have places on the spare neither read nor written any more, in blocks."""
    for home in homes:
        for direction in ("read", "write"):
            made.spare.add(home * 8, 8, direction, "medium")


def no_stand_in(made: RemapSet) -> None:
    made.spare.add(128 * 8, 127 * 8, "write", "medium")


def scrub(ctl: Ctl, *args: object) -> Answer:
    return ctl("scrub", "set", "--metadata", *args)


def test_both_copies_of_a_table_block(ctl: Ctl, one: RemapSet) -> None:
    segment = segment_of(one)
    copies = 2 * (1 + segment.table_blocks)
    data = scrub(ctl).data
    assert (data["result"], data["copies_read"], data["gone"]) == ("clean", copies, [])

    fail(one, segment.copy_a, segment.copy_b)
    one.reset()
    would = scrub(ctl, "--dry-run").data
    assert (would["result"], would["metadata_blocks"]) == ("would scrub", copies // 2)
    assert one.spare.counters()["writes"] == 0

    answer = scrub(ctl)
    assert (answer.data["result"], answer.data["written"]) == ("repaired", 2)
    assert answer.gone == [("A", 1, "written"), ("B", 1, "written")]
    assert [row["home"] for row in answer.data["gone"]] == [segment.copy_a, segment.copy_b]
    assert scrub(ctl).data["result"] == "clean"

    ctl("remove", "set")
    assert "set" not in dm_names()
    uuid = answer.data["uuid"]
    assert ctl("assemble", uuid, "--name", "set").data["sets"][0]["result"] == "started"
    assert (one.status.mode, one.status.copies, one.status.mapped) == ("rw", 2, SLOTS)
    assert held(one.path, 0, SLOTS + 1) == texts(0, SLOTS + 1)


def test_both_superblocks(ctl: Ctl, one: RemapSet) -> None:
    """Where the copies are counted."""
    fail(one, 0, 255)
    answer = scrub(ctl)
    assert answer.data["copies_read"] == 2 * (1 + segment_of(one).table_blocks)
    assert answer.gone == [("A", 0, "written"), ("B", 0, "written")]
    one.recreate()
    assert one.status.mapped == SLOTS


def test_no_place(ctl: Ctl, one: RemapSet) -> None:
    segment = segment_of(one)
    fail(one, segment.copy_b + 1)
    no_stand_in(one)
    answer = scrub(ctl)
    assert (answer.ended, answer.gone) == ((8, "DMR-E802"), [("B", 2, "failed")])
    assert answer.whole["data"]["result"] == "partial"
    fail(one, segment.copy_a + 1)
    answer = scrub(ctl)
    assert answer.gone == [("A", 2, "failed"), ("B", 2, "failed")]
    assert "Do not stop the set" in answer.whole["error"]["hint"]
    assert (one.status.mode, held(one.path, 0, SLOTS)) == ("rw", texts(0, SLOTS))
    one.spare.clear()
    # A place that a write failed at is as it was.
    assert scrub(ctl).code == 0
    one.recreate()
    assert one.status.mapped == SLOTS


def test_sets_that_cannot_be_scrubbed(ctl: Ctl, one: RemapSet) -> None:
    assert ctl("scrub", "set").ended == (2, "DMR-E201")
    assert ctl("scrub", "nosuch", "--metadata").ended == (3, "DMR-E303")
    one.spare.dead("medium")
    assert scrub(ctl).ended == (1, "DMR-E103")
    one.spare.dead("off")
    one.recreate(readonly=True)
    assert scrub(ctl).ended == (5, "DMR-E529")
    one.remove()
    answer = scrub(ctl)
    assert answer.ended == (3, "DMR-E303")
    assert "dmremapctl check" in answer.whole["error"]["hint"]


def test_a_set_that_has_become_read_only(ctl: Ctl, one: RemapSet) -> None:
    one.spare.add(0, segment_of(one).data * 8, "write", "medium")
    one.spare.add(segment_of(one).copy_b * 8, 64, "write", "medium")
    one.main.add(DATA + 1000, 1, "write", "medium")
    with pytest.raises(OSError, match="Input/output"):
        write(one.path, 1000, pattern(1000))
    assert one.status.mode == "ro"
    answer = scrub(ctl)
    assert answer.ended == (5, "DMR-E529")
    assert "dmremapctl health set" in answer.whole["error"]["hint"]


def test_another_writes_to_the_spare(ctl: Ctl, one: RemapSet) -> None:
    uuid = UUID(str(one.status.uuid))
    home = segment_of(one).copy_a
    write(one.spare_disk, home * 8, pack_empty_table(uuid, home, 1 << 40))
    answer = scrub(ctl)
    assert answer.ended == (1, "DMR-E110")
    assert "something else has written" in answer.whole["error"]["notes"][0]


def test_a_module_that_does_not_know_it(
    ctl: Ctl, one: RemapSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dmremap_scrub, "scrub_message", lambda at, most: f"unheard {at} {most}")
    answer = scrub(ctl)
    assert answer.ended == (7, "DMR-E707")
    assert "expected: list" in answer.whole["error"]["notes"][0]
    assert one.status.mode == "rw"


def test_a_suspended_set(ctl: Ctl, one: RemapSet) -> None:
    fail(one, segment_of(one).copy_a)
    dm_suspend("set")
    try:
        assert scrub(ctl).gone == [("A", 1, "written")]
    finally:
        dm_resume("set")
    assert one.status.mode == "rw"


@pytest.mark.usefixtures("one")
def test_a_suspended_spare(ctl: Ctl) -> None:
    dm_suspend("set-spare")
    try:
        assert scrub(ctl).ended == (4, "DMR-E409")
    finally:
        dm_resume("set-spare")


def test_pages(ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dmremap_scrub, "PAGE", 5)
    with remap_set() as made:
        segment = segment_of(made)
        lost = [segment.copy_a + i for i in range(0, segment.table_blocks, 3)]
        for home in lost:
            made.spare.add(home * 8, 8, "read", "medium", "until_written")
        answer = scrub(ctl)
        assert [row["home"] for row in answer.data["gone"]] == lost
        assert scrub(ctl).data["result"] == "clean"


def test_what_was_written_is_told_before_an_error(one: RemapSet) -> None:
    segment = segment_of(one)
    one.spare.add(0, 8, "read", "medium", "until_written")
    one.spare.add(segment.copy_a * 8, 8, "read", "transport")
    with KernelLog() as log:
        assert dm_message("set", "scrub", 0, 10).splitlines() == ["0 0 written", "next 1"]
        with pytest.raises(CommandError, match="Input/output error"):
            dm_message("set", "scrub", 1, 10)
    assert "message" not in log.text
    assert one.status.mode == "rw"


def test_two_targets(ctl: Ctl) -> None:
    with loop_device(4 * MIB) as main, loop_device(4 * MIB) as spare:
        dm_create(
            "two",
            f"0 1000 remap {main} {spare} 0 {SMALLEST_AREA}\n"
            f"1000 1000 remap {main} {spare} 4096 {SMALLEST_AREA} 2 main_start 1000",
        )
        try:
            data = ctl("scrub", "/dev/mapper/two", "--metadata").data
            assert (data["result"], data["copies_read"]) == ("clean", 8)
            assert [part["start"] for part in data["targets"]] == [0, 1000]
            assert len({part["uuid"] for part in data["targets"]}) == 2
            # A copy A of the second one's table, overwritten.
            write(spare, 4096 + 256 * 8, bytes(4096))
            answer = ctl("scrub", "two", "--metadata")
            assert answer.gone == [("A", 1, "written")]
            assert answer.data["gone"][0]["target"] == 1000
        finally:
            dm_remove("two")
