# SPDX-License-Identifier: GPL-2.0-only
"""Damaged and hostile areas through the kernel's own loader: a correct table or a refusal.

A generator chooses the areas and the damage; fuzzers.py says of what the fuzzer is made.

DM_REMAP_FUZZ_SEED and DM_REMAP_FUZZ_AREAS are for longer runs with other seeds; --long makes a
million areas.
"""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from unit.fuzzers import RULES, WRONG, Builder, copy_kernel, run, seeded
from unit.shim import KERNEL

SEED = os.environ.get("DM_REMAP_FUZZ_SEED", "1")
AREAS = os.environ.get("DM_REMAP_FUZZ_AREAS")

REASONS = (
    "ctr: main carries no tag: see dmremapctl repair --retag MAIN SPARE",
    "ctr: main's tag is lost and no id tells: dmremapctl repair --retag MAIN SPARE",
    "ctr: main's tag is lost beside other data: dmremapctl repair --retag MAIN SPARE",
    "ctr: main carries the tag of another set",
    "ctr: main carries another's tag: dmremapctl repair --tag-is-content MAIN SPARE",
    "ctr: main is not of the size that the set has recorded",
    "ctr: main is not the disk that the set has recorded",
    "ctr: main is smaller than the set has recorded",
    "ctr: main was used with another copy of the spare: run dmremapctl check",
    "ctr: main's tag contradicts the superblock",
    "ctr: main's tag describes an impossible main",
    "ctr: main's tag has a name that is not terminated",
    "ctr: main's tag has an impossible epoch",
    "ctr: main's tag is of another version",
    "ctr: main's tag is of version #: save the data with the dm-remap that made it",
    "ctr: main_start is not the one that the set has recorded",
    "ctr: metadata is of another version",
    "ctr: metadata is of version #: save the data with the dm-remap that made it",
    "ctr: metadata needs a newer dm-remap (incompat)",
    "ctr: metadata needs a newer dm-remap to be written (ro_compat)",
    "ctr: no set with this uuid on the spare: check the device names",
    "ctr: no superblock of the set can be read: run dmremapctl check",
    "ctr: spare area is blank, but the table is read-only",
    "ctr: spare area is neither blank (all zeros) nor a set",
    "ctr: spare_len is less than the set has recorded",
    "ctr: spare_len is more than the set has recorded, and the table is read-only",
    "ctr: spare_len is more than the set has recorded: run dmremapctl grow",
    "ctr: spare_len: a set grows by at least # blocks, to # slots at most",
    "ctr: spare_len: the set has # segments and cannot grow any more",
    "ctr: superblock: a stand-in is named for what is no table block",
    "ctr: superblock: a text is not terminated",
    "ctr: superblock: data lies outside of main",
    "ctr: superblock: data overlaps main's tag",
    "ctr: superblock: impossible epoch",
    "ctr: superblock: impossible epoch of the predecessor",
    "ctr: superblock: impossible segment",
    "ctr: superblock: impossible size of main",
    "ctr: superblock: impossible size of the area",
    "ctr: superblock: main's id is too long",
    "ctr: superblock: number of segments is not #..#",
    "ctr: superblock: segments do not follow each other",
    "ctr: superblock: the epoch before does not fit the present one",
    "ctr: superblock: the spare has serial number #",
    "ctr: superblock: unit is not #, #, # or #",
    "ctr: superblock: unknown choice for errors",
    "ctr: superblocks of two sets on the spare: run dmremapctl list",
    "ctr: the copies of main's tag contradict each other",
    "ctr: the length is more than the set has recorded",
    "ctr: the set has gone on elsewhere: run dmremapctl check",
    "ctr: the set's unit is not main's logical block size",
    "ctr: the spare is an older copy of itself: run dmremapctl check",
    "ctr: the two superblocks contradict each other: run dmremapctl check",
    "load: dm: # stand-ins of the superblock cannot be read, and may hide it: run dmremapctl check",
    "load: dm: block # of the spare area cannot be written",
    "load: dm: both copies of metadata block # are gone, it and block #: run dmremapctl check",
    "load: dm: what is left of metadata block # may be old: run dmremapctl check",
    "load: dm: metadata block # has an impossible sequence: run dmremapctl check",
    "load: dm: no metadata can be written: try dmremapctl assemble --readonly",
    "load: dm: superblock: data lies outside of main",  # of an area that is to be formatted
    "load: dm: the copies of metadata block # contradict each other: run dmremapctl check",
    "load: dm: unit # is mapped twice, to slots # and #: run dmremapctl check",
)

# What the loader can say besides: of areas this small, with this disk, none of it can come up.
OTHERS = (
    "load: dm: the spare no longer holds the set that the table was loaded for",
    "load: dm: the set has changed since the table was loaded, load it again",
    "load: dm: the extension is in use, run dmremapctl grow",  # it was empty in ctr
    "ctr: superblock: unknown state",  # such a superblock is not READY, so there is no set
    "ctr: superblock: more than # slots",
    "ctr: spare area is over # GiB: format it with dmremapctl create",
    "ctr: main takes too long to read: dmremapctl repair --retag MAIN SPARE",  # there is no time
    "ctr: main and spare overlap",
    "ctr: main or spare overlaps a set that is in use",
    "ctr: the set is in use already",
    "ctr: dm: # is in use by # (#)",  # one program loads one set at a time
)


@dataclass
class Done:
    """What a run has printed."""

    status: int
    text: str
    numbers: dict[str, int]
    reasons: Counter[str]


def fuzz(program: Path, areas: int, seed: str = SEED) -> Done:
    """Run the fuzzer to its end."""
    ran = run([str(program), seed, str(areas)])
    numbers: dict[str, int] = {}
    reasons: Counter[str] = Counter()
    for line in ran.stdout.splitlines() if ran.returncode == 0 else []:
        key, value, *text = line.split(" ", 2)
        if key == "reason":
            reasons[text[0]] += int(value)
        else:
            numbers[key] = int(value)
    return Done(ran.returncode, ran.stdout + ran.stderr, numbers, reasons)


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    return seeded(tmp_path_factory.mktemp("seeded"))


@pytest.fixture(scope="module")
def program(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builder.build(tmp_path_factory.mktemp("whole"))


def test_every_area_is_loaded_right_or_refused(program: Path, long: bool) -> None:
    areas = int(AREAS or (1_000_000 if long else 100_000))
    done = fuzz(program, areas)
    assert done.status == 0, done.text
    print(done.text)
    numbers = done.numbers
    assert numbers["areas"] == numbers["accepted"] + numbers["refused"] == areas
    assert sum(done.reasons.values()) == numbers["refused"]
    if areas < 100_000:
        return
    # One that only refuses, or only accepts, proves nothing.
    assert numbers["accepted"] > 20_000
    assert numbers["refused"] > 20_000
    for kind in ("formatted", "grown", "mended", "stale"):
        assert numbers[kind] > 300, kind
    assert numbers["undecided"] < numbers["areas"] / 20
    assert set(done.reasons) == set(REASONS), set(done.reasons) ^ set(REASONS)
    assert min(done.reasons.values()) >= 5, done.reasons.most_common()[-5:]


def test_the_reasons_are_those_of_the_loader(program: Path) -> None:
    """A refusal that is new in the sources is to be reached by the fuzzer, too."""
    del program
    texts = set()
    for name in ("dm-remap-format.h", "dm-remap-load.c", "dm-remap-identity.c"):
        source = (KERNEL / name).read_text().replace('" DO_CHECK', ': run dmremapctl check"')
        source = re.sub(r'"\s*\n\s*"', "", source)
        texts |= set(re.findall(r'(?:return|error =|fault =) "([^"]+)"', source))
        texts |= set(re.findall(r'DMERR(?:_LIMIT)?\("%s: ([^"]+)"', source))
    known = {text.partition(": ")[2].removeprefix("dm: ") for text in REASONS + OTHERS}
    # Said in passing, of a block or of what the reason in ctr sums up, of a format or of a scrub.
    passing = re.compile(
        r"table block|%s$|block %llu of the spare area|out of memory"
        r"|no metadata can be written any more|no epoch can be written|cannot read the spare area"
        r"|interrupted by a signal|something else has written"
    )
    plain = {re.sub(r"[0-9]+|%[a-z]+", "#", text) for text in texts if not passing.search(text)}
    assert plain <= known, plain - known


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_that_is_missing_is_found(builder: Builder, rule: str, tmp_path: Path) -> None:
    copy = copy_kernel(tmp_path, *RULES[rule])
    done = fuzz(builder.build(tmp_path, copy, "-w", "-O1"), 20_000)
    assert done.status != 0, "nothing was noticed"
    assert WRONG.search(done.text), done.text
