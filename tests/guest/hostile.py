# SPDX-License-Identifier: GPL-2.0-only
"""Table lines, messages and accesses to sysfs that were made to do harm, and a user without rights.

The argument is a file with what tests/vm/hostile.py has made, and with what has to come of it; or
``nobody``, for the user without rights alone.
Whatever is said to the target: the errno is the one that was promised, the log has the reason, one
line of it, status answers, the data is what it was, and nothing is left. Runs inside a guest.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import re
import stat
import struct
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guest import dmioctl
from guest.lib import (
    ROOT,
    SECTOR,
    CommandError,
    Device,
    Fault,
    background,
    dm_create,
    dm_lines,
    dm_message,
    dm_names,
    dm_reload,
    dm_remove,
    dm_resume,
    dm_suspend,
    errno_name,
    fault_device,
    load_module,
    loop_device,
    module_loaded,
    outcome,
    pattern,
    read,
    try_write,
    unload_module,
    wait_for,
    write,
)
from guest.remapset import (
    KernelLog,
    contents,
    entries,
    held,
    remap_set,
    segment_of,
    status,
    without_epochs,
)

import dmremap
from dmremap.dm.lines import parse_table_line
from dmremap.dm.messages import parse_list, parse_pending, parse_remap, parse_scrub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guest.remapset import RemapSet

Case = dict[str, Any]
LONG = "DMREMAP_LONG" in os.environ
LOGGED, WINDOW = 10, 5
"""Lines of a kind that the kernel logs in so many seconds; of a module that was loaded since."""
WAITS = 1000 if LONG else 1
"""How often for each state a message waits until its line would be logged."""
NOBODY = 65534
DATA = 8
"""Where the data of the sets that messages are sent to begins on main."""
UNREAD = 100
"""Two sectors of theirs that main cannot read."""


def raw(command: int, name: str, data: bytes, *, flags: int = 0, room: int = 65536) -> bytes:
    """Do an ioctl with exactly these bytes and this room, and return what comes back."""
    room = max(room, dmioctl._HEADER.size + len(data))
    targets = int(command == dmioctl.TABLE_LOAD)
    buffer = bytearray(room)
    head = (4, 0, 0, room, dmioctl._HEADER.size, targets, 0, flags, 0, 0, 0, name.encode(), b"")
    dmioctl._HEADER.pack_into(buffer, 0, *head)
    buffer[dmioctl._HEADER.size : dmioctl._HEADER.size + len(data)] = data
    fd = os.open(dmioctl.CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        memory = (ctypes.c_char * room).from_buffer(buffer)
        request = 3 << 30 | dmioctl._HEADER.size << 16 | 0xFD << 8 | command
        if dmioctl._libc.ioctl(fd, ctypes.c_ulong(request), memory):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)
    finally:
        os.close(fd)
    fields = dmioctl._HEADER.unpack_from(buffer)
    if not fields[7] & dmioctl.DATA_OUT or fields[7] & dmioctl.BUFFER_FULL:
        return b""
    return bytes(buffer[fields[4] :]).partition(b"\0")[0]


def tried(function: Callable[[], bytes]) -> tuple[str, bytes]:
    """Call a function; return ``OK`` or the name of its errno, and what it returned."""
    try:
        return "OK", function()
    except OSError as error:
        return errno_name(error.errno or 0), b""


def shown(case: Case) -> str:
    """Return a case for people: words may be very long."""
    return str({key: value if key != "text" else value[:200] for key, value in case.items()})


def references() -> int:
    """Return how many users the module has."""
    return int(Path("/sys/module/dm_remap/refcnt").read_text())


def fresh_module() -> None:
    """Load the module anew, so that it logs ten lines of every kind again."""
    if module_loaded("dm_remap"):
        assert references() == 0
        unload_module("dm_remap")
    load_module("dm_remap")


# The log


class Log(KernelLog):
    """What the kernel logs, a case at a time."""

    def more(self) -> str:
        """Return what is new; every line is whole, and is device-mapper's."""
        before = len(self.text)
        new = self.read()[before:]
        for line in new.splitlines():
            # In a record a newline is \x0a: it would begin a line that nobody has logged.
            assert "\\x0a" not in line or "device-mapper: remap" not in line, line
        return new


# Messages


class Blocks:
    """What is known of the blocks of a set: which are mapped, and which of them are lost."""

    def __init__(self, made: RemapSet) -> None:
        self.made = made
        self.state: dict[int, str] = {}

    def note(self, first: int, count: int, *, lost: bool) -> None:
        """They have been mapped by hand; those that were mapped stay as they are."""
        for sector in range(first, first + count):
            self.state.setdefault(sector, "lost" if lost else "mapped")

    def check(self, total: int) -> None:
        """The slots say the same, and every block holds what was written, or is lost."""
        found = {entry.sector: entry.state for entry in entries(self.made.name)}
        assert found == self.state
        lost = {sector for sector, state in self.state.items() if state == "lost"}
        with Device(self.made.path) as device:
            for first, end in runs(set(range(total)) - lost):
                assert device.read(first, end - first) == pattern(first, end - first)
            for first, _ in runs(lost):
                assert outcome(device.read, first) == "ENODATA"


def runs(sectors: set[int]) -> Iterator[tuple[int, int]]:
    """Return first and end of all runs of sectors."""
    for first in sorted(sector for sector in sectors if sector - 1 not in sectors):
        end = first
        while end in sectors:
            end += 1
        yield first, end


def check_reply(text: str, words: list[str], reply: str, room: int, blocks: Blocks) -> None:
    """A reply is one that can be parsed, and says what was asked for."""
    if not reply:
        assert words[0] in ("breaker", "rename") or room < 512, text
        return
    match words[0]:
        case "list":
            page = parse_list(reply)
            slots = [entry.slot for entry in page.entries]
            assert slots == sorted(slots), text
            assert all(slot >= int(words[1]) for slot in slots), text
            assert len(slots) <= int(words[2]), text
        case "pending":
            sectors = [entry.sector for entry in parse_pending(reply).entries]
            assert all(sector >= int(words[1]) for sector in sectors), text
            assert len(sectors) <= int(words[2]), text
        case "scrub":
            assert parse_scrub(reply).entries == (), text
        case "remap":
            done = parse_remap(reply).done
            blocks.note(int(words[1]), done, lost=len(words) == 4)
        case "stop":
            assert re.fullmatch(r"epoch \d+ tag [0-5]\n", reply), reply
        case "retire":
            assert re.fullmatch(r"retired epoch \d+\n", reply), reply
        case _:
            raise AssertionError(f"{text!r} was answered with {reply!r}")


class Refusals:
    """How many lines about messages the kernel has logged, and whether it logs the next."""

    def __init__(self) -> None:
        self.lines, self.waits = 0, WAITS

    def due(self) -> bool:
        """Count a line; say whether it must be in the log."""
        self.lines += 1
        return self.lines <= LOGGED

    def wait(self) -> None:
        """Before a line that would be too many: have it logged, if that may take so long."""
        if self.lines == LOGGED and self.waits:
            time.sleep(WINDOW + 0.5)
            self.lines = 0
            self.waits -= 1


def send(made: RemapSet, case: Case, log: Log, blocks: Blocks, refusals: Refusals) -> None:
    """Send a message; it ends as it must, and the log says why it was refused."""
    if case["log"]:
        refusals.wait()
    text = case["text"]
    data = struct.pack("=Q", case["sector"]) + text.encode("latin-1") + b"\0"
    room = case["room"]
    ended, reply = tried(lambda: raw(dmioctl.TARGET_MSG, made.name, data, room=room))
    assert ended == case["errno"], f"{ended} and not {case['errno']}: {shown(case)}"
    new = log.more()
    if ended == "OK":
        words = text.replace("\\", "").replace("\xa0", " ").split()
        check_reply(text, [words[0].lower(), *words[1:]], reply.decode(), room, blocks)
    elif case["log"]:
        due = refusals.due()
        assert case["log"] in new or not due, f"{shown(case)}: {new[-2000:]}"


@contextmanager
def in_state(state: str, made: RemapSet) -> Iterator[None]:
    """Have a set in a state while the block runs."""
    match state:
        case "suspended":
            dm_suspend(made.name)
            yield
            dm_resume(made.name)
        case "repair":
            made.main.add(DATA, 1, "write", "medium")
            segment = segment_of(made)
            made.spare.hold("write", segment.data * 8, made.status.slots)
            write_ = background(try_write, made.path, 0, pattern(0))
            made.spare.wait_held()
            yield
            assert not write_.done()
            made.spare.release()
            # With the breaker open the error is passed up.
            assert write_.result(60) in ("OK", "ENODATA")
        case "failed":
            made.remove()
            made.spare.add(0, 0, "flush", "ioerr", 1)
            dmioctl.create(made.name)
            dmioctl.load(made.name, made.line)
            assert outcome(dmioctl.resume, made.name) == "EIO"
            yield
            dm_resume(made.name)
        case "retired":
            head = read(made.spare_disk, 0, 2048)
            dm_suspend(made.name)
            dm_message(made.name, "retire")
            yield
            assert outcome(dmioctl.resume, made.name) == "EINVAL"
            made.remove()
            assert "the set has gone on elsewhere" in made.refused()
            write(made.spare_disk, 0, head)
            made.create()
        case "ro" | "ro-suspended":
            made.recreate(readonly=True)
            if state == "ro":
                yield
            else:
                dm_suspend(made.name)
                yield
                dm_resume(made.name)
            made.recreate()
        case _:
            yield


def messages(groups: list[Case]) -> None:
    """Every state of a device, with a set and a module of its own."""
    for group in groups:
        fresh_module()
        state, cases, total = group["state"], group["cases"], 2048
        options = ("main_start", str(DATA), "remap_rate", "0")
        size = (DATA + total) * SECTOR
        with Log() as log, remap_set(*options, main_size=size, spare_size=1 << 21) as made:
            write(made.path, 0, pattern(0, total))
            made.main.add(DATA + UNREAD, 2, "read", "medium")
            assert outcome(read, made.path, UNREAD, 2) == "ENODATA"
            blocks, refusals = Blocks(made), Refusals()
            with in_state(state, made):
                mode = made.status.mode
                for number, case in enumerate(cases, 1):
                    send(made, case, log, blocks, refusals)
                    if not number % 4 or number == len(cases):
                        assert made.status.mode == mode, shown(case)
            if state == "repair" and 0 in made.mapped:
                blocks.note(0, 1, lost=False)
            made.main.clear()
            blocks.check(total)
            made.recreate()
            blocks.check(total)
            assert references() == 1
        assert dm_names() == []
        assert references() == 0


# Table lines


class Disks:
    """Main and spare of one kind, what they hold, and the words that a line may name them by."""

    def __init__(self, main: Fault, spare: Fault, disks: tuple[Path, Path]) -> None:
        self.main, self.spare, self.disks = main, spare, disks
        self.uuid = "01234567-89ab-cdef-0123-456789abcdef"
        self.before = contents(*disks)

    def words(self, text: bytes) -> bytes:
        """Put the names of these disks into a line."""
        for name, leg in (("main", self.main), ("spare", self.spare)):
            dev = leg.path.stat().st_rdev
            number = f"{os.major(dev)}:{os.minor(dev)}"
            text = text.replace(b"{%s}" % name.encode(), str(leg.path).encode())
            text = text.replace(b"{%s#}" % name.encode(), number.encode())
        return text.replace(b"{uuid}", self.uuid.encode())

    def unharmed(self) -> None:
        """Nothing was written since the last look."""
        for leg in (self.main, self.spare):
            counted = leg.counters()
            assert counted["writes"] + counted["discards"] + counted["write_zeroes"] == 0, leg


SIZE = 4096


@contextmanager
def disks(kind: str) -> Iterator[Disks]:
    """Have two disks that hold what the name says."""
    with ExitStack() as stack:
        lower = tuple(stack.enter_context(loop_device(SIZE * SECTOR)) for _ in range(2))
        main, spare = (
            stack.enter_context(fault_device(disk, name=f"{kind}-{leg}"))
            for disk, leg in zip(lower, ("main", "spare"), strict=True)
        )
        write(main.path, 0, pattern(0, SIZE))
        made = Disks(main, spare, (lower[0], lower[1]))
        line = f"0 {SIZE} remap {main.path} {spare.path} 0 {SIZE}"
        if kind in ("set", "running"):
            dm_create(kind, line)
            made.uuid = status(kind).uuid or ""
            main.add(7, 2, "write", "medium")
            write(Path("/dev/mapper", kind), 7, pattern(7, 2))
            main.clear()
        if kind == "set":
            dm_remove(kind)
        if kind == "foreign":
            write(spare.path, 3000, b"somebody's" + bytes(502))
        main.reset()
        spare.reset()
        made.before = contents(*lower)
        try:
            yield made
        finally:
            if kind == "running":
                dm_remove(kind)


def load(name: str, case: Case, where: Disks) -> str:
    """Load a table of one line; return ``OK`` or the name of the errno."""
    text = where.words(case["text"].encode("latin-1")) + b"\0"
    size = -(-(dmioctl._TARGET.size + len(text)) // 8) * 8
    head = dmioctl._TARGET.pack(0, case["length"], 0, size, b"remap")
    data = (head + text).ljust(size, b"\0")
    flags = dmioctl.READONLY if case["readonly"] else 0
    return tried(lambda: raw(dmioctl.TABLE_LOAD, name, data, flags=flags))[0]


def accepted(name: str, case: Case, where: Disks) -> None:
    """What was accepted says what it is, in a line that is accepted again, and works."""
    before = references()
    (line,) = dm_lines(name, table=True, inactive=True)
    parse_table_line(line)
    dmioctl.load(name, line, readonly=case["readonly"])
    assert dm_lines(name, table=True, inactive=True) == [line]
    assert references() == before
    if not case["resume"]:
        dmioctl.clear(name)
        return
    where.unharmed()
    dmioctl.resume(name)
    assert status(name).mode == ("ro" if case["readonly"] else "rw")
    # Main is as it was, and what was mapped still is.
    assert where.main.counters()["writes"] == 0
    assert contents(where.disks[0]) == where.before[:1]
    dmioctl.remove(name)
    dmioctl.create(name)
    if case["where"] == "blank":
        with Device(where.disks[1]) as spare:
            spare.discard(0, SIZE)
    else:
        old, now = where.before[1].data, contents(where.disks[1])[0].data
        assert case["readonly"] == (now == old), "an epoch begins with each load that may write"
        assert without_epochs(now) == without_epochs(old)
        write(where.disks[1], 0, old)
    where.main.reset()
    where.spare.reset()
    assert contents(*where.disks) == where.before


REASON = re.compile(
    # The debug kernel has numbers for errors, the others have names.
    r"^device-mapper: table: \d+:\d+: (remap: (?P<reason>.+) \(-\w+\)|too large device)$",
    re.MULTILINE,
)


def lines(cases: list[Case]) -> None:
    """Every line beside sets that are left alone."""
    fresh_module()
    with ExitStack() as stack, Log() as log:
        of = {kind: stack.enter_context(disks(kind)) for kind in ("blank", "set", "foreign")}
        of["running"] = stack.enter_context(disks("running"))
        name = "line"
        dmioctl.create(name)
        stack.callback(dmioctl.remove, name)
        others = sorted(dm_names())
        for case in cases:
            where = of[case["where"]]
            ended = load(name, case, where)
            new = log.more()
            assert ended in case["errnos"], f"{ended} and not of {case['errnos']}: {shown(case)}"
            if ended == "OK":
                assert references() == 2
                accepted(name, case, where)
            elif case["length"]:
                found = REASON.search(new)
                assert found, f"{shown(case)}: {new[-2000:]}"
                assert found["reason"] != "Unknown error"
            assert references() == 1, shown(case)
        assert sorted(dm_names()) == others
        assert dm_lines(name, table=True, inactive=True) == []
        assert status("running").mode == "rw"
        for kind, where in of.items():
            where.unharmed()
            assert contents(*where.disks) == where.before, kind
        assert held("/dev/mapper/running", 0, 16) == [f"{n}/0" for n in range(16)]


# sysfs


def access(file: Path, case: Case) -> str:
    """Do something to a file of the group."""
    offset, size = case["offset"], case["size"]
    if case["how"] == "read":
        whole = file.read_bytes()
        fd = os.open(file, os.O_RDONLY)
        try:
            part = os.pread(fd, size, offset)
            # Counters go on, but a set that nobody uses has none that do.
            assert part == whole[offset : offset + size], f"{file}: {part!r} {whole!r}"
        finally:
            os.close(fd)
        return "OK"
    actions: dict[str, Callable[[], object]] = {
        "write": lambda: os.close(os.open(file, os.O_WRONLY)),
        "truncate": lambda: os.truncate(file, min(offset, 4096)),
        "map": lambda: mapped_file(file),
        "chmod": lambda: file.chmod(0o444),
        "unlink": file.unlink,
        "exec": lambda: os.execv(file, ["file"]),
    }
    return outcome(actions[case["how"]])


def mapped_file(file: Path) -> None:
    """Map a file into memory."""
    fd = os.open(file, os.O_RDONLY)
    try:
        mmap.mmap(fd, 4096, prot=mmap.PROT_READ).close()
    finally:
        os.close(fd)


ENDS = {
    "read": ("OK",),
    "write": ("EACCES",),
    "truncate": ("OK", "EINVAL"),
    "map": ("ENODEV",),
    "chmod": ("OK",),
    "unlink": ("EPERM", "EACCES"),
    "exec": ("EACCES",),
}


def group_of(path: Path) -> Path:
    """Return the directory of a set in sysfs, when it is there."""
    dev = os.stat(path).st_rdev
    found = Path(f"/sys/dev/block/{os.major(dev)}:{os.minor(dev)}/remap-0")
    wait_for(found.exists, "files in sysfs")
    return found


def accesses(cases: list[Case]) -> None:
    """Files of a set, as root; then all of them while the set is suspended again and again."""
    fresh_module()
    with remap_set(main_size=1 << 20, spare_size=1 << 21) as made:
        home = group_of(made.path)
        files = sorted(home.iterdir())
        for case in cases:
            ended = access(files[case["file"] % len(files)], case)
            assert ended in ENDS[case["how"]], f"{ended}: {case}"
        before = {file.name: file.read_text() for file in files}

        def look() -> int:
            seen = 0
            while not stop:
                for file in files:
                    try:
                        text = file.read_text()
                    except OSError as error:
                        if error.errno not in (errno.ENOENT, errno.ENODEV):
                            raise
                    else:
                        assert text == before[file.name]
                        seen += 1
            return seen

        stop: list[bool] = []
        readers = [background(look) for _ in range(2)]
        for number in range(10):
            dm_suspend(made.name, flush=bool(number % 2))
            dm_resume(made.name)
        group_of(made.path)
        stop.append(True)
        assert all(reader.result(60) for reader in readers)
        dm_reload(made.name, made.line)
        group_of(made.path)
    assert not home.exists()
    assert references() == 0


# A user without rights


def as_nobody(function: Callable[[], int]) -> int:
    """Run a function as nobody, in a process of its own, and return its exit status."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        status_ = 99
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            status_ = function()
        finally:
            sys.stdout.flush()
            os._exit(status_)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def open_to_all() -> None:
    """Have everybody reach what dmremapctl is made of, wherever the checkout lies.

    It may lie where only root may enter, or be made with a umask of 077. The host's files are below
    an overlay: only this guest sees the modes that are set here.
    """
    package, environment = Path(dmremap.__file__).parent, Path(sys.prefix)
    assert package.is_relative_to(ROOT), f"{package} is not the one of this checkout"
    for directory in {*package.parents, *environment.parents}:
        directory.chmod(directory.stat().st_mode | 0o001)
    # It has thousands of files, which all have the umask of that one.
    closed = [environment] if environment.stat().st_mode & 0o005 != 0o005 else []
    for top in (package, *closed):
        for path in (top, *top.rglob("*")):
            mode = path.lstat().st_mode
            wanted = 0o005 if stat.S_ISDIR(mode) else 0o004
            if mode & wanted != wanted and not stat.S_ISLNK(mode):
                path.chmod(mode | wanted)


def nobody_changes_nothing() -> None:
    """Neither by nodes nor by files nor by dmremapctl."""
    open_to_all()
    fresh_module()
    with (
        remap_set(main_size=1 << 20, spare_size=1 << 21) as made,
        loop_device(1 << 21) as other,
    ):
        uuid = f"REMAP-{made.status.uuid}"
        made.remove()
        dm_create(made.name, made.line, uuid=uuid)  # as dmremapctl makes it
        write(made.path, 0, pattern(0, 64))
        home = group_of(made.path)
        nodes = [
            Path(dmioctl.CONTROL),
            *(made.path, made.main.path, made.spare.path, made.main_disk, made.spare_disk),
            Path("/dev", os.path.basename(os.path.realpath(home.parent))),
        ]
        before = contents(made.main_disk, made.spare_disk, other)
        table, told = dm_lines(made.name, table=True), made.status

        def tries() -> int:
            for node in nodes:
                for flags in (os.O_RDONLY, os.O_RDWR):
                    assert outcome(os.open, node, flags) == "EACCES", node
                assert outcome(node.unlink) == "EACCES", node
                assert outcome(node.chmod, 0o666) == "EPERM", node
            for file in home.iterdir():
                assert file.read_text().strip()
                for how in ("write", "truncate", "unlink", "exec"):
                    assert access(file, {"how": how, "offset": 0, "size": 1}) == "EACCES", file
                assert outcome(file.chmod, 0o666) == "EPERM", file
            assert outcome(home.rmdir) in ("EPERM", "EACCES")
            return 0

        assert as_nobody(tries) == 0
        verbs_are_refused(made, other)
        assert contents(made.main_disk, made.spare_disk, other) == before
        assert dm_lines(made.name, table=True) == table
        assert made.status == told


def verbs_are_refused(made: RemapSet, other: Path) -> None:
    """Every verb that needs a right says that it lacks it."""
    from dmremap.cli.app import run

    leave = Path("/dev/shm/nobody.backup")
    leave.unlink(missing_ok=True)
    main, spare = str(made.main_disk), str(other)
    commands = (
        ("create", "--name", "new", "--yes", main, spare),
        ("adopt", "--name", "new", "--yes", main, spare),
        ("remove", "--yes", made.name),
        ("grow", "--yes", made.name),
        ("repair", "--yes", str(made.spare_disk)),
        ("import", "--metadata", str(leave), str(made.spare_disk)),
        ("scrub", "--metadata", made.name),
        ("module", "unload"),
        ("status", made.name),
    )
    others = (
        ("assemble", "--all"),
        ("list",),
        ("health", made.name),
        ("monitor", "--once"),
        ("examine", str(made.spare_disk)),
        ("check", str(made.spare_disk)),
        ("export", "--metadata", str(made.spare_disk), str(leave)),
        ("module", "load"),
        ("selftest",),
    )
    for command in (*commands, *(others if LONG else ())):
        status_ = as_nobody(lambda command=command: run(list(command)))  # type: ignore[misc]
        # What sysfs shows to everybody is shown.
        allowed = 0 if command[0] in ("list", "status") else 6
        assert status_ == allowed, f"dmremapctl {' '.join(command)}: exit status {status_}"
    assert not leave.exists()


def main() -> None:
    """Do it all, and say how long each part took."""
    parts: dict[str, Callable[[], None]] = {"nobody": nobody_changes_nothing}
    if sys.argv[1] != "nobody":
        cases = json.loads(Path(sys.argv[1]).read_text())
        parts = {
            "messages": lambda: messages(cases["messages"]),
            "lines": lambda: lines(cases["lines"]),
            "accesses": lambda: accesses(cases["accesses"]),
        }
    for name, part in parts.items():
        begin = time.monotonic()
        part()
        print(f"{name}: {time.monotonic() - begin:.1f} s", flush=True)
    assert dm_names() == []
    try:
        unload_module("dm_remap")
    except CommandError as error:
        raise AssertionError("something still uses the module") from error


if __name__ == "__main__":
    main()
