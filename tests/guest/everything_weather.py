# SPDX-License-Identifier: GPL-2.0-only
"""What fails below the set of everything.py, from when to when, so that an error can be judged.

An error is honest if, at some time while the request was under way, something failed that a set
passes up. What it must hide (a bad block that a write meets) is no excuse.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Literal

from guest.lib import Fault, dm_message

if TYPE_CHECKING:
    from collections.abc import Iterable

Leg = Literal["main", "spare"]

NOT_MEDIA = ("transport", "timeout", "nospc", "protection")
"""Errors that a set passes up, whatever they meet."""
FORGET = 600.0
"""Seconds after which nobody asks any more whether something failed."""


@dataclass
class Rule:
    """A rule of a fault device."""

    leg: Leg
    first: int
    count: int
    directions: tuple[str, ...]
    status: str
    times: int | str = 0
    begun: float = 0.0
    """Just before it was sent."""
    holds: float | None = None
    """Just after that: from here on it holds for certain, until it is about to be ended."""
    ended: float | None = None

    def reaches(self, first: int, count: int) -> bool:
        """Whether it concerns these sectors of its leg."""
        return self.first < first + count and first < self.first + self.count

    def during(self, begin: float, end: float) -> bool:
        """Whether it could fail something then."""
        return self.begun <= end and (self.ended is None or self.ended >= begin)


@dataclass
class Spell:
    """A time during which requests may fail wherever they go."""

    why: str
    what: tuple[str, ...]
    begun: float
    ended: float | None = None


@dataclass
class Weather:
    """The rules of both legs, and all else that excuses an error."""

    legs: dict[Leg, Fault]
    rules: list[Rule] = field(default_factory=list)
    spells: list[Spell] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    # What fails

    def add(self, rule: Rule) -> None:
        """Have a leg fail so."""
        with self.lock:
            rule.begun = time.monotonic()
            self.rules.append(rule)
        self._send(rule)
        rule.holds = time.monotonic()

    def _send(self, rule: Rule) -> None:
        for direction in rule.directions:
            self.legs[rule.leg].add(rule.first, rule.count, direction, rule.status, rule.times)

    def send_again(self, rule: Rule) -> None:
        """Tell a fault device that has forgotten it."""
        self._send(rule)
        rule.holds = time.monotonic()

    def end(self, rule: Rule) -> None:
        """Have it fail no more."""
        rule.holds = None
        self.legs[rule.leg].clear(rule.first, rule.count)
        with self.lock:
            rule.ended = time.monotonic()
            horizon = rule.ended - FORGET
            self.rules = [r for r in self.rules if r.ended is None or r.ended > horizon]

    def active(self, leg: Leg | None = None) -> list[Rule]:
        """Return the rules that hold, of one leg or of both."""
        with self.lock:
            return [r for r in self.rules if r.ended is None and leg in (None, r.leg)]

    def is_free(self, leg: Leg, first: int, count: int) -> bool:
        """Whether no rule holds there: to end one must not end a part of another."""
        return not any(rule.reaches(first, count) for rule in self.active(leg))

    def again(self) -> None:
        """Tell fault devices that have forgotten all what holds; what was counted is over."""
        for rule in self.active():
            if rule.times:
                with self.lock:
                    rule.ended = time.monotonic()
            else:
                self.send_again(rule)

    # What is excused

    def begin_spell(self, why: str, *what: str) -> Spell:
        """Expect errors of these kinds of requests from now on."""
        spell = Spell(why, what, time.monotonic())
        with self.lock:
            self.spells.append(spell)
        return spell

    def end_spell(self, spell: Spell) -> None:
        """Expect them no more."""
        spell.ended = time.monotonic()

    def spell_during(self, kind: str, begin: float, end: float) -> bool:
        """Whether requests of this kind might have failed then, wherever they went."""
        with self.lock:
            return any(
                kind in spell.what
                and spell.begun <= end
                and (spell.ended is None or spell.ended >= begin)
                for spell in self.spells
            )

    def _met(self, leg: Leg, first: int, count: int, begin: float, end: float) -> list[Rule]:
        with self.lock:
            return [
                rule
                for rule in self.rules
                if rule.leg == leg and rule.during(begin, end) and rule.reaches(first, count)
            ]

    def read_may_fail(
        self, ranges: Iterable[tuple[int, int]], begin: float, end: float, *, slots: bool
    ) -> bool:
        """Whether a read of ranges of main, or of slots, had a reason to fail."""
        if self.spell_during("read", begin, end):
            return True
        if slots and any(
            "read" in rule.directions for rule in self._met("spare", 0, 1 << 62, begin, end)
        ):
            return True
        return any(
            "read" in rule.directions
            for first, count in ranges
            for rule in self._met("main", first, count, begin, end)
        )

    def write_may_fail(
        self, kind: str, first: int, count: int, begin: float, end: float, *, fua: bool
    ) -> bool:
        """Whether a write, a write-zeroes or a discard had a reason to fail."""
        if self.spell_during("write", begin, end) or (
            fua and self.spell_during("flush", begin, end)
        ):
            return True
        met = [r for r in self._met("main", first, count, begin, end) if kind in r.directions]
        if kind == "discard":
            return bool(met)
        if self.spell_during("remap", begin, end):  # a slot that refuses is none of main's
            met += [
                r for r in self._met("spare", 0, 1 << 62, begin, end) if "write" in r.directions
            ]
            return bool(met)
        return any(rule.status in NOT_MEDIA for rule in met)

    def refuses_write(self, first: int, count: int, since: float) -> bool:
        """Whether main has refused writes there all the time, and does."""
        return any(
            rule.leg == "main"
            and "write" in rule.directions
            and not rule.times
            and rule.holds is not None
            and rule.holds < since
            and rule.first <= first
            and first + count <= rule.first + rule.count
            for rule in self.active("main")
        )

    def might_refuse_write(self, first: int, count: int, begin: float, end: float) -> bool:
        """Whether main might have refused a write there."""
        return bool(
            self.spell_during("write", begin, end)
            or any(
                "write" in rule.directions or "write_zeroes" in rule.directions
                for rule in self._met("main", first, count, begin, end)
            )
        )

    def delay(self, leg: Leg, seconds: float) -> None:
        """Let what fails take so long."""
        dm_message(self.legs[leg].name, "delay", round(seconds * 1000))
