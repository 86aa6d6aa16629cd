# SPDX-License-Identifier: GPL-2.0-only
"""The oracle of an hour of everything: what it allows, and above all what it does not."""

from __future__ import annotations

import json

import pytest
from guest.everything_oracle import LOST, ZERO, Oracle, Wrong, data_of
from guest.everything_plan import DECK, STEPS, choose

SEED, SIZE = 5, 512
ONE = range(1, 2)


@pytest.fixture
def oracle() -> Oracle:
    return Oracle(4, SEED)


def write(oracle: Oracle, value: int, *, done: bool = True, durable: bool = False) -> None:
    """Write unit 1."""
    oracle.begin(ONE, value)
    oracle.end(ONE, done=done, durable=ONE if durable else ())


def read(oracle: Oracle, value: int, unit: int = 1) -> None:
    """Have a read of unit 1 return what a write to a unit has written."""
    reading = oracle.read_begins(ONE)
    oracle.read_done(reading, data_of(unit, value, SEED, SIZE))


def cut(oracle: Oracle, value: int | str | None) -> list[str]:
    """Have a power cut leave a value in unit 1."""
    return list(oracle.after_cut(ONE, [value]))


def flush(oracle: Oracle) -> None:
    oracle.flushed(oracle.flush_begins())


def test_the_last_write_is_what_is_read(oracle: Oracle) -> None:
    write(oracle, 2)
    write(oracle, 3)
    read(oracle, 3)
    for stale in (ZERO, 2, 4):
        with pytest.raises(Wrong):
            read(oracle, stale)


def test_what_belongs_to_another_unit_or_run_is_not_read(oracle: Oracle) -> None:
    write(oracle, 2)
    with pytest.raises(Wrong, match="unit 2, write 2, seed 5"):
        read(oracle, 2, unit=2)
    mixed = data_of(1, 2, SEED, SIZE // 2) + data_of(1, 3, SEED, SIZE // 2)
    for data in (data_of(1, 2, SEED + 1, SIZE), mixed):
        with pytest.raises(Wrong):
            oracle.read_done(oracle.read_begins(ONE), data)


def test_a_read_meets_what_is_under_way_while_it_is(oracle: Oracle) -> None:
    write(oracle, 2)
    early = oracle.read_begins(ONE)
    oracle.begin(ONE, 3)
    late = oracle.read_begins(ONE)
    oracle.end(ONE, done=True)
    for value in (2, 3):
        for reading in (early, late):
            oracle.readings.append(reading)
            oracle.read_done(reading, data_of(1, value, SEED, SIZE))
    with pytest.raises(Wrong):
        read(oracle, 2)


def test_a_failed_write_is_there_or_not_and_then_stays_so(oracle: Oracle) -> None:
    write(oracle, 2)
    write(oracle, 3, done=False)
    read(oracle, 2)
    with pytest.raises(Wrong):
        read(oracle, 3)


def test_a_read_that_was_beside_a_write_says_nothing_of_what_came_of_it(oracle: Oracle) -> None:
    write(oracle, 2)
    oracle.begin(ONE, 3)
    reading = oracle.read_begins(ONE)
    oracle.end(ONE, done=False)
    oracle.read_done(reading, data_of(1, 2, SEED, SIZE))  # it was faster than the write
    read(oracle, 3)


def test_a_cut_leaves_nothing_older_than_what_is_durable(oracle: Oracle) -> None:
    write(oracle, 2)
    flush(oracle)
    write(oracle, 3)
    write(oracle, 4)
    assert cut(oracle, ZERO)
    assert cut(oracle, 5)
    assert cut(oracle, "garbage")
    assert not cut(oracle, 3)
    with pytest.raises(Wrong):
        read(oracle, 4)


@pytest.mark.parametrize("how", ["fua", "flush"])
def test_what_was_acknowledged_as_durable_is_there(oracle: Oracle, how: str) -> None:
    write(oracle, 2, durable=how == "fua")
    if how == "flush":
        flush(oracle)
    assert cut(oracle, ZERO)
    assert not cut(oracle, 2)


def test_a_flush_covers_what_was_acknowledged_before_it_began(oracle: Oracle) -> None:
    begun = oracle.flush_begins()
    write(oracle, 2)
    oracle.flushed(begun)
    assert not cut(oracle, ZERO)


def test_a_failed_write_that_was_seen_is_durable_with_the_flush_before(oracle: Oracle) -> None:
    write(oracle, 2, done=False)
    flush(oracle)
    read(oracle, 2)
    assert cut(oracle, ZERO)


def test_a_failed_write_that_was_seen_may_still_be_lost(oracle: Oracle) -> None:
    write(oracle, 2, done=False)
    read(oracle, 2)
    assert not cut(oracle, ZERO)


def test_what_cannot_be_read_after_a_cut_is_still_one_of_the_same(oracle: Oracle) -> None:
    write(oracle, 2)
    assert not cut(oracle, None)
    read(oracle, ZERO)
    with pytest.raises(Wrong):
        read(oracle, 2)


def test_a_lost_unit_has_no_content_until_it_is_written(oracle: Oracle) -> None:
    write(oracle, 2)
    write(oracle, LOST, durable=True)
    with pytest.raises(Wrong):
        read(oracle, 2)
    assert oracle.read_failed(oracle.read_begins(ONE))
    assert oracle.lost(range(4)) == [1]
    write(oracle, 3)
    assert not oracle.lost(range(4))
    read(oracle, 3)
    assert not oracle.read_failed(oracle.read_begins(ONE))


def test_it_goes_on_in_another_machine(oracle: Oracle) -> None:
    write(oracle, 2, durable=True)
    write(oracle, 3)
    write(oracle, 4, done=False)
    again = Oracle.load(json.loads(json.dumps(oracle.dump())))
    assert again.units[1].now == {3, 4}
    assert again.units[1].after_cut == {2, 3, 4}
    assert again.next_value() == oracle.next_value()


@pytest.mark.parametrize("seed", range(20))
def test_a_seed_says_everything_and_all_steps_come(seed: int) -> None:
    choice = choose(seed, DECK)
    assert choice == choose(seed, DECK)
    assert choose(seed, DECK + 3).stretches[:DECK] == choice.stretches
    assert {step for stretch in choice.stretches for step in stretch} >= STEPS.keys()
