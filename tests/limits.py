# SPDX-License-Identifier: GPL-2.0-only
"""What a set shows of its disks' limits: one row for everything that a kernel has, and why.

A set has to describe main to its user, and to take no bio that main or the spare cannot take. So
each limit shows one of these:

=========  =======================================================================================
main       what dm-linear over the same range of main would show
smaller    the smaller one of both disks: a bio may go to either, and must fit
larger     the larger one of both, for the same reason
either     on where it is on for one of the two
both       on where it is on for both
common     what divides both
zeroes     main's, but 1 MiB at most, and nothing where main or the spare has no write-zeroes
unmap      as much as ``zeroes`` where main unmaps what it zeroes, else nothing
off        nothing: not supported, or not known, by DM or by us
dm's       what any DM device has
=========  =======================================================================================

`tests/lint/test_limits.py` finds every member of a kernel's ``struct queue_limits`` and every flag
in `LIMITS`, `tests/guest/test_limits.py` every file of a disk's ``queue`` directory in `FILES`. A
new one without a row fails there, and names itself.
"""

from __future__ import annotations

from typing import NamedTuple

RULES = (
    *("main", "smaller", "larger", "either", "both", "common"),
    *("zeroes", "unmap", "off", "dm's"),
)


class Row(NamedTuple):
    """What a set shows, one of `RULES`, and why."""

    shows: str
    why: str
    old: str = ""
    """What it shows up to Linux 6.10, where that is something else."""


BOUNDS = "bounds a bio"
DESCRIBES = "describes the disk to its user"
DISCARD = "only main is told to discard; a discard of slots ends in the target"
ZONED = "a disk that must be written in order is refused, a host-aware one is like any other"
ATOMIC = "a bio that is split at a mapping is not atomic"
STATE = "a state of one queue, which no other one takes over"

# Members of struct queue_limits, and the flags in them and beside them.
LIMITS = {
    "features": Row("either", "each flag has a row of its own"),
    "flags": Row("either", "each flag has a row of its own"),
    "seg_boundary_mask": Row("smaller", BOUNDS),
    "virt_boundary_mask": Row("smaller", BOUNDS),
    "max_hw_sectors": Row("smaller", BOUNDS),
    "max_dev_sectors": Row("smaller", BOUNDS),
    "chunk_sectors": Row("common", BOUNDS),
    "max_sectors": Row("smaller", BOUNDS),
    "max_user_sectors": Row("smaller", BOUNDS),
    "max_segment_size": Row("smaller", BOUNDS),
    "max_fast_segment_size": Row("dm's", "chooses a way through the splitter of that queue"),
    "physical_block_size": Row("main", DESCRIBES),
    "logical_block_size": Row("main", "the spare's is not larger, or the table is refused"),
    "alignment_offset": Row("main", DESCRIBES),
    "io_min": Row("main", DESCRIBES),
    "io_opt": Row("main", DESCRIBES),
    "max_discard_sectors": Row("main", DISCARD),
    "max_hw_discard_sectors": Row("main", DISCARD),
    "max_user_discard_sectors": Row("dm's", "what a person sets for this device"),
    "max_secure_erase_sectors": Row("off", "what lies on a bad sector cannot be erased"),
    "max_write_zeroes_sectors": Row("zeroes", "narrowed like any other write if it fails"),
    "max_wzeroes_unmap_sectors": Row("unmap", "must be equal to that of write-zeroes, or 0"),
    "max_hw_wzeroes_unmap_sectors": Row("unmap", "must be equal to that of write-zeroes, or 0"),
    "max_user_wzeroes_unmap_sectors": Row("main", DESCRIBES),
    "max_hw_zone_append_sectors": Row("off", ZONED),
    "max_zone_append_sectors": Row("off", ZONED),
    "discard_granularity": Row("main", DISCARD),
    "discard_alignment": Row("main", DISCARD),
    "zone_write_granularity": Row("off", ZONED),
    "atomic_write_hw_max": Row("off", ATOMIC),
    "atomic_write_max_sectors": Row("off", ATOMIC),
    "atomic_write_hw_boundary": Row("off", ATOMIC),
    "atomic_write_boundary_sectors": Row("off", ATOMIC),
    "atomic_write_hw_unit_min": Row("off", ATOMIC),
    "atomic_write_unit_min": Row("off", ATOMIC),
    "atomic_write_hw_unit_max": Row("off", ATOMIC),
    "atomic_write_unit_max": Row("off", ATOMIC),
    "max_segments": Row("smaller", BOUNDS),
    "max_integrity_segments": Row("smaller", BOUNDS),
    "max_discard_segments": Row("main", DISCARD),
    "max_write_streams": Row("off", "DM passes no streams on"),
    "write_stream_granularity": Row("off", "DM passes no streams on"),
    "max_open_zones": Row("off", ZONED),
    "max_active_zones": Row("off", ZONED),
    "dma_alignment": Row("larger", BOUNDS),
    "dma_pad_mask": Row("dm's", "is for commands that are no bios"),
    "integrity": Row("off", "a bio's protection data would not survive a replay"),
    # Members up to Linux 6.10.
    "bounce": Row("either", BOUNDS),
    "misaligned": Row("main", DESCRIBES),
    "discard_misaligned": Row("main", DISCARD),
    "raid_partial_stripes_expensive": Row("main", DESCRIBES),
    "zoned": Row("off", ZONED),
    # Features.
    "BLK_FEAT_WRITE_CACHE": Row("either", "a flush must not end above a cache"),
    "BLK_FEAT_FUA": Row("either", "where a disk lacks it, a write and a flush take its place"),
    "BLK_FEAT_ROTATIONAL": Row("main", DESCRIBES),
    "BLK_FEAT_ADD_RANDOM": Row("off", "DM's requests tell nothing of chance"),
    "BLK_FEAT_IO_STAT": Row("dm's", "DM counts for itself"),
    "BLK_FEAT_STABLE_WRITES": Row("either", "a page must not change on its way to either"),
    "BLK_FEAT_SYNCHRONOUS": Row("off", "DM takes it over from nobody"),
    "BLK_FEAT_NOWAIT": Row("both", "map never waits, but both disks must not either"),
    "BLK_FEAT_DAX": Row("off", "a failing memory page could not be moved"),
    "BLK_FEAT_POLL": Row("both", "a bio may have to be polled for on either"),
    "BLK_FEAT_ZONED": Row("off", ZONED),
    "BLK_FEAT_PCI_P2PDMA": Row("off", "the narrow work reads and writes pages of its own"),
    "BLK_FEAT_SKIP_TAGSET_QUIESCE": Row("off", "is for drivers"),
    "BLK_FEAT_BOUNCE_HIGH": Row("either", BOUNDS),
    "BLK_FEAT_ATOMIC_WRITES": Row("off", ATOMIC),
    "BLK_FEAT_RAID_PARTIAL_STRIPES_EXPENSIVE": Row("main", DESCRIBES),
    # Flags of the limits.
    "BLK_FLAG_WRITE_CACHE_DISABLED": Row("dm's", "what a person sets for this device"),
    "BLK_FLAG_MISALIGNED": Row("main", DESCRIBES),
    "BLK_FLAG_IOSTATS_PASSTHROUGH": Row("dm's", "what a person sets for this device"),
    # Flags of the queue. Those of Linux 6.1 became features later.
    "QUEUE_FLAG_STOPPED": Row("dm's", STATE),
    "QUEUE_FLAG_DYING": Row("dm's", STATE),
    "QUEUE_FLAG_HAS_SRCU": Row("dm's", STATE),
    "QUEUE_FLAG_NOMERGES": Row("dm's", "what a person sets for this device"),
    "QUEUE_FLAG_SAME_COMP": Row("dm's", "what a person sets for this device"),
    "QUEUE_FLAG_FAIL_IO": Row("dm's", STATE),
    "QUEUE_FLAG_NONROT": Row("both", "DM asks both disks; no target can change that"),
    "QUEUE_FLAG_VIRT": Row("both", "another name of QUEUE_FLAG_NONROT"),
    "QUEUE_FLAG_IO_STAT": Row("dm's", "DM counts for itself"),
    "QUEUE_FLAG_NOXMERGES": Row("dm's", "what a person sets for this device"),
    "QUEUE_FLAG_ADD_RANDOM": Row("off", "DM's requests tell nothing of chance"),
    "QUEUE_FLAG_SAME_FORCE": Row("dm's", "what a person sets for this device"),
    "QUEUE_FLAG_HW_WC": Row("dm's", "says whether a person may set the next one"),
    "QUEUE_FLAG_WC": Row("either", "a flush must not end above a cache"),
    "QUEUE_FLAG_FUA": Row("either", "where a disk lacks it, a write and a flush take its place"),
    "QUEUE_FLAG_INIT_DONE": Row("dm's", STATE),
    "QUEUE_FLAG_STABLE_WRITES": Row("either", "a page must not change on its way to either"),
    "QUEUE_FLAG_POLL": Row("both", "a bio may have to be polled for on either"),
    "QUEUE_FLAG_DAX": Row("off", "a failing memory page could not be moved"),
    "QUEUE_FLAG_STATS": Row("dm's", STATE),
    "QUEUE_FLAG_REGISTERED": Row("dm's", STATE),
    "QUEUE_FLAG_QUIESCED": Row("dm's", STATE),
    "QUEUE_FLAG_PCI_P2PDMA": Row("off", "the narrow work reads and writes pages of its own"),
    "QUEUE_FLAG_ZONE_RESETALL": Row("off", ZONED),
    "QUEUE_FLAG_RQ_ALLOC_TIME": Row("dm's", STATE),
    "QUEUE_FLAG_HCTX_ACTIVE": Row("dm's", STATE),
    "QUEUE_FLAG_NOWAIT": Row("both", "map never waits, but both disks must not either"),
    "QUEUE_FLAG_SQ_SCHED": Row("dm's", STATE),
    "QUEUE_FLAG_DISABLE_WBT_DEF": Row("dm's", STATE),
    "QUEUE_FLAG_NO_ELV_SWITCH": Row("dm's", STATE),
    "QUEUE_FLAG_QOS_ENABLED": Row("dm's", STATE),
    "QUEUE_FLAG_BIO_ISSUE_TIME": Row("dm's", STATE),
    "QUEUE_FLAG_ZONED_QD1_WRITES": Row("off", ZONED),
}

# Files of /sys/block/<disk> and of its directory queue.
FILES = {
    "alignment_offset": Row("main", DESCRIBES),
    "discard_alignment": Row("main", DISCARD),
    "queue/add_random": Row("off", "DM's requests tell nothing of chance"),
    "queue/async_depth": Row("dm's", "is for drivers"),
    "queue/atomic_write_max_bytes": Row("off", ATOMIC),
    "queue/atomic_write_boundary_bytes": Row("off", ATOMIC),
    "queue/atomic_write_unit_max_bytes": Row("off", ATOMIC),
    "queue/atomic_write_unit_min_bytes": Row("off", ATOMIC),
    "queue/chunk_sectors": Row("common", BOUNDS),
    "queue/dax": Row("off", "a failing memory page could not be moved"),
    "queue/discard_granularity": Row("main", DISCARD),
    "queue/discard_max_bytes": Row("main", DISCARD),
    "queue/discard_max_hw_bytes": Row("main", DISCARD),
    "queue/discard_zeroes_data": Row("off", "always 0"),
    "queue/dma_alignment": Row("larger", BOUNDS),
    "queue/fua": Row("either", "where a disk lacks it, a write and a flush take its place"),
    "queue/hw_sector_size": Row("main", "another name of logical_block_size"),
    "queue/io_poll": Row("both", "a bio may have to be polled for on either"),
    "queue/io_poll_delay": Row("dm's", "always -1"),
    "queue/io_timeout": Row("dm's", "is for drivers"),
    "queue/iostats": Row("dm's", "DM counts for itself"),
    "queue/iostats_passthrough": Row("dm's", "what a person sets for this device"),
    "queue/logical_block_size": Row("main", "the spare's is not larger, or it is refused"),
    "queue/max_active_zones": Row("off", ZONED),
    "queue/max_discard_segments": Row("main", DISCARD),
    "queue/max_hw_sectors_kb": Row("smaller", BOUNDS),
    "queue/max_integrity_segments": Row("smaller", BOUNDS),
    "queue/max_open_zones": Row("off", ZONED),
    "queue/max_sectors_kb": Row("smaller", BOUNDS),
    "queue/max_segment_size": Row("smaller", BOUNDS),
    "queue/max_segments": Row("smaller", BOUNDS),
    "queue/max_write_streams": Row("off", "DM passes no streams on"),
    "queue/minimum_io_size": Row("main", DESCRIBES),
    "queue/nomerges": Row("dm's", "what a person sets for this device"),
    "queue/nr_requests": Row("dm's", "is for drivers"),
    "queue/nr_zones": Row("off", ZONED),
    "queue/optimal_io_size": Row("main", DESCRIBES),
    "queue/physical_block_size": Row("main", DESCRIBES),
    "queue/read_ahead_kb": Row("main", "follows optimal_io_size"),
    "queue/rotational": Row("main", DESCRIBES, "larger"),
    "queue/rq_affinity": Row("dm's", "what a person sets for this device"),
    "queue/scheduler": Row("dm's", "none: is for drivers"),
    "queue/stable_writes": Row("either", "a page must not change on its way to either"),
    "queue/throttle_sample_time": Row("dm's", "what a person sets for this device"),
    "queue/virt_boundary_mask": Row("smaller", BOUNDS),
    "queue/wbt_lat_usec": Row("dm's", "is for drivers"),
    "queue/write_cache": Row("either", "a flush must not end above a cache"),
    "queue/write_same_max_bytes": Row("off", "always 0"),
    "queue/write_stream_granularity": Row("off", "DM passes no streams on"),
    "queue/write_zeroes_max_bytes": Row("zeroes", "narrowed like any other write if it fails"),
    "queue/write_zeroes_unmap_max_bytes": Row("unmap", "main's word for how it zeroes"),
    "queue/write_zeroes_unmap_max_hw_bytes": Row("unmap", "main's word for how it zeroes"),
    "queue/zone_append_max_bytes": Row("off", ZONED),
    "queue/zone_write_granularity": Row("off", ZONED),
    "queue/zoned": Row("off", ZONED),
    "queue/zoned_qd1_writes": Row("off", ZONED),
}
