# SPDX-License-Identifier: GPL-2.0-only
"""What the tests inside a guest share: devices, direct I/O with its errors, patterns.

Sizes are bytes, a *sector* is 512 bytes, times are seconds. Everything here needs root and a
machine that may be thrown away. Devices are made by context managers, so that whatever a test
does they are taken apart in the right order.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import shlex
import socket
import stat
import struct
import subprocess
import tempfile
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, Self, TypeVar

from guest import dmioctl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SECTOR = 512
MIB = 1024 * 1024
ROOT = Path(__file__).resolve().parents[2]
SLOW_KERNEL = os.uname().release.endswith(("-debug", "-kcsan"))
"""Whether this kernel looks for its own faults, several times slower than others."""

Argument = str | int | os.PathLike[str]
P = ParamSpec("P")
T = TypeVar("T")


# Programs and modules


class CommandError(Exception):
    """A program ended with another status than 0."""

    def __init__(self, line: str, status: int, stdout: str, stderr: str) -> None:
        super().__init__(f"{line}: exit status {status}\n{stderr or stdout}".rstrip())
        self.status = status
        self.stdout = stdout
        self.stderr = stderr


def run(*argv: Argument, stdin: str = "", timeout: float = 120.0) -> str:
    """Run a program to its end and return what it printed; raise CommandError if it fails."""
    words = [os.fspath(word) if not isinstance(word, int) else str(word) for word in argv]
    done = subprocess.run(
        words, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode:
        raise CommandError(shlex.join(words), done.returncode, done.stdout, done.stderr)
    return done.stdout


def module_loaded(name: str) -> bool:
    """Say whether a module is loaded (or built in and visible)."""
    return Path("/sys/module", name).is_dir()


def module_file(name: str) -> Path | None:
    """Find a module of ours: in $DM_REMAP_MODULES, else in build/<release> of the checkout."""
    given = os.environ.get("DM_REMAP_MODULES")
    where = Path(given) if given else ROOT / "build" / os.uname().release
    return next(iter(sorted(where.rglob(f"{name}.ko"))), None)


def load_module(name: str, *parameters: str) -> None:
    """Load a module of ours or of the kernel's, unless it is loaded already."""
    if module_loaded(name):
        return
    ours = module_file(name)
    if ours is None:
        run("modprobe", name, *parameters)
    else:
        for needed in _depends(ours):
            load_module(needed)
        run("insmod", ours, *parameters)


@cache
def _depends(module: Path) -> list[str]:
    """Return the modules that a module file needs, as /sys/module spells them."""
    names = run("modinfo", "--field", "depends", module).strip().replace("-", "_")
    return names.split(",") if names else []


def unload_module(name: str) -> None:
    """Unload a module; raise CommandError if it is in use."""
    run("rmmod", name)


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 30.0) -> None:
    """Wait until a condition holds; raise TimeoutError, which says what for, if it never does."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        time.sleep(0.01)


def background(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Run a function in a thread that does not keep the process alive, and return its future.

    Unlike an executor's, this thread may hang in an I/O that never ends.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks the future
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


# Direct I/O


class AlignedBuffer:
    """Memory that O_DIRECT takes: whole pages, given back at the end of the block."""

    def __init__(self, size: int) -> None:
        self.memory = mmap.mmap(-1, max(size, 1))

    def __enter__(self) -> mmap.mmap:
        return self.memory

    def __exit__(self, *exc: object) -> None:
        self.memory.close()


class Device:
    """A block device opened for direct I/O: nothing comes from the page cache or stays in it.

    Every method raises the OSError that the kernel returned.
    """

    def __init__(self, path: Path | str, *, writable: bool = True) -> None:
        self.path = Path(path)
        self.fd = os.open(
            path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_DIRECT | os.O_CLOEXEC
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the device."""
        os.close(self.fd)

    def read(self, sector: int, count: int = 1, *, flags: int = 0) -> bytes:
        """Read sectors with one request; ``flags`` are RWF_ flags."""
        length = count * SECTOR
        with AlignedBuffer(length) as memory, memoryview(memory) as view:
            done = 0
            while done < length:  # a short count hides an error: the next call returns it
                with view[done:length] as rest:
                    moved = os.preadv(self.fd, [rest], sector * SECTOR + done, flags)
                if not moved:
                    raise OSError(errno.ENXIO, "end of device", str(self.path))
                done += moved
            return bytes(view[:length])

    def write(self, sector: int, data: bytes, *, fua: bool = False, flags: int = 0) -> None:
        """Write sectors with one request.

        With ``fua`` the request has FUA set; the kernel sends a flush after it all the same.
        """
        flags |= os.RWF_DSYNC if fua else 0
        with AlignedBuffer(len(data)) as memory, memoryview(memory) as view:
            view[: len(data)] = data
            done = 0
            while done < len(data):
                with view[done : len(data)] as rest:
                    moved = os.pwritev(self.fd, [rest], sector * SECTOR + done, flags)
                done += moved

    def flush(self) -> None:
        """Flush the device's write cache (and the page cache)."""
        os.fsync(self.fd)

    def discard(self, sector: int, count: int) -> None:
        """Discard sectors (BLKDISCARD)."""
        fcntl.ioctl(self.fd, 0x1277, struct.pack("QQ", sector * SECTOR, count * SECTOR))

    def write_zeroes(self, sector: int, count: int) -> None:
        """Zero sectors with write-zeroes requests alone: no fall-back to writes of zeroes."""
        punch_hole_keep_size = 0x02 | 0x01
        libc = ctypes.CDLL(None, use_errno=True)
        offset, length = ctypes.c_int64(sector * SECTOR), ctypes.c_int64(count * SECTOR)
        if libc.fallocate(self.fd, punch_hole_keep_size, offset, length):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(self.path))


def errno_name(number: int) -> str:
    """Return the name of an errno as kernel developers write it."""
    return "EOPNOTSUPP" if number == errno.EOPNOTSUPP else errno.errorcode.get(number, str(number))


def outcome(function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> str:
    """Call a function and return ``OK`` or the name of the errno it failed with."""
    try:
        function(*args, **kwargs)
    except OSError as error:
        if error.errno is None:
            raise
        return errno_name(error.errno)
    return "OK"


def read(path: Path | str, sector: int, count: int = 1) -> bytes:
    """Open, read directly, close."""
    with Device(path, writable=False) as device:
        return device.read(sector, count)


def write(path: Path | str, sector: int, data: bytes, *, fua: bool = False) -> None:
    """Open, write directly, close."""
    with Device(path) as device:
        device.write(sector, data, fua=fua)


def try_read(path: Path | str, sector: int, count: int = 1) -> str:
    """Read directly and return ``OK`` or the name of the errno."""
    return outcome(read, path, sector, count)


def try_write(path: Path | str, sector: int, data: bytes, *, fua: bool = False) -> str:
    """Write directly and return ``OK`` or the name of the errno."""
    return outcome(write, path, sector, data, fua=fua)


# Patterns: every sector says where it belongs and which write it comes from

_PATTERN = struct.Struct("<8sQQ")
_MAGIC = b"pattern\0"


def pattern(sector: int, count: int = 1, generation: int = 0) -> bytes:
    """Return data for sectors, each of which names itself and the generation in all its bytes."""
    return b"".join(
        (_PATTERN.pack(_MAGIC, number, generation) * (SECTOR // _PATTERN.size + 1))[:SECTOR]
        for number in range(sector, sector + count)
    )


def describe(data: bytes) -> list[str]:
    """Say of each sector what is in it: ``<sector>/<generation>``, ``zero`` or ``garbage``.

    >>> describe(pattern(7, 1, generation=2) + bytes(512) + b"x" * 512)
    ['7/2', 'zero', 'garbage']
    """
    words = []
    for start in range(0, len(data), SECTOR):
        part = data[start : start + SECTOR]
        magic, number, generation = _PATTERN.unpack_from(part)
        if magic == _MAGIC and part == pattern(number, 1, generation):
            words.append(f"{number}/{generation}")
        else:
            words.append("garbage" if any(part) else "zero")
    return words


# Device-mapper
#
# By its ioctls: starting dmsetup takes longer than what it does. Where udevd runs it makes the
# nodes, and dmsetup waits for it.

MAPPER = Path("/dev/mapper")


def dmsetup(*argv: Argument) -> str:
    """Run dmsetup and return what it printed, without the last newline."""
    return run("dmsetup", *argv).rstrip("\n")


def _udevd_runs() -> bool:
    return Path("/run/udev/control").exists()


@contextmanager
def _device_mapper(what: str, name: str) -> Iterator[None]:
    """Turn what the kernel returns into the error that dmsetup would end with."""
    load_module("dm_mod")
    try:
        yield
    except OSError as error:
        text = f"device-mapper: {what} ioctl on {name} failed: {error.strerror}"
        raise CommandError(f"{what} {name}", 1, "", text) from error


def _make_node(name: str) -> None:
    """Make the node of a device, unless it is there; no other is left in its place."""
    path, dev = MAPPER / name, dmioctl.info(name).dev
    if path.exists() and path.stat().st_rdev == dev:
        return
    path.unlink(missing_ok=True)
    os.mknod(path, 0o600 | stat.S_IFBLK, dev)


def dm_create(name: str, table: str, *, readonly: bool = False, uuid: str | None = None) -> Path:
    """Create a device with this table, of one line or more, and return its path."""
    if _udevd_runs():
        options = [*(["--readonly"] if readonly else []), *(["--uuid", uuid] if uuid else [])]
        run("dmsetup", "create", name, *options, stdin=table)
        return MAPPER / name
    with _device_mapper("create", name):
        dmioctl.create(name, uuid or "")
    try:
        dm_load(name, table, readonly=readonly)
        dm_resume(name)
    except CommandError:
        dmioctl.remove(name)
        raise
    return MAPPER / name


def dm_remove(name: str, *, force: bool = False) -> None:
    """Remove a device. Tried for ten seconds, because something may still have it open."""
    deadline = time.monotonic() + 10
    while True:
        try:
            _remove(name, force=force)
            break
        except CommandError as error:
            if "busy" not in error.stderr or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _remove(name: str, *, force: bool) -> None:
    if force or _udevd_runs():
        run("dmsetup", "remove", *(["--force"] if force else []), name)
    else:
        with _device_mapper("remove", name):
            dmioctl.remove(name)
        (MAPPER / name).unlink(missing_ok=True)


def dm_load(name: str, table: str, *, readonly: bool = False) -> None:
    """Load a table beside the running one."""
    with _device_mapper("load", name):
        dmioctl.load(name, table, readonly=readonly)


def dm_reload(name: str, table: str) -> None:
    """Replace the table of a running device: load, suspend, resume."""
    dm_load(name, table)
    dm_resume(name)


def dm_suspend(name: str, *, flush: bool = True, lockfs: bool = True) -> None:
    """Suspend a device."""
    with _device_mapper("suspend", name):
        dmioctl.suspend(name, flush=flush, lockfs=lockfs)


def dm_resume(name: str) -> None:
    """Resume a device, with the table loaded last."""
    if _udevd_runs():
        run("dmsetup", "resume", name)
        return
    with _device_mapper("resume", name):
        dmioctl.resume(name)
        _make_node(name)


def dm_message(name: str, *words: Argument, sector: int = 0) -> str:
    """Send a message to the target at a sector and return its reply."""
    with _device_mapper("message", name):
        return dmioctl.message(name, sector, " ".join(map(str, words))).rstrip("\n")


def dm_lines(name: str, *, table: bool = False, inactive: bool = False) -> list[str]:
    """Return the status, or the table, of a device, a line for each target."""
    with _device_mapper("table" if table else "status", name):
        lines = dmioctl.lines(name, table=table, inactive=inactive)
    return [" ".join(map(str, line)).rstrip() for line in lines]


def dm_status(name: str) -> str:
    """Return the status of a device's first target, without start, length and type."""
    return _fields(dm_lines(name)[0])


def dm_table(name: str) -> str:
    """Return the arguments in the table of a device's first target."""
    return _fields(dm_lines(name, table=True)[0])


def _fields(line: str) -> str:
    return " ".join(line.split()[3:])


def dm_names() -> list[str]:
    """Return the names of all devices."""
    with _device_mapper("list", "devices"):
        return dmioctl.names()


def udev_cookies() -> int:
    """Return how many cookies there are that dmsetup and udevd have not done with: semaphores."""
    magic = 0x0D4D  # DM_COOKIE_MAGIC, the upper half of their keys
    rows = Path("/proc/sysvipc/sem").read_text().splitlines()[1:]
    return sum(int(row.split()[0]) >> 16 == magic for row in rows)


@contextmanager
def dm_device(
    name: str, table: str, *, readonly: bool = False, uuid: str | None = None
) -> Iterator[Path]:
    """Have a device while the block runs."""
    path = dm_create(name, table, readonly=readonly, uuid=uuid)
    try:
        yield path
    finally:
        dm_remove(name)


def sectors(path: Path | str) -> int:
    """Return the size of a block device in sectors."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(fd, 0, os.SEEK_END) // SECTOR
    finally:
        os.close(fd)


def queue(path: Path | str, attribute: str) -> str:
    """Return a limit of a whole disk: /sys/block/<disk>/queue/<attribute>."""
    device = os.stat(path).st_rdev
    home = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/queue")
    return (home / attribute).read_text().strip()


# Disks


@contextmanager
def loop_device(
    size: int = 16 * MIB, *, sector_size: int = SECTOR, image: Path | None = None
) -> Iterator[Path]:
    """Have a loop device over a file in memory, or over ``image``.

    It takes discards and write-zeroes and has a write cache.
    """
    with tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="disk-") as file:
        file.truncate(size)
        path = _attach_loop(image or Path(file.name), sector_size)
        try:
            yield path
        finally:
            clear_fd = 0x4C01
            with path.open("rb") as disk:
                fcntl.ioctl(disk, clear_fd)


def backing_file(loop: Path) -> Path:
    """Return the file of a loop device."""
    return Path(Path("/sys/block", loop.name, "loop/backing_file").read_text().strip())


def _attach_loop(backing: Path, sector_size: int) -> Path:
    """Give a file to a free loop device, as losetup does it."""
    load_module("loop")
    get_free, configure = 0x4C82, 0x4C0A
    with Path("/dev/loop-control").open("rb") as control, backing.open("r+b") as file:
        while True:
            path = Path(f"/dev/loop{fcntl.ioctl(control, get_free)}")
            # struct loop_config: the file, the sector size, the rest is zero but for the name
            name = struct.pack("56x64s176x", os.fspath(backing).encode()[:63])
            config = struct.pack("II", file.fileno(), sector_size) + name
            try:
                with path.open("r+b", buffering=0) as disk:
                    fcntl.ioctl(disk, configure, config)
            except OSError as error:
                if error.errno != errno.EBUSY:  # somebody was faster
                    raise
            else:
                return path


@contextmanager
def scsi_debug(*parameters: str) -> Iterator[Path]:
    """Have the one disk of scsi_debug, 8 MiB, which has an id."""
    run("modprobe", "sd_mod")
    run("modprobe", "scsi_debug", "dev_size_mb=8", "delay=0", *parameters)
    try:
        disks = Path("/sys/bus/pseudo/drivers/scsi_debug")
        pattern = "adapter*/host*/target*/*/block/*"
        wait_for(lambda: any(disks.glob(pattern)), "the disk of scsi_debug")
        path = Path("/dev", next(disks.glob(pattern)).name)
        wait_for(path.exists, f"{path}")
        yield path
    finally:
        unload_module("scsi_debug")


@contextmanager
def null_block(
    size: int = 16 * MIB,
    *,
    block_size: int = SECTOR,
    memory: bool = True,
    cache: int = 0,
    **attributes: str | int,
) -> Iterator[Path]:
    """Have a null_blk disk. ``memory`` keeps what is written, ``cache`` is a write cache in bytes.

    ``attributes`` are further configfs files, such as ``badblocks="+8-15"``.
    """
    load_module("null_blk", "nr_devices=0")
    configfs = Path("/sys/kernel/config")
    if not (configfs / "nullb").is_dir():
        run("mount", "-t", "configfs", "configfs", configfs)
    number = next(n for n in range(1000) if not (configfs / "nullb" / f"nullb{n}").exists())
    home = configfs / "nullb" / f"nullb{number}"
    home.mkdir()
    try:
        values: dict[str, str | int] = {
            "size": size // MIB,
            "blocksize": block_size,
            "memory_backed": int(memory),
            "cache_size": cache // MIB,
            **attributes,
        }
        for name, value in values.items():
            (home / name).write_text(f"{value}\n")
        (home / "power").write_text("1\n")
        # Some kernels name the disk after the directory, others by its index.
        index = (home / "index").read_text().strip()
        names = (Path("/dev", home.name), Path("/dev", f"nullb{index}"))
        yield next(path for path in names if path.exists())
    finally:
        home.rmdir()


@contextmanager
def ram_disks(count: int = 1, size: int = 16 * MIB) -> Iterator[list[Path]]:
    """Have disks of brd, which complete requests in the submitter's context. One use at a time."""
    run("modprobe", "brd", f"rd_nr={count}", f"rd_size={size // 1024}")
    try:
        yield [Path(f"/dev/ram{n}") for n in range(count)]
    finally:
        unload_module("brd")


# Disks of a server on the host, whose port the guest reaches through QEMU's user network

HOST = "10.0.2.2"


def network_up() -> None:
    """Bring up the machine's one network card, with the address that QEMU's user network expects.

    The machine has it with ``-netdev user,id=net -device virtio-net-pci,netdev=net,romfile=``.
    """
    run("modprobe", "virtio_net")
    card = next(path.name for path in Path("/sys/class/net").iterdir() if path.name != "lo")
    run("busybox", "ip", "link", "set", card, "up")
    with suppress(CommandError):  # it has it already
        run("busybox", "ip", "addr", "add", "10.0.2.15/24", "dev", card)


def _take(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise EOFError("the server has hung up")
        data += part
    return data


@contextmanager
def nbd_device(
    export: str, port: int, *, host: str = HOST, block_size: int = SECTOR
) -> Iterator[Path]:
    """Have an export of an NBD server as a disk, by the kernel's own client.

    It passes flushes, FUA, discards on as they are. Needs network_up() for a server on the host.
    """
    run("modprobe", "nbd", "nbds_max=8", "max_part=0")
    with socket.create_connection((host, port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _take(sock, 18)
        # NBD_OPT_EXPORT_NAME, without the zeroes after its answer
        name = export.encode()
        sock.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, len(name)) + name)
        size, flags = struct.unpack(">QH", _take(sock, 10))
        busy = {path.parent.name for path in Path("/sys/block").glob("nbd*/pid")}
        path = next(p for p in (Path(f"/dev/nbd{n}") for n in range(8)) if p.name not in busy)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            set_sock, set_block_size, do_it, clear = 0xAB00, 0xAB01, 0xAB03, 0xAB04
            set_blocks, disconnect, set_flags = 0xAB07, 0xAB08, 0xAB0A
            fcntl.ioctl(fd, set_block_size, block_size)
            fcntl.ioctl(fd, set_blocks, size // block_size)
            fcntl.ioctl(fd, set_flags, flags)
            fcntl.ioctl(fd, set_sock, sock.fileno())
            client = background(fcntl.ioctl, fd, do_it)
            # The kernel sets the size last.
            shown = Path("/sys/block", path.name, "size")
            wait_for(lambda: int(shown.read_text()) == size // SECTOR, f"{path} to connect")
            try:
                yield path
            finally:
                fcntl.ioctl(fd, disconnect)
                with suppress(OSError):
                    client.result(30)
                fcntl.ioctl(fd, clear)
        finally:
            os.close(fd)


# The fault device


@dataclass(frozen=True)
class Fault:
    """A fault device: tests/kernel/dm-fault.c says what the messages mean."""

    name: str
    path: Path
    line: str

    def add(
        self,
        sector: int,
        count: int,
        direction: str,
        status: str,
        times: int | str = 0,
        *,
        torn: bool = False,
        after: int = 0,
    ) -> None:
        """Fail bios of a direction that touch a range; ``times`` may be ``until_written``.

        With ``torn`` the part of a write before the first failing sector is executed. The first
        ``after`` of these bios pass.
        """
        words: list[Argument] = ["torn"] if torn else []
        words += ["after", after] if after else []
        dm_message(self.name, "add", sector, count, direction, status, times, *words)

    def clear(self, sector: int | None = None, count: int = 1) -> None:
        """Forget all rules, or a range of them."""
        dm_message(self.name, "clear", *([] if sector is None else [sector, count]))

    def dead(self, status: str = "off") -> None:
        """Fail everything; ``off`` ends it."""
        dm_message(self.name, "dead", status)

    def readonly(self, status: str = "off") -> None:
        """Fail writes, write-zeroes and discards; ``off`` ends it."""
        dm_message(self.name, "readonly", status)

    def nofua(self, status: str = "off") -> None:
        """Fail what has FUA; ``off`` ends it."""
        dm_message(self.name, "nofua", status)

    def hold(self, direction: str, sector: int | None = None, count: int = 1) -> None:
        """Hold back bios of a direction, everywhere or in a range."""
        dm_message(self.name, "hold", direction, *([] if sector is None else [sector, count]))

    def release(self, status: str = "off") -> None:
        """Let go what is held; with a status, failed with that."""
        dm_message(self.name, "hold", "off", *([] if status == "off" else [status]))

    def delay(self, seconds: float) -> None:
        """Complete failures later than at once."""
        dm_message(self.name, "delay", round(seconds * 1000))

    def powercut(self, seed: int | None = None) -> None:
        """Lose what is not flushed, or with a seed about half of it; fail until ``reload``."""
        dm_message(self.name, "powercut", *([] if seed is None else [seed]))

    def reload(self) -> None:
        """Load the table anew: no rules, an empty cache, and power again."""
        dm_reload(self.name, self.line)

    def slow_file(self, device: Path, group: str) -> Path:
        """Put a file into a group of a mapped device's in sysfs; who reads it waits."""
        number = device.stat().st_rdev
        name = f"{os.major(number)}:{os.minor(number)}"
        dm_message(self.name, "reader", name, group)
        return Path("/sys/dev/block", name, group, "slow")

    def read_slow_file(self) -> None:
        """Let those go who read that file."""
        dm_message(self.name, "reader", "off")

    def counters(self) -> dict[str, int]:
        """Return the counters of bios that have arrived, and how many are held and cached."""
        pairs = (word.split("=") for word in dm_message(self.name, "count").split())
        return {key: int(value) for key, value in pairs}

    def reset(self) -> None:
        """Set the counters to zero."""
        dm_message(self.name, "count", "reset")

    def rules(self) -> int:
        """Return how many rules can still fail something."""
        return int(dm_status(self.name).split()[0])

    def wait_held(self, count: int = 1) -> None:
        """Wait until this many bios are held."""
        wait_for(lambda: self.counters()["held"] >= count, f"{count} bios held by {self.name}")


@contextmanager
def fault_device(
    lower: Path | str,
    *options: str,
    name: str = "fault",
    start: int = 0,
    length: int | None = None,
) -> Iterator[Fault]:
    """Have a fault device over a disk, or over a part of it, while the block runs.

    ``options`` are words of its table line: ``read_only``, ``"physical", "4096"``, ``cache``.
    """
    load_module("dm_fault")
    size = sectors(lower) - start if length is None else length
    line = " ".join(["0", str(size), "fault", str(lower), str(start), *options])
    path = dm_create(name, line)
    try:
        yield Fault(name, path, line)
    finally:
        with suppress(CommandError):  # what is held would keep it open
            dm_message(name, "hold", "off")
        dm_remove(name)


def kernel_log(arguments: Sequence[str] = ()) -> list[str]:
    """Return the lines of the kernel's log."""
    return run("dmesg", *arguments).splitlines()
