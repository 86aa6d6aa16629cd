// SPDX-License-Identifier: GPL-2.0-only
/*
 * The messages: a row each, words in and pages out.
 *
 * A row has the name, the number of words and the function; what a message does to
 * a set is in dm-remap-manual.c and elsewhere.  A reply ends with "end", or with
 * "next <n>" where it is continued by the same message from there on.
 *
 * Context: process, under the SRCU lock of the device's tables: a reload waits for
 * it, so a message takes ten seconds and a few commands at most.
 */
#include "dm-remap.h"

#define LINE_SIZE 96	/* longer than any line of a reply */

static int parse_page(char **argv, u64 *from, unsigned int *max)
{
	if (kstrtou64(argv[1], 10, from) || kstrtouint(argv[2], 10, max) || !*max)
		return -EINVAL;
	return 0;
}

/* list <from slot> <max> */
static int message_list(struct remap *r, char **argv, char *result,
			unsigned int maxlen)
{
	static const char * const name[] = {
		[DMR_MAPPED] = "mapped", [DMR_LOST] = "lost", [DMR_BAD] = "bad",
		/* Lost until its commit is done. */
		[DMR_FOUND] = "lost", [DMR_SETTLING] = "lost",
		[DMR_LEAVING] = "mapped",
		[DMR_DOUBT] = "doubt",
	};
	unsigned int max, sz = 0;
	u64 slot;

	if (parse_page(argv, &slot, &max))
		return -EINVAL;
	/*
	 * A load fills the slots in place: there is none to show before its end.
	 * Pairs with smp_store_release() in remap_preresume().
	 */
	if (smp_load_acquire(&r->mode) == DMR_MODE_INIT)
		slot = r->nr_slots;
	for (; slot < r->nr_slots; slot++) {
		/* Before the unit.  Pairs as in dmr_slot_state(). */
		u32 info = smp_load_acquire(&r->slot[slot].info);
		unsigned int state = dmr_state(info);
		sector_t sector;

		cond_resched();
		if (state >= ARRAY_SIZE(name) || !name[state])
			continue;
		if (!max-- || maxlen - sz < 2 * LINE_SIZE) {
			DMEMIT("next %llu\n", slot);
			return 1;
		}
		if (state != DMR_BAD &&
		    event_sector(r, r->slot[slot].unit, &sector))
			DMEMIT("%llu ", (u64)sector);
		else
			DMEMIT("- ");
		DMEMIT("%u %llu %s %u\n", 1u << r->unit_shift, slot, name[state],
		       info >> 8);
	}
	DMEMIT("end\n");
	return 1;
}

/* The first pending unit >= unit, under the lock that guards them. */
static u64 next_pending(struct remap *r, u64 unit)
{
	u64 found = U64_MAX;
	unsigned int i;

	spin_lock_irq(&r->lock);
	for (i = 0; i < r->nr_pending && found == U64_MAX; i++)
		if (r->pending[i] >= unit)
			found = r->pending[i];
	spin_unlock_irq(&r->lock);
	return found;
}

/* pending <from sector> <max> */
static int message_pending(struct remap *r, char **argv, char *result,
			   unsigned int maxlen)
{
	unsigned int max, sz = 0;
	u64 from, unit;
	sector_t sector;

	if (parse_page(argv, &from, &max))
		return -EINVAL;
	/* Behind the target's end there are none, however far. */
	from = min_t(u64, max_t(u64, from, r->ti->begin) - r->ti->begin,
		     r->ti->len);
	unit = dmr_unit_of(r, r->main_start + from);
	while ((unit = next_pending(r, unit)) != U64_MAX) {
		if (!event_sector(r, unit, &sector))
			break;
		if (!max-- || maxlen - sz < 2 * LINE_SIZE) {
			DMEMIT("next %llu\n", (u64)sector);
			return 1;
		}
		DMEMIT("%llu %u\n", (u64)sector, 1u << r->unit_shift);
		unit++;
	}
	DMEMIT("end\n");
	return 1;
}

/* breaker open|close */
static int message_breaker(struct remap *r, char **argv, char *result,
			   unsigned int maxlen)
{
	bool open = !strcasecmp(argv[1], "open");

	if (!open && strcasecmp(argv[1], "close"))
		return -EINVAL;
	repair_set_breaker(r, open);
	return 0;
}

/* rename <name> */
static int message_rename(struct remap *r, char **argv, char *result,
			  unsigned int maxlen)
{
	return manual_rename(r, argv[1]);
}

static int remap_by_hand(struct remap *r, char **argv, bool lost, char *result,
			 unsigned int maxlen)
{
	u64 sector, count, first, nr, done = 0;
	const char *stop = NULL;
	unsigned int sz = 0;
	int ret;

	if (kstrtou64(argv[1], 10, &sector) || kstrtou64(argv[2], 10, &count))
		return -EINVAL;
	sector -= r->ti->begin;
	if (sector >= r->ti->len || !count || count > r->ti->len - sector ||
	    (sector | count) & ((1u << r->unit_shift) - 1))
		return -EINVAL;
	first = dmr_unit_of(r, r->main_start + sector);
	nr = dmr_unit_of(r, count);
	ret = manual_remap(r, first, nr, lost, &done, &stop);
	if (ret)
		return ret;
	DMEMIT("done %llu of %llu", done, nr);
	if (stop)
		DMEMIT(" %s %llu", stop,
		       r->ti->begin + sector + dmr_sector_of(r, done));
	DMEMIT("\n");
	return 1;
}

/* remap <sector> <count> */
static int message_remap(struct remap *r, char **argv, char *result,
			 unsigned int maxlen)
{
	return remap_by_hand(r, argv, false, result, maxlen);
}

/* remap <sector> <count> lost */
static int message_lost(struct remap *r, char **argv, char *result,
			unsigned int maxlen)
{
	if (strcasecmp(argv[3], "lost"))
		return -EINVAL;
	return remap_by_hand(r, argv, true, result, maxlen);
}

/* stop */
static int message_stop(struct remap *r, char **argv, char *result,
			unsigned int maxlen)
{
	unsigned int tags, sz = 0;
	u64 epoch;
	int ret = manual_stop(r, &epoch, &tags);

	if (ret)
		return ret;
	DMEMIT("epoch %llu tag %u\n", epoch, tags);
	return 1;
}

/* retire */
static int message_retire(struct remap *r, char **argv, char *result,
			  unsigned int maxlen)
{
	unsigned int sz = 0;
	u64 epoch;
	int ret = manual_retire(r, &epoch);

	if (ret)
		return ret;
	DMEMIT("retired epoch %llu\n", epoch);
	return 1;
}

static const char * const scrubbed_name[] = {
	[DMR_SCRUB_WRITTEN] = "written", [DMR_SCRUB_FAILED] = "failed",
};

#define SCRUB_TIME (10 * HZ)	/* then the reply says where to go on */

/*
 * scrub <from copy> <max>
 *
 * Copy A of every metadata block, then copy B: in the order in which they lie on
 * the spare, more or less.
 */
static int message_scrub(struct remap *r, char **argv, char *result,
			 unsigned int maxlen)
{
	unsigned long deadline = jiffies + SCRUB_TIME;
	unsigned int max, sz = 0;
	int ret;
	u64 i;

	if (parse_page(argv, &i, &max))
		return -EINVAL;
	ret = manual_refusal(r);
	if (ret)
		return ret;
	for (; i < 2 * (u64)r->nr_mblocks; i++) {
		int copy = i >= r->nr_mblocks;
		u32 mb = i - copy * r->nr_mblocks;

		ret = -EAGAIN;
		if (max && maxlen - sz >= 2 * LINE_SIZE &&
		    time_before(jiffies, deadline))
			ret = manual_scrub(r, mb, copy);
		/* What was done is told first: the next message meets the error. */
		if (ret == -EAGAIN || (ret < 0 && sz)) {
			DMEMIT("next %llu\n", i);
			return 1;
		}
		if (ret < 0)
			return ret;
		if (ret != DMR_SCRUB_GOOD)
			DMEMIT("%llu %llu %s\n", i, area_home(r, mb, copy),
			       scrubbed_name[ret]);
		max--;
	}
	DMEMIT("end\n");
	return 1;
}

/*
 * Of a word that may be anything the log has so much, escaped: it shall say what
 * was expected, in one line.
 */
#define WORD_SIZE 32

#define NEVER_STARTED "the set was never started: resume the device"
#define NOT_QUIET "suspend the device first, again if it is"
#define EXPECT_REMAP "remap <sector> <count> [lost], whole blocks of this target"

static const struct message {
	const char *name;
	unsigned int argc;
	int (*fn)(struct remap *r, char **argv, char *result,
		  unsigned int maxlen);
	const char *expected;
	const char *busy;	/* what -EBUSY means */
} messages[] = {
	{ "list", 3, message_list, "list <from slot> <max>" },
	{ "pending", 3, message_pending, "pending <from sector> <max>" },
	{ "breaker", 2, message_breaker, "breaker open|close" },
	{ "rename", 2, message_rename,
	  "rename <name>, 1 to 127 printable ASCII characters without '/'",
	  NEVER_STARTED },
	{ "scrub", 3, message_scrub, "scrub <from copy> <max>", NEVER_STARTED },
	{ "remap", 3, message_remap, EXPECT_REMAP, NOT_QUIET },
	{ "remap", 4, message_lost, EXPECT_REMAP, NOT_QUIET },
	{ "stop", 1, message_stop, "stop", NOT_QUIET },
	{ "retire", 1, message_retire, "retire", NOT_QUIET },
};

/*
 * A message that cannot be carried out is logged: its caller sees a number.  The
 * words may be gone by then: DM has the result where they stood.
 */
int message_handle(struct dm_target *ti, unsigned int argc, char **argv,
		   char *result, unsigned int maxlen)
{
	const char *expected = "list, pending, breaker, rename, scrub, remap, stop or retire";
	const char *name = NULL, *busy = NULL;
	struct remap *r = ti->private;
	int ret = -EINVAL;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(messages); i++) {
		const struct message *m = &messages[i];

		if (strcasecmp(argv[0], m->name))
			continue;
		expected = m->expected;
		name = m->name;
		busy = m->busy;
		if (argc == m->argc) {
			ret = m->fn(r, argv, result, maxlen);
			break;
		}
	}
	if (ret == -EINVAL)
		DMWARN_LIMIT("%s: message %*pE: expected: %s", dmr_name(r),
			     (int)strnlen(argv[0], WORD_SIZE), argv[0],
			     expected);
	else if (ret == -EBUSY)
		DMWARN_LIMIT("%s: message %s: %s", dmr_name(r), name, busy);
	else if (ret == -EROFS)
		DMWARN_LIMIT("%s: message %s: the set is in mode ro", dmr_name(r),
			     name);
	return ret;
}
