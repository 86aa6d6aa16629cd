# SPDX-License-Identifier: GPL-2.0-only
"""A null_blk disk in a guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.machine import Machine

SCRIPT = """
modprobe null_blk nr_devices=0
home=/sys/kernel/config/nullb/$1
mkdir "$home"
cd "$home"
echo "$2" >size
echo 4096 >blocksize
echo 2 >queue_mode
echo 0 >irqmode
echo 1 >power
# Some kernels name the disk after the directory, others by its index.
if [ -b "/dev/$1" ]; then
	echo "/dev/$1"
else
	echo "/dev/nullb$(cat index)"
fi
"""


def null_block(vm: Machine, name: str, size: int) -> str:
    """Make a disk (blk-mq, completing at once) of 4 KiB blocks that keeps nothing of what is
    written; return its path. ``size`` is in bytes.
    """
    command = ["bash", "-euc", SCRIPT, "null_block", name, str(size >> 20)]
    return vm.run(command).stdout.strip()
