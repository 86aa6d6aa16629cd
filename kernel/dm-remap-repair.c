// SPDX-License-Identifier: GPL-2.0-only
/*
 * The error path: claim, narrow, probe, map or move.
 *
 * A write that main refuses, from end_io to its completion; 5 to 7 are in
 * dm-remap-commit.c:
 *
 *  1 claim	the bio goes on r->queued.  The narrow work takes it when nothing
 *		it overlaps is claimed, claims its whole range at once, and looks
 *		every unit up again: a bio before it may have mapped some.
 *  2 narrow	it is written again in pieces.  What main takes, main keeps.
 *  3 probe	before the first slot is taken: does main still read, and does it
 *		still take writes?  If not this is no medium error: the bio fails
 *		and nothing is mapped.
 *  4 data	the units that main refuses are written to slots, with FUA.
 *  5 commit	the commit work makes the table blocks durable, copy A of all of
 *		them, then copy B.  Bios whose data is durable when a commit starts
 *		share it.
 *  6 publish	slots_insert(), then one store of the state with release
 *		semantics: see dm-remap-slots.c.
 *  7 ack	repair_complete().
 *
 * Each step is complete before the next begins.  4 before 5, or a cut leaves a
 * mapping onto a slot with somebody's old bytes.  5 before 6, or a write that
 * meets the mapping is acknowledged on a slot which nobody finds after a cut.
 * 6 before 7, or a read that follows the ack goes to main.
 *
 * A write that a slot refuses moves its unit: 4 to 7 with another slot and the
 * unit's generation + 1, so that a load which finds both entries knows the newer.
 * The old slot is skipped in memory from 6 on, and BAD on disk by a commit of its
 * own after 7: before 5 is complete it is the only one that says the unit is
 * mapped at all.
 *
 * An I/O to the same unit that was already under way to main is concurrent with
 * the bio under repair, so either order is legal; one that overlaps a bio under
 * repair and fails waits for it in step 1.
 *
 * Some bios come here that have not failed, or only because of what they ask: a
 * write-zeroes of slots, a FUA write that the spare refuses (DMR_IO_SLOTS).  They
 * take no slot from anybody while their slots take them, so the mode and the
 * breaker do not stop them.  A FUA that is refused becomes a write and then a flush,
 * both complete before the step that needs it durable is.
 *
 * A read is narrowed into the bio's own pages.  It never maps; what stays
 * unreadable is noted as pending and the bio ends with BLK_STS_MEDIUM.
 *
 * Context: repair_queue(), repair_main_ok(), repair_said() and repair_forget() in
 * any; the rest in the narrow work, one thread for a target, unless it says
 * otherwise.  Everything is preallocated or comes from r->bs with GFP_NOIO, one
 * replay at a time, so that it works under swap.
 */
#include <linux/mm.h>
#include <linux/slab.h>

#include "dm-remap.h"

/*
 * What one bio may cost.  A disk may take seconds to give up on a block, so it is
 * slow failures that are counted, and the time of the others.  Commands that fail
 * at once cost little, or a megabyte with ten bad sectors would use up two thousand
 * slots.  When it is used up, or BUDGET_TIME after the bio failed if main was slow
 * to fail meanwhile, main is asked no more: the rest of a write goes to slots
 * untried, the rest of a read is an error.  That time runs while the bio waits for
 * its turn, so that a queue which a slow disk has built up drains at once when the
 * first one's time is over.
 *
 * Free slots that are slow to refuse end a bio whose BUDGET_TIME is over; no other
 * place is left for it.  One that takes its data proves that they are not like that.
 */
#define BUDGET_FAILURES		8		/* slow failing commands */
#define BUDGET_SPENT		(4 * HZ)	/* on others that fail */
#define BUDGET_TIME		(30 * HZ)	/* since the bio failed */
#define SUSPEND_FAILURES	2		/* while a suspend waits */
#define SLOW			(HZ / 2)
#define SLOT_TIME		(15 * HZ)	/* spent on these */
#define PROBE_TIME		(15 * HZ)	/* spent on places that fail */
#define QUEUE_TIME		(600 * HZ)	/* no bio waits for so long */
#define REPLAY_ZERO_VECS	16
#define NO_UNIT			U64_MAX

/*----------------------------------------------------------------
 * Notes of pending units: a sorted array, under r->lock
 *----------------------------------------------------------------
 */

/* Index of the first note >= unit. */
static unsigned int __pending_find(struct remap *r, u64 unit)
{
	unsigned int lo = 0, hi = r->nr_pending;

	while (lo < hi) {
		unsigned int mid = (lo + hi) / 2;

		if (r->pending[mid] < unit)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* A note more, or one less, of a unit: see dmr_noted(). */
static void __pending_count(struct remap *r, u64 unit, int change)
{
	unsigned int own = dmr_note_index(dmr_sector_of(r, unit));
	unsigned int before = (own - 1) % DMR_NOTE_COUNTS;

	WRITE_ONCE(r->note_count[own], r->note_count[own] + change);
	WRITE_ONCE(r->note_count[before], r->note_count[before] + change);
}

static void pending_add(struct remap *r, u64 unit, unsigned int n)
{
	unsigned int i, added = 0;
	u64 first = unit;

	if (r->read_only)
		return;
	spin_lock_irq(&r->lock);
	for (; n; n--, unit++) {
		i = __pending_find(r, unit);
		if (i < r->nr_pending && r->pending[i] == unit)
			continue;
		added++;
		/* Those for which there is no room are only counted. */
		if (r->nr_pending == DMR_MAX_PENDING)
			continue;
		memmove(&r->pending[i + 1], &r->pending[i],
			(r->nr_pending - i) * sizeof(*r->pending));
		r->pending[i] = unit;
		__pending_count(r, unit, 1);
		WRITE_ONCE(r->nr_pending, r->nr_pending + 1);
	}
	spin_unlock_irq(&r->lock);
	if (added)
		event_report(r, DMR_EV_PENDING, first, added);
}

/* Forget notes of units [first, last]: their content is known. */
void repair_forget(struct remap *r, u64 first, u64 last)
{
	unsigned int a, b, i;
	unsigned long flags;

	if (!READ_ONCE(r->nr_pending) ||
	    !dmr_noted(r, dmr_sector_of(r, first),
		       dmr_sector_of(r, last - first + 1)))
		return;
	spin_lock_irqsave(&r->lock, flags);
	a = __pending_find(r, first);
	b = __pending_find(r, last + 1);
	if (a != b) {
		for (i = a; i < b; i++)
			__pending_count(r, r->pending[i], -1);
		memmove(&r->pending[a], &r->pending[b],
			(r->nr_pending - b) * sizeof(*r->pending));
		WRITE_ONCE(r->nr_pending, r->nr_pending - (b - a));
	}
	spin_unlock_irqrestore(&r->lock, flags);
}

/*
 * Main has taken a write.  The bit goes first, and may_map() sets it last: so it is
 * there whenever the count is not 0, or end_io would not look at the next write.
 */
static void main_took_write(struct remap *r)
{
	if (!(atomic_read(&r->look) & DMR_LOOK_UNPROVEN))
		return;
	/* Fully ordered; pairs with atomic_fetch_or() in may_map(). */
	atomic_fetch_andnot(DMR_LOOK_UNPROVEN, &r->look);
	WRITE_ONCE(r->unproven, 0);
}

/**
 * repair_main_ok() - main completed a bio without an error
 * @r: the target
 * @io: the bio's
 *
 * For end_io, when the bio is near a note of a pending unit, unproven pieces exist,
 * or a leg fails.
 */
void repair_main_ok(struct remap *r, struct dmr_io *io)
{
	if (dmr_is_write(io->opf))
		main_took_write(r);
	else if ((io->opf & REQ_OP_MASK) != REQ_OP_READ)
		return;
	event_works(r, DMR_MAIN, dmr_is_write(io->opf) ? DMR_WRITES : DMR_READS);
	repair_forget(r, dmr_io_first(r, io), dmr_io_end(r, io) - 1);
}

/**
 * repair_said() - a command has said something of a disk as a whole, or nothing
 * @r: the target
 * @leg: the disk
 * @write: it was a write or write zeroes, else a read
 * @status: how it ended; an error that may be a bad block says nothing
 *
 * Any context.
 */
void repair_said(struct remap *r, enum dmr_leg leg, bool write,
		 blk_status_t status)
{
	enum dmr_kind kind = write ? DMR_WRITES : DMR_READS;

	if (!status)
		event_works(r, leg, kind);
	else if (dmr_disk_fails(r, status, write))
		event_fails(r, leg, kind, U64_MAX);
}

/*----------------------------------------------------------------
 * The breaker: so many pieces are mapped in a minute, or a disk that dies slowly
 * would use up the spare.  Under r->lock.
 *----------------------------------------------------------------
 */

static void breaker_report(struct remap *r, bool open)
{
	if (open)
		DMERR("%s: the breaker is open, write errors are passed up",
		      dmr_name(r));
	else
		DMINFO("%s: the breaker is closed", dmr_name(r));
	event_report(r, DMR_EV_BREAKER, U64_MAX, 1);
}

/**
 * repair_set_breaker() - open or close the breaker
 * @r: the target
 * @open: errors are passed up; closed: a new minute begins
 *
 * Process context.
 */
void repair_set_breaker(struct remap *r, bool open)
{
	bool changed;

	spin_lock_irq(&r->lock);
	changed = r->breaker.open != open;
	WRITE_ONCE(r->breaker.open, open);
	r->breaker.pieces = 0;
	r->breaker.minute = jiffies;
	spin_unlock_irq(&r->lock);
	if (changed)
		breaker_report(r, open);
}

static void __breaker_count(struct dmr_breaker *b)
{
	if (!time_in_range(jiffies, b->minute, b->minute + 60 * HZ)) {
		b->minute = jiffies;
		b->pieces = 0;
	}
	b->pieces++;
}

/*
 * Slots have refused a piece.  It counts once more with each try, so that a spare
 * which refuses everything opens the breaker, too; but what is under way goes on.
 */
static void breaker_refused(struct remap *r)
{
	spin_lock_irq(&r->lock);
	__breaker_count(&r->breaker);
	spin_unlock_irq(&r->lock);
}

/* May one piece more be mapped? */
static bool breaker_allows(struct remap *r)
{
	struct dmr_breaker *b = &r->breaker;
	bool opens;

	spin_lock_irq(&r->lock);
	__breaker_count(b);
	opens = !b->open && b->rate && b->pieces > b->rate;
	if (opens)
		WRITE_ONCE(b->open, true);
	spin_unlock_irq(&r->lock);
	if (opens)
		breaker_report(r, true);
	return !READ_ONCE(b->open);
}

/*----------------------------------------------------------------
 * Replays
 *----------------------------------------------------------------
 */

/* Write zeroes were refused: the same with pages of zeroes. */
static blk_status_t replay_zeroes(struct block_device *bdev, sector_t where,
				  unsigned int sectors, blk_opf_t flags)
{
	struct bio_vec bvecs[REPLAY_ZERO_VECS];
	blk_status_t status = BLK_STS_OK;
	struct bio bio;

	while (sectors && !status) {
		unsigned int i, len;

		bio_init(&bio, bdev, bvecs, REPLAY_ZERO_VECS,
			 REQ_OP_WRITE | flags);
		bio.bi_iter.bi_sector = where;
		for (i = 0; i < REPLAY_ZERO_VECS && sectors; i++) {
			len = min_t(unsigned int, sectors, PAGE_SECTORS);
			__bio_add_page(&bio, ZERO_PAGE(0), len << SECTOR_SHIFT, 0);
			sectors -= len;
			where += len;
		}
		submit_bio_wait(&bio);
		status = bio.bi_status;
		bio_uninit(&bio);
	}
	return status;
}

static blk_status_t replay_once(struct remap *r, struct dmr_io *io, u64 unit,
				unsigned int n, struct block_device *bdev,
				sector_t where, blk_opf_t flags)
{
	unsigned int sectors = dmr_sector_of(r, n);
	struct bio *clone, *bio = dmr_io_bio(io);
	blk_status_t status;

	if ((io->opf & REQ_OP_MASK) == REQ_OP_WRITE_ZEROES)
		return replay_zeroes(bdev, where, sectors, flags);

	clone = bio_alloc_clone(bdev, bio, GFP_NOIO, &r->bs);
	clone->bi_opf = (io->opf & REQ_OP_MASK) | flags;
	bio_trim(clone, dmr_sector_of(r, unit) - io->iter.bi_sector, sectors);
	clone->bi_iter.bi_sector = where;
	submit_bio_wait(clone);
	status = clone->bi_status;
	bio_put(clone);
	return status;
}

/*
 * Do a part of a failed bio again, synchronously.  FUA comes from the saved
 * flags: submission strips it from the clone when main has no volatile cache.
 * NOWAIT, POLLED and RAHEAD stay behind.  Where FUA is refused it is as durable
 * without; see dmr_write_durable(), which does the same for a page.
 */
static blk_status_t replay(struct remap *r, struct dmr_io *io, u64 unit,
			   unsigned int n, struct block_device *bdev,
			   sector_t where, blk_opf_t extra)
{
	blk_opf_t flags = (io->opf & (REQ_META | REQ_PRIO)) | REQ_SYNC;
	blk_status_t status;

	if (!((io->opf | extra) & REQ_FUA))
		return replay_once(r, io, unit, n, bdev, where, flags);
	if (dmr_use_fua(r, bdev)) {
		status = replay_once(r, io, unit, n, bdev, where,
				     flags | REQ_FUA);
		if (!dmr_command_refused(status))
			return status;
	}
	status = replay_once(r, io, unit, n, bdev, where, flags);
	return status ?: errno_to_blk_status(dmr_flush_instead(r, bdev));
}

/*----------------------------------------------------------------
 * Narrowing
 *----------------------------------------------------------------
 */

/* One bio being narrowed. */
struct narrow {
	struct remap *r;
	struct dmr_io *io;
	bool write;
	blk_status_t status;	/* how the bio will end */
	bool alive;		/* main's last command of this bio succeeded */
	u64 good;		/* last unit main completed, NO_UNIT: none */
	bool mapped;		/* a unit that main refused went to a slot */
	bool probed;		/* the probe succeeded since a command failed */
	bool unreadable;	/* a unit is, and was marked */
	unsigned int failures;	/* slow ones */
	unsigned long spent;	/* on the others that failed, in jiffies */
	unsigned long slot_spent;	/* on slots that refuse, in jiffies */
	struct dmr_refused refused;
};

/* What a time of a last slow failure is while there is none. */
static unsigned long never_slow(void)
{
	return jiffies - BUDGET_TIME - 1;
}

/* It has waited for long, and @slow, a device's last slow failure, is why. */
static bool waited_for(struct narrow *n, unsigned long slow)
{
	return time_after(jiffies, n->io->since + BUDGET_TIME) &&
	       time_in_range(jiffies, slow, slow + BUDGET_TIME);
}

/*
 * Main or the spare may not be asked again for this bio.  A queue that is long,
 * but not because of that device, is no reason.
 */
static bool over_budget(struct narrow *n, unsigned long slow)
{
	if (READ_ONCE(n->r->suspend_deadline) && n->failures >= SUSPEND_FAILURES)
		return true;
	return n->failures >= BUDGET_FAILURES || n->spent >= BUDGET_SPENT ||
	       waited_for(n, slow);
}

/* A command of this bio that began then has failed. */
static void note_failure(struct narrow *n, unsigned long begin,
			 unsigned long *slow)
{
	bool slowly = time_after(jiffies, begin + SLOW);

	if (slowly)
		n->failures++;
	else
		n->spent += jiffies - begin;
	if (slowly || n->spent >= BUDGET_SPENT)
		*slow = jiffies;
}

/* A command of this bio on main. */
static blk_status_t try_main(struct narrow *n, u64 unit, unsigned int nr)
{
	unsigned long begin = jiffies;
	blk_status_t status;

	status = replay(n->r, n->io, unit, nr, n->r->main->bdev,
			dmr_sector_of(n->r, unit), 0);
	n->alive = !status;
	repair_said(n->r, DMR_MAIN, n->write, status);
	if (status) {
		n->probed = false;
		note_failure(n, begin, &n->r->main_slow);
		return status;
	}
	n->good = unit;
	if (n->write)
		main_took_write(n->r);
	repair_forget(n->r, unit, unit + nr - 1);
	return status;
}

/* Read a unit of main, if it is one that may be expected to be good. */
static bool probe_read(struct narrow *n, u64 unit)
{
	struct remap *r = n->r;
	u64 first = dmr_unit_of(r, r->main_start);
	u64 last = first + dmr_unit_of(r, r->ti->len) - 1;
	bool own = unit >= dmr_io_first(r, n->io) && unit < dmr_io_end(r, n->io);

	if (unit < first || unit > last || (own && unit != n->good) ||
	    slots_first(r, unit, unit) != DMR_NO_SLOT)
		return false;
	return !dmr_block_io(r->main->bdev, dmr_sector_of(r, unit),
			     r->probe_page, r->unit, REQ_OP_READ | REQ_SYNC);
}

/*
 * What main completed for this bio or a probe before, both ends and the middle of
 * the target, both neighbours.  One success is enough.
 */
static bool main_reads(struct narrow *n)
{
	struct remap *r = n->r;
	u64 first = dmr_unit_of(r, r->main_start);
	u64 units = dmr_unit_of(r, r->ti->len);
	const u64 place[] = {
		n->good, r->probe_unit,
		first, first + units - 1, first + units / 2,
		dmr_io_first(r, n->io) - 1, dmr_io_end(r, n->io),
	};
	unsigned long end = jiffies + PROBE_TIME;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(place); i++) {
		if (probe_read(n, place[i])) {
			r->probe_unit = place[i];
			return true;
		}
		if (dmr_must_stop(r) || time_after(jiffies, end))
			break;
	}
	return false;
}

/* Write a unit of this bio again that main took before. */
static bool takes_again(struct narrow *n)
{
	struct remap *r = n->r;
	blk_status_t status;

	if (n->good == NO_UNIT)
		return false;
	status = replay(r, n->io, n->good, 1, r->main->bdev,
			dmr_sector_of(r, n->good), 0);
	repair_said(r, DMR_MAIN, true, status);
	if (status)
		return false;
	main_took_write(r);
	return true;
}

/* An untagged main has no scratch block; may_map() counts instead. */
static bool main_writes(struct narrow *n)
{
	struct remap *r = n->r;
	unsigned long end = jiffies + PROBE_TIME;
	unsigned int i;

	if (!r->tagged || takes_again(n))
		return true;
	memset(page_address(r->probe_page), 0, DMR_BLOCK_SIZE);
	for (i = 0; i < DMR_NR_SCRATCH && !time_after(jiffies, end) &&
	     !dmr_must_stop(r); i++) {
		sector_t block = dmr_scratch_block(r->scratch);

		if (!dmr_write_durable(r, r->main->bdev,
				       block * DMR_BLOCK_SECTORS,
				       r->probe_page, DMR_BLOCK_SIZE, 0)) {
			event_works(r, DMR_MAIN, DMR_WRITES);
			return true;
		}
		r->scratch = (r->scratch + 1) % DMR_NR_SCRATCH;
	}
	return false;
}

/*
 * Is it the medium, or is it the device?  Asked before anything is marked or
 * committed, whatever the status of the error.  A command of this bio that has
 * succeeded answers it too, but only if none has failed since: a disk may die
 * in the middle of a bio.
 */
static bool probe(struct narrow *n)
{
	struct remap *r = n->r;
	bool reads;

	if (n->alive || n->probed)
		return true;
	if (dmr_must_stop(r))
		return false;
	/* A probe that failed speaks for all that had failed by then. */
	if (r->probe_failed && time_in_range(n->io->since,
					     r->probe_time - QUEUE_TIME,
					     r->probe_time))
		return false;
	reads = main_reads(n);
	n->probed = reads && (!n->write || main_writes(n));
	/* Nobody has found out. */
	if (!n->probed && dmr_must_stop(r))
		return false;
	r->probe_time = jiffies;
	r->probe_failed = !n->probed;
	if (reads)
		event_works(r, DMR_MAIN, DMR_READS);
	if (!n->probed && event_fails(r, DMR_MAIN, reads ? DMR_WRITES : DMR_READS,
				      dmr_io_first(r, n->io)))
		DMERR_LIMIT("%s: main fails elsewhere too, nothing is mapped",
			    dmr_name(r));
	return n->probed;
}

/*
 * Before each piece that is mapped.  The last word is probe()'s before the
 * commit; asking for the first piece saves writing slots for a dead disk.
 */
static bool may_map(struct narrow *n)
{
	struct remap *r = n->r;

	if (!n->mapped && !probe(n))
		return false;
	if (dmr_must_stop(r))
		return false;
	if (r->tagged)
		return true;
	if (READ_ONCE(r->unproven) >= DMR_MAX_UNPROVEN && !takes_again(n)) {
		DMERR_LIMIT("%s: main refused %u pieces and took none, nothing is mapped",
			    dmr_name(r), DMR_MAX_UNPROVEN);
		event_fails(r, DMR_MAIN, DMR_WRITES, dmr_io_first(r, n->io));
		return false;
	}
	/* May undo end_io's 0; then main has to take one write more. */
	WRITE_ONCE(r->unproven, READ_ONCE(r->unproven) + 1);
	/* Fully ordered; pairs with atomic_fetch_andnot() in main_took_write(). */
	atomic_fetch_or(DMR_LOOK_UNPROVEN, &r->look);
	return true;
}

/*
 * Slots did not take their data.  Is it they, or the spare?  It is the spare if
 * no metadata block can be read, or if none can be written: of that the commit is
 * the proof that marks them.
 */
static void slots_refused(struct narrow *n, u32 slot, unsigned int nr,
			  blk_status_t status, unsigned long begin)
{
	struct remap *r = n->r;
	bool more = slots_refuse(r, &n->refused, slot, nr, status);

	breaker_refused(r);
	if (time_after(jiffies, begin + SLOW))
		r->slots_slow = jiffies;
	n->slot_spent += jiffies - begin;
	if (!more || dmr_must_stop(r) || n->slot_spent > SLOT_TIME)
		n->status = n->io->status;
	if (area_readable(r, r->probe_page))
		return;
	DMERR_LIMIT("%s: the spare fails, nothing is mapped", dmr_name(r));
	n->status = n->io->status;
	spin_lock_irq(&r->lock);
	r->spare_fails = true;
	queue_work(r->commit_wq, &r->commit_work);
	spin_unlock_irq(&r->lock);
}

/**
 * repair_take_slots() - slots_take(), and report that there is none
 * @r: the target
 * @unit: first unit, for the report
 * @nr: number of units
 * @got: see slots_take()
 *
 * Slots that have refused this bio are still taken.  So if there is none the
 * free ones were all tried.
 */
u32 repair_take_slots(struct remap *r, u64 unit, unsigned int nr,
		      unsigned int *got)
{
	u32 slot = slots_take(r, nr, got);

	if (slot == DMR_NO_SLOT) {
		DMERR_LIMIT("%s: no free slot is left on the spare", dmr_name(r));
		event_report(r, DMR_EV_SPARE_FULL, unit, 1);
	}
	return slot;
}

/**
 * repair_report_low() - report that few slots are left, once they are
 * @r: the target
 * @unit: what has taken the last ones, for the report
 * @before: so many were free before
 *
 * Asked when those that have refused are given back or BAD.
 */
void repair_report_low(struct remap *r, u64 unit, u32 before)
{
	u32 low = r->nr_slots / 8;

	if (before > low && atomic_read(&r->nr_free) <= low)
		event_report(r, DMR_EV_SPARE_LOW, unit, 1);
}

/*
 * Write units to free slots.  They become this bio's, but are in no commit.
 * @old: the slot of the first one if the units move, else DMR_NO_SLOT.
 */
static void fill_slots(struct narrow *n, u64 unit, unsigned int nr, u32 old)
{
	struct remap *r = n->r;
	unsigned int i, got;
	blk_status_t status;
	u32 slot, gen = 0;

	while (nr && !n->status) {
		unsigned long begin = jiffies;

		/* Not even one each, or a queue of a hundred takes minutes. */
		slot = waited_for(n, r->slots_slow) ? DMR_NO_SLOT :
		       repair_take_slots(r, unit, nr, &got);
		if (slot == DMR_NO_SLOT) {
			n->status = n->io->status;
			return;
		}
		/* Durable before any commit may name the slot. */
		status = replay(r, n->io, unit, got, r->spare->bdev,
				slots_sector(r, slot), REQ_FUA);
		repair_said(r, DMR_SPARE, true, status);
		if (status && !dmr_suspect(r, status, true)) {
			for (i = 0; i < got; i++)
				slots_give_back(r, slot + i);
			n->status = n->io->status;
			return;
		}
		if (status) {
			slots_refused(n, slot, got, status, begin);
			continue;
		}
		r->slots_slow = never_slow();
		slots_took(&n->refused);
		for (i = 0; i < got; i++, slot++, unit++, nr--) {
			if (old != DMR_NO_SLOT)
				gen = (r->slot[old++].info >> 8) + 1;
			r->slot[slot].unit = unit;
			r->slot[slot].next = n->io->first_slot;
			WRITE_ONCE(r->slot[slot].info, dmr_info(DMR_TAKEN, gen));
			n->io->first_slot = slot;
		}
	}
	/* A run that was refused may have been taken by one slot after the other. */
	if (!nr)
		slots_proven(r, &n->refused);
}

/* Main refused these units. */
static void map_run(struct narrow *n, u64 unit, unsigned int nr)
{
	if (!may_map(n) || !breaker_allows(n->r)) {
		n->status = n->io->status;
		return;
	}
	n->mapped = true;
	fill_slots(n, unit, nr, DMR_NO_SLOT);
}

/* Their slots refused these units. */
static void move_run(struct narrow *n, u64 unit, unsigned int nr, u32 old)
{
	struct remap *r = n->r;
	unsigned int i;

	n->status = n->io->status;
	for (i = 0; i < nr; i++)
		if (r->slot[old + i].info >> 8 == DMR_GEN_MAX)
			return;
	if (dmr_must_stop(r) || READ_ONCE(r->mode) != DMR_MODE_RW ||
	    !breaker_allows(r))
		return;
	n->status = BLK_STS_OK;
	fill_slots(n, unit, nr, old);
}

/* Consecutive units of a write that are not mapped, within one piece. */
static void write_run(struct narrow *n, u64 unit, unsigned int nr)
{
	blk_status_t status;

	if (dmr_must_stop(n->r) || READ_ONCE(n->r->breaker.open)) {
		n->status = n->io->status;
		return;
	}
	if (over_budget(n, n->r->main_slow)) {
		/* Untried; what main would have taken is safe on the spare. */
		map_run(n, unit, nr);
		return;
	}
	status = try_main(n, unit, nr);
	if (!status)
		return;
	if (!dmr_suspect(n->r, status, true)) {
		n->status = status;
		return;
	}
	/*
	 * A part of a physical block may have failed in the disk's read half
	 * of a read-modify-write: try its units one by one.  A whole one that
	 * fails is mapped whole.
	 */
	if (nr == 1 || nr == n->r->piece) {
		map_run(n, unit, nr);
		return;
	}
	for (; nr && !n->status; nr--, unit++)
		write_run(n, unit, 1);
}

static void read_failed(struct narrow *n, u64 unit, unsigned int nr)
{
	if (!probe(n)) {
		n->status = n->io->status;
		return;
	}
	n->unreadable = true;
	pending_add(n->r, unit, nr);
}

/* The same for a read. */
static void read_run(struct narrow *n, u64 unit, unsigned int nr)
{
	blk_status_t status;

	if (over_budget(n, n->r->main_slow) || dmr_must_stop(n->r)) {
		n->status = n->io->status;
		return;
	}
	status = try_main(n, unit, nr);
	if (!status)
		return;
	if (!dmr_suspect(n->r, status, false)) {
		n->status = status;
		return;
	}
	if (nr == 1 || nr == n->r->piece) {
		read_failed(n, unit, nr);
		return;
	}
	for (; nr && !n->status; nr--, unit++)
		read_run(n, unit, 1);
}

/* Write units to their slots; FUA for LOST ones, which wait for a commit. */
static void slots_write(struct narrow *n, u64 unit, unsigned int nr, u32 slot,
			bool lost)
{
	struct remap *r = n->r;
	unsigned long begin = jiffies;
	blk_status_t status;
	unsigned int i;

	/*
	 * As for main: slots that have failed before are not tried for ever.  If
	 * it is main that has failed before they are, and a bio that waits for
	 * LOST slots has not asked main.
	 */
	if ((lost || n->io->kind != DMR_IO_MAIN) &&
	    over_budget(n, r->spare_slow)) {
		move_run(n, unit, nr, slot);
		return;
	}
	status = replay(r, n->io, unit, nr, r->spare->bdev,
			slots_sector(r, slot), lost ? REQ_FUA : 0);
	repair_said(r, DMR_SPARE, true, status);
	if (status)
		note_failure(n, begin, &r->spare_slow);
	else
		WRITE_ONCE(r->used, true);
	if (status && !dmr_suspect(r, status, true)) {
		n->status = status;
	} else if (status && (nr == 1 || nr == r->piece)) {
		move_run(n, unit, nr, slot);
	} else if (status) {
		for (i = 0; i < nr && !n->status; i++)
			slots_write(n, unit + i, 1, slot + i, lost);
	} else if (lost) {
		for (i = 0; i < nr; i++, slot++)
			WRITE_ONCE(r->slot[slot].info,
				   dmr_info(DMR_FOUND, r->slot[slot].info >> 8));
		n->io->found = true;
	} else if (!(n->io->opf & REQ_FUA)) {
		atomic64_inc(&r->spare_writes);
	}
}

static void slots_read(struct narrow *n, u64 unit, unsigned int nr, u32 slot)
{
	struct remap *r = n->r;

	n->status = replay(r, n->io, unit, nr, r->spare->bdev,
			   slots_sector(r, slot), 0);
	repair_said(r, DMR_SPARE, false, n->status);
}

/* Consecutive units that lie in consecutive slots by now. */
static void mapped_run(struct narrow *n, u64 unit, unsigned int nr, u32 slot)
{
	struct remap *r = n->r;
	unsigned int state = dmr_slot_state(r, slot);
	bool lost = state == DMR_LOST || state == DMR_FOUND;

	/* SETTLING cannot be met: the bio that it belongs to is claimed. */

	if (state == DMR_DOUBT)
		n->status = BLK_STS_IOERR;
	else if (dmr_must_stop(r) && n->io->kind != DMR_IO_SLOTS)
		n->status = n->io->status;
	else if (n->write)
		slots_write(n, unit, nr, slot, lost);
	else if (lost)
		n->status = BLK_STS_MEDIUM;
	else
		slots_read(n, unit, nr, slot);
}

/* Units of main up to the next border of one of the disk's physical blocks. */
static unsigned int piece_rest(struct remap *r, u64 unit)
{
	return r->piece - ((unit + r->piece_offset) & (r->piece - 1));
}

static void narrow_bio(struct narrow *n)
{
	struct remap *r = n->r;
	u64 unit = dmr_io_first(r, n->io), end = dmr_io_end(r, n->io);

	while (unit < end && !n->status) {
		unsigned int nr = min_t(u64, end - unit, piece_rest(r, unit));
		u32 slot = slots_first(r, unit, unit + nr - 1);

		if (slot != DMR_NO_SLOT && r->slot[slot].unit == unit) {
			nr = slots_run(r, slot, dmr_slot_state(r, slot), nr);
			mapped_run(n, unit, nr, slot);
		} else {
			if (slot != DMR_NO_SLOT)
				nr = r->slot[slot].unit - unit;
			if (n->write)
				write_run(n, unit, nr);
			else
				read_run(n, unit, nr);
		}
		unit += nr;
		cond_resched();
	}
}

/*----------------------------------------------------------------
 * Claims and completion
 *----------------------------------------------------------------
 */

/**
 * repair_queue() - hand a bio to the narrow work
 * @r: the target
 * @bio: the DM clone
 * @status: the error it failed with
 *
 * Any context.  The caller returns DM_ENDIO_INCOMPLETE or DM_MAPIO_SUBMITTED.
 */
void repair_queue(struct remap *r, struct bio *bio, blk_status_t status)
{
	struct dmr_io *io = dmr_io(bio);
	unsigned long flags;

	io->status = status;
	io->since = jiffies;
	io->found = false;
	io->first_slot = DMR_NO_SLOT;
	spin_lock_irqsave(&r->lock, flags);
	list_add_tail(&io->list, &r->queued);
	/* Under the lock: once the bio can complete, r may be on its way out. */
	queue_work(r->narrow_wq, &r->narrow_work);
	spin_unlock_irqrestore(&r->lock, flags);
}

static bool __overlaps_claimed(struct remap *r, struct dmr_io *io)
{
	struct dmr_io *other;

	list_for_each_entry(other, &r->claimed, list)
		if (dmr_io_first(r, io) < dmr_io_end(r, other) &&
		    dmr_io_first(r, other) < dmr_io_end(r, io))
			return true;
	return false;
}

/* The oldest bio, unless it has to wait for one that is claimed. */
static struct dmr_io *claim_next(struct remap *r)
{
	struct dmr_io *io;

	spin_lock_irq(&r->lock);
	io = list_first_entry_or_null(&r->queued, struct dmr_io, list);
	if (io && __overlaps_claimed(r, io))
		io = NULL;
	if (io)
		list_move_tail(&io->list, &r->claimed);
	spin_unlock_irq(&r->lock);
	return io;
}

/* The end of a repair.  The bio and its io are gone afterwards. */
void repair_complete(struct remap *r, struct dmr_io *io, blk_status_t status)
{
	struct bio *bio = dmr_io_bio(io);

	spin_lock_irq(&r->lock);
	list_del(&io->list);
	/* The oldest one may have waited for this range. */
	if (!list_empty(&r->queued))
		queue_work(r->narrow_wq, &r->narrow_work);
	spin_unlock_irq(&r->lock);

	io->kind = DMR_IO_DONE;
	bio->bi_status = status;
	bio_endio(bio);
}

/* The bio's next LOST slot that is in this state; *unit moves past it. */
u32 repair_next_lost(struct remap *r, struct dmr_io *io, unsigned int state,
		     u64 *unit)
{
	u64 last = dmr_io_end(r, io) - 1;
	u32 slot;

	while (io->found && *unit <= last) {
		slot = slots_first(r, *unit, last);
		if (slot == DMR_NO_SLOT)
			break;
		*unit = r->slot[slot].unit + 1;
		if (dmr_state(READ_ONCE(r->slot[slot].info)) == state)
			return slot;
	}
	return DMR_NO_SLOT;
}

/* The bio fails and is in no commit: its slots are as they were before. */
static void give_back(struct remap *r, struct dmr_io *io)
{
	u64 unit = dmr_io_first(r, io);
	u32 next, slot;

	while ((slot = repair_next_lost(r, io, DMR_FOUND, &unit)) != DMR_NO_SLOT)
		WRITE_ONCE(r->slot[slot].info,
			   dmr_info(DMR_LOST, r->slot[slot].info >> 8));
	for (slot = io->first_slot; slot != DMR_NO_SLOT; slot = next) {
		next = r->slot[slot].next;
		slots_give_back(r, slot);
	}
	io->first_slot = DMR_NO_SLOT;
}

static void repair_io(struct remap *r, struct dmr_io *io)
{
	struct bio *bio = dmr_io_bio(io);
	struct narrow n = {
		.r = r,
		.io = io,
		.write = dmr_is_write(io->opf),
		.good = NO_UNIT,
	};
	u32 left, before = atomic_read(&r->nr_free);

	if (n.write && io->kind != DMR_IO_SLOTS &&
	    READ_ONCE(r->mode) != DMR_MODE_RW) {
		repair_complete(r, io, io->status);
		return;
	}
	/* As it was before it was submitted; replays clone this. */
	bio->bi_iter = io->iter;
	bio_clear_flag(bio, BIO_REMAPPED);
	slots_refused_init(&n.refused);

	narrow_bio(&n);
	if (n.unreadable && !n.status)
		n.status = BLK_STS_MEDIUM;
	/* Main may have died while it was narrowed.  A move does not need it. */
	if (n.mapped && !n.status && !probe(&n))
		n.status = io->status;
	left = slots_end(r, &n.refused);
	if (n.status) {
		give_back(r, io);
		if (left != DMR_NO_SLOT)
			commit_queue(r, NULL, left);
		repair_complete(r, io, n.status);
	} else if (io->first_slot != DMR_NO_SLOT || io->found) {
		repair_report_low(r, dmr_io_first(r, io), before);
		commit_queue(r, io, left);
	} else {
		if (n.good != NO_UNIT || io->kind == DMR_IO_SPARE)
			atomic64_inc(&r->transient);
		repair_complete(r, io, BLK_STS_OK);
	}
}

static void do_narrow(struct work_struct *work)
{
	struct remap *r = container_of(work, struct remap, narrow_work);
	struct dmr_io *io;

	while ((io = claim_next(r)))
		repair_io(r, io);
}

/*----------------------------------------------------------------
 * Construction and destruction
 *----------------------------------------------------------------
 */

int repair_create(struct remap *r)
{
	spin_lock_init(&r->lock);
	INIT_LIST_HEAD(&r->queued);
	INIT_LIST_HEAD(&r->claimed);
	INIT_LIST_HEAD(&r->commit);
	r->probe_unit = NO_UNIT;
	r->first_left = DMR_NO_SLOT;
	r->breaker.minute = jiffies;
	/* None was slow yet: jiffies begin near their end. */
	r->main_slow = never_slow();
	r->spare_slow = r->main_slow;
	r->slots_slow = r->main_slow;
	INIT_WORK(&r->narrow_work, do_narrow);
	INIT_WORK(&r->commit_work, commit_do_work);

	r->pending = kvcalloc(DMR_MAX_PENDING, sizeof(*r->pending), GFP_KERNEL);
	r->probe_page = alloc_page(GFP_KERNEL);
	r->narrow_wq = alloc_ordered_workqueue("remap-narrow/%s",
					       WQ_MEM_RECLAIM, dmr_name(r));
	r->commit_wq = alloc_ordered_workqueue("remap-commit/%s",
					       WQ_MEM_RECLAIM, dmr_name(r));
	if (!r->pending || !r->probe_page || !r->narrow_wq || !r->commit_wq ||
	    bioset_init(&r->bs, 4, 0, 0)) {
		repair_destroy(r);
		return -ENOMEM;
	}
	return 0;
}

/* No bio is under repair: DM waits for all of them before it gets here. */
void repair_destroy(struct remap *r)
{
	if (r->narrow_wq)
		destroy_workqueue(r->narrow_wq);
	if (r->commit_wq)
		destroy_workqueue(r->commit_wq);
	bioset_exit(&r->bs);
	if (r->probe_page)
		__free_page(r->probe_page);
	kvfree(r->pending);
}

/* As flush_work(), but not for hung_task: a disk may take minutes to answer. */
static void wait_for_work(struct work_struct *work)
{
	while (work_busy(work))
		schedule_timeout_idle(1);
	flush_work(work);
}

/* For postsuspend: the works have nothing to do, wait until they know. */
void repair_quiesce(struct remap *r)
{
	wait_for_work(&r->narrow_work);
	wait_for_work(&r->commit_work);
}
