/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One unit, one writer, metadata with everything that can happen to it.
 */
#define NMB		3
#ifndef NXI
#define NXI		0	/* growth.pml has them */
#endif
#ifndef NSI
#define NSI		2
#endif
#ifndef REFUSALS
#define REFUSALS	1
#endif
#ifndef BLINDS
#define BLINDS		2
#endif
#ifndef CUTS
#define CUTS		2
#endif
#ifndef WRITES
#define WRITES		2
#endif
#ifndef SLOT_REFUSALS
#define SLOT_REFUSALS	0
#endif
#ifndef RELOADS
#define RELOADS		1	/* of a load that was refused */
#endif
#define LIVE		NMB

/* An entry: state and generation.  Slot s is in block 1 + s % 2. */
#define NS		3
#define FREE		0
#define MAPPED		1
#define LOST		2
#define BAD		3
#define STATE(x)	((x) & 3)
#define GEN(x)		((x) >> 2)
#define ENTRY(s, g)	((s) | ((g) << 2))
#define IMAGE(b)	((b) == 0 -> NAMES : ((b) == 2 -> e[1] : (e[0] | (e[2] << 4))))
#define BLOCK(s)	(1 + ((s) & 1))

byte e[NS];			/* r->slot[].info, as the disk may know it */

#include "core.pml"

byte on_main;
byte in_slot[NS];
byte cur;			/* the unit's slot, NS: none */
byte new, old, entry;		/* of the write */
bit retiring;
byte slot_refusals = SLOT_REFUSALS;
#ifdef MOVE_BAD_FIRST
byte was;
#endif

inline read_it()
{
	if
	:: cur == NS -> got = on_main
	:: cur < NS && STATE(e[cur]) == LOST -> got = NOTHING
	:: else -> got = in_slot[cur]
	fi
}

inline take_slot()
{
	new = NS;
	for (i : 0 .. NS - 1) {
		if
		:: new == NS && STATE(e[i]) == FREE -> new = i
		:: else
		fi
	}
	i = 0
}

/*
 * Steps 4 to 7 for slot `new`, which takes the entry `entry`; and if the unit moves
 * away from slot `old`, that one's end.
 */
inline map()
{
#ifdef MOVE_BAD_FIRST
	if
	:: old < NS ->
		was = e[old];
		e[old] = BAD;
		dirty[BLOCK(old)] = 1;
		commit();
		e[old] = was
	:: else
	fi;
#endif
#ifndef NO_DATA_FIRST
	cut_here();
	in_slot[new] = last;
#endif
	cut_here();
	e[new] = entry;
	dirty[BLOCK(new)] = 1;
#ifdef ACK_EARLY
	ack();
#endif
	do
	:: commit();
	   if
	   :: retiring -> break
	   :: !retiring && failed[BLOCK(new)] ->
#ifdef NO_DOUBT
		/* as if nothing had been written */
		e[new] = FREE;
#else
		doubt = 1;
#endif
		excused = 1;
		break
	   :: !retiring && !failed[BLOCK(new)] ->
#ifdef NO_DATA_FIRST
		cut_here();
		in_slot[new] = last;
#endif
		cur = new;
		ack();
		if
		:: old == NS -> break
		:: else ->
			retiring = 1;
			e[old] = BAD;
			dirty[BLOCK(old)] = 1
		fi
	   fi
	od
}

/* Main or a slot has refused the data; the unit had the generation g. */
inline needs_slot(g)
{
	take_slot();
	if
	:: new == NS || ro -> excused = 1
	:: else -> entry = ENTRY(MAPPED, g)
	fi
}

#ifdef NO_GENERATION
#define RAISE	0
#else
#define RAISE	1
#endif

inline write()
{
	last++;
	printf("write %d\n", last);
	may = may | BIT(last);
	old = NS;
	if
	:: doubt -> excused = 1
	:: !doubt && cur == NS ->
		if
		:: cut_here(); on_main = last; cut_here(); ack()
		:: true -> needs_slot(0)
		fi
	:: !doubt && cur < NS && STATE(e[cur]) == MAPPED ->
		cut_here();
		in_slot[cur] = last;
		cut_here();
		ack()
	:: !doubt && cur < NS && slot_refusals > 0 && !(ro && STATE(e[cur]) == LOST) ->
		slot_refusals--;
		old = cur;
		needs_slot(GEN(e[cur]) + RAISE)
	:: !doubt && cur < NS && STATE(e[cur]) == LOST ->
		if
		:: ro -> excused = 1
		:: else ->
#ifdef LOST_DIRECT
			in_slot[cur] = last;
			ack()
#else
			new = cur;
			entry = ENTRY(MAPPED, GEN(e[cur]))
#endif
		fi
	fi;
	if
	:: entry != 0 -> map()
	:: else
	fi;
	new = 0; old = 0; entry = 0; retiring = 0
}

/* load_lookup(): the unit's slot; of two the one with the higher generation */
inline load_lookup()
{
	d_step {
		e[0] = best[1] & 15;
		e[2] = best[1] >> 4;
		e[1] = best[2];
		cur = NS;
		new = NS;
		for (i : 0 .. NS - 1) {
			if
			:: STATE(e[i]) == MAPPED || STATE(e[i]) == LOST ->
				if
				:: cur == NS -> cur = i
				:: else ->
					assert(new == NS);
					assert(GEN(e[i]) != GEN(e[cur]));
					if
					:: GEN(e[i]) > GEN(e[cur]) ->
						new = cur;
						cur = i
					:: else -> new = i
					fi
				fi
			:: else
			fi
		}
	}
}

inline loser_bad()
{
	if
	:: new < NS -> e[new] = BAD; dirty[BLOCK(new)] = 1
	:: else
	fi
}

init {
	atomic {
		/* A set in use: nothing mapped, or the unit in slot 0 or 1. */
		for (i : 0 .. HOMES - 1) {
			seq[i] = 1; whose[i] = i; m_seq[i / 2] = 1; m_at[i] = i
		}
		for (i : 0 .. NS - 1) {
			in_slot[i] = GARBAGE
		}
		cur = NS;
		on_main = 0;
		if
		:: true
		:: cur = 0; e[0] = ENTRY(MAPPED, 0); on_main = GARBAGE; in_slot[0] = 0
		:: cur = 1; e[1] = ENTRY(MAPPED, 0); on_main = GARBAGE; in_slot[1] = 0
		:: cur = 0; e[0] = ENTRY(LOST, 0); on_main = GARBAGE; may = BIT(NOTHING)
		fi;
		for (i : 0 .. HOMES - 1) {
			body[i] = IMAGE(i / 2)
		}
	}
running:
	atomic {
		if
		:: last < WRITES -> write(); read(); goto running
		:: cuts > 0 -> goto cut
		:: cuts == 0 && last == WRITES -> goto done
		fi
	}
cut:
	atomic {
		cuts--;
		power_on();
		new = 0; old = 0; entry = 0; retiring = 0;
		goto load
	}
again:
	atomic {
		new = 0;
		if
		:: reloads > 0 -> reloads--; goto load
		:: else -> goto done
		fi
	}
load:
	atomic {
		printf("load\n");
		load_candidates();
		load_check();
		if
		:: refused -> load_forget(); goto again
		:: else
		fi;
		load_places();
		load_lookup();
#ifdef LOSER_EARLY
		loser_bad();
#endif
		load_mend();
		load_forget();
		if
		:: refused -> goto again
		:: else
		fi;
		loser_bad();
		new = 0;
		commit();
		if
		:: !all_ok -> goto again
		:: else
		fi;
		read();
		goto running
	}
done:
	skip
}
