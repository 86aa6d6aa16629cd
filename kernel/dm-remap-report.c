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
 *	transient	of these, how many succeeded when they were tried again
 *	remapped	units mapped since the load
 *	copies		metadata copies that live on a stand-in
 *	identity	how main is known: tag, id or size
 *	seq		number of the last event
 *	uuid		of the set
 *	breaker		closed, or open: write errors are passed up
 *	moved		mapped units whose slot failed and that have another one
 *	gone		table blocks lost in both copies, see accept_stale
 *	memory		bytes that the target uses
 *
 * The same values are the files of a sysfs group remap-<start sector> on the
 * disk's device, from resume to suspend, and mode, unit, mapped and slots with
 * them.
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
static const char * const field_name[DMR_NR_FIELDS] = {
	[DMR_F_LOST] = "lost",
	[DMR_F_PENDING] = "pending",
	[DMR_F_BAD] = "bad",
	[DMR_F_FREE] = "free",
	[DMR_F_DOUBT] = "doubt",
	[DMR_F_READ_ERRORS] = "read_errors",
	[DMR_F_WRITE_ERRORS] = "write_errors",
	[DMR_F_TRANSIENT] = "transient",
	[DMR_F_REMAPPED] = "remapped",
	[DMR_F_COPIES] = "copies",
	[DMR_F_IDENTITY] = "identity",
	[DMR_F_SEQ] = "seq",
	[DMR_F_UUID] = "uuid",
	[DMR_F_BREAKER] = "breaker",
	[DMR_F_MOVED] = "moved",
	[DMR_F_GONE] = "gone",
	[DMR_F_MEMORY] = "memory",
	[DMR_F_MODE] = "mode",
	[DMR_F_UNIT] = "unit",
	[DMR_F_MAPPED] = "mapped",
	[DMR_F_SLOTS] = "slots",
};

static const char * const event_name[DMR_NR_EVENTS] = {
	"remapped", "pending", "spare_low", "spare_full", "slot_bad",
	"copies", "mode", "probe", "breaker",
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

static void send_events(struct remap *r, struct uevent *u)
{
	int what;

	for (what = 0; what < DMR_NR_EVENTS; what++) {
		struct dmr_event_note note;
		u64 seq = 0;

		spin_lock_irq(&r->event_lock);
		note = r->note[what];
		r->note[what].count = 0;
		if (note.count) {
			seq = r->event_seq + 1;
			WRITE_ONCE(r->event_seq, seq);
		}
		spin_unlock_irq(&r->event_lock);
		if (seq)
			send_uevent(r, u, what, &note, seq);
	}
}

static void do_events(struct work_struct *work)
{
	struct remap *r = container_of(to_delayed_work(work), struct remap,
				       event_work);
	/* dtr waits for this, and a device of this md may be suspended then. */
	unsigned int noio = memalloc_noio_save();
	struct uevent *u = kmalloc(sizeof(*u), GFP_KERNEL);

	WRITE_ONCE(r->last_event, jiffies);
	if (u) {
		send_events(r, u);
		dm_table_event(r->ti->table);
	} else {
		/* The notes wait for memory; no count is lost. */
		schedule_delayed_work(&r->event_work, HZ);
	}
	kfree(u);
	memalloc_noio_restore(noio);
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

/*----------------------------------------------------------------
 * Status
 *----------------------------------------------------------------
 */

/* What the target has allocated, in bytes. */
size_t report_memory(struct remap *r)
{
	return sizeof(*r) + sizeof(*r->super) + slots_memory(r) +
	       r->nr_mblocks * sizeof(*r->mblock) +
	       DMR_MAX_PENDING * sizeof(*r->pending) + 2 * PAGE_SIZE;
}

static u64 field_number(struct remap *r, enum dmr_field field)
{
	switch (field) {
	case DMR_F_LOST:
		return atomic_read(&r->nr_lost);
	case DMR_F_PENDING:
		return READ_ONCE(r->nr_pending);
	case DMR_F_BAD:
		return atomic_read(&r->nr_bad);
	case DMR_F_FREE:
		return atomic_read(&r->nr_free);
	case DMR_F_DOUBT:
		return atomic_read(&r->nr_doubt);
	case DMR_F_READ_ERRORS:
		return atomic64_read(&r->read_errors);
	case DMR_F_WRITE_ERRORS:
		return atomic64_read(&r->write_errors);
	case DMR_F_TRANSIENT:
		return atomic64_read(&r->transient);
	case DMR_F_REMAPPED:
		return atomic64_read(&r->remapped);
	case DMR_F_COPIES:
		return atomic_read(&r->nr_away);
	case DMR_F_SEQ:
		return READ_ONCE(r->event_seq);
	case DMR_F_MOVED:
		return atomic64_read(&r->moved);
	case DMR_F_GONE:
		return READ_ONCE(r->nr_gone);
	case DMR_F_MEMORY:
		return report_memory(r);
	case DMR_F_UNIT:
		return r->unit;
	case DMR_F_MAPPED:
		return atomic_read(&r->nr_mapped);
	case DMR_F_SLOTS:
		return r->nr_slots;
	default:
		return 0;
	}
}

/* Print a value as status and sysfs show it.  Returns its length. */
static int field_print(struct remap *r, enum dmr_field field, char *buf,
		       size_t size)
{
	enum dmr_identity identity;

	switch (field) {
	case DMR_F_IDENTITY:
		/* A load may be about to know better. */
		identity = data_race(r->identity);
		return scnprintf(buf, size, "%s", identity_name[identity]);
	case DMR_F_UUID:
		return scnprintf(buf, size, "%pUb", &r->uuid);
	case DMR_F_BREAKER:
		return scnprintf(buf, size, "%s",
				 READ_ONCE(r->breaker.open) ? "open" : "closed");
	case DMR_F_MODE:
		return scnprintf(buf, size, "%s", mode_name[READ_ONCE(r->mode)]);
	default:
		return scnprintf(buf, size, "%llu", field_number(r, field));
	}
}

static void status_info(struct remap *r, char *result, unsigned int maxlen)
{
	char value[UUID_STRING_LEN + 1];
	unsigned int sz = 0;
	int i;

	DMEMIT("%s %u %u/%u", mode_name[READ_ONCE(r->mode)], r->unit,
	       atomic_read(&r->nr_mapped), r->nr_slots);
	for (i = 0; i < DMR_NR_KEYS; i++) {
		field_print(r, i, value, sizeof(value));
		DMEMIT(" %s=%s", field_name[i], value);
	}
}

static void status_table(struct remap *r, char *result, unsigned int maxlen)
{
	/* The load that formats the set clears it, and may be doing so. */
	bool uuid = !data_race(r->format) || r->has_uuid;
	unsigned int sz = 0, opts;

	opts = 2 * (!!r->main_start + uuid + r->errors_medium + r->has_rate) +
	       r->accept_stale;
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
	if (r->has_rate)
		DMEMIT(" remap_rate %u", r->breaker.rate);
	if (r->accept_stale)
		DMEMIT(" accept_stale");
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
 * sysfs
 *
 * A group on the disk's own device, so that no object of ours has a life of its
 * own.  The files take no lock; removing the group waits for their readers.
 *
 * Somebody who looks through sysfs may hold its lock while he waits for memory,
 * and so for this device.  So the group is made by a work that resume queues, and
 * removed in presuspend: at both times the device's I/O goes on.
 *----------------------------------------------------------------
 */

static ssize_t file_show(struct device *dev, struct device_attribute *attr,
			 char *buf)
{
	struct dmr_file *file = container_of(attr, struct dmr_file, attr);
	int len = field_print(file->r, file->field, buf, PAGE_SIZE - 1);

	buf[len] = '\n';
	return len + 1;
}

static struct kobject *disk_kobj(struct remap *r)
{
	return &disk_to_dev(dm_disk(dm_table_get_md(r->ti->table)))->kobj;
}

/* A device without the group works as well. */
static void make_group(struct work_struct *work)
{
	struct remap *r = container_of(work, struct remap, group_work);
	/* presuspend waits for this, and another device may be suspended then. */
	unsigned int noio = memalloc_noio_save();
	int i, ret;

	for (i = 0; i < DMR_NR_FIELDS; i++) {
		struct dmr_file *file = &r->file[i];

		file->r = r;
		file->field = i;
		sysfs_attr_init(&file->attr.attr);
		file->attr.attr.name = field_name[i];
		file->attr.attr.mode = 0444;
		file->attr.show = file_show;
		r->attrs[i] = &file->attr.attr;
	}
	snprintf(r->group_name, sizeof(r->group_name), "remap-%llu",
		 (u64)r->ti->begin);
	r->group.name = r->group_name;
	r->group.attrs = r->attrs;
	ret = sysfs_create_group(disk_kobj(r), &r->group);
	if (ret)
		DMWARN("%s: no files in sysfs (%d)", dmr_name(r), ret);
	r->have_group = !ret;
	memalloc_noio_restore(noio);
}

/* For resume and presuspend_undo. */
void report_show(struct remap *r)
{
	schedule_work(&r->group_work);
}

/* For presuspend. */
void report_hide(struct remap *r)
{
	cancel_work_sync(&r->group_work);
	if (r->have_group)
		sysfs_remove_group(disk_kobj(r), &r->group);
	r->have_group = false;
}

void report_init(struct remap *r)
{
	spin_lock_init(&r->event_lock);
	INIT_DELAYED_WORK(&r->event_work, do_events);
	INIT_WORK(&r->group_work, make_group);
	r->last_event = jiffies - HZ;
}

/* Before anything is freed. */
void report_stop(struct remap *r)
{
	cancel_delayed_work_sync(&r->event_work);
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
	/* Behind the target's end there are none, however far. */
	from = min_t(u64, max_t(u64, from, r->ti->begin) - r->ti->begin,
		     r->ti->len);
	unit = dmr_unit_of(r, r->main_start + from);
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
			DMEMIT("%llu %llu %s\n", i, metadata_home(r, mb, copy),
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
	{ "remap", 3, message_remap, EXPECT_REMAP, "suspend the device first, again if it is" },
	{ "remap", 4, message_lost, EXPECT_REMAP, "suspend the device first, again if it is" },
};

/*
 * A message that cannot be carried out is logged: its caller sees a number.  The
 * words may be gone by then: DM has the result where they stood.
 */
int report_message(struct dm_target *ti, unsigned int argc, char **argv,
		   char *result, unsigned int maxlen)
{
	const char *expected = "list, pending, breaker, rename, scrub or remap";
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
