# SPDX-License-Identifier: GPL-2.0-only
"""The log of what reached the disks, and the disks' content after a power cut.

The log holds, in the one order in which the server did them, the writes, discards, zeroings and
flushes of all disks (*legs*), and *marks*: words of the test about what it has been promised.
Offsets and lengths are bytes; an *index* is an entry's place in the log, and a *cut* at index
``n`` means that entries 0 to n - 1 have been done and the others never arrived.

The model is a disk with a volatile write cache. At a cut a leg has for certain what its last
flushes have covered and what was written with FUA. Of the rest, each write may have survived or
not, whatever the others did: in whole or, sectors being what a disk writes, in part. A survivor
never lies over something that was written later and is durable.

What a flush covers is part of its entry: the writes of its own leg that the server had answered
before the request to flush came in. A write that was still under way then is not covered, even if
it stands before the flush.
"""

from __future__ import annotations

import itertools
import json
import os
import struct
import zlib
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import takewhile
from mmap import mmap
from random import Random
from typing import TYPE_CHECKING, Self, overload

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

SECTOR = 512


@dataclass(frozen=True)
class Write:
    """Data that was written to a leg."""

    leg: str
    offset: int
    data: bytes = field(repr=False)
    fua: bool = False


@dataclass(frozen=True)
class Zeroes:
    """A range that was zeroed, or discarded, after which it reads as zeroes too."""

    leg: str
    offset: int
    length: int
    fua: bool = False
    discard: bool = False


@dataclass(frozen=True)
class Flush:
    """A flush of one leg: of its writes before index ``upto``, those in ``missed`` apart."""

    leg: str
    upto: int
    missed: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Mark:
    """A word of the test."""

    text: str


Entry = Write | Zeroes | Flush | Mark
Change = Write | Zeroes


# The file: a header, then records, each with a checksum over the record and its payload.

_HEADER = struct.Struct("<8sI")
_MAGIC = b"PWRCUT\x00\x01"
_RECORD = struct.Struct("<IBBHQQI")  # checksum, kind, flags, leg, offset, length, payload size
_CHECKSUM = 4
_FUA, _DISCARD = 1, 2


class _Kind(IntEnum):
    WRITE = 1
    ZEROES = 2
    FLUSH = 3
    MARK = 4


class LogError(Exception):
    """A file that is not a log, or not one any more."""


def _encode(entry: Entry, legs: Sequence[str]) -> bytes:
    flags = leg = offset = length = 0
    payload = b""
    match entry:
        case Write():
            kind, leg, offset, payload = (
                _Kind.WRITE,
                legs.index(entry.leg),
                entry.offset,
                entry.data,
            )
            flags = _FUA if entry.fua else 0
        case Zeroes():
            kind, leg, offset, length = (
                _Kind.ZEROES,
                legs.index(entry.leg),
                entry.offset,
                entry.length,
            )
            flags = (_FUA if entry.fua else 0) | (_DISCARD if entry.discard else 0)
        case Flush():
            kind, leg, offset = _Kind.FLUSH, legs.index(entry.leg), entry.upto
            payload = struct.pack(f"<{len(entry.missed)}Q", *sorted(entry.missed))
        case Mark():
            kind, payload = _Kind.MARK, entry.text.encode()
    record = _RECORD.pack(0, kind, flags, leg, offset, length, len(payload))[_CHECKSUM:] + payload
    return struct.pack("<I", zlib.crc32(record)) + record


def _decode(record: bytes, legs: Sequence[str]) -> Entry:
    checksum, kind, flags, leg, offset, length, _ = _RECORD.unpack_from(record)
    payload = record[_RECORD.size :]
    if zlib.crc32(record[_CHECKSUM:]) != checksum:
        raise LogError("a record with a wrong checksum")
    fua = bool(flags & _FUA)
    match kind:
        case _Kind.WRITE:
            return Write(legs[leg], offset, payload, fua)
        case _Kind.ZEROES:
            return Zeroes(legs[leg], offset, length, fua, bool(flags & _DISCARD))
        case _Kind.FLUSH:
            missed = struct.unpack(f"<{len(payload) // 8}Q", payload)
            return Flush(legs[leg], offset, frozenset(missed))
        case _Kind.MARK:
            return Mark(payload.decode(errors="replace"))
    raise LogError(f"a record of unknown kind {kind}")


class LogWriter:
    """Writes a log. Not thread-safe: the server has a lock."""

    def __init__(self, path: Path, legs: Mapping[str, int]) -> None:
        """Start a log of legs, given with their sizes."""
        self._legs = tuple(legs)
        self._file = path.open("wb", buffering=0)
        self._length = 0
        header = json.dumps({"legs": dict(legs)}).encode()
        self._file.write(_HEADER.pack(_MAGIC, len(header)) + header)

    def __len__(self) -> int:
        return self._length

    def append(self, entry: Entry) -> int:
        """Add an entry and return its index."""
        record = memoryview(_encode(entry, self._legs))
        while record:
            record = record[self._file.write(record) or 0 :]
        self._length += 1
        return self._length - 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Log(Sequence[Entry]):
    """A log that is read. Its end is the last record that is whole when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb")
        try:
            self._places = list(self._scan())
        except BaseException:
            self._file.close()
            raise

    def _scan(self) -> Iterator[tuple[int, int]]:
        start = self._file.read(_HEADER.size)
        if len(start) < _HEADER.size or not start.startswith(_MAGIC):
            raise LogError(f"{self.path} is not a log of writes")
        size = _HEADER.unpack(start)[1]
        self.legs: dict[str, int] = json.loads(self._file.read(size))["legs"]
        self._names = tuple(self.legs)
        place, end = _HEADER.size + size, os.fstat(self._file.fileno()).st_size
        while place + _RECORD.size <= end:
            self._file.seek(place)
            length = _RECORD.size + _RECORD.unpack(self._file.read(_RECORD.size))[-1]
            if place + length > end:
                return
            yield place, length
            place += length

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        place, length = self._places[index]
        return _decode(os.pread(self._file.fileno(), length, place), self._names)

    def __iter__(self) -> Iterator[Entry]:
        return (self[index] for index in range(len(self)))


def cut_points(log: Iterable[Entry]) -> list[int]:
    """Return the cuts at which the certain content of a leg has changed.

    That is after every FUA write, and after every flush that covers a write which no flush before
    it has covered. Between two of them the content stays as it is, but promises are made: see
    Replay.promised().
    """
    points = []
    pending: dict[str, set[int]] = {}
    for index, entry in enumerate(log):
        match entry:
            case Write() | Zeroes():
                if entry.fua:
                    points.append(index + 1)
                else:
                    pending.setdefault(entry.leg, set()).add(index)
            case Flush():
                waiting = pending.get(entry.leg, set())
                covered = {n for n in waiting if n < entry.upto} - entry.missed
                if covered:
                    waiting -= covered
                    points.append(index + 1)
    return points


@dataclass
class _Piece:
    """A part of a write that nothing durable has been laid over."""

    offset: int
    data: bytes

    @property
    def end(self) -> int:
        return self.offset + len(self.data)

    def without(self, start: int, end: int) -> list[_Piece]:
        """Return what is left of it without the bytes from start to end."""
        if end <= self.offset or start >= self.end:
            return [self]
        left = _Piece(self.offset, self.data[: max(0, start - self.offset)])
        right = _Piece(end, self.data[end - self.offset :] if end < self.end else b"")
        return [piece for piece in (left, right) if piece.data]

    def sectors(self) -> list[_Piece]:
        """Return it cut at the sectors of the disk."""
        edges = [
            self.offset,
            *range((self.offset // SECTOR + 1) * SECTOR, self.end, SECTOR),
            self.end,
        ]
        return [
            _Piece(start, self.data[start - self.offset : end - self.offset])
            for start, end in itertools.pairwise(edges)
        ]


def _piece(change: Change) -> _Piece:
    data = change.data if isinstance(change, Write) else bytes(change.length)
    return _Piece(change.offset, data)


Image = bytearray | mmap


class Replay:
    """The disks' content as the log is gone through, cut by cut.

    ``images`` is what is certain at the current cut. The buffers are changed in place: bytearrays,
    or memory maps of files that a machine is then booted with. They start as what the disks held
    before the log did, or empty.
    """

    def __init__(self, log: Sequence[Entry], images: Mapping[str, Image]) -> None:
        self.log = log
        self.images = dict(images)
        self.cut = 0
        self._points = cut_points(log)
        self._marks = [(n, entry) for n, entry in enumerate(log) if isinstance(entry, Mark)]
        self._pending: dict[int, tuple[str, list[_Piece]]] = {}  # by index, ascending

    @classmethod
    def of(cls, log: Log) -> Self:
        """Start a replay on empty disks, in memory."""
        return cls(log, {leg: bytearray(size) for leg, size in log.legs.items()})

    def advance(self, cut: int) -> None:
        """Go on to a later cut."""
        if cut < self.cut:
            raise ValueError(f"the replay is at {self.cut}, it cannot go back to {cut}")
        for index in range(self.cut, cut):
            self._do(index, self.log[index])
        self.cut = cut

    def _do(self, index: int, entry: Entry) -> None:
        match entry:
            case Write() | Zeroes():
                self._pending[index] = (entry.leg, [_piece(entry)])
                if entry.fua:
                    self._settle(index)
            case Flush():
                for earlier in list(self._pending):
                    covered = earlier < entry.upto and earlier not in entry.missed
                    if covered and self._pending[earlier][0] == entry.leg:
                        self._settle(earlier)

    def _settle(self, index: int) -> None:
        """Make a pending write durable. Earlier ones lose what it lies over."""
        leg, pieces = self._pending.pop(index)
        for piece in pieces:
            self.images[leg][piece.offset : piece.end] = piece.data
        for earlier in list(takewhile(lambda n: n < index, self._pending)):
            other, left = self._pending[earlier]
            if other != leg:
                continue
            for piece in pieces:
                left = [rest for part in left for rest in part.without(piece.offset, piece.end)]
            if left:
                self._pending[earlier] = (other, left)
            else:
                del self._pending[earlier]

    def promised(self) -> list[Mark]:
        """Return the marks that this cut must honour: those before the certain content changes.

        A cut just before that leaves the same content as this one, and by then these marks have
        been made. Only so is a promise found that was made before its flush.
        """
        later = bisect_right(self._points, self.cut)
        # The entry before the point is what changes the content.
        end = self._points[later] - 1 if later < len(self._points) else len(self.log)
        return [mark for index, mark in self._marks if index < end]

    def pending(self, leg: str | None = None) -> list[int]:
        """Return the indexes of the writes that may or may not have survived this cut."""
        return [n for n, (name, _) in self._pending.items() if leg in (None, name)]

    def _chosen(
        self, extra: Collection[int] | Random, *, torn: bool
    ) -> Iterator[tuple[str, _Piece]]:
        for index in self.pending():
            leg, pieces = self._pending[index]
            if not isinstance(extra, Random):
                yield from ((leg, piece) for piece in pieces if index in extra)
                continue
            if torn:
                pieces = [sector for piece in pieces for sector in piece.sectors()]
                yield from ((leg, piece) for piece in pieces if extra.random() < 0.5)
            elif extra.random() < 0.5:
                yield from ((leg, piece) for piece in pieces)

    @contextmanager
    def survivors(self, extra: Collection[int] | Random, *, torn: bool = False) -> Iterator[Self]:
        """Have ``images`` with some pending writes in them while the block runs.

        ``extra`` is the indexes of the writes that survived, or a generator that chooses; then,
        with ``torn``, it chooses sector by sector. A block that changes the images itself, by
        running a machine on them, works on a copy instead: see copy().
        """
        undo: list[tuple[Image, int, bytes]] = []
        for leg, piece in self._chosen(extra, torn=torn):
            image = self.images[leg]
            undo.append((image, piece.offset, bytes(image[piece.offset : piece.end])))
            image[piece.offset : piece.end] = piece.data
        try:
            yield self
        finally:
            for image, offset, data in reversed(undo):
                image[offset : offset + len(data)] = data

    def copy(
        self, leg: str, target: Path, extra: Collection[int] | Random = (), *, torn: bool = False
    ) -> None:
        """Write an image to a file, sparse where it is zero. For two legs see copies()."""
        with self.survivors(extra, torn=torn):
            _write_sparse(self.images[leg], target)

    def copies(
        self,
        targets: Mapping[str, Path],
        extra: Collection[int] | Random = (),
        *,
        torn: bool = False,
    ) -> None:
        """Write the images of several legs to files, all of the same cut and survivors."""
        with self.survivors(extra, torn=torn):
            for leg, target in targets.items():
                _write_sparse(self.images[leg], target)


def _write_sparse(image: Image, target: Path, block: int = 1 << 16) -> None:
    nothing = bytes(block)
    with target.open("wb") as file:
        for start in range(0, len(image), block):
            part = image[start : start + block]
            if part != nothing[: len(part)]:
                file.seek(start)
                file.write(part)
        file.truncate(len(image))


def durable(
    log: Log,
    upto: int,
    extra: Collection[int] | Random = (),
    *,
    base: Mapping[str, bytes] | None = None,
    torn: bool = False,
) -> dict[str, bytes]:
    """Return the content of every leg after a cut, from a replay of its own.

    For many cuts of one log a Replay that advances is quicker.
    """
    base = base or {}
    images = {leg: bytearray(base.get(leg, bytes(size))) for leg, size in log.legs.items()}
    replay = Replay(log, images)
    replay.advance(upto)
    with replay.survivors(extra, torn=torn):
        return {leg: bytes(image) for leg, image in replay.images.items()}
