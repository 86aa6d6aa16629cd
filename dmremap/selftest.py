# SPDX-License-Identifier: GPL-2.0-only
"""The whole life of a set as a test that anyone can run.

load -> create -> write and verify -> fail some blocks -> verify -> remove ->
assemble -> verify -> remove -> unload, on devices of its own.  Every block of
data names itself and its generation, so a block in the wrong place, an old one
and a made-up one can be told apart.  The first wrong byte ends it.  Whatever
happens, all that was made is taken apart again, and nothing else is touched.
"""

import contextlib
import os
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from dmremap import dm
from dmremap.dm import module
from dmremap.dm.lines import SECTOR, RemapTable
from dmremap.dm.messages import list_message, parse_list, parse_pending, pending_message
from dmremap.errors import Busy, Failure
from dmremap.host.lock import locked
from dmremap.host.run import run
from dmremap.ondisk import BlockDevice, opened
from dmremap.sets import assemble, create, discover, live, remove
from dmremap.sets.create import Request
from dmremap.sets.live import Running

BLOCK = 4096
"""Bytes of a block of test data."""
BLOCK_SECTORS = BLOCK // SECTOR

_PAGE = 256
"""Lines asked for in one message; a page of the kernel's reply has room for them."""

Backing = Literal["loop", "ram"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to test with.

    backing: loop devices over files in `directory`, or ram disks.  main_mib,
    spare_mib: sizes in MiB.  module_file: the module to load, None for the
    installed one.
    """

    backing: Backing = "loop"
    directory: str | None = None
    main_mib: int = 16
    spare_mib: int = 8
    module_file: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A phase that has succeeded; seconds is how long it took."""

    name: str
    seconds: float
    detail: str


def pattern(block: int, generation: int) -> bytes:
    """Return what block number `block` holds after its write number `generation`."""
    return struct.pack("<8sII", b"selftest", block, generation) * (BLOCK // 16)


def describe(data: bytes) -> str:
    """Say what a block holds, for the message about a wrong one."""
    magic, block, generation = struct.unpack_from("<8sII", data)
    if magic == b"selftest" and data == pattern(block, generation):
        return f"block {block} of generation {generation}"
    return "garbage" if any(data) else "zeroes"


@dataclass(slots=True)
class _Bench:
    """The devices, and what should be on them.

    generation: of each block of the set.  failing: blocks of the set whose
    place on main fails now.  mapped: those of them that live on the spare.
    """

    plan: Plan
    stack: contextlib.ExitStack
    name: str
    loaded: bool = False
    disks: tuple[str, str] = ("", "")
    generation: list[int] = field(default_factory=list)
    failing: frozenset[int] = frozenset()
    mapped: frozenset[int] = frozenset()

    @property
    def main(self) -> str:
        """Name of the dm device that is the set's main."""
        return f"{self.name}-main"

    @property
    def blocks(self) -> int:
        return len(self.generation)

    @property
    def unreadable(self) -> frozenset[int]:
        return self.failing - self.mapped

    def running(self) -> Running:
        (running,) = live.find([self.name])
        return running

    def table(self) -> RemapTable:
        (line,) = self.running().tables
        return line


def _fail(message: str) -> Failure:
    return Failure("DMR-E107", message)


# ------------------------------------------------------------------- devices


def _modprobe(bench: _Bench, name: str, *parameters: str) -> None:
    """Load a module of the kernel's that was not there, until the end."""
    run(["modprobe", name, *parameters])
    bench.stack.callback(run, ["modprobe", "--remove", name])


def _loop(bench: _Bench, directory: str, name: str, mib: int) -> str:
    """Make a loop device over a new file."""
    path = os.path.join(directory, name)
    with open(path, "xb") as file:
        file.truncate(mib << 20)
    device = run(["losetup", "--find", "--show", path]).stdout.strip()
    bench.stack.callback(run, ["losetup", "--detach", device])
    return device


def _make_disks(bench: _Bench) -> str:
    plan = bench.plan
    if plan.backing == "ram":
        # The module makes its disks when it is loaded: those that are there already
        # may hold somebody's data.
        if os.path.exists("/dev/ram0"):
            raise Busy("DMR-E409", "ram disks (module brd) are there already and may be in use")
        size = max(plan.main_mib, plan.spare_mib) << 10
        _modprobe(bench, "brd", "rd_nr=2", f"rd_size={size}")
        bench.disks = ("/dev/ram0", "/dev/ram1")
    else:
        if not os.path.exists("/dev/loop-control"):
            _modprobe(bench, "loop")
        directory = bench.stack.enter_context(
            tempfile.TemporaryDirectory(prefix="dmremap-selftest-", dir=plan.directory)
        )
        main = _loop(bench, directory, "main", plan.main_mib)
        spare = _loop(bench, directory, "spare", plan.spare_mib)
        bench.disks = (main, spare)

    dm.create(bench.main, "", [_linear(bench, 0, _sectors(bench.disks[0]))])
    bench.stack.callback(_remove_if_there, bench.main)
    return f"main {bench.disks[0]}, spare {bench.disks[1]}"


def _remove_if_there(name: str) -> None:
    if dm.exists(name) is not None:
        dm.remove(name)


def _sectors(path: str) -> int:
    with opened(path) as device:
        return device.size // SECTOR


def _linear(bench: _Bench, start: int, length: int) -> dm.Target:
    return dm.Target(start, length, "linear", f"{bench.disks[0]} {start}")


def failing_table(
    bad: Iterable[tuple[int, int]], total: int, good: Callable[[int, int], dm.Target]
) -> list[dm.Target]:
    """Return a table of `total` sectors where the ranges (start, sectors) fail."""
    table: list[dm.Target] = []
    at = 0
    for start, sectors in sorted(bad):
        if start > at:
            table.append(good(at, start - at))
        table.append(dm.Target(start, sectors, "error", ""))
        at = start + sectors
    if total > at:
        table.append(good(at, total - at))
    return table


# ------------------------------------------------------------------ test data


@contextlib.contextmanager
def _device(bench: _Bench, *, write: bool = False) -> Iterator[BlockDevice]:
    with opened(dm.device_path(bench.name), write=write) as device:
        yield device


def _write(bench: _Bench, blocks: Iterable[int]) -> int:
    """Write the next generation of some blocks, durably.  Every write must succeed."""
    count = 0
    with _device(bench, write=True) as device:
        for block in blocks:
            generation = bench.generation[block] + 1
            device.write(block * BLOCK, pattern(block, generation))
            bench.generation[block] = generation
            count += 1
        device.flush()
    return count


def _verify(bench: _Bench) -> str:
    """Read every block and compare it with what it should be."""
    with _device(bench) as device:
        for block, generation in enumerate(bench.generation):
            data = device.read(block * BLOCK, BLOCK)
            if block in bench.unreadable:
                if data is not None:
                    raise _fail(
                        f"block {block} cannot be read on main and was never written again, "
                        f"yet a read returned {describe(data)}"
                    )
            elif data is None:
                raise _fail(f"block {block} cannot be read")
            elif data != pattern(block, generation):
                raise _fail(f"block {block} holds {describe(data)} and not generation {generation}")
    good = bench.blocks - len(bench.unreadable)
    return f"{good} blocks are right, {len(bench.unreadable)} fail as they should"


def _blocks_of(ranges: Iterable[tuple[int, int]]) -> frozenset[int]:
    """Return the blocks that ranges of sectors make up, whole."""
    sectors = {sector for start, count in ranges for sector in range(start, start + count)}
    blocks = {sector // BLOCK_SECTORS for sector in sectors}
    if len(sectors) != len(blocks) * BLOCK_SECTORS:
        raise _fail(f"{len(sectors)} sectors are reported, which is no whole number of blocks")
    return frozenset(blocks)


def _pending_ranges(bench: _Bench) -> list[tuple[int, int]]:
    """Ask the kernel what is pending: first sectors and numbers of sectors."""
    ranges: list[tuple[int, int]] = []
    at: int | None = 0
    while at is not None:
        page = parse_pending(dm.message(bench.name, 0, pending_message(at, _PAGE)))
        ranges += [(entry.sector, entry.sectors) for entry in page.entries]
        at = page.next
    return ranges


def _pending(bench: _Bench) -> frozenset[int]:
    """Ask the kernel which blocks are pending."""
    return _blocks_of(_pending_ranges(bench))


def _mapped(bench: _Bench) -> frozenset[int]:
    """Ask the kernel which blocks are mapped."""
    ranges: list[tuple[int, int]] = []
    at: int | None = 0
    while at is not None:
        page = parse_list(dm.message(bench.name, 0, list_message(at, _PAGE)))
        for entry in page.entries:
            if entry.state != "mapped" or entry.sector is None:
                raise _fail(f"slot {entry.slot} is {entry.state}, and nothing made it so")
            ranges.append((entry.sector, entry.sectors))
        at = page.next
    return _blocks_of(ranges)


def _expect(what: str, found: frozenset[int], wanted: frozenset[int]) -> None:
    if found != wanted:
        raise _fail(f"{what} are blocks {sorted(found)} and should be {sorted(wanted)}")


# --------------------------------------------------------------------- phases


def _load(bench: _Bench) -> str:
    if module.is_loaded():
        return "the module was loaded before and stays loaded"
    module.load(bench.plan.module_file)
    bench.loaded = True
    bench.stack.callback(_unload_if_loaded, bench)
    return "loaded"


def _unload_if_loaded(bench: _Bench) -> None:
    if bench.loaded:
        bench.loaded = False
        module.unload()


def _create(bench: _Bench) -> str:
    bench.stack.callback(_remove_if_there, bench.name)
    request = Request(main=dm.device_path(bench.main), spare=bench.disks[1], name=bench.name)
    with locked():
        create.carry_out(create.plan(request))
    bench.generation = [0] * (bench.table().length // BLOCK_SECTORS)
    return f"{bench.blocks} blocks, {bench.running().status[0].free} free slots"


def _fill(bench: _Bench) -> str:
    _write(bench, range(bench.blocks))
    return _verify(bench)


def _break(bench: _Bench) -> str:
    """Swap main's table for one in which some blocks fail."""
    middle = bench.blocks // 2
    # The first, one alone, some side by side.  Not the last too: where the kernel
    # can read neither the first nor the last unit nor a neighbour of what failed,
    # it takes main for dead and not for a disk with bad places.
    bench.failing = frozenset({0, 7, middle, middle + 1, middle + 2, middle + 5})
    shift = bench.table().main_start
    bad = [(shift + block * BLOCK_SECTORS, BLOCK_SECTORS) for block in bench.failing]
    total = _sectors(bench.disks[0])
    dm.swap(bench.main, failing_table(bad, total, lambda at, n: _linear(bench, at, n)))
    return f"{len(bench.failing)} blocks of main fail"


def _read_broken(bench: _Bench) -> str:
    said = _verify(bench)
    _expect("pending", _pending(bench), bench.failing)
    return said


def _write_broken(bench: _Bench) -> str:
    """Write some failing blocks, which must succeed, and some good ones."""
    written = frozenset(sorted(bench.failing)[::2])
    good = [block for block in range(1, bench.blocks, 97) if block not in bench.failing]
    _write(bench, [*sorted(written), *good])
    bench.mapped = written
    said = _verify(bench)
    _expect("mapped", _mapped(bench), bench.mapped)
    _expect("pending", _pending(bench), bench.unreadable)
    return f"{len(written)} blocks mapped; {said}"


def _remove(bench: _Bench) -> str:
    with locked():
        remove.remove(bench.running())
    if dm.exists(bench.name) is not None:
        raise _fail(f"{bench.name} is still there")
    return "removed"


def _assemble(bench: _Bench) -> str:
    (found,) = discover.select(discover.scan([(bench.disks[1], 0)]), [bench.name])
    with locked():
        assemble.assemble(found, main=dm.device_path(bench.main))
    _expect("mapped", _mapped(bench), bench.mapped)
    # No note outlives the table. But whoever looks at a new device, as udev does, may have
    # met an unreadable block again by now.
    strange = {first // BLOCK_SECTORS for first, _ in _pending_ranges(bench)} - bench.unreadable
    if strange:
        raise _fail(f"blocks {sorted(strange)} are pending and can be read")
    return f"{len(bench.mapped)} mapped blocks found again"


def _take_apart(bench: _Bench) -> str:
    """Remove what the set was made of, and the set."""
    _remove(bench)
    dm.remove(bench.main)
    return "removed"


def _unload(bench: _Bench) -> str:
    if not bench.loaded:
        return "left loaded, as it was found"
    _unload_if_loaded(bench)
    if module.is_loaded():
        raise _fail("the module is still loaded")
    return "unloaded"


PHASES: tuple[tuple[str, Callable[[_Bench], str]], ...] = (
    ("load", _load),
    ("devices", _make_disks),
    ("create", _create),
    ("write and verify", _fill),
    ("break main", _break),
    ("read broken blocks", _read_broken),
    ("write broken blocks", _write_broken),
    ("remove", _remove),
    ("assemble", _assemble),
    ("verify again", _verify),
    ("remove again", _take_apart),
    ("unload", _unload),
)
"""The phases in their order; each returns what it has seen."""


def perform(plan: Plan, report: Callable[[Step], None]) -> None:
    """Run all phases; report each when it has succeeded.

    Raises the error of the first phase that fails, with the phase in a note,
    after everything that was made is taken apart.
    """
    name = f"dmremap-selftest-{os.getpid()}"
    with contextlib.ExitStack() as stack:
        bench = _Bench(plan, stack, name)
        for phase, function in PHASES:
            begin = time.monotonic()
            try:
                detail = function(bench)
            except Exception as error:
                error.add_note(f"in phase '{phase}'")
                raise
            report(Step(phase, time.monotonic() - begin, detail))
