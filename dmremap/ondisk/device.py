# SPDX-License-Identifier: GPL-2.0-only
"""Blocks on a device: read past the page cache, written durably.

The kernel writes a live set's metadata below the page cache, so a cached read can be stale and a
cached write can come late. Everything here goes through O_DIRECT where the file allows it.
"""

import contextlib
import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from dmremap.errors import Busy, Failure, NotFound, PermissionDenied, Refused
from dmremap.ondisk._format import lib
from dmremap.ondisk.layout import BLOCK, is_zero

CHUNK: Final = 1 << 20

Devno = tuple[int, int]

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""

# What a failing medium answers, by the kind of disk: SCSI and NVMe give ENODATA.
_UNREADABLE: Final = frozenset(
    {errno.EIO, errno.ENODATA, errno.EILSEQ, errno.EREMOTEIO, errno.ETIMEDOUT, errno.ENOLINK}
)


_spare: Final[list[mmap.mmap]] = []
"""The last read's buffer, for the next one: new memory costs more than what is read into it."""


@contextlib.contextmanager
def _aligned(length: int) -> Iterator[memoryview]:
    """Give memory of so many bytes that is aligned as O_DIRECT wants it."""
    buffer = _spare.pop() if _spare else None
    if buffer is None or len(buffer) < length:
        buffer = mmap.mmap(-1, max(length, CHUNK + BLOCK))
    try:
        with memoryview(buffer) as whole, whole[:length] as part:
            yield part
    finally:
        if len(buffer) <= CHUNK + BLOCK and not _spare:
            _spare.append(buffer)


class BlockDevice:
    """An open block device, or a regular file that stands for one in tests."""

    def __init__(self, fd: int, path: str) -> None:
        """Take over the descriptor; see opened()."""
        self.fd = fd
        self.path = path
        self.written: list[tuple[int, int]] = []
        """From where to where something was written, or tried, in bytes."""

    @property
    def devno(self) -> Devno:
        """The number of the device that is open, whatever its path names by now."""
        number = os.fstat(self.fd).st_rdev
        return os.major(number), os.minor(number)

    @property
    def size(self) -> int:
        """The size in bytes."""
        return os.lseek(self.fd, 0, os.SEEK_END)

    def read(self, offset: int, length: int) -> bytes | None:
        """Return bytes, None where the medium does not give them all."""
        with _aligned(length) as buffer:
            done = 0
            while done < length:
                try:
                    got = os.preadv(self.fd, [buffer[done:]], offset + done)
                except OSError as err:
                    # The odd end of a file cannot be read past the page cache either.
                    if err.errno in _UNREADABLE or (done and err.errno == errno.EINVAL):
                        return None
                    if err.errno == errno.ENOMEDIUM:  # a drive that was opened without
                        raise NotFound("DMR-E302", f"{self.path}: {err.strerror}") from None
                    raise Failure(
                        "DMR-E103", f"cannot read {self.path} at {offset + done}: {err.strerror}"
                    ) from None
                if not got:
                    return None
                done += got
            return bytes(buffer)

    def read_block(self, start: int, block: int) -> bytes | None:
        """Return one block of the area or disk that starts at sector `start`."""
        return self.read(start * 512 + block * BLOCK, BLOCK)

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes; durable after flush()."""
        end = offset + len(data)
        if self.written and self.written[-1][1] == offset:
            self.written[-1] = (self.written[-1][0], end)
        else:
            self.written.append((offset, end))
        with mmap.mmap(-1, len(data)) as buffer:
            buffer[:] = data
            done = 0
            while done < len(data):
                try:
                    done += os.pwritev(self.fd, [memoryview(buffer)[done:]], offset + done)
                except OSError as err:
                    raise Failure(
                        "DMR-E103", f"cannot write {self.path} at {offset + done}: {err.strerror}"
                    ) from None

    def write_block(self, start: int, block: int, data: bytes) -> None:
        """Write one block of the area or disk that starts at sector `start`."""
        self.write(start * 512 + block * BLOCK, data)

    def flush(self) -> None:
        """Make durable what was written."""
        try:
            os.fsync(self.fd)
        except OSError as err:
            raise Failure("DMR-E103", f"cannot flush {self.path}: {err.strerror}") from None

    def zero(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Write zeroes, one range after the other, each durable before the next."""
        for first, end in sorted(ranges):
            for at in range(first, end, CHUNK):
                self.write(at, bytes(min(CHUNK, end - at)))
            self.flush()

    def forget_partitions(self) -> None:
        """Let the kernel read the partition table again, if the device can have one."""
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.fd, lib.BLKRRPART)

    def _pieces(
        self, offset: int, length: int, progress: Progress | None = None
    ) -> Iterator[tuple[int, bytes | None]]:
        """Yield offset and bytes, in blocks where a larger piece cannot be read."""
        for done in range(0, length, CHUNK):
            size = min(CHUNK, length - done)
            if progress:
                progress(done, length)
            data = self.read(offset + done, size)
            if data is not None:
                yield offset + done, data
                continue
            for inner in range(done, done + size, BLOCK):
                piece = self.read(offset + inner, min(BLOCK, done + size - inner))
                yield offset + inner, piece
        if progress:
            progress(length, length)

    def first_unreadable(self, ranges: Iterable[tuple[int, int]]) -> int | None:
        """Return the offset of the first block in some ranges that cannot be read."""
        for first, end in ranges:
            for offset, data in self._pieces(first, end - first):
                if data is None:
                    return offset
        return None

    def blocks_with(
        self, magic: bytes, offset: int, length: int, progress: Progress | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """Yield offset and content of every 4 KiB block that begins with `magic`."""
        for start, data in self._pieces(offset, length, progress):
            at = data.find(magic) if data is not None else -1
            while data is not None and at >= 0:
                if at % BLOCK == 0 and at + BLOCK <= len(data):
                    yield start + at, data[at : at + BLOCK]
                at = data.find(magic, at + 1)

    def first_nonzero(
        self, offset: int, length: int, progress: Progress | None = None
    ) -> tuple[int, bool] | None:
        """Look for anything but zeroes.

        Returns None where every byte was read and is zero, else the offset of the 4 KiB block and
        whether it could be read: unreadable is not blank.
        """
        for start, data in self._pieces(offset, length, progress):
            if data is None:
                return start, False
            if not is_zero(data):
                blocks = range(0, len(data), BLOCK)
                return start + next(i for i in blocks if not is_zero(data[i : i + BLOCK])), True
        return None


@contextlib.contextmanager
def opened(path: str, *, write: bool = False, exclusive: bool = False) -> Iterator[BlockDevice]:
    """Open a device; with `exclusive`, only if nobody else has claimed it."""
    # Without O_NONBLOCK a drive whose tray is open would close it; reads wait all the same.
    flags = (os.O_RDWR if write else os.O_RDONLY | os.O_NONBLOCK) | os.O_CLOEXEC
    if exclusive and not os.path.isfile(path):
        flags |= os.O_EXCL
    fd = _open(path, flags)
    try:
        yield BlockDevice(fd, path)
    finally:
        os.close(fd)


def _open(path: str, flags: int) -> int:
    try:
        try:
            return os.open(path, flags | os.O_DIRECT)
        except OSError as err:
            if err.errno != errno.EINVAL:  # a file system without O_DIRECT
                raise
            return os.open(path, flags)
    except FileNotFoundError:
        raise NotFound("DMR-E302", f"{path} does not exist") from None
    except PermissionError as err:
        raise PermissionDenied("DMR-E601", f"cannot open {path}: {err.strerror}") from None
    except OSError as err:
        if err.errno == errno.EBUSY:
            raise Busy("DMR-E404", f"{path} is opened exclusively by something else") from None
        if err.errno == errno.EROFS:
            raise Refused(
                "DMR-E502", f"{path} is on a medium or file system that is read-only"
            ) from None
        if err.errno in (errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM):
            raise NotFound("DMR-E302", f"{path}: {err.strerror}") from None
        raise Failure("DMR-E103", f"cannot open {path}: {err.strerror}") from None
