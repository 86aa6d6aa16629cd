// SPDX-License-Identifier: GPL-2.0-only
/*
 * The doubles of the KUnit suites; dm-remap-kunit.h says what they are.
 *
 * The module runs its suites when it is loaded, and is built only for a kernel
 * that has KUnit.  It needs neither dm_remap.ko nor a disk.
 */
#include <linux/module.h>

#include "dm-remap-kunit.h"

#undef bio_init
#undef bio_alloc_clone
#undef submit_bio_wait
#undef submit_bio

struct fake fake;

/* Before each case.  The clock passes zero soon, as a machine's does. */
void fake_reset(void)
{
	memset(&fake, 0, sizeof(fake));
	fake.now = -10ul * HZ;
}

void fake_trace(const char *format, ...)
{
	size_t left = sizeof(fake.trace) - fake.traced;
	va_list args;

	if (fake.traced)
		fake.traced += scnprintf(fake.trace + fake.traced, left, " ");
	left = sizeof(fake.trace) - fake.traced;
	va_start(args, format);
	fake.traced += vscnprintf(fake.trace + fake.traced, left, format, args);
	va_end(args);
}

/* What has happened since the last call. */
const char *fake_traced(void)
{
	static char copy[sizeof(fake.trace)];

	strscpy(copy, fake.traced ? fake.trace : "", sizeof(copy));
	fake.traced = 0;
	return copy;
}

void event_report(struct remap *r, enum dmr_event what, u64 unit, u64 count)
{
	fake.events[what]++;
	fake.units[what] += count;
}

/* The rules are event_fails()'s and event_works()'s; what is told is not. */
bool event_fails(struct remap *r, enum dmr_leg leg, enum dmr_kind kind,
		 u64 unit)
{
	int bit = dmr_look_fails(leg, kind);

	if (atomic_fetch_or(bit, &r->look) & bit)
		return false;
	event_report(r, DMR_EV_PROBE, unit, 1);
	return true;
}

void event_works(struct remap *r, enum dmr_leg leg, enum dmr_kind kind)
{
	int bit = dmr_look_fails(leg, kind);

	if (kind == DMR_WRITES)
		event_works(r, leg, DMR_READS);
	if (atomic_fetch_andnot(bit, &r->look) & bit)
		event_report(r, DMR_EV_PROBE, U64_MAX, 1);
}

void event_flushed(struct remap *r, enum dmr_leg leg, blk_status_t status)
{
	if (!status) {
		event_works(r, leg, DMR_FLUSHES);
	} else {
		atomic64_inc(&r->flush_errors);
		event_fails(r, leg, DMR_FLUSHES, U64_MAX);
	}
}

/* Each table is of a device of its own. */
struct mapped_device *fake_md(struct dm_table *table)
{
	return (struct mapped_device *)table;
}

const char *fake_name(struct mapped_device *md)
{
	return "kunit";
}

int fake_copy_name(struct mapped_device *md, char *name, char *uuid)
{
	strscpy(name, "kunit", DM_NAME_LEN);
	return 0;
}

struct gendisk *fake_dm_disk(struct mapped_device *md)
{
	static struct gendisk disk = { .major = FAKE_DM_MAJOR };

	return &disk;
}

/* A disk whose driver knows no unique id. */
static const struct block_device_operations no_id;

static void disk_free(void *context)
{
	struct fake_disk *disk = context;

	vfree(disk->data);
	vfree(disk->bad[READ]);
	vfree(disk->bad[WRITE]);
}

struct fake_disk *fake_disk_create(struct kunit *test, char name,
				   sector_t sectors, unsigned int grain)
{
	struct fake_disk *disk = kunit_kzalloc(test, sizeof(*disk), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, disk);
	disk->data = vzalloc(sectors << SECTOR_SHIFT);
	disk->bad[READ] = vzalloc(sectors);
	disk->bad[WRITE] = vzalloc(sectors);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, disk_free, disk),
			0);
	KUNIT_ASSERT_NOT_NULL(test, disk->data);
	KUNIT_ASSERT_NOT_NULL(test, disk->bad[READ]);
	KUNIT_ASSERT_NOT_NULL(test, disk->bad[WRITE]);
	disk->disk.fops = &no_id;
	disk->bdev.bd_disk = &disk->disk;
	disk->bdev.bd_nr_sectors = sectors;
	disk->name = name;
	disk->grain = grain;
	return disk;
}

/* Commands of direction READ or WRITE that touch these sectors fail, or not. */
void fake_disk_bad(struct fake_disk *disk, int dir, sector_t sector,
		   unsigned int sectors, blk_status_t status)
{
	memset(disk->bad[dir] + sector, (__force u8)status, sectors);
}

static blk_status_t judge(struct fake_disk *disk, struct bio *bio)
{
	int dir = op_is_write(bio_op(bio)) ? WRITE : READ;
	sector_t at = bio->bi_iter.bi_sector;
	unsigned int left;

	if (disk->dies_after && !--disk->dies_after)
		disk->dead = BLK_STS_MEDIUM;
	if (disk->rots_after && !--disk->rots_after)
		disk->data[at * SECTOR_SIZE] ^= 1;
	if (disk->dead)
		return disk->dead;
	if (disk->no_fua && (bio->bi_opf & REQ_FUA))
		return disk->no_fua;
	/* Only these have data; a disk that is told to write zeroes has not. */
	if (bio_op(bio) != REQ_OP_READ && bio_op(bio) != REQ_OP_WRITE)
		return BLK_STS_NOTSUPP;
	if (bio_end_sector(bio) > bdev_nr_sectors(&disk->bdev))
		return BLK_STS_IOERR;
	for (left = bio_sectors(bio); left; left--, at++)
		if (disk->bad[dir][at])
			return (__force blk_status_t)disk->bad[dir][at];
	return BLK_STS_OK;
}

static void transfer(struct fake_disk *disk, struct bio *bio)
{
	u8 *at = disk->data + (bio->bi_iter.bi_sector << SECTOR_SHIFT);
	struct bvec_iter iter;
	struct bio_vec bvec;

	bio_for_each_segment(bvec, bio, iter) {
		void *memory = page_address(bvec.bv_page) + bvec.bv_offset;

		if (bio_op(bio) == REQ_OP_WRITE)
			memcpy(at, memory, bvec.bv_len);
		else
			memcpy(memory, at, bvec.bv_len);
		at += bvec.bv_len;
	}
	if (bio_op(bio) == REQ_OP_WRITE)
		fake_disk_bad(disk, READ, bio->bi_iter.bi_sector,
			      bio_sectors(bio), BLK_STS_OK);
}

static void command(struct bio *bio)
{
	struct fake_disk *disk = container_of(bio->bi_bdev, struct fake_disk,
					      bdev);
	char op = bio_op(bio) == REQ_OP_READ ? 'r' :
		  bio->bi_opf & REQ_FUA ? 'W' : 'w';

	bio->bi_status = judge(disk, bio);
	fake_trace("%c%c%llu+%u%s", disk->name, op,
		   bio->bi_iter.bi_sector / disk->grain,
		   bio_sectors(bio) / disk->grain, bio->bi_status ? "!" : "");
	fake.now += bio->bi_status ? disk->fail_ticks : disk->ticks;
	disk->flags = bio->bi_opf;
	if (bio->bi_status)
		disk->failed[op != 'r']++;
	else
		transfer(disk, bio);
}

/* A fake disk is in no cgroup, so the block layer must not look for it. */
void fake_bio_init(struct bio *bio, struct block_device *bdev,
		   struct bio_vec *table, unsigned short max_vecs,
		   blk_opf_t opf)
{
	bio_init(bio, NULL, table, max_vecs, opf);
	bio->bi_bdev = bdev;
}

struct bio *fake_bio_clone(struct block_device *bdev, struct bio *bio,
			   gfp_t gfp, struct bio_set *bs)
{
	struct bio *clone = bio_alloc_clone(NULL, bio, gfp, bs);

	clone->bi_bdev = bdev;
	return clone;
}

/* As with device-mapper, it stands right in front of the bio. */
void *fake_per_bio_data(struct bio *bio, size_t size)
{
	return (char *)bio - size;
}

struct bio *fake_bio_of(void *data, size_t size)
{
	return (struct bio *)((char *)data + size);
}

int fake_submit_bio_wait(struct bio *bio)
{
	command(bio);
	return blk_status_to_errno(bio->bi_status);
}

void fake_submit_bio(struct bio *bio)
{
	command(bio);
	bio->bi_end_io(bio);
}

int fake_flush(struct block_device *bdev)
{
	struct fake_disk *disk = container_of(bdev, struct fake_disk, bdev);

	fake_trace("%cf%s", disk->name, disk->no_flush ? "!" : "");
	return disk->no_flush ? -EIO : 0;
}

MODULE_DESCRIPTION("KUnit suites of dm-remap");
MODULE_LICENSE("GPL");
