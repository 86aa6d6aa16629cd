"""The debug kernel: what it is known by, and what its configuration must have."""

from pathlib import Path

import pytest
from harness import debugkernel, kernels
from harness.errors import HarnessError
from harness.kernels import Kernel

NEEDED = {
    *("KASAN", "PROVE_LOCKING", "PROVE_RCU", "DEBUG_KMEMLEAK", "UBSAN", "DEBUG_OBJECTS"),
    *("DEBUG_ATOMIC_SLEEP", "DEBUG_LIST", "FAILSLAB", "FAIL_PAGE_ALLOC", "FAIL_MAKE_REQUEST"),
    *("KUNIT", "GCOV_KERNEL"),
}


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


def test_the_fragment_has_what_the_kernel_is_for() -> None:
    lines = debugkernel.FRAGMENT.read_text().splitlines()
    assert {f"CONFIG_{name}=y" for name in NEEDED} <= set(lines)
    assert "CONFIG_DM_DUST=m" in lines


def test_another_configuration_is_another_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = debugkernel.directory()
    assert first.parent == tmp_path / "dm-remap"
    assert debugkernel.directory() == first
    fragment = tmp_path / "debug.config"
    fragment.write_text(debugkernel.FRAGMENT.read_text() + "CONFIG_KCSAN=y\n")
    monkeypatch.setattr(debugkernel, "FRAGMENT", fragment)
    assert debugkernel.directory() != first


def test_a_kernel_that_is_not_built_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(HarnessError, match="run tools/vm kernel"):
        kernels.find("debug")
    monkeypatch.setattr(debugkernel, "SOURCE", tmp_path / "none.tar.xz")
    with pytest.raises(HarnessError, match="run tools/prepare --test"):
        kernels.find("debug")


def test_a_kernel_that_is_built_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = debugkernel.directory() / "build/include/config"
    config.mkdir(parents=True)
    (config / "kernel.release").write_text("6.12.117-debug\n")
    kernel = kernels.find("debug")
    assert kernel == Kernel(
        series="debug",
        release="6.12.117-debug",
        vmlinuz=debugkernel.directory() / "vmlinux",
        modules=debugkernel.directory() / "lib/modules/6.12.117-debug",
        tree=debugkernel.directory() / "build",
        build=kernel.build,
    )
    assert kernel.patience > 1 == kernels.find("6.12").patience
