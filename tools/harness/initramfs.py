# SPDX-License-Identifier: GPL-2.0-only
"""Build the initramfs: busybox, ``init.sh`` and the modules that reach the host's root.

Everything else comes from the host's root file system, mounted by 9p.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from harness import cpio, paths
from harness.errors import HarnessError
from harness.process import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.kernels import Kernel

BUSYBOX = Path("/bin/busybox")

MODULES: Mapping[str, Sequence[str]] = {
    "root": ("virtio_pci", "9p", "9pnet_virtio", "overlay", "virtio_console", "configfs"),
    "virtio": ("virtio_blk",),
    "scsi": ("virtio_scsi", "sd_mod"),
    "nvme": ("nvme",),
}
"""Sets of modules; ``root`` is always loaded, the others with ``harness.load=``."""


def dependencies(kernel: Kernel, module: str) -> list[Path]:
    """Return the files that loading a module takes, in order; none if it is built in."""
    root = kernel.modules.parents[2]
    options = ["-d", str(root), "-S", kernel.release, "--ignore-install", "--show-depends"]
    shown = run(["modprobe", *options, module])
    words = (line.split() for line in shown.splitlines())
    return [Path(fields[1]) for fields in words if fields and fields[0] == "insmod"]


def _read_module(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix != ".ko":
        raise HarnessError(f"{path}: only plain and .xz modules can be unpacked")
    return data


def _entries(kernel: Kernel, init: str) -> Iterator[cpio.Entry]:
    for name in ("bin", "dev", "proc", "sys", "modules"):
        yield cpio.directory(name)
    yield cpio.character_device("dev/console", 5, 1)
    yield cpio.character_device("dev/null", 1, 3)
    yield cpio.Entry("bin/busybox", BUSYBOX.read_bytes())
    yield cpio.Entry("init", init.encode())
    seen: set[str] = set()
    for group, modules in MODULES.items():
        listed: list[str] = []
        for path in (path for module in modules for path in dependencies(kernel, module)):
            # As /sys/module spells it, so that init.sh can tell what is loaded.
            name = path.name.removesuffix(".xz").replace("-", "_")
            if name not in listed:
                listed.append(name)
            if name not in seen:
                seen.add(name)
                yield cpio.Entry(f"modules/{name}", _read_module(path))
        yield cpio.Entry(f"modules/{group}.list", "".join(f"{name}\n" for name in listed).encode())


def build(kernel: Kernel) -> Path:
    """Return the initramfs for a kernel, building it unless one like it is in the cache."""
    if not BUSYBOX.exists():
        raise HarnessError(f"{BUSYBOX} is missing: install busybox-static")
    agent = paths.HARNESS / "agent.py"
    init = (paths.HARNESS / "init.sh").read_text()
    for word, path in (("@AGENT@", agent), ("@MODULES@", kernel.modules)):
        init = init.replace(word, shlex.quote(os.fspath(path)))
    dep = kernel.modules / "modules.dep"
    inputs = [
        init,
        repr(MODULES),
        *(f"{p}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in (BUSYBOX, dep)),
    ]
    digest = hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:12]
    target = paths.CACHE / f"initramfs-{kernel.release}-{digest}.cpio"
    if not target.exists():
        data = cpio.archive(_entries(kernel, init))
        write_atomically(target, data)
    return target


def write_atomically(target: Path, data: bytes) -> None:
    """Write a file that two processes may be making at the same time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}")
    part.write_bytes(data)
    part.replace(target)
