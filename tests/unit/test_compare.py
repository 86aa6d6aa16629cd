# SPDX-License-Identifier: GPL-2.0-only
"""A spare that is an older copy of itself: who looks at it says so, and what can be done."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from unit.areas import (
    HOMES,
    JUNK,
    OTHER,
    Disk,
    fresh,
    mapped,
    reseal,
    superblock,
)
from unit.test_sets import running_set

from dmremap import dm
from dmremap.cli import main
from dmremap.dm.lines import RemapTable, parse_status
from dmremap.errors import Busy, NotFound, Refused
from dmremap.host import blockdev
from dmremap.host.blockdev import DeviceFacts, Use
from dmremap.ondisk import BlockDevice, Epoch, Superblock, Tag
from dmremap.ondisk._format import lib
from dmremap.ondisk.epoch import OLDER, PARTED, UNFIT, history, judge_main
from dmremap.ondisk.layout import TAG_BLOCKS, History, pack_super, pack_tag
from dmremap.sets import assemble, compare, discover, live, offline

SCHEMA = json.loads(resources.files("dmremap").joinpath("schema/dmremap-1.json").read_text())
NOW, BEFORE, ALIEN = Epoch(5, 0xA5), Epoch(4, 0xB4), 0xC0FFEE
MAIN_BLOCKS = 512
SB = superblock(
    tagged=True,
    data_start=2048,
    data_sectors=2048,
    main_sectors=MAIN_BLOCKS * 8,
    epoch=NOW,
    before=BEFORE,
)
CASES = {
    (6, ALIEN): OLDER,
    (lib.DMR_EPOCH_MAX, ALIEN): OLDER,
    (5, 0xA5): None,
    (5, ALIEN): PARTED,
    (4, 0xB4): None,
    (4, ALIEN): PARTED,
    (4, 0xA5): PARTED,
    (3, ALIEN): None,
    (1, ALIEN): None,
}
"""Number and id in main's tag, and what is said of a spare whose superblock has NOW."""


def tag_of(epoch: Epoch = NOW, sb: Superblock = SB) -> Tag:
    return replace(Tag.of(sb, 0), epoch=epoch)


def copies(tag: Tag, places: tuple[int, ...] = TAG_BLOCKS) -> dict[int, Tag]:
    return dict.fromkeys(places, tag)


@pytest.mark.parametrize(("tag", "code"), CASES.items())
def test_the_table(tag: tuple[int, int], code: str | None) -> None:
    epoch = Epoch(*tag)
    words = {None: History.SAME, OLDER: History.OLDER_SPARE, PARTED: History.PARTED}
    assert history(SB, epoch) is words[code]
    problem = judge_main(SB, copies(tag_of(epoch)), SB.main_sectors)
    assert (problem.code if problem else None) == code
    if problem:
        assert f"epoch {epoch.number}, the superblock 5" in problem.reason


def test_a_first_epoch_has_none_before() -> None:
    first = superblock(epoch=Epoch(1, 7), before=Epoch(0, 0))
    assert history(first, Epoch(1, 7)) is History.SAME
    assert history(first, Epoch(1, 8)) is History.PARTED
    assert history(first, Epoch(2, 7)) is History.OLDER_SPARE


def test_of_several_copies_the_newest_counts() -> None:
    torn = {1: tag_of(Epoch(4, 0xB4)), 255: tag_of(Epoch(6, 1))}
    problem = judge_main(SB, torn, SB.main_sectors)
    assert problem
    assert problem.code == OLDER
    parted = {1: tag_of(), 64: tag_of(Epoch(5, ALIEN))}
    problem = judge_main(SB, parted, SB.main_sectors)
    assert problem
    assert (problem.code, problem.reason) == (
        PARTED,
        "the copies of main's tag contradict each other",
    )


@pytest.mark.parametrize(
    ("change", "sectors", "why"),
    [
        ({"data_start": 4096}, 0, "contradicts the superblock"),
        ({"unit": 4096}, 0, "contradicts the superblock"),
        ({"fault": "main's tag is of another version"}, 0, "of another version"),
        ({}, -1, f"main has {SB.main_sectors - 1} sectors"),
    ],
)
def test_a_main_that_does_not_fit(change: dict[str, Any], sectors: int, why: str) -> None:
    for epoch in (NOW, Epoch(9, 1)):
        problem = judge_main(
            SB, copies(replace(tag_of(epoch), **change)), SB.main_sectors + sectors
        )
        assert problem
        assert problem.code == UNFIT
        assert why in problem.reason
    assert judge_main(SB, copies(tag_of()), SB.main_sectors + 8) is None


def test_only_the_main_of_the_set_is_judged() -> None:
    with pytest.raises(ValueError, match="no tag of this set"):
        judge_main(SB, copies(replace(tag_of(), uuid=OTHER)), SB.main_sectors)
    mixed = {1: tag_of(), 64: replace(tag_of(), uuid=OTHER)}
    problem = judge_main(SB, mixed, SB.main_sectors)
    assert problem
    assert problem.code == UNFIT


# -------------------------------------------------------------------- verbs


class Pair:
    """A spare and its main, in files."""

    def __init__(self, where: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.spare, self.main, self.capsys = where / "spare img", where / "main.img", capsys
        self.put_spare(SB)
        self.put_main(copies(tag_of()))

    def put_spare(self, sb: Superblock) -> None:
        self.spare.write_bytes(fresh([mapped(0, 3000)], sb=sb).data)

    def put_main(self, tags: dict[int, Tag]) -> None:
        disk = Disk(MAIN_BLOCKS)
        for place, tag in tags.items():
            disk[place] = pack_tag(tag, place)
        self.main.write_bytes(disk.data)

    def run(self, *args: str) -> tuple[int, str, str]:
        names = {"SPARE": str(self.spare), "MAIN": str(self.main)}
        code = main([names.get(word, word) for word in args])
        out = self.capsys.readouterr()
        return code, out.out, out.err

    def json(self, *args: str) -> tuple[int, dict[str, Any]]:
        code, out, err = self.run(*args, "-o", "json")
        assert err == ""
        whole: dict[str, Any] = json.loads(out)
        jsonschema.Draft202012Validator(SCHEMA).validate(whole)
        return code, whole


@pytest.fixture
def pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Pair:
    return Pair(tmp_path, capsys)


@pytest.mark.parametrize(("tag", "code"), CASES.items())
def test_check_compares_with_main(pair: Pair, tag: tuple[int, int], code: str | None) -> None:
    pair.put_main(copies(tag_of(Epoch(*tag)), (128,)))
    before = pair.spare.read_bytes(), pair.main.read_bytes()
    exit_code, whole = pair.json("check", "SPARE", "--main", "MAIN")
    data = whole["data"]
    compared = data["compared"]
    assert compared["main"] == str(pair.main)
    assert compared["tag_epoch"] == {"number": tag[0], "id": f"{tag[1]:016x}"}
    assert (data["epoch"], data["before"]) == (
        {"number": 5, "id": "00000000000000a5"},
        {"number": 4, "id": "00000000000000b4"},
    )
    codes = [one["code"] for one in data["findings"]]
    if code is None:
        assert (exit_code, data["verdict"], codes) == (0, "clean", [])
        assert (compared["verdict"], compared["reason"]) == ("same", None)
    else:
        assert (exit_code, data["verdict"], codes) == (2, "damaged", [code])
        assert compared["verdict"] == {OLDER: "older_spare", PARTED: "parted"}[code]
        assert (data["load"]["errno"], data["load"]["code"]) == ("EINVAL", code)
        assert not data["load"]["accept_stale"]
        # It can be typed as it stands.
        step = data["findings"][0]["next_step"]
        words = shlex.split(step[step.index("dmremapctl repair") :])
        assert words == [
            *("dmremapctl", "repair", "--accept-older-spare", str(pair.spare)),
            *("--main", str(pair.main)),
        ]
        out = pair.run("check", "SPARE", "--main", "MAIN")[1]
        assert code in out
        assert "dmremapctl repair --accept-older-spare" in out
    assert (pair.spare.read_bytes(), pair.main.read_bytes()) == before


def test_what_is_not_compared_is_said(pair: Pair) -> None:
    code, whole = pair.json("check", "SPARE")
    assert code == 0
    assert [one["code"] for one in whole["data"]["findings"]] == ["DMR-C110"]
    assert whole["data"]["compared"] == {
        "verdict": "not_compared",
        "main": None,
        "tag_epoch": None,
        "seen_epoch": None,
        "reason": "an image does not say where its main is",
    }
    assert "epoch:   5, not compared: an image" in pair.run("check", "SPARE")[1]
    pair.put_spare(superblock())
    code, whole = pair.json("check", "SPARE")
    assert (code, whole["data"]["findings"]) == (0, [])
    why = "main was adopted and has no tag, and this host has not seen the set before"
    assert whole["data"]["compared"]["reason"] == why


def test_a_main_that_is_named_must_be_it(pair: Pair, tmp_path: Path) -> None:
    for tags in ({}, copies(replace(tag_of(), uuid=OTHER))):
        pair.put_main(tags)
        code, whole = pair.json("check", "SPARE", "--main", "MAIN")
        assert (code, whole["error"]["code"]) == (5, "DMR-E513")
    code, whole = pair.json("check", "SPARE", "--main", str(tmp_path / "none"))
    assert (code, whole["error"]["code"]) == (3, "DMR-E302")


def test_a_superblock_on_a_stand_in_is_compared_too(pair: Pair) -> None:
    disk = fresh(sb=SB)
    newer = replace(SB, seq=9, epoch=Epoch(6, 0xE), before=NOW)
    disk[0], disk[136] = JUNK, reseal(pack_super(newer, 255), 255, 136)
    disk[255] = JUNK
    pair.spare.write_bytes(disk.data)
    pair.put_main(copies(tag_of(Epoch(6, 0xE))))
    compared = pair.json("check", "SPARE", "--main", "MAIN")[1]["data"]["compared"]
    assert compared["verdict"] == "same"


def test_what_is_damaged_too_is_said_with_it(pair: Pair) -> None:
    disk = fresh(sb=SB)
    for home in HOMES[1]:
        disk[home] = JUNK
    pair.spare.write_bytes(disk.data)
    pair.put_main(copies(tag_of(Epoch(9, 1))))
    code, whole = pair.json("check", "SPARE", "--main", "MAIN")
    assert code == 2
    assert {one["code"] for one in whole["data"]["findings"]} == {"DMR-C306", OLDER}


def test_repair_mends_no_older_spare(pair: Pair) -> None:
    disk = fresh(sb=SB)
    disk[HOMES[1][0]] = JUNK
    pair.spare.write_bytes(disk.data)
    pair.put_main(copies(tag_of(Epoch(9, 1))))
    before = pair.spare.read_bytes()
    code, whole = pair.json("repair", "SPARE", "--main", "MAIN", "--yes")
    assert (code, whole["error"]["code"]) == (5, "DMR-E531")
    assert "dmremapctl repair --accept-older-spare" in whole["error"]["hint"]
    assert pair.spare.read_bytes() == before
    pair.put_main(copies(tag_of()))
    assert pair.json("repair", "SPARE", "--main", "MAIN", "--yes")[0] == 0


def test_a_set_that_runs_is_read_tag_first_and_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch that begins between two reads is no older spare, nor one that is cut at half."""
    newer = replace(SB, seq=8, epoch=Epoch(6, 0xE), before=NOW)
    steps: Iterator[Any] = iter(
        [
            lambda: pair.put_spare(newer),
            lambda: pair.put_main(copies(tag_of(Epoch(6, 0xE)))),
        ]
    )
    order: list[str] = []
    plainly = BlockDevice.read

    def read(self: BlockDevice, offset: int, length: int) -> bytes | None:
        if self.path not in order[-1:]:
            order.append(self.path)
            # What runs has gone on since the other device was read.
            next(steps, lambda: None)()
        return plainly(self, offset, length)

    monkeypatch.setattr(BlockDevice, "read", read)
    checked = offline.check(offline.locate(str(pair.spare)), main=str(pair.main))
    assert order == [str(pair.spare), str(pair.main), str(pair.spare)]
    assert checked.compared
    assert checked.compared.verdict == "same"


# ------------------------------------------------------- list and assemble


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> Pair:
    """Have the two files be all the devices there are."""
    paths = [pair.main, pair.spare]

    def facts(path: str, _directory: Path, **_known: object) -> DeviceFacts:
        return DeviceFacts(path, devno=(8, len(path)), sectors=Path(path).stat().st_size // 512)

    monkeypatch.setattr(dm, "exists", lambda *_args, **_words: None)
    monkeypatch.setattr(dm, "list_devices", list)
    monkeypatch.setattr(blockdev, "all_devices", lambda: paths)
    monkeypatch.setattr(blockdev, "node", str)
    monkeypatch.setattr(blockdev, "facts_of", facts)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("dmremap.api.find.os.geteuid", lambda: 0)
    return pair


@pytest.mark.parametrize(("tag", "code"), CASES.items())
def test_list_and_assemble(devices: Pair, tag: tuple[int, int], code: str | None) -> None:
    devices.put_main(copies(tag_of(Epoch(*tag))))
    (one,) = discover.scan()
    row = devices.json("list")[1]["data"]["sets"][0]
    assert row["main"] == str(devices.main)
    if code is None:
        assert one.main_problems == {}
        assert (row["state"], row["problems"], row["findings"]) == ("stopped", [], [])
        return
    (why,) = row["problems"]
    assert (row["state"], row["findings"][0]["code"]) == ("incomplete", code)
    assert "epoch" in why
    out = devices.run("list")[1]
    assert why in out
    typed = f"dmremapctl repair --accept-older-spare '{devices.spare}'"
    assert typed in out
    for readonly in (False, True):
        with pytest.raises(Refused) as caught:
            assemble.assemble(one, readonly=readonly, dry_run=True)
        assert caught.value.code == "DMR-E531"
        assert typed in (caught.value.hint or "")


def test_devices_are_searched_for_main(devices: Pair) -> None:
    assert compare.find_main(SB).path == str(devices.main)
    devices.put_main({})
    assert "no block device carries" in compare.find_main(SB).why
    devices.spare.write_bytes(devices.main.read_bytes())
    devices.put_main(copies(tag_of()))
    devices.spare.write_bytes(devices.main.read_bytes())
    assert "several devices carry the set's tag" in compare.find_main(SB).why


def test_a_scan_judges_no_epoch_that_begins_meanwhile(
    devices: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads devices in any order: here the spare first, and the tag after the raise."""
    monkeypatch.setattr(blockdev, "all_devices", lambda: [devices.spare, devices.main])
    newer = replace(SB, seq=8, epoch=Epoch(6, 0xE), before=NOW)
    plainly = BlockDevice.read
    raised: list[bool] = []

    def read(self: BlockDevice, offset: int, length: int) -> bytes | None:
        if self.path == str(devices.main) and not raised:
            raised.append(True)
            devices.put_spare(newer)
            devices.put_main(copies(tag_of(Epoch(6, 0xE))))
        return plainly(self, offset, length)

    monkeypatch.setattr(BlockDevice, "read", read)
    (one,) = discover.scan()
    assert raised
    assert one.superblock.epoch == NOW
    assert one.main_problems == {}


def test_an_area_that_begins_later_is_named() -> None:
    found = compare.MainTag(compare.Main("/dev/sdx"), SB.main_sectors, copies(tag_of(Epoch(9, 1))))
    one = compare.compare(SB, found, "/dev/sdb", 16)
    assert one.problem
    assert one.problem.hint.endswith("dmremapctl repair --accept-older-spare /dev/sdb --start 16")
    assert one.verdict == "older_spare"


def test_a_main_that_is_suspended_is_not_waited_for(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockdev, "suspended", lambda _facts: True)
    found = compare.read_main(compare.Main(str(pair.main)), SB)
    assert (found.tag, "is suspended" in found.why) == (None, True)
    with pytest.raises(Busy):
        compare.read_main(compare.Main(str(pair.main), given=True), SB)


def test_a_main_that_cannot_be_opened(tmp_path: Path) -> None:
    path = str(tmp_path / "none")
    found = compare.read_main(compare.Main(path), SB)
    assert (found.tag, "does not exist" in found.why) == (None, True)
    with pytest.raises(NotFound):
        compare.read_main(compare.Main(path, given=True), SB)


# ------------------------------------------------------- a main's spare


def of_main(pair: Pair, tag: Tag) -> compare.Compared:
    found = compare.MainTag(compare.Main(str(pair.main)), SB.main_sectors, copies(tag, (1,)))
    return compare.compare_main(found, tag, runs=None, search=True)


@pytest.mark.parametrize(("tag", "code"), CASES.items())
def test_a_main_finds_its_spare(devices: Pair, tag: tuple[int, int], code: str | None) -> None:
    found = of_main(devices, tag_of(Epoch(*tag)))
    assert found.spare == str(devices.spare)
    assert found.verdict == {None: "same", OLDER: "older_spare", PARTED: "parted"}[code]
    if found.problem:
        assert str(devices.spare) in shlex.split(found.problem.hint)


def test_why_a_main_finds_none(devices: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def why(tag: Tag) -> str:
        found = of_main(devices, tag)
        assert (found.verdict, found.problem) == ("not_compared", None)
        return found.reason or ""

    assert "no block device has the set's superblock at sector 0" in why(
        replace(tag_of(), uuid=OTHER)
    )
    assert "at sector 8" in why(replace(tag_of(), spare_start=8))
    twins = [devices.spare, devices.spare.with_name("copy")]
    twins[1].write_bytes(twins[0].read_bytes())
    monkeypatch.setattr(blockdev, "all_devices", lambda: twins)
    assert why(tag_of()) == (
        f"several devices have the set's superblock at sector 0: {twins[0]}, {twins[1]}"
    )
    monkeypatch.setattr(discover, "spares", lambda *_: [DeviceFacts("/dev/none")])
    assert "/dev/none" in why(tag_of())
    devices.spare.write_bytes(Disk(400).data)
    monkeypatch.setattr(discover, "spares", lambda *_: [DeviceFacts(str(devices.spare))])
    assert "no superblock that can be used" in why(tag_of())
    monkeypatch.setattr(blockdev, "suspended", lambda _facts: True)
    assert "suspended" in why(tag_of())


def test_the_spare_that_a_table_names_is_compared(
    devices: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its area may begin elsewhere than the tag says, and other devices are not looked at."""
    monkeypatch.setattr(blockdev, "table_path", lambda _numbers: str(devices.spare))
    monkeypatch.setattr(blockdev, "all_devices", list)
    runs = RemapTable(0, 2048, "8:0", "8:16", 0, 2720)
    tag = replace(tag_of(), spare_start=8)
    found = compare.MainTag(compare.Main(str(devices.main)), SB.main_sectors, copies(tag, (1,)))
    assert compare.compare_main(found, tag, runs=runs, search=True).verdict == "same"


STATUS = (
    "rw 512 0/960 lost=0 pending=0 bad=0 free=960 doubt=0 read_errors=0 write_errors=0 transient=0 "
    "remapped=0 breaker=closed copies=0 identity={} seq=1"
)


def running(pair: Pair, identity: str, monkeypatch: pytest.MonkeyPatch) -> offline.Place:
    """Return main as the one of the second target of a device that runs."""
    lines = (
        RemapTable(0, 2048, "8:64", "8:80", 0, 2720, uuid=str(OTHER)),
        RemapTable(2048, 2048, "8:0", "8:16", 0, 2720, uuid=str(SB.uuid)),
    )
    told = tuple(parse_status(line.start, 2048, STATUS.format(identity)) for line in lines)
    device = replace(running_set("two").device, target_count=2)
    monkeypatch.setattr(live, "find", lambda: [live.Running(device, str(OTHER), lines, told)])
    paths = {"8:16": str(pair.spare)}
    monkeypatch.setattr(blockdev, "table_path", lambda numbers: paths.get(numbers, numbers))
    facts = DeviceFacts(str(pair.main), devno=(8, 0), holders=(Use("dm-1 (two)", "holds it"),))
    return offline.Place(str(pair.main), 0, facts)


def test_of_several_targets_it_is_the_one_that_has_the_device(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = offline.member(running(pair, "tag", monkeypatch))
    assert (main.role, main.uuid, main.running) == ("main", SB.uuid, "two")
    assert main.compared
    assert (main.compared.spare, main.compared.verdict) == (str(pair.spare), "same")


def test_a_tag_in_the_data_of_an_adopted_main_is_not_its_own(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.put_main(copies(replace(tag_of(), uuid=OTHER)))
    main = offline.member(running(pair, "size", monkeypatch))
    assert (main.role, main.uuid, main.tag) == ("main", SB.uuid, None)
    assert main.compared
    assert (main.compared.spare, main.compared.verdict) == (str(pair.spare), "not_compared")
