/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Volatile caches: a unit that is mapped, so its writes go to the spare, whose
 * cache a power cut empties.  Two writers write without FUA, two others flush, and
 * kernel/dm-remap-target.c skips the spare's part of a flush while the two
 * counters, spare_writes and spare_flushed, say that nothing is unflushed.
 */
byte cached;			/* the slot as a read finds it */
byte durable;			/* ... and after a cut */
byte writes, flushed;		/* r->spare_writes, r->spare_flushed */
byte ended;			/* the last write that was acknowledged */
byte promised;			/* the last of them that a flush has covered */
#ifdef DIRTY_FLAG
bit dirty;
#endif

/* Writes come one after the other, so that their order needs no bookkeeping. */
active proctype writer()
{
	byte w;

	do
	:: w < 3 ->
		w++;
		cached = w;
		/* The disk may write back whenever it wants. */
		if
		:: durable = cached
		:: true
		fi;
#ifdef COUNT_LATE
		ended = w;
		writes++
#elif defined(DIRTY_FLAG)
		dirty = 1;
		ended = w
#else
		writes++;
		ended = w
#endif
	:: w == 3 -> break
	od
}

active [2] proctype flush()
{
	byte sample, before, n;

	do
	:: n < 2 ->
		n++;
		before = ended;
#ifdef DIRTY_FLAG
		if
		:: dirty ->
			durable = cached;
			dirty = 0
		:: else
		fi;
#else
#ifndef SAMPLE_LATE
		sample = writes;
#endif
		if
		:: writes != flushed ->
			atomic {
				durable = cached
			}
#ifdef SAMPLE_LATE
			sample = writes;
#endif
			/* flush_done() */
			atomic {
				if
				:: flushed < sample -> flushed = sample
				:: else
				fi
			}
		:: else
		fi;
#endif
		/* The flush is acknowledged: a cut from here on keeps that. */
		atomic {
			if
			:: before > promised -> promised = before
			:: else
			fi;
			assert(durable >= promised);
			before = 0; sample = 0
		}
	:: n == 2 -> break
	od
}
