# SPDX-License-Identifier: GPL-2.0-only
"""Planted errors: where they can be planted, which are drawn, and how runs go on and end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness import paths
from harness.errors import HarnessError
from harness.mutants import build, covered, ctokens, pytree, report, sample, steps, tree, work
from harness.mutants import plan as plans
from harness.mutants.covered import Known, Measured
from harness.mutants.mutant import Mutant, at
from harness.mutants.results import End, Row, Store
from harness.mutants.steps import Clock, Outcome, Step, TimeUp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.mutants.covered import Meter
    from harness.mutants.tree import Tree

Planted = set[tuple[str, str, str]]

C = r"""
#define TWICE(x) \
	((x) + (x))
#if A < B
struct pair { int a, b; };
#endif
static const int table[] = { 1, 2 };
/* if (a < b) return 0; */
static int sum(struct pair *p, int n)
{
	int total = 1 + 2;
	const char *text = "a < b";

	%s
	return total;
}
"""


def in_c(statement: str, head: str = "int") -> Planted:
    """Return what can be planted in one statement: operator, old, new."""
    text = C.replace("static int sum", f"static {head} sum") % statement
    planted = ctokens.find("a.c", text)
    for mutant in planted:
        assert mutant.apply(text).count("\n") == text.count("\n")
    return {
        (one.operator, one.old, one.new.strip())
        for one in planted
        if one.old != "total" or statement == "return total;"
    }


@pytest.mark.parametrize(
    ("statement", "planted"),
    [
        ("", set()),
        (
            "if (n < 0)\n\t\treturn -EINVAL;",
            {
                ("negate", "n < 0", "!(n < 0)"),
                ("relational", "<", "<="),
                ("constant", "0", "1"),
                ("return", "-EINVAL", "0"),
            },
        ),
        (
            "while (a && !b)\n\t\tcontinue;",
            {
                ("negate", "a && !b", "!(a && !b)"),
                ("logical", "&&", "||"),
                ("not", "!", ""),
                ("loop", "continue", "break"),
            },
        ),
        (
            "for (i = 0; i != n; i++)\n\t\ttotal += (u64)-i;",
            {
                ("constant", "0", "1"),
                ("relational", "!=", "=="),
                ("arithmetic", "++", "--"),
                ("arithmetic", "+=", "-="),
                ("delete", "total += (u64)-i", ""),
            },
        ),
        (
            'list_for_each(p, 3) {\n\t\tcall("1 + 1", &p->a, sizeof(n + 1)); /* 7 */\n\t}',
            {
                ("constant", "3", "4"),
                ("constant", "3", "2"),
                ("delete", 'call("1 + 1", &p->a, sizeof(n + 1))', ""),
            },
        ),
        (
            "p->ok = true;",
            {("constant", "true", "false"), ("delete", "p->ok = true", "")},
        ),
        (
            "switch (n & 0x10u) {\n\tcase 1:\n\t\tbreak;\n\tdefault:\n\t\tgoto out;\n\t}\nout:",
            {
                ("arithmetic", "&", "|"),
                ("constant", "0x10u", "0x11u"),
                ("constant", "0x10u", "0xfu"),
                ("loop", "break", "continue"),
            },
        ),
        ("smp_mb();\n\tlockdep_assert_held(&p->lock);\n\tWARN_ON_ONCE(n);", set()),
        ("u64 x = n + 1;\n\tstruct pair *q = p;\n\tunsigned int y;", set()),
        ("#define M (n + 1)\n\t;", set()),
        ("call(a,\n\t     b);", {("delete", "call(a,\n\t     b)", "")}),
    ],
)
def test_where_errors_are_planted_in_c(statement: str, planted: Planted) -> None:
    assert in_c(statement) == planted


@pytest.mark.parametrize(
    ("head", "value", "instead"),
    [
        ("int", "total", {"0", "-EIO"}),
        ("int", "0", {"-EIO"}),
        ("int", "-ENOMEM", {"0"}),
        ("bool", "true", {"false"}),
        ("bool", "total", {"true", "false"}),
        ("const char *", "total", {"NULL"}),
        ("u64", "total", {"0"}),
    ],
)
def test_what_is_returned_instead(head: str, value: str, instead: set[str]) -> None:
    found = {new for kind, old, new in in_c(f"return {value};", head) if kind == "return"}
    if value != "total":  # which is what the function ends with, too
        found -= {new for kind, _, new in in_c("", head) if kind == "return"}
    assert found == instead


def in_python(source: str) -> Planted:
    text = f"def f(a: int = 7, b: 'x < y' = None) -> int:\n    '''1 < 2'''\n{source}\n"
    planted = pytree.find("a.py", text)
    for mutant in planted:
        compile(mutant.apply(text), "a.py", "exec")
        assert mutant.apply(text).count("\n") == text.count("\n")
    return {(one.operator, one.old, one.new.strip()) for one in planted if one.line > 1}


@pytest.mark.parametrize(
    ("source", "planted"),
    [
        ("    pass", set()),
        (
            "    if not (a\n            and b):  # and\n        g('ö', a); h(1)",
            {
                ("negate", "not (a\n            and b)", "(not (not (a\n            and b)))"),
                ("not", "not ", ""),
                ("logical", "and", "or"),
                ("delete", "g('ö', a)", "pass"),
                ("delete", "h(1)", "pass"),
                ("constant", "1", "2"),
                ("constant", "1", "0"),
            },
        ),
        (
            "    return a not in b < 3",
            {
                ("return", "a not in b < 3", "None"),
                ("relational", "not in", "in"),
                ("relational", "<", "<="),
                ("constant", "3", "4"),
                ("constant", "3", "2"),
            },
        ),
        (
            "    return (a //\n        (b)) is None",
            {
                ("return", "(a //\n        (b)) is None", "None"),
                ("arithmetic", "//", "*"),
                ("relational", "is", "is not"),
            },
        ),
        (
            "    while True:\n        a += f'{a + 1}' % b\n        break",
            {
                ("negate", "True", "(not (True))"),
                ("constant", "True", "False"),
                ("delete", "a += f'{a + 1}' % b", "pass"),
                ("loop", "break", "continue"),
            },
        ),
        ("    import os\n    raise E from None", {("delete", "raise E from None", "pass")}),
        ("    return None", set()),
        ("    return False", {("constant", "False", "True")}),
    ],
)
def test_where_errors_are_planted_in_python(source: str, planted: Planted) -> None:
    assert in_python(source) == planted


def test_what_the_module_itself_says_is_planted_too() -> None:
    text = "import os\nif TYPE_CHECKING:\n    X = 2\nY = 3\n\ndef __repr__(self):\n    return 4\n"
    assert {(one.old, one.new) for one in pytree.find("a.py", text)} == {("3", "4"), ("3", "2")}


def test_every_file_of_ours_can_be_read() -> None:
    """Of each function body something is found, and what is found is where it says."""
    for path in sorted((paths.ROOT / "kernel").glob("*.[ch]")):
        text = path.read_text()
        found = ctokens.find(path.name, text)
        assert found
        assert len({mutant.key for mutant in found}) == len(found)
        lines = text.splitlines()
        for mutant in found:
            first = mutant.old.split("\n")[0]
            assert lines[mutant.line - 1][mutant.column - 1 :].startswith(first)
    for path in sorted((paths.ROOT / "dmremap").rglob("*.py")):
        text = path.read_text()
        found = pytree.find(path.name, text)
        assert len({mutant.key for mutant in found}) == len(found)
        for mutant in found[::40]:
            mutant.apply(text)


def test_a_mutant_of_another_text_is_refused() -> None:
    mutant = at("a.c", "a < b\nc < d", 8, 9, "relational", "<=")
    assert (mutant.line, mutant.column) == (2, 3)
    assert mutant.diff("a < b\nc < d") == "-c < d\n+c <= d"
    with pytest.raises(ValueError, match="has changed"):
        mutant.apply("a < b\nc > d")


def some(lines: int, ways: int = 2) -> list[Mutant]:
    return [
        Mutant("kernel/a.c", line, 1, "constant", "1", str(way), 2 * line - 2)
        for line in range(1, lines + 1)
        for way in range(ways)
    ]


def test_each_line_is_drawn_once_before_one_is_drawn_again() -> None:
    ordered = sample.order(some(50), 7)
    assert len({mutant.line for mutant in ordered[:50]}) == 50
    assert sample.order(reversed(some(50)), 7) == ordered
    assert sample.order(some(50), 8) != ordered


@pytest.mark.parametrize(("number", "parts"), [(60, 1), (60, 7), (13, 5), (400, 3)])
def test_parts_try_what_the_whole_tries(number: int, parts: int) -> None:
    ordered = sample.order(some(100, 3), 1)
    whole = sample.slots(ordered, number)
    shared = [sample.slots(ordered, number, part, parts) for part in range(1, parts + 1)]
    assert sorted(slot[0].key for slot in whole) == sorted(s[0].key for p in shared for s in p)
    assert sum(map(len, shared)) == len(whole) == min(number, 300)
    # No mutant is in two slots: each is tried once.
    assert len({mutant.key for slot in whole for mutant in slot}) == 300


def test_what_was_written_before_a_cut_counts(tmp_path: Path) -> None:
    store = Store(tmp_path / "commit/kernel.jsonl")
    assert store.read() == {}
    store.add(Row("a", "test_io.py", seconds=3.0))
    store.add(Row("a", "test_dm.py", End.KILLED, "guest", "test_dm.py: HANG", 2.0))
    store.add(Row("b", end=End.STILLBORN))
    store.add(Row("a", end=End.SURVIVED))
    with store.path.open("a") as file:
        file.write('{"key": "c", "st')
    store.add(Row("d", "KUnit"))
    found = store.read()
    assert set(found) == {"a", "b", "d"}
    assert (found["a"].end, found["a"].stage, found["a"].seconds) == (End.KILLED, "guest", 5.0)
    assert found["b"].end is End.STILLBORN
    assert (found["d"].end, found["d"].passed) == (None, {"KUnit"})


class FakePlan(plans.Plan):
    """Mutants of kernel/a.c, of which those of each line end as it is said of it."""

    def __init__(self, ends: dict[int, str]) -> None:
        self.name = "kernel"
        self.series = "6.12"
        self._sources = {}
        self.ends = ends
        self.ran: list[tuple[int, str]] = []
        self.planted = 0
        self.lock = threading.Lock()

    def mutants(self) -> list[Mutant]:
        return some(len(self.ends), 1)

    def measure(self, meter: Meter) -> None:
        raise NotImplementedError

    def plant(self, mutant: Mutant | None, tree: Tree) -> End | None:
        del tree
        self.planted = mutant.line if mutant else 0
        return {"stillborn": End.STILLBORN}.get(self.ends.get(self.planted, ""))

    def steps(self, mutant: Mutant) -> list[Step]:
        del mutant
        guests = [Step(name, "guest", guest=name) for name in ("one.py", "two.py", "slow.py")]
        return [Step("KUnit", "KUnit"), Step("broken", "KUnit"), *guests, Step("all", "everything")]

    def seconds(self, step: Step) -> float | None:
        return {"broken": None, "slow.py": 10_000.0}.get(step.name, 1.0)

    def known(self, step: Step) -> bool:
        return step.name != "slow.py"

    @property
    def broken(self) -> list[str]:
        return ["broken: it fails"]

    def outcome(self, name: str, *, alone: bool = True) -> Outcome:
        with self.lock:
            self.ran.append((self.planted, name))
        killed = self.ends[self.planted] in (name, *(() if alone else (f"{name} beside others",)))
        return Outcome(name, ok=not killed, how="it fails" if killed else "", seconds=1.0)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[dict[int, str]], FakePlan]:
    """Return what makes a plan whose steps are not run, and whose copy is none."""
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel/a.c").write_text("1\n" * 20)
    monkeypatch.setattr(paths, "ROOT", tmp_path)

    def make(ends: dict[int, str]) -> FakePlan:
        plan = FakePlan(ends)

        def guests(tree: Tree, series: str, files: dict[str, float], clock: Clock) -> list[Outcome]:
            del tree, series, clock
            found = []
            for name in files:
                found.append(plan.outcome(name, alone=len(files) == 1))
                if not found[-1].ok:
                    break
            return found

        def run(step: Step, tree: Tree, timeout: float, clock: Clock) -> Outcome:
            del tree
            assert timeout >= 64
            if plan.ends[plan.planted] == "late":
                clock.stop()
                raise TimeUp
            return plan.outcome(step.name)

        monkeypatch.setattr(steps, "guests", guests)
        monkeypatch.setattr(steps, "run", run)
        copy = tree.Tree(tmp_path, (tmp_path / "lock").open("w"))
        monkeypatch.setattr(tree, "private", lambda: copy)
        monkeypatch.setattr(tree.Tree, "write", lambda *_: None)
        return plan

    return make


def run_plan(plan: FakePlan, store: Store, slots: Sequence[Sequence[Mutant]]) -> bool:
    return work.run(plan, slots, store, Clock(60), 1, lambda _: None)


def test_a_mutant_meets_its_steps_until_one_notices_it(
    fake: Callable[[dict[int, str]], FakePlan], tmp_path: Path
) -> None:
    plan = fake({1: "two.py", 2: "KUnit", 3: "nothing", 4: "all"})
    store = Store(tmp_path / "kernel.jsonl")
    slots = [[mutant] for mutant in plan.mutants()]
    assert run_plan(plan, store, slots)
    # What fails without a mutant is not run.
    guests = ["one.py", "two.py", "slow.py"]
    assert plan.ran == [
        # A failure beside others is to be one alone, too.
        *((1, name) for name in ("KUnit", "one.py", "two.py", "two.py")),
        (2, "KUnit"),
        *((3, name) for name in ("KUnit", *guests, "all")),
        *((4, name) for name in ("KUnit", *guests, "all")),
    ]
    made = report.make("kernel", 1, 90.0, slots, store.read())
    assert [fate.stage for _, fate in made.killed] == ["guest", "KUnit", "everything"]
    assert [mutant.line for mutant in made.survived] == [3]
    assert (made.percent, made.status) == (75.0, 1)
    # All is known by now.
    plan.ran.clear()
    assert run_plan(plan, store, slots)
    assert plan.ran == []


def test_a_checkout_that_is_edited_meanwhile_is_noticed(
    fake: Callable[[dict[int, str]], FakePlan], tmp_path: Path
) -> None:
    plan = fake({1: "KUnit"})
    plan.source("kernel/a.c")
    (tmp_path / "kernel/a.c").write_text("2\n")
    with pytest.raises(HarnessError, match=r"kernel/a\.c was edited meanwhile"):
        run_plan(plan, Store(tmp_path / "kernel.jsonl"), [plan.mutants()])


def test_what_fails_only_beside_others_has_not_noticed(
    fake: Callable[[dict[int, str]], FakePlan], tmp_path: Path
) -> None:
    plan = fake({1: "two.py beside others"})
    store = Store(tmp_path / "kernel.jsonl")
    assert run_plan(plan, store, [plan.mutants()])
    assert [name for _, name in plan.ran] == ["KUnit", "one.py", *["two.py"] * 2, "slow.py", "all"]
    (fate,) = store.read().values()
    assert fate.end is End.SURVIVED


def test_another_one_is_drawn_for_what_does_not_compile(
    fake: Callable[[dict[int, str]], FakePlan], tmp_path: Path
) -> None:
    plan = fake({1: "stillborn", 2: "nothing", 3: "KUnit", 4: "stillborn", 5: "one.py", 6: "KUnit"})
    store = Store(tmp_path / "kernel.jsonl")
    mutants = plan.mutants()
    slots = sample.slots(mutants, 3)
    assert run_plan(plan, store, slots)
    made = report.make("kernel", 1, 60.0, slots, store.read())
    # The slot of 1 has 4 as its next one, and is empty then.
    assert [mutant.line for mutant, _ in made.killed] == [3]
    assert [mutant.line for mutant in made.survived] == [2]
    assert made.discarded == {"stillborn": 2}
    assert made.status == 1


def test_a_run_goes_on_where_its_time_was_up(
    fake: Callable[[dict[int, str]], FakePlan], tmp_path: Path
) -> None:
    plan = fake({1: "KUnit", 2: "late", 3: "KUnit"})
    store = Store(tmp_path / "kernel.jsonl")
    slots = [[mutant] for mutant in plan.mutants()]
    store.add(Row(slots[2][0].key, "KUnit"))
    assert not run_plan(plan, store, slots)
    made = report.make("kernel", 1, 90.0, slots, store.read())
    assert (len(made.killed), made.missing, made.status) == (1, 2, 3)
    assert "not judged yet: run it again" in report.text(made, plan.source)
    plan.ran.clear()
    plan.ends |= {2: "KUnit", 3: "two.py"}
    assert run_plan(plan, store, slots)
    # KUnit had passed 3 before, and is not asked again.
    assert plan.ran == [(2, "KUnit"), (3, "one.py"), (3, "two.py"), (3, "two.py")]
    assert report.make("kernel", 1, 90.0, slots, store.read()).status == 0


def test_the_report_names_the_survivors(
    fake: Callable[[dict[int, str]], FakePlan], tmp_path: Path
) -> None:
    plan = fake({1: "nothing", 2: "one.py"})
    store = Store(tmp_path / "kernel.jsonl")
    slots = [[mutant] for mutant in plan.mutants()]
    run_plan(plan, store, slots)
    made = report.make("kernel", 4, 90.0, slots, store.read())
    made.broken = plan.broken
    said = report.text(made, lambda _: "1\n" * 3)
    assert "1 of 2 mutants killed, 50.0 %; the bar is 90 %" in said
    assert "survived: kernel/a.c:1: constant\n-1\n+0" in said
    assert "not used, as it fails without a mutant: broken: it fails" in said
    fields = json.loads(report.as_json(made, lambda _: "1\n" * 3))
    assert fields["percent"] == 50.0
    assert fields["survived"][0]["line"] == 1
    assert fields["killed"][0]["how"] == "one.py: it fails"


def test_nothing_judged_is_no_success() -> None:
    assert report.make("kernel", 1, 90.0, [], {}).status == 1


def test_a_test_covers_what_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "HOME", tmp_path)
    measured = Measured("lines", "digest")
    measured.add("a", Known(run={"f.c": [3, 8]}, never={"f.c": [5]}))
    measured.add("b", Known(run={"f.c": [5]}, never={"f.c": [3, 8]}))
    measured.add("broken", Known(ok=False, how="it fails", run={"f.c": [3, 5, 8]}))
    measured.add("unknown", Known(counts=False))
    again = Measured("lines", "digest")
    for lines, tests in (
        ((3, 3), {"a"}),
        ((4, 4), {"a"}),  # belongs to 3
        ((5, 7), {"b"}),
        ((4, 5), {"a", "b"}),
        ((9, 12), {"a"}),
        ((1, 2), set()),
    ):
        assert set(again.covering("f.c", *lines)) - {"unknown"} == tests, lines
        assert "unknown" in again.covering("f.c", *lines)
    assert measured.broken == ["broken: it fails"]
    # The machine may have been busy: the next run tries it again.
    assert "broken" not in again.tests


def test_what_fails_beside_others_is_tried_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "HOME", tmp_path)
    measured = Measured("guests", "digest")
    batches: list[list[str]] = []

    def run(batch: list[str]) -> list[Outcome]:
        batches.append(batch)
        bad = {"dead.py"} | ({"shy.py"} if len(batch) > 1 else set())
        return [Outcome(name, name not in bad, "it fails" * (name in bad), 1.0) for name in batch]

    names = ["a.py", "shy.py", "dead.py", "b.py"]

    def lines(name: str) -> tuple[covered.Lines, covered.Lines] | None:
        return None if name == "b.py" else ({}, {})

    covered.measure_guests(measured, names, run, lines, Clock(60), lambda _: None)
    tests = measured.tests
    assert {name: (test.ok, test.alone) for name, test in tests.items()} == {
        "a.py": (True, False),
        "shy.py": (True, True),
        "dead.py": (False, False),
        "b.py": (True, False),
    }
    # A file that runs nothing covers nothing; of one that has told nothing nobody knows.
    assert [name for name, test in tests.items() if not test.counts] == ["b.py"]
    assert batches == [["a.py", "shy.py", "dead.py", "b.py"], ["shy.py"], ["dead.py", "b.py"]]
    with pytest.raises(TimeUp):
        covered.measure_guests(measured, ["c.py"], run, lines, Clock(0), lambda _: None)


@pytest.mark.parametrize(
    ("status", "text", "ok", "how"),
    [
        (0, "1 passed", True, ""),
        (5, "no tests ran", True, ""),
        (1, "...\nFAILED tests/a.py::test_b - assert 1\n1 failed", False, "tests/a.py::test_b"),
        (2, "ERROR tests/a.py - ImportError\n", False, "tests/a.py - ImportError"),
        (1, "seed 1 area 7\n", False, "seed 1 area 7"),
        (None, "", False, "HANG: no end in 3 s"),
        (-9, "", False, "exit status -9"),
    ],
)
def test_how_a_step_ended(status: int | None, text: str, ok: bool, how: str) -> None:
    outcome = steps.judged("a", status, text, 3.0)
    assert outcome.ok is ok
    assert outcome.how.startswith(how)


def test_a_test_that_is_not_there_notices_nothing() -> None:
    with pytest.raises(HarnessError, match="not found: b"):
        steps.judged("a", 4, "ERROR: not found: b\n", 1.0)


def test_a_crowded_machine_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0, 0))
    assert steps.patience(10) == 100
    monkeypatch.setattr(os, "getloadavg", lambda: (6.0, 0, 0))
    assert steps.patience(10) == 300
    monkeypatch.setattr(os, "getloadavg", lambda: (60.0, 0, 0))
    assert steps.patience(10) == 400


PASSED = '{"step": "a", "ok": true, "how": "", "seconds": 1}\n'
TOO = PASSED.replace('"a"', '"b"')
SPLAT = '{"step": "a", "ok": false, "how": "SPLAT: BUG", "seconds": 1}\n'


@pytest.mark.parametrize(
    ("status", "text", "found"),
    [
        (0, f"{PASSED}noise\n", [("a", True)]),
        # What the console says in the end counts, though the tests have passed.
        (
            0,
            f"{PASSED}{TOO}{SPLAT}{SPLAT[:20]}",
            [("a", False), ("b", True)],
        ),
        (None, "", [("a", False)]),
    ],
)
def test_what_became_of_the_files_of_a_guest(
    status: int | None,
    text: str,
    found: list[tuple[str, bool]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy = tree.Tree(tmp_path, (tmp_path / "lock").open("w"))
    monkeypatch.setattr(steps, "execute", lambda *_, **__: (status, text))
    files = {"a": 1.0, "b": 1.0}
    outcomes = steps.guests(copy, "6.12", files, Clock(60))
    assert [(one.step, one.ok) for one in outcomes] == found


def test_a_guest_that_tells_nothing_has_not_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tree.Tree(tmp_path, (tmp_path / "lock").open("w"))
    monkeypatch.setattr(steps, "execute", lambda *_, **__: (2, "inside: BOOT"))
    with pytest.raises(HarnessError, match="BOOT"):
        steps.guests(copy, "6.12", {"a": 1.0}, Clock(60))


def test_a_program_may_take_so_long_and_no_longer(tmp_path: Path) -> None:
    copy = tree.Tree(tmp_path, (tmp_path / "lock").open("w"))
    python = [sys.executable, "-c"]
    assert steps.execute([*python, "print(5)"], copy, 60, Clock(60)) == (0, "5\n")
    child = "import subprocess; print(7, flush=True); subprocess.run(['sleep', '600'])"
    begin = time.monotonic()
    assert steps.execute([*python, child], copy, 1.0, Clock(60)) == (None, "7\n")
    clock, partial = Clock(60), list[str]()
    threading.Timer(1.0, clock.stop).start()
    with pytest.raises(TimeUp):
        steps.execute([*python, child], copy, 600, clock, partial=partial)
    assert partial == ["7\n"]
    assert time.monotonic() - begin < 30


def test_results_go_by_what_the_sources_are(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        names = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", tmp_path, *names, *words], check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / ".gitignore").write_text("no.c\n")
    for name in ("a.c", "no.c"):
        (tmp_path / name).write_text("1")
    git("add", ".")
    git("commit", "-qm", "all")
    clean = tree.commit(tmp_path)
    assert tree.files(tmp_path) == [".gitignore", "a.c"]
    (tmp_path / "a.c").write_text("2")
    dirty = tree.commit(tmp_path)
    assert dirty.startswith(f"{clean}-")
    (tmp_path / "a.c").write_text("3")
    assert tree.commit(tmp_path) not in (clean, dirty)


def test_what_is_gone_is_not_built(tmp_path: Path) -> None:
    root, where = tmp_path / "root", tmp_path / "build"
    for name in ("Kbuild", "kernel/a.c", "kernel/b.h", "tests/kernel/Kbuild"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    build._copy(root, where)
    (root / "kernel/a.c").rename(root / "kernel/c.c")
    (where / "kernel/a.mod.c").touch()
    build._copy(root, where)
    assert sorted(path.name for path in (where / "kernel").iterdir()) == ["a.mod.c", "b.h", "c.c"]


def test_what_the_loader_of_the_fuzzers_is_made_of(tmp_path: Path) -> None:
    (tmp_path / "shim").mkdir()
    (tmp_path / "kernel").mkdir()
    (tmp_path / "shim/loader.c").write_text('#include "fuzz.h"\n#include "dm-remap-area.c"\n')
    (tmp_path / "shim/fuzz.h").write_text('#include "dm-remap.h"\n')
    (tmp_path / "kernel/dm-remap.h").write_text('#include "dm-remap-format.h"\n')
    for name in ("dm-remap-format.h", "dm-remap-area.c", "dm-remap-target.c"):
        (tmp_path / "kernel" / name).touch()
    assert plans.loader_sources(tmp_path / "shim", tmp_path / "kernel") == {
        "kernel/dm-remap.h",
        "kernel/dm-remap-format.h",
        "kernel/dm-remap-area.c",
    }


def test_which_tests_may_run_the_package(tmp_path: Path) -> None:
    (tmp_path / "unit").mkdir()
    texts = {
        "a": "from unit.b import x",
        "b": "from unit.a import y\nimport dmremap",
        "c": "import os",
    }
    for name, text in texts.items():
        (tmp_path / f"unit/{name}.py").write_text(text)
    found = [plans.may_run_package(tmp_path / f"unit/{name}.py", tmp_path) for name in "abc"]
    assert found == [True, True, False]
