# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's command line for a machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness import disks as block
from harness import paths

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from harness.accel import Accel, Thread
    from harness.disks import Disk, Faults

QEMU = "qemu-system-x86_64"

KERNEL_WORDS = (
    "console=ttyS0",
    "loglevel=5",
    "printk.time=1",
    # An oops ends the guest; a warning does not, but the harness reads it on the console.
    "panic=-1",
    "oops=panic",
    "softlockup_panic=1",
    "hung_task_panic=1",
    # A guest that does not answer is asked for backtraces: by sysrq, and if that is
    # not heard by an NMI, which then panics and prints those of all CPUs.
    "sysrq_always_enabled",
    "unknown_nmi_panic",
    "panic_print=0x40",
    # An emulated CPU may stand still for a while on a busy host.
    "watchdog_thresh=30",
    "rcupdate.rcu_cpu_stall_timeout=60",
    "mitigations=off",
    "tsc=reliable",
    "no_timer_check",
    "kfence.sample_interval=50",
    # A leak is told with the backtrace of its allocation, not only counted.
    "kmemleak.verbose=1",
    # By which the tests in tests/guest know that they may load modules and make devices.
    "dmremap.guest",
)


@dataclass(frozen=True)
class Hardware:
    """What a machine is made of, apart from its disks."""

    kernel: Path
    initrd: Path
    accel: Accel
    thread: Thread = "single"
    icount: bool = False
    smp: int = 2
    memory_mib: int = 1536
    extra_args: tuple[str, ...] = ()
    extra_words: tuple[str, ...] = ()
    """More words of the kernel's command line."""


@dataclass(frozen=True)
class Wiring:
    """QEMU's words for the three lines to the outside."""

    console: str
    agent: str
    qmp: str


TERMINAL = Wiring("stdio,mux=on,signal=off", "null", "null")
"""The console on the caller's terminal, for a person."""


def quoted(path: str | os.PathLike[str]) -> str:
    """Return a path as a value of one of QEMU's lists of options.

    >>> quoted("/tmp/a,b")
    '/tmp/a,,b'
    """
    return os.fspath(path).replace(",", ",,")


def _base(hardware: Hardware) -> list[str]:
    return [
        QEMU,
        *("-machine", "q35", "-smp", str(hardware.smp), "-m", f"{hardware.memory_mib}M"),
        *hardware.accel.arguments(hardware.thread, icount=hardware.icount),
        *("-display", "none", "-nodefaults", "-no-user-config", "-no-reboot"),
        *("-kernel", os.fspath(hardware.kernel), "-initrd", os.fspath(hardware.initrd)),
    ]


def _lines(wiring: Wiring) -> list[str]:
    return [
        *("-chardev", f"{wiring.console},id=console", "-serial", "chardev:console"),
        *("-chardev", f"{wiring.qmp},id=qmp", "-mon", "chardev=qmp,mode=control"),
        *("-chardev", f"{wiring.agent},id=agent", "-device", "virtio-serial-pci"),
        *("-device", "virtserialport,chardev=agent,name=agent"),
    ]


def command(
    hardware: Hardware,
    disks: Sequence[Disk],
    faults: Mapping[str, Faults],
    workdir: Path,
    wiring: Wiring,
) -> list[str]:
    """Return the whole command line of a machine that has an agent."""
    words = [*KERNEL_WORDS, *hardware.extra_words]
    if kinds := sorted({disk.kind for disk in disks}):
        words.append(f"harness.load={','.join(kinds)}")
    if wiring is TERMINAL:
        words.append(f"harness.script={os.fsencode(paths.HARNESS / 'shell.sh').hex()}")
    return [
        *_base(hardware),
        *_lines(wiring),
        *("-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"),
        *("-device", "virtio-9p-pci,fsdev=root,mount_tag=root"),
        *block.arguments(disks, faults, workdir),
        *("-append", " ".join(words)),
        *hardware.extra_args,
    ]


def probe(hardware: Hardware, console: Path) -> list[str]:
    """Return the command line of a guest that only has to reach its first instruction."""
    console_args = [
        "-chardev",
        f"file,id=console,path={quoted(console)}",
        "-serial",
        "chardev:console",
    ]
    return [*_base(hardware), *console_args, "-append", " ".join(KERNEL_WORDS)]
