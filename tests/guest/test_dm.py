# SPDX-License-Identifier: GPL-2.0-only
"""dmremap.dm beside dmsetup, on the kernel's own targets. In a guest, as root."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from guest.lib import dmsetup, load_module, loop_device, run, wait_for

from dmremap import dm
from dmremap.dm import EventPoller, Target
from dmremap.errors import Busy, Failure, KernelError, NotFound, Refused

pytestmark = pytest.mark.guest

NAME = "dm test [x] a\u00df"
UUID = "TEST-0f1e2d3c"


@pytest.fixture(autouse=True)
def no_leftovers() -> Iterator[None]:
    """No cookie and no device stays, whatever failed."""
    load_module("dm_mod")
    before = dmsetup("ls"), dmsetup("udevcookies")
    yield
    assert (dmsetup("ls"), dmsetup("udevcookies")) == before


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    with loop_device() as path:
        yield path


def numbers(path: Path) -> str:
    return run("lsblk", "--nodeps", "--noheadings", "--output", "MAJ:MIN", path).strip()


@pytest.fixture
def device(disk: Path) -> Iterator[dm.Device]:
    made = dm.create(NAME, UUID, [Target(0, 2048, "linear", f"{disk} 8")])
    yield made
    if dm.exists(NAME):
        dm.remove(NAME)


def test_create_is_there_when_it_returns(device: dm.Device, disk: Path) -> None:
    assert Path(dm.device_path(NAME)).is_block_device()
    assert dmsetup("table", NAME) == f"0 2048 linear {numbers(disk)} 8"
    assert dmsetup("info", "-c", "--noheadings", "-o", "uuid,suspended,major,minor", NAME) == (
        f"{UUID}:Active:{device.major}:{device.minor}"
    )
    assert (device.name, device.uuid, device.suspended) == (NAME, UUID, False)
    assert device.live_table
    assert not device.read_only
    assert [str(line) for line in dm.table(NAME)] == [f"0 2048 linear {numbers(disk)} 8"]
    assert [line.type for line in dm.status(NAME)] == ["linear"]
    assert dm.deps(NAME) == [tuple(int(part) for part in numbers(disk).split(":"))]


def test_finding(device: dm.Device) -> None:
    assert dm.exists(uuid=UUID) == dm.info(NAME) == device
    assert dm.exists("nobody") is None
    assert device in dm.list_devices()
    with pytest.raises(NotFound):
        dm.info("nobody")
    assert "linear" in {target.name for target in dm.targets()}
    assert dm.driver_version().startswith("4.")


def test_readonly(disk: Path) -> None:
    made = dm.create("ro", "", [Target(0, 8, "linear", f"{disk} 0")], readonly=True)
    assert made.read_only
    dm.remove("ro")


def test_a_name_or_uuid_that_is_taken(device: dm.Device, disk: Path) -> None:
    table = [Target(0, 8, "linear", f"{disk} 0")]
    for name, uuid in ((NAME, ""), ("other", UUID)):
        with pytest.raises(Busy) as caught:
            dm.create(name, uuid, table)
        assert caught.value.code == "DMR-E406"
    assert dm.info(NAME).minor == device.minor


def test_the_kernels_reason_is_in_the_message() -> None:
    with pytest.raises(Refused, match="Invalid argument count") as caught:
        dm.create("bad", "", [Target(0, 8, "linear", "/dev/null")])
    assert caught.value.code == "DMR-E519"
    assert dm.exists("bad") is None


def test_unknown_target() -> None:
    with pytest.raises(KernelError, match="unknown target type") as caught:
        dm.create("bad", "", [Target(0, 8, "nosuch", "")])
    assert caught.value.code == "DMR-E702"


def test_swap(device: dm.Device, disk: Path) -> None:
    dm.swap(NAME, [Target(0, 2048, "error", "")])
    assert dmsetup("table", NAME).split() == ["0", "2048", "error"]
    with pytest.raises(Refused):
        dm.swap(NAME, [Target(0, 2048, "linear", "nonsense")])
    after = dm.info(NAME)
    assert dmsetup("table", NAME).split() == ["0", "2048", "error"]
    assert not after.suspended
    assert not after.inactive_table
    dm.swap(NAME, [Target(0, 2048, "linear", f"{disk} 16")])
    assert dm.info(NAME).minor == device.minor


def test_suspend_and_resume(device: dm.Device) -> None:
    dm.suspend(device.name)
    assert dm.info(NAME).suspended
    assert dmsetup("info", "-c", "--noheadings", "-o", "suspended", NAME) == "Suspended"
    dm.resume(NAME)
    assert not dm.info(NAME).suspended


def test_a_loaded_table_can_be_forgotten(device: dm.Device) -> None:
    dm.reload(device.name, [Target(0, 8, "error", "")])
    assert [line.type for line in dm.table(NAME, inactive=True)] == ["error"]
    dm.clear(NAME)
    assert not dm.info(NAME).inactive_table


def test_remove_of_an_open_device(device: dm.Device) -> None:
    path = Path(dm.device_path(device.name))
    with path.open("rb"):
        with pytest.raises(Busy) as caught:
            dm.remove(NAME, retry=False)
        assert caught.value.code == "DMR-E405"
        dm.remove(NAME, deferred=True)
        assert dm.info(NAME).deferred_remove
    wait_for(lambda: dm.exists(NAME) is None, "the deferred removal")
    path.unlink(missing_ok=True)


def test_remove_takes_the_node_away(device: dm.Device) -> None:
    dm.remove(device.name)
    assert not Path(dm.device_path(NAME)).exists()
    with pytest.raises(NotFound):
        dm.remove(NAME)


def test_message_to_a_target_that_takes_none(device: dm.Device) -> None:
    with pytest.raises((KernelError, Failure)):
        dm.message(device.name, 0, "hello")


def test_poll(device: dm.Device) -> None:
    with EventPoller() as events:
        assert not events.wait(0.1)
        dm.swap(device.name, [Target(0, 2048, "error", "")])
        assert events.wait(5)
        events.arm()
        assert not events.wait(0.1)
