# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's words for a disk, its faults, and how the guest's instructions are run."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from harness import accel, disks
from harness.accel import Accel
from harness.disks import ALL, Disk, Faults
from harness.errors import HarnessError

HERE = Path("/images")


def test_each_failing_sector_is_one_rule_for_each_direction() -> None:
    rules = Faults(read={8, 1}, write={5}, errno=61).rules()
    found = [(rule["iotype"], rule["sector"], rule["errno"]) for rule in rules]
    assert found == [("read", 1, 61), ("read", 8, 61), ("write", 5, 61)]
    assert {rule["event"] for rule in rules} == {"none"}
    assert not any(rule["once"] for rule in rules)


def test_a_rule_without_a_sector_fails_everything() -> None:
    rules = Faults(write=ALL, flush=True, once=True).rules()
    assert [rule["iotype"] for rule in rules] == ["write", "flush"]
    assert all("sector" not in rule and rule["once"] for rule in rules)


def test_too_many_rules_are_refused() -> None:
    with pytest.raises(HarnessError, match="at most"):
        Faults(read=frozenset(range(disks.MAX_RULES + 1))).rules()


def test_a_disk_without_faults_has_no_rules() -> None:
    assert "inject-error" not in disks.fault_node(Disk(name="main"), 0, Faults())


@pytest.mark.parametrize("name", ["", "Main", "main-1", "a" * 21, "1st"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(HarnessError, match="a name is"):
        Disk(name=name)


def test_a_size_is_a_multiple_of_the_block() -> None:
    with pytest.raises(HarnessError, match="multiple"):
        Disk(name="main", size=6144, logical_block=4096)


def test_each_kind_has_its_device() -> None:
    kinds = [
        Disk(name="a"),
        Disk(name="b", kind="scsi", dpofua=True, wwn=0x5000C50000000001, write_cache=False),
        Disk(name="c", kind="nvme", logical_block=4096),
    ]
    virtio, scsi, nvme = (disks.device(disk) for disk in kinds)
    assert virtio["driver"] == "virtio-blk-pci"
    assert virtio["write-cache"] == "on"
    assert virtio["serial"] == "a"
    assert scsi["dpofua"] is True
    assert scsi["wwn"] == 0x5000C50000000001
    assert scsi["write-cache"] == "off"
    assert nvme["logical_block_size"] == nvme["physical_block_size"] == 4096
    assert "werror" not in nvme


def test_one_controller_serves_all_scsi_disks() -> None:
    pair = [Disk(name="a", kind="scsi"), Disk(name="b", kind="scsi")]
    argv = disks.arguments(pair, {disk.name: disk.faults for disk in pair}, HERE)
    assert argv.count("virtio-scsi-pci,id=scsi") == 1
    nodes = [json.loads(after) for word, after in pairwise(argv) if word == "-blockdev"]
    assert [node["driver"] for node in nodes] == ["file", "blkdebug", "raw"] * 2
    assert nodes[0]["filename"] == "/images/a.img"


def test_a_throttled_disk_has_a_node_between_data_and_faults() -> None:
    slow = Disk(name="a", throttle=50_000_000)
    argv = disks.arguments([slow], {"a": slow.faults}, HERE)
    (limit,) = (json.loads(after) for word, after in pairwise(argv) if word == "-object")
    assert limit["limits"] == {"bps-total": 50_000_000}
    nodes = [json.loads(after) for word, after in pairwise(argv) if word == "-blockdev"]
    assert [node["driver"] for node in nodes] == ["file", "throttle", "blkdebug", "raw"]
    assert nodes[1]["throttle-group"] == limit["id"]
    assert [node["node-name"] for node in nodes[:2]] == [nodes[1]["file"], nodes[2]["image"]]


def test_a_disk_behind_a_server() -> None:
    node = disks.bottom_node(Disk(name="a", nbd="nbd+unix:///leg?socket=/run/x.sock"), HERE)
    assert node["server"] == {"type": "unix", "path": "/run/x.sock"}
    assert node["export"] == "leg"
    with pytest.raises(HarnessError, match="expected"):
        disks.bottom_node(Disk(name="a", nbd="nbd://host/"), HERE)


def test_an_image_is_sparse_and_kept(tmp_path: Path) -> None:
    disk = Disk(name="main", size=1 << 30)
    disk.create(tmp_path)
    image = tmp_path / "main.img"
    assert image.stat().st_size == 1 << 30
    assert image.stat().st_blocks == 0
    with image.open("r+b") as file:
        file.write(b"kept")
    disk.create(tmp_path)

    with image.open("rb") as file:
        assert file.read(4) == b"kept"


def test_kvm_is_used_only_where_a_guest_has_booted() -> None:
    assert accel.verdict(accessible=True, booted=True, detail="").name == "kvm"
    lying = accel.verdict(accessible=True, booted=False, detail="failed to set MSR")
    assert lying.name == "tcg"
    assert "failed to set MSR" in lying.reason
    assert accel.verdict(accessible=False, booted=None, detail="").name == "tcg"


def test_a_verdict_is_kept_by_host_and_qemu(tmp_path: Path) -> None:
    one, other = (accel.cache_name("6.1", version) for version in ("7.2 (Debian)", "8.0"))
    assert one != other
    assert "/" not in accel.cache_name("a/b", "c/d")
    path = tmp_path / one
    assert accel.read_cache(path) is None
    accel.write_cache(path, Accel("kvm", "why"))
    assert accel.read_cache(path) == Accel("kvm", "why")
    path.write_text("half a")
    assert accel.read_cache(path) is None


def test_counting_instructions_needs_one_emulated_cpu_thread() -> None:
    kvm = Accel("kvm", "")
    assert kvm.arguments("multi", icount=False) == ["-accel", "kvm", "-cpu", "max"]
    assert kvm.arguments("multi", icount=True)[:2] == ["-accel", "tcg,thread=single"]
    assert accel.TCG.arguments("multi", icount=False)[:2] == ["-accel", "tcg,thread=multi"]
