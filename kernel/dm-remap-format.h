/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The on-disk format of dm-remap, version 2.  This header is the only place
 * where it is defined: the kernel target includes it and so does the control
 * plane, which compiles it through cffi.
 *
 * All numbers are little-endian.  A "block" is 4 KiB and blocks are counted
 * from the start of the area that the table line gives to the set on the
 * spare device.  A "unit" is main's logical block; units are counted from
 * sector 0 of main, so that a mapping does not depend on main_start.  A "slot"
 * is one unit of the spare; slots are counted through all segments.
 *
 *	block 0			superblock, copy 0
 *	blocks 1..16		the control plane's, of no meaning to the target
 *	blocks 17..127		reserved, zero
 *	blocks 128..254		stand-ins, every sixteenth of superblocks only
 *	block 255		superblock, copy 1
 *	block 256...		1..32 segments, each:
 *				table copy A | slots | table copy B
 *
 * Every metadata block (a superblock or a table block) has two copies and each
 * copy has a home.  A copy whose home cannot be written is written to a free
 * stand-in, whose header names the home it stands for.  Of all valid candidates
 * for a block (two homes and every stand-in that names one of them) the one
 * with the highest sequence is the block.  Equal sequences with different
 * bodies are an error that nobody may guess about.  With the same sequence at
 * home and on a stand-in a copy lives on the stand-in, and as long as that can
 * be read it never returns home.
 *
 * A commit writes copy A, waits until it is durable, then writes copy B with
 * the same sequence and body, and waits again.  What it says counts from then
 * on.  A load that finds the copies unequal writes both again, the lesser one
 * first, with the winner's sequence + 2: one more than a half-finished commit
 * on a place that could not be read this time can have left there.
 *
 * Format order: superblock 0 FORMATTING, all table blocks, superblock 1 READY,
 * superblock 0 READY, each durable before the next.  FORMATTING counts only
 * where no valid READY superblock is found.
 *
 * Growth: the new segment's two empty table copies are written first, while
 * they belong to no live set; then both superblocks with one segment more.
 *
 * Main's tag stands in five blocks of main's first MiB, and eight others there
 * are scratch, overwritten by the driver to find out whether main still takes
 * writes.  No copy of the tag has a scratch block for a neighbour: a write that
 * is cut may tear the physical sector around it.  An adopted main has no tag and
 * nothing of ours on it.
 *
 * The epoch says which of two states of a set is the later one, where sequences
 * cannot: a spare that was put back from a copy of itself has fewer, and main's
 * tag tells.  A raise writes the next number with a random id, the superblocks
 * first and then the tag, each copy durable before the next.  So a tag is never
 * ahead of its own superblocks, and behind them by as much as it could not be
 * written.
 *
 * From the first release on nothing here changes but by the feature words: what
 * old code must not touch has a bit in incompat; what it may only read one in
 * ro_compat; anything else one in compat.  Version 1 was in no release.
 */
#ifndef DM_REMAP_FORMAT_H
#define DM_REMAP_FORMAT_H

#include <linux/types.h>

#ifdef __KERNEL__
#include <linux/build_bug.h>
#include <linux/string.h>
#define dmr_get16(x)		le16_to_cpu(x)
#define dmr_get32(x)		le32_to_cpu(x)
#define dmr_get64(x)		le64_to_cpu(x)
#define dmr_put16(x)		cpu_to_le16(x)
#define dmr_put32(x)		cpu_to_le32(x)
#define dmr_put64(x)		cpu_to_le64(x)
#else
#include <assert.h>
#include <endian.h>
#include <stddef.h>
#include <string.h>
#define dmr_get16(x)		le16toh(x)
#define dmr_get32(x)		le32toh(x)
#define dmr_get64(x)		le64toh(x)
#define dmr_put16(x)		htole16(x)
#define dmr_put32(x)		htole32(x)
#define dmr_put64(x)		htole64(x)
#endif

#define DMR_MAGIC		"dm-remap"
#define DMR_MAGIC_SIZE		8
#define DMR_VERSION		2

#define DMR_BLOCK_SIZE		4096	/* bytes */
#define DMR_BLOCK_SECTORS	8	/* sectors of 512 bytes */
#define DMR_UNIT_MIN		512	/* bytes */
#define DMR_UNIT_MAX		4096

#define DMR_SB0_BLOCK		0
#define DMR_OWN_FIRST		1
#define DMR_OWN_LAST		16
#define DMR_STANDIN_FIRST	128
#define DMR_STANDIN_LAST	254
#define DMR_NR_STANDINS		(DMR_STANDIN_LAST - DMR_STANDIN_FIRST + 1)
/* Those of superblocks: blocks 136, 152, ... 248, never a neighbour of another */
#define DMR_REFUGE_FIRST	136
#define DMR_REFUGE_STEP		16
#define DMR_NR_REFUGES		8
#define DMR_SB1_BLOCK		255
#define DMR_HEAD_BLOCKS		256	/* the fixed first MiB */
#define DMR_MAX_SEGMENTS	32
#define DMR_MAX_SLOTS		0x1000000u
/* head, one table block twice, and room for at least one slot */
#define DMR_MIN_AREA_BLOCKS	(DMR_HEAD_BLOCKS + 3)

#define DMR_NR_TAGS		5	/* see dmr_tag_block() */
#define DMR_NR_SCRATCH		8	/* see dmr_scratch_block() */
#define DMR_TAG_SECTORS		2048	/* main's first MiB */

#define DMR_NAME_SIZE		128	/* bytes, NUL padded */
#define DMR_SERIAL_SIZE		128

enum dmr_type {
	DMR_TYPE_SUPER = 1,
	DMR_TYPE_TABLE = 2,
	DMR_TYPE_TAG = 3,
	DMR_TYPE_OWN = 4,	/* the control plane's */
};

enum dmr_set_state {
	DMR_FORMATTING = 1,
	DMR_READY = 2,
};

/*
 * A slot is taken once: MAPPED, LOST and BAD never become FREE again.
 * FREE and BAD entries carry unit 0 and generation 0.
 */
enum dmr_slot_state {
	DMR_FREE = 0,
	DMR_MAPPED = 1,		/* holds the unit's data */
	DMR_LOST = 2,		/* mapped, but its content was never recovered */
	DMR_BAD = 3,		/* the slot's own medium failed */
};

/*
 * The set has gone on elsewhere, on another main or spare: it is complete and
 * valid, and must not be started.
 */
#define DMR_INCOMPAT_SUPERSEDED	0x1ull

/* Feature words known to this version. */
#define DMR_COMPAT_KNOWN	0ull
#define DMR_RO_COMPAT_KNOWN	0ull
#define DMR_INCOMPAT_KNOWN	DMR_INCOMPAT_SUPERSEDED

/* main_flags */
#define DMR_MAIN_TAGGED		0x1

/* What a person chose for the option errors; 0: nothing, so the default. */
enum dmr_chosen_errors {
	DMR_CHOSE_CONFIRM = 1,
	DMR_CHOSE_MEDIUM = 2,
};

/* chosen */
#define DMR_CHOSE_RATE		0x1	/* remap_rate counts */

/**
 * struct dmr_header - the first 64 bytes of every metadata block and tag
 * @magic: "dm-remap"
 * @crc: CRC-32C of uuid (16 bytes), the block number it is written at (64 bit)
 *	 and the whole block with this field zero
 * @type: enum dmr_type
 * @version: DMR_VERSION
 * @uuid: of the set
 * @seq: higher is newer; compared between the candidates of one block only
 * @home: block number of the home of this copy.  Differs from where the block
 *	  is written exactly for a stand-in
 */
struct dmr_header {
	__u8	magic[DMR_MAGIC_SIZE];
	__le32	crc;
	__le16	type;
	__le16	version;
	__u8	uuid[16];
	__le64	seq;
	__le64	home;
	__u8	zero[16];
};

/**
 * struct dmr_epoch - a stretch of a set's history
 * @number: 1..DMR_EPOCH_MAX, 0 where there is none
 * @id: random, never 0, 0 where there is none: two histories that have parted
 *	reach one number with two ids
 */
struct dmr_epoch {
	__le64	number;
	__le64	id;
};

#define DMR_EPOCH_MAX		0x4000000000000000ull

/**
 * struct dmr_segment - one segment of the area
 * @start: first block; the first segment starts at 256, each next one where
 *	   the one before ends
 * @blocks: size in blocks
 * @slots: number of slots
 * @table_blocks: blocks in one table copy: slots / 252, rounded up
 *
 * Table copy A is the first table_blocks blocks, copy B the last, and the slots
 * start right behind copy A.
 */
struct dmr_segment {
	__le64	start;
	__le64	blocks;
	__le32	slots;
	__le32	table_blocks;
	__le64	zero;
};

/**
 * struct dmr_super - superblock
 * @h: home is 0 or 255
 * @compat: unknown bits are ignored
 * @ro_compat: unknown bits allow read-only use only
 * @incompat: unknown bits forbid use
 * @state: enum dmr_set_state
 * @unit: bytes: 512, 1024, 2048 or 4096
 * @area_blocks: size of the area at the last format or growth, in blocks
 * @nr_segments: 1..32
 * @main_flags: DMR_MAIN_TAGGED
 * @main_sectors: size of the whole main device, in sectors
 * @main_offset: where main starts on its disk (0 unless it is a partition),
 *		 in sectors
 * @data_start: first sector of main that the set shows
 * @data_sectors: number of sectors it shows
 * @created: seconds since 1970, for people only
 * @main_id_type: 0 none, else enum blk_unique_id of Linux (1 T10, 2 EUI-64,
 *		  3 NAA)
 * @main_id_len: bytes used in @main_id
 * @main_id: the driver's unique id of main's disk
 * @main_serial: wwn or serial as the control plane knew it, NUL padded
 * @name: the set's name, NUL padded
 * @epoch: the present one
 * @before: the one before, that of number 0 before the first
 * @predecessor: the set that this one goes on for, or zero
 * @predecessor_epoch: ... and where that has ended: this one counts only while the
 *		       other has no later one
 * @content_tag: the set of a tag in main's data that is content, as a person has
 *		 said, or zero
 * @segment: the first nr_segments are used, the rest is zero
 * @standin: which table copy each stand-in stands for, by the number of its home;
 *	     0: it was never used.  Durable in both superblocks before the stand-in is
 *	     written first, and never changed.  Always 0 for one of superblocks
 * @spare_serial: 1 at first, one more with each spare that takes over
 * @chosen_errors: enum dmr_chosen_errors
 * @chosen: DMR_CHOSE_RATE
 * @zero1: zero
 * @remap_rate: pieces in a minute, what a person chose
 * @zero2: fills the block
 */
struct dmr_super {
	struct dmr_header h;
	__le64	compat;
	__le64	ro_compat;
	__le64	incompat;
	__le32	state;
	__le32	unit;
	__le64	area_blocks;
	__le32	nr_segments;
	__le32	main_flags;
	__le64	main_sectors;
	__le64	main_offset;
	__le64	data_start;
	__le64	data_sectors;
	__le64	created;
	__u8	main_id_type;
	__u8	main_id_len;
	__u8	zero0[6];
	__u8	main_id[16];
	__u8	main_serial[DMR_SERIAL_SIZE];
	__u8	name[DMR_NAME_SIZE];
	struct dmr_epoch epoch;
	struct dmr_epoch before;
	__u8	predecessor[16];
	struct dmr_epoch predecessor_epoch;
	__u8	content_tag[16];
	struct dmr_segment segment[DMR_MAX_SEGMENTS];
	__le64	standin[DMR_NR_STANDINS];
	__le64	spare_serial;
	__u8	chosen_errors;
	__u8	chosen;
	__u8	zero1[2];
	__le32	remap_rate;
	__u8	zero2[1528];
};

/**
 * struct dmr_entry - what one slot holds
 * @unit: unit of main, 0 unless MAPPED or LOST
 * @state_gen: bits 0..7 enum dmr_slot_state, bits 8..31 generation.  A move
 *	       writes the unit's generation + 1; of two live entries of one unit
 *	       the higher generation counts
 * @zero: zero
 */
struct dmr_entry {
	__le64	unit;
	__le32	state_gen;
	__le32	zero;
};

#define DMR_ENTRIES		252
#define DMR_GEN_MAX		0xffffffu

/**
 * struct dmr_table - table block
 * @h: home names segment, index and copy
 * @entry: indexed by slot; entries past the segment's last slot are zero
 */
struct dmr_table {
	struct dmr_header h;
	struct dmr_entry entry[DMR_ENTRIES];
};

/**
 * struct dmr_tag - what a tagged main carries in its first MiB
 * @h: type TAG, home where the copy stands, seq is epoch.number
 * @main_sectors: size of main, in sectors
 * @data_start: first sector of data on main, at least 2048
 * @spare_start: first sector of the area on the spare
 * @spare_len: its size in sectors when the tag was written
 * @unit: bytes
 * @zero0: zero
 * @epoch: of the set when the tag was written
 * @name: the set's name then, NUL padded
 * @zero1: fills the block
 *
 * Of several copies the one with the highest seq is the tag.
 */
struct dmr_tag {
	struct dmr_header h;
	__le64	main_sectors;
	__le64	data_start;
	__le64	spare_start;
	__le64	spare_len;
	__le32	unit;
	__le32	zero0;
	struct dmr_epoch epoch;
	__u8	name[DMR_NAME_SIZE];
	__u8	zero1[3848];
};

#define DMR_NR_OWN	((DMR_OWN_LAST - DMR_OWN_FIRST + 1) / 2)
#define DMR_OWN_SIZE	4032	/* bytes of payload */

/**
 * struct dmr_own - a block of the control plane in the area
 * @h: type OWN; home is 1..8 for one copy and that + 8 for the other
 * @payload: what the control plane says it is
 *
 * Written only while the set does not run.  Nothing else reads it.
 */
struct dmr_own {
	struct dmr_header h;
	__u8	payload[DMR_OWN_SIZE];
};

static_assert(sizeof(struct dmr_header) == 64, "header");
static_assert(sizeof(struct dmr_segment) == 32, "segment");
static_assert(sizeof(struct dmr_super) == DMR_BLOCK_SIZE, "superblock");
static_assert(sizeof(struct dmr_table) == DMR_BLOCK_SIZE, "table block");
static_assert(sizeof(struct dmr_tag) == DMR_BLOCK_SIZE, "tag");
static_assert(sizeof(struct dmr_own) == DMR_BLOCK_SIZE, "own");

/* Where in main's first MiB a copy of the tag stands, 0..4, in blocks. */
static inline __u64 dmr_tag_block(int copy)
{
	static const __u8 place[DMR_NR_TAGS] = { 1, 64, 128, 192, 255 };

	return place[copy];
}

/* Where a scratch block of a tagged main is, 0..7, in blocks. */
static inline __u64 dmr_scratch_block(int i)
{
	static const __u8 place[DMR_NR_SCRATCH] = {
		24, 40, 88, 104, 152, 168, 216, 232,
	};

	return place[i];
}

/* Is a stand-in one of those that only superblocks use? */
static inline int dmr_is_refuge(__u64 block)
{
	return block >= DMR_REFUGE_FIRST && block < DMR_SB1_BLOCK &&
	       (block - DMR_REFUGE_FIRST) % DMR_REFUGE_STEP == 0;
}

/*
 * CRC-32C without inversion before or after, as the kernel's crc32c().  Who
 * includes this header in user space supplies it.
 */
#ifdef __KERNEL__
#include <linux/crc32c.h>
#define dmr_crc32c_raw(crc, p, len)	crc32c(crc, p, len)
#else
__u32 dmr_crc32c_raw(__u32 crc, const void *p, size_t len);
#endif

/**
 * dmr_block_crc() - the checksum of a metadata block or tag
 * @block: 4096 bytes that start with a struct dmr_header
 * @place: block number it is read from or written to
 *
 * Return: the value for the header's crc field, in host order.
 */
static inline __u32 dmr_block_crc(const void *block, __u64 place)
{
	const struct dmr_header *h = block;
	const __le32 none = 0;
	__le64 where = dmr_put64(place);
	__u32 crc = ~0u;

	crc = dmr_crc32c_raw(crc, h->uuid, sizeof(h->uuid));
	crc = dmr_crc32c_raw(crc, &where, sizeof(where));
	crc = dmr_crc32c_raw(crc, h, offsetof(struct dmr_header, crc));
	crc = dmr_crc32c_raw(crc, &none, sizeof(none));
	crc = dmr_crc32c_raw(crc, &h->type,
			     DMR_BLOCK_SIZE - offsetof(struct dmr_header, type));
	return ~crc;
}

/**
 * dmr_seal() - complete the header of a block that is about to be written
 * @block: 4096 bytes, its body filled in
 * @type: enum dmr_type
 * @uuid: the set's, 16 bytes
 * @seq: sequence
 * @home: home of this copy
 * @place: where it is going to be written, @home unless a stand-in
 */
static inline void dmr_seal(void *block, int type, const __u8 *uuid, __u64 seq,
			    __u64 home, __u64 place)
{
	struct dmr_header *h = block;

	memset(h, 0, sizeof(*h));
	memcpy(h->magic, DMR_MAGIC, DMR_MAGIC_SIZE);
	h->type = dmr_put16(type);
	h->version = dmr_put16(DMR_VERSION);
	memcpy(h->uuid, uuid, sizeof(h->uuid));
	h->seq = dmr_put64(seq);
	h->home = dmr_put64(home);
	h->crc = dmr_put32(dmr_block_crc(block, place));
}

/* Sequences are 1..2^63 - 1: no honest writer gets near the end. */
#define DMR_SEQ_MAX		0x7fffffffffffffffull

/**
 * dmr_header_ok() - is this a valid block of dm-remap
 * @block: 4096 bytes
 * @type: expected enum dmr_type
 * @place: where it was read from
 *
 * The version is not looked at: every version has this header and checksum.
 */
static inline int dmr_header_ok(const void *block, int type, __u64 place)
{
	const struct dmr_header *h = block;
	__u64 seq = dmr_get64(h->seq);

	return !memcmp(h->magic, DMR_MAGIC, DMR_MAGIC_SIZE) &&
	       dmr_get16(h->type) == type && seq && seq <= DMR_SEQ_MAX &&
	       dmr_get32(h->crc) == dmr_block_crc(block, place);
}

/* The same body: everything behind the header. */
static inline int dmr_same_body(const void *a, const void *b)
{
	return !memcmp((const char *)a + sizeof(struct dmr_header),
		       (const char *)b + sizeof(struct dmr_header),
		       DMR_BLOCK_SIZE - sizeof(struct dmr_header));
}

/**
 * dmr_segment_slots() - how many slots fit into a segment
 * @blocks: the segment's size in blocks
 * @unit: bytes
 *
 * Return: the largest n with 2 * table_blocks(n) + slot blocks(n) <= @blocks,
 * capped at DMR_MAX_SLOTS.
 */
static inline __u32 dmr_segment_slots(__u64 blocks, __u32 unit)
{
	const __u32 per_block = DMR_BLOCK_SIZE / unit;
	/* blocks for 252 slots and their two table blocks; 252 = 4 * 63 */
	const __u32 group = DMR_ENTRIES / per_block +
			    !!(DMR_ENTRIES % per_block) + 2;
	__u32 lo, hi;

	if (blocks < 3)
		return 0;
	if (blocks >= 2 * DMR_MAX_SLOTS)
		return DMR_MAX_SLOTS;
	/* lo always fits, hi never does: a group estimate starts the search */
	lo = ((__u32)blocks / group) * DMR_ENTRIES;
	hi = (__u32)blocks * per_block + 1;
	while (hi - lo > 1) {
		__u32 n = lo + (hi - lo) / 2;
		__u32 need = 2 * ((n + DMR_ENTRIES - 1) / DMR_ENTRIES) +
			     (n + per_block - 1) / per_block;

		if (need <= blocks)
			lo = n;
		else
			hi = n;
	}
	if (lo > DMR_MAX_SLOTS)
		lo = DMR_MAX_SLOTS;
	return lo;
}

static inline __u32 dmr_table_blocks(__u32 slots)
{
	return (slots + DMR_ENTRIES - 1) / DMR_ENTRIES;
}

static inline int dmr_epoch_ok(const struct dmr_epoch *e)
{
	__u64 number = dmr_get64(e->number);

	return number && number <= DMR_EPOCH_MAX && e->id;
}

static inline int dmr_epoch_none(const struct dmr_epoch *e)
{
	return !e->number && !e->id;
}

static inline int dmr_same_epoch(const struct dmr_epoch *a,
				 const struct dmr_epoch *b)
{
	return a->number == b->number && a->id == b->id;
}

/* What main's tag says of the spare that it is looked at with. */
enum dmr_history {
	DMR_SAME_HISTORY = 0,	/* the spare is the set as it was left */
	DMR_OLDER_SPARE = 1,	/* it is an older copy of itself */
	DMR_PARTED = 2,		/* main went on with another copy of it */
};

/**
 * dmr_history() - is the spare the one that main was used with last
 * @sb: the superblock, checked
 * @tag: the epoch in main's tag
 *
 * A tag may be behind by any number: main is the disk that fails.
 *
 * Return: enum dmr_history.
 */
static inline int dmr_history(const struct dmr_super *sb,
			      const struct dmr_epoch *tag)
{
	__u64 now = dmr_get64(sb->epoch.number);
	__u64 then = dmr_get64(tag->number);

	if (then > now)
		return DMR_OLDER_SPARE;
	if (then == now)
		return dmr_same_epoch(&sb->epoch, tag) ? DMR_SAME_HISTORY :
							 DMR_PARTED;
	if (then + 1 == now)
		return dmr_same_epoch(&sb->before, tag) ? DMR_SAME_HISTORY :
							  DMR_PARTED;
	return DMR_SAME_HISTORY;
}

static inline int dmr_unit_ok(__u32 unit)
{
	return unit >= DMR_UNIT_MIN && unit <= DMR_UNIT_MAX &&
	       !(unit & (unit - 1));
}

/* The part of dmr_super_check() that is about epochs and what a person chose. */
static inline const char *dmr_super_check_history(const struct dmr_super *sb)
{
	__u64 number = dmr_get64(sb->epoch.number);

	if (!dmr_epoch_ok(&sb->epoch))
		return "superblock: impossible epoch";
	if (dmr_get64(sb->before.number) != number - 1 ||
	    !(number == 1 ? dmr_epoch_none(&sb->before) :
			    dmr_epoch_ok(&sb->before)))
		return "superblock: the epoch before does not fit the present one";
	if (!dmr_epoch_none(&sb->predecessor_epoch) &&
	    !dmr_epoch_ok(&sb->predecessor_epoch))
		return "superblock: impossible epoch of the predecessor";
	if (!sb->spare_serial)
		return "superblock: the spare has serial number 0";
	if (sb->chosen_errors > DMR_CHOSE_MEDIUM)
		return "superblock: unknown choice for errors";
	return NULL;
}

/* Is a block the home of a table copy?  The segments follow each other. */
static inline int dmr_is_home(const struct dmr_super *sb, __u64 home)
{
	__u32 n = dmr_get32(sb->nr_segments);
	__u32 i;

	for (i = 0; i < n; i++) {
		const struct dmr_segment *s = &sb->segment[i];
		__u64 from = home - dmr_get64(s->start);
		__u64 blocks = dmr_get64(s->blocks);
		__u64 tables = dmr_get32(s->table_blocks);

		if (from < tables || (from < blocks && from >= blocks - tables))
			return 1;
	}
	return 0;
}

/**
 * dmr_super_check() - validate the body of a superblock
 * @sb: its header is already known to be valid
 *
 * Return: NULL, or what is wrong with it.
 */
static inline const char *dmr_super_check(const struct dmr_super *sb)
{
	__u32 unit = dmr_get32(sb->unit);
	__u32 n = dmr_get32(sb->nr_segments);
	__u32 state = dmr_get32(sb->state);
	__u64 area = dmr_get64(sb->area_blocks);
	__u64 main_sectors = dmr_get64(sb->main_sectors);
	__u64 data_start = dmr_get64(sb->data_start);
	__u64 next = DMR_HEAD_BLOCKS, total = 0;
	const char *why;
	__u32 i;

	if (dmr_get16(sb->h.version) == 1)
		return "metadata is of version 1: save the data with the dm-remap that made it";
	if (dmr_get16(sb->h.version) != DMR_VERSION)
		return "metadata is of another version";
	if (dmr_get64(sb->incompat) & ~DMR_INCOMPAT_KNOWN)
		return "metadata needs a newer dm-remap (incompat)";
	if (state != DMR_FORMATTING && state != DMR_READY)
		return "superblock: unknown state";
	if (!dmr_unit_ok(unit))
		return "superblock: unit is not 512, 1024, 2048 or 4096";
	if (!n || n > DMR_MAX_SEGMENTS)
		return "superblock: number of segments is not 1..32";
	if (area < DMR_MIN_AREA_BLOCKS || area > (1ull << 51))
		return "superblock: impossible size of the area";
	if (!main_sectors || main_sectors > (1ull << 54))
		return "superblock: impossible size of main";
	if (data_start > main_sectors ||
	    dmr_get64(sb->data_sectors) > main_sectors - data_start)
		return "superblock: data lies outside of main";
	if (sb->main_id_len > sizeof(sb->main_id))
		return "superblock: main's id is too long";
	if (sb->name[DMR_NAME_SIZE - 1] || sb->main_serial[DMR_SERIAL_SIZE - 1])
		return "superblock: a text is not terminated";
	if ((dmr_get32(sb->main_flags) & DMR_MAIN_TAGGED) &&
	    data_start < DMR_TAG_SECTORS)
		return "superblock: data overlaps main's tag";
	why = dmr_super_check_history(sb);
	if (why)
		return why;

	for (i = 0; i < n; i++) {
		const struct dmr_segment *s = &sb->segment[i];
		__u64 blocks = dmr_get64(s->blocks);
		__u32 slots = dmr_get32(s->slots);

		if (dmr_get64(s->start) != next || blocks > area - next)
			return "superblock: segments do not follow each other";
		if (!slots || slots > dmr_segment_slots(blocks, unit) ||
		    dmr_get32(s->table_blocks) != dmr_table_blocks(slots))
			return "superblock: impossible segment";
		next += blocks;
		total += slots;
	}
	if (total > DMR_MAX_SLOTS)
		return "superblock: more than 16777216 slots";
	for (i = 0; i < DMR_NR_STANDINS; i++) {
		__u64 home = dmr_get64(sb->standin[i]);

		if (home && (dmr_is_refuge(DMR_STANDIN_FIRST + i) ||
			     !dmr_is_home(sb, home)))
			return "superblock: a stand-in is named for what is no table block";
	}
	return NULL;
}

/**
 * dmr_tag_check() - validate the body of a tag
 * @tag: its header is already known to be valid
 *
 * Return: NULL, or what is wrong with it.
 */
static inline const char *dmr_tag_check(const struct dmr_tag *tag)
{
	if (dmr_get16(tag->h.version) == 1)
		return "main's tag is of version 1: save the data with the dm-remap that made it";
	if (dmr_get16(tag->h.version) != DMR_VERSION)
		return "main's tag is of another version";
	if (!dmr_epoch_ok(&tag->epoch) || tag->epoch.number != tag->h.seq)
		return "main's tag has an impossible epoch";
	if (!dmr_unit_ok(dmr_get32(tag->unit)) ||
	    dmr_get64(tag->data_start) < DMR_TAG_SECTORS ||
	    dmr_get64(tag->data_start) > dmr_get64(tag->main_sectors) ||
	    dmr_get64(tag->main_sectors) > (1ull << 54))
		return "main's tag describes an impossible main";
	if (tag->name[DMR_NAME_SIZE - 1])
		return "main's tag has a name that is not terminated";
	return NULL;
}

/**
 * dmr_table_check() - validate the entries of a table block
 * @t: its header is already known to be valid
 * @used: entries that stand for a slot, 1..252
 * @units: number of units of main
 *
 * Return: NULL, or what is wrong with it.
 */
static inline const char *dmr_table_check(const struct dmr_table *t, __u32 used,
					  __u64 units)
{
	__u32 i;

	if (dmr_get16(t->h.version) != DMR_VERSION)
		return "table block is of another version";
	for (i = 0; i < DMR_ENTRIES; i++) {
		const struct dmr_entry *e = &t->entry[i];
		__u64 unit = dmr_get64(e->unit);
		__u32 sg = dmr_get32(e->state_gen);

		if (e->zero)
			return "table block: reserved bytes are not zero";
		if (i >= used && (unit || sg))
			return "table block: entry behind the last slot";
		switch (sg & 0xff) {
		case DMR_FREE:
		case DMR_BAD:
			if (unit || sg >> 8)
				return "table block: a free or bad slot with a unit";
			break;
		case DMR_MAPPED:
		case DMR_LOST:
			if (unit >= units)
				return "table block: unit lies outside of main";
			break;
		default:
			return "table block: unknown slot state";
		}
	}
	return NULL;
}

#endif /* DM_REMAP_FORMAT_H */
