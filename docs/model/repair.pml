/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Two writers, a reader, the narrow work and the commit work, each step of them
 * at any time: kernel/dm-remap-repair.c, and map and end_io of
 * kernel/dm-remap-target.c.  Two units; one table block in two copies, without
 * stand-ins and sequences, which are metadata.pml's.
 *
 * The power may be cut after every step.  So after every step that a cut could
 * tell from the one before, power_check() looks at what a load would find in
 * either copy: in copy A, or in copy B where A cannot be read.
 */
#define NS		3
#define NONE		NS
#ifndef SLOT_REFUSALS
#define SLOT_REFUSALS	3	/* writes and reads that slots refuse */
#endif
#ifndef COMMIT_REFUSALS
#define COMMIT_REFUSALS	1	/* copies that cannot be written anywhere */
#endif

/* States of a slot; those up to BAD are on disk. */
#define FREE		0
#define MAPPED		1
#define LOST		2
#define BAD		3
#define TAKEN		4
#define SEALING		5
#define DOUBT		6
#define FOUND		7
#define SETTLING	8

#define STATE(x)	((x) & 3)
#define UNIT(x)		(((x) >> 2) & 1)
#define GEN(x)		((x) >> 3)
#define LIVE(x)		(STATE(x) == MAPPED || STATE(x) == LOST)

/* Values.  Writer w writes w, 1 or 2; 0 and 3 are what the units hold at first. */
#define FIRST(u)	(3 * (u))
#define GARBAGE		6
#define NOTHING		7
#define BIT(v)		(1 << (v))

/* The disks. */
byte on_main[2];
byte in_slot[NS];
byte table[2 * NS];		/* copy A, copy B */

/* r->slot, the lookup, r->mode */
byte state[NS];
bit unit[NS];
byte gen[NS];
byte head[2];
bit ro;

/* Where a bio of a writer is. */
mtype = { away, queued, claimed, to_commit, in_commit, done, refused };
mtype where[3];
bit its[3];			/* the unit */
byte slot[3];			/* its slot, with data, for the commit */
byte old[3];			/* the slot that it moves away from, or NONE */

byte slot_refusals = SLOT_REFUSALS;
byte commit_refusals = COMMIT_REFUSALS;

/*
 * What may be read.  A value is dead when a write that began after the value's
 * own write had ended is acknowledged.
 */
byte begun[2];
byte ended[2];
byte dead[2];

byte i, j, k, found, got;

#define LEGAL(u, v, d)	((begun[u] & BIT(v)) && !((d) & BIT(v)))

/* The power is cut now, and a load finds copy k of the table. */
inline power_check()
{
	d_step {
		for (k : 0 .. 1) {
			for (j : 0 .. 1) {
				found = NONE;
				for (i : 0 .. NS - 1) {
					if
					:: LIVE(table[k * NS + i]) &&
					   UNIT(table[k * NS + i]) == j ->
						if
						:: found == NONE -> found = i
						:: else ->
							assert(GEN(table[k * NS + i]) !=
							       GEN(table[k * NS + found]));
							if
							:: GEN(table[k * NS + i]) >
							   GEN(table[k * NS + found]) ->
								found = i
							:: else
							fi
						fi
					:: else
					fi
				}
				if
				:: found == NONE -> got = on_main[j]
				:: found < NONE &&
				   STATE(table[k * NS + found]) == LOST ->
					got = NOTHING
				:: else -> got = in_slot[found]
				fi;
				assert(LEGAL(j, got, dead[j]))
			}
		}
		found = 0; got = 0; i = 0; j = 0; k = 0
	}
}

/* bio_endio(), and what is known from then on. */
inline acknowledge(w, before)
{
	ended[its[w]] = ended[its[w]] | BIT(w);
	dead[its[w]] = dead[its[w]] | before;
	power_check()
}

proctype writer(byte w)
{
	byte s, before;

	atomic {
		if
		:: its[w] = 0
		:: its[w] = 1
		fi;
		before = ended[its[w]];
		begun[its[w]] = begun[its[w]] | BIT(w)
	}
	/* map() */
	atomic {
		s = head[its[w]];
		if
		:: s == NONE
		:: s < NONE && state[s] == MAPPED
		:: s < NONE && state[s] == DOUBT -> where[w] = refused; goto wait
		:: s < NONE && state[s] != MAPPED && state[s] != DOUBT ->
#ifdef LOST_DIRECT
			skip
#else
			where[w] = queued;
			goto wait
#endif
		fi
	}
	/* the disk, and end_io() */
	atomic {
		if
		:: s == NONE -> on_main[its[w]] = w; power_check(); where[w] = done
		:: s == NONE -> where[w] = queued
		:: s < NONE -> in_slot[s] = w; power_check(); where[w] = done
		:: s < NONE && slot_refusals > 0 -> slot_refusals--; where[w] = queued
		fi
	}
wait:
	atomic {
		if
		:: where[w] == done -> acknowledge(w, before)
		:: where[w] == refused ->
			ended[its[w]] = ended[its[w]] | BIT(w)
		fi;
		where[w] = away; its[w] = 0; s = 0; before = 0
	}
}

/* A read of unit 0, by map(). */
proctype reader()
{
	byte s, before;

	atomic {
		before = dead[0];
		s = head[0];
		if
		:: s == NONE
		:: s < NONE && state[s] == MAPPED
		:: s < NONE && state[s] == DOUBT -> goto end
		:: s < NONE && state[s] != MAPPED && state[s] != DOUBT ->
			/* An error; it must not stand for what was acknowledged. */
			assert(LEGAL(0, NOTHING, before));
			goto end
		fi
	}
	atomic {
		if
		:: s == NONE -> assert(LEGAL(0, on_main[0], before))
		:: s < NONE -> assert(LEGAL(0, in_slot[s], before))
		:: s < NONE && slot_refusals > 0 ->
			slot_refusals--;
#ifdef READ_FALLBACK
			assert(LEGAL(0, on_main[0], before))
#endif
		fi
	}
end:
	skip
}

inline take_slot()
{
	slot[n] = NONE;
	for (i : 0 .. NS - 1) {
		if
		:: slot[n] == NONE && state[i] == FREE -> slot[n] = i
		:: else
		fi
	}
	if
	:: slot[n] < NONE ->
		state[slot[n]] = TAKEN;
		unit[slot[n]] = its[n];
		gen[slot[n]] = 0;
		if
		:: old[n] < NONE ->
#ifdef NO_GENERATION
			gen[slot[n]] = gen[old[n]]
#else
			gen[slot[n]] = gen[old[n]] + 1
#endif
		:: else
		fi
	:: else -> where[n] = refused; old[n] = NONE; slot[n] = NONE
	fi;
	i = 0
}

/* The write of a bio's data to the slot that it has taken, and the next step. */
inline data_and_commit()
{
#ifdef NO_DATA_FIRST
	where[n] = to_commit
#else
	in_slot[slot[n]] = n;
	power_check();
	where[n] = to_commit
#endif
}

#define CLAIMED(x)	(where[x] == claimed || where[x] == to_commit || \
			 where[x] == in_commit)
#ifdef NO_CLAIM
#define MAY_CLAIM(x, y)	(where[x] == queued)
#else
#define MAY_CLAIM(x, y)	(where[x] == queued && !(CLAIMED(y) && its[x] == its[y]))
#endif

proctype narrow()
{
	byte n, s;
end:
	do
	:: atomic {
		if
		:: MAY_CLAIM(1, 2) -> n = 1
		:: MAY_CLAIM(2, 1) -> n = 2
		fi;
		where[n] = claimed;
		old[n] = NONE;
		slot[n] = NONE;
		if
		:: ro -> where[n] = refused
		:: else
		fi
	   }
	   /* Every unit is looked up again. */
	   atomic {
		s = head[its[n]];
#ifdef NO_LOOKUP_AGAIN
		s = NONE;
#endif
		if
		:: where[n] != claimed
		:: where[n] == claimed && s < NONE && state[s] == DOUBT ->
			where[n] = refused
		:: where[n] == claimed && s == NONE ->
			/* Main takes it now, or it needs a slot. */
			if
			:: on_main[its[n]] = n; power_check(); where[n] = done
			:: take_slot()
			fi
		:: where[n] == claimed && s < NONE && state[s] != DOUBT ->
			if
			:: state[s] == MAPPED ->
				in_slot[s] = n; power_check(); where[n] = done
			:: state[s] != MAPPED ->
				in_slot[s] = n;
				power_check();
				state[s] = FOUND;
				slot[n] = s;
				where[n] = to_commit
			:: slot_refusals > 0 ->
				slot_refusals--;
				old[n] = s;
				take_slot()
			fi
		fi
	   }
	   atomic {
		if
		:: where[n] == claimed -> data_and_commit()
		:: else
		fi;
		n = 0; s = 0
	   }
	od
}

/* slot_entry() for slot i */
inline entry()
{
	got = state[i];
	if
	:: got == SEALING || got == SETTLING -> got = MAPPED
	:: got == FOUND -> got = LOST
#ifdef ENTRY_TAKEN_WRITTEN
	:: got == TAKEN -> got = MAPPED
	:: got == DOUBT -> got = FREE
#else
	:: got == TAKEN || got == DOUBT -> got = FREE
#endif
	:: else
	fi;
	if
	:: got == MAPPED || got == LOST ->
		got = got | (unit[i] << 2) | (gen[i] << 3)
	:: else
	fi
}

/* commit_copies() */
inline write_copy(copy)
{
	atomic {
		if
		:: !ro && !half ->
			if
			:: true ->
			   d_step {
				for (i : 0 .. NS - 1) {
					entry();
					table[copy * NS + i] = got
				}
				got = 0; i = 0
			   }
			   power_check()
			:: commit_refusals > 0 -> commit_refusals--; half = 1
			fi
		:: else -> half = 1
		fi
	}
}

inline commit()
{
	half = 0;
	write_copy(0);
#ifndef NO_COPY_B
	write_copy(1);
#endif
	if
	:: half -> ro = 1
	:: else
	fi
}

/*
 * leave(), slots_insert(), repair_settle() and retire() for the bio w.  One step:
 * lookup.pml has them apart.
 */
inline publish(w)
{
	if
	:: half ->
#ifdef NO_DOUBT
		state[slot[w]] = FREE
#else
		state[slot[w]] = DOUBT;
		head[its[w]] = slot[w]
#endif
	:: else ->
		state[slot[w]] = MAPPED;
		head[its[w]] = slot[w]
	fi;
	if
	:: old[w] < NONE ->
#ifdef SLOT_REUSE
		state[old[w]] = FREE;
#else
		state[old[w]] = BAD;
#endif
		moved = !half
	:: else
	fi
}

inline complete(w)
{
	if
	:: half -> where[w] = refused
	:: else -> where[w] = done
	fi;
	slot[w] = NONE;
	old[w] = NONE
}

proctype committer()
{
	bit half, moved;
	byte w;
end:
	do
	:: atomic {
		where[1] == to_commit || where[2] == to_commit;
		for (w : 1 .. 2) {
			if
			:: where[w] == to_commit && ro ->
				where[w] = refused;
				if
				:: state[slot[w]] == TAKEN -> state[slot[w]] = FREE
				:: else
				fi
			:: where[w] == to_commit && !ro ->
				where[w] = in_commit;
				if
				:: state[slot[w]] == TAKEN -> state[slot[w]] = SEALING
				:: else -> state[slot[w]] = SETTLING
				fi;
#ifdef MOVE_BAD_FIRST
				if
				:: old[w] < NONE ->
					table[old[w]] = BAD;
					table[NS + old[w]] = BAD;
					power_check()
				:: else
				fi;
#endif
#ifdef PUBLISH_EARLY
				if
				:: old[w] == NONE ->
					state[slot[w]] = MAPPED;
					head[its[w]] = slot[w]
				:: else
				fi;
#endif
#ifdef ACK_EARLY
				where[w] = done;
#endif
			:: else
			fi
		}
		w = 1
	   }
	   commit();
#ifdef NO_DATA_FIRST
	   atomic {
		for (w : 1 .. 2) {
			if
			:: where[w] == in_commit -> in_slot[slot[w]] = w
			:: else
			fi
		}
		w = 1
	   }
#endif
	   do
	   :: w <= 2 ->
#ifdef ACK_EARLY
		atomic {
			if
			:: slot[w] < NONE && where[w] != claimed &&
			   where[w] != to_commit && where[w] != queued ->
				publish(w);
				slot[w] = NONE;
				old[w] = NONE
			:: else
			fi;
			w++
		}
#else
		if
		:: atomic { where[w] == in_commit -> publish(w) }
		   atomic { complete(w) }
		:: atomic { where[w] != in_commit -> skip }
		fi;
		w++
#endif
	   :: w > 2 -> break
	   od;
	   if
	   :: moved -> moved = 0; commit()
	   :: else
	   fi;
	   half = 0;
	   w = 0
	od
}

init {
	atomic {
		for (i : 0 .. NS - 1) {
			in_slot[i] = GARBAGE
		}
		for (i : 0 .. 2) {
			where[i] = away; slot[i] = NONE; old[i] = NONE
		}
		on_main[0] = FIRST(0);
		on_main[1] = FIRST(1);
		begun[0] = BIT(FIRST(0));
		begun[1] = BIT(FIRST(1));
		head[0] = NONE;
		head[1] = NONE;
		/* Unit 0 is unmapped, mapped or lost. */
		if
		:: true
		:: head[0] = 0; state[0] = MAPPED; table[0] = MAPPED; table[NS] = MAPPED;
		   on_main[0] = GARBAGE; in_slot[0] = FIRST(0)
		:: head[0] = 0; state[0] = LOST; table[0] = LOST; table[NS] = LOST;
		   on_main[0] = GARBAGE; begun[0] = BIT(NOTHING)
		fi;
		ended[0] = begun[0];
		ended[1] = begun[1];
		i = 0;
		run writer(1);
		run writer(2);
		run reader();
		run narrow();
		run committer()
	}
}
