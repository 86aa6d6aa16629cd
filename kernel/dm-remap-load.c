// SPDX-License-Identifier: GPL-2.0-only
/*
 * From blocks on the spare to a table in memory: inspect, format, choose, mend,
 * grow.
 *
 * A load takes the valid candidate with the highest sequence.  Where the two
 * copies are not equal it writes both again with that sequence + 2, the lesser
 * one first, before any I/O is let in:
 *  - the winner may hold mappings that were never acknowledged, and main may
 *    take a write to such a unit next; were the winner lost after that, the
 *    lesser copy would undo the mapping, and found again it would bring the
 *    mapping back over newer data.  So both must say the same first;
 *  - a copy that cannot be read this time may hold winner + 1, the rest of a
 *    commit that failed between A and B.  It must lose when it is readable again,
 *    hence + 2.
 *
 * The home that a copy has left for a stand-in may still be readable, with
 * something old.  So a stand-in that cannot be read counts against the copy that it
 * is named for: it may hide a newer one.  The other copy is enough to go on with,
 * for what is hidden was never acknowledged if it is ahead of that.  Both copies are
 * written again then, to outrank it, and only when every block has two durable
 * copies is such a stand-in erased.  One that was never named hides nothing,
 * whatever it holds.  The superblock's own stand-ins, its refuges, cannot have names:
 * one that cannot be read may hide either of its copies.
 *
 * A write that is cut, or refused, may leave a stand-in torn.  Its first sector is
 * whole, so the header says what the last write that reached it was: a version of
 * one copy.  What the stand-in held before was of the same copy and older.  So it may
 * hide a version of that copy alone, none newer than its header says; the other copy
 * was durable before the write began.  With zeroes there instead, nothing was ever
 * completed since it was blank, or a load has begun to erase it, when every block had
 * two durable copies: it hides nothing.  With anything else there it is as good as
 * unreadable.
 *
 * The superblock is chosen and mended first: it has the names, and may need one more
 * to mend the others.
 *
 * A set grows onto tables that the control plane has written behind the area: ctr
 * accepts a longer spare_len only if all of them are there and empty, and the load
 * that finds the superblocks without the new segment writes them with it when
 * everything else is done.  Until one of the superblocks is durable the set is the
 * old one, whatever stands behind it.
 *
 * Context: ctr (load_inspect(), which writes nothing) and the first preresume of a
 * table (load_set()), before any I/O: nothing here takes a lock, and what may be
 * allocated is allocated here.
 *
 * A table is not trusted to be of our making, and a disk may take seconds for each
 * command: whatever a load or a format does so many times as there are blocks or
 * slots takes a bounded time each, and ends if the caller is killed.
 */
#include <linux/crc32c.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/random.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "dm-remap.h"

#ifndef CHUNK_BLOCKS			/* tests have few blocks */
#define CHUNK_BLOCKS	128u		/* read at once by a scan */
#endif
#define KERNEL_FORMAT_MAX	0x40000u	/* blocks: 1 GiB */
#define NOWHERE		U64_MAX
#define DO_CHECK	": run dmremapctl check"

/*----------------------------------------------------------------
 * Reading many blocks
 *----------------------------------------------------------------
 */

/* A read of consecutive blocks that may be under way. */
struct chunk {
	u64			from;
	unsigned int		n;	/* blocks, 0: nothing to read any more */
	struct completion	done;
	struct bio		bio;
	struct bio_vec		bvecs[CHUNK_BLOCKS];
	struct page		*pages[CHUNK_BLOCKS];
};

/* One chunk is looked at while the next one is read. */
struct scan {
	struct remap *r;
	/* Called for each block; data is NULL if it cannot be read. */
	int (*fn)(struct scan *s, u64 block, const void *data);
	/* Called while the next chunk is not there yet, until it returns false. */
	bool (*meanwhile)(struct scan *s);
	void *context;
	struct chunk *chunk[2];
};

static void chunk_free(struct chunk *c)
{
	unsigned int i;

	if (!c)
		return;
	for (i = 0; i < CHUNK_BLOCKS; i++)
		if (c->pages[i])
			__free_page(c->pages[i]);
	kvfree(c);
}

static struct chunk *chunk_alloc(void)
{
	struct chunk *c = kvzalloc(sizeof(*c), GFP_KERNEL);
	unsigned int i;

	for (i = 0; c && i < CHUNK_BLOCKS; i++) {
		c->pages[i] = alloc_page(GFP_KERNEL);
		if (!c->pages[i]) {
			chunk_free(c);
			return NULL;
		}
	}
	return c;
}

static void scan_free(struct scan *s)
{
	if (!s)
		return;
	chunk_free(s->chunk[0]);
	chunk_free(s->chunk[1]);
	kfree(s);
}

static struct scan *scan_alloc(struct remap *r)
{
	struct scan *s = kzalloc(sizeof(*s), GFP_KERNEL);

	if (!s)
		return NULL;
	s->r = r;
	s->chunk[0] = chunk_alloc();
	s->chunk[1] = chunk_alloc();
	if (!s->chunk[0] || !s->chunk[1]) {
		scan_free(s);
		return NULL;
	}
	return s;
}

static void chunk_end_io(struct bio *bio)
{
	complete(bio->bi_private);
}

static void chunk_start(struct scan *s, struct chunk *c, u64 from, u64 left)
{
	unsigned int i;

	c->from = from;
	c->n = min_t(u64, left, CHUNK_BLOCKS);
	if (!c->n)
		return;
	init_completion(&c->done);
	bio_init(&c->bio, s->r->spare->bdev, c->bvecs, CHUNK_BLOCKS,
		 REQ_OP_READ | REQ_META | REQ_SYNC);
	c->bio.bi_iter.bi_sector = area_sector(s->r, from);
	c->bio.bi_private = &c->done;
	c->bio.bi_end_io = chunk_end_io;
	for (i = 0; i < c->n; i++)
		__bio_add_page(&c->bio, c->pages[i], DMR_BLOCK_SIZE, 0);
	submit_bio(&c->bio);
}

/* Returns whether all of it could be read. */
static bool chunk_wait(struct chunk *c)
{
	bool ok;

	if (!c->n)
		return true;
	dmr_wait(&c->done);
	ok = !c->bio.bi_status;
	bio_uninit(&c->bio);
	return ok;
}

/* What takes long lets others run, and ends if the caller is killed. */
static int killed(void)
{
	cond_resched();
	return fatal_signal_pending(current) ? -EINTR : 0;
}

static int chunk_look(struct scan *s, struct chunk *c, bool whole)
{
	unsigned int i;
	int ret;

	for (i = 0; i < c->n; i++) {
		bool ok = whole || !area_read(s->r, c->from + i, c->pages[i]);

		if (!whole && fatal_signal_pending(current))
			return -EINTR;
		ret = s->fn(s, c->from + i, ok ? page_address(c->pages[i]) : NULL);
		if (ret)
			return ret;
	}
	return killed();
}

/* Has the disk still to deliver it? */
static bool chunk_missing(struct chunk *c)
{
	return c->n && !completion_done(&c->done);
}

/* Call fn for blocks [from, from + nr); stops at its first error. */
static int scan_blocks(struct scan *s, u64 from, u64 nr,
		       int (*fn)(struct scan *s, u64 block, const void *data),
		       void *context)
{
	struct chunk *c = s->chunk[0], *next = s->chunk[1];
	u64 end = from + nr;
	int ret = 0;

	s->fn = fn;
	s->context = context;
	chunk_start(s, c, from, nr);
	while (c->n && !ret) {
		bool whole = chunk_wait(c);

		from = c->from + c->n;
		chunk_start(s, next, from, end - from);
		ret = chunk_look(s, c, whole);
		while (!ret && s->meanwhile && chunk_missing(next) &&
		       s->meanwhile(s))
			ret = killed();
		swap(c, next);
	}
	chunk_wait(c);
	return ret;
}

/*----------------------------------------------------------------
 * The head: superblocks and stand-ins
 *----------------------------------------------------------------
 */

/* The newest candidate that was found for one copy. */
struct found {
	u64	seq;		/* 0: none */
	u64	torn;		/* highest sequence that a torn stand-in names */
	u8	place;		/* stand-in, 0: at home */
	bool	ambiguous;	/* contradicts another one of this sequence */
	bool	unseen;		/* a stand-in that is named for it is unreadable */
};

/* What the first MiB of the area says. */
struct head {
	struct dmr_super super;		/* the winner, if have_super */
	bool	have_super;
	bool	ready;			/* ... and it is READY */
	bool	foreign;		/* a superblock of another set is there */
	bool	overwritten;		/* ... READY and at home: it is theirs */
	bool	ambiguous;		/* equal sequence, different body */
	bool	blank;			/* all of it reads as zero */
	bool	unread;			/* a superblock's home cannot be read */
	struct found found[2];		/* of the superblock */
	struct dmr_epoch epoch[2];	/* ... in each copy of it that was found */
	struct dmr_epoch before[2];
	struct {
		u64 home;		/* NOWHERE: no table block in it */
		u64 torn;		/* ... but it is torn, with this sequence */
		bool bad;		/* cannot be read, or is torn */
		bool vague;		/* ... and does not say what it was */
		bool unread;
		bool blank;
	} standin[DMR_NR_STANDINS];
};

/*
 * A place may hold what it refused to write.  So at the same sequence a copy lives
 * where it looked last, see find_standin(), and never at home: it does not go home
 * while its stand-in can be read.  Places are met in the order of their numbers.
 */
static bool note_found(struct found *f, int copy, u64 seq, u64 place, u64 home)
{
	bool newest = seq > f->seq ||
		      (seq == f->seq && place != home && !(copy && f->place));

	if (newest) {
		f->seq = seq;
		f->place = place == home ? 0 : place;
	}
	return newest;
}

static bool is_standin(u64 block)
{
	return block >= DMR_STANDIN_FIRST && block <= DMR_STANDIN_LAST;
}

/* A valid superblock was found at @block. */
static void head_candidate(struct remap *r, struct head *h, u64 block,
			   const struct dmr_super *sb)
{
	u64 home = dmr_get64(sb->h.home);
	u64 seq = dmr_get64(sb->h.seq);
	int copy = home == DMR_SB1_BLOCK;
	bool ready = dmr_get32(sb->state) == DMR_READY;

	if (home != DMR_SB0_BLOCK && home != DMR_SB1_BLOCK)
		return;
	if (home != block && !dmr_is_refuge(block))
		return;
	if (r->has_uuid ? memcmp(sb->h.uuid, &r->uuid, sizeof(r->uuid)) :
	    h->have_super && memcmp(sb->h.uuid, h->super.h.uuid,
				    sizeof(r->uuid))) {
		h->foreign = true;
		if (ready && home == block)
			h->overwritten = true;
		return;
	}
	/* FORMATTING counts only where nothing is READY. */
	if (h->have_super && h->ready && !ready)
		return;
	if (h->have_super && ready == h->ready) {
		u64 best = dmr_get64(h->super.h.seq);

		if (seq == best && !dmr_same_body(sb, &h->super))
			h->ambiguous = true;
		if (seq > best) {
			h->super = *sb;
			h->ambiguous = false;
		}
	} else {
		/* The first one, or the first READY one. */
		h->super = *sb;
		h->have_super = true;
		h->ready = ready;
		h->ambiguous = false;
		h->found[0].seq = 0;
		h->found[0].place = 0;
		h->found[1].seq = 0;
		h->found[1].place = 0;
	}
	if (note_found(&h->found[copy], copy, seq, block, home)) {
		h->epoch[copy] = sb->epoch;
		h->before[copy] = sb->before;
	}
}

static void standin_unreadable(struct head *h, unsigned int i)
{
	h->standin[i].home = NOWHERE;
	h->standin[i].unread = true;
	h->standin[i].bad = true;
	h->standin[i].vague = true;
	h->standin[i].blank = false;
}

/* A stand-in with a wrong checksum.  Of whose write is its first sector? */
static void standin_torn(struct remap *r, struct head *h, unsigned int i,
			 const struct dmr_header *hdr)
{
	u64 seq = dmr_get64(hdr->seq);
	u64 home = dmr_get64(hdr->home);
	int type = dmr_get16(hdr->type);
	struct found *f = &h->found[home == DMR_SB1_BLOCK];

	h->standin[i].bad = true;
	if (!memchr_inv(hdr, 0, SECTOR_SIZE))
		return;
	if (memcmp(hdr->magic, DMR_MAGIC, DMR_MAGIC_SIZE) || !seq ||
	    seq > DMR_SEQ_MAX || memcmp(hdr->uuid, &r->uuid, sizeof(r->uuid))) {
		h->standin[i].vague = true;
	} else if (type == DMR_TYPE_TABLE &&
		   !dmr_is_refuge(DMR_STANDIN_FIRST + i)) {
		h->standin[i].home = home;
		h->standin[i].torn = seq;
	} else if (type == DMR_TYPE_SUPER && dmr_is_refuge(DMR_STANDIN_FIRST + i) &&
		   (home == DMR_SB0_BLOCK || home == DMR_SB1_BLOCK)) {
		f->torn = max(f->torn, seq);
	} else {
		h->standin[i].vague = true;
	}
}

static int head_block(struct scan *s, u64 block, const void *data)
{
	struct head *h = s->context;
	const struct dmr_header *hdr = data;
	unsigned int i = block - DMR_STANDIN_FIRST;

	if (!data) {
		h->blank = false;
		if (is_standin(block))
			standin_unreadable(h, i);
		h->unread |= block == DMR_SB0_BLOCK || block == DMR_SB1_BLOCK;
		return 0;
	}
	if (!memchr_inv(data, 0, DMR_BLOCK_SIZE))
		return 0;

	h->blank = false;
	if (is_standin(block))
		h->standin[i].blank = false;
	if (dmr_header_ok(data, DMR_TYPE_SUPER, block))
		head_candidate(s->r, h, block, data);
	else if (is_standin(block) && dmr_header_ok(data, DMR_TYPE_TABLE, block))
		h->standin[i].home = dmr_get64(hdr->home);
	else if (is_standin(block))
		standin_torn(s->r, h, i, hdr);
	return 0;
}

static int head_read(struct scan *s, struct head *h)
{
	unsigned int i;

	memset(h, 0, sizeof(*h));
	h->blank = true;
	for (i = 0; i < DMR_NR_STANDINS; i++) {
		h->standin[i].home = NOWHERE;
		h->standin[i].blank = true;
	}
	return scan_blocks(s, 0, DMR_HEAD_BLOCKS, head_block, h);
}

/*----------------------------------------------------------------
 * Geometry
 *----------------------------------------------------------------
 */

/* Take over what a checked superblock says. */
static void set_segments(struct remap *r, const struct dmr_super *sb)
{
	u32 i, slots = 0, mblocks = 1;

	r->nr_segs = dmr_get32(sb->nr_segments);
	for (i = 0; i < r->nr_segs; i++) {
		struct dmr_seg *seg = &r->seg[i];

		seg->start = dmr_get64(sb->segment[i].start);
		seg->blocks = dmr_get64(sb->segment[i].blocks);
		seg->slots = dmr_get32(sb->segment[i].slots);
		seg->table_blocks = dmr_get32(sb->segment[i].table_blocks);
		seg->first_slot = slots;
		seg->first_mblock = mblocks;
		seg->base = area_sector(r, seg->start + seg->table_blocks) -
			    dmr_sector_of(r, slots);
		slots += seg->slots;
		mblocks += seg->table_blocks;
	}
	r->nr_slots = slots;
	r->nr_mblocks = mblocks;
}

/* Is this what the structures were allocated for? */
static bool same_segments(struct remap *r, const struct dmr_super *sb)
{
	u32 i;

	if (dmr_get32(sb->nr_segments) != r->nr_segs)
		return false;
	for (i = 0; i < r->nr_segs; i++)
		if (dmr_get64(sb->segment[i].start) != r->seg[i].start ||
		    dmr_get64(sb->segment[i].blocks) != r->seg[i].blocks ||
		    dmr_get32(sb->segment[i].slots) != r->seg[i].slots)
			return false;
	return true;
}

/*
 * What a person chose counts where the table line has no word of it.  Before any
 * I/O is let in; status may look at any time.
 */
static void take_choices(struct remap *r, const struct dmr_super *sb)
{
	u32 rate = max(1u, r->nr_slots / 4 / r->piece);

	if (sb->chosen & DMR_CHOSE_RATE)
		rate = dmr_get32(sb->remap_rate);
	if (!r->has_rate)
		WRITE_ONCE(r->breaker.rate, rate);
	if (!r->has_errors)
		WRITE_ONCE(r->errors_medium,
			   sb->chosen_errors == DMR_CHOSE_MEDIUM);
}

static void set_segment(struct dmr_segment *segment, u64 start, u64 end,
			u32 slots)
{
	segment->start = dmr_put64(start);
	segment->blocks = dmr_put64(end - start);
	segment->slots = dmr_put32(slots);
	segment->table_blocks = dmr_put32(dmr_table_blocks(slots));
}

/* Describe a set that covers the area with one segment. */
static void new_super(struct remap *r)
{
	struct dmr_super *sb = r->super;
	u64 area = r->spare_len / DMR_BLOCK_SECTORS;
	u32 slots = dmr_segment_slots(area - DMR_HEAD_BLOCKS, r->unit);

	memset(sb, 0, sizeof(*sb));
	memcpy(sb->h.uuid, &r->uuid, sizeof(r->uuid));
	sb->h.version = dmr_put16(DMR_VERSION);
	sb->state = dmr_put32(DMR_FORMATTING);
	sb->unit = dmr_put32(r->unit);
	sb->area_blocks = dmr_put64(area);
	sb->nr_segments = dmr_put32(1);
	sb->main_sectors = dmr_put64(bdev_nr_sectors(r->main->bdev));
	sb->main_offset = dmr_put64(r->main_offset);
	sb->data_start = dmr_put64(r->main_start);
	sb->data_sectors = dmr_put64(r->ti->len);
	sb->created = dmr_put64(ktime_get_real_seconds());
	sb->main_id_len = identity_id(r, sb->main_id, &sb->main_id_type);
	sb->epoch.number = dmr_put64(1);
	sb->epoch.id = dmr_put64(get_random_u64() ?: 1);
	sb->spare_serial = dmr_put64(1);
	set_segment(&sb->segment[0], DMR_HEAD_BLOCKS, area, slots);
}

/**
 * add_segment() - describe the set with a segment more
 * @r: the target; its spare_len is more than the set has recorded
 * @sb: the set's superblock
 *
 * Return: NULL, or why the set cannot grow; then @sb is as it was.
 */
static char *add_segment(struct remap *r, struct dmr_super *sb)
{
	u64 area = r->spare_len / DMR_BLOCK_SECTORS;
	u32 n = dmr_get32(sb->nr_segments);
	u64 end = DMR_HEAD_BLOCKS, total = 0;
	u32 i, slots;

	for (i = 0; i < n; i++) {
		end += dmr_get64(sb->segment[i].blocks);
		total += dmr_get32(sb->segment[i].slots);
	}
	if (n == DMR_MAX_SEGMENTS)
		return "spare_len: the set has 32 segments and cannot grow any more";
	slots = dmr_segment_slots(area - end, r->unit);
	if (!slots || total + slots > DMR_MAX_SLOTS)
		return "spare_len: a set grows by at least 3 blocks, to 16777216 slots at most";
	sb->area_blocks = dmr_put64(area);
	sb->nr_segments = dmr_put32(n + 1);
	set_segment(&sb->segment[n], end, area, slots);
	return NULL;
}

static bool is_longer(struct remap *r, const struct dmr_super *sb)
{
	return r->spare_len / DMR_BLOCK_SECTORS > dmr_get64(sb->area_blocks);
}

/* Does the table line fit the set?  Returns NULL, or why not. */
static char *check_super(struct remap *r, const struct dmr_super *sb)
{
	u64 area = r->spare_len / DMR_BLOCK_SECTORS;
	const char *why = dmr_super_check(sb);

	if (why)
		return (char *)why;
	if (dmr_get64(sb->incompat) & DMR_INCOMPAT_SUPERSEDED)
		return "the set has gone on elsewhere: run dmremapctl check";
	if ((dmr_get64(sb->ro_compat) & ~DMR_RO_COMPAT_KNOWN) && !r->read_only)
		return "metadata needs a newer dm-remap to be written (ro_compat)";
	if (dmr_get32(sb->unit) != r->unit)
		return "the set's unit is not main's logical block size";
	if (area < dmr_get64(sb->area_blocks))
		return "spare_len is less than the set has recorded";
	if (r->read_only && is_longer(r, sb))
		return "spare_len is more than the set has recorded, and the table is read-only";
	if (dmr_get64(sb->data_start) != r->main_start)
		return "main_start is not the one that the set has recorded";
	if (r->ti->len > dmr_get64(sb->data_sectors))
		return "the length is more than the set has recorded";
	return NULL;
}

/*----------------------------------------------------------------
 * ctr: look, write nothing
 *----------------------------------------------------------------
 */

/* Zero, or a block of the set whose format was interrupted. */
static int blank_or_ours(struct remap *r, u64 block, const void *data,
			 const u8 *uuid)
{
	const struct dmr_header *hdr = data;

	if (!data) {
		DMERR("%s: block %llu of the spare area cannot be read",
		      dmr_name(r), block);
		return -EIO;
	}
	if (!memchr_inv(data, 0, DMR_BLOCK_SIZE))
		return 0;
	/* All that a format writes has sequence 1, but for its last two blocks. */
	if (uuid && !memcmp(hdr->uuid, uuid, sizeof(hdr->uuid)) &&
	    ((dmr_header_ok(data, DMR_TYPE_TABLE, block) &&
	      dmr_get64(hdr->seq) == 1) ||
	     dmr_header_ok(data, DMR_TYPE_SUPER, block)))
		return 0;
	DMERR("%s: block %llu of the spare area is in use; erase it if it is not needed",
	      dmr_name(r), block);
	return -EBUSY;
}

static int blank_block(struct scan *s, u64 block, const void *data)
{
	return blank_or_ours(s->r, block, data, s->context);
}

/* No READY set was found.  May the kernel format one at first resume? */
static int inspect_blank(struct remap *r, struct scan *s, struct head *h,
			 char **error)
{
	u64 area = r->spare_len / DMR_BLOCK_SECTORS;
	int ret;

	*error = "no superblock of the set can be read: run dmremapctl check";
	if (!h->unread)
		*error = "no set with this uuid on the spare: check the device names";
	if (r->has_uuid)
		return -ENODATA;
	*error = "spare area is neither blank (all zeros) nor a set";
	if (h->foreign || (!h->have_super && !h->blank))
		return -EBUSY;
	*error = "spare area is blank, but the table is read-only";
	if (r->read_only)
		return -EROFS;
	*error = "spare area is over 1 GiB: format it with dmremapctl create";
	if (area > KERNEL_FORMAT_MAX)
		return -EFBIG;
	*error = "spare area is neither blank (all zeros) nor a set";
	ret = scan_blocks(s, 0, area, blank_block,
			  h->have_super ? h->super.h.uuid : NULL);
	/* What cannot be read is not blank. */
	if (ret == -EIO)
		ret = -EBUSY;
	if (ret == -EINTR)
		*error = "interrupted by a signal";
	if (ret)
		return ret;

	if (h->have_super)
		memcpy(&r->uuid, h->super.h.uuid, sizeof(r->uuid));
	else
		uuid_gen(&r->uuid);
	r->format = true;
	new_super(r);
	return 0;
}

static int inspect_head(struct remap *r, struct scan *s, struct head *h,
			char **error)
{
	int ret;

	identity_read(r);
	ret = head_read(s, h);
	*error = "cannot read the spare area";
	if (ret)
		return ret;
	*error = "the two superblocks contradict each other: run dmremapctl check";
	if (h->ambiguous)
		return -EINVAL;
	if (!h->have_super || !h->ready) {
		ret = inspect_blank(r, s, h, error);
		if (ret)
			return ret;
		*error = identity_check(r, NULL);
	} else {
		*error = "superblocks of two sets on the spare: run dmremapctl list";
		if (h->overwritten || (h->foreign && !r->has_uuid))
			return -EINVAL;
		*error = check_super(r, &h->super);
		if (*error)
			return -EINVAL;
		*r->super = h->super;
		memcpy(&r->uuid, h->super.h.uuid, sizeof(r->uuid));
		*error = identity_check(r, &h->super);
		if (!*error && is_longer(r, &h->super)) {
			r->grow = true;
			*error = add_segment(r, r->super);
		}
	}
	return *error ? -EINVAL : 0;
}

/* A table block of an extension: ours, at home, and all its slots are free. */
static int extension_block(struct scan *s, u64 block, const void *data)
{
	const struct dmr_table *t = data;

	if (data && dmr_header_ok(t, DMR_TYPE_TABLE, block) &&
	    dmr_get16(t->h.version) == DMR_VERSION &&
	    !memcmp(t->h.uuid, &s->r->uuid, sizeof(t->h.uuid)) &&
	    dmr_get64(t->h.home) == block &&
	    !memchr_inv(t->entry, 0, sizeof(t->entry)))
		return 0;
	DMERR("%s: block %llu of the spare area is no empty table of this set",
	      dmr_name(s->r), block);
	return -ENODATA;
}

/*
 * The set may grow only onto tables that dmremapctl has written: they are the
 * proof that somebody has made sure that the extension holds nothing else.
 */
static int inspect_extension(struct remap *r, struct scan *s, char **error)
{
	const struct dmr_seg *seg = &r->seg[r->nr_segs - 1];
	int copy, ret = 0;

	*error = "spare_len is more than the set has recorded: run dmremapctl grow";
	for (copy = 0; copy < 2 && !ret; copy++)
		ret = scan_blocks(s, area_home(r, seg->first_mblock, copy),
				  seg->table_blocks, extension_block, NULL);
	return ret;
}

/**
 * load_inspect() - find out what the devices hold, for ctr
 * @r: the target
 * @error: set to the reason of a refusal
 *
 * Reads main's tag, both superblocks and, where there is no set, the whole
 * area, or if the set is to grow the tables of the extension.  Writes nothing.
 * Sets the geometry, r->uuid, r->format, r->grow and what the table line leaves to
 * the superblock.
 */
int load_inspect(struct remap *r, char **error)
{
	struct head *h = kvmalloc(sizeof(*h), GFP_KERNEL);
	struct scan *s = scan_alloc(r);
	int ret = -ENOMEM;

	*error = "out of memory";
	if (h && s)
		ret = inspect_head(r, s, h, error);
	if (!ret) {
		set_segments(r, r->super);
		take_choices(r, r->super);
	}
	if (!ret && r->grow)
		ret = inspect_extension(r, s, error);
	r->first_dirty = DMR_NO_MBLOCK;
	scan_free(s);
	kvfree(h);
	return ret;
}

/*----------------------------------------------------------------
 * Format
 *----------------------------------------------------------------
 */

/* Read the place once more, then write r->page there. */
static int format_write(struct remap *r, struct page *check, u64 block)
{
	int ret = area_read(r, block, check);

	ret = blank_or_ours(r, block, ret ? NULL : page_address(check),
			    (u8 *)&r->uuid);
	if (ret)
		return ret;
	ret = area_write(r, block, r->page);
	if (ret)
		DMERR("%s: block %llu of the spare area cannot be written",
		      dmr_name(r), block);
	return ret;
}

static int format_super(struct remap *r, struct page *check, int copy, u64 seq)
{
	u64 home = area_home(r, 0, copy);

	memcpy(page_address(r->page), r->super, DMR_BLOCK_SIZE);
	dmr_seal(page_address(r->page), DMR_TYPE_SUPER, (u8 *)&r->uuid, seq,
		 home, home);
	return format_write(r, check, home);
}

/* The order that the format header fixes. */
static int format_area(struct remap *r, struct page *check)
{
	int copy, ret;
	u32 mb;

	ret = format_super(r, check, 0, 1);
	for (copy = 0; copy < 2; copy++) {
		for (mb = 1; mb < r->nr_mblocks && !ret; mb++) {
			u64 home = area_home(r, mb, copy);

			clear_page(page_address(r->page));
			dmr_seal(page_address(r->page), DMR_TYPE_TABLE,
				 (u8 *)&r->uuid, 1, home, home);
			ret = format_write(r, check, home);
			if (!ret)
				ret = killed();
		}
	}
	r->super->state = dmr_put32(DMR_READY);
	if (!ret)
		ret = format_super(r, check, 1, 2);
	if (!ret)
		ret = format_super(r, check, 0, 2);
	return ret;
}

/*
 * Between ctr and preresume another device may have finished the format, under
 * other names of these disks, too.  If it uses the set still, that is said; if not,
 * the set is only to be loaded.
 */
static int format_needed(struct remap *r, struct scan *s, struct head *h)
{
	char *why;
	int ret;

	identity_read(r);
	ret = head_read(s, h);
	if (ret)
		return ret;
	why = identity_check(r, NULL);
	if (why) {
		DMERR("%s: %s", dmr_name(r), why);
		return -EINVAL;
	}
	if (h->have_super && h->ready)
		return identity_run(r, h->super.h.uuid);
	return 1;
}

static int format_set(struct remap *r)
{
	struct page *check;
	const char *why;
	int ret;

	new_super(r);
	dm_copy_name_and_uuid(dm_table_get_md(r->ti->table),
			      (char *)r->super->name, NULL);
	/* Main may have shrunk since ctr, and no load would take that. */
	why = dmr_super_check(r->super);
	if (why) {
		DMERR("%s: %s", dmr_name(r), why);
		return -EINVAL;
	}
	check = alloc_page(GFP_KERNEL);
	if (!check)
		return -ENOMEM;
	ret = format_area(r, check);
	__free_page(check);
	return ret ?: identity_run(r, (u8 *)&r->uuid);
}

/*
 * One at a time: two devices may see the same blank area, by names that nobody can
 * tell to be the same disk.  The other one then finds a set, and who runs it.
 *
 * The wait may be as long as a format takes, and for ever if its disks are
 * suspended: one of them may even be a DM device that waits here to be resumed.
 * Whoever is killed waits no more.  DM's lock of the device is held over it, as over
 * all of preresume, and nothing that a dtr or another device needs.
 */
static DEFINE_MUTEX(format_lock);

static int format_once(struct remap *r, struct scan *s, struct head *h)
{
	int ret = mutex_lock_killable(&format_lock);

	if (ret)
		return ret;
	ret = format_needed(r, s, h);
	if (ret > 0)
		ret = format_set(r);
	mutex_unlock(&format_lock);
	if (!ret)
		r->format = false;
	return ret;
}

/*----------------------------------------------------------------
 * Load
 *----------------------------------------------------------------
 */

struct load {
	struct head head;
	struct found (*found)[2];		/* for each metadata block */
	int pass;			/* the copy that is being read */
	u32 mb;				/* the block that is read next */
	u32 filled;			/* slots of the blocks that were read */
	u32 linked;			/* ... of which so many are looked up */
	unsigned int unreadable;	/* refuges, which may hide the superblock */
	bool rebuild;			/* the lookup is not what was read */
	bool grow;			/* the superblocks have yet to say so */
};

static bool is_live(const struct dmr_slot *slot)
{
	unsigned int state = dmr_state(slot->info);

	return state == DMR_MAPPED || state == DMR_LOST;
}

/*
 * Take over a block.  If its slots were looked up before, as another candidate's
 * or as free, load_lookup() makes the lookup anew.
 */
static void load_entries(struct remap *r, struct load *l, u32 mb,
			 const struct dmr_table *t)
{
	u32 i, nr, first = area_slots(r, mb, &nr);

	if (first < l->linked)
		l->rebuild = true;
	for (i = 0; i < nr; i++) {
		struct dmr_slot *slot = &r->slot[first + i];

		slot->unit = dmr_get64(t->entry[i].unit);
		slot->info = dmr_get32(t->entry[i].state_gen);
	}
}

/*
 * Put slots that were read into the lookup, as many as a block has.  A unit with
 * two entries is left to load_lookup().  Returns whether there are more of them.
 */
static bool load_link(struct remap *r, struct load *l)
{
	u32 end = min(l->linked + DMR_ENTRIES, l->filled);

	for (; l->linked < end && !l->rebuild; l->linked++) {
		const struct dmr_slot *slot = &r->slot[l->linked];

		if (!is_live(slot))
			continue;
		if (dmr_any_entry(r, slot->unit, 0) == DMR_NO_SLOT)
			slots_insert(r, l->linked);
		else
			l->rebuild = true;
	}
	return l->linked < l->filled && !l->rebuild;
}

static bool load_meanwhile(struct scan *s)
{
	return load_link(s->r, s->context);
}

/* Is the candidate in every byte what was checked and taken over before? */
static bool same_entries(struct remap *r, u32 mb, const struct dmr_table *t)
{
	u32 i, nr, first = area_slots(r, mb, &nr);

	for (i = 0; i < nr; i++)
		if (r->slot[first + i].unit != dmr_get64(t->entry[i].unit) ||
		    r->slot[first + i].info != dmr_get32(t->entry[i].state_gen) ||
		    t->entry[i].zero)
			return false;
	return dmr_get16(t->h.version) == DMR_VERSION &&
	       !memchr_inv(&t->entry[nr], 0, sizeof(t->entry[0]) * (DMR_ENTRIES - nr));
}

/* A candidate for one copy of a table block, read from @place. */
static void load_candidate(struct remap *r, struct load *l, u32 mb, int copy,
			   u64 place, const struct dmr_table *t)
{
	u64 best = max(l->found[mb][0].seq, l->found[mb][1].seq);
	struct found *f = &l->found[mb][copy];
	u64 home = area_home(r, mb, copy);
	const char *why;
	u64 seq;
	u32 nr;

	if (!dmr_header_ok(t, DMR_TYPE_TABLE, place) ||
	    memcmp(t->h.uuid, &r->uuid, sizeof(r->uuid)) ||
	    dmr_get64(t->h.home) != home)
		return;
	seq = dmr_get64(t->h.seq);
	if (seq != best || !same_entries(r, mb, t)) {
		area_slots(r, mb, &nr);
		why = dmr_table_check(t, nr, dmr_main_units(r));
		if (why) {
			DMERR_LIMIT("%s: block %llu: %s", dmr_name(r), place, why);
			return;
		}
		if (seq == best)
			l->found[mb][0].ambiguous = true;
	}
	if (seq > best) {
		load_entries(r, l, mb, t);
		l->found[mb][0].ambiguous = false;
	}
	note_found(f, copy, seq, place, home);
}

static int load_block(struct scan *s, u64 block, const void *data)
{
	struct load *l = s->context;
	u32 nr, first = area_slots(s->r, l->mb, &nr);

	if (data)
		load_candidate(s->r, l, l->mb, l->pass, block, data);
	if (!l->pass)
		l->filled = first + nr;
	l->mb++;
	return 0;
}

/*
 * The lookup is filled while the disk is busy with the next chunk, whichever copy
 * that is of: a disk that is faster has the rest of it done behind the last one.
 */
static int load_homes(struct remap *r, struct scan *s, struct load *l)
{
	int ret = 0;
	u32 i;

	s->meanwhile = load_meanwhile;
	for (i = 0; i < r->nr_segs && !ret; i++) {
		const struct dmr_seg *seg = &r->seg[i];

		for (l->pass = 0; l->pass < 2 && !ret; l->pass++) {
			l->mb = seg->first_mblock;
			ret = scan_blocks(s, area_home(r, l->mb, l->pass),
					  seg->table_blocks, load_block, l);
		}
	}
	s->meanwhile = NULL;
	return ret;
}

/*
 * Read a stand-in again into r->page.  Only what it gave when the head was read
 * says what it hides.
 */
static bool read_standin(struct remap *r, u64 place, u64 home)
{
	const struct dmr_header *hdr = page_address(r->page);

	return !area_read(r, place, r->page) &&
	       dmr_header_ok(hdr, DMR_TYPE_TABLE, place) &&
	       dmr_get64(hdr->home) == home;
}

/*
 * A stand-in that is named for a copy of a table.  It is read again, now that it is
 * known what it is for: stand-ins hold few blocks.
 */
static void load_standin(struct remap *r, struct load *l, unsigned int i, u32 mb,
			 int copy)
{
	u64 name = area_home(r, mb, copy), place = DMR_STANDIN_FIRST + i;
	struct found *f = &l->found[mb][copy];
	u64 torn = l->head.standin[i].torn;
	bool its_own = l->head.standin[i].home == name;

	if (torn && its_own)
		f->torn = max(f->torn, torn);
	else if (torn || (its_own && !read_standin(r, place, name)))
		standin_unreadable(&l->head, i);
	else if (its_own)
		load_candidate(r, l, mb, copy, place, page_address(r->page));
	f->unseen |= l->head.standin[i].vague;
}

static int load_standins(struct remap *r, struct load *l)
{
	unsigned int i;
	u32 mb;
	int copy, ret = 0;

	for (i = 0; i < DMR_NR_STANDINS && !ret; i++) {
		u64 name = dmr_get64(r->super->standin[i]);

		if (dmr_is_refuge(DMR_STANDIN_FIRST + i))
			l->unreadable += l->head.standin[i].vague;
		else if (name && area_home_of(r, name, &mb, &copy))
			load_standin(r, l, i, mb, copy);
		else
			/* It never stood for anything: the mend may use it. */
			l->head.standin[i].bad = false;
		ret = killed();
	}
	return ret;
}

/*
 * May a stand-in be written?  A refuge that was left is never used again.  What
 * stands in one that has no name does not matter, if it can be read.
 */
static bool standin_free(struct remap *r, const struct head *h, unsigned int i)
{
	if (dmr_is_refuge(DMR_STANDIN_FIRST + i))
		return h->standin[i].blank;
	if (r->super->standin[i])
		return !h->standin[i].bad;
	return !h->standin[i].unread;
}

/* Where every copy lives, and which stand-ins are left. */
static void load_places(struct remap *r, struct load *l)
{
	unsigned int i;
	u32 mb;
	int copy;

	bitmap_zero(r->standin_used, DMR_NR_STANDINS);
	atomic_set(&r->nr_away, 0);
	r->first_dirty = DMR_NO_MBLOCK;
	for (i = 0; i < DMR_NR_STANDINS; i++)
		if (!standin_free(r, &l->head, i))
			__set_bit(i, r->standin_used);
	for (mb = 0; mb < r->nr_mblocks; mb++) {
		struct dmr_mblock *m = &r->mblock[mb];

		memset(m, 0, sizeof(*m));
		m->seq = max(l->found[mb][0].seq, l->found[mb][1].seq);
		for (copy = 0; copy < 2; copy++) {
			u8 place = l->found[mb][copy].place;

			/*
			 * Also if it is not current: were the copy written at
			 * home again, its stand-in could be taken for a lone
			 * copy when the homes are gone one day.
			 */
			if (!place)
				continue;
			m->standin[copy] = place;
			__set_bit(place - DMR_STANDIN_FIRST, r->standin_used);
			atomic_inc(&r->nr_away);
		}
	}
}

/*
 * Write both copies of a block again, the lesser one first, so that they are
 * equal and outrank the rest of a commit that was cut.
 */
static int load_mend_one(struct remap *r, u32 mb, const struct found *f)
{
	struct dmr_mblock *m = &r->mblock[mb];
	int lesser = f[0].seq > f[1].seq;
	int i, ret = 0;

	if (!mb)
		return area_write_super(r, lesser, 2);
	for (i = 0; i < 2 && !ret; i++)
		ret = area_write_copy(r, mb, lesser ^ i, m->seq + 2);
	if (!ret)
		m->seq += 2;
	return ret;
}

/*
 * The superblocks could not be written again.  Do they differ in the epoch alone?
 * The load before this one may have begun one that it could not finish, and ended
 * in mode ro, too.
 */
static bool same_but_epoch(struct remap *r, const struct found *f)
{
	struct dmr_super *found = page_address(r->page);
	const struct dmr_super *sb = r->super;
	u64 place = f[0].seq > f[1].seq ? f[1].place : f[0].place;
	int lesser = f[0].seq > f[1].seq;

	place = place ?: area_home(r, 0, lesser);
	if (!f[lesser].seq || area_read(r, place, r->page) ||
	    !dmr_header_ok(found, DMR_TYPE_SUPER, place))
		return false;
	/* What learn_main_id() writes goes with it. */
	found->main_offset = sb->main_offset;
	found->main_id_type = sb->main_id_type;
	found->main_id_len = sb->main_id_len;
	memcpy(found->main_id, sb->main_id, sizeof(found->main_id));
	found->epoch = sb->epoch;
	found->before = sb->before;
	return dmr_same_body(found, sb);
}

/*
 * Erase the stand-ins that stood for something and could not be read or were torn:
 * what they may hide is outranked.  Whether they take it does not matter.
 */
static int load_erase(struct remap *r, struct load *l)
{
	unsigned int i;
	int ret = 0;

	clear_page(page_address(r->page));
	for (i = 0; i < DMR_NR_STANDINS && !ret; i++) {
		if (l->head.standin[i].bad)
			area_write(r, DMR_STANDIN_FIRST + i, r->page);
		ret = killed();
	}
	return ret;
}

/* Is anything left that a block's newest two copies have to outrank? */
static bool is_settled(struct load *l, u32 mb)
{
	const struct found *f = l->found[mb];

	return f[0].seq == f[1].seq && !f[0].unseen && !f[1].unseen &&
	       (mb || !l->unreadable);
}

/*
 * Two equal durable copies of every block, the superblock first: what is mended then
 * may need a name.  Only behind that may a stand-in be erased that may hide winner + 1
 * of a block.
 */
static int load_mend(struct remap *r, struct load *l)
{
	u32 mb, mended = 0;
	int ret;

	if (r->read_only)
		return 0;
	for (mb = 0; mb < r->nr_mblocks; mb++) {
		ret = killed();
		if (ret)
			return ret;
		if (is_settled(l, mb))
			continue;
		ret = load_mend_one(r, mb, l->found[mb]);
		if (!ret)
			mended++;
		else if (!mb && same_but_epoch(r, l->found[mb]))
			r->no_raise = true;
		else
			return ret;
	}
	if (mended) {
		DMWARN("%s: wrote both copies of %u metadata blocks again",
		       dmr_name(r), mended);
		event_report(r, DMR_EV_COPIES, U64_MAX, mended);
	}
	/* A superblock that could not be written is still to be outranked. */
	return r->no_raise ? 0 : load_erase(r, l);
}

/*
 * Copies of the superblock may differ in the epoch.  Whoever remembers the higher one
 * would refuse the set as soon as that copy cannot be read, so where they stay as
 * they are status has the lower one.
 */
static void load_epoch(struct remap *r, struct load *l)
{
	const struct found *f = l->found[0];
	int lesser = f[0].seq > f[1].seq;
	const struct dmr_epoch *epoch = &l->head.epoch[lesser];

	if (!f[lesser].seq || !(r->read_only || r->no_raise))
		return;
	/* Only the winner was checked. */
	if (!dmr_epoch_ok(epoch) ||
	    dmr_get64(epoch->number) >= dmr_get64(r->super->epoch.number))
		return;
	r->super->epoch = *epoch;
	r->super->before = l->head.before[lesser];
}

/* Is this the newest version of a copy, as far as its stand-ins can tell? */
static bool is_known(const struct found *f)
{
	return f->seq && f->seq >= f->torn && !f->unseen;
}

/* Is the newest state of a block known?  Says what is missing. */
static int load_check_one(struct remap *r, struct load *l, u32 mb)
{
	const struct found *f = l->found[mb];
	unsigned int known = is_known(&f[0]) + is_known(&f[1]);

	if (f[0].ambiguous) {
		DMERR("%s: the copies of metadata block %llu contradict each other" DO_CHECK,
		      dmr_name(r), area_home(r, mb, 0));
		return -EINVAL;
	}
	/* What is written next must be valid, too, or both copies would go. */
	if (f[0].seq > DMR_SEQ_MAX / 2 || f[1].seq > DMR_SEQ_MAX / 2) {
		DMERR("%s: metadata block %llu has an impossible sequence" DO_CHECK,
		      dmr_name(r), area_home(r, mb, 0));
		return -EINVAL;
	}
	/* A refuge that cannot be read hides one copy, nobody knows which. */
	if (known > (!mb && l->unreadable))
		return 0;
	if (!r->nr_gone && (f[0].seq || f[1].seq))
		DMERR("%s: what is left of metadata block %llu may be old" DO_CHECK,
		      dmr_name(r), area_home(r, mb, 0));
	else if (!r->nr_gone)
		DMERR("%s: both copies of metadata block %llu are gone, it and block %llu" DO_CHECK,
		      dmr_name(r), area_home(r, mb, 0),
		      area_home(r, mb, 1));
	WRITE_ONCE(r->nr_gone, r->nr_gone + 1);
	return r->accept_stale ? 0 : -EIO;
}

static int load_check(struct remap *r, struct load *l)
{
	u32 mb;
	int ret;

	if (l->unreadable > 1) {
		DMERR("%s: %u stand-ins of the superblock cannot be read, and may hide it" DO_CHECK,
		      dmr_name(r), l->unreadable);
		if (!r->accept_stale)
			return -EIO;
	}
	WRITE_ONCE(r->nr_gone, 0);
	for (mb = 0; mb < r->nr_mblocks; mb++) {
		ret = load_check_one(r, l, mb);
		if (ret)
			return ret;
	}
	if (r->nr_gone)
		DMWARN("%s: %u metadata blocks are gone, what they mapped reads as old data",
		       dmr_name(r), r->nr_gone);
	return 0;
}

/*
 * Of the live entries of a unit the highest generation counts.  It alone is linked:
 * a table is not trusted to have few of them.
 */
static int load_lookup_one(struct remap *r, u32 slot)
{
	struct dmr_slot *new = &r->slot[slot];
	u32 old = slots_first(r, new->unit, new->unit);

	if (old == DMR_NO_SLOT) {
		slots_insert(r, slot);
		return 0;
	}
	if (r->slot[old].info >> 8 < new->info >> 8) {
		slots_replace(r, old, slot);
		return 0;
	}
	if (r->slot[old].info >> 8 != new->info >> 8)
		return 0;
	DMERR("%s: unit %llu is mapped twice, to slots %u and %u" DO_CHECK,
	      dmr_name(r), new->unit, old, slot);
	return -EINVAL;
}

static int load_lookup(struct remap *r, struct load *l)
{
	int ret = 0;
	u32 s;

	while (!ret && load_link(r, l))
		ret = killed();
	if (ret || !l->rebuild)
		return ret;
	slots_clear_lookup(r);
	for (s = 0; s < r->nr_slots && !ret; s++) {
		if (is_live(&r->slot[s]))
			ret = load_lookup_one(r, s);
		if (!ret)
			ret = killed();
	}
	return ret;
}

/*
 * The slots that units have moved away from are BAD.  Not before every block has
 * two durable copies: until then the loser may be all that says that its unit is
 * mapped, if the winner is lost after all.
 */
static int load_losers(struct remap *r)
{
	int ret = 0;
	u32 s;

	for (s = 0; s < r->nr_slots && !ret; s++) {
		u64 unit = r->slot[s].unit;

		ret = killed();
		if (!is_live(&r->slot[s]) || slots_first(r, unit, unit) == s)
			continue;
		r->slot[s].info = dmr_info(DMR_BAD, 0);
		commit_mark_slot(r, s);
	}
	return ret;
}

static void load_count(struct remap *r)
{
	int mapped = 0, lost = 0, bad = 0;
	u32 s;

	for (s = 0; s < r->nr_slots; s++) {
		unsigned int state = dmr_state(r->slot[s].info);

		mapped += state == DMR_MAPPED || state == DMR_LOST;
		lost += state == DMR_LOST;
		bad += state == DMR_BAD;
		cond_resched();
	}
	atomic_set(&r->nr_mapped, mapped);
	atomic_set(&r->nr_lost, lost);
	atomic_set(&r->nr_bad, bad);
	atomic_set(&r->nr_free, r->nr_slots - mapped - bad);
}

static int load_head(struct remap *r, struct scan *s, struct load *l)
{
	struct head *h = &l->head;
	char *why;
	int ret;

	identity_read(r);
	ret = head_read(s, h);
	if (ret)
		return ret;
	if (!h->have_super || !h->ready || h->ambiguous || h->overwritten ||
	    memcmp(h->super.h.uuid, &r->uuid, sizeof(r->uuid))) {
		DMERR("%s: the spare no longer holds the set that the table was loaded for",
		      dmr_name(r));
		return -ENODATA;
	}
	why = check_super(r, &h->super);
	if (!why)
		why = identity_check(r, &h->super);
	if (why) {
		DMERR("%s: %s", dmr_name(r), why);
		return -EINVAL;
	}
	*r->super = h->super;
	l->grow = is_longer(r, &h->super);
	if (l->grow)
		why = add_segment(r, r->super);
	/* ctr allocated for these. */
	if (why || !same_segments(r, r->super)) {
		DMERR("%s: the set has changed since the table was loaded, load it again",
		      dmr_name(r));
		return -EAGAIN;
	}
	*r->super = h->super;
	take_choices(r, r->super);
	l->found[0][0] = h->found[0];
	l->found[0][1] = h->found[1];
	return 0;
}

/*
 * An adopted disk is known by its driver's id as soon as there is one.  A tagged one
 * is the set's wherever it was copied to: what is recorded is what it was last.  To
 * be written with the epoch.
 */
static void learn_main_id(struct remap *r)
{
	struct dmr_super *sb = r->super;
	u8 id[sizeof(sb->main_id)] = {}, type = 0;
	int len;

	if (sb->main_id_type && !r->tagged)
		return;
	len = identity_id(r, id, &type);
	if (!len)
		return;
	memcpy(sb->main_id, id, sizeof(id));
	sb->main_id_len = len;
	sb->main_id_type = type;
	sb->main_offset = dmr_put64(r->main_offset);
	if (!r->tagged)
		r->identity = DMR_BY_ID;
}

/*
 * The extension's tables are loaded and have two copies like all others.  They
 * become the set's by what the superblocks say, in the commit that follows.
 */
static int load_grow(struct remap *r, struct load *l)
{
	u32 slot = r->seg[r->nr_segs - 1].first_slot;
	char *why;

	for (; slot < r->nr_slots; slot++) {
		if (dmr_state(r->slot[slot].info) != DMR_FREE) {
			DMERR("%s: the extension is in use, run dmremapctl grow",
			      dmr_name(r));
			return -EBUSY;
		}
	}
	why = add_segment(r, r->super);
	if (why) {
		DMERR("%s: %s", dmr_name(r), why);
		return -EINVAL;
	}
	commit_mark_block(r, 0);
	DMINFO("%s: the set grows to %u slots", dmr_name(r), r->nr_slots);
	return 0;
}

/*
 * An epoch begins with each load that may write, before any I/O is let in.  Where
 * the superblocks cannot be written the set is as good as it was: it starts in mode
 * ro, and the tag is left alone.
 */
static int load_raise(struct remap *r)
{
	if (!r->no_raise) {
		learn_main_id(r);
		if (!commit_raise(r))
			return 0;
	}
	if (killed())
		return -EINTR;
	r->no_raise = true;
	DMERR("%s: no epoch can be written, nothing new will be mapped",
	      dmr_name(r));
	event_report(r, DMR_EV_MODE, U64_MAX, 1);
	event_fails(r, DMR_SPARE, DMR_WRITES, U64_MAX);
	return 0;
}

/* What has to be written before I/O may be let in was not: says what can be done. */
static int load_unwritten(struct remap *r, int ret)
{
	if (ret == -EIO)
		DMERR("%s: no metadata can be written: try dmremapctl assemble --readonly",
		      dmr_name(r));
	return ret;
}

static int do_load(struct remap *r, struct scan *s, struct load *l)
{
	int ret;

	r->no_raise = false;
	ret = load_head(r, s, l);
	if (!ret)
		ret = identity_run(r, (u8 *)&r->uuid);
	if (ret)
		return ret;
	ret = load_homes(r, s, l);
	if (ret)
		return ret;
	ret = load_standins(r, l);
	if (!ret)
		ret = load_check(r, l);
	if (ret)
		return ret;
	load_places(r, l);
	ret = load_lookup(r, l);
	if (ret)
		return ret;
	ret = load_mend(r, l);
	if (!ret && l->rebuild)
		ret = load_losers(r);
	if (ret)
		return load_unwritten(r, ret);
	load_epoch(r, l);
	/* What status says: copies of this epoch. */
	if (!dmr_same_epoch(&r->tag->epoch, &r->super->epoch))
		WRITE_ONCE(r->nr_tags, 0);
	load_count(r);
	if (l->grow) {
		ret = load_grow(r, l);
		if (ret)
			return ret;
	}
	/* A table before this one may have left writes unflushed. */
	atomic64_set(&r->spare_writes, 1);
	if (r->read_only)
		return 0;
	ret = commit_dirty(r);
	if (ret)
		return load_unwritten(r, ret);
	ret = load_raise(r);
	if (ret)
		return ret;
	if (r->no_raise)
		return 0;
	ret = blkdev_issue_flush(r->spare->bdev);
	if (ret)
		return ret;
	/* Only now are both counters of unflushed writes equal by right. */
	dmr_flushed(r, 1);
	identity_write_tag(r);
	return 0;
}

/**
 * load_set() - load the set, or format it first; for preresume
 * @r: the target
 *
 * Can be repeated after an error.
 */
int load_set(struct remap *r)
{
	unsigned int noio = memalloc_noio_save();
	struct load *l = kvzalloc(sizeof(*l), GFP_KERNEL);
	struct scan *s = scan_alloc(r);
	int ret = -ENOMEM;

	if (l)
		l->found = kvcalloc(r->nr_mblocks, sizeof(*l->found), GFP_KERNEL);
	if (!l || !l->found || !s)
		goto out;
	if (r->format) {
		ret = format_once(r, s, &l->head);
		if (ret)
			goto out;
	}
	ret = do_load(r, s, l);
	/* As it was, for the next attempt. */
	if (ret)
		slots_clear(r);
out:
	if (ret)
		identity_stop(r);
	if (l)
		kvfree(l->found);
	kvfree(l);
	scan_free(s);
	memalloc_noio_restore(noio);
	return ret;
}
