/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The in-memory structures of the remap target, and which lock guards what.
 *
 * Who may do what, and where:
 *
 * map, end_io	any context.  Read the lookup table without a lock.  Take
 *		r->lock only for a bio that failed, that is near a note of a
 *		pending unit, or that a slot does not take as it is.
 * narrow work	one thread for a target.  The only one that takes slots and
 *		gives them back, so the allocator has no lock.
 * commit work	one thread for a target.  The only one that writes metadata
 *		while I/O runs and the only one that inserts into the lookup
 *		table, so neither has a lock.
 * preresume	no I/O runs and both works are idle: may do all of the above.
 * epoch_work	one for a target, an hour after an epoch has begun, or when the
 *		commit work wants a tag that nobody waits for.  Writes main's tag
 *		and nothing else.
 * messages	those that map by hand run while the device is quiet, which
 *		r->manual_lock sees to, and may do the same.
 *
 * r->lock is never held over I/O or an allocation, r->event_lock nests inside
 * of nothing.
 *
 * Who calls whom: target calls all others, message calls manual, manual and load
 * call commit, these and commit call area, and everybody may call slots and event,
 * which call nobody.  One pair of files call each other: repair hands bios over
 * with commit_queue(), and commit gives them back with repair_complete() when what
 * they wait for is durable and published.
 */
#ifndef DM_REMAP_H
#define DM_REMAP_H

#include <linux/atomic.h>
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/completion.h>
#include <linux/device.h>
#include <linux/hash.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/uuid.h>
#include <linux/workqueue.h>
#include <linux/device-mapper.h>

#include "dm-remap-format.h"

#define DM_MSG_PREFIX "remap"

#define DMR_NO_SLOT		U32_MAX
#define DMR_REGION_SHIFT	5	/* units in a region of the lookup */
#define DMR_REGION_MASK		((1ull << DMR_REGION_SHIFT) - 1)
#define DMR_NO_MBLOCK		U32_MAX
#define DMR_SLOT_TRIES		16	/* slots that refuse in a row */
#define DMR_STANDIN_TRIES	3	/* stand-ins that refuse in a row */
#define DMR_MAX_PENDING		4096	/* notes of pending units */
#define DMR_NOTE_SHIFT		10	/* sectors that share a count of notes */
#define DMR_NOTE_COUNTS		1024
#define DMR_MAX_UNPROVEN	256	/* pieces mapped on an untagged main
					 * since it last took a write
					 */
/*
 * Slot states that exist in memory only; the on-disk ones are below 16.  On
 * disk a slot in one of these states is FREE, but for SEALING: the image of the
 * commit that is being written says MAPPED.  A slot that a unit moves to has the
 * unit's new generation from TAKEN on.
 */
#define DMR_TAKEN		16	/* its data is being written */
#define DMR_SEALING		17	/* in the commit being written */
#define DMR_DOUBT		18	/* in a commit that half failed */
#define DMR_LEFT		19	/* refused its data; see struct dmr_refused */
/*
 * A LOST slot on its way to MAPPED.  FOUND: it holds new data, durable; set by
 * the narrow work, and on disk still LOST, so that both copies of a commit that
 * is being written say the same.  SETTLING: in the commit being written.
 */
#define DMR_FOUND		20
#define DMR_SETTLING		21
/*
 * MAPPED, and its unit has a new slot that is about to be published; on disk still
 * MAPPED, until the new one is committed.
 */
#define DMR_LEAVING		22

/**
 * struct dmr_slot - one slot of the spare and, at once, a lookup entry
 * @unit: unit of main it holds
 * @next: next entry of the hash chain; while the slot is only taken, the next
 *	  slot of the same bio
 * @info: bits 0..7 state, bits 8..31 generation
 *
 * An entry is complete and linked before smp_store_release() of its state makes it
 * visible, and is never unlinked while I/O can run.
 */
struct dmr_slot {
	u64	unit;
	u32	next;
	u32	info;
};

/* One metadata block: number 0 is the superblock, then the table blocks. */
struct dmr_mblock {
	u64	seq;
	u32	next_dirty;	/* of the next commit's blocks */
	u8	standin[2];	/* place of each copy, 0: at home; the narrow
				 * work looks at it, too
				 */
	bool	dirty;		/* belongs to the next commit */
	bool	failed;		/* its commit could not make it durable twice:
				 * of the superblock none does any more
				 */
};

struct dmr_seg {
	sector_t base;		/* of the spare: where slot 0 would be if all slots
				 * were like this segment's
				 */
	u64	start;		/* blocks */
	u64	blocks;
	u32	first_slot;
	u32	slots;
	u32	table_blocks;
	u32	first_mblock;	/* of its table, in r->mblock */
};

/* What a disk is asked for, and of which of the two. */
enum dmr_leg { DMR_MAIN, DMR_SPARE };
enum dmr_kind { DMR_READS, DMR_WRITES, DMR_FLUSHES, DMR_NR_KINDS };

enum dmr_mode { DMR_MODE_INIT, DMR_MODE_RW, DMR_MODE_RO };
enum dmr_identity { DMR_BY_SIZE, DMR_BY_ID, DMR_BY_TAG };

enum dmr_event {
	DMR_EV_REMAPPED,
	DMR_EV_PENDING,
	DMR_EV_SPARE_LOW,
	DMR_EV_SPARE_FULL,
	DMR_EV_SLOT_BAD,
	DMR_EV_COPIES,
	DMR_EV_MODE,
	DMR_EV_PROBE,
	DMR_EV_BREAKER,
	DMR_NR_EVENTS
};

/* What happened of one kind since the last uevent. */
struct dmr_event_note {
	u64	unit;		/* the first one, U64_MAX: none in particular */
	u64	count;		/* units, 0: nothing happened */
};

/**
 * struct dmr_refused - the free slots that refuse the data of one bio
 * @first: they stay taken until the bio ends, through dmr_slot.next
 * @proven: those whose data another slot has taken since, in the same way
 * @tries: how many commands were refused in a row
 * @start: where the first of these went
 * @behind: where the next bio goes on if none takes them; 0: one has
 *
 * What a free slot goes through:
 *
 *  FREE -> TAKEN	slots_take()
 *  TAKEN -> LEFT	slots_refuse(): the medium refused its data
 *  LEFT -> BAD		slots_proven(), then the next commit: another slot took the
 *			same data, so it was neither the data nor all of the spare
 *  LEFT -> FREE	slots_end(): none took it
 *  TAKEN -> FREE	slots_end() too if it refused the command, and not as a
 *			medium; or its bio fails
 *  TAKEN -> SEALING -> MAPPED	its bio's commit
 *
 * That TAKEN and LEFT become FREE again does not break "a slot is taken once".
 * The rule is there because I/O of a slot's unit may be in flight to it, and
 * because a table block on the disk may name it.  Neither can be true here.  Such
 * a slot was never linked in the lookup, so nobody but the narrow work could send
 * anything to it, and that waits for the end of each command, a refused one too,
 * before it does anything else; what the command has left on the medium is
 * overwritten before a commit names the slot.  And on the disk it is FREE: no
 * commit image shows these states.
 */
struct dmr_refused {
	u32		first;
	u32		proven;
	unsigned int	tries;
	u32		start;
	u32		behind;
};

struct remap;

/* A range of a disk that a target uses; see identity_enter(). */
struct dmr_range {
	struct list_head	list;
	struct remap		*r;
	struct gendisk		*disk;
	sector_t		start;	/* of the disk, partitions resolved */
	sector_t		end;
};

/* What a breaker knows; see repair_allowed(). */
struct dmr_breaker {
	unsigned int	rate;		/* pieces a minute, 0: no limit */
	unsigned int	pieces;		/* mapped in this minute */
	unsigned long	minute;		/* when it began, in jiffies */
	bool		open;
};

/**
 * struct dmr_request - what a message has the commit work do
 * @fn: called between two commits; nothing is dirty before and after it
 * @result: what it has returned, or -EROFS: it was not called, the mode is ro
 * @name: another name of the set
 * @mb: a metadata block
 * @copy: and which of its copies
 * @done: for commit_request()
 */
struct dmr_request {
	int			(*fn)(struct remap *r, struct dmr_request *rq);
	int			result;
	u8			name[DMR_NAME_SIZE];
	u32			mb;
	int			copy;
	struct completion	done;
};

/* What became of a copy of a metadata block that was read. */
enum dmr_scrubbed {
	DMR_SCRUB_GOOD,		/* it is as it was written last */
	DMR_SCRUB_WRITTEN,	/* it was gone, and is there again */
	DMR_SCRUB_FAILED,	/* it is gone, and no place takes it */
};

/* The values that status and sysfs show, in the order of status. */
enum dmr_field {
	DMR_F_LOST,
	DMR_F_PENDING,
	DMR_F_BAD,
	DMR_F_FREE,
	DMR_F_DOUBT,
	DMR_F_READ_ERRORS,
	DMR_F_WRITE_ERRORS,
	DMR_F_TRANSIENT,
	DMR_F_REMAPPED,
	DMR_F_COPIES,
	DMR_F_IDENTITY,
	DMR_F_SEQ,
	DMR_F_UUID,
	DMR_F_BREAKER,
	DMR_F_MOVED,
	DMR_F_GONE,
	DMR_F_MEMORY,
	DMR_F_FLUSH_ERRORS,
	DMR_F_MAIN,
	DMR_F_SPARE,
	DMR_F_EPOCH,
	DMR_F_TAG,
	DMR_F_ERRORS,
	DMR_F_RATE,
	DMR_NR_KEYS,		/* those above are keys of status */
	DMR_F_MODE = DMR_NR_KEYS,
	DMR_F_UNIT,
	DMR_F_MAPPED,
	DMR_F_SLOTS,
	DMR_NR_FIELDS
};

/* A file of the sysfs group. */
struct dmr_file {
	struct device_attribute	attr;
	struct remap		*r;
	enum dmr_field		field;
};

/**
 * struct remap - one target
 *
 * What map() and end_io() look at comes first and is hardly ever written, but for
 * the count of bios that are near a note.  The rest up to the lookup's counters is
 * set by ctr and constant afterwards.
 */
struct remap {
	struct dm_dev		*main;
	struct dm_dev		*spare;
	sector_t		main_start;
	unsigned int		unit_shift;	/* sectors to units */
	unsigned int		unit;		/* bytes */
	bool			read_only;	/* the table is */
	enum dmr_mode		mode;		/* preresume and commit work */
	/*
	 * Zero, both at once: map sends all to main.  The lookup is written by the
	 * commit work, and read by anyone.
	 */
	union {
		struct {
			u32	nr_lookup;	/* entries in it, dead or alive, and
						 * one if the table is read-only
						 */
			u32	nr_pending;	/* notes of pending units; under
						 * lock
						 */
		};
		u64		map_looks;
	};
	/* Zero, both at once: end_io need not look at a read that succeeded. */
	union {
		struct {
			atomic_t nr_near;	/* bios on main that may be of units
						 * with notes
						 */
			atomic_t look;		/* DMR_LOOK_UNPROVEN, and what
						 * fails: dmr_look_fails()
						 */
		};
		u64		end_io_looks;
	};
	u32			nr_heads;
	u32			*head;
	struct dmr_slot		*slot;

	struct dm_target	*ti ____cacheline_aligned_in_smp;
	sector_t		spare_start;
	sector_t		spare_len;
	unsigned int		piece;		/* units, a power of two */
	sector_t		main_offset;	/* of the partition, sectors */
	unsigned int		piece_offset;	/* units, from where a piece of the
						 * disk begins to main's first one
						 */
	bool			errors_medium;	/* medium errors only, by the table
						 * line or the superblock
						 */
	bool			accept_stale;	/* option */
	bool			has_uuid;	/* option uuid was given */
	bool			has_errors;	/* option errors was given */
	bool			has_rate;	/* option remap_rate was given */
	bool			format;		/* blank: format at preresume */
	bool			grow;		/* spare_len is more than recorded */
	uuid_t			uuid;
	u32			nr_slots;
	u32			nr_segs;
	u32			nr_mblocks;
	struct dmr_seg		seg[DMR_MAX_SEGMENTS];
	struct bio_set		bs;		/* for replays */
	struct dmr_range	range[2];
	bool			ranges_live;	/* see identity_claim() */
	bool			runs;		/* see identity_run() */

	/* Written in preresume or by the commit work only. */
	enum dmr_identity	identity;
	bool			tagged;
	struct dmr_mblock	*mblock;
	u32			first_dirty;	/* of mblock[].next_dirty */
	u32			nr_gone;	/* table blocks lost in both copies */
	unsigned int		nr_tags;	/* copies of main's that are valid, of
						 * its highest epoch
						 */
	unsigned long		lost_tags;	/* of its places, a bit each: those
						 * that could not be read
						 */
	unsigned long		newest_tags;	/* ... that hold its highest epoch */
	const char		*tag_fault;	/* why it is not to be believed */
	struct page		*page;		/* one metadata block */
	struct dmr_super	*super;		/* the set's, as last written */
	struct dmr_tag		*tag;		/* main's, if nr_tags; from the load on
						 * what it shall say, under lock
						 */
	struct page		*tag_page;	/* epoch_work, or a quiet device */
	bool			used;		/* the spare was, in this epoch: any
						 * context
						 */
	bool			stopped;	/* by the message */
	u8			retired;	/* bits: superblock copies that say that
						 * the set has gone on; under
						 * manual_lock
						 */
	u64			retire_seq;	/* ... with this sequence */
	bool			no_raise;	/* the load could not begin an epoch */
	bool			tag_due;	/* epoch_work has to write it */
	bool			raise;		/* commit work: an epoch; under lock */
	bool			raise_first;	/* ... before all else */
	struct delayed_work	epoch_work;
	unsigned long		epoch_due;	/* when the next one may begin, in
						 * jiffies
						 */
	/*
	 * Stand-ins that are nobody's to write in this load: they hold a copy, have
	 * refused one, or could not be read or were torn when it began.
	 */
	DECLARE_BITMAP(standin_used, DMR_NR_STANDINS);

	/* The allocator and the probe.  Narrow work, or a quiet device. */
	u32			hint;		/* no free slot below */
	u32			run_hint;	/* no free run below */
	unsigned int		unproven;	/* pieces mapped since main last
						 * took a write; end_io sets it
						 * to 0, too
						 */
	u32			rotor;		/* where to look first; 0: hints */
	struct page		*probe_page;
	u64			probe_unit;	/* main read it last */
	unsigned int		scratch;	/* this block of it took a write last */
	bool			probe_failed;	/* the last probe of main did */
	unsigned long		probe_time;	/* ... when, in jiffies */
	unsigned long		main_slow;	/* when it was last slow to fail,
						 * in jiffies
						 */
	unsigned long		spare_slow;	/* ... slots that are mapped */
	unsigned long		slots_slow;	/* ... free ones, and none has
						 * taken its data since
						 */

	/* Written by several, read by status: each a plain statistic. */
	atomic_t		nr_free;
	atomic_t		nr_mapped;	/* MAPPED and LOST */
	atomic_t		nr_lost;
	atomic_t		nr_bad;
	atomic_t		nr_doubt;
	atomic_t		nr_away;	/* copies on stand-ins */
	atomic64_t		read_errors;
	atomic64_t		write_errors;
	atomic64_t		transient;
	atomic64_t		remapped;
	atomic64_t		moved;
	atomic64_t		flush_errors;	/* of both legs */

	/* See remap_map_flush(). */
	atomic64_t		spare_writes;
	atomic64_t		spare_flushed;
	bool			spare_no_fua;	/* see dmr_write_durable() */

	/* Set by presuspend, in jiffies; 0: no suspend waits. */
	unsigned long		suspend_deadline;

	/* Bios under repair, by stage.  A bio is on one of them until it ends. */
	spinlock_t		lock;
	struct list_head	queued;		/* wait for the narrow work */
	struct list_head	claimed;	/* are being narrowed or committed */
	struct list_head	commit;		/* wait for a commit, see io->commit */
	u64			*pending;	/* units, ascending */
	u16			note_count[DMR_NOTE_COUNTS]; /* see dmr_noted() */
	u32			first_left;	/* LEFT slots to be marked BAD */
	bool			spare_fails;	/* commit work: mode ro */
	bool			spare_asked;	/* commit work: does it answer */
	struct dmr_breaker	breaker;

	struct workqueue_struct	*narrow_wq;
	struct workqueue_struct	*commit_wq;
	struct work_struct	narrow_work;
	struct work_struct	commit_work;

	/* See dm-remap-manual.c. */
	struct mutex		manual_lock;
	bool			quiet;		/* between suspend and resume */
	struct dmr_request	*request;	/* for the commit work */

	/* Events; see dm-remap-event.c. */
	spinlock_t		event_lock;
	struct dmr_event_note	note[DMR_NR_EVENTS];
	u64			event_seq;
	unsigned long		last_event;	/* jiffies */
	struct delayed_work	event_work;

	/* The sysfs group; see dm-remap-status.c. */
	bool			have_group;
	char			group_name[32];
	struct attribute_group	group;
	struct attribute	*attrs[DMR_NR_FIELDS + 1];
	struct dmr_file		file[DMR_NR_FIELDS];
	bool			want_group;
	bool			had_group;	/* it was wanted once */
	struct work_struct	group_work;
};

enum dmr_io_kind {
	DMR_IO_MAIN,		/* went to main, or waits for a LOST slot */
	DMR_IO_NEAR,		/* went to main, and is in r->nr_near */
	DMR_IO_SPARE,		/* went to slots */
	DMR_IO_SLOTS,		/* is for slots, and the narrow work's: a command
				 * that the spare may not know
				 */
	DMR_IO_FLUSH,		/* flush of the spare; sample is set */
	DMR_IO_FLUSH_MAIN,	/* flush of main */
	DMR_IO_DONE,		/* its status is final: end_io passes it on */
};

/**
 * struct dmr_io - per-bio data
 * @iter: the bio's, in sectors of main, also if it went to the spare
 * @opf: the bio's; submission may strip REQ_FUA from a clone
 * @kind: where it went
 * @status: what it failed with
 * @since: when it failed, in jiffies
 * @list: on r->queued or r->claimed
 * @commit: on r->commit or the commit being written
 * @first_slot: its taken slots, linked through dmr_slot.next
 * @found: a LOST slot of it was written
 * @sample: r->spare_writes before this flush was issued
 *
 * map() sets the first three only; the others are set by the error path, and
 * @sample by a flush.
 */
struct dmr_io {
	struct bvec_iter	iter;
	blk_opf_t		opf;
	enum dmr_io_kind	kind;
	blk_status_t		status;
	bool			found;
	u32			first_slot;
	unsigned long		since;
	union {
		struct list_head	list;
		u64			sample;
	};
	struct list_head	commit;
};

static inline struct dmr_io *dmr_io(struct bio *bio)
{
	return dm_per_bio_data(bio, sizeof(struct dmr_io));
}

static inline struct bio *dmr_io_bio(struct dmr_io *io)
{
	return dm_bio_from_per_bio_data(io, sizeof(struct dmr_io));
}

static inline unsigned int dmr_state(u32 info)
{
	return info & 0xff;
}

static inline u32 dmr_info(unsigned int state, u32 generation)
{
	return generation << 8 | state;
}

static inline unsigned int dmr_slot_state(struct remap *r, u32 slot)
{
	/*
	 * Pairs with smp_store_release() in commit_settle(), leave() and
	 * retire().
	 */
	return dmr_state(smp_load_acquire(&r->slot[slot].info));
}

static inline const char *dmr_name(struct remap *r)
{
	return dm_device_name(dm_table_get_md(r->ti->table));
}

/*
 * What is masked needs no check.  Some kernels check each shift, which costs every
 * bio the registers for a report.
 */
static inline unsigned int dmr_unit_shift(struct remap *r)
{
	return r->unit_shift & 63;
}

static inline u64 dmr_unit_of(struct remap *r, sector_t main_sector)
{
	return main_sector >> dmr_unit_shift(r);
}

static inline sector_t dmr_sector_of(struct remap *r, u64 unit)
{
	return unit << dmr_unit_shift(r);
}

/* First unit of a bio. */
static inline u64 dmr_io_first(struct remap *r, struct dmr_io *io)
{
	return dmr_unit_of(r, io->iter.bi_sector);
}

/* One past its last unit. */
static inline u64 dmr_io_end(struct remap *r, struct dmr_io *io)
{
	return dmr_io_first(r, io) +
	       dmr_unit_of(r, io->iter.bi_size >> SECTOR_SHIFT);
}

static inline u64 dmr_main_units(struct remap *r)
{
	return dmr_unit_of(r, bdev_nr_sectors(r->main->bdev));
}

/*
 * The chain of a unit's region.  Two multiplications and no division, whatever
 * the number of heads.
 */
static inline u32 *dmr_region_head(struct remap *r, u64 unit)
{
	u64 hash = (unit >> DMR_REGION_SHIFT) * GOLDEN_RATIO_64;

	return &r->head[((hash >> 32) * r->nr_heads) >> 32];
}

/**
 * dmr_any_entry() - the fast half of slots_first()
 * @r: the target
 * @first: first unit
 * @range: how many units more there are, of the same region
 *
 * Here and not in dm-remap-slots.c because every bio pays for it.
 *
 * Return: the slot of an entry in the range, the newest one of its unit but not
 * that of the lowest unit, or DMR_NO_SLOT: no unit of the range is mapped.
 */
static inline u32 dmr_any_entry(struct remap *r, u64 first, u64 range)
{
	u32 s;

	/* Pairs with smp_store_release() in slots_insert(). */
	s = smp_load_acquire(dmr_region_head(r, first));
	while (s != DMR_NO_SLOT && r->slot[s].unit - first > range)
		s = READ_ONCE(r->slot[s].next);
	return s;
}

/*
 * Notes of pending units are counted in places of DMR_NOTE_SPAN sectors, each in
 * its own and in the one before: so a bio that is no longer looks where it begins.
 */
#define DMR_NOTE_SPAN		BIT(DMR_NOTE_SHIFT)

static inline unsigned int dmr_note_index(sector_t sector)
{
	return (sector >> DMR_NOTE_SHIFT) & (DMR_NOTE_COUNTS - 1);
}

/**
 * dmr_noted() - may there be a note of a pending unit in a range
 * @r: the target
 * @sector: the first one, of main
 * @nr: how many sectors
 *
 * Any context, takes no lock.  A note that is made meanwhile is of a bio that runs
 * beside this one.
 */
static inline bool dmr_noted(struct remap *r, sector_t sector, sector_t nr)
{
	/* One load, and not torn: a u16. */
	while (!data_race(r->note_count[dmr_note_index(sector)])) {
		if (likely(nr <= DMR_NOTE_SPAN))
			return false;
		nr -= DMR_NOTE_SPAN;
		sector += DMR_NOTE_SPAN;
	}
	return true;
}

/*
 * Bits of r->look.  Set and cleared by anyone; each is only a hint to end_io and to
 * status.
 */
#define DMR_LOOK_UNPROVEN	1	/* r->unproven may not be 0 */

/* The bit that says that a disk fails commands of this kind; see event_fails(). */
static inline int dmr_look_fails(enum dmr_leg leg, enum dmr_kind kind)
{
	return 2 << (leg * DMR_NR_KINDS + kind);
}

/* Does it fail commands of any kind? */
static inline bool dmr_leg_fails(struct remap *r, enum dmr_leg leg)
{
	int all = (1 << DMR_NR_KINDS) - 1;

	return atomic_read(&r->look) & all * dmr_look_fails(leg, 0);
}

/* A suspend has waited for long enough: nothing more is tried for anybody. */
static inline bool dmr_must_stop(struct remap *r)
{
	unsigned long deadline = READ_ONCE(r->suspend_deadline);

	return deadline && time_after(jiffies, deadline);
}

/*
 * Wait for a disk, in pieces that hung_task takes no notice of, as
 * submit_bio_wait() does: what is slow is no bug.
 */
static inline void dmr_wait(struct completion *done)
{
	while (!wait_for_completion_io_timeout(done, HZ))
		;
}

static inline bool dmr_is_write(blk_opf_t opf)
{
	return (opf & REQ_OP_MASK) == REQ_OP_WRITE ||
	       (opf & REQ_OP_MASK) == REQ_OP_WRITE_ZEROES;
}

/* dm-remap-slots.c */
int slots_create(struct remap *r);
void slots_destroy(struct remap *r);
size_t slots_memory(struct remap *r);
void slots_clear(struct remap *r);
void slots_clear_lookup(struct remap *r);
u32 slots_first(struct remap *r, u64 first, u64 last);
unsigned int slots_run(struct remap *r, u32 slot, unsigned int state,
		       unsigned int max);
void slots_insert(struct remap *r, u32 slot);
void slots_replace(struct remap *r, u32 old, u32 slot);
u32 slots_take(struct remap *r, unsigned int want, unsigned int *got);
void slots_give_back(struct remap *r, u32 slot);
void slots_refused_init(struct dmr_refused *f);
bool slots_refuse(struct remap *r, struct dmr_refused *f, u32 slot,
		  unsigned int nr, blk_status_t status);
void slots_took(struct dmr_refused *f);
void slots_proven(struct remap *r, struct dmr_refused *f);
u32 slots_end(struct remap *r, struct dmr_refused *f);
const struct dmr_seg *slots_seg(struct remap *r, u32 slot);
sector_t slots_sector(struct remap *r, u32 slot);

/* dm-remap-area.c */
int dmr_block_io(struct block_device *bdev, sector_t sector, struct page *page,
		 unsigned int bytes, blk_opf_t opf);
int dmr_write_durable(struct remap *r, struct block_device *bdev,
		      sector_t sector, struct page *page, unsigned int bytes,
		      blk_opf_t flags);
bool dmr_use_fua(struct remap *r, struct block_device *bdev);
bool dmr_command_refused(blk_status_t status);
void dmr_flushed(struct remap *r, u64 sample);
int dmr_flush_instead(struct remap *r, struct block_device *bdev);
bool dmr_suspect(struct remap *r, blk_status_t status, bool write);
bool dmr_disk_fails(struct remap *r, blk_status_t status, bool write);
sector_t area_sector(struct remap *r, u64 block);
int area_read(struct remap *r, u64 block, struct page *page);
int area_write(struct remap *r, u64 block, struct page *page);
u64 area_home(struct remap *r, u32 mb, int copy);
bool area_home_of(struct remap *r, u64 home, u32 *mb, int *copy);
u32 area_slots(struct remap *r, u32 mb, u32 *nr);
u32 area_mblock(struct remap *r, u32 slot);
u64 area_place(struct remap *r, u32 mb, int copy);
void area_build(struct remap *r, u32 mb);
int area_type(u32 mb);
int area_move_copy(struct remap *r, u32 mb, int copy, u64 seq);
int area_write_copy(struct remap *r, u32 mb, int copy, u64 seq);
int area_write_super(struct remap *r, int first, unsigned int ahead);
bool area_readable(struct remap *r, struct page *page);

/* dm-remap-load.c */
int load_inspect(struct remap *r, char **error);
int load_set(struct remap *r);

/* dm-remap-commit.c */
void commit_mark_block(struct remap *r, u32 mb);
void commit_mark_slot(struct remap *r, u32 slot);
void commit_set_name(struct remap *r, const u8 *name);
int commit_dirty(struct remap *r);
int commit_scrub(struct remap *r, u32 mb, int copy);
void commit_mark_left(struct remap *r, u32 slot);
void commit_queue(struct remap *r, struct dmr_io *io, u32 left);
void commit_ask_spare(struct remap *r);
int commit_raise(struct remap *r);
int commit_retire(struct remap *r);
void commit_ask_raise(struct remap *r, bool first);
bool commit_settle(struct remap *r, u32 slot, unsigned int state);
void commit_do_work(struct work_struct *work);
void commit_request(struct remap *r, struct dmr_request *rq);

/* dm-remap-identity.c */
int identity_id(struct remap *r, u8 *id, u8 *type);
void identity_init(struct remap *r);
void identity_start_epochs(struct remap *r);
void identity_stop_epochs(struct remap *r);
bool identity_next_epoch(struct remap *r);
void identity_renew_tag(struct remap *r);
void identity_write_tag(struct remap *r);
void identity_have_epoch(struct remap *r, unsigned long delay);
void identity_read(struct remap *r);
char *identity_check(struct remap *r, const struct dmr_super *sb);
char *identity_enter(struct remap *r);
int identity_claim(struct remap *r);
int identity_run(struct remap *r, const u8 *uuid);
void identity_stop(struct remap *r);
void identity_leave(struct remap *r);

/* dm-remap-repair.c */
int repair_create(struct remap *r);
void repair_destroy(struct remap *r);
void repair_queue(struct remap *r, struct bio *bio, blk_status_t status);
void repair_quiesce(struct remap *r);
void repair_main_ok(struct remap *r, struct dmr_io *io);
void repair_said(struct remap *r, enum dmr_leg leg, bool write,
		 blk_status_t status);
void repair_forget(struct remap *r, u64 first, u64 last);
void repair_set_breaker(struct remap *r, bool open);
u32 repair_take_slots(struct remap *r, u64 unit, unsigned int nr,
		      unsigned int *got);
void repair_report_low(struct remap *r, u64 unit, u32 before);
void repair_complete(struct remap *r, struct dmr_io *io, blk_status_t status);
u32 repair_next_lost(struct remap *r, struct dmr_io *io, unsigned int state,
		     u64 *unit);

/* dm-remap-manual.c */
int manual_remap(struct remap *r, u64 first, u64 nr, bool lost, u64 *done,
		 const char **stop);
int manual_refusal(struct remap *r);
int manual_rename(struct remap *r, const char *name);
int manual_scrub(struct remap *r, u32 mb, int copy);
int manual_stop(struct remap *r, u64 *epoch, unsigned int *tags);
int manual_retire(struct remap *r, u64 *epoch);
void manual_allow(struct remap *r);
int manual_forbid(struct remap *r);

/* dm-remap-status.c */
int status_module_init(void);
void status_module_exit(void);
void status_init(struct remap *r);
void status_stop(struct remap *r);
void status_show(struct remap *r);
void status_hide(struct remap *r);
size_t status_memory(struct remap *r);
void status_print(struct dm_target *ti, status_type_t type, unsigned int flags,
		  char *result, unsigned int maxlen);

/* dm-remap-message.c */
int message_handle(struct dm_target *ti, unsigned int argc, char **argv,
		   char *result, unsigned int maxlen);

/* dm-remap-event.c */
void event_init(struct remap *r);
void event_stop(struct remap *r);
void event_report(struct remap *r, enum dmr_event what, u64 unit, u64 count);
bool event_fails(struct remap *r, enum dmr_leg leg, enum dmr_kind kind,
		 u64 unit);
void event_works(struct remap *r, enum dmr_leg leg, enum dmr_kind kind);
void event_flushed(struct remap *r, enum dmr_leg leg, blk_status_t status);
bool event_sector(struct remap *r, u64 unit, sector_t *sector);

#endif /* DM_REMAP_H */
