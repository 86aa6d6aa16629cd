// SPDX-License-Identifier: GPL-2.0-only
/*
 * What user space reads: the status line, the table line, and files in sysfs.
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
 *	flush_errors	flushes that failed, of main and of the spare
 *	main		ok, or failing: as the last probe or command said, see
 *			dm-remap-event.c
 *	spare		the same
 *	epoch		number of the set's epoch
 *	tag		copies of main's tag that say so, 0 to 5
 *	errors		confirm or medium: what counts, whoever chose it
 *	remap_rate	pieces a minute, the same
 *
 * The same values are the files of a sysfs group remap-<start sector> on the
 * disk's device, from resume to suspend, and mode, unit, mapped and slots with
 * them.
 *
 * Table: a line that makes the same device again, with the words that were given.
 *
 * Context: process.  None of it takes a lock or does I/O, so that it answers
 * whatever the disks do.
 */
#include <linux/kobject.h>
#include <linux/sched/mm.h>

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
	[DMR_F_FLUSH_ERRORS] = "flush_errors",
	[DMR_F_MAIN] = "main",
	[DMR_F_SPARE] = "spare",
	[DMR_F_EPOCH] = "epoch",
	[DMR_F_TAG] = "tag",
	[DMR_F_ERRORS] = "errors",
	[DMR_F_RATE] = "remap_rate",
	[DMR_F_MODE] = "mode",
	[DMR_F_UNIT] = "unit",
	[DMR_F_MAPPED] = "mapped",
	[DMR_F_SLOTS] = "slots",
};

/*----------------------------------------------------------------
 * Status
 *----------------------------------------------------------------
 */

/* What the target has allocated, in bytes. */
size_t status_memory(struct remap *r)
{
	return sizeof(*r) + sizeof(*r->super) +
	       sizeof(*r->tag) + slots_memory(r) +
	       r->nr_mblocks * sizeof(*r->mblock) +
	       DMR_MAX_PENDING * sizeof(*r->pending) + 3 * PAGE_SIZE;
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
		return status_memory(r);
	case DMR_F_FLUSH_ERRORS:
		return atomic64_read(&r->flush_errors);
	case DMR_F_EPOCH:
		/* The commit work may be about to begin one. */
		return dmr_get64(data_race(r->super->epoch.number));
	case DMR_F_TAG:
		return READ_ONCE(r->nr_tags);
	case DMR_F_RATE:
		return READ_ONCE(r->breaker.rate);
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

static const char *errors_name(struct remap *r)
{
	return READ_ONCE(r->errors_medium) ? "medium" : "confirm";
}

static const char *leg_state(struct remap *r, enum dmr_leg leg)
{
	return dmr_leg_fails(r, leg) ? "failing" : "ok";
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
	case DMR_F_MAIN:
		return scnprintf(buf, size, "%s", leg_state(r, DMR_MAIN));
	case DMR_F_SPARE:
		return scnprintf(buf, size, "%s", leg_state(r, DMR_SPARE));
	case DMR_F_ERRORS:
		return scnprintf(buf, size, "%s", errors_name(r));
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

	opts = 2 * (!!r->main_start + uuid + r->has_errors + r->has_rate) +
	       r->accept_stale;
	DMEMIT("%s %s %llu %llu", r->main->name, r->spare->name,
	       (u64)r->spare_start, (u64)r->spare_len);
	if (opts)
		DMEMIT(" %u", opts);
	if (r->main_start)
		DMEMIT(" main_start %llu", (u64)r->main_start);
	if (uuid)
		DMEMIT(" uuid %pUb", &r->uuid);
	if (r->has_errors)
		DMEMIT(" errors %s", errors_name(r));
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
void status_print(struct dm_target *ti, status_type_t type,
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
 * and so for a device that is suspended: this one, or one that the same caller has
 * suspended before.  So nobody but dtr waits for sysfs.  Resume and presuspend only
 * say whether the group is wanted, and a queue that all targets share makes and
 * removes groups in that order: a table's group is gone before the one of the table
 * that replaces it, which has the same name, is made.
 *----------------------------------------------------------------
 */

static struct workqueue_struct *group_wq;

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
static void make_group(struct remap *r)
{
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
}

static void do_group(struct work_struct *work)
{
	struct remap *r = container_of(work, struct remap, group_work);
	/* dtr waits for this, and another device may be suspended then. */
	unsigned int noio = memalloc_noio_save();
	bool want = READ_ONCE(r->want_group);

	if (want && !r->have_group) {
		make_group(r);
	} else if (!want && r->have_group) {
		sysfs_remove_group(disk_kobj(r), &r->group);
		r->have_group = false;
	}
	memalloc_noio_restore(noio);
}

static void want_group(struct remap *r, bool want)
{
	WRITE_ONCE(r->want_group, want);
	queue_work(group_wq, &r->group_work);
}

/* For resume and presuspend_undo. */
void status_show(struct remap *r)
{
	r->had_group = true;
	want_group(r, true);
}

/* For presuspend. */
void status_hide(struct remap *r)
{
	want_group(r, false);
}

void status_init(struct remap *r)
{
	INIT_WORK(&r->group_work, do_group);
}

/* For dtr, before anything is freed. */
void status_stop(struct remap *r)
{
	/* A table that never ran need not wait for others in the queue. */
	if (!r->had_group)
		return;
	want_group(r, false);
	flush_work(&r->group_work);
}

int __init status_module_init(void)
{
	/* Ordered, and not for reclaim: it may wait for memory. */
	group_wq = alloc_ordered_workqueue("remap-sysfs", 0);
	return group_wq ? 0 : -ENOMEM;
}

/* Also for a module_init() that fails. */
void status_module_exit(void)
{
	destroy_workqueue(group_wq);
}
