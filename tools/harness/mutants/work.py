# SPDX-License-Identifier: GPL-2.0-only
"""Takes mutants through their steps, several at a time, until all are judged or the time is up."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.mutants import build, steps, tree
from harness.mutants.results import NO_MUTANTS, End, Fate, Row, Store
from harness.mutants.steps import Outcome, TimeUp

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from harness.mutants.mutant import Mutant
    from harness.mutants.plan import Plan
    from harness.mutants.steps import Clock, Step
    from harness.mutants.tree import Tree

TOGETHER = 240.0
"""Files of tests/guest that take so long in all, in seconds, share a guest."""


class Judge:
    """Judges mutants in one copy of the checkout."""

    def __init__(self, plan: Plan, store: Store, clock: Clock, say: Callable[[str], None]) -> None:
        """Say what is needed of the run."""
        self.plan = plan
        self.store = store
        self.clock = clock
        self.say = say
        self.lock = threading.Lock()
        """Of the copy without a mutant: one thread measures in it."""

    def judge(self, mutant: Mutant, fate: Fate, copy: Tree) -> End:
        """Take a mutant to its end and keep it."""
        original = self.plan.source(mutant.file)
        if (copy.root / mutant.file).read_text() != original:
            raise HarnessError(f"{mutant.file} was edited meanwhile: start it again")
        try:
            none = self.plan.plant(mutant, copy)
            row = Row(mutant.key, end=none) if none else self._steps(mutant, fate, copy)
        finally:
            copy.write(mutant.file, original)
        self.store.add(row)
        assert row.end is not None
        what = f"{row.end} by {row.stage}, {row.how}" if row.how else row.end
        self.say(f"{mutant.key}: {what}")
        return row.end

    def _steps(self, mutant: Mutant, fate: Fate, copy: Tree) -> Row:
        """Return the end of a mutant that compiles."""
        todo = [step for step in self.plan.steps(mutant) if step.name not in fate.passed]
        built = {self.plan.series}
        alone: set[str] = set()
        while todo:
            if self.clock.over:
                raise TimeUp
            step = todo[0]
            # Another thread need not wait for a measurement that it has no use for.
            with contextlib.nullcontext() if self.plan.known(step) else self.lock:
                usual = self.plan.seconds(step)
            if usual is None:
                todo.pop(0)
                continue
            if step.series and step.series not in built:
                build.make(copy, step.series)
                built.add(step.series)
            for number, outcome in enumerate(self._run(todo, usual, copy, alone)):
                done = next(one for one in todo if one.name == outcome.step)
                if not outcome.ok and number:
                    # What the files before it have left may have made it fail.
                    alone.add(done.name)
                    break
                if not outcome.ok:
                    how = f"{outcome.step}: {outcome.how}"
                    return Row(
                        mutant.key,
                        step=done.name,
                        end=End.KILLED,
                        stage=done.stage,
                        how=how,
                        seconds=round(outcome.seconds, 1),
                    )
                self.store.add(Row(mutant.key, done.name, seconds=round(outcome.seconds, 1)))
                todo.remove(done)
        return Row(mutant.key, end=End.SURVIVED)

    def _run(
        self, todo: Sequence[Step], usual: float, copy: Tree, alone: Collection[str]
    ) -> list[Outcome]:
        """Run the first step, and with a file of tests/guest those that go with it."""
        step = todo[0]
        if not step.guest:
            timeout = steps.patience(usual)
            return [steps.run(steps.expanded(step, str(copy.root)), copy, timeout, self.clock)]
        files = {step.guest: steps.patience(usual)}
        whole = usual
        for other in todo[1:] if step.name not in alone else ():
            # What is not timed yet may not be needed.
            if not other.guest or whole > TOGETHER or not self.plan.known(other):
                break
            seconds = self.plan.seconds(other)
            if seconds is not None:
                files[other.guest] = steps.patience(seconds)
                whole += seconds
        try:
            return steps.guests(copy, step.series, files, self.clock)
        except HarnessError as error:
            # Before any test had ended: not the mutant's doing, unless it happens again.
            self.say(f"once more, because of {error}")
            return steps.guests(copy, step.series, files, self.clock)


def run(
    plan: Plan,
    slots: Sequence[Sequence[Mutant]],
    store: Store,
    clock: Clock,
    jobs: int,
    say: Callable[[str], None],
) -> bool:
    """Judge a mutant for each slot; return whether all are, or False when the time was up."""
    known = store.read()
    judge = Judge(plan, store, clock, say)
    waiting: Iterator[Sequence[Mutant]] = iter(slots)
    taking = threading.Lock()

    def take() -> Sequence[Mutant] | None:
        with taking:
            return None if clock.over else next(waiting, None)

    def work() -> None:
        copy: Tree | None = None
        while (slot := take()) is not None:
            for mutant in slot:
                fate = known.get(mutant.key, Fate(mutant.key))
                if fate.end is None:
                    if copy is None:
                        copy = tree.private()
                        plan.plant(None, copy)
                    if clock.over:
                        return
                    fate.end = judge.judge(mutant, fate, copy)
                if fate.end not in NO_MUTANTS:
                    break

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(work) for _ in range(jobs)]
        try:
            up = [_finished(future.result) for future in futures]
        except BaseException:
            clock.stop()
            raise
    return all(up) and next(waiting, None) is None


def _finished(result: Callable[[], None]) -> bool:
    try:
        result()
    except TimeUp:
        return False
    return True
