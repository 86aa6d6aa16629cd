# SPDX-License-Identifier: GPL-2.0-only
"""A udevd that does not answer in time."""

import os
import signal
from types import SimpleNamespace

import pytest

from dmremap.dm import device, take_warnings
from dmremap.host import signals


def test_a_late_udevd_is_a_warning_and_undoes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    completed: list[int] = []
    monkeypatch.setattr(device, "UDEV_TIMEOUT", 0.0)
    monkeypatch.setattr(
        device,
        "lib",
        SimpleNamespace(
            dm_udev_wait_immediate=lambda _cookie, _ready: 1,
            dm_udev_complete=completed.append,
            dm_task_update_nodes=lambda: None,
            dmr_take_log=lambda _buffer, _size: 0,
        ),
    )
    take_warnings()
    with device._cookie("home") as cookie:
        cookie.pointer[0] = 4711
    assert completed == [4711]
    (warning,) = take_warnings()
    assert "udevd did not confirm" in warning
    assert "home" in warning
    assert take_warnings() == ()


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_ends_the_wait_and_leaves_no_semaphore(
    monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """However often it comes, and before or while there is a wait."""
    done: list[str] = []

    def wait(_cookie: int, _ready: object) -> int:
        done.append("wait")
        if len(done) <= times:
            os.kill(os.getpid(), signal.SIGINT)
            while not signals.ending():  # whichever thread takes it
                pass
        return 1

    monkeypatch.setattr(
        device,
        "lib",
        SimpleNamespace(
            dm_udev_wait_immediate=wait,
            dm_udev_complete=lambda _cookie: done.append("complete"),
            dm_task_update_nodes=lambda: done.append("nodes"),
            dmr_take_log=lambda _buffer, _size: 0,
        ),
    )
    take_warnings()
    with pytest.raises(KeyboardInterrupt), device._cookie("home") as cookie:
        cookie.pointer[0] = 4711
    # The semaphore goes when its last reference is given back and somebody waits for it.
    # It may have to look once more if another thread has taken the signal.
    assert done[0] == "wait"
    assert done[-3:] == ["complete", "wait", "nodes"]
    assert done.count("complete") == 1
    assert take_warnings() == ()
