# SPDX-License-Identifier: GPL-2.0-only
"""A udevd that does not answer in time."""

from types import SimpleNamespace

import pytest

from dmremap.dm import device, take_warnings


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
        cookie.pointer = [4711]  # type: ignore[assignment]
    assert completed == [4711]
    (warning,) = take_warnings()
    assert "udevd did not confirm" in warning
    assert "home" in warning
    assert take_warnings() == ()
