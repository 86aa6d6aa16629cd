# SPDX-License-Identifier: GPL-2.0-only
"""The verdict on a running set as a whole."""

from typing import TYPE_CHECKING

from dmremap.errors import Failure
from dmremap.health.policy import Verdict, combine, evaluate, never_started

if TYPE_CHECKING:
    from dmremap.sets.live import Running


def judge(running: "Running") -> Verdict:
    """Judge all targets of a set; Failure if its status was not understood."""
    device = running.device
    if not device.live_table:
        return never_started(running.name)
    if not running.status:
        raise Failure("DMR-E106", f"the status of {running.name!r} is not understood")
    return combine(
        evaluate(status, name=running.name, read_only=device.read_only, suspended=device.suspended)
        for status in running.status
    )
