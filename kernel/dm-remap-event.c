// SPDX-License-Identifier: GPL-2.0-only
/*
 * What user space is told without asking.
 *
 * dm_table_event() and a KOBJ_CHANGE uevent for each kind of change, together at
 * most once a second.  They are sent by a work of its own on a workqueue that
 * nothing waits for while memory is reclaimed, so that the error path never waits
 * for user space.  r->event_lock guards the notes.
 *
 * Context: event_report() in any, and it never waits; the rest in process context.
 */
#include <linux/kobject.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "dm-remap.h"

static const char * const event_name[DMR_NR_EVENTS] = {
	"remapped", "pending", "spare_low", "spare_full", "slot_bad",
	"copies", "mode", "probe", "breaker",
};

#define UEVENT_VARS	8
#define UEVENT_SIZE	192	/* DM_NAME and DM_UUID have 128 bytes at most */

struct uevent {
	char text[UEVENT_VARS][UEVENT_SIZE];
	char name[DM_NAME_LEN];
	char uuid[DM_UUID_LEN];
};

/* A sector of main as a sector of the mapped device; false: not in it. */
bool event_sector(struct remap *r, u64 unit, sector_t *sector)
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
	if (note->unit != U64_MAX && event_sector(r, note->unit, &sector))
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
 * event_report() - note a change of state, to be told within a second
 * @r: the target
 * @what: kind of change
 * @unit: where, U64_MAX: nowhere in particular
 * @count: how many units
 *
 * Any context.  Never waits.
 */
void event_report(struct remap *r, enum dmr_event what, u64 unit, u64 count)
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

void event_init(struct remap *r)
{
	spin_lock_init(&r->event_lock);
	INIT_DELAYED_WORK(&r->event_work, do_events);
	r->last_event = jiffies - HZ;
}

/* Before anything is freed. */
void event_stop(struct remap *r)
{
	cancel_delayed_work_sync(&r->event_work);
}
