# SPDX-License-Identifier: GPL-2.0-only
"""The tests in this folder load kernel modules and make devices: only inside a guest."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guest.lib import load_module, module_loaded, unload_module
from guest.remapset import remap_set

from dmremap.sets import seen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guest.remapset import RemapSet


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to start anywhere but in a machine that the harness booted."""
    if config.option.collectonly:
        return
    if "dmremap.guest" not in Path("/proc/cmdline").read_text().split():
        raise pytest.UsageError(
            "tests/guest runs inside a virtual machine only: use tools/test, or "
            "tools/vm run -- .venv/bin/python -m pytest tests/guest/..."
        )


@pytest.fixture(scope="session")
def long() -> bool:
    """Whether the tests may take hours, as vm/inside.py has been told."""
    return "DMREMAP_LONG" in os.environ


@pytest.fixture(autouse=True)
def _loaded(request: pytest.FixtureRequest) -> None:
    """Load the module for the tests that are marked as needing it."""
    if request.node.get_closest_marker("module"):
        load_module("dm_remap")


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    """Have a host that has seen no set: tests put a set's disks back to what they were."""
    shutil.rmtree(seen.DIRECTORY, ignore_errors=True)


@pytest.fixture
def fresh_module() -> None:
    """Load the module anew: of most of its lines it logs ten in five seconds, then none."""
    if module_loaded("dm_remap"):
        unload_module("dm_remap")
    load_module("dm_remap")


@pytest.fixture
def small() -> Iterator[RemapSet]:
    """A set on two blank disks of which main is known by its size."""
    with remap_set() as made:
        yield made
