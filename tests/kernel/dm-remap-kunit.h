/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the KUnit suites share: disks in memory, a clock that only moves when a
 * command takes time, and a trace of everything that reaches the outside.
 *
 * A suite includes this header and then the source that it tests, so that it
 * reaches static functions too.  The doubles below replace what the sources use
 * of the block layer, of device-mapper and of time.  Nothing else of them is
 * replaced: the bios are real ones, cloned, trimmed and walked by the block
 * layer's own code.
 */
#ifndef DM_REMAP_KUNIT_H
#define DM_REMAP_KUNIT_H

#include <kunit/test.h>
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/crc32c.h>
#include <linux/device-mapper.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

/**
 * struct fake_disk - a disk in memory
 * @bdev: what a dm_dev points to; never registered anywhere
 * @disk: its gendisk, for the driver's unique id
 * @data: its sectors
 * @bad: for reads and writes: what a command that touches the sector fails
 *	 with, 0 if it does not.  A write that succeeds makes it readable.
 * @name: its letter in the trace
 * @grain: sectors; what the trace counts in
 * @dead: what every command fails with, 0 if the disk is alive
 * @dies_after: it is dead after so many commands more, 0: it does not die
 * @no_fua: what a write fails with that has FUA
 * @no_flush: flushes fail
 * @rots_after: after so many commands more a bit turns where the next one is
 * @ticks: jiffies that a command takes that succeeds
 * @fail_ticks: jiffies that a command takes that fails
 * @failed: commands that have failed, reads and writes
 * @flags: of the last command
 */
struct fake_disk {
	struct block_device	bdev;
	struct gendisk		disk;
	u8			*data;
	u8			*bad[2];
	char			name;
	unsigned int		grain;
	blk_status_t		dead;
	unsigned int		dies_after;
	blk_status_t		no_fua;
	bool			no_flush;
	unsigned int		rots_after;
	unsigned long		ticks;
	unsigned long		fail_ticks;
	unsigned int		failed[2];
	blk_opf_t		flags;
};

/**
 * struct fake - the world outside
 * @now: jiffies
 * @trace: what has happened: a word for each command of a disk, its name, r,
 *	   w or W (w with FUA), where and how much, ! if it has failed.  Suites
 *	   add words of their own.
 * @events: how often event_report() was called
 * @units: the sum of its counts
 */
struct fake {
	unsigned long		now;
	char			trace[4096];
	size_t			traced;
	unsigned int		events[16];
	u64			units[16];
};

extern struct fake fake;

void fake_reset(void);
void fake_trace(const char *format, ...) __printf(1, 2);
const char *fake_traced(void);
struct fake_disk *fake_disk_create(struct kunit *test, char name,
				   sector_t sectors, unsigned int grain);
void fake_disk_bad(struct fake_disk *disk, int dir, sector_t sector,
		   unsigned int sectors, blk_status_t status);
void fake_bio_init(struct bio *bio, struct block_device *bdev,
		   struct bio_vec *table, unsigned short max_vecs,
		   blk_opf_t opf);
struct bio *fake_bio_clone(struct block_device *bdev, struct bio *bio,
			   gfp_t gfp, struct bio_set *bs);
#define FAKE_DM_MAJOR	253		/* other disks have 0 */
struct mapped_device *fake_md(struct dm_table *table);
const char *fake_name(struct mapped_device *md);
int fake_copy_name(struct mapped_device *md, char *name, char *uuid);
struct gendisk *fake_dm_disk(struct mapped_device *md);
void *fake_per_bio_data(struct bio *bio, size_t size);
struct bio *fake_bio_of(void *data, size_t size);
int fake_submit_bio_wait(struct bio *bio);
void fake_submit_bio(struct bio *bio);
int fake_flush(struct block_device *bdev);

/*
 * The doubles, from here on.  dm-remap.h has inline functions that use some.
 * A suite that has work queues or ends bios replaces those itself.
 */
#undef jiffies
#define jiffies				(fake.now)
#undef DMERR_LIMIT
#define DMERR_LIMIT			DMERR
#undef DMWARN_LIMIT
#define DMWARN_LIMIT			DMWARN
#define dm_table_get_md			fake_md
#define dm_device_name			fake_name
#define dm_copy_name_and_uuid		fake_copy_name
#define dm_disk				fake_dm_disk
#define dm_per_bio_data			fake_per_bio_data
#define dm_bio_from_per_bio_data	fake_bio_of
#define bio_init			fake_bio_init
#define bio_alloc_clone			fake_bio_clone
#define submit_bio_wait			fake_submit_bio_wait
#define submit_bio			fake_submit_bio
#define blkdev_issue_flush		fake_flush

#include "../../kernel/dm-remap.h"

static_assert(ARRAY_SIZE(fake.events) >= DMR_NR_EVENTS, "a place for each");

#endif /* DM_REMAP_KUNIT_H */
