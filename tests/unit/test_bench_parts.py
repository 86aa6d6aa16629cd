# SPDX-License-Identifier: GPL-2.0-only
"""What the measuring guests print is read as it is meant; the command line is checked."""

import json
import subprocess
import tempfile
from array import array
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from harness import paths
from harness.bench import bios, cli, control, cost, load
from harness.bench.cost import Cost, Guest, Rows
from harness.bench.rows import Row
from harness.errors import HarnessError


def test_memory_is_what_the_kernel_took() -> None:
    text = "MemFree: 10 kB\nSlab: 3 kB\nVmallocTotal: 9 kB\nVmallocUsed: 2 kB\nPercpu: 1 kB\n"
    assert cost.parse_meminfo(text) == 6 * 1024


def test_the_cost_of_an_io() -> None:
    assert cost.parse_cost("4750 4754 4761.5\n") == Cost(4750, 4754, 4761.5)


def test_counters_of_the_fault_device() -> None:
    assert bios.counters("reads=1 writes=3 held=0\n")["writes"] == 3


def test_the_best_of_both_counts() -> None:
    assert load.best("900000 700000\n800000 750000\n") == (0.8, 0.7)


def test_of_all_instances_the_lowest_mean_counts() -> None:
    found: dict[str, Cost] = {}
    for linear, remap in ((108.0, 118.0), (100.0, 119.0), (108.0, 110.0)):
        costs = {"linear": Cost(90, 95, linear), "remap": Cost(90, 95, remap)}
        cost.lower(found, {name: partial(costs.__getitem__, name) for name in costs})
    assert {name: value.mean for name, value in found.items()} == {"linear": 100, "remap": 110}


class NoGuest(Guest):
    """Stands for a guest that nobody boots."""

    def __init__(self) -> None:
        pass


def test_a_row_is_the_worse_order_and_set_beside_plain_linear() -> None:
    made = Rows(NoGuest(), "6.12")
    made.add(
        "hit",
        1.035,
        {
            "random": {"linear": 1000, "served": 1500, "remap": 1520},
            "sequential": {"linear": 1000, "served": 1500, "remap": 1540},
        },
    )
    (row,) = made.rows
    assert row.value == 1.04  # not 1540 / 1500
    assert row.missed
    assert row.more["ratio, random"] == 1.02


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where O_DIRECT works, unlike in a /tmp that is in memory."""
    with tempfile.TemporaryDirectory(dir=paths.BUILD) as name:
        yield Path(name)


def iocost(directory: Path, operation: str) -> subprocess.CompletedProcess[str]:
    program = cost.build_iocost(directory)
    command: list[str | Path] = [program, directory / "disk", operation, "4096", directory / "at"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_program_goes_where_it_is_told(directory: Path) -> None:
    (directory / "disk").write_bytes(bytes(200 * 4096))
    (directory / "at").write_bytes(array("Q", (2 * 4096 * n for n in range(100))).tobytes())
    for operation in ("read", "write"):
        found = cost.parse_cost(iocost(directory, operation).stdout)
        assert 0 < found.minimum <= found.median
        written = b"\x5a" if operation == "write" else bytes(1)
        assert (directory / "disk").read_bytes() == (written * 4096 + bytes(4096)) * 100


def test_the_program_refuses_too_few_positions(directory: Path) -> None:
    (directory / "at").write_bytes(bytes(8))
    done = iocost(directory, "read")
    assert done.returncode == 1
    assert "fewer than" in done.stderr


def test_the_command_line() -> None:
    options = cli.parse([])
    assert options.kernels == ["6.1", "6.12", "7.3"]
    assert (options.output, options.check) == ("table", False)
    assert cli.parse(["--kernels", "6.12", "-o", "json"]).kernels == ["6.12"]


@pytest.mark.parametrize("argv", [["--kernels", "5.10"], ["-o", "yaml"], ["word"]])
def test_a_bad_command_line_is_a_usage_error(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.parse(argv)
    assert caught.value.code == 2
    assert "usage: tools/bench" in capsys.readouterr().err


def test_check_fails_and_names_the_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Row("6.12", "a read", 1.02, "x dm-linear", 1.01)]
    monkeypatch.setattr(cli, "measure", lambda *_, **__: found)
    assert cli.main(["--check", "-o", "json"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["ok"] is False
    assert "a read" in shown.err
    assert cli.main([]) == 0
    found[:] = [Row("6.12", "a read", 1.0, "x dm-linear", 1.01)]
    assert cli.main(["--check"]) == 0
    assert not capsys.readouterr().err.count("missed: Linux 6.12: a read: 1.0000")


def test_a_guest_that_cannot_be_measured_is_no_missed_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> list[Row]:
        raise HarnessError("no kernel")

    monkeypatch.setattr(cli, "measure", fail)
    assert cli.main(["--check"]) == 2


def test_what_dmremapctl_takes_is_beside_one_set() -> None:
    found: dict[str, object] = {
        "pass": 0.04,
        "version": 0.06,
        "status": 0.4,
        "one": {"list": 0.5, "status": 0.4, "assemble": 0.5},
        "one beside": {"list": 1.0, "status": 0.4, "assemble": 1.0},
        "many beside": {"list": 2.5, "status": 0.5, "assemble": 5.0},
        "monitor": 30720,
    }
    made = control.rows("7.3", found)
    assert [row.value for row in made] == [1.5, 10.0, 5.0, 1.25, 10.0, 30.0]
    assert [row.missed for row in made] == [False, True, True, False, False, False]
    assert made[2].more == {"one set beside the devices, s": 1.0}
