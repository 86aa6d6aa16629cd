# SPDX-License-Identifier: GPL-2.0-only
"""Signals that wait."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from dmremap.host import signals

pytestmark = pytest.mark.usefixtures("interruptible")


@pytest.fixture(autouse=True)
def another_thread() -> Iterator[None]:
    """Have a thread that takes signals, as one that draws progress does."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    yield
    done.set()
    thread.join()


def interrupt() -> None:
    """Send the process a signal, and wait until whichever thread takes it has it."""
    os.kill(os.getpid(), signal.SIGINT)
    end = time.monotonic() + 10
    while not signals.ending():
        assert time.monotonic() < end


def test_a_signal_comes_after_the_block() -> None:
    done = []

    def work() -> None:
        with signals.held(signals.ENDING):
            assert not signals.ending()
            interrupt()
            interrupt()
            done.append("all")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["all"]
    assert not signals.ending()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_blocks_within_each_other_end_with_the_outer_one() -> None:
    done = []

    def work() -> None:
        with signals.held():
            with signals.held(signals.ENDING):
                interrupt()
            done.append("inner")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["inner"]


def test_what_went_wrong_is_told_with_it() -> None:
    def work() -> None:
        with signals.held():
            interrupt()
            raise ValueError

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert isinstance(caught.value.__context__, ValueError)


def test_what_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.held():
            os.kill(os.getpid(), signal.SIGHUP)
            assert not signals.ending()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
