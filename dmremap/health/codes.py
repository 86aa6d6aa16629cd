# SPDX-License-Identifier: GPL-2.0-only
"""The codes of health, each with what it means and the next step.

A code never changes its meaning and is never used again for another one:
people put them into alert rules.  H1xx is about the main device, H2xx about
the spare, H3xx about the set as a whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class HealthCode:
    """What a code means, for any set.

    title: in a few words.  meaning: what is so, as a sentence.  detail: the
    same with the numbers of one set, a `str.format` template.  next_step: what
    to do, with `{name}` for the set and `{sector}` for the first one of the
    target, both as `dmsetup message` takes them.
    """

    code: str
    title: str
    meaning: str
    detail: str
    next_step: str


_CODES = (
    HealthCode(
        "DMR-H101",
        "blocks live on the spare",
        "Blocks of the main device no longer take writes and live on the spare.",
        "{mapped} of the main device's blocks live on the spare ({free} of {slots} slots free).",
        "The data is safe, but a disk that has run out of its own spares goes on failing: "
        "plan its replacement, and see that the backup is current.",
    ),
    HealthCode(
        "DMR-H102",
        "unreadable blocks",
        "Blocks of the main device cannot be read; what was on them is unknown.",
        "{pending} blocks of the main device cannot be read.",
        "See which with `dmsetup message {name} {sector} pending 0 100` (sector, sectors) and "
        "write them again from a backup: a write that succeeds, in place or on the spare, clears "
        "them.",
    ),
    HealthCode(
        "DMR-H103",
        "lost blocks",
        "Blocks are mapped to the spare but their content was never recovered.",
        "{lost} blocks read as an error because their content was never recovered.",
        "See which with `dmsetup message {name} {sector} list 0 100` (state lost) and write them "
        "again from a backup: a write clears them.",
    ),
    HealthCode(
        "DMR-H104",
        "main needs retries",
        "The main device often succeeds only when it is asked again.",
        "{transient} requests to the main device succeeded only when they were repeated.",
        "Look at the disk's SMART values, its cable and its power supply, and see that the "
        "backup is current.",
    ),
    HealthCode(
        "DMR-H105",
        "main is failing",
        "The main device fails as a whole, and not only in places: it reads nothing that was "
        "tried, takes no write, does not flush its cache, or does not answer.",
        "The main device fails as a whole, and not only in places: the last probe of it failed, "
        "or the last read, write or flush did.",
        "Run `dmesg` and look for the main device: a cable, a controller, a disk that was pulled "
        "or has gone read-only. Nothing is mapped for such errors. When the disk is back, run "
        "`dd if=/dev/mapper/{name} of=/dev/null bs=4096 count=1 iflag=direct` and "
        "`sync /dev/mapper/{name}`: this reason goes away by itself when main "
        "does again what it did not. If it stays, copy the data to another disk.",
    ),
    HealthCode(
        "DMR-H201",
        "spare runs low",
        "Few slots are left on the spare.",
        "{free} of {slots} slots are free.",
        "Replace the main disk now. When no slot is free, the next write that the disk refuses "
        "fails as it would without dm-remap.",
    ),
    HealthCode(
        "DMR-H202",
        "spare is full",
        "No slot is left on the spare.",
        "None of {slots} slots is free: the next write that the main device refuses will fail.",
        "Copy the data to another disk now.",
    ),
    HealthCode(
        "DMR-H203",
        "bad slots on the spare",
        "The spare's own medium fails in places.",
        "{bad} slots of the spare failed themselves.",
        "The blocks were moved to other slots. Look at the spare's SMART values and plan a "
        "replacement of the spare too.",
    ),
    HealthCode(
        "DMR-H204",
        "metadata on stand-ins",
        "Copies of the set's metadata cannot be written where they belong and live on stand-ins.",
        "{copies} copies of the set's metadata live on stand-ins.",
        "Both copies of every block are there, nothing is lost. Look at the spare's SMART values "
        "and plan a replacement of the spare. `dmremapctl scrub --metadata {name}` reads all "
        "copies again.",
    ),
    HealthCode(
        "DMR-H205",
        "spare is failing",
        "The spare device fails as a whole, and not only in places: its metadata cannot be read "
        "or written, it does not flush its cache, or does not answer.",
        "The spare device fails as a whole, and not only in places: the last probe of it failed, "
        "or the last read, write or flush did.",
        "Run `dmesg` and look for the spare device: a cable, a controller, a disk that was "
        "pulled. Blocks that live on it cannot be relied on until it is back. This reason goes "
        "away by itself when the spare does again what it did not; `dmremapctl scrub --metadata "
        "{name}` asks it for everything.",
    ),
    HealthCode(
        "DMR-H301",
        "no new mappings",
        "The set takes no new mappings: its metadata cannot be written any more.",
        "The set takes no new mappings (mode ro): its metadata cannot be written any more.",
        "Read the kernel's log for the spare device. Data that is in place can still be read and "
        "written: copy it to another disk, then repair or replace the spare.",
    ),
    HealthCode(
        "DMR-H302",
        "blocks in doubt",
        "Blocks are in doubt: their mapping was half written when the spare failed.",
        "{doubt} blocks are in doubt and fail until the set is started again.",
        "Repair the spare's connection, then stop the set and assemble it again: the load "
        "decides which half counts.",
    ),
    HealthCode(
        "DMR-H303",
        "never started",
        "The set's table is loaded but was never started.",
        "The set's table is loaded but was never started: it serves no I/O.",
        "Read the kernel's log for the reason, put it right and run `dmsetup resume {name}`; or "
        "stop the set and assemble it again.",
    ),
    HealthCode(
        "DMR-H304",
        "suspended",
        "The set is suspended: I/O waits.",
        "The set is suspended: I/O waits until it is resumed.",
        "If no other command is at work on it, run `dmsetup resume {name}`.",
    ),
    HealthCode(
        "DMR-H305",
        "breaker is open",
        "The breaker is open: too many blocks were mapped in a minute, or somebody opened it.",
        "The breaker is open: a write that the main device refuses is not mapped and fails.",
        "Look at the disk: so many failures at once are a cable, a controller or the disk's end. "
        "When it is worth going on, run `dmsetup message {name} {sector} breaker close`.",
    ),
    HealthCode(
        "DMR-H306",
        "mappings are gone",
        "Blocks of the set's table are gone in both copies, and with them what they mapped.",
        "{gone} blocks of the set's table are gone: some of the data may read as it was before.",
        "The set was started read-only in spite of it. Copy the data to another disk, compare it "
        "with a backup, and make the set anew.",
    ),
    HealthCode(
        "DMR-H307",
        "flushes failed",
        "Flushes failed: what a disk had taken into its cache before may be lost.",
        "{flush_errors} flushes of the set's devices failed: what was written before them may be "
        "lost.",
        "Programs that asked got an error, others did not. Run `dmesg` to see which device it "
        "was, check the file system and what was written at that time, and plan the disk's "
        "replacement. The count begins anew when the set is stopped and assembled again.",
    ),
)

CODES: Mapping[str, HealthCode] = MappingProxyType({code.code: code for code in _CODES})
"""Every code of health; `dmremapctl explain` prints them."""
