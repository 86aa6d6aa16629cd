# SPDX-License-Identifier: GPL-2.0-only
"""libFuzzer on the kernel's own loader: what the loader does decides what is tried next.

The areas, the damage and the second opinion are those of test_corruption.py. Here the bytes of an
input choose among them, and overwrite bytes of blocks. It starts from areas that nothing is wrong
with.

DM_REMAP_FUZZ_SEED and DM_REMAP_FUZZ_SECONDS are for longer runs with other seeds; --long takes ten
minutes. A seed alone repeats a run roughly: libFuzzer learns addresses, too. An input repeats what
was found: it stays in build/artefacts with the program, and the failure names the command.
"""

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.fixtures import artefacts
from unit.fuzzers import RULES, WRONG, Builder, copy_kernel, guided, run

SEED = os.environ.get("DM_REMAP_FUZZ_SEED", "1")
SECONDS = int(os.environ.get("DM_REMAP_FUZZ_SECONDS", "0"))

# As guided.c has it: a section for the area, and one for each damage.
FIRST_SECTION, SECTION = 64, 32
MOST = FIRST_SECTION + 12 * SECTION
# From seeds that are whole already, the length needs no time to grow.
OPTIONS = (f"-max_len={MOST}", "-len_control=0", "-timeout=30", "-print_final_stats=1")

# Where a planted error has to be found: most take hundreds or a few thousand.
RUNS = 100_000
# Of the rules, those that keep slots and units in their ranges, and one each of what else there is.
QUICK = ("unit", "slots", "crc", "unseen")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "rule" in metafunc.fixturenames:
        metafunc.parametrize("rule", RULES if metafunc.config.getoption("--long") else QUICK)


@dataclass
class Done:
    """What a run has said, and left."""

    status: int
    text: str
    repeat: list[str]
    """The command that shows again what was found."""

    def number(self, pattern: str) -> int:
        found = re.findall(pattern, self.text, re.MULTILINE)
        assert found, f"{pattern} is not in\n{self.text}"
        return int(found[-1])


def said(argv: list[str]) -> tuple[int, str]:
    """Run it; return its status and all that it has said."""
    done = run(argv)
    return done.returncode, done.stdout + done.stderr


def fuzz(program: Path, *options: str) -> Done:
    """Run the program to its end; what it leaves is beside it."""
    seeds, corpus = program.parent / "seeds", program.parent / "corpus"
    seeds.mkdir()
    corpus.mkdir()
    for kind in range(16):  # of an area; all other choices are 1, which is nothing special
        (seeds / str(kind)).write_bytes(bytes([0, 0, kind]).ljust(FIRST_SECTION, b"\1"))
    options = (f"-seed={SEED}", *OPTIONS, *options, f"-artifact_prefix={program.parent}/")
    status, text = said([str(program), *options, str(corpus), str(seeds)])
    found = re.search(r"Test unit written to (.*)", text)
    text = re.sub(r"^#\d+\s+(NEW|REDUCE|pulse) .*\n", "", text, flags=re.MULTILINE)
    return Done(status, text, [str(program), found[1]] if found else [])


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    return guided(tmp_path_factory.mktemp("guided"))


@pytest.fixture(scope="module")
def whole(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the program with the loader as it is."""
    return builder.build(tmp_path_factory.mktemp("whole"))


@pytest.mark.timeout(SECONDS + 300)
def test_no_input_misleads_the_loader(
    builder: Builder, request: pytest.FixtureRequest, long: bool
) -> None:
    where = artefacts(request.node.nodeid)
    seconds = SECONDS or (600 if long else 20)
    done = fuzz(builder.build(where), f"-max_total_time={seconds}")
    assert done.status == 0, f"{done.text}\nagain: {shlex.join(done.repeat)}"
    print(f"seed {SEED}, {seconds} s\n{done.text}")
    # What was found new beyond the seeds, and what there is to be guided by at all.
    assert done.number(r"^stat::number_of_executed_units: (\d+)") > 20 * seconds
    for what in ("cov", "ft"):
        begin = done.number(rf"INITED .*\b{what}: (\d+)")
        end = done.number(rf"DONE .*\b{what}: (\d+)")
        assert end > 2 * begin > 0, (what, begin, end)
    # One that only refuses, or only accepts, proves nothing.
    assert done.number(r"^accepted (\d+)") > seconds
    assert done.number(r"^refused (\d+)") > seconds


def test_a_rule_that_is_missing_is_found(
    builder: Builder, whole: Path, rule: str, tmp_path: Path
) -> None:
    copy = copy_kernel(tmp_path, *RULES[rule])
    done = fuzz(builder.build(tmp_path, copy, "-w", "-O1"), f"-runs={RUNS}")
    assert done.status != 0, "nothing was noticed"
    assert WRONG.search(done.text), done.text
    # The input alone shows it again, and that it is the rule.
    status, text = said(done.repeat)
    assert status != 0
    assert WRONG.search(text), text
    status, text = said([str(whole), *done.repeat[1:]])
    assert status == 0, text
