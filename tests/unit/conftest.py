# SPDX-License-Identifier: GPL-2.0-only
"""What the unit tests share."""

from pathlib import Path

import pytest
from unit.kernelload import KernelLoad

from dmremap.sets import seen


@pytest.fixture(autouse=True)
def nothing_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a host that has seen no set."""
    monkeypatch.setattr(seen, "DIRECTORY", tmp_path / "epochs")


@pytest.fixture(scope="session")
def by_kernel(tmp_path_factory: pytest.TempPathFactory) -> KernelLoad:
    """Return the kernel's load, which is compiled once."""
    return KernelLoad(tmp_path_factory.mktemp("kernel"))
