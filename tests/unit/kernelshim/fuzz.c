// SPDX-License-Identifier: GPL-2.0-only
/*
 * Damaged and hostile areas for the loader of dm-remap-load.c, and a second opinion.
 *
 * What is chosen where is for choice() to say.  The oracle below is written from
 * docs/format.md, and shares no check with the kernel.
 */
#include "fuzz.h"
#include <sanitizer/asan_interface.h>

/*----------------------------------------------------------------
 * Checksum, eight bytes at a time
 *----------------------------------------------------------------
 */

static u32 crc_table[8][256];

void fuzz_init(void)
{
	u32 i, j;

	for (i = 0; i < 256; i++) {
		u32 crc = i;

		for (j = 0; j < 8; j++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
		crc_table[0][i] = crc;
	}
	for (j = 1; j < 8; j++)
		for (i = 0; i < 256; i++)
			crc_table[j][i] = crc_table[j - 1][i] >> 8 ^
					  crc_table[0][crc_table[j - 1][i] & 0xff];
}

__attribute__((no_sanitize("address", "undefined")))
static u32 crc_words(u32 crc, const u8 *p, size_t n)
{
	u64 w;

	for (; n >= 8; n -= 8, p += 8) {
		memcpy(&w, p, 8);
		w ^= crc;
		crc = crc_table[7][w & 0xff] ^ crc_table[6][w >> 8 & 0xff] ^
		      crc_table[5][w >> 16 & 0xff] ^ crc_table[4][w >> 24 & 0xff] ^
		      crc_table[3][w >> 32 & 0xff] ^ crc_table[2][w >> 40 & 0xff] ^
		      crc_table[1][w >> 48 & 0xff] ^ crc_table[0][w >> 56];
	}
	while (n--)
		crc = crc >> 8 ^ crc_table[0][(crc ^ *p++) & 0xff];
	return crc;
}

__u32 dmr_crc32c_raw(__u32 crc, const void *data, size_t len)
{
	/* That all of it may be read is checked once. */
	if (__asan_region_is_poisoned((void *)data, len))
		return *(volatile u8 *)__asan_region_is_poisoned((void *)data, len);
	return crc_words(crc, data, len);
}

/*----------------------------------------------------------------
 * Choices
 *----------------------------------------------------------------
 */

static u64 rnd64(void) { return choice(0); }
static u32 rnd(u32 n) { return choice(n); }
static bool one_in(u32 n) { return !rnd(n); }

#define fail(f, ...)	do {							\
	printf("%s: " f "\n", area_name, ##__VA_ARGS__);			\
	fflush(stdout);								\
	abort();								\
} while (0)

/*----------------------------------------------------------------
 * The area and the table line
 *----------------------------------------------------------------
 */

#define MAX_BLOCKS	400u
#define MAX_SLOTS	1200u
#define MAX_MBLOCKS	40u
#define MAIN_SECTORS	100000u
#define BODY		(DMR_BLOCK_SIZE - sizeof(struct dmr_header))

typedef union {
	u8 b[DMR_BLOCK_SIZE];
	struct dmr_header h;
	struct dmr_super super;
	struct dmr_table table;
	struct dmr_tag tag;
} block_t;

static block_t disk[MAX_BLOCKS], original[MAX_BLOCKS];
static bool used[MAX_BLOCKS];		/* else it reads as zero */
static bool dirty[MAX_BLOCKS];		/* not zero in disk[], used or not */
static bool touched[MAX_BLOCKS];	/* not as original any more */
static u8 bad[MAX_BLOCKS], stuck[MAX_BLOCKS];
static u64 blocks;			/* that can be read */
static bool any_stuck;
static unsigned int writes;

#define NR_TAGS		5u
#define PIECE		8u
static const u8 tag_place[NR_TAGS] = { 1, 64, 128, 192, 255 };
static block_t main_tags[NR_TAGS];
static bool tag_bad[NR_TAGS];
/* A sector of main's first MiB that is not zero, in a block of which some cannot be read. */
static struct { u64 block; u32 sector; u8 bad; } odd;
static u64 main_now;			/* sectors */
static bool has_id;
static struct dmr_epoch newest_epoch;	/* in the superblock that was written last */
static u64 old_epoch;			/* of the set as it is found */
static u32 tag_writes;

static const u8 ours[16] = "the set of all.", theirs[16] = "another one ...";

/* The table line. */
static struct {
	u64 area, main_start, len;
	u32 unit;
	bool read_only, accept_stale, has_uuid;
} line;

/* What the area was made from. */
static struct {
	u32 nr_segs, unit;
	u64 end[DMR_MAX_SEGMENTS + 1];			/* of each segment; [0] is its start */
	u32 nr;				/* table blocks */
	u64 home[MAX_MBLOCKS][2];
	u32 slots[MAX_MBLOCKS];
	bool live[MAX_MBLOCKS];		/* belongs to the set already */
	bool tagged, blank;
	u64 seq[MAX_MBLOCKS + 1];
	u64 epoch, epoch_id, before_id;
} base;

static bool honest;			/* nothing was sealed by hand */

char area_name[64];

static bool valid(const block_t *b, int type, u64 place);
static bool is_refuge(u64 block);
static struct remap r;

static struct dmr_super winner;		/* as the load finds it */
static struct dmr_super super[2];	/* its copies, as they were written since */
static bool written[2];

/* A stand-in is written when both superblocks say what it is for, or to be erased. */
static void check_standin(u64 place, const block_t *b)
{
	u64 home = le64toh(b->h.home);
	u32 copy;

	for (copy = 0; copy < 2; copy++) {
		const struct dmr_super *sb = written[copy] ? &super[copy] : &winner;
		u64 name = le64toh(sb->standin[place - 128]);

		if (is_refuge(place) ? b->h.seq && (le16toh(b->h.type) != 1 || home % 255) :
		    !name || (b->h.seq && (le16toh(b->h.type) != 2 || home != name)))
			fail("block %llu, a stand-in for %llu, is written for %llu", place, name,
			     home);
	}
}

/* Nothing is written to main but its tag, when both superblocks say the same already. */
static void write_tag(u64 block, const block_t *b)
{
	u32 t = 0;

	while (t < NR_TAGS && block != tag_place[t])
		t++;
	if (t == NR_TAGS || line.read_only || !r.tagged)
		fail("main is written to, at block %llu", block);
	if (!valid(b, 3, block) || le64toh(b->h.home) != block ||
	    b->h.seq != b->tag.epoch.number || memcmp(&b->tag.epoch, &newest_epoch, 16))
		fail("main's block %llu gets no tag of this epoch", block);
	tag_writes++;
	main_tags[t] = *b;
	tag_bad[t] = false;
}

/* A block of main or a part of it. */
static int read_main(u64 sector, u8 *to, u32 len)
{
	u64 block = sector / 8, t = 0;
	u32 from = sector % 8, end = from + len / 512;

	if (end > 8)
		fail("%u bytes of main are read at sector %llu", len, sector);
	memset(to, 0, len);
	while (t < NR_TAGS && block != tag_place[t])
		t++;
	if (t < NR_TAGS) {
		memcpy(to, main_tags[t].b + from * 512, len);
		return tag_bad[t] ? -EIO : 0;
	}
	if (block != odd.block)
		return 0;
	if (odd.sector >= from && odd.sector < end)
		to[(odd.sector - from) * 512] = 1;
	return odd.bad >> from & ((1u << (end - from)) - 1) ? -EIO : 0;
}

int shim_io(struct block_device *bdev, sector_t sector, struct bio_vec *vecs, unsigned int n,
	    blk_opf_t opf)
{
	u64 block = sector / 8;
	unsigned int i;

	if (bdev->data == (u8 *)main_tags && (opf & REQ_OP_MASK) == REQ_OP_READ)
		return n == 1 ? read_main(sector, vecs->page->data, vecs->len) : -EIO;
	if (sector % 8)
		fail("I/O at sector %llu", sector);
	for (i = 0; i < n; i++, block++) {
		u8 *page = vecs[i].page->data;

		if (vecs[i].len != DMR_BLOCK_SIZE)
			fail("I/O of %u bytes", vecs[i].len);
		if (bdev->data == (u8 *)main_tags) {
			write_tag(block, (block_t *)page);
			continue;
		}
		if (block >= line.area)
			fail("I/O at block %llu, outside of the area", block);
		if (block >= blocks)
			return -EIO;
		if ((opf & REQ_OP_MASK) == REQ_OP_WRITE) {
			if (line.read_only)
				fail("block %llu is written, and the table is read-only", block);
			writes++;
			if (block >= 128 && block < 255)
				check_standin(block, (block_t *)page);
			if (stuck[block])
				return -EIO;
			memcpy(&disk[block], page, DMR_BLOCK_SIZE);
			used[block] = dirty[block] = true;
			bad[block] = 0;
			/* The second copy of it is the one that counts. */
			if (le16toh(disk[block].h.type) == 1 && le64toh(disk[block].h.home) == 255)
				newest_epoch = disk[block].super.epoch;
			if (le16toh(disk[block].h.type) == 1) {
				u32 copy = le64toh(disk[block].h.home) == 255;

				super[copy] = disk[block].super;
				written[copy] = true;
			}
		} else if (bad[block]) {
			return -EIO;
		} else if (used[block]) {
			memcpy(page, &disk[block], DMR_BLOCK_SIZE);
		} else {
			memset(page, 0, DMR_BLOCK_SIZE);
		}
	}
	return 0;
}

/* A block that is about to be changed. */
static block_t *edit(u64 block)
{
	if (!used[block])
		memset(&disk[block], 0, DMR_BLOCK_SIZE);
	used[block] = dirty[block] = true;
	touched[block] = true;
	return &disk[block];
}

/* Independent of dmr_block_crc(). */
static u32 crc_of(const block_t *b, u64 place)
{
	u8 head[24];
	u32 crc;
	unsigned int i;

	memcpy(head, b->b + 16, 16);
	for (i = 0; i < 8; i++)
		head[16 + i] = place >> 8 * i;
	crc = crc_words(~0u, head, 24);
	crc = crc_words(crc, b->b, 8);
	crc = crc_words(crc, (const u8 *)"\0\0\0\0", 4);
	return ~crc_words(crc, b->b + 12, DMR_BLOCK_SIZE - 12);
}

static void reseal(block_t *b, u64 place) { b->h.crc = htole32(crc_of(b, place)); }

static void seal(block_t *b, int type, const u8 *uuid, u64 seq, u64 home, u64 place)
{
	memset(b, 0, sizeof(b->h));
	memcpy(b->h.magic, "dm-remap", 8);
	b->h.type = htole16(type);
	b->h.version = htole16(2);
	memcpy(b->h.uuid, uuid, 16);
	b->h.seq = htole64(seq);
	b->h.home = htole64(home);
	reseal(b, place);
}

/*----------------------------------------------------------------
 * An undamaged area
 *----------------------------------------------------------------
 */

static u32 most_slots(u64 n, u32 unit)
{
	u32 slots = 0;

	while (slots <= MAX_SLOTS * 8 &&
	       2 * ((slots + 252) / 252) + ((slots + 1) * unit + 4095ull) / 4096 <= n)
		slots++;
	return slots;
}

static void put_entry(struct dmr_entry *e, u64 unit, u32 state, u32 gen)
{
	e->unit = htole64(unit);
	e->state_gen = htole32(gen << 8 | state);
	e->zero = 0;
}

static void make_segment(u32 s, u64 start, u64 end, bool live)
{
	struct dmr_segment *seg = &disk[0].super.segment[s];
	u32 slots = most_slots(end - start, base.unit), n = (slots + 251) / 252, i, k;

	if (live) {
		seg->start = htole64(start);
		seg->blocks = htole64(end - start);
		seg->slots = htole32(slots);
		seg->table_blocks = htole32(n);
	}
	for (i = 0; i < n; i++) {
		u32 mb = base.nr++, here = slots - i * 252 < 252 ? slots - i * 252 : 252;
		u64 a = start + i, b = end - n + i;
		u64 seq = live ? 1 + rnd(40) : 1;

		base.home[mb][0] = a;
		base.home[mb][1] = b;
		base.slots[mb] = here;
		base.live[mb] = live;
		base.seq[mb + 1] = seq;
		memset(edit(a), 0, DMR_BLOCK_SIZE);
		for (k = rnd(30); live && k; k--) {
			/* A unit for each slot, so that none is there twice. */
			u32 slot = rnd(here), what = rnd(8);
			u64 unit = MAIN_SECTORS * 512ull / base.unit - 1 - mb * 252 - slot;

			if (one_in(2) && unit >= 64 * 100 + 3000)
				unit -= 64 * 100 + rnd(2) * 3000;
			put_entry(&disk[a].table.entry[slot], what ? unit : 0,
				  what ? 1 + (what == 1) : 3, what ? rnd(5) : 0);
		}
		memcpy(edit(b), &disk[a], DMR_BLOCK_SIZE);
		seal(&disk[a], 2, ours, seq, a, a);
		seal(&disk[b], 2, ours, seq, b, b);
	}
}

/* A unit on its way from one slot to another. */
static void make_move(void)
{
	u32 mb = rnd(base.nr), to = rnd(base.nr), slot = rnd(base.slots[mb]);
	struct dmr_entry e = disk[base.home[mb][0]].table.entry[slot], *n;
	u32 copy, state = le32toh(e.state_gen) & 0xff, free = rnd(base.slots[to]);

	if (!base.live[to] || (state != 1 && state != 2))
		return;
	for (copy = 0; copy < 2; copy++) {
		n = &disk[base.home[to][copy]].table.entry[free];
		if (n->state_gen)
			return;
		put_entry(n, le64toh(e.unit), 1, (le32toh(e.state_gen) >> 8) + 1);
		reseal(&disk[base.home[to][copy]], base.home[to][copy]);
	}
}

/* What is in the superblock besides the set's shape.  The segments are made. */
static void make_history(struct dmr_super *sb)
{
	u32 i, mb, place;

	base.epoch = one_in(8) ? (1ull << 62) - rnd(2) : 1 + rnd(4);
	base.epoch_id = one_in(8) ? 1 + rnd(2) : rnd64() | 1;
	base.before_id = base.epoch == 1 ? 0 : one_in(8) ? base.epoch_id : rnd64() | 2;
	sb->epoch.number = htole64(base.epoch);
	sb->epoch.id = htole64(base.epoch_id);
	sb->before.number = htole64(base.epoch - 1);
	sb->before.id = htole64(base.before_id);
	if (one_in(4)) {
		memcpy(sb->predecessor, theirs, 16);
		sb->predecessor_epoch.number = htole64(1 + rnd(9));
		sb->predecessor_epoch.id = htole64(rnd64() | 1);
	}
	if (one_in(8))
		memcpy(sb->content_tag, theirs, 16);
	sb->spare_serial = htole64(one_in(4) ? rnd64() | 1 : 1);
	sb->chosen_errors = rnd(3);
	sb->chosen = rnd(2);
	sb->remap_rate = htole32(rnd(100));
	for (i = rnd(4); i; i--) {
		mb = rnd(base.nr);
		place = 128 + rnd(127);
		if (base.live[mb] && place % 16 != 8)
			sb->standin[place - 128] = htole64(base.home[mb][rnd(2)]);
	}
}

/* Main's tag: of this epoch or one behind, further behind, or in some places only. */
static void make_tags(u64 start)
{
	u32 behind = rnd(4), i;

	for (i = 0; i < NR_TAGS; i++) {
		struct dmr_tag *t = &main_tags[i].tag;
		u64 back = behind == 1 ? rnd(2) : behind == 2 ? rnd(4) : 0;

		if (behind == 3 && one_in(3)) {
			tag_bad[i] = one_in(2);
			continue;
		}
		back = back < base.epoch ? back : base.epoch - 1;
		t->main_sectors = htole64(MAIN_SECTORS);
		t->data_start = htole64(start);
		t->spare_len = htole64(blocks * 8);
		t->unit = htole32(base.unit);
		t->epoch.number = htole64(base.epoch - back);
		t->epoch.id = htole64(!back ? base.epoch_id : back == 1 ? base.before_id : back);
		strcpy((char *)t->name, "attic");
		seal(&main_tags[i], 3, ours, base.epoch - back, tag_place[i], tag_place[i]);
	}
}

/* No copy can be read, or none but those that are blank; and something else, perhaps. */
static void lose_tags(void)
{
	bool blank = one_in(4);
	u32 i;

	for (i = 0; i < NR_TAGS; i++) {
		tag_bad[i] = !blank && one_in(2);
		if (!tag_bad[i])
			memset(&main_tags[i], 0, DMR_BLOCK_SIZE);
	}
	if (one_in(2))
		return;
	odd.block = one_in(2) ? rnd(2) * 254 : rnd(300);
	odd.sector = rnd(8);
	odd.bad = one_in(2) ? 1 << rnd(8) : 0;
}

/* What the control plane keeps, or anything else: it is of no meaning to a load. */
static void make_own(void)
{
	u32 i, n;

	for (n = rnd(8); n; n--) {
		i = 1 + rnd(16);
		memset(edit(i), 1 + rnd(255), DMR_BLOCK_SIZE);
		if (one_in(3))
			disk[i] = disk[0];
		if (one_in(2))
			seal(&disk[i], 1 + rnd(4), one_in(3) ? theirs : ours, 1 + rnd(9), i, i);
	}
}

void make_area(void)
{
	u32 kind = rnd(16), i;
	u64 area, start;
	struct dmr_super *sb;
	bool full;

	/* Nothing is left of the area before: one area alone is what it is among others. */
	forget_pages();
	for (i = 0; i < MAX_BLOCKS; i++)
		if (dirty[i])
			memset(&disk[i], 0, DMR_BLOCK_SIZE);
	memset(dirty, 0, sizeof(dirty));
	memset(used, 0, sizeof(used));
	memset(touched, 0, sizeof(touched));
	memset(bad, 0, sizeof(bad));
	memset(stuck, 0, sizeof(stuck));
	memset(&base, 0, sizeof(base));
	memset(main_tags, 0, sizeof(main_tags));
	memset(tag_bad, 0, sizeof(tag_bad));
	memset(&odd, 0, sizeof(odd));
	odd.block = ~0ull;
	any_stuck = false;
	honest = true;
	base.unit = kind == 15 ? 4096 : kind == 14 ? 1024 : 512;
	base.tagged = one_in(3);
	has_id = one_in(8);
	main_now = MAIN_SECTORS;
	line.read_only = one_in(8);
	line.accept_stale = line.read_only && one_in(2);
	line.has_uuid = !one_in(4);
	base.blank = one_in(24);
	base.nr_segs = kind < 8 ? 1 : 2 + (kind == 8);
	base.end[0] = DMR_HEAD_BLOCKS;
	for (i = 1; i <= base.nr_segs; i++)
		base.end[i] = base.end[i - 1] + (one_in(3) ? 3 + rnd(5) : 36 + rnd(8));
	if (kind < 4)
		base.end[1] = 330 + rnd(30);
	blocks = base.end[base.nr_segs];
	full = one_in(64);
	if (full) {
		base.nr_segs = DMR_MAX_SEGMENTS;
		for (i = 1; i <= base.nr_segs; i++)
			base.end[i] = base.end[i - 1] + 3;
		blocks = base.end[base.nr_segs] + rnd(2) * 5;
	}

	memset(edit(0), 0, DMR_BLOCK_SIZE);
	sb = &disk[0].super;
	/* With more than one segment the last one is often an extension. */
	i = base.nr_segs > 1 && !full && one_in(2) ? base.nr_segs - 1 : base.nr_segs;
	area = base.end[i];
	sb->state = htole32(2);
	sb->unit = htole32(base.unit);
	sb->area_blocks = htole64(area);
	sb->nr_segments = htole32(i);
	sb->main_sectors = htole64(MAIN_SECTORS);
	sb->main_flags = htole32(base.tagged);
	start = base.tagged ? 2048 : 0;
	sb->data_start = htole64(start);
	sb->data_sectors = htole64(MAIN_SECTORS - start);
	strcpy((char *)sb->name, "attic");
	if (has_id && one_in(2)) {
		sb->main_id_type = BLK_UID_NAA;
		sb->main_id_len = 8;
		memset(sb->main_id, one_in(4) ? 9 : 5, 8);
	}
	for (i = 0; i < base.nr_segs; i++)
		make_segment(i, base.end[i], base.end[i + 1], base.end[i + 1] <= area);
	make_history(sb);
	memcpy(edit(255), &disk[0], DMR_BLOCK_SIZE);
	base.seq[0] = 2 + rnd(9);
	seal(&disk[0], 1, ours, base.seq[0], 0, 0);
	seal(&disk[255], 1, ours, base.seq[0], 255, 255);
	if (one_in(3))
		make_move();
	if (base.tagged)
		make_tags(start);
	if (base.tagged && has_id && one_in(2))
		lose_tags();
	if (one_in(4))
		make_own();
	line.area = blocks;
	line.unit = base.unit;
	line.main_start = start;
	line.len = MAIN_SECTORS - start;

	/* No set at all, or one whose format was cut. */
	if (base.blank) {
		honest = false;
		line.has_uuid = one_in(4);
		if (base.tagged)
			memset(main_tags, 0, sizeof(main_tags));
		memset(used, 0, sizeof(used));
		if (one_in(2)) {
			disk[0].super.state = htole32(1);
			disk[0].super.main_flags = 0;
			seal(&disk[0], 1, ours, 1, 0, 0);
			used[0] = true;
			for (i = 0; i < base.nr; i++) {
				block_t *b = edit(base.home[i][0]);

				memset(b, 0, sizeof(*b));
				seal(b, 2, ours, 1, base.home[i][0], base.home[i][0]);
				used[base.home[i][0]] = !one_in(3);
			}
		}
	}
	for (i = 0; i < base.nr; i++) {
		original[base.home[i][0]] = disk[base.home[i][0]];
		original[base.home[i][1]] = disk[base.home[i][1]];
	}
	memset(touched, 0, sizeof(touched));
}

/*----------------------------------------------------------------
 * Damage
 *----------------------------------------------------------------
 */

/* A home of a block; the superblock's copies are the last two. */
static u64 some_home(void)
{
	u32 i = rnd(base.nr + 1);

	return i == base.nr ? rnd(2) * 255 : base.home[i][rnd(2)];
}

static u64 some_standin(void)
{
	switch (rnd(8)) {
	case 0:
	case 1:
		return 128 + rnd(127);
	case 2:
		return 136 + 16 * rnd(3);
	default:
		return 128 + rnd(12);
	}
}

static bool is_refuge(u64 block) { return block >= 136 && block < 255 && block % 16 == 8; }

/* A stand-in for the copy with this home: mostly one of the right sort, with its name. */
static u64 standin_for(u64 home)
{
	u64 place = some_standin();
	u32 copy;

	if (one_in(8))
		return place;
	if (home == 0 || home == 255)
		return 136 + 16 * (one_in(2) ? rnd(8) : rnd(2));
	if (is_refuge(place))
		place++;
	for (copy = 0; copy < 2; copy++) {
		block_t *b = &disk[copy * 255];

		if (!used[copy * 255] || !valid(b, 1, copy * 255))
			continue;
		b->super.standin[place - 128] = htole64(home);
		reseal(b, copy * 255);
	}
	return place;
}

static u64 some_place(void) { return one_in(3) ? some_standin() : some_home(); }
static u64 any_place(void) { return one_in(8) ? rnd(line.area) : some_place(); }

static u64 hostile(u64 honest_value)
{
	static const u64 odd[] = {
		0, 1, 2, 3, 255, 256, 0x7fffffffffffffffull, 0x7ffffffffffffffeull,
		0x7ffffffffffffffdull, 0x7ffffffffffffffcull, 0x8000000000000000ull, ~0ull, ~1ull,
		0xffffffffull, 0x80000000ull, 1ull << 51, (1ull << 51) + 1, 1ull << 54, 0x1000000,
		0x1000001,
	};

	switch (rnd(4)) {
	case 0:
		return honest_value + 1;
	case 1:
		return honest_value - 1;
	case 2:
		return rnd64();
	default:
		return odd[rnd(ARRAY_SIZE(odd))];
	}
}

static u64 hostile_seq(u64 now) { return one_in(3) ? hostile(now) : now - 3 + rnd(7); }

static void hostile_entry(block_t *b, u32 mb)
{
	u64 units = main_now * 512 / base.unit;
	u32 i = one_in(8) ? rnd(252) : rnd(base.slots[mb]);
	struct dmr_entry *e = &b->table.entry[i];

	switch (rnd(9)) {
	case 0:
		put_entry(e, units - 1 + rnd(3), 1 + rnd(2), rnd(3));
		break;
	case 1:
		put_entry(e, hostile(units), 1 + rnd(2), 0);
		break;
	case 2:
		put_entry(e, rnd(units), 1 + rnd(2), 0xfffffd + rnd(3));
		break;
	case 3:
		put_entry(e, rnd(3), rnd(256), rnd(2));
		break;
	case 4:
		e->zero = htole32(1u << rnd(32));
		break;
	case 5:
		put_entry(&b->table.entry[base.slots[mb] % 252], rnd(2), rnd(3), 0);
		break;
	case 6:
		put_entry(e, rnd(2), rnd(2) * 3, rnd(2));
		break;
	default: {
		/* A unit that has a slot already. */
		u32 other = rnd(base.nr), k;
		struct dmr_entry *o = disk[base.home[other][0]].table.entry;

		for (k = rnd(base.slots[other]), o += k; k && !o->unit; k--)
			o--;
		put_entry(e, le64toh(o->unit), 1 + rnd(2), rnd(6));
	}
	}
}

static void hostile_epoch(struct dmr_epoch *e)
{
	if (one_in(2))
		e->number = htole64(one_in(3) ? (1ull << 62) + rnd(3) : hostile(le64toh(e->number)));
	if (one_in(2))
		e->id = htole64(rnd(2) * (le64toh(e->id) ^ 1));
}

static void hostile_tag(struct dmr_tag *t)
{
	switch (rnd(10)) {
	case 0:
		t->data_start = htole64(one_in(2) ? 2047 + rnd(3) : hostile(2048));
		break;
	case 1:
		t->unit = htole32(one_in(2) ? 256u << rnd(6) : hostile(base.unit));
		break;
	case 2:
		t->main_sectors = htole64(hostile(one_in(2) ? MAIN_SECTORS : 2048));
		break;
	case 3:
		t->name[127] = 'x';
		break;
	case 4:
		t->epoch.number = htole64(hostile(base.epoch));
		break;
	default:
		/* Ahead; of a history that has parted, now or one before; or long ago. */
		t->epoch.number = htole64(base.epoch + 1 - rnd(4));
		t->epoch.id = htole64(rnd(4) ? 1 + rnd(9) : rnd(2) ? base.epoch_id : base.before_id);
	}
}

/* A version of the tag that was never written, in one place, in some or in all. */
static void forge_tags(void)
{
	u32 how = rnd(4), only = rnd(NR_TAGS), i;
	struct dmr_tag t = main_tags[rnd(NR_TAGS)].tag;
	u32 version = one_in(8) ? rnd(4) : 2;
	u64 seq;

	if (!base.tagged)
		t.main_sectors = htole64(MAIN_SECTORS);
	hostile_tag(&t);
	seq = one_in(8) ? hostile_seq(base.epoch) : le64toh(t.epoch.number);
	for (i = 0; i < NR_TAGS; i++) {
		block_t *b = &main_tags[i];

		if (how < 2 ? i != only : how == 2 && rnd(2))
			continue;
		b->tag = t;
		seal(b, 3, one_in(12) ? theirs : ours, seq,
		     one_in(12) ? tag_place[only] : tag_place[i], tag_place[i]);
		b->h.version = htole16(version);
		reseal(b, tag_place[i]);
	}
}

static void hostile_super(struct dmr_super *sb)
{
	u32 s = one_in(3) ? rnd(32) : rnd(base.nr_segs);
	struct dmr_segment *seg = &sb->segment[s];

	switch (rnd(28)) {
	case 0:
		seg->start = htole64(hostile(le64toh(seg->start)));
		break;
	case 1:
		seg->blocks = htole64(hostile(le64toh(seg->blocks)));
		break;
	case 2:
		seg->slots = htole32(hostile(le32toh(seg->slots)));
		break;
	case 3:
		seg->table_blocks = htole32(hostile(le32toh(seg->table_blocks)));
		break;
	case 4:
		sb->area_blocks = htole64(hostile(le64toh(sb->area_blocks)));
		break;
	case 5:
		sb->nr_segments = htole32(one_in(2) ? 32 + rnd(2) : hostile(base.nr_segs));
		break;
	case 6:
		sb->unit = htole32(one_in(2) ? 256u << rnd(6) : hostile(base.unit));
		break;
	case 7:
		sb->state = htole32(one_in(2) ? rnd(4) : hostile(2));
		break;
	case 8:
		sb->main_sectors = htole64(hostile(MAIN_SECTORS));
		break;
	case 9:
		sb->data_start = htole64(hostile(le64toh(sb->data_start)));
		break;
	case 10:
		sb->data_sectors = htole64(hostile(le64toh(sb->data_sectors)));
		break;
	case 11:
		sb->main_id_len = rnd(256);
		break;
	case 12:
		(one_in(2) ? sb->name : sb->main_serial)[127] = 'x';
		break;
	case 13:
		sb->main_flags = htole32(hostile(0));
		break;
	case 14:
		sb->compat = htole64(1ull << rnd(64));
		break;
	case 15:
		sb->ro_compat = htole64(1ull << rnd(64));
		break;
	case 16:
		sb->incompat = htole64(one_in(3) ? 1 : 1ull << rnd(64));
		break;
	case 17:
		/* The segments of a larger set that is not there. */
		seg = &sb->segment[base.nr_segs % DMR_MAX_SEGMENTS];
		seg->start = htole64(base.end[base.nr_segs]);
		seg->blocks = htole64(rnd(40));
		seg->slots = htole32(rnd(300));
		seg->table_blocks = htole32(rnd(3));
		sb->nr_segments = htole32(base.nr_segs + 1);
		sb->area_blocks = htole64(le64toh(sb->area_blocks) + rnd(41));
		break;
	case 18:
		/* Shorter segments: the copies B would be elsewhere. */
		seg->slots = htole32(le32toh(seg->slots) - rnd(4));
		break;
	case 19:
	case 20:
		hostile_epoch(&sb->epoch);
		break;
	case 21:
		hostile_epoch(&sb->before);
		break;
	case 22:
		hostile_epoch(&sb->predecessor_epoch);
		break;
	case 23:
		sb->spare_serial = htole64(rnd(2) * rnd64());
		break;
	case 24:
		sb->chosen_errors = rnd(4);
		break;
	case 25:
	case 26:
		s = one_in(3) ? 8 + rnd(8) * 16 : rnd(127);
		sb->standin[s] = htole64(one_in(3) ? hostile(some_home()) : some_home());
		break;
	default:
		sb->name[rnd(100)] ^= 1;
	}
}

/* A version of a block that was never written; both copies of it, one, or a stand-in. */
static void forge(void)
{
	u32 mb = rnd(base.nr + 1), how = rnd(4), copy = rnd(2), what = rnd(10);
	bool super = mb == base.nr;
	u64 home = super ? copy * 255 : base.home[mb][copy];
	u64 other = super ? 255 - home : base.home[mb][!copy];
	u64 seq, place = how ? home : standin_for(home);
	block_t b = disk[home];

	honest = false;
	if (!used[home])
		memset(&b, 0, sizeof(b));
	seq = base.seq[super ? 0 : mb + 1];
	/* Half of them are taken for what they say. */
	seq = what < 5 ? seq + rnd(4) : what < 9 ? hostile_seq(seq) : seq;
	if (super && !one_in(6))
		hostile_super(&b.super);
	if (!super && !one_in(6))
		hostile_entry(&b, mb);
	seal(&b, super ? 1 : 2, one_in(12) ? theirs : ours, seq,
	     one_in(12) ? (one_in(3) ? hostile(home) : some_home()) : home, place);
	if (one_in(16)) {
		b.h.version = htole16(rnd(4));
		reseal(&b, place);
	}
	if (one_in(24)) {
		b.h.type = htole16(rnd(5));
		reseal(&b, place);
	}
	if (one_in(24)) {
		b.b[64 + rnd(BODY)] ^= 1u << rnd(8);
		reseal(&b, place);
	}
	*edit(place) = b;
	if (how > 1) {
		b.h.home = htole64(other);
		reseal(&b, other);
		*edit(other) = b;
	}
}

/* What a copy that lives on a stand-in looks like; its home has something old or nothing. */
static void move_away(void)
{
	u64 home = some_home(), place = standin_for(home);
	block_t b = disk[home];
	u32 i;

	honest = false;
	seal(&b, home == 0 || home == 255 ? 1 : 2, ours, le64toh(b.h.seq) + rnd(2), home, place);
	*edit(place) = b;
	if (one_in(3))
		used[home] = false;
	for (i = rnd(3); i == 2; i = 0)
		bad[home] = 1;
	touched[home] = true;
}

/* The rest of a commit, or a stale block. */
static void stale(void)
{
	u32 mb = rnd(base.nr);
	u64 home = base.home[mb][rnd(2)];
	block_t *b = edit(home);
	u32 i = rnd(base.slots[mb]);

	honest = false;
	if (one_in(2))
		put_entry(&b->table.entry[i], 0, rnd(2) * 3, 0);
	else
		put_entry(&b->table.entry[i], rnd(MAIN_SECTORS / 8), 1 + rnd(2), rnd(3));
	seal(b, 2, ours, base.seq[mb + 1] - (one_in(2) ? 1 : -1), home, home);
}

static void wrong_line(void)
{
	switch (rnd(6)) {
	case 0:
		line.unit = 512u << rnd(4);
		break;
	case 1:
		line.main_start = rnd(2) * 2048 + rnd(2);
		break;
	case 2:
		line.len += rnd(3);
		break;
	case 3:
		line.area = one_in(2) ? line.area + rnd(8) : base.end[rnd(base.nr_segs) + 1];
		line.area = min(line.area, (u64)MAX_BLOCKS);
		break;
	case 4:
		main_now = MAIN_SECTORS - 8 + 8 * rnd(3);
		break;
	default: {
		u32 i, what = rnd(4);

		for (i = 0; i < NR_TAGS; i++) {
			block_t *t = &main_tags[i];

			if (what == 0)
				memset(t, 0, sizeof(*t));
			else if (what == 1)
				t->b[rnd(DMR_BLOCK_SIZE)] ^= 1;
			else
				t->tag.data_start = htole64(2048 + rnd(2));
			if (what > 1)
				seal(t, 3, what == 2 ? theirs : ours, 1 + rnd(2), tag_place[i],
				     tag_place[i]);
		}
	}
	}
}

void damage(void)
{
	u64 a = any_place(), b = any_place();
	u32 i, n;
	block_t t;

	switch (rnd(31)) {
	case 28:
	case 29:
		forge_tags();
		break;
	case 30:
		for (i = 0; i < NR_TAGS; i++)
			tag_bad[i] |= one_in(2);
		break;
	case 26:
	case 27:
		/* A stand-in whose write was cut: some sectors of a copy, with or without the first. */
		if (base.blank)
			break;
		i = rnd(base.nr + 1);
		n = rnd(2);
		a = i == base.nr ? n * 255 : base.home[i][n];
		b = standin_for(a);
		honest = false;
		t = disk[a];
		seal(&t, le16toh(t.h.type) == 2 ? 2 : 1, one_in(8) ? theirs : ours,
		     le64toh(t.h.seq) - 1 + rnd(4), one_in(8) ? some_home() : a, b);
		/* The other copy is gone: then it matters what this one hides. */
		if (one_in(3)) {
			n = i == base.nr ? 255 - a : base.home[i][!n];
			touched[n] = true;
			bad[n] = 1;
		}
		if (one_in(3))
			edit(b);
		else
			memset(edit(b), 0, DMR_BLOCK_SIZE);
		for (i = 0; i < 8; i++)
			if (rnd(4))
				memcpy(disk[b].b + i * 512, t.b + i * 512, 512);
		if (one_in(2))
			disk[b].b[512 + rnd(3584)] ^= 1;
		if (one_in(3)) {
			touched[a] = true;
			bad[a] = 1;
		}
		break;
	case 0:
	case 1:
		for (n = 1 + rnd(8); n; n--)
			edit(a)->b[rnd(DMR_BLOCK_SIZE)] ^= 1u << rnd(8);
		break;
	case 2:
		edit(a)->b[rnd(64)] ^= 1u << rnd(8);
		break;
	case 3:
		memset(edit(a), 1 + rnd(255), DMR_BLOCK_SIZE);
		break;
	case 4:
		touched[a] = true;
		used[a] = false;
		break;
	case 5:
	case 6:
		touched[a] = true;
		bad[a] = 1;
		break;
	case 7:
		edit(a);
		edit(b);
		t = disk[a];
		disk[a] = disk[b];
		disk[b] = t;
		break;
	case 8:
		edit(a);
		*edit(b) = disk[a];
		break;
	case 9:
	case 10:
		/* Torn: some sectors are another block's, or zero. */
		edit(a);
		edit(b);
		for (i = 0; i < 8; i++)
			if (one_in(2))
				memcpy(disk[a].b + i * 512, disk[b].b + i * 512, 512);
		break;
	case 11:
		if (one_in(2)) {
			blocks = rnd(line.area + 1);
			for (i = blocks; i < MAX_BLOCKS; i++)
				touched[i] = true;
		}
		break;
	case 12:
		memset(stuck, one_in(8), sizeof(stuck));
		for (n = 1 + rnd(6); n; n--)
			stuck[one_in(2) ? some_home() : one_in(3) ? 254 - rnd(8) : 128 + rnd(8)] = 1;
		any_stuck = true;
		break;
	case 13:
		/* Another set's. */
		honest = false;
		t = disk[used[a] ? a : 0];
		seal(&t, le16toh(t.h.type) == 2 ? 2 : 1, theirs, hostile_seq(5),
		     one_in(2) ? a : some_home(), a);
		*edit(a) = t;
		break;
	case 14:
	case 15:
		stale();
		break;
	case 16:
	case 17:
		if (!base.blank)
			move_away();
		break;
	case 18:
		wrong_line();
		break;
	default:
		forge();
	}
}

/* How many changes an area gets. */
u32 some_damage(void) { return one_in(20) ? 0 : 1 + rnd(one_in(4) ? 10 : 3); }

/* Bytes as they come: not sealed, sealed, or sealed in both copies. */
void overwrite(void)
{
	u32 how = rnd(4), mb = rnd(base.nr + 1), copy = rnd(2), n, at;
	u64 home = mb == base.nr ? copy * 255 : base.home[mb][copy], place = home;
	u64 other = mb == base.nr ? 255 - home : base.home[mb][!copy];
	u32 where = rnd(8);
	block_t *b;

	n = rnd(NR_TAGS);
	if (where == 0)
		place = tag_place[n];
	if (where == 1)
		place = standin_for(home);
	b = where ? edit(place) : &main_tags[n];
	if (where == 1 && used[home])
		*b = disk[home];
	at = one_in(2) ? rnd(128) : rnd(DMR_BLOCK_SIZE);
	for (n = 1 + rnd(16); n && at < DMR_BLOCK_SIZE; n--)
		b->b[at++] = rnd(256);
	if (!how)
		return;
	honest = false;
	reseal(b, place);
	if (where < 2 || how == 1)
		return;
	*edit(other) = *b;
	disk[other].h.home = htole64(other);
	reseal(&disk[other], other);
}

/*----------------------------------------------------------------
 * A second opinion, from the page
 *----------------------------------------------------------------
 */

struct opinion {
	const char *refuse;		/* or NULL */
	bool format;
	bool leftover;			/* on a stand-in: it may contradict the format */
	bool grow;
	u32 nr_slots, nr_mblocks, gone;
	u64 top_seq;			/* of any block */
	struct dmr_entry entry[MAX_SLOTS];
	bool unchanged[MAX_SLOTS];	/* both homes are as they were made */
	u32 mapped, lost, bad;
};

static bool readable(u64 b) { return b < blocks && !bad[b]; }

static bool is_zero(const void *p, size_t n)
{
	return !n || (!*(const u8 *)p && !memcmp(p, (const u8 *)p + 1, n - 1));
}

static bool valid(const block_t *b, int type, u64 place)
{
	u64 seq = le64toh(b->h.seq);

	return !memcmp(b->h.magic, "dm-remap", 8) && le16toh(b->h.type) == type && seq &&
	       !(seq >> 63) && le32toh(b->h.crc) == crc_of(b, place);
}

static bool on_disk(u64 place, int type)
{
	return readable(place) && used[place] && valid(&disk[place], type, place);
}

static bool body_ok(const struct dmr_table *t, u32 slots)
{
	u64 units = main_now * 512 / line.unit;
	u32 i;

	if (le16toh(t->h.version) != 2)
		return false;
	for (i = 0; i < 252; i++) {
		u32 sg = le32toh(t->entry[i].state_gen), state = sg & 0xff;
		u64 unit = le64toh(t->entry[i].unit);
		bool live = state == 1 || state == 2;

		if (t->entry[i].zero || state > 3 || (live && unit >= units) ||
		    (!live && (unit || sg != state)) || (i >= slots && (sg || unit)))
			return false;
	}
	return true;
}

/* A stand-in may be named for the home of a table copy, unless it is a superblock's. */
static bool names_ok(const struct dmr_super *sb)
{
	u32 i, s;

	for (i = 0; i < 127; i++) {
		u64 home = le64toh(sb->standin[i]);
		bool found = !home;

		for (s = 0; s < le32toh(sb->nr_segments) && i % 16 != 8; s++) {
			u64 start = le64toh(sb->segment[s].start);
			u64 end = start + le64toh(sb->segment[s].blocks);
			u32 n = le32toh(sb->segment[s].table_blocks);

			found |= (home >= start && home < start + n) || (home >= end - n && home < end);
		}
		if (!found)
			return false;
	}
	return true;
}

static const char *history_ok(const struct dmr_super *sb)
{
	u64 number = le64toh(sb->epoch.number), other = le64toh(sb->predecessor_epoch.number);

	if (!number || number > 1ull << 62 || !sb->epoch.id)
		return "epoch";
	/* There is none before the first. */
	if (le64toh(sb->before.number) != number - 1 || !sb->before.id != (number == 1))
		return "epoch before";
	if (other > 1ull << 62 || !other != !sb->predecessor_epoch.id)
		return "epoch of the predecessor";
	return sb->spare_serial && sb->chosen_errors < 3 ? NULL : "choices";
}

static const char *super_ok(const struct dmr_super *sb)
{
	u64 area = le64toh(sb->area_blocks), mains = le64toh(sb->main_sectors);
	u64 start = le64toh(sb->data_start), len = le64toh(sb->data_sectors), next = 256;
	u32 n = le32toh(sb->nr_segments), unit = le32toh(sb->unit), i;
	bool tagged = le32toh(sb->main_flags) & 1;

	if (le16toh(sb->h.version) != 2 || le64toh(sb->incompat) & ~1ull)
		return "version";
	if (sb->incompat)
		return "superseded";
	if (sb->ro_compat && !line.read_only)
		return "ro_compat";
	if ((unit != 512 && unit != 1024 && unit != 2048 && unit != 4096) || unit != line.unit)
		return "unit";
	if (n < 1 || n > 32 || area < 259 || area > line.area)
		return "area";
	if (area < line.area && line.read_only)
		return "longer";
	if (!mains || mains > 1ull << 54 || start > mains || len > mains - start)
		return "main";
	if (sb->main_id_len > 16 || sb->name[127] || sb->main_serial[127])
		return "text";
	if ((tagged && start < 2048) || start != line.main_start || line.len > len)
		return "data";
	for (i = 0; i < n; i++) {
		const struct dmr_segment *s = &sb->segment[i];
		u64 size = le64toh(s->blocks);
		u32 slots = le32toh(s->slots);

		if (le64toh(s->start) != next || size > area - next)
			return "segments";
		if (!slots || slots > most_slots(size, unit) ||
		    le32toh(s->table_blocks) != (slots + 251) / 252)
			return "segment";
		next += size;
	}
	return names_ok(sb) ? history_ok(sb) : "names";
}

/* Whether the newest copy is @tag, and no other contradicts it. */
static bool newest_tag(const block_t **tag)
{
	u64 top = 0;
	bool alone = true;
	u32 i;

	*tag = NULL;
	if (main_now < 2048)
		return false;
	for (i = 0; i < NR_TAGS; i++) {
		const block_t *b = &main_tags[i];
		u64 seq = le64toh(b->h.seq);

		if (tag_bad[i] || !valid(b, 3, tag_place[i]) ||
		    le64toh(b->h.home) != tag_place[i] || seq < top)
			continue;
		alone = seq > top || (alone && !memcmp((*tag)->h.uuid, b->h.uuid, 16) &&
				      !memcmp((*tag)->b + 64, b->b + 64, BODY));
		if (seq > top)
			*tag = b;
		top = seq;
	}
	return alone;
}

/* Is the tag that of this set as it was left? */
static const char *tag_ok(const struct dmr_super *sb, const block_t *b)
{
	const struct dmr_tag *tag = &b->tag;
	u64 then = le64toh(tag->epoch.number), now = le64toh(sb->epoch.number);
	u64 id = le64toh(tag->epoch.id);

	if (memcmp(b->h.uuid, sb->h.uuid, 16) || le16toh(b->h.version) != 2)
		return "tag of another";
	if (then != le64toh(b->h.seq) || then > 1ull << 62 || !id || tag->name[127])
		return "impossible tag";
	if (tag->data_start != sb->data_start || tag->unit != sb->unit ||
	    le64toh(tag->main_sectors) > 1ull << 54 ||
	    le64toh(tag->main_sectors) < le64toh(sb->data_start))
		return "tag of another main";
	if (then > now)
		return "older spare";
	if (then == now && id != le64toh(sb->epoch.id))
		return "parted";
	if (now - then == 1 && id != le64toh(sb->before.id))
		return "parted before";
	return NULL;
}

/* Is main the disk that is recorded?  1: yes, -1: another, 0: nobody knows. */
static int id_says(const struct dmr_super *sb)
{
	if (!has_id || sb->main_id_type != BLK_UID_NAA)
		return 0;
	return sb->main_id_len == 8 && !memcmp(sb->main_id, "\5\5\5\5\5\5\5\5", 8) &&
	       !sb->main_offset ? 1 : -1;
}

/* No copy of the tag is left: was there one, and is there nothing else? */
static const char *untagged_ok(const struct dmr_super *sb)
{
	u32 units = line.unit / 512, lost = 0, i, j;

	for (i = 0; i < NR_TAGS; i++) {
		lost += tag_bad[i];
		for (j = 0; j < DMR_BLOCK_SIZE && !tag_bad[i]; j++)
			if (main_tags[i].b[j])
				return "something else";
	}
	if (!lost || id_says(sb) != 1)
		return "no tag";
	/* A unit with a sector that cannot be read says nothing, nor does a block, but for the first. */
	units = odd.block ? 8 : units;
	j = odd.sector / units * units;
	for (i = 0; i < NR_TAGS; i++)
		if (odd.block == tag_place[i])
			return NULL;
	if (odd.block < 256 && !(odd.bad >> j & ((1u << units) - 1)))
		return "something else";
	return NULL;
}

static const char *main_ok(const struct dmr_super *sb)
{
	const block_t *tag;
	bool one = newest_tag(&tag);

	if (sb && (le32toh(sb->main_flags) & 1)) {
		if (le64toh(sb->main_sectors) > main_now || (tag && !one))
			return "tag";
		return tag ? tag_ok(sb, tag) : untagged_ok(sb);
	}
	if (!sb)
		return tag ? "tag" : NULL;
	if (le64toh(sb->main_sectors) != main_now)
		return "size";
	if (id_says(sb) < 0)
		return "id";
	if (tag && !id_says(sb) && memcmp(tag->h.uuid, sb->content_tag, 16))
		return "tag";
	return NULL;
}

static struct opinion want;
static const u8 *set_uuid;		/* as the superblock has it */

/* What the headers of torn stand-ins say, of copies that they may be for. */
static struct { u32 type; u64 home, seq; } torn_head[127];
static u32 nr_torn;

/* Stand-ins that say nothing, and what they are named for. */
static u64 unseen[127];
static u32 nr_unseen;

/*
 * How many copies are there, and no torn stand-in says that it was for a newer one, and
 * none that is named for it says nothing?
 */
static u32 newest(u32 type, const u64 *homes, const u64 *best)
{
	u32 i, copy, n = 0;

	for (copy = 0; copy < 2; copy++) {
		bool old = !best[copy];

		for (i = 0; i < nr_torn; i++)
			old |= torn_head[i].type == type && torn_head[i].home == homes[copy] &&
			       torn_head[i].seq > best[copy];
		for (i = 0; i < nr_unseen; i++)
			old |= unseen[i] == homes[copy];
		n += !old;
	}
	return n;
}

/* One table block; @block counts from 0. */
static void opine_block(u64 a, u64 b, u32 slots, u64 (*named)[2], u32 nr_named)
{
	u64 best[2] = { 0, 0 }, homes[2] = { a, b }, top = 0;
	const struct dmr_table *winner = NULL;
	bool ambiguous = false;
	u32 i, copy;

	for (i = 0; i < nr_named + 2; i++) {
		u64 place = i < 2 ? homes[i] : named[i - 2][1];
		u64 home = i < 2 ? homes[i] : named[i - 2][0];
		const struct dmr_table *t = &disk[place].table;
		u64 seq;

		copy = home == b;
		if (home != homes[copy] || !on_disk(place, 2) || memcmp(t->h.uuid, set_uuid, 16) ||
		    le64toh(t->h.home) != home || !body_ok(t, slots))
			continue;
		seq = le64toh(t->h.seq);
		if (seq > best[copy])
			best[copy] = seq;
		if (seq == top && memcmp(t->entry, winner->entry, BODY))
			ambiguous = true;
		if (seq > top) {
			top = seq;
			winner = t;
			ambiguous = false;
		}
	}
	if (ambiguous)
		want.refuse = "ambiguous";
	if (!newest(2, homes, best)) {
		want.gone++;
		if (!line.accept_stale)
			want.refuse = "gone";
	}
	if (top > want.top_seq)
		want.top_seq = top;
	for (i = 0; i < slots; i++, want.nr_slots++) {
		memset(&want.entry[want.nr_slots], 0, sizeof(want.entry[0]));
		if (winner)
			want.entry[want.nr_slots] = winner->entry[i];
		want.unchanged[want.nr_slots] = !touched[a] && !touched[b];
	}
	want.nr_mblocks++;
}

static bool entry_live(const struct dmr_entry *e)
{
	u32 state = le32toh(e->state_gen) & 0xff;

	return state == 1 || state == 2;
}

static void opine_slots(void)
{
	static u32 live[MAX_SLOTS];
	u32 i, j, n = 0;

	for (i = 0; i < want.nr_slots; i++)
		if (entry_live(&want.entry[i]))
			live[n++] = i;
	for (i = 0; i < n; i++) {
		for (j = i + 1; j < n; j++) {
			struct dmr_entry *a = &want.entry[live[i]], *b = &want.entry[live[j]];
			u32 ga = le32toh(a->state_gen) >> 8, gb = le32toh(b->state_gen) >> 8;

			if (a->unit != b->unit || !entry_live(a) || !entry_live(b))
				continue;
			if (ga == gb)
				want.refuse = "twice";
			/* Three entries: two equal ones refuse, whichever is higher. */
			put_entry(ga < gb ? a : b, 0, 3, 0);
			if (ga < gb)
				break;
		}
	}
	for (i = 0; i < want.nr_slots; i++) {
		u32 state = le32toh(want.entry[i].state_gen) & 0xff;

		want.mapped += state == 1 || state == 2;
		want.lost += state == 2;
		want.bad += state == 3;
	}
}

/* No READY superblock: may it be formatted? */
static void opine_blank(const u8 *uuid)
{
	u64 i;

	want.format = true;
	old_epoch = 1;
	if (line.has_uuid || line.read_only || line.area < 259 || main_ok(NULL) ||
	    line.main_start > main_now || line.len > main_now - line.main_start) {
		want.refuse = "no set";
		return;
	}
	for (i = 0; i < line.area; i++) {
		if (!readable(i)) {
			want.refuse = "unreadable";
			return;
		}
		if (!used[i] || is_zero(&disk[i], DMR_BLOCK_SIZE))
			continue;
		if (!uuid || memcmp(disk[i].h.uuid, uuid, 16) ||
		    !(on_disk(i, 1) || (on_disk(i, 2) && le64toh(disk[i].h.seq) == 1))) {
			want.refuse = "not blank";
			return;
		}
		want.leftover |= i >= 128 && i < 255;
	}
	want.nr_slots = most_slots(line.area - 256, line.unit);
	memset(want.entry, 0, want.nr_slots * sizeof(want.entry[0]));
	memset(want.unchanged, 0, sizeof(want.unchanged));
}

/*
 * A stand-in that is neither whole nor begins with zeroes.  A torn one is a version of the
 * copy that it is for, and of no other.  Returns whether any copy of the superblock may
 * be hidden by it.
 */
static bool opine_bad(u64 place, u64 name)
{
	const struct dmr_header *h = &disk[place].h;
	u64 seq = le64toh(h->seq), home = le64toh(h->home);
	bool says = readable(place) && !memcmp(h->magic, "dm-remap", 8) &&
		    !memcmp(h->uuid, set_uuid, 16) && seq && !(seq >> 63);
	u32 type = le16toh(h->type);

	if (is_refuge(place))
		says &= type == 1 && (home == 0 || home == 255);
	else
		says &= type == 2 && home == name;
	if (says) {
		torn_head[nr_torn].type = type;
		torn_head[nr_torn].home = home;
		torn_head[nr_torn++].seq = seq;
	} else if (name) {
		unseen[nr_unseen++] = name;
	}
	return !says && is_refuge(place);
}

static void opine(void)
{
	const struct dmr_super *sb = NULL, *half = NULL;
	const u8 *first = NULL;
	u64 best[2] = { 0, 0 }, named[127][2], bad_at[127], end = 256;
	u32 bad_refuges = 0, nr_named = 0, bad_standins = 0, i, k;
	bool foreign = false, overwritten = false, ambiguous = false, torn = false;

	want.refuse = NULL;
	want.format = want.leftover = want.grow = false;
	want.nr_slots = want.gone = want.mapped = want.lost = want.bad = 0;
	want.nr_mblocks = 1;
	want.top_seq = 0;
	for (i = 0; i < 256; i++) {
		const struct dmr_super *s = &disk[i].super;
		bool standin = i >= 128 && i < 255;
		u64 home, seq;

		if (!readable(i)) {
			if (standin)
				bad_at[bad_standins++] = i;
			continue;
		}
		if (!used[i] || is_zero(s, DMR_BLOCK_SIZE))
			continue;
		if (standin && !on_disk(i, 1)) {
			if (on_disk(i, 2)) {
				named[nr_named][0] = le64toh(s->h.home);
				named[nr_named++][1] = i;
			} else if (!is_zero(s, 512)) {
				bad_at[bad_standins++] = i;
			}
			continue;
		}
		home = le64toh(s->h.home);
		seq = le64toh(s->h.seq);
		if (!on_disk(i, 1) || (home != 0 && home != 255) || (home != i && !is_refuge(i)))
			continue;
		if (!first)
			first = line.has_uuid ? ours : s->h.uuid;
		if (memcmp(s->h.uuid, first, 16)) {
			foreign = true;
			overwritten |= le32toh(s->state) == 2 && home == i;
			continue;
		}
		/* FORMATTING counts only where nothing is READY. */
		if (le32toh(s->state) != 2) {
			if (!half || seq >= le64toh(half->h.seq)) {
				torn = half && seq == le64toh(half->h.seq) ?
				       torn || memcmp(half->h.zero + 16, s->h.zero + 16, BODY) :
				       false;
				half = s;
			}
			continue;
		}
		if (seq > best[home == 255])
			best[home == 255] = seq;
		if (sb && seq == le64toh(sb->h.seq) && memcmp(sb->h.zero + 16, s->h.zero + 16, BODY))
			ambiguous = true;
		if (!sb || seq > le64toh(sb->h.seq)) {
			sb = s;
			ambiguous = false;
		}
	}
	if (!sb) {
		if (torn)
			want.refuse = "two formats";
		else if (foreign && !line.has_uuid)
			want.refuse = "foreign";
		else
			opine_blank(first);
		return;
	}
	if (ambiguous || overwritten || (foreign && !line.has_uuid)) {
		want.refuse = "superblocks";
		return;
	}
	set_uuid = sb->h.uuid;
	old_epoch = le64toh(sb->epoch.number);
	want.refuse = super_ok(sb);
	if (!want.refuse)
		want.refuse = main_ok(sb);
	if (want.refuse)
		return;
	want.top_seq = le64toh(sb->h.seq);
	winner = *sb;
	written[0] = written[1] = false;
	nr_torn = nr_unseen = 0;
	for (i = 0; i < bad_standins; i++)
		bad_refuges += opine_bad(bad_at[i], le64toh(sb->standin[bad_at[i] - 128]));
	/* What stands in a stand-in counts if that is its name. */
	for (i = k = 0; i < nr_named; i++) {
		if (named[i][0] != le64toh(sb->standin[named[i][1] - 128]))
			continue;
		named[k][0] = named[i][0];
		named[k++][1] = named[i][1];
	}
	nr_named = k;
	if (bad_refuges > 1 && !line.accept_stale)
		want.refuse = "refuges";
	if (newest(1, (const u64[]){ 0, 255 }, best) < (bad_refuges ? 2 : 1)) {
		want.gone++;
		if (!line.accept_stale)
			want.refuse = "superblock";
	}
	for (i = 0; i < le32toh(sb->nr_segments); i++) {
		u64 start = le64toh(sb->segment[i].start), size = le64toh(sb->segment[i].blocks);
		u32 slots = le32toh(sb->segment[i].slots), n = (slots + 251) / 252;

		end = start + size;
		for (k = 0; k < n; k++)
			opine_block(start + k, end - n + k,
				    slots - k * 252 < 252 ? slots - k * 252 : 252, named, nr_named);
	}
	if (line.area > le64toh(sb->area_blocks)) {
		u32 slots = most_slots(line.area - end, line.unit), n = (slots + 251) / 252, old;

		want.grow = true;
		if (i == 32 || !slots) {
			want.refuse = "growth";
			return;
		}
		old = want.nr_slots;
		for (k = 0; k < 2 * n; k++) {
			u64 at = k < n ? end + k : line.area - 2 * n + k;

			if (!on_disk(at, 2) || le16toh(disk[at].h.version) != 2 ||
			    memcmp(disk[at].h.uuid, set_uuid, 16) || le64toh(disk[at].h.home) != at ||
			    !is_zero(disk[at].table.entry, BODY)) {
				want.refuse = "extension";
				return;
			}
		}
		for (k = 0; k < n; k++)
			opine_block(end + k, line.area - n + k,
				    slots - k * 252 < 252 ? slots - k * 252 : 252, named, nr_named);
		if (!is_zero(&want.entry[old], slots * sizeof(want.entry[0])))
			want.refuse = "extension in use";
	}
	/* What a load writes over it must be valid as well. */
	if (want.top_seq > DMR_SEQ_MAX / 2)
		want.refuse = "sequence";
	opine_slots();
}

/*----------------------------------------------------------------
 * The kernel's load
 *----------------------------------------------------------------
 */

static struct remap r;
static char why[300];
static int inspected;		/* what ctr says; errno */

static int unique_id(struct gendisk *d, u8 id[16], enum blk_unique_id type)
{
	(void)d;
	if (type != BLK_UID_NAA)
		return -EINVAL;
	memset(id, 5, 8);
	return 8;
}

static const struct block_device_operations no_id, with_id = { .get_unique_id = unique_id };

static int kernel_load(void)
{
	static struct gendisk gd;
	static struct block_device spare, main_disk;
	static struct dm_dev on_spare = { &spare }, on_main = { &main_disk };
	static struct dm_target ti;
	char *error = "";
	int ret;

	gd.fops = has_id ? &with_id : &no_id;
	spare.bd_disk = main_disk.bd_disk = &gd;
	spare.data = (u8 *)disk;
	spare.blocks = blocks;
	main_disk.data = (u8 *)main_tags;
	main_disk.blocks = main_now / 8;
	memset(&r, 0, sizeof(r));
	shim_log[0] = 0;
	r.main = &on_main;
	r.spare = &on_spare;
	r.ti = &ti;
	ti.len = line.len;
	r.spare_len = line.area * 8;
	r.main_start = line.main_start;
	r.unit = line.unit;
	r.piece = PIECE;
	r.unit_shift = __builtin_ctz(line.unit) - 9;
	r.read_only = line.read_only;
	r.accept_stale = line.accept_stale;
	r.has_uuid = line.has_uuid;
	if (line.has_uuid)
		memcpy(&r.uuid, ours, 16);
	r.mode = DMR_MODE_RW;
	r.page = alloc_page(0);
	r.probe_page = alloc_page(0);
	r.super = calloc(1, sizeof(*r.super));
	r.tag = calloc(1, sizeof(*r.tag));
	r.tag_page = alloc_page(0);
	writes = tag_writes = 0;
	ret = inspected = load_inspect(&r, &error);
	if (writes || tag_writes)
		fail("ctr has written %u blocks", writes + tag_writes);
	if (ret) {
		snprintf(why, sizeof(why), "ctr: %s", error);
		return ret;
	}
	r.mblock = calloc(r.nr_mblocks, sizeof(*r.mblock));
	ret = slots_create(&r);
	if (!ret)
		ret = load_set(&r);
	snprintf(why, sizeof(why), "load: %s", shim_log);
	return ret;
}

static void kernel_free(void)
{
	slots_destroy(&r);
	free(r.mblock);
	free(r.super);
	free(r.tag);
	__free_page(r.tag_page);
	__free_page(r.page);
	__free_page(r.probe_page);
	r.mblock = NULL;
	if (pages_out)
		fail("%d pages have leaked", pages_out);
}

/*----------------------------------------------------------------
 * What must be so
 *----------------------------------------------------------------
 */

static void check_slots(void)
{
	u64 units = main_now * 512 / line.unit, end = 256;
	u32 s, i, count[4] = { 0 }, total = 0;

	for (i = 0; i < r.nr_segs; i++) {
		const struct dmr_seg *seg = &r.seg[i];
		u64 first = seg->base + (u64)seg->first_slot * (line.unit / 512);
		u64 last = first + (u64)seg->slots * (line.unit / 512);

		if (seg->start != end || seg->blocks > line.area - end || seg->first_slot != total)
			fail("segment %u lies outside of the area", i);
		end += seg->blocks;
		total += seg->slots;
		if (first < (seg->start + seg->table_blocks) * 8 ||
		    last > (end - seg->table_blocks) * 8)
			fail("slots of segment %u overlap something", i);
	}
	if (total != r.nr_slots || total != want.nr_slots)
		fail("%u slots instead of %u", r.nr_slots, want.nr_slots);
	for (s = 0; s < total; s++) {
		u32 state = dmr_state(r.slot[s].info);
		u64 unit = r.slot[s].unit;

		if (state > DMR_BAD)
			fail("slot %u has state %u", s, state);
		count[state]++;
		if (state == DMR_FREE || state == DMR_BAD) {
			if (state == DMR_FREE && (unit || r.slot[s].info))
				fail("slot %u is free and has a unit", s);
		} else if (unit >= units) {
			fail("slot %u has unit %llu of %llu", s, unit, units);
		} else if (slots_first(&r, unit, unit) != s) {
			/* Two of a unit, or the wrong one of two. */
			fail("unit %llu is in slot %u, the lookup says %u", unit, s,
			     slots_first(&r, unit, unit));
		}
		if (state != (le32toh(want.entry[s].state_gen) & 0xff) ||
		    (state != DMR_BAD && (unit != le64toh(want.entry[s].unit) ||
					  r.slot[s].info != le32toh(want.entry[s].state_gen))))
			fail("slot %u: unit %llu info %#x, no block says so", s, unit,
			     r.slot[s].info);
	}
	if (count[1] + count[2] != (u32)r.nr_mapped.v || count[2] != (u32)r.nr_lost.v ||
	    count[3] != (u32)r.nr_bad.v || count[0] != (u32)r.nr_free.v)
		fail("the counts do not add up");
	if (want.mapped != (u32)r.nr_mapped.v || want.lost != (u32)r.nr_lost.v ||
	    want.bad != (u32)r.nr_bad.v || want.gone != r.nr_gone)
		fail("the counts are not those of the area");
}

/* What a person chose counts: the table line has no word of it. */
static void check_choices(void)
{
	const struct dmr_super *sb = r.super;
	u32 some = want.nr_slots / 4 / PIECE, rate = le32toh(sb->remap_rate);

	if (r.errors_medium != (sb->chosen_errors == 2))
		fail("errors are %d, %u was chosen", r.errors_medium, sb->chosen_errors);
	if (r.breaker.rate != (sb->chosen & 1 ? rate : some ? some : 1))
		fail("the rate is %u", r.breaker.rate);
}

/* A few ranges: the first mapping in each is the right one. */
static void check_ranges(void)
{
	u32 i, s, n;

	for (i = 0; i < 4; i++) {
		u64 unit = r.nr_slots ? r.slot[rnd(r.nr_slots)].unit : 0;
		u64 from = unit - (unit < 70 ? unit : rnd(70)), to = from + rnd(140);
		u64 best = ~0ull;

		for (s = 0; s < r.nr_slots; s++) {
			u32 state = dmr_state(r.slot[s].info);

			if ((state == DMR_MAPPED || state == DMR_LOST) && r.slot[s].unit >= from &&
			    r.slot[s].unit <= to && r.slot[s].unit < best)
				best = r.slot[s].unit;
		}
		n = slots_first(&r, from, to);
		if (n == DMR_NO_SLOT ? best != ~0ull : r.slot[n].unit != best)
			fail("the first mapping in %llu..%llu", from, to);
	}
}

/* Where both homes of a block are as they were, the mapping is. */
static void check_original(void)
{
	u32 mb, s = 0, i;

	for (mb = 0; mb < base.nr; mb++) {
		for (i = 0; i < base.slots[mb] && s < r.nr_slots; i++, s++) {
			const struct dmr_entry *e = &original[base.home[mb][0]].table.entry[i];

			if (!want.unchanged[s] || dmr_state(r.slot[s].info) == DMR_BAD)
				continue;
			if (r.slot[s].unit != le64toh(e->unit) ||
			    r.slot[s].info != le32toh(e->state_gen))
				fail("slot %u was undamaged", s);
		}
	}
}

/* An epoch has begun, in both superblocks and then in the tag, if that could be. */
static void check_epoch(void)
{
	u64 now = le64toh(r.super->epoch.number);
	bool may_fail = any_stuck || blocks < line.area || old_epoch == 1ull << 62;

	if (line.read_only || r.no_raise) {
		/* Lower if one superblock says so. */
		if (tag_writes || now > old_epoch || (r.no_raise && !may_fail))
			fail("epoch %llu, and %u writes of the tag", now, tag_writes);
		return;
	}
	if (now != old_epoch + 1 || memcmp(&newest_epoch, &r.super->epoch, 16))
		fail("epoch %llu after %llu", now, old_epoch);
	if (tag_writes != (r.tagged ? NR_TAGS : 0))
		fail("%u writes of the tag", tag_writes);
}

static u64 accepted, formatted, grown, mended, refused, stale_accepted, undecided;

const char *judge(void)
{
	static struct dmr_slot saved[MAX_SLOTS];
	u32 n, s;
	int ret;

	opine();
	ret = kernel_load();
	if (ret) {
		/* Only what fails to be written may be refused without a reason. */
		if (!want.refuse && !any_stuck && !want.leftover && blocks >= line.area)
			fail("refused: %s", why);
		if (want.refuse && writes && !want.format && strcmp(want.refuse, "extension in use"))
			fail("refused (%s) after %u writes", why, writes);
		if (!want.refuse)
			undecided++;
		refused++;
		kernel_free();
		return why;
	}
	if (want.refuse)
		fail("accepted, but: %s", want.refuse);
	check_slots();
	check_ranges();
	check_choices();
	check_epoch();
	if (honest)
		check_original();
	accepted++;
	formatted += want.format;
	grown += want.grow;
	mended += writes > 2;
	stale_accepted += want.gone > 0;
	for (s = 0; s < r.nr_slots; s++)
		saved[s] = r.slot[s];
	n = r.nr_slots;
	kernel_free();
	if (line.read_only)
		return NULL;

	/* Again: the same, and now nothing is left to be written but an epoch. */
	line.has_uuid = line.has_uuid && !want.format;
	ret = kernel_load();
	if (ret)
		fail("what was accepted is refused now: %s", why);
	if (writes != 2 && !any_stuck && blocks >= line.area && old_epoch + 1 < 1ull << 62)
		fail("the second load has written %u blocks", writes);
	if (r.nr_slots != n)
		fail("the second load finds %u slots, not %u", r.nr_slots, n);
	for (s = 0; s < n; s++)
		if (dmr_state(saved[s].info) != dmr_state(r.slot[s].info) ||
		    (dmr_state(saved[s].info) != DMR_BAD &&
		     (saved[s].unit != r.slot[s].unit || saved[s].info != r.slot[s].info)))
			fail("the second load finds something else in slot %u", s);
	kernel_free();
	return NULL;
}

void print_counts(void)
{
	printf("accepted %llu\nrefused %llu\n", accepted, refused);
	printf("formatted %llu\ngrown %llu\nmended %llu\n", formatted, grown, mended);
	printf("stale %llu\nundecided %llu\n", stale_accepted, undecided);
}
