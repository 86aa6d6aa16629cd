# SPDX-License-Identifier: GPL-2.0-only
"""A network block device server that logs what reaches its disks.

It serves disks (*legs*) and one tiny export ``mark`` on a unix socket and on a TCP port of
127.0.0.1, and keeps the log that ``powercut.log`` replays. The protocol is NBD's fixed newstyle
handshake with simple replies.

A guest whose FUA writes matter uses its kernel's own NBD client (``guest.lib.nbd_device``), which
passes everything on as it is. A disk of QEMU's on this server does not: as of version 7.2 QEMU's
scsi-disk does FUA as a write and a flush of the whole disk, its virtio-blk has no FUA at all, and
a blkdebug node in between doubles each flush. All that makes more durable than the guest asked for.

What makes the log's order true: one thread does all commands of all connections, one after the
other. An entry is in the log before its reply leaves. A flush is logged with what it covers: the
writes whose replies had been handed to the socket before the bytes of the flush request were
taken from it. Requests that wait in sockets are taken before replies go out, and ``linger`` waits
for more: so a client that sends a flush without waiting for its writes is not given more than a
disk would.

A guest that writes 512 bytes to the export ``mark`` puts a mark with this text (up to the first
NUL) in the log; when that write returns, the mark stands behind all that the guest had been
answered before.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import threading
from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from random import Random
from typing import TYPE_CHECKING, Protocol, Self

from powercut.log import SECTOR, Flush, LogWriter, Mark, Write, Zeroes

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from pathlib import Path
    from types import TracebackType

MARK_EXPORT = "mark"
MARK_SIZE = 4096
MAX_PAYLOAD = 32 * 1024 * 1024

NBD_MAGIC = b"NBDMAGIC"
OPTION_MAGIC = b"IHAVEOPT"
OPTION_REPLY_MAGIC = 0x0003E889045565A9
REQUEST_MAGIC = 0x25609513
REPLY_MAGIC = 0x67446698

FIXED_NEWSTYLE, NO_ZEROES = 1, 2
REP_ACK, REP_SERVER, REP_INFO = 1, 2, 3
REP_ERR_UNSUP, REP_ERR_INVALID, REP_ERR_UNKNOWN = 0x80000001, 0x80000003, 0x80000006
INFO_EXPORT, INFO_BLOCK_SIZE = 0, 3
HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES = 1, 4, 8, 32, 64
EXPORT_FLAGS = HAS_FLAGS | SEND_FLUSH | SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES
CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_TRIM, CMD_WRITE_ZEROES = 0, 1, 2, 3, 4, 6
CMD_FLAG_FUA = 1
OK, EIO, EINVAL, ENOSPC = 0, 5, 22, 28

_REQUEST = struct.Struct(">IHHQQI")
_REPLY = struct.Struct(">IIQ")


class Option(IntEnum):
    """What a client may ask for in the handshake."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    INFO = 6
    GO = 7


class _Reply(Protocol):
    def __call__(self, kind: int, content: bytes = b"") -> None: ...


class ProtocolError(Exception):
    """A client said something that leaves no way to go on with it."""


@dataclass
class Export:
    """A disk: a name, the file that holds it, and the sectors of 512 bytes that fail."""

    name: str
    image: Path
    block_size: int = SECTOR
    bad_reads: frozenset[int] = frozenset()
    bad_writes: frozenset[int] = frozenset()
    taken: frozenset[int] = frozenset()
    """Of the bad ones, those that a write changes although it fails."""
    partly: Random | None = None
    """Chooses the sectors that another write changes although it fails; None: there are none."""
    fd: int = field(default=-1, init=False, repr=False)
    size: int = field(default=0, init=False)
    unanswered: set[int] = field(default_factory=set, init=False, repr=False)
    """Indexes of the writes whose replies have not left yet."""

    def open(self) -> None:
        """Open the file."""
        self.fd = os.open(self.image, os.O_RDWR | os.O_CLOEXEC)
        self.size = os.fstat(self.fd).st_size

    def close(self) -> None:
        """Close the file."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def fails(self, bad: frozenset[int], offset: int, length: int) -> bool:
        """Say whether a range overlaps bad sectors."""
        sectors = range(offset // SECTOR, (offset + length + SECTOR - 1) // SECTOR)
        return bool(bad) and not bad.isdisjoint(sectors)


@dataclass(frozen=True)
class _Arrival:
    """What had been answered when bytes came in: for each leg, all but these, below ``upto``."""

    end: int
    upto: int
    unanswered: dict[str, frozenset[int]]


class _Connection:
    """A client: bytes in, a generator that takes them, bytes out."""

    def __init__(self, server: PowerCutServer, sock: socket.socket) -> None:
        self.sock = sock
        self.input = bytearray()
        self.output = bytearray()
        self.received = 0
        self.consumed = 0
        self.queued = 0
        self.sent = 0
        self.arrivals: deque[_Arrival] = deque()
        self.answers: deque[tuple[int, Export, int]] = deque()
        self.closing = False
        self._session = server.session(self)
        self._wanted = next(self._session)

    def feed(self, data: bytes, upto: int, legs: Iterable[Export]) -> None:
        """Take bytes from the client, and note what it had been answered by then."""
        self.input += data
        self.received += len(data)
        unanswered = {leg.name: frozenset(leg.unanswered) for leg in legs if leg.unanswered}
        self.arrivals.append(_Arrival(self.received, upto, unanswered))

    def step(self) -> bool:
        """Do one thing if all bytes of it are there."""
        if self.closing or len(self.input) < self._wanted:
            return False
        data = bytes(self.input[: self._wanted])
        del self.input[: self._wanted]
        self.consumed += len(data)
        try:
            self._wanted = self._session.send(data)
        except (StopIteration, ProtocolError):
            self.closing = True
        return True

    def arrival(self) -> _Arrival:
        """Return what had been answered when the last byte that was consumed came in."""
        while self.arrivals[0].end < self.consumed:
            self.arrivals.popleft()
        return self.arrivals[0]

    def put(self, data: bytes) -> None:
        """Queue bytes for the client."""
        self.output += data
        self.queued += len(data)

    def answers_write(self, leg: Export, index: int) -> None:
        """Note that what has been queued last is the reply to a logged write."""
        self.answers.append((self.queued, leg, index))

    def send(self) -> None:
        """Send what the socket takes."""
        try:
            sent = self.sock.send(self.output)
        except BlockingIOError:
            return
        del self.output[:sent]
        self.sent += sent
        while self.answers and self.answers[0][0] <= self.sent:
            _, leg, index = self.answers.popleft()
            leg.unanswered.discard(index)

    def forget(self) -> None:
        """Close the socket. Its writes were done though nobody was told: flushes cover them."""
        for _, leg, index in self.answers:
            leg.unanswered.discard(index)
        self._session.close()
        self.sock.close()


class PowerCutServer:
    """The server. A context manager: it serves from a thread while the block runs.

    Methods may be called from any thread.
    """

    def __init__(
        self, socket_path: Path, log_path: Path, legs: Sequence[Export], *, linger: float = 0.0
    ) -> None:
        """Prepare to serve ``legs``. ``linger`` is in seconds: see the top of this file."""
        self.socket_path = socket_path
        self.log_path = log_path
        self.legs = {leg.name: leg for leg in legs}
        self.linger = linger
        if MARK_EXPORT in self.legs or len(self.legs) != len(legs):
            raise ValueError("every leg has a name of its own, and none is called 'mark'")
        self._lock = threading.Lock()  # the log, the images and the bad sectors
        self._connections: dict[socket.socket, _Connection] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start to serve."""
        for leg in self.legs.values():
            leg.open()
        self._log = LogWriter(self.log_path, {leg.name: leg.size for leg in self.legs.values()})
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        local.bind(os.fspath(self.socket_path))
        tcp = socket.create_server(("127.0.0.1", 0))
        self.port: int = tcp.getsockname()[1]
        self._listeners = (local, tcp)
        self._wake, self._waker = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        for listener in self._listeners:
            listener.listen()
            listener.settimeout(0)
            self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="powercut", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop, as a disk whose power is cut: what has not been answered will not be.

        Raises what the server's thread has died of, if it has.
        """
        if self._thread is None:
            return
        self._waker.send(b"x")
        self._thread.join()
        self._thread = None
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._selector.close()
        for sock in (*self._listeners, self._wake, self._waker):
            sock.close()
        self.socket_path.unlink(missing_ok=True)
        self._log.close()
        for leg in self.legs.values():
            leg.close()
        if self._error:
            raise self._error

    def uri(self, export: str) -> str:
        """Return the address of an export as qemu-img and qemu-io take it."""
        return f"nbd+unix:///{export}?socket={self.socket_path}"

    def blockdev(self, export: str, node_name: str) -> dict[str, object]:
        """Return the arguments of QEMU's -blockdev for an export."""
        return {
            "node-name": node_name,
            "driver": "nbd",
            "server": {"type": "unix", "path": os.fspath(self.socket_path)},
            "export": export,
        }

    def mark(self, text: str) -> int:
        """Put a mark in the log, behind all that is there by now, and return its index."""
        with self._lock:
            return self._log.append(Mark(text))

    def length(self) -> int:
        """Return how many entries the log has by now."""
        with self._lock:
            return len(self._log)

    def set_bad(
        self,
        leg: str,
        *,
        reads: Iterable[int] | None = None,
        writes: Iterable[int] | None = None,
        taken: Iterable[int] | None = None,
    ) -> None:
        """Set which sectors of a leg fail from now on; None leaves them as they are."""
        with self._lock:
            if reads is not None:
                self.legs[leg].bad_reads = frozenset(reads)
            if writes is not None:
                self.legs[leg].bad_writes = frozenset(writes)
            if taken is not None:
                self.legs[leg].taken = frozenset(taken)

    def destroy(self, leg: str, offset: int, data: bytes) -> None:
        """Have the medium hold something else from now on, without a command."""
        with self._lock:
            _write(self.legs[leg].fd, offset, data)
            self._log.append(Write(leg, offset, data, fua=True))

    # The server's thread

    def _serve(self) -> None:
        try:
            while self._receive(None):
                while self._execute():
                    # Before the replies leave: what waits was sent without them.
                    if not self._receive(self.linger):
                        return
                self._send()
        except BaseException as error:  # noqa: BLE001 - stop() raises it
            self._error = error
            for connection in list(self._connections.values()):
                self._drop(connection)

    def _receive(self, timeout: float | None) -> bool:
        """Take what the sockets hold, or wait for it. Returns False to stop."""
        for key, events in self._selector.select(timeout):
            if key.fileobj is self._wake:
                return False
            if key.data is None:
                self._accept(key.fileobj)
                continue
            connection: _Connection = key.data
            if events & selectors.EVENT_READ:
                self._take(connection)
        return True

    def _accept(self, listener: object) -> None:
        assert isinstance(listener, socket.socket)
        sock, _ = listener.accept()
        sock.settimeout(0)
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(self, sock)
        self._connections[sock] = connection
        self._selector.register(sock, selectors.EVENT_READ, connection)

    def _take(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(1 << 20)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self._drop(connection)
            return
        with self._lock:
            connection.feed(data, len(self._log), self.legs.values())

    def _drop(self, connection: _Connection) -> None:
        if self._connections.pop(connection.sock, None):
            self._selector.unregister(connection.sock)
            connection.forget()

    def _execute(self) -> bool:
        """Do all that has come in. Returns whether there was anything."""
        done = False
        for connection in list(self._connections.values()):
            while connection.step():
                done = True
        return done

    def _send(self) -> None:
        for connection in list(self._connections.values()):
            try:
                if connection.output:
                    connection.send()
            except ConnectionError:
                self._drop(connection)
                continue
            if connection.closing and not connection.output:
                self._drop(connection)
                continue
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.output else 0)
            self._selector.modify(connection.sock, events, connection)

    # A client's session: a generator that yields how many bytes it wants next

    def session(self, client: _Connection) -> Generator[int, bytes, None]:
        """Talk to one client, first the handshake, then commands."""
        client.put(NBD_MAGIC + OPTION_MAGIC + struct.pack(">H", FIXED_NEWSTYLE | NO_ZEROES))
        flags = int.from_bytes((yield 4), "big")
        while True:
            header = yield 16
            option, length = struct.unpack(">II", header[8:])
            if not header.startswith(OPTION_MAGIC) or length > 65536:
                raise ProtocolError("not an option")
            name = self._option(client, option, (yield length), with_zeroes=not flags & NO_ZEROES)
            if name is not None:
                break
        while True:
            yield from self._command(client, name)

    def _option(
        self, client: _Connection, option: int, data: bytes, *, with_zeroes: bool
    ) -> str | None:
        """Answer an option. Returns the export's name when transmission begins."""

        def reply(kind: int, content: bytes = b"") -> None:
            header = struct.pack(">QIII", OPTION_REPLY_MAGIC, option, kind, len(content))
            client.put(header + content)

        match option:
            case Option.EXPORT_NAME:  # which knows no refusal
                name = data.decode(errors="replace")
                if name not in self._names():
                    raise ProtocolError(f"no export {name}")
                client.put(struct.pack(">QH", self._size(name), EXPORT_FLAGS))
                client.put(bytes(124 if with_zeroes else 0))
                return name
            case Option.ABORT:
                reply(REP_ACK)
                raise ProtocolError("the client has left")
            case Option.LIST:
                for name in self._names():
                    reply(REP_SERVER, struct.pack(">I", len(name)) + name.encode())
                reply(REP_ACK)
            case Option.INFO | Option.GO:
                return self._go(reply, option, data)
            case _:
                reply(REP_ERR_UNSUP)
        return None

    def _go(self, reply: _Reply, option: int, data: bytes) -> str | None:
        length = int.from_bytes(data[:4], "big")
        if len(data) < 6 + length:
            reply(REP_ERR_INVALID)
            return None
        name = data[4 : 4 + length].decode(errors="replace")
        if name not in self._names():
            reply(REP_ERR_UNKNOWN)
            return None
        block_size = self.legs[name].block_size if name in self.legs else SECTOR
        reply(REP_INFO, struct.pack(">HQH", INFO_EXPORT, self._size(name), EXPORT_FLAGS))
        sizes = (block_size, max(4096, block_size), MAX_PAYLOAD)
        reply(REP_INFO, struct.pack(">HIII", INFO_BLOCK_SIZE, *sizes))
        reply(REP_ACK)
        return name if option == Option.GO else None

    def _names(self) -> list[str]:
        return [*self.legs, MARK_EXPORT]

    def _size(self, name: str) -> int:
        return self.legs[name].size if name in self.legs else MARK_SIZE

    def _command(self, client: _Connection, name: str) -> Generator[int, bytes, None]:
        magic, flags, command, cookie, offset, length = _REQUEST.unpack((yield _REQUEST.size))
        if magic != REQUEST_MAGIC or (command in (CMD_READ, CMD_WRITE) and length > MAX_PAYLOAD):
            raise ProtocolError("not a request")
        if command == CMD_DISC:
            raise ProtocolError("the client has left")
        arrival = client.arrival()
        payload = (yield length) if command == CMD_WRITE and length else b""
        fua = bool(flags & CMD_FLAG_FUA)
        leg = self.legs.get(name)
        data, indexes = b"", list[int]()
        with self._lock:
            if command != CMD_FLUSH and offset + length > self._size(name):
                error = EINVAL if command == CMD_READ else ENOSPC
            elif leg is None:
                error, data = self._do_mark(command, length, payload)
            elif command == CMD_READ:
                error, data = self._read(leg, offset, length)
            elif command == CMD_FLUSH:
                missed = arrival.unanswered.get(leg.name, frozenset())
                self._log.append(Flush(leg.name, arrival.upto, missed))
                error = OK
            elif command in (CMD_WRITE, CMD_TRIM, CMD_WRITE_ZEROES):
                change = (
                    Write(leg.name, offset, payload, fua)
                    if command == CMD_WRITE
                    else Zeroes(leg.name, offset, length, fua, command == CMD_TRIM)
                )
                error, indexes = self._change(leg, change)
            else:
                error = EINVAL
        client.put(_REPLY.pack(REPLY_MAGIC, error, cookie) + data)
        if leg is not None:
            for index in indexes:
                client.answers_write(leg, index)

    def _do_mark(self, command: int, length: int, payload: bytes) -> tuple[int, bytes]:
        if command == CMD_WRITE:
            self._log.append(Mark(payload.split(b"\0", 1)[0].decode(errors="replace")))
        return OK, bytes(length) if command == CMD_READ else b""

    def _read(self, leg: Export, offset: int, length: int) -> tuple[int, bytes]:
        if leg.fails(leg.bad_reads, offset, length):
            return EIO, b""
        return OK, os.pread(leg.fd, length, offset)

    def _change(self, leg: Export, change: Write | Zeroes) -> tuple[int, list[int]]:
        """Write, zero or discard.

        What fails is not done at all and not logged, unless it touches a sector that is taken:
        then it is done and logged, and an error all the same. Or some sectors of it are.
        """
        discard = isinstance(change, Zeroes) and change.discard
        length = len(change.data) if isinstance(change, Write) else change.length
        error = OK
        if not discard and leg.fails(leg.bad_writes, change.offset, length):
            if not leg.fails(leg.taken, change.offset, length):
                return EIO, self._take_some(leg, change)
            error = EIO
        if isinstance(change, Write):
            _write(leg.fd, change.offset, change.data)
        else:
            for start in range(change.offset, change.offset + length, 1 << 20):
                end = min(start + (1 << 20), change.offset + length)
                _write(leg.fd, start, bytes(end - start))
        index = self._log.append(change)
        leg.unanswered.add(index)
        return error, [index]

    def _take_some(self, leg: Export, change: Write | Zeroes) -> list[int]:
        """Write some sectors of what fails."""
        indexes = []
        data = change.data if isinstance(change, Write) else b""
        for start in range(0, len(data), SECTOR):
            if leg.partly and leg.partly.random() < 0.5:
                part = data[start : start + SECTOR]
                _write(leg.fd, change.offset + start, part)
                entry = Write(leg.name, change.offset + start, part, change.fua)
                indexes.append(self._log.append(entry))
        leg.unanswered.update(indexes)
        return indexes


def _write(fd: int, offset: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        done = os.pwrite(fd, rest, offset)
        rest, offset = rest[done:], offset + done
