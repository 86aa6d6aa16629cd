// SPDX-License-Identifier: GPL-2.0-only
/*
 * From a change in memory to two durable copies, and from there to the lookup.
 *
 * A mapping counts when both copies of its table block are durable.  A commit
 * writes copy A of every dirty table with FUA, and only when all of them are
 * durable copy B.  So at every instant one whole copy is on disk, and a cut
 * leaves copies that differ by one sequence at most.  The superblock is first, both
 * copies of it: a table that needs a new stand-in writes the superblock again.
 *
 * The commit work takes all bios whose data is durable when it starts; steps 5 to
 * 7 of the error path (dm-remap-repair.c has 1 to 4):
 *
 *  5 commit	copy A of all table blocks, then copy B.
 *  6 publish	slots_insert(), then one store of the state with release
 *		semantics: see dm-remap-slots.c.
 *  7 ack	repair_complete().
 *
 * Each step is complete before the next begins.  5 before 6, or a write that
 * meets the mapping is acknowledged on a slot which nobody finds after a cut.
 * 6 before 7, or a read that follows the ack goes to main.
 *
 * A commit that fails half way leaves its units in doubt: one copy may say they
 * are mapped, so main must not take newer data for them.  They stay in the
 * lookup and fail until the next load.
 *
 * A scrub reads every copy where it lives.  It writes one that is gone again with
 * the sequence that both have, and leaves the other one alone: that may be the
 * last good one, which a commit's order, A before B, would overwrite first.
 *
 * Context: the commit work, one thread for a target and so without a lock, or
 * preresume and messages on a quiet device, where it is idle.  commit_queue(),
 * commit_ask_spare(), commit_ask_raise() and commit_request() are for others and
 * take r->lock.
 * Allocates nothing.
 */
#include "dm-remap.h"

#define COMMIT_TIME	(30 * HZ)	/* for the blocks after one that failed */

/*----------------------------------------------------------------
 * Two durable copies
 *----------------------------------------------------------------
 */

void commit_mark_block(struct remap *r, u32 mb)
{
	struct dmr_mblock *m = &r->mblock[mb];

	if (m->dirty)
		return;
	m->dirty = true;
	m->next_dirty = r->first_dirty;
	r->first_dirty = mb;
}

/* The block that holds a slot's entry belongs to the next commit. */
void commit_mark_slot(struct remap *r, u32 slot)
{
	commit_mark_block(r, area_mblock(r, slot));
}

/* The set's name, NUL padded, belongs to the next commit. */
void commit_set_name(struct remap *r, const u8 *name)
{
	memcpy(r->super->name, name, DMR_NAME_SIZE);
	commit_mark_block(r, 0);
}

/* After a commit: did it make the slot's entry durable in both copies? */
static bool slot_durable(struct remap *r, u32 slot)
{
	return !r->mblock[area_mblock(r, slot)].failed;
}

/* No metadata can be written: no new mapping and no change of state any more. */
static void commit_set_ro(struct remap *r)
{
	if (r->mode != DMR_MODE_RW)
		return;
	WRITE_ONCE(r->mode, DMR_MODE_RO);
	DMERR("%s: no metadata can be written any more, nothing new will be mapped",
	      dmr_name(r));
	event_report(r, DMR_EV_MODE, U64_MAX, 1);
	event_fails(r, DMR_SPARE, DMR_WRITES, U64_MAX);
}

/* One copy of every dirty table.  @ok: no block has failed yet. */
static bool commit_copies(struct remap *r, int copy, bool ok,
			  unsigned long deadline)
{
	u32 mb;

	for (mb = r->first_dirty; mb != DMR_NO_MBLOCK; mb = r->mblock[mb].next_dirty) {
		struct dmr_mblock *m = &r->mblock[mb];

		if (!mb || m->failed)
			continue;
		/* A spare that is dying slowly must not hold up a suspend. */
		m->failed = r->mode == DMR_MODE_RO ||
			    (!ok && (time_after(jiffies, deadline) ||
				     dmr_must_stop(r)));
		if (!m->failed)
			m->failed = area_write_copy(r, mb, copy, m->seq + 1);
		if (m->failed)
			ok = false;
	}
	return ok;
}

static int write_dirty(struct remap *r)
{
	unsigned long deadline = jiffies + COMMIT_TIME;
	bool ok = true;

	if (r->mblock[0].dirty)
		ok = r->mode != DMR_MODE_RO && !area_write_super(r, 0, 1);
	ok = commit_copies(r, 0, ok, deadline);
	ok = commit_copies(r, 1, ok, deadline);
	while (r->first_dirty != DMR_NO_MBLOCK) {
		struct dmr_mblock *m = &r->mblock[r->first_dirty];

		if (r->first_dirty && !m->failed)
			m->seq++;
		m->dirty = false;
		r->first_dirty = m->next_dirty;
	}
	if (ok)
		return 0;
	commit_set_ro(r);
	return -EIO;
}

/**
 * commit_dirty() - make every dirty block durable, twice
 * @r: the target
 *
 * The superblock, then copy A of all tables, then copy B.  A block that cannot be
 * written twice is marked as failed, and the mode becomes ro for good.
 */
int commit_dirty(struct remap *r)
{
	if (r->first_dirty == DMR_NO_MBLOCK)
		return 0;
	WRITE_ONCE(r->used, true);
	return write_dirty(r);
}

/**
 * commit_raise() - begin an epoch, in both superblocks
 * @r: the target; nothing is dirty
 *
 * What is used while this runs belongs to the new epoch.  The tag comes after: it
 * must not be ahead of a superblock that the next load may find.
 */
int commit_raise(struct remap *r)
{
	const struct dmr_epoch epoch = r->super->epoch;
	const struct dmr_epoch before = r->super->before;
	int ret;

	if (!identity_next_epoch(r))
		return -EOVERFLOW;
	WRITE_ONCE(r->used, false);
	commit_mark_block(r, 0);
	ret = write_dirty(r);
	if (ret) {
		/* One copy may say so, and no more is written. */
		r->super->epoch = epoch;
		r->super->before = before;
		return ret;
	}
	identity_renew_tag(r);
	return 0;
}

/**
 * commit_retire() - say in both superblocks that the set has gone on elsewhere
 * @r: the target, quiet; also in mode ro, which it is from then on
 *
 * The first copy that is durable ends the set: the next load finds it.  What has
 * failed may be there nevertheless, so who tries again writes the same, and with a
 * sequence that nothing else can have had: a commit that failed has had one more than
 * is known, and a mend two.
 *
 * Return: 0, or -EIO: not both are durable, r->retired says which.
 */
int commit_retire(struct remap *r)
{
	__le64 superseded = dmr_put64(DMR_INCOMPAT_SUPERSEDED);
	u64 seq = r->mblock[0].seq;
	int copy, ret = 0;

	if (!r->retire_seq)
		r->retire_seq = seq + (r->mode == DMR_MODE_RW ? 1 : 3);
	r->super->incompat |= superseded;
	for (copy = 0; copy < 2 && !ret; copy++) {
		if (r->retired & BIT(copy))
			continue;
		ret = area_write_copy(r, 0, copy, r->retire_seq);
		if (!ret)
			r->retired |= BIT(copy);
	}
	if (ret) {
		DMERR("%s: superblock copy %d cannot say that the set has gone on elsewhere%s",
		      dmr_name(r), copy - 1,
		      r->retired ? ", the other one does" : "");
		if (!r->retired)
			r->super->incompat &= ~superseded;
		commit_set_ro(r);
		return ret;
	}
	DMWARN("%s: both superblocks say that the set has gone on elsewhere",
	       dmr_name(r));
	if (r->mode == DMR_MODE_RW) {
		WRITE_ONCE(r->mode, DMR_MODE_RO);
		event_report(r, DMR_EV_MODE, U64_MAX, 1);
	}
	return 0;
}

/*----------------------------------------------------------------
 * Scrub
 *----------------------------------------------------------------
 */

/*
 * Read a copy where it lives.  Returns 0: it is as it was written last, 1: it is
 * gone, or why that is not known.
 */
static int look_at_copy(struct remap *r, u32 mb, int copy)
{
	const struct dmr_header *hdr = page_address(r->page);
	u64 place = area_place(r, mb, copy);
	u64 seq = r->mblock[mb].seq;
	int ret = area_read(r, place, r->page);

	if (ret) {
		/* Else it is no bad block, but a spare that is away for now. */
		if (dmr_suspect(r, errno_to_blk_status(ret), false) &&
		    area_readable(r, r->page))
			return 1;
		return -EIO;
	}
	if (!dmr_header_ok(hdr, area_type(mb), place) ||
	    memcmp(hdr->uuid, &r->uuid, sizeof(r->uuid)) ||
	    dmr_get64(hdr->home) != area_home(r, mb, copy) ||
	    dmr_get64(hdr->seq) < seq)
		return 1;
	if (dmr_get64(hdr->seq) == seq)
		return 0;
	DMERR_LIMIT("%s: something else has written metadata block %llu of a running set",
		    dmr_name(r), place);
	return -EUCLEAN;
}

/**
 * commit_scrub() - read a copy of a metadata block, write it again if it is gone
 * @r: the target
 * @mb: the metadata block, 0 is the superblock
 * @copy: which copy
 *
 * The other copy may be the only good one, so it is not touched: this one gets
 * the sequence and the content that both had, as they are in memory, at its
 * place or else on a stand-in.  For the commit work, while nothing is dirty and
 * the message that has asked for it holds r->manual_lock.
 *
 * Return: what became of it, or -EIO: the spare does not answer, -EUCLEAN:
 * something else writes to it, -EAGAIN: a suspend waits.
 */
int commit_scrub(struct remap *r, u32 mb, int copy)
{
	u64 place = area_place(r, mb, copy);
	u64 seq = r->mblock[mb].seq;
	int ret = look_at_copy(r, mb, copy);
	unsigned int tries;

	if (ret <= 0)
		return ret;
	DMWARN_LIMIT("%s: metadata block %llu is gone and is written again",
		     dmr_name(r), place);
	for (tries = 0; tries < DMR_STANDIN_TRIES; tries++) {
		/* A suspend need not wait for what can be done later. */
		if (!r->quiet && READ_ONCE(r->suspend_deadline))
			return -EAGAIN;
		/* From the second time on its place did not keep what it took. */
		if (tries ? area_move_copy(r, mb, copy, seq) :
			    area_write_copy(r, mb, copy, seq))
			break;
		ret = look_at_copy(r, mb, copy);
		if (ret < 0)
			return ret;
		if (ret)
			continue;
		/* A move is told already. */
		if (place == area_place(r, mb, copy))
			event_report(r, DMR_EV_COPIES, U64_MAX, 1);
		return DMR_SCRUB_WRITTEN;
	}
	/* A stand-in could not be named. */
	if (r->mblock[0].failed)
		commit_set_ro(r);
	return DMR_SCRUB_FAILED;
}

/*----------------------------------------------------------------
 * Commit and publish
 *----------------------------------------------------------------
 */

/**
 * commit_queue() - what the next commit shall say
 * @r: the target
 * @io: of a bio whose data is durable in slots, or NULL
 * @left: slots that become BAD, see slots_end(), or DMR_NO_SLOT
 */
void commit_queue(struct remap *r, struct dmr_io *io, u32 left)
{
	u32 *last = &left;

	/* They belong to the narrow work until they are in the list. */
	while (*last != DMR_NO_SLOT)
		last = &r->slot[*last].next;
	spin_lock_irq(&r->lock);
	if (io)
		list_add_tail(&io->commit, &r->commit);
	*last = r->first_left;
	r->first_left = left;
	queue_work(r->commit_wq, &r->commit_work);
	spin_unlock_irq(&r->lock);
}

/**
 * commit_ask_spare() - have the commit work find out whether the spare answers
 * @r: the target
 *
 * Any context, for a bio that has not ended yet.
 */
void commit_ask_spare(struct remap *r)
{
	unsigned long flags;

	spin_lock_irqsave(&r->lock, flags);
	r->spare_asked = true;
	queue_work(r->commit_wq, &r->commit_work);
	spin_unlock_irqrestore(&r->lock, flags);
}

/**
 * commit_ask_raise() - have the commit work begin an epoch
 * @r: the target
 * @first: before the next commit, and the tag as well; else behind it, and nobody
 *	   waits for the tag
 */
void commit_ask_raise(struct remap *r, bool first)
{
	spin_lock_irq(&r->lock);
	r->raise = true;
	r->raise_first |= first;
	queue_work(r->commit_wq, &r->commit_work);
	spin_unlock_irq(&r->lock);
}

static void raise_now(struct remap *r, bool first)
{
	if (r->mode != DMR_MODE_RW)
		return;
	/* It can be done later: not by a spare that is away for now. */
	if (!first && (READ_ONCE(r->suspend_deadline) ||
		       !area_readable(r, r->page)))
		return;
	if (commit_raise(r))
		return;
	if (first) {
		identity_write_tag(r);
	} else if (r->tagged) {
		WRITE_ONCE(r->tag_due, true);
		identity_have_epoch(r, 0);
	}
}

/* The bio's slots belong to the commit that is about to be written. */
static void seal(struct remap *r, struct dmr_io *io)
{
	u64 unit = dmr_io_first(r, io);
	u32 slot;

	for (slot = io->first_slot; slot != DMR_NO_SLOT;
	     slot = r->slot[slot].next) {
		WRITE_ONCE(r->slot[slot].info,
			   dmr_info(DMR_SEALING, r->slot[slot].info >> 8));
		commit_mark_slot(r, slot);
	}
	while ((slot = repair_next_lost(r, io, DMR_FOUND, &unit)) !=
	       DMR_NO_SLOT) {
		WRITE_ONCE(r->slot[slot].info,
			   dmr_info(DMR_SETTLING, r->slot[slot].info >> 8));
		commit_mark_slot(r, slot);
	}
}

/**
 * commit_settle() - publish a slot after its commit
 * @r: the target
 * @slot: was in the commit, and is linked
 * @state: what it is now if both copies say so, else DMR_DOUBT
 *
 * Return: whether both copies say so.
 */
bool commit_settle(struct remap *r, u32 slot, unsigned int state)
{
	bool durable = slot_durable(r, slot);
	u32 gen = r->slot[slot].info >> 8;

	/* Pairs with smp_load_acquire() in dmr_slot_state(). */
	smp_store_release(&r->slot[slot].info,
			  dmr_info(durable ? state : DMR_DOUBT, gen));
	if (!durable)
		atomic_inc(&r->nr_doubt);
	return durable;
}

/* A new slot of its unit is about to be published. */
static void leave(struct remap *r, u32 slot)
{
	u32 info = r->slot[slot].info;

	if (dmr_state(info) != DMR_MAPPED)
		return;
	/* Pairs with smp_load_acquire() in dmr_slot_state(). */
	smp_store_release(&r->slot[slot].info,
			  dmr_info(DMR_LEAVING, info >> 8));
}

/*
 * A unit has moved away from this slot, which failed.  If the move is in doubt
 * there is no metadata any more that could say so.
 */
static void retire(struct remap *r, u32 slot, bool durable)
{
	unsigned int state = dmr_state(r->slot[slot].info);

	/* Pairs with smp_load_acquire() in dmr_slot_state(). */
	smp_store_release(&r->slot[slot].info, dmr_info(DMR_BAD, 0));
	if (!durable)
		return;
	if (state == DMR_LOST)
		atomic_dec(&r->nr_lost);
	commit_mark_slot(r, slot);
	atomic_inc(&r->nr_bad);
	atomic64_inc(&r->moved);
	event_report(r, DMR_EV_SLOT_BAD, r->slot[slot].unit, 1);
}

/* Returns how the bio ends. */
static blk_status_t publish(struct remap *r, struct dmr_io *io)
{
	u64 first = U64_MAX, unit = dmr_io_first(r, io);
	blk_status_t status = BLK_STS_OK;
	unsigned int mapped = 0;
	u32 slot, next, old;
	bool durable;

	while ((slot = repair_next_lost(r, io, DMR_SETTLING, &unit)) !=
	       DMR_NO_SLOT) {
		if (commit_settle(r, slot, DMR_MAPPED))
			atomic_dec(&r->nr_lost);
		else
			status = BLK_STS_IOERR;
	}
	for (slot = io->first_slot; slot != DMR_NO_SLOT; slot = next) {
		next = r->slot[slot].next;
		unit = r->slot[slot].unit;
		old = slots_first(r, unit, unit);
		if (old != DMR_NO_SLOT)
			leave(r, old);
		slots_insert(r, slot);
		durable = commit_settle(r, slot, DMR_MAPPED);
		if (!durable)
			status = BLK_STS_IOERR;
		if (old != DMR_NO_SLOT) {
			retire(r, old, durable);
		} else if (durable) {
			first = min(first, unit);
			mapped++;
		}
	}
	repair_forget(r, dmr_io_first(r, io), dmr_io_end(r, io) - 1);
	if (mapped) {
		atomic_add(mapped, &r->nr_mapped);
		atomic64_add(mapped, &r->remapped);
		DMWARN_LIMIT("%s: mapped %u blocks from main's sector %llu on",
			     dmr_name(r), mapped, dmr_sector_of(r, first));
		event_report(r, DMR_EV_REMAPPED, first, mapped);
	}
	return status;
}

/**
 * commit_mark_left() - LEFT slots are BAD in the commit that is about to be written
 * @r: the target
 * @slot: the first one, through dmr_slot.next; see slots_end()
 *
 * That commit is the proof that the spare takes writes, so that it is the slots
 * which are bad.
 */
void commit_mark_left(struct remap *r, u32 slot)
{
	unsigned int nr = 0;

	for (; slot != DMR_NO_SLOT; slot = r->slot[slot].next, nr++) {
		WRITE_ONCE(r->slot[slot].info, dmr_info(DMR_BAD, 0));
		commit_mark_slot(r, slot);
	}
	if (!nr)
		return;
	atomic_add(nr, &r->nr_bad);
	event_report(r, DMR_EV_SLOT_BAD, U64_MAX, nr);
}

/* Nothing of these was written: their slots stay as they are. */
static void fail_batch(struct remap *r, struct list_head *batch)
{
	struct dmr_io *io, *next;

	list_for_each_entry_safe(io, next, batch, commit)
		repair_complete(r, io, io->status);
}

/* Make the batch durable, publish it, and answer for it. */
static void commit_batch(struct remap *r, struct list_head *batch, u32 left)
{
	struct dmr_io *io, *next;

	commit_mark_left(r, left);
	list_for_each_entry(io, batch, commit)
		seal(r, io);
	commit_dirty(r);
	list_for_each_entry_safe(io, next, batch, commit)
		repair_complete(r, io, publish(r, io));
	/* The old slots of what has moved and is acknowledged. */
	commit_dirty(r);
}

void commit_do_work(struct work_struct *work)
{
	struct remap *r = container_of(work, struct remap, commit_work);
	struct dmr_request *rq;
	LIST_HEAD(batch);
	bool fails, asked, raise, first;
	u32 left;

	spin_lock_irq(&r->lock);
	list_splice_init(&r->commit, &batch);
	left = r->first_left;
	r->first_left = DMR_NO_SLOT;
	rq = r->request;
	r->request = NULL;
	fails = r->spare_fails;
	asked = r->spare_asked;
	r->spare_asked = false;
	raise = r->raise;
	first = r->raise_first;
	r->raise = false;
	r->raise_first = false;
	spin_unlock_irq(&r->lock);

	if (fails)
		commit_set_ro(r);
	if (raise && first)
		raise_now(r, true);
	if (r->mode == DMR_MODE_RW)
		commit_batch(r, &batch, left);
	else
		fail_batch(r, &batch);
	if (raise && !first)
		raise_now(r, false);
	if (asked && !dmr_must_stop(r))
		area_readable(r, r->page);
	/* Last of all: a message on a quiet device may follow at once. */
	if (rq) {
		rq->result = r->mode == DMR_MODE_RW ? rq->fn(r, rq) : -EROFS;
		complete(&rq->done);
	}
}

/**
 * commit_request() - have the commit work do something with the metadata
 * @r: the target
 * @rq: what; set to the result
 *
 * Process context; waits for the disk.  One caller at a time.
 */
void commit_request(struct remap *r, struct dmr_request *rq)
{
	init_completion(&rq->done);
	spin_lock_irq(&r->lock);
	r->request = rq;
	queue_work(r->commit_wq, &r->commit_work);
	spin_unlock_irq(&r->lock);
	dmr_wait(&rq->done);
}
