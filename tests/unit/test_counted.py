# SPDX-License-Identifier: GPL-2.0-only
"""Counting the lines that tests run: what gcov says is added up, and held against the reasons."""

import subprocess
from pathlib import Path

import pytest
from harness import counted
from harness.counted import Counts
from harness.kernels import Kernel

SOURCE = """int main(int argc, char **argv)
{
	(void)argv;
	if (argc > 1)
		return 0;
	if (argc > 5)
		return 3;
	return 0;
}
"""


@pytest.fixture
def built(tmp_path: Path) -> Kernel:
    """A program that takes the place of the module, compiled as the debug kernel's build does."""
    build = tmp_path / "build"
    (build / "kernel").mkdir(parents=True)
    (build / "kernel/dm-remap-small.c").write_text(SOURCE)
    argv = ["gcc", "--coverage", "-c", "kernel/dm-remap-small.c", "-o", "kernel/dm-remap-small.o"]
    subprocess.run(argv, cwd=build, check=True)
    subprocess.run(
        ["gcc", "--coverage", "kernel/dm-remap-small.o", "-o", "small"], cwd=build, check=True
    )
    none = tmp_path / "none"
    return Kernel("debug", "6.12-debug", none, none, none, build)


def run(kernel: Kernel, directory: Path, *arguments: str) -> Path:
    """Run it once; what it has counted goes where a guest's counts would go."""
    subprocess.run(["./small", *arguments], cwd=kernel.build, check=True)
    directory.mkdir()
    data = kernel.build / "kernel/dm-remap-small.gcda"
    data.rename(directory / data.name)
    return directory


def test_the_counts_of_several_guests_are_added_up(built: Kernel, tmp_path: Path) -> None:
    one = run(built, tmp_path / "one")
    counts = counted.count(built, [one])["dm-remap-small.c"]
    assert counts.never == [5, 7]
    other = run(built, tmp_path / "other", "an argument")
    counts = counted.count(built, [one, other])["dm-remap-small.c"]
    assert counts.never == [7]
    assert (counts.lines[4], counts.lines[5], counts.lines[8]) == (2, 1, 1)
    assert counted.share([counts]) == 1 - 1 / len(counts.lines)


def test_a_suite_that_includes_the_source_counts_it(built: Kernel, tmp_path: Path) -> None:
    counts = counted.count(built, [run(built, tmp_path / "one")])
    assert counts["dm-remap-small.c"].never == [5, 7]
    suite = built.build / "tests/kernel"
    suite.mkdir(parents=True)
    (suite / "dm-remap-small-kunit.c").write_text('#include "../../kernel/dm-remap-small.c"\n')
    name = "tests/kernel/dm-remap-small-kunit"
    argv = ["gcc", "--coverage", "-c", f"{name}.c", "-o", f"{name}.o"]
    subprocess.run(argv, cwd=built.build, check=True)
    subprocess.run(["gcc", "--coverage", f"{name}.o", "-o", "suite"], cwd=built.build, check=True)
    subprocess.run(["./suite", "an argument"], cwd=built.build, check=True)
    data = built.build / f"{name}.gcda"
    data.rename(tmp_path / "one" / data.name)
    both = counted.count(built, [tmp_path / "one"])
    assert set(both) == {"dm-remap-small.c"}
    assert both["dm-remap-small.c"].never == [7]


def test_a_line_that_is_not_run_needs_a_reason(built: Kernel, tmp_path: Path) -> None:
    counts = counted.count(built, [run(built, tmp_path / "one")])["dm-remap-small.c"]
    known = counted.reasons(
        "# a remark\n\ndm-remap-small.c: return 0;\n    nobody gives it arguments\n"
    )
    assert known == {"dm-remap-small.c": {"return 0;"}}
    source = SOURCE.splitlines()
    assert counted.unexplained("dm-remap-small.c", counts, source, known["dm-remap-small.c"]) == [
        "dm-remap-small.c:7: return 3;"
    ]
    assert not counted.unexplained("dm-remap-small.c", Counts(), source, set())


def test_nothing_counted_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.kernels.find", lambda name: name)
    (wrong,) = counted.module(tmp_path)
    assert "no test has run on the debug kernel" in wrong


def test_python_counts_only_where_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(counted.START, raising=False)
    assert counted.environment() == {}
    monkeypatch.setenv(counted.START, "some.ini")
    environment = counted.environment()
    assert Path(environment[counted.START]).name == "coverage.ini"
    assert environment["DMREMAP_COVERAGE"].startswith(str(counted.DATA))
