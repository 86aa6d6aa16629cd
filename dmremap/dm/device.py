# SPDX-License-Identifier: GPL-2.0-only
"""Device-mapper devices through libdevmapper.

libdevmapper keeps global state and is not thread-safe: one lock covers every call. A cookie, once
set, is waited for on every path, failures included, or its semaphore stays in the system for
ever, but for a kill, before which a note is written; there is none where no udevd runs, and
libdevmapper makes the node itself then, so that the node is there when a call returns.
"""

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dmremap.dm._libdm import ffi, lib
from dmremap.dm.kernellog import KernelLog, reasons
from dmremap.errors import (
    Busy,
    DmRemapError,
    Failure,
    KernelError,
    NotFound,
    PermissionDenied,
    Refused,
)
from dmremap.host import begun, signals

if TYPE_CHECKING:  # these two are names of the stub only
    from dmremap.dm._libdm import Pointer, Task

CONTROL: Final = "/dev/mapper/control"
# udevd gives up on an event after 180 s; nobody waits longer for it than this.
UDEV_TIMEOUT: Final = 60.0
_COOKIE_MAGIC: Final = 0x0D4D
"""The upper half of a cookie; the lower one is any number but zero."""
_COOKIE_AGE: Final = 5
"""Seconds after the note of a cookie in which its semaphore is made."""

_lock = threading.RLock()
_ready = False
_warnings: list[str] = []


def take_warnings() -> tuple[str, ...]:
    """Return what calls since the last time were done in spite of."""
    with _lock:
        out = tuple(_warnings)
        _warnings.clear()
    return out


@dataclass(frozen=True, slots=True)
class Target:
    """One line of a table or of a status."""

    start: int
    length: int
    type: str
    params: str

    def __str__(self) -> str:
        """Return the line as dmsetup prints it."""
        return f"{self.start} {self.length} {self.type} {self.params}".rstrip()


@dataclass(frozen=True, slots=True)
class Device:
    """What the kernel knows about a device."""

    name: str
    uuid: str
    major: int
    minor: int
    suspended: bool
    read_only: bool
    live_table: bool
    inactive_table: bool
    open_count: int
    event_nr: int
    target_count: int
    deferred_remove: bool


@dataclass(frozen=True, slots=True)
class TargetVersion:
    """A target type that the kernel has now."""

    name: str
    version: tuple[int, int, int]


class _Task:
    """One call. Every setter raises where libdevmapper says no."""

    def __init__(self, kind: int) -> None:
        task = lib.dm_task_create(kind)
        if not task:
            raise _failed("prepare", "", errno.ENOMEM, [])
        self.handle: Task = task

    def need(self, done: int, what: str, value: str) -> None:
        if not done:
            said = _take_log()
            raise Failure("DMR-E100", f"device-mapper does not take {what} {value!r}" + _tail(said))

    def name(self, name: str) -> None:
        self.need(lib.dm_task_set_name(self.handle, os.fsencode(name)), "the name", name)

    def run(self, verb: str, name: str) -> None:
        log = KernelLog()
        try:
            if not lib.dm_task_run(self.handle):
                err = lib.dm_task_get_errno(self.handle)
                failed = _failed(verb, name, err, _take_log(), _reasons(log, name))
                failed.errno = err
                raise failed
        finally:
            log.close()
            _take_log()


@contextlib.contextmanager
def _task(kind: int, name: str | None = None) -> Iterator[_Task]:
    """Give a task under the lock."""
    with _lock:
        _set_up()
        task = _Task(kind)
        try:
            if name is not None:
                task.name(name)
            yield task
        finally:
            lib.dm_task_destroy(task.handle)


def _set_up() -> None:
    """Make the library ready, and silent, once a process."""
    global _ready  # noqa: PLW0603
    if not _ready:
        lib.dmr_shim_init()
        _ready = True
    _check_control()
    _take_log()


def _check_control() -> None:
    """Explain a missing or closed control node before libdevmapper stumbles over it."""
    if os.access(CONTROL, os.R_OK | os.W_OK):
        return
    if os.geteuid() != 0:
        raise PermissionDenied("DMR-E601", "device-mapper can be used by root only")
    # Root without a node: libdevmapper makes one if the kernel has device-mapper.
    if not os.path.isdir("/sys/class/misc/device-mapper"):
        raise KernelError("DMR-E701", "this kernel has no device-mapper, or it is not loaded")


def _take_log() -> list[str]:
    buffer = ffi.new("char[4096]")
    size = lib.dmr_take_log(buffer, 4096)
    text = bytes(ffi.buffer(buffer, size)).decode("utf-8", "replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _reasons(log: KernelLog, name: str) -> list[str]:
    """Return what the kernel said about this device since the log was opened."""
    lines = log.lines()
    with contextlib.suppress(DmRemapError):
        device = _find(name) if lines and name else None
        if device is not None:
            return reasons(lines, device.major, device.minor)
    return []


def _tail(said: Sequence[str]) -> str:
    return ": " + "; ".join(said) if said else ""


def _failed(
    verb: str, name: str, err: int, library: Sequence[str], kernel: Sequence[str] = ()
) -> DmRemapError:
    """Turn an errno and what was logged into the error to raise."""
    text = os.strerror(err) if err else "failed"
    if kernel:
        message = f"cannot {verb} {name}: {'; '.join(kernel)} ({text})"
    else:
        message = f"cannot {verb} {name}: {text}" + (_tail(library) if not err else "")
    if err in (errno.EPERM, errno.EACCES):
        return PermissionDenied("DMR-E601", message)
    if err == errno.ENXIO and verb not in ("load a table for", "resume"):
        return NotFound("DMR-E306", f"there is no device-mapper device {name!r}")
    if err == errno.EBUSY:
        if verb == "create":
            return Busy("DMR-E406", f"a device-mapper device {name!r}, or its uuid, exists already")
        return Busy("DMR-E405" if verb == "remove" else "DMR-E409", message)
    if err == errno.EINVAL and any("unknown target type" in line for line in kernel):
        return KernelError("DMR-E702", message)
    if verb in ("load a table for", "resume") and kernel:
        return Refused("DMR-E519", message)
    return KernelError("DMR-E705", message)


class _Cookie:
    """A udev cookie that is always waited for."""

    def __init__(self) -> None:
        self.pointer: Pointer[int] = ffi.new("uint32_t *", 0)
        self.note = contextlib.ExitStack()

    def give(self, task: _Task) -> None:
        if lib.dm_udev_get_sync_support():
            with signals.held(signals.ENDING):
                self._make()
        task.need(
            lib.dm_task_set_cookie(task.handle, self.pointer, 0),
            "a udev cookie; the system may be out of semaphores (see 'dmsetup udevcookies')",
            "",
        )

    def _make(self) -> None:
        """Make the semaphore; if that fails libdevmapper tries, and says why it cannot."""
        import secrets  # takes as long as all of this file, and most commands change nothing

        err = errno.EEXIST
        while err == errno.EEXIST:
            number = _COOKIE_MAGIC << 16 | 1 + secrets.randbelow(0xFFFF)
            self.note.enter_context(begun.noted("cookie", cookie=number))
            self.pointer[0] = number
            err = lib.dmr_make_cookie(number)
            if err:
                self.pointer[0] = 0
                self.note.close()

    def wait(self, name: str) -> None:
        """Wait until udevd is done, then make sure that nodes are up to date.

        At the deadline the last reference is dropped for udevd, which destroys the semaphore. What
        was asked of the kernel is done all the same, so a late udevd is a warning. A signal ends
        the wait in the same way, and is handled when the semaphore is gone.
        """
        with signals.held(signals.ENDING):
            if self.pointer[0]:
                self._wait_for_udevd(name)
            lib.dm_task_update_nodes()
            _take_log()

    def _wait_for_udevd(self, name: str) -> None:
        cookie = self.pointer[0]
        ready: Pointer[int] = ffi.new("int *", 0)
        end = time.monotonic() + UDEV_TIMEOUT
        pause = 0.001
        while lib.dm_udev_wait_immediate(cookie, ready) and not ready[0]:
            late = time.monotonic() > end
            if late:
                _warnings.append(
                    f"udevd did not confirm within {UDEV_TIMEOUT:g} s that it knows {name}; "
                    "its links may be missing (DMR-E105)"
                )
            if late or signals.ending():
                lib.dm_udev_complete(cookie)
                lib.dm_udev_wait_immediate(cookie, ready)
                break
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)


@contextlib.contextmanager
def _cookie(name: str) -> Iterator[_Cookie]:
    """Give a cookie and wait for it."""
    cookie = _Cookie()
    with cookie.note:
        try:
            yield cookie
        finally:
            cookie.wait(name)


def forget_cookie(number: int, when: float) -> None:
    """Destroy the semaphore of a cookie that was made at a time, in seconds since 1970.

    It has gone by now if udevd was done with it, and somebody else may have its number: the one
    that is there counts only if it is as old.
    """
    if number >> 16 == _COOKIE_MAGIC:
        lib.dmr_forget_cookie(number, int(when) - 1, int(when) + _COOKIE_AGE)


def device_path(name: str) -> str:
    """Return where the node of a device is, with the name mangled as udev and libdm do it."""
    plain = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789#+-.:=@_")
    mangled = "".join(
        chr(byte) if chr(byte) in plain else f"\\x{byte:02x}" for byte in os.fsencode(name)
    )
    return f"/dev/mapper/{mangled}"


def create(name: str, uuid: str, table: Sequence[Target], *, readonly: bool = False) -> Device:
    """Make a device, load its table and resume it.

    On any failure nothing is left. When this returns, the node exists.
    """
    made = False
    with contextlib.ExitStack() as note:
        own = note.enter_context(begun.noted("device", name=name, uuid=uuid))
        try:
            # It is known at any moment whether there is anything to take back.
            with signals.held(signals.ENDING):
                _make(name, uuid)
                made = True
            reload(name, table, readonly=readonly)
            # When it runs nothing is to be taken back; udevd takes its time.
            resume(name, then=note.close)
        except BaseException:
            if made:
                with signals.held(signals.ENDING):
                    own.kept = not _take_back(name)
            raise
    return info(name)


def _make(name: str, uuid: str) -> None:
    """Make a device without a table."""
    with _task(lib.DM_DEVICE_CREATE, name) as task:
        if uuid:
            task.need(lib.dm_task_set_uuid(task.handle, os.fsencode(uuid)), "the uuid", uuid)
        task.need(
            lib.dm_task_set_add_node(task.handle, lib.DM_ADD_NODE_ON_RESUME), "its node for", name
        )
        task.run("create", name)


def _take_back(name: str) -> bool:
    """Remove a device that could not be started; say whether it is gone."""
    for udev in (True, False):  # where no cookie can be had it goes without udevd
        with contextlib.suppress(DmRemapError):
            remove(name, udev=udev)
            return True
    return False


def reload(name: str, table: Sequence[Target], *, readonly: bool = False) -> None:
    """Load a table beside the running one. It comes into force at the next resume."""
    with _task(lib.DM_DEVICE_RELOAD, name) as task:
        for line in table:
            task.need(
                lib.dm_task_add_target(
                    task.handle,
                    line.start,
                    line.length,
                    line.type.encode(),
                    os.fsencode(line.params),
                ),
                "the table line",
                str(line),
            )
        if readonly:
            task.need(lib.dm_task_set_ro(task.handle), "read-only for", name)
        task.run("load a table for", name)


def clear(name: str) -> None:
    """Forget a table that was loaded and not resumed."""
    with _task(lib.DM_DEVICE_CLEAR, name) as task:
        task.run("clear", name)


def suspend(name: str, *, flush: bool = True, lockfs: bool = True) -> None:
    """Stop a device's I/O. To change its table use swap(), which cannot be left half-way."""
    with _task(lib.DM_DEVICE_SUSPEND, name) as task:
        _suspend_options(task, name, flush=flush, lockfs=lockfs)
        task.run("suspend", name)


def _suspend_options(task: _Task, name: str, *, flush: bool, lockfs: bool) -> None:
    if not flush:
        task.need(lib.dm_task_no_flush(task.handle), "noflush for", name)
    if not lockfs:
        task.need(lib.dm_task_skip_lockfs(task.handle), "nolockfs for", name)


def resume(
    name: str,
    *,
    flush: bool = True,
    lockfs: bool = True,
    then: Callable[[], None] | None = None,
) -> None:
    """Let I/O go, with the new table if one was loaded; for that one the kernel suspends first.

    `flush` and `lockfs` are as for suspend(). `then` is called once the kernel has done it.
    """
    with _lock, _cookie(name) as cookie, _task(lib.DM_DEVICE_RESUME, name) as task:
        _suspend_options(task, name, flush=flush, lockfs=lockfs)
        task.need(
            lib.dm_task_set_add_node(task.handle, lib.DM_ADD_NODE_ON_RESUME), "its node for", name
        )
        cookie.give(task)
        task.run("resume", name)
        if then:
            then()
    _need_node(name)


def _need_node(name: str) -> None:
    """Make the node if neither udevd nor the library's fall-back has."""
    if not os.path.exists(device_path(name)):
        with _lock:
            lib.dm_mknodes(os.fsencode(name))
            _take_log()


def swap(
    name: str,
    table: Sequence[Target],
    *,
    readonly: bool = False,
    flush: bool = True,
    lockfs: bool = True,
    then: Callable[[], None] | None = None,
) -> None:
    """Change the table of a running device: load, then resume, which suspends it first.

    That is one call, so that no kill comes in between; one that comes during it leaves a note. A
    table that the kernel refuses leaves the running one as it is. `then` is called once the new
    one is in force.
    """
    uuid = info(name).uuid
    reload(name, table, readonly=readonly)
    with signals.held(), contextlib.ExitStack() as note:
        note.enter_context(begun.noted("suspended", name=name, uuid=uuid))

        def in_force() -> None:
            note.close()
            if then:
                then()

        try:
            resume(name, flush=flush, lockfs=lockfs, then=in_force)
        except DmRemapError:
            # What was loaded must not come into force by somebody else's resume.
            with contextlib.suppress(DmRemapError):
                clear(name)
            raise


def remove(name: str, *, retry: bool = True, deferred: bool = False, udev: bool = True) -> None:
    """Remove a device.

    udev opens new devices for a moment, so "busy" is tried again for five seconds; a device that
    is really open stays Busy. With `deferred` it goes when its last user closes it. Without `udev`
    nobody waits until udevd knows.
    """
    with _lock, _cookie(name) as cookie, _task(lib.DM_DEVICE_REMOVE, name) as task:
        if retry:
            task.need(lib.dm_task_retry_remove(task.handle), "retry for", name)
        if deferred:
            task.need(lib.dm_task_deferred_remove(task.handle), "deferred for", name)
        if udev:
            cookie.give(task)
        task.run("remove", name)


def message(name: str, sector: int, text: str) -> str:
    """Send a message to the target at a sector; return its reply, '' if it has none."""
    with _task(lib.DM_DEVICE_TARGET_MSG, name) as task:
        task.need(lib.dm_task_set_sector(task.handle, sector), "the sector", str(sector))
        task.need(lib.dm_task_set_message(task.handle, os.fsencode(text)), "the message", text)
        verb = text.split(maxsplit=1)
        task.run(f"send {verb[0] if verb else 'a message'} to", name)
        return _text(lib.dm_task_get_message_response(task.handle))


def _text(pointer: Any) -> str:
    return os.fsdecode(ffi.string(pointer)) if pointer else ""


def _lines(task: _Task) -> list[Target]:
    start, length = ffi.new("uint64_t *"), ffi.new("uint64_t *")
    kind, params = ffi.new("char **"), ffi.new("char **")
    out: list[Target] = []
    following = ffi.NULL
    while True:
        following = lib.dm_get_next_target(task.handle, following, start, length, kind, params)
        if kind[0]:
            out.append(Target(start[0], length[0], _text(kind[0]), _text(params[0])))
        if not following:
            return out


def status(name: str, *, flush: bool = False) -> list[Target]:
    """Return the status of each target. Without `flush` nothing waits for I/O."""
    with _task(lib.DM_DEVICE_STATUS, name) as task:
        if not flush:
            task.need(lib.dm_task_no_flush(task.handle), "noflush for", name)
        task.run("read the status of", name)
        return _lines(task)


def table(name: str, *, inactive: bool = False) -> list[Target]:
    """Return the table in force, or the one that is loaded beside it."""
    with _task(lib.DM_DEVICE_TABLE, name) as task:
        if inactive:
            task.need(lib.dm_task_query_inactive_table(task.handle), "inactive for", name)
        task.need(lib.dm_task_no_flush(task.handle), "noflush for", name)
        task.run("read the table of", name)
        return _lines(task)


def _info(task: _Task, name: str) -> Device | None:
    raw = ffi.new("struct dm_info *")
    task.need(lib.dm_task_get_info(task.handle, raw), "the question about", name)
    if not raw.exists:
        return None
    return Device(
        name=_text(lib.dm_task_get_name(task.handle)) or name,
        uuid=_text(lib.dm_task_get_uuid(task.handle)),
        major=raw.major,
        minor=raw.minor,
        suspended=bool(raw.suspended),
        read_only=bool(raw.read_only),
        live_table=bool(raw.live_table),
        inactive_table=bool(raw.inactive_table),
        open_count=raw.open_count,
        event_nr=raw.event_nr,
        target_count=raw.target_count,
        deferred_remove=bool(raw.deferred_remove),
    )


def _find(name: str = "", uuid: str = "") -> Device | None:
    with _task(lib.DM_DEVICE_INFO) as task:
        if uuid:
            task.need(lib.dm_task_set_uuid(task.handle, os.fsencode(uuid)), "the uuid", uuid)
        else:
            task.name(name)
        try:
            task.run("look at", name or uuid)
        except NotFound:
            return None
        return _info(task, name)


def info(name: str) -> Device:
    """Return what the kernel knows about a device."""
    found = _find(name)
    if found is None:
        raise NotFound("DMR-E306", f"there is no device-mapper device {name!r}")
    return found


def exists(name: str = "", *, uuid: str = "") -> Device | None:
    """Return the device of this name, or of this uuid, if there is one."""
    return _find(name, uuid)


def list_devices() -> list[Device]:
    """Return all devices. One that goes away meanwhile is left out."""
    names: list[str] = []
    with _task(lib.DM_DEVICE_LIST) as task:
        task.run("list", "the devices")
        entry = lib.dm_task_get_names(task.handle)
        # An empty list is one entry without a device number.
        while entry and entry.dev:
            names.append(_text(entry.name))
            if not entry.next:
                break
            entry = ffi.cast("struct dm_names *", ffi.cast("char *", entry) + entry.next)
    found = (_find(name) for name in names)
    return [device for device in found if device is not None]


def targets() -> list[TargetVersion]:
    """Return the target types that the kernel has now."""
    out: list[TargetVersion] = []
    with _task(lib.DM_DEVICE_LIST_VERSIONS) as task:
        task.run("list", "the target types")
        entry = lib.dm_task_get_versions(task.handle)
        while entry:
            version = (entry.version[0], entry.version[1], entry.version[2])
            out.append(TargetVersion(_text(entry.name), version))
            if not entry.next:
                break
            entry = ffi.cast("struct dm_versions *", ffi.cast("char *", entry) + entry.next)
    return out


def deps(name: str) -> list[tuple[int, int]]:
    """Return the devices, as major and minor, that a device uses."""
    with _task(lib.DM_DEVICE_DEPS, name) as task:
        task.run("read the dependencies of", name)
        raw = lib.dm_task_get_deps(task.handle)
        if not raw:
            return []
        numbers = [raw.device[i] for i in range(raw.count)]
    return [(os.major(number), os.minor(number)) for number in numbers]


def driver_version() -> str:
    """Return the version of the kernel's device-mapper interface."""
    with _lock:
        _set_up()
        buffer = ffi.new("char[64]")
        if not lib.dm_driver_version(buffer, 64):
            raise KernelError("DMR-E701", "device-mapper does not answer" + _tail(_take_log()))
        return _text(buffer)


def library_version() -> str:
    """Return the version of libdevmapper."""
    with _lock:
        buffer = ffi.new("char[64]")
        lib.dm_get_library_version(buffer, 64)
        return _text(buffer)
