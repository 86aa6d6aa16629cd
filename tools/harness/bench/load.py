# SPDX-License-Identifier: GPL-2.0-only
"""How long a resume takes that loads a million mappings, beside reading the same bytes.

The spare is a disk of QEMU's throttled to SPEED, main a null_blk. ``dmsetup resume`` of a new
table loads both copies of all table blocks; ``dd bs=1M iflag=direct`` reads just these blocks.
Both go past the page cache, and the best of TRIES counts of both. This is the one row that a
clock decides, and others may keep the machine busy: where it misses, it is measured again, ROUNDS
times at most, and the best of all counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.bench import plan
from harness.bench.rows import Row
from harness.disks import Disk

if TYPE_CHECKING:
    from pathlib import Path

    from harness.machine import Machine

SPEED = 50_000_000
"""Bytes per second."""
TRIES = 3
ROUNDS = 4
BAR = 1.3

# Prints the microseconds of each resume and each pair of dd. The pauses empty the bucket
# out of which a throttled disk gives a tenth of a second's bytes at once.
SCRIPT = """
spare=$1 line=$2 tries=$3 bytes=$4 first=$5 second=$6
copy() { dd if="$spare" of=/dev/null bs=1M iflag=direct,skip_bytes,count_bytes \
	skip="$1" count="$bytes" status=none; }
for ((i = 0; i < tries; i++)); do
	dmsetup create set --notable
	dmsetup load set --table "$line"
	sleep 0.3
	begin=${EPOCHREALTIME/./}
	dmsetup resume set
	resumed=$((${EPOCHREALTIME/./} - begin))
	dmsetup status set | grep -q " rw "
	dmsetup remove set
	sleep 0.3
	begin=${EPOCHREALTIME/./}
	copy "$first"
	copy "$second"
	echo $resumed $((${EPOCHREALTIME/./} - begin))
done
"""


def slow_disk(inputs: Path) -> Disk:
    """Describe the throttled disk with the full set."""
    return Disk(name="slow", size=plan.AREA_BYTES, image=inputs / "full.img", throttle=SPEED)


def best(output: str) -> tuple[float, float]:
    """Return the best seconds of both, from lines of microseconds.

    >>> best("900000 700000\\n800000 750000\\n")
    (0.8, 0.7)
    """
    pairs = [[int(word) / 1e6 for word in line.split()] for line in output.splitlines()]
    resumes, copies = zip(*pairs, strict=True)
    return min(resumes), min(copies)


def measure(vm: Machine, main: str) -> Row:
    """Return the row; the module is loaded, and ``main`` is a null_blk of the plan's size."""
    segment = plan.segment()
    spare = vm.device("slow")
    places = (segment.table_blocks, segment.copy_a, segment.copy_b)
    arguments = [spare, plan.table_line("full", main, spare), str(TRIES)]
    arguments += [str(blocks * plan.UNIT) for blocks in places]
    shown = ""
    for _ in range(ROUNDS):
        shown += vm.run(["bash", "-euc", SCRIPT, "load", *arguments], timeout=120).stdout
        resume, copy = best(shown)
        if resume <= BAR * copy:
            break
    return Row(
        vm.kernel.series,
        "load of 1,000,000 mappings at resume",
        round(resume / copy, 3),
        "x dd of both copies",
        BAR,
        digits=2,
        details={"resume, s": resume, "dd, s": copy, "bytes": 2.0 * places[0] * plan.UNIT},
    )
