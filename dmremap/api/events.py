# SPDX-License-Identifier: GPL-2.0-only
"""What happens to sets."""

import datetime as dt
import os
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from dmremap.api.answer import Answer, need_root
from dmremap.dm.lines import Status
from dmremap.errors import NotFound, Usage
from dmremap.health import State
from dmremap.monitor import tracker
from dmremap.monitor.hooks import Hooks
from dmremap.monitor.loop import Monitor, Options

Source = Literal["auto", "udev", "netlink"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change of one set.

    time: when it was seen, ISO 8601 in UTC, with milliseconds.  event: its kind, see
    'dmremapctl monitor --help'.  name, device: of the mapped device, and its path.  state, codes:
    the verdict now, None and () once the set is gone.  start_sector: first sector of the target
    that it is about, of the mapped device; None if it is about the whole set.  count: blocks, slots
    or copies, as the kind says.  message: a sentence.  status: of that target now.
    """

    time: str
    event: str
    name: str
    device: str
    uuid: str | None
    state: State | None
    codes: tuple[str, ...]
    start_sector: int | None
    count: int
    message: str
    status: Status | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Events(Answer):
    """What has happened, for who wants it as one."""

    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A program to be run for each event, told by DMREMAP_* in its environment.

    timeout: seconds after which it, and all that it has started, is killed.  jobs: how many run at
    a time.  interval: seconds; for one set and one kind of event it runs at most so often, and what
    happens in between is added up.
    """

    program: str
    timeout: float = 30.0
    jobs: int = 4
    interval: float = 10.0


def events(
    *,
    source: Source = "auto",
    rescan: float = 60.0,
    count: int | None = None,
    once: bool = False,
) -> Generator[Event, None, None]:
    """Yield what happens to all sets; those that run at the start are 'found'.

    An event is a difference of two states read from the kernel, so none is made up and none that
    lasts is missed. A set may be stopped, started, reloaded or renamed meanwhile, and the module be
    unloaded: the iterator goes on. source: who tells that something happened; udevd, the kernel, or
    whichever there is. rescan: seconds after which it looks without having been told. count: end
    after so many. once: end after those that are there. What it holds is given back when it is
    closed, or no longer used.

    >>> for event in dmremap.events(once=True):
    ...     print(event.event, event.name)
    found backup

    Errors: PermissionDenied but for root.
    """
    need_root("watch sets")
    return _events(_options(source, rescan, count, once=once))


def watch(
    report: Callable[[Event], None],
    *,
    hook: Hook | None = None,
    source: Source = "auto",
    rescan: float = 60.0,
    count: int | None = None,
    once: bool = False,
) -> None:
    """Report what happens until SIGINT or SIGTERM, and run a hook for each event.

    The main thread alone may do this, for it takes these two signals. The rest is as for `events`.

    >>> dmremap.watch(lambda event: print(event.message), once=True)
    the set is OK

    Errors: those of `events`; NotFound or Usage for a hook that cannot be run.
    """
    program = _program(hook.program) if hook else ""
    need_root("watch sets")
    hooks = None
    if hook:
        hooks = Hooks(program, timeout=hook.timeout, concurrency=hook.jobs, interval=hook.interval)
    monitor = Monitor(_options(source, rescan, count, once=once), hooks)
    monitor.run(lambda event: report(_event(event)))


def _events(options: Options) -> Generator[Event, None, None]:
    with closing(Monitor(options).follow()) as found:
        yield from map(_event, found)


def _options(source: Source, rescan: float, count: int | None, *, once: bool) -> Options:
    return Options(source, rescan, count, once)


def _event(event: tracker.Event) -> Event:
    verdict = event.verdict
    return Event(
        time=dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
        event=event.kind,
        name=event.name,
        device=event.device,
        uuid=event.uuid or None,
        state=verdict.state if verdict else None,
        codes=tuple(reason.code for reason in verdict.reasons) if verdict else (),
        start_sector=event.start,
        count=event.count,
        message=event.sentence,
        status=event.status,
    )


def _program(path: str) -> str:
    """Check the hook now: in the middle of the night nobody reads a warning."""
    full = os.path.abspath(path)
    if not os.path.isfile(full):
        raise NotFound(
            "DMR-E301", f"there is no program {path!r} to run as a hook", hint="Check the path."
        )
    if not os.access(full, os.X_OK):
        raise Usage("DMR-E201", f"the hook {path!r} is not executable")
    return full
