# SPDX-License-Identifier: GPL-2.0-only
"""Runs a function in a child that stops before each call that changes something, and can end there.

The child is forked from this process, so that nothing is imported anew. It installs a seccomp
filter that stops it at the entry of a system call that may change something, whoever makes it:
Python, libdevmapper, the shim. What it starts is not stopped. x86_64 only, as all guests are.

A *place* in the code is the frames of dmremap, each with its line, that lead to a call, together
with the call itself. Only a profile function can tell them, which makes everything slow: so a run
that lists the places comes first, and the others go by the number of the call. What may differ from
run to run, such as a read, or a question whether udevd is done yet, is no such call.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import struct
import sys
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import dmremap

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

LIMIT: Final = 180.0
"""When a command counts as hung: it must have ended by itself before, whatever it was told."""

_HOME: Final = str(Path(dmremap.__file__).parent) + "/"

# System calls by number, those that always change something.
_WRITES: Final = {1: "write", 18: "pwrite64", 20: "writev", 296: "pwritev", 328: "pwritev2"}
_CHANGES: Final = {
    56: "clone",
    57: "fork",
    58: "vfork",
    65: "semop",
    74: "fsync",
    75: "fdatasync",
    76: "truncate",
    77: "ftruncate",
    82: "rename",
    83: "mkdir",
    84: "rmdir",
    86: "link",
    87: "unlink",
    88: "symlink",
    90: "chmod",
    91: "fchmod",
    133: "mknod",
    220: "semtimedop",
    258: "mkdirat",
    259: "mknodat",
    263: "unlinkat",
    264: "renameat",
    265: "linkat",
    266: "symlinkat",
    268: "fchmodat",
    285: "fallocate",
    316: "renameat2",
    435: "clone3",
}
_OPEN, _OPENAT, _IOCTL, _SEMGET, _SEMCTL = 2, 257, 16, 64, 66
_CALLS: Final = {
    **_WRITES,
    **_CHANGES,
    _OPEN: "open",
    _OPENAT: "openat",
    _IOCTL: "ioctl",
    _SEMGET: "semget",
    _SEMCTL: "semctl",
}

_DM: Final = {number: 0xC138FD00 | number for number in range(18)}
_DM_NAMES: Final = {
    _DM[1]: "DM_REMOVE_ALL",
    _DM[3]: "DM_DEV_CREATE",
    _DM[4]: "DM_DEV_REMOVE",
    _DM[5]: "DM_DEV_RENAME",
    _DM[9]: "DM_TABLE_LOAD",
    _DM[10]: "DM_TABLE_CLEAR",
    _DM[14]: "DM_TARGET_MSG",
    0x125F: "BLKRRPART",
}
# What only looks: device-mapper's own questions, sizes of block devices and of terminals; and
# close-on-exec, by which Python makes its descriptors.
_LOOKS: Final = (
    *(_DM[number] for number in (0, 2, 7, 8, 11, 12, 13, 16, 17)),
    *(0x1260, 0x80081272, 0x1268, 0x127B, 0x80081280),
    *(0x5401, 0x5413, 0x5450, 0x5451),
)


# The filter: each rule is a few instructions, and falls through where it does not match.

_LOAD, _AND, _EQUAL, _ANY, _MORE, _RETURN = 0x20, 0x54, 0x15, 0x45, 0x25, 0x06
_ALLOW, _TRACE = 0x7FFF0000, 0x7FF00000


def _argument(number: int) -> tuple[int, int, int, int]:
    return _LOAD, 0, 0, 16 + 8 * number


def _rule(nr: int, *check: tuple[int, int, int, int]) -> list[tuple[int, int, int, int]]:
    """Return instructions that decide a system call; `check` ends with what allows or traces."""
    return [(_EQUAL, 0, len(check), nr), *check]


_ALLOWED, _TRACED = (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _TRACE)


def _program() -> bytes:
    out = [(_LOAD, 0, 0, 0)]
    for nr in _WRITES:  # not what is said
        out += _rule(nr, _argument(0), (_MORE, 0, 1, 2), _TRACED, _ALLOWED)
    for nr in _CHANGES:
        out += _rule(nr, _TRACED)
    for nr, flags in ((_OPEN, 1), (_OPENAT, 2)):
        creates = os.O_CREAT | os.O_TRUNC | os.O_TMPFILE ^ os.O_DIRECTORY
        out += _rule(nr, _argument(flags), (_ANY, 0, 1, creates), _TRACED, _ALLOWED)
    looks = [(_EQUAL, len(_LOOKS) - i, 0, word) for i, word in enumerate(_LOOKS)]
    out += _rule(_IOCTL, _argument(1), *looks, _TRACED, _ALLOWED)
    out += _rule(_SEMGET, _argument(2), (_ANY, 0, 1, 0o1000), _TRACED, _ALLOWED)
    # IPC_RMID and SETVAL, without the bit for the size of structures.
    values = [(_AND, 0, 0, 0xFF), (_EQUAL, 1, 0, 0), (_EQUAL, 0, 1, 16)]
    out += _rule(_SEMCTL, _argument(2), *values, _TRACED, _ALLOWED)
    return b"".join(struct.pack("HBBI", *step) for step in (*out, _ALLOWED))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)

_TRACEME, _CONT, _SET_OPTIONS, _SYSCALL_INFO = 0, 7, 0x4200, 0x420E
_OPTIONS: Final = 0x2 | 0x4 | 0x8 | 0x10 | 0x80 | 0x100000  # all that it starts; exit with us
_SECCOMP, _WALL = 7, 0x40000000


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, pid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace {request:#x}: {os.strerror(number)}")


def _filter() -> None:
    """Install the filter in this process and what it starts."""
    program = _program()
    buffer = ctypes.create_string_buffer(program)
    what = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    prog = ctypes.create_string_buffer(what)
    set_seccomp, filters = 22, 2
    if _libc.prctl(set_seccomp, filters, ctypes.byref(prog), 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "seccomp")


# Places


class _Board:
    """Where the child says where in the code it is, for whoever traces it."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 1 << 16)

    def profile(self, frame: FrameType, event: str, what: object) -> None:
        """Note the frames of dmremap that lead to a call of a C function."""
        if event != "c_call":
            return
        where = []
        back: FrameType | None = frame
        while back is not None:
            name = back.f_code.co_filename
            if name.startswith(_HOME):
                line = f"{name[len(_HOME) :]}:{back.f_code.co_name}:{back.f_lineno}"
                where.append(line)
            back = back.f_back
        text = "\n".join((getattr(what, "__name__", "?"), *where)).encode()[:65000]
        self.memory[: 4 + len(text)] = struct.pack("I", len(text)) + text

    def read(self) -> tuple[str, tuple[str, ...]]:
        """Return the C function and the frames, the innermost first."""
        (size,) = struct.unpack("I", self.memory[:4])
        function, *where = self.memory[4 : 4 + size].decode().split("\n")
        return function, tuple(where)


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that changes something, and what has led to it if that was asked."""

    name: str
    where: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Say it in a few words: in the innermost frames that are not everybody's."""
        inner = " < ".join(line.removesuffix(".py") for line in self.where[:4])
        return f"{self.name} {inner}"


def _call(pid: int) -> str:
    """Return what a child is about to call."""
    info = ctypes.create_string_buffer(88)
    _ptrace(_SYSCALL_INFO, pid, len(info), ctypes.addressof(info))
    nr, request, at = struct.unpack_from("QxxxxxxxxQQ", info, 24)
    if nr == _IOCTL and request & 0xFFFFFFFF == _DM[6]:
        # One call with a flag for which of two it is, in struct dm_ioctl.
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            memory.seek(at + 28)
            (flags,) = struct.unpack("I", memory.read(4))
        return "suspend" if flags & 2 else "resume"
    if nr == _IOCTL:
        return _DM_NAMES.get(request & 0xFFFFFFFF, f"ioctl {request:#x}")
    return _CALLS[nr]


# Children


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child has ended."""

    status: int
    """As of subprocess: the exit status, or the negative number of a signal."""
    out: str
    err: str
    calls: tuple[Call, ...]
    hung: bool


Cut = tuple[int, ...]
"""Signals: one before the chosen call, the next before the call after that."""


def fork(*, at: int | None = None, cut: Cut = (), places: bool = False) -> Ended | None:
    """Go on in a child, where None is returned; where this process goes on, how that has ended.

    `at` is the call, counted from 0, at which it is cut short. With `places` its calls say where in
    the code they are. Nothing that the child has started runs any more, then. It ends with end().
    """
    board = _Board() if places else None
    with contextlib.ExitStack() as stack:
        out, err = (
            stack.enter_context(os.fdopen(os.memfd_create(name), "r", errors="replace"))
            for name in ("out", "err")
        )
        child = os.fork()
        if not child:
            stack.pop_all()
            _be_child(out.fileno(), err.fileno(), board)
            return None
        status, calls, hung = _trace(child, at, cut, board)
        said = []
        for file in (out, err):
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            said.append(file.read())
    return Ended(os.waitstatus_to_exitcode(status), said[0], said[1], tuple(calls), hung)


def run(
    function: Callable[[], int], *, at: int | None = None, cut: Cut = (), places: bool = False
) -> Ended:
    """Run a function in a child, see fork()."""
    ended = fork(at=at, cut=cut, places=places)
    if ended is None:
        end(function)
    return ended


def end(function: Callable[[], int]) -> NoReturn:
    """End the child with what a function returns."""
    status = 99
    try:
        status = function()
    except BaseException:  # noqa: BLE001 - this is the end of it
        traceback.print_exc()
    finally:
        sys.setprofile(None)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _be_child(out: int, err: int, board: _Board | None) -> None:
    """Make this process the child that it is."""
    try:
        for number, to in ((out, 1), (err, 2)):
            os.dup2(number, to)
        sys.stdin = open(os.devnull)  # noqa: SIM115 - there till the end
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        sys.dont_write_bytecode = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _ptrace(_TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        _filter()
        if board:
            sys.setprofile(board.profile)
    except BaseException:  # noqa: BLE001 - nobody else may go on in it
        traceback.print_exc()
        os._exit(99)


def _trace(
    child: int, at: int | None, cut: Cut, board: _Board | None
) -> tuple[int, list[Call], bool]:
    """Let a child run to its end; return its status, its calls and whether it had to be killed."""
    left = list(cut)
    calls: list[Call] = []
    status = 0
    alive = True
    hung = threading.Event()

    def give_up() -> None:
        hung.set()
        os.kill(child, signal.SIGKILL)

    timer = threading.Timer(LIMIT, give_up)
    timer.daemon = True
    timer.start()
    known: set[int] = set()
    while True:
        try:
            pid, what = os.waitpid(-1, _WALL)
        except ChildProcessError:
            break
        if not os.WIFSTOPPED(what):
            if pid == child:
                status, alive = what, False
                timer.cancel()
            continue
        number, event = os.WSTOPSIG(what), what >> 16
        if pid == child and event == _SECCOMP:
            name = _call(pid)
            calls.append(Call(name, board.read()[1] if board else ()))
            if at is not None and len(calls) > at and left:
                os.kill(pid, left.pop(0))
        passed = 0
        if pid not in known:
            # The first stop: of the child, or of what it has started.
            known.add(pid)
            if pid == child:
                _ptrace(_SET_OPTIONS, pid, 0, _OPTIONS)
        elif not event:
            passed = number
        with contextlib.suppress(ProcessLookupError):  # killed meanwhile
            _ptrace(_CONT, pid, 0, passed)
    assert not alive
    return status, calls, hung.is_set()
