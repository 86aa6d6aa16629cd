// SPDX-License-Identifier: GPL-2.0-only
/*
 * What user space sees: status, table, messages and events.
 *
 * Status
 *	<init|rw|ro> <unit> <mapped>/<slots> <key>=<value>...
 *
 * unit is in bytes.  Keys are only ever appended:
 *	lost		units whose content was never recovered, among mapped
 *	pending		units that main could not read
 *	bad		slots that refused their data
 *	free		free slots
 *	doubt		units whose commit half failed; they fail until a new load
 *	read_errors	reads that failed and were handled here
 *	write_errors	writes that failed and were handled here
 *	transient	of these, how many main completed when they were tried again
 *	remapped	units mapped since the load
 *	copies		metadata copies that live on a stand-in
 *	identity	how main is known: tag, id or size
 *	seq		number of the last event
 *	uuid		of the set
 *
 * Table: a line that makes the same device again.
 *
 * Events: dm_table_event() and a KOBJ_CHANGE uevent for each kind of change,
 * together at most once a second.  They are sent by a work of its own on a
 * workqueue that nothing waits for while memory is reclaimed, so that the error
 * path never waits for user space.  r->event_lock guards the notes.
 */
#include <linux/kobject.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "dm-remap.h"

static const char * const mode_name[] = { "init", "rw", "ro" };
static const char * const identity_name[] = { "size", "id", "tag" };
static const char * const event_name[DMR_NR_EVENTS] = {
	"remapped", "pending", "spare_low", "spare_full", "slot_bad",
	"copies", "mode", "probe",
};

/*----------------------------------------------------------------
 * Events
 *----------------------------------------------------------------
 */

#define UEVENT_VARS	8
#define UEVENT_SIZE	192	/* DM_NAME and DM_UUID have 128 bytes at most */

struct uevent {
	char text[UEVENT_VARS][UEVENT_SIZE];
	char name[DM_NAME_LEN];
	char uuid[DM_UUID_LEN];
};

/* A sector of main as a sector of the mapped device; false: not in it. */
static bool mapped_sector(struct remap *r, u64 unit, sector_t *sector)
{
	sector_t s = dmr_sector_of(r, unit);

	if (s < r->main_start || s - r->main_start >= r->ti->len)
		return false;
	*sector = r->ti->begin + (s - r->main_start);
	return true;
}

static void send_uevent(struct remap *r, struct uevent *u, enum dmr_event what,
			const struct dmr_event_note *note, u64 seq)
{
	struct mapped_device *md = dm_table_get_md(r->ti->table);
	char *envp[UEVENT_VARS + 1];
	sector_t sector;
	int i, n = 0;

	if (dm_copy_name_and_uuid(md, u->name, u->uuid))
		return;
	snprintf(u->text[n++], UEVENT_SIZE, "DM_NAME=%s", u->name);
	snprintf(u->text[n++], UEVENT_SIZE, "DM_UUID=%s", u->uuid);
	snprintf(u->text[n++], UEVENT_SIZE, "DM_REMAP_EVENT=%s",
		 event_name[what]);
	snprintf(u->text[n++], UEVENT_SIZE, "DM_REMAP_TARGET=%llu",
		 (u64)r->ti->begin);
	snprintf(u->text[n++], UEVENT_SIZE, "DM_REMAP_COUNT=%llu", note->count);
	snprintf(u->text[n++], UEVENT_SIZE, "DM_REMAP_SEQ=%llu", seq);
	if (note->unit != U64_MAX && mapped_sector(r, note->unit, &sector))
		snprintf(u->text[n++], UEVENT_SIZE, "DM_REMAP_SECTOR=%llu",
			 (u64)sector);
	for (i = 0; i < n; i++)
		envp[i] = u->text[i];
	envp[n] = NULL;
	kobject_uevent_env(&disk_to_dev(dm_disk(md))->kobj, KOBJ_CHANGE, envp);
}

static void do_events(struct work_struct *work)
{
	struct remap *r = container_of(to_delayed_work(work), struct remap,
				       event_work);
	/* dtr waits for this, and a device of this md may be suspended then. */
	unsigned int noio = memalloc_noio_save();
	struct uevent *u = kmalloc(sizeof(*u), GFP_KERNEL);
	int what;

	for (what = 0; what < DMR_NR_EVENTS; what++) {
		struct dmr_event_note note;
		u64 seq = 0;

		spin_lock_irq(&r->event_lock);
		note = r->note[what];
		r->note[what].count = 0;
		if (note.count)
			seq = ++r->event_seq;
		spin_unlock_irq(&r->event_lock);
		/* Without memory only the uevent is lost, the count is not. */
		if (seq && u)
			send_uevent(r, u, what, &note, seq);
	}
	kfree(u);
	memalloc_noio_restore(noio);
	r->last_event = jiffies;
	dm_table_event(r->ti->table);
}

/**
 * report_event() - note a change of state, to be told within a second
 * @r: the target
 * @what: kind of change
 * @unit: where, U64_MAX: nowhere in particular
 * @count: how many units
 *
 * Any context.  Never waits.
 */
void report_event(struct remap *r, enum dmr_event what, u64 unit, u64 count)
{
	unsigned long flags, next = READ_ONCE(r->last_event) + HZ;
	unsigned long delay = time_after(next, jiffies) ? next - jiffies : 0;

	spin_lock_irqsave(&r->event_lock, flags);
	if (!r->note[what].count)
		r->note[what].unit = unit;
	r->note[what].count += count;
	spin_unlock_irqrestore(&r->event_lock, flags);
	schedule_delayed_work(&r->event_work, min_t(unsigned long, delay, HZ));
}

void report_init(struct remap *r)
{
	spin_lock_init(&r->event_lock);
	INIT_DELAYED_WORK(&r->event_work, do_events);
	r->last_event = jiffies - HZ;
}

/* Before anything is freed. */
void report_stop(struct remap *r)
{
	cancel_delayed_work_sync(&r->event_work);
}

/*----------------------------------------------------------------
 * Status
 *----------------------------------------------------------------
 */

static void status_info(struct remap *r, char *result, unsigned int maxlen)
{
	unsigned int sz = 0;

	DMEMIT("%s %u %u/%u", mode_name[READ_ONCE(r->mode)], r->unit,
	       atomic_read(&r->nr_mapped), r->nr_slots);
	DMEMIT(" lost=%u pending=%u bad=%u free=%u doubt=%u",
	       atomic_read(&r->nr_lost), READ_ONCE(r->nr_pending),
	       atomic_read(&r->nr_bad), atomic_read(&r->nr_free),
	       atomic_read(&r->nr_doubt));
	DMEMIT(" read_errors=%llu write_errors=%llu transient=%llu remapped=%llu",
	       (u64)atomic64_read(&r->read_errors),
	       (u64)atomic64_read(&r->write_errors),
	       (u64)atomic64_read(&r->transient),
	       (u64)atomic64_read(&r->remapped));
	DMEMIT(" copies=%u identity=%s seq=%llu uuid=%pUb",
	       atomic_read(&r->nr_away), identity_name[r->identity],
	       READ_ONCE(r->event_seq), &r->uuid);
}

static void status_table(struct remap *r, char *result, unsigned int maxlen)
{
	bool uuid = !r->format || r->has_uuid;
	unsigned int sz = 0, opts;

	opts = 2 * (!!r->main_start + uuid + r->errors_medium);
	DMEMIT("%s %s %llu %llu", r->main->name, r->spare->name,
	       (u64)r->spare_start, (u64)r->spare_len);
	if (opts)
		DMEMIT(" %u", opts);
	if (r->main_start)
		DMEMIT(" main_start %llu", (u64)r->main_start);
	if (uuid)
		DMEMIT(" uuid %pUb", &r->uuid);
	if (r->errors_medium)
		DMEMIT(" errors medium");
}

static void status_ima(struct dm_target *ti, struct remap *r, char *result,
		       unsigned int maxlen)
{
	unsigned int sz = 0;

	DMEMIT_TARGET_NAME_VERSION(ti->type);
	DMEMIT(",main_device_name=%s,spare_device_name=%s",
	       r->main->name, r->spare->name);
	DMEMIT(",main_start=%llu,spare_start=%llu,spare_len=%llu,uuid=%pUb;",
	       (u64)r->main_start, (u64)r->spare_start, (u64)r->spare_len,
	       &r->uuid);
}

/* Takes no lock and does no I/O, so that it answers whatever the disks do. */
void report_status(struct dm_target *ti, status_type_t type,
		   unsigned int flags, char *result, unsigned int maxlen)
{
	struct remap *r = ti->private;

	switch (type) {
	case STATUSTYPE_INFO:
		status_info(r, result, maxlen);
		break;
	case STATUSTYPE_TABLE:
		status_table(r, result, maxlen);
		break;
	case STATUSTYPE_IMA:
		status_ima(ti, r, result, maxlen);
		break;
	}
}

/*----------------------------------------------------------------
 * Messages
 *----------------------------------------------------------------
 */

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
	};
	unsigned int max, sz = 0;
	u64 slot;

	if (parse_page(argv, &slot, &max))
		return -EINVAL;
	for (; slot < r->nr_slots; slot++) {
		u32 info = READ_ONCE(r->slot[slot].info);
		unsigned int state = dmr_state(info);
		sector_t sector;

		cond_resched();
		if (state != DMR_MAPPED && state != DMR_LOST && state != DMR_BAD)
			continue;
		if (!max-- || maxlen - sz < 2 * LINE_SIZE) {
			DMEMIT("next %llu\n", slot);
			return 1;
		}
		if (state != DMR_BAD &&
		    mapped_sector(r, r->slot[slot].unit, &sector))
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
	from = max_t(u64, from, r->ti->begin) - r->ti->begin + r->main_start;
	unit = dmr_unit_of(r, from);
	while ((unit = next_pending(r, unit)) != U64_MAX) {
		if (!mapped_sector(r, unit, &sector))
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

static const struct message {
	const char *name;
	unsigned int argc;
	int (*fn)(struct remap *r, char **argv, char *result,
		  unsigned int maxlen);
	const char *expected;
} messages[] = {
	{ "list", 3, message_list, "list <from slot> <max>" },
	{ "pending", 3, message_pending, "pending <from sector> <max>" },
};

int report_message(struct dm_target *ti, unsigned int argc, char **argv,
		   char *result, unsigned int maxlen)
{
	struct remap *r = ti->private;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(messages); i++) {
		const struct message *m = &messages[i];
		int ret = -EINVAL;

		if (strcasecmp(argv[0], m->name))
			continue;
		if (argc == m->argc)
			ret = m->fn(r, argv, result, maxlen);
		if (ret == -EINVAL)
			DMWARN_LIMIT("%s: message %s: expected: %s",
				     dmr_name(r), m->name, m->expected);
		return ret;
	}
	DMWARN_LIMIT("%s: unknown message %s: expected list or pending",
		     dmr_name(r), argv[0]);
	return -EINVAL;
}
