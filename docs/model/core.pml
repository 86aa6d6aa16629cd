/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Metadata blocks in two copies with stand-ins: the part of the model that
 * metadata.pml and growth.pml share.  kernel/dm-remap-load.c is what it is a
 * model of, function by function; README.md says what was left out.
 *
 * Whoever includes it defines NMB (metadata blocks; block 0 is the superblock), NXI
 * (stand-ins of the superblock), NSI (those of tables, two at most), REFUSALS
 * (writes of metadata that are refused), BLINDS (places that a load cannot read)
 * and CUTS (power cuts, all of them over the whole run), IMAGE(mb) (what memory
 * says a block holds, its body, in a byte; NAMES and what else a superblock says),
 * and the label `cut`, where the run goes on after a power cut.
 *
 * There is one process, so each step that matters to a cut is one write, and
 * everything between two of them is atomic.
 */

#define HOMES		(2 * NMB)
#define TABLE_STANDINS	(HOMES + NXI)
#define PLACES		(HOMES + NXI + NSI)
#define HOME(mb, c)	(2 * (mb) + (c))
#define IS_STANDIN(p)	((p) >= HOMES)
#define TORN		255	/* the body of what no checksum fits */
#define NOWHERE		255
#define VALID(p)	(seq[p] && body[p] != TORN)

/*
 * The disk.  Sequence 0: no header; then the body is TORN or 0, zeroes.  What is
 * torn still has the header of the last write that has reached its first sector,
 * so seq and whose may be there: on a stand-in, for at home nobody looks at them.
 */
byte seq[PLACES];
byte body[PLACES];
byte whose[PLACES];		/* the home that it stands for */

/* struct dmr_mblock, and what else metadata.c keeps */
byte m_seq[NMB];
byte m_at[HOMES];		/* where each copy lives */
bit used[NXI + NSI];
byte name[NSI];			/* the copy that a stand-in is for; 0: never used */
bit dirty[NMB];
bit failed[NMB];
bit ro;

/* What the world may still do. */
byte refusals = REFUSALS;
byte blinds = BLINDS;
byte cuts = CUTS;

/* Registers, 0 where they are not in use, or there would be more states. */
byte mb, copy, tries, s_copy, s_first, place;
byte w_place, w_seq, w_body, w_home;
bit ok, all_ok, second, s_second;
byte i, j, p;

/* Part of a write is taken: its first sector is among that, or is not. */
inline tear()
{
	if
	:: IS_STANDIN(w_place) -> skip
	:: IS_STANDIN(w_place) -> seq[w_place] = w_seq; whose[w_place] = w_home
	:: else -> seq[w_place] = 0
	fi;
	body[w_place] = TORN;
	printf("place %d is torn, and says home %d seq %d\n", w_place, whose[w_place],
	       seq[w_place])
}

/*
 * area_write(): one write of one place.  It is taken; or refused, and then
 * leaves what was there, something torn, or all of what was to be written; or
 * the power is cut before it, or in it.
 */
inline area_write()
{
	if
	:: seq[w_place] = w_seq; body[w_place] = w_body; whose[w_place] = w_home;
	   ok = 1;
	   printf("place %d takes home %d seq %d body %x\n", w_place, w_home, w_seq, w_body)
	:: refusals > 0 ->
		refusals--;
		ok = 0;
		if
		:: skip
		:: tear()
		:: seq[w_place] = w_seq; body[w_place] = w_body;
		   whose[w_place] = w_home
		fi;
		printf("place %d refuses home %d seq %d, and holds seq %d\n", w_place, w_home,
		       w_seq, seq[w_place])
	:: cuts > 0 ->
		printf("cut before place %d takes seq %d\n", w_place, w_seq);
		goto cut
	:: cuts > 0 ->
		printf("cut tears place %d\n", w_place);
		tear();
#ifdef BOTH_AT_ONCE
		seq[m_at[w_home ^ 1]] = 0; body[m_at[w_home ^ 1]] = TORN;
#endif
		goto cut
	fi
}

/* The home 2, copy A of the first table, is the name 1. */
#define NAME(home)	((home) - 1)
#define NAMES		(name[0] | (name[NSI - 1] << (3 * (NSI - 1))))
#define NAMES_OF(b, i)	(((b) >> (3 * (i))) & 7)

inline super_standin()
{
	w_place = NOWHERE;
	for (i : 0 .. NXI - 1) {
		if
		:: w_place == NOWHERE && !used[i] -> w_place = HOMES + i; used[i] = 1
		:: else
		fi
	}
	i = 0
}

/*
 * Both copies of the superblock, s_first first, one after the other.  A commit of
 * its own with a sequence of its own, whatever else is under way.  ok: it did.
 */
inline super_commit(ahead)
{
	s_copy = s_first;
	do
	:: w_home = s_copy; w_place = m_at[s_copy]; w_seq = m_seq[0] + ahead;
	   w_body = IMAGE(0);
	   ok = 0;
	   do
	   :: w_place == NOWHERE -> break
	   :: else ->
		area_write();
		if
		:: ok -> m_at[s_copy] = w_place; break
		:: else -> super_standin()
		fi
	   od;
	   if
	   :: ok && !s_second -> s_second = 1; s_copy = 1 - s_copy
	   :: else -> break
	   fi
	od;
	if
	:: ok -> m_seq[0] = m_seq[0] + ahead
	:: else -> ro = 1
	fi;
	s_copy = 0; s_first = 0; s_second = 0; dirty[0] = 0; failed[0] = !ok
}

/*
 * A stand-in that is named for this copy and holds nobody's, else one that was
 * never used.  i: whether it has to be named.
 */
inline table_standin()
{
	place = NOWHERE;
	for (i : 0 .. NSI - 1) {
		if
		:: place == NOWHERE && name[i] == NAME(w_home) && !used[NXI + i] ->
			place = TABLE_STANDINS + i
		:: else
		fi
	}
	for (i : 0 .. NSI - 1) {
		if
#ifdef OVERWRITE_GOOD
		:: place == NOWHERE && i >= tries -> place = TABLE_STANDINS + i
#else
		:: place == NOWHERE && !name[i] && !used[NXI + i] ->
			place = TABLE_STANDINS + i
#endif
		:: else
		fi
	}
	i = 0;
	if
	:: place != NOWHERE -> used[place - HOMES] = 1
	:: else
	fi
}

#ifdef NAME_ONCE
#define NAME_SECOND	1
#else
#define NAME_SECOND	0
#endif

/* The name is durable twice before the stand-in is written. */
inline give_name()
{
	if
	:: place != NOWHERE && name[place - TABLE_STANDINS] != NAME(w_home) ->
		name[place - TABLE_STANDINS] = NAME(w_home);
		printf("stand-in %d is for home %d\n", place, w_home);
#ifndef NAME_LATE
		s_second = NAME_SECOND;
		super_commit(1);
		if
		:: !ok -> place = NOWHERE
		:: else
		fi
#else
		dirty[0] = 1
#endif
	:: else
	fi
}

/* write_copy() of a table: home or wherever it lives, else a stand-in. */
inline write_copy(sequence)
{
	w_home = HOME(mb, copy);
	place = m_at[w_home];
	ok = 0;
	do
	:: place == NOWHERE -> break
	:: else ->
		w_home = HOME(mb, copy);
		w_place = place;
		w_seq = sequence;
		w_body = IMAGE(mb);
		area_write();
		if
		:: ok -> m_at[w_home] = w_place; break
		:: !ok && tries == NSI -> break
		:: else ->
			table_standin();
			tries++;
			give_name();
			ok = 0
		fi
	od;
	w_place = 0; w_seq = 0; w_body = 0; w_home = 0; tries = 0; place = 0
#ifdef NAME_LATE
	;
	if
	:: dirty[0] && ok -> super_commit(1); w_place = 0; w_seq = 0; w_body = 0; w_home = 0; ok = 1
	:: else
	fi
#endif
}

#ifdef NO_COPY_B
#define LAST_COPY	1
#else
#define LAST_COPY	2
#endif

/*
 * metadata_commit(): the superblock, then copy A of all dirty tables, then copy B.
 * all_ok: it did.
 */
inline commit()
{
	all_ok = 1;
	copy = 0;
	do
	:: copy < LAST_COPY ->
		mb = 1;
		do
		:: mb < NMB ->
			if
			:: dirty[mb] && !failed[mb] ->
				if
				:: ro -> ok = 0
				:: else -> write_copy(m_seq[mb] + 1)
				fi;
				if
				:: !ok -> failed[mb] = 1; all_ok = 0
				:: else
				fi
			:: else
			fi;
			mb++
		:: else -> break
		od;
		copy++
	:: else -> break
	od;
	for (mb : 1 .. NMB - 1) {
		if
		:: dirty[mb] && !failed[mb] -> m_seq[mb]++
		:: else
		fi;
		dirty[mb] = 0
	}
	if
	:: !all_ok -> ro = 1
	:: else
	fi;
	mb = 0; copy = 0; ok = 0
}

/*
 * A load
 */

bit blind[PLACES];		/* cannot be read this time */
bit bad[NXI + NSI];		/* a stand-in is torn or cannot be read */
byte c_seq[HOMES];		/* struct copy */
byte c_at[HOMES];
byte c_torn[HOMES];		/* the highest sequence of a torn stand-in for it */
bit unseen[HOMES];		/* a stand-in that is named for it cannot be read */
byte best[NMB];			/* the winner's body */
bit refused;
byte unreadable;		/* stand-ins of the superblock */
byte torn;			/* stand-ins */
bit torn_home;
byte known;			/* copies that are the newest */
bit misses[HOMES];		/* of this copy something cannot be read */
bit one;		/* all of the superblock can be read, and of each table one copy */
bit clear;		/* ... and the other one, too */

#ifdef TORN_NO_SEQ
#define TORN_AT(i)	7
#else
#define TORN_AT(i)	seq[i]
#endif

/* load_candidate(), for what stands at i */
inline load_candidate()
{
	if
#ifdef HOME_WINS
	:: !blind[i] && VALID(i) && seq[i] > c_seq[whose[i]] ->
#else
	:: !blind[i] && VALID(i) && seq[i] >= c_seq[whose[i]] ->
#endif
		c_seq[whose[i]] = seq[i];
		c_at[whose[i]] = i
	:: else
	fi;
	if
	:: IS_STANDIN(i) ->
		bad[i - HOMES] = blind[i] || body[i] == TORN;
		torn = torn + (!blind[i] && body[i] == TORN);
		if
		:: !blind[i] && body[i] == TORN && seq[i] > 0 && TORN_AT(i) > c_torn[whose[i]] ->
			c_torn[whose[i]] = TORN_AT(i)
		:: else
		fi
	:: else
	fi
}

inline load_winner(b)
{
	p = HOME(b, c_seq[HOME(b, 1)] > c_seq[HOME(b, 0)]);
	m_seq[b] = c_seq[p];
	best[b] = body[c_at[p]]
}

/* load_head(), load_homes(), load_standins(): the candidates */
inline load_candidates()
{
	for (i : 0 .. PLACES - 1) {
		if
		:: blind[i] = 0
		:: blinds > 0 ->
			blind[i] = 1;
			blinds--;
			printf("place %d cannot be read\n", i)
		fi
	}
	skip;
	d_step {
		unreadable = 0;
		torn = 0;
		torn_home = 0;
		clear = 1;
		for (i : 0 .. HOMES - 1) {
			c_seq[i] = 0;
			c_at[i] = i;
			c_torn[i] = 0;
			unseen[i] = 0;
			misses[i] = blind[i];
			torn_home = torn_home || body[i] == TORN
		}
		/* The superblock says what the other stand-ins are for. */
		for (i : 0 .. TABLE_STANDINS - 1) {
			if
			:: i < 2 || IS_STANDIN(i) ->
				load_candidate();
				unreadable = unreadable + (IS_STANDIN(i) && blind[i])
			:: else
			fi;
			clear = clear && !(blind[i] && (i < 2 || IS_STANDIN(i)))
		}
		one = clear;
		load_winner(0);
		for (i : 0 .. NSI - 1) {
			name[i] = (m_seq[0] -> NAMES_OF(best[0], i) : 0)
		}
		for (i : 2 .. PLACES - 1) {
			if
			:: i < HOMES -> load_candidate()
			:: i >= TABLE_STANDINS && name[i - TABLE_STANDINS] == 0 ->
				bad[i - HOMES] = blind[i];
#ifdef UNNAMED_HIDES
				for (p : 2 .. HOMES - 1) {
					unseen[p] = unseen[p] || blind[i]
				}
#endif
			:: i >= TABLE_STANDINS && name[i - TABLE_STANDINS] > 0 ->
				p = name[i - TABLE_STANDINS] + 1;
				if
				:: whose[i] == p || blind[i] || body[i] == TORN -> load_candidate()
				:: else
				fi;
				unseen[p] = unseen[p] || blind[i];
				misses[p] = misses[p] || blind[i]
			:: else
			fi
		}
		for (i : 1 .. NMB - 1) {
			load_winner(i);
			one = one && !(misses[HOME(i, 0)] && misses[HOME(i, 1)]);
			clear = clear && !misses[HOME(i, 0)] && !misses[HOME(i, 1)]
		}
		for (i : 0 .. HOMES - 1) {
			misses[i] = 0
		}
		p = 0
	}
}

/* Does a candidate contradict the winner of block i?  load_candidate() */
inline load_ambiguous()
{
	for (j : 0 .. PLACES - 1) {
		if
		:: !blind[j] && VALID(j) && whose[j] / 2 == i &&
		   seq[j] == m_seq[i] && body[j] != best[i] -> refused = 1
		:: else
		fi
	}
}

#ifdef TORN_TRUSTED
#define TORN_NEWER(h)	0
#elif defined(TORN_IF_LONE)
#define TORN_NEWER(h)	(c_torn[h] > c_seq[h] && !c_seq[(h) ^ 1])
#else
#define TORN_NEWER(h)	(c_torn[h] > c_seq[h])
#endif
#ifdef UNSEEN_TRUSTED
#define UNSEEN(h)	0
#elif defined(UNSEEN_BLOCK)
#define UNSEEN(h)	(unseen[h] || unseen[(h) ^ 1])
#else
#define UNSEEN(h)	unseen[h]
#endif
#define KNOWN(h)	(c_seq[h] && !TORN_NEWER(h) && !UNSEEN(h))

/* load_check(): is the newest state of every block known? */
inline load_check()
{
	refused = 0;
	for (i : 0 .. LIVE - 1) {
		load_ambiguous();
		known = KNOWN(HOME(i, 0)) + KNOWN(HOME(i, 1));
		if
		:: known == 2
		:: known == 0 || m_seq[i] == 0 -> refused = 1
#ifndef SUPER_UNCHECKED
		/* It cannot be said which copy a stand-in of the superblock hides. */
		:: known == 1 && i == 0 && unreadable > 0 -> refused = 1
#endif
		:: else
		fi
	}
	known = 0;
	/*
	 * Where all can be read nothing may stand in the way, torn or not.  Only when
	 * an earlier load could not read a copy, and was cut while it wrote a newer
	 * one to a stand-in, the copy is taken for an old one.
	 */
	assert(!refused || !clear || (torn > 0 && blinds < BLINDS));
	/* What a stand-in hides is a version of one copy.  The other one is enough. */
	assert(!refused || !one || torn > 0 || torn_home);
#ifndef TWO_TRUSTED
	if
	:: unreadable > 1 -> refused = 1
	:: else
	fi
#endif
}

/* load_places() */
inline load_places()
{
	for (i : 0 .. NXI + NSI - 1) {
		/* A place that the superblock has left, or begun to write, is never free. */
		used[i] = bad[i] || (i < NXI && (seq[HOMES + i] > 0 || body[HOMES + i] > 0))
	}
	for (i : 0 .. HOMES - 1) {
		m_at[i] = i;
		dirty[i / 2] = 0;
		failed[i / 2] = 0;
		if
#ifdef BACK_HOME
		:: IS_STANDIN(c_at[i]) && c_seq[i] == m_seq[i / 2] ->
#else
		:: IS_STANDIN(c_at[i]) ->
#endif
			m_at[i] = c_at[i];
			used[c_at[i] - HOMES] = 1
		:: else
		fi
	}
	ro = 0
}

#ifdef NO_PLUS_2
#define AHEAD	1
#else
#define AHEAD	2
#endif
#ifdef WINNER_FIRST
#define LESSER(b)	(c_seq[HOME(b, 0)] < c_seq[HOME(b, 1)])
#else
#define LESSER(b)	(c_seq[HOME(b, 0)] > c_seq[HOME(b, 1)])
#endif
#define UNEQUAL(b)	(c_seq[HOME(b, 0)] != c_seq[HOME(b, 1)])
#ifdef NO_OUTRANK
#define HIDES(b)	0
#else
#define HIDES(b)	(unseen[HOME(b, 0)] || unseen[HOME(b, 1)] || ((b) == 0 && unreadable))
#endif

/*
 * load_mend_one(), for each block whose copies are not equal, or may be unseen
 * from us; the superblock first, for the others may need a name.
 */
inline load_mend_pass()
{
	if
#ifdef NO_MEND
	:: HIDES(0) ->
#else
	:: UNEQUAL(0) || HIDES(0) ->
#endif
		s_first = LESSER(0);
		super_commit(AHEAD);
		if
		:: !ok -> refused = 1
		:: else
		fi
	:: else
	fi;
	mb = 1;
	do
	:: mb < LIVE && !refused ->
		if
#ifdef NO_MEND
		:: HIDES(mb) ->
#else
		:: UNEQUAL(mb) || HIDES(mb) ->
#endif
			copy = LESSER(mb);
			second = 0;
			do
			:: write_copy(m_seq[mb] + AHEAD);
			   if
			   :: ok && !second -> second = 1; copy = 1 - copy
			   :: else -> break
			   fi
			od;
			second = 0;
			if
			:: ok -> m_seq[mb] = m_seq[mb] + AHEAD
			:: else -> refused = 1
			fi
		:: else
		fi;
		mb++
	:: else -> break
	od;
	mb = 0; copy = 0; ok = 0; w_place = 0; w_seq = 0; w_body = 0; w_home = 0
}

/* erase_unreadable(): those that nobody has used hide nothing and stay as they are. */
inline load_erase()
{
	mb = 0;			/* the stand-in, here */
	do
	:: mb < NXI + NSI && !refused ->
		if
		:: bad[mb] && (mb < NXI || name[mb - NXI]) ->
			w_place = HOMES + mb; w_seq = 0; w_body = 0; w_home = 0;
			area_write()
		:: else
		fi;
		mb++
	:: else -> break
	od;
	mb = 0; ok = 0; w_place = 0
}

/* load_mend() */
inline load_mend()
{
#ifdef ERASE_EARLY
	load_erase();
#endif
	load_mend_pass()
#ifndef ERASE_EARLY
	;
	load_erase()
#endif
}

inline load_forget()
{
	for (i : 0 .. HOMES - 1) {
		c_seq[i] = 0; c_at[i] = 0; c_torn[i] = 0; best[i / 2] = 0; unseen[i] = 0
	}
	for (i : 0 .. PLACES - 1) {
		blind[i] = 0
	}
	for (i : 0 .. NXI + NSI - 1) {
		bad[i] = 0
	}
	i = 0; j = 0; p = 0; unreadable = 0; torn = 0; clear = 0; one = 0;
	torn_home = 0
}

/*
 * The unit's value, as its writer and its reader see it
 */

/* Values: 0 was there before, 1.. are writes, GARBAGE was never written. */
#define GARBAGE		6
#define NOTHING		7	/* an error instead of a value */
#define BIT(v)		(1 << (v))

byte may = BIT(0);		/* what a read may return, a set */
bit excused;			/* a write has failed since the last that did not */
byte last;			/* the last value */
bit doubt;
byte reloads = RELOADS;
byte got;

inline cut_here()
{
	if
	:: cuts > 0 -> printf("cut\n"); goto cut
	:: true
	fi
}

inline ack()
{
	printf("acknowledged: %d\n", last);
	may = BIT(last);
	excused = 0
}

/* A read, with what it says about the reads to come. */
inline read()
{
	d_step {
		if
		:: doubt -> printf("read: in doubt\n"); assert(excused)
		:: else ->
			read_it();
			printf("read: %d of set %x\n", got, may);
			assert(may & BIT(got));
			may = BIT(got)
		fi;
		got = 0
	}
}

/* The power is back, or a load that was refused is tried again. */
inline power_on()
{
	w_place = 0; w_seq = 0; w_body = 0; w_home = 0; tries = 0;
	mb = 0; copy = 0; ok = 0; all_ok = 0; second = 0; refused = 0; doubt = 0;
	s_copy = 0; s_first = 0; s_second = 0; place = 0
}
