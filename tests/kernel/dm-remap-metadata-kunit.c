// SPDX-License-Identifier: GPL-2.0-only
/*
 * The format's checks, what ctr and a load make of an area, and what a commit
 * leaves there.  The area is a disk in memory whose blocks a case writes
 * itself, with the checksum that belongs there, so that hostile blocks reach
 * the checks behind it.
 *
 * The trace has the commands on the spare, S, in blocks.
 */
#include <linux/prandom.h>

#include "dm-remap-kunit.h"

/* Which works were asked for; a case runs them itself. */
static bool commit_asked, epoch_asked;
static unsigned long epoch_delay;

static bool test_queue_work(struct workqueue_struct *wq,
			    struct work_struct *work)
{
	commit_asked = true;
	return true;
}

static bool test_delayed_work(struct workqueue_struct *wq,
			      struct delayed_work *work, unsigned long delay)
{
	epoch_asked = true;
	epoch_delay = delay;
	return true;
}

#define queue_work			test_queue_work
#undef queue_delayed_work
#undef mod_delayed_work
#define queue_delayed_work		test_delayed_work
#define mod_delayed_work		test_delayed_work

#include "../../kernel/dm-remap-area.c"
#include "../../kernel/dm-remap-identity.c"
#include "../../kernel/dm-remap-commit.c"
#include "../../kernel/dm-remap-load.c"

/*
 * Two segments of 40 blocks, each with two table blocks in two copies.  The
 * last blocks of the disk are for growth.
 */
#define SEGMENT		40u
#define SEGMENT_SLOTS	288u
#define AREA		(DMR_HEAD_BLOCKS + 2 * SEGMENT)
#define DISK		(AREA + SEGMENT)
#define UNITS		4096u
#define SUPER_SEQ	5
#define RAISE		1	/* what each load adds to the superblocks' */
#define EPOCH		7
#define EPOCH_ID	1000
#define TABLE_SEQ	7

/* Homes of the copies, of the superblock first. */
static const u64 homes[][2] = {
	{ 0, 255 }, { 256, 294 }, { 257, 295 }, { 296, 334 }, { 297, 335 },
};

#define MBLOCKS		ARRAY_SIZE(homes)

static const u8 uuid[16] = "dm-remap's kunit";
static const u8 other_uuid[16] = "dm-remap's other";
static const u8 no_uuid[16];

struct metadata_test {
	struct remap		*r;	/* NULL: not constructed */
	struct dm_target	ti;
	struct dm_dev		on_main, on_spare;
	struct fake_disk	*main, *spare;
	char			*error;	/* ctr's */
};

static struct metadata_test *metadata_test(struct kunit *test)
{
	return test->priv;
}

/*----------------------------------------------------------------
 * An area
 *----------------------------------------------------------------
 */

static void *block_at(struct kunit *test, u64 block)
{
	return metadata_test(test)->spare->data + block * DMR_BLOCK_SIZE;
}

static struct dmr_super *super_at(struct kunit *test, u64 block)
{
	return block_at(test, block);
}

static struct dmr_table *table_at(struct kunit *test, u64 block)
{
	return block_at(test, block);
}

static u64 seq_at(struct kunit *test, u64 block)
{
	struct dmr_header *h = block_at(test, block);

	return dmr_get64(h->seq);
}

static void seal_super(struct kunit *test, u64 block, u64 seq)
{
	dmr_seal(block_at(test, block), DMR_TYPE_SUPER, uuid, seq, block,
		 block);
}

static void seal_table(struct kunit *test, u64 block, u64 seq, u64 home)
{
	dmr_seal(block_at(test, block), DMR_TYPE_TABLE, uuid, seq, home, block);
}

/* In both superblocks, which have their sequences still. */
static void put_name(struct kunit *test, u64 place, u64 home)
{
	int copy;

	for (copy = 0; copy < 2; copy++) {
		struct dmr_super *sb = super_at(test, homes[0][copy]);

		sb->standin[place - DMR_STANDIN_FIRST] = dmr_put64(home);
		seal_super(test, homes[0][copy], dmr_get64(sb->h.seq));
	}
}

static void expect_name(struct kunit *test, u64 place, u64 home)
{
	int copy;

	for (copy = 0; copy < 2; copy++) {
		const struct dmr_super *sb = super_at(test, homes[0][copy]);

		KUNIT_EXPECT_EQ_MSG(test,
				    dmr_get64(sb->standin[place -
							  DMR_STANDIN_FIRST]),
				    home, "stand-in %llu, copy %d", place, copy);
	}
}

static void put_segment(struct dmr_segment *segment, u64 start)
{
	segment->start = dmr_put64(start);
	segment->blocks = dmr_put64(SEGMENT);
	segment->slots = dmr_put32(SEGMENT_SLOTS);
	segment->table_blocks = dmr_put32(2);
}

static void put_super(struct dmr_super *sb)
{
	memset(sb, 0, sizeof(*sb));
	memcpy(sb->h.uuid, uuid, sizeof(uuid));
	sb->h.version = dmr_put16(DMR_VERSION);
	sb->state = dmr_put32(DMR_READY);
	sb->unit = dmr_put32(SECTOR_SIZE);
	sb->area_blocks = dmr_put64(AREA);
	sb->nr_segments = dmr_put32(2);
	sb->main_sectors = dmr_put64(UNITS);
	sb->data_sectors = dmr_put64(UNITS);
	sb->epoch.number = dmr_put64(EPOCH);
	sb->epoch.id = dmr_put64(EPOCH_ID);
	sb->before.number = dmr_put64(EPOCH - 1);
	sb->before.id = dmr_put64(EPOCH_ID - 1);
	sb->spare_serial = dmr_put64(1);
	put_segment(&sb->segment[0], DMR_HEAD_BLOCKS);
	put_segment(&sb->segment[1], DMR_HEAD_BLOCKS + SEGMENT);
}

/* A set that nothing is wrong with, and nothing mapped. */
static void put_set(struct kunit *test)
{
	unsigned int mb, copy;

	for (copy = 0; copy < 2; copy++) {
		put_super(super_at(test, homes[0][copy]));
		seal_super(test, homes[0][copy], SUPER_SEQ);
		for (mb = 1; mb < MBLOCKS; mb++) {
			u64 home = homes[mb][copy];

			memset(block_at(test, home), 0, DMR_BLOCK_SIZE);
			seal_table(test, home, TABLE_SEQ, home);
		}
	}
}

/* In one copy; the block has its sequence still. */
static void put_entry(struct kunit *test, u32 slot, int copy, u64 unit,
		      unsigned int state, u32 generation)
{
	u32 in_segment = slot % SEGMENT_SLOTS;
	unsigned int mb = 1 + 2 * (slot / SEGMENT_SLOTS) +
			  in_segment / DMR_ENTRIES;
	u64 home = homes[mb][copy];
	struct dmr_entry *e = &table_at(test, home)->entry[in_segment %
							   DMR_ENTRIES];

	e->unit = dmr_put64(unit);
	e->state_gen = dmr_put32(dmr_info(state, generation));
	seal_table(test, home, seq_at(test, home), home);
}

static void put_entries(struct kunit *test, u32 slot, u64 unit,
			unsigned int state, u32 generation)
{
	put_entry(test, slot, 0, unit, state, generation);
	put_entry(test, slot, 1, unit, state, generation);
}

static void unreadable(struct kunit *test, u64 block)
{
	fake_disk_bad(metadata_test(test)->spare, READ,
		      block * DMR_BLOCK_SECTORS, DMR_BLOCK_SECTORS,
		      BLK_STS_MEDIUM);
}

static void unwritable(struct kunit *test, u64 block, unsigned int blocks)
{
	fake_disk_bad(metadata_test(test)->spare, WRITE,
		      block * DMR_BLOCK_SECTORS, blocks * DMR_BLOCK_SECTORS,
		      BLK_STS_MEDIUM);
}

/* Nothing is bad any more. */
static void heal(struct kunit *test)
{
	struct fake_disk *spare = metadata_test(test)->spare;

	fake_disk_bad(spare, READ, 0, DISK * DMR_BLOCK_SECTORS, BLK_STS_OK);
	fake_disk_bad(spare, WRITE, 0, DISK * DMR_BLOCK_SECTORS, BLK_STS_OK);
	spare->dead = BLK_STS_OK;
	spare->dies_after = 0;
}

/* What was written could be read again. */
static void expect_unreadable(struct kunit *test, u64 block)
{
	u8 *bad = metadata_test(test)->spare->bad[READ];

	KUNIT_EXPECT_NE_MSG(test, bad[block * DMR_BLOCK_SECTORS], 0,
			    "block %llu", block);
}

static void expect_erased(struct kunit *test, u64 block)
{
	KUNIT_EXPECT_PTR_EQ_MSG(test,
				memchr_inv(block_at(test, block), 0,
					   DMR_BLOCK_SIZE),
				NULL, "block %llu", block);
}

/* A copy that is at its home, with that sequence, and valid. */
static void expect_table(struct kunit *test, u64 block, u64 seq)
{
	KUNIT_EXPECT_TRUE_MSG(test, dmr_header_ok(block_at(test, block),
						  DMR_TYPE_TABLE, block),
			      "block %llu", block);
	KUNIT_EXPECT_EQ_MSG(test, seq_at(test, block), seq, "block %llu", block);
}

/*----------------------------------------------------------------
 * A target on it
 *----------------------------------------------------------------
 */

static void destroy(struct metadata_test *t)
{
	struct remap *r = t->r;

	if (!r)
		return;
	slots_destroy(r);
	kvfree(r->mblock);
	kfree(r->tag);
	kfree(r->super);
	if (r->page)
		__free_page(r->page);
	if (r->tag_page)
		__free_page(r->tag_page);
	if (r->probe_page)
		__free_page(r->probe_page);
	kfree(r);
	t->r = NULL;
}

static void destroy_action(void *t)
{
	destroy(t);
}

/* A target as ctr begins with it: the set's uuid is in the table. */
static struct remap *create(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	struct remap *r;

	destroy(t);
	r = kzalloc(sizeof(*r), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, r);
	t->r = r;
	r->page = alloc_page(GFP_KERNEL);
	r->probe_page = alloc_page(GFP_KERNEL);
	r->super = kzalloc(sizeof(*r->super), GFP_KERNEL);
	r->tag = kzalloc(sizeof(*r->tag), GFP_KERNEL);
	r->tag_page = alloc_page(GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, r->page);
	KUNIT_ASSERT_NOT_NULL(test, r->probe_page);
	KUNIT_ASSERT_NOT_NULL(test, r->super);
	KUNIT_ASSERT_NOT_NULL(test, r->tag);
	KUNIT_ASSERT_NOT_NULL(test, r->tag_page);
	r->ti = &t->ti;
	r->main = &t->on_main;
	r->spare = &t->on_spare;
	r->spare_len = AREA * DMR_BLOCK_SECTORS;
	r->unit = SECTOR_SIZE;
	r->piece = 8;
	r->has_uuid = true;
	memcpy(&r->uuid, uuid, sizeof(uuid));
	spin_lock_init(&r->lock);
	return r;
}

/* The rest of ctr. */
static int inspect(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	struct remap *r = t->r;
	int ret = load_inspect(r, &t->error);

	if (ret)
		return ret;
	r->mblock = kvcalloc(r->nr_mblocks, sizeof(*r->mblock), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, r->mblock);
	KUNIT_ASSERT_EQ(test, slots_create(r), 0);
	return 0;
}

static int load(struct kunit *test)
{
	struct remap *r = metadata_test(test)->r;
	int ret = load_set(r);

	if (!ret)
		r->mode = r->read_only ? DMR_MODE_RO : DMR_MODE_RW;
	fake_traced();
	return ret;
}

/* A target is constructed anew and loads what is there. */
static int start(struct kunit *test)
{
	int ret;

	create(test);
	ret = inspect(test);
	KUNIT_EXPECT_EQ_MSG(test, ret, 0, "%s", metadata_test(test)->error);
	return ret ?: load(test);
}

static void expect_refused(struct kunit *test, int error, const char *why)
{
	KUNIT_EXPECT_EQ(test, inspect(test), error);
	KUNIT_EXPECT_STREQ(test, metadata_test(test)->error, why);
}

static int metadata_init(struct kunit *test)
{
	struct metadata_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, t);
	fake_reset();
	test->priv = t;
	t->main = fake_disk_create(test, 'M', UNITS, 1);
	t->spare = fake_disk_create(test, 'S', DISK * DMR_BLOCK_SECTORS,
				    DMR_BLOCK_SECTORS);
	t->on_main.bdev = &t->main->bdev;
	t->on_spare.bdev = &t->spare->bdev;
	t->ti.len = UNITS;
	put_set(test);
	return kunit_add_action_or_reset(test, destroy_action, t);
}

/* A target beside it, constructed: on other disks, of another device. */
static struct remap *create_other(struct kunit *test)
{
	struct {
		struct remap		r;
		struct dm_target	ti;
		struct dm_dev		on_main, on_spare;
	} *other = kunit_kzalloc(test, sizeof(*other), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, other);
	other->on_main.bdev = &fake_disk_create(test, 'm', UNITS, 1)->bdev;
	other->on_spare.bdev = &fake_disk_create(test, 's', UNITS, 1)->bdev;
	other->ti.len = UNITS;
	other->ti.table = (struct dm_table *)other;
	other->r.ti = &other->ti;
	other->r.main = &other->on_main;
	other->r.spare = &other->on_spare;
	other->r.spare_len = AREA * DMR_BLOCK_SECTORS;
	memcpy(&other->r.uuid, uuid, sizeof(uuid));
	return &other->r;
}

/*----------------------------------------------------------------
 * The format's own checks
 *----------------------------------------------------------------
 */

/* Values from another implementation: what is on disks must not change. */
static void known_checksums(struct kunit *test)
{
	u8 *block = kunit_kzalloc(test, DMR_BLOCK_SIZE, GFP_KERNEL);
	struct dmr_header *h = (struct dmr_header *)block;
	u8 id[16];
	int i;

	KUNIT_ASSERT_NOT_NULL(test, block);
	KUNIT_EXPECT_EQ(test, ~dmr_crc32c_raw(~0u, "123456789", 9), 0xe3069283);
	for (i = 0; i < 16; i++)
		id[i] = i;
	dmr_seal(block, DMR_TYPE_TABLE, id, 1, 256, 256);
	KUNIT_EXPECT_EQ(test, dmr_get32(h->crc), 0x4a6abc41);
	dmr_seal(block, DMR_TYPE_TABLE, id, 1, 256, 130);
	KUNIT_EXPECT_EQ(test, dmr_get32(h->crc), 0x8e38302d);
	memset(id, 0, sizeof(id));
	id[15] = 1;
	for (i = 0; i < DMR_BLOCK_SIZE - 64; i++)
		block[64 + i] = i;
	dmr_seal(block, DMR_TYPE_SUPER, id, 0x123456789abull, 0, 0);
	KUNIT_EXPECT_EQ(test, dmr_get32(h->crc), 0xd015d560);
	KUNIT_EXPECT_EQ(test, memcmp(block, "dm-remap\x60\xd5\x15\xd0\1\0\2\0",
				     16), 0);
}

/* Every bit of a block counts, and so do its place and what it should be. */
static void headers(struct kunit *test)
{
	u8 *block = block_at(test, 256);
	struct dmr_header *h = (struct dmr_header *)block;
	unsigned int i;

	KUNIT_EXPECT_TRUE(test, dmr_header_ok(block, DMR_TYPE_TABLE, 256));
	for (i = 0; i < DMR_BLOCK_SIZE; i++) {
		bool ok;

		block[i] ^= 1 << i % 8;
		ok = dmr_header_ok(block, DMR_TYPE_TABLE, 256);
		KUNIT_EXPECT_FALSE_MSG(test, ok, "byte %u", i);
		block[i] ^= 1 << i % 8;
	}
	KUNIT_EXPECT_FALSE(test, dmr_header_ok(block, DMR_TYPE_SUPER, 256));
	KUNIT_EXPECT_FALSE(test, dmr_header_ok(block, DMR_TYPE_TABLE, 257));
	KUNIT_EXPECT_FALSE(test, dmr_header_ok(block, DMR_TYPE_TABLE,
					       256 + (1ull << 32)));

	/* With the right checksum, but not to be believed. */
	seal_table(test, 256, 0, 256);
	KUNIT_EXPECT_FALSE(test, dmr_header_ok(block, DMR_TYPE_TABLE, 256));
	seal_table(test, 256, DMR_SEQ_MAX, 256);
	KUNIT_EXPECT_TRUE(test, dmr_header_ok(block, DMR_TYPE_TABLE, 256));
	seal_table(test, 256, DMR_SEQ_MAX + 1, 256);
	KUNIT_EXPECT_FALSE(test, dmr_header_ok(block, DMR_TYPE_TABLE, 256));
	seal_table(test, 256, 1, 256);
	h->magic[7] = 'P';
	h->crc = dmr_put32(dmr_block_crc(block, 256));
	KUNIT_EXPECT_FALSE(test, dmr_header_ok(block, DMR_TYPE_TABLE, 256));
}

/* A field of a superblock with a hostile value. */
struct hostile {
	size_t offset, size;
	u64 value;
	const char *why;	/* NULL: nothing is wrong with it */
};

#define AT(field)	offsetof(struct dmr_super, field)

static void hostile_superblocks(struct kunit *test)
{
	static const struct hostile rows[] = {
		{ AT(created), 8, U64_MAX, NULL },
		{ AT(compat), 8, U64_MAX, NULL },
		{ AT(h.version), 2, 3, "metadata is of another version" },
		{ AT(h.version), 2, 1,
		  "metadata is of version 1: save the data with the dm-remap that made it" },
		{ AT(epoch.number), 8, 0, "superblock: impossible epoch" },
		{ AT(epoch.number), 8, DMR_EPOCH_MAX + 1,
		  "superblock: impossible epoch" },
		{ AT(epoch.id), 8, 0, "superblock: impossible epoch" },
		{ AT(epoch.id), 8, U64_MAX, NULL },
		{ AT(epoch.number), 8, EPOCH + 1,
		  "superblock: the epoch before does not fit the present one" },
		{ AT(before.number), 8, EPOCH,
		  "superblock: the epoch before does not fit the present one" },
		{ AT(before.id), 8, 0,
		  "superblock: the epoch before does not fit the present one" },
		{ AT(predecessor_epoch.number), 8, 1,
		  "superblock: impossible epoch of the predecessor" },
		{ AT(predecessor_epoch.id), 8, 1,
		  "superblock: impossible epoch of the predecessor" },
		{ AT(predecessor), 8, 1, NULL },
		{ AT(content_tag), 8, 1, NULL },
		{ AT(spare_serial), 8, 0,
		  "superblock: the spare has serial number 0" },
		{ AT(spare_serial), 8, U64_MAX, NULL },
		{ AT(chosen_errors), 1, DMR_CHOSE_MEDIUM, NULL },
		{ AT(chosen_errors), 1, 3,
		  "superblock: unknown choice for errors" },
		{ AT(remap_rate), 4, U32_MAX, NULL },
		{ AT(standin[0]), 8, DMR_HEAD_BLOCKS, NULL },
		{ AT(standin[1]), 8, DMR_HEAD_BLOCKS + SEGMENT - 1, NULL },
		{ AT(standin[1]), 8, DMR_HEAD_BLOCKS + SEGMENT, NULL },
		{ AT(standin[1]), 8, DMR_HEAD_BLOCKS + 2,
		  "superblock: a stand-in is named for what is no table block" },
		{ AT(standin[1]), 8, DMR_HEAD_BLOCKS + 2 * SEGMENT,
		  "superblock: a stand-in is named for what is no table block" },
		{ AT(standin[0]), 8, DMR_SB1_BLOCK,
		  "superblock: a stand-in is named for what is no table block" },
		{ AT(standin[0]), 8, U64_MAX,
		  "superblock: a stand-in is named for what is no table block" },
		{ AT(standin[8]), 8, DMR_HEAD_BLOCKS,
		  "superblock: a stand-in is named for what is no table block" },
		{ AT(incompat), 8, 1ull << 63,
		  "metadata needs a newer dm-remap (incompat)" },
		{ AT(state), 4, 0, "superblock: unknown state" },
		{ AT(state), 4, 3, "superblock: unknown state" },
		{ AT(unit), 4, 0,
		  "superblock: unit is not 512, 1024, 2048 or 4096" },
		{ AT(unit), 4, 256,
		  "superblock: unit is not 512, 1024, 2048 or 4096" },
		{ AT(unit), 4, 1536,
		  "superblock: unit is not 512, 1024, 2048 or 4096" },
		{ AT(unit), 4, 8192,
		  "superblock: unit is not 512, 1024, 2048 or 4096" },
		{ AT(nr_segments), 4, 0,
		  "superblock: number of segments is not 1..32" },
		{ AT(nr_segments), 4, 33,
		  "superblock: number of segments is not 1..32" },
		{ AT(nr_segments), 4, U32_MAX,
		  "superblock: number of segments is not 1..32" },
		{ AT(nr_segments), 4, 3,
		  "superblock: segments do not follow each other" },
		{ AT(area_blocks), 8, DMR_MIN_AREA_BLOCKS - 1,
		  "superblock: impossible size of the area" },
		{ AT(area_blocks), 8, (1ull << 51) + 1,
		  "superblock: impossible size of the area" },
		{ AT(area_blocks), 8, AREA - 1,
		  "superblock: segments do not follow each other" },
		{ AT(main_sectors), 8, 0,
		  "superblock: impossible size of main" },
		{ AT(main_sectors), 8, (1ull << 54) + 1,
		  "superblock: impossible size of main" },
		{ AT(data_start), 8, UNITS + 1,
		  "superblock: data lies outside of main" },
		{ AT(data_start), 8, 1,
		  "superblock: data lies outside of main" },
		{ AT(data_start), 8, U64_MAX,
		  "superblock: data lies outside of main" },
		{ AT(data_sectors), 8, U64_MAX,
		  "superblock: data lies outside of main" },
		{ AT(main_id_len), 1, 16, NULL },
		{ AT(main_id_len), 1, 17, "superblock: main's id is too long" },
		{ AT(name[DMR_NAME_SIZE - 1]), 1, 'x',
		  "superblock: a text is not terminated" },
		{ AT(main_serial[DMR_SERIAL_SIZE - 1]), 1, 'x',
		  "superblock: a text is not terminated" },
		{ AT(main_flags), 4, DMR_MAIN_TAGGED,
		  "superblock: data overlaps main's tag" },
		{ AT(segment[0].start), 8, DMR_HEAD_BLOCKS - 1,
		  "superblock: segments do not follow each other" },
		{ AT(segment[1].start), 8, DMR_HEAD_BLOCKS + SEGMENT + 1,
		  "superblock: segments do not follow each other" },
		{ AT(segment[0].blocks), 8, U64_MAX,
		  "superblock: segments do not follow each other" },
		{ AT(segment[0].blocks), 8, 0,
		  "superblock: impossible segment" },
		{ AT(segment[1].blocks), 8, SEGMENT - 1,
		  "superblock: impossible segment" },
		{ AT(segment[1].slots), 4, SEGMENT_SLOTS - 1, NULL },
		{ AT(segment[1].slots), 4, SEGMENT_SLOTS + 1,
		  "superblock: impossible segment" },
		{ AT(segment[1].slots), 4, 0,
		  "superblock: impossible segment" },
		{ AT(segment[1].slots), 4, U32_MAX,
		  "superblock: impossible segment" },
		{ AT(segment[1].slots), 4, DMR_ENTRIES,
		  "superblock: impossible segment" },
		{ AT(segment[1].table_blocks), 4, 1,
		  "superblock: impossible segment" },
		{ AT(segment[1].table_blocks), 4, U32_MAX,
		  "superblock: impossible segment" },
	};
	struct dmr_super *sb = super_at(test, 0);
	unsigned int i;

	KUNIT_EXPECT_PTR_EQ(test, dmr_super_check(sb), NULL);
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct hostile *row = &rows[i];
		__le64 value = dmr_put64(row->value);
		const char *why;

		put_super(sb);
		memcpy((char *)sb + row->offset, &value, row->size);
		why = dmr_super_check(sb);
		KUNIT_EXPECT_STREQ_MSG(test, why ?: "nothing",
				       row->why ?: "nothing", "row %u", i);
	}
}

/* Segments that are each possible have too many slots together. */
static void too_many_slots(struct kunit *test)
{
	struct dmr_super *sb = super_at(test, 0);
	const u64 blocks = 3 * (u64)DMR_MAX_SLOTS;

	put_super(sb);
	sb->nr_segments = dmr_put32(2);
	sb->area_blocks = dmr_put64(DMR_HEAD_BLOCKS + 2 * blocks);
	set_segment(&sb->segment[0], DMR_HEAD_BLOCKS, DMR_HEAD_BLOCKS + blocks,
		    DMR_MAX_SLOTS - 5);
	set_segment(&sb->segment[1], DMR_HEAD_BLOCKS + blocks,
		    DMR_HEAD_BLOCKS + 2 * blocks, 5);
	KUNIT_EXPECT_PTR_EQ(test, dmr_super_check(sb), NULL);
	sb->segment[1].slots = dmr_put32(6);
	KUNIT_EXPECT_STREQ(test, dmr_super_check(sb),
			   "superblock: more than 16777216 slots");
}

/* The most slots that fit, counted one by one. */
static void slots_of_segments(struct kunit *test)
{
	unsigned int unit;
	u32 blocks, n;

	for (unit = DMR_UNIT_MIN; unit <= DMR_UNIT_MAX; unit *= 2) {
		u32 per_block = DMR_BLOCK_SIZE / unit;

		for (blocks = 0, n = 0; blocks < 1000; blocks++) {
			while (2 * DIV_ROUND_UP(n + 1, DMR_ENTRIES) +
			       DIV_ROUND_UP(n + 1, per_block) <= blocks)
				n++;
			KUNIT_EXPECT_EQ(test, dmr_segment_slots(blocks, unit),
					n);
		}
		n = dmr_segment_slots(2 * DMR_MAX_SLOTS, unit);
		KUNIT_EXPECT_EQ(test, n, DMR_MAX_SLOTS);
		n = dmr_segment_slots(U64_MAX, unit);
		KUNIT_EXPECT_EQ(test, n, DMR_MAX_SLOTS);
	}
}

static void hostile_tables(struct kunit *test)
{
	static const struct {
		unsigned int index;
		u64 unit;
		u32 state_gen, zero;
		const char *why;
	} rows[] = {
		{ 0, UNITS - 1, DMR_MAPPED, 0, NULL },
		{ 35, 0, DMR_LOST | DMR_GEN_MAX << 8, 0, NULL },
		{ 35, 0, DMR_BAD, 0, NULL },
		{ 0, 0, DMR_FREE, 1, "table block: reserved bytes are not zero" },
		{ 251, 0, DMR_FREE, 1,
		  "table block: reserved bytes are not zero" },
		{ 36, 1, DMR_MAPPED, 0,
		  "table block: entry behind the last slot" },
		{ 36, 0, DMR_BAD, 0, "table block: entry behind the last slot" },
		{ 251, 1, DMR_FREE, 0,
		  "table block: entry behind the last slot" },
		{ 0, 1, DMR_FREE, 0,
		  "table block: a free or bad slot with a unit" },
		{ 0, 0, DMR_FREE | 1 << 8, 0,
		  "table block: a free or bad slot with a unit" },
		{ 0, 1, DMR_BAD, 0,
		  "table block: a free or bad slot with a unit" },
		{ 0, 0, DMR_BAD | 1 << 8, 0,
		  "table block: a free or bad slot with a unit" },
		{ 0, UNITS, DMR_MAPPED, 0,
		  "table block: unit lies outside of main" },
		{ 0, U64_MAX, DMR_LOST, 0,
		  "table block: unit lies outside of main" },
		{ 0, 1, 4, 0, "table block: unknown slot state" },
		{ 0, 1, DMR_SEALING, 0, "table block: unknown slot state" },
		{ 0, 1, 255, 0, "table block: unknown slot state" },
	};
	struct dmr_table *t = table_at(test, 257);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		struct dmr_entry *e = &t->entry[rows[i].index];
		const char *why;

		e->unit = dmr_put64(rows[i].unit);
		e->state_gen = dmr_put32(rows[i].state_gen);
		e->zero = dmr_put32(rows[i].zero);
		why = dmr_table_check(t, 36, UNITS);
		KUNIT_EXPECT_STREQ_MSG(test, why ?: "nothing",
				       rows[i].why ?: "nothing", "row %u", i);
		memset(e, 0, sizeof(*e));
	}
	KUNIT_EXPECT_PTR_EQ(test, dmr_table_check(t, 36, UNITS), NULL);
	t->h.version = dmr_put16(1);
	KUNIT_EXPECT_STREQ(test, dmr_table_check(t, 36, UNITS),
			   "table block is of another version");
}

/* From a home to its block and back, and no others. */
static void homes_of_blocks(struct kunit *test)
{
	struct remap *r = create(test);
	u32 mb, want_mb = 0;
	u64 block;
	int copy, i;

	KUNIT_ASSERT_EQ(test, inspect(test), 0);
	KUNIT_EXPECT_EQ(test, r->nr_mblocks, MBLOCKS);
	KUNIT_EXPECT_EQ(test, r->nr_slots, 2 * SEGMENT_SLOTS);
	for (block = 0; block < 1000; block++) {
		int want = -1;

		for (i = 2; i < 2 * MBLOCKS; i++) {
			if (homes[i / 2][i % 2] != block)
				continue;
			want = i % 2;
			want_mb = i / 2;
		}
		KUNIT_EXPECT_EQ(test, area_home_of(r, block, &mb, &copy),
				want >= 0);
		if (want < 0)
			continue;
		KUNIT_EXPECT_EQ(test, mb, want_mb);
		KUNIT_EXPECT_EQ(test, copy, want);
		KUNIT_EXPECT_EQ(test, area_home(r, mb, copy), block);
	}
	block = 256 + (1ull << 32);
	KUNIT_EXPECT_FALSE(test, area_home_of(r, block, &mb, &copy));
	block = 256 + (1ull << 63);
	KUNIT_EXPECT_FALSE(test, area_home_of(r, block, &mb, &copy));
	KUNIT_EXPECT_FALSE(test, area_home_of(r, U64_MAX, &mb, &copy));
	KUNIT_EXPECT_EQ(test, area_home(r, 0, 0), 0);
	KUNIT_EXPECT_EQ(test, area_home(r, 0, 1), 255);
	/* Slots stand between the two copies of their segment. */
	KUNIT_EXPECT_EQ(test, slots_sector(r, 0), 258 * 8);
	KUNIT_EXPECT_EQ(test, slots_sector(r, SEGMENT_SLOTS - 1), 294 * 8 - 1);
	KUNIT_EXPECT_EQ(test, slots_sector(r, SEGMENT_SLOTS), 298 * 8);
	KUNIT_EXPECT_EQ(test, area_mblock(r, DMR_ENTRIES - 1), 1);
	KUNIT_EXPECT_EQ(test, area_mblock(r, DMR_ENTRIES), 2);
	KUNIT_EXPECT_EQ(test, area_mblock(r, SEGMENT_SLOTS - 1), 2);
	KUNIT_EXPECT_EQ(test, area_mblock(r, SEGMENT_SLOTS), 3);
}

/*----------------------------------------------------------------
 * Superblocks
 *----------------------------------------------------------------
 */

/* One of them is enough; the load writes the other one again. */
static void one_superblock(struct kunit *test)
{
	memset(block_at(test, 0), 0, DMR_BLOCK_SIZE);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ + 2 + RAISE);
	KUNIT_EXPECT_EQ(test, seq_at(test, 255), SUPER_SEQ + 2 + RAISE);
	unreadable(test, 255);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, seq_at(test, 255), SUPER_SEQ + 4 + 2 * RAISE);
}

/* The newer one counts, and the other one is written first. */
static void newer_superblock(struct kunit *test)
{
	static const char * const order[] = {
		" SW255+1 SW0+1 SW0+1 SW255+1 Sf",
		" SW0+1 SW255+1 SW0+1 SW255+1 Sf",
	};
	struct remap *r;
	int copy;

	for (copy = 0; copy < 2; copy++) {
		u64 home = homes[0][copy], other = homes[0][!copy];

		put_set(test);
		strscpy(super_at(test, home)->name, "newer", DMR_NAME_SIZE);
		seal_super(test, home, SUPER_SEQ + 1);
		r = create(test);
		KUNIT_ASSERT_EQ(test, inspect(test), 0);
		fake_traced();
		KUNIT_EXPECT_EQ(test, load_set(r), 0);
		KUNIT_EXPECT_NOT_NULL(test, strstr(fake_traced(), order[copy]));
		KUNIT_EXPECT_STREQ(test, r->super->name, "newer");
		KUNIT_EXPECT_STREQ(test, super_at(test, other)->name, "newer");
		KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ + 3 + RAISE);
	}
}

static void contradicting_superblocks(struct kunit *test)
{
	strscpy(super_at(test, 255)->name, "other", DMR_NAME_SIZE);
	seal_super(test, 255, SUPER_SEQ);
	create(test);
	expect_refused(test, -EINVAL,
		       "the two superblocks contradict each other: run dmremapctl check");
	/* A third one that is newer settles it. */
	memcpy(block_at(test, 200), block_at(test, 0), DMR_BLOCK_SIZE);
	dmr_seal(block_at(test, 200), DMR_TYPE_SUPER, uuid, SUPER_SEQ + 1, 0,
		 200);
	KUNIT_EXPECT_EQ(test, start(test), 0);
}

/* Neither is there: no set, and never blank. */
static void no_superblock(struct kunit *test)
{
	struct remap *r;

	unreadable(test, 0);
	unreadable(test, 255);
	create(test);
	expect_refused(test, -ENODATA,
		       "no superblock of the set can be read: run dmremapctl check");
	memset(block_at(test, 256), 0, (DISK - 256) * DMR_BLOCK_SIZE);
	r = create(test);
	r->has_uuid = false;
	expect_refused(test, -EBUSY,
		       "spare area is neither blank (all zeros) nor a set");
}

/* A superblock counts where it belongs and in its own stand-ins only. */
static void superblock_in_a_wrong_place(struct kunit *test)
{
	memcpy(block_at(test, 255), block_at(test, 0), DMR_BLOCK_SIZE);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, seq_at(test, 255), SUPER_SEQ + 2 + RAISE);

	put_set(test);
	dmr_seal(block_at(test, 255), DMR_TYPE_SUPER, uuid, 99, 0, 255);
	put_super(super_at(test, 1));
	seal_super(test, 1, 99);
	put_super(super_at(test, 127));
	dmr_seal(block_at(test, 127), DMR_TYPE_SUPER, uuid, 99, 0, 127);
	put_super(super_at(test, 130));
	dmr_seal(block_at(test, 130), DMR_TYPE_SUPER, uuid, 99, 0, 130);
	put_super(super_at(test, 136));
	dmr_seal(block_at(test, 136), DMR_TYPE_SUPER, uuid, 99, 256, 136);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ + 2 + RAISE);
	KUNIT_EXPECT_EQ(test, seq_at(test, 255), SUPER_SEQ + 2 + RAISE);
}

/* A stand-in is where the copy lives, also if its home says the same. */
static void superblock_in_a_stand_in(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);

	strscpy(super_at(test, 255)->name, "newer", DMR_NAME_SIZE);
	seal_super(test, 255, SUPER_SEQ + 1);
	memcpy(block_at(test, 248), block_at(test, 255), DMR_BLOCK_SIZE);
	dmr_seal(block_at(test, 248), DMR_TYPE_SUPER, uuid, SUPER_SEQ + 1, 0,
		 248);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, t->r->mblock[0].standin[0], 248);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->r->nr_away), 1);
	KUNIT_EXPECT_EQ(test, seq_at(test, 248), SUPER_SEQ + 1 + RAISE);
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ);
}

static void another_uuid(struct kunit *test)
{
	struct remap *r = create(test);

	memcpy(&r->uuid, other_uuid, sizeof(other_uuid));
	expect_refused(test, -ENODATA,
		       "no set with this uuid on the spare: check the device names");
	/* Without a uuid any set is right, but not two of them. */
	r = create(test);
	r->has_uuid = false;
	memset(&r->uuid, 0, sizeof(r->uuid));
	KUNIT_EXPECT_EQ(test, inspect(test), 0);
	KUNIT_EXPECT_EQ(test, memcmp(&r->uuid, uuid, sizeof(uuid)), 0);
	dmr_seal(block_at(test, 255), DMR_TYPE_SUPER, other_uuid, 1, 255, 255);
	r = create(test);
	r->has_uuid = false;
	expect_refused(test, -EINVAL,
		       "superblocks of two sets on the spare: run dmremapctl list");
	create(test);
	expect_refused(test, -EINVAL,
		       "superblocks of two sets on the spare: run dmremapctl list");
	/* What an older set has left in a stand-in is no harm. */
	put_set(test);
	put_super(super_at(test, 200));
	dmr_seal(block_at(test, 200), DMR_TYPE_SUPER, other_uuid, 99, 0, 200);
	KUNIT_EXPECT_EQ(test, start(test), 0);
}

/* FORMATTING counts only where no READY superblock is. */
static void formatting_counts_less(struct kunit *test)
{
	super_at(test, 0)->state = dmr_put32(DMR_FORMATTING);
	seal_super(test, 0, 99);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, dmr_get32(super_at(test, 0)->state), DMR_READY);
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ + 2 + RAISE);
	super_at(test, 255)->state = dmr_put32(DMR_FORMATTING);
	seal_super(test, 255, 99);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, seq_at(test, 255), SUPER_SEQ + 4 + 2 * RAISE);
}

/* What the table line says and the set does not. */
static void another_table_line(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	struct remap *r = create(test);

	r->unit = 1024;
	r->unit_shift = 1;
	expect_refused(test, -EINVAL,
		       "the set's unit is not main's logical block size");
	r = create(test);
	r->spare_len -= DMR_BLOCK_SECTORS;
	expect_refused(test, -EINVAL,
		       "spare_len is less than the set has recorded");
	r = create(test);
	r->spare_len += DMR_BLOCK_SECTORS;
	r->read_only = true;
	expect_refused(test, -EINVAL,
		       "spare_len is more than the set has recorded, and the table is read-only");
	r = create(test);
	r->main_start = 8;
	expect_refused(test, -EINVAL,
		       "main_start is not the one that the set has recorded");
	create(test);
	t->ti.len++;
	expect_refused(test, -EINVAL,
		       "the length is more than the set has recorded");
	t->ti.len = 1;
	create(test);
	KUNIT_EXPECT_EQ(test, inspect(test), 0);
}

static void feature_words(struct kunit *test)
{
	struct remap *r;
	int copy;

	for (copy = 0; copy < 2; copy++) {
		super_at(test, homes[0][copy])->compat = dmr_put64(1);
		super_at(test, homes[0][copy])->ro_compat = dmr_put64(1);
		seal_super(test, homes[0][copy], SUPER_SEQ);
	}
	create(test);
	expect_refused(test, -EINVAL,
		       "metadata needs a newer dm-remap to be written (ro_compat)");
	r = create(test);
	r->read_only = true;
	KUNIT_EXPECT_EQ(test, inspect(test), 0);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	super_at(test, 0)->incompat = dmr_put64(2);
	seal_super(test, 0, SUPER_SEQ + 1);
	r = create(test);
	r->read_only = true;
	expect_refused(test, -EINVAL,
		       "metadata needs a newer dm-remap (incompat)");
}

/*----------------------------------------------------------------
 * Main
 *----------------------------------------------------------------
 */

#define MIB		(DMR_TAG_SECTORS * SECTOR_SIZE)
#define NO_TAG		"main carries no tag: see dmremapctl repair --retag MAIN SPARE"
#define NO_ID		"main's tag is lost and no id tells: dmremapctl repair --retag MAIN SPARE"
#define NOT_BLANK	"main's tag is lost beside other data: dmremapctl repair --retag MAIN SPARE"
#define TAG_IN_DATA	"main carries another's tag: dmremapctl repair --tag-is-content MAIN SPARE"

static void put_tag(struct kunit *test, const u8 *id, u64 place)
{
	struct dmr_tag *tag = (void *)metadata_test(test)->main->data +
			      place * DMR_BLOCK_SIZE;

	memset(tag, 0, sizeof(*tag));
	tag->main_sectors = dmr_put64(UNITS);
	tag->data_start = dmr_put64(DMR_TAG_SECTORS);
	tag->unit = dmr_put32(SECTOR_SIZE);
	tag->epoch.number = dmr_put64(EPOCH);
	tag->epoch.id = dmr_put64(EPOCH_ID);
	dmr_seal(tag, DMR_TYPE_TAG, id, EPOCH, place, place);
}

static struct dmr_tag *tag_at(struct kunit *test, int copy)
{
	return (void *)metadata_test(test)->main->data +
	       dmr_tag_block(copy) * DMR_BLOCK_SIZE;
}

static void put_tag_of(struct kunit *test, int copy, const u8 *id, u64 number,
		       u64 epoch_id)
{
	u64 place = dmr_tag_block(copy);

	put_tag(test, id, place);
	tag_at(test, copy)->epoch.number = dmr_put64(number);
	tag_at(test, copy)->epoch.id = dmr_put64(epoch_id);
	dmr_seal(tag_at(test, copy), DMR_TYPE_TAG, id, number, place, place);
}

/* All five, of an epoch. */
static void put_tags(struct kunit *test, u64 number, u64 id)
{
	int copy;

	for (copy = 0; copy < DMR_NR_TAGS; copy++)
		put_tag_of(test, copy, uuid, number, id);
}

static void put_tagged_super(struct kunit *test)
{
	int copy;

	for (copy = 0; copy < 2; copy++) {
		struct dmr_super *sb = super_at(test, homes[0][copy]);

		sb->main_flags = dmr_put32(DMR_MAIN_TAGGED);
		sb->data_start = dmr_put64(DMR_TAG_SECTORS);
		sb->data_sectors = dmr_put64(UNITS - DMR_TAG_SECTORS);
		seal_super(test, homes[0][copy], SUPER_SEQ);
	}
}

static struct remap *create_tagged(struct kunit *test)
{
	struct remap *r = create(test);

	r->main_start = DMR_TAG_SECTORS;
	metadata_test(test)->ti.len = UNITS - DMR_TAG_SECTORS;
	return r;
}

static void tags(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	struct remap *r;
	int copy;

	put_tagged_super(test);
	create_tagged(test);
	expect_refused(test, -EINVAL,
		       NO_TAG);
	/* Each copy is enough. */
	for (copy = 0; copy < DMR_NR_TAGS; copy++) {
		put_tag(test, uuid, dmr_tag_block(copy));
		r = create_tagged(test);
		KUNIT_EXPECT_EQ(test, inspect(test), 0);
		KUNIT_EXPECT_TRUE(test, r->tagged);
		KUNIT_EXPECT_EQ(test, r->nr_tags, 1);
		KUNIT_EXPECT_EQ(test, r->identity, DMR_BY_TAG);
		memset(tag_at(test, copy), 0, DMR_BLOCK_SIZE);
	}
	/* Copied to another place it is no tag. */
	put_tag(test, uuid, 255);
	memmove(tag_at(test, 0), tag_at(test, 4), DMR_BLOCK_SIZE);
	memset(tag_at(test, 4), 0, DMR_BLOCK_SIZE);
	create_tagged(test);
	expect_refused(test, -EINVAL,
		       NO_TAG);
	put_tag(test, other_uuid, 1);
	create_tagged(test);
	expect_refused(test, -EINVAL, "main carries the tag of another set");
	put_tag(test, uuid, 1);
	tag_at(test, 0)->unit = dmr_put32(1024);
	dmr_seal(tag_at(test, 0), DMR_TYPE_TAG, uuid, EPOCH, 1, 1);
	create_tagged(test);
	expect_refused(test, -EINVAL, "main's tag contradicts the superblock");
	tag_at(test, 0)->unit = dmr_put32(0);
	dmr_seal(tag_at(test, 0), DMR_TYPE_TAG, uuid, EPOCH, 1, 1);
	create_tagged(test);
	expect_refused(test, -EINVAL,
		       "main's tag describes an impossible main");
	put_tag(test, uuid, 1);
	dmr_seal(tag_at(test, 0), DMR_TYPE_TAG, uuid, EPOCH + 1, 1, 1);
	create_tagged(test);
	expect_refused(test, -EINVAL, "main's tag has an impossible epoch");
	put_tag(test, uuid, 1);
	t->main->bdev.bd_nr_sectors--;
	create_tagged(test);
	expect_refused(test, -EINVAL,
		       "main is smaller than the set has recorded");
	/* A larger disk that carries the tag is a copy of it. */
	t->main->bdev.bd_nr_sectors += 2;
	create_tagged(test);
	KUNIT_EXPECT_EQ(test, inspect(test), 0);
}

/* The tag's epoch beside the superblock's: who is older, and who has parted. */
static void histories(struct kunit *test)
{
	static const struct {
		u64 number, id;
		const char *why;	/* NULL: it is the set as it was left */
	} rows[] = {
		{ EPOCH, EPOCH_ID, NULL },
		{ EPOCH - 1, EPOCH_ID - 1, NULL },
		{ EPOCH - 2, 77, NULL },
		{ 1, 77, NULL },
		{ EPOCH + 1, 77,
		  "the spare is an older copy of itself: run dmremapctl check" },
		{ DMR_EPOCH_MAX, 77,
		  "the spare is an older copy of itself: run dmremapctl check" },
		{ EPOCH, EPOCH_ID + 1,
		  "main was used with another copy of the spare: run dmremapctl check" },
		{ EPOCH - 1, EPOCH_ID,
		  "main was used with another copy of the spare: run dmremapctl check" },
	};
	unsigned int i;
	int copy;

	put_tagged_super(test);
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		put_tags(test, rows[i].number, rows[i].id);
		create_tagged(test);
		if (rows[i].why)
			expect_refused(test, -EINVAL, rows[i].why);
		else
			KUNIT_EXPECT_EQ_MSG(test, inspect(test), 0, "row %u", i);
	}
	/* Of several copies the highest counts, wherever it is. */
	for (copy = 0; copy < DMR_NR_TAGS; copy++) {
		put_tags(test, EPOCH, EPOCH_ID);
		put_tag_of(test, copy, uuid, EPOCH + 1, EPOCH_ID);
		create_tagged(test);
		expect_refused(test, -EINVAL,
			       "the spare is an older copy of itself: run dmremapctl check");
		put_tags(test, EPOCH, EPOCH_ID);
		put_tag_of(test, copy, uuid, EPOCH, EPOCH_ID + 1);
		create_tagged(test);
		expect_refused(test, -EINVAL,
			       "the copies of main's tag contradict each other");
		put_tag_of(test, copy, other_uuid, EPOCH, EPOCH_ID);
		create_tagged(test);
		expect_refused(test, -EINVAL,
			       "the copies of main's tag contradict each other");
	}
	/* Lower ones may say what they like. */
	for (copy = 0; copy < DMR_NR_TAGS; copy++) {
		put_tags(test, EPOCH - 1, 77);
		put_tag_of(test, !copy, uuid, EPOCH - 1, 78);
		put_tag_of(test, copy, uuid, EPOCH, EPOCH_ID);
		create_tagged(test);
		KUNIT_EXPECT_EQ_MSG(test, inspect(test), 0, "copy %d", copy);
	}
}

/*----------------------------------------------------------------
 * Epochs
 *----------------------------------------------------------------
 */

static void expect_epoch(struct kunit *test, u64 number, unsigned int tags)
{
	const struct dmr_super *a = super_at(test, 0), *b = super_at(test, 255);
	unsigned int copy, good = 0;

	KUNIT_EXPECT_EQ(test, dmr_get64(a->epoch.number), number);
	KUNIT_EXPECT_EQ(test, dmr_get64(a->before.number), number - 1);
	KUNIT_EXPECT_TRUE(test, dmr_same_body(a, b));
	for (copy = 0; copy < DMR_NR_TAGS; copy++) {
		const struct dmr_tag *tag = tag_at(test, copy);

		KUNIT_EXPECT_LE(test, dmr_get64(tag->epoch.number), number);
		if (!dmr_same_epoch(&tag->epoch, &a->epoch))
			continue;
		KUNIT_EXPECT_TRUE(test, dmr_header_ok(tag, DMR_TYPE_TAG,
						      dmr_tag_block(copy)));
		KUNIT_EXPECT_PTR_EQ(test, dmr_tag_check(tag), NULL);
		good++;
	}
	KUNIT_EXPECT_EQ(test, good, tags);
	KUNIT_EXPECT_EQ(test, metadata_test(test)->r->nr_tags, tags);
}

static struct remap *inspect_tagged(struct kunit *test)
{
	struct remap *r = create_tagged(test);

	KUNIT_EXPECT_EQ_MSG(test, inspect(test), 0, "%s",
			    metadata_test(test)->error);
	return r;
}

/* Two superblocks and then the tag: no more where nothing is to be mended. */
static void epoch_of_a_load(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	struct remap *r;
	u64 first;

	put_tagged_super(test);
	put_tags(test, EPOCH, EPOCH_ID);
	r = inspect_tagged(test);
	fake_traced();
	KUNIT_EXPECT_EQ(test, load_set(r), 0);
	KUNIT_EXPECT_NOT_NULL(test,
			      strstr(fake_traced(),
				     "SW0+1 SW255+1 Sf MW8+8 MW512+8 MW1024+8 MW1536+8 MW2040+8"));
	expect_epoch(test, EPOCH + 1, DMR_NR_TAGS);
	KUNIT_EXPECT_EQ(test, dmr_get64(super_at(test, 0)->before.id), EPOCH_ID);
	first = dmr_get64(super_at(test, 0)->epoch.id);
	KUNIT_EXPECT_NE(test, first, 0);
	inspect_tagged(test);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	expect_epoch(test, EPOCH + 2, DMR_NR_TAGS);
	KUNIT_EXPECT_EQ(test, dmr_get64(super_at(test, 0)->before.id), first);
	KUNIT_EXPECT_NE(test, dmr_get64(super_at(test, 0)->epoch.id), first);
	/* A read-only table writes nothing. */
	r = create_tagged(test);
	r->read_only = true;
	KUNIT_EXPECT_EQ(test, inspect(test), 0);
	fake_traced();
	KUNIT_EXPECT_EQ(test, load_set(r), 0);
	KUNIT_EXPECT_PTR_EQ(test, strchr(fake_traced(), 'W'), NULL);
	expect_epoch(test, EPOCH + 2, DMR_NR_TAGS);
	/* The copy that has been made before is refused from now on. */
	super_at(test, 0)->epoch.number = dmr_put64(EPOCH);
	super_at(test, 0)->before.number = dmr_put64(EPOCH - 1);
	seal_super(test, 0, 99);
	create_tagged(test);
	expect_refused(test, -EINVAL,
		       "the spare is an older copy of itself: run dmremapctl check");
	KUNIT_EXPECT_PTR_EQ(test, strchr(fake_traced(), 'W'), NULL);
	KUNIT_EXPECT_FALSE(test, t->r->no_raise);
}

/* A main that takes no tag fails no load; it is given up soon. */
static void tag_that_main_refuses(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	struct remap *r;

	put_tagged_super(test);
	put_tags(test, EPOCH, EPOCH_ID);
	fake_disk_bad(t->main, WRITE, 512, 8, BLK_STS_MEDIUM);
	r = inspect_tagged(test);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	expect_epoch(test, EPOCH + 1, DMR_NR_TAGS - 1);
	fake_disk_bad(t->main, WRITE, 8, 8, BLK_STS_MEDIUM);
	r = inspect_tagged(test);
	fake_traced();
	KUNIT_EXPECT_EQ(test, load_set(r), 0);
	/* A place that stayed behind comes last. */
	KUNIT_EXPECT_NOT_NULL(test,
			      strstr(fake_traced(),
				     " MW8+8! MW1024+8 MW1536+8 MW2040+8 MW512+8!"));
	expect_epoch(test, EPOCH + 2, 3);
	/* The only one of the newest epoch is not at risk before there is another. */
	put_tag_of(test, 2, uuid, EPOCH, EPOCH_ID);
	put_tag_of(test, 3, uuid, EPOCH, EPOCH_ID);
	r = inspect_tagged(test);
	fake_traced();
	KUNIT_EXPECT_EQ(test, load_set(r), 0);
	KUNIT_EXPECT_NOT_NULL(test, strstr(fake_traced(), " MW8+8! MW512+8!"));
	KUNIT_EXPECT_EQ(test, r->nr_tags, 0);
	KUNIT_EXPECT_TRUE(test, r->used);
	memcpy(tag_at(test, 3), tag_at(test, 4), DMR_BLOCK_SIZE);
	dmr_seal(tag_at(test, 3), DMR_TYPE_TAG, uuid, EPOCH + 2,
		 dmr_tag_block(3), dmr_tag_block(3));
	r = inspect_tagged(test);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	KUNIT_EXPECT_FALSE(test, r->used);
	fake_disk_bad(t->main, WRITE, 0, UNITS, 0);
	inspect_tagged(test);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	expect_epoch(test, EPOCH + 5, DMR_NR_TAGS);
	/* One that is slow has ten seconds. */
	t->main->ticks = 4 * HZ;
	inspect_tagged(test);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	expect_epoch(test, EPOCH + 6, 3);
}

/* A spare that takes no superblock: mode ro, and the tag is left alone. */
static void epoch_that_cannot_begin(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	struct remap *r;

	put_tagged_super(test);
	put_tags(test, EPOCH, EPOCH_ID);
	unwritable(test, 255, 1);
	unwritable(test, 128, 127);
	r = inspect_tagged(test);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	KUNIT_EXPECT_TRUE(test, r->no_raise);
	KUNIT_EXPECT_EQ(test, dmr_get64(r->super->epoch.number), EPOCH);
	KUNIT_EXPECT_EQ(test, dmr_get64(tag_at(test, 0)->epoch.number), EPOCH);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_MODE], 1);
	/* The next load finds two that differ in the epoch alone. */
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ + 1);
	KUNIT_EXPECT_EQ(test, seq_at(test, 255), SUPER_SEQ);
	r = inspect_tagged(test);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	KUNIT_EXPECT_TRUE(test, r->no_raise);
	KUNIT_EXPECT_EQ(test, dmr_get64(tag_at(test, 0)->epoch.number), EPOCH);
	/* In anything else they must not. */
	strscpy(super_at(test, 0)->name, "north", DMR_NAME_SIZE);
	seal_super(test, 0, SUPER_SEQ + 1);
	inspect_tagged(test);
	KUNIT_EXPECT_EQ(test, load(test), -EIO);
	memset(super_at(test, 0)->name, 0, DMR_NAME_SIZE);
	super_at(test, 0)->remap_rate = dmr_put32(1);
	seal_super(test, 0, SUPER_SEQ + 1);
	inspect_tagged(test);
	KUNIT_EXPECT_EQ(test, load(test), -EIO);
	super_at(test, 0)->remap_rate = 0;
	seal_super(test, 0, SUPER_SEQ + 1);
	unreadable(test, 255);
	inspect_tagged(test);
	KUNIT_EXPECT_EQ(test, load(test), -EIO);
	/* A spare that takes them again is as good as before. */
	fake_disk_bad(t->spare, WRITE, 0, DISK * DMR_BLOCK_SECTORS, 0);
	fake_disk_bad(t->spare, READ, 0, DISK * DMR_BLOCK_SECTORS, 0);
	r = inspect_tagged(test);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	KUNIT_EXPECT_FALSE(test, r->no_raise);
	expect_epoch(test, EPOCH + 2, DMR_NR_TAGS);
}

/* One copy of the superblock says that an epoch has begun, the other does not. */
static void put_half_epoch(struct kunit *test, int copy)
{
	struct dmr_super *sb = super_at(test, homes[0][copy]);

	put_set(test);
	put_tagged_super(test);
	sb->before = sb->epoch;
	sb->epoch.number = dmr_put64(EPOCH + 1);
	sb->epoch.id = dmr_put64(EPOCH_ID + 1);
	seal_super(test, homes[0][copy], SUPER_SEQ + 1);
}

/* Status has the lower one, or the set is refused when the higher one is lost. */
static void expect_shown(struct kunit *test, bool read_only, u64 number)
{
	struct remap *r = inspect_tagged(test);

	r->read_only = read_only;
	KUNIT_EXPECT_EQ(test, load(test), 0);
	KUNIT_EXPECT_EQ(test, r->no_raise, !read_only);
	KUNIT_EXPECT_EQ(test, dmr_get64(r->super->epoch.number), number);
	KUNIT_EXPECT_EQ(test, dmr_get64(r->super->epoch.id),
			number - EPOCH + EPOCH_ID);
	KUNIT_EXPECT_EQ(test, dmr_get64(r->super->before.number), number - 1);
	KUNIT_EXPECT_EQ(test, r->nr_tags, number == EPOCH ? DMR_NR_TAGS : 0);
}

static void epoch_that_half_began(struct kunit *test)
{
	static const struct dmr_epoch impossible[] = {
		{ 0, cpu_to_le64(EPOCH_ID) },
		{ cpu_to_le64(EPOCH), 0 },
		{ cpu_to_le64(DMR_EPOCH_MAX + 1), cpu_to_le64(EPOCH_ID) },
	};
	struct dmr_super *lesser;
	unsigned int i;
	int copy;

	put_tags(test, EPOCH, EPOCH_ID);
	for (copy = 0; copy < 2; copy++) {
		lesser = super_at(test, homes[0][!copy]);
		heal(test);
		put_half_epoch(test, copy);
		expect_shown(test, true, EPOCH);
		KUNIT_EXPECT_EQ(test, seq_at(test, homes[0][!copy]), SUPER_SEQ);
		unwritable(test, 0, DMR_HEAD_BLOCKS);
		expect_shown(test, false, EPOCH);
		/* In a stand-in of its own, too. */
		memcpy(block_at(test, 152), lesser, DMR_BLOCK_SIZE);
		dmr_seal(block_at(test, 152), DMR_TYPE_SUPER, uuid, SUPER_SEQ,
			 homes[0][!copy], 152);
		memset(lesser, 0, DMR_BLOCK_SIZE);
		expect_shown(test, true, EPOCH);
		expect_shown(test, false, EPOCH);
		memset(block_at(test, 152), 0, DMR_BLOCK_SIZE);
		/* What only has an older sequence is not the lower one. */
		memcpy(lesser, super_at(test, homes[0][copy]), DMR_BLOCK_SIZE);
		lesser->epoch.number = dmr_put64(EPOCH + 2);
		seal_super(test, homes[0][!copy], SUPER_SEQ);
		expect_shown(test, true, EPOCH + 1);
		/* Nobody checks more than the winner, so these may be there. */
		for (i = 0; i < ARRAY_SIZE(impossible); i++) {
			lesser->epoch = impossible[i];
			seal_super(test, homes[0][!copy], SUPER_SEQ);
			expect_shown(test, true, EPOCH + 1);
			expect_shown(test, false, EPOCH + 1);
		}
	}
	/* Where they can be written both have the next one. */
	heal(test);
	put_half_epoch(test, 0);
	inspect_tagged(test);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	expect_epoch(test, EPOCH + 2, DMR_NR_TAGS);
}

/* The last epoch there is. */
static void last_epoch(struct kunit *test)
{
	struct remap *r;
	int copy;

	for (copy = 0; copy < 2; copy++) {
		struct dmr_super *sb = super_at(test, homes[0][copy]);

		sb->epoch.number = dmr_put64(DMR_EPOCH_MAX);
		sb->before.number = dmr_put64(DMR_EPOCH_MAX - 1);
		seal_super(test, homes[0][copy], SUPER_SEQ);
	}
	KUNIT_EXPECT_EQ(test, start(test), 0);
	r = metadata_test(test)->r;
	KUNIT_EXPECT_TRUE(test, r->no_raise);
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ);
}

/* Each hour in which the spare was used, and nobody waits for the tag. */
static void epoch_of_an_hour(struct kunit *test)
{
	struct remap *r;

	put_tagged_super(test);
	put_tags(test, EPOCH, EPOCH_ID);
	r = inspect_tagged(test);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	INIT_LIST_HEAD(&r->commit);
	r->first_left = DMR_NO_SLOT;
	commit_asked = false;
	epoch_asked = false;
	identity_start_epochs(r);
	KUNIT_EXPECT_EQ(test, epoch_delay, EPOCH_TIME);
	KUNIT_EXPECT_FALSE(test, commit_asked);
	/* Nothing was used. */
	do_epoch(&r->epoch_work.work);
	KUNIT_EXPECT_FALSE(test, commit_asked);
	KUNIT_EXPECT_TRUE(test, epoch_asked);
	/* A commit. */
	commit_mark_slot(r, 3);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	do_epoch(&r->epoch_work.work);
	KUNIT_EXPECT_TRUE(test, commit_asked);
	fake_traced();
	commit_do_work(&r->commit_work);
	/* It answers, so it is no loss to try. */
	KUNIT_EXPECT_STREQ(test, fake_traced(), "Sr0+1 SW0+1 SW255+1");
	KUNIT_EXPECT_EQ(test, epoch_delay, 0);
	do_epoch(&r->epoch_work.work);
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "MW8+8 MW512+8 MW1024+8 MW1536+8 MW2040+8");
	expect_epoch(test, EPOCH + 2, DMR_NR_TAGS);
	KUNIT_EXPECT_EQ(test, epoch_delay, EPOCH_TIME);
	commit_asked = false;
	do_epoch(&r->epoch_work.work);
	KUNIT_EXPECT_FALSE(test, commit_asked);
	/* A spare that is away, or a suspend that waits: later. */
	r->used = true;
	do_epoch(&r->epoch_work.work);
	metadata_test(test)->spare->dead = BLK_STS_OFFLINE;
	commit_do_work(&r->commit_work);
	metadata_test(test)->spare->dead = 0;
	atomic_set(&r->look, 0);
	KUNIT_EXPECT_TRUE(test, r->used);
	KUNIT_EXPECT_EQ(test, r->mode, DMR_MODE_RW);
	r->suspend_deadline = 1;
	commit_asked = false;
	do_epoch(&r->epoch_work.work);
	KUNIT_EXPECT_FALSE(test, commit_asked);
	r->raise = true;
	fake_traced();
	commit_do_work(&r->commit_work);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "");
	r->suspend_deadline = 0;
	do_epoch(&r->epoch_work.work);
	commit_do_work(&r->commit_work);
	/* Where one waits the tag is left for the resume. */
	r->suspend_deadline = 1;
	fake_traced();
	identity_write_tag(r);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "");
	KUNIT_EXPECT_TRUE(test, r->tag_due);
	r->suspend_deadline = 0;
	identity_start_epochs(r);
	KUNIT_EXPECT_EQ(test, epoch_delay, 0);
	do_epoch(&r->epoch_work.work);
	expect_epoch(test, EPOCH + 3, DMR_NR_TAGS);
	/* The hour goes on over a resume. */
	fake.now += EPOCH_TIME / 2;
	identity_start_epochs(r);
	KUNIT_EXPECT_EQ(test, epoch_delay, EPOCH_TIME / 2);
	fake_traced();
	/* In mode ro nothing is. */
	r->mode = DMR_MODE_RO;
	r->raise = true;
	commit_do_work(&r->commit_work);
	epoch_asked = false;
	identity_start_epochs(r);
	KUNIT_EXPECT_FALSE(test, epoch_asked);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "");
}

/* After the message stop an epoch comes before the first commit. */
static void epoch_after_stop(struct kunit *test)
{
	struct remap *r;

	put_tagged_super(test);
	put_tags(test, EPOCH, EPOCH_ID);
	r = inspect_tagged(test);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	INIT_LIST_HEAD(&r->commit);
	r->first_left = DMR_NO_SLOT;
	r->stopped = true;
	r->tag_due = true;
	commit_asked = false;
	identity_start_epochs(r);
	KUNIT_EXPECT_TRUE(test, commit_asked);
	KUNIT_EXPECT_FALSE(test, r->stopped);
	KUNIT_EXPECT_EQ(test, epoch_delay, EPOCH_TIME);
	fake_traced();
	commit_do_work(&r->commit_work);
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "SW0+1 SW255+1 MW8+8 MW512+8 MW1024+8 MW1536+8 MW2040+8");
	expect_epoch(test, EPOCH + 2, DMR_NR_TAGS);
	commit_do_work(&r->commit_work);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "");
}

/*----------------------------------------------------------------
 * Adopted mains
 *----------------------------------------------------------------
 */

/* An adopted main: no tag, the same size, the same id where there is one. */
static int test_id(struct gendisk *disk, u8 *id, enum blk_unique_id type)
{
	if (type != BLK_UID_EUI64)
		return -EINVAL;
	memcpy(id, "serial 1", 8);
	return 8;
}

static const struct block_device_operations has_id = {
	.get_unique_id = test_id,
};

static const struct block_device_operations no_id;

static void adopted_main(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	struct remap *r;

	t->main->bdev.bd_nr_sectors++;
	create(test);
	expect_refused(test, -EINVAL,
		       "main is not of the size that the set has recorded");
	t->main->bdev.bd_nr_sectors--;
	put_tag(test, other_uuid, 1);
	create(test);
	expect_refused(test, -EINVAL, TAG_IN_DATA);
	memset(t->main->data, 0, UNITS * SECTOR_SIZE);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, t->r->identity, DMR_BY_SIZE);

	/* The load learns the id, and another disk is refused from then on. */
	t->main->disk.fops = &has_id;
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, t->r->identity, DMR_BY_ID);
	KUNIT_EXPECT_EQ(test, super_at(test, 0)->main_id_type, BLK_UID_EUI64);
	KUNIT_EXPECT_EQ(test, super_at(test, 255)->main_id_len, 8);
	KUNIT_EXPECT_EQ(test, memcmp(super_at(test, 0)->main_id, "serial 1", 8),
			0);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	super_at(test, 0)->main_id[7] = '2';
	seal_super(test, 0, 99);
	create(test);
	expect_refused(test, -EINVAL,
		       "main is not the disk that the set has recorded");
	/* Another partition of it is not the same. */
	super_at(test, 0)->main_id[7] = '1';
	seal_super(test, 0, 99);
	r = create(test);
	r->main_offset = 2048;
	expect_refused(test, -EINVAL,
		       "main is not the disk that the set has recorded");
}

/* What a tagged main is known by when copies of its tag cannot be read. */
static void lost_tags(struct kunit *test)
{
	/* Bits are copies; bytes and sectors are main's. */
	static const struct {
		unsigned int good, lost;
		const u8 *whose;
		u64 data;	/* that is not zero; 0: none */
		u64 bad;	/* a sector that cannot be read, too; 0: none */
		bool id, other, late;
		const char *why;
		enum dmr_identity by;
	} rows[] = {
		{ .good = 0x1f, .by = DMR_BY_TAG },
		{ .good = 0x10, .lost = 0x0f, .by = DMR_BY_TAG },
		{ .good = 0x1f, .data = 12288, .by = DMR_BY_TAG },
		/* None is left. */
		{ .why = NO_TAG },
		{ .id = true, .why = NO_TAG },
		{ .lost = 0x1f, .why = NO_ID },
		{ .lost = 0x1f, .id = true, .by = DMR_BY_ID },
		{ .lost = 0x01, .id = true, .by = DMR_BY_ID },
		{ .lost = 0x10, .id = true, .by = DMR_BY_ID },
		{ .lost = 0x1f, .id = true, .other = true, .why = NO_ID },
		{ .lost = 0x1f, .id = true, .late = true, .why = NO_ID },
		/* What the others say of the disk. */
		{ .good = 0x02, .lost = 0x1d, .whose = other_uuid, .id = true,
		  .why = "main carries the tag of another set" },
		{ .lost = 0x1f, .id = true, .data = 512, .why = NOT_BLANK },
		{ .lost = 0x1f, .id = true, .data = 24 * 4096, .why = NOT_BLANK },
		{ .lost = 0x1f, .id = true, .data = MIB - 4097,
		  .why = NOT_BLANK },
		{ .lost = 0x1e, .id = true, .data = 4096, .why = NOT_BLANK },
		{ .lost = 0x1f, .id = true, .data = MIB, .by = DMR_BY_ID },
		/* In what cannot be read nothing is seen: sectors of the first block. */
		{ .lost = 0x1f, .id = true, .data = 4096, .by = DMR_BY_ID },
		{ .lost = 0x1f, .id = true, .bad = 1, .by = DMR_BY_ID },
		{ .lost = 0x1f, .id = true, .data = 512, .bad = 1,
		  .by = DMR_BY_ID },
		{ .lost = 0x1f, .id = true, .data = 512, .bad = 2,
		  .why = NOT_BLANK },
		{ .lost = 0x1f, .id = true, .data = 3 * 4096 + 512, .bad = 26,
		  .by = DMR_BY_ID },
	};
	struct metadata_test *t = metadata_test(test);
	unsigned int i, copy;
	struct remap *r;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		put_set(test);
		put_tagged_super(test);
		for (copy = 0; copy < 2; copy++) {
			struct dmr_super *sb = super_at(test, homes[0][copy]);

			sb->main_id_type = BLK_UID_EUI64;
			sb->main_id_len = 8;
			memcpy(sb->main_id, "serial 1", 8);
			sb->main_id[7] += rows[i].other;
			sb->main_offset = dmr_put64(rows[i].late);
			seal_super(test, homes[0][copy], SUPER_SEQ);
		}
		memset(t->main->data, 0, UNITS * SECTOR_SIZE);
		fake_disk_bad(t->main, READ, 0, UNITS, BLK_STS_OK);
		t->main->disk.fops = rows[i].id ? &has_id : &no_id;
		for (copy = 0; copy < DMR_NR_TAGS; copy++) {
			u64 sector = dmr_tag_block(copy) * DMR_BLOCK_SECTORS;

			if (rows[i].good & BIT(copy))
				put_tag(test, rows[i].whose ?: uuid,
					dmr_tag_block(copy));
			if (rows[i].lost & BIT(copy))
				fake_disk_bad(t->main, READ, sector + 7, 1,
					      BLK_STS_MEDIUM);
		}
		if (rows[i].data)
			t->main->data[rows[i].data] = 1;
		if (rows[i].bad)
			fake_disk_bad(t->main, READ, rows[i].bad, 1,
				      BLK_STS_MEDIUM);
		kunit_info(test, "row %u", i);
		r = create_tagged(test);
		fake_traced();
		if (rows[i].why) {
			expect_refused(test, -EINVAL, rows[i].why);
			KUNIT_EXPECT_PTR_EQ(test, strchr(fake_traced(), 'W'),
					    NULL);
			continue;
		}
		KUNIT_EXPECT_EQ(test, inspect(test), 0);
		KUNIT_EXPECT_EQ(test, r->identity, rows[i].by);
		KUNIT_EXPECT_PTR_EQ(test, strchr(fake_traced(), 'W'), NULL);
		/* The load writes the tag again, and that is all. */
		KUNIT_EXPECT_EQ(test, load(test), 0);
		KUNIT_EXPECT_EQ(test, r->identity, rows[i].by);
		expect_epoch(test, EPOCH + 1, DMR_NR_TAGS);
		if (rows[i].data && rows[i].data != 4096)
			KUNIT_EXPECT_EQ(test, t->main->data[rows[i].data], 1);
	}
	/* A main that became smaller is none, whatever its id. */
	t->main->bdev.bd_nr_sectors--;
	put_tagged_super(test);
	memset(t->main->data, 0, UNITS * SECTOR_SIZE);
	fake_disk_bad(t->main, READ, 8, 1, BLK_STS_MEDIUM);
	create_tagged(test);
	expect_refused(test, -EINVAL,
		       "main is smaller than the set has recorded");
	t->main->bdev.bd_nr_sectors++;
}

/* It is looked for what else main holds for a time only. */
static void lost_tags_of_a_slow_main(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	int copy;

	t->main->disk.fops = &has_id;
	put_tagged_super(test);
	put_tags(test, EPOCH, EPOCH_ID);
	inspect_tagged(test);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	fake_disk_bad(t->main, READ, 0, DMR_TAG_SECTORS, BLK_STS_MEDIUM);
	inspect_tagged(test);
	fake_disk_bad(t->main, READ, 0, DMR_TAG_SECTORS, BLK_STS_OK);
	for (copy = 0; copy < DMR_NR_TAGS; copy++)
		fake_disk_bad(t->main, READ,
			      dmr_tag_block(copy) * DMR_BLOCK_SECTORS, 1,
			      BLK_STS_MEDIUM);
	inspect_tagged(test);
	t->main->ticks = HZ;
	create_tagged(test);
	expect_refused(test, -EINVAL,
		       "main takes too long to read: dmremapctl repair --retag MAIN SPARE");
}

/* A tag in the data of an adopted main is content where its id says so, or a person. */
static void tag_in_data(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	int copy;

	for (copy = 0; copy < DMR_NR_TAGS; copy++)
		put_tag_of(test, copy, other_uuid, EPOCH, EPOCH_ID);
	create(test);
	expect_refused(test, -EINVAL, TAG_IN_DATA);
	memcpy(super_at(test, 0)->content_tag, other_uuid, 16);
	seal_super(test, 0, 99);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, t->r->identity, DMR_BY_SIZE);
	KUNIT_EXPECT_EQ(test, t->r->nr_tags, 0);
	/* One of another set is not meant. */
	put_tag_of(test, 2, uuid, EPOCH + 1, EPOCH_ID);
	create(test);
	expect_refused(test, -EINVAL, TAG_IN_DATA);
	/* There is no such set. */
	memset(super_at(test, 0)->content_tag, 0, 16);
	seal_super(test, 0, 199);
	put_tag_of(test, 2, no_uuid, EPOCH + 1, EPOCH_ID);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	/* The id has been recorded by then. */
	put_tag_of(test, 2, other_uuid, EPOCH + 1, EPOCH_ID);
	t->main->disk.fops = &has_id;
	create(test);
	expect_refused(test, -EINVAL, TAG_IN_DATA);
	memset(tag_at(test, 2), 0, DMR_BLOCK_SIZE);
	memcpy(super_at(test, 0)->content_tag, other_uuid, 16);
	seal_super(test, 0, 299);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, t->r->identity, DMR_BY_ID);
	memset(super_at(test, 0)->content_tag, 0, 16);
	seal_super(test, 0, 399);
	fake_traced();
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, t->r->identity, DMR_BY_ID);
	KUNIT_EXPECT_EQ(test, t->r->nr_tags, 0);
	/* Nothing of main is touched. */
	KUNIT_EXPECT_EQ(test, dmr_get64(tag_at(test, 0)->epoch.number), EPOCH);
	KUNIT_EXPECT_EQ(test, memcmp(tag_at(test, 0)->h.uuid, other_uuid, 16), 0);
}

/* What DM says of a volume is not its disk's; the size is all that is known. */
static void id_of_a_volume(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);

	t->main->disk.fops = &has_id;
	t->main->disk.major = FAKE_DM_MAJOR;
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, t->r->identity, DMR_BY_SIZE);
	KUNIT_EXPECT_EQ(test, super_at(test, 0)->main_id_type, 0);
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ + RAISE);
}

/*----------------------------------------------------------------
 * Loads
 *----------------------------------------------------------------
 */

static void set_runs_once(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	struct remap *other = create_other(test), *r;

	/* Both are constructed: neither counts. */
	KUNIT_EXPECT_PTR_EQ(test, identity_enter(other), NULL);
	r = create(test);
	KUNIT_EXPECT_EQ(test, inspect(test), 0);
	KUNIT_EXPECT_PTR_EQ(test, identity_enter(r), NULL);

	/* The first one runs it.  The other one writes nothing. */
	((u8 *)block_at(test, 256))[100] = 1;
	KUNIT_EXPECT_EQ(test, identity_run(other, uuid), 0);
	KUNIT_EXPECT_EQ(test, load(test), -EBUSY);
	KUNIT_EXPECT_FALSE(test, r->runs);
	expect_table(test, 294, TABLE_SEQ);
	identity_stop(other);

	/* A load that fails runs nothing. */
	unreadable(test, 256);
	unreadable(test, 294);
	KUNIT_EXPECT_EQ(test, load(test), -EIO);
	KUNIT_EXPECT_EQ(test, identity_run(other, uuid), 0);
	identity_stop(other);
	fake_disk_bad(t->spare, READ, 0, DISK * DMR_BLOCK_SECTORS, BLK_STS_OK);

	KUNIT_EXPECT_EQ(test, load(test), 0);
	KUNIT_EXPECT_EQ(test, identity_run(other, uuid), -EBUSY);
	KUNIT_EXPECT_FALSE(test, other->runs);
	/* ctr sees it, too, and another set is nobody's business. */
	identity_leave(other);
	KUNIT_EXPECT_STREQ(test, identity_enter(other),
			   "the set is in use already");
	memcpy(&other->uuid, other_uuid, sizeof(other_uuid));
	KUNIT_EXPECT_PTR_EQ(test, identity_enter(other), NULL);
	KUNIT_EXPECT_EQ(test, identity_run(other, other_uuid), 0);
	identity_leave(other);

	/* Targets of one table see each other at once. */
	identity_leave(r);
	memcpy(&other->uuid, uuid, sizeof(uuid));
	KUNIT_EXPECT_PTR_EQ(test, identity_enter(other), NULL);
	other->runs = false;
	other->ti->table = t->ti.table;
	KUNIT_EXPECT_STREQ(test, identity_enter(r),
			   "the set is in use already");
	identity_leave(other);
}

static void load_empty(struct kunit *test)
{
	struct remap *r;
	unsigned int i;

	KUNIT_EXPECT_EQ(test, start(test), 0);
	r = metadata_test(test)->r;
	KUNIT_EXPECT_EQ(test, r->nr_lookup, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_free), 2 * SEGMENT_SLOTS);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_away), 0);
	/* Nothing was amiss, so nothing was written but the epoch. */
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ + RAISE);
	for (i = 1; i < MBLOCKS; i++)
		expect_table(test, homes[i][1], TABLE_SEQ);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_COPIES], 0);
}

static void load_entries_of_all_states(struct kunit *test)
{
	struct remap *r;

	put_entries(test, 0, 100, DMR_MAPPED, 0);
	put_entries(test, 251, 101, DMR_LOST, 5);
	put_entries(test, 252, 0, DMR_BAD, 0);
	put_entries(test, 287, UNITS - 1, DMR_MAPPED, DMR_GEN_MAX);
	put_entries(test, 288, 0, DMR_MAPPED, 1);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	r = metadata_test(test)->r;
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_mapped), 4);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_lost), 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_bad), 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_free), 2 * SEGMENT_SLOTS - 5);
	KUNIT_EXPECT_EQ(test, r->nr_lookup, 4);
	KUNIT_EXPECT_EQ(test, slots_first(r, 100, 100), 0);
	KUNIT_EXPECT_EQ(test, slots_first(r, 101, 101), 251);
	KUNIT_EXPECT_EQ(test, slots_first(r, 102, UNITS), 287);
	KUNIT_EXPECT_EQ(test, slots_first(r, 0, UNITS), 288);
	KUNIT_EXPECT_EQ(test, r->slot[251].info, dmr_info(DMR_LOST, 5));
	KUNIT_EXPECT_EQ(test, r->slot[287].info,
			dmr_info(DMR_MAPPED, DMR_GEN_MAX));
	/* Loading what is loaded already. */
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, metadata_test(test)->r->nr_lookup, 4);
}

/* One copy is bad: the other one counts, and both are written again. */
static void expect_other_copy(struct kunit *test, int bad)
{
	struct remap *r;

	create(test);
	KUNIT_ASSERT_EQ(test, inspect(test), 0);
	KUNIT_ASSERT_EQ(test, load_set(metadata_test(test)->r), 0);
	/* The one that was bad first: the winner is left alone until then. */
	KUNIT_EXPECT_NOT_NULL(test, strstr(fake_traced(), bad ?
			      " SW294+1 SW256+1 SW0+1 SW255+1 Sf" :
			      " SW256+1 SW294+1 SW0+1 SW255+1 Sf"));
	r = metadata_test(test)->r;
	KUNIT_EXPECT_EQ(test, slots_first(r, 0, UNITS), 1);
	KUNIT_EXPECT_EQ(test, r->nr_lookup, 1);
	expect_table(test, 256, TABLE_SEQ + 2);
	expect_table(test, 294, TABLE_SEQ + 2);
	expect_table(test, 257, TABLE_SEQ);
	KUNIT_EXPECT_TRUE(test, dmr_same_body(block_at(test, 256),
					      block_at(test, 294)));
	KUNIT_EXPECT_EQ(test, fake.units[DMR_EV_COPIES], 1);
	fake.units[DMR_EV_COPIES] = 0;
	put_set(test);
	put_entries(test, 1, 100, DMR_MAPPED, 0);
}

static void bad_copies(struct kunit *test)
{
	int copy;

	put_entries(test, 1, 100, DMR_MAPPED, 0);
	for (copy = 0; copy < 2; copy++) {
		u64 home = homes[1][copy];
		struct dmr_table *t = table_at(test, home);

		/* A wrong checksum. */
		t->entry[1].unit = dmr_put64(99);
		expect_other_copy(test, copy);
		unreadable(test, home);
		expect_other_copy(test, copy);
		memset(t, 0, DMR_BLOCK_SIZE);
		expect_other_copy(test, copy);
		/* All of these are newer, and have the right checksum. */
		dmr_seal(t, DMR_TYPE_TABLE, other_uuid, 99, home, home);
		expect_other_copy(test, copy);
		dmr_seal(t, DMR_TYPE_SUPER, uuid, 99, home, home);
		expect_other_copy(test, copy);
		seal_table(test, home, 99, home + 1);
		expect_other_copy(test, copy);
		seal_table(test, home, 99, homes[1][!copy]);
		expect_other_copy(test, copy);
		memcpy(t, block_at(test, homes[3][copy]), DMR_BLOCK_SIZE);
		expect_other_copy(test, copy);
		seal_table(test, home, DMR_SEQ_MAX + 1, home);
		expect_other_copy(test, copy);
		t->entry[1].unit = dmr_put64(UNITS);
		seal_table(test, home, 99, home);
		expect_other_copy(test, copy);
		t->entry[5].state_gen = dmr_put32(DMR_TAKEN);
		seal_table(test, home, 99, home);
		expect_other_copy(test, copy);
		t->entry[251].zero = dmr_put32(1);
		seal_table(test, home, 99, home);
		expect_other_copy(test, copy);
		t->h.version = dmr_put16(1);
		t->h.crc = dmr_put32(dmr_block_crc(t, home));
		expect_other_copy(test, copy);
	}
}

/* A second copy of the same sequence is checked, too, before it counts. */
static void bad_second_copies(struct kunit *test)
{
	struct dmr_table *t = table_at(test, 295);

	t->entry[36].state_gen = dmr_put32(DMR_BAD);
	seal_table(test, 295, TABLE_SEQ, 295);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	expect_table(test, 295, TABLE_SEQ + 2);
	KUNIT_EXPECT_EQ(test, dmr_get32(t->entry[36].state_gen), 0);
	t->entry[0].zero = dmr_put32(1);
	seal_table(test, 295, TABLE_SEQ + 2, 295);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	expect_table(test, 295, TABLE_SEQ + 4);
	KUNIT_EXPECT_EQ(test, dmr_get32(t->entry[0].zero), 0);
}

/* Both are gone: nobody knows what was mapped. */
static void both_copies_gone(struct kunit *test)
{
	struct remap *r;

	put_entries(test, 1, 100, DMR_MAPPED, 0);
	put_entries(test, 288, 200, DMR_MAPPED, 0);
	unreadable(test, 256);
	table_at(test, 294)->entry[0].unit = dmr_put64(1);
	KUNIT_EXPECT_EQ(test, start(test), -EIO);
	r = metadata_test(test)->r;
	KUNIT_EXPECT_EQ(test, r->nr_lookup, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_free), 2 * SEGMENT_SLOTS);

	r = create(test);
	r->read_only = true;
	r->accept_stale = true;
	KUNIT_ASSERT_EQ(test, inspect(test), 0);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	KUNIT_EXPECT_EQ(test, r->nr_gone, 1);
	KUNIT_EXPECT_EQ(test, slots_first(r, 0, UNITS), 288);
	expect_table(test, 296, TABLE_SEQ);

	/* What an entry outside of main or behind the last slot means. */
	put_set(test);
	put_entries(test, 1, UNITS, DMR_MAPPED, 0);
	KUNIT_EXPECT_EQ(test, start(test), -EIO);
	put_set(test);
	table_at(test, 257)->entry[36].state_gen = dmr_put32(DMR_BAD);
	seal_table(test, 257, TABLE_SEQ, 257);
	table_at(test, 295)->entry[36].state_gen = dmr_put32(DMR_BAD);
	seal_table(test, 295, TABLE_SEQ, 295);
	KUNIT_EXPECT_EQ(test, start(test), -EIO);
}

/* Refused, the target can be resumed again when the disk is well. */
static void load_again(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);

	put_entries(test, 1, 100, DMR_MAPPED, 0);
	put_entries(test, 288, 200, DMR_MAPPED, 0);
	unreadable(test, 257);
	unreadable(test, 295);
	KUNIT_EXPECT_EQ(test, start(test), -EIO);
	fake_disk_bad(t->spare, READ, 0, DISK * DMR_BLOCK_SECTORS, BLK_STS_OK);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	KUNIT_EXPECT_EQ(test, t->r->nr_lookup, 2);
	KUNIT_EXPECT_EQ(test, t->r->nr_gone, 0);
	KUNIT_EXPECT_EQ(test, slots_first(t->r, 101, UNITS), 288);
}

/* The first resume finds something else than ctr, and then that again. */
static void changed_since_ctr(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);

	create(test);
	KUNIT_ASSERT_EQ(test, inspect(test), 0);
	memset(block_at(test, 0), 0, DMR_BLOCK_SIZE);
	memset(block_at(test, 255), 0, DMR_BLOCK_SIZE);
	KUNIT_EXPECT_EQ(test, load(test), -ENODATA);
	put_set(test);
	put_tag(test, other_uuid, 1);
	KUNIT_EXPECT_EQ(test, load(test), -EINVAL);
	memset(t->main->data, 0, UNITS * SECTOR_SIZE);
	/* The second segment is still described, but is none of the set's. */
	super_at(test, 0)->nr_segments = dmr_put32(1);
	seal_super(test, 0, SUPER_SEQ + 1);
	KUNIT_EXPECT_EQ(test, load(test), -EAGAIN);
	put_set(test);
	KUNIT_EXPECT_EQ(test, load(test), 0);
}

/* Nothing could be written that outranks it. */
static void impossible_sequences(struct kunit *test)
{
	int copy;

	for (copy = 0; copy < 2; copy++)
		seal_table(test, homes[1][copy], DMR_SEQ_MAX / 2,
			   homes[1][copy]);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	for (copy = 0; copy < 2; copy++) {
		put_set(test);
		seal_table(test, homes[1][copy], DMR_SEQ_MAX / 2 + 1,
			   homes[1][copy]);
		KUNIT_EXPECT_EQ(test, start(test), -EINVAL);
	}
}

/* The newer copy counts, whichever it is. */
static void newer_copy(struct kunit *test)
{
	struct remap *r;
	int copy;

	for (copy = 0; copy < 2; copy++) {
		put_set(test);
		put_entries(test, 1, 100, DMR_MAPPED, 0);
		put_entry(test, 1, copy, 101, DMR_MAPPED, 0);
		put_entry(test, 2, copy, 100, DMR_LOST, 0);
		seal_table(test, homes[1][copy], TABLE_SEQ + 1, homes[1][copy]);
		KUNIT_EXPECT_EQ(test, start(test), 0);
		r = metadata_test(test)->r;
		KUNIT_EXPECT_EQ(test, slots_first(r, 0, UNITS), 2);
		KUNIT_EXPECT_EQ(test, slots_first(r, 101, UNITS), 1);
		KUNIT_EXPECT_EQ(test, r->nr_lookup, 2);
		KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_lost), 1);
		expect_table(test, 256, TABLE_SEQ + 3);
		expect_table(test, 294, TABLE_SEQ + 3);
	}
}

/* Two copies of one sequence that differ: an entry, or a body nobody reads. */
static void contradicting_copies(struct kunit *test)
{
	put_entry(test, 1, 0, 100, DMR_MAPPED, 0);
	KUNIT_EXPECT_EQ(test, start(test), -EINVAL);
	put_entry(test, 1, 1, 100, DMR_MAPPED, 1);
	KUNIT_EXPECT_EQ(test, start(test), -EINVAL);
	put_entry(test, 1, 1, 100, DMR_LOST, 0);
	KUNIT_EXPECT_EQ(test, start(test), -EINVAL);
	put_entry(test, 1, 1, 100, DMR_MAPPED, 0);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	/* A newer one in a stand-in settles it. */
	put_entry(test, 1, 1, 101, DMR_MAPPED, 0);
	memcpy(block_at(test, 128), block_at(test, 256), DMR_BLOCK_SIZE);
	seal_table(test, 128, TABLE_SEQ + 1, 256);
	KUNIT_EXPECT_EQ(test, start(test), -EINVAL);
	put_name(test, 128, 256);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, slots_first(metadata_test(test)->r, 0, UNITS), 1);
}

/* Two live slots of one unit: equal generations contradict each other. */
static void unit_mapped_twice(struct kunit *test)
{
	static const u32 slots[] = { 11, 260, 300 };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(slots); i++) {
		put_set(test);
		put_entries(test, 10, 100, DMR_MAPPED, 3);
		put_entries(test, slots[i], 100, DMR_MAPPED, 3);
		KUNIT_EXPECT_EQ(test, start(test), -EINVAL);
		put_entries(test, slots[i], 100, DMR_LOST, 3);
		KUNIT_EXPECT_EQ(test, start(test), -EINVAL);
		put_entries(test, slots[i], 101, DMR_LOST, 3);
		KUNIT_EXPECT_EQ(test, start(test), 0);
	}
	/* Also where a third one is newer than the first. */
	put_set(test);
	put_entries(test, 10, 100, DMR_MAPPED, 3);
	put_entries(test, 11, 100, DMR_MAPPED, 4);
	put_entries(test, 300, 100, DMR_MAPPED, 4);
	KUNIT_EXPECT_EQ(test, start(test), -EINVAL);
}

/* The higher generation counts; the other slot is BAD, on the disk too. */
static void unit_that_has_moved(struct kunit *test)
{
	static const u32 pairs[][2] = {
		{ 10, 11 }, { 11, 10 }, { 10, 300 }, { 300, 10 }, { 260, 10 },
	};
	struct remap *r;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(pairs); i++) {
		u32 old = pairs[i][0], new = pairs[i][1];

		put_set(test);
		put_entries(test, old, 100, DMR_MAPPED, DMR_GEN_MAX - 1);
		put_entries(test, new, 100, DMR_LOST, DMR_GEN_MAX);
		put_entries(test, 20, 99, DMR_MAPPED, 0);
		KUNIT_EXPECT_EQ(test, start(test), 0);
		r = metadata_test(test)->r;
		KUNIT_EXPECT_EQ(test, slots_first(r, 100, 100), new);
		KUNIT_EXPECT_EQ(test, r->slot[old].info, dmr_info(DMR_BAD, 0));
		KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_mapped), 2);
		KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_bad), 1);
		/* It is so for the next load, too. */
		KUNIT_EXPECT_EQ(test, start(test), 0);
		r = metadata_test(test)->r;
		KUNIT_EXPECT_EQ(test, r->nr_lookup, 2);
		KUNIT_EXPECT_EQ(test, r->slot[old].info, dmr_info(DMR_BAD, 0));
		KUNIT_EXPECT_EQ(test, r->slot[old].unit, 0);
	}
}

/*----------------------------------------------------------------
 * Stand-ins
 *----------------------------------------------------------------
 */

/* Copy A lives in a stand-in: its home has the state that it was left with. */
static void put_stand_in(struct kunit *test, u64 place)
{
	put_set(test);
	put_name(test, place, 256);
	put_entry(test, 1, 1, 100, DMR_MAPPED, 0);
	seal_table(test, 294, TABLE_SEQ + 1, 294);
	memcpy(block_at(test, place), block_at(test, 294), DMR_BLOCK_SIZE);
	seal_table(test, place, TABLE_SEQ + 1, 256);
}

static void copy_in_a_stand_in(struct kunit *test)
{
	static const u64 places[] = { 128, 191, 254 };
	struct remap *r;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(places); i++) {
		put_stand_in(test, places[i]);
		KUNIT_EXPECT_EQ(test, start(test), 0);
		r = metadata_test(test)->r;
		KUNIT_EXPECT_EQ(test, slots_first(r, 0, UNITS), 1);
		KUNIT_EXPECT_EQ(test, r->mblock[1].standin[0], places[i]);
		KUNIT_EXPECT_EQ(test, r->mblock[1].standin[1], 0);
		KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_away), 1);
		/* Two copies are there, so none was written. */
		expect_table(test, 256, TABLE_SEQ);
		expect_table(test, 294, TABLE_SEQ + 1);
		/* Later commits go there. */
		r->slot[2].unit = 101;
		r->slot[2].info = dmr_info(DMR_MAPPED, 0);
		commit_mark_slot(r, 2);
		KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
		expect_table(test, 256, TABLE_SEQ);
		expect_table(test, places[i], TABLE_SEQ + 2);
		memset(block_at(test, places[i]), 0, DMR_BLOCK_SIZE);
	}
}

/* The newest copy of a block is in a stand-in alone, and its home has an old one. */
static struct remap *start_with_one_copy(struct kunit *test)
{
	struct remap *r;

	put_stand_in(test, 128);
	memset(block_at(test, 294), 0, DMR_BLOCK_SIZE);
	r = create(test);
	/* Else the load would fail anyway, when it writes. */
	r->read_only = true;
	KUNIT_ASSERT_EQ(test, inspect(test), 0);
	fake_traced();
	return r;
}

/* It dies between the two reads of a load, and hides what it had. */
static void stand_in_that_dies(struct kunit *test)
{
	struct remap *r = start_with_one_copy(test);

	metadata_test(test)->spare->dies_after = 7;
	KUNIT_EXPECT_EQ(test, load_set(r), -EIO);
	KUNIT_EXPECT_NOT_NULL(test, strstr(fake_traced(), " Sr334+2 Sr128+1!"));
}

/* The second read of a load gives something else than the first. */
static void stand_in_that_rots(struct kunit *test)
{
	struct remap *r = start_with_one_copy(test);

	metadata_test(test)->spare->rots_after = 7;
	KUNIT_EXPECT_EQ(test, load_set(r), -EIO);
	KUNIT_EXPECT_NOT_NULL(test, strstr(fake_traced(), " Sr334+2 Sr128+1"));
}

/* Stand-ins that hold what they are not named for, or nothing to be believed. */
static void hostile_stand_ins(struct kunit *test)
{
	static const u64 bad_homes[] = {
		0, 255, 128, 129, 258, 293, 294, 298, 333, 336, 1ull << 32,
		U64_MAX, NOWHERE - 1, 256 - (1ull << 63),
	};
	struct remap *r;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bad_homes); i++) {
		struct dmr_table *t = table_at(test, 137 + i);

		t->entry[0].state_gen = dmr_put32(DMR_BAD);
		seal_table(test, 137 + i, 99, bad_homes[i]);
		put_name(test, 137 + i, 256);
	}
	/* Of another set, of another place, not sound inside. */
	put_super(super_at(test, 160));
	dmr_seal(block_at(test, 160), DMR_TYPE_TABLE, other_uuid, 99, 256, 160);
	put_name(test, 160, 256);
	table_at(test, 161)->entry[0].unit = dmr_put64(UNITS);
	seal_table(test, 161, 99, 256);
	put_name(test, 161, 256);
	/* Without a name, and where a table cannot be. */
	table_at(test, 128)->entry[0].state_gen = dmr_put32(DMR_BAD);
	seal_table(test, 128, 99, 256);
	table_at(test, 136)->entry[0].state_gen = dmr_put32(DMR_BAD);
	seal_table(test, 136, 99, 256);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	r = metadata_test(test)->r;
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_away), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_bad), 0);
	/* They are free, but for the superblock's own. */
	KUNIT_EXPECT_TRUE(test, test_bit(136 - DMR_STANDIN_FIRST,
					 r->standin_used));
	KUNIT_EXPECT_EQ(test, bitmap_weight(r->standin_used, DMR_NR_STANDINS),
			1);
	for (i = 1; i < MBLOCKS; i++)
		expect_table(test, homes[i][0], TABLE_SEQ);
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ + RAISE);
}

/* Where nobody has ever written nothing is hidden. */
static void stand_ins_never_used(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	unsigned int i;
	u64 place;

	/* Lone copies, each at home. */
	for (i = 1; i < MBLOCKS; i++)
		memset(block_at(test, homes[i][i % 2]), 0, DMR_BLOCK_SIZE);
	memset(block_at(test, 0), 0, DMR_BLOCK_SIZE);
	unreadable(test, 128);
	unreadable(test, 201);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	expect_unreadable(test, 128);
	expect_unreadable(test, 201);
	KUNIT_EXPECT_EQ(test, bitmap_weight(t->r->standin_used,
					    DMR_NR_STANDINS), 2);
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ + 2 + RAISE);
	for (place = 128; place < 255; place++)
		if (!dmr_is_refuge(place))
			unreadable(test, place);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	for (place = 128; place < 255; place++)
		if (!dmr_is_refuge(place))
			expect_unreadable(test, place);
	KUNIT_EXPECT_EQ(test, bitmap_weight(t->r->standin_used,
					    DMR_NR_STANDINS),
			DMR_NR_STANDINS - DMR_NR_REFUGES);
	/* Nothing was written for their sake. */
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ + 2 + 2 * RAISE);
	for (i = 1; i < MBLOCKS; i++)
		expect_table(test, homes[i][1], TABLE_SEQ + 2);
}

/* One with a name may hide a version of that copy, and of no other. */
static void unreadable_stand_in(struct kunit *test)
{
	const char *trace;
	struct remap *r;
	unsigned int i;

	put_name(test, 128, 256);
	put_name(test, 129, 294);
	unreadable(test, 128);
	create(test);
	KUNIT_ASSERT_EQ(test, inspect(test), 0);
	fake_traced();
	KUNIT_EXPECT_EQ(test, load_set(metadata_test(test)->r), 0);
	/* Outranked in both copies before it is erased. */
	trace = fake_traced();
	KUNIT_EXPECT_NOT_NULL(test, strstr(trace, " SW256+1 SW294+1 SW128+1 SW0+1 SW255+1 Sf"));
	r = metadata_test(test)->r;
	KUNIT_EXPECT_EQ(test, bitmap_weight(r->standin_used, DMR_NR_STANDINS),
			1);
	expect_table(test, 256, TABLE_SEQ + 2);
	expect_table(test, 294, TABLE_SEQ + 2);
	for (i = 2; i < MBLOCKS; i++) {
		expect_table(test, homes[i][0], TABLE_SEQ);
		expect_table(test, homes[i][1], TABLE_SEQ);
	}
	/* Whether it takes that does not matter: there is a next load. */
	unreadable(test, 128);
	unwritable(test, 128, 1);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	expect_unreadable(test, 128);
	expect_table(test, 294, TABLE_SEQ + 4);
	/* The other copy suffices. */
	memset(block_at(test, 256), 0, DMR_BLOCK_SIZE);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	expect_table(test, 256, TABLE_SEQ + 6);
	/* The winner is the highest one, known or not. */
	put_entry(test, 1, 0, 100, DMR_MAPPED, 0);
	seal_table(test, 256, TABLE_SEQ + 7, 256);
	KUNIT_ASSERT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, slots_first(metadata_test(test)->r, 0, UNITS), 1);
	expect_table(test, 294, TABLE_SEQ + 9);
	/* Not without the other copy, and not where that is unknown, too. */
	unreadable(test, 129);
	KUNIT_EXPECT_EQ(test, start(test), -EIO);
	heal(test);
	unreadable(test, 128);
	memset(block_at(test, 294), 0, DMR_BLOCK_SIZE);
	KUNIT_EXPECT_EQ(test, start(test), -EIO);
	expect_unreadable(test, 128);
	expect_table(test, 256, TABLE_SEQ + 9);
	heal(test);
	KUNIT_EXPECT_EQ(test, start(test), 0);
}

/* The header of a torn stand-in, and what is there or not beside it. */
struct torn {
	u64 name;		/* of the stand-in, 0: never used */
	int type;
	const u8 *uuid;
	u64 seq, home;
	int error;
	u64 written;		/* added to the sequence of the lone copy */
};

static void check_torn(struct kunit *test, const struct torn *rows,
		       unsigned int nr, u64 place, u64 gone, u64 left)
{
	u8 *torn = block_at(test, place);
	unsigned int i;
	u64 seq;

	for (i = 0; i < nr; i++) {
		const struct torn *row = &rows[i];
		bool stays = row->error || !(row->name || dmr_is_refuge(place));

		put_set(test);
		if (row->name)
			put_name(test, place, row->name);
		memset(block_at(test, gone), 0, DMR_BLOCK_SIZE);
		seq = seq_at(test, left);
		dmr_seal(torn, row->type, row->uuid, row->seq, row->home, place);
		torn[DMR_BLOCK_SIZE - 1]++;
		KUNIT_EXPECT_EQ_MSG(test, start(test), row->error, "row %u", i);
		KUNIT_EXPECT_EQ_MSG(test, torn[0], stays ? 'd' : 0, "row %u",
				    i);
		KUNIT_EXPECT_EQ_MSG(test, seq_at(test, left),
				    seq + row->written, "row %u", i);
	}
	memset(torn, 0, DMR_BLOCK_SIZE);
}

/*
 * One whose header says that it is for this copy hides none that is newer than
 * that.  With any other header it is as good as unreadable.  Copy B of block 1 is
 * a lone one here.
 */
static void torn_stand_ins(struct kunit *test)
{
	static const struct torn rows[] = {
		{ 256, DMR_TYPE_TABLE, uuid, TABLE_SEQ + 1, 256, 0, 2 },
		{ 294, DMR_TYPE_TABLE, uuid, TABLE_SEQ, 294, 0, 2 },
		{ 294, DMR_TYPE_TABLE, uuid, TABLE_SEQ + 1, 294, -EIO, 0 },
		{ 295, DMR_TYPE_TABLE, uuid, TABLE_SEQ + 1, 295, 0, 2 },
		{ 256, DMR_TYPE_TABLE, uuid, TABLE_SEQ + 1, 294, 0, 2 },
		{ 294, DMR_TYPE_TABLE, uuid, 1, 256, -EIO, 0 },
		{ 294, DMR_TYPE_TABLE, uuid, 1, 258, -EIO, 0 },
		{ 294, DMR_TYPE_SUPER, uuid, 1, 294, -EIO, 0 },
		{ 294, DMR_TYPE_SUPER, uuid, 1, 255, -EIO, 0 },
		{ 294, DMR_TYPE_TAG, uuid, 1, 294, -EIO, 0 },
		{ 294, DMR_TYPE_TABLE, uuid, 0, 294, -EIO, 0 },
		{ 294, DMR_TYPE_TABLE, uuid, DMR_SEQ_MAX + 1, 294, -EIO, 0 },
		{ 294, DMR_TYPE_TABLE, other_uuid, 1, 294, -EIO, 0 },
		{ 0, DMR_TYPE_TABLE, uuid, TABLE_SEQ + 1, 294, 0, 2 },
		{ 0, DMR_TYPE_TABLE, other_uuid, 1, 294, 0, 2 },
	};
	u8 *torn = block_at(test, 201);

	check_torn(test, rows, ARRAY_SIZE(rows), 201, 256, 294);
	/* Zeroes in its first sector: nothing was ever completed there. */
	put_set(test);
	put_name(test, 201, 294);
	memset(block_at(test, 256), 0, DMR_BLOCK_SIZE);
	torn[512] = 1;
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, torn[512], 0);
	torn[511] = 1;
	memset(block_at(test, 256), 0, DMR_BLOCK_SIZE);
	KUNIT_EXPECT_EQ(test, start(test), -EIO);
	KUNIT_EXPECT_EQ(test, torn[511], 1);
	/* With both copies there it is only erased, and outranked if need be. */
	put_set(test);
	put_name(test, 201, 294);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, torn[511], 0);
	expect_table(test, 256, TABLE_SEQ + 2);
	seal_table(test, 201, TABLE_SEQ + 3, 294);
	torn[DMR_BLOCK_SIZE - 1]++;
	KUNIT_EXPECT_EQ(test, start(test), 0);
	expect_erased(test, 201);
	expect_table(test, 256, TABLE_SEQ + 2);
	expect_table(test, 294, TABLE_SEQ + 2);
}

/* The same of the superblock, whose copy B is the lone one. */
static void torn_refuges(struct kunit *test)
{
	static const struct torn rows[] = {
		{ 0, DMR_TYPE_SUPER, uuid, SUPER_SEQ + 1, 0, 0, 2 + RAISE },
		{ 0, DMR_TYPE_SUPER, uuid, SUPER_SEQ, 255, 0, 2 + RAISE },
		{ 0, DMR_TYPE_SUPER, uuid, SUPER_SEQ + 1, 255, -EIO, 0 },
		{ 0, DMR_TYPE_SUPER, uuid, 1, 256, -EIO, 0 },
		{ 0, DMR_TYPE_TABLE, uuid, 1, 255, -EIO, 0 },
		{ 0, DMR_TYPE_TABLE, uuid, 1, 256, -EIO, 0 },
		{ 0, DMR_TYPE_SUPER, uuid, 0, 255, -EIO, 0 },
		{ 0, DMR_TYPE_SUPER, uuid, DMR_SEQ_MAX + 1, 255, -EIO, 0 },
		{ 0, DMR_TYPE_SUPER, other_uuid, 1, 255, -EIO, 0 },
	};

	check_torn(test, rows, ARRAY_SIZE(rows), 200, 0, 255);
}

/* Nobody knows which copy of the superblock one of its own hides. */
static void unreadable_refuges(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	const char *trace;
	struct remap *r;
	unsigned int i;

	/* The tables have nothing to do with it. */
	memset(block_at(test, 256), 0, DMR_BLOCK_SIZE);
	unreadable(test, 152);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	expect_erased(test, 152);
	KUNIT_EXPECT_TRUE(test, test_bit(152 - DMR_STANDIN_FIRST,
					 t->r->standin_used));
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ + 2 + RAISE);
	KUNIT_EXPECT_EQ(test, seq_at(test, 255), SUPER_SEQ + 2 + RAISE);
	expect_table(test, 256, TABLE_SEQ + 2);
	for (i = 2; i < MBLOCKS; i++)
		expect_table(test, homes[i][0], TABLE_SEQ);
	/* It is outranked before it is erased, and again if it refuses that. */
	unreadable(test, 152);
	unwritable(test, 152, 1);
	create(test);
	KUNIT_ASSERT_EQ(test, inspect(test), 0);
	fake_traced();
	KUNIT_EXPECT_EQ(test, load_set(t->r), 0);
	trace = fake_traced();
	KUNIT_EXPECT_NOT_NULL(test, strstr(trace, " SW0+1 SW255+1 SW152+1! SW0+1 SW255+1 Sf"));
	expect_unreadable(test, 152);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, seq_at(test, 255), SUPER_SEQ + 6 + 3 * RAISE);
	/* It stays where they cannot be written again. */
	unreadable(test, 152);
	unwritable(test, 0, DMR_HEAD_BLOCKS);
	fake_disk_bad(t->spare, WRITE, 152 * DMR_BLOCK_SECTORS,
		      DMR_BLOCK_SECTORS, BLK_STS_OK);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_TRUE(test, t->r->no_raise);
	expect_unreadable(test, 152);
	fake_disk_bad(t->spare, WRITE, 0, DMR_HEAD_BLOCKS * DMR_BLOCK_SECTORS,
		      BLK_STS_OK);
	/* With one superblock it may be the newer one. */
	memset(block_at(test, 255), 0, DMR_BLOCK_SIZE);
	KUNIT_EXPECT_EQ(test, start(test), -EIO);
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ + 6 + 3 * RAISE);
	put_set(test);
	memset(block_at(test, 0), 0, DMR_BLOCK_SIZE);
	KUNIT_EXPECT_EQ(test, start(test), -EIO);
	/* Two may hide both. */
	put_set(test);
	unreadable(test, 248);
	KUNIT_EXPECT_EQ(test, start(test), -EIO);
	expect_unreadable(test, 248);
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ);
	r = create(test);
	r->read_only = true;
	r->accept_stale = true;
	KUNIT_ASSERT_EQ(test, inspect(test), 0);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	fake_disk_bad(t->spare, READ, 152 * DMR_BLOCK_SECTORS,
		      DMR_BLOCK_SECTORS, BLK_STS_OK);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	expect_erased(test, 248);
}

/* What a load takes while it mends is not erased behind that. */
static void stand_in_of_a_mend(struct kunit *test)
{
	struct remap *r;

	((u8 *)block_at(test, 128))[0] = 1;
	memset(block_at(test, 256), 0, DMR_BLOCK_SIZE);
	unwritable(test, 256, 1);
	KUNIT_ASSERT_EQ(test, start(test), 0);
	r = metadata_test(test)->r;
	KUNIT_EXPECT_EQ(test, r->mblock[1].standin[0], 128);
	expect_name(test, 128, 256);
	expect_table(test, 128, TABLE_SEQ + 2);
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ + 1 + RAISE);
	/* Nothing is to be mended any more. */
	KUNIT_EXPECT_EQ(test, start(test), 0);
	expect_table(test, 128, TABLE_SEQ + 2);
	expect_table(test, 294, TABLE_SEQ + 2);
}

/*----------------------------------------------------------------
 * Commits
 *----------------------------------------------------------------
 */

/* A target with a set, and these slots in state MAPPED and dirty. */
static struct remap *start_dirty(struct kunit *test, u32 a, u32 b)
{
	struct remap *r;

	KUNIT_ASSERT_EQ(test, start(test), 0);
	r = metadata_test(test)->r;
	r->slot[a].unit = 1000 + a;
	r->slot[a].info = dmr_info(DMR_MAPPED, 0);
	commit_mark_slot(r, a);
	r->slot[b].unit = 1000 + b;
	r->slot[b].info = dmr_info(DMR_MAPPED, 0);
	commit_mark_slot(r, b);
	return r;
}

/* Copy A of all of them, then copy B; a block once, however many its slots. */
static void order_of_a_commit(struct kunit *test)
{
	struct remap *r = start_dirty(test, 3, 300);

	commit_mark_slot(r, 4);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "SW296+1 SW256+1 SW334+1 SW294+1");
	expect_table(test, 256, TABLE_SEQ + 1);
	expect_table(test, 334, TABLE_SEQ + 1);
	KUNIT_EXPECT_TRUE(test, slot_durable(r, 3));
	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "");
	KUNIT_EXPECT_EQ(test, start(test), 0);
	r = metadata_test(test)->r;
	KUNIT_EXPECT_EQ(test, slots_first(r, 1003, 1003), 3);
	KUNIT_EXPECT_EQ(test, slots_first(r, 1300, 1300), 300);
}

/* What the disk says of each state in memory. */
static void images_of_states(struct kunit *test)
{
	static const struct {
		unsigned int state;
		u32 on_disk;	/* with generation 7, 0: nothing */
	} rows[] = {
		{ DMR_FREE, 0 },
		{ DMR_MAPPED, DMR_MAPPED | 7 << 8 },
		{ DMR_LOST, DMR_LOST | 7 << 8 },
		{ DMR_BAD, DMR_BAD },
		{ DMR_TAKEN, 0 },
		{ DMR_SEALING, DMR_MAPPED | 7 << 8 },
		{ DMR_DOUBT, 0 },
		{ DMR_LEFT, 0 },
		{ DMR_FOUND, DMR_LOST | 7 << 8 },
		{ DMR_SETTLING, DMR_MAPPED | 7 << 8 },
	};
	struct remap *r = start_dirty(test, 100, 101);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		r->slot[i].unit = 50 + i;
		r->slot[i].info = dmr_info(rows[i].state, 7);
	}
	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	KUNIT_EXPECT_TRUE(test, dmr_same_body(block_at(test, 256),
					      block_at(test, 294)));
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct dmr_entry *e = &table_at(test, 256)->entry[i];
		bool has_unit = rows[i].on_disk >> 8;

		KUNIT_EXPECT_EQ_MSG(test, dmr_get32(e->state_gen),
				    rows[i].on_disk, "row %u", i);
		KUNIT_EXPECT_EQ_MSG(test, dmr_get64(e->unit),
				    has_unit ? 50 + i : 0, "row %u", i);
		KUNIT_EXPECT_EQ(test, dmr_get32(e->zero), 0);
	}
	KUNIT_EXPECT_PTR_EQ(test, dmr_table_check(block_at(test, 256), 252,
						  UNITS), NULL);
}

/* A home that refuses: the copy goes to a stand-in, and stays there. */
static void commit_to_stand_ins(struct kunit *test)
{
	struct remap *r = start_dirty(test, 3, 4);

	unwritable(test, 256, 1);
	unwritable(test, 128, 2);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "SW256+1! SW0+1 SW255+1 SW128+1! SW0+1 SW255+1 SW129+1! SW0+1 SW255+1 SW130+1 SW294+1");
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_away), 1);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_COPIES], 1);
	KUNIT_EXPECT_EQ(test, seq_at(test, 130), TABLE_SEQ + 1);
	commit_mark_slot(r, 3);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "SW130+1 SW294+1");
	/* It refuses, too: the next one, and the old one is not used again. */
	unwritable(test, 130, 1);
	unwritable(test, 295, 1);
	commit_mark_slot(r, 3);
	commit_mark_slot(r, 260);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "SW257+1 SW130+1! SW0+1 SW255+1 SW131+1 SW295+1! SW0+1 SW255+1 SW254+1 SW294+1");
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_away), 2);
	/* A load finds all of it. */
	KUNIT_EXPECT_EQ(test, start(test), 0);
	r = metadata_test(test)->r;
	KUNIT_EXPECT_EQ(test, r->mblock[1].standin[0], 131);
	KUNIT_EXPECT_EQ(test, r->mblock[2].standin[1], 254);
	KUNIT_EXPECT_EQ(test, slots_first(r, 0, UNITS), 3);
}

/* Three stand-ins fail in a row: that block is not durable, and no more is. */
static void commit_fails(struct kunit *test)
{
	struct remap *r = start_dirty(test, 3, 300);

	unwritable(test, 256, 1);
	unwritable(test, 128, 4);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), -EIO);
	/* Its copy B is left as it is. */
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "SW296+1 SW256+1! SW0+1 SW255+1 SW128+1! SW0+1 SW255+1 SW129+1! SW0+1 SW255+1 SW130+1! SW334+1");
	KUNIT_EXPECT_FALSE(test, slot_durable(r, 3));
	KUNIT_EXPECT_FALSE(test, slot_durable(r, 251));
	KUNIT_EXPECT_TRUE(test, slot_durable(r, 252));
	KUNIT_EXPECT_TRUE(test, slot_durable(r, 300));
	KUNIT_EXPECT_EQ(test, r->mode, DMR_MODE_RO);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_MODE], 1);
	expect_table(test, 294, TABLE_SEQ);
	expect_table(test, 334, TABLE_SEQ + 1);
	/* Nothing is written in mode ro. */
	commit_mark_slot(r, 260);
	commit_mark_block(r, 0);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), -EIO);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "");
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_MODE], 1);
}

/* Copy A was written and copy B is nowhere: what the next load finds counts. */
static void commit_half_fails(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	struct remap *r = start_dirty(test, 3, 4);

	unwritable(test, 294, 1);
	bitmap_fill(r->standin_used, DMR_NR_STANDINS);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), -EIO);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "SW256+1 SW294+1!");
	KUNIT_EXPECT_FALSE(test, slot_durable(r, 3));
	expect_table(test, 256, TABLE_SEQ + 1);
	fake_disk_bad(t->spare, WRITE, 0, DISK * DMR_BLOCK_SECTORS, BLK_STS_OK);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, slots_first(t->r, 0, UNITS), 3);
	expect_table(test, 294, TABLE_SEQ + 3);
}

/* A spare that is slow to die: 30 s, and one stand-in past a deadline. */
static void commit_takes_its_time(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	struct remap *r = start_dirty(test, 3, 300);

	t->spare->fail_ticks = 8 * HZ;
	unwritable(test, 296, 1);
	unwritable(test, 128, 127);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), -EIO);
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "SW296+1! SW0+1 SW255+1 SW128+1! SW0+1 SW255+1 SW129+1! SW0+1 SW255+1 SW130+1!");
	KUNIT_EXPECT_FALSE(test, slot_durable(r, 3));

	fake_disk_bad(t->spare, WRITE, 0, DISK * DMR_BLOCK_SECTORS, BLK_STS_OK);
	r = start_dirty(test, 5, 6);
	unwritable(test, 256, 1);
	r->suspend_deadline = (fake.now + HZ) | 1;
	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "SW256+1! SW0+1 SW255+1 SW131+1 SW294+1");

	fake_disk_bad(t->spare, WRITE, 0, DISK * DMR_BLOCK_SECTORS, BLK_STS_OK);
	/* Where this copy lives by now, and all other stand-ins. */
	r = start_dirty(test, 5, 6);
	unwritable(test, 128, 127);
	r->suspend_deadline = (fake.now + HZ) | 1;
	KUNIT_EXPECT_EQ(test, commit_dirty(r), -EIO);
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "SW131+1! SW0+1 SW255+1 SW132+1!");
}

static void commit_of_a_name(struct kunit *test)
{
	struct remap *r = start_dirty(test, 3, 4);
	u8 name[DMR_NAME_SIZE] = "north";

	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	fake_traced();
	commit_set_name(r, name);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "SW0+1 SW255+1");
	KUNIT_EXPECT_STREQ(test, super_at(test, 0)->name, "north");
	KUNIT_EXPECT_STREQ(test, super_at(test, 255)->name, "north");
	KUNIT_EXPECT_EQ(test, seq_at(test, 255), SUPER_SEQ + 1 + RAISE);
	unwritable(test, 255, 1);
	unwritable(test, 128, 127);
	name[0] = 's';
	commit_set_name(r, name);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), -EIO);
	KUNIT_EXPECT_EQ(test, start(test), -EIO);
}

static void expect_retired(struct kunit *test, u64 seq)
{
	const struct dmr_super *a = super_at(test, 0);

	KUNIT_EXPECT_EQ(test, dmr_get64(a->incompat), DMR_INCOMPAT_SUPERSEDED);
	KUNIT_EXPECT_TRUE(test, dmr_same_body(a, super_at(test, 255)));
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), seq);
	KUNIT_EXPECT_EQ(test, seq_at(test, 255), seq);
	create(test);
	expect_refused(test, -EINVAL,
		       "the set has gone on elsewhere: run dmremapctl check");
}

/* Both superblocks say so, and nothing else of them changes. */
static void retire_a_set(struct kunit *test)
{
	struct dmr_super before;
	struct remap *r;

	KUNIT_ASSERT_EQ(test, start(test), 0);
	r = metadata_test(test)->r;
	before = *super_at(test, 255);
	KUNIT_EXPECT_EQ(test, commit_retire(r), 0);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "SW0+1 SW255+1");
	KUNIT_EXPECT_EQ(test, r->retired, 3);
	KUNIT_EXPECT_EQ(test, r->mode, DMR_MODE_RO);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_MODE], 1);
	before.incompat = dmr_put64(DMR_INCOMPAT_SUPERSEDED);
	KUNIT_EXPECT_TRUE(test, dmr_same_body(&before, super_at(test, 0)));
	/* Once more: it is done. */
	KUNIT_EXPECT_EQ(test, commit_retire(r), 0);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "");
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_MODE], 1);
	expect_retired(test, SUPER_SEQ + 1 + RAISE);
}

/* Copy A can be written nowhere: copy B is left alone, and the set is what it was. */
static void retire_refused(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	struct remap *r;

	KUNIT_ASSERT_EQ(test, start(test), 0);
	r = t->r;
	unwritable(test, 0, 1);
	unwritable(test, 128, 127);
	KUNIT_EXPECT_EQ(test, commit_retire(r), -EIO);
	KUNIT_EXPECT_EQ(test, r->retired, 0);
	KUNIT_EXPECT_EQ(test, r->mode, DMR_MODE_RO);
	KUNIT_EXPECT_EQ(test, dmr_get64(r->super->incompat), 0);
	KUNIT_EXPECT_EQ(test, seq_at(test, 255), SUPER_SEQ + RAISE);
	fake_disk_bad(t->spare, WRITE, 0, DISK * DMR_BLOCK_SECTORS, 0);
	fake_traced();
	KUNIT_EXPECT_EQ(test, commit_retire(r), 0);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "SW0+1 SW255+1");
	expect_retired(test, SUPER_SEQ + 1 + RAISE);
}

/* Copy B cannot: copy A ends the set, and what is tried again is copy B. */
static void retire_half(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	struct remap *r;

	KUNIT_ASSERT_EQ(test, start(test), 0);
	r = t->r;
	unwritable(test, 255, 1);
	unwritable(test, 128, 127);
	KUNIT_EXPECT_EQ(test, commit_retire(r), -EIO);
	KUNIT_EXPECT_EQ(test, r->retired, 1);
	KUNIT_EXPECT_EQ(test, r->mode, DMR_MODE_RO);
	KUNIT_EXPECT_EQ(test, commit_retire(r), -EIO);
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ + 1 + RAISE);
	KUNIT_EXPECT_EQ(test, seq_at(test, 255), SUPER_SEQ + RAISE);
	fake_disk_bad(t->spare, WRITE, 0, DISK * DMR_BLOCK_SECTORS, 0);
	fake_traced();
	KUNIT_EXPECT_EQ(test, commit_retire(r), 0);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "SW255+1");
	expect_retired(test, SUPER_SEQ + 1 + RAISE);
}

/* A home that refuses it is no reason. */
static void retire_to_a_stand_in(struct kunit *test)
{
	struct remap *r;

	KUNIT_ASSERT_EQ(test, start(test), 0);
	r = metadata_test(test)->r;
	unwritable(test, 0, 1);
	KUNIT_EXPECT_EQ(test, commit_retire(r), 0);
	KUNIT_EXPECT_EQ(test, r->retired, 3);
	KUNIT_EXPECT_NE(test, r->mblock[0].standin[0], 0);
	KUNIT_EXPECT_EQ(test, seq_at(test, 255), SUPER_SEQ + 1 + RAISE);
	create(test);
	expect_refused(test, -EINVAL,
		       "the set has gone on elsewhere: run dmremapctl check");
}

/* A commit has failed before: what is left of that is not contradicted. */
static void retire_in_mode_ro(struct kunit *test)
{
	static const u8 name[DMR_NAME_SIZE] = "north";
	struct metadata_test *t = metadata_test(test);
	struct remap *r;

	KUNIT_ASSERT_EQ(test, start(test), 0);
	r = t->r;
	unwritable(test, 255, 1);
	unwritable(test, 128, 127);
	commit_set_name(r, name);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), -EIO);
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ + 1 + RAISE);
	fake_disk_bad(t->spare, WRITE, 0, DISK * DMR_BLOCK_SECTORS, 0);
	KUNIT_EXPECT_EQ(test, commit_retire(r), 0);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_MODE], 1);
	expect_retired(test, SUPER_SEQ + 3 + RAISE);
}

/* The superblock is written twice before the tables, and has its own sequence. */
static void commit_of_all(struct kunit *test)
{
	struct remap *r = start_dirty(test, 3, 300);
	u8 name[DMR_NAME_SIZE] = "north";
	u64 seq = SUPER_SEQ + RAISE;

	commit_set_name(r, name);
	commit_mark_slot(r, 260);
	unwritable(test, 256, 1);
	unwritable(test, 334, 1);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	/*
	 * A name is durable in both before its stand-in is written.  Copy B takes
	 * the last one.
	 */
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "SW0+1 SW255+1 SW257+1 SW296+1 SW256+1! SW0+1 SW255+1 SW128+1 SW295+1 SW334+1! SW0+1 SW255+1 SW254+1 SW294+1");
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), seq + 3);
	KUNIT_EXPECT_EQ(test, seq_at(test, 255), seq + 3);
	KUNIT_EXPECT_EQ(test, r->mblock[0].seq, seq + 3);
	KUNIT_EXPECT_STREQ(test, super_at(test, 255)->name, "north");
	expect_name(test, 128, 256);
	expect_name(test, 254, 334);
	expect_table(test, 128, TABLE_SEQ + 1);
	expect_table(test, 254, TABLE_SEQ + 1);
	expect_table(test, 294, TABLE_SEQ + 1);
	expect_table(test, 296, TABLE_SEQ + 1);
	/* A name is given once. */
	commit_mark_slot(r, 3);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "SW128+1 SW294+1");
	/* A load has nothing to mend. */
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), seq + 3 + RAISE);
	r = metadata_test(test)->r;
	KUNIT_EXPECT_EQ(test, r->mblock[1].standin[0], 128);
	KUNIT_EXPECT_EQ(test, r->mblock[3].standin[1], 254);
	expect_table(test, 128, TABLE_SEQ + 2);
}

/* The power fails after so many writes of a commit whose home refuses. */
static void cut_commit(struct kunit *test, unsigned int writes)
{
	struct metadata_test *t = metadata_test(test);
	struct remap *r;

	heal(test);
	memset(block_at(test, 128), 0, 2 * DMR_BLOCK_SIZE);
	put_set(test);
	r = start_dirty(test, 3, 4);
	unwritable(test, 256, 1);
	t->spare->dies_after = writes + 1;
	KUNIT_EXPECT_EQ(test, commit_dirty(r), -EIO);
	heal(test);
	unwritable(test, 256, 1);
	expect_erased(test, 128);
}

static void cut_while_naming(struct kunit *test)
{
	const unsigned int bit = 128 - DMR_STANDIN_FIRST;
	struct remap *r;

	/* One superblock has it: the load makes that two, */
	cut_commit(test, 2);
	KUNIT_EXPECT_EQ(test, dmr_get64(super_at(test, 0)->standin[bit]), 256);
	KUNIT_EXPECT_EQ(test, dmr_get64(super_at(test, 255)->standin[bit]), 0);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	expect_name(test, 128, 256);
	/* or, if it cannot be read, none. */
	cut_commit(test, 2);
	unreadable(test, 0);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	expect_name(test, 128, 0);
	/* Both have it, and nothing is there: it is free to that copy alone. */
	cut_commit(test, 3);
	expect_name(test, 128, 256);
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ + RAISE + 1);
	KUNIT_EXPECT_EQ(test, seq_at(test, 255), SUPER_SEQ + RAISE + 1);
	unwritable(test, 294, 1);
	r = start_dirty(test, 3, 4);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "SW256+1! SW128+1 SW294+1! SW0+1 SW255+1 SW254+1");
}

/* Without a name nothing is written, and of superblocks nothing any more. */
static void name_that_fails(struct kunit *test)
{
	struct remap *r = start_dirty(test, 3, 300);
	u8 name[DMR_NAME_SIZE] = "north";
	u64 seq = SUPER_SEQ + RAISE;

	unwritable(test, 256, 1);
	unwritable(test, 255, 1);
	unwritable(test, 136, 113);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), -EIO);
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "SW296+1 SW256+1! SW0+1 SW255+1! SW248+1! SW232+1! SW216+1! SW200+1! SW184+1! SW168+1! SW152+1! SW136+1! SW334+1");
	KUNIT_EXPECT_EQ(test, r->mode, DMR_MODE_RO);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_MODE], 1);
	KUNIT_EXPECT_FALSE(test, slot_durable(r, 3));
	KUNIT_EXPECT_TRUE(test, slot_durable(r, 300));
	expect_erased(test, 128);
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), seq + 1);
	KUNIT_EXPECT_EQ(test, seq_at(test, 255), seq);
	/* Another one with that sequence would contradict the first. */
	heal(test);
	commit_set_name(r, name);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), -EIO);
	r->mode = DMR_MODE_RW;
	commit_set_name(r, name);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), -EIO);
	KUNIT_EXPECT_EQ(test, area_write_super(r, 1, 1), -EIO);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "");
	/* The next load has both. */
	KUNIT_ASSERT_EQ(test, start(test), 0);
	expect_name(test, 128, 256);
	KUNIT_EXPECT_EQ(test, seq_at(test, 255), seq + 3 + RAISE);
	r = metadata_test(test)->r;
	KUNIT_EXPECT_EQ(test, slots_first(r, 0, UNITS), 300);
}

/* First one that is named for the copy, then one that was never used. */
static void choice_of_a_stand_in(struct kunit *test)
{
	struct remap *r;
	u64 place;

	/* All of these are for another copy. */
	for (place = 128; place < 136; place++)
		put_name(test, place, 294);
	put_name(test, 140, 256);
	put_name(test, 141, 256);
	unwritable(test, 256, 1);
	r = start_dirty(test, 3, 4);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "SW256+1! SW140+1 SW294+1");
	/* None that is the superblock's own, nor one that cannot be read. */
	unwritable(test, 140, 2);
	unreadable(test, 137);
	((u8 *)block_at(test, 138))[77] = 1;
	table_at(test, 139)->entry[0].state_gen = dmr_put32(DMR_BAD);
	seal_table(test, 139, 99, 256);
	unwritable(test, 139, 1);
	r = start_dirty(test, 3, 4);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "SW140+1! SW141+1! SW0+1 SW255+1 SW138+1 SW294+1");
	expect_name(test, 138, 256);
	KUNIT_EXPECT_EQ(test, seq_at(test, 138), TABLE_SEQ + 2);
	/* Three tries, and what has refused has its name. */
	unwritable(test, 138, 1);
	unwritable(test, 142, 2);
	commit_mark_slot(r, 3);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), -EIO);
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "SW138+1! SW0+1 SW255+1 SW139+1! SW0+1 SW255+1 SW142+1! SW0+1 SW255+1 SW143+1!");
	expect_name(test, 143, 256);
	expect_name(test, 144, 0);
}

/* Four places of a copy refuse for good.  There are others. */
static void stand_ins_that_refuse(struct kunit *test)
{
	struct remap *r;
	u64 place;

	for (place = 128; place < 131; place++)
		put_name(test, place, 256);
	unwritable(test, 256, 1);
	unwritable(test, 128, 3);
	r = start_dirty(test, 3, 4);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "SW256+1! SW128+1! SW0+1 SW255+1 SW131+1 SW294+1");
}

/* What is named for one copy is never another's, nor is a superblock's own. */
static void stand_ins_of_others(struct kunit *test)
{
	struct remap *r;
	u64 place;

	for (place = 128; place < 255; place++)
		if (!dmr_is_refuge(place))
			put_name(test, place, 294);
	unwritable(test, 294, 1);
	r = start_dirty(test, 3, 4);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "SW256+1 SW294+1! SW254+1");
	unwritable(test, 256, 1);
	commit_mark_slot(r, 3);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), -EIO);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "SW256+1!");
	KUNIT_EXPECT_EQ(test, r->mode, DMR_MODE_RO);
}

/* A superblock goes to one of its own that is blank, and nowhere else. */
static void choice_of_a_refuge(struct kunit *test)
{
	struct remap *r = start_dirty(test, 3, 4);
	u64 place;

	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	((u8 *)block_at(test, 248))[DMR_BLOCK_SIZE - 1] = 1;
	seal_table(test, 232, 1, 256);
	unwritable(test, 255, 1);
	unwritable(test, 216, 1);
	/* The load begins an epoch. */
	KUNIT_EXPECT_EQ(test, start(test), 0);
	r = metadata_test(test)->r;
	KUNIT_EXPECT_EQ(test, r->mblock[0].standin[1], 200);
	KUNIT_EXPECT_EQ(test, seq_at(test, 200), r->mblock[0].seq);
	/* What it has left, and what was tried, is not used again. */
	unwritable(test, 200, 1);
	commit_mark_block(r, 0);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "SW0+1 SW200+1! SW184+1");
	/* Copy A looks for one from the other end. */
	unwritable(test, 0, 1);
	commit_mark_block(r, 0);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "SW0+1! SW136+1 SW184+1");
	/* None is left, though each other stand-in is. */
	heal(test);
	unwritable(test, 136, 1);
	for (place = 136; place < 255; place += 16)
		if (place != 136 && place != 184 && place != 200)
			seal_table(test, place, 1, 256);
	r = create(test);
	KUNIT_ASSERT_EQ(test, inspect(test), 0);
	fake_traced();
	KUNIT_EXPECT_EQ(test, load_set(r), 0);
	KUNIT_EXPECT_TRUE(test, r->no_raise);
	KUNIT_EXPECT_NOT_NULL(test, strstr(fake_traced(), " SW136+1!"));
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_away), 2);
}

/* One of four blocks, where they live now, for 15 s. */
static void spare_answers(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	struct remap *r = start_dirty(test, 3, 4);

	KUNIT_EXPECT_TRUE(test, area_readable(r, r->probe_page));
	KUNIT_EXPECT_STREQ(test, fake_traced(), "Sr0+1");
	unwritable(test, 256, 1);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	fake_traced();
	unreadable(test, 0);
	unreadable(test, 255);
	KUNIT_EXPECT_TRUE(test, area_readable(r, r->probe_page));
	KUNIT_EXPECT_STREQ(test, fake_traced(), "Sr0+1! Sr255+1! Sr128+1");
	unreadable(test, 128);
	KUNIT_EXPECT_TRUE(test, area_readable(r, r->probe_page));
	unreadable(test, 294);
	fake_traced();
	KUNIT_EXPECT_FALSE(test, area_readable(r, r->probe_page));
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "Sr0+1! Sr255+1! Sr128+1! Sr294+1!");
	t->spare->fail_ticks = 8 * HZ;
	KUNIT_EXPECT_FALSE(test, area_readable(r, r->probe_page));
	KUNIT_EXPECT_STREQ(test, fake_traced(), "Sr0+1! Sr255+1!");
}

/*----------------------------------------------------------------
 * Scrubs
 *----------------------------------------------------------------
 */

/* A running set with a mapping in block 1 and one in block 3. */
static struct remap *start_mapped(struct kunit *test)
{
	struct remap *r = start_dirty(test, 3, 300);

	KUNIT_ASSERT_EQ(test, commit_dirty(r), 0);
	fake_traced();
	return r;
}

static void scrub_in_order(struct kunit *test)
{
	struct remap *r = start_mapped(test);
	u32 mb;

	for (mb = 0; mb < MBLOCKS; mb++) {
		KUNIT_EXPECT_EQ(test, commit_scrub(r, mb, 0), DMR_SCRUB_GOOD);
		KUNIT_EXPECT_EQ(test, commit_scrub(r, mb, 1), DMR_SCRUB_GOOD);
	}
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "Sr0+1 Sr255+1 Sr256+1 Sr294+1 Sr257+1 Sr295+1 Sr296+1 Sr334+1 Sr297+1 Sr335+1");
	/* A copy is read where it lives. */
	unwritable(test, 294, 1);
	commit_mark_slot(r, 3);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	fake_traced();
	KUNIT_EXPECT_EQ(test, commit_scrub(r, 1, 1), DMR_SCRUB_GOOD);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "Sr254+1");
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_COPIES], 1);
}

/* Of two copies the one that is gone is written, and no other. */
static void scrub_of_one_copy(struct kunit *test)
{
	static const struct {
		u32 mb;
		int copy;
		const char *trace;
	} rows[] = {
		{ 0, 0, "Sr0+1! Sr0+1! Sr255+1 SW0+1 Sr0+1" },
		{ 0, 1, "Sr255+1! Sr0+1 SW255+1 Sr255+1" },
		{ 1, 0, "Sr256+1! Sr0+1 SW256+1 Sr256+1" },
		{ 1, 1, "Sr294+1! Sr0+1 SW294+1 Sr294+1" },
		{ 4, 1, "Sr335+1! Sr0+1 SW335+1 Sr335+1" },
	};
	struct remap *r = start_mapped(test);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		u32 mb = rows[i].mb;
		u64 home = homes[mb][rows[i].copy];
		u64 seq = r->mblock[mb].seq;

		memset(block_at(test, home), 0, DMR_BLOCK_SIZE);
		unreadable(test, home);
		KUNIT_EXPECT_EQ(test, commit_scrub(r, mb, rows[i].copy),
				DMR_SCRUB_WRITTEN);
		KUNIT_EXPECT_STREQ(test, fake_traced(), rows[i].trace);
		KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_COPIES], i + 1);
		KUNIT_EXPECT_EQ(test, r->mblock[mb].seq, seq);
		KUNIT_EXPECT_EQ(test, seq_at(test, homes[mb][0]), seq);
		KUNIT_EXPECT_EQ(test, seq_at(test, homes[mb][1]), seq);
	}
	/* A load finds nothing to do. */
	KUNIT_EXPECT_EQ(test, start(test), 0);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_COPIES], i);
	r = metadata_test(test)->r;
	KUNIT_EXPECT_EQ(test, slots_first(r, 1003, 1003), 3);
	KUNIT_EXPECT_EQ(test, slots_first(r, 1300, 1300), 300);
}

/* Readable, and not what was written last. */
static void scrub_of_what_is_wrong(struct kunit *test)
{
	struct remap *r = start_mapped(test);
	struct dmr_table *t = table_at(test, 256);
	u64 seq = r->mblock[1].seq;

	t->entry[9].zero = dmr_put32(1);
	KUNIT_EXPECT_EQ(test, commit_scrub(r, 1, 0), DMR_SCRUB_WRITTEN);
	/* A write that the disk has lost. */
	seal_table(test, 256, seq - 1, 256);
	KUNIT_EXPECT_EQ(test, commit_scrub(r, 1, 0), DMR_SCRUB_WRITTEN);
	dmr_seal((void *)t, DMR_TYPE_TABLE, other_uuid, seq, 256, 256);
	KUNIT_EXPECT_EQ(test, commit_scrub(r, 1, 0), DMR_SCRUB_WRITTEN);
	seal_table(test, 256, seq, 294);
	KUNIT_EXPECT_EQ(test, commit_scrub(r, 1, 0), DMR_SCRUB_WRITTEN);
	expect_table(test, 256, seq);
	KUNIT_EXPECT_EQ(test, commit_scrub(r, 1, 0), DMR_SCRUB_GOOD);

	/* This is of somebody who believes that the set is his. */
	seal_table(test, 256, seq + 1, 256);
	fake_traced();
	KUNIT_EXPECT_EQ(test, commit_scrub(r, 1, 0), -EUCLEAN);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "Sr256+1");
}

static void scrub_of_both_copies(struct kunit *test)
{
	struct remap *r = start_mapped(test);

	memset(block_at(test, 256), 0, DMR_BLOCK_SIZE);
	memset(block_at(test, 294), 0, DMR_BLOCK_SIZE);
	unreadable(test, 256);
	unreadable(test, 294);
	unwritable(test, 294, 1);
	unwritable(test, 253, 2);
	KUNIT_EXPECT_EQ(test, commit_scrub(r, 1, 0), DMR_SCRUB_WRITTEN);
	KUNIT_EXPECT_EQ(test, commit_scrub(r, 1, 1), DMR_SCRUB_WRITTEN);
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "Sr256+1! Sr0+1 SW256+1 Sr256+1 Sr294+1! Sr0+1 SW294+1! SW0+1 SW255+1 SW254+1! SW0+1 SW255+1 SW253+1! SW0+1 SW255+1 SW252+1 Sr252+1");
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_away), 1);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_COPIES], 2);
	KUNIT_EXPECT_EQ(test, start(test), 0);
	r = metadata_test(test)->r;
	KUNIT_EXPECT_EQ(test, slots_first(r, 1003, 1003), 3);
	KUNIT_EXPECT_EQ(test, r->mblock[1].standin[1], 252);
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_COPIES], 2);
}

/* The set goes on with the copy that it has. */
static void scrub_fails(struct kunit *test)
{
	struct remap *r = start_mapped(test);

	unreadable(test, 294);
	unwritable(test, 294, 1);
	unwritable(test, 128, 127);
	KUNIT_EXPECT_EQ(test, commit_scrub(r, 1, 1), DMR_SCRUB_FAILED);
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "Sr294+1! Sr0+1 SW294+1! SW0+1 SW255+1 SW254+1! SW0+1 SW255+1 SW253+1! SW0+1 SW255+1 SW252+1!");
	KUNIT_EXPECT_EQ(test, r->mode, DMR_MODE_RW);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_away), 0);
}

/* Without superblocks that say the same it cannot. */
static void scrub_cannot_name(struct kunit *test)
{
	struct remap *r = start_mapped(test);

	unreadable(test, 294);
	unwritable(test, 294, 1);
	unwritable(test, 255, 1);
	unwritable(test, 136, 113);
	KUNIT_EXPECT_EQ(test, commit_scrub(r, 1, 1), DMR_SCRUB_FAILED);
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "Sr294+1! Sr0+1 SW294+1! SW0+1 SW255+1! SW248+1! SW232+1! SW216+1! SW200+1! SW184+1! SW168+1! SW152+1! SW136+1!");
	expect_erased(test, 254);
	KUNIT_EXPECT_EQ(test, r->mode, DMR_MODE_RO);
}

/* A spare that is away burns no stand-in. */
static void scrub_without_an_answer(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	struct remap *r = start_mapped(test);

	fake_disk_bad(t->spare, READ, 0, DISK * DMR_BLOCK_SECTORS,
		      BLK_STS_MEDIUM);
	KUNIT_EXPECT_EQ(test, commit_scrub(r, 3, 1), -EIO);
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "Sr334+1! Sr0+1! Sr255+1! Sr256+1! Sr294+1!");
	fake_disk_bad(t->spare, READ, 0, DISK * DMR_BLOCK_SECTORS, BLK_STS_OK);
	fake_disk_bad(t->spare, READ, 334 * DMR_BLOCK_SECTORS,
		      DMR_BLOCK_SECTORS, BLK_STS_TIMEOUT);
	KUNIT_EXPECT_EQ(test, commit_scrub(r, 3, 1), -EIO);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "Sr334+1!");
}

/* The spare goes away before a copy that it took is read: no stand-in is burnt. */
static void scrub_loses_the_spare(struct kunit *test)
{
	struct remap *r = start_mapped(test);

	unreadable(test, 294);
	metadata_test(test)->spare->dies_after = 4;
	KUNIT_EXPECT_EQ(test, commit_scrub(r, 1, 1), -EIO);
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "Sr294+1! Sr0+1 SW294+1 Sr294+1! Sr0+1! Sr255+1! Sr256+1! Sr294+1!");
	KUNIT_EXPECT_EQ(test, fake.events[DMR_EV_COPIES], 0);
	KUNIT_EXPECT_TRUE(test, bitmap_empty(r->standin_used, DMR_NR_STANDINS));
}

/* Nothing is written any more when a suspend waits; of a suspended device it is. */
static void scrub_makes_room_for_a_suspend(struct kunit *test)
{
	struct remap *r = start_mapped(test);

	unreadable(test, 294);
	r->suspend_deadline = (fake.now + 30 * HZ) | 1;
	KUNIT_EXPECT_EQ(test, commit_scrub(r, 1, 1), -EAGAIN);
	KUNIT_EXPECT_STREQ(test, fake_traced(), "Sr294+1! Sr0+1");
	r->quiet = true;
	KUNIT_EXPECT_EQ(test, commit_scrub(r, 1, 1), DMR_SCRUB_WRITTEN);
	KUNIT_EXPECT_STREQ(test, fake_traced(),
			   "Sr294+1! Sr0+1 SW294+1 Sr294+1");
}

/*----------------------------------------------------------------
 * Format and growth
 *----------------------------------------------------------------
 */

static void erase(struct kunit *test)
{
	memset(block_at(test, 0), 0, DISK * DMR_BLOCK_SIZE);
}

static struct remap *create_without_uuid(struct kunit *test)
{
	struct remap *r = create(test);

	r->has_uuid = false;
	memset(&r->uuid, 0, sizeof(r->uuid));
	return r;
}

/* A blank area and no uuid: formatted in the order that the format fixes. */
static void format_blank(struct kunit *test)
{
	static const char first[] = "Sr0+1 SW0+1 Sr256+1 SW256+1 Sr257+1 SW257+1";
	static const char last[] = "SW335+1 Sr255+1 SW255+1 Sr0+1 SW0+1";
	struct remap *r;
	const char *trace;

	erase(test);
	r = create_without_uuid(test);
	KUNIT_ASSERT_EQ(test, inspect(test), 0);
	KUNIT_EXPECT_TRUE(test, r->format);
	KUNIT_EXPECT_EQ(test, r->nr_slots, dmr_segment_slots(80, 512));
	KUNIT_EXPECT_PTR_EQ(test, memchr_inv(block_at(test, 0), 0,
					     DISK * DMR_BLOCK_SIZE), NULL);
	fake_traced();
	KUNIT_EXPECT_EQ(test, load_set(r), 0);
	trace = fake_traced();
	KUNIT_EXPECT_NOT_NULL(test, strstr(trace, first));
	KUNIT_EXPECT_NOT_NULL(test, strstr(trace, last));
	KUNIT_EXPECT_FALSE(test, r->format);
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), 2 + RAISE);
	KUNIT_EXPECT_EQ(test, seq_at(test, 255), 2 + RAISE);
	KUNIT_EXPECT_EQ(test, dmr_get64(super_at(test, 0)->epoch.number), 2);
	KUNIT_EXPECT_EQ(test, dmr_get32(super_at(test, 0)->state), DMR_READY);
	/* Any other block is as it was. */
	KUNIT_EXPECT_PTR_EQ(test, memchr_inv(block_at(test, AREA), 0,
					     SEGMENT * DMR_BLOCK_SIZE), NULL);
	r = create_without_uuid(test);
	KUNIT_EXPECT_EQ(test, inspect(test), 0);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	KUNIT_EXPECT_FALSE(test, r->format);
}

/* Where the area is not blank, or is not to be formatted by the kernel. */
static void format_refused(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	struct remap *r;
	u8 *last;

	erase(test);
	create(test);
	expect_refused(test, -ENODATA,
		       "no set with this uuid on the spare: check the device names");
	r = create_without_uuid(test);
	r->read_only = true;
	expect_refused(test, -EROFS,
		       "spare area is blank, but the table is read-only");
	r = create_without_uuid(test);
	r->spare_len = (KERNEL_FORMAT_MAX + 1) * DMR_BLOCK_SECTORS;
	expect_refused(test, -EFBIG,
		       "spare area is over 1 GiB: format it with dmremapctl create");
	last = block_at(test, AREA - 1) + DMR_BLOCK_SIZE - 1;
	*last = 1;
	create_without_uuid(test);
	expect_refused(test, -EBUSY,
		       "spare area is neither blank (all zeros) nor a set");
	*last = 0;
	unreadable(test, 300);
	create_without_uuid(test);
	expect_refused(test, -EBUSY,
		       "spare area is neither blank (all zeros) nor a set");
	fake_disk_bad(t->spare, READ, 0, DISK * DMR_BLOCK_SECTORS, BLK_STS_OK);
	/* Somebody wrote between ctr and the first resume. */
	create_without_uuid(test);
	KUNIT_EXPECT_EQ(test, inspect(test), 0);
	((u8 *)block_at(test, 257))[100] = 1;
	KUNIT_EXPECT_EQ(test, load(test), -EBUSY);
	KUNIT_EXPECT_EQ(test, ((u8 *)block_at(test, 257))[100], 1);
}

/* Another device has formatted the area since, under another name of the disk. */
static void format_of_another(struct kunit *test)
{
	struct remap *other = create_other(test);

	erase(test);
	create_without_uuid(test);
	KUNIT_EXPECT_EQ(test, inspect(test), 0);
	put_set(test);
	KUNIT_EXPECT_PTR_EQ(test, identity_enter(other), NULL);
	KUNIT_EXPECT_EQ(test, identity_run(other, uuid), 0);
	KUNIT_EXPECT_EQ(test, load(test), -EBUSY);
	/* It is there, but not what ctr has seen. */
	identity_leave(other);
	KUNIT_EXPECT_EQ(test, load(test), -ENODATA);
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ);
	KUNIT_EXPECT_EQ(test, seq_at(test, 255), SUPER_SEQ);
}

/* One that was cut goes on, with the same uuid. */
static void format_goes_on(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	struct remap *r;
	u8 first[16];

	erase(test);
	r = create_without_uuid(test);
	KUNIT_EXPECT_EQ(test, inspect(test), 0);
	memcpy(first, &r->uuid, sizeof(first));
	unwritable(test, 258, 1);
	KUNIT_EXPECT_NE(test, load(test), 0);
	KUNIT_EXPECT_EQ(test, dmr_get32(super_at(test, 0)->state),
			DMR_FORMATTING);
	fake_disk_bad(t->spare, WRITE, 0, DISK * DMR_BLOCK_SECTORS, BLK_STS_OK);
	r = create_without_uuid(test);
	KUNIT_EXPECT_EQ(test, inspect(test), 0);
	KUNIT_EXPECT_TRUE(test, r->format);
	KUNIT_EXPECT_EQ(test, memcmp(first, &r->uuid, sizeof(first)), 0);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	KUNIT_EXPECT_EQ(test, dmr_get32(super_at(test, 0)->state), DMR_READY);
}

/* Main may change between ctr and the first resume.  Nothing is written then. */
static void main_of_a_format(struct kunit *test)
{
	struct metadata_test *t = metadata_test(test);
	struct remap *r;

	erase(test);
	t->main->disk.fops = &has_id;
	r = create_without_uuid(test);
	KUNIT_ASSERT_EQ(test, inspect(test), 0);
	KUNIT_EXPECT_EQ(test, r->identity, DMR_BY_ID);
	put_tag(test, other_uuid, 1);
	KUNIT_EXPECT_EQ(test, load(test), -EINVAL);
	memset(t->main->data, 0, UNITS * SECTOR_SIZE);
	t->main->bdev.bd_nr_sectors--;
	KUNIT_EXPECT_EQ(test, load(test), -EINVAL);
	t->main->bdev.bd_nr_sectors++;
	KUNIT_EXPECT_PTR_EQ(test, memchr_inv(block_at(test, 0), 0,
					     DISK * DMR_BLOCK_SIZE), NULL);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	KUNIT_EXPECT_EQ(test, super_at(test, 0)->main_id_type, BLK_UID_EUI64);
	KUNIT_EXPECT_EQ(test, super_at(test, 255)->main_id_len, 8);
}

static struct remap *create_longer(struct kunit *test)
{
	struct remap *r = create(test);

	r->spare_len = DISK * DMR_BLOCK_SECTORS;
	return r;
}

static void put_extension(struct kunit *test)
{
	static const u64 tables[] = { 336, 337, 374, 375 };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(tables); i++) {
		memset(block_at(test, tables[i]), 0, DMR_BLOCK_SIZE);
		seal_table(test, tables[i], 1, tables[i]);
	}
}

/* A set grows only onto empty tables that are its own, all of them. */
static void growth(struct kunit *test)
{
	static const char * const refusal =
		"spare_len is more than the set has recorded: run dmremapctl grow";
	static const u64 tables[] = { 336, 337, 374, 375 };
	struct remap *r;
	unsigned int i;

	create_longer(test);
	expect_refused(test, -ENODATA, refusal);
	for (i = 0; i < ARRAY_SIZE(tables); i++) {
		u64 home = tables[i];

		put_extension(test);
		table_at(test, home)->entry[251].state_gen = dmr_put32(DMR_BAD);
		seal_table(test, home, 1, home);
		create_longer(test);
		expect_refused(test, -ENODATA, refusal);
		put_extension(test);
		dmr_seal(block_at(test, home), DMR_TYPE_TABLE, other_uuid, 1,
			 home, home);
		create_longer(test);
		expect_refused(test, -ENODATA, refusal);
		put_extension(test);
		seal_table(test, home, 1, home + 1);
		create_longer(test);
		expect_refused(test, -ENODATA, refusal);
		put_extension(test);
		unreadable(test, home);
		create_longer(test);
		expect_refused(test, -ENODATA, refusal);
		fake_disk_bad(metadata_test(test)->spare, READ, 0,
			      DISK * DMR_BLOCK_SECTORS, BLK_STS_OK);
	}
	put_extension(test);
	r = create_longer(test);
	KUNIT_ASSERT_EQ(test, inspect(test), 0);
	KUNIT_EXPECT_EQ(test, r->nr_slots, 3 * SEGMENT_SLOTS);
	KUNIT_EXPECT_EQ(test, dmr_get32(super_at(test, 0)->nr_segments), 2);
	/* Used since: it is somebody else's after all. */
	table_at(test, 336)->entry[0].state_gen = dmr_put32(DMR_BAD);
	seal_table(test, 336, 2, 336);
	KUNIT_EXPECT_EQ(test, load(test), -EBUSY);
	put_extension(test);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	KUNIT_EXPECT_EQ(test, dmr_get32(super_at(test, 0)->nr_segments), 3);
	KUNIT_EXPECT_EQ(test, dmr_get32(super_at(test, 255)->nr_segments), 3);
	KUNIT_EXPECT_EQ(test, dmr_get64(super_at(test, 0)->area_blocks), DISK);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_free), 3 * SEGMENT_SLOTS);
	create(test);
	expect_refused(test, -EINVAL,
		       "spare_len is less than the set has recorded");
}

/* The superblocks of a set that has grown by one segment, up to @end. */
static void put_grown(struct kunit *test, u64 end, u32 slots)
{
	int copy;

	for (copy = 0; copy < 2; copy++) {
		struct dmr_super *sb = super_at(test, homes[0][copy]);

		put_super(sb);
		sb->area_blocks = dmr_put64(end);
		sb->nr_segments = dmr_put32(3);
		set_segment(&sb->segment[2], AREA, end, slots);
		seal_super(test, homes[0][copy], SUPER_SEQ + 1);
	}
}

/* No stand-in can be named for a table that the superblocks do not know yet. */
static void growth_without_stand_ins(struct kunit *test)
{
	struct remap *r;

	put_extension(test);
	r = create_longer(test);
	KUNIT_ASSERT_EQ(test, inspect(test), 0);
	memset(block_at(test, 336), 0, DMR_BLOCK_SIZE);
	unwritable(test, 336, 1);
	fake_traced();
	KUNIT_EXPECT_EQ(test, load_set(r), -EIO);
	KUNIT_EXPECT_NOT_NULL(test, strstr(fake_traced(), " SW336+1!"));
	expect_erased(test, 128);
	expect_name(test, 128, 0);
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ);
	KUNIT_EXPECT_EQ(test, dmr_get32(super_at(test, 0)->nr_segments), 2);
	/* The set as it was starts, and so does the grown one at last. */
	KUNIT_EXPECT_EQ(test, start(test), 0);
	heal(test);
	put_extension(test);
	create_longer(test);
	KUNIT_ASSERT_EQ(test, inspect(test), 0);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	KUNIT_EXPECT_EQ(test, dmr_get32(super_at(test, 255)->nr_segments), 3);
}

/* What the mend names before it is there still when the set has grown. */
static void growth_with_names(struct kunit *test)
{
	struct remap *r;

	put_name(test, 130, 294);
	put_extension(test);
	r = create_longer(test);
	KUNIT_ASSERT_EQ(test, inspect(test), 0);
	memset(block_at(test, 256), 0, DMR_BLOCK_SIZE);
	unwritable(test, 256, 1);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	KUNIT_EXPECT_EQ(test, r->mblock[1].standin[0], 128);
	expect_name(test, 128, 256);
	expect_name(test, 130, 294);
	KUNIT_EXPECT_EQ(test, dmr_get32(super_at(test, 0)->nr_segments), 3);
	KUNIT_EXPECT_EQ(test, dmr_get32(super_at(test, 255)->nr_segments), 3);
	/* The name, the segment, the epoch. */
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ + 2 + RAISE);
	expect_table(test, 128, TABLE_SEQ + 2);
	/* Its tables are like others from now on. */
	unwritable(test, 336, 1);
	commit_mark_slot(r, 2 * SEGMENT_SLOTS);
	KUNIT_EXPECT_EQ(test, commit_dirty(r), 0);
	expect_name(test, 129, 336);
}

/* Somebody else has grown the set since ctr, which allocated for this much. */
static void grown_by_another(struct kunit *test)
{
	struct remap *r;

	put_extension(test);
	r = create_longer(test);
	KUNIT_ASSERT_EQ(test, inspect(test), 0);
	/* Not as far: a fourth segment would be needed, or fits no more. */
	put_grown(test, AREA + 20, 1);
	KUNIT_EXPECT_EQ(test, load(test), -EAGAIN);
	put_grown(test, DISK - 2, 1);
	KUNIT_EXPECT_EQ(test, load(test), -EAGAIN);
	/* Just as far, with other slots, and then with the same. */
	put_grown(test, DISK, SEGMENT_SLOTS - 1);
	KUNIT_EXPECT_EQ(test, load(test), -EAGAIN);
	put_grown(test, DISK, SEGMENT_SLOTS);
	KUNIT_EXPECT_EQ(test, load(test), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&r->nr_free), 3 * SEGMENT_SLOTS);
	KUNIT_EXPECT_EQ(test, seq_at(test, 0), SUPER_SEQ + 1 + RAISE);
}

/*----------------------------------------------------------------
 * At random
 *----------------------------------------------------------------
 */

#define RANDOM_AREAS	60

/* A field anywhere gets a value that somebody might like. */
static void damage(struct kunit *test, struct rnd_state *rnd)
{
	static const u64 values[] = {
		0, 1, 2, 3, 255, 256, UNITS - 1, UNITS, U32_MAX, U64_MAX,
	};
	unsigned int mb = prandom_u32_state(rnd) % MBLOCKS;
	u64 home = homes[mb][prandom_u32_state(rnd) % 2];
	u8 *block = block_at(test, home);
	__le64 value = dmr_put64(values[prandom_u32_state(rnd) %
					ARRAY_SIZE(values)]);
	struct dmr_header *h = (struct dmr_header *)block;
	unsigned int at = prandom_u32_state(rnd) % 512 * 8;

	if (prandom_u32_state(rnd) % 2)
		at %= 256;
	memcpy(block + at, &value, 1 << prandom_u32_state(rnd) % 4);
	/* Most of them pass the checksum. */
	if (prandom_u32_state(rnd) % 8)
		h->crc = dmr_put32(dmr_block_crc(block, home));
}

/* Refused, or a lookup that is sound: nothing else comes out of it. */
static void random_areas(struct kunit *test)
{
	unsigned int i, n, loaded = 0;
	struct rnd_state rnd;
	struct remap *r;
	u32 s;

	prandom_seed_state(&rnd, 11);
	for (i = 0; i < RANDOM_AREAS; i++) {
		put_set(test);
		put_entries(test, 1, 100, DMR_MAPPED, 0);
		put_entries(test, 2, 101, DMR_MAPPED, 1);
		put_entries(test, 290, 101, DMR_LOST, 0);
		for (n = prandom_u32_state(&rnd) % 3 + 1; n; n--)
			damage(test, &rnd);
		r = create(test);
		if (inspect(test) || load(test))
			continue;
		loaded++;
		KUNIT_ASSERT_LE(test, r->nr_slots, 2 * SEGMENT_SLOTS);
		for (s = 0; s < r->nr_slots; s++) {
			u64 unit = r->slot[s].unit;

			if (!is_live(&r->slot[s]))
				continue;
			KUNIT_ASSERT_LT(test, unit, UNITS);
			KUNIT_ASSERT_EQ(test, slots_first(r, unit, unit), s);
		}
		/* And the next load finds nothing to complain of. */
		KUNIT_ASSERT_EQ(test, start(test), 0);
	}
	KUNIT_EXPECT_GT(test, loaded, RANDOM_AREAS / 4);
	KUNIT_EXPECT_LT(test, loaded, RANDOM_AREAS);
}

static struct kunit_case metadata_cases[] = {
	KUNIT_CASE(known_checksums),
	KUNIT_CASE(headers),
	KUNIT_CASE(hostile_superblocks),
	KUNIT_CASE(too_many_slots),
	KUNIT_CASE(slots_of_segments),
	KUNIT_CASE(hostile_tables),
	KUNIT_CASE(homes_of_blocks),
	KUNIT_CASE(one_superblock),
	KUNIT_CASE(newer_superblock),
	KUNIT_CASE(contradicting_superblocks),
	KUNIT_CASE(no_superblock),
	KUNIT_CASE(superblock_in_a_wrong_place),
	KUNIT_CASE(superblock_in_a_stand_in),
	KUNIT_CASE(another_uuid),
	KUNIT_CASE(formatting_counts_less),
	KUNIT_CASE(another_table_line),
	KUNIT_CASE(feature_words),
	KUNIT_CASE(tags),
	KUNIT_CASE(histories),
	KUNIT_CASE(epoch_of_a_load),
	KUNIT_CASE(tag_that_main_refuses),
	KUNIT_CASE(epoch_that_cannot_begin),
	KUNIT_CASE(epoch_that_half_began),
	KUNIT_CASE(last_epoch),
	KUNIT_CASE(epoch_of_an_hour),
	KUNIT_CASE(epoch_after_stop),
	KUNIT_CASE(adopted_main),
	KUNIT_CASE(lost_tags),
	KUNIT_CASE(lost_tags_of_a_slow_main),
	KUNIT_CASE(tag_in_data),
	KUNIT_CASE(id_of_a_volume),
	KUNIT_CASE(set_runs_once),
	KUNIT_CASE(load_empty),
	KUNIT_CASE(load_entries_of_all_states),
	KUNIT_CASE(bad_copies),
	KUNIT_CASE(bad_second_copies),
	KUNIT_CASE(both_copies_gone),
	KUNIT_CASE(load_again),
	KUNIT_CASE(changed_since_ctr),
	KUNIT_CASE(impossible_sequences),
	KUNIT_CASE(newer_copy),
	KUNIT_CASE(contradicting_copies),
	KUNIT_CASE(unit_mapped_twice),
	KUNIT_CASE(unit_that_has_moved),
	KUNIT_CASE(copy_in_a_stand_in),
	KUNIT_CASE(stand_in_that_dies),
	KUNIT_CASE(stand_in_that_rots),
	KUNIT_CASE(hostile_stand_ins),
	KUNIT_CASE(stand_ins_never_used),
	KUNIT_CASE(unreadable_stand_in),
	KUNIT_CASE(torn_stand_ins),
	KUNIT_CASE(torn_refuges),
	KUNIT_CASE(unreadable_refuges),
	KUNIT_CASE(stand_in_of_a_mend),
	KUNIT_CASE(order_of_a_commit),
	KUNIT_CASE(images_of_states),
	KUNIT_CASE(commit_to_stand_ins),
	KUNIT_CASE(commit_fails),
	KUNIT_CASE(commit_half_fails),
	KUNIT_CASE(commit_takes_its_time),
	KUNIT_CASE(commit_of_a_name),
	KUNIT_CASE(retire_a_set),
	KUNIT_CASE(retire_refused),
	KUNIT_CASE(retire_half),
	KUNIT_CASE(retire_to_a_stand_in),
	KUNIT_CASE(retire_in_mode_ro),
	KUNIT_CASE(commit_of_all),
	KUNIT_CASE(cut_while_naming),
	KUNIT_CASE(name_that_fails),
	KUNIT_CASE(choice_of_a_stand_in),
	KUNIT_CASE(stand_ins_that_refuse),
	KUNIT_CASE(stand_ins_of_others),
	KUNIT_CASE(choice_of_a_refuge),
	KUNIT_CASE(spare_answers),
	KUNIT_CASE(scrub_in_order),
	KUNIT_CASE(scrub_of_one_copy),
	KUNIT_CASE(scrub_of_what_is_wrong),
	KUNIT_CASE(scrub_of_both_copies),
	KUNIT_CASE(scrub_fails),
	KUNIT_CASE(scrub_cannot_name),
	KUNIT_CASE(scrub_without_an_answer),
	KUNIT_CASE(scrub_loses_the_spare),
	KUNIT_CASE(scrub_makes_room_for_a_suspend),
	KUNIT_CASE(format_blank),
	KUNIT_CASE(format_refused),
	KUNIT_CASE(format_of_another),
	KUNIT_CASE(format_goes_on),
	KUNIT_CASE(main_of_a_format),
	KUNIT_CASE(growth),
	KUNIT_CASE(growth_without_stand_ins),
	KUNIT_CASE(growth_with_names),
	KUNIT_CASE(grown_by_another),
	KUNIT_CASE(random_areas),
	{ }
};

static struct kunit_suite metadata_suite = {
	.name = "dm-remap-metadata",
	.init = metadata_init,
	.test_cases = metadata_cases,
};

kunit_test_suite(metadata_suite);
