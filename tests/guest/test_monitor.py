# SPDX-License-Identifier: GPL-2.0-only
"""The monitor where no udevd runs: kernel events, state, hooks.  In a guest, as root."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guest import answers
from guest.lib import (
    ROOT,
    Device,
    dm_create,
    dm_remove,
    outcome,
    pattern,
    run,
    try_read,
    write,
)
from guest.watching import NEVER, RecordingHook, Watch, WatchedSet, watched_set

from dmremap.monitor.sources import Hint, NetlinkSource, udevd_runs

pytestmark = [pytest.mark.guest, pytest.mark.module]


@pytest.fixture(autouse=True)
def no_udevd() -> None:
    assert not udevd_runs(), "this needs a guest without udevd"


@pytest.fixture
def watched() -> Iterator[WatchedSet]:
    with watched_set() as one:
        yield one


def collect(source: NetlinkSource, wanted: Hint, timeout: float = 10.0) -> list[Hint]:
    """Read hints until the wanted one is there, or the time is over."""
    hints: list[Hint] = []
    deadline = time.monotonic() + timeout
    while wanted not in hints and (left := deadline - time.monotonic()) > 0:
        select.select([source], [], [], left)
        hints += source.read()
    return hints


def test_the_kernels_event_arrives_as_a_hint(watched: WatchedSet) -> None:
    source = NetlinkSource()
    try:
        watched.fault.add(800, 8, "write", "medium")
        write(watched.path, 800, pattern(800, 8))
        wanted = Hint("watched", "remapped")
        assert wanted in collect(source, wanted)
    finally:
        source.close()


def test_what_a_process_sends_is_no_hint(watched: WatchedSet) -> None:  # noqa: ARG001
    forged = b"change@/x\0SUBSYSTEM=block\0DEVNAME=dm-0\0DM_NAME=forged\0DM_REMAP_EVENT=mode\0"
    source = NetlinkSource()
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15) as sender:
            sender.bind((0, 0))
            sender.sendto(forged, (0, 1))
        assert collect(source, Hint("forged", "mode"), timeout=1.0) == []
    finally:
        source.close()


def test_a_remap_is_reported_and_runs_the_hook(watched: WatchedSet, tmp_path: Path) -> None:
    hook = RecordingHook(tmp_path)
    with Watch("--hook", str(hook.program), "--rescan", NEVER) as watch:
        found = watch.wait("found")
        assert (found["name"], found["state"]) == ("watched", "ok")
        watched.fault.add(800, 8, "write", "medium")
        write(watched.path, 800, pattern(800, 8))

        event = watch.wait("remapped")
        assert (event["name"], event["state"]) == ("watched", "degraded")
        assert event["codes"] == ["DMR-H101"]
        assert event["count"] == event["status"]["mapped"] == watched.mapped
        assert watch.wait("health")["message"].endswith("from OK to DEGRADED")

        env = hook.wait("DMREMAP_EVENT", "remapped")
        assert env["DMREMAP_NAME"] == "watched"
        assert env["DMREMAP_DEVICE"] == "/dev/mapper/watched"
        assert env["DMREMAP_UUID"] == found["uuid"]
        assert env["DMREMAP_STATE"] == "DEGRADED"
        assert env["DMREMAP_CODES"] == "DMR-H101"
        assert int(env["DMREMAP_MAPPED"]) == watched.mapped
        assert env["DMREMAP_MODE"] == "rw"
        hook.wait("DMREMAP_EVENT", "health")
        assert watch.end() == 0
    assert "hints come from netlink" in "".join(watch.log)


def total(watch: Watch, event: str, count: int) -> dict[str, Any]:
    """Wait for events until their counts make this sum; return the last one."""
    seen = 0
    while seen < count:
        last = watch.wait(event)
        seen += last["count"]
    assert seen == count
    return last


def test_pending_and_cleared(watched: WatchedSet) -> None:
    with Watch("--rescan", "1") as watch:
        watch.wait("found")
        watched.fault.add(1600, 8, "read", "medium", "until_written")
        assert try_read(watched.path, 1600, 8) != "OK"
        # A rescan may fall into the middle of the read: then there are two events.
        assert total(watch, "pending", 8)["codes"] == ["DMR-H102"]
        write(watched.path, 1600, pattern(1600, 8))
        # That a block is good again is no event of the kernel's: the timer finds it.
        total(watch, "pending_cleared", 8)
        assert watch.wait("health")["state"] == "ok"
        assert watch.end(signal.SIGINT) == 0


def test_flushes_that_fail(watched: WatchedSet) -> None:
    def flush() -> str:
        with Device(watched.path) as device:
            return outcome(device.flush)

    with Watch("--rescan", NEVER) as watch:
        watch.wait("found")
        watched.fault.add(0, 0, "flush", "medium")
        assert flush() == "ENODATA"
        assert watch.wait("probe")["message"] == "the main device is failing as a whole"
        assert watch.wait("flush_failed")["count"] == 1
        assert watch.wait("health")["codes"] == ["DMR-H105", "DMR-H307"]
        watched.fault.clear()
        assert flush() == "OK"
        assert watch.wait("probe")["message"].endswith("no longer failing as a whole")
        assert watch.wait("health")["codes"] == ["DMR-H307"]
        assert watch.end() == 0


def test_sets_come_and_go() -> None:
    with Watch("--rescan", NEVER) as watch:
        watch.wait_for_source("netlink")
        with watched_set("second"):
            assert watch.wait("assembled")["name"] == "second"
        event = watch.wait("removed")
        assert (event["name"], event["state"], event["status"]) == ("second", None, None)
        assert watch.end() == 0


def test_it_waits_quietly_where_no_set_is() -> None:
    with Watch("--rescan", "0.2") as watch:
        watch.wait_for_source("netlink")
        dm_create("other", "0 8 zero")
        try:
            time.sleep(1)
        finally:
            dm_remove("other")
        assert watch.process.poll() is None
        assert watch.end() == 0
        assert watch.seen == []


def test_it_ends_by_itself(watched: WatchedSet) -> None:
    with Watch("--once") as watch:
        assert watch.wait("found")["name"] == "watched"
        assert watch.process.wait(timeout=30) == 0
    with Watch("--count", "2", "--rescan", NEVER) as watch:
        watch.wait("found")
        watched.fault.add(800, 8, "write", "medium")
        write(watched.path, 800, pattern(800, 8))
        watch.wait("remapped")
        assert watch.process.wait(timeout=30) == 0


def test_a_hook_that_hangs_holds_nothing_up(watched: WatchedSet, tmp_path: Path) -> None:
    program = tmp_path / "hang"
    program.write_text("#!/bin/sh\nsleep 1000 &\nwait\n")
    program.chmod(0o755)
    with Watch("--hook", str(program), "--hook-timeout", "2", "--hook-jobs", "1") as watch:
        watch.wait("found")
        begin = time.monotonic()
        watched.fault.add(800, 8, "write", "medium")
        write(watched.path, 800, pattern(800, 8))
        watch.wait("remapped", timeout=10)
        assert time.monotonic() - begin < 10
        assert watch.end() == 0
    assert "was killed" in "".join(watch.log)
    assert "sleep 1000" not in run("ps", "-eo", "args")


def test_health(watched: WatchedSet) -> None:
    def health(*args: str) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-m", "dmremap", "health", "-o", "json", *args],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        return done.returncode, answers.answer(done.stdout)

    status, answer = health()
    assert status == 0
    assert isinstance(answer["data"], dict)
    assert answer["data"]["state"] == "ok"
    watched.fault.add(800, 8, "write", "medium")
    write(watched.path, 800, pattern(800, 8))
    status, answer = health("watched")
    assert status == 1
    assert isinstance(answer["data"], dict)
    (one,) = answer["data"]["sets"]
    assert (one["name"], one["state"]) == ("watched", "degraded")
    assert [reason["code"] for reason in one["reasons"]] == ["DMR-H101"]
    assert health("--fail-at", "failing")[0] == 0
    assert health("nobody")[0] == 3
