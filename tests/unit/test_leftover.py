# SPDX-License-Identifier: GPL-2.0-only
"""What commands that were killed had begun: when it is taken back, and when it stays."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from unit.areas import SB

from dmremap import dm
from dmremap.errors import Busy, Refused
from dmremap.host import begun, blockdev
from dmremap.ondisk import SetState, format_area, opened
from dmremap.ondisk.layout import pack_super
from dmremap.sets import leftover, udevrule

SECTORS = SB.area_sectors
UUID = "REMAP-x"


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Write a note in a child, which is killed."""
    monkeypatch.setattr(begun, "DIRECTORY", tmp_path / "begun")

    def kill(kind: str, **about: str | int) -> None:
        child = os.fork()
        if not child:
            with begun.noted(kind, directory=None, **about):
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)

    return kill


def notes(tmp_path: Path) -> int:
    return len(list((tmp_path / "begun").iterdir()))


@pytest.fixture
def rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: Callable[..., None]) -> Path:
    """Have a rule whose set is in doubt, and a blank spare."""
    monkeypatch.setattr(udevrule, "RULES", tmp_path)
    monkeypatch.setattr(udevrule, "CONTROL", tmp_path / "no-udevd")
    path = udevrule.path_of(SB.uuid)
    path.write_text("# a rule\n")
    (tmp_path / "spare").write_bytes(bytes(SECTORS * 512))
    spare = tmp_path / "spare"
    monkeypatch.setattr(dm, "exists", lambda **_: None)
    monkeypatch.setattr(blockdev, "facts", lambda _, **__: SimpleNamespace(diskseq=7))
    monkeypatch.setattr(blockdev, "suspended", lambda _: False)
    killed("rule", uuid=str(SB.uuid), main="/dev/sda", spare=str(spare), diskseq=7, start=0)
    return path


def test_the_rule_of_a_set_that_runs_stays(
    tmp_path: Path, rule: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dm, "exists", lambda **_: SimpleNamespace())
    leftover.take_back()
    assert (rule.exists(), notes(tmp_path)) == (True, 0)


@pytest.mark.parametrize("how", ["another", "suspended"])
def test_the_rule_stays_while_another_disk_is_there(
    how: str, tmp_path: Path, rule: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "another":
        facts = SimpleNamespace(diskseq=8)
        monkeypatch.setattr(blockdev, "facts", lambda _, **__: facts)
    else:
        monkeypatch.setattr(blockdev, "suspended", lambda _: True)
    leftover.take_back()
    assert (rule.exists(), notes(tmp_path)) == (True, 1)


def test_the_rule_of_a_set_that_was_never_begun_goes(tmp_path: Path, rule: Path) -> None:
    leftover.take_back()
    assert (rule.exists(), notes(tmp_path)) == (False, 0)


def test_the_rule_of_a_set_that_is_half_made_goes(tmp_path: Path, rule: Path) -> None:
    half = pack_super(replace(SB, state=SetState.FORMATTING), 0)
    (tmp_path / "spare").write_bytes(half + bytes(SECTORS * 512 - len(half)))
    leftover.take_back()
    assert (rule.exists(), notes(tmp_path)) == (False, 0)


def test_the_rule_of_a_set_that_is_there_stays(tmp_path: Path, rule: Path) -> None:
    with opened(str(tmp_path / "spare"), write=True) as spare:
        format_area(spare, SB)
    leftover.take_back()
    assert (rule.exists(), notes(tmp_path)) == (True, 0)


@pytest.mark.parametrize("how", ["gone", "unreadable"])
def test_the_rule_stays_while_the_spare_tells_nothing(how: str, tmp_path: Path, rule: Path) -> None:
    spare = tmp_path / "spare"
    if how == "gone":
        spare.rename(tmp_path / "elsewhere")
    else:
        os.truncate(spare, 8192)  # superblock 1 is not there
    leftover.take_back()
    assert (rule.exists(), notes(tmp_path)) == (True, 1)


class Mapper:
    """Device-mapper with one device."""

    def __init__(self, **device: object) -> None:
        self.device: SimpleNamespace | None = SimpleNamespace(uuid=UUID, **device)
        self.done: list[str] = []
        self.refuses = False

    def exists(self, _name: str) -> SimpleNamespace | None:
        return self.device

    def remove(self, name: str) -> None:
        if self.refuses:
            raise Busy("DMR-E405", f"{name} is open")
        self.done.append("remove")

    def resume(self, _name: str) -> None:
        if self.refuses:
            self.refuses = False
            raise Refused("DMR-E519", "no")
        self.done.append("resume")


@pytest.mark.parametrize(
    ("kind", "device", "refuses", "done"),
    [
        ("device", {"live_table": False, "suspended": False}, False, ["remove"]),
        ("device", {"live_table": False, "suspended": True}, False, ["remove"]),
        ("device", {"live_table": True, "suspended": False}, False, []),
        ("device", {"live_table": True, "suspended": True}, False, ["resume"]),
        ("device", {"live_table": True, "suspended": True}, True, ["remove"]),
        ("suspended", {"live_table": True, "suspended": True}, False, ["resume"]),
        ("suspended", {"live_table": True, "suspended": False}, False, []),
    ],
)
@pytest.mark.parametrize("uuid", [UUID, "REMAP-other", ""])
def test_devices(
    kind: str,
    device: dict[str, bool],
    refuses: bool,
    done: list[str],
    uuid: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed: Callable[..., None],
) -> None:
    mapper = Mapper(**device)
    mapper.refuses = refuses
    monkeypatch.setattr(leftover, "dm", mapper)
    killed(kind, name="home", uuid=uuid)
    leftover.take_back()
    assert mapper.done == (done if uuid == UUID else [])
    assert notes(tmp_path) == 0


def test_what_cannot_be_taken_back_now_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: Callable[..., None]
) -> None:
    mapper = Mapper(live_table=False, suspended=False)
    monkeypatch.setattr(leftover, "dm", mapper)
    part = tmp_path / "part"
    part.touch()
    killed("device", name="home", uuid=UUID)
    killed("file", path=str(part))
    mapper.refuses = True
    leftover.take_back()
    assert (notes(tmp_path), part.exists()) == (1, False)
    mapper.refuses = False
    leftover.take_back()
    assert (notes(tmp_path), mapper.done) == (0, ["remove"])
