# SPDX-License-Identifier: GPL-2.0-only
"""The protocols hold in the model, and not without any one of their rules: docs/model."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from harness.paths import ROOT

MODEL = ROOT / "docs/model"
DEPTH = 5000  # steps; the longest run takes a fifth of it
MEMORY = 2000  # MiB

# Each world is a model and what may happen in it.
WORLDS = {
    "metadata": ["metadata.pml"],
    "slots": ["metadata.pml", "-DSLOT_REFUSALS=1", "-DREFUSALS=0"],
    "cuts": ["metadata.pml", "-DCUTS=3", "-DNSI=1", "-DRELOADS=0"],
    "one-standin": ["metadata.pml", "-DREFUSALS=2", "-DNSI=1", "-DRELOADS=0"],
    "moves": [
        "metadata.pml",
        "-DREFUSALS=2",
        "-DSLOT_REFUSALS=2",
        "-DCUTS=1",
        "-DBLINDS=1",
    ],
    "super": ["metadata.pml", "-DNXI=1", "-DREFUSALS=2", "-DCUTS=1", "-DBLINDS=1"],
    "growth": ["growth.pml"],
    "growth-refusals": ["growth.pml", "-DREFUSALS=2", "-DNSI=1", "-DCUTS=1"],
    "growth-no-standin": ["growth.pml", "-DNXI=0", "-DNSI=1"],
    "epoch": ["epoch.pml", "-DREADS=1"],
    "epoch-tag": ["epoch.pml", "-DTAG_REFUSALS=2", "-DSTOPS=0", "-DTICKS=2"],
    "epoch-spare": ["epoch.pml", "-DPUTS=2", "-DREFUSALS=1", "-DBLINDS=1", "-DSTOPS=0"],
    "epoch-histories": [
        "epoch.pml",
        "-DPUTS=2",
        "-DCUTS=2",
        "-DLOADS=3",
        "-DTICKS=0",
        "-DWRITES=1",
    ],
    "epoch-repair": [
        "epoch.pml",
        "-DACCEPTS=1",
        "-DPUTS=2",
        "-DTAG_REFUSALS=1",
        "-DTAG_BLINDS=1",
        "-DSTOPS=0",
    ],
    "epoch-adopted": [
        "epoch.pml",
        "-DADOPTED=1",
        "-DPUTS=2",
        "-DREFUSALS=1",
        "-DBLINDS=1",
        "-DTICKS=0",
    ],
    "repair": ["repair.pml"],
    "lookup": ["lookup.pml"],
    "flush": ["flush.pml"],
}

# Bigger ones, for --long; no rule needs them.
LONG = {
    "cuts-two-standins": ["metadata.pml", "-DCUTS=3"],
    "refusals": ["metadata.pml", "-DREFUSALS=2"],
    "one-standin-again": ["metadata.pml", "-DREFUSALS=2", "-DNSI=1"],
    "epoch-cuts": ["epoch.pml", "-DCUTS=2", "-DPUTS=2"],
    "epoch-accepts": [
        "epoch.pml",
        "-DACCEPTS=1",
        "-DPUTS=2",
        "-DREFUSALS=2",
        "-DBLINDS=1",
        "-DTICKS=0",
    ],
    "epoch-both": [
        "epoch.pml",
        "-DPUTS=2",
        "-DREFUSALS=1",
        "-DBLINDS=1",
        "-DTAG_REFUSALS=1",
        "-DTAG_BLINDS=1",
        "-DSTOPS=0",
    ],
    "epoch-adopted-hours": ["epoch.pml", "-DADOPTED=1", "-DPUTS=2", "-DREFUSALS=1"],
}

# Elsewhere compiling well costs more than searching.
BIG = {"cuts", "one-standin", "epoch", "epoch-adopted", *LONG}

# The rules that can be taken away, and a world where that must be seen.
RULES = [
    ("metadata", "NO_DATA_FIRST"),
    ("metadata", "NO_COPY_B"),
    ("metadata", "BOTH_AT_ONCE"),
    ("metadata", "ACK_EARLY"),
    ("metadata", "OVERWRITE_GOOD"),
    ("metadata", "NO_MEND"),
    ("metadata", "NO_PLUS_2"),
    ("metadata", "ERASE_EARLY"),
    ("metadata", "UNSEEN_TRUSTED"),
    ("metadata", "UNSEEN_BLOCK"),
    ("metadata", "UNNAMED_HIDES"),
    ("metadata", "NAME_ONCE"),
    ("metadata", "TORN_TRUSTED"),
    ("metadata", "TORN_NO_SEQ"),
    ("slots", "MOVE_BAD_FIRST"),
    ("slots", "NO_GENERATION"),
    ("slots", "LOST_DIRECT"),
    ("slots", "WINNER_FIRST"),
    ("slots", "LOSER_EARLY"),
    ("cuts", "BACK_HOME"),
    ("cuts", "HOME_WINS"),
    ("moves", "TORN_IF_LONE"),
    ("one-standin", "NAME_LATE"),
    ("one-standin", "NO_OUTRANK"),
    ("one-standin", "NO_DOUBT"),
    ("growth", "GROW_SUPER_FIRST"),
    ("growth", "SUPER_UNCHECKED"),
    ("growth-no-standin", "GROW_HALF"),
    ("growth-refusals", "TWO_TRUSTED"),
    ("epoch", "NO_RAISE_AT_LOAD"),
    ("epoch", "RAISE_BEHIND_IO"),
    ("epoch", "NO_RAISE_AT_STOP"),
    ("epoch", "NO_RAISE_AT_RESUME"),
    ("epoch", "NO_RAISE_HOURLY"),
    ("epoch", "WRITTEN_EARLY"),
    ("epoch", "WRITTEN_LATE"),
    ("epoch", "DTR_RAISES"),
    ("epoch", "TAG_FIRST"),
    ("epoch", "SUPER_READ_FIRST"),
    ("epoch", "AHEAD_TRUSTED"),
    ("epoch", "BEHIND_REFUSED"),
    ("epoch-tag", "TAG_IN_ORDER"),
    ("epoch-tag", "NO_RETRY"),
    ("epoch-spare", "TAG_AFTER_ONE"),
    ("epoch-spare", "TAG_ANYWAY"),
    ("epoch-spare", "FAILED_RW"),
    ("epoch-spare", "EPOCH_UNEQUAL"),
    ("epoch-adopted", "HIGHER_SHOWN"),
    ("epoch-histories", "ID_TRUSTED"),
    ("epoch-histories", "BEFORE_TRUSTED"),
    ("epoch-repair", "ACCEPT_LOW"),
    ("epoch-repair", "ACCEPT_FORGETS"),
    ("repair", "NO_DATA_FIRST"),
    ("repair", "NO_COPY_B"),
    ("repair", "PUBLISH_EARLY"),
    ("repair", "ACK_EARLY"),
    ("repair", "NO_DOUBT"),
    ("repair", "MOVE_BAD_FIRST"),
    ("repair", "NO_GENERATION"),
    ("repair", "LOST_DIRECT"),
    ("repair", "READ_FALLBACK"),
    ("repair", "SLOT_REUSE"),
    ("repair", "ENTRY_TAKEN_WRITTEN"),
    ("repair", "NO_CLAIM"),
    ("repair", "NO_LOOKUP_AGAIN"),
    ("lookup", "STATE_FIRST"),
    ("lookup", "NO_LEAVING"),
    ("lookup", "SEALING_SEEN"),
    ("lookup", "BAD_SKIPPED"),
    ("lookup", "BAD_TAKEN"),
    ("flush", "DIRTY_FLAG"),
    ("flush", "COUNT_LATE"),
    ("flush", "SAMPLE_LATE"),
]


def run(argv: list[str], cwd: Path) -> str:
    """Run a program that must succeed; return all that it said."""
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def verify(world: str, switches: list[str], cwd: Path) -> str:
    """Search all states of a world; return what the search says of itself."""
    for program in ("spin", "gcc"):
        assert shutil.which(program), f"install {program} (tools/prepare --test does)"
    model, *options = (WORLDS | LONG)[world]
    run(["spin", "-a", *options, *switches, str(MODEL / model)], cwd)
    # -DSAFETY: no cycles are looked for. Neither hash compaction nor a bit state.
    # The order in which an error is looked for is free: in one world the other one finds it sooner.
    order = ["-DT_REVERSE"] if switches and world == "cuts" else []
    optimise = "-O2" if world in BIG and not switches else "-O0"
    options = ["-DSAFETY", f"-DMEMLIM={MEMORY}", *order]
    run(["gcc", "-w", optimise, *options, "-o", "pan", "pan.c"], cwd)
    table = 24 if world in BIG else 20  # bits; clearing it takes time
    return run(["nice", "-n", "10", "./pan", f"-m{DEPTH}", f"-w{table}"], cwd)


def errors(said: str) -> int:
    """How many errors the search says that it has found."""
    found = re.findall(
        r"^State-vector \d+ byte, depth reached \d+, errors: (\d+)$", said, re.MULTILINE
    )
    assert len(found) == 1, said
    return int(found[0])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.function is test_protocol_holds:
        worlds = WORLDS | LONG if metafunc.config.getoption("--long") else WORLDS
        metafunc.parametrize("world", worlds)


def test_protocol_holds(world: str, tmp_path: Path) -> None:
    """Every state has been looked at, and no assertion fails in any."""
    said = verify(world, [], tmp_path)
    assert errors(said) == 0, said
    assert "Full statespace search for:" in said, said
    assert re.search(r"^\s*assertion violations\s*\+$", said, re.MULTILINE), said
    assert re.search(r"^\s*invalid end states\s*\+$", said, re.MULTILINE), said
    # Nothing was left out: no depth, memory or time was at its end.
    for word in ("not completed", "too small", "truncated", "out of memory", "error:", "hash-comp"):
        assert word not in said, said
    depth = re.search(r"depth reached (\d+)", said)
    assert depth, said
    assert int(depth[1]) < DEPTH - 1, said


@pytest.mark.parametrize(("world", "rule"), RULES, ids=[f"{w}-{r}" for w, r in RULES])
def test_rule_is_needed(world: str, rule: str, tmp_path: Path) -> None:
    """Without the rule an assertion of ours fails."""
    said = verify(world, [f"-D{rule}"], tmp_path)
    assert errors(said) > 0, said
    assert re.search(r"^pan:1: assertion violated ", said, re.MULTILINE), said
    assert "invalid end state (" not in said, said


def test_no_rule_is_forgotten() -> None:
    """The switches of the models, of this file and of the table in README.md are the same."""
    used: set[str] = set()
    for path in MODEL.glob("*.pml"):
        text = path.read_text()
        conditions = re.findall(r"^#(?:ifdef|ifndef|elif defined)\W+(\w+)", text, re.MULTILINE)
        used |= {word for word in conditions if f"#define {word}\t" not in text}
    table = re.findall(r"^\| `(\w+)` \|", (MODEL / "README.md").read_text(), re.MULTILINE)
    assert used == {rule for _, rule in RULES}
    assert sorted(used) == sorted(table)
