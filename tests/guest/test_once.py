# SPDX-License-Identifier: GPL-2.0-only
"""A set runs once, under whatever names its disks are there, and the refusal names who has it.

Runs inside a guest, as root.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guest import dmioctl
from guest.lib import (
    SECTOR,
    CommandError,
    background,
    backing_file,
    dm_create,
    dm_device,
    dm_load,
    dm_reload,
    dm_remove,
    dm_resume,
    fault_device,
    loop_device,
    pattern,
    run,
    try_write,
    wait_for,
)
from guest.remapset import KernelLog, contents, held, read_superblock, refusal, status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dmremap.ondisk import Superblock

pytestmark = [pytest.mark.guest, pytest.mark.module]

MAIN = 8192
SPARE = 4096
"""Sectors of the two disks."""

IN_USE = "remap: the set is in use already"


@dataclass(frozen=True)
class Disks:
    """Names of main and spare."""

    main: Path
    spare: Path

    @property
    def line(self) -> str:
        """The table line of a set on them."""
        return f"0 {MAIN} remap {self.main} {self.spare} 0 {SPARE}"

    @property
    def superblock(self) -> Superblock:
        """What the spare says."""
        return read_superblock(self.spare)

    @property
    def uuid(self) -> str:
        """The uuid of the set on the spare."""
        return str(self.superblock.uuid)


@pytest.fixture
def blank() -> Iterator[Disks]:
    """Two blank disks."""
    with loop_device(MAIN * SECTOR) as main, loop_device(SPARE * SECTOR) as spare:
        yield Disks(main, spare)


@pytest.fixture
def disks(blank: Disks) -> Disks:
    """The disks of a set that does not run."""
    with dm_device("first", blank.line):
        pass
    return blank


@contextmanager
def loops(disks: Disks) -> Iterator[Disks]:
    """Have other loop devices of the same files."""
    with (
        loop_device(image=backing_file(disks.main)) as main,
        loop_device(image=backing_file(disks.spare)) as spare,
    ):
        yield Disks(main, spare)


@contextmanager
def volumes(disks: Disks) -> Iterator[Disks]:
    """Have linear maps of the disks."""
    with (
        dm_device("volume-m", f"0 {MAIN} linear {disks.main} 0") as main,
        dm_device("volume-s", f"0 {SPARE} linear {disks.spare} 0") as spare,
    ):
        yield Disks(main, spare)


@contextmanager
def copies(disks: Disks) -> Iterator[Disks]:
    """Have disks with the same bytes."""
    with loop_device(MAIN * SECTOR) as main, loop_device(SPARE * SECTOR) as spare:
        for source, copy in ((disks.main, main), (disks.spare, spare)):
            run("dd", f"if={source}", f"of={copy}", "bs=1M", "oflag=direct", "conv=fsync")
        yield Disks(main, spare)


OTHER_NAMES = {"loop devices": loops, "linear maps": volumes, "copies": copies}
several = pytest.mark.parametrize("names", OTHER_NAMES)


def numbers(name: str) -> str:
    """Return major:minor of a device, as the kernel's log has it."""
    dev = dmioctl.info(name).dev
    return f"{os.major(dev)}:{os.minor(dev)}"


def used(uuid: str, name: str) -> str:
    """Return what is logged of a set that runs as a device."""
    return f"the set {uuid} is in use by {name} ({numbers(name)})"


@contextmanager
def loaded(name: str, line: str, *, readonly: bool = False) -> Iterator[None]:
    """Have a device whose table was never resumed."""
    dmioctl.create(name)
    try:
        dm_load(name, line, readonly=readonly)
        yield
    finally:
        dm_remove(name)


def refused_resume(name: str) -> str:
    """Fail to resume a device because it is busy; return what the kernel logs."""
    with KernelLog() as log, pytest.raises(CommandError, match="busy"):
        dm_resume(name)
    return log.text


# Who runs a set


@several
def test_under_other_names_a_set_that_runs_is_refused(names: str, disks: Disks) -> None:
    with OTHER_NAMES[names](disks) as others, dm_device("home", disks.line):
        before = contents(others.main, others.spare)
        with pytest.raises(CommandError, match="busy"):
            dm_create("other", others.line)
        log = refusal(others.line)
        assert IN_USE in log
        assert used(disks.uuid, "home") in log
        assert contents(others.main, others.spare) == before
        assert status("home").mode == "rw"


@several
def test_of_two_tables_of_one_set_the_first_resumed_starts(names: str, disks: Disks) -> None:
    with OTHER_NAMES[names](disks) as others, loaded("other", others.line):
        with dm_device("home", disks.line):
            before = contents(others.main, others.spare)
            log = refused_resume("other")
            assert used(disks.uuid, "home") in log
            assert contents(others.main, others.spare) == before
            assert status("other").mode == "init"
        # The other one is gone, and with it what was in the way.
        dm_resume("other")
        assert status("other").mode == "rw"


def test_of_the_same_disks_the_refusal_names_who_has_them(disks: Disks) -> None:
    with dm_device("home", disks.line):
        assert used(disks.uuid, "home") in refusal(disks.line)
        with loop_device(SPARE * SECTOR) as other:
            log = refusal(Disks(disks.main, other).line)
            assert f"main or the spare is in use by home ({numbers('home')})" in log


def test_a_refusal_has_the_name_of_today(disks: Disks) -> None:
    with loops(disks) as others:
        dm_create("home", disks.line)
        run("dmsetup", "rename", "home", "house")
        try:
            assert used(disks.uuid, "house") in refusal(others.line)
        finally:
            dm_remove("house")


@pytest.mark.parametrize("readonly", [(True, False), (False, True), (True, True)])
def test_a_read_only_table_counts(readonly: tuple[bool, bool], disks: Disks) -> None:
    first, second = readonly
    with loops(disks) as others, loaded("late", others.line, readonly=second):
        with dm_device("home", disks.line, readonly=first):
            assert used(disks.uuid, "home") in refusal(others.line, readonly=second)
            assert used(disks.uuid, "home") in refused_resume("late")
        dm_resume("late")
        assert status("late").mode == ("ro" if second else "rw")


def test_a_device_may_be_reloaded_under_any_names(disks: Disks) -> None:
    with loops(disks) as others, dm_device("home", disks.line) as path:
        assert try_write(path, 7, pattern(7)) == "OK"
        for line in (disks.line, others.line, others.line, disks.line):
            dm_reload("home", line)
            assert held(path, 7) == ["7/0"]
        # What has left with its table does not stand for the set, and what came does.
        assert used(disks.uuid, "home") in refusal(others.line)


def test_a_set_that_was_left_by_a_reload_may_start_elsewhere(disks: Disks) -> None:
    with loops(disks) as others, dm_device("home", disks.line):
        dm_reload("home", f"0 {MAIN} linear {disks.main} 0")
        with dm_device("other", others.line):
            assert status("other").mode == "rw"
            with KernelLog() as log, pytest.raises(CommandError, match="busy"):
                dm_load("home", disks.line)
            assert used(disks.uuid, "other") in log.text


def test_who_cannot_start_a_set_does_not_have_it(disks: Disks) -> None:
    with (
        loops(disks) as others,
        fault_device(disks.spare) as fault,
        loaded("home", Disks(disks.main, fault.path).line),
    ):
        segment = disks.superblock.segments[0]
        for block in (segment.copy_a, segment.copy_b):
            fault.add(block * 8, 8, "read", "medium")
        with KernelLog() as log, pytest.raises(CommandError):
            dm_resume("home")
        assert "are gone" in log.text
        fault.clear()
        with dm_device("other", others.line):
            assert used(disks.uuid, "other") in refused_resume("home")
        dm_resume("home")
        assert status("home").mode == "rw"


def test_two_targets_of_one_table_are_not_one_set(blank: Disks) -> None:
    half = MAIN // 2

    def part(disks: Disks, start: int) -> str:
        return f"{start} {half} remap {disks.main} {disks.spare} 0 {SPARE}\n"

    with loops(blank) as others:
        # Both spares are blank, as far as can be seen.
        with loaded("home", part(blank, 0) + part(others, half)):
            log = refused_resume("home")
            assert used(blank.uuid, "home") in log
        log = refusal(part(blank, 0) + part(others, half))
        assert IN_USE in log
        assert f"the set {blank.uuid} is in use by refused (" in log
        # Neither of the two has it now.
        with dm_device("home", part(others, 0)):
            assert status("home").mode == "rw"


# Who formats


def test_of_two_names_of_a_blank_spare_one_is_formatted(blank: Disks) -> None:
    with loops(blank) as others, loaded("other", others.line):
        with dm_device("home", blank.line):
            before = contents(blank.main, blank.spare)
            assert used(blank.uuid, "home") in refused_resume("other")
            assert contents(blank.main, blank.spare) == before
        # It is not the set that its table was loaded for.
        with KernelLog() as log, pytest.raises(CommandError):
            dm_resume("other")
        assert "the spare no longer holds the set that the table was loaded for" in log.text
        assert contents(blank.main, blank.spare) == before


def starter(name: str) -> subprocess.Popen[bytes]:
    """Begin to resume a device, and make sure that it waits for a format."""
    resume = ["dmsetup", "--noudevrules", "--noudevsync", "resume", name]
    process = subprocess.Popen(resume, stderr=subprocess.PIPE)
    stack = Path(f"/proc/{process.pid}/stack")
    # What it would do else takes milliseconds.
    wait_for(lambda: "[dm_remap]" in stack.read_text(), "the resume")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    return process


def test_formats_are_made_one_after_the_other(blank: Disks) -> None:
    with ExitStack() as stack:
        others = stack.enter_context(loops(blank))
        fault = stack.enter_context(fault_device(blank.spare))
        stack.enter_context(loaded("home", Disks(blank.main, fault.path).line))
        stack.callback(fault.release)
        dmioctl.create("other")
        dm_load("other", others.line)
        # The first superblock is there, the tables are not.
        fault.hold("write", 256 * 8, 8)
        first = background(dm_resume, "home")
        fault.wait_held()
        with starter("other") as second:
            second.send_signal(signal.SIGKILL)
            assert second.wait(30) == -signal.SIGKILL
        # Who does not want to wait can go.
        dm_remove("other")

        # What was begun has a uuid, and whoever would finish it waits, too.
        stack.enter_context(loaded("other", others.line))
        with KernelLog() as log, starter("other") as third:
            fault.release()
            first.result(30)
            _, error = third.communicate(timeout=30)
        assert third.returncode != 0
        assert b"busy" in error
        assert used(blank.uuid, "home") in log.text
        assert (status("home").mode, status("other").mode) == ("rw", "init")
