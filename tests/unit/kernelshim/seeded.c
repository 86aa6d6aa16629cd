// SPDX-License-Identifier: GPL-2.0-only
/*
 * A generator chooses.
 *
 *	seeded SEED COUNT	areas 0..COUNT - 1 of this seed, then a histogram
 *	seeded SEED FIRST COUNT	the same from FIRST on, to see one again
 */
#include "fuzz.h"

static u64 state;

u64 choice(u64 n)
{
	u64 z = splitmix(&state);

	return n ? z % n : z;
}

#define MAX_REASONS	100
static struct { char text[160]; u64 count; } reason[MAX_REASONS];
static unsigned int nr_reasons;

/* Numbers in a reason are as good as any other. */
static void note_reason(const char *why)
{
	char text[160];
	unsigned int i, n = 0;
	const char *p;

	for (p = why; *p && n < sizeof(text) - 1; p++) {
		if (*p < '0' || *p > '9')
			text[n++] = *p;
		else if (!n || text[n - 1] != '#')
			text[n++] = '#';
	}
	text[n] = 0;
	for (i = 0; i < nr_reasons && strcmp(reason[i].text, text); i++)
		;
	if (i == MAX_REASONS)
		abort();
	if (i == nr_reasons)
		strcpy(reason[nr_reasons++].text, text);
	reason[i].count++;
}

int main(int argc, char **argv)
{
	u64 seed, first, count, i;
	const char *why;
	u32 n;

	if (argc < 3)
		return 2;
	fuzz_init();
	seed = strtoull(argv[1], NULL, 0);
	first = argc > 3 ? strtoull(argv[2], NULL, 0) : 0;
	count = strtoull(argv[argc - 1], NULL, 0);
	for (i = first; i < first + count; i++) {
		snprintf(area_name, sizeof(area_name), "seed %llu area %llu", seed, i);
		state = seed * 0x2545f4914f6cdd1dull ^ i << 20;
		make_area();
		for (n = some_damage(); n; n--)
			damage();
		why = judge();
		if (why)
			note_reason(why);
	}
	free_all_pages();
	printf("seed %llu\nareas %llu\n", seed, count);
	print_counts();
	for (n = 0; n < nr_reasons; n++)
		printf("reason %llu %s\n", reason[n].count, reason[n].text);
	return 0;
}
