# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's reasons, out of its log."""

from dmremap.dm.kernellog import parse_record, reasons


def test_record() -> None:
    assert parse_record("3,812,99,-;device-mapper: x\n SUBSYSTEM=block\n") == "device-mapper: x"


def test_a_targets_sentence_comes_first_and_once() -> None:
    lines = [
        "device-mapper: remap: dm-0: something on the way",
        "device-mapper: table: 253:0: remap: spare area is not blank (-EINVAL)",
        "device-mapper: ioctl: error adding target to table",
        "device-mapper: table: 253:0: remap: spare area is not blank (-EINVAL)",
        "usb 1-1: new device",
    ]
    assert reasons(lines, 253, 0) == [
        "spare area is not blank",
        "remap: dm-0: something on the way",
    ]


def test_what_is_said_about_another_device_is_no_reason() -> None:
    lines = [
        "device-mapper: table: 253:1: linear: Device lookup failed (-ENODEV)",
        "device-mapper: table: 253:10: remap: main 253:1 is too small (-EINVAL)",
        "device-mapper: remap: dm-12: block 3 of the spare area cannot be read",
        "device-mapper: ioctl: unable to set up device queue for new table.",
    ]
    assert reasons(lines, 253, 1) == ["Device lookup failed"]
    assert reasons(lines, 253, 10) == ["main 253:1 is too small"]
    assert reasons(lines, 253, 2) == []
    assert reasons(lines, 253, 12) == ["remap: dm-12: block 3 of the spare area cannot be read"]


def test_a_reason_may_have_brackets_and_no_errno() -> None:
    lines = ["device-mapper: table: 253:10: linear: Invalid (device) sector"]
    assert reasons(lines, 253, 10) == ["Invalid (device) sector"]


def test_unknown_target() -> None:
    lines = ["device-mapper: table: 253:0: nosuch: unknown target type"]
    assert reasons(lines, 253, 0) == ["unknown target type"]
