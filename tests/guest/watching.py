# SPDX-License-Identifier: GPL-2.0-only
"""`dmremapctl monitor` as a process, a set to watch, and a hook that writes down what it got."""

import os
import queue
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from guest import answers
from guest.lib import (
    MIB,
    ROOT,
    SECTOR,
    Fault,
    dm_device,
    dm_status,
    fault_device,
    load_module,
    loop_device,
    sectors,
)

NEVER = "3600"
"""A rescan interval, in seconds, that no test lives to see."""


@dataclass(frozen=True)
class WatchedSet:
    """A set whose main fails on request."""

    name: str
    path: Path
    fault: Fault

    @property
    def mapped(self) -> int:
        """Mapped units, as the target says it."""
        return int(dm_status(self.name).split()[2].partition("/")[0])


@contextmanager
def watched_set(name: str = "watched") -> Iterator[WatchedSet]:
    """Have a set made without the control plane; all of its main is shown, 1:1."""
    load_module("dm_remap")
    with (
        loop_device(8 * MIB) as disk,
        loop_device(4 * MIB) as spare,
        fault_device(disk, name=f"{name}-main") as fault,
        dm_device(
            name, f"0 {sectors(fault.path)} remap {fault.path} {spare} 0 {4 * MIB // SECTOR}"
        ) as path,
    ):
        yield WatchedSet(name, path, fault)


class Watch:
    """A running `dmremapctl monitor -o jsonl`."""

    def __init__(self, *args: str) -> None:
        words = [sys.executable, "-m", "dmremap", "--debug", "monitor", "-o", "jsonl", *args]
        self.process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        self.seen: list[dict[str, Any]] = []
        self.log: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read_events, daemon=True),
            threading.Thread(target=self._read_log, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_events(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(self.process.stderr)

    def wait(self, event: str, timeout: float = 30.0) -> dict[str, Any]:
        """Wait for an event and return its data; others before it are kept in `seen`."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            assert line is not None, f"no {event}; seen {self.seen}, said {self.log}"
            data: dict[str, Any] = answers.answer(line)["data"]
            self.seen.append(data)
            if data["event"] == event:
                return data

    def wait_for_source(self, name: str) -> None:
        """Wait until the monitor listens to this source."""
        deadline = time.monotonic() + 30
        wanted = f"hints come from {name}"
        while not any(wanted in line for line in self.log):
            assert time.monotonic() < deadline, self.log
            assert self.process.poll() is None, self.log
            time.sleep(0.02)

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal and return its exit status."""
        self.process.send_signal(number)
        status = self.process.wait(timeout=30)
        for reader in self._readers:
            reader.join(timeout=10)
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class RecordingHook:
    """A program that writes the environment of each of its runs to a file of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "runs"
        self.directory.mkdir()
        self.program = directory / "hook"
        runs = shlex.quote(str(self.directory))
        self.program.write_text(
            f'#!/bin/sh\nenv -0 > {runs}/.$$ && mv {runs}/.$$ {runs}/"$$-$(date +%s%N)"\n'
        )
        self.program.chmod(0o755)

    def runs(self) -> list[dict[str, str]]:
        """Return the environments so far."""
        return [
            dict(
                pair.split("=", 1) for pair in file.read_bytes().decode().split("\0") if "=" in pair
            )
            for file in sorted(self.directory.iterdir())
            if not file.name.startswith(".")
        ]

    def wait(self, key: str, value: str, timeout: float = 30.0) -> dict[str, str]:
        """Wait for a run whose environment has this, and return it."""
        deadline = time.monotonic() + timeout
        while True:
            for env in self.runs():
                if env.get(key) == value:
                    return env
            assert time.monotonic() < deadline, f"no run with {key}={value}: {self.runs()}"
            time.sleep(0.05)
