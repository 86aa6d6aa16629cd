// SPDX-License-Identifier: GPL-2.0-only
/*
 * What an administrator asks for: blocks mapped by hand, another name, and a look
 * at the metadata.
 *
 * Mapping by hand brings readable blocks of main to slots, or marks blocks whose
 * content is given up as LOST.  A block that main can still write may be written
 * at any moment, so what was read is right only while no I/O runs: on a device that is
 * quiet, from the end of postsuspend to the beginning of preresume.  Both change
 * r->quiet under r->manual_lock, which a message holds from its test of it to its
 * end, for MAPPING_TIME and a few commands at most; dm_suspended() would not keep
 * a resume out.  On a quiet device both works are idle, so a message may use the
 * allocator, the metadata and the lookup as they do.
 *
 * The order is that of a write: data durable, both copies of the table blocks
 * durable, publish, reply.
 */
#include <linux/ctype.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>

#include "dm-remap.h"

#define MAPPING_TIME	(10 * HZ)	/* then the reply says how far it came */
#define BATCH_UNITS	64u		/* share a commit */

/* Blocks that are being mapped by hand. */
struct mapping {
	struct remap *r;
	bool lost;
	struct page *page;
	u32 first_slot;		/* in no commit yet, through dmr_slot.next */
	struct dmr_refused refused;	/* the unit's */
	unsigned long deadline;	/* in jiffies */
	const char *stop;	/* why it cannot go on, NULL: it can */
};

static bool time_is_over(struct mapping *m)
{
	return time_after(jiffies, m->deadline) || fatal_signal_pending(current);
}

/*
 * A slot that has taken the data in m->page, if it is not lost.  DMR_NO_SLOT:
 * none has; m->stop says why, or is NULL if the time was over.
 */
static u32 find_slot(struct mapping *m, u64 unit)
{
	struct remap *r = m->r;
	blk_status_t status;
	unsigned int got;
	u32 slot;
	int ret;

	do {
		/* A resume waits for us. */
		if (m->refused.tries && time_is_over(m))
			return DMR_NO_SLOT;
		slot = repair_take_slots(r, unit, 1, &got);
		if (slot == DMR_NO_SLOT) {
			m->stop = "full";
			return DMR_NO_SLOT;
		}
		ret = m->lost ? 0 :
		      dmr_write_durable(r, r->spare->bdev,
					slots_sector(r, slot), m->page,
					r->unit, 0);
		if (!ret) {
			slots_took(&m->refused);
			slots_proven(r, &m->refused);
			return slot;
		}
		status = errno_to_blk_status(ret);
		if (!dmr_suspect(r, status, true)) {
			slots_give_back(r, slot);
			break;
		}
	} while (slots_refuse(r, &m->refused, slot, 1, status) &&
		 area_readable(r, r->probe_page));
	m->stop = "failed";
	return DMR_NO_SLOT;
}

/* Give a unit a slot.  False: it has none, see find_slot(). */
static bool fill_slot(struct mapping *m, u64 unit)
{
	struct remap *r = m->r;
	u32 slot, before = atomic_read(&r->nr_free);

	slots_refused_init(&m->refused);
	slot = find_slot(m, unit);
	commit_mark_left(r, slots_end(r, &m->refused));
	if (slot == DMR_NO_SLOT)
		return false;
	repair_report_low(r, unit, before);
	r->slot[slot].unit = unit;
	r->slot[slot].next = m->first_slot;
	WRITE_ONCE(r->slot[slot].info,
		   dmr_info(m->lost ? DMR_LOST : DMR_SEALING, 0));
	commit_mark_slot(r, slot);
	m->first_slot = slot;
	return true;
}

/* False: the unit is not mapped, see fill_slot(). */
static bool map_unit(struct mapping *m, u64 unit)
{
	struct remap *r = m->r;

	if (slots_first(r, unit, unit) != DMR_NO_SLOT)
		return true;
	if (!m->lost &&
	    dmr_block_io(r->main->bdev, dmr_sector_of(r, unit), m->page,
			 r->unit, REQ_OP_READ | REQ_SYNC)) {
		m->stop = "unreadable";
		return false;
	}
	return fill_slot(m, unit);
}

/* Commit and publish.  False: some of it is in doubt. */
static bool commit_units(struct mapping *m)
{
	struct remap *r = m->r;
	bool ok = !commit_dirty(r);
	unsigned int mapped = 0;
	u64 first = U64_MAX;
	u32 slot, next;

	for (slot = m->first_slot; slot != DMR_NO_SLOT; slot = next) {
		u64 unit = r->slot[slot].unit;

		next = r->slot[slot].next;
		slots_insert(r, slot);
		if (commit_settle(r, slot, m->lost ? DMR_LOST : DMR_MAPPED)) {
			first = min(first, unit);
			mapped++;
		}
		repair_forget(r, unit, unit);
	}
	m->first_slot = DMR_NO_SLOT;
	atomic_add(mapped, &r->nr_mapped);
	if (m->lost)
		atomic_add(mapped, &r->nr_lost);
	atomic64_add(mapped, &r->remapped);
	if (mapped)
		event_report(r, DMR_EV_REMAPPED, first, mapped);
	return ok;
}

/* An epoch, and the tag that says so; no I/O runs. */
static int begin_epoch(struct remap *r)
{
	int ret = commit_raise(r);

	if (!ret)
		identity_write_tag(r);
	return ret;
}

/* Map units [first, end).  Returns the first one that is not mapped. */
static u64 map_units(struct mapping *m, u64 first, u64 end)
{
	m->deadline = jiffies + MAPPING_TIME;
	while (first < end && !m->stop && !time_is_over(m)) {
		u64 unit, stop = min_t(u64, end, first + BATCH_UNITS);

		unit = first;
		while (unit < stop && map_unit(m, unit)) {
			unit++;
			if (time_is_over(m))
				break;
		}
		if (!commit_units(m)) {
			m->stop = "failed";
			break;
		}
		first = unit;
	}
	return first;
}

/**
 * manual_remap() - map blocks by hand
 * @r: the target
 * @first: first unit
 * @nr: number of units; all of them belong to the target
 * @lost: give their content up
 * @done: set to how many from the first one on are mapped now
 * @stop: set to why no more of them are: "unreadable", "full", "failed", or NULL
 *	  if only the time was over
 *
 * Return: 0, -EBUSY: the device is not suspended, -EROFS: nothing can be mapped
 * any more, -ENOMEM, -EIO or -EINTR.
 */
int manual_remap(struct remap *r, u64 first, u64 nr, bool lost, u64 *done,
		 const char **stop)
{
	struct mapping m = {
		.r = r, .lost = lost, .first_slot = DMR_NO_SLOT,
	};
	int ret = mutex_lock_interruptible(&r->manual_lock);

	if (ret)
		return ret;
	ret = -EBUSY;
	if (!r->quiet)
		goto out;
	ret = -EROFS;
	if (r->mode != DMR_MODE_RW)
		goto out;
	/* A copy that was made since the message stop has none of this. */
	if (r->stopped) {
		ret = begin_epoch(r);
		if (ret)
			goto out;
	}
	/* Reclaim must not wait for a device that is suspended. */
	ret = -ENOMEM;
	m.page = alloc_page(GFP_NOIO);
	if (!m.page)
		goto out;
	*done = map_units(&m, first, first + nr) - first;
	/* Slots that took all the time: to ask again would not help. */
	if (!*done && !m.stop)
		m.stop = "failed";
	*stop = m.stop;
	__free_page(m.page);
	ret = 0;
out:
	mutex_unlock(&r->manual_lock);
	return ret;
}

/**
 * manual_refusal() - may metadata be written at all
 * @r: the target
 *
 * Return: 0, -EBUSY: the set was never started, -EROFS: the mode is ro.
 */
int manual_refusal(struct remap *r)
{
	switch (READ_ONCE(r->mode)) {
	case DMR_MODE_RW:
		return 0;
	case DMR_MODE_RO:
		return -EROFS;
	default:
		return -EBUSY;
	}
}

/* Have the commit work do it. */
static int request(struct remap *r, struct dmr_request *rq)
{
	int ret = manual_refusal(r);

	if (ret)
		return ret;
	commit_request(r, rq);
	return rq->result;
}

static int do_rename(struct remap *r, struct dmr_request *rq)
{
	commit_set_name(r, rq->name);
	return commit_dirty(r);
}

/**
 * manual_rename() - write another name into both superblocks
 * @r: the target
 * @name: NUL terminated
 *
 * Main's tag has it from the next epoch on.
 *
 * Return: 0, -EINVAL: no name, -EBUSY: the set was never started, -EROFS, -EIO.
 */
int manual_rename(struct remap *r, const char *name)
{
	struct dmr_request rq = { .fn = do_rename };
	size_t i, len = strlen(name);
	int ret;

	if (!len || len >= sizeof(rq.name))
		return -EINVAL;
	/* DM has split the words as if they were Latin-1: not beyond ASCII. */
	for (i = 0; i < len; i++)
		if (!isascii(name[i]) || !isprint(name[i]) || name[i] == '/')
			return -EINVAL;
	memcpy(rq.name, name, len);

	ret = mutex_lock_interruptible(&r->manual_lock);
	if (ret)
		return ret;
	ret = request(r, &rq);
	mutex_unlock(&r->manual_lock);
	return ret;
}

static int do_stop(struct remap *r, struct dmr_request *rq)
{
	int ret = begin_epoch(r);

	if (!ret)
		r->stopped = true;
	return ret;
}

/**
 * manual_stop() - begin an epoch on a quiet device that is about to be removed
 * @r: the target
 * @epoch: set to the number of the one that has begun
 * @tags: set to how many copies of main's tag say so
 *
 * Any copy of the spare that was made until now is older from here on.  Should the
 * device be resumed after all, another epoch begins first.
 *
 * Return: 0, -EBUSY: the device is not quiet, or the set was never started, -EROFS,
 * -EIO: the superblocks cannot be written, -EOVERFLOW: this is the last epoch, or
 * -EINTR.
 */
int manual_stop(struct remap *r, u64 *epoch, unsigned int *tags)
{
	struct dmr_request rq = { .fn = do_stop };
	int ret = mutex_lock_interruptible(&r->manual_lock);

	if (ret)
		return ret;
	ret = -EBUSY;
	if (r->quiet)
		ret = request(r, &rq);
	*epoch = dmr_get64(r->super->epoch.number);
	*tags = r->nr_tags;
	mutex_unlock(&r->manual_lock);
	return ret;
}

/**
 * manual_retire() - end the set on a quiet device, because another one takes over
 * @r: the target
 * @epoch: set to the number of the one that it has ended in
 *
 * None begins: who takes over names this one as what it goes on from.  From the first
 * superblock on that says so the table cannot be resumed.  May be repeated.
 *
 * Return: 0, -EBUSY: the device is not quiet, or the set was never started, -EROFS: the
 * table is read-only, -EIO: not both superblocks say so, or -EINTR.
 */
int manual_retire(struct remap *r, u64 *epoch)
{
	int ret = mutex_lock_interruptible(&r->manual_lock);

	if (ret)
		return ret;
	ret = -EBUSY;
	if (r->quiet && r->mode != DMR_MODE_INIT)
		ret = r->read_only ? -EROFS : commit_retire(r);
	*epoch = dmr_get64(r->super->epoch.number);
	mutex_unlock(&r->manual_lock);
	return ret;
}

static int do_scrub(struct remap *r, struct dmr_request *rq)
{
	return commit_scrub(r, rq->mb, rq->copy);
}

/**
 * manual_scrub() - read a copy of a metadata block, write it again if it is gone
 * @r: the target
 * @mb: the metadata block
 * @copy: which copy
 *
 * Return: as commit_scrub(), or as manual_refusal(), -EAGAIN: a suspend waits,
 * or -EINTR.
 */
int manual_scrub(struct remap *r, u32 mb, int copy)
{
	struct dmr_request rq = { .fn = do_scrub, .mb = mb, .copy = copy };
	int ret = mutex_lock_interruptible(&r->manual_lock);

	if (ret)
		return ret;
	ret = -EAGAIN;
	if (r->quiet || !READ_ONCE(r->suspend_deadline))
		ret = request(r, &rq);
	mutex_unlock(&r->manual_lock);
	return ret;
}

/* The end of postsuspend: no I/O runs and both works are idle. */
void manual_allow(struct remap *r)
{
	/* A message may wait for a slow disk: not where hung_task sees it. */
	if (mutex_lock_killable(&r->manual_lock))
		mutex_lock(&r->manual_lock);
	r->quiet = true;
	mutex_unlock(&r->manual_lock);
}

/*
 * The beginning of preresume: wait for a message that is being handled.  -EINTR:
 * the caller is killed.  -EINVAL: the set was retired, and stays quiet, so that the
 * message can be repeated.
 */
int manual_forbid(struct remap *r)
{
	int ret = mutex_lock_killable(&r->manual_lock);

	if (ret)
		return ret;
	if (r->retired) {
		DMERR("%s: the set has gone on elsewhere, load the table of what goes on",
		      dmr_name(r));
		ret = -EINVAL;
	} else {
		r->quiet = false;
	}
	mutex_unlock(&r->manual_lock);
	return ret;
}
