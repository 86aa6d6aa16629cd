# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel's own sources are compiled with in user space: kernelshim/ is their Linux."""

import re
from pathlib import Path

from harness.paths import ROOT

SHIM = ROOT / "tests/unit/kernelshim"
KERNEL = ROOT / "kernel"
LOADER = tuple(f"dm-remap-{part}.c" for part in ("area", "identity", "commit", "load", "slots"))
"""The sources that make a table in memory from an area."""


def empty_headers(where: Path, *sources: Path) -> None:
    """Make Linux's headers that the sources include, with nothing in them: shim.h has it all."""
    for source in sources:
        for name in re.findall(r"#include <(linux/[^>]+)>", source.read_text()):
            (where / name).parent.mkdir(parents=True, exist_ok=True)
            (where / name).touch()
