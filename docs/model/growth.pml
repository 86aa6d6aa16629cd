/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Growth: a set whose first segment is full gets a second one.  Block 0 is the
 * superblock, and says how many segments there are; block 1 is the table of the
 * second segment, which has one slot.  The table of the first one has no part in
 * this.
 */
#define NMB		2
#ifndef NXI
#define NXI		2
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
#ifndef RELOADS
#define RELOADS		1
#endif

/* Before a load has taken over what it found, the superblock's winner counts. */
#define LIVE		(best[0] >= SECOND -> 2 : 1)
#define IMAGE(b)	((b) -> mapped : (NAMES | (segments == 2 -> SECOND : 0)))
#define SECOND		64		/* in the superblock */

byte segments = 1;		/* r->super */
bit mapped;			/* the entry of the slot */

#include "core.pml"

byte on_main;
byte in_slot = GARBAGE;
bit half;			/* growth has half failed */

inline read_it()
{
	if
	:: mapped -> got = in_slot
	:: else -> got = on_main
	fi
}

/* What the control plane does: an empty table, copy A and copy B. */
inline grow_tables()
{
	copy = 0;
	ok = 1;
	do
	:: copy < 2 && ok ->
		w_place = HOME(1, copy); w_seq = 1; w_body = 0; w_home = w_place;
		area_write();
		copy++
	:: else -> break
	od;
	w_place = 0; w_seq = 0; w_body = 0; w_home = 0; copy = 0
}

/* What preresume does.  Half a commit is no growth. */
inline grow_super()
{
	segments = 2;
	super_commit(1);
	w_place = 0; w_seq = 0; w_body = 0; w_home = 0;
	if
	:: ok -> m_seq[1] = 1; m_at[2] = 2; m_at[3] = 3
#ifdef GROW_HALF
	:: !ok -> ro = 0; m_seq[1] = 1; m_at[2] = 2; m_at[3] = 3
#else
	:: !ok -> segments = 1
#endif
	fi;
	ok = 0
}

inline grow()
{
#ifdef GROW_SUPER_FIRST
	grow_super();
	if
	:: segments == 2 -> grow_tables()
	:: else
	fi
#else
	grow_tables();
	if
	:: ok -> ok = 0; grow_super()
	:: else
	fi
#endif
}

inline write()
{
	last++;
	may = may | BIT(last);
	printf("write %d\n", last);
	if
	:: doubt -> excused = 1
	:: !doubt && mapped -> cut_here(); in_slot = last; cut_here(); ack()
	:: !doubt && !mapped -> cut_here(); on_main = last; cut_here(); ack()
	:: !doubt && !mapped ->
		if
		:: segments == 1 || ro -> excused = 1	/* no slot is free */
		:: else ->
			cut_here();
			in_slot = last;
			cut_here();
			mapped = 1;
			dirty[1] = 1;
			commit();
			if
			:: failed[1] -> doubt = 1; excused = 1
			:: else -> ack()
			fi
		fi
	fi
}

init {
	atomic {
		for (i : 0 .. HOMES - 1) {
			whose[i] = i; m_at[i] = i
		}
		for (i : 0 .. 1) {
			seq[i] = 1
		}
		m_seq[0] = 1
	}
running:
	atomic {
		if
		:: last < WRITES -> write(); read(); goto running
		:: segments == 1 && !ro -> grow(); goto running
		:: cuts > 0 -> goto cut
		:: cuts == 0 && last == WRITES -> goto done
		fi
	}
cut:
	atomic {
		cuts--;
		power_on();
		goto load
	}
again:
	atomic {
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
		segments = 1 + (best[0] >= SECOND);
		mapped = segments == 2 && best[1];
		load_mend();
		load_forget();
		if
		:: refused -> goto again
		:: else
		fi;
		read();
		goto running
	}
done:
	skip
}
