# SPDX-License-Identifier: GPL-2.0-only
"""The rule for an adopted disk."""

from pathlib import Path
from uuid import UUID

import pytest

from dmremap.errors import Failure
from dmremap.host.blockdev import DeviceFacts
from dmremap.sets import udevrule

SET = UUID("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0")


def rule_line(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("SUBSYSTEM"))


def test_whole_disk() -> None:
    text = udevrule.render(SET, "home", "wwid", "naa.5000c500a1b2c3d4", 1 << 20, None)
    assert rule_line(text) == (
        'SUBSYSTEM=="block", KERNEL!="dm-*", ATTRS{wwid}=="naa.5000c500a1b2c3d4", '
        'ENV{UDEV_DISABLE_PERSISTENT_STORAGE_BLKID_FLAG}="1", '
        'ENV{ID_FS_TYPE}="dm_remap_member", ENV{SYSTEMD_READY}="0"'
    )
    assert text.count("dmremap_0f1e2d3c_4b5a_6978_8796_a5b4c3d2e1f0_end") == 2


def test_partition_is_told_apart_from_its_neighbours() -> None:
    line = rule_line(udevrule.render(SET, "home", "serial", "S1", 4096, 2048))
    assert 'ATTR{start}=="2048", ATTR{size}=="4096"' in line


def test_a_value_cannot_break_out_of_its_quotes() -> None:
    line = rule_line(udevrule.render(SET, "home", "wwid", 't10.A "x" [1]*  ', 8, None))
    assert 'ATTRS{wwid}=="t10.A ?x? ?1??"' in line


def test_a_rule_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "rules.d").touch()
    rule = udevrule.Rule(tmp_path / "rules.d" / "59.rules", "", "/dev/sda")
    with pytest.raises(Failure, match="cannot write"):
        rule.install()


def test_no_rule_for_a_disk_without_a_name(tmp_path: Path) -> None:
    disk = tmp_path / "devices" / "vda"
    (tmp_path / "dev" / "block").mkdir(parents=True)
    disk.mkdir(parents=True)
    (tmp_path / "dev" / "block" / "254:0").symlink_to(disk)
    facts = DeviceFacts("/dev/vda", name="vda", devno=(254, 0), sectors=8)
    assert udevrule.make(SET, "home", facts, tmp_path) is None
    (disk / "serial").write_text("disk-one\n")
    rule = udevrule.make(SET, "home", facts, tmp_path)
    assert rule is not None
    assert rule.path.name == f"59-dmremap-{SET}.rules"
    assert 'ATTRS{serial}=="disk-one"' in rule.text
