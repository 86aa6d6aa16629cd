# SPDX-License-Identifier: GPL-2.0-only
"""The verdict on a set, reason by reason."""

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmremap.dm.lines import Status, parse_status
from dmremap.health import (
    CODES,
    DEFAULT_POLICY,
    Policy,
    State,
    combine,
    evaluate,
    never_started,
)

GOOD = parse_status(
    0,
    20480,
    "rw 512 0/1000 lost=0 pending=0 bad=0 free=1000 doubt=0 read_errors=0 write_errors=0 "
    "transient=0 remapped=0 copies=0 identity=tag seq=0",
)


def changed(**fields: int | str | None) -> Status:
    return dataclasses.replace(GOOD, **fields)  # type: ignore[arg-type]


def test_a_good_set() -> None:
    verdict = evaluate(GOOD)
    assert verdict.state is State.OK
    assert verdict.reasons == ()


@pytest.mark.parametrize(
    ("status", "state", "codes"),
    [
        (changed(mapped=1, free=999), State.DEGRADED, ["DMR-H101"]),
        (changed(pending=1), State.DEGRADED, ["DMR-H102"]),
        (changed(mapped=1, lost=1, free=999), State.DEGRADED, ["DMR-H103", "DMR-H101"]),
        (changed(transient=15), State.OK, []),
        (changed(transient=16), State.DEGRADED, ["DMR-H104"]),
        # Neighbours of a bad block in one request are repeated with it.
        (changed(transient=16, pending=1), State.DEGRADED, ["DMR-H102"]),
        (changed(mapped=874, free=126), State.DEGRADED, ["DMR-H101"]),
        (changed(mapped=875, free=125), State.FAILING, ["DMR-H201", "DMR-H101"]),
        (changed(mapped=1000, free=0), State.FAILING, ["DMR-H202", "DMR-H101"]),
        (changed(bad=1), State.DEGRADED, ["DMR-H203"]),
        (changed(bad=16), State.FAILING, ["DMR-H203"]),
        (changed(copies=31), State.DEGRADED, ["DMR-H204"]),
        (changed(copies=32), State.FAILING, ["DMR-H204"]),
        (changed(mode="ro"), State.FAILED, ["DMR-H301"]),
        (changed(mode="ro", doubt=3), State.FAILED, ["DMR-H302", "DMR-H301"]),
        (changed(mode="init", slots=0, free=0), State.FAILED, ["DMR-H303"]),
        (changed(breaker="closed", moved=3, gone=0, memory=1), State.OK, []),
        (changed(breaker="open"), State.FAILING, ["DMR-H305"]),
        (changed(breaker="open", mapped=1), State.FAILING, ["DMR-H305", "DMR-H101"]),
        (changed(gone=1), State.FAILED, ["DMR-H306"]),
        (changed(mode="ro", gone=1), State.FAILED, ["DMR-H306", "DMR-H301"]),
        (changed(flush_errors=0, main="ok", spare="ok"), State.OK, []),
        (changed(flush_errors=1, main="ok", spare="ok"), State.DEGRADED, ["DMR-H307"]),
        (changed(flush_errors=1, main="failing"), State.FAILED, ["DMR-H105", "DMR-H307"]),
        (changed(flush_errors=0, spare="failing"), State.FAILED, ["DMR-H205"]),
        (changed(mode="ro", spare="failing"), State.FAILED, ["DMR-H301", "DMR-H205"]),
    ],
)
def test_each_reason(status: Status, state: State, codes: list[str]) -> None:
    verdict = evaluate(status)
    assert verdict.state is state
    assert [reason.code for reason in verdict.reasons] == codes


def test_read_only_by_request_is_no_failure() -> None:
    assert evaluate(changed(mode="ro"), read_only=True).state is State.OK


def test_a_set_without_all_of_its_table_has_failed_also_where_that_was_accepted() -> None:
    (reason,) = evaluate(changed(mode="ro", gone=2), read_only=True).reasons
    assert (reason.code, reason.state) == ("DMR-H306", State.FAILED)
    assert reason.sentence.startswith("2 blocks of the set's table are gone")


def test_a_disk_that_fails_is_no_matter_of_the_table() -> None:
    verdict = evaluate(changed(mode="ro", main="failing"), name="backup", read_only=True)
    assert verdict.state is State.FAILED
    (reason,) = verdict.reasons
    assert reason.code == "DMR-H105"
    assert "`sync /dev/mapper/backup`" in reason.next_step


def test_flushes_that_failed_are_told_with_their_number() -> None:
    (reason,) = evaluate(changed(flush_errors=3, main="ok", spare="ok")).reasons
    assert reason.sentence.startswith("3 flushes of the set's devices failed")


def test_never_started() -> None:
    verdict = never_started("backup")
    assert verdict.state is State.FAILED
    assert [reason.code for reason in verdict.reasons] == ["DMR-H303"]
    assert "dmsetup resume backup" in verdict.reasons[0].next_step


def test_suspended() -> None:
    verdict = evaluate(GOOD, suspended=True)
    assert verdict.state is State.DEGRADED
    assert verdict.reasons[0].code == "DMR-H304"


def test_words_have_the_numbers_and_the_name() -> None:
    (reason,) = evaluate(changed(pending=7), name="backup").reasons
    assert reason.sentence == "7 blocks of the main device cannot be read."
    assert "dmsetup message backup 0 pending" in reason.next_step
    (reason,) = evaluate(changed(breaker="open", start=2048), name="backup").reasons
    assert "`dmsetup message backup 2048 breaker close`" in reason.next_step


def test_thresholds_are_the_policys() -> None:
    strict = Policy(transient=1, bad_failing=1)
    assert evaluate(changed(transient=1), policy=strict).state is State.DEGRADED
    assert evaluate(changed(bad=1), policy=strict).state is State.FAILING
    assert Policy() == DEFAULT_POLICY


def test_the_worst_target_decides() -> None:
    verdict = combine([evaluate(changed(pending=1)), evaluate(GOOD), evaluate(changed(mode="ro"))])
    assert verdict.state is State.FAILED
    assert [reason.code for reason in verdict.reasons] == ["DMR-H301", "DMR-H102"]
    assert combine([]).state is State.OK


counts = st.integers(0, 200)


@given(
    st.builds(
        changed,
        mode=st.sampled_from(["init", "rw", "ro"]),
        mapped=counts,
        lost=counts,
        pending=counts,
        bad=counts,
        free=counts,
        slots=counts,
        doubt=counts,
        transient=counts,
        copies=counts,
        breaker=st.sampled_from([None, "closed", "open"]),
        gone=st.none() | counts,
        flush_errors=st.none() | counts,
        main=st.sampled_from([None, "ok", "failing"]),
        spare=st.sampled_from([None, "ok", "failing"]),
    ),
    st.booleans(),
    st.booleans(),
)
def test_every_verdict_explains_itself(status: Status, read_only: bool, suspended: bool) -> None:
    verdict = evaluate(status, read_only=read_only, suspended=suspended)
    states = [reason.state for reason in verdict.reasons]
    assert states == sorted(states, reverse=True)
    assert verdict.state is (states[0] if states else State.OK)
    for reason in verdict.reasons:
        assert reason.code in CODES
        for words in (reason.sentence, reason.next_step):
            assert words
            assert "{" not in words


def test_the_codes_are_complete_sentences() -> None:
    for code, words in CODES.items():
        assert words.code == code
        assert re.fullmatch(r"DMR-H[123]\d\d", code)
        for text in (words.meaning, words.detail, words.next_step):
            assert text[0].isupper() or text[0] == "{"
            assert text.endswith(".")
