# SPDX-License-Identifier: GPL-2.0-only
"""From two scans to events."""

import dataclasses

import pytest

from dmremap.dm.lines import parse_status
from dmremap.monitor.sources import Hint, hint_of
from dmremap.monitor.tracker import KINDS, Event, SetSnapshot, compare

UUID = "6f1c9d0e-3b5a-4c1e-9a77-0123456789ab"
GOOD = parse_status(
    0,
    20480,
    "rw 512 0/1000 lost=0 pending=0 bad=0 free=1000 doubt=0 read_errors=0 write_errors=0 "
    f"transient=0 remapped=0 copies=0 identity=tag seq=0 uuid={UUID}",
)


def snapshot(**fields: int | str) -> SetSnapshot:
    status = dataclasses.replace(GOOD, **fields)  # type: ignore[arg-type]
    return SetSnapshot(f"REMAP-{UUID}", "data", "/dev/mapper/data", UUID, (status,))


def between(old: SetSnapshot, new: SetSnapshot, *hinted: str) -> list[Event]:
    hints = {new.name: frozenset(hinted)}
    return compare({old.key: old}, {new.key: new}, hinted=hints)


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


def test_nothing_happened() -> None:
    assert between(snapshot(), snapshot()) == []
    assert compare({}, {}) == []


def test_sets_come_and_go() -> None:
    one = snapshot()
    (found,) = compare({}, {one.key: one}, first=True)
    assert (found.kind, found.name, found.device) == ("found", "data", "/dev/mapper/data")
    assert found.sentence == "the set is OK"
    (assembled,) = compare({}, {one.key: one})
    assert assembled.kind == "assembled"
    (removed,) = compare({one.key: one}, {})
    assert (removed.kind, removed.uuid, removed.status) == ("removed", UUID, None)
    assert removed.verdict is None


def test_a_set_that_is_found_ill_says_so() -> None:
    ill = snapshot(pending=2)
    (found,) = compare({}, {ill.key: ill}, first=True)
    assert found.sentence == ("the set is DEGRADED: 2 blocks of the main device cannot be read.")


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"mapped": 3}, "remapped"),
        ({"pending": 3}, "pending"),
        ({"lost": 3}, "lost"),
        ({"bad": 3}, "slot_bad"),
        ({"moved": 3, "bad": 3}, "slot_bad moved"),
        ({"copies": 3}, "copies"),
        ({"doubt": 3}, "doubt"),
        ({"flush_errors": 3}, "flush_failed"),
    ],
)
def test_a_number_that_goes_up(fields: dict[str, int], kind: str) -> None:
    *counted, health = between(snapshot(), snapshot(seq=1, **fields))
    assert kinds(counted) == kind.split()
    for event in counted:
        assert (event.count, event.start) == (3, 0)
        assert event.sentence.startswith("3 ")
    assert health.kind == "health"
    assert health.sentence.startswith("the set's health went from OK to ")
    assert health.start is None


@pytest.mark.parametrize(("field", "kind"), [("pending", "pending_cleared"), ("lost", "recovered")])
def test_a_number_that_goes_down(field: str, kind: str) -> None:
    events = between(snapshot(**{field: 5}), snapshot(**{field: 2}))
    assert kinds(events) == [kind]
    assert events[0].count == 3


def test_health_is_told_once() -> None:
    assert kinds(between(snapshot(mapped=1), snapshot(mapped=2))) == ["remapped"]


def test_the_spare_fills_up() -> None:
    low = snapshot(mapped=880, free=120)
    assert kinds(between(snapshot(mapped=800, free=200), low)) == [
        "remapped",
        "spare_low",
        "health",
    ]
    full = snapshot(mapped=1000, free=0)
    assert kinds(between(low, full)) == ["remapped", "spare_full"]


def test_mode() -> None:
    events = between(snapshot(), snapshot(mode="ro", seq=1))
    assert kinds(events) == ["mode", "health"]
    assert events[0].sentence == "the set's mode went from rw to ro"


def test_the_breaker() -> None:
    closed, opened = snapshot(breaker="closed"), snapshot(breaker="open", seq=1)
    breaker, health = between(closed, opened)
    assert (breaker.kind, breaker.start) == ("breaker", 0)
    assert breaker.sentence == "the set's breaker is open now"
    assert health.sentence == "the set's health went from OK to FAILING"
    assert kinds(between(opened, snapshot(breaker="closed", seq=2))) == ["breaker", "health"]
    assert kinds(between(opened, closed)) == ["reloaded", "breaker", "health"]


def test_another_version_of_the_module_is_no_change() -> None:
    older = snapshot()
    newer = snapshot(
        breaker="closed", moved=0, gone=0, memory=1, flush_errors=0, main="ok", spare="ok"
    )
    assert between(older, newer) == between(newer, older) == []


def test_mappings_that_are_gone_are_bad_health() -> None:
    (event,) = between(snapshot(), snapshot(gone=1))
    assert (event.kind, event.sentence) == ("health", "the set's health went from OK to FAILED")


def test_a_new_load_forgets_and_does_not_clear() -> None:
    events = between(snapshot(pending=5, seq=9, read_errors=5), snapshot())
    assert kinds(events) == ["reloaded", "health"]


def test_a_rename_is_the_same_set() -> None:
    (event,) = between(
        dataclasses.replace(snapshot(), name="old"), dataclasses.replace(snapshot(), name="new")
    )
    assert (event.kind, event.name, event.sentence) == ("renamed", "new", "the set was called old")


def test_a_change_that_left_no_trace() -> None:
    assert kinds(between(snapshot(), snapshot(seq=2))) == ["noticed"]
    assert kinds(between(snapshot(), snapshot(seq=2), "pending")) == ["noticed"]
    assert kinds(between(snapshot(), snapshot(seq=2), "probe")) == ["probe"]
    assert kinds(between(snapshot(mapped=1), snapshot(mapped=2, seq=2), "probe")) == [
        "remapped",
        "probe",
    ]


@pytest.mark.parametrize("leg", ["main", "spare"])
@pytest.mark.parametrize("hinted", [(), ("probe",)])
def test_a_leg_that_fails_and_heals_is_told_once(leg: str, hinted: tuple[str, ...]) -> None:
    fine = snapshot(main="ok", spare="ok")
    fails: dict[str, int | str] = {"main": "ok", "spare": "ok", leg: "failing", "seq": 1}
    ill = snapshot(**fails)
    probe, health = between(fine, ill, *hinted)
    assert (probe.kind, probe.start) == ("probe", 0)
    assert probe.sentence == f"the {leg} device is failing as a whole"
    assert (health.kind, health.sentence) == (
        "health",
        "the set's health went from OK to FAILED",
    )
    healed = snapshot(main="ok", spare="ok", seq=2)
    probe, health = between(ill, healed, *hinted)
    assert (probe.kind, health.kind) == ("probe", "health")
    assert probe.sentence == f"the {leg} device is no longer failing as a whole"


def test_a_leg_that_failed_for_a_moment_leaves_the_hint() -> None:
    one, two = snapshot(main="ok", spare="ok"), snapshot(main="ok", spare="ok", seq=2)
    assert kinds(between(one, two, "probe")) == ["probe"]


def test_a_flush_that_fails_is_three_events_at_most() -> None:
    before = snapshot(flush_errors=0, main="ok", spare="ok")
    after = snapshot(flush_errors=2, main="failing", spare="ok", seq=1)
    assert kinds(between(before, after, "probe")) == ["probe", "flush_failed", "health"]
    assert kinds(between(after, before)) == ["reloaded", "probe", "health"]


def test_a_hint_alone_is_nothing() -> None:
    assert between(snapshot(), snapshot(), "probe", "remapped") == []


def test_several_targets() -> None:
    one = snapshot()
    second = dataclasses.replace(GOOD, start=20480)
    old = dataclasses.replace(one, targets=(GOOD, second))
    new = dataclasses.replace(one, targets=(GOOD, dataclasses.replace(second, pending=1, seq=1)))
    pending, health = between(old, new)
    assert (pending.kind, pending.start) == ("pending", 20480)
    assert pending.status == new.targets[1]
    assert (health.kind, health.start, health.status) == ("health", None, None)
    assert kinds(between(one, old)) == ["reloaded"]


def test_every_kind_is_declared() -> None:
    assert len(set(KINDS)) == len(KINDS)


def test_which_uevents_are_hints() -> None:
    base = {"SUBSYSTEM": "block", "DEVNAME": "dm-3", "DM_NAME": "data"}
    assert hint_of(base) == Hint("data", "")
    assert hint_of(base | {"DEVNAME": "/dev/dm-3", "DM_REMAP_EVENT": "pending"}) == Hint(
        "data", "pending"
    )
    assert hint_of(base | {"DEVNAME": "sda"}) is None
    assert hint_of(base | {"SUBSYSTEM": "net"}) is None
    assert hint_of({}) is None
