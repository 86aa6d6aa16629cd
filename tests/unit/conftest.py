# SPDX-License-Identifier: GPL-2.0-only
"""What the unit tests share."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.kernelload import KernelLoad

from dmremap.sets import seen


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Have Ctrl-C be one: whoever was started in the background ignores it, and so do we then."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def nothing_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a host that has seen no set."""
    monkeypatch.setattr(seen, "DIRECTORY", tmp_path / "epochs")


@pytest.fixture(scope="session")
def by_kernel(tmp_path_factory: pytest.TempPathFactory) -> KernelLoad:
    """Return the kernel's load, which is compiled once."""
    return KernelLoad(tmp_path_factory.mktemp("kernel"))
