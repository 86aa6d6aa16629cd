# SPDX-License-Identifier: GPL-2.0-only
"""Running the user's program when something happened.

The program gets no arguments and everything it needs in its environment, so
that no name of a device is ever parsed by a shell.  It cannot hold the monitor
up: it runs in a session of its own, at most `concurrency` at a time, and when
its time is over all that is in that session is killed, also what the program
has left behind when it ended.  For one set and one kind of event it starts at
most once in `interval` seconds; what happens in between is added up and told by
one later run, so the last state always arrives.
"""

import contextlib
import logging
import os
import signal
import subprocess
import time
from dataclasses import dataclass, replace

from dmremap.host import run
from dmremap.monitor.tracker import Event

log = logging.getLogger(__name__)

# Seconds that the end of the monitor waits for hooks that it has killed.
_LAST_WAIT = 1.0
# Seconds between two looks at what a hook that ended has left behind: nothing tells when it ends.
_LEFT_BEHIND = 1.0

_STATUS_FIELDS = (
    "mode",
    "unit",
    "mapped",
    "slots",
    "free",
    "lost",
    "pending",
    "bad",
    "doubt",
    "copies",
    "read_errors",
    "write_errors",
    "transient",
    "remapped",
    "breaker",
    "moved",
    "gone",
    "flush_errors",
    "main",
    "spare",
    "seq",
)


def environment(event: Event) -> dict[str, str]:
    """What a hook is told, all of it strings.

    DMREMAP_START is in sectors of the mapped device and DMREMAP_UNIT in bytes.
    What is not known (a set that is gone, an event about no one target, what an
    older module does not say) is left out.
    """
    env = {
        "DMREMAP_EVENT": event.kind,
        "DMREMAP_NAME": event.name,
        "DMREMAP_UUID": event.uuid,
        "DMREMAP_DEVICE": event.device,
        "DMREMAP_COUNT": str(event.count),
        "DMREMAP_MESSAGE": event.sentence,
    }
    if event.verdict is not None:
        env["DMREMAP_STATE"] = event.verdict.state.name
        env["DMREMAP_CODES"] = " ".join(reason.code for reason in event.verdict.reasons)
    if event.start is not None:
        env["DMREMAP_START"] = str(event.start)
    if event.status is not None:
        for field in _STATUS_FIELDS:
            if (value := getattr(event.status, field)) is not None:
                env[f"DMREMAP_{field.upper()}"] = str(value)
    return env


@dataclass(slots=True)
class _Running:
    """A hook at work.  deadline: on the monotonic clock, seconds; None once it was killed.

    left: the program has ended, and others of its session have not.  It is not reaped then: until
    it is, its id, which is the session's, cannot belong to anything else.
    """

    process: subprocess.Popen[bytes]
    event: Event
    deadline: float | None
    pidfd: int
    left: bool = False

    @property
    def ended(self) -> bool:
        """Whether the program has ended, reaped or not."""
        if self.process.returncode is not None:
            return True
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PIDFD, self.pidfd, options) is not None

    def others(self) -> list[int]:
        """Return the processes of its session that live, without the program itself."""
        leader = self.process.pid
        return [pid for pid in run.session(leader) if pid != leader]


_Key = tuple[str, str]


class Hooks:
    """Starts hooks, watches over them and holds back what comes too fast.

    timeout, interval: seconds.  `now` is always the monotonic clock, passed in.
    """

    def __init__(
        self,
        program: str,
        *,
        timeout: float = 30.0,
        concurrency: int = 4,
        interval: float = 10.0,
    ) -> None:
        """Keep the limits; nothing is started before the first `step`."""
        self._program = program
        self._timeout = timeout
        self._concurrency = concurrency
        self._interval = interval
        self._base_env = run.environment()
        self._waiting: dict[_Key, Event] = {}
        self._started: dict[_Key, float] = {}
        self._running: list[_Running] = []

    def submit(self, event: Event) -> None:
        """Take an event; `step` starts its hook when its turn has come."""
        of = event.uuid or event.name
        for key in [key for key in self._waiting if key[0] == of]:
            # What a set was is told no more when it is gone, nor that it was gone when it is back.
            if event.kind == "removed" or (event.kind, key[1]) == ("assembled", "removed"):
                del self._waiting[key]
        key = (of, event.kind)
        earlier = self._waiting.get(key)
        if earlier is not None:
            event = replace(event, count=event.count + earlier.count)
        self._waiting[key] = event

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits.

        What was killed and does not end counts for nothing, nor does what was left behind.
        """
        return not self._waiting and all(
            hook.left or hook.deadline is None for hook in self._running
        )

    @property
    def _room(self) -> bool:
        return sum(not hook.left for hook in self._running) < self._concurrency

    def filenos(self) -> list[int]:
        """Descriptors that become readable when a hook ends."""
        return [hook.pidfd for hook in self._running if not hook.left]

    def step(self, now: float, *, draining: bool = False) -> None:
        """Collect hooks that ended, kill those out of time, start what is due.

        draining: the monitor is about to end; what waits only because of the
        interval is started at once.
        """
        self._collect(now)
        for key in list(self._waiting):
            if not self._room:
                break
            last = self._started.get(key)
            if draining or last is None or now - last >= self._interval:
                self._started[key] = now
                self._start(self._waiting.pop(key), now)
        # Bounded by what is recent, not by how many sets there ever were.
        self._started = {k: t for k, t in self._started.items() if now - t < self._interval}

    def next_step(self, now: float) -> float | None:
        """Seconds until `step` has something to do on its own, None if never."""
        times = [hook.deadline for hook in self._running if hook.deadline is not None]
        times += [now + _LEFT_BEHIND for hook in self._running if hook.left]
        if self._room:
            times += [self._started.get(key, now) + self._interval for key in self._waiting]
        return max(0.0, min(times) - now) if times else None

    def close(self) -> None:
        """Kill what still runs and forget what waits."""
        for hook in self._running:
            self._kill(hook)
        end = time.monotonic() + _LAST_WAIT
        for hook in self._running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                hook.process.wait(max(0.0, end - time.monotonic()))
            self._reap(hook)
        self._running.clear()
        self._waiting.clear()

    def _start(self, event: Event, now: float) -> None:
        try:
            process = subprocess.Popen(
                [self._program],
                env=self._base_env | environment(event),
                stdin=subprocess.DEVNULL,
                # Standard output is the monitor's own, for its lines only.
                stdout=2,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            log.warning("hook %s cannot be started: %s", self._program, error.strerror)
            return
        self._running.append(
            _Running(process, event, now + self._timeout, os.pidfd_open(process.pid))
        )

    def _collect(self, now: float) -> None:
        still: list[_Running] = []
        for hook in self._running:
            if hook.deadline is not None and now >= hook.deadline:
                if not hook.ended:
                    self._warn(hook, f"took more than {self._timeout:g} s and was killed")
                self._kill(hook)
            if not hook.ended:
                still.append(hook)
                continue
            if not hook.left and hook.process.returncode is None:
                self._told(hook)
            hook.left = bool(hook.others())
            if hook.left and hook.deadline is not None:
                still.append(hook)
            else:
                self._reap(hook)
        self._running = still

    def _told(self, hook: _Running) -> None:
        """Say how a program ended, if not well."""
        found = os.waitid(os.P_PIDFD, hook.pidfd, os.WEXITED | os.WNOWAIT)
        if found and found.si_code == os.CLD_EXITED and found.si_status:
            self._warn(hook, f"ended with exit status {found.si_status}")

    def _warn(self, hook: _Running, what: str) -> None:
        event = hook.event
        log.warning("hook %s for %s of %s %s", self._program, event.kind, event.name, what)

    @staticmethod
    def _kill(hook: _Running) -> None:
        """Kill all that is in the hook's session, without waiting for it.

        Who waits for a disk that does not answer ends when the disk answers;
        poll finds out.
        """
        hook.deadline = None
        if hook.process.returncode is None:
            # The group at once, and then who has left it.
            os.killpg(hook.process.pid, signal.SIGKILL)
            for pid in run.session(hook.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    @staticmethod
    def _reap(hook: _Running) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            hook.process.wait(0)
        os.close(hook.pidfd)
