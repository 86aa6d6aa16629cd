# SPDX-License-Identifier: GPL-2.0-only
"""The virtual machines themselves: what they report is what happened in the guest."""

import time
from pathlib import Path

import pytest
from harness import accel, initramfs, probe, vmlinux
from harness.accel import TCG
from harness.command import Hardware
from harness.disks import ALL, Disk, Kind
from harness.errors import FailureKind, HarnessError, MachineFailure
from harness.fixtures import MachineFactory
from harness.kernels import Kernel
from harness.machine import CommandFailed, Machine

pytestmark = [pytest.mark.vm, pytest.mark.timeout(180)]

KINDS: dict[str, Kind] = {"vdisk": "virtio", "sdisk": "scsi", "ndisk": "nvme"}


def read(vm: Machine, name: str, sector: int) -> int:
    """Read one sector past the page cache; return dd's status."""
    argv = ["dd", f"if={vm.device(name)}", "of=/dev/null", "bs=512", f"skip={sector}", "count=1"]
    return vm.run([*argv, "iflag=direct"], check=False).status


def write(vm: Machine, name: str, sector: int) -> int:
    """Write one sector past the page cache; return dd's status."""
    argv = ["dd", "if=/dev/zero", f"of={vm.device(name)}", "bs=512", f"seek={sector}", "count=1"]
    return vm.run([*argv, "oflag=direct"], check=False).status


@pytest.mark.usually("6.12")
def test_commands(machine: MachineFactory, kernel: Kernel, tmp_path: Path) -> None:
    vm = machine()
    pieces: list[str] = []
    begin = time.monotonic()
    script = "echo one; sleep 2; echo two >&2; exit 7"
    result = vm.run(["sh", "-c", script], check=False, echo=pieces.append)
    assert result.status == 7
    assert (result.output, result.stdout, result.stderr) == ("one\ntwo\n", "one\n", "two\n")
    assert len(pieces) == 2
    assert time.monotonic() - begin > 2

    assert vm.run(["uname", "-r"]).stdout.strip() == kernel.release
    assert vm.run(["cat"], stdin="a\u00e9\n").stdout == "a\u00e9\n"
    assert vm.run(["sh", "-c", "echo $A; pwd"], env={"A": "b"}, cwd="/tmp").stdout == "b\n/tmp\n"
    assert vm.run(["sh", "-c", "kill -9 $$"], check=False).status == 137
    assert vm.run(["/no/such/program"], check=False).status == 127
    with pytest.raises(CommandFailed, match="exit status 3"):
        vm.shell("exit 3")

    # A daemon that keeps its parent's output open is not waited for.
    vm.run(["sh", "-c", "sleep 1000 & echo started"], timeout=10)
    big = vm.run(["head", "-c", "3000000", "/dev/zero"]).stdout
    assert len(big) == 3000000

    job = vm.start(["sh", "-c", "echo ready; exec sleep 1000"])
    vm.wait_for(lambda: job.output == "ready\n", 10, "ready")
    assert job.running()
    job.signal()
    assert job.wait(check=False).status == 143

    vm.write_file("/tmp/script.py", b"import sys; print(sys.argv[1:])", mode=0o600)
    assert vm.python("/tmp/script.py", "x").stdout == "['x']\n"
    assert vm.read_file("/tmp/script.py").startswith(b"import")
    with pytest.raises(HarnessError, match="No such file"):
        vm.read_file("/no/such/file")
    # The host's files are there, and safe.
    (tmp_path / "here").write_text("host")
    vm.shell(f"grep -q host {tmp_path}/here; echo guest >{tmp_path}/here")
    assert (tmp_path / "here").read_text() == "host"


@pytest.mark.usually("6.1")
def test_sectors_fail_and_heal_while_the_guest_runs(machine: MachineFactory) -> None:
    vm = machine(
        [Disk(name=n, size=1 << 20, kind=k, errno=61, bad_read={64}) for n, k in KINDS.items()]
    )
    for name in KINDS:
        assert (read(vm, name, 64), write(vm, name, 64), read(vm, name, 65)) == (1, 0, 0), name
        vm.set_bad(name, write={65})
        assert (read(vm, name, 64), write(vm, name, 65), read(vm, name, 65)) == (0, 1, 0), name
        vm.set_bad(name, read=ALL)
        assert (read(vm, name, 7), write(vm, name, 7)) == (1, 0), name
        vm.set_bad(name)
        assert (read(vm, name, 7), write(vm, name, 65)) == (0, 0), name
    for name in ("sda", "nvme0n1"):
        assert f"critical medium error, dev {name}, sector 64" in vm.console.text
    assert "I/O error, dev vda, sector 64" in vm.console.text


@pytest.mark.kernels("6.12")
def test_disks_keep_what_they_hold_and_their_faults(machine: MachineFactory) -> None:
    disks = [
        Disk(name="sdisk", size=1 << 20, kind="scsi", logical_block=4096, dpofua=True, wwn=0x5000A),
        Disk(name="vdisk", size=1 << 20, write_cache=False, read_only=True),
    ]
    vm = machine(disks, udev=True)
    sdisk, vdisk = (Path(vm.device(disk.name)).name for disk in disks)
    found = vm.shell(
        f"cd /sys/block; cat {sdisk}/queue/logical_block_size {sdisk}/queue/fua "
        f"{sdisk}/queue/write_cache {vdisk}/queue/write_cache {vdisk}/ro; "
        f"realpath /dev/disk/by-id/wwn-0x000000000005000a /dev/disk/by-id/virtio-vdisk"
    ).stdout
    device_paths = [f"/dev/{sdisk}", f"/dev/{vdisk}"]
    assert found.split("\n")[:-1] == [
        "4096",
        "1",
        "write back",
        "write through",
        "1",
        *device_paths,
    ]
    vm.shell(f"echo first >/dev/{sdisk}")
    vm.set_bad("sdisk", read={8}, errno=61)
    vm.reboot()
    assert vm.run(["head", "-c", "6", vm.device("sdisk")]).stdout == "first\n"
    found = vm.shell(
        f"dd if={vm.device('sdisk')} of=/dev/null bs=4096 skip=1 count=1 iflag=direct", check=False
    ).stderr
    assert "No data available" in found
    # Not flushed, and yet there: killing QEMU is no power cut.
    vm.shell(
        f"echo second | dd of={vm.device('sdisk')} conv=notrunc oflag=direct bs=4096 conv=sync"
    )
    vm.kill()
    assert not vm.running
    vm.boot()
    assert vm.run(["head", "-c", "7", vm.device("sdisk")]).stdout == "second\n"


@pytest.mark.kernels("6.12")
def test_a_warning_fails_a_command_that_succeeds(machine: MachineFactory) -> None:
    vm = machine()
    plant = "echo 'WARNING: CPU: 0 PID: 1 at planted' >/dev/kmsg"
    vm.expect_log(r"^WARNING: .* at planted$")
    vm.shell(plant)
    vm.console.allowed.clear()
    with pytest.raises(MachineFailure, match="at planted") as caught:
        vm.shell(f"{plant}")
    assert caught.value.kind is FailureKind.SPLAT
    assert not vm.running


@pytest.mark.kernels("6.12")
def test_a_warning_after_the_last_command_fails_the_close(machine: MachineFactory) -> None:
    vm = machine()
    vm.shell("(sleep 1; echo 'BUG: planted' >/dev/kmsg) &")
    time.sleep(2.5)
    with pytest.raises(MachineFailure, match="BUG: planted"):
        vm.close()


@pytest.mark.kcsan
@pytest.mark.kernels("kcsan")
def test_a_race_fails_the_command_that_it_is_met_in(machine: MachineFactory) -> None:
    vm = machine(disks=[Disk(name="disk", size=1 << 20)])
    vm.insmod("dm_fault")
    vm.shell(f"echo 0 2048 fault {vm.device('disk')} 0 | dmsetup create planted")
    with pytest.raises(MachineFailure, match=r"KCSAN: data-race in .*\[dm_fault\]") as caught:
        vm.shell("dmsetup message planted 0 race; sleep 5")
    assert caught.value.kind is FailureKind.SPLAT
    # Both sides: the message's thread, and a worker.
    assert "message_race+" in caught.value.tail
    assert "do_race+" in caught.value.tail


@pytest.mark.usually("6.1")
def test_a_panic_is_told_at_once(machine: MachineFactory) -> None:
    vm = machine()
    begin = time.monotonic()
    with pytest.raises(MachineFailure, match="sysrq triggered crash") as caught:
        vm.shell("echo c >/proc/sysrq-trigger; sleep 1000")
    assert caught.value.kind is FailureKind.PANIC
    assert "sysrq_handle_crash" in caught.value.tail
    assert time.monotonic() - begin < 10


@pytest.mark.usually("6.12")
def test_a_hang_shows_every_cpu(machine: MachineFactory) -> None:
    vm = machine()
    with pytest.raises(MachineFailure, match=r"no answer in \d+ s") as caught:
        vm.run(["sh", "-c", "while :; do :; done"], timeout=2)
    assert caught.value.kind is FailureKind.HANG
    for cpu in (0, 1):
        assert f"NMI backtrace for cpu {cpu}" in caught.value.tail
    assert "Show Blocked State" in caught.value.tail
    assert "sysrq: Show State" in vm.console.text


@pytest.mark.kernels("6.12")
def test_a_guest_that_is_gone_says_so(machine: MachineFactory) -> None:
    vm = machine()
    with pytest.raises(MachineFailure, match="QEMU ended") as caught:
        vm.shell("echo o >/proc/sysrq-trigger; sleep 1000")
    assert caught.value.kind is FailureKind.GONE


@pytest.mark.kernels("6.12")
def test_a_guest_that_never_begins_is_tried_again(machine: MachineFactory) -> None:
    with pytest.raises(MachineFailure) as caught:
        machine(extra_words=("initcall_blacklist=populate_rootfs",))
    assert caught.value.kind is FailureKind.BOOT
    assert "Kernel panic" in caught.value.line


@pytest.mark.kernels("6.12")
def test_bad_arguments_are_not_a_failed_boot(machine: MachineFactory) -> None:
    with pytest.raises(HarnessError, match="QEMU did not start") as caught:
        machine(extra_args=["-no-such-option"])
    assert not isinstance(caught.value, MachineFailure)


def test_a_guest_has_the_time_of_the_host(machine: MachineFactory) -> None:
    """Whatever else the host does meanwhile."""
    vm = machine()
    sleeping = "import time; time.sleep(0.2); print(time.monotonic_ns())"
    clocks = []
    for _ in range(2):
        before = time.monotonic_ns()
        there = int(vm.run(["/usr/bin/python3", "-c", sleeping]).stdout)
        clocks.append((before, there, time.monotonic_ns()))
        time.sleep(3)
    (begin, first, begun), (end, last, ended) = clocks
    passed = last - first
    assert end - begun <= passed <= ended - begin


def test_kvm_is_chosen_only_if_a_guest_boots(kernel: Kernel) -> None:
    image, initrd = vmlinux.unpack(kernel), initramfs.build(kernel)
    chosen = probe.choose(image, initrd)
    booted, _ = probe.boots(Hardware(image, initrd, TCG), 30.0)
    assert booted, "what KVM is probed with does boot"
    if chosen.name == "tcg" and accel.accessible():
        assert "does not boot" in chosen.reason
