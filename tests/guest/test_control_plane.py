# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl from create to assemble, with dmsetup as the oracle. In a guest, as root.

Verbs are called in this process, for Python takes seconds to start in a guest.
"""

import contextlib
import os
import shlex
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from guest import answers, dmioctl
from guest.lib import (
    MIB,
    backing_file,
    dm_device,
    dm_names,
    dmsetup,
    fault_device,
    loop_device,
    pattern,
    read,
    run,
    sectors,
    udev_cookies,
    wait_for,
    write,
)
from guest.remapset import contents, read_superblock

from dmremap import dm
from dmremap.cli import main
from dmremap.errors import Busy, Failure, Refused
from dmremap.ondisk import TAG_BLOCKS, opened
from dmremap.ondisk.layout import pack_super
from dmremap.sets import assemble, create, live, remove, seen

pytestmark = [pytest.mark.guest, pytest.mark.module]


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return answers.answer(self.out)

    @property
    def data(self) -> dict[str, Any]:
        assert self.code == 0, self
        data = self.json["data"]
        assert isinstance(data, dict)
        return data

    @property
    def error(self) -> str:
        error = self.json["error"]
        assert self.code == error["exit"]
        code = error["code"]
        assert isinstance(code, str)
        return code


Ctl = Callable[..., Answer]


@pytest.fixture
def ctl(capfd: pytest.CaptureFixture[str]) -> Ctl:
    def call(*args: object, form: str = "json") -> Answer:
        capfd.readouterr()
        words = [str(arg) for arg in args]
        code = main([*words, "-o", form] if form else words)
        out = capfd.readouterr()
        return Answer(code, out.out, out.err)

    return call


@pytest.fixture(autouse=True)
def no_leftovers(_loaded: None) -> Iterator[None]:
    yield
    for one in live.find():
        remove.remove(one)
    assert dm_names() == []
    assert udev_cookies() == 0


@pytest.fixture
def disks() -> Iterator[tuple[Path, Path]]:
    with ExitStack() as stack:
        yield (
            stack.enter_context(loop_device(10 * MIB)),
            stack.enter_context(loop_device(8 * MIB)),
        )


def partition_table(start: int, count: int) -> bytes:
    """Return a sector with a DOS partition table of one partition."""
    entry = struct.pack("<B3sB3sII", 0, bytes(3), 0x83, bytes(3), start, count)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def blank(path: Path) -> bool:
    return read(path, 0, sectors(path)) == bytes(sectors(path) * 512)


def test_from_create_to_assemble(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    main_disk, spare = disks
    made = ctl("create", main_disk, spare, "--name", "one", "--yes").data
    device = Path(made["device"])
    assert device.is_block_device()
    assert dmsetup("info", "-c", "--noheadings", "-o", "name,uuid") == f"one:REMAP-{made['uuid']}"
    kind = run("lsblk", "--nodeps", "--noheadings", "--output", "TYPE", device).strip()
    assert kind == "remap"
    table = dmsetup("table", "one").split()
    assert table[:3] == ["0", str(made["data_sectors"]), "remap"]
    assert sectors(device) == made["data_sectors"] == sectors(main_disk) - 2048

    write(device, 100, pattern(100, 8))
    assert read(main_disk, 2148, 8) == pattern(100, 8)

    shown = ctl("status", "one").data["sets"][0]
    assert (shown["state"], shown["health"], shown["uuid"]) == ("rw", "ok", made["uuid"])
    status = shown["targets"][0]["status"]
    assert status["slots"] == status["free"] == made["slots"]
    assert status["identity"] == "tag"
    assert dmsetup("status", "one").split()[5] == f"{status['mapped']}/{status['slots']}"
    words = ctl("status", "one", form="table")
    assert f"0/{made['slots']} slots" in words.out
    assert str(spare) in words.out

    listed = ctl("list").data["sets"]
    assert [(row["name"], row["state"], row["kind"]) for row in listed] == [
        ("one", "running", "tagged")
    ]
    gone = ctl("remove", "one").data["sets"][0]
    assert gone["result"] == "stopped"
    assert not device.exists()
    listed = ctl("list").data["sets"][0]
    assert (listed["name"], listed["state"]) == ("one", "stopped")
    assert (listed["main"], listed["spare"]) == (str(main_disk), str(spare))

    back = ctl("assemble", made["uuid"]).data["sets"][0]
    assert back["result"] == "started"
    assert device.is_block_device()
    assert read(device, 100, 8) == pattern(100, 8)
    assert dmsetup("table", "one").split() == table
    assert ctl("assemble", "one").data["sets"][0]["result"] == "running"
    assert ctl("assemble", "--all").data["sets"][0]["result"] == "running"


def test_what_was_chosen_is_recorded_if_it_was(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    main_disk, spare = disks
    for words, chosen in (((), None), (("--errors", "medium"), "medium")):
        made = ctl("create", *disks, "--yes", "--force", "--spare-start", "1M", *words).data
        ctl("remove", made["name"])
        found = ctl("examine", spare, "--start", "2048").data["set"]
        assert (found["errors"], found["spare_serial"], found["epoch"]["number"]) == (chosen, 1, 3)
        tag = ctl("examine", main_disk).data["tag"]
        assert tag["epoch"] == found["epoch"]
        assert (tag["spare_start_sectors"], tag["spare_sectors"]) == (2048, found["area_sectors"])


def test_a_set_that_has_gone_on_is_shown_as_that(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    made = ctl("create", *disks, "--yes", "--name", "one").data
    dmsetup("suspend", "one")
    assert dmsetup("message", "one", "0", "retire").startswith("retired epoch ")
    assert ctl("remove", "one", "--yes").code == 0
    before = contents(*disks)
    (listed,) = ctl("list").data["sets"]
    assert (listed["name"], listed["state"]) == ("one", "superseded")
    assert listed["problems"] == ["the set has gone on elsewhere"]
    checked = ctl("check", disks[1])
    assert (checked.code, checked.json["data"]["verdict"]) == (2, "damaged")
    assert [one["code"] for one in checked.json["data"]["findings"]] == ["DMR-C314"]
    assert ctl("examine", disks[1]).data["set"]["superseded"]
    for words in (("one",), ("one", "--readonly"), (made["uuid"], "--errors", "medium")):
        refused = ctl("assemble", *words)
        assert refused.error == "DMR-E530"
        assert "dmremapctl list" in refused.json["error"]["hint"]
    assert contents(*disks) == before


def test_what_is_chosen_later_counts_from_the_next_start_on(
    ctl: Ctl, disks: tuple[Path, Path]
) -> None:
    made = ctl("create", *disks, "--yes", "--name", "one", "--remap-rate", "5").data

    def counts() -> tuple[str, int]:
        target = ctl("status", "one").data["sets"][0]["targets"][0]
        assert (target["table"]["errors"], target["table"]["remap_rate"]) == (None, None)
        return target["status"]["errors"], target["status"]["remap_rate"]

    assert counts() == ("confirm", 5)
    refused = ctl("assemble", "one", "--remap-rate", "6")
    assert refused.error == "DMR-E411"
    ctl("remove", "one")
    change = ("--errors", "medium", "--remap-rate", "5")
    would = ctl("assemble", "one", *change, "--dry-run").data["sets"][0]
    assert would["recorded"] == ["errors"]
    done = ctl("assemble", "one", *change).data["sets"][0]
    assert (done["result"], done["recorded"]) == ("started", ["errors"])
    assert counts() == ("medium", 5)
    ctl("remove", "one")
    assert ctl("assemble", "one").data["sets"][0]["recorded"] == []
    assert counts() == ("medium", 5)
    ctl("remove", "one")
    # One that writes nothing keeps nothing.
    before = contents(*disks)
    ctl("assemble", "one", "--readonly", "--errors", "confirm", "--remap-rate", "0")
    target = ctl("status", "one").data["sets"][0]["targets"][0]
    assert (target["status"]["errors"], target["status"]["remap_rate"]) == ("confirm", 0)
    ctl("remove", "one")
    assert contents(*disks) == before
    assert ctl("check", disks[1]).data["verdict"] == "clean"
    assert ctl("examine", disks[1]).data["set"]["errors"] == "medium"
    assert made["uuid"]


def test_dry_run_writes_nothing(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    before = contents(*disks)
    would = ctl("create", *disks, "--name", "one", "--dry-run").data
    assert would["dry_run"]
    assert " remap " in would["table"]
    assert would["steps"]
    assert contents(*disks) == before
    assert dmsetup("ls") == "No devices found"
    made = ctl("create", *disks, "--name", "one", "--yes").data
    assert ctl("remove", "one", "--dry-run").data["sets"][0]["result"] == "would stop"
    assert dm.exists("one")
    ctl("remove", "one")
    before = contents(*disks)
    would = ctl("assemble", made["uuid"], "--dry-run").data["sets"][0]
    assert would["result"] == "would start"
    assert contents(*disks) == before
    assert not dm.exists("one")


def test_no_terminal_and_no_yes(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    assert ctl("create", *disks).error == "DMR-E202"
    assert all(blank(path) for path in disks)


def test_missing_and_not_a_device(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    assert ctl("create", disks[0], "/dev/none", "--yes").error == "DMR-E302"
    assert ctl("create", disks[0], "/etc/passwd", "--yes").error == "DMR-E501"


@pytest.mark.parametrize("which", [0, 1])
def test_mounted(ctl: Ctl, disks: tuple[Path, Path], which: int, tmp_path: Path) -> None:
    run("mkfs.ext4", "-q", disks[which])
    run("mount", disks[which], tmp_path)
    try:
        assert ctl("create", *disks, "--yes", "--force").error == "DMR-E401"
    finally:
        run("umount", tmp_path)


@pytest.mark.parametrize("which", [0, 1])
def test_swap(ctl: Ctl, disks: tuple[Path, Path], which: int) -> None:
    run("mkswap", disks[which])
    run("swapon", disks[which])
    try:
        assert ctl("create", *disks, "--yes", "--force").error == "DMR-E402"
    finally:
        run("swapoff", disks[which])


@pytest.mark.parametrize("which", [0, 1])
def test_held(ctl: Ctl, disks: tuple[Path, Path], which: int) -> None:
    with dm_device("holder", f"0 8 linear {disks[which]} 0"):
        answer = ctl("create", *disks, "--yes", "--force")
        assert answer.error == "DMR-E403"
        assert "holder" in answer.json["error"]["message"]


def test_opened_exclusively(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    fd = os.open(disks[1], os.O_RDONLY | os.O_EXCL)
    try:
        assert ctl("create", *disks, "--yes", "--force").error == "DMR-E404"
    finally:
        os.close(fd)


@pytest.mark.parametrize("which", [0, 1])
def test_signature_and_force(ctl: Ctl, disks: tuple[Path, Path], which: int) -> None:
    run("mkfs.ext4", "-q", "-L", "precious", disks[which])
    before = contents(disks[which])
    for options in ((), ("--wipe",)):
        answer = ctl("create", *disks, "--yes", *options)
        assert answer.error == "DMR-E503"
        assert "ext4 (precious)" in answer.json["error"]["message"]
    assert contents(disks[which]) == before
    made = ctl("create", *disks, "--yes", "--force", "--name", "one").data
    assert made["destroys"]
    assert run("wipefs", "--noheadings", disks[which]) == ""


def with_a_bad_sector(path: Path, bad: int) -> str:
    rest = sectors(path) - bad - 8
    return f"0 {bad} linear {path} 0\n{bad} 8 error\n{bad + 8} {rest} linear {path} {bad + 8}"


@pytest.mark.parametrize("which", [0, 1])
def test_a_bad_sector_hides_no_signature(ctl: Ctl, disks: tuple[Path, Path], which: int) -> None:
    run("mkfs.ext4", "-q", disks[which])
    # 64 KiB before its end is where libblkid reads first, and where it gives up.
    with dm_device("bad", with_a_bad_sector(disks[which], sectors(disks[which]) - 128)) as bad:
        assert run("wipefs", "--noheadings", bad) == ""
        pair = (bad, disks[1]) if which == 0 else (disks[0], bad)
        before = contents(disks[which])
        for options in ((), ("--wipe",)):
            answer = ctl("create", *pair, "--yes", *options)
            assert answer.error == "DMR-E518"
            assert "cannot be searched" in answer.json["error"]["message"]
        assert contents(disks[which]) == before
        if which == 0:
            assert ctl("adopt", *pair, "--yes", "--name", "one").data["name"] == "one"
            assert contents(disks[which]) == before
            ctl("remove", "one")
            made = ctl("create", *pair, "--yes", "--force", "--name", "one").data
            assert len(made["destroys"]) == 2
            ctl("remove", "one")


def test_an_unreadable_superblock_is_not_the_absence_of_a_set(
    ctl: Ctl, disks: tuple[Path, Path]
) -> None:
    with dm_device("bad", with_a_bad_sector(disks[1], 255 * 8)) as bad:
        assert ctl("create", disks[0], bad, "--yes", "--wipe").error == "DMR-E518"
        assert blank(disks[0])


def test_nothing_is_written_if_one_device_is_in_use_by_now(disks: tuple[Path, Path]) -> None:
    for path in disks:
        run("mkfs.ext4", "-q", path)
    before = contents(*disks)
    made = create.plan(create.Request(str(disks[0]), str(disks[1]), name="one", force=True))
    for path in disks:
        fd = os.open(path, os.O_RDONLY | os.O_EXCL)
        try:
            with pytest.raises(Busy):
                create.carry_out(made)
        finally:
            os.close(fd)
        assert contents(*disks) == before


def test_what_came_after_the_plan_is_not_overwritten(disks: tuple[Path, Path]) -> None:
    def mkfs(path: Path) -> None:
        run("mkfs.ext4", "-q", path)

    def data(path: Path) -> None:
        write(path, 1000, b"x" * 512)

    def table(path: Path) -> None:
        write(path, 256 * 8, b"x" * 512)

    for path, change, code in (
        (disks[0], mkfs, "DMR-E503"),
        (disks[1], mkfs, "DMR-E503"),
        (disks[0], data, "DMR-E505"),
        (disks[1], data, "DMR-E505"),
        (disks[1], table, "DMR-E409"),
    ):
        made = create.plan(create.Request(str(disks[0]), str(disks[1]), name="one"))
        change(path)
        before = contents(*disks)
        with pytest.raises((Refused, Busy)) as refused:
            create.carry_out(made)
        assert refused.value.code == code
        assert contents(*disks) == before
        for start in range(0, sectors(path), 2048):
            write(path, start, bytes(512 * 2048))


def test_another_device_under_the_same_name(disks: tuple[Path, Path]) -> None:
    made = create.plan(create.Request(str(disks[0]), str(disks[1]), name="one"))
    grown = replace(made, spare=replace(made.spare, sectors=made.spare.sectors + 8))
    moved = replace(made, main=replace(made.main, devno=(7, 200)))
    bound_anew = replace(made, spare=replace(made.spare, diskseq=made.spare.diskseq + 1))
    for other in (grown, moved, bound_anew):
        with pytest.raises(Busy, match="has changed"):
            create.carry_out(other)
    assert all(blank(path) for path in disks)


def test_two_loop_devices_over_one_file(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    twin = run("losetup", "--find", "--show", backing_file(disks[0])).strip()
    try:
        assert ctl("create", disks[0], twin, "--yes", "--force").error == "DMR-E506"
    finally:
        run("losetup", "--detach", twin)


def test_partition_table(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    write(disks[1], 0, partition_table(2048, 8192))
    answer = ctl("create", *disks, "--yes")
    assert answer.error == "DMR-E503"
    assert " dos," in answer.json["error"]["message"]


def test_not_blank_and_wipe(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    write(disks[1], 9000, b"x" * 512)
    answer = ctl("create", *disks, "--yes")
    assert answer.error == "DMR-E505"
    assert str(9000 * 512) in answer.json["error"]["message"]
    write(disks[1], 9000, bytes(512))
    write(disks[0], 5, b"x" * 512)
    assert ctl("create", *disks, "--yes").error == "DMR-E505"
    made = ctl("create", *disks, "--yes", "--wipe", "--name", "one").data
    assert made["name"] == "one"


def test_same_device_and_overlap(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    assert ctl("create", disks[0], disks[0], "--yes").error == "DMR-E506"
    write(disks[0], 0, partition_table(2048, 8192))
    run("partx", "--add", disks[0])
    part = Path(f"{disks[0]}p1")
    if not part.exists():  # nobody makes nodes where no udevd runs
        number = Path(f"/sys/class/block/{part.name}/dev").read_text().strip().split(":")
        run("mknod", part, "b", *number)
    try:
        assert ctl("create", disks[0], part, "--yes", "--force").error == "DMR-E507"
        assert ctl("create", part, disks[0], "--yes", "--force").error == "DMR-E507"
    finally:
        run("partx", "--delete", disks[0])
        part.unlink(missing_ok=True)


def test_area(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    for start, size, code in (
        ("4", "4M", "DMR-E509"),
        ("0", "1M", "DMR-E510"),
        ("1M", "8M", "DMR-E511"),
        ("16384", "0", "DMR-E510"),
    ):
        answer = ctl("create", *disks, "--yes", "--spare-start", start, "--spare-size", size)
        assert answer.error == code


def test_bigger_blocks_on_the_spare(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    with loop_device(8 * MIB, sector_size=4096) as big:
        assert ctl("create", disks[0], big, "--yes").error == "DMR-E508"


def test_small_main(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    with loop_device(MIB) as tiny:
        assert ctl("create", tiny, disks[1], "--yes").error == "DMR-E512"


def test_area_somewhere_on_the_spare(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    area = ("--spare-start", "1M", "--spare-size", "4M")
    made = ctl("create", *disks, "--yes", "--name", "one", *area)
    assert made.data["spare_start_sectors"] == 2048
    assert "--spare-start 2048" in made.json["warnings"][0]
    gone = ctl("remove", "one").data["sets"][0]
    assert blank_range(disks[1], 0, 2048)
    assert ctl("assemble", "one").error == "DMR-E303"
    words = ("--spare", disks[1], "--spare-start", "2048")
    assert gone["back"].endswith("--spare-start 2048")
    assert ctl("assemble", *words).data["sets"][0]["result"] == "started"


def vmalloc_used() -> int:
    """Return the bytes that the kernel has allocated in pieces too large for its slabs."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmallocUsed:"))


def bytes_read(path: Path) -> int:
    return int(Path(f"/sys/block/{path.name}/stat").read_text().split()[2]) * 512


def test_a_spare_that_is_far_too_large(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    """Without options a set asks for 64 MB at most, and a start reads what holds data."""
    with loop_device(20 << 30) as spare:
        used = vmalloc_used()
        # Forced: to read all of it, which unit tests count, takes half of a minute here.
        made = ctl("create", disks[0], spare, "--name", "large", "--yes", "--force").data
        (running,) = live.find()
        memory = running.status[0].memory
        assert memory
        assert memory <= made["memory_bytes"] <= 64_000_000
        assert memory // 2 < vmalloc_used() - used <= 64_000_000
        tables = 2 * sum(part.table_blocks for part in read_superblock(spare).segments) * 4096
        ctl("remove", "large")
        before = bytes_read(spare)
        assert ctl("assemble", "large").data["sets"][0]["result"] == "started"
        assert tables <= bytes_read(spare) - before < tables + 8 * MIB
        ctl("remove", "large")


def test_a_set_somewhere_on_the_spare_is_seen(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    ctl("create", *disks, "--yes", "--name", "one", "--spare-start", "1M", "--spare-size", "4M")
    ctl("remove", "one")
    with loop_device(16 * MIB) as other:
        for options in ((), ("--wipe",)):
            answer = ctl("create", other, disks[1], "--yes", *options)
            assert answer.error == "DMR-E504"
            assert "sector 2048" in answer.json["error"]["message"]
        # Beside it there is room.
        area = ("--spare-start", "5M", "--spare-size", "2M")
        ctl("create", other, disks[1], "--yes", "--name", "two", *area)
        # A set that runs on another area of the spare is no obstacle, and no excuse.
        start = ("--spare", disks[1], "--spare-start", "1M")
        assert ctl("assemble", *start).data["sets"][0]["result"] == "started"
        assert ctl("remove", "two").data["sets"][0]["result"] == "stopped"
        assert ctl("create", other, disks[1], "--yes", "--force").error == "DMR-E403"


def blank_range(path: Path, start: int, count: int) -> bool:
    return not any(read(path, start, count))


def test_metadata_of_another_set(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    ctl("create", *disks, "--yes", "--name", "old")
    ctl("remove", "old")
    with loop_device(16 * MIB) as third:
        for pair in ((disks[0], third), (third, disks[1]), (disks[1], third), (third, disks[0])):
            for options in ((), ("--wipe",)):
                answer = ctl("create", *pair, "--yes", *options)
                assert answer.error == "DMR-E504", pair
                assert "'old'" in answer.json["error"]["message"]
        made = ctl("create", disks[0], third, "--yes", "--force", "--name", "new").data
        ctl("remove", "new")
        # The old set has lost its main and must not take another's.
        assert ctl("assemble", "old").error == "DMR-E305"
        assert ctl("assemble", "old", "--main", disks[0]).error == "DMR-E513"
        assert ctl("assemble", "new").data["sets"][0]["uuid"] == made["uuid"]


def test_failure_takes_back_what_was_written(
    ctl: Ctl, disks: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_args: object, **_options: object) -> None:
        raise Failure("DMR-E100", "planted")

    monkeypatch.setattr(assemble, "start", fails)
    assert ctl("create", *disks, "--yes").error == "DMR-E100"
    assert all(blank(path) for path in disks)


def test_names(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    name = "a[b] c\u00df"
    made = ctl("create", *disks, "--yes", "--name", name).data
    assert Path(made["device"]).is_block_device()
    assert name in ctl("list", form="table").out
    assert name in ctl("status", form="table").out
    with loop_device(16 * MIB) as one, loop_device(8 * MIB) as two:
        assert ctl("create", one, two, "--yes", "--name", name).error == "DMR-E406"
        assert blank(two)
    ctl("remove", name)
    with loop_device() as other, dm_device("x", f"0 8 linear {other} 0"):
        answer = ctl("assemble", made["uuid"], "--name", "x")
        assert answer.error == "DMR-E406"


def test_a_start_that_was_killed_is_begun_again(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    made = ctl("create", *disks, "--yes", "--name", "one").data
    ctl("remove", "one")
    dmioctl.create("one", f"REMAP-{made['uuid']}")
    assert ctl("assemble", "one", "--dry-run").data["sets"][0]["result"] == "would start"
    assert ctl("assemble", "one").data["sets"][0]["result"] == "started"
    assert ctl("status", "one").data["sets"][0]["uuid"] == made["uuid"]
    ctl("remove", "one")


def test_a_loop_device_over_a_disk_is_a_use_of_it(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    loop = run("losetup", "--find", "--show", disks[1]).strip()
    try:
        assert ctl("create", *disks, "--yes", "--force").error == "DMR-E403"
    finally:
        run("losetup", "--detach", loop)


def test_a_name_that_is_taken_gets_a_number(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    made = ctl("create", *disks, "--yes", "--name", "one").data
    ctl("remove", "one")
    with loop_device() as other, dm_device("one", f"0 8 linear {other} 0"):
        answer = ctl("assemble", made["uuid"])
        assert answer.data["sets"][0]["name"] == "one_1"
        assert "taken" in answer.json["warnings"][0]
        ctl("remove", "one_1")


def test_adopt_changes_nothing_on_main(ctl: Ctl, disks: tuple[Path, Path], tmp_path: Path) -> None:
    run("mkfs.ext4", "-q", disks[0])
    before = contents(disks[0])
    answer = ctl("adopt", *disks, "--yes", "--name", "home")
    made = answer.data
    device = Path(made["device"])
    assert sectors(device) == sectors(disks[0])
    assert contents(disks[0]) == before
    assert "by-uuid" in answer.json["warnings"][0]  # a loop device has no serial
    assert ctl("status", "home").data["sets"][0]["targets"][0]["status"]["identity"] == "size"
    run("mount", device, tmp_path)
    try:
        assert ctl("remove", "home").error == "DMR-E405"
    finally:
        run("umount", tmp_path)
    ctl("remove", "home")
    # Nothing tells this disk from another of its size, so it has to be named.
    assert ctl("assemble", "home").error == "DMR-E516"
    with loop_device(12 * MIB) as other:
        assert ctl("assemble", "home", "--main", other).error == "DMR-E513"
    again = ctl("assemble", "home", "--main", disks[0]).data["sets"][0]
    assert again["result"] == "started"


def test_read_only_assembly_writes_nothing(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    ctl("create", *disks, "--yes", "--name", "one")
    ctl("remove", "one")
    before = contents(*disks)
    ctl("assemble", "one", "--readonly")
    shown = ctl("status", "one").data["sets"][0]
    assert shown["readonly"]
    ctl("remove", "one")
    assert contents(*disks) == before


def test_a_removed_set_refuses_older_copies_of_its_spare(
    ctl: Ctl, disks: tuple[Path, Path], tmp_path: Path
) -> None:
    main_disk, spare = disks
    made = ctl("create", *disks, "--yes", "--name", "one").data
    run("sync", "-f", backing_file(spare))
    older = tmp_path / "older"
    shutil.copyfile(backing_file(spare), older)
    removed = ctl("remove", "one")
    assert removed.json["warnings"] == []
    found = ctl("examine", spare).data["set"]
    assert ctl("examine", main_disk).data["tag"]["epoch"] == found["epoch"]
    assert found["epoch"]["number"] == 3  # made, started, stopped
    newest = read(spare, 0, sectors(spare))
    write(spare, 0, older.read_bytes())
    before = contents(*disks)
    older_copy = "the spare is an older copy of itself"
    refused = ctl("assemble", made["uuid"])
    assert refused.error == "DMR-E531"
    assert older_copy in refused.json["error"]["message"]
    assert older_copy in ctl("list").data["sets"][0]["problems"][0]
    checked = ctl("check", spare)
    assert (checked.code, checked.json["data"]["compared"]["main"]) == (2, str(main_disk))
    (finding,) = checked.json["data"]["findings"]
    assert finding["code"] == ctl("examine", spare).data["load"]["code"] == "DMR-C316"
    assert ctl("repair", spare, "--yes").error == "DMR-E531"
    of_main = ctl("examine", main_disk).data
    assert (of_main["spare"], of_main["compared"]["verdict"]) == (str(spare), "older_spare")
    assert of_main["findings"] == [finding]
    assert contents(*disks) == before
    # What it says can be typed as it stands.
    step = finding["next_step"]
    typed = shlex.split(step[step.index("dmremapctl ") :])[1:]
    assert ctl(*typed).error == "DMR-E202"
    assert contents(*disks) == before
    accepted = ctl(*typed, "--yes").data
    assert (accepted["result"], accepted["epoch"]["number"]) == ("accepted", 4)
    assert [one["block"] for one in accepted["main_writes"]] == [*TAG_BLOCKS]
    assert ctl("check", spare).data["verdict"] == "clean"
    ctl("assemble", made["uuid"])
    assert ctl("check", spare).data["compared"]["verdict"] == "same"
    of_main = ctl("examine", main_disk).data
    assert (of_main["spare"], of_main["compared"]["verdict"]) == (str(spare), "same")
    ctl("remove", "one")
    # From then on the other one is the older.
    write(spare, 0, newest)
    assert ctl("assemble", made["uuid"]).error == "DMR-E531"
    ctl("repair", "--accept-older-spare", spare, "--main", main_disk, "--yes")
    ctl("assemble", made["uuid"])
    assert dm.info("one").open_count == 0


def test_a_host_remembers_the_spare_of_an_adopted_main(
    ctl: Ctl, disks: tuple[Path, Path], tmp_path: Path
) -> None:
    """Main cannot say which spare it was used with last."""
    main_disk, spare = disks
    write(main_disk, 0, pattern(0, sectors(main_disk)))
    content = contents(main_disk)
    made = ctl("adopt", *disks, "--yes", "--name", "home").data
    uuid, start = made["uuid"], ("assemble", made["uuid"], "--main", main_disk)
    run("sync", "-f", backing_file(spare))
    older = tmp_path / "older"
    shutil.copyfile(backing_file(spare), older)

    def is_remembered() -> None:
        """It is what the superblock says."""
        found = ctl("examine", spare).data
        assert found["compared"]["verdict"] == "same"
        assert found["compared"]["seen_epoch"] == found["set"]["epoch"]

    is_remembered()
    assert ctl("remove", "home").json["warnings"] == []
    is_remembered()
    newest = read(spare, 0, sectors(spare))
    write(spare, 0, older.read_bytes())
    seen_last = seen.path_of(UUID(uuid)).read_text()
    refused = ctl(*start)
    assert refused.error == "DMR-E531"
    assert "this host has seen epoch 3, the superblock 2" in refused.json["error"]["message"]
    assert ctl(*start, "--readonly").error == "DMR-E531"
    (finding,) = ctl("check", spare).json["data"]["findings"]
    assert finding["code"] == "DMR-C316"
    assert read(spare, 0, sectors(spare)) == older.read_bytes()
    assert seen.path_of(UUID(uuid)).read_text() == seen_last
    # The one that it was used with is taken as ever, and so is this one if a person says so.
    write(spare, 0, newest)
    ctl(*start)
    is_remembered()
    ctl("remove", "home")
    newest = read(spare, 0, sectors(spare))
    write(spare, 0, older.read_bytes())
    step = finding["next_step"]
    typed = shlex.split(step[step.index("dmremapctl ") :])[1:]
    accepted = ctl(*typed, "--yes")
    assert (accepted.data["result"], accepted.data["main_writes"]) == ("accepted", [])
    assert accepted.json["warnings"] == []
    is_remembered()
    ctl(*start)
    is_remembered()
    ctl("remove", "home")
    write(spare, 0, newest)
    assert ctl(*start).error == "DMR-E531"
    assert contents(main_disk) == content


def test_what_cannot_be_remembered_keeps_no_set_from_starting(
    ctl: Ctl, disks: tuple[Path, Path]
) -> None:
    with seen_nowhere():
        made = ctl("adopt", *disks, "--yes", "--name", "home")
        assert made.json["warnings"][-1].startswith("an older copy of home's spare cannot be told")
        assert ctl("status", "home").data["sets"][0]["targets"][0]["status"]["mode"] == "rw"
        assert "cannot be told" in ctl("remove", "home").json["warnings"][0]
    assert ctl("assemble", "home", "--main", disks[0]).json["warnings"] == []
    ctl("remove", "home")


@contextlib.contextmanager
def seen_nowhere() -> Iterator[None]:
    """Have a file where the directory should be."""
    shutil.rmtree(seen.DIRECTORY, ignore_errors=True)
    seen.DIRECTORY.parent.mkdir(parents=True, exist_ok=True)
    seen.DIRECTORY.write_text("")
    try:
        yield
    finally:
        seen.DIRECTORY.unlink()


def test_what_keeps_an_epoch_from_beginning_is_told(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    """The set goes, and what that leaves open is said."""
    with fault_device(disks[0], name="worn-main") as worn:
        ctl("create", worn.path, disks[1], "--yes", "--name", "one")
        worn.add(0, 2048, "write", "medium")
        (warning,) = ctl("remove", "one").json["warnings"]
        assert "a copy of one's spare made before now cannot be told from the spare" in warning
        assert dm.exists("one") is None


def test_who_has_a_set_open_does_not_wait(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    made = ctl("create", *disks, "--yes", "--name", "one").data
    with Path(made["device"]).open("rb") as device, ThreadPoolExecutor() as pool:
        removal = pool.submit(remove.remove, live.find(["one"])[0])
        while not removal.done():
            assert not dm.info("one").suspended
            os.pread(device.fileno(), 512, 0)
        with pytest.raises(Busy, match="opened by some program"):
            removal.result()


def test_remove_while_open(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    made = ctl("create", *disks, "--yes", "--name", "one").data
    with Path(made["device"]).open("rb"):
        begin = time.monotonic()
        assert ctl("remove", "one").error == "DMR-E405"
        assert time.monotonic() - begin < 60
        assert ctl("remove", "one", "--deferred").data["sets"][0]["result"] == "deferred"
    wait_for(lambda: dm.exists("one") is None, "the deferred removal")
    Path(made["device"]).unlink(missing_ok=True)


def test_a_set_of_plain_dmsetup(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    """The line of the README, without the control plane, is seen by it."""
    run("dmsetup", "create", "plain", "--table", f"0 20480 remap {disks[0]} {disks[1]} 0 16384")
    try:
        shown = ctl("status", "plain").data["sets"][0]
        assert shown["state"] == "rw"
        assert shown["uuid"]
        assert ctl("status", shown["uuid"]).data["sets"][0]["name"] == "plain"
        row = ctl("list").data["sets"][0]
        assert (row["name"], row["kind"]) == ("plain", "adopted")
        found = ctl("assemble", "--spare", disks[1]).data["sets"][0]
        assert (found["name"], found["result"]) == ("plain", "running")
    finally:
        run("dmsetup", "remove", "--retry", "plain")


def test_a_set_that_runs_is_not_started_from_other_names(
    ctl: Ctl, disks: tuple[Path, Path]
) -> None:
    ctl("create", *disks, "--yes", "--name", "one")
    with (
        loop_device(image=backing_file(disks[0])) as main_disk,
        loop_device(image=backing_file(disks[1])) as spare,
    ):
        for words in (["--spare", spare], ["--spare", disks[1], "--main", main_disk]):
            refused = ctl("assemble", *words)
            assert refused.error == "DMR-E410"
            error = refused.json["error"]
            assert "runs as 'one'" in error["message"]
            assert error["hint"].endswith("dmremapctl remove one")
        found = ctl("assemble", "--spare", disks[1], "--main", disks[0]).data["sets"][0]
        assert found["result"] == "running"
    ctl("remove", "one")


def test_superblocks_that_contradict_each_other(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    ctl("create", *disks, "--yes", "--name", "one")
    ctl("remove", "one")
    sb = read_superblock(disks[1])
    with opened(str(disks[1]), write=True) as device:
        device.write_block(0, 255, pack_super(replace(sb, name="two"), 255))
    listed = ctl("list").json
    assert listed["data"]["sets"] == []
    assert any("contradict" in warning for warning in listed["warnings"])
    assert ctl("assemble", "--spare", disks[1]).error == "DMR-E514"
    assert ctl("create", *disks, "--yes", "--wipe").error == "DMR-E504"


def test_a_suspended_device_is_passed_over(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    ctl("create", *disks, "--yes", "--name", "one")
    ctl("remove", "one")
    with loop_device() as other, dm_device("stopped", f"0 4096 linear {other} 0"):
        run("dmsetup", "suspend", "stopped")
        try:
            answer = ctl("assemble", "one")
            assert answer.data["sets"][0]["result"] == "started"
            assert any("stopped" in warning for warning in answer.json["warnings"])
        finally:
            run("dmsetup", "resume", "stopped")


def test_several_sets(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    with loop_device(16 * MIB) as main_disk, loop_device(8 * MIB) as spare:
        ctl("create", *disks, "--yes", "--name", "one")
        ctl("create", main_disk, spare, "--yes", "--name", "two")
        assert [row["name"] for row in ctl("status").data["sets"]] == ["one", "two"]
        lines = ctl("status", form="jsonl").out.splitlines()
        assert [answers.answer(line)["data"]["sets"][0]["name"] for line in lines] == ["one", "two"]
        done = ctl("remove", "--all").data["sets"]
        assert [entry["result"] for entry in done] == ["stopped", "stopped"]
        for block in TAG_BLOCKS:
            write(main_disk, block * 8, bytes(512 * 8))
        partly = ctl("assemble", "--all")
        assert partly.code == 8
        whole = partly.json
        assert whole["error"]["code"] == "DMR-E801"
        assert {row["name"]: row["result"] for row in whole["data"]["sets"]} == {
            "one": "started",
            "two": "failed",
        }
        ctl("remove", "one")


def test_unknown_names(ctl: Ctl) -> None:
    for verb in ("status", "remove", "assemble"):
        assert ctl(verb, "nobody").error == "DMR-E303"


def test_module(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    status = ctl("module", "status").data["module"]
    assert status["loaded"]
    assert status["target"]
    ctl("create", *disks, "--yes", "--name", "one")
    answer = ctl("module", "unload")
    assert answer.error == "DMR-E408"
    assert "one" in answer.json["error"]["message"]
    ctl("remove", "one")
    assert ctl("module", "unload").data["changed"]
    assert not Path("/sys/module/dm_remap").exists()
    assert not ctl("module", "unload").data["changed"]


def test_another_command_is_running(ctl: Ctl, disks: tuple[Path, Path]) -> None:
    from dmremap.host.lock import locked

    with locked():
        answer = ctl("create", *disks, "--yes", "--lock-timeout", "0")
    assert answer.error == "DMR-E407"
    assert str(os.getpid()) in answer.json["error"]["message"]
