# SPDX-License-Identifier: GPL-2.0-only
"""Which main a set is started with, and repair --retag and --tag-is-content, on images."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema
import pytest
from unit.areas import JUNK, OTHER, SET, Disk, fresh, superblock

from dmremap import dm
from dmremap.cli import main
from dmremap.dm import module
from dmremap.errors import DmRemapError
from dmremap.host import blockdev
from dmremap.host.blockdev import DeviceFacts, Signature
from dmremap.ondisk import BLOCK, TAG_BLOCKS, BlockDevice, Epoch, Superblock, Tag, View
from dmremap.ondisk.area import lost_tags, read_tag, something_else
from dmremap.ondisk.layout import SCRATCH_BLOCKS, pack_super, pack_tag, parse_super
from dmremap.sets import assemble, discover, live, offline, safety, tagging

SCHEMA = json.loads(resources.files("dmremap").joinpath("schema/dmremap-1.json").read_text())
SECTORS = 4096
ID = bytes.fromhex("5000c500a1b2c3d4")
TAGGED = superblock(
    tagged=True,
    main_sectors=SECTORS,
    data_start=2048,
    data_sectors=SECTORS - 2048,
    main_id_type=3,
    main_id=ID,
    main_serial="S1",
)
ADOPTED = replace(TAGGED, tagged=False, data_start=0, data_sectors=SECTORS)


class Main(Disk):
    """A main in memory: single sectors can be bad, too."""

    def __init__(self) -> None:
        super().__init__(SECTORS // 8)
        self.bad_sectors: set[int] = set()

    def read(self, offset: int, length: int) -> bytes | None:
        if self.bad_sectors & set(range(offset // 512, (offset + length) // 512)):
            return None
        return super().read(offset, length)

    def lose(self, *places: int) -> None:
        self.bad |= set(places)

    def tag(self, sb: Superblock, *places: int) -> None:
        for place in places or TAG_BLOCKS:
            self[place] = pack_tag(Tag.of(sb, 0), place)


# ------------------------------------------------------------ what main holds


def test_zeroes_are_nothing_else() -> None:
    disk = Main()
    assert something_else(View(disk, 0), 512) is None
    disk[256] = JUNK
    assert something_else(View(disk, 0), 512) is None


@pytest.mark.parametrize("place", [0, 1, 24, 64, 77, *SCRATCH_BLOCKS[1:], 254, 255])
def test_anything_in_the_first_mib_is_something_else(place: int) -> None:
    disk = Main()
    disk[place] = bytes(BLOCK - 1) + b"\1"
    assert something_else(View(disk, 0), 512) == place * BLOCK


def test_copies_of_the_tag_are_the_sets_own() -> None:
    disk = Main()
    disk.tag(TAGGED, 1, 255)
    assert something_else(View(disk, 0), 512, SET) is None
    assert something_else(View(disk, 0), 512, OTHER) == BLOCK
    disk.lose(*TAG_BLOCKS)
    assert something_else(View(disk, 0), 512) is None
    assert lost_tags(View(disk, 0)) == list(TAG_BLOCKS)


@pytest.mark.parametrize(
    ("bad", "unit", "found"),
    [
        ([0], 512, 512),  # a partition table, and the sector before it
        ([1], 512, None),
        ([2], 512, 512),
        ([2], 1024, 0),
        ([0], 1024, None),
        ([7], 4096, None),
    ],
)
def test_each_unit_of_a_bad_first_block_is_looked_at(bad: list[int], unit: int, found: int) -> None:
    disk = Main()
    disk[0] = bytes(512) + b"EFI PART" + bytes(BLOCK - 520)
    disk.bad_sectors = set(bad)
    assert something_else(View(disk, 0), unit) == found
    disk[2], disk[0] = disk[0], bytes(BLOCK)
    disk.bad_sectors = {16 + bad[0]}
    assert something_else(View(disk, 0), unit) is None


# ---------------------------------------------------------- finding the main


@dataclass
class Machine:
    """Images that are all the devices there are."""

    paths: dict[str, Path]
    bad: dict[str, set[int]] = field(default_factory=dict)
    """Blocks that cannot be read, by the name of the device."""
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def put(self, name: str, disk: Disk) -> None:
        self.paths[name].write_bytes(disk.data)
        self.bad[name] = disk.bad


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    made = Machine({name: tmp_path / name for name in ("main", "spare")})
    read = BlockDevice.read

    def read_some(self: BlockDevice, offset: int, length: int) -> bytes | None:
        blocks = set(range(offset // BLOCK, -(-(offset + length) // BLOCK)))
        return None if made.bad[Path(self.path).name] & blocks else read(self, offset, length)

    def facts_of(path: str, _directory: Path, **_known: object) -> DeviceFacts:
        size = made.paths[Path(path).name].stat().st_size // 512
        found = DeviceFacts(path, devno=(8, len(path)), sectors=size)
        return replace(found, **made.facts.get(Path(path).name, {}))

    made.put("main", Main())
    made.put("spare", fresh())
    monkeypatch.setattr(BlockDevice, "read", read_some)
    monkeypatch.setattr(dm, "exists", lambda *_args, **_words: None)
    monkeypatch.setattr(dm, "list_devices", list)
    monkeypatch.setattr(blockdev, "all_devices", lambda: list(made.paths.values()))
    monkeypatch.setattr(blockdev, "node", str)
    monkeypatch.setattr(blockdev, "facts_of", facts_of)
    monkeypatch.setattr(blockdev, "facts", lambda path, **_words: facts_of(path, Path()))
    return made


Change = Callable[[Main], None]


def own(disk: Main) -> None:
    disk.tag(TAGGED)


def own_and_lost(disk: Main) -> None:
    disk.tag(TAGGED, 192)
    disk.lose(1, 64)
    disk[3] = JUNK


def anothers(disk: Main) -> None:
    disk.tag(replace(TAGGED, uuid=OTHER))


def blank(_disk: Main) -> None:
    pass


def lost(disk: Main) -> None:
    disk.lose(*TAG_BLOCKS)


def one_lost(disk: Main) -> None:
    disk.lose(128)


def dead(disk: Main) -> None:
    disk.lose(*range(256))


def foreign(disk: Main) -> None:
    disk[0] = JUNK


def foreign_and_lost(disk: Main) -> None:
    disk[255] = JUNK
    disk.lose(1)


HAS_ID = {"id_type": 3, "id": ID}
NO_ID = {"id_type": 0, "serial": "S1"}
# What is on main; whether a tagged set is started with it if its id is known, else the code; the
# same if it has no id; an adopted set, known by its id; the same, known by less.
CASES: list[tuple[Change, str, str, str, str]] = [
    (own, "", "", "", "DMR-E534"),
    (own_and_lost, "", "", "", "DMR-E534"),
    (anothers, "DMR-E305", "DMR-E305", "", "DMR-E534"),
    (blank, "DMR-E533", "DMR-E533", "", ""),
    (lost, "", "DMR-E533", "", ""),
    (one_lost, "", "DMR-E533", "", ""),
    (dead, "", "DMR-E533", "", ""),
    (foreign, "DMR-E533", "DMR-E533", "", ""),
    (foreign_and_lost, "DMR-E533", "DMR-E533", "", ""),
]


def verdict(host: Machine, sb: Superblock, facts: dict[str, Any], *, named: bool = False) -> str:
    """Return the code of the refusal, "" if the set would be started."""
    host.put("spare", fresh(sb=sb))
    host.facts["main"] = facts
    (one,) = [found for found in discover.scan() if found.superblock.uuid == SET]
    try:
        assemble._choose_main(one, str(host.paths["main"]) if named else None)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "ensure", lambda **_words: None)
            patch.setattr(safety, "check_usable", lambda *_args, **_words: [])
            assemble.assemble(one, dry_run=True)
    except DmRemapError as err:
        return err.code
    return ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].__name__)
def test_what_is_started_as_the_kernel_would(
    host: Machine, case: tuple[Change, str, str, str, str]
) -> None:
    change, *expected = case
    disk = Main()
    change(disk)
    host.put("main", disk)
    kinds = [(TAGGED, HAS_ID), (TAGGED, NO_ID), (ADOPTED, HAS_ID), (ADOPTED, NO_ID)]
    assert [verdict(host, sb, facts) for sb, facts in kinds] == expected


def test_a_tag_that_is_content_keeps_nothing_from_being_started(host: Machine) -> None:
    disk = Main()
    anothers(disk)
    host.put("main", disk)
    assert verdict(host, replace(ADOPTED, content_tag=OTHER), NO_ID) == ""
    assert verdict(host, replace(ADOPTED, content_tag=SET), NO_ID) == "DMR-E534"
    disk.tag(replace(TAGGED, uuid=UUID(int=0)))
    host.put("main", disk)
    assert verdict(host, ADOPTED, NO_ID) == ""


def test_a_tag_in_its_data_is_the_sets_problem(host: Machine) -> None:
    disk = Main()
    anothers(disk)
    host.put("main", disk)
    assert verdict(host, ADOPTED, NO_ID) == "DMR-E534"
    (one,) = discover.scan()
    (problem,) = one.refusals
    assert problem.hint.endswith(f"{host.paths['spare']} --tag-is-content {host.paths['main']}")
    assert verdict(host, ADOPTED, HAS_ID) == ""
    (one,) = discover.scan()
    assert one.refusals == ()


def test_another_disk_is_not_main_without_a_tag(host: Machine) -> None:
    disk = Main()
    lost(disk)
    host.put("main", disk)
    assert verdict(host, TAGGED, HAS_ID) == ""
    for facts in ({"id_type": 3, "id": ID[::-1]}, {**HAS_ID, "offset": 8}):
        assert verdict(host, TAGGED, facts) == "DMR-E305"
        assert verdict(host, TAGGED, facts, named=True) == "DMR-E533"
    assert verdict(host, replace(TAGGED, main_sectors=SECTORS + 8), HAS_ID) == "DMR-E305"


def test_two_that_may_be_main_are_one_too_many(host: Machine, tmp_path: Path) -> None:
    disk = Main()
    lost(disk)
    host.put("main", disk)
    host.paths["clone of it"] = tmp_path / "clone of it"
    copy = Main()
    own(copy)
    host.put("clone of it", copy)
    assert verdict(host, TAGGED, HAS_ID) == "DMR-E516"


def test_the_next_step_can_be_typed(host: Machine) -> None:
    main_path, spare_path = host.paths["main"], host.paths["spare"]
    host.put("spare", fresh(sb=TAGGED))
    host.facts["main"] = NO_ID
    (one,) = discover.scan()
    with pytest.raises(DmRemapError) as caught:
        assemble._choose_main(one, None)
    assert caught.value.hint.endswith(f"dmremapctl repair {spare_path} --retag {main_path}")
    with pytest.raises(DmRemapError) as caught:
        assemble._choose_main(replace(one, spare_start=8), None)
    assert caught.value.hint.endswith(f"--retag {main_path} --start 8")


# ----------------------------------------------------- repair --retag and --tag-is-content


class Commands:
    """Runs dmremapctl on images of a spare and a main."""

    def __init__(self, where: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.spare, self.main = where / "spare.img", where / "main.img"
        self.capsys = capsys

    def put(self, spare: Disk, disk: Disk) -> None:
        self.spare.write_bytes(spare.data)
        self.main.write_bytes(disk.data)

    def repair(self, option: str, *more: str) -> tuple[int, dict[str, Any]]:
        words = ["repair", str(self.spare), option, str(self.main), *more, "-o", "json"]
        code = main(words)
        out, err = self.capsys.readouterr()
        assert err == ""
        whole: dict[str, Any] = json.loads(out)
        jsonschema.Draft202012Validator(SCHEMA).validate(whole)
        return code, whole

    def refused(self, option: str, *more: str) -> tuple[str, str]:
        """Return code and sentence of a refusal; nothing is written."""
        before = self.spare.read_bytes(), self.main.read_bytes()
        code, whole = self.repair(option, "--yes", *more)
        assert code == whole["error"]["exit"] != 0
        assert (self.spare.read_bytes(), self.main.read_bytes()) == before
        return whole["error"]["code"], whole["error"]["message"]


@pytest.fixture
def ctl(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Commands:
    monkeypatch.setattr(blockdev, "signatures", lambda _path: [])
    out = Commands(tmp_path, capsys)
    out.put(fresh(sb=TAGGED), Main())
    return out


def test_retag(ctl: Commands) -> None:
    data = Main()
    data[256] = JUNK
    ctl.put(fresh(sb=TAGGED), data)
    spare = ctl.spare.read_bytes()
    code, whole = ctl.repair("--retag", "--dry-run")
    assert (code, whole["data"]["result"], whole["data"]["known_by"]) == (0, "would repair", None)
    assert [one["block"] for one in whole["data"]["writes"]] == list(TAG_BLOCKS)
    assert ctl.main.read_bytes() == data.data
    code, whole = ctl.repair("--retag")
    assert (code, whole["error"]["code"]) == (2, "DMR-E202")
    assert "nothing but its size says" in whole["error"]["message"]
    assert ctl.main.read_bytes() == data.data
    code, whole = ctl.repair("--retag", "--yes", "--start", "0")
    assert (code, whole["data"]["result"]) == (0, "repaired")
    data.tag(TAGGED)
    assert ctl.main.read_bytes() == data.data
    assert ctl.spare.read_bytes() == spare
    code, whole = ctl.repair("--retag", "--yes")
    assert (code, whole["data"]["result"], whole["data"]["writes"]) == (0, "clean", [])


def test_retag_refuses_what_only_resembles(ctl: Commands) -> None:
    disk = Main()
    disk.tag(replace(TAGGED, uuid=OTHER), 64)
    ctl.put(fresh(sb=TAGGED), disk)
    code, text = ctl.refused("--retag")
    assert (code, str(OTHER) in text) == ("DMR-E504", True)
    for place in (0, 1, 24, 255):
        disk = Main()
        disk[place] = JUNK
        ctl.put(fresh(sb=TAGGED), disk)
        code, text = ctl.refused("--retag")
        assert (code, f"at byte {place * BLOCK}" in text) == ("DMR-E505", True)
    for size in (SECTORS - 8, SECTORS + 8):
        ctl.put(fresh(sb=TAGGED), Disk(size // 8))
        assert ctl.refused("--retag")[0] == "DMR-E513"


def test_retag_refuses_what_is_something_by_itself(
    ctl: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockdev, "signatures", lambda _path: [Signature("gpt", 1 << 20)])
    assert ctl.refused("--retag") == ("DMR-E503", f"{ctl.main} holds gpt, at byte 1048576")


def test_retag_does_not_hide_that_the_spare_is_old(ctl: Commands) -> None:
    for epoch in (replace(TAGGED.epoch, number=4), replace(TAGGED.epoch, id=7)):
        disk = Main()
        disk.tag(replace(TAGGED, epoch=epoch, before=Epoch(epoch.number - 1, 9)), 192)
        ctl.put(fresh(sb=TAGGED), disk)
        code, text = ctl.refused("--retag")
        assert code == "DMR-E531"
        assert "the spare" in text
    disk.tag(TAGGED, 1, 64)
    disk.tag(replace(TAGGED, name="other"), 128)
    disk[192] = bytes(BLOCK)
    ctl.put(fresh(sb=TAGGED), disk)
    assert "contradict each other" in ctl.refused("--retag")[1]


def test_retag_waits_for_superblocks_that_are_equal(ctl: Commands) -> None:
    """Or the tag would be ahead of one that is all that is left at the next start."""
    disk = fresh(sb=TAGGED)
    later = replace(TAGGED, seq=TAGGED.seq + 1, epoch=Epoch(4, 9), before=TAGGED.epoch)
    disk[0] = pack_super(later, 0)
    ctl.put(disk, Main())
    code, text = ctl.refused("--retag")
    assert (code, "not equal" in text) == ("DMR-E514", True)
    assert main(["repair", str(ctl.spare), "--yes"]) == 0
    ctl.capsys.readouterr()
    assert ctl.repair("--retag", "--yes")[0] == 0


def test_each_is_for_one_kind_of_set(ctl: Commands) -> None:
    assert ctl.refused("--tag-is-content") == (
        "DMR-E201",
        "set 'attic' knows its main by its tag",
    )
    ctl.put(fresh(sb=ADOPTED), Main())
    assert ctl.refused("--retag")[0] == "DMR-E201"
    assert ctl.refused("--retag", "--tag-is-content", "x")[0] == "DMR-E201"
    ctl.put(Disk(), Main())
    assert ctl.refused("--retag")[0] == "DMR-E307"


def test_a_main_that_takes_no_tag(ctl: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_write = BlockDevice.write
    keeps = {64}

    def write(self: BlockDevice, offset: int, data: bytes) -> None:
        whole_write(self, offset, data if offset // BLOCK in keeps else JUNK)

    monkeypatch.setattr(BlockDevice, "write", write)
    code, whole = ctl.repair("--retag", "--yes")
    assert (code, [one["block"] for one in whole["data"]["writes"]]) == (0, [64])
    keeps.clear()
    ctl.put(fresh(sb=TAGGED), Main())
    code, whole = ctl.repair("--retag", "--yes")
    assert (code, whole["error"]["code"]) == (1, "DMR-E103")


def test_a_main_that_changes_meanwhile_is_not_written(ctl: Commands) -> None:
    plan = tagging.plan_retag(offline.locate(str(ctl.spare)), offline.locate(str(ctl.main)))
    disk = Main()
    disk.tag(TAGGED, 64)
    ctl.put(fresh(sb=TAGGED), disk)
    with pytest.raises(DmRemapError) as caught:
        tagging.retag(plan)
    assert caught.value.code == "DMR-E409"
    assert ctl.main.read_bytes() == disk.data


def device(path: Path, **facts: Any) -> offline.Place:
    """Return the place of a block device that an image stands for."""
    known = {"devno": (8, len(str(path))), "sectors": path.stat().st_size // 512, "logical": 512}
    return offline.Place(str(path), 0, DeviceFacts(str(path), **{**known, **facts}))


@pytest.mark.parametrize(
    ("facts", "known"),
    [
        (HAS_ID, "id"),
        ({**HAS_ID, "serial": "S2"}, "id"),
        (NO_ID, "serial number"),
        ({}, ""),
        ({"id_type": 3, "id": ID[::-1]}, None),
        ({"serial": "S2"}, None),
        ({**HAS_ID, "offset": 2048}, None),
        ({**HAS_ID, "logical": 4096}, "id"),
        ({"logical": 4096}, None),
    ],
)
def test_what_a_disk_says_of_itself(
    ctl: Commands, monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], known: str | None
) -> None:
    monkeypatch.setattr(tagging, "usable", lambda _place: None)
    monkeypatch.setattr(live, "find", list)
    places = device(ctl.spare), device(ctl.main, **facts)
    if known is None:
        with pytest.raises(DmRemapError) as caught:
            tagging.plan_retag(*places)
        assert caught.value.code == "DMR-E513"
    else:
        assert tagging.plan_retag(*places).known == known
    # A larger disk may have the id only.
    ctl.put(fresh(sb=TAGGED), Disk(SECTORS // 8 + 1))
    places = device(ctl.spare), device(ctl.main, **facts)
    if known == "id":
        assert tagging.plan_retag(*places).writes
    else:
        with pytest.raises(DmRemapError):
            tagging.plan_retag(*places)


def test_a_set_that_runs_is_left_alone(ctl: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    from unit.test_sets import running_set

    monkeypatch.setattr(tagging, "usable", lambda _place: None)
    monkeypatch.setattr(live, "find", lambda: [running_set("by another name")])
    for plan in (tagging.plan_retag, tagging.plan_content):
        if plan is tagging.plan_content:
            ctl.put(fresh(sb=ADOPTED), Main())
        with pytest.raises(DmRemapError, match="'by another name' is running") as caught:
            plan(device(ctl.spare), device(ctl.main))
        assert caught.value.code == "DMR-E403"


def content_tags(path: Path, homes: Iterable[int] = (0, 255)) -> list[UUID | None]:
    data = path.read_bytes()
    found = [parse_super(data[at * BLOCK : (at + 1) * BLOCK], at) for at in homes]
    return [sb.content_tag if sb else None for sb in found]


def test_tag_is_content(ctl: Commands) -> None:
    disk = Main()
    anothers(disk)
    spare = fresh(sb=ADOPTED)
    ctl.put(spare, disk)
    code, whole = ctl.repair("--tag-is-content", "-n")
    assert (code, whole["data"]["result"]) == (0, "would repair")
    planned = whole["data"]["writes"]
    assert [(one["block"], one["sequence"]) for one in planned] == [(0, 3), (255, 3)]
    assert ctl.spare.read_bytes() == spare.data
    code, whole = ctl.repair("--tag-is-content")
    assert whole["error"]["code"] == "DMR-E202"
    assert str(OTHER) in whole["error"]["message"]
    code, whole = ctl.repair("--tag-is-content", "-y")
    assert (code, whole["data"]["result"], whole["data"]["writes"]) == (0, "repaired", planned)
    assert content_tags(ctl.spare) == [OTHER, OTHER]
    assert ctl.main.read_bytes() == disk.data
    # Nothing else of the superblock has changed.
    wanted = replace(ADOPTED, content_tag=OTHER, seq=3)
    for home in (0, 255):
        spare[home] = pack_super(wanted, home)
    assert ctl.spare.read_bytes() == spare.data
    code, whole = ctl.repair("--tag-is-content", "-y")
    assert (code, whole["data"]["result"]) == (0, "clean")


def test_tag_is_content_mends_first(ctl: Commands) -> None:
    disk = Main()
    anothers(disk)
    spare = fresh(sb=ADOPTED)
    spare[0] = JUNK
    ctl.put(spare, disk)
    code, whole = ctl.repair("--tag-is-content", "-y")
    assert code == 0
    assert [(one["block"], one["sequence"]) for one in whole["data"]["writes"]] == [
        *[(0, 4), (255, 4)],
        *[(0, 5), (255, 5)],
    ]
    assert content_tags(ctl.spare) == [OTHER, OTHER]


def test_a_tag_on_something_else_is_no_content(ctl: Commands) -> None:
    ctl.put(fresh(sb=ADOPTED), Main())
    assert ctl.refused("--tag-is-content")[0] == "DMR-E307"
    disk = Disk(SECTORS // 8 + 1)
    disk[1] = pack_tag(Tag.of(replace(TAGGED, uuid=OTHER), 0), 1)
    ctl.put(fresh(sb=ADOPTED), disk)
    assert ctl.refused("--tag-is-content")[0] == "DMR-E513"


def test_what_is_written_is_what_a_load_looks_for(ctl: Commands) -> None:
    ctl.repair("--retag", "--yes")
    disk = Main()
    disk.data = bytearray(ctl.main.read_bytes())
    assert read_tag(View(disk, 0)) == Tag.of(TAGGED, 0)


def test_a_spare_that_changes_meanwhile_is_not_written(ctl: Commands) -> None:
    disk = Main()
    anothers(disk)
    ctl.put(fresh(sb=ADOPTED), disk)
    plan = tagging.plan_content(offline.locate(str(ctl.spare)), offline.locate(str(ctl.main)))
    changed = fresh(sb=replace(ADOPTED, name="cellar"))
    ctl.put(changed, disk)
    with pytest.raises(DmRemapError) as caught:
        tagging.record_content(plan)
    assert caught.value.code == "DMR-E409"
    assert ctl.spare.read_bytes() == changed.data
