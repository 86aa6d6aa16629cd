# SPDX-License-Identifier: GPL-2.0-only
"""Give a loader from other sources to both fuzzers: ``python -m harness.mutants.loader DIR``.

DIR is a copy of kernel/ with a mutant. All but the loader is compiled from the checkout's sources:
else a mutant in a header would mislead the second opinion as well. Exit status 1 says that the
mutant was noticed, and the last line by what.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from unit import fuzzers, test_corruption, test_guided_fuzzing

AREAS = 30_000
RUNS = 20_000
"""A missing rule has to be found within so many by the fuzzers' own tests, or a few times more."""
OPTIONS = ("-w", "-O1")
SAYS = r"seed \d+ area|the area of this input|Sanitizer:|runtime error"


def noticed(text: str) -> str:
    """Return the line that says what is wrong."""
    found = re.search(rf"^.*(?:{SAYS}).*$", text, re.MULTILINE)
    return found[0].strip() if found else text.strip().splitlines()[-1]


def judge(kernel: Path) -> str:
    """Return what is wrong with a loader, or nothing."""
    # Not in /tmp, where it would stay if this is ended.
    scratch = kernel.resolve().parent / "build/loader"
    shutil.rmtree(scratch, ignore_errors=True)
    where = [scratch / name for name in ("s", "seeded", "g", "guided")]
    for path in where:
        path.mkdir(parents=True)
    seeded, guided = fuzzers.seeded(where[0]), fuzzers.guided(where[2])
    try:
        programs = (
            seeded.build(where[1], kernel, *OPTIONS),
            guided.build(where[3], kernel, *OPTIONS),
        )
    except AssertionError:
        return ""  # the kernel's compiler took it, and so it is for the guests to judge
    done = test_corruption.fuzz(programs[0], AREAS)
    if done.status:
        return noticed(done.text)
    if unknown := set(done.reasons) - set(test_corruption.REASONS):
        return f"another reason: {min(unknown)}"
    found = test_guided_fuzzing.fuzz(programs[1], f"-runs={RUNS}")
    return noticed(found.text) if found.status else ""


def main() -> int:
    """Judge the loader that is named."""
    how = judge(Path(sys.argv[1]))
    print(how or "nothing was noticed")
    return 1 if how else 0


if __name__ == "__main__":
    sys.exit(main())
