// SPDX-License-Identifier: GPL-2.0-only
/*
 * One block of metadata: where its copies live, how they are read and written.
 *
 * Every block has two copies and each copy a home.  A copy whose place refuses a
 * write goes to a stand-in, and no place of a good copy is overwritten to save
 * another: so at every instant one whole copy is on disk, whatever fails.  Which
 * copy is written when is the business of dm-remap-commit.c and dm-remap-load.c;
 * what is here is durable when it returns, and knows of one order alone:
 *
 *  1. the name of a stand-in, in superblock copy 0, then in copy 1;
 *  2. what the stand-in stands for.
 *
 * A load that cannot read a stand-in has to know what it may hide.  So the name is
 * durable twice before anything stands there, and never changes.  It has a commit of
 * the superblock to itself, with a sequence of its own, in the middle of whatever
 * commit needs it.
 *
 * Context: process.  Those that write use r->page and r->mblock[], which belong to
 * the commit work, or to preresume or a message while no I/O runs.  The narrow
 * work may call area_readable() with a page of its own, and nothing else.
 * Allocates nothing.
 */
#include "dm-remap.h"

#define READABLE_TIME	(15 * HZ)	/* spent on blocks that fail */

/*----------------------------------------------------------------
 * Block I/O
 *----------------------------------------------------------------
 */

/**
 * dmr_block_io() - read or write one page or less, synchronously
 * @bdev: the device
 * @sector: of the device
 * @page: from or to its start
 * @bytes: at most PAGE_SIZE
 * @opf: operation and flags
 *
 * Allocates nothing.
 */
int dmr_block_io(struct block_device *bdev, sector_t sector, struct page *page,
		 unsigned int bytes, blk_opf_t opf)
{
	struct bio_vec bvec;
	struct bio bio;
	int r;

	bio_init(&bio, bdev, &bvec, 1, opf);
	bio.bi_iter.bi_sector = sector;
	__bio_add_page(&bio, page, bytes, 0);
	r = submit_bio_wait(&bio);
	bio_uninit(&bio);
	return r;
}

/*
 * May a write to this device have FUA?  A spare that has refused it once is not
 * asked again.
 */
bool dmr_use_fua(struct remap *r, struct block_device *bdev)
{
	return bdev != r->spare->bdev || !READ_ONCE(r->spare_no_fua);
}

/*
 * Was it perhaps the command that the device does not take, and not the block?
 * Any context.
 */
bool dmr_command_refused(blk_status_t status)
{
	return status == BLK_STS_NOTSUPP || status == BLK_STS_TARGET;
}

/**
 * dmr_flushed() - a flush of the spare has succeeded
 * @r: the target
 * @sample: r->spare_writes before it was issued
 *
 * Any context.  r->spare_flushed only grows, whatever order flushes end in.
 */
void dmr_flushed(struct remap *r, u64 sample)
{
	u64 old = atomic64_read(&r->spare_flushed);

	while (old < sample) {
		u64 seen = atomic64_cmpxchg(&r->spare_flushed, old, sample);

		if (seen == old)
			break;
		old = seen;
	}
}

/**
 * dmr_flush_instead() - make a write durable that went without FUA
 * @r: the target
 * @bdev: main or the spare, which has completed the write
 *
 * On the spare the write counts like any other that has no FUA, before anybody
 * hears of it.
 *
 * Return: 0, or -ENOLINK, which is never suspect: it is the whole device that does
 * not flush, and no bad block.
 */
int dmr_flush_instead(struct remap *r, struct block_device *bdev)
{
	bool spare = bdev == r->spare->bdev;
	u64 sample = 0;
	int ret;

	if (spare)
		sample = atomic64_inc_return(&r->spare_writes);
	ret = blkdev_issue_flush(bdev);
	event_flushed(r, spare ? DMR_SPARE : DMR_MAIN, errno_to_blk_status(ret));
	if (ret)
		return -ENOLINK;
	dmr_flushed(r, sample);
	if (spare && !READ_ONCE(r->spare_no_fua)) {
		WRITE_ONCE(r->spare_no_fua, true);
		DMWARN("%s: the spare refuses FUA, it gets a write and a flush each time",
		       dmr_name(r));
	}
	return 0;
}

/**
 * dmr_write_durable() - write one page or less, synchronously
 * @r: the target
 * @bdev: main or the spare
 * @sector: of the device
 * @page: from its start
 * @bytes: at most PAGE_SIZE
 * @flags: besides FUA, which it has unless the device refuses that
 *
 * Some devices say that they know FUA, and refuse it.  They get the write, and when
 * that is complete a flush.  A block that is bad refuses the write, too.
 *
 * Return: 0 when it is durable.
 */
int dmr_write_durable(struct remap *r, struct block_device *bdev,
		      sector_t sector, struct page *page, unsigned int bytes,
		      blk_opf_t flags)
{
	blk_opf_t opf = REQ_OP_WRITE | REQ_SYNC | flags;
	int ret;

	if (dmr_use_fua(r, bdev)) {
		ret = dmr_block_io(bdev, sector, page, bytes, opf | REQ_FUA);
		if (!dmr_command_refused(errno_to_blk_status(ret)))
			return ret;
	}
	ret = dmr_block_io(bdev, sector, page, bytes, opf);
	return ret ?: dmr_flush_instead(r, bdev);
}

/**
 * dmr_suspect() - may this be a bad block
 * @r: the target
 * @status: what a command failed with
 * @write: it was a write or write zeroes
 *
 * Any context.  A bus, a controller or a whole disk that is gone has a status
 * of its own and is never suspect.
 */
bool dmr_suspect(struct remap *r, blk_status_t status, bool write)
{
	switch (status) {
	case BLK_STS_MEDIUM:
		return true;
	case BLK_STS_TARGET:
		return write && !r->errors_medium;
	case BLK_STS_IOERR:
		return !r->errors_medium;
	default:
		return false;
	}
}

/**
 * dmr_disk_fails() - does this say that the disk fails, and not a block
 * @r: the target
 * @status: what a command failed with
 * @write: it was a write or write zeroes
 *
 * Any context.  Nothing is probed for that: the disk has said it of itself.
 */
bool dmr_disk_fails(struct remap *r, blk_status_t status, bool write)
{
	switch (status) {
	case BLK_STS_TIMEOUT:
	case BLK_STS_TRANSPORT:
	case BLK_STS_OFFLINE:
		return true;
	case BLK_STS_IOERR:
		return !dmr_suspect(r, status, write);
	default:
		return false;
	}
}

sector_t area_sector(struct remap *r, u64 block)
{
	return r->spare_start + block * DMR_BLOCK_SECTORS;
}

int area_read(struct remap *r, u64 block, struct page *page)
{
	return dmr_block_io(r->spare->bdev, area_sector(r, block), page,
			    DMR_BLOCK_SIZE, REQ_OP_READ | REQ_META | REQ_SYNC);
}

/* Durable when it returns 0. */
int area_write(struct remap *r, u64 block, struct page *page)
{
	return dmr_write_durable(r, r->spare->bdev, area_sector(r, block), page,
				 DMR_BLOCK_SIZE, REQ_META);
}

/*----------------------------------------------------------------
 * Where a block lives
 *----------------------------------------------------------------
 */

static const struct dmr_seg *mblock_seg(struct remap *r, u32 mb)
{
	const struct dmr_seg *seg = r->seg;

	while (mb >= seg->first_mblock + seg->table_blocks)
		seg++;
	return seg;
}

/**
 * area_home() - where a copy of a metadata block belongs
 * @r: the target
 * @mb: the metadata block, 0 is the superblock
 * @copy: which copy, 0 or 1
 *
 * Return: a block of the area.
 */
u64 area_home(struct remap *r, u32 mb, int copy)
{
	const struct dmr_seg *seg;

	if (!mb)
		return copy ? DMR_SB1_BLOCK : DMR_SB0_BLOCK;
	seg = mblock_seg(r, mb);
	return seg->start + (mb - seg->first_mblock) +
	       (copy ? seg->blocks - seg->table_blocks : 0);
}

/* The first slot of a table block; how many it has. */
u32 area_slots(struct remap *r, u32 mb, u32 *nr)
{
	const struct dmr_seg *seg = mblock_seg(r, mb);
	u32 first = (mb - seg->first_mblock) * DMR_ENTRIES;

	*nr = min_t(u32, DMR_ENTRIES, seg->slots - first);
	return seg->first_slot + first;
}

/* Which copy of which table block has its home there?  False: none. */
bool area_home_of(struct remap *r, u64 home, u32 *mb, int *copy)
{
	unsigned int i;

	for (i = 0; i < r->nr_segs; i++) {
		const struct dmr_seg *seg = &r->seg[i];
		u64 from = home - seg->start;

		*copy = from >= seg->table_blocks;
		if (*copy)
			from -= seg->blocks - seg->table_blocks;
		*mb = seg->first_mblock + from;
		if (from < seg->table_blocks)
			return true;
	}
	return false;
}

u32 area_mblock(struct remap *r, u32 slot)
{
	const struct dmr_seg *seg = slots_seg(r, slot);

	return seg->first_mblock + (slot - seg->first_slot) / DMR_ENTRIES;
}

/*----------------------------------------------------------------
 * What a block says
 *----------------------------------------------------------------
 */

/* What the disk shall say about a slot. */
static void slot_entry(const struct dmr_slot *slot, struct dmr_entry *e)
{
	u32 info = READ_ONCE(slot->info);
	unsigned int state = dmr_state(info);

	memset(e, 0, sizeof(*e));
	if (state == DMR_SEALING || state == DMR_SETTLING || state == DMR_LEAVING)
		state = DMR_MAPPED;
	if (state == DMR_FOUND)
		state = DMR_LOST;

	if (state == DMR_MAPPED || state == DMR_LOST) {
		e->unit = dmr_put64(slot->unit);
		e->state_gen = dmr_put32(dmr_info(state, info >> 8));
	} else if (state == DMR_BAD) {
		e->state_gen = dmr_put32(DMR_BAD);
	}
}

/*
 * Where a copy lives, in blocks.  To the narrow work, which only wants to read
 * something, see area_readable(), it may be where the copy is just leaving.
 */
u64 area_place(struct remap *r, u32 mb, int copy)
{
	u8 standin = READ_ONCE(r->mblock[mb].standin[copy]);

	return standin ?: area_home(r, mb, copy);
}

/* Fill r->page with the body of a block. */
void area_build(struct remap *r, u32 mb)
{
	struct dmr_table *t = page_address(r->page);
	u32 i, nr, first;

	if (!mb) {
		memcpy(t, r->super, DMR_BLOCK_SIZE);
		return;
	}
	clear_page(t);
	first = area_slots(r, mb, &nr);
	for (i = 0; i < nr; i++)
		slot_entry(&r->slot[first + i], &t->entry[i]);
}

int area_type(u32 mb)
{
	return mb ? DMR_TYPE_TABLE : DMR_TYPE_SUPER;
}

/*----------------------------------------------------------------
 * Writing a copy
 *----------------------------------------------------------------
 */

/* Write one copy of a block to a place, from memory.  Durable when it returns 0. */
static int write_at(struct remap *r, u32 mb, int copy, u64 seq, u64 place)
{
	int ret;

	area_build(r, mb);
	dmr_seal(page_address(r->page), area_type(mb), (u8 *)&r->uuid, seq,
		 area_home(r, mb, copy), place);
	ret = area_write(r, place, r->page);
	if (!ret)
		event_works(r, DMR_SPARE, DMR_WRITES);
	return ret;
}

/*
 * Neighbours often fail together.  So the two copies of a block look for a place from
 * the two ends.
 */
static unsigned int nth_of(int copy, unsigned int i, unsigned int nr)
{
	return copy ? nr - 1 - i : i;
}

/* A stand-in of the superblock's own that was never used.  0: none is left. */
static u8 find_refuge(struct remap *r, int copy)
{
	unsigned int i;

	for (i = 0; i < DMR_NR_REFUGES; i++) {
		u8 place = DMR_REFUGE_FIRST +
			   nth_of(copy, i, DMR_NR_REFUGES) * DMR_REFUGE_STEP;

		if (!test_bit(place - DMR_STANDIN_FIRST, r->standin_used))
			return place;
	}
	return 0;
}

/*
 * The first stand-in that is named for a copy of a table and holds nobody's, and the
 * first that was never used.  @again: one has refused, so rather the latter.  Some
 * may have refused at each load, and must not be all that is ever tried.  0: none is
 * left.
 */
static u8 find_standin(struct remap *r, u64 home, int copy, bool again)
{
	u8 named = 0, unused = 0;
	unsigned int i;

	for (i = 0; i < DMR_NR_STANDINS; i++) {
		unsigned int bit = nth_of(copy, i, DMR_NR_STANDINS);
		u64 name = dmr_get64(r->super->standin[bit]);
		u8 place = DMR_STANDIN_FIRST + bit;

		if (test_bit(bit, r->standin_used))
			continue;
		if (name == home && !named)
			named = place;
		if (!name && !unused && !dmr_is_refuge(place))
			unused = place;
	}
	return again ? (unused ?: named) : (named ?: unused);
}

/* A stand-in gets its name, durable in both superblocks, unless it has it. */
static int name_standin(struct remap *r, u8 place, u64 home)
{
	__le64 *name = &r->super->standin[place - DMR_STANDIN_FIRST];

	if (dmr_get64(*name) == home)
		return 0;
	/* A table that the set has yet to grow onto would make it invalid. */
	if (!dmr_is_home(r->super, home))
		return -EIO;
	*name = dmr_put64(home);
	WRITE_ONCE(r->used, true);
	return area_write_super(r, 0, 1);
}

/*
 * Write one copy of a block to a stand-in.  The place that it leaves stays marked as
 * used: it refuses writes, or does not keep them.
 */
int area_move_copy(struct remap *r, u32 mb, int copy, u64 seq)
{
	struct dmr_mblock *m = &r->mblock[mb];
	u64 home = area_home(r, mb, copy);
	unsigned int tries, most = mb ? DMR_STANDIN_TRIES : DMR_NR_REFUGES;
	u8 place;

	for (tries = 0; tries < most; tries++) {
		/* A suspend that waits for long has time for one of them. */
		if (tries && dmr_must_stop(r))
			break;
		place = mb ? find_standin(r, home, copy, tries) :
			     find_refuge(r, copy);
		if (!place)
			break;
		__set_bit(place - DMR_STANDIN_FIRST, r->standin_used);
		/* Writes the superblock, which has no names: no further down. */
		if (mb && name_standin(r, place, home))
			break;
		if (write_at(r, mb, copy, seq, place))
			continue;
		DMWARN_LIMIT("%s: metadata block %llu moves to block %u",
			     dmr_name(r), home, place);
		if (!m->standin[copy])
			atomic_inc(&r->nr_away);
		WRITE_ONCE(m->standin[copy], place);
		event_report(r, DMR_EV_COPIES, U64_MAX, 1);
		return 0;
	}
	DMERR_LIMIT("%s: metadata block %llu cannot be written anywhere",
		    dmr_name(r), home);
	return -EIO;
}

/* Write one copy of a block, where it lives.  Durable when it returns 0. */
int area_write_copy(struct remap *r, u32 mb, int copy, u64 seq)
{
	if (!write_at(r, mb, copy, seq, area_place(r, mb, copy)))
		return 0;
	return area_move_copy(r, mb, copy, seq);
}

/**
 * area_write_super() - write both copies of the superblock
 * @r: the target
 * @first: the copy that is durable before the other one is written
 * @ahead: added to the sequence
 *
 * When one of them fails no superblock is written any more until the next load:
 * what has failed may be there nevertheless, and another one with its sequence
 * would contradict it.
 */
int area_write_super(struct remap *r, int first, unsigned int ahead)
{
	struct dmr_mblock *m = &r->mblock[0];
	int i;

	for (i = 0; i < 2 && !m->failed; i++)
		m->failed = area_write_copy(r, 0, first ^ i, m->seq + ahead);
	if (m->failed)
		return -EIO;
	m->seq += ahead;
	return 0;
}

/**
 * area_readable() - does the spare still answer
 * @r: the target
 * @page: read into
 *
 * Return: whether one of four metadata blocks could be read, which status says
 * from now on.
 */
bool area_readable(struct remap *r, struct page *page)
{
	unsigned long end = jiffies + READABLE_TIME;
	unsigned int i;

	for (i = 0; i < 4 && !time_after(jiffies, end); i++) {
		if (!area_read(r, area_place(r, i / 2, i % 2), page)) {
			event_works(r, DMR_SPARE, DMR_READS);
			return true;
		}
	}
	event_fails(r, DMR_SPARE, DMR_READS, U64_MAX);
	return false;
}
