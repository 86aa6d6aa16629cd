# SPDX-License-Identifier: GPL-2.0-only
"""Long runs: which test is in which part, what is begun, what is kept, what is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
from harness import longrun, parts, results, source
from harness.parts import Part, Result
from harness.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

NODES = [f"tests/vm/test_{name}.py::test_it[6.12]" for name in "abcdefghijklmnopqrst"]
TIMES = {node: float(10 + number**2) for number, node in enumerate(NODES)}


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "1/2/3", "-1/2", "1/ 2", "01/2"])
def test_no_part(text: str) -> None:
    with pytest.raises(ValueError, match="expected N/M"):
        Part.parse(text)


@pytest.mark.parametrize("count", [1, 2, 5, 30])
def test_each_test_is_in_one_part_and_parts_take_the_same_time(count: int) -> None:
    dealt = parts.plan(NODES, TIMES, count)
    assert sorted(dealt) == NODES
    full = [sum(TIMES[n] for n in NODES if dealt[n] == number + 1) for number in range(count)]
    assert sum(full) == sum(TIMES.values())
    # The longest first: no part is longer than the shortest one by more than one test.
    if count <= 5:
        assert max(full) - min(full) <= max(TIMES.values())
        assert max(full) <= 1.1 * sum(full) / count
    else:
        assert max(full) == max(TIMES.values())


def test_the_order_of_the_tests_does_not_matter() -> None:
    mixed = Random(1).sample(NODES, len(NODES))
    assert parts.plan(mixed, TIMES, 5) == parts.plan(NODES, TIMES, 5)
    assert parts.plan(mixed, {}, 5) == parts.plan(NODES, {}, 5)


def test_the_plan_of_a_commit_stays_whatever_is_measured_later(tmp_path: Path) -> None:
    made = results.plan(tmp_path, NODES, {}, 3)
    assert results.plan(tmp_path, NODES, TIMES, 3) == made
    assert results.plan(tmp_path, NODES, TIMES, 2) == parts.plan(NODES, TIMES, 2)
    # A kernel has come, another one is gone.
    now = [*NODES[1:], "new"]
    assert results.plan(tmp_path, now, TIMES, 3) == {**{n: made[n] for n in NODES[1:]}, "new": 3}


def test_what_has_never_been_measured_has_a_time() -> None:
    assert parts.unmeasured("tests/unit/test_x.py::test_y[a-b]") == 1
    assert parts.unmeasured("tests/vm/test_new.py::test_y[6.1]") == 60
    assert parts.unmeasured("tests/vm/test_new.py::test_y[x-kcsan]") == 300
    assert parts.unmeasured("tests/vm/test_hostile.py::test_memory_that_fails[debug]") == 4300
    assert parts.expected("a", {"a": 7.0}) == 7.0


def test_every_test_is_expected_to_fit_a_part() -> None:
    longest = max(max(pair) for pair in parts.EXPECTED.values())
    assert longest < parts.LIMIT - parts.END


def test_every_expectation_is_of_tests_that_there_are() -> None:
    for beginning in filter(None, parts.EXPECTED):
        path, _, name = beginning.partition("::")
        assert (ROOT / path).exists(), beginning
        assert not name or f"\ndef {name}" in (ROOT / path).read_text(), beginning


def test_what_fits() -> None:
    assert parts.fits(100, 100)
    assert not parts.fits(101, 100)
    # What takes longer than any part is begun at the beginning of one, and nowhere else.
    whole = parts.LIMIT - parts.END
    assert parts.fits(whole + 1, whole)
    assert not parts.fits(whole + 1, whole / 2)


def test_what_is_left_to_do() -> None:
    dealt = {"a": 1, "b": 1, "c": 2, "d": 1, "e": 1, "f": 1}
    have = {
        "a": Result(parts.PASSED, 1),
        "b": Result(parts.FAILED, 1),
        "d": Result(parts.CUT, 1),
        "f": Result(parts.SKIPPED, 0),
    }
    times = {"b": 2.0, "d": 9.0, "e": 5.0}
    assert list(parts.todo(dealt, Part(1, 2), have, times)) == ["d", "e", "b"]
    assert parts.todo(dealt, Part(1, 2), have, times, failed_only=True) == {"b": 2.0}
    assert list(parts.todo(dealt, Part(2, 2), have, times)) == ["c"]


def test_the_summary() -> None:
    dealt = {"a": 1, "b": 1, "c": 2, "d": 1}
    have = {"a": Result(parts.PASSED, 1), "b": Result(parts.FAILED, 1), "c": Result(parts.CUT, 1)}
    assert parts.summary(dealt, Part(1, 2), have, {"d": 600.0}) == [
        "part 1/2: 1 passed, 1 failed, 1 never run",
        "all parts: 1 passed, 1 failed, 1 cut, 1 never run",
        "  failed: b",
        "  cut: c",
        "left of this part: 2 tests, about 10 minutes; the longest:",
        "    600 s  d",
        "      1 s  b",
    ]
    done = dict.fromkeys(dealt, Result(parts.PASSED, 1))
    assert parts.summary(dict.fromkeys(dealt, 1), Part(1, 1), done, {}) == [
        "all: 4 passed, 0 never run"
    ]


def test_the_exit_status() -> None:
    dealt = {"a": 1, "b": 1, "c": 2}
    passed, failed, cut = (Result(s, 1) for s in (parts.PASSED, parts.FAILED, parts.CUT))
    one = Part(1, 2)
    assert longrun.verdict(dealt, one, {"a": passed, "b": passed}) == 0
    assert longrun.verdict(dealt, one, {"a": passed, "b": failed}) == 1
    assert longrun.verdict(dealt, one, {"a": passed, "b": cut}) == longrun.EXIT_LEFT
    assert longrun.verdict(dealt, one, {"a": passed, "c": failed}) == longrun.EXIT_LEFT


def test_times_are_the_last_ones_of_any_commit(tmp_path: Path) -> None:
    for number, (commit, rows) in enumerate(
        {
            "old": [("a", Result(parts.PASSED, 5)), ("b", Result(parts.PASSED, 7))],
            "new": [
                *(("a", Result(parts.PASSED, 6)), ("b", Result(parts.FAILED, 1))),
                *(("c", Result(parts.CUT, 100)), ("d", Result(parts.FAILED, 3))),
            ],
        }.items()
    ):
        (tmp_path / commit).mkdir()
        for node, result in rows:
            results.append(tmp_path / commit, node, result)
        os.utime(tmp_path / commit / results.NAME, (number, number))
    with (tmp_path / "new" / results.NAME).open("a") as file:
        file.write('{"node": "a", "sta')  # the machine went off
    assert results.measured(tmp_path) == {"a": 6, "b": 7, "c": 150.0}
    assert results.latest(tmp_path / "new")["b"] == Result(parts.FAILED, 1)


def test_what_machines_left_is_kept_for_one_commit(tmp_path: Path) -> None:
    for commit in ("a", "b"):
        (tmp_path / commit / "artefacts").mkdir(parents=True)
        results.append(tmp_path / commit, "t", Result(parts.PASSED, 1))
    results.drop_artefacts(tmp_path, "b")
    assert [path.parent.name for path in tmp_path.glob("*/artefacts")] == ["b"]
    assert len(results.latest(tmp_path / "a")) == 1


def git(where: Path, *words: str) -> None:
    who = ("-c", "user.name=n", "-c", "user.email=e")
    subprocess.run(["git", *who, *words], cwd=where, check=True, capture_output=True)


def test_a_state_has_a_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / ".gitignore").write_text("made\n")
    bare = source.state(tmp_path)
    assert bare.startswith("tree-")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "one")
    clean = source.state(tmp_path)
    assert len(clean) == source.DIGITS
    (tmp_path / "made").write_text("ignored")
    assert source.state(tmp_path) == clean
    (tmp_path / "a").write_text("2")
    changed = source.state(tmp_path)
    (tmp_path / "b").write_text("new")
    added = source.state(tmp_path)
    assert changed.startswith(f"{clean}-with-")
    assert added.startswith(f"{clean}-with-")
    assert len({changed, added, clean}) == 3
    (tmp_path / "b").unlink()
    assert source.state(tmp_path) == changed
    (tmp_path / "a").unlink()
    assert source.state(tmp_path) not in (changed, clean)
    (tmp_path / "a").write_text("1")
    assert source.state(tmp_path) == clean


def test_the_files_are_the_same_without_git(tmp_path: Path) -> None:
    for name in ("a", "d/b", ".ci/run", ".venv/x", "build/x", "d/__pycache__/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert [str(path) for path in source.files(tmp_path)] == [".ci/run", "a", "d/b"]


TESTS = """
import time
import pytest

def test_long(): time.sleep(0.3)
def test_fails(): assert (__import__("pathlib").Path(__file__).parent / "healed").exists()
def test_short(): pass
def test_skips(): pytest.skip("for a reason")
def test_hangs(): time.sleep(600)
class TestLast:
    def test_last(self): pass
"""

SOON = """
from harness.longrun import now

def pytest_collection_finish(session):
    for plugin in session.config.pluginmanager.get_plugins():
        if type(plugin).__name__ in ("Selection", "Recorder"):
            plugin.until = now() + 2
"""


class Run:
    """Has the plugin run some of TESTS in a directory, as tools/test does."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self.options = options
        (home / "test_it.py").write_text(TESTS)

    def go(self, until: float, tests: Mapping[str, float]) -> str:
        selection = {
            "directory": str(self.home),
            "until": longrun.now() + until,
            "tests": {f"test_it.py::{name}": seconds for name, seconds in tests.items()},
        }
        (self.home / "selection.json").write_text(json.dumps(selection))
        argv = [sys.executable, "-m", "pytest", "-p", "harness.longrun", "-c", "/dev/null"]
        argv += ["--rootdir", ".", "-q", "-p", "no:cacheprovider", *self.options]
        done = subprocess.run(
            [*argv, "--selection", "selection.json", "test_it.py"],
            cwd=self.home,
            env={"PYTHONPATH": str(ROOT / "tools"), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    def status(self) -> dict[str, str]:
        return {
            node.rpartition("::")[2]: result.status
            for node, result in results.latest(self.home).items()
        }


def test_it_stops_in_time_and_goes_on(tmp_path: Path) -> None:
    """What has failed, and what was not begun, runs when it is asked for again."""
    run = Run(tmp_path)
    tests = {"TestLast::test_last": 10_000, "test_short": 1, "test_fails": 1, "test_skips": 1}
    out = run.go(60, tests)
    told = {"test_short": "passed", "test_fails": "failed", "test_skips": "skipped"}
    assert run.status() == told, out
    (tmp_path / "healed").touch()
    out = run.go(60, {"TestLast::test_last": 1, "test_fails": 1, "test_long": 1})
    again = {"test_fails": "passed", "test_long": "passed", "test_last": "passed"}
    assert run.status() == {**told, **again}, out
    assert results.latest(tmp_path)["test_it.py::test_long"].seconds >= 0.3


def test_what_takes_too_long_is_cut(tmp_path: Path) -> None:
    """At the end of the part, which here comes two seconds after its first test has begun."""
    (tmp_path / "conftest.py").write_text(SOON)
    run = Run(tmp_path)
    out = run.go(60, {"test_short": 0, "test_hangs": 0, "TestLast::test_last": 0})
    assert run.status() == {"test_short": "passed", "test_hangs": "cut"}, out
    assert 1 < results.latest(tmp_path)["test_it.py::test_hangs"].seconds < 60


def test_workers_do_the_same(tmp_path: Path) -> None:
    run = Run(tmp_path, "-n", "2", "--dist", "load", "--maxschedchunk", "1")
    out = run.go(240, {"test_short": 0, "test_fails": 0, "TestLast::test_last": 10_000})
    assert run.status() == {"test_short": "passed", "test_fails": "failed"}, out
    assert len((tmp_path / results.NAME).read_text().splitlines()) == 2
