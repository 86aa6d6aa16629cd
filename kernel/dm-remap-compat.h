/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between the kernels that this builds for, Linux 6.1 and newer.  It
 * is told apart by what is there where C can see it; no other file asks for a
 * version.
 *
 *	6.5	BLK_OPEN_WRITE; before it was FMODE_WRITE
 *	6.8	a host-aware zoned disk is one like any other; before it was one
 *		of two models of zoned disks
 *	6.11	rotational and other features are bits of the queue's limits;
 *		before they were members, and rotational a flag of the queue, which
 *		DM sets from all devices and no target can change
 *	6.17	write zeroes that unmap have limits of their own
 */
#ifndef DM_REMAP_COMPAT_H
#define DM_REMAP_COMPAT_H

#include <linux/blkdev.h>
#include <linux/version.h>

/* dm_table_get_mode() returns whichever exists. */
#ifndef BLK_OPEN_WRITE
#define BLK_OPEN_WRITE FMODE_WRITE
#endif

/* Has a disk zones that can only be written in order? */
static inline bool dmr_must_write_in_order(struct block_device *bdev)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
	return bdev_is_zoned(bdev);
#else
	return bdev_zoned_model(bdev) == BLK_ZONED_HM;
#endif
}

/**
 * dmr_limits_kind() - what kind of disk it is
 * @limits: set to what @own says
 * @own: limits
 *
 * Whether it rotates and is aligned, and that it is not zoned: one that is
 * host-aware takes what every disk takes.
 */
static inline void dmr_limits_kind(struct queue_limits *limits,
				   const struct queue_limits *own)
{
#ifdef BLK_FEAT_ROTATIONAL
	const blk_features_t kind = BLK_FEAT_ROTATIONAL |
				    BLK_FEAT_RAID_PARTIAL_STRIPES_EXPENSIVE;

	limits->features = (limits->features & ~kind) | (own->features & kind);
	limits->flags = (limits->flags & ~BLK_FLAG_MISALIGNED) |
			(own->flags & BLK_FLAG_MISALIGNED);
#else
	limits->misaligned = own->misaligned;
	limits->discard_misaligned = own->discard_misaligned;
	limits->raid_partial_stripes_expensive =
		own->raid_partial_stripes_expensive;
	limits->zoned = 0;
	limits->zone_write_granularity = 0;
	limits->max_zone_append_sectors = 0;
#endif
}

/* Write zeroes that unmap: as many as write zeroes, or none, as main has them. */
static inline void dmr_limits_unmap(struct queue_limits *limits,
				    const struct queue_limits *own)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 17, 0)
	limits->max_hw_wzeroes_unmap_sectors =
		own->max_hw_wzeroes_unmap_sectors ?
		limits->max_write_zeroes_sectors : 0;
	limits->max_user_wzeroes_unmap_sectors =
		own->max_user_wzeroes_unmap_sectors;
#endif
}

#endif /* DM_REMAP_COMPAT_H */
