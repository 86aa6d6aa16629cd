# SPDX-License-Identifier: GPL-2.0-only
"""A device-mapper device that nothing is wrong with, for tests without a kernel."""

from dataclasses import replace
from typing import Any

from dmremap.dm import Device


def a_device(name: str, **changes: Any) -> Device:
    """Return a device that runs; `changes` are fields of it."""
    made = Device(
        name=name,
        uuid="",
        major=253,
        minor=0,
        suspended=False,
        read_only=False,
        live_table=True,
        inactive_table=False,
        open_count=0,
        event_nr=0,
        target_count=1,
        deferred_remove=False,
    )
    return replace(made, **changes)
