/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Metadata blocks in two copies with stand-ins: the part of the model that
 * metadata.pml and growth.pml share.  kernel/dm-remap-load.c is what it is a
 * model of, function by function; README.md says what was left out.
 *
 * Whoever includes it defines NMB (metadata blocks), NSI (stand-ins), REFUSALS
 * (writes of metadata that are refused), BLINDS (places that a load cannot read)
 * and CUTS (power cuts, all of them over the whole run), IMAGE(mb) (what memory
 * says a block holds, its body, in a byte), and the label `cut`, where the run
 * goes on after a power cut.
 *
 * There is one process, so each step that matters to a cut is one write, and
 * everything between two of them is atomic.
 */

#define HOMES		(2 * NMB)
#define PLACES		(HOMES + NSI)
#define HOME(mb, c)	(2 * (mb) + (c))
#define IS_STANDIN(p)	((p) >= HOMES)
#ifdef SUPER_UNCHECKED
#define FIRST_CHECKED	1
#else
#define FIRST_CHECKED	0
#endif
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
bit used[NSI];
bit dirty[NMB];
bit failed[NMB];
bit ro;

/* What the world may still do. */
byte refusals = REFUSALS;
byte blinds = BLINDS;
byte cuts = CUTS;

/* Registers, 0 where they are not in use, or there would be more states. */
byte mb, copy, tries;
byte w_place, w_seq, w_body, w_home;
bit ok, all_ok, second;
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

inline free_standin()
{
	w_place = NOWHERE;
	for (i : 0 .. NSI - 1) {
		if
#ifdef OVERWRITE_GOOD
		:: w_place == NOWHERE && i >= tries -> w_place = HOMES + i
#else
		:: w_place == NOWHERE && !used[i] -> w_place = HOMES + i
#endif
		:: else
		fi
	}
	i = 0
}

/* write_copy(): home or wherever it lives, else the first free stand-in. */
inline write_copy(sequence)
{
	w_home = HOME(mb, copy);
	w_place = m_at[w_home];
	w_seq = sequence;
	w_body = IMAGE(mb);
	do
	:: w_place == NOWHERE -> break
	:: else ->
		area_write();
		if
		:: ok -> m_at[w_home] = w_place; break
		:: !ok && tries == NSI -> break
		:: else ->
			free_standin();
			tries++;
			if
			:: w_place != NOWHERE -> used[w_place - HOMES] = 1
			:: else
			fi
		fi
	od;
	w_place = 0; w_seq = 0; w_body = 0; w_home = 0; tries = 0
}

#ifdef NO_COPY_B
#define LAST_COPY	1
#else
#define LAST_COPY	2
#endif

/* metadata_commit(): copy A of all dirty blocks, then copy B.  all_ok: it did. */
inline commit()
{
	all_ok = 1;
	copy = 0;
	do
	:: copy < LAST_COPY ->
		mb = 0;
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
	for (mb : 0 .. NMB - 1) {
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
bit bad[NSI];			/* a stand-in is torn or cannot be read */
byte c_seq[HOMES];		/* struct copy */
byte c_at[HOMES];
byte c_torn[HOMES];		/* the highest sequence of a torn stand-in for it */
byte best[NMB];			/* the winner's body */
bit refused;
bit equal, erased;
byte unreadable;		/* stand-ins */
byte torn;			/* stand-ins */
byte known;			/* copies that are the newest */
bit clear;		/* every place can be read */

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
		clear = 1;
		for (i : 0 .. HOMES - 1) {
			c_seq[i] = 0;
			c_at[i] = i;
			c_torn[i] = 0
		}
		for (i : 0 .. PLACES - 1) {
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
			clear = clear && !blind[i];
			if
			:: IS_STANDIN(i) ->
				bad[i - HOMES] = blind[i] || body[i] == TORN;
				torn = torn + (!blind[i] && body[i] == TORN);
				if
				:: blind[i] -> unreadable++
#ifdef TORN_AGAINST_ALL
				:: !blind[i] && body[i] == TORN -> unreadable++
#else
				:: !blind[i] && body[i] == TORN && seq[i] > c_torn[whose[i]] ->
					c_torn[whose[i]] = seq[i]
#endif
				:: else
				fi
			:: else
			fi
		}
		for (i : 0 .. NMB - 1) {
			p = HOME(i, c_seq[HOME(i, 1)] > c_seq[HOME(i, 0)]);
			m_seq[i] = c_seq[p];
			best[i] = body[c_at[p]]
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
#elif defined(TORN_NO_SEQ)
#define TORN_NEWER(h)	(c_torn[h] > 0)
#elif defined(TORN_IF_LONE)
#define TORN_NEWER(h)	(c_torn[h] > c_seq[h] && !c_seq[(h) ^ 1])
#else
#define TORN_NEWER(h)	(c_torn[h] > c_seq[h])
#endif
#define KNOWN(h)	(c_seq[h] && !TORN_NEWER(h))

/* load_check(): is the newest state of every block known? */
inline load_check()
{
	refused = 0;
	for (i : 0 .. LIVE - 1) {
		load_ambiguous();
		known = KNOWN(HOME(i, 0)) + KNOWN(HOME(i, 1));
		if
		:: known == 2
		:: m_seq[i] == 0 -> refused = 1
		:: else ->
			if
#ifndef LONE_TRUSTED
			:: known <= (unreadable > 0) && i >= FIRST_CHECKED -> refused = 1
#else
			:: known == 0 -> refused = 1
#endif
			:: else
			fi
		fi
	}
	known = 0;
	/*
	 * Where all can be read nothing may stand in the way, torn or not.  Only when
	 * an earlier load could not read a copy, and was cut while it wrote a newer
	 * one to a stand-in, the copy is taken for an old one.
	 */
	assert(!refused || !clear || (torn > 0 && blinds < BLINDS));
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
	for (i : 0 .. NSI - 1) {
		used[i] = bad[i]
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

/* load_mend_one(), for each block whose copies are equal, or are not */
inline load_mend_pass()
{
	mb = 0;
	do
	:: mb < LIVE && !refused ->
		if
		:: (c_seq[HOME(mb, 0)] == c_seq[HOME(mb, 1)]) == equal ->
#ifdef WINNER_FIRST
			copy = c_seq[HOME(mb, 0)] < c_seq[HOME(mb, 1)];
#else
			copy = c_seq[HOME(mb, 0)] > c_seq[HOME(mb, 1)];
#endif
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
	mb = 0; copy = 0; ok = 0
}

/* erase_unreadable() */
inline load_erase()
{
	erased = 1;
	mb = 0;			/* the stand-in, here */
	do
	:: mb < NSI && !refused ->
		if
		:: bad[mb] ->
			w_place = HOMES + mb; w_seq = 0; w_body = 0; w_home = 0;
			area_write();
			if
			:: !ok -> erased = 0
			:: else
			fi
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
	equal = 0;
	erased = 1;
#ifdef ERASE_EARLY
	load_erase();
#endif
	do
	:: true ->
#ifdef NO_MEND
		if
		:: !equal -> skip
		:: else -> load_mend_pass()
		fi;
#else
		load_mend_pass();
#endif
		if
		:: equal || refused -> break
		:: else
		fi;
#ifndef ERASE_EARLY
		load_erase();
#endif
#ifdef NO_OUTRANK
		erased = 1;
#endif
		if
		:: erased -> break
		:: else -> equal = 1
		fi
	od;
	equal = 0; erased = 0
}

inline load_forget()
{
	for (i : 0 .. HOMES - 1) {
		c_seq[i] = 0; c_at[i] = 0; c_torn[i] = 0; best[i / 2] = 0
	}
	for (i : 0 .. PLACES - 1) {
		blind[i] = 0
	}
	for (i : 0 .. NSI - 1) {
		bad[i] = 0
	}
	i = 0; j = 0; p = 0; unreadable = 0; torn = 0; clear = 0
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
	mb = 0; copy = 0; ok = 0; all_ok = 0; equal = 0; erased = 0; second = 0;
	refused = 0; doubt = 0
}
