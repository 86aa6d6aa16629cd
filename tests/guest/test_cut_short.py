# SPDX-License-Identifier: GPL-2.0-only
"""Commands that are cut short: killed, interrupted twice, stopped, before each call that changes
something.

cutting.py says what such a call is and what a place in the code is. Each place is tried at its
first call, with ``--long`` at all of them. What a kill leaves the next run of the same command
finishes or takes back, or the command that its refusal names does. A signal that can be handled
leaves nothing: all is as it was before, or done.

Not reached: what wipefs, modprobe and udevadm do, and the middle of a system call.
"""

import importlib
import io
import json
import os
import pkgutil
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from guest import cutting, dmioctl
from guest.lib import (
    backing_file,
    dm_names,
    loop_device,
    run,
    scsi_debug,
    udev_cookies,
)
from guest.remapset import read_superblock, status, table

from dmremap import dm, sets
from dmremap.cli import main
from dmremap.host import begun, blockdev
from dmremap.host.lock import RUN_DIR
from dmremap.ondisk import MAGIC
from dmremap.sets import seen, udevrule
from dmremap.sets.naming import dm_uuid

pytestmark = [pytest.mark.guest, pytest.mark.module]

NAME = "cut"
MAIN = 1088 * 1024
AREA = 1200 * 1024
SPARE = 1300 * 1024
DONE = ("DMR-E303", "DMR-E403", "DMR-E406")
"""How a command ends for which there is nothing to do: not running, in use, exists already."""
SIGNALS = {
    "killed": (signal.SIGKILL,),
    "stopped": (signal.SIGTERM,),
    "interrupted twice": (signal.SIGINT, signal.SIGINT),
    "stopped and killed": (signal.SIGTERM, signal.SIGKILL),
}


# What there is


@dataclass(frozen=True, slots=True)
class Device:
    """A device of device-mapper."""

    name: str
    suspended: bool
    live: bool
    inactive: bool


def devices() -> list[Device]:
    return [
        Device(one.name, one.suspended, one.live_table, one.inactive_table)
        for one in dm.list_devices()
    ]


RUNS = [Device(NAME, suspended=False, live=True, inactive=False)]


def files() -> dict[Path, bytes]:
    """Return all files that commands make, but for the lock."""
    found = [
        path
        for directory in (udevrule.RULES, seen.DIRECTORY.parent, RUN_DIR)
        for path in directory.rglob("*")
    ]
    return {path: path.read_bytes() for path in found if path.is_file() and path.name != "lock"}


@dataclass(frozen=True)
class State:
    """All that commands change."""

    devices: list[Device]
    cookies: int
    files: dict[Path, bytes]
    disks: dict[Path, bytes] = field(repr=False)

    def digest(self) -> str:
        """Return what only this state has."""
        notes = [data for path, data in self.files.items() if path.parent == begun.DIRECTORY]
        others = {path: self.files[path] for path in self.files if path.parent != begun.DIRECTORY}
        # Notes are called by processes, and cookies have a number at random.
        kinds = sorted(data if b"cookie" not in data else b"cookie" for data in notes)
        found = sha256(repr((self.devices, self.cookies, others, kinds)).encode())
        for data in self.disks.values():
            found.update(data)
        return found.hexdigest()


@dataclass(frozen=True)
class Bench:
    """Two disks."""

    main: Path
    spare: Path

    @property
    def written(self) -> list[Path]:
        """Those that anything is written to: a disk that is adopted is not."""
        return [disk for disk in (self.main, self.spare) if disk.name.startswith("loop")]

    def state(self) -> State:
        disks = {disk: backing_file(disk).read_bytes() for disk in self.written}
        return State(devices(), udev_cookies(), files(), disks)

    def clear(self) -> None:
        """Have nothing run and no file, whatever was left."""
        for name in dm_names():
            if dmioctl.info(name).suspended:
                dmioctl.resume(name)
            dm.remove(name)
        if udev_cookies():
            run("dmsetup", "udevcomplete_all", "-y")
        for path in files():
            path.unlink()

    def restore(self, to: State) -> None:
        """Put disks and files back."""
        self.clear()
        for path, data in to.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        for disk, data in to.disks.items():
            with backing_file(disk).open("r+b") as file:
                if file.read() != data:
                    file.seek(0)
                    file.write(data)


# Commands


Start = Callable[..., cutting.Ended]
"""Has a child do a command, or what is left of it: cutting.fork() with other words."""


def command(words: Sequence[object]) -> Callable[[], int]:
    """Return what does a command."""
    return partial(main, [*map(str, words), "-o", "json"])


def ctl(*words: object) -> cutting.Ended:
    """Have dmremapctl do something in a child."""
    return cutting.run(command(words))


class _Child(BaseException):
    """Leaves what only the parent does."""


class Asked(io.TextIOWrapper):
    """A terminal: who reads an answer from it goes on in children, and is told no at the end.

    So what is done before the question is done once for all of them.
    """

    def __init__(self, work: Callable[[Start], None]) -> None:
        super().__init__(io.BytesIO())
        self._work = work
        self.asked = False

    def isatty(self) -> bool:
        return True

    def readline(self, _size: int = -1, /) -> str:  # type: ignore[override]
        self.asked = True
        try:
            self._work(self._start)
        except _Child:
            return "y\n"
        return "n\n"

    @staticmethod
    def _start(**how: Any) -> cutting.Ended:
        ended = cutting.fork(**how)
        if ended is None:
            raise _Child
        return ended


def in_children(words: Sequence[object], work: Callable[[Start], None]) -> None:
    """Do some work to which it is given how to start a command in a child."""
    if words[0] not in ("create", "adopt"):
        work(partial(cutting.run, command(words)))
        return
    parent, said, before = os.getpid(), io.StringIO(), sys.stdin
    sys.stdin = asked = Asked(work)
    try:
        with redirect_stdout(said), redirect_stderr(said):
            status = command(words)()
            if os.getpid() != parent:
                cutting.end(lambda: status)
    finally:
        sys.stdin = before
    assert asked.asked, said.getvalue()


def done(ended: cutting.Ended) -> None:
    assert ended.status == 0, ended.out + ended.err


@dataclass(frozen=True)
class Case:
    """A command, what there is before it, and how it is known that it is done.

    `table` runs before. `fresh`: it makes a set, of which a signal that stops it leaves nothing.
    """

    bench: Bench
    words: tuple[object, ...]
    before: State
    goal: Callable[[], bool]
    table: str = ""
    fresh: bool = False
    known: set[str] = field(default_factory=set)
    """States from which it has gone on well."""

    def set_up(self) -> State:
        self.bench.restore(self.before)
        if self.table:
            start, length, kind, params = self.table.split(maxsplit=3)
            line = dm.Target(int(start), int(length), kind, params)
            dm.create(NAME, dm_uuid(params.split()[-1]), [line])
        return self.bench.state()

    def cut(self, start: Start, at: int, cut: cutting.Cut, call: cutting.Call) -> str:
        """Cut it short; return what is wrong then, if anything is."""
        before = self.set_up()
        ended = start(at=at, cut=cut)
        assert not ended.hung, ended
        assert ended.status == -signal.SIGKILL or cut[0] != signal.SIGKILL, ended
        assert [one.name for one in ended.calls[at : at + 1]] == [call.name], (ended, call)
        after = self.bench.state()
        if ended.status == -signal.SIGKILL:
            # Nobody has open what is about to be removed.
            problem = "" if self.words[0] == "remove" else suspended(after)
            return problem or ("" if after == before else self.go_on(after))
        if ended.status not in (0, 130):
            return f"ended with {ended.status}: {ended.out}{ended.err}"
        problem = suspended(after)
        if problem or after == before:
            return problem
        if self.goal():
            return self.left()
        for what in ("devices", "cookies", "files"):
            if getattr(after, what) != getattr(before, what):
                return f"{what} are not as before: {after}"
        if self.fresh and any(MAGIC in data for data in after.disks.values()):
            return "some of the set is on its disks"
        return self.go_on(after)

    def go_on(self, state: State) -> str:
        """Run it again, or what it says is to be run; return what is wrong then."""
        digest = state.digest()
        if digest in self.known:
            return ""
        if suspended(state):
            # It was to be removed. Whoever starts it instead finds it at work.
            done(ctl("assemble", NAME))
            if not running():
                return f"started: {devices()}"
        words = (*self.words, *(["--yes"] if self.words[0] in ("create", "adopt") else []))
        ended = ctl(*words)
        if ended.status:
            error = json.loads(ended.out)["error"]
            if self.goal() and error["code"] in DONE:
                pass  # it runs, or is stopped, and that is what is said
            elif self.words[0] not in ("create", "adopt") or error["code"] != "DMR-E504":
                return f"again: {error}"
            else:
                assert "'dmremapctl assemble'" in error["hint"], error
                assert "--force" in error["hint"], error
                second = ctl("assemble", NAME)
                if second.status:
                    third = ctl(*words, "--force")
                    if third.status:
                        return f"again: {error}\n{second.out}\n{third.out}"
        problem = self.left()
        if not problem:
            self.known.add(digest)
        return problem

    def left(self) -> str:
        """Return what there is that should not be, after a command that is done."""
        if not self.goal():
            return "it is not done"
        after = self.bench.state()
        if after.devices != ([] if self.words[0] == "remove" else RUNS):
            return f"devices: {after.devices}"
        if after.cookies:
            return f"{after.cookies} cookies are left"
        sb = read_superblock(self.bench.spare)
        # That the set runs may be known before its epoch is.
        rule, epoch = udevrule.path_of(sb.uuid), seen.path_of(sb.uuid)
        if others := set(after.files) - {rule, epoch}:
            return f"files: {others}"
        return "" if sb.tagged or rule in after.files else "the rule is missing"


def suspended(state: State) -> str:
    return "a device is suspended" if any(one.suspended for one in state.devices) else ""


def running() -> bool:
    return NAME in dm_names() and devices() == RUNS and status(NAME).mode == "rw"


def stopped() -> bool:
    return NAME not in dm_names()


# Which


def place(call: cutting.Call) -> cutting.Call:
    """Return a call with the frames that count: not those of who has only passed it on."""
    where = [line for line in call.where if not line.startswith(("cli/", "api/"))]
    if where and where[0].startswith("host/begun.py"):  # its notes are all alike
        where = where[:1]
    return cutting.Call(call.name, tuple(where[:3]))


TRIED: set[cutting.Call] = set()
"""A file's tests share it: what several commands have in common is tried once."""


def chosen(call: cutting.Call) -> bool:
    """Say whether a place is tried by default; with udevd only what is there because of it is."""
    udev = call.name.startswith("sem") or any("udevrule.py:_apply" in line for line in call.where)
    return udev or not udevrule.CONTROL.exists()


def ways(count: int, *, long: bool) -> list[str]:
    """Return how a place is tried, of which there were so many before: killed, and one more."""
    first, *others = SIGNALS
    return list(SIGNALS) if long else [first, others[count % len(others)]]


def try_all(case: Case, *, long: bool) -> None:
    problems: list[str] = []
    said: list[str] = []

    def work(start: Start) -> None:
        case.set_up()
        listed = start(places=True)
        done(listed)
        assert not case.left()
        calls = [place(call) for call in listed.calls]
        begun = time.monotonic()
        count = cuts = 0
        for at, call in enumerate(calls):
            if not long and (call in TRIED or not chosen(call)):
                continue
            TRIED.add(call)
            for how in ways(count, long=long):
                problem = case.cut(start, at, SIGNALS[how], call)
                if problem:
                    problems.append(f"{how} before call {at}, {call}\n    {problem}")
                cuts += 1
            count += 1
        said.append(f"{case.words[0]}: {len(calls)} calls at {len(set(calls))} places")
        said.append(f"{count} tried, {cuts} cuts in {time.monotonic() - begun:.1f} s")

    in_children(case.words, work)
    print(", ".join(said))
    case.bench.restore(blank(case.bench))
    assert not problems, "\n".join(problems)


# The cases


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """Have all imported that these commands need, and the library ready."""
    for verb in ("create", "adopt", "assemble", "remove", "grow"):
        importlib.import_module(f"dmremap.cli.{verb}")
    for module in pkgutil.iter_modules(sets.__path__, "dmremap.sets."):
        importlib.import_module(module.name)
    dm.list_devices()


@pytest.fixture
def blank_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have wipefs not asked what is on blank disks: that takes a third of the time."""
    monkeypatch.setattr(blockdev, "signatures", lambda _path: [])


@pytest.fixture(scope="module", autouse=True)
def _few_rules() -> Iterator[None]:
    """Have udevd do what device-mapper needs, and nothing that takes its time."""
    if not udevrule.CONTROL.exists():
        yield
        return
    masks = Path("/run/udev/rules.d")
    masks.mkdir(exist_ok=True)
    for path in Path("/lib/udev/rules.d").glob("*.rules"):
        if path.name not in ("50-udev-default.rules", "55-dm.rules", "95-dm-notify.rules"):
            (masks / path.name).symlink_to("/dev/null")
    run("udevadm", "control", "--reload")
    yield
    shutil.rmtree(masks)
    run("udevadm", "control", "--reload")


@pytest.fixture(scope="module")
def tagged() -> Iterator[Bench]:
    with loop_device(MAIN) as main_disk, loop_device(SPARE) as spare:
        yield Bench(main_disk, spare)


@pytest.fixture(scope="module")
def adopted() -> Iterator[Bench]:
    """Main is a disk with an id."""
    with scsi_debug("dev_size_mb=2") as main_disk, loop_device(SPARE) as spare:
        yield Bench(main_disk, spare)


def blank(bench: Bench) -> State:
    disks = {disk: bytes(backing_file(disk).stat().st_size) for disk in bench.written}
    return State([], 0, {}, disks)


def create_words(bench: Bench, verb: str = "create") -> tuple[object, ...]:
    sizes = ("--spare-size", f"{AREA // 1024}K")
    return verb, bench.main, bench.spare, "--name", NAME, *sizes


def made(bench: Bench, verb: str) -> State:
    """Return a set that does not run."""
    bench.restore(blank(bench))
    done(ctl(*create_words(bench, verb), "--yes"))
    done(ctl("remove", NAME))
    return bench.state()


def line() -> str:
    """Return the table of a set that does not run."""
    done(ctl("assemble", NAME))
    (found,) = dm.table(NAME)
    done(ctl("remove", NAME))
    return str(found)


@pytest.mark.usefixtures("blank_disks")
def test_adopt(adopted: Bench, long: bool) -> None:
    words = create_words(adopted, "adopt")
    try_all(Case(adopted, words, blank(adopted), running, fresh=True), long=long)


def test_create(tagged: Bench, long: bool) -> None:
    """Over something that wipefs knows, so that this is destroyed first."""
    tagged.restore(blank(tagged))
    for disk in (tagged.main, tagged.spare):
        run("mkswap", backing_file(disk))
    words = (*create_words(tagged), "--force")
    try_all(Case(tagged, words, tagged.state(), running, fresh=True), long=long)


def test_assemble(adopted: Bench, long: bool) -> None:
    words = ("assemble", NAME, "--remap-rate", "7")
    try_all(Case(adopted, words, made(adopted, "adopt"), running), long=long)


def test_remove(adopted: Bench, long: bool) -> None:
    before, text = made(adopted, "adopt"), line()
    try_all(Case(adopted, ("remove", NAME), before, stopped, text), long=long)


@pytest.mark.usefixtures("blank_disks")
def test_grow(tagged: Bench, long: bool) -> None:
    before, text = made(tagged, "create"), line()

    def grown() -> bool:
        return running() and table(NAME).spare_len > AREA // 512

    try_all(Case(tagged, ("grow", NAME, "--yes"), before, grown, text), long=long)
