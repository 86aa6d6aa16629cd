# SPDX-License-Identifier: GPL-2.0-only
"""The parts of a set's life that need no device."""

import os
import signal
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from unit.areas import GOLDEN, HOMES, superblock, table
from unit.devices import a_device

from dmremap import dm
from dmremap.dm import module
from dmremap.dm.lines import RemapTable
from dmremap.errors import Busy, DmRemapError, Failure, NotFound, Refused, Usage
from dmremap.host import blockdev, signals
from dmremap.host.blockdev import DeviceFacts, Use
from dmremap.ondisk import (
    BLOCK,
    TAG_BLOCKS,
    BlockDevice,
    Errors,
    Segment,
    SetState,
    Superblock,
    Tag,
    opened,
)
from dmremap.ondisk.layout import pack_super, pack_tag
from dmremap.sets import assemble, create, discover, identity, live, naming, safety

SET = UUID("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0")
OTHER = UUID("11111111-2222-3333-4444-555555555555")
SB = Superblock(
    uuid=SET,
    name="home",
    state=SetState.READY,
    unit=512,
    area_blocks=512,
    segments=(Segment(256, 256, 1900, 8),),
    tagged=False,
    main_sectors=1 << 20,
    data_start=0,
    data_sectors=1 << 20,
    main_serial="S1",
)
DISK = DeviceFacts("/dev/sda", devno=(8, 0), sectors=1 << 20, serial="S1")
SPARE = DeviceFacts("/dev/sdb", devno=(8, 16), sectors=4096)


@pytest.mark.parametrize(
    ("sectors", "unit", "tagged", "expected"),
    [
        (1 << 20, 512, True, (2048, (1 << 20) - 2048)),
        ((1 << 20) + 7, 512, True, (2048, (1 << 20) - 2048)),
        ((1 << 20) + 7, 512, False, (0, (1 << 20) + 7)),
        ((1 << 20) + 8, 4096, False, (0, (1 << 20) + 8)),
        (2048, 512, True, (2048, 0)),
        (100, 512, True, (2048, 0)),
    ],
)
def test_geometry(sectors: int, unit: int, tagged: bool, expected: tuple[int, int]) -> None:
    assert create.geometry(sectors, unit, tagged=tagged) == expected


def test_table_line_uses_numbers_and_the_uuid() -> None:
    line = assemble.table_line(SB, DISK, SPARE, 8)
    assert line.line == f"0 1048576 remap 8:0 8:16 8 4096 2 uuid {SET}"
    line = assemble.table_line(SB, DISK, SPARE, 8, errors="medium", remap_rate=0)
    assert line.line == f"0 1048576 remap 8:0 8:16 8 4096 6 uuid {SET} errors medium remap_rate 0"


@pytest.mark.parametrize("name", ["home", "a[b]c", "mit leer", "x" * 127, "größe"])
def test_good_names(name: str) -> None:
    assert naming.check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "a/b", "a\\x20b", "x" * 128, "new\nline", "..", "control", " " * 100, "a\udcff"]
)
def test_bad_names(name: str) -> None:
    with pytest.raises(Usage):
        naming.check_name(name)


def test_adopted_main_is_known_by_id_before_serial() -> None:
    assert identity.matches_main(SB, DISK)
    assert not identity.matches_main(SB, replace(DISK, sectors=5))
    assert not identity.matches_main(SB, replace(DISK, offset=2048))
    assert not identity.matches_main(SB, replace(DISK, serial="S2"))
    assert not identity.matches_main(replace(SB, main_serial=""), replace(DISK, serial=""))
    known = replace(SB, main_id_type=3, main_id=b"12345678")
    assert identity.matches_main(known, replace(DISK, id_type=3, id=b"12345678", serial="other"))
    assert not identity.matches_main(known, replace(DISK, id_type=3, id=b"87654321"))


def test_a_main_that_is_named_must_agree_with_what_is_recorded() -> None:
    assert not identity.contradicts_main(SB, DISK)
    assert identity.contradicts_main(SB, replace(DISK, sectors=5))
    assert identity.contradicts_main(SB, replace(DISK, serial="S2"))
    assert not identity.contradicts_main(SB, replace(DISK, serial=""))
    assert not identity.contradicts_main(replace(SB, main_serial=""), DISK)
    # A set of plain dmsetup records no offset: its 0 says nothing unless an id was recorded.
    moved = replace(DISK, offset=2048)
    assert not identity.contradicts_main(SB, moved)
    assert identity.contradicts_main(replace(SB, main_offset=34), moved)
    known = replace(SB, main_id_type=3, main_id=b"12345678")
    same = replace(DISK, id_type=3, id=b"12345678", serial="other")
    assert not identity.contradicts_main(known, same)
    assert identity.contradicts_main(known, replace(same, id=b"87654321"))
    assert identity.contradicts_main(known, replace(same, offset=2048))


def test_a_long_serial_is_compared_as_far_as_it_is_recorded() -> None:
    long = replace(DISK, serial="S" * 200)
    assert identity.matches_main(replace(SB, main_serial="S" * 127), long)


def test_a_set_on_another_area_of_the_spare_does_not_hold_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blockdev, "exclusive_errno", lambda _path: 16)
    spare = replace(SPARE, name="sdb", holders=(Use("sdb", "dm-3 (b)"),))
    one = discover.Found(SB, spare, 4096)  # its area has 4096 sectors

    def other(
        start: int, size: int, main: str = "8:32", name: str = "b", targets: int = 1
    ) -> live.Running:
        device = a_device(name, minor=3, target_count=targets)
        line = RemapTable(
            start=0, length=8, main=main, spare="8:16", spare_start=start, spare_len=size
        )
        return live.Running(device, None, (line,), ())

    for apart in (other(0, 4096), other(8192, 4096)):
        assert (
            assemble._beside(one, [apart]).holders,
            assemble._beside(one, [apart]).exclusive,
        ) == (
            (),
            None,
        )
    for held in (
        other(0, 4104),
        other(8184, 8),
        other(0, 99999),
        other(0, 8, main="8:16"),
        other(0, 8, name="c"),
        other(0, 8, targets=2),
    ):
        assert assemble._beside(one, [held]).holders
        assert assemble._beside(one, [held]).exclusive == 16
    assert assemble._beside(discover.Found(SB, SPARE, 0), []).exclusive == 16


@pytest.fixture
def two_disks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Path]:
    """Return the images that are all the devices there are."""
    out = {name: tmp_path / name for name in ("main", "spare")}
    for path in out.values():
        with path.open("wb") as file:
            file.truncate(340 * BLOCK)

    def facts(path: str, _directory: Path, **_known: object) -> DeviceFacts:
        return DeviceFacts(path, devno=(8, len(path)), sectors=340 * 8)

    monkeypatch.setattr(dm, "exists", lambda *_args, **_words: None)
    monkeypatch.setattr(dm, "list_devices", list)
    monkeypatch.setattr(blockdev, "all_devices", lambda: list(out.values()))
    monkeypatch.setattr(blockdev, "node", str)
    monkeypatch.setattr(blockdev, "facts_of", facts)
    return out


def _put(path: Path, number: int, block: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(number * BLOCK)
        file.write(block)


def test_a_tag_of_version_1_is_refused_with_what_to_do(two_disks: dict[str, Path]) -> None:
    sb = superblock(tagged=True, data_start=2048, data_sectors=8)
    for home in (0, 255):
        _put(two_disks["spare"], home, pack_super(sb, home))
    _put(two_disks["main"], 1, (GOLDEN / "tag-1.bin").read_bytes())
    (one,) = discover.scan()
    assert [facts.path for facts in one.mains] == [str(two_disks["main"])]
    with pytest.raises(Refused, match="main's tag is of version 1: save") as caught:
        assemble.assemble(one)
    assert caught.value.code == "DMR-E514"


@pytest.fixture
def startable(two_disks: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put a set on both disks; return where the table lines go of what is started."""
    lines: list[str] = []
    sb = superblock(
        tagged=True,
        main_sectors=340 * 8,
        data_start=2048,
        data_sectors=8,
        errors=Errors.CONFIRM,
    )
    for home in (0, 255):
        _put(two_disks["spare"], home, pack_super(sb, home))
    for index, homes in enumerate(HOMES):
        for copy in (0, 1):
            _put(two_disks["spare"], homes[copy], table(index, copy))
    for home in TAG_BLOCKS:
        _put(two_disks["main"], home, pack_tag(Tag.of(sb, 0), home))

    def start(_name: str, _uuid: UUID, line: RemapTable, *, readonly: bool = False) -> None:
        lines.append(f"{'ro' if readonly else 'rw'} {line.line}")

    numbers = property(lambda device: (8, len(device.path)))
    monkeypatch.setattr(BlockDevice, "devno", numbers)
    monkeypatch.setattr(blockdev, "exclusive_errno", lambda _path: None)
    monkeypatch.setattr(safety, "check_usable", lambda *_args, **_options: ())
    monkeypatch.setattr(dm, "exists", lambda *_args, **_options: None)
    monkeypatch.setattr(dm, "take_warnings", tuple)
    monkeypatch.setattr(module, "ensure", lambda **_options: None)
    monkeypatch.setattr(assemble, "start", start)
    return lines


def _chosen() -> tuple[object, object]:
    (one,) = discover.scan()
    return one.superblock.errors, one.superblock.remap_rate


def test_what_is_chosen_at_a_start_is_recorded_before(startable: list[str]) -> None:
    assemble.assemble(discover.scan()[0])
    (plain,) = startable
    assert "errors" not in plain
    started, line = assemble.assemble(
        discover.scan()[0], errors="medium", remap_rate=9, dry_run=True
    )
    assert started.recorded == ("errors", "remap_rate")
    assert (_chosen(), len(startable)) == ((Errors.CONFIRM, None), 1)
    started, line = assemble.assemble(discover.scan()[0], errors="medium", remap_rate=9)
    assert started.recorded == ("errors", "remap_rate")
    assert _chosen() == (Errors.MEDIUM, 9)
    # The line has no word of it: a later change would not count beside one.
    assert f"rw {line.line}" == startable[-1] == plain
    started, _ = assemble.assemble(discover.scan()[0], errors="medium", remap_rate=8)
    assert (started.recorded, _chosen()) == (("remap_rate",), (Errors.MEDIUM, 8))
    started, _ = assemble.assemble(discover.scan()[0], remap_rate=8)
    assert (started.recorded, _chosen()) == ((), (Errors.MEDIUM, 8))


def test_a_read_only_start_writes_nothing(startable: list[str], two_disks: dict[str, Path]) -> None:
    before = [path.read_bytes() for path in two_disks.values()]
    started, _ = assemble.assemble(discover.scan()[0], errors="medium", remap_rate=0, readonly=True)
    assert started.recorded == ()
    assert startable[-1].endswith(" errors medium remap_rate 0")
    assert startable[-1].startswith("ro ")
    assert [path.read_bytes() for path in two_disks.values()] == before


def test_what_is_chosen_needs_the_spare_as_it_was(
    startable: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = discover.scan()
    monkeypatch.setattr(BlockDevice, "devno", (8, 99))
    with pytest.raises(Busy, match="has changed"):
        assemble.assemble(one, remap_rate=9)
    assert startable == []


def test_another_set_on_the_spare_does_not_matter(
    startable: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Device-mapper's claim is the only one that there can be, and is not ours."""
    (one,) = discover.scan()
    claims: list[bool] = []

    def opening(path: str, *, write: bool, exclusive: bool) -> AbstractContextManager[BlockDevice]:
        claims.append(exclusive)
        return opened(path, write=write)

    monkeypatch.setattr(assemble, "opened", opening)
    assemble.assemble(one, remap_rate=1)
    assemble.assemble(
        replace(one, spare=replace(one.spare, holders=(Use("b", "dm-3 (b)"),))), remap_rate=2
    )
    assert (claims, len(startable)) == ([True, False], 2)


def test_a_set_that_runs_keeps_what_was_chosen(
    startable: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = discover.scan()
    monkeypatch.setattr(dm, "exists", lambda *_args, **_options: a_device("attic"))
    monkeypatch.setattr(live, "look_at", lambda _device: None)
    monkeypatch.setattr(live, "tables_of", lambda _name: ())
    started, _ = assemble.assemble(one, errors="confirm")
    assert started.already
    with pytest.raises(Busy, match="runs, so its errors and remap_rate cannot be") as caught:
        assemble.assemble(one, errors="medium", remap_rate=0)
    assert caught.value.code == "DMR-E411"
    assert "dmremapctl remove" in str(caught.value.hint)
    assert (_chosen(), startable) == ((Errors.CONFIRM, None), [])


def test_a_set_of_version_1_is_passed_over_with_what_to_do(two_disks: dict[str, Path]) -> None:
    _put(two_disks["spare"], 0, (GOLDEN / "super-1.bin").read_bytes())
    warnings: list[str] = []
    assert discover.scan(warnings=warnings) == []
    assert len(warnings) == 1
    assert warnings[0].endswith(
        "metadata is of version 1: save the data with the dm-remap that made it"
    )


@pytest.mark.parametrize(
    ("change", "why", "code"),
    [
        ({"incompat": 1}, "gone on elsewhere", "DMR-E530"),
        ({"state": SetState.FORMATTING}, "format was not completed", "DMR-E515"),
        ({"area_blocks": 341}, "to the end of the device", "DMR-E511"),
        ({"seq": 2**62 + 1}, "which no set reaches", "DMR-E514"),
        ({"ro_compat": 1}, "needs a newer dm-remap", "DMR-E514"),
    ],
)
def test_what_no_load_accepts_is_found_and_not_started(
    two_disks: dict[str, Path], change: dict[str, object], why: str, code: str
) -> None:
    for home in (0, 255):
        _put(two_disks["spare"], home, pack_super(superblock(**change), home))
    (one,) = discover.scan()
    assert one.name == "attic"
    with pytest.raises(DmRemapError, match=why) as caught:
        assemble.assemble(one)
    assert caught.value.code == code
    if change == {"ro_compat": 1}:
        # As far as it goes without a main, for reading.
        with pytest.raises(DmRemapError) as caught:
            assemble.assemble(one, readonly=True)
        assert caught.value.code == "DMR-E516"


def test_what_another_set_has_left_keeps_nothing_from_being_started(
    two_disks: dict[str, Path],
) -> None:
    for home in (0, 255):
        _put(two_disks["spare"], home, pack_super(superblock(), home))
    _put(two_disks["spare"], 130, pack_super(superblock(uuid=OTHER, seq=9), 0, 130))
    (one,) = discover.scan()
    assert (one.superblock.uuid, one.problems) == (SET, ())


def running_set(name: str = "home", uuid: UUID | None = SET) -> live.Running:
    """Return a device that runs a set from sda and sdb."""
    text = str(uuid) if uuid else None
    line = RemapTable(
        start=0, length=8, main="8:0", spare="8:16", spare_start=0, spare_len=4096, uuid=text
    )
    return live.Running(a_device(name), text, (line,), ())


def test_a_set_that_runs_is_known_by_what_it_runs_from() -> None:
    one = discover.Found(SB, SPARE, 0)
    runs = running_set("any name")
    assert assemble._runs_as(one, None, [running_set(uuid=OTHER), runs]) is runs
    assert assemble._runs_as(one, None, [running_set(uuid=None), running_set(uuid=OTHER)]) is None
    # A volume over the spare is the same disk.
    volume = replace(SPARE, devno=(253, 1), components=frozenset({(253, 1), (8, 16)}))
    assert assemble._runs_as(replace(one, spare=volume), None, [runs]) is runs
    # Who was killed has left a table that never ran.
    idle = replace(runs, device=replace(runs.device, live_table=False))
    assert assemble._runs_as(one, None, [idle]) is None


def test_a_set_that_runs_from_other_devices_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    clone = replace(SPARE, path="/dev/loop1", devno=(7, 1), components=frozenset({(7, 1)}))
    monkeypatch.setattr(blockdev, "table_path", {"8:0": "/dev/sda", "8:16": "/dev/sdb"}.get)
    with pytest.raises(Busy, match="'home' runs as 'at home', whose spare is /dev/sdb") as raised:
        assemble._runs_as(discover.Found(SB, clone, 0), None, [running_set("at home")])
    assert raised.value.code == "DMR-E410"
    assert "dmremapctl remove 'at home'" in (raised.value.hint or "")

    def facts(path: str, *, look_inside: bool) -> DeviceFacts:
        assert not look_inside
        return {"/dev/sda": DISK, "/dev/loop0": replace(clone, path=path)}.get(
            path, DeviceFacts(path)
        )

    monkeypatch.setattr(blockdev, "facts", facts)
    one, runs = discover.Found(SB, SPARE, 0), running_set()
    assert assemble._runs_as(one, "/dev/sda", [runs]) is runs
    for path in ("/dev/loop0", "/dev/nothing"):
        with pytest.raises(Busy, match=f"whose main is /dev/sda and not {path}"):
            assemble._runs_as(one, path, [runs])


def test_select() -> None:
    one = discover.Found(SB, SPARE, 0)
    two = discover.Found(replace(SB, uuid=OTHER), SPARE, 0)
    assert discover.select([one], ["home"]) == [one]
    assert discover.select([one, two], [str(OTHER), str(OTHER)]) == [two]
    with pytest.raises(Refused, match="several sets"):
        discover.select([one, two], ["home"])
    with pytest.raises(NotFound):
        discover.select([one], ["away"])


def test_undo_goes_on_after_a_failure_and_says_what_is_left() -> None:
    done: list[str] = []
    undo = create._Undo()

    def fails() -> None:
        raise Failure("DMR-E103", "the disk is gone")

    def work() -> None:
        with undo.on_failure():
            undo.add("do one", lambda: done.append("one"))
            undo.add("do two", fails)
            undo.add("do three", lambda: done.append("three"))
            raise Failure("DMR-E100", "first")

    with pytest.raises(Failure, match="first") as caught:
        work()
    assert done == ["three", "one"]
    assert caught.value.__notes__ == ["could not do two: DMR-E103: the disk is gone"]


@pytest.mark.usefixtures("interruptible")
def test_a_second_signal_waits_for_an_undo() -> None:
    done: list[str] = []
    undo = create._Undo()

    def impatient() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        while not signals.ending():  # whichever thread takes it
            pass
        done.append("two")

    def work() -> None:
        with undo.on_failure():
            undo.add("do one", lambda: done.append("one"))
            undo.add("do two", impatient)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["two", "one"]
    assert not signals.ending()


def test_a_set_that_goes_while_it_is_looked_at_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "class" / "block").mkdir(parents=True)
    for number, files in enumerate(({"name": "a", "uuid": f"REMAP-{SET}"}, {"uuid": "REMAP-x"})):
        device = tmp_path / f"dm-{number}"
        (device / "dm").mkdir(parents=True)
        (device / "size").write_text("8\n")
        for name, text in files.items():
            (device / "dm" / name).write_text(text + "\n")
        (tmp_path / "class" / "block" / device.name).symlink_to(device)
    assert live.names_in_sysfs(tmp_path) == [("a", str(SET), "dm-0")]
