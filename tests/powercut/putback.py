# SPDX-License-Identifier: GPL-2.0-only
"""Uses a tagged set on the power-cut server, in a guest: stops it, resumes, reloads, starts anew.

The argument is JSON: the server's port, a seed, the sectors of the spare's area, the first sector
of data on main, and the steps. Each writes to pieces (first sector and number of sectors, of main),
flushes, and does what its "then" says. The marks are those of oracle.py, with sectors of main.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from random import Random

from guest.lib import (
    SECTOR,
    Device,
    dm_create,
    dm_message,
    dm_names,
    dm_reload,
    dm_remove,
    dm_resume,
    dm_status,
    dm_suspend,
    nbd_device,
    network_up,
    pattern,
    sectors,
)
from guest.remapset import format_set, new_superblock, tag_main

NAME = "back"


def gone() -> None:
    """Remove the device, if it is there."""
    if NAME in dm_names():
        dm_remove(NAME)


def main() -> None:
    """Do the steps."""
    plan = json.loads(sys.argv[1])
    random = Random(plan["seed"])
    network_up()
    with ExitStack() as stack:
        legs = [stack.enter_context(nbd_device(n, plan["port"])) for n in ("main", "spare", "mark")]
        mark = stack.enter_context(Device(legs[2]))
        start = plan["start"]
        superblock = new_superblock(legs[0], plan["spare"], tagged=True, data_start=start)
        format_set(legs[1], superblock)
        tag_main(legs[0], superblock)
        options = f"6 main_start {start} uuid {superblock.uuid} remap_rate 0"
        size = sectors(legs[0]) - start
        line = f"0 {size} remap {legs[0]} {legs[1]} 0 {plan['spare']} {options}"
        number = 1

        def say(text: str) -> None:
            mark.write(0, text.encode().ljust(SECTOR, b"\0"))

        def use(pieces: list[tuple[int, int]]) -> None:
            nonlocal number
            with Device(f"/dev/mapper/{NAME}") as device:
                for first, count in pieces:
                    number += 1
                    fua = random.random() < 0.2
                    say(f"begin {first} {count} {number}")
                    device.write(first - start, pattern(first, count, number), fua=fua)
                    say(f"ack {first} {count} {number} {int(fua)}")
                number += 1
                say(f"flush {number}")
                device.flush()
                say(f"flushed {number}")

        stack.callback(gone)
        dm_create(NAME, line)
        say("ready")
        for step in plan["steps"]:
            use(step["pieces"])
            match step["then"]:
                case "reload":
                    dm_reload(NAME, line)
                case "start":
                    dm_remove(NAME)
                    dm_create(NAME, line)
                case "stop" | "stop and start":
                    dm_suspend(NAME)
                    assert dm_message(NAME, "stop").endswith("tag 5")
                    if step["then"] == "stop":
                        dm_resume(NAME)
                    else:
                        dm_remove(NAME)
                        dm_create(NAME, line)
        print(dm_status(NAME))
        dm_remove(NAME)
        say("done")


if __name__ == "__main__":
    main()
