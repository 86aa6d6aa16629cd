// SPDX-License-Identifier: GPL-2.0-only
/*
 * Is this the main of the set, and does anybody use these disks already?
 *
 * A tagged main is known by the tag in its first MiB, an adopted one by its
 * driver's unique id where it has one, or else by its size alone.  Nothing here
 * writes to main.
 *
 * DM claims a disk for all of DM, so two DM devices may open the same range of
 * it.  A module-wide list keeps sets apart.  A range is entered by ctr; it counts
 * against other devices from the first preresume on, and against other targets of
 * its own table at once.  A table to come of the same device does not count, or
 * nothing could be reloaded.
 *
 * Context: ctr, preresume and dtr.  The list has a mutex of its own, which is held
 * over nothing that waits.
 */
#include <linux/mutex.h>

#include "dm-remap.h"

/*----------------------------------------------------------------
 * Main
 *----------------------------------------------------------------
 */

/*
 * From Linux 6.16 on a DM device has a unique id, too: that of the first disk below
 * it that has one.  It is another one when the volume moves, the same for two
 * volumes on one disk, the spare's for a set whose main has none, and on an
 * older kernel there is none.  All of DM has one major.
 */
static bool is_dm(struct remap *r, struct gendisk *disk)
{
	return disk->major == dm_disk(dm_table_get_md(r->ti->table))->major;
}

/* The unique id that main's own driver gives it.  Returns its length or 0. */
int identity_id(struct remap *r, u8 *id, u8 *type)
{
	static const enum blk_unique_id types[] = {
		BLK_UID_NAA, BLK_UID_EUI64, BLK_UID_T10,
	};
	struct gendisk *disk = r->main->bdev->bd_disk;
	unsigned int i;

	if (!disk->fops->get_unique_id || is_dm(r, disk))
		return 0;
	for (i = 0; i < ARRAY_SIZE(types); i++) {
		int len = disk->fops->get_unique_id(disk, id, types[i]);

		if (len > 0 && len <= 16) {
			*type = types[i];
			return len;
		}
	}
	return 0;
}

static bool same_tag(const struct dmr_tag *a, const struct dmr_tag *b)
{
	return !memcmp(a->h.uuid, b->h.uuid, sizeof(a->h.uuid)) &&
	       dmr_same_body(a, b);
}

/**
 * identity_read() - read main's tag
 * @r: the target; sets r->tag, r->nr_tags, r->tags_unread and r->tag_fault
 *
 * Of the valid copies the one with the highest sequence is the tag.  For whoever
 * reads the superblocks next, and not after them: a raise goes the other way, so
 * that what is read in this order never looks like an older spare.
 */
void identity_read(struct remap *r)
{
	const struct dmr_tag *found = page_address(r->page);
	unsigned int i;

	r->nr_tags = 0;
	r->tags_unread = 0;
	r->tag_fault = NULL;
	memset(r->tag, 0, sizeof(*r->tag));
	if (bdev_nr_sectors(r->main->bdev) < DMR_TAG_SECTORS)
		return;
	for (i = 0; i < DMR_NR_TAGS; i++) {
		u64 place = dmr_tag_block(i);

		if (dmr_block_io(r->main->bdev, place * DMR_BLOCK_SECTORS,
				 r->page, DMR_BLOCK_SIZE,
				 REQ_OP_READ | REQ_META | REQ_SYNC)) {
			r->tags_unread++;
			continue;
		}
		if (!dmr_header_ok(found, DMR_TYPE_TAG, place) ||
		    dmr_get64(found->h.home) != place)
			continue;
		r->nr_tags++;
		if (dmr_get64(found->h.seq) > dmr_get64(r->tag->h.seq)) {
			memcpy(r->tag, found, sizeof(*r->tag));
			r->tag_fault = NULL;
		} else if (found->h.seq == r->tag->h.seq &&
			   !same_tag(found, r->tag)) {
			r->tag_fault = "the copies of main's tag contradict each other";
		}
	}
	if (r->nr_tags && !r->tag_fault)
		r->tag_fault = dmr_tag_check(r->tag);
}

/* Does main's tag fit the set?  Returns NULL, or why not. */
static const char *check_tag(struct remap *r, const struct dmr_super *sb)
{
	const struct dmr_tag *tag = r->tag;

	if (!r->nr_tags)
		return "main carries no tag of a set, but the spare's main does";
	if (memcmp(tag->h.uuid, sb->h.uuid, sizeof(tag->h.uuid)))
		return "main carries the tag of another set";
	if (tag->data_start != sb->data_start || tag->unit != sb->unit)
		return "main's tag contradicts the superblock";
	/* Or entries behind its end would make good blocks invalid. */
	if (dmr_get64(sb->main_sectors) > bdev_nr_sectors(r->main->bdev))
		return "main is smaller than the set has recorded";
	switch (dmr_history(sb, &tag->epoch)) {
	case DMR_OLDER_SPARE:
		return "the spare is an older copy of itself: run dmremapctl check";
	case DMR_PARTED:
		return "main was used with another copy of the spare: run dmremapctl check";
	}
	return NULL;
}

/**
 * identity_check() - is this the main of the set
 * @r: the target
 * @sb: the set's superblock, NULL for a set that is to be formatted
 *
 * Sets r->identity and r->tagged.  After identity_read().
 *
 * Return: NULL, or why not.
 */
char *identity_check(struct remap *r, const struct dmr_super *sb)
{
	u8 id[16], type = 0;
	int len;

	r->tagged = sb && (dmr_get32(sb->main_flags) & DMR_MAIN_TAGGED);
	if (r->tagged) {
		r->identity = DMR_BY_TAG;
		return (char *)(r->tag_fault ?: check_tag(r, sb));
	}
	if (r->nr_tags)
		return "main carries the tag of another set";

	len = identity_id(r, id, &type);
	r->identity = DMR_BY_SIZE;
	if (!sb) {
		if (len)
			r->identity = DMR_BY_ID;
		return NULL;
	}
	if (dmr_get64(sb->main_sectors) != bdev_nr_sectors(r->main->bdev))
		return "main is not of the size that the set has recorded";
	if (!len || sb->main_id_type != type)
		return NULL;
	if (sb->main_id_len != len || memcmp(sb->main_id, id, len) ||
	    dmr_get64(sb->main_offset) != r->main_offset)
		return "main is not the disk that the set has recorded";
	r->identity = DMR_BY_ID;
	return NULL;
}

/*----------------------------------------------------------------
 * Ranges in use
 *----------------------------------------------------------------
 */

static DEFINE_MUTEX(ranges_lock);
static LIST_HEAD(ranges);

static bool __ranges_overlap(struct dmr_range *a, struct dmr_range *b)
{
	return a->disk == b->disk && a->start < b->end && b->start < a->end;
}

static bool __ranges_conflict(struct remap *r)
{
	struct dm_table *table = r->ti->table;
	struct dmr_range *other;
	unsigned int i;

	list_for_each_entry(other, &ranges, list) {
		struct dm_table *others = other->r->ti->table;

		if (other->r == r)
			continue;
		if (others != table &&
		    (!other->r->ranges_live ||
		     dm_table_get_md(others) == dm_table_get_md(table)))
			continue;
		for (i = 0; i < ARRAY_SIZE(r->range); i++)
			if (__ranges_overlap(&r->range[i], other))
				return true;
	}
	return false;
}

static void range_init(struct remap *r, struct dmr_range *range,
		       struct block_device *bdev, sector_t start, sector_t end)
{
	range->r = r;
	range->disk = bdev->bd_disk;
	range->start = get_start_sect(bdev) + start;
	range->end = get_start_sect(bdev) + end;
}

/* For ctr, when it is known whether main is tagged. */
char *identity_enter(struct remap *r)
{
	sector_t end = r->main_start + r->ti->len;
	char *error = NULL;
	unsigned int i;

	range_init(r, &r->range[0], r->main->bdev,
		   r->tagged ? 0 : r->main_start, end);
	range_init(r, &r->range[1], r->spare->bdev, r->spare_start,
		   r->spare_start + r->spare_len);
	if (__ranges_overlap(&r->range[0], &r->range[1]))
		return "main and spare overlap";

	mutex_lock(&ranges_lock);
	if (__ranges_conflict(r))
		error = "main or spare overlaps a set that is in use";
	else
		for (i = 0; i < ARRAY_SIZE(r->range); i++)
			list_add(&r->range[i].list, &ranges);
	mutex_unlock(&ranges_lock);
	return error;
}

/* For the first preresume: from here on the ranges count against everybody. */
int identity_claim(struct remap *r)
{
	int ret = 0;

	mutex_lock(&ranges_lock);
	if (__ranges_conflict(r)) {
		DMERR("%s: main or spare overlaps a set that is in use",
		      dmr_name(r));
		ret = -EBUSY;
	} else {
		r->ranges_live = true;
	}
	mutex_unlock(&ranges_lock);
	return ret;
}

void identity_leave(struct remap *r)
{
	unsigned int i;

	mutex_lock(&ranges_lock);
	for (i = 0; i < ARRAY_SIZE(r->range); i++)
		list_del(&r->range[i].list);
	mutex_unlock(&ranges_lock);
}
