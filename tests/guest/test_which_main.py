# SPDX-License-Identifier: GPL-2.0-only
"""Whether a main is the set's: the table of docs/format.md, on disks with an id and without.

The kernel and the control plane say the same, and of main nothing but the tag is written. KUnit and
the fuzzers try the same rules in more ways.
"""

from __future__ import annotations

import struct
import zlib
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from guest.answers import ask
from guest.lib import (
    MIB,
    SECTOR,
    CommandError,
    Device,
    dm_create,
    dm_device,
    dm_remove,
    loop_device,
    scsi_debug,
    sectors,
)
from guest.remapset import KernelLog, format_set, new_superblock, read_superblock, status

from dmremap.errors import DmRemapError
from dmremap.ondisk import BLOCK, TAG_BLOCKS, Superblock, Tag, opened, write_tag
from dmremap.sets.assemble import assemble
from dmremap.sets.discover import scan

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.guest, pytest.mark.module]

SPARE = 2072  # the smallest area
WHOLE = range(8 * MIB // SECTOR)
FIRST_MIB = range(2048)
OTHER = UUID(int=7)
ID, NO_ID, NO_TAG, LOST, BESIDE, OTHERS, CONTENT = (
    "id",
    "main's tag is lost and no id tells: dmremapctl repair --retag MAIN SPARE",
    "main carries no tag: see dmremapctl repair --retag MAIN SPARE",
    "size",
    "main's tag is lost beside other data: dmremapctl repair --retag MAIN SPARE",
    "main carries the tag of another set",
    "main carries another's tag: dmremapctl repair --tag-is-content MAIN SPARE",
)


@dataclass(frozen=True)
class Row:
    """What is in main's first MiB, which of its sectors cannot be read, and what becomes of it.

    That is the identity in the status, or a part of the refusal: of a tagged set, known by id and
    not, and of an adopted one.
    """

    said: str
    """As in docs/format.md."""
    results: tuple[str, str, str, str]
    tag: str = ""
    """Whose: own or other."""
    content: bool = False
    table: bool = False
    bad: range = range(0)


SIZE = LOST
ROWS = (
    Row(
        "a copy of its own tag that can be used, whatever else", ("tag", "tag", ID, CONTENT), "own"
    ),
    Row("the tag of another set", (OTHERS, OTHERS, ID, CONTENT), "other"),
    Row(
        "the same, and `content_tag` is that set", (OTHERS, OTHERS, ID, SIZE), "other", content=True
    ),
    Row("zeroes", (NO_TAG, NO_TAG, ID, SIZE)),
    Row(
        "no copy of the tag can be read, the rest is zeroes",
        (ID, NO_ID, ID, SIZE),
        bad=FIRST_MIB[8:],
    ),
    Row(
        "one copy cannot be read, the others and the rest are zeroes",
        (ID, NO_ID, ID, SIZE),
        bad=FIRST_MIB[64 * 8 : 65 * 8],
    ),
    Row("nothing can be read", (ID, NO_ID, ID, SIZE), bad=FIRST_MIB),
    Row("a partition table, or other data", (NO_TAG, NO_TAG, ID, SIZE), table=True),
    Row(
        "the same, and no copy of the tag can be read",
        (BESIDE, NO_ID, ID, SIZE),
        table=True,
        bad=FIRST_MIB[8:],
    ),
    Row(
        "the same, in a first block of which one sector cannot be read, and a copy of the tag",
        (BESIDE, NO_ID, ID, SIZE),
        table=True,
        bad=FIRST_MIB[7:9],
    ),
)
COLUMNS = ("tagged, known by id", "tagged", "adopted, known by id", "adopted")


def test_the_table_in_the_docs_is_the_one_that_is_tested() -> None:
    text = (Path(__file__).parents[2] / "docs/format.md").read_text()
    text = text.split("### Whether main is the set's")[1].split("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert lines[0][1:] == list(COLUMNS)
    told = [(line[0], *(word.strip("`") for word in line[1:])) for line in lines[2:]]
    words = {word: word for word in ("tag", ID, SIZE)}
    assert told == [
        (row.said, *(words.get(result, "refused") for result in row.results)) for row in ROWS
    ]


@dataclass
class Bench:
    """A main that has an id, and a spare."""

    disk: Path
    spare: Path
    id_type: int
    id: bytes
    gpt: bytes

    def unreadable(self, bad: range) -> None:
        """Have sectors of main not be read."""
        home = Path("/sys/module/scsi_debug/parameters")
        (home / "medium_error_count").write_text(f"{len(bad)}")
        (home / "medium_error_start").write_text(f"{bad[0] if bad else 1 << 30}")

    def superblock(self, *, tagged: bool, by_id: bool, row: Row) -> Superblock:
        """Return a set's whose main this is."""
        made = new_superblock(
            self.disk, SPARE, tagged=tagged, data_start=2048 if tagged else 0, uuid=uuid4()
        )
        if by_id:
            made = replace(made, main_id_type=self.id_type, main_id=self.id)
        return replace(made, content_tag=OTHER if row.content else None)

    def fill(self, row: Row, superblock: Superblock) -> None:
        """Make main and spare what a row says."""
        self.unreadable(range(0))
        with opened(str(self.disk), write=True) as device:
            device.write(0, self.gpt if row.table else bytes(MIB))
            device.write(MIB, b"\x5a" * BLOCK)
            if row.tag:
                tag = Tag.of(superblock, 0)
                tag = replace(tag, data_start=2048)
                write_tag(device, tag if row.tag == "own" else replace(tag, uuid=OTHER))
            device.flush()
        with opened(str(self.spare), write=True) as device:
            device.write(0, bytes(SPARE * SECTOR))
        format_set(self.spare, superblock)
        self.unreadable(row.bad)

    def contents(self) -> tuple[bytes, bytes]:
        """Return main's first MiB, and a block more, without the tag; and the tag and the spare."""
        with Device(self.disk) as disk, Device(self.spare) as spare:
            data = bytearray(disk.read(0, 2048 + 8))
            tags = bytearray()
            for place in TAG_BLOCKS:
                where = slice(place * BLOCK, (place + 1) * BLOCK)
                tags += data[where]
                data[where] = bytes(BLOCK)
            return bytes(data), bytes(tags + spare.read(0, SPARE))


def partition_table() -> bytes:
    """Return the first MiB of a disk with a GPT of one partition."""
    protective = bytes(446) + struct.pack("<B3sB3sII", 0, b"", 0xEE, b"", 1, len(WHOLE) - 1)
    linux = UUID("0fc63daf-8483-4772-8e79-3d69d8477de4").bytes_le
    entries = (linux + UUID(int=1).bytes_le + struct.pack("<QQ", 2048, 4095)).ljust(
        128 * 128, b"\0"
    )

    def header(crc: int) -> bytes:
        own = struct.pack("<8sIIIIQQQQ", b"EFI PART", 1 << 16, 92, crc, 0, 1, WHOLE[-1], 34, 4095)
        table = struct.pack("<QIII", 2, 128, 128, zlib.crc32(entries))
        return own + UUID(int=2).bytes_le + table

    whole = protective.ljust(510, b"\0") + b"\x55\xaa"
    whole += header(zlib.crc32(header(0))).ljust(SECTOR, b"\0") + entries
    return whole.ljust(MIB, b"\0")


@pytest.fixture(scope="class")
def bench() -> Iterator[Bench]:
    with ExitStack() as stack:
        medium = 2
        disk = stack.enter_context(scsi_debug(f"opts={medium}", f"medium_error_start={1 << 30}"))
        spare = stack.enter_context(loop_device(2 * MIB))
        with dm_device("set", f"0 {sectors(disk)} remap {disk} {spare} 0 {SPARE}"):
            assert status("set").identity == ID
        known = read_superblock(spare)
        assert known.main_id_type
        yield Bench(disk, spare, known.main_id_type, known.main_id, partition_table())


class TestWhichMain:
    """Rows and columns on real disks: kernel and control plane say the same."""

    def judged(self, bench: Bench, main: Path, superblock: Superblock, *, readonly: bool) -> str:
        """Return the identity with which the kernel starts a set, or its log."""
        start = superblock.data_start
        options = f"4 main_start {start} uuid {superblock.uuid}"
        line = f"0 {superblock.data_sectors} remap {main} {bench.spare} 0 {SPARE} {options}"
        with KernelLog() as log:
            try:
                dm_create("set", line, readonly=readonly)
            except CommandError:
                return log.read()
        now = status("set")
        dm_remove("set")
        if not readonly:
            assert (now.mode, now.tag) == ("rw", 5 if superblock.tagged else 0)
        return now.identity

    def planned(self, bench: Bench, main: Path) -> str:
        """Return the code with which the control plane refuses to start it, "" if it does not."""
        (one,) = scan([(str(bench.spare), 0)])
        try:
            assemble(one, main=str(main), dry_run=True)
        except DmRemapError as err:
            return err.code
        return ""

    @pytest.mark.parametrize("row", ROWS, ids=lambda row: row.said.replace(" ", "_"))
    def test_a_row(self, row: Row, bench: Bench) -> None:
        for column, result in zip(COLUMNS, row.results, strict=True):
            by_id = column.endswith("id")
            superblock = bench.superblock(tagged="tagged" in column, by_id=by_id, row=row)
            with ExitStack() as stack:
                main = bench.disk
                bench.fill(row, superblock)
                if not by_id:
                    table = f"0 {len(WHOLE)} linear {bench.disk} 0"
                    main = stack.enter_context(dm_device("volume", table))
                bench.unreadable(range(0))
                before = bench.contents()
                bench.unreadable(row.bad)
                started = result in ("tag", ID, SIZE)
                refused = ("DMR-E513", "DMR-E533", "DMR-E534")
                assert self.planned(bench, main) in (("",) if started else refused), column
                for readonly in (True, False) if column == COLUMNS[0] else (False,):
                    said = self.judged(bench, main, superblock, readonly=readonly)
                    assert said == result if started else result in said, column
                    bench.unreadable(range(0))
                    after = bench.contents()
                    # Of main nothing but the tag is written, and nothing before all is known.
                    assert after[0] == before[0], column
                    written = started and not readonly
                    assert (after[1] != before[1]) == written, column
                    if written and not superblock.tagged:
                        size = len(TAG_BLOCKS) * BLOCK
                        assert after[1][:size] == before[1][:size], column
                    bench.unreadable(row.bad)

    def test_a_tag_is_written_again(self, bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
        """By repair --retag, for a disk without an id; never beside anything else."""
        for row in (row for row in ROWS if not row.bad and not row.content):
            superblock = bench.superblock(tagged=True, by_id=False, row=row)
            bench.fill(row, superblock)
            bench.unreadable(range(0))
            before = bench.contents()
            words = ("repair", bench.spare, "--retag", bench.disk, "--yes")
            code, whole = ask(capfd, *words)
            after = bench.contents()
            assert after[0] == before[0], row.said
            if row.tag == "own":
                assert (code, whole["data"]["result"]) == (0, "clean")
            elif row.tag or row.table:
                assert (code, after) == (5, before), row.said
                continue
            else:
                assert (code, whole["data"]["result"]) == (0, "repaired"), row.said
            assert self.judged(bench, bench.disk, superblock, readonly=False) == "tag"

    def test_a_tag_is_content(self, bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
        row = next(row for row in ROWS if row.tag == "other" and not row.content)
        superblock = bench.superblock(tagged=False, by_id=False, row=row)
        bench.fill(row, superblock)
        before = bench.contents()
        said = self.judged(bench, bench.disk, superblock, readonly=False)
        assert CONTENT in said
        code, whole = ask(capfd, "repair", bench.spare, "--tag-is-content", bench.disk, "--yes")
        assert (code, whole["data"]["result"]) == (0, "repaired"), whole
        assert read_superblock(bench.spare).content_tag == OTHER
        assert self.judged(bench, bench.disk, superblock, readonly=False) in (ID, SIZE)
        size = len(TAG_BLOCKS) * BLOCK
        after = bench.contents()
        assert (after[0], after[1][:size]) == (before[0], before[1][:size])
