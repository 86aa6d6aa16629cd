# SPDX-License-Identifier: GPL-2.0-only
"""Unpack a kernel image: QEMU starts the ELF file inside it 1.5 s sooner under emulation."""

from __future__ import annotations

import lzma
import struct
from typing import TYPE_CHECKING

from harness import paths
from harness.initramfs import write_atomically
from harness.process import run

if TYPE_CHECKING:
    from pathlib import Path

    from harness.kernels import Kernel

ELF = b"\x7fELF"
XZ = b"\xfd7zXZ\0"
ZSTD = b"\x28\xb5\x2f\xfd"


def payload(image: bytes) -> bytes:
    """Return the compressed kernel inside a bzImage, as its setup header describes it."""
    (setup_sectors,) = struct.unpack_from("<B", image, 0x1F1)
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    return image[start : start + length]


def unpack(kernel: Kernel) -> Path:
    """Return the unpacked kernel, or the image as it is where that cannot be done."""
    with kernel.vmlinuz.open("rb") as file:
        if file.read(len(ELF)) == ELF:
            return kernel.vmlinuz
    seen = kernel.vmlinuz.stat()
    target = paths.CACHE / f"vmlinux-{kernel.release}-{seen.st_size}-{seen.st_mtime_ns}"
    if target.exists():
        return target
    data = payload(kernel.vmlinuz.read_bytes())
    if data.startswith(XZ):
        elf = lzma.LZMADecompressor().decompress(data)
    elif data.startswith(ZSTD):
        # Four bytes of size follow the last frame, of which zstd complains.
        packed = target.with_suffix(".zst")
        write_atomically(packed, data[:-4])
        elf_path = target.with_suffix(".elf")
        run(["zstd", "-q", "-d", "-f", packed, "-o", elf_path])
        elf = elf_path.read_bytes()
        packed.unlink()
        elf_path.unlink()
    else:
        return kernel.vmlinuz
    if not elf.startswith(ELF):
        return kernel.vmlinuz
    write_atomically(target, elf)
    return target
