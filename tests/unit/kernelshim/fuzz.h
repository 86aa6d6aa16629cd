/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The pieces of a fuzzer: loader.c is the loader, fuzz.c the areas and what must be so;
 * seeded.c and guided.c are the two that choose.
 */
#ifndef FUZZ_H
#define FUZZ_H
#define alloc_page	plain_alloc_page
#define __free_page	plain_free_page
#include "shim.h"
#undef alloc_page
#undef __free_page
#undef shim_say
#define shim_say(f, ...) snprintf(shim_log, sizeof(shim_log), f, ##__VA_ARGS__)
#undef DMERR_LIMIT
#define DMERR_LIMIT(f, ...) shim_say(f, ##__VA_ARGS__)

/* loader.c */
struct page *alloc_page(gfp_t g);
void __free_page(struct page *p);
void forget_pages(void);		/* what was read before is gone */
void free_all_pages(void);
extern int pages_out;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wsign-compare"
#include "dm-remap.h"
#pragma GCC diagnostic pop

/* fuzz.c: an area is made, damaged as often as one likes, and judged. */
void fuzz_init(void);
void make_area(void);
u32 some_damage(void);
void damage(void);
void overwrite(void);
const char *judge(void);		/* why it is refused; ends the process if that is wrong */
void print_counts(void);
extern char area_name[64];		/* what is said then */

/* seeded.c, guided.c: a number below @n, or any if @n is 0. */
u64 choice(u64 n);

static inline u64 splitmix(u64 *state)
{
	u64 z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}
#endif
