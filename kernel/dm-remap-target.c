// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device-mapper target "remap": a main device whose unwritable blocks live
 * on a spare device.
 *
 *	<start> <len> remap <main_dev> <spare_dev> <spare_start> <spare_len>
 *		[<#opts> <opt>...]
 *
 *	main_start <s>		first data sector of main, default 0
 *	uuid <u>		the set: nothing else is accepted and nothing is
 *				formatted
 *	errors confirm|medium	whether BLK_STS_IOERR and BLK_STS_TARGET may be
 *				medium errors; default: as the superblock says,
 *				or else confirm
 *	remap_rate <n>		most pieces mapped in a minute, above it the
 *				breaker opens; 0: no limit; default: as the
 *				superblock says, or else as many as fill a
 *				quarter of the slots
 *	accept_stale		start although a table block is gone in both
 *				copies; for a read-only table
 *
 * This file owns construction and destruction, map and end_io, suspend and resume,
 * and the queue limits.  What happens to a bio that fails is in dm-remap-repair.c.
 *
 * map() sleeps for nothing, allocates nothing, takes no lock and writes to no
 * memory but the bio's own, except that it hands some bios to the repair: a write
 * to a lost unit, and for slots what the spare may not know, write-zeroes and a FUA
 * that it has refused; and a bio that is near a note of a pending unit is counted.
 * It may read the lookup while that changes, see dm-remap-slots.c.
 *
 * The spare never sees a discard or a write-zeroes: when a clone of one fails below
 * DM turns the command off for the whole device, before end_io is asked.  A discard
 * of slots ends in map, and their mappings stay.
 *
 * Flush.  Every flush reaches main.  The spare's is skipped only while nothing
 * acknowledged there is unflushed, which two counters tell:
 *  - end_io, or who writes instead of the bio, raises spare_writes before a write
 *    that is not FUA is acknowledged;
 *  - a flush samples spare_writes before it is issued, and raises spare_flushed
 *    to the sample only when it has succeeded;
 *  - equal means clean.
 * One dirty flag would not do: a flush that clears it when it ends hides a write
 * that was acknowledged while it ran from the next fsync.
 *
 * A flush that fails is never a medium error and maps nothing: it is passed up,
 * counted in flush_errors, and its leg is failing until a flush of it succeeds.  A
 * command that the disk does not have (BLK_STS_NOTSUPP), and one that comes again
 * (BLK_STS_AGAIN), have not failed.
 *
 * A FUA write to a slot that the spare refuses goes to the repair, which writes,
 * then flushes, then acknowledges; see dmr_write_durable().
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>

#include "dm-remap.h"
#include "dm-remap-compat.h"

#define SUSPEND_TIME	(30 * HZ)	/* then nothing more is tried on main */
#define MAX_LOOKUP	65536u		/* units of one bio looked up at once */
#define MAX_PIECE	65536u		/* bytes; no disk has larger sectors */
#define MAX_ZEROES	2048u		/* sectors; narrowed like any other write */

/*----------------------------------------------------------------
 * map and end_io
 *----------------------------------------------------------------
 */

static noinline int remap_map_flush(struct remap *r, struct bio *bio)
{
	struct dmr_io *io = dmr_io(bio);

	io->opf = bio->bi_opf;
	if (!dm_bio_get_target_bio_nr(bio)) {
		io->kind = DMR_IO_FLUSH_MAIN;
		bio_set_dev(bio, r->main->bdev);
		return DM_MAPIO_REMAPPED;
	}
	io->sample = atomic64_read(&r->spare_writes);
	/* One that is failing is asked, or nobody would know that it works again. */
	if (io->sample == atomic64_read(&r->spare_flushed) &&
	    !dmr_leg_fails(r, DMR_SPARE)) {
		/* Accounting began with the flush of main, so this may go. */
		io->kind = DMR_IO_DONE;
		bio_endio(bio);
		return DM_MAPIO_SUBMITTED;
	}
	io->kind = DMR_IO_FLUSH;
	bio_set_dev(bio, r->spare->bdev);
	return DM_MAPIO_REMAPPED;
}

static int map_end(struct bio *bio, blk_status_t status)
{
	dmr_io(bio)->kind = DMR_IO_DONE;
	bio->bi_status = status;
	bio_endio(bio);
	return DM_MAPIO_SUBMITTED;
}

static int map_main(struct remap *r, struct bio *bio)
{
	bio_set_dev(bio, r->main->bdev);
	return DM_MAPIO_REMAPPED;
}

static int map_spare(struct remap *r, struct bio *bio, struct dmr_io *io,
		     sector_t sector)
{
	io->kind = DMR_IO_SPARE;
	bio->bi_iter.bi_sector = sector;
	bio_set_dev(bio, r->spare->bdev);
	return DM_MAPIO_REMAPPED;
}

/* The rest of the bio comes again. */
static void map_part(struct remap *r, struct bio *bio, u64 units)
{
	dm_accept_partial_bio(bio, dmr_sector_of(r, units));
	dmr_io(bio)->iter = bio->bi_iter;
}

static bool spare_may_not_know(struct remap *r, blk_opf_t opf)
{
	return (opf & REQ_OP_MASK) == REQ_OP_WRITE_ZEROES ||
	       ((opf & REQ_FUA) && READ_ONCE(r->spare_no_fua));
}

/* The bio's first units are in slots of this state. */
static int map_slots(struct remap *r, struct bio *bio, u32 slot,
		     unsigned int state)
{
	unsigned int run, nr = bio_sectors(bio) >> r->unit_shift;
	struct dmr_io *io = dmr_io(bio);

	run = slots_run(r, slot, state, nr);
	if (run < nr)
		map_part(r, bio, run);
	if (state == DMR_LEAVING)
		state = DMR_MAPPED;

	if (state == DMR_DOUBT)
		return map_end(bio, BLK_STS_IOERR);
	if (bio_op(bio) == REQ_OP_DISCARD)
		return map_end(bio, BLK_STS_OK);
	if (state == DMR_MAPPED && !spare_may_not_know(r, io->opf))
		return map_spare(r, bio, io, slots_sector(r, slot));
	/* LOST: only the write protocol may make it readable again. */
	if (!dmr_is_write(io->opf))
		return map_end(bio, BLK_STS_MEDIUM);
	if (state == DMR_MAPPED)
		io->kind = DMR_IO_SLOTS;
	repair_queue(r, bio, BLK_STS_IOERR);
	return DM_MAPIO_SUBMITTED;
}

static bool whole_units(struct remap *r, sector_t sector, unsigned int sectors)
{
	return !((sector | sectors) & ((1u << r->unit_shift) - 1));
}

static u64 bio_first(struct remap *r, struct bio *bio)
{
	return dmr_unit_of(r, bio->bi_iter.bi_sector);
}

static u64 bio_last(struct remap *r, struct bio *bio)
{
	return dmr_unit_of(r, bio->bi_iter.bi_sector + bio_sectors(bio) - 1);
}

/* Mappings may be in the way of this bio. */
static noinline int map_lookup_slow(struct remap *r, struct bio *bio)
{
	u64 first = bio_first(r, bio), last = bio_last(r, bio);
	unsigned int state;
	u32 slot;

	/* Nobody sends parts of a logical block; they could not be mapped. */
	if (!whole_units(r, bio->bi_iter.bi_sector, bio_sectors(bio)))
		return map_end(bio, BLK_STS_IOERR);
	if (last - first >= MAX_LOOKUP) {
		last = first + MAX_LOOKUP - 1;
		map_part(r, bio, MAX_LOOKUP);
	}
	do {
		slot = slots_first(r, first, last);
		if (slot == DMR_NO_SLOT)
			return map_main(r, bio);
		/* Read once.  BAD: the unit has moved meanwhile. */
		state = dmr_slot_state(r, slot);
	} while (state == DMR_BAD);

	if (r->slot[slot].unit == first)
		return map_slots(r, bio, slot, state);
	map_part(r, bio, r->slot[slot].unit - first);
	return map_main(r, bio);
}

static noinline int map_read_only(struct bio *bio)
{
	return map_end(bio, BLK_STS_IOERR);
}

/*
 * There are mappings, or nothing may be written.  All that is neither the clean
 * path nor a read or write of one whole unit in the first segment, which is common,
 * is a tail call and costs these no register.
 */
static noinline int map_lookup(struct bio *bio, struct remap *r,
			       struct dmr_io *io)
{
	u64 first = bio_first(r, bio);
	u64 range = bio_last(r, bio) - first;
	u32 slot;

	if (unlikely(r->read_only) && op_is_write(bio->bi_opf))
		return map_read_only(bio);
	if (unlikely((first ^ (first + range)) >> DMR_REGION_SHIFT))
		return map_lookup_slow(r, bio);
	slot = dmr_any_entry(r, first, range);
	if (slot == DMR_NO_SLOT)
		return map_main(r, bio);
	/* If there is one unit the entry is its, and the newest one. */
	if (range || bio->bi_iter.bi_size != r->unit ||
	    slot >= r->seg[0].slots ||
	    (bio_op(bio) != REQ_OP_READ && bio_op(bio) != REQ_OP_WRITE) ||
	    (bio->bi_opf & REQ_FUA) ||
	    dmr_slot_state(r, slot) != DMR_MAPPED)
		return map_lookup_slow(r, bio);
	return map_spare(r, bio, io, r->seg[0].base + dmr_sector_of(r, slot));
}

/* Some of what this bio asks for could not be read a while ago. */
static noinline int map_near(struct bio *bio, struct remap *r,
			     struct dmr_io *io)
{
	int ret = READ_ONCE(r->nr_lookup) ? map_lookup(bio, r, io) :
					    map_main(r, bio);

	/* What is submitted may have ended. */
	if (ret == DM_MAPIO_REMAPPED && io->kind == DMR_IO_MAIN) {
		io->kind = DMR_IO_NEAR;
		atomic_inc(&r->nr_near);
	}
	return ret;
}

/* There are notes of pending units, and mappings perhaps. */
static noinline int map_noted(struct bio *bio, struct remap *r,
			      struct dmr_io *io)
{
	if (unlikely(dmr_noted(r, bio->bi_iter.bi_sector, bio_sectors(bio))))
		return map_near(bio, r, io);
	if (READ_ONCE(r->nr_lookup))
		return map_lookup(bio, r, io);
	return map_main(r, bio);
}

static int remap_map(struct dm_target *ti, struct bio *bio)
{
	struct remap *r = ti->private;
	struct dmr_io *io;

	if (unlikely(bio->bi_opf & REQ_PREFLUSH))
		return remap_map_flush(r, bio);

	bio->bi_iter.bi_sector = r->main_start +
				 dm_target_offset(ti, bio->bi_iter.bi_sector);
	io = dmr_io(bio);
	io->iter = bio->bi_iter;
	io->opf = bio->bi_opf;
	io->kind = DMR_IO_MAIN;
	if (likely(!READ_ONCE(r->map_looks)))
		return map_main(r, bio);
	if (unlikely(READ_ONCE(r->nr_pending)))
		return map_noted(bio, r, io);
	return map_lookup(bio, r, io);
}

/* May this error be a bad block, and is it ours to handle? */
static bool for_repair(struct remap *r, struct bio *bio, blk_status_t status)
{
	struct dmr_io *io = dmr_io(bio);
	bool write = dmr_is_write(io->opf);

	if (!write && (io->opf & REQ_OP_MASK) != REQ_OP_READ)
		return false;
	/* The spare is the only one that has what main could not take. */
	if (!write && io->kind == DMR_IO_SPARE)
		return false;
	if (io->opf & REQ_RAHEAD)
		return false;
	if (write && (READ_ONCE(r->mode) != DMR_MODE_RW ||
		      READ_ONCE(r->breaker.open)))
		return false;
	/* A disk without the command has just said so; DM turns it off, too. */
	if ((io->opf & REQ_OP_MASK) == REQ_OP_WRITE_ZEROES &&
	    !bdev_write_zeroes_sectors(bio->bi_bdev))
		return false;
	/* Main has shrunk: no block is bad, and no load would take the slots. */
	if (io->kind == DMR_IO_MAIN &&
	    io->iter.bi_sector + (io->iter.bi_size >> SECTOR_SHIFT) >
	    bdev_nr_sectors(r->main->bdev))
		return false;
	/* A part of a unit could not be narrowed; nobody sends one. */
	if (!whole_units(r, io->iter.bi_sector,
			 io->iter.bi_size >> SECTOR_SHIFT))
		return false;
	return dmr_suspect(r, status, write);
}

/* What a bio that succeeded, or that fails for good, says of its disk. */
static void end_io_said(struct remap *r, struct dmr_io *io, blk_status_t status)
{
	bool spare = io->kind == DMR_IO_SPARE;

	if (dmr_is_write(io->opf) || (io->opf & REQ_OP_MASK) == REQ_OP_READ)
		repair_said(r, spare ? DMR_SPARE : DMR_MAIN,
			    dmr_is_write(io->opf), status);
	/* A bad block, or all of it?  Nothing else would ask. */
	if (status && spare && (io->opf & REQ_OP_MASK) == REQ_OP_READ &&
	    dmr_suspect(r, status, false) && !dmr_leg_fails(r, DMR_SPARE))
		commit_ask_spare(r);
}

/* It may take the same data without FUA, whatever the mode. */
static bool spare_refused_fua(struct dmr_io *io, blk_status_t status)
{
	return io->kind == DMR_IO_SPARE && dmr_is_write(io->opf) &&
	       (io->opf & REQ_FUA) && dmr_command_refused(status);
}

static int end_io_failed(struct remap *r, struct bio *bio, blk_status_t status)
{
	struct dmr_io *io = dmr_io(bio);
	bool ours = for_repair(r, bio, status);
	bool read = (io->opf & REQ_OP_MASK) == REQ_OP_READ;

	/*
	 * What main fails with is counted here only if it is handled here.  A
	 * NOWAIT bio that comes again without it has not failed.
	 */
	if (ours || (io->kind == DMR_IO_SPARE && status != BLK_STS_AGAIN &&
		     status != BLK_STS_NOTSUPP)) {
		if (dmr_is_write(io->opf))
			atomic64_inc(&r->write_errors);
		else if (read && !(io->opf & REQ_RAHEAD))
			atomic64_inc(&r->read_errors);
	}
	if (spare_refused_fua(io, status)) {
		io->kind = DMR_IO_SLOTS;
	} else if (!ours) {
		end_io_said(r, io, status);
		return DM_ENDIO_DONE;
	}
	repair_queue(r, bio, status);
	return DM_ENDIO_INCOMPLETE;
}

static noinline int end_io_slow(struct remap *r, struct bio *bio,
				blk_status_t status)
{
	struct dmr_io *io = dmr_io(bio);

	switch (io->kind) {
	case DMR_IO_DONE:
	case DMR_IO_SLOTS:
		break;
	case DMR_IO_FLUSH:
		if (!status)
			dmr_flushed(r, io->sample);
		event_flushed(r, DMR_SPARE, status);
		break;
	case DMR_IO_FLUSH_MAIN:
		event_flushed(r, DMR_MAIN, status);
		break;
	case DMR_IO_SPARE:
		if (status)
			return end_io_failed(r, bio, status);
		end_io_said(r, io, status);
		if (!dmr_is_write(io->opf))
			break;
		if (!(io->opf & REQ_FUA))
			atomic64_inc(&r->spare_writes);
		if (!READ_ONCE(r->used))
			WRITE_ONCE(r->used, true);
		break;
	case DMR_IO_NEAR:
		io->kind = DMR_IO_MAIN;
		atomic_dec(&r->nr_near);
		fallthrough;
	case DMR_IO_MAIN:
		if (status)
			return end_io_failed(r, bio, status);
		repair_main_ok(r, io);
	}
	return DM_ENDIO_DONE;
}

static int remap_end_io(struct dm_target *ti, struct bio *bio,
			blk_status_t *status)
{
	struct remap *r = ti->private;

	/*
	 * What succeeded is looked at only for notes of pending units that are near,
	 * for unproven pieces and while a leg fails.  Among writes and flushes those
	 * that went to the spare, which needs mappings, and those of units that were
	 * noted since they began: what says that a block could not be read must not
	 * be left behind by the write that cures it.
	 */
	if (likely(!*status && !READ_ONCE(r->end_io_looks) &&
		   (!op_is_write(bio->bi_opf) || !READ_ONCE(r->map_looks))))
		return DM_ENDIO_DONE;
	return end_io_slow(r, bio, *status);
}

/*----------------------------------------------------------------
 * Constructor and destructor
 *----------------------------------------------------------------
 */

static int parse_sectors(const char *arg, sector_t *value)
{
	unsigned long long v;

	if (kstrtoull(arg, 10, &v) || v > (1ull << 54))
		return -EINVAL;
	*value = v;
	return 0;
}

static int parse_option(struct remap *r, const char *name, const char *value,
			char **error)
{
	if (!strcasecmp(name, "main_start")) {
		*error = "main_start: expected a number of sectors";
		return parse_sectors(value, &r->main_start);
	}
	if (!strcasecmp(name, "uuid")) {
		*error = "uuid: expected xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
		r->has_uuid = true;
		/* uuid_parse() does not look behind the last digit. */
		return strlen(value) == UUID_STRING_LEN ?
		       uuid_parse(value, &r->uuid) : -EINVAL;
	}
	if (!strcasecmp(name, "errors")) {
		*error = "errors: expected confirm or medium";
		r->has_errors = true;
		r->errors_medium = !strcasecmp(value, "medium");
		return r->errors_medium || !strcasecmp(value, "confirm") ?
		       0 : -EINVAL;
	}
	if (!strcasecmp(name, "remap_rate")) {
		*error = "remap_rate: expected a number of pieces a minute";
		r->has_rate = true;
		return kstrtouint(value, 10, &r->breaker.rate) ? -EINVAL : 0;
	}
	*error = "unknown option: expected main_start, uuid, errors, remap_rate or accept_stale";
	return -EINVAL;
}

static int parse_options(struct remap *r, struct dm_arg_set *as, char **error)
{
	static const struct dm_arg nr_opts[] = {
		{0, 9, "number of option words: expected 0 to 9"},
	};
	unsigned int n;
	int ret;

	if (!as->argc)
		return 0;
	ret = dm_read_arg_group(nr_opts, as, &n, error);
	if (ret)
		return ret;
	*error = "too many arguments behind the options";
	if (as->argc > n)
		return -EINVAL;
	for (; n; n -= 2) {
		const char *name = dm_shift_arg(as);

		if (!strcasecmp(name, "accept_stale")) {
			r->accept_stale = true;
			n++;
			continue;
		}
		*error = "an option lacks its value";
		if (n < 2)
			return -EINVAL;
		ret = parse_option(r, name, dm_shift_arg(as), error);
		if (ret)
			return ret;
	}
	*error = "accept_stale: expected a read-only table";
	return r->accept_stale && !r->read_only ? -EINVAL : 0;
}

static int get_devices(struct remap *r, const char *main, const char *spare,
		       char **error)
{
	int ret;

	*error = "cannot open main: expected a block device that nothing holds";
	ret = dm_get_device(r->ti, main, dm_table_get_mode(r->ti->table),
			    &r->main);
	if (ret)
		return ret;
	*error = "cannot open the spare: expected a block device that nothing holds";
	return dm_get_device(r->ti, spare, dm_table_get_mode(r->ti->table),
			     &r->spare);
}

static bool misaligned(struct remap *r, sector_t sectors)
{
	return sectors & ((1u << r->unit_shift) - 1);
}

/* Sizes, alignment, kinds of devices.  Returns NULL, or what is wrong. */
static char *check_geometry(struct remap *r)
{
	struct block_device *main = r->main->bdev, *spare = r->spare->bdev;
	sector_t main_size = bdev_nr_sectors(main);
	sector_t spare_size = bdev_nr_sectors(spare);

	if (dmr_must_write_in_order(main) || dmr_must_write_in_order(spare))
		return "zoned devices are not supported";
	if (!r->read_only && (bdev_read_only(main) || bdev_read_only(spare)))
		return
			"main or spare is read-only: expected writable devices";
	if (!dmr_unit_ok(r->unit))
		return "main's logical block size is not 512 to 4096 bytes";
	if (bdev_logical_block_size(spare) > r->unit)
		return
			"the spare's logical blocks must not be bigger than main's";
	if (misaligned(r, r->main_start) || misaligned(r, r->ti->len))
		return "main_start and length must be multiples of main's block size";
	if (r->main_start > main_size || r->ti->len > main_size - r->main_start)
		return "main is too small for main_start and the length";
	if (r->spare_start % DMR_BLOCK_SECTORS)
		return "spare_start must be a multiple of 8 sectors (4 KiB)";
	if (r->spare_start > spare_size ||
	    r->spare_len > spare_size - r->spare_start)
		return "the spare area reaches beyond the end of the spare";
	if (misaligned(r, r->spare_len))
		return "spare_len must be a multiple of main's block size";
	if (r->spare_len / DMR_BLOCK_SECTORS < DMR_MIN_AREA_BLOCKS)
		return "spare_len is too small: expected at least 2072 sectors";
	return NULL;
}

static unsigned int main_piece(struct remap *r)
{
	unsigned int physical = bdev_physical_block_size(r->main->bdev);

	return rounddown_pow_of_two(clamp(physical, r->unit, MAX_PIECE) / r->unit);
}

/* Where pieces begin is the disk's, and main may be a part of it. */
static unsigned int main_piece_offset(struct remap *r)
{
	struct request_queue *q = bdev_get_queue(r->main->bdev);
	sector_t piece = dmr_sector_of(r, r->piece);
	/* Where the first one begins that is whole. */
	sector_t first = (q->limits.alignment_offset >> SECTOR_SHIFT) &
			 (piece - 1);

	return dmr_unit_of(r, r->main_offset + piece - first) & (r->piece - 1);
}

static void set_target(struct dm_target *ti, struct remap *r)
{
	bool discard = bdev_max_discard_sectors(r->main->bdev);

	ti->private = r;
	ti->num_flush_bios = 2;
	ti->num_discard_bios = discard;
	ti->discards_supported = discard;
	ti->num_write_zeroes_bios = 1;
	ti->per_io_data_size = sizeof(struct dmr_io);
}

static void remap_free(struct remap *r)
{
	if (r->spare)
		dm_put_device(r->ti, r->spare);
	if (r->main)
		dm_put_device(r->ti, r->main);
	kvfree(r->mblock);
	if (r->page)
		__free_page(r->page);
	if (r->tag_page)
		__free_page(r->tag_page);
	kfree(r->tag);
	kfree(r->super);
	kfree(r);
}

static int open_set(struct remap *r, char **error)
{
	int ret;

	r->main_offset = get_start_sect(r->main->bdev);
	r->unit = bdev_logical_block_size(r->main->bdev);
	r->unit_shift = ilog2(r->unit) - SECTOR_SHIFT;
	*error = check_geometry(r);
	if (*error)
		return -EINVAL;
	r->piece = main_piece(r);
	r->piece_offset = main_piece_offset(r);
	ret = load_inspect(r, error);
	if (ret)
		return ret;
	*error = "out of memory";
	r->mblock = kvcalloc(r->nr_mblocks, sizeof(*r->mblock), GFP_KERNEL);
	return r->mblock ? 0 : -ENOMEM;
}

static int remap_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct dm_arg_set as = { .argc = argc, .argv = argv };
	const char *main, *spare;
	struct remap *r;
	int ret = -EINVAL;

	if (argc < 4) {
		ti->error = "expected: <main> <spare> <spare_start> <spare_len> [<#opts> <opt>...]";
		return -EINVAL;
	}
	ti->error = "out of memory";
	r = kzalloc(sizeof(*r), GFP_KERNEL);
	if (!r)
		return -ENOMEM;
	r->ti = ti;
	mutex_init(&r->manual_lock);
	r->read_only = !(dm_table_get_mode(ti->table) & BLK_OPEN_WRITE);
	r->page = alloc_page(GFP_KERNEL);
	r->super = kzalloc(sizeof(*r->super), GFP_KERNEL);
	r->tag = kzalloc(sizeof(*r->tag), GFP_KERNEL);
	r->tag_page = alloc_page(GFP_KERNEL);
	if (!r->page || !r->super || !r->tag || !r->tag_page) {
		ret = -ENOMEM;
		goto out_free;
	}

	main = dm_shift_arg(&as);
	spare = dm_shift_arg(&as);
	ti->error = "spare_start and spare_len: expected numbers of sectors";
	if (parse_sectors(dm_shift_arg(&as), &r->spare_start) ||
	    parse_sectors(dm_shift_arg(&as), &r->spare_len))
		goto out_free;
	ret = parse_options(r, &as, &ti->error);
	if (ret)
		goto out_free;
	ret = get_devices(r, main, spare, &ti->error);
	if (ret)
		goto out_free;
	ret = open_set(r, &ti->error);
	if (ret)
		goto out_free;

	ti->error = "out of memory";
	ret = slots_create(r);
	if (ret)
		goto out_free;
	ret = repair_create(r);
	if (ret)
		goto out_slots;
	event_init(r);
	identity_init(r);
	status_init(r);

	ret = -EBUSY;
	ti->error = identity_enter(r);
	if (ti->error)
		goto out_repair;
	set_target(ti, r);
	DMINFO("%s: %u slots of %u bytes, %zu KiB of memory", dmr_name(r),
	       r->nr_slots, r->unit, status_memory(r) >> 10);
	return 0;

out_repair:
	repair_destroy(r);
out_slots:
	slots_destroy(r);
out_free:
	remap_free(r);
	return ret;
}

static void remap_dtr(struct dm_target *ti)
{
	struct remap *r = ti->private;

	identity_stop_epochs(r);
	repair_destroy(r);
	identity_stop_epochs(r);
	/* Only now does nothing of ours write to either disk. */
	identity_leave(r);
	event_stop(r);
	status_stop(r);
	slots_destroy(r);
	remap_free(r);
}

/*----------------------------------------------------------------
 * Suspend and resume
 *----------------------------------------------------------------
 */

static void remap_presuspend(struct dm_target *ti)
{
	struct remap *r = ti->private;

	/* DM waits for the bios under repair; let it not wait for long. */
	WRITE_ONCE(r->suspend_deadline, (jiffies + SUSPEND_TIME) | 1);
	status_hide(r);
}

static void remap_presuspend_undo(struct dm_target *ti)
{
	struct remap *r = ti->private;

	WRITE_ONCE(r->suspend_deadline, 0);
	identity_start_epochs(r);
	status_show(r);
}

static void remap_postsuspend(struct dm_target *ti)
{
	struct remap *r = ti->private;

	/* The timer starts the commit work, and that has it write the tag. */
	identity_stop_epochs(r);
	repair_quiesce(r);
	identity_stop_epochs(r);
	/* It waits no more; messages on the quiet device have their own time. */
	WRITE_ONCE(r->suspend_deadline, 0);
	manual_allow(r);
}

/* The table's first one loads the set; what is in memory is right after that. */
static int remap_preresume(struct dm_target *ti)
{
	struct remap *r = ti->private;
	int ret = manual_forbid(r);

	if (ret)
		return ret;
	WRITE_ONCE(r->suspend_deadline, 0);
	if (r->mode != DMR_MODE_INIT)
		return 0;
	ret = identity_claim(r);
	if (ret)
		return ret;
	ret = load_set(r);
	if (ret) {
		DMERR("%s: the set was not started (%d)", dmr_name(r), ret);
		return ret;
	}
	/* Pairs with smp_load_acquire() in message_list(). */
	smp_store_release(&r->mode, r->read_only || r->no_raise ?
			  DMR_MODE_RO : DMR_MODE_RW);
	return 0;
}

static void remap_resume(struct dm_target *ti)
{
	identity_start_epochs(ti->private);
	status_show(ti->private);
}

/*----------------------------------------------------------------
 * Limits
 *----------------------------------------------------------------
 */

static int call_for(struct dm_target *ti, struct dm_dev *dev, sector_t start,
		    sector_t len, iterate_devices_callout_fn fn, void *data)
{
	/*
	 * Up to 6.7 host-aware disks are zoned ones, and DM wants zones whole.
	 * Nothing of ours is bound to them.
	 */
	if (bdev_is_zoned(dev->bdev)) {
		start = 0;
		len = bdev_nr_sectors(dev->bdev);
	}
	return fn(ti, dev, start, len, data);
}

/*
 * Both devices, always: without the spare DM would not see its write cache, and
 * drop the flushes.
 */
static int remap_iterate_devices(struct dm_target *ti,
				 iterate_devices_callout_fn fn, void *data)
{
	struct remap *r = ti->private;
	int ret;

	ret = call_for(ti, r->main, r->main_start, ti->len, fn, data);
	if (!ret)
		ret = call_for(ti, r->spare, r->spare_start, r->spare_len, fn,
			       data);
	return ret;
}

/*
 * DM calls this when it has stacked both devices' limits, and stacks the result
 * with that of the table's other targets.  What bounds a bio stays stacked from
 * both devices, since a bio may go to either.  What describes the disk to its user
 * is main's, as dm-linear would show it at this place of main.  A write-zeroes that
 * the spare would have to do is written; one that is longer than MAX_ZEROES comes in
 * parts.
 *
 * Not ours to say: whether there is a write cache, which a flush must not miss, and
 * up to 6.10 whether the disk rotates; and a spare without write-zeroes makes DM
 * show none.  docs/interface.md has all of it.
 */
static void remap_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	struct remap *r = ti->private;
	struct block_device *main = r->main->bdev;
	struct queue_limits own;

	blk_set_stacking_limits(&own);
	blk_stack_limits(&own, &bdev_get_queue(main)->limits,
			 get_start_sect(main) + r->main_start);

	limits->physical_block_size = own.physical_block_size;
	limits->alignment_offset = own.alignment_offset;
	limits->io_min = own.io_min;
	limits->io_opt = own.io_opt;
	limits->discard_granularity = own.discard_granularity;
	limits->discard_alignment = own.discard_alignment;
	limits->max_discard_segments = own.max_discard_segments;
	limits->max_hw_discard_sectors = own.max_hw_discard_sectors;
	limits->max_discard_sectors = own.max_discard_sectors;
	limits->max_write_zeroes_sectors =
		min(own.max_write_zeroes_sectors, MAX_ZEROES);
	dmr_limits_unmap(limits, &own);
	dmr_limits_kind(limits, &own);
}

/*----------------------------------------------------------------*/

static struct target_type remap_target = {
	.name = "remap",
	.version = {1, 1, 0},
	.features = DM_TARGET_NOWAIT,
	.module = THIS_MODULE,
	.ctr = remap_ctr,
	.dtr = remap_dtr,
	.map = remap_map,
	.end_io = remap_end_io,
	.presuspend = remap_presuspend,
	.presuspend_undo = remap_presuspend_undo,
	.postsuspend = remap_postsuspend,
	.preresume = remap_preresume,
	.resume = remap_resume,
	.status = status_print,
	.message = message_handle,
	.iterate_devices = remap_iterate_devices,
	.io_hints = remap_io_hints,
};

static int __init dm_remap_init(void)
{
	int ret = status_module_init();

	if (ret)
		return ret;
	ret = dm_register_target(&remap_target);
	if (ret)
		status_module_exit();
	return ret;
}

static void __exit dm_remap_exit(void)
{
	dm_unregister_target(&remap_target);
	status_module_exit();
}

module_init(dm_remap_init);
module_exit(dm_remap_exit);

MODULE_DESCRIPTION(DM_NAME " target that keeps a failing disk in service");
MODULE_AUTHOR("The dm-remap developers");
MODULE_LICENSE("GPL");
MODULE_VERSION(DM_REMAP_VERSION);
