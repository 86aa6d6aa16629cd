# SPDX-License-Identifier: GPL-2.0-only
"""Where things are in the checkout."""

from __future__ import annotations

import os
import re
from pathlib import Path

HARNESS = Path(__file__).resolve().parent
ROOT = HARNESS.parent.parent
VENV_PYTHON = ROOT / ".venv/bin/python"
"""The Python that has the control plane, with the newest of what it needs; guests see it too."""
DEBIAN12_PYTHON = ROOT / ".venv-12/bin/python"
"""The same with the versions that Debian 12 ships."""
DEBIAN12_PINS = HARNESS / "debian12.txt"
BUILD = ROOT / "build"
CACHE = BUILD / "cache"
ARTEFACTS = Path(os.environ.get("DMREMAP_ARTEFACTS") or BUILD / "artefacts")
"""What tests leave; a long run has a directory of its own for each commit."""


def directory_name(node: str) -> str:
    """Return the name of the directory of a test's artefacts.

    >>> directory_name("tests/vm/test_guest.py::test_in_guest[6.12-test_io.py]")
    'tests_vm_test_guest.py_test_in_guest_6.12-test_io.py_'
    """
    return re.sub(r"[^\w.-]+", "_", node)
