# SPDX-License-Identifier: GPL-2.0-only
"""What a host remembers of an adopted set, and that an older copy of its spare is refused there."""

import json
import os
import shlex
import stat
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from unit.areas import fresh, superblock
from unit.test_compare import ALIEN, BEFORE, CASES, MAIN_BLOCKS, NOW, SB, Pair

from dmremap import dm
from dmremap.errors import DmRemapError, Failure, Refused
from dmremap.host import blockdev
from dmremap.host.blockdev import DeviceFacts
from dmremap.ondisk import Epoch, Superblock, View, look, opened
from dmremap.ondisk._format import lib
from dmremap.ondisk.epoch import OLDER, PARTED, judge_seen
from dmremap.ondisk.layout import pack_super
from dmremap.sets import assemble, discover, offline, restore, seen

ADOPTED = superblock(
    data_sectors=MAIN_BLOCKS * 8, main_sectors=MAIN_BLOCKS * 8, epoch=NOW, before=BEFORE
)
ACCEPT = ("repair", "SPARE", "--accept-older-spare")


@pytest.fixture
def pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Pair:
    made = Pair(tmp_path, capsys)
    made.put_spare(ADOPTED)
    made.put_main({})
    return made


def has_seen(epoch: Epoch) -> None:
    seen.DIRECTORY.mkdir(exist_ok=True)
    seen.path_of(ADOPTED.uuid).write_text(seen.render(epoch))


def on(pair: Pair) -> Superblock:
    with opened(str(pair.spare)) as device:
        found = look(View(device, 0)).superblock
    assert found
    return found


def learn(pair: Pair) -> Epoch | None:
    with opened(str(pair.spare)) as device:
        seen.remember(device, 0, ADOPTED.uuid)
    return seen.last(ADOPTED.uuid)


# ------------------------------------------------------------ what is remembered


@pytest.mark.parametrize("epoch", [Epoch(1, 1), Epoch(lib.DMR_EPOCH_MAX, 2**64 - 1)])
def test_what_is_written_is_read(epoch: Epoch) -> None:
    assert seen.parse(seen.render(epoch)) == epoch


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "[]",
        "null",
        "{}",
        '{"number": 7}',
        '{"number": "7", "id": "a5"}',
        '{"number": 7.0, "id": "a5"}',
        '{"number": true, "id": "a5"}',
        '{"number": 0, "id": "a5"}',
        '{"number": -1, "id": "a5"}',
        json.dumps({"number": lib.DMR_EPOCH_MAX + 1, "id": "a5"}),
        '{"number": 7, "id": 165}',
        '{"number": 7, "id": "0"}',
        '{"number": 7, "id": "-1"}',
        '{"number": 7, "id": "10000000000000000"}',
        '{"number": 7, "id": "g"}',
        "[" * 100000,
        "\N{BELL}",
    ],
)
def test_what_is_no_epoch_is_refused(text: str, pair: Pair) -> None:
    with pytest.raises(ValueError, match=r"."):
        seen.parse(text)
    has_seen(NOW)
    seen.path_of(ADOPTED.uuid).write_text(text)
    with pytest.raises(Failure, match="cannot read") as caught:
        seen.last(ADOPTED.uuid)
    assert "remove it" in caught.value.hint
    # The set can be used, and what is damaged is written anew.
    assert pair.json("check", "SPARE")[0] == 0
    assert learn(pair) == NOW


def test_only_a_newer_epoch_is_remembered(pair: Pair) -> None:
    assert seen.last(ADOPTED.uuid) is None
    assert learn(pair) == NOW
    for lower, before in ((BEFORE, Epoch(3, 0xC3)), (Epoch(1, 9), Epoch(0, 0))):
        pair.put_spare(superblock(epoch=lower, before=before))
        assert learn(pair) == NOW
    newer = Epoch(6, 0xE)
    pair.put_spare(superblock(epoch=newer, before=NOW))
    assert learn(pair) == newer
    assert [one.name for one in seen.DIRECTORY.iterdir()] == [f"{ADOPTED.uuid}.json"]


def test_what_one_copy_says_is_not_remembered(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once that copy is gone the good spare would be refused."""
    monkeypatch.setattr(seen, "_PAUSE", 0)
    disk = fresh(sb=ADOPTED)
    newer = replace(ADOPTED, seq=9, epoch=Epoch(6, 0xE), before=NOW)
    disk[0] = pack_super(newer, 0)
    pair.spare.write_bytes(disk.data)
    with pytest.raises(Failure, match="not equal"):
        learn(pair)
    assert seen.last(ADOPTED.uuid) is None
    # They are read again: a set that runs writes one after the other.
    whole = [pack_super(newer, 255)]

    def pause(_seconds: float) -> None:
        disk[255] = whole.pop()
        pair.spare.write_bytes(disk.data)

    monkeypatch.setattr("time.sleep", pause)
    assert learn(pair) == newer.epoch


def test_nobody_waits_for_a_pipe(pair: Pair) -> None:
    seen.DIRECTORY.mkdir()
    os.mkfifo(seen.path_of(ADOPTED.uuid))
    with pytest.raises(Failure):
        seen.last(ADOPTED.uuid)
    assert learn(pair) == NOW


def test_nobody_else_may_write_there(pair: Pair) -> None:
    old = os.umask(0)
    try:
        learn(pair)
    finally:
        os.umask(old)
    assert stat.S_IMODE(seen.DIRECTORY.stat().st_mode) == 0o755
    assert stat.S_IMODE(seen.path_of(ADOPTED.uuid).stat().st_mode) == 0o644


def test_a_tagged_main_says_it_itself(pair: Pair) -> None:
    pair.put_spare(SB)
    assert learn(pair) is None
    has_seen(Epoch(9, 1))
    code, whole = pair.json("check", "SPARE")
    assert (code, whole["data"]["compared"]["verdict"]) == (0, "not_compared")


@pytest.mark.parametrize("trouble", ["no directory", "is a directory"])
def test_what_cannot_be_written_is_said(pair: Pair, trouble: str) -> None:
    if trouble == "no directory":
        seen.DIRECTORY.write_text("")
    else:
        (seen.path_of(ADOPTED.uuid) / "x").mkdir(parents=True)
    (said,) = seen.learn("home", str(pair.spare), 0, ADOPTED.uuid)
    assert said.startswith("an older copy of home's spare cannot be told")
    assert str(seen.path_of(ADOPTED.uuid)) in said
    assert seen.learn("home", str(pair.spare) + "x", 0, ADOPTED.uuid)


def test_a_cut_leaves_the_one_before(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    has_seen(BEFORE)
    monkeypatch.setattr("os.fsync", lambda _fd: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        learn(pair)
    assert seen.last(ADOPTED.uuid) == BEFORE
    assert len(list(seen.DIRECTORY.iterdir())) == 1


# -------------------------------------------------------------------- verbs


@pytest.mark.parametrize(("then", "code"), CASES.items())
def test_check(pair: Pair, then: tuple[int, int], code: str | None) -> None:
    has_seen(Epoch(*then))
    problem = judge_seen(ADOPTED, Epoch(*then))
    assert (problem.code if problem else None) == code
    exit_code, whole = pair.json("check", "SPARE")
    data = whole["data"]
    assert data["compared"]["main"] is None
    assert data["compared"]["seen_epoch"] == {"number": then[0], "id": f"{then[1]:016x}"}
    words = {None: "same", OLDER: "older_spare", PARTED: "parted"}
    assert data["compared"]["verdict"] == words[code]
    assert [one["code"] for one in data["findings"]] == ([code] if code else [])
    assert exit_code == (2 if code else 0)
    assert (data["load"]["action"], data["load"]["errno"]) == ("refuse" if code else "accept", None)
    out = pair.run("check", "SPARE")[1]
    assert "5, compared with what this host has seen" in out
    if code:
        assert "refused by dmremapctl: " in out
        assert "this host has seen epoch" in out
        step = data["findings"][0]["next_step"]
        words_to_type = shlex.split(step[step.index("dmremapctl repair") :])
        accept = ["dmremapctl", "repair", "--accept-older-spare", str(pair.spare)]
        assert words_to_type == accept
        status, whole = pair.json("repair", "SPARE", "--yes")
        assert (status, whole["error"]["code"]) == (5, "DMR-E531")


@pytest.mark.parametrize(("then", "code"), CASES.items())
def test_accept(pair: Pair, then: tuple[int, int], code: str | None) -> None:
    has_seen(Epoch(*then))
    before = pair.spare.read_bytes(), pair.main.read_bytes()
    if then[0] == lib.DMR_EPOCH_MAX:
        assert pair.json(*ACCEPT, "--yes")[1]["error"]["code"] == "DMR-E532"
        assert pair.spare.read_bytes() == before[0]
        return
    status, whole = pair.json(*ACCEPT, "--dry-run")
    assert (status, whole["data"]["result"]) == (0, "would accept" if code else "clean")
    assert pair.spare.read_bytes() == before[0]
    status, whole = pair.json(*ACCEPT, "--yes")
    assert (status, whole["data"]["result"]) == (0, "accepted" if code else "clean")
    assert whole["data"]["main_writes"] == []
    assert pair.main.read_bytes() == before[1]
    assert judge_seen(on(pair), Epoch(*then)) is None
    if code:
        assert on(pair).epoch.number == max(then[0], NOW.number) + 1
        # Images are no spare that is in use: what has been seen is what it was.
        assert seen.last(ADOPTED.uuid) == Epoch(*then)
    else:
        assert pair.spare.read_bytes() == before[0]


def test_main_need_not_be_named(pair: Pair) -> None:
    has_seen(Epoch(9, 1))
    code, whole = pair.json(*ACCEPT, "--main", "MAIN", "--yes")
    assert (code, whole["error"]["code"]) == (2, "DMR-E201")


def test_what_cannot_be_read_is_said(pair: Pair, tmp_path: Path) -> None:
    backup = str(tmp_path / "backup")
    assert pair.json("export", "--metadata", "SPARE", backup)[0] == 0
    has_seen(NOW)
    seen.path_of(ADOPTED.uuid).write_text("{")
    for verb in ("check", "repair"):
        _, whole = pair.json(verb, "SPARE")
        (finding,) = whole["data"]["findings"]
        assert finding["code"] == "DMR-C110"
        assert str(seen.path_of(ADOPTED.uuid)) in finding["message"]
    pair.spare.write_bytes(bytes(len(fresh(sb=ADOPTED).data)))
    (warning,) = pair.json("import", "--metadata", backup, "SPARE", "--yes")[1]["warnings"]
    assert str(seen.path_of(ADOPTED.uuid)) in warning
    assert "refuses the spare as an older one" in warning


def test_import_says_that_another_host_may_know_more(pair: Pair, tmp_path: Path) -> None:
    backup = str(tmp_path / "backup")
    assert pair.json("export", "--metadata", "SPARE", backup)[0] == 0
    pair.spare.write_bytes(bytes(len(fresh(sb=ADOPTED).data)))
    (warning,) = pair.json("import", "--metadata", backup, "SPARE", "--yes")[1]["warnings"]
    assert "a later epoch than 6" in warning


def test_what_was_seen_meanwhile_counts_for_an_import(pair: Pair, tmp_path: Path) -> None:
    """Somebody was asked, and the set was in use while he thought."""
    backup = str(tmp_path / "backup")
    assert pair.json("export", "--metadata", "SPARE", backup)[0] == 0
    has_seen(NOW)
    pair.spare.write_bytes(bytes(len(fresh(sb=ADOPTED).data)))
    made = restore.plan(offline.read_backup(backup), offline.locate(str(pair.spare)))
    has_seen(Epoch(9, ALIEN))
    before = pair.spare.read_bytes()
    with pytest.raises(DmRemapError) as caught:
        restore.carry_out(made)
    assert caught.value.code == "DMR-E409"
    assert pair.spare.read_bytes() == before


def test_import_begins_behind_what_was_seen(pair: Pair, tmp_path: Path) -> None:
    backup = str(tmp_path / "backup")
    assert pair.json("export", "--metadata", "SPARE", backup)[0] == 0
    has_seen(Epoch(9, ALIEN))
    code, whole = pair.json("import", "--metadata", backup, "SPARE", "--yes")
    assert (code, whole["error"]["code"]) == (5, "DMR-E531")
    pair.spare.write_bytes(bytes(len(fresh(sb=ADOPTED).data)))
    code, whole = pair.json("import", "--metadata", backup, "SPARE", "--yes")
    assert code == 0, whole
    assert on(pair).epoch.number == 10
    assert on(pair).before == Epoch(9, ALIEN)


# ------------------------------------------------------- list and assemble


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> Pair:
    """Have the spare be the only device there is."""

    def facts(path: str, _directory: Path, **_known: object) -> DeviceFacts:
        return DeviceFacts(path, devno=(8, 1), sectors=pair.spare.stat().st_size // 512)

    monkeypatch.setattr(dm, "exists", lambda *_args, **_words: None)
    monkeypatch.setattr(dm, "list_devices", list)
    monkeypatch.setattr(blockdev, "all_devices", lambda: [pair.spare])
    monkeypatch.setattr(blockdev, "node", str)
    monkeypatch.setattr(blockdev, "facts_of", facts)
    monkeypatch.setattr("dmremap.api.find.os.geteuid", lambda: 0)
    return pair


@pytest.mark.parametrize(("then", "code"), CASES.items())
def test_list_and_assemble(devices: Pair, then: tuple[int, int], code: str | None) -> None:
    has_seen(Epoch(*then))
    (one,) = discover.scan()
    assert [why.code for why in one.problems] == ([code] if code else [])
    if code is None:
        return
    (row,) = devices.json("list")[1]["data"]["sets"]
    assert [found["code"] for found in row["findings"]] == [code]
    assert f"dmremapctl repair --accept-older-spare '{devices.spare}'" in devices.run("list")[1]
    for readonly in (False, True):
        with pytest.raises(Refused) as caught:
            assemble.assemble(one, readonly=readonly, dry_run=True)
        assert caught.value.code == "DMR-E531"


def test_a_set_that_starts_meanwhile_is_no_older_spare(
    devices: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its superblock was read before an epoch began, and what was seen after it."""
    newer = Epoch(6, 0xE)
    has_seen(newer)
    plainly = seen.last

    def last(uuid: UUID) -> Epoch | None:
        devices.put_spare(superblock(epoch=newer, before=NOW))
        return plainly(uuid)

    monkeypatch.setattr(seen, "last", last)
    (one,) = discover.scan()
    assert one.problems == ()


def test_an_older_spare_is_none_the_less_if_it_cannot_be_read_again(
    devices: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_seen(Epoch(6, 0xE))
    plainly = seen.last

    def last(uuid: UUID) -> Epoch | None:
        monkeypatch.setattr(discover, "opened", lambda _path: opened("/nowhere"))
        return plainly(uuid)

    monkeypatch.setattr(seen, "last", last)
    (one,) = discover.scan()
    assert [why.code for why in one.problems] == [OLDER]
    assert devices.spare.exists()


def test_what_is_refused_already_is_not_to_be_accepted(devices: Pair) -> None:
    has_seen(Epoch(6, 0xE))
    devices.put_spare(replace(ADOPTED, incompat=1))
    (one,) = discover.scan()
    assert OLDER not in [why.code for why in one.problems]
    assert one.problems


@pytest.mark.usefixtures("devices")
def test_what_is_damaged_keeps_no_set_from_starting() -> None:
    has_seen(NOW)
    seen.path_of(ADOPTED.uuid).write_text("{")
    warnings: list[str] = []
    (one,) = discover.scan(warnings=warnings)
    assert one.problems == ()
    assert len(warnings) == 1
    assert str(seen.path_of(ADOPTED.uuid)) in warnings[0]
