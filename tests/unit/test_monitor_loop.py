# SPDX-License-Identifier: GPL-2.0-only
"""The monitor's loop over a source and a kernel that do as they are told."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from dmremap import dm
from dmremap.dm.lines import parse_status
from dmremap.errors import Failure, KernelError, PermissionDenied
from dmremap.monitor import loop
from dmremap.monitor.loop import Monitor, Options
from dmremap.monitor.sources import Hint, SourceError
from dmremap.monitor.tracker import Event, SetSnapshot

STATUS = (
    "rw 512 {mapped}/1000 lost=0 pending=0 bad=0 free=900 doubt=0 read_errors=0 write_errors=0 "
    "transient=0 remapped=0 copies=0 identity=tag seq={seq}"
)


def one_set(mapped: int = 0, seq: int = 0) -> dict[str, SetSnapshot]:
    status = parse_status(0, 8192, STATUS.format(mapped=mapped, seq=seq))
    return {"k": SetSnapshot("k", "data", "/dev/mapper/data", "", (status,))}


class FakeSource:
    """A pipe; each byte is a hint, `!` breaks it."""

    name = "fake"

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK)
        self.closed = False

    def fileno(self) -> int:
        return self._read

    def read(self) -> Iterator[Hint]:
        try:
            got = os.read(self._read, 100)
        except BlockingIOError:
            return
        if b"!" in got:
            raise SourceError("overflow")
        for _ in got:
            yield Hint("data", "remapped")

    def hint(self, what: bytes = b".") -> None:
        os.write(self._write, what)

    def close(self) -> None:
        self.closed = True
        os.close(self._read)


class World:
    """What the monitor sees.  A look may be a state or an error to raise."""

    def __init__(self) -> None:
        self.looks: list[dict[str, SetSnapshot] | Exception] = [{}]
        self.scans = 0
        self.sources: list[FakeSource] = []
        self.events: list[Event] = []

    def scan(self) -> dict[str, SetSnapshot]:
        self.scans += 1
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(look, Exception):
            raise look
        return look

    def open_source(self, _choice: str) -> FakeSource:
        self.sources.append(FakeSource())
        return self.sources[-1]

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def run(self, **options: float | bool | None) -> None:
        Monitor(Options(**options)).run(self.events.append)  # type: ignore[arg-type]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()

    def no_poller() -> None:
        raise KernelError("DMR-E701", "none here")

    monkeypatch.setattr(loop, "scan", made.scan)
    monkeypatch.setattr(loop, "open_source", made.open_source)
    monkeypatch.setattr(dm, "EventPoller", no_poller)
    return made


def when(condition: Callable[[], bool], action: Callable[[], None]) -> None:
    """Do something from another thread as soon as something is so."""

    def work() -> None:
        end = time.monotonic() + 10
        while not condition() and time.monotonic() < end:
            time.sleep(0.005)
        action()

    threading.Thread(target=work, daemon=True).start()


def stop(number: int = signal.SIGTERM) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def test_once(world: World) -> None:
    world.looks = [one_set()]
    world.run(once=True)
    assert world.kinds == ["found"]
    assert world.sources[0].closed


def test_a_hint_makes_it_look(world: World) -> None:
    world.looks = [one_set(), one_set(mapped=1, seq=1)]
    when(lambda: world.scans == 1, lambda: world.sources[-1].hint(b"."))
    world.run(count=2, rescan=3600)
    assert world.kinds == ["found", "remapped"]


def test_without_any_hint_the_timer_finds_it(world: World) -> None:
    world.looks = [one_set(), one_set(mapped=1, seq=1)]
    begin = time.monotonic()
    world.run(count=2, rescan=0.2)
    assert world.kinds == ["found", "remapped"]
    assert time.monotonic() - begin < 5


def test_a_source_that_breaks_is_replaced_and_everything_is_scanned(world: World) -> None:
    world.looks = [one_set(), one_set(mapped=1, seq=1)]
    when(lambda: world.scans == 1, lambda: world.sources[0].hint(b"..!"))
    world.run(count=2, rescan=3600)
    assert world.kinds == ["found", "remapped"]
    assert len(world.sources) == 2
    assert world.sources[0].closed


def test_a_state_that_cannot_be_read_is_no_change(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.looks = [one_set(), Failure("DMR-E106", "what is this"), one_set(mapped=1, seq=1)]
    world.run(count=2, rescan=0.1)
    assert world.kinds == ["found", "remapped"]
    assert "what is this" in caplog.text


def test_no_device_mapper_is_no_set(world: World) -> None:
    world.looks = [one_set(), KernelError("DMR-E701", "gone"), one_set()]
    world.run(count=3, rescan=0.1)
    assert world.kinds == ["found", "removed", "assembled"]


def test_permission_is_an_error(world: World) -> None:
    world.looks = [PermissionDenied("DMR-E601", "no")]
    with pytest.raises(PermissionDenied):
        world.run()
    assert world.sources[0].closed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(world: World, number: int) -> None:
    before = signal.getsignal(number)
    when(lambda: world.scans == 1, stop(number))
    begin = time.monotonic()
    world.run(rescan=3600)
    assert time.monotonic() - begin < 5
    assert world.kinds == []
    assert signal.getsignal(number) is before


def test_waiting_costs_nothing(world: World) -> None:
    begin, started = time.process_time(), time.monotonic()
    when(lambda: time.monotonic() - started > 0.5, stop())
    world.run(rescan=3600)
    assert world.scans == 1
    assert time.process_time() - begin < 0.4
