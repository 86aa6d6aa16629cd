// SPDX-License-Identifier: GPL-2.0-only
/*
 * The lookup table, unit -> slot, and the allocator of slots.
 *
 * One preallocated entry for each slot, hashed by region of 32 units so that
 * "the first mapping in this range" is one chain walk for an ordinary bio.  16
 * bytes a slot and 6 for its share of the chain heads, all of it allocated in ctr:
 * the error path needs no memory, and one that is full costs what an empty one
 * does.
 *
 * Readers take no lock.  There are two ways to an entry, the chain and, for
 * slots_run(), the neighbour's slot, and a bio that has gone one way must not be
 * followed by one that goes the other way and misses it.  So an entry is linked
 * while it is SEALING, which readers skip, and one store of its state publishes it
 * on both ways at once.  The rules:
 *  - an entry's unit is complete and the entry is linked before
 *    smp_store_release() of its state makes it visible, see commit_settle();
 *  - an entry is never unlinked and its unit never changes while I/O can run.
 *    A unit that moves gets a second entry, nearer to the head, which shadows
 *    the old one.  Before the new one is published the old one becomes LEAVING,
 *    which is MAPPED but no part of a run: else a bio that reaches it from its
 *    neighbour could write to it after another one has read the new one.  After
 *    that it is marked BAD.  (A load links the newest one alone.)  A reader that
 *    began at the head before may find the old one unmarked, which is as if it
 *    had come before the write that moves the unit: that one is acknowledged
 *    after the mark.  If it finds it marked it has missed the new one and begins
 *    again;
 *  - there is one writer, the commit work (or preresume and messages, when no
 *    I/O runs).
 *
 * Taking and giving back of slots has one caller too, the narrow work (or a
 * message, when no I/O runs).
 */
#include <linux/math.h>
#include <linux/mm.h>

#include "dm-remap.h"

#define SLOTS_IN_A_ROW	2	/* tries before these go all over the area */

/*----------------------------------------------------------------*/

int slots_create(struct remap *r)
{
	r->nr_heads = r->nr_slots + r->nr_slots / 2;
	r->slot = kvcalloc(r->nr_slots, sizeof(*r->slot), GFP_KERNEL);
	r->head = kvcalloc(r->nr_heads, sizeof(*r->head), GFP_KERNEL);
	if (!r->slot || !r->head) {
		slots_destroy(r);
		return -ENOMEM;
	}
	slots_clear_lookup(r);
	atomic_set(&r->nr_free, r->nr_slots);
	return 0;
}

/* What slots_create() has allocated, in bytes. */
size_t slots_memory(struct remap *r)
{
	return r->nr_slots * sizeof(*r->slot) + r->nr_heads * sizeof(*r->head);
}

void slots_destroy(struct remap *r)
{
	kvfree(r->slot);
	kvfree(r->head);
	r->slot = NULL;
	r->head = NULL;
}

/* Back to "nothing is in the lookup".  No I/O runs. */
void slots_clear_lookup(struct remap *r)
{
	memset(r->head, 0xff, r->nr_heads * sizeof(*r->head));
	r->nr_lookup = r->read_only;
}

/* Back to "every slot is free".  No I/O runs. */
void slots_clear(struct remap *r)
{
	memset(r->slot, 0, r->nr_slots * sizeof(*r->slot));
	slots_clear_lookup(r);
	r->hint = 0;
	r->run_hint = 0;
	r->rotor = 0;
	atomic_set(&r->nr_free, r->nr_slots);
	atomic_set(&r->nr_mapped, 0);
	atomic_set(&r->nr_lost, 0);
	atomic_set(&r->nr_bad, 0);
	atomic_set(&r->nr_doubt, 0);
}

/*----------------------------------------------------------------*/

/* The first mapping in [first, first + nr), all of one region. */
static u32 region_first(struct remap *r, u64 first, u64 nr)
{
	u32 s, found = DMR_NO_SLOT;
	unsigned int state;
	u64 left = nr;

	/* Pairs with smp_store_release() in slots_insert(). */
	s = smp_load_acquire(dmr_region_head(r, first));
	while (s != DMR_NO_SLOT) {
		u64 distance = r->slot[s].unit - first;

		/* Not if it is shadowed by an entry that was met before. */
		state = distance < left ? dmr_slot_state(r, s) : DMR_SEALING;
		if (state != DMR_SEALING) {
			if (state == DMR_BAD) {
				/*
				 * Its unit moved after the head was read.
				 * Pairs as above.
				 */
				s = smp_load_acquire(dmr_region_head(r, first));
				found = DMR_NO_SLOT;
				left = nr;
				continue;
			}
			found = s;
			if (!distance)
				break;
			left = distance;
		}
		s = READ_ONCE(r->slot[s].next);
	}
	return found;
}

/**
 * slots_first() - the first mapping in a range
 * @r: the target
 * @first: first unit
 * @last: last unit
 *
 * Any context, takes no lock.
 *
 * Return: the slot that holds the lowest mapped unit, or DMR_NO_SLOT.
 */
u32 slots_first(struct remap *r, u64 first, u64 last)
{
	u32 s;

	for (;;) {
		u64 end = min(last, first | DMR_REGION_MASK);

		s = region_first(r, first, end - first + 1);
		if (s != DMR_NO_SLOT || end == last)
			return s;
		first = end + 1;
	}
}

/**
 * slots_run() - how far a mapping goes on
 * @r: the target
 * @slot: returned by slots_first()
 * @state: its state as the caller has read it; it may be another one by now
 * @max: stop there
 *
 * Any context, takes no lock.  A neighbour counts as soon as its state is
 * MAPPED, which is what publishes it to slots_first(), too.
 *
 * Return: number of consecutive units, at least 1, that lie in consecutive
 * slots and are in the same state.
 */
unsigned int slots_run(struct remap *r, u32 slot, unsigned int state,
		       unsigned int max)
{
	const struct dmr_seg *seg = slots_seg(r, slot);
	unsigned int n;

	/* Its neighbours may be moving, too, one after the other. */
	if (state == DMR_LEAVING)
		return 1;
	max = min(max, seg->first_slot + seg->slots - slot);
	for (n = 1; n < max; n++)
		if (dmr_slot_state(r, slot + n) != state ||
		    r->slot[slot + n].unit != r->slot[slot].unit + n)
			break;
	return n;
}

/*
 * Link a slot whose unit is set.  Readers see it as soon as its state is other
 * than SEALING.  Commit work, or no I/O runs.
 */
void slots_insert(struct remap *r, u32 slot)
{
	u32 *head = dmr_region_head(r, r->slot[slot].unit);

	WRITE_ONCE(r->slot[slot].next, *head);
	/* Pairs with smp_load_acquire() in region_first(). */
	smp_store_release(head, slot);
	WRITE_ONCE(r->nr_lookup, r->nr_lookup + 1);
}

/* Link a slot in the place of another one of its unit.  No I/O runs. */
void slots_replace(struct remap *r, u32 old, u32 slot)
{
	u32 *link = dmr_region_head(r, r->slot[slot].unit);

	while (*link != old)
		link = &r->slot[*link].next;
	r->slot[slot].next = r->slot[old].next;
	*link = slot;
}

/*----------------------------------------------------------------*/

const struct dmr_seg *slots_seg(struct remap *r, u32 slot)
{
	const struct dmr_seg *seg = r->seg;

	while (slot >= seg->first_slot + seg->slots)
		seg++;
	return seg;
}

/* Where a slot starts on the spare, in sectors of the device. */
sector_t slots_sector(struct remap *r, u32 slot)
{
	return slots_seg(r, slot)->base + dmr_sector_of(r, slot);
}

static bool is_free(struct remap *r, u32 slot)
{
	return dmr_state(READ_ONCE(r->slot[slot].info)) == DMR_FREE;
}

/* The first aligned run of @want free slots from a slot on. */
static u32 find_run(struct remap *r, u32 first, unsigned int want)
{
	unsigned int i, n;
	u32 s;

	for (i = 0; i < r->nr_segs; i++) {
		const struct dmr_seg *seg = &r->seg[i];
		u32 from = first > seg->first_slot ? first - seg->first_slot : 0;

		for (s = round_up(from, want); s + want <= seg->slots; s += want) {
			for (n = 0; n < want; n++)
				if (!is_free(r, seg->first_slot + s + n))
					break;
			if (n == want)
				return seg->first_slot + s;
		}
	}
	return DMR_NO_SLOT;
}

/* The first free slot from a slot on. */
static u32 find_one(struct remap *r, u32 slot)
{
	for (; slot < r->nr_slots; slot++)
		if (is_free(r, slot))
			return slot;
	return DMR_NO_SLOT;
}

/* An aligned run of @want free slots, @want a power of two. */
static u32 take_run(struct remap *r, unsigned int want)
{
	u32 s = DMR_NO_SLOT;

	if (r->rotor)
		s = find_run(r, max(r->rotor, r->run_hint), want);
	if (s == DMR_NO_SLOT) {
		s = find_run(r, r->run_hint, want);
		r->run_hint = s == DMR_NO_SLOT ? r->nr_slots : s + want;
	}
	return s;
}

static u32 take_one(struct remap *r)
{
	u32 s = DMR_NO_SLOT;

	if (r->rotor)
		s = find_one(r, max(r->rotor, r->hint));
	if (s == DMR_NO_SLOT) {
		/* All behind it are taken: from below, as ever. */
		r->rotor = 0;
		s = find_one(r, r->hint);
		r->hint = min(s, r->nr_slots);
	}
	return s;
}

/**
 * slots_take() - take free slots for a piece
 * @r: the target
 * @want: number of slots, 1..r->piece
 * @got: set to how many consecutive slots were taken, at most @want
 *
 * Whole pieces get aligned runs while there are any, so that they stay one bio
 * on the spare; everything else fills the gaps from below.  After slots have
 * refused their data both begin at the rotor, each behind the one before, and go
 * on from below when they have come to the end.  Narrow work only.
 *
 * Return: the first slot, now in state TAKEN, or DMR_NO_SLOT: none is FREE.
 */
u32 slots_take(struct remap *r, unsigned int want, unsigned int *got)
{
	u32 s = DMR_NO_SLOT;
	unsigned int n;

	*got = want;
	if (want > 1 && want == r->piece)
		s = take_run(r, want);
	if (s == DMR_NO_SLOT) {
		s = take_one(r);
		if (s == DMR_NO_SLOT)
			return DMR_NO_SLOT;
		*got = 1;
	}
	if (r->rotor)
		r->rotor = s + *got;
	for (n = 0; n < *got; n++)
		WRITE_ONCE(r->slot[s + n].info, dmr_info(DMR_TAKEN, 0));
	atomic_sub(*got, &r->nr_free);
	return s;
}

/* A slot that was taken but is in no commit.  Narrow work only. */
void slots_give_back(struct remap *r, u32 slot)
{
	u32 first = slots_seg(r, slot)->first_slot;

	r->slot[slot].unit = 0;
	WRITE_ONCE(r->slot[slot].info, dmr_info(DMR_FREE, 0));
	r->hint = min(r->hint, slot);
	/* Runs are aligned to their segment. */
	r->run_hint = min_t(u32, r->run_hint,
			    first + round_down(slot - first, r->piece));
	atomic_inc(&r->nr_free);
}

/*----------------------------------------------------------------
 * Slots that refuse; struct dmr_refused says what becomes of them
 *----------------------------------------------------------------
 */

void slots_refused_init(struct dmr_refused *f)
{
	memset(f, 0, sizeof(*f));
	f->first = DMR_NO_SLOT;
	f->proven = DMR_NO_SLOT;
}

/**
 * slots_refuse() - taken slots have refused their data
 * @r: the target
 * @f: the bio's
 * @slot: the first one
 * @nr: how many of them, in one command
 * @status: what it has failed with
 *
 * The second try goes to the next free slot: one bad slot is the usual case.  If
 * that one refuses as well, the others go to places all over the area, because what
 * refuses may be a part of it.  The last try is where the second one left off, and
 * the next bio goes on from there.  So a search that fails takes it forward by
 * three slots, and in the end each free slot was tried, whatever lies between.
 *
 * Return: whether another slot may be tried.
 */
bool slots_refuse(struct remap *r, struct dmr_refused *f, u32 slot,
		  unsigned int nr, blk_status_t status)
{
	unsigned int i;
	u32 place;

	/* It may have been the command, which says nothing about the slot. */
	for (i = 0; i < nr; i++) {
		if (status != BLK_STS_TARGET)
			WRITE_ONCE(r->slot[slot + i].info, dmr_info(DMR_LEFT, 0));
		r->slot[slot + i].next = f->first;
		f->first = slot + i;
	}
	if (!f->tries++)
		f->start = slot;
	if (f->tries <= SLOTS_IN_A_ROW || f->tries == DMR_SLOT_TRIES)
		f->behind = slot + nr;
	if (f->tries < SLOTS_IN_A_ROW)
		return true;
	if (f->tries >= DMR_SLOT_TRIES - 1) {
		r->rotor = f->behind;
		return f->tries < DMR_SLOT_TRIES;
	}
	place = f->start + mult_frac(r->nr_slots, f->tries - SLOTS_IN_A_ROW + 1,
				     DMR_SLOT_TRIES - SLOTS_IN_A_ROW);
	if (place >= r->nr_slots)
		place -= r->nr_slots;
	r->rotor = round_down(place, nr);
	return true;
}

/* A slot has taken its data. */
void slots_took(struct dmr_refused *f)
{
	f->tries = 0;
	f->behind = 0;
}

/* All that was refused so far was taken by other slots. */
void slots_proven(struct remap *r, struct dmr_refused *f)
{
	u32 *link = &f->first;
	u32 slot;

	while ((slot = *link) != DMR_NO_SLOT) {
		if (dmr_state(r->slot[slot].info) != DMR_LEFT) {
			link = &r->slot[slot].next;
			continue;
		}
		*link = r->slot[slot].next;
		r->slot[slot].next = f->proven;
		f->proven = slot;
	}
}

/**
 * slots_end() - the bio ends
 * @r: the target
 * @f: the bio's
 *
 * Gives back what is not proven.  If no slot has taken the data the next search
 * goes on from there, see slots_refuse().
 *
 * Return: slots to be marked BAD, through dmr_slot.next.
 */
u32 slots_end(struct remap *r, struct dmr_refused *f)
{
	u32 next, slot, proven = f->proven;

	for (slot = f->first; slot != DMR_NO_SLOT; slot = next) {
		next = r->slot[slot].next;
		slots_give_back(r, slot);
	}
	if (f->behind)
		r->rotor = f->behind;
	slots_refused_init(f);
	return proven;
}
