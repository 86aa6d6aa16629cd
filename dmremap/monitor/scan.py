# SPDX-License-Identifier: GPL-2.0-only
"""Reading the state of all sets from the kernel."""

from dmremap.errors import Failure
from dmremap.monitor.tracker import SetSnapshot
from dmremap.sets import live


def scan() -> dict[str, SetSnapshot]:
    """Return all sets that were started, by key.

    No member device is opened and nothing waits for I/O.  A set whose state cannot
    be read is a Failure: it must not pass for one that is gone.
    """
    found: dict[str, SetSnapshot] = {}
    for running in live.find():
        device = running.device
        if not device.live_table:
            continue  # some command is just making it
        if not running.status:
            raise Failure("DMR-E106", f"the status of {running.name!r} is not understood")
        key = device.uuid or f"{device.major}:{device.minor}"
        found[key] = SetSnapshot(
            key=key,
            name=running.name,
            device=running.path,
            uuid=running.uuid or "",
            targets=running.status,
            read_only=device.read_only,
        )
    return found
