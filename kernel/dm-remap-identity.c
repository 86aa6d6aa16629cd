// SPDX-License-Identifier: GPL-2.0-only
/*
 * Is this the main of the set, is the spare the one that it was used with, and
 * does anybody use these disks or this set already?
 *
 * A tagged main is known by the tag in its first MiB, an adopted one by its
 * driver's unique id where it has one, or else by its size alone.  Where all that is
 * left of the tag cannot be read its id tells a tagged main, too, if there is nothing
 * else in its first MiB: whoever has made something else of the disk since has
 * written there.  An adopted main that its id tells may hold a tag in its data;
 * known by its size alone it may be another set's main.
 *
 * The epoch says whether the spare is an older copy of itself.  An epoch begins in
 * both superblocks first, see commit_raise(), and then the tag says so, one copy
 * after the other, each durable before the next.  So whatever is cut the tag is
 * never ahead of the superblocks that a load finds.  It may be behind: then a copy
 * of the spare from before is told from it later than it could have been.
 *
 *  - The load of a table that may write begins one before any I/O is let in, and so
 *    does the message stop, after which nothing but a resume writes.
 *  - A resume after stop has the commit work begin one before the first commit.
 *  - epoch_work has the commit work begin one when the spare was used for an hour;
 *    nobody waits for that tag, which it writes itself.
 *
 * dtr and postsuspend begin none.  When dtr of an old table runs the new one is in
 * use already.
 *
 * DM claims a disk for all of DM, so two DM devices may open the same range of
 * it, and no claim is seen through a loop device.  A module-wide list keeps
 * targets apart.  A target is in it from ctr, as soon as it is known what it is
 * about to use, to dtr.  It uses two things:
 *  - ranges of main and of the spare, partitions resolved.  They are in use
 *    from the beginning of the first preresume on, even if that fails.
 *  - a set.  Ranges say nothing of the same sectors under another name (a loop
 *    device, a linear map, a second path), nor of copies of both disks.  So a
 *    set runs once, whatever it runs from.  It is in use from where the first
 *    preresume has read its uuid on the disk, and before anything is written
 *    there; one that is formatted then, from the end of that.  A preresume that
 *    fails ends it.
 *
 * What is in use is refused to other devices, in ctr where it can be seen there,
 * since the old table still runs, and for good in preresume.  Other targets of the
 * same table are refused it in ctr, whether it is in use yet or not.  Other tables
 * of the same device are not, or nothing could be reloaded: a table's I/O has
 * ended when the next one is resumed.
 *
 * Context: ctr, preresume and dtr; of the epoch also the commit work, epoch_work,
 * resume and postsuspend.  r->tag is what the tag shall say, under r->lock; who
 * writes it with r->tag_page is alone: preresume and a message while epoch_work is
 * stopped, the commit work an hour before it, or epoch_work.
 *
 * The list has a mutex of its own.  DM's mutex for names nests in it, and it is
 * held over nothing that waits for I/O.  Who is in the list has its table and its
 * device as long as it is held, because dtr comes before these go: only so can
 * another target be looked at, and named.
 */
#include <linux/bitops.h>
#include <linux/mutex.h>
#include <linux/random.h>

#include "dm-remap.h"

#define TAG_TIME	(10 * HZ)	/* spent on writing the tag */
#define EPOCH_TIME	(3600 * HZ)	/* before another one begins by itself */
#define SEARCH_TIME	(60 * HZ)	/* spent on reading main's first MiB */

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

/* What main's own driver says, beside what the set has recorded of its main. */
enum same_disk { ID_UNKNOWN, ID_OTHER, ID_SAME };

static enum same_disk compare_id(struct remap *r, const struct dmr_super *sb)
{
	u8 id[16], type = 0;
	int len = identity_id(r, id, &type);

	if (!len || sb->main_id_type != type)
		return ID_UNKNOWN;
	if (sb->main_id_len != len || memcmp(sb->main_id, id, len) ||
	    dmr_get64(sb->main_offset) != r->main_offset)
		return ID_OTHER;
	return ID_SAME;
}

/* Read a part of a block of main into r->page. */
static int read_main(struct remap *r, u64 block, unsigned int from,
		     unsigned int bytes)
{
	return dmr_block_io(r->main->bdev,
			    block * DMR_BLOCK_SECTORS + (from >> SECTOR_SHIFT),
			    r->page, bytes, REQ_OP_READ | REQ_META | REQ_SYNC);
}

static bool same_tag(const struct dmr_tag *a, const struct dmr_tag *b)
{
	return !memcmp(a->h.uuid, b->h.uuid, sizeof(a->h.uuid)) &&
	       dmr_same_body(a, b);
}

/**
 * identity_read() - read main's tag
 * @r: the target; sets r->tag, r->nr_tags, r->lost_tags and r->tag_fault
 *
 * Of the valid copies the one with the highest sequence is the tag.  For whoever
 * reads the superblocks next, and not after them: a raise goes the other way, so
 * that what is read in this order never looks like an older spare.
 */
void identity_read(struct remap *r)
{
	const struct dmr_tag *found = page_address(r->page);
	unsigned int i, nr = 0;

	WRITE_ONCE(r->nr_tags, 0);
	r->lost_tags = 0;
	r->newest_tags = 0;
	r->tag_fault = NULL;
	memset(r->tag, 0, sizeof(*r->tag));
	if (bdev_nr_sectors(r->main->bdev) < DMR_TAG_SECTORS)
		return;
	for (i = 0; i < DMR_NR_TAGS; i++) {
		u64 place = dmr_tag_block(i);

		if (read_main(r, place, 0, DMR_BLOCK_SIZE)) {
			r->lost_tags |= BIT(i);
			continue;
		}
		if (!dmr_header_ok(found, DMR_TYPE_TAG, place) ||
		    dmr_get64(found->h.home) != place)
			continue;
		if (dmr_get64(found->h.seq) > dmr_get64(r->tag->h.seq)) {
			memcpy(r->tag, found, sizeof(*r->tag));
			nr = 0;
			r->newest_tags = 0;
			r->tag_fault = NULL;
		} else if (found->h.seq == r->tag->h.seq &&
			   !same_tag(found, r->tag)) {
			r->tag_fault = "the copies of main's tag contradict each other";
		}
		if (found->h.seq == r->tag->h.seq) {
			r->newest_tags |= BIT(i);
			nr++;
		}
	}
	WRITE_ONCE(r->nr_tags, nr);
	if (nr && !r->tag_fault)
		r->tag_fault = dmr_tag_check(r->tag);
}

/*----------------------------------------------------------------
 * The epoch
 *----------------------------------------------------------------
 */

/**
 * identity_next_epoch() - begin an epoch in r->super, for commit_raise()
 * @r: the target
 *
 * Return: false: there is none behind the last one.
 */
bool identity_next_epoch(struct remap *r)
{
	struct dmr_super *sb = r->super;
	u64 number = dmr_get64(sb->epoch.number);

	if (number == DMR_EPOCH_MAX)
		return false;
	sb->before = sb->epoch;
	sb->epoch.number = dmr_put64(number + 1);
	sb->epoch.id = dmr_put64(get_random_u64() ?: 1);
	return true;
}

/* What both superblocks say is what the tag shall say. */
void identity_renew_tag(struct remap *r)
{
	const struct dmr_super *sb = r->super;
	struct dmr_tag *tag = r->tag;

	spin_lock_irq(&r->lock);
	memset(tag, 0, sizeof(*tag));
	tag->main_sectors = sb->main_sectors;
	tag->data_start = sb->data_start;
	tag->spare_start = dmr_put64(r->spare_start);
	tag->spare_len = dmr_put64(dmr_get64(sb->area_blocks) *
				   DMR_BLOCK_SECTORS);
	tag->unit = sb->unit;
	tag->epoch = sb->epoch;
	memcpy(tag->name, sb->name, sizeof(tag->name));
	spin_unlock_irq(&r->lock);
	/* No copy says so yet. */
	WRITE_ONCE(r->nr_tags, 0);
	r->epoch_due = jiffies + EPOCH_TIME;
}

/* Is there no time for what can be done later?  Messages have their own. */
static bool suspend_waits(struct remap *r)
{
	return !r->quiet && READ_ONCE(r->suspend_deadline);
}

/*
 * Which copy of the tag is written next, of those that are left?  A cut may tear it.
 * So the only one that holds the newest epoch is not, before another has the one that
 * begins.  Where several do they are first: the others may be places that have
 * failed, and two of these would be all that is ever tried.
 */
static unsigned int next_tag(struct remap *r, unsigned long left,
			     unsigned long written)
{
	unsigned long newest = left & r->newest_tags;
	unsigned long others = left & ~r->newest_tags;

	if (newest && (written || hweight_long(r->newest_tags) > 1))
		return __ffs(newest);
	return __ffs(others ?: newest);
}

/* Write r->tag to one of its places.  Durable when it returns 0. */
static int write_tag(struct remap *r, unsigned int copy)
{
	struct dmr_tag *tag = page_address(r->tag_page);
	u64 place = dmr_tag_block(copy);

	spin_lock_irq(&r->lock);
	memcpy(tag, r->tag, sizeof(*tag));
	spin_unlock_irq(&r->lock);
	dmr_seal(tag, DMR_TYPE_TAG, (u8 *)&r->uuid,
		 dmr_get64(tag->epoch.number), place, place);
	return dmr_write_durable(r, r->main->bdev, place * DMR_BLOCK_SECTORS,
				 r->tag_page, DMR_BLOCK_SIZE, REQ_META);
}

/**
 * identity_write_tag() - write r->tag to all of its places on main
 * @r: the target
 *
 * One copy after the other, each durable before the next, so that a cut leaves the
 * old tag or the new one.  Given up after two that fail, or some time: then the tag
 * stays behind, which no load minds, and a copy of the spare is not told from the
 * spare itself for so much longer; if no copy was written the next hour tries again.
 * A suspend that waits ends it, too, and the next resume goes on.
 */
void identity_write_tag(struct remap *r)
{
	unsigned long deadline = jiffies + TAG_TIME;
	unsigned long left = BIT(DMR_NR_TAGS) - 1, written = 0;
	unsigned int failed = 0;

	if (!r->tagged)
		return;
	while (left && failed < 2 && !time_after(jiffies, deadline)) {
		unsigned int copy = next_tag(r, left, written);

		if (suspend_waits(r)) {
			WRITE_ONCE(r->tag_due, true);
			break;
		}
		left &= ~BIT(copy);
		if (write_tag(r, copy)) {
			/* It may hold anything now. */
			r->newest_tags &= ~BIT(copy);
			failed++;
		} else {
			written |= BIT(copy);
		}
	}
	if (written)
		r->newest_tags = written;
	else
		WRITE_ONCE(r->used, true);
	WRITE_ONCE(r->nr_tags, hweight_long(written));
	if (hweight_long(written) < DMR_NR_TAGS && !READ_ONCE(r->tag_due))
		DMWARN_LIMIT("%s: main took %lu of %u copies of its tag",
			     dmr_name(r), hweight_long(written), DMR_NR_TAGS);
}

/* Have epoch_work run within so many jiffies. */
void identity_have_epoch(struct remap *r, unsigned long delay)
{
	if (delay)
		queue_delayed_work(system_freezable_wq, &r->epoch_work, delay);
	else
		mod_delayed_work(system_freezable_wq, &r->epoch_work, 0);
}

/*
 * Each hour in which something was written to the spare, or as soon as the commit
 * work has raised the epoch for that: nobody waits for the tag.
 */
static void do_epoch(struct work_struct *work)
{
	struct remap *r = container_of(to_delayed_work(work), struct remap,
				       epoch_work);

	if (READ_ONCE(r->suspend_deadline)) {
		/* The resume has us come again. */
	} else if (!READ_ONCE(r->tag_due)) {
		if (READ_ONCE(r->used) && !dmr_leg_fails(r, DMR_SPARE))
			commit_ask_raise(r, false);
	} else if (!dmr_leg_fails(r, DMR_MAIN)) {
		WRITE_ONCE(r->tag_due, false);
		identity_write_tag(r);
	}
	identity_have_epoch(r, EPOCH_TIME);
}

void identity_init(struct remap *r)
{
	INIT_DELAYED_WORK(&r->epoch_work, do_epoch);
}

/* For resume and presuspend_undo: from here on epochs end. */
void identity_start_epochs(struct remap *r)
{
	unsigned long due = r->epoch_due;

	if (READ_ONCE(r->mode) != DMR_MODE_RW)
		return;
	if (r->stopped) {
		/* It writes the tag itself. */
		r->stopped = false;
		WRITE_ONCE(r->tag_due, false);
		commit_ask_raise(r, true);
	}
	if (READ_ONCE(r->tag_due) || time_after_eq(jiffies, due))
		due = jiffies;
	identity_have_epoch(r, due - jiffies);
}

/*
 * For postsuspend and dtr: another table may write the tag next.  Main may take
 * minutes for what was begun, and hung_task is not to report that.
 */
void identity_stop_epochs(struct remap *r)
{
	do
		cancel_delayed_work(&r->epoch_work);
	while (work_busy(&r->epoch_work.work) && schedule_timeout_idle(1) >= 0);
	cancel_delayed_work_sync(&r->epoch_work);
}

/*----------------------------------------------------------------
 * Is this main
 *----------------------------------------------------------------
 */

/* Entries behind its end would make good table blocks invalid. */
static bool is_smaller(struct remap *r, const struct dmr_super *sb)
{
	return bdev_nr_sectors(r->main->bdev) < dmr_get64(sb->main_sectors);
}

/* One of the copies that could not be read. */
static bool is_lost_tag(struct remap *r, u64 block)
{
	unsigned int i;

	for (i = 0; i < DMR_NR_TAGS; i++)
		if (dmr_tag_block(i) == block)
			return r->lost_tags & BIT(i);
	return false;
}

/*
 * Is all of a block zero that can be read?  Where the first one cannot be read as a
 * whole its units can, perhaps: all of a partition table has room there.
 */
static bool blank_or_lost(struct remap *r, u64 block)
{
	const void *data = page_address(r->page);
	unsigned int at;

	if (!read_main(r, block, 0, DMR_BLOCK_SIZE))
		return !memchr_inv(data, 0, DMR_BLOCK_SIZE);
	if (block)
		return true;
	for (at = 0; at < DMR_BLOCK_SIZE; at += r->unit)
		if (!read_main(r, block, at, r->unit) &&
		    memchr_inv(data, 0, r->unit))
			return false;
	return true;
}

/*
 * Is there anything in main's first MiB but what the set may have left there?  That
 * is a copy of the tag, and no valid one was found, and zeroes: scratch blocks, too,
 * are written with zeroes only.  Returns NULL, or what there is.
 */
static const char *search_main(struct remap *r)
{
	const u64 end = DMR_TAG_SECTORS / DMR_BLOCK_SECTORS;
	unsigned long deadline = jiffies + SEARCH_TIME;
	u64 block;

	for (block = 0; block < end; block++) {
		if (is_lost_tag(r, block))
			continue;
		if (!blank_or_lost(r, block))
			break;
		if (time_after(jiffies, deadline) || fatal_signal_pending(current))
			return "main takes too long to read: dmremapctl repair --retag MAIN SPARE";
		cond_resched();
	}
	if (block == end)
		return NULL;
	return "main's tag is lost beside other data: dmremapctl repair --retag MAIN SPARE";
}

/*
 * No copy of the tag is left.  The disk that the set has recorded is accepted where
 * copies cannot be read, so that the tag may be among them; the load writes it again.
 */
static const char *check_without_tag(struct remap *r, const struct dmr_super *sb)
{
	if (!r->lost_tags)
		return "main carries no tag: see dmremapctl repair --retag MAIN SPARE";
	if (is_smaller(r, sb))
		return "main is smaller than the set has recorded";
	if (compare_id(r, sb) != ID_SAME)
		return "main's tag is lost and no id tells: dmremapctl repair --retag MAIN SPARE";
	r->identity = DMR_BY_ID;
	return search_main(r);
}

/* Does main's tag fit the set?  Returns NULL, or why not. */
static const char *check_tag(struct remap *r, const struct dmr_super *sb)
{
	const struct dmr_tag *tag = r->tag;

	if (memcmp(tag->h.uuid, sb->h.uuid, sizeof(tag->h.uuid)))
		return "main carries the tag of another set";
	if (tag->data_start != sb->data_start || tag->unit != sb->unit)
		return "main's tag contradicts the superblock";
	if (is_smaller(r, sb))
		return "main is smaller than the set has recorded";
	switch (dmr_history(sb, &tag->epoch)) {
	case DMR_OLDER_SPARE:
		return "the spare is an older copy of itself: run dmremapctl check";
	case DMR_PARTED:
		return "main was used with another copy of the spare: run dmremapctl check";
	}
	return NULL;
}

static const char *check_tagged(struct remap *r, const struct dmr_super *sb)
{
	r->identity = DMR_BY_TAG;
	if (r->tag_fault)
		return r->tag_fault;
	return r->nr_tags ? check_tag(r, sb) : check_without_tag(r, sb);
}

static const char *check_adopted(struct remap *r, const struct dmr_super *sb)
{
	enum same_disk same = compare_id(r, sb);

	if (dmr_get64(sb->main_sectors) != bdev_nr_sectors(r->main->bdev))
		return "main is not of the size that the set has recorded";
	if (same == ID_OTHER)
		return "main is not the disk that the set has recorded";
	if (same == ID_SAME)
		r->identity = DMR_BY_ID;
	/* No set has the uuid that is zero. */
	else if (r->nr_tags && memcmp(r->tag->h.uuid, sb->content_tag,
				      sizeof(sb->content_tag)))
		return "main carries another's tag: dmremapctl repair --tag-is-content MAIN SPARE";
	/* What is left of it is the content of main's data. */
	WRITE_ONCE(r->nr_tags, 0);
	return NULL;
}

/**
 * identity_check() - is this the main of the set
 * @r: the target
 * @sb: the set's superblock, NULL for a set that is to be formatted
 *
 * Sets r->identity and r->tagged.  After identity_read().  Reads main's first MiB
 * where its tag should be and cannot be read.
 *
 * Return: NULL, or why not.
 */
char *identity_check(struct remap *r, const struct dmr_super *sb)
{
	u8 id[16], type;

	r->tagged = sb && (dmr_get32(sb->main_flags) & DMR_MAIN_TAGGED);
	r->identity = DMR_BY_SIZE;
	if (r->tagged)
		return (char *)check_tagged(r, sb);
	if (sb)
		return (char *)check_adopted(r, sb);
	if (r->nr_tags)
		return "main carries the tag of another set";
	if (identity_id(r, id, &type))
		r->identity = DMR_BY_ID;
	return NULL;
}

/*----------------------------------------------------------------
 * Ranges and sets in use
 *----------------------------------------------------------------
 */

static DEFINE_MUTEX(users_lock);
static LIST_HEAD(ranges);

/* Does what another target has entered count for this one? */
static bool __counts(struct remap *r, struct remap *other, bool live)
{
	struct dm_table *table = r->ti->table, *others = other->ti->table;

	if (other == r)
		return false;
	return others == table ||
	       (live && dm_table_get_md(others) != dm_table_get_md(table));
}

static bool __ranges_overlap(struct dmr_range *a, struct dmr_range *b)
{
	return a->disk == b->disk && a->start < b->end && b->start < a->end;
}

/* Returns who uses a part of the ranges, or NULL. */
static struct remap *__user_of_ranges(struct remap *r)
{
	struct dmr_range *other;
	unsigned int i;

	list_for_each_entry(other, &ranges, list) {
		if (!__counts(r, other->r, other->r->ranges_live))
			continue;
		for (i = 0; i < ARRAY_SIZE(r->range); i++)
			if (__ranges_overlap(&r->range[i], other))
				return other->r;
	}
	return NULL;
}

/* Returns who runs the set, or NULL. */
static struct remap *__user_of_set(struct remap *r, const u8 *uuid)
{
	struct dmr_range *other;

	list_for_each_entry(other, &ranges, list)
		if (__counts(r, other->r, other->r->runs) &&
		    !memcmp(&other->r->uuid, uuid, sizeof(other->r->uuid)))
			return other->r;
	return NULL;
}

static void __say_user(struct remap *r, const char *what, struct remap *user)
{
	struct mapped_device *md = dm_table_get_md(user->ti->table);
	char name[DM_NAME_LEN];

	/* One that is being removed has no name any more. */
	if (dm_copy_name_and_uuid(md, name, NULL))
		strscpy(name, "a device without a name", sizeof(name));
	DMERR("%s: %s is in use by %s (%s)", dmr_name(r), what, name,
	      dm_device_name(md));
}

static bool __set_is_used(struct remap *r, const u8 *uuid)
{
	struct remap *user = __user_of_set(r, uuid);
	char what[sizeof("the set ") + UUID_STRING_LEN];

	if (!user)
		return false;
	snprintf(what, sizeof(what), "the set %pUb", uuid);
	__say_user(r, what, user);
	return true;
}

static bool __ranges_are_used(struct remap *r)
{
	struct remap *user = __user_of_ranges(r);

	if (user)
		__say_user(r, "a part of main or the spare", user);
	return user;
}

static void range_init(struct remap *r, struct dmr_range *range,
		       struct block_device *bdev, sector_t start, sector_t end)
{
	range->r = r;
	range->disk = bdev->bd_disk;
	range->start = get_start_sect(bdev) + start;
	range->end = get_start_sect(bdev) + end;
}

/**
 * identity_enter() - enter ranges and set into the list, for ctr
 * @r: the target; it is known whether main is tagged, and of what set the spare is
 *
 * Return: NULL, or why not; the log names the device that is in the way.
 */
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

	mutex_lock(&users_lock);
	if (__set_is_used(r, (u8 *)&r->uuid))
		error = "the set is in use already";
	else if (__ranges_are_used(r))
		error = "main or spare overlaps a set that is in use";
	else
		for (i = 0; i < ARRAY_SIZE(r->range); i++)
			list_add(&r->range[i].list, &ranges);
	mutex_unlock(&users_lock);
	return error;
}

/* For the first preresume: from here on the ranges count against everybody. */
int identity_claim(struct remap *r)
{
	bool used;

	mutex_lock(&users_lock);
	used = __ranges_are_used(r);
	if (!used)
		r->ranges_live = true;
	mutex_unlock(&users_lock);
	return used ? -EBUSY : 0;
}

/**
 * identity_run() - let the set count against everybody, for the first preresume
 * @r: the target
 * @uuid: what was read from the disk
 *
 * Another uuid than r->uuid is only looked up.
 *
 * Return: 0, or -EBUSY: somebody else runs it, whom the log names.
 */
int identity_run(struct remap *r, const u8 *uuid)
{
	bool used;

	mutex_lock(&users_lock);
	used = __set_is_used(r, uuid);
	if (!used && !memcmp(&r->uuid, uuid, sizeof(r->uuid)))
		r->runs = true;
	mutex_unlock(&users_lock);
	return used ? -EBUSY : 0;
}

/* The preresume has failed: it counts no more. */
void identity_stop(struct remap *r)
{
	mutex_lock(&users_lock);
	r->runs = false;
	mutex_unlock(&users_lock);
}

void identity_leave(struct remap *r)
{
	unsigned int i;

	mutex_lock(&users_lock);
	for (i = 0; i < ARRAY_SIZE(r->range); i++)
		list_del(&r->range[i].list);
	mutex_unlock(&users_lock);
}
