// SPDX-License-Identifier: GPL-2.0-only
/*
 * What user space is told without asking.
 *
 * dm_table_event() and a KOBJ_CHANGE uevent for each kind of change, together at
 * most once a second.  They are sent by a work of its own on a workqueue that
 * nothing waits for while memory is reclaimed, so that the error path never waits
 * for user space.  r->event_lock guards the notes.
 *
 * What status calls main=failing and spare=failing is a bit for each kind of
 * command, reads, writes and flushes.  It is what the last one that said something
 * of the disk as a whole has said:
 *
 *		set				cleared
 *  main reads	a probe has read nothing	a read or a write
 *  main writes	a probe has written nothing;	a write
 *		256 pieces unproven
 *  spare reads	no metadata block is readable	a read, a metadata block, a write
 *  spare writes	no metadata can be written	a write, a metadata block
 *  reads, writes	TIMEOUT, TRANSPORT, OFFLINE, and IOERR where errors medium
 *		says that it is no bad block
 *  flushes	a flush				a flush
 *
 * An error that may be a bad block says nothing before it is probed.  A flush has
 * no block: each that fails counts.  A write in the cache does not speak for the
 * flush that follows, nor a read for writes.  The bits are set and cleared before
 * the bio ends that has said so, and order nothing else.
 *
 * Context: event_report(), event_fails() and event_works() in any, and they never
 * wait; the rest in process context.
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

/* As the log has them. */
static const char * const leg_name[] = { "main", "the spare" };
static const char * const kind_name[] = { "reads", "writes", "flushes" };

/**
 * event_fails() - a disk as a whole does not do what it is asked for
 * @r: the target
 * @leg: the disk
 * @kind: what it was asked for
 * @unit: where, U64_MAX: nowhere in particular
 *
 * Any context.  Told once until event_works() takes it back.
 *
 * Return: whether that is news.
 */
bool event_fails(struct remap *r, enum dmr_leg leg, enum dmr_kind kind,
		 u64 unit)
{
	int bit = dmr_look_fails(leg, kind);

	if (atomic_fetch_or(bit, &r->look) & bit)
		return false;
	DMERR_LIMIT("%s: %s of %s fail", dmr_name(r), kind_name[kind],
		    leg_name[leg]);
	event_report(r, DMR_EV_PROBE, unit, 1);
	return true;
}

/**
 * event_works() - a disk has done what it was asked for
 * @r: the target
 * @leg: the disk
 * @kind: what it was; a disk that takes writes is there for reads, too
 *
 * Any context, and cheap while nothing fails.
 */
void event_works(struct remap *r, enum dmr_leg leg, enum dmr_kind kind)
{
	int bit = dmr_look_fails(leg, kind);

	if (!dmr_leg_fails(r, leg))
		return;
	if (kind == DMR_WRITES)
		event_works(r, leg, DMR_READS);
	if (!(atomic_fetch_andnot(bit, &r->look) & bit))
		return;
	DMWARN_LIMIT("%s: %s of %s succeed again", dmr_name(r),
		     kind_name[kind], leg_name[leg]);
	event_report(r, DMR_EV_PROBE, U64_MAX, 1);
}

/**
 * event_flushed() - a flush has ended
 * @r: the target
 * @leg: of which disk
 * @status: how
 *
 * Any context.
 */
void event_flushed(struct remap *r, enum dmr_leg leg, blk_status_t status)
{
	if (!status) {
		event_works(r, leg, DMR_FLUSHES);
	} else if (status != BLK_STS_NOTSUPP && status != BLK_STS_AGAIN) {
		atomic64_inc(&r->flush_errors);
		event_fails(r, leg, DMR_FLUSHES, U64_MAX);
	}
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
