# SPDX-License-Identifier: GPL-2.0-only
"""What a guest does to its disks stands in the power-cut log as it did it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from harness.paths import ROOT
from powercut.log import SECTOR, Entry, Flush, Log, Mark, Replay, Write
from powercut.server import Export, PowerCutServer

if TYPE_CHECKING:
    from pathlib import Path

    from harness.fixtures import MachineFactory

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

SIZE = 8 << 20
NETWORK = ("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=")
IN_GUEST = """
import sys
from contextlib import ExitStack
from guest.lib import Device, nbd_device, network_up, outcome, pattern

def say(text):
    mark.write(0, text.encode().ljust(512, bytes(1)))

network_up()
with ExitStack() as stack:
    paths = [stack.enter_context(nbd_device(name, int(sys.argv[1]))) for name in sys.argv[2:]]
    main, spare, mark = (stack.enter_context(Device(path)) for path in paths)
    say("begin")
    main.write(8, pattern(8))
    say("main 8 is written")
    main.flush()
    say("main 8 is flushed")
    main.write(16, pattern(16))
    spare.write(0, pattern(0, 8))
    spare.flush()
    say("spare 0 is flushed")
    main.write(24, pattern(24), fua=True)
    say("main 24 is written through")
    print(outcome(main.write, 30, pattern(30, 4)), outcome(main.write, 30, pattern(30, 2)))
    print(outcome(main.read, 40), outcome(main.read, 41))
"""


@pytest.mark.usually("6.12")
def test_a_guest_on_the_power_cut_server(machine: MachineFactory, tmp_path: Path) -> None:
    legs = []
    for name in ("main", "spare"):
        (tmp_path / name).write_bytes(bytes(SIZE))
        legs.append(Export(name, tmp_path / name))
    with PowerCutServer(tmp_path / "nbd", tmp_path / "log", legs) as server:
        vm = machine(extra_args=NETWORK)
        server.set_bad("main", reads=[40], writes=[33])
        argv = ["/usr/bin/python3", "-B", "-c", IN_GUEST, str(server.port), "main", "spare", "mark"]
        shown = vm.run(argv, env={"PYTHONPATH": str(ROOT / "tests")}).stdout
    assert shown.splitlines() == ["EIO OK", "EIO OK"]

    with Log(tmp_path / "log") as log:
        begin = next(n for n, entry in enumerate(log) if entry == Mark("begin"))
        assert [word(entry) for entry in log[begin : begin + 13]] == [
            "begin",
            "write main 8",
            "main 8 is written",
            "flush main",
            "main 8 is flushed",
            "write main 16",
            "write spare 0",
            "flush spare",
            "spare 0 is flushed",
            "fua main 24",
            "flush main",  # which the kernel sends after a synchronous write
            "main 24 is written through",
            "write main 30",
        ]
        replay = Replay.of(log)
        content = {}
        for step in range(13):
            replay.advance(begin + step + 1)
            image = replay.images["main"]
            content[step] = [n for n in (8, 16, 24) if any(image[n * SECTOR : n * SECTOR + 512])]
        assert content[2] == []
        assert content[3] == [8]
        assert content[8] == [8]
        assert content[9] == [8, 24]
        assert content[10] == [8, 16, 24]


def word(entry: Entry) -> str:
    """Describe an entry in a word or three."""
    match entry:
        case Write():
            kind = "fua" if entry.fua else "write"
            return f"{kind} {entry.leg} {entry.offset // SECTOR}"
        case Flush():
            return f"flush {entry.leg}"
        case Mark():
            return entry.text
    return "zeroes"
