/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the loader's sources call of others: there is no bio to repair, and nobody to
 * tell anything.  Included behind dm-remap.h by the one file of a program that has it.
 */
#ifndef OTHERS_H
#define OTHERS_H

void repair_complete(struct remap *r, struct dmr_io *io, blk_status_t status)
{
	(void)r; (void)io; (void)status;
}

void repair_forget(struct remap *r, u64 first, u64 last)
{
	(void)r; (void)first; (void)last;
}

u32 repair_next_lost(struct remap *r, struct dmr_io *io, unsigned int state, u64 *unit)
{
	(void)r; (void)io; (void)state; (void)unit;
	return DMR_NO_SLOT;
}

void event_report(struct remap *r, enum dmr_event what, u64 unit, u64 count)
{
	(void)r; (void)what; (void)unit; (void)count;
}

bool event_fails(struct remap *r, enum dmr_leg leg, enum dmr_kind kind, u64 unit)
{
	(void)r; (void)leg; (void)kind; (void)unit;
	return true;
}

void event_flushed(struct remap *r, enum dmr_leg leg, blk_status_t status)
{
	(void)r; (void)leg; (void)status;
}

void event_works(struct remap *r, enum dmr_leg leg, enum dmr_kind kind)
{
	(void)r; (void)leg; (void)kind;
}

#endif
