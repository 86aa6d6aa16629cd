# SPDX-License-Identifier: GPL-2.0-only
"""From a set's status to a verdict.  Pure."""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum

from dmremap.dm.lines import Status
from dmremap.health.codes import CODES


class State(IntEnum):
    """How a set is; a higher number is worse.

    OK: nothing to do.  DEGRADED: the set does all it should, and something
    needs a person.  FAILING: the set is about to stop doing its work, or the
    next failing block will reach the user.  FAILED: I/O fails or is stuck now,
    or the set can no longer protect anything.
    """

    OK = 0
    DEGRADED = 1
    FAILING = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class Policy:
    """The thresholds; every one is a count of what the status line counts.

    low_divisor: the spare is low when at most one slot in so many is free (the
    kernel sends `spare_low` at the same point).  bad_failing, copies_failing:
    from here on the spare is failing and not only blemished; there are 127
    stand-ins and no more.  transient: repeated requests that are worth a word.
    """

    low_divisor: int = 8
    bad_failing: int = 16
    copies_failing: int = 32
    transient: int = 16


DEFAULT_POLICY = Policy()


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that is wrong with one set."""

    code: str
    state: State
    sentence: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The worst state of all reasons, and the reasons, the worst first."""

    state: State
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a rule looks at."""

    status: Status
    read_only: bool
    suspended: bool
    policy: Policy


_Rule = Callable[[_Seen], State | None]


def _when(condition: bool, state: State) -> State | None:
    return state if condition else None


def _spare_low(seen: _Seen) -> State | None:
    free, slots = seen.status.free, seen.status.slots
    return _when(free > 0 and free * seen.policy.low_divisor <= slots, State.FAILING)


def _retries(seen: _Seen) -> State | None:
    # The block layer merges: when a request fails for one bad block, what else was in it is
    # repeated too and succeeds. So retries speak for themselves only where no block is bad.
    bad_blocks = seen.status.mapped + seen.status.pending
    return _when(not bad_blocks and seen.status.transient >= seen.policy.transient, State.DEGRADED)


def _blemish(count: int, failing: int) -> State | None:
    if count >= failing:
        return State.FAILING
    return _when(count > 0, State.DEGRADED)


# A table that is read-only by request is in mode ro too; that is no failure.
_RULES: tuple[tuple[str, _Rule], ...] = (
    ("DMR-H303", lambda s: _when(s.status.mode == "init", State.FAILED)),
    ("DMR-H306", lambda s: _when((s.status.gone or 0) > 0, State.FAILED)),
    ("DMR-H302", lambda s: _when(s.status.doubt > 0, State.FAILED)),
    ("DMR-H301", lambda s: _when(s.status.mode == "ro" and not s.read_only, State.FAILED)),
    ("DMR-H105", lambda s: _when(s.status.main == "failing", State.FAILED)),
    ("DMR-H205", lambda s: _when(s.status.spare == "failing", State.FAILED)),
    ("DMR-H305", lambda s: _when(s.status.breaker == "open", State.FAILING)),
    ("DMR-H202", lambda s: _when(s.status.free == 0, State.FAILING)),
    ("DMR-H201", _spare_low),
    ("DMR-H203", lambda s: _blemish(s.status.bad, s.policy.bad_failing)),
    ("DMR-H204", lambda s: _blemish(s.status.copies, s.policy.copies_failing)),
    ("DMR-H307", lambda s: _when((s.status.flush_errors or 0) > 0, State.DEGRADED)),
    ("DMR-H304", lambda s: _when(s.suspended, State.DEGRADED)),
    ("DMR-H103", lambda s: _when(s.status.lost > 0, State.DEGRADED)),
    ("DMR-H102", lambda s: _when(s.status.pending > 0, State.DEGRADED)),
    ("DMR-H101", lambda s: _when(s.status.mapped > 0, State.DEGRADED)),
    ("DMR-H104", _retries),
)

# In mode init the tables are not read yet, so the slots are not counted.
_NEEDS_LOAD = frozenset({"DMR-H201", "DMR-H202"})


def evaluate(
    status: Status,
    *,
    name: str = "NAME",
    read_only: bool = False,
    suspended: bool = False,
    policy: Policy = DEFAULT_POLICY,
) -> Verdict:
    """Judge one target.

    name: the mapped device, for the words of the next step.  read_only,
    suspended: as device-mapper says of the device.
    """
    seen = _Seen(status, read_only, suspended, policy)
    values = {field.name: getattr(status, field.name) for field in dataclasses.fields(status)}
    reasons: list[Reason] = []
    for code, rule in _RULES:
        if status.mode == "init" and code in _NEEDS_LOAD:
            continue
        state = rule(seen)
        if state is None:
            continue
        words = CODES[code]
        reasons.append(
            Reason(
                code=code,
                state=state,
                sentence=words.detail.format(**values),
                next_step=words.next_step.format(name=name, sector=status.start),
            )
        )
    return _verdict(reasons)


def never_started(name: str = "NAME") -> Verdict:
    """Judge a device whose table was loaded and never came into force."""
    words = CODES["DMR-H303"]
    next_step = words.next_step.format(name=name)
    return _verdict([Reason(words.code, State.FAILED, words.detail, next_step)])


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a device of several targets: the worst of them."""
    return _verdict(reason for verdict in verdicts for reason in verdict.reasons)


def _verdict(reasons: Iterable[Reason]) -> Verdict:
    # The sort is stable: reasons of one state stay in the order of the rules.
    ordered = tuple(sorted(reasons, key=lambda reason: -reason.state))
    return Verdict(max((r.state for r in ordered), default=State.OK), ordered)
