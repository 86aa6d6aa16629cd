# SPDX-License-Identifier: GPL-2.0-only
"""Hooks, with real programs."""

import dataclasses
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dmremap.dm.lines import parse_status
from dmremap.health import evaluate
from dmremap.monitor.hooks import Hooks, environment
from dmremap.monitor.tracker import Event

STATUS = parse_status(
    0,
    20480,
    "rw 512 2/1000 lost=0 pending=1 bad=0 free=998 doubt=0 read_errors=3 write_errors=4 "
    "transient=0 remapped=2 copies=0 identity=tag seq=5",
)
EVENT = Event(
    "remapped",
    "da ta;$(reboot)",
    "/dev/mapper/da\\x20ta",
    "some-uuid",
    "2 blocks were mapped",
    evaluate(STATUS),
    count=2,
    start=0,
    status=STATUS,
)

Script = Callable[[str], str]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    def make(body: str) -> str:
        path = tmp_path / "hook"
        path.write_text(f"#!/bin/sh\ncd '{tmp_path}' || exit 1\n{body}\n")
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def started() -> Iterator[list[Hooks]]:
    made: list[Hooks] = []
    yield made
    for hooks in made:
        hooks.close()


def finish(hooks: Hooks, seconds: float = 10) -> None:
    """Run the hooks to their end the way the loop does."""
    end = time.monotonic() + seconds
    while True:
        hooks.step(time.monotonic())
        if hooks.idle:
            return
        assert time.monotonic() < end, "the hooks do not end"
        wait = hooks.next_step(time.monotonic())
        select.select(hooks.filenos(), [], [], min(1.0, 1.0 if wait is None else wait))


def test_the_environment() -> None:
    env = environment(EVENT)
    assert env["DMREMAP_EVENT"] == "remapped"
    assert env["DMREMAP_NAME"] == "da ta;$(reboot)"
    assert env["DMREMAP_STATE"] == "DEGRADED"
    assert env["DMREMAP_CODES"] == "DMR-H102 DMR-H101"
    assert (env["DMREMAP_COUNT"], env["DMREMAP_START"]) == ("2", "0")
    assert (env["DMREMAP_MAPPED"], env["DMREMAP_FREE"], env["DMREMAP_SEQ"]) == ("2", "998", "5")
    assert "DMREMAP_BREAKER" not in env
    later = dataclasses.replace(STATUS, breaker="open", moved=0, gone=1)
    env = environment(dataclasses.replace(EVENT, status=later))
    assert [env[f"DMREMAP_{key}"] for key in ("BREAKER", "MOVED", "GONE")] == ["open", "0", "1"]
    assert "DMREMAP_MAIN" not in env
    ill = dataclasses.replace(STATUS, flush_errors=4, main="failing", spare="ok")
    env = environment(dataclasses.replace(EVENT, status=ill))
    assert [env[f"DMREMAP_{key}"] for key in ("FLUSH_ERRORS", "MAIN", "SPARE")] == [
        "4",
        "failing",
        "ok",
    ]
    gone = environment(dataclasses.replace(EVENT, kind="removed", verdict=None, status=None))
    assert "DMREMAP_STATE" not in gone
    assert "DMREMAP_MAPPED" not in gone


def test_a_hook_gets_environment_and_no_arguments(
    script: Script, tmp_path: Path, started: list[Hooks]
) -> None:
    os.environ["DMREMAP_TEST_LEAK"] = "1"
    try:
        hooks = Hooks(script('echo "$#" > args; env > env; pwd -P > cwd; cat > input'))
        started.append(hooks)
        hooks.submit(EVENT)
        finish(hooks)
    finally:
        del os.environ["DMREMAP_TEST_LEAK"]
    assert (tmp_path / "args").read_text() == "0\n"
    env = dict(
        line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line
    )
    assert env["DMREMAP_NAME"] == "da ta;$(reboot)"
    assert env["DMREMAP_MESSAGE"] == "2 blocks were mapped"
    assert "/usr/sbin" in env["PATH"]
    assert "DMREMAP_TEST_LEAK" not in env
    assert (tmp_path / "input").read_text() == ""


def test_a_hook_that_hangs_is_killed_with_its_children(
    script: Script, tmp_path: Path, started: list[Hooks]
) -> None:
    hooks = Hooks(script("sleep 300 & echo $! > child; wait"), timeout=0.5)
    started.append(hooks)
    hooks.submit(EVENT)
    begin = time.monotonic()
    finish(hooks)
    assert 0.4 < time.monotonic() - begin < 5
    child = int((tmp_path / "child").read_text())
    end = time.monotonic() + 5
    while _alive(child):
        assert time.monotonic() < end, "the hook's child lives on"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Stuck:
    """A process in an uninterruptible sleep: killed, and still there."""

    returncode: int | None = None
    pid = (1 << 22) + 1  # nobody's: it is more than any process can have

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        assert timeout is not None, "waited without limit"
        raise subprocess.TimeoutExpired("hook", timeout)


def test_a_hook_that_cannot_be_killed_stops_nothing(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda pid, _signal: killed.append(pid))
    hooks = Hooks(script("true"), timeout=5)
    hooks.submit(EVENT)
    hooks.step(0.0)
    (running,) = hooks._running
    running.process.wait()
    stuck = Stuck()
    running.process = stuck  # type: ignore[assignment]
    monkeypatch.setattr(type(running), "ended", property(lambda _: stuck.returncode is not None))
    hooks.step(6.0)
    hooks.step(60.0)
    assert killed == [Stuck.pid]
    assert hooks.idle
    assert hooks.next_step(60.0) is None
    assert hooks.filenos()
    stuck.returncode = -9
    hooks.step(61.0)
    assert not hooks.filenos()


def test_close_waits_for_nothing_that_does_not_end(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "killpg", lambda _pid, _signal: None)
    hooks = Hooks(script("true"))
    hooks.submit(EVENT)
    hooks.step(0.0)
    hooks._running[0].process.wait()
    hooks._running[0].process = Stuck()  # type: ignore[assignment]
    hooks.close()
    assert hooks.idle


@pytest.mark.parametrize("how", ["sleep 300 &", "set -m; sleep 300 &"], ids=["group", "session"])
def test_what_a_hook_leaves_behind_is_killed_in_time(
    how: str, script: Script, tmp_path: Path, started: list[Hooks]
) -> None:
    """It has ended itself; what it has started has its time, and does not hold others up."""
    hooks = Hooks(script(f"{how}\necho $! > child"), timeout=1, concurrency=1, interval=0)
    started.append(hooks)
    hooks.submit(EVENT)
    finish(hooks)
    child = int((tmp_path / "child").read_text())
    assert _alive(child)
    assert hooks.filenos() == []
    hooks.submit(EVENT)
    finish(hooks)
    second = int((tmp_path / "child").read_text())
    assert second != child
    for pid in (child, second):
        end = time.monotonic() + 5
        while _alive(pid):
            assert time.monotonic() < end, "what the hook has left behind lives on"
            hooks.step(time.monotonic())
            time.sleep(0.02)
    hooks.step(time.monotonic())
    assert hooks.next_step(time.monotonic()) is None


def test_close_kills_what_a_hook_has_left_behind(
    script: Script, tmp_path: Path, started: list[Hooks]
) -> None:
    hooks = Hooks(script("sleep 300 &\necho $! > child"))
    started.append(hooks)
    hooks.submit(EVENT)
    finish(hooks)
    child = int((tmp_path / "child").read_text())
    assert _alive(child)
    hooks.close()
    end = time.monotonic() + 5
    while _alive(child):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_waits_is_forgotten_when_the_set_goes_or_comes_back(
    script: Script, tmp_path: Path, started: list[Hooks]
) -> None:
    hooks = Hooks(script("echo $DMREMAP_UUID $DMREMAP_EVENT >> runs"), interval=60, concurrency=1)
    started.append(hooks)
    kinds = ["remapped", "health", "removed", "assembled", "pending"]
    for kind in kinds:
        hooks.submit(dataclasses.replace(EVENT, kind=kind))
    hooks.submit(dataclasses.replace(EVENT, uuid="other", kind="removed"))
    finish(hooks)
    assert (tmp_path / "runs").read_text().splitlines() == [
        "some-uuid assembled",
        "some-uuid pending",
        "other removed",
    ]


def test_close_kills_what_runs(script: Script, tmp_path: Path, started: list[Hooks]) -> None:
    hooks = Hooks(script("echo $$ > self; exec sleep 300"))
    started.append(hooks)
    hooks.submit(EVENT)
    hooks.step(time.monotonic())
    end = time.monotonic() + 5
    while not (tmp_path / "self").exists() or not (tmp_path / "self").read_text():
        assert time.monotonic() < end
        time.sleep(0.01)
    hooks.close()
    assert hooks.idle
    assert not _alive(int((tmp_path / "self").read_text()))


def test_no_more_than_so_many_at_a_time(
    script: Script, tmp_path: Path, started: list[Hooks]
) -> None:
    hooks = Hooks(
        script('mkdir -p on; : > "on/$$"; ls on | wc -l >> seen; sleep 0.2; rm "on/$$"'),
        concurrency=2,
    )
    started.append(hooks)
    for number in range(6):
        hooks.submit(dataclasses.replace(EVENT, uuid=f"set-{number}"))
    finish(hooks)
    seen = [int(line) for line in (tmp_path / "seen").read_text().split()]
    assert len(seen) == 6
    assert max(seen) <= 2


def test_too_many_events_are_added_up(script: Script, tmp_path: Path, started: list[Hooks]) -> None:
    hooks = Hooks(script("echo $DMREMAP_COUNT $DMREMAP_MAPPED >> runs"), interval=0.6)
    started.append(hooks)
    hooks.submit(EVENT)
    hooks.step(time.monotonic())
    for mapped in (4, 6, 8):
        status = dataclasses.replace(STATUS, mapped=mapped)
        hooks.submit(dataclasses.replace(EVENT, status=status))
        hooks.step(time.monotonic())
    finish(hooks)
    assert (tmp_path / "runs").read_text().splitlines() == ["2 2", "6 8"]


def test_another_kind_does_not_wait(script: Script, tmp_path: Path, started: list[Hooks]) -> None:
    hooks = Hooks(script("echo $DMREMAP_EVENT >> runs"), interval=60)
    started.append(hooks)
    hooks.submit(EVENT)
    hooks.submit(dataclasses.replace(EVENT, kind="health"))
    finish(hooks)
    assert sorted((tmp_path / "runs").read_text().split()) == ["health", "remapped"]


def test_the_end_does_not_wait_for_the_interval(
    script: Script, tmp_path: Path, started: list[Hooks]
) -> None:
    hooks = Hooks(script("echo x >> runs"), interval=60)
    started.append(hooks)
    hooks.submit(EVENT)
    finish(hooks)
    hooks.submit(EVENT)
    hooks.step(time.monotonic(), draining=True)
    finish(hooks)
    assert (tmp_path / "runs").read_text() == "x\nx\n"


def test_a_program_that_is_missing_is_a_warning(
    tmp_path: Path, started: list[Hooks], caplog: pytest.LogCaptureFixture
) -> None:
    hooks = Hooks(str(tmp_path / "nothing"))
    started.append(hooks)
    hooks.submit(EVENT)
    hooks.step(time.monotonic())
    assert hooks.idle
    assert "cannot be started" in caplog.text


def test_a_hook_that_fails_is_a_warning(
    script: Script, started: list[Hooks], caplog: pytest.LogCaptureFixture
) -> None:
    hooks = Hooks(script("exit 3"))
    started.append(hooks)
    hooks.submit(EVENT)
    finish(hooks)
    assert "exit status 3" in caplog.text
