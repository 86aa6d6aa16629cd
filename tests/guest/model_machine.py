# SPDX-License-Identifier: GPL-2.0-only
"""The model test: random steps on a set, and after each of them what it may answer.

Runs inside a guest, as a program:

    model_machine.py --seed 1 --examples 40 --steps 30

does so many examples of so many steps. The same seed does the same steps; where one of them fails,
Hypothesis looks for the shortest way to the failure and prints it as a script, with the status and
the list of the set at its end. With DMREMAP_LONG_SECONDS in the environment it goes on with the
next seeds for that long.

What is promised is in model.py; what a step may do to the set is said where the step is. Steps are
done one after the other, so the list and the counters can be held to exact numbers between them.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from guest.lib import (
    Device,
    background,
    dm_lines,
    dm_load,
    dm_message,
    dm_reload,
    dm_resume,
    dm_suspend,
    load_module,
    outcome,
    wait_for,
)
from guest.model import FIRST, LOST, ZERO, Model, Wrong, data_of, value_of
from guest.model_rig import KINDS, NAME, UNITS, Rig, rigs
from guest.remapset import entries, pending, status
from hypothesis import HealthCheck, Phase, note, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dmremap.dm.messages import parse_remap, remap_message
from dmremap.ondisk import BLOCK_SECTORS

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet
    from concurrent.futures import Future

    from dmremap.dm.lines import Status
    from dmremap.dm.messages import ListEntry

# The units that steps are about: few, so that they meet, and on both sides of a border between two
# regions of the lookup table (64 units).
WINDOW = range(54, 70)
AT = st.integers(WINDOW.start, WINDOW.stop - 1)
COUNT = st.integers(1, 9)
NTH = st.integers(0, 63)
STATUS = st.sampled_from(["medium", "ioerr"])
TIMES = st.sampled_from([0, 1, 2])
"""0: for ever."""
SEED = st.integers(0, 3)
WRITES = "write write_zeroes"
PLACES = ["S0", "S1", "A0", "A1", "B0", "B1"]
"""Where a cut may catch a write: on its way to a segment's slots, or to a copy of its table."""


def units_of(at: int, n: int) -> range:
    """Return units of the window."""
    return range(at, min(at + n, WINDOW.stop))


def step(
    *, suspended: bool = False, **arguments: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a rule, at whose end the set must say of itself what the model says.

    No invariant does that, because Hypothesis prints those too. ``suspended``: it may be done while
    the device is suspended, where a read or a write would wait for the resume.
    """

    as_rule: Any = rule(**arguments)

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def done(self: Disk, **drawn: Any) -> None:
            self.looked = False
            function(self, **drawn)
            if not self.looked:
                self.look()
            Disk.steps += 1

        made = as_rule(done)
        if not suspended:
            made = precondition(lambda self: not self.suspended)(made)
        return cast("Callable[..., None]", made)

    return decorate


class Disk(RuleBasedStateMachine):
    """A set on legs that fail, beside its model."""

    rigs: dict[str, Rig]
    examples = 0
    steps = 0
    """Done by all examples of a seed."""
    caught = 0
    """Writes that a cut has caught half done."""
    found = ""
    """When it failed first."""
    since = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.started = False
        self.looked = False
        self.suspended = False
        self.replaced = False
        """A table was loaded while the device was suspended: the resume takes it."""
        self.value = FIRST

    @initialize(kind=st.sampled_from(sorted(KINDS)))
    def begin(self, kind: str) -> None:
        """Have the disks as they were made, and the set running."""
        self.rig = self.rigs[kind]
        self.started = True
        Disk.examples += 1
        self.rig.reset()
        piece = self.rig.kind.physical // self.rig.kind.unit
        self.model = Model(UNITS, piece, self.rig.kind.start, self.rig.slots)

    def teardown(self) -> None:
        if not self.started:
            return
        error = sys.exc_info()[1]
        # Hypothesis ends an example with exceptions of its own.
        failed = isinstance(error, Exception) and not isinstance(error, HypothesisException)
        try:
            if failed:
                Disk.found = Disk.found or Disk.progress()
                self.explain()
            elif error is None:
                if self.suspended:
                    self.resume()
                self.heal_main(at=WINDOW.start, n=len(WINDOW))
                self.heal_spare()
                self.read_all()
        finally:
            self.rig.close()

    @classmethod
    def progress(cls) -> str:
        taken = time.monotonic() - cls.since
        counts = f"{cls.examples} examples, {cls.steps} steps, {cls.caught} writes cut short"
        return f"{counts}, {taken:.1f} s"

    def explain(self) -> None:
        """Print what the set says of itself at the end of the script."""
        with suppress(Exception):
            note(f"# {dm_lines(NAME)[0]}")
            for row in entries(NAME):
                note(f"# {row.line}")
            note(f"# pending: {pending(NAME)}")

    # What all steps need

    @property
    def device(self) -> Device:
        assert self.rig.device is not None
        return self.rig.device

    def next(self) -> int:
        """Return a value that was never written."""
        self.value += 1
        return self.value

    def place(self, units: range) -> tuple[int, int]:
        """Return the sectors of units on the set."""
        return units.start * self.rig.sectors, len(units) * self.rig.sectors

    def data(self, units: range, value: int) -> bytes:
        return b"".join(data_of(unit, value, self.rig.kind.unit) for unit in units)

    def look(self, may: AbstractSet[int] = frozenset(), *, counted: bool = True) -> set[int]:
        """Compare list and status with the model; return the units that have another place.

        ``may``: those that may have. ``counted``: it happened in this load.
        """
        rows, now = self.settled()
        changed = self.model.look(rows, self.rig.sectors, may, counted=counted)
        self.expect("mode", now.mode, "rw")
        self.expect("breaker", now.breaker, "open" if self.model.breaker_open else "closed")
        self.expect("slots", now.slots, self.rig.slots)
        self.expect("remapped", now.remapped, self.model.remapped)
        self.expect("moved", now.moved, self.model.moved)
        noted = {sector // self.rig.sectors for sector in pending(NAME)} if now.pending else set()
        self.expect("pending", now.pending, len(noted))
        if not noted <= self.model.noted:
            raise Wrong(f"pending for no reason: {sorted(noted - self.model.noted)}")
        self.looked = True
        return changed

    def settled(self) -> tuple[list[ListEntry], Status]:
        """Return list and status when they agree: what is bad is said after the write it failed."""
        deadline = time.monotonic() + 5
        while True:
            rows, now = entries(NAME), status(NAME)
            states = Counter(row.state for row in rows)
            expected = (
                states["mapped"] + states["lost"],
                states["lost"],
                states["bad"],
                states["doubt"],
                now.slots - len(rows),
            )
            if (now.mapped, now.lost, now.bad, now.doubt, now.free) == expected and not now.doubt:
                return rows, now
            if time.monotonic() > deadline:
                raise Wrong(f"list and status do not agree: {expected}, {now}")

    def expect(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            raise Wrong(f"{what} is {found}, and not {expected}")

    # Reads and writes

    @step(at=AT, n=COUNT)
    def read(self, at: int, n: int) -> None:
        self.read_units(units_of(at, n))

    @step()
    def read_all(self) -> None:
        """Read every unit, those alone that may fail."""
        whole = range(UNITS)
        if not self.model.read_may_fail(whole):
            self.read_units(whole)
            return
        self.read_units(range(WINDOW.start))
        for unit in WINDOW:
            self.read_units(range(unit, unit + 1))
        self.read_units(range(WINDOW.stop, UNITS))

    def read_units(self, units: range) -> None:
        """Read, and hold what comes back to what the model allows."""
        try:
            data = self.device.read(*self.place(units))
        except OSError as error:
            if not self.model.read_may_fail(units):
                raise Wrong(f"{units} cannot be read: {error}") from error
            self.model.read_failed(units)
            return
        for unit in units:
            start = (unit - units.start) * self.rig.kind.unit
            self.check(unit, data[start : start + self.rig.kind.unit])
        self.model.known(units)

    def check(self, unit: int, data: bytes) -> None:
        """Hold one unit's bytes to what the model allows."""
        value, state = value_of(unit, data), self.model.units[unit]
        if value is None:
            raise Wrong(f"unit {unit} reads as something else's bytes: {data[:16].hex()}")
        if value not in state.now:
            raise Wrong(f"unit {unit} reads as {value}, and may be {sorted(state.now)}")
        state.seen(value)

    @step(at=AT, n=COUNT)
    def write(self, at: int, n: int) -> None:
        units, value = units_of(at, n), self.next()
        self.write_units(units, value, self.device.write, self.data(units, value))

    @step(at=AT, n=COUNT)
    def write_worn(self, at: int, n: int) -> None:
        """Write where from now on nothing can be written: all of it is mapped, or moves."""
        units, value = units_of(at, n), self.next()
        self.wear(units)
        self.write_units(units, value, self.device.write, self.data(units, value))

    def wear(self, units: range) -> None:
        """Let units refuse to be written where they are."""
        self.fail_units(units, "write", "medium", 0)
        for unit in sorted(self.model.mapped.keys() & set(units)):
            self.fail_one_slot(self.model.mapped[unit].slot, "write", "medium", 0)

    @step(at=AT, n=COUNT)
    def write_fua(self, at: int, n: int) -> None:
        """Whatever becomes of it, each of its writes arrives with FUA. (A flush follows it.)"""
        units, value = units_of(at, n), self.next()
        legs = (self.rig.main, self.rig.spare)
        for leg in legs:
            leg.reset()
        data = self.data(units, value)
        self.write_units(units, value, self.device.write, data, durable=True, fua=True)
        for leg in legs:
            counters = leg.counters()
            self.expect(f"FUA on {leg.name}", counters["fua"], counters["writes"])

    @step(at=AT, n=COUNT)
    def write_zeroes(self, at: int, n: int) -> None:
        units = units_of(at, n)
        self.write_units(units, ZERO, self.device.write_zeroes, self.place(units)[1])

    def write_units(
        self,
        units: range,
        value: int,
        function: Callable[..., None],
        *args: Any,
        durable: bool = False,
        may_map: bool = True,
        **kwargs: Any,
    ) -> None:
        """Write, and take in what has become of it. ``durable``: so it is when it has succeeded.

        ``may_map``: it may map what main refuses; if not, main refuses everything.
        """
        model = self.model
        may, must = model.may_move(units), model.must_change(units)
        may_fail = model.write_may_fail(units)
        if may_map:
            may |= model.may_map(units)
        else:
            may_fail |= not units_mapped(model, units)
        result = outcome(function, self.place(units)[0], *args, **kwargs)
        if result != "OK" and not may_fail:
            raise Wrong(f"a write of {units} fails with {result}")
        if result == "OK" and not may_map and not units_mapped(model, units):
            raise Wrong(f"a write of {units} succeeds while main is away")
        self.wrote(units, value, must, self.look_after(units, value, may), result, durable=durable)

    def look_after(self, units: range, value: int, may: AbstractSet[int]) -> set[int]:
        """Look at what a write to these units may have done."""
        for unit in units:
            self.model.units[unit].tried(value)
        return self.look(may)

    def wrote(
        self,
        units: range,
        value: int,
        must: AbstractSet[int],
        changed: AbstractSet[int],
        result: str,
        *,
        durable: bool,
    ) -> None:
        """Take in a write that has ended, and what look_after() has returned."""
        if result != "OK":
            return
        if not must <= changed:
            raise Wrong(f"written where it cannot be: {sorted(must - changed)}")
        for unit in units:
            state, place = self.model.units[unit], self.model.mapped.get(unit)
            if place is not None and place.state == "lost":
                raise Wrong(f"unit {unit} was written, and is lost")
            state.wrote(value, durable=durable or unit in changed or state.filled)
        self.model.known(units)

    @step(at=AT, n=COUNT)
    def discard(self, at: int, n: int) -> None:
        """What is discarded may be zero or as it was; what is lost stays so."""
        units, model = units_of(at, n), self.model
        result = outcome(self.device.discard, *self.place(units))
        if result != "OK" and not units_not_mapped(model, units) & model.undiscardable:
            raise Wrong(f"a discard of {units} fails with {result}")
        for unit in units:
            if LOST not in model.units[unit].now:
                model.units[unit].tried(ZERO)

    @step()
    def flush(self) -> None:
        self.device.flush()
        self.model.flushed()

    @step(leg=st.sampled_from(["main", "spare"]))
    def flush_fails(self, leg: str) -> None:
        """The flush fails if it reaches this leg, and then nobody may believe the next one less."""
        device = self.rig.main if leg == "main" else self.rig.spare
        device.reset()
        device.add(0, 0, "flush", "ioerr", 1)
        result = outcome(self.device.flush)
        arrived = device.counters()["flushes"]
        if not arrived:
            with Device(device.path) as below:  # use the rule up
                self.expect("this flush", outcome(below.flush), "EIO")
        if leg == "main" and not arrived:
            raise Wrong("a flush did not reach main")
        self.expect("the flush", result, "EIO" if arrived else "OK")
        if not arrived:
            self.model.flushed()

    # What fails

    @step(
        suspended=True,
        at=AT,
        n=COUNT,
        what=st.sampled_from(["write", "read", "both", "discard"]),
        error=STATUS,
        times=TIMES,
    )
    def fail_block(self, at: int, n: int, what: str, error: str, times: int) -> None:
        self.fail_units(units_of(at, n), what, error, times)

    def fail_units(self, units: range, what: str, error: str, times: int) -> None:
        where = (self.rig.main_sector(units.start), len(units) * self.rig.sectors)
        directions = {"write": WRITES, "both": f"{WRITES} read"}.get(what, what)
        self.rig.fail(self.rig.main, *where, directions, error, times)
        if what in ("write", "both"):
            for unit in units:
                self.model.refuses[unit] = self.model.refuses.get(unit, False) or not times
        if what in ("read", "both"):
            self.model.unreadable |= set(units)
        if what == "discard":
            self.model.undiscardable |= set(units)

    @step(suspended=True, at=AT, n=COUNT)
    def heal_main(self, at: int, n: int) -> None:
        units, model = units_of(at, n), self.model
        self.rig.heal(self.rig.main, self.rig.main_sector(at), len(units) * self.rig.sectors)
        model.unreadable -= set(units)
        model.undiscardable -= set(units)
        for unit in units:
            model.refuses.pop(unit, None)

    @step(
        suspended=True,
        nth=NTH,
        used=st.booleans(),
        what=st.sampled_from(["write", "read", "both"]),
        error=STATUS,
        times=TIMES,
    )
    def fail_slot(self, nth: int, used: bool, what: str, error: str, times: int) -> None:
        """The nth slot that is used, or free, begins to fail."""
        model = self.model
        used_slots = [row.slot for _, row in sorted(model.mapped.items())]
        slots = used_slots if used else model.free_slots()
        if not slots:
            return
        self.fail_one_slot(slots[nth % len(slots)], what, error, times)

    def fail_one_slot(self, slot: int, what: str, error: str, times: int) -> None:
        model = self.model
        directions = {"write": WRITES, "both": f"{WRITES} read"}.get(what, what)
        where = (self.rig.slot_sector(slot), self.rig.sectors)
        self.rig.fail(self.rig.spare, *where, directions, error, times)
        if what in ("write", "both"):
            model.slot_refuses[slot] = model.slot_refuses.get(slot, False) or not times
        if what in ("read", "both"):
            model.slot_unreadable.add(slot)

    @step(suspended=True, place=st.sampled_from(["SB0", "SB1", "A0", "A1", "B0", "B1"]))
    def fail_metadata(self, place: str) -> None:
        """A copy of a block of metadata cannot be written at home: nothing else may follow."""
        sector = {"SB0": 0, "SB1": 255 * BLOCK_SECTORS}.get(place)
        where = self.held_range(place) if sector is None else (sector, BLOCK_SECTORS)
        self.rig.fail(self.rig.spare, *where, WRITES, "medium")

    @step(suspended=True)
    def heal_spare(self) -> None:
        self.rig.heal(self.rig.spare)
        self.model.slot_refuses.clear()
        self.model.slot_unreadable.clear()

    @step(at=AT, n=COUNT, error=st.sampled_from(["medium", "ioerr", "transport", "offline"]))
    def write_while_main_is_away(self, at: int, n: int, error: str) -> None:
        """All of main fails: nothing of it may be mapped, whatever it says."""
        units, value = units_of(at, n), self.next()
        self.rig.main.dead(error)
        data = self.data(units, value)
        self.write_units(units, value, self.device.write, data, may_map=False)
        self.rig.main.dead()

    # The life of a set

    @step(flush=st.booleans())
    def suspend(self, flush: bool) -> None:
        """Until the resume everything else is done to a device that is suspended."""
        dm_suspend(NAME, flush=flush)
        self.suspended = True

    @precondition(lambda self: self.suspended)
    @step(suspended=True)
    def resume(self) -> None:
        dm_resume(NAME)
        self.suspended = False
        if self.replaced:
            self.replaced = False
            self.model.loaded()

    @step(at=AT, n=COUNT, flush=st.booleans())
    def write_while_suspended(self, at: int, n: int, flush: bool) -> None:
        units, value = units_of(at, n), self.next()

        def through_suspend(sector: int, data: bytes) -> None:
            dm_suspend(NAME, flush=flush)
            future = background(self.device.write, sector, data)
            time.sleep(0.002)
            early = future.done()
            dm_resume(NAME)
            future.result(60)
            if early:
                raise Wrong("a write was done while the device was suspended")

        self.write_units(units, value, through_suspend, self.data(units, value))

    @step(suspended=True, how=st.sampled_from(["reload", "recreate"]))
    def load(self, how: str) -> None:
        """The same table again, in the place of the running one or after a clean removal."""
        if how == "recreate":
            self.rig.remove()
            self.rig.create()
            self.started_anew()
        elif self.suspended:
            dm_load(NAME, self.rig.line)
            self.replaced = True
        else:
            dm_reload(NAME, self.rig.line)
            self.model.loaded()
        self.look()

    def started_anew(self) -> None:
        """Nothing of what the device was before counts."""
        self.suspended = self.replaced = False
        self.model.loaded()

    @precondition(lambda self: self.rig.grown + 1 < len(self.rig.kind.areas))
    @step()
    def grow(self) -> None:
        self.rig.grow()
        self.model.slots = self.rig.slots
        self.model.loaded()
        self.look()

    @step(at=AT, n=COUNT)
    def write_while_breaker_is_open(self, at: int, n: int) -> None:
        units, value = units_of(at, n), self.next()
        dm_message(NAME, "breaker", "open")
        self.model.breaker_open = True
        self.write_units(units, value, self.device.write, self.data(units, value))
        dm_message(NAME, "breaker", "close")
        self.model.breaker_open = False

    @step(suspended=True, at=AT, n=COUNT, lost=st.booleans())
    def map_by_hand(self, at: int, n: int, lost: bool) -> None:
        """Copy units to slots, or give them up; so far as the answer says, it is durable."""
        units, model = units_of(at, n), self.model
        if not self.suspended:
            dm_suspend(NAME)
        answer = parse_remap(dm_message(NAME, remap_message(*self.place(units), lost=lost)))
        if not self.suspended:
            dm_resume(NAME)
        self.expect("the number of units", answer.total, len(units))
        new = units_not_mapped(model, units[: answer.done])
        for unit in new:
            if lost:
                model.units[unit].listed(lost=True)
            else:
                model.units[unit].settled()
        self.expect("what was mapped", self.look(new), new)
        model.known(units[: answer.done])
        reason = {
            None: answer.done == len(units),
            "unreadable": answer.done < len(units) and units[answer.done] in model.unreadable,
            "full": not model.free_slots(),
            "failed": bool(model.slot_refuses),
        }
        if not reason[answer.obstacle]:
            raise Wrong(f"no reason for this answer: {answer.line}")

    # Power cuts

    @step(suspended=True, flushed=st.booleans(), survivors=SEED)
    def cut(self, flushed: bool, survivors: int) -> None:
        """``flushed``: a flush comes just before, so that all must be there afterwards."""
        if flushed and not self.suspended:
            self.device.flush()
            self.model.flushed()
        self.rig.power_off(survivors)
        self.after_cut()

    def after_cut(self, may: AbstractSet[int] = frozenset()) -> None:
        self.rig.power_on()
        self.model.cut()
        self.started_anew()
        self.look(may, counted=False)

    def held_range(self, place: str) -> tuple[int, int]:
        """Return the sectors of the spare that a place stands for."""
        if place == "slots":
            return 256 * BLOCK_SECTORS, self.rig.kind.areas[-1] * BLOCK_SECTORS
        segment = self.rig.segments[int(place[1])]
        return (
            segment.copy_a if place[0] == "A" else segment.copy_b
        ) * BLOCK_SECTORS, BLOCK_SECTORS

    @step(
        at=AT,
        n=COUNT,
        fua=st.booleans(),
        place=st.sampled_from(PLACES),
        worn=st.booleans(),
        again=st.booleans(),
        survivors=SEED,
    )
    def cut_while_writing(
        self, at: int, n: int, fua: bool, place: str, worn: bool, again: bool, survivors: int
    ) -> None:
        """Cut the power when a write has come so far as this place.

        ``worn``: from now on these units cannot be written where they are. ``again``: while the
        write waits there another one writes the same units, with FUA. What of both is acknowledged
        must be there afterwards.
        """
        units, value, model = units_of(at, n), self.next(), self.model
        if worn:
            self.wear(units)
        may = model.may_map(units) | model.may_move(units)
        must = model.must_change(units)
        sector, spare = self.place(units)[0], self.rig.spare
        spare.hold("write", *self.held_range(place))
        write = self.device.write
        first = background(outcome, write, sector, self.data(units, value), fua=fua)
        what = f"the write to come to {place}"
        wait_for(lambda: first.done() or spare.counters()["held"] > 0, what)
        Disk.caught += not first.done()
        second: Future[str] | None = None
        if again and not first.done():
            data = self.data(units, value + 1)
            second = background(outcome, write, sector, data, fua=True)
            with suppress(TimeoutError):
                second.result(0.3)  # if it is acknowledged, then soon
        self.rig.power_off(survivors)
        done = first.result(60) == "OK", second is not None and second.result(60) == "OK"
        if second is not None:
            self.next()
        for unit in units:
            state = model.units[unit]
            values = {value} if second is None else {value, value + 1}
            if done[1]:  # the two are concurrent, so either order is legal
                state.after_cut = values
            elif done[0]:
                state.wrote(value, durable=fua or unit in must or LOST in state.now)
                state.after_cut |= values
            else:
                state.after_cut |= values
        self.after_cut(may)


def units_not_mapped(model: Model, units: range) -> set[int]:
    return {unit for unit in units if unit not in model.mapped}


def units_mapped(model: Model, units: range) -> bool:
    return not units_not_mapped(model, units)


def run(number: int, examples: int, steps: int, phases: tuple[Phase, ...]) -> None:
    """Do the examples that belong to a seed; raise what one of them has found."""
    Disk.examples, Disk.steps, Disk.caught, Disk.since = 0, 0, 0, time.monotonic()
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        database=None,
        deadline=None,
        phases=phases,
        report_multiple_bugs=False,
        # An emulated machine is slow, and so many steps draw much.
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large),
    )
    try:
        run_state_machine_as_test(seed(number)(Disk), settings=chosen)
    except BaseException:
        print(f"seed {number} fails, after {Disk.found or Disk.progress()}", flush=True)
        raise
    print(f"seed {number}: {Disk.progress()}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="The model test, in a guest")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--examples", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--no-shrink", action="store_true", help="print what failed as it is")
    words = parser.parse_args()
    phases = (Phase.generate, *(() if words.no_shrink else (Phase.shrink,)))
    load_module("dm_remap")
    end = time.monotonic() + float(os.environ.get("DMREMAP_LONG_SECONDS", "0"))
    with rigs() as made:
        Disk.rigs = made
        number = words.seed
        while True:
            print(f"MODEL_SEED={number}", flush=True)
            run(number, words.examples, words.steps, phases)
            number += 1
            if time.monotonic() > end:
                break


if __name__ == "__main__":
    main()
