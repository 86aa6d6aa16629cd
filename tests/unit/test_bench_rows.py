# SPDX-License-Identifier: GPL-2.0-only
"""A number, its bar, and how both are told."""

import json

import pytest
from harness.bench import rows
from harness.bench.rows import Row

GOOD = Row("6.12", "a read", 1.0099, "x dm-linear", 1.01, details={"linear": 6745.0})
BAD = Row("6.1", "a write", 1.0101, "x dm-linear", 1.01)
INFO = Row("6.1", "fio", 8734.4, "ns", digits=0)


def test_a_row_misses_only_above_its_bar() -> None:
    assert not GOOD.missed
    assert BAD.missed
    assert not Row("6.1", "at the bar", 24.0, "bytes", 24).missed
    assert not INFO.missed
    assert rows.missed([GOOD, BAD, INFO]) == [BAD]


def test_a_ratio_is_what_is_paid_more_beside_the_base() -> None:
    assert rows.ratio(6700, 67) == 1.01
    assert rows.ratio(6700, -67) == 0.99


def test_the_sentence_names_the_row() -> None:
    assert rows.sentence(BAD) == "Linux 6.1: a write: 1.0101 x dm-linear, the bar is 1.01"


def test_the_table_is_not_cut_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    long = Row("6.12", "n" * 200, 1.5, "x", 2, details={"d" * 200: 1.0})
    print(rows.text([GOOD, BAD, INFO, long]))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert "n" * 200 in lines[4]
    assert lines[4].endswith("d" * 200 + " 1")
    assert "MISSED" in lines[2]
    assert "MISSED" not in lines[1]
    assert "8,734" in lines[3]


def test_json_says_what_was_measured_and_whether_all_is_well() -> None:
    shown = json.loads(rows.as_json([GOOD, INFO]))
    assert (shown["version"], shown["kind"], shown["ok"]) == (1, "bench", True)
    assert shown["rows"][0] == {
        "kernel": "6.12",
        "name": "a read",
        "value": 1.0099,
        "unit": "x dm-linear",
        "bar": 1.01,
        "missed": False,
        "details": {"linear": 6745.0},
    }
    assert shown["rows"][1]["bar"] is None
    assert json.loads(rows.as_json([GOOD, BAD]))["ok"] is False
