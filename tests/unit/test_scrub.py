# SPDX-License-Identifier: GPL-2.0-only
"""A scrub without a kernel: pages, what an errno means, what is said to people and programs."""

import errno
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from unit.areas import AREA_BLOCKS, HOMES, SET, fresh
from unit.devices import a_device

from dmremap import dm
from dmremap.cli import main
from dmremap.dm import Target
from dmremap.dm.lines import RemapTable, parse_status, parse_table
from dmremap.errors import Busy, DmRemapError, KernelError, NotFound
from dmremap.host import blockdev
from dmremap.host.blockdev import DeviceFacts
from dmremap.ondisk import BLOCK
from dmremap.sets import live, scrub
from dmremap.sets.live import Running

SCHEMA = json.loads(resources.files("dmremap").joinpath("schema/dmremap-1.json").read_text())
START = 16
COPIES = 8  # of one superblock and three table blocks
PLACES = (0, *(a for a, _ in HOMES), 255, *(b for _, b in HOMES))
"""The home of each copy, in the kernel's order."""


class FakeDm:
    """A device with sets on an image. `bad` has copies that are gone, by the target's sector."""

    def __init__(self, image: Path) -> None:
        line = RemapTable(0, 1000, "8:0", "8:16", START, AREA_BLOCKS * 8, uuid=str(SET))
        self.image = image
        self.table = [Target(0, 1000, "remap", line.params)]
        self.mode = "rw"
        self.device = a_device("one", uuid=f"REMAP-{SET}")
        self.bad: dict[int, dict[int, str]] = {0: {}}
        self.log: list[tuple[int, int]] = []
        self.now = 0.0
        self.asked: Callable[[int], None] = lambda _at: None
        """Called with the copy from which a message has copies read."""
        self.waits = 0
        """So many messages read nothing, for a suspend waits."""

    def running(self, names: Sequence[str] = ()) -> list[Running]:
        if names and list(names) != ["one"]:
            raise NotFound("DMR-E303", "no such set is running")
        text = (
            f"{self.mode} 512 0/9 lost=0 pending=0 bad=0 free=0 doubt=0 read_errors=0 "
            f"write_errors=0 transient=0 remapped=0 copies=0 identity=tag seq=0 uuid={SET}"
        )
        tables = tuple(parse_table(t.start, t.length, t.params) for t in self.table)
        status = tuple(parse_status(t.start, t.length, text) for t in self.table)
        return [Running(self.device, str(SET), tables, status)]

    def message(self, name: str, sector: int, text: str) -> str:
        assert name == "one"
        word, *numbers = text.split()
        at, most = map(int, numbers)
        assert word == "scrub"
        self.log.append((sector, at))
        self.asked(at)
        if self.waits:
            self.waits -= 1
            return f"next {at}\n"
        end = min(at + most, COPIES)
        lines = [
            f"{copy} {PLACES[copy]} {self.bad[sector].pop(copy)}"
            for copy in range(at, end)
            if copy in self.bad[sector]
        ]
        last = "end" if end == COPIES else f"next {end}"
        return "\n".join([*lines, last]) + "\n"

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def blind(self) -> None:
        """Have neither superblock readable."""
        raw = self.image.read_bytes()
        for home in (0, 255):
            at = START * 512 + home * BLOCK
            raw = raw[:at] + bytes(BLOCK) + raw[at + BLOCK :]
        self.image.write_bytes(raw)

    def see(self) -> None:
        """Have all metadata there."""
        self.image.write_bytes(bytes(START * 512) + bytes(fresh().data))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDm:
    made = FakeDm(tmp_path / "spare.img")
    made.see()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(live, "find", made.running)
    monkeypatch.setattr(blockdev, "suspended", lambda _facts: False)
    monkeypatch.setattr(blockdev, "facts", lambda path, **_how: DeviceFacts(path))
    monkeypatch.setattr(blockdev, "table_path", lambda _word: str(made.image))
    monkeypatch.setattr(dm, "table", lambda _name: made.table)
    monkeypatch.setattr(dm, "message", made.message)
    monkeypatch.setattr(time, "sleep", made.sleep)
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    return made


def fail(code: int) -> Callable[[int], None]:
    """Have the kernel return an errno."""

    def asked(_at: int) -> None:
        err = KernelError("DMR-E705", f"cannot send scrub to one: {os.strerror(code)}")
        err.errno = code
        raise err

    return asked


def refused(make: Callable[[], object]) -> DmRemapError:
    with pytest.raises(DmRemapError) as caught:
        make()
    assert caught.value.hint
    return caught.value


def answer(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["scrub", "one", "--metadata", *args, "-o", "json"])
    whole: dict[str, Any] = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(SCHEMA).validate(whole)
    return code, whole


# Pages


@pytest.mark.parametrize("page", [1, 3, COPIES, 100])
def test_every_copy_is_read_once(fake: FakeDm, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "PAGE", page)
    fake.bad = {0: {0: "written", 6: "failed"}}
    seen: list[tuple[int, int]] = []
    done = scrub.carry_out(scrub.plan("one"), progress=lambda *step: seen.append(step))
    assert fake.log == [(0, at) for at in range(0, COPIES, page)]
    assert seen == [(min(at + page, COPIES), COPIES) for at in range(0, COPIES, page)]
    assert [(one.copy, one.which, one.block, one.home, one.result) for one in done.gone] == [
        (0, "A", 0, 0, "written"),
        (6, "B", 2, HOMES[1][1], "failed"),
    ]
    assert (done.written, done.failed, done.only_in_memory) == (1, 1, 0)
    assert [one.what for one in done.gone] == [
        "copy A of the superblock",
        "copy B of table block 2",
    ]


def test_every_target_is_read(fake: FakeDm) -> None:
    fake.table = [*fake.table, Target(1000, 1000, "remap", fake.table[0].params)]
    fake.bad = {0: {1: "failed"}, 1000: {5: "failed"}}
    seen: list[tuple[int, int]] = []
    done = scrub.carry_out(scrub.plan("one"), progress=lambda *step: seen.append(step))
    assert fake.log == [(0, 0), (1000, 0)]
    assert seen == [(COPIES, 2 * COPIES), (2 * COPIES, 2 * COPIES)]
    assert [(one.target, one.which, one.block) for one in done.gone] == [
        (0, "A", 1),
        (1000, "B", 1),
    ]
    # Block 1 of two sets: each has its other copy.
    assert done.only_in_memory == 0


def test_a_block_that_only_memory_has(fake: FakeDm) -> None:
    fake.bad = {0: {1: "failed", 5: "failed", 2: "failed", 6: "written"}}
    assert scrub.carry_out(scrub.plan("one")).only_in_memory == 1


def test_superblocks_that_come_back(fake: FakeDm) -> None:
    """Without a superblock nobody knows how many copies there are, until it is written again."""
    fake.blind()
    made = scrub.plan("one")
    assert made.copies is None
    fake.bad = {0: {0: "written", 4: "written", 7: "written"}}
    fake.asked = lambda _at: fake.see()
    seen: list[tuple[int, int]] = []
    done = scrub.carry_out(made, progress=lambda *step: seen.append(step))
    assert (done.plan.copies, seen) == (COPIES, [])
    assert [(one.which, one.block) for one in done.gone] == [("A", 0), ("B", 0), ("B", 3)]


def test_superblocks_that_stay_away(fake: FakeDm, capsys: pytest.CaptureFixture[str]) -> None:
    fake.blind()
    fake.bad = {0: {4: "failed"}}
    code, whole = answer(capsys)
    assert (code, whole["data"]["copies_read"]) == (8, None)
    assert (whole["data"]["gone"][0]["block"], whole["data"]["gone"][0]["home"]) == (None, 255)
    fake.bad = {0: {4: "failed"}}
    main(["scrub", "one", "--metadata"])
    assert "  copy 4, block 255 of the area: no place takes it\n" in capsys.readouterr().out
    main(["scrub", "one", "--metadata"])
    assert capsys.readouterr().out == "one: all copies of the metadata are in order.\n"


def test_a_suspend_goes_first(fake: FakeDm) -> None:
    fake.waits = 3
    fake.bad = {0: {7: "written"}}
    done = scrub.carry_out(scrub.plan("one"))
    assert (done.written, fake.log, fake.now) == (1, [(0, 0)] * 4, 3 * scrub.PAUSE)


def test_a_suspend_that_does_not_end(fake: FakeDm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "PAGE", 3)
    fake.waits = 1000
    err = refused(lambda: scrub.carry_out(scrub.plan("one")))
    assert isinstance(err, Busy)
    assert scrub.PATIENCE < fake.now < scrub.PATIENCE + 2
    # With every page the patience is new.
    fake.waits = 0
    assert scrub.PATIENCE > 50

    def now_and_then(at: int) -> None:
        fake.now += 50
        fake.waits = fake.log.count((0, at)) < 2

    fake.log = []
    fake.asked = now_and_then
    scrub.carry_out(scrub.plan("one"))
    assert fake.log == [(0, 0), (0, 0), (0, 3), (0, 3), (0, 6), (0, 6)]


# What is refused, and what goes wrong


@pytest.mark.parametrize(
    ("number", "code", "exit_code"),
    [
        (errno.EINVAL, "DMR-E707", 7),
        (errno.EROFS, "DMR-E529", 5),
        (errno.EIO, "DMR-E103", 1),
        (errno.EUCLEAN, "DMR-E110", 1),
        (errno.EINTR, "DMR-E109", 130),
        (errno.ENOMEM, "DMR-E705", 7),
    ],
)
def test_what_an_errno_means(
    fake: FakeDm, number: int, code: str, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.asked = fail(number)
    status, whole = answer(capsys)
    assert (status, whole["error"]["code"], whole["data"]) == (exit_code, code, None)
    if code != "DMR-E705":
        assert os.strerror(number) in whole["error"]["notes"][0]


def test_what_was_written_before_is_said(fake: FakeDm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "PAGE", 3)

    def later(err: BaseException) -> DmRemapError:
        fake.bad = {0: {0: "written", 1: "written", 2: "failed"}}

        def asked(at: int) -> None:
            if at:
                raise err

        fake.asked = asked
        return refused(lambda: scrub.carry_out(scrub.plan("one")))

    broken = KernelError("DMR-E705", "what the kernel says")
    broken.errno = errno.EIO
    for wrong, code in ((broken, "DMR-E103"), (KeyboardInterrupt(), "DMR-E109")):
        err = later(wrong)
        assert err.code == code
        assert err.notes[-2].endswith("written again so far: 2.")
        assert err.notes[-1].endswith("no place takes: 1.")


def test_a_set_that_changes_meanwhile(fake: FakeDm) -> None:
    before = fake.table
    longer = [replace(before[0], params=before[0].params.replace(str(AREA_BLOCKS * 8), "8192"))]

    def asked(_at: int) -> None:
        fake.table = longer

    fake.asked = asked
    err = refused(lambda: scrub.carry_out(scrub.plan("one")))
    assert (err.code, "changed" in err.message) == ("DMR-E409", True)
    fake.table = before

    def too_old(at: int) -> None:
        fake.table = []
        fail(errno.EINVAL)(at)

    fake.asked = too_old
    assert refused(lambda: scrub.carry_out(scrub.plan("one"))).code == "DMR-E409"
    fake.table = before

    def stopped(_at: int) -> None:
        raise NotFound("DMR-E306", "there is no device-mapper device 'one'")

    fake.asked = stopped
    err = refused(lambda: scrub.carry_out(scrub.plan("one")))
    assert (err.code, "stopped" in err.message) == ("DMR-E303", True)


def test_sets_that_cannot_be_read(fake: FakeDm, monkeypatch: pytest.MonkeyPatch) -> None:
    def code(name: str = "one") -> str:
        return refused(lambda: scrub.plan(name)).code

    assert code("two") == "DMR-E303"
    fake.mode = "ro"
    assert code() == "DMR-E529"
    fake.mode = "init"
    assert code() == "DMR-E409"
    fake.mode = "rw"
    good = fake.device
    fake.device = replace(good, read_only=True)
    assert code() == "DMR-E529"
    fake.device = replace(good, live_table=False)
    assert code() == "DMR-E409"
    # A suspended set can be read, but not one whose spare is suspended.
    fake.device = replace(good, suspended=True)
    scrub.plan("one")
    fake.device = good
    one = fake.running()[0]
    monkeypatch.setattr(live, "find", lambda _names: [replace(one, status=())])
    assert code() == "DMR-E106"
    monkeypatch.setattr(live, "find", lambda _names: [one, one])
    assert code() == "DMR-E201"
    monkeypatch.setattr(live, "find", fake.running)
    monkeypatch.setattr(blockdev, "suspended", lambda _facts: True)
    assert code() == "DMR-E409"
    assert fake.log == []


# The command


def test_what_is_to_be_read_must_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scrub", "one"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("dmremapctl: say what to read: --metadata [DMR-E201]\n")
    assert main(["scrub", "--metadata"]) == 2
    assert main(["scrub", "one", "two", "--metadata"]) == 2


def test_dry_run(fake: FakeDm, capsys: pytest.CaptureFixture[str]) -> None:
    fake.bad = {0: {0: "written"}}
    code, whole = answer(capsys, "--dry-run")
    data = whole["data"]
    assert (code, data["result"], data["dry_run"]) == (0, "would scrub", True)
    assert (data["metadata_blocks"], data["copies_read"], data["gone"]) == (4, 0, [])
    assert main(["scrub", "one", "--metadata", "-n"]) == 0
    assert capsys.readouterr().out.startswith(
        "Would:\n  have one read all 8 copies of its metadata"
    )
    fake.mode = "ro"
    assert answer(capsys, "--dry-run")[0] == 5
    assert fake.log == []


def test_for_programs(fake: FakeDm, capsys: pytest.CaptureFixture[str]) -> None:
    code, whole = answer(capsys)
    data = whole["data"]
    assert (code, data["result"], data["copies_read"], data["gone"]) == (0, "clean", COPIES, [])
    fake.bad = {0: {5: "written"}}
    code, whole = answer(capsys)
    data = whole["data"]
    assert (code, data["result"], data["written"], data["failed"]) == (0, "repaired", 1, 0)
    assert data["gone"] == [
        {
            "target": 0,
            "copy": 5,
            "which": "B",
            "block": 1,
            "home": HOMES[0][1],
            "result": "written",
        }
    ]
    assert data["targets"][0]["spare_start_sectors"] == START
    fake.bad = {0: {5: "written", 6: "failed"}}
    assert main(["scrub", "one", "--metadata", "-o", "jsonl"]) == 8
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["data"]["gone"][0]["result"] for line in lines] == ["written", "failed"]
    for line in lines:
        jsonschema.Draft202012Validator(SCHEMA).validate(line)
        assert line["error"]["code"] == "DMR-E802"
        assert line["data"]["result"] == "partial"


def test_for_people(fake: FakeDm, capsys: pytest.CaptureFixture[str]) -> None:
    def said(code: int) -> tuple[str, str]:
        assert main(["scrub", "one", "--metadata"]) == code
        out = capsys.readouterr()
        return out.out, out.err

    assert said(0) == ("one: all 8 copies of the metadata are in order.\n", "")
    fake.bad = {0: {5: "written"}}
    out, err = said(0)
    assert out.splitlines()[:2] == [
        "one: 1 of 8 copies of the metadata was gone.",
        f"  copy B of table block 1, block {HOMES[0][1]} of the area: written again",
    ]
    assert ("SMART" in out, str(fake.image) in out, err) == (True, True, "")
    fake.bad = {0: {5: "failed", 6: "written"}}
    out, err = said(8)
    assert out.startswith("one: 2 of 8 copies of the metadata were gone.\n")
    assert "two good copies" not in out
    assert "[DMR-E802]\n  Copy the data to another disk" in err
    fake.bad = {0: {1: "failed", 5: "failed"}}
    out, err = said(8)
    assert "1 block of the metadata has no copy left but the one in memory" in err
    assert "Do not stop the set" in err


def test_names_are_no_commands_to_the_terminal(
    fake: FakeDm, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.device = replace(fake.device, name="a\nb\x1b")
    assert main(["scrub", "one", "--metadata", "--dry-run"]) == 0
    assert "have a\\nb\\x1b read" in capsys.readouterr().out
