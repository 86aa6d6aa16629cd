# SPDX-License-Identifier: GPL-2.0-only
"""Who waits for what: a disk that takes long is no hung task, and sysfs holds nobody up.

The kernel calls a task hung that sleeps for so many seconds without being woken. A spare that
takes longer for a command is slow, and waiting for it is no bug to be reported.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from guest.lib import (
    background,
    dm_message,
    dm_reload,
    dm_resume,
    dm_suspend,
    pattern,
    wait_for,
    write,
)
from guest.remapset import SMALLEST_AREA, KernelLog, remap_set, segment_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from guest.lib import Fault
    from guest.remapset import RemapSet

pytestmark = [pytest.mark.guest, pytest.mark.module]

HUNG_SECONDS = 2
"""From then on a task that sleeps is called hung; looked for as often."""
SLOW_SECONDS = 3 * HUNG_SECONDS + 0.5


@pytest.fixture(autouse=True)
def _impatient() -> Iterator[None]:
    knobs = {
        "hung_task_timeout_secs": HUNG_SECONDS,
        "hung_task_check_interval_secs": 1,
        "hung_task_warnings": 10,
    }
    before = {name: Path(f"/proc/sys/kernel/{name}").read_text() for name in knobs}
    for name, value in knobs.items():
        Path(f"/proc/sys/kernel/{name}").write_text(str(value))
    yield
    for name, text in before.items():
        Path(f"/proc/sys/kernel/{name}").write_text(text)


@contextmanager
def nobody_hangs() -> Iterator[None]:
    with KernelLog() as log:
        yield
    assert "blocked for more than" not in log.text


def slowly(leg: Fault, work: Future[Any]) -> None:
    """Let what is held go after a time for which no task may be called hung."""
    leg.wait_held()
    time.sleep(SLOW_SECONDS)
    assert not work.done()
    leg.release()


# Slow disks


def test_a_load_of_a_slow_spare(small: RemapSet) -> None:
    small.remove()
    small.spare.hold("read", segment_of(small).copy_a * 8, 8)
    with nobody_hangs():
        load = background(small.create)
        slowly(small.spare, load)
        load.result(30)
    assert small.status.mode == "rw"


@pytest.mark.parametrize(
    ("direction", "words"), [("write", ("rename", "other")), ("read", ("scrub", "0", "9"))]
)
def test_a_message_to_a_slow_spare(direction: str, words: tuple[str, ...], small: RemapSet) -> None:
    small.spare.hold(direction, 0, 8)
    with nobody_hangs():
        message = background(dm_message, small.name, *words)
        slowly(small.spare, message)
        message.result(30)


def test_a_resume_waits_for_a_slow_message(small: RemapSet) -> None:
    """A suspend waits for those in device-mapper itself, which is not ours to change."""
    small.main.add(8, 1, "write", "medium")
    write(small.path, 8, pattern(8))
    dm_suspend(small.name)
    small.spare.hold("write", 0, 8)
    with nobody_hangs():
        message = background(dm_message, small.name, "rename", "other")
        small.spare.wait_held()
        resume = background(dm_resume, small.name)
        slowly(small.spare, resume)
        message.result(30)
        resume.result(30)
    assert small.mapped == [8]


# A group in sysfs that somebody does not let go


@contextmanager
def sysfs_is_held(made: RemapSet) -> Iterator[Path]:
    """Have a reader in the group, so that removing it takes as long as he does."""
    group = Path(f"/sys/dev/block/{os.major(n := made.path.stat().st_rdev)}:{os.minor(n)}/remap-0")
    wait_for(group.exists, "the files in sysfs")
    slow = made.main.slow_file(made.path, "remap-0")
    reader = background(slow.read_text)
    wait_for(lambda: "slow_show" in kernel_stacks(), "the reader")
    try:
        yield group
    finally:
        made.main.read_slow_file()
    reader.exception(30)


def kernel_stacks() -> str:
    """Return where the threads of this process wait in the kernel."""
    return "".join(path.read_text() for path in Path("/proc/self/task").glob("*/stack"))


def statistics(made: RemapSet) -> None:
    """Have device-mapper keep statistics, for which it suspends the device in its own way."""
    dm_message(made.name, "@stats_create", "-", "/1")
    dm_suspend(made.name)


REQUESTS: dict[str, Callable[[RemapSet], object]] = {
    "suspend": lambda made: dm_suspend(made.name),
    "suspend noflush": lambda made: dm_suspend(made.name, flush=False, lockfs=False),
    "statistics": statistics,
}


@pytest.mark.parametrize("how", REQUESTS)
def test_suspend_and_resume_do_not_wait_for_sysfs(how: str, small: RemapSet) -> None:
    with sysfs_is_held(small) as group:
        for _ in range(3):
            background(REQUESTS[how], small).result(10)
            assert dm_message(small.name, "remap", 16, 1) == "done 1 of 1"
            background(dm_resume, small.name).result(10)
        write(small.path, 8, pattern(8))
        assert small.status.mode == "rw"
    wait_for((group / "mode").exists, "the files in sysfs, again")
    assert (group / "mapped").read_text() == "1\n"


def test_another_set_does_not_wait_for_sysfs(small: RemapSet) -> None:
    """A reload does, at its very end, when the old table goes: the new one works already."""
    with remap_set(main_size=1 << 20, spare_size=SMALLEST_AREA * 512, name="other") as other:
        with sysfs_is_held(small):
            background(dm_suspend, other.name).result(10)
            background(dm_resume, other.name).result(10)
            reload = background(dm_reload, small.name, small.line)
            wait_for(lambda: small.status.remapped == 0 and small.status.mode == "rw", "a table")
            background(write, small.path, 8, pattern(8)).result(10)
            background(write, other.path, 8, pattern(8)).result(10)
        reload.result(30)
