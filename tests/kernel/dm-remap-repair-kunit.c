// SPDX-License-Identifier: GPL-2.0-only
/*
 * The error path on disks in memory.  A case queues bios as if main had just
 * failed them, lets both works run, and compares the trace: what was asked of
 * main (M) and of the spare (S), in which order, which commits there were, and
 * how each bio ended.
 *
 *   Mw0+8!		a write of 8 units at main's unit 0 failed
 *   Mr1023+1		main's last unit was read
 *   SW0+8		slots 0 to 7 were written with FUA
 *   C[0+8:S0]		a commit: slots 0 to 7, SEALING, hold units from 0 on
 *   =0			the bio ended, with that errno
 *
 * The unit is a sector, a piece has 8 of them, and a slot's number is its
 * sector on the spare.  How a metadata block is written is a double, too: it
 * notes what the commit says.
 */
#include <linux/prandom.h>

/* The suite of the metadata has these, too. */
#define commit_mark_block	repair_suite_mark_block
#define commit_mark_slot	repair_suite_mark_slot
#define commit_mark_left	repair_suite_mark_left
#define commit_set_name		repair_suite_set_name
#define commit_dirty		repair_suite_dirty
#define commit_scrub		repair_suite_scrub
#define commit_queue		repair_suite_queue
#define commit_ask_spare	repair_suite_ask_spare
#define commit_raise		repair_suite_raise
#define commit_retire		repair_suite_retire
#define commit_ask_raise	repair_suite_ask_raise
#define commit_settle		repair_suite_settle
#define commit_request		repair_suite_request
#define commit_do_work		repair_suite_do_work

#include "dm-remap-kunit.h"

#define DISK	4096u		/* units of main's disk */
#define UNITS	1024u		/* of them mapped by the target */
#define SLOTS	128u
#define PIECE	8u

/*----------------------------------------------------------------
 * Doubles: works, the ends of bios, metadata
 *----------------------------------------------------------------
 */

/* A bio of device-mapper's, as it reaches the error path. */
struct test_bio {
	struct dmr_io	io;
	struct bio	bio;
	struct bio_vec	bvec;
	u8		*data;
	bool		done;
};

static_assert(offsetof(struct test_bio, bio) == sizeof(struct dmr_io));

static struct remap *target;	/* of the case that runs */
static bool narrow_queued, commit_queued;

static void test_queue_work(struct workqueue_struct *wq,
			    struct work_struct *work)
{
	if (work == &target->narrow_work)
		narrow_queued = true;
	else
		commit_queued = true;
}

static void test_bio_endio(struct bio *bio)
{
	container_of(bio, struct test_bio, bio)->done = true;
	fake_trace("=%d", blk_status_to_errno(bio->bi_status));
}

static struct {
	bool	fails;		/* the next commits do */
	bool	readable;
} meta;

static bool test_readable(struct remap *r, struct page *page)
{
	return meta.readable;
}

/* Each slot has a table block of its own. */
static u32 test_mblock(struct remap *r, u32 slot)
{
	return slot + 1;
}

static bool slot_dirty(struct remap *r, u32 slot)
{
	return slot < SLOTS && r->mblock[slot + 1].dirty;
}

/* Slots in a row that say the same of units in a row. */
static u32 commit_run(struct remap *r, u32 slot)
{
	unsigned int state = dmr_slot_state(r, slot);
	u64 unit = r->slot[slot].unit;
	u32 n = 1;

	while (slot_dirty(r, slot + n) &&
	       dmr_slot_state(r, slot + n) == state &&
	       (state == DMR_BAD || r->slot[slot + n].unit == unit + n))
		n++;
	return n;
}

/* All that the commit which is about to be written says. */
static void trace_commit(struct remap *r)
{
	static const char letters[] = {
		[DMR_MAPPED] = 'M', [DMR_LOST] = 'L', [DMR_BAD] = 'B',
		[DMR_TAKEN] = 'K', [DMR_SEALING] = 'S', [DMR_DOUBT] = 'D',
		[DMR_LEFT] = 'E', [DMR_FOUND] = 'F', [DMR_SETTLING] = 'T',
	};
	u32 slot, n;

	for (slot = 0; slot < SLOTS; slot += n) {
		unsigned int state = dmr_slot_state(r, slot);

		n = 1;
		if (!slot_dirty(r, slot))
			continue;
		n = commit_run(r, slot);
		if (state == DMR_BAD)
			fake_trace("C[%u+%u:B]%s", slot, n,
				   meta.fails ? "!" : "");
		else
			fake_trace("C[%u+%u:%c%llu]%s", slot, n, letters[state],
				   r->slot[slot].unit, meta.fails ? "!" : "");
	}
}

static int test_write_copy(struct remap *r, u32 mb, int copy, u64 seq)
{
	if (!copy && mb == r->first_dirty)
		trace_commit(r);
	return meta.fails ? -EIO : 0;
}

/* No case has a name for the set, or begins an epoch. */
static int test_write_super(struct remap *r, int first, unsigned int ahead)
{
	WARN_ON(1);
	return -EIO;
}

static void test_wait(struct completion *done);

#define queue_work		test_queue_work
#define bio_endio		test_bio_endio
#define area_readable		test_readable
#define area_mblock		test_mblock
#define area_write_copy		test_write_copy
#define area_write_super	test_write_super
#define dmr_wait		test_wait

#include "../../kernel/dm-remap-commit.c"
#include "../../kernel/dm-remap-repair.c"

/*----------------------------------------------------------------
 * A target
 *----------------------------------------------------------------
 */

struct repair_test {
	struct remap		r;
	struct dm_target	ti;
	struct dm_dev		on_main, on_spare;
	struct fake_disk	*main, *spare;
};

static struct repair_test *repair_test(struct kunit *test)
{
	return test->priv;
}

/* Both works have nothing to do any more. */
static void run(void)
{
	while (narrow_queued || commit_queued) {
		if (narrow_queued) {
			narrow_queued = false;
			do_narrow(&target->narrow_work);
		} else {
			commit_queued = false;
			commit_do_work(&target->commit_work);
		}
	}
}

static void test_wait(struct completion *done)
{
	run();
	WARN_ON(!try_wait_for_completion(done));
}

static u8 content(u64 unit, unsigned int version)
{
	return unit * 7 + version * 31 + 1;
}

static void target_destroy(void *r)
{
	repair_destroy(r);
	slots_destroy(r);
}

static int repair_init(struct kunit *test)
{
	static const u32 segments[] = { 24, SLOTS - 24 };
	struct repair_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	struct remap *r;
	u64 unit;
	u32 i;

	KUNIT_ASSERT_NOT_NULL(test, t);
	fake_reset();
	memset(&meta, 0, sizeof(meta));
	meta.readable = true;
	narrow_queued = false;
	commit_queued = false;
	test->priv = t;
	t->main = fake_disk_create(test, 'M', DISK, 1);
	t->spare = fake_disk_create(test, 'S', SLOTS * 8, 1);
	t->on_main.bdev = &t->main->bdev;
	t->on_spare.bdev = &t->spare->bdev;
	t->ti.len = UNITS;
	for (unit = 0; unit < DISK; unit++)
		memset(t->main->data + (unit << SECTOR_SHIFT), content(unit, 0),
		       SECTOR_SIZE);

	target = &t->r;
	r = &t->r;
	r->ti = &t->ti;
	r->main = &t->on_main;
	r->spare = &t->on_spare;
	r->unit = SECTOR_SIZE;
	r->piece = PIECE;
	r->mode = DMR_MODE_RW;
	r->main_slow = fake.now - 3600 * HZ;
	r->spare_slow = r->main_slow;
	for (i = 0; i < ARRAY_SIZE(segments); i++) {
		r->seg[i].first_slot = r->nr_slots;
		r->seg[i].slots = segments[i];
		r->nr_slots += segments[i];
	}
	r->nr_segs = i;
	r->first_dirty = DMR_NO_MBLOCK;
	r->mblock = kunit_kcalloc(test, SLOTS + 1, sizeof(*r->mblock),
				  GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, r->mblock);
	KUNIT_ASSERT_EQ(test, slots_create(r), 0);
	KUNIT_ASSERT_EQ(test, repair_create(r), 0);
	return kunit_add_action_or_reset(test, target_destroy, r);
}

/* Main has just failed a bio with a medium error.  Writes carry a version. */
static struct test_bio *queue(struct kunit *test, blk_opf_t opf, u64 unit,
			      unsigned int nr, unsigned int version)
{
	struct remap *r = &repair_test(test)->r;
	struct test_bio *b = kunit_kzalloc(test, sizeof(*b), GFP_KERNEL);
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, b);
	bio_init(&b->bio, NULL, &b->bvec, 1, opf);
	if ((opf & REQ_OP_MASK) != REQ_OP_WRITE_ZEROES) {
		b->data = kunit_kzalloc(test, nr * r->unit, GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(test, b->data);
		__bio_add_page(&b->bio, virt_to_page(b->data), nr * r->unit,
			       offset_in_page(b->data));
		for (i = 0; i < nr && version; i++)
			memset(b->data + i * r->unit,
			       content(unit + i, version), r->unit);
	}
	b->io.opf = opf;
	b->io.kind = DMR_IO_MAIN;
	b->io.iter.bi_sector = dmr_sector_of(r, unit);
	b->io.iter.bi_size = nr * r->unit;
	/* As a driver leaves it. */
	b->bio.bi_iter.bi_size = 0;
	b->bio.bi_iter.bi_idx = 1;
	repair_queue(r, &b->bio, BLK_STS_MEDIUM);
	return b;
}

static struct test_bio *write(struct kunit *test, u64 unit, unsigned int nr)
{
	return queue(test, REQ_OP_WRITE, unit, nr, 1);
}

static struct test_bio *read(struct kunit *test, u64 unit, unsigned int nr)
{
	return queue(test, REQ_OP_READ, unit, nr, 0);
}

/* The same for one that its slots have failed. */
static struct test_bio *write_slots(struct kunit *test, u64 unit,
				    unsigned int nr)
{
	struct test_bio *b = write(test, unit, nr);

	b->io.kind = DMR_IO_SPARE;
	return b;
}

/* The words of several strings. */
static const char *joined(const char * const *strings)
{
	static char all[sizeof(fake.trace)];
	size_t len = 0;

	for (all[0] = '\0'; *strings; strings++)
		len += scnprintf(all + len, sizeof(all) - len, "%s%s",
				 len ? " " : "", *strings);
	return all;
}

#define WORDS(...)	joined((const char *[]){ __VA_ARGS__, NULL })

/* Let all bios end; this happens meanwhile. */
#define RUN(test, ...)							\
	do {								\
		run();							\
		KUNIT_EXPECT_STREQ(test, fake_traced(), WORDS(__VA_ARGS__));\
	} while (0)

static void main_bad(struct kunit *test, int dir, u64 unit, unsigned int nr)
{
	fake_disk_bad(repair_test(test)->main, dir, unit, nr, BLK_STS_MEDIUM);
}

static void spare_bad(struct kunit *test, int dir, u32 slot, unsigned int nr)
{
	fake_disk_bad(repair_test(test)->spare, dir, slot, nr, BLK_STS_MEDIUM);
}

/* As a load leaves it. */
static void map(struct kunit *test, u32 slot, u64 unit, u32 info)
{
	struct remap *r = &repair_test(test)->r;

	r->slot[slot].unit = unit;
	r->slot[slot].info = info;
	slots_insert(r, slot);
	atomic_dec(&r->nr_free);
	atomic_inc(&r->nr_mapped);
	if (dmr_state(info) == DMR_LOST)
		atomic_inc(&r->nr_lost);
}

/* Does a reader of the unit find this? */
static bool unit_holds(struct kunit *test, u64 unit, unsigned int version)
{
	struct repair_test *t = repair_test(test);
	u32 slot = slots_first(&t->r, unit, unit);
	u8 *data = t->main->data + (unit << SECTOR_SHIFT);

	if (slot != DMR_NO_SLOT) {
		if (dmr_slot_state(&t->r, slot) != DMR_MAPPED)
			return false;
		data = t->spare->data + (slot << SECTOR_SHIFT);
	}
	return !memchr_inv(data, content(unit, version), SECTOR_SIZE);
}

static void expect_content(struct kunit *test, u64 unit, unsigned int nr,
			   unsigned int version)
{
	for (; nr; nr--, unit++)
		KUNIT_EXPECT_TRUE_MSG(test, unit_holds(test, unit, version),
				      "unit %llu", unit);
}

static void expect_free(struct kunit *test, unsigned int nr)
{
	struct remap *r = &repair_test(test)->r;
	unsigned int found = 0;
	u32 s;

	for (s = 0; s < r->nr_slots; s++)
		found += dmr_slot_state(r, s) == DMR_FREE;
	KUNIT_EXPECT_EQ(test, found, nr);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_free), nr);
}

/*----------------------------------------------------------------
 * What is suspect
 *----------------------------------------------------------------
 */

static void suspect_statuses(struct kunit *test)
{
	static const struct {
		blk_status_t status;
		bool confirm[2], medium[2];	/* reads and writes */
	} rows[] = {
		{ BLK_STS_MEDIUM, { true, true }, { true, true } },
		{ BLK_STS_IOERR, { true, true }, { false, false } },
		{ BLK_STS_TARGET, { false, true }, { false, false } },
		{ BLK_STS_NOTSUPP },
		{ BLK_STS_TIMEOUT },
		{ BLK_STS_NOSPC },
		{ BLK_STS_TRANSPORT },
		{ BLK_STS_RESV_CONFLICT },
		{ BLK_STS_PROTECTION },
		{ BLK_STS_RESOURCE },
		{ BLK_STS_AGAIN },
		{ BLK_STS_DEV_RESOURCE },
		{ BLK_STS_OFFLINE },
	};
	struct remap *r = &repair_test(test)->r;
	unsigned int i, write;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		for (write = 0; write < 2; write++) {
			r->errors_medium = false;
			KUNIT_EXPECT_EQ_MSG(test,
					    dmr_suspect(r, rows[i].status,
							write),
					    rows[i].confirm[write], "%u", i);
			r->errors_medium = true;
			KUNIT_EXPECT_EQ_MSG(test,
					    dmr_suspect(r, rows[i].status,
							write),
					    rows[i].medium[write], "%u", i);
		}
	}
}

/* What the bus says about the second try goes up as it is. */
static void other_statuses_go_up(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	fake_disk_bad(t->main, WRITE, 12, 1, BLK_STS_TRANSPORT);
	fake_disk_bad(t->main, READ, 12, 1, BLK_STS_OFFLINE);
	write(test, 0, 24);
	RUN(test, "Mw0+8 Mw8+8! =-67");
	read(test, 8, 8);
	RUN(test, "Mr8+8! =-19");
	expect_free(test, SLOTS);
	KUNIT_EXPECT_EQ(test, t->r.nr_pending, 0);

	/* With 'errors medium' an I/O error is none of ours. */
	t->r.errors_medium = true;
	fake_disk_bad(t->main, WRITE, 12, 1, BLK_STS_IOERR);
	write(test, 8, 8);
	RUN(test, "Mw8+8! =-5");
	fake_disk_bad(t->main, WRITE, 12, 1, BLK_STS_MEDIUM);
	write(test, 8, 8);
	RUN(test, "Mw8+8! Mr0+1 SW0+8 C[0+8:S8] =0");
}

/* A target error of a write is suspect, one of a read is not. */
static void target_errors(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	fake_disk_bad(t->main, WRITE, 12, 1, BLK_STS_TARGET);
	fake_disk_bad(t->main, READ, 12, 1, BLK_STS_TARGET);
	read(test, 8, 8);
	RUN(test, "Mr8+8! =-121");
	write(test, 8, 8);
	RUN(test, "Mw8+8! Mr0+1 SW0+8 C[0+8:S8] =0");
}

/*----------------------------------------------------------------
 * Narrowing
 *----------------------------------------------------------------
 */

static void write_taken_at_second_try(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;

	write(test, 0, 16);
	RUN(test, "Mw0+8 Mw8+8 =0");
	KUNIT_EXPECT_EQ(test, atomic64_read(&r->transient), 1);
	expect_content(test, 0, 16, 1);
	expect_free(test, SLOTS);
}

/* A whole piece that fails is mapped whole, after one failing command. */
static void whole_piece(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;

	main_bad(test, WRITE, 13, 1);
	write(test, 0, 24);
	RUN(test, "Mw0+8 Mw8+8! Mr0+1 SW0+8 Mw16+8 C[0+8:S8] =0");
	expect_content(test, 0, 24, 1);
	expect_free(test, SLOTS - 8);
	KUNIT_EXPECT_EQ(test, slots_first(r, 0, 23), 0);
	KUNIT_EXPECT_EQ(test, slots_run(r, 0, DMR_MAPPED, 24), 8);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_mapped), 8);
	KUNIT_EXPECT_EQ(test, atomic64_read(&r->remapped), 8);
	KUNIT_EXPECT_EQ(test, atomic64_read(&r->transient), 0);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_REMAPPED], 1);
	KUNIT_EXPECT_EQ(test, fake.units[DMR_EV_REMAPPED], 8);
}

/* Where the bio covers a piece in part, units are told apart. */
static void parts_of_pieces(struct kunit *test)
{
	main_bad(test, WRITE, 5, 1);
	main_bad(test, WRITE, 16, 1);
	write(test, 3, 15);
	RUN(test, "Mw3+5! Mw3+1 Mw4+1 Mw5+1! Mr4+1 SW0+1 Mw6+1 Mw7+1 Mw8+8",
	    "Mw16+2! Mw16+1! SW1+1 Mw17+1 C[0+1:S5] C[1+1:S16] =0");
	expect_content(test, 3, 15, 1);
	expect_free(test, SLOTS - 2);
}

/* Where pieces are units each is told apart. */
static void pieces_of_one_unit(struct kunit *test)
{
	repair_test(test)->r.piece = 1;
	main_bad(test, WRITE, 4, 2);
	write(test, 3, 4);
	RUN(test, "Mw3+1 Mw4+1! Mr3+1 SW0+1 Mw5+1! SW1+1 Mw6+1",
	    "C[0+2:S4] =0");
	expect_content(test, 3, 4, 1);
}

/* Pieces are the disk's, also if main is a partition that begins inside one. */
static void pieces_of_a_partition(struct kunit *test)
{
	repair_test(test)->r.piece_offset = 63 % PIECE;
	write(test, 0, 20);
	RUN(test, "Mw0+1 Mw1+8 Mw9+8 Mw17+3 =0");
	read(test, 8, 2);
	RUN(test, "Mr8+1 Mr9+1 =0");
}

/* What is mapped by now goes to its slots, as far as they run. */
static void mapped_units_between(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;

	map(test, 50, 4, dmr_info(DMR_MAPPED, 0));
	map(test, 51, 5, dmr_info(DMR_MAPPED, 0));
	map(test, 60, 6, dmr_info(DMR_MAPPED, 0));
	main_bad(test, WRITE, 0, 8);
	write(test, 0, 16);
	RUN(test, "Mw0+4! Mw0+1! Mr1023+1 SW0+1 Mw1+1! SW1+1 Mw2+1! SW2+1",
	    "Mw3+1! SW3+1 Sw50+2 Sw60+1 Mw7+1! SW4+1 Mw8+8",
	    "C[0+4:S0] C[4+1:S7] =0");
	expect_content(test, 0, 16, 1);
	/* Two commands that were acknowledged without being durable. */
	KUNIT_EXPECT_EQ(test, atomic64_read(&r->spare_writes), 2);

	queue(test, REQ_OP_WRITE | REQ_FUA, 4, 2, 2);
	RUN(test, "SW50+2 =0");
	KUNIT_EXPECT_EQ(test, atomic64_read(&r->spare_writes), 2);
	read(test, 3, 5);
	RUN(test, "Sr3+1 Sr50+2 Sr60+1 Sr4+1 =0");
}

/* A run ends with its segment, and a piece with its border. */
static void runs_of_slots(struct kunit *test)
{
	u32 s;

	for (s = 0; s < 12; s++)
		map(test, 20 + s, 100 + s, dmr_info(DMR_MAPPED, 0));
	read(test, 100, 12);
	RUN(test, "Sr20+4 Sr24+8 =0");
	for (s = 0; s < 8; s++)
		map(test, 40 + s, 200 + s, dmr_info(DMR_MAPPED, 0));
	read(test, 197, 12);
	RUN(test, "Mr197+3 Sr40+8 Mr208+1 =0");
}

/* FUA stays and is the bio's own; what a retry must not have goes. */
static void flags_of_replays(struct kunit *test)
{
	struct repair_test *t = repair_test(test);
	const blk_opf_t flags = REQ_FUA | REQ_META | REQ_PRIO;
	const blk_opf_t others = REQ_NOWAIT | REQ_RAHEAD | REQ_POLLED |
				 REQ_PREFLUSH | REQ_BACKGROUND;

	queue(test, REQ_OP_WRITE | flags | others, 0, 8, 1);
	RUN(test, "MW0+8 =0");
	KUNIT_EXPECT_TRUE(test, t->main->flags ==
				(REQ_OP_WRITE | REQ_SYNC | flags));
	main_bad(test, WRITE, 0, 8);
	write(test, 0, 8);
	RUN(test, "Mw0+8! Mr1023+1 SW0+8 C[0+8:S0] =0");
	KUNIT_EXPECT_TRUE(test, t->spare->flags ==
				(REQ_OP_WRITE | REQ_SYNC | REQ_FUA));
}

/* Zeroes are written as pages, sixteen in a bio, and mapped like any others. */
static void write_zeroes(struct kunit *test)
{
	struct repair_test *t = repair_test(test);
	struct remap *r = &t->r;
	u8 *data = t->spare->data;

	t->main->grain = 8;
	t->spare->grain = 8;
	r->unit = 4096;
	r->unit_shift = 3;
	r->piece = 32;
	main_bad(test, WRITE, 300, 1);
	memset(data, 0xee, SLOTS * 4096);
	queue(test, REQ_OP_WRITE_ZEROES, 0, 64, 0);
	/* Only one run of 32 slots begins in the second segment at 24. */
	RUN(test, "Mw0+16 Mw16+16 Mw32+16! Mr0+1 SW24+16 SW40+16",
	    "C[24+32:S32] =0");
	KUNIT_EXPECT_PTR_EQ(test, memchr_inv(t->main->data, 0, 32 * 4096),
			    NULL);
	KUNIT_EXPECT_PTR_EQ(test, memchr_inv(data + 24 * 4096, 0, 32 * 4096),
			    NULL);
	KUNIT_EXPECT_EQ(test, data[24 * 4096 - 1], 0xee);
	KUNIT_EXPECT_EQ(test, data[56 * 4096], 0xee);
	queue(test, REQ_OP_WRITE_ZEROES | REQ_FUA, 1, 17, 0);
	RUN(test, "MW1+16 MW17+1 =0");
}

/* FUA that is refused is a write and a flush, before anything is committed. */
static void refused_fua(struct kunit *test)
{
	static const blk_status_t refusals[] = {
		BLK_STS_TARGET, BLK_STS_NOTSUPP,
	};
	struct repair_test *t = repair_test(test);
	struct remap *r = &t->r;
	struct test_bio *b;
	unsigned int i;

	t->spare->no_fua = refusals[0];
	main_bad(test, WRITE, 0, 8);
	write(test, 0, 8);
	RUN(test, "Mw0+8! Mr1023+1 SW0+8! Sw0+8 Sf C[0+8:S0] =0");
	expect_content(test, 0, 8, 1);
	KUNIT_EXPECT_EQ(test, atomic64_read(&r->spare_writes), 1);
	KUNIT_EXPECT_EQ(test, atomic64_read(&r->spare_flushed), 1);
	/* It is not asked again, for a bio of the user's neither. */
	b = queue(test, REQ_OP_WRITE | REQ_FUA, 4, 2, 2);
	b->io.kind = DMR_IO_SLOTS;
	RUN(test, "Sw4+2 Sf =0");
	expect_content(test, 4, 2, 2);
	KUNIT_EXPECT_EQ(test, atomic64_read(&r->spare_writes), 2);
	/* A flush that fails is no bad slot, and nothing is kept of it. */
	t->spare->no_flush = true;
	main_bad(test, WRITE, 16, 8);
	write(test, 16, 8);
	RUN(test, "Mw16+8! Mr1023+1 Sw8+8 Sf! =-61");
	expect_free(test, SLOTS - 8);
	KUNIT_EXPECT_EQ(test, atomic64_read(&r->flush_errors), 1);
	KUNIT_EXPECT_TRUE(test, atomic_read(&r->look) &
				dmr_look_fails(DMR_SPARE, DMR_FLUSHES));
	t->spare->no_flush = false;
	/* What refuses the data, too, as a command, is passed over. */
	fake_disk_bad(t->spare, WRITE, 8, 8, BLK_STS_TARGET);
	write(test, 16, 8);
	RUN(test, "Mw16+8! Mr1023+1 Sw8+8! Sw16+8 Sf C[16+8:S16] =0");
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_bad), 0);
	/* Main is asked each time, and nothing is mapped for it. */
	for (i = 0; i < ARRAY_SIZE(refusals); i++) {
		t->main->no_fua = refusals[i];
		queue(test, REQ_OP_WRITE | REQ_FUA, 32, 8, 1);
		RUN(test, "MW32+8! Mw32+8 Mf =0");
	}
	expect_content(test, 32, 8, 1);
	KUNIT_EXPECT_EQ(test, atomic64_read(&r->spare_writes), 4);
}

/* What slots are asked for that is no error needs neither mode nor breaker. */
static void commands_for_slots(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;
	s64 transient = atomic64_read(&r->transient);
	u32 s;

	for (s = 0; s < 8; s++)
		map(test, s, s, dmr_info(DMR_MAPPED, 0));
	r->mode = DMR_MODE_RO;
	r->breaker.open = true;
	queue(test, REQ_OP_WRITE_ZEROES, 2, 4, 0)->io.kind = DMR_IO_SLOTS;
	RUN(test, "Sw2+4 =0");
	/* But a slot cannot be left then. */
	spare_bad(test, WRITE, 2, 4);
	queue(test, REQ_OP_WRITE_ZEROES, 2, 1, 0)->io.kind = DMR_IO_SLOTS;
	RUN(test, "Sw2+1! =-61");
	expect_free(test, SLOTS - 8);
	KUNIT_EXPECT_EQ(test, atomic64_read(&r->transient), transient);
	KUNIT_EXPECT_EQ(test, atomic64_read(&r->spare_writes), 1);
}

/*----------------------------------------------------------------
 * Budgets
 *----------------------------------------------------------------
 */

/* After eight slow failures the rest goes to slots untried. */
static void eight_slow_failures(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	main_bad(test, WRITE, 0, 80);
	t->main->fail_ticks = HZ;
	write(test, 0, 80);
	RUN(test, "Mw0+8! Mr1023+1 SW0+8 Mw8+8! SW8+8 Mw16+8! SW16+8",
	    "Mw24+8! SW24+8 Mw32+8! SW32+8 Mw40+8! SW40+8",
	    "Mw48+8! SW48+8 Mw56+8! SW56+8 SW64+8 SW72+8 Mr1023+1",
	    "C[0+80:S0] =0");
	expect_content(test, 0, 80, 1);
}

/* A unit is a command like a piece. */
static void units_count_too(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	main_bad(test, WRITE, 1, 7);
	main_bad(test, WRITE, 16, 8);
	t->main->fail_ticks = HZ;
	write(test, 1, 23);
	RUN(test, "Mw1+7! Mw1+1! Mr0+1 SW0+1 Mw2+1! SW1+1 Mw3+1! SW2+1",
	    "Mw4+1! SW3+1 Mw5+1! SW4+1 Mw6+1! SW5+1 Mw7+1! SW6+1",
	    "SW8+8 SW16+8 Mr0+1 C[0+7:S1] C[8+16:S8] =0");
	/* Main would have taken it, but nobody has asked. */
	expect_content(test, 1, 23, 1);
}

/* How often main is asked for ten bad units and two good ones. */
static void budget_of_a_write(struct kunit *test)
{
	static const struct {
		unsigned long ticks;		/* that each failure takes */
		unsigned int failed, slots;
	} rows[] = {
		/* A third of a second is not slow. */
		{ HZ / 3, 10, 10 },
		/* But all of them together may take four seconds. */
		{ HZ / 2, 8, 12 },
		/* Those that are slow are counted. */
		{ 3 * HZ, 8, 12 },
		/* Thirty seconds after the bio failed main is asked no more. */
		{ 7 * HZ, 5, 12 },
	};
	struct repair_test *t = repair_test(test);
	unsigned int i, free = SLOTS;

	t->r.piece = 1;
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		u64 unit = 12 * i;

		main_bad(test, WRITE, unit, 10);
		t->main->fail_ticks = rows[i].ticks;
		t->main->failed[WRITE] = 0;
		write(test, unit, 12);
		run();
		KUNIT_EXPECT_EQ_MSG(test, t->main->failed[WRITE],
				    rows[i].failed, "row %u", i);
		expect_content(test, unit, 12, 1);
		free -= rows[i].slots;
		expect_free(test, free);
	}
}

/* A queue uses the time up, but only if it was main that made it long. */
static void time_in_the_queue(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;

	main_bad(test, WRITE, 0, 8);
	write(test, 0, 8);
	fake.now += 31 * HZ;
	RUN(test, "Mw0+8! Mr1023+1 SW0+8 C[0+8:S0] =0");

	write(test, 8, 8);
	fake.now += 31 * HZ;
	r->main_slow = fake.now - 29 * HZ;
	RUN(test, "Mr1023+1 SW8+8 C[8+8:S8] =0");
	write(test, 16, 8);
	fake.now += 29 * HZ;
	r->main_slow = fake.now;
	RUN(test, "Mw16+8 =0");
	read(test, 16, 8);
	fake.now += 31 * HZ;
	r->main_slow = fake.now;
	RUN(test, "=-61");
	KUNIT_EXPECT_EQ(test, r->nr_pending, 0);
	read(test, 16, 8);
	fake.now += 31 * HZ;
	r->main_slow = fake.now - 31 * HZ;
	RUN(test, "Mr16+8 =0");
}

/* After the budget the rest of a read is an error, and not noted. */
static void budget_of_a_read(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	main_bad(test, READ, 0, 80);
	t->main->fail_ticks = HZ;
	read(test, 0, 80);
	RUN(test, "Mr0+8! Mr1023+1 Mr8+8! Mr1023+1 Mr16+8! Mr1023+1",
	    "Mr24+8! Mr1023+1 Mr32+8! Mr1023+1 Mr40+8! Mr1023+1",
	    "Mr48+8! Mr1023+1 Mr56+8! Mr1023+1 =-61");
	KUNIT_EXPECT_EQ(test, t->r.nr_pending, 64);
}

/* While a suspend waits two slow failures are enough. */
static void budget_while_a_suspend_waits(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	main_bad(test, WRITE, 0, 40);
	main_bad(test, READ, 0, 40);
	t->main->fail_ticks = HZ;
	t->r.suspend_deadline = (fake.now + 30 * HZ) | 1;
	write(test, 0, 40);
	RUN(test, "Mw0+8! Mr1023+1 SW0+8 Mw8+8! SW8+8 SW16+8 SW24+8 SW32+8",
	    "Mr1023+1 C[0+40:S0] =0");
	expect_content(test, 0, 40, 1);
	main_bad(test, READ, 100, 40);
	read(test, 96, 44);
	RUN(test, "Mr96+8! Mr1023+1 Mr104+8! Mr1023+1 =-61");
	/* Quick ones are free, too. */
	t->main->fail_ticks = 0;
	read(test, 96, 24);
	RUN(test, "Mr96+8! Mr1023+1 Mr104+8! Mr1023+1 Mr112+8! Mr1023+1 =-61");
}

/* Past the deadline nothing is tried for anybody, and nothing is kept. */
static void nothing_after_the_deadline(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	map(test, 50, 100, dmr_info(DMR_MAPPED, 0));
	t->r.suspend_deadline = (fake.now - 2) | 1;
	write(test, 0, 16);
	RUN(test, "=-61");
	read(test, 0, 16);
	RUN(test, "=-61");
	write(test, 100, 1);
	RUN(test, "=-61");
	read(test, 100, 1);
	RUN(test, "=-61");
	expect_free(test, SLOTS - 1);
	/* The presuspend is undone. */
	t->r.suspend_deadline = 0;
	write(test, 0, 16);
	RUN(test, "Mw0+8 Mw8+8 =0");
}

/* It passes while a bio is narrowed: what it had taken is given back. */
static void deadline_in_the_middle(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	main_bad(test, WRITE, 0, 40);
	t->main->fail_ticks = 20 * HZ;
	t->r.suspend_deadline = (fake.now + 30 * HZ) | 1;
	write(test, 0, 40);
	RUN(test, "Mw0+8! Mr1023+1 SW0+8 Mw8+8! =-61");
	expect_free(test, SLOTS);
	KUNIT_EXPECT_EQ(test, slots_first(&t->r, 0, 40), DMR_NO_SLOT);
}

/* It passes while the last slots are filled: without a probe no commit. */
static void deadline_before_the_commit(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	main_bad(test, WRITE, 0, 16);
	t->spare->ticks = 16 * HZ;
	t->r.suspend_deadline = (fake.now + 30 * HZ) | 1;
	write(test, 0, 16);
	RUN(test, "Mw0+8! Mr1023+1 SW0+8 Mw8+8! SW8+8 =-61");
	expect_free(test, SLOTS);
}

/*----------------------------------------------------------------
 * Probes
 *----------------------------------------------------------------
 */

/* All places of a dead disk are asked once, and for all that had failed. */
static void dead_main(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	t->main->dead = BLK_STS_IOERR;
	write(test, 8, 8);
	write(test, 24, 8);
	read(test, 40, 8);
	RUN(test, "Mw8+8! Mr0+1! Mr1023+1! Mr512+1! Mr7+1! Mr16+1! =-61",
	    "Mw24+8! =-61 Mr40+8! =-61");
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_PROBE], 1);
	KUNIT_EXPECT_EQ(test, t->r.nr_pending, 0);
	expect_free(test, SLOTS);

	/* The next error asks again, and again nothing is marked. */
	fake.now++;
	read(test, 1016, 8);
	RUN(test, "Mr1016+8! Mr0+1! Mr512+1! Mr1015+1! =-61");
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_PROBE], 1);

	t->main->dead = BLK_STS_OK;
	main_bad(test, WRITE, 8, 8);
	fake.now++;
	write(test, 8, 8);
	RUN(test, "Mw8+8! Mr0+1 SW0+8 C[0+8:S8] =0");
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_PROBE], 2);
}

/* Where the first places are bad too, another one answers; it is remembered. */
static void probe_finds_a_place(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;

	main_bad(test, READ, 0, 1);
	main_bad(test, READ, 1023, 1);
	main_bad(test, WRITE, 8, 8);
	main_bad(test, WRITE, 512, 8);
	write(test, 8, 8);
	RUN(test, "Mw8+8! Mr0+1! Mr1023+1! Mr512+1 SW0+8 C[0+8:S8] =0");
	KUNIT_EXPECT_EQ(test, r->probe_unit, 512);
	/* Not what the bio itself is about. */
	write(test, 512, 8);
	RUN(test, "Mw512+8! Mr0+1! Mr1023+1! Mr511+1 SW8+8 C[8+8:S512] =0");
}

/* Only units of the target's own that are not mapped are asked for. */
static void probe_stays_inside(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	t->r.main_start = 256;
	t->ti.len = 512;
	map(test, 50, 767, dmr_info(DMR_MAPPED, 0));
	map(test, 51, 512, dmr_info(DMR_LOST, 0));
	main_bad(test, WRITE, 256, 8);
	write(test, 256, 8);
	RUN(test, "Mw256+8! Mr264+1 SW0+8 C[0+8:S256] =0");
	main_bad(test, WRITE, 760, 7);
	t->r.probe_unit = 255;
	write(test, 760, 7);
	run();
	KUNIT_EXPECT_NOT_NULL(test, strstr(fake_traced(), "Mw760+1! Mr759+1 "));
}

/* A probe ends after 15 s of places that fail, or when a suspend has waited. */
static void probe_takes_its_time(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	t->main->dead = BLK_STS_MEDIUM;
	t->main->fail_ticks = 7 * HZ;
	write(test, 8, 8);
	RUN(test, "Mw8+8! Mr0+1! Mr1023+1! Mr512+1! =-61");
	fake.now++;
	t->r.suspend_deadline = (fake.now + 15 * HZ) | 1;
	write(test, 8, 8);
	RUN(test, "Mw8+8! Mr0+1! Mr1023+1! =-61");
}

/* A disk that dies in the middle of a bio: its slots are in no commit yet. */
static void main_dies_in_the_middle(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	main_bad(test, WRITE, 0, 8);
	t->main->dies_after = 4;
	write(test, 0, 24);
	RUN(test, "Mw0+8! Mr1023+1 SW0+8 Mw8+8 Mw16+8! SW8+8",
	    "Mr8+1! Mr1023+1! Mr1023+1! Mr512+1! Mr24+1! =-61");
	expect_free(test, SLOTS);
	KUNIT_EXPECT_EQ(test, slots_first(&t->r, 0, 23), DMR_NO_SLOT);
}

/* A tagged main has to take a write: a unit again, or a scratch block. */
static void tagged_main_takes_writes(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	t->r.tagged = true;
	t->r.main_start = DMR_TAG_SECTORS;
	t->ti.len = 2048;
	main_bad(test, WRITE, 2056, 8);
	write(test, 2056, 8);
	RUN(test, "Mw2056+8! Mr2048+1 MW192+8 SW0+8 C[0+8:S2056] =0");
	/* It took a unit of this bio: is it still so? */
	main_bad(test, WRITE, 2072, 8);
	write(test, 2064, 16);
	RUN(test, "Mw2064+8 Mw2072+8! Mr2064+1 Mw2064+1 SW8+8",
	    "C[8+8:S2072] =0");
	expect_content(test, 2056, 24, 1);
	/* Nothing is counted where main can be asked. */
	t->r.unproven = DMR_MAX_UNPROVEN;
	main_bad(test, WRITE, 2080, 8);
	write(test, 2080, 8);
	RUN(test, "Mw2080+8! Mr2064+1 MW192+8 SW16+8 C[16+8:S2080] =0");
}

/* Any may be bad itself; all are on a disk that has gone read-only. */
static void scratch_blocks(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	t->r.tagged = true;
	t->r.main_start = DMR_TAG_SECTORS;
	t->ti.len = 2048;
	main_bad(test, WRITE, 199, 1);
	main_bad(test, WRITE, 2056, 8);
	write(test, 2056, 8);
	RUN(test, "Mw2056+8! Mr2048+1 MW192+8! MW320+8 SW0+8",
	    "C[0+8:S2056] =0");
	/* What took the last one is asked first. */
	main_bad(test, WRITE, 0, DISK);
	fake.now++;
	write(test, 2064, 8);
	RUN(test, "Mw2064+8! Mr2048+1 MW320+8! MW704+8! MW832+8! MW1216+8!",
	    "MW1344+8! MW1728+8! MW1856+8! MW192+8! =-61");
	expect_free(test, SLOTS - 8);
	/* A read does not need it. */
	main_bad(test, READ, 2064, 8);
	fake.now++;
	read(test, 2064, 8);
	RUN(test, "Mr2064+8! Mr2048+1 =-61");
	KUNIT_EXPECT_EQ(test, t->r.nr_pending, 8);
}

/* All that fails as a whole, beside pieces that are unproven. */
static void expect_fails(struct kunit *test, enum dmr_leg leg,
			 enum dmr_kind kind)
{
	KUNIT_EXPECT_EQ(test, atomic_read(&repair_test(test)->r.look) &
			~DMR_LOOK_UNPROVEN, dmr_look_fails(leg, kind));
}

/* What a command or a probe says of main, and what takes it back. */
static void main_fails(struct kunit *test)
{
	struct repair_test *t = repair_test(test);
	struct test_bio *b;

	/* A bad block says nothing. */
	main_bad(test, READ, 300, 8);
	read(test, 300, 8);
	run();
	KUNIT_EXPECT_EQ(test, atomic_read(&t->r.look), 0);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_PROBE], 0);

	fake.now++;
	t->main->dead = BLK_STS_IOERR;
	write(test, 0, 8);
	run();
	expect_fails(test, DMR_MAIN, DMR_READS);
	fake.now++;
	write(test, 8, 8);
	run();
	expect_fails(test, DMR_MAIN, DMR_READS);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_PROBE], 1);

	/* A read, a write, a flush; what is neither says nothing. */
	t->main->dead = 0;
	b = read(test, 400, 8);
	run();
	KUNIT_EXPECT_EQ(test, atomic_read(&t->r.look), 0);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_PROBE], 2);
	event_fails(&t->r, DMR_MAIN, DMR_WRITES, U64_MAX);
	repair_main_ok(&t->r, &b->io);
	b->io.opf = REQ_OP_DISCARD;
	repair_main_ok(&t->r, &b->io);
	expect_fails(test, DMR_MAIN, DMR_WRITES);
	event_fails(&t->r, DMR_MAIN, DMR_READS, U64_MAX);
	b->io.opf = REQ_OP_WRITE;
	repair_main_ok(&t->r, &b->io);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->r.look), 0);
	event_fails(&t->r, DMR_MAIN, DMR_FLUSHES, U64_MAX);
	repair_main_ok(&t->r, &b->io);
	expect_fails(test, DMR_MAIN, DMR_FLUSHES);
	event_works(&t->r, DMR_MAIN, DMR_FLUSHES);
	KUNIT_EXPECT_FALSE(test, dmr_leg_fails(&t->r, DMR_MAIN));

	/* What a disk says of itself is not probed. */
	repair_said(&t->r, DMR_SPARE, true, BLK_STS_TRANSPORT);
	expect_fails(test, DMR_SPARE, DMR_WRITES);
	KUNIT_EXPECT_FALSE(test, dmr_leg_fails(&t->r, DMR_MAIN));
	KUNIT_EXPECT_TRUE(test, dmr_leg_fails(&t->r, DMR_SPARE));
	repair_said(&t->r, DMR_SPARE, false, BLK_STS_OK);
	expect_fails(test, DMR_SPARE, DMR_WRITES);
	repair_said(&t->r, DMR_SPARE, true, BLK_STS_OK);
	repair_said(&t->r, DMR_MAIN, false, BLK_STS_IOERR);
	repair_said(&t->r, DMR_MAIN, false, BLK_STS_MEDIUM);
	repair_said(&t->r, DMR_MAIN, false, BLK_STS_NOTSUPP);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->r.look), 0);
	t->r.errors_medium = true;
	repair_said(&t->r, DMR_MAIN, false, BLK_STS_MEDIUM);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->r.look), 0);
	repair_said(&t->r, DMR_MAIN, false, BLK_STS_IOERR);
	expect_fails(test, DMR_MAIN, DMR_READS);
}

/* An untagged main that takes no write: 256 pieces and not one more. */
static void unproven_pieces(struct kunit *test)
{
	struct repair_test *t = repair_test(test);
	struct test_bio *b;

	main_bad(test, WRITE, 0, 64);
	t->r.unproven = DMR_MAX_UNPROVEN - 2;
	write(test, 0, 8);
	RUN(test, "Mw0+8! Mr1023+1 SW0+8 C[0+8:S0] =0");
	write(test, 8, 16);
	RUN(test, "Mw8+8! Mr1023+1 SW8+8 Mw16+8! =-61");
	expect_free(test, SLOTS - 8);
	KUNIT_EXPECT_EQ(test, t->r.unproven, DMR_MAX_UNPROVEN);
	expect_fails(test, DMR_MAIN, DMR_WRITES);
	KUNIT_EXPECT_TRUE(test, atomic_read(&t->r.look) & DMR_LOOK_UNPROVEN);

	/* Any write that main takes is the proof, wherever. */
	write(test, 128, 8);
	RUN(test, "Mw128+8 =0");
	KUNIT_EXPECT_EQ(test, t->r.unproven, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->r.look), 0);
	t->r.unproven = DMR_MAX_UNPROVEN;
	atomic_set(&t->r.look, DMR_LOOK_UNPROVEN);
	b = read(test, 300, 8);
	run();
	repair_main_ok(&t->r, &b->io);
	KUNIT_EXPECT_EQ(test, t->r.unproven, DMR_MAX_UNPROVEN);
	b->io.opf = REQ_OP_DISCARD;
	repair_main_ok(&t->r, &b->io);
	KUNIT_EXPECT_EQ(test, t->r.unproven, DMR_MAX_UNPROVEN);
	b->io.opf = REQ_OP_WRITE_ZEROES;
	repair_main_ok(&t->r, &b->io);
	KUNIT_EXPECT_EQ(test, t->r.unproven, 0);
	fake_traced();
	write(test, 16, 8);
	RUN(test, "Mw16+8! Mr1023+1 SW8+8 C[8+8:S16] =0");
}

/*----------------------------------------------------------------
 * The breaker
 *----------------------------------------------------------------
 */

static void breaker(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;

	r->breaker.rate = 2;
	main_bad(test, WRITE, 0, 128);
	write(test, 0, 16);
	RUN(test, "Mw0+8! Mr1023+1 SW0+8 Mw8+8! SW8+8 Mr1023+1",
	    "C[0+16:S0] =0");
	KUNIT_EXPECT_FALSE(test, r->breaker.open);
	/* The third piece of the minute opens it. */
	fake.now += 60 * HZ;
	write(test, 16, 16);
	RUN(test, "Mw16+8! Mr1023+1 =-61");
	KUNIT_EXPECT_TRUE(test, r->breaker.open);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_BREAKER], 1);
	expect_free(test, SLOTS - 16);
	/* Open, main is not even asked, however long ago that was. */
	fake.now += 3600 * HZ;
	write(test, 16, 16);
	write(test, 0, 8);
	RUN(test, "=-61 Sw0+8 =0");
	/* Closing it begins a minute. */
	repair_set_breaker(r, false);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_BREAKER], 2);
	repair_set_breaker(r, false);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_BREAKER], 2);
	write(test, 16, 16);
	RUN(test, "Mw16+8! Mr1023+1 SW16+8 Mw24+8! SW24+8 Mr1023+1",
	    "C[16+16:S16] =0");
	KUNIT_EXPECT_FALSE(test, r->breaker.open);
	/* A minute later two more may be. */
	fake.now += 61 * HZ;
	write(test, 32, 16);
	RUN(test, "Mw32+8! Mr1023+1 SW32+8 Mw40+8! SW40+8 Mr1023+1",
	    "C[32+16:S32] =0");
	KUNIT_EXPECT_FALSE(test, r->breaker.open);
}

/* Opened by what a bio asks for itself, it leaves nothing of the bio. */
static void breaker_in_the_middle(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;

	r->breaker.rate = 1;
	main_bad(test, WRITE, 0, 16);
	write(test, 0, 16);
	RUN(test, "Mw0+8! Mr1023+1 SW0+8 Mw8+8! =-61");
	expect_free(test, SLOTS);
	/* By hand. */
	repair_set_breaker(r, false);
	repair_set_breaker(r, true);
	write(test, 0, 8);
	RUN(test, "=-61");
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_BREAKER], 3);
}

static void breaker_without_a_rate(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;
	unsigned int i;

	for (i = 0; i < 100000; i++)
		KUNIT_ASSERT_TRUE(test, breaker_allows(r));
	/* Moves use slots up, too. */
	r->breaker.rate = 100000;
	map(test, 50, 4, dmr_info(DMR_MAPPED, 0));
	spare_bad(test, WRITE, 50, 1);
	write_slots(test, 4, 1);
	RUN(test, "Sw50+1! =-61");
	KUNIT_EXPECT_TRUE(test, r->breaker.open);
}

/*----------------------------------------------------------------
 * Slots that refuse
 *----------------------------------------------------------------
 */

/* They are left for the next ones and BAD with the commit of their data. */
static void refused_by_slots(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;
	u32 s;

	main_bad(test, WRITE, 0, 8);
	spare_bad(test, WRITE, 3, 1);
	write(test, 0, 8);
	RUN(test, "Mw0+8! Mr1023+1 SW0+8! SW8+8 C[0+8:B] C[8+8:S0] =0");
	expect_content(test, 0, 8, 1);
	expect_free(test, SLOTS - 16);
	for (s = 0; s < 8; s++)
		KUNIT_EXPECT_EQ(test, r->slot[s].info, dmr_info(DMR_BAD, 0));
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_bad), 8);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_SLOT_BAD], 1);
	KUNIT_EXPECT_EQ(test, r->mode, DMR_MODE_RW);
}

/* No metadata block can be read: it is the spare that fails. */
static void spare_fails(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;

	main_bad(test, WRITE, 0, 8);
	spare_bad(test, WRITE, 0, SLOTS);
	meta.readable = false;
	write(test, 0, 8);
	RUN(test, "Mw0+8! Mr1023+1 SW0+8! =-61");
	KUNIT_EXPECT_EQ(test, r->mode, DMR_MODE_RO);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_bad), 0);
	expect_free(test, SLOTS);
	/* Nothing is asked any more, for writes. */
	write(test, 0, 8);
	RUN(test, "=-61");
	read(test, 0, 8);
	RUN(test, "Mr0+8 =0");
}

/* Nothing is BAD, nothing was committed, and so many slots are free. */
static void expect_unmarked(struct kunit *test, unsigned int nr)
{
	struct remap *r = &repair_test(test)->r;

	expect_free(test, nr);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_bad), 0);
	KUNIT_EXPECT_EQ(test, r->first_left, DMR_NO_SLOT);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_SLOT_BAD], 0);
	KUNIT_EXPECT_EQ(test, r->mode, DMR_MODE_RW);
}

/*
 * A spare that refuses everything, as on a file system that is full: two slots in
 * a row, thirteen all over the area, and one behind the two.  No commit, no mark;
 * the next bio goes on behind.  When it takes data again the first one is served.
 */
static void spare_refuses_everything(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	t->r.piece = 1;
	main_bad(test, WRITE, 0, 8);
	spare_bad(test, WRITE, 0, SLOTS);
	write(test, 0, 1);
	RUN(test, "Mw0+1! Mr1023+1 SW0+1! SW1+1! SW9+1! SW18+1! SW27+1!",
	    "SW36+1! SW45+1! SW54+1! SW64+1! SW73+1! SW82+1! SW91+1! SW100+1!",
	    "SW109+1! SW118+1! SW2+1! =-61");
	expect_unmarked(test, SLOTS);
	write(test, 1, 1);
	RUN(test, "Mw1+1! Mr1023+1 SW3+1! SW4+1! SW12+1! SW21+1! SW30+1!",
	    "SW39+1! SW48+1! SW57+1! SW67+1! SW76+1! SW85+1! SW94+1! SW103+1!",
	    "SW112+1! SW121+1! SW5+1! =-61");
	expect_unmarked(test, SLOTS);
	/* Not all were tried. */
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_SPARE_FULL], 0);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_SPARE_LOW], 0);
	fake_disk_bad(t->spare, WRITE, 0, SLOTS, BLK_STS_OK);
	write(test, 0, 2);
	RUN(test, "Mw0+1! Mr1023+1 SW6+1 Mw1+1! SW7+1 Mr1023+1 C[6+2:S0] =0");
	expect_content(test, 0, 2, 1);
	expect_unmarked(test, SLOTS - 2);
}

/* The same with whole pieces: runs, and all slots of them stay free. */
static void runs_refuse_everything(struct kunit *test)
{
	main_bad(test, WRITE, 0, 16);
	spare_bad(test, WRITE, 0, SLOTS);
	write(test, 0, 8);
	RUN(test, "Mw0+8! Mr1023+1 SW0+8! SW8+8! SW16+8! SW24+8! SW32+8!",
	    "SW40+8! SW48+8! SW56+8! SW64+8! SW72+8! SW80+8! SW88+8! SW96+8!",
	    "SW104+8! SW112+8! SW120+8! =-61");
	expect_unmarked(test, SLOTS);
	/* One run takes data: what has refused it before is BAD. */
	spare_bad(test, WRITE, 0, SLOTS);
	fake_disk_bad(repair_test(test)->spare, WRITE, 8, 8, BLK_STS_OK);
	write(test, 8, 8);
	RUN(test, "Mw8+8! Mr1023+1 SW0+8! SW8+8 C[0+8:B] C[8+8:S8] =0");
	expect_content(test, 8, 8, 1);
	expect_free(test, SLOTS - 16);
}

/*
 * A run refuses, and then slots one by one, but not enough of them: the data was
 * not taken as a whole, so nobody is blamed.
 */
static void run_that_is_taken_in_part(struct kunit *test)
{
	struct repair_test *t = repair_test(test);
	unsigned int got;
	u32 s;

	for (s = 0; s < SLOTS - 16; s++)
		slots_take(&t->r, 1, &got);
	t->r.rotor = 120;
	slots_take(&t->r, 1, &got);
	t->r.rotor = 0;
	main_bad(test, WRITE, 0, 8);
	spare_bad(test, WRITE, 112, 8);
	spare_bad(test, WRITE, 124, 4);
	write(test, 0, 8);
	RUN(test, "Mw0+8! Mr1023+1 SW112+8! SW121+1 SW122+1 SW123+1",
	    "SW124+1! SW125+1! SW126+1! SW127+1! =-61");
	expect_unmarked(test, 15);
}

/* The last free slots refuse: these were all, and it is the original error. */
static void last_slots_refuse(struct kunit *test)
{
	struct repair_test *t = repair_test(test);
	unsigned int got;
	u32 s;

	for (s = 0; s < SLOTS - 5; s++)
		slots_take(&t->r, 1, &got);
	main_bad(test, WRITE, 0, 8);
	spare_bad(test, WRITE, 0, SLOTS);
	write(test, 0, 1);
	RUN(test, "Mw0+1! Mr1023+1 SW123+1! SW124+1! SW125+1! SW126+1!",
	    "SW127+1! =-61");
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_SPARE_FULL], 1);
	expect_unmarked(test, 5);
	/* The last of them takes it: then the others are. */
	fake_disk_bad(t->spare, WRITE, 124, 1, BLK_STS_OK);
	write(test, 0, 1);
	run();
	expect_content(test, 0, 1, 1);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_SPARE_FULL], 1);
	KUNIT_EXPECT_EQ(test, slots_first(&t->r, 0, 0), 124);
}

/* From bio to bio all slots are tried, also those between slots in use. */
static void every_slot_is_tried(struct kunit *test)
{
	struct repair_test *t = repair_test(test);
	unsigned int bios, free = 0;
	u32 s, only = 101;

	t->r.piece = 1;
	for (s = 0; s < SLOTS; s++) {
		if (s % 3 == 1 && s != only)
			t->r.slot[s].info = dmr_info(DMR_BAD, 0);
		else
			free++;
	}
	atomic_set(&t->r.nr_free, free);
	main_bad(test, WRITE, 0, 8);
	spare_bad(test, WRITE, 0, SLOTS);
	fake_disk_bad(t->spare, WRITE, only, 1, BLK_STS_OK);
	for (bios = 1; bios <= SLOTS / 3; bios++) {
		struct test_bio *b = write(test, 0, 1);

		run();
		fake_traced();
		if (!b->bio.bi_status)
			break;
	}
	kunit_info(test, "%u bios", bios);
	KUNIT_EXPECT_EQ(test, slots_first(&t->r, 0, 0), only);
	/* Fifteen at most have refused that one. */
	KUNIT_EXPECT_LE(test, atomic_read(&t->r.nr_bad), 15);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->r.nr_free),
			free - 1 - atomic_read(&t->r.nr_bad));
}

/* The command was refused, and not as a medium: never a mark. */
static void commands_refused(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	t->r.piece = 1;
	main_bad(test, WRITE, 0, 8);
	fake_disk_bad(t->spare, WRITE, 0, 2, BLK_STS_TARGET);
	spare_bad(test, WRITE, 9, 1);
	write(test, 0, 1);
	RUN(test, "Mw0+1! Mr1023+1 SW0+1! Sw0+1! SW1+1! Sw1+1! SW9+1! SW18+1",
	    "C[9+1:B] C[18+1:S0] =0");
	expect_content(test, 0, 1, 1);
	expect_free(test, SLOTS - 2);
	fake_disk_bad(t->spare, WRITE, 0, SLOTS, BLK_STS_NOTSUPP);
	write(test, 1, 1);
	RUN(test, "Mw1+1! Mr1023+1 SW19+1! Sw19+1! =-61");
	expect_free(test, SLOTS - 2);
}

/*
 * A bio fails for another reason: what another slot has taken is BAD, as it is in
 * a bio that ends well; the rest is as it was.
 */
static void bio_fails_after_refusals(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	t->r.piece = 1;
	main_bad(test, WRITE, 0, 8);
	spare_bad(test, WRITE, 0, 1);
	fake_disk_bad(t->main, WRITE, 1, 1, BLK_STS_TRANSPORT);
	write(test, 0, 2);
	RUN(test, "Mw0+1! Mr1023+1 SW0+1! SW1+1 Mw1+1! =-67 C[0+1:B]");
	expect_free(test, SLOTS - 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->r.nr_bad), 1);

	/* Of the spare's: it goes while its slots are tried. */
	spare_bad(test, WRITE, 1, 3);
	fake_disk_bad(t->spare, WRITE, 10, 1, BLK_STS_OFFLINE);
	write(test, 4, 1);
	RUN(test, "Mw4+1! Mr1023+1 SW1+1! SW2+1! SW10+1! =-61");
	expect_free(test, SLOTS - 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->r.nr_bad), 1);
	/* It went on behind the two. */
	write(test, 4, 1);
	RUN(test, "Mw4+1! Mr1023+1 SW3+1! SW4+1 C[3+1:B] C[4+1:S4] =0");
	KUNIT_EXPECT_EQ(test, t->r.mode, DMR_MODE_RW);
}

/* While a suspend waits, and after it has waited: no mark either. */
static void slots_refuse_and_a_suspend_waits(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	t->r.piece = 1;
	t->spare->fail_ticks = HZ;
	main_bad(test, WRITE, 0, 8);
	spare_bad(test, WRITE, 0, SLOTS);
	t->r.suspend_deadline = (fake.now + 2 * HZ) | 1;
	write(test, 0, 1);
	RUN(test, "Mw0+1! Mr1023+1 SW0+1! SW1+1! SW9+1! =-61");
	expect_unmarked(test, SLOTS);
}

/* Tries count for the breaker: it ends what burns time, if not the first one. */
static void refused_slots_open_the_breaker(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	t->r.piece = 1;
	t->r.breaker.rate = 30;
	main_bad(test, WRITE, 0, 8);
	spare_bad(test, WRITE, 0, SLOTS);
	write(test, 0, 1);
	write(test, 1, 1);
	run();
	KUNIT_EXPECT_EQ(test, t->spare->failed[WRITE], 32);
	KUNIT_EXPECT_FALSE(test, t->r.breaker.open);
	write(test, 2, 1);
	run();
	KUNIT_EXPECT_EQ(test, t->spare->failed[WRITE], 32);
	KUNIT_EXPECT_TRUE(test, t->r.breaker.open);
	expect_unmarked(test, SLOTS);
	/* A minute later, if somebody closes it. */
	repair_set_breaker(&t->r, false);
	fake.now += 61 * HZ;
	write(test, 2, 1);
	run();
	KUNIT_EXPECT_EQ(test, t->spare->failed[WRITE], 48);
	fake_traced();
}

/* Few are left when those that were refused are counted right. */
static void refused_slots_are_not_low(struct kunit *test)
{
	struct repair_test *t = repair_test(test);
	unsigned int got;
	u32 s;

	t->r.piece = 1;
	for (s = 0; s < SLOTS - SLOTS / 8 - 2; s++)
		slots_take(&t->r, 1, &got);
	main_bad(test, WRITE, 0, 8);
	spare_bad(test, WRITE, 0, SLOTS);
	write(test, 0, 1);
	run();
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_SPARE_LOW], 0);
	expect_unmarked(test, SLOTS / 8 + 2);
	/* One BAD and one taken. */
	fake_disk_bad(t->spare, WRITE, 0, SLOTS, BLK_STS_OK);
	t->r.rotor = 0;
	spare_bad(test, WRITE, s, 1);
	write(test, 0, 1);
	run();
	fake_traced();
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_SPARE_LOW], 1);
	expect_free(test, SLOTS / 8);
}

/* Units that move and LOST ones: where they are is where they stay. */
static void moves_that_are_refused(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	t->r.piece = 1;
	map(test, 50, 4, dmr_info(DMR_MAPPED, 5));
	map(test, 60, 6, dmr_info(DMR_LOST, 2));
	spare_bad(test, WRITE, 0, SLOTS);
	write_slots(test, 4, 1);
	run();
	KUNIT_EXPECT_NOT_NULL(test, strstr(fake_traced(), "SW2+1! =-61"));
	write(test, 6, 1);
	run();
	KUNIT_EXPECT_EQ(test, t->spare->failed[WRITE], 2 * 17);
	KUNIT_EXPECT_NOT_NULL(test, strstr(fake_traced(), "SW5+1! =-61"));
	expect_unmarked(test, SLOTS - 2);
	KUNIT_EXPECT_EQ(test, t->r.slot[50].info, dmr_info(DMR_MAPPED, 5));
	KUNIT_EXPECT_EQ(test, t->r.slot[60].info, dmr_info(DMR_LOST, 2));
	KUNIT_EXPECT_EQ(test, atomic_read(&t->r.nr_lost), 1);

	/* The old slots have failed themselves; free ones that have come before. */
	fake_disk_bad(t->spare, WRITE, 7, 1, BLK_STS_OK);
	write(test, 6, 1);
	RUN(test, "SW60+1! SW6+1! SW7+1 C[6+1:B] C[7+1:S6] =0 C[60+1:B]");
	KUNIT_EXPECT_EQ(test, atomic_read(&t->r.nr_lost), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->r.nr_bad), 2);
	expect_content(test, 6, 1, 1);
}

/* Sixteen in a row are enough. */
static void sixteen_slots(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	t->r.piece = 1;
	main_bad(test, WRITE, 0, 8);
	spare_bad(test, WRITE, 0, SLOTS);
	fake_disk_bad(t->spare, WRITE, 2, 1, BLK_STS_OK);
	fake_disk_bad(t->spare, WRITE, 5, 1, BLK_STS_OK);
	/* Not in a row: 15 for the first unit and 15 for the second. */
	write(test, 0, 2);
	run();
	KUNIT_EXPECT_EQ(test, t->spare->failed[WRITE], 30);
	KUNIT_EXPECT_EQ(test, slots_first(&t->r, 0, 0), 2);
	KUNIT_EXPECT_EQ(test, slots_first(&t->r, 1, 1), 5);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->r.nr_bad), 30);
	fake_traced();
	write(test, 4, 1);
	run();
	KUNIT_EXPECT_EQ(test, t->spare->failed[WRITE], 46);
	KUNIT_EXPECT_EQ(test, slots_first(&t->r, 4, 4), DMR_NO_SLOT);
	KUNIT_EXPECT_NULL(test, strstr(fake_traced(), "C["));
	expect_free(test, SLOTS - 32);
}

/* And so are 15 s, for all slots of one bio. */
static void slots_that_are_slow(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	t->r.piece = 1;
	t->spare->fail_ticks = 4 * HZ;
	/* What main takes is not on their account. */
	t->main->fail_ticks = 8 * HZ;
	main_bad(test, WRITE, 0, 8);
	spare_bad(test, WRITE, 0, 2);
	spare_bad(test, WRITE, 10, 2);
	write(test, 0, 2);
	RUN(test, "Mw0+1! Mr1023+1 SW0+1! SW1+1! SW9+1 Mw1+1!",
	    "SW10+1! SW11+1! =-61 C[0+2:B]");
	/*
	 * Slot 9 had taken its data, and is free again; so are those of which
	 * nobody knows whether any other would have taken it.
	 */
	expect_free(test, SLOTS - 2);
}

/* Errors that are not the medium's leave slots as they were. */
static void spare_offline(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	main_bad(test, WRITE, 0, 8);
	t->spare->dead = BLK_STS_OFFLINE;
	write(test, 0, 8);
	RUN(test, "Mw0+8! Mr1023+1 SW0+8! =-61");
	expect_free(test, SLOTS);
	/* Nor do they make a unit move. */
	map(test, 50, 4, dmr_info(DMR_MAPPED, 0));
	write_slots(test, 4, 1);
	RUN(test, "Sw50+1! =-19");
	expect_free(test, SLOTS - 1);
	KUNIT_EXPECT_EQ(test, t->r.mode, DMR_MODE_RW);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_SLOT_BAD], 0);
}

/* The last slots, and none: the error is the original one. */
static void no_free_slot(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;
	unsigned int got;
	u32 s;

	for (s = 0; s < SLOTS - 24; s++)
		slots_take(r, 1, &got);
	main_bad(test, WRITE, 0, 64);
	write(test, 0, 8);
	RUN(test, "Mw0+8! Mr1023+1 SW104+8 C[104+8:S0] =0");
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_SPARE_LOW], 1);
	write(test, 8, 8);
	RUN(test, "Mw8+8! Mr1023+1 SW112+8 C[112+8:S8] =0");
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_SPARE_LOW], 1);
	slots_take(r, 1, &got);
	/* Not enough for a piece: the seven are taken, and given back. */
	write(test, 16, 8);
	RUN(test, "Mw16+8! Mr1023+1 SW121+1 SW122+1 SW123+1 SW124+1 SW125+1",
	    "SW126+1 SW127+1 =-61");
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_SPARE_FULL], 1);
	expect_free(test, 7);
	write(test, 17, 7);
	run();
	expect_content(test, 17, 7, 1);
	expect_free(test, 0);
	fake_traced();
	write(test, 24, 8);
	RUN(test, "Mw24+8! Mr1023+1 =-61");
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_SPARE_FULL], 2);
}

/*----------------------------------------------------------------
 * Moves and LOST units
 *----------------------------------------------------------------
 */

/* The old slot becomes BAD by a commit after it is acknowledged. */
static void move_to_another_slot(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;

	map(test, 50, 4, dmr_info(DMR_MAPPED, 5));
	spare_bad(test, WRITE, 50, 1);
	write_slots(test, 4, 1);
	RUN(test, "Sw50+1! SW0+1 C[0+1:S4] =0 C[50+1:B]");
	expect_content(test, 4, 1, 1);
	KUNIT_EXPECT_EQ(test, r->slot[0].info, dmr_info(DMR_MAPPED, 6));
	KUNIT_EXPECT_EQ(test, r->slot[50].info, dmr_info(DMR_BAD, 0));
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_mapped), 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_bad), 1);
	KUNIT_EXPECT_EQ(test, atomic64_read(&r->moved), 1);
	KUNIT_EXPECT_EQ(test, atomic64_read(&r->remapped), 0);
	expect_free(test, SLOTS - 2);
}

/* Units of a part of a piece are told apart; a whole one moves whole. */
static void move_runs(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;
	u32 s;

	for (s = 0; s < 16; s++)
		map(test, 50 + s, 8 + s, dmr_info(DMR_MAPPED, s));
	spare_bad(test, WRITE, 52, 1);
	spare_bad(test, WRITE, 60, 1);
	write_slots(test, 9, 15);
	RUN(test, "Sw51+7! Sw51+1 Sw52+1! SW0+1 Sw53+1 Sw54+1 Sw55+1 Sw56+1",
	    "Sw57+1 Sw58+8! SW8+8 C[0+1:S10] C[8+8:S16] =0",
	    "C[52+1:B] C[58+8:B]");
	expect_content(test, 9, 15, 1);
	KUNIT_EXPECT_EQ(test, r->slot[0].info, dmr_info(DMR_MAPPED, 3));
	for (s = 8; s < 16; s++)
		KUNIT_EXPECT_EQ(test, r->slot[s].info,
				dmr_info(DMR_MAPPED, s + 1));
}

/* A generation cannot wrap: at its limit a move fails. */
static void generation_limit(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;

	map(test, 50, 4, dmr_info(DMR_MAPPED, DMR_GEN_MAX - 1));
	spare_bad(test, WRITE, 50, 1);
	write_slots(test, 4, 1);
	RUN(test, "Sw50+1! SW0+1 C[0+1:S4] =0 C[50+1:B]");
	KUNIT_EXPECT_EQ(test, r->slot[0].info,
			dmr_info(DMR_MAPPED, DMR_GEN_MAX));
	spare_bad(test, WRITE, 0, 1);
	write_slots(test, 4, 1);
	RUN(test, "Sw0+1! =-61");
	KUNIT_EXPECT_EQ(test, slots_first(r, 4, 4), 0);
	expect_free(test, SLOTS - 2);
}

/* A move whose commit fails: in doubt, and the old slot is no way back. */
static void move_in_doubt(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;

	map(test, 50, 4, dmr_info(DMR_MAPPED, 0));
	spare_bad(test, WRITE, 50, 1);
	meta.fails = true;
	write_slots(test, 4, 1);
	RUN(test, "Sw50+1! SW0+1 C[0+1:S4]! =-5");
	KUNIT_EXPECT_EQ(test, slots_first(r, 4, 4), 0);
	KUNIT_EXPECT_EQ(test, dmr_slot_state(r, 0), DMR_DOUBT);
	KUNIT_EXPECT_EQ(test, r->mode, DMR_MODE_RO);
	KUNIT_EXPECT_EQ(test, atomic64_read(&r->moved), 0);
	read(test, 4, 1);
	RUN(test, "=-5");
}

/* A slot's own failure while something else of the bio failed on main. */
static void slots_are_slow(struct kunit *test)
{
	struct repair_test *t = repair_test(test);
	u32 s;

	for (s = 0; s < 80; s++)
		map(test, 30 + s, s, dmr_info(DMR_MAPPED, 0));
	t->spare->fail_ticks = 2 * HZ;
	spare_bad(test, WRITE, 30, 80);
	write_slots(test, 0, 24);
	t->r.suspend_deadline = (fake.now + 30 * HZ) | 1;
	/* Two that were slow; the third moves untried. */
	RUN(test, "Sw30+8! SW0+8 Sw38+8! SW8+8 SW16+8 C[0+24:S0] =0",
	    "C[30+24:B]");
}

/* A write to a LOST slot is durable, committed, and then acknowledged. */
static void lost_units(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;

	map(test, 50, 4, dmr_info(DMR_LOST, 2));
	map(test, 51, 5, dmr_info(DMR_LOST, 3));
	read(test, 4, 2);
	RUN(test, "=-61");
	write(test, 4, 1);
	RUN(test, "SW50+1 C[50+1:T4] =0");
	KUNIT_EXPECT_EQ(test, r->slot[50].info, dmr_info(DMR_MAPPED, 2));
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_lost), 1);
	KUNIT_EXPECT_EQ(test, atomic64_read(&r->spare_writes), 0);
	expect_content(test, 4, 1, 1);
	/* Half failed: nobody knows. */
	meta.fails = true;
	write(test, 5, 1);
	RUN(test, "SW51+1 C[51+1:T5]! =-5");
	KUNIT_EXPECT_EQ(test, dmr_slot_state(r, 51), DMR_DOUBT);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_lost), 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_doubt), 1);
}

/* A LOST slot that refuses: its unit moves, and is lost no more. */
static void lost_units_move(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;

	map(test, 50, 4, dmr_info(DMR_LOST, 2));
	spare_bad(test, WRITE, 50, 1);
	write(test, 4, 1);
	RUN(test, "SW50+1! SW0+1 C[0+1:S4] =0 C[50+1:B]");
	KUNIT_EXPECT_EQ(test, r->slot[0].info, dmr_info(DMR_MAPPED, 3));
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_lost), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_mapped), 1);
}

/* The bio fails after it has written a LOST slot: that one is LOST again. */
static void lost_units_of_a_bio_that_fails(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	map(test, 50, 4, dmr_info(DMR_LOST, 2));
	map(test, 60, 40, dmr_info(DMR_LOST, 1));
	t->main->dead = BLK_STS_TRANSPORT;
	write(test, 4, 4);
	RUN(test, "SW50+1 Mw5+3! =-67");
	KUNIT_EXPECT_EQ(test, t->r.slot[50].info, dmr_info(DMR_LOST, 2));
	KUNIT_EXPECT_EQ(test, atomic_read(&t->r.nr_lost), 2);
	/* A commit of another bio does not touch it. */
	write(test, 40, 1);
	RUN(test, "SW60+1 C[60+1:T40] =0");
	KUNIT_EXPECT_EQ(test, t->r.slot[50].info, dmr_info(DMR_LOST, 2));
}

/*----------------------------------------------------------------
 * Reads and notes of pending units
 *----------------------------------------------------------------
 */

static void read_at_second_try(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;
	struct test_bio *b = read(test, 3, 15);
	unsigned int i;

	RUN(test, "Mr3+5 Mr8+8 Mr16+2 =0");
	KUNIT_EXPECT_EQ(test, atomic64_read(&r->transient), 1);
	for (i = 0; i < 15; i++)
		KUNIT_EXPECT_PTR_EQ(test, memchr_inv(b->data + i * SECTOR_SIZE,
						     content(3 + i, 0),
						     SECTOR_SIZE), NULL);
}

/* Good units of a bio that fails are read, and bad ones are noted. */
static void unreadable_units(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;
	struct test_bio *b;

	main_bad(test, READ, 5, 1);
	main_bad(test, READ, 9, 1);
	b = read(test, 3, 21);
	RUN(test, "Mr3+5! Mr3+1 Mr4+1 Mr5+1! Mr4+1 Mr6+1 Mr7+1",
	    "Mr8+8! Mr7+1 Mr16+8 =-61");
	KUNIT_EXPECT_EQ(test, b->data[SECTOR_SIZE], content(4, 0));
	KUNIT_EXPECT_EQ(test, b->data[2 * SECTOR_SIZE], 0);
	KUNIT_EXPECT_EQ(test, b->data[20 * SECTOR_SIZE], content(23, 0));
	KUNIT_ASSERT_EQ(test, r->nr_pending, 9);
	KUNIT_EXPECT_EQ(test, r->pending[0], 5);
	KUNIT_EXPECT_EQ(test, r->pending[1], 8);
	KUNIT_EXPECT_EQ(test, r->pending[8], 15);
	KUNIT_EXPECT_EQ(test, fake.units[DMR_EV_PENDING], 9);
	KUNIT_EXPECT_EQ(test, atomic64_read(&r->transient), 0);
	expect_free(test, SLOTS);

	/* A write makes it readable.  Main took it, so its note goes. */
	write(test, 5, 1);
	RUN(test, "Mw5+1 =0");
	KUNIT_EXPECT_EQ(test, r->nr_pending, 8);
	/* So does one that goes to a slot. */
	main_bad(test, WRITE, 8, 8);
	write(test, 8, 8);
	RUN(test, "Mw8+8! Mr7+1 SW0+8 C[0+8:S8] =0");
	KUNIT_EXPECT_EQ(test, r->nr_pending, 0);
}

/* There is no other copy: never main's old data. */
static void unreadable_slots(struct kunit *test)
{
	struct repair_test *t = repair_test(test);

	map(test, 50, 4, dmr_info(DMR_MAPPED, 0));
	spare_bad(test, READ, 50, 1);
	read(test, 4, 1);
	RUN(test, "Sr50+1! =-61");
	fake_disk_bad(t->spare, READ, 50, 1, BLK_STS_TRANSPORT);
	read(test, 3, 4);
	RUN(test, "Mr3+1 Sr50+1! =-67");
	KUNIT_EXPECT_EQ(test, t->r.nr_pending, 0);
}

static void expect_pending(struct kunit *test, unsigned int nr)
{
	struct remap *r = &repair_test(test)->r;
	unsigned int i, counted = 0;

	/* Who looks for one finds it, and nothing is left of others. */
	for (i = 0; i < r->nr_pending; i++) {
		sector_t sector = dmr_sector_of(r, r->pending[i]);

		KUNIT_EXPECT_TRUE(test, dmr_noted(r, sector, 1));
		KUNIT_EXPECT_TRUE(test, dmr_noted(r, max_t(sector_t, sector, 7) - 7, 8));
		KUNIT_EXPECT_TRUE(test, dmr_noted(r, 0, sector + 1));
	}
	for (i = 0; i < DMR_NOTE_COUNTS; i++)
		counted += r->note_count[i];
	KUNIT_EXPECT_EQ(test, counted, 2 * nr);
	KUNIT_EXPECT_EQ(test, r->nr_pending, nr);
	for (i = 1; i < r->nr_pending; i++)
		KUNIT_EXPECT_LT(test, r->pending[i - 1], r->pending[i]);
}

/* Ascending, each unit once, forgotten in ranges. */
static void pending_notes(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;

	pending_add(r, 500, 3);
	pending_add(r, 100, 2);
	pending_add(r, 300, 1);
	pending_add(r, 99, 5);
	expect_pending(test, 9);
	KUNIT_EXPECT_EQ(test, r->pending[0], 99);
	KUNIT_EXPECT_EQ(test, r->pending[8], 502);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_PENDING], 4);
	KUNIT_EXPECT_EQ(test, fake.units[DMR_EV_PENDING], 9);
	pending_add(r, 99, 5);
	expect_pending(test, 9);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_PENDING], 4);

	repair_forget(r, 0, 98);
	repair_forget(r, 104, 299);
	repair_forget(r, 503, U64_MAX - 1);
	expect_pending(test, 9);
	repair_forget(r, 101, 500);
	expect_pending(test, 4);
	KUNIT_EXPECT_EQ(test, r->pending[1], 100);
	KUNIT_EXPECT_EQ(test, r->pending[2], 501);
	repair_forget(r, 0, U64_MAX - 1);
	expect_pending(test, 0);
	repair_forget(r, 0, 10);
	expect_pending(test, 0);
}

/* 4096 and not one more; a read-only table notes nothing. */
static void pending_limit(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;
	u64 unit;

	for (unit = 0; unit < 4000; unit += 2)
		pending_add(r, 10000 - unit, 1);
	expect_pending(test, 2000);
	for (unit = 0; unit < 4000; unit++)
		pending_add(r, 6000 + unit, 2);
	expect_pending(test, 4001);
	pending_add(r, 0, 200);
	expect_pending(test, DMR_MAX_PENDING);
	KUNIT_EXPECT_EQ(test, r->pending[94], 94);
	KUNIT_EXPECT_EQ(test, r->pending[95], 6000);
	pending_add(r, 1, 200);
	expect_pending(test, DMR_MAX_PENDING);
	/* Those for which there is no room are counted, each time. */
	KUNIT_EXPECT_EQ(test, fake.units[DMR_EV_PENDING],
			DMR_MAX_PENDING + 105 + 106);
	repair_forget(r, 0, 0);
	pending_add(r, 1000, 2);
	expect_pending(test, DMR_MAX_PENDING);
	KUNIT_EXPECT_EQ(test, r->pending[94], 1000);

	r->read_only = true;
	repair_forget(r, 1000, 1000);
	pending_add(r, 1000, 1);
	expect_pending(test, DMR_MAX_PENDING - 1);
}

/* What main completes is known again, but for discards. */
static void pending_is_forgotten(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;
	struct test_bio *b = read(test, 8, 8);

	run();
	pending_add(r, 0, 32);
	b->io.opf = REQ_OP_DISCARD;
	repair_main_ok(r, &b->io);
	expect_pending(test, 32);
	b->io.opf = REQ_OP_READ;
	repair_main_ok(r, &b->io);
	expect_pending(test, 24);
	KUNIT_EXPECT_EQ(test, r->pending[7], 7);
	KUNIT_EXPECT_EQ(test, r->pending[8], 16);
	b->io.opf = REQ_OP_WRITE;
	b->io.iter.bi_sector = 16;
	repair_main_ok(r, &b->io);
	expect_pending(test, 16);
}

/*----------------------------------------------------------------
 * Claims and commits
 *----------------------------------------------------------------
 */

/* Bios whose data is durable share a commit. */
static void bios_share_a_commit(struct kunit *test)
{
	main_bad(test, WRITE, 0, 32);
	write(test, 0, 8);
	write(test, 16, 8);
	RUN(test, "Mw0+8! Mr1023+1 SW0+8 Mw16+8! Mr1023+1 SW8+8",
	    "C[0+8:S0] C[8+8:S16] =0 =0");
	expect_content(test, 0, 8, 1);
	expect_content(test, 16, 8, 1);
}

/* One that overlaps waits, and so do those behind it; then it looks again. */
static void overlapping_bios_wait(struct kunit *test)
{
	main_bad(test, WRITE, 0, 8);
	write(test, 0, 8);
	queue(test, REQ_OP_WRITE, 4, 8, 2);
	write(test, 512, 8);
	RUN(test, "Mw0+8! Mr1023+1 SW0+8 C[0+8:S0] =0",
	    "Sw4+4 Mw8+4 =0 Mw512+8 =0");
	expect_content(test, 0, 4, 1);
	expect_content(test, 4, 8, 2);
	/* Neighbours do not overlap. */
	main_bad(test, WRITE, 16, 16);
	write(test, 16, 8);
	write(test, 24, 8);
	RUN(test, "Mw16+8! Mr1023+1 SW8+8 Mw24+8! Mr1023+1 SW16+8",
	    "C[8+16:S16] =0 =0");
}

/* A commit that half fails: in doubt until the next load. */
static void half_failed_commit(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;

	main_bad(test, WRITE, 0, 8);
	meta.fails = true;
	write(test, 0, 8);
	RUN(test, "Mw0+8! Mr1023+1 SW0+8 C[0+8:S0]! =-5");
	KUNIT_EXPECT_EQ(test, slots_first(r, 0, 7), 0);
	KUNIT_EXPECT_EQ(test, slots_run(r, 0, DMR_DOUBT, 8), 8);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_doubt), 8);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_mapped), 0);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_REMAPPED], 0);
	read(test, 0, 8);
	RUN(test, "=-5");
	write(test, 0, 8);
	RUN(test, "=-61");
}

/* The mode becomes ro while a bio waits for its commit. */
static void too_late_for_a_commit(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;

	main_bad(test, WRITE, 0, 8);
	write(test, 0, 8);
	narrow_queued = false;
	do_narrow(&r->narrow_work);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "Mw0+8! Mr1023+1 SW0+8");
	r->mode = DMR_MODE_RO;
	RUN(test, "=-61");
	KUNIT_EXPECT_EQ(test, slots_first(r, 0, 7), DMR_NO_SLOT);
	/* They may be in a commit for all that the allocator knows. */
	KUNIT_EXPECT_EQ(test, dmr_slot_state(r, 0), DMR_TAKEN);
}

static int asked(struct remap *r, struct dmr_request *rq)
{
	fake_trace("%s", rq->name);
	return 5;
}

/* A request comes between two commits, and not at all once the mode is ro. */
static void request(struct kunit *test)
{
	struct remap *r = &repair_test(test)->r;
	struct dmr_request rq = { .fn = asked, .name = "north" };

	commit_request(r, &rq);
	KUNIT_EXPECT_EQ(test, rq.result, 5);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "north");

	main_bad(test, WRITE, 0, 1);
	write(test, 0, 1);
	commit_request(r, &rq);
	KUNIT_EXPECT_EQ(test, rq.result, 5);
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "Mw0+1! Mr1023+1 SW0+1 C[0+1:S0] =0 north");

	main_bad(test, WRITE, 9, 1);
	write(test, 9, 1);
	meta.fails = true;
	commit_request(r, &rq);
	KUNIT_EXPECT_EQ(test, rq.result, -EROFS);
	fake_traced();
	commit_request(r, &rq);
	KUNIT_EXPECT_EQ(test, rq.result, -EROFS);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "");
}

/*----------------------------------------------------------------
 * At random
 *----------------------------------------------------------------
 */

#define RANDOM_UNITS	160u
#define RANDOM_BIOS	120u

/* What units hold after bios of any size on bad units and bad slots. */
static void random_writes(struct kunit *test)
{
	struct repair_test *t = repair_test(test);
	unsigned int version, i, known[RANDOM_UNITS] = { };
	struct rnd_state rnd;

	prandom_seed_state(&rnd, 20);
	for (version = 1; version <= RANDOM_BIOS; version++) {
		unsigned int unit = prandom_u32_state(&rnd) % RANDOM_UNITS;
		unsigned int nr = 1 + prandom_u32_state(&rnd) % 20;
		struct test_bio *b;

		main_bad(test, WRITE, prandom_u32_state(&rnd) % RANDOM_UNITS,
			 1);
		if (!(version % 8))
			spare_bad(test, WRITE,
				  prandom_u32_state(&rnd) % SLOTS, 1);
		nr = min(nr, RANDOM_UNITS - unit);
		b = queue(test, REQ_OP_WRITE, unit, nr, version);
		run();
		fake_traced();
		KUNIT_ASSERT_TRUE(test, b->done);
		for (i = unit; i < unit + nr; i++)
			known[i] = b->bio.bi_status ? U32_MAX : version;
		for (i = 0; i < RANDOM_UNITS; i++)
			if (known[i] != U32_MAX)
				expect_content(test, i, 1, known[i]);
	}
	/* Most of them were served. */
	KUNIT_EXPECT_GT(test, atomic_read(&t->r.nr_mapped), 40);
	KUNIT_EXPECT_GT(test, atomic64_read(&t->r.moved), 0);
}

static struct kunit_case repair_cases[] = {
	KUNIT_CASE(suspect_statuses),
	KUNIT_CASE(other_statuses_go_up),
	KUNIT_CASE(target_errors),
	KUNIT_CASE(write_taken_at_second_try),
	KUNIT_CASE(whole_piece),
	KUNIT_CASE(parts_of_pieces),
	KUNIT_CASE(pieces_of_one_unit),
	KUNIT_CASE(pieces_of_a_partition),
	KUNIT_CASE(mapped_units_between),
	KUNIT_CASE(runs_of_slots),
	KUNIT_CASE(flags_of_replays),
	KUNIT_CASE(write_zeroes),
	KUNIT_CASE(refused_fua),
	KUNIT_CASE(commands_for_slots),
	KUNIT_CASE(eight_slow_failures),
	KUNIT_CASE(units_count_too),
	KUNIT_CASE(budget_of_a_write),
	KUNIT_CASE(time_in_the_queue),
	KUNIT_CASE(budget_of_a_read),
	KUNIT_CASE(budget_while_a_suspend_waits),
	KUNIT_CASE(nothing_after_the_deadline),
	KUNIT_CASE(deadline_in_the_middle),
	KUNIT_CASE(deadline_before_the_commit),
	KUNIT_CASE(dead_main),
	KUNIT_CASE(probe_finds_a_place),
	KUNIT_CASE(probe_stays_inside),
	KUNIT_CASE(probe_takes_its_time),
	KUNIT_CASE(main_dies_in_the_middle),
	KUNIT_CASE(tagged_main_takes_writes),
	KUNIT_CASE(scratch_blocks),
	KUNIT_CASE(main_fails),
	KUNIT_CASE(unproven_pieces),
	KUNIT_CASE(breaker),
	KUNIT_CASE(breaker_in_the_middle),
	KUNIT_CASE(breaker_without_a_rate),
	KUNIT_CASE(refused_by_slots),
	KUNIT_CASE(spare_fails),
	KUNIT_CASE(spare_refuses_everything),
	KUNIT_CASE(runs_refuse_everything),
	KUNIT_CASE(run_that_is_taken_in_part),
	KUNIT_CASE(last_slots_refuse),
	KUNIT_CASE(every_slot_is_tried),
	KUNIT_CASE(commands_refused),
	KUNIT_CASE(bio_fails_after_refusals),
	KUNIT_CASE(slots_refuse_and_a_suspend_waits),
	KUNIT_CASE(refused_slots_open_the_breaker),
	KUNIT_CASE(refused_slots_are_not_low),
	KUNIT_CASE(moves_that_are_refused),
	KUNIT_CASE(sixteen_slots),
	KUNIT_CASE(slots_that_are_slow),
	KUNIT_CASE(spare_offline),
	KUNIT_CASE(no_free_slot),
	KUNIT_CASE(move_to_another_slot),
	KUNIT_CASE(move_runs),
	KUNIT_CASE(generation_limit),
	KUNIT_CASE(move_in_doubt),
	KUNIT_CASE(slots_are_slow),
	KUNIT_CASE(lost_units),
	KUNIT_CASE(lost_units_move),
	KUNIT_CASE(lost_units_of_a_bio_that_fails),
	KUNIT_CASE(read_at_second_try),
	KUNIT_CASE(unreadable_units),
	KUNIT_CASE(unreadable_slots),
	KUNIT_CASE(pending_notes),
	KUNIT_CASE(pending_limit),
	KUNIT_CASE(pending_is_forgotten),
	KUNIT_CASE(bios_share_a_commit),
	KUNIT_CASE(overlapping_bios_wait),
	KUNIT_CASE(half_failed_commit),
	KUNIT_CASE(too_late_for_a_commit),
	KUNIT_CASE(request),
	KUNIT_CASE(random_writes),
	{ }
};

static struct kunit_suite repair_suite = {
	.name = "dm-remap-repair",
	.init = repair_init,
	.test_cases = repair_cases,
};

kunit_test_suite(repair_suite);
