// SPDX-License-Identifier: GPL-2.0-only
/*
 * dm-fault: a linear device that fails on request. For tests only.
 *
 * It maps its range 1:1 onto a lower device and fails the I/O that its rules
 * name, with any block status, sector by sector, for reads, writes, flushes,
 * discards and write-zeroes apart. It also counts what passes, holds bios back
 * so that a test can build an interleaving, and delays failures like a disk
 * that retries for seconds.
 *
 * A bio that overlaps one failing sector fails whole and never reaches the
 * lower device: nothing of it is executed, unless the rule says 'torn'.
 *
 * Table:
 *
 *   <start> <len> fault <dev> <dev_start> [read_only] [logical <bytes>]
 *                                         [physical <bytes>] [cache]
 *
 *   read_only          start as if 'readonly target' had been sent, which is
 *                      what a write-protected SCSI disk answers
 *   logical, physical  raise the logical block size; set the physical one
 *   cache              have a volatile write cache, see below
 *
 * Messages. Sectors are of 512 bytes and count from the start of the target;
 * <dir> is read, write, flush, discard, write_zeroes or any; <status> is
 * medium, ioerr, target, transport, timeout, offline, notsupp, nospc,
 * resource, again or protection:
 *
 *   add <sector> <count> <dir> <status> [<times>|until_written] [torn]
 *       [after <n>]
 *                      fail bios of that direction that touch that range: for
 *                      ever (<times> absent or 0), <times> times, or, reads
 *                      only, each sector until a write or write-zeroes to it
 *                      has completed. The first rule that matches decides.
 *                      With 'torn', writes only, all sectors before the first
 *                      bad one are written, and then the bio fails as said; a
 *                      delay does not apply to it. 'after' lets the first <n>
 *                      of them pass.
 *                      Rules for flush have no range: give 0 0. 'any' is
 *                      everything that has a range, so all but flush.
 *   clear [<sector> <count>]
 *                      forget all rules; or that range, in all rules with one
 *   dead <status>|off  fail everything, flushes too, before any rule is asked
 *   readonly <status>|off
 *                      fail writes, write-zeroes and discards; reads and
 *                      flushes go on
 *   nofua <status>|off fail what has FUA, like a disk that says it knows it and
 *                      does not
 *   hold <dir> [<sector> <count>]
 *                      hold these bios back (flushes whatever the range; 'any'
 *                      has flushes too); replaces an earlier hold, what that
 *                      one has caught stays caught
 *   hold off [<status>]
 *                      let them go in the order they came, each judged by the
 *                      rules of now; or fail them with a status
 *   delay <ms>         complete failures that much later, from a worker;
 *                      0 (the default): at once, in the submitter's context
 *   powercut [<seed>]  with 'cache' only: forget what is not flushed, and fail
 *                      everything from now on, see below
 *   reader <major>:<minor> <group>
 *                      put a file 'slow' into that group of a mapped device's
 *                      directory in sysfs.  Who reads it waits, and so does who
 *                      removes the group, as for sysfs' own lock
 *   reader off         let them go
 *   race               write to the same memory from two threads for two seconds,
 *                      in no order: a race for KCSAN to report
 *   count [reset]      one line of counters; they count bios at their arrival,
 *                      also those that fail; 'held' is how many are held now,
 *                      'cached', with 'cache' only, how many blocks a power
 *                      cut would endanger
 *
 * Flushes and FUA arrive here even if the lower device has no write cache, so
 * the layers above always see one. A suspend fails the held bios with an I/O
 * error, or it would wait for ever.
 *
 * With 'cache' there is one. A write or write-zeroes completes as soon as its
 * data is in memory, where reads find it. A flush, a discard (of its range)
 * and FUA write down first, block by block, and then flush the lower device. A
 * block is the lower device's logical one, 512 bytes if it can be. There is
 * no other write-back: until then nothing of it is on the lower device, except
 * that an orderly suspend writes down everything.
 *
 * A power cut ends that at any moment. Writes that are under way, held ones
 * too, count as received: they fail, but any part of them may have been
 * executed. So of each block that is in memory then, on its own, either the
 * last data or nothing reaches the lower device: 'powercut' drops all of them,
 * 'powercut <seed>' those that jhash(block, seed) chooses, about a half. A
 * flush or FUA write that is being written down stops where it is. When the
 * message returns, what is on the lower device is what the cut leaves, and
 * everything here ends as 'offline' until a table is loaded anew.
 *
 * Status: <live rules> <dead> <readonly> <counters as in 'count'>
 */

#include <linux/bio.h>
#include <linux/bitmap.h>
#include <linux/blkdev.h>
#include <linux/completion.h>
#include <linux/device.h>
#include <linux/device-mapper.h>
#include <linux/highmem.h>
#include <linux/jhash.h>
#include <linux/list.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/sysfs.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#define DM_MSG_PREFIX "fault"

#define MAX_RULE_SECTORS BIT(24)	/* a bitmap of 2 MiB */

/* What a bio does, as a bit: what a rule or a hold applies to is a set. */
enum {
	FAULT_READ		= BIT(0),
	FAULT_WRITE		= BIT(1),
	FAULT_FLUSH		= BIT(2),
	FAULT_DISCARD		= BIT(3),
	FAULT_WRITE_ZEROES	= BIT(4),
	FAULT_ANY		= GENMASK(4, 0),
};

/* In the order of the bits */
static const char * const dir_names[] = {
	"read", "write", "flush", "discard", "write_zeroes", "any",
};

static const struct {
	const char *name;
	blk_status_t status;
} fault_statuses[] = {
	{ "off",	BLK_STS_OK },
	{ "medium",	BLK_STS_MEDIUM },
	{ "ioerr",	BLK_STS_IOERR },
	{ "target",	BLK_STS_TARGET },
	{ "transport",	BLK_STS_TRANSPORT },
	{ "timeout",	BLK_STS_TIMEOUT },
	{ "offline",	BLK_STS_OFFLINE },
	{ "notsupp",	BLK_STS_NOTSUPP },
	{ "nospc",	BLK_STS_NOSPC },
	{ "resource",	BLK_STS_RESOURCE },
	{ "again",	BLK_STS_AGAIN },
	{ "protection",	BLK_STS_PROTECTION },
};

/* The first five in the order of the bits */
enum {
	COUNT_READS, COUNT_WRITES, COUNT_FLUSHES, COUNT_DISCARDS,
	COUNT_WRITE_ZEROES, COUNT_FUA, COUNT_FAILED, COUNT_READ_SECTORS,
	COUNT_WRITE_SECTORS, NR_COUNTERS
};

static const char * const counter_names[] = {
	"reads", "writes", "flushes", "discards", "write_zeroes", "fua",
	"failed", "read_sectors", "write_sectors",
};

/*
 * A rule is over when no bit of 'bad' is set or 'left' is 0. It then stays in
 * the list, where it matches nothing, until the next rule is added: bits and
 * 'left' also change in contexts that must not free a big bitmap.
 */
struct fault_rule {
	struct list_head list;
	unsigned int dir;
	blk_status_t status;
	bool until_written;
	bool torn;
	u64 after;		/* so many more pass before it fires */
	u64 left;		/* times to fire; U64_MAX: for ever */
	sector_t start;
	unsigned int count;	/* 1 for a flush rule */
	unsigned long *bad;	/* a bit a sector */
};

struct fault_c {
	/* Constant after ctr */
	struct dm_target *ti;
	struct dm_dev *dev;
	sector_t start;
	bool read_only;
	bool cache;
	unsigned int logical;	/* 0: the lower device's */
	unsigned int physical;
	unsigned int block;	/* of the cache and of torn writes, in bytes */

	/*
	 * Protects everything down to 'end_delayed'. Taken with interrupts off:
	 * end_io runs in any context. No bio is submitted or ended under it.
	 */
	spinlock_t lock;
	struct list_head rules;
	blk_status_t dead;	/* also shown without the lock, as is the next */
	blk_status_t readonly;
	blk_status_t nofua;
	u64 counters[NR_COUNTERS];

	unsigned int hold_dir;	/* 0: nothing is held */
	sector_t hold_start;
	sector_t hold_count;
	struct bio_list held;

	unsigned int delay_ms;
	struct bio_list delayed;	/* failed, not yet ended */

	struct bio_list to_cache;	/* judged; the worker has them next */
	bool cut;		/* set once; also read without the lock */

	struct workqueue_struct *wq;
	struct delayed_work end_delayed;
	struct work_struct handle_cached;

	/*
	 * The blocks that are in memory only, by their number in the target. A
	 * reader may look without it whether there is any; their data and what
	 * is there belong to whoever holds the mutex.
	 */
	struct mutex cache_lock;
	struct xarray cached;
	unsigned long nr_cached;

	/* A file that is slow to read; whoever has the group removes it. */
	struct device_attribute slow;
	struct completion read;
};

/* What end_io and the worker need to know; the bio's own iter moves. */
struct fault_io {
	sector_t sector;	/* in the target */
	unsigned int count;
	unsigned int dir;
	unsigned long due;	/* jiffies; of a delayed failure */
	blk_status_t torn;	/* how it ends when this part of it is done */
};

static struct fault_io *fault_bio_data(struct bio *bio)
{
	return dm_per_bio_data(bio, sizeof(struct fault_io));
}

static bool overlap(sector_t a, sector_t a_count, sector_t b, sector_t b_count)
{
	return a < b + b_count && b < a + a_count;
}

static const char *status_name(blk_status_t status)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(fault_statuses); i++)
		if (fault_statuses[i].status == status)
			return fault_statuses[i].name;

	return "?";
}

/*----------------------------------------------------------------*/

/* Rules. The functions with a leading __ are called with the lock held. */

/*
 * The part of a rule that [sector, sector + count) covers, in bits of its
 * bitmap. Returns false if there is none.
 */
static bool rule_part(const struct fault_rule *rule, sector_t sector,
		      sector_t count, unsigned int *first, unsigned int *end)
{
	if (rule->dir == FAULT_FLUSH ||
	    !overlap(sector, count, rule->start, rule->count))
		return false;

	*first = max(sector, rule->start) - rule->start;
	*end = min(sector + count, rule->start + rule->count) - rule->start;

	return true;
}

static bool __rule_live(const struct fault_rule *rule)
{
	return rule->left && !bitmap_empty(rule->bad, rule->count);
}

/* Also says which sector of the bio is the first to fail. */
static bool __rule_matches(const struct fault_rule *rule,
			   const struct fault_io *io, unsigned int *failing)
{
	unsigned int first, end, bad;

	if (!(rule->dir & io->dir) || !rule->left)
		return false;

	*failing = 0;
	if (rule->dir == FAULT_FLUSH)
		return true;

	if (!rule_part(rule, io->sector, io->count, &first, &end))
		return false;

	bad = find_next_bit(rule->bad, end, first);
	*failing = rule->start + bad - io->sector;

	return bad < end;
}

static void __clear_range(struct fault_c *fc, sector_t sector, sector_t count,
			  bool written)
{
	struct fault_rule *rule;
	unsigned int first, end;

	list_for_each_entry(rule, &fc->rules, list) {
		if (written && !rule->until_written)
			continue;
		if (rule_part(rule, sector, count, &first, &end))
			bitmap_clear(rule->bad, first, end - first);
	}
}

/*
 * The status a bio shall have, BLK_STS_OK to let it pass. Uses a rule up. One
 * that tears the bio makes it shorter, lets it pass and leaves the status to
 * end_io, unless there is nothing to be written.
 */
static blk_status_t __judge(struct fault_c *fc, struct bio *bio)
{
	struct fault_io *io = fault_bio_data(bio);
	blk_status_t status = BLK_STS_OK;
	struct fault_rule *rule;
	unsigned int failing;

	if (!(io->dir & (FAULT_READ | FAULT_FLUSH)))
		status = fc->readonly;
	if (fc->nofua && (bio->bi_opf & REQ_FUA))
		status = fc->nofua;
	if (fc->dead)
		status = fc->dead;
	if (fc->cut)
		status = BLK_STS_OFFLINE;

	list_for_each_entry(rule, &fc->rules, list) {
		if (status)
			break;
		if (!__rule_matches(rule, io, &failing))
			continue;
		if (rule->after) {
			rule->after--;
			continue;
		}
		if (rule->left != U64_MAX)
			rule->left--;
		status = rule->status;

		failing = round_down(failing, fc->block >> SECTOR_SHIFT);
		if (!rule->torn || io->dir != FAULT_WRITE || !failing)
			continue;
		io->torn = status;
		io->count = failing;
		bio->bi_iter.bi_size = to_bytes(failing);
	}

	if (status)
		fc->counters[COUNT_FAILED]++;

	return io->torn ? BLK_STS_OK : status;
}

static void free_rules(struct list_head *rules)
{
	struct fault_rule *rule, *next;

	list_for_each_entry_safe(rule, next, rules, list) {
		list_del(&rule->list);
		kvfree(rule->bad);
		kfree(rule);
	}
}

static struct fault_rule *alloc_rule(sector_t start, unsigned int count)
{
	struct fault_rule *rule;

	rule = kzalloc(sizeof(*rule), GFP_KERNEL);
	if (!rule)
		return NULL;

	rule->bad = kvcalloc(BITS_TO_LONGS(count), sizeof(long), GFP_KERNEL);
	if (!rule->bad) {
		kfree(rule);
		return NULL;
	}

	bitmap_set(rule->bad, 0, count);
	rule->start = start;
	rule->count = count;

	return rule;
}

/*----------------------------------------------------------------*/

/* Failing and releasing bios. None of these holds the lock over a bio. */

static void fail_bio(struct fault_c *fc, struct bio *bio, blk_status_t status)
{
	unsigned long flags;
	unsigned int delay;

	bio->bi_status = status;

	spin_lock_irqsave(&fc->lock, flags);
	delay = fc->delay_ms;
	if (delay) {
		fault_bio_data(bio)->due = jiffies + msecs_to_jiffies(delay);
		bio_list_add(&fc->delayed, bio);
	}
	spin_unlock_irqrestore(&fc->lock, flags);

	/* At once, because the worker then sleeps until the first is due. */
	if (delay)
		mod_delayed_work(fc->wq, &fc->end_delayed, 0);
	else
		bio_endio(bio);
}

static void end_delayed(struct work_struct *work)
{
	struct fault_c *fc = container_of(to_delayed_work(work),
					  struct fault_c, end_delayed);
	struct bio_list due = BIO_EMPTY_LIST, later = BIO_EMPTY_LIST;
	unsigned long now = jiffies, wait = MAX_JIFFY_OFFSET;
	struct bio *bio;

	spin_lock_irq(&fc->lock);
	while ((bio = bio_list_pop(&fc->delayed))) {
		struct fault_io *io = fault_bio_data(bio);

		if (!fc->delay_ms || time_after_eq(now, io->due)) {
			bio_list_add(&due, bio);
		} else {
			wait = min(wait, io->due - now);
			bio_list_add(&later, bio);
		}
	}
	fc->delayed = later;
	spin_unlock_irq(&fc->lock);

	if (!bio_list_empty(&later))
		queue_delayed_work(fc->wq, &fc->end_delayed, wait);

	while ((bio = bio_list_pop(&due)))
		bio_endio(bio);
}

/*----------------------------------------------------------------*/

/*
 * The cache. What enters it is handled by one worker in the order it came, one
 * after the other, with the cache_lock held and the commands to the lower
 * device waited for.
 */

static unsigned long to_block(struct fault_c *fc, sector_t sector)
{
	return sector / (fc->block >> SECTOR_SHIFT);
}

/* The last block that [sector, sector + count) touches */
static unsigned long last_block(struct fault_c *fc, sector_t sector,
				sector_t count)
{
	return to_block(fc, sector + count - 1);
}

/*
 * Give a bio that was judged and may pass to the worker, which may have ended
 * it by the time the lock is released. Returns false if it is not for the
 * cache, but for the lower device alone. A block that is written while such a
 * read is on its way may be read as it was or as it is.
 */
static bool __enter_cache(struct fault_c *fc, struct bio *bio)
{
	struct fault_io *io = fault_bio_data(bio);
	unsigned long index = to_block(fc, io->sector);

	if (!fc->cache)
		return false;

	if (io->dir == FAULT_READ &&
	    !xa_find(&fc->cached, &index,
		     last_block(fc, io->sector, io->count), XA_PRESENT))
		return false;

	bio_list_add(&fc->to_cache, bio);
	queue_work(fc->wq, &fc->handle_cached);

	return true;
}

/* Read or write one block of the lower device. */
static blk_status_t block_io(struct fault_c *fc, unsigned long index,
			     void *data, enum req_op op)
{
	struct bio_vec bvec;
	struct bio bio;

	bio_init(&bio, fc->dev->bdev, &bvec, 1, op);
	bio.bi_iter.bi_sector = fc->start +
		(sector_t)index * (fc->block >> SECTOR_SHIFT);
	__bio_add_page(&bio, virt_to_page(data), fc->block,
		       offset_in_page(data));
	submit_bio_wait(&bio);
	bio_uninit(&bio);

	return bio.bi_status;
}

/* Copy one block between memory and where 'iter' is in a bio; advances it. */
static void copy_block(struct fault_c *fc, struct bio *bio,
		       struct bvec_iter *iter, char *data, bool to_bio)
{
	unsigned int left = fc->block;

	while (left) {
		struct bio_vec bvec = bio_iter_iovec(bio, *iter);

		bvec.bv_len = min(bvec.bv_len, left);
		if (to_bio)
			memcpy_to_bvec(&bvec, data);
		else
			memcpy_from_bvec(data, &bvec);

		bio_advance_iter_single(bio, iter, bvec.bv_len);
		data += bvec.bv_len;
		left -= bvec.bv_len;
	}
}

static void drop_block(struct fault_c *fc, unsigned long index)
{
	kfree(xa_erase(&fc->cached, index));
	WRITE_ONCE(fc->nr_cached, fc->nr_cached - 1);
}

/* The memory of a block, new if there is none; NULL if there can be none. */
static void *get_block(struct fault_c *fc, unsigned long index)
{
	void *data = xa_load(&fc->cached, index);

	if (data)
		return data;

	data = kmalloc(fc->block, GFP_NOIO);
	if (!data)
		return NULL;

	if (xa_err(xa_store(&fc->cached, index, data, GFP_NOIO))) {
		kfree(data);
		return NULL;
	}
	WRITE_ONCE(fc->nr_cached, fc->nr_cached + 1);

	return data;
}

/* Write down what is cached from block 'first' to 'last', until a power cut. */
static blk_status_t write_back(struct fault_c *fc, unsigned long first,
			       unsigned long last)
{
	unsigned long index;
	blk_status_t status;
	void *data;

	xa_for_each_range(&fc->cached, index, data, first, last) {
		if (READ_ONCE(fc->cut))
			return BLK_STS_OFFLINE;

		status = block_io(fc, index, data, REQ_OP_WRITE);
		if (status)
			return status;
		drop_block(fc, index);
		cond_resched();
	}

	return errno_to_blk_status(blkdev_issue_flush(fc->dev->bdev));
}

static blk_status_t cache_read(struct fault_c *fc, struct bio *bio,
			       unsigned long first, unsigned long last)
{
	struct bvec_iter iter = bio->bi_iter;
	blk_status_t status = BLK_STS_OK;
	unsigned long index;
	void *data, *lower;

	lower = kmalloc(fc->block, GFP_NOIO);
	if (!lower)
		return BLK_STS_RESOURCE;

	for (index = first; index <= last && !status; index++) {
		data = xa_load(&fc->cached, index);
		if (!data) {
			data = lower;
			status = block_io(fc, index, data, REQ_OP_READ);
		}
		copy_block(fc, bio, &iter, data, true);
	}
	kfree(lower);

	return status;
}

/* A bio of write-zeroes has no pages. */
static blk_status_t cache_write(struct fault_c *fc, struct bio *bio,
				unsigned long first, unsigned long last)
{
	struct bvec_iter iter = bio->bi_iter;
	unsigned long index;
	void *data;

	for (index = first; index <= last; index++) {
		data = get_block(fc, index);
		if (!data)
			return BLK_STS_RESOURCE;

		if (bio_op(bio) == REQ_OP_WRITE)
			copy_block(fc, bio, &iter, data, false);
		else
			memset(data, 0, fc->block);
	}

	if (bio->bi_opf & REQ_FUA)
		return write_back(fc, first, last);

	return BLK_STS_OK;
}

static void handle_bio(struct fault_c *fc, struct bio *bio)
{
	struct fault_io *io = fault_bio_data(bio);
	unsigned long first = to_block(fc, io->sector);
	unsigned long last = last_block(fc, io->sector, io->count);
	blk_status_t status;

	switch (io->dir) {
	case FAULT_READ:
		status = cache_read(fc, bio, first, last);
		break;
	case FAULT_FLUSH:
		status = write_back(fc, 0, ULONG_MAX);
		break;
	case FAULT_DISCARD:
		status = write_back(fc, first, last);
		if (!status) {
			dm_submit_bio_remap(bio, NULL);
			return;
		}
		break;
	default:
		status = cache_write(fc, bio, first, last);
	}

	/* What a power cut has met halfway was never acknowledged. */
	if (READ_ONCE(fc->cut))
		status = BLK_STS_OFFLINE;

	if (status) {
		spin_lock_irq(&fc->lock);
		fc->counters[COUNT_FAILED]++;
		spin_unlock_irq(&fc->lock);
	}
	bio->bi_status = status;
	bio_endio(bio);
}

static void handle_cached(struct work_struct *work)
{
	struct fault_c *fc = container_of(work, struct fault_c, handle_cached);
	struct bio *bio;

	mutex_lock(&fc->cache_lock);
	for (;;) {
		spin_lock_irq(&fc->lock);
		bio = bio_list_pop(&fc->to_cache);
		spin_unlock_irq(&fc->lock);
		if (!bio)
			break;

		handle_bio(fc, bio);
	}
	mutex_unlock(&fc->cache_lock);
}

static bool survives(unsigned long index, u64 seed)
{
	u64 n = index;

	return jhash_3words(lower_32_bits(n), upper_32_bits(n),
			    lower_32_bits(seed), upper_32_bits(seed)) & 1;
}

/*
 * Decide what becomes of each block that is in memory only, once nothing more
 * can come. Returns 0 or the error of a write that was to survive.
 */
static int settle(struct fault_c *fc, bool all_lost, u64 seed)
{
	blk_status_t status = BLK_STS_OK;
	unsigned long index;
	void *data;
	int r;

	mutex_lock(&fc->cache_lock);
	xa_for_each(&fc->cached, index, data) {
		if (!all_lost && survives(index, seed) && !status)
			status = block_io(fc, index, data, REQ_OP_WRITE);
		drop_block(fc, index);
		cond_resched();
	}
	r = blkdev_issue_flush(fc->dev->bdev);
	mutex_unlock(&fc->cache_lock);

	return status ? blk_status_to_errno(status) : r;
}

/*----------------------------------------------------------------*/

/*
 * End the hold and let go what it has caught: failed with 'status', or, if
 * that is BLK_STS_OK, judged anew. May submit bios, so process context only.
 */
static void release_held(struct fault_c *fc, blk_status_t status)
{
	struct bio_list held;
	struct bio *bio;

	spin_lock_irq(&fc->lock);
	fc->hold_dir = 0;
	held = fc->held;
	bio_list_init(&fc->held);
	spin_unlock_irq(&fc->lock);

	while ((bio = bio_list_pop(&held))) {
		blk_status_t verdict = status;
		bool taken = false;

		spin_lock_irq(&fc->lock);
		if (verdict)
			fc->counters[COUNT_FAILED]++;
		else
			verdict = __judge(fc, bio);
		if (!verdict)
			taken = __enter_cache(fc, bio);
		spin_unlock_irq(&fc->lock);

		if (verdict)
			fail_bio(fc, bio, verdict);
		else if (!taken)
			dm_submit_bio_remap(bio, NULL);
	}
}

/*----------------------------------------------------------------*/

/* map and end_io */

static unsigned int bio_dir(const struct bio *bio)
{
	/* The core splits data off: a bio with PREFLUSH is a flush alone. */
	if (bio->bi_opf & REQ_PREFLUSH)
		return FAULT_FLUSH;

	switch (bio_op(bio)) {
	case REQ_OP_READ:
		return FAULT_READ;
	case REQ_OP_DISCARD:
		return FAULT_DISCARD;
	case REQ_OP_WRITE_ZEROES:
		return FAULT_WRITE_ZEROES;
	default:
		return FAULT_WRITE;
	}
}

static void __count_bio(struct fault_c *fc, const struct fault_io *io, bool fua)
{
	fc->counters[__ffs(io->dir)]++;
	if (fua)
		fc->counters[COUNT_FUA]++;
	if (io->dir == FAULT_READ)
		fc->counters[COUNT_READ_SECTORS] += io->count;
	if (io->dir == FAULT_WRITE)
		fc->counters[COUNT_WRITE_SECTORS] += io->count;
}

static bool __must_hold_back(struct fault_c *fc, const struct fault_io *io)
{
	if (!(fc->hold_dir & io->dir))
		return false;

	return io->dir == FAULT_FLUSH ||
	       overlap(io->sector, io->count, fc->hold_start, fc->hold_count);
}

static int fault_map(struct dm_target *ti, struct bio *bio)
{
	struct fault_io *io = fault_bio_data(bio);
	struct fault_c *fc = ti->private;
	blk_status_t status = BLK_STS_OK;
	unsigned long flags;
	bool taken;

	io->dir = bio_dir(bio);
	io->count = bio_sectors(bio);
	io->sector = 0;
	io->torn = BLK_STS_OK;
	if (io->dir != FAULT_FLUSH)
		io->sector = dm_target_offset(ti, bio->bi_iter.bi_sector);

	bio_set_dev(bio, fc->dev->bdev);
	bio->bi_iter.bi_sector = fc->start + io->sector;

	spin_lock_irqsave(&fc->lock, flags);
	__count_bio(fc, io, bio->bi_opf & REQ_FUA);
	taken = __must_hold_back(fc, io);
	if (taken)
		bio_list_add(&fc->held, bio);
	else
		status = __judge(fc, bio);
	if (!taken && !status)
		taken = __enter_cache(fc, bio);
	spin_unlock_irqrestore(&fc->lock, flags);

	/* A bio that is held or cached may be gone by now. */
	if (taken)
		return DM_MAPIO_SUBMITTED;

	if (status) {
		fail_bio(fc, bio, status);
		return DM_MAPIO_SUBMITTED;
	}

	return DM_MAPIO_REMAPPED;
}

static int fault_end_io(struct dm_target *ti, struct bio *bio,
			blk_status_t *error)
{
	struct fault_io *io = fault_bio_data(bio);
	struct fault_c *fc = ti->private;
	unsigned long flags;

	if (!*error && (io->dir & (FAULT_WRITE | FAULT_WRITE_ZEROES))) {
		spin_lock_irqsave(&fc->lock, flags);
		__clear_range(fc, io->sector, io->count, true);
		spin_unlock_irqrestore(&fc->lock, flags);
	}

	if (!*error)
		*error = io->torn;

	return DM_ENDIO_DONE;
}

static void fault_presuspend(struct dm_target *ti)
{
	release_held(ti->private, BLK_STS_IOERR);
}

/* No bio is under way any more, and the next table's cache is another one. */
static void fault_postsuspend(struct dm_target *ti)
{
	struct fault_c *fc = ti->private;
	blk_status_t status;

	mutex_lock(&fc->cache_lock);
	status = write_back(fc, 0, ULONG_MAX);
	mutex_unlock(&fc->cache_lock);

	if (status && !READ_ONCE(fc->cut))
		DMERR("%s: the cache cannot be written down: %s",
		      dm_table_device_name(ti->table), status_name(status));
}

/*----------------------------------------------------------------*/

/* Messages */

static int parse_dir(const char *arg, unsigned int *dir)
{
	int i = match_string(dir_names, ARRAY_SIZE(dir_names), arg);

	if (i < 0)
		return -EINVAL;
	*dir = strcmp(arg, "any") ? BIT(i) : FAULT_ANY;

	return 0;
}

/* BLK_STS_OK is spelled 'off', and is for those messages that have an 'off'. */
static int parse_status(const char *arg, blk_status_t *status)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(fault_statuses); i++) {
		if (!strcmp(arg, fault_statuses[i].name)) {
			*status = fault_statuses[i].status;
			return 0;
		}
	}

	return -EINVAL;
}

static int parse_range(struct fault_c *fc, char **argv, sector_t *start,
		       sector_t *count)
{
	u64 from, n;

	if (kstrtou64(argv[0], 10, &from) || kstrtou64(argv[1], 10, &n))
		return -EINVAL;

	if (!n || from >= fc->ti->len || n > fc->ti->len - from)
		return -EINVAL;

	*start = from;
	*count = n;

	return 0;
}

static int parse_rule_option(struct fault_rule *rule, const char *arg)
{
	if (!strcmp(arg, "torn") && !rule->torn) {
		rule->torn = true;
		return rule->dir == FAULT_WRITE ? 0 : -EINVAL;
	}

	if (!strcmp(arg, "until_written")) {
		rule->until_written = true;
		return rule->dir == FAULT_READ ? 0 : -EINVAL;
	}

	if (kstrtou64(arg, 10, &rule->left))
		return -EINVAL;
	if (!rule->left)
		rule->left = U64_MAX;

	return 0;
}

static int message_add(struct fault_c *fc, unsigned int argc, char **argv)
{
	sector_t start = 0, count = 1;
	struct fault_rule *rule, *old, *next;
	LIST_HEAD(over);
	unsigned int dir, i;
	blk_status_t status;
	int r = 0;

	if (parse_dir(argv[3], &dir) || parse_status(argv[4], &status) ||
	    !status)
		return -EINVAL;

	if (dir != FAULT_FLUSH) {
		dir &= ~FAULT_FLUSH;
		if (parse_range(fc, argv + 1, &start, &count) ||
		    count > MAX_RULE_SECTORS)
			return -EINVAL;
	} else if (strcmp(argv[1], "0") || strcmp(argv[2], "0")) {
		return -EINVAL;
	}

	rule = alloc_rule(start, count);
	if (!rule)
		return -ENOMEM;
	rule->dir = dir;
	rule->status = status;
	rule->left = U64_MAX;
	for (i = 5; i < argc && !r; i++) {
		if (i + 1 < argc && !strcmp(argv[i], "after"))
			r = kstrtou64(argv[++i], 10, &rule->after);
		else
			r = parse_rule_option(rule, argv[i]);
	}
	if (r) {
		list_add(&rule->list, &over);
		free_rules(&over);
		return r;
	}

	spin_lock_irq(&fc->lock);
	list_for_each_entry_safe(old, next, &fc->rules, list)
		if (!__rule_live(old))
			list_move(&old->list, &over);
	list_add_tail(&rule->list, &fc->rules);
	spin_unlock_irq(&fc->lock);
	free_rules(&over);

	return 0;
}

static int message_clear(struct fault_c *fc, unsigned int argc, char **argv)
{
	sector_t start, count;
	LIST_HEAD(over);

	if (argc == 2 || (argc == 3 && parse_range(fc, argv + 1, &start, &count)))
		return -EINVAL;

	spin_lock_irq(&fc->lock);
	if (argc == 3)
		__clear_range(fc, start, count, false);
	else
		list_splice_init(&fc->rules, &over);
	spin_unlock_irq(&fc->lock);
	free_rules(&over);

	return 0;
}

/* 'dead', 'readonly' and 'nofua' */
static int message_mode(struct fault_c *fc, unsigned int argc, char **argv)
{
	blk_status_t status;

	if (parse_status(argv[1], &status))
		return -EINVAL;

	spin_lock_irq(&fc->lock);
	if (!strcmp(argv[0], "dead"))
		WRITE_ONCE(fc->dead, status);
	else if (!strcmp(argv[0], "nofua"))
		fc->nofua = status;
	else
		WRITE_ONCE(fc->readonly, status);
	spin_unlock_irq(&fc->lock);

	return 0;
}

static int message_hold(struct fault_c *fc, unsigned int argc, char **argv)
{
	sector_t start = 0, count = fc->ti->len;
	blk_status_t status = BLK_STS_OK;
	unsigned int dir;

	if (!strcmp(argv[1], "off")) {
		if (argc == 4 || (argc == 3 && parse_status(argv[2], &status)))
			return -EINVAL;
		release_held(fc, status);
		return 0;
	}

	if (argc == 3 || parse_dir(argv[1], &dir) ||
	    (argc == 4 && parse_range(fc, argv + 2, &start, &count)))
		return -EINVAL;

	spin_lock_irq(&fc->lock);
	fc->hold_dir = dir;
	fc->hold_start = start;
	fc->hold_count = count;
	spin_unlock_irq(&fc->lock);

	return 0;
}

static int message_delay(struct fault_c *fc, unsigned int argc, char **argv)
{
	unsigned int ms;

	if (kstrtouint(argv[1], 10, &ms) || ms > 3600 * MSEC_PER_SEC)
		return -EINVAL;

	spin_lock_irq(&fc->lock);
	fc->delay_ms = ms;
	spin_unlock_irq(&fc->lock);
	mod_delayed_work(fc->wq, &fc->end_delayed, 0);

	return 0;
}

static int message_powercut(struct fault_c *fc, unsigned int argc, char **argv)
{
	struct bio *bio;
	u64 seed = 0;

	if (!fc->cache || (argc == 2 && kstrtou64(argv[1], 10, &seed)))
		return -EINVAL;

	spin_lock_irq(&fc->lock);
	if (fc->cut) {
		spin_unlock_irq(&fc->lock);
		return -EBUSY;
	}
	fc->hold_dir = 0;
	while ((bio = bio_list_pop(&fc->held)))
		bio_list_add(&fc->to_cache, bio);
	WRITE_ONCE(fc->cut, true);
	queue_work(fc->wq, &fc->handle_cached);
	spin_unlock_irq(&fc->lock);

	/* From here on nothing enters the cache. */
	flush_work(&fc->handle_cached);

	return settle(fc, argc == 1, seed);
}

static ssize_t slow_show(struct device *dev, struct device_attribute *attr,
			 char *buf)
{
	struct fault_c *fc = container_of(attr, struct fault_c, slow);

	wait_for_completion_killable(&fc->read);

	return sysfs_emit(buf, "read\n");
}

static int message_reader(struct fault_c *fc, unsigned int argc, char **argv)
{
	struct mapped_device *md;
	unsigned int major, minor;
	char end;
	int r;

	if (argc == 2) {
		if (strcmp(argv[1], "off"))
			return -EINVAL;
		complete_all(&fc->read);
		return 0;
	}
	if (sscanf(argv[1], "%u:%u%c", &major, &minor, &end) != 2)
		return -EINVAL;

	md = dm_get_md(MKDEV(major, minor));
	if (!md)
		return -ENODEV;
	reinit_completion(&fc->read);
	r = sysfs_add_file_to_group(&disk_to_dev(dm_disk(md))->kobj,
				    &fc->slow.attr, argv[2]);
	dm_put(md);

	return r;
}

/* Where two threads race. Nothing depends on it. */
static unsigned int raced;

static void race(void)
{
	unsigned long end = jiffies + 2 * HZ;

	while (time_before(jiffies, end)) {
		raced++;
		cond_resched();
	}
}

static void do_race(struct work_struct *work)
{
	race();
}

static int message_race(struct fault_c *fc, unsigned int argc, char **argv)
{
	struct work_struct work;

	INIT_WORK_ONSTACK(&work, do_race);
	queue_work(fc->wq, &work);
	race();
	flush_work(&work);
	destroy_work_on_stack(&work);

	return 0;
}

/* Appends to the 'sz' bytes that are in 'result' already. */
static void emit_counters(struct fault_c *fc, char *result,
			  unsigned int maxlen, unsigned int sz)
{
	u64 counters[NR_COUNTERS];
	unsigned int held, i;

	spin_lock_irq(&fc->lock);
	memcpy(counters, fc->counters, sizeof(counters));
	held = bio_list_size(&fc->held);
	spin_unlock_irq(&fc->lock);

	for (i = 0; i < NR_COUNTERS; i++)
		DMEMIT("%s=%llu ", counter_names[i], counters[i]);
	DMEMIT("held=%u", held);
	if (fc->cache)
		DMEMIT(" cached=%lu", READ_ONCE(fc->nr_cached));
}

static int message_count(struct fault_c *fc, unsigned int argc, char **argv)
{
	/* Without an argument it only replies: see fault_message(). */
	if (argc == 1)
		return 1;

	if (strcmp(argv[1], "reset"))
		return -EINVAL;

	spin_lock_irq(&fc->lock);
	memset(fc->counters, 0, sizeof(fc->counters));
	spin_unlock_irq(&fc->lock);

	return 0;
}

static const struct {
	const char *name;
	unsigned int min_argc;
	unsigned int max_argc;
	int (*fn)(struct fault_c *fc, unsigned int argc, char **argv);
	const char *usage;
} fault_messages[] = {
	{ "add", 5, 9, message_add,
	  "<sector> <count> <dir> <status> [<times>|until_written] [torn] [after <n>]" },
	{ "clear", 1, 3, message_clear, "[<sector> <count>]" },
	{ "dead", 2, 2, message_mode, "<status>|off" },
	{ "readonly", 2, 2, message_mode, "<status>|off" },
	{ "nofua", 2, 2, message_mode, "<status>|off" },
	{ "hold", 2, 4, message_hold, "<dir> [<sector> <count>]|off [<status>]" },
	{ "delay", 2, 2, message_delay, "<ms>" },
	{ "powercut", 1, 2, message_powercut, "[<seed>], and a cache" },
	{ "reader", 2, 3, message_reader, "<major>:<minor> <group>|off" },
	{ "race", 1, 1, message_race, "" },
	{ "count", 1, 2, message_count, "[reset]" },
};

static int fault_message(struct dm_target *ti, unsigned int argc, char **argv,
			 char *result, unsigned int maxlen)
{
	struct fault_c *fc = ti->private;
	unsigned int i;
	int r = -EINVAL;

	for (i = 0; i < ARRAY_SIZE(fault_messages); i++) {
		if (strcmp(argv[0], fault_messages[i].name))
			continue;

		if (argc >= fault_messages[i].min_argc &&
		    argc <= fault_messages[i].max_argc)
			r = fault_messages[i].fn(fc, argc, argv);
		if (r == -EINVAL)
			DMERR("%s: expected: %s %s",
			      dm_table_device_name(ti->table), argv[0],
			      fault_messages[i].usage);
		if (r == 1)
			emit_counters(fc, result, maxlen, 0);
		return r;
	}

	DMERR("%s: unknown message %s", dm_table_device_name(ti->table),
	      argv[0]);

	return -EINVAL;
}

/*----------------------------------------------------------------*/

/* Construction, status and limits */

static int parse_block_size(const char *arg, unsigned int *size)
{
	if (kstrtouint(arg, 10, size) || *size < SECTOR_SIZE ||
	    !is_power_of_2(*size))
		return -EINVAL;

	return 0;
}

static int parse_options(struct fault_c *fc, unsigned int argc, char **argv)
{
	for (; argc; argc--, argv++) {
		unsigned int *size;

		if (!strcmp(argv[0], "read_only")) {
			fc->read_only = true;
			fc->readonly = BLK_STS_TARGET;
			continue;
		}

		if (!strcmp(argv[0], "cache")) {
			fc->cache = true;
			continue;
		}

		if (!strcmp(argv[0], "logical"))
			size = &fc->logical;
		else if (!strcmp(argv[0], "physical"))
			size = &fc->physical;
		else
			return -EINVAL;

		argc--;
		argv++;
		if (!argc || parse_block_size(argv[0], size))
			return -EINVAL;
	}

	return fc->logical > PAGE_SIZE ? -EINVAL : 0;
}

static int fault_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct fault_c *fc;
	u64 start;
	int r;

	if (argc < 2 || kstrtou64(argv[1], 10, &start)) {
		ti->error = "Expected <dev> <dev_start> [<option>...]";
		return -EINVAL;
	}

	fc = kzalloc(sizeof(*fc), GFP_KERNEL);
	if (!fc) {
		ti->error = "Cannot allocate context";
		return -ENOMEM;
	}

	fc->ti = ti;
	fc->start = start;
	spin_lock_init(&fc->lock);
	INIT_LIST_HEAD(&fc->rules);
	bio_list_init(&fc->held);
	bio_list_init(&fc->delayed);
	bio_list_init(&fc->to_cache);
	INIT_DELAYED_WORK(&fc->end_delayed, end_delayed);
	INIT_WORK(&fc->handle_cached, handle_cached);
	sysfs_attr_init(&fc->slow.attr);
	fc->slow.attr.name = "slow";
	fc->slow.attr.mode = 0444;
	fc->slow.show = slow_show;
	init_completion(&fc->read);
	mutex_init(&fc->cache_lock);
	xa_init(&fc->cached);

	r = parse_options(fc, argc - 2, argv + 2);
	if (r) {
		ti->error = "Invalid option";
		goto out_with_context;
	}

	fc->wq = alloc_workqueue("dm-fault", WQ_MEM_RECLAIM | WQ_UNBOUND, 2);
	if (!fc->wq) {
		ti->error = "Cannot allocate workqueue";
		r = -ENOMEM;
		goto out_with_context;
	}

	r = dm_get_device(ti, argv[0], dm_table_get_mode(ti->table), &fc->dev);
	if (r) {
		ti->error = "Device lookup failed";
		goto out_with_wq;
	}
	fc->block = bdev_logical_block_size(fc->dev->bdev);

	ti->num_flush_bios = 1;
	ti->num_discard_bios = 1;
	ti->num_write_zeroes_bios = 1;
	ti->flush_supported = true;
	ti->accounts_remapped_io = true;
	ti->per_io_data_size = sizeof(struct fault_io);
	ti->private = fc;

	return 0;

out_with_wq:
	destroy_workqueue(fc->wq);
out_with_context:
	kfree(fc);
	return r;
}

static void fault_dtr(struct dm_target *ti)
{
	struct fault_c *fc = ti->private;
	unsigned long index;
	void *data;

	cancel_delayed_work_sync(&fc->end_delayed);
	destroy_workqueue(fc->wq);
	/* Only what a suspend could not write down */
	xa_for_each(&fc->cached, index, data)
		drop_block(fc, index);
	xa_destroy(&fc->cached);
	mutex_destroy(&fc->cache_lock);
	free_rules(&fc->rules);
	dm_put_device(ti, fc->dev);
	kfree(fc);
}

static unsigned int count_rules(struct fault_c *fc)
{
	struct fault_rule *rule;
	unsigned int live = 0;

	spin_lock_irq(&fc->lock);
	list_for_each_entry(rule, &fc->rules, list)
		live += __rule_live(rule);
	spin_unlock_irq(&fc->lock);

	return live;
}

static void fault_status(struct dm_target *ti, status_type_t type,
			 unsigned int status_flags, char *result,
			 unsigned int maxlen)
{
	struct fault_c *fc = ti->private;
	unsigned int sz = 0;

	switch (type) {
	case STATUSTYPE_INFO:
		DMEMIT("%u %s %s ", count_rules(fc),
		       status_name(READ_ONCE(fc->dead)),
		       status_name(READ_ONCE(fc->readonly)));
		emit_counters(fc, result, maxlen, sz);
		break;

	case STATUSTYPE_TABLE:
		DMEMIT("%s %llu", fc->dev->name, (u64)fc->start);
		if (fc->read_only)
			DMEMIT(" read_only");
		if (fc->logical)
			DMEMIT(" logical %u", fc->logical);
		if (fc->physical)
			DMEMIT(" physical %u", fc->physical);
		if (fc->cache)
			DMEMIT(" cache");
		break;

	case STATUSTYPE_IMA:
		*result = '\0';
		break;
	}
}

static int fault_iterate_devices(struct dm_target *ti,
				 iterate_devices_callout_fn fn, void *data)
{
	struct fault_c *fc = ti->private;

	return fn(ti, fc->dev, fc->start, ti->len, data);
}

static void fault_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	struct fault_c *fc = ti->private;

	limits->logical_block_size = max(limits->logical_block_size,
					 fc->logical);
	if (fc->physical)
		limits->physical_block_size = fc->physical;
	limits->physical_block_size = max(limits->physical_block_size,
					  limits->logical_block_size);
	limits->io_min = max(limits->io_min, limits->physical_block_size);
}

static struct target_type fault_target = {
	.name = "fault",
	.version = {1, 1, 0},
	.features = DM_TARGET_NOWAIT,
	.module = THIS_MODULE,
	.ctr = fault_ctr,
	.dtr = fault_dtr,
	.map = fault_map,
	.end_io = fault_end_io,
	.presuspend = fault_presuspend,
	.postsuspend = fault_postsuspend,
	.message = fault_message,
	.status = fault_status,
	.iterate_devices = fault_iterate_devices,
	.io_hints = fault_io_hints,
};

static int __init dm_fault_init(void)
{
	return dm_register_target(&fault_target);
}

static void __exit dm_fault_exit(void)
{
	dm_unregister_target(&fault_target);
}

module_init(dm_fault_init);
module_exit(dm_fault_exit);

MODULE_DESCRIPTION(DM_NAME " target that fails on request, for tests");
MODULE_AUTHOR("The dm-remap authors");
MODULE_LICENSE("GPL");
