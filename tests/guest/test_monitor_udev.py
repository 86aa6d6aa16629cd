# SPDX-License-Identifier: GPL-2.0-only
"""The monitor where udevd runs, and the example udev rule.  In a guest with udevd, as root."""

import select
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest.lib import ROOT, pattern, run, write
from guest.watching import NEVER, RecordingHook, Watch, WatchedSet, watched_set

from dmremap.monitor.sources import Hint, SourceError, UdevSource, udevd_runs

pytestmark = [pytest.mark.guest, pytest.mark.module]
UDEV = True

EXAMPLE = ROOT / "tools/packaging/udev/99-dmremap-hook.rules.example"
RULE = Path("/etc/udev/rules.d/99-dmremap-hook.rules")
PROGRAM = Path("/usr/local/sbin/dmremap-remapped")


@pytest.fixture(autouse=True)
def udevd() -> None:
    assert udevd_runs(), "this needs a guest with udevd"


@pytest.fixture
def watched() -> Iterator[WatchedSet]:
    with watched_set() as one:
        run("udevadm", "settle")
        yield one
        run("udevadm", "settle")


def remap(one: WatchedSet, sector: int = 800) -> None:
    """Let eight sectors be mapped."""
    one.fault.add(sector, 8, "write", "medium")
    write(one.path, sector, pattern(sector, 8))


def test_the_event_arrives_through_udevd(watched: WatchedSet) -> None:
    source = UdevSource()
    try:
        remap(watched)
        hints: list[Hint] = []
        deadline = time.monotonic() + 15
        while Hint("watched", "remapped") not in hints:
            left = deadline - time.monotonic()
            assert left > 0, hints
            select.select([source], [], [], left)
            hints += source.read()
    finally:
        source.close()


def test_an_overflow_is_an_error_and_a_new_source_works(watched: WatchedSet) -> None:
    source = UdevSource()
    try:
        source._monitor.set_receive_buffer_size(4096)
        for _ in range(200):
            Path(f"/sys/block/{watched.path.resolve().name}/uevent").write_text("change\n")
        run("udevadm", "settle")
        with pytest.raises(SourceError):
            for _ in source.read():
                pass
    finally:
        source.close()
    fresh = UdevSource()
    try:
        remap(watched)
        assert select.select([fresh], [], [], 15)[0]
        assert list(fresh.read())
    finally:
        fresh.close()


def test_a_remap_is_reported_and_runs_the_hook(watched: WatchedSet, tmp_path: Path) -> None:
    hook = RecordingHook(tmp_path)
    with Watch("--hook", str(hook.program), "--rescan", NEVER) as watch:
        watch.wait("found")
        remap(watched)
        event = watch.wait("remapped")
        assert event["status"]["mapped"] == watched.mapped
        env = hook.wait("DMREMAP_EVENT", "remapped")
        assert int(env["DMREMAP_MAPPED"]) == watched.mapped
        assert watch.end() == 0
    assert "hints come from udev" in "".join(watch.log)


@pytest.fixture
def example_rule(tmp_path: Path) -> Iterator[RecordingHook]:
    """The example, installed as its comments say."""
    hook = RecordingHook(tmp_path)
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(hook.program, PROGRAM)
    RULE.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(EXAMPLE, RULE)
    run("udevadm", "control", "--reload")
    yield hook
    RULE.unlink()
    PROGRAM.unlink()
    run("udevadm", "control", "--reload")


def test_the_example_rule_starts_its_program(
    watched: WatchedSet, example_rule: RecordingHook
) -> None:
    assert not Path("/run/systemd/system").exists()
    node = watched.path.resolve().name
    Path(f"/sys/block/{node}/uevent").write_text("change\n")
    run("udevadm", "settle")
    assert example_rule.runs() == [], "it started for a change that was no remap"

    remap(watched)
    env = example_rule.wait("DM_REMAP_EVENT", "remapped")
    assert env["ACTION"] == "change"
    assert env["DEVNAME"] == f"/dev/{node}"
    assert env["DM_NAME"] == "watched"
    assert env["DM_REMAP_TARGET"] == "0"
    assert env["DM_REMAP_SECTOR"] == "800"
    assert int(env["DM_REMAP_COUNT"]) == watched.mapped
    assert int(env["DM_REMAP_SEQ"]) >= 1
    # udevd still knows the device for what it is.
    assert "DM_NAME=watched" in run("udevadm", "info", "--query=property", str(watched.path))
    assert len(example_rule.runs()) == 1


def test_the_example_rule_asks_systemd_where_it_runs(
    watched: WatchedSet, example_rule: RecordingHook
) -> None:
    systemd_run = Path("/usr/bin/systemd-run")
    arguments = example_rule.directory.parent / "arguments"
    kept = systemd_run.with_suffix(".kept")
    systemd_run.rename(kept)
    Path("/run/systemd/system").mkdir(parents=True)
    try:
        systemd_run.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {arguments}\n')
        systemd_run.chmod(0o755)
        remap(watched)
        deadline = time.monotonic() + 15
        while not (arguments.exists() and arguments.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        run("udevadm", "settle")
        words = arguments.read_text().splitlines()
        assert words[0] == "--no-block"
        assert "--setenv=DM_REMAP_SECTOR" in words
        assert words[-1] == str(PROGRAM)
        assert example_rule.runs() == []
    finally:
        Path("/run/systemd/system").rmdir()
        systemd_run.unlink()
        kept.rename(systemd_run)
