/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The epoch: does a set know its spare from an older copy of it?
 *
 * A whole copy of the spare is made at any step and put in the spare's place at any
 * later time that no table is loaded, and so is what it took the place of.  One
 * unit is mapped or not; its entry and both copies of a block are one write here,
 * for what a cut leaves of them is in metadata.pml.
 *
 * Nothing asks more of the epoch than it can know.  What is asserted of a load
 * that takes a spare whose unit reads as something old, and what it may refuse,
 * stands in load_judge().
 */
#ifndef CUTS
#define CUTS		1
#endif
#ifndef LOADS
#define LOADS		2	/* behind the first one */
#endif
#ifndef WRITES
#define WRITES		2
#endif
#ifndef PUTS
#define PUTS		1	/* a spare is put in the place of the other */
#endif
#ifndef TICKS
#define TICKS		1	/* hours */
#endif
#ifndef STOPS
#define STOPS		1	/* the device becomes quiet */
#endif
#ifndef REFUSALS
#define REFUSALS	0	/* the spare takes a superblock copy nowhere */
#endif
#ifndef BLINDS
#define BLINDS		0	/* a superblock copy cannot be read, this time */
#endif
#ifndef TAG_REFUSALS
#define TAG_REFUSALS	0
#endif
#ifndef TAG_BLINDS
#define TAG_BLINDS	0
#endif
#ifndef READS
#define READS		0	/* somebody looks, while the set runs */
#endif
#ifndef ADOPTED
#define ADOPTED		0	/* main has no tag: the host remembers */
#endif
#ifndef ACCEPTS
#define ACCEPTS		0	/* repair --accept-older-spare */
#endif

/*
 * A pair is a number and an id, and ids are never the same twice.  Number 0: the
 * copy is torn, or there is none.  The number of the pair before is one less.
 */
typedef spare {
	byte num[2], id[2];	/* the superblock's two copies */
	byte before[2];		/* the id of the pair before */
	bit mapped;
	byte slot;
	bit right		/* to refuse it would be wrong */
};
spare sp[2];
bit u;				/* the one in use */
bit other;			/* there is another one */
#define O		(1 - u)

/* Main: its tag, and the unit.  On an adopted main copy 0 is the host's memory. */
byte t_num[2], t_id[2];
byte on_main;

/* What a table has in memory, and who it is that runs. */
byte m_num, m_id;
bit running, io, ro;
bit written;			/* slots or tables were written since the last raise */
bit job;			/* a raise waits in the commit work */
bit stopped;
byte o_num, o_id;		/* of the table before, that still exists */

/* The unit */
byte last;			/* acknowledged */
byte flying;			/* on its way to the slot; 0: nothing is */
bit landed;
byte writes;

/* What was owed: to know the other one, and the one in use, from the right one. */
bit owed[2];
bit pend;
bit torn_tag;			/* a refused write has torn a copy of the tag */
bit forked;			/* a copy of the tag is another history's */
bit since;			/* an adopted main: the raise that the host may see */

/* What the world may still do. */
byte cuts = CUTS, loads = LOADS, puts = PUTS, ticks = TICKS, stops = STOPS;
byte refusals = REFUSALS, blinds = BLINDS;
byte tag_refusals = TAG_REFUSALS, tag_blinds = TAG_BLINDS;
byte reads = READS, accepts = ACCEPTS;
bit copied;

/* Registers */
byte ids;
byte w_num, w_id, w_before;
byte s_num, s_id, s_before;	/* the superblock, as it was read */
byte r_num, r_id;		/* the tag, as it was read */
byte l_num, l_id;		/* the tag, as the one who only looks has read it */
byte l_s, l_sid, l_sbefore;
bit looking;
bit ok, failed, tag_ok, tag_tried, refused, none, differ, blind[2], tag_blind[2];
bit conflict, first, n;
byte got, i;
byte step, why;

/* Who raises, or only writes the superblock. */
#define BY_MEND		1
#define BY_LOAD		2
#define BY_JOB		3	/* of a resume after a stop */
#define BY_HOUR		4
#define BY_STOP		5
#define BY_ACCEPT	6
#define BY_DTR		7

#define HELD(x)		(sp[x].mapped -> sp[x].slot : on_main)
#define LACKS		(other && HELD(O) < last)

inline submit()
{
	writes++;
	flying = writes;
	landed = 0
#ifdef WRITTEN_EARLY
	; written = 1
#endif
}

/* The write is complete: it counts as activity before it is acknowledged. */
inline complete()
{
#ifndef WRITTEN_EARLY
	written = 1;
#endif
	last = flying;
	flying = 0;
	landed = 0;
	printf("acknowledged: %d\n", last)
}

inline make_copy()
{
	copied = 1;
	other = 1;
	for (i : 0 .. 1) {
		sp[O].num[i] = sp[u].num[i];
		sp[O].id[i] = sp[u].id[i];
		sp[O].before[i] = sp[u].before[i]
	}
	i = 0;
	sp[O].mapped = sp[u].mapped;
	sp[O].slot = sp[u].slot;
	sp[O].right = sp[u].right;
	owed[O] = owed[u];
	printf("the spare is copied: %d, %d\n", sp[u].num[0], sp[u].num[1])
}

#define AHEAD(t, s)	((t) > (s))
#define OTHER_ID(t, ti, s, si)	((t) == (s) && (ti) != (si))
#define OTHER_BEFORE(t, ti, s, b) ((t) + 1 == (s) && (ti) != (b))
#ifdef BEHIND_REFUSED
#define FURTHER(t, s)	((t) + 1 < (s))
#else
#define FURTHER(t, s)	0
#endif
#ifdef AHEAD_TRUSTED
#undef AHEAD
#define AHEAD(t, s)	0
#endif
#ifdef ID_TRUSTED
#undef OTHER_ID
#define OTHER_ID(t, ti, s, si)	0
#endif
#ifdef BEFORE_TRUSTED
#undef OTHER_BEFORE
#define OTHER_BEFORE(t, ti, s, b) 0
#endif
#define REFUSE(t, ti, s, si, b)	((t) > 0 && (AHEAD(t, s) || OTHER_ID(t, ti, s, si) || \
				 OTHER_BEFORE(t, ti, s, b) || FURTHER(t, s)))

inline look_tag()
{
	d_step {
		i = (t_num[1] > t_num[0]);
		l_num = t_num[i]; l_id = t_id[i];
		i = 0
	}
}

inline look_super()
{
	d_step {
		i = (sp[u].num[1] > sp[u].num[0]);
		l_s = sp[u].num[i]; l_sid = sp[u].id[i]; l_sbefore = sp[u].before[i];
		i = 0
	}
}

/* A ctr of a table to come, or the control plane, while the set runs. */
inline look()
{
	if
	:: !looking ->
		looking = 1;
#ifdef SUPER_READ_FIRST
		look_super()
#else
		look_tag()
#endif
	:: else ->
#ifdef SUPER_READ_FIRST
		look_tag();
#else
		look_super();
#endif
		assert(!REFUSE(l_num, l_id, l_s, l_sid, l_sbefore) || forked);
		looking = 0; reads--;
		l_num = 0; l_id = 0; l_s = 0; l_sid = 0; l_sbefore = 0
	fi
}

/* What may happen between any two steps. */
inline world()
{
	do
	:: !copied && !other && puts > 0 -> make_copy()
	:: io && !flying && sp[u].mapped && writes < WRITES -> submit()
	:: io && flying && !landed && sp[u].mapped -> sp[u].slot = flying; landed = 1
	:: io && flying && landed -> complete()
	:: io && reads > 0 -> look()
#if ADOPTED
	:: running && t_num[0] < m_num ->
		t_num[0] = m_num; t_id[0] = m_id;
		owed[O] = owed[O] || (since && other);
		sp[O].right = 0; sp[u].right = 1;
		since = 0
#endif
	:: cuts > 0 && running -> goto cut
	:: break
	od
}

/*
 * The steps of a raise: 0 and 1 are a copy of the superblock, 2 and 3 of the tag.
 * Mending is the first two.
 */
#ifdef TAG_FIRST
#define STEP		((step + 2) % 4)
#elif defined(TAG_AFTER_ONE)
#define STEP		(step == 0 -> 0 : (step == 3 -> 1 : step + 1))
#else
#define STEP		step
#endif
#if ADOPTED
#define STEPS		2
#else
#define STEPS		(why == BY_MEND || why == BY_DTR -> 2 : 4)
#endif
/* Superblock copies that could not be made equal, but can be read: they differ in the pair. */
#ifdef EPOCH_UNEQUAL
#define EQUAL		0
#else
#define EQUAL		differ
#endif
#ifdef TAG_ANYWAY
#define TAG_TOO		1
#else
#define TAG_TOO		(!failed)
#endif

/* One copy of the superblock, wherever that lives.  The lesser one is mended first. */
inline super_write()
{
	n = (why == BY_MEND -> STEP ^ first : STEP);
	if
	:: sp[u].num[n] = w_num; sp[u].id[n] = w_id; sp[u].before[n] = w_before;
	   printf("superblock %d takes %d, id %d\n", n, w_num, w_id);
	   if
	   :: why == BY_ACCEPT && step == 1 -> sp[u].right = 1	/* else: do it again */
	   :: else
	   fi
	:: refusals > 0 -> refusals--; failed = 1; printf("superblock %d cannot be written\n", n)
	:: cuts > 0 -> sp[u].num[n] = 0; printf("cut tears superblock %d\n", n); goto cut
	fi
}

/* From here on the other one is another history's. */
inline tag_takes()
{
	t_num[n] = w_num; t_id[n] = w_id;
	sp[u].right = 1; sp[O].right = 0;
	printf("tag %d takes %d, id %d\n", n, w_num, w_id)
}

/* Copies that are behind come first: the newest is not torn before there is another. */
inline tag_write()
{
	if
	:: !tag_tried ->
#ifdef TAG_IN_ORDER
		first = 0;
#else
		first = t_num[0] > t_num[1];
#endif
		tag_tried = 1;
		n = first
	:: else -> n = 1 - first
	fi;
	if
	:: tag_takes(); tag_ok = 1
	:: tag_refusals > 0 ->
		tag_refusals--;
		printf("tag %d refuses %d\n", n, w_num);
		if
		:: true
		:: t_num[n] = 0; torn_tag = 1
		:: tag_takes()
		fi
	:: cuts > 0 ->
		/* It was the only one that still takes writes. */
		if
		:: n != first && !tag_ok -> torn_tag = 1
		:: else
		fi;
		t_num[n] = 0;
		printf("cut tears tag %d\n", n);
		goto cut
	fi
}

/* w_*: the pair that is written. */
inline write_steps()
{
	step = 0;
	failed = 0; tag_ok = 0; tag_tried = 0;
	do
	:: step < STEPS ->
		world();
		if
		:: STEP < 2 && !failed -> super_write()
		:: STEP >= 2 && TAG_TOO -> tag_write()
		:: else
		fi;
		step++
	:: else -> break
	od;
	step = 0; n = 0; first = 0
}

/* pend: what the raise owes, when it has reached the tag. */
inline raise_begin(by)
{
	why = by;
	ids++;
	w_num = m_num + 1; w_id = ids; w_before = m_id;
#ifndef WRITTEN_LATE
	written = 0
#endif
}

inline raise_end()
{
	if
	:: !failed -> m_num = w_num; m_id = w_id
	:: else
#ifndef FAILED_RW
		; ro = 1
#endif
	fi;
#if ADOPTED
	since = since || (pend && !failed);
	tag_tried = 1;
#endif
#ifdef WRITTEN_LATE
	written = 0;
#endif
#ifndef NO_RETRY
	/* Given up: the next hour tries again. */
	written = written || !tag_ok;
#endif
	w_num = 0; w_id = 0; w_before = 0
}

/* The raise is behind us: or should be. */
inline passed()
{
	if
	:: pend && other && !ro && (tag_ok || !tag_tried) -> owed[O] = 1
	:: else
	fi;
	pend = 0; tag_ok = 0; tag_tried = 0; failed = 0; why = 0
}

inline read_tag()
{
	for (i : 0 .. 1) {
		if
		:: tag_blind[i] = 0
		:: tag_blinds > 0 && t_num[i] > 0 -> tag_blind[i] = 1; tag_blinds--
		fi
	}
	skip;
	d_step {
		r_num = 0; r_id = 0; conflict = 0;
		for (i : 0 .. 1) {
			if
			:: !tag_blind[i] && t_num[i] > r_num -> r_num = t_num[i]; r_id = t_id[i]
			:: !tag_blind[i] && t_num[i] == r_num && r_num && t_id[i] != r_id -> conflict = 1
			:: else
			fi
		}
	}
}

inline read_super()
{
	for (i : 0 .. 1) {
		if
		:: blind[i] = 0
		:: blinds > 0 && sp[u].num[i] > 0 -> blind[i] = 1; blinds--
		fi
	}
	skip;
	d_step {
		s_num = 0; s_id = 0; s_before = 0; none = 1;
		differ = sp[u].num[0] != sp[u].num[1] || blind[0] || blind[1];
		for (i : 0 .. 1) {
			if
			:: !blind[i] && sp[u].num[i] > s_num ->
				s_num = sp[u].num[i]; s_id = sp[u].id[i];
				s_before = sp[u].before[i]; none = 0
			:: else
			fi
		}
		/* Both are there, and what they differ in is the epoch. */
		ok = sp[u].num[0] && sp[u].num[1] && !blind[0] && !blind[1];
		i = 0
	}
}

#define NEWEST_TAG	(t_num[0] > t_num[1] -> t_num[0] : t_num[1])

/* May it be refused?  May it be taken? */
inline load_judge()
{
	refused = none || conflict || REFUSE(r_num, r_id, s_num, s_id, s_before);
	printf("load: superblock %d id %d before %d, tag %d id %d: %d\n", s_num, s_id, s_before,
	       r_num, r_id, refused);
	/*
	 * The spare that the tag was written with last is never refused while one of
	 * its superblock's copies can be read.  But where a load could not read the
	 * tag's newest copy, and so took an older spare, there may be two histories
	 * in the tag.
	 */
	assert(!refused || none || forked || !sp[u].right);
	got = HELD(u);
	/*
	 * A spare that reads as something old is refused, if there was a raise since
	 * it was copied or taken away, but for
	 *  - a tag whose newest copy cannot be read, or was torn and refused;
	 *  - a tag that holds two histories for that reason;
	 *  - a spare whose number is two or more above the tag's: its own raises have
	 *    not reached the tag.
	 */
	assert(refused || got == last || (flying && got == flying) || !owed[u] ||
	       r_num < NEWEST_TAG || torn_tag || forked || s_num > r_num + 1);
	if
	:: !refused && r_num < NEWEST_TAG && NEWEST_TAG >= s_num -> forked = 1
	:: else
	fi
}

/* What was read once stays. */
inline settle()
{
	last = got;
	flying = 0; landed = 0;
	owed[u] = 0
}

/* Registers that are not in use are 0, or there would be more states. */
inline forget_read()
{
	s_num = 0; s_id = 0; s_before = 0; r_num = 0; r_id = 0; got = 0; i = 0;
	none = 0; conflict = 0; refused = 0; ok = 0;
	blind[0] = 0; blind[1] = 0; tag_blind[0] = 0; tag_blind[1] = 0
}

inline forget()
{
	forget_read();
	differ = 0
}

init {
	atomic {
		for (i : 0 .. 1) {
			sp[0].num[i] = 1; t_num[i] = 1
#if ADOPTED
			; t_num[1] = 0
#endif
		}
		i = 0;
		sp[0].right = 1;
		if
		:: true
		:: sp[0].mapped = 1
		fi;
		goto load
	}
rest:
	/* No table is loaded. */
	atomic {
		running = 0; io = 0; ro = 0; job = 0; stopped = 0; written = 0;
		m_num = 0; m_id = 0; o_num = 0; o_id = 0; since = 0;
		looking = 0; l_num = 0; l_id = 0; l_s = 0; l_sid = 0; l_sbefore = 0;
		if
		:: puts > 0 && !copied && !other -> make_copy(); goto rest
		:: puts > 0 && other ->
			puts--;
			u = O;
			printf("the other spare is in its place: %d, %d\n", sp[u].num[0],
			       sp[u].num[1]);
			goto rest
		:: loads > 0 -> loads--; goto load
		:: true -> goto done
		fi
	}
load:
	atomic {
		running = 1;
		read_tag();
		read_super();
		load_judge();
		if
		:: refused && !none && accepts > 0 -> goto accept
		:: refused -> forget(); goto rest
		:: else
		fi;
		settle();
		if
		:: differ ->
			w_num = s_num; w_id = s_id; w_before = s_before;
			first = !blind[0] && sp[u].num[0] == s_num;
			differ = ok;		/* in the epoch only */
			forget_read();
			why = BY_MEND;
			goto write
		:: else -> m_num = s_num; m_id = s_id
		fi;
		forget_read()
	}
mended:
	atomic {
#ifdef RAISE_BEHIND_IO
		pend = other; passed();
		io = 1;
#endif
		pend = other;
#ifndef NO_RAISE_AT_LOAD
		if
		:: !ro -> raise_begin(BY_LOAD); goto write
		:: else
		fi;
#endif
		passed()
	}
loaded:
	atomic {
		io = 1;
#ifdef DTR_RAISES
		if
		:: o_num > 0 ->
			why = BY_DTR;
			ids++;
			w_num = o_num + 1; w_id = ids; w_before = o_id;
			o_num = 0; o_id = 0;
			goto write
		:: else
		fi;
#endif
		o_num = 0; o_id = 0;
		goto open
	}
write:
	atomic {
		write_steps();
		if
		:: why == BY_MEND ->
			m_num = w_num; m_id = w_id;
			w_num = 0; w_id = 0; w_before = 0;
			why = 0;
			if
			:: !failed
			:: failed && EQUAL ->
				ro = 1;
#ifndef HIGHER_SHOWN
				/* What is not durable twice is shown to nobody. */
				n = sp[u].num[0] > sp[u].num[1];
				m_num = sp[u].num[n]; m_id = sp[u].id[n];
				n = 0
#endif
			:: failed && !EQUAL ->
				/* Both copies can be read, and what they say is the same set. */
				assert(!differ);
				failed = 0; differ = 0;
				goto rest
			fi;
			failed = 0; differ = 0;
			goto mended
		:: why == BY_DTR ->
			w_num = 0; w_id = 0; w_before = 0; why = 0; failed = 0;
			goto open
		:: why == BY_LOAD -> raise_end(); passed(); goto loaded
		:: why == BY_JOB || why == BY_HOUR -> raise_end(); passed(); goto open
		:: why == BY_STOP -> raise_end(); stopped = !ro; passed(); goto stopping
		:: why == BY_ACCEPT -> raise_end(); passed(); goto rest
		fi
	}
open:
	atomic {
		world();
		if
		/* The commit work: its first job, a new mapping. */
		:: job ->
			job = 0;
			pend = other;
#ifndef NO_RAISE_AT_RESUME
			if
			:: !ro -> raise_begin(BY_JOB); goto write
			:: else
			fi;
#endif
			passed();
			goto open
		:: !job && !flying && !sp[u].mapped && !ro && writes < WRITES ->
			writes++;
			flying = writes;
			sp[u].slot = flying;
			if
			:: cuts > 0 -> goto cut
			:: true
			fi;
			landed = 1;
			sp[u].mapped = 1;
			if
			:: cuts > 0 -> goto cut
			:: true -> complete()
			fi;
			goto open
		:: !flying && !sp[u].mapped && writes < WRITES ->
			writes++;
			on_main = writes; last = writes;
			goto open
		:: ticks > 0 && !job ->
			ticks--;
			pend = LACKS;
			printf("an hour: %d\n", written);
#ifndef NO_RAISE_HOURLY
			if
			:: written && !ro -> raise_begin(BY_HOUR); goto write
			:: else
			fi;
#endif
			passed();
			goto open
		:: stops > 0 && !flying && !looking -> stops--; goto quiet
		:: cuts > 0 -> goto cut
		:: true -> goto done
		fi
	}
quiet:
	atomic {
		io = 0;
		/* The commit work is idle, and what it has not begun it does later. */
		if
		:: job -> job = 0; stopped = 1
		:: else
		fi;
		if
		:: !ro ->
			pend = other;
#ifndef NO_RAISE_AT_STOP
			raise_begin(BY_STOP); goto write;
#endif
			stopped = 1;
			passed()
		:: true
		fi
	}
stopping:
	atomic {
		world();
		if
		:: true ->			/* resumed */
			if
			:: stopped && !ro -> job = 1; stopped = 0
			:: else
			fi;
			io = 1;
			goto open
		:: loads > 0 ->			/* reloaded */
			loads--;
			o_num = m_num; o_id = m_id;
			m_num = 0; m_id = 0; ro = 0; written = 0; stopped = 0;
			goto load
		:: true -> goto rest		/* removed */
		fi
	}
accept:
	/* A person was told.  What it reads from now on is what it holds. */
	atomic {
		accepts--;
		settle();
		why = BY_ACCEPT;
		ids++;
#ifdef ACCEPT_LOW
		w_num = s_num + 1;
#else
		w_num = 1 + (r_num > s_num -> r_num : s_num);
#endif
#ifdef ACCEPT_FORGETS
		w_before = s_id;
#else
		w_before = (r_num >= s_num -> r_id : s_id);
#endif
		w_id = ids;
		/* It is as if the rest of the tag were another history's. */
		forked = forked || r_num < NEWEST_TAG;
		forget();
		pend = other;
		goto write
	}
cut:
	atomic {
		cuts--;
		printf("cut\n");
		w_num = 0; w_id = 0; w_before = 0; pend = 0; step = 0; why = 0;
		failed = 0; n = 0; first = 0; tag_ok = 0; tag_tried = 0; differ = 0;
		/* What flew may have landed. */
		if
		:: flying && !landed -> sp[u].slot = flying
		:: true
		fi;
		landed = 0;
		goto rest
	}
done:
	skip
}
