# SPDX-License-Identifier: GPL-2.0-only
"""Runs in a guest whose clock counts instructions: how long dmremapctl takes, beside other things.

Prints JSON: seconds of ``python3 -c pass``, of ``--version`` and ``status``, and of ``list``,
``status`` and ``assemble --all`` with one set, alone and beside idle loop devices, and with many;
KiB of memory that ``monitor`` takes for many.
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import dmremap

SETS, IDLE = (int(word) for word in sys.argv[1:3])
MAIN, SPARE = 2 << 20, 3 << 19
CTL = Path(sys.executable).with_name("dmremapctl")
VERBS = (("list",), ("status",), ("assemble", "--all"))


def used(*argv: object) -> resource.struct_rusage:
    """Run a program; return what it took."""
    process = subprocess.Popen([*map(str, argv)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, argv
    return usage


def seconds(*argv: object) -> float:
    """Run a program; return how long a processor worked for it. Waiting does not count."""
    usage = used(*argv)
    return usage.ru_utime + usage.ru_stime


def loop(size: int) -> str:
    """Make a loop device over a sparse file of so many bytes."""
    number = len(list(Path("/tmp").glob("disk*")))
    file = Path(f"/tmp/disk{number}")
    with file.open("w") as empty:
        os.truncate(empty.fileno(), size)
    done = subprocess.run(
        ["losetup", "--find", "--show", file], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def verbs() -> dict[str, float]:
    """Measure each verb; all sets run before and afterwards."""
    found = {}
    for verb in VERBS:
        if verb[0] == "assemble":
            dmremap.remove(everything=True)
        found[verb[0]] = seconds(CTL, *verb)
    return found


def main() -> None:
    """Measure everything."""
    dmremap.create(loop(MAIN), loop(SPARE), name="set0")
    found: dict[str, object] = {
        "pass": min(seconds(sys.executable, "-c", "pass") for _ in range(3)),
        "version": min(seconds(sys.executable, "-m", "dmremap", "--version") for _ in range(2)),
        "status": min(seconds(CTL, "status") for _ in range(2)),
        "one": verbs(),
    }
    for _ in range(IDLE):
        loop(SPARE)
    found["one beside"] = verbs()
    for number in range(1, SETS):
        dmremap.create(loop(MAIN), loop(SPARE), name=f"set{number}")
    found["many beside"] = verbs()
    # The most that it has held, in KiB, once it has seen all sets.
    found["monitor"] = used(CTL, "monitor", "--once").ru_maxrss
    print(json.dumps(found))


main()
