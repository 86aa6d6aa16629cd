# SPDX-License-Identifier: GPL-2.0-only
"""The demonstration: one failing disk, without and with dm-remap.

Everything that is shown is what the programs in the guest printed. The disk is a
SCSI disk of QEMU whose blkdebug layer refuses reads and writes of BAD_SECTORS single
sectors with a medium error, scattered over all that the files will use.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness import kernels, paths
from harness.disks import Disk
from harness.errors import HarnessError
from harness.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

SERIES = "6.12"
MAIN_MIB = 192
SPARE_MIB = 64
BAD_SECTORS = 400
SEED = 20
FILES_MIB = 110
MOUNT = "/mnt"
MEDIUM_ERROR = 61
SOURCE = "/usr/lib/x86_64-linux-gnu"
"""Where real files are to be had; the packages that are needed have enough of them."""
MAX_FILE = 24 << 20

START = time.monotonic()


def say(text: str) -> None:
    """Tell what comes next, with the seconds since the start."""
    print(f"\n[{time.monotonic() - START:5.0f} s] {text}", flush=True)


def show(text: str) -> None:
    """Pass on what the guest prints."""
    sys.stdout.write(text)
    sys.stdout.flush()


@dataclass(frozen=True)
class Files:
    """The files to copy, and the sums that they must have afterwards."""

    listing: Path
    sums: Path
    count: int
    size: int


def real_files() -> Iterator[Path]:
    """Walk the regular files of this machine that are good to copy, in a fixed order."""
    for folder, folders, names in os.walk(SOURCE):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= MAX_FILE:
                yield path


def choose_files(directory: Path) -> Files:
    """List real files of this machine, FILES_MIB of them, with their SHA-256."""
    sums: dict[str, str] = {}
    size = 0
    for path in real_files():
        data = path.read_bytes()
        sums[str(path.relative_to("/"))] = hashlib.sha256(data).hexdigest()
        size += len(data)
        if size >= FILES_MIB << 20:
            break
    listing, sum_file = directory / "files", directory / "sums"
    listing.write_text("".join(f"{name}\n" for name in sums))
    sum_file.write_text("".join(f"{value}  {name}\n" for name, value in sums.items()))
    return Files(listing, sum_file, len(sums), size)


def bad_sectors() -> frozenset[int]:
    """Choose single sectors behind the first 4 MiB, the same in every run."""
    sectors = range(4 << 11, MAIN_MIB << 11)
    return frozenset(random.Random(SEED).sample(sectors, BAD_SECTORS))


def shell(line: str) -> list[str]:
    """Return the command that runs a line with the control plane of the checkout."""
    return ["bash", "-c", f"PATH={paths.VENV_PYTHON.parent}:$PATH; {line}"]


def run(vm: Machine, line: str, *, timeout: float = 240.0, check: bool = True) -> int:
    """Show a command, run it in the guest, show what it prints."""
    print(f"# {line}", flush=True)
    return vm.run(shell(line), cwd=paths.ROOT, timeout=timeout, check=check, echo=show).status


def copy_in(files: Files) -> str:
    """Return the command that copies the files to MOUNT."""
    return f"tar -C / -cf - -T {files.listing.relative_to(paths.ROOT)} | tar -C {MOUNT} -xf -"


def compare(vm: Machine, files: Files) -> int:
    """Read every file past the caches and compare its sum; return how many differ."""
    vm.shell("echo 3 > /proc/sys/vm/drop_caches")
    command = f"cd {MOUNT} && sha256sum -c --quiet {files.sums} 2>/dev/null | wc -l"
    return int(vm.shell(command, timeout=240).stdout)


def without(vm: Machine, main: str, files: Files) -> bool:
    """Use the bare disk; say whether it failed, as it must."""
    say("The disk as it is: ext4 on it, and the files")
    run(vm, f"mkfs.ext4 -q -F {main}", check=False)
    if run(vm, f"mount {main} {MOUNT}", check=False):
        print("ext4 cannot even be mounted.")
        return True
    run(vm, f"({copy_in(files)}) 2>&1 | tail -n 3; sync", check=False)
    differ = compare(vm, files)
    print(f"{differ} of {files.count} files are missing or differ.")
    run(vm, "dmesg | grep -m 2 'Medium Error'; dmesg | grep -m 3 'EXT4-fs'", check=False)
    run(vm, "dmesg | grep -m 2 -i 'abort'", check=False)
    run(vm, f"umount {MOUNT}", check=False)
    return differ > 0


def watch_copy(vm: Machine, files: Files) -> None:
    """Copy the files in, and show the status while that runs."""
    print(f"# {copy_in(files)} && sync -f {MOUNT}")
    job = vm.start(shell(f"set -e -o pipefail; {copy_in(files)}; sync -f {MOUNT}"), cwd=paths.ROOT)
    live = "dmremapctl status disk | grep -E '^(state|mapped|pending|health)' | paste -sd ' '"
    while job.running():
        vm.run(shell(live), timeout=60, check=False, echo=show)
        vm.watch(2.0)
    job.wait(timeout=240)


def load(vm: Machine) -> None:
    """Load the module that was built for this kernel."""
    module = vm.kernel.module("dm_remap").relative_to(paths.ROOT)
    run(vm, f"dmremapctl module load --file {module}")


def set_up(vm: Machine, main: str, spare: str) -> None:
    """Make the set and a file system on it."""
    say("With dm-remap: the disk and a small spare become one device")
    load(vm)
    run(vm, f"dmremapctl create --name disk --force --yes {main} {spare}")
    run(vm, "mkfs.ext4 -q /dev/mapper/disk")
    run(vm, f"mount /dev/mapper/disk {MOUNT}")


def verdict(vm: Machine, files: Files) -> None:
    """Compare and insist."""
    differ = compare(vm, files)
    print(f"{files.count - differ} of {files.count} files are equal, {differ} differ.")
    if differ:
        raise HarnessError(f"{differ} files differ on the remapped disk")


def main() -> int:
    """Run the demonstration; 0 when everything went as promised."""
    kernel = kernels.find(SERIES)
    workdir = paths.BUILD / "demo"
    shutil.rmtree(workdir, ignore_errors=True)
    workdir.mkdir(parents=True)
    bad = bad_sectors()
    disks = [
        Disk(
            name="main",
            size=MAIN_MIB << 20,
            kind="scsi",
            errno=MEDIUM_ERROR,
            bad_read=bad,
            bad_write=bad,
        ),
        Disk(name="spare", size=SPARE_MIB << 20, kind="virtio"),
    ]
    say(f"Choosing {FILES_MIB} MiB of this machine's files")
    files = choose_files(workdir)
    print(f"{files.count} files, {files.size >> 20} MiB")
    disk = f"a disk of {MAIN_MIB} MiB that has {len(bad)} failing sectors"
    say(f"Booting Linux {kernel.release} with {disk}")
    with Machine(kernel, disks, workdir=workdir, udev=True) as vm:
        main_disk, spare = vm.device("main"), vm.device("spare")
        if not without(vm, main_disk, files):
            raise HarnessError("the bare disk did not fail: this shows nothing")
        set_up(vm, main_disk, spare)
        watch_copy(vm, files)
        verdict(vm, files)
        run(vm, "dmremapctl status disk", check=False)
        run(vm, f"umount {MOUNT} && dmremapctl remove disk && dmremapctl module unload")

        say("Reboot")
        vm.reboot()
        load(vm)
        run(vm, "dmremapctl assemble disk")
        run(vm, f"mount /dev/mapper/disk {MOUNT}")
        verdict(vm, files)
        run(vm, "dmremapctl status disk; dmremapctl health disk", check=False)
        run(vm, f"umount {MOUNT} && dmremapctl remove disk && dmremapctl module unload")
        run(vm, "dmsetup ls; grep -w dm_remap /proc/modules", check=False)
    say("Done: every file came through a disk that cannot hold a file system by itself.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except HarnessError as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(1)
