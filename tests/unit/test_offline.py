# SPDX-License-Identifier: GPL-2.0-only
"""examine, check, repair, export and import on images: words, JSON, exit codes, refusals."""

import errno
import fcntl
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from unit.areas import (
    AREA_BLOCKS,
    GOLDEN,
    HOMES,
    JUNK,
    OTHER,
    SB,
    SET,
    Disk,
    fresh,
    give_names,
    mapped,
    superblock,
    table,
)

from dmremap.cli import main
from dmremap.errors import DmRemapError, Failure
from dmremap.host import blockdev
from dmremap.host.blockdev import DeviceFacts, Signature, Use
from dmremap.ondisk import BLOCK, BlockDevice, Entry, Epoch, Errors, SetState, SlotState, Tag
from dmremap.ondisk.backup import Backup, decode
from dmremap.ondisk.layout import pack_super, pack_tag
from dmremap.sets import live, offline, restore

SCHEMA = json.loads(resources.files("dmremap").joinpath("schema/dmremap-1.json").read_text())
ENTRIES = [mapped(0, 100), Entry(2, SlotState.LOST, 8, 0), mapped(252, 1000)]
A1, B1 = HOMES[1]
VERSION_1 = "version 1: save the data with the dm-remap that made it"


class Commands:
    """Runs dmremapctl on one image."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self.capsys = capsys

    def put(self, disk: Disk) -> None:
        self.path.write_bytes(disk.data)

    @property
    def disk(self) -> Disk:
        out = Disk()
        out.data = bytearray(self.path.read_bytes())
        return out

    def run(self, *args: str) -> tuple[int, str, str]:
        code = main([str(self.path) if word == "@" else word for word in args])
        out = self.capsys.readouterr()
        return code, out.out, out.err

    def json(self, *args: str) -> tuple[int, dict[str, Any]]:
        code, out, err = self.run(*args, "-o", "json")
        assert err == ""
        whole: dict[str, Any] = json.loads(out)
        jsonschema.Draft202012Validator(SCHEMA).validate(whole)
        assert whole["command"] == args[0]
        if whole["error"]:
            assert whole["error"]["exit"] == code
        return code, whole


@pytest.fixture
def ctl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    out = Commands(tmp_path / "spare.img", capsys)
    out.put(fresh(ENTRIES))
    return out


def damaged(disk: Disk, *places: int) -> Disk:
    for place in places:
        disk[place] = JUNK
    return disk


# ------------------------------------------------------------------ examine


def test_examine_a_spare(ctl: Commands) -> None:
    code, out, err = ctl.run("examine", "@")
    assert (code, err) == (0, "")
    for words in (
        "role:    spare",
        "attic",
        str(SET),
        "READY",
        "accepted as it is",
        "3 mapped (1 lost)",
    ):
        assert words in out
    code, whole = ctl.json("examine", "@")
    data = whole["data"]
    assert (code, data["role"], data["file"], data["uuid"]) == (0, "spare", True, str(SET))
    assert data["set"]["state"] == "ready"
    assert data["slots"]["mapped"] == 3
    assert data["load"]["action"] == "accept"


def test_examine_what_is_damaged(ctl: Commands) -> None:
    ctl.put(damaged(fresh(ENTRIES), A1, B1))
    code, whole = ctl.json("examine", "@")
    assert code == 0
    assert whole["data"]["load"]["action"] == "refuse"
    assert whole["data"]["load"]["errno"] == "EIO"
    assert whole["data"]["load"]["accept_stale"] is True
    code, out, _ = ctl.run("examine", "@")
    assert "refused with EIO" in out
    assert "DMR-C306" in out


def test_examine_a_main(ctl: Commands) -> None:
    disk = Disk(512)
    disk[1] = pack_tag(Tag(SET, "attic", 1 << 20, 2048, 512), 1)
    ctl.put(disk)
    code, whole = ctl.json("examine", "@")
    assert (code, whole["data"]["role"], whole["data"]["uuid"]) == (0, "main", str(SET))
    assert whole["data"]["tag"]["data_start_sectors"] == 2048
    assert whole["data"]["compared"]["verdict"] == "not_compared"
    assert (whole["data"]["spare"], whole["data"]["findings"]) == (None, [])
    code, out, _ = ctl.run("examine", "@")
    assert "main" in out
    assert "attic" in out
    assert "not known: an image does not say where its spare is" in out
    disk[1] = bytes(BLOCK)
    disk[192] = pack_tag(Tag.of(superblock(tagged=True, data_start=2048, data_sectors=8), 8), 192)
    ctl.put(disk)
    found = ctl.json("examine", "@")[1]["data"]["tag"]
    assert found["epoch"] == {"number": 3, "id": "0123456789abcdef"}
    assert (found["spare_start_sectors"], found["spare_sectors"]) == (8, AREA_BLOCKS * 8)
    assert found["fault"] is None
    assert "MiB from sector 8" in ctl.run("examine", "@")[1]


def test_examine_a_main_of_version_1(ctl: Commands) -> None:
    disk = Disk(512)
    disk[1] = (GOLDEN / "tag-1.bin").read_bytes().ljust(BLOCK, b"\0")
    ctl.put(disk)
    code, whole = ctl.json("examine", "@")
    assert (code, whole["data"]["role"], whole["data"]["uuid"]) == (0, "main", str(SET))
    assert VERSION_1 in whole["data"]["tag"]["fault"]
    assert whole["data"]["tag"]["epoch"] is None
    out = ctl.run("examine", "@")[1]
    assert f"main's tag is of {VERSION_1}" in out
    assert "epoch" not in out


def test_a_set_of_version_1(ctl: Commands) -> None:
    disk = Disk()
    disk[0] = (GOLDEN / "super-1.bin").read_bytes().ljust(BLOCK, b"\0")
    ctl.put(disk)
    for command, expected in (("examine", 0), ("check", 2)):
        code, out, _ = ctl.run(command, "@")
        assert code == expected
        assert f"metadata is of {VERSION_1}" in out
        assert "DMR-C315" in out


def test_what_a_superblock_says_of_the_past_and_of_what_was_chosen(ctl: Commands) -> None:
    sb = superblock(
        incompat=1,
        predecessor=OTHER,
        predecessor_epoch=Epoch(7, 0xAB),
        spare_serial=2,
        errors=Errors.MEDIUM,
        remap_rate=60,
    )
    plain = ctl.json("examine", "@")[1]["data"]["set"]
    ctl.put(fresh(ENTRIES, sb=sb))
    told = ctl.json("examine", "@")[1]["data"]["set"]
    assert {key: (plain[key], told[key]) for key in told if plain[key] != told[key]} == {
        "superseded": (False, True),
        "predecessor": (None, str(OTHER)),
        "predecessor_epoch": (None, {"number": 7, "id": "00000000000000ab"}),
        "spare_serial": (1, 2),
        "errors": (None, "medium"),
        "remap_rate": (None, 60),
    }
    assert told["epoch"] == {"number": 3, "id": "0123456789abcdef"}
    out = ctl.run("examine", "@")[1]
    past = ("READY, gone on elsewhere", f"{OTHER}, to its epoch 7", "spare number: 2")
    for words in ("DMR-C314", *past, "medium", "60 a minute"):
        assert words in out
    assert ctl.run("check", "@")[0] == 2
    assert ctl.json("repair", "@", "--yes")[1]["error"]["code"] == "DMR-E530"


def test_examine_something_else(ctl: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockdev, "signatures", lambda _path: [Signature("ext4", 1080, "books")])
    ctl.put(Disk())
    code, whole = ctl.json("examine", "@")
    assert code == 3
    assert whole["error"]["code"] == "DMR-E307"
    assert "it holds ext4 (books)" in whole["error"]["message"]
    assert whole["data"]["role"] == "none"
    assert whole["data"]["holds"] == [{"type": "ext4", "label": "books", "offset_bytes": 1080}]
    code, out, err = ctl.run("examine", "@")
    assert (code, out) == (3, "")
    assert "[DMR-E307]" in err


def test_examine_behind_the_start(ctl: Commands) -> None:
    ctl.path.write_bytes(bytes(2 * BLOCK) + fresh(ENTRIES).data)
    assert ctl.run("examine", "@")[0] == 3
    assert ctl.run("examine", "@", "--start", "8K")[0] == 0
    assert ctl.run("examine", "@", "--start", "9")[0] == 2


@pytest.mark.parametrize("verb", ["examine", "check", "repair"])
def test_paths_that_are_no_device(verb: str, ctl: Commands, tmp_path: Path) -> None:
    code, whole = ctl.json(verb, str(tmp_path / "none"))
    assert (code, whole["error"]["code"]) == (3, "DMR-E302")
    for path in (str(tmp_path), "/dev/null"):
        code, whole = ctl.json(verb, path)
        assert (code, whole["error"]["code"]) == (5, "DMR-E501")


@pytest.mark.parametrize("verb", ["examine", "check", "repair"])
@pytest.mark.parametrize("filled", [b"\0", b"x", b""])
@pytest.mark.parametrize("size", [0, 1, 700, 4096 * 3 + 17, 1 << 20])
def test_files_that_are_too_short(verb: str, size: int, filled: bytes, ctl: Commands) -> None:
    content = (filled * size)[:size] if filled else ctl.path.read_bytes()[:size]
    ctl.path.write_bytes(content)
    code, whole = ctl.json(verb, "@")
    if filled or size < BLOCK:
        # What lies behind the end of a file is no superblock that was lost.
        assert (code, whole["error"]["code"]) == (3, "DMR-E307")
        assert f" {size} bytes" in whole["error"]["message"]
        return
    # The first superblock is there, so it is an image that was cut.
    assert code == {"examine": 0, "check": 2, "repair": 5}[verb]
    found = whole["data"]["load"]["code"] if whole["data"] else whole["error"]["code"]
    assert found == ("DMR-E511" if verb == "repair" else "DMR-C311")
    assert ctl.path.read_bytes() == content


def test_an_image_whose_second_superblock_is_cut_off(ctl: Commands) -> None:
    disk = fresh(ENTRIES)
    disk[0] = JUNK
    disk[130] = table(0, 0, [], 1, place=130)
    ctl.path.write_bytes(disk.data[: 200 * BLOCK])
    code, whole = ctl.json("check", "@")
    assert (code, whole["data"]["load"]["code"]) == (2, "DMR-C301")
    assert "block 255 lies behind the end of the device" in whole["data"]["load"]["reason"]


# -------------------------------------------------------------------- check


def test_check_clean(ctl: Commands) -> None:
    before = ctl.path.read_bytes()
    code, whole = ctl.json("check", "@")
    assert (code, whole["data"]["verdict"]) == (0, "clean")
    assert [one["code"] for one in whole["data"]["findings"]] == ["DMR-C103"]
    code, out, _ = ctl.run("check", "@")
    assert code == 0
    assert "clean" in out
    assert ctl.path.read_bytes() == before


def test_check_repairable(ctl: Commands) -> None:
    ctl.put(damaged(fresh(ENTRIES), A1))
    before = ctl.path.read_bytes()
    code, whole = ctl.json("check", "@")
    assert (code, whole["data"]["verdict"]) == (1, "repairable")
    assert whole["error"] is None
    first = whole["data"]["findings"][0]
    assert (first["code"], first["severity"], first["blocks"]) == ("DMR-C201", "repairable", [A1])
    assert whole["data"]["load"]["action"] == "mend"
    code, out, _ = ctl.run("check", "@")
    assert code == 1
    assert "DMR-C201 repairable" in out
    assert "dmremapctl repair" in out
    assert ctl.path.read_bytes() == before


def test_check_lists_every_block(ctl: Commands) -> None:
    disk = damaged(fresh(ENTRIES), A1)
    give_names(disk, {130: HOMES[2][0]})
    disk[130] = table(2, 0, [], 1, place=130)
    disk[HOMES[2][0]] = bytes(BLOCK)
    ctl.put(disk)
    code, whole = ctl.json("check", "@", "--blocks")
    assert code == 1
    blocks = whole["data"]["blocks"]
    assert [one["block"] for one in blocks] == [0, 1, 2, 3]
    assert blocks[2]["copies"][0] == {
        "home": A1,
        "place": None,
        "sequence": 0,
        "fault": "holds something that is not ours",
    }
    assert blocks[3]["copies"][0]["place"] == 130
    code, out, _ = ctl.run("check", "@", "--blocks")
    assert f"block {HOMES[2][0]} on stand-in 130, sequence 1" in out
    assert "blocks" not in ctl.json("check", "@")[1]["data"]


def test_check_damaged(ctl: Commands) -> None:
    ctl.put(damaged(fresh(ENTRIES), A1, B1))
    code, whole = ctl.json("check", "@")
    assert (code, whole["data"]["verdict"], whole["error"]) == (2, "damaged", None)
    assert whole["data"]["load"]["code"] == "DMR-C306"


def test_check_truncated(ctl: Commands) -> None:
    ctl.path.write_bytes(ctl.path.read_bytes()[: -BLOCK - 1000])
    code, whole = ctl.json("check", "@")
    assert (code, whole["data"]["load"]["code"]) == (2, "DMR-C311")


def test_check_unreadable_blocks(ctl: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_read = BlockDevice.read

    def read(self: BlockDevice, offset: int, length: int) -> bytes | None:
        if offset <= A1 * BLOCK < offset + length:
            return None
        return whole_read(self, offset, length)

    monkeypatch.setattr(BlockDevice, "read", read)
    code, whole = ctl.json("check", "@")
    assert code == 1
    assert "cannot be read" in whole["data"]["findings"][0]["message"]


def test_check_jsonl_has_a_finding_a_line(ctl: Commands) -> None:
    ctl.put(damaged(fresh(ENTRIES), A1, 0))
    code, out, _ = ctl.run("check", "@", "-o", "jsonl")
    assert code == 1
    lines = [json.loads(line) for line in out.splitlines()]
    assert all(len(line["data"]["findings"]) == 1 for line in lines)
    assert len(lines) == 2
    for line in lines:
        jsonschema.Draft202012Validator(SCHEMA).validate(line)


def test_check_of_what_is_no_spare(ctl: Commands) -> None:
    ctl.put(Disk())
    assert ctl.run("check", "@")[0] == 3
    disk = Disk(512)
    disk[1] = pack_tag(Tag(SET, "attic", 1 << 20, 2048, 512), 1)
    ctl.put(disk)
    code, whole = ctl.json("check", "@")
    assert (code, whole["error"]["code"]) == (5, "DMR-E522")


def test_check_says_which_set_it_is(ctl: Commands) -> None:
    assert ctl.run("check", "@", "--uuid", str(SET))[0] == 0
    code, whole = ctl.json("check", "@", "--uuid", str(OTHER))
    assert (code, whole["error"]["code"]) == (5, "DMR-E504")
    assert str(SET) in whole["error"]["message"]
    assert ctl.run("check", "@", "--uuid", "x")[0] == 2


# ------------------------------------------------------------------- repair


def test_repair(ctl: Commands) -> None:
    ctl.put(damaged(fresh(ENTRIES), A1, 255))
    before = ctl.path.read_bytes()
    code, whole = ctl.json("repair", "@", "--dry-run")
    assert (code, whole["data"]["result"]) == (0, "would repair")
    planned = whole["data"]["writes"]
    assert [one["block"] for one in planned] == [255, 0, A1, B1]
    assert planned[0]["offset_bytes"] == 255 * BLOCK
    assert ctl.path.read_bytes() == before
    code, out, _ = ctl.run("repair", "@", "-n")
    assert f"block {A1}: table block, copy A, sequence 3" in out
    code, whole = ctl.json("repair", "@")
    assert (code, whole["error"]["code"]) == (2, "DMR-E202")
    assert ctl.path.read_bytes() == before
    code, whole = ctl.json("repair", "@", "--yes")
    assert (code, whole["data"]["result"]) == (0, "repaired")
    assert whole["data"]["writes"] == planned
    assert ctl.run("check", "@")[0] == 0
    code, whole = ctl.json("repair", "@", "--yes")
    assert (code, whole["data"]["result"], whole["data"]["writes"]) == (0, "clean", [])
    code, out, _ = ctl.run("repair", "@")
    assert "nothing to repair" in out


def test_the_question_names_the_set(ctl: Commands) -> None:
    ctl.put(damaged(fresh(ENTRIES), A1))
    code, whole = ctl.json("repair", "@")
    assert (code, whole["error"]["code"]) == (2, "DMR-E202")
    assert f"set 'attic' ({SET})" in whole["error"]["message"]


def test_repair_says_what_is_left(ctl: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = fresh(ENTRIES)
    give_names(disk, {140: A1})
    ctl.put(damaged(disk, 140))
    whole_write = BlockDevice.write

    def write(self: BlockDevice, offset: int, data: bytes) -> None:
        if offset == 140 * BLOCK:
            raise Failure("DMR-E103", "it does not take writes")
        whole_write(self, offset, data)

    monkeypatch.setattr(BlockDevice, "write", write)
    code, whole = ctl.json("repair", "@", "--yes")
    assert (code, whole["data"]["result"]) == (0, "repaired")
    assert [one["code"] for one in whole["data"]["left"]] == ["DMR-C203"]
    # The block was written again, so that it outranks what the stand-in may hide.
    assert [one["block"] for one in whole["data"]["writes"]] == [A1, HOMES[1][1]]


def test_a_repair_that_cannot_be_read_back(ctl: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    ctl.put(damaged(fresh(ENTRIES), A1))
    whole_write = BlockDevice.write

    def write(self: BlockDevice, offset: int, data: bytes) -> None:
        whole_write(self, offset, JUNK if len(data) == BLOCK else data)

    monkeypatch.setattr(BlockDevice, "write", write)
    code, whole = ctl.json("repair", "@", "--yes")
    assert (code, whole["error"]["code"]) == (1, "DMR-E103")


def test_repair_never_guesses(ctl: Commands) -> None:
    disk = fresh(ENTRIES)
    disk[0] = pack_super(superblock(name="other"), 0)
    for one, code in ((disk, "DMR-E514"), (damaged(fresh(ENTRIES), A1, B1), "DMR-E514")):
        ctl.put(one)
        exit_code, whole = ctl.json("repair", "@", "--yes")
        assert (exit_code, whole["error"]["code"]) == (5, code)
        assert ctl.path.read_bytes() == bytes(one.data)
    disk = Disk()
    disk[0] = pack_super(superblock(state=SetState.FORMATTING), 0)
    ctl.put(disk)
    assert ctl.json("repair", "@", "-y")[1]["error"]["code"] == "DMR-E515"
    ctl.path.write_bytes(fresh(ENTRIES).data[:-1])
    assert ctl.json("repair", "@", "-y")[1]["error"]["code"] == "DMR-E511"


def test_repair_says_all_that_stands_in_the_way(ctl: Commands) -> None:
    disk = damaged(fresh(ENTRIES), A1, B1, 136, 152)
    ctl.put(disk)
    _, whole = ctl.json("repair", "@", "--yes")
    assert "stand-ins 136, 152" in whole["error"]["message"]
    assert any("DMR-C306" in note for note in whole["error"]["notes"])


def test_repair_of_a_main(ctl: Commands) -> None:
    disk = Disk(512)
    disk[1] = pack_tag(Tag(SET, "attic", 1 << 20, 2048, 512), 1)
    ctl.put(disk)
    code, whole = ctl.json("repair", "@", "--yes")
    assert (code, whole["error"]["code"]) == (5, "DMR-E522")


def test_repair_of_an_image_that_is_locked(ctl: Commands) -> None:
    ctl.put(damaged(fresh(ENTRIES), A1))
    with ctl.path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        code, whole = ctl.json("repair", "@", "--yes")
    assert (code, whole["error"]["code"]) == (4, "DMR-E404")


def test_repair_of_an_image_behind_a_loop_device(
    ctl: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctl.put(damaged(fresh(ENTRIES), A1))
    info = ctl.path.stat()
    monkeypatch.setattr(blockdev, "all_devices", lambda: [Path("/sys/block/loop7")])
    monkeypatch.setattr(blockdev, "backing_inode", lambda *_: (info.st_dev, info.st_ino))
    code, whole = ctl.json("repair", "@", "--yes")
    assert (code, whole["error"]["code"]) == (4, "DMR-E403")
    assert "/dev/loop7" in whole["error"]["message"]


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EROFS, "DMR-E502"), (errno.EACCES, "DMR-E601")]
)
def test_repair_on_what_cannot_be_written(
    number: int, code: str, ctl: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctl.put(damaged(fresh(ENTRIES), A1))
    real = os.open

    def refuse(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if str(path) == str(ctl.path) and flags & os.O_RDWR:
            raise (
                OSError(number, os.strerror(number))
                if number != errno.EACCES
                else (PermissionError(number, os.strerror(number)))
            )
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    exit_code, whole = ctl.json("repair", "@", "--yes")
    assert (exit_code, whole["error"]["code"]) == (int(code[5]), code)


def test_what_changes_meanwhile_is_not_written(ctl: Commands) -> None:
    ctl.put(damaged(fresh(ENTRIES), A1))
    plan = offline.plan_repair(offline.locate(str(ctl.path)))
    ctl.put(damaged(fresh(ENTRIES), B1))
    with pytest.raises(DmRemapError) as caught:
        offline.repair(plan)
    assert caught.value.code == "DMR-E409"
    assert ctl.disk[B1] == JUNK


# ------------------------------------------------------------ block devices

FACTS = DeviceFacts("/dev/sdz", name="sdz", devno=(8, 400), sectors=AREA_BLOCKS * 8)


def device(monkeypatch: pytest.MonkeyPatch, facts: DeviceFacts) -> offline.Place:
    monkeypatch.setattr(blockdev, "facts", lambda _path, **_options: facts)
    return offline.Place(facts.path, 0, facts)


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"read_only": True}, "DMR-E502"),
        ({"mounts": (Use("sdz", "/mnt"),)}, "DMR-E401"),
        ({"holders": (Use("sdz", "dm-3 (vg)"),)}, "DMR-E403"),
        ({"exclusive": errno.EBUSY}, "DMR-E404"),
    ],
)
def test_repair_on_a_device_in_use(
    facts: dict[str, Any], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    monkeypatch.setattr(live, "find", list)
    place = device(monkeypatch, replace(FACTS, **facts))
    for plan in (
        lambda: offline.plan_repair(place),
        lambda: restore.plan(Backup(SET, 0, SB, ()), place),
    ):
        with pytest.raises(DmRemapError) as caught:
            plan()
        assert caught.value.code == code


def running(spare: str, main_device: str = "8:0") -> live.Running:
    from dmremap import dm
    from dmremap.dm.lines import parse_table

    line = parse_table(0, 8192, f"remap {main_device} {spare} 0 2720".split(maxsplit=1)[1])
    fields = dict.fromkeys(dm.Device.__dataclass_fields__, 0)
    one = dm.Device(**{**fields, "name": "attic", "uuid": f"REMAP-{SET}"})  # type: ignore[arg-type]
    return live.Running(one, str(SET), (line,), ())


def test_a_running_set(monkeypatch: pytest.MonkeyPatch, ctl: Commands) -> None:
    from dataclasses import replace

    held = replace(FACTS, path=str(ctl.path), holders=(Use("sdz", "dm-0 (attic)"),))
    place = device(monkeypatch, held)
    monkeypatch.setattr(live, "find", lambda: [running("8:400")])
    with pytest.raises(DmRemapError, match="'attic', which is running") as caught:
        offline.plan_repair(place)
    assert caught.value.code == "DMR-E403"
    # Looking is allowed.
    checked = offline.check(place)
    assert checked.running == "attic"
    assert "DMR-C105" in {one.code for one in checked.load.findings}
    assert offline.member(place).running == "attic"
    data, backup = offline.export(place)
    assert backup.uuid == SET
    assert decode(data) == backup


def test_an_adopted_main_is_known_while_its_set_runs(
    monkeypatch: pytest.MonkeyPatch, ctl: Commands
) -> None:
    from dataclasses import replace

    ctl.put(Disk())
    held = replace(FACTS, path=str(ctl.path), holders=(Use("sdz", "dm-0 (attic)"),))
    place = device(monkeypatch, held)
    monkeypatch.setattr(live, "find", lambda: [running("8:16", "8:400")])
    one = offline.member(place)
    assert (one.role, one.running, one.uuid) == ("main", "attic", SET)


def test_devices_need_root(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(offline, "locate", lambda path, start: offline.Place(path, start, FACTS))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for args in (
        ["examine", "/dev/sdz"],
        ["check", "/dev/sdz"],
        ["repair", "/dev/sdz"],
        ["export", "--metadata", "/dev/sdz", "f"],
        ["import", "--metadata", "f", "/dev/sdz"],
    ):
        assert main(args) == 6
        assert "only root can" in capsys.readouterr().err


# -------------------------------------------------------- export and import


def test_export_and_import(ctl: Commands, tmp_path: Path) -> None:
    file = str(tmp_path / "backup")
    code, whole = ctl.json("export", "--metadata", "@", file)
    assert (code, whole["data"]["uuid"], whole["data"]["metadata_blocks"]) == (0, str(SET), 4)
    assert Path(file).stat().st_mode & 0o777 == 0o600
    code, whole = ctl.json("export", "--metadata", "@", file)
    assert (code, whole["error"]["code"]) == (5, "DMR-E525")
    assert ctl.run("export", "--metadata", "@", file, "--force")[0] == 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    code, whole = ctl.json("import", "--metadata", file, "@")
    assert (code, whole["data"]["result"], whole["data"]["kept"]) == (0, "clean", 4)

    ctl.put(damaged(fresh(ENTRIES), 0, 255))
    before = ctl.path.read_bytes()
    code, whole = ctl.json("import", "--metadata", file, "@", "--dry-run")
    assert (code, whole["data"]["result"]) == (0, "would import")
    # As they were, and then with an epoch.
    assert [one["block"] for one in whole["data"]["writes"]] == [0, 255, 0, 255]
    code, whole = ctl.json("import", "--metadata", file, "@")
    assert (code, whole["error"]["code"]) == (2, "DMR-E202")
    assert ctl.path.read_bytes() == before
    code, out, _ = ctl.run("import", "--metadata", file, "@", "--yes")
    assert code == 0
    assert "Wrote 4 blocks" in out
    assert ctl.run("check", "@")[0] == 0


def test_import_of_what_may_be_old_needs_force(ctl: Commands, tmp_path: Path) -> None:
    file = str(tmp_path / "backup")
    assert ctl.run("export", "--metadata", "@", file)[0] == 0
    ctl.put(damaged(fresh(ENTRIES), A1, B1))
    code, whole = ctl.json("import", "--metadata", file, "@", "--yes")
    assert (code, whole["error"]["code"]) == (5, "DMR-E526")
    code, whole = ctl.json("import", "--metadata", file, "@", "--yes", "--force")
    assert (code, whole["data"]["result"], whole["data"]["risky"]) == (0, "imported", [A1])
    assert ctl.run("check", "@")[0] == 0


def test_import_into_a_blank_image(ctl: Commands, tmp_path: Path) -> None:
    file = str(tmp_path / "backup")
    assert ctl.run("export", "--metadata", "@", file)[0] == 0
    ctl.put(Disk())
    code, whole = ctl.json("import", "--metadata", file, "@", "--yes")
    assert (code, whole["data"]["blank"]) == (0, True)
    assert whole["data"]["slots"]["lost"] == 3
    code, whole = ctl.json("check", "@")
    assert (code, whole["data"]["slots"]["lost"]) == (0, 3)
    disk = Disk()
    disk[300] = JUNK
    ctl.put(disk)
    code, whole = ctl.json("import", "--metadata", file, "@", "--yes", "--force")
    assert (code, whole["error"]["code"]) == (5, "DMR-E505")
    ctl.put(Disk(AREA_BLOCKS - 1))
    code, whole = ctl.json("import", "--metadata", file, "@", "--yes", "--force")
    assert (code, whole["error"]["code"]) == (5, "DMR-E511")


def test_import_onto_another_set(ctl: Commands, tmp_path: Path) -> None:
    file = str(tmp_path / "backup")
    assert ctl.run("export", "--metadata", "@", file)[0] == 0
    ctl.put(fresh(ENTRIES, superblock(uuid=OTHER)))
    code, whole = ctl.json("import", "--metadata", file, "@", "--yes", "--force")
    assert (code, whole["error"]["code"]) == (5, "DMR-E504")
    disk = Disk(512)
    disk[1] = pack_tag(Tag(SET, "attic", 1 << 20, 2048, 512), 1)
    ctl.put(disk)
    code, whole = ctl.json("import", "--metadata", file, "@", "--yes", "--force")
    assert (code, whole["error"]["code"]) == (5, "DMR-E522")


def test_import_onto_a_foreign_signature(
    ctl: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(tmp_path / "backup")
    assert ctl.run("export", "--metadata", "@", file)[0] == 0
    ctl.put(damaged(fresh(ENTRIES), 0, 255))
    monkeypatch.setattr(blockdev, "signatures", lambda _path: [Signature("ext4", 1080)])
    code, whole = ctl.json("import", "--metadata", file, "@", "--yes")
    assert (code, whole["error"]["code"]) == (5, "DMR-E503")
    assert ctl.run("import", "--metadata", file, "@", "--yes", "--force")[0] == 0


@pytest.mark.parametrize("content", [b"", b"dm-remap backup\n", b"x" * 5000])
def test_import_of_what_is_no_backup(content: bytes, ctl: Commands, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    file.write_bytes(content)
    code, whole = ctl.json("import", "--metadata", str(file), "@", "--yes")
    assert (code, whole["error"]["code"]) == (5, "DMR-E523")


def test_import_of_what_is_no_file(ctl: Commands, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    sparse = tmp_path / "sparse"
    sparse.touch()
    os.truncate(sparse, 1 << 42)
    before = ctl.path.read_bytes()
    for path in (tmp_path, fifo, Path("/dev/zero"), sparse):
        code, whole = ctl.json("import", "--metadata", str(path), "@", "--yes")
        assert (code, whole["error"]["code"]) == (5, "DMR-E523"), path
        assert whole["error"]["hint"], path
    assert ctl.path.read_bytes() == before


def test_export_of_what_cannot_be_started(ctl: Commands, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    ctl.put(damaged(fresh(ENTRIES), A1, B1))
    code, whole = ctl.json("export", "--metadata", "@", str(file))
    assert (code, whole["error"]["code"]) == (5, "DMR-E514")
    assert not file.exists()
    # What a load would put right is saved as it would be then.
    ctl.put(damaged(fresh(ENTRIES), A1))
    assert ctl.run("export", "--metadata", "@", str(file))[0] == 0


def test_wrong_usage(ctl: Commands, tmp_path: Path) -> None:
    file = str(tmp_path / "backup")
    assert ctl.run("export", "@", file)[0] == 2
    assert ctl.run("import", file, "@")[0] == 2
    assert ctl.run("import", "--metadata", file, "@")[0] == 3
    assert ctl.run("export", "--metadata", "@", str(tmp_path))[0] == 5
    code, _, said = ctl.run("export", "--metadata", "@", str(tmp_path / "no" / "file"))
    assert code == 1
    assert "Name a file in a directory that exists" in said


def test_explain_knows_the_findings(ctl: Commands) -> None:
    code, out, _ = ctl.run("explain", "C201")
    assert code == 0
    assert "dmremapctl repair" in out
