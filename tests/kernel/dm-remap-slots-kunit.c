// SPDX-License-Identifier: GPL-2.0-only
/*
 * The lookup table and the allocator of slots, on their own and against a model
 * that looks at everything one by one.
 */
#include <linux/prandom.h>

#include "dm-remap-kunit.h"

/* What happens between a reader's look at an entry and at its state. */
static void (*on_state)(struct remap *r);

static unsigned int slot_state(struct remap *r, u32 slot)
{
	void (*now)(struct remap *r) = on_state;

	on_state = NULL;
	if (now)
		now(r);
	return dmr_slot_state(r, slot);
}

#define dmr_slot_state	slot_state

#include "../../kernel/dm-remap-slots.c"

#define PIECE	8u

/*----------------------------------------------------------------
 * A table of one or more segments
 *----------------------------------------------------------------
 */

static void table_destroy(void *r)
{
	slots_destroy(r);
}

/* Segments of so many slots each, up to a 0. */
static struct remap *table_create(struct kunit *test, const u32 *slots)
{
	struct remap *r = kunit_kzalloc(test, sizeof(*r), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, r);
	r->piece = PIECE;
	for (; *slots; slots++) {
		struct dmr_seg *seg = &r->seg[r->nr_segs++];

		seg->first_slot = r->nr_slots;
		seg->slots = *slots;
		seg->table_blocks = dmr_table_blocks(*slots);
		r->nr_slots += *slots;
	}
	KUNIT_ASSERT_EQ(test, slots_create(r), 0);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, table_destroy, r),
			0);
	return r;
}

static void map(struct remap *r, u32 slot, u64 unit)
{
	r->slot[slot].unit = unit;
	r->slot[slot].info = dmr_info(DMR_MAPPED, 0);
	slots_insert(r, slot);
}

static int slots_init(struct kunit *test)
{
	static const u32 one[] = { 4096, 0 };

	fake_reset();
	on_state = NULL;
	test->priv = table_create(test, one);
	return 0;
}

/*----------------------------------------------------------------
 * Lookup
 *----------------------------------------------------------------
 */

static void empty_table(struct kunit *test)
{
	struct remap *r = test->priv;

	KUNIT_EXPECT_EQ(test, r->nr_lookup, 0);
	KUNIT_EXPECT_EQ(test, slots_first(r, 0, 0), DMR_NO_SLOT);
	KUNIT_EXPECT_EQ(test, slots_first(r, 0, 100000), DMR_NO_SLOT);
	KUNIT_EXPECT_EQ(test, dmr_any_entry(r, 0, DMR_REGION_MASK), DMR_NO_SLOT);
	/* A read-only table looks at every bio: it refuses writes there. */
	r->read_only = true;
	slots_clear_lookup(r);
	KUNIT_EXPECT_EQ(test, r->nr_lookup, 1);
}

static void insert_and_find(struct kunit *test)
{
	static const u64 units[] = {
		0, 1, 62, 63, 64, 65, 1000000, U32_MAX, 1ull << 32,
		(1ull << 54) - 1,
	};
	struct remap *r = test->priv;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(units); i++)
		map(r, 100 + i, units[i]);
	KUNIT_EXPECT_EQ(test, r->nr_lookup, ARRAY_SIZE(units));
	for (i = 0; i < ARRAY_SIZE(units); i++) {
		u64 unit = units[i];

		KUNIT_EXPECT_EQ(test, slots_first(r, unit, unit), 100 + i);
		KUNIT_EXPECT_EQ(test, dmr_any_entry(r, unit, 0), 100 + i);
	}
	KUNIT_EXPECT_EQ(test, slots_first(r, 2, 61), DMR_NO_SLOT);
	KUNIT_EXPECT_EQ(test, slots_first(r, 66, 999999), DMR_NO_SLOT);
	KUNIT_EXPECT_EQ(test, slots_first(r, U32_MAX - 1ull, 1ull << 33), 107);
}

/* Whatever the order of the chain, the lowest unit of the range is found. */
static void lowest_of_a_range(struct kunit *test)
{
	static const u64 units[] = { 30, 10, 50, 20, 40 };
	struct remap *r = test->priv;
	u64 first, last, unit;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(units); i++)
		map(r, i, units[i]);
	for (first = 0; first < 64; first++) {
		for (last = first; last < 64; last++) {
			u32 slot = slots_first(r, first, last);

			unit = max_t(u64, 10, roundup(first, 10));
			if (unit > 50 || unit > last) {
				KUNIT_EXPECT_EQ(test, slot, DMR_NO_SLOT);
				continue;
			}
			KUNIT_ASSERT_NE(test, slot, DMR_NO_SLOT);
			KUNIT_EXPECT_EQ(test, r->slot[slot].unit, unit);
		}
	}
}

/* Every range around the borders of three regions. */
static void region_borders(struct kunit *test)
{
	static const u64 units[] = { 63, 64, 127, 128 };
	struct remap *r = test->priv;
	u64 first, last;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(units); i++)
		map(r, i, units[i]);
	for (first = 0; first < 200; first++) {
		for (last = first; last < 200; last++) {
			u32 want = DMR_NO_SLOT;

			for (i = 0; i < ARRAY_SIZE(units); i++)
				if (want == DMR_NO_SLOT && units[i] >= first &&
				    units[i] <= last)
					want = i;
			KUNIT_EXPECT_EQ_MSG(test, slots_first(r, first, last),
					    want, "%llu..%llu", first, last);
			if ((first ^ last) & ~DMR_REGION_MASK)
				continue;
			KUNIT_EXPECT_EQ_MSG(test,
					    dmr_any_entry(r, first, last - first)
					    != DMR_NO_SLOT,
					    want != DMR_NO_SLOT,
					    "%llu..%llu", first, last);
		}
	}
}

/* Regions of one chain do not see each other's units. */
static void hash_collisions(struct kunit *test)
{
	struct remap *r = test->priv;
	u32 *head = dmr_region_head(r, 0);
	unsigned int n = 1, i;
	u64 region[4] = { };
	u64 unit;

	for (unit = 64; n < ARRAY_SIZE(region); unit += 64)
		if (dmr_region_head(r, unit) == head)
			region[n++] = unit;
	for (i = 0; i < n; i++)
		map(r, i, region[i] + i);
	for (i = 0; i < n; i++) {
		u64 first = region[i], last = first + DMR_REGION_MASK;

		KUNIT_EXPECT_EQ(test, slots_first(r, first, last), i);
		KUNIT_EXPECT_EQ(test, dmr_any_entry(r, first, last - first), i);
		KUNIT_EXPECT_EQ(test, slots_first(r, first + i + 1, last),
				DMR_NO_SLOT);
		first += i + 1;
		KUNIT_EXPECT_EQ(test, dmr_any_entry(r, first, last - first),
				DMR_NO_SLOT);
	}
	/* Chains through the whole table, all regions in turn. */
	KUNIT_EXPECT_EQ(test, slots_first(r, 1, region[3]), 1);
	KUNIT_EXPECT_EQ(test, slots_first(r, region[1] + 2, region[3] + 63), 2);
}

/* A unit that has moved: the entry nearer to the head counts. */
static void dead_entries(struct kunit *test)
{
	struct remap *r = test->priv;

	map(r, 0, 10);
	map(r, 1, 11);
	map(r, 2, 10);
	KUNIT_EXPECT_EQ(test, slots_first(r, 0, 63), 2);
	KUNIT_EXPECT_EQ(test, dmr_any_entry(r, 10, 0), 2);
	r->slot[0].info = dmr_info(DMR_BAD, 0);
	KUNIT_EXPECT_EQ(test, slots_first(r, 0, 63), 2);
	KUNIT_EXPECT_EQ(test, slots_first(r, 10, 11), 2);
	KUNIT_EXPECT_EQ(test, slots_first(r, 11, 11), 1);
	map(r, 3, 10);
	r->slot[2].info = dmr_info(DMR_BAD, 0);
	KUNIT_EXPECT_EQ(test, slots_first(r, 0, 63), 3);
	KUNIT_EXPECT_EQ(test, r->nr_lookup, 4);
}

static void move_once(struct remap *r)
{
	map(r, 5, 10);
	r->slot[0].info = dmr_info(DMR_BAD, 0);
}

static void move_twice(struct remap *r)
{
	move_once(r);
	map(r, 6, 10);
	r->slot[5].info = dmr_info(DMR_BAD, 0);
	map(r, 7, 9);
}

/*
 * The unit moves after a reader has passed the head.  The old entry, marked,
 * says that a newer one was missed.
 */
static void move_under_a_reader(struct kunit *test)
{
	struct remap *r = test->priv;

	map(r, 0, 10);
	on_state = move_once;
	KUNIT_EXPECT_EQ(test, slots_first(r, 0, 63), 5);
}

/* Twice, and with a lower unit that came in between. */
static void moves_under_a_reader(struct kunit *test)
{
	struct remap *r = test->priv;

	map(r, 0, 10);
	map(r, 1, 12);
	on_state = move_twice;
	KUNIT_EXPECT_EQ(test, slots_first(r, 10, 63), 6);
	KUNIT_EXPECT_EQ(test, slots_first(r, 0, 63), 7);
}

/* What was found before the restart is forgotten, and so is how near it was. */
static void restart_forgets(struct kunit *test)
{
	struct remap *r = test->priv;

	map(r, 0, 10);
	map(r, 1, 5);
	/* The chain begins with 5, which is not in the range. */
	on_state = move_once;
	KUNIT_EXPECT_EQ(test, slots_first(r, 6, 63), 5);
	map(r, 2, 40);
	KUNIT_EXPECT_EQ(test, slots_first(r, 11, 63), 2);
}

static void clear_table(struct kunit *test)
{
	struct remap *r = test->priv;
	unsigned int got;

	map(r, 0, 10);
	slots_take(r, 1, &got);
	slots_take(r, PIECE, &got);
	atomic_set(&r->nr_mapped, 5);
	atomic_set(&r->nr_lost, 4);
	atomic_set(&r->nr_bad, 3);
	atomic_set(&r->nr_doubt, 2);
	slots_clear(r);
	KUNIT_EXPECT_EQ(test, slots_first(r, 0, 100), DMR_NO_SLOT);
	KUNIT_EXPECT_EQ(test, r->nr_lookup, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_free), 4096);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_mapped), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_lost), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_bad), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_doubt), 0);
	KUNIT_EXPECT_EQ(test, slots_take(r, PIECE, &got), 0);
	KUNIT_EXPECT_EQ(test, slots_take(r, 1, &got), PIECE);
}

static void memory_of_a_table(struct kunit *test)
{
	struct remap *r = test->priv;

	KUNIT_EXPECT_LE(test, slots_memory(r), 24 * r->nr_slots);
}

/*----------------------------------------------------------------
 * Runs and places
 *----------------------------------------------------------------
 */

static void runs(struct kunit *test)
{
	struct remap *r = test->priv;
	u32 s;

	for (s = 10; s < 20; s++)
		map(r, s, 100 + s);
	KUNIT_EXPECT_EQ(test, slots_run(r, 10, DMR_MAPPED, 64), 10);
	KUNIT_EXPECT_EQ(test, slots_run(r, 15, DMR_MAPPED, 64), 5);
	KUNIT_EXPECT_EQ(test, slots_run(r, 19, DMR_MAPPED, 64), 1);
	KUNIT_EXPECT_EQ(test, slots_run(r, 10, DMR_MAPPED, 4), 4);
	KUNIT_EXPECT_EQ(test, slots_run(r, 10, DMR_MAPPED, 1), 1);
	/* Another state, or a unit that does not follow. */
	r->slot[14].info = dmr_info(DMR_LOST, 0);
	KUNIT_EXPECT_EQ(test, slots_run(r, 10, DMR_MAPPED, 64), 4);
	KUNIT_EXPECT_EQ(test, slots_run(r, 14, DMR_LOST, 64), 1);
	r->slot[14].info = dmr_info(DMR_MAPPED, 7);
	KUNIT_EXPECT_EQ(test, slots_run(r, 10, DMR_MAPPED, 64), 10);
	r->slot[16].unit++;
	KUNIT_EXPECT_EQ(test, slots_run(r, 10, DMR_MAPPED, 64), 6);
	/* Over the border of a region: a run is of slots. */
	for (s = 40; s < 50; s++)
		map(r, s, 60 - 40 + s);
	KUNIT_EXPECT_EQ(test, slots_run(r, 40, DMR_MAPPED, 64), 10);
}

/* Slots of two segments are not neighbours on the spare. */
static void runs_end_with_a_segment(struct kunit *test)
{
	static const u32 segments[] = { 20, 13, 100, 0 };
	struct remap *r = table_create(test, segments);
	u32 s;

	for (s = 0; s < r->nr_slots; s++)
		map(r, s, 1000 + s);
	KUNIT_EXPECT_EQ(test, slots_run(r, 0, DMR_MAPPED, 64), 20);
	KUNIT_EXPECT_EQ(test, slots_run(r, 18, DMR_MAPPED, 64), 2);
	KUNIT_EXPECT_EQ(test, slots_run(r, 19, DMR_MAPPED, 64), 1);
	KUNIT_EXPECT_EQ(test, slots_run(r, 20, DMR_MAPPED, 64), 13);
	KUNIT_EXPECT_EQ(test, slots_run(r, 30, DMR_MAPPED, 64), 3);
	KUNIT_EXPECT_EQ(test, slots_run(r, 33, DMR_MAPPED, 1000), 100);
	KUNIT_EXPECT_EQ(test, slots_run(r, 132, DMR_MAPPED, 1000), 1);
}

static void places_of_slots(struct kunit *test)
{
	static const u32 segments[] = { 20, 13, 100, 0 };
	struct remap *r = table_create(test, segments);
	u32 i, s;

	r->unit_shift = 1;
	for (i = 0; i < 3; i++)
		r->seg[i].base = 5000 * (i + 1) -
				 dmr_sector_of(r, r->seg[i].first_slot);
	for (s = 0; s < r->nr_slots; s++) {
		const struct dmr_seg *seg = slots_seg(r, s);

		i = s < 20 ? 0 : s < 33 ? 1 : 2;
		KUNIT_EXPECT_PTR_EQ(test, seg, &r->seg[i]);
		KUNIT_EXPECT_EQ(test, slots_sector(r, s),
				5000 * (i + 1) + 2 * (s - seg->first_slot));
	}
}

/*----------------------------------------------------------------
 * The allocator
 *----------------------------------------------------------------
 */

/* So many slots are taken, from that one on. */
static void expect_take(struct kunit *test, struct remap *r, unsigned int want,
			u32 slot, unsigned int number)
{
	unsigned int got = 0;

	KUNIT_EXPECT_EQ(test, slots_take(r, want, &got), slot);
	KUNIT_EXPECT_EQ(test, got, number);
}

/* Single slots fill the gaps that runs leave, from below. */
static void take_runs_and_singles(struct kunit *test)
{
	struct remap *r = test->priv;
	u32 s;

	expect_take(test, r, 1, 0, 1);
	expect_take(test, r, PIECE, 8, PIECE);
	expect_take(test, r, 1, 1, 1);
	expect_take(test, r, PIECE, 16, PIECE);
	/* A part of a piece gets single slots. */
	expect_take(test, r, PIECE - 1, 2, 1);
	expect_take(test, r, 2, 3, 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_free), 4096 - 20);
	for (s = 0; s < 24; s++)
		KUNIT_EXPECT_EQ(test, r->slot[s].info,
				s >= 4 && s < 8 ? 0 : dmr_info(DMR_TAKEN, 0));
	for (s = 4; s < 8; s++)
		expect_take(test, r, 1, s, 1);
	expect_take(test, r, 1, 24, 1);
	expect_take(test, r, PIECE, 32, PIECE);
}

/* Where pieces are units there are no runs. */
static void take_where_pieces_are_units(struct kunit *test)
{
	struct remap *r = test->priv;
	u32 s;

	r->piece = 1;
	for (s = 0; s < 5; s++)
		expect_take(test, r, 1, s, 1);
	slots_give_back(r, 2);
	expect_take(test, r, 1, 2, 1);
	expect_take(test, r, 1, 5, 1);
}

/* A run is aligned to the segment and ends with it. */
static void take_from_segments(struct kunit *test)
{
	static const u32 segments[] = { 20, 13, 16, 0 };
	struct remap *r = table_create(test, segments);
	u32 s;

	expect_take(test, r, PIECE, 0, PIECE);
	expect_take(test, r, PIECE, 8, PIECE);
	expect_take(test, r, PIECE, 20, PIECE);
	expect_take(test, r, PIECE, 33, PIECE);
	expect_take(test, r, PIECE, 41, PIECE);
	/* No run is left: what is left is taken singly. */
	for (s = 16; s < 20; s++)
		expect_take(test, r, PIECE, s, 1);
	for (s = 28; s < 33; s++)
		expect_take(test, r, PIECE, s, 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_free), 0);
}

static void exhaustion(struct kunit *test)
{
	static const u32 segments[] = { 20, 13, 0 };
	struct remap *r = table_create(test, segments);
	unsigned int got;
	u32 s;

	for (s = 0; s < 33; s++)
		expect_take(test, r, 1, s, 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_free), 0);
	KUNIT_EXPECT_EQ(test, slots_take(r, 1, &got), DMR_NO_SLOT);
	KUNIT_EXPECT_EQ(test, slots_take(r, PIECE, &got), DMR_NO_SLOT);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_free), 0);

	slots_give_back(r, 32);
	slots_give_back(r, 7);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_free), 2);
	expect_take(test, r, PIECE, 7, 1);
	expect_take(test, r, 1, 32, 1);
	KUNIT_EXPECT_EQ(test, slots_take(r, 1, &got), DMR_NO_SLOT);
	for (s = 8; s < 16; s++)
		slots_give_back(r, s);
	expect_take(test, r, PIECE, 8, PIECE);
}

/* What was given back becomes a run again, in whatever order it came back. */
static void give_back_a_run(struct kunit *test)
{
	static const u32 segments[] = { 20, 16, 0 };
	struct remap *r = table_create(test, segments);
	u32 s;

	expect_take(test, r, PIECE, 0, PIECE);
	expect_take(test, r, PIECE, 8, PIECE);
	expect_take(test, r, PIECE, 20, PIECE);
	expect_take(test, r, PIECE, 28, PIECE);
	for (s = 15; s >= 8; s--)
		slots_give_back(r, s);
	expect_take(test, r, PIECE, 8, PIECE);
	for (s = 28; s < 35; s++)
		slots_give_back(r, s);
	expect_take(test, r, PIECE, 16, 1);
	/* A run begins at 28: it is the segment's slots that are aligned. */
	slots_give_back(r, 35);
	expect_take(test, r, PIECE, 28, PIECE);
}

/* BAD, LOST and MAPPED slots are never taken again. */
static void only_free_slots(struct kunit *test)
{
	struct remap *r = test->priv;

	r->slot[0].info = dmr_info(DMR_BAD, 0);
	r->slot[1].info = dmr_info(DMR_LOST, 3);
	r->slot[2].info = dmr_info(DMR_MAPPED, 0);
	r->slot[9].info = dmr_info(DMR_DOUBT, 0);
	r->slot[23].info = dmr_info(DMR_LEFT, 0);
	expect_take(test, r, PIECE, 24, PIECE);
	expect_take(test, r, 1, 3, 1);
}

/* With a rotor each search begins behind the one before, and comes round. */
static void take_from_the_rotor(struct kunit *test)
{
	static const u32 segments[] = { 20, 16, 0 };
	struct remap *r = table_create(test, segments);
	u32 s;

	expect_take(test, r, 1, 0, 1);
	r->rotor = 17;
	expect_take(test, r, 1, 17, 1);
	expect_take(test, r, PIECE, 20, PIECE);
	expect_take(test, r, 1, 28, 1);
	/* No run is behind it. */
	expect_take(test, r, PIECE, 8, PIECE);
	expect_take(test, r, 1, 16, 1);
	for (s = 18; s < 20; s++)
		expect_take(test, r, 1, s, 1);
	for (s = 29; s < 36; s++)
		expect_take(test, r, 1, s, 1);
	for (s = 1; s < 8; s++)
		expect_take(test, r, 1, s, 1);
	KUNIT_EXPECT_EQ(test, r->rotor, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_free), 0);
	expect_take(test, r, 1, DMR_NO_SLOT, 1);
	r->rotor = 36;
	slots_give_back(r, 3);
	expect_take(test, r, 1, 3, 1);
	r->rotor = 5;
	slots_clear(r);
	expect_take(test, r, 1, 0, 1);
}

/*----------------------------------------------------------------
 * Against a model
 *----------------------------------------------------------------
 */

#define MODEL_SLOTS	200
#define MODEL_UNITS	400	/* some more than six regions, far apart */
#define MODEL_STEPS	3000

/* What each slot is, in the order in which things came into the table. */
struct model {
	struct remap *r;
	struct rnd_state rnd;
	unsigned int state[MODEL_SLOTS];
	u64 unit[MODEL_SLOTS];
	int newest[MODEL_UNITS];	/* slot, -1: not mapped */
};

static u64 model_unit(unsigned int i)
{
	return i < MODEL_UNITS / 2 ? i : (1ull << 40) + 29 * i;
}

static unsigned int model_index(struct model *m)
{
	return prandom_u32_state(&m->rnd) % MODEL_UNITS;
}

/* The first aligned run, the lowest slot, or none. */
static u32 model_take(struct model *m, unsigned int want, unsigned int *got)
{
	struct remap *r = m->r;
	u32 i, s, n;

	*got = want;
	for (i = 0; want == PIECE && i < r->nr_segs; i++) {
		struct dmr_seg *seg = &r->seg[i];

		for (s = 0; s + want <= seg->slots; s += want) {
			for (n = 0; n < want; n++)
				if (m->state[seg->first_slot + s + n])
					break;
			if (n == want)
				return seg->first_slot + s;
		}
	}
	*got = 1;
	for (s = 0; s < r->nr_slots; s++)
		if (!m->state[s])
			return s;
	return DMR_NO_SLOT;
}

static void model_step_take(struct kunit *test, struct model *m)
{
	unsigned int want = prandom_u32_state(&m->rnd) % 3 ? 1 : PIECE;
	unsigned int got, expected, i;
	u32 slot = slots_take(m->r, want, &got);

	KUNIT_ASSERT_EQ(test, slot, model_take(m, want, &expected));
	if (slot == DMR_NO_SLOT)
		return;
	KUNIT_ASSERT_EQ(test, got, expected);
	for (i = 0; i < got; i++)
		m->state[slot + i] = DMR_TAKEN;
}

/* One of the slots in a state, -1: there is none. */
static int model_any(struct model *m, unsigned int state)
{
	u32 n, s = prandom_u32_state(&m->rnd) % m->r->nr_slots;

	for (n = 0; n < m->r->nr_slots; n++, s = (s + 1) % m->r->nr_slots)
		if (m->state[s] == state)
			return s;
	return -1;
}

static void model_step_give_back(struct model *m)
{
	int slot = model_any(m, DMR_TAKEN);

	if (slot < 0)
		return;
	slots_give_back(m->r, slot);
	m->state[slot] = DMR_FREE;
}

/* Map units in a row, or move those that are mapped already. */
static void model_step_insert(struct model *m)
{
	unsigned int i = model_index(m), n = prandom_u32_state(&m->rnd) % 12;
	int slot = model_any(m, DMR_TAKEN);

	for (; n && slot >= 0 && slot < m->r->nr_slots && i < MODEL_UNITS &&
	     m->state[slot] == DMR_TAKEN; n--, i++, slot++) {
		int old = m->newest[i];

		m->newest[i] = slot;
		m->unit[slot] = model_unit(i);
		m->state[slot] = DMR_MAPPED;
		map(m->r, slot, model_unit(i));
		if (old >= 0) {
			m->state[old] = DMR_BAD;
			m->r->slot[old].info = dmr_info(DMR_BAD, 0);
		}
	}
}

static u32 model_first(struct model *m, u64 first, u64 last)
{
	unsigned int i;

	for (i = 0; i < MODEL_UNITS; i++)
		if (m->newest[i] >= 0 && model_unit(i) >= first &&
		    model_unit(i) <= last)
			return m->newest[i];
	return DMR_NO_SLOT;
}

static unsigned int model_run(struct model *m, u32 slot, unsigned int max)
{
	u32 first = slot, i, end = 0;

	for (i = 0; i < m->r->nr_segs && end <= slot; i++)
		end += m->r->seg[i].slots;
	while (slot - first < max && slot < end &&
	       m->state[slot] == DMR_MAPPED &&
	       m->unit[slot] - m->unit[first] == slot - first)
		slot++;
	return slot - first;
}

static void model_step_look(struct kunit *test, struct model *m)
{
	u64 first = model_unit(model_index(m));
	u64 last = first + prandom_u32_state(&m->rnd) % 300;
	u32 want = model_first(m, first, last);

	KUNIT_ASSERT_EQ(test, slots_first(m->r, first, last), want);
	if (want != DMR_NO_SLOT)
		KUNIT_ASSERT_EQ(test, slots_run(m->r, want, DMR_MAPPED, 20),
				model_run(m, want, 20));
	last = min(last, first | DMR_REGION_MASK);
	want = model_first(m, first, last);
	KUNIT_ASSERT_EQ(test, dmr_any_entry(m->r, first, last - first) == DMR_NO_SLOT,
			want == DMR_NO_SLOT);
	KUNIT_ASSERT_EQ(test, dmr_any_entry(m->r, first, 0),
			model_first(m, first, first));
}

static void model_run_steps(struct kunit *test, struct model *m, u64 seed)
{
	static const u32 segments[] = { 61, 8, 100, 31, 0 };
	unsigned int i;

	memset(m, 0, sizeof(*m));
	m->r = table_create(test, segments);
	prandom_seed_state(&m->rnd, seed);
	for (i = 0; i < MODEL_UNITS; i++)
		m->newest[i] = -1;
	for (i = 0; i < MODEL_STEPS; i++) {
		unsigned int what = prandom_u32_state(&m->rnd) % 64;

		/* Most of it while the table is neither empty nor full. */
		if (what < 4)
			model_step_take(test, m);
		else if (what < 10)
			model_step_give_back(m);
		else if (what == 10)
			model_step_insert(m);
		else
			model_step_look(test, m);
	}
}

static void random_steps(struct kunit *test)
{
	struct model *m = kunit_kzalloc(test, sizeof(*m), GFP_KERNEL);
	u64 seed;

	KUNIT_ASSERT_NOT_NULL(test, m);
	for (seed = 1; seed <= 20; seed++)
		model_run_steps(test, m, seed);
}

static struct kunit_case slots_cases[] = {
	KUNIT_CASE(empty_table),
	KUNIT_CASE(insert_and_find),
	KUNIT_CASE(lowest_of_a_range),
	KUNIT_CASE(region_borders),
	KUNIT_CASE(hash_collisions),
	KUNIT_CASE(dead_entries),
	KUNIT_CASE(move_under_a_reader),
	KUNIT_CASE(moves_under_a_reader),
	KUNIT_CASE(restart_forgets),
	KUNIT_CASE(clear_table),
	KUNIT_CASE(memory_of_a_table),
	KUNIT_CASE(runs),
	KUNIT_CASE(runs_end_with_a_segment),
	KUNIT_CASE(places_of_slots),
	KUNIT_CASE(take_runs_and_singles),
	KUNIT_CASE(take_where_pieces_are_units),
	KUNIT_CASE(take_from_segments),
	KUNIT_CASE(exhaustion),
	KUNIT_CASE(give_back_a_run),
	KUNIT_CASE(only_free_slots),
	KUNIT_CASE(take_from_the_rotor),
	KUNIT_CASE(random_steps),
	{ }
};

static struct kunit_suite slots_suite = {
	.name = "dm-remap-slots",
	.init = slots_init,
	.test_cases = slots_cases,
};

kunit_test_suite(slots_suite);
