# SPDX-License-Identifier: GPL-2.0-only
"""A guest: boot it, run commands in it, and notice when its kernel fails."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from harness import counted, initramfs, probe, tsc, vmlinux
from harness import disks as block
from harness.accel import Accel, Thread, log
from harness.channel import Channel, Echo, Exchange
from harness.command import TERMINAL, Hardware, Wiring, command, quoted
from harness.console import FIRST_INSTRUCTION, Console
from harness.disks import Disk, Faults, Sectors
from harness.errors import FailureKind, HarnessError, MachineFailure
from harness.kernels import KCSAN
from harness.process import run, spawn
from harness.qmp import Qmp, QmpError

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path
    from types import TracebackType

    from harness.kernels import Kernel

BOOT_TRIES = 3
BOOT_SECONDS = 90.0
DEBUG_MIB = 1024
"""What a debug kernel takes of a guest's memory: shadows, quarantines, records of locks."""
LONGEST = 80 * 60.0
"""What any command may take: a test ends by itself within a part of a long run."""
POLL_SECONDS = 0.1
SPLAT_SECONDS = 1.0
"""How long after a splat's first line the guest runs on, to print the rest."""
NMI_SECONDS = 5.0
"""How long an NMI waits for CPUs that do not answer, before it panics."""
QUIET_SECONDS = 0.7
"""A console that prints nothing for so long has printed its backtraces."""

Program = Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Result:
    """What became of a command."""

    argv: tuple[str, ...]
    status: int
    """Its exit status, 128 + n for signal n."""
    output: str
    """Both of the next two, as they came."""
    stdout: str
    stderr: str


class CommandFailed(HarnessError):
    """A command ended with a status other than 0; the guest is well."""

    def __init__(self, result: Result) -> None:
        """Say what failed, and all that it printed."""
        super().__init__(f"{shlex.join(result.argv)}: exit status {result.status}\n{result.output}")
        self.result = result


class Job:
    """A command that runs in the guest."""

    def __init__(self, machine: Machine, argv: tuple[str, ...], exchange: Exchange) -> None:
        """Made by :meth:`Machine.start`."""
        self._machine = machine
        self._argv = argv
        self._exchange = exchange

    @property
    def output(self) -> str:
        """What it has printed so far, as far as it has arrived."""
        return self._exchange.bytes(1, 2).decode(errors="replace")

    def running(self) -> bool:
        """Whether it still runs; also takes in what has arrived."""
        self._machine.watch()
        return self._exchange.status is None

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to it and to what it has started."""
        self._machine.channel.signal(self._exchange, number)

    def wait(self, *, timeout: float = 60.0, check: bool = True) -> Result:
        """Wait for its end. No end in ``timeout`` seconds is a HANG of the machine."""
        machine, argv = self._machine, self._argv
        machine.wait_for(lambda: self._exchange.status is not None, timeout, shlex.join(argv))
        if error := self._exchange.reply.get("error"):
            raise HarnessError(f"{shlex.join(argv)}: {error}")
        status = self._exchange.status
        assert status is not None
        text = (
            self._exchange.bytes(*which).decode(errors="replace") for which in ((1, 2), (1,), (2,))
        )
        result = Result(argv, status, *text)
        if check and status != 0:
            raise CommandFailed(result)
        return result


class Machine:
    """A guest, as a context manager: booted on entry, gone on exit.

    It is used by one thread, and dies with that thread. ``workdir`` gets the disks'
    images (unless they say otherwise), ``console.log`` of all boots, ``qemu.log`` and
    ``repro.sh``, which boots the same machine with a shell for a person.
    """

    def __init__(
        self,
        kernel: Kernel,
        disks: Sequence[Disk] = (),
        *,
        workdir: Path,
        smp: int = 2,
        memory_mib: int = 1536,
        udev: bool = False,
        accel: Accel | None = None,
        thread: Thread = "single",
        icount: bool = False,
        extra_args: Sequence[str] = (),
        extra_words: Sequence[str] = (),
        expect_log: Sequence[str] = (),
    ) -> None:
        """Describe a machine. ``extra_words`` are for the kernel's command line."""
        self.kernel = kernel
        self.disks = tuple(disks)
        self.udev = udev
        self.workdir = workdir.resolve()
        self.workdir.mkdir(parents=True, exist_ok=True)
        self.console = Console(self.workdir / "console.log")
        self.console.path.unlink(missing_ok=True)
        for pattern in expect_log:
            self.expect_log(pattern)
        image, initrd = vmlinux.unpack(kernel), initramfs.build(kernel)
        how = accel or probe.choose(image, initrd)
        # KVM has a clock of its own, and counted instructions are one.
        emulated = how.name == "tcg" and not icount
        words = [f"tsc_early_khz={tsc.khz()}"] if emulated and tsc.khz() else []
        self.hardware = Hardware(
            image,
            initrd,
            how,
            # A race shows when two processors run at once.
            "multi" if kernel.series == KCSAN else thread,
            icount,
            1 if icount else smp,
            memory_mib + (DEBUG_MIB if kernel.patience > 1 else 0),
            tuple(extra_args),
            (*words, *extra_words),
        )
        self.faults = {disk.name: disk.faults for disk in disks}
        self._generation = dict.fromkeys(self.faults, 0)
        self._process: subprocess.Popen[bytes] | None = None
        self._lines = contextlib.ExitStack()
        """What is to be closed when QEMU has ended."""

    # Life

    def __enter__(self) -> Self:
        """Boot."""
        self.boot()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close; after an exception, which matters more than the console, only kill."""
        if kind is None:
            self.close()
        else:
            self.kill()

    @property
    def running(self) -> bool:
        """Whether QEMU runs."""
        return self._process is not None and self._process.poll() is None

    def boot(self) -> None:
        """Start a machine that is off, and wait for its agent (5 to 8 s under emulation)."""
        if self.running:
            raise HarnessError("the machine runs already")
        for attempt in range(1, BOOT_TRIES + 1):
            mark = self.console.size()
            try:
                self._start()
                self.wait_for(lambda: self.channel.hello.status is not None, BOOT_SECONDS, "boot")
                break
            except MachineFailure as failure:
                self.kill()
                if FIRST_INSTRUCTION in self.console.since(mark):
                    raise
                log.warning("boot %d of %d died early: %s", attempt, BOOT_TRIES, failure)
                if attempt == BOOT_TRIES:
                    line = str(failure).partition("\n")[0]
                    raise self._failure(FailureKind.BOOT, line) from failure
                self.console.poll()
                self.console.forgive()
        if self.udev:
            self._start_udev()

    def _start(self) -> None:
        for disk in self.disks:
            disk.create(self.workdir)
        self._generation = dict.fromkeys(self.faults, 0)
        agent, qmp = socket.socketpair(), socket.socketpair()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(b"")  # Linux chooses an abstract address
        listener.listen(1)
        logged = f"logfile={quoted(self.console.path)},logappend=on"
        wiring = Wiring(
            f"socket,fd={listener.fileno()},server=on,wait=off,{logged}",
            f"socket,fd={agent[1].fileno()}",
            f"socket,fd={qmp[1].fileno()}",
        )
        argv = command(self.hardware, self.disks, self.faults, self.workdir, wiring)
        self._write_repro()
        ends = (listener, agent[1], qmp[1])
        log_path = self.workdir / "qemu.log"
        try:
            self._process = spawn(argv, log=log_path, pass_fds=[end.fileno() for end in ends])
        finally:
            for end in ends[1:]:
                end.close()
        self._listener = self._lines.enter_context(listener)
        self.channel = Channel(agent[0])
        self._lines.callback(self.channel.close)
        self._lines.enter_context(qmp[0])
        try:
            self.qmp = Qmp(qmp[0])
        except QmpError as error:
            self.kill()
            raise HarnessError(
                f"QEMU did not start:\n{log_path.read_text(errors='replace')}"
            ) from error

    def _write_repro(self) -> None:
        argv = command(self.hardware, self.disks, self.faults, self.workdir, TERMINAL)
        script = self.workdir / "repro.sh"
        script.write_text(
            f"#!/bin/sh\n# The same machine, with a shell.\nexec {shlex.join(argv)}\n"
        )
        script.chmod(0o755)

    def _start_udev(self) -> None:
        # Disks and device-mapper's control node only: all the rest takes 8 s and loads
        # some thirty drivers.
        matches = ("--subsystem-match=block", "--subsystem-match=misc")
        self.run(["/lib/systemd/systemd-udevd", "--daemon"])
        self.run(["udevadm", "trigger", "--action=add", *matches])
        self.run(["udevadm", "settle", "--timeout=60"], timeout=90)

    def reboot(self) -> None:
        """Shut the guest down in order and boot it again with the same disks and faults."""
        self.shutdown()
        self.boot()

    def shutdown(self) -> None:
        """Shut the guest's kernel down in order (sync, reboot) and wait for QEMU's end."""
        self.channel.request("reboot")
        self.wait_for(lambda: not self.running, 30.0, "shutdown", ending=True)
        self._check()
        self.kill()

    def kill(self) -> None:
        """Kill QEMU at once. What the guest has written to its disks stays, flushed or not."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None
        self._lines.close()

    def close(self) -> None:
        """End the machine, and raise if its console has a line that nobody expected."""
        try:
            self._check()
        finally:
            self.kill()

    # Watching

    def expect_log(self, pattern: str) -> None:
        """Allow console lines whose text (after the time stamp) has a match."""
        self.console.allowed.append(re.compile(pattern))

    def watch(self, seconds: float = 0.0, *, ending: bool = False) -> None:
        """Take in what has arrived, waiting at most so long, and raise if the guest failed."""
        self.channel.poll(seconds)
        gone = not self.running or self.channel.closed
        if self.console.poll() is not None:
            self._let_it_speak()
            self._check()
        if gone and not ending:
            self._die()

    def wait_for(
        self,
        done: Callable[[], bool],
        timeout: float,
        what: str,
        *,
        ending: bool = False,
    ) -> None:
        """Watch until something is so; raise HANG, with backtraces, after ``timeout`` seconds.

        A debug kernel is given more, see :attr:`Kernel.patience`.
        """
        timeout = min(timeout * self.kernel.patience, LONGEST)
        deadline = time.monotonic() + timeout
        while not done():
            self.watch(POLL_SECONDS, ending=ending)
            if time.monotonic() > deadline and not done():
                self._hang(f"{what}: no answer in {timeout:g} s")
        # What the kernel printed before the answer is on the console before it.
        self.watch(ending=ending)

    def _check(self) -> None:
        if hit := self.console.poll():
            self.kill()
            self.console.forgive()
            raise self._failure(hit.kind, hit.line)

    def _let_it_speak(self) -> None:
        deadline = time.monotonic() + SPLAT_SECONDS
        while self.running and time.monotonic() < deadline:
            self.channel.poll(0)
            time.sleep(POLL_SECONDS)

    def _die(self) -> None:
        self._let_it_speak()
        self._check()
        status = self._process.poll() if self._process else None
        self.kill()
        complaint = (self.workdir / "qemu.log").read_text(errors="replace").strip()
        line = f"QEMU ended with status {status}" if status is not None else "the agent is gone"
        raise self._failure(FailureKind.GONE, f"{line} {complaint}".strip())

    def _hang(self, line: str) -> None:
        mark = self.console.size()
        report = ""
        with contextlib.suppress(QmpError, OSError):
            for key in "lw":
                self._sysrq(key)
            report = self.console.since(mark)
            if "sysrq: " in report:
                # Every task: too long for a report, but console.log has it.
                self._sysrq("t")
            else:
                # Interrupts are off: the NMI panics, with the same backtraces.
                self.qmp.execute("inject-nmi")
                self._settle(quiet=NMI_SECONDS)
                report = self.console.since(mark)
        self.kill()
        raise self._failure(FailureKind.HANG, line, report)

    def _failure(self, kind: FailureKind, line: str, report: str = "") -> MachineFailure:
        return MachineFailure(kind, line, report or self.console.report(line), self.workdir)

    def _sysrq(self, key: str) -> None:
        with socket.socket(socket.AF_UNIX) as terminal:
            terminal.connect(self._listener.getsockname())
            time.sleep(POLL_SECONDS)
            self.qmp.execute("chardev-send-break", id="console")
            terminal.sendall(key.encode())
            # Not connected any longer than that: a full socket garbles the log.
            time.sleep(POLL_SECONDS / 2)
        self._settle()

    def _settle(self, quiet: float = QUIET_SECONDS) -> None:
        """Wait until the console prints no more for so long, 10 s at most."""
        now = time.monotonic()
        deadline, since, size = now + 10.0, now, -1
        while self.running and now < min(deadline, since + quiet):
            if self.console.size() != size:
                size, since = self.console.size(), now
            time.sleep(POLL_SECONDS / 2)
            now = time.monotonic()

    # Commands

    def start(
        self,
        argv: Program,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] = "/",
        stdin: str = "",
        echo: Echo | None = None,
    ) -> Job:
        """Start a command in the guest as root, with its output collected here.

        ``argv[0]`` is looked up in the guest's PATH; no shell is between. ``echo`` is
        called with every piece of output as it arrives.
        """
        words = tuple(os.fspath(word) for word in argv)
        exchange = self.channel.request(
            "run",
            argv=words,
            env={**counted.environment(), **(env or {})},
            cwd=os.fspath(cwd),
            stdin=stdin.encode().decode("latin-1"),
            echo=echo,
        )
        return Job(self, words, exchange)

    def run(
        self,
        argv: Program,
        *,
        timeout: float = 60.0,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] = "/",
        stdin: str = "",
        echo: Echo | None = None,
    ) -> Result:
        """Run a command to its end: :meth:`start` and :meth:`Job.wait` in one."""
        job = self.start(argv, env=env, cwd=cwd, stdin=stdin, echo=echo)
        return job.wait(timeout=timeout, check=check)

    def shell(self, script: str, *, timeout: float = 60.0, check: bool = True) -> Result:
        """Run a bash script that stops at the first failure."""
        return self.run(["bash", "-euc", script], timeout=timeout, check=check)

    def python(
        self,
        script: str | os.PathLike[str],
        *args: str | os.PathLike[str],
        timeout: float = 60.0,
        check: bool = True,
        echo: Echo | None = None,
    ) -> Result:
        """Run a Python script, which the guest sees at the host's path."""
        return self.run(
            ["/usr/bin/python3", "-B", script, *args], timeout=timeout, check=check, echo=echo
        )

    def write_file(self, path: str | os.PathLike[str], data: bytes, *, mode: int = 0o644) -> None:
        """Write a file in the guest."""
        self._ask("write", path=os.fspath(path), data=data.decode("latin-1"), mode=mode)

    def read_file(self, path: str | os.PathLike[str]) -> bytes:
        """Read a file of the guest's."""
        data: str = self._ask("read", path=os.fspath(path)).reply["data"]
        return data.encode("latin-1")

    def _ask(self, do: str, **fields: object) -> Exchange:
        exchange = self.channel.request(do, echo=None, **fields)
        self.wait_for(lambda: exchange.status is not None, 30.0, do)
        if error := exchange.reply.get("error"):
            raise HarnessError(f"{do}: {error}")
        return exchange

    # Modules and disks

    def insmod(self, *modules: str, parameters: Sequence[str] = ()) -> None:
        """Load modules of ours, by name, and first what they depend on."""
        for module in modules:
            path = self.kernel.module(module)
            if needed := _depends(path):
                self.run(["modprobe", "-a", *needed])
            self.run(["insmod", path, *parameters])

    def device(self, name: str) -> str:
        """Return the guest's /dev path of a disk, found by its serial number."""
        deadline = time.monotonic() + 15.0
        while True:
            found: dict[str, str] = self._ask("disks").reply["disks"]
            if name in found:
                return found[name]
            if time.monotonic() > deadline:
                raise HarnessError(f"the guest has no disk {name}, only {sorted(found) or 'none'}")
            time.sleep(POLL_SECONDS)

    def set_bad(
        self,
        name: str,
        *,
        read: Sectors = frozenset(),
        write: Sectors = frozenset(),
        flush: bool = False,
        errno: int | None = None,
        once: bool = False,
    ) -> None:
        """Change which sectors (512 bytes) of a disk fail, from the next command on.

        What is not named works again; ``block.ALL`` is every sector. It stays so over
        reboots.
        """
        disk = next(disk for disk in self.disks if disk.name == name)
        faults = Faults(read, write, flush, disk.errno if errno is None else errno, once)
        old, new = self._generation[name], self._generation[name] + 1
        self.qmp.execute("blockdev-add", **block.fault_node(disk, new, faults))
        self.qmp.execute("blockdev-reopen", options=[block.top_node(disk, new)])
        self.qmp.execute("blockdev-del", node_name=f"{name}-faults{old}")
        self._generation[name] = new
        self.faults[name] = faults


@functools.cache
def _depends(module: Path) -> tuple[str, ...]:
    return tuple(run(["modinfo", "-F", "depends", module]).strip().replace(",", " ").split())
