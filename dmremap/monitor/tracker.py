# SPDX-License-Identifier: GPL-2.0-only
"""What changed between two looks at the kernel.  Pure.

The kernel's events say only *when* to look.  What is reported is always the
difference of two states read from the kernel, so an event that was lost,
doubled, forged or came in the wrong order changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dmremap.dm.lines import LEGS, Status
from dmremap.health import Verdict, combine, evaluate


@dataclass(frozen=True, slots=True)
class SetSnapshot:
    """One set as the kernel showed it.

    key: what stays the same as long as it is the same device.  name, device: of
    the mapped device, and its path.  uuid: of the set, empty where it has none.
    """

    key: str
    name: str
    device: str
    uuid: str
    targets: tuple[Status, ...]
    read_only: bool = False

    def verdict(self) -> Verdict:
        """Judge the set.

        Whether it is suspended is left out: a scan can fall into the moment that
        another command needs, and that is no news.
        """
        return combine(
            evaluate(status, name=self.name, read_only=self.read_only) for status in self.targets
        )


@dataclass(frozen=True, slots=True)
class Event:
    """One change of one set.

    start: first sector of the target it is about, None if about the whole set.
    count: blocks, slots or copies, as the kind says; 0 if nothing is counted.
    verdict, status: what is so now; None once the set is gone, and no status
    either for an event about a whole set of several targets.
    """

    kind: str
    name: str
    device: str
    uuid: str
    sentence: str
    verdict: Verdict | None
    count: int = 0
    start: int | None = None
    status: Status | None = None


@dataclass(frozen=True, slots=True)
class _Step:
    """An event for a number of the status line that changed."""

    kind: str
    field: str
    sentence: str


_RISES = (
    _Step("remapped", "mapped", "{count} blocks were mapped to the spare"),
    _Step("pending", "pending", "{count} blocks cannot be read from the main device"),
    _Step("lost", "lost", "{count} blocks were mapped without their content"),
    _Step("slot_bad", "bad", "{count} slots of the spare failed"),
    _Step("moved", "moved", "{count} blocks moved to other slots of the spare"),
    _Step("copies", "copies", "{count} copies of the metadata moved to stand-ins"),
    _Step("doubt", "doubt", "{count} blocks are in doubt"),
    _Step("flush_failed", "flush_errors", "{count} flushes failed"),
)

_FALLS = (
    _Step("pending_cleared", "pending", "{count} blocks are readable again or were rewritten"),
    _Step("recovered", "lost", "{count} lost blocks were written again"),
)

# Numbers that only a new load of the table sets back.
_MONOTONIC = (
    "read_errors",
    "write_errors",
    "transient",
    "remapped",
    "moved",
    "flush_errors",
    "seq",
)

_LEG_SENTENCES = {
    "failing": "the {leg} device is failing as a whole",
    "ok": "the {leg} device is no longer failing as a whole",
}

# Health reasons whose first appearance is an event of its own.
_REASON_EVENTS = {"DMR-H201": "spare_low", "DMR-H202": "spare_full"}

KINDS = (
    "found",
    "assembled",
    "removed",
    "renamed",
    "reloaded",
    *(rise.kind for rise in _RISES),
    *(fall.kind for fall in _FALLS),
    *_REASON_EVENTS.values(),
    "mode",
    "breaker",
    "probe",
    "noticed",
    "health",
)
"""Every kind of event there is."""

# What the kernel can say of which its status keeps no trace: an older module none at all, another
# one none if it is over before somebody looks.
_TRACELESS = frozenset({"probe"})


def compare(
    old: Mapping[str, SetSnapshot],
    new: Mapping[str, SetSnapshot],
    *,
    first: bool = False,
    hinted: Mapping[str, frozenset[str]] | None = None,
) -> list[Event]:
    """List what happened between two scans, both by key.

    first: there was no earlier scan, so sets are found and not assembled.
    hinted: kinds the kernel's events named, by device name; they only put a
    word to a change of `seq` that nothing else explains.
    """
    events: list[Event] = []
    for key in sorted(old.keys() - new.keys()):
        gone = old[key]
        sentence = "the set was stopped or removed"
        events.append(Event("removed", gone.name, gone.device, gone.uuid, sentence, None))
    for key in sorted(new):
        now = new[key]
        before = old.get(key)
        if before is None:
            verdict = now.verdict()
            sentence = f"the set is {verdict.state.name}"
            if verdict.reasons:
                sentence += f": {verdict.reasons[0].sentence}"
            events.append(_about(now, verdict, "found" if first else "assembled", sentence))
        elif before != now:
            events += _changes(before, now, (hinted or {}).get(now.name, frozenset()))
    return events


def _about(
    snapshot: SetSnapshot,
    verdict: Verdict,
    kind: str,
    sentence: str,
    count: int = 0,
    status: Status | None = None,
) -> Event:
    """Make an event about one target, or, without status, about the whole set."""
    start = None if status is None else status.start
    if status is None and len(snapshot.targets) == 1:
        status = snapshot.targets[0]
    return Event(
        kind,
        snapshot.name,
        snapshot.device,
        snapshot.uuid,
        sentence,
        verdict,
        count=count,
        start=start,
        status=status,
    )


def _changes(old: SetSnapshot, new: SetSnapshot, hinted: frozenset[str]) -> list[Event]:
    before, after = old.verdict(), new.verdict()
    events: list[Event] = []
    if old.name != new.name:
        events.append(_about(new, after, "renamed", f"the set was called {old.name}"))

    earlier = {status.start: status for status in old.targets}
    if [s.start for s in old.targets] != [s.start for s in new.targets]:
        events.append(_about(new, after, "reloaded", "the set's table was changed"))
    for status in new.targets:
        last = earlier.get(status.start)
        if last is not None and last != status:
            events += [
                _about(new, after, kind, sentence, count, status)
                for kind, sentence, count in _target_changes(last, status, hinted)
            ]

    known = {reason.code for reason in before.reasons}
    for reason in after.reasons:
        kind = _REASON_EVENTS.get(reason.code, "")
        if kind and reason.code not in known:
            events.append(_about(new, after, kind, reason.sentence))
    if before.state != after.state:
        sentence = f"the set's health went from {before.state.name} to {after.state.name}"
        events.append(_about(new, after, "health", sentence))
    return events


def _number(status: Status, field: str) -> int:
    """A number of the status line; an older module says less, and counts less too."""
    return getattr(status, field) or 0


def _target_changes(old: Status, new: Status, hinted: frozenset[str]) -> list[tuple[str, str, int]]:
    """Compare one target: kind, sentence and count of every change."""
    found: list[tuple[str, str, int]] = []
    reloaded = any(_number(new, field) < _number(old, field) for field in _MONOTONIC)
    if reloaded:
        found.append(("reloaded", "the set's table was loaded anew", 0))
    if old.mode != new.mode:
        found.append(("mode", f"the set's mode went from {old.mode} to {new.mode}", 0))
    if new.breaker is not None and new.breaker != (old.breaker or "closed"):
        found.append(("breaker", f"the set's breaker is {new.breaker} now", 0))
    # Another version of the module is no change: what does not say is not failing.
    for leg in LEGS:
        was, now = (getattr(status, leg) or "ok" for status in (old, new))
        if was != now:
            found.append(("probe", _LEG_SENTENCES[now].format(leg=leg), 0))
    for step in _RISES:
        count = _number(new, step.field) - _number(old, step.field)
        if count > 0:
            found.append((step.kind, step.sentence.format(count=count), count))
    # A load starts with an empty list of pending blocks: forgotten is not cleared.
    for step in _FALLS if not reloaded else ():
        count = _number(old, step.field) - _number(new, step.field)
        if count > 0:
            found.append((step.kind, step.sentence.format(count=count), count))

    traceless = (hinted & _TRACELESS) - {kind for kind, _, _ in found}
    if new.seq > old.seq and (traceless or not found):
        sentence = "the kernel noticed something; its log says what"
        found += [(kind, sentence, 0) for kind in sorted(traceless) or ("noticed",)]
    return found
