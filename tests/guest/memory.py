# SPDX-License-Identifier: GPL-2.0-only
"""Memory that nobody accounts for: what alloc_page() was asked for and nobody gives back."""

from __future__ import annotations

from pathlib import Path

from guest.lib import run


def loose_pages() -> int:
    """Return how many pages are neither free nor counted as something: kmemleak knows no pages."""
    run("sync")
    Path("/proc/sys/vm/drop_caches").write_text("3\n")
    fields = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, value = line.split(":")
        fields[name] = int(value.split()[0]) // 4
    counted = (
        *("MemFree", "Buffers", "Cached", "SwapCached", "AnonPages", "Slab", "KernelStack"),
        *("PageTables", "VmallocUsed", "Percpu"),
    )
    zones = Path("/proc/zoneinfo").read_text().split()
    lists = sum(int(zones[n + 1]) for n, word in enumerate(zones) if word == "count:")
    return fields["MemTotal"] - sum(fields[name] for name in counted) - lists
