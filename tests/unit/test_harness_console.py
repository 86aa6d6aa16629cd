# SPDX-License-Identifier: GPL-2.0-only
"""Which console lines fail a test: real lines of both sorts."""

import re
from pathlib import Path

import pytest
from harness.console import Console, classify
from harness.errors import FailureKind

SPLATS = [
    "[   12.345678] WARNING: CPU: 1 PID: 171 at drivers/md/dm.c:2300 __set_size+0x1b/0x20",
    "[   12.345678] WARNING: possible circular locking dependency detected",
    "[   12.345678][  T171] WARNING: suspicious RCU usage",
    "[    3.000001] BUG: kernel NULL pointer dereference, address: 0000000000000008",
    "[    3.000001] BUG: unable to handle page fault for address: ffffc90000a1b000",
    "[    3.000001] BUG: KASAN: slab-use-after-free in remap_map+0x4a/0x90 [dm_remap]",
    "[    3.000001] BUG: KFENCE: use-after-free read in remap_dtr+0x2f/0x80 [dm_remap]",
    "[    3.000001] BUG: sleeping function called from invalid context at mm/slab.h:401",
    "[    3.000001] BUG: scheduling while atomic: kworker/0:1/9/0x00000002",
    "[    3.000001] BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 31s!",
    "[    3.000001] BUG kmalloc-64 (Tainted: G           OE     ): Redzone overwritten",
    "[   41.000001] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [dmsetup:170]",
    "[    3.000001] kernel BUG at drivers/md/dm.c:1234!",
    "[    3.000001] Oops: 0000 [#1] PREEMPT SMP NOPTI",
    "[    3.000001] Oops: general protection fault, probably for non-canonical address: 0000 [#1]",
    "[    3.000001] general protection fault, probably for non-canonical address 0xdead: 0000 [#1]",
    "[    3.000001] invalid opcode: 0000 [#1] PREEMPT SMP NOPTI",
    "[  242.000001] INFO: task dmsetup:170 blocked for more than 120 seconds.",
    "[   61.000001] rcu: INFO: rcu_preempt self-detected stall on CPU",
    "[   61.000001] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
    "[   61.000001] rcu: INFO: rcu_sched detected expedited stalls on CPUs/tasks: { 1-... }",
    "[    3.000001] UBSAN: shift-out-of-bounds in drivers/md/dm-remap.c:12:3",
    "[    3.000001] ODEBUG: free active (active state 0) object type: timer_list hint: f+0x0/0x10",
    "[    3.000001] refcount_t: underflow; use-after-free.",
    "[    3.000001] list_del corruption. prev->next should be ffff888, but was dead000",
    "[   99.000001] kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
    "[   99.000001] Out of memory: Killed process 170 (python3) total-vm:1000kB",
    "[   99.000001] dd: page allocation failure: order:0, mode:0x800(GFP_NOWAIT)",
    "[   99.000001] kmem_cache_destroy remap: Slab cache still has objects when called from x",
]

RULER = "[    5.000000] " + "=" * 66
RACE = f"""\
{RULER}
[    5.000000] BUG: KCSAN: data-race in sbitmap_get / sbitmap_put

[    5.000000] write to 0xffff88800532c0e8 of 8 bytes by task 171 on cpu 1:
[    5.000000]  sbitmap_get+0x5b/0x1a0
[    5.000000]  blk_mq_submit_bio+0x121/0x2f0
[    5.000000]  replay+0x109/0x150 [dm_remap]
[    5.000000]  process_one_work+0x1a8/0x3b0

[    5.000000] read to 0xffff88800532c0e8 of 8 bytes by interrupt on cpu 0:
[    5.000000]  sbitmap_put+0x2c/0x70
[    5.000000]  asm_sysvec_apic_timer_interrupt+0x1a/0x20
[    5.000000]  message_pending+0x13b/0x360 [dm_remap]

[    5.000000] Reported by Kernel Concurrency Sanitizer on:
[    5.000000] CPU: 0 UID: 0 PID: 9 Comm: kworker/0:1 Tainted: G           OE      6.12.117-kcsan #1
[    5.000000] Workqueue: remap-narrow/252:2 do_narrow [dm_remap]
{RULER}
"""
TITLE = "BUG: KCSAN: data-race in sbitmap_get / sbitmap_put"
ONE, OTHER = (f"[    5.000000]  sbitmap_{name}+" for name in ("get", "put"))
OURS = "[    5.000000]  do_narrow+0x12/0x90 [dm_remap]\n"

HARMLESS = [
    "WARNING: CPU: 1 PID: 171 at this/has/no/time.c",
    "[    0.100000] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on",
    "[    0.100000] ACPI BIOS Warning (bug): Optional FADT field Pm2ControlBlock has zero address",
    "[    0.100000] mtrr: your CPUs had inconsistent fixed MTRR settings",
    "[    0.100000] kfence: initialized - using 2097152 bytes for 255 objects",
    "[    0.100000] rcu: \tRCU debug extended QS entry/exit.",
    "[    0.100000] Kernel command line: oops=panic softlockup_panic=1 hung_task_panic=1",
    "[    4.000000] INFO: NMI handler (nmi_cpu_backtrace_handler) took too long to run: 3.1 msecs",
    "[    4.000000] blk_update_request: critical medium error, dev sda, sector 64 op 0x1:(WRITE)",
    "[    4.000000] Buffer I/O error on dev dm-0, logical block 8, lost async page write",
    "[    4.000000] device-mapper: remap: dm-0: 1 unit moved to slot 0 (BUG reports welcome)",
    "[    4.000000] systemd-udevd[99]: WARNING: a rule writes this",
    "[    4.000000] dm_remap: loading out-of-tree module taints kernel.",
    "[    4.000000] dm_remap: module verification failed: signature and/or required key missing",
    "[    4.000000] clocksource: timekeeping watchdog: Marking clocksource 'tsc' as unstable",
    "[    4.000000] workqueue: dm_wq_work hogged CPU for >10000us 4 times, consider WQ_UNBOUND",
    "[    4.000000] sysrq: Show Blocked State",
    "[    4.000000] NMI backtrace for cpu 0 skipped: idling at native_safe_halt+0xb/0x10",
    "[    4.000000]  ? __warn_printk+0x10/0x20",
    "",
]


@pytest.mark.parametrize("line", SPLATS)
def test_a_splat_is_found(line: str) -> None:
    hit = classify(line + "\r")
    assert hit is not None
    assert hit.kind is FailureKind.SPLAT
    assert hit.line == line


@pytest.mark.parametrize("line", HARMLESS)
def test_a_harmless_line_is_not(line: str) -> None:
    assert classify(line) is None


def judged(tmp_path: Path, text: str, *allowed: str) -> Console:
    """Return a console that has printed something, piece by piece."""
    console = Console(tmp_path / "console.log")
    console.allowed += map(re.compile, allowed)
    console.path.touch()
    for start in range(0, len(text), 100):
        with console.path.open("a") as file:
            file.write(text[start : start + 100].replace("\n", "\r\n"))
        console.poll()
    return console


def test_a_race_of_others_is_counted(tmp_path: Path) -> None:
    loaded = "[    6.000000] dm-3: mapped 1 block [dm_remap]\n"
    console = judged(tmp_path, RACE + loaded + RACE)
    assert console.hit is None
    assert console.races == {TITLE: 2}


@pytest.mark.parametrize("line", [OURS, "[    5.000000]  fault_map+0x12/0x90 [dm_fault]\n"])
@pytest.mark.parametrize("top", [ONE, OTHER])
@pytest.mark.parametrize("helper", ["", "[    5.000000]  list_add+0x10/0x20\n"])
def test_a_race_of_ours_is_found(line: str, top: str, helper: str, tmp_path: Path) -> None:
    report = RACE.replace(top, helper + line + top)
    console = judged(tmp_path, RACE + report + "[    6.000000] next\n")
    assert console.hit is not None
    assert console.hit.kind is FailureKind.SPLAT
    assert console.hit.line == f"[    5.000000] {TITLE}"
    assert console.races == {TITLE: 1}
    shown = console.report(console.hit.line)
    assert line.strip() in shown
    assert shown.endswith("next")


@pytest.mark.parametrize("names", ["kthread_data / do_narrow", "do_narrow / kthread_data"])
def test_a_race_for_the_flags_of_a_task_is_counted(names: str, tmp_path: Path) -> None:
    report = RACE.replace("sbitmap_get / sbitmap_put", names)
    report = report.replace(ONE, OURS + ONE)
    console = judged(tmp_path, report)
    assert console.hit is None
    assert console.races == {f"BUG: KCSAN: data-race in {names}": 1}
    assert judged(tmp_path, report + RACE.replace(ONE, OURS + ONE)).hit is not None


def test_a_race_that_is_expected_is_allowed(tmp_path: Path) -> None:
    report = RACE.replace(ONE, OURS + ONE)
    assert judged(tmp_path, report, "data-race in sbitmap_get").hit is None
    assert judged(tmp_path, report, "data-race in sbitmap_put").hit is not None


def test_what_is_expected_is_allowed_and_nothing_else() -> None:
    allowed = [re.compile(r"^WARNING: .* at planted")]
    assert classify("[    1.000000] WARNING: CPU: 0 PID: 1 at planted", allowed) is None
    assert classify("[    1.000000] WARNING: CPU: 0 PID: 1 at other", allowed) is not None


def test_a_panic_is_named_by_what_led_to_it(tmp_path: Path) -> None:
    console = Console(tmp_path / "console.log")
    assert console.poll() is None
    console.path.write_bytes(b"[    1.000000] BUG: unable to handle\r\n[    1.1")
    hit = console.poll()
    assert hit is not None
    assert hit.kind is FailureKind.SPLAT
    with console.path.open("ab") as file:
        file.write(b"00000] Kernel panic - not syncing: Fatal exception\r\n")
    hit = console.poll()
    assert hit is not None
    assert hit.kind is FailureKind.PANIC
    assert hit.line == "[    1.000000] BUG: unable to handle"


def test_a_report_begins_before_the_line_it_is_about(tmp_path: Path) -> None:
    console = Console(tmp_path / "console.log")
    console.path.write_text("".join(f"line {number}\r\n" for number in range(1000)))
    assert console.report("line 500").splitlines()[:11][-1] == "line 500"
    assert console.report().splitlines()[-1] == "line 999"
    mark = console.size()
    with console.path.open("a") as file:
        file.write("new\r\n")
    assert console.since(mark) == "new\n"
