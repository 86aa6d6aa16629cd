# SPDX-License-Identifier: GPL-2.0-only
"""The server's protocol and log, and what a replay makes of a log."""

from __future__ import annotations

import contextlib
import json
import mmap
import random
import socket
import struct
import subprocess
import threading
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import pytest
from powercut.log import (
    SECTOR,
    Entry,
    Flush,
    Image,
    Log,
    LogError,
    LogWriter,
    Mark,
    Replay,
    Write,
    Zeroes,
    cut_points,
    durable,
)
from powercut.server import Export, PowerCutServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIZE = 1 << 20
CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_TRIM, CMD_WRITE_ZEROES = 0, 1, 2, 3, 4, 6
FUA = 1


def fill(byte: int, sectors: int = 1) -> bytes:
    return bytes([byte]) * (SECTOR * sectors)


# A client


class Client:
    """As small an NBD client as can be; it checks every magic number."""

    def __init__(self, path: Path, export: str | None = None, *, old: bool = False) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(str(path))
        assert self.take(16) == b"NBDMAGICIHAVEOPT"
        assert self.take(2) == b"\0\3"
        self.sock.sendall(struct.pack(">I", 1 if old else 3))
        self.cookie = 0
        self.size = self.flags = 0
        if export is None:
            return
        if old:
            self.send_option(1, export.encode())
            self.size, self.flags = struct.unpack(">QH", self.take(10))
            assert self.take(124) == bytes(124)
        else:
            replies = self.go(export)
            assert [kind for kind, _ in replies] == [3, 3, 1]
            _, self.size, self.flags = struct.unpack(">HQH", replies[0][1])

    def take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.sock.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def send_option(self, option: int, data: bytes = b"") -> None:
        self.sock.sendall(b"IHAVEOPT" + struct.pack(">II", option, len(data)) + data)

    def option(self, option: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        self.send_option(option, data)
        replies = []
        while True:
            magic, echoed, kind, length = struct.unpack(">QIII", self.take(20))
            assert (magic, echoed) == (0x3E889045565A9, option)
            replies.append((kind, self.take(length)))
            if kind == 1 or kind & 0x80000000:
                return replies

    def go(self, export: str, option: int = 7) -> list[tuple[int, bytes]]:
        name = export.encode()
        return self.option(option, struct.pack(">I", len(name)) + name + b"\0\1\0\3")

    def request(
        self, command: int, offset: int = 0, length: int = 0, data: bytes = b"", flags: int = 0
    ) -> bytes:
        self.cookie += 1
        header = struct.pack(">IHHQQI", 0x25609513, flags, command, self.cookie, offset, length)
        return header + data

    def reply(self, length: int = 0) -> tuple[int, int, bytes]:
        magic, error, cookie = struct.unpack(">IIQ", self.take(16))
        assert magic == 0x67446698
        return cookie, error, self.take(length) if not error else b""

    def do(
        self, command: int, offset: int = 0, length: int = 0, data: bytes = b"", flags: int = 0
    ) -> int:
        self.sock.sendall(self.request(command, offset, length or len(data), data, flags))
        cookie, error, _ = self.reply()
        assert cookie == self.cookie
        return error

    def write(self, sector: int, data: bytes, *, fua: bool = False) -> int:
        return self.do(CMD_WRITE, sector * SECTOR, data=data, flags=FUA if fua else 0)

    def read(self, sector: int, count: int = 1) -> tuple[int, bytes]:
        length = count * SECTOR
        self.sock.sendall(self.request(CMD_READ, sector * SECTOR, length))
        _, error, data = self.reply(length)
        return error, data

    def flush(self) -> int:
        return self.do(CMD_FLUSH)


@dataclass
class Bench:
    """A server with two legs, and clients of it."""

    server: PowerCutServer
    directory: Path
    clients: list[Client]

    def client(self, export: str | None = None, *, old: bool = False) -> Client:
        client = Client(self.server.socket_path, export, old=old)
        self.clients.append(client)
        return client

    def close(self) -> None:
        for client in self.clients:
            client.sock.close()

    def entries(self) -> list[Entry]:
        with Log(self.server.log_path) as log:
            return list(log)

    def image(self, leg: str) -> bytes:
        return (self.directory / f"{leg}.img").read_bytes()


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[[float], Bench]]:
    with contextlib.ExitStack() as stack:

        def make(linger: float) -> Bench:
            legs = []
            for name, block_size in (("main", 512), ("spare", 4096)):
                image = tmp_path / f"{name}.img"
                image.write_bytes(bytes(SIZE))
                legs.append(Export(name, image, block_size))
            server = PowerCutServer(tmp_path / "nbd", tmp_path / "log", legs, linger=linger)
            bench = Bench(stack.enter_context(server), tmp_path, [])
            stack.callback(bench.close)
            return bench

        yield make


@pytest.fixture
def bench(make_bench: Callable[[float], Bench]) -> Bench:
    return make_bench(0.0)


# The handshake


def test_lists_its_exports(bench: Bench) -> None:
    replies = bench.client().option(3)
    names = [content[4:].decode() for kind, content in replies if kind == 2]
    assert names == ["main", "spare", "mark"]


def test_says_what_an_export_can_do(bench: Bench) -> None:
    client = bench.client()
    sizes = {}
    for name in ("main", "spare"):
        export, blocks, _ = client.go(name, option=6)
        assert struct.unpack(">HQH", export[1]) == (0, SIZE, 1 | 4 | 8 | 32 | 64)
        kind, *sizes[name] = struct.unpack(">HIII", blocks[1])
        assert kind == 3
    assert sizes == {"main": [512, 4096, 1 << 25], "spare": [4096, 4096, 1 << 25]}
    assert client.go("main")[-1][0] == 1  # asking has not ended the handshake


def test_old_clients_are_served(bench: Bench) -> None:
    client = bench.client("main", old=True)
    assert (client.size, client.flags) == (SIZE, 1 | 4 | 8 | 32 | 64)
    assert client.write(3, fill(1)) == 0


@pytest.mark.parametrize("option", [5, 8, 9, 10, 99])
def test_refuses_options_it_does_not_know(bench: Bench, option: int) -> None:
    client = bench.client()
    assert client.option(option) == [(0x80000001, b"")]
    assert client.go("nothing") == [(0x80000006, b"")]
    assert client.option(7, b"\0\0\0\x09ab") == [(0x80000003, b"")]
    assert client.go("main")[-1][0] == 1


def test_abort(bench: Bench) -> None:
    client = bench.client()
    assert client.option(2) == [(1, b"")]
    with pytest.raises(EOFError):
        client.take(1)


@pytest.mark.parametrize(
    "nonsense", [b"\0" * 28, struct.pack(">IHHQQI", 0x25609513, 0, 1, 1, 0, 1 << 30)]
)
def test_a_client_that_talks_nonsense_is_dropped_alone(bench: Bench, nonsense: bytes) -> None:
    good, bad = bench.client("main"), bench.client("main")
    bad.sock.sendall(nonsense)
    with pytest.raises(EOFError):
        bad.take(1)
    assert good.write(0, fill(1)) == 0


# Commands and the log


def test_commands_are_done_and_logged_in_order(bench: Bench) -> None:
    main, spare = bench.client("main"), bench.client("spare")
    assert main.write(8, fill(1, 2)) == 0
    assert spare.write(0, fill(2, 8), fua=True) == 0
    assert main.flush() == 0
    assert main.do(CMD_TRIM, 8 * SECTOR, SECTOR) == 0
    assert main.do(CMD_WRITE_ZEROES, 0, 4096, flags=FUA) == 0
    assert main.read(8, 2) == (0, fill(0) + fill(1))
    assert spare.flush() == 0
    assert bench.entries() == [
        Write("main", 8 * SECTOR, fill(1, 2)),
        Write("spare", 0, fill(2, 8), fua=True),
        Flush("main", 2),
        Zeroes("main", 8 * SECTOR, SECTOR, discard=True),
        Zeroes("main", 0, 4096, fua=True),
        Flush("spare", 5),
    ]
    assert bench.image("main")[: 10 * SECTOR] == bytes(9 * SECTOR) + fill(1)
    assert bench.image("spare")[: 9 * SECTOR] == fill(2, 8) + bytes(SECTOR)


def test_nothing_past_the_end(bench: Bench) -> None:
    client = bench.client("main")
    last = SIZE // SECTOR - 1
    assert client.write(last, fill(1, 2)) == 28
    assert client.read(last, 2) == (22, b"")
    assert client.do(CMD_WRITE_ZEROES, 0, SIZE + 1) == 28
    assert client.do(7, 0, 512) == 22
    assert client.write(last, fill(1)) == 0
    assert bench.entries() == [Write("main", last * SECTOR, fill(1))]


def test_bad_sectors(bench: Bench) -> None:
    main, spare = bench.client("main"), bench.client("spare")
    bench.server.set_bad("main", reads=[5], writes=[9])
    results = {n: (main.write(n, fill(1)), main.read(n)[0]) for n in range(4, 11)}
    assert results == {n: (5 if n == 9 else 0, 5 if n == 5 else 0) for n in range(4, 11)}
    assert main.write(8, fill(2, 4)) == 5
    assert main.do(CMD_WRITE_ZEROES, 0, SIZE) == 5
    assert main.read(8)[1] == fill(1)  # a write that fails is not done at all
    assert spare.write(9, fill(1)) == 0
    logged = [entry.offset // SECTOR for entry in bench.entries() if isinstance(entry, Write)]
    assert logged == [4, 5, 6, 7, 8, 10, 9]
    bench.server.set_bad("main", writes=[])
    assert (main.write(9, fill(1)), main.read(5)[0]) == (0, 5)
    bench.server.set_bad("main", reads=[])
    assert main.read(5)[0] == 0


def test_a_sector_that_is_written_in_spite_of_the_error(bench: Bench) -> None:
    client = bench.client("main")
    bench.server.set_bad("main", writes=[4, 9], taken=[5])
    assert (client.write(4, fill(1, 2)), client.write(9, fill(1)), client.write(5, fill(2))) == (
        5,
        5,
        0,
    )
    assert client.read(4, 2)[1] == fill(1) + fill(2)
    assert bench.entries() == [Write("main", 4 * SECTOR, fill(1, 2)), Write("main", 2560, fill(2))]


def test_marks_stand_in_the_order_of_the_writes(bench: Bench) -> None:
    main, mark = bench.client("main"), bench.client("mark")
    main.write(0, fill(1))
    assert mark.write(0, b"acknowledged 1".ljust(SECTOR, b"\0")) == 0
    assert mark.flush() == 0
    assert mark.read(0) == (0, bytes(SECTOR))
    main.write(1, fill(2))
    assert bench.server.mark("from outside") == 3
    assert bench.server.length() == 4
    assert bench.entries() == [
        Write("main", 0, fill(1)),
        Mark("acknowledged 1"),
        Write("main", 512, fill(2)),
        Mark("from outside"),
    ]


def test_marks_from_many_threads(bench: Bench) -> None:
    client = bench.client("main")
    threads = [
        threading.Thread(target=lambda n=n: [bench.server.mark(f"{n}") for _ in range(50)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for n in range(100):
        assert client.write(n, fill(n)) == 0
    for thread in threads:
        thread.join()
    entries = bench.entries()
    assert len(entries) == 300
    written = [entry.offset for entry in entries if isinstance(entry, Write)]
    assert written == [n * SECTOR for n in range(100)]


def test_a_flush_does_not_cover_what_it_did_not_wait_for(bench: Bench) -> None:
    client = bench.client("main")
    client.write(0, fill(1))
    together = client.request(CMD_WRITE, 512, 512, fill(2)) + client.request(CMD_FLUSH)
    client.sock.sendall(together)
    assert [client.reply()[1] for _ in range(2)] == [0, 0]
    client.flush()
    entries = bench.entries()
    assert entries[2:] == [Flush("main", 1), Flush("main", 3)]
    with Log(bench.server.log_path) as log:
        assert durable(log, 3)["main"][:1536] == fill(1) + fill(0, 2)
        assert durable(log, 4)["main"][:1536] == fill(1) + fill(2) + fill(0)


def test_nor_when_they_come_over_two_connections(make_bench: Callable[[float], Bench]) -> None:
    bench = make_bench(0.5)
    one, two = bench.client("main"), bench.client("main")
    one.sock.sendall(one.request(CMD_WRITE, 0, 512, fill(1)))
    two.sock.sendall(two.request(CMD_FLUSH))
    assert (one.reply()[1], two.reply()[1]) == (0, 0)
    flush = next(entry for entry in bench.entries() if isinstance(entry, Flush))
    covered = set(range(flush.upto)) - flush.missed
    assert covered == set()


def test_a_client_that_does_not_read_holds_up_nobody(bench: Bench) -> None:
    lazy, busy = bench.client("main"), bench.client("spare")
    for _ in range(20):
        lazy.sock.sendall(lazy.request(CMD_READ, 0, SIZE))
    lazy.sock.sendall(lazy.request(CMD_WRITE, 0, 512, fill(1)))
    other = bench.client("main")
    for n in range(8):
        assert busy.write(n, fill(n)) == 0
    assert busy.flush() == 0
    assert other.flush() == 0
    spare, main = (entry for entry in bench.entries() if isinstance(entry, Flush))
    assert (spare.leg, spare.missed) == ("spare", frozenset())
    # The lazy client has not been told of its write, so main's flush is not known to cover it.
    written = next(
        n for n, e in enumerate(bench.entries()) if isinstance(e, Write) and e.leg == "main"
    )
    assert written in main.missed
    for _ in range(20):
        assert lazy.reply(SIZE)[1] == 0
    assert lazy.reply()[1] == 0
    assert other.flush() == 0
    last = bench.entries()[-1]
    assert isinstance(last, Flush)
    assert last.missed == frozenset()


def test_a_client_that_goes_away_in_the_middle(bench: Bench) -> None:
    client, other = bench.client("main"), bench.client("main")
    client.sock.sendall(client.request(CMD_WRITE, 0, 512, fill(1)[:100]))
    client.sock.close()
    assert other.write(1, fill(2)) == 0
    assert bench.entries() == [Write("main", 512, fill(2))]


# QEMU's own client


def qemu_io(bench: Bench, export: str, *commands: str) -> str:
    words = [word for command in commands for word in ("-c", command)]
    done = subprocess.run(
        ["qemu-io", "-f", "raw", "-t", "writeback", *words, bench.server.uri(export)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_qemu_sees_the_exports(bench: Bench) -> None:
    for export, size in (("main", SIZE), ("spare", SIZE), ("mark", 4096)):
        command = ["qemu-img", "info", "--output=json", "-f", "raw", bench.server.uri(export)]
        shown = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout
        assert json.loads(shown)["virtual-size"] == size


def test_qemu_passes_writes_fua_flushes_discards_and_zeroes(bench: Bench) -> None:
    shown = qemu_io(
        bench,
        "main",
        "write -P 1 0 4k",
        "write -f -P 2 4k 512",
        "flush",
        "write -z 0 1k",
        "write -z -f 1k 1k",
        "discard 64k 64k",
        "read -P 0 0 2k",
        "read -P 1 2k 2k",
        "read -P 2 4k 512",
    )
    assert "rror" not in shown
    assert "mismatch" not in shown
    entries = bench.entries()
    assert entries[:6] == [
        Write("main", 0, fill(1, 8)),
        Write("main", 4096, fill(2), fua=True),
        Flush("main", 2),
        Zeroes("main", 0, 1024),
        Zeroes("main", 1024, 1024, fua=True),
        Zeroes("main", 65536, 65536, discard=True),
    ]
    assert all(isinstance(entry, Flush) for entry in entries[6:])  # of closing it


def test_qemu_gets_errors_of_single_sectors(bench: Bench) -> None:
    bench.server.set_bad("main", reads=[3], writes=[5])
    commands = ("write 0 2k", "write 2k 1k", "read 0 1536", "read 1536 512", "write 2560 512")
    shown = qemu_io(bench, "main", *commands)
    lines = [line for line in shown.splitlines() if line.startswith(("read", "wrote", "write"))]
    assert [line.split(":")[0].split()[0] for line in lines] == [
        "wrote",
        "write",
        "read",
        "read",
        "write",
    ]
    assert [("Input/output error" in line) for line in lines] == [False, True, False, True, True]


def test_qemu_keeps_to_the_block_size(bench: Bench) -> None:
    shown = qemu_io(bench, "spare", "write -P 1 512 512", "read -P 1 512 512", "read -P 0 1k 3k")
    assert "mismatch" not in shown
    assert bench.entries()[0] == Write("spare", 0, fill(0) + fill(1) + fill(0, 6))


# The log's file


LEGS = {"main": 16 * SECTOR, "spare": 16 * SECTOR}


def make_log(path: Path, entries: list[Entry]) -> Log:
    writer = LogWriter(path, LEGS)
    assert [writer.append(entry) for entry in entries] == list(range(len(entries)))
    writer.close()
    return Log(path)


def w(leg: str, sector: int, byte: int, count: int = 1, *, fua: bool = False) -> Write:
    return Write(leg, sector * SECTOR, fill(byte, count), fua)


EVERYTHING: list[Entry] = [
    w("main", 0, 1, 3),
    w("spare", 1, 2, fua=True),
    Zeroes("main", 512, 1 << 40, fua=True),
    Zeroes("spare", 0, 512, discard=True),
    Flush("spare", 4, frozenset({0, 3})),
    Mark("schön"),
    Mark(""),
    Flush("main", 0),
]


def test_a_log_comes_back_as_it_was_written(tmp_path: Path) -> None:
    with make_log(tmp_path / "log", EVERYTHING) as log:
        assert log.legs == LEGS
        assert list(log) == EVERYTHING
        assert (log[2:4], log[-1], len(log)) == (EVERYTHING[2:4], EVERYTHING[-1], 8)
        assert cut_points(log) == [2, 3]


def test_a_log_ends_where_its_writer_was_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    make_log(path, EVERYTHING).close()
    whole = path.read_bytes()
    seen = set()
    for end in range(len(whole) - 100, len(whole)):
        path.write_bytes(whole[:end])
        with Log(path) as log:
            assert list(log) == EVERYTHING[: len(log)]
            seen.add(len(log))
    assert seen >= {5, 6, 7}


def test_a_log_that_is_damaged_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    make_log(path, EVERYTHING).close()
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with Log(path) as log, pytest.raises(LogError):
        list(log)
    path.write_bytes(b"x" * 100)
    with pytest.raises(LogError):
        Log(path)


# The replay


def states(path: Path, entries: list[Entry], leg: str = "main") -> list[str]:
    """Return the first sectors of a leg for sure after every cut, a digit each."""
    with make_log(path, entries) as log:
        return [digits(durable(log, cut)[leg]) for cut in range(len(log) + 1)]


def digits(image: bytes | Image, count: int = 4) -> str:
    parts = [image[n * SECTOR : (n + 1) * SECTOR] for n in range(count)]
    assert all(part == fill(part[0]) for part in parts)
    return "".join(str(part[0]) for part in parts)


def test_only_a_flush_makes_durable(tmp_path: Path) -> None:
    entries: list[Entry] = [w("main", 0, 1), w("main", 1, 2, 2), Flush("main", 2), w("main", 3, 3)]
    assert states(tmp_path / "log", entries) == ["0000", "0000", "0000", "1220", "1220"]


def test_a_flush_belongs_to_its_leg(tmp_path: Path) -> None:
    entries: list[Entry] = [
        w("main", 0, 1),
        w("spare", 0, 2),
        Flush("spare", 2),
        Flush("main", 3),
    ]
    assert states(tmp_path / "log", entries) == ["0000"] * 4 + ["1000"]
    assert states(tmp_path / "log", entries, "spare") == ["0000"] * 3 + ["2000"] * 2


def test_fua_makes_durable_itself_and_nothing_else(tmp_path: Path) -> None:
    entries: list[Entry] = [w("main", 0, 1), w("main", 1, 2, fua=True), Flush("main", 2)]
    assert states(tmp_path / "log", entries) == ["0000", "0000", "0200", "1200"]


def test_a_flush_makes_durable_what_it_covers(tmp_path: Path) -> None:
    entries: list[Entry] = [
        w("main", 0, 1),
        w("main", 1, 2),
        w("main", 2, 3),
        Flush("main", 2, frozenset({0})),
        Flush("main", 4),
    ]
    assert states(tmp_path / "log", entries)[3:] == ["0000", "0200", "1230"]


def test_discards_and_zeroes(tmp_path: Path) -> None:
    entries: list[Entry] = [
        w("main", 0, 1, 4, fua=True),
        Zeroes("main", 0, 512, discard=True),
        Zeroes("main", 512, 512, fua=True),
        Flush("main", 3),
    ]
    assert states(tmp_path / "log", entries)[1:] == ["1111", "1111", "1011", "0011"]


def test_an_earlier_survivor_never_lies_over_what_is_durable(tmp_path: Path) -> None:
    entries: list[Entry] = [w("main", 0, 1, 4), w("main", 1, 2, 2, fua=True), w("main", 2, 3)]
    with make_log(tmp_path / "log", entries) as log:
        replay = Replay.of(log)
        replay.advance(3)
        assert replay.pending("main") == [0, 2]
        assert replay.pending("spare") == []
        seen = {}
        for extra in ((), (0,), (2,), (2, 0)):
            with replay.survivors(extra):
                seen[extra] = digits(replay.images["main"])
        assert seen == {(): "0220", (0,): "1221", (2,): "0230", (2, 0): "1231"}
        assert digits(replay.images["main"]) == "0220"


def test_what_is_wholly_overwritten_is_not_pending(tmp_path: Path) -> None:
    entries: list[Entry] = [w("main", 1, 1), w("main", 0, 2, 3, fua=True)]
    with make_log(tmp_path / "log", entries) as log:
        replay = Replay.of(log)
        replay.advance(1)
        assert replay.pending() == [0]
        replay.advance(2)
        assert replay.pending() == []
        with pytest.raises(ValueError, match="go back"):
            replay.advance(1)


def test_a_torn_write_is_torn_at_sectors(tmp_path: Path) -> None:
    with make_log(tmp_path / "log", [w("main", 0, 1, 4)]) as log:
        replay = Replay.of(log)
        replay.advance(1)
        rng = random.Random(1)
        whole, torn = set(), set()
        for _ in range(200):
            with replay.survivors(rng):
                whole.add(digits(replay.images["main"]))
            with replay.survivors(rng, torn=True):
                torn.add(digits(replay.images["main"]))
        assert whole == {"0000", "1111"}
        assert torn == {f"{n:04b}" for n in range(16)}


def test_marks_before_the_next_durability_point_are_promised(tmp_path: Path) -> None:
    entries: list[Entry] = [
        w("main", 0, 1, fua=True),
        Mark("1 is safe"),
        w("main", 1, 2),
        Mark("2 is safe, which is a lie"),
        Flush("main", 4),
        Mark("3"),
    ]
    with make_log(tmp_path / "log", entries) as log:
        replay = Replay.of(log)
        assert cut_points(log) == [1, 5]
        assert replay.promised() == []
        replay.advance(1)
        assert [mark.text[0] for mark in replay.promised()] == ["1", "2"]
        assert digits(replay.images["main"]) == "1000"  # so the lie is found at this cut
        replay.advance(5)
        assert [mark.text[0] for mark in replay.promised()] == ["1", "2", "3"]


def test_cut_points_are_where_the_certain_content_changes(tmp_path: Path) -> None:
    entries: list[Entry] = [
        Flush("main", 0),
        w("main", 0, 1),
        Flush("spare", 2),
        Flush("main", 1),
        Flush("main", 2, frozenset({1})),
        Mark("a promise that only the next flush makes true"),
        Flush("main", 6),
        Mark("a promise"),
        Flush("main", 8),
        w("main", 1, 2, fua=True),
    ]
    with make_log(tmp_path / "log", entries) as log:
        assert cut_points(log) == [7, 10]
        replay = Replay.of(log)
        assert len(replay.promised()) == 1
        replay.advance(7)
        assert len(replay.promised()) == 2


def test_images_in_files(tmp_path: Path) -> None:
    entries: list[Entry] = [w("main", 1, 1, fua=True), w("spare", 2, 2), w("main", 3, 3)]
    file = tmp_path / "main.img"
    file.write_bytes(fill(9, 16))
    with (
        make_log(tmp_path / "log", entries) as log,
        file.open("r+b") as opened,
        mmap.mmap(opened.fileno(), 0) as mapped,
    ):
        replay = Replay(log, {"main": mapped, "spare": bytearray(16 * SECTOR)})
        replay.advance(3)
        assert digits(file.read_bytes()) == "9199"
        targets = {"main": tmp_path / "a", "spare": tmp_path / "b"}
        replay.copies(targets, (1,))
        assert digits(targets["main"].read_bytes()) == "9199"
        assert digits(targets["spare"].read_bytes()) == "0020"
        assert targets["spare"].stat().st_size == 16 * SECTOR
        replay.copy("main", targets["main"], (2,))
        assert digits(targets["main"].read_bytes()) == "9193"
        assert digits(file.read_bytes()) == "9199"


def random_log(rng: Random, length: int) -> list[Entry]:
    entries: list[Entry] = []
    for index in range(length):
        leg = rng.choice(("main", "spare"))
        kind = rng.random()
        sector = rng.randrange(12)
        count = rng.randrange(1, 5)
        fua = rng.random() < 0.2
        if kind < 0.7:
            entries.append(w(leg, sector, 1 + index % 255, count, fua=fua))
        elif kind < 0.8:
            entries.append(Zeroes(leg, sector * SECTOR, count * SECTOR, fua, rng.random() < 0.5))
        else:
            upto = index - rng.choice((0, 0, 1, 2)) if index > 2 else index
            missed = frozenset(n for n in range(max(0, upto - 3), upto) if rng.random() < 0.3)
            entries.append(Flush(leg, upto, missed))
    return entries


def oracle(entries: list[Entry], cut: int, leg: str, extra: set[int]) -> bytes:
    """Say it in another way: a sector has the last write of it that is durable or survived."""
    safe = set(extra)
    for index, entry in enumerate(entries[:cut]):
        if isinstance(entry, Write | Zeroes) and entry.fua:
            safe.add(index)
        if isinstance(entry, Flush):
            for n in set(range(entry.upto)) - entry.missed:
                earlier = entries[n]
                if isinstance(earlier, Write | Zeroes) and earlier.leg == entry.leg:
                    safe.add(n)
    image = bytearray(LEGS[leg])
    for index in sorted(safe):
        entry = entries[index]
        assert isinstance(entry, Write | Zeroes)
        if entry.leg == leg:
            data = entry.data if isinstance(entry, Write) else bytes(entry.length)
            image[entry.offset : entry.offset + len(data)] = data
    return bytes(image)


@pytest.mark.parametrize("seed", range(30))
def test_random_logs_against_an_oracle(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    entries = random_log(rng, 60)
    with make_log(tmp_path / "log", entries) as log:
        replay = Replay.of(log)
        points = cut_points(log)
        for cut in range(len(entries) + 1):
            before = {leg: bytes(image) for leg, image in replay.images.items()}
            replay.advance(cut)
            if cut not in points:
                assert {leg: bytes(image) for leg, image in replay.images.items()} == before
            pending = replay.pending()
            for chosen in ([], pending, [n for n in pending if rng.random() < 0.5]):
                with replay.survivors(chosen):
                    for leg in LEGS:
                        assert bytes(replay.images[leg]) == oracle(entries, cut, leg, set(chosen))
