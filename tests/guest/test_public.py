# SPDX-License-Identifier: GPL-2.0-only
"""`import dmremap`: the examples of its docstrings are run. In a guest, as root.

They run as they stand, but for the two disks: main is /dev/sda and the spare /dev/sdb.
"""

import doctest
import inspect
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from guest.lib import MIB, dm_names, loop_device, write

import dmremap
from dmremap import dm

pytestmark = [pytest.mark.guest, pytest.mark.module]

SPARE_SECTORS = 6 * MIB // 512


@dataclass(frozen=True, slots=True)
class Disks:
    main: Path
    spare: Path

    def named(self, example: str) -> str:
        """Return an example with the names of these disks."""
        return example.replace("/dev/sda", str(self.main)).replace("/dev/sdb", str(self.spare))


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disks]:
    """Two blank disks, and a directory for what the examples write."""
    monkeypatch.chdir(tmp_path)
    with loop_device(10 * MIB) as main, loop_device(8 * MIB) as spare:
        yield Disks(main, spare)
        dmremap.remove(everything=True)
        assert dm_names() == []


def blank(_: Disks) -> None:
    pass


def running(disks: Disks) -> None:
    dmremap.create(str(disks.main), str(disks.spare), name="backup", spare_sectors=SPARE_SECTORS)


def stopped(disks: Disks) -> None:
    running(disks)
    dmremap.remove("backup")


def image(disks: Disks) -> None:
    """A spare in a file."""
    stopped(disks)
    shutil.copyfile(disks.spare, "spare.img")


def backup(disks: Disks) -> None:
    image(disks)
    dmremap.export_metadata("spare.img", "set.backup")


def older(disks: Disks) -> None:
    """The spare as it was before the set was used the last time."""
    stopped(disks)
    before = disks.spare.read_bytes()
    dmremap.assemble("backup")
    dmremap.remove("backup")
    disks.spare.write_bytes(before)


def tagless(disks: Disks) -> None:
    stopped(disks)
    write(disks.main, 0, bytes(MIB))


def tag_in_data(disks: Disks) -> None:
    """An adopted main that holds the tag of a main of another set."""
    stopped(disks)
    tag = disks.main.read_bytes()[:MIB]
    disks.spare.write_bytes(bytes(8 * MIB))
    disks.main.write_bytes(bytes(10 * MIB))
    dmremap.adopt(str(disks.main), str(disks.spare), name="backup")
    write(Path("/dev/mapper/backup"), 0, tag)
    dmremap.remove("backup")


SCENES: dict[str, Callable[[Disks], None]] = {
    "accept_older_spare": older,
    "adopt": blank,
    "assemble": stopped,
    "binary_size": blank,
    "check": image,
    "create": blank,
    "events": running,
    "examine": stopped,
    "explain": blank,
    "export_metadata": image,
    "find": running,
    "grow": running,
    "import_metadata": backup,
    "judge": running,
    "load_module": blank,
    "module_status": blank,
    "remove": running,
    "repair": image,
    "retag": tagless,
    "scrub": running,
    "self_test": blank,
    "status": running,
    "tag_is_content": tag_in_data,
    "to_dict": blank,
    "unload_module": blank,
    "versions": blank,
    "watch": running,
}
VERBS = [name for name in dmremap.__all__ if inspect.isfunction(getattr(dmremap, name))]


@pytest.mark.parametrize("name", VERBS)
def test_an_example_is_true(name: str, disks: Disks) -> None:
    SCENES[name](disks)
    text = disks.named(getattr(dmremap, name).__doc__)
    example = doctest.DocTestParser().get_doctest(text, {"dmremap": dmremap}, name, None, None)
    said: list[str] = []
    done = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert done.attempted > 0
    assert done.failed == 0, "".join(said)


def test_events_survive_a_restart_of_the_set(disks: Disks) -> None:
    """One iterator sees a set that is stopped, started under another name, and used."""
    running(disks)
    events = dmremap.events(rescan=0.2)
    assert next(events).event == "found"
    dmremap.remove("backup")
    assert next(events).event == "removed"
    dmremap.assemble("backup", name="other")
    seen = next(events)
    assert (seen.event, seen.name, seen.state) == ("assembled", "other", dmremap.HealthState.OK)
    dm.suspend("other")
    dm.message("other", 0, "remap 0 8")
    dm.resume("other")
    seen = next(events)
    assert (seen.event, seen.count) == ("remapped", 8)
    events.close()


def test_events_give_back_what_they_hold(disks: Disks) -> None:
    """Closed in the middle, with the event of another set still to come."""
    running(disks)
    before = set(os.listdir("/proc/self/fd"))
    events = dmremap.events()
    next(events)
    assert set(os.listdir("/proc/self/fd")) > before
    events.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_confirm_is_asked_before_anything_is_written(disks: Disks) -> None:
    asked: list[dmremap.Created] = []

    def refuse(plan: dmremap.Created) -> None:
        asked.append(plan)
        raise dmremap.Refused("DMR-E520", "no")

    with pytest.raises(dmremap.Refused):
        dmremap.create(str(disks.main), str(disks.spare), name="backup", confirm=refuse)
    assert [plan.dry_run for plan in asked] == [True]
    assert disks.main.read_bytes() == bytes(10 * MIB)
    assert disks.spare.read_bytes() == bytes(8 * MIB)
    assert dm_names() == []
