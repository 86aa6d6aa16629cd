# SPDX-License-Identifier: GPL-2.0-only
"""The debug kernels: what each is known by, and what its configuration must have."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from harness import debugkernel, kernels
from harness.debugkernel import FLAVOURS
from harness.errors import HarnessError
from harness.kernels import Kernel
from harness.paths import ROOT

NEEDED = {
    "debug": {
        *("KASAN", "PROVE_LOCKING", "PROVE_RCU", "DEBUG_KMEMLEAK", "UBSAN", "DEBUG_OBJECTS"),
        *("DEBUG_ATOMIC_SLEEP", "DEBUG_LIST", "FAILSLAB", "FAIL_PAGE_ALLOC", "FAIL_MAKE_REQUEST"),
        *("KUNIT", "GCOV_KERNEL", "SMP"),
    },
    "kcsan": {"KCSAN", "KCSAN_STRICT", "KCSAN_WEAK_MEMORY", "SMP", "PREEMPT", "BLK_DEV_DM"},
}


def texts(flavour: str) -> list[str]:
    return [fragment.read_text() for fragment in FLAVOURS[flavour].fragments]


def test_what_kconfig_drops_is_found() -> None:
    fragment = [
        "# A remark",
        "CONFIG_A=y",
        "CONFIG_B=m",
        "CONFIG_C=y",
        "# CONFIG_D is not set",
        "# CONFIG_E is not set",
        "",
    ]
    config = ["CONFIG_A=y", "CONFIG_B=y", "# CONFIG_D is not set", "CONFIG_E=y"]
    missing = debugkernel.not_set(fragment, config)
    assert missing == ["CONFIG_B=m", "CONFIG_C=y", "# CONFIG_E is not set"]


def test_a_fragment_overrules_those_before_it() -> None:
    first = "# A remark\nCONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\nCONFIG_D=y\n"
    second = "# CONFIG_A is not set\n\n# CONFIG_B is what it was\nCONFIG_C=m\n"
    assert debugkernel.overlaid([first]) == [
        line for line in first.splitlines() if "remark" not in line
    ]
    assert debugkernel.overlaid([first, second]) == [
        "# CONFIG_A is not set",
        "CONFIG_B=y",
        "CONFIG_C=m",
        "CONFIG_D=y",
    ]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_fragments_have_what_the_kernel_is_for(flavour: str) -> None:
    lines = set(debugkernel.overlaid(texts(flavour)))
    assert {f"CONFIG_{name}=y" for name in NEEDED[flavour]} <= lines
    # What its modules are told apart by.
    assert f'CONFIG_LOCALVERSION="-{flavour}"' in lines
    assert "CONFIG_DM_DUST=m" in lines


def test_two_that_exclude_each_other_are_not_both_asked_for() -> None:
    for flavour in FLAVOURS:
        lines = debugkernel.overlaid(texts(flavour))
        assert ("CONFIG_KASAN=y" in lines) is ("CONFIG_KCSAN=y" not in lines)


def test_another_configuration_is_another_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = {debugkernel.directory(flavour) for flavour in FLAVOURS.values()}
    assert len(found) == len(FLAVOURS)
    for flavour in FLAVOURS.values():
        first = debugkernel.directory(flavour)
        assert first.parent == tmp_path / "dm-remap"
        assert debugkernel.directory(flavour) == first
        *before, last = flavour.fragments
        fragment = tmp_path / last.name
        fragment.write_text(last.read_text() + "CONFIG_DM_CRYPT=y\n")
        other = dataclasses.replace(flavour, fragments=(*before, fragment))
        assert debugkernel.directory(other) not in found


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_kernel_that_is_not_built_says_so(
    flavour: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(HarnessError, match=f"run tools/vm kernel {flavour}"):
        kernels.find(flavour)
    monkeypatch.setattr(debugkernel, "SOURCE", tmp_path / "none.tar.xz")
    with pytest.raises(HarnessError, match="run tools/prepare --test"):
        kernels.find(flavour)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_kernel_that_is_built_is_found(
    flavour: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    directory = debugkernel.directory(FLAVOURS[flavour])
    config = directory / "build/include/config"
    config.mkdir(parents=True)
    release = f"6.12.117-{flavour}"
    (config / "kernel.release").write_text(f"{release}\n")
    kernel = kernels.find(flavour)
    assert kernel == Kernel(
        series=flavour,
        release=release,
        vmlinuz=directory / "vmlinux",
        modules=directory / "lib/modules" / release,
        tree=directory / "build",
        build=kernel.build,
    )
    assert kernel.patience > 1
    assert kernel.make == ("make", "-C", str(directory / "build"))


TESTS = """
import pytest

def test_plain(kernel): pass
@pytest.mark.debug
def test_debug(kernel): pass
@pytest.mark.kcsan
def test_races(kernel): pass
@pytest.mark.kcsan
@pytest.mark.kernels("kcsan")
def test_races_alone(kernel): pass
@pytest.mark.usually("6.12")
def test_usual(kernel): pass
"""
ENDS = {"6.1", "7.3"}
ALL = {*ENDS, "6.12", "debug"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"plain": ENDS, "debug": {*ENDS, "debug"}, "races": ENDS, "usual": {"6.12"}}),
        (
            ["--long"],
            {
                "plain": ALL,
                "debug": ALL,
                "races": {*ALL, "kcsan"},
                "races_alone": {"kcsan"},
                "usual": ALL,
            },
        ),
        (
            ["--kernels", "kcsan"],
            {name: {"kcsan"} for name in ("plain", "debug", "races", "races_alone", "usual")},
        ),
        (
            ["--kernels", "debug"],
            {name: {"debug"} for name in ("plain", "debug", "races", "usual")},
        ),
    ],
)
def test_what_runs_on_which_kernel(
    options: list[str], expected: dict[str, set[str]], tmp_path: Path
) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    argv = [sys.executable, "-m", "pytest", "-p", "harness.fixtures", "-c", "/dev/null"]
    done = subprocess.run(
        [*argv, "--rootdir", str(tmp_path), "--collect-only", "-q", *options, "test_it.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT / "tools"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, set[str]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("test_it.py::"):
            name, _, series = line.partition("::test_")[2].rstrip("]").partition("[")
            if series != "NOTSET":
                found.setdefault(name, set()).add(series)
    assert found == expected
