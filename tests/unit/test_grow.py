# SPDX-License-Identifier: GPL-2.0-only
"""Growth without a kernel: where an extension lies, what is refused, what is written and when."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from unit.areas import AREA_BLOCKS, JUNK, OTHER, SB, SET, fresh, mapped
from unit.devices import a_device

from dmremap import dm
from dmremap.cli import main
from dmremap.dm import Device, Target
from dmremap.dm.lines import RemapTable, parse_status, parse_table
from dmremap.errors import Busy, DmRemapError, Failure, NotFound, Refused
from dmremap.host import blockdev
from dmremap.host.blockdev import DeviceFacts, Signature, Use
from dmremap.ondisk import (
    BLOCK,
    MAX_SEGMENTS,
    MAX_SLOTS,
    BlockDevice,
    Entry,
    InTheWay,
    Obstacle,
    Segment,
    SlotState,
    Superblock,
    View,
    extension_for,
    first_obstacle,
    largest_area,
    look,
    opened,
    segment_blocks,
    segment_for,
    write_tables,
)
from dmremap.ondisk._format import lib
from dmremap.ondisk.layout import is_empty_table, pack_empty_table, pack_super, pack_table
from dmremap.sets import grow, live
from dmremap.sets.extent import DEFAULT_SLOTS, SLOT_MEMORY
from dmremap.sets.live import Running

SCHEMA = json.loads(resources.files("dmremap").joinpath("schema/dmremap-1.json").read_text())
SPARE_BLOCKS = AREA_BLOCKS + 100
START = 16  # the area's first sector in most tests
ZERO = bytes(BLOCK)


def must(segment: Segment | None) -> Segment:
    assert segment
    return segment


EXTENSION = must(extension_for(SB, SPARE_BLOCKS))
PLACES = range(AREA_BLOCKS, SPARE_BLOCKS)


# Geometry


@pytest.mark.parametrize("unit", [512, 1024, 2048, 4096])
@pytest.mark.parametrize("more", [3, 4, 10, 100, 1000, 123456])
def test_an_extension_is_what_the_format_allows(unit: int, more: int) -> None:
    first = must(segment_for(AREA_BLOCKS, unit))
    sb = replace(SB, unit=unit, segments=(first,))
    segment = must(extension_for(sb, AREA_BLOCKS + more))
    assert (segment.start, segment.blocks) == (AREA_BLOCKS, more)
    assert segment.slots == lib.dmr_segment_slots(more, unit) > 0
    assert segment.table_blocks == -(-segment.slots // 252)
    after = replace(sb, area_blocks=AREA_BLOCKS + more, segments=(first, segment))
    pack_super(after, 0)  # raises what dmr_super_check() finds
    again = must(extension_for(after, AREA_BLOCKS + more + 50))
    assert again.start == AREA_BLOCKS + more


@pytest.mark.parametrize("blocks", [0, AREA_BLOCKS - 1, *range(AREA_BLOCKS, AREA_BLOCKS + 3)])
def test_no_room(blocks: int) -> None:
    assert extension_for(SB, blocks) is None


def test_it_begins_where_the_last_segment_ends() -> None:
    """As the kernel has it, also where the area is a little longer than its segments."""
    short = replace(SB, area_blocks=AREA_BLOCKS + 2)
    assert must(extension_for(short, AREA_BLOCKS + 3)).start == AREA_BLOCKS
    assert extension_for(short, AREA_BLOCKS + 2) is None


@pytest.mark.parametrize("unit", [512, 4096])
def test_the_largest_area(unit: int) -> None:
    sb = replace(SB, unit=unit, segments=(must(segment_for(AREA_BLOCKS, unit)),))
    most = largest_area(sb)
    assert sb.slots + must(extension_for(sb, most)).slots <= MAX_SLOTS
    assert sb.slots + must(extension_for(sb, most + 1)).slots > MAX_SLOTS


def test_an_empty_table_is_known() -> None:
    block = pack_empty_table(SET, 400)
    assert is_empty_table(block, SET, 400)
    assert is_empty_table(pack_empty_table(SET, 400, 7), SET, 400)
    for wrong in (
        ZERO,
        JUNK,
        pack_empty_table(OTHER, 400),
        pack_empty_table(SET, 401),
        block[:-1] + b"x",
        pack_table(SET, [mapped(0, 5)], 0, 400, 1),
        pack_table(SET, [Entry(251, SlotState.BAD, 0, 0)], 0, 400, 1),
    ):
        assert not is_empty_table(wrong, SET, 400)
    assert not is_empty_table(block, SET, 401)


# Reading and writing an extension


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A spare whose area begins at START and has a hundred blocks behind it."""
    path = tmp_path / "spare.img"
    path.write_bytes(bytes(START * 512) + bytes(fresh().data) + bytes(100 * BLOCK))
    return path


@pytest.fixture
def device(image: Path) -> Iterator[BlockDevice]:
    with opened(str(image), write=True) as out:
        yield out


def block(device: BlockDevice, place: int) -> bytes:
    out = device.read_block(START, place)
    assert out is not None
    return out


def test_blank_is_blank(device: BlockDevice) -> None:
    seen: list[tuple[int, int]] = []
    found = first_obstacle(device, SET, START, PLACES, lambda *done: seen.append(done))
    assert found is None
    assert seen[-1] == (100 * BLOCK, 100 * BLOCK)


@pytest.mark.parametrize("place", [AREA_BLOCKS, AREA_BLOCKS + 50, SPARE_BLOCKS - 1])
def test_every_block_is_looked_at(device: BlockDevice, place: int) -> None:
    for what in (JUNK, ZERO[:-1] + b"x", pack_empty_table(OTHER, place)):
        device.write_block(START, place, what)
        assert first_obstacle(device, SET, START, PLACES) == Obstacle(place, what)
    device.write_block(START, place, pack_empty_table(SET, place))
    assert first_obstacle(device, SET, START, PLACES) is None


def test_what_cannot_be_read_is_not_blank(
    device: BlockDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = START * 512 + (AREA_BLOCKS + 7) * BLOCK
    read = device.read

    def failing(offset: int, length: int) -> bytes | None:
        return None if offset <= bad < offset + length else read(offset, length)

    monkeypatch.setattr(device, "read", failing)
    assert first_obstacle(device, SET, START, PLACES) == Obstacle(AREA_BLOCKS + 7, None)


def test_tables_are_written_copy_by_copy(
    device: BlockDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    write, flush = device.write, device.flush

    def writing(offset: int, data: bytes) -> None:
        first = (offset - START * 512) // BLOCK
        log.append(f"{first}+{len(data) // BLOCK}")
        write(offset, data)

    def flushing() -> None:
        log.append("flush")
        flush()

    monkeypatch.setattr(device, "write", writing)
    monkeypatch.setattr(device, "flush", flushing)
    write_tables(device, SET, START, EXTENSION)
    count = EXTENSION.table_blocks
    assert log == [f"{EXTENSION.copy_a}+{count}", "flush", f"{EXTENSION.copy_b}+{count}", "flush"]
    places = {first + i for first in (EXTENSION.copy_a, EXTENSION.copy_b) for i in range(count)}
    for place in PLACES:
        expected = pack_empty_table(SET, place) if place in places else ZERO
        assert block(device, place) == expected
    write_tables(device, SET, START, EXTENSION)
    assert first_obstacle(device, SET, START, PLACES) is None


@pytest.mark.parametrize("place", [EXTENSION.copy_a, EXTENSION.copy_b + 1])
def test_what_came_meanwhile_is_not_overwritten(device: BlockDevice, place: int) -> None:
    device.write_block(START, place, JUNK)
    with pytest.raises(InTheWay) as caught:
        write_tables(device, SET, START, EXTENSION)
    assert caught.value.obstacle == Obstacle(place, JUNK)
    assert block(device, place) == JUNK


# What is refused

SPARE = DeviceFacts("/dev/sdb", devno=(8, 16), sectors=START + SPARE_BLOCKS * 8)
HUGE = replace(SPARE, sectors=1 << 40)


def refusal(sb: Superblock = SB, by: int | None = None, to: int | None = None) -> str:
    with pytest.raises(Refused) as caught:
        grow.grown(sb, SPARE, START, by, to)
    assert caught.value.hint
    return caught.value.code


def test_how_far() -> None:
    everything = grow.grown(SB, SPARE, START, None, None)
    assert everything.segments == (*SB.segments, EXTENSION)
    assert everything.area_blocks == SPARE_BLOCKS
    assert replace(everything, segments=SB.segments, area_blocks=AREA_BLOCKS) == SB
    assert grow.grown(SB, SPARE, START, 800, None) == everything
    assert grow.grown(SB, SPARE, START, 807, None) == everything
    assert grow.grown(SB, SPARE, START, None, SPARE_BLOCKS * 8) == everything
    assert grow.grown(SB, SPARE, START, 80, None).area_blocks == AREA_BLOCKS + 10


def test_too_far_or_not_at_all() -> None:
    assert refusal(by=808) == "DMR-E511"
    assert refusal(to=SPARE_BLOCKS * 8 + 8) == "DMR-E511"
    for small in (0, 7, 16):
        assert refusal(by=small) == "DMR-E527"
    assert refusal(to=AREA_BLOCKS * 8) == refusal(to=0) == "DMR-E527"
    full = replace(SB, area_blocks=SPARE_BLOCKS, segments=(*SB.segments, EXTENSION))
    assert refusal(full) == "DMR-E527"


def test_limits_of_the_format() -> None:
    small = tuple(Segment(256 + 3 * i, 3, 8, 1) for i in range(MAX_SEGMENTS))
    sb = replace(SB, segments=small, area_blocks=256 + 3 * MAX_SEGMENTS)
    assert refusal(sb) == "DMR-E528"
    assert grow.grown(replace(sb, segments=small[:-1]), SPARE, START, None, None)
    with pytest.raises(Refused) as caught:
        grow.grown(SB, HUGE, START, 1 << 39, None)
    assert caught.value.code == "DMR-E528"
    most = largest_area(SB) * 8
    assert f"--to {most} " in caught.value.hint
    assert grow.grown(SB, HUGE, START, None, most).slots <= MAX_SLOTS


@pytest.mark.parametrize("unit", [512, 1024, 2048, 4096])
def test_nobody_said_how_far(unit: int) -> None:
    """As many slots again as a set begins with, as long as there are so many."""
    sb = replace(SB, unit=unit, segments=(must(segment_for(AREA_BLOCKS, unit)),))
    after = grow.grown(sb, HUGE, START, None, None)
    assert after.segments[-1].slots >= DEFAULT_SLOTS
    less = must(extension_for(sb, after.area_blocks - 1))
    assert less.slots < DEFAULT_SLOTS
    again = grow.grown(after, HUGE, START, None, None)
    assert again.segments[-1].blocks == after.segments[-1].blocks
    while largest_area(again) > again.end + again.segments[-1].blocks:
        again = grow.grown(again, HUGE, START, None, None)
    last = grow.grown(again, HUGE, START, None, None)
    assert last == grow.grown(again, HUGE, START, None, "all")
    assert MAX_SLOTS - 8 < last.slots <= MAX_SLOTS


def test_all_there_is() -> None:
    after = grow.grown(SB, HUGE, START, None, "all")
    assert after.area_blocks == largest_area(SB)
    assert grow.grown(SB, SPARE, START, None, "all").area_blocks == SPARE_BLOCKS
    most = must(segment_for(256 + segment_blocks(MAX_SLOTS, 512), 512))
    full = replace(SB, area_blocks=256 + most.blocks, segments=(most,))
    with pytest.raises(Refused, match=f"has {MAX_SLOTS} slots") as caught:
        grow.grown(full, HUGE, START, None, "all")
    assert caught.value.code == "DMR-E528"


def a_set(name: str, minor: int, *areas: tuple[int, int], targets: int = 1) -> Running:
    made = a_device(name, uuid=f"REMAP-{SET}", minor=minor, target_count=targets)
    tables = tuple(RemapTable(0, 8, "8:0", "8:16", start, size) for start, size in areas)
    return Running(made, None, tables, ())


def neighbours(*others: Running, held: tuple[str, ...] = (), **changes: Any) -> list[str]:
    own = a_set("one", 0, (START, AREA_BLOCKS * 8))
    holders = tuple(Use("sdb", by) for by in ("dm-0 (one)", *held))
    spare = replace(SPARE, holders=holders, **changes)
    end = START + SPARE_BLOCKS * 8
    return [f.code for f in grow.check_neighbours(spare, own, [own, *others], START, end)]


def test_who_else_uses_the_spare() -> None:
    end = START + SPARE_BLOCKS * 8
    assert neighbours() == []
    assert neighbours(held=("dm-7 (home)",)) == ["DMR-E403"]
    assert neighbours(mounts=(Use("sdb1", "/mnt"),)) == ["DMR-E401"]
    assert neighbours(swaps=(Use("sdb1", "/dev/sdb1"),)) == ["DMR-E402"]
    assert neighbours(read_only=True) == ["DMR-E502"]
    two = "dm-1 (two)"
    assert neighbours(a_set("two", 1, (end, 2072)), held=(two,)) == []
    assert neighbours(a_set("two", 1, (end - 8, 2072)), held=(two,))[0] == "DMR-E403"
    # One that has something else of the spare beside its area.
    assert neighbours(a_set("two", 1, (end, 2072), targets=2), held=(two,)) == ["DMR-E403"]


def test_signatures_count_outside_of_the_area() -> None:
    def codes(offset: int) -> list[str]:
        spare = replace(SPARE, signatures=(Signature("ext4", offset, "home"),))
        return [f.code for f in grow.check_signatures(spare, 16, 1000)]

    assert codes(0) == codes(16 * 512 - 1) == codes(1000 * 512) == ["DMR-E503"]
    assert codes(16 * 512) == codes(1000 * 512 - 1) == []


def test_obstacles_are_named() -> None:
    def said(data: bytes | None) -> tuple[str, str]:
        (one,) = grow.check_obstacle("/dev/sdb", SET, START, Obstacle(400, data))
        assert str(START * 512 + 400 * BLOCK) in one.message
        assert "--to" in (one.hint or "")
        return one.code, one.message

    assert said(None)[0] == "DMR-E518"
    assert said(JUNK)[0] == "DMR-E505"
    assert "of a set" in said(pack_empty_table(OTHER, 400))[1]
    code, message = said(pack_table(SET, [mapped(0, 5)], 0, 400, 1))
    assert (code, "of this set, not empty" in message) == ("DMR-E504", True)
    assert not list(grow.check_obstacle("/dev/sdb", SET, START, None))


# All of it, with a device-mapper that is made up


class FakeDm:
    """One running set, on an image. `fail` names what does not work, and how often."""

    def __init__(self, image: Path) -> None:
        self.image = image
        self.facts = DeviceFacts(str(image), devno=(0, 0), sectors=START + SPARE_BLOCKS * 8)
        line = RemapTable(0, 1000, "8:0", "0:0", START, AREA_BLOCKS * 8, uuid=str(SET))
        self.table = [Target(0, 1000, "remap", line.params)]
        self.inactive: list[Target] = []
        self.suspended = False
        self.mode = "rw"
        self.fail: dict[str, int] = {}
        self.log: list[str] = []

    def _step(self, what: str) -> None:
        self.log.append(what)
        if self.fail.get(what, 0):
            self.fail[what] -= 1
            raise Failure("DMR-E103", f"no {what}")

    @property
    def length(self) -> int:
        return parse_table(0, 1000, self.table[0].params).spare_len

    @contextlib.contextmanager
    def locked(self, timeout: float) -> Iterator[None]:
        assert timeout > 0
        self.log.append("lock")
        yield
        self.log.append("unlock")

    def device(self) -> Device:
        return a_device(
            "one",
            uuid=f"REMAP-{SET}",
            suspended=self.suspended,
            inactive_table=bool(self.inactive),
        )

    def running(self, names: object = ()) -> list[Running]:
        if names and list(names) != ["one"]:  # type: ignore[call-overload]
            raise NotFound("DMR-E303", "no such set is running")
        with opened(str(self.image)) as device:
            sb = look(View(device, START)).superblock
        assert sb
        text = (
            f"{self.mode} 512 0/{sb.slots} lost=0 pending=0 bad=0 free=0 doubt=0 read_errors=0 "
            "write_errors=0 transient=0 remapped=0 copies=0 identity=tag seq=0"
        )
        tables = tuple(parse_table(t.start, t.length, t.params) for t in self.table)
        return [Running(self.device(), str(SET), tables, (parse_status(0, 1000, text),))]

    def reload(self, name: str, table: list[Target]) -> None:
        assert name == "one"
        self._step("reload")
        self.inactive = list(table)

    def resume(self, name: str) -> None:
        """Put a table in force; what the kernel writes when a set grows."""
        assert name == "one"
        self.table, self.inactive, self.suspended = self.inactive, [], True
        self._step("resume")
        with opened(str(self.image), write=True) as device:
            sb = look(View(device, START)).superblock
            assert sb
            if self.length > sb.area_sectors:
                blocks = self.length // 8
                segments = (*sb.segments, must(extension_for(sb, blocks)))
                sb = replace(sb, area_blocks=blocks, segments=segments, seq=sb.seq + 1)
                for home in (0, 255):
                    device.write_block(START, home, pack_super(sb, home))
        self.suspended = False

    def swap(
        self, name: str, table: list[Target], *, lockfs: bool = True, then: Callable[[], None]
    ) -> None:
        assert not lockfs
        self.reload(name, table)
        self.resume(name)
        then()


@pytest.fixture
def fake(image: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDm:
    made = FakeDm(image)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(live, "find", made.running)
    monkeypatch.setattr(blockdev, "suspended", lambda _facts: False)
    monkeypatch.setattr(blockdev, "facts", lambda _path, look_inside: made.facts)  # noqa: ARG005
    monkeypatch.setattr(blockdev, "table_path", lambda _word: str(image))
    monkeypatch.setattr(blockdev, "signatures", lambda _path: [])
    monkeypatch.setattr(BlockDevice, "devno", (0, 0))
    monkeypatch.setattr("dmremap.api.grow.locked", made.locked)

    def table(_name: str, *, inactive: bool = False) -> list[Target]:
        return made.inactive if inactive else made.table

    for name, function in (
        ("table", table),
        ("reload", made.reload),
        ("resume", made.resume),
        ("swap", made.swap),
        ("info", lambda _name: made.device()),
    ):
        monkeypatch.setattr(dm, name, function)
    return made


def test_a_set_grows(fake: FakeDm) -> None:
    made = grow.plan("one")
    assert fake.log == []
    assert made.after.segments[-1] == EXTENSION
    assert grow.carry_out(made) == ()
    assert fake.length == SPARE_BLOCKS * 8
    assert (fake.suspended, fake.log) == (False, ["reload", "resume"])
    with pytest.raises(Refused) as caught:
        grow.plan("one")
    assert caught.value.code == "DMR-E527"


def refused(make: Any) -> DmRemapError:
    with pytest.raises(DmRemapError) as caught:
        make()
    return caught.value


def test_a_table_that_is_not_taken(fake: FakeDm) -> None:
    fake.fail = {"reload": 1}
    err = refused(lambda: grow.carry_out(grow.plan("one")))
    assert any("goes on as it was" in note for note in err.notes)
    assert any("can be repeated" in note for note in err.notes)
    grow.carry_out(grow.plan("one"))
    assert fake.length == SPARE_BLOCKS * 8


def test_a_table_that_cannot_be_started(fake: FakeDm) -> None:
    fake.fail = {"resume": 1}
    err = refused(lambda: grow.carry_out(grow.plan("one")))
    assert any("old table back" in note for note in err.notes)
    assert (fake.length, fake.suspended) == (AREA_BLOCKS * 8, False)
    grow.carry_out(grow.plan("one"))


def test_the_longer_table_is_tried_again_where_the_old_one_is_refused(fake: FakeDm) -> None:
    fake.fail = {"resume": 2}
    (warning,) = grow.carry_out(grow.plan("one"))
    assert "second attempt" in warning
    assert fake.length == SPARE_BLOCKS * 8


def test_a_set_that_cannot_go_on(fake: FakeDm) -> None:
    fake.fail = {"resume": 9}
    err = refused(lambda: grow.carry_out(grow.plan("one")))
    assert any("'dmsetup resume one'" in note for note in err.notes)
    fake.fail = {}
    err = refused(lambda: grow.plan("one"))
    assert (err.code, "dmsetup resume one" in err.hint) == ("DMR-E409", True)


def test_what_changed_after_the_plan(fake: FakeDm) -> None:
    made = grow.plan("one")
    for change in (
        {"targets": ()},
        {"before": replace(made.before, name="other")},
        {"spare": replace(made.spare, devno=(8, 32))},
        {"spare": replace(made.spare, sectors=made.spare.sectors + 8)},
    ):
        assert isinstance(refused(lambda c=change: grow.carry_out(replace(made, **c))), Busy)
    with opened(str(fake.image), write=True) as device:
        device.write_block(START, EXTENSION.copy_b, JUNK)
        assert refused(lambda: grow.carry_out(made)).code == "DMR-E505"
        assert block(device, EXTENSION.copy_b) == JUNK
    assert fake.log == []


def test_sets_that_do_not_grow(fake: FakeDm) -> None:
    def code() -> str:
        err = refused(lambda: grow.plan("one"))
        assert err.hint
        return err.code

    fake.mode = "ro"
    assert code() == "DMR-E529"
    fake.mode = "rw"
    fake.inactive = [Target(0, 8, "linear", "8:0 0")]
    assert code() == "DMR-E409"
    longer = fake.table[0].params.replace(str(AREA_BLOCKS * 8), str(SPARE_BLOCKS * 8))
    fake.inactive = [Target(0, 1000, "remap", longer)]
    grow.plan("one")
    fake.inactive = [Target(0, 1000, "remap", longer.replace("8:0", "8:1"))]
    assert code() == "DMR-E409"
    fake.inactive = []
    fake.table *= 2
    assert code() == "DMR-E528"
    fake.table = fake.table[:1]
    shorter = fake.table[0].params.replace(str(AREA_BLOCKS * 8), str(AREA_BLOCKS * 8 - 8))
    fake.table = [Target(0, 1000, "remap", shorter)]
    assert code() == "DMR-E409"
    with opened(str(fake.image), write=True) as device:
        for home in (0, 255):
            device.write_block(START, home, ZERO)
        now = SimpleNamespace(
            running=SimpleNamespace(name="one", uuid=str(SET), status=()),
            table=SimpleNamespace(spare_start=START),
            spare=fake.facts,
        )
        assert refused(lambda: grow._recorded(device, now)).code == "DMR-E514"  # type: ignore[arg-type]


def answer(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["grow", *args, "-o", "json"])
    whole: dict[str, Any] = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(SCHEMA).validate(whole)
    return code, whole


def test_the_command(fake: FakeDm, capsys: pytest.CaptureFixture[str]) -> None:
    code, whole = answer(capsys, "one", "--dry-run")
    data = whole["data"]
    assert (code, data["result"]) == (0, "would grow")
    assert data["reads_bytes"] == 100 * BLOCK
    assert data["memory_bytes"] == SLOT_MEMORY * data["slots"]
    assert [step.split()[0] for step in data["steps"]] == [
        *("read", "write", "load", "suspend", "keep")
    ]
    assert data["steps"][0].startswith("read all 400 KiB of ")
    assert data["steps"][1].startswith(f"write empty tables of {EXTENSION.slots} slots, 24 KiB, ")
    assert data["steps"][4] == "keep 32.2 KiB of memory while the set runs"
    code, whole = answer(capsys, "one", "--dry-run", "--by", "40K")
    assert whole["data"]["steps"][2].startswith("leave 720 sectors of ")
    assert fake.log == []
    code, whole = answer(capsys, "one")
    assert whole["error"]["code"] == "DMR-E202"  # no terminal to ask on
    code, whole = answer(capsys, "one", "--by", "40K", "--yes")
    assert code == 0
    data = whole["data"]
    assert data["spare_sectors"] == data["spare_sectors_before"] + 80 == fake.length
    assert fake.log == ["lock", "reload", "resume", "unlock"]
    assert (data["segments"], data["slots_before"]) == (2, SB.slots)
    assert main(["grow", "one", "--to", "all", "--yes"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Set one has grown.\narea:  ")
    assert answer(capsys, "one")[1]["error"]["code"] == "DMR-E527"
    code, whole = answer(capsys, "two")
    assert (code, "assemble" in whole["error"]["hint"]) == (3, True)


@pytest.mark.parametrize("args", [[], ["a", "b"], ["a", "--by", "1M", "--to", "2M"], ["--by", "x"]])
def test_wrong_usage(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grow", *args]) == 2
    assert "DMR-E201" in capsys.readouterr().err
