# SPDX-License-Identifier: GPL-2.0-only
"""What the unit tests share."""

import pytest
from unit.kernelload import KernelLoad


@pytest.fixture(scope="session")
def by_kernel(tmp_path_factory: pytest.TempPathFactory) -> KernelLoad:
    """Return the kernel's load, which is compiled once."""
    return KernelLoad(tmp_path_factory.mktemp("kernel"))
