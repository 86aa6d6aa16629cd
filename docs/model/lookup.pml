/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The lookup, which readers walk without a lock while the commit work publishes:
 * kernel/dm-remap-slots.c, map_lookup_slow() and map_slots() of
 * kernel/dm-remap-target.c, publish() of kernel/dm-remap-repair.c.  Two units of
 * one region, bios of one or of both of them, slots that are neighbours.  Each
 * load and each store of a head or a state is a step of its own.
 *
 * What is published has been committed; whether that was right, and how a bio gets
 * there, is repair.pml's.
 */
#ifndef BIOS
#define BIOS	2		/* of one client, one after the other */
#endif
#ifndef OTHERS
#define OTHERS	0		/* of another one at the same time */
#endif
#define NS		5
#define NONE		NS

/* States of a slot */
#define FREE		0
#define MAPPED		1
#define LOST		2
#define BAD		3
#define SEALING		4
#define DOUBT		5
#define LEAVING		6

/*
 * Values: what a unit holds at first, what the two writes put there that are being
 * published, what the bios of the clients write.
 */
#define FIRST		0
#define PUBLISHED(k)	(1 + (k))
#define CLIENT		3
#define GARBAGE		6
#define NOTHING		7	/* an error instead of a value */
#define NV		8
#define BIT(v)		(1 << (v))

/* The disks. */
byte on_main[2];
byte in_slot[NS];

/* r->slot and the one chain; an entry's unit and next never change. */
byte state[NS];
bit unit[NS];
byte next[NS];
byte head = NONE;

/* Where a load would find each unit: a slot or NONE, and one that is in doubt. */
byte durable[2];
byte doubtful[2];
bit lost[2];

/*
 * What may be read.  A write that is acknowledged, or that a read has seen, has
 * taken effect; values that had taken effect before it began are dead then.
 */
byte begun[2];
byte effect[2];
byte dead[2];
byte before[2 * NV];

#define LEGAL(u, v, d)	((begun[u] & BIT(v)) && !((d) & BIT(v)))

inline begin_write(u, v)
{
	before[NV * (u) + (v)] = effect[u];
	begun[u] = begun[u] | BIT(v)
}

inline takes_effect(u, v)
{
	effect[u] = effect[u] | BIT(v);
	dead[u] = dead[u] | before[NV * (u) + (v)]
}

/* The power is cut now. */
inline load_check(u)
{
	if
	:: lost[u] -> assert(LEGAL(u, NOTHING, dead[u]))
	:: !lost[u] && durable[u] == NONE -> assert(LEGAL(u, on_main[u], dead[u]))
	:: !lost[u] && durable[u] < NONE ->
		assert(LEGAL(u, in_slot[durable[u]], dead[u]))
	fi;
	if
	:: doubtful[u] < NONE -> assert(LEGAL(u, in_slot[doubtful[u]], dead[u]))
	:: else
	fi
}

/* Where a bio finds its units, besides slots */
#define MAIN		NS
#define DONE		(NS + 1)

/* One unit of a bio, on main or in a slot */
inline access()
{
	if
	:: write && place[s] == MAIN -> on_main[s] = v
	:: write && place[s] < MAIN -> in_slot[place[s]] = v
	:: !write ->
		if
		:: place[s] == MAIN -> got[s] = on_main[s]
		:: else -> got[s] = in_slot[place[s]]
		fi;
		assert(LEGAL(s, got[s], was[s]))
	fi;
	place[s] = DONE;
	s = 0
}

/*
 * Bios one after the other, each a read or a write of any units: map() looks the
 * first unit up, and DM comes again with what that part leaves.
 */
proctype client(byte v; byte bios)
{
	byte first, last, u, s, found, st, nr;
	byte place[2], was[2], got[2];
	bit write, failed;
next_bio:
	atomic {
		if
		:: bios == 0 -> v = 0; goto end
		:: else -> bios--
		fi;
		if
		:: first = 0; last = 0
		:: first = 1; last = 1
		:: first = 0; last = 1
		fi;
		place[0] = DONE; place[1] = DONE;
		was[0] = dead[0]; was[1] = dead[1];
		failed = 0;
		if
		:: write = 0
		:: write = 1;
		   for (u : first .. last) {
			begin_write(u, v)
		   }
		fi;
		u = first
	}
map:
	do
	:: u > last -> break
	:: u <= last ->
again:
		atomic { s = head; found = NONE }
		/* region_first() */
		do
		:: s == NONE -> break
		:: s < NONE ->
			atomic {
				st = FREE;
				if
				:: unit[s] >= u && unit[s] <= last &&
				   (found == NONE || unit[s] < unit[found]) ->
					st = state[s]
				:: else
				fi;
				if
#ifndef SEALING_SEEN
				:: st == FREE || st == SEALING -> s = next[s]
#else
				:: st == FREE -> s = next[s]
#endif
#ifndef BAD_SKIPPED
				:: st == BAD -> st = FREE; goto again
#else
				:: st == BAD -> s = next[s]
#endif
				:: else ->
					found = s;
					s = (unit[s] == u -> NONE : next[s])
				fi;
				st = FREE
			}
		od;
		/* map_lookup_slow() */
		atomic {
			if
			:: found < NONE -> st = state[found]
			:: else
			fi;
			if
#ifndef BAD_TAKEN
			:: found < NONE && st == BAD -> st = FREE; goto again
#endif
			:: found == NONE ->
				nr = last + 1 - u;
				place[u] = MAIN;
				place[last] = MAIN
			:: found < NONE && unit[found] > u ->
				nr = 1;
				place[u] = MAIN
			:: else ->
				nr = 1;
				place[u] = found
			fi
		}
		/* slots_run() */
		atomic {
			if
			:: place[u] < MAIN && st != LEAVING && u < last &&
			   found + 1 < NS && state[found + 1] == st &&
			   unit[found + 1] == u + 1 ->
				nr = 2;
				place[u + 1] = found + 1
			:: else
			fi;
			/* map_slots() */
			if
			:: place[u] == MAIN || st == MAPPED || st == LEAVING
			:: else ->
				failed = 1;
				if
				:: !write && st != DOUBT ->
					assert(LEGAL(u, NOTHING, was[u]) ||
					       (nr == 2 &&
						LEGAL(u + 1, NOTHING, was[u + 1])))
				/* LOST: it waits for its turn, and is repair.pml's. */
				:: else
				fi;
				place[u] = DONE;
				place[u + nr - 1] = DONE
			fi;
			u = u + nr;
			found = NONE; st = FREE; nr = 0
		}
	od;
	/* The disks, which take the parts in any order. */
	do
	:: atomic { place[0] != DONE -> s = 0; access() }
	:: atomic { place[1] != DONE -> s = 1; access() }
	:: place[0] == DONE && place[1] == DONE -> break
	od;
	/* bio_endio() */
	atomic {
		if
		:: !failed ->
			for (u : first .. last) {
				st = (write -> v : got[u]);
				takes_effect(u, st);
				load_check(u)
			}
		:: else
		fi;
		got[0] = 0; got[1] = 0; u = 0; s = 0; st = FREE; v++;
		was[0] = 0; was[1] = 0; first = 0; last = 0; write = 0; failed = 0;
		goto next_bio
	}
end:
	skip
}

/* slots_insert() */
#define LINK	atomic { next[s] = head; head = s }
/* repair_settle() */
#define SETTLE	state[s] = (half -> DOUBT : MAPPED)

/* The commit work: one slot after the other. */
proctype publisher()
{
	byte u, s, old, k;
	byte left = 1;
	bit again, half;

	/* Unit 1; it twice; or both units, in either order. */
	atomic {
		if
		:: u = 1
		:: u = 1; left = 2; again = 1
		:: u = 1; left = 2
		:: u = 0; left = 2
		fi
	}
	do
	:: left > 0 ->
		atomic {
			left--;
			s = 2 + u;
			if
			:: again && k == 1 -> s = 4
			:: else
			fi;
			old = durable[u];
			begin_write(u, PUBLISHED(k));
			in_slot[s] = PUBLISHED(k);
			unit[s] = u;
			state[s] = SEALING;
			/* The commit, or half of one. */
			if
			:: durable[u] = s; lost[u] = 0
			:: doubtful[u] = s; half = 1; left = 0
			fi;
			load_check(u)
		}
#ifndef NO_LEAVING
		if
		:: old < NONE && state[old] == MAPPED -> state[old] = LEAVING
		:: else
		fi;
#endif
#ifdef STATE_FIRST
		SETTLE;
		LINK;
#else
		LINK;
		SETTLE;
#endif
		if
		:: old < NONE -> state[old] = BAD
		:: else
		fi;
		atomic {
			if
			:: half -> effect[u] = effect[u] | BIT(PUBLISHED(k))
			:: else -> takes_effect(u, PUBLISHED(k))
			fi;
			load_check(u);
			k++;
			s = 0; old = 0;
			u = (again -> 1 : 1 - u)
		}
	:: else -> break
	od
}

init {
	atomic {
		byte i;

		begun[0] = BIT(FIRST);
		begun[1] = BIT(FIRST);
		durable[0] = NONE; durable[1] = NONE;
		doubtful[0] = NONE; doubtful[1] = NONE;
		for (i : 0 .. NS - 1) {
			in_slot[i] = GARBAGE;
			next[i] = NONE
		}
		/* Both units are unmapped, mapped or lost. */
		if
		:: true
		:: i = MAPPED; in_slot[0] = FIRST; in_slot[1] = FIRST
		:: i = LOST;
		   begun[0] = BIT(NOTHING); begun[1] = BIT(NOTHING);
		   lost[0] = 1; lost[1] = 1
		fi;
		if
		:: i == MAPPED || i == LOST ->
			on_main[0] = GARBAGE; on_main[1] = GARBAGE;
			state[0] = i; state[1] = i;
			unit[1] = 1;
			durable[0] = 0; durable[1] = 1;
			head = 1; next[1] = 0
		:: else
		fi;
		effect[0] = begun[0];
		effect[1] = begun[1];
		i = 0;
		run publisher();
		run client(CLIENT, BIOS);
		run client(CLIENT + BIOS, OTHERS)
	}
}
