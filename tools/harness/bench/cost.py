# SPDX-License-Identifier: GPL-2.0-only
"""Instructions and memory, measured in one boot of a guest whose clock counts instructions.

All disks are null_blk (blk-mq, irqmode 0, 4 KiB blocks) without memory behind them, since what
memory costs would hide what device-mapper costs. But a spare has to give its metadata back. So
the spare is a dm-linear device, ``glue``: head and tables from an image, slots from a null_blk.
A hit therefore passes through a layer more than a read of main does. It is compared with
dm-linear over that same glue, at the same slots; and what it costs more is set beside dm-linear
over the bare null_blk, not over the glue, which would flatter it.

The number of each row is the worse one of random and sequential positions. It is made of means
without the fiftieth part at either end (a median says little where half of all reads meet an entry
and the other half none), each the lowest of INSTANCES devices. A row that misses its bar is
measured in a second boot, and the lower one counts: see harness.bench.run.
Linux 6.1 completes a single synchronous write through a plug and a kworker, which doubles what
both sides cost: there the ratio of a write says less than that of a read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness import paths
from harness.accel import TCG
from harness.bench import plan
from harness.bench.devices import null_block
from harness.bench.plan import LARGE, ORDERS, UNIT, Order, SetName
from harness.bench.rows import Row, ratio
from harness.disks import Disk
from harness.errors import HarnessError
from harness.machine import Machine
from harness.process import run

if TYPE_CHECKING:
    from harness.kernels import Kernel

Operation = Literal["read", "write"]

RATIO = "x dm-linear"
MEMORY_KINDS = ("VmallocUsed", "Slab", "Percpu")
FIO_COUNT = 5000
INSTANCES = 3
"""How often all devices are made anew and measured, in turn. Each instance of a device, the same
module in the same boot, costs 0 or 5 to 8 instructions an I/O more: the lowest one counts."""

WORDS = (
    # Its samples are noise here.
    "kfence.sample_interval=0",
    # An idle guest's clock leaps while the host works for it.
    "sysctl.kernel.hung_task_timeout_secs=0",
    "rcupdate.rcu_cpu_stall_suppress=1",
    "nowatchdog",
)


@dataclass(frozen=True)
class Cost:
    """Instructions of one I/O; the mean is without the fiftieth part at either end."""

    minimum: float
    median: float
    mean: float


def parse_cost(line: str) -> Cost:
    """Read what iocost prints.

    >>> parse_cost("4750 4754 4761.5")
    Cost(minimum=4750.0, median=4754.0, mean=4761.5)
    """
    return Cost(*(float(word) for word in line.split()))


def parse_meminfo(text: str) -> int:
    """Return the bytes that the kernel has taken for itself, from /proc/meminfo.

    >>> parse_meminfo("Slab: 3 kB\\nVmallocUsed: 2 kB\\nMemFree: 7 kB\\nPercpu: 1 kB\\n")
    6144
    """
    pairs = (line.split()[:2] for line in text.splitlines())
    return 1024 * sum(int(value) for name, value in pairs if name.rstrip(":") in MEMORY_KINDS)


def lower(found: dict[str, Cost], measure: Mapping[str, Callable[[], Cost]]) -> None:
    """Measure each thing once; keep what is lower than what was found of it before."""
    for name, once in measure.items():
        cost = once()
        if name not in found or cost.mean < found[name].mean:
            found[name] = cost


def build_iocost(directory: Path) -> Path:
    """Compile the program that counts."""
    source, program = paths.HARNESS / "bench/iocost.c", directory / "iocost"
    run(["gcc", "-O2", "-Wall", "-Werror", "-static", "-o", program, source])
    return program


class Guest:
    """The measuring guest, and the devices in it."""

    def __init__(self, kernel: Kernel, workdir: Path, inputs: Path) -> None:
        """Describe it; ``inputs`` has what prepare_inputs() of ``run`` left."""
        self.inputs = inputs
        disks = [
            Disk(name=name, size=plan.AREA_BYTES, image=inputs / f"{name}.img")
            for name in plan.UUIDS
        ]
        self.vm = Machine(
            kernel,
            disks,
            workdir=workdir,
            accel=TCG,
            icount=True,
            memory_mib=1024,
            extra_words=WORDS,
        )

    def create(self, name: str, table: str) -> str:
        """Make a device-mapper device."""
        self.vm.run(["dmsetup", "create", name], stdin=table, timeout=240)
        self.vm.run(["dmsetup", "mknodes"])
        return f"/dev/mapper/{name}"

    def remove(self, name: str) -> None:
        """Remove it again."""
        self.vm.run(["dmsetup", "remove", name])

    def setup(self) -> None:
        """Make all devices but the sets, and drop the first measurement."""
        self.vm.run(["modprobe", "dm-flakey"])
        self.vm.insmod("dm_remap")
        self.main = null_block(self.vm, "main", plan.MAIN_BYTES)
        self.slots = null_block(self.vm, "slots", plan.AREA_BYTES)
        warm = null_block(self.vm, "warm", plan.MAIN_BYTES)
        size = plan.MAIN_BYTES // plan.SECTOR
        self.flakey = self.create("flakey", f"0 {size} flakey {self.main} 0 3600 0\n")
        # The first device that is measured after a boot pays for what all of them use.
        for operation in ("read", "write"):
            self.cost(warm, operation, "anywhere", "random")

    def start(self, name: SetName) -> str:
        """Start a set, with its spare, ``glue``, and dm-linear over main and over the spare."""
        size = plan.MAIN_BYTES // plan.SECTOR
        self.linear = self.create("linear", f"0 {size} linear {self.main} 0\n")
        image = self.vm.device(name)
        (segment,) = plan.superblock(name).segments
        blocks = (
            (0, segment.data, image),
            (segment.data, segment.copy_b - segment.data, self.slots),
            (segment.copy_b, segment.table_blocks, image),
        )
        lines = (
            f"{first * 8} {count * 8} linear {device} {first * 8}"
            for first, count, device in blocks
        )
        self.glue = self.create("glue", "\n".join(lines) + "\n")
        self.over_glue = self.create("overglue", f"0 {plan.AREA_SECTORS} linear {self.glue} 0\n")
        before = self.memory()
        path = self.create("set", plan.table_line(name, self.main, self.glue))
        self.taken = self.memory() - before
        return path

    def stop(self) -> None:
        """Undo start()."""
        for name in ("set", "overglue", "glue", "linear"):
            self.remove(name)

    def note(self, device: str) -> None:
        """Have a note of a pending unit: main's last one cannot be read, once."""
        sectors = plan.MAIN_BYTES // plan.SECTOR
        bad = f"{sectors - UNIT // plan.SECTOR}-{sectors - 1}"
        blocks = f"/sys/kernel/config/nullb/{Path(self.main).name}/badblocks"
        self.vm.run(["sh", "-c", f"echo +{bad} > {blocks}"])
        last = str(plan.MAIN_UNITS - 1)
        read = ["dd", f"if={device}", "of=/dev/null", f"bs={UNIT}", "count=1", "iflag=direct"]
        self.vm.run([*read, f"skip={last}"], check=False)
        self.vm.run(["sh", "-c", f"echo -{bad} > {blocks}"])
        status = self.vm.run(["dmsetup", "status", "set"]).stdout
        if " pending=1 " not in status:
            raise HarnessError(f"there is no note of a pending unit: {status}")

    def memory(self) -> int:
        """Return the bytes that the kernel has taken."""
        return parse_meminfo(self.vm.run(["cat", "/proc/meminfo"]).stdout)

    def cost(
        self,
        device: str,
        operation: Operation,
        where: str,
        order: Order,
        side: Literal["logical", "served"] = "logical",
    ) -> Cost:
        """Measure I/O on a device, at positions that the plan has written."""
        size = LARGE if where == "large" else UNIT
        positions = self.inputs / f"{where}-{order}-{side}"
        command: list[str | Path] = [self.inputs / "iocost", device, operation]
        command += [str(size), positions]
        return parse_cost(self.vm.run(command, timeout=120).stdout)

    def fio(self, device: str) -> float:
        """Return the nanoseconds, so the instructions, of one 4 KiB random read by fio."""
        job = (
            f"--name=x --filename={device} --direct=1 --rw=randread --bs=4k --ioengine=io_uring "
            f"--number_ios={FIO_COUNT} --norandommap --output-format=json"
        )
        report = json.loads(self.vm.run(["fio", *job.split()], timeout=180).stdout)
        return float(report["jobs"][0]["read"]["lat_ns"]["mean"])


class Rows:
    """Makes the rows of one kernel."""

    def __init__(self, guest: Guest, series: str) -> None:
        """Take over a guest that is set up."""
        self.guest = guest
        self.series = series
        self.rows: list[Row] = []
        self.bars: dict[str, float] = {}
        self.found: dict[str, dict[Order, dict[str, Cost]]] = {}

    def add(
        self,
        name: str,
        bar: float,
        orders: dict[Order, dict[str, float]],
        medians: dict[str, float] | None = None,
    ) -> None:
        """Add a row; each order has what it costs: linear (the base), served, remap."""
        values = {
            order: ratio(cost["linear"], cost["remap"] - cost.get("served", cost["linear"]))
            for order, cost in orders.items()
        }
        worst = max(values, key=values.__getitem__)
        more = {f"ratio, {order}": value for order, value in values.items()}
        row = Row(
            self.series, name, values[worst], RATIO, bar, 4, orders[worst], more | (medians or {})
        )
        self.rows.append(row)

    def info(self, name: str, value: float, unit: str, digits: int = 0) -> None:
        """Add a row without a bar."""
        self.rows.append(Row(self.series, name, value, unit, digits=digits))

    def compare(
        self, name: str, bar: float, sides: Callable[[Order], dict[str, Callable[[], Cost]]]
    ) -> None:
        """Measure the sides of a comparison in both orders, once more."""
        self.bars[name] = bar
        for order in ORDERS:
            lower(self.found.setdefault(name, {}).setdefault(order, {}), sides(order))

    def finish(self) -> None:
        """Add the rows of all comparisons."""
        for name, found in self.found.items():
            means: dict[Order, dict[str, float]] = {}
            medians: dict[str, float] = {}
            for order, costs in found.items():
                means[order] = {side: cost.mean for side, cost in costs.items()}
                medians |= {f"{side}, {order}, median": cost.median for side, cost in costs.items()}
            self.add(name, self.bars[name], means, medians)

    def on_main(
        self, name: str, bar: float, device: str, where: str, operation: Operation = "read"
    ) -> None:
        """Compare I/O that main serves."""
        guest = self.guest
        self.compare(
            name,
            bar,
            lambda order: {
                "linear": partial(guest.cost, guest.linear, operation, where, order),
                "remap": partial(guest.cost, device, operation, where, order),
            },
        )

    def on_slots(self, name: str, bar: float, device: str, where: str) -> None:
        """Compare reads that slots serve."""
        guest = self.guest
        self.compare(
            name,
            bar,
            lambda order: {
                "linear": partial(guest.cost, guest.linear, "read", "anywhere", order),
                "served": partial(guest.cost, guest.over_glue, "read", where, order, "served"),
                "remap": partial(guest.cost, device, "read", where, order),
            },
        )

    def scale(self) -> None:
        """Tell what the neighbours cost."""
        guest = self.guest
        for name, device in (("null_blk", guest.main), ("dm-linear", guest.linear)):
            cost = guest.cost(device, "read", "anywhere", "random")
            self.info(f"4 KiB read, {name}", cost.mean, "instructions")
        linear = guest.cost(guest.linear, "read", "anywhere", "random").mean
        flakey = guest.cost(guest.flakey, "read", "anywhere", "random").mean
        self.info("4 KiB read, dm-flakey", ratio(linear, flakey - linear), RATIO, 4)

    def fio(self, name: str, device: str) -> None:
        """Add fio's opinion."""
        self.info(f"4 KiB random read by fio, io_uring, {name}", self.guest.fio(device), "ns")

    def memory(self, taken: dict[SetName, int]) -> None:
        """Add what a set takes."""
        details = {f"{name} set, bytes": float(size) for name, size in taken.items()}
        value = taken["full"] / plan.SLOTS
        self.rows.append(
            Row(self.series, "memory, all slots mapped", value, "bytes a slot", 24, 2, details)
        )
        flat = ratio(taken["empty"], taken["full"] - taken["empty"])
        self.rows.append(
            Row(self.series, "memory, all slots mapped", flat, "x none mapped", 1.01, 4)
        )


def measure(kernel: Kernel, workdir: Path, inputs: Path, *, quick: bool = False) -> list[Row]:
    """Boot, measure, and return the rows. ``quick`` leaves fio out."""
    guest = Guest(kernel, workdir, inputs)
    rows = Rows(guest, kernel.series)
    taken: dict[SetName, int] = {}
    with guest.vm:
        guest.setup()
        for instance in range(INSTANCES):
            last = instance == INSTANCES - 1
            device = guest.start("empty")
            rows.on_main("4 KiB read, empty table", 1.010, device, "anywhere")
            rows.on_main("4 KiB write, empty table", 1.010, device, "anywhere", "write")
            rows.on_main("128 KiB read, empty table", 1.005, device, "large")
            guest.note(device)
            rows.on_main("4 KiB read, a pending note elsewhere", 1.012, device, "anywhere")
            if last:
                rows.scale()
            if last and not quick:
                rows.fio("dm-linear", guest.linear)
                rows.fio("empty table", device)
            # The first set of a boot pays for caches that later ones share.
            taken["empty"] = guest.taken
            guest.stop()
        for instance in range(INSTANCES):
            last = instance == INSTANCES - 1
            device = guest.start("full")
            taken["full"] = guest.taken
            # At most a hundredth more than an empty table's.
            bar = 1.017 if kernel.series == "6.1" else 1.015  # 1.0142 to 1.0155 there
            rows.on_main("4 KiB read, 1,000,000 mappings elsewhere", bar, device, "unmapped")
            rows.on_slots("4 KiB read of a mapped unit", 1.020, device, "scattered")
            rows.on_slots("4 KiB read, fully mapped region", 1.048, device, "dense")
            if last and not quick:
                rows.fio("1,000,000 mappings", device)
            guest.stop()
    rows.finish()
    rows.memory(taken)
    return rows.rows
