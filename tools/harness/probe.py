# SPDX-License-Identifier: GPL-2.0-only
"""Boot a guest once to learn whether KVM works here, and remember the answer."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from harness import accel, paths
from harness.accel import Accel
from harness.command import QEMU, Hardware, probe
from harness.console import FIRST_INSTRUCTION
from harness.process import run, spawn


def boots(hardware: Hardware, seconds: float) -> tuple[bool, str]:
    """Return whether a guest reaches its first instruction in time, and what was seen."""
    with tempfile.TemporaryDirectory() as directory:
        console, output = Path(directory, "console"), Path(directory, "qemu")
        process = spawn(probe(hardware, console), log=output, pass_fds=())
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                if console.exists() and FIRST_INSTRUCTION in console.read_text(errors="replace"):
                    return True, "booted"
                complaint = output.read_text(errors="replace").strip()
                if process.poll() is not None or "KVM internal error" in complaint:
                    return False, complaint.partition("\n")[0] or "QEMU ended"
                time.sleep(0.05)
            return False, f"nothing in {seconds:g} s"
        finally:
            process.kill()
            process.wait()


def choose(kernel: Path, initrd: Path) -> Accel:
    """Return what to run guests with on this host; the first call may take some seconds."""
    version = run([QEMU, "--version"]).partition("\n")[0].removeprefix("QEMU emulator version ")
    cache = paths.CACHE / accel.cache_name(accel.host_release(), version)
    if not accel.accessible():
        choice = accel.verdict(accessible=False, booted=None, detail="")
    elif kept := accel.read_cache(cache):
        choice = kept
    else:
        kvm = Hardware(kernel, initrd, Accel("kvm", "probe"))
        booted, detail = boots(kvm, accel.PROBE_SECONDS)
        choice = accel.verdict(accessible=True, booted=booted, detail=detail)
        accel.write_cache(cache, choice)
    accel.log.info("%s", choice.reason)
    return choice
