# SPDX-License-Identifier: GPL-2.0-only
"""Decide between KVM and emulation.

A /dev/kvm that opens, and then cannot run a guest, exists in the field. So KVM is used
only after a guest has really booted with it on this host.
"""

from __future__ import annotations

import json
import logging
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Thread = Literal["single", "multi"]

PROBE_SECONDS = 8.0
DEVICE = Path("/dev/kvm")

EMULATED = ("-cpu", "max,-sse4.2,-erms,-fsrm,-smap,-xsave,-avx,-avx2")
"""Without what makes a real processor faster and an emulated one slower.

QEMU works the crc32 instruction out bit by bit; rep movsb, which is used for long copies where it
is said to be fast, byte by byte; ends a block of code at clac and stac; and saves AVX registers at
each change of tasks.
"""

log = logging.getLogger("harness")


@dataclass(frozen=True)
class Accel:
    """How the guest's instructions are run, and why so."""

    name: Literal["kvm", "tcg"]
    reason: str

    def arguments(self, thread: Thread, *, icount: bool) -> list[str]:
        """Return QEMU's arguments. Counting instructions needs emulation, in one thread.

        >>> TCG.arguments("multi", icount=False)
        ['-accel', 'tcg,thread=multi', '-cpu', 'max,-sse4.2,-erms,-fsrm,-smap,-xsave,-avx,-avx2']
        """
        if icount:
            return ["-accel", "tcg,thread=single", *EMULATED, "-icount", "shift=0,sleep=off"]
        if self.name == "kvm":
            return ["-accel", "kvm", "-cpu", "max"]
        return ["-accel", f"tcg,thread={thread}", *EMULATED]


TCG = Accel("tcg", "asked for")


def verdict(*, accessible: bool, booted: bool | None, detail: str) -> Accel:
    """Return the choice that follows from what was found out (pure).

    ``booted`` is None where no guest was tried.
    """
    if not accessible:
        return Accel("tcg", f"emulation: {DEVICE} cannot be opened")
    if booted:
        return Accel("kvm", "KVM: a guest has booted with it")
    return Accel("tcg", f"emulation: {DEVICE} opens, but a guest does not boot: {detail}")


def cache_name(host_release: str, qemu_version: str) -> str:
    """Return the name of the file that keeps a verdict for a host and a QEMU (pure)."""
    words = f"{host_release}-{qemu_version}"
    return "accel-" + "".join(c if c.isalnum() or c in ".-+" else "_" for c in words) + ".json"


def read_cache(path: Path) -> Accel | None:
    """Return the verdict that was kept, or nothing."""
    try:
        return Accel(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_cache(path: Path, accel: Accel) -> None:
    """Keep a verdict."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(accel)) + "\n")


def accessible() -> bool:
    """Whether /dev/kvm can be opened at all."""
    return os.access(DEVICE, os.R_OK | os.W_OK)


def host_release() -> str:
    """The host's own kernel."""
    return platform.release()
