# SPDX-License-Identifier: GPL-2.0-only
"""The tests in this folder load kernel modules and make devices: only inside a guest."""

from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to start anywhere but in a machine that the harness booted."""
    del config
    if "dmremap.guest" not in Path("/proc/cmdline").read_text().split():
        raise pytest.UsageError(
            "tests/guest runs inside a virtual machine only: use tools/test, or "
            "tools/vm run -- .venv/bin/python -m pytest tests/guest/..."
        )
