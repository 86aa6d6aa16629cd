# SPDX-License-Identifier: GPL-2.0-only
"""The verdict on a running set as a whole."""

from typing import TYPE_CHECKING

from dmremap.errors import Failure
from dmremap.health.policy import Verdict, combine, evaluate, never_started

if TYPE_CHECKING:
    from dmremap.sets.live import Running


def judge(one: "Running") -> Verdict:
    """Judge all targets of a set; Failure if its status was not understood."""
    device = one.device
    if not device.live_table:
        return never_started(one.name)
    if not one.status:
        raise Failure("DMR-E106", f"the status of {one.name!r} is not understood")
    return combine(
        evaluate(status, name=one.name, read_only=device.read_only, suspended=device.suspended)
        for status in one.status
    )
