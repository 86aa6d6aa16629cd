# SPDX-License-Identifier: GPL-2.0-only
"""What tools/test makes of its words."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from harness.paths import ROOT

EVERYTHING = "tests/vm tests/lint tests/unit"
LAST_FAILED = "--last-failed --last-failed-no-failures none"


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """Return a checkout in which what tools/test starts only says so."""
    for name, text in (
        ("tools/prepare", 'echo "prepare $*"'),
        (".venv/bin/python", 'case $* in *compileall* | *collect-only*) ;; *) echo "$*" ;; esac'),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    shutil.copy(ROOT / "tools/test", tmp_path / "tools/test")
    return tmp_path


def said(home: Path, *words: str) -> list[str]:
    done = subprocess.run(
        [home / "tools/test", *words], cwd=home, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "prepared", "started"),
    [
        ("", "--test", f"-m pytest -n 3 --dist worksteal {EVERYTHING}"),
        ("--again", "--test", f"-m pytest {LAST_FAILED} {EVERYTHING}"),
        ("tests/unit -k it", "--test", "-m pytest tests/unit -k it"),
        ("--long tests/unit", "--test --kcsan", "-m pytest --long tests/unit"),
        ("tests/vm --kernels kcsan", "--test --kcsan", "-m pytest tests/vm --kernels kcsan"),
        ("--report /r -x", "--test", "-m pytest --report /r -x"),
        ("--long", "--test --kcsan", "-m harness.longrun --spent 0"),
        ("--long --part 2/5", "--test --kcsan", "-m harness.longrun --spent 0 --part 2/5"),
        ("--part 12/12 --long --again --report /r", "--test --kcsan",
         "-m harness.longrun --spent 0 --part 12/12 --again --report /r"),
    ],
)  # fmt: skip
def test_what_is_started(words: str, prepared: str, started: str, stand_in: Path) -> None:
    first, second = said(stand_in, *words.split())
    assert first == f"prepare {prepared}"
    assert re.sub(r"--spent \d+", "--spent 0", second) == started


@pytest.mark.parametrize(
    "words",
    [
        *("--part 1/2", "--long --part", "--long --part 3/2", "--long --part 0/2", "--report"),
        *("--long --part 1/2 tests/unit", "--long --part 1/2 -x", "--long --part 09/9"),
    ],
)
def test_words_that_make_no_sense(words: str, stand_in: Path) -> None:
    done = subprocess.run(
        [stand_in / "tools/test", *words.split()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("test: --")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_the_help_names_every_option() -> None:
    done = subprocess.run(
        [ROOT / "tools/test", "--help"], capture_output=True, text=True, check=True
    )
    text = (ROOT / "tools/test").read_text()
    parsed = text[text.index("while [ $#") : text.index("done\n")]
    options = [line.strip().partition(")")[0] for line in parsed.splitlines() if "--" in line[:4]]
    assert options == ["--long", "--again", "--report", "--part"]
    assert all(f"\n{option} " in done.stdout for option in options)
