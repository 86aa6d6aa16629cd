# SPDX-License-Identifier: GPL-2.0-only
"""The report of a test run: what is kept of each test, and the summary."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from harness import paths, report
from harness.paths import ROOT
from harness.report import Outcome

TESTS = """
import json
import pytest
from harness import paths

@pytest.mark.parametrize("kernel", ["6.1", "debug"])
@pytest.mark.parametrize("disk", ["nvme"])
def test_disk(request, kernel, disk):
    left = paths.ARTEFACTS / paths.directory_name(request.node.nodeid)
    (left / "vm0").mkdir(parents=True)
    (left / "vm0/console.log").write_text("[    0.1] a console\\n")
    (left / "vm0/disk.img").write_text("not to be kept")
    row = {"disk": disk, "mapped": 3, "ok": kernel == "6.1"}
    (left / "matrix.json").write_text(json.dumps([row]))
    print("said something on", kernel)
    print("MADE_SEED=7")
    print("MADE_SEED=8")
    assert kernel == "6.1"

def test_on_the_host():
    pass
"""


@pytest.fixture
def reported(tmp_path: Path) -> Path:
    """Run two tests of which one fails on one kernel, and report."""
    (tmp_path / "test_it.py").write_text(TESTS)
    options = ["-p", "harness.report", "-c", "/dev/null", "--rootdir", str(tmp_path), "-q"]
    argv = [sys.executable, "-m", "pytest", *options, "--report", "made", "test_it.py"]
    done = subprocess.run(
        argv,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT / "tools"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    for left in paths.ARTEFACTS.glob("test_it.py_test_disk*"):
        shutil.rmtree(left)
    assert done.returncode == 1, done.stdout + done.stderr
    return tmp_path / "made"


def test_the_summary_has_a_row_a_test_and_a_column_a_kernel(reported: Path) -> None:
    text = (reported / "README.md").read_text()
    assert "1 failed, 2 passed" in text
    assert "| test | Linux 6.1 | Linux debug | on the host |" in text
    row = next(line for line in text.splitlines() if line.startswith("| test_it.py::test_disk"))
    assert row.startswith("| test_it.py::test_disk[nvme] | [ok](test_it.py_test_disk_nvme-6.1_/) ")
    assert "| [**failed**](test_it.py_test_disk_nvme-debug_/) " in row
    assert "| test_it.py |  |  | ok 1 tests, 0 s |" in text
    assert "1 of 1 are as they should be." in text
    assert "| **not ok** | nvme | 3 |" in text


def test_what_a_test_left_is_kept(reported: Path) -> None:
    kept = reported / "test_it.py_test_disk_nvme-debug_"
    assert sorted(path.name for path in kept.rglob("*")) == [
        *("console.log", "output.txt", "repeat.sh", "vm0"),
    ]
    assert (kept / "vm0/console.log").read_text() == "[    0.1] a console\n"
    command = "MADE_SEED=8 exec tools/test --kernels debug 'test_it.py::test_disk[nvme-debug]'\n"
    assert (kept / "repeat.sh").read_text().endswith(f"\n{command}")
    output = (kept / "output.txt").read_text()
    assert "said something on debug" in output
    assert "assert 'debug' == '6.1'" in output


def test_what_ran_for_long_runs_for_long_again() -> None:
    outcome = Outcome("t[kcsan]", "kcsan")
    words = report.Reporter(Path("unused"), long=True).command(outcome)
    assert words == ["exec", "tools/test", "--long", "--kernels", "kcsan", "'t[kcsan]'"]


def test_a_directory_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    argv = [sys.executable, "-m", "pytest", "-p", "harness.report", "-c", "/dev/null"]
    done = subprocess.run(
        [*argv, "--report", str(tmp_path)],
        env={"PYTHONPATH": str(ROOT / "tools"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "holds something else: name another" in done.stderr
    assert (tmp_path / "precious").exists()


def test_the_worst_of_setup_call_and_teardown_counts() -> None:
    def part(
        when: Literal["setup", "call", "teardown"], outcome: Literal["passed", "failed"]
    ) -> pytest.TestReport:
        location = ("t", 1, "t")
        return pytest.TestReport("t", location, {}, outcome, None, when, duration=0.5)

    outcome = Outcome("t", "-")
    outcome.add(part("setup", "passed"))
    outcome.add(part("call", "passed"))
    outcome.add(part("teardown", "failed"))
    assert (outcome.status, outcome.seconds) == ("error", 1.5)
    assert report.matrix("m", [{"a": 1, "ok": True}]).endswith("| ok | 1 |")
